"""Shards on a device: what runs together, how many at once, on which device, and with which bits."""

from __future__ import annotations

import functools
import threading
import tracemalloc

import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import experiments, packing

DEVICE = dl.Backend("double", double.xp)
NET = dl.mlp([6, 8, 3])
USUAL = dict(seeds=3, steps=6, batch_size=20, progress=False)


@pytest.fixture
def runs(monkeypatch):
    """Replicas, and devices, of each call of ``fit`` in the order of their ends."""
    found = []
    fit, lock = experiments.fit, threading.Lock()

    def counted(network, *args, **options):
        history = fit(network, *args, **options)
        with lock:
            found.append((network.replicas, double.current_device()))
        return history

    monkeypatch.setattr(experiments, "fit", counted)
    return found


def same(device, host):
    """The same names, labels and bits."""
    assert set(device.variables) == set(host.variables)
    for name in device.variables:
        np.testing.assert_array_equal(device[name].values, host[name].values, err_msg=name)


def blueprint(initializer="he_normal", bias=0.0, activation=dl.ReLU, dropout=0.0, batch_norm=False):
    options = dict(activation=activation, dropout=dropout, batch_norm=batch_norm)
    return dl.mlp([6, 8, 3], initializer=initializer, bias=bias, **options)()


def by_angle(rho=1.0):
    matrix = dl.initializers.orthogonal(rho)
    return [dl.Flatten(2), dl.SimpleRNN(2, 4, recurrent_initializer=matrix), dl.Dense(4, 3)]


SWEEPS = {  # blueprint, settings, replicas of each call of fit
    "rates": (NET, dict(lr=[0.01, 0.03, 0.1]), [9]),
    "rates and decay": (NET, dict(lr=[0.01, 0.1], weight_decay=[0.0, 0.1]), [12]),
    "first weights": (blueprint, dict(initializer=["normal", "he_normal"], lr=[0.01, 0.1]), [12]),
    "biases": (blueprint, dict(bias=[0.0, 0.1, -1.0], lr=0.01), [9]),
    "first weights, batch norm": (
        functools.partial(blueprint, batch_norm="before"),
        dict(initializer=["normal", "uniform"], lr=0.01),
        [6],
    ),
    "recurrent first weights": (by_angle, dict(rho=[0.9, 1.2], lr=[0.01, 0.1]), [12]),
    "strengths": (NET, dict(regularizers={s: dl.L2(s) for s in (0.01, 0.1)}, lr=[0.01, 0.1]), [12]),
    "strengths in tuples": (
        NET,
        dict(regularizers={s: (dl.L1(s),) for s in (0.01, 0.1)}, lr=0.1),
        [6],
    ),
    "penalties of two kinds": (
        NET,
        dict(regularizers={"1": dl.L1(0.1), "2": dl.L2(0.1)}, lr=0.1),
        [3, 3],
    ),
    "with and without": (NET, dict(regularizers={"0": (), "2": (dl.L2(0.1),)}, lr=0.1), [3, 3]),
    "lengths": (NET, dict(regularizers={c: dl.MaxNorm(c) for c in (1.0, 2.0)}, lr=0.1), [3, 3]),
    "activations": (blueprint, dict(activation=[dl.ReLU, dl.Tanh], lr=[0.1, 0.2]), [6, 6]),
    "optimizers": (NET, dict(optimizer=[dl.SGD, dl.Adam], lr=0.01), [3, 3]),
    "batches": (NET, dict(batch_size=[10, 20], lr=0.01), [3, 3]),
    "shard means nothing": (NET, dict(lr=[0.01, 0.1], shard=1), [6]),
    "early stopping": (NET, dict(lr=[0.01, 3.0], early_stopping=dl.EarlyStopping(1)), [6]),
}


@pytest.mark.parametrize(("net", "settings", "sizes"), SWEEPS.values(), ids=SWEEPS)
@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
def test_what_runs_together_has_the_bits_of_what_runs_alone(net, settings, sizes, own, runs):
    make = small.sequences if net is by_angle else small.blobs
    data, options = (make if own else make()), USUAL | settings | dict(test=True)
    found = dl.sweep(net, data, backend=DEVICE, **options)
    assert [size for size, _ in runs] == sizes
    same(found, dl.sweep(net, data, backend="numpy", **options))


def test_memory_decides(runs, monkeypatch):
    settings = USUAL | dict(lr=[0.01, 0.03, 0.1, 0.3], seeds=4)
    shard = experiments.Shard(NET, {}, small.blobs(), (0,), DEVICE, dict(batch_size=20), False)
    need = packing.bytes_per_replica(shard)
    host = dl.sweep(NET, small.blobs(), backend="numpy", **settings)
    for room, sizes in ((16, [16]), (15, [8, 8]), (5, [4] * 4), (1, [1] * 16), (0, [1] * 16)):
        runs.clear()
        monkeypatch.setattr(double.machine, "memory", int(room * need / packing.SHARE) + 1)
        same(dl.sweep(NET, small.blobs(), backend=DEVICE, **settings), host)
        assert [size for size, _ in runs] == sizes


