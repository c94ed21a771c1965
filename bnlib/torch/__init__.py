"""BatchNorm for PyTorch: the derivation of the book as a drop-in function and layers.

`functional` has the function and chooses what computes it: `arrays` on the CPU, the kernels of
`triton` on a GPU, else plain `operations`. `modules` has the layers and `convert`, which puts them
into a model, and `distributed` has both for several processes.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "bnlib.torch needs PyTorch, which is not installed: install the extra batchnorm-book[torch]"
    ) from error

from bnlib.torch.functional import Backend, backend_for, batch_norm
from bnlib.torch.modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormMode,
    BatchNormReLU,
    convert,
    restore,
)

__all__ = [
    "Backend",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormMode",
    "BatchNormReLU",
    "backend_for",
    "batch_norm",
    "convert",
    "restore",
]
