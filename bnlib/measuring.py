"""What an unknown BatchNorm layer does, solved from the numbers that come out of it.

This file needs NumPy alone, also an old one (Python 3.8): copy it to where the layer runs. A layer
is whatever has

    layer.train(x)   one training step on an array, with channels on axis 1 of (N, C); returns y
    layer.infer(x)   inference; returns y
    layer.plain(x)   optional: a call without any word about training or inference
    layer.state()    optional: arrays and numbers by the framework's own names

and `new(channels)` makes a new one, the same each time.

Source: page "Conventions across frameworks".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

C = 8
ROWS = 8
LARGE = 1000, 10_000


@dataclass(frozen=True)
class Measured:
    """What `measure` found. None where it could not tell; `unknown` says why.

    Attributes:
        eps: ε, in units of x² when it is added to the variance, of x when to the std.
        eps_added_to: "variance" or "std".
        gamma: the γ of a new layer.
        beta: the β of a new layer.
        normalizes_with: "biased" or "unbiased" variance of the batch, or "running" statistics.
        average: how the running statistics follow the batches: "moving", "replaced" (a moving
            average that the first batch replaces), "debiased" (a moving average divided by
            1 − dᵏ), "cumulative" (the plain average), "none".
        weight: that of a new batch in the average (of the second in a "replaced" one; 1 − d in a
            "debiased" one).
        momentum_weighs: "new" or "old": which of the two the number in the state weighs.
        start: mean and variance that the running ones start from. In a "debiased" average what the
            hidden one starts from, as though it were 0.
        running_var: "biased" or "unbiased": the variance of a batch of rows that goes in.
        running_var_images: the same for images.
        axis: the axis of the channels in (N, …, …, …), 1 or −1.
        plain: what a plain call does.
        infer_moves: whether inference moves the running statistics.
        batch_of_one: what a training step on one row does.
        large_mean: mean of the batch → largest error of the output, in standard deviations (None
            where the output is NaN or infinite).
        float16: what a training step on a float16 array returns.
        names: part of the state → the framework's name, and its shape for C channels.
        unknown: question → why it could not be answered.
    """

    eps: float | None = None
    eps_added_to: str | None = None
    gamma: float | None = None
    beta: float | None = None
    normalizes_with: str | None = None
    average: str | None = None
    weight: float | None = None
    momentum_weighs: str | None = None
    start: tuple | None = None
    running_var: str | None = None
    running_var_images: str | None = None
    axis: int | None = None
    plain: str | None = None
    infer_moves: bool | None = None
    batch_of_one: str | None = None
    large_mean: dict | None = None
    float16: str | None = None
    names: dict | None = None
    unknown: dict | None = None

    def row(self) -> dict[str, Any]:
        """The same as a dictionary for JSON."""
        return asdict(self)

    def table(self) -> str:
        """The same as a table in Markdown, to be pasted into an issue."""
        lines = ["| question | answer |", "|---|---|"]
        for name, value in self.row().items():
            if name == "unknown":
                lines += [f"| **could not tell:** {k} | {v} |" for k, v in value.items()]
            elif value is not None:
                text = value
                if isinstance(value, dict):
                    text = "; ".join(f"{k}: {_text(v)}" for k, v in value.items())
                lines.append(f"| {name.replace('_', ' ')} | {_text(text)} |")
        return "\n".join(lines)

    __str__ = table


def _text(value: Any) -> str:
    if value is None:
        return "NaN"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(_text, value)) if isinstance(value, (tuple, list)) else str(value)


class Unknown(Exception):
    """A question that the layer gave no clear answer to."""


def measure(new: Callable, images: Callable | None = None) -> Measured:
    """Measure what a layer does.

    Each answer is solved from one or two batches, and verified on others. An error of the layer is
    an answer, or a reason in `unknown`; none ends the measurement.

    Args:
        new: `new(channels)` makes a new layer for rows (N, C), as the module says.
        images: the same for images, which are handed over as they are: (N, C, H, W) or
            (N, H, W, C). Needed where a framework has a class of its own for them.

    Returns:
        what the layer does, as `Measured`.
    """
    found: dict[str, Any] = {"unknown": {}}

    def ask(names: str, question: Callable, *arguments: Any) -> None:
        """Answer a question, or say why not."""
        keys = names.split()
        try:
            with np.errstate(all="ignore"):  # of a batch of one, also in a layer of NumPy
                answer = question(*arguments)
        except Exception as error:
            found["unknown"][names.replace(" ", ", ")] = _reason(error)
            return
        found.update(zip(keys, answer if len(keys) > 1 else [answer]))  # noqa: B905

    ask("gamma beta", new_parameters, new)
    ask("eps eps_added_to", eps, new)
    ask("infer_moves", infer_moves, new)
    read = Reader(*[found.get(k) for k in Reader._fields])
    ask("normalizes_with", normalizes_with, new, read)
    ask("average weight start", first_steps, new, read)
    ask("running_var", running_var, new, read, found)
    ask("axis", axis, images or new)
    ask("running_var_images", running_var_images, images or new, read, found)
    ask("plain", plain, new)
    ask("batch_of_one", batch_of_one, new)
    ask("large_mean", large_mean, new)
    ask("float16", float16, new)
    ask("names momentum_weighs", names, new, read, found)
    return Measured(**found)


def _reason(error: Exception) -> str:
    """What an exception says, short enough for a table."""
    first = (str(error).strip().splitlines() or [""])[0].replace("|", "/")
    first = first if len(first) <= 160 else first[:159] + "…"
    return first if isinstance(error, Unknown) else f"{type(error).__name__}: {first}"


# Batches -----------------------------------------------------------------------------------------


def batch(k: int, rows: int = ROWS) -> np.ndarray:
    """The kth batch: (rows, C), with means around −5 to 6 and deviations around 0.3 to 8."""
    rng = np.random.default_rng(k)
    std, mean = np.geomspace(0.3, 8, C), np.linspace(-5, 6, C)
    return rng.normal(rng.permutation(mean), rng.permutation(std), (rows, C)).astype(np.float32)


def _moments(x: np.ndarray, axis: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and biased variance (C,) in float64, and how many values they are of."""
    rows = np.moveaxis(np.asarray(x, np.float64), axis, -1).reshape(-1, np.shape(x)[axis])
    return rows.mean(0), rows.var(0), len(rows)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept (C,) of y = a x + b in each channel; it has to be a line."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape:
        raise Unknown(f"the output has shape {y.shape}, the input {x.shape}")
    centered = x - x.mean(0)
    a = (centered * y).sum(0) / (centered**2).sum(0)
    b = y.mean(0) - a * x.mean(0)
    if not np.abs(y - a * x - b).max() <= 1e-3 * np.ptp(y, 0).max():
        raise Unknown("in a channel the output is no line in the input: an activation follows?")
    return a, b


