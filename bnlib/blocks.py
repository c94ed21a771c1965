"""How a mini-batch is gone through: in strips of channels and ranges of rows, by several threads.

What goes over memory are `sums` and `write_y` or `write_dx`. Numba compiles them where it is there
(`bnlib.compiled`), else NumPy does the work (`bnlib.interpreted`): such a module is an *engine*.

A strip is one channel where channels are large, else some channels side by side. Where a strip
fits into the cache, what was read for its sums is still there when it is normalized. Where none
does, rows are read from end to end, for memory is slow in small pieces.

The cuts do not depend on the number of threads, and sums of ranges are added in their order: any
number of threads gives the same bits.

Source: chapter "Fast on the CPU".
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bnlib import formulas, interpreted
from bnlib._messages import short

_PIECE = 512  # positions from which on a strip is a single channel
_CACHE = 1 << 19  # bytes of a strip that stay in the cache
_ROW = 4096  # values of a row of a strip, at most
_RANGES, _ROWS = 16, 256  # ranges of rows at most, and rows of a range at least
_ALONE = 1 << 16  # values up to which one thread is faster than waking another


def work_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype to compute in: float32 for float16, else the same."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def filled(v: np.ndarray | None, value: float, x: np.ndarray) -> np.ndarray:
    """v, or where there is none as many times the value as x has channels."""
    return _constant(value, x.shape[1], work_dtype(x.dtype)) if v is None else v


@functools.lru_cache(64)
def _constant(value: float, channels: int, dtype: np.dtype) -> np.ndarray:
    return np.full(channels, value, dtype)


class Layout(NamedTuple):
    """How arrays `(N, C, *spatial)` lie in memory, and how they are cut.

    Attributes:
        axes: the axes in the order of memory, or None where they are so.
        shape: (B, C, S): these axes, merged.
        channels: of a strip.
        rows: of a range.
    """

    axes: tuple[int, ...] | None
    shape: tuple[int, int, int]
    channels: int
    rows: int

    def view(self, v: np.ndarray) -> np.ndarray:
        """(B, C, S), a view unless the axes of v cannot be merged."""
        return (v if self.axes is None else v.transpose(self.axes)).reshape(self.shape)


@functools.lru_cache(1024)
def layout(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> Layout:
    """That of an array."""
    steps = [abs(s) if n > 1 else 0 for s, n in zip(strides, shape, strict=True)]
    if shape[1] == 1:
        steps[1] = max(steps) + 1  # one channel: all the rest are positions
    axes = sorted(range(len(shape)), key=lambda i: -steps[i])
    sizes, channel = [shape[i] for i in axes], axes.index(1)
    b, c, s = math.prod(sizes[:channel]), shape[1], math.prod(sizes[channel + 1 :])
    fit = _CACHE // max(1, b * itemsize)  # values of a row of a strip that stays in the cache
    channels = 1 if s > _PIECE else max(1, min(c, (fit if fit >= _PIECE else _ROW) // max(1, s)))
    rows = max(_ROWS, -(-b // (4 * _RANGES)) * 4)
    return Layout(None if axes == sorted(axes) else tuple(axes), (b, c, s), channels, rows)


# What overflows or is no number says so in the result.
_silent = np.errstate(over="ignore", invalid="ignore", divide="ignore")


@functools.cache
def engine() -> tuple[ModuleType, str]:
    """The module that computes, and why it is this one."""
    try:
        from bnlib import compiled
    except Exception as error:  # whatever it is, NumPy will do
        return interpreted, f"Numba cannot be used here: {short(str(error))}"
    return compiled, "Numba compiles the loops"


class Statistics(NamedTuple):
    """What a forward pass knows of each channel: (C,), float64. The mean is near + rest."""

    near: np.ndarray
    rest: np.ndarray
    var: np.ndarray
    inv_std: np.ndarray


@_silent
def train(
    x: np.ndarray,
    gamma: np.ndarray,
    beta: np.ndarray,
    eps: float,
    y: np.ndarray,
    threads: int,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> Statistics:
    """y = BN(x) + residual, and with relu max(0, ·) of it; y may not share memory with x.

    Args:
        x: mini-batch, (N, C) or (N, C, …), float16, float32 or float64.
        gamma: scale, (C,).
        beta: shift, (C,).
        eps: added to the variance, in units of x².
        y: where to write, of x's shape and dtype.
        threads: how many threads to use; any number gives the same bits.
        residual: of x's shape and dtype, or None.
        relu: whether to end with max(0, ·).

    Returns:
        The statistics.

    Source: Ioffe & Szegedy 2015, algorithm 1; `bnlib.formulas`.
    """
    add = residual is not None
    if not x.size:
        none = np.zeros(x.shape[1])
        return Statistics(none, none, none, none + eps**-0.5)
    sweeps = _Sweeps([x, x if residual is None else residual, y], 1, threads)
    stats = Statistics(*np.empty((4, x.shape[1])))
    module, _ = engine()
    near, rest, var, inv_std = stats
    if hasattr(module, "train") and sweeps.plain and not sweeps.by_rows:
        sweeps.in_one(module.train, gamma, beta, *stats, eps, add=add, relu=relu)
        return stats

    def strip(part: slice) -> None:
        sweeps.moments(module.sums, part, near, rest, var)
        inv_std[part] = 1 / np.sqrt(var[part] + eps)
        a = inv_std[part] * gamma[part]
        vectors = near[part], rest[part], a, beta[part].astype(np.float64)
        sweeps.write(module.write_y, part, vectors, add, relu)

    sweeps.each_strip(strip)
    sweeps.finish()
    return stats


@_silent
def backward(
    x: np.ndarray,
    dy: np.ndarray,
    gamma: np.ndarray,
    stats: Statistics,
    dx: np.ndarray,
    threads: int,
    y: np.ndarray | None = None,
    dz: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """What `train` did, backward.

    Args:
        x: as in `train`.
        dy: derivative with respect to y, of x's shape and dtype.
        gamma: as in `train`.
        stats: what `train` returned.
        dx: where to write the derivative with respect to x.
        threads: how many threads to use.
        y: what `train` wrote, where it ended with a ReLU, else None.
        dz: where to write what the ReLU lets by, the derivative of the residual; or None.

    Returns:
        dγ and dβ, (C,), float64.

    Source: Ioffe & Szegedy 2015, section 3; `bnlib.formulas`.
    """
    relu, keep = y is not None, dz is not None
    if not x.size:
        return np.zeros(x.shape[1]), np.zeros(x.shape[1])
    module, _ = engine()
    arrays = [x, dy, x if y is None else y, x if dz is None else dz, dx]
    sweeps = _Sweeps(arrays, 1 + keep, threads)
    dgamma, dbeta = np.empty((2, x.shape[1]))
    near, rest, _, inv_std = stats
    if hasattr(module, "backward") and sweeps.plain and not sweeps.by_rows:
        sweeps.in_one(
            module.backward, gamma, near, rest, inv_std, dgamma, dbeta, relu=relu, keep=keep
        )
        return dgamma, dbeta
    m = x.size // x.shape[1]

    def strip(part: slice) -> None:
        dbeta[part], products = sweeps.sum(module.sums, part, near, True, relu)
        b, c, dgamma[part] = formulas.dx_factors(
            dbeta[part], products, rest[part], inv_std[part], m
        )
        vectors = near[part], rest[part], b, c, inv_std[part] * gamma[part]
        sweeps.write(module.write_dx, part, vectors, relu, keep)

    sweeps.each_strip(strip)
    sweeps.finish()
    return dgamma, dbeta


# The same in two halves, for where others have a say in what the sums decide.


@_silent
def statistics(x: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of each channel, (C,), float64; x is not empty."""
    sweeps = _Sweeps([x, x, x], 0, threads)
    module, _ = engine()
    near, rest, var = np.empty((3, x.shape[1]))
    sweeps.each_strip(lambda part: sweeps.moments(module.sums, part, near, rest, var))
    return near + rest, var


