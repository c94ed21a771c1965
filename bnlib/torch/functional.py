r"""`batch_norm` as `torch.nn.functional` has it, with the backward pass that the book derives.

How the digits are kept: the arithmetic is that of float32 or wider. The variance is taken about the
mean, and the mean has two parts: `mean`, rounded, and `rest`, what is left of it. At a mean of 10⁴
standard deviations float32 holds `mean` to 5·10⁻⁴ of one; x − mean is exact, and rest is the mean
of that.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    r"""Normalize with the statistics of the mini-batch, or with the running ones.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    In training μ and σ² are the mean and the biased variance of each channel, over the batch and
    all positions, and the running statistics move toward them, in place: α is `momentum`, and the
    variance there is unbiased.

    .. math:: \mu_r \leftarrow (1 - \alpha)\,\mu_r + \alpha\,\mu, \qquad
        \sigma_r^2 \leftarrow (1 - \alpha)\,\sigma_r^2 + \alpha\,\tfrac{m}{m-1}\,\sigma^2

    An empty mini-batch changes nothing. A channel with a NaN or an infinity in the mini-batch keeps
    its running statistics; a warning names it, on the CPU alone: elsewhere the program would have
    to wait for the device in each step to know. So it is for float32 values more than 10¹⁹ from
    their mean, whose squares overflow; y is β there.

    Args:
        x: mini-batch, `(N, C)` or `(N, C, *spatial)`, in any memory format.
        running_mean: (C,), any floating-point dtype, or None in training to follow nothing.
        running_var: likewise; unbiased.
        weight: γ, (C,), of x's dtype (for float16 and bfloat16 also float32), or None for 1.
        bias: β, likewise, or None for 0.
        training: whether to use and follow the statistics of the mini-batch.
        momentum: weight of the mini-batch in the running statistics, in [0, 1].
        eps: added to the variance, in units of x²; positive.

    Returns:
        y, of x's shape, dtype and memory format. In training it can be differentiated once.

    Raises:
        TypeError: x is not a tensor of floating-point numbers, or a dtype does not go with it.
        ValueError: a shape, momentum or eps is not as said above, there are no running statistics
            in inference, or a channel has a single value in training, whose variance is 0 whatever
            it is.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; chapter "The backward pass".
    """
    _check_numbers(momentum, eps)
    _check_tensors(x, running_mean, running_var, weight, bias)
    if not training:
        return _inference(x, running_mean, running_var, weight, bias, eps)
    count = _count(x)
    if count == 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, one value per channel; expected at least 2 in "
            "training: the variance of one value is 0, and y would be bias whatever x is"
        )
    y, mean, var = _BatchNormTrain.apply(x, weight, bias, eps)
    if count and running_mean is not None and running_var is not None:
        _follow(running_mean, mean, running_var, var * (count / (count - 1)), momentum)
    return y


class _BatchNormTrain(torch.autograd.Function):
    """y, and the mean and the biased variance, (C,), from which no gradient comes back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, others = _work_dtype(x), _others(x)
        # Statistics have the shape (1, C, 1, …), which broadcasts against x.
        mean = x.mean(others, keepdim=True, dtype=dtype)
        centered = x - mean
        rest = centered.mean(others, keepdim=True)
        centered -= rest  # x − μ
        var = centered.square().mean(others, keepdim=True)  # σ² = mean((x − μ)²)
        inv_std = (var + eps).rsqrt()
        # y = γ (x − μ) / sqrt(σ² + ε) + β
        y = centered.mul_(inv_std if weight is None else inv_std * _columns(weight, x))
        if bias is not None:
            y += _columns(bias, x)
        ctx.save_for_backward(x, weight, mean, rest, inv_std)
        mean, var = (mean + rest).flatten(), var.flatten()
        ctx.mark_non_differentiable(mean, var)
        return y.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # what is written in place below has no graph of its own
            raise RuntimeError(
                "batch_norm in training can be differentiated once; create_graph=True asks for more"
            )
        x, weight, mean, rest, inv_std = ctx.saved_tensors
        needs_dx, needs_dgamma, needs_dbeta, _ = ctx.needs_input_grad
        others, count = _others(x), _count(x)
        x_hat = (x - mean).sub_(rest).mul_(inv_std)
        dbeta = dy.sum(others, keepdim=True, dtype=x_hat.dtype)  # Σ dy
        dgamma = (dy * x_hat).sum(others, keepdim=True)  # Σ dy x_hat
        dx = None
        if needs_dx:
            # dx = γ / sqrt(σ² + ε) · (dy − mean(dy) − x_hat mean(dy x_hat)), in x_hat's memory
            scale = inv_std if weight is None else inv_std * _columns(weight, x)
            dx = x_hat.mul_(dgamma / -count).add_(dy).sub_(dbeta / count).mul_(scale)
        # Autograd gives each of them the dtype of its input.
        return (
            dx,
            dgamma.flatten() if needs_dgamma else None,
            dbeta.flatten() if needs_dbeta else None,
            None,
        )


