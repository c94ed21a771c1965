r"""Batch Normalization in NumPy: accurate to the last digits of float32, and fast.

How the digits are kept (float16 is computed in float32; float64 runs through the same lines):

- Where a mean is more than 1.4 standard deviations from zero, sums are taken of d = x − K, with K
  near the mean of each channel. E[x²] − E[x]² alone cancels: at a mean of 3,000 standard deviations
  float32 has no digit left.
- Few values are added in float32; the partial sums are added in float64.
- Mean and variance stay in float64; what is left of the mean after K goes into the constant c of
  y = d·a + c.
- A channel whose standard deviation is far from 1 is multiplied by a power of two, which is exact:
  d = x·s − K·s. So no square and no product leaves the range of float32. Likewise g = dy·t.

How passes over memory are saved: one sweep over the mini-batch finds both sums, a second one
applies what follows from them. `bnlib.blocks` makes the sweeps, and says how. A small mini-batch
needs none of this: it is computed in float64 as it stands.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from bnlib._messages import short
from bnlib.blocks import Sweep, work_dtype

_SMALL = 1 << 13  # values of a mini-batch that is computed in float64 as it stands
_NORMAL = 2.0**-28, 2.0**28  # variances for which no power of two is needed
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
        gamma: the scale, (C,), or None; a copy, since an optimizer may change it.
        has_beta: whether there was a beta.
        sweep: how x is read, with what float32 needs to hold it; None for a small mini-batch.
        centered: x - mean in float64, (m, C), for a small mini-batch; None for a large one.
    """

    x: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    count: int
    inv_std: np.ndarray
    gamma: np.ndarray | None
    has_beta: bool
    sweep: Sweep | None = None
    centered: np.ndarray | None = None


def batch_norm_train(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
    out: np.ndarray | None = None,
    threads: int = 1,
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
        out: where to write y, an array of x's shape and dtype that shares no memory with x, which
            the backward pass needs; None for a new one in x's memory layout.
        threads: how many threads to use; the result has the same bits for any number.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `batch_norm_backward` and `RunningStats`.

    Raises:
        TypeError: x is not an array of floating-point numbers, or the dtypes do not match.
        ValueError: a shape, eps, out or threads is not as said above, or a channel has a single
            value, whose variance is 0 whatever it is.

    Source: Ioffe & Szegedy 2015, algorithm 1 and section 3.2; chapter "The transform".
    """
    _check_x("x", x)
    _check_eps(eps)
    _check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    _check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    count = x.size // x.shape[1]
    if count == 1:
        raise ValueError(
            f"x has shape {x.shape}, one value per channel; expected at least 2 in training: the "
            "variance of one value is 0, and y would be beta whatever x is"
        )
    _check_out(out, x, x=x)
    _check_threads(threads)
    y = np.empty_like(x, subok=False) if out is None else out
    with np.errstate(over="ignore", invalid="ignore"):
        if x.size <= _SMALL:
            return y, _train_small(x, gamma, beta, eps, y)
        sweep = Sweep(x, threads)
        mean, var = _statistics(sweep, x)
        inv_std = 1 / np.sqrt(var + eps)
        _normalize(sweep, x, mean, inv_std if gamma is None else inv_std * gamma, beta, y)
    return y, Cache(x, mean, var, count, inv_std, _copy(gamma), beta is not None, sweep)


def batch_norm_backward(
    dy: np.ndarray, cache: Cache, *, out: np.ndarray | None = None, threads: int = 1
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    r"""Derivatives of the loss with respect to x, gamma and beta.

    .. math:: dx = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} \left(dy
        - \overline{dy} - \hat{x} \cdot \overline{dy\,\hat{x}}\right), \qquad
        d\gamma = \sum dy\,\hat{x}, \qquad d\beta = \sum dy

    The bars are means over the m values of a channel.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what `batch_norm_train` returned.
        out: where to write dx, an array of x's shape and dtype that shares no memory with x and dy;
            None for a new one in x's memory layout.
        threads: how many threads to use; the result has the same bits for any number.

    Returns:
        dx, of x's shape and dtype; dgamma, (C,), or None where gamma was None; dbeta likewise.

    Raises:
        TypeError: dy is not an array of x's dtype, or out is not.
        ValueError: dy has not the shape of x, or out or threads is not as said above.

    Source: Ioffe & Szegedy 2015, section 3; chapter "The backward pass".
    """
    x, gamma = cache.x, cache.gamma
    _check_x("dy", dy)
    if dy.dtype != x.dtype:
        raise TypeError(f"dy has dtype {dy.dtype}; expected {x.dtype}, the dtype of x")
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}; expected {x.shape}, the shape of x")
    _check_out(out, x, x=x, dy=dy)
    _check_threads(threads)
    dx = np.empty_like(x, subok=False) if out is None else out
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        a = cache.inv_std if gamma is None else cache.inv_std * gamma
        if cache.sweep is None:
            dgamma, dbeta = _backward_small(dy, cache, a, dx)
        else:
            cache.sweep.threads = threads
            dgamma, dbeta = _backward(cache.sweep, dy, cache, a, dx)
        return (
            dx,
            None if gamma is None else dgamma.astype(gamma.dtype),
            dbeta.astype(work_dtype(x.dtype)) if cache.has_beta else None,
        )


def batch_norm_inference(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
    out: np.ndarray | None = None,
    threads: int = 1,
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
        out: where to write y, an array of x's shape and dtype: x itself, or one that shares no
            memory with x; None for a new one in x's memory layout.
        threads: how many threads to use; the result has the same bits for any number.

    Returns:
        y, of x's shape and dtype.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape, eps, out or threads is not as said above, or a variance is negative or
            NaN.

    Source: Ioffe & Szegedy 2015, algorithm 2.
    """
    _check_x("x", x)
    _check_eps(eps)
    _check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    _check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    mean, var = _check_statistics(mean, var, x.shape[1])
    if out is None or not _same_memory(out, x):
        _check_out(out, x, x=x)
    _check_threads(threads)
    a = 1 / np.sqrt(var + eps) * (1 if gamma is None else gamma)
    y = np.empty_like(x, subok=False) if out is None else out
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if x.size <= _SMALL:
            z = (_rows(x) - mean) * a
            _store(z if beta is None else z + beta, y)
            return y
        # x·s fits into float32 whatever mean and a are, and a/s as well.
        sweep = Sweep(x, threads)
        size = np.maximum(1 / abs(a), abs(mean) * 2.0**-160)
        sweep.power = _power(size, 2.0**-60, 2.0**60)
        far = mean * mean > 2 * var
        if np.count_nonzero(far):
            sweep.shift = np.where(far, mean.astype(sweep.work), 0)
            if sweep.power is not None:
                sweep.shift *= sweep.power
        _normalize(sweep, x, mean, a, beta, y)
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
        _check_vector(name, v, channels, work_dtype(weight.dtype))
    mean, var = _check_statistics(mean, var, channels)
    a = (1 if gamma is None else gamma) / np.sqrt(var + eps)
    new_weight = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = a * ((0 if bias is None else bias) - mean) + (0 if beta is None else beta)
    return new_weight.astype(weight.dtype), new_bias.astype(work_dtype(weight.dtype))


