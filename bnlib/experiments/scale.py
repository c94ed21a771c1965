"""The studies of the chapter on scale: lengths and turns of the weights in front of BatchNorm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from bnlib import nn, training
from bnlib._messages import short
from bnlib.experiments.networks import cnn, device, digits, mlp, one_thread
from bnlib.experiments.tables import SEEDS, Study, curve

if TYPE_CHECKING:
    import torch

Net = Literal["MLP", "CNN"]
Rule = Literal["SGD", "AdamW", "Adam"]
LAYERS = 1, 2, 3  # those in front of a BatchNorm
_SEEN = "length", "gradient", "turn", "far", "cosine", "affine"


@one_thread()
def watch(
    *,
    net: Net,
    rule: Rule,
    lr: float,
    weight_decay: float,
    momentum: float,
    gain: float,
    labels: Literal["true", "drawn"],
    rest_lr: float,
    affine_decay: float,
    fall_at: int,
    seed: int,
    steps: int,
    every: int,
) -> dict[str, np.ndarray]:
    r"""One run of a network of three layers with BatchNorm that follows their weights.

    lr, weight_decay and momentum are those of the weights in front of a BatchNorm. The last layer,
    γ and β have a constant rate of their own, and no momentum in SGD; the last layer is not
    decayed. Mini-batches have 60 images.

    Args:
        net: "MLP", of `networks.mlp` in NumPy, or "CNN", of `networks.cnn` in torch, with ReLUs.
        rule: the optimizer, torch's: "AdamW" decays the weights beside the step of Adam, "Adam" in
            the gradient, as "SGD" does.
        lr: η.
        weight_decay: λ, of the penalty λ/2 · ‖w‖² or, in AdamW, of w ← (1 − ηλ) w.
        momentum: of SGD; β₁ of Adam.
        gain: factor on the first weights.
        labels: "drawn" puts labels at random in place of the true ones, others at each step.
        rest_lr: learning rate of γ, β and the last layer.
        affine_decay: λ of γ and β.
        fall_at: the step from which on lr is a tenth; 0 for never.
        seed: of the weights, the order of images and drawn labels.
        steps: number of mini-batches.
        every: steps between evaluations.

    Returns:
        The curve of `experiments.train`, and for layer l = 1, 2, 3: `length_l`, ‖w‖; since the
        evaluation before, `gradient_l`, the root mean square of ‖w‖ ‖g‖, the gradient at length 1,
        `turn_l`, that of the angle of a step, `cosine_l`, the mean cosine of the angle between one
        gradient and the next, and `far_l`, the angle between w then and now; `affine_l`, the length
        of (γ, β). Angles are in radians, and numbers have five digits. A run whose loss is not
        finite ends there.

    Raises:
        ValueError: net, rule or labels is not known.
    """
    for name, value, known in (
        ("net", net, get_args(Net)),
        ("rule", rule, get_args(Rule)),
        ("labels", labels, ("true", "drawn")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {short(repr(value))}; expected one of {', '.join(known)}")

    data = digits(0, 0)
    x, truth = data["all"]
    parts = (_mlp if net == "MLP" else _cnn)(gain, seed)
    watched = _Watched(parts)
    optimizer = _optimizer(rule, parts, lr, weight_decay, momentum, rest_lr, affine_decay)
    drawn = np.random.default_rng([seed, 3])
    done = 0

    def train_on(batch: np.ndarray) -> float:
        nonlocal done
        targets = truth[batch] if labels == "true" else drawn.integers(0, 10, len(batch))
        optimizer.zero_grad(set_to_none=False)
        loss = parts.backward(x[batch], targets)
        if math.isfinite(loss):
            if fall_at and done == fall_at:
                optimizer.param_groups[0]["lr"] *= 0.1
            watched.before()
            optimizer.step()
            watched.after()
            done += 1
        return loss

    def evaluate(sets: Mapping[str, training.Examples]) -> list[float]:
        watched.note()
        return [parts.accuracy(*examples) for examples in sets.values()]

    with np.errstate(all="ignore"):  # a run that diverges overflows
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
    return curve(record) | watched.columns()


class _Parts(NamedTuple):
    """A network as this study needs it, in NumPy or torch: tensors that share its memory.

    Attributes:
        weights: of the layers in front of a BatchNorm.
        gradients: theirs.
        affine: γ and β of each BatchNorm.
        last: weights and bias of the last layer.
        backward: from images, (N, 784), and labels to the loss; it adds to the gradients.
        accuracy: from images and labels to the share of right answers at inference.
    """

    weights: list[torch.Tensor]
    gradients: list[torch.Tensor]
    affine: list[torch.Tensor]
    last: list[torch.Tensor]
    backward: Callable[[np.ndarray, np.ndarray], float]
    accuracy: Callable[[np.ndarray, np.ndarray], float]


def _mlp(gain: float, seed: int) -> _Parts:
    import torch

    net = mlp("ReLU", len(LAYERS), batch_norm=True, seed=seed, gain=gain)

    def shared(p: nn.Parameter) -> torch.Tensor:
        tensor = torch.from_numpy(p.value)
        tensor.grad = torch.from_numpy(p.grad)
        return tensor

    def backward(x: np.ndarray, labels: np.ndarray) -> float:
        loss, dlogits = nn.softmax_cross_entropy(net(x), labels)
        net.backward(dlogits)
        return loss

    def accuracy(x: np.ndarray, labels: np.ndarray) -> float:
        net.eval()
        right = training.accuracy(net, x, labels)
        net.train()
        return right

    *hidden, last = (layer for layer in net if isinstance(layer, nn.Linear))
    return _Parts(
        [shared(layer.weight) for layer in hidden],
        [torch.from_numpy(layer.weight.grad) for layer in hidden],
        [shared(p) for layer in net if isinstance(layer, nn.BatchNorm) for p in layer.parameters()],
        [shared(p) for p in last.parameters()],
        backward,
        accuracy,
    )


def _cnn(gain: float, seed: int) -> _Parts:
    import torch

    from bnlib.torch.training import accuracy as torch_accuracy

    net = cnn("ReLU", len(LAYERS), batch_norm=True, seed=seed, gain=gain)

    def tensors(x: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(x.reshape(-1, 1, 28, 28))
        return images.to(device()), torch.from_numpy(labels.astype(np.int64)).to(device())

    def backward(x: np.ndarray, labels: np.ndarray) -> float:
        images, targets = tensors(x, labels)
        loss = torch.nn.functional.cross_entropy(net(images), targets)
        loss.backward()
        return loss.item()

    def accuracy(x: np.ndarray, labels: np.ndarray) -> float:
        net.eval()
        right = torch_accuracy(net, *tensors(x, labels))
        net.train()
        return right

    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    weights = [layer.weight for layer in net if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in net if isinstance(layer, torch.nn.BatchNorm2d)]
    return _Parts(
        weights,
        [w.grad for w in weights if w.grad is not None],
        [p for layer in norms for p in layer.parameters()],
        list(net[-1].parameters()),
        backward,
        accuracy,
    )


def _optimizer(
    rule: Rule,
    parts: _Parts,
    lr: float,
    weight_decay: float,
    momentum: float,
    rest_lr: float,
    affine_decay: float,
) -> torch.optim.Optimizer:
    """With the weights in front of a BatchNorm as its first group of parameters."""
    import torch

    rest = {"lr": rest_lr}
    groups: list[dict[str, Any]] = [
        {"params": parts.weights, "lr": lr, "weight_decay": weight_decay},
        {"params": parts.affine, "weight_decay": affine_decay, **rest},
        {"params": parts.last, "weight_decay": 0.0, **rest},
    ]
    if rule == "SGD":
        groups[0]["momentum"] = momentum
        return torch.optim.SGD(groups)
    groups[0]["betas"] = momentum, 0.999
    return (torch.optim.AdamW if rule == "AdamW" else torch.optim.Adam)(groups)


class _Watched:
    """What the weights and gradients of each layer do, step by step."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._noted: list[list[list[float]]] = []  # (evaluations, layers, quantities)
        self._there = self._directions()
        self._gradients = [np.nan * g for g in parts.gradients]
        self._steps: list[list[list[float]]] = []  # (steps, layers, [gradient², turn², cosine])

    @staticmethod
    def _unit(x: torch.Tensor) -> torch.Tensor:
        return (x / x.norm()).detach().clone()

    def _directions(self) -> list[torch.Tensor]:
        return [self._unit(w) for w in self._parts.weights]

    @staticmethod
    def _angle(a: torch.Tensor, b: torch.Tensor) -> float:
        """Between two directions, from their distance: exact for small angles."""
        return 2 * math.asin(min(1.0, (a - b).norm().item() / 2))

    def before(self) -> None:
        """Look at weights and gradients before a step."""
        self._directions_before = self._directions()
        seen = []
        for i, (w, g) in enumerate(zip(self._parts.weights, self._parts.gradients, strict=True)):
            gradient = self._unit(g)
            size = (w.norm() * g.norm()).item()
            seen.append([size**2, (gradient * self._gradients[i]).sum().item()])
            self._gradients[i] = gradient
        self._steps.append(seen)

    def after(self) -> None:
        """Look at the weights after that step."""
        for w, was, seen in zip(
            self._parts.weights, self._directions_before, self._steps[-1], strict=True
        ):
            seen.append(self._angle(self._unit(w), was) ** 2)

    def note(self) -> None:
        """Keep what has been seen since the call before."""
        here = self._directions()
        rows = []
        for i, w in enumerate(self._parts.weights):
            if self._steps:
                steps = np.array([seen[i] for seen in self._steps])
                gradient, turn = np.sqrt(steps[:, [0, 2]].mean(axis=0))
                pairs = steps[np.isfinite(steps[:, 1]), 1]  # the first gradient has none before it
                cosine = pairs.mean() if pairs.size else np.nan
            else:
                gradient = turn = cosine = np.nan
            far = self._angle(here[i], self._there[i]) if self._steps else np.nan
            gamma, beta = self._parts.affine[2 * i : 2 * i + 2]
            affine = math.hypot(gamma.norm().item(), beta.norm().item())
            rows.append([w.norm().item(), gradient, turn, far, cosine, affine])
        self._noted.append(rows)
        self._there = here
        self._steps.clear()

    def columns(self) -> dict[str, np.ndarray]:
        """What was kept, (evaluations,) for each quantity and layer."""
        noted = np.array(self._noted)
        return {
            f"{name}_{layer}": np.array([float(f"{v:.5g}") for v in noted[:, layer - 1, k]])
            for layer in LAYERS
            for k, name in enumerate(_SEEN)
        }


