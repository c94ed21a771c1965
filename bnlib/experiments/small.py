"""The studies of the chapter "Where does it break?": small batches, parts of them, sorted ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bnlib import nn, optim
from bnlib._messages import short
from bnlib.experiments.networks import digits, mlp, one_thread
from bnlib.experiments.tables import SEEDS, Study

if TYPE_CHECKING:
    import torch

Norm = Literal["none", "batch", "layer"]

LOCAL_STEPS = 2  # of a client, before the clients' networks are averaged


@one_thread()
def train(
    *,
    norm: Norm,
    batch_size: int,
    lr: float,
    seed: int,
    steps: int,
    part: int = 0,
    examples: int = 0,
    classes: int = 10,
    clients: bool = False,
) -> dict[str, np.ndarray]:
    r"""One run of the ReLU MLP of three hidden layers on MNIST, in torch, with SGD.

    The rate falls to a tenth over the run. With clients, each of them trains a copy of the network
    on the images of its own classes for `LOCAL_STEPS` steps; then the copies are averaged, and the
    running statistics pooled, as if the clients' mini-batches had been one: federated averaging.

    Args:
        norm: what the hidden layers have before their activation.
        batch_size: examples in a mini-batch.
        lr: learning rate at the start.
        seed: of the weights, the order of images and the choice of a part of them.
        steps: number of mini-batches, of all clients together.
        part: examples that share BatchNorm's statistics in training, which divide the mini-batch; 0
            for the whole mini-batch.
        examples: number of training images, drawn by the seed; 0 for all.
        classes: of the images in a mini-batch, alike in number, one group of classes after the
            other; 10 for mini-batches of shuffled images.
        clients: whether each group of classes has a client of its own.

    Returns:
        Two rows, the start, where nothing is measured, and the end: `step`; `loss`, the mean over
        the last tenth of the mini-batches; the accuracy in inference mode on `train`, at most 2,000
        of the training images, on `validation`, every other test image, to choose by, and on
        `test`, the rest, to report; `seen`, the share of right answers in training mode in the last
        tenth of the mini-batches, before each step; and `again`, the accuracy on `test` when the
        running statistics are those of the `train` images in one batch. A run whose loss is not
        finite ends there.

    Raises:
        ValueError: norm is not known, or classes is none of 1, 2, 5 and 10.

    Source: McMahan et al. 2017, algorithm 1, for the clients; chapter "Where does it break?".
    """
    import torch

    if norm not in get_args(Norm):
        raise ValueError(
            f"norm is {short(repr(norm))}; expected one of {', '.join(get_args(Norm))}"
        )
    if classes not in (1, 2, 5, 10):
        raise ValueError(f"classes is {short(classes)}; expected 1, 2, 5 or 10")
    data = {
        name: (torch.tensor(x), torch.tensor(labels))
        for name, (x, labels) in digits(examples, seed if examples else 0).items()
    }
    net = _network(norm, part or batch_size, seed)
    schedule = optim.exponential_decay(lr, every=steps, factor=0.1)
    rng = np.random.default_rng(seed)
    batches = _batches(data["all"][1].numpy(), batch_size, classes, clients, rng)
    seen = _fit(net, data["all"], batches, steps, schedule, 10 // classes if clients else 1)
    ends = _accuracies(net, data)
    losses, right = np.array(seen).T
    last = max(1, steps // 10)
    ends |= {"step": len(losses), "loss": losses[-last:].mean(), "seen": right[-last:].mean()}
    names = "step", "loss", "train", "validation", "test", "seen", "again"
    start = {"step": 0}
    return {name: np.array([start.get(name, np.nan), ends[name]]) for name in names}


def _network(norm: Norm, size: int, seed: int) -> torch.nn.Sequential:
    """The layers of `mlp`, with its first weights, in torch."""
    import torch

    from bnlib.torch.norms import GhostBatchNorm1d

    layers: list[torch.nn.Module] = []
    for layer in mlp("ReLU", 3, batch_norm=norm != "none", seed=seed):
        if isinstance(layer, nn.Linear):
            outputs, inputs = layer.weight.value.shape
            linear = torch.nn.Linear(inputs, outputs, bias=layer.bias is not None)
            linear.weight.data = torch.from_numpy(layer.weight.value)
            if linear.bias is not None:
                torch.nn.init.zeros_(linear.bias)
            layers.append(linear)
        elif isinstance(layer, nn.BatchNorm):
            batch = norm == "batch"
            layers.append(GhostBatchNorm1d(100, size) if batch else torch.nn.LayerNorm(100))
        else:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


def _fit(
    net: torch.nn.Sequential,
    examples: tuple[torch.Tensor, torch.Tensor],
    batches: Iterator[np.ndarray],
    steps: int,
    schedule: optim.Schedule,
    clients: int,
) -> list[tuple[float, float]]:
    """Train, and return the loss and the accuracy of each mini-batch."""
    import torch

    x, labels = examples
    seen: list[tuple[float, float]] = []
    copies = [net] if clients == 1 else [copy.deepcopy(net) for _ in range(clients)]
    for step in range(steps):
        turn = step // LOCAL_STEPS % len(copies)
        model = copies[turn].train()
        parameters: list[torch.Tensor] = list(model.parameters())
        chosen = torch.from_numpy(next(batches))
        logits, answers = model(x[chosen]), labels[chosen]
        loss = torch.nn.functional.cross_entropy(logits, answers)
        right = (logits.argmax(1) == answers).float().mean()
        seen.append((loss.item(), right.item()))
        if not math.isfinite(seen[-1][0]):
            break
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-schedule(step))
        if clients > 1 and (step + 1) % (LOCAL_STEPS * len(copies)) == 0:
            average = _average([each.state_dict() for each in copies])
            for each in (net, *copies):
                each.load_state_dict(average)
    return seen


def _average(states: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Of networks of one kind; variances with the spread of the means, as of pooled batches."""
    import torch

    first, *others = states
    average = {
        name: sum((each[name] for each in others), first[name]) / len(states) for name in first
    }
    for name in average:
        if name.endswith("running_var"):
            means = torch.stack([each[name.replace("_var", "_mean")] for each in states])
            average[name] = average[name] + means.var(0, correction=0)
    return average


