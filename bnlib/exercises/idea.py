"""The exercises of part I, the idea, by chapter."""

from typing import Any

import numpy as np

from bnlib import steps
from bnlib.batchnorm import batch_norm_backward, batch_norm_inference, batch_norm_train, fold
from bnlib.exercises.judge import Exercise
from bnlib.gradcheck import numerical_gradient

Array = np.ndarray
Inputs = dict[str, Any]
Generator = np.random.Generator

_WHY = 'the chapter "Why normalize?"'
_TRANSFORM = 'the chapter "The transform"'
_BACKWARD = 'the chapter "The backward pass"'
_INFERENCE = 'the chapter "Inference"'
_CONVOLUTION = 'the chapter "Convolutions"'


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


def _with_gamma_and_dy(rng: Generator) -> Inputs:
    x, dy, eps = _with_dy(rng).values()
    return {"x": x, "gamma": rng.normal(size=x.shape[1]), "dy": dy, "eps": eps}


def _with_statistics(rng: Generator) -> Inputs:
    x, gamma, beta, eps = _with_parameters(rng).values()
    c = x.shape[1]
    given = {"x": x, "mean": rng.normal(0, 3, c), "var": rng.uniform(0.5, 5, c)}
    return given | {"gamma": gamma, "beta": beta, "eps": eps}


def _images(rng: Generator) -> Inputs:
    """Images (N, C, H, W) with W = C, so that a wrong axis does not show in a shape."""
    n, c, h = rng.integers(2, 5), 2 * rng.integers(1, 3), rng.integers(2, 6)
    mean, std = rng.normal(0, 3, (c, 1, 1)), rng.uniform(0.5, 3, (c, 1, 1))
    return {"x": rng.normal(mean, std, (n, c, h, c)) + rng.normal(size=(n, 1, 1, 1))}


# Formulas that several exercises share.


def _sigmoid(u: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * u))


def _slope(u: Array) -> Array:
    z = np.exp(-np.abs(u))  # never too large
    return np.asarray(z / (1 + z) ** 2)


def _normalized(x: Array, eps: float, axis: int | tuple[int, ...] = 0, ddof: int = 0) -> Array:
    mean, var = x.mean(axis, keepdims=True), x.var(axis, keepdims=True, ddof=ddof)
    return np.asarray((x - mean) / np.sqrt(var + eps))


def _closed_form(x: Array, g: Array, eps: float, axis: int | tuple[int, ...] = 0) -> Array:
    x_hat = _normalized(x, eps, axis)
    bracket = g - g.mean(axis, keepdims=True) - x_hat * (g * x_hat).mean(axis, keepdims=True)
    return np.asarray(bracket / np.sqrt(x.var(axis, keepdims=True) + eps))


def _covariance(x: Array, ddof: int = 0) -> Array:
    return np.cov(x, rowvar=False, ddof=ddof)


def _whitened(x: Array, eps: float, *, ddof: int = 0, turn_back: bool = True) -> Array:
    values, vectors = np.linalg.eigh(_covariance(x, ddof))
    scaled = (x - x.mean(0)) @ vectors / np.sqrt(values + eps)
    return np.asarray(scaled @ vectors.T if turn_back else scaled)


def _no_overflow(answer: Any) -> Array:
    with np.errstate(over="raise"):
        return np.asarray(answer())


def _away_from_the_edge(rng: Generator) -> Inputs:
    """Inputs of 4 units, none so near to 3.64 that rounding the bound would matter."""
    u = rng.normal(rng.normal(0, 3, 4), rng.uniform(1, 4, 4), (50, 4))
    u[abs(abs(u) - 3.65) < 0.05] = 0
    return {"u": u}


_why = (
    Exercise(
        "sigmoid-gradient",
        f'"What does a sigmoid do to a gradient?" in {_WHY}',
        lambda rng: {"u": np.append(rng.normal(0, 4, 9), [-800, 0, 800]).reshape(4, 3)},
        _slope,
        ["the gradient"],
        {
            "the gradient at 0 must be 1/4": lambda answer, **_: (answer(u=np.zeros(2)), 0.25),
            "the gradient at ±40, in units of exp(−40), must be 1": lambda answer, **_: (
                answer(u=np.array([-40.0, 40])) / np.exp(-40),
                1,
            ),
            "the gradient at −u must be that at u": lambda answer, u: (answer(u=-u), answer()),
            "it must be computed without an overflow": (
                lambda answer, u: (_no_overflow(answer), _slope(u))
            ),
        },
        {
            "the sigmoid itself is returned": _sigmoid,
            "u (1 − u) is taken, the input in the place of the output": lambda u: u * (1 - u),
            "1 − s² is taken, which belongs to tanh": lambda u: 1 - _sigmoid(u) ** 2,
        },
    ),
    Exercise(
        "saturated",
        f'"What does a sigmoid do to a gradient?" in {_WHY}',
        _away_from_the_edge,
        lambda u: (_slope(u) < 0.025).mean(axis=0),
        ["the share"],
        {
            "a unit that only sees zeros must have the share 0": lambda answer, **_: (
                answer(u=np.zeros((6, 4))),
                0,
            ),
            "a unit that only sees 50 must have the share 1": lambda answer, **_: (
                answer(u=np.full((6, 4), 50.0)),
                1,
            ),
            "a unit that only sees −50 must have the share 1": lambda answer, **_: (
                answer(u=np.full((6, 4), -50.0)),
                1,
            ),
        },
        {
            "the bound is 0.1, and not a tenth of the largest gradient": lambda u: (
                _slope(u) < 0.1
            ).mean(axis=0),
            "the inputs far below 0 are forgotten": lambda u: ((_slope(u) < 0.025) & (u > 0)).mean(
                axis=0
            ),
            "all units are thrown together": lambda u: (_slope(u) < 0.025).mean(),
            "the inputs are counted that are not saturated": lambda u: (_slope(u) >= 0.025).mean(
                axis=0
            ),
            "the inputs are counted, and not divided by their number": lambda u: (
                (_slope(u) < 0.025).sum(axis=0).astype(float)
            ),
        },
    ),
    Exercise(
        "mean-error",
        f'"Is a mini-batch enough?" in {_WHY}',
        lambda rng: {"var": rng.uniform(0.5, 9, 3), "m": int(rng.integers(2, 100))},
        lambda var, m: np.sqrt(var / m),
        ["the error"],
        {
            "four times as many examples must halve the error": lambda answer, m, **_: (
                answer(m=4 * m),
                answer() / 2,
            ),
        },
        {
            "the standard deviation is divided by m, and not by its root": lambda var, m: (
                np.sqrt(var) / m
            ),
            "the variance of the mean is returned, and not its root": lambda var, m: var / m,
            "m − 1 stands in the place of m": lambda var, m: np.sqrt(var / (m - 1)),
            "the variance is divided by the root of m": lambda var, m: var / np.sqrt(m),
        },
    ),
    Exercise(
        "whiten",
        f'"Why not whiten?" in {_WHY}',
        _with_eps,
        _whitened,
        ["the whitened batch"],
        {
            "the mean of every column must be 0": lambda answer, **_: (answer().mean(axis=0), 0),
            "for a tiny eps the covariance must be the identity": lambda answer, x, **_: (
                _covariance(answer(eps=1e-12)),
                np.eye(x.shape[1]),
            ),
            "the matrix that multiplies x − μ must be symmetric": lambda answer, x, **_: (
                _matrix_of(x, answer()),
                _matrix_of(x, answer()).T,
            ),
            "the covariance must be Σ(Σ + εI)⁻¹": lambda answer, x, eps: (
                _covariance(answer()),
                _covariance(x) @ np.linalg.inv(_covariance(x) + eps * np.eye(x.shape[1])),
            ),
        },
        {
            "each feature is normalized by itself, so that correlations stay": _normalized,
            "eps is left out": lambda x, eps: _whitened(x, 0),
            "the batch is not turned back after the scaling": lambda x, eps: _whitened(
                x, eps, turn_back=False
            ),
            "the covariance is divided by m − 1": lambda x, eps: _whitened(x, eps, ddof=1),
            "the mean stays in": lambda x, eps: (
                _whitened(x, eps) + x.mean(0) @ _whitening_matrix(x, eps)
            ),
        },
        tolerance=1e-8,
    ),
)


