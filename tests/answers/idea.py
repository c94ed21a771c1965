"""Answers to the exercises of part I as readers may write them: unusual styles, right and wrong.

Each entry says how it is right, or what is wrong with it.
"""

import functools
import math
import statistics

import numpy as np


def complex_step(forward, x, dy):
    """The gradient of Σ y·dy for y = forward(x), exact to rounding, one entry at a time."""
    gradient = np.empty(x.shape)
    for at in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[at] += 1e-30j
        gradient[at] = (forward(moved) * dy).sum().imag / 1e-30
    return gradient


def x_hat_of(x, eps, axis=0, less=0):
    """x̂, also of complex numbers; the variance is divided by the count less `less`."""
    d = x - x.mean(axis, keepdims=True)
    n = d.size / d.sum(axis, keepdims=True).size
    return d / np.sqrt((d * d).sum(axis, keepdims=True) / (n - less) + eps)


def dx_of(x, g, eps, axis=0):
    x_hat, inv_std = x_hat_of(x, eps, axis), 1 / np.sqrt(x.var(axis, keepdims=True) + eps)
    along = (g * x_hat).mean(axis, keepdims=True)
    return (g - g.mean(axis, keepdims=True) - x_hat * along) * inv_std


def sigmoid(u):
    return 0.5 * (1 + np.tanh(0.5 * u))


def slope_in_a_loop(u):
    slope = np.zeros_like(u)
    for at, v in np.ndenumerate(u):
        z = math.exp(-abs(v))
        slope[at] = z / (1 + z) / (1 + z)
    return slope


EDGE = np.log((1 + 0.9**0.5) / (1 - 0.9**0.5))  # of the flat part of a sigmoid


def whiten_by_newton(x, eps):
    """Denman and Beavers: Z goes to the inverse root of A."""
    d = x - x.mean(0)
    y, z = d.T @ d / len(x) + eps * np.eye(x.shape[1]), np.eye(x.shape[1])
    for _ in range(60):
        y, z = (y + np.linalg.inv(z)) / 2, (z + np.linalg.inv(y)) / 2
    return d @ z


def whiten_by_svd(x, eps):
    u, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    return u * (s / np.sqrt(s**2 / len(x) + eps)) @ vt


def whiten_by_solving(x, eps):
    values, vectors = np.linalg.eig(np.cov(x.T, bias=True) + eps * np.eye(x.shape[1]))
    root = vectors @ np.diag(np.sqrt(values)) @ np.linalg.inv(vectors)
    return np.linalg.solve(root.T, (x - x.mean(0)).T).T


def whiten_by_cholesky(x, eps):
    d = x - x.mean(0)
    root = np.linalg.cholesky(d.T @ d / len(x) + eps * np.eye(x.shape[1]))
    return np.linalg.solve(root, d.T).T


def whiten_with_a_reflection(x, eps):
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    signs = np.where(np.arange(len(values)) == 0, -1, 1)
    return (x - x.mean(0)) @ vectors * signs / np.sqrt(values + eps) @ vectors.T


def whiten_with_eps_everywhere(x, eps):
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True) + eps)
    return (x - x.mean(0)) @ vectors / np.sqrt(values) @ vectors.T


def normalize_in_loops(x, eps):
    y = np.zeros(x.shape)
    for c in range(x.shape[1]):
        mean = sum(x[:, c]) / len(x)
        var = sum((v - mean) ** 2 for v in x[:, c]) / len(x)
        for i in range(len(x)):
            y[i, c] = (x[i, c] - mean) / (var + eps) ** 0.5
    return y


def normalize_by_a_matrix(x, eps):
    m = len(x)
    d = (np.eye(m) - 1 / m) @ x
    return d @ np.diag(np.diag(d.T @ d / m + eps) ** -0.5)


def smallest_std_by_bisection(share, eps):
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if middle / math.hypot(middle, eps**0.5) < share else (low, middle)
        )
    return high


def centering_gradient_in_loops(dx_hat):
    m, c = dx_hat.shape
    dx = np.zeros((m, c))
    for i in range(m):
        for j in range(m):
            dx[i] += dx_hat[j] * ((i == j) - 1 / m)
    return dx


def parameter_gradients_in_loops(x, dy, eps):
    dgamma, dbeta = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for row, d in zip(x_hat_of(x, eps), dy, strict=True):
        dgamma += row * d
        dbeta += d
    return dgamma, dbeta


def input_gradient_by_jacobians(x, gamma, dy, eps):
    m, columns = len(x), []
    for c in range(x.shape[1]):
        x_hat = x_hat_of(x, eps)[:, c]
        jacobian = np.eye(m) - np.ones((m, m)) / m - np.outer(x_hat, x_hat) / m
        columns.append(gamma[c] / np.sqrt(x[:, c].var() + eps) * jacobian @ dy[:, c])
    return np.column_stack(columns)


