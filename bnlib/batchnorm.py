r"""Batch Normalization in NumPy: accurate to the last digits of float32, and fast.

How the digits are kept (float32 and float16 input; float64 runs through the same lines):

- Where a mean is more than two standard deviations from zero, sums are taken of x − K, with K near
  the mean of each channel. E[x²] − E[x]² alone cancels: at a mean of 3,000 standard deviations
  float32 has no digit left.
- Few values are added in float32; the partial sums are added in float64.
- Mean and variance stay in float64; what is left of the mean after K goes into the constant c of
  y = (x − K)·a + c.
- A channel whose squares leave the range of float32 is computed again in float64.

Arrays are read block by block, so that what one operation leaves in the cache is still there for
the next one. A small (N, C) mini-batch needs none of this: it is computed in float64 as it stands.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_SMALL = 1 << 13  # values of a mini-batch that is computed in float64 as it stands
_BLOCK = 1 << 18  # values of a block: 1 MiB in float32
_POSITIONS = 4096  # of these a block holds at most
_ROWS, _TERMS = 16, 64  # rows, and positions, that are added in float32
_SAFE = 1e-24, 1e24  # var + eps for which float32 holds every square and inverse that is needed
_EVERYTHING = (slice(None),) * 3
_FLOAT16, _FLOAT32, _FLOAT64 = map(np.dtype, (np.float16, np.float32, np.float64))


@dataclass(slots=True, eq=False)
class Cache:
    """What the backward pass and the running statistics need of a forward pass.

    Attributes:
        x: the mini-batch itself, not a copy; it must not change before the backward pass.
        mean: batch mean, (C,), float64, in units of x.
        var: biased batch variance (1/m), (C,), float64, in units of x².
        count: m, the number of values of a channel.
        inv_std: 1 / sqrt(var + eps), (C,), float64.
        gamma: the scale, (C,), or None.
        has_beta: whether there was a beta.
        shift: K, (C,), in the dtype of the arithmetic, or None for 0.
        wide: the channels that float32 cannot hold, as a mask (C,), and their own float64 cache.
        centered: x - mean in float64, (N, C), for a small mini-batch; None for a large one.
    """

    x: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    count: int
    inv_std: np.ndarray
    gamma: np.ndarray | None
    has_beta: bool
    shift: np.ndarray | None = None
    wide: "tuple[np.ndarray, Cache] | None" = None
    centered: np.ndarray | None = None


def batch_norm_train(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Cache]:
    r"""Normalize a mini-batch with its own mean and variance.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    The mean and the biased variance of a channel are taken over the batch and all positions.
    A NaN or an infinity spoils its own channel and no other.

    Args:
        x: mini-batch, `(N, C)` or `(N, C, *spatial)`, float16, float32 or float64.
        gamma: scale, (C,), of x's dtype (float32 for float16 input), or None for 1.
        beta: shift, likewise, or None for 0.
        eps: added to the variance, in units of x²; positive.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `batch_norm_backward` and `RunningStats`.

    Raises:
        TypeError: x is not an array of floating-point numbers, or the dtypes do not match.
        ValueError: a shape or eps is not as said above, or a channel has a single value, whose
            variance is 0 whatever it is.

    Source: Ioffe & Szegedy 2015, algorithm 1 and section 3.2; chapter "The transform".
    """
    _check_x("x", x)
    _check_eps(eps)
    _check_vector("gamma", gamma, x.shape[1], _work_dtype(x.dtype))
    _check_vector("beta", beta, x.shape[1], _work_dtype(x.dtype))
    count = x.size // x.shape[1]
    if count == 1:
        raise ValueError(
            f"x has shape {x.shape}, one value per channel; expected at least 2 in training: the "
            "variance of one value is 0, and y would be beta whatever x is"
        )
    if x.ndim == 2 and 0 < x.size <= _SMALL:
        return _train_small(x, gamma, beta, eps)
    x3 = _as_3d(x)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, var, shift = _statistics(x3)
        inv_std = 1 / np.sqrt(var + eps)
        y = _normalize(x3, mean, inv_std, shift, gamma, beta).reshape(x.shape)
    cache = Cache(x, mean, var, count, inv_std, gamma, beta is not None, shift)
    mask = _out_of_float32(var, eps, x.dtype)
    if mask is not None:
        y[:, mask], inner = batch_norm_train(*_float64(mask, x, gamma, beta), eps=eps)
        mean[mask], var[mask], inv_std[mask] = inner.mean, inner.var, inner.inv_std
        cache.wide = mask, inner
    return y, cache


def batch_norm_backward(
    dy: np.ndarray, cache: Cache
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    r"""Derivatives of the loss with respect to x, gamma and beta.

    .. math:: dx = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} \left(dy
        - \overline{dy} - \hat{x} \cdot \overline{dy\,\hat{x}}\right), \qquad
        d\gamma = \sum dy\,\hat{x}, \qquad d\beta = \sum dy

    The bars are means over the m values of a channel. dy times x must stay within float32.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what `batch_norm_train` returned.

    Returns:
        dx, of x's shape and dtype; dgamma, (C,), or None where gamma was None; dbeta likewise.

    Raises:
        TypeError: dy is not an array of x's dtype.
        ValueError: dy has not the shape of x.

    Source: Ioffe & Szegedy 2015, section 3; chapter "The backward pass".
    """
    x, gamma = cache.x, cache.gamma
    _check_x("dy", dy)
    if dy.dtype != x.dtype:
        raise TypeError(f"dy has dtype {dy.dtype}; expected {x.dtype}, the dtype of x")
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}; expected {x.shape}, the shape of x")
    with np.errstate(over="ignore", invalid="ignore"):
        if cache.centered is not None:
            dx, dgamma, dbeta = _backward_small(dy, cache.centered, cache.inv_std, gamma)
        else:
            dx, dgamma, dbeta = _backward(
                _as_3d(dy), _as_3d(x), cache.mean, cache.inv_std, cache.shift, gamma
            )
    dx = dx.reshape(x.shape)
    if cache.wide is not None:
        mask, inner = cache.wide
        (inner_dy,) = _float64(mask, dy)
        dx[:, mask], inner_dgamma, inner_dbeta = batch_norm_backward(inner_dy, inner)
        if inner_dgamma is not None:
            dgamma[mask] = inner_dgamma
        if inner_dbeta is not None:
            dbeta[mask] = inner_dbeta
    return (
        dx,
        None if gamma is None else dgamma.astype(gamma.dtype),
        dbeta.astype(_work_dtype(x.dtype)) if cache.has_beta else None,
    )


def batch_norm_inference(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> np.ndarray:
    r"""Normalize with given statistics, those of the population.

    .. math:: y = \gamma\,\frac{x - \mathrm{E}[x]}{\sqrt{\mathrm{Var}[x] + \epsilon}} + \beta

    Args:
        x: examples, `(N, C)` or `(N, C, *spatial)`, float16, float32 or float64.
        mean: (C,), any floating-point dtype, in units of x.
        var: (C,), any floating-point dtype, in units of x²; not negative.
        gamma: scale, (C,), of x's dtype (float32 for float16 input), or None for 1.
        beta: shift, likewise, or None for 0.
        eps: added to the variance, in units of x²; positive.

    Returns:
        y, of x's shape and dtype.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape or eps is not as said above, or a variance is negative or NaN.

    Source: Ioffe & Szegedy 2015, algorithm 2.
    """
    _check_x("x", x)
    _check_eps(eps)
    _check_vector("gamma", gamma, x.shape[1], _work_dtype(x.dtype))
    _check_vector("beta", beta, x.shape[1], _work_dtype(x.dtype))
    mean, var = _check_statistics(mean, var, x.shape[1])
    inv_std = 1 / np.sqrt(var + eps)
    far = np.count_nonzero(mean * mean > 4 * var)
    shift = mean.astype(_work_dtype(x.dtype)) if far else None
    with np.errstate(over="ignore", invalid="ignore"):
        y = _normalize(_as_3d(x), mean, inv_std, shift, gamma, beta).reshape(x.shape)
    mask = _out_of_float32(var, eps, x.dtype)
    if mask is not None:
        wide_x, *wide_parameters = _float64(mask, x, gamma, beta)
        y[:, mask] = batch_norm_inference(wide_x, mean[mask], var[mask], *wide_parameters, eps=eps)
    return y


def fold(
    weight: np.ndarray,
    bias: np.ndarray | None,
    mean: np.ndarray,
    var: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Fold the BatchNorm after a linear or convolution layer into that layer.

    .. math:: W' = a W, \quad b' = a (b - \mathrm{E}[x]) + \beta, \quad
        a = \gamma / \sqrt{\mathrm{Var}[x] + \epsilon}

    The factors are computed in float64 and rounded once.

    Args:
        weight: (C, ...), output channel first, float16, float32 or float64.
        bias: (C,), of weight's dtype (float32 for float16), or None for 0.
        mean: (C,), any floating-point dtype.
        var: (C,), any floating-point dtype; not negative.
        gamma: scale, like bias, or None for 1.
        beta: shift, like bias, or None for 0.
        eps: added to the variance; positive.

    Returns:
        The new weight, and the new bias, which is there even where bias was None.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape or eps is not as said above, or a variance is negative or NaN.

    Source: Ioffe & Szegedy 2015, algorithm 2, line 11.
    """
    _check_dtype("weight", weight)
    if weight.ndim < 2:
        raise ValueError(f"weight has shape {weight.shape}; expected (C, ...), two or more axes")
    _check_eps(eps)
    channels = len(weight)
    for name, v in ("bias", bias), ("gamma", gamma), ("beta", beta):
        _check_vector(name, v, channels, _work_dtype(weight.dtype))
    mean, var = _check_statistics(mean, var, channels)
    a = (1 if gamma is None else gamma) / np.sqrt(var + eps)
    new_weight = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = a * ((0 if bias is None else bias) - mean) + (0 if beta is None else beta)
    return new_weight.astype(weight.dtype), new_bias.astype(_work_dtype(weight.dtype))


