"""Answers to the exercises of part III as readers may write them: unusual styles, right and wrong.

Each entry says how it is right, or what is wrong with it.
"""

import math

import numpy as np


def welford_in_a_loop(n, mean, m2, x):
    new_mean, new_m2 = np.zeros(len(x)), np.zeros(len(x))
    for c, v in enumerate(x):
        new_mean[c] = mean[c] + (v - mean[c]) / (n + 1)
        new_m2[c] = m2[c] + (v - mean[c]) * (v - new_mean[c])
    return new_mean, new_m2


def statistics_by_fsum(x):
    """Exact sums of x − K, channel by channel."""
    mean, var = [], []
    for column in x.T:
        k, m = float(column[-1]), len(column)
        first = math.fsum(v - k for v in column) / m
        mean.append(k + first)
        var.append(math.fsum((v - k) ** 2 for v in column) / m - first**2)
    return mean, var


def about(x, k, less=0):
    d = x - k
    first, second = d.sum(0) / (len(x) - less), np.einsum("mc,mc->c", d, d) / len(x)
    return k + first, second - first**2


def line(x, k, a, c):
    return (x - k.astype(np.float32)) * a.astype(np.float32) + c.astype(np.float32)


def inv_std_of(var, eps):
    return 1 / np.sqrt(var + eps)


def bytes_in_a_loop(large, m, C, itemsize):
    total = 0
    for operation in large:
        for is_large in operation:
            total += itemsize * (m * C if is_large else C)
    return total


def constants_from_x_hat(dbeta, products, mean, inv_std, gamma, m):
    """dx = γ/σ (g − ḡ − x̂·(g x̂)‾), with x̂ = x/σ − μ/σ put in."""
    mean_g, mean_g_x_hat = dbeta / m, (products / m - mean * dbeta / m) * inv_std
    b = -(inv_std * mean_g_x_hat)
    return gamma * inv_std, b, -mean_g + mean * inv_std * mean_g_x_hat


def constants_by_asking(dbeta, products, mean, inv_std, gamma, m):
    """What one x gives for g = 0, at x = 0 and at x = 1, divided by a."""

    def at(x):
        dgamma = (products - mean * dbeta) * inv_std
        return -dbeta / m - (x - mean) * inv_std * dgamma / m

    return np.array([gamma * inv_std, at(1) - at(0), at(0)])


def constants(dbeta, products, mean, inv_std, gamma, m):
    dgamma = (products - mean * dbeta) * inv_std
    b = -dgamma * inv_std / m
    return gamma * inv_std, b, -dbeta / m - mean * b


def tile_in_loops(start, channel, N, C, S, rows, cols):
    offsets = np.full((rows, cols), -1.0)
    across = math.ceil(S / cols)
    for i in range(rows):
        image, row = divmod(start + i, across)
        for j in range(cols):
            if image < N and row * cols + j < S:
                offsets[i, j] = (image * C + channel) * S + row * cols + j
    return offsets


def tile_from_all_rows(start, channel, N, C, S, rows, cols):
    """Cut from the rows of all images, with what is missing filled in."""
    memory = np.arange(N * C * S).reshape(N, C, S)[:, channel]
    memory = np.pad(memory, ((0, 0), (0, -S % cols)), constant_values=-1).reshape(-1, cols)
    return np.pad(memory, ((0, rows), (0, 0)), constant_values=-1)[start : start + rows]


def tile_by_a_table(start, channel, N, C, S, rows, cols):
    """One row after the other, taken from a list of all."""
    found = []
    for image in range(N):
        positions = [(image * C + channel) * S + s for s in range(S)]
        while positions:
            row, positions = positions[:cols], positions[cols:]
            found.append(row + [-1] * (cols - len(row)))
    found += [[-1] * cols] * rows
    return found[start : start + rows]