def _whitening_matrix(x: Array, eps: float) -> Array:
    values, vectors = np.linalg.eigh(_covariance(x))
    return np.asarray(vectors / np.sqrt(values + eps) @ vectors.T)


def _matrix_of(x: Array, whitened: Array) -> Array:
    """The matrix M in whitened = (x − μ) M."""
    return np.linalg.lstsq(x - x.mean(0), whitened, rcond=None)[0]


_transform = (
    Exercise(
        "normalize",
        f"the algorithm in {_TRANSFORM}, which is the paper's Algorithm 1",
        _with_eps,
        lambda x, eps: batch_norm_train(x, eps=eps)[0],
        ["x_hat"],
        {
            "the mean of every column of x_hat must be 0": lambda answer, **_: (
                answer().mean(axis=0),
                0,
            ),
            "the variance of every column of x_hat must be σ²/(σ² + ε)": lambda answer, x, eps: (
                answer().var(axis=0),
                x.var(axis=0) / (x.var(axis=0) + eps),
            ),
            "x_hat must be 0 where a feature is constant": lambda answer, x, **_: (
                answer(x=np.full_like(x, 7)),
                0,
            ),
        },
        {
            "the variance is divided by m − 1": lambda x, eps: _normalized(x, eps, ddof=1),
            "eps is added outside the root": lambda x, eps: (x - x.mean(0)) / (x.std(0) + eps),
            "eps is left out": lambda x, eps: (x - x.mean(0)) / x.std(0),
            "all features share one mean and one variance": lambda x, eps: _normalized(
                x, eps, (0, 1)
            ),
            "each example is normalized over its features": lambda x, eps: _normalized(x, eps, 1),
        },
    ),
    Exercise(
        "transform",
        f"the algorithm in {_TRANSFORM}, which is the paper's Algorithm 1",
        _with_parameters,
        lambda x, gamma, beta, eps: batch_norm_train(x, gamma, beta, eps=eps)[0],
        ["y"],
        {
            "the mean of every column of y must be beta": lambda answer, beta, **_: (
                answer().mean(axis=0),
                beta,
            ),
            "with gamma = 0, y must be beta": lambda answer, gamma, beta, **_: (
                answer(gamma=0 * gamma),
                beta,
            ),
            "the variance of every column of y must be γ²σ²/(σ² + ε)": (
                lambda answer, x, gamma, eps, **_: (
                    answer().var(axis=0),
                    gamma**2 * x.var(axis=0) / (x.var(axis=0) + eps),
                )
            ),
        },
        {
            "the variance is divided by m − 1": lambda x, gamma, beta, eps: (
                gamma * _normalized(x, eps, ddof=1) + beta
            ),
            "eps is added outside the root": lambda x, gamma, beta, eps: (
                gamma * (x - x.mean(0)) / (x.std(0) + eps) + beta
            ),
            "eps is left out": lambda x, gamma, beta, eps: gamma * _normalized(x, 0) + beta,
            "gamma is forgotten": lambda x, gamma, beta, eps: _normalized(x, eps) + beta,
            "gamma multiplies beta too": lambda x, gamma, beta, eps: (
                gamma * (_normalized(x, eps) + beta)
            ),
            "gamma and beta are applied before the normalization": lambda x, gamma, beta, eps: (
                _normalized(gamma * x + beta, eps)
            ),
            "gamma and beta change places": lambda x, gamma, beta, eps: (
                beta * _normalized(x, eps) + gamma
            ),
        },
    ),
    Exercise(
        "undo",
        f'"What are γ and β for?" in {_TRANSFORM}',
        _with_eps,
        lambda x, eps: (np.sqrt(x.var(axis=0) + eps), x.mean(axis=0)),
        ["gamma", "beta"],
        {
            "with your gamma and beta, BatchNorm must return x": lambda answer, x, eps: (
                batch_norm_train(x, *answer(), eps=eps)[0],
                x,
            ),
        },
        {
            "eps is forgotten": lambda x, eps: (x.std(axis=0), x.mean(axis=0)),
            "the root is forgotten": lambda x, eps: (x.var(axis=0) + eps, x.mean(axis=0)),
            "gamma is 1/√(σ² + ε), and normalizes once more": lambda x, eps: (
                1 / np.sqrt(x.var(axis=0) + eps),
                x.mean(axis=0),
            ),
            "x is normalized by them, and not x̂ turned back into x": lambda x, eps: (
                1 / np.sqrt(x.var(axis=0) + eps),
                -x.mean(axis=0) / np.sqrt(x.var(axis=0) + eps),
            ),
            "the variance is divided by m − 1": lambda x, eps: (
                np.sqrt(x.var(axis=0, ddof=1) + eps),
                x.mean(axis=0),
            ),
            "gamma and beta change places": lambda x, eps: (
                x.mean(axis=0),
                np.sqrt(x.var(axis=0) + eps),
            ),
        },
    ),
    Exercise(
        "smallest-std",
        f'"What is ε for?" in {_TRANSFORM}',
        lambda rng: {"share": rng.uniform(0.5, 0.99), "eps": 10 ** rng.uniform(-6, -2)},
        lambda share, eps: share * np.sqrt(eps / (1 - share**2)),
        ["the standard deviation"],
        {
            "a feature of your standard deviation must come out with standard deviation = share": (
                lambda answer, share, eps: (
                    batch_norm_train(np.array([[-1.0], [1.0]]) * answer(), eps=eps)[0],
                    [[-share], [share]],
                )
            ),
        },
        {
            "the variance is returned, and not its root": lambda share, eps: (
                share**2 * eps / (1 - share**2)
            ),
            "the share is taken of the variance, and not squared": lambda share, eps: np.sqrt(
                share * eps / (1 - share)
            ),
            "numerator and denominator change places": lambda share, eps: (
                np.sqrt(eps * (1 - share**2)) / share
            ),
        },
    ),
    Exercise(
        "centering-gradient",
        f'"Must the gradient know about the mean?" in {_TRANSFORM}',
        lambda rng: {"dx_hat": rng.normal(1, 2, (rng.integers(4, 9), 3))},
        lambda dx_hat: dx_hat - dx_hat.mean(axis=0),
        ["dx"],
        {
            "dx must sum to 0 over the batch": lambda answer, **_: (answer().sum(axis=0), 0),
            "dx must agree with central differences": lambda answer, dx_hat: (
                answer(),
                _loss_gradient(np.cos(dx_hat), lambda x: x - x.mean(axis=0), dx_hat),
            ),
        },
        {
            "the mean is held constant": lambda dx_hat: dx_hat,
            "all of dx is taken for 0, and not its sum alone": lambda dx_hat: 0 * dx_hat,
            "the sum is subtracted, and not the mean": lambda dx_hat: dx_hat - dx_hat.sum(axis=0),
            "one mean is taken over all features": lambda dx_hat: dx_hat - dx_hat.mean(),
        },
    ),
)


