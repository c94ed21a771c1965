"""Answers to the exercises of part II as readers may write them: unusual styles, right and wrong.

Each entry says how it is right, or what is wrong with it.
"""

import bisect
import itertools
import math
import statistics

import numpy as np
from numpy.lib.stride_tricks import as_strided


def softmax(logits, top=None):
    top = logits.max(1, keepdims=True) if top is None else top
    return (e := np.exp(logits - top)) / e.sum(1, keepdims=True)


def loss_gradient_in_loops(logits, labels):
    dlogits = np.zeros(logits.shape)
    for i, row in enumerate(logits):
        for k, v in enumerate(row):
            p = 1 / sum(math.exp(min(700, other - v)) for other in row)
            dlogits[i, k] = (p - (k == labels[i])) / len(logits)
    return dlogits


def loss_gradient_by_index(logits, labels):
    dlogits = softmax(logits)
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits / len(labels)


def loss_gradient_by_logarithms(logits, labels):
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    truth = labels[:, None] == np.arange(logits.shape[1])
    return np.subtract(np.exp(logs), truth) / logits.shape[0]


def loss_gradient_divided_too_soon(logits, labels):
    dlogits = softmax(logits) / len(logits)
    dlogits[np.arange(len(labels)), labels] -= 1
    return dlogits


def loss_gradient_in_columns(logits, labels):
    dlogits = softmax(logits)
    dlogits[:, labels] -= 1
    return dlogits / len(labels)


def momentum_in_place(value, grad, velocity, lr, momentum):
    value, velocity = value.copy(), velocity.copy()
    velocity *= momentum
    velocity += grad
    value -= lr * velocity
    return value, velocity


def momentum_number_by_number(value, grad, velocity, lr, momentum):
    both = [
        (x - lr * (momentum * v + g), momentum * v + g)
        for x, g, v in zip(value.flat, grad.flat, velocity.flat, strict=True)
    ]
    return np.array(both).T.reshape(2, *value.shape)


def moved(value, velocity, lr):
    return value - lr * velocity, velocity


def first_step_in_a_loop(steps, accuracy, target):
    for step, reached in zip(steps, accuracy, strict=True):
        if reached >= target:
            return step


def drift_in_loops(percentiles):
    found = []
    for low, median, high in percentiles.transpose(2, 1, 0):
        path = sum(abs(b - a) for a, b in itertools.pairwise(median))
        found.append(path / (high[-1] - low[-1]))
    return found


def path_of(median):
    return abs(np.diff(median, axis=0)).sum(0)


def times_fewer_seed_by_seed(steps, plain, other):
    factors = []
    for a, b in zip(plain.tolist(), other.tolist(), strict=True):
        best = max(a)
        there = next((step for step, v in zip(steps, b, strict=True) if v >= best), math.inf)
        factors.append(steps[a.index(best)] / there)
    return factors


def times_fewer_with_infinity(steps, plain, other):
    goal = plain.max(axis=1, keepdims=True)
    there = np.where(other >= goal, steps, np.inf).min(axis=1)
    return np.where(plain == goal, steps, np.inf).min(axis=1) / there


def times_fewer_with_a_running_best(steps, plain, other):
    best = np.maximum.accumulate(other, axis=1)
    late = (best < plain.max(axis=1)[:, None]).sum(axis=1)
    factors = np.zeros(len(plain))
    ever = late < len(steps)
    factors[ever] = steps[plain.argmax(1)][ever] / steps[late[ever]]
    return factors


def times_fewer_by_index(steps, plain, other, plain_at=None, other_at=None):
    goal = plain.max(1, keepdims=True)
    plain_at = plain.argmax(1) if plain_at is None else plain_at
    other_at = (other >= goal).argmax(1) if other_at is None else other_at
    return np.where(other.max(1) >= goal[:, 0], steps[plain_at] / steps[other_at], 0)


def last_true(a):
    return a.shape[1] - 1 - a[:, ::-1].argmax(1)


def searched(rows, goals):
    """Where each goal would stand if its row were in order."""
    found = [np.searchsorted(row, goal) for row, goal in zip(rows, goals, strict=True)]
    return np.minimum(found, rows.shape[1] - 1)


