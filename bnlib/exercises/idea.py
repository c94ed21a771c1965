"""The exercises of part I, the idea, by chapter."""

import math
from typing import Any

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise
from bnlib.gradcheck import numerical_gradient

# Inputs, all in float64, with values that are not special.


def _batch(rng: Generator) -> Inputs:
    """A mini-batch of 6 to 12 examples and 2 to 5 features, of uneven mean and scale."""
    m, c = rng.integers(6, 13), rng.integers(2, 6)
    return {"x": rng.normal(rng.normal(0, 3, c), rng.uniform(0.5, 3, c), (m, c))}


def _with_eps(rng: Generator) -> Inputs:
    """An eps that matters, so that a forgotten one shows."""
    return _batch(rng) | {"eps": rng.uniform(0.05, 0.5)}


def _with_parameters(rng: Generator) -> Inputs:
    x, eps = _with_eps(rng).values()
    c = x.shape[1]
    return {"x": x, "gamma": rng.normal(size=c), "beta": rng.normal(size=c), "eps": eps}


def _with_dy(rng: Generator, name: str = "dy") -> Inputs:
    x, eps = _with_eps(rng).values()
    return {"x": x, name: rng.normal(size=x.shape), "eps": eps}


def _with_population(rng: Generator) -> Inputs:
    x, eps = _with_eps(rng).values()
    c = x.shape[1]
    given = {"x": x, "mean": x.mean(0) + rng.normal(0, 1, c), "std": rng.uniform(0.3, 4, c)}
    return given | {"r_max": rng.uniform(1.2, 2), "d_max": rng.uniform(0.2, 1), "eps": eps}


def _images(rng: Generator) -> Inputs:
    """Images (N, C, H, W) with W = C, so that a wrong axis does not show in a shape."""
    n, c, h = rng.integers(2, 5), 2 * rng.integers(1, 3), rng.integers(2, 6)
    mean, std = rng.normal(0, 3, (c, 1, 1)), rng.uniform(0.5, 3, (c, 1, 1))
    return {"x": rng.normal(mean, std, (n, c, h, c)) + rng.normal(size=(n, 1, 1, 1))}


# Formulas that several exercises share.


def _normalized(x: Array, eps: float, axis: int | tuple[int, ...]) -> Array:
    mean, var = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def _covariance(x: Array) -> Array:
    return np.cov(x, rowvar=False, ddof=0)


def _loss_gradient(x: Array, forward: Any, dy: Array) -> Array:
    """Central differences of Σ y·dy with respect to x, for y = forward(x)."""
    moving = x.copy()
    return numerical_gradient(lambda: float((forward(moving) * dy).sum()), moving)


_WHY = 'the chapter "Why normalize?"'


@exercise(
    see=f'"What does a sigmoid do to a gradient?" in {_WHY}',
    inputs=lambda rng: {"u": np.append(rng.normal(0, 4, 9), [-800, 0, 800]).reshape(4, 3)},
    outputs=["the gradient"],
    properties={
        "the gradient at 0 must be 1/4": lambda answer, **_: (answer(u=np.zeros(2)), 0.25),
        "the gradient at ±40, in units of exp(−40), must be 1": (
            lambda answer, **_: (answer(u=np.array([-40.0, 40])) / np.exp(-40), 1)
        ),
        "the gradient at −u must be that at u": lambda answer, u: (answer(u=-u), answer()),
        "it must be computed without an overflow": (
            lambda answer, u: (np.errstate(over="raise")(answer)(), sigmoid_gradient(u))
        ),
    },
    mistakes={
        "the sigmoid itself is returned": ("z / (1 + z) ** 2", "0.5 + 0.5 * np.tanh(0.5 * u)"),
        "u (1 − u) is taken, the input in the place of the output": lambda u: u * (1 - u),
        "1 − s² is taken, which belongs to tanh": (
            "z / (1 + z) ** 2",
            "1 - (0.5 + 0.5 * np.tanh(0.5 * u)) ** 2",
        ),
    },
)
def sigmoid_gradient(u: Array) -> Array:
    z = np.exp(-np.abs(u))  # never too large
    return z / (1 + z) ** 2


def _away_from_the_edge(rng: Generator) -> Inputs:
    """Inputs of 4 units, none so near to 3.64 that rounding the bound would matter."""
    u = rng.normal(rng.normal(0, 3, 4), rng.uniform(1, 4, 4), (50, 4))
    u[abs(abs(u) - 3.65) < 0.05] = 0
    return {"u": u}


@exercise(
    see=f'"What does a sigmoid do to a gradient?" in {_WHY}',
    inputs=_away_from_the_edge,
    outputs=["the share"],
    properties={
        "a unit that only sees zeros must have the share 0": (
            lambda answer, **_: (answer(u=np.zeros((6, 4))), 0)
        ),
        "a unit that only sees 50 must have the share 1": (
            lambda answer, **_: (answer(u=np.full((6, 4), 50.0)), 1)
        ),
        "a unit that only sees −50 must have the share 1": (
            lambda answer, **_: (answer(u=np.full((6, 4), -50.0)), 1)
        ),
    },
    mistakes={
        "the bound is 0.1, and not a tenth of the largest gradient": ("0.025", "0.1"),
        "the inputs far below 0 are forgotten": ("flat.mean", "(flat & (u > 0)).mean"),
        "all units are thrown together": ("axis=0", ""),
        "the inputs are counted that are not saturated": ("<", ">="),
        "the inputs are counted, and not divided by their number": ("flat.mean", "1.0 * flat.sum"),
    },
)
def saturated(u: Array) -> Array:
    flat = sigmoid_gradient(u) < 0.025
    return flat.mean(axis=0)


