"""Stochastic gradient descent, and how its learning rate changes over training."""

from collections.abc import Callable, Sequence

import numpy as np

from bnlib.nn import Parameter

Schedule = Callable[[int], float]  # from the number of steps done to the learning rate


def constant(lr: float) -> Schedule:
    """lr, always.

    Args:
        lr: the learning rate; not negative.

    Raises:
        ValueError: lr is negative or NaN.
    """
    _check_lr(lr)
    return lambda step: lr


def exponential_decay(lr: float, *, every: int, factor: float) -> Schedule:
    """lr · factor^(step / every): a steady decay.

    Args:
        lr: the first learning rate; not negative.
        every: steps in which the rate falls by factor; positive.
        factor: in (0, 1].

    Raises:
        ValueError: an argument is not as said above.
    """
    _check_lr(lr)
    if not every > 0:
        raise ValueError(f"every is {every}; expected 1 or more steps")
    if not 0 < factor <= 1:
        raise ValueError(f"factor is {factor}; expected a number in (0, 1]")
    return lambda step: lr * factor ** (step / every)


class SGD:
    r"""Gradient descent with momentum.

    .. math:: v \leftarrow \mu v + g, \qquad \theta \leftarrow \theta - \eta v

    Args:
        parameters: what to change.
        lr: η, a number or a schedule.
        momentum: μ, in [0, 1); 0 for plain gradient descent.

    Attributes:
        steps: number of steps done.

    Raises:
        ValueError: lr is negative or momentum outside [0, 1).

    Source: chapter "A network from scratch".
    """

    def __init__(
        self, parameters: Sequence[Parameter], lr: float | Schedule, *, momentum: float = 0.0
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}; expected a number in [0, 1)")
        self.parameters = list(parameters)
        self.schedule = lr if callable(lr) else constant(lr)
        self.momentum = momentum
        self.steps = 0
        self._velocities = [np.zeros_like(p.value) for p in self.parameters] if momentum else []

    def step(self) -> None:
        """Change the parameters once, along their gradients."""
        lr = self.schedule(self.steps)
        if self.momentum:
            for p, v in zip(self.parameters, self._velocities, strict=True):
                v *= self.momentum
                v += p.grad
                p.value -= lr * v
        else:
            for p in self.parameters:
                p.value -= lr * p.grad
        self.steps += 1

    def zero_grad(self) -> None:
        """Set all gradients to 0, since backward passes add to them."""
        for p in self.parameters:
            p.grad.fill(0)


def _check_lr(lr: float) -> None:
    if not lr >= 0:
        raise ValueError(f"lr is {lr}; expected 0 or more")
