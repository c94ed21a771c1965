"""Error messages: long values lose their middle, and what was expected is still to be read."""

import numpy as np
import pytest

from bnlib import batch_norm_train, conventions, experiments, nn, sweep
from bnlib._messages import short
from bnlib.exercises import check, judge

LONG = "value " * 100_000
STATE = {"mean": np.zeros(3), "var": np.ones(3), "eps": 1e-5, "momentum": 0.1}
BARE = {"affine": False, "track_running_stats": False}


def raises(x):
    raise ValueError(LONG)


def test_short():
    assert short([1, "a"]) == "[1, 'a']"
    assert short("as it is") == "as it is"
    text = "a" * 247 + "b" * 100_000 + "c" * 50
    assert short(text) == "a" * 247 + " … " + "c" * 50


CALLS = {
    "threads": lambda: batch_norm_train(np.ones((2, 3)), threads=LONG),
    "no array": lambda: conventions.convert({**STATE, "gamma": [LONG]}, "bnlib", "torch"),
    "no number": lambda: conventions.convert({**STATE, "eps": [LONG]}, "bnlib", "torch"),
    "names": lambda: conventions.convert({**STATE, LONG: 1}, "bnlib", "torch"),
    "framework": lambda: conventions.convert(STATE, LONG, "torch"),
    "statistics": lambda: nn.BatchNorm(3, **BARE).load({"mean": [0.0] * 100_000}),
    "gamma": lambda: nn.BatchNorm(900, affine=False).load(
        {**STATE, "mean": np.zeros(900), "var": np.ones(900), "gamma": np.full(900, 0.123456789)}
    ),
    "point": lambda: sweep.run(raises, [{"x": [0] * 100_000}]),
    "name of a point": lambda: sweep.run(raises, [{(LONG,): 0}]),
    "points": lambda: sweep.run(raises, [{"x": LONG}, {"x": LONG}]),
    "experiment": lambda: sweep.run(raises, [{"x": LONG}], n_jobs=1),
    "record": lambda: sweep.load(LONG),
    "study": lambda: experiments.study(LONG, full=True),
    "exercise": lambda: check(LONG, raises),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_message_is_longer_than_a_screen(call):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        call()
    assert len(str(caught.value)) < 1500
    assert "…" in str(caught.value)


def test_what_a_readers_function_raises_is_shortened_too():
    problem = judge.find_problem("channel-statistics", lambda x: raises(x))
    assert "your function raised ValueError: value value" in problem
    assert len(problem) < 1500
