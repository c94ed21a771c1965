"""The conventions of frameworks, and a layer's state on its way between them."""

from dataclasses import fields
from datetime import date

import numpy as np
import pytest
import torch
from peers import PEERS

from bnlib import nn
from bnlib.conventions import CONVENTIONS, Measured, compare, convert, habits

STATE = {
    "gamma": np.float32([0.5, -2, 1.5]),
    "beta": np.float32([1, 0.25, -3]),
    "mean": np.array([0.1, -0.7, 2]),
    "var": np.array([1e-3, 0.5, 4]),
    "eps": 2e-3,
    "momentum": 0.3,
    "batches": 7,
}


@pytest.mark.parametrize("framework", [k for k in CONVENTIONS if k not in ("tflite", "cntk")])
def test_convert_there_and_back_changes_nothing(framework):
    convention, state = CONVENTIONS[framework], {**STATE, "momentum": 0.25}  # dlib's window: 3
    there = convert(state, "bnlib", framework)
    assert list(there) == list(convention.names.values())
    back = convert(there, framework, "bnlib")
    missing = {"batches": 0, "momentum": convention.facts["weight"] or 0.1}
    if framework == "darknet":  # ε is in the variance, and the file has no momentum
        state = {**state, "var": STATE["var"] + STATE["eps"] - 1e-12, "eps": 1e-12}
    for name, value in state.items():
        if name in missing and not {name, "window"} & set(convention.names):
            assert back[name] == missing[name]
            continue
        np.testing.assert_allclose(back[name], value, rtol=1e-12, err_msg=name)
        if isinstance(value, np.ndarray):
            assert back[name].dtype == value.dtype
            assert not np.shares_memory(back[name], value)
            if name in convention.names:
                assert not np.shares_memory(there[convention.names[name]], value)


@pytest.mark.parametrize(
    "source, target, given, expected",
    [
        ("torch", "keras", 0.1, 0.9),
        ("keras", "torch", 0.9, 0.1),
        ("keras", "torch", 0.99, 0.01),
        ("flax", "bnlib", 0.999, 0.001),
        ("onnx", "torch", 0.9, 0.1),
        ("torch", "bnlib", 0.1, 0.1),
        ("bnlib", "torch", None, None),
        ("keras", "onnx", 0.99, 0.99),
        ("flax", "keras", 0.7, 0.7),
        ("torch", "flax", 0, 1),
        ("onnx", "bnlib", 0, 1),
    ],
)
def test_momentum_is_turned_round_where_the_conventions_differ(source, target, given, expected):
    state = {CONVENTIONS[source].names[k]: STATE[k] for k in ("mean", "var", "eps")}
    assert convert({**state, "momentum": given}, source, target)["momentum"] == expected


def test_a_missing_scale_is_1_a_missing_shift_0_and_so_are_missing_batches():
    numbers = {"epsilon": 1e-3, "momentum": 0.99}
    state = convert({"moving_mean": [0.5], "moving_variance": [2.0], **numbers}, "keras", "torch")
    assert state == {
        "weight": 1, "bias": 0, "running_mean": 0.5, "running_var": 2,
        "eps": 1e-3, "momentum": 0.01, "num_batches_tracked": 0,
    }  # fmt: skip
    assert state["weight"].dtype == np.float64 and state["weight"].shape == (1,)
    state = {"scale": None, "bias": None, "mean": np.float32([1, 2]), "var": np.float32([3, 0])}
    state = convert({**state, **numbers}, "flax", "keras")
    np.testing.assert_array_equal(state["gamma"], np.ones(2, np.float32), strict=True)
    np.testing.assert_array_equal(state["beta"], np.zeros(2, np.float32), strict=True)


