"""Statistics of the population, estimated from mini-batches, for use at inference.

`RunningStats` follows them in training, `precise` averages them afterward, `merge` pools those of
several parts of the data, and `convert` moves them to another framework.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnlib._messages import short


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
        _check_array("mean", mean, self.mean.shape)
        _check_array("var", var, self.mean.shape)
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
        _check_array("mean", mean, self.mean.shape)
        _check_array("var", var, self.mean.shape)
        self.mean[:] = mean
        self.var[:] = var
        self.batches = batches
        self._updates[:] = batches


def _check_array(name: str, v: np.ndarray, shape: tuple[int, ...]) -> None:
    if not isinstance(v, np.ndarray) or v.dtype.kind != "f":
        raise TypeError(f"{name} is {short(repr(v))}; expected an array of floating-point numbers")
    if v.shape != shape:
        raise ValueError(f"{name} has shape {v.shape}; expected {shape}")


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


@dataclass(frozen=True)
class Convention:
    """What a framework calls the state of a BatchNorm layer, and what it means by it.

    Attributes:
        names: bnlib's name of each part of the state → the framework's own.
        eps: default of ε, in units of x².
        momentum: default of the momentum.
        momentum_weighs: "new" when the momentum is the weight of the new batch in the running
            statistics, "old" when it is the weight of what is there.
        running_var: "biased" (1/m) or "unbiased" (1/(m − 1)): the variance of a batch, as it goes
            into the running statistics. In the forward pass it is biased everywhere.
        axis: default of the channel axis.
    """

    names: Mapping[str, str]
    eps: float
    momentum: float
    momentum_weighs: str
    running_var: str
    axis: int


def _names(names: str) -> dict[str, str]:
    ours = "gamma", "beta", "mean", "var", "eps", "momentum", "batches"
    return dict(zip(ours, names.split(), strict=False))


#: The conventions that `convert` knows, by framework.
#:
#: :meta hide-value:
CONVENTIONS: dict[str, Convention] = {
    "bnlib": Convention(
        _names("gamma beta mean var eps momentum batches"),
        *(1e-5, 0.1, "new", "unbiased", 1),
    ),
    "torch": Convention(
        _names("weight bias running_mean running_var eps momentum num_batches_tracked"),
        *(1e-5, 0.1, "new", "unbiased", 1),
    ),
    "onnx": Convention(
        _names("scale B input_mean input_var epsilon momentum"),
        *(1e-5, 0.9, "old", "biased", 1),
    ),
    "keras": Convention(
        _names("gamma beta moving_mean moving_variance epsilon momentum"),
        *(1e-3, 0.99, "old", "biased", -1),
    ),
    "flax": Convention(
        _names("scale bias mean var epsilon momentum"),
        *(1e-5, 0.99, "old", "biased", -1),
    ),
}


def convert(state: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    """Translate the state of a BatchNorm layer from one framework's conventions to another's.

    The names change, and the momentum is turned round (1 − momentum) where one framework gives the
    weight of the new batch and the other that of the old value. Arrays are copied as they are. A
    running variance too: inference uses it as it stands, and whether a framework's is biased or
    unbiased concerns later updates alone.

    The mean, the variance, eps and momentum must be there: weights that were saved alone do not
    hold the last two, and a default in their place could be another layer's. What else is missing
    or None is written out: a scale of 1s, a shift of 0s, and 0 batches.

    Args:
        state: the state by the source's own names, which are in `CONVENTIONS`: arrays (C,), or what
            `numpy.asarray` makes arrays of, and numbers. From a layer of torch it is
            `{**layer.state_dict(), "eps": layer.eps, "momentum": layer.momentum}`.
        source: the framework that the state comes from, a key of `CONVENTIONS`.
        target: the framework that it goes to.

    Returns:
        The whole state by the target's own names. Arrays are new, and keep their dtype.

    Raises:
        TypeError: the state is not a mapping, an array does not hold floating-point numbers or
            cannot be read by numpy, or eps, momentum or the number of batches is not a number.
        ValueError: a framework or a name in the state is not known, the mean, the variance, eps or
            momentum is missing, shapes do not match, an array holds a NaN or an infinity, a
            variance is negative, eps is not positive, momentum is outside [0, 1], the number of
            batches is negative or not whole, or momentum is None (the average over all batches)
            and one of the frameworks does not know that.

    Source: page "Conventions across frameworks".
    """
    for argument, name in ("source", source), ("target", target):
        if name not in CONVENTIONS:
            raise ValueError(
                f"{argument} is {short(repr(name))}; expected one of {', '.join(CONVENTIONS)}"
            )
    old, new = CONVENTIONS[source], CONVENTIONS[target]
    own = _by_our_names(state, source)
    if own["momentum"] is None and "batches" not in new.names:
        raise ValueError(
            f"{old.names['momentum']} is None, the average over all batches; expected a number in "
            f"[0, 1]: {target} has no such average"
        )
    if own["momentum"] is not None and old.momentum_weighs != new.momentum_weighs:
        own["momentum"] = round(1 - own["momentum"], 12)  # 1 − 0.9 is 0.1, not 0.09999999999999998
    return {theirs: own[ours] for ours, theirs in new.names.items()}


# Where eps and momentum are to be found, when a state has only the arrays.
_NUMBERS = {
    "bnlib": ("layer.state() holds {}; or add", "layer.eps", "layer.running.momentum"),
    "torch": ("a state_dict does not hold {}; add", "layer.eps", "layer.momentum"),
    "onnx": (
        "the initializers do not hold {}; add, from the node's attributes,",
        "epsilon (1e-05 where the node has none)",
        "momentum (0.9 where the node has none)",
    ),
    "keras": ("the weights do not hold {}; add", "layer.epsilon", "layer.momentum"),
    "flax": ("the variables do not hold {}; add", "layer.epsilon", "layer.momentum"),
}


def _by_our_names(state: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The state, whole and checked, by bnlib's names; the momentum is the source's still."""
    names = CONVENTIONS[source].names
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state is a {type(state).__name__}; expected a mapping from {source}'s names "
            f"({names['gamma']}, {names['beta']}, …) to arrays"
        )
    unknown = [str(name) for name in state if name not in names.values()]
    if unknown:
        raise ValueError(
            f"state has {short(', '.join(unknown))}; {source}'s names are "
            f"{', '.join(names.values())}"
        )
    own: dict[str, Any] = {ours: state.get(theirs) for ours, theirs in names.items()}
    for ours in "mean", "var":
        if own[ours] is None:
            raise ValueError(f"state has no {names[ours]}; expected an array (C,)")
    missing = [own["eps"] is None, names["momentum"] not in state]
    if any(missing):
        why, *places = _NUMBERS[source]
        lacks = [names[k] for k, absent in zip(("eps", "momentum"), missing, strict=True) if absent]
        places = [place for place, absent in zip(places, missing, strict=True) if absent]
        raise ValueError(
            f"state has no {' and no '.join(lacks)}: {why.format('them' if all(missing) else 'it')}"
            f" {' and '.join(places)}"
        )
    mean = _as_array(names["mean"], own["mean"])
    if mean.ndim != 1 or not mean.size:
        raise ValueError(f"{names['mean']} has shape {mean.shape}; expected (C,)")
    if own["gamma"] is None:
        own["gamma"] = np.ones_like(mean)
    if own["beta"] is None:
        own["beta"] = np.zeros_like(mean)
    for ours in "mean", "var", "gamma", "beta":
        own[ours] = _as_array(names[ours], own[ours]).copy()
        _check_array(names[ours], own[ours], mean.shape)
        bad = np.flatnonzero(~np.isfinite(own[ours]))
        if bad.size:
            k = bad[0]
            raise ValueError(f"{names[ours]}[{k}] is {own[ours][k]}; expected a finite number")
    bad = np.flatnonzero(own["var"] < 0)
    if bad.size:
        raise ValueError(f"{names['var']}[{bad[0]}] is {own['var'][bad[0]]}; expected 0 or more")
    own["eps"] = _as_number(names["eps"], own["eps"])
    if not 0 < own["eps"] < np.inf:
        raise ValueError(f"{names['eps']} is {own['eps']}; expected a positive number")
    if own["momentum"] is not None:
        own["momentum"] = _as_number(names["momentum"], own["momentum"])
        if not 0 <= own["momentum"] <= 1:
            raise ValueError(
                f"{names['momentum']} is {own['momentum']}; expected a number in [0, 1]"
            )
    elif "batches" not in names:
        raise ValueError(f"{names['momentum']} is None; expected a number in [0, 1]")
    if own.get("batches") is None:
        own["batches"] = 0
    batches = _as_number(names.get("batches", ""), own["batches"])
    if not (batches >= 0 and batches % 1 == 0):
        raise ValueError(f"{names['batches']} is {batches:g}; expected a whole number, 0 or more")
    own["batches"] = int(batches)
    return own


def _as_array(name: str, v: Any) -> np.ndarray:
    """What numpy makes of it; where it refuses, an error that names it."""
    try:
        return np.asarray(v)
    except (TypeError, ValueError, RuntimeError) as error:
        cure = "; of a tensor of torch give .detach().float().cpu()" if hasattr(v, "detach") else ""
        raise TypeError(
            f"{name} is a {type(v).__name__} that numpy cannot read; expected an array of "
            f"floating-point numbers{cure}"
        ) from error


def _as_number(name: str, v: Any) -> float:
    array = _as_array(name, v)
    if array.ndim or array.dtype.kind not in "fiu":  # a bool is none, nor is a string
        raise TypeError(f"{name} is {short(repr(v))}; expected a number")
    return float(array)