def test_the_estimate_holds_what_a_run_takes():
    """Peak of the double's arrays, its data left out, of one replica more."""

    def peak(network, replicas, data):
        tracemalloc.start()
        dl.sweep(
            network, data, backend=DEVICE, **USUAL | dict(seeds=replicas, lr=0.01, batch_size=50)
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    data = small.blobs(train=200, valid=200)
    for network in (
        dl.mlp([6, 100, 100, 3]),
        dl.mlp([6, 60, 60, 3], batch_norm="before", dropout=0.2),
    ):
        shard = experiments.Shard(network, {}, data, (0,), DEVICE, dict(batch_size=50), False)
        peak(network, 2, data)
        grown = (peak(network, 22, data) - peak(network, 2, data)) / 20
        assert 0.5 * grown < packing.bytes_per_replica(shard) < 4 * grown


def out_of_memory_above(monkeypatch, most):
    tried, fit = [], experiments.fit

    def limited(network, *args, **options):
        tried.append(network.replicas)
        if network.replicas > most:
            raise MemoryError("out of memory on the device")
        return fit(network, *args, **options)

    monkeypatch.setattr(experiments, "fit", limited)
    return tried


@pytest.mark.parametrize(
    ("most", "tried"),
    [(12, [12]), (6, [12, 6, 6]), (3, [12, 6, 3, 3, 6, 3, 3]), (5, [12, 6, 3, 3, 6, 3, 3])],
)
def test_out_of_memory_halves_the_shard(most, tried, monkeypatch):
    settings = USUAL | dict(initializer=["normal", "he_normal"], lr=[0.01, 0.1], test=True)
    host = dl.sweep(blueprint, small.blobs(), backend="numpy", **settings)
    seen = out_of_memory_above(monkeypatch, most)
    same(dl.sweep(blueprint, small.blobs(), backend=DEVICE, **settings), host)
    assert seen == tried


def test_one_replica_too_many_is_an_error(monkeypatch):
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(MemoryError, match="out of memory"):
        dl.sweep(NET, small.blobs(), backend=DEVICE, lr=0.1, **USUAL)


def test_memory_errors_of_the_host_stay_errors(monkeypatch):
    tried = out_of_memory_above(monkeypatch, 1)
    with pytest.raises(MemoryError):
        dl.sweep(NET, small.blobs(), backend="numpy", lr=0.1, shard=3, **USUAL)
    assert tried == [3]


def test_two_devices_have_shards_of_their_own(runs, monkeypatch):
    monkeypatch.setattr(double.machine, "devices", 2)
    settings = USUAL | dict(optimizer=[dl.SGD, dl.Adam, dl.Momentum, dl.NAdam], lr=[0.01, 0.1])
    found = dl.sweep(NET, small.blobs(), backend=DEVICE, **settings)
    assert {size for size, _ in runs} == {6}
    assert len(runs) == 4
    same(found, dl.sweep(NET, small.blobs(), backend="numpy", **settings))


def test_an_error_on_one_device_ends_all(monkeypatch):
    monkeypatch.setattr(double.machine, "devices", 2)
    out_of_memory_above(monkeypatch, 0)
    with pytest.raises(MemoryError):
        dl.sweep(NET, small.blobs(), backend=DEVICE, lr=0.1, optimizer=[dl.SGD, dl.Adam], **USUAL)


def test_arrays_of_two_devices_do_not_meet(monkeypatch):
    monkeypatch.setattr(double.machine, "devices", 2)
    here = DEVICE.asarray(np.ones(3))
    with DEVICE.on(1):
        there = DEVICE.asarray(np.ones(3))
        for call in (lambda: here + there, lambda: there + here, here.sum):
            with pytest.raises(TypeError, match="an array of device 1"):
                call()
    assert (here + here).get().tolist() == [2, 2, 2]
    assert (DEVICE.devices(), dl.get_backend("numpy").devices()) == ([0, 1], [])


def test_results_are_kept_and_found(tmp_path, runs, monkeypatch):
    settings = USUAL | dict(initializer=["normal", "he_normal"], lr=[0.01, 0.1])
    first = dl.sweep(blueprint, small.blobs(), backend=DEVICE, checkpoint=tmp_path, **settings)
    assert [size for size, _ in runs] == [6, 6]
    monkeypatch.setattr(double.machine, "memory", 10)  # another machine cuts shards otherwise
    same(dl.sweep(blueprint, small.blobs(), backend=DEVICE, checkpoint=tmp_path, **settings), first)
    assert len(runs) == 2


def test_cut_shards_are_kept_too(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(double.machine, "memory", 10)
    first = dl.sweep(NET, small.blobs(), backend=DEVICE, checkpoint=tmp_path, lr=0.1, **USUAL)
    assert [size for size, _ in runs] == [1, 1, 1]
    assert len(list(tmp_path.glob("*.npz"))) == 1
    same(dl.sweep(NET, small.blobs(), backend=DEVICE, checkpoint=tmp_path, lr=0.1, **USUAL), first)
    assert len(runs) == 3


@pytest.mark.parametrize(("backend", "bars"), [(DEVICE, ["shard"]), ("numpy", ["shard"])])
def test_one_bar_for_a_sweep(backend, bars, monkeypatch):
    """Not one for each shard, which would flash."""
    shown = []
    monkeypatch.setattr(experiments, "cores", lambda: 1)

    def bar(steps, progress, unit="epoch"):
        if progress is not False:
            shown.append(unit)
        return steps

    for module in (packing, experiments, dl.training):
        monkeypatch.setattr(module, "bar", bar)
    settings = USUAL | dict(optimizer=[dl.SGD, dl.Adam], lr=0.1)
    settings.pop("progress")
    dl.sweep(NET, small.blobs(), backend=backend, **settings)
    assert shown == bars
    shown.clear()
    dl.sweep(NET, small.blobs(), backend=backend, **settings | dict(optimizer=dl.SGD), shard=9)
    assert shown == ["epoch"]
