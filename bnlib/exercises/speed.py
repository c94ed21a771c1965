"""The exercises of part III, fast and exact, by chapter."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_NUMERICS = 'the chapter "Where do the digits go?"'


def _one_more(rng: Generator) -> Inputs:
    """Statistics of some values, and one value more, for each of four channels."""
    mean, x = rng.normal(0, 3, (2, 4))
    return {"n": int(rng.integers(3, 20)), "mean": mean, "m2": rng.uniform(1, 9, 4), "x": x}


@exercise(
    see=f'"How does one keep the digits of the variance?" in {_NUMERICS}',
    inputs=_one_more,
    outputs=["new_mean", "new_m2"],
    properties={
        "after one value a, with m2 = 0, a value b must give the mean (a + b)/2 and "
        "m2 = (a − b)²/2": lambda answer, n, mean, m2, x: (
            answer(n=1, m2=0 * m2),
            ((mean + x) / 2, (mean - x) ** 2 / 2),
        )
    },
    mistakes={
        "the deviation from the old mean is squared": ("x - new_mean", "x - mean"),
        "the deviation from the new mean is squared": ("(x - mean) *", "(x - new_mean) *"),
        "the new value is not counted: δ is divided by n": ("(n + 1)", "n"),
        "m2 is divided by the number of values": (
            "return new_mean, new_m2",
            "return new_mean, new_m2 / (n + 1)",
        ),
    },
)
def welford(n: int, mean: Array, m2: Array, x: Array) -> tuple[Array, Array]:
    new_mean = mean + (x - mean) / (n + 1)
    new_m2 = m2 + (x - mean) * (x - new_mean)
    return new_mean, new_m2


def _far_from_zero(rng: Generator) -> Inputs:
    """Channels whose means lie 10⁸ standard deviations from zero, and from one another."""
    means = 1e8 * rng.choice([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], 4, replace=False)
    return {"x": rng.normal(means, rng.uniform(0.5, 2, 4), (int(rng.integers(20, 40)), 4))}


@exercise(
    see=f'"How does one keep the digits of the variance?" in {_NUMERICS}',
    inputs=_far_from_zero,
    outputs=["mean", "var"],
    properties={
        "the variance of x + 2²⁰ must be that of x": (
            lambda answer, x: (answer(x=x + 2.0**20)[1], answer()[1])
        ),
        "mean − x[0] must be the mean of x − x[0]": (
            lambda answer, x: (answer()[0] - x[0], (x - x[0]).mean(axis=0))
        ),
    },
    mistakes={
        "nothing is subtracted before the squares are taken": ("x[0]", "0"),
        "all channels share one K": ("x[0]", "x[0, 0]"),
        "K is not added to the mean of x − K": ("k + ", ""),
        "the square of E[d] is not subtracted": (" - d.mean(axis=0) ** 2", ""),
    },
)
def shifted_var(x: Array) -> tuple[Array, Array]:
    k = x[0]
    d = x - k
    return k + d.mean(axis=0), (d * d).mean(axis=0) - d.mean(axis=0) ** 2


def _given_statistics(rng: Generator) -> Inputs:
    """A float32 mini-batch at 10,000 standard deviations, with statistics near its own."""
    x = rng.normal(rng.uniform(8e3, 12e3, 4), 1, (int(rng.integers(20, 40)), 4)).astype(np.float32)
    gamma, beta = rng.normal(size=(2, 4)).astype(np.float32)
    mean, var = rng.normal(x.mean(axis=0, dtype=np.float64), 0.1), rng.uniform(0.5, 2, 4)
    eps = rng.uniform(0.05, 0.5)
    return {"x": x, "mean": mean, "var": var, "gamma": gamma, "beta": beta, "eps": eps}


@exercise(
    see=f'"What if mean and variance are right?" in {_NUMERICS}',
    inputs=_given_statistics,
    outputs=["y"],
    tolerance=1e-6,
    dtype=np.float32,
    properties={
        "where mean is that of the column, the mean of every column of y must be beta": (
            lambda answer, x, beta, **_: (
                answer(mean=x.mean(axis=0, dtype=np.float64)).mean(axis=0),
                beta,
            )
        )
    },
    mistakes={
        "the mean is folded in, x·a + b": ("np.float32(mean)", "np.float32(0)"),
        "what the rounding of the mean left is forgotten": ("(k - mean) * a + beta", "beta"),
        "what the rounding of the mean left has the wrong sign": ("k - mean", "mean - k"),
        "what the rounding of the mean left is not divided by the standard deviation": (
            "(k - mean) * a",
            "(k - mean)",
        ),
    },
)
def keep_digits(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> Array:
    k = np.float32(mean)
    a = gamma / np.sqrt(var + eps)
    c = (k - mean) * a + beta  # with what the rounding of the mean left
    return (x - k) * np.float32(a) + np.float32(c)


_CPU = 'the chapter "Fast on the CPU"'


def _program(rng: Generator) -> Inputs:
    """Operations on large arrays and vectors; no two of the three numbers are equal."""
    large = rng.integers(0, 2, (int(rng.integers(5, 12)), 3))
    m, c = int(rng.integers(1000, 2000)), int(rng.integers(10, 100))
    return {"large": large, "m": m, "C": c, "itemsize": int(rng.choice([2, 4, 8]))}


@exercise(
    see=f'"How many bytes does the textbook move?" in {_CPU}',
    inputs=_program,
    outputs=["bytes"],
    properties={
        "a program twice as long must move twice as many bytes": (
            lambda answer, large, **_: (answer(large=np.tile(large, (2, 1))) / answer(), 2)
        )
    },
    mistakes={
        "vectors are taken to be as large as x": ("m * C, C", "m * C, m * C"),
        "vectors are left out": ("m * C, C", "m * C, 0"),
        "what is written is left out": ("numbers.sum", "numbers[:, :2].sum"),
        "only what is written is counted": ("numbers.sum", "numbers[:, 2].sum"),
        "numbers are counted, not bytes": (" * itemsize", ""),
    },
)
def count_bytes(large: Array, m: int, C: int, itemsize: int) -> int:
    numbers = np.where(large == 1, m * C, C)
    return numbers.sum() * itemsize


def _sums_of_a_batch(rng: Generator) -> Inputs:
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


@exercise(
    see=f'"Which operations can be saved?" in {_CPU}',
    inputs=_sums_of_a_batch,
    outputs=["a", "b", "c"],
    properties={
        "a · (b Σ x + Σ g + m c), the sum of dx, must be 0": (
            lambda answer, dbeta, mean, m, **_: (
                answer()[0] * (answer()[1] * m * mean + dbeta + m * answer()[2]),
                0 * mean,
            )
        )
    },
    mistakes={
        "Σ g·x is taken for dγ": ("(products - mean * dbeta) * inv_std", "products"),
        "dγ is not divided by σ": ("dbeta) * inv_std", "dbeta)"),
        "γ is in b and c already, and in a once more": ("a, b, c", "a, gamma * b, gamma * c"),
        "the mean is not subtracted in x̂": (" - mean * b", ""),
    },
)
def four_operations(
    dbeta: Array, products: Array, mean: Array, inv_std: Array, gamma: Array, m: int
) -> tuple[Array, Array, Array]:
    dgamma = (products - mean * dbeta) * inv_std
    a = gamma * inv_std
    b = -dgamma * inv_std / m
    c = -dbeta / m - mean * b
    return a, b, c


_GPU = 'the chapter "On the GPU"'


def _a_tile(rng: Generator) -> Inputs:
    """A tile from the first image to beyond the end; most images do not fill their rows."""
    n, s, cols = int(rng.integers(2, 4)), int(rng.choice([5, 7, 8, 11])), int(rng.integers(3, 5))
    start, rows = int(rng.integers(1, 3)), n * -(-s // cols)
    channel = int(rng.integers(1, 3))
    return {"start": start, "channel": channel, "N": n, "C": 3, "S": s, "rows": rows, "cols": cols}


@exercise(
    see=f'"How is that written in Triton?" in {_GPU}',
    inputs=_a_tile,
    outputs=["offsets"],
    mistakes={
        "positions beyond the end of an image are taken for values": (" & (position < S)", ""),
        "images beyond the last are taken for values": ("(image < N) & ", ""),
        "the number of rows of an image is rounded down": ("-(-S // cols)", "S // cols"),
        "images are S apart, as if there were one channel": ("image * C", "image"),
    },
)
def tile_offsets(start: int, channel: int, N: int, C: int, S: int, rows: int, cols: int) -> Array:
    across = -(-S // cols)  # rows of an image
    row = start + np.arange(rows)[:, None]
    image, position = row // across, row % across * cols + np.arange(cols)
    return np.where((image < N) & (position < S), (image * C + channel) * S + position, -1)


def _sums_of_parts(rng: Generator) -> Inputs:
    """What three programs have stored for four channels, about the first value of each."""
    x = rng.normal(rng.uniform(-3, 3, 4), 1, (int(rng.integers(20, 30)), 4))
    parts = [v - x[0] for v in np.array_split(x, 3)]
    a, b = (np.array([(d**p).sum(axis=0) for d in parts]) for p in (1, 2))
    return {"k": x[0], "a": a, "b": b, "m": len(x)}


@exercise(
    see=f'"Where do the digits go when many add up?" in {_GPU}',
    inputs=_sums_of_parts,
    outputs=["mean", "var"],
    mistakes={
        "the shift is not squared away: the variance is about K": (" - shift**2", ""),
        "K is left out of the mean": ("k + shift", "shift"),
        "the variance is the unbiased one": ("mean, var", "mean, var * m / (m - 1)"),
        "the parts are averaged, not added": (
            lambda k, a, b, m: combine_sums(k, a / len(a), b / len(b), m)
        ),
    },
)
def combine_sums(k: Array, a: Array, b: Array, m: int) -> tuple[Array, Array]:
    shift = a.sum(axis=0) / m
    mean = k + shift
    var = b.sum(axis=0) / m - shift**2
    return mean, var


_MANY = 'the chapter "Many machines"'


def _told_by_ranks(rng: Generator) -> Inputs:
    """Counts, means and M of four ranks, one of them empty, for three channels."""
    counts = rng.permutation([0, 2, 5, int(rng.integers(20, 40))])
    some = (counts > 0)[:, None]
    means, m2s = rng.normal(0, 3, (4, 3)), rng.uniform(0.5, 2, (4, 3)) * counts[:, None]
    return {"counts": counts, "means": means * some, "m2s": m2s}


@exercise(
    see=f'"What must the ranks tell one another?" in {_MANY}',
    inputs=_told_by_ranks,
    outputs=["mean", "var"],
    mistakes={
        "all ranks count the same": lambda counts, means, m2s: merge_parts(
            np.ones(len(counts)), means, m2s / np.maximum(counts, 1)[:, None]
        ),
        "the distances between the means are left out": (" + columns * (means - mean) ** 2", ""),
        "M is not divided by n": ("mean, var", "mean, var * n"),
        "the variance is the unbiased one": ("mean, var", "mean, var * n / (n - 1)"),
    },
)
def merge_parts(counts: Array, means: Array, m2s: Array) -> tuple[Array, Array]:
    columns, n = counts[:, None], counts.sum()
    mean = (columns * means).sum(axis=0) / n
    var = (m2s + columns * (means - mean) ** 2).sum(axis=0) / n
    return mean, var


def _part_of_a_gradient(rng: Generator) -> Inputs:
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


@exercise(
    see=f'"What travels backward?" in {_MANY}',
    inputs=_part_of_a_gradient,
    outputs=["dx"],
    mistakes={
        "the sums are divided by the rank's own count": ("/ n", "/ len(dy)"),
        "the rank takes its own sums": (
            "(sum_dy + x_hat * sum_dy_x_hat) / n",
            "dy.mean(axis=0) - x_hat * (dy * x_hat).mean(axis=0)",
        ),
        "the sums are not divided by n": (" / n", ""),
        "the second sum is not multiplied by x̂": ("x_hat * sum", "sum"),
    },
)
def rank_gradient(
    dy: Array, x_hat: Array, sum_dy: Array, sum_dy_x_hat: Array, n: int, scale: Array
) -> Array:
    return scale * (dy - (sum_dy + x_hat * sum_dy_x_hat) / n)
