import numpy as np
import theano
import theano.tensor as T
from theano.tensor.nnet import bn

theano.config.floatX = "float32"
theano.config.cxx = ""  # what Python computes is enough


class Layer:
    """theano.tensor.nnet.bn, which takes the state and returns the new one."""

    def __init__(self, channels, ndim, state=None):
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        self.values = {"gamma": one, "beta": zero, "running_mean": zero, "running_var": one}
        self.numbers = {"epsilon": 1e-4, "running_average_factor": 0.1}
        if state:
            self.numbers = {name: state[name] for name in self.numbers}
            self.values = {name: state[name] for name in self.values}

    def shaped(self, x):
        spread = (1, -1) + (1,) * (x.ndim - 2)
        return [T.as_tensor_variable(self.values[k].reshape(spread)) for k in self.values]

    def train(self, x):
        gamma, beta, mean, var = self.shaped(x)
        running = {"running_mean": mean, "running_var": var, **self.numbers}
        y, _, _, mean, var = bn.batch_normalization_train(
            T.as_tensor_variable(x), gamma, beta, "spatial", **running
        )
        y, mean, var = theano.function([], [y, mean, var], mode="FAST_COMPILE")()
        self.values.update(running_mean=mean.ravel(), running_var=var.ravel())
        return y

    def infer(self, x):
        arrays = self.shaped(x)
        y = bn.batch_normalization_test(
            T.as_tensor_variable(x), *arrays, axes="spatial", epsilon=self.numbers["epsilon"]
        )
        return theano.function([], y, mode="FAST_COMPILE")()

    def state(self):
        return {**self.values, **self.numbers}