def input_gradient_step_by_step(x, gamma, dy, eps):
    """As in the paper."""
    m, d = len(x), x - x.mean(0)
    var = x.var(0)
    dx_hat = dy * gamma
    dvar = (dx_hat * d).sum(0) * -0.5 * (var + eps) ** -1.5
    dmean = -dx_hat.sum(0) / np.sqrt(var + eps) + dvar * (-2 * d).sum(0) / m
    return dx_hat / np.sqrt(var + eps) + dvar * 2 * d / m + dmean / m


def project_by_qr(x, g):
    rest = np.empty(g.shape)
    for c in range(x.shape[1]):
        q, _ = np.linalg.qr(np.column_stack([np.ones(len(x)), x[:, c]]))
        rest[:, c] = g[:, c] - q @ (q.T @ g[:, c])
    return rest


def project_by_fits(x, g):
    fits = [np.polyval(np.polyfit(a, b, 1), a) for a, b in zip(x.T, g.T, strict=True)]
    return g - np.stack(fits, axis=1)


def project_by_a_matrix(x, g):
    m, x_hat = len(x), x_hat_of(x, 0)
    return np.stack(
        [
            (np.eye(m) - 1 / m - np.outer(h, h) / m) @ column
            for h, column in zip(x_hat.T, g.T, strict=True)
        ],
        axis=1,
    )


def moving_by_recursion(means, momentum):
    if len(means) == 0:
        return np.zeros(means.shape[1])
    return (1 - momentum) * moving_by_recursion(means[:-1], momentum) + momentum * means[-1]


def moving(means, momentum, start=0.0):
    return functools.reduce(lambda old, new: old + momentum * (new - old), means, start)


def first_steps_with_a_weight(running, momentum, batches):
    seen = 0
    for _ in range(batches):
        seen = (1 - momentum) * seen + momentum
    return running / seen


def pool_one_by_one(counts, means, variances):
    n, mean, m2 = counts[0], means[0], counts[0] * variances[0]
    for k in range(1, len(counts)):
        delta, total = means[k] - mean, n + counts[k]
        mean = mean + delta * counts[k] / total
        m2 = m2 + counts[k] * variances[k] + delta**2 * n * counts[k] / total
        n = total
    return mean, m2 / n


def pool_with(counts, means, variances, center, weights):
    mean = np.average(means, axis=0, weights=counts)
    spread = np.average((means - center) ** 2, axis=0, weights=weights)
    return mean, np.average(variances, axis=0, weights=counts) + spread


def renormalize_in_loops(x, mean, std, r_max, d_max, eps):
    y = np.zeros_like(x)
    for c in range(x.shape[1]):
        sigma = (x[:, c].var() + eps) ** 0.5
        r = min(max(sigma / std[c], 1 / r_max), r_max)
        d = min(max((x[:, c].mean() - mean[c]) / std[c], -d_max), d_max)
        y[:, c] = (x[:, c] - x[:, c].mean()) / sigma * r + d
    return y


def renormalized(x, r, d, eps):
    return x_hat_of(x, eps) * r + d


def fold_in_loops(weight, bias, mean, var, gamma, beta, eps):
    new_weight, new_bias = np.zeros(weight.shape), np.zeros(bias.shape)
    for c, row in enumerate(weight):
        a = gamma[c] / math.sqrt(var[c] + eps)
        new_weight[c], new_bias[c] = a * row, beta[c] + a * (bias[c] - mean[c])
    return new_weight, new_bias


def fold_by_asking(weight, bias, mean, var, gamma, beta, eps):
    """Run both layers on nothing and on each unit vector."""

    def both(u):
        return gamma * (u @ weight.T + bias - mean) / np.sqrt(var + eps) + beta

    new_bias = both(np.zeros(weight.shape[1]))
    return (both(np.eye(weight.shape[1])) - new_bias).T, new_bias


def fold_with(a, weight, bias, mean, beta):
    return weight * a[:, None], (bias - mean) * a + beta


def statistics_in_loops(x):
    by_channel = [[v for image in x for v in image[c].flat] for c in range(x.shape[1])]
    return [statistics.fmean(v) for v in by_channel], [statistics.pvariance(v) for v in by_channel]


def any_rank_by_moving_the_axis(x, gamma, beta, eps):
    last = np.moveaxis(x, 1, -1)
    flat = last.reshape(-1, x.shape[1])
    y = gamma * (flat - flat.mean(0)) / np.sqrt(flat.var(0) + eps) + beta
    return np.moveaxis(y.reshape(last.shape), -1, 1)


def any_rank_by_einsum(x, gamma, beta, eps):
    flat = x.reshape(*x.shape[:2], -1)
    m = flat.shape[0] * flat.shape[2]
    d = flat - np.einsum("ncs->c", flat)[:, None] / m
    a = gamma / np.sqrt(np.einsum("ncs,ncs->c", d, d) / m + eps)
    return (np.einsum("ncs,c->ncs", d, a) + beta[:, None]).reshape(x.shape)


