"""The kernels of bnlib.torch.triton: on a GPU, or without one in Triton's interpreter.

The interpreter has to be chosen before Triton is imported, and then stays for good: it has a
process of its own. That process imports this module, which therefore imports little.
"""

import functools
import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from cases import Case

GPU = torch.cuda.is_available()
HERE = GPU or os.environ.get("TRITON_INTERPRET") == "1"
TRITON = importlib.util.find_spec("triton") is not None
Results = dict[str, np.ndarray | None]


@functools.cache
def process(interpreter: bool) -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, initializer=choose, initargs=[interpreter])


def choose(interpreter: bool) -> None:
    os.environ["TRITON_INTERPRET"] = str(int(interpreter))
    torch.set_num_threads(1)  # a process with more must not fork


def run_there(function: Any, *arguments: Any) -> Any:
    """function(*arguments) in the process where Triton is what it has to be."""
    if HERE:
        return function(*arguments)
    return process(True).submit(function, *arguments).result(timeout=300)


def train(single_read: bool | None, case: Case) -> Results:
    """y, dx, dgamma, dbeta, mean and biased var, by name."""
    from bnlib.torch import triton

    given, read = on_device(case), {"single_read": single_read}
    x, gamma, beta, dy = map(given.get, ("x", "gamma", "beta", "dy"))
    y, mean, var = triton.train(x, gamma, beta, case.eps, **read)
    dx, dgamma, dbeta, _ = triton.backward(dy, x, mean, var, gamma, case.eps, **read)
    results = {"y": y, "dx": dx, "dgamma": dgamma, "dbeta": dbeta, "mean": mean, "var": var}
    return {name: as_array(v) for name, v in results.items()}


def infer(case: Case, *stats: np.ndarray) -> Results:
    from bnlib.torch import triton

    given = on_device(case)
    mean, var = (torch.from_numpy(v).to(given["x"].device) for v in stats)
    parameters = given.get("gamma"), given.get("beta")
    return {"y": as_array(triton.inference(given["x"], mean, var, *parameters, case.eps))}


def on_device(case: Case) -> dict[str, torch.Tensor]:
    return {name: v.cuda() if GPU else v for name, v in tensors(case).items()}


def tensors(case: Case) -> dict[str, torch.Tensor]:
    """x, gamma, beta and dy, those that there are; the same memory where torch can have it."""
    found = {}
    for name in "x", "gamma", "beta", "dy":
        v = getattr(case, name)
        if v is not None:
            shared = v.flags.writeable and min(v.strides) >= 0
            v = torch.from_numpy(v if shared else v.copy())
            half = case.dtype == "bfloat16" and name in ("x", "dy")
            found[name] = v.bfloat16() if half else v
    return found


def as_array(v: torch.Tensor) -> np.ndarray:
    return (v.double() if v.dtype == torch.bfloat16 else v).detach().cpu().numpy()
