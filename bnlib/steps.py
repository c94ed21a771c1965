r"""BatchNorm as derived in the book: one operation a line, no speed, no checks.

Everything here takes a mini-batch `x` of shape (N, C): N examples, C features. The names are
those of the equations; `dv` is the derivative of the loss with respect to `v`. The functions that
one should use are in `bnlib.batchnorm`; the tests hold both to the same values.
"""

from types import SimpleNamespace

import numpy as np


def forward(
    x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float = 1e-5
) -> tuple[np.ndarray, SimpleNamespace]:
    r"""Algorithm 1, every intermediate value kept.

    Args:
        x: mini-batch, (N, C).
        gamma: scale, (C,).
        beta: shift, (C,).
        eps: added to the variance, in units of x².

    Returns:
        y, (N, C), and the intermediate values by name.

    Source: Ioffe & Szegedy 2015, algorithm 1; chapter "The transform".
    """
    n = len(x)
    mean = x.sum(axis=0) / n  # (C,)
    centered = x - mean  # (N, C)
    squared = centered**2  # (N, C)
    var = squared.sum(axis=0) / n  # (C,), biased: 1/N
    std = np.sqrt(var + eps)  # (C,)
    inv_std = 1 / std  # (C,)
    x_hat = centered * inv_std  # (N, C)
    scaled = gamma * x_hat  # (N, C)
    y = scaled + beta  # (N, C)
    return y, SimpleNamespace(
        mean=mean,
        centered=centered,
        squared=squared,
        var=var,
        std=std,
        inv_std=inv_std,
        x_hat=x_hat,
        scaled=scaled,
        gamma=gamma,
    )


def backward(
    dy: np.ndarray, cache: SimpleNamespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, SimpleNamespace]:
    r"""The chain rule through `forward`, last line first.

    Args:
        dy: derivative of the loss with respect to y, (N, C).
        cache: the intermediate values that `forward` returned.

    Returns:
        dx, (N, C); dgamma, (C,); dbeta, (C,); and the derivatives of the intermediate values.

    Source: Ioffe & Szegedy 2015, section 3; chapter "The backward pass".
    """
    n = len(dy)
    # y = scaled + beta
    dscaled = dy
    dbeta = dy.sum(axis=0)
    # scaled = gamma * x_hat
    dgamma = (dscaled * cache.x_hat).sum(axis=0)
    dx_hat = dscaled * cache.gamma
    # x_hat = centered * inv_std
    dinv_std = (dx_hat * cache.centered).sum(axis=0)
    dcentered = dx_hat * cache.inv_std
    # inv_std = 1 / std
    dstd = -dinv_std / cache.std**2
    # std = sqrt(var + eps)
    dvar = dstd / (2 * cache.std)
    # var = squared.sum() / n: each of the n squares receives the same share
    dsquared = np.ones_like(dy) * dvar / n
    # squared = centered**2: the second path into centered
    dcentered = dcentered + 2 * cache.centered * dsquared
    # centered = x - mean
    dx = dcentered
    dmean = -dcentered.sum(axis=0)
    # mean = x.sum() / n: the second path into x
    dx = dx + np.ones_like(dy) * dmean / n
    return (
        dx,
        dgamma,
        dbeta,
        SimpleNamespace(
            scaled=dscaled,
            x_hat=dx_hat,
            inv_std=dinv_std,
            std=dstd,
            var=dvar,
            squared=dsquared,
            centered=dcentered,
            mean=dmean,
        ),
    )


def backward_closed_form(
    dy: np.ndarray, cache: SimpleNamespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""All of `backward` in three lines.

    .. math:: dx = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}} \left(dy
        - \overline{dy} - \hat{x} \cdot \overline{dy\,\hat{x}}\right)

    The bars are means over the mini-batch.

    Args:
        dy: derivative of the loss with respect to y, (N, C).
        cache: the intermediate values that `forward` returned.

    Returns:
        dx, (N, C); dgamma, (C,); dbeta, (C,).

    Source: chapter "The backward pass".
    """
    n = len(dy)
    dbeta = dy.sum(axis=0)
    dgamma = (dy * cache.x_hat).sum(axis=0)
    dx = cache.gamma * cache.inv_std * (dy - dbeta / n - cache.x_hat * dgamma / n)
    return dx, dgamma, dbeta
