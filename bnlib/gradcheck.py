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


def max_relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays, as a share of their largest value.

    Args:
        a: an array.
        b: an array of the same shape.

    Returns:
        `max |a − b| / max(|a|, |b|)`; 0 where both are zero everywhere, NaN where one has a NaN.

    Raises:
        ValueError: the shapes differ.
    """
    if np.shape(a) != np.shape(b):
        raise ValueError(f"a has shape {np.shape(a)}, b has shape {np.shape(b)}; expected the same")
    a, b = (np.asarray(v, np.float64) for v in (a, b))
    scale = np.max(np.abs([a, b]), initial=0)
    return float(np.max(np.abs(a - b), initial=0) / scale) if scale else 0.0
