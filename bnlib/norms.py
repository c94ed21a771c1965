r"""The relatives of Batch Normalization: one formula, over other values.

.. math:: y = \gamma\,\hat{x} + \beta, \qquad \hat{x} = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}},
    \qquad dx = \frac{g - \overline{g} - \hat{x} \cdot \overline{g\,\hat{x}}}
    {\sqrt{\sigma^2 + \epsilon}}, \qquad g = \gamma\,dy .

They differ in which values share a mean μ and a variance σ². The bars are means over the same
values.

==========================  ====================================  =================================
name                        values that share a mean              how it is made here
==========================  ====================================  =================================
batch norm                  a channel of all examples             `bnlib.batch_norm_train`
ghost batch norm            a channel of some of the examples     the same, part by part
batch renormalization       a channel, drawn to running averages  the same, with another γ and β
group norm                  some channels of an example           `group_norm`
layer norm                  an example, or one position of it     one group, or one position
instance norm               a channel of an example               a group for each channel
RMS norm                    as layer norm, with μ = 0             the same without its mean
weight standardization      the weights of an output              instance norm of the weights
weight norm                 the same, with μ = 0                  RMS norm of the weights, no ε
dynamic tanh                none: y = γ tanh(α x) + β             `dynamic_tanh`
==========================  ====================================  =================================

All is computed in float64, whatever the input is, and rounded once.

Source: chapter "What else normalizes?".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral
from typing import NamedTuple

import numpy as np

from bnlib import batchnorm
from bnlib._checks import check_eps, check_statistics, check_vector, check_x
from bnlib._messages import short
from bnlib.blocks import work_dtype


@dataclass(frozen=True, eq=False)
class Cache:
    """What `backward` needs of a forward pass.

    Attributes:
        x: the input itself, not a copy; it must not change before the backward pass.
        shape: x's shape while normalized, which brings the values that share a mean on one axis.
        axis: that axis.
        centered: whether μ is subtracted; without, μ is 0.
        mean: μ, float64, to broadcast against the values in `shape`; in units of x.
        inv_std: 1 / sqrt(σ² + ε), likewise; in units of 1/x.
        gamma: the scale, (C,), or None; a copy.
        has_beta: whether there was a beta.
    """

    x: np.ndarray
    shape: tuple[int, ...]
    axis: int
    centered: bool
    mean: np.ndarray
    inv_std: np.ndarray
    gamma: np.ndarray | None
    has_beta: bool

    @property
    def x_hat(self) -> np.ndarray:
        """The normalized values, float64, in `shape`."""
        x: np.ndarray = (self.x.reshape(self.shape) - self.mean) * self.inv_std
        return x


def group_norm(
    x: np.ndarray,
    groups: int,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Cache]:
    r"""Normalize each group of channels of each example.

    Args:
        x: examples, `(N, C)` or `(N, C, *spatial)`, float16, float32 or float64.
        groups: number of groups G of C/G channels that follow one another.
        gamma: scale, (C,), of x's dtype (float32 for float16 input), or None for 1.
        beta: shift, likewise, or None for 0.
        eps: added to the variance, in units of x²; positive.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `backward`.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape or eps is not as said above, groups does not divide C, or a group has a
            single value, whose variance is 0 whatever it is.

    Source: Wu & He 2018, equation 7.
    """
    return _normalize(x, _by_groups(x, groups), 2, gamma, beta, eps)


def layer_norm(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    each_position: bool = False,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Cache]:
    r"""Normalize each example, or each position of it.

    Args:
        x: as in `group_norm`, like gamma, beta and eps.
        gamma: scale.
        beta: shift.
        each_position: whether each position is normalized by itself, over its channels, as in
            networks for sequences; else all values of an example are, as in those for images.
        eps: added to the variance.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `backward`.

    Raises:
        TypeError: as in `group_norm`.
        ValueError: as in `group_norm`.

    Source: Ba et al. 2016, equation 3.
    """
    return _normalize(x, *_by_examples(x, each_position), gamma, beta, eps)


def instance_norm(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Cache]:
    r"""Normalize each channel of each example.

    Args:
        x: as in `group_norm`, like what follows, with two or more positions.
        gamma: scale.
        beta: shift.
        eps: added to the variance.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `backward`.

    Raises:
        TypeError: as in `group_norm`.
        ValueError: as in `group_norm`.

    Source: Ulyanov et al. 2016, equation 4.
    """
    check_x("x", x)
    return group_norm(x, x.shape[1], gamma, beta, eps=eps)


def rms_norm(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    *,
    each_position: bool = False,
    eps: float = 1e-5,
) -> tuple[np.ndarray, Cache]:
    r"""Divide each example, or each position of it, by its root mean square.

    .. math:: y = \gamma\,\frac{x}{\sqrt{\overline{x^2} + \epsilon}}

    Args:
        x: as in `layer_norm`, like what follows.
        gamma: scale.
        each_position: whether each position has a root mean square of its own.
        eps: added to the mean square.

    Returns:
        y, of x's shape and dtype, and the `Cache` for `backward`.

    Raises:
        TypeError: as in `group_norm`.
        ValueError: as in `group_norm`.

    Source: Zhang & Sennrich 2019, equation 4.
    """
    return _normalize(x, *_by_examples(x, each_position), gamma, None, eps, centered=False)


def backward(
    dy: np.ndarray, cache: Cache
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    r"""Derivatives by x, gamma and beta, for all functions above.

    .. math:: dx = \frac{g - \overline{g} - \hat{x} \cdot \overline{g\,\hat{x}}}
        {\sqrt{\sigma^2 + \epsilon}}, \qquad g = \gamma\,dy, \qquad
        d\gamma = \sum dy\,\hat{x}, \qquad d\beta = \sum dy

    The bars are means over the values that share a mean, the sums go over a channel. Where no mean
    is subtracted, that of g is not either.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what the forward pass returned.

    Returns:
        dx, of x's shape and dtype; dgamma, (C,), or None where gamma was None; dbeta likewise.

    Raises:
        TypeError: dy is not an array of x's dtype.
        ValueError: dy has not the shape of x.

    Source: chapter "What else normalizes?".
    """
    x, axis = cache.x, cache.axis
    _check_dy(dy, x)
    x_hat = cache.x_hat
    g = (dy.astype(np.float64) * _columns(cache.gamma, x, 1.0)).reshape(cache.shape)
    dx = g - x_hat * (g * x_hat).mean(axis, keepdims=True)
    if cache.centered:
        dx -= g.mean(axis, keepdims=True)
    dx *= cache.inv_std
    dgamma, dbeta = _sums(dy, x_hat.reshape(x.shape), x)
    return (
        dx.reshape(x.shape).astype(x.dtype),
        None if cache.gamma is None else dgamma,
        dbeta if cache.has_beta else None,
    )


def weight_standardization(
    weight: np.ndarray, gain: np.ndarray | None = None, *, eps: float = 1e-5
) -> tuple[np.ndarray, Cache]:
    r"""Give the weights of each output mean 0 and variance 1: instance norm, of weights.

    Args:
        weight: (O, ...), output first, two or more axes, float16, float32 or float64.
        gain: what each output's weights are scaled by afterwards, (O,), of weight's dtype (float32
            for float16), or None for 1.
        eps: added to the variance; positive.

    Returns:
        The weights to use, of weight's shape and dtype, and the `Cache` for `weight_backward`.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape or eps is not as said above, or an output has a single weight.

    Source: Qiao et al. 2019, equations 8 and 9; the gain, Brock et al. 2021.
    """
    check_x("weight", weight)
    rows = weight.reshape(1, len(weight), -1)
    w, cache = instance_norm(rows, gain, eps=eps)
    return w.reshape(weight.shape), cache


def weight_norm(weight: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, Cache]:
    r"""Give the weights of each output a length that is learned by itself: RMS norm, of weights.

    .. math:: w = g\,\frac{v}{\lVert v \rVert}
        = \frac{g}{\sqrt{m}} \cdot \frac{v}{\sqrt{\overline{v^2}}}

    Args:
        weight: v, (O, ...), output first, two or more axes, float16, float32 or float64.
        length: g, (O,), of weight's dtype (float32 for float16).

    Returns:
        The weights to use, of weight's shape and dtype, and the `Cache` for `weight_backward`.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape is not as said above, or all weights of an output are 0.

    Source: Salimans & Kingma 2016, equation 2.
    """
    check_x("weight", weight)
    check_vector("length", length, len(weight), work_dtype(weight.dtype))
    if length is None:
        raise TypeError("length is None; expected an array, one length for each output")
    rows = weight.reshape(1, len(weight), -1)
    if (zero := np.flatnonzero(~rows.any(axis=2))).size:
        raise ValueError(f"weight[{zero[0]}] is all 0; expected weights that have a direction")
    gain = length / np.sqrt(length.dtype.type(rows.shape[2]))
    w, cache = _normalize(rows, rows.shape, 2, gain, None, 0.0, centered=False)
    return w.reshape(weight.shape), cache


def weight_backward(dw: np.ndarray, cache: Cache) -> tuple[np.ndarray, np.ndarray | None]:
    """Derivatives by the arguments of `weight_standardization` or `weight_norm`.

    Args:
        dw: derivative with respect to the weights used, of their shape and dtype.
        cache: what the forward pass returned.

    Returns:
        Those by weight, of its shape and dtype, and by the gain or the length, (O,); None where
        there was no gain.

    Raises:
        TypeError: dw is not an array of weight's dtype.
        ValueError: dw has another number of weights.

    Source: chapter "What else normalizes?".
    """
    check_x("dw", dw)
    if dw.size != cache.x.size or len(dw) != cache.x.shape[1]:
        raise ValueError(f"dw has shape {dw.shape}; expected that of the weights")
    dweight, dgain, _ = backward(dw.reshape(cache.x.shape), cache)
    if dgain is not None and not cache.centered:
        dgain = dgain / np.sqrt(dgain.dtype.type(cache.x.shape[2]))
    return dweight.reshape(dw.shape), dgain


class GhostCache(NamedTuple):
    """What `ghost_batch_norm_backward` needs of a forward pass.

    Attributes:
        parts: the cache of each part of the mini-batch.
        size: examples in a part; the last part may have fewer.
    """

    parts: list[batchnorm.Cache]
    size: int


def ghost_batch_norm_train(
    x: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    size: int,
    eps: float = 1e-5,
) -> tuple[np.ndarray, GhostCache]:
    r"""Batch norm with the statistics of a part of the mini-batch for that part.

    Args:
        x: mini-batch, as in `bnlib.batch_norm_train`, like gamma, beta and eps.
        gamma: scale.
        beta: shift.
        size: examples in a part; the last one has what is left.
        eps: added to the variance.

    Returns:
        y, of x's shape and dtype, and the `GhostCache`.

    Raises:
        TypeError: as in `bnlib.batch_norm_train`.
        ValueError: as there, for each part; or size is not positive.

    Source: Hoffer et al. 2017, algorithm 1.
    """
    check_x("x", x)
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(f"size is {short(size)}; expected an integer of 1 or more")
    y = np.empty_like(x, subok=False)
    parts = [
        batchnorm.batch_norm_train(part, gamma, beta, eps=eps, out=to)[1]
        for part, to in zip(_parts(x, size), _parts(y, size), strict=True)
    ]
    return y, GhostCache(parts, int(size))


def ghost_batch_norm_backward(
    dy: np.ndarray, cache: GhostCache
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Derivatives by x, gamma and beta: each part's dx, and the sums over the parts.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what `ghost_batch_norm_train` returned.

    Returns:
        As `bnlib.batch_norm_backward`.

    Raises:
        TypeError: dy is not an array of x's dtype.
        ValueError: dy has not the shape of x.

    Source: chapter "What else normalizes?".
    """
    check_x("dy", dy)
    parts = _parts(dy, cache.size)
    if len(parts) != len(cache.parts):
        examples = sum(len(part.x) for part in cache.parts)
        raise ValueError(f"dy has {len(dy)} examples; expected {examples}, as x has")
    found = [batchnorm.batch_norm_backward(*pair) for pair in zip(parts, cache.parts, strict=True)]
    dx, dgamma, dbeta = zip(*found, strict=True)
    return (
        np.concatenate(dx),
        None if dgamma[0] is None else np.sum(dgamma, axis=0),
        None if dbeta[0] is None else np.sum(dbeta, axis=0),
    )


