"""bnlib.torch.networks: the MLP of part IV."""

import numpy as np
import pytest
import torch

from bnlib.torch.networks import Hidden, Shake, relu_mlp, set_first_weights

torch.set_num_threads(1)
X = torch.tensor(np.random.default_rng(0).normal(size=(500, 784)), dtype=torch.float32)


def test_the_network_is_what_its_docstring_says():
    net = relu_mlp(3, batch_norm=True, seed=0)
    *hidden, last = net
    assert all(isinstance(layer, Hidden) for layer in hidden) and last.out_features == 10
    assert all(layer.linear.bias is None and not layer.skip for layer in hidden)
    assert hidden[0].linear.weight.std().item() == pytest.approx((2 / 784) ** 0.5, rel=0.02)
    plain = relu_mlp(3, batch_norm=False, seed=0, skip=True, scale=0.0)
    torch.testing.assert_close(plain[1].linear.weight, hidden[1].linear.weight)
    torch.testing.assert_close(plain[-1].weight, last.weight)
    assert [layer.skip for layer in plain[:-1]] == [False, True, True]
    h = plain[0](X)
    torch.testing.assert_close(plain[2](plain[1](h)), h)  # a scale of 0: the identity


def test_its_forward_pass_in_five_lines():
    net = relu_mlp(2, batch_norm=True, seed=1)
    h = X
    for layer in net[:-1]:
        s = h @ layer.linear.weight.T
        h = torch.relu((s - s.mean(0)) / (s.var(0, correction=0) + 1e-5).sqrt())
    torch.testing.assert_close(net(X), net[-1](h), rtol=1e-3, atol=1e-3)


def test_noise_is_new_at_each_step_common_to_all_and_off_at_inference():
    shake = Shake(0.5, np.random.default_rng(0))
    x = torch.ones(4, 3000)
    first, second = shake(x), shake(x)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, first[:1].expand(4, -1))
    b = shake(0 * x)[0]
    assert b.std().item() == pytest.approx(0.5, rel=0.05)
    assert shake.eval()(x) is x
    assert Shake(0.0, np.random.default_rng(0))(x) is x


def test_noise_is_a_scale_and_a_shift():
    x = torch.randn(6, 5)
    ln_s, b = np.random.default_rng(3).normal(0, 0.5, (2, 5))
    expected = torch.tensor(np.exp(ln_s)) * x + torch.tensor(b)
    torch.testing.assert_close(Shake(0.5, np.random.default_rng(3))(x), expected.float())


def test_the_scale_of_the_noise_is_log_normal():
    both = [Shake(0.5, np.random.default_rng(0))(v * torch.ones(1, 5000)) for v in (1.0, 0.0)]
    logs = torch.log(both[0] - both[1])  # the same draws
    assert logs.mean().item() == pytest.approx(0, abs=0.03)
    assert logs.std().item() == pytest.approx(0.5, rel=0.05)


def test_first_weights_give_each_unit_mean_0_and_variance_1():
    net = relu_mlp(4, batch_norm=False, seed=0)
    set_first_weights(net, X)
    h = X
    for layer in net[:-1]:
        inputs = layer.inputs(h)
        torch.testing.assert_close(inputs.mean(0), torch.zeros(100), rtol=0, atol=1e-4)
        torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(100), rtol=0, atol=1e-3)
        h = layer(h)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: relu_mlp(0, batch_norm=True, seed=0), "depth is 0; expected 1 or more"),
        (
            lambda: relu_mlp(2, batch_norm=True, seed=0, scale=0.0),
            "scale is 0.0 and skip is False; expected a skip",
        ),
        (
            lambda: set_first_weights(relu_mlp(2, batch_norm=True, seed=0), X),
            "net has BatchNorm; expected one without",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
