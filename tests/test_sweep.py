"""bnlib.sweep: every point once, whatever happens in between."""

import json
import os
import re
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
    table = sweep.run(square, sweep.grid(x=[5, 1]), context=lambda: {"version": "7"}, n_jobs=2)
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
    with pytest.raises(
        RuntimeError, match=r"1 of 6 .* ValueError at \{'x': 3\}: three is too many"
    ):
        sweep.run(fails_at_3, points, journal, n_jobs=2)
    kept = journal.read_text().splitlines()
    assert {json.loads(line)["point"]["x"] for line in kept} == {0, 1, 2, 4, 5}
    assert len(sweep.run(square, points, journal, n_jobs=2)) == 18
    assert journal.read_text().splitlines()[:5] == kept


@pytest.mark.parametrize(
    "curve, message",
    [
        ({"step": [0, 1], "value": [1]}, "the curve's columns have the lengths"),
        ({"step": [], "value": []}, "expected one, not 0"),
        ({"step": [0], "x": [9]}, r"the curve has the names \['x'\], which are taken"),
        ({"step": [0], "value": [object()]}, "not JSON serializable"),
        ({"step": 3}, "not iterable"),
    ],
)
def test_a_bad_curve_is_named_and_not_kept(tmp_path, curve, message):
    journal = tmp_path / "journal"
    with pytest.raises(RuntimeError, match=rf"at \{{'x': 1\}}: .*{message}"):
        sweep.run(lambda x: curve, [{"x": 1}], journal, n_jobs=1)
    assert journal.read_text() == ""


def kinds(**point):
    return {"kind": [type(value).__name__ for value in point.values()]}


def test_a_number_of_numpys_is_pythons_in_run_table_and_journal(tmp_path):
    point = {
        "n": np.int64(3),
        "lr": np.float32(0.5),
        "bn": np.bool_(True),
        "net": np.str_("MLP"),
        "clip": np.float64("inf"),
        "size": np.array(8),
    }
    context = {"version": np.int64(7)}
    journal = tmp_path / "journal"
    first = sweep.run(kinds, [point], journal, context=lambda: context, n_jobs=2)
    assert list(first["kind"]) == ["int", "float", "bool", "str", "float", "int"]
    plain = {name: value.item() for name, value in point.items()}
    again = sweep.run(None, [plain], journal, context=lambda: {"version": 7}, n_jobs=1)  # no run
    pd.testing.assert_frame_equal(again, first, check_exact=True)
    assert dict(first.iloc[0].drop("kind")) == {**plain, "version": 7}


@pytest.mark.parametrize("where", ["points", "context"])
@pytest.mark.parametrize(
    "value, error, message",
    [
        ([8, 16], TypeError, r"v is \[8, 16\]; expected a string, a truth value or a number"),
        ((1, 2), TypeError, r"v is \(1, 2\); expected"),
        (np.array([3]), TypeError, r"v is array\(\[3\]\); expected"),
        (Path("data"), TypeError, r"v is \w+Path\('data'\); expected"),
        (None, TypeError, "v is None; expected"),
        (1j, TypeError, "v is 1j; expected"),
        ([0] * 10**6, TypeError, r"v is \[0, 0, 0, 0,.* … .* 0\]; expected"),
        (float("nan"), ValueError, "v is NaN"),
        (np.float32("nan"), ValueError, "v is NaN"),
    ],
)
def test_a_value_that_no_cell_holds_is_refused_before_anything_runs(
    tmp_path, where, value, error, message
):
    log, journal = tmp_path / "log", tmp_path / "journal"
    points = sweep.grid(x=[1, 2], log=[str(log)])
    context = {}
    wrong, name = (points[1], r"points\[1\]") if where == "points" else (context, where)
    wrong["v"] = value
    with pytest.raises(error, match=f"^{name}: {message}"):
        sweep.run(square, points, journal, context=lambda: context, n_jobs=1)
    assert not log.exists() and not journal.exists()


def nested(x):
    return {1: [(x, 2), [3]], "loss": [None, float("inf")]}


def test_a_curve_is_the_same_from_a_run_and_from_the_journal(tmp_path):
    points, journal = sweep.grid(x=[1, 2]), tmp_path / "journal"
    first = sweep.run(nested, points, journal, n_jobs=2)
    again = sweep.run(nested, points, journal, n_jobs=1)
    pd.testing.assert_frame_equal(first, again)
    assert list(first.columns) == ["x", "1", "loss"] and first["1"][0] == [1, 2]


