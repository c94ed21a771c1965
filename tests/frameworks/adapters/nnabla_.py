import nnabla as nn
import nnabla.parametric_functions as PF


class Layer:
    def __init__(self, channels, ndim, state=None):
        self.numbers, self.parameters = {"eps": 1e-5, "decay_rate": 0.9}, {}
        if state:
            self.numbers = {name: state.pop(name) for name in self.numbers}
        with nn.parameter_scope("", self.parameters):
            example = nn.Variable((2, channels) + (2,) * (ndim - 2))
            PF.batch_normalization(example, batch_stat=False)
            for name, v in nn.get_parameters(grad_only=False).items() if state else []:
                v.d = state[name].reshape(v.shape)

    def plain(self, x, **mode):
        with nn.parameter_scope("", self.parameters):
            y = PF.batch_normalization(nn.Variable.from_numpy_array(x), **self.numbers, **mode)
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
