"""bnlib.training: what a run records, and that it learns and repeats."""

import subprocess
import sys

import numpy as np
import pytest

from bnlib import mnist, nn, optim, training


@pytest.fixture(scope="module")
def digits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNLIB_DATA", "embedded")
        data = mnist.load()
    return (
        (mnist.scale(data.train_images[:2000]), data.train_labels[:2000]),
        (mnist.scale(data.test_images[:500]), data.test_labels[:500]),
    )


def run(digits, *, seed=0, steps=250, every=100, watch=None, probe=None, net_seed=0, fit=None):
    rng = np.random.default_rng(net_seed)
    net = nn.Sequential(
        nn.Linear(784, 30, std=0.1, rng=rng, bias=False),
        nn.BatchNorm(30),
        nn.Sigmoid(),
        nn.Linear(30, 10, std=0.1, rng=rng),
    )
    optimizer = optim.SGD(net.parameters(), 0.5)
    return net, training.fit(
        net, *digits, optimizer, steps=steps, batch_size=50, seed=seed, evaluate_every=every,
        watch=watch, probe=probe, **(fit or {}),
    )  # fmt: skip


def test_a_run_learns_and_records(digits):
    probe = digits[1][0][:100]
    net, record = run(digits, watch={"last sigmoid": 2}, probe=probe)
    np.testing.assert_array_equal(record.steps, [0, 100, 200, 250])
    assert record.test_accuracy[0] < 0.3 < 0.75 < record.test_accuracy[-1]
    assert np.isnan(record.train_loss[0])
    assert record.train_loss[-1] < record.train_loss[1]
    assert record.watched["last sigmoid"].shape == (4, 3, 30)
    assert not net.training
    expected = np.percentile(net.inputs(probe, [2])[2], (15, 50, 85), axis=0)
    np.testing.assert_allclose(record.watched["last sigmoid"][-1], expected)
    assert training.accuracy(net, *digits[1]) == record.test_accuracy[-1]


def test_steps_to():
    record = training.Record(
        np.array([0, 10, 20]), np.array([0.1, 0.8, 0.9]), np.array([np.nan, 1, 1]), {}
    )
    assert record.steps_to(0.8) == 10
    assert record.steps_to(0.85) == 20
    assert record.steps_to(0.95) is None


def test_the_same_seeds_give_the_same_run_and_others_another(digits):
    first, again, other = (run(digits, seed=s, steps=100)[1] for s in (0, 0, 1))
    np.testing.assert_array_equal(first.train_loss, again.train_loss)
    assert first.train_loss[-1] != other.train_loss[-1]


def test_watching_does_not_change_the_run(digits):
    plain = run(digits, steps=100)[1]
    watched = run(digits, steps=100, watch={"s": 2}, probe=digits[1][0])[1]
    np.testing.assert_array_equal(plain.train_loss, watched.train_loss)


def test_every_example_is_seen_once_an_epoch():
    batches = training._batches(10, 3, np.random.default_rng(0))
    epoch = np.concatenate([next(batches) for _ in range(3)])
    assert len(set(epoch)) == 9
    assert set(np.concatenate([next(batches) for _ in range(3)])) <= set(range(10))
    even = training._batches(9, 3, np.random.default_rng(0))
    assert set(np.concatenate([next(even) for _ in range(3)])) == set(range(9))


