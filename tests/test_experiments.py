"""bnlib.experiments: what a run does, what a study is made of, and that the records are theirs."""

import json
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import torch

import bnlib
from bnlib import experiments, mnist, nn, sweep
from bnlib.experiments.scale import watch

TINY = {"depth": 2, "batch_norm": True, "lr": 0.1, "seed": 0, "steps": 30, "every": 15}


@pytest.fixture
def embedded(monkeypatch):
    monkeypatch.setenv("BNLIB_DATA", "embedded")
    experiments.digits.cache_clear()
    yield
    experiments.digits.cache_clear()


def kinds(net):
    return [type(layer).__name__ for layer in net]


def test_the_mlp_is_what_its_docstring_says():
    net = experiments.mlp("sigmoid", 2, batch_norm=True, seed=0, gain=4.0, dropout=0.2)
    hidden = ["Linear", "BatchNorm", "Sigmoid", "Dropout"]
    assert kinds(net) == [*hidden, *hidden, "Linear"]
    assert net[0].bias is None and net[-1].bias is not None
    assert net[0].weight.value.std() == pytest.approx(4 * np.sqrt(2 / 884), rel=0.02)
    assert net[4].weight.value.std() == pytest.approx(4 * np.sqrt(2 / 200), rel=0.02)
    plain = experiments.mlp("ReLU", 2, batch_norm=False, seed=0)
    assert kinds(plain) == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert plain[0].bias is not None
    assert plain[2].weight.value.std() == pytest.approx(np.sqrt(2 / 100), rel=0.02)


def test_the_cnn_is_what_its_docstring_says():
    net = experiments.cnn("ReLU", 6, batch_norm=True, seed=0, dropout=0.4)
    assert kinds(net)[-3:] == ["Flatten", "Dropout", "Linear"]
    assert kinds(net)[:-3] == ["Conv2d", "BatchNorm2d", "ReLU"] * 6
    assert all("forward" in vars(layer) for layer in net[1:18:3])
    x = torch.zeros(5, 1, 28, 28)
    shapes = []
    for layer in net:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(8, 14, 14)] * 2 + [(16, 7, 7)] * 4
    assert x.shape == (5, 10)
    plain = experiments.cnn("sigmoid", 2, batch_norm=False, seed=0)
    assert kinds(plain) == ["Conv2d", "Sigmoid"] * 2 + ["Flatten", "Linear"]
    assert net[0].bias is None and plain[0].bias is not None


def test_arms_of_a_comparison_start_from_the_same_weights():
    a, b = (experiments.cnn("ReLU", 3, batch_norm=bn, seed=1) for bn in (False, True))
    torch.testing.assert_close(a[0].weight, b[0].weight)
    torch.testing.assert_close(a[-1].weight, b[-1].weight)
    other = experiments.cnn("ReLU", 3, batch_norm=True, seed=2)
    assert not torch.equal(b[0].weight, other[0].weight)
    a, b, c = (
        experiments.mlp("ReLU", 3, batch_norm=bn, seed=1, dropout=rate)
        for bn, rate in ((False, 0.0), (True, 0.0), (True, 0.5))
    )
    for net in b, c:
        np.testing.assert_array_equal(a[0].weight.value, net[0].weight.value)
        np.testing.assert_array_equal(a[-1].weight.value, net[-1].weight.value)


@pytest.mark.parametrize("net", ["sigmoid MLP", "ReLU MLP", "CNN", "sigmoid CNN"])
def test_a_run_is_a_curve_and_repeats(embedded, net):
    curve = experiments.train(net=net, **TINY)
    assert list(curve) == ["step", "loss", "train", "validation", "test"]
    np.testing.assert_array_equal(curve["step"], [0, 15, 30])
    again = experiments.train(net=net, **TINY)
    rtol = 0 if experiments.device() == "cpu" else 0.05  # a GPU adds in any order
    for name, column in curve.items():
        np.testing.assert_allclose(column, again[name], rtol=rtol)
    assert curve["loss"][-1] < curve["loss"][1]


@pytest.mark.parametrize(
    "net, change",
    [
        ("ReLU MLP", {"seed": 1}),
        ("ReLU MLP", {"gain": 2.0}),
        ("ReLU MLP", {"decades": 2.0}),
        ("ReLU MLP", {"momentum": 0.9}),
        ("ReLU MLP", {"dropout": 0.3}),
        ("ReLU MLP", {"batch_size": 30}),
        ("ReLU MLP", {"examples": 600}),
        ("CNN", {"gain": 2.0}),
        ("CNN", {"decades": 2.0}),
        ("CNN", {"momentum": 0.9}),
        ("CNN", {"dropout": 0.3}),
        ("CNN", {"weight_decay": 0.01}),
        ("CNN", {"batch_norm": False}),
    ],
)
def test_every_argument_has_an_effect(embedded, net, change):
    changed = experiments.train(net=net, **{**TINY, **change})
    assert changed["loss"][-1] != experiments.train(net=net, **TINY)["loss"][-1]


