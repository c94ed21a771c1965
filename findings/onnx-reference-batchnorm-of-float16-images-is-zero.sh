#!/usr/bin/env bash
# onnx 1.23.2, ReferenceEvaluator: BatchNormalization with training_mode=1 of 16 float16 images of
# 64 × 64 pixels returns zeros, and infinity as the running variance. The values have mean 1 and
# standard deviation 1.
#
# Guessed: the reference computes the statistics in float32, and rounds what it returns.
# Seen:    it computes them by NumPy in float16. NumPy's mean sums float16 in float32; its var sums
#          in float16, and 65536 values about 1 are beyond the largest number there, 65504. With half
#          as many images the variance is right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnx==1.23.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'END' 2>/dev/null | tee "$folder/seen"
import numpy as np
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator


def train(x):
    names = "X", "scale", "B", "mean", "var"
    outputs = "Y", "new_mean", "new_var"
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    values = {k: helper.make_tensor_value_info(k, kind, [1]) for k in names + outputs}
    for k in "X", "Y":
        values[k] = helper.make_tensor_value_info(k, kind, x.shape)
    node = helper.make_node("BatchNormalization", names, outputs, training_mode=1, momentum=0.0)
    graph = helper.make_graph([node], "bn", [values[k] for k in names], [values[k] for k in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)])
    checker.check_model(model, full_check=True)
    zero, one = np.zeros(1, x.dtype), np.ones(1, x.dtype)
    feed = dict(zip(names, (x, one, zero, zero, one)))
    return [np.float64(v) for v in ReferenceEvaluator(model).run(None, feed)]


for images in 8, 16:
    for dtype in np.float32, np.float16:
        x = np.random.default_rng(0).normal(1, 1, (images, 1, 64, 64)).astype(dtype)
        y, mean, var = train(x)
        print(f"{images:2} images, {np.dtype(dtype)}: mean {mean[0]:.1f}, variance {var[0]:.1f}, "
              f"standard deviation of the output {y.std():.1f}")
END
diff "$folder/seen" - <<'END' || { echo "It is no longer so."; exit 1; }
 8 images, float32: mean 1.0, variance 1.0, standard deviation of the output 1.0
 8 images, float16: mean 1.0, variance 1.0, standard deviation of the output 1.0
16 images, float32: mean 1.0, variance 1.0, standard deviation of the output 1.0
16 images, float16: mean 1.0, variance inf, standard deviation of the output 0.0
END