@pytest.mark.parametrize(
    "framework, why, eps, momentum",
    [
        ("bnlib", "layer.state() holds {}; or add", "layer.eps", "layer.running.momentum"),
        ("torch", "a state_dict does not hold {}; add", "layer.eps", "layer.momentum"),
        ("onnx", "the initializers do not hold {}; add, from the node's attributes,",
         "epsilon (1e-05 where the node has none)", "momentum (0.9 where the node has none)"),
        ("keras", "the weights do not hold {}; add", "layer.epsilon", "layer.momentum"),
        ("flax", "the variables do not hold {}; add", "layer.epsilon", "layer.momentum"),
    ],
)  # fmt: skip
def test_eps_and_momentum_are_not_made_up(framework, why, eps, momentum):
    names = CONVENTIONS[framework].names
    whole, them, it = convert(STATE, "bnlib", framework), why.format("them"), why.format("it")
    for lacks, message in [
        (["eps"], f"state has no {names['eps']}: {it} {eps}"),
        (["momentum"], f"state has no momentum: {it} {momentum}"),
        (
            ["eps", "momentum"],
            f"state has no {names['eps']} and no momentum: {them} {eps} and {momentum}",
        ),
    ]:
        state = {k: v for k, v in whole.items() if k not in [names[name] for name in lacks]}
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            convert(state, framework, "bnlib")
        assert str(caught.value) == message


def test_the_defaults_in_a_message_are_those_of_onnx():
    state = {k: v for k, v in convert(STATE, "bnlib", "onnx").items() if k in ("input_mean", "B")}
    state |= {"input_var": STATE["var"]}
    default = CONVENTIONS["onnx"]
    with pytest.raises(ValueError, match=rf"\({default.eps} where .* \({default.momentum} where"):
        convert(state, "onnx", "bnlib")


def test_a_state_dict_of_torch_is_refused_and_with_the_two_numbers_it_is_taken():
    layer = torch.nn.BatchNorm1d(3, eps=0.5, momentum=0.25)
    with pytest.raises(ValueError, match="state has no eps and no momentum: a state_dict does not"):
        convert(layer.state_dict(), "torch", "bnlib")
    numbers = {"eps": torch.tensor(0.5), "momentum": np.float32(0.25)}
    state = convert({**layer.state_dict(), **numbers}, "torch", "keras")
    assert (state["epsilon"], state["momentum"]) == (0.5, 0.75)


@pytest.mark.parametrize("name", ["gamma", "beta", "mean", "var"])
@pytest.mark.parametrize(
    "make, original",
    [
        (lambda: torch.zeros(3, dtype=torch.bfloat16), TypeError),
        (lambda: torch.zeros(3, requires_grad=True), RuntimeError),
    ],
    ids=["bfloat16", "requires_grad"],
)
def test_a_tensor_that_numpy_cannot_read_is_named_with_a_cure(name, make, original):
    theirs = CONVENTIONS["torch"].names[name]
    state = {**convert(STATE, "bnlib", "torch"), theirs: make()}
    message = rf"{theirs} is a Tensor that numpy cannot read; .* give \.detach\(\)\.float\(\)\.cpu"
    with pytest.raises(TypeError, match=message) as caught:
        convert(state, "torch", "bnlib")
    assert isinstance(caught.value.__cause__, original)
    assert convert({**state, theirs: make().detach().float().cpu()}, "torch", "bnlib")


def test_a_ragged_list_is_named_and_has_no_cure_of_torch():
    with pytest.raises(TypeError, match="floating-point numbers$"):
        convert(with_(mean=[[0.0], [1.0, 2.0]]), "bnlib", "torch")


def trained(shape):
    """A layer of bnlib after some batches, and the next batches."""
    rng = np.random.default_rng(4)
    xs = [rng.normal(2, 3, shape).astype(np.float32) for _ in range(8)]
    layer = nn.BatchNorm(3, eps=3e-3, momentum=0.2)
    layer.gamma.value[:], layer.beta.value[:] = rng.normal(size=(2, 3))
    for x in xs[:4]:
        layer(x)
    return layer, xs[4:]


