"""BatchNorm layers of torch that compute with `batch_norm`, and stay layers of torch."""

import copy
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F  # the name that torch.jit.script looks up
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from bnlib.torch.functional import batch_norm

_Module = TypeVar("_Module", bound=torch.nn.Module)

# torch 2.6 cannot tell torch.export from torch.compile.
_exporting: Callable[[], bool] = getattr(
    torch.compiler, "is_exporting", torch.compiler.is_compiling
)


def _traced(x: Any) -> bool:
    """Whether the operations are written down for others, who know torch's BatchNorm alone."""
    return not isinstance(x, Tensor) or torch.jit.is_tracing() or _exporting()


class BatchNormMode(TorchFunctionMode):
    """Within it, `torch.nn.functional.batch_norm` is `bnlib.torch.batch_norm`, for any layer.

    That is for layers whose class calls the function by itself, whoever wrote it::

        with BatchNormMode():
            y = model(x)

    What traces or exports the model, torch.compile too, meets torch's own function.

    Args:
        function: what takes its place.
    """

    def __init__(self, function: Callable[..., Tensor] = batch_norm) -> None:
        super().__init__()
        self.function = function

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `function` in place of torch's; all other functions stay what they are."""
        if func is F.batch_norm:
            x = args[0] if args else (kwargs or {}).get("input")
            if not (_traced(x) or torch.compiler.is_compiling()):
                func = self.function
                if kwargs and "input" in kwargs:
                    kwargs = {"x": kwargs["input"], **kwargs}
                    del kwargs["input"]
        return func(*args, **(kwargs or {}))


class _Ours:
    """A forward pass of bnlib's, which lies in a layer itself, and not in its class.

    For `type(layer)` is what tools look up in their tables. It is an object, and not a function, so
    that copies and files of the layer have it too.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def install(self) -> None:
        """Let the layer have it."""
        vars(self.layer).update(forward=self.forward, _replicate_for_data_parallel=self.replicate)

    def replicate(self) -> _BatchNorm:
        """A replica of the layer for a device of `torch.nn.DataParallel`, with its own."""
        ours = copy.copy(self)
        ours.layer = type(self.layer)._replicate_for_data_parallel(self.layer)
        ours.install()
        return ours.layer


def _ours(layer: torch.nn.Module) -> _Ours | None:
    """The forward pass of bnlib's that the layer has."""
    ours = getattr(vars(layer).get("forward"), "__self__", None)
    return ours if isinstance(ours, _Ours) else None


