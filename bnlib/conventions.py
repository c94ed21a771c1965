"""What frameworks call the state of a BatchNorm layer, and what they mean by it.

`CONVENTIONS` says it, `compare` says where two of them differ, and `convert` moves a layer's state
from one to another. `measure` finds out what an unknown layer does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import numpy as np

from bnlib._messages import check_array, short
from bnlib.measuring import Measured as Measured
from bnlib.measuring import measure as measure


@dataclass(frozen=True)
class Convention:
    """What a framework, a runtime or a file format calls a layer's state, and means by it.

    Attributes:
        title: its name.
        kind: "framework", "runtime" or "file".
        what: the layer or the operator.
        version: the packages and their versions.
        date: of the measurement.
        how: "measured" (by `make frameworks` on that date), "last measured" (it could not be run
            again, or not yet) or "documented".
        source: an address, where the row is not measured.
        why: why it was not measured again, where it was not.
        names: bnlib's name of each part of the state → the framework's own, in the order of its
            arguments or its file.
        momentum_weighs: "new" when the momentum is the weight of the new batch in the running
            statistics, "old" when it is that of what is there. None where there is no momentum.
        facts: what a new layer does, by the names of `Measured`.
        surprises: what one would not have guessed.
        shape: of the arrays, with −1 for the channels.
        least_eps: the smallest ε that is taken.
        cumulative: whether momentum None is the plain average over all batches.
        round_trip: whether a state went to the real layer and back, with equal outputs.
    """

    title: str
    kind: str
    what: str
    version: str
    date: str
    how: str
    source: str | None
    names: Mapping[str, str]
    momentum_weighs: str | None
    facts: Mapping[str, Any]
    surprises: str
    shape: tuple[int, ...] = (-1,)
    least_eps: float = 0.0
    cumulative: bool = False
    round_trip: bool = False
    why: str = ""

    @property
    def eps(self) -> float:
        """Default of ε, in units of x² (of x where it is added to the deviation)."""
        return self.facts["eps"]

    @property
    def momentum(self) -> float | None:
        """Default of the momentum, as the framework means it."""
        weight = self.facts["weight"]
        if weight is None or self.momentum_weighs not in ("new", "old"):
            return None
        return weight if self.momentum_weighs == "new" else _other(weight)

    @property
    def running_var(self) -> str | None:
        """The variance of a batch that goes into the running one: "biased" (1/m) or "unbiased"."""
        return self.facts["running_var"]

    @property
    def axis(self) -> int:
        """Default of the channel axis."""
        return self.facts["axis"]


def _other(weight: float) -> float:
    return round(1 - weight, 12)  # 1 − 0.9 is 0.1, not 0.09999999999999998


def _load() -> dict[str, Convention]:
    record = json.loads(files("bnlib").joinpath("frameworks.json").read_text("utf-8"))
    known = {field.name for field in fields(Convention)}
    return {
        name: Convention(**{k: v for k, v in row.items() if k in known})
        for name, row in record.items()
    }


#: The conventions that `convert` knows, by framework, from the record `bnlib/frameworks.json`.
#:
#: :meta hide-value:
CONVENTIONS: dict[str, Convention] = _load()


def _convention(argument: str, name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ValueError(
            f"{argument} is {short(repr(name))}; expected one of {', '.join(CONVENTIONS)}"
        )
    return CONVENTIONS[name]


# Comparing ---------------------------------------------------------------------------------------

_WHAT_TO_DO = {
    "names": "Rename.",
    "order": "Mind the order of the arguments, or of the file.",
    "shape": "Reshape.",
    "default of ε": "Take the layer's own ε along, never the default.",
    "ε is added": "The variances have to take it in.",
    "momentum weighs": "Turn it round: 1 − momentum.",
    "default weight": "A layer that is made anew forgets at another pace.",
    "average": "The first batches count in another way, and more or other numbers are stored.",
    "running variance": "Later updates differ by m/(m − 1); for small batches it shows.",
    "training divides by": "Training goes on with other outputs.",
    "channel axis": "Move the axis.",
    "plain call": "Say training or inference in every call.",
    "batch of one": "Look at the last batch of an epoch.",
    "large mean": "Subtract a mean from the data first.",
    "float16": "Look at the statistics after a step.",
}


def habits(framework: str) -> dict[str, str]:
    """What a framework does, in a few words each; what is not known is left out.

    Args:
        framework: a key of `CONVENTIONS`.

    Returns:
        trap → habit, by the traps of `compare`.

    Raises:
        ValueError: the framework is not known.
    """
    convention = _convention("framework", framework)
    facts, names = convention.facts, convention.names
    arrays = [k.replace("hidden_", "") for k in names]
    arrays = [k for k in dict.fromkeys(arrays) if k in ("gamma", "beta", "mean", "var")]
    var, images = facts["running_var"], facts["running_var_images"]
    average, start = facts["average"], facts["start"]
    if average == "debiased" and start and start[1]:
        average = f"debiased, though the variance starts at {start[1]:g}"
    elif average == "moving" and start:
        average = f"moving, from {start[0]:g} and {start[1]:g}"
    large = facts["large_mean"] and facts["large_mean"][max(facts["large_mean"], key=int)]
    found = {
        "names": ", ".join(names.values()),
        "order": ", ".join(arrays),
        "shape": "(" + ", ".join("C" if n < 0 else str(n) for n in convention.shape) + ")",
        "default of ε": facts["eps"] is not None and f"{facts['eps']:g}",
        "ε is added": f"to the {facts['eps_added_to']}",
        "momentum weighs": convention.momentum_weighs,
        "default weight": facts["weight"] and f"{facts['weight']:.3g}",
        "average": average,
        "running variance": var if var == images else f"{var} (images: {images})",
        "training divides by": facts["normalizes_with"],
        "channel axis": facts["axis"] and str(facts["axis"]),
        "plain call": _no_error(facts["plain"]),
        "batch of one": _no_error(facts["batch_of_one"]),
        "large mean": facts["large_mean"] and ("NaN" if large is None else _precision(large)),
        "float16": _no_error(facts["float16"]),
    }
    return {trap: habit for trap, habit in found.items() if habit}


def _no_error(said: str | None) -> str | None:
    """What was seen; of an error only that it was one, for each framework has its own words."""
    return "an error" if said and "Error" in said else said


def _precision(error: float) -> str:
    return "right" if error < 0.02 else f"wrong by {error:g} deviations"


def compare(source: str, target: str) -> dict[str, tuple[str, str, str]]:
    """Which of their habits will bite whoever moves a layer from one framework to another.

    Args:
        source: the framework that the layer comes from, a key of `CONVENTIONS`.
        target: the framework that it goes to.

    Returns:
        trap → (habit of the source, habit of the target, what to do), where both are known and
        differ.

    Raises:
        ValueError: a framework is not known.
    """
    _convention("source", source), _convention("target", target)
    old, new = habits(source), habits(target)
    return {
        trap: (old[trap], new[trap], what)
        for trap, what in _WHAT_TO_DO.items()
        if trap in old and trap in new and old[trap] != new[trap]
    }


# Converting --------------------------------------------------------------------------------------


def convert(state: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    """Translate the state of a BatchNorm layer from one framework's conventions to another's.

    The converted layer has the same outputs in inference. Names change, shapes too; the momentum is
    turned round (1 − momentum) where one framework gives the weight of the new batch and the other
    that of the old value. Arrays are otherwise copied as they are, a running variance too: whether
    a framework's is biased or unbiased concerns later updates alone. Where it is not that simple:

    - A debiased average (Haiku, Sonnet, Equinox) is what inference uses, `hidden / (1 − dᵗ)` with
      the counter t. Into such a framework the hidden one is written; without a count of batches the
      counter is so large that the average goes on as a plain one.
    - Caffe's mean and variance are divided by its factor, the third blob.
    - An inverse deviation becomes `1/r² − ε`.
    - ε that is added to the deviation (Darknet) is taken in by the variance: the new ε is ε², for
      `(√v + ε)² = (v + 2 ε √v) + ε²`. The other way the new variance is `(√(v + ε) − ε')²`. γ
      stays, so that training can go on.
    - ncnn's ε of 0 is taken out of the variances, where `v = (v − ε) + ε`.
    - dlib's window w is a momentum of 1/(w + 1), CNTK's time constant T in batches of n examples
      one of `1 − exp(−n/T)`. A state without a place for the momentum has the framework's own
      (Darknet) or, from a runtime or a file for inference, the target's default.

    The mean, the variance, eps and momentum must be there where the source has them: weights that
    were saved alone do not hold the last two, and a default in their place could be another
    layer's. What else is missing or None is written out: a scale of 1s, a shift of 0s, and 0
    batches.

    Args:
        state: the state by the source's own names, which are in `CONVENTIONS`: arrays (C,), or what
            `numpy.asarray` makes arrays of, and numbers. From a layer of torch it is
            `{**layer.state_dict(), "eps": layer.eps, "momentum": layer.momentum}`.
        source: the framework that the state comes from, a key of `CONVENTIONS`.
        target: the framework that it goes to.

    Returns:
        The whole state by the target's own names, in its own order. Arrays are new, and keep their
        dtype.

    Raises:
        TypeError: the state is not a mapping, an array does not hold floating-point numbers or
            cannot be read by numpy, or eps, momentum or the number of batches is not a number.
        ValueError: a framework or a name in the state is not known, the mean, the variance, eps or
            momentum is missing, shapes do not match, an array holds a NaN or an infinity, a
            variance is negative, eps is not positive, momentum is outside [0, 1], the number of
            batches is negative or not whole, or the target cannot hold the layer: its average over
            all batches, its momentum or its ε.

    Source: page "Conventions across frameworks".
    """
    old, new = _convention("source", source), _convention("target", target)
    for argument, name, convention in ("source", source, old), ("target", target, new):
        if not convention.names:
            raise ValueError(f"{argument} is {name!r}, which has no BatchNorm left: it is folded")
    own = _read(state, source, old)
    if own["momentum"] is None and not new.cumulative:
        raise ValueError(
            f"{old.names['momentum']} is None, the average over all batches; expected a number in "
            f"[0, 1]: {target} has no such average"
        )
    return _write(own, target, new)


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
_ARRAYS = "mean", "var", "inv_std", "hidden_mean", "hidden_var", "gamma", "beta"


def _read(state: Mapping[str, Any], source: str, convention: Convention) -> dict[str, Any]:
    """gamma, beta, mean, var (C,), eps, momentum (the weight of the new batch) and batches.

    ε is added to the variance; `on_std` where the source adds it to the deviation.
    """
    names = convention.names
    own = _by_our_names(state, source, convention)
    dtype = own["mean" if "mean" in names else "hidden_mean"].dtype
    weight = _weight(own, names, convention)
    if "factor" in names:
        own["mean"], own["var"] = (own[k] / (own["factor"] or np.inf) for k in ("mean", "var"))
    if "mean" not in names:
        if not own["batches"]:
            raise ValueError(
                f"{names['batches']} is 0; expected 1 or more: {source} divides by 1 − "
                f"{names['momentum']}^{names['batches']}"
            )
        share = 1 - (1 - weight) ** own["batches"]
        own["mean"], own["var"] = own["hidden_mean"] / share, own["hidden_var"] / share
    if "inv_std" in names:
        own["var"] = _from_inverse(names["inv_std"], own["inv_std"], own["eps"])
    if own["eps"] is None:
        own["eps"] = convention.eps
    if own["eps"] == 0:  # of ncnn, which divides by 0.0001 where the variance is 0
        own["var"] = np.where(own["var"] == 0, 1e-8, np.float64(own["var"]))
        own["eps"] = min(1e-5, float(own["var"].min()) / 2)
        own["var"] = own["var"] - own["eps"]
    own["mean"], own["var"] = own["mean"].astype(dtype), own["var"].astype(dtype)
    return {**own, "momentum": weight, "on_std": convention.facts["eps_added_to"] == "std"}


def _from_inverse(name: str, inv_std: np.ndarray, eps: float) -> np.ndarray:
    """v = 1/r² − ε."""
    bad = np.flatnonzero(~(inv_std > 0) | (inv_std > (1 + 1e-5) / np.sqrt(eps)))
    if bad.size:
        raise ValueError(
            f"{name}[{bad[0]}] is {inv_std[bad[0]]}; expected an inverse deviation, above 0 and at "
            f"most 1/√ε = {1 / np.sqrt(eps):g}"
        )
    return np.maximum(1 / np.float64(inv_std) ** 2 - eps, 0)


def _weight(own: dict[str, Any], names: Mapping[str, str], convention: Convention) -> Any:
    """The weight of a new batch; None for the plain average, nan where the source has none."""
    if "window" in names:
        return 1 / (own["window"] + 1)
    if "time_constant" in names:
        t = own["time_constant"]
        return 1.0 if t == 0 else -float(np.expm1(-own["batch_size"] / t))
    if "momentum" not in names:
        return convention.facts["weight"] or np.nan
    if own["momentum"] is None or convention.momentum_weighs == "new":
        return own["momentum"]
    return _other(own["momentum"])


def _write(own: dict[str, Any], target: str, convention: Convention) -> dict[str, Any]:
    """The layer by the target's names."""
    names, dtype = convention.names, own["mean"].dtype
    weight = own["momentum"]
    if weight is not None and np.isnan(weight):
        weight = convention.facts["weight"]
        weight = 0.1 if weight is None else weight
    out = {**own, **_with_eps(own, target, convention), "factor": 1.0, "first": False}
    if "hidden_mean" in names:
        batches = own["batches"] or _enough(weight)
        share = 1 - (1 - weight) ** batches
        out.update(batches=batches, var_batches=batches)
        out.update({f"hidden_{k}": np.asarray(share * out[k], dtype) for k in ("mean", "var")})
    out["inv_std"] = np.asarray(1 / np.sqrt(np.float64(out["var"]) + out["eps"]), dtype)
    out["momentum"] = weight
    if convention.momentum_weighs == "old" and weight is not None:
        out["momentum"] = _other(weight)
    if "window" in names:
        out["window"] = _window(weight, target)
    if "time_constant" in names:
        raise ValueError(
            f"the weight of a batch is {weight}; {target}'s depends on the number n of its "
            f"examples, 1 − exp(−n/T): expected a target with a momentum. By hand it is "
            f"T = −n/ln(1 − weight) = {-1 / np.log1p(-min(weight, 1 - 1e-16)):.6g} n"
        )
    arrays = {k: out[k].reshape(convention.shape) for k in _ARRAYS if k in names}
    return {theirs: arrays.get(ours, out[ours]) for ours, theirs in names.items()}