def test_reshuffling_matters_from_the_second_epoch(embedded):
    how = {**TINY, "net": "ReLU MLP", "examples": 600, "every": 10}  # ten steps an epoch
    a, b = (experiments.train(**how, reshuffle=reshuffle)["loss"] for reshuffle in (True, False))
    assert a[1] == b[1] and a[2] != b[2]


def test_the_rate_falls_by_the_decades(monkeypatch, embedded):
    seen = []
    real = bnlib.optim.exponential_decay
    monkeypatch.setattr(
        bnlib.optim, "exponential_decay", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1]
    )
    experiments.train(net="ReLU MLP", **TINY, decades=2.0)
    assert seen[0](0) == 0.1 and seen[0](30) == pytest.approx(0.001)


def test_validation_and_test_images_are_all_and_apart(embedded):
    data, digits = experiments.digits(0, 0), mnist.load()
    whole = mnist.standardize(digits.test_images)
    np.testing.assert_array_equal(data["validation"][0], whole[::2])
    np.testing.assert_array_equal(data["test"][0], whole[1::2])
    np.testing.assert_array_equal(data["test"][1], digits.test_labels[1::2])


def test_a_part_of_the_examples_is_drawn_by_the_seed(embedded):
    first, again, other = (experiments.digits(100, seed)["all"] for seed in (0, 0, 1))
    assert first[0].shape == (100, 784)
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[1] != other[1]).any()


def test_a_run_that_diverges_is_silent_and_ends(embedded, recwarn):
    how = {**TINY, "batch_norm": False, "lr": 1e4}
    for net in "ReLU MLP", "CNN":
        curve = experiments.train(net=net, **how)
        assert curve["step"][-1] < 30 and not np.isfinite(curve["loss"][-1])
    assert not list(recwarn)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"net": "RNN"}, "net is 'RNN'; expected one of sigmoid MLP, ReLU MLP, CNN, sigmoid CNN"),
        ({"net": "CNN", "depth": 1}, "depth is 1; expected 2 or more"),
        ({"net": "ReLU MLP", "weight_decay": 0.1}, "weight_decay is 0.1; expected 0 for an MLP"),
    ],
)
def test_bad_input(embedded, change, message):
    with pytest.raises(ValueError, match=message):
        experiments.train(**{**TINY, **change})


# Following lengths and turns

WATCHED = {
    "net": "MLP",
    "rule": "SGD",
    "lr": 1.0,
    "weight_decay": 0.004,
    "momentum": 0.0,
    "gain": 0.5,
    "labels": "true",
    "rest_lr": 0.1,
    "affine_decay": 0.0,
    "fall_at": 0,
    "seed": 0,
    "steps": 12,
    "every": 4,
}


@pytest.mark.parametrize("net", ["MLP", "CNN"])
def test_a_watched_run_is_a_curve_and_repeats(embedded, net):
    curve = watch(**WATCHED | {"net": net})
    assert list(curve)[:5] == ["step", "loss", "train", "validation", "test"]
    assert len(curve) == 5 + 3 * 6 and {len(column) for column in curve.values()} == {4}
    again = watch(**WATCHED | {"net": net})
    rtol = 0 if experiments.device() == "cpu" else 0.05
    for name, column in curve.items():
        np.testing.assert_allclose(column, again[name], rtol=rtol, err_msg=name)


@pytest.mark.parametrize("net", ["MLP", "CNN"])
def test_lengths_and_turns_are_those_of_perpendicular_steps(embedded, net):
    """From one step to the next: Pythagoras, and the angle of the right triangle."""
    curve = watch(**WATCHED | {"net": net, "every": 1, "lr": 0.2})
    for layer in 1, 2, 3:
        length, gradient, turn, far = (
            curve[f"{name}_{layer}"] for name in ("length", "gradient", "turn", "far")
        )
        kept, across = 0.9992 * length[:-1], 0.2 * gradient[1:] / length[:-1]
        np.testing.assert_allclose(length[1:], np.hypot(kept, across), rtol=2e-3)
        np.testing.assert_allclose(turn[1:], np.arctan2(across, kept), rtol=2e-2)
        np.testing.assert_allclose(far, turn)


def test_without_a_rate_nothing_turns(embedded):
    curve = watch(**WATCHED | {"lr": 0.0, "rest_lr": 0.0})
    assert curve["length_1"][-1] == curve["length_1"][0]
    assert curve["turn_2"][-1] == curve["far_2"][-1] == 0
    assert curve["affine_3"][0] == curve["affine_3"][-1] == 10  # 100 times γ = 1


