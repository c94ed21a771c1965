"""Models and tools of others meet converted layers as they meet those of torch: `make clients`.

Each job is done twice, with the model as its authors made it and after `bnlib.torch.convert`. What
is seen must be the same, and so must the numbers. `bnlib/clients.json` has a row for each job, from
where the book quotes it; `make clients RECORD=1` writes that file anew.
"""

import contextlib
import functools
import io
import json
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from conftest import ROOT
from packaging.version import Version
from peers import import_torchvision
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlib.torch import convert, modules

import_torchvision("models")
pytest.importorskip(
    "timm", reason="other people's code has an environment of its own: make clients"
)
torch.set_num_threads(1)  # the models and images are small
RECORD = ROOT / "bnlib" / "clients.json"
RECORDING = bool(os.environ.get("BNLIB_RECORD"))

Change = Callable[[Any], Any]
Outcome = tuple[str, Iterable[Tensor]]
CALLS: list[None] = []  # one for each time that bnlib computed


class Job(NamedTuple):
    """What somebody does with a model.

    Attributes:
        client: whose code does it.
        package: the name under which that is installed.
        what: what it does.
        run: given the change that is made to the model, what was seen, and numbers.
        tolerance: how far the numbers may be from those of torch's layers, as a part of the
            largest of a tensor, or of 1.
    """

    client: str
    package: str
    what: str
    run: Callable[[Change], Outcome]
    tolerance: float


JOBS: list[Job] = []


def job(client: str, package: str, what: str, tolerance: float = 1e-4) -> Callable[[Any], Any]:
    """Add a function to the jobs."""

    def add(run: Callable[[Change], Outcome]) -> Callable[[Change], Outcome]:
        JOBS.append(Job(client, package, what, run, tolerance))
        return run

    return add


# What several jobs need


def unchanged(model: Any) -> Any:
    """The change of a model with torch's own layers."""
    return model


def named(package: Any, name: str, **options: Any) -> nn.Module:
    """A model of torchvision, with statistics and scales that no default can hide."""
    torch.manual_seed(0)
    return settled(getattr(package, name)(weights=None, num_classes=5, **options))


def settled(model: nn.Module) -> nn.Module:
    """The model, with such statistics and scales."""
    for layer in norms(model):
        layer.running_mean.normal_(0, 0.1)
        layer.running_var.uniform_(0.5, 1.5)
        layer.weight.data.uniform_(0.5, 1.5)
        layer.bias.data.normal_(0, 0.1)
    return model


def resnet18() -> nn.Module:
    """torchvision's, which has 20 BatchNorm layers."""
    from torchvision import models

    return named(models, "resnet18")


def small() -> nn.Module:
    """A model for images of 8 × 8 pixels, one layer after the other."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    return settled(nn.Sequential(*layers))


def norms(model: nn.Module) -> list[nn.Module]:
    """The BatchNorm layers of a model."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm)]


def images(n: int = 4, *size: int) -> Tensor:
    """(N, 3, *size), 32 × 32 by default."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, *(size or (32, 32)), generator=generator)


LABELS = torch.tensor([0, 1, 2, 1])


def cross_entropy(y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(y, LABELS[: len(y)])


def step(
    model: nn.Module, x: Tensor, loss: Callable[[Any], Tensor] = cross_entropy
) -> Iterator[Tensor]:
    """The loss of a training step, its gradients, and all that the model holds afterward."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    value = loss(model.train()(x))
    value.backward()
    yield value
    yield from [p.grad for p in model.parameters() if p.grad is not None]
    optimizer.step()
    yield from model.state_dict().values()


