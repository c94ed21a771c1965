"""BatchNorm layers out of files that others write, and what is said of damaged ones."""

import json
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from bnlib import convention_files
from bnlib.convention_files import read
from bnlib.conventions import convert

RNG = np.random.default_rng(0)
A, B, C, D = RNG.uniform(0.5, 2, (4, 3)).astype(np.float32)  # γ, β, mean, variance of a layer


def holds(layers, name, framework, eps, momentum=0.1, gamma=A, beta=B):
    """The layer is in the file, and arrives in bnlib."""
    assert layers.framework == framework
    state = convert(layers[name], framework, "bnlib")
    for key, value in {"gamma": gamma, "beta": beta, "mean": C, "var": D}.items():
        np.testing.assert_allclose(state[key], value, rtol=1e-5, err_msg=key)
    assert (state["eps"], state["momentum"]) == (eps, momentum)


# ONNX


def onnx_file(path, opset=15, constant=False, inputs=("scale", "B", "m", "v"), **attributes):
    arrays = dict(zip(("scale", "B", "m", "v"), (A, B, C, D), strict=True))
    arrays |= {"kernel": np.ones((3, 3, 1, 1), np.float32)}
    tensors = [numpy_helper.from_array(v, name) for name, v in arrays.items()]
    conv = helper.make_node("Conv", ["x", "kernel"], ["h"])
    bn = helper.make_node("BatchNormalization", ["h", *inputs], ["y"], name="bn1", **attributes)
    nodes = [conv, bn, helper.make_node("BatchNormalization", ["y", "scale", "B", "m", "v"], ["z"])]
    if constant:
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
    info = [helper.make_tensor_value_info(k, TensorProto.FLOAT, [1, 3, 2, 2]) for k in "xz"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [] if constant else tensors)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


@pytest.mark.parametrize("opset", [7, 9, 15])
@pytest.mark.parametrize("constant", [False, True])
def test_onnx(tmp_path, opset, constant):
    layers = read(onnx_file(tmp_path / "m.onnx", opset, constant, epsilon=2e-3, momentum=0.7))
    assert list(layers) == ["bn1", "z"]
    holds(layers, "bn1", "onnx", 2e-3, 0.3)
    holds(layers, "z", "onnx", 1e-5)  # the defaults


def test_an_onnx_file_that_does_not_fit(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(ValueError, match=r"m.onnx: layer bn1 has the inputs scale, B, h, v; exp"):
        read(onnx_file(path, inputs=("scale", "B", "h", "v")))
    with pytest.raises(ValueError, match=r"layer bn1 has spatial=0, statistics of each pixel"):
        read(onnx_file(path, opset=7, spatial=0))
    with pytest.raises(ValueError, match=r"bn1 has scale \(3, 3, 1, 1\), B \(3,\), .* same shape"):
        read(onnx_file(path, inputs=("kernel", "B", "m", "v")))
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"m.onnx is not what its name says: \w+Error: "):
        read(path)


# safetensors and Keras


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = {"weight": A, "bias": B, "running_mean": C, "running_var": D}
    arrays = {f"net.1.{k}": v for k, v in arrays.items()}
    save_file({**arrays, "net.0.weight": np.ones((3, 3))}, tmp_path / "m.safetensors")
    layers = read(tmp_path / "m.safetensors")
    assert list(layers) == ["net.1"]
    with pytest.raises(ValueError, match="state has no eps and no momentum: a state_dict does not"):
        convert(layers["net.1"], layers.framework, "bnlib")
    layers["net.1"].update(eps=1e-3, momentum=0.2)
    holds(layers, "net.1", "torch", 1e-3, 0.2)
    del arrays["net.1.running_var"]
    save_file(arrays, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="layer net.1 has weight, bias, running_mean; expected"):
        read(tmp_path / "m.safetensors")


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py")


def config(name, **changes):
    layer = {"name": name, "epsilon": 2e-3, "momentum": 0.9, "scale": True, "center": True}
    layer = {"class_name": "BatchNormalization", "config": {**layer, **changes}}
    inner = {"class_name": "Sequential", "config": {"layers": [layer]}}
    return json.dumps({"class_name": "Functional", "config": {"layers": [inner]}})


def keras_file(h5py, path, text, *arrays):
    """As Keras 3 writes it: folders by class and number, the layer's name in an attribute."""
    weights = path.with_suffix(".weights.h5")
    with h5py.File(weights, "w") as file:
        variables = file.create_group("layers/batch_normalization_1/vars")
        variables.attrs["name"] = "bn"
        for k, v in enumerate(arrays):
            variables[str(k)] = v
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 1, 1))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.write(weights, "model.weights.h5")
    return path


