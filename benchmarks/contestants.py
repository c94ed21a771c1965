"""Who takes part in the benchmarks, behind one face.

A contestant is made ready for arrays that it may convert first, and then runs on them as often as
one likes: `step` is a training step, forward and backward, `infer` is inference. Torch and JAX come
in only where they are installed.
"""

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import bnlib
from bnlib import steps

RECORDS = Path(bnlib.__file__).parent / "records"


class BnlibNumpy:
    """bnlib on arrays, with fresh arrays for the results."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        def run() -> Any:
            y, cache = bnlib.batch_norm_train(x, gamma, beta, eps=eps, threads=self.threads)
            return y, *bnlib.batch_norm_backward(dy, cache, threads=self.threads)

        return run

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        return lambda: bnlib.batch_norm_inference(
            x, mean, var, gamma, beta, eps=eps, threads=self.threads
        )


class BnlibNumpyOut(BnlibNumpy):
    """bnlib on arrays, with the same arrays for the results each time."""

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        y, dx, threads = np.empty_like(x), np.empty_like(x), self.threads

        def run() -> Any:
            _, cache = bnlib.batch_norm_train(x, gamma, beta, eps=eps, out=y, threads=threads)
            return y, *bnlib.batch_norm_backward(dy, cache, out=dx, threads=threads)

        return run

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        y = np.empty_like(x)
        return lambda: bnlib.batch_norm_inference(
            x, mean, var, gamma, beta, eps=eps, out=y, threads=self.threads
        )


class Textbook:
    """One operation a line, as `bnlib.steps` and the CS231n assignment have it, for (N, C).

    An image is brought into that form and back: each position is an example.
    """

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        def run() -> Any:
            y, cache = steps.forward(rows(x), gamma, beta, eps)
            dx, dgamma, dbeta, _ = steps.backward(rows(dy), cache)
            return like(y, x), like(dx, x), dgamma, dbeta

        return run

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        def run() -> Any:
            x_hat = (rows(x) - mean) / np.sqrt(var + eps)
            return like(gamma * x_hat + beta, x)

        return run


class ClosedForm:
    """The closed form in plain NumPy, over the axes of x as they are."""

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        others, columns = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        m = x.size // x.shape[1]
        gamma, beta = gamma.reshape(columns), beta.reshape(columns)

        def run() -> Any:
            mean, var = self.statistics(x, others)
            inv_std = 1 / np.sqrt(var + x.dtype.type(eps))
            x_hat = (x - mean) * inv_std
            y = gamma * x_hat + beta
            dbeta = dy.sum(others, keepdims=True)
            dgamma = (dy * x_hat).sum(others, keepdims=True)
            dx = gamma * inv_std * (dy - dbeta / m - x_hat * dgamma / m)
            return y, dx, dgamma.reshape(-1), dbeta.reshape(-1)

        return run

    def statistics(self, x: Any, others: tuple[int, ...]) -> Any:
        return x.mean(others, keepdims=True), x.var(others, keepdims=True)

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        columns = (1, -1, *[1] * (x.ndim - 2))
        mean, var, gamma, beta = (v.reshape(columns) for v in (mean, var, gamma, beta))
        return lambda: gamma * ((x - mean) / np.sqrt(var + eps)) + beta


class OnePass(ClosedForm):
    """The same with σ² = E[x²] − E[x]²; in inference y = a x + b, as deployment folds it."""

    def statistics(self, x: Any, others: tuple[int, ...]) -> Any:
        mean = x.mean(others, keepdims=True)
        return mean, (x * x).mean(others, keepdims=True) - mean * mean

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        columns = (1, -1, *[1] * (x.ndim - 2))
        a = gamma / np.sqrt(var + eps)
        a, b = a.reshape(columns), (beta - a * mean).reshape(columns)
        return lambda: a * x + b


class Torch:
    """A function with the signature of torch.nn.functional.batch_norm, through autograd."""

    def __init__(self, batch_norm: Callable[..., Any]) -> None:
        self.batch_norm = batch_norm

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        import torch

        leaves = [as_tensor(v).requires_grad_() for v in (x, gamma, beta)]
        dy = as_tensor(dy)

        def run() -> Any:
            x, weight, bias = leaves
            y = self.batch_norm(x, None, None, weight, bias, True, 0.1, eps)
            return y.detach(), *torch.autograd.grad(y, leaves, dy)

        return run

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        import torch

        tensors = [as_tensor(v) for v in (x, mean, var, gamma, beta)]

        @torch.no_grad()
        def run() -> Any:
            return self.batch_norm(*tensors, False, 0.1, eps)

        return run


class TorchLast(Torch):
    """The same on images whose channels lie last in memory."""

    def step(self, x: Any, *others: Any) -> Callable[[], Any]:
        import torch

        *parameters, dy, eps = others
        x, dy = (as_tensor(v).contiguous(memory_format=torch.channels_last) for v in (x, dy))
        return super().step(x, *parameters, dy, eps)

    def infer(self, x: Any, *others: Any) -> Callable[[], Any]:
        import torch

        return super().infer(as_tensor(x).contiguous(memory_format=torch.channels_last), *others)


class TorchBlocked(Torch):
    """The same on images in the layout of oneDNN's convolutions: some channels side by side."""

    def step(self, x: Any, *others: Any) -> Callable[[], Any]:
        *parameters, dy, eps = others
        return super().step(in_blocks(x), *parameters, in_blocks(dy), eps)

    def infer(self, x: Any, *others: Any) -> Callable[[], Any]:
        return super().infer(in_blocks(x), *others)


