"""Statistics of the population, estimated from mini-batches, for use at inference.

`RunningStats` follows them in training, `precise` averages them afterward, and `merge` pools those
of several parts of the data.
"""

import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from bnlib._messages import check_array, short


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

    Source: Ioffe & Szegedy 2015, section 3.1 and algorithm 2; chapter "Inference".
    """

    def __init__(self, channels: int, momentum: float | None = 0.1) -> None:
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected 1 or more")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum is {short(momentum)}; expected a number in [0, 1], or None")
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
        check_array("mean", mean, self.mean.shape)
        check_array("var", var, self.mean.shape)
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

    def replace(self, mean: np.ndarray, var: np.ndarray, batches: int) -> None:
        """Put other statistics in the place of those that are there.

        Args:
            mean: (C,), in units of x.
            var: (C,), in units of x².
            batches: number of mini-batches behind them.

        Raises:
            TypeError: mean or var is not an array of floating-point numbers.
            ValueError: a shape does not match.
        """
        check_array("mean", mean, self.mean.shape)
        check_array("var", var, self.mean.shape)
        self.mean[:] = mean
        self.var[:] = var
        self.batches = batches
        self._updates[:] = batches


def merge(
    counts: Sequence[int] | np.ndarray, means: np.ndarray, m2s: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    r"""Pool the statistics of several parts of the data, as if they had been one.

    .. math:: n = n_a + n_b, \qquad \delta = \mu_b - \mu_a, \qquad
        \mu = \mu_a + \frac{n_b}{n}\, \delta, \qquad
        M = M_a + M_b + \frac{n_a n_b}{n}\, \delta^2

    M is the sum of the squared deviations from the mean: the biased variance is M / n, the unbiased
    one M / (n − 1). The parts are taken in order, in float64. A part with count 0 is left out,
    whatever its mean and M are. In a part that counts, a NaN stays in its channel: the result is
    NaN there, and nowhere else.

    From biased variances, (K, C), M is `m2s = variances * counts[:, None]`. The result becomes
    running statistics, which are unbiased, by `stats.replace(mean, m2 / (count - 1), batches)`.

    Args:
        counts: number of values of a channel in each part, (K,).
        means: mean of each part, (K, C), in units of x.
        m2s: M of each part, (K, C), in units of x².

    Returns:
        The count, the mean, (C,), and M, (C,); all 0 when every part is empty.

    Raises:
        ValueError: the shapes do not match, a count is not a whole number, 0 or more, or an M of a
            part that counts is negative.

    Source: Chan, Golub & LeVeque 1979; chapter "Inference".
    """
    parts = np.asarray(counts, np.float64)
    means, m2s = np.asarray(means, np.float64), np.asarray(m2s, np.float64)
    if parts.ndim != 1 or means.ndim != 2 or means.shape != m2s.shape or len(means) != len(parts):
        raise ValueError(
            f"counts has shape {parts.shape}, means {means.shape}, m2s {m2s.shape}; "
            "expected (K,), (K, C) and (K, C)"
        )
    bad = np.flatnonzero(~((parts >= 0) & (parts < np.inf) & (parts == np.floor(parts))))
    if bad.size:
        raise ValueError(
            f"counts[{bad[0]}] is {parts[bad[0]]:g}; expected a whole number, 0 or more"
        )
    negative = np.argwhere((m2s < 0) & (parts > 0)[:, None])
    if negative.size:
        k, c = negative[0]
        raise ValueError(
            f"m2s[{k}, {c}] is {m2s[k, c]}; expected 0 or more: M is the sum of the squared "
            "deviations from the mean, not a sum of values"
        )
    count, mean, m2 = 0.0, np.zeros(means.shape[1]), np.zeros(means.shape[1])
    for k in np.flatnonzero(parts):
        total = count + float(parts[k])
        delta = means[k] - mean
        mean += delta * (parts[k] / total)
        m2 += m2s[k] + delta**2 * (count * parts[k] / total)
        count = total
    return int(count), mean, m2


def precise(network: Any, batches: Iterable[np.ndarray]) -> None:
    r"""Replace running statistics by averages over mini-batches, with the weights fixed.

    .. math:: \mathrm{E}[x] = \frac{1}{K} \sum_k \mu_k, \qquad
        \mathrm{Var}[x] = \frac{1}{K} \sum_k \tfrac{m}{m-1}\, \sigma_k^2

    A moving average remembers batches that older weights have seen. Here the network, in training
    mode, processes K mini-batches, and all count the same. It is a copy that does: of the network
    itself only the running statistics change, and when something is raised, nothing. A channel that
    has no finite value in any batch keeps what it had.

    Args:
        network: a layer of `bnlib.nn`, or layers in layers. Those that have a `RunningStats` as
            `running` take part.
        batches: the mini-batches, each an input of the network, without labels. Of a loader that
            gives pairs: `(x for x, _ in loader)`.

    Raises:
        ValueError: no layer has running statistics, or there is no batch, or only empty ones, or a
            batch has one value of a channel, which has no variance.

    Source: Ioffe & Szegedy 2015, algorithm 2; chapter "Inference".
    """
    copy = deepcopy(network)  # no mode, cache or generator of the network moves
    pairs = [
        (layer.running, its_copy)
        for layer, its_copy in zip(_with_inner(network), _with_inner(copy), strict=True)
        if isinstance(getattr(layer, "running", None), RunningStats)
    ]
    if not pairs:
        raise ValueError("network has no layer with running statistics")
    copy.train()
    for stats, layer in pairs:
        layer.running = RunningStats(len(stats.mean), momentum=None)
    for x in batches:
        copy(x)
    if not all(layer.running.batches for _, layer in pairs):
        raise ValueError("batches is empty; expected at least one mini-batch that is not")
    for stats, layer in pairs:
        new = layer.running
        seen = new._updates > 0
        mean, var = np.where(seen, new.mean, stats.mean), np.where(seen, new.var, stats.var)
        stats.replace(mean, var, new.batches)
        stats._updates[:] = new._updates


def _with_inner(layer: Any) -> list[Any]:
    """The layer, and the layers in it, each of them once."""
    found = {layer: None}
    if isinstance(layer, Iterable):
        for inner in layer:
            found |= dict.fromkeys(_with_inner(inner))
    return list(found)