def test_keras(h5py, tmp_path):
    path = tmp_path / "m.keras"
    holds(read(keras_file(h5py, path, config("bn"), A, B, C, D)), "bn", "keras", 2e-3)
    without = read(keras_file(h5py, path, config("bn", scale=False), B, C, D))
    holds(without, "bn", "keras", 2e-3, gamma=1)
    holds(
        read(keras_file(h5py, path, config("bn", center=False), A, C, D)),
        "bn",
        "keras",
        2e-3,
        beta=0,
    )
    with pytest.raises(ValueError, match="m.keras: layer bn has 3 arrays; expected 4$"):
        read(keras_file(h5py, path, config("bn"), A, C, D))
    with pytest.raises(ValueError, match=r"layer bn has gamma \(3,\), beta \(2,\), .* same shape"):
        read(keras_file(h5py, path, config("bn"), A, B[:2], C, D))
    both = json.dumps([json.loads(config("bn"))] * 2)
    with pytest.raises(ValueError, match="two layers are called bn; expected one of each name"):
        read(keras_file(h5py, path, both, A, B, C, D))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="m.keras is not what its name says: BadZipFile"):
        read(path)


def test_keras_weights_alone_do_not_say_everything(h5py, tmp_path):
    keras_file(h5py, tmp_path / "m.keras", "{}", A, B, C, D)
    layers = read(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="state has no epsilon and no momentum: the weights do"):
        convert(layers["bn"], "keras", "torch")
    keras_file(h5py, tmp_path / "m.keras", "{}", A, C, D)
    with pytest.raises(ValueError, match="layer bn has 3 arrays; expected 4; γ or β is not there"):
        read(tmp_path / "m.weights.h5")
    keras_file(h5py, tmp_path / "m.keras", "{}", C, D)
    assert list(read(tmp_path / "m.weights.h5")["bn"]) == ["moving_mean", "moving_variance"]


def test_the_h5_of_keras_2(h5py, tmp_path):
    arrays = {"gamma:0": A, "beta:0": B, "moving_mean:0": C, "moving_variance:0": D}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = config("bn")
        for name, v in arrays.items():
            file[f"model_weights/bn/bn/{name}"] = v
    holds(read(tmp_path / "m.h5"), "bn", "keras", 2e-3)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        del file["model_weights/bn/bn/moving_variance:0"]
    with pytest.raises(ValueError, match="layer bn has beta, gamma, moving_mean; expected"):
        read(tmp_path / "m.h5")


# ncnn


PARAM = """7767517
6 6
Input        data  0 1 data
Convolution  conv  1 1 data a 0=3 1=1 5=1 6=9
PReLU        act   1 1 a b 0=3
BatchNorm    bn    1 1 b c 0=3 1=1.000000e-03
Scale        s     1 1 c d 0=3 1=1
InnerProduct fc    1 1 d e 0=2 1=1 2=7
"""


def ncnn_file(path, text=PARAM, half=0x01306B47, extra=b""):
    ones = [np.ones(n, np.float32).tobytes() for n in range(13)]
    parts = [
        np.uint32(0).tobytes(),
        ones[12],
        ones[3],
        *(v.tobytes() for v in (A, C, D, B)),
        ones[6],
    ]
    parts += [np.uint32(half).tobytes(), np.ones(8, np.float16).tobytes(), ones[2], extra]
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(b"".join(parts))
    return path


def test_ncnn(tmp_path):
    path = tmp_path / "m.param"
    layers = read(ncnn_file(path))
    assert list(layers) == ["bn"]
    holds(layers, "bn", "ncnn", 1e-3)
    state = read(ncnn_file(path, PARAM.replace(" 1=1.000000e-03", "")))["bn"]
    assert state["eps"] == 0
    with pytest.raises(ValueError, match="m.param: m.bin has 4 bytes more than the layers need"):
        read(ncnn_file(path, extra=b"1234"))
    with pytest.raises(ValueError, match="layer bn needs 300 numbers, and "):
        read(ncnn_file(path, PARAM.replace("c 0=3", "c 0=300")))
    with pytest.raises(ValueError, match="layer fc has weights of kind 0xd4b38; expected 32 or 16"):
        read(ncnn_file(path, half=0x000D4B38))
    with pytest.raises(ValueError, match="layer act is of kind LSTM, whose weights are not known"):
        read(ncnn_file(path, PARAM.replace("PReLU", "LSTM")))
    with pytest.raises(ValueError, match="its first line is 7767518; expected 7767517"):
        read(ncnn_file(path, PARAM.replace("7767517", "7767518")))
    ncnn_file(path).with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"m\.bin"):
        read(path)


