"""Mini-batches drawn at random, on every path, against the exact values of `oracle`.

Case i is the same on every machine and in every run. More of them than a test needs:

    BNLIB_FUZZ=50000 python -m pytest tests/test_fuzz.py    # the first 50,000
    python tests/test_fuzz.py 1234 5678                     # these two, and what each of them is
"""

import decimal
import os
import sys
from dataclasses import dataclass

import cases
import numpy as np
import oracle
import pytest
import torch
from cases import to_dtype
from paths import PATHS, eager, engine, of_tensors

import bnlib

CASES, CHUNK = int(os.environ.get("BNLIB_FUZZ", 1500)), 100
POISON = [np.nan, np.inf, -np.inf]


@dataclass
class Case(cases.Case):
    threads: int = 1
    layout: str = "contiguous"
    poison: float | None = None  # comes into one value

    def __str__(self) -> str:
        parameters = [name for name in ("gamma", "beta") if getattr(self, name) is not None]
        return (
            f"{self.dtype} {self.x.shape}, {self.layout}, eps {self.eps:.1e}, {self.threads} "
            f"threads, {' and '.join(parameters) or 'no parameters'}, poison {self.poison}"
        )


# Drawing


def draw(index: int) -> Case:
    rng = np.random.default_rng([5, index])
    dtype = rng.choice(["float32", "float64", "float16", "bfloat16"], p=[0.7, 0.1, 0.1, 0.1])
    shape = draw_shape(rng)
    c = shape[1]
    x = draw_x(rng, shape, dtype)
    gamma, beta = (draw_parameter(rng, c) for _ in range(2))
    parameter = "float64" if dtype == "float64" else "float32"
    dy = draw_dy(rng, x, dtype)
    layout = str(rng.choice(list(LAYOUTS), p=[0.4] + [0.1] * (len(LAYOUTS) - 1)))
    case = Case(
        LAYOUTS[layout](to_dtype(x, dtype)),
        to_dtype(dy, dtype),
        *(None if v is None else to_dtype(v, parameter) for v in (gamma, beta)),
        float(rng.choice([1e-5, 10 ** rng.uniform(-12, -1), 10 ** rng.uniform(-40, -12)])),
        str(dtype),
        int(rng.integers(1, 4)),
        layout,
        float(rng.choice(POISON)) if c > 1 and rng.random() < 0.15 else None,
    )
    case.dy = LAYOUTS[layout if rng.random() < 0.7 else rng.choice(list(LAYOUTS))](case.dy)
    return case


def draw_shape(rng: np.random.Generator) -> tuple[int, ...]:
    """(N, C, …) with at least two values in a channel: mostly small, some with odd extents."""
    primes = [1, 2, 3, 5, 7, 13, 31, 61, 127]
    kind = rng.choice(
        ["pair", "(N, C)", "wide", "tall", "3-d", "4-d", "5-d", "large"],
        p=[0.08, 0.32, 0.07, 0.07, 0.15, 0.2, 0.1, 0.01],
    )
    if kind == "large":
        options = [(4099, 67), (300_007, 1), (67, 4099), (1, 3, 299, 307), (16, 64, 17, 17)]
        return options[rng.integers(len(options))]
    if kind == "pair":
        return [(2, 1), (2, 97), (1, 5, 2), (2, 3, 1, 1)][rng.integers(4)]
    if kind == "wide":
        return int(rng.integers(2, 5)), int(rng.integers(1000, 5000))
    if kind == "tall":
        return int(rng.integers(1000, 20_000)), 1
    if kind == "(N, C)":
        return int(rng.integers(2, 200)), int(rng.choice(primes))
    axes = int(str(kind)[0]) - 2
    extents = rng.choice(primes[: 9 - 2 * axes], axes)
    shape = int(rng.integers(1, 9)), int(rng.integers(1, 9)), *map(int, extents)
    return shape if shape[0] * np.prod(extents) > 1 else (2, *shape[1:])