@_silent
def backward_sums(x: np.ndarray, dy: np.ndarray, mean: np.ndarray, threads: int) -> np.ndarray:
    """Σ dy and Σ dy·(x − mean) of each channel, (2, C), float64; x is not empty."""
    sweeps = _Sweeps([x, dy, x], 0, threads)
    module, _ = engine()
    total = np.empty((2, x.shape[1]))

    def strip(part: slice) -> None:
        total[:, part] = sweeps.sum(module.sums, part, mean, True, False)

    sweeps.each_strip(strip)
    return total


@_silent
def gradient(
    x: np.ndarray,
    dy: np.ndarray,
    mean: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    a: np.ndarray,
    dx: np.ndarray,
    threads: int,
) -> None:
    """dx = ((x − mean)·b + dy + c)·a, with factors (C,), float64; x is not empty."""
    sweeps = _Sweeps([x, dy, x, x, dx], 1, threads, whole=True)
    module, _ = engine()
    vectors = mean, np.zeros_like(mean), b, c, a
    sweeps.write(module.write_dx, slice(0, x.shape[1]), vectors, False, False)
    sweeps.finish()


@_silent
def inference(
    x: np.ndarray,
    mean: np.ndarray,
    a: np.ndarray,
    beta: np.ndarray,
    y: np.ndarray,
    threads: int,
    residual: np.ndarray | None = None,
    relu: bool = False,
) -> None:
    """y = (x − mean)·a + beta + residual, and with relu max(0, ·) of it; y may be x itself.

    Args:
        x: as in `train`.
        mean: (C,), float64.
        a: γ/√(σ² + ε), (C,), float64.
        beta: (C,), float64.
        y: where to write, of x's shape and dtype.
        threads: how many threads to use.
        residual: of x's shape and dtype, or None.
        relu: whether to end with max(0, ·).

    Source: Ioffe & Szegedy 2015, algorithm 2.
    """
    if not x.size:
        return
    module, _ = engine()
    sweeps = _Sweeps([x, x if residual is None else residual, y], 1, threads, whole=True)
    vectors = mean, np.zeros_like(mean), a, beta
    sweeps.write(module.write_y, slice(0, x.shape[1]), vectors, residual is not None, relu)
    sweeps.finish()


