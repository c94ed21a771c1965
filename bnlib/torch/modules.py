"""BatchNorm as modules of torch."""

from typing import Any, TypeVar

import torch
from torch import Tensor

from bnlib.torch.functional import _check_numbers, batch_norm

_Module = TypeVar("_Module", bound=torch.nn.Module)


class _BatchNorm(torch.nn.modules.batchnorm._BatchNorm):
    """What the three layers share; each has the number of axes of x, and its shape for errors."""

    _ndims: tuple[int, ...]
    _shape: str
    relu = False  # in a layer that `convert` made, too

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        relu: bool = False,
        **options: Any,
    ) -> None:
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; expected 1 or more")
        _check_numbers(0.0 if momentum is None else momentum, eps)
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, **options
        )
        self.relu = relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """y, of the shape of x; with a residual of that shape, y + residual, before any ReLU."""
        self._check_input_dim(x)
        following = self.training and self.track_running_stats
        use_running = following or not self.training
        batches = self.num_batches_tracked if following else None
        momentum = self.momentum
        if momentum is None:  # the average over all mini-batches: weights 1, 1/2, 1/3, …
            momentum = 0.0 if batches is None else 1 / (int(batches) + 1)
        y = batch_norm(
            x,
            self.running_mean if use_running else None,
            self.running_var if use_running else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
            residual=residual,
            relu=self.relu,
        )
        if batches is not None and not isinstance(x, Tensor):
            batches.add_(x.numel() > 0)  # torch.fx writes it down
        elif batches is not None and x.numel():
            batches += 1  # the buffer itself
        return y

    def _check_input_dim(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):  # what stands in for one in torch.fx has no shape
            return
        if x.ndim not in self._ndims or x.shape[1] != self.num_features:
            expected = self._shape.format(self.num_features)
            raise ValueError(f"x has shape {tuple(x.shape)}; expected {expected}")

    def extra_repr(self) -> str:
        """The arguments, as `print` shows them."""
        return super().extra_repr() + ", relu=True" * self.relu


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """`BatchNorm2d` for x of shape `(N, C)` or `(N, C, L)`: arguments, attributes and the rest."""

    _ndims, _shape = (2, 3), "(N, {0}) or (N, {0}, L)"


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    r"""`torch.nn.BatchNorm2d` with `bnlib.torch.batch_norm` inside, for x of shape `(N, C, H, W)`.

    .. math:: y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

    It is a subclass: what looks for BatchNorm layers finds it, and state dicts load both ways.
    `layer(x, residual)` is y + residual, and with `relu=True` a layer ends with max(0, ·). Tools
    that replace BatchNorm layers (`fuse_conv_bn_eval`, torch's `convert_sync_batchnorm`) know
    nothing of that ReLU; bnlib's `convert_sync` keeps it.

    In two things it differs. An empty mini-batch is not counted. And a channel with a NaN or an
    infinity in the mini-batch keeps its running statistics; with `momentum=None` this mini-batch
    counts there like one that was equal to the average so far.

    Args:
        num_features: number of channels C.
        eps: added to the variance, in units of x²; positive.
        momentum: weight of a new mini-batch in the running statistics, in [0, 1], or None for the
            average over all mini-batches.
        affine: whether there are weight, from 1, and bias, from 0.
        track_running_stats: whether to follow the statistics; without them, inference uses those of
            the mini-batch.
        device: where parameters and buffers are.
        dtype: of parameters and buffers.
        relu: whether to end with max(0, ·).
        options: what else torch's layer takes, such as `bias` in torch 2.13.

    Attributes:
        weight: γ, (C,), or None.
        bias: β, (C,), or None.
        running_mean: (C,), in units of x, or None.
        running_var: unbiased, (C,), in units of x², or None.
        num_batches_tracked: number of mini-batches followed, or None.

    Raises:
        ValueError: num_features, eps or momentum is not as said above.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2.
    """

    _ndims, _shape = (4,), "(N, {}, H, W)"


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """`BatchNorm2d` for x of shape `(N, C, D, H, W)`: arguments, attributes and the rest."""

    _ndims, _shape = (5,), "(N, {}, D, H, W)"


_OURS: dict[type[torch.nn.Module], type[_BatchNorm]] = {
    torch.nn.BatchNorm1d: BatchNorm1d,
    torch.nn.BatchNorm2d: BatchNorm2d,
    torch.nn.BatchNorm3d: BatchNorm3d,
}


def convert(model: _Module) -> _Module:
    """Turn the BatchNorm layers of a torch model into those of bnlib, in place.

    The layers stay the same objects and change their class alone. So parameters, buffers, hooks,
    and whether a layer trains, stay as they are, and optimizers and state dicts go on working.
    Layers of any other class stay too: `SyncBatchNorm`, and what somebody derived from the three.
    A lazy layer is one of the three from its first mini-batch on.

    Args:
        model: a model, or a single layer.

    Returns:
        The model itself.
    """
    for layer in model.modules():
        layer.__class__ = _OURS.get(type(layer), type(layer))
    return model
