"""bnlib.torch's layers: against torch's, in torch's tools, and put into models by `convert`."""

import copy
import inspect
import io
import json
import pickle
import warnings

import numpy as np
import pytest
import torch
from conftest import ROOT
from peers import import_torchvision
from test_torch import assert_close, draw

from bnlib.torch import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormMode,
    BatchNormReLU,
    convert,
    restore,
)
from bnlib.torch.distributed import convert_sync

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
    assert type(layers[0]) is type(layers[1])
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
    fused = BatchNormReLU(ours)
    for training in True, False:
        fused.train(training), theirs.train(training)
        for x, residual in batches(device, positions=positions):
            y = theirs(x)
            assert_close([fused(x, residual)], [(y + residual).relu()], 1e-10)
            assert_close([fused(x)], [theirs(x).relu()], 1e-10)
    assert_close(ours.state_dict().values(), theirs.state_dict().values(), 1e-10)


def test_a_block_that_is_looked_at_is_made_of_layers_of_torch(device):
    block = BatchNormReLU(BatchNorm2d(3, device=device, dtype=torch.float64)).eval()
    (x, residual), *_ = batches(device)
    traced = torch.fx.symbolic_trace(block, concrete_args={"residual": None})
    assert [type(m) for m in traced.modules()][1:] == [torch.nn.BatchNorm2d]
    assert_close([traced(x)], [block(x)], 1e-12)
    seen = []
    block.norm.register_forward_hook(lambda layer, inputs, y: seen.append(y))
    z = block(x, residual)
    assert_close([(seen[0] + residual).relu()], [z], 0)


def test_layers_take_all_that_those_of_torch_take(device):
    for layer, positions in LAYERS:
        theirs = inspect.signature(getattr(torch.nn, layer.__name__)).parameters
        ours = layer(3, 0.01, 0.3, False, False, device, torch.float64)
        assert (ours.eps, ours.momentum, ours.affine) == (0.01, 0.3, False)
        ((x, _),) = batches(device, count=1, positions=positions)
        assert ours(input=x).dtype == torch.float64
        if "bias" in theirs:
            one = layer(3, bias=False, device=device, dtype=torch.float64)
            assert one.bias is None
            assert_close([one(x)], [layer(3, device=device, dtype=torch.float64)(x)], 0)


def test_a_layer_that_holds_nothing_takes_any_number_of_channels(device):
    layer = BatchNorm2d(3, affine=False, track_running_stats=False, device=device)
    assert layer(torch.randn(4, 5, 2, 2, device=device)).shape == (4, 5, 2, 2)


def used(layer, x):
    """Whether bnlib computes: torch loses digits at a mean of 10⁴."""
    x = 1e4 + x.float()
    y, exact = layer(x), torch.nn.functional.batch_norm(x.double(), None, None, None, None, True)
    return (y - exact).abs().max().item() < 1e-5


def test_copies_and_files_are_the_same_layer(device):
    layer = BatchNorm2d(3, device=device)
    (x, _), *_ = batches(device, torch.float32, positions=(16, 16))
    assert used(layer, x) and not used(torch.nn.BatchNorm2d(3, device=device), x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert type(other) is torch.nn.BatchNorm2d and used(other, x)
        assert other.num_batches_tracked == 2 and layer.num_batches_tracked == 1
        assert used(restore(other), x) is False and used(layer.train(), x)
        layer.num_batches_tracked -= 1


@pytest.mark.parametrize("kind", ["torch", "own forward", "synchronized"])
def test_a_replica_for_a_device_computes_with_what_it_holds_itself(kind):
    """As torch.nn.DataParallel makes them, whose replicas are shallow copies with other tensors."""

    def replicate(layer):
        replica = layer._replicate_for_data_parallel()
        for name, parameter in layer.named_parameters():
            setattr(replica, name, 3 * parameter)
        replica._buffers = {name: v.clone() for name, v in layer.named_buffers()}
        return replica

    theirs = Own(3) if kind == "own forward" else torch.nn.BatchNorm2d(3)
    ours = (convert_sync if kind == "synchronized" else convert)(copy.deepcopy(theirs))
    before = copy.deepcopy(ours.state_dict())
    replicas = [replicate(replicate(layer)) for layer in (ours, theirs)]
    (x, dy), *_ = batches("cpu", torch.float32, positions=(16, 16))
    results = [replica(x) for replica in replicas]
    assert_close(*([y.detach()] for y in results), 1e-5)
    for y in results:
        y.backward(dy)
    assert_close(*([p.grad for p in layer.parameters()] for layer in (ours, theirs)), 1e-3)
    assert_close(*(replica._buffers.values() for replica in replicas), 1e-5)
    assert_close(ours.state_dict().values(), before.values(), 0)
    far = 1e4 + x.detach()  # where torch loses digits
    exact = replicate(theirs.double())(far.double())
    assert (replicas[0](far) - exact).abs().max() < 1e-5
    assert (restore(replicas[0])(far) - exact).abs().max() > 1e-5


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
            torch.nn.Conv2d(3, 4, 3, bias=False), BatchNormReLU(BatchNorm2d(4, momentum=momentum))
        ).to(device, torch.float64)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        run = torch.compile(net, fullgraph=True, backend="aot_eager") if compiling else net
        for x, _ in batches(device, torch.float64, positions=(5, 4)):
            optimizer.zero_grad()
            run(x).square().sum().backward()
            optimizer.step()
        nets.append(net)
    assert_close(*(net.state_dict().values() for net in nets), 1e-9)
    assert nets[0][1].norm.num_batches_tracked == 4


