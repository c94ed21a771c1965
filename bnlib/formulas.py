r"""What the sums of a channel decide, in one place for the engines that work on arrays.

Whoever goes over a mini-batch adds up, for each channel and in float64, about one number K:

.. math:: d = x - K, \qquad \text{forward } \sum d,\ \sum d^2, \qquad
    \text{backward } \sum g,\ \sum g\,d, \qquad g = dy .

Sums become statistics and factors, below, and with the factors is written

.. math:: y = (x - \mu)\,a + \beta, \qquad dx = ((x - \mu)\,b + g + c)\,a, \qquad
    a = \gamma / \sqrt{\sigma^2 + \epsilon} .

Any value of the channel will do for K, if the sums are in parts. None of the m values is further
than √(m−1)·σ from the mean μ; so Σd²/m is at most m·σ². Where a value passes through h additions,
rounding moves the variance by at most 3·h·m·2⁻⁵³ of itself: in parts, h is about 64 + 2 log₂ m, and
in one long sum it is m. Nothing overflows: the square of the largest float32 number is 10⁷⁷, and
float64 goes up to 10³⁰⁸. (float64 data has no such reserve: it is swept twice, with μ as K.)

The functions take numbers or arrays (C,), and Numba compiles them as they stand.
"""

from typing import Any


def moments(sum_d: Any, sum_d2: Any, m: Any) -> tuple[Any, Any]:
    r"""What the mean is beyond K, and the biased variance.

    .. math:: \mu - K = \frac{1}{m} \sum d, \qquad \sigma^2 = \frac{1}{m} \sum d^2 - (\mu - K)^2

    Args:
        sum_d: Σd, in units of x.
        sum_d2: Σd², in units of x².
        m: number of values of a channel.

    Returns:
        μ − K and σ². Rounding can leave a difference below 0, which is 0; a NaN stays one.

    Source: chapter "Where do the digits go?".
    """
    rest = sum_d / m
    var = sum_d2 / m - rest * rest
    return rest, var * (var >= 0)


def dx_factors(sum_g: Any, sum_gd: Any, rest: Any, inv_std: Any, m: Any) -> tuple[Any, Any, Any]:
    r"""The factors of dx, and the derivative by γ.

    .. math:: d\gamma = \sum g\,\hat{x} = \frac{\sum g\,d - (\mu - K) \sum g}
        {\sqrt{\sigma^2 + \epsilon}}, \qquad
        b = -\frac{d\gamma}{m \sqrt{\sigma^2 + \epsilon}}, \qquad c = -\frac{1}{m} \sum g

    So ((x − μ)·b + g + c)·a is a·(g − mean(g) − x̂·mean(g·x̂)), the closed form.

    Args:
        sum_g: Σg, which is dβ.
        sum_gd: Σg·d, in units of g times x.
        rest: μ − K.
        inv_std: 1/√(σ² + ε).
        m: number of values of a channel.

    Returns:
        b, c and dγ.

    Source: chapters "The backward pass" and "Where do the digits go?".
    """
    dgamma = (sum_gd - rest * sum_g) * inv_std
    return -dgamma * inv_std / m, -sum_g / m, dgamma
