"""bnlib.experiments.small and bnlib.torch.norms: the runs of the chapter "Where does it break?"."""

import numpy as np
import pytest
import torch

from bnlib import experiments, nn
from bnlib.experiments import small
from bnlib.torch.norms import GhostBatchNorm1d

TINY = {"norm": "batch", "batch_size": 20, "lr": 0.1, "seed": 0, "steps": 20}


@pytest.fixture
def embedded(monkeypatch):
    monkeypatch.setenv("BNLIB_DATA", "embedded")
    experiments.digits.cache_clear()
    yield
    experiments.digits.cache_clear()


def test_a_ghost_layer_agrees_with_the_one_in_numpy():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(2, 3, (2, 12, 5))
    ours, theirs = nn.GhostBatchNorm(5, 4, dtype=float), GhostBatchNorm1d(5, 4).double()
    gamma = rng.normal(size=5)
    ours.gamma.value[:] = gamma
    theirs.weight.data = torch.tensor(gamma)
    t = torch.tensor(x, requires_grad=True)
    y = theirs(t)
    y.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours(x), y.detach(), atol=1e-12)
    np.testing.assert_allclose(ours.backward(dy), t.grad, atol=1e-12)
    np.testing.assert_allclose(ours.gamma.grad, theirs.weight.grad, atol=1e-12)
    parts = x.reshape(3, 4, 5)
    np.testing.assert_allclose(theirs.running_mean, 0.1 * x.mean(0), atol=1e-12)
    unbiased = parts.var(axis=1, ddof=1).mean(axis=0)
    np.testing.assert_allclose(theirs.running_var, 0.9 + 0.1 * unbiased, atol=1e-12)


def test_a_ghost_layer_at_inference_is_batch_norm_and_its_whole_is_too():
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    ghost, whole = GhostBatchNorm1d(3, 8), torch.nn.BatchNorm1d(3)
    torch.testing.assert_close(ghost(x), whole(x))
    torch.testing.assert_close(ghost.running_var, whole.running_var)
    torch.testing.assert_close(ghost.eval()(x[:3]), whole.eval()(x[:3]))


@pytest.mark.parametrize("shape", [(10, 3), (8, 4), (8, 3, 2)])
def test_a_ghost_layer_refuses_what_has_no_whole_parts(shape):
    with pytest.raises(ValueError, match=r"expected \(N, 3\) with N a multiple of 4"):
        GhostBatchNorm1d(3, 4)(torch.zeros(shape))


def test_a_part_of_one_has_no_variance():
    with pytest.raises(ValueError, match="size is 1; expected 2 or more"):
        GhostBatchNorm1d(3, 1)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_a_run_has_two_rows_and_repeats(embedded, norm):
    curve = small.train(**{**TINY, "norm": norm})
    assert list(curve) == ["step", "loss", "train", "validation", "test", "seen", "again"]
    np.testing.assert_array_equal(curve["step"], [0, 20])
    for name, column in small.train(**{**TINY, "norm": norm}).items():
        np.testing.assert_array_equal(column, curve[name])
    assert (curve["again"][1] == curve["test"][1]) == (norm != "batch")


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"lr": 0.2},
        {"batch_size": 40},
        {"part": 4},
        {"examples": 100},
        {"classes": 2},
        {"clients": True, "classes": 1},
    ],
)
def test_every_argument_has_an_effect(embedded, change):
    assert small.train(**{**TINY, **change})["loss"][1] != small.train(**TINY)["loss"][1]


def test_the_first_weights_are_those_of_the_book():
    layers = small._network("batch", 4, seed=3)
    ours = experiments.mlp("ReLU", 3, batch_norm=True, seed=3)
    np.testing.assert_array_equal(layers[0].weight.detach(), ours[0].weight.value)
    np.testing.assert_array_equal(layers[-1].weight.detach(), ours[-1].weight.value)
    assert [type(layer).__name__ for layer in layers[:3]] == ["Linear", "GhostBatchNorm1d", "ReLU"]


def test_mini_batches_hold_the_classes_that_they_should():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    rng = np.random.default_rng(1)
    for classes in 1, 2, 5:
        batches = small._batches(labels, 20, classes, False, rng)
        turn = [labels[next(batches)] for _ in range(10 // classes)]
        assert all(len(np.unique(batch)) == classes and len(batch) == 20 for batch in turn)
        assert set(np.concatenate(turn)) == set(range(10))
    batches = small._batches(labels, 20, 1, True, rng)
    own = [set(labels[next(batches)]) for _ in range(4)]
    assert own == [{0}, {0}, {1}, {1}]


def test_pooled_statistics_are_those_of_all_clients_together():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(3, 50, 2)) + np.arange(3)[:, None, None])
    states = [
        {"running_mean": part.mean(0), "running_var": part.var(0, correction=0)} for part in x
    ]
    average, whole = small._average(states), x.reshape(-1, 2)
    torch.testing.assert_close(average["running_mean"], whole.mean(0))
    torch.testing.assert_close(average["running_var"], whole.var(0, correction=0))


def test_a_run_that_diverges_ends(embedded):
    curve = small.train(**{**TINY, "norm": "none", "lr": 1e6})
    assert curve["step"][1] < 20 and not np.isfinite(curve["loss"][1])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"norm": "group"}, "norm is 'group'; expected one of none, batch, layer"),
        ({"classes": 3}, "classes is 3; expected 1, 2, 5 or 10"),
    ],
)
def test_bad_input(embedded, change, message):
    with pytest.raises(ValueError, match=message):
        small.train(**{**TINY, **change})