def _enough(weight: float) -> int:
    """A count t of batches after which dᵗ is nothing in float64."""
    return 1 if weight == 1 else int(np.ceil(-37 / np.log1p(-max(weight, 1e-6))))


def _window(weight: float, target: str) -> int:
    window = 1 / weight - 1 if weight else np.nan
    if not abs(window - np.round(window)) <= 1e-6 * window:
        raise ValueError(
            f"the weight of a batch is {weight}; expected 1/2, 1/3, … or 1: {target} averages over "
            f"a window of a whole number of batches, 1/weight − 1"
        )
    return int(np.round(window))


def _with_eps(own: dict[str, Any], target: str, convention: Convention) -> dict[str, Any]:
    """Variance and ε, so that the target divides by what the source divided by."""
    v, eps, dtype = np.float64(own["var"]), own["eps"], own["var"].dtype
    if convention.facts["eps_added_to"] == "std":
        theirs, least = convention.eps, convention.eps
        if own["on_std"] and theirs == eps:
            return {}
        divisor = np.sqrt(v) + eps if own["on_std"] else np.sqrt(v + eps)
        var = (np.maximum(divisor, theirs) - theirs) ** 2
    else:
        theirs = max(eps**2 if own["on_std"] else eps, convention.least_eps)
        if theirs == eps and not own["on_std"]:
            return {}
        divisor, least = np.sqrt(v) + eps if own["on_std"] else np.sqrt(v + eps), np.sqrt(theirs)
        var = np.maximum(divisor**2 - theirs, 0)
    bad = np.flatnonzero(divisor < least * (1 - 1e-6))
    if bad.size:
        k = bad[0]
        raise ValueError(
            f"channel {k} is divided by {divisor[k]:.4g}; {target} divides by {least:.4g} or more, "
            f"as its ε is {theirs:g}: the outputs would be {least / divisor[k]:.4g} times too small"
        )
    return {"var": np.asarray(var, dtype), "eps": theirs}


