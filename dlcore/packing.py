"""Shards on a device: as many replicas at once as its memory holds.

A step of small nets costs a device its launches, however many replicas take part. So shards that differ
only in rates, in the strength of a penalty or in first weights run as one, cut only where the estimate of
their bytes exceeds the memory that is free, or where memory runs out all the same. With several
devices there is a shard on each.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dlcore import backend as backends
from dlcore import interrupts
from dlcore.batches import CHUNK
from dlcore.datasets import Dataset
from dlcore.layers import Layer
from dlcore.network import Network
from dlcore.optimizers import Adam
from dlcore.regularizers import L1, L2
from dlcore.training import bar

#: Share of the free memory that the replicas of a shard may take by the estimate.
SHARE = 0.7
#: Settings of layers that only first weights come from.
STARTS = {"initializer", "recurrent_initializer", "bias"}
#: Settings of ``fit`` that a shard holds as one value per replica.
PER_REPLICA = ("lr", "weight_decay")

Result = dict[str, np.ndarray]


@dataclass(frozen=True)
class Piece:
    """Some replicas of shard number ``index`` of a sweep, as a ``shard`` of their own."""

    index: int
    shard: Any

    @property
    def size(self) -> int:
        """The number of replicas."""
        return len(self.shard.seeds)

    def cut(self, start: int, stop: int) -> Piece:
        """Return some of the replicas; the file of the result is for all of them only."""
        options = dict(self.shard.fit)
        for name in set(PER_REPLICA) & set(options):
            if np.ndim(options[name]):
                options[name] = list(options[name])[start:stop]
        seeds = self.shard.seeds[start:stop]
        keeper = self.shard.keeper if len(seeds) == self.size else None
        return Piece(self.index, replace(self.shard, seeds=seeds, fit=options, keeper=keeper))


def run(shards: Sequence[Any]) -> list[Result]:
    """Run shards on the devices of their backend; return their results in order."""
    if not shards:
        return []
    jobs = packed(shards, shards[0].backend.free_memory())
    found: dict[int, list[Result]] = {}
    for pieces, results in zip(jobs, _on_devices(jobs, shards[0].backend), strict=True):
        for piece, result in zip(pieces, results, strict=True):
            found.setdefault(piece.index, []).append(result)
    whole = [end_to_end(found[index]) for index in range(len(shards))]
    for shard, result in zip(shards, whole, strict=True):
        _keep(shard, result)
    return whole


def packed(shards: Sequence[Any], free: int) -> list[list[Piece]]:
    """Return jobs, each of pieces that one call of ``fit`` trains together.

    ``free`` is the free memory in bytes, of which ``SHARE`` may be taken. Shards that keep their
    results in a file stay whole if they fit, so that a run that is killed goes on where it was.
    """
    jobs: list[list[Piece]] = []
    room: list[int] = []
    for index, shard in enumerate(shards):
        most = max(1, int(SHARE * free) // bytes_per_replica(shard))
        for piece in _cut(Piece(index, shard), most):
            place = _place(jobs, room, piece)
            if place is None:
                jobs.append([piece])
                room.append(most - piece.size)
            else:
                jobs[place].append(piece)
                room[place] -= piece.size
    return jobs


def _cut(piece: Piece, most: int) -> list[Piece]:
    """Cut a piece into equal ones of at most ``most`` replicas; their number is a power of two."""
    count = 1
    while -(-piece.size // count) > most:
        count *= 2
    size = -(-piece.size // count)
    return [piece.cut(start, start + size) for start in range(0, piece.size, size)]


def _place(jobs: list[list[Piece]], room: list[int], piece: Piece) -> int | None:
    """Return the number of a job with room that the piece can join, or None."""
    for place, job in enumerate(jobs):
        if room[place] >= piece.size and together(job[0].shard, piece.shard):
            return place
    return None


def together(first: Any, second: Any) -> bool:
    """Return whether two shards differ only in what each replica can have for itself."""
    kept = first.keeper or second.keeper
    same_work = first.network is second.network and first.test == second.test
    if kept or not same_work or not _same_data(first.data, second.data):
        return False
    return _same_fit(first.fit, second.fit) and _same_layers(first, second)


def _same_data(first: Any, second: Any) -> bool:
    if isinstance(first, Dataset) or isinstance(second, Dataset):
        return first is second
    return all(first[seed] is second[seed] for seed in first.keys() & second.keys())


def _same_fit(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    if first.keys() != second.keys():
        return False
    others = first.keys() - {*PER_REPLICA, "regularizers"}
    if not all(_same(first[name], second[name]) for name in others):
        return False
    nones = [first[name] is None or second[name] is None for name in PER_REPLICA if name in first]
    if any(nones):
        return False
    one, two = (_several(fit.get("regularizers", ())) for fit in (first, second))
    fits = len(one) == len(two)
    return fits and all(_joinable(a, b) for a, b in zip(one, two, strict=True))


def _same(first: Any, second: Any) -> bool:
    """Return whether two settings are one, or plain values that are equal."""
    if first is second:
        return True
    plain = (bool, int, float, str)
    return isinstance(first, plain) and type(first) is type(second) and first == second


def _several(regularizers: Any) -> list[Any]:
    return list(regularizers) if isinstance(regularizers, (tuple, list)) else [regularizers]


def _joinable(first: Any, second: Any) -> bool:
    """Return whether one regularizer can act for both: the same, or penalties of two strengths."""
    if first is second:
        return True
    penalties = type(first) in (L1, L2) and type(first) is type(second)
    return penalties and np.ndim(first.strength) == np.ndim(second.strength) == 0


def _same_layers(first: Any, second: Any) -> bool:
    """Return whether two networks differ in their first weights only."""
    if first.options == {} == second.options:
        return True
    one, two = (shard.network(**shard.options) for shard in (first, second))
    return len(one) == len(two) and all(map(_same_layer, one, two))


def _same_layer(first: Layer, second: Layer) -> bool:
    if type(first) is not type(second):
        return False
    one, two = vars(first), vars(second)
    if one.keys() != two.keys():
        return False
    return all(_same_setting(one[name], two[name]) for name in one.keys() - STARTS)


def _same_setting(first: Any, second: Any) -> bool:
    """Return whether two settings of a layer are equal: plain values, containers of some, layers."""
    if isinstance(first, Layer) and isinstance(second, Layer):
        return _same_layer(first, second)
    if type(first) is not type(second):
        return False
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(_same_setting, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            _same_setting(first[name], second[name]) for name in first
        )
    return _same(first, second)


# Running -----------------------------------------------------------------------------------------


def _on_devices(jobs: list[list[Piece]], chip: backends.Backend) -> list[list[Result]]:
    """Run jobs one after another on each device, and return the results of their pieces."""
    devices = chip.devices()
    if min(len(devices), len(jobs)) <= 1:
        shown = bar(jobs, None, "shard") if len(jobs) > 1 else jobs
        return [within_memory(_silent(job) if len(jobs) > 1 else job) for job in shown]
    idle: queue.SimpleQueue = queue.SimpleQueue()
    for device in devices:
        idle.put(device)
    permit = interrupts.Permit()

    def work(job: list[Piece]) -> list[Result]:
        with _borrowed(idle) as device, chip.on(device):
            return within_memory([_permitted(piece, permit) for piece in job])

    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            return list(pool.map(work, jobs))
        except BaseException:
            permit.withdraw()
            raise


@contextlib.contextmanager
def _borrowed(idle: queue.SimpleQueue) -> Iterator[Any]:
    device = idle.get()
    try:
        yield device
    finally:
        idle.put(device)


def _permitted(piece: Piece, permit: interrupts.Permit) -> Piece:
    return replace(piece, shard=replace(piece.shard, permit=permit))


def _silent(job: list[Piece]) -> list[Piece]:
    """One bar counts the shards: those of their epochs would flash."""
    quiet = [dict(piece.shard.fit) | {"progress": False} for piece in job]
    return [
        replace(piece, shard=replace(piece.shard, fit=fit))
        for piece, fit in zip(job, quiet, strict=True)
    ]


def within_memory(pieces: list[Piece]) -> list[Result]:
    """Run pieces together, or in halves where memory runs out; return one result for each piece."""
    replicas = sum(piece.size for piece in pieces)
    chip = pieces[0].shard.backend
    try:
        return _split(joined(pieces).run(), pieces)
    except MemoryError:
        if replicas == 1:
            raise
    chip.release()  # here, where the error's frames hold no arrays any more
    first, second = _halves(pieces, replicas // 2)
    found = within_memory(first) + within_memory(second)
    results: list[Result] = []
    for position, (piece, result) in enumerate(zip(first + second, found, strict=True)):
        if position == len(first) and piece.index == first[-1].index:  # it was cut in two
            results[-1] = end_to_end([results[-1], result])
        else:
            results.append(result)
    return results


def _halves(pieces: list[Piece], half: int) -> tuple[list[Piece], list[Piece]]:
    """Return the first ``half`` replicas and the others."""
    first: list[Piece] = []
    second: list[Piece] = []
    left = half
    for piece in pieces:
        taken = min(left, piece.size)
        if taken:
            first.append(piece.cut(0, taken))
        if taken < piece.size:
            second.append(piece.cut(taken, piece.size))
        left -= taken
    return first, second


def joined(pieces: list[Piece]) -> Any:
    """Return one shard with the replicas of all pieces."""
    one = pieces[0].shard
    if len(pieces) == 1:
        return one
    fit = dict(one.fit)
    for name in set(PER_REPLICA) & set(fit):
        fit[name] = [value for piece in pieces for value in _per_replica(piece, name)]
    if "regularizers" in fit:
        fit["regularizers"] = _regularizers(pieces)
    seeds = tuple(seed for piece in pieces for seed in piece.shard.seeds)
    data = one.data
    if not isinstance(data, Dataset):
        data = {seed: held for piece in pieces for seed, held in piece.shard.data.items()}
    starts = tuple((piece.shard.options, piece.size) for piece in pieces)
    return replace(one, fit=fit, seeds=seeds, data=data, starts=starts)


def _per_replica(piece: Piece, name: str) -> list[float]:
    value = piece.shard.fit[name]
    return list(value) if np.ndim(value) else [value] * piece.size


def _regularizers(pieces: list[Piece]) -> list[Any]:
    """Return what acts for all pieces: penalties get one strength per replica."""
    columns = zip(*(_several(piece.shard.fit["regularizers"]) for piece in pieces), strict=True)
    found = []
    for column in columns:
        if all(one is column[0] for one in column):
            found.append(column[0])
        else:
            strengths = [one.strength for one in column]
            found.append(type(column[0])(np.repeat(strengths, [piece.size for piece in pieces])))
    return found


def _split(result: Result, pieces: list[Piece]) -> list[Result]:
    ends = np.cumsum([piece.size for piece in pieces])
    starts = [0, *ends[:-1]]
    return [
        {name: a[start:end] for name, a in result.items()}
        for start, end in zip(starts, ends, strict=True)
    ]


def end_to_end(results: list[Result]) -> Result:
    """Return the results of several pieces of a shard as one."""
    if len(results) == 1:
        return results[0]
    return {name: np.concatenate([one[name] for one in results]) for name in results[0]}


def _keep(shard: Any, result: Result) -> None:
    """Write the result of a shard that was cut; one that ran whole has done so itself."""
    if shard.keeper and not shard.keeper.path.exists():
        shard.keeper.write_result(lambda: result)


# Estimating --------------------------------------------------------------------------------------


def bytes_per_replica(shard: Any) -> int:
    """Return about how many bytes of memory a replica takes while it is trained and evaluated.

    Parameters, gradients, the optimizer's slots, the arrays of an update, copies for early stopping and
    probes; twice what the layers hold of a batch (activations, and gradients on their way back), or once
    what they hold of a chunk in evaluation, if that is more; and its seed's data, where each has its own.
    Sizes are read off a network on the host that runs once forward.
    """
    shared = isinstance(shard.data, Dataset)
    data = shard.data if shared else shard.data[shard.seeds[0]]
    net = Network(shard.network(**shard.options), shard.seeds[0], _host(shard.backend))
    optimizer = shard.fit.get("optimizer", Adam)
    slots = len(getattr(optimizer, "state", ()))
    copies = 2 + slots + 4 + 2
    rows = min(shard.fit.get("batch_size", 100), len(data.y_train))
    largest = max(len(data.y_valid), len(data.y_test) if shard.test else 0)
    step = 2 * _held(net, data.x_train[: max(rows, 2)], True)
    chunk = _held(net, data.x_train[: max(2, min(CHUNK, largest, len(data.y_train)))], False)
    chunk = chunk * max(1, min(CHUNK, largest)) // max(1, min(CHUNK, len(data.y_train)))
    own = 0 if shared else _data_bytes(data)
    return copies * net.parameters.nbytes + max(step, chunk) + own


def _host(chip: backends.Backend) -> backends.Backend:
    return backends.get_backend("numpy", chip.dtype)


def _data_bytes(data: Dataset) -> int:
    parts = ("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test")
    return sum(getattr(data, part).nbytes for part in parts)


def _held(net: Network, x: np.ndarray, training: bool) -> int:
    """Return the bytes of the input, of each layer's output and of what the layers remember."""
    with net.backend.quiet(), backends.one_blas_thread():
        a = net.spread(net.backend.asarray(x))
        total, seen = a.nbytes, {id(a)}
        for layer in net.layers:
            a = layer.forward(a, training)
            own = {*layer.shapes, *("d" + name for name in layer.shapes), *layer.buffers}
            others = [value for name, value in vars(layer).items() if name not in own]
            for array in _arrays([a, *others]):
                if id(array) not in seen:
                    seen.add(id(array))
                    total += array.nbytes
    return total


def _arrays(values: Sequence[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _arrays(value)
