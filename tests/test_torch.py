"""bnlib.torch.batch_norm: against torch; bad input; torch's tools.

How accurate it is, is tested in test_promise.py.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import batch_norm as native

import bnlib
from bnlib.torch import backend_for, batch_norm

SHAPES = [(2, 3), (64, 5), (4, 3, 5), (6, 4, 3, 5), (5, 4, 1, 1), (2, 3, 2, 3, 2)]


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


def of_leaves(names, stats, **options):
    """`batch_norm` as a function of the tensors that are named, in this order."""

    def y(*leaves):
        given = dict(zip(names, leaves, strict=True))
        mean, var = (v.clone() for v in stats)
        return batch_norm(given.pop("x"), mean, var, **given, **options)

    return y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 2, 2)])
@pytest.mark.parametrize(
    "names, relu",
    [
        (["x", "weight", "bias"], False),
        (["x", "weight", "bias", "residual"], True),
        (["x", "bias", "residual"], False),
        (["x"], True),
    ],
)
def test_gradients_by_central_differences(names, relu, shape, training, device):
    """First and second derivatives, backward and forward mode, one by one and batched."""
    x, weight, bias, residual, *stats = draw(shape, device)
    leaves = {"x": x, "weight": weight, "bias": bias, "residual": residual.requires_grad_()}
    leaves = [leaves[name] for name in names]
    y = of_leaves(names, stats, training=training, relu=relu)
    assert torch.autograd.gradcheck(
        y,
        leaves,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert torch.autograd.gradgradcheck(
        y, leaves, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


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


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_laid_out_as_those_of_torch(layout, training, device):
    x, weight, bias, dy, *stats = draw((6, 4, 3, 5), device)
    for change in LAYOUTS[layout], lambda x: LAYOUTS[layout](x)[1:, 1:3]:
        leaf, strides = change(x.detach()).requires_grad_(), []
        channels = leaf.shape[1]
        vectors = [v[:channels].detach() for v in (*stats, weight, bias)]
        for function in batch_norm, native:
            y = function(leaf, *vectors, training)
            (dx,) = torch.autograd.grad(y, leaf, torch.ones(y.shape, dtype=y.dtype, device=device))
            strides.append((y.stride(), dx.stride()))
        assert strides[0] == strides[1]


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


@pytest.mark.parametrize("training", [True, False])
def test_tensors_can_be_resized_afterward(training, device):
    """As FSDP does with parameters and buffers; `Tensor.numpy` would forbid it for good."""
    tensors = x, weight, bias, dy, *stats = draw((6, 4, 3, 5), device)
    batch_norm(x, *stats, weight, bias, training).backward(dy)
    for v in tensors:
        v.untyped_storage().resize_(0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 30, 30)])
def test_parameters_may_lie_elsewhere_in_the_backward_pass(shape, training, device):
    """As with FSDP, which frees them in between and then gathers them again."""
    x, weight, bias, dy, *stats = draw(shape, device)
    expected = results(native, x, weight, bias, dy, *stats, training=training, eps=1e-5)
    y = batch_norm(x, *stats, weight, bias, training)
    for v in weight, bias:
        values, storage = v.detach().clone(), v.untyped_storage()
        size = storage.nbytes()
        with torch.autograd._unsafe_preserve_version_counter(v), torch.no_grad():
            v.fill_(torch.nan)
            storage.resize_(0)
            in_its_place = torch.full_like(values, torch.nan)
            storage.resize_(size)
            v.copy_(values)
    y.backward(dy)
    assert in_its_place.isnan().all()
    assert_close([y.detach(), x.grad, weight.grad, bias.grad], expected[:4], 1e-10)


def test_a_negated_view_is_negated(device):
    z = torch.complex(*draw((6, 4), device)[:4:3])
    x = z.detach().conj().imag
    assert x.is_neg()
    assert_close(
        [batch_norm(x, None, None, training=True)],
        [native(-z.imag, None, None, None, None, True)],
        1e-12,
    )


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


@pytest.mark.parametrize("training", [True, False])
def test_a_gradient_penalty_agrees_with_torch(training, device):
    """‖dx‖² as a loss: the derivative of a derivative, in float32."""
    x, weight, bias, dy, *stats = draw((6, 3, 4), device)
    found = []
    for function in batch_norm, native:
        dtype = torch.float32 if function is batch_norm else torch.float64
        leaves = [v.detach().to(dtype).requires_grad_() for v in (x, weight, bias)]
        y = function(leaves[0], *(v.to(dtype) for v in stats), *leaves[1:], training)
        (dx,) = torch.autograd.grad((y * dy.to(dtype)).sin().sum(), leaves[0], create_graph=True)
        dx.square().sum().backward()
        found.append([v.grad.double() for v in leaves])
    assert_close(*found, 1e-5)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_x_is_given_back_after_the_backward_pass(dtype, device, monkeypatch):
    """Also when y lives on: a loss that is kept does not keep all activations."""
    # A thread may hold its block a moment longer than the result takes to arrive.
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    leaf = torch.randn(64, 32, 14, 14, device=device, dtype=dtype, requires_grad=True)
    x = leaf + 1
    memory = StorageWeakRef(x.untyped_storage())
    y = batch_norm(x, None, None, training=True)
    loss = y.sum()
    loss.backward()
    del x, y
    assert memory.expired() and loss.grad_fn is not None


def test_running_statistics_do_not_overflow_between_finite_values(device):
    mean, var = torch.tensor([-3e38], device=device), torch.ones(1, device=device)
    batch_norm(torch.full((4, 1), 3e38, device=device), mean, var, training=True)
    assert mean.item() == pytest.approx(-2.4e38)


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
    assert not ours[0][:, 1].isfinite().any()  # y does not hide it
    for old, mine, without in zip(stats, ours[4:], clean[4:], strict=True):
        assert mine[1] == old[1]
        torch.testing.assert_close(mine[[0, 2]], without[[0, 2]], rtol=0, atol=0)


def test_a_variance_beyond_float32_leaves_the_running_statistics_alone(device):
    x = torch.tensor([[1e25, 1.0], [-1e25, 3.0]], device=device)
    bias, mean, var = torch.tensor([[2.0, 2], [0, 0], [1, 1]], device=device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = batch_norm(x, mean, var, None, bias, True, momentum=0.5)
    torch.testing.assert_close(y, torch.tensor([[3.0, 1], [1, 3]], device=device))
    assert mean.tolist() == [0, 1] and var.tolist() == [1, 1.5]
    assert ["channel 0: " in str(w.message) for w in caught] == [True] * (device.type == "cpu")


def test_a_running_variance_that_is_none_is_named():
    for bad in -1.0, np.nan:
        var = torch.tensor([1.0, bad, 1.0])
        with pytest.raises(ValueError, match=rf"running_var\[1\] is {bad}; expected 0 or more"):
            batch_norm(X, 0 * C3, var)


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
        (ValueError, "weight is on meta; expected cpu, where x is", {"weight": C3.to("meta")}),
        (ValueError, "running_var is on meta; expected cpu", {"running_var": C3.to("meta")}),
        (TypeError, "x has dtype torch.float8_e5m2; expected", {"x": X.to(torch.float8_e5m2)}),
        (
            ValueError,
            r"residual has shape \(3,\); expected \(4, 3\)",
            {"residual": C3},
        ),
        (
            TypeError,
            "residual has dtype torch.float64; expected torch.float32, to go with x",
            {"residual": X.double()},
        ),
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


# Residual and ReLU


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (6, 4, 3, 5)])
@pytest.mark.parametrize("adding, relu", [(True, False), (False, True), (True, True)])
def test_residual_and_relu_follow_the_normalization(adding, relu, shape, training, device):
    x, weight, bias, dy, *stats = draw(shape, device)
    residual = draw(shape, device, seed=1)[3].requires_grad_()

    def steps(*arguments, residual, relu):
        y = native(*arguments)
        y = y if residual is None else y + residual
        return y.relu() if relu else y

    found = []
    for function in batch_norm, steps:
        moving = [v.clone() for v in stats]
        leaves = [v.detach().requires_grad_() for v in (x, weight, bias, residual)]
        y = function(
            leaves[0],
            *moving,
            *leaves[1:3],
            training,
            0.3,
            0.01,
            residual=leaves[3] if adding else None,
            relu=relu,
        )
        y.backward(dy)
        found.append([y.detach(), *(v.grad for v in leaves), *moving])
    assert (found[0][0] < 0).any() != relu
    assert_close(*found, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_rounded_once(dtype, device):
    """y is the exact value rounded, though y before the residual has no place in 16 bits."""
    x, weight, bias, residual, *stats = draw((64, 3), device, dtype)
    residual *= 100
    wide = batch_norm(*(v.double() for v in (x, *stats)), residual=residual.double())
    y = batch_norm(x, *stats, residual=residual)
    half = torch.finfo(dtype).eps / 2
    assert ((y - wide).abs() <= half * wide.abs() + 1e-6 * residual.abs().max()).all()


# torch.func


TRANSFORMS = {
    "grad": lambda f, x, w: torch.func.grad(lambda x: f(x, w).sin().sum())(x),
    "jvp": lambda f, x, w: torch.func.jvp(f, (x, w), (x.cos(), w)),
    "vjp": lambda f, x, w: torch.func.vjp(f, x, w)[1](x.cos()),
    "jacrev": lambda f, x, w: torch.func.jacrev(f, (0, 1))(x, w),
    "jacfwd": lambda f, x, w: torch.func.jacfwd(f, (0, 1))(x, w),
    "hessian": lambda f, x, w: torch.func.hessian(lambda x: f(x, w).sin().sum())(x),
    "vmap over x": lambda f, x, w: torch.vmap(f, (0, None))(torch.stack([x, x.sin()]), w),
    "vmap over weight": lambda f, x, w: torch.vmap(f, (None, 1))(x, torch.stack([w, 2 * w], 1)),
    "vmap of vmap": lambda f, x, w: torch.vmap(torch.vmap(f, (0, None)), (None, 0))(
        torch.stack([x, x.sin()]), torch.stack([w, 2 * w])
    ),
    "a gradient for each of several": lambda f, x, w: torch.vmap(
        torch.func.grad(lambda w, x: f(x, w).sin().sum()), (None, 0)
    )(w, torch.stack([x, x.sin()])),
    "vectorized jacobian": lambda f, x, w: torch.autograd.functional.jacobian(
        f, (x, w), vectorize=True
    ),
    "hvp": lambda f, x, w: torch.autograd.functional.hvp(lambda x: f(x, w).sin().sum(), x, x),
}


@pytest.mark.parametrize("training, following", [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_agree_with_those_of_torch(transform, training, following, device):
    """Where torch refuses, as for one pair of running statistics under vmap, so do we."""
    x, weight, bias, _, *stats = (v.detach() for v in draw((4, 3, 2), device))

    def run(function):
        moving = [v.clone() for v in stats] if following else [None, None]
        result = TRANSFORMS[transform](
            lambda x, w: function(x, *moving, w, bias, training), x, weight
        )
        return result, moving

    try:
        theirs = run(native)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="running_mean and running_var are not mapped over"):
            run(batch_norm)
    else:
        torch.testing.assert_close(run(batch_norm), theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [0, 1])
def test_vmap_moves_each_pair_of_running_statistics(dim, device):
    x, weight, bias, _, *stats = (v.detach() for v in draw((4, 3, 2), device))
    xs = torch.stack([x, x.sin()])
    stacked = [torch.stack([v, 2 * v], dim) for v in stats]
    torch.vmap(lambda x, mean, var: batch_norm(x, mean, var, weight, bias, True), (0, dim, dim))(
        xs, *stacked
    )
    for i in 0, 1:
        alone = [(1 + i) * v for v in stats]
        batch_norm(xs[i], *alone, weight, bias, True)
        assert_close([v.select(dim, i) for v in stacked], alone, 1e-12)


def test_what_is_mapped_over_cannot_change_one_pair_of_running_statistics(device):
    x, *_, mean, var = (v.detach() for v in draw((4, 3, 2), device))
    before = mean.clone()
    with pytest.raises(RuntimeError, match="running_mean and running_var are not mapped over"):
        torch.vmap(lambda x: batch_norm(x, mean, var, training=True))(torch.stack([x, x]))
    assert torch.equal(mean, before)


def test_the_derivative_by_running_statistics(device):
    """torch refuses it; the formula has it."""
    x, weight, bias, _, mean, var = draw((4, 3), device)
    leaves = mean.requires_grad_(), var.requires_grad_()
    assert torch.autograd.gradcheck(lambda *stats: batch_norm(x, *stats, weight, bias), leaves)


# torch.compile and other tools that follow the operations


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_steps_equal_those_that_are_not(backend, training, device):
    """Mini-batches of three sizes, with everything that there is, in one graph."""
    torch._dynamo.reset()
    found = []
    for function in torch.compile(batch_norm, fullgraph=True, backend=backend), batch_norm:
        *_, mean, var = draw((4, 3, 5), device, torch.float32)
        steps = []
        for n in 4, 6, 9:
            x, weight, bias, dy, *_ = draw((n, 3, 5), device, torch.float32, seed=n)
            residual = draw((n, 3, 5), device, torch.float32, seed=n + 1)[3]
            y = function(x, mean, var, weight, bias, training, residual=residual, relu=True)
            y.backward(dy)
            steps += [y.detach(), x.grad, weight.grad, bias.grad]
        assert mean.grad_fn is None and not mean.requires_grad
        found.append([*steps, mean, var])
    assert_close(*found, 2e-6)


def test_a_bad_channel_breaks_no_graph(device):
    x, weight, bias, _, *stats = (v.detach() for v in draw((8, 3, 4), device, torch.float32))
    x[2, 1, 0] = np.nan
    before = [v.clone() for v in stats]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        y = torch.compile(batch_norm, fullgraph=True, backend="aot_eager")(
            x, *stats, weight, bias, True
        )
    assert y[:, 1].isnan().all() and y[:, [0, 2]].isfinite().all()
    for old, new in zip(before, stats, strict=True):
        assert (old == new).tolist() == [False, True, False]


def test_torch_compile_of_transforms(device):
    x, weight, bias, *_ = (v.detach() for v in draw((4, 3, 2), device))

    def f(x, w):
        return batch_norm(x, None, None, w, bias, True)

    for name in "grad", "jvp", "vmap over x":
        torch._dynamo.reset()
        whole = torch.compile(
            lambda x, w, name=name: TRANSFORMS[name](f, x, w), fullgraph=True, backend="aot_eager"
        )
        torch.testing.assert_close(whole(x, weight), TRANSFORMS[name](f, x, weight))


def test_recorded_operations_compute_anew(device):
    """make_fx and torch.jit.trace: what NumPy computed would be a constant in the record."""
    x, weight, bias, _, *stats = (v.detach() for v in draw((4, 3, 2), device))
    make_fx = torch.fx.experimental.proxy_tensor.make_fx
    for training in True, False:
        f = of_leaves(["x", "weight", "bias"], stats, training=training)
        recorded = [make_fx(f)(x, weight, bias)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            recorded.append(torch.jit.trace(f, (x, weight, bias), check_trace=False))
        for record in recorded:
            assert_close([record(x.sin(), weight, bias)], [f(x.sin(), weight, bias)], 1e-12)


def test_tensors_with_operations_of_their_own(device):
    """Those without memory, and subclasses that only watch the functions."""
    x, *_, mean, var = (v.detach() for v in draw((4, 3, 2), device))
    mode = torch._subclasses.FakeTensorMode()
    fake = [mode.from_tensor(v) for v in (x, mean, var)]
    assert batch_norm(*fake, training=True).shape == x.shape
    assert batch_norm(x.to("meta"), None, None, training=True).shape == x.shape

    class Watched(torch.Tensor):
        pass

    y = batch_norm(x.as_subclass(Watched), mean, var)
    assert type(y) is Watched
    assert_close([y.as_subclass(torch.Tensor)], [batch_norm(x, mean, var)], 0)


# torch's switches, processes and threads


@pytest.mark.parametrize("training", [True, False])
def test_autocast_changes_nothing(training, device):
    """As with torch's function: 16 bits stay 16 bits, float32 stays float32."""
    for dtype in torch.bfloat16, torch.float32:
        x, weight, bias, dy, *stats = draw((8, 3, 4), device, dtype)
        case = x, weight.float(), bias.float(), dy, *(v.float() for v in stats)
        expected = results(batch_norm, *case, training=training)
        with torch.autocast(device.type, torch.bfloat16):
            ours = results(batch_norm, *case, training=training)
            assert native(x, *case[4:], *case[1:3], training).dtype == ours[0].dtype == dtype
        assert_close(ours, expected, 0)