def rates_meet_by_bisection(factor, slow, fast):
    low, high = 0.0, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        if factor * 10 ** (-fast * middle) > 10 ** (-slow * middle):
            low = middle
        else:
            high = middle
    return low


def im2col_in_loops(image, size):
    h, w = image.shape[0] - size + 1, image.shape[1] - size + 1
    rows = np.zeros((h * w, size * size))
    for i in range(h):
        for j in range(w):
            rows[i * w + j] = image[i : i + size, j : j + size].ravel()
    return rows


def im2col_by_index(image, size):
    h, w = image.shape[0] - size + 1, image.shape[1] - size + 1
    i, j = (np.add.outer(np.indices((h, w))[k], np.indices((size, size))[k]) for k in (0, 1))
    return image[i, j].reshape(h * w, -1)


def im2col_by_strides(image, size):
    h, w = image.shape[0] - size + 1, image.shape[1] - size + 1
    return as_strided(image, (h, w, size, size), image.strides * 2).reshape(h * w, -1)


def im2col_pixel_by_pixel(image, size):
    """Column by column of the result, each a shifted image."""
    h, w = image.shape[0] - size + 1, image.shape[1] - size + 1
    return np.stack(
        [image[a : a + h, b : b + w].ravel() for a in range(size) for b in range(size)], axis=1
    )


def output_size_by_moving(height, size, stride, padding):
    rows, first = 0, -padding
    while first + size <= height + padding:
        rows, first = rows + 1, first + stride
    return rows


def silent_in_loops(x):
    silent = 0
    for c in range(x.shape[1]):
        if not any(v > 0 for v in x[:, c].ravel()):
            silent += 1
    return silent / x.shape[1]


def noise_of(x, m, skewness=1.0, part=0.25, std=None):
    z = (x - x.mean(0)) / (x.std(0) if std is None else std)
    return np.sqrt(
        np.maximum(0, 1 + skewness * (z**3).mean(0) * z + part * ((z**4).mean(0) - 1) * z**2) / m
    )


def noise_in_loops(x, m):
    noise = np.zeros(x.shape)
    for c in range(x.shape[1]):
        mean, std = x[:, c].mean(), x[:, c].std()
        s = sum((v - mean) ** 3 for v in x[:, c]) / len(x) / std**3
        kurtosis = sum((v - mean) ** 4 for v in x[:, c]) / len(x) / std**4
        for i in range(len(x)):
            z = (x[i, c] - mean) / std
            noise[i, c] = ((1 + s * z + (kurtosis - 1) / 4 * z * z) / m) ** 0.5
    return noise


def shift_by_covariance(x, weight, p):
    covariance = np.cov(x.T, bias=True)
    var = np.array([w @ covariance @ w for w in weight])
    return 1 + p / (1 - p) * np.array([(w**2 * (x**2).mean(0)).sum() for w in weight]) / var


def shift_of_outputs(x, weight, p):
    """The variance of h over images and masks, from both parts."""
    h = np.einsum("nk,ck->nc", x, weight)
    of_masks = np.einsum("nk,ck->nc", x**2 * p / (1 - p), weight**2)
    return (h.var(0) + of_masks.mean(0)) / h.var(0)


def length(v):
    return np.sqrt((v**2).sum(1))


def unit(v):
    return v / length(v)[:, None]


def turn_as_in_the_chapter(weight, gradient, lr):
    return np.arccos((unit(weight) * unit(weight - lr * gradient)).sum(1))


def largest_usable(rates, usable):
    return rates[np.flatnonzero(usable)[-1]]


def largest_rate_from_above(rates, accuracy, points):
    medians = [statistics.median(column) for column in accuracy.T]
    for rate, column in zip(rates[::-1], accuracy.T[::-1], strict=True):
        if all(v > max(medians) - points for v in column):
            return rate


def largest_rate_until_the_first_failure(rates, accuracy, points):
    usable = (accuracy > np.median(accuracy, 0).max() - points).all(0)
    start = usable.argmax()
    stop = next((i for i in range(start, len(rates)) if not usable[i]), len(rates))
    return rates[stop - 1]


