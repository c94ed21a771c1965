"""Sweeps: one experiment at many points, on all cores or machines, never computed twice.

Each finished point is a line of a journal, written at once. A sweep that is stopped or killed goes
on from there. joblib does the work in parallel; with its Dask backend the same call runs on
several machines.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bnlib._messages import short
from bnlib.training import progress

if TYPE_CHECKING:
    from pandas import DataFrame

Point = Mapping[str, Any]  # the arguments of one run: strings, truth values, numbers
Curve = Mapping[str, Sequence[float] | np.ndarray]  # what a run measured: columns of one length
_POLL = 10.0  # seconds between two looks at whether Dask has workers
_PATIENCE = 600.0  # seconds without one, such as a cluster takes to start some, before giving up
_Task = tuple[Any, ...]  # the arguments of `_run_one`: number, experiment, point, two contexts
_Result = tuple[int, "Curve | None", "str | None"]  # number, curve, why it failed


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
    """Every combination of the values of each axis; the last axis changes fastest.

    Args:
        axes: the values that each argument of the experiment takes.

    Returns:
        One point for each combination.
    """
    values = itertools.product(*axes.values())
    return [dict(zip(axes, combination, strict=True)) for combination in values]


def run(
    experiment: Callable[..., Curve],
    points: Sequence[Point],
    journal: Path | None = None,
    *,
    context: Callable[[], Mapping[str, Any]] | None = None,
    n_jobs: int = -1,
) -> DataFrame:
    """Run an experiment at all points, in parallel, and return what was measured.

    A point that the journal holds is not run again. What an interruption or a power cut leaves
    behind is the journal of what was finished by then: the same call goes on from it. Where the
    experiment fails at a point, by an exception or by `sys.exit`, the others are run all the same;
    Ctrl-C ends the sweep. A worker that dies, by a signal or for its memory, costs no other point
    either: those that were under way are run again at the end, one at a time, and only one whose
    worker dies then too has failed. A terminal shows a progress bar.

    Under `joblib.parallel_config(backend="dask")` the points run on the workers of the current
    Dask client; the journal stays with the caller. joblib's backend "threading" serves too. Its
    others, such as "multiprocessing" and Ray's, hand over no result before the last one.

    Args:
        experiment: called with a point as keyword arguments; a function that workers can import.
            What it returns must depend on them and on the context alone. The journal does not know
            its code: after a change, move the journal away.
        points: the arguments of each run, all with the same names. Each is a value for a cell of
            the table: a string, a truth value, or a number that is not NaN. A run gets a number of
            NumPy's as Python's.
        journal: the file that finished points go to, made when it is not there; None keeps them in
            memory alone.
        context: returns what else the results depend on, such as versions and the checksum of the
            data, to stand in each row: values as those of a point, under other names. A journal of
            another context is refused, and so is a worker.
        n_jobs: number of processes; −1 for one on each core, 1 for none but the caller's, which
            then is what a run can kill. Dask uses all its workers.

    Returns:
        A table with a row for each point of each curve, in the order of `points`: the columns of
        the point, of the curve, and of the context.

    Raises:
        TypeError: a value of a point or of the context is none that a cell can hold, or a name is
            no string.
        ValueError: such a value is NaN; there are no points, two of them are the same, or their
            names differ; the journal is damaged or of another context; joblib's backend hands over
            no result before the last one.
        RuntimeError: another process is at work on the journal, or the experiment failed at a
            point, which the message names; the journal holds the others then.
    """
    from joblib.parallel import get_active_backend

    if not points:
        raise ValueError("points is empty; expected one or more")
    here = _cells("context", context()) if context is not None else {}
    points = [_cells(f"points[{i}]", point) for i, point in enumerate(points)]
    keys = [_key(point) for point in points]
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"points: {short(twice)} is there twice; expected different points")
    if len({tuple(sorted(point)) for point in points}) > 1:
        raise ValueError("points: they have different names; expected the same in each")
    if both := set(here) & set(points[0]):
        raise ValueError(f"context has the names {sorted(both)} of points; expected others")
    backend, _ = get_active_backend()
    if not backend.supports_return_generator:
        raise ValueError(
            f"joblib's backend is {type(backend).__name__}, which hands over no result before the "
            "last one; expected loky, dask or threading"
        )
    tasks = {i: (i, experiment, point, context, here) for i, point in enumerate(points)}
    with _Journal(journal, here) as done, warnings.catch_warnings():
        # joblib replaces a worker whose memory has grown, and says so: no run is lost by it.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        todo = [i for i, key in enumerate(keys) if key not in done]
        if (client := getattr(backend, "client", None)) is None:
            work = functools.partial(_on_processes, n_jobs)
        else:
            work = functools.partial(_on_dask, client)
        failures = []
        results = _each_once(work, [tasks[i] for i in todo])
        for i, curve, failure in progress(results, len(todo), "run"):
            if curve:
                done.add(keys[i], curve)
            else:
                failures.append(failure)
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(todo)} runs failed. {failures[0]}")
        curves = [done[key] for key in keys]
    return _table(points, curves, here)


def load(name: str) -> DataFrame:
    """A record that comes with the package, as `run` returned it.

    Args:
        name: of the record, such as "learning-rate".

    Raises:
        ValueError: there is no such record.
    """
    import pandas as pd

    records = {path.name: path for path in (files("bnlib") / "records").iterdir()}
    if (path := records.get(f"{name}.csv.gz")) is None:
        raise ValueError(f"name is {short(repr(name))}; there is no such record")
    with path.open("rb") as stream:
        texts = dict.fromkeys(("numpy", "torch", "device", "data"), str)  # not numbers
        return pd.read_csv(stream, compression="gzip", dtype=texts)


def save(table: DataFrame, path: Path) -> None:
    """Write a table as gzipped CSV, whole or not at all; the same table gives the same bytes."""
    draft = path.with_name(path.name + ".new")
    table.to_csv(draft, index=False, compression={"method": "gzip", "mtime": 0})
    os.replace(draft, path)


def _cells(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A point or the context, if each value fits a cell and comes back from JSON as it was."""
    cells = {name: _plain(value) for name, value in row.items()}
    for name, value in cells.items():
        if not isinstance(name, str):
            raise TypeError(f"{where} has the name {short(repr(name))}; expected a string")
        if type(value) not in (str, bool, int, float):
            raise TypeError(
                f"{where}: {name} is {short(repr(value))}; "
                "expected a string, a truth value or a number"
            )
        if value != value:
            raise ValueError(f"{where}: {name} is NaN, which equals no other; expected a number")
    return cells


