"""ONNX's own test cases of its BatchNormalization node, with its conventions translated."""

import warnings

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

import bnlib
import bnlib.torch
from bnlib.conventions import CONVENTIONS, convert


@pytest.fixture(scope="module")
def cases():
    """For each case its node's attributes, and inputs and outputs by ONNX's names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cases of other nodes, which are made along with them
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases("BatchNormalization")
    read = {}
    for case in found:
        (node,) = case.model.graph.node
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        for inputs, outputs in case.data_sets:
            arrays = [
                v if isinstance(v, np.ndarray) else numpy_helper.to_array(v)
                for v in (*inputs, *outputs)
            ]
            names = "X", "scale", "B", "input_mean", "input_var", "Y", "mean", "var"
            read[case.name] = attributes, dict(zip(names, arrays, strict=False))
    return read


def in_numpy(x, state, training):
    """y, and the running mean and variance afterward."""
    gamma, beta, mean, var, eps = (state[k] for k in ("gamma", "beta", "mean", "var", "eps"))
    if not training:
        return bnlib.batch_norm_inference(x, mean, var, gamma, beta, eps=eps), mean, var
    stats = bnlib.RunningStats(len(mean), momentum=state["momentum"])
    stats.replace(mean, var, 0)
    y, cache = bnlib.batch_norm_train(x, gamma, beta, eps=eps)
    stats.update(cache.mean, cache.var, cache.count)
    return y, stats.mean, stats.var


def in_torch(x, state, training):
    x, gamma, beta, mean, var = map(
        torch.tensor, (x, *(state[k] for k in ("gamma", "beta", "mean", "var")))
    )
    numbers = state["momentum"], state["eps"]
    y = bnlib.torch.batch_norm(x, mean, var, gamma, beta, training, *numbers)
    return tuple(v.numpy() for v in (y, mean, var))


def test_there_are_cases_of_both_modes(cases):
    modes = [attributes.get("training_mode", 0) for attributes, _ in cases.values()]
    assert len(cases) >= 4 and set(modes) == {0, 1}


@pytest.mark.parametrize("path", [in_numpy, in_torch])
def test_every_case_passes(path, cases):
    for name, (attributes, arrays) in cases.items():
        training = bool(attributes.get("training_mode", 0))
        numbers = {"epsilon": CONVENTIONS["onnx"].eps, "momentum": CONVENTIONS["onnx"].momentum}
        numbers |= {k: v for k, v in attributes.items() if k in numbers}
        state = {k: arrays[k] for k in ("scale", "B", "input_mean", "input_var")} | numbers
        x, state = arrays["X"], convert(state, "onnx", "bnlib")
        y, mean, var = path(x, state, training)
        assert y.dtype == x.dtype
        np.testing.assert_allclose(y, arrays["Y"], rtol=1e-5, atol=1e-5, err_msg=name)
        if training:
            m = x.size // x.shape[1]
            # ONNX moves the variance by α(σ² − v), which is biased; bnlib's σ² is m/(m − 1) of it.
            old = (1 - state["momentum"]) * state["var"]
            unbiased = old + (arrays["var"] - old) * m / (m - 1)
            np.testing.assert_allclose(mean, arrays["mean"], rtol=1e-5, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(var, unbiased, rtol=1e-5, err_msg=name)
