"""bnlib.gradcheck: central differences of functions whose gradient is known."""

import numpy as np
import pytest

from bnlib import batch_norm_backward, batch_norm_train, nn
from bnlib.gradcheck import gradient_error, max_relative_error, numerical_gradient


def test_the_gradient_of_a_cubic():
    v = np.array([[1.0, -2], [0.5, 3]])
    copy = v.copy()
    gradient = numerical_gradient(lambda: float((v**3).sum()), v)
    np.testing.assert_allclose(gradient, 3 * copy**2, rtol=1e-8)
    np.testing.assert_array_equal(v, copy)


def test_the_array_is_set_back_when_the_function_raises():
    v = np.ones(3)
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda: 1 / 0, v)
    np.testing.assert_array_equal(v, np.ones(3))


@pytest.mark.parametrize("v, kind", [(np.ones(3, np.float32), "float32"), ([1.0], "list")])
def test_other_dtypes_are_refused(v, kind):
    with pytest.raises(TypeError, match=f"v is {kind}; expected a float64 array"):
        numerical_gradient(lambda: 0.0, v)


def test_max_relative_error():
    assert max_relative_error(np.array([1.0, 2]), np.array([1.0, 2.1])) == pytest.approx(0.1 / 2.1)
    assert max_relative_error(np.zeros(2), np.zeros(2)) == 0
    assert max_relative_error(np.ones(2), -np.ones(2)) == 2
    assert max_relative_error(np.ones(2), np.array([1.0, 4])) == pytest.approx(0.75)
    assert np.isnan(max_relative_error(np.zeros(2), np.array([0, np.nan])))
    assert np.isnan(max_relative_error(np.array([0, np.nan]), np.ones(2)))
    assert max_relative_error(np.uint8([1]), np.uint8([2])) == 0.5
    with pytest.raises(ValueError, match=r"a has shape \(2,\), b has shape \(3,\)"):
        max_relative_error(np.ones(2), np.ones(3))
    assert max_relative_error(np.zeros(2), np.full(2, 1e-9), at_least=1e-3) == 1e-6


def zeros_with_rounding(kind):
    """A gradient of 0 that rounding spoils: it, the function, and what the function reads."""
    rng = np.random.default_rng(0)
    x, gamma, beta = rng.normal(3, 2, (60, 4)), rng.normal(size=4), rng.normal(size=4)
    if kind == "the sum of y":
        _, cache = batch_norm_train(x, gamma, beta)
        dx, _, _ = batch_norm_backward(np.ones_like(x), cache)
        return dx, lambda: batch_norm_train(x, gamma, beta)[0].sum(), x
    if kind == "a large function":
        return np.full(4, 1e-17), lambda: 1e3 + 0 * beta.sum(), beta
    net = nn.Sequential(
        nn.Linear(4, 3, std=1, rng=rng, dtype=np.float64),
        nn.BatchNorm(3, dtype=np.float64),
        nn.Sigmoid(),
    )
    weights = rng.normal(size=(60, 3))
    net(x)
    net.backward(weights)
    return net[0].bias.grad, lambda: float((net(x) * weights).sum()), net[0].bias.value


@pytest.mark.parametrize("kind", ["the sum of y", "a bias before a BatchNorm", "a large function"])
def test_a_gradient_of_zero_is_right_and_a_wrong_one_is_not(kind):
    gradient, function, v = zeros_with_rounding(kind)
    kept = v.copy()
    assert max_relative_error(gradient, numerical_gradient(function, v)) > 0.9
    assert gradient_error(gradient, function, v) < 1e-6
    assert gradient_error(gradient + 1e-4, function, v) > 1e-5
    np.testing.assert_array_equal(v, kept)


def test_other_gradients_are_measured_as_by_the_differences_alone():
    v = np.array([[1.0, -2], [0.5, 3]])
    right = 3 * v**2
    cube = lambda: float((v**3).sum())  # noqa: E731
    assert gradient_error(right, cube, v) < 1e-9
    one_wrong = right + [[0, 0], [0.001, 0]]
    expected = max_relative_error(one_wrong, numerical_gradient(cube, v))
    assert gradient_error(one_wrong, cube, v) == pytest.approx(expected)
    assert gradient_error(-right, cube, v) == pytest.approx(2)
    tiny, ones = lambda: float(1e-9 * v.sum()), np.ones_like(v)
    assert gradient_error(1e-9 * ones, tiny, v) < 1e-6
    assert gradient_error(-1e-9 * ones, tiny, v) == pytest.approx(2)
    assert gradient_error(np.zeros_like(v), lambda: 0.0, v) == 0


def test_what_a_gradient_cannot_be_measured_with():
    v = np.ones(3)
    assert np.isnan(gradient_error(np.array([0, np.nan, 0]), lambda: float(v.sum()), v))
    assert np.isnan(gradient_error(np.ones(3), lambda: float("nan"), v))
    with pytest.raises(ValueError, match=r"a has shape \(2,\), b has shape \(3,\)"):
        gradient_error(np.ones(2), lambda: float(v.sum()), v)
    with pytest.raises(TypeError, match="v is list; expected a float64 array"):
        gradient_error(np.ones(2), lambda: 0.0, [1.0, 1.0])
