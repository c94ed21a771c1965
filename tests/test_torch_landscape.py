"""bnlib.torch.landscape: against a loss whose gradient and Hessian are known."""

import copy

import numpy as np
import pytest
import torch

from bnlib.torch import landscape
from bnlib.torch.networks import relu_mlp

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
X = torch.tensor(RNG.normal(size=(60, 784)), dtype=torch.float32)
LABELS = torch.tensor(RNG.integers(0, 10, 60))


@pytest.fixture(params=[False, True], ids=["plain", "BatchNorm"])
def net(request):
    """In float64, so that differences can be taken."""
    return relu_mlp(2, batch_norm=request.param, width=6, seed=0).double()


@pytest.fixture
def batch():
    return X.double(), LABELS


def flat(vector):
    return torch.cat([v.reshape(-1) for v in vector])


def hessian(net, batch):
    """All of it, by products with the rows of the identity, for the last layer's parameters."""
    last = tuple(net[-1].parameters())
    g = torch.autograd.grad(landscape.loss_of(net, *batch), last, create_graph=True)
    return torch.stack([flat(torch.autograd.grad(v, last, retain_graph=True)) for v in flat(g)])


def test_products_with_the_hessian_are_differences_of_gradients(net, batch):
    v = tuple(torch.randn_like(p) for p in net.parameters())
    product = landscape.hessian_times(net, *batch, v)
    sides = []
    for sign in 1, -1:
        moved = copy.deepcopy(net)
        landscape.move(moved, v, sign * 1e-6)
        sides.append(flat(landscape.gradient(moved, *batch)[1]))
    numeric = (sides[0] - sides[1]) / 2e-6
    assert (flat(product) - numeric).norm() < 1e-3 * numeric.norm()


def test_the_largest_eigenvalue_is_that_of_the_hessian(batch):
    """Of softmax regression, which is a network's last layer alone."""
    net = torch.nn.Sequential(torch.nn.Linear(784, 3)).double()
    x, labels = batch[0][:, :784], batch[1] % 3
    values = torch.linalg.eigvalsh(hessian(net, (x, labels)))
    v = tuple(torch.randn_like(p) for p in net.parameters())
    value, at = landscape.largest_eigenvalue(net, x, labels, v, iterations=300)
    assert value == pytest.approx(values.abs().max().item(), rel=1e-2)
    assert landscape.length(at) == pytest.approx(1)


def test_sharpness_along_the_gradient(net, batch):
    _, g = landscape.gradient(net, *batch)
    ahead, behind = copy.deepcopy(net), copy.deepcopy(net)
    landscape.move(ahead, g, 1e-4)
    landscape.move(behind, g, -1e-4)
    losses = [landscape.loss_of(n, *batch).item() for n in (ahead, net, behind)]
    numeric = (losses[0] - 2 * losses[1] + losses[2]) / 1e-8 / landscape.dot(g, g)
    assert landscape.batch_sharpness(net, *batch) == pytest.approx(numeric, rel=0.02, abs=1e-3)


def test_along_the_gradient_short_steps_are_the_taylor_series(net, batch):
    before = copy.deepcopy(net.state_dict())
    loss, g = landscape.gradient(net, *batch)
    start, path = landscape.along_gradient(net, *batch, [1e-5, 2e-5])
    assert start == pytest.approx(loss)
    assert path.losses[0] - loss == pytest.approx(-1e-5 * landscape.length(g), rel=1e-2)
    assert path.smoothness[0] == pytest.approx(path.smoothness[1], rel=0.02)
    assert path.changes[1] == pytest.approx(path.smoothness[1] * 2e-5 / landscape.length(g))
    for name in "0.linear.weight", "2.weight":
        torch.testing.assert_close(net.state_dict()[name], before[name])


def test_without_a_step_nothing_shifts_and_with_one_it_does(net, batch):
    mean, cosine, change = landscape.shift(net, *batch, 0.0)
    assert (mean, change) == (0, 0) and cosine == pytest.approx(1)
    mean, cosine, change = landscape.shift(net, *batch, 1.0)
    assert mean > 0 and change > 0 and cosine < 1


def test_with_batch_norm_only_beta_moves_a_mean(batch):
    net = relu_mlp(3, batch_norm=True, seed=0).double()
    lr = 0.5
    _, g = landscape.gradient(net, *batch)
    names = [name for name, _ in net.named_parameters()]
    moved = lr * g[names.index("2.norm.bias")].abs()  # in deviations: γ is 1 at first
    assert landscape.shift(net, *batch, lr).mean == pytest.approx(moved.median().item(), rel=1e-3)


def test_noise_shifts_the_means_as_derived():
    net = relu_mlp(3, batch_norm=True, seed=0, shake=0.2, width=400)
    found = landscape.shift(net, X, LABELS, 0.0).mean
    assert found == pytest.approx(0.95 * 0.2, rel=0.15)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda net: landscape.largest_eigenvalue(
                net, X, LABELS, tuple(net.parameters()), iterations=0
            ),
            "iterations is 0; expected 1 or more",
        ),
        (
            lambda net: landscape.shift(relu_mlp(1, batch_norm=False, seed=0), X, LABELS, 0.1),
            "net has 1 hidden layers; expected 2 or more",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(relu_mlp(2, batch_norm=False, seed=0))
