"""bnlib.torch: against torch itself and bnlib, bad input, and what torch's tools expect."""

import copy
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm as native

import bnlib
from bnlib.torch import BatchNorm2d, batch_norm

SHAPES = [(2, 3), (64, 5), (4, 3, 5), (6, 4, 3, 5), (5, 4, 1, 1), (2, 3, 2, 3, 2)]
OPTIONS = [
    {},
    {"momentum": 0.3, "eps": 0.2},
    {"momentum": None},
    {"momentum": 0},
    {"momentum": 1},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False, "momentum": None},
]


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    return torch.device(request.param)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU; all ran on the CPU alone")
def test_there_is_a_gpu():
    """Where there is one, every test that takes `device` runs on it, too."""
    assert batch_norm(*(v.cuda() for v in (X, 0 * C3, C3))).is_cuda


def draw(shape, device="cpu", dtype=torch.float64, seed=0):
    """x, weight, bias, dy, running_mean, running_var; the first three are leaves."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    c = shape[1]
    leaves = 3 + 2 * normal(*shape), 1 + 0.3 * normal(c), normal(c)
    others = normal(*shape), normal(c), 1 + normal(c) ** 2
    leaves = [v.to(device, dtype).requires_grad_() for v in leaves]
    return *leaves, *(v.to(device, dtype) for v in others)


def results(function, x, weight, bias, dy, *stats, training=True, momentum=0.3, eps=0.01):
    """y, dx, dweight, dbias, and the running statistics afterward."""
    stats = [None if v is None else v.clone() for v in stats]
    leaves = [None if v is None else v.detach().requires_grad_() for v in (x, weight, bias)]
    y = function(leaves[0], *stats, *leaves[1:], training, momentum, eps)
    y.backward(dy)
    return y.detach(), *(v.grad for v in leaves if v is not None), *stats


def assert_close(ours, theirs, atol):
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            assert mine.dtype == its.dtype
            torch.testing.assert_close(mine, its, atol=atol, rtol=atol)


# The function


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_agrees_with_torch(shape, training, dtype, atol, device):
    case = draw(shape, device, dtype)
    ours, theirs = (results(f, *case, training=training) for f in (batch_norm, native))
    assert len(ours) == 6
    assert_close(ours, theirs, atol)


@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("training, tracking", [(True, True), (True, False), (False, True)])
def test_what_is_optional_can_be_left_out(weight, bias, training, tracking, device):
    x, w, b, dy, *stats = draw((6, 4, 3), device)
    stats = stats if tracking else [None, None]
    case = x, w if weight else None, b if bias else None, dy, *stats
    ours, theirs = (results(f, *case, training=training) for f in (batch_norm, native))
    assert_close(ours, theirs, 1e-10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3), (3, 2, 2, 2)])
def test_gradients_by_central_differences(shape, training, device):
    *leaves, _, mean, var = draw(shape, device)

    def y(x, weight, bias):
        return batch_norm(x, mean.clone(), var.clone(), weight, bias, training)

    assert torch.autograd.gradcheck(y, leaves)


@pytest.mark.parametrize("shape", [(40, 5), (7, 5, 4, 3)])
def test_agrees_with_the_functions_in_numpy(shape):
    case = draw(shape, dtype=torch.float32)
    x, weight, bias, dy, *_ = (v.detach().numpy() for v in case)
    y, cache = bnlib.batch_norm_train(x, weight, bias, eps=0.01)
    stats = bnlib.RunningStats(5, momentum=0.3)
    stats.replace(*(v.numpy().astype(np.float64) for v in case[4:]), 0)
    stats.update(cache.mean, cache.var, cache.count)
    expected = y, *bnlib.batch_norm_backward(dy, cache), stats.mean, stats.var
    for ours, theirs in zip(results(batch_norm, *case), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    y = batch_norm(*case[:1], *case[4:], *case[1:3]).detach()
    expected = bnlib.batch_norm_inference(x, *(v.numpy() for v in case[4:]), weight, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wide_parameters", [True, False])
@pytest.mark.parametrize("dtype, atol", [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)])
def test_half_precision_is_computed_in_float32(dtype, atol, wide_parameters, training, device):
    x, weight, bias, dy, *stats = draw((64, 3, 9, 9), device, dtype)
    parameters = [v.float() if wide_parameters else v for v in (weight, bias)]
    stats = [v.float() for v in stats]
    ours = results(batch_norm, x, *parameters, dy, *stats, training=training)
    wide = [v.double() for v in (x, *parameters, dy, *stats)]
    expected = results(batch_norm, *wide, training=training)
    assert [v.dtype for v in ours[:2]] == [dtype] * 2
    assert [v.dtype for v in ours[2:4]] == [v.dtype for v in parameters]
    for mine, exact in zip(ours[:2], expected, strict=False):
        torch.testing.assert_close(mine.double(), exact, atol=atol, rtol=atol)
    for mine, exact in zip(ours[2:4], expected[2:4], strict=True):  # sums of thousands of values
        scale = 1e-5 if wide_parameters else atol
        torch.testing.assert_close(mine.double(), exact, atol=300 * scale, rtol=scale)
    for mine, exact in zip(ours[4:], expected[4:], strict=True):
        torch.testing.assert_close(mine.double(), exact, atol=1e-5, rtol=1e-5)


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch last": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every other one": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout, training, device):
    x, weight, bias, dy, *stats = draw((6, 4, 3, 5), device)
    x = LAYOUTS[layout](x.detach())
    expected = results(batch_norm, x.contiguous(), weight, bias, dy, *stats, training=training)
    for given in dy, LAYOUTS[layout](dy):
        if layout == "expanded":
            given = dy
        ours = results(batch_norm, x, weight, bias, given, *stats, training=training)
        assert_close(ours, expected, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 4, 3, 5), (3, 2, 4, 3, 2)])
def test_channels_last_stays_channels_last(shape, training, dtype, device):
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x, weight, bias, dy, *stats = draw(shape, device, dtype)
    for layout in last, torch.contiguous_format:
        leaf, given = (v.contiguous(memory_format=layout) for v in (x, dy))
        y = batch_norm(leaf, *stats, weight, bias, training)
        (dx,) = torch.autograd.grad(y, leaf, given)  # leaf.grad would get leaf's layout
        assert y.is_contiguous(memory_format=layout) and dx.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(256, 8), (60, 8, 14, 14)])
@pytest.mark.parametrize("training", [True, False])
def test_a_mean_far_from_zero_costs_no_digits(shape, training, device):
    """At 10⁴ standard deviations: within 10⁻⁵ of float64, on the same float32 values."""
    x, weight, bias, dy, *_ = draw(shape, device, torch.float32)
    x = 1e4 + (x.detach() - 3) / 2
    others = (0, *range(2, x.ndim))
    mean, var = x.double().mean(others), x.double().var(others)
    if not training:
        mean = mean.float().double()  # what a float32 buffer can hold
    case = x, weight, bias, dy, mean, var
    wide = results(native, *(v.double() for v in case), training=training, eps=1e-5)
    ours = results(batch_norm, *case, training=training, eps=1e-5)
    for mine, exact in zip(ours[:2], wide, strict=False):
        assert (mine - exact).abs().max() < 1e-5
    for mine, exact in zip(ours[2:4], wide[2:4], strict=True):  # sums
        assert (mine - exact).abs().max() < 1e-5 * max(100, exact.abs().max())
    for mine, exact in zip(ours[4:], wide[4:], strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-6, atol=0)


def test_a_constant_channel_gives_the_bias_and_its_value_as_mean(device):
    x = torch.full((64, 1, 7, 7), 10000 / 3, device=device)
    bias, mean, var = torch.tensor([[0.5], [0], [1]], device=device)
    y = batch_norm(x, mean, var, None, bias, True, momentum=1, eps=1e-5)
    torch.testing.assert_close(y, torch.full_like(y, 0.5))
    assert mean == x[0, 0, 0, 0] and var < 1e-12


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
def test_gradients_go_where_they_are_asked_for(which, device):
    case = draw((6, 4, 3), device)
    expected = dict(zip(("x", "weight", "bias"), results(native, *case)[1:4], strict=True))
    leaves = {
        name: v.detach().requires_grad_(name == which)
        for name, v in zip(("x", "weight", "bias"), case, strict=False)
    }
    y = batch_norm(running_mean=None, running_var=None, training=True, eps=0.01, **leaves)
    y.backward(case[3])
    for name, leaf in leaves.items():
        assert (leaf.grad is None) == (name != which)
    torch.testing.assert_close(leaves[which].grad, expected[which])


def test_the_first_derivative_is_all_there_is_in_training(device):
    x, weight, bias, dy, *stats = draw((6, 3), device)
    y = batch_norm(x, *stats, weight, bias, True)
    for given in dy, dy.clone().requires_grad_():  # no silent zero for a gradient penalty, either
        with pytest.raises(RuntimeError, match="can be differentiated once; create_graph=True"):
            torch.autograd.grad(y, x, given, create_graph=True)
    leaves = [v.detach().requires_grad_() for v in (x, weight, bias)]
    assert torch.autograd.gradgradcheck(
        lambda x, weight, bias: batch_norm(x, *stats, weight, bias), leaves
    )


def test_running_statistics_keep_no_graph(device):
    x, weight, bias, _, *stats = draw((6, 3), device)
    buffers = [id(v) for v in stats]
    for _ in range(3):
        batch_norm(x, *stats, weight, bias, True)
    assert [id(v) for v in stats] == buffers
    assert all(v.grad_fn is None and not v.requires_grad for v in stats)


def test_what_is_kept_for_the_backward_pass(device):
    """x itself, no copy of it, and the rest by channel; so the input may not change meanwhile."""
    x, weight, bias, dy, *stats = draw((6, 3, 8, 8), device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v) or v, lambda v: v):
        batch_norm(x, *stats, weight, bias, True)
    assert sum(v.numel() for v in kept if v.data_ptr() != x.data_ptr()) <= 4 * 3
    y = batch_norm(x, *stats, weight, bias, True)
    with torch.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(dy)


def test_input_is_not_modified(device):
    case = draw((6, 3, 4), device)
    copies = [v.detach().clone() for v in case]
    results(batch_norm, *case)
    for before, after in zip(copies, case, strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_changes_nothing(shape, training, device):
    case = draw(shape, device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = results(batch_norm, *case, training=training)
    assert_close(ours, results(native, *case, training=training), 0)
    assert_close(ours[4:], case[4:], 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("momentum", [0.1, 0.9, 1.0])
def test_a_bad_channel_does_not_poison_the_running_statistics(value, momentum, device):
    x, weight, bias, dy, *stats = draw((8, 3, 4), device)
    clean = results(batch_norm, x, weight, bias, dy, *stats, momentum=momentum)
    bad = x.detach().clone()
    bad[2, 1, 0] = value
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = results(batch_norm, bad, weight, bias, dy, *stats, momentum=momentum)
    if device.type == "cpu":
        (warning,) = caught
        assert warning.category is RuntimeWarning and warning.filename == __file__
        assert str(warning.message).startswith("channel 1: the batch has a NaN or an infinity")
    assert ours[0][:, 1].isnan().any()  # y does not hide it
    for old, mine, without in zip(stats, ours[4:], clean[4:], strict=True):
        assert mine[1] == old[1]
        torch.testing.assert_close(mine[[0, 2]], without[[0, 2]], rtol=0, atol=0)


def test_squares_beyond_float32_leave_the_running_statistics_alone(device):
    x = torch.tensor([[1e25, 1.0], [-1e25, 3.0]], device=device)
    bias, mean, var = torch.tensor([[2.0, 2], [0, 0], [1, 1]], device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y = batch_norm(x, mean, var, None, bias, True, momentum=0.5)
    torch.testing.assert_close(y, torch.tensor([[2.0, 1], [2, 3]], device=device))
    assert mean.tolist() == [0, 1] and var.tolist() == [1, 1.5]


def test_running_statistics_of_another_dtype(device):
    x, weight, bias, dy, mean, var = draw((8, 3), device, torch.float32)
    for dtype in torch.float64, torch.bfloat16:
        for training in True, False:
            stats = mean.to(dtype), var.to(dtype)
            ours = results(batch_norm, x, weight, bias, dy, *stats, training=training)
            expected = results(
                native, x, weight, bias, dy, *(v.float() for v in stats), training=training
            )
            assert [v.dtype for v in ours] == [torch.float32] * 4 + [dtype] * 2
            atol = 1e-5 if dtype == torch.float64 else 2e-2
            assert_close([v.float() for v in ours], expected, atol)


X, C3 = torch.zeros(4, 3), torch.ones(3)


@pytest.mark.parametrize(
    "error, message, change",
    [
        (ValueError, r"x has shape \(4,\); expected \(N, C\) or", {"x": torch.zeros(4)}),
        (ValueError, r"x has shape \(\); expected \(N, C\) or", {"x": torch.tensor(1.0)}),
        (TypeError, "x has dtype torch.int64; expected a tensor of floating", {"x": X.long()}),
        (TypeError, "x is a ndarray; expected a tensor", {"x": np.zeros((4, 3))}),
        (ValueError, r"weight has shape \(3, 1\); expected \(3,\)", {"weight": C3[:, None]}),
        (ValueError, r"weight has shape \(1, 3\); expected \(3,\)", {"weight": C3[None]}),
        (ValueError, r"bias has shape \(4,\); expected \(3,\)", {"bias": torch.ones(4)}),
        (ValueError, r"running_mean has shape \(1,\)", {"running_mean": torch.ones(1)}),
        (ValueError, r"running_var has shape \(\)", {"running_var": torch.tensor(1.0)}),
        (ValueError, "running_mean alone is None; expected both", {"running_mean": None}),
        (ValueError, "running_var alone is None; expected both", {"running_var": None}),
        (
            ValueError,
            r"running_mean and running_var are None; expected \(3,\) in inference",
            {"running_mean": None, "running_var": None, "training": False},
        ),
        (TypeError, "weight has dtype torch.float64; expected torch.float32", {"weight": [2.0]}),
        (TypeError, "bias has dtype torch.float64; expected torch.float32", {"bias": [2.0]}),
        (TypeError, "weight has dtype .*int64; expected torch.float32", {"weight": C3.long()}),
        *[
            (ValueError, f"eps is {eps}; expected a positive number", {"eps": float(eps)})
            for eps in ("0.0", "-1.0", "nan", "inf")
        ],
        *[
            (ValueError, rf"momentum is {m}; expected a number in \[0, 1\]", {"momentum": m})
            for m in (1.5, -0.5, float("nan"), None)
        ],
        (
            ValueError,
            r"x has shape \(1, 3\), one value per channel; expected at least 2 in training",
            {"x": X[:1]},
        ),
        (ValueError, r"x has shape \(1, 3, 1, 1\), one value", {"x": torch.zeros(1, 3, 1, 1)}),
    ],
)
def test_bad_input_is_named_and_changes_nothing(error, message, change):
    stats = {"running_mean": torch.zeros(3), "running_var": torch.ones(3)}
    given = {"x": X, **stats, "training": True, **change}
    given = {
        k: torch.full((3,), *v, dtype=torch.float64) if isinstance(v, list) else v
        for k, v in given.items()
    }
    with pytest.raises(error, match=message):
        batch_norm(**given)
    assert torch.equal(stats["running_mean"], torch.zeros(3))
    assert torch.equal(stats["running_var"], torch.ones(3))


def test_one_value_per_channel_is_enough_in_inference(device):
    case = draw((1, 3), device)
    assert_close(*(results(f, *case, training=False) for f in (batch_norm, native)), 1e-12)


# The layer


def pair(device, dtype=torch.float64, **options):
    """Our layer and torch's, with the same random weight and bias."""
    ours = BatchNorm2d(3, device=device, dtype=dtype, **options)
    if ours.affine:
        for i, p in enumerate((ours.weight, ours.bias)):
            p.data += torch.randn(3, generator=torch.Generator().manual_seed(i)).to(p)
    theirs = torch.nn.BatchNorm2d(3, device=device, dtype=dtype, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def step(layer, x, dy):
    """y, dx and the derivatives of the parameters."""
    layer.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def batches(device, dtype=torch.float64, count=4):
    for seed in range(count):
        x, _, _, dy, *_ = draw((4 + seed, 3, 5, 2), device, dtype, seed)
        yield x, dy


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_the_layer_agrees_with_torch(options, dtype, atol, device):
    layers = pair(device, dtype, **options)
    for training in True, False, True, False:  # the running statistics go on where they were
        for layer in layers:
            layer.train(training)
        for x, dy in batches(device, dtype):
            assert_close(*(step(layer, x, dy) for layer in layers), atol)
            ours, theirs = (layer.state_dict() for layer in layers)
            assert list(ours) == list(theirs)
            assert_close(ours.values(), theirs.values(), atol)


def test_switches_set_afterward_mean_what_they_mean_in_torch(device):
    """Freezing with track_running_stats = False, and buffers taken away."""
    layers = pair(device)
    for change in {"track_running_stats": False}, dict.fromkeys(("running_mean", "running_var")):
        for layer in layers:
            for name, value in change.items():
                setattr(layer, name, value)
        for training in True, False:
            for layer in layers:
                layer.train(training)
            for x, dy in batches(device, count=2):
                assert_close(*(step(layer, x, dy) for layer in layers), 1e-10)
            assert_close(*(layer.state_dict().values() for layer in layers), 1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_state_dicts_load_both_ways(options, device):
    for ours, theirs in pair(device, **options), pair(device, **options)[::-1]:
        for x, _ in batches(device):
            theirs(x)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        assert_close(ours.state_dict().values(), theirs.state_dict().values(), 0)
        (x, _), *_ = batches(device)
        assert_close([ours.eval()(x)], [theirs.eval()(x)], 1e-10)


def test_tools_of_torch_find_the_layer(device):
    layer = BatchNorm2d(3, device=device)
    assert isinstance(layer, torch.nn.BatchNorm2d)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3, device=device), layer)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert type(converted[1]) is torch.nn.SyncBatchNorm
    for x, _ in batches(device, torch.float32):
        net(x[:, :2].repeat(1, 1, 2, 2))
    net.eval()
    x = torch.randn(2, 2, 6, 6, device=device)
    fused = torch.nn.utils.fuse_conv_bn_eval(net[0], layer)
    torch.testing.assert_close(fused(x), net(x), atol=1e-5, rtol=1e-5)


