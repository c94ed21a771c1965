import chainer
from chainer import links as L


class Layer:
    arrays = "gamma", "beta", "avg_mean", "avg_var"

    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("eps", "decay")} if state else {}
        self.layer = L.BatchNormalization(channels, **options)
        for name in self.arrays if state else []:
            value = getattr(self.layer, name)
            getattr(value, "array", value)[...] = state[name]

    def plain(self, x):
        return self.layer(x).array

    def train(self, x):
        with chainer.using_config("train", True):
            return self.plain(x)

    def infer(self, x):
        with chainer.using_config("train", False):
            return self.plain(x)

    def state(self):
        values = {name: getattr(self.layer, name) for name in self.arrays}
        arrays = {name: getattr(v, "array", v).copy() for name, v in values.items()}
        return {**arrays, "N": self.layer.N, "eps": self.layer.eps, "decay": self.layer.decay}
