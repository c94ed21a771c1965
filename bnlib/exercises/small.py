"""The exercises of the chapter "Where does it break?"."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_SMALL = 'the chapter "Where does it break?"'


def _two(rng: Generator) -> Inputs:
    """Pairs that differ by about √ε, so that each of their three parts counts."""
    eps = rng.uniform(0.01, 0.1)
    return {"x": rng.normal(3, np.sqrt(eps), (2, 5)), "dy": rng.normal(1, 1, (2, 5)), "eps": eps}


@exercise(
    see=f'"What is left of two examples?" in {_SMALL}',
    inputs=_two,
    outputs=["dx"],
    properties={
        "both rows of dx must sum to 0 in each column": (
            lambda answer, **_: (np.sum(answer(), axis=0), 0)
        ),
        "a dy that is the same for both must give 0": (
            lambda answer, x, **_: (answer(dy=np.ones_like(x)), 0)
        ),
    },
    mistakes={
        "dy is not freed of what both have in common": (
            "(dy[0] - dy[1]) / 2",
            "dy[0]",
        ),
        "the difference of the gradients is not halved": ("(dy[0] - dy[1]) / 2", "(dy[0] - dy[1])"),
        "the distance of the two is taken, not half of it": ("(x[0] - x[1]) / 2", "(x[0] - x[1])"),
        "the power is 1/2, as in the forward pass": ("** 1.5", "** 0.5"),
        "the power is 3": ("** 1.5", "** 3"),
        "the two rows are exchanged": ("[dx, -dx]", "[-dx, dx]"),
    },
)
def two_examples(x: Array, dy: Array, eps: float) -> Array:
    d, g = (x[0] - x[1]) / 2, (dy[0] - dy[1]) / 2
    dx = g * eps / (d**2 + eps) ** 1.5
    return np.array([dx, -dx])


def _parts(rng: Generator) -> Inputs:
    """A last part that is shorter than the others."""
    eps, size = rng.uniform(0.01, 0.1), int(rng.integers(4, 7))
    m = 3 * size + int(rng.integers(2, 4))
    return {"x": rng.normal(2, 1, (m, 4)), "size": size, "eps": eps}


@exercise(
    see=f'"Is it the noise?" in {_SMALL}',
    inputs=_parts,
    outputs=["x_hat"],
    properties={
        "the first part of x_hat must have the mean 0": (
            lambda answer, size, **_: (np.mean(answer()[:size], axis=0), 0)
        ),
        "in parts as large as the mini-batch, x_hat must be BatchNorm's": (
            lambda answer, x, eps, **_: (
                answer(size=len(x)),
                (x - x.mean(0)) / np.sqrt(x.var(0) + eps),
            )
        ),
    },
    mistakes={
        "the whole mini-batch is one part": (
            lambda x, size, eps: (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)
        ),
        "all features of a part share one mean and variance": (
            lambda x, size, eps: np.concatenate(
                [
                    (part - part.mean()) / np.sqrt(part.var() + eps)
                    for part in (x[i : i + size] for i in range(0, len(x), size))
                ]
            )
        ),
        "the mean is that of the part, and the variance that of the mini-batch": (
            "part.var(axis=0)",
            "x.var(axis=0)",
        ),
        "size is the number of parts": (
            lambda x, size, eps: np.concatenate(
                [
                    (part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + eps)
                    for part in np.array_split(x, size)
                ]
            )
        ),
        "the variance is the unbiased one": ("part.var(axis=0)", "part.var(axis=0, ddof=1)"),
    },
)
def ghost_batches(x: Array, size: int, eps: float) -> Array:
    x_hat = np.empty_like(x)
    for i in range(0, len(x), size):
        part = x[i : i + size]
        x_hat[i : i + size] = (part - part.mean(axis=0)) / np.sqrt(part.var(axis=0) + eps)
    return x_hat


def _last(rng: Generator) -> Inputs:
    return {
        "std": rng.uniform(1, 4, 5),
        "m": int(rng.integers(20, 60)),
        "k": int(rng.integers(2, 9)),
        "momentum": rng.uniform(0.2, 0.6),
    }


@exercise(
    see=f'"The last batch of an epoch" in {_SMALL}',
    inputs=_last,
    outputs=["error"],
    properties={
        "with the momentum 1 the error must be that of the last batch alone": (
            lambda answer, std, k, **_: (answer(momentum=1.0), std / np.sqrt(k))
        ),
    },
    mistakes={
        "the variance is returned, not its root": ("np.sqrt", ""),
        "what came before the last batch is left out": ("before + last", "last"),
        "what came before is not weighed by (1 − α)²": ("(1 - momentum) ** 2 * ", ""),
        "the weight of the last batch is not squared": ("momentum**2 / k", "momentum / k"),
        "the average over the batches before has the variance of one batch": (
            " * momentum / (2 - momentum)",
            "",
        ),
        "the last batch counts as a full one": ("/ k", "/ m"),
    },
)
def last_batch_error(std: Array, m: int, k: int, momentum: float) -> Array:
    before = (1 - momentum) ** 2 * momentum / (2 - momentum) / m
    last = momentum**2 / k
    return std * np.sqrt(before + last)


def _sure(rng: Generator) -> Inputs:
    logits = rng.normal(0, 2, (6, 4))
    logits[2] += 1000  # exp would overflow
    logits[3, 1] += 2000  # and the others' p is 0
    return {"logits": logits}


@exercise(
    see=f'"γ and β, by entropy alone" in {_SMALL}',
    inputs=_sure,
    outputs=["dlogits"],
    properties={
        "every row of dlogits must sum to 0": lambda answer, **_: (np.sum(answer(), axis=1), 0),
        "where all logits of a row are equal, dlogits must be 0": (
            lambda answer, logits: (answer(logits=0 * logits), 0)
        ),
    },
    mistakes={
        "the sum over the examples is differentiated, not the mean": (" / len(logits)", ""),
        "the sign is the wrong way round": ("-p * (log_p + h)", "p * (log_p + h)"),
        "the entropy of the row is left out": ("(log_p + h)", "(log_p + 1)"),
        "p is left out": ("-p * (log_p + h)", "-(log_p + h)"),
    },
)
def entropy_gradient(logits: Array) -> Array:
    z = logits - logits.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    h = -(p * log_p).sum(axis=1, keepdims=True)
    return -p * (log_p + h) / len(logits)