def test_a_layer_trains(device):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), BatchNorm2d(3), torch.nn.ReLU())
    net.append(torch.nn.Flatten()).append(torch.nn.Linear(48, 2)).to(device)
    x, labels = torch.randn(32, 1, 6, 6, device=device), torch.arange(32, device=device) % 2
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert net[1].num_batches_tracked == 30


@pytest.mark.parametrize("momentum", [0.1, None])
def test_an_empty_batch_is_not_counted(momentum, device):
    layer = BatchNorm2d(3, momentum=momentum, device=device, dtype=torch.float64)
    expected = copy.deepcopy(layer)
    empty = torch.empty(0, 3, 5, 5, device=device, dtype=torch.float64)
    for x, _ in batches(device):
        assert layer(empty).shape == empty.shape
        layer(x), expected(x)
    assert layer.num_batches_tracked == 4
    assert_close(layer.state_dict().values(), expected.state_dict().values(), 0)


def test_a_bad_batch_is_named_and_left_out(device):
    layer = BatchNorm2d(3, device=device)
    x = torch.ones(4, 3, 2, 2, device=device)
    x[0, 2] = np.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(x)
    assert [str(w.message)[:9] for w in caught] == ["channel 2"] * (device.type == "cpu")
    assert layer.running_mean.isfinite().all() and layer.running_var.isfinite().all()


