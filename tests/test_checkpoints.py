"""Checkpoints: killed anywhere, a run ends with the bits of one that was not; nothing else is taken."""

import functools
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import interrupted
import numpy as np
import pytest
import small
from interrupted import RUNS, Interrupt, same, train

import dlcore as dl
from dlcore import checkpoints, storage

HERE = Path(__file__).parent
POSIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")


def all_the_way(name, path, fuse=4, **options):
    """Interrupt a run every ``fuse`` steps until it is through; return its bits and the pieces."""
    for pieces in range(1, 50):
        try:
            return train(name, dl.Checkpoint(path, seconds=0), fuse, **options), pieces
        except Interrupt:
            pass
    raise AssertionError("no end")


# --------------------------------------------------------------------------------------------------
# The same bits


def test_the_table_has_all_optimizers_and_schedules():
    known = small.subclasses(dl.Optimizer)
    assert {c.__name__ for c in known} <= set(RUNS)
    used = {type(given.get("schedule")) for _, _, given in RUNS.values()}
    assert small.subclasses(dl.schedules.Schedule) - used == {dl.schedules.constant}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_pieces_ends_with_the_same_bits(name, tmp_path):
    found, pieces = all_the_way(name, tmp_path / "run.npz")
    assert same(found, train(name)) == []
    assert pieces > 3 or name in ("all stop", "all diverge")
    assert os.listdir(tmp_path) == ["run.npz"]


NOISY = ["early stopping", "one diverges", "conv, augmentation"]


@pytest.mark.parametrize("name", ["NAdam", "penalties, decay", "rnn", *NOISY])
def test_on_each_backend(name, backend, tmp_path):
    """A resumed run has fresh noise on a device, whose generators cannot be kept."""
    found, _ = all_the_way(name, tmp_path / "run.npz", backend=backend)
    whole = train(name, backend=backend)
    if backend.name == "numpy" or (backend.name == "double" and name not in NOISY):
        assert same(found, whole) == []
    else:
        assert {k: a.shape for k, a in found.items()} == {k: a.shape for k, a in whole.items()}
        assert all(np.isfinite(a).all() for k, a in found.items() if k.startswith("net "))


@pytest.mark.parametrize("name", ["warmup, plateau", "early stopping", "rnn"])
def test_a_plain_network(name, tmp_path):
    name = name if name in RUNS else f"schedule {name}"
    found, _ = all_the_way(name, tmp_path / "run.npz", seeds=4)
    assert same(found, train(name, seeds=4)) == []


def test_float64_frozen_layers_rates_of_layers_and_data_per_seed(tmp_path):
    def run(checkpoint=None):
        backend = dl.get_backend("numpy", "float64")
        network = dl.Network(interrupted.MLP, range(3), backend)
        network.freeze(2)
        network.lr_factors[0] = 0.1
        history = dl.fit(network, small.blobs, dl.NAdam, lr=[0.01, 0.02, 0.04], epochs=4,
                         batch_size=20, checkpoint=checkpoint, regularizers=fuse)  # fmt: skip
        return interrupted.bits(network, history)

    fuse = interrupted.Fuse(10**6)
    expected = run()
    for _ in range(9):
        fuse = interrupted.Fuse(4)
        try:
            found = run(dl.Checkpoint(tmp_path / "run", seconds=0))
        except Interrupt:
            continue
        break
    assert same(found, expected) == []


def test_a_finished_run_is_only_read(tmp_path):
    first = train("early stopping", tmp_path / "run.npz", fuse=10**6)
    written = (tmp_path / "run.npz").stat().st_mtime_ns
    assert same(first, train("early stopping", tmp_path / "run.npz", fuse=0)) == []
    assert (tmp_path / "run.npz").stat().st_mtime_ns == written


def test_written_at_the_end_and_after_the_seconds(tmp_path, monkeypatch):
    """The clock goes on by 4 s whenever it is read: at the start, after an epoch, after a write."""
    times, written = iter(range(0, 400, 4)), []
    clock = SimpleNamespace(monotonic=lambda: next(times), time=time.time)
    monkeypatch.setattr(checkpoints, "time", clock)
    save = np.savez
    monkeypatch.setattr(np, "savez", lambda file, *arrays: (written.append(int(arrays[1])),
                                                            save(file, *arrays)))  # fmt: skip
    train("SGD", tmp_path / "run.npz")
    assert written == [3, 6, 8]  # at 12 s, at 28 s (12 after the first), and at the end
    assert dl.Checkpoint("x").seconds == 10


