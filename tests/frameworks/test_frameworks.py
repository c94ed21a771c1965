"""Frameworks do what bnlib/frameworks.json records of them, from where the book quotes it.

`make frameworks` sets up their environments, each with its own Python, and runs this; with
`ONLY="mlx paddle"` some of them. `RECORD=1` writes down what is measured.
"""

import datetime
import functools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from remote import ENVIRONMENTS, HERE, ROWS, Framework, folder

from bnlib.conventions import CONVENTIONS, convert, measure

RECORD = ROOT / "bnlib" / "frameworks.json"
# The rows to measure: chosen by name, or all whose environment could be made.
CHOSEN = os.environ.get("FRAMEWORKS", "").split()
if CHOSEN == ["all"]:
    CHOSEN = [k for k, v in ROWS.items() if (folder(v["environment"]) / "complete").exists()]
APART = "names", "momentum_weighs", "unknown"  # of what is measured; the rest are a row's facts


@pytest.fixture(scope="module", params=CHOSEN)
def row(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def framework(row: str) -> Iterator[Framework]:
    running = Framework.row(row)
    yield running
    running.close()


def versions(row: str) -> str:
    """Such as "keras 3.15.1, torch 2.13.0": all are pinned."""
    packages = ENVIRONMENTS[ROWS[row]["environment"]]["packages"]
    pins = dict(re.fullmatch(r"([\w-]+)(?:\[.*\])?==(.*)", pin).groups() for pin in packages)
    return ", ".join(f"{name} {pins[name]}" for name in ROWS[row]["of"])


def record(row: str, **what: Any) -> dict[str, Any]:
    """The row as it is recorded; with BNLIB_RECORD, after `what` has been written into it."""
    rows = json.loads(RECORD.read_text())
    if os.environ.get("BNLIB_RECORD"):
        rows.setdefault(row, {}).update(what)
        RECORD.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    return rows[row]


def test_each_row_of_the_record_says_how_it_is_known() -> None:
    rows = json.loads(RECORD.read_text())
    assert set(ROWS) <= set(rows)
    for row, recorded in rows.items():
        if row in ROWS:
            assert (recorded["how"], recorded["version"]) == ("measured", versions(row)), row
            module, kind = ROWS[row]["adapter"].split(":")
            assert f"class {kind}" in (HERE / "adapters" / f"{module}.py").read_text()
        else:
            assert row == "bnlib" or (recorded["how"] != "measured" and recorded["why"]), row


def test_arrays_numbers_and_errors_come_through(tmp_path: Path) -> None:
    """An adapter of NumPy, in the Python at hand, which also prints."""
    (tmp_path / "toy.py").write_text(
        "class Toy:\n"
        "    def __init__(self, channels, ndim, state):\n"
        "        self.s = {'channels': channels, 'ndim': ndim, **(state or {})}\n"
        "    def train(self, x):\n"
        "        print('noise')\n"
        "        return x.sum(self.s['ndim'])\n"
        "    def state(self):\n"
        "        return self.s\n"
    )
    toy = Framework(sys.executable, tmp_path / "toy.py", "Toy")
    layer = toy.new(3, state={"mean": np.float32([1, 2]), "eps": 1e-5})
    state = layer.state()
    np.testing.assert_array_equal(state.pop("mean"), np.float32([1, 2]))
    assert state == {"channels": 3, "ndim": 2, "eps": 1e-5} and not hasattr(layer, "plain")
    np.testing.assert_array_equal(layer.train(np.ones((2, 1, 4))), [[4], [4]])
    with pytest.raises(Exception, match="out of bounds") as caught:
        layer.train(np.ones(2))
    assert type(caught.value).__name__ == "AxisError"
    toy.close()


def test_the_record_is_what_it_does(row: str, framework: Framework) -> None:
    measured = measure(framework.new, functools.partial(framework.new, ndim=4)).row()
    print(json.dumps(measured, indent=1))
    facts = json.loads(json.dumps({k: v for k, v in measured.items() if k not in APART}))
    recorded = record(
        row,
        version=versions(row),
        date=f"{datetime.date.today()}",
        how="measured",
        source=None,
        momentum_weighs=measured["momentum_weighs"],
        facts=facts,
        unknown=measured["unknown"],
    )
    assert recorded["momentum_weighs"] == measured["momentum_weighs"]
    for name, fact in facts.items():
        if name == "large_mean":  # a rounding error: another processor has another
            fact = {mean: error and _order(error) for mean, error in fact.items()}
            old = recorded["facts"][name].items()
            assert fact == {mean: error and _order(error) for mean, error in old}
        else:
            assert recorded["facts"][name] == fact, name


def _order(error: float) -> str:
    return "right" if error < 0.02 else "wrong"


@pytest.fixture(params=[(8, 3), (4, 3, 5, 2)], ids=["rows", "images"])
def x(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(1).normal(1, 2, request.param).astype(np.float32)


class Pair:
    """A layer of torch in which nothing is a default, and the framework's, made from its state."""

    def __init__(self, row: str, framework: Framework, ndim: int) -> None:
        import torch

        self.row = row
        kind = {2: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[ndim]
        self.torch = kind(3, eps=2e-3, momentum=0.3)
        self.torch.load_state_dict(
            {
                "weight": torch.tensor([0.5, -2, 1.5]),
                "bias": torch.tensor([1, 0.25, -3]),
                "running_mean": torch.tensor([0.1, -0.7, 2]),
                "running_var": torch.tensor([1e-3, 0.5, 4]),
                "num_batches_tracked": torch.tensor(7),
            }
        )
        self.theirs = framework.new(3, ndim, convert(self.state(), "torch", row))

    def state(self) -> dict[str, Any]:
        numbers = {"eps": self.torch.eps, "momentum": self.torch.momentum}
        return {**self.torch.state_dict(), **numbers}

    def run(self, do: str, x: np.ndarray) -> np.ndarray:
        """Call the framework's layer, with its own axis."""
        axis = CONVENTIONS[self.row].facts["axis"] or 1
        return np.moveaxis(getattr(self.theirs, do)(np.moveaxis(x, 1, axis)), axis, 1)

    def run_torch(self, training: bool, x: np.ndarray) -> np.ndarray:
        import torch

        return self.torch.train(training)(torch.as_tensor(x)).detach().numpy()


def close(y: np.ndarray, expected: np.ndarray, within: float = 1e-6) -> None:
    assert np.abs(y - expected).max() <= within * np.abs(expected).max()


def _needs_images(row: str, x: np.ndarray) -> None:
    if x.ndim == 4 and CONVENTIONS[row].facts["axis"] is None:
        pytest.skip("takes no images")


def test_a_layer_of_torch_arrives_and_comes_back(
    row: str, framework: Framework, x: np.ndarray
) -> None:
    """The output of the real layer before, there, and after the way back is the same."""
    _needs_images(row, x)
    pair = Pair(row, framework, x.ndim)
    expected = pair.run_torch(False, x)
    there = pair.run("infer", x)
    close(there, expected)
    back = convert(pair.theirs.state(), row, "torch")
    pair.torch.eps, pair.torch.momentum = back.pop("eps"), back.pop("momentum")
    import torch

    pair.torch.load_state_dict({name: torch.as_tensor(v) for name, v in back.items()})
    close(pair.run_torch(False, x), expected)
    assert record(row, round_trip=True).get("round_trip")


def test_a_training_step_after_the_way_is_what_the_record_predicts(
    row: str, framework: Framework, x: np.ndarray
) -> None:
    _needs_images(row, x)
    pair, facts = Pair(row, framework, x.ndim), CONVENTIONS[row].facts
    if facts["average"] != "moving":
        pytest.skip(f"a {facts['average']} average")
    before = convert(pair.theirs.state(), row, "bnlib")
    y = pair.run("train", x)
    after = convert(pair.theirs.state(), row, "bnlib")
    axes, weight = (0, *range(2, x.ndim)), before["momentum"]
    ddof = {"biased": 0, "unbiased": 1}
    into = facts["running_var" if x.ndim == 2 else "running_var_images"]
    for name, new in ("mean", x.mean(axes)), ("var", x.var(axes, ddof=ddof[into])):
        predicted = (1 - weight) * before[name] + weight * new
        np.testing.assert_allclose(after[name], predicted, rtol=1e-5, err_msg=name)
    close(y, pair.run_torch(True, x), 1e-5)
