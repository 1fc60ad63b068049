"""Settings × seeds: many nets from one call, as a labelled ``xarray.Dataset``."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import (
    FIRST_EXCEPTION,
    BrokenExecutor,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from dlcore import backend as backends
from dlcore import checkpoints, checks, interrupts, packing
from dlcore.batches import per_seed
from dlcore.checkpoints import Checkpoint
from dlcore.datasets import Dataset
from dlcore.fingerprints import Fingerprints
from dlcore.layers import Layer
from dlcore.machine import cores
from dlcore.network import Network
from dlcore.random import Streams
from dlcore.training import TAKEN, Data, History, bar, evaluate, fit
from dlcore.training import check as check_fit

#: Settings that differ between replicas of one shard; all others make shards of their own.
PER_REPLICA = ("lr", "weight_decay")
#: Replicas per shard at most: 10 small nets keep the cache (74 GFLOP/s; 39 with 20, 58 with 5, two cores).
SHARD = 10
#: Seconds that an interrupted sweep waits for its shards to end.
PATIENCE = 0.5
_SENT = """Other processes import the functions and classes that a sweep sends: take mlp(...) or those of
a module, not of a notebook, or an executor that sends their code, such as dask.distributed's. If a
worker process ended otherwise, it was killed or had no memory left."""
_FIT = set(inspect.signature(fit).parameters) - {"network", "data", "checkpoint"}


def lr_grid(centre: float, steps_each_side: int, factor: float = 10**0.5) -> list[float]:
    """Return learning rates ``centre * factor**k``, k = −n … n, factor √10 by default.

    >>> [round(lr, 4) for lr in lr_grid(0.1, 1)]
    [0.0316, 0.1, 0.3162]
    """
    checks.real("centre", centre, 0, ends="(]")
    checks.real("factor", factor, 0, ends="(]")
    n = checks.integer("steps_each_side", steps_each_side, 0)
    return [centre * factor**k for k in range(-n, n + 1)]


def setup(**sizes: Mapping[str, Any]) -> SimpleNamespace:
    """Return a chapter's numbers for the size that ``DLCORE_SIZE`` names (default ``full``).

    ``sizes`` maps each size to its numbers, the same names in each: ``setup(full=dict(seeds=20),
    quick=dict(seeds=3))``. Names beginning with ``seeds`` must be counts (at most 1000) and become
    lists of seeds, no two of them overlapping, shifted by 10,000 × ``DLCORE_SEED``. The result also has
    ``size``. Raises ``ValueError`` for a size that is not offered, or whose names differ.
    """
    size = os.environ.get("DLCORE_SIZE", "full")
    checks.expect(size in sizes, "DLCORE_SIZE", f"one of {sorted(sizes)}", repr(size))
    names = [sorted(checks.instance(k, v, Mapping)) for k, v in sizes.items()]
    checks.expect(all(n == names[0] for n in names), "sizes", "the same names in each size", names)
    moved = os.environ.get("DLCORE_SEED", "0")
    checks.expect(moved.isdecimal(), "DLCORE_SEED", "an integer >= 0", repr(moved))
    base = 10_000 * int(moved)
    found: dict[str, Any] = {"size": size}
    for name, value in sizes[size].items():
        if name.startswith("seeds"):
            checks.expect(checks.integer(name, value, 1) <= 1000, name, "at most 1000 seeds", value)
            found[name], base = list(range(base, base + value)), base + 1000
        else:
            found[name] = value
    return SimpleNamespace(**found)


@dataclass(frozen=True)
class Shard:
    """Replicas trained by one call of ``fit``; everything in it can be pickled.

    ``keeper`` is the file of the result, by default none. ``permit`` is the sweep's leave to go on
    (default None: none is needed). ``starts`` holds options and numbers of replicas where these
    differ in first weights (default: all have ``options``).
    """

    network: Callable[..., list[Layer]]
    options: Mapping[str, Any]
    data: Dataset | Mapping[int, Dataset]
    seeds: tuple[int, ...]
    backend: backends.Backend
    fit: Mapping[str, Any]
    test: bool
    keeper: checkpoints.Keeper | None = None
    permit: interrupts.Permit | None = None
    starts: tuple[tuple[Mapping[str, Any], int], ...] = ()

    def run(self) -> dict[str, np.ndarray]:
        """Train, unless an earlier run has, and return arrays by name, replicas first.

        Raises ``interrupts.Stopped`` once the sweep has withdrawn its permit.
        """
        keep = self.keeper
        if found := keep and keep.read():
            return found
        state = Checkpoint(keep.path.with_suffix(".fit.npz"), keep.seconds) if keep else None
        with (
            interrupts.permitted(self.permit),
            backends.one_blas_thread(self.fit.get("blas_threads", 1)),
        ):
            interrupts.check()
            net = self._network()
            history = fit(net, self.data, **self.fit, checkpoint=state)
            found = _arrays(history) | (self._tested(net, history) if self.test else {})
        if keep and state:
            keep.write_result(lambda: found)
            if keep.path.exists():  # not after a disk that failed
                Path(state.path).unlink(missing_ok=True)
        return found

    def _network(self) -> Network:
        """Return the network before its first step, with the first weights of each replica's options."""
        net = Network(self.network(**self.options), self.seeds, self.backend)
        stop = 0
        for options, count in self.starts:
            start, stop = stop, stop + count
            own = Network(self.network(**options), self.seeds[start:stop], self.backend).arrays()
            for name, array in net.arrays().items():
                array[start:stop] = own[name]
        return net

    def check(self) -> None:
        """Raise what ``run`` would raise before its first step."""
        with backends.one_blas_thread(self.fit.get("blas_threads", 1)):
            net = Network(self.network(**self.options), self.seeds, self.backend)
            check_fit(net, self.data, **self.fit)

    def _tested(self, net: Network, history: Any) -> dict[str, np.ndarray]:
        """Return loss and accuracy on the test part; of diverged replicas those of no answer."""
        loss, accuracy = evaluate(net, self.data, "test", self.fit.get("loss"))
        chance = 1 / per_seed(self.data, self.seeds)[self.seeds[0]].classes
        return {
            "test_loss": np.where(history.diverged, np.inf, loss),
            "test_accuracy": np.where(history.diverged, chance, accuracy),
        }


