"""What measure finds of a layer whose habits are known, and what it says when it cannot tell."""

import numpy as np
import pytest
from layers import Layer
from peers import PEERS

from bnlib.conventions import CONVENTIONS, measure

USUAL = {
    "eps": 1e-5,
    "eps_added_to": "variance",
    "gamma": 1,
    "beta": 0,
    "normalizes_with": "biased",
    "average": "moving",
    "weight": 0.1,
    "momentum_weighs": "new",
    "start": (0, 1),
    "running_var": "biased",
    "running_var_images": "biased",
    "axis": 1,
    "plain": "running statistics, and moves nothing",
    "infer_moves": False,
    "batch_of_one": "returns β; the running statistics move",
    "unknown": {},
}
NAMES = {"gamma": "scale", "beta": "shift", "mean": "avg", "var": "variance", "batches": "count"}
NAMES |= {"eps": "epsilon", "momentum": "decay"}


def measured(**habits):
    found = measure(lambda channels: Layer(channels, **habits))
    str(found)  # can be written in any case
    return found


@pytest.mark.parametrize(
    "habits, found",
    [
        ({}, {"names": NAMES}),
        ({"eps": 1e-3}, {"eps": 1e-3}),
        ({"eps": 2e-5, "gamma": -2.0, "beta": 0.25}, {"eps": 2e-5, "gamma": -2, "beta": 0.25}),
        ({"eps": 0.0}, {"eps": 0, "batch_of_one": "returns NaN; the running statistics move"}),
        ({"eps": 1e-6, "on_std": True}, {"eps": 1e-6, "eps_added_to": "std"}),
        (
            {"divides_by": "unbiased", "eps": 1e-6, "on_std": True, "gamma": 3.0, "one": "raises"},
            {"normalizes_with": "unbiased", "eps": 1e-6, "eps_added_to": "std", "gamma": 3,
             "batch_of_one": "ValueError: expected more than one row"},
        ),
        ({"momentum": 0.01, "weighs": "old"}, {"weight": 0.01, "momentum_weighs": "old"}),
        ({"momentum": 0.001, "start": (0.5, 0.0)}, {"weight": 0.001, "start": (0.5, 0)}),
        (
            {"running": "unbiased"},
            {"running_var": "unbiased", "running_var_images": "unbiased",
             "batch_of_one": "returns β; inference is NaN from then on"},
        ),
        ({"images": "unbiased"}, {"running_var_images": "unbiased"}),
        (
            {"average": "replaced", "momentum": 0.01, "divides_by": "running"},
            {"average": "replaced", "weight": 0.01, "normalizes_with": "running"},
        ),
        (
            {"average": "debiased", "start": (0.0, 0.0)},
            {"average": "debiased", "start": (0, 0), "names": {**NAMES, "hidden mean": "hid"}},
        ),
        (
            {"average": "debiased", "momentum": 0.01},  # Equinox: the variance started at 1
            {"average": "debiased", "weight": 0.01, "start": (0, 1)},
        ),
        (
            {"average": "cumulative"},
            {"average": "cumulative", "weight": None, "momentum_weighs": None},
        ),
        ({"momentum": 0.0}, {"average": "none", "weight": 0, "running_var": None,
         "running_var_images": None, "momentum_weighs": None,
         "batch_of_one": "returns β; nothing moves", "unknown": {
             "running_var": "the running statistics do not move",
             "running_var_images": "the running statistics do not move"}}),
        ({"axis": -1, "shape": (1, -1)}, {"axis": -1,
         "names": {**NAMES, "mean": "avg (1, 8)", "var": "variance (1, 8)"}}),
        ({"plain_call": "train"}, {"plain": "batch statistics, and moves the running ones"}),
        ({"plain_call": "raises"}, {"plain": "TypeError: training must be given"}),
        ({"one": "unchanged"}, {"batch_of_one": "returns x unchanged; nothing moves"}),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else None,
)  # fmt: skip
def test_a_habit_is_found_and_nothing_else_is_changed_by_it(habits, found):
    row = measured(**habits).row()
    for name, value in {**USUAL, **found}.items():
        assert row[name] == value, name


def test_large_means():
    good, bad = measured().large_mean, measured(one_pass=True).large_mean
    assert 0 < good["1000"] < good["10000"] < 0.01
    assert bad["1000"] > 0.1 and (bad["10000"] is None or bad["10000"] > 1)


def test_float16():
    assert measured().float16 == "float32 out, state float64"
    wrong = measure(lambda c: Layer(c, one_pass=True, start=(np.float32(0), np.float32(1))))
    assert wrong.float16.startswith("float32, wrong")


@pytest.mark.parametrize(
    "habits, question, why",
    [
        ({"average": "by size"}, "average, weight, start",
         "a batch of 8 has the weight 0.09516 and one of 4 0.04877: it depends on the number"),
        ({"infer_by_batch": True}, "infer_moves", "the output of a row depends on its neighbours"),
        ({"plain_call": "neither"}, "plain", "neither the output of training nor that of infer"),
        ({"infer_moves": True}, "average, weight, start", "needs inference that depends on the"),
        ({"gamma": np.arange(1.0, 9)}, "gamma, beta", "differ between channels: 1 and 0, 2 and 0"),
        ({"activation": True}, "gamma, beta", "the output is no line in the input: an activation"),
        ({"activation": True}, "normalizes_with", "needs ε, γ and β"),
        ({"eps": 1e-5, "noise": 0.1}, "eps, eps_added_to", "give no one ε: inside the root"),
        ({"every_pixel": True}, "axis", "equal along these axes: 0, 1, 2, 3"),
        ({"weights": (0.2, 0.3, 0.4, 0.5)}, "average, weight, start",
         "three batches have the weights 0.2, 0.3, 0.4"),
        ({"weights": (1, 0.5, 0.1, 0.1)}, "average, weight, start",
         "three batches have the weights 1, 0.5, 0.1"),
        ({"running": "doubled"}, "running_var", "by neither the biased nor the unbiased variance"),
        ({"train_raises": True}, "eps, eps_added_to", "RuntimeError: no kernel"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else None,
)  # fmt: skip
def test_what_it_could_not_tell_it_says_and_why(habits, question, why):
    found = measured(**habits)
    assert why in found.unknown[question]
    for name in question.split(", "):
        assert getattr(found, name) is None
    line = next(line for line in found.table().splitlines() if f"tell:** {question} |" in line)
    assert why in line


def test_inference_that_moves_the_statistics():
    assert measured(infer_moves=True).infer_moves is True


def test_a_layer_that_offers_less():
    class Bare:
        def __init__(self, channels):
            layer = Layer(channels)
            self.train, self.infer = layer.train, layer.infer

    found = measure(Bare)
    assert found.weight == 0.1 and found.running_var == "biased"
    assert set(found.unknown) == {"plain", "names, momentum_weighs"}


def test_images_have_a_layer_of_their_own():
    found = measure(Layer, lambda channels: Layer(channels, running="unbiased", axis=-1))
    assert (found.axis, found.running_var, found.running_var_images) == (-1, "biased", "unbiased")


def test_the_table_is_markdown_and_every_line_of_it_has_two_cells():
    text = str(measured(one="raises"))
    assert text.startswith("| question | answer |\n|---|---|\n| eps | 1e-05 |")
    assert {line.count("|") for line in text.splitlines()} == {3}


@pytest.mark.parametrize("framework", ["bnlib", "torch", "onnx"])
def test_the_record_is_what_the_layers_at_hand_do(framework):
    """`make frameworks` says the same of the others."""

    class Peer:
        def __init__(self, channels, ndim=2):
            self.plain = peer = PEERS[framework](channels=channels, ndim=ndim)
            self.train = lambda x: peer(x, training=True)
            self.infer = lambda x: peer(x, training=False)
            self.state = peer.state

    row, found = CONVENTIONS[framework], measure(Peer, lambda channels: Peer(channels, 4)).row()
    assert found.pop("names") == row.names
    assert found.pop("momentum_weighs") == row.momentum_weighs and found.pop("unknown") == {}
    large, stated = found.pop("large_mean"), {**row.facts, "start": tuple(row.facts["start"])}
    assert max(large.values()) < 0.01 and max(stated.pop("large_mean").values()) < 0.01
    assert found == stated
