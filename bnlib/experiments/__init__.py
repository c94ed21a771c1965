"""The experiments of the book: which runs each study is made of, and what one run does.

A study is in the module of its chapter, those of part II together in `part_two`. `points` lists
its runs, in the full or the quick profile, and `study` returns what they measured: the full profile
from the record that comes with the package, the quick one run at once. `runs`, `best_of`,
`steps_to` and `interval` read such tables.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bnlib import mnist, sweep
from bnlib._messages import short
from bnlib.experiments import part_two, reasons, relatives, scale, small
from bnlib.experiments.networks import cnn, device, digits, mlp
from bnlib.experiments.part_two import BASE_RATE, train
from bnlib.experiments.tables import Study, best_of, describe, interval, runs, steps_to

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "BASE_RATE",
    "STUDIES",
    "Study",
    "best_of",
    "cnn",
    "context",
    "describe",
    "device",
    "digits",
    "interval",
    "mlp",
    "points",
    "runs",
    "steps_to",
    "study",
    "train",
]

#: The studies by name.
#:
#: :meta hide-value:
STUDIES: dict[str, Study] = {
    **part_two.STUDIES,
    **reasons.STUDIES,
    **scale.STUDIES,
    **small.STUDIES,
    **relatives.STUDIES,
}


def context() -> dict[str, str]:
    """What the results of a run depend on beside its configuration."""
    names = {name: version(name).split("+")[0] for name in ("numpy", "torch")}
    return {**names, "device": device(), "data": mnist.load().checksum}


def study(name: str, *, full: bool) -> DataFrame:
    """What the runs of a study measured.

    Args:
        name: one of `STUDIES`.
        full: whether to load the record of the full profile, or to make the runs of the quick one.

    Returns:
        A table with a row for each evaluation of each run: the arguments of the study's `run`,
        then its curve, then the `context`.
    """
    if full:
        return sweep.load(name)
    return sweep.run(_study(name).run, points(name, full=False), context=context)


def points(name: str, *, full: bool) -> list[dict[str, Any]]:
    """The runs of a study, each as the arguments of its `run`.

    Args:
        name: one of `STUDIES`.
        full: whether of the full or of the quick profile.

    Raises:
        ValueError: there is no such study.
    """
    return _study(name).points(full=full)


def _study(name: str) -> Study:
    if name not in STUDIES:
        raise ValueError(f"name is {short(repr(name))}; expected one of {', '.join(STUDIES)}")
    return STUDIES[name]