class RenormCache(NamedTuple):
    """What `batch_renorm_backward` needs of a forward pass.

    Attributes:
        batch: the cache of the batch norm, with γ·r for gamma.
        r: factor on the normalized values, (C,), float64.
        d: added to them, (C,), float64.
        gamma: the scale, (C,), or None; a copy.
        has_beta: whether there was a beta.
    """

    batch: batchnorm.Cache
    r: np.ndarray
    d: np.ndarray
    gamma: np.ndarray | None
    has_beta: bool


def batch_renorm_train(
    x: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    gamma: np.ndarray | None = None,
    beta: np.ndarray | None = None,
    *,
    r_max: float = 3.0,
    d_max: float = 5.0,
    eps: float = 1e-5,
) -> tuple[np.ndarray, RenormCache]:
    r"""Batch norm, corrected towards running statistics as far as two limits allow.

    .. math::
        y &= \gamma\,(r\,\hat{x} + d) + \beta, \qquad s = \sqrt{\sigma^2 + \epsilon} \\
        r &= \mathrm{clip}\left(\frac{s_{\mathcal B}}{s}, \frac{1}{r_{\max}}, r_{\max}\right) \\
        d &= \mathrm{clip}\left(\frac{\mu_{\mathcal B} - \mu}{s}, -d_{\max}, d_{\max}\right)

    Within the limits y is what inference with the running statistics gives. r and d count as
    constants in the backward pass. With r_max = 1 and d_max = 0 it is batch norm.

    Args:
        x: mini-batch, as in `bnlib.batch_norm_train`, like gamma, beta and eps.
        mean: the running mean μ, (C,), any floating-point dtype, in units of x.
        var: the running variance σ², likewise, in units of x²; not negative.
        gamma: scale.
        beta: shift.
        r_max: limit of r, 1 or more.
        d_max: limit of d, 0 or more.
        eps: added to the variances.

    Returns:
        y, of x's shape and dtype, and the `RenormCache`, whose `batch` has the batch's mean,
        variance and count for `RunningStats`.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape, eps, r_max or d_max is not as said above, a variance is negative, or a
            channel has a single value.

    Source: Ioffe 2017, algorithm 1.
    """
    if not r_max >= 1:
        raise ValueError(f"r_max is {short(r_max)}; expected 1 or more")
    if not d_max >= 0:
        raise ValueError(f"d_max is {short(d_max)}; expected 0 or more")
    x_hat, cache = batchnorm.batch_norm_train(x, eps=eps)
    check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    mean, var = check_statistics(mean, var, x.shape[1])
    inv_std = 1 / np.sqrt(var + eps)
    r = np.clip(inv_std / cache.inv_std, 1 / r_max, r_max)
    d = np.clip((cache.mean - mean) * inv_std, -d_max, d_max)
    scale = 1.0 if gamma is None else gamma.astype(np.float64)
    y = x_hat * _columns(scale * r, x, 1.0)
    y += _columns(scale * d + (0.0 if beta is None else beta), x, 0.0)
    batch = replace(cache, gamma=(scale * r).astype(work_dtype(x.dtype)), has_beta=True)
    gamma = None if gamma is None else gamma.copy()
    return y.astype(x.dtype), RenormCache(batch, r, d, gamma, beta is not None)