@exercise(
    see=f'"Is a mini-batch enough?" in {_WHY}',
    inputs=lambda rng: {"var": rng.uniform(0.5, 9, 3), "m": int(rng.integers(2, 100))},
    outputs=["the error"],
    properties={
        "four times as many examples must halve the error": (
            lambda answer, m, **_: (answer(m=4 * m), answer() / 2)
        )
    },
    mistakes={
        "the standard deviation is divided by m, and not by its root": (
            "np.sqrt(var / m)",
            "np.sqrt(var) / m",
        ),
        "the variance of the mean is returned, and not its root": ("np.sqrt", ""),
        "m − 1 stands in the place of m": ("/ m", "/ (m - 1)"),
        "the variance is divided by the root of m": ("np.sqrt(var / m)", "var / np.sqrt(m)"),
    },
)
def mean_error(var: Array, m: int) -> Array:
    return np.sqrt(var / m)


def _matrix_of(x: Array, whitened: Array) -> Array:
    """The matrix M in whitened = (x − μ) M."""
    return np.linalg.lstsq(x - x.mean(0), whitened, rcond=None)[0]


@exercise(
    see=f'"Why not whiten?" in {_WHY}',
    inputs=_with_eps,
    outputs=["the whitened batch"],
    tolerance=1e-8,
    properties={
        "the mean of every column must be 0": lambda answer, **_: (answer().mean(axis=0), 0),
        "for a tiny eps the covariance must be the identity": (
            lambda answer, x, **_: (_covariance(answer(eps=1e-12)), np.eye(x.shape[1]))
        ),
        "the matrix that multiplies x − μ must be symmetric": (
            lambda answer, x, **_: (_matrix_of(x, answer()), _matrix_of(x, answer()).T)
        ),
        "the covariance must be Σ(Σ + εI)⁻¹": lambda answer, x, eps: (
            _covariance(answer()),
            _covariance(x) @ np.linalg.inv(_covariance(x) + eps * np.eye(x.shape[1])),
        ),
    },
    mistakes={
        "each feature is normalized by itself, so that correlations stay": (
            lambda x, eps: normalize(x, eps)
        ),
        "eps is left out": (" + eps", ""),
        "the batch is not turned back after the scaling": (" @ vectors.T", ""),
        "the covariance is divided by m − 1": ("ddof=0", "ddof=1"),
        "the mean stays in": ("(x - x.mean(axis=0))", "x"),
    },
)
def whiten(x: Array, eps: float) -> Array:
    values, vectors = np.linalg.eigh(np.cov(x, rowvar=False, ddof=0))
    scaled = (x - x.mean(axis=0)) @ vectors / np.sqrt(values + eps)
    return scaled @ vectors.T


_TRANSFORM = 'the chapter "The transform"'


@exercise(
    see=f"the algorithm in {_TRANSFORM}, which is the paper's Algorithm 1",
    inputs=_with_eps,
    outputs=["x_hat"],
    properties={
        "the mean of every column of x_hat must be 0": (
            lambda answer, **_: (answer().mean(axis=0), 0)
        ),
        "the variance of every column of x_hat must be σ²/(σ² + ε)": (
            lambda answer, x, eps: (answer().var(axis=0), x.var(axis=0) / (x.var(axis=0) + eps))
        ),
        "x_hat must be 0 where a feature is constant": (
            lambda answer, x, **_: (answer(x=np.full_like(x, 7)), 0)
        ),
    },
    mistakes={
        "the variance is divided by m − 1": ("x.var(axis=0)", "x.var(axis=0, ddof=1)"),
        "eps is added outside the root": ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"),
        "eps is left out": (" + eps", ""),
        "all features share one mean and one variance": (
            "x.mean(axis=0), x.var(axis=0)",
            "x.mean(), x.var()",
        ),
        "each example is normalized over its features": lambda x, eps: _normalized(x, eps, 1),
    },
)
def normalize(x: Array, eps: float) -> Array:
    mean, var = x.mean(axis=0), x.var(axis=0)
    return (x - mean) / np.sqrt(var + eps)


