"""bnlib.torch.triton with what test_promise.py leaves out: residual, ReLU, bfloat16, memory, a GPU.

In the interpreter the programs of a kernel run one after the other, and those that wait for each
other get a process each.
"""

import functools
import inspect
import math
import multiprocessing
import subprocess
import sys

import numpy as np
import oracle
import pytest
import torch
from conftest import ROOT
from kernels import GPU, TRITON, process, run_there

if not TRITON:
    pytest.skip("Triton is not installed", allow_module_level=True)

ROUNDING = {
    torch.float64: oracle.limits(np.float64),
    torch.float32: oracle.limits(np.float32),
    torch.float16: oracle.limits(np.float16),
    # The interpreter cuts off instead of rounding.
    torch.bfloat16: (oracle.BFLOAT16[0] * (1 if GPU else 2), *oracle.BFLOAT16[1:]),
}


def where_kernels_run(test):
    @functools.wraps(test)
    def run(**parameters):
        run_there(call, test.__name__, parameters)

    return run


def call(name, parameters):
    inspect.unwrap(globals()[name])(**parameters)


def in_a_process_on_a_gpu(test):
    """For a test that may hang there: it is ended after two minutes."""

    @functools.wraps(test)
    def run(**parameters):
        if not GPU:
            return test(**parameters)
        spawn = multiprocessing.get_context("spawn")
        child = spawn.Process(target=call, args=[test.__name__, parameters])
        child.start()
        child.join(120)
        child.kill()
        child.join()
        assert child.exitcode == 0

    return run


def kernels():
    from bnlib.torch import triton

    return triton