def _arrays(history: History) -> dict[str, np.ndarray]:
    """Return the arrays of a history by name; epoch and step get one row per replica, as the rest."""
    found = {name: a for name, a in vars(history).items() if isinstance(a, np.ndarray)}
    for name in ("epoch", "step"):
        found[f"_{name}"] = np.broadcast_to(found.pop(name), history.train_loss.shape)
    return found | history.probes


def sweep(
    network: Callable[..., list[Layer]], data: Data, *, seeds: int | Sequence[int],
    backend: str | backends.Backend = "auto", executor: Executor | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None, shard: int | None = None,
    test: bool = False, **settings: Any,
) -> xr.Dataset:  # fmt: skip
    """Train every combination of settings for every seed and return what was seen, labelled.

    ``network`` is a blueprint such as ``mlp([40, 100, 10])``. Each keyword of ``fit`` or of the
    blueprint may be one value, a list of values, or a dict from labels to values: lists and dicts
    become dimensions of the result, in the order given, then ``seed``. ``seeds`` is a number or a
    sequence. ``data`` is one ``Dataset`` or a function of ``seed`` that makes one for each seed.
    ``test=True`` adds ``test_loss`` and ``test_accuracy`` after the last step.

    Settings with other shapes or optimizers train in shards of at most ``shard`` replicas (default 10, and
    on NumPy at most half of them, so that two cores have work), on a pool of one thread per core (NumPy;
    see ``cores``) or one after another (where threads are missing); any
    ``concurrent.futures.Executor`` can be given as ``executor``. The results do not depend on it.
    On a GPU ``shard`` means nothing: a step costs the same for many replicas as for one, so as many train
    together as its memory holds, also of settings that differ in rates, strengths of a penalty or first
    weights only; several GPUs have shards of their own.
    ``checkpoint``, a folder that all workers share or a ``Checkpoint`` of one, keeps results and states:
    after a crash the same call trains only what is missing. Other calls may use the folder too.
    ``backend`` is a name (default ``"auto"``) or a ``Backend``. Curves that are shorter, or nets with
    fewer layers, are filled with NaN at the end of their dimension.

    An interrupt, or an error in one shard, ends all of them at their next step, within a second, and is
    raised; with ``checkpoint`` the shards that have ended are kept, and of the others the state that was
    written last. Processes on other machines finish the shards that they have begun. All settings are
    tried before the first shard trains: each makes its network, and what ``fit`` refuses is refused then.
    Raises ``ValueError`` or ``TypeError`` for arguments that do not fit, ``OSError`` for a folder in
    which nothing can be written.
    """
    plan = _plan(network, data, seeds, settings, backend, shard, test)
    _check_executor(executor, plan.network, settings)
    shards = plan.shards(data)
    if checkpoint is not None:
        shards = _kept(shards, checkpoint)
    known = [one.keeper.read() if one.keeper else None for one in shards]
    missing = [one for one, found in zip(shards, known, strict=True) if found is None]
    _check_shards(missing)
    made = iter(_run(missing, executor, plan.backend))
    results = [next(made) if found is None else found for found in known]
    return plan.assemble(results)


