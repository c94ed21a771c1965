"""Keras and Flax keep to the conventions that bnlib and the book say: run `make frameworks`.

What a new layer of each framework shows must be what bnlib/frameworks.json records, from where
the book quotes it. `make frameworks RECORD=1` writes that file anew.
"""

import json
import os
import re
from importlib.metadata import version

import numpy as np
import pytest
from conftest import ROOT

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
REASON = "Keras and Flax have an environment of their own: make frameworks"
keras = pytest.importorskip("keras", reason=REASON)
nnx = pytest.importorskip("flax.nnx", reason=REASON)

from peers import PEERS, measure  # noqa: E402

from bnlib.conventions import CONVENTIONS, convert  # noqa: E402

RECORD = ROOT / "bnlib" / "frameworks.json"


def test_the_record_is_what_the_frameworks_do() -> None:
    packages = ["torch", "onnx", "keras", "flax", "jax"]
    measured = {
        "versions": {name: version(name).split("+")[0] for name in packages},
        "conventions": {framework: measure(framework) for framework in PEERS},
    }
    if os.environ.get("BNLIB_RECORD"):
        RECORD.write_text(json.dumps(measured, indent=1) + "\n")
    assert json.loads(RECORD.read_text()) == measured, "run `make frameworks RECORD=1`"


@pytest.mark.parametrize("framework", PEERS)
def test_the_table_is_what_the_frameworks_do(framework: str) -> None:
    measured, stated = measure(framework), CONVENTIONS[framework]
    for field in "eps", "momentum", "momentum_weighs", "running_var", "axis":
        assert measured[field] == getattr(stated, field), field


@pytest.fixture(params=[(8, 3), (4, 3, 5, 2)], ids=["(N, C)", "(N, C, H, W)"])
def x(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(1).normal(1, 2, request.param).astype(np.float32)


@pytest.fixture
def state() -> dict[str, object]:
    """A state of bnlib in which nothing is a default of any framework."""
    return {
        "gamma": np.float32([0.5, -2, 1.5]),
        "beta": np.float32([1, 0.25, -3]),
        "mean": np.float32([0.1, -0.7, 2]),
        "var": np.float32([1e-3, 0.5, 4]),
        "eps": 2e-3,
        "momentum": 0.3,
        "batches": 7,
    }


def test_a_state_travels_through_all_of_them(state: dict[str, object], x: np.ndarray) -> None:
    travelling, source, outputs = state, "bnlib", {}
    for target in ["torch", "onnx", "keras", "flax", "bnlib"]:
        layer = PEERS[target](convert(travelling, source, target), ndim=x.ndim)
        outputs[target] = layer(x, training=False)
        travelling, source = layer.state(), target
    expected = PEERS["bnlib"](state)(x, training=False)
    for target, y in outputs.items():
        error = np.abs(y - expected).max() / np.abs(expected).max()
        print(f"{target}: {error:.1e}")
        assert error <= 1e-6, target
    for name, value in state.items():
        if name != "batches":  # ONNX, Keras and Flax count none
            np.testing.assert_array_equal(travelling[name], value, err_msg=name)


@pytest.mark.parametrize("framework", PEERS)
def test_a_training_step_is_the_one_that_the_table_predicts(
    framework: str, state: dict[str, object], x: np.ndarray
) -> None:
    convention = CONVENTIONS[framework]
    layer = PEERS[framework](convert(state, "bnlib", framework), ndim=x.ndim)
    y = layer(x, training=True)
    after = convert(layer.state(), framework, "bnlib")

    alpha = state["momentum"]  # whatever the framework calls it
    axes = (0, *range(2, x.ndim))
    mean, var = x.mean(axes), x.var(axes, ddof={"biased": 0, "unbiased": 1}[convention.running_var])
    for name, new in ("mean", mean), ("var", var):
        predicted = (1 - alpha) * state[name] + alpha * new
        np.testing.assert_allclose(after[name], predicted, rtol=1e-6, err_msg=name)
    # In the forward pass the variance is biased everywhere.
    expected = PEERS["bnlib"](state)(x, training=True)
    np.testing.assert_allclose(y, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("framework", ["keras", "flax"])
def test_the_lines_on_the_page_take_a_state_out_and_put_it_back(
    framework: str, state: dict[str, object], x: np.ndarray
) -> None:
    page = json.loads((ROOT / "book" / "reference" / "conventions.ipynb").read_text())
    text = "\n".join("".join(c["source"]) for c in page["cells"] if c["cell_type"] == "markdown")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```", text)
    (block,) = (b for b in blocks if f"import {framework}\n" in b or f"from {framework} " in b)
    old = PEERS[framework](convert(state, "bnlib", framework), ndim=x.ndim)
    names = {"layer": old.layer, "shape": (None,) * (x.ndim - 1) + (3,)}
    exec(block, names)
    for name, value in convert(names["state"], framework, "bnlib").items():
        if name != "batches":  # Keras and Flax count none
            np.testing.assert_array_equal(value, state[name], err_msg=name)
    new = PEERS[framework](ndim=x.ndim)
    new.layer = names["new"]
    assert new.layer is not old.layer
    expected = old(x, training=False)
    np.testing.assert_array_equal(new(x, training=False), expected)
    for training in True, False:  # so epsilon and momentum are the same too
        np.testing.assert_array_equal(new(x, training=training), old(x, training=training))


def test_what_puts_keras_into_inference(x: np.ndarray) -> None:
    """A layer that is not trainable is in inference, also when it is called for training."""
    layer = PEERS["keras"](ndim=x.ndim)
    layer.layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    assert not np.asarray(layer.layer.moving_mean).any()


def test_what_puts_flax_into_inference(x: np.ndarray) -> None:
    """train() and eval() set what a plain call does; an argument of the call comes first."""
    layer = PEERS["flax"](ndim=x.ndim)
    layer.layer.eval()
    layer(x)
    assert not np.asarray(layer.layer.mean[...]).any()
    layer(x, training=True)
    assert np.asarray(layer.layer.mean[...]).all()


def test_the_variance_of_flax_by_default() -> None:
    """Computed as E[x²] − E[x]² in float32, it has no digit right when the mean is large."""
    x = np.random.default_rng(1).normal(1e4, 1, (256, 3)).astype(np.float32)
    options = {"rngs": nnx.Rngs(0), "momentum": 0.0}  # the new value alone
    fast, slow = nnx.BatchNorm(3, **options), nnx.BatchNorm(3, use_fast_variance=False, **options)
    for layer in fast, slow:
        layer(x)
    true = x.var(0, dtype=np.float64)
    assert (np.abs(np.asarray(fast.var[...]) - true) > 0.5).all()
    np.testing.assert_allclose(slow.var[...], true, rtol=1e-5)