def test_without_reshuffling_every_epoch_has_the_same_batches(digits):
    batches = training._batches(9, 3, np.random.default_rng(0), reshuffle=False)
    epochs = [[next(batches).tolist() for _ in range(3)] for _ in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    batches = training._batches(9, 3, np.random.default_rng(0))
    assert [next(batches).tolist() for _ in range(3)] == epochs[0]
    assert [next(batches).tolist() for _ in range(3)] != epochs[0]
    same = run(digits, steps=41, fit={"reshuffle": False})[1]  # 40 steps an epoch
    assert same.train_loss[-1] != run(digits, steps=41)[1].train_loss[-1]


def test_accuracy_on_further_examples(digits):
    train, test = digits
    others = {"same": test, "half": (test[0][::2], test[1][::2])}
    net, record = run(digits, steps=100, fit={"others": others})
    np.testing.assert_array_equal(record.accuracies["same"], record.test_accuracy)
    assert record.accuracies["half"][-1] == training.accuracy(net, *others["half"])
    np.testing.assert_array_equal(record.train_loss, run(digits, steps=100)[1].train_loss)
    with pytest.raises(ValueError, match='others has "test"'):
        run(digits, fit={"others": {"test": test}})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_the_run(digits):
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Linear(784, 10, std=0.1, rng=rng))
    optimizer = optim.SGD(net.parameters(), 1e37)
    record = training.fit(
        net, *digits, optimizer, steps=100, batch_size=50, seed=0, evaluate_every=50
    )
    assert record.diverged and record.steps[-1] == optimizer.steps + 1 < 50
    assert not np.isfinite(record.train_loss[-1]) and len(record.test_accuracy) == 2
    assert not run(digits, steps=10)[1].diverged


def test_accuracy_counts_every_example():
    net = nn.Sequential(nn.ReLU())
    labels = np.arange(2500) % 3
    right = np.eye(3)[labels]
    assert training.accuracy(net, right, labels) == 1
    assert training.accuracy(net, right, (labels + (np.arange(2500) >= 2000)) % 3) == 0.8


def test_the_loss_is_that_since_the_evaluation_before(digits):
    _, every_step = run(digits, steps=200, every=1)
    _, record = run(digits, steps=200)
    expected = [every_step.train_loss[1:101].mean(), every_step.train_loss[101:].mean()]
    np.testing.assert_allclose(record.train_loss[1:], expected)


def test_no_output_where_there_is_no_terminal(digits, capfd):
    run(digits, steps=5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_terminal_shows_a_progress_bar():
    import os
    import pty
    import termios

    code = "from bnlib.training import progress; list(progress(range(3), 3, 'step'))"
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    subprocess.run([sys.executable, "-c", code], stderr=slave, check=True)
    os.write(slave, b"<end>")
    shown = b""
    while not shown.endswith(b"<end>"):
        shown += os.read(master, 10_000)
    os.close(slave)
    os.close(master)
    assert b"3/3" in shown


X = np.zeros((10, 2), np.float32)


@pytest.mark.parametrize(
    "message, changes",
    [
        ("steps is 0, evaluate_every 1", {"steps": 0}),
        ("batch_size is 11; expected 1 to 10, the training set", {"batch_size": 11}),
        ("watch is given and probe is not", {"watch": {"a": 0}}),
        ("evaluate_every 0; expected 1", {"evaluate_every": 0}),
        ("batch_size is 0; expected 1 to 10", {"batch_size": 0}),
        (r"watch\['a'\] is 5; the network has 1 layers", {"watch": {"a": 5}, "probe": X}),
        (r"test has 10 examples and labels of shape \(9,\)", {"test": (X, np.zeros(9, int))}),
        (r"test has 10 examples and labels of shape \(10, 1\)", {"test": (X, np.zeros((10, 1)))}),
        (r"train has 10 examples and labels of shape \(9,\)", {"train": (X, np.zeros(9, int))}),
        ("test has 0 examples", {"test": (X[:0], np.zeros(0, int))}),
    ],
)
def test_bad_input(message, changes):
    data = np.zeros((10, 2), np.float32), np.zeros(10, int)
    net = nn.Sequential(nn.Linear(2, 3, std=1, rng=np.random.default_rng(0)))
    arguments = {"train": data, "test": data, "steps": 1, "batch_size": 2, "evaluate_every": 1}
    with pytest.raises(ValueError, match=message):
        training.fit(
            net, optimizer=optim.SGD(net.parameters(), 0.1), seed=0, **(arguments | changes)
        )