@exercise(
    see=f"the algorithm in {_TRANSFORM}, which is the paper's Algorithm 1",
    inputs=_with_parameters,
    outputs=["y"],
    properties={
        "the mean of every column of y must be beta": (
            lambda answer, beta, **_: (answer().mean(axis=0), beta)
        ),
        "with gamma = 0, y must be beta": (
            lambda answer, gamma, beta, **_: (answer(gamma=0 * gamma), beta)
        ),
        "the variance of every column of y must be γ²σ²/(σ² + ε)": (
            lambda answer, x, gamma, eps, **_: (
                answer().var(axis=0),
                gamma**2 * x.var(axis=0) / (x.var(axis=0) + eps),
            )
        ),
    },
    mistakes={
        "the variance is divided by m − 1": ("x.var(axis=0)", "x.var(axis=0, ddof=1)"),
        "eps is added outside the root": ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"),
        "eps is left out": (" + eps", ""),
        "gamma is forgotten": ("gamma * ", ""),
        "gamma multiplies beta too": ("gamma * x_hat + beta", "gamma * (x_hat + beta)"),
        "gamma and beta are applied before the normalization": (
            lambda x, gamma, beta, eps: normalize(gamma * x + beta, eps)
        ),
        "gamma and beta change places": ("gamma * x_hat + beta", "beta * x_hat + gamma"),
    },
)
def transform(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    mean, var = x.mean(axis=0), x.var(axis=0)
    x_hat = (x - mean) / np.sqrt(var + eps)
    return gamma * x_hat + beta


@exercise(
    see=f'"What are γ and β for?" in {_TRANSFORM}',
    inputs=_with_eps,
    outputs=["gamma", "beta"],
    properties={
        "with your gamma and beta, BatchNorm must return x": (
            lambda answer, x, eps: (transform(x, *answer(), eps), x)
        )
    },
    mistakes={
        "eps is forgotten": (" + eps", ""),
        "the root is forgotten": ("np.sqrt", ""),
        "gamma is 1/√(σ² + ε), and normalizes once more": ("np.sqrt", "1 / np.sqrt"),
        "x is normalized by them, and not x̂ turned back into x": (
            "gamma, beta",
            "1 / gamma, -beta / gamma",
        ),
        "the variance is divided by m − 1": ("x.var(axis=0)", "x.var(axis=0, ddof=1)"),
        "gamma and beta change places": ("gamma, beta", "beta, gamma"),
    },
)
def undo(x: Array, eps: float) -> tuple[Array, Array]:
    gamma = np.sqrt(x.var(axis=0) + eps)
    beta = x.mean(axis=0)
    return gamma, beta


@exercise(
    see=f'"What is ε for?" in {_TRANSFORM}',
    inputs=lambda rng: {"share": rng.uniform(0.5, 0.99), "eps": 10 ** rng.uniform(-6, -2)},
    outputs=["the standard deviation"],
    properties={
        "a feature of your standard deviation must come out with standard deviation = share": (
            lambda answer, share, eps: (
                normalize(np.array([[-1], [1]]) * answer(), eps),
                [[-share], [share]],
            )
        )
    },
    mistakes={
        "the variance is returned, and not its root": ("np.sqrt", ""),
        "the share is taken of the variance, and not squared": ("share**2", "share"),
        "numerator and denominator change places": ("ratio / (1 - ratio)", "(1 - ratio) / ratio"),
    },
)
def smallest_std(share: float, eps: float) -> float:
    ratio = share**2  # of the variances
    return np.sqrt(eps * ratio / (1 - ratio))


@exercise(
    see=f'"Must the gradient know about the mean?" in {_TRANSFORM}',
    inputs=lambda rng: {"dx_hat": rng.normal(1, 2, (rng.integers(4, 9), 3))},
    outputs=["dx"],
    properties={
        "dx must sum to 0 over the batch": lambda answer, **_: (answer().sum(axis=0), 0),
        "dx must agree with central differences": lambda answer, dx_hat: (
            answer(),
            _loss_gradient(np.cos(dx_hat), lambda x: x - x.mean(axis=0), dx_hat),
        ),
    },
    mistakes={
        "the mean is held constant": (" - dx_hat.mean(axis=0)", ""),
        "all of dx is taken for 0, and not its sum alone": ("dx_hat.mean(axis=0)", "dx_hat"),
        "the sum is subtracted, and not the mean": ("mean", "sum"),
        "one mean is taken over all features": ("axis=0", ""),
    },
)
def centering_gradient(dx_hat: Array) -> Array:
    return dx_hat - dx_hat.mean(axis=0)


_BACKWARD = 'the chapter "The backward pass"'


@exercise(
    see=f'the steps "The shift" and "The scale" in {_BACKWARD}',
    inputs=_with_dy,
    outputs=["dgamma", "dbeta"],
    properties={
        "dgamma must agree with central differences": lambda answer, x, dy, eps: (
            answer()[0],
            _loss_gradient(np.ones(x.shape[1]), lambda gamma: gamma * normalize(x, eps), dy),
        ),
        "dbeta must agree with central differences": lambda answer, x, dy, eps: (
            answer()[1],
            _loss_gradient(np.ones(x.shape[1]), lambda beta: normalize(x, eps) + beta, dy),
        ),
    },
    mistakes={
        "the sums over the batch are missing": lambda x, dy, eps: (dy * normalize(x, eps), dy),
        "the batch is averaged, and not summed": (
            "return dgamma, dbeta",
            "return dgamma / len(x), dbeta / len(x)",
        ),
        "dgamma is taken with x, and not with x_hat": ("normalize(x, eps)", "x"),
        "dgamma is taken with x − μ, and not with x_hat": (
            "normalize(x, eps)",
            "(x - x.mean(axis=0))",
        ),
        "dbeta comes first, and then dgamma": ("return dgamma, dbeta", "return dbeta, dgamma"),
    },
)
def parameter_gradients(x: Array, dy: Array, eps: float) -> tuple[Array, Array]:
    dgamma = (dy * normalize(x, eps)).sum(axis=0)
    dbeta = dy.sum(axis=0)
    return dgamma, dbeta


@exercise(
    see=f'the step "The standard deviation" in {_BACKWARD}',
    inputs=lambda rng: _with_dy(rng, "dx_hat"),
    outputs=["dvar"],
    properties={
        "dvar must agree with central differences": lambda answer, x, dx_hat, eps: (
            answer(),
            _loss_gradient(
                x.var(axis=0), lambda var: (x - x.mean(axis=0)) / np.sqrt(var + eps), dx_hat
            ),
        )
    },
    mistakes={
        "the sum over the batch is missing": (".sum(axis=0)", ""),
        "the power is −1/2, and not −3/2": ("-1.5", "-0.5"),
        "Python reads ** -3 / 2 as (** -3) / 2": ("-1.5", "-3 / 2"),
        "the batch is averaged, and not summed": ("sum", "mean"),
        "the sign is wrong": ("-0.5", "0.5"),
        "x stands in the place of x − μ": ("x - x.mean(axis=0)", "x"),
        "the factor −1/2 is missing": (" * -0.5", ""),
        "x_hat stands in the place of x − μ": ("x - x.mean(axis=0)", "normalize(x, eps)"),
    },
)
def variance_gradient(x: Array, dx_hat: Array, eps: float) -> Array:
    centered, var = x - x.mean(axis=0), x.var(axis=0)
    return (dx_hat * centered).sum(axis=0) * -0.5 * (var + eps) ** -1.5


def _with_gamma_and_dy(rng: Generator) -> Inputs:
    x, dy, eps = _with_dy(rng).values()
    return {"x": x, "gamma": rng.normal(size=x.shape[1]), "dy": dy, "eps": eps}


@exercise(
    see=f"the closed form in {_BACKWARD}",
    inputs=_with_gamma_and_dy,
    outputs=["dx"],
    properties={
        "dx must sum to 0 over the batch": lambda answer, **_: (answer().sum(axis=0), 0),
        "dx must agree with central differences": lambda answer, x, gamma, dy, eps: (
            answer(),
            _loss_gradient(x, lambda x: gamma * normalize(x, eps), dy),
        ),
    },
    mistakes={
        "mean and variance are held constant": (" - along_one - along_x_hat", ""),
        "the path through the variance is forgotten": (" - along_x_hat", ""),
        "the path through the mean is forgotten": (" - along_one", ""),
        "gamma is forgotten": ("gamma / std", "1 / std"),
        "γ/√(σ² + ε) multiplies the first of the three terms alone": (
            "(dy - along_one - along_x_hat)",
            "dy - along_one - along_x_hat",
        ),
        "gamma is a factor twice": ("gamma / std", "gamma**2 / std"),
        "the factor 1/√(σ² + ε) is forgotten": ("gamma / std", "gamma"),
        "eps is left out": (" + eps", ""),
        "sums stand in the place of means": (
            "along_one - along_x_hat",
            "len(x) * (along_one + along_x_hat)",
        ),
    },
)
def input_gradient(x: Array, gamma: Array | float, dy: Array, eps: float) -> Array:
    std = np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) / std
    along_one = dy.mean(axis=0)
    along_x_hat = x_hat * (dy * x_hat).mean(axis=0)
    return gamma / std * (dy - along_one - along_x_hat)


