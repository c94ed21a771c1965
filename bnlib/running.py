"""Statistics of the population, estimated from mini-batches, for use at inference."""

import warnings

import numpy as np


class RunningStats:
    r"""Mean and variance of each channel, followed over mini-batches.

    .. math:: \mu \leftarrow (1 - \alpha)\,\mu + \alpha\,\mu_B, \qquad
        \sigma^2 \leftarrow (1 - \alpha)\,\sigma^2 + \alpha\,\tfrac{m}{m-1}\,\sigma_B^2

    α is `momentum`, the weight of the new batch. With None every batch counts the same, as in
    algorithm 2 of the paper: α = 1, 1/2, 1/3, …

    Args:
        channels: number of channels C.
        momentum: weight of the new batch, in [0, 1], or None.

    Attributes:
        mean: (C,), float64, in units of x; 0 before the first batch.
        var: unbiased, (C,), float64, in units of x²; 1 before the first batch.
        batches: number of mini-batches that were not empty.

    Raises:
        ValueError: channels is not positive, or momentum is outside [0, 1] or NaN.

    Source: Ioffe & Szegedy 2015, section 3.1 and algorithm 2.
    """

    def __init__(self, channels: int, momentum: float | None = 0.1) -> None:
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected 1 or more")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {momentum}; expected a number in [0, 1], or None")
        self.momentum = momentum
        self.mean = np.zeros(channels)
        self.var = np.ones(channels)
        self.batches = 0
        self._updates = np.zeros(channels, dtype=np.int64)  # a channel can miss a batch

    def update(self, mean: np.ndarray, var: np.ndarray, count: int) -> None:
        """Take in the statistics of one mini-batch.

        An empty mini-batch changes nothing. A channel whose mean or variance is NaN or infinite
        keeps what it had, and a warning names it: one bad batch must not spoil the statistics for
        good.

        Args:
            mean: batch mean, (C,), in units of x.
            var: biased batch variance (1/m), (C,), in units of x².
            count: m, the number of values of a channel.

        Raises:
            TypeError: mean or var is not an array of floating-point numbers.
            ValueError: a shape does not match, a variance is negative, or count is 1 (m/(m−1) is
                infinite) or negative.
        """
        for name, v in ("mean", mean), ("var", var):
            if not isinstance(v, np.ndarray) or v.dtype.kind != "f":
                raise TypeError(f"{name} is {v!r}; expected an array of floating-point numbers")
            if v.shape != self.mean.shape:
                raise ValueError(f"{name} has shape {v.shape}; expected {self.mean.shape}")
        negative = np.flatnonzero(var < 0)
        if negative.size:
            raise ValueError(f"var[{negative[0]}] is {var[negative[0]]}; expected 0 or more")
        if not (count == 0 or count >= 2):
            raise ValueError(
                f"count is {count}; expected 0 or at least 2: an unbiased variance needs two values"
            )
        if count == 0:
            return
        good = np.isfinite(mean) & np.isfinite(var)
        self.batches += 1
        self._updates += good
        weight = 1 / np.maximum(self._updates, 1) if self.momentum is None else self.momentum
        unbiased = var * (count / (count - 1))
        np.add(self.mean, weight * (mean - self.mean), out=self.mean, where=good)
        np.add(self.var, weight * (unbiased - self.var), out=self.var, where=good)
        if not good.all():
            warnings.warn(
                f"channel {', '.join(map(str, np.flatnonzero(~good)))}: the batch has a NaN or an "
                "infinity; the running statistics of the channel were not updated",
                RuntimeWarning,
                stacklevel=2,
            )
