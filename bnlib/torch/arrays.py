"""BatchNorm on the memory of CPU tensors, by `bnlib.blocks`.

The functions are those of `bnlib.torch.operations`. What has 16 bits goes through float32. Results
are laid out as x is; their memory comes from NumPy, which gets large pieces faster than torch.
"""

import warnings
from typing import overload

import numpy as np
import torch
from torch import Tensor

from bnlib import blocks

_Maybe = Tensor | None


def train(
    x: Tensor,
    weight: _Maybe,
    bias: _Maybe,
    eps: float,
    residual: _Maybe = None,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """y = relu(BN(x) + residual), of x's shape and dtype; mean and biased variance, (C,)."""
    array = _array(x)
    y = np.empty_like(array)
    gamma, beta = _filled(weight, 1.0, array), _filled(bias, 0.0, array)
    near, rest, var, _ = blocks.train(
        array, gamma, beta, eps, y, _threads(), _array(residual), relu
    )
    return _tensor(y, x), torch.from_numpy(near + rest), torch.from_numpy(var)


def backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: _Maybe,
    eps: float,
    y: _Maybe = None,
    *,
    needs_dresidual: bool = True,
) -> tuple[Tensor, Tensor, Tensor, _Maybe]:
    """dx, dgamma, dbeta, and dresidual, which is dy, or where there is a y, dy past its ReLU."""
    array, near, sigma2 = _array(x), _array(mean), _array(var)
    dx = np.empty_like(array)
    dz = np.empty_like(array) if y is not None and needs_dresidual else None
    statistics = blocks.Statistics(near, np.zeros_like(near), sigma2, 1 / np.sqrt(sigma2 + eps))
    dgamma, dbeta = blocks.backward(
        array, _array(dy), _filled(weight, 1.0, array), statistics, dx, _threads(), _array(y), dz
    )
    dresidual = dy if dz is None else _tensor(dz, x)
    return _tensor(dx, x), torch.from_numpy(dgamma), torch.from_numpy(dbeta), dresidual


def inference(
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: _Maybe,
    bias: _Maybe,
    eps: float,
    residual: _Maybe = None,
    relu: bool = False,
) -> Tensor:
    """y with given statistics, (C,)."""
    array = _array(x)
    a = _filled(weight, 1.0, array) / np.sqrt(_array(var).astype(np.float64) + eps)
    beta = _filled(bias, 0.0, array).astype(np.float64)
    y = np.empty_like(array)
    blocks.inference(
        array, _array(mean).astype(np.float64), a, beta, y, _threads(), _array(residual), relu
    )
    return _tensor(y, x)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,)."""
    mean, var = blocks.statistics(_array(x), _threads())
    return torch.from_numpy(mean), torch.from_numpy(var)


def sums(dy: Tensor, x: Tensor, mean: Tensor, var: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """dgamma = Σ dy x̂ and dbeta = Σ dy, (C,)."""
    near = _array(mean).astype(np.float64)
    dbeta, products = blocks.backward_sums(_array(x), _array(dy), near, _threads())
    dgamma = products / np.sqrt(_array(var).astype(np.float64) + eps)
    return torch.from_numpy(dgamma), torch.from_numpy(dbeta)


def gradient(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    weight: _Maybe,
    eps: float,
    dgamma: Tensor,
    dbeta: Tensor,
    m: int,
) -> Tensor:
    """dx from the sums over all m values of a channel."""
    array = _array(x)
    inv_std = 1 / np.sqrt(_array(var) + eps)
    b, c = -_array(dgamma) * inv_std / m, -_array(dbeta) / m
    a = _filled(weight, 1.0, array) * inv_std
    dx = np.empty_like(array)
    blocks.gradient(array, _array(dy), _array(mean), b, c, a, dx, _threads())
    return _tensor(dx, x)


def follow(
    running_mean: Tensor, mean: Tensor, running_var: Tensor, var: Tensor, momentum: float
) -> None:
    """Move running statistics toward those of a mini-batch, but for channels that they cannot hold.

    A warning names these.
    """
    moves, good = [], np.True_
    for running, new in (running_mean, _array(mean)), (running_var, _array(var)):
        good = good & (np.abs(new) <= torch.finfo(running.dtype).max)  # no NaN either
        moves.append((running, (1 - momentum) * _array(running) + momentum * new))
    if not good.all():
        warnings.warn(
            f"channel {', '.join(map(str, np.flatnonzero(~good)))}: the batch has a NaN or an "
            f"infinity, or a variance beyond {running_var.dtype}; the running statistics of the "
            "channel were not updated",
            RuntimeWarning,
            stacklevel=4,
        )
        moves = [(running, np.where(good, moved, _array(running))) for running, moved in moves]
    for running, moved in moves:
        running.copy_(torch.from_numpy(moved))


def check_variance(var: Tensor) -> None:
    """Raise a ValueError where one of them is negative or NaN."""
    array = _array(var)
    bad = np.flatnonzero(~(array >= 0))
    if bad.size:
        raise ValueError(
            f"running_var[{bad[0]}] is {array[bad[0]]}; expected 0 or more in every channel"
        )


def _threads() -> int:
    return torch.get_num_threads()


def _filled(v: _Maybe, value: float, array: np.ndarray) -> np.ndarray:
    """gamma or beta, (C,), to go with x as an array."""
    return blocks.filled(_array(v), value, array)


@overload
def _array(v: Tensor) -> np.ndarray: ...
@overload
def _array(v: None) -> None: ...
def _array(v: _Maybe) -> np.ndarray | None:
    """The memory of a tensor. After `Tensor.numpy` nobody could resize it, as FSDP does."""
    if v is None:
        return None
    half = v.dtype in (torch.float16, torch.bfloat16)
    return np.from_dlpack((v.float() if half else v).detach().resolve_neg())


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """An array as a tensor of the dtype of another one."""
    return torch.from_numpy(array).to(like.dtype)