def _inference(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """y = (x − μ)·slope + β: the mean first, so that a mean far from zero costs no digits."""
    if running_mean is None or running_var is None:
        raise ValueError(
            f"running_mean and running_var are None; expected ({x.shape[1]},) in inference"
        )
    slope = (_columns(running_var, x) + eps).rsqrt()
    if weight is not None:
        slope = slope * _columns(weight, x)
    y = (x - _columns(running_mean, x)) * slope
    if bias is not None:
        y += _columns(bias, x)
    return y.to(x.dtype)


def _follow(
    running_mean: Tensor, mean: Tensor, running_var: Tensor, var: Tensor, momentum: float
) -> None:
    """Move running statistics toward those of a mini-batch; all (C,), var unbiased."""
    good = var < math.inf  # false for a NaN, too; where the mean is not finite, var is not either
    for running, new in (running_mean, mean), (running_var, var):
        running.lerp_(torch.where(good, new.to(running.dtype), running), momentum)
    if good.device.type == "cpu" and not good.all():
        channels = ", ".join(map(str, (~good).nonzero().flatten().tolist()))
        warnings.warn(
            f"channel {channels}: the batch has a NaN or an infinity; the running statistics of "
            "the channel were not updated",
            RuntimeWarning,
            stacklevel=3,
        )


def _work_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the arithmetic: float32 for float16 and bfloat16."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _others(x: Tensor) -> tuple[int, ...]:
    """The axes that are not the channel's."""
    return (0, *range(2, x.ndim))


def _count(x: Tensor) -> int:
    """m, the number of values of a channel."""
    return x.shape[0] * math.prod(x.shape[2:])


def _columns(v: Tensor, x: Tensor) -> Tensor:
    """v, (C,), in the dtype of the arithmetic, as (1, C, 1, …), which broadcasts against x."""
    return v.to(_work_dtype(x)).view(1, -1, *[1] * (x.ndim - 2))


def _check_numbers(momentum: float, eps: float) -> None:
    if momentum is None or not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; expected a number in [0, 1]")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps}; expected a positive number")


def _check_tensors(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = f"has dtype {x.dtype}" if isinstance(x, Tensor) else f"is a {type(x).__name__}"
        raise TypeError(f"x {what}; expected a tensor of floating-point numbers")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, C) or (N, C, *spatial)")
    if (running_mean is None) != (running_var is None):
        absent = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{absent} alone is None; expected both running statistics, or neither")
    for name, v in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if v is not None and v.shape != (x.shape[1],):
            raise ValueError(
                f"{name} has shape {tuple(v.shape)}; expected ({x.shape[1]},), one per channel"
            )
    for name, v in ("weight", weight), ("bias", bias):
        if v is not None and v.dtype not in (x.dtype, _work_dtype(x)):
            raise TypeError(f"{name} has dtype {v.dtype}; expected {_work_dtype(x)}, to go with x")
