"""What a study is, and how its tables are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bnlib import sweep

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from pandas import DataFrame, Series

    from bnlib.training import Record

SEEDS = range(5), range(1)  # in the full and in the quick profile


class Study(NamedTuple):
    """What one run does, and which runs there are.

    Attributes:
        run: takes a point as keyword arguments and returns a curve: columns of equal length.
        grids: each has the arguments of `run`, of which the last changes fastest. A list or a
            range is what an argument takes in turn, a pair what it is in the full and in the quick
            profile.
    """

    run: Callable[..., dict[str, np.ndarray]]
    grids: list[dict[str, Any]]

    def points(self, *, full: bool) -> list[dict[str, Any]]:
        """The runs of the full or the quick profile, each as the arguments of `run`."""
        found = []
        for arguments in self.grids:
            taken = {k: v[not full] if isinstance(v, tuple) else v for k, v in arguments.items()}
            axes = {k: v if isinstance(v, list | range) else [v] for k, v in taken.items()}
            found += sweep.grid(**axes)
        return found


def curve(record: Record) -> dict[str, np.ndarray]:
    """The columns that `runs` reads, of a run evaluated on "train" and "validation" too."""
    return {
        "step": record.steps,
        "loss": record.train_loss,
        "train": record.accuracies["train"],
        "validation": record.accuracies["validation"],
        "test": record.test_accuracy,
    }


def describe(table: DataFrame) -> str:
    """One line on where the numbers of a study come from: runs, steps, data, versions."""
    each = runs(table)
    first = table.iloc[0]
    seeds = each["seed"].nunique()
    return (
        f"{len(each):,} runs with {seeds} seeds, {each['last_step'].sum():,} steps; "
        f"data {first['data']}, NumPy {first['numpy']}, torch {first['torch']} on {first['device']}"
    )


def runs(table: DataFrame) -> DataFrame:
    """One row for each run: its configuration and how it ended.

    Args:
        table: as `study` returns it.

    Returns:
        The arguments of `train`; `last_step`; `loss`, `train`, `validation` and `test` at the last
        evaluation; and `outcome`, by the training loss alone: "diverged", not finite; "stuck", 2.3
        or more, where ln 10 = 2.303 is that of knowing nothing; else "learned".
    """
    last = table[_ends(table)].rename(columns={"step": "last_step"}).reset_index(drop=True)
    last["outcome"] = np.select(
        [~np.isfinite(last["loss"]), last["loss"] >= 2.3], ["diverged", "stuck"], "learned"
    )
    return last.drop(columns=["numpy", "torch", "device", "data"], errors="ignore")


def best_of(each: DataFrame, arms: Sequence[str], search: Sequence[str]) -> DataFrame:
    """The runs of each arm at its own best setting: that with the highest median on `validation`.

    Args:
        each: runs, as `runs` returns them.
        arms: columns that tell the arms of the comparison apart, such as "net", "batch_norm".
        search: columns that were searched, such as "lr".

    Returns:
        The rows of those runs, one for each arm and seed. Of equal settings the first is taken.
    """
    medians = each.groupby([*arms, *search], sort=False)["validation"].median().reset_index()
    chosen = medians.loc[medians.groupby(list(arms), sort=False)["validation"].idxmax()]
    return each.merge(chosen[[*arms, *search]], on=[*arms, *search])


def steps_to(table: DataFrame, accuracy: float, on: str = "test") -> DataFrame:
    """The first evaluated step of each run at which an accuracy was reached.

    Args:
        table: as `study` returns it.
        accuracy: a share of right answers.
        on: of which images, "train", "validation" or "test".

    Returns:
        The rows of `runs`, with a column `steps_to`; NaN where it was never reached.
    """
    number = _ends(table).shift(fill_value=False).cumsum()
    reached = table["step"].where(table[on] >= accuracy)
    return runs(table).assign(steps_to=reached.groupby(number).min())


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """The median of one value for each seed, and an interval around it without assumptions.

    The smallest and the largest of n values have the true median between them, unless all lie on
    one side of it: with a confidence of 1 − 2 · 2⁻ⁿ, which is 93.75 % for five.

    Args:
        values: (n,), such as the differences of two arms, seed by seed.

    Returns:
        The median, the smallest and the largest value.
    """
    values = np.asarray(values, float)
    return float(np.median(values)), float(values.min()), float(values.max())


def _ends(table: DataFrame) -> Series:
    """Which rows are the last of their run: the next one starts at step 0."""
    step = table["step"]
    starts = step == 0
    whole = starts | (step.diff() > 0)
    if table.empty or not starts.iloc[0] or not whole.all() or (starts & starts.shift()).any():
        raise ValueError("table: its rows are not whole runs, one after the other, from step 0")
    following: Series = step.shift(-1, fill_value=0)
    return following == 0
