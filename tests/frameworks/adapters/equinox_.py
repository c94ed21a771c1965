import equinox as eqx
import jax
import numpy as np


class Ema:
    mode = {"mode": "ema"}
    index = "ema_state_index"

    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state[name] for name in ("eps", "momentum") if name in state}
        self.layer, self.moving = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
            channels, "batch", **self.mode, **numbers
        )
        if state:
            arrays = state["weight"], state["bias"]
            self.layer = eqx.tree_at(lambda v: (v.weight, v.bias), self.layer, arrays)
            self.put(state)

    def put(self, state):
        first = jax.numpy.array(bool(state["first_time"]))
        self.moving = self.moving.set(self.layer.ema_first_time_index, first)
        arrays = jax.numpy.array(state["mean"]), jax.numpy.array(state["var"])
        self.moving = self.moving.set(self.layer.ema_state_index, arrays)

    def get(self):
        mean, var = self.moving.get(self.layer.ema_state_index)
        return {
            "mean": np.asarray(mean),
            "var": np.asarray(var),
            "first_time": bool(self.moving.get(self.layer.ema_first_time_index)),
        }

    def call(self, x, **mode):
        axes = {"axis_name": "batch", "in_axes": (0, None), "out_axes": (0, None)}
        return jax.vmap(lambda v, state: self.layer(v, state, **mode), **axes)(x, self.moving)

    def plain(self, x):
        y, self.moving = self.call(x)
        return y

    def train(self, x):
        y, self.moving = self.call(x, inference=False)
        return y

    def infer(self, x):
        return self.call(x, inference=True)[0]

    def state(self):
        numbers = {"eps": self.layer.eps, "momentum": self.layer.momentum}
        arrays = {"weight": np.asarray(self.layer.weight), "bias": np.asarray(self.layer.bias)}
        return {**arrays, **self.get(), **numbers}


class Batch(Ema):
    mode = {"mode": "batch"}

    def put(self, state):
        hidden = tuple(jax.numpy.array(state[name]) for name in ("mean", "var"))
        self.moving = self.moving.set(self.layer.batch_counter, jax.numpy.array(state["counter"]))
        self.moving = self.moving.set(self.layer.batch_state_index, hidden)

    def get(self):
        mean, var = self.moving.get(self.layer.batch_state_index)
        counter = int(self.moving.get(self.layer.batch_counter))
        return {"counter": counter, "mean": np.asarray(mean), "var": np.asarray(var)}
