import tf_keras


class Layer:
    def __init__(self, channels, ndim, state=None):
        options = {name: state[name] for name in ("epsilon", "momentum")} if state else {}
        self.layer = tf_keras.layers.BatchNormalization(name="bn", **options)
        self.layer.build((None,) * (ndim - 1) + (channels,))
        for variable in self.layer.weights if state else []:
            variable.assign(state[self.name(variable)])

    def name(self, variable):
        return variable.name.split("/")[-1].split(":")[0]

    def plain(self, x, **mode):
        return self.layer(x, **mode).numpy()

    def train(self, x):
        return self.plain(x, training=True)

    def infer(self, x):
        return self.plain(x, training=False)

    def state(self):
        arrays = {self.name(v): v.numpy() for v in self.layer.weights}
        return {**arrays, "epsilon": self.layer.epsilon, "momentum": self.layer.momentum}
