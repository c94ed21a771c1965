"""The MLP with which the book asks why BatchNorm works, with what may stand in its place.

Its BatchNorm is torch's own layer, which is the faster one on mini-batches of 60 × 100 values; the
chapter on convolutional networks shows that the two compute the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Shake(nn.Module):
    r"""A new shift and a new scale for each unit at each step of training.

    .. math:: y = s x + b, \qquad \ln s \sim \mathcal N(0, n^2), \quad b \sim \mathcal N(0, n^2)

    It is the identity at inference.

    Args:
        size: n, without a unit; 0 leaves x as it is.
        rng: draws s and b.

    Source: after Santurkar et al. 2018, section 2.1, who draw other distributions, and anew for
    each example.
    """

    def __init__(self, size: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.size, self.rng = size, rng

    def forward(self, x: Tensor) -> Tensor:
        """y, of the shape of `x`, (N, C)."""
        if not self.training or self.size == 0:
            return x
        s, b = torch.from_numpy(self.rng.normal(0, self.size, (2, x.shape[1]))).to(x)
        return torch.exp(s) * x + b


class Hidden(nn.Module):
    """A hidden layer: linear → BatchNorm → `Shake` → ReLU, and a skip around it all.

    Args:
        linear: the weights; with a bias where there is no BatchNorm.
        norm: whether there is BatchNorm.
        skip: whether the input is added to the output.
        scale: the first value of a learned factor on what is added to the input; None for none.
        shake: what stands behind BatchNorm.
    """

    def __init__(
        self, linear: nn.Linear, *, norm: bool, skip: bool, scale: float | None, shake: Shake
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.BatchNorm1d(linear.out_features) if norm else nn.Identity()
        self.shake = shake
        self.skip = skip
        self.scale = None if scale is None else nn.Parameter(torch.tensor(scale))

    def inputs(self, x: Tensor) -> Tensor:
        """What the ReLU gets, (N, C)."""
        result: Tensor = self.shake(self.norm(self.linear(x)))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """What the next layer gets, (N, C)."""
        h = torch.relu(self.inputs(x))
        if self.scale is not None:
            h = self.scale * h
        return x + h if self.skip else h


def relu_mlp(
    depth: int,
    *,
    batch_norm: bool,
    seed: int,
    width: int = 100,
    skip: bool = False,
    scale: float | None = None,
    shake: float = 0.0,
) -> nn.Sequential:
    r"""784 inputs, hidden layers of ReLUs, 10 outputs, with the first weights of He.

    .. math:: \mathrm{std} = \sqrt{2 / \text{inputs}}

    Args:
        depth: number of hidden layers.
        batch_norm: whether they have BatchNorm.
        seed: of the weights, which are the same with and without it, and of the noise.
        width: units of a hidden layer.
        skip: whether each hidden layer but the first adds its input to its output.
        scale: the first value of the learned factor on what such a layer adds; None for none.
        shake: size of the noise behind BatchNorm, or in its place.

    Returns:
        The network, of float32, for inputs of (N, 784).

    Raises:
        ValueError: depth is below 1, or scale is given without skip.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; expected 1 or more")
    if scale is not None and not skip:
        raise ValueError(f"scale is {scale} and skip is False; expected a skip for it to scale")
    drawn = torch.Generator().manual_seed(seed)
    noise = np.random.default_rng([seed, 3])

    def linear(inputs: int, outputs: int, std: float, bias: bool) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, bias=bias)
        nn.init.normal_(layer.weight, std=std, generator=drawn)
        if bias:
            nn.init.zeros_(layer.bias)
        return layer

    sizes = [28 * 28, *[width] * depth]
    layers: list[nn.Module] = [
        Hidden(
            linear(inputs, width, (2 / inputs) ** 0.5, not batch_norm),
            norm=batch_norm,
            skip=skip and i > 0,
            scale=scale if i > 0 else None,
            shake=Shake(shake, noise),
        )
        for i, inputs in enumerate(sizes[:-1])
    ]
    return nn.Sequential(*layers, linear(width, 10, (2 / (width + 10)) ** 0.5, True))


@torch.no_grad()
def set_first_weights(net: nn.Sequential, x: Tensor) -> None:
    """Scale and shift the hidden layers, one after the other, by what they do to a mini-batch.

    Each unit of a layer without BatchNorm gets weights and a bias with which its input of the ReLU
    has mean 0 and variance 1 over the mini-batch.

    Args:
        net: as `relu_mlp` makes it, without BatchNorm.
        x: the mini-batch, (N, 784).

    Raises:
        ValueError: net has BatchNorm.

    Source: Mishkin and Matas 2016, who scale each layer by one factor and begin with orthogonal
    weights.
    """
    for layer in net:
        if not isinstance(layer, Hidden):
            continue
        if layer.linear.bias is None:
            raise ValueError("net has BatchNorm; expected one without")
        h = layer.linear(x)
        mean, std = h.mean(0), h.std(0, correction=0).clamp(min=1e-6)
        layer.linear.weight.copy_(layer.linear.weight / std[:, None])
        layer.linear.bias.copy_((layer.linear.bias - mean) / std)
        x = layer(x)
