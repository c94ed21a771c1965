import mlx.core as mx
import mlx.nn
import numpy as np


class Layer:
    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("eps", "momentum") if name in state}
        self.layer = mlx.nn.BatchNorm(channels, **numbers)
        if state:
            self.layer.update({name: mx.array(v) for name, v in state.items()})

    def plain(self, x):
        return np.array(self.layer(mx.array(x)))

    def train(self, x):
        self.layer.train()
        return self.plain(x)

    def infer(self, x):
        self.layer.eval()
        return self.plain(x)

    def state(self):
        arrays = {name: np.array(v) for name, v in self.layer.parameters().items()}
        return {**arrays, "eps": self.layer.eps, "momentum": self.layer.momentum}
