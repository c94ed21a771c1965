import numpy as np
from numpy_ml.neural_nets.layers import BatchNorm1D, BatchNorm2D


class Layer:
    def __init__(self, channels, ndim, state=None):
        self.layer = {2: BatchNorm1D, 4: BatchNorm2D}[ndim]()
        self.layer.forward(np.zeros((2,) * (ndim - 1) + (channels,)), retain_derived=False)
        self.layer.parameters["scaler"][:] = 1  # of a new layer it is random, from 0 to 1
        if state:
            self.layer.epsilon, self.layer.momentum = state["epsilon"], state["momentum"]
            self.layer.parameters.update({name: state[name] for name in self.layer.parameters})

    def plain(self, x):
        return self.layer.forward(x)

    def train(self, x):
        self.layer.trainable = True
        return self.plain(x)

    def infer(self, x):
        self.layer.trainable = False
        return self.plain(x)

    def state(self):
        numbers = {"epsilon": self.layer.epsilon, "momentum": self.layer.momentum}
        return {**self.layer.parameters, **numbers}