ANSWERS = {
    "loss-gradient": {
        "right": {
            "two loops into zeros": loss_gradient_in_loops,
            "by index": loss_gradient_by_index,
            "by logarithms": loss_gradient_by_logarithms,
            "with rows of the identity": lambda logits, labels: (
                (softmax(logits) - np.eye(logits.shape[1])[labels]) / len(labels)
            ),
        },
        "wrong": {
            "divided before 1 is subtracted": loss_gradient_divided_too_soon,
            "1 is subtracted in whole columns": loss_gradient_in_columns,
            "the largest logit of the batch is subtracted": lambda logits, labels: (
                (softmax(logits, logits.max()) - np.eye(logits.shape[1])[labels]) / len(labels)
            ),
            "as many classes as the labels show": lambda logits, labels: (
                (softmax(logits) - np.eye(labels.max() + 1)[labels]) / len(labels)
            ),
            "large logits are cut off": lambda logits, labels: loss_gradient_by_index(
                np.minimum(logits, 700), labels
            ),
        },
    },
    "momentum-step": {
        "right": {
            "in place, in copies": momentum_in_place,
            "number by number": momentum_number_by_number,
            "written out": lambda value, grad, velocity, lr, momentum: [
                value - lr * grad - lr * momentum * velocity,
                np.add(grad, np.multiply(momentum, velocity)),
            ],
        },
        "wrong": {
            "Nesterov's step": lambda value, grad, velocity, lr, momentum: (
                value - lr * (grad + momentum * (v := momentum * velocity + grad)),
                v,
            ),
            "the gradient is multiplied too": lambda value, grad, velocity, lr, momentum: moved(
                value, momentum * (velocity + grad), lr
            ),
            "the step is kept as the velocity": lambda value, grad, velocity, lr, momentum: (
                value - (v := lr * (momentum * velocity + grad)),
                v,
            ),
        },
    },
    "initial-std": {
        "right": {
            "from the length of x": lambda x: math.sqrt(2 * len(x)) / np.linalg.norm(x),
            "from mean and variance": lambda x: (
                (x.shape[1] * (x.var() + x.mean() ** 2) / 2) ** -0.5
            ),
            "example by example": lambda x: math.sqrt(2 * len(x) / sum(row @ row for row in x)),
        },
        "wrong": {
            "the square of the mean": lambda x: math.sqrt(2 / x.shape[1]) / x.mean(),
            "the ReLU is laid over the inputs": lambda x: math.sqrt(
                2 * len(x) / (np.maximum(x, 0) ** 2).sum()
            ),
            "variances of single features": lambda x: math.sqrt(2 / x.var(0).sum()),
            "the variance behind the ReLU, not the mean square": lambda x: math.sqrt(
                2 / (1 - 1 / math.pi) / (x.shape[1] * np.mean(x**2))
            ),
        },
    },
    "steps-to": {
        "right": {
            "in a loop": first_step_in_a_loop,
            "the smallest step that is there": lambda steps, accuracy, target: steps[
                accuracy >= target
            ].min(),
            "by the best so far": lambda steps, accuracy, target: float(
                steps[np.searchsorted(np.maximum.accumulate(accuracy), target)]
            ),
        },
        "wrong": {
            "the nearest accuracy": lambda steps, accuracy, target: steps[
                np.argmin(abs(accuracy - target))
            ],
            "from the second evaluation on": lambda steps, accuracy, target: first_step_in_a_loop(
                steps[1:], accuracy[1:], target
            ),
            "by bisection": lambda steps, accuracy, target: steps[
                bisect.bisect_left(accuracy, target)
            ],
            "a step between two evaluations": lambda steps, accuracy, target: np.interp(
                target, np.maximum.accumulate(accuracy), steps
            ),
            "the evaluations are taken for evenly spaced": lambda steps, accuracy, target: (
                steps[0] + (steps[1] - steps[0]) * np.argmax(accuracy >= target)
            ),
        },
    },
    "drift": {
        "right": {
            "in loops": drift_in_loops,
            "by slices": lambda percentiles: (
                np.abs(percentiles[1:, 1] - percentiles[:-1, 1]).sum(0)
                / np.ptp(percentiles[-1], axis=0)
            ),
            "the median of the three": lambda percentiles: (
                path_of(np.median(percentiles, axis=1)) / (percentiles[-1, 2] - percentiles[-1, 0])
            ),
        },
        "wrong": {
            "the mean of the three": lambda percentiles: (
                path_of(percentiles.mean(1)) / (percentiles[-1, 2] - percentiles[-1, 0])
            ),
            "the mean spread": lambda percentiles: (
                path_of(percentiles[:, 1]) / (percentiles[:, 2] - percentiles[:, 0]).mean(0)
            ),
            "a path that begins at 0": lambda percentiles: (
                np.abs(np.diff(percentiles[:, 1], axis=0, prepend=0)).sum(0)
                / (percentiles[-1, 2] - percentiles[-1, 0])
            ),
            "half of the spread": lambda percentiles: (
                path_of(percentiles[:, 1]) / (percentiles[-1, 2] - percentiles[-1, 1])
            ),
        },
    },
    "times-fewer": {
        "right": {
            "seed by seed": times_fewer_seed_by_seed,
            "never is infinity": times_fewer_with_infinity,
            "by the best so far": times_fewer_with_a_running_best,
        },
        "wrong": {
            "the last time of plain's best": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, plain_at=last_true(plain == plain.max(1, keepdims=True))
            ),
            "a hundredth of a point is missing": lambda steps, plain, other: (
                times_fewer_seed_by_seed(steps, plain, other + 1e-4)
            ),
            "above, not at least": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, other_at=(other > plain.max(1, keepdims=True)).argmax(1)
            ),
            "the best of other": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, other_at=other.argmax(1)
            ),
            "the nearest accuracy": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, other_at=abs(other - plain.max(1)[:, None]).argmin(1)
            ),
            "by bisection": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, other_at=searched(other, plain.max(1))
            ),
            "at once is taken for never": lambda steps, plain, other: (
                ((at := (other >= plain.max(1, keepdims=True)).argmax(1)) > 0)
                * steps[plain.argmax(1)]
                / steps[at]
            ),
            "one goal for all seeds": lambda steps, plain, other: times_fewer_by_index(
                steps, plain, other, other_at=(other >= plain.max()).argmax(1)
            ),
        },
    },
    "interaction": {
        "right": {
            "by logarithms": lambda before, alone, together: (
                np.exp(np.log(before) - np.log(alone)),
                math.exp(math.log(before / together) - np.log(before / alone).sum()),
            ),
            "as a list": lambda before, alone, together: (
                factors := [before / v for v in alone],
                before / together / math.prod(factors),
            ),
            "all steps above": lambda before, alone, together: (
                (alone / before) ** -1.0,
                np.prod(alone) / before ** (len(alone) - 1) / together,
            ),
        },
        "wrong": {
            "the largest factor for the product": lambda before, alone, together: (
                before / alone,
                before / together / (before / alone).max(),
            ),
            "upside down": lambda before, alone, together: (
                before / alone,
                np.prod(before / alone) / (before / together),
            ),
            "the mean factor to the power of their number": lambda before, alone, together: (
                before / alone,
                before / together / np.mean(before / alone) ** len(alone),
            ),
        },
    },
    "rates-meet": {
        "right": {
            "by natural logarithms": lambda factor, slow, fast: (
                math.log(factor) / math.log(10) / (fast - slow)
            ),
            "by bisection": rates_meet_by_bisection,
            "the logarithm to a base of its own": lambda factor, slow, fast: math.log(
                factor, 10 ** (fast - slow)
            ),
        },
        "wrong": {
            "the sum of the two falls": lambda factor, slow, fast: (
                math.log10(factor) / (fast + slow)
            ),
            "the rates fall along straight lines": lambda factor, slow, fast: (
                (factor - 1) / (factor * fast - slow)
            ),
            "powers of two": lambda factor, slow, fast: math.log2(factor) / (fast - slow),
        },
    },
    "im2col": {
        "right": {
            "two loops into zeros": im2col_in_loops,
            "by index": im2col_by_index,
            "by strides": im2col_by_strides,
            "column by column": im2col_pixel_by_pixel,
        },
        "wrong": {
            "windows are turned, as in a mathematical convolution": lambda image, size: (
                im2col_in_loops(image, size)[:, ::-1]
            ),
            "from the last window to the first": lambda image, size: im2col_in_loops(image, size)[
                ::-1
            ],
            "down first": lambda image, size: [
                image[i : i + size, j : j + size].ravel()
                for j in range(image.shape[1] - size + 1)
                for i in range(image.shape[0] - size + 1)
            ],
            "moved by half a window": lambda image, size: np.lib.stride_tricks.sliding_window_view(
                image, (size, size)
            )[:: max(1, size // 2), :: max(1, size // 2)].reshape(-1, size * size),
            "windows of two pixels, whatever the size": lambda image, size: im2col_in_loops(
                image, 2
            ),
        },
    },
    "output-size": {
        "right": {
            "by counting": lambda height, size, stride, padding: len(
                range(-padding, height + padding - size + 1, stride)
            ),
            "by moving": output_size_by_moving,
            "rounded up": lambda height, size, stride, padding: (
                -(-(height + 2 * padding - size + 1) // stride)
            ),
        },
        "wrong": {
            "the way is rounded up": lambda height, size, stride, padding: (
                math.ceil((height + 2 * padding - size) / stride) + 1
            ),
            "the padding is taken for half of the kernel": lambda height, size, stride, padding: (
                (height - 1) // stride + 1
            ),
            "kernels are taken to be odd": lambda height, size, stride, padding: (
                (height + 2 * padding - size // 2 * 2 - 1) // stride + 1
            ),
            "a quotient, which is a float": lambda height, size, stride, padding: (
                (height + 2 * padding - size) / stride + 1
            ),
            "the window may hang over": lambda height, size, stride, padding: len(
                range(-padding, height + padding, stride)
            ),
        },
    },
    "silent-channels": {
        "right": {
            "in loops": silent_in_loops,
            "by truth values": lambda x: np.mean(~x.any(axis=(0, 2, 3))),
            "by sums": lambda x: 1 - np.count_nonzero(np.einsum("nchw->c", x)) / x.shape[1],
        },
        "wrong": {
            "what is nearly 0 is 0": lambda x: np.isclose(x.max((0, 2, 3)), 0).mean(),
            "channels that do not vary": lambda x: (x.var((0, 2, 3)) == 0).mean(),
            "the first image alone": lambda x: (x[0].max((1, 2)) == 0).mean(),
            "silent somewhere": lambda x: (x.min((0, 2, 3)) == 0).mean(),
        },
    },
    "dropout-noise": {
        "right": {
            "from the two outcomes": lambda x, p: (
                mean := p * 0 + (1 - p) * (x / (1 - p)),
                p * (0 - mean) ** 2 + (1 - p) * (x / (1 - p) - mean) ** 2,
            ),
            "E[y²] − E[y]²": lambda x, p: (x, (1 - p) * (x / (1 - p)) ** 2 - x**2),
            "stacked": lambda x, p: np.stack([x, x * x * p / (1 - p)]),
        },
        "wrong": {
            "p (1 − p) x²": lambda x, p: (x, p * (1 - p) * x**2),
            "the mean of kept values": lambda x, p: (x / (1 - p), x**2 * p / (1 - p)),
            "the variance of each column": lambda x, p: (
                x,
                np.broadcast_to(x.var(0) * p / (1 - p), x.shape),
            ),
        },
    },
    "batch-noise": {
        "right": {
            "in loops": noise_in_loops,
            "from moments that are not divided": lambda x, m: np.sqrt(
                (
                    1
                    + ((d := x - x.mean(0)) ** 3).mean(0) / (v := (d**2).mean(0)) ** 2 * d
                    + ((d**4).mean(0) / v**2 - 1) / 4 * d**2 / v
                )
                / m
            ),
            "by a polynomial": lambda x, m: (
                (
                    np.stack([np.ones_like(x), z := (x - x.mean(0)) / x.std(0), z**2], axis=-1)
                    * np.stack(
                        [np.ones(x.shape[1]), (z**3).mean(0), ((z**4).mean(0) - 1) / 4], axis=-1
                    )
                ).sum(-1)
                ** 0.5
                / m**0.5
            ),
        },
        "wrong": {
            "the skewness has the other sign": lambda x, m: noise_of(x, m, skewness=-1),
            "the variance counts in full, not a quarter": lambda x, m: noise_of(x, m, part=1),
            "all features have one spread": lambda x, m: noise_of(x, m, std=x.std()),
        },
    },
    "variance-shift": {
        "right": {
            "by the covariance": shift_by_covariance,
            "from the outputs": shift_of_outputs,
            "unit by unit": lambda x, weight, p: [
                1 + p / (1 - p) * np.linalg.norm(x * w) ** 2 / len(x) / np.var(x @ w)
                for w in weight
            ],
        },
        "wrong": {
            "inputs are taken for independent": lambda x, weight, p: (
                1 + p / (1 - p) * (weight**2 @ (x**2).mean(0)) / (weight**2 @ x.var(0))
            ),
            "the mean square of the output": lambda x, weight, p: (
                1 + p / (1 - p) * (weight**2 @ (x**2).mean(0)) / ((x @ weight.T) ** 2).mean(0)
            ),
            "the square of the sum": lambda x, weight, p: (
                1 + p / (1 - p) * ((x @ weight.T) ** 2).mean(0) / (x @ weight.T).var(0)
            ),
        },
    },
    "effective-rate": {
        "right": {
            "by lengths": lambda weight, lr: lr * np.linalg.norm(weight, axis=1) ** -2,
            "on the diagonal": lambda weight, lr: lr / np.diag(weight @ weight.T),
            "unit by unit": lambda weight, lr: [lr / float(w @ w) for w in weight],
        },
        "wrong": {
            "the mean square for the sum": lambda weight, lr: lr / (weight**2).mean(1),
            "sums of absolute values": lambda weight, lr: lr / abs(weight).sum(1) ** 2,
            "about the mean": lambda weight, lr: lr / weight.var(1) / weight.shape[1],
        },
    },
    "turn": {
        "right": {
            "the arccos of the chapter": turn_as_in_the_chapter,
            "by the arcsin": lambda weight, gradient, lr: np.arcsin(
                lr * length(gradient) / length(weight - lr * gradient)
            ),
            "the angle of a complex number": lambda weight, gradient, lr: np.angle(
                length(weight) + 1j * lr * length(gradient)
            ),
            "by half the angle": lambda weight, gradient, lr: (
                2 * np.arcsin(length(unit(weight - lr * gradient) - unit(weight)) / 2)
            ),
        },
        "wrong": {
            "the sine of the angle": lambda weight, gradient, lr: (
                lr * length(gradient) / length(weight - lr * gradient)
            ),
            "the distance of the directions": lambda weight, gradient, lr: length(
                unit(weight - lr * gradient) - unit(weight)
            ),
            "the effective rate": lambda weight, gradient, lr: np.arctan(
                lr * length(gradient) / length(weight) ** 2
            ),
        },
    },
    "largest-rate": {
        "right": {
            "from above": largest_rate_from_above,
            "how far each seed is above": lambda rates, accuracy, points: largest_usable(
                rates, np.min(accuracy - np.median(accuracy, axis=0).max(), axis=0) > -points
            ),
            "by the second quartile": lambda rates, accuracy, points: max(
                rate
                for rate, seeds in zip(rates, accuracy.T, strict=True)
                if seeds.min() > np.quantile(accuracy, 0.5, axis=0).max() - points
            ),
        },
        "wrong": {
            "the mean for the median": lambda rates, accuracy, points: largest_usable(
                rates, accuracy.min(0) > accuracy.mean(0).max() - points
            ),
            "the median where the mean is best": lambda rates, accuracy, points: largest_usable(
                rates,
                accuracy.min(0) > np.median(accuracy[:, accuracy.mean(0).argmax()]) - points,
            ),
            "up to the first failure": largest_rate_until_the_first_failure,
            "at least, not above": lambda rates, accuracy, points: largest_usable(
                rates, accuracy.min(0) >= np.median(accuracy, 0).max() - points
            ),
            "up to the last but one": lambda rates, accuracy, points: largest_rate_from_above(
                rates[:-1], accuracy[:, :-1], points
            ),
            "all but one seed": lambda rates, accuracy, points: largest_usable(
                rates,
                (accuracy > np.median(accuracy, 0).max() - points).sum(0) >= len(accuracy) - 1,
            ),
            "the upper one of two middle seeds": lambda rates, accuracy, points: np.max(
                rates,
                where=accuracy.min(0)
                > np.sort(accuracy, axis=0)[len(accuracy) // 2].max() - points,
                initial=0,
            ),
            "the points are taken for 3 %": lambda rates, accuracy, points: largest_usable(
                rates, accuracy.min(0) > np.median(accuracy, 0).max() - 0.03
            ),
        },
    },
}
