"""bnlib.optim: against torch's optimizers and schedules."""

import numpy as np
import pytest
import torch

from bnlib import optim
from bnlib.nn import Parameter


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", ["constant", "exponential"])
def test_agrees_with_torch(momentum, kind):
    start, target = np.arange(4.0), np.full(4, 2.5)
    ours, theirs = Parameter(start.copy()), torch.tensor(start, requires_grad=True)
    their_optimizer = torch.optim.SGD([theirs], lr=0.2, momentum=momentum)
    lr, their_schedule = {
        "constant": (0.2, None),
        "exponential": (
            optim.exponential_decay(0.2, every=4, factor=0.5),
            torch.optim.lr_scheduler.ExponentialLR(their_optimizer, 0.5**0.25),
        ),
    }[kind]
    optimizer = optim.SGD([ours], lr, momentum=momentum)
    for _ in range(10):
        optimizer.zero_grad()
        ours.grad += ours.value - target
        optimizer.step()
        their_optimizer.zero_grad()
        (0.5 * (theirs - torch.tensor(target)) ** 2).sum().backward()
        their_optimizer.step()
        if their_schedule:
            their_schedule.step()
    np.testing.assert_allclose(ours.value, theirs.detach(), rtol=1e-12)
    assert optimizer.steps == 10


def test_float32_stays_float32():
    p = Parameter(np.ones(3, np.float32))
    p.grad += 1
    optim.SGD([p], 0.1, momentum=0.5).step()
    assert p.value.dtype == np.float32


@pytest.mark.parametrize(
    "message, make",
    [
        ("lr is -1; expected 0 or more", lambda: optim.constant(-1)),
        ("lr is nan; expected 0 or more", lambda: optim.SGD([], float("nan"))),
        ("momentum is 1; expected a number in", lambda: optim.SGD([], 0.1, momentum=1)),
        ("momentum is -0.1; expected", lambda: optim.SGD([], 0.1, momentum=-0.1)),
        ("lr is -1; expected", lambda: optim.exponential_decay(-1, every=1, factor=0.5)),
        ("factor is 0; expected", lambda: optim.exponential_decay(1, every=1, factor=0)),
        ("every is 0; expected 1", lambda: optim.exponential_decay(0.1, every=0, factor=0.5)),
        ("factor is 2; expected", lambda: optim.exponential_decay(0.1, every=1, factor=2)),
    ],
)
def test_bad_input(message, make):
    with pytest.raises(ValueError, match=message):
        make()
