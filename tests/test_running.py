"""bnlib.running: the statistics for inference."""

import numpy as np
import pytest
import torch

from bnlib import RunningStats, batch_norm_train


def batches(count=5, channels=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.normal(2, 3, (4 + i, channels)).astype(dtype) for i in range(count)]


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.75, 1.0, None])
def test_agrees_with_torch(momentum):
    stats, layer = RunningStats(3, momentum), torch.nn.BatchNorm1d(3, momentum=momentum).double()
    for x in batches():
        cache = batch_norm_train(x)[1]
        stats.update(cache.mean, cache.var, cache.count)
        layer(torch.tensor(x))
    assert stats.batches == layer.num_batches_tracked == 5
    np.testing.assert_allclose(stats.mean, layer.running_mean, atol=1e-12)
    np.testing.assert_allclose(stats.var, layer.running_var, atol=1e-12)


def test_forward_is_biased_and_running_is_unbiased():
    (x,) = batches(1)
    cache = batch_norm_train(x)[1]
    stats = RunningStats(3, momentum=1.0)
    stats.update(cache.mean, cache.var, cache.count)
    np.testing.assert_allclose(cache.var, x.var(0, ddof=0))
    np.testing.assert_allclose(stats.var, x.var(0, ddof=1))


def test_the_cumulative_average_weighs_batches_equally():
    stats = RunningStats(3, momentum=None)
    for x in batches():
        stats.update(x.mean(0), x.var(0), len(x))
    np.testing.assert_allclose(stats.mean, np.mean([x.mean(0) for x in batches()], axis=0))
    np.testing.assert_allclose(stats.var, np.mean([x.var(0, ddof=1) for x in batches()], axis=0))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_channel_is_skipped_with_a_warning_that_names_it(momentum, value):
    stats, clean = RunningStats(3, momentum), RunningStats(3, momentum)
    for i, x in enumerate(batches()):
        bad = x.copy()
        if i == 2:
            bad[0, 1] = value
            cache = batch_norm_train(bad)[1]
            with pytest.warns(RuntimeWarning, match="channel 1: the batch has a NaN"):
                stats.update(cache.mean, cache.var, cache.count)
        else:
            stats.update(x.mean(0), x.var(0), len(x))
        if i != 2:
            clean.update(x.mean(0), x.var(0), len(x))
    assert np.isfinite(stats.mean).all() and np.isfinite(stats.var).all()
    # Channel 1 is as if batch 2 had not been there; the others have seen it.
    np.testing.assert_allclose([stats.mean[1], stats.var[1]], [clean.mean[1], clean.var[1]])
    assert not np.isclose(stats.mean[0], clean.mean[0])


def test_an_empty_batch_changes_nothing():
    stats = RunningStats(2)
    stats.update(np.full(2, 7.0), np.full(2, 7.0), 0)
    assert stats.batches == 0 and (stats.mean == 0).all() and (stats.var == 1).all()


@pytest.mark.parametrize("which", ["mean", "var"])
def test_either_of_the_two_can_be_bad(which):
    stats = RunningStats(2)
    given = {"mean": np.ones(2), "var": np.ones(2)}
    given[which][0] = np.inf
    with pytest.warns(RuntimeWarning, match="channel 0: "):
        stats.update(given["mean"], given["var"], 4)
    assert stats.mean[0] == 0 and stats.var[0] == 1 and stats.mean[1] == 0.1


@pytest.mark.filterwarnings("error")
def test_a_warning_made_an_error_loses_nothing():
    stats = RunningStats(2)
    with pytest.raises(RuntimeWarning, match="channel 1"):
        stats.update(np.array([1, np.nan]), np.ones(2), 4)
    assert stats.batches == 1 and stats.mean[0] == 0.1


@pytest.mark.parametrize("momentum", [1.5, -0.5, float("nan")])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match=r"momentum is .*; expected a number in \[0, 1\], or None"):
        RunningStats(3, momentum)


def test_bad_channels():
    with pytest.raises(ValueError, match="channels is 0; expected 1 or more"):
        RunningStats(0)


def test_lists_and_integers_are_refused():
    for bad in [1.0, 2.0, 3.0], np.ones(3, int):
        with pytest.raises(TypeError, match="mean is .*; expected an array of floating-point"):
            RunningStats(3).update(bad, np.ones(3), 4)


@pytest.mark.parametrize(
    "message, mean, var, count",
    [
        (r"mean has shape \(2,\); expected \(3,\)", np.ones(2), np.ones(3), 4),
        (r"var has shape \(2,\); expected \(3,\)", np.ones(3), np.ones(2), 4),
        (r"var\[1\] is -1.0; expected 0 or more", np.ones(3), np.array([1.0, -1, 1]), 4),
        (r"var\[1\] is -4.0; expected 0 or more", np.ones(3), np.array([np.nan, -4, 1]), 4),
        ("count is nan; expected 0 or at least 2", np.ones(3), np.ones(3), float("nan")),
        ("count is 1; expected 0 or at least 2", np.ones(3), np.ones(3), 1),
        ("count is -2; expected 0 or at least 2", np.ones(3), np.ones(3), -2),
    ],
)
def test_bad_update_leaves_the_statistics_as_they_were(message, mean, var, count):
    stats = RunningStats(3)
    with pytest.raises(ValueError, match=message):
        stats.update(mean, var, count)
    assert stats.batches == 0 and (stats.mean == 0).all() and (stats.var == 1).all()