def test_memory_of_others_is_kept(tmp_path):
    """What acts beside the loss may remember, if it shows its arrays."""

    class Average:
        def __init__(self, steps):
            self.fuse = interrupted.Fuse(steps)

        def bind(self, network):
            self.mean = network.parameters * 0
            return self

        def memory(self):
            return {"mean": self.mean}

        def __reduce__(self):
            return Average, (0,)

        def weights(self, network):
            self.mean += 0.1 * (network.parameters - self.mean)
            self.fuse.weights(network)

    def run(steps, checkpoint=None):
        average = Average(steps)
        network = dl.Network(interrupted.PLAIN, range(2), "numpy")
        dl.fit(network, small.blobs(), lr=0.1, epochs=4, batch_size=20, regularizers=average,
               checkpoint=checkpoint)  # fmt: skip
        return average.mean.copy()

    expected = run(10**6)
    path = dl.Checkpoint(tmp_path / "run", seconds=0)
    for _ in range(3):
        with pytest.raises(Interrupt):
            run(5, path)
    assert (run(5, path) == expected).all()


# --------------------------------------------------------------------------------------------------
# Killed for good


def script(*arguments):
    """Lines that ``interrupted.py`` prints, in a process with one thread."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE)])
    command = [sys.executable, str(HERE / "interrupted.py"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return [json.loads(line) for line in done.stdout.splitlines()]


@POSIX
@pytest.mark.slow
def test_killed_fits(tmp_path):
    """Signal 9 at random moments, most of them while the state is written."""
    lines = script("fit", tmp_path, 0)
    assert [name for name, *_ in lines] == list(RUNS)
    assert [name for name, _, _, equal in lines if not equal] == []
    assert sum(kills for _, kills, _, _ in lines) >= 2 * len(RUNS)
    assert sum(left for _, _, left, _ in lines) > 0  # some had begun to write


@POSIX
@pytest.mark.thorough
def test_killed_in_the_middle_of_a_write(tmp_path):
    """The system ends the process at the n-th byte; the old file stays, and the run goes on from it."""
    lines = script("write", tmp_path, 0)
    assert len(lines) == 5
    assert [line for line in lines if line[1:] != [True, True, True, True]] == []


@POSIX
@pytest.mark.thorough
def test_killed_sweep(tmp_path):
    ((kills, equal),) = script("sweep", tmp_path, 0)
    assert kills >= 2
    assert equal
    assert not [*tmp_path.glob("sweep/*.fit.npz")]


def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    with pytest.raises(Interrupt):
        train("SGD", dl.Checkpoint(path, seconds=0), fuse=10)
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        train("SGD", dl.Checkpoint(path, seconds=0), fuse=10**6)
    assert os.listdir(tmp_path) == ["run.npz"]
    assert path.read_bytes() == before


# --------------------------------------------------------------------------------------------------
# Damaged, or another run's


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The content of a checkpoint of a run that was interrupted."""
    path = tmp_path_factory.mktemp("begun") / "run.npz"
    with pytest.raises(Interrupt):
        train("Adam", dl.Checkpoint(path, seconds=0), fuse=10)
    return path.read_bytes()


def test_every_kind_of_damage_is_found(begun, tmp_path):
    """Cut anywhere or with one byte changed, a file is refused, or it holds what it held."""
    path, refused, whole = tmp_path / "run.npz", 0, train("Adam", fuse=10**6)
    cuts = [begun[:n] for n in range(0, len(begun), 997)] + [begun[:-1], begun[1:], b"text", b""]
    flips = np.random.default_rng(0).integers(len(begun), size=60)
    changed = [begun[:n] + bytes([begun[n] ^ 0xFF]) + begun[n + 1 :] for n in flips]
    for content in cuts + changed:
        path.write_bytes(content)
        try:
            found, message = train("Adam", path, fuse=10**6), ""
        except ValueError as error:
            found, message = None, str(error)
        if found:
            assert same(found, whole) == []
            assert content in changed
        else:
            refused += 1
            assert str(path) in message
            assert "move it away or name another file" in message
            assert path.read_bytes() == content
    assert refused > len(cuts) + 0.8 * len(changed)


