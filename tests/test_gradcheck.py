"""bnlib.gradcheck: central differences of functions whose gradient is known."""

import numpy as np
import pytest

from bnlib.gradcheck import max_relative_error, numerical_gradient


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