def draw(shape, dtype=torch.float32, memory="contiguous", mean=3.0, std=2.0):
    """x, weight, bias, dy; weight and bias float32 where x has 16 bits."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    wide = torch.promote_types(dtype, torch.float32)
    vectors = (1 + 0.3 * normal(shape[1])).to(wide), normal(shape[1]).to(wide)
    x, weight, bias, dy = mean + std * normal(*shape), *vectors, 0.5 + normal(*shape)
    x, dy = (lay(v.to(dtype), memory) for v in (x, dy))
    return tuple(v.cuda() if GPU else v for v in (x, weight, bias, dy))


def lay(v, memory):
    """v in this kind of memory."""
    if memory == "channels last":
        return v.movedim(1, -1).contiguous().movedim(-1, 1)
    if memory == "transposed":
        return v.transpose(0, -1).contiguous().transpose(0, -1)
    if memory == "strided":
        return torch.stack([v, v + 7], -1)[..., 0]
    return v


def check(x, weight, bias, dy, eps=1e-5, residual=None, relu=False, single_read=None):
    """That all results keep the promise, and no input changes; y and dx."""
    train, backward = kernels().train, kernels().backward
    inputs = [v for v in (x, weight, bias, dy, residual) if v is not None]
    before = [v.clone() for v in inputs]
    y, mean, var = train(x, weight, bias, eps, residual, relu, single_read=single_read)
    dx, dgamma, dbeta, dresidual = backward(
        dy, x, mean, var, weight, eps, y if relu else None, single_read=single_read
    )
    for now, then in zip(inputs, before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=0, equal_nan=True)

    effective = torch.where(y > 0, dy, 0) if relu else dy
    arrays = [None if v is None else array(v) for v in (x, weight, bias, effective)]
    want, scale = oracle.train(*arrays, eps)
    if residual is not None:
        want.y, scale.y = want.y + array(residual), scale.y + abs(array(residual))
    if relu:
        want.y = np.maximum(want.y, 0)
    assert torch.equal(dresidual, effective)
    got = {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "mean": mean, "var": var}
    for name, v in got.items():
        off = oracle.error(
            array(v), getattr(want, name), getattr(scale, name), rounding=ROUNDING[v.dtype]
        )
        limit = 1e-12 if x.dtype == torch.float64 else oracle.PROMISE
        assert off <= limit, f"{name} is off by {off:.1e} of its scale"
    assert y.dtype == dx.dtype == x.dtype
    return y, dx


def array(v):
    return v.double().cpu().numpy()


# Dtypes and memory


@pytest.mark.parametrize("single_read", [None, False])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("dtype", list(ROUNDING))
@where_kernels_run
def test_dtypes_with_residual_and_relu(dtype, with_residual, relu, single_read):
    for shape, memory in ((37, 20), "contiguous"), ((5, 6, 11, 7), "channels last"):
        x, weight, bias, dy = draw(shape, dtype, memory)
        residual = lay(x.flip(0), "strided") if with_residual else None
        check(x, weight, bias, dy, 1e-5, residual, relu, single_read)


@pytest.mark.parametrize("single_read", [None, False])
@where_kernels_run
def test_weights_of_another_dtype_and_stride(single_read):
    x, weight, bias, dy = draw((9, 6, 4), torch.bfloat16)
    check(x, weight.bfloat16(), torch.stack([bias, bias], 1)[:, 0], dy, single_read=single_read)


@where_kernels_run
def test_a_gradient_that_is_expanded():
    x, weight, bias, dy = draw((6, 3, 5, 4))
    check(x, weight, bias, dy[:1, :, :1, :1].expand(x.shape))


@pytest.mark.parametrize("single_read", [None, False])
@where_kernels_run
def test_memory_format_stays(single_read):
    for memory in "contiguous", "channels last":
        x, *rest = draw((4, 3, 5, 6), memory=memory)
        y, dx = check(x, *rest, single_read=single_read)
        assert y.stride() == dx.stride() == x.stride()
    x, *rest = draw((4, 6, 10, 12), memory="channels last")
    y, _ = check(x[:, :, ::2], *(v[:, :, ::2] if v.ndim > 1 else v for v in rest))
    assert y.is_contiguous(memory_format=torch.channels_last)


# Numbers


@where_kernels_run
def test_a_gradient_far_from_zero():
    x, weight, bias, _ = draw((300, 2))
    y, mean, var = kernels().train(x, weight, bias, 1e-5)
    noise = torch.sin(torch.arange(600, device=x.device)).view(300, 2)
    rounded = (1e6 + noise) - 1e6
    dx, *_ = kernels().backward(rounded + 1e6, x, mean, var, weight, 1e-5)
    want, *_ = kernels().backward(rounded, x, mean, var, weight, 1e-5)
    torch.testing.assert_close(dx, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("single_read", [None, False])
@where_kernels_run
def test_every_run_gives_the_same_bits(single_read):
    x, weight, bias, dy = draw((211, 5, 13))
    first, second = (
        check(x, weight, bias, dy, relu=True, single_read=single_read) for _ in range(2)
    )
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("single_read", [None, False])
@where_kernels_run
def test_a_residual_that_needs_no_gradient(single_read):
    x, weight, bias, dy = draw((40, 3, 5))
    y, mean, var = kernels().train(x, weight, bias, 1e-5, dy, True)
    arguments = dy, x, mean, var, weight, 1e-5, y
    want = kernels().backward(*arguments, single_read=single_read)
    got = kernels().backward(*arguments, needs_dresidual=False, single_read=single_read)
    assert got[3] is None
    for mine, its in zip(got[:3], want[:3], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6)


@where_kernels_run
def test_a_nan_lets_dresidual_through():
    """As torch's ReLU does."""
    x, weight, bias, dy = draw((6, 4, 5, 3))
    residual = x.clone()
    residual[0, 0, 0, 0] = math.nan
    y, mean, var = kernels().train(x, weight, bias, 0.01, residual, True)
    *_, dresidual = kernels().backward(dy, x, mean, var, weight, 0.01, y)
    assert y[0, 0, 0, 0].isnan() and dresidual[0, 0, 0, 0] == dy[0, 0, 0, 0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@where_kernels_run
def test_batch_norm_uses_these_kernels(relu, training):
    """Gradients of everything, beside those of torch; where there is no GPU, by force."""
    from bnlib.torch import functional

    x, weight, bias, dy = draw((6, 4, 5, 3))
    residual, mean, var = x.flip(0), bias * 0.1, weight**2

    def by_torch(x, mean, var, weight, bias, residual):
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training, 0.1, 0.01)
        return (y + residual).relu() if relu else y + residual

    def by_bnlib(x, mean, var, weight, bias, residual):
        return functional.batch_norm(
            x, mean, var, weight, bias, training, 0.1, 0.01, residual=residual, relu=relu
        )

    results, backend_for = [], functional.backend_for
    if not GPU:
        functional.backend_for = lambda x: functional.Backend("triton", "the test says so")
    assert functional.backend_for(x).name == "triton"
    for function in by_torch, by_bnlib:
        leaves = [v.detach().clone().requires_grad_() for v in (x, weight, bias, residual)]
        statistics = mean.clone(), var.clone()
        y = function(leaves[0], *statistics, *leaves[1:])
        results.append([y, *torch.autograd.grad(y, leaves, dy), *statistics])
    functional.backend_for = backend_for
    for mine, its in zip(*results, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


# Inference


@pytest.mark.parametrize("memory", ["contiguous", "channels last", "strided"])
@pytest.mark.parametrize("dtype", list(ROUNDING))
@where_kernels_run
def test_inference(dtype, memory):
    x, weight, bias, residual = draw((5, 7, 6, 11), dtype, memory)
    mean, var = bias * 0.1 + 3, weight**2
    want, scale = oracle.inference(*map(array, (x, mean, var, weight, bias)), 0.1)
    y = kernels().inference(x, mean, var, weight, bias, 0.1)
    assert oracle.error(array(y), want.y, scale.y, ROUNDING[dtype]) <= oracle.PROMISE
    y = kernels().inference(x, mean, var, weight, bias, 0.1, residual, True)
    want.y = np.maximum(want.y + array(residual), 0)
    scale = scale.y + abs(array(residual))
    assert oracle.error(array(y), want.y, scale, ROUNDING[dtype]) <= oracle.PROMISE


@where_kernels_run
def test_inference_at_a_far_mean():
    x, weight, bias, _ = draw((50, 3, 7), mean=1e4, std=1e-2)
    mean, var = torch.full_like(bias, 1e4), torch.full_like(bias, 1e-4)
    want, scale = oracle.inference(*map(array, (x, mean, var, weight, bias)), 1e-12)
    y = kernels().inference(x, mean, var, weight, bias, 1e-12)
    assert oracle.error(array(y), want.y, scale.y, ROUNDING[x.dtype]) <= oracle.PROMISE


# One kernel whose programs wait for each other


@pytest.mark.parametrize("memory", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@in_a_process_on_a_gpu
@where_kernels_run
def test_channels_that_several_programs_hold(dtype, memory):
    """Three blocks of channels or more, for two groups of programs or one."""
    shape = (32, 3, 25, 25) if memory == "contiguous" else (600, 100, 1, 3)
    x, weight, bias, dy = draw(shape, dtype, memory)
    plan = kernels()._Plan(x, 1, True)
    assert plan.parts > 1 and plan.blocks > 2
    with at_the_same_time():
        check(x, weight, bias, dy, 1e-5, dy, True, single_read=True)


class at_the_same_time:
    """In the interpreter: a process for each program, and all tensors in shared memory."""

    def __enter__(self):
        self.real = kernels()._train_kernel, kernels()._backward_kernel
        if not GPU:
            kernels()._train_kernel, kernels()._backward_kernel = map(Processes, self.real)

    def __exit__(self, *_):
        kernels()._train_kernel, kernels()._backward_kernel = self.real


class Processes:
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            for v in arguments:
                if isinstance(v, torch.Tensor):
                    v.share_memory_()
            fork = multiprocessing.get_context("fork")
            programs = [
                fork.Process(target=run_program, args=[self.kernel, i, grid, arguments, options])
                for i in range(*grid)
            ]
            for program in programs:
                program.start()
            for program in programs:
                program.join(60)
            assert [program.exitcode for program in programs] == [0] * len(programs)

        return launch


def run_program(kernel, i, grid, arguments, options):
    from triton.runtime.interpreter import interpreter_builder as builder

    set_index, set_size = builder.set_grid_idx, builder.set_grid_dim
    builder.set_grid_idx = lambda *_: set_index(i, 0, 0)
    builder.set_grid_dim = lambda *_: set_size(*grid, 1, 1)
    kernel[(1,)](*arguments, **options)


@where_kernels_run
def test_a_channel_too_large_to_be_held():
    units = torch.cuda.get_device_properties(0).multi_processor_count if GPU else 4
    x, weight, bias, dy = draw((2 * units * 8192 // 64 + 1, 1, 64))
    with pytest.raises(ValueError, match=r"single_read is True, and x has shape \(\d+, 1, 64\)"):
        kernels().train(x, weight, bias, 1e-5, single_read=True)
    check(x, weight, bias, dy)


# The compiler refuses much that the interpreter runs, and needs no GPU


@pytest.mark.skipif(GPU, reason="the GPU has run what the compiler made")
@pytest.mark.parametrize(
    "dtype, target",
    [(torch.float32, 90), (torch.bfloat16, 80), (torch.float16, 75), (torch.float64, 75)],
)
def test_kernels_compile_for_gpus(dtype, target):
    names = process(False).submit(compile_kernels, dtype, target).result(timeout=300)
    assert len(names) == 2 * 8 and len(set(names)) == 8


def compile_kernels(dtype, target):
    """Names of the kernels that were compiled for x of this dtype, in both kinds of memory."""
    module, names = kernels(), []
    kept = {name: kernel for name, kernel in vars(module).items() if name.endswith("_kernel")}
    vars(module).update({name: Compiler(kernel, target, names) for name, kernel in kept.items()})
    for shape, memory in ((32, 3, 25, 25), "contiguous"), ((600, 100, 1, 3), "channels last"):
        x, weight, bias, dy = draw(shape, dtype, memory)
        for once in True, False:
            y, mean, var = module.train(x, weight, bias, 1e-5, dy, True, single_read=once)
            module.backward(dy, x, mean, var, weight, 1e-5, y, single_read=once)
    vars(module).update(kept)
    return names


class Compiler:
    """Takes the place of a kernel: compiles it for the arguments of a launch."""

    def __init__(self, kernel, target, names):
        self.kernel, self.target, self.names = kernel, target, names

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *arguments, **options):
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
        from triton.runtime.jit import mangle_type

        parameters = self.kernel.params
        names = [p.name for p in parameters]
        values = dict(zip(names, arguments, strict=False))
        values |= {name: options.pop(name) for name in list(options) if name in names}
        constants = {
            p.name: values[p.name]
            for p in parameters
            if p.is_constexpr
            or isinstance(values[p.name], int | None)
            and values[p.name] in (None, 1)
        }
        signature = {
            name: "constexpr" if name in constants else mangle_type(values[name]) for name in names
        }
        source = ASTSource(self.kernel, signature, constants)
        triton.compile(source, target=GPUTarget("cuda", self.target, 32), options=options)
        self.names.append(self.kernel.__name__)


def test_the_benchmark_runs_or_says_why_not():
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if GPU:
        assert done.returncode == 0, done.stderr
        assert all(name in done.stdout for name in ("copied at", "torch.compile", "single read"))
    else:
        assert done.returncode == 1
        assert done.stderr == "There is no CUDA GPU here: nothing was measured.\n"


@pytest.mark.parametrize("memory", ["contiguous", "channels last"])
@pytest.mark.parametrize("shape", [(70, 9), (3, 5, 40), (6, 3, 7, 7)])
@where_kernels_run
def test_two_halves_are_the_whole(shape, memory):
    x, weight, bias, dy = draw(shape, memory=memory)
    y, *moments = kernels().train(x, weight, bias, 1e-5, single_read=False)
    dx, *sums, _ = kernels().backward(dy, x, *moments, weight, 1e-5, single_read=False)
    mean, var = kernels().statistics(x)
    torch.testing.assert_close((mean, var), tuple(moments))
    torch.testing.assert_close(kernels().inference(x, mean, var, weight, bias, 1e-5), y)
    dgamma, dbeta = kernels().sums(dy, x, mean, var, 1e-5)
    torch.testing.assert_close((dgamma, dbeta), tuple(sums))
    m = x.numel() // x.shape[1]
    again = kernels().gradient(dy, x, mean, var, weight, 1e-5, dgamma, dbeta, m)
    torch.testing.assert_close(again, dx)
