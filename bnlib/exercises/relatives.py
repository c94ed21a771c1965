"""The exercises of the chapter on BatchNorm's relatives."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_CHAPTER = 'the chapter "What else normalizes?"'


def _rows(rng: Generator) -> Inputs:
    """Examples of different lengths, one of them short enough for ε to count."""
    n, c = int(rng.integers(3, 6)), int(rng.integers(4, 7))
    x = rng.normal(0.5, 1, (n, c)) * rng.uniform(0.5, 3, (n, 1))
    x[0] *= 0.1
    gamma = rng.normal(0, 1, c)
    return {"dy": rng.normal(0, 1, (n, c)), "x": x, "gamma": gamma, "eps": 0.01}


@exercise(
    see=f'"One backward pass, too" in {_CHAPTER}',
    inputs=_rows,
    outputs=["dx"],
    properties={
        "without ε, dx must be at right angles to x in each example": (
            lambda answer, dy, x, gamma, eps: ((answer(eps=0) * x).sum(1), np.zeros(len(x)))
        ),
        "dx of an example must not depend on the others": (
            lambda answer, dy, x, gamma, eps: (answer(dy=dy[1:], x=x[1:]), answer()[1:])
        ),
    },
    mistakes={
        "γ stands outside of the mean": (
            "(g - x_hat * (g * x_hat).mean(1, keepdims=True)) / r",
            "gamma * (dy - x_hat * (dy * x_hat).mean(1, keepdims=True)) / r",
        ),
        "the mean of g is subtracted, as where x has a mean": (
            "(g - x_hat",
            "(g - g.mean(1, keepdims=True) - x_hat",
        ),
        "the means are over the examples": (
            "(g * x_hat).mean(1, keepdims=True)",
            "(g * x_hat).mean(0)",
        ),
        "γ is left out": ("g = gamma * dy", "g = dy"),
        "the root mean square counts as a constant": (
            "(g - x_hat * (g * x_hat).mean(1, keepdims=True)) / r",
            "g / r",
        ),
    },
)
def rms_backward(dy: Array, x: Array, gamma: Array, eps: float) -> Array:
    r = np.sqrt((x * x).mean(1, keepdims=True) + eps)
    x_hat = x / r
    g = gamma * dy
    return (g - x_hat * (g * x_hat).mean(1, keepdims=True)) / r


def _weights(rng: Generator) -> Inputs:
    outputs, inputs = int(rng.integers(3, 6)), int(rng.integers(4, 7))
    v = rng.normal(0.3, 1, (outputs, inputs)) * rng.uniform(0.5, 3, (outputs, 1))
    return {"dw": rng.normal(0, 1, v.shape), "v": v, "g": rng.normal(0, 2, outputs)}


@exercise(
    see=f'"One formula, ten names" in {_CHAPTER}',
    inputs=_weights,
    outputs=["dv", "dg"],
    properties={
        "dv must be at right angles to v for each output": (
            lambda answer, dw, v, g: ((answer()[0] * v).sum(1), np.zeros(len(v)))
        ),
        "with v twice as long, dv must be half as large": (
            lambda answer, dw, v, g: (2 * answer(v=2 * v)[0], answer()[0])
        ),
    },
    mistakes={
        "the length of v counts as a constant in dv": (
            "(dw - u * dg[:, None])",
            "dw",
        ),
        "dg has the length of v in it": ("(dw * u).sum(1)", "(dw * v).sum(1)"),
        "g is left out of dv": ("(g / length)[:, None]", "(1 / length)[:, None]"),
        "dv is not divided by the length of v": ("(g / length)[:, None]", "g[:, None]"),
        "one length is taken for all outputs": (
            "np.sqrt((v * v).sum(1))",
            "np.full(len(v), np.sqrt((v * v).sum()))",
        ),
    },
)
def weight_norm_backward(dw: Array, v: Array, g: Array) -> tuple[Array, Array]:
    length = np.sqrt((v * v).sum(1))
    u = v / length[:, None]
    dg = (dw * u).sum(1)
    return (g / length)[:, None] * (dw - u * dg[:, None]), dg


def _padded(rng: Generator) -> Inputs:
    """Sequences of different lengths; behind their ends stands what must not count."""
    n, c, p = int(rng.integers(3, 6)), 3, 7
    lengths = rng.integers(2, p, n)
    lengths[0] = p
    return {"x": rng.normal(1, 2, (n, c, p)), "lengths": lengths, "eps": 0.01}


def _beyond(x: Array, lengths: Array, value: float) -> Array:
    """x with another value in the padding."""
    inside = np.arange(x.shape[2]) < lengths[:, None, None]
    return np.where(inside, x, value)


@exercise(
    see=f'"Why do sequences normalize over features?" in {_CHAPTER}',
    inputs=_padded,
    outputs=["x_hat"],
    properties={
        "what stands in the padding must not matter": (
            lambda answer, x, lengths, eps: (answer(x=_beyond(x, lengths, 9.0)), answer())
        ),
        "x_hat must be 0 in the padding": (
            lambda answer, x, lengths, eps: (
                answer() - _beyond(answer(), lengths, 0.0),
                np.zeros(x.shape),
            )
        ),
        "without padding it must be BatchNorm": (
            lambda answer, x, lengths, eps: (
                answer(lengths=np.full(len(x), x.shape[2])),
                (x - x.mean((0, 2), keepdims=True)) / np.sqrt(x.var((0, 2), keepdims=True) + eps),
            )
        ),
    },
    mistakes={
        "the padding counts in m": ("inside.sum()", "inside.size"),
        "the padding is part of the mean": ("(x * inside).sum((0, 2))", "x.sum((0, 2))"),
        "the padding is part of the variance": (
            "d = (x - mean[:, None]) * inside",
            "d = x - mean[:, None]",
        ),
        "each sequence is normalized by itself": (
            "return d / np.sqrt(var + eps)[:, None]",
            "own = inside.sum(2, keepdims=True)\n"
            "    d = (x - (x * inside).sum(2, keepdims=True) / own) * inside\n"
            "    return d / np.sqrt((d * d).sum(2, keepdims=True) / own + eps)",
        ),
    },
)
def padded_batch_norm(x: Array, lengths: Array, eps: float) -> Array:
    inside = np.arange(x.shape[2]) < lengths[:, None, None]  # (N, 1, P)
    m = inside.sum()
    mean = (x * inside).sum((0, 2)) / m
    d = (x - mean[:, None]) * inside
    var = (d * d).sum((0, 2)) / m
    return d / np.sqrt(var + eps)[:, None]