def silent(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the function returns, without what it prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        return function(*args, **options)


def operations(graph: Any) -> str:
    """How often a graph of torch.fx calls BatchNorm and convolution."""
    names = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    return counts(
        ["BatchNorm" for name in names if "batch_norm" in name]
        + ["convolution" for name in names if "conv" in name]
    )


def counts(names: Iterable[str]) -> str:
    """How often each name occurs, in their order."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items()))


# Models


def trained(change: Change, models: dict[str, nn.Module], x: Tensor, **options: Any) -> Outcome:
    """A training step of each of the models, in float64."""
    seen, values = [], []
    for name, model in models.items():
        model = change(model.double())
        seen.append(f"{len(norms(model))} of {name}")
        values += step(model, x.double(), **options)
    return f"the layers train: {', '.join(seen)}", values


@job("torchvision", "torchvision", "a training step of four models", 1e-9)
def _(change: Change) -> Outcome:
    from torchvision import models

    names = "resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5"
    return trained(change, {name: named(models, name) for name in names}, images())


@job("torchvision", "torchvision", "a training step on videos", 1e-9)
def _(change: Change) -> Outcome:
    from torchvision.models import video

    return trained(change, {"r3d_18": named(video, "r3d_18")}, images(4, 4, 32, 32))


@job("torchvision", "torchvision", "create_feature_extractor, by torch.fx")
def _(change: Change) -> Outcome:
    from torchvision.models.feature_extraction import create_feature_extractor

    model = change(resnet18())
    features = create_feature_extractor(model, ["layer2", "layer4"])
    values = [*features(images()).values(), *features.eval()(images()).values()]
    return f"{len(norms(features))} layers stay layers, and follow train() and eval()", values


@job("timm", "timm", "a training step of three models", 1e-9)
def _(change: Change) -> Outcome:
    import timm

    names = "resnet18", "efficientnet_lite0", "repvgg_a0"
    models = {}
    for name in names:
        torch.manual_seed(0)
        models[name] = settled(timm.create_model(name, num_classes=5, drop_rate=0.0))
    return trained(change, models, images())


@job("timm", "timm", "reparameterize_model: the branches of a RepVGG become one convolution", 1e-3)
def _(change: Change) -> Outcome:
    import timm
    from timm.utils import reparameterize_model

    torch.manual_seed(0)
    model = change(settled(timm.create_model("repvgg_a0", num_classes=5))).eval()
    folded = reparameterize_model(model)
    return f"{len(norms(model))} layers before, {len(norms(folded))} after", [folded(images())]


@job("timm", "timm", "freeze_batch_norm_2d, then a training step")
def _(change: Change) -> Outcome:
    import timm
    from timm.layers import freeze_batch_norm_2d

    torch.manual_seed(0)
    model = change(settled(timm.create_model("efficientnet_lite0", num_classes=5)))
    before = len(norms(model))
    model = freeze_batch_norm_2d(model)
    return f"{before} layers before, {len(norms(model))} after", step(model, images())


@job("segmentation-models", "segmentation-models-pytorch", "a training step of two models", 1e-9)
def _(change: Change) -> Outcome:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    options = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 2}
    models = {kind.__name__: settled(kind(**options)) for kind in (smp.Unet, smp.FPN)}
    loss = smp.losses.DiceLoss("multiclass")
    target = (images()[:, 0] > 0).long()
    models["FPN"].decoder.dropout.p = 0.0
    return trained(change, models, images(), loss=lambda y: loss(y, target))


# What looks up layers by type: fusers, quantizers


@job("torch.fx", "torch", "fuse: BatchNorm goes into the convolution")
def _(change: Change) -> Outcome:
    from torch.fx.experimental.optimization import fuse

    model = change(resnet18()).eval()
    fused = fuse(model)
    return f"{len(norms(model))} layers before, {len(norms(fused))} after", [fused(images())]


@job("torch.ao", "torch", "fuse_modules, by torchvision's quantizable resnet18")
def _(change: Change) -> Outcome:
    from torchvision.models import quantization

    model = change(named(quantization, "resnet18", quantize=False)).eval()
    before = len(norms(model))
    model.fuse_model(is_qat=False)
    return f"{before} layers before, {len(norms(model))} after", [model(images())]


@job("torch.ao", "torch", "fuse_modules_qat, then a training step")
def _(change: Change) -> Outcome:
    from torchvision.models import quantization

    model = change(named(quantization, "resnet18", quantize=False)).train()
    model.fuse_model(is_qat=True)
    fused = [type(m).__name__ for m in model.modules() if "intrinsic" in type(m).__module__]
    return counts(fused), step(model, images())


@job("torch.ao", "torch", "prepare_fx and convert_fx: quantization after training")
def _(change: Change) -> Outcome:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(change(resnet18()).eval(), mapping, (images(),))
    prepared(images())
    quantized = convert_fx(prepared)
    kinds = [type(m).__name__ for m in quantized.modules() if "quantized" in type(m).__module__]
    return f"{counts(kinds)}, {len(norms(quantized))} BatchNorm", [quantized(images())]


@job("torch.ao", "torch", "prepare_qat_fx: a training step, then eval()", 1e-2)
def _(change: Change) -> Outcome:
    from torch.ao.quantization import get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    mapping = get_default_qat_qconfig_mapping("x86")
    model = prepare_qat_fx(change(resnet18()).train(), mapping, (images(),))
    cross_entropy(model(images())).backward()
    fused = [type(m).__name__ for m in model.modules() if "intrinsic" in type(m).__module__]
    return counts(fused), [model.eval()(images())]


@job("torchao", "torchao", "prepare_pt2e and convert_pt2e: quantization after training", 1e-2)
def _(change: Change) -> Outcome:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    program = torch.export.export(change(resnet18()).eval(), (images(),)).module()
    prepared = prepare_pt2e(program, xnnpack())
    prepared(images())
    quantized = convert_pt2e(prepared)
    return operations(quantized.graph), [quantized(images())]


@job("torchao", "torchao", "prepare_qat_pt2e: a training step, move_exported_model_to_eval", 1e-2)
def _(change: Change) -> Outcome:
    from torchao.quantization.pt2e import move_exported_model_to_eval
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    program = torch.export.export(change(resnet18()).train(), (images(),)).module()
    prepared = prepare_qat_pt2e(program, xnnpack(is_qat=True))
    cross_entropy(prepared(images())).backward()
    move_exported_model_to_eval(prepared)
    return operations(prepared.graph), [prepared(images())]


def xnnpack(**options: Any) -> Any:
    """What says where XNNPACK, of ExecuTorch, wants its integers."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer

    quantizer = xnnpack_quantizer.XNNPACKQuantizer()
    return quantizer.set_global(xnnpack_quantizer.get_symmetric_quantization_config(**options))


# What validates, counts, explains


@job("Opacus", "opacus", "ModuleValidator: BatchNorm mixes examples, which privacy forbids")
def _(change: Change) -> Outcome:
    from opacus.validators import ModuleValidator

    model = change(resnet18())
    errors = ModuleValidator.validate(model, strict=False)
    fixed = ModuleValidator.fix(model)
    groups = sum(isinstance(m, nn.GroupNorm) for m in fixed.modules())
    seen = f"{len(errors)} layers refused with {type(errors[0]).__name__}; fix makes"
    return f"{seen} {groups} GroupNorm of them", []


@job("torch", "torch", "FlopCounterMode")
def _(change: Change) -> Outcome:
    from torch.utils.flop_counter import FlopCounterMode

    model = change(resnet18())
    with FlopCounterMode(display=False) as counter:
        cross_entropy(model(images())).backward()
    return f"{counter.get_total_flops():,} in a training step", model.buffers()


@job("fvcore", "fvcore", "FlopCountAnalysis")
def _(change: Change) -> Outcome:
    from fvcore.nn import FlopCountAnalysis

    model = change(resnet18()).eval()
    analysis = FlopCountAnalysis(model, images(1)).unsupported_ops_warnings(False)
    by_operator = analysis.by_operator()
    return f"{analysis.total():,}, of which {by_operator['batch_norm']:,} of BatchNorm", []


@job("ptflops", "ptflops", "get_model_complexity_info")
def _(change: Change) -> Outcome:
    from ptflops import get_model_complexity_info

    model = change(resnet18())
    macs, params = silent(
        get_model_complexity_info, model, (3, 32, 32), as_strings=False, backend="pytorch"
    )
    return f"{macs:,} multiply-adds, {params:,} parameters", []


@job("thop", "thop", "profile")
def _(change: Change) -> Outcome:
    from thop import profile

    macs, params = silent(profile, change(resnet18()).eval(), (images(1),), verbose=False)
    return f"{macs:,.0f} multiply-adds, {params:,.0f} parameters", []


@job("torchinfo", "torchinfo", "summary")
def _(change: Change) -> Outcome:
    from torchinfo import summary

    shown = summary(change(resnet18()), input_data=images(1), verbose=0)
    lines = sum(
        line.is_leaf_layer and line.class_name == "BatchNorm2d" for line in shown.summary_list
    )
    return f"{lines} lines BatchNorm2d, {shown.total_mult_adds:,} multiply-adds", []


@job("Captum", "captum", "IntegratedGradients")
def _(change: Change) -> Outcome:
    from captum.attr import IntegratedGradients

    model = change(resnet18()).eval()
    return "attributions", [IntegratedGradients(model).attribute(images(2), target=1, n_steps=4)]


@job("Captum", "captum", "LRP, by a rule for each class of layer", 1e-3)
def _(change: Change) -> Outcome:
    from captum.attr import LRP

    model = change(nn.Sequential(*small()[:3], nn.Conv2d(4, 5, 6))).eval()
    relevance = LRP(model).attribute(images(2, 8, 8), target=(1, 0, 0))
    return "relevance of each pixel", [relevance]


@job("Zennit", "zennit", "LRP, with BatchNorm merged into the convolution", 1e-3)
def _(change: Change) -> Outcome:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    model = change(resnet18()).eval()
    composite = EpsilonPlusFlat(canonizers=[ResNetCanonizer()])
    with Gradient(model=model, composite=composite) as attributor:
        y, relevance = attributor(images(2), torch.eye(5)[[1, 1]])
    return "relevance of each pixel", [y, relevance]


@job("BackPACK", "backpack-for-pytorch", "DiagGGNExact, by an extension for each class of layer")
def _(change: Change) -> Outcome:
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact

    model = extend(change(small()).eval())
    loss = extend(nn.CrossEntropyLoss())
    with backpack(DiagGGNExact()):
        loss(model(images(4, 8, 8)), LABELS).backward()
    seen = f"a diagonal for each of {len(list(model.parameters()))} parameters"
    return seen, [p.diag_ggn_exact for p in model.parameters()]


@job("torch.func", "torch", "a gradient for each example, by vmap")
def _(change: Change) -> Outcome:
    model = change(resnet18()).eval()
    parameters = dict(model.named_parameters())

    def loss(parameters: Any, x: Tensor, label: Tensor) -> Tensor:
        y = torch.func.functional_call(model, parameters, (x[None],))
        return nn.functional.cross_entropy(y, label[None])

    gradient = torch.vmap(torch.func.grad(loss), (None, 0, 0))
    return "gradients", gradient(parameters, images(), LABELS).values()


# What writes the model down


@job("torch.export", "torch", "export, in training and in inference")
def _(change: Change) -> Outcome:
    model = change(resnet18())
    seen, values = [], []
    for training in True, False:
        program = torch.export.export(model.train(training), (images(),))
        seen.append(operations(program.graph))
        values.append(program.module()(images()))
    assert seen[0] == seen[1]
    return seen[0], values


@job("TorchScript", "torch", "script, trace and freeze")
def _(change: Change) -> Outcome:
    model = change(resnet18()).eval()
    seen, values = [], []
    for written in torch.jit.script(model), torch.jit.trace(model, images(), check_trace=False):
        frozen = torch.jit.freeze(written)
        for one in written, frozen:
            kinds = [node.kind() for node in one.inlined_graph.nodes()]
            seen.append(str(kinds.count("aten::batch_norm")))
            values.append(one(images()))
    return "BatchNorm: scripted {}, frozen {}; traced {}, frozen {}".format(*seen), values


@job("ONNX Runtime", "onnxruntime", "torch.onnx.export, then a run")
def _(change: Change) -> Outcome:
    import onnxruntime

    file = io.BytesIO()
    model = change(resnet18()).eval()
    program = silent(torch.onnx.export, model, (images(),), dynamo=True)
    program.save(file)
    kinds = [node.op_type for node in program.model_proto.graph.node]
    session = onnxruntime.InferenceSession(file.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: images().numpy()})
    seen = f"{kinds.count('Conv')} Conv, {kinds.count('BatchNormalization')} BatchNormalization"
    return f"{seen}, {len(kinds)} nodes in all", [torch.from_numpy(y)]


