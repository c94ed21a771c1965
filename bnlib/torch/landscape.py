"""What the loss looks like around a point: shifts, steps along the gradient, curvature.

A network is measured in training mode, as it stands: BatchNorm uses the statistics of the images
that are given. Hand over a copy where running statistics must not change.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnlib.torch.networks import Hidden

Vector = tuple[Tensor, ...]  # one tensor for each parameter


def dot(a: Vector, b: Vector) -> float:
    """The scalar product of two vectors of parameters."""
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))


def length(a: Vector) -> float:
    """The Euclidean length of a vector of parameters."""
    return dot(a, a) ** 0.5


def cosine(a: Vector, b: Vector) -> float:
    """The cosine of the angle between two vectors of parameters."""
    return dot(a, b) / max(length(a) * length(b), 1e-30)


def loss_of(net: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy, in nats."""
    return nn.functional.cross_entropy(net(x), labels)


def gradient(net: nn.Module, x: Tensor, labels: Tensor) -> tuple[float, Vector]:
    """The loss and its gradient for all parameters."""
    loss = loss_of(net, x, labels)
    return loss.item(), torch.autograd.grad(loss, tuple(net.parameters()))


@torch.no_grad()
def move(net: nn.Module, direction: Vector, by: float) -> None:
    """Add a multiple of a vector to the parameters, in place."""
    for p, d in zip(net.parameters(), direction, strict=True):
        p.add_(d, alpha=by)


class Path(NamedTuple):
    """What is seen on steps of K lengths along the gradient from one point, all (K,).

    Attributes:
        losses: the loss at the end of each, in nats.
        changes: ‖Δg‖ as a share of ‖g‖, the length of the gradient at the start.
        smoothness: ‖Δg‖ / ‖Δw‖, the *effective smoothness*.
    """

    losses: list[float]
    changes: list[float]
    smoothness: list[float]


def along_gradient(
    net: nn.Module, x: Tensor, labels: Tensor, lengths: Sequence[float]
) -> tuple[float, Path]:
    """Walk down the gradient and look at losses and gradients on the way.

    Args:
        net: left as it was.
        x: images, (N, 784).
        labels: (N,).
        lengths: of the steps, ‖Δw‖.

    Returns:
        The loss at the start, and the `Path`.

    Source: Santurkar et al. 2018, section 3.1.
    """
    net = copy.deepcopy(net)
    start = [p.detach().clone() for p in net.parameters()]
    loss, g = gradient(net, x, labels)
    size = length(g)
    path = Path([], [], [])
    for step in lengths:
        with torch.no_grad():
            for p, p0, d in zip(net.parameters(), start, g, strict=True):
                p.copy_(p0 - step / size * d)
        new_loss, new = gradient(net, x, labels)
        change = length(tuple(b - a for a, b in zip(g, new, strict=True)))
        path.losses.append(new_loss)
        path.changes.append(change / size)
        path.smoothness.append(change / step)
    return loss, path


def hessian_times(net: nn.Module, x: Tensor, labels: Tensor, v: Vector) -> Vector:
    """The product of the loss's Hessian with a vector, by a second backward pass."""
    parameters = tuple(net.parameters())
    g = torch.autograd.grad(loss_of(net, x, labels), parameters, create_graph=True)
    return torch.autograd.grad(g, parameters, grad_outputs=v)


def largest_eigenvalue(
    net: nn.Module, x: Tensor, labels: Tensor, v: Vector, *, iterations: int
) -> tuple[float, Vector]:
    """The eigenvalue of the loss's Hessian that is largest in size, by power iteration.

    Args:
        net: the network.
        x: images, (N, 784).
        labels: (N,).
        v: where to begin; an eigenvector of a point nearby saves iterations.
        iterations: products with the Hessian.

    Returns:
        The Rayleigh quotient of the last iterate, in nats by squared units of the weights, and the
        iterate, of length 1.

    Raises:
        ValueError: iterations is below 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}; expected 1 or more")
    for _ in range(iterations):
        size = length(v)
        v = tuple(a / size for a in v)
        product = hessian_times(net, x, labels, v)
        value, last = dot(v, product), v
        v = product
    return value, last


def batch_sharpness(net: nn.Module, x: Tensor, labels: Tensor) -> float:
    """The curvature of a mini-batch's own loss along its own gradient, gᵀHg / ‖g‖².

    Args:
        net: the network.
        x: a mini-batch, (m, 784).
        labels: (m,).

    Source: Andreyev and Beneventano 2024, who average it over mini-batches.
    """
    _, g = gradient(net, x, labels)
    return dot(g, hessian_times(net, x, labels, g)) / max(dot(g, g), 1e-30)


class Shift(NamedTuple):
    """What one step of gradient descent does to the last hidden layer of a network.

    Attributes:
        mean: by how many of their own standard deviations over the images the mean input of the
            median unit's ReLU moves, when all parameters take the step.
        cosine: of the angle between the gradients for the layer's weights, before and after the
            layers below took the step, and they alone.
        change: the distance of the two, as a share of the first one's length.
    """

    mean: float
    cosine: float
    change: float


def shift(net: nn.Sequential, x: Tensor, labels: Tensor, lr: float) -> Shift:
    """Internal covariate shift in one step, measured in two ways.

    Args:
        net: as `relu_mlp` makes it, with two or more hidden layers; left as it was.
        x: the mini-batch of the step, (m, 784).
        labels: (m,).
        lr: learning rate of the step.

    Raises:
        ValueError: net has fewer than two hidden layers.

    Source: Santurkar et al. 2018, section 2.2, for the change of gradients.
    """
    hidden = [i for i, layer in enumerate(net) if isinstance(layer, Hidden)]
    if len(hidden) < 2:
        raise ValueError(f"net has {len(hidden)} hidden layers; expected 2 or more")
    last = hidden[-1]
    net = copy.deepcopy(net)
    _, g = gradient(net, x, labels)

    def inputs(net: nn.Sequential) -> Tensor:
        layer = net[last]
        assert isinstance(layer, Hidden)
        with torch.no_grad():
            return layer.inputs(net[:last](x))

    def of_last(net: nn.Sequential) -> Vector:
        layer = net[last]
        assert isinstance(layer, Hidden)
        return torch.autograd.grad(loss_of(net, x, labels), (layer.linear.weight,))

    old, before = inputs(net), of_last(net)
    after, below = copy.deepcopy(net), copy.deepcopy(net)  # whose noise goes on from here
    move(after, g, -lr)
    for p, taken in zip(below[:last].parameters(), after[:last].parameters(), strict=True):
        p.data.copy_(taken.data)
    new, changed = inputs(after), of_last(below)
    std = old.std(0, correction=0)
    alive = std > 1e-6
    moved = (new.mean(0) - old.mean(0)).abs()[alive] / std[alive]
    difference = tuple(b - a for a, b in zip(before, changed, strict=True))
    return Shift(
        float(moved.median()) if alive.any() else float("nan"),
        cosine(before, changed),
        length(difference) / max(length(before), 1e-30),
    )