def _loss_gradient(x: Array, forward: Any, dy: Array) -> Array:
    """Central differences of Σ y·dy with respect to x, for y = forward(x)."""
    moving = x.copy()
    return numerical_gradient(lambda: float((forward(moving) * dy).sum()), moving)


def _variance_gradient(x: Array, dx_hat: Array, eps: float) -> Array:
    ones, zeros = np.ones(x.shape[1]), np.zeros(x.shape[1])
    return np.asarray(steps.backward(dx_hat, steps.forward(x, ones, zeros, eps)[1])[3].var)


def _with_g(rng: Generator) -> Inputs:
    (x,) = _batch(rng).values()
    return {"x": x, "g": rng.normal(1, 1, x.shape)}


def _with_weight(rng: Generator) -> Inputs:
    n, c, inputs = rng.integers(6, 10), rng.integers(2, 4), rng.integers(4, 6)
    given = {"u": rng.normal(1, 2, (n, inputs)), "weight": rng.normal(size=(c, inputs))}
    return given | {"dy": rng.normal(size=(n, c)), "eps": rng.uniform(0.05, 0.5)}


def _weight_gradient(u: Array, weight: Array, dy: Array, eps: float) -> Array:
    return np.asarray(_closed_form(u @ weight.T, dy, eps).T @ u)


def _project(x: Array, g: Array) -> Array:
    return np.asarray(_closed_form(x, g, 0) * x.std(axis=0))


