"""Break functions of bnlib, one at a time, and see what becomes of the tests that hold them.

Reads from stdin, as JSON, the tests of each function; prints, likewise, how each test ends. It is a
process of its own, in which Triton's interpreter runs the kernels.
"""

import contextlib
import dataclasses
import json
import os
import pkgutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

os.environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

import hypothesis
import numpy as np
import pytest
import ranks
import torch
from _pytest.runner import runtestprotocol

SHARE = 0.01
FLOATS = torch.float16, torch.float32, torch.float64
JOBS = "job_cases", "job_layer"  # of all that the ranks do, what the tests look at

ranks.METHOD = "fork"  # in a process that is started afresh nothing is broken
torch.set_num_threads(1)  # a process with more must not fork
find, take = hypothesis.Phase.generate, hypothesis.Phase.explicit  # and look for no smaller example
hypothesis.settings.register_profile("find", phases=[find, take], database=None, derandomize=True)
hypothesis.settings.load_profile("find")


def wrong(function: Callable[..., Any], share: float) -> Callable[..., Any]:
    """The function with results that are too large, by this share on the average.

    So is what it writes into its arguments, `self` among them. Each number has a share of its own:
    an equal one would cancel in an invariance, and keep orthogonal what is so.
    """
    drawn = np.random.default_rng(0)

    def larger(v: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(v * (1 + share * drawn.uniform(0.5, 1.5, v.shape)), v.dtype)

    def result(v: Any, given: dict[int, np.ndarray]) -> Any:
        if id(v) in given:
            return v
        if isinstance(v, float):
            return float(larger(np.float64(v)))
        if isinstance(v, np.ndarray) and v.dtype.kind == "f":
            return larger(v)
        if isinstance(v, torch.Tensor) and v.dtype in FLOATS:
            return v * torch.from_numpy(larger(np.ones(v.shape))).to(v)
        if isinstance(v, tuple):
            values = [result(one, given) for one in v]
            return type(v)(*values) if hasattr(v, "_fields") else tuple(values)
        if isinstance(v, dict):
            return {key: result(one, given) for key, one in v.items()}
        if isinstance(v, SimpleNamespace):
            return SimpleNamespace(**result(vars(v), given))
        if dataclasses.is_dataclass(v):
            names = [field.name for field in dataclasses.fields(v)]
            return type(v)(**{name: result(getattr(v, name), given) for name in names})
        if hasattr(v, "handle"):  # a tensor of Triton's interpreter
            v.handle.data = result(v.handle.data, given)
        return v

    def call(*arguments: Any, **options: Any) -> Any:
        given = arrays((arguments, options))
        before = {key: v.copy() for key, v in given.items()}
        results = function(*arguments, **options)
        for key, v in given.items():
            written = v != before[key]
            if written.any():
                v[written] = larger(v[written])
        return result(results, given)

    return call


def arrays(v: Any) -> dict[int, np.ndarray]:
    """The arrays in v, and in objects of bnlib in it, by the id of what has this memory."""
    found: dict[int, np.ndarray] = {}
    seen, todo = set(), [v]
    while todo:
        v = todo.pop()
        if id(v) in seen:
            continue
        seen.add(id(v))
        if isinstance(v, np.ndarray) and v.dtype.kind == "f":
            found[id(v)] = v
        elif isinstance(v, torch.Tensor) and v.dtype in FLOATS:
            found[id(v)] = v.detach().numpy()
        elif isinstance(v, dict):
            todo += v.values()
        elif isinstance(v, list | tuple):
            todo += v
        elif type(v).__module__.startswith("bnlib") and hasattr(v, "__dict__"):
            todo += vars(v).values()
    return found


@contextlib.contextmanager
def broken(name: str, share: float) -> Iterator[None]:
    """Within it, the function is `wrong` wherever it is bound."""
    where, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(where)
    function = vars(owner)[attribute]
    changed: Any = wrong(function, share)
    if isinstance(function, staticmethod):
        changed = staticmethod(changed)
    owners = [owner] if isinstance(owner, type) else list(sys.modules.values())
    with pytest.MonkeyPatch.context() as patch:
        for owner in owners:
            for key, value in list(getattr(owner, "__dict__", {}).items()):
                if value is function:
                    patch.setattr(owner, key, changed)
        yield


class Plugin:
    """Runs the tests function by function."""

    def __init__(self, tests: dict[str, list[str]]) -> None:
        self.tests, self.ends = tests, defaultdict(dict)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        ranks_do = vars(sys.modules["test_distributed"])
        for name in [name for name in ranks_do if name.startswith("job_") and name not in JOBS]:
            del ranks_do[name]
        cases = defaultdict(list)
        for item in reversed(session.items):  # some functions belong to the last of several paths
            cases[f"{item.path.name}::{item.originalname}"].append(item)
        for name, tests in self.tests.items():
            for test in tests:
                self.ends[name][test] = self.end(name, cases[test])
        return True

    def end(self, name: str, cases: list[pytest.Item]) -> str:
        """How a test ends, whose cases these are, when the function is broken."""
        for case in cases:
            if self.run(name, SHARE, case) == "failed":
                unbroken = self.run(name, 0, case)
                return "fails" if unbroken == "passed" else f"has {unbroken} with nothing wrong"
        return "stays green"

    def run(self, name: str, share: float, case: pytest.Item) -> str:
        with broken(name, share):
            reports = runtestprotocol(case, log=False, nextitem=None)
        return next((r.outcome for r in reports if r.when == "call"), "not started")


if __name__ == "__main__":
    plugin = Plugin(json.load(sys.stdin))
    files = {test for tests in plugin.tests.values() for test in tests}
    paths = sorted(f"tests/{test}" for test in files)
    code = pytest.main([*paths, "-o", "addopts=", "-p", "no:cacheprovider"], [plugin])
    print(json.dumps(plugin.ends))
    sys.exit(code)