@pytest.mark.parametrize("shape", [(8, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("momentum", [0.2, None])
def test_a_layer_goes_on_in_torch_and_comes_back(shape, momentum):
    ours, xs = trained(shape)
    ours.running.momentum = momentum
    theirs = PEERS["torch"](convert(ours.state(), "bnlib", "torch"), ndim=len(shape))
    ours.eval()
    bound = 1e-6 * np.abs(ours(xs[0])).max()
    np.testing.assert_allclose(theirs(xs[0], training=False), ours(xs[0]), atol=bound, rtol=0)
    ours.train()
    for x in xs:
        np.testing.assert_allclose(theirs(x, training=True), ours(x), atol=bound, rtol=0)
    back = convert(theirs.state(), "torch", "bnlib")
    for name, value in ours.state().items():
        if value is None:
            assert back[name] is None
        else:
            np.testing.assert_allclose(back[name], value, rtol=2e-6, err_msg=name)
    assert back["batches"] == 8


@pytest.mark.parametrize("shape", [(8, 3), (2, 3, 4, 5)])
def test_a_layer_in_onnx(shape):
    ours, xs = trained(shape)
    theirs = PEERS["onnx"](convert(ours.state(), "bnlib", "onnx"), ndim=len(shape))
    ours.eval()
    y = ours(xs[0])
    bound = 1e-6 * np.abs(y).max()
    np.testing.assert_allclose(theirs(xs[0], training=False), y, atol=bound, rtol=0)
    # One step in training: the new value weighs 0.2 there too, but its variance is biased.
    before, axes = ours.state(), (0, *range(2, len(shape)))
    theirs(xs[0], training=True)
    after = convert(theirs.state(), "onnx", "bnlib")
    mean, var = xs[0].mean(axes), xs[0].var(axes)
    np.testing.assert_allclose(after["mean"], 0.8 * before["mean"] + 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.8 * before["var"] + 0.2 * var, rtol=1e-6)


V = np.array([0.0, 1e-8, 1e-3, 4])
X = np.array([[-3.0, 0.1, 2, 1]])


def infer(s):
    """y of a state by bnlib's names."""
    return s["gamma"] * (X - s["mean"]) / np.sqrt(s["var"] + s["eps"]) + s["beta"]


def state_of(**changes):
    rng = np.random.default_rng(3)
    gamma, beta, mean = rng.normal(size=(3, 4))
    state = {"gamma": gamma, "beta": beta, "mean": mean, "var": V, "eps": 1e-5, "momentum": 0.1}
    return {**state, "batches": 0, **changes}


@pytest.mark.parametrize("t", [1, 300])
def test_a_debiased_average_is_what_inference_uses_and_goes_on(t):
    """Equinox's formula: hidden and counter; the start of the variance is in the hidden one."""
    rng, d = np.random.default_rng(0), 0.99
    mean, var = np.zeros(2), np.ones(2)
    for x in rng.normal(10, 2, (t, 8, 2)):
        mean, var = d * mean + (1 - d) * x.mean(0), d * var + (1 - d) * x.var(0)
    theirs = {"mean": mean, "var": var, "counter": t, "eps": 1e-5, "momentum": d}
    ours = convert(theirs, "equinox", "torch")
    np.testing.assert_allclose(ours["running_mean"], mean / (1 - d**t), rtol=1e-12)
    np.testing.assert_allclose(ours["running_var"], var / (1 - d**t), rtol=1e-12)
    assert ours["num_batches_tracked"] == t and ours["momentum"] == 0.01
    back = convert(ours, "torch", "equinox")
    np.testing.assert_allclose(back["var"], var, rtol=1e-12)
    # A layer whose batches nobody counted goes on as a plain average: the counter is large.
    haiku = convert({**ours, "num_batches_tracked": 0}, "torch", "haiku")
    counter = haiku["mean_ema/counter"]
    assert counter == haiku["var_ema/counter"] and d**counter < 1e-15
    hidden = d * haiku["var_ema/hidden"] + (1 - d) * 5.0
    np.testing.assert_allclose(
        hidden / (1 - d ** (counter + 1)), d * ours["running_var"] + (1 - d) * 5, rtol=1e-12
    )


def test_an_equinox_layer_before_its_first_batch_is_refused():
    state = {"mean": np.zeros(2), "var": np.ones(2), "counter": 0, "eps": 1e-5, "momentum": 0.9}
    with pytest.raises(
        ValueError, match="counter is 0; expected 1 or more: equinox divides by 1 − m"
    ):
        convert(state, "equinox", "torch")


@pytest.mark.parametrize("factor", [1.0, 999.98, 0.0])
def test_caffes_blobs_are_divided_by_the_third(factor):
    blobs = {"blobs[0]": np.float32([5, -2]), "blobs[1]": np.float32([4, 9]), "blobs[2]": factor}
    numbers = {"eps": 1e-5, "moving_average_fraction": 0.999}
    ours = convert({**blobs, **numbers}, "caffe", "bnlib")
    expected = np.float32([[5, -2], [4, 9]]) / (factor or np.inf)
    np.testing.assert_array_equal([ours["mean"], ours["var"]], np.float32(expected))
    assert ours["momentum"] == 0.001
    assert convert(ours, "bnlib", "caffe")["blobs[2]"] == 1


def test_darknets_eps_outside_of_the_root_arrives_and_returns():
    ours = state_of()
    names = CONVENTIONS["darknet"].names
    theirs = {names[k]: ours[k] for k in ("beta", "gamma", "mean", "var")}
    y = ours["gamma"] * (X - ours["mean"]) / (np.sqrt(V) + 1e-6) + ours["beta"]
    there = convert(theirs, "darknet", "bnlib")
    np.testing.assert_allclose(infer(there), y, rtol=1e-9)
    np.testing.assert_array_equal(there["gamma"], ours["gamma"])  # so that training can go on
    assert there["eps"] == 1e-12 and there["momentum"] == 0.01
    back = convert(there, "bnlib", "darknet")
    np.testing.assert_allclose(back["rolling_variance"], V, rtol=1e-6, atol=1e-18)
    assert list(back) == ["biases", "scales", "rolling_mean", "rolling_variance"]
    # From a layer with an ε of its own.
    theirs = convert(ours, "bnlib", "darknet")
    divisor = np.sqrt(theirs["rolling_variance"]) + 1e-6
    y = ours["gamma"] * (X - ours["mean"]) / divisor + ours["beta"]
    np.testing.assert_allclose(y, infer(ours), rtol=1e-9)
    same = convert(theirs, "darknet", "darknet")
    np.testing.assert_array_equal(same["rolling_variance"], theirs["rolling_variance"])


def test_a_layer_that_cannot_arrive_says_which_channel_and_what_would_be_lost():
    theirs = {k: np.ones(4) for k in ("biases", "scales", "rolling_mean")}
    theirs["rolling_variance"] = V
    with pytest.raises(
        ValueError,
        match="channel 0 is divided by 1e-06; theano divides by 0.003162 or more, as its ε is "
        "1e-05: the outputs would be 3162 times too small",
    ):
        convert(theirs, "darknet", "theano")
    arrives = convert({**theirs, "rolling_variance": V + 1e-4}, "darknet", "theano")
    np.testing.assert_allclose(
        np.sqrt(arrives["running_var"] + 1e-5), np.sqrt(V + 1e-4) + 1e-6, rtol=1e-12
    )
    assert arrives["epsilon"] == 1e-5
    with pytest.raises(ValueError, match="channel 0 is divided by 1e-07; darknet divides by 1e-06"):
        convert(state_of(eps=1e-14), "bnlib", "darknet")


@pytest.mark.parametrize("framework", ["theano-batch", "mxnet-batch"])
def test_an_inverse_deviation_in_the_place_of_a_variance(framework):
    ours, names = state_of(), CONVENTIONS[framework].names
    theirs = {names[k]: ours[k] for k in ("gamma", "beta", "mean", "eps")}
    theirs[names["inv_std"]] = 1 / np.sqrt(V + 1e-5)
    there = convert(theirs, framework, "bnlib")
    np.testing.assert_allclose(infer(there), infer(ours), rtol=1e-9)
    with pytest.raises(ValueError, match=r"\[3\] is 400.0; expected an inverse deviation, above 0"):
        convert({**theirs, names["inv_std"]: np.array([1.0, 2, 3, 400])}, framework, "bnlib")


def test_ncnns_eps_of_zero_and_its_channel_of_variance_zero():
    ours = state_of()
    theirs = {CONVENTIONS["ncnn"].names[k]: ours[k] for k in ("gamma", "beta", "mean", "var")}
    there = convert({**theirs, "eps": 0.0}, "ncnn", "torch")
    assert there["eps"] > 0 and (there["running_var"] >= 0).all() and there["momentum"] == 0.1
    divisor = np.sqrt(there["running_var"] + there["eps"])
    np.testing.assert_allclose(divisor, np.where(V == 0, 1e-4, np.sqrt(V)), rtol=1e-9)


def test_windows_and_time_constants():
    state = {"running_means": np.zeros(2), "running_variances": np.ones(2), "eps": 1e-4}
    state |= {"running_stats_window_size": 99, "num_updates": 7}
    assert convert(state, "dlib", "keras")["momentum"] == 0.99
    assert convert(state, "dlib", "dlib")["running_stats_window_size"] == 99
    for momentum in 0.3, 0.0:
        with pytest.raises(ValueError, match=rf"is {momentum}; expected 1/2, 1/3, … or 1: dlib"):
            convert(with_(momentum=momentum), "bnlib", "dlib")
    state = {"aggregate_mean": np.zeros(2), "aggregate_variance": np.ones(2), "epsilon": 1e-5}
    state["normalization_time_constant"] = 5000
    ours = convert({**state, "minibatch_size": 8}, "cntk", "torch")
    assert abs(ours["momentum"] - 0.0015987) < 1e-7
    with pytest.raises(ValueError, match="state has no minibatch_size; expected a number"):
        convert(state, "cntk", "torch")
    with pytest.raises(ValueError, match=r"T = −n/ln\(1 − weight\) = 2.80367 n"):
        convert(STATE, "bnlib", "cntk")


def test_shapes_and_orders_are_the_targets():
    there = convert(STATE, "bnlib", "nnabla")
    assert list(there)[:2] == ["bn/beta", "bn/gamma"]
    assert there["bn/mean"].shape == (1, 3, 1, 1)
    with pytest.raises(ValueError, match=r"bn/mean has shape \(3,\); expected \(1, C, 1, 1\)"):
        convert({**there, "bn/mean": np.zeros(3)}, "nnabla", "bnlib")
    with pytest.raises(ValueError, match="target is 'tflite', which has no BatchNorm left: it is"):
        convert(STATE, "bnlib", "tflite")


def test_habits_and_what_will_bite():
    assert compare("torch", "torch") == {}
    bites = compare("torch", "equinox")
    assert bites["average"][:2] == (
        "moving, from 0 and 1",
        "debiased, though the variance starts at 1",
    )
    assert bites["momentum weighs"] == ("new", "old", "Turn it round: 1 − momentum.")
    assert "channel axis" not in bites and compare("torch", "keras")["channel axis"][1] == "-1"
    assert compare("bnlib", "darknet")["ε is added"][:2] == ("to the variance", "to the std")
    assert habits("keras-torch")["large mean"] == "NaN" and habits("torch")["large mean"] == "right"
    assert "average" not in habits("ncnn")  # not known, or it has none
    for call in (lambda: habits("jax"), lambda: compare("jax", "torch")):
        with pytest.raises(ValueError, match="is 'jax'; expected one of bnlib, torch"):
            call()


def test_each_row_of_the_record_says_what_it_is_of_and_how_it_is_known():
    assert len(CONVENTIONS) >= 25
    facts = {f.name for f in fields(Measured)} - {"names", "momentum_weighs", "unknown"}
    for name, row in CONVENTIONS.items():
        assert row.version and row.surprises, name
        assert row.how in ("measured", "last measured", "documented"), name
        assert (row.how != "documented") or row.source, name
        assert set(row.facts) == facts, name
        assert date.fromisoformat(row.date) <= date.today(), name
        assert row.kind in ("framework", "runtime", "file"), name


def with_(**changes):
    return {**STATE, **changes}


@pytest.mark.parametrize(
    "error, message, state, source, target",
    [
        (ValueError, "source is 'jax'; expected one of bnlib, torch,", STATE, "jax", "torch"),
        (ValueError, "target is 'tf'; expected one of bnlib, torch,", STATE, "bnlib", "tf"),
        (ValueError, "state has running_mean, b; bnlib's names are gamma, beta, mean, var",
         with_(running_mean=0, b=1), "bnlib", "torch"),
        (ValueError, r"state has no mean; expected an array \(C,\)",
         {"var": STATE["var"]}, "bnlib", "torch"),
        (ValueError, "state has no running_var; expected",
         {"running_mean": [0.0], "running_var": None}, "torch", "bnlib"),
        (ValueError, r"^mean has shape \(1, 3\); expected \(C,\)",
         with_(mean=np.ones((1, 3))), "bnlib", "torch"),
        (ValueError, r"mean has shape \(0,\); expected \(C,\)",
         with_(mean=[], var=[]), "bnlib", "torch"),
        (ValueError, r"var has shape \(2,\); expected \(3,\)",
         with_(var=np.ones(2)), "bnlib", "torch"),
        (ValueError, r"gamma has shape \(1,\); expected \(3,\)",
         with_(gamma=np.ones(1)), "bnlib", "torch"),
        (ValueError, r"beta has shape \(\); expected \(3,\)", with_(beta=0.5), "bnlib", "torch"),
        (TypeError, "mean is array.*; expected an array of floating-point numbers",
         with_(mean=[0, 1, 2]), "bnlib", "torch"),
        (TypeError, "gamma is array.*; expected an array of floating-point numbers",
         with_(gamma=["a", "b", "c"]), "bnlib", "torch"),
        (ValueError, r"var\[2\] is -1.0; expected 0 or more",
         with_(var=[0.0, 1, -1]), "bnlib", "torch"),
        (ValueError, r"^mean\[0\] is nan; expected a finite number",
         with_(mean=[np.nan, 0, np.inf]), "bnlib", "torch"),
        (ValueError, r"var\[1\] is nan; expected a finite number",
         with_(var=[0.0, np.nan, 1]), "bnlib", "torch"),
        (ValueError, r"var\[1\] is inf; expected a finite number",
         with_(var=[-1.0, np.inf, 1]), "bnlib", "torch"),
        (ValueError, r"gamma\[2\] is -inf; expected a finite number",
         with_(gamma=[0.0, 1, -np.inf]), "bnlib", "torch"),
        (ValueError, r"beta\[1\] is nan; expected a finite number",
         with_(beta=[0.0, np.nan, 1]), "bnlib", "torch"),
        (TypeError, r"state is a list; expected a mapping from keras's names \(gamma, beta, …\) to",
         [1, 2], "keras", "torch"),
        (TypeError, "state is a NoneType; expected a mapping from torch's names .weight, bias",
         None, "torch", "keras"),
        (TypeError, "eps is '1e-5'; expected a number", with_(eps="1e-5"), "bnlib", "torch"),
        (TypeError, "eps is True; expected a number", with_(eps=True), "bnlib", "torch"),
        (TypeError, "momentum is '0.1'; expected a number", with_(momentum="0.1"), "bnlib", "onnx"),
        (TypeError, "momentum is False; expected a number", with_(momentum=False), "bnlib", "onnx"),
        (TypeError, r"momentum is \[0.1\]; expected a num", with_(momentum=[0.1]), "bnlib", "onnx"),
        (TypeError, "batches is '7'; expected a number", with_(batches="7"), "bnlib", "torch"),
        (ValueError, "eps is 0.0; expected a positive number", with_(eps=0), "bnlib", "torch"),
        (ValueError, "eps is inf; expected a positive", with_(eps=np.inf), "bnlib", "torch"),
        (ValueError, r"momentum is 1.5; expected a number in \[0, 1\]",
         with_(momentum=1.5), "bnlib", "torch"),
        (ValueError, r"momentum is nan; expected a number in \[0, 1\]",
         with_(momentum=np.nan), "bnlib", "keras"),
        (ValueError, "momentum is None, the average over all batches; .* keras has no such average",
         with_(momentum=None), "bnlib", "keras"),
        (ValueError, r"momentum is None; expected a number in \[0, 1\]",
         {"mean": [0.0], "var": [1.0], "epsilon": 1e-5, "momentum": None}, "flax", "torch"),
        (ValueError, "batches is -1; expected a whole number, 0 or more",
         with_(batches=-1), "bnlib", "torch"),
        (ValueError, "batches is 1.5; expected a whole num", with_(batches=1.5), "bnlib", "torch"),
        (ValueError, "batches is nan; expected a whole", with_(batches=np.nan), "bnlib", "torch"),
        (ValueError, "batches is inf; expected a whole", with_(batches=np.inf), "bnlib", "torch"),
    ],
)  # fmt: skip
def test_bad_state(error, message, state, source, target):
    with pytest.raises(error, match=message):
        convert(state, source, target)