def _f64(v: Any) -> np.ndarray:
    return np.asarray(v, np.float64)


def _same(values: Any, rtol: float = 1e-3, atol: float = 0.0) -> float | None:
    """The one number that all values are, or None."""
    middle = float(np.median(values))
    return middle if np.allclose(values, middle, rtol=rtol, atol=atol) else None


def _round(v: float) -> float:
    return float(f"{v:.3g}")


# Training ----------------------------------------------------------------------------------------


def _alternating(std: Any, rows: int = ROWS) -> np.ndarray:
    """Rows of ±std: their mean is 0, and their biased variance std²."""
    return np.array([[1], [-1]] * (rows // 2), np.float32) * np.full(C, std, np.float32)


def _divisor(new: Callable) -> float:
    """√(m/(m − 1)) for m = 8 where a layer divides by the unbiased deviation, 1 by the biased one.

    The output for ±100 is ±γ in the one case, and smaller by the factor √(m/(m − 1)) in the other:
    that is 1.07 for eight rows and 1.41 for two. Their ratio tells, whatever γ is.
    """
    two, eight = (_f64(new(C).train(_alternating(100, rows))).std(0) for rows in (2, ROWS))
    factor = _same(eight / two, 0.01)
    unbiased = np.sqrt(ROWS / (ROWS - 1))
    for known in 1.0, float(unbiased):
        if factor is not None and abs(factor - (np.sqrt(2) / unbiased if known > 1 else 1)) < 0.01:
            return known
    raise Unknown("outputs for ±100 in two and in eight rows fit no variance of the batch")


def new_parameters(new: Callable) -> tuple[float, float]:
    """γ and β of a new layer: the mean of y = γ (x − μ)/σ + β is β, and its deviation is γ.

    From a batch of ±100, where ε does not show. A layer that divides by the unbiased deviation
    makes y smaller by a factor that is known.
    """
    _line(batch(1), new(C).train(batch(1)))
    y = _f64(new(C).train(_alternating(100)))
    gammas, betas = y.std(0) * _divisor(new) * np.sign(y[0] - y[1]), y.mean(0)
    gamma, beta = _same(gammas), _same(betas, 0, 1e-4)
    if gamma is None or beta is None:
        each = ", ".join(f"{g:.3g} and {b:.3g}" for g, b in zip(gammas, betas))  # noqa: B905
        raise Unknown(f"γ and β differ between channels: {each}")
    return _round(gamma), round(beta, 5)


def eps(new: Callable) -> tuple[float, str]:
    """ε and where it is added, from one batch whose channels have tiny variances.

    Channel c holds ±d_c, so that its mean is 0 and its variance d_c². Let r be the deviation of the
    output, divided by that of a large batch ±100, where ε does not show: so γ drops out, and

        r = d / √(d² + ε)   or   r = d / (d + ε),   so   ε = d² (1/r² − 1)   or   ε = d (1/r − 1).

    Each channel gives an ε. Of the two formulas the right one is that which gives the same in all.
    (A layer that divides by the unbiased deviation has it in the place of d.)
    """
    d = 10.0 ** np.linspace(-6, -0.5, C)
    small, large = (_f64(new(C).train(_alternating(std))) for std in (d, 100))
    r = small.std(0) / large.std(0)
    shows = 1 / r - 1 > 0.02
    if not shows.any():
        return 0.0, "variance"
    d *= _divisor(new)
    inside, outside = d**2 * (1 / r**2 - 1), d * (1 / r - 1)
    for values, where in (inside, "variance"), (outside, "std"):
        if shows.sum() > 1 and _same(values[shows], 0.01) is not None:
            return _round(float(np.median(values[shows]))), where
    raise Unknown(
        f"deviations {d[0]:.0e} … {d[-1]:.0e} give no one ε: inside the root {inside.min():.1e} … "
        f"{inside.max():.1e}, on the std {outside.min():.1e} … {outside.max():.1e}"
    )


class Reader(NamedTuple):
    """What turns outputs of inference into the statistics that it uses."""

    eps: float | None
    eps_added_to: str | None
    gamma: float | None
    beta: float | None
    infer_moves: bool | None

    def std(self, var: np.ndarray) -> np.ndarray:
        """What a layer divides by, for a variance."""
        inside = self.eps_added_to == "variance"
        return np.sqrt(var + self.eps) if inside else np.sqrt(var) + self.eps

    def running(self, layer: Any, like: np.ndarray, axis: int = 1) -> tuple[Any, Any]:
        """Mean and variance (C,) that inference uses, from two inputs.

        y = a x + b with a = γ / √(var + ε) and b = β − a mean. So var = (γ/a)² − ε and
        mean = (β − b) / a, from x of zeros, where y = b, and x of hundreds, where y = 100 a + b.
        """
        if self.eps is None or self.gamma is None or self.beta is None:
            raise Unknown("needs ε, γ and β")
        if self.infer_moves is not False:
            raise Unknown("needs inference that depends on the running statistics alone")
        channels = np.shape(like)[axis]
        zeros, hundreds = (layer.infer(np.full_like(like, v)) for v in (0, 100))
        b, top = (np.moveaxis(_f64(y), axis, -1).reshape(-1, channels) for y in (zeros, hundreds))
        if np.ptp(b, 0).max() > 1e-5 * np.abs(b).max():
            raise Unknown("in inference equal rows have unequal outputs")
        a = (top[0] - b[0]) / 100
        std, mean = self.gamma / a, (self.beta - b[0]) / a
        inside = self.eps_added_to == "variance"
        return mean, std**2 - self.eps if inside else (std - self.eps) ** 2


def normalizes_with(new: Callable, read: Reader) -> str:
    """What a training step normalizes with: from the second batch of a layer.

    The first batch does not tell: it may have replaced the running statistics. The second, of two
    rows, is compared with three predictions: its own mean and biased variance, the unbiased one,
    and the running statistics as they are before or after it.
    """
    layer, x = new(C), batch(2)[:2]
    layer.train(batch(1))
    before = read.running(layer, x)
    y = _f64(layer.train(x))
    mean, var, m = _moments(x)
    candidates = {
        "biased": (mean, var),
        "unbiased": (mean, var * m / (m - 1)),
        "running": read.running(layer, x),
        "running, before the step": before,
    }
    for name, (center, v) in candidates.items():
        if np.allclose(y, read.gamma * (x - center) / read.std(v) + read.beta, 1e-2, 1e-3):
            return name
    raise Unknown("the second batch is normalized neither by its own nor by the running statistics")


# Running statistics ------------------------------------------------------------------------------


def _weight(before: np.ndarray, after: np.ndarray, new: np.ndarray) -> float:
    """The w of after = before + w (new − before), the same in all channels."""
    step, whole = after - before, new - before
    w = float((step * whole).sum() / (whole**2).sum())
    if not np.abs(step - w * whole).max() <= 1e-3 * max(w, 1e-2) * np.abs(whole).max():
        raise Unknown("the running mean moves toward the batch's mean unequally in the channels")
    return w


def weights(new: Callable, read: Reader, rows: tuple[int, ...]) -> list[float]:
    """The weight of each of some batches in the running mean, from inference after each.

    mean_k = mean_{k−1} + w_k (μ_k − mean_{k−1}), where all but w_k are known.
    """
    layer, found = new(C), []
    before = np.nan_to_num(read.running(layer, batch(0))[0])  # NaN where it divides by 1 − d⁰
    for k, n in enumerate(rows):
        x = batch(k, n)
        layer.train(x)
        after = read.running(layer, batch(0))[0]
        if not np.isfinite(after).all():
            raise Unknown(f"inference is not finite after {k + 1} batches")
        found.append(_weight(before, after, _moments(x)[0]))
        before = after
    return found


def first_steps(new: Callable, read: Reader) -> tuple[str, float | None, tuple]:
    """How the running statistics follow the batches: from the weights w₁, w₂, w₃ of three.

        w, w, w                         a moving average
        1, w, w                         the first batch replaces what is there
        1, 1/(1 + d), 1/(1 + d + d²)    Σ dᵏ⁻ⁱ (1 − d) μ_i / (1 − dᵏ): debiased, d = 1/w₂ − 1
        1, 1/2, 1/3                     the plain average, which is d = 1

    So two batches give the number, and the third tells the second row from the third. A fourth
    with half the rows has to have the weight that the others predict.
    """
    *w, half = weights(new, read, (ROWS, ROWS, ROWS, ROWS // 2))
    start_mean, start_var = read.running(new(C), batch(0))
    start = _start(start_mean), _start(start_var)
    if max(map(abs, w)) < 1e-6:
        return "none", 0.0, start
    if _same(w) is not None:
        kind, momentum, fourth = "moving", w[1], w[1]
    elif abs(w[0] - 1) > 1e-3:
        raise Unknown(f"three batches have the weights {', '.join(f'{v:.4g}' for v in w)}")
    elif _same(w[1:]) is not None:
        kind, momentum, fourth = "replaced", w[1], w[1]
    else:
        d = 1 / w[1] - 1
        if abs(w[2] * (1 + d + d * d) - 1) > 1e-3:
            raise Unknown(f"three batches have the weights {', '.join(f'{v:.4g}' for v in w)}")
        kind, fourth = "debiased", 1 / (1 + d + d**2 + d**3)
        momentum = float(f"{1 - d:.2g}")  # of d near 1 two digits are left
        if abs(d - 1) < 1e-3:
            kind, momentum = "cumulative", 0.0
        else:
            start = 0.0, _hidden_start(new, read, d)
    if abs(half / fourth - 1) > 1e-2:
        raise Unknown(
            f"a batch of {ROWS} has the weight {w[2]:.4g} and one of {ROWS // 2} {half:.4g}: "
            f"it depends on the number of rows ({kind})"
        )
    return kind, None if kind == "cumulative" else _round(momentum), start


def _start(values: np.ndarray) -> float | None:
    """The one value of all channels, or None."""
    start = _same(values, 1e-3, 1e-4)
    return None if start is None else round(start, 4) + 0.0


def _hidden_start(new: Callable, read: Reader, d: float) -> float:
    """What a debiased variance started from, by the first batch.

    Inference uses (d s + (1 − d) σ²) / (1 − d): a line in σ² over the channels, with the intercept
    d s / (1 − d). Where the average was started at 0, as the division takes it to be, s = 0.
    """
    layer = new(C)
    layer.train(batch(0))
    var = _moments(batch(0))[1]
    intercept = np.polyfit(var, read.running(layer, batch(0))[1], 1)[1]
    return round(intercept * (1 - d) / d, 3) + 0.0


def _weight_of(found: dict, k: int) -> float:
    """The weight of the kth batch, k = 1, 2, …, as the answers so far say."""
    w, kind = found["weight"], found["average"]
    if kind == "debiased":
        return w / (1 - (1 - w) ** k)
    if kind == "cumulative":
        return 1 / k
    return 1.0 if kind == "replaced" and k == 1 else w


def running_var(new: Callable, read: Reader, found: dict) -> str:
    """Which variance goes into the running one, from one batch; verified on a second and a third.

    After a batch var = (1 − w) var₀ + w f σ², with w known from the mean: so f, which is 1 for the
    biased variance and m/(m − 1) for the unbiased one. Later batches have other m.
    """
    batches = [batch(k, rows) for k, rows in enumerate((ROWS, ROWS // 2, 3))]
    return _which_var(new, batches, read, found, 1)


def running_var_images(images: Callable, read: Reader, found: dict) -> str:
    """The same for images: frameworks may have another kernel for them."""
    if "axis" not in found:
        raise Unknown("needs the axis of the channels")
    return _which_var(images, [_cube(k) for k in range(3)], read, found, found["axis"])


def _which_var(new: Callable, batches: list, read: Reader, found: dict, axis: int) -> str:
    if "average" not in found:
        raise Unknown("needs the weights of the batches")
    if found["average"] == "none":
        raise Unknown("the running statistics do not move")
    layer = new(batches[0].shape[axis])
    start, used = read.running(layer, batches[0], axis)[1], []
    for x in batches:
        layer.train(x)
        used.append(read.running(layer, x, axis)[1])
    for name in "biased", "unbiased":
        predicted = _predict(name, start, [_moments(x, axis)[1:] for x in batches], found)
        if np.allclose(predicted, used, 1e-3, 1e-4):
            return name
    raise Unknown("three batches are predicted by neither the biased nor the unbiased variance")


def _predict(name: str, var: np.ndarray, batches: list, found: dict) -> list[np.ndarray]:
    """The running variances after each batch, of which (biased variance, m) are given."""
    predicted, debiased = [], found["average"] == "debiased"
    for k, (biased, m) in enumerate(batches, 1):
        w = _weight_of(found, k)
        new = biased * (m / (m - 1) if name == "unbiased" else 1)
        var = new if w == 1 else (1 - w) * var + w * new  # what is there may be NaN
        d = (1 - found["weight"]) ** k if debiased else 0.0
        predicted.append(var + found["start"][1] * d / (1 - d) if debiased else var)
    return predicted


# The rest ----------------------------------------------------------------------------------------


def _cube(k: int, side: int = 4) -> np.ndarray:
    """An array whose axes are all equally long, and all different along each."""
    rng = np.random.default_rng(k)
    x = rng.normal(0, 1, (side,) * 4)
    for i in range(4):
        x += rng.permutation(np.arange(side) * 5.0).reshape([-1 if j == i else 1 for j in range(4)])
    return x.astype(np.float32)


def axis(images: Callable) -> int:
    """The axis of the channels, from one batch of images whose axes are all equally long.

    No layer can object to its shape. The output has equal means along the axis of the channels,
    over all other axes; along the others the means keep what the input had.
    """
    x = _cube(0)
    y = _f64(images(len(x)).train(x))
    if y.shape != x.shape:
        raise Unknown(f"the output of images {x.shape} has shape {y.shape}")
    equal = [k for k in range(4) if np.ptp(_moments(y, k)[0]) < 1e-3]
    if len(equal) != 1:
        which = ", ".join(map(str, equal)) or "none"
        raise Unknown(f"the means of the output are equal along these axes: {which}")
    return -1 if equal[0] == 3 else equal[0]


def infer_moves(new: Callable) -> bool:
    """Whether inference moves the running statistics: the same inference, before and after one.

    A row's output must not depend on its neighbours either.
    """
    layer, x = new(C), batch(1)
    layer.train(batch(0))
    before, again = (_f64(layer.infer(x[:2])) for _ in range(2))
    if not np.array_equal(before, again, equal_nan=True):
        return True
    if not np.allclose(_f64(layer.infer(x))[:2], before, 1e-3, 1e-3, equal_nan=True):
        raise Unknown("in inference the output of a row depends on its neighbours in the batch")
    return False


def plain(new: Callable) -> str:
    """What a plain call of a new layer does, next to training and inference of others like it.

    Nothing is called before it: a layer that was in inference may stay there.
    """
    layer, x = new(C), batch(1)
    if not hasattr(layer, "plain"):
        raise Unknown("the layer was given without plain(x)")
    kinds = {
        "batch statistics": _f64(new(C).train(x)),
        "running statistics": _f64(new(C).infer(x)),
    }
    try:
        y = _f64(layer.plain(x))
    except Exception as error:
        return _reason(error)
    moved = not np.array_equal(kinds["running statistics"], _f64(layer.infer(x)), equal_nan=True)
    fits = [name for name, v in kinds.items() if np.allclose(y, v, 1e-4, 1e-5)]
    if len(fits) != 1:
        raise Unknown("a plain call gives neither the output of training nor that of inference")
    return fits[0] + (", and moves the running ones" if moved else ", and moves nothing")


def batch_of_one(new: Callable) -> str:
    """What a training step on one row does, to its output and to inference afterwards."""
    layer, x, probe = new(C), batch(1)[:1] + 3, batch(2)
    before = _f64(new(C).infer(probe))
    try:
        y = _f64(layer.train(x))
    except Exception as error:
        return _reason(error)
    beta = _f64(new(C).train(batch(1))).mean()
    if np.allclose(y, x):
        said = "returns x unchanged"
    elif np.allclose(y, beta, 0, 1e-3):
        said = "returns β"
    else:
        said = "returns NaN" if np.isnan(y).any() else f"returns up to {np.abs(y).max():.3g}"
    after = _f64(layer.infer(probe))
    if not np.isfinite(after).all():
        return said + "; inference is NaN from then on"
    moved = not np.array_equal(before, after)
    return said + ("; the running statistics move" if moved else "; nothing moves")


def large_mean(new: Callable) -> dict[str, float | None]:
    """The error of the output where the mean is large: 64 rows of variance 1, in float32.

    E[x²] − E[x]² in float32 loses as many digits as the square of the mean has before the point.
    """
    errors: dict[str, float | None] = {}
    for mean in LARGE:
        x = np.random.default_rng(0).normal(mean, 1, (64, C)).astype(np.float32)
        center, var, _ = _moments(x)
        x_hat = (x - center) / np.sqrt(var)
        y = _f64(new(C).train(x))
        near = _f64(new(C).train((x - center).astype(np.float32)))
        a, b = _line(x_hat, near)
        error = np.abs((y - b) / a - x_hat).max()
        errors[str(mean)] = float(f"{error:.1g}") if np.isfinite(error) else None
    return errors


def float16(new: Callable) -> str:
    """What a training step on a float16 array returns, is it right to a percent, and the state."""
    layer, x = new(C), (batch(1) / 8).astype(np.float16)
    try:
        y = np.asarray(layer.train(x))
    except Exception as error:
        return _reason(error)
    right = _f64(new(C).train(x.astype(np.float32)))
    said = f"{y.dtype} out" if np.allclose(_f64(y), right, 0, 0.02) else f"{y.dtype}, wrong"
    state = _arrays(layer) if hasattr(layer, "state") else {}
    dtypes = sorted({str(v.dtype) for v in state.values() if v.size > 1})
    return said + (f", state {' and '.join(dtypes)}" if dtypes else "")


def names(new: Callable, read: Reader, found: dict) -> tuple[dict[str, str], str | None]:
    """Which entry of the state is what, from what it holds before and after three batches.

    γ and β are the entries that training leaves alone; mean and variance those that inference
    uses; a hidden one is what a debiased average divides; a number is ε, the momentum, or a
    counter when it grew by three.
    """
    layer = new(C)
    if not hasattr(layer, "state"):
        raise Unknown("the layer was given without state()")
    old = _arrays(layer)
    for k in range(3):
        layer.train(batch(k))
    new_state = _arrays(layer)
    mean, var = read.running(layer, batch(0))
    candidates = {"mean": mean, "var": var, "inverse std": 1 / read.std(var)}
    if found.get("average") == "debiased":
        share = 1 - (1 - found["weight"]) ** 3
        candidates.update({"hidden mean": share * mean, "hidden var": share * var})
    numbers = {"eps": read.eps}
    if found.get("weight"):
        numbers.update({"momentum, new": found["weight"], "momentum, old": 1 - found["weight"]})
    kept = {"gamma": np.full(C, read.gamma), "beta": np.full(C, read.beta)}
    roles: dict[str, str] = {}
    weighs = None
    for name, value in new_state.items():
        role: str | None
        if value.size == 1 and float(value) - float(np.ravel(old.get(name, 0.0))[0]) == 3:
            role = "batches"
        elif value.size == 1:
            role = _first({k: v for k, v in numbers.items() if k.split(",")[0] not in roles}, value)
        else:
            still = name in old and np.array_equal(old[name], value)
            role = _first(kept if still else candidates, value)
        if role is not None and role.startswith("momentum"):
            role, weighs = role.split(", ")
        key = role or "not told"
        entry = name if value.ndim < 2 else f"{name} {value.shape}"
        roles[key] = f"{roles[key]}, {entry}" if key in roles else entry
    return roles, weighs


def _arrays(layer: Any) -> dict[str, np.ndarray]:
    state = {name: np.asarray(v).copy() for name, v in layer.state().items() if v is not None}
    return {name: v for name, v in state.items() if v.dtype.kind in "fiu"}


def _first(candidates: dict[str, Any], value: np.ndarray) -> str | None:
    """The first candidate that the value is."""
    for role, v in candidates.items():
        if np.size(v) == value.size and np.allclose(value.ravel(), v, 1e-3, 1e-6):
            return role
    return None
