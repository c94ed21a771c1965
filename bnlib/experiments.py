"""The experiments of part II: which runs each study is made of, and what one run does.

`train` is one run, from a configuration to a curve. `points` lists the runs of a study, in the full
or the quick profile, and `study` returns what they measured: the full profile from the record that
comes with the package, the quick one run at once. `runs`, `best_of`, `steps_to` and `interval` read
such tables.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bnlib import mnist, nn, optim, sweep, training
from bnlib._messages import short

if TYPE_CHECKING:
    import torch
    from numpy.typing import ArrayLike
    from pandas import DataFrame, Series

Net = Literal["sigmoid MLP", "ReLU MLP", "CNN", "sigmoid CNN"]
EXAMPLES_SEEN = 2000  # of the training set, for its accuracy


def mlp(
    activation: Literal["sigmoid", "ReLU"],
    depth: int,
    *,
    batch_norm: bool,
    seed: int,
    gain: float = 1.0,
    dropout: float = 0.0,
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
            layers.append(nn.BatchNorm(100))
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
            layers.append(BatchNorm2d(wide))
        layers.append(torch.nn.ReLU() if activation == "ReLU" else torch.nn.Sigmoid())
        channels = wide
    last = torch.nn.Linear(channels * 7 * 7, 10)
    torch.nn.init.normal_(last.weight, std=(2 / (last.in_features + 10)) ** 0.5, generator=drawn)
    torch.nn.init.zeros_(last.bias)
    layers += [torch.nn.Flatten(), *([torch.nn.Dropout(dropout)] if dropout else []), last]
    return torch.nn.Sequential(*layers).to(_device())


def train(
    *,
    net: Net,
    depth: int,
    batch_norm: bool,
    lr: float,
    seed: int,
    steps: int,
    every: int,
    batch_size: int = 60,
    gain: float = 1.0,
    momentum: float = 0.0,
    decades: float = 0.0,
    dropout: float = 0.0,
    weight_decay: float = 0.0,
    examples: int = 0,
    reshuffle: bool = True,
) -> dict[str, np.ndarray]:
    r"""One run on MNIST, standardized grayscale images, with SGD and cross-entropy.

    Args:
        net: which network; "MLP" runs in NumPy, "CNN" in torch.
        depth: number of hidden layers.
        batch_norm: whether they have BatchNorm.
        lr: learning rate at the start.
        seed: of the weights, the order of images and the choice of a part of them.
        steps: number of mini-batches.
        every: steps between evaluations.
        batch_size: examples in a mini-batch.
        gain: factor on the first weights.
        momentum: of SGD.
        decades: powers of ten by which the learning rate falls over the run, steadily:
            lr · 10^(−decades · t / steps).
        dropout: share of units that is dropped.
        weight_decay: λ of the penalty λ/2 · ‖W‖², on the weights of a CNN.
        examples: number of training images, drawn by the seed; 0 for all.
        reshuffle: whether each epoch has an order of its own.

    Returns:
        The curve: `step`; `loss`, the mean of the mini-batches since the evaluation before; and the
        accuracy in inference mode on `train`, at most 2,000 of the training images, on
        `validation`, every other test image, to choose by, and on `test`, the rest, to report. A
        run whose loss is not finite ends there.

    Raises:
        ValueError: net is not known, or weight_decay is given for an MLP.
    """
    activation: Literal["sigmoid", "ReLU"] = "sigmoid" if "sigmoid" in net else "ReLU"
    how: dict[str, Any] = {
        "batch_norm": batch_norm,
        "seed": seed,
        "gain": gain,
        "dropout": dropout,
    }
    data = _data(examples, seed if examples else 0)
    schedule = optim.exponential_decay(lr, every=steps, factor=10**-decades)
    loop: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "evaluate_every": every,
        "reshuffle": reshuffle,
    }
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # a run that diverges overflows
        warnings.simplefilter("ignore")
        if net in ("sigmoid MLP", "ReLU MLP"):
            if weight_decay:
                raise ValueError(f"weight_decay is {weight_decay}; expected 0 for an MLP")
            network = mlp(activation, depth, **how)
            sgd = optim.SGD(network.parameters(), schedule, momentum=momentum)
            others = {name: data[name] for name in ("train", "validation")}
            record = training.fit(network, data["all"], data["test"], sgd, others=others, **loop)
        elif net in ("CNN", "sigmoid CNN"):
            record = _train_cnn(
                cnn(activation, depth, **how), data, schedule, momentum, weight_decay, loop
            )
        else:
            raise ValueError(
                f"net is {short(repr(net))}; expected one of {', '.join(get_args(Net))}"
            )
    return {
        "step": record.steps,
        "loss": record.train_loss,
        "train": record.accuracies["train"],
        "validation": record.accuracies["validation"],
        "test": record.test_accuracy,
    }


def _train_cnn(
    network: torch.nn.Sequential,
    data: dict[str, training.Examples],
    schedule: optim.Schedule,
    momentum: float,
    weight_decay: float,
    loop: dict[str, Any],
) -> training.Record:
    import torch

    from bnlib.torch.training import fit

    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]  # biases, γ, β
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": others},
    ]
    sgd = torch.optim.SGD(groups, lr=schedule(0), momentum=momentum)
    tensors = {
        name: (
            torch.from_numpy(x.reshape(-1, 1, 28, 28)).to(_device()),
            torch.from_numpy(labels).to(_device()),
        )
        for name, (x, labels) in data.items()
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # each core has a run of its own; and sums in one order
    try:
        return fit(
            network,
            tensors["all"],
            tensors["test"],
            sgd,
            schedule=schedule,
            others={name: tensors[name] for name in ("train", "validation")},
            **loop,
        )
    finally:
        torch.set_num_threads(threads)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@functools.lru_cache(maxsize=4)
def _data(examples: int, seed: int) -> dict[str, training.Examples]:
    """All training examples and a few of them, and both halves of the test set."""
    digits = mnist.load()
    images, labels = digits.train_images, digits.train_labels
    if examples:
        drawn = np.random.default_rng([seed, 2]).permutation(len(images))[:examples]
        images, labels = images[drawn], labels[drawn]
    x = mnist.standardize(images)
    test, answers = mnist.standardize(digits.test_images), digits.test_labels
    return {
        "all": (x, labels),
        "train": (x[:EXAMPLES_SEEN], labels[:EXAMPLES_SEEN]),
        "validation": (test[::2], answers[::2]),
        "test": (test[1::2], answers[1::2]),
    }


def context() -> dict[str, str]:
    """What the results of a run depend on beside its configuration."""
    names = {name: version(name).split("+")[0] for name in ("numpy", "torch")}
    return {**names, "device": _device(), "data": mnist.load().checksum}


def study(name: str, *, full: bool) -> DataFrame:
    """What the runs of a study measured.

    Args:
        name: one of `STUDIES`.
        full: whether to load the record of the full profile, or to make the runs of the quick one.

    Returns:
        A table with a row for each evaluation of each run: the arguments of `train`, then its
        curve, then the `context`.
    """
    if full:
        return sweep.load(name)
    return sweep.run(train, points(name, full=False), context=context)


def points(name: str, *, full: bool) -> list[dict[str, Any]]:
    """The runs of a study, each as the arguments of `train`.

    Args:
        name: one of `STUDIES`.
        full: whether of the full or of the quick profile.

    Raises:
        ValueError: there is no such study.
    """
    if name not in STUDIES:
        raise ValueError(f"name is {short(repr(name))}; expected one of {', '.join(STUDIES)}")
    found = []
    for arguments in STUDIES[name]:
        taken = {k: v[not full] if isinstance(v, tuple) else v for k, v in arguments.items()}
        axes = {k: v if isinstance(v, list | range) else [v] for k, v in taken.items()}
        found += sweep.grid(**axes)
    return found


def describe(table: DataFrame) -> str:
    """One line on where the numbers of a study come from: runs, steps, data, versions."""
    each = runs(table)
    first = table.iloc[0]
    seeds = each["seed"].nunique()
    return (
        f"{len(each):,} runs with {seeds} seeds, {each['last_step'].sum():,} steps; "
        f"data {first['data']}, NumPy {first['numpy']}, torch {first['torch']} on {first['device']}"
    )


def runs(table: DataFrame) -> DataFrame:
    """One row for each run: its configuration and how it ended.

    Args:
        table: as `study` returns it.

    Returns:
        The arguments of `train`; `last_step`; `loss`, `train`, `validation` and `test` at the last
        evaluation; and `outcome`, by the training loss alone: "diverged", not finite; "stuck", 2.3
        or more, where ln 10 = 2.303 is that of knowing nothing; else "learned".
    """
    last = table[_ends(table)].rename(columns={"step": "last_step"}).reset_index(drop=True)
    last["outcome"] = np.select(
        [~np.isfinite(last["loss"]), last["loss"] >= 2.3], ["diverged", "stuck"], "learned"
    )
    return last.drop(columns=["numpy", "torch", "device", "data"], errors="ignore")


def best_of(each: DataFrame, arms: Sequence[str], search: Sequence[str]) -> DataFrame:
    """The runs of each arm at its own best setting: that with the highest median on `validation`.

    Args:
        each: runs, as `runs` returns them.
        arms: columns that tell the arms of the comparison apart, such as "net", "batch_norm".
        search: columns that were searched, such as "lr".

    Returns:
        The rows of those runs, one for each arm and seed. Of equal settings the first is taken.
    """
    medians = each.groupby([*arms, *search], sort=False)["validation"].median().reset_index()
    chosen = medians.loc[medians.groupby(list(arms), sort=False)["validation"].idxmax()]
    return each.merge(chosen[[*arms, *search]], on=[*arms, *search])


def steps_to(table: DataFrame, accuracy: float, on: str = "test") -> DataFrame:
    """The first evaluated step of each run at which an accuracy was reached.

    Args:
        table: as `study` returns it.
        accuracy: a share of right answers.
        on: of which images, "train", "validation" or "test".

    Returns:
        The rows of `runs`, with a column `steps_to`; NaN where it was never reached.
    """
    number = _ends(table).shift(fill_value=False).cumsum()
    reached = table["step"].where(table[on] >= accuracy)
    return runs(table).assign(steps_to=reached.groupby(number).min())


def interval(values: ArrayLike) -> tuple[float, float, float]:
    """The median of one value for each seed, and an interval around it without assumptions.

    The smallest and the largest of n values have the true median between them, unless all lie on
    one side of it: with a confidence of 1 − 2 · 2⁻ⁿ, which is 93.75 % for five.

    Args:
        values: (n,), such as the differences of two arms, seed by seed.

    Returns:
        The median, the smallest and the largest value.
    """
    values = np.asarray(values, float)
    return float(np.median(values)), float(values.min()), float(values.max())


def _ends(table: DataFrame) -> Series:
    """Which rows are the last of their run: the next one starts at step 0."""
    step = table["step"]
    starts = step == 0
    whole = starts | (step.diff() > 0)
    if table.empty or not starts.iloc[0] or not whole.all() or (starts & starts.shift()).any():
        raise ValueError("table: its rows are not whole runs, one after the other, from step 0")
    following: Series = step.shift(-1, fill_value=0)
    return following == 0


BASE_RATE = 0.03  # the best rate of the plain net of "accelerated"; the chapter checks it

_SIGMOID_RATES = [0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300], [0.3, 3, 30, 300]
_RELU_RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], [0.03, 0.3, 3, 30]
_CNN_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], [0.01, 0.1, 1, 10]
_SEEDS = range(5), range(2)

# "Plain" and "BN-Baseline" have what the paper's Inception had and BN-x5 dropped: Dropout, a
# stronger penalty on the weights, a slower decay, one order of the images for all epochs.
_SLOW = {"dropout": 0.4, "weight_decay": 5e-4, "decades": 0.5, "reshuffle": False}
_FAST = {"dropout": 0.0, "weight_decay": 1e-4, "decades": 3.0, "reshuffle": True}

#: The runs of each study: grids of the arguments of `train`, of which the last changes fastest. A
#: list or a range is what an argument takes in turn, a pair what it is in the full and in the quick
#: profile.
#:
#: :meta hide-value:
STUDIES: dict[str, list[dict[str, Any]]] = {
    # At a constant rate. The sigmoid nets are there twice, with two sizes of their first weights: a
    # slope of a sigmoid is at most 1/4, which a gain of 4 makes up for.
    "learning-rate": [
        {
            "net": net,
            "gain": gain,
            "depth": (depths, 3),
            "batch_norm": [False, True],
            "lr": rates,
            "seed": _SEEDS,
            "momentum": momentum,
            "steps": steps,
            "every": every,
        }
        for net, gain, depths, rates, momentum, steps, every in (
            ("sigmoid MLP", 4.0, [3, 6, 12], _SIGMOID_RATES, 0.0, (3000, 400), 100),
            ("sigmoid MLP", 1.0, [3, 6], _SIGMOID_RATES, 0.0, (3000, 400), 100),
            ("ReLU MLP", 1.0, [3, 6, 12], _RELU_RATES, 0.0, (3000, 400), 100),
            ("CNN", 1.0, [3, 6], _CNN_RATES, 0.9, (1000, 200), (100, 200)),
        )
    ],
    # How fast the rate falls.
    "decay": [
        {
            "net": net,
            "gain": gain,
            "depth": 3,
            "batch_norm": [False, True],
            "lr": rates,
            "decades": ([0.0, 4.0, 8.0, 16.0, 32.0], [0.0, 4.0, 32.0]),
            "seed": _SEEDS,
            "momentum": momentum,
            "steps": steps,
            "every": (250, 200),
        }
        for net, gain, rates, momentum, steps in (
            ("sigmoid MLP", 4.0, ([0.3, 1, 3, 10, 30], [1, 10]), 0.0, (2000, 400)),
            ("ReLU MLP", 1.0, ([0.03, 0.1, 0.3, 1, 3], [0.1, 1]), 0.0, (2000, 400)),
            ("CNN", 1.0, ([0.01, 0.03, 0.1, 0.3], [0.03, 0.3]), 0.9, (1000, 200)),
        )
    ],
    # On all training images (0) and on 1,000 of them.
    "dropout": [
        {
            "net": net,
            "depth": 3,
            "batch_norm": [False, True],
            "dropout": ([0.0, 0.1, 0.25, 0.5], [0.0, 0.25]),
            "lr": rates,
            "seed": _SEEDS,
            "examples": examples,
            "momentum": momentum,
            "decades": 1.0,
            "steps": steps,
            "every": every,
        }
        for net, examples, rates, momentum, steps, every in (
            ("ReLU MLP", 0, ([0.1, 0.3], 0.1), 0.0, (5000, 500), (250, 500)),
            ("ReLU MLP", 1000, ([0.1, 0.3], 0.1), 0.0, (2000, 500), (100, 500)),
            ("CNN", 0, ([0.03, 0.1], 0.1), 0.9, (2000, 200), (100, 200)),
            ("CNN", 1000, ([0.03, 0.1], 0.1), 0.9, (1000, 250), (50, 250)),
        )
    ],
    "batch-size": [
        {
            "net": "ReLU MLP",
            "depth": 3,
            "batch_norm": [False, True],
            "batch_size": ([4, 8, 16, 32, 64, 128, 256, 512], [8, 256]),
            "lr": ([0.05, 0.2], 0.1),
            "seed": _SEEDS,
            "examples": 1000,
            "steps": (2000, 400),
            "every": 200,
        }
    ],
    "accelerated": [
        {
            "net": net,
            "gain": gain,
            "depth": 3,
            "batch_norm": batch_norm,
            "lr": rates,
            **how,
            "seed": (range(5), range(quick_seeds)),
            "momentum": 0.9,
            "steps": (4000, 200),
            "every": 100,
        }
        for net, gain, batch_norm, rates, how, quick_seeds in (
            # The search for the plain net's rate, and the other rows of the paper's table.
            ("CNN", 1.0, False, ([0.003, 0.01, 0.03, 0.1], [0.01, 0.03, 0.1]), _SLOW, 3),
            ("CNN", 1.0, True, [BASE_RATE, 5 * BASE_RATE], _SLOW, 3),
            ("CNN", 1.0, [False, True], 5 * BASE_RATE, _FAST, 3),
            ("CNN", 1.0, True, [30 * BASE_RATE, BASE_RATE], _FAST, 3),
            ("sigmoid CNN", 4.0, [False, True], 5 * BASE_RATE, _FAST, 3),
            # The bundle with one part missing, and with one part alone.
            *(
                ("CNN", 1.0, True, rate, {**bundle, name: other[name]}, 0)
                for name in _SLOW
                for rate, bundle, other in (
                    (5 * BASE_RATE, _FAST, _SLOW),
                    (BASE_RATE, _SLOW, _FAST),
                )
            ),
            ("CNN", 1.0, False, BASE_RATE, _FAST, 0),
        )
    ],
}
