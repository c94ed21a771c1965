"""Every way in which bnlib computes a BatchNorm, by name, behind one face."""

import contextlib
import datetime
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import kernels
import numpy as np
import pytest
import torch
import torch.distributed as dist
from cases import IMAGES, ROWS, Case
from kernels import GPU, TRITON, Results, as_array, run_there, tensors
from torch.utils._python_dispatch import TorchDispatchMode

import bnlib
from bnlib import blocks
from bnlib.torch import backend_for, batch_norm
from bnlib.torch.distributed import sync_batch_norm


class Path(NamedTuple):
    """What takes a case, and gives arrays by name, those of bfloat16 in float64.

    Attributes:
        train: (case) → y, dx, dgamma, dbeta, mean and biased var, or those that the path has.
        infer: (case, mean, var) → y, and where it can be differentiated dx, dgamma and dbeta; None
            where inference is that of another path.
        takes: whether it takes a case; what is slow does without the large ones.
    """

    train: Callable[[Case], Results]
    infer: Callable[[Case, np.ndarray, np.ndarray], Results] | None
    takes: Callable[[Case], bool]


def small(case: Case) -> bool:
    return case.x.size <= 60_000


# Arrays

TINY = {"_PIECE": 8, "_CACHE": 200, "_ROW": 20, "_ROWS": 4, "_ALONE": 0}
ENGINES = "compiled", "NumPy", "compiled, tiny pieces", "NumPy, tiny pieces"


@contextlib.contextmanager
def engine(name: str) -> Iterator[None]:
    """One of ENGINES computes."""
    with pytest.MonkeyPatch.context() as patch:
        for size, value in TINY.items() if "tiny" in name else ():
            patch.setattr(blocks, size, value)
        if name.startswith("NumPy"):
            patch.setattr(blocks, "engine", lambda: (blocks.interpreted, "a test"))
        blocks.layout.cache_clear()
        yield
    blocks.layout.cache_clear()


def of_arrays(name: str, threads: int = 1) -> Path:
    def train(case: Case) -> Results:
        with engine(name):
            y, cache = bnlib.batch_norm_train(
                case.x, case.gamma, case.beta, eps=case.eps, threads=threads
            )
            dx, dgamma, dbeta = bnlib.batch_norm_backward(case.dy, cache, threads=threads)
        sums = {"dgamma": dgamma, "dbeta": dbeta, "mean": cache.mean, "var": cache.var}
        return {"y": y, "dx": dx} | sums

    def infer(case: Case, mean: np.ndarray, var: np.ndarray) -> Results:
        parameters = {"gamma": case.gamma, "beta": case.beta, "eps": case.eps}
        with engine(name):
            y = bnlib.batch_norm_inference(case.x, mean, var, **parameters, threads=threads)
        return {"y": y}

    slow = "tiny" in name or threads > 1
    return Path(train, infer, lambda c: c.dtype != "bfloat16" and (small(c) or not slow))


# Tensors


def eager(function: Any, leaves: Any, dy: Any, create_graph: bool = False) -> Any:
    leaves = [v.detach().requires_grad_() for v in leaves]
    y = function(*leaves)
    return y, *torch.autograd.grad(y, leaves, dy, create_graph=create_graph)


def differentiable(function: Any, leaves: Any, dy: Any) -> Any:
    return eager(function, leaves, dy, create_graph=True)


class Watch(TorchDispatchMode):
    """Sees each operation, so that there has to be one."""

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return function(*arguments, **(options or {}))


def operations(function: Any, leaves: Any, dy: Any) -> Any:
    with Watch():
        assert backend_for(dy).name == "torch"
        return eager(function, leaves, dy)


def functional(function: Any, leaves: Any, dy: Any) -> Any:
    y, pull = torch.func.vjp(function, *leaves)
    return y, *pull(dy)


def mapped(function: Any, leaves: Any, dy: Any) -> Any:
    """The mini-batch twice, under vmap."""
    x, *parameters = leaves
    twice = torch.vmap(lambda x, dy: functional(function, [x, *parameters], dy))
    return [v[1] for v in twice(torch.stack([x, x]), torch.stack([dy, dy]))]


def compiled(function: Any, leaves: Any, dy: Any) -> Any:
    return eager(torch.compile(function, fullgraph=True), leaves, dy)


def of_tensors(
    differentiate: Any, following: bool = True, takes: Callable[[Case], bool] = small
) -> Path:
    """mean and var are those of the running statistics, if they are following."""

    def run(case: Case, mean: Any, var: Any, training: bool) -> Results:
        given = tensors(case)
        dy = given.pop("dy", None)
        has_gamma, has_beta, eps = "gamma" in given, "beta" in given, case.eps

        def function(x, *parameters):
            weight = parameters[0] if has_gamma else None
            bias = parameters[-1] if has_beta else None
            return batch_norm(x, mean, var, weight, bias, training, 1.0, eps)

        if dy is None:
            return {"y": as_array(function(*given.values()))}
        y, *gradients = differentiate(function, given.values(), dy)
        named = zip(given, gradients, strict=True)
        return {"y": as_array(y)} | {f"d{name}": as_array(v) for name, v in named}

    def train(case: Case) -> Results:
        if not following:
            return run(case, None, None, True)
        mean, var = torch.zeros(2, case.x.shape[1], dtype=torch.float64)
        results = run(case, mean, var, True)
        return results | {"mean": mean.numpy(), "var": var.numpy() * biased(case)}

    def infer(case: Case, mean: np.ndarray, var: np.ndarray) -> Results:
        return run(case, torch.from_numpy(mean), torch.from_numpy(var), False)

    return Path(train, infer, takes)


