"""bnlib.torch.training: the loop of bnlib.training, for torch."""

import numpy as np
import pytest
import torch

from bnlib import mnist, nn, optim, training
from bnlib.torch.training import accuracy, fit

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_DATA", "embedded")
        data = mnist.load()
    return (
        (mnist.standardize(data.train_images[:1000]), data.train_labels[:1000]),
        (mnist.standardize(data.test_images[:300]), data.test_labels[:300]),
    )


def tensors(examples):
    return tuple(torch.tensor(array) for array in examples)


def twins(dtype=np.float64):
    """The same small network in NumPy and in torch."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Linear(784, 20, std=0.05, rng=rng, bias=False, dtype=dtype),
        nn.BatchNorm(20, dtype=dtype),
        nn.ReLU(),
        nn.Linear(20, 10, std=0.2, rng=rng, dtype=dtype),
    )
    twin = torch.nn.Sequential(
        torch.nn.Linear(784, 20, bias=False),
        torch.nn.BatchNorm1d(20),
        torch.nn.ReLU(),
        torch.nn.Linear(20, 10),
    ).double()
    with torch.no_grad():
        twin[0].weight.copy_(torch.from_numpy(net[0].weight.value))
        twin[3].weight.copy_(torch.from_numpy(net[3].weight.value))
        twin[3].bias.zero_()
    return net, twin


def test_it_does_what_the_numpy_loop_does(digits):
    """Same batches, loss, schedule, momentum, evaluations: the curves are the same in float64."""
    net, twin = twins()
    train, test = ((examples[0].astype(np.float64), examples[1]) for examples in digits)
    how = {"steps": 60, "batch_size": 50, "seed": 3, "evaluate_every": 25}
    schedule = optim.exponential_decay(0.2, every=20, factor=0.5)
    expected = training.fit(
        net, train, test, optim.SGD(net.parameters(), schedule, momentum=0.9),
        others={"train": train}, **how,
    )  # fmt: skip
    train, test = tensors(train), tensors(test)
    sgd = torch.optim.SGD(twin.parameters(), lr=99.0, momentum=0.9)
    record = fit(twin, train, test, sgd, schedule=schedule, others={"train": train}, **how)
    np.testing.assert_array_equal(record.steps, [0, 25, 50, 60])
    np.testing.assert_allclose(record.train_loss, expected.train_loss, rtol=1e-4)
    np.testing.assert_allclose(record.test_accuracy, expected.test_accuracy, atol=0.01)
    np.testing.assert_allclose(record.accuracies["train"], expected.accuracies["train"], atol=0.01)
    assert not twin.training


def test_without_a_schedule_the_rate_is_the_optimizer_s(digits):
    train, test = (tensors((examples[0].astype(np.float64), examples[1])) for examples in digits)
    how = {"steps": 20, "batch_size": 50, "seed": 0, "evaluate_every": 20}
    losses = []
    for lr, schedule in (0.1, None), (9.0, optim.constant(0.1)), (0.2, None):
        _, twin = twins()
        sgd = torch.optim.SGD(twin.parameters(), lr=lr)
        losses.append(fit(twin, train, test, sgd, schedule=schedule, **how).train_loss[-1])
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_finite_ends_the_run(digits):
    train, test = map(tensors, digits)
    net = torch.nn.Linear(784, 10)
    sgd = torch.optim.SGD(net.parameters(), lr=1e37)
    record = fit(net, train, test, sgd, steps=100, batch_size=50, seed=0, evaluate_every=50)
    assert record.diverged and record.steps[-1] < 50 and len(record.steps) == 2


def test_accuracy_counts_every_example():
    labels = torch.arange(2500) % 3
    right = torch.nn.functional.one_hot(labels).float()
    wrong_at_the_end = (labels + (torch.arange(2500) >= 2000)) % 3
    net = torch.nn.Identity()
    assert accuracy(net, right, labels) == 1
    assert accuracy(net, right, wrong_at_the_end) == 0.8


def test_bad_input_is_told_as_in_numpy():
    net = torch.nn.Linear(2, 10)
    examples = torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="batch_size is 11; expected 1 to 10, the training set"):
        fit(net, examples, examples, sgd, steps=1, batch_size=11, seed=0, evaluate_every=1)
    short = examples[0], examples[1][:9]
    with pytest.raises(ValueError, match="test has 10 examples and labels of shape"):
        fit(net, examples, short, sgd, steps=1, batch_size=5, seed=0, evaluate_every=1)