@job("OpenVINO", "openvino", "convert_model, compile_model, then a run")
def _(change: Change) -> Outcome:
    import openvino

    model = change(resnet18()).eval()
    compiled = openvino.compile_model(
        openvino.convert_model(model, example_input=images()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    kinds = [
        op.get_rt_info()["layerType"].astype(str) for op in compiled.get_runtime_model().get_ops()
    ]
    left = sum("Norm" in kind for kind in kinds)
    seen = f"{kinds.count('Convolution')} Convolution, {left} BatchNorm"
    return seen, [torch.from_numpy(compiled(images())[0])]


@job("ExecuTorch", "executorch", "to XNNPACK, then a run")
def _(change: Change) -> Outcome:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.export(change(resnet18()).eval(), (images(),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    nodes = [
        str(n.target) for n in lowered.exported_program().graph.nodes if n.op == "call_function"
    ]
    delegated = sum("executorch_call_delegate" in name for name in nodes)
    buffer = lowered.to_executorch().buffer  # the program does not keep it, nor the method that
    executable = Runtime.get().load_program(buffer)
    outputs = [v.clone() for v in executable.load_method("forward").execute([images()])]
    outside = sum("norm" in name for name in nodes)
    return f"{delegated} piece for XNNPACK, {outside} BatchNorm outside of it", outputs


@job("torch.compile", "torch", "a training step, compiled as one graph")
def _(change: Change) -> Outcome:
    torch._dynamo.reset()
    compiled = torch.compile(change(resnet18()), backend="eager", fullgraph=True)
    return "no break in the graph", step(compiled, images())


@job("timm", "timm", "torch.compile of layers with a forward pass of their own")
def _(change: Change) -> Outcome:
    import timm

    torch._dynamo.reset()
    torch.manual_seed(0)
    model = change(settled(timm.create_model("efficientnet_lite0", num_classes=5, drop_rate=0.0)))
    return "a training step", step(torch.compile(model, backend="eager"), images())


# What trains, here in float64: in two steps, rounding grows


@job("PyTorch Lightning", "pytorch-lightning", "Trainer.fit", 1e-9)
def _(change: Change) -> Outcome:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = change(resnet18().double())

        def training_step(self, batch: Any, index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(images().double(), LABELS)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    silent(trainer.fit, module, torch.utils.data.DataLoader(data, batch_size=4))
    return f"{trainer.global_step} steps", module.state_dict().values()


@job("Accelerate", "accelerate", "prepare, then two steps", 1e-9)
def _(change: Change) -> Outcome:
    from accelerate import Accelerator

    model = change(resnet18().double())
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for _ in range(2):
        optimizer.zero_grad()
        accelerator.backward(cross_entropy(model(images().double())))
        optimizer.step()
    return "2 steps", accelerator.unwrap_model(model).state_dict().values()


@job("Accelerate", "accelerate", "cpu_offload: parameters come when a layer is called")
def _(change: Change) -> Outcome:
    from accelerate import cpu_offload

    model = cpu_offload(change(resnet18().double()).eval(), torch.device("cpu"))
    return "outputs", [model(images().double())]


@job("torch.optim", "torch", "AveragedModel and update_bn", 1e-9)
def _(change: Change) -> Outcome:
    from torch.optim.swa_utils import AveragedModel, update_bn

    model = change(resnet18().double())
    averaged = AveragedModel(model)
    for _ in range(2):
        list(step(model, images().double()))
        averaged.update_parameters(model)
    update_bn([images().double(), images().double() + 1], averaged)
    return "statistics of 2 mini-batches", averaged.state_dict().values()


def on_two(wrap: Callable[[nn.Module], nn.Module], change: Change) -> Outcome:
    """Two steps on two processes, each with its own half of the mini-batch."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = on_ranks(functools.partial(_on_rank, wrap, change), 2, Path(folder))
    CALLS.extend([None] * outcomes[0][1])
    return "2 processes, 2 steps", [v for values, _ in outcomes for v in values]


def _on_rank(wrap: Callable[[nn.Module], nn.Module], change: Change, rank: int) -> Any:
    warnings.simplefilter("ignore")
    with counted():
        model = wrap(change(resnet18().double()))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x = images(4, 64, 64).double()[rank::2]
        values = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), LABELS[rank::2])
            loss.backward()
            optimizer.step()
            values.append(loss.detach())
        values += [b.detach().clone() for b in model.buffers()]
        values.append(model.eval()(x).detach())
    return values, len(CALLS)


def _fsdp1(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy
    from torchvision.models.resnet import BasicBlock

    policy = ModuleWrapPolicy({BasicBlock})
    return FullyShardedDataParallel(model, auto_wrap_policy=policy, device_id=torch.device("cpu"))


def _fsdp2(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    for block in *model.layer1, *model.layer2, *model.layer3, *model.layer4:
        fully_shard(block)
    return fully_shard(model)


for what, wrap in (
    ("DistributedDataParallel", nn.parallel.DistributedDataParallel),
    ("FullyShardedDataParallel, one unit a block", _fsdp1),
    ("fully_shard, one unit a block", _fsdp2),
):
    job("torch.distributed", "torch", what, 1e-9)(functools.partial(on_two, wrap))


# Each job


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """Note in CALLS when layers that are converted within compute with bnlib."""

    def batch_norm(*args: Any, **options: Any) -> Tensor:
        CALLS.append(None)
        return own(*args, **options)

    own = modules.batch_norm
    CALLS.clear()
    with mock.patch.object(modules, "batch_norm", batch_norm):
        yield


@pytest.fixture(scope="module")
def rows() -> Iterator[list[dict[str, Any]]]:
    """The rows of the record; when it is written anew, an empty list for them."""
    rows = [] if RECORDING else json.loads(RECORD.read_text())
    yield rows
    if RECORDING:
        RECORD.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.client}: {job.what}")
def test_what_is_seen_is_what_torchs_layers_show(job: Job, rows: list[dict[str, Any]]) -> None:
    outcomes = []
    for change in unchanged, convert:
        with counted():
            seen, values = job.run(change)
            outcomes.append((seen, [v.detach().clone() for v in values]))
    (seen, values), (ours, our_values) = outcomes
    assert ours == seen
    for a, b in zip(our_values, values, strict=True):
        error = (a.double() - b.double()).abs().max().item() if a.numel() else 0.0
        assert error <= job.tolerance * max(1.0, b.abs().max().item()), error
    row = {
        "client": job.client,
        "package": job.package,
        "version": Version(version(job.package)).public,
        "job": job.what,
        "seen": seen,
        "bnlib computes": bool(CALLS),
    }
    if RECORDING:
        rows.append(row)
    assert row in rows, "run `make clients RECORD=1`"


def test_the_record_has_a_row_for_each_job_and_no_other(rows: list[dict[str, Any]]) -> None:
    assert [(row["client"], row["job"]) for row in rows] == [(j.client, j.what) for j in JOBS]