def test_other_files_are_refused(begun, tmp_path):
    path = tmp_path / "run.npz"
    dl.Network(interrupted.PLAIN, 0, "numpy").save(path)
    with pytest.raises(
        ValueError, match=r"run.npz: expected a checkpoint, got another or damaged file"
    ):
        train("Adam", path)
    np.savez(path, np.arange(3))
    with pytest.raises(
        ValueError, match=r"run.npz: expected a checkpoint, got another or damaged file"
    ):
        train("Adam", path)
    np.savez(path, np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"damaged file .*allow_pickle=False"):
        train("Adam", path)


def test_other_formats_and_versions_are_refused(begun, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    path.write_bytes(begun)
    monkeypatch.setattr(checkpoints, "code", lambda: "another")
    with pytest.raises(ValueError, match="a run with another dlcore;"):
        train("Adam", path, fuse=10)
    monkeypatch.undo()
    monkeypatch.setattr(checkpoints, "FORMAT", "dlcore checkpoint 2")
    with pytest.raises(ValueError, match="'dlcore checkpoint 2', got 'dlcore checkpoint 1'; move"):
        train("Adam", path, fuse=10)


def test_the_version_is_the_code():
    assert len(checkpoints.code()) == 32


BASE = dict(optimizer=dl.Adam, lr=0.02, epochs=4, batch_size=20)


def scaled(factor):
    def schedule(step, steps):
        return factor

    return schedule


def probe_a(network, before):
    return {"x": network.parameters.reshape(2, -1)}


def probe_b(network, before):
    return {"x": network.parameters.reshape(2, -1) * 2}


#: What differs, and the name that the error must give.
OTHERS = {
    "lr": dict(lr=0.03),
    "lr of a replica": dict(lr=[0.02, 0.03]),
    "weight_decay": dict(weight_decay=0.1),
    "epochs": dict(epochs=5),
    "epochs, steps": dict(epochs=None, steps=12),
    "batch_size": dict(batch_size=30),
    "optimizer": dict(optimizer=dl.AdamW),
    "optimizer's beta": dict(optimizer=dl.Adam(beta1=0.8)),
    "loss": dict(loss=dl.MeanSquaredError()),
    "schedule": dict(schedule=dl.schedules.cosine()),
    "schedule's function": dict(schedule=scaled(0.5)),
    "regularizers": dict(regularizers=dl.L2(1e-3)),
    "augment": dict(augment=dl.augmentation.white_noise(0.1)),
    "early_stopping": dict(early_stopping=dl.EarlyStopping(3)),
    "probe": dict(probe=probe_a),
    "evaluate_every": dict(evaluate_every=2),
    "data": dict(data=small.blobs(1)),
    "network's seeds": dict(seeds=[0, 2]),
    "network's weights": dict(layers=dl.mlp([6, 8, 3], initializer="glorot_normal")),
    "network's layers": dict(layers=dl.mlp([6, 8, 3], activation=dl.Tanh)),
    "network's rate": dict(layers=dl.mlp([6, 8, 3], dropout=0.1)),
    "network's dtype": dict(backend=dl.get_backend("numpy", "float64")),
    "network's frozen layers": dict(frozen=0),
}


def short(path, layers=interrupted.PLAIN, seeds=(0, 1), backend="numpy", frozen=None, **changed):
    network = dl.Network(layers, list(seeds), backend)
    if frozen is not None:
        network.freeze(frozen)
    settings = BASE | changed
    return dl.fit(network, settings.pop("data", small.blobs()), checkpoint=path, **settings)


@pytest.mark.parametrize("what", OTHERS)
def test_another_run_is_refused(what, tmp_path):
    path = tmp_path / "run.npz"
    short(path)
    before = path.read_bytes()
    name = what.split("'")[0].replace("lr of a replica", "lr")
    with pytest.raises(ValueError, match=rf"run.npz: .* this run, got .* another .*{name}.*; move"):
        short(path, **OTHERS[what])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (dict(schedule=scaled(0.5)), dict(schedule=scaled(0.25))),
        (dict(probe=probe_a), dict(probe=probe_b)),
        (dict(layers=dl.mlp([6, 8, 3], dropout=0.1)), dict(layers=dl.mlp([6, 8, 3], dropout=0.2))),
        (
            dict(layers=dl.mlp([6, 8, 3], activation=dl.LeakyReLU)),
            dict(layers=dl.mlp([6, 8, 3], activation=functools.partial(dl.LeakyReLU, 0.3))),
        ),
        (dict(regularizers=dl.L2(0.1)), dict(regularizers=dl.L2(0.2))),
        (dict(regularizers=dl.L2([0.1, 0.2])), dict(regularizers=dl.L2([0.1, 0.3]))),
    ],
    ids=["closure", "code", "dropout", "alpha", "strength", "strengths"],
)
def test_what_is_within_counts(first, second, tmp_path):
    short(tmp_path / "run", **first)
    short(tmp_path / "run", **first)
    with pytest.raises(ValueError, match="this run"):
        short(tmp_path / "run", **second)


