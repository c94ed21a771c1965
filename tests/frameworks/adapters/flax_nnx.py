import numpy as np
from flax import nnx


class Layer:
    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("epsilon", "momentum")} if state else {}
        self.layer = nnx.BatchNorm(channels, rngs=nnx.Rngs(0), **options)
        self.arrays = {path[0]: v for path, v in nnx.to_flat_state(nnx.state(self.layer))}
        for name, variable in self.arrays.items() if state else []:
            variable[...] = state[name]

    def plain(self, x, **mode):
        return self.layer(x, **mode)

    def train(self, x):
        return self.plain(x, use_running_average=False)

    def infer(self, x):
        return self.plain(x, use_running_average=True)

    def state(self):
        arrays = {name: np.asarray(v[...]) for name, v in self.arrays.items()}
        return {**arrays, "epsilon": self.layer.epsilon, "momentum": self.layer.momentum}
