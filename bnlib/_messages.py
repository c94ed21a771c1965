"""What errors have in common."""

import numpy as np


def short(value: object, longest: int = 300) -> str:
    """A value as text, of which a long one loses its middle."""
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 53]} … {text[-50:]}"


def check_array(name: str, v: np.ndarray, shape: tuple[int, ...]) -> None:
    if not isinstance(v, np.ndarray) or v.dtype.kind != "f":
        raise TypeError(f"{name} is {short(repr(v))}; expected an array of floating-point numbers")
    if v.shape != shape:
        raise ValueError(f"{name} has shape {v.shape}; expected {shape}")
