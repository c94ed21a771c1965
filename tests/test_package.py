"""Importing bnlib is light."""

import subprocess
import sys


def test_import_needs_numpy_alone() -> None:
    code = """
import sys, time
import numpy
before = set(sys.modules)
start = time.perf_counter()
import bnlib
print(f"import bnlib: {time.perf_counter() - start:.3f} s beyond NumPy")
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = done.stdout.splitlines()
    print(seconds)  # reported, not decided here: a busy machine is slow
    assert modules == "bnlib"
