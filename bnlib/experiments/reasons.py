"""The studies of the chapter that asks why BatchNorm works: rival remedies, and the landscape."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bnlib import training
from bnlib._messages import short
from bnlib.experiments.networks import digits, one_thread
from bnlib.experiments.tables import SEEDS, Study, curve

if TYPE_CHECKING:
    import torch

LARGEST_GRADIENT = 1.0  # the length to which a longer one is cut
WARM_UP = 100  # steps in which the rate rises from 0
ADAM = 0.01  # its rate, as a multiple of that of SGD

#: What an arm is made of: the network, and how it is trained.
#:
#: :meta hide-value:
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "BatchNorm": {"batch_norm": True},
    "BatchNorm, noise 0.2": {"batch_norm": True, "shake": 0.2},
    "BatchNorm, noise 0.5": {"batch_norm": True, "shake": 0.5},
    "plain, noise 0.2": {"shake": 0.2},
    "plain, noise 0.5": {"shake": 0.5},
    "first weights": {"first_weights": True},
    "clipping": {"clip": True},
    "warm-up": {"warm_up": True},
    "Adam": {"adam": True},
    "BatchNorm, Adam": {"batch_norm": True, "adam": True},
    "skip from 0": {"skip": True, "scale": 0.0},
    "γ and β": {"batch_norm": True, "trained": "γ and β"},
    "last layer": {"batch_norm": True, "trained": "last layer"},
    "any weights": {"batch_norm": True, "trained": "any weights"},
}
_NETWORK = "batch_norm", "shake", "skip", "scale"


def train_arm(
    *, arm: str, depth: int, lr: float, seed: int, steps: int, every: int
) -> dict[str, np.ndarray]:
    """One run of the ReLU MLP on MNIST, mini-batches of 60, at a constant rate.

    Args:
        arm: one of `ARMS`.
        depth: number of hidden layers.
        lr: learning rate; Adam takes a hundredth of it.
        seed: of the weights, the order of the images and the noise.
        steps: number of mini-batches.
        every: steps between evaluations.

    Returns:
        The curve, as that of `bnlib.experiments.train`.

    Raises:
        ValueError: arm is not known.
    """
    how = _arm(arm)
    return _train(how, depth, lr, seed, steps, every, measure=None)


def survey(
    *, arm: str, depth: int, lr: float, seed: int, steps: int, every: int
) -> dict[str, np.ndarray]:
    """A run of `train_arm`, with a look at the loss around the network at each evaluation.

    Args:
        arm: one of `ARMS`; with noise, only the shifts are measured, since a loss that is drawn
            anew has no landscape.
        depth: as in `train_arm`, 2 or more.
        lr: as in `train_arm`.
        seed: as in `train_arm`.
        steps: as in `train_arm`.
        every: as in `train_arm`.

    Returns:
        The curve, and at each evaluation: `mean_shift`, `gradient_cosine` and `gradient_change`, as
        `bnlib.torch.landscape.shift` has them; for steps along the gradient of the lengths
        `RELATIVE` · ‖w‖ (`relative_…`) and `MULTIPLES` · lr · ‖g‖ (`own_…`) the range of the loss,
        the largest ‖Δg‖/‖g‖ (`change`) and the largest ‖Δg‖/‖Δw‖ (`smoothness`);
        `eigenvalue`, the largest of the Hessian over 500 images; `sharpness`, the mean over
        mini-batches of their curvature along their own gradient; and `length`, ‖w‖. All but the
        eigenvalue are means over four mini-batches of 60 training images.
    """
    how = _arm(arm)
    return _train(how, depth, lr, seed, steps, every, measure=_Survey(lr, "shake" not in how))


RELATIVE = 0.001, 0.003, 0.01, 0.03  # steps along the gradient, as shares of ‖w‖
MULTIPLES = 0.5, 1.0, 2.0, 4.0  # the same, as multiples of the step that training takes
PROBES = 4  # mini-batches on which is measured


def _arm(name: str) -> dict[str, Any]:
    if name not in ARMS:
        raise ValueError(f"arm is {short(repr(name))}; expected one of {', '.join(ARMS)}")
    return ARMS[name]


@one_thread()
def _train(
    how: Mapping[str, Any],
    depth: int,
    lr: float,
    seed: int,
    steps: int,
    every: int,
    measure: Callable[..., dict[str, float]] | None,
) -> dict[str, np.ndarray]:
    import torch

    from bnlib.torch.networks import relu_mlp, set_first_weights
    from bnlib.torch.training import accuracy

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nobody writes into these arrays
        data = {
            name: (torch.from_numpy(x), torch.from_numpy(labels))
            for name, (x, labels) in digits(0, 0).items()
        }
    x, labels = data["all"]
    network = {name: how[name] for name in _NETWORK if name in how}
    net = relu_mlp(depth, **{"batch_norm": False, **network}, seed=seed)
    if how.get("first_weights"):
        drawn = np.random.default_rng([seed, 4]).permutation(len(x))[:500]
        set_first_weights(net, x[torch.from_numpy(drawn)])
    masks = _masks(net, how.get("trained", "all"), seed)
    kind = torch.optim.Adam if how.get("adam") else torch.optim.SGD
    rate = lr * (ADAM if how.get("adam") else 1.0)
    optimizer = kind(net.parameters(), lr=rate)
    measured: list[dict[str, float]] = []
    done = 0

    def train_on(batch: np.ndarray) -> float:
        nonlocal done
        chosen = torch.from_numpy(batch)
        loss = torch.nn.functional.cross_entropy(net(x[chosen]), labels[chosen])
        value = loss.item()
        if math.isfinite(value):
            if how.get("warm_up"):
                optimizer.param_groups[0]["lr"] = rate * min(1.0, (done + 1) / WARM_UP)
            optimizer.zero_grad()
            loss.backward()
            if how.get("clip"):
                torch.nn.utils.clip_grad_norm_(net.parameters(), LARGEST_GRADIENT)
            for p, mask in masks.items():
                p.grad = p.grad * mask if p.grad is not None else None
            optimizer.step()
            done += 1
        return value

    def evaluate(sets: Mapping[str, Any]) -> list[float]:
        if measure is not None:
            measured.append(measure(net, *data["train"]))
        net.eval()
        right = [accuracy(net, *examples) for examples in sets.values()]
        net.train()
        return right

    record = training.training_loop(
        train_on,
        evaluate,
        data["all"],
        data["test"],
        steps=steps,
        batch_size=60,
        seed=seed,
        evaluate_every=every,
        others={name: data[name] for name in ("train", "validation")},
    )
    names = measured[0] if measured else ()
    return curve(record) | {name: np.array([row[name] for row in measured]) for name in names}


def _masks(
    net: torch.nn.Sequential, trained: str, seed: int
) -> dict[torch.nn.Parameter, torch.Tensor]:
    """What each gradient is multiplied by, where not all of the network is trained.

    As many weights of the last layer, or of any layer, are drawn as there are γ and β.
    """
    import torch

    if trained == "all":
        return {}
    affine = {p for name, p in net.named_parameters() if ".norm." in name}
    weights = [p for p in net.parameters() if p.ndim == 2]
    count = sum(p.numel() for p in affine)
    chosen = {"γ and β": [], "last layer": weights[-1:], "any weights": weights}[trained]
    total = sum(p.numel() for p in chosen)
    drawn = np.zeros(total, np.float32)
    drawn[np.random.default_rng([seed, 5]).permutation(total)[:count]] = 1
    masks = {p: torch.zeros_like(p) for p in net.parameters()}
    for p in affine if trained == "γ and β" else ():
        masks[p] = torch.ones_like(p)
    for p in chosen:
        masks[p] = torch.from_numpy(drawn[: p.numel()]).reshape(p.shape)
        drawn = drawn[p.numel() :]
    return masks


class _Survey:
    """What `survey` measures, and the direction in which its power iteration goes on."""

    def __init__(self, lr: float, landscape: bool) -> None:
        self.lr, self.landscape = lr, landscape
        self.direction: Any = None

    def __call__(
        self, net: torch.nn.Sequential, x: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, float]:
        import copy

        from bnlib.torch import landscape

        net = copy.deepcopy(net).train()  # what is measured leaves no trace in running statistics
        parameters = tuple(p.detach() for p in net.parameters())
        size = landscape.length(parameters)
        rows = []
        for i in range(PROBES):
            batch = x[60 * i : 60 * (i + 1)], labels[60 * i : 60 * (i + 1)]
            row = dict(
                zip(
                    ("mean_shift", "gradient_cosine", "gradient_change"),
                    landscape.shift(net, *batch, self.lr),
                    strict=True,
                )
            )
            names = "range", "change", "smoothness"
            keys = [f"{kind}_{name}" for kind in ("relative", "own") for name in names]
            row |= dict.fromkeys([*keys, "sharpness"], math.nan)
            if self.landscape:
                _, g = landscape.gradient(net, *batch)
                taken = self.lr * landscape.length(g)
                for kind, lengths in (
                    ("relative", [share * size for share in RELATIVE]),
                    ("own", [multiple * taken for multiple in MULTIPLES]),
                ):
                    loss, path = landscape.along_gradient(net, *batch, lengths)
                    row[f"{kind}_range"] = max(loss, *path.losses) - min(loss, *path.losses)
                    row[f"{kind}_change"] = max(path.changes)
                    row[f"{kind}_smoothness"] = max(path.smoothness)
                row["sharpness"] = landscape.batch_sharpness(net, *batch)
            rows.append(row)
        found = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        found |= {"eigenvalue": math.nan, "length": size}
        if self.landscape:
            many = x[:500], labels[:500]
            iterations = 10
            if self.direction is None:
                self.direction, iterations = landscape.gradient(net, *many)[1], 30
            value, self.direction = landscape.largest_eigenvalue(
                net, *many, self.direction, iterations=iterations
            )
            found["eigenvalue"] = value
        return found


_REMEDIES = ["first weights", "clipping", "warm-up", "Adam"]
_NOISE = [f"{net}, noise {size}" for size in (0.2, 0.5) for net in ("BatchNorm", "plain")]
_ALL = {"seed": SEEDS, "steps": (500, 200), "every": (500, 200)}

STUDIES = {
    # The noise behind BatchNorm, each remedy without it, and a part of the network trained alone.
    "reasons": Study(
        train_arm,
        [
            {
                "arm": (
                    ["plain", "BatchNorm", *_REMEDIES, "BatchNorm, Adam", *_NOISE],
                    ["plain", "BatchNorm", "first weights", "Adam", *_NOISE[:2]],
                ),
                "depth": 3,
                "lr": ([0.03, 0.1, 0.3, 1.0], [0.1, 0.3]),
                **_ALL,
            },
            {
                "arm": ["γ and β", "last layer", "any weights"],
                "depth": 3,
                "lr": ([0.1, 0.3, 1.0, 3.0, 10.0, 30.0], [1.0, 3.0]),
                **_ALL,
            },
            {
                "arm": (
                    ["plain", "BatchNorm", *_REMEDIES, "skip from 0"],
                    ["plain", "BatchNorm", "first weights", "skip from 0"],
                ),
                "depth": (20, 10),
                "lr": ([0.003, 0.01, 0.03, 0.1, 0.3, 1.0], [0.01, 0.1]),
                "seed": SEEDS,
                "steps": (250, 150),
                "every": (250, 150),
            },
        ],
    ),
    # The loss around networks that train, at the same rates.
    "reasons-landscape": Study(
        survey,
        [
            {
                "arm": ["plain", "BatchNorm", "BatchNorm, noise 0.2"],
                "depth": 3,
                "lr": ([0.1, 0.3, 1.0], [0.1, 0.3]),
                "seed": SEEDS,
                "steps": (400, 200),
                "every": 100,
            }
        ],
    ),
}