def _batches(
    labels: np.ndarray, size: int, classes: int, clients: bool, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Indices of mini-batches, without end; those of a client follow each other."""
    of_class = [np.flatnonzero(labels == k) for k in range(10)]
    while True:
        if classes == 10:
            shuffled = rng.permutation(len(labels))
            for i in range(0, len(labels) - size + 1, size):
                yield shuffled[i : i + size]
            continue
        order = np.arange(10) if clients else rng.permutation(10)
        for group in order.reshape(-1, classes):
            for _ in range(LOCAL_STEPS if clients else 1):
                yield np.concatenate(
                    [rng.choice(of_class[k], size // classes, replace=False) for k in group]
                )


def _accuracies(net: torch.nn.Sequential, data: dict[str, Any]) -> dict[str, float]:
    """In inference mode, and with the statistics estimated again."""
    import torch

    from bnlib.torch.norms import GhostBatchNorm1d
    from bnlib.torch.training import accuracy

    net.eval()
    found = {name: accuracy(net, *data[name]) for name in ("train", "validation", "test")}
    x, _ = data["train"]
    for layer in net:
        if isinstance(layer, GhostBatchNorm1d):
            layer.size, layer.momentum = len(x), 1.0
    with torch.no_grad():
        net.train()(x)
    return {**found, "again": accuracy(net.eval(), *data["test"])}


STUDIES: dict[str, Study] = {
    # 200 steps of each size, and 3,200 images seen by each.
    "small-batch": Study(
        train,
        [
            {
                "norm": ["none", "batch"],
                "batch_size": size,
                "lr": ([0.01, 0.03, 0.1, 0.3], 0.1),
                "seed": SEEDS,
                "steps": steps,
            }
            for size, steps in (
                (2, ([200, 1600], [100, 400])),
                (4, ([200, 800], [])),
                (8, ([200, 400], [])),
                (32, ([200, 100], [])),
                (128, ([200, 25], [])),
                (512, (200, [])),
            )
        ],
    ),
    # One size of the mini-batch, and in each of the comparisons one rate: only how many of its
    # examples share their statistics changes. The network without BatchNorm has the same search.
    "small-ghost": Study(
        train,
        [
            {
                "norm": norm,
                "part": part,
                "batch_size": 512,
                "examples": ([1000, 0], 1000),
                "lr": ([0.1, 0.5, 2.0, 8.0], 0.5),
                "seed": SEEDS,
                "steps": (150, 100),
            }
            for norm, part in (("none", (0, [])), ("batch", ([8, 16, 64, 0], [16, 0])))
        ],
    ),
    # Mini-batches that hold some of the classes, and clients of one class each.
    "small-classes": Study(
        train,
        [
            {
                "norm": (["none", "batch", "layer"], ["none", "batch"]),
                "classes": classes,
                "clients": clients,
                "batch_size": 60,
                "lr": ([0.03, 0.1, 0.3, 1.0], 0.1),
                "seed": SEEDS,
                "steps": (300, 100),
            }
            for classes, clients in ((([1, 2, 5, 10], [1, 10]), False), (1, True))
        ],
    ),
}