class _Forward(_Ours):
    """The forward pass of a layer whose class has that of torch."""

    def forward(self, input: Tensor) -> Tensor:
        if _traced(input):
            return _BatchNorm.forward(self.layer, input)
        return self.fused(input, None, False)

    def fused(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        layer = self.layer
        layer._check_input_dim(x)
        following = layer.training and layer.track_running_stats
        use_running = following or not layer.training
        batches = layer.num_batches_tracked if following else None
        momentum = layer.momentum
        if momentum is None:  # the average over all mini-batches: weights 1, 1/2, 1/3, …
            momentum = 0.0 if batches is None else 1 / (int(batches) + 1)
        y, count = self.normalize(
            x,
            layer.running_mean if use_running else None,
            layer.running_var if use_running else None,
            layer.weight,
            layer.bias,
            layer.training or layer.running_mean is None,
            momentum,
            layer.eps,
            residual=residual,
            relu=relu,
        )
        if batches is not None and count:
            batches += 1  # the buffer itself
        return y

    def normalize(self, x: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, int]:
        """y, and the number of values in the mini-batch."""
        return batch_norm(x, *arguments, **options), x.numel()


_Forward.forward.__wrapped__ = _BatchNorm.forward  # type: ignore[attr-defined] # for torch.jit.script


class _OwnForward(_Ours):
    """The forward pass of a layer whose class has its own, in which `function` is called."""

    def __init__(self, layer: _BatchNorm, function: Callable[..., Tensor]) -> None:
        super().__init__(layer)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run = type(self.layer).forward
        if torch.compiler.is_compiling():  # which asks for no mode
            return run(self.layer, *args, **kwargs)
        with BatchNormMode(self.function):
            return run(self.layer, *args, **kwargs)


class BatchNormReLU(torch.nn.Module):
    """max(0, BN(x) + residual), in one pass over memory where bnlib computes it.

    What traces the model meets the layer, an addition and a ReLU; so does a layer with hooks.

    Args:
        norm: a BatchNorm layer, which `bnlib.torch.convert` or `convert_sync` has seen or will see.

    Attributes:
        norm: the layer.
    """

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """max(0, BN(x) + residual), of the shape of x, as the residual is."""
        ours = _ours(self.norm)
        hooks = self.norm._forward_hooks or self.norm._forward_pre_hooks
        if isinstance(ours, _Forward) and not hooks and not _traced(x):
            return ours.fused(x, residual, True)
        y = self.norm(x)
        return (y if residual is None else y + residual).relu()


def BatchNorm1d(num_features: int, *args: Any, **options: Any) -> torch.nn.BatchNorm1d:
    """`convert(torch.nn.BatchNorm1d(num_features, …))`: the arguments are those of torch's."""
    return convert(torch.nn.BatchNorm1d(num_features, *args, **options))


def BatchNorm2d(num_features: int, *args: Any, **options: Any) -> torch.nn.BatchNorm2d:
    """`convert(torch.nn.BatchNorm2d(num_features, …))`: the arguments are those of torch's."""
    return convert(torch.nn.BatchNorm2d(num_features, *args, **options))


def BatchNorm3d(num_features: int, *args: Any, **options: Any) -> torch.nn.BatchNorm3d:
    """`convert(torch.nn.BatchNorm3d(num_features, …))`: the arguments are those of torch's."""
    return convert(torch.nn.BatchNorm3d(num_features, *args, **options))


def convert(model: _Module) -> _Module:
    """Let the BatchNorm layers of a torch model compute with `bnlib.torch.batch_norm`, in place.

    The layers stay the same objects of the same class, with their parameters, buffers and hooks;
    only their forward pass is another. So all that looks for layers of torch finds them: optimizers
    and state dicts, fusers, quantizers, validators, counters. And what writes the operations down,
    torch.fx, torch.export, TorchScript, ONNX, meets torch's own BatchNorm. torch.compile meets
    bnlib's. Layers of a class derived from torch's are converted too; one that has a forward pass
    of its own keeps it, with `batch_norm` in it (`BatchNormMode`).

    In two things the layers differ from torch's. An empty mini-batch is not counted. And a channel
    with a NaN or an infinity in the mini-batch keeps its running statistics; with `momentum=None`
    this mini-batch counts there like one that was equal to the average so far.

    Deep copies, files and the replicas of `torch.nn.DataParallel` are layers of their own. A
    shallow copy, by `copy.copy`, computes with the layer that it was copied from.

    `torch.nn.SyncBatchNorm` stays as it is, for `bnlib.torch.distributed.convert_sync`. A layer
    whose forward pass somebody else replaced stays, too. When that leaves nothing to convert, a
    warning says so.

    Args:
        model: a model, or a single layer.

    Returns:
        The model itself; `restore` turns it back.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2.
    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, _BatchNorm) and not isinstance(layer, torch.nn.SyncBatchNorm)
    ]
    for layer in layers:
        if "forward" not in vars(layer):
            own = type(layer).forward is not _BatchNorm.forward
            ours = _OwnForward(layer, batch_norm) if own else _Forward(layer)
            ours.install()
    if not any(map(_ours, layers)):
        left = _names(model.modules()) or "no BatchNorm layer"
        warnings.warn(
            f"convert changed nothing: there is {left} in the {type(model).__name__}; expected "
            "BatchNorm layers of torch, or derived from them, with a forward pass of their class",
            stacklevel=2,
        )
    return model


def restore(model: _Module) -> _Module:
    """Turn back what `convert` and `convert_sync` did to the layers of torch, in place.

    Args:
        model: a model, or a single layer.

    Returns:
        The model itself.
    """
    for layer in model.modules():
        if _ours(layer):
            del layer.forward, layer._replicate_for_data_parallel
    return model


def _names(layers: Iterable[torch.nn.Module]) -> str:
    """The classes of layers that are called BatchNorm and could not be changed, for a warning."""
    alike = {type(layer).__name__ for layer in layers if "BatchNorm" in type(layer).__name__}
    return ", ".join(sorted(alike))
