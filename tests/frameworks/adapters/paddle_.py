import paddle


class Layer:
    kinds = {2: paddle.nn.BatchNorm1D, 4: paddle.nn.BatchNorm2D}

    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("epsilon", "momentum") if name in state}
        self.layer = self.kinds[ndim](channels, **numbers)
        if state:
            self.layer.set_state_dict({name: paddle.to_tensor(v) for name, v in state.items()})

    def plain(self, x):
        return self.layer(paddle.to_tensor(x)).numpy()

    def train(self, x):
        self.layer.train()
        return self.plain(x)

    def infer(self, x):
        self.layer.eval()
        return self.plain(x)

    def state(self):
        arrays = {name: v.numpy() for name, v in self.layer.state_dict().items()}
        return {**arrays, "epsilon": self.layer._epsilon, "momentum": self.layer._momentum}
