import numpy as np
from MNN import expr, nn


class Layer:
    """MNN.nn.batch_norm, on images; rows become images of one pixel."""

    arrays = "gamma", "beta", "variance", "mean"

    def __init__(self, channels, ndim, state=None):
        self.numbers = {"momentum": 0.99, "epsilon": 1e-5}
        if state:
            self.numbers = {name: state[name] for name in self.numbers}
        self.layer = nn.batch_norm(channels, 4, *self.numbers.values())
        if state:
            old = self.layer.parameters
            new = [
                expr.const(np.float32(state[name]).reshape(v.shape), v.shape, v.data_format)
                for name, v in zip(self.arrays, old)  # noqa: B905
            ]
            self.layer.load_parameters(new)

    def plain(self, x):
        if x.dtype != np.float32:
            raise TypeError(f"made for float32 here, not for {x.dtype}")
        images = np.ascontiguousarray(x.reshape(x.shape + (1,) * (4 - x.ndim)))
        y = self.layer.forward(expr.const(images, images.shape, expr.NCHW))
        return np.array(expr.convert(y, expr.NCHW).read()).reshape(x.shape)

    def train(self, x):
        self.layer.train(True)
        return self.plain(x)

    def infer(self, x):
        self.layer.train(False)
        return self.plain(x)

    def state(self):
        arrays = {k: np.array(v.read()).ravel() for k, v in zip(self.arrays, self.layer.parameters)}  # noqa: B905
        return {**arrays, **self.numbers}
