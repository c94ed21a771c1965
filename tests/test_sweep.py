"""bnlib.sweep: every point once, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from bnlib import experiments, sweep


def square(x, log=None):
    """An experiment: a curve of three steps; each call leaves a line in the log."""
    if log is not None:
        with open(log, "a") as file:
            file.write(f"{x}\n")
    return {"step": np.arange(3), "value": x * np.arange(3.0)}


def fails_at_3(x):
    if x == 3:
        raise ValueError("three is too many")
    return square(x)


def test_grid_is_every_combination():
    assert sweep.grid(a=[1, 2], b="xy") == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]


def test_the_table_has_point_curve_and_context_in_order():
    table = sweep.run(square, sweep.grid(x=[5, 1]), context={"version": "7"}, n_jobs=2)
    expected = pd.DataFrame(
        {
            "x": [5, 5, 5, 1, 1, 1],
            "step": [0, 1, 2] * 2,
            "value": [0.0, 5, 10, 0, 1, 2],
            "version": "7",
        }
    )
    pd.testing.assert_frame_equal(table, expected)


def test_a_finished_point_is_not_run_again(tmp_path):
    log, journal = tmp_path / "log", tmp_path / "new folder" / "journal"
    points = sweep.grid(x=list(range(6)), log=[str(log)])
    first = sweep.run(square, points[:4], journal, n_jobs=1)
    assert len(first) == 12
    again = sweep.run(square, points, journal, n_jobs=2)
    assert sorted(log.read_text().split()) == list("012345")
    pd.testing.assert_frame_equal(again, sweep.run(square, points, n_jobs=1))


def test_what_is_not_finite_comes_back_from_the_journal(tmp_path):
    points = [{"x": float("1e308")}]
    journal = tmp_path / "journal"
    with np.errstate(over="ignore"):
        first = sweep.run(overflow, points, journal, n_jobs=1)
    pd.testing.assert_frame_equal(first, sweep.run(overflow, points, journal, n_jobs=1))
    assert np.isnan(first["value"][0]) and np.isinf(first["value"][1])


def overflow(x):
    return {"step": [0, 1], "value": np.array([np.nan, x]) * 10}


def test_an_error_names_the_point_and_loses_no_other(tmp_path):
    points, journal = sweep.grid(x=list(range(6))), tmp_path / "journal"
    with pytest.raises(RuntimeError, match=r"ValueError at \{'x': 3\}: three is too many"):
        sweep.run(fails_at_3, points, journal, n_jobs=1)
    kept = journal.read_text().splitlines()
    assert len(kept) == 3
    assert len(sweep.run(square, points, journal, n_jobs=1)) == 18
    assert journal.read_text().splitlines()[:3] == kept


def test_a_torn_last_line_is_dropped(tmp_path):
    points, journal = sweep.grid(x=[1, 2]), tmp_path / "journal"
    whole = sweep.run(square, points, journal, n_jobs=1)
    content = journal.read_bytes()
    for cut in 1, len(content.splitlines()[-1]):
        journal.write_bytes(content[:-cut])
        pd.testing.assert_frame_equal(sweep.run(square, points, journal, n_jobs=1), whole)
        assert journal.read_bytes() == content


@pytest.mark.parametrize("line", ["{", "[]", '{"point": {"x": 1}}', "\0\0\0"])
def test_a_damaged_line_is_named_and_nothing_changed(tmp_path, line):
    points, journal = sweep.grid(x=[1, 2]), tmp_path / "journal"
    sweep.run(square, points, journal, n_jobs=1)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], line, lines[1]]) + "\n")
    before = journal.read_bytes()
    with pytest.raises(ValueError, match="line 2 is damaged"):
        sweep.run(square, points, journal, n_jobs=1)
    assert journal.read_bytes() == before


def test_a_journal_of_another_context_is_refused(tmp_path):
    points, journal = sweep.grid(x=[1]), tmp_path / "journal"
    sweep.run(square, points, journal, context={"data": "a"}, n_jobs=1)
    with pytest.raises(ValueError, match=r"made with \{'data': 'a'\}; expected \{'data': 'b'\}"):
        sweep.run(square, points, journal, context={"data": "b"}, n_jobs=1)


def test_two_sweeps_at_one_journal(tmp_path):
    from filelock import FileLock

    journal = tmp_path / "journal"
    with FileLock(f"{journal}.lock"), pytest.raises(RuntimeError, match="another process"):
        sweep.run(square, sweep.grid(x=[1]), journal, n_jobs=1)
    assert not journal.exists()
    sweep.run(square, sweep.grid(x=[1]), journal, n_jobs=1)


@pytest.mark.parametrize(
    "points, message",
    [
        ([{"x": 1}, {"x": 2}, {"x": 1}], 'points: {"x": 1} is there twice'),
        ([{"x": 1}, {"y": 2}], "different names"),
        ([], "points is empty"),
    ],
)
def test_bad_points(points, message):
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        sweep.run(square, points, n_jobs=1)


def test_a_saved_table_is_the_same_bytes_and_never_half_there(tmp_path, monkeypatch):
    table = sweep.run(square, sweep.grid(x=[0.1, 1 / 3]), n_jobs=1)
    path = tmp_path / "table.csv.gz"
    sweep.save(table, path)
    content = path.read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(path), table)
    time.sleep(1.1)  # a gzip file would hold the second it was made in
    sweep.save(table, path)
    assert path.read_bytes() == content

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep.save(table[:1], path)
    assert path.read_bytes() == content


def test_an_unknown_record():
    with pytest.raises(ValueError, match="name is 'nonsense'; there is no such record"):
        sweep.load("nonsense")


# A sweep that can be killed: each run takes a while, and says when it starts.
SCRIPT = """
import sys, time
from pathlib import Path
from bnlib import sweep
import slow

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    points = sweep.grid(x=list(range(40)), folder=[str(folder)])
    table = sweep.run(slow.run, points, folder / "journal", context={"v": 1}, n_jobs=2)
    sweep.save(table.drop(columns="folder"), folder / "record.csv.gz")
