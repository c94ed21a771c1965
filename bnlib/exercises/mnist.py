"""The exercises of part II, the experiments."""

from typing import Any

import numpy as np

from bnlib.exercises.judge import Exercise

_NETWORK = 'the chapter "A network from scratch"'
_FIGURE_1 = 'the chapter "Figure 1 of the paper"'
_CNN = 'the chapter "Convolutional networks on MNIST"'
_RATES = 'the chapter "Learning rates"'
_DROPOUT = 'the chapter "Is Dropout still needed?"'
_ACCELERATED = 'the chapter "Fourteen times fewer steps?"'


def _logits(rng: np.random.Generator) -> dict[str, Any]:
    logits = rng.normal(0, 2, (6, 4))
    logits[2] += 1000  # exp would overflow
    return {"logits": logits, "labels": rng.integers(0, 4, 6)}


def _probabilities(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _surplus(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What is believed minus what is true, (N, K)."""
    truth = np.eye(logits.shape[1], dtype=logits.dtype)[labels]
    return np.asarray(_probabilities(logits) - truth)


def _moving(rng: np.random.Generator) -> dict[str, Any]:
    value, grad, velocity = rng.normal(size=(3, 4, 5))
    numbers = {"lr": rng.uniform(0.1, 0.5), "momentum": rng.uniform(0.5, 0.9)}
    return {"value": value, "grad": grad, "velocity": velocity, **numbers}


def _moved(value: np.ndarray, velocity: np.ndarray, lr: float) -> tuple[np.ndarray, np.ndarray]:
    return value - lr * velocity, velocity


def _pixels(rng: np.random.Generator) -> dict[str, Any]:
    """Inputs that are not standardized, some of them negative."""
    high, shape = rng.uniform(2, 9), (rng.integers(30, 40), rng.integers(8, 20))
    return {"x": rng.uniform(-1, high, shape)}


def _climb(rng: np.random.Generator) -> dict[str, Any]:
    """A curve that is at its target early, falls below it, comes back, and falls once more."""
    accuracy = np.sort(rng.uniform(0.1, 0.98, 30))
    accuracy[rng.integers(4, 9)] = accuracy[20]
    accuracy[25] = accuracy[20] - 0.05
    accuracy[[3, 12]] = accuracy[20] - 0.001
    target = accuracy[20] - 0.0008 * rng.integers(2)  # reached, or passed: then 3 is nearer
    return {"steps": np.cumsum(rng.integers(100, 900, 30)), "accuracy": accuracy, "target": target}


def _path(percentiles: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(np.diff(percentiles[:, 1], axis=0)).sum(axis=0))


def _spread(percentiles: np.ndarray) -> np.ndarray:
    return np.asarray(percentiles[-1, 2] - percentiles[-1, 0])


def _two_nets(rng: np.random.Generator) -> dict[str, Any]:
    """Curves of 4 seeds, up and down. The others get there at once, early, early, and never."""
    plain, other = np.sort(rng.uniform(0.5, 0.9, (2, 4, 20)), axis=-1)
    goals = rng.uniform(0.91, 0.95, 4)
    plain[:, 14] = plain[:, 17] = goals  # the best comes twice, and before the end
    other[:, 0] = goals - 1e-6
    other[0, 0] = goals[0]
    other[1, rng.integers(1, 8)] = goals[1]  # reached, not passed
    other[2, rng.integers(1, 8)], other[2, 12] = goals[2] + 0.01, goals[2]
    other[:3, 18] = 0.97
    return {"steps": np.cumsum(rng.integers(50, 200, 20)), "plain": plain, "other": other}


def _ratios(steps: np.ndarray, plain: np.ndarray, reached: np.ndarray) -> np.ndarray:
    return np.asarray(steps[plain.argmax(axis=1)] / steps[reached.argmax(axis=1)])


def _reached(plain: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(other >= plain.max(axis=1, keepdims=True))


def _times_fewer(steps: np.ndarray, plain: np.ndarray, other: np.ndarray) -> np.ndarray:
    reached = _reached(plain, other)
    return np.where(reached.any(axis=1), _ratios(steps, plain, reached), 0.0)


def _parts(rng: np.random.Generator) -> dict[str, Any]:
    alone = rng.uniform(1000, 3500, rng.integers(3, 6))
    return {"before": rng.uniform(3000, 4000), "alone": alone, "together": rng.uniform(300, 900)}


def _windows(image: np.ndarray, size: int) -> np.ndarray:
    """(H', W', size, size)."""
    return np.lib.stride_tricks.sliding_window_view(image, (size, size))


def _rows(image: np.ndarray, size: int) -> np.ndarray:
    return _windows(image, size).reshape(-1, size * size)


def _map(rng: np.random.Generator) -> dict[str, Any]:
    """Outputs of a ReLU, (N, C, H, W), with silent channels."""
    x = np.maximum(rng.normal(-0.5, 1, (4, 10, 3, 3)), 0)
    x[:, 2:5] = 0
    x[0, 6] = x[1:3, 8] = 0
    x[..., 0, 0] = 0
    return {"x": x}


def _values(rng: np.random.Generator) -> dict[str, Any]:
    """Values of uneven size, some of them 0, as behind a ReLU, and a Dropout rate."""
    x = np.maximum(rng.normal(0.5, 2, (rng.integers(5, 9), rng.integers(2, 5))), 0) - 0.25
    return {"x": x, "p": rng.uniform(0.2, 0.8)}


def _lopsided(rng: np.random.Generator) -> dict[str, Any]:
    """Features of uneven mean, scale and skewness, and a batch size."""
    c = rng.integers(2, 5)
    x = rng.gamma(rng.uniform(1, 4, c), rng.uniform(0.5, 2, c), (200, c)) - rng.uniform(0, 5, c)
    return {"x": x, "m": int(rng.integers(8, 100))}


def _batch_noise(
    x: np.ndarray,
    m: int,
    *,
    with_skew: bool = True,
    with_var: bool = True,
    less: float = 1,
    ddof: int = 0,
) -> np.ndarray:
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=ddof)
    noise = 1 + with_skew * (z**3).mean(axis=0) * z
    noise = noise + with_var * ((z**4).mean(axis=0) - less) / 4 * z**2
    return np.asarray(np.sqrt(np.maximum(noise, 0) / m))


def _dropped_inputs(rng: np.random.Generator) -> dict[str, Any]:
    """Inputs behind a ReLU, the weights of a linear layer, and a Dropout rate."""
    k, c = rng.integers(4, 9), rng.integers(2, 6)
    x = np.maximum(rng.normal(rng.uniform(0, 1, k), 1, (50, k)), 0)
    return {"x": x, "weight": rng.normal(size=(c, k)), "p": rng.uniform(0.1, 0.7)}


def _variance_shift(
    x: np.ndarray, weight: np.ndarray, p: float, squares: np.ndarray | None = None
) -> np.ndarray:
    squares = (x**2).mean(axis=0) if squares is None else squares
    noise = weight**2 @ squares / (x @ weight.T).var(axis=0)
    return np.asarray(1 + p / (1 - p) * noise)


def _perpendicular(rng: np.random.Generator) -> dict[str, Any]:
    """Weights, and gradients perpendicular to them, unit by unit."""
    weight = rng.normal(0, rng.uniform(0.5, 3, (4, 1)), (4, 6))
    gradient = rng.normal(size=(4, 6))
    along = (gradient * weight).sum(axis=1) / (weight**2).sum(axis=1)
    gradient -= along[:, None] * weight
    return {"weight": weight, "gradient": gradient, "lr": float(rng.uniform(0.5, 2))}


def _norm(v: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt((v**2).sum(axis=1)))


def _swept(rng: np.random.Generator) -> dict[str, Any]:
    """Six seeds at eleven rates, in 1/1024, so that sums are exact; the bound is 968.

    The best mean is not at the best median, 1000. There one seed is low; one is lucky elsewhere.
    The last good rate has a seed just above the bound; the next ones fail, each in its own way.
    """
    at = np.array([932, 973, 983, 0, 994, 981, 980, 978, 978, 978, 978])
    at = at + rng.integers(-1, 2, (6, 11))
    at[:, 3] = [922, 994, 997, 1003, 1005, 1008]
    at[0, [2, 6, 7, 8, 9]] = 1019, 969, 968, 964, 700
    at[:2, 10] = 102
    rates = 0.01 * 2.0 ** np.arange(11) * rng.uniform(0.5, 2)
    return {"rates": rates, "accuracy": rng.permuted(at, axis=0) / 1024, "points": 32 / 1024}


def _bound(accuracy: np.ndarray, points: float) -> float:
    return float(np.median(accuracy, axis=0).max() - points)


EXERCISES = (
    Exercise(
        "loss-gradient",
        f'"How wrong is an answer?" in {_NETWORK}',
        _logits,
        lambda logits, labels: _surplus(logits, labels) / len(logits),
        ["dlogits"],
        properties={
            "every row of dlogits must sum to 0": lambda answer, logits, labels: (
                answer().sum(axis=1),
                np.zeros(len(logits)),
            ),
            "it must work where no example is of the last class": lambda answer, logits, labels: (
                answer(labels=0 * labels),
                _surplus(logits, 0 * labels) / len(logits),
            ),
        },
        mistakes={
            "the sum over the batch is differentiated, not the average": _surplus,
            "the largest logit of a row is not subtracted before exp, which overflows": (
                lambda logits, labels: (
                    (
                        np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
                        - np.eye(logits.shape[1])[labels]
                    )
                    / len(logits)
                )
            ),
            "nothing is subtracted at the right class": lambda logits, labels: (
                _probabilities(logits) / len(logits)
            ),
            "the sign is the wrong way round": lambda logits, labels: (
                -_surplus(logits, labels) / len(logits)
            ),
            "it is divided by the number of classes, not of examples": lambda logits, labels: (
                _surplus(logits, labels) / logits.shape[1]
            ),
        },
    ),
    Exercise(
        "momentum-step",
        f'"One step" in {_NETWORK}',
        _moving,
        lambda value, grad, velocity, lr, momentum: _moved(value, momentum * velocity + grad, lr),
        ["new_value", "new_velocity"],
        mistakes={
            "the step is taken along the old velocity": (
                lambda value, grad, velocity, lr, momentum: (
                    value - lr * velocity,
                    momentum * velocity + grad,
                )
            ),
            "the gradient is weighted by 1 − momentum": (
                lambda value, grad, velocity, lr, momentum: _moved(
                    value, momentum * velocity + (1 - momentum) * grad, lr
                )
            ),
            "the learning rate is put into the velocity": (
                lambda value, grad, velocity, lr, momentum: _moved(
                    value, momentum * velocity + lr * grad, 1
                )
            ),
            "the velocity is added, so that the loss rises": (
                lambda value, grad, velocity, lr, momentum: _moved(
                    value, momentum * velocity + grad, -lr
                )
            ),
            "the velocity forgets nothing": lambda value, grad, velocity, lr, momentum: _moved(
                value, velocity + grad, lr
            ),
        },
    ),
    Exercise(
        "initial-std",
        f'"With which weights do we start?" in {_NETWORK}',
        _pixels,
        lambda x: float(np.sqrt(2 / (x.shape[1] * np.mean(x**2)))),
        ["std"],
        mistakes={
            "the variance of x is taken, not the mean of its squares": lambda x: float(
                np.sqrt(2 / (x.shape[1] * np.var(x)))
            ),
            "the mean square of x is taken to be 1": lambda x: float(np.sqrt(2 / x.shape[1])),
            "the half that the ReLU cuts off is forgotten": lambda x: float(
                np.sqrt(1 / (x.shape[1] * np.mean(x**2)))
            ),
            "examples are counted, not inputs": lambda x: float(
                np.sqrt(2 / (x.shape[0] * np.mean(x**2)))
            ),
            "the variance is returned, not its root": lambda x: float(
                2 / (x.shape[1] * np.mean(x**2))
            ),
        },
    ),
    Exercise(
        "steps-to",
        f'"How many steps are saved?" in {_FIGURE_1}',
        _climb,
        lambda steps, accuracy, target: int(steps[np.flatnonzero(accuracy >= target)[0]]),
        ["steps"],
        {
            "for the target 0, it must be the first of the steps": lambda answer, steps, **_: (
                answer(target=0.0),
                steps[0],
            ),
        },
        {
            "the index is returned, not the step": lambda steps, accuracy, target: int(
                np.argmax(accuracy >= target)
            ),
            "the accuracy must be above the target, not at it": lambda steps, accuracy, target: int(
                steps[np.argmax(accuracy > target)]
            ),
            "the last time below the target counts, not the first time at it": (
                lambda steps, accuracy, target: int(
                    steps[np.flatnonzero(accuracy < target)[-1] + 1]
                )
            ),
        },
    ),
    Exercise(
        "drift",
        f'"What do the sigmoids see?" in {_FIGURE_1}',
        lambda rng: {"percentiles": np.sort(rng.normal(size=(20, 3, 5)), axis=1)},
        lambda percentiles: _path(percentiles) / _spread(percentiles),
        ["drift"],
        mistakes={
            "only the way from start to end is taken, not the whole path": lambda percentiles: (
                np.abs(percentiles[-1, 1] - percentiles[0, 1]) / _spread(percentiles)
            ),
            "the path is not divided by the final spread": _path,
        },
    ),
    Exercise(
        "times-fewer",
        f'"The rows, at our scale" in {_ACCELERATED}',
        _two_nets,
        _times_fewer,
        ["factors"],
        mistakes={
            "the factors are upside down": lambda steps, plain, other: np.where(
                _reached(plain, other).any(axis=1),
                1 / _ratios(steps, plain, _reached(plain, other)),
                0.0,
            ),
            "a seed that never gets there counts as one that is there at once": (
                lambda steps, plain, other: _ratios(steps, plain, _reached(plain, other))
            ),
            "the seeds that never get there are left out": lambda steps, plain, other: _times_fewer(
                steps, plain, other
            )[_reached(plain, other).any(axis=1)],
            "the last step of the plain network is taken, not that of its best": (
                lambda steps, plain, other: np.where(
                    _reached(plain, other).any(axis=1),
                    steps[-1] / steps[_reached(plain, other).argmax(axis=1)],
                    0.0,
                )
            ),
        },
    ),
    Exercise(
        "interaction",
        f'"The bundle, taken apart" in {_ACCELERATED}',
        _parts,
        lambda before, alone, together: (
            before / alone,
            before / together / np.prod(before / alone),
        ),
        ["factors", "interaction"],
        mistakes={
            "the factors are added, not multiplied": lambda before, alone, together: (
                before / alone,
                before / together / np.sum(before / alone),
            ),
            "the factors are upside down": lambda before, alone, together: (
                alone / before,
                together / before / np.prod(alone / before),
            ),
            "the product is subtracted, not divided by": lambda before, alone, together: (
                before / alone,
                before / together - np.prod(before / alone),
            ),
        },
    ),
    Exercise(
        "rates-meet",
        f'"Is the rate five times as high?" in {_ACCELERATED}',
        lambda rng: {
            "factor": rng.uniform(2, 9),
            "slow": rng.uniform(0.2, 0.8),
            "fast": rng.uniform(2, 4),
        },
        lambda factor, slow, fast: np.log10(factor) / (fast - slow),
        ["share"],
        properties={
            "factor · 10^(−fast · share) must be 10^(−slow · share)": (
                lambda answer, factor, slow, fast: (
                    factor * 10 ** (-fast * answer()),
                    10 ** (-slow * answer()),
                )
            ),
        },
        mistakes={
            "the logarithm is that of base e": lambda factor, slow, fast: (
                np.log(factor) / (fast - slow)
            ),
            "the other rate is taken as constant": lambda factor, slow, fast: (
                np.log10(factor) / fast
            ),
        },
    ),
    Exercise(
        "im2col",
        f'"A convolution is a product of matrices" in {_CNN}',
        lambda rng: {"image": rng.normal(size=(7, 6)), "size": 4},
        _rows,
        ["rows"],
        {
            "for windows of one pixel, rows must be the pixels": lambda answer, image, **_: (
                answer(size=1),
                image.reshape(-1, 1),
            ),
            "rows times the weights of a kernel must be the convolution": (
                lambda answer, image, size: (
                    answer() @ np.arange(size * size),
                    np.tensordot(
                        _windows(image, size), np.arange(size * size).reshape(size, size)
                    ).ravel(),
                )
            ),
        },
        {
            "each window is a column, not a row": lambda image, size: _rows(image, size).T,
            "a window is read by columns": lambda image, size: (
                _windows(image, size).swapaxes(2, 3).reshape(-1, size * size)
            ),
            "the windows go down before they go to the right": lambda image, size: (
                _windows(image, size).swapaxes(0, 1).reshape(-1, size * size)
            ),
            "the windows do not overlap": lambda image, size: _windows(image, size)[
                ::size, ::size
            ].reshape(-1, size * size),
            "the last window of each row and column is missing": lambda image, size: _windows(
                image, size
            )[:-1, :-1].reshape(-1, size * size),
        },
    ),
    Exercise(
        "output-size",
        f'"A convolution is a product of matrices" in {_CNN}',
        lambda rng: {
            "height": int(rng.integers(20, 40)),
            "size": 9,
            "stride": 2,
            "padding": 4,
        },
        lambda height, size, stride, padding: (height + 2 * padding - size) // stride + 1,
        ["height of the output"],
        {
            "a kernel of one pixel must keep the height": lambda answer, **_: (
                answer(height=9, size=1, stride=1, padding=0),
                9,
            ),
            "28 rows must become 14 with size 3, stride 2 and padding 1": lambda answer, **_: (
                answer(height=28, size=3, stride=2, padding=1),
                14,
            ),
            "11 rows must become 4 with size 4, stride 3 and padding 1": lambda answer, **_: (
                answer(height=11, size=4, stride=3, padding=1),
                4,
            ),
            "a kernel as large as the image must give one row": lambda answer, **_: (
                answer(height=7, size=7, stride=2, padding=0),
                1,
            ),
        },
        {
            "the first window is not counted": lambda height, size, stride, padding: (
                (height + 2 * padding - size) // stride
            ),
            "the padding is counted on one side": lambda height, size, stride, padding: (
                (height + padding - size) // stride + 1
            ),
            "the padding is left out": lambda height, size, stride, padding: (
                (height - size) // stride + 1
            ),
            "the size of the kernel is left out": lambda height, size, stride, padding: (
                (height + 2 * padding) // stride
            ),
            "the stride is left out": lambda height, size, stride, padding: (
                height + 2 * padding - size + 1
            ),
        },
        dtype=np.integer,
    ),
    Exercise(
        "silent-channels",
        f'"What happens inside?" in {_CNN}',
        _map,
        lambda x: float((x.max(axis=(0, 2, 3)) == 0).mean()),
        ["share"],
        {
            "when all values are positive, the share must be 0": lambda answer, x: (
                answer(x=np.abs(x) + 1),
                0,
            ),
            "when all values are 0, the share must be 1": lambda answer, x: (answer(x=0 * x), 1),
            "in units in which all values are tiny, the share must be the same": (
                lambda answer, x: (answer(x=1e-30 * x), answer())
            ),
        },
        {
            "zeros are counted, not channels": lambda x: float((x == 0).mean()),
            "a channel counts as silent when it is silent for one image": lambda x: float(
                (x.max(axis=(2, 3)) == 0).any(axis=0).mean()
            ),
            "each image is counted for itself": lambda x: float((x.max(axis=(2, 3)) == 0).mean()),
            "each position is counted for itself": lambda x: float((x.max(axis=0) == 0).mean()),
            "channels that speak are counted": lambda x: float((x.max(axis=(0, 2, 3)) > 0).mean()),
            "the number is returned, not the share": lambda x: int(
                (x.max(axis=(0, 2, 3)) == 0).sum()
            ),
        },
    ),
    Exercise(
        "dropout-noise",
        f'"What does Dropout do?" in {_DROPOUT}',
        _values,
        lambda x, p: (x.copy(), x**2 * p / (1 - p)),
        ["mean", "var"],
        {
            "the mean must be the value itself": lambda answer, x, p: (answer()[0], x),
            "without Dropout, p = 0, the variance must be 0": (
                lambda answer, **_: (answer(p=0.0)[1], 0)
            ),
            "with p = 1/2 the variance must be x²": lambda answer, x, p: (answer(p=0.5)[1], x**2),
        },
        {
            "the values that are kept are not divided by 1 − p": lambda x, p: (
                (1 - p) * x,
                p * (1 - p) * x**2,
            ),
            "E[y²] is returned, without the square of the mean": lambda x, p: (x, x**2 / (1 - p)),
            "p is taken for the probability to keep": lambda x, p: (
                x,
                x**2 * (1 - p) / max(p, 1e-9),
            ),
            "the standard deviation is returned, not the variance": lambda x, p: (
                x,
                np.abs(x) * np.sqrt(p / (1 - p)),
            ),
        },
    ),
    Exercise(
        "batch-noise",
        f'"Where is the noise in BatchNorm?" in {_DROPOUT}',
        _lopsided,
        _batch_noise,
        ["the standard deviation"],
        {
            "with four times as many examples the noise must be half as large": (
                lambda answer, x, m: (answer(m=4 * m), answer() / 2)
            ),
            "the noise of features that are shifted and stretched must be the same": (
                lambda answer, x, m: (answer(x=3 * x + 7), answer())
            ),
        },
        {
            "only the error of the mean is counted": lambda x, m: _batch_noise(
                x, m, with_skew=False, with_var=False
            ),
            "the term with the skewness is missing": lambda x, m: _batch_noise(
                x, m, with_skew=False
            ),
            "the standard deviations in z are divided by N − 1": lambda x, m: _batch_noise(
                x, m, ddof=1
            ),
            "κ is taken for κ − 1": lambda x, m: _batch_noise(x, m, less=0),
            "κ − 3 is taken for κ − 1, the excess over a normal distribution": (
                lambda x, m: _batch_noise(x, m, less=3)
            ),
            "the variance is returned, not the standard deviation": lambda x, m: (
                _batch_noise(x, m) ** 2
            ),
        },
    ),
    Exercise(
        "variance-shift",
        f'"What goes wrong when Dropout stands before BatchNorm?" in {_DROPOUT}',
        _dropped_inputs,
        _variance_shift,
        ["the ratio"],
        {
            "without Dropout, p = 0, the ratio must be 1": lambda answer, **_: (answer(p=0.0), 1),
            "with all weights doubled the ratio must be the same": (
                lambda answer, weight, **_: (answer(weight=2 * weight), answer())
            ),
        },
        {
            "Var[x] is taken for E[x²]": lambda x, weight, p: _variance_shift(
                x, weight, p, x.var(axis=0)
            ),
            "E[x]² is taken for E[x²]": lambda x, weight, p: _variance_shift(
                x, weight, p, x.mean(axis=0) ** 2
            ),
            "the variance of the outputs is divided by N − 1": lambda x, weight, p: (
                1 + (_variance_shift(x, weight, p) - 1) * (len(x) - 1) / len(x)
            ),
            "the variance of training comes below, not above": lambda x, weight, p: (
                1 / _variance_shift(x, weight, p)
            ),
            "p is taken for p/(1 − p)": lambda x, weight, p: _variance_shift(
                x, weight, p / (1 + p)
            ),
            "the added share alone is returned, without the 1": lambda x, weight, p: (
                _variance_shift(x, weight, p) - 1
            ),
        },
    ),
    Exercise(
        "effective-rate",
        f'"What is the effective learning rate?" in {_RATES}',
        lambda rng: {"weight": rng.normal(size=(5, 8)), "lr": float(rng.uniform(0.1, 3))},
        lambda weight, lr: lr / (weight**2).sum(axis=1),
        ["the effective rate"],
        {
            "with weights 3 times as long and 9 times the rate it must be the same": (
                lambda answer, weight, lr: (answer(weight=3 * weight, lr=9 * lr), answer())
            ),
        },
        {
            "the rate is divided by the length, not by its square": lambda weight, lr: (
                lr / _norm(weight)
            ),
            "all units share one length": lambda weight, lr: lr / (weight**2).sum(),
            "each input has a length, not each unit": lambda weight, lr: (
                lr / (weight**2).sum(axis=0)
            ),
            "the rate is multiplied by the squared length": lambda weight, lr: (
                lr * (weight**2).sum(axis=1)
            ),
        },
    ),
    Exercise(
        "turn",
        f'"Where does the gradient point?" in {_RATES}',
        _perpendicular,
        lambda weight, gradient, lr: np.arctan(lr * _norm(gradient) / _norm(weight)),
        ["the angle"],
        {
            "at twice the weights, with half the gradient and four times the rate, "
            "the angle must be the same": lambda answer, weight, gradient, lr: (
                answer(weight=2 * weight, gradient=gradient / 2, lr=4 * lr),
                answer(),
            ),
            "at a tiny rate the angle must be lr·‖g‖/‖w‖": (
                lambda answer, weight, gradient, **_: (
                    answer(lr=1e-4) / 1e-4,
                    _norm(gradient) / _norm(weight),
                )
            ),
        },
        {
            "the tangent of the angle is returned": lambda weight, gradient, lr: (
                lr * _norm(gradient) / _norm(weight)
            ),
            "the new weights are taken for the leg of the triangle": (
                lambda weight, gradient, lr: np.arctan(
                    lr * _norm(gradient) / _norm(weight - lr * gradient)
                )
            ),
            "the old weights are taken for the longest side of the triangle": (
                lambda weight, gradient, lr: np.arcsin(lr * _norm(gradient) / _norm(weight))
            ),
            "the rate is forgotten": lambda weight, gradient, lr: np.arctan(
                _norm(gradient) / _norm(weight)
            ),
            "the angle is in degrees": lambda weight, gradient, lr: np.degrees(
                np.arctan(lr * _norm(gradient) / _norm(weight))
            ),
        },
    ),
    Exercise(
        "largest-rate",
        f'"Which is the largest rate that trains?" in {_RATES}',
        _swept,
        lambda rates, accuracy, points: rates[
            accuracy.min(axis=0) > _bound(accuracy, points)
        ].max(),
        ["the rate"],
        {
            "with points = 1, it must be the last of the rates": lambda answer, rates, **_: (
                answer(points=1.0),
                rates[-1],
            ),
        },
        {
            "the median seed has to be good, not every seed": lambda rates, accuracy, points: rates[
                np.median(accuracy, axis=0) > _bound(accuracy, points)
            ].max(),
            "the best single run is taken for the best median": lambda rates, accuracy, points: (
                rates[accuracy.min(axis=0) > accuracy.max() - points].max(initial=0)
            ),
            "the mean is taken for the median": lambda rates, accuracy, points: rates[
                accuracy.min(axis=0) > accuracy.mean(axis=0).max() - points
            ].max(),
            "a seed at the bound counts as one above it": lambda rates, accuracy, points: rates[
                accuracy.min(axis=0) >= _bound(accuracy, points)
            ].max(),
            "the search ends at the first rate that fails": lambda rates, accuracy, points: rates[
                np.cumsum(np.diff(accuracy.min(axis=0) > _bound(accuracy, points), prepend=False))
                == 1
            ].max(),
            "the best rate is returned, not the largest usable one": (
                lambda rates, accuracy, points: rates[np.median(accuracy, axis=0).argmax()]
            ),
            "the smallest usable rate is returned": lambda rates, accuracy, points: rates[
                accuracy.min(axis=0) > _bound(accuracy, points)
            ].min(),
            "the index is returned, not the rate": lambda rates, accuracy, points: int(
                np.flatnonzero(accuracy.min(axis=0) > _bound(accuracy, points))[-1]
            ),
        },
    ),
)
