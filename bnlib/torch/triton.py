r"""Fused BatchNorm kernels for GPUs, in Triton: accurate, deterministic, few passes over memory.

**Digits.** Each channel has one K, its first value, and all sums are taken about it in float64. So
the sums of several programs just add up: μ = K + Σ(x−K)/m and σ² = Σ(x−K)²/m − (Σ(x−K)/m)². No K
can spoil that, since the sums are in many parts: see `bnlib.formulas`. There is no second sweep,
and the squares of 10³⁰ do not overflow. y comes from x − μ, with μ as the sum of two float32
numbers, since x·a + b would lose the digits again; all elementwise work is float32.

**Is float64 too slow?** By arithmetic, not on the GPUs that it is meant for. A value costs one
conversion and three float64 operations. At 4.8 TB/s and 1.8 GHz each of an H200's 132
multiprocessors reads about 5 float32 or 10 bfloat16 values a clock; it can convert 16, and add up
21. On GPUs with 2 float64 operations a clock the sums take longer than the reading.

**Two kernels.** Often there are fewer channels than multiprocessors; so several programs share a
channel. The first kernel stores their sums, the second one normalizes. In between a small one adds
up the sums, in a fixed order: there are no atomics, and every run gives the same bits. It does all
that is the same for all of a channel, in float64. x is read twice and y written once; backward it
is 4 and 1.

**One kernel.** A program that holds whole channels in registers reads them once: 1 and 1, backward
2 and 1. Channels that are small enough go this way. With `single_read=True` larger ones do, too: a
group of programs holds them, and each program waits until all have stored their sums. All must run
at the same time for that, and a cooperative launch fails where they cannot. It has not been
measured on a GPU yet; until then nobody gets it without asking.

A tile is (ROWS, COLS) values. Where channels stand apart in memory, (N, C, S), a tile has one
channel, and a row COLS positions of one image. Where they stand side by side, as in (N, C) and
channels last, a row has one value of COLS channels, and S is 1.

Source: Ioffe & Szegedy 2015, algorithm 1 and section 3; chapter "On the GPU".
"""

# mypy: disable-error-code="no-untyped-def"

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LARGE, _SMALL = tl.constexpr(2.0**64), tl.constexpr(2.0**-64)
_TILE = 2048  # values of a tile of the two kernels: 16 a thread
_PROGRAMS = 8  # programs of them for each multiprocessor
_EACH = 4  # tiles that a program of the second one writes, at most
_HELD = 8192  # values that a program of the one kernel holds: 32 a thread
_RESIDENT = 2  # such programs in a multiprocessor: 2 · 256 threads · 128 registers fill it


# What the kernels share. C channels, S positions of an image, N images, m = N S.


