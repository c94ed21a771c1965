r"""What the statistics of a channel decide, in one place for all that computes BatchNorm.

Whoever sweeps over a mini-batch adds up, in float64 and for each channel, about one number K:

.. math:: d = x - K, \qquad \text{first } \sum d,\ \sum d^2, \qquad
    \text{and on the way back } \sum g,\ \sum g\,d,

with g = dy. Here sums become statistics, and statistics the factors of what is written:

.. math:: y = d\,a + c, \qquad dx = (d\,b + g + c)\,a.

Any K of the size of the channel's values will do. Each of the m values is within √(m−1)·σ of the
mean μ, so Σd²/m is at most m·σ² where K is one of them, and the subtraction of (μ − K)² costs log₂
m of float64's 53 bits. float32 needs 24 of them. Nothing overflows either: the square of the
largest float32 number is 10⁷⁷, where float64 goes up to 10³⁰⁸. (Data in float64 have no such
reserve: for them K is the mean, in a second sweep.)

The functions take scalars or arrays (C,), from NumPy, Numba and torch alike.

Source: Ioffe & Szegedy 2015, algorithm 1 and section 3; chapters "The backward pass" and
"Numerics".
"""

from typing import Any


def moments(sum_d: Any, sum_d2: Any, m: Any) -> tuple[Any, Any]:
    """μ − K and σ², from Σd and Σd² of m values: σ² = Σd²/m − (μ − K)².

    Rounding can leave a σ² below 0 by some 10⁻¹⁶ (μ − K)²; a NaN stays one.
    """
    rest = sum_d / m
    var = sum_d2 / m - rest * rest
    return rest, var * (var >= 0)


def dx_factors(sum_g: Any, sum_gd: Any, rest: Any, inv_std: Any, m: Any) -> tuple[Any, Any, Any]:
    """b and c of dx = ((x − μ)·b + g + c)·γ/√(σ² + ε); and dγ = Σ g·x̂.

    That is γ/√(σ² + ε)·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − μ)/√(σ² + ε).
    """
    dgamma = (sum_gd - rest * sum_g) * inv_std
    return -dgamma * inv_std / m, -sum_g / m, dgamma
