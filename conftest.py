"""What every test starts with, a notebook's kernel among them."""

import os
from contextlib import suppress
from pathlib import Path

from notebooks import QUIET

os.environ.update(QUIET)
# The tests run side by side. Beside a load, a product of 60 rows took 26 ms with two threads of
# BLAS, which wait for one another, and 0.2 ms with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # nor does a study start workers

# Numba keeps compiled code for as long as `compiled.py` stays as it is, and does not see that
# `formulas.py`, which it compiles with it, has changed.
BNLIB = Path(__file__).parent / "bnlib"
for kept in (BNLIB / "__pycache__").glob("compiled.*.nb?"):
    with suppress(FileNotFoundError):  # another process of the tests was first
        if kept.stat().st_mtime < (BNLIB / "formulas.py").stat().st_mtime:
            kept.unlink()
