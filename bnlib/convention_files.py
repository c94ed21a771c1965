"""The BatchNorm layers in a file that somebody exported, for `bnlib.conventions.convert`.

    layers = read("model.onnx")
    state = convert(layers["bn1"], layers.framework, "torch")

ONNX needs the package onnx, Keras h5py, safetensors a package of that name, and a caffemodel
protobuf, which comes with onnx. ncnn and Darknet need none.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bnlib._messages import short
from bnlib.conventions import CONVENTIONS

State = dict[str, Any]
Found = Iterator[tuple[str, State]]


class Layers(dict[str, State]):
    """Name of a layer → its state by the framework's own names, in the order of the file.

    Attributes:
        framework: whose names they are, a key of `CONVENTIONS`.
    """

    def __init__(self, framework: str, layers: dict[str, State]) -> None:
        super().__init__(layers)
        self.framework = framework


def read(path: str | Path) -> Layers:
    """Read the BatchNorm layers of a file; what else is in it is skipped.

    Args:
        path: `.onnx`; `.safetensors` with torch's names; Keras' `.keras`, `.h5` or `.weights.h5`;
            ncnn's `.param` and Darknet's `.cfg` (their `.bin` and `.weights` lie beside them);
            `.caffemodel`.

    Returns:
        The states by layer. What a file does not hold is not there, such as eps and momentum in
        one of weights alone: `convert` says what to add.

    Raises:
        ImportError: a package is needed that is not installed.
        ValueError: the file is of no known kind, is damaged, has no BatchNorm layer, or holds one
            that is no layer per channel or whose arrays do not fit; the error names file and layer.

    Source: page "Conventions across frameworks".
    """
    path = Path(path)
    reader = next((kind for suffix, kind in READERS.items() if path.name.endswith(suffix)), None)
    if reader is None:
        raise ValueError(f"path is {short(str(path))}; expected a file {', '.join(READERS)}")
    framework, function = reader
    layers: dict[str, State] = {}
    try:
        for layer, state in function(path):
            if layer in layers:
                raise _Damaged(f"two layers are called {layer}; expected one of each name")
            _check(layer, state, framework)
            layers[layer] = state
    except (FileNotFoundError, ImportError):
        raise
    except _Damaged as error:
        raise ValueError(f"{path.name}: {error}") from None
    except Exception as error:  # of a package that met something else than its format
        raise ValueError(
            f"{path.name} is not what its name says: {type(error).__name__}: {short(str(error))}"
        ) from error
    if not layers:
        raise ValueError(f"{path.name} has no BatchNorm layer that could be read")
    return Layers(framework, layers)


class _Damaged(ValueError):
    """Says what is wrong with which layer."""


def _check(layer: str, state: State, framework: str) -> None:
    arrays = [k for k in CONVENTIONS[framework].names.values() if k in state and np.ndim(state[k])]
    if len({np.shape(state[k]) for k in arrays}) > 1:
        said = ", ".join(f"{k} {np.shape(state[k])}" for k in arrays)
        raise _Damaged(f"layer {layer} has {said}; expected the same shape")


def _package(name: str, of: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{of} needs a package: pip install {name.split('.')[0]}") from error


def _onnx(path: Path) -> Found:
    onnx = _package("onnx", "an ONNX file")
    model = onnx.load(path)
    opset = next((o.version for o in model.opset_import if not o.domain), 1)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            arrays[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        layer, inputs = node.name or node.output[0], node.input[1:]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if opset < 9 and attributes.get("spatial", 1) == 0:
            raise _Damaged(f"layer {layer} has spatial=0, statistics of each pixel; expected 1")
        if len(inputs) != 4 or not all(name in arrays for name in inputs):
            raise _Damaged(
                f"layer {layer} has the inputs {', '.join(inputs)}; expected four initializers or "
                f"constants: scale, B, mean and variance"
            )
        *names, eps, momentum = CONVENTIONS["onnx"].names.values()
        found = [onnx.numpy_helper.to_array(arrays[name]) for name in inputs]
        state: State = dict(zip(names, found, strict=True))
        for name, default in (eps, 1e-5), (momentum, 0.9):
            # 0.9, and not 0.8999999761581421
            state[name] = float(str(np.float32(attributes.get(name, default))))
        yield layer, state


def _safetensors(path: Path) -> Found:
    safetensors = _package("safetensors", "a safetensors file")
    with safetensors.safe_open(path, framework="numpy") as file:
        names = set(file.keys())
        for name in sorted(names):
            if not name.endswith("running_mean"):
                continue
            layer = name.removesuffix("running_mean")
            parts = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
            parts = [part for part in parts if layer + part in names]
            where = layer.rstrip(".") or "of the root"
            if "running_var" not in parts:
                raise _Damaged(f"layer {where} has {', '.join(parts)}; expected running_var too")
            yield where, {part: file.get_tensor(layer + part) for part in parts}


# Keras -------------------------------------------------------------------------------------------


def _keras(path: Path) -> Found:
    h5py = _package("h5py", "a file of Keras")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with archive.open("model.weights.h5") as weights, h5py.File(weights) as file:
                yield from _keras_layers(file, config)
    else:
        with h5py.File(path) as file:
            yield from _keras_layers(file, json.loads(file.attrs.get("model_config", "{}")))


def _keras_layers(file: Any, config: Any) -> Found:
    """Groups of arrays: by name (Keras 2), or numbered in a group `vars` (Keras 3)."""
    configs: dict[str, State] = {}
    for found in _keras_configs(config):
        if found["name"] in configs:
            raise _Damaged(f"two layers are called {found['name']}; expected one of each name")
        configs[found["name"]] = found
    groups: list[Any] = []
    file.visititems(lambda _, item: groups.append(item) if hasattr(item, "keys") else None)
    for group in groups:
        arrays = {k.split(":")[0]: np.asarray(v) for k, v in group.items() if hasattr(v, "dtype")}
        name = str(group.attrs.get("name", group.name.split("/")[-1]))
        numbered = re.search(r"/batch_normalization(_\d+)?/vars$", group.name)
        if arrays and ("moving_mean" in arrays or name in configs or numbered):
            known = configs.get(name)
            numbers = {key: known[key] for key in ("epsilon", "momentum")} if known else {}
            yield name, {**_keras_arrays(name, arrays, known), **numbers}


def _keras_configs(config: Any) -> Iterator[State]:
    """The configurations of the BatchNormalization layers, wherever in a model they are."""
    if isinstance(config, dict):
        if config.get("class_name") == "BatchNormalization":
            yield config["config"]
        config = list(config.values())
    for part in config if isinstance(config, list) else []:
        yield from _keras_configs(part)


def _keras_arrays(name: str, arrays: State, config: State | None) -> State:
    """The arrays of a layer by their names; numbered ones leave out what the layer has not."""
    parts = ["gamma", "beta", "moving_mean", "moving_variance"]
    if "moving_mean" in arrays:
        if "moving_variance" not in arrays:
            raise _Damaged(f"layer {name} has {', '.join(arrays)}; expected moving_variance too")
        return {part: arrays[part] for part in parts if part in arrays}
    has = config or {"scale": len(arrays) > 2, "center": len(arrays) > 2}
    parts = parts[: 1 * has["scale"]] + parts[1 : 1 + has["center"]] + parts[2:]
    if len(arrays) != len(parts):
        cure = "" if config else "; γ or β is not there, and which one the weights alone do not say"
        raise _Damaged(f"layer {name} has {len(arrays)} arrays; expected {len(parts)}{cure}")
    return {part: arrays[str(k)] for k, part in enumerate(parts)}


# Files of plain numbers --------------------------------------------------------------------------


def _numbers(file: BinaryIO, layer: str, count: int) -> np.ndarray:
    data = file.read(4 * count)
    if len(data) < 4 * count:
        raise _Damaged(f"layer {layer} needs {count} numbers, and {len(data) // 4} are left")
    return np.frombuffer(data, "<f4").copy()


def _nothing_left(file: BinaryIO, path: Path) -> None:
    rest = len(file.read())
    if rest:
        raise _Damaged(f"{path.name} has {rest} bytes more than the layers need")


_BARE = """
Input ReLU Pooling Split Concat Eltwise BinaryOp UnaryOp Flatten Reshape Softmax Sigmoid TanH
Dropout Padding Interp Permute Clip HardSwish HardSigmoid Swish Mish GELU ELU Crop Slice Noop
Packing Cast Squeeze ExpandDims Reduction ShuffleChannel Threshold Power Exp Log
"""


def _ncnn(path: Path) -> Found:
    lines = [line.split() for line in path.read_text("utf-8").splitlines()]
    if lines[0] != ["7767517"]:
        raise _Damaged(f"its first line is {short(' '.join(lines[0]), 60)}; expected 7767517")
    weights = path.with_suffix(".bin")
    with open(weights, "rb") as file:
        for kind, layer, n_in, n_out, *rest in filter(None, lines[2:]):
            options = dict(part.split("=") for part in rest[int(n_in) + int(n_out) :])
            if kind == "BatchNorm":
                parts, n = ("slope", "mean", "variance", "bias"), int(options["0"])
                state: State = {part: _numbers(file, layer, n) for part in parts}
                yield layer, {**state, "eps": float(options.get("1", 0))}
            elif kind not in _BARE.split():  # those have no weights
                _skip_ncnn(kind, layer, options, file)
        _nothing_left(file, weights)


def _skip_ncnn(kind: str, layer: str, options: dict[str, str], file: BinaryIO) -> None:
    """Read over the weights of another layer."""

    def option(key: str) -> int:
        return int(options.get(key, 0))

    if kind == "PReLU":
        _numbers(file, layer, option("0"))
    elif kind == "Scale":
        _numbers(file, layer, option("0") * (1 + option("1")))
    elif kind.startswith(("Convolution", "Deconvolution", "InnerProduct")):
        bias, size = ("1", "2") if kind == "InnerProduct" else ("5", "6")
        tag = _numbers(file, layer, 1).view("<u4")[0]
        if tag not in (0, 0x01306B47):
            raise _Damaged(f"layer {layer} has weights of kind {tag:#x}; expected 32 or 16 bits")
        words = option(size) if tag == 0 else (option(size) + 1) // 2  # two 16-bit numbers each
        _numbers(file, layer, words + option("0") * option(bias))
    else:
        raise _Damaged(f"layer {layer} is of kind {kind}, whose weights are not known here")


def _darknet(path: Path) -> Found:
    (_, net), *sections = _sections(path)
    shapes = [(int(net["channels"]), int(net["height"]), int(net["width"]))]
    weights = path.with_suffix(".weights")
    with open(weights, "rb") as file:
        major, minor, _ = np.frombuffer(file.read(12), "<i4")
        file.read(8 if major * 10 + minor >= 2 else 4)  # how many images it has seen
        for k, (kind, options) in enumerate(sections):
            layer, shape = f"{k} [{kind}]", _darknet_shape(k, kind, options, shapes)
            parts = ["scales", "rolling_mean", "rolling_variance"]
            state: State = {}
            if kind in ("convolutional", "connected"):
                state["biases"] = _numbers(file, layer, shape[0])
            if kind == "connected":
                _numbers(file, layer, shape[0] * int(np.prod(shapes[-1])))
            if kind == "batchnorm" or int(options.get("batch_normalize", 0)):
                state.update({part: _numbers(file, layer, shape[0]) for part in parts})
                yield layer, state
            if kind == "convolutional":
                size, groups = int(options.get("size", 1)), int(options.get("groups", 1))
                _numbers(file, layer, shape[0] * size**2 * shapes[-1][0] // groups)
            shapes.append(shape)
        _nothing_left(file, weights)


def _sections(path: Path) -> list[tuple[str, dict[str, str]]]:
    """(kind, options) of each section of a .cfg."""
    sections: list[tuple[str, dict[str, str]]] = []
    for line in path.read_text("utf-8").splitlines():
        line = re.split("[#;]", line)[0].strip()
        if line.startswith("["):
            sections.append((line.strip("[]"), {}))
        elif "=" in line and sections:
            key, value = line.split("=", 1)
            sections[-1][1][key.strip()] = value.strip()
    if not sections or sections[0][0] not in ("net", "network"):
        raise _Damaged("its first section is not [net]")
    return sections


def _darknet_shape(
    k: int, kind: str, options: dict[str, str], shapes: list[tuple[int, int, int]]
) -> tuple[int, int, int]:
    """Channels, height and width behind layer k; shapes[k] is what goes into it."""

    def option(key: str, default: int) -> int:
        return int(options.get(key, default))

    (c, h, w), stride = shapes[-1], option("stride", 1)
    if kind == "convolutional":
        size = option("size", 1)
        pad = 2 * (size // 2 if option("pad", 0) else option("padding", 0)) - size
        return option("filters", 1), (h + pad) // stride + 1, (w + pad) // stride + 1
    if kind == "maxpool":
        pad = option("padding", option("size", stride) - 1) - option("size", stride)
        return c, (h + pad) // stride + 1, (w + pad) // stride + 1
    if kind == "route":
        places = [int(v) + (k if int(v) < 0 else 0) + 1 for v in options["layers"].split(",")]
        channels = sum(shapes[place][0] for place in places) // option("groups", 1)
        return channels, *shapes[places[0]][1:]
    if kind == "upsample":
        return c, h * option("stride", 2), w * option("stride", 2)
    if kind == "reorg":
        return c * stride**2, h // stride, w // stride
    if kind in ("connected", "avgpool"):
        return option("output", c), 1, 1
    if kind in ("shortcut", "yolo", "region", "dropout", "softmax", "cost", "batchnorm"):
        return c, h, w
    raise _Damaged(f"layer {k} is of kind [{kind}], whose weights are not known here")


# Caffe -------------------------------------------------------------------------------------------

# The fields of caffe.proto that are needed: message → field → (number, type, repeated).
_CAFFE = {
    "Net": {"layer": (100, "Layer", True)},
    "Layer": {
        "name": (1, "string", False),
        "type": (2, "string", False),
        "bottom": (3, "string", True),
        "top": (4, "string", True),
        "blobs": (7, "Blob", True),
        "batch_norm_param": (139, "BatchNorm", False),
    },
    "Blob": {"data": (5, "float", True)},
    "BatchNorm": {
        "moving_average_fraction": (2, "float", False),
        "eps": (3, "float", False),
    },
}


def _caffe_net() -> Any:
    """An empty message of the type Net."""
    pb = _package("google.protobuf.descriptor_pb2", "a caffemodel")
    types = {"string": 9, "float": 2}
    file = pb.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in _CAFFE.items():
        added = file.message_type.add(name=message)
        for name, (number, kind, repeated) in fields.items():
            field = added.field.add(name=name, number=number, label=3 if repeated else 1)
            field.type = types.get(kind, 11)
            if kind not in types:
                field.type_name = f".caffe.{kind}"
    pool = import_module("google.protobuf.descriptor_pool").DescriptorPool()
    pool.Add(file)
    factory = import_module("google.protobuf.message_factory")
    return factory.GetMessageClass(pool.FindMessageTypeByName("caffe.Net"))()


def _caffemodel(path: Path) -> Found:
    net = _caffe_net()
    net.ParseFromString(path.read_bytes())
    for layer in net.layer:
        if layer.type != "BatchNorm":
            continue
        blobs = [np.array(blob.data, np.float32) for blob in layer.blobs]
        if len(blobs) != 3 or blobs[2].size != 1:
            sizes = ", ".join(str(blob.size) for blob in blobs) or "none"
            raise _Damaged(f"layer {layer.name} has blobs of {sizes}; expected C, C and 1 numbers")
        state: State = {"blobs[0]": blobs[0], "blobs[1]": blobs[1], "blobs[2]": float(blobs[2][0])}
        for scale in net.layer:  # γ and β are in the layer that takes what this one gives
            if scale.type == "Scale" and list(scale.bottom) == list(layer.top):
                for k, blob in enumerate(scale.blobs):
                    state[f"scale/blobs[{k}]"] = np.array(blob.data, np.float32)
        for key, default in ("eps", 1e-5), ("moving_average_fraction", 0.999):
            given = layer.batch_norm_param.HasField(key)
            value = getattr(layer.batch_norm_param, key) if given else default
            state[key] = float(str(np.float32(value)))
        yield layer.name, state


#: End of a file's name → whose conventions its states have, and what reads it.
READERS: dict[str, tuple[str, Callable[[Path], Found]]] = {
    ".onnx": ("onnx", _onnx),
    ".safetensors": ("torch", _safetensors),
    ".keras": ("keras", _keras),
    ".h5": ("keras", _keras),
    ".param": ("ncnn", _ncnn),
    ".cfg": ("darknet", _darknet),
    ".caffemodel": ("caffe", _caffemodel),
}
