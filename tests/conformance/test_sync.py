"""Reported faults of synchronized BatchNorm elsewhere, each as a test of ours over two processes.

Numbers with # are issues and pull requests of pytorch/pytorch.
"""

import pytest
import torch
from ranks import on_ranks

from bnlib.torch import batch_norm
from bnlib.torch.distributed import SyncBatchNorm, sync_batch_norm


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step(function, x, dy, weight, bias, eps=1e-5):
    """y, dx, dweight, dbias, running mean and variance, which is that of the mini-batch."""
    running = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
    leaves = [v.detach().clone().requires_grad_() for v in (x, weight, bias)]
    y = function(leaves[0], *running, *leaves[1:], True, 1.0, eps)
    y.backward(dy)
    return y.detach(), *(v.grad for v in leaves), *running


# The parts of each rank, as (x, dy), and what else the mini-batch is made of.


def sizes_differ():
    """#22192, #36382: images of one rank are larger, and it has more of them."""
    return [(3 + normal(n, 3, s, s), normal(n, 3, s, s, seed=1)) for n, s in ((2, 3), (5, 7))]


def one_is_empty():
    """#36530, #74944, #78656."""
    return [(normal(n, 3, 4, 4), normal(n, 3, 4, 4, seed=1)) for n in (0, 6)]


def one_value_each():
    """#36865: one example on each rank makes a mini-batch of two."""
    return [(normal(1, 3, seed=rank), normal(1, 3, seed=rank + 2)) for rank in range(2)]


def half_precision():
    """#96203: float16 x with float32 parameters; and more values than float16 can count."""
    x, dy = (normal(2, 1, 2, 200, 200, seed=seed).half() for seed in range(2))
    return [(x[rank].mT.contiguous(), dy[rank].mT.contiguous()) for rank in range(2)]


def memory_formats():
    """#64039: x and dy lie in memory in different ways; NVIDIA/apex #1768: 65 channels."""
    parts = [(normal(4, 65, 9, 11, seed=r), normal(4, 65, 9, 11, seed=r + 2)) for r in range(2)]
    (x0, dy0), (x1, dy1) = parts
    flipped = dy1.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return [(x0.to(memory_format=torch.channels_last), dy0), (x1, flipped)]


def small_variance():
    """The variance is rebuilt as 1/inv_std² − eps: at 1e-8 it loses 4.5e-4 of it in float32."""
    return [(1e-4 * normal(n, 3, seed=n), normal(n, 3)) for n in (500, 700)]


def unequal_weights():
    """The mean over the ranks of E[x] and E[x²], as jax.lax.pmean takes it, weighs them equally."""
    return [(normal(n, 3) + offset, normal(n, 3, seed=1)) for n, offset in ((1, 9.0), (31, 0.0))]


def far_from_zero():
    """E[x²] − E[x]² of float32 sums, as many share them, has no digit left here."""
    return [(1e4 + 1e-2 * normal(n, 3, seed=n), normal(n, 3)) for n in (50, 70)]


def constant():
    """A channel of one value stays β, however the mini-batch is cut."""
    return [(torch.full((n, 3), 0.1), normal(n, 3)) for n in (1, 6)]


CASES = [
    sizes_differ,
    one_is_empty,
    one_value_each,
    half_precision,
    memory_formats,
    small_variance,
    unequal_weights,
    far_from_zero,
    constant,
]


def run(rank):
    results = {}
    for case in CASES:
        x, dy = case()[rank]
        results[case.__name__] = step(sync_batch_norm, x, dy, *parameters(x))
    layer = SyncBatchNorm(3)
    x = torch.empty(0, 3, 4, requires_grad=True)
    layer(x).sum().backward()
    results["all are empty"] = (
        x.grad,
        layer.weight.grad,
        layer.bias.grad,
        *layer.state_dict().values(),
    )
    # A penalty on the gradient, as a WGAN has it
    x = normal(4, 3, seed=rank).double().requires_grad_()
    y = sync_batch_norm(x, None, None, training=True).tanh()
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    dx.square().sum().backward()
    results["penalty"] = x.grad
    return results


def parameters(x):
    return normal(x.shape[1], seed=3), normal(x.shape[1], seed=4)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return on_ranks(run, 2, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_batch_norm_of_the_whole(case, done):
    ranks = [rank[case.__name__] for rank in done]
    parts = case()
    # Channels of all values, whatever the sizes of the images: (values, C)
    x, dy = (
        torch.cat([v.movedim(1, -1).reshape(-1, v.shape[1]) for v in column]).double()
        for column in zip(*parts, strict=True)
    )
    weight, bias = parameters(x)
    exact = step(batch_norm, x, dy, weight.double(), bias.double())
    rounding = 2**-10 if parts[0][0].dtype == torch.float16 else 1e-6
    slope = float(weight.abs().max()) / float(exact[5].min() + 1e-5) ** 0.5
    for i, scale in enumerate((1.0, slope * float(dy.abs().max()))):
        mine = [rank[i].movedim(1, -1).reshape(-1, x.shape[1]) for rank in ranks]
        atol = rounding * max(scale, float(exact[i].abs().max()))
        torch.testing.assert_close(torch.cat(mine).double(), exact[i], atol=atol, rtol=0)
    for i in 2, 3:
        atol = 1e-6 * float((dy.abs().sum(0)).max())
        torch.testing.assert_close(
            ranks[0][i].double() + ranks[1][i].double(), exact[i].double(), atol=atol, rtol=0
        )
    for i in 4, 5:
        torch.testing.assert_close(ranks[0][i], exact[i].float(), atol=1e-12, rtol=1e-6)
        assert torch.equal(ranks[0][i], ranks[1][i])


def test_when_all_are_empty_nothing_happens(done):
    """#36530: gradients that are there and zero, and statistics as they were."""
    for rank in done:
        dx, dweight, dbias, weight, bias, mean, var, batches = rank["all are empty"]
        assert dx.shape == (0, 3, 4)
        assert not any(map(torch.any, (dweight, dbias, bias, mean, batches)))
        assert torch.equal(var, torch.ones(3)) and torch.equal(weight, torch.ones(3))


def test_a_gradient_penalty(done):
    """#61222: the derivative of the backward pass."""
    x = torch.cat([normal(4, 3, seed=rank) for rank in range(2)]).double().requires_grad_()
    y = batch_norm(x, None, None, training=True).tanh()
    (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    dx.square().sum().backward()
    torch.testing.assert_close(torch.cat([rank["penalty"] for rank in done]), x.grad)


def test_a_constant_channel_is_beta(done):
    x, _ = constant()[0]
    for rank in done:
        y = rank["constant"][0]
        assert torch.equal(y, parameters(x)[1].expand_as(y))
