"""Train a network and record what happens."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    """

    steps: np.ndarray
    test_accuracy: np.ndarray
    train_loss: np.ndarray
    watched: dict[str, np.ndarray]

    def steps_to(self, accuracy: float) -> int | None:
        """The first evaluation that reached an accuracy.

        Args:
            accuracy: a share of right answers.

        Returns:
            Training steps done by then, or None where it was never reached.
        """
        reached = np.flatnonzero(self.test_accuracy >= accuracy)
        return int(self.steps[reached[0]]) if reached.size else None


def fit(
    net: Sequential,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    optimizer: SGD,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    evaluate_every: int,
    watch: Mapping[str, int] | None = None,
    probe: np.ndarray | None = None,
) -> Record:
    """Train with softmax cross-entropy and evaluate now and then, in inference mode.

    A terminal shows a progress bar where tqdm is installed; notebooks and log files stay silent.
    The network is left in inference mode.

    Args:
        net: the network, its outputs the logits of the classes.
        train: examples, (N, …), and their labels, (N,).
        test: the same, for the accuracy.
        optimizer: what changes the parameters of net.
        steps: number of mini-batches to train on.
        batch_size: examples in a mini-batch; each epoch is shuffled anew, its ragged end left out.
        seed: of the shuffling.
        evaluate_every: steps between evaluations; the last one is after the last step.
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
    for name, (examples, targets) in ("train", train), ("test", test):
        if len(examples) == 0 or targets.shape != (len(examples),):
            raise ValueError(
                f"{name} has {len(examples)} examples and labels of shape {targets.shape}; "
                "expected one label for each of at least one example"
            )
    if steps < 1 or evaluate_every < 1:
        raise ValueError(
            f"steps is {steps}, evaluate_every {evaluate_every}; expected 1 or more of each"
        )
    if not 1 <= batch_size <= len(x):
        raise ValueError(f"batch_size is {batch_size}; expected 1 to {len(x)}, the training set")
    if watch and (probe is None or len(probe) == 0):
        raise ValueError("watch is given and probe is not; expected examples to feed in")
    watch = dict(watch or {})
    for name, i in watch.items():
        if not -len(net.layers) <= i < len(net.layers):
            raise ValueError(f"watch[{name!r}] is {i}; the network has {len(net.layers)} layers")
    seen: list[tuple[int, float, float]] = []
    watched: dict[str, list[np.ndarray]] = {name: [] for name in watch}

    def evaluate(step: int, losses: list[float]) -> None:
        net.eval()
        loss = float(np.mean(losses)) if losses else np.nan
        seen.append((step, accuracy(net, *test), loss))
        if probe is not None and watch:
            inputs = net.inputs(probe, list(watch.values()))
            for name, i in watch.items():
                watched[name].append(np.percentile(inputs[i], PERCENTILES, axis=0))
        net.train()

    batches = _batches(len(x), batch_size, np.random.default_rng(seed))
    losses: list[float] = []
    evaluate(0, losses)
    for step in _progress(steps):
        batch = next(batches)
        loss, dlogits = softmax_cross_entropy(net(x[batch]), labels[batch])
        optimizer.zero_grad()
        net.backward(dlogits)
        optimizer.step()
        losses.append(loss)
        if step % evaluate_every == 0 or step == steps:
            evaluate(step, losses)
            losses.clear()
    net.eval()
    at, right, mean_losses = map(np.array, zip(*seen, strict=True))
    return Record(at, right, mean_losses, {name: np.array(v) for name, v in watched.items()})


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


def _batches(examples: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of mini-batches, epoch after epoch, each in a new order."""
    while True:
        order = rng.permutation(examples)
        for i in range(0, examples - size + 1, size):
            yield order[i : i + size]


def _progress(steps: int) -> Iterator[int]:
    """1, …, steps, with a progress bar in a terminal."""
    numbers = range(1, steps + 1)
    if not sys.stderr.isatty():
        return iter(numbers)
    try:
        from tqdm import tqdm
    except ImportError:
        return iter(numbers)
    return iter(tqdm(numbers, unit="step"))