def test_what_changes_no_bit_is_no_other_run(tmp_path):
    expected = short(tmp_path / "run", progress=False)
    found = short(dl.Checkpoint(tmp_path / "run", seconds=0), progress=None)
    np.testing.assert_array_equal(found.valid_loss, expected.valid_loss)


def test_a_trained_network_begins_another_run(tmp_path):
    network = dl.Network(interrupted.PLAIN, 0, "numpy")
    dl.fit(network, small.blobs(), lr=0.1, epochs=1, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="another network;"):
        dl.fit(network, small.blobs(), lr=0.1, epochs=1, checkpoint=tmp_path / "run")


def test_bad_paths(tmp_path):
    for wrong in (3, b"x", ["a"], True):
        with pytest.raises(TypeError, match="checkpoint: expected a path"):
            short(wrong)
    with pytest.raises(ValueError, match="seconds: expected a number in"):
        dl.Checkpoint("x", seconds=-1)
    with pytest.raises(ValueError, match="checkpoint: expected a file, got"):
        short(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        sweep(tmp_path / "file")


def test_folders_are_made_and_relative_paths_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short("new/folder/run.npz")
    assert (tmp_path / "new" / "folder" / "run.npz").exists()


def test_objects_are_no_numbers(tmp_path):
    with pytest.raises(TypeError, match="probe x: expected numbers, got Python objects"):
        short(tmp_path / "run", probe=lambda network, before: {"x": np.array([[None], [None]])})
    assert os.listdir(tmp_path) == []


# --------------------------------------------------------------------------------------------------
# Sweeps


def counted(calls, width=5):
    """A blueprint that writes down its calls; what it writes to makes no other experiment."""

    def blueprint(depth=1):
        calls.append(depth)
        return dl.mlp([6, *[width] * depth, 3])()

    return blueprint


class Calls(list):
    def __reduce__(self):
        return Calls, ()


def sweep(checkpoint=None, network=interrupted.PLAIN, **changed):
    settings = dict(lr=[0.01, 0.1], optimizer=[dl.SGD, dl.Adam], epochs=3, batch_size=20, shard=3,
                    seeds=2, test=True, backend="numpy") | changed  # fmt: skip
    data = settings.pop("data", small.blobs())
    return dl.sweep(network, data, checkpoint=checkpoint, **settings)


def test_shards_that_are_done_are_skipped(tmp_path):
    calls = Calls()
    expected = sweep(network=counted(calls), depth=[1, 2], probe=dl.probes.learning)
    count = len(calls)
    first = sweep(tmp_path / "a", counted(calls), depth=[1, 2], probe=dl.probes.learning)
    assert len(calls) == 2 * count
    again = sweep(tmp_path / "a", counted(calls), depth=[1, 2], probe=dl.probes.learning)
    assert len(calls) == 2 * count
    assert expected.identical(first)
    assert expected.identical(again)
    assert list(expected) == list(again)
    one = sorted((tmp_path / "a").iterdir())[3]
    one.unlink()
    assert sweep(tmp_path / "a", counted(calls), depth=[1, 2], probe=dl.probes.learning).identical(
        expected
    )
    assert len(calls) == 2 * count + 1
    assert one.exists()


def test_an_interrupted_sweep_goes_on_within_its_shard(tmp_path):
    """Shards before are skipped, and the one that was interrupted does not start at epoch 1."""
    fuse, seen = interrupted.Fuse(100), Calls()

    def probe(network, before):
        seen.append(int(network.layers[0].noise is None))
        return {}

    def run(keep=None, **more):
        return sweep(keep, regularizers=fuse, probe=probe, seeds=2, shard=2, epochs=10,
                     **more)  # fmt: skip

    fuse.steps = 10**6
    expected, records = run(), len(seen)
    keep, seen[:], fuse.steps = dl.Checkpoint(tmp_path / "a", seconds=0), [], 50
    interruptions = 0
    while True:
        try:
            found = run(keep, executor=InTurn())
            break
        except Interrupt:
            interruptions += 1
            fuse.steps = 50
    assert interruptions >= 2
    assert expected.identical(found)
    assert len(seen) == records  # no epoch was recorded twice: each fuse burnt within an epoch


class InTurn(dl.experiments.Executor):
    def map(self, function, *parts):
        return [function(*each) for each in zip(*parts, strict=True)]


def test_experiments_share_a_folder(tmp_path):
    one, two = sweep(tmp_path), sweep(tmp_path, data=small.blobs(3))
    three = sweep(tmp_path, network=dl.mlp([6, 8, 3], dropout=0.2))
    count = len(os.listdir(tmp_path))
    assert one.identical(sweep(tmp_path))
    assert two.identical(sweep(tmp_path, data=small.blobs(3)))
    assert three.identical(sweep(tmp_path, network=dl.mlp([6, 8, 3], dropout=0.2)))
    assert len(os.listdir(tmp_path)) == count
    more = sweep(tmp_path, optimizer=[dl.SGD, dl.Adam, dl.NAdam])
    assert len(os.listdir(tmp_path)) == count + 2
    assert more.isel(optimizer=[0, 1]).identical(one)


def test_another_dlcore_trains_anew(tmp_path, monkeypatch):
    before = sweep(tmp_path)
    count = len(os.listdir(tmp_path))
    monkeypatch.setattr(checkpoints, "code", lambda: "another")
    assert before.identical(sweep(tmp_path))
    assert len(os.listdir(tmp_path)) == 2 * count


def test_a_damaged_or_renamed_shard_is_refused(tmp_path):
    sweep(tmp_path)
    first, second = sorted(tmp_path.iterdir())[:2]
    content = first.read_bytes()
    first.write_bytes(content[:-30])
    with pytest.raises(
        ValueError, match=f"{first.name}: expected a checkpoint, got another or damaged file"
    ):
        sweep(tmp_path)
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match=f"{first.name}: .*another shard; move it away"):
        sweep(tmp_path)
    first.write_bytes(content)
    sweep(tmp_path)


