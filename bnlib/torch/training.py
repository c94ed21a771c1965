"""Train a torch network and record what happens, as `bnlib.training` does for NumPy."""

import math
from collections.abc import Mapping

import numpy as np
import torch

from bnlib.optim import Schedule
from bnlib.training import Record, training_loop

Examples = tuple[torch.Tensor, torch.Tensor]  # inputs, (N, …), and their labels, (N,)


def fit(
    net: torch.nn.Module,
    train: Examples,
    test: Examples,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    evaluate_every: int,
    schedule: Schedule | None = None,
    reshuffle: bool = True,
    others: Mapping[str, Examples] | None = None,
) -> Record:
    """Train with softmax cross-entropy and evaluate now and then, in inference mode.

    The mini-batches of a seed are those of `bnlib.training.fit`. The network is left in inference
    mode.

    Args:
        net: the network, its outputs the logits of the classes.
        train: examples, (N, …), and their labels, (N,), on the device of net.
        test: the same, for the accuracy.
        optimizer: what changes the parameters of net.
        steps: number of mini-batches to train on.
        batch_size: examples in a mini-batch; the ragged end of an epoch is left out.
        seed: of the shuffling.
        evaluate_every: steps between evaluations; the last one is after the last step.
        schedule: the learning rate of each step; None leaves the optimizer's as it is.
        reshuffle: whether each epoch has an order of its own, or all the same.
        others: further examples to find the accuracy on, by name.

    Returns:
        The `Record`, with nothing watched.

    Raises:
        ValueError: a count is not positive, the batch is larger than the training set, or examples
            and labels differ in number.
    """
    x, labels = train
    done = 0

    def train_on(batch: np.ndarray) -> float:
        nonlocal done
        chosen = torch.from_numpy(batch).to(x.device)
        loss = torch.nn.functional.cross_entropy(net(x[chosen]), labels[chosen])
        value = loss.item()
        if math.isfinite(value):
            if schedule is not None:
                for group in optimizer.param_groups:
                    group["lr"] = schedule(done)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
        return value

    def evaluate(sets: Mapping[str, Examples]) -> list[float]:
        net.eval()
        right = [accuracy(net, *examples) for examples in sets.values()]
        net.train()
        return right

    record = training_loop(
        train_on,
        evaluate,
        train,
        test,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        evaluate_every=evaluate_every,
        reshuffle=reshuffle,
        others=others,
    )
    net.eval()
    return record


@torch.no_grad()
def accuracy(net: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of examples whose largest logit is that of their label.

    Args:
        net: the network, as it stands: call `net.eval()` first for inference.
        x: examples, (N, …).
        labels: (N,).

    Returns:
        A number in [0, 1].
    """
    right = sum(
        int((net(x[i : i + 1000]).argmax(1) == labels[i : i + 1000]).sum())
        for i in range(0, len(x), 1000)
    )
    return right / len(x)
