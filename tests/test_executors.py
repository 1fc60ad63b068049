"""Sweeps on executors of other processes: the same bits, workers that die, what cannot be sent."""

import copy
import functools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import interrupted
import numpy as np
import pytest
import small

import dlcore as dl

SETTINGS = dict(seeds=4, lr=[0.01, 0.1], shard=2, batch_size=10, backend="numpy", test=True)


def sweep(folder, epochs=4, **changed):
    blueprint = functools.partial(interrupted.marked, str(folder))
    settings = SETTINGS | dict(epochs=epochs, hidden=[8, 12]) | changed
    return dl.sweep(blueprint, small.blobs(train=600), **settings)


def processes(workers=2):
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def kill_one_of(folder, spare=()):
    """Wait until a process has begun a shard, and kill it; return its number."""
    own = {str(os.getpid()), *spare}
    while not (begun := {path.name for path in folder.iterdir()} - own):
        time.sleep(0.005)
    time.sleep(0.1)
    os.kill(int(min(begun)), signal.SIGKILL)
    return min(begun)


class Killer(threading.Thread):
    """Kills a process in the middle of a shard, once one has begun."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.killed = folder, None
        self.start()

    def run(self):
        self.killed = kill_one_of(self.folder)


@pytest.fixture
def folder(tmp_path):
    """Where processes leave their numbers."""
    made = tmp_path / "marks"
    made.mkdir()
    return made


# The cluster's own shutdown talks to sockets that are closing.
@pytest.mark.filterwarnings("default:::distributed", "default:::tornado", "default:::dask")
@pytest.mark.filterwarnings("default::ResourceWarning")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.slow
def test_dask_with_a_worker_killed(folder):
    """Two worker processes, one killed in the middle: bitwise what the local threads give."""
    distributed = pytest.importorskip("distributed")
    expected = sweep(folder, epochs=30)
    (folder / str(os.getpid())).unlink()
    options = dict(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        workers = {str(pid) for pid in client.run(os.getpid).values()}
        killer = Killer(folder)
        found = sweep(folder, epochs=30, executor=client.get_executor())
        killer.join(10)
    # This process has made networks only to check the settings.
    seen = {path.name for path in folder.iterdir()} - {str(os.getpid())}
    assert killer.killed in workers
    assert len(seen) >= 2
    assert expected.identical(found)


@pytest.mark.thorough
def test_process_pool(folder):
    """Processes that start anew; inside ``fit`` BLAS has one thread."""
    expected = sweep(folder, probe=interrupted.blas_threads)
    with processes() as pool:
        found = sweep(folder, probe=interrupted.blas_threads, executor=pool)
        assert expected.identical(found)
        assert (found.threads == 1).all()
        assert len({path.name for path in folder.iterdir()} - {str(os.getpid())}) >= 1
        with pytest.raises(ValueError, match="x: expected shape"):
            dl.sweep(dl.mlp([5, 3]), small.blobs(), lr=0.1, epochs=1, seeds=1, executor=pool)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.thorough
def test_a_broken_process_pool_and_the_way_on(folder, tmp_path):
    """A pool whose worker was killed is of no more use; with a checkpoint its work is not lost."""
    keep = dl.Checkpoint(tmp_path / "kept", seconds=0)
    expected = sweep(folder, epochs=20)
    (folder / str(os.getpid())).unlink()
    killer = Killer(folder)
    with processes() as pool, pytest.raises(BrokenProcessPool) as caught:
        sweep(folder, epochs=20, executor=pool, checkpoint=keep)
    killer.join(10)
    assert "it was killed or had no memory left" in "".join(caught.value.__notes__)
    assert (tmp_path / "kept").is_dir()
    assert expected.identical(sweep(folder, epochs=20, checkpoint=keep))


def local():
    return dl.mlp([6, 3])()


def nested():
    def blueprint():
        return dl.mlp([6, 3])()

    return blueprint


class Unsendable(dl.SGD):
    def __init__(self):
        self.lock = threading.Lock()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("part", "network", "settings"),
    [
        ("nested.<locals>.blueprint", nested(), {}),
        ("<lambda>", lambda: dl.mlp([6, 3])(), {}),
        ("<lambda>", local, dict(schedule=lambda step, steps: 1.0)),
        ("lock", local, dict(optimizer={"a": dl.SGD(), "b": Unsendable()})),
        ("<lambda>", local, dict(probe=lambda network, before: {})),
    ],
)
def test_what_cannot_be_sent_is_named(part, network, settings):
    """The error of pickle names the thing, and a note says what to do."""
    options = dict(lr=0.1, epochs=1, seeds=2, shard=1, backend="numpy") | settings
    with (
        processes(1) as pool,
        pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as e,
    ):
        dl.sweep(network, small.blobs(), executor=pool, **options)
    assert part in str(e.value)
    assert "not of a notebook, or an executor" in "".join(e.value.__notes__)
    with ThreadPoolExecutor(2) as pool:
        dl.sweep(network, small.blobs(), executor=pool, **options)


def test_other_errors_come_as_they_are():
    def probe(network, before):
        raise RuntimeError("not today")

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="not today"):
        dl.sweep(local, small.blobs(), lr=0.1, epochs=1, seeds=1, executor=pool, probe=probe)


# --------------------------------------------------------------------------------------------------
# Networks travel too

LAYERS = {
    "mlp": (interrupted.MLP, small.blobs),
    "conv": (interrupted.CONV, small.sequences),
    "rnn": (small.rnn(), small.sequences),
}


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("seeds", [3, range(3)], ids=["plain", "replicas"])
def test_a_network_can_be_copied_and_sent(name, way, seeds):
    """A copy has arrays of its own, and trains to the same bits."""
    layers, make = LAYERS[name]
    network = dl.Network(layers, seeds, "numpy")
    dl.fit(network, make(), lr=0.05, epochs=1, batch_size=20)
    network.freeze(len(network.layers) - 1)
    other = copy.deepcopy(network) if way == "deepcopy" else pickle.loads(pickle.dumps(network))
    assert not np.shares_memory(other.parameters, network.parameters)
    for slot in other.slots:
        layer = other.layers[slot.layer]
        assert np.shares_memory(getattr(layer, slot.name), other.parameters)
        assert np.shares_memory(getattr(layer, "d" + slot.name), other.gradients)
    for each in (network, other):
        dl.fit(each, make(), dl.NAdam, lr=0.05, epochs=2, batch_size=20)
    assert network.arrays().keys() == other.arrays().keys()
    for key, a in network.arrays().items():
        assert a.tobytes() == other.arrays()[key].tobytes()
    assert other.frozen == network.frozen


@pytest.mark.parametrize("name", sorted(dl.initializers.NAMES))
def test_initializers_can_be_sent_and_have_names(name):
    initializer = dl.initializers.get(name)
    other = pickle.loads(pickle.dumps(initializer))
    draws = [f(np.random.default_rng(0), (3, 4)) for f in (initializer, other)]
    assert (draws[0] == draws[1]).all()
    assert getattr(initializer, "__name__", name) == name


def test_initializers_label_a_sweep():
    pair = [dl.initializers.he_normal, dl.initializers.glorot_uniform]
    found = dl.sweep(dl.mlp([6, 3]), small.blobs(), lr=0.1, epochs=1, seeds=1, initializer=pair)
    assert found.initializer.values.tolist() == ["he_normal", "glorot_uniform"]