def any_rank_channel_by_channel(x, gamma, beta, eps):
    y = x.copy()
    for c in range(x.shape[1]):
        one = y[:, c]
        one -= one.mean()
        one *= gamma[c] / np.sqrt(np.mean(one**2) + eps)
        one += beta[c]
    return y


def like_channels(v, x):
    return v.reshape(-1, *[1] * (x.ndim - 2))


def any_rank_with(x, gamma, beta, eps, axes):
    return like_channels(gamma, x) * x_hat_of(x, eps, axes) + like_channels(beta, x)


def all_but_channels(x):
    return tuple(i for i in range(x.ndim) if i != 1)


def image_gradient_flat(x, dy, eps):
    def rows(v):
        return v.transpose(0, 2, 3, 1).reshape(-1, v.shape[1])

    n, c, h, w = x.shape
    return dx_of(rows(x), rows(dy), eps).reshape(n, h, w, c).transpose(0, 3, 1, 2)


def image_gradient_by_sums(x, dy, eps):
    axes, m = (0, 2, 3), x.size / x.shape[1]
    x_hat = x_hat_of(x, eps, axes)
    dgamma, dbeta = (dy * x_hat).sum(axes), dy.sum(axes)
    inv_std = (x.var(axes) + eps) ** -0.5
    pieces = m * dy - dbeta[:, None, None] - x_hat * dgamma[:, None, None]
    return inv_std[:, None, None] / m * pieces


def group_norm_in_loops(x, groups, eps):
    y, size = np.zeros_like(x), x.shape[1] // groups
    for n in range(len(x)):
        for first in range(0, x.shape[1], size):
            group = x[n, first : first + size]
            y[n, first : first + size] = (group - group.mean()) / np.sqrt(group.var() + eps)
    return y


def group_norm_by_splitting(x, groups, eps):
    parts = np.split(x, groups, axis=1)
    return np.concatenate([x_hat_of(part, eps, (1, 2, 3)) for part in parts], axis=1)