def exits_at_3(x):
    if x == 3:
        sys.exit(0)
    return square(x)


def interrupted_at_3(x):
    if x == 3:
        raise KeyboardInterrupt
    return square(x)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_sys_exit_in_a_run_ends_no_more_than_the_run(tmp_path, n_jobs):
    journal = tmp_path / "journal"
    with pytest.raises(RuntimeError, match=r"1 of 5 .* SystemExit at \{'x': 3\}: 0"):
        sweep.run(exits_at_3, sweep.grid(x=list(range(5))), journal, n_jobs=n_jobs)
    assert count(journal) == 4


def test_an_interrupt_ends_the_sweep_and_what_is_finished_is_kept(tmp_path):
    journal = tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt):
        sweep.run(interrupted_at_3, sweep.grid(x=list(range(5))), journal, n_jobs=1)
    assert count(journal) == 3


def test_a_torn_last_line_is_dropped(tmp_path):
    points, journal = sweep.grid(x=[1, 2]), tmp_path / "journal"
    whole = sweep.run(square, points, journal, n_jobs=1)
    content = journal.read_bytes()
    for cut in 1, len(content.splitlines()[-1]):
        journal.write_bytes(content[:-cut])
        pd.testing.assert_frame_equal(sweep.run(square, points, journal, n_jobs=1), whole)
        assert journal.read_bytes() == content


@pytest.mark.parametrize("content", ['{"my": "precious data"}', '{"point": 1}\nmine'])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="is not a journal"):
        sweep.run(square, sweep.grid(x=[1]), path, n_jobs=1)
    assert path.read_text() == content


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


def test_a_journal_of_another_context_is_refused_and_left_alone(tmp_path):
    points, journal = sweep.grid(x=[1]), tmp_path / "journal"
    sweep.run(square, points, journal, context=lambda: {"data": "a"}, n_jobs=1)
    journal.write_bytes(journal.read_bytes() + b'{"point": {"x"')  # and torn
    before = journal.read_bytes()
    with pytest.raises(ValueError, match=r"made with \{'data': 'a'\}; expected \{'data': 'b'\}"):
        sweep.run(square, points, journal, context=lambda: {"data": "b"}, n_jobs=1)
    assert journal.read_bytes() == before


