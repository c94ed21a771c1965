import jax
import numpy as np
from flax import linen


class Layer:
    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("epsilon", "momentum")} if state else {}
        self.layer = linen.BatchNorm(**options)
        example = np.zeros((2,) * (ndim - 1) + (channels,), np.float32)
        self.variables = self.layer.init(jax.random.key(0), example, use_running_average=True)
        if state:
            of = {"params": ("scale", "bias"), "batch_stats": ("mean", "var")}
            self.variables = {k: {name: state[name] for name in v} for k, v in of.items()}

    def plain(self, x):
        return self.layer.apply(self.variables, x)

    def train(self, x):
        y, moved = self.layer.apply(
            self.variables, x, use_running_average=False, mutable=["batch_stats"]
        )
        self.variables = {**self.variables, **moved}
        return y

    def infer(self, x):
        return self.layer.apply(self.variables, x, use_running_average=True)

    def state(self):
        arrays = {**self.variables["params"], **self.variables["batch_stats"]}
        numbers = {"epsilon": self.layer.epsilon, "momentum": self.layer.momentum}
        return {**{name: np.asarray(v) for name, v in arrays.items()}, **numbers}
