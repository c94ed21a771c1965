"""bnlib.norms: against torch's own, the exact values, central differences, and bad input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bnlib
from bnlib import nn, norms
from bnlib.gradcheck import gradient_error

SHAPES = [(5, 6), (4, 6, 7), (3, 6, 4, 5)]
EPS = 1e-3


def positions(x):
    """Torch's norms over the last axis, for channels on axis 1."""
    return x.movedim(1, -1)


def columns(v, x):
    return v.reshape(-1, *[1] * (x.ndim - 2))


def rms(x, axes):
    return x / (x.square().mean(axes, keepdim=True) + EPS).sqrt()


# What bnlib computes from x, gamma and beta, and torch's own.
FAMILY = {
    "group_norm": (
        lambda x, g, b: norms.group_norm(x, 3, g, b, eps=EPS),
        lambda x, g, b: F.group_norm(x, 3, g, b, EPS),
    ),
    "layer_norm": (
        lambda x, g, b: norms.layer_norm(x, g, b, eps=EPS),
        lambda x, g, b: F.group_norm(x, 1, g, b, EPS),
    ),
    "layer_norm, each position": (
        lambda x, g, b: norms.layer_norm(x, g, b, each_position=True, eps=EPS),
        lambda x, g, b: F.layer_norm(positions(x), (6,), g, b, EPS).movedim(-1, 1),
    ),
    "instance_norm": (
        lambda x, g, b: norms.instance_norm(x, g, b, eps=EPS),
        lambda x, g, b: F.instance_norm(x, weight=g, bias=b, eps=EPS),
    ),
    "rms_norm": (
        lambda x, g, b: norms.rms_norm(x, g, eps=EPS),
        lambda x, g, b: columns(g, x) * F.rms_norm(x, x.shape[1:], eps=EPS),
    ),
    "rms_norm, each position": (
        lambda x, g, b: norms.rms_norm(x, g, each_position=True, eps=EPS),
        lambda x, g, b: F.rms_norm(positions(x), (6,), g, EPS).movedim(-1, 1),
    ),
    "ghost_batch_norm": (
        lambda x, g, b: norms.ghost_batch_norm_train(x, g, b, size=2, eps=EPS),
        lambda x, g, b: torch.cat(
            [F.batch_norm(part, None, None, g, b, True, 0, EPS) for part in x.split(2)]
        ),
    ),
    "dynamic_tanh": (
        lambda x, g, b: norms.dynamic_tanh(x, 0.7, g, b),
        lambda x, g, b: columns(g, x) * torch.tanh(0.7 * x) + columns(b, x),
    ),
}
DERIVE = {
    "ghost_batch_norm": norms.ghost_batch_norm_backward,
    "dynamic_tanh": lambda dy, cache: (
        norms.dynamic_tanh_backward(dy, cache)[::2] + norms.dynamic_tanh_backward(dy, cache)[3:]
    ),
}


def takes(name, shape):
    """A ghost batch needs two values a channel, and so does an instance."""
    return not (len(shape) == 2 and name in ("instance_norm", "ghost_batch_norm"))


CASES = [(name, shape) for name in FAMILY for shape in SHAPES if takes(name, shape)]


def inputs(shape, dtype, mean=0.0):
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(m, 2, shape).astype(dtype) for m in (mean, 0))
    gamma, beta = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    return x, gamma, beta, dy


def by_torch(function, x, gamma, beta, dy):
    """y, dx, dgamma and dbeta in float64."""
    x, gamma, beta = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, gamma, beta)
    )
    y = function(x, gamma, beta)
    grads = torch.autograd.grad(
        y, (x, gamma, beta), torch.tensor(dy, dtype=y.dtype), allow_unused=True
    )
    return [None if v is None else v.detach().numpy() for v in (y, *grads)]


@pytest.mark.parametrize("dtype, atol", [(np.float64, 1e-12), (np.float32, 2e-6)])
@pytest.mark.parametrize("name, shape", CASES)
def test_equal_to_torch(name, shape, dtype, atol):
    ours, theirs = FAMILY[name]
    x, gamma, beta, dy = inputs(shape, dtype)
    y, cache = ours(x, gamma, beta)
    found = [y, *DERIVE.get(name, norms.backward)(dy, cache)]
    for mine, exact in zip(found, by_torch(theirs, x, gamma, beta, dy), strict=True):
        if name.startswith("rms") and exact is None:
            assert mine is None  # beta
            continue
        assert mine.dtype == dtype and mine.shape == exact.shape
        np.testing.assert_allclose(mine, exact, rtol=0, atol=atol * max(1, abs(exact).max()))


