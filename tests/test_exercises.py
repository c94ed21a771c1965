"""bnlib.exercises: right answers pass, typical wrong ones are told what is wrong."""

import re
import textwrap

import numpy as np
import pytest

from bnlib import exercises
from bnlib.exercises import check, find_problem


def x_hat_of(x, eps):
    return (x - x.mean(0)) / np.sqrt(x.var(0) + eps)


WRONG = {
    "normalize: divides by m - 1": (
        "normalize",
        lambda x, eps: (x - x.mean(0)) / np.sqrt(x.var(0, ddof=1) + eps),
        "x_hat is off by up to",
    ),
    "normalize: eps outside the root": (
        "normalize",
        lambda x, eps: (x - x.mean(0)) / (x.std(0) + eps),
        "x_hat is off by up to",
    ),
    "normalize: one mean for all features": (
        "normalize",
        lambda x, eps: (x - x.mean()) / np.sqrt(x.var() + eps),
        "x_hat is off by up to",
    ),
    "undo: eps forgotten": (
        "undo",
        lambda x, eps: (x.std(0), x.mean(0)),
        "gamma is off by up to",
    ),
    "undo: one value": ("undo", lambda x, eps: x.mean(0), "returned a ndarray; expected 2 values"),
    "variance-gradient: not summed": (
        "variance-gradient",
        lambda x, dx_hat, eps: dx_hat * (x - x.mean(0)) * -0.5 * (x.var(0) + eps) ** -1.5,
        r"dvar has shape \((\d+), (\d)\); expected \(\2,\)",
    ),
    "variance-gradient: wrong power": (
        "variance-gradient",
        lambda x, dx_hat, eps: (dx_hat * (x - x.mean(0))).sum(0) * -0.5 * (x.var(0) + eps) ** -0.5,
        "dvar is off by up to",
    ),
    "input-gradient: mean and variance held constant": (
        "input-gradient",
        lambda x, gamma, dy, eps: gamma * dy / np.sqrt(x.var(0) + eps),
        "dx is off by up to",
    ),
    "input-gradient: the path through the variance forgotten": (
        "input-gradient",
        lambda x, gamma, dy, eps: gamma * (dy - dy.mean(0)) / np.sqrt(x.var(0) + eps),
        "dx is off by up to",
    ),
    "layer-norm-gradient: over the batch": (
        "layer-norm-gradient",
        lambda x, dy, eps: dy - dy.mean(0),
        "dx is off by up to",
    ),
    "layer-norm-gradient: transposed": (
        "layer-norm-gradient",
        lambda x, dy, eps: dy.T,
        r"dx has shape \((\d), (\d+)\); expected \(\2, \1\)",
    ),
    "steps-to: the index, not the step": (
        "steps-to",
        lambda steps, accuracy, target: int(np.argmax(accuracy >= target)),
        "steps is off by up to",
    ),
    "steps-to: strictly above": (
        "steps-to",
        lambda steps, accuracy, target: int(steps[np.argmax(accuracy > target)]),
        "steps is off by up to",
    ),
    "steps-to: after the last time below": (
        "steps-to",
        lambda steps, accuracy, target: int(steps[np.flatnonzero(accuracy < target)[-1] + 1]),
        "steps is off by up to",
    ),
    "normalize: a fixed eps": (
        "normalize",
        lambda x, eps: (x - x.mean(0)) / np.sqrt(x.var(0) + 0.1),
        "x_hat is off by up to",
    ),
    "normalize: a fixed m": (
        "normalize",
        lambda x, eps: (x - x.sum(0) / 8) / np.sqrt(((x - x.sum(0) / 8) ** 2).sum(0) / 8 + eps),
        "x_hat is off by up to",
    ),
    "undo: three values": (
        "undo",
        lambda x, eps: (x.std(0), x.mean(0), eps),
        "returned a tuple; expected 2 values",
    ),
    "drift: start to end": (
        "drift",
        lambda q: abs(q[-1, 1] - q[0, 1]) / (q[-1, 2] - q[-1, 0]),
        "drift is off by up to",
    ),
    "drift: not divided": (
        "drift",
        lambda q: np.abs(np.diff(q[:, 1], axis=0)).sum(0),
        "drift is off by up to",
    ),
}


@pytest.mark.parametrize("name, answer, message", WRONG.values(), ids=WRONG)
def test_wrong_answers_are_rejected_with_the_right_message(name, answer, message):
    assert re.search(message, find_problem(name, answer))


def test_a_list_of_values_will_do():
    assert find_problem("undo", lambda x, eps: [np.sqrt(x.var(0) + eps), x.mean(0)]) is None


def test_every_exercise_has_two_wrong_answers():
    tried = [name for name, _, _ in WRONG.values()]
    assert all(tried.count(name) >= 2 for name in exercises.names())


@pytest.mark.parametrize("name", exercises.names())
def test_the_reference_passes(name, capsys):
    check(name, exercises._EXERCISES[name].reference)
    assert capsys.readouterr().out == f"✓ {name}: right, on 3 random inputs.\n"


def raises(x, eps):
    raise KeyError("oops")


def unwritten(x, eps):
    raise NotImplementedError


def spoils(x, eps):
    x -= x.mean(0)
    return x / np.sqrt(x.var(0) + eps)


@pytest.mark.parametrize(
    "answer, message",
    [
        (unwritten, "still to be written"),
        (raises, "your function raised KeyError: 'oops'"),
        (lambda x: x, "your function raised TypeError"),
        (lambda x, eps: None, "returned nothing; expected x_hat. Is there a return?"),
        (lambda x, eps: "what?", "x_hat is a str; expected shape ("),
        (lambda x, eps: x[:4], "x_hat has shape (4, "),
        (lambda x, eps: x_hat_of(x, eps) > 0, "x_hat has dtype bool; expected float64"),
        (lambda x, eps: x * np.nan, " NaN or infinite values"),
        (spoils, "your function changed its argument x"),
    ],
)
def test_nonsense_is_told_what_it_is(answer, message):
    assert message in find_problem("normalize", answer)


def test_a_wrong_answer_is_sent_to_the_equation(capsys):
    check("normalize", unwritten)
    assert "See algorithm 1" in capsys.readouterr().out


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="name is 'nope'; expected one of drift, input-gradient"):
        check("nope", unwritten)


def test_the_example_of_an_exercise_of_ones_own(capsys):
    example = textwrap.dedent(exercises.__doc__.split("::\n")[1])
    try:
        exec(example, {})
        check("center", lambda x: x - x.mean(0))
    finally:
        exercises._EXERCISES.pop("center", None)
    wrong, _, right = capsys.readouterr().out.splitlines()
    assert wrong.startswith("✗ center: centered is off by") and right.startswith("✓ center")
