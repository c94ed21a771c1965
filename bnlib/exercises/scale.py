"""The exercises of the chapter on weight decay in front of BatchNorm."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_CHAPTER = 'the chapter "What does weight decay do to weights that have no length?"'


def _rates(rng: Generator) -> Inputs:
    return {"lr": float(rng.uniform(0.05, 2)), "weight_decay": float(rng.uniform(1e-3, 0.02))}


@exercise(
    see=f'"What is left of a penalty?" in {_CHAPTER}',
    inputs=lambda rng: {**_rates(rng), "eps": 1e-5, "a": float(rng.uniform(2, 6))},
    outputs=["new_lr", "new_weight_decay", "new_eps"],
    properties={
        "the product of rate and decay must stay": lambda answer, lr, weight_decay, **_: (
            answer()[0] * answer()[1],
            lr * weight_decay,
        ),
        "with a = 1 all three must stay": lambda answer, lr, weight_decay, eps, a: (
            answer(a=1.0),
            [lr, weight_decay, eps],
        ),
    },
    mistakes={
        "rate and decay change by a, not by a²": (
            "a**2 * lr, weight_decay / a**2",
            "a * lr, weight_decay / a",
        ),
        "ε stays": ("a**2 * eps", "eps"),
        "the rate falls for longer weights": (
            "a**2 * lr, weight_decay / a**2",
            "lr / a**2, weight_decay * a**2",
        ),
    },
)
def same_training(
    lr: float, weight_decay: float, eps: float, a: float
) -> tuple[float, float, float]:
    return a**2 * lr, weight_decay / a**2, a**2 * eps


@exercise(
    see=f'"Where does the length end?" in {_CHAPTER}',
    inputs=lambda rng: {**_rates(rng), "gradient": rng.uniform(0.2, 8, 5)},
    outputs=["the length"],
    properties={
        "with a rate 16 times as high the length must be doubled": (
            lambda answer, lr, **_: (answer(lr=16 * lr), 2 * answer())
        ),
        "with gradients 4 times as long the length must be doubled": (
            lambda answer, gradient, **_: (answer(gradient=4 * gradient), 2 * answer())
        ),
    },
    mistakes={
        "the square of the length is returned": ("** 0.25", "** 0.5"),
        "the fourth power of the length is returned": (" ** 0.25", ""),
        "the 2 is forgotten": ("2 * weight_decay", "weight_decay"),
        "the decay multiplies": ("/ (2 * weight_decay)", "* 2 * weight_decay"),
        "the gradient is not squared": ("gradient**2", "gradient"),
    },
)
def equilibrium_length(lr: float, weight_decay: float, gradient: Array) -> Array:
    return (lr * gradient**2 / (2 * weight_decay)) ** 0.25


@exercise(
    see=f'"Where does the length end?" in {_CHAPTER}',
    inputs=lambda rng: {
        "first": float(rng.uniform(1, 5)),
        "lr": float(rng.uniform(0.2, 1)),
        "weight_decay": float(rng.uniform(0.05, 0.2)),
        "gradient": rng.uniform(1, 4, int(rng.integers(4, 9))),
    },
    outputs=["lengths"],
    properties={
        "without gradients, the ratio of one length to the one before must be 1 − ηλ": (
            lambda answer, lr, weight_decay, gradient, **_: (
                (lengths := answer(gradient=0 * gradient))[1:] / lengths[:-1],
                np.full(len(gradient), 1 - lr * weight_decay),
            )
        ),
        "without decay, the lengths must grow as Pythagoras says": (
            lambda answer, first, lr, gradient, **_: (
                np.diff(answer(weight_decay=0.0) ** 2),
                (lr * gradient / answer(weight_decay=0.0)[:-1]) ** 2,
            )
        ),
    },
    mistakes={
        "the gradient at length 1 is taken for the gradient at w": (
            "lr * size / lengths[-1]",
            "lr * size",
        ),
        "the decay shortens ‖w‖² once, not twice": (
            "(1 - lr * weight_decay) * lengths[-1]",
            "np.sqrt(1 - lr * weight_decay) * lengths[-1]",
        ),
        "the step is laid along w, not across it": (
            "np.hypot(kept, lr * size / lengths[-1])",
            "kept + lr * size / lengths[-1]",
        ),
        "the first length is left out": ("np.array(lengths)", "np.array(lengths[1:])"),
    },
)
def decayed_lengths(first: float, lr: float, weight_decay: float, gradient: Array) -> Array:
    lengths = [first]
    for size in gradient:
        kept = (1 - lr * weight_decay) * lengths[-1]
        lengths.append(np.hypot(kept, lr * size / lengths[-1]))
    return np.array(lengths)


@exercise(
    see=f'"What does momentum change?" in {_CHAPTER}',
    inputs=lambda rng: {**_rates(rng), "momentum": float(rng.uniform(0.3, 0.97))},
    outputs=["step", "run"],
    properties={
        "without momentum both must be √(2ηλ)": lambda answer, lr, weight_decay, momentum: (
            answer(momentum=0.0),
            [np.sqrt(2 * lr * weight_decay)] * 2,
        ),
        "at four times the rate both must be doubled": (
            lambda answer, lr, **_: (answer(lr=4 * lr), 2 * np.array(answer()))
        ),
    },
    mistakes={
        "the two are exchanged": ("return step, run", "return run, step"),
        "single steps get a rate that is 1/(1 − μ) times as high": ("1 + momentum", "1 - momentum"),
        "the angles are in degrees": (
            "return step, run",
            "return np.degrees(step), np.degrees(run)",
        ),
        "the roots are forgotten": ("return step, run", "return step**2, run**2"),
    },
)
def turns(lr: float, weight_decay: float, momentum: float) -> tuple[float, float]:
    step = np.sqrt(2 * lr * weight_decay / (1 + momentum))
    run = np.sqrt(2 * lr * weight_decay / (1 - momentum))
    return step, run
