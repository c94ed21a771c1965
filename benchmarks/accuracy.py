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
from cases import Case, recorded  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--record", action="store_true", help=f"write {RECORDS / 'accuracy.json'}")
    kinds.add_argument("--quick", action="store_true", help="a few of the cases")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=RuntimeWarning)  # overflow is what is shown here
    takers = {name: v for name, v in contestants(1) if name not in (BNLIB_OUT, LAST, BLOCKED)}
    results = []
    cases = list(recorded(np.random.default_rng(0)).items())
    for name, case in cases[2::6] if arguments.quick else cases:
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
    if case.dtype == "bfloat16" and not isinstance(taker, Torch):
        return None
    x = given(case.x, case.dtype, taker)
    gamma, beta, eps = case.gamma, case.beta, case.eps
    if case.dy is None:
        others = (0, *range(2, x.ndim))
        mean, var = np.float32([case.x.mean(others, float), case.x.var(others, float)])
        value, scale = oracle.inference(case.x, mean, var, gamma, beta, eps)
        results = [taker.infer(x, mean, var, gamma, beta, eps)()]
    else:
        value, scale = oracle.train(case.x, gamma, beta, case.dy, eps)
        results = taker.step(x, gamma, beta, given(case.dy, case.dtype, taker), eps)()
    rounding = oracle.BFLOAT16 if case.dtype == "bfloat16" else oracle.limits(case.dtype)
    errors = {}
    for name, got in zip(("y", "dx"), results, strict=False):
        got = got.double() if case.dtype == "bfloat16" else got
        error = oracle.error(np.asarray(got), getattr(value, name), getattr(scale, name), rounding)
        errors[name] = error if math.isfinite(error) else None
    return errors


def given(v: np.ndarray, dtype: str, taker: Any) -> Any:
    """x or dy as the contestant takes it."""
    if dtype == "bfloat16":
        import torch

        return torch.from_numpy(v).bfloat16()
    if dtype == "float16" and not isinstance(taker, (BnlibNumpy, Torch)):
        return v.astype(np.float32)
    return v


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