@pytest.mark.parametrize(
    "change",
    [
        {"rule": "Adam", "lr": 0.003},
        {"rule": "AdamW", "lr": 0.003},
        {"weight_decay": 0.1},
        {"momentum": 0.5},
        {"gain": 1.0},
        {"labels": "drawn"},
        {"rest_lr": 0.0},
        {"affine_decay": 1.0},
        {"fall_at": 5},
        {"seed": 1},
    ],
)
def test_every_argument_of_a_watched_run_has_an_effect(embedded, change):
    assert watch(**WATCHED | change)["loss"][-1] != watch(**WATCHED)["loss"][-1]


def test_adam_and_adamw_differ_by_their_decay(embedded):
    how = WATCHED | {"lr": 0.003, "momentum": 0.9}
    a, b = (watch(**how | {"rule": rule, "weight_decay": 1.0}) for rule in ("Adam", "AdamW"))
    assert a["length_2"][-1] != b["length_2"][-1]
    a, b = (watch(**how | {"rule": rule, "weight_decay": 0.0}) for rule in ("Adam", "AdamW"))
    assert a["length_2"][-1] == b["length_2"][-1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"net": "RNN"}, "net is 'RNN'; expected one of MLP, CNN"),
        ({"rule": "Lion"}, "rule is 'Lion'; expected one of SGD, AdamW, Adam"),
        ({"labels": "none"}, "labels is 'none'; expected one of true, drawn"),
    ],
)
def test_bad_input_of_a_watched_run(change, message):
    with pytest.raises(ValueError, match=message):
        watch(**WATCHED | change)


def test_an_unknown_study():
    with pytest.raises(ValueError, match="name is 'x'; expected one of learning-rate"):
        experiments.points("x", full=True)


# Reading tables


def table(curves, **columns):
    """Three columns of a study: one run for each curve of test accuracies."""
    parts = [
        pd.DataFrame(
            {
                "seed": seed,
                **{name: values[seed] for name, values in columns.items()},
                "step": 10 * np.arange(len(curve)),
                "loss": 1.0,
                "train": curve,
                "validation": curve,
                "test": curve,
                "numpy": "2",
                "torch": "2",
                "device": "cpu",
                "data": "abc",
            }
        )
        for seed, curve in enumerate(curves)
    ]
    return pd.concat(parts, ignore_index=True)


def test_runs_and_their_outcome():
    a = table([[0.1, 0.5, 0.9], [0.1, 0.2], [0.1, 0.3, 0.4, 0.6]])
    a.loc[4, "loss"] = np.nan
    a.loc[8, "loss"] = 2.31
    each = experiments.runs(a)
    assert list(each["outcome"]) == ["learned", "diverged", "stuck"]
    assert list(each["last_step"]) == [20, 10, 30]
    assert list(each["test"]) == [0.9, 0.2, 0.6]
    assert "3 runs with 3 seeds, 60 steps; data abc, NumPy 2" in experiments.describe(a)


@pytest.mark.parametrize("spoil", [lambda a: a[a["step"] > 0], lambda a: a.sort_values("step")])
def test_runs_must_be_whole(spoil):
    with pytest.raises(ValueError, match="not whole runs"):
        experiments.runs(spoil(table([[0.1, 0.5, 0.9], [0.1, 0.2, 0.5]])))


def test_steps_to_an_accuracy():
    a = table([[0.1, 0.5, 0.9], [0.1, 0.2], [0.6, 0.3, 0.5, 0.4]])
    found = experiments.steps_to(a, 0.5)["steps_to"]
    np.testing.assert_array_equal(found, [10, np.nan, 0])
    a["validation"] = a["test"] + 0.1
    found = experiments.steps_to(a, 0.55, on="validation")["steps_to"]
    np.testing.assert_array_equal(found, [10, np.nan, 0])


def test_best_of_takes_the_best_median_of_each_arm():
    each = pd.DataFrame(
        sweep.grid(arm=[0, 1], lr=[0.1, 1.0], seed=[0, 1, 2]),
    ).assign(validation=[0.5, 0.9, 0.5, 0.6, 0.6, 0.6, 0.8, 0.8, 0.1, 0.7, 0.7, 0.9])
    best = experiments.best_of(each, ["arm"], ["lr"])
    assert list(best["lr"]) == [1.0] * 3 + [0.1] * 3
    assert list(best["seed"]) == [0, 1, 2] * 2
    tie = each.assign(validation=0.5)
    assert set(experiments.best_of(tie, ["arm"], ["lr"])["lr"]) == {0.1}


def test_interval():
    assert experiments.interval([3, 1, 2, 5, 4]) == (3, 1, 5)