def _by_our_names(state: Mapping[str, Any], source: str, convention: Convention) -> dict[str, Any]:
    """The state, whole and checked, by bnlib's names; the numbers mean what the source means."""
    names = convention.names
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
    own = {"gamma": None, "beta": None, "eps": None, "momentum": None, "batches": None, **own}
    statistics = [k for k in _ARRAYS[:-2] if k in names]
    if "mean" in names:  # a hidden average says no more than it and the counter
        statistics = [k for k in statistics if not k.startswith("hidden")]
    form = "(" + ", ".join("C" if n < 0 else str(n) for n in convention.shape)
    form += ",)" if len(convention.shape) == 1 else ")"
    for ours in statistics:
        if own[ours] is None:
            raise ValueError(f"state has no {names[ours]}; expected an array {form}")
    _check_presence(state, source, own, names)
    raw = _as_array(names[statistics[0]], own[statistics[0]])
    # (1, C, 1, 1) has as many axes as the inputs of the layer had.
    # Haiku's and Sonnet's averages have as many axes as the inputs.
    spread = len(convention.shape) > 1 or "hidden_mean" in names
    flat = _flat if spread else np.asarray
    mean = flat(raw)
    if mean.ndim != 1 or not mean.size or raw.ndim == 1 < len(convention.shape):
        raise ValueError(f"{names[statistics[0]]} has shape {raw.shape}; expected {form}")
    if own["gamma"] is None:
        own["gamma"] = np.ones_like(mean)
    if own["beta"] is None:
        own["beta"] = np.zeros_like(mean)
    for ours in *statistics, "gamma", "beta":
        name = names.get(ours, ours)
        own[ours] = flat(_as_array(name, own[ours])).copy()
        check_array(name, own[ours], mean.shape)
        bad = np.flatnonzero(~np.isfinite(own[ours]))
        if bad.size:
            k = bad[0]
            raise ValueError(f"{name}[{k}] is {own[ours][k]}; expected a finite number")
    _check_numbers(own, names, convention)
    for ours in "var", "hidden_var":
        bad = np.flatnonzero(own[ours] < 0) if ours in statistics else np.array([])
        if bad.size:
            k = bad[0]
            raise ValueError(f"{names[ours]}[{k}] is {own[ours][k]}; expected 0 or more")
    return own


