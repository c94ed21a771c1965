"""bnlib.torch.norms and relatives: against the NumPy layers, torch's own, and bad input."""

from typing import get_args

import numpy as np
import pytest
import torch

from bnlib import nn, norms
from bnlib.torch.norms import BatchRenorm, DynamicTanh, standardize_weight
from bnlib.torch.relatives import Kind, Norm, network

PAIRS = {  # our layer for torch, and that for NumPy
    "BatchRenorm": (
        lambda: BatchRenorm(6, r_max=1.5, d_max=0.2),
        lambda: nn.BatchRenorm(6, r_max=1.5, d_max=0.2),
    ),
    "DynamicTanh": (lambda: DynamicTanh(6, alpha=0.7), lambda: nn.DynamicTanh(6, alpha=0.7)),
}


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3, 2)])
@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_the_numpy_layer(name, shape):
    """Three training steps, then inference; y, dx and the gradients of gamma and beta."""
    ours, theirs = (make() for make in PAIRS[name])
    rng = np.random.default_rng(0)
    for step in range(4):
        if step == 3:
            ours.eval(), theirs.eval()
        x, dy = rng.normal(1, 2, (2, *shape)).astype(np.float32)
        t = torch.tensor(x, requires_grad=True)
        ours.zero_grad()
        for p in theirs.parameters():
            p.grad.fill(0)
        y = ours(t)
        y.backward(torch.tensor(dy))
        np.testing.assert_allclose(y.detach(), theirs(x), atol=2e-6)
        np.testing.assert_allclose(t.grad, theirs.backward(dy), atol=2e-6)
        np.testing.assert_allclose(ours.weight.grad, theirs.gamma.grad, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(ours.bias.grad, theirs.beta.grad, rtol=1e-5, atol=1e-5)
    if name == "DynamicTanh":
        assert ours.alpha.grad.item() == pytest.approx(theirs.alpha.grad[0], rel=1e-5)
    else:
        np.testing.assert_allclose(ours.running_mean, theirs.running.mean, rtol=1e-6)
        np.testing.assert_allclose(ours.running_var, theirs.running.var, rtol=1e-6)
        assert ours.num_batches_tracked == theirs.running.batches


@pytest.mark.parametrize("layer", [torch.nn.Linear(7, 4), torch.nn.Conv2d(3, 4, 2)])
def test_standardized_weights(layer):
    rows = layer.weight.detach().flatten(1)
    standardize_weight(layer)
    now = layer.weight.detach().flatten(1)
    torch.testing.assert_close(now, rows - rows.mean(1, keepdim=True), rtol=1e-3, atol=1e-5)
    layer.parametrizations.weight.original.data.mul_(3).add_(1)
    torch.testing.assert_close(layer.weight.detach().flatten(1), now, rtol=1e-3, atol=1e-5)
    gain = layer.parametrizations.weight[0].gain
    exact, _ = norms.weight_standardization(
        layer.parametrizations.weight.original.detach().numpy(), gain.detach().numpy()
    )
    np.testing.assert_allclose(layer.weight.detach(), exact, atol=1e-6)
    layer.weight.square().sum().backward()
    assert gain.grad is not None and gain.grad.abs().max() > 0


CASES = [(k, n) for k in get_args(Kind) for n in get_args(Norm) if (k, n) != ("MLP", "instance")]


@pytest.mark.parametrize("kind, norm", CASES)
def test_every_network_learns_and_starts_as_the_others(kind, norm):
    net = network(kind, norm, seed=0)
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(16, 784)).astype(np.float32))
    labels = torch.tensor(rng.integers(0, 10, 16))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in net.parameters())
    same = network(kind, "none", seed=0).state_dict()
    fresh = network(kind, norm, seed=0).state_dict()
    weights = {k: v for k, v in fresh.items() if k in same and v.ndim > 1}
    assert weights and all(torch.equal(v, same[k]) for k, v in weights.items())


@pytest.mark.parametrize("kind", ["MLP", "CNN", "residual", "rows"])
def test_only_norms_over_the_batch_mix_its_examples(kind):
    """The derivative of one example's output by another's input."""
    for norm in get_args(Norm):
        if (kind, norm) == ("MLP", "instance"):
            continue
        net, x = network(kind, norm, seed=0), torch.randn(4, 784, requires_grad=True)
        net(x)[0].sum().backward()
        mixes = bool(x.grad[1:].abs().max() > 0)
        # Within its limits batch renormalization is inference, but its own statistics have a slope.
        assert mixes == (norm in ("batch", "renorm")), norm


@pytest.mark.parametrize(
    "message, make",
    [
        ("kind is 'RNN'; expected one of MLP, CNN", lambda: network("RNN", "batch", seed=0)),
        ("norm is 'x'; expected one of none, batch", lambda: network("MLP", "x", seed=0)),
        ("norm is 'instance'; expected another", lambda: network("MLP", "instance", seed=0)),
        ("num_features is 0; expected 1 or more", lambda: BatchRenorm(0)),
        (r"momentum is 2; expected a number in \[0, 1\]", lambda: BatchRenorm(3, momentum=2)),
        ("r_max is 0.5; expected 1 or more", lambda: BatchRenorm(3, r_max=0.5)),
        ("d_max is -1; expected 0 or more", lambda: BatchRenorm(3, d_max=-1)),
    ],
)
def test_bad_input(message, make):
    with pytest.raises(ValueError, match=message):
        make()
