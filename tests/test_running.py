"""bnlib.running: the statistics for inference."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnlib import RunningStats, batch_norm_train, nn
from bnlib.running import merge, precise


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


def test_replace_puts_copies_in_place_and_the_average_goes_on_from_there():
    stats = RunningStats(2, momentum=None)
    kept, mean, var = stats.mean, np.full(2, 3.0), np.full(2, 5.0)
    stats.replace(mean, var, 3)
    assert kept is stats.mean and stats.batches == 3
    stats.update(np.full(2, 7.0), np.full(2, 1.0), 2)
    np.testing.assert_allclose(stats.mean, (3 * 3 + 7) / 4)
    np.testing.assert_allclose(stats.var, (3 * 5 + 2) / 4)
    assert (mean == 3).all() and (var == 5).all() and stats.batches == 4


@pytest.mark.parametrize("which", ["mean", "var"])
def test_replace_refuses_another_shape_and_writes_nothing(which):
    stats = RunningStats(2)
    given = {"mean": np.full(2, 3.0), "var": np.full(2, 3.0), "batches": 1}
    with pytest.raises(ValueError, match=rf"{which} has shape \(1,\); expected \(2,\)"):
        stats.replace(**{**given, which: np.full(1, 3.0)})
    with pytest.raises(TypeError, match=f"{which} is .*; expected an array of floating-point"):
        stats.replace(**{**given, which: 3.0})
    assert stats.batches == 0 and (stats.mean == 0).all() and (stats.var == 1).all()


# merge


def moments(parts):
    """(count, mean, M) of each part; the mean and M of an empty part are NaN."""
    means, m2s = np.full((2, len(parts), 3), np.nan)
    for k, x in enumerate(parts):
        if len(x):
            means[k], m2s[k] = x.mean(0), x.var(0) * len(x)
    return [len(x) for x in parts], means, m2s


@given(
    counts=st.lists(st.integers(0, 9), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0.0, -3.0, 1e4]),
)
def test_merge_is_the_statistics_of_everything_at_once(counts, seed, offset):
    rng = np.random.default_rng(seed)
    parts = [rng.normal(offset + rng.normal(0, 5), 2, (n, 3)) for n in counts]
    count, mean, m2 = merge(*moments(parts))
    everything = np.concatenate([np.empty((0, 3)), *parts])
    assert count == len(everything) and isinstance(count, int)
    assert mean.dtype == m2.dtype == np.float64
    if count:
        np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(m2, everything.var(0) * count, rtol=1e-10, atol=1e-9)
    else:
        assert mean.shape == m2.shape == (3,) and not mean.any() and not m2.any()


def test_merge_by_hand():
    # 1, 3 and 8: mean 4, M = 9 + 1 + 16
    count, mean, m2 = merge([2, 0, 1], [[2], [np.inf], [8]], [[2], [np.nan], [0]])
    assert (count, mean.item(), m2.item()) == (3, 4, 26)


def test_merge_leaves_a_nan_in_its_channel_and_skips_what_an_empty_part_has():
    means, m2s = np.array([[0.0, np.nan, 1], [2, 3, 4], [9, 9, 9]]), np.ones((3, 3))
    m2s[1, 2], m2s[2] = np.nan, -1
    count, mean, m2 = merge([1, 3, 0], means, m2s)
    assert count == 4
    np.testing.assert_allclose(mean, [1.5, np.nan, 3.25])
    np.testing.assert_allclose(m2, [5, np.nan, np.nan])


def test_merge_takes_variances_and_gives_running_statistics_as_its_docstring_says():
    parts = batches()
    counts, means = np.array([len(x) for x in parts]), np.array([x.mean(0) for x in parts])
    variances = np.array([x.var(0) for x in parts])
    count, mean, m2 = merge(counts, means, m2s=variances * counts[:, None])
    stats = RunningStats(3)
    stats.replace(mean, m2 / (count - 1), len(parts))
    everything = np.concatenate(parts)
    np.testing.assert_allclose(stats.mean, everything.mean(0))
    np.testing.assert_allclose(stats.var, everything.var(0, ddof=1))


def test_merge_of_one_part_changes_no_bit():
    mean, m2 = np.array([[0.1, -1e-30]]), np.array([[0.7, 1e-30]])
    _, merged_mean, merged_m2 = merge([7], mean, m2)
    np.testing.assert_array_equal(merged_mean, mean[0])
    np.testing.assert_array_equal(merged_m2, m2[0])


def test_merge_works_in_float64_and_leaves_its_input_alone():
    means, m2s = np.float32([[1e4], [1e4 + 1]]), np.float32([[0], [0]])
    _, mean, m2 = merge(np.float32([1, 2]), means, m2s)
    np.testing.assert_allclose([mean[0], m2[0]], [1e4 + 2 / 3, 2 / 3], rtol=1e-14)
    assert means[0, 0] == 1e4 and m2s[0, 0] == 0


@pytest.mark.parametrize(
    "message, counts, means, m2s",
    [
        (r"counts has shape \(1,\), means \(2, 3\)", [1], np.ones((2, 3)), np.ones((2, 3))),
        (r"counts has shape \(2, 1\)", [[1], [1]], np.ones((2, 3)), np.ones((2, 3))),
        (
            r"means \(2, 3\), m2s \(2, 2\); expected \(K,\)",
            [1, 1],
            np.ones((2, 3)),
            np.ones((2, 2)),
        ),
        (r"means \(2,\), m2s \(2,\)", [1, 1], np.ones(2), np.ones(2)),
        (r"counts\[1\] is -1; expected a whole number", [1, -1], np.ones((2, 3)), np.ones((2, 3))),
        (r"counts\[0\] is 0.5; expected a whole", [0.5, 1], np.ones((2, 3)), np.ones((2, 3))),
        (r"counts\[0\] is nan; expected a whole", [np.nan, 1], np.ones((2, 3)), np.ones((2, 3))),
        (r"counts\[1\] is inf; expected a whole", [1, np.inf], np.ones((2, 3)), np.ones((2, 3))),
        (
            r"m2s\[1, 2\] is -2.0; expected 0 or more: M is the sum of the squared deviations",
            [2, 2],
            np.ones((2, 3)),
            np.array([[1, 0, np.nan], [1, 1, -2]]),
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_bad_merge(message, counts, means, m2s):
    with pytest.raises(ValueError, match=message):
        merge(counts, means, m2s)


# precise


def network():
    """BatchNorms at two depths, one of them frozen; the statistics are not new."""
    rng = np.random.default_rng(3)
    frozen = nn.BatchNorm(4, momentum=None, dtype=np.float64)
    net = nn.Sequential(
        nn.BatchNorm(3, dtype=np.float64),
        nn.Sequential(nn.Linear(3, 4, std=1, rng=rng, dtype=np.float64), frozen, nn.ReLU()),
        nn.BatchNorm(4, affine=False, track_running_stats=False),
    )
    net[0].beta.value[:] = [1, -2, 3]
    net(rng.normal(5, 1, (8, 3)))
    frozen.eval()
    return net, [net[0], net[1][1]]


def what_stays(net, followed):
    """All that `precise` leaves as it is."""
    modes = [layer.training for layer in [net, *net, *net[1]]]
    stats = [(id(layer.running), layer.running.momentum) for layer in followed]
    return modes, stats, [p.value.tolist() for p in net.parameters()]


def statistics(followed):
    """All that `precise` replaces."""
    return [
        (s.batches, s.mean.tolist(), s.var.tolist(), s._updates.tolist())
        for s in (layer.running for layer in followed)
    ]


def test_precise_weighs_batches_equally_with_the_weights_fixed():
    net, followed = network()
    net.eval()
    followed[1].train()
    before = what_stays(net, followed)
    precise(net, iter(batches()))
    assert what_stays(net, followed) == before

    other, _ = network()
    inputs = [batches(), [other[1][0](other[0](x)) for x in batches()]]
    for layer, arrived in zip(followed, inputs, strict=True):
        np.testing.assert_allclose(layer.running.mean, np.mean([x.mean(0) for x in arrived], 0))
        var = np.mean([x.var(0, ddof=1) for x in arrived], 0)
        np.testing.assert_allclose(layer.running.var, var)
        assert layer.running.batches == 5
        assert (layer.running._updates == 5).all()


def test_precise_keeps_a_frozen_layer_frozen_in_a_network_in_training():
    net, followed = network()
    before = what_stays(net, followed)
    assert before[0] == [True, True, True, True, True, False, True]
    precise(net, batches())
    assert what_stays(net, followed) == before


def test_precise_leaves_what_it_cannot_see_as_it_was():
    class Hidden(nn.Layer):
        """Not iterable; but it passes its mode on."""

        def __init__(self):
            self.inner = nn.ReLU()
            self.forward = self.inner.forward

        def train(self, mode=True):
            self.training = self.inner.training = mode

    net = nn.Sequential(nn.BatchNorm(3, dtype=np.float64), Hidden())
    net.eval()
    precise(net, batches())
    assert not net[1].inner.training


def test_precise_moves_no_generator_and_nothing_that_a_backward_pass_needs():
    def made():
        gen = np.random.default_rng(5)
        net = nn.Sequential(nn.BatchNorm(3, dtype=np.float64), nn.Dropout(0.5, rng=gen), nn.ReLU())
        return net, gen, net(batches(1)[0])

    (net, gen, y), (other, other_gen, _) = made(), made()
    precise(net, batches())
    assert gen.bit_generator.state == other_gen.bit_generator.state
    np.testing.assert_array_equal(net.backward(y), other.backward(y))


def test_precise_of_one_layer():
    layer = nn.BatchNorm(3, momentum=0.5, dtype=np.float64)
    layer.eval()
    precise(layer, batches(1))
    (x,) = batches(1)
    np.testing.assert_allclose(layer.running.mean, x.mean(0))
    assert layer.running.momentum == 0.5 and not layer.training


def test_precise_counts_both_places_of_a_layer():
    layer = nn.BatchNorm(3, dtype=np.float64)
    precise(nn.Sequential(layer, layer), batches(1))
    assert layer.running.batches == 2  # it has seen the batch, and what it made of it
    np.testing.assert_allclose(layer.running.mean, batches(1)[0].mean(0) / 2)


def interrupted():
    yield from batches()
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "error, message, feed",
    [
        (KeyboardInterrupt, None, interrupted),
        (ValueError, r"x has shape \(4, 2\); expected", lambda: [*batches(), np.ones((4, 2))]),
        (ValueError, r"x has shape \(1, 3\), one value", lambda: [*batches(), np.ones((1, 3))]),
        (ValueError, "batches is empty; expected at least one", lambda: [np.empty((0, 3))]),
        (ValueError, "batches is empty; expected at least one", list),
    ],
    ids=["while batches are made", "in the first layer", "one example", "an empty batch", "none"],
)
def test_precise_that_does_not_come_to_its_end_changes_nothing(error, message, feed):
    net, followed = network()
    net.eval()
    followed[0].train()
    before = what_stays(net, followed), statistics(followed)
    with pytest.raises(error, match=message):
        precise(net, feed())
    assert (what_stays(net, followed), statistics(followed)) == before


def test_precise_needs_a_layer_that_follows():
    net, _ = network()
    with pytest.raises(ValueError, match="network has no layer with running statistics"):
        precise(nn.Sequential(net[2], nn.ReLU()), batches())


def test_precise_keeps_what_a_channel_had_when_it_was_bad_in_every_batch():
    layer = nn.BatchNorm(3, dtype=np.float64)
    layer(batches()[0])
    had = layer.running.mean[1], layer.running.var[1]
    bad = [x.copy() for x in batches()]
    for x in bad:
        x[0, 1] = np.nan
    bad[2][0, 2] = np.inf
    with pytest.warns(RuntimeWarning, match="channel 1"):
        precise(layer, bad)
    assert (layer.running.mean[1], layer.running.var[1]) == had
    assert layer.running._updates.tolist() == [5, 0, 4]
    np.testing.assert_allclose(layer.running.mean[0], np.mean([x[:, 0].mean() for x in bad]))
