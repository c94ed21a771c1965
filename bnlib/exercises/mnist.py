"""The exercises of part II, the experiments."""

from typing import Any

import numpy as np

from bnlib.exercises.judge import Exercise

_FIGURE_1 = 'the chapter "Figure 1 of the paper"'


def _climb(rng: np.random.Generator) -> dict[str, Any]:
    accuracy = np.sort(rng.uniform(0.1, 0.98, 30))
    accuracy[17] = accuracy[15] - 0.05  # a curve goes down now and then, also below the target
    return {"steps": np.arange(0, 15000, 500), "accuracy": accuracy, "target": accuracy[15]}


def _path(percentiles: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(np.diff(percentiles[:, 1], axis=0)).sum(axis=0))


def _spread(percentiles: np.ndarray) -> np.ndarray:
    return np.asarray(percentiles[-1, 2] - percentiles[-1, 0])


EXERCISES = (
    Exercise(
        "steps-to",
        f'"How many steps are saved?" in {_FIGURE_1}',
        _climb,
        lambda steps, accuracy, target: int(steps[np.flatnonzero(accuracy >= target)[0]]),
        ["steps"],
        mistakes={
            "the index is returned, not the step": lambda steps, accuracy, target: int(
                np.argmax(accuracy >= target)
            ),
            "the accuracy must be above the target, not at it": lambda steps, accuracy, target: int(
                steps[np.argmax(accuracy > target)]
            ),
            "the last time below the target counts, not the first time at it": (
                lambda steps, accuracy, target: int(
                    steps[np.flatnonzero(accuracy < target)[-1] + 1]
                )
            ),
        },
    ),
    Exercise(
        "drift",
        f'"What do the sigmoids see?" in {_FIGURE_1}',
        lambda rng: {"percentiles": np.sort(rng.normal(size=(20, 3, 5)), axis=1)},
        lambda percentiles: _path(percentiles) / _spread(percentiles),
        ["drift"],
        mistakes={
            "only the way from start to end is taken, not the whole path": lambda percentiles: (
                np.abs(percentiles[-1, 1] - percentiles[0, 1]) / _spread(percentiles)
            ),
            "the path is not divided by the final spread": _path,
        },
    ),
)