@pytest.mark.parametrize("name, shape", CASES)
def test_accurate_far_from_zero(name, shape):
    """As `bnlib.batch_norm_train` is: float32 input at a mean of 10,000, against float64."""
    if name == "dynamic_tanh":
        pytest.skip("it subtracts no mean")
    ours, theirs = FAMILY[name]
    x, gamma, beta, dy = inputs(shape, np.float32, mean=1e4)
    y, cache = ours(x, gamma, beta)
    dx, *_ = DERIVE.get(name, norms.backward)(dy, cache)
    exact_y, exact_dx, *_ = by_torch(theirs, x, gamma, beta, dy)
    for mine, exact in (y, exact_y), (dx, exact_dx):
        np.testing.assert_allclose(mine, exact, rtol=0, atol=1e-6 * max(1, abs(exact).max()))


@pytest.mark.parametrize("name, shape", CASES)
def test_without_gamma_and_beta(name, shape):
    ours, _ = FAMILY[name]
    x, _, _, dy = inputs(shape, np.float64)
    y, cache = ours(x, None, None)
    ones, zeros = np.ones(shape[1]), np.zeros(shape[1])
    np.testing.assert_array_equal(y, ours(x, ones, zeros)[0])
    dx, dgamma, dbeta = DERIVE.get(name, norms.backward)(dy, cache)
    assert dgamma is dbeta is None
    whole = DERIVE.get(name, norms.backward)(dy, ours(x, ones, zeros)[1])
    np.testing.assert_array_equal(dx, whole[0])


def test_float16_is_rounded_once():
    x, gamma, beta, _ = inputs((3, 6, 4, 5), np.float32)
    x = x.astype(np.float16)
    y, _ = norms.group_norm(x, 3, gamma, beta)
    wide, _ = norms.group_norm(x.astype(np.float64), 3, gamma.astype(float), beta.astype(float))
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, wide.astype(np.float16))


