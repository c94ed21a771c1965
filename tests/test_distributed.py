"""bnlib.torch.distributed: real processes against one process with the whole mini-batch.

Three processes run all jobs in turn, each in its own function, `job_…`; the tests look at what came
out. A split of the mini-batch into two parts goes to a group of ranks 0 and 1.
"""

import copy
import functools
import itertools
import operator
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from ranks import on_ranks
from torch.nn.parallel import DistributedDataParallel

from bnlib.torch import BatchNorm3d, batch_norm, restore
from bnlib.torch.distributed import SyncBatchNorm, convert_sync, sync_batch_norm

SPLITS = [(4, 4), (7, 1), (0, 8), (1, 2, 5), (1, 1)]
SHAPES = [(3,), (3, 2, 5)]  # what follows N
# The promise is 1e-6 of scale; a half-precision result is rounded to its 11 or 8 bits at the end.
DTYPES = {
    torch.float64: 1e-9,  # a mean of 1e6 is rounded to 1e-10
    torch.float32: 1e-6,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
}
MEANS = [1.0, 1e6]
CASES = list(itertools.product(SPLITS, SHAPES, DTYPES, MEANS))
LARGE = (3, 0, 2), (2, 300, 300), torch.float32, 1e6
EPS, MOMENTUM = 0.01, 0.3


def draw(case):
    """x, weight, bias, dy of the whole mini-batch; 4-d ones are channels-last."""
    split, shape, dtype, mean = case
    drawn = torch.Generator().manual_seed(sum(split))
    x, dy = torch.randn(2, sum(split), *shape, generator=drawn, dtype=torch.float64)
    weight, bias = torch.randn(2, shape[0], generator=drawn, dtype=torch.float64)
    if x.ndim == 4:
        x, dy = (v.to(memory_format=torch.channels_last) for v in (x, dy))
    parameters = torch.promote_types(dtype, torch.float32)
    x = (3 * x + (min(mean, 1e4) if dtype == torch.float16 else mean)).to(dtype)
    return x, weight.to(parameters), bias.to(parameters), dy.to(dtype)


def step(function, x, weight, bias, dy, **options):
    """y, dx, dweight, dbias and the running statistics afterward."""
    running = [torch.ones(x.shape[1], dtype=weight.dtype) for _ in range(2)]
    leaves = [v.detach().clone().requires_grad_() for v in (x, weight, bias)]
    y = function(leaves[0], *running, *leaves[1:], True, MOMENTUM, EPS, **options)
    y.backward(dy)
    return y.detach(), *(v.grad for v in leaves), *running


# What the processes do


def everything(rank):
    """All jobs, by name."""
    groups = {2: dist.new_group([0, 1]), 3: None}
    alone = dist.new_group([0])
    results = {}
    for name, job in globals().items():
        if name.startswith("job_"):
            results[name] = job(rank, groups, alone)
    return results


def job_cases(rank, groups, alone):
    results = {}
    for case in CASES:
        split = case[0]
        if rank < len(split):
            x, weight, bias, dy = draw(case)
            x, dy = (v.split(split)[rank] for v in (x, dy))
            group = groups[len(split)]
            results[case] = step(sync_batch_norm, x, weight, bias, dy, group=group)
    return results


class SumOverRanks(torch.autograd.Function):
    """Σ v over the ranks, and backward likewise; written again, to test the one of bnlib by it."""

    @staticmethod
    def forward(ctx, v):
        total = v.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, dtotal):
        return SumOverRanks.apply(dtotal.contiguous())


def whole_by_parts(rank, x, weight, bias):
    """batch_norm of the whole x, in which this rank computes its part of (2, 0, 3).

    Every rank has x and gets all of y: its derivatives are those of one process. The sum at the end
    makes each derivative three times too large, the 1/3 at the start undoes it.
    """
    x, weight, bias = (SumOverRanks.apply(v / 3) for v in (x, weight, bias))
    y = sync_batch_norm(x.split([2, 0, 3])[rank], None, None, weight, bias, True)
    start = (0, 2, 2)[rank]
    padding = [0, 0] * (y.ndim - 1) + [start, 5 - start - len(y)]
    return SumOverRanks.apply(torch.nn.functional.pad(y, padding))


