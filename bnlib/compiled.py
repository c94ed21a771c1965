r"""`sums` and `write` in loops that Numba compiles: a value is read once, and stays in a register.

They do what those of `bnlib.interpreted` do. Arrays come as (B, C, S), contiguous. The S values of
the channels at hand, side by side in a row of memory, are *lanes*. Lanes do not meet until the end
of the sums: so the compiler can work on as many at once as the processor has room for, and the
bits are the same on every processor.

**Sums** are in float64 and in parts: four rows at once (of products two, behind a ReLU one), up to
256 rows or pieces of a row in a part, the parts pairwise, and so the lanes of a channel. So m
values of x are added in about 64 + 2 log₂ m roundings one after the other, and not in m.

**What is written** is computed in the dtype of x, with the mean as K: float32 has twice as many
lanes in a register. A channel whose factors float32 cannot hold is written in float64, by itself.

Source: chapter "Fast on the CPU".
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

from bnlib import formulas

_PIECE = 512  # lanes of one channel that are added in one go: they fit into the first cache
_PART = 256  # rows that are added one after the other, in fours
_SHORT = 32  # with fewer positions, the factors are spread over the lanes
_LOW, _HIGH = 2.0**-100, 2.0**100  # factors with which float32 loses nothing

_jit = njit(nogil=True, error_model="numpy", cache=True)
_inline = njit(inline="always")  # part of what calls it: compiled once, and not again in each
_moments, _dx_factors = map(_jit, (formulas.moments, formulas.dx_factors))


@_jit
def as_rows(x):
    """(B, C, S) as (B, C·S)."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2])


@_jit
def train(
    x, residual, y, gamma, beta, near, rest, var, inv_std, eps, step, rows, first, last, add, relu
):
    """All of the forward pass for the channels first … last, as `bnlib.blocks.train` does it."""
    m = x.shape[0] * x.shape[2]
    start, no = 0 * rows, rows < 0  # for constants Numba would compile anew what is called
    a, shift = np.empty(step), np.empty(step)
    while first < last:
        until = min(first + step, last)
        k, r = near[first:until], rest[first:until]
        for i in range(k.size):
            k[i] = x[0, first + i, 0]
        for again in range(1 + (x.itemsize == 8)):
            if again:
                for i in range(k.size):
                    k[i] += r[i]
            total = _all_sums(x, x, x, k, rows, first, until, no, no)
            for i in range(k.size):
                r[i], var[first + i] = _moments(total[0, i], total[1, i], m)
        for i in range(k.size):
            c = first + i
            inv_std[c] = 1 / np.sqrt(var[c] + eps)
            a[i], shift[i] = inv_std[c] * gamma[c], beta[c]
        write_y(x, residual, y, k, r, a, shift, first, until, start, x.shape[0], add, relu)
        first = until


@_jit
def backward(
    x, g, y, dz, dx, gamma, near, rest, inv_std, dgamma, dbeta, step, rows, first, last, relu, keep
):
    """All of the backward pass likewise."""
    m = x.shape[0] * x.shape[2]
    start, yes = 0 * rows, rows > 0
    a, b, shift = np.empty(step), np.empty(step), np.empty(step)
    while first < last:
        until = min(first + step, last)
        k, r = near[first:until], rest[first:until]
        total = _all_sums(x, g, y, k, rows, first, until, yes, relu)
        for i in range(k.size):
            c = first + i
            dbeta[c] = total[0, i]
            b[i], shift[i], dgamma[c] = _dx_factors(total[0, i], total[1, i], r[i], inv_std[c], m)
            a[i] = inv_std[c] * gamma[c]
        write_dx(x, g, y, dz, dx, k, r, b, shift, a, first, until, start, x.shape[0], relu, keep)
        first = until


