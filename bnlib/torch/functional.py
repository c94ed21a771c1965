r"""`batch_norm` as `torch.nn.functional` has it, with the digits that the book derives.

What computes is one of three modules with the same functions, of which `backend_for` tells. On the
CPU it is `bnlib.torch.arrays`, on a CUDA device the kernels of `bnlib.torch.triton`. Everywhere
else, and wherever torch has to see each operation (torch.compile, torch.func, derivatives of a
higher order), it is `bnlib.torch.operations`.
"""

import functools
import math
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.autograd.forward_ad import unpack_dual
from torch.overrides import handle_torch_function, has_torch_function_variadic

from bnlib import batchnorm
from bnlib.batchnorm import Backend
from bnlib.torch import arrays, operations
from bnlib.torch.operations import count, past_relu, work_dtype

_HALVES = torch.float16, torch.bfloat16
_DTYPES = *_HALVES, torch.float32, torch.float64
_Maybe = Tensor | None


def backend_for(x: Tensor) -> Backend:
    """What `batch_norm` computes a mini-batch with, here and now, and why.

    Derivatives of a second or higher order are computed with "torch", whatever this says.

    Args:
        x: the mini-batch.

    Returns:
        The `Backend`.
    """
    _, name, reason = _choice(x)
    return Backend(name, reason)


def module_for(x: Tensor) -> ModuleType:
    """The module that computes it, of which `backend_for` tells."""
    return _choice(x)[0]


def _choice(x: Tensor) -> tuple[ModuleType, str, str]:
    """The module, what it is called, and why it is this one."""
    if reason := watched(x):
        return operations, "torch", reason
    if not x.numel():
        return operations, "torch", "the mini-batch is empty"
    if x.device.type == "cpu":
        return _on_cpu()
    if x.device.type != "cuda":
        return operations, "torch", f"there are no kernels for the device {x.device}"
    kernels, reason = _triton()
    if kernels is None:
        return operations, "torch", f"Triton does not work here: {reason}"
    return kernels, "triton", "the tensor is on a CUDA device"


@functools.cache
def _on_cpu() -> tuple[ModuleType, str, str]:
    name, reason = batchnorm.backend_for(np.empty((0, 1), np.float32))
    return arrays, name, f"the tensor is in the memory of the CPU; {reason}"


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    r"""Normalize with the statistics of the mini-batch, or with the running ones.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    In training μ and σ² are the mean and the biased variance of each channel, over the batch and
    all positions, and the running statistics move toward them, in place: α is `momentum`, and the
    variance there is unbiased.

    .. math:: \mu_r \leftarrow (1 - \alpha)\,\mu_r + \alpha\,\mu, \qquad
        \sigma_r^2 \leftarrow (1 - \alpha)\,\sigma_r^2 + \alpha\,\tfrac{m}{m-1}\,\sigma^2

    With `residual` and `relu` it goes on as a block of a ResNet does, to max(0, y + residual).

    An empty mini-batch changes nothing. A channel with a NaN or an infinity in the mini-batch, or a
    variance that its running statistics cannot hold, keeps them; a warning names it, on the CPU
    alone: elsewhere the program would have to wait for the device in each step to know.

    Args:
        x: mini-batch, `(N, C)` or `(N, C, *spatial)`, in any memory format.
        running_mean: (C,), any floating-point dtype, or None in training to follow nothing.
        running_var: likewise; unbiased.
        weight: γ, (C,), of x's dtype (for float16 and bfloat16 also float32), or None for 1.
        bias: β, likewise, or None for 0.
        training: whether to use and follow the statistics of the mini-batch.
        momentum: weight of the mini-batch in the running statistics, in [0, 1].
        eps: added to the variance, in units of x²; positive.
        residual: what is added to y, of x's shape and dtype, or None.
        relu: whether to end with max(0, ·).

    Returns:
        y, of x's shape and dtype, channels last where x is, else contiguous. It can be
        differentiated any number of times.

    Raises:
        TypeError: x is not a tensor of floating-point numbers, or a dtype does not go with it.
        ValueError: a shape, momentum or eps is not as said above, there are no running statistics
            in inference or, seen on the CPU alone, a variance there is negative or NaN, or a
            channel has a single value in training, whose variance is 0 whatever it is.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; chapter "The backward pass".
    """
    tensors = x, running_mean, running_var, weight, bias, residual
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            batch_norm, tensors, *tensors[:5], training, momentum, eps, residual=residual, relu=relu
        )
    check_numbers(momentum, eps)
    check_tensors(x, running_mean, running_var, weight, bias, residual)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(
                f"running_mean and running_var are None; expected ({x.shape[1]},) in inference"
            )
        given = running_mean, running_var, weight, bias
        if _transformed(*tensors) or running_mean.requires_grad or running_var.requires_grad:
            return operations.inference(x, *given, eps, residual, relu)
        return _Inference.apply(_laid_out(x), *given, residual, eps, relu)
    m = count(x)
    if m == 1:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, one value per channel; expected at least 2 in "
            "training: the variance of one value is 0, and y would be bias whatever x is"
        )
    if _transformed(x, weight, bias, residual):
        y, mean, var = operations.train(x, weight, bias, eps, residual, relu)
        mean, var = mean.detach(), var.detach()
    else:
        y, mean, var = _Training.apply(_laid_out(x), weight, bias, residual, eps, relu)
    if m and running_mean is not None and running_var is not None:
        follow(running_mean, mean, running_var, var * (m / (m - 1)), momentum)
    return y