def job_derivatives(rank, groups, alone):
    """Of the first and the second order, by central differences; and y of the whole."""
    function = functools.partial(whole_by_parts, rank)
    for shape in [(5, 2), (5, 1, 2)]:
        leaves = [
            torch.randn(s, dtype=torch.float64, generator=seed(1))
            for s in (shape, shape[1], shape[1])
        ]
        leaves = [v.requires_grad_() for v in leaves]
        torch.testing.assert_close(
            function(*leaves), batch_norm(leaves[0], None, None, *leaves[1:], True)
        )
        assert torch.autograd.gradcheck(function, leaves)
        assert torch.autograd.gradgradcheck(function, leaves)


def job_errors(rank, groups, alone):
    """The message of each error, and what the group can do after all of them."""
    wrong = {
        "channels": lambda: sync_batch_norm(torch.ones(4, 3 + rank % 2), None, None, training=True),
        "many channels": lambda: sync_batch_norm(
            torch.ones(4, (3, 300, 500)[rank]), None, None, training=True
        ),
        "one value": lambda: sync_batch_norm(
            torch.ones(int(rank == 1), 3), None, None, training=True
        ),
        "shape": lambda: sync_batch_norm(torch.ones(4), None, None, training=True),
        "eps": lambda: sync_batch_norm(torch.ones(4, 3), None, None, training=True, eps=0),
        "group": lambda: sync_batch_norm(
            torch.ones(4, 3), None, None, training=True, group=groups[2]
        ),
    }
    messages = {}
    for name, call in wrong.items():
        if name != "group" or rank == 2:
            with pytest.raises(ValueError) as caught:  # noqa: PT011  the tests look at it
                call()
            messages[name] = str(caught.value)
    return messages, sync_batch_norm(torch.arange(3.0)[rank, None, None], None, None, training=True)


def job_many_channels(rank, groups, alone):
    """So many that their statistics need a second message."""
    return step(sync_batch_norm, *(v[2 * rank :][:2] if v.ndim > 1 else v for v in wide()))


def wide():
    x, dy = torch.randn(2, 6, 300, generator=seed(3))
    weight, bias = torch.randn(2, 300, generator=seed(4))
    return x, weight, bias, dy


def job_large(rank, groups, alone):
    """So large that a rank goes through its images one by one."""
    x, weight, bias, dy = draw(LARGE)
    x, dy = (v.split(LARGE[0])[rank] for v in (x, dy))
    return step(sync_batch_norm, x, weight, bias, dy)


def job_bad_channel(rank, groups, alone):
    """One rank has a NaN."""
    x, weight, bias, dy = draw(((4, 4, 4), (3,), torch.float32, 1.0))
    x[5, 1] = torch.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        part = [v.split(4)[rank] if v.ndim > 1 else v for v in (x, weight, bias, dy)]
        results = step(sync_batch_norm, *part)
    return results, [str(w.message) for w in caught]


def job_messages(rank, groups, alone):
    """The names of the collectives in training, forward and backward, and in inference."""
    x = torch.randn(4, 3, requires_grad=True)
    running = torch.zeros(3), torch.ones(3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trained:
        sync_batch_norm(x, *running, training=True).sum().backward()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as inferred:
        sync_batch_norm(x, *running)
    return [
        [e.name for e in run.events() if e.name.startswith("gloo:")] for run in (trained, inferred)
    ]


def job_one_rank(rank, groups, alone):
    if rank == 0:
        x, weight, bias, dy = draw(CASES[0])
        return step(sync_batch_norm, x, weight, bias, dy, group=alone)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 6),
        torch.nn.BatchNorm1d(6, momentum=None),
        torch.nn.ReLU(),
        torch.nn.Linear(6, 3),
    ).double()


