"""How long BatchNorm takes: a training step, and inference, beside torch native and the floor.

All contestants run by turns, in another order each round, in one process for each number of
threads, which may use that many cores and no more. Ratios are medians over the rounds, each to
torch native in the same round. The floor is the time in which the arrays can be read and copied,
measured in the same rounds: the forward pass needs 2 reads and 1 write, the backward pass 4 reads
and 1 write, inference 1 of each.

Much of a time can be that of the system, which clears the pages of new arrays. So one thread is
measured twice: with memory as the system gives it, and where glibc keeps what is freed. NumPy asks
Linux for large pages and torch does not, so the first favours what allocates by NumPy.

Time over size is measured for one thread, on images whose three numbers grow together.

    make bench ONLY=speed [RECORD=1]
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np
from contestants import (
    BLOCKED,
    CLOSED,
    LAST,
    NATIVE,
    ONE_PASS,
    RECORDS,
    TEXTBOOK,
    circumstances,
    contestants,
)

SHAPES = [(60, 100), (256, 1024), (4096, 1024), (128, 64, 28, 28), (32, 256, 56, 56)]
SHAPES += [(64, 32, 4, 4)]
SIZES = [(2**k, 64, 2**k * 2, 2**k * 2) for k in range(1, 7)]  # 2·10³ to 7·10⁷ values
THREADS = 1, 2
FLOOR = "floor: reads and copies"
IMAGES = LAST, BLOCKED  # they take images only
ALONE = TEXTBOOK, CLOSED, ONE_PASS  # they use one thread, whatever there is
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}  # bytes
SAMPLE = 2e-3  # seconds that one measurement takes at least
BUDGET, ROUNDS = 4.0, (5, 200)  # seconds for a shape and pass, and rounds at least and at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--record", action="store_true", help=f"write {RECORDS / 'speed.json'}")
    kinds.add_argument("--quick", action="store_true", help="small shapes and few rounds")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        json.dump(measure(arguments.threads, arguments.quick, arguments.sizes), sys.stdout)
        return
    flags = ["--quick"] * arguments.quick
    results = [row for threads in THREADS for row in in_a_process(threads, {}, flags)]
    results += in_a_process(1, KEPT, flags)
    sizes = in_a_process(1, {}, [*flags, "--sizes"])
    record = circumstances() | {"results": results, "sizes": sizes}
    show(record)
    if arguments.record:
        (RECORDS / "speed.json").write_text(json.dumps(record, indent=1) + "\n")


def in_a_process(threads: int, environment: dict[str, str], flags: list[str]) -> list[dict]:
    """What `measure` returns, in a process that may use this many cores."""
    command = [sys.executable, __file__, "--threads", str(threads), *flags]
    limits = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}  # bnlib has its own
    limits |= environment
    done = subprocess.run(command, env=os.environ | limits, stdout=subprocess.PIPE, check=True)
    memory = "kept" if environment else "fresh"
    return [row | {"memory": memory} for row in json.loads(done.stdout)]


def measure(threads: int, quick: bool, sizes: bool) -> list[dict]:
    """Median time and ratio of each contestant, for each shape and pass."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    all_takers = dict(contestants(threads))
    if threads > 1:
        all_takers = {name: taker for name, taker in all_takers.items() if name not in ALONE}
    results = []
    shapes = SIZES if sizes else SHAPES
    for shape in [(3, 4, 5, 5)] if quick else shapes:
        rng = np.random.default_rng(0)
        x, dy = (rng.standard_normal(shape, np.float32) for _ in range(2))
        gamma, beta, mean = (rng.standard_normal(shape[1], np.float32) for _ in range(3))
        var = mean**2 + 1
        parameters = gamma, beta
        takers = {k: v for k, v in all_takers.items() if x.ndim == 4 or k not in IMAGES}
        training = {k: v.step(x, *parameters, dy, 1e-5) for k, v in takers.items()}
        training[FLOOR] = floor(x, threads, reads=4, copies=2)
        inference = {k: v.infer(x, mean, var, *parameters, 1e-5) for k, v in takers.items()}
        inference[FLOOR] = floor(x, threads, reads=0, copies=1)
        for name, runs in ("training", training), ("inference", inference):
            for contestant, seconds, ratio in by_turns(runs, 0.1 if quick else BUDGET):
                row = {"shape": shape, "pass": name, "threads": threads, "contestant": contestant}
                results.append(row | {"milliseconds": 1e3 * seconds, "ratio": ratio})
        print(f"{shape}, {threads} threads: done", file=sys.stderr)
    return results