def batch_renorm_backward(
    dy: np.ndarray, cache: RenormCache
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    r"""Derivatives by x, gamma and beta, with r and d as constants.

    .. math:: d\gamma = r \sum dy\,\hat{x} + d \sum dy, \qquad d\beta = \sum dy

    dx is that of batch norm with γ·r for γ.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what `batch_renorm_train` returned.

    Returns:
        As `bnlib.batch_norm_backward`.

    Raises:
        TypeError: dy is not an array of x's dtype.
        ValueError: dy has not the shape of x.

    Source: Ioffe 2017, section 3.
    """
    dx, along, dbeta = batchnorm.batch_norm_backward(dy, cache.batch)
    assert along is not None and dbeta is not None
    dgamma = (cache.r * along + cache.d * dbeta).astype(dbeta.dtype)
    return dx, None if cache.gamma is None else dgamma, dbeta if cache.has_beta else None


class TanhCache(NamedTuple):
    """What `dynamic_tanh_backward` needs of a forward pass.

    Attributes:
        x: the input itself, not a copy; it must not change before the backward pass.
        alpha: the factor on x.
        gamma: the scale, (C,), or None; a copy.
        has_beta: whether there was a beta.
    """

    x: np.ndarray
    alpha: float
    gamma: np.ndarray | None
    has_beta: bool


def dynamic_tanh(
    x: np.ndarray, alpha: float, gamma: np.ndarray | None = None, beta: np.ndarray | None = None
) -> tuple[np.ndarray, TanhCache]:
    r"""No statistics at all: values far out are pressed together, one by one.

    .. math:: y = \gamma \tanh(\alpha x) + \beta

    Args:
        x: examples, `(N, C)` or `(N, C, *spatial)`, float16, float32 or float64.
        alpha: α, one number for all channels, in units of 1/x; finite.
        gamma: scale, (C,), of x's dtype (float32 for float16 input), or None for 1.
        beta: shift, likewise, or None for 0.

    Returns:
        y, of x's shape and dtype, and the `TanhCache`.

    Raises:
        TypeError: a dtype is not as said above.
        ValueError: a shape or alpha is not as said above.

    Source: Zhu et al. 2025, equation 1.
    """
    check_x("x", x)
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {short(alpha)}; expected a finite number")
    check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    y = np.tanh(float(alpha) * x.astype(np.float64)) * _columns(gamma, x, 1.0)
    y += _columns(beta, x, 0.0)
    gamma = None if gamma is None else gamma.copy()
    return y.astype(x.dtype), TanhCache(x, float(alpha), gamma, beta is not None)


def dynamic_tanh_backward(
    dy: np.ndarray, cache: TanhCache
) -> tuple[np.ndarray, float, np.ndarray | None, np.ndarray | None]:
    r"""Derivatives by x, alpha, gamma and beta.

    .. math:: dx = \alpha\,s, \qquad d\alpha = \sum s\,x, \qquad
        s = \gamma\,dy\,(1 - \tanh^2 \alpha x)

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        cache: what `dynamic_tanh` returned.

    Returns:
        dx, of x's shape and dtype; dalpha; dgamma, (C,), or None where gamma was None; dbeta
        likewise.

    Raises:
        TypeError: dy is not an array of x's dtype.
        ValueError: dy has not the shape of x.

    Source: chapter "What else normalizes?".
    """
    x = cache.x
    _check_dy(dy, x)
    t = np.tanh(cache.alpha * x.astype(np.float64))
    s = dy * (1 - t * t) * _columns(cache.gamma, x, 1.0)
    dgamma, dbeta = _sums(dy, t, x)
    return (
        (cache.alpha * s).astype(x.dtype),
        float((s * x).sum()),
        None if cache.gamma is None else dgamma,
        dbeta if cache.has_beta else None,
    )


def _normalize(
    x: np.ndarray,
    shape: tuple[int, ...],
    axis: int,
    gamma: np.ndarray | None,
    beta: np.ndarray | None,
    eps: float,
    *,
    centered: bool = True,
) -> tuple[np.ndarray, Cache]:
    """The formula, over one axis of x in another shape."""
    if eps or centered:
        check_eps(eps)
    check_vector("gamma", gamma, x.shape[1], work_dtype(x.dtype))
    check_vector("beta", beta, x.shape[1], work_dtype(x.dtype))
    if centered and shape[axis] == 1:
        raise ValueError(
            f"x has shape {x.shape}, one value for each mean; expected at least 2: the variance of "
            "one value is 0, and y would be beta whatever x is"
        )
    if shape[axis] == 0:
        raise ValueError(f"x has shape {x.shape}; expected at least one position")
    values = x.reshape(shape).astype(np.float64)
    mean = values.mean(axis, keepdims=True) if centered else np.zeros(())
    values -= mean
    inv_std = 1 / np.sqrt((values * values).mean(axis, keepdims=True) + eps)
    values *= inv_std
    y = values.reshape(x.shape) * _columns(gamma, x, 1.0) + _columns(beta, x, 0.0)
    gamma = None if gamma is None else gamma.copy()
    return y.astype(x.dtype), Cache(
        x, shape, axis, centered, mean, inv_std, gamma, beta is not None
    )


def _by_groups(x: np.ndarray, groups: int) -> tuple[int, int, int]:
    """(N, G, values of a group); x is checked here."""
    check_x("x", x)
    if not isinstance(groups, Integral) or groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"groups is {short(groups)}; expected a number that divides {x.shape[1]}, the channels"
        )
    return len(x), int(groups), math.prod(x.shape[1:]) // int(groups)


