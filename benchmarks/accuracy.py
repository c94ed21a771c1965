"""How far from the exact values BatchNorm ends up, on inputs that are hard.

The largest error in y and dx, in units of the scale that tests/oracle.py defines for each channel:
1e-7 is the rounding of float32, 1 means that no digit is right. The exact values are those of the
input as it stands, in float16 or bfloat16, too; an error there is counted beyond the rounding of
the result. What is neither NumPy's nor torch's own (the textbook formulas, JAX) is given a float16
input in float32.

    make bench ONLY=accuracy [RECORD=1]
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from contestants import (
    BLOCKED,
    BNLIB_OUT,
    LAST,
    RECORDS,
    BnlibNumpy,
    Torch,
    circumstances,
    contestants,
)

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import oracle  # noqa: E402


@dataclass
class Case:
    """x and dy in float64, to be rounded to the dtype; None instead of dy for inference."""

    x: np.ndarray
    dy: np.ndarray | None
    eps: float = 1e-5
    dtype: str = "float32"


def cases() -> Iterator[tuple[str, Case]]:
    """The hard cases by name."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal
    batch, images = (256, 64), (16, 16, 14, 14)

    def case(x: np.ndarray, **options: Any) -> Case:
        return Case(x, normal(x.shape), **options)

    yield "standard normal", case(normal(batch))
    yield "mean 1e2", case(1e2 + normal(batch))
    yield "mean 1e4", case(1e4 + normal(batch))
    yield "mean 1e4, std 1e-2", case(1e4 + 1e-2 * normal(batch))
    yield "mean 1e6", case(1e6 + normal(batch))
    yield "a million rows", case(normal((1_000_000, 3)))
    yield "constant 10000/3", case(np.full(batch, 10000 / 3))
    yield "mean 1, std 1e-4, eps 1e-12", case(1 + 1e-4 * normal(batch), eps=1e-12)
    yield "x of 1e20", case(1e20 * normal(batch))
    yield "x up to the largest float32", case(rng.choice([-3.4e38, 3.4e38], batch))
    yield "x below the normal numbers, 1e-40", case(1e-40 * normal(batch), eps=1e-30)
    yield "two rows, mean 1e3, 1e-3 apart", case(1e3 + 1e-3 * normal((2, 64)))
    yield "channels from 1e-20 to 1e20", case(np.logspace(-20, 20, 64) * normal(batch), eps=1e-30)
    yield "one value of 1e6", case(normal(batch) + 1e6 * (np.arange(256) == 7)[:, None])
    yield "mean 1e4, dy with mean 1e4", Case(1e4 + normal(batch), 1e4 + normal(batch))
    yield "images, mean 1e4", case(1e4 + normal(images))
    last = np.moveaxis(1e4 + normal((16, 14, 14, 16)), -1, 1)
    yield "images, channels last, mean 1e4", Case(last, np.copy(last, "K") - 1e4)
    yield "float16 images, mean 1e3", case(1e3 + normal(images), dtype="float16")
    yield "bfloat16 images, mean 1e2", case(1e2 + normal(images), dtype="bfloat16")
    yield "inference, mean 1e4, std 1e-2", Case(1e4 + 1e-2 * normal(batch), None)
    yield "inference, images, mean 1e4", Case(1e4 + normal(images), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--record", action="store_true", help=f"write {RECORDS / 'accuracy.json'}")
    kinds.add_argument("--quick", action="store_true", help="a few of the cases")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # overflow is what is shown here
    takers = {name: v for name, v in contestants(1) if name not in (BNLIB_OUT, LAST, BLOCKED)}
    results = []
    for name, case in list(cases())[2::6] if arguments.quick else cases():
        for contestant, taker in takers.items():
            errors = measure(case, taker)
            if errors is not None:
                results.append({"case": name, "contestant": contestant} | errors)
    record = circumstances() | {"promise": oracle.PROMISE, "results": results}
    show(record)
    if arguments.record:
        (RECORDS / "accuracy.json").write_text(json.dumps(record, indent=1) + "\n")


def measure(case: Case, taker: Any) -> dict[str, float | None] | None:
    """The errors of y and dx, with None for what is not a number; None for what is not taken."""
    rng = np.random.default_rng(1)
    gamma, beta = (rng.standard_normal(case.x.shape[1], np.float32) for _ in range(2))
    x, exact_x, rounding = rounded(case.x, case.dtype, taker)
    if x is None:
        return None
    if case.dy is None:
        others = (0, *range(2, x.ndim))
        mean, var = (np.float32(v) for v in (case.x.mean(others), case.x.var(others)))
        value, scale = oracle.inference(exact_x, mean, var, gamma, beta, case.eps)
        results = [taker.infer(x, mean, var, gamma, beta, case.eps)()]
    else:
        dy, exact_dy, _ = rounded(case.dy, case.dtype, taker)
        value, scale = oracle.train(exact_x, gamma, beta, exact_dy, case.eps)
        results = taker.step(x, gamma, beta, dy, case.eps)()
    errors = {}
    for name, got in zip(("y", "dx"), results, strict=False):
        got = got.double() if case.dtype == "bfloat16" else got
        error = oracle.error(np.asarray(got), getattr(value, name), getattr(scale, name), rounding)
        errors[name] = error if math.isfinite(error) else None
    return errors


def rounded(v: np.ndarray, dtype: str, taker: Any) -> tuple[Any, np.ndarray, Any]:
    """v as the contestant takes it (None if it does not), as an exact array, and what rounds it."""
    if dtype == "bfloat16":
        if not isinstance(taker, Torch):
            return None, v, None
        import torch

        tensor = torch.from_numpy(v).bfloat16()
        return tensor, tensor.double().numpy(), oracle.BFLOAT16
    exact = v.astype(dtype)
    if dtype == "float16" and not isinstance(taker, (BnlibNumpy, Torch)):
        return exact.astype(np.float32), exact, oracle.limits(dtype)
    return exact, exact, oracle.limits(dtype)


def show(record: dict) -> None:
    """y and dx of each contestant, a case a line."""
    print(record["machine"], record["versions"], record["date"])
    results = record["results"]
    names = list(dict.fromkeys(row["contestant"] for row in results))
    for output in "y", "dx":
        print(
            f"\nlargest error of {output} in units of its scale; the promise is {record['promise']}"
        )
        print(f"{'':35}" + "".join(f"{name:>19}" for name in names))
        for case in dict.fromkeys(row["case"] for row in results if output in row):
            cells = {r["contestant"]: r for r in results if r["case"] == case}
            print(f"{case:35}" + "".join(cell(cells.get(name), output) for name in names))


def cell(row: dict | None, output: str) -> str:
    if row is None:
        return f"{'–':>19}"
    error = row[output]
    return f"{'no number' if error is None else format(error, '.0e') if error else '0':>19}"


if __name__ == "__main__":
    main()