# A small mini-batch, (N, C): the formulas as they stand, in float64.


def _train_small(
    x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None, eps: float
) -> tuple[np.ndarray, Cache]:
    """y = gamma·(x - mean)·inv_std + beta; sums over the rows as ones @ x."""
    m = len(x)
    ones = np.ones(m)
    with np.errstate(over="ignore", invalid="ignore"):
        centered = x.astype(np.float64)
        mean = ones @ centered / m
        centered -= mean
        if x.dtype == _FLOAT64:  # where the mean is rounded: what it left behind
            rest = ones @ centered / m
            centered -= rest
            mean += rest
        var = ones @ (centered * centered) / m
        inv_std = 1 / np.sqrt(var + eps)
        y = centered * (inv_std if gamma is None else gamma * inv_std)
        if beta is not None:
            y += beta
        y = y.astype(x.dtype, copy=False)
    return y, Cache(x, mean, var, m, inv_std, gamma, beta is not None, centered=centered)


def _backward_small(
    dy: np.ndarray, centered: np.ndarray, inv_std: np.ndarray, gamma: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = a·(dy - mean(dy) - x̂·mean(dy·x̂)), where x̂ = centered·inv_std; dgamma; dbeta."""
    m = len(dy)
    ones = np.ones(m)
    wide_dy = dy.astype(np.float64)
    dbeta = ones @ wide_dy
    dgamma = ones @ (wide_dy * centered) * inv_std
    dx = centered * (inv_std * dgamma / -m)
    dx += wide_dy
    dx -= dbeta / m
    dx *= inv_std if gamma is None else gamma * inv_std
    return dx.astype(dy.dtype, copy=False), dgamma, dbeta


# A large one. Arrays are (N, C, S) here, with S positions; statistics are (C,), float64.


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Mean, biased variance, and K (None for 0) of each channel."""
    m = x.shape[0] * x.shape[2]
    mean = var = np.zeros(x.shape[1])
    shift = None
    for _ in range(3 if m else 0):
        rest, var = _sums(x, shift) / m
        squared_rest = rest * rest
        var -= squared_rest
        mean = rest if shift is None else shift + rest
        # Σ (x - K)² holds (mean - K)² beside the variance: a K far from the mean costs digits.
        if not np.count_nonzero(squared_rest > 4 * var):
            break
        shift = mean.astype(_work_dtype(x.dtype))
    else:
        var = np.maximum(var, 0)
    return mean, var, shift


def _normalize(
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    shift: np.ndarray | None,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
) -> np.ndarray:
    """y = (x - K)·a + c."""
    a = inv_std if gamma is None else inv_std * gamma
    c = -mean * a if shift is None else (shift - mean) * a
    return _apply(x, shift, a, c if beta is None else c + beta)


def _backward(
    dy: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    inv_std: np.ndarray,
    shift: np.ndarray | None,
    gamma: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx = a·(dy - mean(dy) - x̂·mean(dy·x̂)) as a·((x - K)·b + dy + c); dgamma; dbeta."""
    m = max(1, x.shape[0] * x.shape[2])
    rest = mean if shift is None else mean - shift
    dbeta, products = _sums(x, shift, dy)
    dgamma = (products - rest * dbeta) * inv_std
    b = dgamma * (inv_std / -m)
    c = dbeta / -m - rest * b
    dx = _apply(x, shift, b, c, dy, inv_std if gamma is None else inv_std * gamma)
    return dx, dgamma, dbeta


def _sums(x: np.ndarray, shift: np.ndarray | None, dy: np.ndarray | None = None) -> np.ndarray:
    """Σ dy and Σ dy·(x - K) of each channel, (2, C); without dy: Σ (x - K) and Σ (x - K)²."""
    work = _work_dtype(x.dtype)
    sums = np.zeros((2, x.shape[1]))
    for block in _blocks(x.shape):
        channels = block[1]
        d = x[block].astype(work, copy=False) if shift is None else x[block] - shift[channels, None]
        g = d if dy is None else dy[block].astype(work, copy=False)
        _add_sums(g, d, sums[:, channels])
    return sums


def _add_sums(g: np.ndarray, d: np.ndarray, sums: np.ndarray) -> None:
    """Add Σ g and Σ g·d of each channel to sums, (2, C): a few terms in float32, then float64."""
    n, c, s = g.shape
    first, second = sums
    if s != 1:
        whole = s - s % _TERMS
        for part in slice(0, whole), slice(whole, s):
            terms = min(_TERMS, part.stop - part.start)
            if terms:
                g_parts, d_parts = (v[:, :, part].reshape(n, c, -1, terms) for v in (g, d))
                first += (g_parts @ np.ones(terms, g.dtype)).sum((0, 2), dtype=np.float64)
                second += np.vecdot(g_parts, d_parts).sum((0, 2), dtype=np.float64)
        return
    whole = n - n % _ROWS
    if whole:
        g_groups, d_groups = (v[:whole].reshape(-1, _ROWS, c) for v in (g, d))
        ones = np.ones((1, _ROWS), g.dtype)
        first += (ones @ g_groups).sum((0, 1), dtype=np.float64)
        second += np.einsum("kij,kij->kj", g_groups, d_groups).sum(0, dtype=np.float64)
    if whole < n:
        g, d = g[whole:, :, 0], d[whole:, :, 0]
        ones = np.ones(n - whole, g.dtype)
        first += ones @ g
        second += ones @ (g * d)


def _apply(
    x: np.ndarray,
    shift: np.ndarray | None,
    b: np.ndarray,
    c: np.ndarray,
    dy: np.ndarray | None = None,
    a: np.ndarray | None = None,
) -> np.ndarray:
    """(x - K)·b + c; with dy and a: a·((x - K)·b + dy + c)."""
    work = _work_dtype(x.dtype)
    b, c = b.astype(work)[:, None], c.astype(work)[:, None]
    a = None if a is None else a.astype(work)[:, None]
    result = np.empty_like(x)
    for block in _blocks(x.shape):
        channels = block[1]
        out = result[block] if x.dtype == work else None
        if shift is None:
            z = np.multiply(x[block], b[channels], out=out)
        else:
            z = np.subtract(x[block], shift[channels, None], out=out)
            z *= b[channels]
        if dy is not None:
            z += dy[block]
        z += c[channels]
        if a is not None:
            z *= a[channels]
        if out is None:
            result[block] = z
    return result


def _blocks(shape: tuple[int, ...]) -> Iterable[tuple[slice, slice, slice]]:
    """Slices that cut an (N, C, S) array into blocks of about _BLOCK values."""
    n, c, s = shape
    if n * c * s <= _BLOCK and s <= _POSITIONS:
        return (_EVERYTHING,)
    positions = min(s, _POSITIONS)
    channels = min(c, max(1, _BLOCK // positions))
    rows = max(1, _BLOCK // (channels * positions))
    return (
        (slice(i, i + rows), slice(j, j + channels), slice(k, k + positions))
        for i in range(0, n, rows)
        for j in range(0, c, channels)
        for k in range(0, s, positions)
    )


def _work_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype to compute in: float32 for float16, else the same."""
    return _FLOAT32 if dtype == _FLOAT16 else dtype


def _out_of_float32(var: np.ndarray, eps: float, dtype: np.dtype) -> np.ndarray | None:
    """The mask of the channels that float32 cannot compute, NaN among them; None without any."""
    low, high = _SAFE
    if dtype == _FLOAT64:
        return None
    mask = ~(var < high) if low < eps else ~((low < var + eps) & (var < high))
    return mask if np.count_nonzero(mask) else None


def _float64(mask: np.ndarray, *arrays: np.ndarray | None) -> list[Any]:
    """The channels of the mask, in float64."""
    return [
        None if v is None else (v[:, mask] if v.ndim > 1 else v[mask]).astype(np.float64)
        for v in arrays
    ]


def _as_3d(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], x.shape[1], math.prod(x.shape[2:]))


# Checks. Each error names the argument, what it was, and what was expected.


def _check_dtype(name: str, v: Any) -> None:
    if type(v) is not np.ndarray and not isinstance(v, np.memmap):  # no matrix, no masked array
        raise TypeError(f"{name} is a {type(v).__name__}; expected a NumPy array")
    if v.dtype not in (_FLOAT32, _FLOAT64, _FLOAT16):
        raise TypeError(f"{name} has dtype {v.dtype}; expected float16, float32 or float64")


def _check_x(name: str, x: Any) -> None:
    _check_dtype(name, x)
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}; expected (N, C) or (N, C, *spatial)")
    if x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}; expected at least one channel on axis 1")


def _check_eps(eps: float) -> None:
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps}; expected a positive number")


def _check_vector(name: str, v: Any, channels: int, dtype: np.dtype | None) -> None:
    """One value per channel, of a dtype (None for any floating-point one); v may be None."""
    if v is None:
        return
    _check_dtype(name, v)
    if dtype is not None and v.dtype != dtype:
        raise TypeError(f"{name} has dtype {v.dtype}; expected {dtype}, to go with the input")
    if v.shape != (channels,):
        raise ValueError(f"{name} has shape {v.shape}; expected ({channels},), one per channel")


def _check_statistics(mean: Any, var: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance in float64."""
    for name, v in ("mean", mean), ("var", var):
        _check_dtype(name, v)  # not None either
        _check_vector(name, v, channels, None)
    bad = np.flatnonzero(~(var >= 0))
    if bad.size:
        raise ValueError(f"var[{bad[0]}] is {var[bad[0]]}; expected 0 or more in every channel")
    return mean.astype(np.float64), var.astype(np.float64)
