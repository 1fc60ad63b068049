"""Training one shard of replicas: ``fit`` and ``evaluate``."""

import copy
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from dlcore import checkpoints, checks, schedules
from dlcore.backend import one_blas_thread
from dlcore.batches import CHUNK, Data, Part
from dlcore.checkpoints import Checkpoint
from dlcore.layers import BatchNorm, Layer
from dlcore.losses import SoftmaxCrossEntropy
from dlcore.network import Network
from dlcore.optimizers import Adam, Optimizer
from dlcore.random import Noise
from dlcore.regularizers import EarlyStopping

#: What is recorded of losses, in the order of ``History``.
CURVES = ("train_loss", "valid_loss", "valid_accuracy")
Probe = Callable[[Network, Any], dict[str, Any]]


@dataclass
class History:
    """What ``fit`` saw, as host arrays; shapes begin with the replica axis, if there is one.

    ``epoch`` and ``step`` ``(E,)``: passes and updates done at each record. ``train_loss`` (mean over
    the epoch's batches, as it was learned), ``valid_loss``, ``valid_accuracy``: ``(..., E)``.
    ``diverged`` ``(...)``. ``probes``: name to array ``(..., E, n)``. After divergence losses are
    infinite and the accuracy is that of guessing. With early stopping: ``best_epoch`` ``(...)``, whose
    weights the network has (0: the first ones), and ``stopped_epoch``, the last one trained; after it
    curves and probes are NaN.
    """

    epoch: np.ndarray
    step: np.ndarray
    train_loss: np.ndarray
    valid_loss: np.ndarray
    valid_accuracy: np.ndarray
    diverged: np.ndarray
    probes: dict[str, np.ndarray] = field(default_factory=dict)
    best_epoch: np.ndarray | None = None
    stopped_epoch: np.ndarray | None = None