def _with_g(rng: Generator) -> Inputs:
    (x,) = _batch(rng).values()
    return {"x": x, "g": rng.normal(1, 1, x.shape)}


@exercise(
    see=f'"What do the terms do?" in {_BACKWARD}',
    inputs=_with_g,
    outputs=["the rest"],
    properties={
        "the rest must be perpendicular to the vector of ones": (
            lambda answer, **_: (answer().sum(axis=0), 0)
        ),
        "the rest must be perpendicular to x_hat": (
            lambda answer, x, **_: ((answer() * normalize(x, 0)).sum(axis=0), 0)
        ),
        "a second projection must change nothing": (
            lambda answer, x, g: (answer(g=answer()), answer())
        ),
    },
    mistakes={
        "only the mean is taken out": (" - along_x_hat", ""),
        "the direction is x, and not x_hat": (
            "normalize(x, eps=0)",
            "x / np.sqrt((x * x).mean(axis=0))",
        ),
        "the two parts are returned, and not the rest": (
            "g - along_one - along_x_hat",
            "along_one + along_x_hat",
        ),
        "sums stand in the place of means": (
            "along_one - along_x_hat",
            "len(x) * (along_one + along_x_hat)",
        ),
        "there is still an eps of 1e-5 in x_hat": ("eps=0", "eps=1e-5"),
        "the factor 1/σ of the gradient is kept": lambda x, g: project(x, g) / x.std(axis=0),
    },
)
def project(x: Array, g: Array) -> Array:
    x_hat = normalize(x, eps=0)
    along_one = g.mean(axis=0)
    along_x_hat = x_hat * (g * x_hat).mean(axis=0)
    return g - along_one - along_x_hat


def _with_weight(rng: Generator) -> Inputs:
    n, c, inputs = rng.integers(6, 10), rng.integers(2, 4), rng.integers(4, 6)
    given = {"u": rng.normal(1, 2, (n, inputs)), "weight": rng.normal(size=(c, inputs))}
    return given | {"dy": rng.normal(size=(n, c)), "eps": rng.uniform(0.05, 0.5)}


