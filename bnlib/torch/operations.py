r"""BatchNorm as a few plain torch operations in float64, for any device.

torch sees each of them: so they can be traced, transformed and differentiated any number of times.
`bnlib.torch.arrays` and `bnlib.torch.triton` have the same functions, faster.

.. math:: y = (x - \mu)\,a + \beta, \qquad
    dx = \left(dy - \overline{dy} - \hat{x} \cdot \overline{dy\,\hat{x}}\right) a, \qquad
    a = \gamma / \sqrt{\sigma^2 + \epsilon}

The mean is subtracted first, so that one far from zero costs no digits.

Source: Ioffe & Szegedy 2015, algorithms 1 and 2, and section 3; chapter "The backward pass".
"""

import math

import torch
from torch import Tensor


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the operations: float64, but Apple's GPUs have none."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def count(x: Tensor) -> int:
    """m, the number of values of a channel."""
    return x.shape[0] * math.prod(x.shape[2:])


def train(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = relu(BN(x) + residual), of x's shape and dtype; mean and biased variance, (C,)."""
    wide = x.to(work_dtype(x))  # once: gradients of x add up in this dtype
    mean, var = statistics(wide)
    return inference(wide, mean, var, weight, bias, eps, residual, relu).to(x.dtype), mean, var


def backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
    y: Tensor | None = None,
    *,
    needs_dresidual: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dgamma, dbeta, and dresidual, which is dy, or where there is a y, dy past its ReLU."""
    dz = past_relu(dy, y)
    dgamma, dbeta = sums(dz, x, mean, var, eps)
    dx = gradient(dz, x, mean, var, weight, eps, dgamma, dbeta, count(x))
    return dx, dgamma, dbeta, dz


def inference(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """y = relu(BN(x) + residual) with given statistics, (C,)."""
    y = (x - columns(mean, x)) * _slope(var, weight, eps, x)
    if bias is not None:
        y = y + columns(bias, x)
    if residual is not None:
        y = y + residual
    return (y.relu() if relu else y).to(x.dtype)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,).

    What is summed is x − K, with the mean of the first image as K: a constant channel gives its
    value and 0, whatever the rounding.
    """
    near = x[:1].detach().mean(others(x), dtype=work_dtype(x))  # K, which cancels
    rest = (x - columns(near, x)).mean(others(x))  # μ − K
    var = (x - columns(near, x) - columns(rest, x)).square().mean(others(x))
    return near + rest, var


def sums(dy: Tensor, x: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """dgamma = Σ dy x̂ and dbeta = Σ dy, (C,)."""
    wide = dy.to(work_dtype(x))
    return (wide * _x_hat(x, mean, var, eps)).sum(others(x)), wide.sum(others(x))


def gradient(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
    dgamma: Tensor,
    dbeta: Tensor,
    m: int,
) -> Tensor:
    """dx from the sums over all m values of a channel."""
    along = _x_hat(x, mean, var, eps) * columns(dgamma / m, x)
    dx = dy.to(work_dtype(x)) - columns(dbeta / m, x) - along
    return (dx * _slope(var, weight, eps, x)).to(x.dtype)


def past_relu(dy: Tensor, y: Tensor | None) -> Tensor:
    """dy past the ReLU whose output is y; dy where there is none."""
    return dy if y is None else torch.ops.aten.threshold_backward(dy, y, 0)


def _x_hat(x: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    return (x - columns(mean, x)) * _slope(var, None, eps, x)


def _slope(var: Tensor, weight: Tensor | None, eps: float, x: Tensor) -> Tensor:
    """γ / sqrt(σ² + ε), to broadcast against x."""
    inv_std = (columns(var, x) + eps).rsqrt()
    return inv_std if weight is None else inv_std * columns(weight, x)


def others(x: Tensor) -> tuple[int, ...]:
    """The axes that are not the channel's."""
    return (0, *range(2, x.ndim))


def columns(v: Tensor, x: Tensor) -> Tensor:
    """v, (C,), in the dtype of the arithmetic, as (1, C, 1, …), which broadcasts against x."""
    return v.to(work_dtype(x)).reshape(1, -1, *[1] * (x.ndim - 2))
