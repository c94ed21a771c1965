"""The networks and the data of the experiments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from bnlib import mnist, nn, training

if TYPE_CHECKING:
    import torch

EXAMPLES_SEEN = 2000  # of the training set, for its accuracy


def mlp(
    activation: Literal["sigmoid", "ReLU"],
    depth: int,
    *,
    batch_norm: bool,
    seed: int,
    gain: float = 1.0,
    dropout: float = 0.0,
    norm: Callable[[int], nn.Layer] = nn.BatchNorm,
) -> nn.Sequential:
    r"""784 inputs, hidden layers of 100 units, 10 outputs.

    A hidden layer is linear → BatchNorm → activation → Dropout; without BatchNorm it has a bias in
    its place. The first weights are those of Glorot for the sigmoid, of He for ReLU:

    .. math:: \mathrm{std} = \mathrm{gain} \sqrt{2 / (\text{inputs} + \text{outputs})}
        \quad\text{or}\quad \mathrm{gain} \sqrt{2 / \text{inputs}}

    Args:
        activation: of the hidden layers.
        depth: number of hidden layers.
        batch_norm: whether they have BatchNorm.
        seed: of the weights and of the dropped units.
        gain: factor on the first weights of the hidden layers.
        dropout: share of hidden units that is dropped.
        norm: what stands in BatchNorm's place, made for a number of channels.

    Returns:
        The network, of float32.
    """
    rng = np.random.default_rng(seed)
    dropped = np.random.default_rng([seed, 1])  # the weights are the same for all rates
    layers: list[nn.Layer] = []
    width = 28 * 28
    for i in range(depth):
        std = gain * np.sqrt(2 / width if activation == "ReLU" else 2 / (width + 100))
        layers.append(nn.Linear(width, 100, std=std, rng=rng, bias=not batch_norm, needs_dx=i > 0))
        if batch_norm:
            layers.append(norm(100))
        layers.append(nn.ReLU() if activation == "ReLU" else nn.Sigmoid())
        if dropout:
            layers.append(nn.Dropout(dropout, rng=dropped))
        width = 100
    return nn.Sequential(*layers, nn.Linear(width, 10, std=np.sqrt(2 / (width + 10)), rng=rng))


def cnn(
    activation: Literal["sigmoid", "ReLU"],
    depth: int,
    *,
    batch_norm: bool,
    seed: int,
    gain: float = 1.0,
    dropout: float = 0.0,
    norm: Callable[[int], torch.nn.Module] | None = None,
) -> torch.nn.Sequential:
    """Convolutions of 3 × 3, a third of them with 8 channels of 14 × 14, the others 16 of 7 × 7.

    A convolution is followed by BatchNorm, or has a bias in its place, and by the activation; the
    first of each size moves by 2. Dropout stands before the last, linear layer.

    Args:
        activation: of the convolutions.
        depth: number of convolutions, 2 or more.
        batch_norm: whether they have BatchNorm, of `bnlib.torch`.
        seed: of the weights, which are the same for all arms, and of the dropped units, which are
            not: torch draws them after what its layers draw.
        gain: factor on the first weights of the convolutions, chosen as in `mlp`.
        dropout: share of the inputs of the last layer that is dropped.
        norm: what stands in BatchNorm's place, made for a number of channels; None for BatchNorm.

    Returns:
        The network, for inputs of (N, 1, 28, 28), on the GPU if there is one.

    Raises:
        ValueError: depth is below 2.
    """
    if depth < 2:
        raise ValueError(f"depth is {depth}; expected 2 or more")
    import torch

    from bnlib.torch import BatchNorm2d

    torch.manual_seed(seed)  # of Dropout
    drawn = torch.Generator().manual_seed(seed)  # the weights are the same for all arms
    layers: list[torch.nn.Module] = []
    channels = 1
    small = max(1, depth // 3)
    for i in range(depth):
        wide = 8 if i < small else 16
        conv = torch.nn.Conv2d(
            channels, wide, 3, padding=1, stride=2 if i in (0, small) else 1, bias=not batch_norm
        )
        fan_in, fan_out = 9 * channels, 9 * wide
        std = gain * (2 / fan_in if activation == "ReLU" else 2 / (fan_in + fan_out)) ** 0.5
        torch.nn.init.normal_(conv.weight, std=std, generator=drawn)
        if conv.bias is not None:
            torch.nn.init.zeros_(conv.bias)
        layers.append(conv)
        if batch_norm:
            layers.append((norm or BatchNorm2d)(wide))
        layers.append(torch.nn.ReLU() if activation == "ReLU" else torch.nn.Sigmoid())
        channels = wide
    last = torch.nn.Linear(channels * 7 * 7, 10)
    torch.nn.init.normal_(last.weight, std=(2 / (last.in_features + 10)) ** 0.5, generator=drawn)
    torch.nn.init.zeros_(last.bias)
    layers += [torch.nn.Flatten(), *([torch.nn.Dropout(dropout)] if dropout else []), last]
    return torch.nn.Sequential(*layers).to(device())


def device() -> str:
    """Where torch computes: a GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch has one thread meanwhile: each core has its own run, and sums have one order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=4)
def digits(examples: int, seed: int) -> dict[str, training.Examples]:
    """All training examples and a few of them, and both halves of the test set."""
    loaded = mnist.load()
    images, labels = loaded.train_images, loaded.train_labels
    if examples:
        drawn = np.random.default_rng([seed, 2]).permutation(len(images))[:examples]
        images, labels = images[drawn], labels[drawn]
    x = mnist.standardize(images)
    test, answers = mnist.standardize(loaded.test_images), loaded.test_labels
    return {
        "all": (x, labels),
        "train": (x[:EXAMPLES_SEEN], labels[:EXAMPLES_SEEN]),
        "validation": (test[::2], answers[::2]),
        "test": (test[1::2], answers[1::2]),
    }
