"""What frameworks call the state of a BatchNorm layer, and what they mean by it.

`CONVENTIONS` says it, and `convert` moves a layer's state from one framework to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnlib._messages import check_array, short
from bnlib.measuring import Measured as Measured
from bnlib.measuring import measure as measure


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
        check_array(names[ours], own[ours], mean.shape)
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
