"""Exercises that answer: `check(name, function)` runs a reader's function and says what is wrong.

A function is judged by what it does, on several random inputs: shapes, dtypes, the properties that
the exercise names, values, and that it leaves its inputs alone. An exercise of one's own takes a
few lines above its right answer, which edits of its source turn into typical mistakes::

    from bnlib.exercises import check, exercise

    @exercise(
        see="the definition of the mean",
        inputs=lambda rng: {"x": rng.normal(2, 3, (5, 4))},
        outputs=["centered"],
        mistakes={"all features share one mean": ("axis=0", "")},
    )
    def center(x):
        return x - x.mean(axis=0)

    check("center", lambda x: x - x.mean())
"""

from bnlib.exercises import (  # noqa: F401  (they register their exercises)
    idea,
    mnist,
    practice,
    reasons,
    relatives,
    scale,
    small,
    speed,
)
from bnlib.exercises.judge import Exercise, check, exercise, find_problem, names, register, verify

__all__ = ["Exercise", "check", "exercise", "find_problem", "names", "register", "verify"]