def _flat(array: np.ndarray) -> np.ndarray:
    """(C,) of (1, C, 1, 1), (1, C) and the like."""
    return array.ravel() if array.ndim > 1 and array.size == max(array.shape) else array


def _check_presence(
    state: Mapping[str, Any], source: str, own: dict[str, Any], names: Mapping[str, str]
) -> None:
    """Every number that cannot be guessed is there."""
    numbers = ["eps", "momentum"]
    missing = [
        "eps" in names and own["eps"] is None,
        "momentum" in names and names["momentum"] not in state,
    ]
    if any(missing):
        why, *places = _NUMBERS.get(source, ("the arrays do not hold {}; add", *numbers))
        lacks = [names[k] for k, absent in zip(numbers, missing, strict=True) if absent]
        places = [place for place, absent in zip(places, missing, strict=True) if absent]
        raise ValueError(
            f"state has no {' and no '.join(lacks)}: {why.format('them' if all(missing) else 'it')}"
            f" {' and '.join(places)}"
        )
    needed = ["factor", "window", "time_constant", "batch_size"]
    for ours in needed if "mean" in names else [*needed, "batches"]:
        if ours in names and own[ours] is None:
            raise ValueError(f"state has no {names[ours]}; expected a number")


def _check_numbers(own: dict[str, Any], names: Mapping[str, str], convention: Convention) -> None:
    """The numbers as numbers, in their ranges."""
    if "eps" in names:
        own["eps"] = _as_number(names["eps"], own["eps"])
        if not (0 < own["eps"] < np.inf or own["eps"] == convention.eps):
            raise ValueError(f"{names['eps']} is {own['eps']}; expected a positive number")
    if own["momentum"] is not None:
        own["momentum"] = _as_number(names["momentum"], own["momentum"])
        if not 0 <= own["momentum"] <= 1:
            raise ValueError(
                f"{names['momentum']} is {own['momentum']}; expected a number in [0, 1]"
            )
    elif "momentum" in names and not convention.cumulative:
        raise ValueError(f"{names['momentum']} is None; expected a number in [0, 1]")
    for ours in "factor", "window", "time_constant", "batch_size":
        if ours in names:
            own[ours] = _as_number(names[ours], own[ours])
            if not 0 <= own[ours] < np.inf:
                raise ValueError(f"{names[ours]} is {own[ours]}; expected 0 or more")
    batches = _as_number(names.get("batches", ""), own["batches"] or 0)
    if not (batches >= 0 and batches % 1 == 0):
        raise ValueError(f"{names['batches']} is {batches:g}; expected a whole number, 0 or more")
    own["batches"] = int(batches)


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
