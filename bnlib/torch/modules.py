"""BatchNorm as a module of torch."""

import torch
from torch import Tensor

from bnlib.torch.functional import _check_numbers, batch_norm


class BatchNorm2d(torch.nn.BatchNorm2d):
    r"""`torch.nn.BatchNorm2d` with `bnlib.torch.batch_norm` inside.

    It is a subclass: what looks for BatchNorm layers finds it, and state dicts load both ways. In
    two things it differs. An empty mini-batch is not counted. And a channel with a NaN or an
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

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; expected 1 or more")
        _check_numbers(0.0 if momentum is None else momentum, eps)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """y, of the shape of x, (N, C, H, W)."""
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (N, {self.num_features}, H, W)"
            )
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
        )
        if batches is not None and x.numel():
            batches += 1  # the buffer itself
        return y