def _key(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


def _failure(error: BaseException, point: Point) -> str:
    return f"{type(error).__name__} at {short(dict(point))}: {short(error, 1000)}"


def _run_one(
    i: int,
    experiment: Callable[..., Curve],
    point: Point,
    context: Callable[[], Mapping[str, Any]] | None,
    expected: Mapping[str, Any],
) -> _Result:
    """The curve at point i, or why there is none."""
    try:
        if context is not None and context() != expected:
            raise ValueError(
                f"the worker has the context {short(context())}; expected {short(expected)}"
            )
        measured = experiment(**point)
        curve = {name: [_plain(value) for value in column] for name, column in measured.items()}
        lengths = {name: len(column) for name, column in curve.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"the curve's columns have the lengths {lengths}; expected one, not 0")
        if twice := set(curve) & {*point, *expected}:
            raise ValueError(f"the curve has the names {sorted(twice)}, which are taken")
        curve = json.loads(json.dumps(curve))  # as it comes back from the journal
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too, ends no more than its own run
        return i, {}, _failure(error, point)
    return i, curve, None


def _plain(value: Any) -> Any:
    """A NumPy number as Python's, which JSON can hold."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _each_once(
    work: Callable[[Sequence[_Task]], Iterator[_Result]], tasks: Sequence[_Task]
) -> Iterator[_Result]:
    """What the workers return. Of what one took with it, only the guilty one is lost alone, too."""
    lost = []
    for i, curve, failure in work(tasks):
        if curve is None:
            lost.append(i)
        else:
            yield i, curve, failure
    for task in tasks:
        if task[0] in lost:
            yield from work([task])


def _on_processes(n_jobs: int, tasks: Sequence[_Task]) -> Iterator[_Result]:
    """Results as they come; no curve for what was under way when a worker died."""
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    seen: set[int] = set()
    while rest := [task for task in tasks if task[0] not in seen]:
        # No more is started than there are workers: what is not back was under way.
        parallel = Parallel(
            n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs"
        )
        try:
            for i, curve, failure in parallel(delayed(_run_one)(*task) for task in rest):
                seen.add(i)
                yield i, curve, failure
        except TerminatedWorkerError as error:
            for i, _, point, *_ in rest[: parallel.n_dispatched_tasks]:
                if i not in seen:
                    seen.add(i)
                    yield i, None, _failure(error, point)


def _on_dask(client: Any, tasks: Sequence[_Task]) -> Iterator[_Result]:
    """The same from the workers of Dask, which tries a point on four of them (its setting).

    joblib itself would wait for ever: it does not hear of a point that Dask has given up. Dask in
    turn would wait for a worker, and a local cluster drops one that is not back within 15 s.
    """
    from distributed import KilledWorker, wait

    futures = {client.submit(_run_one, *task, pure=False): task for task in tasks}
    pending, seen = set(futures), time.monotonic()
    try:
        while pending:
            try:
                done, pending = wait(pending, _POLL, return_when="FIRST_COMPLETED")
            except TimeoutError:
                done = set()
            for future in done:
                try:
                    result = future.result()
                except KilledWorker as error:
                    i, _, point, *_ = futures[future]
                    result = i, None, _failure(error, point)
                yield result
            if client.nthreads():  # of each worker; none has none
                seen = time.monotonic()
            elif time.monotonic() > seen + _PATIENCE:
                raise RuntimeError(
                    f"Dask has had no worker for {_PATIENCE:g} s, and {len(pending)} points wait "
                    "for one; the journal holds the others"
                )
    finally:
        client.cancel(list(futures))


class _Journal:
    """Curves by the key of their point, and the file in which they last."""

    def __init__(self, path: Path | None, context: Mapping[str, Any]) -> None:
        self._path = path
        self._context = context
        self._curves: dict[str, Curve] = {}

    def __enter__(self) -> _Journal:
        if self._path is not None:
            from filelock import FileLock, Timeout

            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(f"{self._path}.lock")
            try:
                self._lock.acquire(timeout=0)  # it goes when the process does, killed or not
            except Timeout:
                raise RuntimeError(f"another process is at work on {self._path}") from None
            try:
                self._read(self._path)
                self._file = self._path.open("ab")
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._path is not None:
            try:
                self._file.close()
            finally:
                self._lock.release()

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        tail = content[whole:]  # of a process that ended in the middle of a line
        start = b'{"point": '
        if not tail.startswith(start[: len(tail)]):
            raise ValueError(f"{path} is not a journal: it ends with {tail[:30]!r}")
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                key, curve, context = _key(entry["point"]), entry["curve"], entry["context"]
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} is damaged: {short(error)}; without that line it "
                    "can be used"
                ) from error
            if context != self._context:
                raise ValueError(
                    f"{path}, line {number} was made with {short(context)}; expected "
                    f"{short(self._context)}. Move the file away to begin again"
                )
            self._curves[key] = curve
        if tail:
            with path.open("r+b") as file:
                file.truncate(whole)

    def add(self, key: str, curve: Curve) -> None:
        self._curves[key] = curve
        if self._path is not None:
            entry = {"point": json.loads(key), "curve": curve, "context": self._context}
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def __contains__(self, key: str) -> bool:
        return key in self._curves

    def __getitem__(self, key: str) -> Curve:
        return self._curves[key]


def _table(
    points: Sequence[Point], curves: Sequence[Curve], context: Mapping[str, Any]
) -> DataFrame:
    import pandas as pd

    tables = [
        pd.DataFrame({**point, **curve}).assign(**context)
        for point, curve in zip(points, curves, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)
