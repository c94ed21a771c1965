"""bnlib.batchnorm: values, derivatives, memory, threads, invariances, bad input.

How accurate it is, is tested in test_promise.py.
"""

import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from cases import LAYOUTS
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ENGINES, engine

import bnlib
from bnlib import batch_norm_backward, batch_norm_inference, batch_norm_train, blocks, fold, steps
from bnlib.gradcheck import max_relative_error, numerical_gradient

SHAPES = [(2, 1), (7, 3), (64, 5), (65, 4), (200, 3), (700, 500)]
SHAPES += [(4, 3, 5), (3, 2, 4, 5), (2, 3, 2, 3, 2), (1, 3, 70, 70), (5, 4, 1, 1)]


@pytest.fixture(scope="module", autouse=True, params=ENGINES)
def path(request):
    """Every test runs on each path."""
    with engine(request.param):
        yield request.param


@pytest.fixture
def large(path):
    """For tests whose mini-batches are large as they are: once for each engine is enough."""
    if "tiny" in path:
        pytest.skip("the mini-batch is large as it is")


def draw(shape, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    c = shape[1]
    x = rng.normal(3, 2, shape).astype(dtype)
    gamma, beta = rng.uniform(0.5, 2, c).astype(dtype), rng.normal(0, 1, c).astype(dtype)
    return x, gamma, beta, rng.normal(0, 1, shape).astype(dtype)


def axes(x):
    return (0, *range(2, x.ndim))


# Values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [True, False])
def test_agrees_with_torch_in_float64(shape, affine):
    x, gamma, beta, dy = draw(shape)
    if not affine:
        gamma = beta = None
    tx = torch.tensor(x, requires_grad=True)
    weight, bias = (
        None if v is None else torch.tensor(v, requires_grad=True) for v in (gamma, beta)
    )
    expected = torch.nn.functional.batch_norm(tx, None, None, weight, bias, True, 0.1, 1e-5)
    expected.backward(torch.tensor(dy))
    y, cache = batch_norm_train(x, gamma, beta)
    dx, dgamma, dbeta = batch_norm_backward(dy, cache)
    np.testing.assert_allclose(y, expected.detach(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx, tx.grad, rtol=0, atol=1e-12)
    if affine:
        np.testing.assert_allclose(dgamma, weight.grad, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(dbeta, bias.grad, rtol=1e-12, atol=1e-12)
    else:
        assert dgamma is None and dbeta is None


def test_agrees_with_the_steps():
    x, gamma, beta, dy = draw((33, 4))
    y, cache = batch_norm_train(x, gamma, beta)
    y_steps, cache_steps = steps.forward(x, gamma, beta)
    np.testing.assert_allclose(y, y_steps, atol=1e-13)
    for ours, theirs in zip(
        batch_norm_backward(dy, cache), steps.backward(dy, cache_steps)[:3], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3), (3, 2, 2, 2)])
def test_gradients_by_central_differences(shape):
    x, gamma, beta, dy = draw(shape)

    def loss():
        return float((batch_norm_train(x, gamma, beta)[0] * dy).sum())

    gradients = batch_norm_backward(dy, batch_norm_train(x, gamma, beta)[1])
    for gradient, v in zip(gradients, (x, gamma, beta), strict=True):
        assert max_relative_error(gradient, numerical_gradient(loss, v)) < 1e-7


def test_the_cache_holds_biased_statistics():
    x, *_ = draw((10, 3, 4))
    _, cache = batch_norm_train(x)
    assert cache.count == 40
    np.testing.assert_allclose(cache.mean, x.mean((0, 2)), rtol=1e-13)
    np.testing.assert_allclose(cache.var, x.var((0, 2)), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_stay(dtype):
    x, gamma, beta, dy = draw((12, 3, 5), dtype=dtype)
    parameter_dtype = np.float32 if dtype == np.float16 else dtype
    gamma, beta = gamma.astype(parameter_dtype), beta.astype(parameter_dtype)
    y, cache = batch_norm_train(x, gamma, beta)
    dx, dgamma, dbeta = batch_norm_backward(dy, cache)
    inference = batch_norm_inference(x, cache.mean, cache.var, gamma, beta)
    assert y.dtype == dx.dtype == inference.dtype == dtype
    assert dgamma.dtype == dbeta.dtype == parameter_dtype
    expected, _ = batch_norm_train(x.astype(np.float64), *map(np.float64, (gamma, beta)))
    np.testing.assert_allclose(y, expected, atol=2e-3 if dtype == np.float16 else 2e-6)


def test_input_is_not_modified():
    x, gamma, beta, dy = draw((9, 3, 4), dtype=np.float32)
    copies = [v.copy() for v in (x, gamma, beta, dy)]
    _, cache = batch_norm_train(x, gamma, beta)
    batch_norm_backward(dy, cache)
    batch_norm_inference(x, cache.mean, cache.var, gamma, beta)
    for before, after in zip(copies, (x, gamma, beta, dy), strict=True):
        np.testing.assert_array_equal(before, after)


# Numbers out of the range of float32


@pytest.mark.parametrize("shape", [(1, 1, 2_000_000), (2_000_000, 1), (8, 1, 250_000)])
def test_a_long_channel_behind_an_outlier_keeps_its_variance(shape, path):
    """In one row and in many. Pieces added one after the other would lose 8e-8, as NumPy's do."""
    x = np.full(shape, np.float32(0.7))
    x.flat[0] = 1000.1
    _, cache = batch_norm_train(x)
    share = 1 / x.size  # of the outlier
    var = share * (1 - share) * (float(x.flat[0]) - float(x.flat[1])) ** 2
    assert abs(cache.var[0] / var - 1) < (1e-7 if "NumPy" in path else 1e-8)


def test_statistics_of_channels_out_of_the_range_of_float32_are_in_the_cache():
    x = np.random.default_rng(0).normal(size=(512, 128)).astype(np.float32)
    x[:, ::2] *= np.float32(1e20)
    _, cache = batch_norm_train(x)
    np.testing.assert_allclose(cache.var, x.astype(np.float64).var(0), rtol=1e-6)
    np.testing.assert_allclose(cache.inv_std, 1 / np.sqrt(cache.var + 1e-5))
    dx, dgamma, dbeta = batch_norm_backward(x, cache)
    assert dgamma is None and dbeta is None and np.isfinite(dx).all()


@pytest.mark.parametrize("given", ["gamma", "beta"])
@pytest.mark.parametrize("scale", [1, 1e20])
def test_gamma_and_beta_come_alone(given, scale):
    x, gamma, beta, dy = draw((40, 3), dtype=np.float32)
    x *= np.float32(scale)
    only = {"gamma": gamma} if given == "gamma" else {"beta": beta}
    y, cache = batch_norm_train(x, **only)
    x_hat, _ = batch_norm_train(x)
    _, dgamma, dbeta = batch_norm_backward(dy, cache)
    if given == "gamma":
        np.testing.assert_allclose(y, gamma * x_hat, atol=1e-5)
        np.testing.assert_allclose(dgamma, (dy * x_hat).sum(0), atol=1e-4)
        assert dbeta is None
    else:
        np.testing.assert_allclose(y, x_hat + beta, atol=1e-5)
        np.testing.assert_allclose(dbeta, dy.sum(0), atol=1e-4)
        assert dgamma is None


def test_inference_beyond_the_range_of_float32():
    x = np.array([[3e38], [-3e38]], np.float32)  # x - mean is 6e38
    y = batch_norm_inference(x, np.array([-3e38]), np.array([1e76]))
    np.testing.assert_allclose(y, [[6], [0]], atol=1e-6)


def test_a_nan_among_the_statistics_stays_in_its_channel_at_inference():
    x = np.array([[0, 1e6], [1, 1e6 + 1]], np.float32)
    y = batch_norm_inference(x, np.array([np.nan, 1e6 + 0.3]), np.ones(2))
    np.testing.assert_allclose(y[:, 1], [-0.3, 0.7], atol=1e-5)
    assert np.isnan(y[:, 0]).all()


# Properties

shapes = st.one_of(
    st.tuples(st.integers(2, 150), st.integers(1, 5)),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(2, 6)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(2, 4)),
)


@given(shapes, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_output_has_mean_beta_and_variance_gamma_squared(shape, seed):
    x, gamma, beta, _ = draw(shape, seed)
    y, cache = batch_norm_train(x, gamma, beta, eps=1e-12)
    np.testing.assert_allclose(y.mean(axes(y)), beta, atol=1e-9)
    shrink = cache.var / (cache.var + 1e-12)  # eps takes this much of the variance
    np.testing.assert_allclose(y.var(axes(y)), gamma**2 * shrink, rtol=1e-9, atol=1e-12)


@given(shapes, st.integers(0, 2**32 - 1), st.floats(-100, 100), st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_shift_and_positive_scale_do_not_matter(shape, seed, shift, scale):
    x, gamma, beta, _ = draw(shape, seed)
    if batch_norm_train(x)[1].var.min() < 1e-3:  # eps would show
        return
    y = batch_norm_train(x, gamma, beta, eps=1e-14)[0]
    moved = batch_norm_train(scale * x + shift, gamma, beta, eps=1e-14)[0]
    np.testing.assert_allclose(moved, y, atol=1e-6)


@given(shapes, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_dx_is_orthogonal_to_one_and_to_x_hat(shape, seed):
    x, gamma, beta, dy = draw(shape, seed)
    _, cache = batch_norm_train(x, gamma, beta, eps=1e-14)
    dx, *_ = batch_norm_backward(dy, cache)
    x_hat = batch_norm_train(x, eps=1e-14)[0]
    bound = 1e-8 * cache.count * gamma * cache.inv_std * abs(dy).max()  # 1e-8 of the terms
    assert (abs(dx.sum(axes(dx))) <= bound).all()
    shrink = cache.var * cache.inv_std**2  # eps takes this much of the second identity
    assert (abs((dx * x_hat).sum(axes(dx))) <= bound * (1 + 1e8 * (1 - shrink))).all()


# Where results are written


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_lie_in_memory_as_x_does(layout):
    x, gamma, beta, dy = draw((4, 3, 5, 6), dtype=np.float32)
    x = LAYOUTS[layout](x)
    y, cache = batch_norm_train(x, gamma, beta)
    dx, *_ = batch_norm_backward(dy, cache)
    inference = batch_norm_inference(x, cache.mean, cache.var, gamma, beta)
    assert y.strides == dx.strides == inference.strides == np.empty_like(x).strides


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_out_is_written_and_returned(shape, order, dtype):
    x, _, _, dy = draw(shape, dtype=dtype)
    gamma = draw(shape, dtype=np.float32)[1]
    y, dx, inference = (np.full(x.shape, np.nan, dtype, order) for _ in range(3))
    result, cache = batch_norm_train(x, gamma, out=y)
    assert result is y
    assert batch_norm_backward(dy, cache, out=dx)[0] is dx
    assert batch_norm_inference(x, cache.mean, cache.var, gamma, out=inference) is inference
    expected, cache = batch_norm_train(x, gamma)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, batch_norm_backward(dy, cache)[0])
    expected = batch_norm_inference(x, cache.mean, cache.var, gamma)
    np.testing.assert_array_equal(inference, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mean", [0, 1e4, 1e36])
def test_inference_can_take_the_place_of_x(shape, mean):
    x, gamma, beta, _ = draw(shape, dtype=np.float32)
    x[:, 1:] += np.float32(mean)
    means = np.full(shape[1], mean + 3.0)
    means[0] = 3
    statistics = means, np.full(shape[1], 4.0)
    expected = batch_norm_inference(x, *statistics, gamma, beta)
    view = x[:]  # another array, the same memory
    batch_norm_inference(x, *statistics, gamma, beta, out=view)
    np.testing.assert_array_equal(x, expected)


def test_out_may_lie_between_what_it_must_not_touch():
    both = np.repeat(draw((30, 4, 5), dtype=np.float32)[0], 2, axis=1)
    x, out = both[:, ::2], both[:, 1::2]
    expected = batch_norm_train(x)[0]
    np.testing.assert_array_equal(batch_norm_train(x, out=out)[0], expected)


BAD_OUT = [
    (TypeError, "out is a list; expected a NumPy array", [[0.0]]),
    (TypeError, "out has dtype float64; expected float32, the dtype of x", np.zeros((4, 3))),
    (ValueError, r"out has shape \(3, 4\); expected \(4, 3\)", np.zeros((3, 4), np.float32)),
    (ValueError, "out is read-only", np.broadcast_to(np.float32(0), (4, 3))),
]


@pytest.mark.parametrize("error, message, out", BAD_OUT)
def test_bad_out(error, message, out):
    cache = batch_norm_train(X)[1]
    with pytest.raises(error, match=message):
        batch_norm_train(X, out=out)
    with pytest.raises(error, match=message):
        batch_norm_backward(X, cache, out=out)
    with pytest.raises(error, match=message):
        batch_norm_inference(X, V, V, out=out)


def test_out_that_would_overwrite_an_input_is_refused_before_anything_is_written():
    memory = draw((5, 3), dtype=np.float32)[0]
    before, x, shifted = memory.copy(), memory[:4], memory[1:]
    dy = np.ones_like(x)
    cache = batch_norm_train(x)[1]
    for overwrite in (
        lambda: batch_norm_train(x, out=x),
        lambda: batch_norm_train(x, out=shifted),
        lambda: batch_norm_backward(dy, cache, out=shifted),
        lambda: batch_norm_inference(x, V, V, out=shifted),
        lambda: batch_norm_inference(x, V, V, out=x[::-1]),
    ):
        with pytest.raises(ValueError, match="out shares memory with x; expected"):
            overwrite()
    with pytest.raises(ValueError, match="out shares memory with dy; expected"):
        batch_norm_backward(dy, cache, out=dy)
    np.testing.assert_array_equal(memory, before)
    assert (dy == 1).all()


MEMORY = [
    (256, 1024),
    (4096, 1024),
    (300_000, 3),
    (32, 64, 28, 28),
    (8, 64, 56, 56),
    (64, 512, 7, 7),
]
MIB = 1 << 20


@pytest.mark.parametrize("shape", MEMORY)
@pytest.mark.parametrize("threads", [1, 2])
def test_little_memory_is_needed_beyond_the_results(shape, threads, large):
    x, gamma, beta, dy = draw(shape, dtype=np.float32)

    def step():
        y, cache = batch_norm_train(x, gamma, beta, threads=threads)
        dx, *_ = batch_norm_backward(dy, cache, threads=threads)
        return y, dx, batch_norm_inference(x, cache.mean, cache.var, gamma, beta, threads=threads)

    step()
    tracemalloc.start()
    try:
        step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - 3 * x.nbytes <= 2 * MIB + 400 * shape[1]


# What computes


def test_backend_for_says_which_and_why(path):
    name, reason = bnlib.backend_for(np.zeros((2, 1), np.float16))
    assert name == "numpy" if path.startswith("NumPy") else "numba"
    assert reason and str(bnlib.backend_for(np.zeros((2, 1)))) == f"{name}: {reason}"
    with pytest.raises(TypeError, match="x is a list; expected a NumPy array"):
        bnlib.backend_for([1.0])


def test_without_numba_numpy_does_the_work():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np, bnlib
x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
y, cache = bnlib.batch_norm_train(x)
assert abs(y.mean(0)).max() < 1e-6 and bnlib.batch_norm_backward(y, cache)[0].shape == x.shape
print(bnlib.backend_for(x))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("numpy: Numba cannot be used here: ") and not done.stderr


# Threads


@given(shapes, st.integers(0, 2**32 - 1), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_any_number_of_threads_gives_the_same_bits(shape, seed, threads):
    x, gamma, beta, dy = draw(shape, seed, np.float32)
    x[:, 0] += 1e3
    assert results(x, gamma, beta, dy, threads) == results(x, gamma, beta, dy, 1)


@pytest.mark.parametrize("shape", [(5000, 300), (64, 32, 40, 40), (100_000, 7), (60, 32, 7, 7)])
def test_any_number_of_threads_gives_the_same_bits_for_large_arrays(shape, large):
    x, gamma, beta, dy = draw(shape, dtype=np.float32)
    assert len({results(x, gamma, beta, dy, threads) for threads in (1, 2, 3, 8)}) == 1


def results(x, gamma, beta, dy, threads):
    """A fingerprint of all bits of all results."""
    y, cache = batch_norm_train(x, gamma, beta, threads=threads)
    inference = batch_norm_inference(x, cache.mean, cache.var, gamma, beta, threads=threads)
    gradients = batch_norm_backward(dy, cache, threads=threads)
    arrays = y, *gradients, cache.mean, cache.var, inference
    return hashlib.sha256(b"".join(v.tobytes() for v in arrays)).hexdigest()


def test_threads_of_the_linear_algebra_do_not_change_bits(large):
    code = (
        "import hashlib, numpy as np; from bnlib import *\n"
        "for shape in (60, 100), (80, 102), (700, 1024), (9, 16, 70, 70), (1, 1, 99_999):\n"
        "    x, dy = np.random.default_rng(0).normal(3, 2, (2, *shape)).astype(np.float32)\n"
        "    y, cache = batch_norm_train(x, x.flat[: shape[1]])\n"
        "    arrays = y, *batch_norm_backward(dy, cache)[:2], cache.mean, cache.var\n"
        "    print(hashlib.sha256(b''.join(v.tobytes() for v in arrays)).hexdigest())\n"
    )
    answers = set()
    for count in "124":
        variables = "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"
        environment = os.environ | dict.fromkeys(variables, count)
        command = sys.executable, "-c", code
        answers.add(subprocess.check_output(command, env=environment, text=True))
    assert len(answers) == 1, answers


def at_work(threads, shape=(600, 1024)):
    """The names of the threads that take part in a sweep."""
    seen, (module, _) = set(), blocks.engine()

    def watched(name):
        function = getattr(module, name)

        def call(*arguments):
            seen.add(threading.current_thread().name)
            time.sleep(0.05)
            return function(*arguments)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in {"train", "sums"} & set(vars(module)):
            patch.setattr(module, name, watched(name))
        batch_norm_train(draw(shape, dtype=np.float32)[0], threads=threads)
    return seen


@pytest.mark.parametrize("shape", [(600, 1024), (8, 16, 40, 40)])  # by rows, and by channels
def test_threads_share_the_work(shape, large):
    assert len(at_work(1, shape)) == 1
    assert len(at_work(2, shape)) > 1


@pytest.mark.filterwarnings("error")
def test_nothing_is_warned_about_in_any_thread(large):
    x, gamma, beta, dy = draw((2600, 1024), dtype=np.float32)
    x[-1] = np.nan
    x[::7, 1] = 3e38
    x[::7, 2] = np.inf
    y, cache = batch_norm_train(x, gamma, beta, threads=2)
    batch_norm_backward(dy, cache, threads=2)
    batch_norm_inference(x, cache.mean, np.ones(1024), gamma, beta, threads=2)
    assert np.geterr()["over"] == "warn" and np.getbufsize() == 8192


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_threads_share_the_work_in_a_forked_process(large):
    at_work(2)  # the pool is there
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert len(pool.apply_async(at_work, (2,)).get(timeout=60)) > 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, None])
def test_bad_threads(threads):
    message = f"threads is {threads}; expected an integer of 1 or more"
    for call in (
        lambda: batch_norm_train(X, threads=threads),
        lambda: batch_norm_backward(X, batch_norm_train(X)[1], threads=threads),
        lambda: batch_norm_inference(X, V, V, threads=threads),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_threads_may_be_an_integer_of_numpy():
    np.testing.assert_array_equal(
        batch_norm_train(X, threads=np.int64(2))[0], batch_norm_train(X)[0]
    )


@pytest.mark.parametrize("shape", [(6, 3), (4096, 3, 4)])  # small, and in blocks
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_results_of_mapped_files_are_arrays(tmp_path, shape, dtype):
    """A memmap that maps no file would only look as if it were kept somewhere."""
    wide = np.float64 if dtype == np.float64 else np.float32
    sizes = {"x": (shape, dtype), "gamma": (3, wide), "beta": (3, wide), "var": (3, np.float64)}
    mapped = {
        name: np.memmap(tmp_path / name, dtype, "w+", shape=size)
        for name, (size, dtype) in sizes.items()
    }
    x, gamma, beta, var = mapped.values()
    x[:] = np.random.default_rng(0).normal(size=shape)
    gamma[:], beta[:], var[:] = 2, 1, 1
    y, cache = batch_norm_train(x, gamma, beta)
    np.testing.assert_array_equal(y, batch_norm_train(*map(np.array, (x, gamma, beta)))[0])
    results = [y, *batch_norm_backward(x, cache), cache.mean, cache.var, cache.inv_std, cache.gamma]
    results.append(batch_norm_inference(x, var, var, gamma, beta))
    results.extend(fold(x, beta, var, var) if len(shape) == 1 else fold(x[:3], beta, var, var))
    assert {type(v) for v in results} == {np.ndarray}


# Inference and folding


def test_inference_agrees_with_torch():
    x, gamma, beta, _ = draw((6, 3, 4))
    mean, var = np.array([1.0, 2, 3]), np.array([0.5, 1, 2])
    expected = torch.nn.functional.batch_norm(*map(torch.tensor, (x, mean, var, gamma, beta)))
    np.testing.assert_allclose(
        batch_norm_inference(x, mean, var, gamma, beta), expected, atol=1e-13
    )


@pytest.mark.parametrize("bias", [True, False])
def test_folding_changes_nothing_linear(bias):
    rng = np.random.default_rng(0)
    u, weight = rng.normal(size=(8, 5)), rng.normal(size=(3, 5))
    _, gamma, beta, _ = draw((2, 3))
    b = rng.normal(size=3) if bias else None
    mean, var = rng.normal(size=3), rng.uniform(0.1, 2, 3)
    x = u @ weight.T + (0 if b is None else b)
    expected = batch_norm_inference(x, mean, var, gamma, beta)
    new_weight, new_bias = fold(weight, b, mean, var, gamma, beta)
    np.testing.assert_allclose(u @ new_weight.T + new_bias, expected, atol=1e-12)


def test_folding_changes_nothing_convolution():
    rng = np.random.default_rng(0)
    conv = torch.nn.Conv2d(2, 4, 3).double()
    image = torch.tensor(rng.normal(size=(2, 2, 6, 6)))
    _, gamma, beta, _ = draw((2, 4))
    mean, var = rng.normal(size=4), rng.uniform(0.1, 2, 4)
    weight, bias = (v.detach().numpy() for v in (conv.weight, conv.bias))
    expected = batch_norm_inference(conv(image).detach().numpy(), mean, var, gamma, beta)
    new_weight, new_bias = fold(weight, bias, mean, var, gamma, beta)
    got = torch.nn.functional.conv2d(image, torch.tensor(new_weight), torch.tensor(new_bias))
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_folding_float32_and_float16_keep_their_dtype():
    for dtype, parameter in (np.float32, np.float32), (np.float16, np.float32):
        new_weight, new_bias = fold(
            np.ones((2, 3), dtype), None, np.zeros(2), np.ones(2), np.ones(2, parameter)
        )
        assert new_weight.dtype == dtype and new_bias.dtype == parameter


# Bad input: each message names the argument, what it was, and what was expected.

X = np.zeros((4, 3), np.float32)
V = np.ones(3, np.float32)

BAD_TRAIN = [
    (TypeError, "x is a list; expected a NumPy array", [[1.0]], {}),
    (
        TypeError,
        "x has dtype int64; expected float16, float32 or float64",
        np.zeros((4, 3), int),
        {},
    ),
    (TypeError, "x has dtype complex128; expected float16", np.zeros((4, 3), complex), {}),
    (ValueError, r"x has shape \(4,\); expected \(N, C\) or", np.zeros(4), {}),
    (ValueError, r"x has shape \(4, 0\); expected at least one channel", np.zeros((4, 0)), {}),
    (ValueError, r"x has shape \(1, 3\), one value per channel", np.zeros((1, 3)), {}),
    (ValueError, r"x has shape \(1, 3, 1, 1\), one value", np.zeros((1, 3, 1, 1)), {}),
    (ValueError, "eps is 0; expected a positive number", X, {"eps": 0}),
    (ValueError, "eps is -1e-05; expected a positive number", X, {"eps": -1e-5}),
    (ValueError, "eps is inf; expected a positive number", X, {"eps": float("inf")}),
    (TypeError, "x is a matrix; expected a NumPy array", np.ones((2, 2)).view(np.matrix), {}),
    (TypeError, "x is a MaskedArray; expected a NumPy array", np.ma.ones((4, 3)), {}),
    (ValueError, "eps is nan; expected a positive number", X, {"eps": float("nan")}),
    (TypeError, "gamma has dtype float64; expected float32", X, {"gamma": np.ones(3)}),
    (TypeError, "beta has dtype float64; expected float32", X, {"beta": np.ones(3)}),
    (ValueError, r"gamma has shape \(3, 1\); expected \(3,\)", X, {"gamma": V[:, None]}),
    (ValueError, r"gamma has shape \(1, 3\); expected \(3,\)", X, {"gamma": V[None]}),
    (ValueError, r"beta has shape \(5,\); expected \(3,\)", X, {"beta": np.ones(5, np.float32)}),
    (TypeError, "gamma is a float; expected a NumPy array", X, {"gamma": 1.0}),
]


@pytest.mark.parametrize("error, message, x, arguments", BAD_TRAIN)
def test_bad_input_in_training(error, message, x, arguments):
    with pytest.raises(error, match=message):
        batch_norm_train(x, **arguments)


@pytest.mark.parametrize(
    "error, message, dy",
    [
        (ValueError, r"dy has shape \(4, 2\); expected \(4, 3\)", np.zeros((4, 2), np.float32)),
        (TypeError, "dy has dtype float64; expected float32", np.zeros((4, 3))),
        (TypeError, "dy is a list", [[0.0]]),
    ],
)
def test_bad_input_in_the_backward_pass(error, message, dy):
    with pytest.raises(error, match=message):
        batch_norm_backward(dy, batch_norm_train(X)[1])


@pytest.mark.parametrize(
    "message, mean, var",
    [
        (r"mean has shape \(5,\); expected \(3,\)", np.zeros(5), V),
        (r"var has shape \(5,\); expected \(3,\)", V, np.ones(5)),
        (r"var\[1\] is -1.0; expected 0 or more", V, np.array([1.0, -1, 1])),
        (r"var\[2\] is nan; expected 0 or more", V, np.array([1.0, 1, np.nan])),
    ],
)
def test_bad_statistics(message, mean, var):
    with pytest.raises(ValueError, match=message):
        batch_norm_inference(X, mean, var)
    with pytest.raises(ValueError, match=message):
        fold(np.ones((3, 2)), None, mean, var)


def test_bad_input_of_inference():
    for name in "gamma", "beta":
        with pytest.raises(TypeError, match=f"{name} has dtype float64; expected float32"):
            batch_norm_inference(X, V, V, **{name: np.ones(3)})
    with pytest.raises(ValueError, match="eps is 0; expected a positive number"):
        batch_norm_inference(X, V, V, eps=0)
    with pytest.raises(TypeError, match="mean has dtype int64"):
        batch_norm_inference(X, np.ones(3, int), V)


def test_bad_input_of_fold():
    with pytest.raises(ValueError, match="eps is -1; expected a positive number"):
        fold(np.ones((3, 2)), None, np.ones(3), np.ones(3), eps=-1)
    with pytest.raises(TypeError, match="weight has dtype int64"):
        fold(np.ones((3, 2), int), None, np.ones(3), np.ones(3))
    for name in "gamma", "beta":
        with pytest.raises(TypeError, match=f"{name} has dtype float32; expected float64"):
            fold(np.ones((3, 2)), None, np.ones(3), np.ones(3), **{name: V})
    with pytest.raises(ValueError, match=r"weight has shape \(3,\); expected \(C, \.\.\.\)"):
        fold(V, None, V, V)
    with pytest.raises(ValueError, match=r"bias has shape \(2,\); expected \(3,\)"):
        fold(np.ones((3, 2)), np.ones(2), V, V)


@pytest.mark.parametrize("shape", [(0, 3), (4, 3, 0)])
@pytest.mark.filterwarnings("error")
def test_an_empty_batch(shape):
    x = np.zeros(shape, np.float32)
    y, cache = batch_norm_train(x, V, V)
    dx, dgamma, dbeta = batch_norm_backward(x, cache)
    assert y.shape == dx.shape == shape and cache.count == 0
    assert (dgamma == 0).all() and (dbeta == 0).all()
    assert batch_norm_inference(x, V, V).shape == shape
    stats = bnlib.RunningStats(3)
    stats.update(cache.mean, cache.var, cache.count)
    assert stats.batches == 0 and (stats.mean == 0).all() and (stats.var == 1).all()
