import os

os.environ.setdefault("DEV", "PYTHON")  # slow, but needs no compiler

import numpy as np  # noqa: E402
from tinygrad import Tensor, nn  # noqa: E402
from tinygrad.helpers import Context  # noqa: E402


class Layer:
    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("eps", "momentum") if name in state}
        self.layer = nn.BatchNorm(channels, **numbers)
        for name, value in state.items():
            getattr(self.layer, name).assign(Tensor(np.asarray(value))).realize()

    def plain(self, x):
        y = self.layer(Tensor(x)).numpy()
        Tensor.realize(self.layer.running_mean, self.layer.running_var)
        return y

    def train(self, x):
        with Context(TRAINING=1):
            return self.plain(x)

    def infer(self, x):
        with Context(TRAINING=0):
            return self.plain(x)

    def state(self):
        arrays = {name: v.numpy() for name, v in nn.state.get_state_dict(self.layer).items()}
        return {**arrays, "eps": self.layer.eps, "momentum": self.layer.momentum}