@pytest.mark.parametrize(
    "message, make",
    [
        ("num_features is 0; expected 1 or more", lambda: BatchNorm2d(0)),
        ("eps is 0; expected a positive number", lambda: BatchNorm2d(3, eps=0)),
        ("eps is nan; expected", lambda: BatchNorm2d(3, eps=float("nan"))),
        (r"momentum is 1.5; expected a number in", lambda: BatchNorm2d(3, momentum=1.5)),
        ("momentum is nan; expected", lambda: BatchNorm2d(3, momentum=float("nan"))),
        (
            r"x has shape \(4, 3\); expected \(N, 3, H, W\)",
            lambda: BatchNorm2d(3)(torch.ones(4, 3)),
        ),
        (
            r"x has shape \(4, 5, 2, 2\); expected \(N, 3, H, W\)",
            lambda: BatchNorm2d(3, affine=False, track_running_stats=False)(torch.ones(4, 5, 2, 2)),
        ),
        (r"x has shape \(1, 3, 1, 1\), one value", lambda: BatchNorm2d(3)(torch.ones(1, 3, 1, 1))),
    ],
)
def test_the_layer_names_what_is_wrong(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_batch_that_is_refused_is_not_counted():
    layer = BatchNorm2d(3)
    with pytest.raises(ValueError, match="one value per channel"):
        layer(torch.ones(1, 3, 1, 1))
    assert layer.num_batches_tracked == 0


# The package


def test_without_torch_the_error_says_what_to_install():
    code = """
import sys
sys.modules["torch"] = None
import bnlib
import bnlib.torch
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: bnlib.torch needs PyTorch, which is not installed: install the extra "
        "batchnorm-book[torch]"
    )
