import mindspore as ms


class Layer:
    kinds = {2: ms.nn.BatchNorm1d, 4: ms.nn.BatchNorm2d}
    arrays = "gamma", "beta", "moving_mean", "moving_variance"

    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("eps", "momentum")} if state else {}
        self.layer = self.kinds[ndim](channels, **options)
        for name in self.arrays if state else []:
            getattr(self.layer, name).set_data(ms.Tensor(state[name]))

    def plain(self, x):
        return self.layer(ms.Tensor(x)).asnumpy()

    def train(self, x):
        self.layer.set_train(True)
        return self.plain(x)

    def infer(self, x):
        self.layer.set_train(False)
        return self.plain(x)

    def state(self):
        arrays = {name: getattr(self.layer, name).asnumpy().copy() for name in self.arrays}
        # The layer keeps 1 − momentum, which is the weight of the new batch.
        momentum = round(1 - float(self.layer.momentum), 6)
        return {**arrays, "eps": self.layer.eps, "momentum": momentum}