def test_a_worker_of_another_context_is_refused():
    with pytest.raises(RuntimeError, match="the worker has the context .*; expected"):
        sweep.run(square, sweep.grid(x=[1]), context=lambda: {"process": os.getpid()}, n_jobs=2)


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
        ([{"x": 1}, {"x": np.int64(1)}], 'points: {"x": 1} is there twice'),
        ([{"x": 1}, {"y": 2}], "points: they have different names"),
        ([{3: 1}], "points[0] has the name 3; expected a string"),
        ([{"x": 1, "version": 2}], "context has the names ['version'] of points"),
        ([], "points is empty"),
    ],
)
def test_bad_points(points, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        sweep.run(square, points, context=lambda: {"version": 1}, n_jobs=1)


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
    points = sweep.grid(x=list(range(80)), folder=[str(folder)])
    table = sweep.run(slow.run, points, folder / "journal", context=slow.context, n_jobs=2)
    sweep.save(table.drop(columns="folder"), folder / "record.csv.gz")
"""
SLOW = """
import os, time
import numpy as np

def context():
    return {"v": 1}

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
    assert 20 <= len(computed) < 80
    subprocess.run([*command, killed], check=True)
    assert (killed / "record.csv.gz").read_bytes() == (undisturbed / "record.csv.gz").read_bytes()
    assert count(journal) == 80


def whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def count(path: Path) -> int:
    return len(whole_lines(path))


def dies(x, deadly, folder):
    """At one point the worker ends, at another one only the first time."""
    started = Path(folder) / str(x)
    first = not started.exists()
    started.touch()
    if x == deadly or (x == 1 and first):
        os._exit(0)
    return square(x)


def check_that_only_the_deadly_point_is_lost(folder):
    """For two points: the first, beside which all the others wait, and one in the middle."""
    for deadly in 0, 5:
        starts, journal = folder / f"starts of {deadly}", folder / f"journal of {deadly}"
        starts.mkdir()
        points = sweep.grid(x=list(range(8)), deadly=[deadly], folder=[str(starts)])
        with pytest.raises(RuntimeError, match=rf"1 of 8 runs .* at \{{'x': {deadly}, 'deadly'"):
            sweep.run(dies, points, journal, n_jobs=3)
        kept = {json.loads(line)["point"]["x"] for line in whole_lines(journal)}
        assert kept == set(range(8)) - {deadly}
        # After the cause is gone, only what failed is run.
        table = sweep.run(square_of_three, points, journal, n_jobs=2)
        assert list(table["value"]) == [x * step for x in range(8) for step in range(3)]


def square_of_three(x, deadly, folder):
    assert x == deadly
    return square(x)


def test_a_worker_that_dies_costs_no_other_point(tmp_path):
    check_that_only_the_deadly_point_is_lost(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by a POSIX signal")
def test_a_worker_killed_by_a_signal_is_named_with_it():
    with pytest.raises(RuntimeError, match=r"(?s)TerminatedWorkerError at \{'x': 3\}: .*SIGKILL"):
        sweep.run(killed_at_3, sweep.grid(x=[2, 3, 4]), n_jobs=2)


def killed_at_3(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def test_a_backend_that_hands_over_no_result_is_refused_before_anything_runs(tmp_path):
    log = tmp_path / "log"
    points = sweep.grid(x=[1, 2], log=[str(log)])
    message = "joblib's backend is MultiprocessingBackend, .*; expected loky, dask or threading"
    with joblib.parallel_config("multiprocessing"), pytest.raises(ValueError, match=message):
        sweep.run(square, points, n_jobs=2)
    assert not log.exists()


def test_the_threading_backend():
    with joblib.parallel_config("threading"):
        table = sweep.run(where, sweep.grid(x=[1, 2]), n_jobs=2)
    assert set(table["pid"]) == {os.getpid()}


def where(x):
    return {"step": [0], "pid": [os.getpid()]}


def test_a_dask_worker_that_dies_costs_no_other_point(tmp_path):
    import cloudpickle
    import dask
    from distributed import Client, LocalCluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    settings = {
        "distributed.scheduler.allowed-failures": 1,  # by default 3: slower
        "distributed.deploy.lost-worker-timeout": "1h",  # by default 15 s: too short beside a load
    }
    with (
        dask.config.set(settings),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        check_that_only_the_deadly_point_is_lost(tmp_path)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_sweep_does_not_wait_for_ever_for_a_dask_worker(monkeypatch):
    from distributed import Client, LocalCluster

    monkeypatch.setattr(sweep, "_POLL", 0.1)
    monkeypatch.setattr(sweep, "_PATIENCE", 0.3)
    message = "Dask has had no worker for 0.3 s, and 2 points wait for one"
    with (
        LocalCluster(n_workers=0, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
        pytest.raises(RuntimeError, match=message),
    ):
        sweep.run(square, sweep.grid(x=[1, 2]))


def test_a_local_dask_cluster_of_two_workers_gives_the_same_table(tmp_path, monkeypatch):
    """As on several machines: workers are processes of their own, which import what they run."""
    import cloudpickle
    from distributed import Client, LocalCluster

    monkeypatch.setenv("BNLIB_DATA", "embedded")
    experiments.digits.cache_clear()
    points = sweep.grid(
        net=["sigmoid MLP"],
        depth=[1],
        batch_norm=[False, True],
        lr=[0.1, 1.0],
        seed=[0, 1],
        steps=[20],
        every=[10],
    )
    here = sweep.run(experiments.train, points, context=experiments.context, n_jobs=1)
    experiments.digits.cache_clear()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests
    journal = tmp_path / "journal"
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        there = sweep.run(experiments.train, points, journal, context=experiments.context)
        workers = set(client.run(os.getpid).values())
        pids = set(sweep.run(where, sweep.grid(x=list(range(40))))["pid"])
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert len(workers) == 2 and os.getpid() not in workers
    assert pids == workers
    pd.testing.assert_frame_equal(there, here, rtol=1e-4)
    assert count(journal) == len(points)


def test_a_record_comes_back_as_it_was_saved(tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    monkeypatch.setattr(sweep, "files", lambda package: tmp_path)
    context = {"numpy": "2.10", "torch": "2.6", "device": "cpu", "data": "1234567890123e45"}
    points = sweep.grid(net=["MLP"], deep=[True, False], x=[0.1 + 0.2], seed=[3])
    table = sweep.run(noise, points, context=lambda: context, n_jobs=1)
    sweep.save(table, tmp_path / "records" / "mine.csv.gz")
    pd.testing.assert_frame_equal(sweep.load("mine"), table, check_exact=True)


def noise(net, deep, x, seed):
    return {"step": range(50), "loss": np.r_[np.nan, np.random.default_rng(seed).normal(size=49)]}