class _Sweeps:
    """Arrays that are gone through together, in the layout of the first one.

    Args:
        arrays: x, what else is read, and at the end what is written.
        written: how many are written, at the end of arrays.
        threads: how many threads to use.
        whole: whether no sums are needed, so that ranges of rows may be as small as one likes.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], written: int, threads: int, whole: bool = False
    ) -> None:
        x, self.results = arrays[0], arrays[len(arrays) - written :]
        self.layout = layout(x.shape, x.strides, x.itemsize)
        views = {id(v): self.layout.view(v if v.flags.writeable else _unlocked(v)) for v in arrays}
        self.arrays = [views[id(v)] for v in arrays]
        self.threads = threads if x.size > _ALONE else 1
        self.work = work_dtype(x.dtype)
        self.plain = x.dtype == self.work and all(v.flags.c_contiguous for v in self.arrays)
        b, c, size = self.layout.shape
        self.rows = self.layout.rows
        if whole:
            copied = b if self.plain else max(1, _CACHE // (c * size * self.work.itemsize))
            self.rows = min(-(-b // self.threads), copied)
        few = whole or c < 2 * self.layout.channels * self.threads
        self.by_rows = self.rows < b and few and (self.threads > 1 or not self.plain)

    def finish(self) -> None:
        """Bring home the results of which there was no view."""
        for v, made in zip(self.results, self.arrays[-len(self.results) :], strict=True):
            if not np.may_share_memory(v, made):
                ordered = v if self.layout.axes is None else v.transpose(self.layout.axes)
                ordered[...] = made.reshape(ordered.shape)

    def in_one(self, function: Callable[..., Any], *vectors: Any, **flags: bool) -> None:
        """function, which takes strips and ranges by itself, for all channels, in threads."""
        c, step = self.layout.shape[1], self.layout.channels
        share = -(-c // (step * self.threads)) * step

        def run(first: int) -> None:
            last = min(first + share, c)
            function(*self.arrays, *vectors, step, self.rows, first, last, *flags.values())

        _in_threads(run, range(0, c, share), self.threads)
        self.finish()

    def moments(
        self,
        sums: Callable[..., Any],
        part: slice,
        near: np.ndarray,
        rest: np.ndarray,
        var: np.ndarray,
    ) -> None:
        """K, what the mean is beyond it, and the variance of the channels of a strip."""
        b, _, size = self.layout.shape
        near[part] = self.arrays[0][0, part, 0]
        for again in range(1 + (self.work == np.float64)):  # which has no digits to spare
            if again:
                near[part] += rest[part]
            sum_d, sum_d2 = self.sum(sums, part, near, False, False)
            rest[part], var[part] = formulas.moments(sum_d, sum_d2, b * size)

    def each_strip(self, function: Callable[[slice], None]) -> None:
        """function(channels) for each strip."""
        c, step = self.layout.shape[1], self.layout.channels
        strips = [slice(i, min(i + step, c)) for i in range(0, c, step)]
        _in_threads(function, strips, 1 if self.by_rows else self.threads)

    def sum(
        self, function: Callable[..., Any], part: slice, near: np.ndarray, *flags: bool
    ) -> np.ndarray:
        """The sums of a strip over all rows, (2, channels)."""

        def one(rows: slice) -> np.ndarray:
            arrays, span = self._cut(part, rows)
            sums: np.ndarray = function(*arrays[:3], near[part], *span, *flags)
            return sums

        return functools.reduce(np.add, self._ranges(one))

    def write(
        self, function: Callable[..., Any], part: slice, vectors: Iterable[Any], *flags: bool
    ) -> None:
        """Write a strip."""
        vectors = list(vectors)

        def one(rows: slice) -> None:
            arrays, span = self._cut(part, rows)
            function(*arrays, *vectors, *span, *flags)
            if not self.plain:
                n = len(self.results)
                for v, made in zip(self.arrays[-n:], arrays[-n:], strict=True):
                    v[rows, part] = made

        self._ranges(one)

    def _ranges(self, function: Callable[[slice], Any]) -> list[Any]:
        b = self.layout.shape[0]
        ranges = [slice(i, min(i + self.rows, b)) for i in range(0, b, self.rows)]
        return _in_threads(function, ranges, self.threads if self.by_rows else 1)

    def _cut(self, part: slice, rows: slice) -> tuple[list[np.ndarray], tuple[int, ...]]:
        """The arrays, and the channels and rows in them; copies of these where it must be."""
        if self.plain:
            return self.arrays, (part.start, part.stop, rows.start, rows.stop)
        different = {id(v): v for v in self.arrays}  # x also stands where nothing is needed
        made = {i: np.ascontiguousarray(v[rows, part], self.work) for i, v in different.items()}
        span = 0, part.stop - part.start, 0, rows.stop - rows.start
        return [made[id(v)] for v in self.arrays], span


def _unlocked(v: np.ndarray) -> np.ndarray:
    """The same memory as if it could be written to, which Numba takes for another type."""
    interface = v.__array_interface__ | {"data": (v.__array_interface__["data"][0], False)}
    return np.asarray(SimpleNamespace(__array_interface__=interface, of=v))


def _in_threads(function: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """[function(item) for item in items], in order."""
    threads = min(threads, len(items))
    if threads == 1:
        return [function(item) for item in items]
    futures = [_pool().submit(copy_context().run, function, item) for item in items[1:]]
    return [function(items[0]), *(future.result() for future in futures)]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads that help; made when first needed, and again in a forked process."""
    return ThreadPoolExecutor(os.cpu_count(), "bnlib")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
