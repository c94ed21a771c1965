"""The samples with which torch tests its own batch_norm and its BatchNorm layers, run on ours."""

import pytest
import torch
from torch.nn.functional import batch_norm as native
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

import bnlib
import bnlib.torch
from bnlib.torch import batch_norm

OPS = [op for op in op_db if op.name == "nn.functional.batch_norm"]
LAYERS = [m for m in module_db if m.name in {f"nn.BatchNorm{d}d" for d in (1, 2, 3)}]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}

ops = pytest.mark.parametrize("op", OPS, ids=lambda op: op.variant_test_name or "plain")
layers = pytest.mark.parametrize("info", LAYERS, ids=lambda info: info.name)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
modes = pytest.mark.parametrize("training", [True, False])


def taken(sample):
    """Whether bnlib takes a sample: no other momentum than a weight, and channels on axis 1."""
    return 0 <= sample.kwargs.get("momentum", 0.1) <= 1 and sample.input.ndim >= 2


def samples(op, dtype, grad=True):
    found = [s for s in op.sample_inputs("cpu", dtype, requires_grad=grad) if taken(s)]
    assert len(found) >= 6
    return found


def run(function, sample):
    """y, the running statistics afterward, and the derivatives with respect to all inputs."""
    x, (mean, var, weight, bias) = sample.input, sample.args
    leaves = [None if v is None else v.detach().requires_grad_() for v in (x, weight, bias)]
    stats = [None if v is None else v.detach().clone() for v in (mean, var)]
    y = function(leaves[0], *stats, *leaves[1:], **sample.kwargs)
    generator = torch.Generator().manual_seed(0)
    y.backward(torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y))
    return [y.detach(), *stats, *(None if v is None else v.grad for v in leaves)]


def assert_all_close(ours, theirs, atol):
    for mine, its in zip(ours, theirs, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            assert mine.dtype == its.dtype
            torch.testing.assert_close(mine, its, atol=atol, rtol=atol)


# The function


def test_torch_has_samples_with_and_without_cudnn():
    assert {op.variant_test_name for op in OPS} == {"", "without_cudnn"}
    assert len(LAYERS) == 3


@ops
@dtypes
def test_values_statistics_and_gradients(op, dtype):
    for sample in samples(op, dtype):
        assert_all_close(*(run(f, sample) for f in (batch_norm, native)), TOLERANCE[dtype])


@ops
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_functions_in_numpy(op, dtype):
    for sample in samples(op, dtype):
        x, mean, var, weight, bias = (
            None if v is None else v.detach().numpy() for v in (sample.input, *sample.args)
        )
        y, _, _, dx, dweight, dbias = run(native, sample)
        eps = sample.kwargs.get("eps", 1e-5)
        if not sample.kwargs.get("training"):
            results, expected = (
                [bnlib.batch_norm_inference(x, mean, var, weight, bias, eps=eps)],
                [y],
            )
        else:
            mine, cache = bnlib.batch_norm_train(x, weight, bias, eps=eps)
            generator = torch.Generator().manual_seed(0)
            dy = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y).numpy()
            results = [mine, *bnlib.batch_norm_backward(dy, cache)]
            expected = [y, dx, dweight, dbias]
        theirs = [None if v is None else torch.as_tensor(v) for v in results]
        assert_all_close(theirs, expected, TOLERANCE[dtype])


def differentiable(sample):
    """A function of x, weight and bias that leaves the running statistics alone, and these."""
    stats = [None if v is None else v.detach() for v in sample.args[:2]]
    leaves = [sample.input, *(v for v in sample.args[2:] if v is not None)]

    def function(*leaves):
        copies = [None if v is None else v.clone() for v in stats]
        return batch_norm(leaves[0], *copies, *leaves[1:], **sample.kwargs)

    return function, leaves


@ops
def test_derivatives_by_differences_backward_and_forward(op):
    for sample in samples(op, torch.float64):
        function, leaves = differentiable(sample)
        assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)


@ops
def test_second_derivatives_by_differences(op):
    for sample in samples(op, torch.float64):
        function, leaves = differentiable(sample)
        assert torch.autograd.gradgradcheck(function, leaves)


@ops
@dtypes
def test_what_torch_takes_and_bnlib_refuses(op, dtype):
    """A momentum that is no weight, and x without channels: torch goes on in silence."""
    refused = [s for s in op.sample_inputs("cpu", dtype) if not taken(s)]
    assert len(refused) >= 4
    for sample in refused:
        native(sample.input, *sample.args, **sample.kwargs)
        with pytest.raises(ValueError, match=r"momentum is -1|x has shape \(0,\)"):
            batch_norm(sample.input, *sample.args, **sample.kwargs)


def test_a_negative_running_variance_is_named():
    x, mean, var = torch.ones(4, 3), torch.zeros(3), torch.tensor([1.0, -1, 1])
    assert native(x, mean, var)[:, 1].isnan().all()
    with pytest.raises(ValueError, match=r"running_var\[1\] is -1.0; expected 0 or more"):
        batch_norm(x, mean, var)


# The layers


def layer_samples(info, dtype, training):
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=True, training=training
    )


@layers
@dtypes
@modes
def test_layers(info, dtype, training):
    found = layer_samples(info, dtype, training)
    assert len(found) >= 6
    for sample in found:
        made = sample.constructor_input
        theirs = info.module_cls(*made.args, **made.kwargs).to(dtype).train(training)
        ours = getattr(bnlib.torch, info.module_cls.__name__)(*made.args, **made.kwargs).to(dtype)
        for p in theirs.parameters():
            torch.nn.init.uniform_(p, 0.5, 2)
        ours.load_state_dict(theirs.state_dict())
        ours.train(training)
        (x,) = sample.forward_input.args
        results = []
        for layer in ours, theirs:
            leaf = x.detach().clone().requires_grad_()
            y = layer(leaf)
            y.backward(torch.linspace(-1, 2, y.numel(), dtype=dtype).reshape(y.shape))
            gradients = [p.grad for p in layer.parameters()]
            results.append([y.detach(), leaf.grad, *gradients, *layer.buffers()])
        if not x.numel() and training and theirs.num_batches_tracked is not None:
            assert theirs.num_batches_tracked == 1  # bnlib does not count a batch of nothing
            theirs.num_batches_tracked.zero_()
        assert_all_close(*results, TOLERANCE[dtype])


@layers
@modes
def test_layers_refuse_what_torch_refuses(info, training):
    found = info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
    )
    assert len(found) >= 2
    for sample in found:
        made = sample.module_error_input.constructor_input
        assert sample.error_on is ModuleErrorEnum.FORWARD_ERROR
        given = sample.module_error_input.forward_input
        layer = getattr(bnlib.torch, info.module_cls.__name__)(*made.args, **made.kwargs)
        with pytest.raises(sample.error_type, match=r"eps is .*; expected a positive number"):
            layer.train(training)(*given.args, **given.kwargs)
