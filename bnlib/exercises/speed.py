"""The exercises of part III, fast and exact."""

from typing import Any

import numpy as np

from bnlib.exercises.judge import Exercise

_NUMERICS = 'the chapter "Where do the digits go?"'
_CPU = 'the chapter "Fast on the CPU"'
_GPU = 'the chapter "On the GPU"'
_MANY = 'the chapter "Many machines"'


def _one_more(rng: np.random.Generator) -> dict[str, Any]:
    """Statistics of some values, and one value more, for each of four channels."""
    mean, x = rng.normal(0, 3, (2, 4))
    return {"n": int(rng.integers(3, 20)), "mean": mean, "m2": rng.uniform(1, 9, 4), "x": x}


def _far_from_zero(rng: np.random.Generator) -> dict[str, Any]:
    """Channels whose means lie 10⁸ standard deviations from zero, and from one another."""
    means = 1e8 * rng.choice([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], 4, replace=False)
    return {"x": rng.normal(means, rng.uniform(0.5, 2, 4), (int(rng.integers(20, 40)), 4))}


def _by_shift(x: np.ndarray, k: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    d = x - k
    return k + d.mean(axis=0), (d * d).mean(axis=0) - d.mean(axis=0) ** 2


def _given_statistics(rng: np.random.Generator) -> dict[str, Any]:
    """A float32 mini-batch at 10,000 standard deviations, with statistics near its own."""
    x = rng.normal(rng.uniform(8e3, 12e3, 4), 1, (int(rng.integers(20, 40)), 4)).astype(np.float32)
    gamma, beta = rng.normal(size=(2, 4)).astype(np.float32)
    mean, var = rng.normal(x.mean(axis=0, dtype=np.float64), 0.1), rng.uniform(0.5, 2, 4)
    eps = rng.uniform(0.05, 0.5)
    return {"x": x, "mean": mean, "var": var, "gamma": gamma, "beta": beta, "eps": eps}


def _line(x: np.ndarray, k: Any, a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(x - K)·a + c in the dtype of x."""
    k, a, c = (np.asarray(v, x.dtype) for v in (k, a, c))
    return np.asarray((x - k) * a + c)


def _slope(var: np.ndarray, gamma: np.ndarray, eps: float) -> np.ndarray:
    return np.asarray(gamma / np.sqrt(var + eps))


def _rounded(mean: np.ndarray) -> np.ndarray:
    return mean.astype(np.float32)


def _program(rng: np.random.Generator) -> dict[str, Any]:
    """Operations on large arrays and vectors; no two of the three numbers are equal."""
    large = rng.integers(0, 2, (int(rng.integers(5, 12)), 3))
    m, c = int(rng.integers(1000, 2000)), int(rng.integers(10, 100))
    return {"large": large, "m": m, "C": c, "itemsize": int(rng.choice([2, 4, 8]))}


def _numbers(large: np.ndarray, m: int, c: int) -> np.ndarray:
    """How many numbers each operand and result has, (k, 3)."""
    return np.where(large == 1, m * c, c)


def _sums_of_a_batch(rng: np.random.Generator) -> dict[str, Any]:
    m = int(rng.integers(5, 12))
    x, g = rng.normal(1, 2, (2, m, 4))
    return {
        "dbeta": g.sum(axis=0),
        "products": (g * x).sum(axis=0),
        "mean": x.mean(axis=0),
        "inv_std": 1 / np.sqrt(x.var(axis=0) + 1e-5),
        "gamma": rng.normal(size=4),
        "m": m,
    }


def _triple(
    dbeta: np.ndarray, dgamma: np.ndarray, mean: np.ndarray, inv_std: np.ndarray, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """b and c, from dgamma."""
    b = -dgamma * inv_std / m
    return b, -dbeta / m - mean * b


def _a_tile(rng: np.random.Generator) -> dict[str, Any]:
    """A tile from the first image to beyond the end; most images do not fill their rows."""
    n, s, cols = int(rng.integers(2, 4)), int(rng.choice([5, 7, 8, 11])), int(rng.integers(3, 5))
    start, rows = int(rng.integers(1, 3)), n * -(-s // cols)
    channel = int(rng.integers(1, 3))
    return {"start": start, "channel": channel, "N": n, "C": 3, "S": s, "rows": rows, "cols": cols}


def _tile(
    start: int,
    channel: int,
    N: int,
    C: int,
    S: int,
    rows: int,
    cols: int,
    *,
    within: bool = True,
    real: bool = True,
    up: int = 1,
) -> np.ndarray:
    """Offsets of a tile. The options take what does not exist for values, and round down."""
    across = (S + up * (cols - 1)) // cols
    row = start + np.arange(rows)[:, None]
    image, position = row // across, row % across * cols + np.arange(cols)
    mask = ((image < N) | (not real)) & ((position < S) | (not within))
    return np.where(mask, (image * C + channel) * S + position, -1)


def _sums_of_parts(rng: np.random.Generator) -> dict[str, Any]:
    """What three programs have stored for four channels, about the first value of each."""
    x = rng.normal(rng.uniform(-3, 3, 4), 1, (int(rng.integers(20, 30)), 4))
    parts = [v - x[0] for v in np.array_split(x, 3)]
    a, b = (np.array([(d**p).sum(axis=0) for d in parts]) for p in (1, 2))
    return {"k": x[0], "a": a, "b": b, "m": len(x)}


def _from_sums(
    k: np.ndarray, a: np.ndarray, b: np.ndarray, m: float
) -> tuple[np.ndarray, np.ndarray]:
    shift = a.sum(axis=0) / m
    return k + shift, b.sum(axis=0) / m - shift**2


def _told_by_ranks(rng: np.random.Generator) -> dict[str, Any]:
    """Counts, means and M of four ranks, one of them empty, for three channels."""
    counts = rng.permutation([0, 2, 5, int(rng.integers(20, 40))])
    some = (counts > 0)[:, None]
    means, m2s = rng.normal(0, 3, (4, 3)), rng.uniform(0.5, 2, (4, 3)) * counts[:, None]
    return {"counts": counts, "means": means * some, "m2s": m2s}


def _whole(
    counts: np.ndarray, means: np.ndarray, m2s: np.ndarray, between: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased variance of the whole, with a factor on the scatter between the parts."""
    columns, n = counts[:, None], counts.sum()
    mean = (columns * means).sum(axis=0) / n
    return mean, (m2s + between * columns * (means - mean) ** 2).sum(axis=0) / n


def _part_of_a_gradient(rng: np.random.Generator) -> dict[str, Any]:
    """One rank of several: its own dy and x̂, and the sums of all."""
    m, own = int(rng.integers(12, 20)), int(rng.integers(3, 8))
    dy, x_hat = rng.normal(0.5, 1, (2, m, 4))
    return {
        "dy": dy[:own],
        "x_hat": x_hat[:own],
        "sum_dy": dy.sum(axis=0),
        "sum_dy_x_hat": (dy * x_hat).sum(axis=0),
        "n": m,
        "scale": rng.normal(size=4),
    }


EXERCISES = (
    Exercise(
        "welford",
        f'"How does one keep the digits of the variance?" in {_NUMERICS}',
        _one_more,
        lambda n, mean, m2, x: (
            mean + (x - mean) / (n + 1),
            m2 + (x - mean) ** 2 * (n / (n + 1)),
        ),
        ["new_mean", "new_m2"],
        {
            "after one value a, with m2 = 0, a value b must give the mean (a + b)/2 and "
            "m2 = (a − b)²/2": lambda answer, n, mean, m2, x: (
                answer(n=1, m2=0 * m2),
                ((mean + x) / 2, (mean - x) ** 2 / 2),
            ),
        },
        {
            "the deviation from the old mean is squared": lambda n, mean, m2, x: (
                mean + (x - mean) / (n + 1),
                m2 + (x - mean) ** 2,
            ),
            "the deviation from the new mean is squared": lambda n, mean, m2, x: (
                mean + (x - mean) / (n + 1),
                m2 + ((x - mean) * (n / (n + 1))) ** 2,
            ),
            "the new value is not counted: δ is divided by n": lambda n, mean, m2, x: (
                mean + (x - mean) / n,
                m2 + (x - mean) * (x - (mean + (x - mean) / n)),
            ),
            "m2 is divided by the number of values": lambda n, mean, m2, x: (
                mean + (x - mean) / (n + 1),
                (m2 + (x - mean) ** 2 * (n / (n + 1))) / (n + 1),
            ),
        },
    ),
    Exercise(
        "shifted-var",
        f'"How does one keep the digits of the variance?" in {_NUMERICS}',
        _far_from_zero,
        lambda x: _by_shift(x, x[0]),
        ["mean", "var"],
        {
            "the variance of x + 2²⁰ must be that of x": lambda answer, x: (
                answer(x=x + 2.0**20)[1],
                answer()[1],
            ),
            "mean − x[0] must be the mean of x − x[0]": lambda answer, x: (
                answer()[0] - x[0],
                (x - x[0]).mean(axis=0),
            ),
        },
        {
            "nothing is subtracted before the squares are taken": lambda x: (
                x.mean(axis=0),
                (x * x).mean(axis=0) - x.mean(axis=0) ** 2,
            ),
            "all channels share one K": lambda x: _by_shift(x, x[0, 0]),
            "K is not added to the mean of x − K": lambda x: (
                (x - x[0]).mean(axis=0),
                _by_shift(x, x[0])[1],
            ),
            "the square of E[d] is not subtracted": lambda x: (
                _by_shift(x, x[0])[0],
                ((x - x[0]) ** 2).mean(axis=0),
            ),
        },
    ),
    Exercise(
        "keep-digits",
        f'"What if mean and variance are right?" in {_NUMERICS}',
        _given_statistics,
        lambda x, mean, var, gamma, beta, eps: _line(
            x,
            _rounded(mean),
            _slope(var, gamma, eps),
            (_rounded(mean) - mean) * _slope(var, gamma, eps) + beta,
        ),
        ["y"],
        {
            "where mean is that of the column, the mean of every column of y must be beta": (
                lambda answer, x, beta, **_: (
                    answer(mean=x.mean(axis=0, dtype=np.float64)).mean(axis=0),
                    beta,
                )
            ),
        },
        {
            "the mean is folded in, x·a + b": lambda x, mean, var, gamma, beta, eps: _line(
                x,
                0,
                _slope(var, gamma, eps),
                beta - mean * _slope(var, gamma, eps),
            ),
            "what the rounding of the mean left is forgotten": (
                lambda x, mean, var, gamma, beta, eps: _line(
                    x, _rounded(mean), _slope(var, gamma, eps), beta
                )
            ),
            "what the rounding of the mean left has the wrong sign": (
                lambda x, mean, var, gamma, beta, eps: _line(
                    x,
                    _rounded(mean),
                    _slope(var, gamma, eps),
                    (mean - _rounded(mean)) * _slope(var, gamma, eps) + beta,
                )
            ),
            "what the rounding of the mean left is not divided by the standard deviation": (
                lambda x, mean, var, gamma, beta, eps: _line(
                    x,
                    _rounded(mean),
                    _slope(var, gamma, eps),
                    (_rounded(mean) - mean) + beta,
                )
            ),
        },
        tolerance=1e-6,
        dtype=np.float32,
    ),
    Exercise(
        "count-bytes",
        f'"How many bytes does the textbook move?" in {_CPU}',
        _program,
        lambda large, m, C, itemsize: int(_numbers(large, m, C).sum() * itemsize),
        ["bytes"],
        {
            "a program twice as long must move twice as many bytes": (
                lambda answer, large, m, C, itemsize: (
                    answer(large=np.concatenate([large, large])) / answer(),
                    2,
                )
            ),
        },
        {
            "vectors are taken to be as large as x": lambda large, m, C, itemsize: (
                large.size * m * C * itemsize
            ),
            "vectors are left out": lambda large, m, C, itemsize: int(
                large.sum() * m * C * itemsize
            ),
            "what is written is left out": lambda large, m, C, itemsize: int(
                _numbers(large[:, :2], m, C).sum() * itemsize
            ),
            "only what is written is counted": lambda large, m, C, itemsize: int(
                _numbers(large[:, 2], m, C).sum() * itemsize
            ),
            "numbers are counted, not bytes": lambda large, m, C, itemsize: int(
                _numbers(large, m, C).sum()
            ),
        },
    ),
    Exercise(
        "four-operations",
        f'"Which operations can be saved?" in {_CPU}',
        _sums_of_a_batch,
        lambda dbeta, products, mean, inv_std, gamma, m: (
            gamma * inv_std,
            *_triple(dbeta, (products - mean * dbeta) * inv_std, mean, inv_std, m),
        ),
        ["a", "b", "c"],
        {
            "a · (b Σ x + Σ g + m c), the sum of dx, must be 0": (
                lambda answer, dbeta, mean, m, **_: (
                    answer()[0] * (answer()[1] * m * mean + dbeta + m * answer()[2]),
                    0 * mean,
                )
            ),
        },
        {
            "Σ g·x is taken for dγ": lambda dbeta, products, mean, inv_std, gamma, m: (
                gamma * inv_std,
                *_triple(dbeta, products, mean, inv_std, m),
            ),
            "dγ is not divided by σ": lambda dbeta, products, mean, inv_std, gamma, m: (
                gamma * inv_std,
                *_triple(dbeta, products - mean * dbeta, mean, inv_std, m),
            ),
            "γ is in b and c already, and in a once more": (
                lambda dbeta, products, mean, inv_std, gamma, m: (
                    gamma * inv_std,
                    *(
                        gamma * v
                        for v in _triple(
                            dbeta, (products - mean * dbeta) * inv_std, mean, inv_std, m
                        )
                    ),
                )
            ),
            "the mean is not subtracted in x̂": (
                lambda dbeta, products, mean, inv_std, gamma, m: (
                    gamma * inv_std,
                    _triple(dbeta, (products - mean * dbeta) * inv_std, mean, inv_std, m)[0],
                    -dbeta / m,
                )
            ),
        },
    ),
    Exercise(
        "tile-offsets",
        f'"How is that written in Triton?" in {_GPU}',
        _a_tile,
        lambda start, channel, N, C, S, rows, cols: _tile(start, channel, N, C, S, rows, cols),
        ["offsets"],
        mistakes={
            "positions beyond the end of an image are taken for values": (
                lambda start, channel, N, C, S, rows, cols: _tile(
                    start, channel, N, C, S, rows, cols, within=False
                )
            ),
            "images beyond the last are taken for values": (
                lambda start, channel, N, C, S, rows, cols: _tile(
                    start, channel, N, C, S, rows, cols, real=False
                )
            ),
            "the number of rows of an image is rounded down": (
                lambda start, channel, N, C, S, rows, cols: _tile(
                    start, channel, N, C, S, rows, cols, up=0
                )
            ),
            "images are S apart, as if there were one channel": (
                lambda start, channel, N, C, S, rows, cols: _tile(
                    start, channel, N, 1, S, rows, cols
                )
            ),
        },
    ),
    Exercise(
        "combine-sums",
        f'"Where do the digits go when many add up?" in {_GPU}',
        _sums_of_parts,
        _from_sums,
        ["mean", "var"],
        mistakes={
            "the shift is not squared away: the variance is about K": lambda k, a, b, m: (
                _from_sums(k, a, b, m)[0],
                b.sum(axis=0) / m,
            ),
            "K is left out of the mean": lambda k, a, b, m: (
                a.sum(axis=0) / m,
                _from_sums(k, a, b, m)[1],
            ),
            "the variance is the unbiased one": lambda k, a, b, m: (
                _from_sums(k, a, b, m)[0],
                _from_sums(k, a, b, m)[1] * (m / (m - 1)),
            ),
            "the parts are averaged, not added": lambda k, a, b, m: _from_sums(
                k, a / len(a), b / len(b), m
            ),
        },
    ),
    Exercise(
        "merge-parts",
        f'"What must the ranks tell one another?" in {_MANY}',
        _told_by_ranks,
        lambda counts, means, m2s: _whole(counts, means, m2s, 1.0),
        ["mean", "var"],
        mistakes={
            "all ranks count the same": lambda counts, means, m2s: _whole(
                np.ones(len(counts)), means, m2s / np.maximum(counts, 1)[:, None], 1.0
            ),
            "the distances between the means are left out": lambda counts, means, m2s: _whole(
                counts, means, m2s, 0.0
            ),
            "M is not divided by n": lambda counts, means, m2s: (
                _whole(counts, means, m2s, 1.0)[0],
                _whole(counts, means, m2s, 1.0)[1] * counts.sum(),
            ),
            "the variance is the unbiased one": lambda counts, means, m2s: (
                _whole(counts, means, m2s, 1.0)[0],
                _whole(counts, means, m2s, 1.0)[1] * counts.sum() / (counts.sum() - 1),
            ),
        },
    ),
    Exercise(
        "rank-gradient",
        f'"What travels backward?" in {_MANY}',
        _part_of_a_gradient,
        lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
            scale * (dy - sum_dy / n - x_hat * sum_dy_x_hat / n)
        ),
        ["dx"],
        mistakes={
            "the sums are divided by the rank's own count": (
                lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                    scale * (dy - sum_dy / len(dy) - x_hat * sum_dy_x_hat / len(dy))
                )
            ),
            "the rank takes its own sums": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale * (dy - dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0))
            ),
            "the sums are not divided by n": lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                scale * (dy - sum_dy - x_hat * sum_dy_x_hat)
            ),
            "the second sum is not multiplied by x̂": (
                lambda dy, x_hat, sum_dy, sum_dy_x_hat, n, scale: (
                    scale * (dy - sum_dy / n - sum_dy_x_hat / n)
                )
            ),
        },
    ),
)
