import keras


class Layer:
    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("epsilon", "momentum")} if state else {}
        self.layer = keras.layers.BatchNormalization(**options)
        self.layer.build((None,) * (ndim - 1) + (channels,))
        for variable in self.layer.weights if state else []:
            variable.assign(state[variable.name])

    def plain(self, x, **mode):
        return keras.ops.convert_to_numpy(self.layer(x, **mode))

    def train(self, x):
        return self.plain(x, training=True)

    def infer(self, x):
        return self.plain(x, training=False)

    def state(self):
        arrays = {v.name: keras.ops.convert_to_numpy(v) for v in self.layer.weights}
        return {**arrays, "epsilon": self.layer.epsilon, "momentum": self.layer.momentum}