def group_norm_as_batch_norm(x, groups, eps):
    """Every group of every image is a channel."""
    n, c, h, w = x.shape
    rows = x.reshape(n * groups, c // groups * h * w).T
    return x_hat_of(rows, eps).T.reshape(x.shape)


ANSWERS = {
    "sigmoid-gradient": {
        "right": {
            "1/(2 cosh(u/2)), squared": lambda u: (0.5 / np.cosh(u / 2)) ** 2,
            "by logarithms": lambda u: np.exp(-np.logaddexp(0, u) - np.logaddexp(0, -u)),
            "in a loop": slope_in_a_loop,
        },
        "wrong": {
            "s(u)·s(−u) overflows": lambda u: 1 / (1 + np.exp(-u)) / (1 + np.exp(u)),
            "the branch that is not taken overflows": lambda u: np.where(
                u < 0, np.exp(u) / (1 + np.exp(u)) ** 2, np.exp(-u) / (1 + np.exp(-u)) ** 2
            ),
            "s (1 − s) is 0 at 40": lambda u: sigmoid(u) * (1 - sigmoid(u)),
            "e^−|u| is no smaller than e^−30": lambda u: (
                (z := np.exp(-np.minimum(abs(u), 30))) / (1 + z) ** 2
            ),
        },
    },
    "saturated": {
        "right": {
            "by the bound on |u| that the chapter prints": lambda u: (abs(u) > 3.64).mean(0),
            "by s, which must be near 0 or 1": lambda u: [
                np.count_nonzero(abs(sigmoid(c) - 0.5) > 0.9**0.5 / 2) / len(c) for c in u.T
            ],
            "as a product of truth values": lambda u: (
                np.ones(len(u)) @ (4 / np.cosh(u / 2) ** 2 < 0.4) / len(u)
            ),
        },
        "wrong": {
            "one side is forgotten": lambda u: (u > EDGE).mean(0),
            "divided by m − 1": lambda u: (abs(u) > EDGE).sum(0) / (len(u) - 1),
            "a tenth of the largest gradient seen": lambda u: (
                (s := sigmoid(u) * sigmoid(-u)) < s.max(0) / 10
            ).mean(0),
        },
    },
    "mean-error": {
        "right": {
            "as a power": lambda var, m: (m / var) ** -0.5,
            "one feature after the other": lambda var, m: [math.sqrt(v / m) for v in var],
            "from the variance of the sum": lambda var, m: np.sqrt(m * var) / m,
        },
        "wrong": {
            "in standard deviations": lambda var, m: np.full_like(var, m**-0.5),
            "the features share one variance": lambda var, m: np.full_like(
                var, np.sqrt(var.mean() / m)
            ),
            "the mean absolute error": lambda var, m: np.sqrt(2 / np.pi * var / m),
        },
    },
    "whiten": {
        "right": {
            "by singular values": whiten_by_svd,
            "by an iteration": whiten_by_newton,
            "by a root and a linear system": whiten_by_solving,
        },
        "wrong": {
            "a triangular root": whiten_by_cholesky,
            "a root with a negative eigenvalue": whiten_with_a_reflection,
            "eps in all entries of Σ": whiten_with_eps_everywhere,
            "normalized first": lambda x, eps: whiten_by_svd(x_hat_of(x, 0), eps),
        },
    },
    "normalize": {
        "right": {
            "two loops into zeros": normalize_in_loops,
            "by a matrix": normalize_by_a_matrix,
            "with E[x²] − E[x]²": lambda x, eps: (
                (x - (mean := x.mean(0))) / np.sqrt((x**2).mean(0) - mean**2 + eps)
            ),
        },
        "wrong": {
            "the variance is at least eps": lambda x, eps: (
                (x - x.mean(0)) / np.sqrt(np.maximum(x.var(0), eps))
            ),
            "eps is squared": lambda x, eps: x_hat_of(x, eps**2),
            "about the median": lambda x, eps: (x - np.median(x, 0)) / np.sqrt(x.var(0) + eps),
        },
    },
    "transform": {
        "right": {
            "as x·a + b": lambda x, gamma, beta, eps: (
                x * (a := gamma / np.sqrt(x.var(0) + eps)) + (beta - x.mean(0) * a)
            ),
            "two loops into zeros": lambda x, gamma, beta, eps: (
                normalize_in_loops(x, eps) @ np.diag(gamma) + beta
            ),
            "row by row": lambda x, gamma, beta, eps: [
                [g * v + b for g, v, b in zip(gamma, row, beta, strict=True)]
                for row in x_hat_of(x, eps)
            ],
        },
        "wrong": {
            "|γ| for γ": lambda x, gamma, beta, eps: abs(gamma) * x_hat_of(x, eps) + beta,
            "the variance is at least eps": lambda x, gamma, beta, eps: (
                gamma * (x - x.mean(0)) / np.sqrt(np.maximum(x.var(0), eps)) + beta
            ),
            "1 + γ for γ": lambda x, gamma, beta, eps: (1 + gamma) * x_hat_of(x, eps) + beta,
        },
    },
    "undo": {
        "right": {
            "by Pythagoras": lambda x, eps: (np.hypot(x.std(0), eps**0.5), x.mean(0)),
            "as two rows": lambda x, eps: np.stack([(x.var(0) + eps) ** 0.5, x.mean(0)]),
            "by straight lines": lambda x, eps: (
                np.array(
                    [np.polyfit(a, b, 1) for a, b in zip(x_hat_of(x, eps).T, x.T, strict=True)]
                ).T
            ),
        },
        "wrong": {
            "eps outside the root": lambda x, eps: (x.std(0) + eps, x.mean(0)),
            "the default eps, not the one given": lambda x, eps: (
                np.sqrt(x.var(0) + 1e-5),
                x.mean(0),
            ),
            "the mean is divided by γ": lambda x, eps: (
                gamma := np.sqrt(x.var(0) + eps),
                x.mean(0) / gamma,
            ),
        },
    },
    "smallest-std": {
        "right": {
            "by an angle": lambda share, eps: math.tan(math.asin(share)) * math.sqrt(eps),
            "as a power": lambda share, eps: ((share**-2 - 1) / eps) ** -0.5,
            "by bisection": smallest_std_by_bisection,
        },
        "wrong": {
            "the numerator is taken for 1": lambda share, eps: math.sqrt(eps / (1 - share**2)),
            "the square outside the bracket": lambda share, eps: (
                share * math.sqrt(eps) / (1 - share)
            ),
            "the standard deviation afterwards": lambda share, eps: share * math.sqrt(eps),
        },
    },
    "centering-gradient": {
        "right": {
            "by a matrix": lambda dx_hat: (np.eye(len(dx_hat)) - 1 / len(dx_hat)) @ dx_hat,
            "in loops": centering_gradient_in_loops,
            "by complex steps": lambda dx_hat: complex_step(
                lambda x: x - x.mean(0), np.zeros(dx_hat.shape), dx_hat
            ),
        },
        "wrong": {
            "the mean of the others": lambda dx_hat: (
                dx_hat - (dx_hat.sum(0) - dx_hat) / (len(dx_hat) - 1)
            ),
            "divided by m − 1": lambda dx_hat: dx_hat - dx_hat.sum(0) / (len(dx_hat) - 1),
            "divided by C": lambda dx_hat: dx_hat - dx_hat.sum(0) / dx_hat.shape[1],
        },
    },
    "parameter-gradients": {
        "right": {
            "row by row": parameter_gradients_in_loops,
            "on the diagonal": lambda x, dy, eps: (
                np.diag(dy.T @ x_hat_of(x, eps)),
                dy.T @ np.ones(len(x)),
            ),
            "by einsum": lambda x, dy, eps: (
                np.einsum("mc,mc->c", x_hat_of(x, eps), dy),
                np.einsum("mc->c", dy),
            ),
        },
        "wrong": {
            "x̂ with the unbiased variance": lambda x, dy, eps: (
                (dy * x_hat_of(x, eps, less=1)).sum(0),
                dy.sum(0),
            ),
            "x̂ without eps": lambda x, dy, eps: ((dy * x_hat_of(x, 0)).sum(0), dy.sum(0)),
            "one of the two is averaged": lambda x, dy, eps: (
                (dy * x_hat_of(x, eps)).sum(0),
                dy.mean(0),
            ),
        },
    },
    "variance-gradient": {
        "right": {
            "from x̂": lambda x, dx_hat, eps: (
                -(dx_hat * x_hat_of(x, eps)).sum(0) / (2 * (x.var(0) + eps))
            ),
            "with a centered gradient": lambda x, dx_hat, eps: (
                ((dx_hat - dx_hat.mean(0)) * (x - x.mean(0))).sum(0)
                / (-2 * np.sqrt(x.var(0) + eps) ** 3)
            ),
            "by complex steps": lambda x, dx_hat, eps: complex_step(
                lambda var: (x - x.mean(0)) / np.sqrt(var + eps), x.var(0), dx_hat
            ),
        },
        "wrong": {
            "the gradient of the standard deviation": lambda x, dx_hat, eps: (
                -(dx_hat * (x - x.mean(0))).sum(0) / (x.var(0) + eps)
            ),
            "the unbiased variance": lambda x, dx_hat, eps: (
                (dx_hat * (x - x.mean(0))).sum(0) * -0.5 * (x.var(0, ddof=1) + eps) ** -1.5
            ),
            "without eps": lambda x, dx_hat, eps: (
                (dx_hat * (x - x.mean(0))).sum(0) * -0.5 * x.std(0) ** -3
            ),
        },
    },
    "input-gradient": {
        "right": {
            "step by step": input_gradient_step_by_step,
            "by Jacobians": input_gradient_by_jacobians,
            "by complex steps": lambda x, gamma, dy, eps: complex_step(
                lambda x: gamma * x_hat_of(x, eps), x, dy
            ),
        },
        "wrong": {
            "|γ| for γ": lambda x, gamma, dy, eps: abs(gamma) * dx_of(x, dy, eps),
            "x̂ without eps": lambda x, gamma, dy, eps: (
                gamma
                * (dy - dy.mean(0) - (h := x_hat_of(x, 0)) * (dy * h).mean(0))
                / np.sqrt(x.var(0) + eps)
            ),
            "the last term has x − μ for x̂": lambda x, gamma, dy, eps: (
                gamma
                * (dy - dy.mean(0) - (x - x.mean(0)) * (dy * x_hat_of(x, eps)).mean(0))
                / np.sqrt(x.var(0) + eps)
            ),
        },
    },
    "project": {
        "right": {
            "by QR": project_by_qr,
            "what straight lines leave": project_by_fits,
            "by matrices": project_by_a_matrix,
        },
        "wrong": {
            "x̂ with the unbiased variance": lambda x, g: (
                g - g.mean(0) - (h := x_hat_of(x, 0, less=1)) * (g * h).mean(0)
            ),
            "all features are taken out of each": lambda x, g: (
                g - (a := np.column_stack([np.ones(len(x)), x])) @ np.linalg.pinv(a) @ g
            ),
            "first the mean, then along x": lambda x, g: (
                (d := g - g.mean(0)) - x * (d * x).sum(0) / (x * x).sum(0)
            ),
        },
    },
    "weight-gradient": {
        "right": {
            "a sum of outer products": lambda u, weight, dy, eps: sum(
                np.outer(d, v) for d, v in zip(dx_of(u @ weight.T, dy, eps), u, strict=True)
            ),
            "by einsum": lambda u, weight, dy, eps: np.einsum(
                "mc,mk->ck", dx_of(np.einsum("mk,ck->mc", u, weight), dy, eps), u
            ),
            "by complex steps": lambda u, weight, dy, eps: complex_step(
                lambda weight: x_hat_of(u @ weight.T, eps), weight, dy
            ),
        },
        "wrong": {
            "constant statistics, then perpendicular to W": lambda u, weight, dy, eps: (
                (d := (dy / np.sqrt((u @ weight.T).var(0) + eps)).T @ u)
                - weight * ((d * weight).sum(1) / (weight**2).sum(1))[:, None]
            ),
            "without eps": lambda u, weight, dy, eps: dx_of(u @ weight.T, dy, 0).T @ u,
            "over the features": lambda u, weight, dy, eps: dx_of(u @ weight.T, dy, eps, 1).T @ u,
        },
    },
    "layer-norm-gradient": {
        "right": {
            "as BatchNorm, transposed": lambda x, dy, eps: dx_of(x.T, dy.T, eps).T,
            "example by example": lambda x, dy, eps: [
                dx_of(a, b, eps) for a, b in zip(x, dy, strict=True)
            ],
            "by complex steps": lambda x, dy, eps: complex_step(
                lambda x: x_hat_of(x, eps, 1), x, dy
            ),
        },
        "wrong": {
            "without eps": lambda x, dy, eps: dx_of(x, dy, 0, 1),
            "sums are divided by m": lambda x, dy, eps: (
                (
                    dy
                    - dy.sum(1, keepdims=True) / len(x)
                    - (h := x_hat_of(x, eps, 1)) * (dy * h).sum(1, keepdims=True) / len(x)
                )
                / np.sqrt(x.var(1, keepdims=True) + eps)
            ),
            "the last mean runs over the batch": lambda x, dy, eps: (
                (dy - dy.mean(1, keepdims=True) - (h := x_hat_of(x, eps, 1)) * (dy * h).mean(0))
                / np.sqrt(x.var(1, keepdims=True) + eps)
            ),
        },
    },
    "inference": {
        "right": {
            "as x·a + b": lambda x, mean, var, gamma, beta, eps: (
                x * (a := gamma / np.sqrt(var + eps)) + (beta - mean * a)
            ),
            "number by number": lambda x, mean, var, gamma, beta, eps: np.vectorize(
                lambda v, mean, var, g, b: (v - mean) * (var + eps) ** -0.5 * g + b
            )(x, mean, var, gamma, beta),
            "by a matrix": lambda x, mean, var, gamma, beta, eps: (
                (x - mean) @ np.diag(gamma / np.sqrt(var + eps)) + beta
            ),
        },
        "wrong": {
            "|γ| for γ": lambda x, mean, var, gamma, beta, eps: (
                abs(gamma) * (x - mean) / np.sqrt(var + eps) + beta
            ),
            "the variance is at least eps": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) / np.sqrt(np.maximum(var, eps)) + beta
            ),
            "the variance of the batch": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) / np.sqrt(x.var(0) + eps) + beta
            ),
        },
    },
    "moving-average": {
        "right": {
            "by weights": lambda means, momentum: (
                momentum * (1 - momentum) ** np.arange(len(means))[::-1] @ means
            ),
            "by recursion": moving_by_recursion,
            "old + momentum·(new − old)": moving,
        },
        "wrong": {
            "the last batch comes first": lambda means, momentum: moving(means[::-1], momentum),
            "the last batch is left out": lambda means, momentum: moving(means[:-1], momentum),
            "the weights are made to sum to 1": lambda means, momentum: (
                moving(means, momentum) / max(1e-9, 1 - (1 - momentum) ** len(means))
            ),
        },
    },
    "first-steps": {
        "right": {
            "by expm1 and log1p": lambda running, momentum, batches: (
                running / -math.expm1(batches * math.log1p(-momentum))
            ),
            "by a geometric sum": lambda running, momentum, batches: [
                v / (momentum * sum((1 - momentum) ** k for k in range(batches))) for v in running
            ],
            "by the weight that was seen": first_steps_with_a_weight,
        },
        "wrong": {
            "one batch too many": lambda running, momentum, batches: (
                running / (1 - (1 - momentum) ** (batches + 1))
            ),
            "by the exponential function": lambda running, momentum, batches: (
                running / (1 - math.exp(-momentum * batches))
            ),
            "all batches weigh the same": lambda running, momentum, batches: (
                running / (momentum * batches)
            ),
        },
    },
    "population-variance": {
        "right": {
            "summed, then divided": lambda variances, m: (
                m * variances.sum(0) / (len(variances) * (m - 1))
            ),
            "each one first": lambda variances, m: np.mean(variances / (1 - 1 / m), axis=0),
            "feature by feature": lambda variances, m: [
                statistics.fmean(v) * m / (m - 1) for v in variances.T
            ],
        },
        "wrong": {
            "n/(n − 1) with n of all batches": lambda variances, m: (
                variances.mean(0) * (n := m * len(variances)) / (n - 1)
            ),
            "the median batch": lambda variances, m: np.median(variances, 0) * m / (m - 1),
            "(m + 1)/m": lambda variances, m: variances.mean(0) * (m + 1) / m,
        },
    },
    "pool": {
        "right": {
            "one batch after the other": pool_one_by_one,
            "with E[x²] − E[x]²": lambda counts, means, variances: (
                mean := counts @ means / counts.sum(),
                counts @ (variances + means**2) / counts.sum() - mean**2,
            ),
            "as many rows as values": lambda counts, means, variances: (
                (rows := means.repeat(counts, axis=0)).mean(0),
                variances.repeat(counts, axis=0).mean(0) + rows.var(0),
            ),
        },
        "wrong": {
            "distances from the plain mean of the means": lambda counts, means, variances: (
                pool_with(counts, means, variances, means.mean(0), counts)
            ),
            "distances that all weigh the same": lambda counts, means, variances: pool_with(
                counts, means, variances, np.average(means, axis=0, weights=counts), None
            ),
            "one less for each batch": lambda counts, means, variances: (
                (both := pool_one_by_one(counts, means, variances))[0],
                both[1] * counts.sum() / max(1, counts.sum() - len(counts)),
            ),
        },
    },
    "fold": {
        "right": {
            "in a loop": fold_in_loops,
            "by asking both layers": fold_by_asking,
            "by a matrix": lambda weight, bias, mean, var, gamma, beta, eps: (
                (a := np.diag(gamma / np.sqrt(var + eps))) @ weight,
                a @ (bias - mean) + beta,
            ),
        },
        "wrong": {
            "|γ| for γ": lambda weight, bias, mean, var, gamma, beta, eps: fold_with(
                abs(gamma) / np.sqrt(var + eps), weight, bias, mean, beta
            ),
            "eps outside the root": lambda weight, bias, mean, var, gamma, beta, eps: fold_with(
                gamma / (np.sqrt(var) + eps), weight, bias, mean, beta
            ),
            "the mean is not scaled": lambda weight, bias, mean, var, gamma, beta, eps: (
                weight * (a := gamma / np.sqrt(var + eps))[:, None],
                bias * a - mean + beta,
            ),
        },
    },
    "batch-renormalization": {
        "right": {
            "in a loop": renormalize_in_loops,
            "by minimum and maximum": lambda x, mean, std, r_max, d_max, eps: renormalized(
                x,
                np.minimum(np.maximum(np.sqrt(x.var(0) + eps) / std, 1 / r_max), r_max),
                np.minimum(np.maximum((x.mean(0) - mean) / std, -d_max), d_max),
                eps,
            ),
            "r is clipped as a logarithm": lambda x, mean, std, r_max, d_max, eps: renormalized(
                x,
                np.exp(np.clip(np.log((x.var(0) + eps) / std**2) / 2, *np.log([1 / r_max, r_max]))),
                ((x.mean(0) - mean) / std).clip(-d_max, d_max),
                eps,
            ),
        },
        "wrong": {
            "d is divided by σ of the batch": lambda x, mean, std, r_max, d_max, eps: renormalized(
                x,
                np.clip((sigma := np.sqrt(x.var(0) + eps)) / std, 1 / r_max, r_max),
                np.clip((x.mean(0) - mean) / sigma, -d_max, d_max),
                eps,
            ),
            "d is clipped before it is divided": lambda x, mean, std, r_max, d_max, eps: (
                renormalized(
                    x,
                    np.clip(np.sqrt(x.var(0) + eps) / std, 1 / r_max, r_max),
                    np.clip(x.mean(0) - mean, -d_max, d_max) / std,
                    eps,
                )
            ),
            "eps is not in r": lambda x, mean, std, r_max, d_max, eps: renormalized(
                x,
                np.clip(x.std(0) / std, 1 / r_max, r_max),
                np.clip((x.mean(0) - mean) / std, -d_max, d_max),
                eps,
            ),
        },
    },
    "renormalization-gradient": {
        "right": {
            "r goes in first": lambda x, dx_hat, mean, std, r_max, eps: dx_of(
                x, dx_hat * np.clip(np.sqrt(x.var(0) + eps) / std, 1 / r_max, r_max), eps
            ),
            "as input-gradient with γ = r": lambda x, dx_hat, mean, std, r_max, eps: (
                input_gradient_by_jacobians(
                    x, np.clip(np.sqrt(x.var(0) + eps) / std, 1 / r_max, r_max), dx_hat, eps
                )
            ),
            "by complex steps": lambda x, dx_hat, mean, std, r_max, eps: complex_step(
                lambda moved: (
                    x_hat_of(moved, eps)
                    * np.minimum(np.maximum(np.sqrt(x.var(0) + eps) / std, 1 / r_max), r_max)
                ),
                x,
                dx_hat,
            ),
        },
        "wrong": {
            "eps is not in r": lambda x, dx_hat, mean, std, r_max, eps: (
                dx_of(x, dx_hat, eps) * np.clip(x.std(0) / std, 1 / r_max, r_max)
            ),
            "r has no lower bound": lambda x, dx_hat, mean, std, r_max, eps: (
                dx_of(x, dx_hat, eps) * np.minimum(np.sqrt(x.var(0) + eps) / std, r_max)
            ),
            "r is differentiated too": lambda x, dx_hat, mean, std, r_max, eps: np.where(
                (1 / r_max < (r := np.sqrt(x.var(0) + eps) / std)) & (r < r_max),
                (dx_hat - dx_hat.mean(0)) / std,
                dx_of(x, dx_hat, eps) * np.clip(r, 1 / r_max, r_max),
            ),
        },
    },
    "channel-statistics": {
        "right": {
            "in lists": statistics_in_loops,
            "channels first, then flat": lambda x: (
                (flat := x.swapaxes(0, 1).reshape(x.shape[1], -1)).mean(1),
                flat.var(1),
            ),
            "within the images and between them": lambda x: (
                (means := x.mean((2, 3))).mean(0),
                x.var((2, 3)).mean(0) + means.var(0),
            ),
        },
        "wrong": {
            "flat, without moving the channels": lambda x: (
                (flat := x.reshape(-1, x.shape[1])).mean(0),
                flat.var(0),
            ),
            "standard deviations": lambda x: (x.mean((0, 2, 3)), x.std((0, 2, 3))),
            "the variance of the images' means": lambda x: (
                x.mean((0, 2, 3)),
                x.mean((2, 3)).var(0),
            ),
        },
    },
    "count": {
        "right": {
            "without the entry of the channels": lambda shape: math.prod(shape[:1] + shape[2:]),
            "by counting": lambda shape: sum(1 for at in np.ndindex(shape) if at[1] == 0),
            "as an unsigned integer": lambda shape: np.prod(np.delete(shape, 1), dtype=np.uint16),
        },
        "wrong": {
            "the first axis of positions alone": lambda shape: math.prod(shape[:1] + shape[2:3]),
            "up to images and no further": lambda shape: math.prod(shape[:1] + shape[2:4]),
            "a quotient, which is a float": lambda shape: math.prod(shape) / shape[1],
            "the batch is forgotten": lambda shape: math.prod(shape[2:]),
        },
    },
    "any-rank": {
        "right": {
            "channels moved to the end": any_rank_by_moving_the_axis,
            "by einsum": any_rank_by_einsum,
            "channel by channel": any_rank_channel_by_channel,
        },
        "wrong": {
            "|γ| for γ": lambda x, gamma, beta, eps: any_rank_with(
                x, abs(gamma), beta, eps, all_but_channels(x)
            ),
            "each example has its own statistics": lambda x, gamma, beta, eps: any_rank_with(
                x, gamma, beta, eps, tuple(range(2, x.ndim)) or (0,)
            ),
            "up to images and no further": lambda x, gamma, beta, eps: any_rank_with(
                x, gamma, beta, eps, (0, 2, 3)[: x.ndim - 1]
            ),
        },
    },
    "channels-last": {
        "right": {
            "as rows": lambda x, eps: x_hat_of(x.reshape(-1, x.shape[-1]), eps).reshape(x.shape),
            "as NCHW and back": lambda x, eps: x_hat_of(
                x.transpose(0, 3, 1, 2), eps, (0, 2, 3)
            ).transpose(0, 2, 3, 1),
            "channel by channel": lambda x, eps: np.stack(
                [x_hat_of(x[..., c], eps, (0, 1, 2)) for c in range(x.shape[3])], axis=-1
            ),
        },
        "wrong": {
            "not moved back": lambda x, eps: x_hat_of(x.swapaxes(1, 3), eps, (0, 2, 3)),
            "eps outside the root": lambda x, eps: (
                (x - x.mean((0, 1, 2))) / (x.std((0, 1, 2)) + eps)
            ),
            "a variance within the images": lambda x, eps: (
                (x - x.mean((0, 1, 2))) / np.sqrt(x.var((1, 2)).mean(0) + eps)
            ),
        },
    },
    "image-gradient": {
        "right": {
            "as rows": image_gradient_flat,
            "by the sums": image_gradient_by_sums,
            "by complex steps": lambda x, dy, eps: complex_step(
                lambda x: x_hat_of(x, eps, (0, 2, 3)), x, dy
            ),
        },
        "wrong": {
            "without eps": lambda x, dy, eps: dx_of(x, dy, 0, (0, 2, 3)),
            "each image for itself": lambda x, dy, eps: dx_of(x, dy, eps, (2, 3)),
            "no path through the variance": lambda x, dy, eps: (
                (dy - dy.mean((0, 2, 3), keepdims=True))
                / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
            ),
        },
    },
    "group-norm": {
        "right": {
            "in loops": group_norm_in_loops,
            "in parts": group_norm_by_splitting,
            "as BatchNorm": group_norm_as_batch_norm,
        },
        "wrong": {
            "groups is the size of a group": lambda x, groups, eps: group_norm_in_loops(
                x, x.shape[1] // groups, eps
            ),
            "the unbiased variance": lambda x, groups, eps: x_hat_of(
                x.reshape(len(x), groups, -1), eps, 2, less=1
            ).reshape(x.shape),
            "each position for itself": lambda x, groups, eps: x_hat_of(
                x.reshape(len(x), groups, -1, *x.shape[2:]), eps, 2
            ).reshape(x.shape),
        },
    },
}