class Jax:
    """The formulas in jax.numpy, differentiated and compiled by JAX."""

    def step(self, x: Any, gamma: Any, beta: Any, dy: Any, eps: float) -> Callable[[], Any]:
        import jax

        @jax.jit
        def both(x: Any, gamma: Any, beta: Any, dy: Any) -> Any:
            y, backward = jax.vjp(lambda *v: self.batch_norm(*v, eps), x, gamma, beta)
            return y, *backward(dy)

        arrays = [jax.numpy.asarray(v) for v in (x, gamma, beta, dy)]
        return lambda: jax.block_until_ready(both(*arrays))

    def infer(
        self, x: Any, mean: Any, var: Any, gamma: Any, beta: Any, eps: float
    ) -> Callable[[], Any]:
        import jax

        columns = (1, -1, *[1] * (x.ndim - 2))

        @jax.jit
        def normalize(x: Any, *vectors: Any) -> Any:
            mean, var, gamma, beta = (v.reshape(columns) for v in vectors)
            return gamma * (x - mean) * jax.lax.rsqrt(var + eps) + beta

        arrays = [jax.numpy.asarray(v) for v in (x, mean, var, gamma, beta)]
        return lambda: jax.block_until_ready(normalize(*arrays))

    @staticmethod
    def batch_norm(x: Any, gamma: Any, beta: Any, eps: float) -> Any:
        import jax

        others, columns = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        x_hat = (x - x.mean(others, keepdims=True)) * jax.lax.rsqrt(
            x.var(others, keepdims=True) + eps
        )
        return gamma.reshape(columns) * x_hat + beta.reshape(columns)


BNLIB = "bnlib NumPy"
BNLIB_OUT = "bnlib NumPy, out="
BNLIB_TORCH = "bnlib torch"
NATIVE = "torch native"
LAST = "torch, channels last"
BLOCKED = "torch, oneDNN blocks"
COMPILED = "torch.compile"
TEXTBOOK = "textbook steps"
CLOSED = "closed form"
ONE_PASS = "one-pass variance"
JAX = "JAX jit"


def contestants(threads: int) -> Iterator[tuple[str, Any]]:
    """All that are installed here, by name."""
    yield BNLIB, BnlibNumpy(threads)
    yield BNLIB_OUT, BnlibNumpyOut(threads)
    if find_spec("torch"):
        import torch

        import bnlib.torch

        torch.set_num_threads(threads)
        native = torch.nn.functional.batch_norm
        yield BNLIB_TORCH, Torch(bnlib.torch.batch_norm)
        yield NATIVE, Torch(native)
        yield LAST, TorchLast(native)
        if torch.backends.mkldnn.is_available():
            yield BLOCKED, TorchBlocked(native)
        if shutil.which("g++") or shutil.which("clang++"):
            torch._dynamo.config.recompile_limit = 1000  # each shape and eps is compiled anew
            yield (
                COMPILED,
                Torch(torch.compile(lambda *arguments: native(*arguments), dynamic=False)),
            )
    yield TEXTBOOK, Textbook()
    yield CLOSED, ClosedForm()
    yield ONE_PASS, OnePass()
    if find_spec("jax"):
        yield JAX, Jax()


def rows(x: np.ndarray) -> np.ndarray:
    """(N, C, *spatial) as (N·S, C)."""
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def like(v: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(N·S, C) in the shape of x."""
    if x.ndim == 2:
        return v
    return np.ascontiguousarray(np.moveaxis(v.reshape(len(x), *x.shape[2:], -1), -1, 1))


def as_tensor(v: Any) -> Any:
    import torch

    return v.detach().clone() if isinstance(v, torch.Tensor) else torch.from_numpy(v)


def in_blocks(x: np.ndarray) -> Any:
    """What a convolution of oneDNN that changes nothing makes of x."""
    import torch

    one = torch.eye(x.shape[1]).reshape(x.shape[1], x.shape[1], 1, 1)
    tensors = torch.from_numpy(x).to_mkldnn(), one.to_mkldnn()
    return torch.mkldnn_convolution(*tensors, None, (0, 0), (1, 1), (1, 1), 1)


def circumstances() -> dict[str, Any]:
    """The machine, the versions and the day, for a record."""
    versions = {"python": platform.python_version()}
    for name in "numpy", "torch", "jax":
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"machine": machine(), "versions": versions, "date": date.today().isoformat()}


def machine() -> str:
    """Processor and number of cores."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return f"{name}, {os.cpu_count()} cores"
