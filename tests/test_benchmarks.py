"""The benchmarks run, and what they recorded is whole."""

import json
import math
import os
import subprocess
import sys

import pytest
from conftest import ROOT

RECORDS = ROOT / "bnlib" / "records"
ACCURACY = [
    *("bnlib NumPy", "bnlib torch", "torch native", "torch.compile"),
    *("textbook steps", "closed form", "one-pass variance"),
]
SPEED = [*ACCURACY, "bnlib NumPy, out=", "floor: reads and copies"]
IMAGES = {"torch, channels last", "torch, oneDNN blocks"}
SHAPES = [(60, 100), (256, 1024), (4096, 1024), (128, 64, 28, 28), (32, 256, 56, 56)]
SHAPES += [(64, 32, 4, 4)]


def tables(name):
    """What a benchmark prints on its smallest inputs, a table a string; torch compiles nothing."""
    command = [sys.executable, ROOT / "benchmarks" / f"{name}.py", "--quick"]
    eager = os.environ | {"TORCH_COMPILE_DISABLE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=eager)
    assert done.returncode == 0, done.stderr
    machine, *found = done.stdout.split("\n\n")
    assert "cores" in machine and "torch" in machine
    return found


def test_the_accuracy_tables_hold_all_contestants():
    y, dx = tables("accuracy")
    for table in y, dx:
        _, heading, *lines = table.splitlines()
        assert all(name in heading for name in ACCURACY)
        assert any(line.startswith("mean 1e4 ") for line in lines)
    assert "inference, images" in y and "inference" not in dx


def test_the_speed_tables_hold_all_contestants():
    *found, sizes, memory = tables("speed")
    titles = [table.splitlines()[0] for table in found]
    assert [title.split(":")[0] for title in titles] == [
        f"{name}, {how} memory"
        for name in ("training", "inference")
        for how in ("1 thread, fresh", "2 threads, fresh", "1 thread, kept")
    ]
    assert memory.count("GB/s") == 4
    assert all(f"\n{name}  " in sizes for name in [*SPEED, *IMAGES])
    for table in (table for table in found if "1 thread" in table):
        assert all(f"\n{name}  " in table for name in [*SPEED, *IMAGES])


def load(name):
    record = json.loads((RECORDS / f"{name}.json").read_text())
    assert record["machine"] and record["date"] >= "2026-11"
    assert {"python", "numpy", "torch"} <= set(record["versions"])
    return record


def test_the_recorded_accuracy_keeps_the_promise():
    record = load("accuracy")
    results = record["results"]
    cases = {row["case"] for row in results}
    assert len(cases) >= 14 and {row["contestant"] for row in results} >= set(ACCURACY)
    for row in results:
        if row["contestant"].startswith("bnlib"):
            assert max(row["y"], row.get("dx", 0)) <= record["promise"], row
    assert {row["case"] for row in results if row["contestant"] == "bnlib torch"} == cases


@pytest.mark.parametrize("threads, memory", [(1, "fresh"), (2, "fresh"), (1, "kept")])
@pytest.mark.parametrize("name", ["training", "inference"])
def test_the_recorded_speed_is_whole(name, threads, memory):
    how = name, threads, memory
    results = load("speed")["results"]
    rows = [r for r in results if (r["pass"], r["threads"], r["memory"]) == how]
    alone = {"textbook steps", "closed form", "one-pass variance"}  # these have one thread
    for shape in SHAPES:
        of_shape = {r["contestant"]: r for r in rows if tuple(r["shape"]) == shape}
        assert set(of_shape) >= set(SPEED) - (alone if threads == 2 else set())
        assert (
            of_shape["torch native"]["ratio"] == 1 and set(of_shape) >= IMAGES
            if len(shape) == 4
            else not IMAGES & set(of_shape)
        )
        assert all(r["milliseconds"] > 0 for r in of_shape.values())


@pytest.mark.parametrize("name", [*SPEED, *sorted(IMAGES)])
def test_the_recorded_sizes_go_from_a_cache_to_memory(name):
    rows = [r for r in load("speed")["sizes"] if (r["pass"], r["contestant"]) == ("training", name)]
    values = [math.prod(row["shape"]) for row in rows]
    assert len(values) >= 6 and values == sorted(values)
    assert values[0] < 3e3 and values[-1] > 6e7
