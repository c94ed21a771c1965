"""Exercises that answer: `check(name, function)` runs a reader's function and says what is wrong.

A function is judged by what it does, on several random inputs: shapes, dtypes, values, and that it
leaves its inputs alone. An exercise of one's own takes a few lines::

    from bnlib.exercises import Exercise, check, register

    register(
        Exercise(
            name="center",
            see="the definition of the mean",
            inputs=lambda rng: {"x": rng.normal(2, 3, (5, 4))},
            reference=lambda x: x - x.mean(axis=0),
            outputs=("centered",),
        )
    )
    check("center", lambda x: x - x.mean())
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnlib import steps
from bnlib.batchnorm import batch_norm_backward, batch_norm_train

_CASES = 3  # random inputs an answer has to stand


@dataclass(frozen=True)
class Exercise:
    """What a reader's function must do.

    Attributes:
        name: how `check` is asked for it.
        see: where the equation stands, for the reader whose answer is wrong.
        inputs: from a random generator to the arguments, by name.
        reference: the right answer: takes the arguments, returns an array, a number or a tuple.
        outputs: what the returned values are called in the equations.
        tolerance: largest error allowed, as a share of the largest value of the right answer.
    """

    name: str
    see: str
    inputs: Callable[[np.random.Generator], dict[str, Any]]
    reference: Callable[..., Any]
    outputs: Sequence[str]
    tolerance: float = 1e-9


_EXERCISES: dict[str, Exercise] = {}


class _Wrong(Exception):
    """What is wrong with an answer."""


def register(exercise: Exercise) -> None:
    """Make an exercise known to `check`; one of the same name is replaced.

    Args:
        exercise: the exercise.
    """
    _EXERCISES[exercise.name] = exercise


def names() -> list[str]:
    """The names of all exercises."""
    return sorted(_EXERCISES)


def check(name: str, function: Callable[..., Any]) -> None:
    """Run a function as the answer to an exercise, and print whether it is right.

    Args:
        name: of the exercise.
        function: the reader's answer.

    Raises:
        ValueError: there is no such exercise.
    """
    problem = find_problem(name, function)
    if problem is None:
        print(f"✓ {name}: right, on {_CASES} random inputs.")
    else:
        print(f"✗ {name}: {problem}")
        print(f"  See {_EXERCISES[name].see}.")


def find_problem(name: str, function: Callable[..., Any]) -> str | None:
    """The first thing that is wrong with an answer.

    Args:
        name: of the exercise.
        function: the reader's answer.

    Returns:
        A sentence, or None where nothing is wrong.

    Raises:
        ValueError: there is no such exercise.
    """
    if name not in _EXERCISES:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(names())}")
    exercise = _EXERCISES[name]
    try:
        for seed in range(_CASES):
            _judge(exercise, function, np.random.default_rng(seed))
    except _Wrong as wrong:
        return str(wrong)
    return None


def _judge(exercise: Exercise, function: Callable[..., Any], rng: np.random.Generator) -> None:
    """Raise `_Wrong` if a function fails on one random input."""
    arguments = exercise.inputs(rng)
    given = {name: np.copy(v) if isinstance(v, np.ndarray) else v for name, v in arguments.items()}
    expected = exercise.reference(**arguments)
    try:
        got = function(*given.values())
    except NotImplementedError:
        raise _Wrong("still to be written.") from None
    except Exception as error:
        raise _Wrong(f"your function raised {type(error).__name__}: {error}") from error
    for name, v in arguments.items():
        if not np.array_equal(given[name], v):
            raise _Wrong(f"your function changed its argument {name}; compute into a new array.")
    if len(exercise.outputs) == 1:
        got, expected = (got,), (expected,)
    elif not isinstance(got, tuple | list) or len(got) != len(expected):
        raise _Wrong(
            f"your function returned a {type(got).__name__}; expected {len(expected)} values, "
            f"separated by commas: {', '.join(exercise.outputs)}."
        )
    for name, value, right in zip(exercise.outputs, got, expected, strict=True):
        _compare(name, value, np.asarray(right), exercise.tolerance)


def _compare(name: str, value: Any, right: np.ndarray, tolerance: float) -> None:
    """Raise `_Wrong` unless a value has the right shape, dtype and numbers."""
    if not isinstance(value, np.ndarray | np.generic | int | float):
        if value is None:
            raise _Wrong(f"your function returned nothing; expected {name}. Is there a return?")
        raise _Wrong(f"{name} is a {type(value).__name__}; expected shape {right.shape}.")
    value = np.asarray(value)
    if value.shape != right.shape:
        raise _Wrong(f"{name} has shape {value.shape}; expected {right.shape}.")
    if value.dtype.kind != right.dtype.kind:
        raise _Wrong(f"{name} has dtype {value.dtype}; expected {right.dtype}.")
    if not np.isfinite(value).all():
        raise _Wrong(f"{name} has {np.count_nonzero(~np.isfinite(value))} NaN or infinite values.")
    error, scale = np.max(np.abs(value - right)), np.max(np.abs(right))
    if error > tolerance * max(scale, 1e-300):
        raise _Wrong(
            f"{name} is off by up to {error:.2g}, where the right values go up to {scale:.2g}."
        )


# The exercises of the book, by chapter.


def _batch(rng: np.random.Generator) -> np.ndarray:
    """A mini-batch of 6 to 12 examples and 2 to 5 features, of uneven mean and scale."""
    m, c = rng.integers(6, 13), rng.integers(2, 6)
    return rng.normal(rng.normal(0, 3, c), rng.uniform(0.5, 3, c), (m, c))


def _with_dy(rng: np.random.Generator) -> dict[str, Any]:
    """A mini-batch, the gradient that comes in, and an eps that matters."""
    x = _batch(rng)
    return {"x": x, "dy": rng.normal(size=x.shape), "eps": rng.uniform(0.05, 0.5)}


def _with_dx_hat(rng: np.random.Generator) -> dict[str, Any]:
    x, dx_hat, eps = _with_dy(rng).values()
    return {"x": x, "dx_hat": dx_hat, "eps": eps}


def _with_gamma(rng: np.random.Generator) -> dict[str, Any]:
    x, dy, eps = _with_dy(rng).values()
    return {"x": x, "gamma": rng.normal(size=x.shape[1]), "dy": dy, "eps": eps}


_TRANSFORM = 'algorithm 1, in the chapter "The transform"'
_BACKWARD = 'the chapter "The backward pass"'
_FIGURE_1 = 'the chapter "Figure 1 of the paper"'


def _normalize(x: np.ndarray, eps: float) -> np.ndarray:
    return batch_norm_train(x, eps=eps)[0]


def _undo(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    return np.sqrt(x.var(axis=0) + eps), x.mean(axis=0)


def _variance_gradient(x: np.ndarray, dx_hat: np.ndarray, eps: float) -> np.ndarray:
    cache = steps.forward(x, np.ones(x.shape[1]), np.zeros(x.shape[1]), eps)[1]
    return np.asarray(steps.backward(dx_hat, cache)[3].var)


def _input_gradient(x: np.ndarray, gamma: np.ndarray, dy: np.ndarray, eps: float) -> np.ndarray:
    return batch_norm_backward(dy, batch_norm_train(x, gamma, eps=eps)[1])[0]


def _layer_norm_gradient(x: np.ndarray, dy: np.ndarray, eps: float) -> np.ndarray:
    return batch_norm_backward(dy.T.copy(), batch_norm_train(x.T.copy(), eps=eps)[1])[0].T


def _steps_to(steps: np.ndarray, accuracy: np.ndarray, target: float) -> int:
    return int(steps[np.flatnonzero(accuracy >= target)[0]])


def _climb(rng: np.random.Generator) -> dict[str, Any]:
    accuracy = np.sort(rng.uniform(0.1, 0.98, 30))
    accuracy[17] = accuracy[15] - 0.05  # a curve goes down now and then, also below the target
    return {"steps": np.arange(0, 15000, 500), "accuracy": accuracy, "target": accuracy[15]}


for exercise in (
    Exercise(
        "normalize",
        _TRANSFORM,
        lambda rng: {"x": _batch(rng), "eps": rng.uniform(0.05, 0.5)},
        _normalize,
        ["x_hat"],
    ),
    Exercise(
        "undo",
        f'{_TRANSFORM}, and "What are γ and β for?" there',
        lambda rng: {"x": _batch(rng), "eps": rng.uniform(0.05, 0.5)},
        _undo,
        ["gamma", "beta"],
    ),
    Exercise(
        "variance-gradient",
        f'the step "The standard deviation" in {_BACKWARD}',
        _with_dx_hat,
        _variance_gradient,
        ["dvar"],
    ),
    Exercise(
        "input-gradient",
        f"the closed form in {_BACKWARD}",
        _with_gamma,
        _input_gradient,
        ["dx"],
    ),
    Exercise(
        "layer-norm-gradient",
        f"the closed form in {_BACKWARD}; only the axis differs",
        _with_dy,
        _layer_norm_gradient,
        ["dx"],
    ),
    Exercise(
        "steps-to",
        f'"How many steps are saved?" in {_FIGURE_1}',
        _climb,
        _steps_to,
        ["steps"],
    ),
    Exercise(
        "drift",
        f'"What do the sigmoids see?" in {_FIGURE_1}',
        lambda rng: {"percentiles": np.sort(rng.normal(size=(20, 3, 5)), axis=1)},
        lambda percentiles: (
            np.abs(np.diff(percentiles[:, 1], axis=0)).sum(axis=0)
            / (percentiles[-1, 2] - percentiles[-1, 0])
        ),
        ["drift"],
    ),
):
    register(exercise)
