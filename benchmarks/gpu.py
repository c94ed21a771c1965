"""How long BatchNorm takes on a GPU: a training step, forward and backward, beside torch's ways.

All contestants run by turns, round after round, with the L2 cache swept before each run. Times are
medians over the rounds: `eager` as a program sees it, `graph` as a CUDA graph replays it, without
the time that Python takes to launch kernels. Each round also copies the array. A share of that
bandwidth says how well the memory is used: the bytes of 6 reads and 2 writes of the array, or of 3
and 2 where x and dy are read once, in the time of the graph. Bytes that come from the L2 cache
count, too.

Kernels of bnlib whose programs wait for each other come last, in a process that is ended when it
does not end. Without a CUDA GPU nothing is measured, and the exit status is 1.

    make bench ONLY=gpu [RECORD=1]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median

import torch
import triton
from contestants import RECORDS, circumstances
from torch import Tensor
from torch.nn.functional import batch_norm as native

import bnlib.torch
from bnlib.torch import triton as kernels

SHAPES = [(256, 100), (256, 1024), (4096, 1024), (256, 64, 28, 28), (256, 256, 56, 56)]
DTYPES = {"float32": torch.float32, "float16": torch.float16}  # bfloat16 is not for cuDNN
EPS, ROUNDS, LIMIT = 1e-5, 20, 90  # LIMIT: seconds for the kernels that wait
COPY, WAITING = "copy", "bnlib, single read"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help=f"write {RECORDS / 'gpu.json'}")
    parser.add_argument("--quick", action="store_true", help="one small shape and few rounds")
    parser.add_argument("--waiting", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU here: nothing was measured.")
    shapes, rounds = ([(64, 32, 7, 7)], 3) if arguments.quick else (SHAPES, ROUNDS)
    cases = [(shape, dtype) for shape in shapes for dtype in DTYPES]
    if arguments.waiting:
        for case in cases:
            print(json.dumps(measure(*case, waiting, rounds)), flush=True)
        return

    results = []
    for case in cases:
        results += measure(*case, others, rounds)
        print(f"{case[0]} {case[1]}: done", file=sys.stderr)
    results += in_a_process(cases, arguments.quick)
    gpu = torch.cuda.get_device_properties(0)
    record = circumstances() | {
        "gpu": gpu.name,
        "multiprocessors": gpu.multi_processor_count,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "results": results,
    }
    show(record)
    if arguments.record:
        (RECORDS / "gpu.json").write_text(json.dumps(record, indent=1) + "\n")


def in_a_process(cases: list, quick: bool) -> list[dict]:
    """What `measure` returns for the kernels that wait; a line for each case that did not end."""
    command = [sys.executable, __file__, "--waiting", *["--quick"] * quick]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = child.communicate(timeout=LIMIT)
        why = f"the process ended with status {child.returncode}"
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
        why = f"not done after {LIMIT} s"
    done = [json.loads(line) for line in output.splitlines() if line.endswith("]")]
    missing = [
        {"shape": shape, "dtype": dtype, "contestant": WAITING, "failed": why}
        for shape, dtype in cases[len(done) :]
    ]
    return [row for rows in done for row in rows if row["contestant"] == WAITING] + missing


def others(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> Iterator[tuple[str, Callable]]:
    """Contestants and their training step: y, dx, dweight, dbias."""

    def step(function: Callable, x: Tensor, dy: Tensor, cudnn: bool = False) -> Callable:
        leaves = [v.detach().requires_grad_() for v in (x, weight, bias)]

        def run() -> tuple[Tensor, ...]:
            with torch.backends.cudnn.flags(enabled=cudnn):
                y = function(leaves[0], None, None, *leaves[1:], training=True, eps=EPS)
                return y, *torch.autograd.grad(y, leaves, dy)

        return run

    yield "torch", step(native, x, dy)
    if x.ndim == 4:
        last = [v.contiguous(memory_format=torch.channels_last) for v in (x, dy)]
        yield "torch, channels last", step(native, *last)
        yield "cuDNN", step(native, x, dy, cudnn=True)
        yield "cuDNN, channels last", step(native, *last, cudnn=True)
    for mode in "default", "max-autotune-no-cudagraphs":
        compiled = torch.compile(native, dynamic=False, mode=mode)
        yield f"torch.compile, {mode.removesuffix('-no-cudagraphs')}", step(compiled, x, dy)
    yield "bnlib", step(bnlib.torch.batch_norm, x, dy)
    if x.ndim == 4:
        yield "bnlib, channels last", step(bnlib.torch.batch_norm, *last)


def waiting(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> Iterator[tuple[str, Callable]]:
    """Likewise, for the kernels that read x once, also where many programs hold a channel."""

    def run() -> tuple[Tensor, ...]:
        y, mean, var = kernels.train(x, weight, bias, EPS, single_read=True)
        return y, *kernels.backward(dy, x, mean, var, weight, EPS, single_read=True)

    yield WAITING, run


def measure(shape: tuple, dtype: str, contestants: Callable, rounds: int) -> list[dict]:
    """A row for each contestant, with its times in milliseconds, or with why there are none."""
    torch.manual_seed(0)
    torch._dynamo.reset()  # what was compiled for other shapes counts toward a limit
    x, dy = ((3 + 2 * torch.randn(shape, device="cuda")).to(DTYPES[dtype]) for _ in range(2))
    weight, bias = torch.randn(2, shape[1], device="cuda")
    target = torch.empty_like(x)
    runs: dict[str, dict[str, Callable]] = {COPY: {"graph": lambda: target.copy_(x)}}
    failed = {}
    for name, run in contestants(x, weight, bias, dy):
        try:
            check(run(), x, weight, bias, dy)
            runs[name] = {"graph": captured(run), "eager": run}
        except Exception as error:  # the others go on
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    for name in failed:
        runs.pop(name, None)
    times = by_turns(runs, rounds)
    common = {"shape": shape, "dtype": dtype, "bytes": x.nbytes}
    rows = [common | {"contestant": k, "passes": passes(x, k)} | times[k] for k in runs]
    return rows + [common | {"contestant": name, "failed": why} for name, why in failed.items()]


def passes(x: Tensor, contestant: str) -> int:
    """How often the array is read and written."""
    if contestant == COPY:
        return 2
    if not contestant.startswith("bnlib"):
        return 3 + 5
    once = [contestant == WAITING or kernels._Plan(x, tensors, None).once for tensors in (1, 2)]
    return (2 if once[0] else 3) + (3 if once[1] else 5)


def check(results: tuple, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> None:
    """That y and dx are right in the first two channels."""
    leaf = x[:, :2].double().requires_grad_()
    y = native(leaf, None, None, weight[:2].double(), bias[:2].double(), True, eps=EPS)
    (dx,) = torch.autograd.grad(y, leaf, dy[:, :2].double())
    for got, want in zip(results, (y.detach(), dx), strict=False):
        off = float((got.detach()[:, :2] - want).abs().max() / want.abs().max())
        if not off <= 1e-4 + torch.finfo(x.dtype).eps:
            raise ArithmeticError(f"a result is off by {off:.1e}")


def captured(run: Callable) -> Callable:
    """run as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def by_turns(runs: dict[str, dict[str, Callable]], rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each, by way of running it."""
    size = 4 * torch.cuda.get_device_properties(0).L2_cache_size
    cache = torch.empty(size, dtype=torch.uint8, device="cuda")
    times: dict = {name: {way: [] for way in ways} for name, ways in runs.items()}
    for _ in range(rounds):
        for name, ways in runs.items():
            for way, run in ways.items():
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                cache.zero_()
                start.record()
                run()
                end.record()
                end.synchronize()
                times[name][way].append(start.elapsed_time(end))
    return {name: {way: median(t) for way, t in ways.items()} for name, ways in times.items()}


def show(record: dict) -> None:
    """A table for each shape and dtype: times, the share of the bandwidth, and the speed-up."""
    print(record["gpu"], record["versions"], record["date"])
    rows = record["results"]
    for shape, dtype in dict.fromkeys((tuple(r["shape"]), r["dtype"]) for r in rows):
        case = [r for r in rows if (tuple(r["shape"]), r["dtype"]) == (shape, dtype)]
        copy = next(r["graph"] for r in case if r["contestant"] == COPY)
        size = next(r["bytes"] for r in case if r["contestant"] == COPY)
        print(f"\n{shape} {dtype}: {size / 1e6:.3g} MB, copied at {2 * size / copy / 1e6:.0f} GB/s")
        print(f"{'':30}{'graph, ms':>10}{'eager, ms':>10}{'bandwidth':>10}{'torch / it':>11}")
        measured = [r for r in case if "eager" in r]
        theirs = [r["graph"] for r in measured if not r["contestant"].startswith("bnlib")]
        best = min(theirs, default=float("nan"))
        for r in measured:
            share = r["passes"] * copy / 2 / r["graph"]
            print(
                f"{r['contestant']:30}{r['graph']:>10.4f}{r['eager']:>10.4f}"
                f"{share:>10.0%}{best / r['graph']:>10.2f}×"
            )
        for r in case:
            if "failed" in r:
                print(f"{r['contestant']:30}{r['failed']}")


if __name__ == "__main__":
    main()