@_inline
def _all_sums(x, g, y, k, rows, first, last, back, relu):
    """`sums` over all rows, range by range."""
    total = np.zeros((2, last - first))
    for row in range(0, x.shape[0], rows):
        stop = min(row + rows, x.shape[0])
        _add(total, sums(x, g, y, k, first, last, row, stop, back, relu))
    return total


@_jit
def sums(x, g, y, k, first, last, row, stop, back, relu):
    """Σd and Σd², or with back Σg and Σg·d, of the channels first … last, (2, last − first).

    Over the rows row … stop. With relu, g is what comes back to y, the output of a ReLU.
    """
    size = x.shape[2]
    x, g, y = as_rows(x), as_rows(g), as_rows(y)
    at, end = first * size, last * size
    # The pieces of a large channel share its lanes. Smaller channels have a lane for each value.
    pieces = (size + _PIECE - 1) // _PIECE
    lanes = (size + pieces - 1) // pieces
    width = (last - first) * lanes
    near = np.empty(width)
    for c in range(first, last):
        near[(c - first) * lanes : (c - first + 1) * lanes] = k[c - first]
    total, part, rows = np.zeros((2, width)), 0, max(4, _PART // pieces // 4 * 4)
    chunk = min(_PART // 4 * width, end - at)  # a long row is cut into parts, too
    parts = -(-(stop - row) // rows) * -(-(end - at) // chunk)
    levels = 1
    while 1 << levels <= parts:
        levels += 1
    stack = np.empty((levels, 2, width))  # sums of parts, of pairs of parts, of pairs of those
    while row < stop:
        until = min(row + rows, stop)
        for begin in range(at, end, chunk):
            total[:], to = 0.0, min(begin + chunk, end)
            if back:
                _add_products(x, g, y, relu, near, begin, to, row, until, total)
            else:
                _add_squares(x, near, begin, to, row, until, total)
            if parts == 1:
                break
            level = 0
            while part >> level & 1:  # in pairs, as in counting: 1 + 1 is carried on
                _add(total, stack[level])
                level += 1
            _copy(total, stack[level])
            part += 1
        row = until
    if part:
        total[:] = 0.0
    for level in range(levels):
        if part >> level & 1:
            _add(total, stack[level])
    n = lanes
    while n > 1:  # the lanes of a channel, in pairs
        half = n // 2
        for i in range(0, width, lanes):
            for j in range(i, i + half):
                total[0, j] += total[0, j + n - half]
                total[1, j] += total[1, j + n - half]
        n -= half
    return total[:, ::lanes].copy()


@_jit
def _add_squares(x, k, at, end, row, stop, total):
    """Add Σd and Σd² of the lanes at … end of x, over the rows row … stop, to total, (2, lanes)."""
    lanes = k.size
    first, second = total[0], total[1]
    while row + 4 <= stop:
        for piece in range(at, end, lanes):
            n = min(lanes, end - piece)
            x0, x1 = x[row, piece : piece + n], x[row + 1, piece : piece + n]
            x2, x3 = x[row + 2, piece : piece + n], x[row + 3, piece : piece + n]
            for j in range(n):
                d0, d1, d2, d3 = x0[j] - k[j], x1[j] - k[j], x2[j] - k[j], x3[j] - k[j]
                first[j] += (d0 + d1) + (d2 + d3)
                second[j] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
        row += 4
    while row < stop:
        for piece in range(at, end, lanes):
            n = min(lanes, end - piece)
            x0 = x[row, piece : piece + n]
            for j in range(n):
                d0 = x0[j] - k[j]
                first[j] += d0
                second[j] += d0 * d0
        row += 1


@_jit
def _add_products(x, g, y, relu, k, at, end, row, stop, total):
    """Add Σg and Σg·d likewise."""
    lanes = k.size
    first, second = total[0], total[1]
    while row + 2 <= stop and not relu:
        for piece in range(at, end, lanes):
            n = min(lanes, end - piece)
            x0, x1 = x[row, piece : piece + n], x[row + 1, piece : piece + n]
            g0, g1 = g[row, piece : piece + n], g[row + 1, piece : piece + n]
            for j in range(n):
                a, b = np.float64(g0[j]), np.float64(g1[j])
                first[j] += a + b
                second[j] += a * (x0[j] - k[j]) + b * (x1[j] - k[j])
        row += 2
    while row < stop:
        for piece in range(at, end, lanes):
            n = min(lanes, end - piece)
            x0, g0, y0 = (
                x[row, piece : piece + n], g[row, piece : piece + n], y[row, piece : piece + n],
            )  # fmt: skip
            for j in range(n):
                a = np.float64(g0[j])
                if relu and y0[j] <= 0:  # a NaN lets g through
                    a = np.float64(0)
                first[j] += a
                second[j] += a * (x0[j] - k[j])
        row += 1


@_inline
def _add(total, more):
    for i in range(2):
        for j in range(total.shape[1]):
            total[i, j] += more[i, j]


@_inline
def _copy(total, to):
    for i in range(2):
        for j in range(total.shape[1]):
            to[i, j] = total[i, j]


@_jit
def write_y(x, residual, y, k, rest, a, c, first, last, row, stop, add, relu):
    """y = (x − μ)·a + c of the channels first … last over the rows row … stop.

    μ is k + rest; all four are (last − first,). With add, residual comes on top, and relu ends with
    max(0, ·).
    """
    size = x.shape[2]
    x, y, residual = as_rows(x), as_rows(y), as_rows(residual)
    n = last - first
    narrow, wide, fits = np.empty((3, n), x.dtype), np.empty((3, n)), np.empty(n, np.bool_)
    for i in range(n):
        narrow[0, i] = k[i] + rest[i]
        near = np.float64(narrow[0, i])
        narrow[1, i], narrow[2, i] = a[i], c[i] + (near - k[i] - rest[i]) * a[i]
        wide[0, i], wide[1, i], wide[2, i] = k[i], a[i], c[i] - rest[i] * a[i]
        fits[i] = _fits(a[i]) and abs(near) < _HIGH and abs(narrow[2, i]) < _HIGH
        if not fits[i]:  # y may be x: which then stays until the channel's turn
            narrow[0, i], narrow[1, i], narrow[2, i] = 0, 1, 0
    if size < _SHORT:
        _y_lanes(x, _spread(narrow, size), first * size, row, stop, y, residual, add, relu)
    else:
        _y_channels(x, narrow, size, first, last, row, stop, y, residual, add, relu)
    for i in range(n):
        if not fits[i]:
            j = first + i
            _y_channels(x, wide[:, i:], size, j, j + 1, row, stop, y, residual, add, relu)


@_jit
def write_dx(x, g, y, dz, dx, k, rest, b, c, a, first, last, row, stop, relu, keep):
    """dx = ((x − μ)·b + g + c)·a likewise; with keep, dz is g where y is positive."""
    size = x.shape[2]
    x, g, y, dx, dz = as_rows(x), as_rows(g), as_rows(y), as_rows(dx), as_rows(dz)
    n = last - first
    narrow, wide, fits = np.empty((4, n), x.dtype), np.empty((4, n)), np.empty(n, np.bool_)
    for i in range(n):
        narrow[0, i] = k[i] + rest[i]
        near = np.float64(narrow[0, i])
        off = near - k[i] - rest[i]
        narrow[1, i], narrow[2, i], narrow[3, i] = b[i], c[i] + off * b[i], a[i]
        wide[0, i], wide[1, i], wide[2, i], wide[3, i] = k[i], b[i], c[i] - rest[i] * b[i], a[i]
        fits[i] = _fits(a[i]) and _fits(b[i]) and _fits(narrow[2, i]) and abs(near) < _HIGH
    if size < _SHORT:
        _dx_lanes(x, g, y, _spread(narrow, size), first * size, row, stop, dx, dz, relu, keep)
    else:
        _dx_channels(x, g, y, narrow, size, first, last, row, stop, dx, dz, relu, keep)
    for i in range(n):
        if not fits[i]:
            j = first + i
            _dx_channels(x, g, y, wide[:, i:], size, j, j + 1, row, stop, dx, dz, relu, keep)


@_jit
def _fits(factor):
    """Whether a factor, and with it all products, is in the range in which float32 is exact."""
    return _LOW < abs(factor) < _HIGH or factor == 0


@_jit
def _spread(factors, size):
    """(…, C) as (…, C·size): to each lane what is its channel's."""
    lanes = np.empty((factors.shape[0], factors.shape[1] * size), factors.dtype)
    for i in range(lanes.shape[0]):
        for j in range(lanes.shape[1]):
            lanes[i, j] = factors[i, j // size]
    return lanes


@_jit
def _y_lanes(x, factors, at, row, stop, y, residual, add, relu):
    k, a, c = factors[0], factors[1], factors[2]
    end = at + k.size
    for i in range(row, stop):
        x0, y0, r0 = x[i, at:end], y[i, at:end], residual[i, at:end]
        if not (add or relu):
            for j in range(k.size):
                y0[j] = (x0[j] - k[j]) * a[j] + c[j]
        else:
            for j in range(k.size):
                y0[j] = _finish((x0[j] - k[j]) * a[j] + c[j], r0[j], add, relu)


@_jit
def _y_channels(x, factors, size, first, last, row, stop, y, residual, add, relu):
    for i in range(row, stop):
        for channel in range(first, last):
            part = slice(channel * size, channel * size + size)
            x0, y0, r0 = x[i, part], y[i, part], residual[i, part]
            f = factors[:, channel - first]
            k, a, c = f[0], f[1], f[2]
            if not (add or relu):
                for j in range(size):
                    y0[j] = (x0[j] - k) * a + c
            else:
                for j in range(size):
                    y0[j] = _finish((x0[j] - k) * a + c, r0[j], add, relu)


@_jit
def _finish(y, residual, add, relu):
    if add:
        y += residual
    return y * 0 if relu and y < 0 else y  # a NaN stays one


@_jit
def _dx_lanes(x, g, y, factors, at, row, stop, dx, dz, relu, keep):
    k, b, c, a = factors[0], factors[1], factors[2], factors[3]
    end = at + k.size
    for i in range(row, stop):
        x0, g0, dx0 = x[i, at:end], g[i, at:end], dx[i, at:end]
        if relu:
            y0, dz0 = y[i, at:end], dz[i, at:end]
            for j in range(k.size):
                through = _through(g0[j], y0[j])
                dx0[j] = ((x0[j] - k[j]) * b[j] + through + c[j]) * a[j]
                if keep:
                    dz0[j] = through
        else:
            for j in range(k.size):
                dx0[j] = ((x0[j] - k[j]) * b[j] + g0[j] + c[j]) * a[j]


@_jit
def _dx_channels(x, g, y, factors, size, first, last, row, stop, dx, dz, relu, keep):
    for i in range(row, stop):
        for channel in range(first, last):
            part = slice(channel * size, channel * size + size)
            x0, g0, dx0 = x[i, part], g[i, part], dx[i, part]
            f = factors[:, channel - first]
            k, b, c, a = f[0], f[1], f[2], f[3]
            if relu:
                y0, dz0 = y[i, part], dz[i, part]
                for j in range(size):
                    through = _through(g0[j], y0[j])
                    dx0[j] = ((x0[j] - k) * b + through + c) * a
                    if keep:
                        dz0[j] = through
            else:
                for j in range(size):
                    dx0[j] = ((x0[j] - k) * b + g0[j] + c) * a


@_jit
def _through(g, y):
    """g past the ReLU whose output is y; a NaN lets it through."""
    return g * 0 if y <= 0 else g