"""
SLOW = """
import os, time
import numpy as np

def run(x, folder):
    with open(os.path.join(folder, "starts"), "a") as file:
        file.write(f"{x}\\n")
    time.sleep(0.1)
    return {"step": range(5), "value": np.random.default_rng(x).normal(size=5)}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a POSIX signal")
def test_killed_ten_times_it_gives_the_same_record(tmp_path):
    """Killed with all its workers, at any moment: nothing finished is lost or computed again."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "script.py")]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    subprocess.run([*command, undisturbed], check=True)
    journal, starts = killed / "journal", killed / "starts"
    rng = np.random.default_rng(0)
    computed = set()
    for _ in range(10):
        lines, started = count(journal), count(starts)
        process = subprocess.Popen([*command, killed], start_new_session=True)
        while count(journal) < lines + 2:  # it got on by two points or more
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not computed & {int(x) for x in starts.read_text().split()[started:]}
        computed = {json.loads(line)["point"]["x"] for line in whole_lines(journal)}
    assert 20 <= len(computed) < 40
    subprocess.run([*command, killed], check=True)
    assert (killed / "record.csv.gz").read_bytes() == (undisturbed / "record.csv.gz").read_bytes()
    assert count(journal) == 40


def whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def count(path: Path) -> int:
    return len(whole_lines(path))


def test_a_local_dask_cluster_of_two_workers_gives_the_same_table(tmp_path, monkeypatch):
    """As on several machines: workers are processes of their own, which import what they run."""
    from distributed import Client, LocalCluster

    monkeypatch.setenv("BNLIB_DATA", "embedded")
    points = sweep.grid(
        net=["sigmoid MLP"],
        depth=[1],
        batch_norm=[False, True],
        lr=[0.1, 1.0],
        seed=[0, 1],
        steps=[20],
        every=[10],
    )
    here = sweep.run(experiments.train, points, n_jobs=2)
    journal = tmp_path / "journal"
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        there = sweep.run(experiments.train, points, journal)
        used = [w for w, keys in client.has_what().items()]
        pids = set(client.run(os.getpid).values())
    assert len(used) == len(pids) == 2 and os.getpid() not in pids
    pd.testing.assert_frame_equal(there, here, rtol=1e-4)
    assert count(journal) == len(points)