def evaluate(
    network: Network, data: Data, part: str = "valid", loss: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean loss and accuracy (share of correct answers) on a part, one of each per replica.

    ``part`` is "train", "valid" or "test"; ``loss`` defaults to ``SoftmaxCrossEntropy()``. Layers run
    in their prediction mode, on one BLAS thread. Raises ``ValueError`` for an empty or unknown part.
    """
    checks.choice("part", part, "train", "valid", "test")
    loss = on_backend(loss or SoftmaxCrossEntropy(), network)
    held = Part(network, data, part, loss)
    checks.expect(held.n, "data", f"at least one {part} example", "none")
    _check_outputs(network, held, loss)
    with one_blas_thread(), network.backend.quiet():
        return _evaluate(network, held, loss)


def _evaluate(network: Network, held: Part, loss: Any) -> tuple[np.ndarray, np.ndarray]:
    total = correct = 0.0
    for start in range(0, held.n, CHUNK):
        x, y = held.chunk(start)
        out = network.run(x)
        total = total + loss(out, y)[0] * (min(CHUNK, held.n - start) / held.n)
        correct = correct + loss.correct(out, y).sum(axis=-1)
    to_numpy = network.backend.to_numpy
    return to_numpy(total).astype(np.float64), to_numpy(correct) / held.n


def fit(
    network: Network, data: Data, optimizer: Optimizer | type[Optimizer] = Adam, *,
    lr: float | Sequence[float], weight_decay: float | Sequence[float] | None = None,
    epochs: int | None = None, steps: int | None = None, batch_size: int = 100, loss: Any = None,
    schedule: Callable[[int, int], Any] | None = None, regularizers: Any = (),
    augment: Callable[[Any, Any], Any] | None = None, early_stopping: EarlyStopping | None = None,
    probe: Probe | None = None, evaluate_every: int = 1, blas_threads: int = 1,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None, progress: bool | None = None,
) -> History:  # fmt: skip
    """Train all replicas of a network together and return their history.

    ``lr`` and ``weight_decay``: a number or one per replica; decay is by default the optimizer's own
    (0.01 of ``AdamW``, 0 of the others). Give ``epochs`` or ``steps`` (the last epoch may then be cut
    short). Batches of ``batch_size`` (default 100, at most the training set; the last of an epoch may
    be shorter, though with batch norm no single row) come in an order keyed by the seed.
    ``schedule(step, steps)`` multiplies lr: one of
    ``dlcore.schedules`` or a function. ``regularizers``, one or a sequence, act on gradients before
    each step or on weights after it. ``augment(x, noise)`` changes training batches, with noise keyed
    by seed and epoch: one of ``dlcore.augmentation``. Every ``evaluate_every`` epochs, and at the end,
    the validation part (if any) is evaluated and ``probe(network, before)`` is called with the
    parameters before the last step, right after it. ``early_stopping`` looks at these records.
    ``checkpoint``, a file or a ``Checkpoint``, keeps the state: called again with the same arguments
    after a crash, ``fit`` goes on from there and ends with the same bits (NumPy); a finished run is
    only read. ``progress`` shows a bar; by default in a terminal or notebook, and not with
    ``TQDM_DISABLE`` set.

    Replica r ends with the bits that its seed gives alone (NumPy, one BLAS thread, which ``fit`` sets).
    With more ``blas_threads`` a single wide net trains faster, and equal to rounding only. A replica
    whose loss, parameters, buffers or optimizer's state are not finite at the end of an epoch is marked
    in ``diverged`` and frozen at zero weights.

    Each call is a run of its own: the network goes on from its weights and running statistics, but
    epochs count from 1 again, so that batches, noise and augmentation are those of the first run, the
    schedule starts anew, and so does the optimizer, without memory. ``fit(epochs=3)`` twice is not
    ``fit(epochs=6)``: give all epochs at once.
    Raises ``ValueError`` or ``TypeError`` for arguments out of range, and ``ValueError`` for a
    checkpoint that is damaged or another run's.
    """
    given = {k: v for k, v in locals().items() if k not in ("checkpoint", "progress")}
    run = _Run(network, data, optimizer, loss)
    per_epoch = -(-run.train.n // checks.integer("batch_size", batch_size, 1))
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs, steps: expected exactly one, got epochs={epochs}, steps={steps}")
    total = checks.integer("epochs", epochs, 1) * per_epoch if steps is None else steps
    checks.integer("steps", total, 1)
    checks.integer("evaluate_every", evaluate_every, 1)
    checks.integer("blas_threads", blas_threads, 1)
    rest = run.train.n % batch_size if total >= per_epoch else 0
    due = "batches with more than one row per feature to train batch norm"
    checks.expect(min(run.train.n, rest or batch_size) > 1 or not run.normed, "batch_size", due, 1)
    base = checks.per_replica("lr", lr, network.replicas)
    own = run.optimizer.weight_decay if weight_decay is None else weight_decay
    decay = checks.per_replica("weight_decay", own, network.replicas)
    run.options(schedule, regularizers, augment, early_stopping, probe)
    last = -(-total // per_epoch)
    run.make_room([*range(evaluate_every, last, evaluate_every), last])
    done = 0 if checkpoint is None else run.resume(checkpoint, given, per_epoch)
    run.sound = run.finite_arrays()
    with one_blas_thread(blas_threads), network.backend.quiet():
        for epoch in _bar(range(done + 1, last + 1), progress):
            span = range(per_epoch * (epoch - 1), min(total, per_epoch * epoch))
            record, before = epoch in run.recorded, None
            if run.active.any():
                factors = [  # copied one by one: a function may return the same array each time
                    checks.per_replica("schedule", run.schedule(k, total), len(base)) for k in span
                ]
                rates = np.array(factors) * (base * run.active)
                before = run.epoch(epoch, batch_size, rates, decay, record)
            run.finish(epoch, record, before)
        if run.watch:
            run.watch.restore(~run.diverged)
    return run.history(np.minimum(np.multiply([*run.recorded], per_epoch), total))


class _Run:
    """What one call of ``fit`` holds: data on the device, bound optimizer, records so far."""

    def __init__(self, network: Network, data: Data, optimizer: Any, loss: Any) -> None:
        self.loss = on_backend(loss or SoftmaxCrossEntropy(), network)
        self.network, self.backend = network, network.backend
        self.train = Part(network, data, "train", self.loss)
        self.valid = Part(network, data, "valid", self.loss)
        _check_outputs(network, self.train, self.loss)
        made = optimizer() if isinstance(optimizer, type) else optimizer
        checks.instance("optimizer", made, Optimizer, "an Optimizer")
        if network.slots and not network.trainable:
            raise ValueError("network: expected a layer that learns, got all of them frozen")
        self.optimizer = made.bind(network)
        learning = [la for i, la in enumerate(network.layers) if i not in network.frozen]
        self.normed = any(isinstance(la, BatchNorm) and not la.images for la in learning)
        self.done, self.diverged = np.zeros((), int), np.zeros(network.replicas, dtype=bool)
        self.train_loss = np.full(network.streams.shape, np.nan)
        self.keeper: checkpoints.Keeper | None = None
        self.sound: np.ndarray | None = None  # what ``finite_arrays`` returned at the start

    def options(self, schedule, regularizers, augment, stopping, probe) -> None:
        """Check and keep what acts beside the loss."""
        self.schedule = schedules.begin(schedule, self.network.replicas)
        several = regularizers if isinstance(regularizers, (tuple, list)) else (regularizers,)
        acts = [hasattr(r, "gradients") or hasattr(r, "weights") for r in several]
        if not all(acts) or any(isinstance(r, type) for r in several):
            raise TypeError(f"regularizers: expected some such as L2(1e-4), got {regularizers!r}")
        for name, value in (("augment", augment), ("probe", probe)):
            checks.function(name, value or np.add, "a function of two arguments")
        known = (EarlyStopping, type(None))
        checks.instance("early_stopping", stopping, known, "EarlyStopping(...)")
        if stopping and stopping.monitor != "train_loss" and not self.valid.n:
            raise ValueError("early_stopping: expected validation examples, got none")
        self.beside = [r.bind(self.network) if hasattr(r, "bind") else r for r in several]
        self.before_step = [r.gradients for r in self.beside if hasattr(r, "gradients")]
        self.after_step = [r.weights for r in self.beside if hasattr(r, "weights")]
        if not self.valid.n:  # a schedule that needs validation data says so before the first step
            self.schedule.record(np.full(self.network.replicas, np.nan))
        self.augment, self.probe = augment, probe
        self.watch = stopping.begin(self.network) if stopping else None

    def make_room(self, epochs: list[int]) -> None:
        """Make room for what will be recorded after some epochs."""
        shape = (*self.network.streams.shape, len(epochs))
        self.recorded = {epoch: i for i, epoch in enumerate(epochs)}
        self.curves = {name: np.full(shape, np.nan) for name in CURVES}
        self.probes: dict[str, list[np.ndarray]] = {}

    @property
    def stopped(self) -> np.ndarray:
        """Which replicas early stopping has stopped (R,); the diverged ones are not among them."""
        return self.watch.stopped & ~self.diverged if self.watch else np.zeros_like(self.diverged)

    @property
    def active(self) -> np.ndarray:
        """Which replicas go on (R,)."""
        return ~(self.stopped | self.diverged)

    def epoch(self, number, batch_size, rates, decay, keep) -> Any:
        """Train one epoch; nothing in its loop waits for the device or copies from the host."""
        net, xp, asarray = self.network, self.backend.xp, self.backend.asarray
        net.start_epoch(number)
        noise = Noise(net.streams, self.backend, "augment", number) if self.augment else None
        order = net.streams.draw("batches", lambda rng: rng.permutation(self.train.n), number)
        order = asarray(order + self.train.offset, np.intp)
        padded = np.append(rates * decay, np.zeros((len(rates), 1)), axis=1)
        decays = asarray(padded) if decay.any() else [None] * len(rates)
        rates, last, before = asarray(rates), len(rates) - 1, None
        total = xp.zeros(net.streams.shape, dtype=self.backend.dtype)
        for k in range(len(rates)):
            x, y = self.train.rows(order[..., k * batch_size : (k + 1) * batch_size])
            x = self.augment(x, noise) if self.augment else x
            value, dy = self.loss(net.run(x, training=True), y)
            net.backward(dy)
            total += value
            for regularize in self.before_step:
                regularize(net)
            if keep and self.probe and k == last:
                before = net.parameters.copy()
            self.optimizer.step(rates[k], decays[k])
            for regularize in self.after_step:
                regularize(net)
        self.train_loss[...] = self.backend.to_numpy(total).astype(np.float64) / len(rates)
        return before

    def finish(self, epoch: int, record: bool, before: Any) -> None:
        """Mark and freeze diverged replicas; at a record, evaluate and probe; keep the state."""
        shape = self.network.streams.shape
        bad, gone = ~np.isfinite(self.train_loss), self.stopped.reshape(shape)
        if (
            self.sound is not None
        ):  # a loss may stay finite: an infinite second moment stops all steps
            spoilt = self.sound & ~self.finite_arrays()
            bad = bad | spoilt.any(axis=-1).reshape(shape)
        if record:
            for name, found in self._probe(before, gone).items():
                self.probes.setdefault(name, []).append(found)
            valid, accuracy = np.full(shape, np.nan), np.full(shape, np.nan)
            if self.valid.n and self.active.any():
                valid, accuracy = _evaluate(self.network, self.valid, self.loss)
                bad = bad | ~np.isfinite(valid)
        self._freeze(np.reshape(bad, -1) & self.active)
        if record:
            out = self.diverged.reshape(shape)
            blind = out & (self.valid.n > 0)
            values = {
                "train_loss": np.where(out, np.inf, self.train_loss),
                "valid_loss": np.where(blind, np.inf, valid),
                "valid_accuracy": np.where(blind, 1 / self.train.classes, accuracy),
            }
            for name, value in values.items():
                self.curves[name][..., self.recorded[epoch]] = np.where(gone, np.nan, value)
            if self.watch:
                self.watch.record(epoch, values)
            self.schedule.record(np.where(gone, np.inf, values["valid_loss"]))
        self.done[...] = epoch
        if self.keeper:
            self.keeper.write(self.memory, now=epoch == max(self.recorded))

    def _probe(self, before: Any, gone: np.ndarray) -> dict[str, np.ndarray]:
        """Return the probe's arrays on the host, NaN for replicas that early stopping has stopped."""
        if self.probe is None:
            return {}
        before = self.network.parameters.copy() if before is None else before
        found = {k: self.backend.to_numpy(v) for k, v in self.probe(self.network, before).items()}
        cut = found if gone.any() else {}
        return found | {k: np.where(gone[..., None], np.nan, value) for k, value in cut.items()}

    def finite_arrays(self) -> np.ndarray:
        """Return for each replica whether the network's and optimizer's arrays are finite ``(R, n)``."""
        net, xp = self.network, self.backend.xp
        flat = (net.parameters, *self.optimizer.buffers)
        arrays = [buffer[slot.start : slot.stop] for slot in net.slots for buffer in flat]
        arrays += [getattr(layer, name) for layer in net.layers for name in layer.buffers]
        if not arrays:
            return np.ones((net.replicas, 1), bool)
        rows = [a.reshape(net.replicas, -1) for a in arrays]
        ends = [xp.maximum(row.max(axis=-1), -row.min(axis=-1)) for row in rows]  # no large copies
        return np.isfinite(self.backend.to_numpy(xp.stack(ends, axis=-1)))

    def _freeze(self, new: np.ndarray) -> None:
        """Zero the weights and the optimizer's state of newly diverged replicas."""
        net = self.network
        for r in np.flatnonzero(new):
            for slot in net.slots:
                for buffer in (net.parameters, net.gradients, *self.optimizer.buffers):
                    buffer[slot.start : slot.stop].reshape(net.replicas, -1)[r] = 0
            for layer in net.layers:
                for name, (_, value) in layer.buffers.items():
                    getattr(layer, name).reshape(net.replicas, -1)[r] = value
        self.diverged |= new

    def memory(self) -> dict[str, Any]:
        """Return the live arrays that the next epoch reads, and what was seen, by name."""
        found = {"epoch": self.done, "diverged": self.diverged, "last loss": self.train_loss}
        found |= self.curves | {f"probe {k}": np.stack(v) for k, v in self.probes.items()}
        parts = [self.network, self.optimizer, self.schedule, self.watch, *self.beside]
        for i, part in enumerate(parts):
            if hasattr(part, "memory"):
                found |= {f"{i} {name}": a for name, a in part.memory().items()}
        return found

    def resume(self, checkpoint: Any, given: dict[str, Any], per_epoch: int) -> int:
        """Open the checkpoint, take up what it holds, and return the epochs done."""
        net, to_numpy = self.network, self.backend.to_numpy
        start = {name: to_numpy(a) for name, a in net.arrays().items()}
        about = net.streams.seeds, net.backend, net.frozen, net.lr_factors, net.below
        given["network"] = [_traits(layer) for layer in net.layers], start, about
        given["data"] = [(to_numpy(p.x), to_numpy(p.y), p.offset) for p in (self.train, self.valid)]
        self.keeper = checkpoints.Keeper(checkpoint, given)
        found = self.keeper.read() or {}
        for name, a in self.memory().items() if found else ():
            new = found[name]
            a[...] = new if isinstance(a, np.ndarray) else self.backend.asarray(new, new.dtype)
        probes = {k: a for k, a in found.items() if k.startswith("probe ")}
        self.probes = {name.removeprefix("probe "): [*a] for name, a in probes.items()}
        for _ in range(self.done * per_epoch):
            self.optimizer.advance()
        return int(self.done)

    def history(self, steps: np.ndarray) -> History:
        shape, watch = self.network.streams.shape, self.watch
        probes = {name: np.stack(found, axis=len(shape)) for name, found in self.probes.items()}
        ends = [e.reshape(shape) for e in (watch.best_epoch, watch.stopped_epoch)] if watch else []
        others: Any = [*self.curves.values(), self.diverged.reshape(shape), probes, *ends]
        return History(np.array([*self.recorded]), steps, *others)


def _traits(layer: Layer) -> tuple[type, dict[str, Any]]:
    """Return a layer's type and settings; arrays are told apart by themselves."""
    plain: Any = (bool, int, float, str, tuple, np.number, Callable)
    own = {k: v for k, v in vars(layer).items() if isinstance(v, (plain, Layer))}
    return type(layer), {k: _traits(v) if isinstance(v, Layer) else v for k, v in own.items()}


def _bar(epochs: range, progress: bool | None) -> Iterable[int]:
    """Wrap the epochs into a progress bar on stderr, if one is wanted.

    By default one is where somebody looks: not in worker threads or processes, not in a pipe.
    """
    if progress is None:
        stream = sys.stderr  # None without a console
        seen = "ipykernel" in type(stream).__module__ or (stream is not None and stream.isatty())
        seen &= os.environ.get("TQDM_DISABLE", "0") in ("", "0")
        progress = seen and threading.current_thread() is threading.main_thread()
    return tqdm(epochs, unit="epoch", leave=False, disable=False) if progress else epochs


def _check_outputs(network: Network, held: Part, loss: Any) -> None:
    """Raise ``ValueError`` unless one row gets through the network and each class has an output."""
    with network.backend.quiet():
        outputs = network.run(held.x[:1]).shape[-1]
    enough = outputs >= held.classes if loss.kind == "labels" else outputs == held.classes
    checks.expect(enough, "network", f"{held.classes} outputs, one per class", outputs)


def on_backend(loss: Any, network: Network) -> Any:
    """Return a copy of a loss (class or instance) that computes with the network's array module.

    Raises ``TypeError`` where either is something else.
    """
    checks.instance("network", network, Network)
    made = loss() if isinstance(loss, type) else copy.copy(loss)
    if not (callable(made) and hasattr(made, "correct")):
        raise TypeError(f"loss: expected a loss such as SoftmaxCrossEntropy(), got {loss!r}")
    made.xp, made.classes = network.backend.xp, None  # class indices may lie on another device
    return made
