"""Four small networks for MNIST whose layers are normalized in one of many ways."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from bnlib._messages import short
from bnlib.torch.modules import BatchNorm1d, BatchNorm2d
from bnlib.torch.norms import BatchRenorm, DynamicTanh, standardize_weight

Kind = Literal["MLP", "CNN", "residual", "rows"]
Norm = Literal[
    "none",
    "batch",
    "renorm",
    "layer",
    "group",
    "instance",
    "RMS",
    "tanh",
    "weight norm",
    "standardized",
]
ROWS = 32  # features of a row in the Transformer


def network(kind: Kind, norm: Norm, *, seed: int) -> nn.Module:
    r"""A network whose layers are normalized in one way, with the same weights for all ways.

    - MLP: 3 hidden layers of 100 ReLU units.
    - CNN: 3 × 3 convolutions with ReLU, 8 channels of 14 × 14, then twice 16 of 7 × 7.
    - residual: the CNN's first two, then 2 blocks x + norm(W · relu(norm(W · x))).
    - rows: a Transformer that reads an image row by row, 32 features for each of 28 rows, with 2
      blocks of attention (2 heads) and MLP.

    The last, linear layer reads all positions or rows: their mean would be the same for all images
    behind an instance norm.

    A norm follows each linear layer or convolution; in the Transformer it stands in front of
    attention, MLP and the last layer, and "layer" and "RMS" normalize each row by itself. "weight
    norm" and "standardized" are of the weights of the hidden layers. "group" has groups of 4
    channels.

    Args:
        kind: which network.
        norm: how it is normalized.
        seed: of the weights.

    Returns:
        The network, for inputs of (N, 784).

    Raises:
        ValueError: kind or norm is not known, or it is "instance" in an MLP, where an instance of a
            channel is a single value.

    Source: chapter "What else normalizes?".
    """
    for name, value, known in ("kind", kind, get_args(Kind)), ("norm", norm, get_args(Norm)):
        if value not in known:
            raise ValueError(f"{name} is {short(repr(value))}; expected one of {', '.join(known)}")
    if (kind, norm) == ("MLP", "instance"):
        raise ValueError("norm is 'instance'; expected another: a channel of an MLP is one value")
    drawn = torch.Generator().manual_seed(seed)
    if kind == "rows":
        return _Rows(norm, drawn)
    if kind == "MLP":
        hidden = [_hidden(nn.Linear(inputs, 100), norm, drawn) for inputs in (784, 100, 100)]
        return nn.Sequential(*_with_relu(hidden), _last(100, drawn))
    first = [_convolution(1, 8, 2, norm, drawn), _convolution(8, 16, 2, norm, drawn)]
    layers = [nn.Unflatten(1, (1, 28, 28)), *_with_relu(first)]
    if kind == "CNN":
        layers += _with_relu([_convolution(16, 16, 1, norm, drawn)])
    else:
        layers += [_Residual(norm, drawn) for _ in range(2)]
    return nn.Sequential(*layers, nn.Flatten(), _last(16 * 7 * 7, drawn))


def _weights(layer: nn.Linear | nn.Conv2d, gain: float, drawn: torch.Generator) -> None:
    """Of mean 0 and variance gain / inputs, as He et al. have it with a gain of 2; biases of 0."""
    std = math.sqrt(gain / layer.weight[0].numel())
    nn.init.normal_(layer.weight, std=std, generator=drawn)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _last(inputs: int, drawn: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, 10)
    _weights(layer, 1, drawn)
    return layer


def _hidden(layer: nn.Linear | nn.Conv2d, norm: Norm, drawn: torch.Generator) -> nn.Sequential:
    """A layer and its norm, or with a norm of its weights."""
    _weights(layer, 2, drawn)
    if norm == "weight norm":
        return nn.Sequential(weight_norm(layer))
    if norm == "standardized":
        return nn.Sequential(standardize_weight(layer))
    return nn.Sequential(layer, _norm(norm, layer.weight.shape[0], layer.weight.ndim == 4))


def _norm(norm: Norm, channels: int, images: bool) -> nn.Module:
    makers: dict[str, Callable[[], nn.Module]] = {
        "none": nn.Identity,
        "batch": lambda: (BatchNorm2d if images else BatchNorm1d)(channels),
        "renorm": lambda: BatchRenorm(channels),
        "layer": lambda: nn.GroupNorm(1, channels),
        "group": lambda: nn.GroupNorm(channels // 4, channels),
        "instance": lambda: nn.GroupNorm(channels, channels),
        "RMS": lambda: _RMSNorm(channels),
        "tanh": lambda: DynamicTanh(channels),
    }
    return makers[norm]()


def _convolution(
    inputs: int, outputs: int, stride: int, norm: Norm, drawn: torch.Generator
) -> nn.Sequential:
    return _hidden(nn.Conv2d(inputs, outputs, 3, padding=1, stride=stride), norm, drawn)


def _with_relu(layers: list[nn.Sequential]) -> list[nn.Module]:
    return [nn.Sequential(*layer, nn.ReLU()) for layer in layers]


class _RMSNorm(nn.Module):
    """The RMS norm of whole examples, (N, C) or (N, C, *spatial), with a gamma a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x_hat = nn.functional.rms_norm(x, x.shape[1:], eps=1e-5)
        return x_hat * self.weight.view(-1, *[1] * (x.ndim - 2))


