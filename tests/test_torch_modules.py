"""bnlib.torch's layers: against torch's, in torch's tools, and put into models by `convert`."""

import copy
import inspect
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from test_torch import assert_close, draw

import bnlib.torch
from bnlib import mnist
from bnlib.torch import BatchNorm1d, BatchNorm2d, BatchNorm3d, convert

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
LAYERS = [(BatchNorm1d, ()), (BatchNorm1d, (5,)), (BatchNorm2d, (5, 2)), (BatchNorm3d, (2, 3, 2))]


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request):
    return torch.device(request.param)


def pair(device, dtype=torch.float64, layer=BatchNorm2d, **options):
    """Our layer and torch's, with the same random weight and bias."""
    ours = layer(3, device=device, dtype=dtype, **options)
    for i, p in enumerate(ours.parameters()):
        p.data += torch.randn(3, generator=torch.Generator().manual_seed(i)).to(p)
    theirs = getattr(torch.nn, layer.__name__)(3, device=device, dtype=dtype, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def step(layer, x, dy):
    """y, dx and the derivatives of the parameters."""
    layer.zero_grad()
    x = x.detach().clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def batches(device, dtype=torch.float64, count=4, positions=(5, 2)):
    for seed in range(count):
        x, _, _, dy, *_ = draw((4 + seed, 3, *positions), device, dtype, seed)
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


@pytest.mark.parametrize("layer, positions", LAYERS)
def test_each_layer_agrees_with_its_own_in_torch(layer, positions, device):
    layers = pair(device, layer=layer)
    assert isinstance(layers[0], type(layers[1]))
    for training in True, False:
        for x, dy in batches(device, positions=positions):
            assert_close(*(step(one.train(training), x, dy) for one in layers), 1e-10)
    assert_close(*(one.state_dict().values() for one in layers), 1e-10)


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


@pytest.mark.parametrize("layer, positions", LAYERS)
def test_residual_and_relu(layer, positions, device):
    ours, theirs = pair(device, layer=layer)
    fused = layer(3, relu=True, device=device, dtype=torch.float64)
    fused.load_state_dict(ours.state_dict(), strict=True)
    assert "relu=True" in repr(fused) and "relu" not in repr(ours)
    for x, residual in batches(device, positions=positions):
        y = theirs(x)
        assert_close([ours(x, residual), ours(x)], [y + residual, y], 1e-10)
        assert_close([fused(x, residual), fused(x)], [(y + residual).relu(), y.relu()], 1e-10)


def test_layers_take_all_that_those_of_torch_take(device):
    for layer, positions in LAYERS:
        theirs = inspect.signature(getattr(torch.nn, layer.__name__))
        ours = list(inspect.signature(layer).parameters)
        assert ours[:7] == list(theirs.parameters)[:7]
        if "bias" in theirs.parameters:
            one = layer(3, bias=False, device=device, dtype=torch.float64)
            assert one.bias is None
            ((x, _),) = batches(device, count=1, positions=positions)
            assert_close([one(x)], [layer(3, device=device, dtype=torch.float64)(x)], 0)


def test_copies_and_files_are_the_same_layer(device):
    layer = BatchNorm2d(3, relu=True, device=device, dtype=torch.float64)
    (x, _), *_ = batches(device)
    layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    copies = [
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ]
    expected = layer.eval()(x)
    for other in copies:
        assert type(other) is BatchNorm2d
        assert_close([other.eval()(x)], [expected], 0)


def test_functional_call_with_a_gradient_for_each_example(device):
    ours, theirs = (layer.eval() for layer in pair(device))
    ((x, _),) = batches(device, count=1)

    def gradients(layer):
        def loss(parameters, one):
            return torch.func.functional_call(layer, parameters, (one[None],)).sin().sum()

        parameters = dict(layer.named_parameters())
        return torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)

    torch.testing.assert_close(gradients(ours), gradients(theirs))


@pytest.mark.parametrize("momentum", [0.1, 0.7])
def test_a_compiled_training_step_equals_one_that_is_not(momentum, device):
    torch._dynamo.reset()
    nets = []
    for compiling in True, False:
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), BatchNorm2d(4, momentum=momentum, relu=True)
        ).to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        run = torch.compile(net, fullgraph=True, backend="aot_eager") if compiling else net
        for x, _ in batches(device, torch.float32, positions=(5, 4)):
            optimizer.zero_grad()
            run(x).square().sum().backward()
            optimizer.step()
        nets.append(net)
    assert_close(*(net.state_dict().values() for net in nets), 1e-5)
    assert nets[0][1].num_batches_tracked == 4


def test_export(device):
    ours, _ = pair(device)
    (x, _), (other, _), *_ = batches(device)
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(ours.eval(), (x.detach(),), dynamic_shapes=({0: batch},))
    assert_close([program.module()(other)], [ours(other)], 1e-12)