# The studies and their records


@pytest.mark.parametrize("name", experiments.STUDIES)
@pytest.mark.parametrize("full", [False, True])
def test_points_are_different_and_both_arms_have_the_same(name, full):
    points = experiments.points(name, full=full)
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    assert {point["seed"] for point in points} == set(
        range(5 if full else 3 if name == "accelerated" else 1)
    )
    if name in ("accelerated", "scale", "small-ghost"):  # which have rows, no search for all arms
        return
    arm = next(column for column in ("arm", "norm", "batch_norm") if column in points[0])
    searches = {}
    for point in points:
        network = point.get("depth", point.get("kind"))
        searches.setdefault(point[arm], {}).setdefault(network, []).append({**point, arm: None})
    if arm == "arm":  # what trains a part of the network has rates of its own
        alone = [searches.pop(part, None) for part in ("γ and β", "last layer", "any weights")]
        assert alone[0] == alone[1] == alone[2]
    searched = [each for arm in searches.values() for each in arm.items()]
    for network in {network for network, _ in searched}:
        one, *others = [search for at, search in searched if at == network]
        assert others and all(other == one for other in others)


def test_the_sweep_of_rates_is_what_the_book_promises():
    points = experiments.points("learning-rate", full=True)
    for net, depths in ("sigmoid MLP", {3, 6, 12}), ("ReLU MLP", {3, 6, 12}), ("CNN", {3, 6}):
        mine = [point for point in points if point["net"] == net]
        assert {point["depth"] for point in mine} == depths
        assert len({point["lr"] for point in mine}) >= 8


@pytest.mark.parametrize("name", experiments.STUDIES)
def test_a_record_is_of_exactly_these_points(name):
    record, points = sweep.load(name), experiments.points(name, full=True)
    each = experiments.runs(record)
    assert len(each) == len(points)
    for column in points[0]:
        assert list(each[column]) == [point[column] for point in points], column
    assert record["data"].nunique() == record["numpy"].nunique() == 1
    if mnist.load().full:
        assert record["data"][0] == mnist.load().checksum


def test_the_records_are_small():
    total = sum(path.stat().st_size for path in (files("bnlib") / "records").iterdir())
    assert total <= 5e6


@pytest.mark.parametrize("name", experiments.STUDIES)
def test_recorded_runs_come_out_again(name):
    """The first quarter of one: at first to the rounding of other machines, at last near it."""
    if not mnist.load().full:
        pytest.skip("the records are of full MNIST, and only the embedded digits are at hand")
    record, points = sweep.load(name), experiments.points(name, full=True)
    learned = np.flatnonzero(experiments.runs(record)["outcome"] == "learned")
    starts = np.flatnonzero(record["step"] == 0)
    cheap = [i for i in learned if points[i]["steps"] <= 4000 and points[i].get("depth", 3) <= 6]
    for i in np.random.default_rng(7).choice(cheap, 1):
        if "every" not in (point := points[i]):  # evaluated at its end alone
            again = experiments.STUDIES[name].run(**point)
            recorded = record[starts[i] : starts[i] + 2]
            np.testing.assert_array_equal(again["step"], recorded["step"])
            assert abs(again["test"][-1] - recorded["test"].iloc[-1]) < 0.03
            return
        count = max(2, point["steps"] // point["every"] // 4 + 1)
        share = (count - 1) * point["every"] / point["steps"]
        decades = share * point.get("decades", 0.0)  # the rate falls as in the whole run
        fall = {"decades": decades} if "decades" in point else {}
        again = experiments.STUDIES[name].run(
            **point | {"steps": (count - 1) * point["every"]} | fall
        )
        recorded = record[starts[i] : starts[i] + count]
        np.testing.assert_array_equal(again["step"], recorded["step"])
        np.testing.assert_allclose(again["loss"][1:3], recorded["loss"][1:3], rtol=0.02)
        assert abs(again["test"][-1] - recorded["test"].iloc[-1]) < 0.015


def test_the_quick_profile_runs_at_once(embedded, monkeypatch):
    few = experiments.points("learning-rate", full=False)[:2]
    monkeypatch.setitem(
        experiments.STUDIES, "learning-rate", experiments.Study(experiments.train, few)
    )
    quick = experiments.study("learning-rate", full=False)
    assert set(experiments.runs(quick)["seed"]) == {0}
    assert set(few[0]) | {"step", "loss", "train", "validation", "test"} < set(quick.columns)
    assert quick["data"][0] == mnist.load().checksum


def test_layers_of_an_mlp_are_those_of_the_book():
    assert {type(layer) for layer in experiments.mlp("ReLU", 1, batch_norm=True, seed=0)} == {
        nn.Linear,
        nn.BatchNorm,
        nn.ReLU,
    }