def examples():
    images = torch.randn(5, 8, 1, 5, 5, dtype=torch.float64, generator=seed(5))
    return images, torch.randint(3, (5, 8), generator=seed(6))


def train(model, split=(8,), rank=0):
    """Five steps of SGD with momentum, on part number `rank` of each mini-batch of 8."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    for images, labels in zip(*examples(), strict=True):
        images, labels = images.split(split)[rank], labels.split(split)[rank]
        # Σ over the part · k / n: the mean of it over the ranks is the loss of the whole.
        losses = torch.nn.functional.cross_entropy(model(images), labels, reduction="sum")
        loss = losses * len(split) / 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def job_training(rank, groups, alone):
    """Under DistributedDataParallel; state dicts for an equal and an uneven split."""
    states = {}
    for split in [(4, 4), (7, 1), (1, 2, 5), (0, 3, 5)]:
        if rank < len(split):
            group = groups[len(split)]
            net = convert_sync(network(), group)
            train(DistributedDataParallel(net, process_group=group), split, rank)
            states[split] = net.state_dict()
    return states


def job_residual(rank, groups, alone):
    """The end of a block of a ResNet."""
    if rank < 2:
        x, weight, bias, dy = draw(((2, 6), (3, 2, 5), torch.float64, 1.0))
        residual, *parts = (v.split([2, 6])[rank] for v in (x.flip(0), x, dy))
        options = {"residual": residual, "relu": True, "group": groups[2]}
        return step(sync_batch_norm, parts[0], weight, bias, parts[1], **options)


def job_layer(rank, groups, alone):
    """Counts of mini-batches, with one that is empty on one rank, and one on all ranks."""
    layer = SyncBatchNorm(3, momentum=None)
    for sizes in (4, 0, 2), (0, 0, 0), (1, 1, 1):
        layer(torch.randn(sizes[rank], 3, 2, generator=seed(rank)))
    layer.eval()
    if rank == 0:  # the others send nothing
        layer(torch.ones(1, 3))
    return layer.state_dict()


def job_compiled(rank, groups, alone):
    """The layer within torch.compile."""
    layer = torch.nn.Sequential(SyncBatchNorm(3), torch.nn.ReLU())
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager")
    x = torch.randn(4, 3, generator=seed(rank))
    results = []
    for net in layer, compiled:
        leaf = x.clone().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the compiler itself does
            y = net(leaf)
        y.sum().backward()
        results.append((y.detach(), leaf.grad, *(v.clone() for v in net.buffers())))
    return results


def seed(number):
    return torch.Generator().manual_seed(number)


# What came out of it


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """For each rank, the results by job."""
    return on_ranks(everything, 3, tmp_path_factory.mktemp("ranks"))


def whole(function, x, weight, bias, dy):
    return step(function, *(v.double() for v in (x, weight, bias, dy)))


def assert_within(share, ours, exact, scale=1.0):
    """Each of ours is within that share of the largest value of the exact one, or of scale."""
    for mine, its in zip(ours, exact, strict=True):
        atol = share * max(float(its.abs().max()), scale)
        torch.testing.assert_close(mine.double(), its.double(), atol=atol, rtol=0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_ranks_together_are_one_process(case, done):
    split, _, dtype, _ = case
    ranks = [rank["job_cases"][case] for rank in done if case in rank["job_cases"]]
    assert len(ranks) == len(split)
    x, weight, bias, dy = draw(case)
    exact = whole(batch_norm, x, weight, bias, dy)
    assert [v.dtype for v in ranks[0]] == [dtype] * 2 + [weight.dtype] * 4
    assert [len(rank[0]) for rank in ranks] == list(split)
    y, dx = (torch.cat([rank[i] for rank in ranks]) for i in range(2))
    dweight, dbias = (sum(rank[i].double() for rank in ranks) for i in (2, 3))
    share = DTYPES[dtype]
    slope = float(weight.abs().max() / EPS**0.5)
    assert_within(share, [y], exact[:1])
    assert_within(share, [dx], exact[1:2], slope * float(dy.abs().max()))
    assert_within(min(share, 1e-6), [dweight, dbias, *ranks[0][4:]], exact[2:])
    for rank in ranks:  # to the same bits
        assert all(map(torch.equal, rank[4:], ranks[0][4:]))
        if x.ndim == 4 and len(rank[0]) > 1:
            assert all(v.is_contiguous(memory_format=torch.channels_last) for v in rank[:2])


def test_derivatives_over_several_processes(done):
    assert all("job_derivatives" in rank for rank in done)  # it asserts in the processes


@pytest.mark.parametrize(
    "name, message",
    [
        ("channels", "x has 3, 4, 3 channels on the ranks, in their order; expected the same"),
        ("many channels", "x has 3, 300, 500 channels on the ranks"),
        ("one value", "x has one value per channel on all ranks together; expected at least 2"),
        ("shape", r"x has shape \(4,\); expected \(N, C\) or"),
        ("eps", "eps is 0; expected a positive number"),
    ],
)
def test_an_error_is_the_same_on_all_ranks(name, message, done):
    (error,) = {rank["job_errors"][0][name] for rank in done}
    assert re.match(message, error)


def test_after_an_error_the_group_goes_on(done):
    ys = torch.cat([rank["job_errors"][1] for rank in done]).flatten()
    torch.testing.assert_close(ys, torch.tensor([-1.2247, 0, 1.2247]), atol=1e-4, rtol=0)


def test_a_group_of_others_is_refused(done):
    (error,) = [rank["job_errors"][0]["group"] for rank in done if "group" in rank["job_errors"][0]]
    assert error == "group is one that this process does not belong to"


def test_more_channels_than_fit_into_one_message(done):
    exact = whole(batch_norm, *wide())
    ranks = [rank["job_many_channels"] for rank in done]
    assert_within(1e-6, [torch.cat([rank[i] for rank in ranks]) for i in range(2)], exact[:2])
    assert_within(1e-6, [sum(rank[i] for rank in ranks) for i in (2, 3)], exact[2:4])
    assert_within(1e-6, ranks[2][4:], exact[4:])


def test_large_images(done):
    exact = whole(batch_norm, *draw(LARGE))
    ranks = [rank["job_large"] for rank in done]
    for i in range(2):
        assert_within(1e-6, [torch.cat([rank[i] for rank in ranks])], [exact[i]])
        assert ranks[0][i].is_contiguous(memory_format=torch.channels_last)
    assert_within(1e-6, [sum(rank[i] for rank in ranks) for i in (2, 3)], exact[2:4])
    assert_within(1e-6, ranks[1][4:], exact[4:])


def test_a_bad_channel_stays_alone_and_is_named_on_all_ranks(done):
    x, weight, bias, dy = draw(((4, 4, 4), (3,), torch.float32, 1.0))
    exact = whole(batch_norm, x, weight, bias, dy)
    for i, rank in enumerate(done):
        (y, dx, *_, mean, var), [message] = rank["job_bad_channel"]
        assert message.startswith("channel 1: the batch has a NaN")
        assert y[:, 1].isnan().all() and dx[:, 1].isnan().all()
        assert mean[1] == var[1] == 1
        good = [v[..., [0, 2]] for v in (y, dx, mean, var)]
        parts = [v.split(4)[i] for v in exact[:2]]
        assert_within(1e-6, good, [v[..., [0, 2]] for v in (*parts, *exact[4:])])


def test_one_message_forward_one_backward_and_none_in_inference(done):
    for rank in done:
        trained, inferred = rank["job_messages"]
        assert sorted(trained) == ["gloo:all_gather", "gloo:all_reduce"] and inferred == []


def test_one_rank_alone_is_the_plain_function(done):
    exact = step(batch_norm, *draw(CASES[0]))
    assert all(map(torch.equal, done[0]["job_one_rank"], exact))


@pytest.mark.parametrize("training", [True, False])
def test_without_a_group_it_is_the_plain_function(training):
    x, weight, bias, _ = draw(CASES[0])
    results = []
    for function in sync_batch_norm, batch_norm:
        running = torch.zeros(3), torch.ones(3)
        results.append((function(x, *running, weight, bias, training), *running))
    assert all(map(torch.equal, *results))
    with pytest.raises(ValueError, match=r"x has shape \(1, 3\), one value per channel"):
        sync_batch_norm(x[:1], None, None, training=True)


@pytest.mark.parametrize("split", [(4, 4), (7, 1), (1, 2, 5), (0, 3, 5)], ids=str)
def test_training_is_that_of_one_process(split, done):
    """With the loss as the docstring says; under DistributedDataParallel, in float64."""
    expected = network()
    train(expected)
    expected = expected.state_dict()
    for rank in done[: len(split)]:
        state = rank["job_training"][split]
        assert list(state) == list(expected)
        for name, mine in state.items():
            torch.testing.assert_close(mine, expected[name], atol=1e-10, rtol=1e-10)


def test_mini_batches_are_counted_alike_on_all_ranks(done):
    """One that is empty on all ranks is not counted; one that is so on some of them is."""
    whole_batches = [
        torch.cat([torch.randn(n, 3, 2, generator=seed(i)) for i, n in enumerate(sizes)])
        for sizes in ((4, 0, 2), (1, 1, 1))
    ]
    layer = torch.nn.BatchNorm1d(3, momentum=None)
    for x in whole_batches:
        layer(x)
    for rank in done:
        for name, mine in rank["job_layer"].items():
            torch.testing.assert_close(mine, layer.state_dict()[name], atol=1e-6, rtol=1e-6)


def test_it_goes_on_within_a_compiled_model(done):
    for rank in done:
        eager, compiled = rank["job_compiled"]
        for ours, theirs in zip(eager, compiled, strict=True):
            torch.testing.assert_close(ours, theirs)


def test_residual_and_relu(done):
    x, weight, bias, dy = draw(((2, 6), (3, 2, 5), torch.float64, 1.0))
    expected = step(batch_norm, x, weight, bias, dy, residual=x.flip(0), relu=True)
    y, dx, dweight, *_ = zip(*(rank["job_residual"] for rank in done[:2]), strict=True)
    ours = torch.cat(y), torch.cat(dx), sum(dweight)
    for mine, its in zip(ours, expected, strict=False):
        torch.testing.assert_close(mine, its)


# The layer


def test_conversion_keeps_what_the_layers_hold():
    net = torch.nn.Sequential(network(), BatchNorm3d(3), torch.nn.SyncBatchNorm(3))
    types = [type(layer) for layer in net.modules()]
    net[1].register_forward_hook(lambda layer, x, y: y + 1)
    net[0][1].eval()
    kept = [*net.parameters(), *net.buffers()]
    modes = [layer.training for layer in net.modules()]
    assert convert_sync(net) is net
    types[types.index(torch.nn.SyncBatchNorm)] = SyncBatchNorm
    assert [type(layer) for layer in net.modules()] == types
    assert sum("forward" in vars(layer) for layer in net.modules()) == 3
    assert all(map(operator.is_, kept, [*net.parameters(), *net.buffers()]))
    assert modes == [layer.training for layer in net.modules()]
    y = net[1](torch.randn(4, 3, 1, 1, 2))
    torch.testing.assert_close(y.mean(), torch.tensor(1.0))  # its hook
    assert net[0][5].momentum is None
    restore(net)
    assert not any("forward" in vars(layer) for layer in net.modules())


def test_layers_that_stay_unsynchronized_are_named():
    class FrozenBatchNorm(torch.nn.Module):
        pass

    net = torch.nn.Sequential(FrozenBatchNorm(), torch.nn.LayerNorm(3), torch.nn.BatchNorm1d(3))
    with pytest.warns(UserWarning, match="left FrozenBatchNorm as it was"):
        convert_sync(net)
    assert ["forward" in vars(layer) for layer in net] == [False, False, True]


def test_a_converted_model_is_the_same_in_one_process():
    plain, converted = network(), convert_sync(network())
    for net in plain, converted:
        train(net)
    for name, value in converted.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])
    plain.load_state_dict(converted.state_dict(), strict=True)
    images, _ = examples()
    torch.testing.assert_close(plain.eval()(images[0]), converted.eval()(images[0]))


def test_tools_of_torch_find_the_layer():
    layer = SyncBatchNorm(3)
    assert isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
    assert type(torch.nn.SyncBatchNorm.convert_sync_batchnorm(layer)) is torch.nn.SyncBatchNorm
    assert copy.deepcopy(layer).state_dict().keys() == torch.nn.BatchNorm2d(3).state_dict().keys()
    with pytest.raises(ValueError, match=r"has shape \(3,\); expected \(5,\)"):
        layer(torch.ones(4, 5))
    with pytest.raises(ValueError, match="eps is 0; expected a positive number"):
        SyncBatchNorm(3, eps=0)(torch.ones(4, 3))


# The example, and what happens when one of its processes ends

EXAMPLE = [str(ROOT / "examples" / "mnist_ddp.py")]
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "2"]


@pytest.fixture
def start():
    """Start a command on the embedded digits; whatever is left of it in the end is ended."""
    started = []

    def start(command, **environment):
        environment = os.environ | {"BNLIB_DATA": "embedded", "OMP_NUM_THREADS": "1"} | environment
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        timer = threading.Timer(120, process.kill)  # nobody waits longer for its first words
        timer.daemon = True
        timer.start()
        return process

    yield start
    for process in started:  # torchrun ends its ranks when it is asked to; a stopped one wakes up
        process.terminate()
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)


def test_the_example_trains(start):
    process = start([*TORCHRUN, *EXAMPLE, "--steps", "60"])
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "rank 1 of 2: process" in printed and "Warning" not in printed
    apart = dict(re.findall(r"^statistics of (.*): (.*) from the weights of one", printed, re.M))
    assert float(apart["its part"]) > 1e-3
    assert float(apart["the whole mini-batch"]) < 1e-12
    assert float(re.search(r"after 60 steps (.*)% of the test set", printed)[1]) > 60


def start_ranks(start, torchrun):
    """The example for longer than a test; what was started, and the process of rank 1."""
    long = [*EXAMPLE, "--steps", "5000", "--timeout", "10"]
    if torchrun:
        agent = start([*TORCHRUN, *long])
        printed = ""
        for line in agent.stdout:
            printed += line
            ranks = dict(re.findall(r"rank (\d) of 2: process (\d+)", printed))
            if len(ranks) == 2:
                return [agent], int(ranks["1"])
        pytest.fail(printed)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    processes = [
        start([sys.executable, *long], RANK=str(rank), WORLD_SIZE="2", **meeting)
        for rank in range(2)
    ]
    for process in processes:
        assert " of 2: process" in process.stdout.readline()
    return processes, processes[1].pid


@pytest.mark.parametrize(
    "torchrun, how",
    [(True, "SIGINT"), (False, "SIGKILL"), (False, "SIGSTOP")],
)
def test_a_rank_that_dies_ends_the_others(torchrun, how, start):
    """SIGKILL leaves it no word; SIGINT raises an exception in it; SIGSTOP makes it hang."""
    (first, *_), process = start_ranks(start, torchrun)
    time.sleep(0.5)
    os.kill(process, getattr(signal, how))
    began = time.monotonic()
    printed, _ = first.communicate(timeout=60)
    assert time.monotonic() - began < 45  # 10, and what ending a process takes
    assert first.returncode == 1
    message = "rank 0 ends: another process ended, or did not answer for 10 s"
    # torchrun may end it with SIGTERM before it has said so
    assert message in printed or (torchrun and "local_rank: 1" in printed), printed
