"""Derivatives by central differences, to check the ones that were derived."""

from collections.abc import Callable

import numpy as np


def numerical_gradient(
    function: Callable[[], float], v: np.ndarray, step: float = 1e-5
) -> np.ndarray:
    r"""The gradient of a function with respect to an array that it reads.

    .. math:: \frac{\partial f}{\partial v_i} \approx \frac{f(v + h e_i) - f(v - h e_i)}{2h}

    The error falls with h² until rounding takes over: about 1e-10 of the scale in float64.

    Args:
        function: takes nothing, returns a number, and reads `v`.
        v: the array to vary, float64; changed in place and set back.
        step: h, in units of v.

    Returns:
        The gradient, of v's shape.

    Raises:
        TypeError: v is not a float64 array: other dtypes have too few digits for differences.
    """
    if not isinstance(v, np.ndarray) or v.dtype != np.float64:
        kind = v.dtype if isinstance(v, np.ndarray) else type(v).__name__
        raise TypeError(f"v is {kind}; expected a float64 array")
    gradient = np.empty_like(v)
    for i in np.ndindex(v.shape):
        saved = v[i]
        try:
            v[i] = saved + step
            above = function()
            v[i] = saved - step
            below = function()
        finally:
            v[i] = saved
        gradient[i] = (above - below) / (2 * step)
    return gradient


def gradient_error(
    gradient: np.ndarray, function: Callable[[], float], v: np.ndarray, step: float = 1e-5
) -> float:
    r"""How far a gradient is from central differences, as a share of what they can tell.

    .. math:: \frac{\max |g - d_h|}{\max(|g|,\; |d_h|,\; 10^7 r)}, \qquad
        r = \max |d_h - d_{2h}| + \frac{\max |f|}{2h}\, 2^{-52}

    What changes with the step is no gradient: r is what rounding leaves of the differences d. So a
    gradient that is 0 everywhere, such as that of a bias before a BatchNorm, is not measured by
    rounding errors. A right gradient is below 1e-6 unless the function bends within a step.

    Args:
        gradient: g, of v's shape.
        function: f, as in `numerical_gradient`; it is called 4 times for each value of v.
        v: the array to vary, float64; changed in place and set back.
        step: h, in units of v.

    Returns:
        The error; 0 where all is zero, NaN where the gradient or f has a NaN.

    Raises:
        TypeError: v is not a float64 array.
        ValueError: the gradient is not of v's shape.
    """
    largest = 0.0

    def watched() -> float:
        nonlocal largest
        value = function()
        largest = np.maximum(largest, abs(value))  # keeps a NaN
        return value

    differences, coarse = (numerical_gradient(watched, v, h) for h in (step, 2 * step))
    rounding = np.abs(differences - coarse).max(initial=0) + largest / (2 * step) * 2.0**-52
    return max_relative_error(gradient, differences, at_least=1e7 * rounding)


def max_relative_error(a: np.ndarray, b: np.ndarray, at_least: float = 0.0) -> float:
    """The largest difference of two arrays, as a share of their largest value.

    Where the true values are all 0, that is the share of one rounding error in another, 1 or 2 as a
    rule: say what counts as large, or use `gradient_error`, which finds it out.

    Args:
        a: an array.
        b: an array of the same shape.
        at_least: what the largest value is taken for where it is smaller.

    Returns:
        `max |a − b| / max(|a|, |b|, at_least)`; 0 where both are zero everywhere, NaN where one has
        a NaN.

    Raises:
        ValueError: the shapes differ.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a has shape {np.shape(a)}, b has shape {np.shape(b)}; expected the same")
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    scale = np.max(np.abs([a, b]), initial=at_least)
    return float(np.max(np.abs(a - b), initial=0) / scale) if scale else 0.0