@dataclass(frozen=True)
class _Plan:
    """The settings of a sweep, sorted.

    ``fixed`` holds single values; ``outer`` and ``inner`` those that are swept, by label: between
    shards, and between the replicas of one. ``order`` has the names of all that are swept, as given.
    """

    network: Callable[..., list[Layer]]
    seeds: tuple[int, ...]
    backend: backends.Backend
    test: bool
    fixed: dict[str, Any]
    outer: dict[str, dict[Any, Any]]
    inner: dict[str, dict[Any, Any]]
    order: tuple[str, ...]
    size: int

    @property
    def replicas(self) -> list[tuple[Any, ...]]:
        """The replicas of one group of shards: values of the inner settings, then the seed."""
        return list(itertools.product(*(v.values() for v in self.inner.values()), self.seeds))

    def shards(self, data: Data) -> list[Shard]:
        """Return all shards: for each combination of the outer settings, replicas in pieces."""
        held = self._held(data)
        shards, replicas = [], self.replicas
        for values in itertools.product(*(v.values() for v in self.outer.values())):
            options = self.fixed | dict(zip(self.outer, values, strict=True))
            for start in range(0, len(replicas), self.size):
                shards.append(self._shard(options, replicas[start : start + self.size], held))
        return shards

    def _held(self, data: Data) -> Dataset | dict[int, Dataset]:
        """Return the data, made once for each seed. With ``test`` all must have a test part."""
        held = data if isinstance(data, Dataset) else per_seed(data, self.seeds)
        for one in [held] if isinstance(held, Dataset) else held.values():
            due = "at least one test example for test=True"
            checks.expect(not self.test or len(one.y_test), "data", due, "none")
        return held

    def _shard(self, options: dict, replicas: list[tuple], held: Any) -> Shard:
        seeds = tuple(replica[-1] for replica in replicas)
        data = held if isinstance(held, Dataset) else {s: held[s] for s in dict.fromkeys(seeds)}
        per_replica = {k: [replica[i] for replica in replicas] for i, k in enumerate(self.inner)}
        merged = options | per_replica
        of_fit = {k: v for k, v in merged.items() if k in _FIT}
        of_network = {k: v for k, v in merged.items() if k not in _FIT}
        return Shard(self.network, of_network, data, seeds, self.backend, of_fit, self.test)

    def assemble(self, results: list[dict[str, np.ndarray]]) -> xr.Dataset:
        """Join the shards' results to arrays with one dimension per swept setting, then ``seed``."""
        per_group = -(-len(self.replicas) // self.size)
        groups = [results[i : i + per_group] for i in range(0, len(results), per_group)]
        swept = self.outer | self.inner
        dims = (*swept, "seed")
        shape = [*map(len, swept.values()), len(self.seeds)]
        variables: dict[str, Any] = {}
        for name, parts in _joined(groups).items():
            whole = _stacked(parts)
            label = f"probe_{name}" if name in dims else name
            own = _own_dims(label, whole.shape[2:], variables)
            variables[label] = ((*dims, *own), whole.reshape(*shape, *whole.shape[2:]))
        found = xr.Dataset(variables)
        labels = {name: _coordinate(name, values) for name, values in swept.items()}
        labels["seed"] = ("seed", list(self.seeds))
        if "layer" in found.dims:
            labels["layer"] = ("layer", np.arange(1, found.sizes["layer"] + 1))
        # Curves of other lengths are padded with NaN: the longest says which epoch and step it is.
        counts = {n: found[f"_{n}"].max(dims).values.astype(int) for n in ("epoch", "step")}
        found = found.drop_vars(["_epoch", "_step"]).assign_coords(labels)
        found = found.assign_coords(epoch=counts["epoch"], step=("epoch", counts["step"]))
        return found.transpose(*self.order, "seed", ...)


def _plan(
    network: Any,
    data: Any,
    seeds: Any,
    settings: dict[str, Any],
    backend: Any,
    shard: Any,
    test: Any,
) -> _Plan:
    """Check the arguments of ``sweep`` and sort its settings."""
    seeds = _seeds(seeds)
    checks.function("network", network, "a function that makes layers")
    known = set(inspect.signature(network).parameters) | _FIT
    checks.names("settings", settings, known)
    chosen = {k: _choices(k, v) for k, v in settings.items() if isinstance(v, (list, dict))}
    fixed = {k: v for k, v in settings.items() if k not in chosen}
    _check_names(chosen, fixed)
    for name in set(PER_REPLICA) & set(chosen):
        checks.per_replica(name, [*chosen[name].values()], len(chosen[name]))
    checks.instance("test", test, bool)
    chip = backends.get_backend(backend)
    outer = {k: v for k, v in chosen.items() if k not in PER_REPLICA}
    inner = {k: v for k, v in chosen.items() if k in PER_REPLICA}
    size = _size(shard, math.prod(map(len, inner.values())) * len(seeds), chip)
    return _Plan(network, seeds, chip, test, fixed, outer, inner, tuple(chosen), size)


def _check_names(chosen: dict[str, Any], fixed: dict[str, Any]) -> None:
    """Raise for settings that shards would cut, and names that the result needs for itself."""
    for name in set(PER_REPLICA) & set(fixed):  # shards would cut one value per replica
        due, plain = "a number, or a list to sweep over", np.ndim(fixed[name]) == 0
        checks.expect(plain, name, due, repr(fixed[name]), TypeError)
    own = sorted(set(chosen) & {*TAKEN, "_epoch", "_step"})
    checks.expect(not own, "settings", "swept names that the result has not itself", own)


def _size(shard: Any, replicas: int, chip: backends.Backend) -> int:
    """Return the number of replicas per shard: by default, on NumPy, two shards at least.

    On a device all that can run together: its memory decides (see ``packing``).
    """
    if shard is not None:
        checks.integer("shard", shard, 1)
    if chip.name != "numpy":
        return replicas
    half = -(-replicas // 2)
    return min(SHARD, half) if shard is None else shard


def _kept(shards: list[Shard], checkpoint: Any) -> list[Shard]:
    """Return copies that keep their results in a folder, in files named by their fingerprints."""
    folder = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    known = Fingerprints()
    names = [checkpoints.fingerprint((checkpoints.code(), shard), known) for shard in shards]
    files = [replace(folder, path=Path(folder.path) / f"{name}.npz") for name in names]
    keepers = map(checkpoints.Keeper, files, ({"shard": name} for name in names))
    return [replace(s, keeper=keeper) for s, keeper in zip(shards, keepers, strict=True)]


# Running shards ----------------------------------------------------------------------------------


def _check_executor(executor: Any, network: Any, settings: Mapping[str, Any]) -> None:
    """Raise for an executor that takes no more work, or cannot send what is to be trained."""
    checks.instance("executor", executor, (Executor, type(None)), "an Executor")
    if executor is None or type(executor).submit is Executor.submit:
        return
    try:
        executor.submit(int).cancel()
    except RuntimeError as error:
        what = f"{executor!r} ({error})"
        raise type(error)(f"executor: expected one that takes work, got {what}") from error
    module = sys.modules.get("concurrent.futures.process")  # missing in browsers
    if module is not None and isinstance(executor, module.ProcessPoolExecutor):
        try:
            pickle.dumps((network, settings))
        except Exception as error:  # what cannot be sent raises types of its own
            error.add_note(_SENT)
            raise


def _check_shards(shards: list[Shard]) -> None:
    """Raise now what a shard would raise before its first step.

    Shards of the same options are tried once, and not at all where there are no others.
    """
    if shards and shards[0].keeper:
        shards[0].keeper.check_writable()
    different: list[Shard] = []
    for one in shards:
        if not any(_same(one, other) for other in different):
            different.append(one)
    for one in different if len(different) > 1 else ():
        one.check()


def _without_replicas(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in PER_REPLICA}


def _same(first: Shard, second: Shard) -> bool:
    """Return whether two shards differ in nothing but replicas."""
    pairs = [
        (first.options, second.options),
        (_without_replicas(first.fit), _without_replicas(second.fit)),
    ]
    return all(a.keys() == b.keys() and all(a[k] is b[k] for k in a) for a, b in pairs)


def _run(
    shards: list[Shard], executor: Executor | None, chip: backends.Backend
) -> Iterable[dict[str, np.ndarray]]:
    """Run shards, on an executor or as many threads as there are cores, and return their results."""
    if executor is not None:
        return _on(executor, shards)
    if chip.name != "numpy":
        return packing.run(shards)
    workers = min(cores(), len(shards))
    if workers <= 1:
        return [shard.run() for shard in _one_bar(shards)]
    pool = ThreadPoolExecutor(workers)
    try:
        return _on(pool, shards)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one_bar(shards: list[Shard]) -> Iterable[Shard]:
    """Return shards that show no bars of their own, but for a single one; one bar counts them."""
    if len(shards) <= 1:
        return shards
    quiet = [replace(one, fit=dict(one.fit) | {"progress": False}) for one in shards]
    return bar(quiet, None, "shard")


def _on(executor: Executor, shards: list[Shard]) -> list[dict[str, np.ndarray]]:
    """Run shards on an executor. The first error, or an interrupt, ends them all and is raised."""
    permit = interrupts.Permit(processes=not isinstance(executor, ThreadPoolExecutor))
    sent = [replace(shard, permit=permit) for shard in shards]
    futures: list[Future] = []
    try:
        if type(executor).submit is Executor.submit:  # it has another ``map`` only
            return list(executor.map(Shard.run, sent))
        for shard in sent:
            futures.append(executor.submit(Shard.run, shard))
            if _has_failed(futures[-1]):  # an executor that works at once
                break
        wait(futures, return_when=FIRST_EXCEPTION)
        return _results(futures)
    except Exception as error:
        _explain(error)
        raise
    finally:
        permit.withdraw()
        for future in futures:
            future.cancel()
        wait([future for future in futures if not future.cancelled()], timeout=PATIENCE)


def _explain(error: Exception) -> None:
    """Add a note to an error that comes from sending, or from a worker that has died."""
    unsent = "pickle" in str(error) or "local object" in str(error)
    if unsent or isinstance(error, BrokenExecutor):
        error.add_note(_SENT)


def _has_failed(future: Future) -> bool:
    return future.done() and future.exception() is not None


def _results(futures: list[Future]) -> list[dict[str, np.ndarray]]:
    """Return the results, or raise the first error of those that have ended."""
    for future in futures:
        if _has_failed(future):
            future.result()
    return [future.result() for future in futures]


# Labels ------------------------------------------------------------------------------------------


def _choices(name: str, value: Any) -> dict[Any, Any]:
    """Return ``label -> value`` of a swept setting."""
    made = value if isinstance(value, dict) else {_label(v): v for v in value}
    checks.expect(0 < len(made) == len(value), name, "values with distinct labels", repr(value))
    return made


def _label(value: Any) -> Any:
    if isinstance(value, (str, int, float, np.generic)):
        return value
    return getattr(value, "__name__", None) or repr(value)


def _seeds(seeds: Any) -> tuple[int, ...]:
    """Return distinct seeds from their number or themselves."""
    if np.ndim(seeds) == 0:
        return tuple(range(checks.integer("seeds", seeds, 1)))
    found = Streams(seeds).seeds
    checks.expect(len(set(found)) == len(found), "seeds", "distinct seeds", repr(seeds))
    return found


def _coordinate(name: str, labels: Iterable[Any]) -> tuple[str, Any]:
    """Return labels as a coordinate with one axis, also where they are tuples."""
    found = list(labels)
    if np.ndim(np.array(found, dtype=object)) == 1:
        return name, found
    whole = np.empty(len(found), dtype=object)
    whole[:] = [str(label) for label in found]
    return name, whole


def _joined(groups: list[list[dict[str, np.ndarray]]]) -> dict[str, list[np.ndarray]]:
    """Return each variable's parts, one per group; where a shard lacks one, its part is empty."""
    names = dict.fromkeys(name for group in groups for shard in group for name in shard)
    found = {}
    for name in names:
        axes = next(shard[name].ndim for group in groups for shard in group if name in shard)
        found[name] = [
            _end_to_end([shard.get(name, _nothing(shard, axes)) for shard in group])
            for group in groups
        ]
    return found


def _nothing(shard: dict[str, np.ndarray], axes: int) -> np.ndarray:
    return np.full((len(shard["diverged"]), *[0] * (axes - 1)), np.nan)


def _end_to_end(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate the replicas of several shards, filled with NaN up to the longest of other axes."""
    longest = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    return np.concatenate([_filled(part, (len(part), *longest)) for part in parts])


def _own_dims(name: str, sizes: tuple[int, ...], variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Return names of a variable's own dimensions: epoch, layer, and one of its own for what is else."""
    layers = [value.shape[-1] for dims, value in variables.values() if dims[-1] == "layer"]
    own = ["epoch", "layer"][: len(sizes)]
    if len(sizes) >= 2 and layers and layers[0] != sizes[1]:
        own[1] = f"{name}_layer"
    return (*own, *(f"{name}_axis{i}" for i in range(3, len(sizes) + 1)))


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Stack arrays, filled with NaN at the end of their axes up to the longest."""
    longest = tuple(np.max([part.shape for part in parts], axis=0).astype(int))
    return np.stack([_filled(part, longest) for part in parts])


def _filled(part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array with NaN at the end of its axes, the same one if it has the shape already."""
    if part.shape == tuple(shape):
        return part
    whole = np.full(shape, np.nan)
    whole[tuple(map(slice, part.shape))] = part
    return whole