def test_deterministic_algorithms(device):
    case = draw((33, 5, 7, 3), device, torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        first, again = (results(batch_norm, *case) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_close(first, again, 0)


def test_the_number_of_threads_changes_no_bit():
    case = draw((64, 32, 28, 28), dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in 1, 2, 3:
            torch.set_num_threads(threads)
            found.append(results(batch_norm, *case))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert_close(other, found[0], 0)


def test_threads_of_a_program_do_not_disturb_one_another():
    """As in torch.nn.DataParallel: each with its own mini-batch and statistics."""
    cases = [draw((40, 8, 12, 12), dtype=torch.float32, seed=i) for i in range(4)]
    expected = [results(batch_norm, *case) for case in cases]
    found = [[] for _ in cases]

    def work(i):
        for _ in range(5):
            found[i].append(results(batch_norm, *cases[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for alone, together in zip(expected, found, strict=True):
        assert len(together) == 5
        for one in together:
            assert_close(one, alone, 0)


class Normalized(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        x, *_, mean, var = draw((16, 8, 56, 56), dtype=torch.float32, seed=i)
        return batch_norm(x.detach(), mean, var, training=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
def test_the_forked_workers_of_a_data_loader_compute_the_same():
    """After threads were at work here, which a fork leaves behind."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = [Normalized()[i] for i in range(2)]
        loader = torch.utils.data.DataLoader(
            Normalized(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        assert_close(list(loader), here, 0)
    finally:
        torch.set_num_threads(before)


def test_what_autograd_keeps_can_be_moved_or_computed_again(device):
    case = draw((6, 3, 4), device)
    x, weight, bias, dy, *_ = case
    expected = results(batch_norm, *case)[1]

    def f(x):
        return batch_norm(x, None, None, weight, bias, True, eps=0.01)

    with torch.autograd.graph.save_on_cpu():
        moved = f(x)
    again = torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False)
    for y in moved, again:
        assert torch.equal(torch.autograd.grad(y, x, dy)[0], expected)


def test_inference_remembers_the_statistics_it_used(device):
    """A discriminator that judges, then trains, then gets the derivative of its judgment."""
    x, weight, bias, dy, *stats = draw((6, 3), device)
    expected = results(batch_norm, x, weight, bias, dy, *stats, training=False)[1]
    y = batch_norm(x, *stats, weight, bias, eps=0.01)
    batch_norm(x.detach() + 1, *stats, training=True)
    assert torch.equal(torch.autograd.grad(y, x, dy)[0], expected)


# The backends


def test_backend_for_says_which_and_why():
    name, reason = backend_for(X)
    assert name == bnlib.backend_for(X.numpy()).name
    assert reason.startswith("the tensor is in the memory of the CPU; ")
    assert str(backend_for(X.to("meta"))) == "torch: there are no kernels for the device meta"
    seen = []
    torch.vmap(lambda x: seen.append(backend_for(x)) or x)(X)
    torch.compile(lambda x: seen.append(backend_for(x)) or x, backend="eager")(X)
    with torch.autograd.forward_ad.dual_level():
        seen.append(backend_for(torch.autograd.forward_ad.make_dual(X, X)))
    assert [str(backend) for backend in seen] == [
        "torch: a transform of torch.func is at work",
        "torch: torch.compile or torch.export traces the operations",
        "torch: forward-mode differentiation is under way",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_cuda_tensor_goes_to_triton_where_there_is_one():
    triton = importlib.util.find_spec("triton") is not None
    assert backend_for(X.cuda()).name == ("triton" if triton else "torch")


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


def test_on_the_cpu_triton_is_not_even_imported():
    code = """
import sys
import torch
import bnlib.torch
x = torch.randn(4, 3, requires_grad=True)
bnlib.torch.batch_norm(x, None, None, training=True).sum().backward()
assert "triton" not in sys.modules and "bnlib.torch.triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
