"""tf.compat.v1.nn.fused_batch_norm, on images; rows become images of one pixel."""

import numpy as np
import tensorflow as tf


class Layer:
    arrays = "scale", "offset", "mean", "variance"

    def __init__(self, channels, ndim, state=None):
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        fresh = {"scale": one, "offset": zero, "mean": zero, "variance": one}
        self.arrays = {name: (state or fresh)[name] for name in fresh}
        self.numbers = {"epsilon": 0.001, "exponential_avg_factor": 1.0}
        if state:
            self.numbers = {name: state[name] for name in self.numbers}

    def call(self, x, **mode):
        images = x[:, None, None, :] if x.ndim == 2 else x
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(images, **self.arrays, **mode)
        return y.numpy().reshape(x.shape), mean.numpy(), variance.numpy()

    def plain(self, x):
        return self.call(x)[0]

    def train(self, x):
        y, mean, variance = self.call(x, **self.numbers)
        self.arrays.update(mean=mean, variance=variance)
        return y

    def infer(self, x):
        return self.call(x, is_training=False, epsilon=self.numbers["epsilon"])[0]

    def state(self):
        return {**self.arrays, **self.numbers}