# Darknet

CFG = """[net]
channels=2
height=8
width=8

[convolutional] # 0
batch_normalize=1
filters=3
size=3
pad=1
[maxpool]
size=2
stride=2
[convolutional]
filters=4
groups=2 ; no BatchNorm
[route]
layers=-1,1
[shortcut]
from=-1
[upsample]
[reorg]
stride=2
[avgpool]
[connected]
output=3
batch_normalize=1
[batchnorm]
"""


def darknet_file(path, text=CFG, minor=2, less=0):
    def ones(n):
        return np.ones(n, np.float32)

    first = [B, A, C, D, ones(3 * 9 * 2)]
    second = [ones(4), ones(4 * 3 // 2)]
    connected = [B, ones(3 * 7 * 4), A, C, D]
    numbers = np.concatenate([*first, *second, *connected, A, C, D]).tobytes()
    head = np.int32([0, minor, 5]).tobytes() + bytes(8 if minor >= 2 else 4)
    path.write_text(text)
    path.with_suffix(".weights").write_bytes((head + numbers)[: -less or None])
    return path


@pytest.mark.parametrize("minor", [1, 2])
def test_darknet(tmp_path, minor):
    layers = read(darknet_file(tmp_path / "m.cfg", minor=minor))
    assert list(layers) == ["0 [convolutional]", "8 [connected]", "9 [batchnorm]"]
    assert "biases" not in layers["9 [batchnorm]"]  # the file has no β of this kind
    for layer in list(layers)[:2]:
        state = convert(layers[layer], "darknet", "bnlib")
        assert np.array_equal(state["beta"], B) and np.array_equal(state["gamma"], A)
        np.testing.assert_allclose(
            np.sqrt(state["var"] + state["eps"]), np.sqrt(D) + 1e-6, rtol=1e-7
        )


def test_a_darknet_file_that_does_not_fit(tmp_path):
    path = tmp_path / "m.cfg"
    with pytest.raises(ValueError, match=r"layer 9 \[batchnorm\] needs 3 numbers, and 2 are left"):
        read(darknet_file(path, less=4))
    with pytest.raises(ValueError, match="m.weights has 36 bytes more than the layers need"):
        read(darknet_file(path, CFG.replace("[batchnorm]\n", "")))
    with pytest.raises(ValueError, match=r"layer 4 is of kind \[lstm\], whose weights"):
        read(darknet_file(path, CFG.replace("shortcut", "lstm")))
    with pytest.raises(ValueError, match=r"its first section is not \[net\]"):
        read(darknet_file(path, CFG[6:]))


# Caffe


def caffe_file(path, blobs=3, scale=True):
    net = convention_files._caffe_net()
    bn = net.layer.add(name="bn", type="BatchNorm", bottom=["a"], top=["b"])
    bn.batch_norm_param.eps = 2e-3
    for values in [4 * C, 4 * D, np.float32([4])][:blobs]:
        bn.blobs.add(data=values)
    if scale:
        layer = net.layer.add(name="s", type="Scale", bottom=["b"], top=["b"])
        layer.blobs.add(data=A), layer.blobs.add(data=B)
    path.write_bytes(net.SerializeToString())
    return path


def test_caffe(tmp_path):
    path = tmp_path / "m.caffemodel"
    holds(read(caffe_file(path)), "bn", "caffe", 2e-3, 0.001)
    holds(read(caffe_file(path, scale=False)), "bn", "caffe", 2e-3, 0.001, gamma=1, beta=0)
    with pytest.raises(ValueError, match="m.caffemodel: layer bn has blobs of 3, 3; expected C, C"):
        read(caffe_file(path, blobs=2))


# All of them


def test_what_is_no_such_file(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path is m.pt; expected a file .onnx, .safetensors"):
        read("m.pt")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "m.onnx")
    text = PARAM.split("BatchNorm")[0]
    path = ncnn_file(tmp_path / "m.param", text)
    path.with_suffix(".bin").write_bytes(bytes(4) + bytes(15 * 4))
    with pytest.raises(ValueError, match="m.param has no BatchNorm layer that could be read"):
        read(path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ImportError, match="a file of Keras needs a package: pip install h5py"):
        read(tmp_path / "m.h5")
