"""Checks of arguments. Each error names the argument, what it was, and what was expected."""

import math
from numbers import Integral
from typing import Any

import numpy as np

from bnlib._messages import short

_FLOAT16, _FLOAT32, _FLOAT64 = map(np.dtype, (np.float16, np.float32, np.float64))


def check_dtype(name: str, v: Any) -> None:
    if type(v) is not np.ndarray and not isinstance(v, np.memmap):  # no matrix, no masked array
        raise TypeError(f"{name} is a {type(v).__name__}; expected a NumPy array")
    if v.dtype not in (_FLOAT32, _FLOAT64, _FLOAT16):
        raise TypeError(f"{name} has dtype {v.dtype}; expected float16, float32 or float64")


def check_x(name: str, x: Any) -> None:
    check_dtype(name, x)
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {x.shape}; expected (N, C) or (N, C, *spatial)")
    if x.shape[1] == 0:
        raise ValueError(f"{name} has shape {x.shape}; expected at least one channel on axis 1")


def check_out(out: Any, like: np.ndarray, **inputs: np.ndarray) -> None:
    """An array of x's shape and dtype, to write to, that shares no memory with the inputs."""
    if out is None:
        return
    check_dtype("out", out)
    if out.dtype != like.dtype:
        raise TypeError(f"out has dtype {out.dtype}; expected {like.dtype}, the dtype of x")
    if out.shape != like.shape:
        raise ValueError(f"out has shape {out.shape}; expected {like.shape}, the shape of x")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array to write to")
    for name, v in inputs.items():
        if np.shares_memory(out, v):
            raise ValueError(f"out shares memory with {name}; expected memory of its own")


def same_memory(a: Any, b: np.ndarray) -> bool:
    """Whether two arrays have every value in the same place."""
    return (
        isinstance(a, np.ndarray)
        and a.__array_interface__["data"] == b.__array_interface__["data"]
        and (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    )


def check_threads(threads: int) -> None:
    if not isinstance(threads, Integral) or threads < 1:
        raise ValueError(f"threads is {short(threads)}; expected an integer of 1 or more")


def check_eps(eps: float) -> None:
    if not 0 < eps < math.inf:
        raise ValueError(f"eps is {short(eps)}; expected a positive number")


def check_vector(name: str, v: Any, channels: int, dtype: np.dtype | None) -> None:
    """One value per channel, of a dtype (None for any floating-point one); v may be None."""
    if v is None:
        return
    check_dtype(name, v)
    if dtype is not None and v.dtype != dtype:
        raise TypeError(f"{name} has dtype {v.dtype}; expected {dtype}, to go with the input")
    if v.shape != (channels,):
        raise ValueError(f"{name} has shape {v.shape}; expected ({channels},), one per channel")


def check_statistics(mean: Any, var: Any, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance in float64."""
    for name, v in ("mean", mean), ("var", var):
        check_dtype(name, v)  # not None either
        check_vector(name, v, channels, None)
    bad = np.flatnonzero(~(var >= 0))
    if bad.size:
        raise ValueError(f"var[{bad[0]}] is {var[bad[0]]}; expected 0 or more in every channel")
    return mean.astype(np.float64), var.astype(np.float64)
