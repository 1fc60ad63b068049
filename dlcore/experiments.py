"""Settings × seeds: many nets from one call, as a labelled ``xarray.Dataset``."""

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from dlcore import backend as backends
from dlcore import checkpoints, checks
from dlcore.batches import per_seed
from dlcore.checkpoints import Checkpoint
from dlcore.datasets import Dataset
from dlcore.layers import Layer
from dlcore.network import Network
from dlcore.random import Streams
from dlcore.training import Data, evaluate, fit

#: Settings that differ between replicas of one shard; all others make shards of their own.
PER_REPLICA = ("lr", "weight_decay")
#: Replicas per shard at most: 10 small nets keep the cache (74 GFLOP/s; 39 with 20, 58 with 5, two cores).
SHARD = 10
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

    ``keeper`` is the file of the result, by default none.
    """

    network: Callable[..., list[Layer]]
    options: Mapping[str, Any]
    data: Dataset | Mapping[int, Dataset]
    seeds: tuple[int, ...]
    backend: backends.Backend
    fit: Mapping[str, Any]
    test: bool
    keeper: checkpoints.Keeper | None = None

    def run(self) -> dict[str, np.ndarray]:
        """Train, unless an earlier run has, and return arrays by name, replicas first."""
        keep = self.keeper
        if found := keep and keep.read():
            return found
        state = Checkpoint(keep.path.with_suffix(".fit.npz"), keep.seconds) if keep else None
        with backends.one_blas_thread(self.fit.get("blas_threads", 1)):
            net = Network(self.network(**self.options), self.seeds, self.backend)
            history = fit(net, self.data, **self.fit, checkpoint=state)
            found = {n: a for n, a in vars(history).items() if isinstance(a, np.ndarray)}
            for name in ("epoch", "step"):  # one row per replica, as the rest
                found[f"_{name}"] = np.broadcast_to(found.pop(name), history.train_loss.shape)
            found |= history.probes
            if self.test:
                loss, accuracy = evaluate(net, self.data, "test", self.fit.get("loss"))
                chance = 1 / per_seed(self.data, self.seeds)[self.seeds[0]].classes
                found["test_loss"] = np.where(history.diverged, np.inf, loss)
                found["test_accuracy"] = np.where(history.diverged, chance, accuracy)
        if keep and state:
            keep.write(lambda: found, now=True)
            Path(state.path).unlink(missing_ok=True)
        return found


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
    on NumPy at most half of them, so that two cores have work), on a pool of one thread per core (NumPy) or
    one after another (GPU, or where threads are missing); any ``concurrent.futures.Executor`` can be given
    as ``executor``. The results do not depend on it.
    ``checkpoint``, a folder that all workers share or a ``Checkpoint`` of one, keeps results and states:
    after a crash the same call trains only what is missing. Other calls may use the folder too.
    ``backend`` is a name (default ``"auto"``) or a ``Backend``. Curves that are shorter, or nets with
    fewer layers, are filled with NaN at the end of their dimension.
    """
    seeds = _seeds(seeds)
    checks.function("network", network, "a function that makes layers")
    known = set(inspect.signature(network).parameters) | _FIT
    checks.names("settings", settings, known)
    chosen = {k: _choices(k, v) for k, v in settings.items() if isinstance(v, (list, dict))}
    fixed = {k: v for k, v in settings.items() if k not in chosen}
    for name in set(PER_REPLICA) & set(fixed):  # shards would cut one value per replica
        due, plain = "a number, or a list to sweep over", np.ndim(fixed[name]) == 0
        checks.expect(plain, name, due, repr(fixed[name]), TypeError)
    checks.instance("executor", executor, (Executor, type(None)), "an Executor")
    checks.instance("test", test, bool)
    chip = backends.get_backend(backend)
    held = data if isinstance(data, Dataset) else per_seed(data, seeds)
    outer = {k: v for k, v in chosen.items() if k not in PER_REPLICA}
    inner = {k: v for k, v in chosen.items() if k in PER_REPLICA}
    lanes = list(itertools.product(*(v.values() for v in inner.values()), seeds))
    half = -(-len(lanes) // 2) if chip.name == "numpy" else SHARD
    size = checks.integer("shard", min(SHARD, half) if shard is None else shard, 1)
    shards: list[Shard] = []
    for values in itertools.product(*(v.values() for v in outer.values())):
        options = fixed | dict(zip(outer, values, strict=True))
        for start in range(0, len(lanes), size):
            part = lanes[start : start + size]
            names = tuple(lane[-1] for lane in part)
            mine = held if isinstance(held, Dataset) else {s: held[s] for s in dict.fromkeys(names)}
            merged = options | {k: [lane[i] for lane in part] for i, k in enumerate(inner)}
            fit_own = {k: v for k, v in merged.items() if k in _FIT}
            net_own = {k: v for k, v in merged.items() if k not in _FIT}
            shards.append(Shard(network, net_own, mine, names, chip, fit_own, test))
    if checkpoint is not None:
        shards = _kept(shards, checkpoint)
    found = [one.keeper and one.keeper.read() for one in shards]
    made = iter(_map([s for s, f in zip(shards, found, strict=True) if not f], executor, chip))
    results = [f or next(made) for f in found]
    return _assemble(results, outer, inner, seeds, tuple(chosen), -(-len(lanes) // size))


def _kept(shards: list[Shard], checkpoint: Any) -> list[Shard]:
    """Return copies that keep their results in a folder, in files named by their fingerprints."""
    folder = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    known: dict[int, Any] = {}
    names = [checkpoints.fingerprint((checkpoints.code(), shard), known) for shard in shards]
    files = [replace(folder, path=Path(folder.path) / f"{name}.npz") for name in names]
    keepers = map(checkpoints.Keeper, files, ({"shard": name} for name in names))
    return [replace(s, keeper=keeper) for s, keeper in zip(shards, keepers, strict=True)]


def _map(shards: list[Shard], executor: Executor | None, chip: backends.Backend) -> Iterable[dict]:
    if executor is not None:
        try:
            return list(executor.map(Shard.run, shards))
        except Exception as error:
            unsent = "pickle" in str(error) or "local object" in str(error)
            if unsent or isinstance(error, BrokenExecutor):
                error.add_note(_SENT)
            raise
    told = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1
    if chip.name != "numpy" or sys.platform == "emscripten" or min(cores, len(shards)) == 1:
        return [shard.run() for shard in shards]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(Shard.run, shards))


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


def _assemble(results, outer, inner, seeds, order, per_group) -> xr.Dataset:
    """Join shards to arrays with one dimension per swept setting, then ``seed``."""
    groups = [results[i : i + per_group] for i in range(0, len(results), per_group)]
    shape = [len(v) for v in (*outer.values(), *inner.values())] + [len(seeds)]
    dims = (*outer, *inner, "seed")
    variables = {}
    for name in results[0]:
        joined = _stacked([np.concatenate([shard[name] for shard in group]) for group in groups])
        extra = ("epoch", "layer")[: joined.ndim - 2]
        variables[name] = ((*dims, *extra), joined.reshape(*shape, *joined.shape[2:]))
    found = xr.Dataset(variables)
    labels = {k: list(v) for k, v in (outer | inner).items()} | {"seed": list(seeds)}
    if "layer" in found.dims:
        labels["layer"] = np.arange(1, found.sizes["layer"] + 1)
    # Curves of other lengths are padded with NaN: the longest says which epoch and step it is.
    counts = {n: found[f"_{n}"].max(dims).values.astype(int) for n in ("epoch", "step")}
    found = found.drop_vars(["_epoch", "_step"]).assign_coords(labels)
    found = found.assign_coords(epoch=counts["epoch"], step=("epoch", counts["step"]))
    return found.transpose(*order, "seed", ...)


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Stack arrays, filled with NaN at the end of their axes up to the longest."""
    longest = np.max([part.shape for part in parts], axis=0)
    if all(part.shape == tuple(longest) for part in parts):
        return np.stack(parts)
    joined = np.full((len(parts), *longest), np.nan)
    for whole, part in zip(joined, parts, strict=True):
        whole[tuple(map(slice, part.shape))] = part
    return joined
