"""Answers to the exercises on why BatchNorm works: unusual styles, right and wrong.

Each entry says how it is right, or what is wrong with it.
"""

import math
import statistics

import numpy as np


def rank_of_matrix(k):
    return np.trace(k) ** 2 / np.trace(k @ k)


def rank_in_loops(h):
    squares = fourth = 0.0
    for row in h:
        for other in h:
            overlap = sum(a * b for a, b in zip(row, other, strict=True))
            fourth += overlap**2
        squares += row @ row
    return squares**2 / fourth


def iterate(hessian, v, iterations):
    for _ in range(iterations):
        v = hessian @ v
        v /= abs(v).max()
    return v


def quotient_of(hessian, v):
    return (v @ hessian @ v) / (v @ v)


def eigenvalue_by_a_power(hessian, v, iterations):
    v = np.linalg.matrix_power(hessian / np.linalg.norm(hessian), iterations) @ v
    return quotient_of(hessian, v)


def eigenvalue_by_the_spectrum(hessian, v, iterations):
    values, vectors = np.linalg.eigh(hessian)
    scale = abs(values).max()
    parts = (vectors.T @ v * (values / scale) ** iterations) ** 2
    return (parts * values).sum() / parts.sum()


def share_in_loops(plain, batch_norm, other):
    chosen = []
    for arm in plain, batch_norm, other:
        medians = [statistics.median(column) for column in arm.T]
        chosen.append(arm[:, medians.index(max(medians))])
    return [(o - p) / (b - p) for p, b, o in zip(*chosen, strict=True)]


def share_sorted(plain, batch_norm, other):
    p, b, o = (a[:, np.sort(a, axis=0)[len(a) // 2].argmax()] for a in (plain, batch_norm, other))
    return 1 - (b - o) / (b - p)


def share_by_take(plain, batch_norm, other):
    arms = np.stack([plain, batch_norm, other])
    at = np.quantile(arms, 0.5, axis=1).argmax(1)
    p, b, o = arms[np.arange(3), :, at]
    return np.divide(o - p, b - p)


def best(a):
    return a[:, np.median(a, axis=0).argmax()]


ANSWERS = {
    "effective-rank": {
        "right": {
            "by traces of the units' products": lambda h: rank_of_matrix(h.T @ h),
            "by traces of the images' products": lambda h: rank_of_matrix(h @ h.T),
            "in loops over images": rank_in_loops,
            "by eigenvalues": lambda h: (
                (e := np.linalg.eigvalsh(h.T @ h)).sum() ** 2 / (e**2).sum()
            ),
        },
        "wrong": {
            "the rank": lambda h: np.linalg.matrix_rank(h),
            "the exponential of the entropy": lambda h: math.exp(
                -((p := (s := np.linalg.svd(h)[1] ** 2) / s.sum()) * np.log(p + 1e-300)).sum()
            ),
            "of the correlations": lambda h: rank_of_matrix(np.corrcoef(h.T + 1e-12)),
            "of the covariance": lambda h: rank_of_matrix(np.cov(h.T) + 1e-12),
        },
    },
    "power-iteration": {
        "right": {
            "by a power of the matrix": eigenvalue_by_a_power,
            "by the largest entry": lambda hessian, v, iterations: quotient_of(
                hessian, iterate(hessian, v, iterations)
            ),
            "in the eigenvectors": eigenvalue_by_the_spectrum,
        },
        "wrong": {
            "the eigenvalue itself": lambda hessian, v, iterations: max(
                np.linalg.eigvalsh(hessian), key=abs
            ),
            "the largest eigenvalue, not that of largest size": lambda hessian, v, iterations: (
                np.linalg.eigvalsh(hessian).max()
            ),
            "a ratio of two entries": lambda hessian, v, iterations: (
                (hessian @ (w := iterate(hessian, v, iterations)))[0] / w[0]
            ),
            "the quotient of vectors of length 1, forgotten": lambda hessian, v, iterations: (
                (w := iterate(hessian, v, iterations)) @ hessian @ w
            ),
        },
    },
    "growth-factor": {
        "right": {
            "by lengths": lambda a, slope: (
                np.linalg.norm(slope) / np.linalg.norm(a - a.sum() / a.size)
            ),
            "number by number": lambda a, slope: math.sqrt(
                sum(s * s for s in slope) / (len(a) * statistics.pvariance(a.tolist()))
            ),
            "from two moments": lambda a, slope: (
                ((slope @ slope) / (a @ a - a.sum() ** 2 / len(a))) ** 0.5
            ),
        },
        "wrong": {
            "that of ReLUs": lambda a, slope: math.sqrt(math.pi / (math.pi - 1)),
            "slopes and values in deviations": lambda a, slope: slope.std() / a.std(),
            "the mean size of the slopes": lambda a, slope: abs(slope).mean() / a.std(),
            "the median slope": lambda a, slope: np.median(slope) / a.std(),
        },
    },
    "share-of-gain": {
        "right": {
            "in loops": share_in_loops,
            "the rest of what is left": share_sorted,
            "by quantiles": share_by_take,
        },
        "wrong": {
            "of medians, not seed by seed": lambda plain, batch_norm, other: np.full(
                len(plain),
                (np.median(best(other)) - np.median(best(plain)))
                / (np.median(best(batch_norm)) - np.median(best(plain))),
            ),
            "the other arm at BatchNorm's rate": lambda plain, batch_norm, other: (
                (other[:, np.median(batch_norm, axis=0).argmax()] - best(plain))
                / (best(batch_norm) - best(plain))
            ),
            "of errors, in logarithms": lambda plain, batch_norm, other: (
                np.log((1 - best(other)) / (1 - best(plain)))
                / np.log((1 - best(batch_norm)) / (1 - best(plain)))
            ),
        },
    },
}