@exercise(
    see=f"the closed form in {_BACKWARD}, and then the gradient of a linear layer",
    inputs=_with_weight,
    outputs=["dW"],
    properties={
        "dW must agree with central differences": lambda answer, u, weight, dy, eps: (
            answer(),
            _loss_gradient(weight, lambda weight: normalize(u @ weight.T, eps), dy),
        ),
        "for a tiny eps, each row of dW must be perpendicular to the same row of W": (
            lambda answer, weight, **_: ((answer(eps=1e-14) * weight).sum(axis=1), 0)
        ),
    },
    mistakes={
        "the BatchNorm is left out": ("input_gradient(x, 1, dy, eps)", "dy"),
        "the batch is averaged, and not summed": ("dx.T @ u", "dx.T @ u / len(u)"),
        "the factor 1/√(σ² + ε) is forgotten": ("1, dy", "np.sqrt(x.var(axis=0) + eps), dy"),
        "dW is transposed": ("dx.T @ u", "u.T @ dx"),
        "mean and variance are held constant": (
            "input_gradient(x, 1, dy, eps)",
            "dy / np.sqrt(x.var(axis=0) + eps)",
        ),
    },
)
def weight_gradient(u: Array, weight: Array, dy: Array, eps: float) -> Array:
    x = u @ weight.T
    dx = input_gradient(x, 1, dy, eps)
    return dx.T @ u


@exercise(
    see=f"the closed form in {_BACKWARD}; only the axis differs",
    inputs=_with_dy,
    outputs=["dx"],
    properties={
        "dx must sum to 0 over the features of an example": (
            lambda answer, **_: (answer().sum(axis=1), 0)
        ),
        "dx must agree with central differences": lambda answer, x, dy, eps: (
            answer(),
            _loss_gradient(x, lambda x: _normalized(x, eps, 1), dy),
        ),
    },
    mistakes={
        "the path through the variance is forgotten": (" - along_x_hat", ""),
        "the means run over the batch, as in BatchNorm": (
            lambda x, dy, eps: input_gradient(x, 1, dy, eps)
        ),
        "mean and variance are held constant": (" - along_one - along_x_hat", ""),
    },
)
def layer_norm_gradient(x: Array, dy: Array, eps: float) -> Array:
    std = np.sqrt(x.var(axis=1, keepdims=True) + eps)
    x_hat = (x - x.mean(axis=1, keepdims=True)) / std
    along_one = dy.mean(axis=1, keepdims=True)
    along_x_hat = x_hat * (dy * x_hat).mean(axis=1, keepdims=True)
    return (dy - along_one - along_x_hat) / std


_INFERENCE = 'the chapter "Inference"'


def _with_statistics(rng: Generator) -> Inputs:
    x, gamma, beta, eps = _with_parameters(rng).values()
    c = x.shape[1]
    given = {"x": x, "mean": rng.normal(0, 3, c), "var": rng.uniform(0.5, 5, c)}
    return given | {"gamma": gamma, "beta": beta, "eps": eps}


