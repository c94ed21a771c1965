import os
import sys

# It compiles at its first import, with what this tells; in an environment it is not found.
config = f"python3.{sys.version_info.minor}-config"
os.environ.update(nvcc_path="", use_mkl="0")  # neither a GPU, nor a library that it would fetch
os.environ.setdefault("python_config_path", os.path.join(sys.base_prefix, "bin", config))

import jittor  # noqa: E402


class Layer:
    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("eps", "momentum") if name in state}
        self.layer = jittor.nn.BatchNorm(channels, **numbers)
        if state:
            self.layer.load_state_dict(state)

    def plain(self, x):
        y = self.layer(jittor.array(x)).numpy()
        jittor.sync_all()
        return y

    def train(self, x):
        self.layer.train()
        return self.plain(x)

    def infer(self, x):
        self.layer.eval()
        return self.plain(x)

    def state(self):
        arrays = {name: v.numpy() for name, v in self.layer.state_dict().items()}
        return {**arrays, "eps": self.layer.eps, "momentum": self.layer.momentum}
