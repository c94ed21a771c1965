"""The relatives of Batch Normalization as torch layers, where torch has none of its own.

`bnlib.norms` has their equations. Of torch's own, `GroupNorm(1, C)` is the layer norm of whole
examples, and `torch.nn.utils.parametrizations.weight_norm` is weight norm.
"""

import torch
from torch import Tensor
from torch.nn.utils.parametrize import register_parametrization

from bnlib.torch.functional import batch_norm


class GhostBatchNorm1d(torch.nn.BatchNorm1d):
    r"""BatchNorm of `(N, C)` that normalizes each part of the mini-batch by itself in training.

    The parts stand side by side, as channels of their own, so that one call normalizes them all.
    The running statistics move once a mini-batch, by the average over its parts: another size of
    the parts changes the noise in training, and not how long the statistics remember.

    Args:
        channels: number of channels C.
        size: examples in a part, which divides the mini-batch, 2 or more.
        eps: added to the variance, in units of x².
        momentum: weight of a new mini-batch in the running statistics.

    Raises:
        ValueError: size is below 2; in training, x is not `(N, C)` or size does not divide N.

    Source: Hoffer et al. 2017; chapter "Where does it break?".
    """

    def __init__(
        self, channels: int, size: int, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        if size < 2:
            raise ValueError(f"size is {size}; expected 2 or more")
        super().__init__(channels, eps, momentum)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if x.ndim != 2 or x.shape[1] != self.num_features or len(x) % self.size:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; expected (N, {self.num_features}) "
                f"with N a multiple of {self.size}"
            )
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        parts = len(x) // self.size
        beside = x.reshape(parts, self.size, -1).transpose(0, 1).reshape(self.size, -1)
        mean, var = self.running_mean.repeat(parts), self.running_var.repeat(parts)
        gamma, beta = self.weight.repeat(parts), self.bias.repeat(parts)
        y = torch.nn.functional.batch_norm(
            beside, mean, var, gamma, beta, True, self.momentum, self.eps
        )
        self.running_mean.copy_(mean.reshape(parts, -1).mean(0))
        self.running_var.copy_(var.reshape(parts, -1).mean(0))
        return y.reshape(self.size, parts, -1).transpose(0, 1).reshape(x.shape)


class BatchRenorm(torch.nn.Module):
    """BatchNorm drawn to its running statistics: `bnlib.nn.BatchRenorm` for torch.

    Args:
        num_features: number of channels C.
        r_max: limit of the factor, 1 or more, an attribute that may be raised in training.
        d_max: limit of the shift, 0 or more, likewise.
        eps: added to the variance, in units of x²; positive.
        momentum: weight of a new batch in the running statistics, in [0, 1].

    Raises:
        ValueError: an argument is not as said above.

    Source: Ioffe 2017; chapter "What else normalizes?".
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise ValueError(f"num_features is {num_features}; expected 1 or more")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}; expected a number in [0, 1]")
        if not r_max >= 1:
            raise ValueError(f"r_max is {r_max}; expected 1 or more")
        if not d_max >= 0:
            raise ValueError(f"d_max is {d_max}; expected 0 or more")
        self.eps, self.momentum = eps, momentum
        self.r_max, self.d_max = r_max, d_max
        self.weight = torch.nn.Parameter(torch.ones(num_features))
        self.bias = torch.nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """y for a batch, `(N, C)` or `(N, C, *spatial)`."""
        gamma: Tensor = self.weight
        beta: Tensor = self.bias
        if self.training:
            r, d = self._corrections(x)
            gamma, beta = gamma * r, gamma * d + beta
            self.num_batches_tracked += 1
        return batch_norm(
            x,
            self.running_mean,
            self.running_var,
            gamma,
            beta,
            self.training,
            self.momentum,
            self.eps,
        )

    @torch.no_grad()
    def _corrections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r and d, (C,), of gamma's dtype."""
        others = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.double(), others, correction=0)
        inv_std = (self.running_var.double() + self.eps).rsqrt()
        r = ((var + self.eps).sqrt() * inv_std).clamp(1 / self.r_max, self.r_max)
        d = ((mean - self.running_mean) * inv_std).clamp(-self.d_max, self.d_max)
        return r.to(self.weight.dtype), d.to(self.weight.dtype)


class DynamicTanh(torch.nn.Module):
    """y = γ tanh(αx) + β: `bnlib.nn.DynamicTanh` for torch.

    Args:
        num_features: number of channels C, on axis 1.
        alpha: α at the start, one number for all channels.

    Source: Zhu et al. 2025; chapter "What else normalizes?".
    """

    def __init__(self, num_features: int, *, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = torch.nn.Parameter(torch.tensor(float(alpha)))
        self.weight = torch.nn.Parameter(torch.ones(num_features))
        self.bias = torch.nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """y for a batch, `(N, C)` or `(N, C, *spatial)`."""
        shape = -1, *[1] * (x.ndim - 2)
        y: Tensor = self.weight.view(shape) * torch.tanh(self.alpha * x) + self.bias.view(shape)
        return y


class _Standardize(torch.nn.Module):
    """The weights of each output with mean 0 and variance g²; g starts at their spread."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.gain = torch.nn.Parameter(weight.detach().flatten(1).std(1, correction=0))

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.flatten(1)
        var, mean = torch.var_mean(rows, 1, correction=0, keepdim=True)
        scaled: Tensor = self.gain[:, None] * (rows - mean) * (var + self.eps).rsqrt()
        return scaled.view_as(weight)


def standardize_weight(layer: torch.nn.Module, *, eps: float = 1e-5) -> torch.nn.Module:
    """Give a layer weights of mean 0 and variance g² for each output, with g learned.

    `bnlib.nn.WeightStandardization` for torch, in the manner of torch's `weight_norm`.

    Args:
        layer: has a `weight`, (O, ...), output first; it is changed in place.
        eps: added to the variance of the weights.

    Returns:
        The layer, whose `weight` is computed from `parametrizations.weight` from now on.

    Source: Qiao et al. 2019; the gain, Brock et al. 2021; chapter "What else normalizes?".
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return register_parametrization(layer, "weight", _Standardize(weight, eps))