# Functions of autograd, for what happens outside of torch. They have ctx in forward, as torch.func
# does not allow; it never sees them. The kind with setup_context takes 17 µs longer in each call.


class _Training(torch.autograd.Function):
    """y, and the mean and the biased variance, (C,), float64, from which no gradient comes back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: _Maybe, bias: _Maybe, residual: _Maybe, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.module, ctx.eps = module_for(x), eps
        y, mean, var = ctx.module.train(x, weight, bias, eps, residual, relu)
        ctx.save_for_backward(x, weight, mean, var, y if relu else None)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[_Maybe, ...]:
        x, weight, mean, var, y = ctx.saved_tensors
        if again := torch.is_grad_enabled():  # the next derivative sees that μ and σ² depend on x
            x = x.to(mean.dtype)
            mean, var = operations.statistics(x)
        module = operations if again or watched(dy) else ctx.module
        gradients = module.backward(
            dy, x, mean, var, weight, ctx.eps, y, needs_dresidual=ctx.needs_input_grad[3]
        )
        return *needed(ctx.needs_input_grad, gradients), None, None


class _Inference(torch.autograd.Function):
    """y, with running statistics, from which no gradient comes back either."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        weight: _Maybe,
        bias: _Maybe,
        residual: _Maybe,
        eps: float,
        relu: bool,
    ) -> Tensor:
        ctx.module, ctx.eps = module_for(x), eps
        if ctx.module is arrays:
            arrays.check_variance(var)
        y: Tensor = ctx.module.inference(x, mean, var, weight, bias, eps, residual, relu)
        # Copies: the running statistics may move on before the backward pass.
        ctx.save_for_backward(x, weight, mean.clone(), var.clone(), y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[_Maybe, ...]:
        x, weight, mean, var, y = ctx.saved_tensors
        module = operations if torch.is_grad_enabled() or watched(dy) else ctx.module
        needs_dx, _, _, *needs = ctx.needs_input_grad
        dz = past_relu(dy, y)
        dx, sums = None, (None, None)
        if needs_dx:  # dx = γ / sqrt(σ² + ε) · dz, which is the inference of dz about 0
            as_x = dz.contiguous(memory_format=suggest_memory_format(x))
            dx = module.inference(as_x, torch.zeros_like(var), var, weight, None, ctx.eps)
        if any(needs[:2]):
            sums = module.sums(dz, x, mean, var, ctx.eps)
        return dx, None, None, *needed(needs, (*sums, dz)), None, None


def needed(needs: Iterable[bool], gradients: Iterable[_Maybe]) -> Iterator[_Maybe]:
    """Those gradients that are needed. Autograd gives each the dtype of its input."""
    return (g if need else None for g, need in zip(gradients, needs, strict=False))


# Running statistics.


def follow(
    running_mean: Tensor, mean: Tensor, running_var: Tensor, var: Tensor, momentum: float
) -> None:
    """Move running statistics toward those of a mini-batch; all (C,), var unbiased."""
    if torch._C._are_functorch_transforms_active() and not torch.compiler.is_compiling():
        _Follow.apply(running_mean, mean, running_var, var, momentum)
        return
    if mean.device.type == "cpu" and not watched(mean):
        arrays.follow(running_mean, mean, running_var, var, momentum)
        return
    good = mean.to(running_mean.dtype).isfinite() & var.to(running_var.dtype).isfinite()
    for running, new in (running_mean, mean), (running_var, var):
        wide = running.to(work_dtype(running))  # in float32, new − running may be too large
        moved = wide.lerp(new.to(wide.dtype), momentum)
        running.copy_(torch.where(good, moved, wide))


class _Follow(torch.autograd.Function):
    """The same under torch.func, which refuses to change in place what a function captured."""

    @staticmethod
    def forward(*vectors_and_momentum: Any) -> None:
        follow(*vectors_and_momentum)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass  # nothing comes back

    @staticmethod
    def vmap(info: Any, in_dims: Any, *vectors_and_momentum: Any) -> tuple[None, None]:
        if in_dims[0] is None or in_dims[2] is None:
            raise RuntimeError(
                "running_mean and running_var are not mapped over by vmap; expected a pair for "
                "each mini-batch, or None: all would change the same two in place"
            )
        *vectors, momentum = vectors_and_momentum
        each_of = [
            [v] * info.batch_size if dim is None else v.unbind(dim)
            for v, dim in zip(vectors, in_dims, strict=False)
        ]
        for mapped in zip(*each_of, strict=True):
            _Follow.apply(*mapped, momentum)
        return None, None


@functools.cache
def _triton() -> tuple[Any, str]:
    """The kernels, or None and why they do not work: no Triton, no C compiler, too old a GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"  # on the CPU it is interpreted
    try:
        from bnlib.torch import triton

        triton.train(torch.zeros(2, 1, device=device), None, None, 1e-5)
    except Exception as error:  # whatever it is, torch operations will do
        return None, str(error)
    return triton, ""


def watched(*tensors: _Maybe) -> str:
    """Why torch has to see each operation on the tensors; nothing where it does not."""
    if reason := _transformed(*tensors):
        return reason
    return "the operations are recorded" if torch._C._len_torch_dispatch_stack() else ""


def _transformed(*tensors: _Maybe) -> str:
    """Why it has to see them in place of an autograd function, too.

    A mode that records does not ask for that. With the same function inside and outside of one, a
    checkpoint that computes again outside keeps the same tensors.
    """
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export traces the operations"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is at work"
    if torch.jit.is_tracing():
        return "TorchScript traces the operations"
    for v in tensors:
        if v is None:
            continue
        if type(v).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            return f"{type(v).__name__} has operations of its own"
        if not torch._C._has_storage(v):
            return "the tensor has no memory of its own"
        if unpack_dual(v).tangent is not None:
            return "forward-mode differentiation is under way"
    return ""


# What the tensors are.


def _laid_out(x: Tensor) -> Tensor:
    """x in the layout that torch gives y and dx: channels last where x is so, else contiguous."""
    return x if x.is_contiguous() else x.contiguous(memory_format=suggest_memory_format(x))


def check_numbers(momentum: float, eps: float) -> None:
    if momentum is None or not 0 <= momentum <= 1:
        raise ValueError(f"momentum is {momentum}; expected a number in [0, 1]")
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {eps}; expected a positive number")


def check_tensors(
    x: Tensor,
    running_mean: _Maybe,
    running_var: _Maybe,
    weight: _Maybe,
    bias: _Maybe,
    residual: _Maybe = None,
) -> None:
    if not isinstance(x, Tensor) or x.dtype not in _DTYPES:
        what = f"has dtype {x.dtype}" if isinstance(x, Tensor) else f"is a {type(x).__name__}"
        raise TypeError(f"x {what}; expected a tensor of floating-point numbers, 16 to 64 bits")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (N, C) or (N, C, *spatial)")
    if x.shape[1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected at least one channel on axis 1")
    if (running_mean is None) != (running_var is None):
        absent = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{absent} alone is None; expected both running statistics, or neither")
    channels, wide = x.shape[1:2], torch.float32 if x.dtype in _HALVES else x.dtype
    for name, v, shape, dtypes in (
        ("running_mean", running_mean, channels, _DTYPES),
        ("running_var", running_var, channels, _DTYPES),
        ("weight", weight, channels, (x.dtype, wide)),
        ("bias", bias, channels, (x.dtype, wide)),
        ("residual", residual, x.shape, (x.dtype,)),
    ):
        if v is None:
            continue
        if v.shape != shape:
            raise ValueError(f"{name} has shape {tuple(v.shape)}; expected {tuple(shape)}")
        if v.dtype not in dtypes:
            expected = "a floating-point one" if dtypes is _DTYPES else f"{wide}, to go with x"
            raise TypeError(f"{name} has dtype {v.dtype}; expected {expected}")
        if v.device != x.device:
            raise ValueError(f"{name} is on {v.device}; expected {x.device}, where x is")
