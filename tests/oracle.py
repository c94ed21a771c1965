"""The exact BatchNorm, and the promise that bnlib gives against it.

What is exact is the value for the numbers as given, rounding of the input included. It is computed
in long double. Where that is no wider than float64 (macOS on ARM), it still is exact enough for
float32: the mean has two parts, and x minus the first of them loses nothing.

The promise: every result is within 1e-6 of its scale, beyond the rounding of the result itself to
its dtype; from float64 within 1e-12, where the mean is not far from zero. Scales are per channel,
for the scale y can reach, and for what the sums add up:

    y       |γ| max|x̂| + |β|
    dx      |γ| / sqrt(σ² + ε) · (max|dy| + max|x̂| · scale of dgamma / m)
    dgamma  Σ |dy| (|x̂| + s), with s = σ / sqrt(σ² + ε), the root mean square of x̂
    dbeta   Σ |dy|
    mean    σ + 1e-9 max|x|: what float64 can hold of a mean far from zero
    var     σ² + 1e-10 ε: what ε hides need not be right
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

PROMISE = 1e-6
WIDE = np.longdouble


def train(x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> tuple[Any, Any]:
    """y, dx, dgamma, dbeta, mean and biased var in long double, and the scale of each.

    Args:
        x: mini-batch, (N, C) or (N, C, *spatial).
        gamma: scale, (C,), or None for 1.
        beta: shift, (C,), or None for 0.
        dy: derivative with respect to y, of x's shape.
        eps: added to the variance.

    Returns:
        The values, and the scales, by name. Those of y and dx broadcast against x.
    """
    x, dy = np.asarray(x, WIDE), np.asarray(dy, WIDE)
    others, m = (0, *range(2, x.ndim)), x.size // x.shape[1]
    mean = x.mean(others, keepdims=True)
    centered = x - mean
    rest = centered.mean(others, keepdims=True)  # what the rounding of the mean left behind
    centered -= rest
    var = (centered**2).mean(others, keepdims=True)
    value, scale = _normalize(x, centered, var, gamma, beta, eps)
    x_hat, slope = value.x_hat, value.slope

    products = dy * x_hat
    value.dbeta, value.dgamma = dy.sum(others), products.sum(others)
    bars = dy.mean(others, keepdims=True), products.mean(others, keepdims=True)
    value.dx = slope * (dy - bars[0] - x_hat * bars[1])
    value.mean, value.var = (mean + rest).reshape(-1), var.reshape(-1)

    largest = abs(x_hat).max(others, keepdims=True)
    rms = np.sqrt(var / (var + WIDE(eps)))
    reach = abs(dy).max(others, keepdims=True)
    sizes = (abs(dy) * (abs(x_hat) + rms)).sum(others, keepdims=True)
    scale.dx = abs(slope) * (reach + largest * sizes / m)
    scale.dgamma = sizes.reshape(-1)
    scale.dbeta = abs(dy).sum(others)
    scale.mean = np.sqrt(value.var) + WIDE(1e-9) * abs(x).max(others)
    scale.var = value.var + WIDE(1e-10) * WIDE(eps)
    return value, scale


def inference(
    x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float, dy: Any = None
) -> tuple[Any, Any]:
    """y in long double, and where dy is given the derivatives; mean and var as given, (C,).

    And the scale of each. That of dgamma is here Σ |dy x̂|: the mean has no error of its own.
    """
    x, mean, var = (np.asarray(v, WIDE) for v in (x, mean, var))
    value, scale = _normalize(x, x - _columns(mean, x), _columns(var, x), gamma, beta, eps)
    value.mean, value.var = mean, var
    if dy is not None:
        dy, others = np.asarray(dy, WIDE), (0, *range(2, x.ndim))
        value.dx, products = value.slope * dy, dy * value.x_hat
        value.dgamma, value.dbeta = products.sum(others), dy.sum(others)
        scale.dx, scale.dgamma = abs(value.dx), abs(products).sum(others)
        scale.dbeta = abs(dy).sum(others)
    return value, scale


def _normalize(x: Any, centered: Any, var: Any, gamma: Any, beta: Any, eps: float) -> Any:
    """x_hat, slope = γ / sqrt(σ² + ε) and y; and the scale of y."""
    inv_std = 1 / np.sqrt(var + WIDE(eps))
    gamma_c = WIDE(1) if gamma is None else _columns(gamma, x)
    beta_c = WIDE(0) if beta is None else _columns(beta, x)
    x_hat = centered * inv_std
    largest = abs(x_hat).max((0, *range(2, x.ndim)), keepdims=True)
    y, slope = gamma_c * x_hat + beta_c, gamma_c * inv_std
    value = SimpleNamespace(x_hat=x_hat, slope=slope, y=y)
    return value, SimpleNamespace(y=abs(gamma_c) * largest + abs(beta_c))


def faults(exact: tuple[Any, Any], results: Mapping[str, Any], dtype: Any) -> list[str]:
    """Which results break the promise, and by how much.

    Args:
        exact: what `train` or `inference` gave.
        results: arrays by name; None for what there is not.
        dtype: of x; for bfloat16, y and dx are in a wider dtype.
    """
    value, scale = exact
    bound = PROMISE
    if dtype == "float64":  # it has no digits to spare for a mean far from zero
        far = np.divide(abs(value.mean), np.sqrt(value.var), where=value.var > 0, out=0 * value.var)
        bound = 1e-12 + 1e-15 * float(far.max())
    found = []
    for name, got in results.items():
        if got is not None:
            rounding = BFLOAT16 if dtype == "bfloat16" and name in ("y", "dx") else None
            off = error(got, getattr(value, name), getattr(scale, name), rounding)
            if not off <= bound:
                found.append(f"{name} is off by {off:.1e} of its scale")
    return found


def error(got: Any, want: Any, scale: Any, rounding: Any = None) -> float:
    """The largest |got − want| in units of scale, beyond the rounding to got's dtype.

    A value that the dtype cannot hold is right as the infinity that rounding gives.

    Args:
        got: result, any floating-point dtype.
        want: exact value, of got's shape.
        scale: of each value, broadcasts against want.
        rounding: relative rounding error and smallest number of the dtype; None for got's own.
    """
    epsilon, smallest, largest = rounding or limits(got.dtype)
    got = np.asarray(got, WIDE)
    scale = np.broadcast_to(np.asarray(scale, WIDE), want.shape)
    with np.errstate(invalid="ignore"):
        off = abs(got - want)
    off = np.maximum(off - abs(want) * epsilon / 2 - smallest, 0)
    # Infinity is right where the promise allows a value beyond the largest number, on that side.
    beyond = np.sign(got) * want + PROMISE * scale >= largest
    off = np.where(np.isinf(got) & beyond, 0, off)
    off = np.where(np.isnan(off), np.inf, off)
    # A scale of 0 leaves no room for an error.
    relative = np.divide(off, scale, out=np.where(off > 0, WIDE(np.inf), WIDE(0)), where=scale > 0)
    return float(relative.max(initial=0))


def limits(dtype: Any) -> tuple[WIDE, WIDE, WIDE]:
    """Spacing of numbers at 1, the smallest and the largest number, of a dtype."""
    info = np.finfo(dtype)
    return WIDE(info.eps), WIDE(info.smallest_subnormal), WIDE(info.max)


BFLOAT16 = WIDE(2) ** -7, WIDE(2) ** -133, WIDE(2) ** 127 * (2 - WIDE(2) ** -7)


def _columns(v: Any, x: Any) -> Any:
    """v, (C,), as (1, C, 1, …), which broadcasts against x."""
    return np.asarray(v, WIDE).reshape(1, -1, *[1] * (x.ndim - 2))
