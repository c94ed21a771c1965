import numpy as np
import oneflow as flow


class Layer:
    kinds = {2: flow.nn.BatchNorm1d, 4: flow.nn.BatchNorm2d}

    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("eps", "momentum") if name in state}
        self.layer = self.kinds[ndim](channels, **numbers)
        if state:
            self.layer.load_state_dict({k: flow.tensor(np.asarray(v)) for k, v in state.items()})

    def plain(self, x):
        return self.layer(flow.tensor(x)).detach().numpy()

    def train(self, x):
        self.layer.train()
        return self.plain(x)

    def infer(self, x):
        self.layer.eval()
        return self.plain(x)

    def state(self):
        arrays = {name: v.numpy().copy() for name, v in self.layer.state_dict().items()}
        return {**arrays, "eps": self.layer.eps, "momentum": self.layer.momentum}
