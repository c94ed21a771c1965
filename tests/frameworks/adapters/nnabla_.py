import nnabla as nn
import nnabla.parametric_functions as PF


class Layer:
    def __init__(self, channels, ndim, state=None):
        self.numbers, self.channels, self.parameters = {"eps": 1e-5, "decay_rate": 0.9}, channels, {}
        if state:
            self.numbers = {name: state.pop(name) for name in self.numbers}
        with nn.parameter_scope("", self.parameters):
            self.call(nn.Variable((2, channels) + (2,) * (ndim - 2)), batch_stat=False)
            for name, v in nn.get_parameters(grad_only=False).items() if state else []:
                v.d = state[name]

    def call(self, x, **mode):
        return PF.batch_normalization(x, **self.numbers, **mode)

    def plain(self, x, **mode):
        with nn.parameter_scope("", self.parameters):
            y = self.call(nn.Variable.from_numpy_array(x), **mode)
        y.forward()
        return y.d.copy()

    def train(self, x):
        return self.plain(x, batch_stat=True)

    def infer(self, x):
        return self.plain(x, batch_stat=False)

    def state(self):
        with nn.parameter_scope("", self.parameters):
            arrays = nn.get_parameters(grad_only=False)
        return {**{name: v.d.copy() for name, v in arrays.items()}, **self.numbers}
