"""bnlib.nn: every layer against torch and central differences, and bad input."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import ROOT

from bnlib import nn
from bnlib.gradcheck import max_relative_error, numerical_gradient


def rng():
    return np.random.default_rng(0)


def linear(**kwargs):
    return nn.Linear(5, 4, std=0.5, rng=rng(), dtype=np.float64, **kwargs)


LAYERS = {
    "Linear": linear,
    "Linear without bias": lambda: linear(bias=False),
    "BatchNorm": lambda: nn.BatchNorm(5, dtype=np.float64),
    "BatchNorm, not affine": lambda: nn.BatchNorm(5, affine=False),
    "BatchNorm, not tracking": lambda: nn.BatchNorm(5, track_running_stats=False, dtype=float),
    "Sigmoid": nn.Sigmoid,
    "ReLU": nn.ReLU,
    "Sequential": lambda: nn.Sequential(
        linear(bias=False), nn.BatchNorm(4, dtype=float), nn.Sigmoid()
    ),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_gradients_by_central_differences(make):
    layer = make()
    generator = np.random.default_rng(1)
    x = generator.normal(size=(6, 5))
    dy = generator.normal(size=layer(x).shape)
    for p in layer.parameters():
        p.value += generator.normal(0, 0.1, p.value.shape)

    def loss():
        return float((layer(x) * dy).sum())

    loss()
    dx = layer.backward(dy)
    assert max_relative_error(dx, numerical_gradient(loss, x)) < 1e-7
    for p in layer.parameters():
        assert max_relative_error(p.grad, numerical_gradient(loss, p.value)) < 1e-7


def test_gradients_add_up():
    layer, x = linear(), rng().normal(size=(6, 5))
    layer.backward(layer(x))
    once = layer.weight.grad.copy()
    layer.backward(layer(x))
    np.testing.assert_allclose(layer.weight.grad, 2 * once)
    np.testing.assert_allclose(layer.bias.grad, 2 * layer(x).sum(0))


def test_linear_starts_as_it_says():
    layer = nn.Linear(200, 300, std=0.3, rng=rng())
    assert layer.weight.value.std() == pytest.approx(0.3, rel=0.02)
    assert layer.weight.value.dtype == layer.bias.value.dtype == np.float32
    assert (layer.bias.value == 0).all()


def test_a_gradient_of_another_shape_changes_nothing():
    layer = linear()
    layer(rng().normal(size=(6, 5)))
    with pytest.raises(ValueError, match=r"dy has shape \(6, 1\); expected \(6, 4\)"):
        layer.backward(np.ones((6, 1)))
    assert (layer.weight.grad == 0).all() and (layer.bias.grad == 0).all()


def test_relu_has_no_gradient_at_zero():
    layer = nn.ReLU()
    layer(np.array([-1.0, 0, 1]))
    np.testing.assert_array_equal(layer.backward(np.ones(3)), [0, 0, 1])


LAYERS = {  # each with the shape of an input
    "Linear": (lambda: nn.Linear(3, 3, std=1, rng=rng()), (4, 3)),
    "Conv2d": (lambda: nn.Conv2d(3, 3, 3, std=1, padding=1, rng=rng()), (2, 3, 4, 4)),
    "MaxPool2d": (lambda: nn.MaxPool2d(1), (2, 3, 4, 4)),
    "Flatten": (nn.Flatten, (4, 3)),
    "BatchNorm": (lambda: nn.BatchNorm(3), (4, 3)),
    "GhostBatchNorm": (lambda: nn.GhostBatchNorm(3, 2), (4, 3)),
    "BatchRenorm": (lambda: nn.BatchRenorm(3), (4, 3)),
    "GroupNorm": (lambda: nn.GroupNorm(1, 3), (4, 3)),
    "LayerNorm": (lambda: nn.LayerNorm(3), (4, 3)),
    "InstanceNorm": (lambda: nn.InstanceNorm(3), (2, 3, 4, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(3), (4, 3)),
    "DynamicTanh": (lambda: nn.DynamicTanh(3), (4, 3)),
    "WeightNorm": (lambda: nn.WeightNorm(nn.Linear(3, 3, std=1, rng=rng())), (4, 3)),
    "WeightStandardization": (
        lambda: nn.WeightStandardization(nn.Linear(3, 3, std=1, rng=rng())),
        (4, 3),
    ),
    "Sigmoid": (nn.Sigmoid, (4, 3)),
    "ReLU": (nn.ReLU, (4, 3)),
    "Dropout": (lambda: nn.Dropout(0.5, rng=rng()), (4, 3)),
}


def test_every_layer_is_among_those_tried():
    layers = {k for k, v in vars(nn).items() if isinstance(v, type) and issubclass(v, nn.Layer)}
    assert {k for k in layers if not k.startswith("_")} - {"Layer"} == {*LAYERS, "Sequential"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_each_backward_pass_has_a_forward_pass_of_its_own(name, training):
    make, shape = LAYERS[name]
    layer, x = make(), rng().normal(size=shape).astype(np.float32)
    layer.train(training)
    with pytest.raises(RuntimeError, match=f"backward of {name} without a forward pass"):
        layer.backward(x)
    dy = np.ones_like(layer(x))
    with pytest.raises(ValueError, match=r"dy has shape \(7, 1\); expected \("):
        layer.backward(np.ones((7, 1), np.float32))
    layer.backward(dy)  # what was refused took nothing
    with pytest.raises(RuntimeError, match=f"backward of {name} without a forward pass"):
        layer.backward(dy)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_at_two_places_of_a_network_raises(name):
    make, shape = LAYERS[name]
    layer, x = make(), rng().normal(size=shape).astype(np.float32)
    net = nn.Sequential(layer, nn.ReLU(), layer)
    with pytest.raises(RuntimeError, match=f"backward of {name}.*one place of a network only"):
        net.backward(np.ones_like(net(x)))


def test_after_a_look_inside_a_network_needs_another_forward_pass():
    """The layers would have kept what belongs to two passes."""
    net = nn.Sequential(
        linear(), nn.Sequential(nn.ReLU()), nn.ReLU(), nn.Linear(4, 2, std=1, rng=rng())
    )
    x = rng().normal(size=(6, 5))
    dy = np.ones_like(net(x))
    net.inputs(x + 1, [2])
    with pytest.raises(RuntimeError, match="backward of ReLU without a forward pass"):
        net.backward(dy)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["Linear", "Conv2d", "BatchNorm"])
def test_what_changes_after_the_forward_pass_does_not_count(name, training):
    """Weights, statistics and eps: the gradient is that of what the forward pass computed."""
    make, shape = LAYERS[name]
    x, dy = rng().normal(size=(2, *shape)).astype(np.float32)
    layer, changed = make(), make()
    for one in layer, changed:
        one.train(training)
        one(x)
    for parameter in changed.parameters():
        parameter.value *= -3
    if name == "BatchNorm":
        changed.running.replace(np.full(3, 5.0), np.full(3, 7.0), 1)
        changed.eps = 1
    np.testing.assert_array_equal(changed.backward(dy), layer.backward(dy))
    for a, b in zip(changed.parameters(), layer.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)


def test_gradients_of_float16_are_summed_with_more_digits():
    """2,048 · 64 is 131,072, which float16 does not reach; its parameters are float32."""
    layer = nn.BatchNorm(2)
    layer.eval()
    x, dy = np.ones((2048, 2), np.float16), np.full((2048, 2), 64, np.float16)
    layer(x)
    assert layer.backward(dy).dtype == np.float16
    np.testing.assert_array_equal(layer.beta.grad, [131072, 131072])
    np.testing.assert_allclose(layer.gamma.grad, 131072, rtol=1e-3)  # x_hat has float16's digits
    linear = nn.Linear(2, 2, std=1, rng=rng(), dtype=np.float16)
    linear(x)
    linear.backward(np.full((2048, 2), 2 + 2**-9, np.float16))
    np.testing.assert_array_equal(linear.bias.grad, [4100, 4100])  # 4,096 if added in float16


def test_a_first_layer_can_save_dx():
    layer, full = linear(needs_dx=False), linear()
    x = rng().normal(size=(6, 5))
    assert np.isnan(layer.backward(layer(x))).all()
    full.backward(full(x))
    np.testing.assert_array_equal(layer.weight.grad, full.weight.grad)


@pytest.mark.parametrize("shape", [(8, 3), (4, 3, 5), (2, 3, 4, 4)])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracking", [True, False])
def test_batch_norm_agrees_with_torch(shape, momentum, affine, tracking):
    options = {"momentum": momentum, "affine": affine, "track_running_stats": tracking, "eps": 0.3}
    ours = nn.BatchNorm(3, dtype=np.float64, **options)
    kind = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    theirs = kind(3, **options).double()
    generator = rng()
    for _ in range(3):
        x, dy = generator.normal(1, 2, shape), generator.normal(size=shape)
        tx = torch.tensor(x, requires_grad=True)
        expected = theirs(tx)
        expected.backward(torch.tensor(dy))
        np.testing.assert_allclose(ours(x), expected.detach(), atol=1e-12)
        np.testing.assert_allclose(ours.backward(dy), tx.grad, atol=1e-12)
    if affine:
        np.testing.assert_allclose(ours.gamma.grad, theirs.weight.grad, atol=1e-11)
        np.testing.assert_allclose(ours.beta.grad, theirs.bias.grad, atol=1e-11)
    ours.eval()
    theirs.eval()
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach(), atol=1e-12)


def test_inference_does_not_change_the_statistics_and_training_does():
    layer, x = nn.BatchNorm(3), rng().normal(size=(8, 3)).astype(np.float32)
    layer(x)
    after_one = layer.running.mean.copy()
    layer.eval()
    layer(x)
    np.testing.assert_array_equal(layer.running.mean, after_one)
    layer.train()
    layer(x)
    assert (layer.running.mean != after_one).all()


def contents(layer):
    """The state as something that can be compared."""
    return {k: getattr(v, "tolist", lambda v=v: v)() for k, v in layer.state().items()}


@pytest.mark.parametrize("momentum", [0.3, None])
def test_a_layer_takes_over_the_state_of_another(momentum):
    trained, x = nn.BatchNorm(3, eps=0.2, momentum=momentum), np.float32(rng().normal(size=(8, 3)))
    trained.gamma.value[:], trained.beta.value[:] = [1, 2, 3], [4, 5, 6]
    trained(x)
    layer = nn.BatchNorm(3)
    gamma, beta = layer.gamma.value, layer.beta.value
    layer.load(trained.state())
    assert contents(layer) == contents(trained)
    assert layer.gamma.value is gamma and layer.beta.value is beta  # an optimizer has these arrays
    assert (layer.eps, layer.running.momentum, layer.running.batches) == (0.2, momentum, 1)
    for each in trained, layer:
        each(x + 1)
        each.eval()
    np.testing.assert_array_equal(layer(x), trained(x))


def test_a_state_is_a_copy():
    layer, x = nn.BatchNorm(3), np.float32(rng().normal(size=(8, 3)))
    layer(x)
    state, kept = layer.state(), contents(layer)
    for name in "gamma", "beta", "mean", "var":
        state[name] += 1
    assert contents(layer) == kept
    layer.load(state)
    changed = contents(layer)
    for name in "gamma", "beta", "mean", "var":
        state[name] += 1
        assert changed[name] != kept[name]
    assert contents(layer) == changed


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracking", [True, False])
def test_a_layer_loads_its_own_state(affine, tracking):
    options = {"affine": affine, "track_running_stats": tracking}
    layer, new = nn.BatchNorm(3, eps=0.3, momentum=0.4, **options), nn.BatchNorm(3, **options)
    layer(np.float32(rng().normal(size=(8, 3))))
    assert [name for name, value in layer.state().items() if value is None] == [
        *(() if affine else ("gamma", "beta")),
        *(() if tracking else ("mean", "var", "momentum", "batches")),
    ]
    new.load(layer.state())
    assert contents(new) == contents(layer)


def test_a_layer_without_gamma_takes_a_gamma_of_ones():
    layer = nn.BatchNorm(2, affine=False)
    state = {"gamma": np.ones(2), "beta": np.zeros(2), "mean": np.ones(2), "var": np.ones(2)}
    layer.load({**state, "eps": 0.5, "momentum": 0.25})
    assert layer.gamma is layer.beta is None and (layer.running.mean == 1).all()
    assert (layer.eps, layer.running.momentum, layer.running.batches) == (0.5, 0.25, 0)


@pytest.mark.parametrize("tracking", [True, False])
def test_what_is_no_mapping_is_no_state(tracking):
    with pytest.raises(TypeError, match="state is a list; expected a mapping from bnlib's names"):
        nn.BatchNorm(2, track_running_stats=tracking).load([1, 2])


@pytest.mark.parametrize(
    "message, options, changes",
    [
        (
            r"mean has shape \(2,\); expected \(3,\)",
            {},
            dict.fromkeys(("gamma", "beta", "mean", "var"), np.ones(2)),
        ),
        ("state has no var", {}, {"var": None}),
        ("state has weight", {}, {"weight": np.ones(3)}),
        (r"gamma has shape \(2,\); expected \(3,\)", {}, {"gamma": np.ones(2)}),
        (r"var\[1\] is -1.0; expected 0 or more", {}, {"var": np.array([1.0, -1, 1])}),
        ("momentum is 2.0; expected", {}, {"momentum": 2}),
        ("eps is -1.0; expected", {}, {"eps": -1}),
        (r"state has no eps: layer.state\(\) holds it; or add layer.eps", {}, {"eps": None}),
        (r"gamma is \[2. 2. 2.\]; expected 1s or None", {"affine": False}, {"beta": None}),
        (r"beta is \[3. 3. 3.\]; expected 0s or None", {"affine": False}, {"gamma": None}),
        ("mean is .*; expected None: the layer follows", {"track_running_stats": False}, {}),
        (
            "batches is 4; expected None: the layer follows",
            {"track_running_stats": False},
            dict.fromkeys(("mean", "var", "momentum")),
        ),
    ],
)
def test_a_state_that_cannot_be_taken_changes_nothing(message, options, changes):
    state = {name: np.full(3, i + 2.0) for i, name in enumerate(("gamma", "beta", "mean", "var"))}
    state |= {"eps": 0.5, "momentum": 0.5, "batches": 4, **changes}
    layer = nn.BatchNorm(3, **options)
    before = contents(layer)
    with pytest.raises(ValueError, match=message):
        layer.load(state)
    assert contents(layer) == before


@pytest.mark.parametrize("eps, momentum", [("1e-5", "0.1"), ("1e-3", "0.01"), ("0.3", "1.0")])
def test_the_list_of_the_gallery_runs_when_copied_and_finds_nothing(eps, momentum):
    page = json.loads((ROOT / "book" / "reference" / "bugs.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in page["cells"] if cell["cell_type"] == "code"]
    copied = [cell for cell in cells if cell.startswith("# Test list, cell")]
    assert [cell.partition(":")[0] for cell in copied] == [
        f"# Test list, cell {i} of 5" for i in range(1, 6)
    ]
    settings = "EPS, MOMENTUM = 1e-5, 0.1 "
    assert settings in copied[0]
    names = {}
    exec("\n".join(copied).replace(settings, f"EPS, MOMENTUM = {eps}, {momentum} "), names)

    class Wrapped:
        def __init__(self, channels):
            self.bn = nn.BatchNorm(channels, eps=given, momentum=float(momentum), affine=False)
            self.backward = self.bn.backward

        def train(self, x):
            self.bn.train()
            return self.bn(x)

        def predict(self, x):
            self.bn.eval()
            return self.bn(x)

        mean = property(lambda self: self.bn.running.mean)
        var = property(lambda self: self.bn.running.var)

    given = float(eps)
    assert len(names["checks"]) == 11 and names["failing"](Wrapped) == {}
    given = 2 * float(eps)
    assert "eps" in names["failing"](Wrapped)
    Wrapped.mean = property(lambda self: self.runing_mean)
    reason = names["failing"](Wrapped)["momentum"]
    assert reason == "AttributeError: 'Wrapped' object has no attribute 'runing_mean'"


def test_a_nan_does_not_poison_the_layer():
    layer, x = nn.BatchNorm(3), rng().normal(size=(8, 3)).astype(np.float32)
    bad = x.copy()
    bad[2, 1] = np.nan
    with pytest.warns(RuntimeWarning, match="channel 1"):
        layer(bad)
    layer.eval()
    assert np.isfinite(layer(x)).all()


def test_sigmoid_does_not_overflow():
    layer = nn.Sigmoid()
    with np.errstate(all="raise"):
        y = layer(np.array([-1e4, 0, 1e4], np.float32))
    np.testing.assert_array_equal(y, [0, 0.5, 1])


def test_dropout_keeps_the_mean_and_does_nothing_in_inference():
    layer, x = nn.Dropout(0.3, rng=rng()), np.ones((400, 500), np.float32)
    y = layer(x)
    assert abs((y == 0).mean() - 0.3) < 0.01
    assert abs(y.mean() - 1) < 0.01
    assert y.dtype == np.float32
    np.testing.assert_array_equal(layer.backward(x), y)
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_sequential_switches_and_inspects_its_layers():
    net = nn.Sequential(linear(), nn.Dropout(0.5, rng=rng()), nn.Sigmoid())
    net.eval()
    assert not any(layer.training for layer in net)
    x = rng().normal(size=(6, 5))
    inputs = net.inputs(x, [0, 2])
    np.testing.assert_array_equal(inputs[0], x)
    np.testing.assert_array_equal(inputs[2], net[0](x))
    assert len(net.parameters()) == 2
    assert net.inputs(x, []) == {}
    np.testing.assert_array_equal(net.inputs(x, [-1])[-1], net[0](x))
    with pytest.raises(IndexError):
        net.inputs(x, [3])
    net.train()
    assert all(layer.training for layer in net)


def test_dropout_of_nothing_and_of_integers():
    x = np.ones((4, 5), int)
    assert nn.Dropout(0, rng=rng())(x) is x
    assert set(np.unique(nn.Dropout(0.5, rng=rng())(x))) == {0.0, 2.0}


def test_cross_entropy_agrees_with_torch():
    logits, labels = rng().normal(0, 3, (7, 10)), rng().integers(0, 10, 7)
    t = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels))
    expected.backward()
    loss, dlogits = nn.softmax_cross_entropy(logits, labels)
    assert abs(loss - expected.item()) < 1e-12
    np.testing.assert_allclose(dlogits, t.grad, atol=1e-15)


def test_cross_entropy_does_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        loss, dlogits = nn.softmax_cross_entropy(np.array([[1e4, -1e4]], np.float32), np.array([1]))
    assert loss == pytest.approx(2e4) and np.isfinite(dlogits).all()


@pytest.mark.parametrize(
    "message, make",
    [
        (r"Linear\(0, 3\): expected 1 or more", lambda: nn.Linear(0, 3, std=1, rng=rng())),
        ("std is -1; expected 0 or more", lambda: nn.Linear(3, 3, std=-1, rng=rng())),
        (r"x has shape \(2, 3\); expected \(N, 5\)", lambda: linear()(np.zeros((2, 3)))),
        (r"x has shape \(5,\); expected \(N, 5\)", lambda: linear()(np.zeros(5))),
        ("channels is 0", lambda: nn.BatchNorm(0)),
        ("momentum is 1.5", lambda: nn.BatchNorm(3, momentum=1.5)),
        ("eps is nan", lambda: nn.BatchNorm(3, eps=float("nan"))),
        (r"x has shape \(4, 2\); expected \(N, 3\) or", lambda: nn.BatchNorm(3)(np.ones((4, 2)))),
        (
            r"x has shape \(4, 2\); expected \(N, 3\) or",
            lambda: nn.BatchNorm(3, affine=False, track_running_stats=False)(np.ones((4, 2))),
        ),
        ("rate is 1; expected a number in", lambda: nn.Dropout(1, rng=rng())),
        ("rate is nan; expected a number in", lambda: nn.Dropout(float("nan"), rng=rng())),
        (
            r"logits has shape \(2, 3\), labels \(3,\)",
            lambda: nn.softmax_cross_entropy(np.zeros((2, 3)), np.zeros(3, int)),
        ),
        ("std is nan; expected 0 or more", lambda: nn.Linear(3, 3, std=float("nan"), rng=rng())),
        (r"Linear\(3, 0\): expected 1 or more", lambda: nn.Linear(3, 0, std=1, rng=rng())),
        ("eps is inf", lambda: nn.BatchNorm(3, eps=float("inf"))),
        (
            "0 labels of dtype int64; expected at least one integer",
            lambda: nn.softmax_cross_entropy(np.zeros((0, 3)), np.zeros(0, int)),
        ),
        (
            "2 labels of dtype float64; expected at least one integer",
            lambda: nn.softmax_cross_entropy(np.zeros((2, 3)), np.zeros(2)),
        ),
        (
            "labels go from -1 to 0; expected 0 to 2",
            lambda: nn.softmax_cross_entropy(np.zeros((2, 3)), np.array([-1, 0])),
        ),
        (
            "labels go from 0 to 3; expected 0 to 2",
            lambda: nn.softmax_cross_entropy(np.zeros((2, 3)), np.array([0, 3])),
        ),
    ],
)
def test_bad_input(message, make):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("spatial", [(), (5,), (4, 3)])
def test_a_frozen_layer_passes_gradients_on_like_torch(spatial, affine):
    rng = np.random.default_rng(0)
    layer = nn.BatchNorm(3, affine=affine, dtype=np.float64)
    witness = torch.nn.BatchNorm2d if len(spatial) == 2 else torch.nn.BatchNorm1d
    theirs = witness(3, affine=affine).double()
    if affine:
        layer.gamma.value[:], layer.beta.value[:] = rng.normal(size=(2, 3))
        with torch.no_grad():
            theirs.weight[:] = torch.tensor(layer.gamma.value)
            theirs.bias[:] = torch.tensor(layer.beta.value)
    for _ in range(3):
        x = rng.normal(2, 3, (6, 3, *spatial))
        layer(x), theirs(torch.tensor(x))
    layer.eval(), theirs.eval()
    x, dy = rng.normal(size=(2, 6, 3, *spatial))
    leaf = torch.tensor(x, requires_grad=True)
    layer(x), theirs(leaf).backward(torch.tensor(dy))
    before = layer.running.mean.copy()
    np.testing.assert_allclose(layer.backward(dy), leaf.grad, rtol=1e-12)
    if affine:
        np.testing.assert_allclose(layer.gamma.grad, theirs.weight.grad, rtol=1e-12)
        np.testing.assert_allclose(layer.beta.grad, theirs.bias.grad, rtol=1e-12)
    assert np.array_equal(layer.running.mean, before)


def test_a_frozen_layer_keeps_dtype_and_checks_dy():
    layer = nn.BatchNorm(3)
    layer.eval()
    layer(np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match=r"dy has shape \(1, 3\); expected \(4, 3\)"):
        layer.backward(np.ones((1, 3), np.float32))
    assert layer.backward(np.ones((4, 3), np.float32)).dtype == np.float32


def test_the_gradient_belongs_to_the_last_forward_pass():
    """Inference and then training again: not the frozen gradient."""
    rng = np.random.default_rng(0)
    layer, fresh = nn.BatchNorm(3, dtype=np.float64), nn.BatchNorm(3, dtype=np.float64)
    x, dy = rng.normal(size=(2, 6, 3))
    layer.eval()
    layer(x + 1)
    layer.train()
    layer(x), fresh(x)
    np.testing.assert_array_equal(layer.backward(dy), fresh.backward(dy))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    "size, padding, shape",
    [
        (1, 0, (2, 3, 4, 5)),
        (2, 0, (2, 2, 5, 6)),
        (3, 0, (2, 3, 6, 5)),
        (3, 1, (4, 1, 5, 7)),
        (5, 2, (1, 2, 3, 3)),
        (5, 2, (2, 2, 8, 9)),
    ],
)
def test_conv2d_agrees_with_torch(size, padding, shape, stride, bias):
    where = {"stride": stride, "padding": padding, "bias": bias}
    ours = nn.Conv2d(shape[1], 4, size, std=0.5, rng=rng(), dtype=np.float64, **where)
    theirs = torch.nn.Conv2d(shape[1], 4, size, **where).double()
    if bias:
        ours.bias.value[:] = rng().normal(size=4)
    with torch.no_grad():
        for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
            its[:] = torch.tensor(mine.value)
    x = np.random.default_rng(1).normal(size=shape)
    leaf = torch.tensor(x, requires_grad=True)
    y, expected = ours(x), theirs(leaf)
    np.testing.assert_allclose(y, expected.detach(), atol=1e-12)
    dy = np.random.default_rng(2).normal(size=y.shape)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(ours.backward(dy), leaf.grad, atol=1e-12)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(mine.grad, its.grad, atol=1e-11)


@pytest.mark.parametrize("height, width", [(6, 7), (5, 8)])
def test_conv2d_with_stride_by_central_differences(height, width):
    layer = nn.Conv2d(2, 3, 3, std=0.5, rng=rng(), stride=2, padding=1, dtype=np.float64)
    x = np.random.default_rng(1).normal(size=(2, 2, height, width))
    dy = np.random.default_rng(2).normal(size=layer(x).shape)

    def loss():
        return float((layer(x) * dy).sum())

    dx = layer.backward(dy)
    assert max_relative_error(dx, numerical_gradient(loss, x)) < 1e-7
    for p in layer.parameters():
        assert max_relative_error(p.grad, numerical_gradient(loss, p.value)) < 1e-7


def test_conv2d_adds_to_its_gradients_keeps_float32_and_can_save_dx():
    x = rng().normal(size=(2, 3, 5, 5)).astype(np.float32)
    layer = nn.Conv2d(3, 2, 3, std=0.5, rng=rng(), needs_dx=False)
    y = layer(x)
    assert y.dtype == np.float32 and y.shape == (2, 2, 3, 3)
    dx = layer.backward(np.ones_like(y))
    once = layer.weight.grad.copy()
    layer(x)
    layer.backward(np.ones_like(y))
    np.testing.assert_allclose(layer.weight.grad, 2 * once, rtol=1e-6)
    assert dx.shape == x.shape and np.isnan(dx).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_max_pool_agrees_with_torch(size):
    x = rng().normal(size=(2, 3, 6, 12))
    x[0, 0] = 1  # all equal: torch and we take the first
    leaf = torch.tensor(x, requires_grad=True)
    layer, expected = nn.MaxPool2d(size), torch.nn.functional.max_pool2d(leaf, size)
    y = layer(x)
    np.testing.assert_array_equal(y, expected.detach())
    dy = np.random.default_rng(1).normal(size=y.shape)
    expected.backward(torch.tensor(dy))
    np.testing.assert_array_equal(layer.backward(dy), leaf.grad)


def test_a_small_convolutional_network_passes_the_gradient_check():
    make = {"std": 0.5, "rng": rng(), "dtype": np.float64}
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False, **make),
        nn.BatchNorm(2, dtype=np.float64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3, **make),
    )
    x, labels = np.random.default_rng(1).normal(size=(5, 1, 4, 4)), np.array([0, 2, 1, 1, 0])

    def loss():
        return nn.softmax_cross_entropy(net(x), labels)[0]

    _, dlogits = nn.softmax_cross_entropy(net(x), labels)
    dx = net.backward(dlogits)
    grads = [p.grad.copy() for p in net.parameters()]
    assert max_relative_error(dx, numerical_gradient(loss, x)) < 1e-7
    for p, grad in zip(net.parameters(), grads, strict=True):
        assert max_relative_error(grad, numerical_gradient(loss, p.value)) < 1e-7


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda r: nn.Conv2d(0, 2, 3, std=1, rng=r), r"Conv2d\(0, 2, 3\): expected 1 or more"),
        (lambda r: nn.Conv2d(1, 2, 0, std=1, rng=r), r"Conv2d\(1, 2, 0\): expected 1 or more"),
        (lambda r: nn.Conv2d(1, 2, 3, std=-1, rng=r), "std is -1; expected 0 or more"),
        (lambda r: nn.Conv2d(1, 2, 3, std=1, rng=r, padding=-1), "padding is -1; expected 0"),
        (lambda r: nn.Conv2d(1, 2, 3, std=1, rng=r, stride=0), "stride is 0; expected 1 or more"),
        (lambda r: nn.MaxPool2d(0), "size is 0; expected 1 or more"),
        (
            lambda r: nn.Conv2d(2, 2, 3, std=1, rng=r)(np.ones((4, 1, 5, 5))),
            r"x has shape \(4, 1, 5, 5\); expected \(N, 2, H, W\), H and W at least 3",
        ),
        (
            lambda r: nn.Conv2d(1, 2, 5, std=1, rng=r, padding=1)(np.ones((4, 1, 2, 5))),
            "H and W at least 3",
        ),
        (
            lambda r: nn.MaxPool2d(2)(np.ones((4, 1, 5, 6))),
            r"x has shape \(4, 1, 5, 6\); expected .* multiples of 2",
        ),
    ],
)
def test_convolution_and_pooling_name_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make(rng())


def test_convolution_and_pooling_check_dy():
    conv, pool = nn.Conv2d(1, 2, 3, std=1, rng=rng()), nn.MaxPool2d(2)
    conv(np.ones((4, 1, 6, 6), np.float32)), pool(np.ones((4, 1, 6, 6)))
    for layer, shape in (conv, "(4, 2, 4, 4)"), (pool, "(4, 1, 3, 3)"):
        with pytest.raises(ValueError, match=re.escape(f"dy has shape (4, 1); expected {shape}")):
            layer.backward(np.ones((4, 1)))