_backward = (
    Exercise(
        "parameter-gradients",
        f'the steps "The shift" and "The scale" in {_BACKWARD}',
        _with_dy,
        lambda x, dy, eps: ((dy * _normalized(x, eps)).sum(axis=0), dy.sum(axis=0)),
        ["dgamma", "dbeta"],
        {
            "dgamma must agree with central differences": lambda answer, x, dy, eps: (
                answer()[0],
                _loss_gradient(np.ones(x.shape[1]), lambda gamma: gamma * _normalized(x, eps), dy),
            ),
            "dbeta must agree with central differences": lambda answer, x, dy, eps: (
                answer()[1],
                _loss_gradient(np.ones(x.shape[1]), lambda beta: _normalized(x, eps) + beta, dy),
            ),
        },
        {
            "the sums over the batch are missing": lambda x, dy, eps: (
                dy * _normalized(x, eps),
                dy,
            ),
            "the batch is averaged, and not summed": lambda x, dy, eps: (
                (dy * _normalized(x, eps)).mean(axis=0),
                dy.mean(axis=0),
            ),
            "dgamma is taken with x, and not with x_hat": lambda x, dy, eps: (
                (dy * x).sum(axis=0),
                dy.sum(axis=0),
            ),
            "dgamma is taken with x − μ, and not with x_hat": lambda x, dy, eps: (
                (dy * (x - x.mean(0))).sum(axis=0),
                dy.sum(axis=0),
            ),
            "dbeta comes first, and then dgamma": lambda x, dy, eps: (
                dy.sum(axis=0),
                (dy * _normalized(x, eps)).sum(axis=0),
            ),
        },
    ),
    Exercise(
        "variance-gradient",
        f'the step "The standard deviation" in {_BACKWARD}',
        lambda rng: _with_dy(rng, "dx_hat"),
        _variance_gradient,
        ["dvar"],
        {
            "dvar must agree with central differences": lambda answer, x, dx_hat, eps: (
                answer(),
                _loss_gradient(
                    x.var(axis=0), lambda var: (x - x.mean(axis=0)) / np.sqrt(var + eps), dx_hat
                ),
            ),
        },
        {
            "the sum over the batch is missing": lambda x, dx_hat, eps: (
                dx_hat * (x - x.mean(0)) * -0.5 * (x.var(0) + eps) ** -1.5
            ),
            "the power is −1/2, and not −3/2": lambda x, dx_hat, eps: (
                (dx_hat * (x - x.mean(0))).sum(0) * -0.5 * (x.var(0) + eps) ** -0.5
            ),
            "Python reads ** -3 / 2 as (** -3) / 2": lambda x, dx_hat, eps: (
                (dx_hat * (x - x.mean(0))).sum(0) * -0.5 * (x.var(0) + eps) ** -3 / 2
            ),
            "the batch is averaged, and not summed": lambda x, dx_hat, eps: (
                _variance_gradient(x, dx_hat, eps) / len(x)
            ),
            "the sign is wrong": lambda x, dx_hat, eps: -_variance_gradient(x, dx_hat, eps),
            "x stands in the place of x − μ": lambda x, dx_hat, eps: (
                (dx_hat * x).sum(0) * -0.5 * (x.var(0) + eps) ** -1.5
            ),
            "the factor −1/2 is missing": lambda x, dx_hat, eps: (
                (dx_hat * (x - x.mean(0))).sum(0) * (x.var(0) + eps) ** -1.5
            ),
            "x_hat stands in the place of x − μ": lambda x, dx_hat, eps: (
                (dx_hat * _normalized(x, eps)).sum(0) * -0.5 * (x.var(0) + eps) ** -1.5
            ),
        },
    ),
    Exercise(
        "input-gradient",
        f"the closed form in {_BACKWARD}",
        _with_gamma_and_dy,
        lambda x, gamma, dy, eps: batch_norm_backward(dy, batch_norm_train(x, gamma, eps=eps)[1])[
            0
        ],
        ["dx"],
        {
            "dx must sum to 0 over the batch": lambda answer, **_: (answer().sum(axis=0), 0),
            "dx must agree with central differences": lambda answer, x, gamma, dy, eps: (
                answer(),
                _loss_gradient(x, lambda x: gamma * _normalized(x, eps), dy),
            ),
        },
        {
            "mean and variance are held constant": lambda x, gamma, dy, eps: (
                gamma * dy / np.sqrt(x.var(0) + eps)
            ),
            "the path through the variance is forgotten": lambda x, gamma, dy, eps: (
                gamma * (dy - dy.mean(0)) / np.sqrt(x.var(0) + eps)
            ),
            "the path through the mean is forgotten": lambda x, gamma, dy, eps: (
                gamma
                * (dy - _normalized(x, eps) * (dy * _normalized(x, eps)).mean(0))
                / np.sqrt(x.var(0) + eps)
            ),
            "gamma is forgotten": lambda x, gamma, dy, eps: _closed_form(x, dy, eps),
            "γ/√(σ² + ε) multiplies the first of the three terms alone": (
                lambda x, gamma, dy, eps: (
                    gamma / np.sqrt(x.var(0) + eps) * dy
                    - dy.mean(0)
                    - _normalized(x, eps) * (dy * _normalized(x, eps)).mean(0)
                )
            ),
            "gamma is a factor twice": lambda x, gamma, dy, eps: (
                gamma**2 * _closed_form(x, dy, eps)
            ),
            "the factor 1/√(σ² + ε) is forgotten": lambda x, gamma, dy, eps: (
                gamma * _closed_form(x, dy, eps) * np.sqrt(x.var(0) + eps)
            ),
            "eps is left out": lambda x, gamma, dy, eps: gamma * _closed_form(x, dy, 0),
            "sums stand in the place of means": lambda x, gamma, dy, eps: (
                gamma
                * (dy - dy.sum(0) - _normalized(x, eps) * (dy * _normalized(x, eps)).sum(0))
                / np.sqrt(x.var(0) + eps)
            ),
        },
    ),
    Exercise(
        "project",
        f'"What do the terms do?" in {_BACKWARD}',
        _with_g,
        _project,
        ["the rest"],
        {
            "the rest must be perpendicular to the vector of ones": lambda answer, **_: (
                answer().sum(axis=0),
                0,
            ),
            "the rest must be perpendicular to x_hat": lambda answer, x, **_: (
                (answer() * _normalized(x, 0)).sum(axis=0),
                0,
            ),
            "a second projection must change nothing": lambda answer, x, g: (
                answer(g=answer()),
                answer(),
            ),
        },
        {
            "only the mean is taken out": lambda x, g: g - g.mean(axis=0),
            "the direction is x, and not x_hat": lambda x, g: (
                g - g.mean(0) - x * (g * x).sum(0) / (x * x).sum(0)
            ),
            "the two parts are returned, and not the rest": lambda x, g: g - _project(x, g),
            "sums stand in the place of means": lambda x, g: (
                g - g.sum(0) - _normalized(x, 0) * (g * _normalized(x, 0)).sum(0)
            ),
            "there is still an eps of 1e-5 in x_hat": lambda x, g: (
                g - g.mean(0) - _normalized(x, 1e-5) * (g * _normalized(x, 1e-5)).mean(0)
            ),
            "the factor 1/σ of the gradient is kept": lambda x, g: _closed_form(x, g, 0),
        },
    ),
    Exercise(
        "weight-gradient",
        f"the closed form in {_BACKWARD}, and then the gradient of a linear layer",
        _with_weight,
        _weight_gradient,
        ["dW"],
        {
            "dW must agree with central differences": lambda answer, u, weight, dy, eps: (
                answer(),
                _loss_gradient(weight, lambda weight: _normalized(u @ weight.T, eps), dy),
            ),
            "for a tiny eps, each row of dW must be perpendicular to the same row of W": (
                lambda answer, weight, **_: (
                    (answer(eps=1e-14) * weight).sum(axis=1),
                    0,
                )
            ),
        },
        {
            "the BatchNorm is left out": lambda u, weight, dy, eps: dy.T @ u,
            "the batch is averaged, and not summed": lambda u, weight, dy, eps: (
                _weight_gradient(u, weight, dy, eps) / len(u)
            ),
            "the factor 1/√(σ² + ε) is forgotten": lambda u, weight, dy, eps: (
                _weight_gradient(u, weight, dy, eps) * np.sqrt((u @ weight.T).var(0) + eps)[:, None]
            ),
            "dW is transposed": lambda u, weight, dy, eps: _weight_gradient(u, weight, dy, eps).T,
            "mean and variance are held constant": lambda u, weight, dy, eps: (
                (dy / np.sqrt((u @ weight.T).var(0) + eps)).T @ u
            ),
        },
    ),
    Exercise(
        "layer-norm-gradient",
        f"the closed form in {_BACKWARD}; only the axis differs",
        _with_dy,
        lambda x, dy, eps: (
            batch_norm_backward(dy.T.copy(), batch_norm_train(x.T.copy(), eps=eps)[1])[0].T
        ),
        ["dx"],
        {
            "dx must sum to 0 over the features of an example": lambda answer, **_: (
                answer().sum(axis=1),
                0,
            ),
            "dx must agree with central differences": lambda answer, x, dy, eps: (
                answer(),
                _loss_gradient(x, lambda x: _normalized(x, eps, 1), dy),
            ),
        },
        {
            "the path through the variance is forgotten": lambda x, dy, eps: (
                (dy - dy.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + eps)
            ),
            "the means run over the batch, as in BatchNorm": lambda x, dy, eps: _closed_form(
                x, dy, eps
            ),
            "mean and variance are held constant": lambda x, dy, eps: (
                dy / np.sqrt(x.var(1, keepdims=True) + eps)
            ),
        },
    ),
)


