import numpy as np
import sonnet as snt
import tensorflow as tf


class Layer:
    def __init__(self, channels, ndim, state=None):
        self.eps = state["eps"] if state else 1e-5
        self.layer = snt.BatchNorm(create_scale=True, create_offset=True, eps=self.eps)
        self.layer(np.zeros((2,) * (ndim - 1) + (channels,), np.float32), is_training=False)
        for name, variable in self.variables().items() if state else []:
            variable.assign(tf.reshape(tf.cast(state[name], variable.dtype), variable.shape))

    def variables(self):
        variables = {"scale": self.layer.scale, "offset": self.layer.offset}
        for name in "moving_mean", "moving_variance":
            average = getattr(self.layer, name)
            variables[name + "/counter"] = average._counter
            variables[name + "/hidden"] = average._hidden
            variables[name + "/average"] = average.average
        return variables

    def train(self, x):
        return self.layer(x, is_training=True).numpy()

    def infer(self, x):
        return self.layer(x, is_training=False).numpy()

    def state(self):
        arrays = {name: v.numpy() for name, v in self.variables().items()}
        return {**arrays, "eps": self.eps, "decay_rate": self.layer.moving_mean._decay}
