"""bnlib.torch.operations and bnlib.torch.arrays: the same functions, and their halves the whole."""

import pytest
import torch

from bnlib.torch import arrays, operations

MODULES = operations, arrays
SHAPES = (7, 3), (4, 3, 5), (3, 2, 6, 6), (2, 3, 4, 2, 3)
DTYPES = torch.bfloat16, torch.float16, torch.float32, torch.float64


def draw(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    x, dy, residual = torch.randn(3, *shape, generator=generator)
    wide = torch.promote_types(dtype, torch.float32)
    weight, bias = torch.randn(2, shape[1], generator=generator).to(wide)
    return (3 + 2 * x).to(dtype), dy.to(dtype), residual.to(dtype), weight, bias


def close(a, b, dtype):
    rounding = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(a.double(), b.double(), rtol=4 * rounding, atol=4 * rounding)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_compute_what_the_operations_do(shape, dtype):
    x, dy, residual, weight, bias = draw(shape, dtype)
    results = []
    for module in MODULES:
        y, mean, var = module.train(x, weight, bias, 1e-5, residual, True)
        inference = module.inference(x, mean, var, weight, bias, 1e-5, residual, True)
        gradients = module.backward(dy, x, mean, var, weight, 1e-5, y)
        results.append([y, mean, var, inference, *gradients])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        close(one, other, dtype)


@pytest.mark.parametrize("module", MODULES, ids=["operations", "arrays"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_halves_are_the_whole(module, shape, dtype):
    x, dy, _, weight, bias = draw(shape, dtype)
    y, *moments = module.train(x, weight, bias, 1e-5)
    dx, *sums, _ = module.backward(dy, x, *moments, weight, 1e-5)
    mean, var = module.statistics(x)
    close(mean, moments[0], torch.float64)
    close(var, moments[1], torch.float64)
    close(module.inference(x, mean, var, weight, bias, 1e-5), y, dtype)
    dgamma, dbeta = module.sums(dy, x, mean, var, 1e-5)
    for one, other in zip((dgamma, dbeta), sums, strict=True):
        close(one, other, torch.float64)
    m = x.numel() // x.shape[1]
    close(module.gradient(dy, x, mean, var, weight, 1e-5, dgamma, dbeta, m), dx, dtype)
