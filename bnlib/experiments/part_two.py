"""The studies of part II: what one run does, and which runs there are."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from bnlib import optim, training
from bnlib._messages import short
from bnlib.experiments.networks import cnn, device, digits, mlp, one_thread
from bnlib.experiments.tables import SEEDS, Study, curve

if TYPE_CHECKING:
    import torch

Net = Literal["sigmoid MLP", "ReLU MLP", "CNN", "sigmoid CNN"]


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
    data = digits(examples, seed if examples else 0)
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
    return curve(record)


@one_thread()
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
            torch.from_numpy(x.reshape(-1, 1, 28, 28)).to(device()),
            torch.from_numpy(labels).to(device()),
        )
        for name, (x, labels) in data.items()
    }
    return fit(
        network,
        tensors["all"],
        tensors["test"],
        sgd,
        schedule=schedule,
        others={name: tensors[name] for name in ("train", "validation")},
        **loop,
    )


BASE_RATE = 0.03  # the best rate of the plain net of "accelerated"; the chapter checks it

_SIGMOID_RATES = [0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300], [0.3, 3, 30, 300]
_RELU_RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], [0.03, 0.3, 3, 30]
_CNN_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], [0.01, 0.1, 1, 10]

# "Plain" and "BN-Baseline" have what the paper's Inception had and BN-x5 dropped: Dropout, a
# stronger penalty on the weights, a slower decay, one order of the images for all epochs.
_SLOW = {"dropout": 0.4, "weight_decay": 5e-4, "decades": 0.5, "reshuffle": False}
_FAST = {"dropout": 0.0, "weight_decay": 1e-4, "decades": 3.0, "reshuffle": True}

_GRIDS: dict[str, list[dict[str, Any]]] = {
    # At a constant rate. The sigmoid nets are there twice, with two sizes of their first weights: a
    # slope of a sigmoid is at most 1/4, which a gain of 4 makes up for.
    "learning-rate": [
        {
            "net": net,
            "gain": gain,
            "depth": (depths, 3),
            "batch_norm": [False, True],
            "lr": rates,
            "seed": SEEDS,
            "momentum": momentum,
            "steps": steps,
            "every": every,
        }
        for net, gain, depths, rates, momentum, steps, every in (
            ("sigmoid MLP", 4.0, [3, 6, 12], _SIGMOID_RATES, 0.0, (3000, 400), 100),
            ("sigmoid MLP", 1.0, [3, 6], _SIGMOID_RATES, 0.0, (3000, 400), 100),
            ("ReLU MLP", 1.0, [3, 6, 12], _RELU_RATES, 0.0, (3000, 400), 100),
            ("CNN", 1.0, [3, 6], _CNN_RATES, 0.9, (1000, 100), (100, 100)),
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
            "seed": SEEDS,
            "momentum": momentum,
            "steps": steps,
            "every": (250, 100),
        }
        for net, gain, rates, momentum, steps in (
            ("sigmoid MLP", 4.0, ([0.3, 1, 3, 10, 30], [1, 10]), 0.0, (2000, 200)),
            ("ReLU MLP", 1.0, ([0.03, 0.1, 0.3, 1, 3], [0.1, 1]), 0.0, (2000, 200)),
            ("CNN", 1.0, ([0.01, 0.03, 0.1, 0.3], [0.03, 0.3]), 0.9, (1000, 100)),
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
            "seed": SEEDS,
            "examples": examples,
            "momentum": momentum,
            "decades": 1.0,
            "steps": steps,
            "every": every,
        }
        for net, examples, rates, momentum, steps, every in (
            ("ReLU MLP", 0, ([0.1, 0.3], 0.1), 0.0, (5000, 300), (250, 300)),
            ("ReLU MLP", 1000, ([0.1, 0.3], 0.1), 0.0, (2000, 300), (100, 300)),
            ("CNN", 0, ([0.03, 0.1], 0.1), 0.9, (2000, 200), (100, 200)),
            ("CNN", 1000, ([0.03, 0.1], 0.1), 0.9, (1000, 200), (50, 200)),
        )
    ],
    "batch-size": [
        {
            "net": "ReLU MLP",
            "depth": 3,
            "batch_norm": [False, True],
            "batch_size": ([4, 8, 16, 32, 64, 128, 256, 512], [8, 256]),
            "lr": ([0.05, 0.2], 0.1),
            "seed": SEEDS,
            "examples": 1000,
            "steps": (2000, 200),
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
STUDIES = {name: Study(train, grids) for name, grids in _GRIDS.items()}
