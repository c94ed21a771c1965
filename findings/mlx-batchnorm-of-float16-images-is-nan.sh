#!/usr/bin/env bash
# MLX 0.32.4 on the CPU: BatchNorm of a batch of 32 float16 images of 64 × 64 pixels is NaN, and so
# are its running statistics from then on. The values have mean 1 and standard deviation 1.
#
# Guessed: mean and variance of float16 values are summed in float32, as in other frameworks, since
#          the sum of 131072 values about 1 is beyond float16's largest number, 65504.
# Seen:    0.32.4 sums float16 in float16: mean and variance are infinite. In 0.32.0 the sum stops
#          growing where the next value is too small to count: the mean is about 0.1 in place of 1,
#          and the normalized output has mean 1.8 and deviation 1.9, without a word. bfloat16 was
#          worse still in 0.32.0, mean 3.9 and deviation 4.0, and is right in 0.32.4. float32 is
#          right in both. Running statistics in float32, which the layer keeps, do not help.
#          (InstanceNorm of large float16 values has the same cause: ml-explore/mlx, issue 4228.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 0.32.0 0.32.4; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "mlx[cpu]==$version" numpy==2.4.6
  "$folder/$version/bin/python" - <<'END'
from importlib.metadata import version

import mlx.core as mx
import mlx.nn
import numpy as np

x = np.random.default_rng(0).normal(1, 1, (32, 64, 64, 1))
for dtype in (mx.float32, mx.float16, mx.bfloat16):
    layer = mlx.nn.BatchNorm(1, momentum=1.0)  # so that it stores the batch's statistics
    y = np.array(layer(mx.array(x).astype(dtype)).astype(mx.float32), np.float64)
    numbers = y.mean(), y.std(), layer.running_mean.item(), layer.running_var.item()
    print(version("mlx"), dtype, *(f"{v:.1f}" for v in np.abs(numbers)))
END
done | tee "$folder/seen"
diff "$folder/seen" - <<'END' || { echo "It is no longer so."; exit 1; }
0.32.0 mlx.core.float32 0.0 1.0 1.0 1.0
0.32.0 mlx.core.float16 1.8 1.9 0.1 0.3
0.32.0 mlx.core.bfloat16 3.9 4.0 0.0 0.1
0.32.4 mlx.core.float32 0.0 1.0 1.0 1.0
0.32.4 mlx.core.float16 nan nan inf nan
0.32.4 mlx.core.bfloat16 0.0 1.0 1.0 1.0
END
