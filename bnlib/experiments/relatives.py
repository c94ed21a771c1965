"""The study of chapter "What else normalizes?": each norm in each network, at four batch sizes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from bnlib.experiments.networks import device, digits, one_thread
from bnlib.experiments.tables import SEEDS, Study, curve


@one_thread()
def train(
    *, kind: Any, norm: Any, batch_size: int, lr: float, seed: int, steps: int, every: int
) -> dict[str, np.ndarray]:
    """One run on MNIST: SGD with a momentum of 0.9, or Adam for the Transformer.

    The rate falls by a factor of 10 over the run, steadily. The gradient is not clipped.

    Args:
        kind: which network, as in `bnlib.torch.relatives.network`.
        norm: how it is normalized, likewise.
        batch_size: examples in a mini-batch.
        lr: the learning rate at the start.
        seed: of the weights and of the order of images.
        steps: number of mini-batches.
        every: steps between evaluations.

    Returns:
        The curve, as of `bnlib.experiments.train`.

    Raises:
        ValueError: kind or norm is not known.
    """
    import torch

    from bnlib import optim
    from bnlib.torch.relatives import network
    from bnlib.torch.training import fit

    net = network(kind, norm, seed=seed).to(device())
    how: dict[str, Any] = {} if kind == "rows" else {"momentum": 0.9}
    optimizer = (torch.optim.Adam if kind == "rows" else torch.optim.SGD)(
        net.parameters(), lr=lr, **how
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the arrays are read-only, and a run may overflow
        data = {
            name: (torch.from_numpy(x).to(device()), torch.from_numpy(labels).to(device()))
            for name, (x, labels) in digits(0, 0).items()
        }
        record = fit(
            net,
            data["all"],
            data["test"],
            optimizer,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            evaluate_every=every,
            schedule=optim.exponential_decay(lr, every=steps, factor=0.1),
            others={name: data[name] for name in ("train", "validation")},
        )
    return curve(record)


_NORMS = ["none", "batch", "renorm", "layer", "group", "RMS", "weight norm", "standardized", "tanh"]
_STEPS = {2: 500, 8: 300, 64: 150, 512: 75}  # of training, for each batch size
_SGD = {
    2: [0.001, 0.003, 0.01, 0.03],
    8: [0.003, 0.01, 0.03, 0.1],
    64: [0.01, 0.03, 0.1, 0.3],
    512: [0.03, 0.1, 0.3, 1.0],
}
_ADAM = [0.001, 0.003, 0.01, 0.03]


def _grid(kind: str, batch_size: int) -> dict[str, Any]:
    rates = _ADAM if kind == "rows" else _SGD[batch_size]
    quick = kind == "MLP" and batch_size in (2, 64)
    return {
        "kind": kind,
        "norm": _NORMS if kind == "MLP" else [*_NORMS, "instance"],
        "batch_size": batch_size,
        "lr": (rates, rates[1:2] if quick else []),
        "seed": SEEDS,
        "steps": (_STEPS[batch_size], 40),
        "every": (_STEPS[batch_size], 40),
    }


# The two larger networks have the two sizes that tell most.
_SIZES = {"MLP": _STEPS, "CNN": _STEPS, "rows": (2, 64), "residual": (2, 64)}
STUDIES = {
    "relatives": Study(train, [_grid(kind, size) for kind in _SIZES for size in _SIZES[kind]])
}