# A small mini-batch: the formulas as they stand, in float64, on rows of C values.


def _train_small(
    x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None, eps: float, y: np.ndarray
) -> Cache:
    """y = gamma·(x - mean)·inv_std + beta; sums over the rows as ones @ x."""
    centered = _rows(x)
    m = max(1, len(centered))
    ones = np.ones(len(centered))
    mean = ones @ centered / m
    centered -= mean
    if x.dtype == _FLOAT64:  # where the mean is rounded: what it left behind
        rest = ones @ centered / m
        centered -= rest
        mean += rest
    var = ones @ (centered * centered) / m
    inv_std = 1 / np.sqrt(var + eps)
    z = centered * (inv_std if gamma is None else gamma * inv_std)
    if beta is not None:
        z += beta
    _store(z, y)
    count, gamma = len(centered), _copy(gamma)
    return Cache(x, mean, var, count, inv_std, gamma, beta is not None, centered=centered)


def _backward_small(
    dy: np.ndarray, cache: Cache, a: np.ndarray, dx: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dx = a·(dy - mean(dy) - x̂·mean(dy·x̂)), where x̂ = centered·inv_std; dgamma; dbeta."""
    centered, inv_std, wide_dy = cache.centered, cache.inv_std, _rows(dy)
    m = max(1, len(wide_dy))
    ones = np.ones(len(wide_dy))
    dbeta = ones @ wide_dy
    dgamma = ones @ (wide_dy * centered) * inv_std
    z = centered * (inv_std * dgamma / -m)
    z += wide_dy
    z -= dbeta / m
    z *= a
    _store(z, dx)
    return dgamma, dbeta


def _copy(gamma: np.ndarray | None) -> np.ndarray | None:
    return None if gamma is None else np.array(gamma)


def _rows(x: np.ndarray) -> np.ndarray:
    """A copy of x as (m, C), float64."""
    last = x if x.ndim == 2 else np.moveaxis(x, 1, -1)
    return last.astype(np.float64, order="C").reshape(-1, x.shape[1])


def _store(z: np.ndarray, out: np.ndarray) -> None:
    """Round (m, C) into out, (N, C, *spatial)."""
    last = out if out.ndim == 2 else np.moveaxis(out, 1, -1)
    last[...] = z.reshape(last.shape)


# A large one. Statistics and factors are (C,), float64; None stands for a factor 1 or a term 0.


def _statistics(sweep: Sweep, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel; gives the sweep the s and K·s of d = x·s - K·s."""
    mean, var = _moments(sweep, x)
    low, high = _NORMAL
    if np.count_nonzero((var > low) & (var < high)) == len(var):
        return mean, var
    # Where squares may have left float32, those of x·2^-100 or (x - K)·2^100 do not.
    power = np.where(var < 2.0**100, 1.0, 2.0**-100)
    power[(var < 2.0**-100) & (abs(mean) < 1e-4)] = 2.0**100
    again = power != 1
    shift = np.zeros(len(mean)) if sweep.shift is None else sweep.shift
    if np.count_nonzero(again):
        sweep.power = power
        sweep.shift = np.where(power < 1, 0, mean.astype(sweep.work) * power)
        mean_again, var_again = _moments(sweep, x)
        mean = np.where(again, mean_again / power, mean)
        var = np.where(again, var_again / power**2, var)
        shift = np.where(again, sweep.shift / power, shift)
    sweep.power = _power(np.sqrt(var), low**0.5, high**0.5)
    sweep.shift = shift if sweep.power is None else shift * sweep.power
    return mean, var


def _moments(sweep: Sweep, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of x·s; gives the sweep a K·s near each mean that is far from 0."""
    for _ in range(3):
        rest, var = sweep.sums(x) / sweep.count
        squared_rest = rest * rest
        var -= squared_rest
        mean = rest if sweep.shift is None else sweep.shift + rest
        # Σ d² holds (mean - K)² beside the variance: a K far from the mean costs digits.
        far = squared_rest > 2 * var
        if not np.count_nonzero(far):
            return mean, var
        shift = 0 if sweep.shift is None else sweep.shift
        sweep.shift = np.where(far, mean.astype(sweep.work), shift)
    return mean, np.maximum(var, 0)


def _normalize(
    sweep: Sweep,
    x: np.ndarray,
    mean: np.ndarray,
    a: np.ndarray,
    beta: np.ndarray | None,
    y: np.ndarray,
) -> None:
    """y = a·(x - mean) + beta as d·(a/s) + c."""
    if sweep.power is not None:
        mean, a = mean * sweep.power, a / sweep.power
    a = sweep.finite(a)
    c = (-mean if sweep.shift is None else sweep.shift - mean) * a
    sweep.apply(x, (a, c if beta is None else c + beta), y)


def _backward(
    sweep: Sweep, dy: np.ndarray, cache: Cache, a: np.ndarray, dx: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """dx = a·(dy - mean(dy) - x̂·mean(dy·x̂)) as (a/t)·(d·b + g + c); dgamma; dbeta."""
    mean, inv_std = cache.mean, cache.inv_std
    if sweep.power is not None:
        mean, inv_std = mean * sweep.power, inv_std / sweep.power
    rest = mean if sweep.shift is None else mean - sweep.shift
    sums = sweep.sums(cache.x, dy)
    t = _power(1 / abs(a), 2.0**-126, 2.0**100)  # so that float32 holds a/t
    if not sums.reshape(-1) @ sums.reshape(-1) < 2.0**160:  # and no sum of g·d leaves it
        small = np.where(abs(sums).max(0) < 2.0**80, 1, 2.0**-100)
        sums = sweep.sums(cache.x, dy, small) / small
        t = np.where(small < 1, np.minimum(1 if t is None else t, 2.0**-20), 1 if t is None else t)
    dbeta, products = sums
    dgamma = (products - rest * dbeta) * inv_std
    b = dgamma * (inv_std / -sweep.count)
    c = dbeta / -sweep.count - rest * b
    factors = (b, c, a) if t is None else (b * t, c * t, sweep.finite(a / t))
    sweep.apply(cache.x, factors, dx, dy, t)
    return dgamma, dbeta


def _power(size: np.ndarray, low: float, high: float) -> np.ndarray | None:
    """Powers of two that bring sizes, (C,), into low … high; None where all are. 0 stays 0."""
    if size.min() >= low and size.max() <= high:
        return None
    off = ((size < low) | (size > high)) & (size > 0) & (size < np.inf)
    if not np.count_nonzero(off):  # but 0, infinite or NaN
        return None
    exponent = np.frexp(np.clip(size, low, high) / np.where(off, size, 1))[1]
    return np.where(off, np.ldexp(1.0, np.clip(exponent, -120, 120)), 1.0)


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


def _check_out(out: Any, like: np.ndarray, **inputs: np.ndarray) -> None:
    """An array of x's shape and dtype, to write to, that shares no memory with the inputs."""
    if out is None:
        return
    _check_dtype("out", out)
    if out.dtype != like.dtype:
        raise TypeError(f"out has dtype {out.dtype}; expected {like.dtype}, the dtype of x")
    if out.shape != like.shape:
        raise ValueError(f"out has shape {out.shape}; expected {like.shape}, the shape of x")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array to write to")
    for name, v in inputs.items():
        if np.shares_memory(out, v):
            raise ValueError(f"out shares memory with {name}; expected memory of its own")


def _same_memory(a: Any, b: np.ndarray) -> bool:
    """Whether two arrays have every value in the same place."""
    return (
        isinstance(a, np.ndarray)
        and a.__array_interface__["data"] == b.__array_interface__["data"]
        and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )


def _check_threads(threads: int) -> None:
    if not isinstance(threads, Integral) or threads < 1:
        raise ValueError(f"threads is {short(threads)}; expected an integer of 1 or more")


def _check_eps(eps: float) -> None:
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {short(eps)}; expected a positive number")


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
