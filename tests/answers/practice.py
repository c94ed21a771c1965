"""Answers to the exercises on what to do as readers may write them, right and wrong."""

import numpy as np


def momentum_by_halving(steps, left):
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** steps > left else (low, middle)
    return high


def statistics_by_covariance(x, weights):
    """The variance of a sum is a quadratic form."""
    w = sum(weights) / len(weights)
    return [w @ x.mean(axis=0), np.einsum("oi,ij,oj->o", w, np.cov(x.T, bias=True), w)]


def statistics_by_pairs(x, weights):
    """The mean of all covariances between two networks, their own variances among them."""
    y = np.einsum("ni,koi->kno", x, weights)
    d = y - y.mean(axis=1, keepdims=True)
    return y.mean(axis=(0, 1)), np.einsum("kno,lno->o", d, d) / (len(x) * len(weights) ** 2)


def statistics_in_loops(x, weights):
    found = []
    for o in range(weights.shape[1]):
        y = [np.mean([row @ w[o] for w in weights]) for row in x]
        found.append((np.mean(y), np.mean(np.square(y)) - np.mean(y) ** 2))
    return tuple(np.array(found).T)


ANSWERS = {
    "smallest-momentum": {
        "right": {
            "by logarithms": lambda steps, left: -np.expm1(np.log(left) / steps),
            "by halving": momentum_by_halving,
            "as an array of one": lambda steps, left: np.array(1 - np.power(left, 1 / steps)),
        },
        "wrong": {
            "one step more": lambda steps, left: 1 - left ** (1 / (steps + 1)),
            "to first order": lambda steps, left: -np.log(left) / steps,
            "rounded": lambda steps, left: round(1 - left ** (1 / steps), 4),
        },
    },
    "averaged-statistics": {
        "right": {
            "by the covariance of x": statistics_by_covariance,
            "by pairs of networks": statistics_by_pairs,
            "in loops": statistics_in_loops,
        },
        "wrong": {
            "the outputs of the networks as one sample": lambda x, weights: (
                (x @ weights.transpose(0, 2, 1)).mean(axis=(0, 1)),
                (x @ weights.transpose(0, 2, 1)).var(axis=(0, 1)),
            ),
            "the variance of an average of independent networks": lambda x, weights: (
                (x @ weights.mean(axis=0).T).mean(axis=0),
                (x @ weights.transpose(0, 2, 1)).var(axis=1).mean(axis=0) / len(weights),
            ),
            "the mean forgotten in the variance": lambda x, weights: (
                (x @ weights.mean(axis=0).T).mean(axis=0),
                ((x @ weights.mean(axis=0).T) ** 2).mean(axis=0),
            ),
        },
    },
}