@POSIX
@pytest.mark.thorough
def test_two_sweeps_at_once(tmp_path):
    """Two processes write the same files at the same time; both end well."""
    text = (
        "import sys, test_checkpoints as t; import dlcore as dl\n"
        "runs = t.sweep(dl.Checkpoint(sys.argv[1], seconds=0), epochs=30)\n"
        "print(runs.test_loss.values.tobytes().hex())"
    )
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    command = [sys.executable, "-c", text, str(tmp_path)]
    two = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    found = {p.communicate(timeout=120)[0].decode().strip() for p in two}
    assert found == {sweep(epochs=30).test_loss.values.tobytes().hex()}


# --------------------------------------------------------------------------------------------------
# Fingerprints


@pytest.mark.thorough
def test_a_fingerprint_is_the_same_in_every_process():
    text = (
        "import test_checkpoints as t\n"
        "print(t.checkpoints.fingerprint(t.OTHERS), t.checkpoints.fingerprint(t.VALUES))"
    )
    found = set()
    for seed in ("1", "2"):
        path = os.pathsep.join([str(HERE.parent), str(HERE)])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


WIDTH = 5


def reads_a_global():
    return [WIDTH for _ in range(3)]


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


def cycle(*values):
    made = list(values)
    made.append(made)
    return made