def test_one_family():
    """Layer and instance norm are group norms; with one example so is batch norm."""
    x, gamma, beta, dy = inputs((1, 6, 4, 5), np.float64)
    y, cache = norms.instance_norm(x, gamma, beta)
    batch, batch_cache = bnlib.batch_norm_train(x, gamma, beta)
    np.testing.assert_allclose(y, batch, atol=1e-12)
    for mine, theirs in zip(
        norms.backward(dy, cache), bnlib.batch_norm_backward(dy, batch_cache), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    for mine, theirs in (norms.layer_norm, 1), (norms.instance_norm, 6):
        np.testing.assert_array_equal(mine(x)[0], norms.group_norm(x, theirs)[0])


# Ghost batches and batch renormalization


def test_a_ghost_batch_of_all_is_batch_norm():
    x, gamma, beta, dy = inputs((8, 6), np.float32)
    y, cache = norms.ghost_batch_norm_train(x, gamma, beta, size=8)
    whole, whole_cache = bnlib.batch_norm_train(x, gamma, beta)
    np.testing.assert_array_equal(y, whole)
    for mine, theirs in zip(
        norms.ghost_batch_norm_backward(dy, cache),
        bnlib.batch_norm_backward(dy, whole_cache),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_last_ghost_batch_has_what_is_left():
    x, *_ = inputs((8, 6), np.float32)
    y, cache = norms.ghost_batch_norm_train(x, size=3)
    assert [part.count for part in cache.parts] == [3, 3, 2]
    np.testing.assert_array_equal(y[6:], bnlib.batch_norm_train(x[6:])[0])


def test_batch_renormalization_without_room_is_batch_norm():
    x, gamma, beta, dy = inputs((8, 6), np.float64)
    mean, var = np.full(6, 3.0), np.full(6, 2.0)
    y, cache = norms.batch_renorm_train(x, mean, var, gamma, beta, r_max=1, d_max=0)
    whole, whole_cache = bnlib.batch_norm_train(x, gamma, beta)
    np.testing.assert_allclose(y, whole, atol=1e-12)
    for mine, theirs in zip(
        norms.batch_renorm_backward(dy, cache),
        bnlib.batch_norm_backward(dy, whole_cache),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_batch_renormalization_within_its_limits_is_inference():
    x, gamma, beta, _ = inputs((8, 6, 3), np.float32)
    mean, var = np.full(6, 0.5), np.full(6, 3.0)
    y, cache = norms.batch_renorm_train(x, mean, var, gamma, beta, r_max=9, d_max=9)
    exact = bnlib.batch_norm_inference(x, mean, var, gamma, beta)
    np.testing.assert_allclose(y, exact, atol=1e-5)
    np.testing.assert_allclose(cache.batch.mean, x.mean((0, 2)), atol=1e-6)


def test_the_limits_of_batch_renormalization():
    x, *_ = inputs((50, 6), np.float64)
    _, cache = norms.batch_renorm_train(x, np.full(6, 9.0), np.full(6, 1e-4), r_max=2, d_max=3)
    np.testing.assert_array_equal(cache.r, 2)
    np.testing.assert_array_equal(cache.d, -3)
    _, cache = norms.batch_renorm_train(x, np.zeros(6), np.full(6, 1e4), r_max=2, d_max=3)
    np.testing.assert_array_equal(cache.r, 0.5)


def test_batch_renormalization_holds_its_corrections_constant():
    x, gamma, beta, dy = inputs((8, 6, 3), np.float64)
    mean, var = np.full(6, 0.5), np.full(6, 3.0)
    _, cache = norms.batch_renorm_train(x, mean, var, gamma, beta, r_max=1.2, d_max=0.1)

    def fixed(x, gamma, beta):
        x_hat = F.batch_norm(x, None, None, None, None, True, 0, 1e-5)
        r, d = (torch.tensor(v).reshape(-1, 1) for v in (cache.r, cache.d))
        return columns(gamma, x) * (x_hat * r + d) + columns(beta, x)

    _, *exact = by_torch(fixed, x, gamma, beta, dy)
    for mine, theirs in zip(norms.batch_renorm_backward(dy, cache), exact, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


# Weights


@pytest.mark.parametrize("shape", [(4, 7), (4, 3, 2, 2)])
def test_weight_norm_is_torch_s(shape):
    rng = np.random.default_rng(0)
    v, length, dw = rng.normal(size=shape), rng.normal(size=4), rng.normal(size=shape)
    w, cache = norms.weight_norm(v, length)
    tensors = [
        torch.tensor(a, requires_grad=True)
        for a in (v, length.reshape(-1, *[1] * (len(shape) - 1)))
    ]
    theirs = torch._weight_norm(*tensors, 0)
    np.testing.assert_allclose(w, theirs.detach(), atol=1e-12)
    dv, dlength = torch.autograd.grad(theirs, tensors, torch.tensor(dw))
    mine = norms.weight_backward(dw, cache)
    np.testing.assert_allclose(mine[0], dv, atol=1e-12)
    np.testing.assert_allclose(mine[1], dlength.reshape(-1), atol=1e-12)


@pytest.mark.parametrize("gain", [None, np.array([1.0, -2, 0.5, 3])])
def test_weight_standardization(gain):
    rng = np.random.default_rng(0)
    weight, dw = rng.normal(2, 3, (4, 3, 2, 2)), rng.normal(size=(4, 3, 2, 2))
    w, cache = norms.weight_standardization(weight, gain)
    scale = np.ones(4) if gain is None else gain
    np.testing.assert_allclose(w.mean((1, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(w.std((1, 2, 3)), abs(scale), rtol=1e-5)
    t = torch.tensor(weight, requires_grad=True)
    g = torch.tensor(scale, requires_grad=True)
    theirs = F.batch_norm(t.reshape(1, 4, -1), None, None, g, None, True, 0, 1e-5)
    dweight, dgain = torch.autograd.grad(theirs, (t, g), torch.tensor(dw).reshape(1, 4, -1))
    mine = norms.weight_backward(dw, cache)
    np.testing.assert_allclose(mine[0], dweight, atol=1e-12)
    if gain is None:
        assert mine[1] is None
    else:
        np.testing.assert_allclose(mine[1], dgain, atol=1e-12)


# Layers

LAYERS = {
    "GroupNorm": lambda: nn.GroupNorm(3, 6, dtype=float),
    "LayerNorm": lambda: nn.LayerNorm(6, dtype=float),
    "LayerNorm, each position": lambda: nn.LayerNorm(6, each_position=True, dtype=float),
    "InstanceNorm": lambda: nn.InstanceNorm(6, dtype=float),
    "RMSNorm": lambda: nn.RMSNorm(6, dtype=float),
    "GroupNorm, not affine": lambda: nn.GroupNorm(3, 6, affine=False),
    "GhostBatchNorm": lambda: nn.GhostBatchNorm(6, 2, dtype=float),
    "DynamicTanh": lambda: nn.DynamicTanh(6, dtype=float),
    "WeightNorm": lambda: nn.WeightNorm(convolution()),
    "WeightStandardization": lambda: nn.WeightStandardization(convolution()),
}


def convolution():
    return nn.Conv2d(6, 3, 2, std=1, rng=np.random.default_rng(3), dtype=np.float64)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_layers_by_central_differences(make):
    layer, rng = make(), np.random.default_rng(1)
    x = rng.normal(size=(4, 6, 3, 2))
    dy = rng.normal(size=layer(x).shape)
    for p in layer.parameters():
        p.value += rng.normal(0, 0.1, p.value.shape)

    def loss():
        return float((layer(x) * dy).sum())

    loss()
    dx = layer.backward(dy)
    assert gradient_error(dx, loss, x) < 1e-6
    for p in layer.parameters():
        assert gradient_error(p.grad, loss, p.value) < 1e-6


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_gradients_of_layers_add_up(make):
    layer, x = make(), np.random.default_rng(1).normal(size=(4, 6, 3, 2))
    layer.backward(layer(x))
    once = [p.grad.copy() for p in layer.parameters()]
    layer.backward(layer(x))
    for p, grad in zip(layer.parameters(), once, strict=True):
        np.testing.assert_allclose(p.grad, 2 * grad)


def test_only_the_batch_makes_training_and_inference_differ():
    x = np.random.default_rng(1).normal(2, 3, size=(4, 6, 3, 2))
    for name, make in LAYERS.items():
        layer = make()
        y = layer(x)
        layer.eval()
        assert np.array_equal(layer(x), y) == (name != "GhostBatchNorm"), name


def test_a_ghost_batch_norm_follows_its_parts():
    x = np.random.default_rng(1).normal(2, 3, size=(4, 6)).astype(np.float32)
    layer, plain = nn.GhostBatchNorm(6, 2), nn.BatchNorm(6)
    layer(x)
    for part in x[:2], x[2:]:
        plain(part)
    np.testing.assert_array_equal(layer.running.mean, plain.running.mean)
    np.testing.assert_array_equal(layer.running.var, plain.running.var)
    assert layer.running.batches == 2


def test_a_batch_renorm_trains_with_what_inference_uses():
    x = np.random.default_rng(1).normal(2, 3, size=(40, 6)).astype(np.float32)
    layer = nn.BatchRenorm(6, r_max=50, d_max=50, momentum=0)  # a mean of 0 and a variance of 1
    trained = layer(x)
    assert layer.running.batches == 1
    layer.eval()
    np.testing.assert_allclose(trained, layer(x), atol=1e-5)
    assert abs(trained - nn.BatchNorm(6)(x)).max() > 0.2


def test_wrapping_a_layer_changes_nothing_at_first():
    x = np.random.default_rng(1).normal(size=(4, 6, 3, 2))
    y = convolution()(x)
    np.testing.assert_allclose(nn.WeightNorm(convolution())(x), y, atol=1e-12)
    layer = nn.WeightStandardization(convolution())
    layer(x)
    rows = convolution().weight.value.reshape(3, -1)
    now = layer.layer.weight.value.reshape(3, -1)
    np.testing.assert_allclose(now, rows - rows.mean(1, keepdims=True), rtol=1e-4, atol=1e-6)


# Bad input

X = np.ones((4, 6, 2), np.float32)


@pytest.mark.parametrize(
    "error, message, call",
    [
        (
            ValueError,
            "groups is 4; expected a number that divides 6",
            lambda: norms.group_norm(X, 4),
        ),
        (ValueError, "groups is 2.0; expected", lambda: norms.group_norm(X, 2.0)),
        (TypeError, "x is a list; expected a NumPy array", lambda: norms.group_norm([[1.0]], 1)),
        (ValueError, "eps is 0; expected", lambda: norms.layer_norm(X, eps=0)),
        (ValueError, "eps is -1; expected", lambda: norms.rms_norm(X, eps=-1)),
        (
            ValueError,
            r"x has shape \(4, 6\), one value for each mean; expected at least 2",
            lambda: norms.instance_norm(X[:, :, 0]),
        ),
        (
            ValueError,
            r"x has shape \(4, 6, 0\); expected at least one position",
            lambda: norms.rms_norm(X[:, :, :0]),
        ),
        (
            TypeError,
            "gamma has dtype float64; expected float32",
            lambda: norms.layer_norm(X, np.ones(6)),
        ),
        (
            ValueError,
            r"beta has shape \(2,\); expected \(6,\)",
            lambda: norms.layer_norm(X, None, np.ones(2, np.float32)),
        ),
        (
            ValueError,
            r"dy has shape \(4, 6, 1\); expected \(4, 6, 2\)",
            lambda: norms.backward(X[:, :, :1], norms.layer_norm(X)[1]),
        ),
        (
            TypeError,
            "dy has dtype float64; expected float32",
            lambda: norms.backward(X.astype(float), norms.layer_norm(X)[1]),
        ),
        (ValueError, "size is 0; expected", lambda: norms.ghost_batch_norm_train(X, size=0)),
        (
            ValueError,
            r"x has shape \(1, 6, 1\), one value per channel",
            lambda: norms.ghost_batch_norm_train(X[:, :, :1], size=1),
        ),
        (
            ValueError,
            "dy has 2 examples; expected 4",
            lambda: norms.ghost_batch_norm_backward(
                X[:2], norms.ghost_batch_norm_train(X, size=2)[1]
            ),
        ),
        (
            ValueError,
            "r_max is 0.5; expected 1 or more",
            lambda: norms.batch_renorm_train(X, np.zeros(6), np.ones(6), r_max=0.5),
        ),
        (
            ValueError,
            "d_max is nan; expected 0 or more",
            lambda: norms.batch_renorm_train(X, np.zeros(6), np.ones(6), d_max=float("nan")),
        ),
        (
            ValueError,
            r"var\[0\] is -1.0; expected 0 or more",
            lambda: norms.batch_renorm_train(X, np.zeros(6), -np.ones(6)),
        ),
        (ValueError, "alpha is nan; expected", lambda: norms.dynamic_tanh(X, float("nan"))),
        (
            ValueError,
            r"weight\[1\] is all 0; expected weights that have a direction",
            lambda: norms.weight_norm(np.eye(2, 3) * [[1], [0]], np.ones(2)),
        ),
        (
            TypeError,
            "length is None; expected an array",
            lambda: norms.weight_norm(np.ones((2, 3)), None),
        ),
        (
            ValueError,
            r"dw has shape \(3, 2\); expected",
            lambda: norms.weight_backward(
                np.ones((3, 2)), norms.weight_norm(np.ones((2, 3)), np.ones(2))[1]
            ),
        ),
        (ValueError, "groups is 4; expected a number that divides 6", lambda: nn.GroupNorm(4, 6)),
        (ValueError, "channels is 0; expected 1 or more", lambda: nn.LayerNorm(0)),
        (ValueError, "eps is 0; expected", lambda: nn.RMSNorm(3, eps=0)),
        (ValueError, "size is 0; expected 1 or more", lambda: nn.GhostBatchNorm(3, 0)),
        (
            ValueError,
            "track_running_stats is False; expected True",
            lambda: nn.BatchRenorm(3, track_running_stats=False),
        ),
        (
            TypeError,
            "layer is a ReLU; expected a Linear or a Conv2d",
            lambda: nn.WeightNorm(nn.ReLU()),
        ),
    ],
)
def test_bad_input(error, message, call):
    with pytest.raises(error, match=message):
        call()
