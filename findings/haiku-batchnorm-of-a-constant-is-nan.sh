#!/usr/bin/env bash
# Haiku 0.0.17: BatchNorm of a feature that has the same value in all rows can be NaN, and its stored
# variance negative. Of a hundred values from 1 to 101 this meets dozens, some of them below 10.
#
# Guessed: E[x²] − E[x]² in float32 loses its digits only where the mean is far larger than the
#          spread, at a mean of 1000 or more, and a floor at 0 keeps the variance from below.
# Seen:    there is no floor. A constant feature, such as a column that nobody filled or a channel
#          that only padding reaches, has spread 0, so a mean of 5 is large already: the difference
#          of the two squares is a rounding error, negative for about half the values, and where it
#          is below −ε = −1e-5 its root is NaN. (Which values depends on the shape: of 64 × 64 none is, of
#          64 × 16 nearly half are.) Flax computes the same difference with a floor at 0,
#          and returns zeros.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dm-haiku==0.0.17 jax==0.10.2 flax==0.12.8 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'END' | tee "$folder/seen"
import haiku as hk
import jax
import numpy as np
from flax import nnx

values = np.float32(1.01 * np.arange(1, 101))
x = np.tile(values, (100, 1))  # a hundred features, each constant over 100 rows

layer = hk.without_apply_rng(hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, True)))
params, state = layer.init(jax.random.key(0), x)
y, state = layer.apply(params, state, x)
bad = np.isnan(np.asarray(y)).all(0)
var = np.asarray(state["batch_norm/~/var_ema"]["average"])[0]
print("Haiku: some are NaN:", 10 < bad.sum() < 90, "- the smallest is below 10:", values[bad][0] < 10)
print("Haiku: the stored variance of these is negative:", bool((var[bad] < 0).all()))
print("Flax: NaN:", bool(np.isnan(nnx.BatchNorm(100, rngs=nnx.Rngs(0))(x)).any()))
END
diff "$folder/seen" - <<'END' || { echo "It is no longer so."; exit 1; }
Haiku: some are NaN: True - the smallest is below 10: True
Haiku: the stored variance of these is negative: True
Flax: NaN: False
END
