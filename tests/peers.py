"""BatchNorm layers of bnlib, torch and ONNX, behind one face.

A peer is made with its framework's defaults, or from a state by the framework's own names. It takes
channels on axis 1, as bnlib does, and moves them to where its framework wants them. A framework is
imported when its peer is made.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from bnlib import nn

State = Mapping[str, Any]


class Bnlib:
    def __init__(self, state: State | None = None, channels: int = 3, ndim: int = 2) -> None:
        self.layer = nn.BatchNorm(channels)
        if state is not None:
            self.layer.load(state)

    def state(self) -> dict[str, Any]:
        return self.layer.state()

    def __call__(self, x: np.ndarray, training: bool | None = None) -> np.ndarray:
        if training is not None:
            self.layer.train(training)
        return self.layer(x)


class Torch:
    def __init__(self, state: State | None = None, channels: int = 3, ndim: int = 2) -> None:
        import torch

        kind = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[ndim]
        options = {name: state[name] for name in ("eps", "momentum")} if state else {}
        self.layer = kind(channels, **options)
        if state:
            arrays = {k: torch.as_tensor(v) for k, v in state.items() if k not in options}
            self.layer.load_state_dict(arrays)

    def state(self) -> dict[str, Any]:
        numbers = {"eps": self.layer.eps, "momentum": self.layer.momentum}
        return {**self.layer.state_dict(), **numbers}

    def __call__(self, x: np.ndarray, training: bool | None = None) -> np.ndarray:
        import torch

        if training is not None:
            self.layer.train(training)
        return self.layer(torch.as_tensor(x)).detach().numpy()


class Onnx:
    """A model of one node, in the form that exporters write: the arrays are initializers."""

    arrays = "scale", "B", "input_mean", "input_var"

    def __init__(self, state: State | None = None, channels: int = 3, ndim: int = 2) -> None:
        from onnx import numpy_helper

        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        fresh = {"scale": one, "B": zero, "input_mean": zero, "input_var": one}
        values = {name: np.float32((state or fresh)[name]) for name in self.arrays}
        self.initializers = [numpy_helper.from_array(v, name) for name, v in values.items()]
        self.numbers = {name: state[name] for name in ("epsilon", "momentum")} if state else {}
        self.channels, self.ndim = channels, ndim

    def model(self, training: bool | None) -> Any:
        from onnx import TensorProto, checker, helper

        mode = {} if training is None else {"training_mode": int(training)}
        outputs = ["Y", "running_mean", "running_var"] if training else ["Y"]
        inputs = ["X", *self.arrays]
        node = helper.make_node("BatchNormalization", inputs, outputs, **self.numbers, **mode)
        shape = [None, self.channels] + [None] * (self.ndim - 2)
        shapes = {"X": shape, "Y": shape}
        values = {
            name: helper.make_tensor_value_info(
                name, TensorProto.FLOAT, shapes.get(name, [self.channels])
            )
            for name in ["X", *outputs]
        }
        graph = helper.make_graph(
            [node], "bn", [values["X"]], [values[name] for name in outputs], self.initializers
        )
        # A node of opset 9 has no mode, and the reference evaluator takes it for one in training.
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
        checker.check_model(model, full_check=True)
        return model

    def state(self) -> dict[str, Any]:
        from onnx import defs, helper, numpy_helper

        state = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.initializers}
        defaults = defs.get_schema("BatchNormalization", max_inclusive_version=15).attributes
        written = {a.name: a for a in self.model(None).graph.node[0].attribute}
        for name in "epsilon", "momentum":
            value = helper.get_attribute_value(written.get(name, defaults[name].default_value))
            state[name] = float(str(np.float32(value)))  # 0.9, and not 0.8999999761581421
        return state

    def __call__(self, x: np.ndarray, training: bool | None = None) -> np.ndarray:
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        y, *running = ReferenceEvaluator(self.model(training)).run(None, {"X": x})
        if running:
            self.initializers[2:] = [
                numpy_helper.from_array(v, name)
                for v, name in zip(running, self.arrays[2:], strict=True)
            ]
        return y


PEERS = {"bnlib": Bnlib, "torch": Torch, "onnx": Onnx}


def import_torchvision(part: str) -> ModuleType:
    """A module of torchvision, also of one that was built for another torch.

    Such a one, built with CUDA for instance, cannot load its operators, and then misses two of them
    at import. Declaring them is enough for its models and datasets.
    """
    try:
        return importlib.import_module(f"torchvision.{part}")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        _declarations.append(library := torch.library.Library("torchvision", "FRAGMENT"))
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return importlib.import_module(f"torchvision.{part}")


_declarations: list[Any] = []  # torch forgets a declaration when its Library is deleted