VALUES = [
    None, True, 1, 1.0, -0.0, 0.0, "1", b"1", 1j, np.float32(1), np.float64(1), float("nan"),
    [1], (1,), {1}, {1, 2}, {1: 2}, {2: 1}, [[1], 2], [1, [2]], ["ab", "c"], ["a", "bc"],
    np.arange(3), np.arange(3.0), np.arange(4).reshape(2, 2), np.arange(4), np.array([1, "a"], object),
    np.array("2020-01-01", "M8[D]"), len, np.sin, np.cos, np, dl.ReLU, dl.Tanh, dl.mlp, str.lower,
    dl.Momentum(), dl.Momentum(0.5), dl.Nesterov(), dl.mlp([2, 2]), dl.mlp([2, 3]),
    Path("a"), Path("b"), {"a", "b", "c"}, io.StringIO, Slotted(1), Slotted(2), scaled(1), scaled(2),
    small.blobs(0), small.blobs(1), cycle(1), cycle(2), range(3), range(4), probe_a, probe_b,
    lambda x: x + 1, lambda x: x + 2, functools.lru_cache(probe_a), property(probe_a),
    property(probe_b), np.random.default_rng(0), np.random.default_rng(1), slice(1), dl.L2(np.ones(2)),
]  # fmt: skip


def test_other_values_have_other_fingerprints():
    found = [checkpoints.fingerprint(value) for value in VALUES]
    assert len(set(found)) == len(found)
    assert found == [checkpoints.fingerprint(value) for value in VALUES]


def test_equal_values_have_equal_fingerprints():
    pairs = [
        (small.blobs(2), small.blobs(2)),
        ([np.ones(2)] * 2, [np.ones(2), np.ones(2)]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (dl.mlp([3, 2], dropout=0.1), dl.mlp((3, 2), dropout=0.1)),
        (scaled(3), scaled(3)),
        (Slotted([1]), Slotted([1])),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
    ]
    for a, b in pairs:
        assert checkpoints.fingerprint(a) == checkpoints.fingerprint(b)


def test_variables_that_a_function_reads_count(monkeypatch):
    before = checkpoints.fingerprint(reads_a_global)
    monkeypatch.setitem(globals(), "WIDTH", 6)
    assert checkpoints.fingerprint(reads_a_global) != before
    monkeypatch.undo()
    assert checkpoints.fingerprint(reads_a_global) == before


def define(text):
    """What a notebook's cell defines under the name ``it``."""
    space = {"__name__": "__main__", "dl": dl}
    exec(text, space)
    return space["it"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("def it(x): return x + 1", "def it(x): return x + 2"),
        ("def it(x, y=1): return x", "def it(x, y=2): return x"),
        ("def it(x, *, y=1): return x", "def it(x, *, y=2): return x"),
        ("it = lambda: [y for y in range(3)]", "it = lambda: [y for y in range(4)]"),
        ("def f(): return 1\ndef it(): return f()", "def f(): return 2\ndef it(): return f()"),
        ("n = [1]\ndef it(): return [n for _ in 'a']", "n = [2]\ndef it(): return [n for _ in 'a']"),
        ("class it(dl.ReLU):\n def value(self, z): return z",
         "class it(dl.ReLU):\n def value(self, z): return 2 * z"),
        ("class it(dl.ReLU): alpha = 1", "class it(dl.ReLU): alpha = 2"),
        ("class it:\n @property\n def a(self): return 1",
         "class it:\n @property\n def a(self): return 2"),
        ("class it:\n @staticmethod\n def a(): return 1",
         "class it:\n @staticmethod\n def a(): return 2"),
        ("class c:\n x = 1\nit = c()", "class c:\n x = 2\nit = c()"),
        ("def it(): return dl.mlp([2])", "def it(): return dl.mlp([3])"),
    ],
)  # fmt: skip
def test_code_that_a_notebook_defines_counts(first, second):
    assert checkpoints.fingerprint(define(first)) == checkpoints.fingerprint(define(first))
    assert checkpoints.fingerprint(define(first)) != checkpoints.fingerprint(define(second))


def test_functions_that_call_each_other():
    text = "def f(n): return it(n)\ndef it(n): return n and f(n - {})"
    first, again, other = (checkpoints.fingerprint(define(text.format(k))) for k in (1, 1, 2))
    assert first == again != other