def _moving(means: Array, momentum: float, start: Array) -> Array:
    running = start
    for mean in means:
        running = (1 - momentum) * running + momentum * mean
    return running


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


def _pool(counts: Array, means: Array, variances: Array) -> tuple[Array, Array]:
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(axis=0)


def _linear_and_statistics(rng: Generator) -> Inputs:
    """As many inputs as outputs, so that a factor along the wrong axis does not raise."""
    c = rng.integers(2, 5)
    given = {"weight": rng.normal(size=(c, c)), "bias": rng.normal(size=c)}
    given |= {"mean": rng.normal(0, 3, c), "var": rng.uniform(0.5, 5, c)}
    given |= {"gamma": rng.normal(size=c), "beta": rng.normal(size=c)}
    return given | {"eps": rng.uniform(0.05, 0.5)}


def _fold_with(
    weight: Array, bias: Array, mean: Array, var: Array, gamma: Array, beta: Array, eps: float
) -> tuple[Array, Array]:
    return fold(weight, bias, mean, var, gamma, beta, eps=eps)


def _folded_output(answer: Any, weight: Array, bias: Array, **given: Any) -> tuple[Array, Array]:
    u = np.linspace(-2, 3, 5 * weight.shape[1]).reshape(5, -1) ** 2
    new_weight, new_bias = answer(weight=weight)
    return u @ new_weight.T + new_bias, batch_norm_inference(u @ weight.T + bias, **given)


def _with_population(rng: Generator) -> Inputs:
    x, eps = _with_eps(rng).values()
    c = x.shape[1]
    given = {"x": x, "mean": x.mean(0) + rng.normal(0, 1, c), "std": rng.uniform(0.3, 4, c)}
    return given | {"r_max": rng.uniform(1.2, 2), "d_max": rng.uniform(0.2, 1), "eps": eps}


def _r_and_d(
    x: Array, mean: Array, std: Array, r_max: float, d_max: float, eps: float
) -> tuple[Array, Array]:
    r = np.clip(np.sqrt(x.var(0) + eps) / std, 1 / r_max, r_max)
    return r, np.clip((x.mean(0) - mean) / std, -d_max, d_max)


def _renormalized(
    x: Array, mean: Array, std: Array, r_max: float, d_max: float, eps: float
) -> Array:
    r, d = _r_and_d(x, mean, std, r_max, d_max, eps)
    return np.asarray(_normalized(x, eps) * r + d)


def _renorm_gradient(
    x: Array, dx_hat: Array, mean: Array, std: Array, r_max: float, eps: float
) -> Array:
    return np.asarray(_closed_form(x, dx_hat, eps) * _r_and_d(x, mean, std, r_max, 1, eps)[0])


def _with_population_and_gradient(rng: Generator) -> Inputs:
    x, mean, std, r_max, _, eps = _with_population(rng).values()
    given = {"x": x, "dx_hat": rng.normal(size=x.shape), "mean": mean, "std": std}
    return given | {"r_max": r_max, "eps": eps}


