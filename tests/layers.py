"""A BatchNorm layer of NumPy that takes on the habits of any framework, for measure to find."""

import numpy as np

HABITS = {
    "eps": 1e-5,
    "on_std": False,
    "gamma": 1.0,
    "beta": 0.0,
    "momentum": 0.1,  # the weight of the new batch
    "weighs": "new",
    "average": "moving",
    "start": (0.0, 1.0),
    "running": "biased",
    "divides_by": "biased",
    "axis": 1,
    "plain_call": "infer",
    "one": None,
    "one_pass": False,
    "infer_by_batch": False,
    "infer_moves": False,
    "shape": (-1,),
    "images": None,
    "activation": False,
    "noise": 0.0,
    "every_pixel": False,
    "weights": None,
    "train_raises": False,
}


class Layer:
    """One training step, inference, and a state by names of its own."""

    def __init__(self, channels, **habits):
        self.__dict__.update({**HABITS, **habits})
        self.mean, self.var = (np.full(channels, v) for v in self.start)
        self.hidden, self.steps = (self.mean, self.var), 0

    def _shaped(self, v, x):
        return np.reshape(v, [-1 if k == self.axis % x.ndim else 1 for k in range(x.ndim)])

    def _normalize(self, x, mean, var):
        mean, var = self._shaped(mean, x), self._shaped(var, x)
        std = np.sqrt(var) + self.eps if self.on_std else np.sqrt(var + self.eps)
        y = np.float32(self.gamma * (x - mean) / std + self.beta)
        return np.maximum(y, 0) if self.activation else y

    def _batch(self, x):
        over = tuple(k for k in range(x.ndim) if k != self.axis % x.ndim)
        if self.noise:
            x = x + self.noise * np.arange(len(x)).reshape([-1] + [1] * (x.ndim - 1)) ** 2
        m = x.size // x.shape[self.axis]
        mean = x.mean(over)
        var = (x**2).mean(over) - mean**2 if self.one_pass else x.var(over, dtype=np.float64)
        kinds = {"biased": var, "unbiased": np.float64(var) * m / (m - 1), "doubled": 2 * var}
        return mean, kinds, m

    def _weight(self, m):
        if self.average == "cumulative" or (self.average == "replaced" and self.steps == 1):
            return 1 / self.steps
        if self.weights:
            return self.weights[self.steps - 1]
        return 1 - np.exp(-m / 80) if self.average == "by size" else self.momentum

    def train(self, x):
        if self.train_raises:
            raise RuntimeError("no kernel")
        if self.every_pixel and x.ndim == 4:
            return np.zeros_like(x)
        if len(x) == 1 and self.one == "raises":
            raise ValueError("expected more than one row\nand more")
        if len(x) == 1 and self.one == "unchanged":
            return x
        mean, var, m = self._batch(x)
        self.steps += 1
        kind = self.images if self.images and x.ndim == 4 else self.running
        w, new = self._weight(m), (mean, var[kind])
        self.hidden = [
            v if w == 1 else (1 - w) * h + w * v for h, v in zip(self.hidden, new, strict=True)
        ]
        share = 1 - (1 - w) ** self.steps if self.average == "debiased" else 1
        self.mean, self.var = (h / share for h in self.hidden)
        if self.divides_by == "running":
            return self._normalize(x, self.mean, self.var)
        return self._normalize(x, mean, var[self.divides_by])

    def infer(self, x):
        if self.infer_moves:
            self.train(x)
        mean, var, _ = self._batch(x)
        return self._normalize(
            x, *((mean, var["biased"]) if self.infer_by_batch else (self.mean, self.var))
        )

    def plain(self, x):
        if self.plain_call == "raises":
            raise TypeError("training must be given")
        return getattr(self, self.plain_call)(x)

    def neither(self, x):
        return 2 * self.infer(x)

    def state(self):
        c = self.mean.size
        weight = self.momentum if self.weighs == "new" else 1 - self.momentum
        state = {
            "scale": np.full(c, self.gamma),
            "shift": np.full(c, self.beta),
            "avg": self.mean.reshape(self.shape),
            "variance": self.var.reshape(self.shape),
            "count": self.steps,
            "epsilon": self.eps,
            "decay": weight,
            "note": "a text",
        }
        return state | ({"hid": self.hidden[0]} if self.average == "debiased" else {})
