"""The contract: replica r of a batch has the bits of its seed trained alone."""

import multiprocessing
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import small

import dlcore as dl

NUMPY = dl.get_backend("numpy")
MLP = {
    name: dl.mlp([6, 9, 7, 3], activation=getattr(dl, name), initializer="glorot_normal")
    for name in ("ReLU", "Logistic", "Tanh", "GELU", "ELU", "Softplus", "Swish", "LeakyReLU")
}
CLIP = (dl.clip_by_norm(0.3),)
CASES = {
    "relu sgd": (MLP["ReLU"], dict(optimizer=dl.SGD, lr=0.1)),
    "relu adam": (MLP["ReLU"], dict(optimizer=dl.Adam, lr=0.01)),
    "logistic momentum": (MLP["Logistic"], dict(optimizer=dl.Momentum, lr=0.05)),
    "tanh adam decay": (MLP["Tanh"], dict(optimizer=dl.Adam, lr=0.01, weight_decay=0.03)),
    "gelu momentum clip": (
        MLP["GELU"],
        dict(optimizer=dl.Momentum(0.5), lr=0.05, regularizers=CLIP),
    ),
    "elu sgd decay clip": (
        MLP["ELU"],
        dict(optimizer=dl.SGD, lr=0.05, weight_decay=0.1, regularizers=CLIP),
    ),
    "softplus adam binary": (MLP["Softplus"], dict(lr=0.01, loss=dl.BinaryCrossEntropy())),
    "swish sgd squared": (MLP["Swish"], dict(optimizer=dl.SGD, lr=0.1, loss=dl.MeanSquaredError())),
    "leaky schedule": (MLP["LeakyReLU"], dict(lr=0.02, schedule=lambda k, n: 1 - k / n)),
    "rnn adam": (small.rnn, dict(optimizer=dl.Adam, lr=0.01)),
    "rnn momentum clip": (small.rnn, dict(optimizer=dl.Momentum, lr=0.05, regularizers=CLIP)),
}
CURVES = ("train_loss", "valid_loss", "valid_accuracy", "diverged")
_alone = {}


def data_for(case, own):
    make = small.sequences if CASES[case][0] is small.rnn else small.blobs
    return make if own else make(3)


def train(case, seeds, own, **changes):
    blueprint, options = CASES[case]
    network = dl.Network(blueprint, seeds, NUMPY)
    # 60 or 40 examples in batches of 16: the last batch is short.
    run = dict(epochs=2, batch_size=16, probe=dl.probes.learning) | options | changes
    return network, dl.fit(network, data_for(case, own), **run)


def alone(case, seed, own, lr, decay):
    key = (case, seed, own, lr, decay)
    if key not in _alone:
        _alone[key] = train(case, seed, own, lr=lr, weight_decay=decay)
    return _alone[key]


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("replicas", [1, 2, 5, 20])
@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
@pytest.mark.parametrize("case", CASES)
def test_replica_equals_seed_alone(case, own, replicas):
    seeds = [(7 * r) % 23 for r in range(replicas)]
    lrs = [CASES[case][1]["lr"] * (1 + r % 3) for r in range(replicas)]
    decays = [CASES[case][1].get("weight_decay", 0) * (1 + r % 2) for r in range(replicas)]
    network, history = train(case, seeds, own, lr=lrs, weight_decay=decays)
    assert not history.diverged.any()
    for r, seed in enumerate(seeds):
        single, its_history = alone(case, seed, own, lrs[r], decays[r])
        assert same(small.parameters(network, r), small.parameters(single)), f"replica {r}"
        for name in CURVES:
            assert same(getattr(history, name)[r], getattr(its_history, name)), name
        for name in history.probes:
            assert same(history.probes[name][r], its_history.probes[name]), name


def test_replicas_differ():
    network, _ = train("relu adam", range(5), False)
    rows = {small.parameters(network, r).tobytes() for r in range(5)}
    assert len(rows) == 5