def tile_with(start, channel, N, C, S, cols, rows, across):
    row = start + np.arange(rows)[:, None]
    position = row % across * cols + np.arange(cols)
    inside = (row // across < N) & (position < S)
    return np.where(inside, (row // across * C + channel) * S + position, -1)


def merge_one_by_one(counts, means, m2s):
    n, mean, m2 = 0, 0, 0
    for count, other, more in zip(counts, means, m2s, strict=True):
        if count:
            delta = other - mean
            mean = mean + delta * count / (n + count)
            m2 = m2 + more + delta**2 * n * count / (n + count)
            n += count
    return mean, m2 / n


def merge_by_squares(counts, means, m2s):
    n = counts.sum()
    mean = counts @ means / n
    return mean, (m2s.sum(0) + counts @ means**2) / n - mean**2


def merge_those_with_values(counts, means, m2s):
    some = counts > 0
    mean = np.average(means[some], axis=0, weights=counts[some])
    var = m2s[some] / counts[some, None] + (means[some] - mean) ** 2
    return mean, np.average(var, axis=0, weights=counts[some])


ANSWERS = {
    "welford": {
        "right": {
            "in a loop": welford_in_a_loop,
            "merged with a batch of one": lambda n, mean, m2, x: (
                (n * mean + x) / (n + 1),
                m2 + (x - mean) ** 2 * n / (n + 1),
            ),
            "by mean squares, stacked": lambda n, mean, m2, x: np.stack(
                [
                    new := np.average([mean, x], axis=0, weights=[n, 1]),
                    m2 + n * mean**2 + x**2 - (n + 1) * new**2,
                ]
            ),
        },
        "wrong": {
            "deviations from the new mean and its double": lambda n, mean, m2, x: (
                new := mean + (x - mean) / (n + 1),
                m2 + (x - new) * (x + new),
            ),
            "the new value counts twice": lambda n, mean, m2, x: (
                new := mean + 2 * (x - mean) / (n + 2),
                m2 + (x - mean) * (x - new),
            ),
            "with a forgotten factor n": lambda n, mean, m2, x: (
                mean + (x - mean) / (n + 1),
                m2 + (x - mean) ** 2 / (n + 1),
            ),
        },
    },
    "shifted-var": {
        "right": {
            "by exact sums": statistics_by_fsum,
            "about a whole number": lambda x: about(x, np.round(x[len(x) // 2])),
            "about a float32 mean": lambda x: about(x, x.mean(0).astype(np.float32)),
            "in extended precision": lambda x: about(x.astype(np.longdouble), x.min(0)),
        },
        "wrong": {
            "the unbiased variance": lambda x: (
                about(x, x[0])[0],
                about(x, x[0])[1] * len(x) / (len(x) - 1),
            ),
            "the mean is K": lambda x: (x[0], about(x, x[0])[1]),
            "the mean of x − K is divided by m − 1": lambda x: (
                about(x, x[0], less=1)[0],
                about(x, x[0])[1],
            ),
            "a mean in float32": lambda x: (
                x.mean(0).astype(np.float32),
                about(x, x[0])[1],
            ),
            "in float32": lambda x: about(x.astype(np.float32), x[0].astype(np.float32)),
        },
    },
    "keep-digits": {
        "right": {
            "all in float64, rounded at the end": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) * inv_std_of(var, eps) + beta
            ).astype(np.float32),
            "c is added in two parts": lambda x, mean, var, gamma, beta, eps: (
                (x - (k := np.float32(mean)) + (k - mean).astype(np.float32))
                * np.float32(gamma * inv_std_of(var, eps))
                + beta
            ),
            "row by row": lambda x, mean, var, gamma, beta, eps: np.array(
                [
                    (row - np.float32(mean)) * np.float32(a := gamma * inv_std_of(var, eps))
                    + np.float32((np.float32(mean) - mean) * a + beta)
                    for row in x
                ]
            ),
        },
        "wrong": {
            "|γ| for γ": lambda x, mean, var, gamma, beta, eps: line(
                x,
                mean,
                a := abs(gamma) * inv_std_of(var, eps),
                (np.float32(mean) - mean) * a + beta,
            ),
            "the default eps, not the one given": lambda x, mean, var, gamma, beta, eps: (
                (x - mean) / np.sqrt(var + 1e-5) * gamma + beta
            ).astype(np.float32),
            "the statistics of the batch": lambda x, mean, var, gamma, beta, eps: (
                (x - x.mean(0, np.float64)) / np.sqrt(x.var(0, np.float64) + eps) * gamma + beta
            ).astype(np.float32),
            "the rest in float32, where it is 0": lambda x, mean, var, gamma, beta, eps: line(
                x,
                mean,
                a := gamma * inv_std_of(var, eps),
                (np.float32(mean) - mean.astype(np.float32)) * a + beta,
            ),
            "right, but in float64": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) * inv_std_of(var, eps) + beta
            ),
            "a K that is a whole number, not taken out of c": (
                lambda x, mean, var, gamma, beta, eps: line(
                    x, np.round(mean), gamma * inv_std_of(var, eps), beta
                )
            ),
        },
    },
    "count-bytes": {
        "right": {
            "in a loop": bytes_in_a_loop,
            "as powers": lambda large, m, C, itemsize: float(
                itemsize * C * (float(m) ** large).sum()
            ),
            "by truth values": lambda large, m, C, itemsize: (
                np.select([large == 1, large == 0], [m * C, C]).sum() * itemsize
            ),
        },
        "wrong": {
            "a vector has m numbers": lambda large, m, C, itemsize: (
                np.where(large == 1, m * C, m).sum() * itemsize
            ),
            "all of an operation is large if its result is": lambda large, m, C, itemsize: (
                3 * np.where(large[:, 2] == 1, m * C, C).sum() * itemsize
            ),
            "a vector is one number": lambda large, m, C, itemsize: (
                np.where(large == 1, m * C, 1).sum() * itemsize
            ),
            "numbers take four bytes": lambda large, m, C, itemsize: (
                np.where(large == 1, m * C, C).sum() * 4
            ),
        },
    },
    "four-operations": {
        "right": {
            "from x̂": constants_from_x_hat,
            "by asking": constants_by_asking,
            "with the variance": lambda dbeta, products, mean, inv_std, gamma, m: [
                gamma * inv_std,
                (slope := (mean * dbeta - products) * inv_std**2 / m),
                -(dbeta + m * mean * slope) / m,
            ],
        },
        "wrong": {
            "|γ| for γ": lambda dbeta, products, mean, inv_std, gamma, m: constants(
                dbeta, products, mean, inv_std, abs(gamma), m
            ),
            "c has the other sign of μ b": lambda dbeta, products, mean, inv_std, gamma, m: (
                (triple := constants(dbeta, products, mean, inv_std, gamma, m))[0],
                triple[1],
                -dbeta / m + mean * triple[1],
            ),
            "γ is left out of a": lambda dbeta, products, mean, inv_std, gamma, m: (
                inv_std,
                *constants(dbeta, products, mean, inv_std, gamma, m)[1:],
            ),
            "μ² b for μ b": lambda dbeta, products, mean, inv_std, gamma, m: (
                *(triple := constants(dbeta, products, mean, inv_std, gamma, m))[:2],
                -dbeta / m - mean**2 * triple[1],
            ),
        },
    },
    "tile-offsets": {
        "right": {
            "in loops": tile_in_loops,
            "cut from all rows": tile_from_all_rows,
            "by a table": tile_by_a_table,
        },
        "wrong": {
            "one row more, also where an image fills its rows": (
                lambda start, channel, N, C, S, rows, cols: tile_with(
                    start, channel, N, C, S, cols, rows, S // cols + 1
                )
            ),
            "rows are as long as they are many": lambda start, channel, N, C, S, rows, cols: (
                tile_with(start, channel, N, C, S, rows, rows, -(-S // rows))[:, :cols]
            ),
            "a tile of five rows of four": lambda start, channel, N, C, S, rows, cols: np.resize(
                tile_with(start, channel, N, C, S, 4, 5, -(-S // 4)), (rows, cols)
            ),
            "the tile begins with an image": lambda start, channel, N, C, S, rows, cols: tile_with(
                start - start % -(-S // cols), channel, N, C, S, cols, rows, -(-S // cols)
            ),
            "channels come before images": lambda start, channel, N, C, S, rows, cols: np.where(
                (plain := tile_with(start, 0, N, 1, S, cols, rows, -(-S // cols))) < 0,
                -1,
                channel * N * S + plain,
            ),
            "rows go on over the end of an image": lambda start, channel, N, C, S, rows, cols: (
                np.where(
                    (at := start * cols + np.arange(rows * cols).reshape(rows, cols)) < N * S,
                    (at // S * C + channel) * S + at % S,
                    -1,
                )
            ),
        },
    },
    "combine-sums": {
        "right": {
            "by ones": lambda k, a, b, m: (
                k + (s := np.ones(len(a)) @ a / m),
                np.ones(len(b)) @ b / m - s * s,
            ),
            "part by part": lambda k, a, b, m: (k + sum(a) / m, sum(b) / m - (sum(a) / m) ** 2),
            "m² times the variance": lambda k, a, b, m: np.array(
                [(m * k + a.sum(0)) / m, (m * b.sum(0) - a.sum(0) ** 2) / m**2]
            ),
        },
        "wrong": {
            "the squares of the parts": lambda k, a, b, m: (
                k + a.sum(0) / m,
                b.sum(0) / m - ((a / m) ** 2).sum(0),
            ),
            "the square of the mean, not of the shift": lambda k, a, b, m: (
                (mean := k + a.sum(0) / m),
                b.sum(0) / m - mean**2,
            ),
            "K once for each part": lambda k, a, b, m: (
                len(a) * k + a.sum(0) / m,
                b.sum(0) / m - (a.sum(0) / m) ** 2,
            ),
        },
    },
    "merge-parts": {
        "right": {
            "one by one": merge_one_by_one,
            "by the mean squares": merge_by_squares,
            "those that have values": merge_those_with_values,
        },
        "wrong": {
            "the empty part has a weight": lambda counts, means, m2s: merge_by_squares(
                np.maximum(counts, 1), means, m2s
            ),
            "distances from the plain mean of the means": lambda counts, means, m2s: (
                counts @ means / counts.sum(),
                (m2s.sum(0) + counts @ (means - means.mean(0)) ** 2) / counts.sum(),
            ),
            "M is taken for a variance": lambda counts, means, m2s: merge_by_squares(
                counts, means, counts[:, None] * m2s
            ),
            "one less for each part that has values": lambda counts, means, m2s: (
                (both := merge_by_squares(counts, means, m2s))[0],
                both[1] * counts.sum() / (counts.sum() - np.count_nonzero(counts)),
            ),
        },
    },
    "rank-gradient": {
        "right": {
            "by outer products": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                (dy - np.outer(np.full(len(dy), 1 / n), sum_dy)) @ np.diag(scale)
                - x_hat @ np.diag(scale * sum_dy_x_hat / n)
            ),
            "n at the end": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale / n * (n * dy - (sum_dy + x_hat * sum_dy_x_hat))
            ),
            "row by row": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: [
                scale * (g - sum_dy / n - h * (sum_dy_x_hat / n))
                for g, h in zip(dy, x_hat, strict=True)
            ],
        },
        "wrong": {
            "|γ| for γ": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                abs(scale) * (dy - sum_dy / n - x_hat * sum_dy_x_hat / n)
            ),
            "the rank's own mean": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale * (dy - dy.mean(0) - x_hat * sum_dy_x_hat / n)
            ),
            "the rank's own rows come on top": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale * (dy - sum_dy / (n + len(dy)) - x_hat * sum_dy_x_hat / (n + len(dy)))
            ),
            "the scale is left out of the sums": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale * dy - sum_dy / n - x_hat * sum_dy_x_hat / n
            ),
        },
    },
}
