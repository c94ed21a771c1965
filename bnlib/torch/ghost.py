"""Ghost BatchNorm for torch: each part of a mini-batch has its own statistics."""

import torch


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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
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
