"""The promise of `oracle`, on every path through every hard case.

The paths are those of `paths`, the cases those of `cases`; thousands more are in test_fuzz.py.
"""

import dataclasses
import functools

import numpy as np
import oracle
import pytest
from cases import cases, to_dtype
from paths import PATHS, small

CASES = cases()
PAIRS = [
    pytest.param(name, path, id=f"{name}-{path}")
    for name, case in CASES.items()
    for path in PATHS
    if PATHS[path].takes(case)
]
no_warning = pytest.mark.filterwarnings("error::RuntimeWarning")


@functools.lru_cache(1)
def trained(name):
    """The exact results of a case."""
    case = CASES[name]
    return oracle.train(case.x, case.gamma, case.beta, case.dy, case.eps)


@functools.lru_cache(1)
def inferred(name):
    """Those in inference with the statistics of the mini-batch, and these in float64."""
    case = CASES[name]
    dy = np.zeros_like(case.x) if case.dy is None else case.dy
    value, _ = oracle.train(case.x, case.gamma, case.beta, dy, case.eps)
    stats = value.mean.astype(np.float64), value.var.astype(np.float64)
    exact = oracle.inference(case.x, *stats, case.gamma, case.beta, case.eps, case.dy)
    return exact, stats


def check(case, exact, results):
    assert not oracle.faults(exact, results, case.dtype)
    assert results["y"].shape == case.x.shape
    others = (0, *range(2, case.x.ndim))
    constant = case.x.min(others) == case.x.max(others)
    beta = np.zeros(len(constant)) if case.beta is None else case.beta
    y = results["y"][:, constant]  # is beta to the last bit
    assert (y == to_dtype(beta[constant], case.dtype).reshape(-1, *[1] * (y.ndim - 2))).all()
    if "var" in results:
        assert (results["var"][constant] == 0).all()
        assert (results["mean"] == case.x[0].reshape(len(constant), -1)[:, 0])[constant].all()


@no_warning
@pytest.mark.parametrize("name, path", [p for p in PAIRS if CASES[p.values[0]].dy is not None])
def test_training(name, path):
    case = CASES[name]
    before = case.x.copy(), case.dy.copy()
    check(case, trained(name), PATHS[path].train(case))
    np.testing.assert_array_equal((case.x, case.dy), before)


@no_warning
@pytest.mark.parametrize(
    "name, path", [p for p in PAIRS if PATHS[p.values[1]].infer and small(CASES[p.values[0]])]
)
def test_inference(name, path):
    exact, stats = inferred(name)
    check(CASES[name], exact, PATHS[path].infer(CASES[name], *stats))


SPOILED = {  # a channel of x, (m,)
    "far": lambda v: v + 1e5,
    "large": lambda v: v * np.float32(1e30),
    "small": lambda v: v * np.float32(1e-30),
    "with a NaN": lambda v: np.where(np.arange(v.size) == 5, np.nan, v),
    "with an infinity": lambda v: np.where(np.arange(v.size) == 5, -np.inf, v),
    "that begins with a NaN": lambda v: np.where(np.arange(v.size) == 0, np.nan, v),
    "that begins with an infinity": lambda v: np.where(np.arange(v.size) == 0, np.inf, v),
}


@pytest.mark.parametrize(
    "name, path", [p for p in PAIRS if p.values[0] in ("standard normal", "contiguous, images")]
)
@pytest.mark.filterwarnings(
    "error::RuntimeWarning", "ignore:channel 1. the batch has a NaN or an infinity"
)
def test_a_channel_does_not_depend_on_the_others(name, path):
    """To the last bit; and a bad one does not hide it."""
    case, train = CASES[name], PATHS[path].train
    expected = train(case)
    for spoil in SPOILED.values():
        x = case.x.copy()
        x[:, 1] = spoil(x[:, 1].ravel()).reshape(x[:, 1].shape)
        results = train(dataclasses.replace(case, x=x))
        for key, v in results.items():
            axis = min(v.ndim - 1, 1)
            np.testing.assert_array_equal(np.delete(v, 1, axis), np.delete(expected[key], 1, axis))
        bad = not np.isfinite(x[:, 1]).all()
        assert not bad or not np.isfinite([results["y"][:, 1], results["dx"][:, 1]]).any()