def draw_x(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values in float64 of the dtype's range; a channel may have its own kind and magnitude."""
    n, c = shape[:2]
    m = n * int(np.prod(shape[2:]))
    rows = rng.standard_normal((c, m))
    kinds = rng.choice(
        ["normal", "constant", "outlier", "first", "two values", "sorted", "other"],
        c if rng.random() < 0.3 else 1,
    )
    for kind in np.unique(kinds):
        own = np.broadcast_to(kinds == kind, c)
        count = int(own.sum())
        if kind == "constant":
            rows[own] = rng.standard_normal((count, 1))
        elif kind == "outlier":
            rows[own, rng.integers(m)] = 10 ** rng.uniform(0, 8)
        elif kind == "first":  # of all values the one that is taken for K
            rows[own, 0] = 10 ** rng.uniform(0, 8)
        elif kind == "two values":
            rows[own] = rows[own] > rng.uniform(-3, 3)
        elif kind == "sorted":  # so that one value repeats for long
            rows[own] = np.sort(rows[own] > rng.uniform(-3, 3), axis=1)
        elif kind == "other":
            rows[own] = rng.integers(0, 256, (count, m)) / 255
    reach = {"float16": 3.0, "float64": 60.0}.get(dtype, 30.0)
    ratio = {"float16": 2.0, "bfloat16": 2.0, "float64": 3.0}.get(dtype, 7.5)
    of_each = (c, 1) if rng.random() < 0.3 else (1, 1)  # mixed magnitudes, or one for all
    scale = magnitude(rng, -reach, reach, of_each)
    far = np.where(rng.random(of_each) < 0.5, 0, 10 ** rng.uniform(-1, ratio, of_each))
    rows = scale * (rows + far * rng.choice([-1, 1], of_each))
    if dtype in ("float32", "bfloat16") and rng.random() < 0.05:  # to the ends of float32
        end = rng.choice([3e38, 1e-38, 1e-43])
        rows *= end / np.maximum(abs(rows).max(), 1e-200)  # all of them can be 0
    return np.moveaxis(rows.reshape(c, n, *shape[2:]), 0, 1)


def draw_dy(rng: np.random.Generator, x: np.ndarray, dtype: str) -> np.ndarray:
    kind = rng.choice(["normal", "constant", "one", "sign of x", "far mean"])
    dy = rng.standard_normal(x.shape)
    if kind == "constant":
        dy = np.full(x.shape, 0.1)
    elif kind == "one":
        dy = np.where(np.arange(x.size).reshape(x.shape) == rng.integers(x.size), 1.0, 0.0)
    elif kind == "sign of x":
        dy = np.where(x > x.mean(), 1.0, -1.0)
    elif kind == "far mean":
        dy += 10 ** rng.uniform(0, 4)
    return dy * magnitude(rng, *{"float16": (-2, 2)}.get(dtype, (-30, 36)))


def magnitude(
    rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...] = ()
) -> np.ndarray:
    """1 in half of the cases, else between 10^low and 10^high."""
    return 10 ** (rng.uniform(low, high, shape) * (rng.random() < 0.5))


def draw_parameter(rng: np.random.Generator, c: int) -> np.ndarray | None:
    if rng.random() < 0.2:
        return None
    return magnitude(rng, -30, 30) * (rng.standard_normal(c) if rng.random() < 0.7 else np.ones(c))


LAYOUTS = {
    name: cases.LAYOUTS[name]
    for name in (
        *("contiguous", "Fortran order", "channels last", "every other value"),
        *("backward", "transposed", "read only"),
    )
}


# Judging


def traced(function, leaves, dy):
    torch._dynamo.reset()
    return eager(torch.compile(function, backend="eager"), leaves, dy)


TRACED = of_tensors(traced, following=False)


def run(index: int) -> list[str]:
    """What is off on any path, and by how much."""
    case = draw(index)
    exact = oracle.train(case.x, case.gamma, case.beta, case.dy, case.eps)
    faults = []
    if case.dtype != "bfloat16":
        name = "NumPy" if index % 2 else "compiled"
        with engine(name):
            faults = [f"{name}{fault}" for fault in array_path(case, exact, index)]
    paths = {name: PATHS[name] for name in ("torch", "torch, to be differentiated again")}
    name = {0: "vmap", 1: "torch, in operations", 2: "synchronized"}.get(index % 20, "torch.func")
    paths[name] = PATHS[name]
    if index % 500 == 1:
        paths["torch.compile"] = TRACED
    torch.set_num_threads(case.threads)
    for name, path in paths.items():
        if name != "synchronized" or path.takes(case):
            found = oracle.faults(exact, path.train(case), case.dtype)
            faults += [f"{name}: {fault}" for fault in found]
    return faults


def judge(case: Case, how: str, exact, results) -> list[str]:
    names = "y", "dx", "dgamma", "dbeta", "mean", "var"
    results = dict(zip(names, results, strict=False))
    return [f"{how}: {fault}" for fault in oracle.faults(exact, results, case.dtype)]


