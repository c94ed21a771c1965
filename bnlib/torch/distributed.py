r"""BatchNorm over a mini-batch that is spread over several processes, the ranks of a group.

Each rank sums up its part in float64 as (count, mean, M), where M is the sum of the squared
deviations from that mean; the ranks tell one another, and each merges what it was told in the same
way. In the backward pass the sums of dy and of dy·x̂ travel likewise.
"""

from __future__ import annotations

import warnings
from functools import partial
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.torch import operations
from bnlib.torch.functional import (
    batch_norm,
    check_numbers,
    check_tensors,
    follow,
    module_for,
    needed,
    watched,
)
from bnlib.torch.modules import _Forward, _Module, _names, _Ours, _ours, _OwnForward
from bnlib.torch.operations import count

_CHANNELS = 256  # as many fit into the first message, 4 KiB
_FIRST = 2 + 2 * _CHANNELS


def sync_batch_norm(
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
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    r"""`bnlib.torch.batch_norm` of the mini-batch of all ranks; each has its part of it.

    .. math:: n = \sum_r n_r, \qquad \mu = \frac{1}{n} \sum_r n_r \mu_r, \qquad
        M = \sum_r \left( M_r + n_r (\mu_r - \mu)^2 \right), \qquad \sigma^2 = M / n

    In training all ranks of the group must call it together, and together ask for the gradient of
    x. A part may have any number of examples, and none: what counts is the sum. Running statistics
    are those of the whole mini-batch, to the same bits on all ranks. Without a process group, with
    one rank, and in inference it is `batch_norm`, and nothing is sent.

    The derivative dx is that of the sum of the ranks' losses. Those of weight and bias are the sums
    over the rank's own values alone, as for every parameter; `DistributedDataParallel` averages
    them over the k ranks. It so trains on the mean loss of the whole mini-batch when each rank's
    loss is the mean over its part and the parts are equal. When they are not, let each rank's loss
    be the sum over its part, times k/n.

    Args:
        x: the rank's part of the mini-batch, `(N, C)` or `(N, C, *spatial)`; N may differ.
        running_mean: (C,), any floating-point dtype, or None in training to follow nothing.
        running_var: likewise; unbiased.
        weight: γ, (C,), or None for 1.
        bias: β, likewise, or None for 0.
        training: whether to use and follow the statistics of the mini-batch.
        momentum: weight of the mini-batch in the running statistics, in [0, 1].
        eps: added to the variance, in units of x²; positive.
        residual: what is added to y, of x's shape and dtype, or None.
        relu: whether to end with max(0, ·).
        group: the ranks that share the mini-batch; None for all.

    Returns:
        y, of x's shape, dtype and memory format. It can be differentiated any number of times.

    Raises:
        TypeError: as `batch_norm`, before anything is sent.
        ValueError: as `batch_norm`, before anything is sent; on all ranks when they differ in C,
            or have a single value of a channel in all.
        RuntimeError: another rank ended, or did not answer within the timeout of the group.

    Source: Chan, Golub & LeVeque 1979; chapter "Many machines".
    """
    y, _ = _synchronized(
        x,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        residual=residual,
        relu=relu,
        group=group,
    )
    return y


def _synchronized(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *,
    residual: Tensor | None,
    relu: bool,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, int]:
    """y, and the number of values of a channel on all ranks."""
    arguments = running_mean, running_var, weight, bias
    if not training or _ranks(group) == 1:
        y = batch_norm(x, *arguments, training, momentum, eps, residual=residual, relu=relu)
        return y, count(x)
    return _train(x, *arguments, momentum, eps, residual, relu, group)


def _ranks(group: dist.ProcessGroup | None) -> int:
    """The number of ranks in the group; 1 where no process group was initialized."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    if (ranks := dist.get_world_size(group)) < 1:
        raise ValueError("group is one that this process does not belong to")
    return ranks


@torch.compiler.disable  # torch.compile leaves it as it is, and compiles the model around it
def _train(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    residual: Tensor | None,
    relu: bool,
    group: dist.ProcessGroup | None,
) -> tuple[Tensor, int]:
    """y, and the number of values of a channel on all ranks."""
    check_numbers(momentum, eps)
    check_tensors(x, running_mean, running_var, weight, bias, residual)
    y, mean, var, m = _SyncBatchNorm.apply(x, weight, bias, residual, eps, relu, group)
    if m and running_mean is not None and running_var is not None:
        follow(running_mean, mean, running_var, var * (m / (m - 1)), momentum)
    return y, m


class _SyncBatchNorm(torch.autograd.Function):
    """y; the mean and the biased variance, (C,), of all ranks; and their number of values."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        eps: float,
        relu: bool,
        group: dist.ProcessGroup | None,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        ctx.module, ctx.eps, ctx.group = module_for(x), eps, group
        whole = _merge(_gather(_summary(x, ctx.module), group))
        m = int(whole[0])
        mean, m2 = whole[1:].chunk(2)
        ctx.m = max(m, 1)
        var = m2 / ctx.m
        y = ctx.module.inference(x, mean, var, weight, bias, eps, residual, relu)
        ctx.save_for_backward(x, weight, mean, var, y if relu else None)
        ctx.mark_non_differentiable(mean, var)
        return y, mean, var, m

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, y = ctx.saved_tensors
        needs_dx, *needs = ctx.needs_input_grad
        if again := torch.is_grad_enabled():  # the next derivative sees that μ and σ² depend on x
            others, wide = operations.others(x), operations.work_dtype(x)
            mean = _sum(x.sum(others, dtype=wide), ctx.group) / ctx.m
            m2 = (x - operations.columns(mean, x)).square().sum(others)
            var = _sum(m2, ctx.group) / ctx.m
        module = operations if again or watched(dy) else ctx.module
        dz = operations.past_relu(dy, y)
        own = torch.stack(module.sums(dz, x, mean, var, ctx.eps))  # of the values of this rank
        dx = None
        if needs_dx:
            of_all = _sum(own, ctx.group)
            dx = module.gradient(dz, x, mean, var, weight, ctx.eps, *of_all, ctx.m)
        return dx, *needed(needs, (*own, dz)), None, None, None


def _summary(x: Tensor, module: ModuleType) -> Tensor:
    """The count, the mean and M of each channel of the rank's part, (1 + 2C,), float64."""
    m = count(x)
    if not m:
        return x.new_zeros(1 + 2 * x.shape[1], dtype=torch.float64)
    mean, var = module.statistics(x)
    return torch.cat([mean.new_tensor([m]), mean, m * var])


def _merge(told: Tensor) -> Tensor:
    """The summary of the whole from those of its parts, (K, 1 + 2C), by Chan's formula."""
    counts, (means, m2s) = told[:, :1], told[:, 1:].chunk(2, dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp(min=1)
    m2 = (m2s + counts * (means - mean).square()).sum(0)
    return torch.cat([count, mean, m2])


def _gather(own: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The summaries of all ranks, in their order, (ranks, 1 + 2C).

    The first message has the same length for every C: ranks that differ in C find out, where
    messages of different lengths would end in a crash or, worse, in numbers.
    """
    first = own.new_zeros(_FIRST)
    first[0] = len(own) // 2
    first[1 : 1 + len(own)] = own[: _FIRST - 1]
    messages = _all_gather(first, group)
    channels, counts = messages[:, :2].T.tolist()
    if len(set(channels)) > 1:
        raise ValueError(
            f"x has {', '.join(f'{c:.0f}' for c in channels)} channels on the ranks, in their "
            "order; expected the same number on all"
        )
    if 1 + len(own) > _FIRST:
        messages = torch.cat([messages, _all_gather(own[_FIRST - 1 :], group)], dim=1)
    if sum(counts) == 1:
        raise ValueError(
            "x has one value per channel on all ranks together; expected at least 2 in training: "
            "the variance of one value is 0, and y would be bias whatever x is"
        )
    return messages[:, 1 : 1 + len(own)]


def _all_gather(v: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """v, (L,), of each rank: (ranks, L)."""
    messages = v.new_empty(dist.get_world_size(group), len(v))
    dist.all_gather(list(messages.unbind()), v, group=group)
    return messages


def _sum(v: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Σ v over the ranks; it can be differentiated."""
    return _Sum.apply(v, group)


class _Sum(torch.autograd.Function):
    """Σ v over the ranks: all losses depend on it, so dv is the sum of their derivatives."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        total = v.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *dtotal: Tensor) -> tuple[Tensor, None]:
        return _sum(dtotal[0], ctx.group), None


class _SyncForward(_Forward):
    """The forward pass of a layer over the mini-batch of all ranks."""

    def __init__(self, layer: _BatchNorm, group: dist.ProcessGroup | None) -> None:
        super().__init__(layer)
        self.group = group

    def normalize(self, x: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, int]:
        """y, and the number of values of a channel in the mini-batch of all ranks."""
        return _synchronized(x, *arguments, **options, group=self.group)


class SyncBatchNorm(_BatchNorm):
    r"""A BatchNorm layer over the mini-batch of all ranks, for any number of axes.

    State dicts load both ways with the BatchNorm layers of torch. Unlike `torch.nn.SyncBatchNorm`
    it also runs on the CPU, takes `(N, C)` as well as `(N, C, *spatial)`, and can be differentiated
    twice. A mini-batch that is empty on some of the ranks is counted, on all of them.

    Args:
        args: as for `torch.nn.BatchNorm2d`.
        process_group: the ranks that share a mini-batch; None for all.
        options: as for `torch.nn.BatchNorm2d`.

    Source: chapter "Many machines".
    """

    def __init__(
        self, *args: Any, process_group: dist.ProcessGroup | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.process_group = process_group

    def forward(self, input: Tensor) -> Tensor:
        """y, of the shape of x."""
        return _SyncForward(self, self.process_group).forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number of axes, as `batch_norm`


def convert_sync(model: _Module, process_group: dist.ProcessGroup | None = None) -> _Module:
    """Let the BatchNorm layers of a model compute over the mini-batch of all ranks, in place.

    As with `bnlib.torch.convert`, the layers stay the same objects of the same class, and `restore`
    turns them back. Only `torch.nn.SyncBatchNorm`, which `DistributedDataParallel` refuses on the
    CPU, becomes the `SyncBatchNorm` of this module. Call it before `DistributedDataParallel` wraps
    the model. Where layers that are called BatchNorm stay as they are, a warning names them.

    Args:
        model: a model, or a single layer.
        process_group: the ranks that share a mini-batch. None for all; or, where a layer is a
            `SyncBatchNorm` already, torch's or bnlib's, for its own.

    Returns:
        The model itself.
    """
    left = []
    for layer in model.modules():
        if isinstance(layer, (SyncBatchNorm, torch.nn.SyncBatchNorm)):
            layer.process_group = process_group or layer.process_group
            layer.__class__ = SyncBatchNorm
        elif isinstance(layer, _BatchNorm) and ("forward" not in vars(layer) or _ours(layer)):
            ours: _Ours = _SyncForward(layer, process_group)
            if type(layer).forward is not _BatchNorm.forward:
                ours = _OwnForward(layer, partial(sync_batch_norm, group=process_group))
            ours.install()
        else:
            left.append(layer)
    if names := _names(left):
        warnings.warn(
            f"convert_sync left {names} as it was, with the statistics of each rank's own part; "
            "expected BatchNorm layers of torch, or derived from them",
            stacklevel=2,
        )
    return model
