"""BatchNorm for PyTorch: the derivation of the book as a drop-in function and layer.

`functional` has the forward and the backward pass, `modules` the layer.
"""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError(
        "bnlib.torch needs PyTorch, which is not installed: install the extra batchnorm-book[torch]"
    ) from error

from bnlib.torch.functional import batch_norm
from bnlib.torch.modules import BatchNorm2d

__all__ = ["BatchNorm2d", "batch_norm"]
