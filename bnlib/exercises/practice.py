"""The exercises of the chapter on what to do."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_SEE = '"Which settings?" in the chapter "What should I do?"'


def _run(rng: Generator) -> Inputs:
    return {"steps": int(rng.integers(20, 400)), "left": float(rng.uniform(0.005, 0.1))}


@exercise(
    see=_SEE,
    inputs=_run,
    outputs=["momentum"],
    properties={
        "for twice the steps and the square of `left` the momentum must be the same": (
            lambda answer, steps, left: (answer(steps=2 * steps, left=left**2), answer())
        ),
    },
    mistakes={
        "the momentum is the weight of the old value": ("1 - left", "left"),
        "each batch takes the same amount away": (
            "1 - left ** (1 / steps)",
            "(1 - left) / steps",
        ),
        "the roots of what is left and of what is gone are mixed up": (
            "1 - left ** (1 / steps)",
            "(1 - left) ** (1 / steps)",
        ),
    },
)
def smallest_momentum(steps: int, left: float) -> float:
    return 1 - left ** (1 / steps)


def _networks(rng: Generator) -> Inputs:
    """Inputs with correlations and a mean, and the first weights of some networks."""
    networks, outputs, inputs = int(rng.integers(3, 5)), 4, 3
    x = rng.normal(1, 1, (20, inputs)) @ rng.normal(0, 1, (inputs, inputs))
    return {"x": x, "weights": rng.normal(0.3, 1, (networks, outputs, inputs))}


@exercise(
    see=_SEE,
    inputs=_networks,
    outputs=["mean", "var"],
    properties={
        "of networks that are all alike, the mean and the variance must be those of one": (
            lambda answer, x, weights: (
                answer(weights=np.repeat(weights[:1], 3, axis=0)),
                answer(weights=weights[:1]),
            )
        ),
        "of weights w and −w, the variance must be 0": (
            lambda answer, x, weights: (
                answer(weights=np.concatenate([weights, -weights]))[1],
                np.zeros(weights.shape[1]),
            )
        ),
    },
    mistakes={
        "the variances of the networks are averaged": (
            "y.var(axis=0)",
            "(x @ weights.transpose(0, 2, 1)).var(axis=1).mean(axis=0)",
        ),
        "the statistics are those of the last network": ("weights.mean(axis=0)", "weights[-1]"),
        "the weights are added up, not averaged": ("weights.mean(axis=0)", "weights.sum(axis=0)"),
        "the variance has n − 1 in it": ("var(axis=0)", "var(axis=0, ddof=1)"),
    },
)
def averaged_statistics(x: Array, weights: Array) -> tuple[Array, Array]:
    y = x @ weights.mean(axis=0).T
    return y.mean(axis=0), y.var(axis=0)
