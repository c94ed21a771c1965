"""bnlib: Batch Normalization as the book derives it, in NumPy.

Read it in the book's order: `steps` (one operation a line), `batchnorm` (the same, accurate and
fast), `running` (statistics for inference), then `nn`, `optim` and `training`.
"""

from bnlib.batchnorm import (
    Backend,
    Cache,
    backend_for,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_train,
    fold,
)
from bnlib.running import RunningStats

__version__ = "0.1.0"
__all__ = [
    "Backend",
    "Cache",
    "RunningStats",
    "backend_for",
    "batch_norm_backward",
    "batch_norm_inference",
    "batch_norm_train",
    "fold",
]