# What others see


@pytest.mark.parametrize("strict", [False, True])
def test_an_export_holds_the_operation_of_torch(strict, device):
    ours, theirs = pair(device)
    (x, _), (other, _), *_ = batches(device)
    batch = torch.export.Dim("batch", min=2)
    for training in True, False:
        graphs = []
        for layer in ours.train(training), theirs.train(training):
            shapes = ({0: batch},)
            program = torch.export.export(
                layer, (x.detach(),), dynamic_shapes=shapes, strict=strict
            )
            graphs.append([str(node.target) for node in program.graph.nodes])
        assert graphs[0] == graphs[1] and "aten.batch_norm.default" in graphs[0]
    assert_close([program.module()(other)], [ours(other)], 1e-12)


def test_fx_keeps_the_layer_which_trains_and_stops_training(device):
    """torch.fx takes as leaves the classes of torch alone; of others it writes one mode down."""
    ours, theirs = pair(device)
    net = torch.fx.symbolic_trace(torch.nn.Sequential(ours))
    assert [node.op for node in net.graph.nodes] == ["placeholder", "call_module", "output"]
    for training in True, False, True:
        net.train(training), theirs.train(training)
        for x, dy in batches(device):
            assert_close(step(net, x, dy), step(theirs, x, dy), 1e-10)
        assert_close(net.state_dict().values(), theirs.state_dict().values(), 1e-10)
    constant = torch.full((4, 3, 2, 2), 2.0, device=device, dtype=torch.float64)
    fresh = torch.nn.Sequential(BatchNorm2d(3, device=device, dtype=torch.float64))
    y = torch.fx.symbolic_trace(fresh).eval()(constant)
    torch.testing.assert_close(y, constant / (1 + 1e-5) ** 0.5)


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize(
    "make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(2, 3, 2, 2))]
)
def test_torchscript_holds_the_operation_of_torch(make):
    ours, theirs = (layer.eval() for layer in pair("cpu", torch.float32))
    written = [make(torch.nn.Sequential(layer)) for layer in (ours, theirs)]
    graphs = [[node.kind() for node in one.inlined_graph.nodes()] for one in written]
    assert graphs[0] == graphs[1] and "aten::batch_norm" in graphs[0]
    (x, _), *_ = batches("cpu", torch.float32)
    assert torch.equal(*(one(x) for one in written))
    layer = BatchNorm2d(3)
    make(torch.nn.Sequential(layer))
    assert used(layer, batches_of_images())


def batches_of_images():
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_computes_the_same_again_outside_of_a_mode(reentrant, device):
    """Under a mode that sees each operation, such as one that counts, and outside of it."""
    ours, theirs = pair(device)
    for x, dy in batches(device):
        results = []
        for layer in ours, theirs:
            leaf = x.detach().clone().requires_grad_()
            with torch.utils.flop_counter.FlopCounterMode(display=False):
                y = torch.utils.checkpoint.checkpoint(layer, leaf, use_reentrant=reentrant)
            y.backward(dy)
            results.append((y, leaf.grad))
        assert_close(*results, 1e-10)


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
        ("eps is 0; expected a positive number", lambda: BatchNorm1d(3, eps=0)(torch.ones(4, 3))),
        ("eps is nan; expected", lambda: BatchNorm1d(3, eps=float("nan"))(torch.ones(4, 3))),
        ("momentum is 1.5; expected", lambda: BatchNorm1d(3, momentum=1.5)(torch.ones(4, 3))),
        (r"expected 4D input \(got 2D input\)", lambda: BatchNorm2d(3)(torch.ones(4, 3))),
        (r"has shape \(3,\); expected \(5,\)", lambda: BatchNorm2d(3)(torch.ones(4, 5, 2, 2))),
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


# convert


def resnet18():
    torch.manual_seed(0)
    return import_torchvision("models").resnet18(num_classes=3)


