"""book/equations.yml: a test that is said to hold a function fails when that is 1 % wrong."""

import importlib.util
import json
import subprocess
import sys
from collections import defaultdict

import pytest
from bnbook.equations import functions, registry
from conftest import ROOT

HELD = defaultdict(set)
for entry in registry().values():
    for name, tests in functions(entry).items():
        HELD[name] |= set(tests)
NUMPY = "test_batchnorm.py::test_gradients_by_central_differences"  # holds none of the kernels


@pytest.fixture(scope="module")
def ends():
    """How the tests of each function end with it broken: one by one, in one process."""
    tests = {name: sorted(tests) for name, tests in HELD.items()}
    tests["bnlib.torch.triton.backward"].append(NUMPY)
    if importlib.util.find_spec("triton") is None:
        tests = {name: tests for name, tests in tests.items() if ".triton." not in name}
    command = [sys.executable, ROOT / "tests" / "breaking.py"]
    given = json.dumps(tests)
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", HELD)
def test_what_holds_a_function_fails_when_it_is_wrong(name, ends):
    if name not in ends:
        pytest.skip("Triton is not installed")
    for test in HELD[name]:
        assert ends[name][test] == "fails", f"with {name} 1 % wrong, {test} {ends[name][test]}"


def test_other_tests_stay_green(ends):
    if "bnlib.torch.triton.backward" not in ends:
        pytest.skip("Triton is not installed")
    assert ends["bnlib.torch.triton.backward"][NUMPY] == "stays green"
