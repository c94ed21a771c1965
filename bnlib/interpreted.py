"""An engine in NumPy, for where nothing can be compiled: block by block, in float64.

What one operation leaves in the cache is still there for the next. Arrays come as (B, C, S).

Source: chapter "Fast on the CPU".
"""

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 14  # values of a block: 128 KiB in float64
_BLOCK_ROWS = 256  # rows that are added one after the other


def sums(
    x: np.ndarray,
    g: np.ndarray,
    y: np.ndarray,
    k: np.ndarray,
    first: int,
    last: int,
    row: int,
    stop: int,
    back: bool,
    relu: bool,
) -> np.ndarray:
    """Σd and Σd², or with back Σg and Σg·d, of the channels first … last, (2, last − first).

    Over the rows row … stop. With relu, g is what comes back to y, the output of a ReLU.

    Source: `bnlib.formulas`.
    """
    total = np.zeros((2, last - first))
    for block, part in _blocks(x, first, last, row, stop):
        d = _from(x[block], k[part])
        left = d
        if back:
            left = (_through(g[block], y[block]) if relu else g[block]).astype(np.float64)
        total[0, part] += left.sum(2).sum(0)
        total[1, part] += np.einsum("bcs,bcs->bc", left, d).sum(0)
    return total


def write_y(
    x: np.ndarray,
    residual: np.ndarray,
    y: np.ndarray,
    k: np.ndarray,
    rest: np.ndarray,
    a: np.ndarray,
    c: np.ndarray,
    first: int,
    last: int,
    row: int,
    stop: int,
    add: bool,
    relu: bool,
) -> None:
    """y = (x − μ)·a + c of the channels first … last over the rows row … stop.

    μ is k + rest; all four are (last − first,). With add, residual comes on top, and relu ends with
    max(0, ·).

    Source: `bnlib.formulas`.
    """
    for block, part in _blocks(x, first, last, row, stop):
        z = _from(x[block], k[part])
        z -= rest[part, None]
        z *= a[part, None]
        z += c[part, None]
        if add:
            z += residual[block]
        y[block] = np.maximum(z, 0) if relu else z


def write_dx(
    x: np.ndarray,
    g: np.ndarray,
    y: np.ndarray,
    dz: np.ndarray,
    dx: np.ndarray,
    k: np.ndarray,
    rest: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    a: np.ndarray,
    first: int,
    last: int,
    row: int,
    stop: int,
    relu: bool,
    keep: bool,
) -> None:
    """dx = ((x − μ)·b + g + c)·a likewise; with keep, dz is g where y is positive.

    Source: `bnlib.formulas`.
    """
    for block, part in _blocks(x, first, last, row, stop):
        z = _from(x[block], k[part])
        z -= rest[part, None]
        z *= b[part, None]
        through = _through(g[block], y[block]) if relu else g[block]
        z += through
        z += c[part, None]
        z *= a[part, None]
        dx[block] = z
        if keep:
            dz[block] = through


def _blocks(
    x: np.ndarray, first: int, last: int, row: int, stop: int
) -> Iterator[tuple[tuple[slice, slice, slice], slice]]:
    """Cuts the channels first … last and the rows row … stop into blocks.

    With each block, which of the channels first … last are in it.
    """
    size = x.shape[2]
    channels = max(1, min(last - first, _BLOCK // size))
    rows = max(1, min(_BLOCK_ROWS, _BLOCK // (channels * size)))
    for i in range(row, stop, rows):
        for c in range(first, last, channels):
            part = slice(c, min(c + channels, last))
            for s in range(0, size, _BLOCK):
                block = slice(i, min(i + rows, stop)), part, slice(s, s + _BLOCK)
                yield block, slice(part.start - first, part.stop - first)


def _from(x: np.ndarray, k: np.ndarray) -> np.ndarray:
    return np.subtract(x, k[:, None], dtype=np.float64)


def _through(g: np.ndarray, y: np.ndarray) -> np.ndarray:
    """g past the ReLU whose output is y; a NaN lets it through."""
    return np.where(y <= 0, g.dtype.type(0), g)