def test_one_replica_with_axis_equals_plain():
    with_axis, history = train("relu adam", [4], False)
    plain, its_history = train("relu adam", 4, False)
    assert same(small.parameters(with_axis, 0), small.parameters(plain))
    assert same(history.valid_loss[0], its_history.valid_loss)
    assert its_history.valid_loss.shape == (2,)
    assert history.valid_loss.shape == (1, 2)


def test_book_size_net():
    """Other sizes take other paths through BLAS: batches of 100, and evaluation in two chunks."""
    data = small.blobs(0, train=730, valid=640, features=40, classes=10)
    blueprint = dl.mlp([40, 100, 100, 10])
    for optimizer in (dl.Adam, dl.Momentum):
        network = dl.Network(blueprint, range(12), NUMPY)
        history = dl.fit(network, data, optimizer, lr=0.003, epochs=1)
        for r in (0, 5, 11):
            single = dl.Network(blueprint, r, NUMPY)
            its_history = dl.fit(single, data, optimizer, lr=0.003, epochs=1)
            assert same(small.parameters(network, r), small.parameters(single))
            assert same(history.valid_loss[r], its_history.valid_loss)
            assert same(
                dl.evaluate(network, data, "test")[0][r], dl.evaluate(single, data, "test")[0]
            )


@pytest.mark.parametrize("batch_size", [1, 7, 60, 61, 1000])
def test_any_batch_size(batch_size):
    network, history = train("tanh adam decay", [3, 8], False, batch_size=batch_size)
    single, its_history = train("tanh adam decay", 8, False, batch_size=batch_size)
    assert same(small.parameters(network, 1), small.parameters(single))
    assert same(history.valid_loss[1], its_history.valid_loss)
    assert history.step.tolist() == [-(-60 // batch_size), 2 * -(-60 // batch_size)]


def test_batch_larger_than_set_is_the_whole_set():
    whole, _ = train("relu sgd", [3, 8], False, batch_size=60)
    larger, _ = train("relu sgd", [3, 8], False, batch_size=500)
    assert same(whole.parameters, larger.parameters)


class Serial(Executor):
    """Runs each call at once, in the caller."""

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        return future


def sweep(executor=None, shard=10, **changes):
    options = dict(
        optimizer=[dl.SGD, dl.Adam], lr=[0.01, 0.03, 0.1], seeds=4, epochs=2, batch_size=16
    )
    options |= changes
    network = options.pop("network", MLP["ReLU"])
    data = options.pop("data", small.blobs(3))
    return dl.sweep(
        network, data, executor=executor, shard=shard, backend=NUMPY, test=True, **options
    )


@pytest.fixture(scope="module")
def reference():
    return sweep(Serial(), shard=1)


@pytest.mark.parametrize("shard", [1, 2, 5, 12, 20])
def test_sharding_changes_nothing(reference, shard):
    assert sweep(shard=shard).identical(reference)


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(reference, workers):
    with ThreadPoolExecutor(workers) as pool:
        assert sweep(pool, shard=3).identical(reference)


@pytest.mark.thorough
def test_processes_change_nothing(reference):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert sweep(pool, shard=5).identical(reference)
        assert sweep(pool, network=small.rnn, data=small.sequences).identical(
            sweep(Serial(), shard=1, network=small.rnn, data=small.sequences)
        )


def test_sweep_equals_fit_alone(reference):
    network = dl.Network(MLP["ReLU"], 2, NUMPY)
    data = small.blobs(3)
    history = dl.fit(network, data, dl.Adam, lr=0.03, epochs=2, batch_size=16)
    run = reference.sel(optimizer="Adam", lr=0.03, seed=2)
    assert same(run.valid_loss.values, history.valid_loss)
    loss, accuracy = dl.evaluate(network, data, "test")
    assert run.test_loss == loss
    assert run.test_accuracy == accuracy


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
def test_sharding_with_decay_and_data(own):
    data = small.blobs if own else small.blobs(1)
    options = dict(weight_decay=[0.0, 0.1], regularizers=CLIP, data=data, lr=0.02)
    assert sweep(shard=3, **options).identical(sweep(shard=8, **options))
