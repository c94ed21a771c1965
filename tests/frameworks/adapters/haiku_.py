import haiku as hk
import jax
import numpy as np


class Layer:
    def __init__(self, channels, ndim, state=None):
        self.numbers = {"eps": 1e-5, "decay_rate": 0.9}  # the rate has no default
        if state:
            self.numbers = {name: state[name] for name in self.numbers}

        def call(x, training):
            return hk.BatchNorm(True, True, name="bn", **self.numbers)(x, training)

        self.layer = hk.without_apply_rng(hk.transform_with_state(call))
        example = np.zeros((2,) * (ndim - 1) + (channels,), np.float32)
        self.params, self.moving = self.layer.init(jax.random.key(0), example, True)
        if state:
            self.params, self.moving = (
                {
                    k: {n: np.reshape(state[self.name(k, n)], a.shape) for n, a in v.items()}
                    for k, v in tree.items()
                }
                for tree in (self.params, self.moving)
            )

    def name(self, module, name):
        """bn/~/mean_ema and average: mean_ema/average."""
        return "/".join([*module.split("/")[2:], name])

    def train(self, x):
        y, self.moving = self.layer.apply(self.params, self.moving, x, True)
        return y

    def infer(self, x):
        return self.layer.apply(self.params, self.moving, x, False)[0]

    def state(self):
        trees = {**self.params, **self.moving}
        arrays = {self.name(k, n): np.asarray(a) for k, v in trees.items() for n, a in v.items()}
        return {**arrays, **self.numbers}
