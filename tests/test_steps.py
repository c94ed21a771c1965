"""bnlib.steps: each line against central differences and torch's autograd."""

import numpy as np
import torch

from bnlib import steps
from bnlib.gradcheck import max_relative_error, numerical_gradient


def draw(n=6, c=3):
    rng = np.random.default_rng(0)
    return (
        rng.normal(2, 3, (n, c)),
        rng.uniform(0.5, 2, c),
        rng.normal(size=c),
        rng.normal(size=(n, c)),
    )


def test_forward_is_algorithm_1():
    x, gamma, beta, _ = draw()
    y, cache = steps.forward(x, gamma, beta)
    np.testing.assert_allclose(cache.mean, x.mean(0))
    np.testing.assert_allclose(cache.var, x.var(0))
    np.testing.assert_allclose(y, gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + beta)


def test_backward_agrees_with_central_differences():
    x, gamma, beta, dy = draw()

    def loss():
        return float((steps.forward(x, gamma, beta)[0] * dy).sum())

    gradients = steps.backward(dy, steps.forward(x, gamma, beta)[1])
    for gradient, v in zip(gradients[:3], (x, gamma, beta), strict=True):
        assert max_relative_error(gradient, numerical_gradient(loss, v)) < 1e-8


def test_every_intermediate_derivative_agrees_with_autograd():
    x, gamma, beta, dy = draw()
    t = {name: torch.tensor(v, requires_grad=True) for name, v in
         {"x": x, "gamma": gamma, "beta": beta}.items()}  # fmt: skip
    t["mean"] = t["x"].sum(0) / len(x)
    t["centered"] = t["x"] - t["mean"]
    t["squared"] = t["centered"] ** 2
    t["var"] = t["squared"].sum(0) / len(x)
    t["std"] = (t["var"] + 1e-5).sqrt()
    t["inv_std"] = 1 / t["std"]
    t["x_hat"] = t["centered"] * t["inv_std"]
    t["scaled"] = t["gamma"] * t["x_hat"]
    for v in t.values():
        v.retain_grad()
    (t["scaled"] + t["beta"]).backward(torch.tensor(dy))
    dx, dgamma, dbeta, d = steps.backward(dy, steps.forward(x, gamma, beta)[1])
    derivatives = {"x": dx, "gamma": dgamma, "beta": dbeta, **vars(d)}
    assert derivatives.keys() == t.keys()
    for name, derivative in derivatives.items():
        np.testing.assert_allclose(derivative, t[name].grad, atol=1e-12, err_msg=f"d{name}")


def test_the_closed_form_is_the_staged_form():
    x, gamma, beta, dy = draw()
    _, cache = steps.forward(x, gamma, beta)
    for a, b in zip(
        steps.backward_closed_form(dy, cache), steps.backward(dy, cache)[:3], strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-13)