@exercise(
    see=f"the algorithm in {_INFERENCE}, which is the paper's Algorithm 2",
    inputs=_with_statistics,
    outputs=["y"],
    properties={
        "an example alone must get the output that it gets among others": (
            lambda answer, x, **_: (answer(x=x[:1]), answer()[:1])
        ),
        "y must be beta where x is the mean": (
            lambda answer, x, mean, beta, **_: (answer(x=0 * x + mean), beta)
        ),
    },
    mistakes={
        "the batch's own statistics are used": (
            "(x - mean) / np.sqrt(var + eps)",
            "normalize(x, eps)",
        ),
        "the root is forgotten": ("np.sqrt", ""),
        "eps is left out": (" + eps", ""),
        "eps is added outside the root": ("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"),
        "gamma is forgotten": ("gamma * ", ""),
    },
)
def inference(x: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> Array:
    return gamma * (x - mean) / np.sqrt(var + eps) + beta


@exercise(
    see=f'"How does one follow a mean?" in {_INFERENCE}',
    inputs=lambda rng: {"means": rng.normal(2, 1, (7, 3)), "momentum": rng.uniform(0.05, 0.4)},
    outputs=["the running mean"],
    properties={
        "with momentum 1 it must be the last mean": (
            lambda answer, means, **_: (answer(momentum=1.0), means[-1])
        ),
        "with momentum 0 it must stay 0": lambda answer, **_: (answer(momentum=0.0), 0),
    },
    mistakes={
        "momentum weighs the old value, as in Keras": (
            "(1 - momentum) * running + momentum * mean",
            "momentum * running + (1 - momentum) * mean",
        ),
        "the average starts at the first mean": ("np.zeros(means.shape[1])", "means[0]"),
        "all means weigh the same": lambda means, momentum: means.mean(axis=0),
    },
)
def moving_average(means: Array, momentum: float) -> Array:
    running = np.zeros(means.shape[1])
    for mean in means:
        running = (1 - momentum) * running + momentum * mean
    return running


@exercise(
    see=f'"What do the first steps look like?" in {_INFERENCE}',
    inputs=lambda rng: {
        "running": rng.normal(2, 1, 3),
        "momentum": rng.uniform(0.05, 0.4),
        "batches": int(rng.integers(2, 9)),
    },
    outputs=["the corrected mean"],
    properties={
        "where every batch has the mean 3, the result must be 3": (
            lambda answer, momentum, batches, **_: (
                answer(running=moving_average(np.full((batches, 3), 3.0), momentum)),
                3,
            )
        )
    },
    mistakes={
        "momentum stands in the place of 1 − momentum": ("(1 - momentum)", "momentum"),
        "one batch too few is counted": ("** batches", "** (batches - 1)"),
        "the factor multiplies, and does not divide": ("/", "*"),
    },
)
def first_steps(running: Array, momentum: float, batches: int) -> Array:
    return running / (1 - (1 - momentum) ** batches)


@exercise(
    see=f'"Why m/(m − 1)?" in {_INFERENCE}',
    inputs=lambda rng: {"variances": rng.uniform(1, 5, (6, 3)), "m": int(rng.integers(2, 9))},
    outputs=["Var[x]"],
    properties={
        "with m = 2 it must be twice the mean variance": (
            lambda answer, variances, **_: (answer(m=2), 2 * variances.mean(axis=0))
        )
    },
    mistakes={
        "m/(m − 1) is forgotten": (" * m / (m - 1)", ""),
        "the factor is upside down": ("* m / (m - 1)", "/ m * (m - 1)"),
        "the number of batches stands in the place of m": (
            "m / (m - 1)",
            "len(variances) / (len(variances) - 1)",
        ),
    },
)
def population_variance(variances: Array, m: int) -> Array:
    return variances.mean(axis=0) * m / (m - 1)


def _groups(rng: Generator) -> Inputs:
    """The statistics of 3 to 5 mini-batches of different sizes."""
    k, c = rng.integers(3, 6), rng.integers(2, 4)
    parts = [
        rng.normal(rng.normal(0, 2, c), rng.uniform(0.5, 3, c), (n, c))
        for n in 3 + 4 * np.arange(k)
    ]
    return {
        "counts": np.array([len(part) for part in parts]),
        "means": np.array([part.mean(0) for part in parts]),
        "variances": np.array([part.var(0) for part in parts]),
    }


@exercise(
    see=f'"Can batches of different sizes be joined?" in {_INFERENCE}',
    inputs=_groups,
    outputs=["mean", "var"],
    properties={
        "one batch alone must keep its mean and variance": (
            lambda answer, counts, means, variances: (
                answer(counts=counts[:1], means=means[:1], variances=variances[:1]),
                (means[0], variances[0]),
            )
        ),
        "batches without any spread must still have the variance of their means": (
            lambda answer, counts, means, variances: (
                answer(counts=0 * counts + 5, variances=0 * variances),
                (means.mean(axis=0), means.var(axis=0)),
            )
        ),
    },
    mistakes={
        "every batch counts the same, whatever its size": (
            "(counts / counts.sum())[:, None]",
            "1 / len(counts)",
        ),
        "the counts are not used, and the spread of the means is forgotten": (
            lambda counts, means, variances: (means.mean(axis=0), variances.mean(axis=0))
        ),
        "the variance comes first": ("mean, var", "var, mean"),
        "the variance is divided by the number of values less 1": (
            "mean, var",
            "mean, var * counts.sum() / (counts.sum() - 1)",
        ),
        "the spread of the means is forgotten": (" + (means - mean) ** 2", ""),
    },
)
def pool(counts: Array, means: Array, variances: Array) -> tuple[Array, Array]:
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    var = (share * (variances + (means - mean) ** 2)).sum(axis=0)
    return mean, var


def _linear_and_statistics(rng: Generator) -> Inputs:
    """As many inputs as outputs, so that a factor along the wrong axis does not raise."""
    c = rng.integers(2, 5)
    given = {"weight": rng.normal(size=(c, c)), "bias": rng.normal(size=c)}
    given |= {"mean": rng.normal(0, 3, c), "var": rng.uniform(0.5, 5, c)}
    given |= {"gamma": rng.normal(size=c), "beta": rng.normal(size=c)}
    return given | {"eps": rng.uniform(0.05, 0.5)}


def _folded_output(answer: Any, weight: Array, bias: Array, **given: Any) -> tuple[Array, Array]:
    u = np.linspace(-2, 3, 5 * weight.shape[1]).reshape(5, -1) ** 2
    new_weight, new_bias = answer(weight=weight)
    return u @ new_weight.T + new_bias, inference(u @ weight.T + bias, **given)


@exercise(
    see=f'"Can BatchNorm disappear?" in {_INFERENCE}',
    inputs=_linear_and_statistics,
    outputs=["the new weight", "the new bias"],
    properties={
        "where the old bias is the mean, the new bias must be beta": (
            lambda answer, mean, beta, **_: (answer(bias=mean)[1], beta)
        ),
        "the folded layer must give what the two layers give": _folded_output,
        "it must work for a layer with other numbers of inputs and outputs": (
            lambda answer, weight, **given: _folded_output(
                answer, np.hstack([weight, weight[:, :1] + 1]), **given
            )
        ),
    },
    mistakes={
        "the old bias is not scaled": ("(bias - mean) * scale", "bias - mean * scale"),
        "the mean is forgotten": ("(bias - mean)", "bias"),
        "eps is left out": (" + eps", ""),
        "the root is forgotten": ("np.sqrt", ""),
        "the columns of W are scaled, and not its rows": ("[:, None]", ""),
    },
)
def fold(
    weight: Array, bias: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array]:
    scale = gamma / np.sqrt(var + eps)
    return weight * scale[:, None], (bias - mean) * scale + beta


@exercise(
    see=f'"What if the batch is small?" in {_INFERENCE}',
    inputs=_with_population,
    outputs=["x_hat"],
    properties={
        "with r_max = 1 and d_max = 0, it must be BatchNorm": (
            lambda answer, x, eps, **_: (answer(r_max=1.0, d_max=0.0), normalize(x, eps))
        ),
        "without bounds, it must be (x − mean) / std": (
            lambda answer, x, mean, std, **_: (answer(r_max=1e9, d_max=1e9), (x - mean) / std)
        ),
    },
    mistakes={
        "r is upside down": ("* r + d", "/ r + d"),
        "d is not divided by the standard deviation": ("(mu - mean) / std", "mu - mean"),
        "r and d have no bounds": ("(x - mu) / sigma * r + d", "(x - mean) / std"),
        "r has no lower bound": ("1 / r_max", "0"),
    },
)
def batch_renormalization(
    x: Array, mean: Array, std: Array, r_max: float, d_max: float, eps: float
) -> Array:
    mu, sigma = x.mean(axis=0), np.sqrt(x.var(axis=0) + eps)
    r = np.clip(sigma / std, 1 / r_max, r_max)
    d = np.clip((mu - mean) / std, -d_max, d_max)
    return (x - mu) / sigma * r + d


def _with_population_and_gradient(rng: Generator) -> Inputs:
    x, mean, std, r_max, _, eps = _with_population(rng).values()
    given = {"x": x, "dx_hat": rng.normal(size=x.shape), "mean": mean, "std": std}
    return given | {"r_max": r_max, "eps": eps}


def _renormalized_gradient(x: Array, dx_hat: Array, std: Array, r_max: float, eps: float) -> Array:
    """Central differences of Σ r·x̂·dx̂ with r constant."""
    r = np.clip(np.sqrt(x.var(axis=0) + eps) / std, 1 / r_max, r_max)
    return _loss_gradient(x, lambda x: r * normalize(x, eps), dx_hat)


@exercise(
    see=f'"What if the batch is small?" in {_INFERENCE}, and the closed form in {_BACKWARD}',
    inputs=_with_population_and_gradient,
    outputs=["dx"],
    properties={
        "dx must agree with central differences in which r is constant": (
            lambda answer, mean, **given: (answer(), _renormalized_gradient(**given))
        )
    },
    mistakes={
        "the factor r is forgotten": ("x, r, dx_hat", "x, 1, dx_hat"),
        "mean and std are taken for those of the batch": (
            "input_gradient(x, r, dx_hat, eps)",
            "dx_hat / std",
        ),
        "r has no bounds": ("1 / r_max, r_max", "0, np.inf"),
        "the batch statistics are held constant too": (
            "input_gradient(x, r, dx_hat, eps)",
            "dx_hat * r / sigma",
        ),
    },
)
def renormalization_gradient(
    x: Array, dx_hat: Array, mean: Array, std: Array, r_max: float, eps: float
) -> Array:
    sigma = np.sqrt(x.var(axis=0) + eps)
    r = np.clip(sigma / std, 1 / r_max, r_max)
    return input_gradient(x, r, dx_hat, eps)


_CONVOLUTION = 'the chapter "Convolutions"'


@exercise(
    see=f'"What is one feature of an image?" in {_CONVOLUTION}',
    inputs=_images,
    outputs=["mean", "var"],
    properties={
        "the order of the pixels must not matter": (
            lambda answer, x: (answer(x=np.ascontiguousarray(x[:, :, ::-1, ::-1])), answer())
        )
    },
    mistakes={
        "the last axis is taken for the channels": ("(0, 2, 3)", "(0, 1, 2)"),
        "the variance is taken within each image, and the spread of their means is lost": (
            "x.var(axes)",
            "x.var(axis=(2, 3)).mean(axis=0)",
        ),
        "standard deviations stand in the place of variances": ("x.var", "x.std"),
        "each position has statistics of its own": ("(0, 2, 3)", "0"),
        "each image has statistics of its own": ("(0, 2, 3)", "(2, 3)"),
        "the sum is divided by one less than the number of values": (
            "var(axes",
            "var(axes, ddof=1",
        ),
    },
)
def channel_statistics(x: Array) -> tuple[Array, Array]:
    axes = (0, 2, 3)
    return x.mean(axes), x.var(axes)


@exercise(
    see=f'"How many values is that?" in {_CONVOLUTION}',
    inputs=lambda rng: {"shape": tuple(map(int, rng.integers(2, 7, rng.integers(2, 6))))},
    outputs=["m′"],
    dtype=np.integer,
    properties={
        "for a shape (N, C) it must be N": lambda answer, **_: (answer(shape=(9, 4)), 9),
        "for (2, 3, 5, 7) it must be 70": lambda answer, **_: (answer(shape=(2, 3, 5, 7)), 70),
        "for (2, 3, 5, 7, 4) it must be 280": (
            lambda answer, **_: (answer(shape=(2, 3, 5, 7, 4)), 280)
        ),
    },
    mistakes={
        "the positions are forgotten": ("math.prod(shape) // shape[1]", "shape[0]"),
        "the channels are counted too": (" // shape[1]", ""),
    },
)
def count(shape: tuple[int, ...]) -> int:
    return math.prod(shape) // shape[1]


def _any_rank(rng: Generator) -> Inputs:
    """(N, C), then more axes; all as long as C, so that a wrong one does not raise."""
    c, axes = int(rng.integers(2, 4)), rng.integers(0, 4)
    x = rng.normal(1, 2, (int(rng.integers(5, 8)), c, *[c] * axes))
    x *= rng.uniform(0.5, 2, (c, *[1] * axes))
    gamma, beta = rng.normal(size=(2, c))
    return {"x": x, "gamma": gamma, "beta": beta, "eps": rng.uniform(0.05, 0.5)}


def _any_rank_of(answer: Any, x: Array, **given: Any) -> tuple[Array, Array]:
    return answer(x=x), any_rank(x, **given)


@exercise(
    see=f'"Can one function do them all?" in {_CONVOLUTION}',
    inputs=_any_rank,
    outputs=["y"],
    properties={
        "the mean of every channel of y must be beta": (
            lambda answer, x, beta, **_: (answer().mean(axis=(0, *range(2, x.ndim))), beta)
        ),
        "it must work for arrays of two axes": lambda answer, x, **given: _any_rank_of(
            answer, x[(..., *[0] * (x.ndim - 2))], **given
        ),
        "it must work for arrays of five axes": lambda answer, x, **given: _any_rank_of(
            answer, x.reshape(*x.shape[:2], -1, 1, 1) * [1, -2], **given
        ),
    },
    mistakes={
        "statistics are taken over the batch alone": ("(0, *range(2, x.ndim))", "0"),
        "statistics are taken over the channels as well": ("(0, *range(2, x.ndim))", "None"),
        "eps is left out": (" + eps", ""),
        "gamma and beta lie along the last axis": ("(-1, *[1] * (x.ndim - 2))", "-1"),
    },
)
def any_rank(x: Array, gamma: Array, beta: Array, eps: float) -> Array:
    axes = (0, *range(2, x.ndim))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    shape = (-1, *[1] * (x.ndim - 2))
    return gamma.reshape(shape) * (x - mean) / np.sqrt(var + eps) + beta.reshape(shape)


@exercise(
    see=f'"Where is the channel axis?" in {_CONVOLUTION}',
    inputs=lambda rng: _images(rng) | {"eps": rng.uniform(0.05, 0.5)},
    outputs=["x_hat"],
    properties={
        "the mean of every channel of x_hat must be 0": (
            lambda answer, **_: (answer().mean(axis=(0, 1, 2)), 0)
        )
    },
    mistakes={
        "each position is normalized over its channels": ("(0, 1, 2)", "3"),
        "the variance is divided by m′ − 1": ("x.var(axes", "x.var(axes, ddof=1"),
        "eps is left out": (" + eps", ""),
        "axis 1 is taken for the channels": ("(0, 1, 2)", "(0, 2, 3)"),
        "each image has statistics of its own": ("(0, 1, 2)", "(1, 2)"),
        "each position has statistics of its own": ("(0, 1, 2)", "0"),
    },
)
def channels_last(x: Array, eps: float) -> Array:
    axes = (0, 1, 2)
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def _with_image_gradient(rng: Generator) -> Inputs:
    (x,) = _images(rng).values()
    return {"x": x, "dy": rng.normal(size=x.shape), "eps": rng.uniform(0.05, 0.5)}


@exercise(
    see=f'the closed form in {_BACKWARD}, and "Can one function do them all?" in {_CONVOLUTION}',
    inputs=_with_image_gradient,
    outputs=["dx"],
    properties={
        "dx must sum to 0 over each channel": (
            lambda answer, **_: (answer().sum(axis=(0, 2, 3)), 0)
        ),
        "dx must agree with central differences": lambda answer, x, dy, eps: (
            answer(),
            _loss_gradient(x, lambda x: _normalized(x, eps, (0, 2, 3)), dy),
        ),
    },
    mistakes={
        "the sums are divided by N, and not by N·H·W": ("x.size // x.shape[1]", "len(x)"),
        "sums stand in the place of means": ("x.size // x.shape[1]", "1"),
        "mean and variance are held constant": (" - (along_one + along_x_hat) / m", ""),
        "each position has statistics of its own": (
            lambda x, dy, eps: input_gradient(x, 1, dy, eps)
        ),
    },
)
def image_gradient(x: Array, dy: Array, eps: float) -> Array:
    axes, m = (0, 2, 3), x.size // x.shape[1]
    std = np.sqrt(x.var(axes, keepdims=True) + eps)
    x_hat = (x - x.mean(axes, keepdims=True)) / std
    along_one = dy.sum(axes, keepdims=True)
    along_x_hat = x_hat * (dy * x_hat).sum(axes, keepdims=True)
    return (dy - (along_one + along_x_hat) / m) / std


@exercise(
    see=f'"What if other axes are shared?" in {_CONVOLUTION}',
    inputs=lambda rng: _images(rng) | {"groups": 2, "eps": rng.uniform(0.05, 0.5)},
    outputs=["x_hat"],
    properties={
        "an example's output must not depend on the others": (
            lambda answer, x, **_: (answer(x=x[:1]), answer()[:1])
        ),
        "with one group, it must be layer normalization": (
            lambda answer, x, eps, **_: (answer(groups=1), _normalized(x, eps, (1, 2, 3)))
        ),
        "with a group for each channel, it must be instance normalization": (
            lambda answer, x, eps, **_: (answer(groups=x.shape[1]), _normalized(x, eps, (2, 3)))
        ),
    },
    mistakes={
        "the batch is shared as well": ("axis=2", "axis=(0, 2)"),
        "channels next to each other are in different groups": lambda x, groups, eps: _normalized(
            x.reshape(len(x), -1, groups, *x.shape[2:]), eps, (1, 3, 4)
        ).reshape(x.shape),
        "every channel is a group": ("len(x), groups", "len(x), x.shape[1]"),
        "all channels are one group": ("len(x), groups", "len(x), 1"),
    },
)
def group_norm(x: Array, groups: int, eps: float) -> Array:
    grouped = x.reshape(len(x), groups, -1)
    return _normalized(grouped, eps, axis=2).reshape(x.shape)