def _by_examples(x: np.ndarray, each_position: bool) -> tuple[tuple[int, ...], int]:
    """(N, 1, values of an example) and its last axis, or (N, C, positions) and that of channels."""
    shape = _by_groups(x, 1)
    positions = len(x), x.shape[1], math.prod(x.shape[2:])
    return (positions, 1) if each_position else (shape, 2)


def _parts(x: np.ndarray, size: int) -> list[np.ndarray]:
    return [x[i : i + size] for i in range(0, len(x), size)] or [x]


def _columns(v: np.ndarray | None, x: np.ndarray, default: float) -> np.ndarray:
    """A value for each channel, float64, to broadcast against x."""
    v = np.full(x.shape[1], default) if v is None else v.astype(np.float64)
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _sums(dy: np.ndarray, x_hat: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ dy x̂ and Σ dy of each channel, of the parameters' dtype."""
    others = 0, *range(2, x.ndim)
    wide, dtype = dy.astype(np.float64), work_dtype(x.dtype)
    return (wide * x_hat).sum(others).astype(dtype), wide.sum(others).astype(dtype)


def _check_dy(dy: np.ndarray, x: np.ndarray) -> None:
    check_x("dy", dy)
    if dy.dtype != x.dtype:
        raise TypeError(f"dy has dtype {dy.dtype}; expected {x.dtype}, the dtype of x")
    if dy.shape != x.shape:
        raise ValueError(f"dy has shape {dy.shape}; expected {x.shape}, the shape of x")
