"""Stopping: within a second, between whole steps, everywhere; and what must fail before the first step."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import interrupted
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import experiments, interrupts, storage, training

POSIX = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
PLAIN = dl.mlp([6, 8, 3])
FOREVER = dict(lr=0.01, epochs=10**5, batch_size=10, backend="numpy", seeds=4, shard=1)


def pressed(call, after=0.4):
    """Call, press Ctrl-C after some seconds as a stop button does, return the seconds to the error."""
    return pressed_after(lambda: time.sleep(after), call)


def pressed_after(wait, call):
    """Press once ``wait()`` has ended; return the seconds from there to the interrupt."""
    at = []

    def press():
        wait()
        at.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        return time.monotonic() - at[0]
    finally:
        thread.join()


class Counter:
    """A regulariser that counts steps; a new one when it is sent."""

    steps = 0

    def weights(self, network):
        Counter.steps += 1

    def __reduce__(self):
        return Counter, ()


def standstill(folder=None):
    """Assert that nothing computes any more in the background."""
    deadline = time.monotonic() + 1
    while True:
        before = Counter.steps, folder and [(p.name, p.stat().st_size) for p in folder.iterdir()]
        time.sleep(0.3)
        after = Counter.steps, folder and [(p.name, p.stat().st_size) for p in folder.iterdir()]
        if before == after:
            return
        assert time.monotonic() < deadline


# Sweeps ------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("cores", [1, 2, 4])
def test_a_sweep_stops_within_a_second(cores, monkeypatch):
    monkeypatch.setattr(experiments, "cores", lambda: cores)
    run = dict(FOREVER, regularizers=Counter())
    assert pressed(lambda: dl.sweep(PLAIN, small.blobs(), **run)) < 1
    standstill()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@POSIX
def test_with_an_executor_of_threads(monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        run = dict(FOREVER, regularizers=Counter(), executor=pool)
        assert pressed(lambda: dl.sweep(PLAIN, small.blobs(), **run)) < 1
        standstill()
        run |= dict(epochs=1)
        dl.sweep(PLAIN, small.blobs(), **run)  # the pool is as good as before


class Scribe:
    """A regulariser that appends a byte to a file of its process at each step."""

    def __init__(self, folder):
        self.folder = str(folder)

    def weights(self, network):
        with open(os.path.join(self.folder, str(os.getpid())), "ab") as file:
            file.write(b".")


@pytest.mark.thorough
@POSIX
def test_with_processes(tmp_path):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        run = dict(FOREVER, regularizers=Scribe(tmp_path), executor=pool)

        def call():
            dl.sweep(PLAIN, small.blobs(), **run)

        assert pressed_after(lambda: wait_for(tmp_path), call) < 1.5
        standstill(tmp_path)
        found = dl.sweep(PLAIN, small.blobs(), **run | dict(epochs=1))
        assert found.valid_loss.notnull().all()


def wait_for(folder):
    while len(os.listdir(folder)) < 2:
        time.sleep(0.01)


class Calls(list):
    """What is noted in it makes no other experiment."""

    def __reduce__(self):
        return Calls, ()


@POSIX
def test_what_has_ended_is_kept(tmp_path, monkeypatch):
    """Short shards end, long ones are stopped; the next call trains only these."""
    monkeypatch.setattr(experiments, "cores", lambda: 2)
    made = Calls()

    def blueprint(depth=1):
        made.append(depth)
        return dl.mlp([6, *[4] * depth, 3])()

    run = dict(FOREVER, seeds=1, depth=[1, 2, 3], checkpoint=dl.Checkpoint(tmp_path, seconds=0))
    run["epochs"] = {"one": 1, "many": 10**5}

    def kept():
        return [p for p in tmp_path.glob("*.npz") if not p.name.endswith(".fit.npz")]

    def first():
        while not kept():
            time.sleep(0.01)

    pressed_after(first, lambda: dl.sweep(blueprint, small.blobs(), **run))
    results = kept()
    assert 1 <= len(results) <= 3
    count = len(made)
    found = dl.sweep(blueprint, small.blobs(), **run | dict(epochs={"one": 1}))
    assert found.valid_loss.notnull().all()
    assert len(made) - count <= 2 * (3 - len(results))


@pytest.mark.parametrize("kind", ["own", "threads", "serial"])
def test_an_error_in_one_shard_ends_the_others(kind, monkeypatch):
    monkeypatch.setattr(experiments, "cores", lambda: 1 if kind == "serial" else 2)

    def augment(x, noise):
        if x.shape[-2] == 7:
            raise RuntimeError("not this one")
        return x

    run = dict(FOREVER, seeds=1, batch_size=[7, 10, 11], augment=augment, regularizers=Counter())
    start = time.monotonic()
    if kind == "threads":
        with ThreadPoolExecutor(2) as pool, pytest.raises(RuntimeError, match="not this one"):
            dl.sweep(PLAIN, small.blobs(), executor=pool, **run)
    else:
        with pytest.raises(RuntimeError, match="not this one"):
            dl.sweep(PLAIN, small.blobs(), **run)
    assert time.monotonic() - start < 5
    standstill()


def test_a_permit_is_withdrawn_in_other_processes_of_this_machine(monkeypatch):
    permit = interrupts.Permit(processes=True)
    sent, elsewhere = (pickle.loads(pickle.dumps(permit)) for _ in range(2))
    elsewhere.machine = "another"
    assert not permit.withdrawn
    assert not sent.withdrawn
    permit.withdraw()
    time.sleep(2 * interrupts.PAUSE)
    assert permit.withdrawn
    assert sent.withdrawn
    assert not elsewhere.withdrawn
    assert not os.path.exists(permit.path)
    time.sleep(2 * interrupts.PAUSE)
    with interrupts.permitted(sent), pytest.raises(interrupts.Stopped):
        interrupts.check()
    interrupts.check()


def test_what_is_raised_can_be_sent_back():
    """What a pool cannot read breaks it for good."""
    sent = pickle.loads(pickle.dumps(interrupts.Stopped()))
    assert type(sent) is interrupts.Stopped
    assert str(sent) == str(interrupts.Stopped())


def test_a_look_costs_next_to_nothing():
    """Ten thousand looks, of which one or two ask the disk."""
    asked, exists = [], os.path.exists
    permit = pickle.loads(pickle.dumps(interrupts.Permit(processes=True)))
    try:
        os.path.exists = lambda path: asked.append(path) or exists(path)
        with interrupts.permitted(permit):
            for _ in range(10_000):
                interrupts.check()
    finally:
        os.path.exists = exists
        permit.withdraw()
    assert 1 <= len(asked) < 100


# One run -----------------------------------------------------------------------------------------


@POSIX
def test_fit_stops_between_two_steps(monkeypatch):
    """The network is where its last whole step left it, wherever in a step the signal came."""
    for delay in (0, 1, 2):
        network = dl.Network(interrupted.MLP, range(2), "numpy")
        steps = Stepwise(at=20, delay=delay)
        with pytest.raises(KeyboardInterrupt):
            dl.fit(network, small.blobs(), lr=0.01, epochs=100, batch_size=20, regularizers=steps)
        other = dl.Network(interrupted.MLP, range(2), "numpy")
        dl.fit(other, small.blobs(), lr=0.01, steps=steps.whole, batch_size=20)
        for name, a in network.arrays().items():
            assert a.tobytes() == other.arrays()[name].tobytes(), name
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        dl.fit(network, small.blobs(), lr=0.01, epochs=1)  # not stopped by what was pressed before


class Stepwise:
    """Presses Ctrl-C in the middle of a step: before the update, after it, or both."""

    def __init__(self, at, delay):
        self.at, self.delay, self.whole = at, delay, 0

    def gradients(self, network):
        if self.whole == self.at and self.delay == 0:
            signal.raise_signal(signal.SIGINT)

    def weights(self, network):
        self.whole += 1
        if self.whole == self.at and self.delay == 1:
            signal.raise_signal(signal.SIGINT)
        if self.whole == self.at + 1 and self.delay == 2:
            signal.raise_signal(signal.SIGINT)


@POSIX
def test_pressed_twice_it_does_not_wait():
    class Twice:
        def gradients(self, network):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("not reached")

    network = dl.Network(PLAIN, 0, "numpy")
    with pytest.raises(KeyboardInterrupt):
        dl.fit(network, small.blobs(), lr=0.01, epochs=1, regularizers=Twice())
    interrupts.check()


@POSIX
def test_another_handler_of_the_signal_stays():
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        network = dl.Network(PLAIN, 0, "numpy")
        dl.fit(network, small.blobs(), lr=0.01, steps=3, regularizers=Stepwise(1, 1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


@POSIX
def test_an_interrupt_in_the_last_step_is_not_lost():
    network = dl.Network(PLAIN, 0, "numpy")
    with pytest.raises(KeyboardInterrupt):
        dl.fit(network, small.blobs(), lr=0.01, steps=3, batch_size=20, regularizers=Stepwise(3, 1))


# Before the work ---------------------------------------------------------------------------------


class Never:
    """A regulariser that must not be reached."""

    def weights(self, network):
        raise AssertionError("a step was made")

    def __reduce__(self):
        return Never, ()


def never(**changed):
    run = dict(lr=0.1, epochs=1, seeds=2, shard=1, backend="numpy", regularizers=Never())
    run |= changed
    network, data = run.pop("network", PLAIN), run.pop("data", small.blobs())
    return dl.sweep(network, data, **run)


def no_data(seed):
    raise AssertionError("data were made")


def ended():
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    return pool


def odd(depth=1):
    return dl.mlp([6, *[4] * depth, 3 if depth < 3 else 2])()


EARLY = {
    "no test part": (dict(test=True, data=small.blobs(test=0)), ValueError, "test example for test"),
    "no test part of a seed": (
        dict(test=True, data=lambda seed: small.blobs(seed, test=20 * (seed == 0))),
        ValueError, "data: expected at least one test",
    ),
    "executor at its end": (dict(executor=ended(), data=no_data), RuntimeError, "takes work, got"),
    "outputs of the last": (dict(network=odd, depth=[1, 2, 3]), ValueError, "3 outputs, one per cl"),
    "optimizer of the last": (dict(optimizer=[dl.SGD, dl.Adam, "x"]), TypeError, "optimizer: exp"),
    "batch size of the last": (dict(batch_size=[10, 20, 0]), ValueError, "batch_size: expected"),
    "steps of the last": (dict(epochs=[2, 1, -1]), ValueError, "epochs: expected"),
    "schedule of the last": (dict(schedule={"a": None, "b": 3}), TypeError, "schedule: expected"),
    "inputs of the last": (
        dict(network=lambda n=6: dl.mlp([n, 3])(), n=[6, 7]), ValueError, "x: expected shape"
    ),
    "plateau without validation": (
        dict(data=small.blobs(valid=0), schedule={"a": None, "b": dl.ReduceOnPlateau()}),
        ValueError, "schedule: expected validation data",
    ),
    "name of a dimension": (
        dict(network=lambda layer=3: dl.mlp([6, layer, 3])(), layer=[2, 3]), ValueError, "'layer'"
    ),
    "unknown setting": (dict(dropuot=0.1, data=no_data), TypeError, "settings: expected options"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EARLY)
def test_a_sweep_refuses_before_it_trains(kind):
    settings, error, message = EARLY[kind]
    with pytest.raises(error, match=message):
        never(**settings)


def test_what_cannot_be_sent_is_refused_before_data_are_made():
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises((AttributeError, TypeError, pickle.PicklingError)) as caught,
    ):
        never(executor=pool, data=no_data, probe=lambda network, before: {})
    assert "not of a notebook" in "".join(caught.value.__notes__)


@pytest.fixture(params=["no folder", "read-only", "full"])
def bad_disk(request, monkeypatch, tmp_path):
    """A place where nothing can be written: below a file, protected, or full."""
    if request.param == "no folder":
        (tmp_path / "file").write_text("")
        return tmp_path / "file" / "run"
    number = {"read-only": 30, "full": 28}[request.param]

    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage.os, "open", refuse)
    return tmp_path / "run"


def test_a_checkpoint_that_cannot_be_written_is_refused_at_the_start(bad_disk):
    network = dl.Network(PLAIN, 0, "numpy")
    before = network.parameters.tobytes()
    with pytest.raises(OSError, match=r"run|file"):
        dl.fit(network, small.blobs(), lr=0.1, epochs=1, regularizers=Never(), checkpoint=bad_disk)
    with pytest.raises(OSError, match=r"run|file"):
        never(checkpoint=bad_disk)
    assert network.parameters.tobytes() == before


def test_a_disk_that_is_full_at_the_end_costs_no_result(tmp_path, monkeypatch):
    run = dict(lr=0.1, epochs=3, batch_size=20)
    expected = dl.fit(dl.Network(PLAIN, 0, "numpy"), small.blobs(), **run)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    keep, network = tmp_path / "run", dl.Network(PLAIN, 0, "numpy")
    with pytest.warns(
        RuntimeWarning, match="the run has ended, but .*run could not be written .*No sp"
    ):
        found = dl.fit(network, small.blobs(), checkpoint=keep, **run)
    assert found.valid_loss.tobytes() == expected.valid_loss.tobytes()
    assert os.listdir(tmp_path) == []
    runs = dict(seeds=2, backend="numpy", test=True, **run)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        swept = dl.sweep(PLAIN, small.blobs(), checkpoint=tmp_path / "kept", **runs)
    assert {"could not be written" in str(w.message) for w in caught} == {True}
    monkeypatch.undo()
    assert swept.identical(dl.sweep(PLAIN, small.blobs(), **runs))


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    def run():
        network = dl.Network(PLAIN, 0, "numpy")
        return dl.fit(network, small.blobs(), lr=0.1, epochs=1, checkpoint=tmp_path / "run")

    first = run()
    swept = dl.sweep(PLAIN, small.blobs(), lr=0.1, epochs=1, seeds=2, checkpoint=tmp_path / "kept")

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(storage.os, "open", refuse)
    assert run().valid_loss.tobytes() == first.valid_loss.tobytes()
    again = dl.sweep(PLAIN, small.blobs(), lr=0.1, epochs=1, seeds=2, checkpoint=tmp_path / "kept")
    assert again.identical(swept)


PROBES = {
    "no dict": (lambda net, before: [1], TypeError, "probe: expected a dict"),
    "no name": (lambda net, before: {3: np.ones((2, 1))}, TypeError, "probe: expected names"),
    "taken": (lambda net, before: {"train_loss": np.ones((2, 1))}, ValueError, "name of its own"),
    "text": (
        lambda net, before: {"x": np.array([["a"], ["b"]])},
        TypeError,
        "probe x: expected num",
    ),
    "replicas": (lambda net, before: {"x": np.ones((3, 1))}, ValueError, r"shape \(2, ...\), repl"),
    "number": (
        lambda net, before: {"x": 1.0},
        ValueError,
        r"shape \(2, ...\), replicas first, got",
    ),
}


@pytest.mark.parametrize("kind", PROBES)
def test_probes_are_checked_at_the_first_record(kind):
    probe, error, message = PROBES[kind]
    seen = []

    def counted(net, before):
        seen.append(1)
        return probe(net, before)

    network = dl.Network(PLAIN, range(2), "numpy")
    with pytest.raises(error, match=message):
        dl.fit(network, small.blobs(), lr=0.1, epochs=9, probe=counted)
    assert len(seen) == 1


def test_probes_must_not_change_their_shape():
    sizes = iter(range(1, 9))
    network = dl.Network(PLAIN, range(2), "numpy")
    with pytest.raises(
        ValueError, match=r"probe x: expected shape \(2, 1\) as at first, got \(2, 2\)"
    ):
        dl.fit(network, small.blobs(), lr=0.1, epochs=9,
               probe=lambda net, before: {"x": np.ones((2, next(sizes)))})  # fmt: skip


def test_probes_of_any_shape_come_through_a_sweep():
    def probe(net, before):
        r = net.replicas
        ones = dict(a=(), b=(3,), c=(5,), d=(3, 2), lr=(1,))
        found = {name: np.ones((r, *own)) for name, own in ones.items()}
        return found if len(net.layers) < 4 else {"a": found["a"]}

    runs = dl.sweep(interrupted_depth, small.blobs(), lr=[0.1, 0.2], depth=[1, 2], seeds=2,
                    epochs=3, probe=probe, backend="numpy")  # fmt: skip
    assert runs.a.dims == ("lr", "depth", "seed", "epoch")
    assert runs.b.dims[-2:] == ("epoch", "layer")
    assert dict(runs.c.sizes) | dict(c_layer=5) == dict(runs.c.sizes)
    assert runs.d.shape[-2:] == (3, 2)
    assert runs.probe_lr.shape[-1] == 1
    assert runs.a.notnull().all()
    assert runs.b.sel(depth=1).notnull().all()
    assert runs.b.sel(depth=2).isnull().all()


def interrupted_depth(depth=1):
    return dl.mlp([6, *[4] * depth, 3])()


def test_labels_that_are_tuples_come_through():
    runs = dl.sweep(lambda sizes: dl.mlp([6, *sizes, 3])(), small.blobs(), lr=0.1, epochs=1, seeds=2,
                    sizes=[(4, 4), (5, 5)], backend="numpy")  # fmt: skip
    assert runs.sizes["sizes"] == 2
    assert runs.valid_loss.sel(sizes="(4, 4)").shape == (2, 1)


def test_trials_have_the_shards_own_replicas():
    """What has one value per replica fits a shard, and not one of its replicas alone."""
    penalties = {"a": dl.L2([0.1, 0.2]), "b": dl.L2([0.0, 0.3])}
    run = dict(lr=0.1, epochs=1, seeds=4, shard=2, backend="numpy")
    runs = dl.sweep(PLAIN, small.blobs(), regularizers=penalties, **run)
    assert runs.valid_loss.notnull().all()


def test_check_is_fit_without_its_steps():
    network = dl.Network(PLAIN, 0, "numpy")
    before = network.parameters.tobytes()
    training.check(network, small.blobs(), lr=0.1, epochs=1, regularizers=Never())
    with pytest.raises(ValueError, match="epochs: expected"):
        training.check(network, small.blobs(), lr=0.1, epochs=-1)
    assert network.parameters.tobytes() == before


class MapOnly(Executor):
    def map(self, function, *parts):
        return [function(*each) for each in zip(*parts, strict=True)]


def test_an_executor_that_has_only_map():
    run = dict(lr=0.1, epochs=1, seeds=2, shard=1, backend="numpy")
    found = dl.sweep(PLAIN, small.blobs(), executor=MapOnly(), **run)
    assert found.identical(dl.sweep(PLAIN, small.blobs(), **run))


# What is kept is its own -------------------------------------------------------------------------


def test_histories_hold_copies():
    """A probe may show live arrays; what was recorded stays as it was."""

    def probe(network, before):
        return {"live": network.parameters.reshape(2, -1), "before": before.reshape(2, -1)}

    network = dl.Network(PLAIN, range(2), "numpy")
    seen = []

    def both(net, before):
        seen.append(net.parameters.reshape(2, -1).copy())
        return probe(net, before)

    stop = dl.EarlyStopping(9)
    run = dict(lr=0.1, epochs=3, batch_size=20, early_stopping=stop, probe=both)
    first = dl.fit(network, small.blobs(), **run)
    np.testing.assert_array_equal(first.probes["live"], np.stack(seen, axis=1))
    kept = {k: v.copy() for k, v in vars(first).items() if isinstance(v, np.ndarray)}
    kept |= {k: v.copy() for k, v in first.probes.items()}
    second = dl.fit(network, small.blobs(), **run)
    network.parameters[...] = 0
    for name, value in kept.items():
        now = first.probes[name] if name in first.probes else getattr(first, name)
        assert now.tobytes() == value.tobytes(), name
    arrays = [[*h.probes.values(), *(v for v in vars(h).values() if isinstance(v, np.ndarray))]
              for h in (first, second)]  # fmt: skip
    assert not any(np.shares_memory(a, b) for a in arrays[0] for b in arrays[1])
    assert all(a.flags.writeable for a in arrays[0])


# Overflow ----------------------------------------------------------------------------------------


class Hidden(dl.SGD):
    """An optimizer whose state overflows while the parameters stand still."""

    state = ("v",)

    def direction(self, g, v):
        v += np.inf if self.t > 4 else 0
        return g * 0


class Spoil:
    """Puts a number that is none into a weight of one replica that no output depends on."""

    def __init__(self, value, replica=1):
        self.value, self.replica, self.steps = value, replica, 0

    def weights(self, network):
        self.steps += 1
        if self.steps == 6:  # the last step of the second epoch
            network.layers[0].W[self.replica, 0, 0] = self.value


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_replica_with_parameters_that_are_not_finite_is_marked(value, backend):
    network = dl.Network(PLAIN, range(3), backend)
    data = small.blobs(valid=0)  # so that nothing but the parameters can tell
    run = dict(lr=0.01, batch_size=20, epochs=2)
    history = dl.fit(network, data, regularizers=Spoil(value), **run)
    assert history.diverged.tolist() == [False, True, False]
    assert history.train_loss[1].tolist()[1] == np.inf
    others = dl.Network(PLAIN, range(3), backend)
    dl.fit(others, data, **run)
    for r in (0, 2):
        np.testing.assert_array_equal(small.parameters(network, r), small.parameters(others, r))
    np.testing.assert_array_equal(small.parameters(network, 1), 0)


def test_an_optimizer_whose_state_overflowed_is_marked():
    network = dl.Network(PLAIN, range(2), "numpy")
    history = dl.fit(network, small.blobs(), Hidden, lr=0.01, epochs=4, batch_size=20)
    assert history.diverged.all()
    assert np.isfinite(history.valid_loss[:, 0]).all()
    assert (history.valid_loss[:, 1:] == np.inf).all()
