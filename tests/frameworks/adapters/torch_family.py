"""Layers that are, or hold, modules of torch."""

import sys
from unittest import mock

import torch

# A torchvision that was built for another torch misses these at import; nothing here uses them.
library = torch.library.Library("torchvision", "FRAGMENT")
for name in "nms", "qnms":
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class Layer:
    """One whose `make` returns a module; the state is that module's state_dict."""

    def __init__(self, channels, ndim, state=None):
        state = state or {}
        numbers = {name: state.pop(name) for name in ("eps", "momentum") if name in state}
        self.layer = self.make(channels, ndim, **numbers)
        if state:
            self.layer.load_state_dict({name: torch.as_tensor(v) for name, v in state.items()})

    def plain(self, x):
        return self.layer(torch.as_tensor(x)).detach().numpy()

    def train(self, x):
        self.layer.train()
        return self.plain(x)

    def infer(self, x):
        self.layer.eval()
        return self.plain(x)

    def numbers(self):
        return {"eps": self.layer.eps, "momentum": self.layer.momentum}

    def state(self):
        arrays = {name: v.numpy().copy() for name, v in self.layer.state_dict().items()}
        return {**arrays, **self.numbers()}


class Torch(Layer):
    def make(self, channels, ndim, **numbers):
        kind = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[ndim]
        return kind(channels, **numbers)


class E3nn(Layer):
    """Scalars of even parity, l = 0: those are what e3nn normalizes as others do."""

    def make(self, channels, ndim, **numbers):
        from e3nn.nn import BatchNorm

        return BatchNorm(f"{channels}x0e", **numbers)


class Geometric(Layer):
    def make(self, channels, ndim, **numbers):
        from torch_geometric.nn import BatchNorm

        return BatchNorm(channels, **numbers)

    def numbers(self):
        return {"eps": self.layer.module.eps, "momentum": self.layer.module.momentum}


class GeometricHetero(Layer):
    """With one type of nodes."""

    def make(self, channels, ndim, **numbers):
        from torch_geometric.nn import HeteroBatchNorm

        return HeteroBatchNorm(channels, num_types=1, **numbers)

    def plain(self, x):
        x = torch.as_tensor(x)
        return self.layer(x, torch.zeros(len(x), dtype=torch.long)).detach().numpy()


class Fastai(Layer):
    def make(self, channels, ndim, **numbers):
        from fastai.layers import BatchNorm

        return BatchNorm(channels, ndim={2: 1, 4: 2}[ndim], **numbers)


class Speechbrain(Layer):
    def make(self, channels, ndim, **numbers):
        sys.modules["torchaudio"] = mock.MagicMock()  # whose binary wants CUDA
        from speechbrain.nnet.normalization import BatchNorm1d, BatchNorm2d

        return {2: BatchNorm1d, 4: BatchNorm2d}[ndim](input_size=channels, **numbers)

    def numbers(self):
        return {"eps": self.layer.norm.eps, "momentum": self.layer.norm.momentum}


class Tabnet(Layer):
    """Ghost batches of 128 rows; only the momentum can be chosen."""

    def make(self, channels, ndim, momentum=0.01, eps=1e-5):
        from pytorch_tabnet.tab_network import GBN

        layer = GBN(channels, momentum=momentum)
        layer.bn.eps = eps
        return layer

    def numbers(self):
        return {"eps": self.layer.bn.eps, "momentum": self.layer.bn.momentum}


class Timm(Layer):
    """Without its activation."""

    def make(self, channels, ndim, **numbers):
        from timm.layers import BatchNormAct2d

        return BatchNormAct2d(channels, apply_act=False, **numbers)

    def plain(self, x):
        images = x[..., None, None] if x.ndim == 2 else x
        return super().plain(images).reshape(x.shape)