@triton.jit
def _tile(start, block, N, C, S, LAST: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Offsets and mask of a tile's values, (ROWS, COLS)."""
    row = start + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    if LAST:  # a row is an image
        image, channel, position = row, block * COLS + col, col * 0
    else:  # ceil(S / COLS) rows are an image
        across = tl.cdiv(S, COLS)
        image, channel, position = row // across, block, row % across * COLS + col
    offset = (image.to(tl.int64) * C + channel) * S + position
    mask = (image < N) & (channel < C) & (position < S)
    return offset, mask


@triton.jit
def _channels(block, LAST: tl.constexpr, COLS: tl.constexpr):
    """Channels of a tile: (COLS,), or a scalar where channels stand apart. So are statistics."""
    if LAST:
        return block * COLS + tl.arange(0, COLS)
    else:
        return block


@triton.jit
def _row(v, LAST: tl.constexpr):
    """A value per channel as a row of a tile."""
    if LAST:
        return v[None, :]
    else:
        return v


@triton.jit
def _sums(a, b, LAST: tl.constexpr):
    """Sums of two tiles for each channel, both in one go: fewer registers than one by one."""
    both = tl.sum(tl.join(a, b), 0)
    if not LAST:
        both = tl.sum(both, 0)
    return tl.split(both)


@triton.jit
def _vector(v, channel, C):
    """v of the tile's channels, in float64."""
    return tl.load(v + channel, channel < C, 0.0).to(tl.float64)


@triton.jit
def _constant(line, i, channel, C):
    """Row i of line, (…, C), for the tile's channels."""
    return tl.load(line + i * C + channel, channel < C, 0.0)


@triton.jit
def _first(x, channel, C, S):
    """K, the first value of each channel, in float64."""
    return tl.load(x + channel.to(tl.int64) * S, channel < C, 0.0).to(tl.float64)


@triton.jit
def _store_sums(sums, a, b, part, channel, C, parts):
    """A part's two sums, into (2, parts, C)."""
    at = sums + part * C + channel
    tl.store(at, a, channel < C)
    tl.store(at + parts * C, b, channel < C)


@triton.jit
def _load_sums(sums, channel, C, parts, LAST: tl.constexpr, PARTS: tl.constexpr):
    """The two sums over all parts, in a fixed order; not from the L1 cache, which may be stale."""
    part = tl.arange(0, PARTS)
    if LAST:
        part = part[:, None]
    at = sums + part * C + _row(channel, LAST)
    mask = (part < parts) & (_row(channel, LAST) < C)
    a = tl.load(at, mask, 0.0, cache_modifier=".cg")
    b = tl.load(at + parts * C, mask, 0.0, cache_modifier=".cg")
    return tl.sum(a, 0), tl.sum(b, 0)


@triton.jit
def _meet(counter, parts):
    """Wait until all parts are here; then what each has stored before can be loaded."""
    tl.debug_barrier()
    here = tl.atomic_add(counter, 1, sem="acq_rel") + 1
    while here < parts:
        here = tl.atomic_add(counter, 0, sem="acquire")
    tl.debug_barrier()


@triton.jit
def _moments(a, b, k, m):
    """μ and σ² from K, Σ(x−K) and Σ(x−K)²."""
    shift = a / m
    var = b / m - shift * shift
    return k + shift, tl.where(var < 0, 0.0, var)  # a NaN stays one


@triton.jit
def _line(mean, inv_std, WORK: tl.constexpr):
    """scale, high, low, slope of x̂ = (x·scale − high − low)·slope, in the range of float32."""
    large = inv_std < _SMALL
    scale = tl.where(large, _SMALL, 1.0)
    high = (mean * scale).to(WORK)
    low = mean * scale - high.to(tl.float64)
    return scale.to(WORK), high, low.to(WORK), inv_std * tl.where(large, _LARGE, 1.0)


@triton.jit
def _y_line(mean, var, weight, bias, channel, C, EPS: tl.constexpr, WORK: tl.constexpr):
    """scale, high, low, slope, shift of y = (x·scale − high − low)·slope + shift."""
    scale, high, low, slope = _line(mean, 1 / tl.sqrt(var + EPS), WORK)
    shift = tl.zeros_like(mean)
    if weight is not None:
        slope *= _vector(weight, channel, C)
    if bias is not None:
        shift = _vector(bias, channel, C)
    return scale, high, low, slope.to(WORK), shift.to(WORK)


@triton.jit
def _store_y(
    y, v, residual, scale, high, low, slope, shift, offset, mask,
    RELU: tl.constexpr, WORK: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """y = relu(BN(v) + residual) of a tile, v as loaded from x."""
    out = v.to(WORK) * _row(scale, LAST) - _row(high, LAST) - _row(low, LAST)
    out = out * _row(slope, LAST) + _row(shift, LAST)
    if residual is not None:
        out += tl.load(residual + offset, mask, 0.0).to(WORK)
    if RELU:
        out = tl.where(out < 0, 0.0, out)  # a NaN stays one
    tl.store(y + offset, out.to(y.dtype.element_ty), mask)


@triton.jit
def _load_dy(dy, y, offset, mask):
    """dy; past the ReLU whose output is y, if there is one."""
    g = tl.load(dy + offset, mask, 0.0)
    if y is not None:
        g = tl.where(tl.load(y + offset, mask, 0.0) <= 0, 0.0, g)  # a NaN lets dy through
    return g


@triton.jit
def _dx_line(a, b, inv_std, weight, channel, C, m, WORK: tl.constexpr):
    """high, low, along, slope of dx = (dy − high − low − x̂·along)·slope, from a and b.

    high + low = mean(dy) = a/m, along = mean(dy x̂) = b·inv_std/m, slope = γ·inv_std.
    """
    high = (a / m).to(WORK)
    low = a / m - high.to(tl.float64)
    along = b * inv_std / m
    slope = inv_std
    if weight is not None:
        slope *= _vector(weight, channel, C)
    return high, low.to(WORK), along.to(WORK), slope.to(WORK)


@triton.jit
def _store_dx(
    dx, g, v, scale, high, low, slope, g_high, g_low, along, g_slope, offset, mask,
    WORK: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """dx of a tile from `_line` and `_dx_line`, with g = dy and v as loaded from x."""
    x_hat = v.to(WORK) * _row(scale, LAST) - _row(high, LAST) - _row(low, LAST)
    x_hat *= _row(slope, LAST)
    out = g.to(WORK) - _row(g_high, LAST) - _row(g_low, LAST) - x_hat * _row(along, LAST)
    tl.store(dx + offset, (out * _row(g_slope, LAST)).to(dx.dtype.element_ty), mask)


# Two kernels for the tiles, and a small one in between, for what is the same for all of a channel


@triton.jit
def _sums_kernel(
    x, sums, N, C, S, tiles, blocks, parts,
    LAST: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Σ(x−K) and Σ(x−K)² of one part: into sums, (2, parts, C)."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel = _channels(block, LAST, COLS)
    k = _row(_first(x, channel, C, S), LAST)
    a = tl.zeros((ROWS, COLS), tl.float64)
    b = tl.zeros((ROWS, COLS), tl.float64)
    for i in range(part, tiles, parts):
        offset, mask = _tile(i * ROWS, block, N, C, S, LAST, ROWS, COLS)
        d = tl.load(x + offset, mask, 0.0).to(tl.float64) - k
        d = tl.where(mask, d, 0.0)
        a += d
        b += d * d
    a, b = _sums(a, b, LAST)
    _store_sums(sums, a, b, part, channel, C, parts)


@triton.jit
def _add_up(sums, channel, C, parts, CHANNELS: tl.constexpr, PARTS: tl.constexpr):
    """The two sums over all parts, in a fixed order, PARTS at a time."""
    a = tl.zeros((PARTS, CHANNELS), tl.float64)
    b = tl.zeros((PARTS, CHANNELS), tl.float64)
    for start in range(0, parts, PARTS):
        part = start + tl.arange(0, PARTS)[:, None]
        at = sums + part * C + channel[None, :]
        mask = (part < parts) & (channel < C)[None, :]
        a += tl.load(at, mask, 0.0)
        b += tl.load(at + parts * C, mask, 0.0)
    return tl.sum(a, 0), tl.sum(b, 0)


@triton.jit
def _y_line_kernel(
    x, weight, bias, mean, var, sums, line, C, S, m, parts,
    EPS: tl.constexpr, WORK: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """`_y_line` into line, (5, C); mean and var come from the sums, or as they stand without."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < C
    if sums is None:
        mu, sigma2 = _vector(mean, channel, C), _vector(var, channel, C)
    else:
        a, b = _add_up(sums, channel, C, parts, CHANNELS, PARTS)
        mu, sigma2 = _moments(a, b, _first(x, channel, C, S), m)
        tl.store(mean + channel, mu, mask)
        tl.store(var + channel, sigma2, mask)
    scale, high, low, slope, shift = _y_line(mu, sigma2, weight, bias, channel, C, EPS, WORK)
    tl.store(line + channel, scale, mask)
    tl.store(line + C + channel, high, mask)
    tl.store(line + 2 * C + channel, low, mask)
    tl.store(line + 3 * C + channel, slope, mask)
    tl.store(line + 4 * C + channel, shift, mask)


@triton.jit
def _y_kernel(
    x, y, residual, line, N, C, S, tiles, blocks,
    RELU: tl.constexpr, WORK: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """y of EACH tiles."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel = _channels(block, LAST, COLS)
    scale, high = _constant(line, 0, channel, C), _constant(line, 1, channel, C)
    low, slope = _constant(line, 2, channel, C), _constant(line, 3, channel, C)
    shift = _constant(line, 4, channel, C)
    # From the last tiles to the first: what was read last is still in the L2 cache.
    first = (tl.cdiv(tiles, EACH) - 1 - part) * EACH
    for i in range(EACH):
        offset, mask = _tile((first + i) * ROWS, block, N, C, S, LAST, ROWS, COLS)
        v = tl.load(x + offset, mask, 0.0)
        _store_y(
            y, v, residual, scale, high, low, slope, shift, offset, mask, RELU, WORK, LAST
        )  # fmt: skip


@triton.jit
def _dy_sums_kernel(
    dy, x, y, masked, mean, sums, N, C, S, tiles, blocks, parts,
    LAST: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Σ dy and Σ dy (x−μ) of one part: into sums, (2, parts, C); and dy past the ReLU."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel = _channels(block, LAST, COLS)
    mu = _row(_vector(mean, channel, C), LAST)
    a = tl.zeros((ROWS, COLS), tl.float64)
    b = tl.zeros((ROWS, COLS), tl.float64)
    for i in range(part, tiles, parts):
        offset, mask = _tile(i * ROWS, block, N, C, S, LAST, ROWS, COLS)
        g = _load_dy(dy, y, offset, mask)
        if masked is not None:
            tl.store(masked + offset, g, mask)
        g = g.to(tl.float64)
        a += g
        b += g * (tl.load(x + offset, mask, 0.0).to(tl.float64) - mu)
    a, b = _sums(a, b, LAST)
    _store_sums(sums, a, b, part, channel, C, parts)


@triton.jit
def _dx_line_kernel(
    mean, var, weight, dgamma, dbeta, sums, line, C, m, parts,
    EPS: tl.constexpr, WORK: tl.constexpr, CHANNELS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """`_line` and `_dx_line` into line, (8, C); dgamma and dbeta."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    mask = channel < C
    a, b = _add_up(sums, channel, C, parts, CHANNELS, PARTS)
    mu, inv_std = _vector(mean, channel, C), 1 / tl.sqrt(_vector(var, channel, C) + EPS)
    tl.store(dbeta + channel, a, mask)
    tl.store(dgamma + channel, b * inv_std, mask)
    scale, high, low, slope = _line(mu, inv_std, WORK)
    tl.store(line + channel, scale, mask)
    tl.store(line + C + channel, high, mask)
    tl.store(line + 2 * C + channel, low, mask)
    tl.store(line + 3 * C + channel, slope.to(WORK), mask)
    high, low, along, slope = _dx_line(a, b, inv_std, weight, channel, C, m, WORK)
    tl.store(line + 4 * C + channel, high, mask)
    tl.store(line + 5 * C + channel, low, mask)
    tl.store(line + 6 * C + channel, along, mask)
    tl.store(line + 7 * C + channel, slope, mask)


@triton.jit
def _dx_kernel(
    dy, x, y, dx, line, N, C, S, tiles, blocks,
    WORK: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """dx of EACH tiles."""
    block, part = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    channel = _channels(block, LAST, COLS)
    scale, high = _constant(line, 0, channel, C), _constant(line, 1, channel, C)
    low, slope = _constant(line, 2, channel, C), _constant(line, 3, channel, C)
    g_high, g_low = _constant(line, 4, channel, C), _constant(line, 5, channel, C)
    along, g_slope = _constant(line, 6, channel, C), _constant(line, 7, channel, C)
    first = (tl.cdiv(tiles, EACH) - 1 - part) * EACH
    for i in range(EACH):
        offset, mask = _tile((first + i) * ROWS, block, N, C, S, LAST, ROWS, COLS)
        g = _load_dy(dy, y, offset, mask)
        v = tl.load(x + offset, mask, 0.0)
        _store_dx(
            dx, g, v, scale, high, low, slope, g_high, g_low, along, g_slope, offset, mask,
            WORK, LAST,
        )  # fmt: skip


# One kernel


@triton.jit
def _train_kernel(
    x, y, residual, weight, bias, mean, var, sums, counters, N, C, S, blocks, parts, m,
    EPS: tl.constexpr, RELU: tl.constexpr, WORK: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """mean, var and y: a group of `parts` programs takes one block of channels after the other."""
    group, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    for block in range(group, blocks, tl.num_programs(0) // parts):
        channel = _channels(block, LAST, COLS)
        offset, mask = _tile(part * ROWS, block, N, C, S, LAST, ROWS, COLS)
        v = tl.load(x + offset, mask, 0.0)
        k = _first(x, channel, C, S)
        d = tl.where(mask, v.to(tl.float64) - _row(k, LAST), 0.0)
        a, b = _sums(d, d * d, LAST)
        if counters is not None:
            _store_sums(sums, a, b, part, channel, C, parts)
            _meet(counters + block, parts)
            a, b = _load_sums(sums, channel, C, parts, LAST, PARTS)
        mu, sigma2 = _moments(a, b, k, m)
        tl.store(mean + channel, mu, (channel < C) & (part == 0))
        tl.store(var + channel, sigma2, (channel < C) & (part == 0))
        scale, high, low, slope, shift = _y_line(mu, sigma2, weight, bias, channel, C, EPS, WORK)
        _store_y(
            y, v, residual, scale, high, low, slope, shift, offset, mask, RELU, WORK, LAST
        )  # fmt: skip


@triton.jit
def _backward_kernel(
    dy, x, y, dx, masked, mean, var, weight, dgamma, dbeta, sums, counters,
    N, C, S, blocks, parts, m,
    EPS: tl.constexpr, WORK: tl.constexpr, LAST: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """dx, dgamma, dbeta and dy past the ReLU, by groups as in `_train_kernel`."""
    group, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    for block in range(group, blocks, tl.num_programs(0) // parts):
        channel = _channels(block, LAST, COLS)
        offset, mask = _tile(part * ROWS, block, N, C, S, LAST, ROWS, COLS)
        v = tl.load(x + offset, mask, 0.0)
        g = _load_dy(dy, y, offset, mask)
        if masked is not None:
            tl.store(masked + offset, g, mask)
        mu, inv_std = _vector(mean, channel, C), 1 / tl.sqrt(_vector(var, channel, C) + EPS)
        g2 = g.to(tl.float64)
        a, b = _sums(g2, g2 * (v.to(tl.float64) - _row(mu, LAST)), LAST)
        if counters is not None:
            _store_sums(sums, a, b, part, channel, C, parts)
            _meet(counters + block, parts)
            a, b = _load_sums(sums, channel, C, parts, LAST, PARTS)
        tl.store(dbeta + channel, a, (channel < C) & (part == 0))
        tl.store(dgamma + channel, b * inv_std, (channel < C) & (part == 0))
        scale, high, low, slope = _line(mu, inv_std, WORK)
        g_high, g_low, along, g_slope = _dx_line(a, b, inv_std, weight, channel, C, m, WORK)
        _store_dx(
            dx, g, v, scale, high, low, slope.to(WORK), g_high, g_low, along, g_slope, offset, mask,
            WORK, LAST,
        )  # fmt: skip


# Launching them


def train(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
    *,
    single_read: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Normalize with the statistics of the mini-batch.

    .. math:: y = \operatorname{relu}\left(\gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}
        + \beta + \text{residual}\right)

    Args:
        x: mini-batch, `(N, C)` or `(N, C, *spatial)`, at least 2 values per channel.
        weight: γ, (C,), or None for 1.
        bias: β, (C,), or None for 0.
        eps: added to the variance, in units of x²; positive.
        residual: of x's shape, or None for 0.
        relu: whether there is a ReLU.
        single_read: whether one kernel reads x once; None for yes where a program holds a channel.

    Returns:
        y, of x's shape and dtype, channels last where x has its channels side by side, else
        contiguous; mean and biased variance, (C,), float64.

    Raises:
        ValueError: single_read is True, and a channel is too large for the registers of the GPU.

    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    plan = _Plan(x, 1, single_read)
    x, residual = _dense(x, plan.last), _dense(residual, plan.last)
    y = torch.empty_like(x)
    mean, var = x.new_empty((2, plan.C), dtype=torch.float64)
    sums, counters = plan.workspace()
    vectors = _dense(weight), _dense(bias), mean, var
    with torch.cuda.device_of(x):
        if plan.once:
            _train_kernel[plan.grid](
                x, y, residual, *vectors, sums, counters, **plan.arguments, EPS=eps, RELU=relu
            )
        else:
            line = plan.new_line(5)
            _sums_kernel[plan.grid](x, sums, **plan.arguments)
            _y_line_kernel[plan.line_grid](x, *vectors, sums, line, **plan.line, S=plan.S, EPS=eps)
            _y_kernel[plan.second_grid](x, y, residual, line, **plan.second, RELU=relu)
    return y, mean, var


def inference(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """Normalize with given statistics.

    Args:
        x, weight, bias, eps, residual, relu: as in `train`.
        mean: (C,), floating-point.
        var: (C,), floating-point, in units of x².

    Returns:
        y, as in `train`.

    Source: Ioffe & Szegedy 2015, algorithm 2.
    """
    plan = _Plan(x, 1, False)
    x, residual = _dense(x, plan.last), _dense(residual, plan.last)
    y = torch.empty_like(x)
    vectors = (_dense(v) for v in (weight, bias, mean, var))
    line = plan.new_line(5)
    with torch.cuda.device_of(x):
        _y_line_kernel[plan.line_grid](x, *vectors, None, line, **plan.line, S=plan.S, EPS=eps)
        _y_kernel[plan.second_grid](x, y, residual, line, **plan.second, RELU=relu)
    return y


def backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
    y: Tensor | None = None,
    *,
    needs_dresidual: bool = True,
    single_read: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    r"""Derivatives of the loss.

    .. math:: dx = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} \left(dy
        - \overline{dy} - \hat{x} \cdot \overline{dy\,\hat{x}}\right), \qquad
        d\gamma = \sum dy\,\hat{x}, \qquad d\beta = \sum dy

    With a ReLU, dy in these formulas is 0 where y is not positive; it is also dresidual.

    Args:
        dy: derivative with respect to y, of y's shape and dtype.
        x: mini-batch, as in `train`.
        mean: from `train`, (C,), float64.
        var: likewise.
        weight: γ, (C,), or None for 1.
        eps: as in `train`.
        y: from `train`, where there was a ReLU, else None.
        needs_dresidual: whether dresidual is wanted.
        single_read: as in `train`, for both x and dy.

    Returns:
        dx, as y in `train`; dgamma and dbeta, (C,), float64; dresidual, which is dy itself without
        a ReLU, or None if it is not wanted.

    Raises:
        ValueError: single_read is True, and a channel is too large for the registers of the GPU.

    Source: Ioffe & Szegedy 2015, section 3; chapter "The backward pass".
    """
    plan = _Plan(x, 2, single_read)
    dy, x, y = (_dense(v, plan.last) for v in (dy, x, y))
    dx = torch.empty_like(x)
    masked = torch.empty_like(x) if y is not None and needs_dresidual else None
    dgamma, dbeta = x.new_empty((2, plan.C), dtype=torch.float64)
    sums, counters = plan.workspace()
    mean, var, weight = _dense(mean), _dense(var), _dense(weight)
    vectors = mean, var, weight, dgamma, dbeta
    with torch.cuda.device_of(x):
        if plan.once:
            _backward_kernel[plan.grid](
                dy, x, y, dx, masked, *vectors, sums, counters, **plan.arguments, EPS=eps
            )
        else:
            _dy_sums_kernel[plan.grid](dy, x, y, masked, mean, sums, **plan.arguments)
            if masked is not None:  # it spares reading y again
                dy, y = masked, None
            line = plan.new_line(8)
            _dx_line_kernel[plan.line_grid](*vectors, sums, line, **plan.line, EPS=eps)
            _dx_kernel[plan.second_grid](dy, x, y, dx, line, **plan.second)
    dresidual = dy if masked is None else masked
    return dx, dgamma, dbeta, dresidual if needs_dresidual else None


# The same in two halves, for where other devices have a say in what the sums decide


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,), float64."""
    plan = _Plan(x, 1, False)
    x = _dense(x, plan.last)
    mean, var = x.new_empty((2, plan.C), dtype=torch.float64)
    sums, _ = plan.workspace()
    with torch.cuda.device_of(x):
        _sums_kernel[plan.grid](x, sums, **plan.arguments)
        _y_line_kernel[plan.line_grid](
            x, None, None, mean, var, sums, plan.new_line(5), **plan.line, S=plan.S, EPS=1.0
        )
    return mean, var


def sums(dy: Tensor, x: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """dgamma = Σ dy x̂ and dbeta = Σ dy, (C,), float64, as in `backward`."""
    plan = _Plan(x, 2, False)
    dy, x = _dense(dy, plan.last), _dense(x, plan.last)
    parts, _ = plan.workspace()
    with torch.cuda.device_of(x):
        _dy_sums_kernel[plan.grid](dy, x, None, None, _dense(mean), parts, **plan.arguments)
    dbeta, products = parts.sum(1)
    return products / (var.double() + eps).sqrt(), dbeta


def gradient(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: Tensor | None,
    eps: float,
    dgamma: Tensor,
    dbeta: Tensor,
    m: int,
) -> Tensor:
    """dx from the sums over all m values of a channel."""
    plan = _Plan(x, 2, False)
    dy, x = _dense(dy, plan.last), _dense(x, plan.last)
    dx, line = torch.empty_like(x), plan.new_line(8)
    whole = torch.stack([dbeta, dgamma * (var + eps).sqrt()])  # as `_dy_sums_kernel` has them
    vectors = mean, var, _dense(weight), torch.empty_like(mean), torch.empty_like(mean)
    one = plan.line | {"m": m, "parts": 1, "PARTS": 1}
    with torch.cuda.device_of(x):
        _dx_line_kernel[plan.line_grid](*map(_dense, vectors), whole, line, **one, EPS=eps)
        _dx_kernel[plan.second_grid](dy, x, None, dx, line, **plan.second)
    return dx


class _Plan:
    """x as (N, C, S), and how its tiles are shared out among programs: grids and arguments.

    Args:
        x: mini-batch, in any memory format.
        tensors: how many of its size the one kernel has to hold.
        single_read: as in `train`.
    """

    def __init__(self, x: Tensor, tensors: int, single_read: bool | None) -> None:
        self.x, self.C, S = x, x.shape[1], math.prod(x.shape[2:])
        self.last = self.C > 1 and (S == 1 or x.stride(1) == 1)  # channels are side by side
        self.S = 1 if self.last else x.numel() if self.C == 1 else S
        self.N = x.numel() // (self.C * self.S)
        units = 4  # multiprocessors; any number will do for the interpreter
        if x.is_cuda:
            units = torch.cuda.get_device_properties(x.device).multi_processor_count
        held, resident, wanted = _HELD // tensors, _RESIDENT * units, _PROGRAMS * units

        self._cut(held, 32)
        self.once = single_read is not False and (self.tiles == 1 or bool(single_read))
        if (
            self.once
            and self.tiles > 1
            and all(self._cut(held, w) > resident for w in (128, 64, 32))
        ):
            raise ValueError(
                f"single_read is True, and x has shape {tuple(x.shape)}, {self.tiles} programs "
                f"for a channel; expected at most {resident}, what this GPU runs at a time"
            )
        if not self.once:
            self._cut(_TILE, 128)

        common = {
            "N": self.N,
            "C": self.C,
            "S": self.S,
            "blocks": self.blocks,
            "LAST": self.last,
            "ROWS": self.rows,
            "COLS": self.cols,
        }
        work = {"WORK": tl.float64 if x.dtype == torch.float64 else tl.float32}
        if self.once:
            self.parts = self.tiles
            groups = min(self.blocks, resident // self.parts) if self.parts > 1 else self.blocks
            self.grid = (groups * self.parts,)
            self.arguments = (common | work) | {
                "m": self.N * self.S,
                "parts": self.parts,
                "PARTS": triton.next_power_of_2(self.parts),
                "num_warps": max(1, min(8, self.rows * self.cols // 512)),
            }
            if self.parts > 1:
                self.arguments |= {"num_warps": 8, "maxnreg": 128, "launch_cooperative_grid": True}
        else:
            self.parts = min(self.tiles, triton.cdiv(wanted, self.blocks))
            self.grid = (self.blocks * self.parts,)
            self.arguments = common | {"tiles": self.tiles, "parts": self.parts}
            PARTS = min(512, triton.next_power_of_2(self.parts))
            CHANNELS = max(4, 128 // PARTS)  # at least 32 bytes of float64
            self.line_grid = (triton.cdiv(self.C, CHANNELS),)
            self.line = work | {
                "C": self.C,
                "m": self.N * self.S,
                "parts": self.parts,
                "CHANNELS": CHANNELS,
                "PARTS": PARTS,
            }
            each = max(1, min(_EACH, self.blocks * self.tiles // wanted))
            self.second_grid = (self.blocks * triton.cdiv(self.tiles, each),)
            self.second = (common | work) | {"tiles": self.tiles, "EACH": each}

    def _cut(self, values: int, width: int) -> int:
        """How many tiles a block has: up to `values` values, and `width` bytes of channels."""
        if self.last:
            cols = min(width // self.x.element_size(), triton.next_power_of_2(self.C))
            self.blocks, rows = triton.cdiv(self.C, cols), self.N
        else:
            cols = min(64, triton.next_power_of_2(self.S))
            self.blocks, rows = self.C, self.N * triton.cdiv(self.S, cols)
        self.cols, self.rows = cols, min(values // cols, triton.next_power_of_2(rows))
        self.tiles: int = triton.cdiv(rows, self.rows)
        return self.tiles

    def new_line(self, rows: int) -> Tensor:
        """Room for constants of each channel, (rows, C), in the dtype of the arithmetic."""
        dtype = torch.promote_types(self.x.dtype, torch.float32)
        return self.x.new_empty((rows, self.C), dtype=dtype)

    def workspace(self) -> tuple[Tensor, Tensor | None]:
        """Sums of all parts, (2, parts, C), and a counter for each block, if its programs meet."""
        sums = self.x.new_empty((2, self.parts, self.C), dtype=torch.float64)
        if self.once and self.parts > 1:
            return sums, self.x.new_zeros(self.blocks, dtype=torch.int32)
        return sums, None


def _dense(v: Tensor | None, last: bool = False) -> Any:
    """v in contiguous memory, or in channels-last memory."""
    if v is None:
        return None
    return v.movedim(1, -1).contiguous().movedim(-1, 1) if last else v.contiguous()