def _grid(**changes: Any) -> dict[str, Any]:
    """The runs of a grid: with ηλ = 0.004 the lengths relax in some 60 steps."""
    arguments: dict[str, Any] = {
        "net": "MLP",
        "rule": "SGD",
        "lr": 1.0,
        "weight_decay": 0.004,
        "momentum": 0.0,
        "gain": 0.5,
        "labels": "true",
        "rest_lr": 0.1,
        "affine_decay": 0.0,
        "fall_at": 0,
        "seed": SEEDS,
        "steps": (800, 300),
        "every": 100,
    }
    return arguments | changes


_FULL_ONLY = SEEDS[0], range(0)
_ADAM = {"lr": 0.003, "momentum": 0.9, "gain": 0.25, "rest_lr": 0.001}
_MOMENTUM = {"lr": 0.1, "momentum": 0.9}
_DRAWN = {"labels": "drawn", "rest_lr": 0.0}

STUDIES = {
    "scale": Study(
        watch,
        [
            # ηλ = 0.004 in three ways, and 0.001.
            _grid(),
            _grid(lr=0.5, weight_decay=0.008),
            _grid(lr=2.0, weight_decay=0.002, seed=_FULL_ONLY),
            _grid(weight_decay=0.001, seed=_FULL_ONLY),
            _grid(net="CNN", lr=0.2, weight_decay=0.02, gain=0.3, steps=(300, 150), every=50),
            # From lengths that are too short or too long; without decay; with a rate that falls.
            _grid(gain=[0.125, 2.0], every=(50, 100)),
            _grid(weight_decay=0.0, gain=0.1, every=50, seed=_FULL_ONLY),
            _grid(weight_decay=0.008, fall_at=(300, 150), steps=(1000, 400), every=50),
            # Momentum, and labels that make gradients independent.
            _grid(**_MOMENTUM),
            _grid(**_DRAWN),
            _grid(**_DRAWN, **_MOMENTUM, seed=_FULL_ONLY),
            _grid(**_ADAM, rule="AdamW", weight_decay=1.3),
            _grid(**_ADAM, rule="Adam", weight_decay=0.004),
            # Decay of γ and β, and none at all.
            _grid(affine_decay=0.04),
            _grid(weight_decay=0.0),
        ],
    )
}