def array_path(case: Case, exact, index: int) -> list[str]:
    results = in_numpy(case.x, case, case.threads)
    faults = judge(case, "", exact, results)
    if index % 4 == 0:
        order = "CFK"[index // 4 % 3]
        outs = [np.empty_like(case.x, order=order) for _ in range(2)]
        results_in = in_numpy(case.x, case, case.threads, *outs)
        faults += judge(case, f", out= in order {order}", exact, results_in)
        if results_in[0] is not outs[0] or results_in[1] is not outs[1]:
            faults.append(": what is given as out is not returned")
    if case.threads > 1 and not same(results, in_numpy(case.x, case, 1)):
        faults.append(": other bits with one thread")
    if case.poison is not None:
        j = case.x.size % case.x.shape[1]
        bad = case.x.copy()
        bad[-1, j] = case.poison
        spoiled = in_numpy(LAYOUTS[case.layout](bad), case, case.threads)
        if not same(*([without(j, v) for v in result] for result in (results, spoiled))):
            faults.append(": the poison spreads")
        if np.isfinite(spoiled[0][:, j]).all():
            faults.append(": the poison is hidden")
    mean, var = (v.astype(np.float64) for v in (exact[0].mean, exact[0].var))
    y = bnlib.batch_norm_inference(
        case.x, mean, var, case.gamma, case.beta, eps=case.eps, threads=case.threads
    )
    exact = oracle.inference(case.x, mean, var, case.gamma, case.beta, case.eps)
    return faults + judge(case, " in inference", exact, [y])


def in_numpy(x: np.ndarray, case: Case, threads: int, y_out=None, dx_out=None):
    """y, dx, dgamma, dbeta, mean and var."""
    y, cache = bnlib.batch_norm_train(
        x, case.gamma, case.beta, eps=case.eps, out=y_out, threads=threads
    )
    gradients = bnlib.batch_norm_backward(case.dy, cache, out=dx_out, threads=threads)
    return [y, *gradients, cache.mean, cache.var]


def same(first, second) -> bool:
    """Whether all bits are."""
    return all(
        a is b or np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def without(j: int, v: np.ndarray | None) -> np.ndarray | None:
    """All channels but j."""
    return None if v is None else np.delete(v, j, axis=min(v.ndim - 1, 1))


@pytest.fixture(autouse=True)
def the_number_of_threads_afterward_is_that_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("wide", [np.longdouble, np.float64])
def test_the_exact_values_are_exact(wide, monkeypatch):
    """Also in float64, for where long double is no more than that; by decimal numbers."""
    monkeypatch.setattr(oracle, "WIDE", wide)
    monkeypatch.setattr(decimal.getcontext(), "prec", 60)
    x = np.float32([1e6, 1e6 + 1, 1e6 + 0.5, 1e6 + 3, 1e6])
    dy = np.float32([0.1, -0.3, 2, 1, -1.5])
    gamma, beta, eps = np.float32([0.7]), np.float32([-3]), 1e-5
    value, scale = oracle.train(x[:, None], gamma, beta, dy[:, None], eps)

    X, DY = ([decimal.Decimal(float(v)) for v in array] for array in (x, dy))
    G, B, m = decimal.Decimal(float(gamma[0])), decimal.Decimal(-3), len(x)
    mean = sum(X) / m
    var = sum((v - mean) ** 2 for v in X) / m
    inv_std = 1 / (var + decimal.Decimal(eps)).sqrt()
    x_hat = [(v - mean) * inv_std for v in X]
    dgamma, dbeta = sum(d * h for d, h in zip(DY, x_hat, strict=True)), sum(DY)
    dx = [G * inv_std * (d - dbeta / m - h * dgamma / m) for d, h in zip(DY, x_hat, strict=True)]
    y = [G * h + B for h in x_hat]
    expected = {
        "y": y,
        "dx": dx,
        "dgamma": [dgamma],
        "dbeta": [dbeta],
        "mean": [mean],
        "var": [var],
    }
    for name, wanted in expected.items():
        got = getattr(value, name).reshape(-1)
        np.testing.assert_allclose(got.astype(float), [float(v) for v in wanted], rtol=1e-14)
    largest = max(abs(h) for h in x_hat)
    assert float(scale.y.item()) == pytest.approx(float(abs(G) * largest + abs(B)))
    assert oracle.error(np.float32([1 + 3e-6]), np.ones(1, wide), 2) == pytest.approx(
        1.5e-6, rel=0.1
    )


@pytest.mark.parametrize("first", range(0, CASES, CHUNK))
def test_no_case_is_outside_the_promise(first):
    assert_all_keep_the_promise(range(first, min(first + CHUNK, CASES)))


def test_cases_among_50_000_that_were_outside_once():
    assert_all_keep_the_promise([4487, 8668, 9413, 9977, 14198, 18405, 20207, 21472, 44715])


def assert_all_keep_the_promise(cases):
    faults = [
        f"python tests/test_fuzz.py {index}    {fault}" for index in cases for fault in run(index)
    ]
    assert not faults, "\n".join(["", *faults])


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(number, draw(number), *run(number) or ["keeps the promise"], sep="\n    ")
