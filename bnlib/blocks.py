"""Going through a mini-batch block by block, for sums and for functions of its values.

What one operation leaves in the cache is still there for the next, and it works in the output
itself. Arrays are read in the order of memory, whatever it is.

Few values are added in float32, and their sums in float64. Blocks do not depend on the number of
threads, and the sums of the blocks are added in their order: any number of threads gives the same
bits.
"""

import functools
import math
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np

_BLOCK = 1 << 18  # values of a block: 1 MiB in float32
_WIDTH = 1 << 11  # values of a row of a block
_POSITIONS = 1 << 7  # with as many positions, the rows of a block are channels
_ROWS, _TERMS = 8, 512  # rows, and positions, that are added in float32
_STRIPES = 32  # parts of a sweep, which threads share


def work_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype to compute in: float32 for float16, else the same."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


class Sweep:
    """Sweeps over a mini-batch x, block by block, for sums of d = x·s - K·s and for functions of d.

    The axes are put in the order of x's strides and merged to (B, C, S). With many positions, S, a
    block has shape (b, c, s), and factors of its channels go with it as (c, 1). With few, `tile` of
    the B lie in a row of a block, (k, tile·c·S), for NumPy is slow on short rows; the factors are
    repeated likewise.

    Source: chapter "Fast on the CPU".
    """

    def __init__(self, x: np.ndarray, threads: int) -> None:
        strides = [abs(s) if n > 1 else 0 for s, n in zip(x.strides, x.shape, strict=True)]
        if x.shape[1] == 1:
            strides[1] = max(strides) + 1  # one channel: all the rest are positions
        self.axes = sorted(range(x.ndim), key=lambda i: -strides[i])
        sizes, channel = [x.shape[i] for i in self.axes], self.axes.index(1)
        b, c, s = math.prod(sizes[:channel]), x.shape[1], math.prod(sizes[channel + 1 :])
        self.shape, self.count = (b, c, s), b * s
        self.work = work_dtype(x.dtype)
        self.power: np.ndarray | None = None  # s
        self.shift: np.ndarray | None = None  # K·s
        self.threads = threads
        # A block that must be copied or converted takes memory.
        size = _BLOCK if x.dtype == self.work and self._as_3d(x).flags.c_contiguous else _BLOCK // 4
        if s >= _POSITIONS:
            width, s_step = s, min(s, size)
            c_step = min(c, max(1, size // s_step))
            b_step = min(b, max(1, size // (c_step * s_step)))
            self.tile = 0
            self.partial = b_step, -(-s_step // _TERMS)
        else:
            s_step, c_step = s, min(c, max(1, 8 * _WIDTH // s))
            self.tile = min(b, max(1, _WIDTH // (c_step * s)))
            width = self.tile * c_step * s
            b_step = self.tile * max(1, size // width)
            self.partial = self.tile, s
        self.buffer = max(16, min(width, 8192) // 16 * 16)  # with a row or less, NumPy copies none
        whole = b - b % self.tile if self.tile else b
        rows = [slice(i, min(i + b_step, whole)) for i in range(0, whole, b_step)]
        rows += [slice(whole, b)] if whole < b else []
        blocks = [(i, slice(k, k + s_step)) for i in rows for k in range(0, s, s_step)]
        channels = [slice(j, min(j + c_step, c)) for j in range(0, c, c_step)]
        step = -(-len(blocks) * len(channels) // _STRIPES)
        self.tasks = [
            (j, blocks[i : i + step]) for j in channels for i in range(0, len(blocks), step)
        ]

    def sums(
        self, x: np.ndarray, dy: np.ndarray | None = None, dy_power: np.ndarray | None = None
    ) -> np.ndarray:
        """Σ g and Σ g·d of each channel, (2, C), where g = dy·t; without dy, Σ d and Σ d²."""
        x, dy = self._as_3d(x), None if dy is None else self._as_3d(dy)
        add = _add_rows if self.tile else _add_positions

        def load(block: tuple[slice, ...], s: Any, k: Any, t: Any) -> tuple[np.ndarray, np.ndarray]:
            d = self._load(x[block], s, k).astype(self.work, copy=False)
            if dy is None:
                return d, d
            return self._load(dy[block], t, None).astype(self.work, copy=False), d

        def task(channels: slice, blocks: list[tuple[slice, slice]]) -> np.ndarray:
            s, k, t = (self._spread(v, channels) for v in (self.power, self.shift, dy_power))
            b, parts = self.partial
            partial = np.zeros((2, b, channels.stop - channels.start, parts))
            for rows, positions in blocks:
                add(*load((rows, channels, positions), s, k, t), partial)
            return partial.sum((1, 3))

        total = np.zeros((2, self.shape[1]))
        for (channels, _), part in zip(self.tasks, self._run(task), strict=True):
            total[:, channels] += part
        return total

    def apply(
        self,
        x: np.ndarray,
        factors: tuple[np.ndarray, ...],
        out: np.ndarray,
        dy: np.ndarray | None = None,
        dy_power: np.ndarray | None = None,
    ) -> None:
        """out = d·b + c for factors (b, c); with dy, out = (d·b + g + c)·a for (b, c, a)."""
        x, dy = self._as_3d(x), None if dy is None else self._as_3d(dy)
        result = self._as_3d(out)
        in_place = result.flags.c_contiguous and result.dtype == self.work

        def task(channels: slice, blocks: list[tuple[slice, slice]]) -> None:
            s, k, t, *spread = (
                self._spread(v, channels) for v in (self.power, self.shift, dy_power, *factors)
            )
            for rows, positions in blocks:
                part = result[rows, channels, positions]
                z = self._cut(part)
                if not in_place:
                    z = np.empty(z.shape, self.work)
                b, c, *a = (v[..., : z.shape[-1]] for v in spread)
                np.multiply(self._load(x[rows, channels, positions], s, k, z), b, out=z)
                if dy is not None:
                    z += self._load(dy[rows, channels, positions], t, None)
                z += c
                if a:
                    z *= a[0]
                if not in_place:
                    part[...] = z.reshape(part.shape)

        self._run(task)
        if not np.may_share_memory(result, out):
            ordered = out.transpose(self.axes)
            ordered[...] = result.reshape(ordered.shape)

    def finite(self, a: np.ndarray) -> np.ndarray:
        """A factor as the dtype can hold it: infinity times 0 would be no number."""
        largest = np.finfo(self.work).max
        return np.clip(a, -largest, largest)

    def _as_3d(self, v: np.ndarray) -> np.ndarray:
        """(B, C, S), a view unless the axes of v cannot be merged."""
        return v.transpose(self.axes).reshape(self.shape)

    def _cut(self, block: np.ndarray) -> np.ndarray:
        """(b, c, s), or with few positions rows of a tile, (k, tile·c·s); (1, b·c·s) at the end."""
        if not self.tile:
            return block
        b = len(block)
        return block.reshape(1 if b % self.tile else b // self.tile, -1)

    def _spread(self, v: np.ndarray | None, channels: slice) -> Any:
        """A factor of the channels in the shape that goes with a block."""
        if v is None:
            return None
        column = v[channels, None]
        if not self.tile:
            return column.astype(self.work)
        repeated = np.empty((self.tile, len(column), self.shape[2]), self.work)
        repeated[...] = column
        return repeated.reshape(-1)

    def _load(
        self,
        block: np.ndarray,
        power: np.ndarray | None,
        shift: np.ndarray | None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """x·s - K·s of a block, in out where given; where there is nothing to do, the block."""
        v = self._cut(block)
        if v.strides[-1] != v.itemsize:
            v = v.copy()  # sums are less accurate, and slow, with gaps between the values
        w = v.shape[-1]
        if power is not None:
            v = out = np.multiply(v, power[..., :w], out=out)
        if shift is not None:
            v = np.subtract(v, shift[..., :w], out=out)
        return v

    def _run(self, task: Callable[[slice, list[tuple[slice, slice]]], Any]) -> list[Any]:
        """The results of the tasks, in order; threads take the next task when they are free."""
        results: list[Any] = [None] * len(self.tasks)
        todo = deque(range(len(self.tasks)))

        def work() -> None:
            while todo:
                try:
                    i = todo.popleft()
                except IndexError:  # another thread was faster
                    return
                results[i] = task(*self.tasks[i])

        np.setbufsize(self.buffer)  # until the end of errstate
        helpers = [
            _pool().submit(copy_context().run, work)
            for _ in range(min(self.threads, len(self.tasks)) - 1)
        ]
        try:
            work()
        finally:
            todo.clear()
            for helper in helpers:
                if not helper.cancel():
                    helper.result()
        return results


def _add_rows(g: np.ndarray, d: np.ndarray, partial: np.ndarray) -> None:
    """Add Σ g and Σ g·d over the rows of (k, tile·c·s) to partial, (2, tile, c, s)."""
    width = g.shape[1]
    sums = partial.reshape(2, -1)[:, :width]
    for part, n in _parts(len(g), _ROWS):
        g_parts, d_parts = (v[part].reshape(-1, n, width) for v in (g, d))
        sums[0] += np.add.reduce(np.add.reduce(g_parts, 1), 0, np.float64)
        sums[1] += np.add.reduce(np.einsum("kij,kij->kj", g_parts, d_parts), 0, np.float64)


def _add_positions(g: np.ndarray, d: np.ndarray, partial: np.ndarray) -> None:
    """Add Σ g and Σ g·d over parts of the positions of (b, c, s) to partial, (2, b, c, parts)."""
    b, c, s = g.shape
    ones = np.ones(_TERMS, g.dtype)
    for part, n in _parts(s, -(-s // -(-s // _TERMS))):
        g_parts, d_parts = (v[:, :, part].reshape(b, c, -1, n) for v in (g, d))
        sums = partial[:, :b, :, : g_parts.shape[2]]
        sums[0] += np.vecdot(g_parts, ones[:n])
        sums[1] += np.vecdot(g_parts, d_parts)


def _parts(size: int, most: int) -> list[tuple[slice, int]]:
    """What can be cut into parts of `most` values, and the rest; with the length of the parts."""
    whole = size - size % most
    cuts = (slice(0, whole), most), (slice(whole, size), size - whole)
    return [(part, n) for part, n in cuts if part.start < part.stop]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads that help; made when first needed, and again in a forked process."""
    return ThreadPoolExecutor(os.cpu_count(), "bnlib")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
