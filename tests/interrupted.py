"""Runs that end early, and what must come out of them all the same; used by ``test_checkpoints.py``.

As a script it kills its own children with signal 9 at random moments: ``python interrupted.py FOLDER``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import small
import threadpoolctl

import dlcore as dl
from dlcore import augmentation as aug
from dlcore import schedules

MLP = dl.mlp([6, 8, 3], batch_norm="before", dropout=0.3, input_dropout=0.1)
PLAIN = dl.mlp([6, 8, 3])
CONV = [
    dl.Conv2D(1, 3, 2), dl.BatchNorm(3, images=True), dl.ReLU(), dl.MaxPool2D((2, 1)),
    dl.Dropout(0.2), dl.Flatten(), dl.Dense(6, 3),
]  # fmt: skip
PLATEAU = dl.ReduceOnPlateau(factor=0.5, patience=0, threshold=0.2, cooldown=1)
PENALTIES = [dl.L1(1e-4), dl.L2([1e-4, 0.0, 1e-3]), dl.MaxNorm(2), dl.clip_by_norm(1)]


def half(step, steps):
    return 0.5 if 2 * step >= steps else 1.0


#: Name to (layers, data, arguments of ``fit``); three replicas, eight epochs of three batches.
RUNS: dict[str, tuple] = {
    name: (PLAIN, small.blobs, dict(optimizer=getattr(dl, name)))
    for name in ("SGD", "Momentum", "Nesterov", "AdaGrad", "RMSProp", "Adam", "AdamW", "NAdam")
}
RUNS |= {
    f"schedule {name}": (PLAIN, small.blobs, dict(schedule=schedule))
    for name, schedule in {
        "piecewise": schedules.piecewise(),
        "exponential": schedules.exponential(),
        "inverse_time": schedules.inverse_time(),
        "polynomial": schedules.polynomial(),
        "cosine": schedules.cosine(),
        "one_cycle": schedules.one_cycle(),
        "function": half,
        "plateau": PLATEAU,
        "warmup, plateau": schedules.warmup(0.2, PLATEAU),
    }.items()
}
RUNS |= {
    "batch norm, dropout": (MLP, small.blobs, {}),
    "early stopping": (
        MLP, small.blobs, dict(early_stopping=dl.EarlyStopping(2, min_delta=0.02), lr=0.1)
    ),
    "all stop": (PLAIN, small.blobs, dict(early_stopping=dl.EarlyStopping(1, min_delta=9.0),
                                          probe=dl.probes.learning)),
    "accuracy watched, plateau": (
        MLP, small.blobs,
        dict(early_stopping=dl.EarlyStopping(3, monitor="valid_accuracy"), schedule=PLATEAU),
    ),
    "augmentation": (
        [dl.GaussianNoise(0.1), *MLP()], small.blobs,
        dict(augment=aug.compose(aug.shift(2), aug.white_noise(0.3))),
    ),
    "conv, augmentation": (
        CONV, small.sequences, dict(augment=aug.compose(aug.rotate(10), aug.elastic(1)))
    ),
    "rnn": (small.rnn(), small.sequences, dict(regularizers=dl.clip_by_norm(0.3),
                                               optimizer=dl.Momentum)),
    "penalties, decay": (PLAIN, small.blobs, dict(regularizers=PENALTIES, weight_decay=0.1)),
    "one diverges": (
        MLP, small.blobs,
        dict(lr=[0.02, 1e30, 0.05], optimizer=dl.SGD, probe=dl.probes.learning, epochs=8),
    ),
    "all diverge": (PLAIN, small.blobs, dict(lr=1e30, optimizer=dl.SGD, probe=dl.probes.learning)),
    "rare records, cut short": (
        MLP, small.blobs,
        dict(evaluate_every=3, epochs=None, steps=20, probe=dl.probes.learning, schedule=PLATEAU),
    ),
}  # fmt: skip


class Interrupt(Exception):
    pass


class Fuse:
    """A regulariser that does nothing until it has burnt down: then it raises."""

    def __init__(self, steps):
        self.steps = steps

    def memory(self):
        return {}

    def __reduce__(self):
        return Fuse, (0,)  # the length of a fuse makes no other experiment

    def weights(self, network):
        self.steps -= 1
        if self.steps < 0:
            raise Interrupt


def train(name, checkpoint=None, fuse=None, backend="numpy", seeds=range(3)):
    """Run one of ``RUNS``; return all bits that it leaves behind."""
    layers, make, given = RUNS[name]
    settings = dict(lr=0.03, epochs=8, batch_size=20) | given
    if fuse is not None:
        beside = settings.get("regularizers", ())
        beside = beside if isinstance(beside, (list, tuple)) else (beside,)
        settings["regularizers"] = [*beside, Fuse(fuse)]
    network = dl.Network(layers, seeds, backend)
    history = dl.fit(network, make(), **settings, checkpoint=checkpoint)
    return bits(network, history)


def bits(network, history):
    found = {f"net {k}": network.backend.to_numpy(a).copy() for k, a in network.memory().items()}
    found |= {k: v for k, v in vars(history).items() if isinstance(v, np.ndarray)}
    return found | {f"probe {k}": v for k, v in history.probes.items()}


def same(a, b):
    """Names of what is not bitwise equal."""
    assert a.keys() == b.keys()
    return [k for k in a if (a[k].dtype, a[k].shape) != (b[k].dtype, b[k].shape)
            or a[k].tobytes() != b[k].tobytes()]  # fmt: skip


def digest(found):
    whole = hashlib.sha256()
    for name, a in sorted(found.items()):
        whole.update(f"{name} {a.dtype} {a.shape}".encode() + a.tobytes())
    return whole.hexdigest()


def marked(folder, hidden=8):
    """A blueprint that leaves the number of the process that calls it in a folder."""
    Path(folder, str(os.getpid())).touch()
    return dl.mlp([6, hidden, hidden, 3])()


def blas_threads(network, before):
    """A probe: the number of BLAS threads while training."""
    counts = [
        lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"
    ]
    return {"threads": np.full((network.replicas, 1), max(counts))}


# --------------------------------------------------------------------------------------------------
# Real kills: a process with one thread forks children, so that each is ready at once.


def child(work):
    """Run ``work()`` in a child process; return its number."""
    number = os.fork()
    if number == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return number


def killed_until_done(work, seconds, rng, at_least):
    """Run ``work`` in children, kill ``at_least`` of them; return how many were, in the end."""
    kills = 0
    while True:
        number, start = child(work), time.monotonic()
        wait = rng.uniform(0, seconds) if kills < at_least else 60.0
        while time.monotonic() - start < wait:
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                break
            time.sleep(0.0005)
        else:
            os.kill(number, signal.SIGKILL)
            done, status = os.waitpid(number, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills += 1
        elif status:
            raise RuntimeError(f"a child failed: {status}")
        else:
            return kills  # this one was through


def kill_fits(folder, rng):
    """Kill each of ``RUNS`` several times; print a line for each."""
    for i, name in enumerate(RUNS):
        path, out = folder / f"{i}.npz", folder / f"{i}.txt"
        start = time.monotonic()
        expected = digest(train(name))
        alone = time.monotonic() - start

        def work(name=name, path=path, out=out):
            out.write_text(digest(train(name, dl.Checkpoint(path, seconds=0))))

        kills = killed_until_done(work, max(0.02, 0.5 * alone), rng, at_least=3)
        left = len([*folder.glob(f".{i}.npz.*")])
        print(json.dumps([name, kills, left, out.read_text() == expected]), flush=True)


def kill_writes(folder):
    """Have the system end a process in the middle of a write, after n bytes; print a line for each."""
    import resource

    name = "batch norm, dropout"
    expected = digest(train(name))
    for share in (0.0, 0.01, 0.3, 0.9, 0.999):
        path = folder / f"part-{share}.npz"
        try:
            train(name, dl.Checkpoint(path, seconds=0), fuse=10)
        except Interrupt:
            whole = path.read_bytes()
        limit = max(1, int(share * len(whole)))

        def work(path=path, limit=limit):
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            train(name, dl.Checkpoint(path, seconds=0), fuse=10**6)

        _, status = os.waitpid(child(work), 0)
        ended = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXFSZ
        left = [file.stat().st_size for file in folder.glob(f".{path.name}.*")]
        intact = path.read_bytes() == whole
        equal = digest(train(name, dl.Checkpoint(path, seconds=0), fuse=10**6)) == expected
        print(json.dumps([share, ended, left == [limit], intact, equal]), flush=True)


def kill_sweeps(folder, rng):
    """Kill a sweep several times; print how often, and whether the result is the same."""
    settings = dict(seeds=3, lr=[0.01, 0.1], optimizer=[dl.SGD, dl.Adam], epochs=40, backend="numpy",
                    shard=2, test=True, probe=dl.probes.learning, batch_size=20)  # fmt: skip
    data = small.blobs()

    def text(runs):
        return digest({str(k): runs[k].values.astype("S") if runs[k].dtype == object
                       else runs[k].values for k in sorted(map(str, runs.variables))})  # fmt: skip

    start = time.monotonic()
    expected = text(dl.sweep(PLAIN, data, **settings))
    alone = time.monotonic() - start

    def work():
        keep = dl.Checkpoint(folder / "sweep", seconds=0)
        (folder / "sweep.txt").write_text(text(dl.sweep(PLAIN, data, checkpoint=keep, **settings)))

    kills = killed_until_done(work, max(0.02, 0.3 * alone), rng, at_least=6)
    print(json.dumps([kills, (folder / "sweep.txt").read_text() == expected]), flush=True)


if __name__ == "__main__":
    what, where, seed = sys.argv[1:]
    generator = np.random.default_rng(int(seed))
    {
        "fit": lambda: kill_fits(Path(where), generator),
        "write": lambda: kill_writes(Path(where)),
        "sweep": lambda: kill_sweeps(Path(where), generator),
    }[what]()
