"""Answers to the exercises on BatchNorm's relatives as readers may write them, right and wrong."""

import numpy as np


def rms_in_loops(dy, x, gamma, eps):
    dx = np.zeros(x.shape)
    for n in range(len(x)):
        r = np.sqrt(np.mean(x[n] ** 2) + eps)
        along = np.mean(gamma * dy[n] * x[n]) / r
        for c in range(x.shape[1]):
            dx[n, c] = (gamma[c] * dy[n, c] - x[n, c] / r * along) / r
    return dx


def rms_by_matrices(dy, x, gamma, eps):
    """The Jacobian of each example, (I − x̂ x̂ᵀ/m) / r."""
    found = []
    for row, g in zip(x, dy * gamma, strict=True):
        r = (row @ row / len(row) + eps) ** 0.5
        found.append((np.eye(len(row)) - np.outer(row, row) / r**2 / len(row)) @ g / r)
    return found


def rms_with(dy, x, gamma, eps):
    r2 = np.einsum("nc,nc->n", x, x)[:, None] / x.shape[1] + eps
    g = dy * gamma
    return g * r2**-0.5 - x * r2**-1.5 * np.einsum("nc,nc->n", g, x)[:, None] / x.shape[1]


def weights_in_a_loop(dw, v, g):
    dv, dg = np.zeros_like(v), np.zeros(len(v))
    for o, row in enumerate(v):
        n = np.linalg.norm(row)
        dg[o] = dw[o] @ row / n
        dv[o] = g[o] * (dw[o] / n - row * (dw[o] @ row) / n**3)
    return dv, dg


def weights_by_projection(dw, v, g):
    n = np.linalg.norm(v, axis=1)
    keep = np.eye(v.shape[1]) - np.einsum("oi,oj->oij", v, v) / n[:, None, None] ** 2
    return np.einsum("oij,oj->oi", keep, dw) * (g / n)[:, None], (dw * v).sum(1) / n


def weights_in_float32(dw, v, g):
    """As in the task, where no dtype is asked for, but through squares of the length."""
    n2 = (v * v).sum(1, keepdims=True)
    dg = (dw * v).sum(1, keepdims=True) / np.sqrt(n2)
    return [g[:, None] / np.sqrt(n2) * dw - g[:, None] * dg * v / n2, dg[:, 0]]


def padded_by_channel(x, lengths, eps):
    x_hat = np.zeros(x.shape)
    for c in range(x.shape[1]):
        values = np.concatenate([row[c, :length] for row, length in zip(x, lengths, strict=True)])
        for n, length in enumerate(lengths):
            x_hat[n, c, :length] = (x[n, c, :length] - values.mean()) / (values.var() + eps) ** 0.5
    return x_hat


def padded_with_nan(x, lengths, eps):
    """What is padding is no number, and what is none becomes 0."""
    holes = np.where(np.arange(x.shape[2]) < lengths[:, None, None], x, np.nan)
    mean, var = (f(holes, axis=(0, 2), keepdims=True) for f in (np.nanmean, np.nanvar))
    return np.nan_to_num((holes - mean) / np.sqrt(var + eps))


def padded_with(x, lengths, eps, less=0, fill=0.0):
    inside = np.broadcast_to(np.arange(x.shape[2]) < lengths[:, None, None], x.shape)
    found = np.full(x.shape, fill)
    for c in range(x.shape[1]):
        values = x[:, c][inside[:, c]]
        found[:, c][inside[:, c]] = (values - values.mean()) / np.sqrt(values.var(ddof=less) + eps)
    return found


ANSWERS = {
    "rms-backward": {
        "right": {
            "in loops": rms_in_loops,
            "by Jacobians": rms_by_matrices,
            "with powers of r²": rms_with,
        },
        "wrong": {
            "|γ| for γ": lambda dy, x, gamma, eps: rms_with(dy, x, abs(gamma), eps),
            "ε is inside the mean": lambda dy, x, gamma, eps: rms_with(
                dy, x, gamma, eps * x.shape[1]
            ),
            "one root mean square for all examples": lambda dy, x, gamma, eps: (
                (gamma * dy - x * (gamma * dy * x).mean(1, keepdims=True) / ((x * x).mean() + eps))
                / np.sqrt((x * x).mean() + eps)
            ),
            "no ε": lambda dy, x, gamma, eps: rms_with(dy, x, gamma, 0),
        },
    },
    "weight-norm-backward": {
        "right": {
            "in a loop": weights_in_a_loop,
            "by projections": weights_by_projection,
            "through squares of the length": weights_in_float32,
        },
        "wrong": {
            "|g| for g": lambda dw, v, g: (weights_in_a_loop(dw, v, abs(g))[0], (dw * v).sum(1)),
            "the projection is on dw": lambda dw, v, g: (
                g[:, None] * v / np.linalg.norm(v, axis=1)[:, None],
                weights_in_a_loop(dw, v, g)[1],
            ),
            "dg as for the product with dw's length": lambda dw, v, g: (
                weights_in_a_loop(dw, v, g)[0],
                np.linalg.norm(dw, axis=1),
            ),
            "the root mean square for the length": lambda dw, v, g: weights_in_a_loop(
                dw, v, g * np.sqrt(v.shape[1])
            ),
        },
    },
    "padded-batch-norm": {
        "right": {
            "channel by channel": padded_by_channel,
            "with NaN in the padding": padded_with_nan,
            "by a mask of all values": padded_with,
        },
        "wrong": {
            "the unbiased variance": lambda x, lengths, eps: padded_with(x, lengths, eps, less=1),
            "the padding is NaN": lambda x, lengths, eps: padded_with(x, lengths, eps, fill=np.nan),
            "the padding stays what it was": lambda x, lengths, eps: np.where(
                np.arange(x.shape[2]) < lengths[:, None, None], padded_with(x, lengths, eps), x
            ),
            "the padding is zeroed first and counts": lambda x, lengths, eps: (
                zeroed := np.where(np.arange(x.shape[2]) < lengths[:, None, None], x, 0.0),
                padded_with(zeroed, 0 * lengths + x.shape[2], eps),
            )[1],
            "ends are one too early": lambda x, lengths, eps: padded_with(x, lengths - 1, eps),
        },
    },
}
