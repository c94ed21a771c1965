import jax.numpy as jnp
import numpy as np
import objax


class Layer:
    kinds = {2: objax.nn.BatchNorm0D, 4: objax.nn.BatchNorm2D}
    arrays = "gamma", "beta", "running_mean", "running_var"

    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("eps", "momentum")} if state else {}
        self.layer = self.kinds[ndim](channels, **options)
        for name in self.arrays if state else []:
            variable = getattr(self.layer, name)
            variable.assign(jnp.array(state[name]).reshape(variable.value.shape))

    def plain(self, x):
        return np.asarray(self.layer(x))

    def train(self, x):
        return np.asarray(self.layer(x, training=True))

    def infer(self, x):
        return np.asarray(self.layer(x, training=False))

    def state(self):
        arrays = {name: np.asarray(getattr(self.layer, name).value) for name in self.arrays}
        return {**arrays, "eps": self.layer.eps, "momentum": self.layer.momentum}