def biased(case: Case) -> float:
    """(m − 1)/m: the biased variance over the running one."""
    m = case.x.size // case.x.shape[1]
    return (m - 1) / m


def compiled_once(case: Case) -> bool:
    """What most cases are; each other would take the compiler ten seconds more."""
    usual = case.x.shape in (ROWS, IMAGES) and case.x.flags.c_contiguous and case.dy is not None
    return usual and case.dtype == "float32" and case.eps == 1e-5


# Ranks


def on_two_ranks(function: Callable[[int, Any], Any]) -> list[Any]:
    """function(rank, group) on two threads, each with its end of a group of gloo."""
    ends, limit = dist.HashStore(), datetime.timedelta(seconds=30)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

    def run(rank: int) -> Any:
        return function(rank, dist.ProcessGroupGloo(ends, rank, 2, limit))

    try:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(run, range(2)))
    finally:
        dist.destroy_process_group()


def can_be_split(case: Case) -> bool:
    """Derivatives of the parameters can be added: float32 holds those of each part.

    And a mean of float64 that is rounded to it, as the merged one is, has a variance beside eps.
    """
    if case.dy is None or not small(case):
        return False
    sums = 1e-20 < float(abs(case.dy).max()) < 1e36
    return sums and not (case.dtype == "float64" and case.eps < 1e-30)


def train_synchronized(case: Case) -> Results:
    """The first rank has a third of the rows."""
    given = tensors(case)
    n = len(case.x)
    stats = torch.zeros(2, 2, case.x.shape[1], dtype=torch.float64)  # of each rank

    def run(rank: int, group: Any) -> dict[str, torch.Tensor]:
        x, dy = (given[name].split([n // 3, n - n // 3])[rank] for name in ("x", "dy"))
        leaves = {name: v.detach().requires_grad_() for name, v in (given | {"x": x}).items()}
        del leaves["dy"]
        vectors = leaves.get("gamma"), leaves.get("beta")
        y = sync_batch_norm(leaves["x"], *stats[rank], *vectors, True, 1.0, case.eps, group=group)
        gradients = torch.autograd.grad(y, list(leaves.values()), dy)
        return {"y": y} | {f"d{name}": v for name, v in zip(leaves, gradients, strict=True)}

    first, second = on_two_ranks(run)
    assert torch.equal(*stats)
    results = {
        name: torch.cat([v, second[name]]) if v.ndim > 1 else v.double() + second[name]
        for name, v in first.items()
    }
    results |= {"mean": stats[0, 0], "var": stats[0, 1] * biased(case)}
    return {name: as_array(v) for name, v in results.items()}


def of_kernels(single_read: bool | None) -> Path:
    train = functools.partial(run_there, kernels.train, single_read)
    infer = functools.partial(run_there, kernels.infer) if single_read is None else None
    return Path(train, infer, within_float32)


def within_float32(case: Case) -> bool:
    """What the kernels promise: their factors of x and dy are normal numbers of float32.

    Of float64, K has to be near the mean. The interpreter is slow, and cuts bfloat16 off instead of
    rounding it.
    """
    others = (0, *range(2, case.x.ndim))
    x = case.x.astype(np.float64)
    inv_std = 1 / np.sqrt(x.var(others) + case.eps)
    slope = inv_std * (1 if case.gamma is None else abs(case.gamma))
    first = x[0].reshape(x.shape[1], -1)[:, 0]
    near = case.dtype != "float64" or (abs(first - x.mean(others)) * inv_std < 100).all()
    small = GPU or case.x.size <= 17_000 and case.dtype != "bfloat16"
    held = slope.min() > 1e-37 and (case.dy is None or abs(case.dy).max() < np.float32(1e38))
    return bool(near and small and held)


PATHS = {name: of_arrays(name) for name in ENGINES}
PATHS |= {f"{name}, two threads": of_arrays(name, 2) for name in ENGINES}
PATHS |= {
    "torch": of_tensors(eager, takes=lambda c: True),
    "torch, to be differentiated again": of_tensors(differentiable),
    "torch, in operations": of_tensors(operations),
    "torch.func": of_tensors(functional),
    "vmap": of_tensors(mapped, following=False),
    "torch.compile": of_tensors(compiled, takes=compiled_once),
    "synchronized": Path(train_synchronized, None, can_be_split),
}
if TRITON:
    PATHS |= {"Triton, one kernel": of_kernels(None), "Triton, several": of_kernels(False)}