def test_resnet18(device):
    """As a drop-in: the same outputs, gradients and running statistics, and state dicts."""
    theirs = resnet18().to(device, torch.float64)
    ours = convert(copy.deepcopy(theirs))
    assert sum("forward" in vars(layer) for layer in ours.modules()) == 20
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
    assert "forward" in vars(net.norm) and net.norm is net.again
    x = torch.randn(8, 3)
    assert_close([net(x)], [expected(x)], 1e-5)
    assert_close(net.state_dict().values(), expected.state_dict().values(), 1e-6)
    assert net.norm.num_batches_tracked == 2


def test_convert_changes_nothing_but_the_forward_pass_and_restore_turns_it_back():
    """Parameters, buffers, hooks and modes are the same objects: optimizers go on."""
    for name in "BatchNorm1d", "BatchNorm2d", "BatchNorm3d":
        layer = getattr(torch.nn, name)(3, eps=0.1, momentum=0.3).eval()
        calls = []
        layer.register_forward_hook(lambda *_, calls=calls: calls.append("forward"))
        layer.weight.requires_grad_(False)
        before = dict(layer.__dict__), [id(v) for v in layer.state_dict(keep_vars=True).values()]
        assert convert(layer) is layer and type(layer) is getattr(torch.nn, name)
        ours = {k: vars(layer).pop(k) for k in ("forward", "_replicate_for_data_parallel")}
        after = dict(layer.__dict__), [id(v) for v in layer.state_dict(keep_vars=True).values()]
        assert after == before
        vars(layer).update(ours)
        layer(torch.randn(2, 3, *[2] * (int(name[-2]) if name[-2] != "1" else 0)))
        assert calls == ["forward"]
        assert restore(layer) is layer and dict(layer.__dict__) == before[0]


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


class Derived(torch.nn.BatchNorm2d):
    """With torch's forward pass."""


class Own(torch.nn.BatchNorm2d):
    """With one of its own, as timm's layers have."""

    def forward(self, x, *, scale=1.0):
        y = torch.nn.functional.batch_norm(
            input=x, running_mean=self.running_mean, running_var=self.running_var, training=True
        )
        return scale * y.relu()


def test_derived_layers_are_converted_and_stay_what_they_are(device):
    x = 1e4 + batches_of_images().to(device)
    for kind in Derived, Own, torch.nn.LazyBatchNorm2d:
        arguments = () if kind is torch.nn.LazyBatchNorm2d else (3,)
        layer = convert(kind(*arguments, device=device))
        assert type(layer) is kind
        exact = kind(*arguments, device=device, dtype=torch.float64)(x.double())
        layer(x)  # a lazy one knows its channels now
        for one in layer, pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer):
            assert (one(x) - exact).abs().max() < 1e-5
        assert (restore(layer)(x) - exact).abs().max() > 1e-5
    scaled = convert(Own(3, device=device))(x, scale=2.0)
    assert_close(
        [scaled.double()], [2 * Own(3, device=device, dtype=torch.float64)(x.double())], 1e-4
    )


def test_a_mode_in_which_the_function_of_torch_is_ours(device):
    x = 1e4 + batches_of_images().to(device)
    layer, exact = Own(3, device=device), Own(3).to(device, torch.float64)(x.double())
    with BatchNormMode():
        assert (layer(x) - exact).abs().max() < 1e-5
        traced = torch.fx.symbolic_trace(layer)
    assert torch.nn.functional.batch_norm in [node.target for node in traced.graph.nodes]
    assert (layer(x) - exact).abs().max() > 1e-5
    torch._dynamo.reset()
    compiled = torch.compile(convert(layer), fullgraph=True, backend="aot_eager")
    assert_close([compiled(x).double()], [exact], 1e-2)


def test_convert_leaves_other_layers_alone():
    net = torch.nn.ModuleList([torch.nn.SyncBatchNorm(3), torch.nn.InstanceNorm2d(3)])
    with pytest.warns(UserWarning, match="changed nothing: there is SyncBatchNorm in the ModuleL"):
        convert(net)
    taken = torch.nn.BatchNorm2d(3)
    taken.forward = torch.relu  # as a tool may have done that knows how to turn it back
    net.append(taken).append(torch.nn.BatchNorm2d(3))
    assert ["forward" in vars(layer) for layer in convert(net)] == [False, False, True, True]
    assert taken.forward is torch.relu and restore(taken).forward is torch.relu


def test_a_model_without_such_layers_is_named():
    with pytest.warns(UserWarning, match="there is no BatchNorm layer in the Linear; expected"):
        convert(torch.nn.Linear(2, 2))


def test_the_record_of_other_peoples_code_is_of_the_pinned_versions():
    """`make clients` makes the record; tests/clients compares it with what is seen."""
    lines = [
        line.partition(";")[0].strip()
        for name in ("requirements.txt", "requirements-clients.txt")
        for line in (ROOT / name).read_text().splitlines()
    ]
    record = json.loads((ROOT / "bnlib" / "clients.json").read_text())
    versions = {row["package"]: row["version"] for row in record}
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert len(versions) > 10
    assert versions == {package: pinned[package] for package in versions}