class _Residual(nn.Module):
    """x + norm(W · relu(norm(W · x)))."""

    def __init__(self, norm: Norm, drawn: torch.Generator) -> None:
        super().__init__()
        first, second = (_convolution(16, 16, 1, norm, drawn) for _ in range(2))
        self.branch = nn.Sequential(*first, nn.ReLU(), *second)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class _OfRows(nn.Module):
    """A norm of (N, rows, features), the features being its channels."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        self.each = {"layer": nn.LayerNorm, "RMS": nn.RMSNorm}.get(norm)
        if norm in ("weight norm", "standardized"):
            norm = "none"
        self.norm = self.each(ROWS) if self.each else _norm(norm, ROWS, images=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x) if self.each else self.norm(x.mT).mT
        return y


class _Rows(nn.Module):
    """The Transformer."""

    def __init__(self, norm: Norm, drawn: torch.Generator) -> None:
        super().__init__()

        def linear(inputs: int, outputs: int) -> nn.Module:
            layer = nn.Linear(inputs, outputs)
            _weights(layer, 1, drawn)
            if norm == "weight norm":
                return weight_norm(layer)
            return standardize_weight(layer) if norm == "standardized" else layer

        self.first = linear(28, ROWS)
        self.place = nn.Parameter(0.02 * torch.randn(28, ROWS, generator=drawn))
        self.norms = nn.ModuleList(_OfRows(norm) for _ in range(5))
        self.mixes = nn.ModuleList(linear(ROWS, 3 * ROWS) for _ in range(2))
        self.joins = nn.ModuleList(linear(ROWS, ROWS) for _ in range(2))
        self.mlps = nn.ModuleList(
            nn.Sequential(linear(ROWS, 2 * ROWS), nn.ReLU(), linear(2 * ROWS, ROWS))
            for _ in range(2)
        )
        self.last = _last(28 * ROWS, drawn)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.view(-1, 28, 28)) + self.place
        for i in range(2):
            q, k, v = (
                part.unflatten(2, (2, ROWS // 2)).transpose(1, 2)  # (N, heads, rows, features)
                for part in self.mixes[i](self.norms[2 * i](x)).chunk(3, 2)
            )
            seen = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.joins[i](seen.transpose(1, 2).flatten(2))
            x = x + self.mlps[i](self.norms[2 * i + 1](x))
        y: Tensor = self.last(self.norms[4](x).flatten(1))
        return y
