"""Train a network and record what happens."""

import math
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from bnlib.nn import Sequential, softmax_cross_entropy
from bnlib.optim import SGD

PERCENTILES = 15, 50, 85  # of figure 1 (b, c) of the paper


@dataclass
class Record:
    """What was seen at the E evaluations of a training run, the first before any step.

    Attributes:
        steps: training steps done, (E,).
        test_accuracy: share of right answers on the test set, (E,).
        train_loss: mean loss of the mini-batches since the evaluation before, in nats, (E,); NaN
            at the first one.
        watched: for each watched layer, the 15th, 50th and 85th percentile over the probe examples
            of the input of each of its U units, (E, 3, U).
        accuracies: for each further set of examples, the share of right answers on it, (E,).
    """

    steps: np.ndarray
    test_accuracy: np.ndarray
    train_loss: np.ndarray
    watched: dict[str, np.ndarray] = field(default_factory=dict)
    accuracies: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether the run ended early, with a loss that was not finite."""
        return not math.isfinite(self.train_loss[-1]) and len(self.steps) > 1

    def steps_to(self, accuracy: float) -> int | None:
        """The first evaluation that reached an accuracy.

        Args:
            accuracy: a share of right answers.

        Returns:
            Training steps done by then, or None where it was never reached.
        """
        reached = np.flatnonzero(self.test_accuracy >= accuracy)
        return int(self.steps[reached[0]]) if reached.size else None


Examples = tuple[np.ndarray, np.ndarray]  # inputs, (N, …), and their labels, (N,)
Pair = TypeVar("Pair", bound=tuple[Any, Any])  # the same, as arrays or as tensors
Item = TypeVar("Item")


def fit(
    net: Sequential,
    train: Examples,
    test: Examples,
    optimizer: SGD,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    evaluate_every: int,
    reshuffle: bool = True,
    others: Mapping[str, Examples] | None = None,
    watch: Mapping[str, int] | None = None,
    probe: np.ndarray | None = None,
) -> Record:
    """Train with softmax cross-entropy and evaluate now and then, in inference mode.

    A loss that is not finite ends the training: no later step could mend it. A terminal shows a
    progress bar where tqdm is installed; notebooks and log files stay silent. The network is left
    in inference mode.

    Args:
        net: the network, its outputs the logits of the classes.
        train: examples, (N, …), and their labels, (N,).
        test: the same, for the accuracy.
        optimizer: what changes the parameters of net.
        steps: number of mini-batches to train on.
        batch_size: examples in a mini-batch; the ragged end of an epoch is left out.
        seed: of the shuffling.
        evaluate_every: steps between evaluations; the last one is after the last step.
        reshuffle: whether each epoch has an order of its own, or all the same.
        others: further examples to find the accuracy on, by name.
        watch: names of layers to watch, with their positions in net.
        probe: examples to feed in for the watched layers, in inference mode.

    Returns:
        The `Record`.

    Raises:
        ValueError: a count is not positive, the batch is larger than the training set, examples
            and labels differ in number, watch names a layer that is not there or comes without
            probe.
    """
    x, labels = train
    if watch and (probe is None or len(probe) == 0):
        raise ValueError("watch is given and probe is not; expected examples to feed in")
    watch = dict(watch or {})
    for name, i in watch.items():
        if not -len(net.layers) <= i < len(net.layers):
            raise ValueError(f"watch[{name!r}] is {i}; the network has {len(net.layers)} layers")
    watched: dict[str, list[np.ndarray]] = {name: [] for name in watch}

    def train_on(batch: np.ndarray) -> float:
        loss, dlogits = softmax_cross_entropy(net(x[batch]), labels[batch])
        if math.isfinite(loss):
            optimizer.zero_grad()
            net.backward(dlogits)
            optimizer.step()
        return loss

    def evaluate(sets: Mapping[str, Examples]) -> list[float]:
        net.eval()
        if probe is not None and watch:
            inputs = net.inputs(probe, list(watch.values()))
            for name, i in watch.items():
                watched[name].append(np.percentile(inputs[i], PERCENTILES, axis=0))
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
    record.watched = {name: np.array(seen) for name, seen in watched.items()}
    return record


def training_loop(
    train_on: Callable[[np.ndarray], float],
    evaluate: Callable[[Mapping[str, Pair]], list[float]],
    train: Pair,
    test: Pair,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    evaluate_every: int,
    reshuffle: bool = True,
    others: Mapping[str, Pair] | None = None,
) -> Record:
    """The loop of `fit` without a network: it draws mini-batches and keeps the record.

    Args:
        train_on: takes the indices of a mini-batch, (batch_size,), makes one training step with it
            unless its loss is not finite, and returns the loss.
        evaluate: takes sets of examples by name and returns the accuracy on each.
        train: as in `fit`, like all that follows.
        test: examples for the accuracy.
        steps: number of mini-batches.
        batch_size: examples in a mini-batch.
        seed: of the shuffling.
        evaluate_every: steps between evaluations.
        reshuffle: whether each epoch has an order of its own.
        others: further examples to find the accuracy on, by name.

    Returns:
        The `Record`, with nothing watched.

    Raises:
        ValueError: a count is not positive, the batch is larger than the training set, examples and
            labels differ in number, or others has the name "test".
    """
    if others and "test" in others:
        raise ValueError('others has "test"; expected other names')
    sets = {"test": test, **(others or {})}
    for name, (examples, targets) in {"train": train, **sets}.items():
        if len(examples) == 0 or targets.shape != (len(examples),):
            raise ValueError(
                f"{name} has {len(examples)} examples and labels of shape {targets.shape}; "
                "expected one label for each of at least one example"
            )
    if steps < 1 or evaluate_every < 1:
        raise ValueError(
            f"steps is {steps}, evaluate_every {evaluate_every}; expected 1 or more of each"
        )
    if not 1 <= batch_size <= len(train[0]):
        raise ValueError(
            f"batch_size is {batch_size}; expected 1 to {len(train[0])}, the training set"
        )
    at, mean_losses, right = [0], [np.nan], [evaluate(sets)]
    losses: list[float] = []
    batches = _batches(len(train[0]), batch_size, np.random.default_rng(seed), reshuffle)
    for step in progress(range(1, steps + 1), steps, "step"):
        losses.append(train_on(next(batches)))
        lost = not math.isfinite(losses[-1])
        if step % evaluate_every == 0 or step == steps or lost:
            at.append(step)
            mean_losses.append(float(np.mean(losses)))
            right.append(evaluate(sets))
            losses.clear()
        if lost:
            break
    accuracies = dict(zip(sets, np.array(right).T, strict=True))
    return Record(
        np.array(at), accuracies.pop("test"), np.array(mean_losses), accuracies=accuracies
    )


def accuracy(net: Sequential, x: np.ndarray, labels: np.ndarray) -> float:
    """The share of examples whose largest logit is that of their label.

    Args:
        net: the network, as it stands: call `net.eval()` first for inference.
        x: examples, (N, …).
        labels: (N,).

    Returns:
        A number in [0, 1].
    """
    right = sum(
        int((net(x[i : i + 1000]).argmax(axis=1) == labels[i : i + 1000]).sum())
        for i in range(0, len(x), 1000)
    )
    return right / len(x)


def _batches(
    examples: int, size: int, rng: np.random.Generator, reshuffle: bool = True
) -> Iterator[np.ndarray]:
    """Indices of mini-batches, epoch after epoch, each in a new order or all in the same."""
    order = rng.permutation(examples)
    while True:
        for i in range(0, examples - size + 1, size):
            yield order[i : i + size]
        if reshuffle:
            order = rng.permutation(examples)


def progress(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """The same items, with a progress bar in a terminal where tqdm is installed.

    A worker process shows none: its runs are items of a bar already.
    """
    if not sys.stderr.isatty() or multiprocessing.current_process().name != "MainProcess":
        return iter(items)
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(items)
    return iter(tqdm(items, total=total, unit=unit))
