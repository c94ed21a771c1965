#!/usr/bin/env bash
# onnx 1.23.2: the version converter moves a GroupNormalization from opset 18 to 21 and changes
# nothing but the number, although scale and bias have another shape there.
#
# Guessed: the operator of opset 18 has a scale and a bias for each group, that of opset 21 for each
#          channel, and 18's is deprecated for that reason. The converter repeats both for the
#          channels of a group, or refuses.
# Seen:    it leaves both as they are, without a word. The strictest check, with shapes, accepts the
#          result, and onnxruntime cannot run it. The model of opset 18 runs, and so does one of
#          opset 21 with scale and bias repeated: with the same output.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END' 2>/dev/null | tee "$folder/seen"
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.version_converter import convert_version


def model(opset, scales):
    """Groups of two of four channels, with the given number of scales and biases."""
    shapes = {"x": [2, 4, 3], "scale": [scales], "bias": [scales], "y": [2, 4, 3]}
    values = {k: helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, v) for k, v in shapes.items()}
    node = helper.make_node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2)
    graph = helper.make_graph([node], "g", [values[k] for k in ("x", "scale", "bias")], [values["y"]])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
scale, bias = np.array([1, 10], np.float32), np.array([0, 100], np.float32)


def first(m, repeat=1):
    feed = {"x": x, "scale": scale.repeat(repeat), "bias": bias.repeat(repeat)}
    try:
        session = onnxruntime.InferenceSession(m.SerializeToString())
        return ", ".join(f"{v:.2f}" for v in session.run(None, feed)[0][0, :, 0])
    except Exception as error:
        return f"no session: {type(error).__name__}"


old = model(18, 2)
new = convert_version(old, 21)
onnx.checker.check_model(new, full_check=True)
print("converted:", new.opset_import[0].version, [n.op_type for n in new.graph.node])
print("opset 18:              ", first(old))
print("converted to 21:       ", first(new))
print("21, repeated by hand:  ", first(model(21, 4), repeat=2))
END
diff "$folder/seen" - <<'END' || { echo "It is no longer so."; exit 1; }
converted: 21 ['GroupNormalization']
opset 18:               0.09, 0.03, 114.73, 86.78
converted to 21:        no session: Fail
21, repeated by hand:   0.09, 0.03, 114.73, 86.78
END
