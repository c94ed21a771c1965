r"""Batch Normalization of NumPy arrays: accurate to the last digits of float32, and fast.

Here are the functions that one calls. `bnlib.formulas` has the equations,
`bnlib.blocks` goes through the arrays, in loops that Numba compiles or block by block in NumPy:
`backend_for` tells which. float16 is computed in float32; all sums are in float64.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bnlib import blocks
from bnlib._checks import (
    check_dtype,
    check_eps,
    check_out,
    check_statistics,
    check_threads,
    check_vector,
    check_x,
    same_memory,
)
from bnlib.blocks import Statistics, filled, work_dtype


class Backend(NamedTuple):
    """What computes a BatchNorm, and why.

    Attributes:
        name: "numba" or "numpy", and in `bnlib.torch` also "triton" or "torch".
        reason: why it is this one.
    """

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def backend_for(x: np.ndarray) -> Backend:
    """What the functions of this module compute a mini-batch with, here and now, and why.

    Args:
        x: the mini-batch.

    Returns:
        The `Backend`.

    Raises:
        TypeError: x is not an array of floating-point numbers.
        ValueError: the shape of x is not `(N, C)` or `(N, C, *spatial)`.
    """
    check_x("x", x)
    engine, reason = blocks.engine()
    return Backend("numpy" if engine is blocks.interpreted else "numba", reason)


@dataclass(slots=True, eq=False)
class Cache:
    """What the backward pass and the running statistics need of a forward pass.

    Attributes:
        x: the mini-batch itself, not a copy; it must not change before the backward pass.
        statistics: near, rest, var and inv_std of each channel, as `bnlib.blocks` has them.
        count: m, the number of values of a channel.
        gamma: the scale, (C,), or None; a copy, since an optimizer may change it.
        has_beta: whether there was a beta.
    """

    x: np.ndarray
    statistics: Statistics
    count: int
    gamma: np.ndarray | None
    has_beta: bool

    @property
    def mean(self) -> np.ndarray:
        """Batch mean, (C,), float64, in units of x."""
        return self.statistics.near + self.statistics.rest

    @property
    def var(self) -> np.ndarray:
        """Biased batch variance (1/m), (C,), float64, in units of x²."""
        return self.statistics.var

    @property
    def inv_std(self) -> np.ndarray:
        """1 / sqrt(var + eps), (C,), float64."""
        return self.statistics.inv_std


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
    check_x("x", x)
    check_eps(eps)
    check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    count = x.size // x.shape[1]
    if count == 1:
        raise ValueError(
            f"x has shape {x.shape}, one value per channel; expected at least 2 in training: the "
            "variance of one value is 0, and y would be beta whatever x is"
        )
    check_out(out, x, x=x)
    check_threads(threads)
    y = np.empty_like(x, subok=False) if out is None else out
    scale, shift = filled(gamma, 1.0, x), filled(beta, 0.0, x)
    statistics = blocks.train(x, scale, shift, eps, y, threads)
    gamma = None if gamma is None else np.array(gamma)
    return y, Cache(x, statistics, count, gamma, beta is not None)


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
    check_x("dy", dy)
    if dy.dtype != x.dtype:
        raise TypeError(f"dy has dtype {dy.dtype}; expected {x.dtype}, the dtype of x")
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}; expected {x.shape}, the shape of x")
    check_out(out, x, x=x, dy=dy)
    check_threads(threads)
    dx = np.empty_like(x, subok=False) if out is None else out
    scale = filled(gamma, 1.0, x)
    dgamma, dbeta = blocks.backward(x, dy, scale, cache.statistics, dx, threads)
    with np.errstate(over="ignore"):
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
    check_x("x", x)
    check_eps(eps)
    check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    mean, var = check_statistics(mean, var, x.shape[1])
    if out is None or not same_memory(out, x):
        check_out(out, x, x=x)
    check_threads(threads)
    y = np.empty_like(x, subok=False) if out is None else out
    a = filled(gamma, 1.0, x) / np.sqrt(var + eps)
    blocks.inference(x, mean, a, filled(beta, 0.0, x).astype(np.float64), y, threads)
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
    check_dtype("weight", weight)
    if weight.ndim < 2:
        raise ValueError(f"weight has shape {weight.shape}; expected (C, ...), two or more axes")
    check_eps(eps)
    channels = len(weight)
    for name, v in ("bias", bias), ("gamma", gamma), ("beta", beta):
        check_vector(name, v, channels, work_dtype(weight.dtype))
    mean, var = check_statistics(mean, var, channels)
    a = (1 if gamma is None else gamma) / np.sqrt(var + eps)
    new_weight = weight * a.reshape(-1, *[1] * (weight.ndim - 1))
    new_bias = a * ((0 if bias is None else bias) - mean) + (0 if beta is None else beta)
    return new_weight.astype(weight.dtype), new_bias.astype(work_dtype(weight.dtype))