_inference = (
    Exercise(
        "inference",
        f"the algorithm in {_INFERENCE}, which is the paper's Algorithm 2",
        _with_statistics,
        lambda x, mean, var, gamma, beta, eps: batch_norm_inference(
            x, mean, var, gamma, beta, eps=eps
        ),
        ["y"],
        {
            "an example alone must get the output that it gets among others": (
                lambda answer, x, **_: (answer(x=x[:1]), answer()[:1])
            ),
            "y must be beta where x is the mean": lambda answer, x, mean, beta, **_: (
                answer(x=0 * x + mean),
                beta,
            ),
        },
        {
            "the batch's own statistics are used": lambda x, mean, var, gamma, beta, eps: (
                gamma * _normalized(x, eps) + beta
            ),
            "the root is forgotten": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) / (var + eps) + beta
            ),
            "eps is left out": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) / np.sqrt(var) + beta
            ),
            "eps is added outside the root": lambda x, mean, var, gamma, beta, eps: (
                gamma * (x - mean) / (np.sqrt(var) + eps) + beta
            ),
            "gamma is forgotten": lambda x, mean, var, gamma, beta, eps: (
                (x - mean) / np.sqrt(var + eps) + beta
            ),
        },
    ),
    Exercise(
        "moving-average",
        f'"How does one follow a mean?" in {_INFERENCE}',
        lambda rng: {"means": rng.normal(2, 1, (7, 3)), "momentum": rng.uniform(0.05, 0.4)},
        lambda means, momentum: _moving(means, momentum, np.zeros(means.shape[1])),
        ["the running mean"],
        {
            "with momentum 1 it must be the last mean": lambda answer, means, **_: (
                answer(momentum=1.0),
                means[-1],
            ),
            "with momentum 0 it must stay 0": lambda answer, **_: (answer(momentum=0.0), 0),
        },
        {
            "momentum weighs the old value, as in Keras": lambda means, momentum: _moving(
                means, 1 - momentum, np.zeros_like(means[0])
            ),
            "the average starts at the first mean": lambda means, momentum: _moving(
                means[1:], momentum, means[0]
            ),
            "all means weigh the same": lambda means, momentum: means.mean(axis=0),
        },
    ),
    Exercise(
        "first-steps",
        f'"What do the first steps look like?" in {_INFERENCE}',
        lambda rng: {
            "running": rng.normal(2, 1, 3),
            "momentum": rng.uniform(0.05, 0.4),
            "batches": int(rng.integers(2, 9)),
        },
        lambda running, momentum, batches: running / (1 - (1 - momentum) ** batches),
        ["the corrected mean"],
        {
            "where every batch has the mean 3, the result must be 3": (
                lambda answer, momentum, batches, **_: (
                    answer(running=_moving(np.full((batches, 3), 3.0), momentum, np.zeros(3))),
                    3,
                )
            ),
        },
        {
            "momentum stands in the place of 1 − momentum": lambda running, momentum, batches: (
                running / (1 - momentum**batches)
            ),
            "one batch too few is counted": lambda running, momentum, batches: (
                running / (1 - (1 - momentum) ** (batches - 1))
            ),
            "the factor multiplies, and does not divide": lambda running, momentum, batches: (
                running * (1 - (1 - momentum) ** batches)
            ),
        },
    ),
    Exercise(
        "population-variance",
        f'"Why m/(m − 1)?" in {_INFERENCE}',
        lambda rng: {"variances": rng.uniform(1, 5, (6, 3)), "m": int(rng.integers(2, 9))},
        lambda variances, m: variances.mean(axis=0) * (m / (m - 1)),
        ["Var[x]"],
        {
            "with m = 2 it must be twice the mean variance": lambda answer, variances, **_: (
                answer(m=2),
                2 * variances.mean(axis=0),
            ),
        },
        {
            "m/(m − 1) is forgotten": lambda variances, m: variances.mean(axis=0),
            "the factor is upside down": lambda variances, m: variances.mean(axis=0) * (m - 1) / m,
            "the number of batches stands in the place of m": lambda variances, m: (
                variances.sum(axis=0) / (len(variances) - 1)
            ),
        },
    ),
    Exercise(
        "pool",
        f'"Can batches of different sizes be joined?" in {_INFERENCE}',
        _groups,
        _pool,
        ["mean", "var"],
        {
            "one batch alone must keep its mean and variance": (
                lambda answer, counts, means, variances: (
                    answer(counts=counts[:1], means=means[:1], variances=variances[:1]),
                    (means[0], variances[0]),
                )
            ),
            "batches without any spread must still have the variance of their means": (
                lambda answer, **_: (
                    answer(
                        counts=np.array([5, 5]),
                        means=np.array([[-1.0], [1.0]]),
                        variances=np.zeros((2, 1)),
                    ),
                    [[0], [1]],
                )
            ),
        },
        {
            "every batch counts the same, whatever its size": lambda counts, means, variances: (
                means.mean(0),
                (variances + (means - means.mean(0)) ** 2).mean(0),
            ),
            "the counts are not used, and the spread of the means is forgotten": (
                lambda counts, means, variances: (means.mean(0), variances.mean(0))
            ),
            "the variance comes first": lambda counts, means, variances: _pool(
                counts, means, variances
            )[::-1],
            "the variance is divided by the number of values less 1": (
                lambda counts, means, variances: (
                    _pool(counts, means, variances)[0],
                    _pool(counts, means, variances)[1] * counts.sum() / (counts.sum() - 1),
                )
            ),
            "the spread of the means is forgotten": lambda counts, means, variances: (
                _pool(counts, means, variances)[0],
                (counts[:, None] * variances).sum(0) / counts.sum(),
            ),
        },
    ),
    Exercise(
        "fold",
        f'"Can BatchNorm disappear?" in {_INFERENCE}',
        _linear_and_statistics,
        _fold_with,
        ["the new weight", "the new bias"],
        {
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
        {
            "the old bias is not scaled": lambda weight, bias, mean, var, gamma, beta, eps: (
                weight * (gamma / np.sqrt(var + eps))[:, None],
                bias - mean * gamma / np.sqrt(var + eps) + beta,
            ),
            "the mean is forgotten": lambda weight, bias, mean, var, gamma, beta, eps: (
                weight * (gamma / np.sqrt(var + eps))[:, None],
                bias * gamma / np.sqrt(var + eps) + beta,
            ),
            "eps is left out": lambda weight, bias, mean, var, gamma, beta, eps: (
                weight * (gamma / np.sqrt(var))[:, None],
                (bias - mean) * gamma / np.sqrt(var) + beta,
            ),
            "the root is forgotten": lambda weight, bias, mean, var, gamma, beta, eps: (
                weight * (gamma / (var + eps))[:, None],
                (bias - mean) * gamma / (var + eps) + beta,
            ),
            "the columns of W are scaled, and not its rows": (
                lambda weight, bias, mean, var, gamma, beta, eps: (
                    weight * (gamma / np.sqrt(var + eps)),
                    (bias - mean) * gamma / np.sqrt(var + eps) + beta,
                )
            ),
        },
    ),
    Exercise(
        "batch-renormalization",
        f'"What if the batch is small?" in {_INFERENCE}',
        _with_population,
        _renormalized,
        ["x_hat"],
        {
            "with r_max = 1 and d_max = 0, it must be BatchNorm": (
                lambda answer, x, eps, **_: (answer(r_max=1.0, d_max=0.0), _normalized(x, eps))
            ),
            "without bounds, it must be (x − mean) / std": (
                lambda answer, x, mean, std, **_: (answer(r_max=1e9, d_max=1e9), (x - mean) / std)
            ),
        },
        {
            "r is upside down": lambda x, mean, std, r_max, d_max, eps: (
                _normalized(x, eps) / _r_and_d(x, mean, std, r_max, d_max, eps)[0]
                + _r_and_d(x, mean, std, r_max, d_max, eps)[1]
            ),
            "d is not divided by the standard deviation": (
                lambda x, mean, std, r_max, d_max, eps: (
                    _normalized(x, eps) * _r_and_d(x, mean, std, r_max, d_max, eps)[0]
                    + np.clip(x.mean(0) - mean, -d_max, d_max)
                )
            ),
            "r and d have no bounds": lambda x, mean, std, r_max, d_max, eps: (x - mean) / std,
            "r has no lower bound": lambda x, mean, std, r_max, d_max, eps: (
                _normalized(x, eps) * np.minimum(np.sqrt(x.var(0) + eps) / std, r_max)
                + _r_and_d(x, mean, std, r_max, d_max, eps)[1]
            ),
        },
    ),
    Exercise(
        "renormalization-gradient",
        f'"What if the batch is small?" in {_INFERENCE}, and the closed form in {_BACKWARD}',
        _with_population_and_gradient,
        _renorm_gradient,
        ["dx"],
        {
            "dx must agree with central differences in which r is constant": (
                lambda answer, x, dx_hat, mean, std, r_max, eps: (
                    answer(),
                    _loss_gradient(
                        x,
                        lambda moving: (
                            _normalized(moving, eps) * _r_and_d(x, mean, std, r_max, 1, eps)[0]
                        ),
                        dx_hat,
                    ),
                )
            ),
        },
        {
            "the factor r is forgotten": lambda x, dx_hat, mean, std, r_max, eps: _closed_form(
                x, dx_hat, eps
            ),
            "mean and std are taken for those of the batch": (
                lambda x, dx_hat, mean, std, r_max, eps: dx_hat / std
            ),
            "r has no bounds": lambda x, dx_hat, mean, std, r_max, eps: (
                _closed_form(x, dx_hat, eps) * np.sqrt(x.var(0) + eps) / std
            ),
            "the batch statistics are held constant too": (
                lambda x, dx_hat, mean, std, r_max, eps: (
                    dx_hat * _r_and_d(x, mean, std, r_max, 1, eps)[0] / np.sqrt(x.var(0) + eps)
                )
            ),
        },
    ),
)