def test_fx_traces_inference(device):
    ours, _ = pair(device)
    (x, _), *_ = batches(device)
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(ours).eval())
    assert_close([traced(x)], [ours(x)], 0)
    assert [node.target for node in traced.graph.nodes if node.op == "call_function"] == [
        bnlib.torch.batch_norm
    ]


def test_fx_traces_training_and_counts(device):
    ours, _ = pair(device)
    (x, _), *_ = batches(device)
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(copy.deepcopy(ours)).train())
    assert_close([traced(x)], [ours(x)], 0)
    state = {name.removeprefix("0."): v for name, v in traced.state_dict().items()}
    assert_close(state.values(), ours.state_dict().values(), 0)


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
        (
            r"x has shape \(4,\); expected \(N, 3\) or \(N, 3, L\)",
            lambda: BatchNorm1d(3)(torch.ones(4)),
        ),
        (
            r"x has shape \(4, 3\); expected \(N, 3, D, H, W\)",
            lambda: BatchNorm3d(3)(torch.ones(4, 3)),
        ),
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


# convert


def resnet18():
    """torchvision's, which cannot be imported where it was built for another torch."""
    mnist._torchvision_mnist()  # declares what is missing then
    from torchvision.models import resnet18

    torch.manual_seed(0)
    return resnet18(num_classes=3)


def test_resnet18(device):
    """As a drop-in: the same outputs, gradients and running statistics, and state dicts."""
    theirs = resnet18().to(device, torch.float64)
    ours = convert(copy.deepcopy(theirs))
    kinds = [type(layer) for layer in ours.modules()]
    assert kinds.count(BatchNorm2d) == 20 and torch.nn.BatchNorm2d not in kinds
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64, device=device)
    for net in ours, theirs:
        torch.nn.functional.cross_entropy(net(x), torch.tensor([0, 1, 2, 1]).to(device)).backward()
    assert_close(*([p.grad for p in net.parameters()] for net in (ours, theirs)), 1e-9)
    assert_close(*(net.state_dict().values() for net in (ours, theirs)), 1e-9)
    assert_close(*([net.eval()(x)] for net in (ours, theirs)), 1e-9)
    fresh = resnet18().to(device, torch.float64)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    convert(fresh).load_state_dict(theirs.state_dict(), strict=True)
    assert_close([fresh.eval()(x)], [theirs(x)], 1e-9)


class Twice(torch.nn.Module):
    """One layer in two places, under two names."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.norm = self.again = torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return self.again(self.first(self.norm(x)))


def test_a_layer_in_two_places_stays_one():
    net = Twice()
    expected = copy.deepcopy(net)
    assert convert(net) is net
    assert type(net.norm) is BatchNorm1d and net.norm is net.again
    x = torch.randn(8, 3)
    assert_close([net(x)], [expected(x)], 1e-5)
    assert_close(net.state_dict().values(), expected.state_dict().values(), 1e-6)
    assert net.norm.num_batches_tracked == 2


def test_convert_changes_nothing_but_the_class():
    """Parameters, buffers, hooks and modes are the same objects: optimizers go on."""
    for name in "BatchNorm1d", "BatchNorm2d", "BatchNorm3d":
        layer = getattr(torch.nn, name)(3, eps=0.1, momentum=0.3).eval()
        calls = []
        layer.register_forward_hook(lambda *_, calls=calls: calls.append("forward"))
        layer.weight.requires_grad_(False)
        before = dict(layer.__dict__), [id(v) for v in layer.state_dict(keep_vars=True).values()]
        assert convert(layer) is layer and type(layer) is getattr(bnlib.torch, name)
        after = dict(layer.__dict__), [id(v) for v in layer.state_dict(keep_vars=True).values()]
        assert after == before and not layer.relu
        layer(torch.randn(2, 3, *[2] * (int(name[-2]) if name[-2] != "1" else 0)))
        assert calls == ["forward"]


def test_an_optimizer_goes_on_with_a_converted_model():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    twin = copy.deepcopy(net)
    for model in net, twin:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for i in range(4):
            if i == 2 and model is net:
                convert(model)
            optimizer.zero_grad()
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(i))
            model(x).sin().sum().backward()
            optimizer.step()
    assert_close(net.state_dict().values(), twin.state_dict().values(), 1e-5)


def test_convert_leaves_other_layers_alone():
    class Own(torch.nn.BatchNorm2d):
        pass

    others = [
        Own(3),
        torch.nn.SyncBatchNorm(3),
        torch.nn.LazyBatchNorm2d(),
        torch.nn.InstanceNorm2d(3),
        BatchNorm2d(3, relu=True),
    ]
    net = torch.nn.ModuleList(others)
    kinds = [type(layer) for layer in others]
    assert [type(layer) for layer in convert(net)] == kinds and net[-1].relu
    net[2](torch.randn(4, 3, 2, 2))  # a lazy layer is one of the three from now on
    assert type(convert(net)[2]) is BatchNorm2d