def floor(x: np.ndarray, threads: int, reads: int, copies: int) -> Callable:
    """Reads x and copies it, so many times: no result of BatchNorm can be there earlier."""
    if x.nbytes < 1 << 20:  # one thread is faster than waking another
        threads = 1
    sources, targets = (np.array_split(v, threads) for v in (x.reshape(-1), np.empty(x.size, "f4")))
    pool = ThreadPoolExecutor(threads)

    def part(source: np.ndarray, target: np.ndarray) -> None:
        for _ in range(reads):
            source @ source
        for _ in range(copies):
            np.copyto(target, source)

    if threads == 1:
        return lambda: part(sources[0], targets[0])
    return lambda: list(pool.map(part, sources, targets))


def by_turns(runs: dict[str, Callable], budget: float) -> list[tuple[str, float, float]]:
    """Name, median seconds, and median ratio to torch native (to the floor without torch)."""
    repeats = {}
    for name, run in runs.items():
        run()  # what is compiled is compiled now
        start = perf_counter()
        run()
        repeats[name] = max(1, round(SAMPLE / (perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = perf_counter() + budget
    while (done := len(times[FLOOR])) < ROUNDS[0] or (done < ROUNDS[1] and perf_counter() < end):
        for name, run in random.sample(list(runs.items()), len(runs)):
            start = perf_counter()
            for _ in range(repeats[name]):
                run()
            times[name].append((perf_counter() - start) / repeats[name])
    base = np.array(times.get(NATIVE, times[FLOOR]))
    return [(k, float(np.median(v)), float(np.median(v / base))) for k, v in times.items()]


def show(record: dict) -> None:
    """One table a pass and number of threads: ratios, and milliseconds for torch native."""
    print(record["machine"], record["versions"], record["date"])
    results = record["results"]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in results))
    for name in "training", "inference":
        for threads, memory in (1, "fresh"), (2, "fresh"), (1, "kept"):
            wanted = name, threads, memory
            rows = [r for r in results if (r["pass"], r["threads"], r["memory"]) == wanted]
            cores = f"{threads} thread{'s' * (threads > 1)}"
            print(f"\n{name}, {cores}, {memory} memory: time / torch native")
            print(f"{'':26}" + "".join(f"{str(shape):>20}" for shape in shapes))
            for contestant in dict.fromkeys(row["contestant"] for row in rows):
                cells = {tuple(r["shape"]): r for r in rows if r["contestant"] == contestant}
                line = "".join(cell(cells.get(shape), contestant) for shape in shapes)
                print(f"{contestant:26}" + line)
    sizes = record["sizes"]
    rows = [row for row in sizes if row["pass"] == "training"]
    shapes = list(dict.fromkeys(tuple(row["shape"]) for row in rows))
    print("\nsizes, training, 1 thread, fresh memory: nanoseconds a value")
    print(f"{'values':26}" + "".join(f"{math.prod(shape):>12,}" for shape in shapes))
    for contestant in dict.fromkeys(row["contestant"] for row in rows):
        times = [
            r["milliseconds"] / math.prod(r["shape"]) for r in rows if r["contestant"] == contestant
        ]
        print(f"{contestant:26}" + "".join(f"{1e6 * time:>12.3g}" for time in times))
    print("\nmemory, by the floor of the largest shape")
    for threads in THREADS:
        copy, read = bandwidth([r for r in results if r["threads"] == threads])
        print(f"{threads} thread{'s' * (threads > 1)}: copy {copy:.3g} GB/s, read {read:.3g} GB/s")


def bandwidth(results: list[dict]) -> tuple[float, float]:
    """Bytes read and written in a copy, and bytes read, in 10⁹ a second."""
    floors = [r for r in results if r["contestant"] == FLOOR]
    largest = max(math.prod(r["shape"]) for r in floors)
    ms = {r["pass"]: r["milliseconds"] for r in floors if math.prod(r["shape"]) == largest}
    copy = ms["inference"]
    read = (ms["training"] - 2 * copy) / 4
    return 2 * 4e-6 * largest / copy, 4e-6 * largest / read


def cell(row: dict | None, contestant: str) -> str:
    if row is None:
        return f"{'–':>20}"
    time = f"{row['milliseconds']:.3g} ms" if contestant == NATIVE else f"{row['ratio']:.2f}"
    return f"{time:>20}"


if __name__ == "__main__":
    main()