def _any_rank(rng: Generator) -> Inputs:
    """(N, C), then more axes; all as long as C, so that a wrong one does not raise."""
    c, axes = int(rng.integers(2, 4)), rng.integers(0, 4)
    x = rng.normal(1, 2, (int(rng.integers(5, 8)), c, *[c] * axes))
    x *= rng.uniform(0.5, 2, (c, *[1] * axes))
    gamma, beta = rng.normal(size=(2, c))
    return {"x": x, "gamma": gamma, "beta": beta, "eps": rng.uniform(0.05, 0.5)}


def _any_rank_of(answer: Any, x: Array, **given: Any) -> tuple[Array, Array]:
    return answer(x=x), batch_norm_train(x, given["gamma"], given["beta"], eps=given["eps"])[0]


def _over_all_but_channels(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _group_normalized(x: Array, groups: int, eps: float) -> Array:
    grouped = x.reshape(len(x), groups, -1)
    return _normalized(grouped, eps, 2).reshape(x.shape)


def _with_image_gradient(rng: Generator) -> Inputs:
    (x,) = _images(rng).values()
    return {"x": x, "dy": rng.normal(size=x.shape), "eps": rng.uniform(0.05, 0.5)}


_convolution = (
    Exercise(
        "channel-statistics",
        f'"What is one feature of an image?" in {_CONVOLUTION}',
        _images,
        lambda x: (x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))),
        ["mean", "var"],
        {
            "the order of the pixels must not matter": lambda answer, x: (
                answer(x=np.ascontiguousarray(x[:, :, ::-1, ::-1])),
                answer(),
            ),
        },
        {
            "the last axis is taken for the channels": lambda x: (
                x.mean(axis=(0, 1, 2)),
                x.var(axis=(0, 1, 2)),
            ),
            "the variance is taken within each image, and the spread of their means is lost": (
                lambda x: (x.mean(axis=(0, 2, 3)), x.var(axis=(2, 3)).mean(axis=0))
            ),
            "standard deviations stand in the place of variances": lambda x: (
                x.mean(axis=(0, 2, 3)),
                x.std(axis=(0, 2, 3)),
            ),
            "each position has statistics of its own": lambda x: (x.mean(axis=0), x.var(axis=0)),
            "each image has statistics of its own": lambda x: (
                x.mean(axis=(2, 3)),
                x.var(axis=(2, 3)),
            ),
            "the sum is divided by one less than the number of values": lambda x: (
                x.mean(axis=(0, 2, 3)),
                x.var(axis=(0, 2, 3), ddof=1),
            ),
        },
    ),
    Exercise(
        "count",
        f'"How many values is that?" in {_CONVOLUTION}',
        lambda rng: {"shape": tuple(map(int, rng.integers(2, 7, rng.integers(2, 6))))},
        lambda shape: int(np.prod(shape) // shape[1]),
        ["m′"],
        {
            "for a shape (N, C) it must be N": lambda answer, **_: (answer(shape=(9, 4)), 9),
            "for (2, 3, 5, 7) it must be 70": lambda answer, **_: (answer(shape=(2, 3, 5, 7)), 70),
            "for (2, 3, 5, 7, 4) it must be 280": (
                lambda answer, **_: (answer(shape=(2, 3, 5, 7, 4)), 280)
            ),
        },
        {
            "the positions are forgotten": lambda shape: shape[0],
            "the channels are counted too": lambda shape: int(np.prod(shape)),
        },
        dtype=np.integer,
    ),
    Exercise(
        "any-rank",
        f'"Can one function do them all?" in {_CONVOLUTION}',
        _any_rank,
        lambda x, gamma, beta, eps: batch_norm_train(x, gamma, beta, eps=eps)[0],
        ["y"],
        {
            "the mean of every channel of y must be beta": lambda answer, x, beta, **_: (
                answer().mean(axis=_over_all_but_channels(x)),
                beta,
            ),
            "it must work for arrays of two axes": lambda answer, x, **given: _any_rank_of(
                answer, x[(..., *[0] * (x.ndim - 2))], **given
            ),
            "it must work for arrays of five axes": lambda answer, x, **given: _any_rank_of(
                answer, x.reshape(*x.shape[:2], -1, 1, 1) * [1, -2], **given
            ),
        },
        {
            "statistics are taken over the batch alone": lambda x, gamma, beta, eps: (
                gamma.reshape(-1, *[1] * (x.ndim - 2)) * _normalized(x, eps)
                + beta.reshape(-1, *[1] * (x.ndim - 2))
            ),
            "statistics are taken over the channels as well": lambda x, gamma, beta, eps: (
                gamma.reshape(-1, *[1] * (x.ndim - 2)) * _normalized(x, eps, tuple(range(x.ndim)))
                + beta.reshape(-1, *[1] * (x.ndim - 2))
            ),
            "eps is left out": lambda x, gamma, beta, eps: (
                gamma.reshape(-1, *[1] * (x.ndim - 2))
                * _normalized(x, 0, _over_all_but_channels(x))
                + beta.reshape(-1, *[1] * (x.ndim - 2))
            ),
            "gamma and beta lie along the last axis": lambda x, gamma, beta, eps: (
                gamma * _normalized(x, eps, _over_all_but_channels(x)) + beta
            ),
        },
    ),
    Exercise(
        "channels-last",
        f'"Where is the channel axis?" in {_CONVOLUTION}',
        lambda rng: _images(rng) | {"eps": rng.uniform(0.05, 0.5)},
        lambda x, eps: _normalized(x, eps, (0, 1, 2)),
        ["x_hat"],
        {
            "the mean of every channel of x_hat must be 0": lambda answer, **_: (
                answer().mean(axis=(0, 1, 2)),
                0,
            ),
        },
        {
            "each position is normalized over its channels": lambda x, eps: _normalized(x, eps, 3),
            "the variance is divided by m′ − 1": lambda x, eps: _normalized(
                x, eps, (0, 1, 2), ddof=1
            ),
            "eps is left out": lambda x, eps: _normalized(x, 0, (0, 1, 2)),
            "axis 1 is taken for the channels": lambda x, eps: _normalized(x, eps, (0, 2, 3)),
            "each image has statistics of its own": lambda x, eps: _normalized(x, eps, (1, 2)),
            "each position has statistics of its own": lambda x, eps: _normalized(x, eps, 0),
        },
    ),
    Exercise(
        "image-gradient",
        f'the closed form in {_BACKWARD}, and "Can one function do them all?" in {_CONVOLUTION}',
        _with_image_gradient,
        lambda x, dy, eps: batch_norm_backward(dy, batch_norm_train(x, eps=eps)[1])[0],
        ["dx"],
        {
            "dx must sum to 0 over each channel": lambda answer, **_: (
                answer().sum(axis=(0, 2, 3)),
                0,
            ),
            "dx must agree with central differences": lambda answer, x, dy, eps: (
                answer(),
                _loss_gradient(x, lambda x: _normalized(x, eps, (0, 2, 3)), dy),
            ),
        },
        {
            "the sums are divided by N, and not by N·H·W": lambda x, dy, eps: (
                _image_gradient_divided_by(len(x), x, dy, eps)
            ),
            "sums stand in the place of means": lambda x, dy, eps: _image_gradient_divided_by(
                1, x, dy, eps
            ),
            "mean and variance are held constant": lambda x, dy, eps: (
                dy / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
            ),
            "each position has statistics of its own": lambda x, dy, eps: _closed_form(x, dy, eps),
        },
    ),
    Exercise(
        "group-norm",
        f'"What if other axes are shared?" in {_CONVOLUTION}',
        lambda rng: _images(rng) | {"groups": 2, "eps": rng.uniform(0.05, 0.5)},
        _group_normalized,
        ["x_hat"],
        {
            "an example's output must not depend on the others": lambda answer, x, **_: (
                answer(x=x[:1]),
                answer()[:1],
            ),
            "with one group, it must be layer normalization": lambda answer, x, eps, **_: (
                answer(groups=1),
                _normalized(x, eps, (1, 2, 3)),
            ),
            "with a group for each channel, it must be instance normalization": (
                lambda answer, x, eps, **_: (answer(groups=x.shape[1]), _normalized(x, eps, (2, 3)))
            ),
        },
        {
            "the batch is shared as well": lambda x, groups, eps: _normalized(
                x.reshape(len(x), groups, -1), eps, (0, 2)
            ).reshape(x.shape),
            "channels next to each other are in different groups": lambda x, groups, eps: (
                _normalized(x.reshape(len(x), -1, groups, *x.shape[2:]), eps, (1, 3, 4)).reshape(
                    x.shape
                )
            ),
            "every channel is a group": lambda x, groups, eps: _normalized(x, eps, (2, 3)),
            "all channels are one group": lambda x, groups, eps: _normalized(x, eps, (1, 2, 3)),
        },
    ),
)


def _image_gradient_divided_by(n: int, x: Array, dy: Array, eps: float) -> Array:
    axes = (0, 2, 3)
    x_hat = _normalized(x, eps, axes)
    along_one = dy.sum(axes, keepdims=True) / n
    along_x_hat = x_hat * (dy * x_hat).sum(axes, keepdims=True) / n
    return np.asarray((dy - along_one - along_x_hat) / np.sqrt(x.var(axes, keepdims=True) + eps))


EXERCISES = (*_why, *_transform, *_backward, *_inference, *_convolution)
