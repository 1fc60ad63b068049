"""Training one shard of replicas: ``fit`` and ``evaluate``."""

from __future__ import annotations

import copy
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dlcore import checkpoints, checks, interrupts, schedules
from dlcore.backend import one_blas_thread
from dlcore.batches import CHUNK, Data, Part
from dlcore.checkpoints import Checkpoint
from dlcore.layers import BatchNorm, Layer
from dlcore.losses import SoftmaxCrossEntropy
from dlcore.network import Network
from dlcore.observing import unchanged
from dlcore.optimizers import Adam, Optimizer
from dlcore.random import Noise
from dlcore.regularizers import EarlyStopping

#: What is recorded of losses, in the order of ``History``.
CURVES = ("train_loss", "valid_loss", "valid_accuracy")
#: Names in the results of ``fit`` and ``sweep`` that no probe may give.
TAKEN = {
    *CURVES, "diverged", "best_epoch", "stopped_epoch", "test_loss", "test_accuracy",
    "epoch", "step", "seed", "layer",
}  # fmt: skip
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
    in their prediction mode, on one BLAS thread; what they remember for ``backward`` stays as it is.
    Raises ``ValueError`` for an empty or unknown part.
    """
    checks.choice("part", part, "train", "valid", "test")
    loss = on_backend(loss or SoftmaxCrossEntropy(), network)
    held = Part(network, data, part, loss)
    checks.expect(held.n, "data", f"at least one {part} example", "none")
    with one_blas_thread(), network.backend.quiet(), unchanged(network):
        _check_outputs(network, held, loss)
        return _evaluate(network, held, loss)


def _evaluate(network: Network, held: Part, loss: Any) -> tuple[np.ndarray, np.ndarray]:
    total = correct = 0.0
    for start in range(0, held.n, CHUNK):
        interrupts.check()
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

    An interrupt (Ctrl-C, the stop button) is obeyed at the end of the step: the network then has the
    parameters after its last whole step, also with ``early_stopping``; a checkpoint, if there is one,
    holds the state that was written last. Pressed twice, it does not wait for the step.

    Replica r ends with the bits that its seed gives alone (NumPy, one BLAS thread, which ``fit`` sets).
    With more ``blas_threads`` a single wide net trains faster, and equal to rounding only. A replica
    whose loss, parameters, buffers or optimizer's state are not finite at the end of an epoch is marked
    in ``diverged`` and frozen at zero weights.

    Each call is a run of its own: the network goes on from its weights and running statistics, but
    epochs count from 1 again, so that batches, noise and augmentation are those of the first run, the
    schedule starts anew, and so does the optimizer, without memory. ``fit(epochs=3)`` twice is not
    ``fit(epochs=6)``: give all epochs at once.
    Raises ``ValueError`` or ``TypeError`` for arguments out of range, and ``ValueError`` for a
    checkpoint that is damaged or another run's; all before the first step, as is the ``OSError`` of a
    checkpoint that cannot be written. What a probe returns is checked at the first record.
    """
    given = {k: v for k, v in locals().items() if k not in ("checkpoint", "progress")}
    run = _prepared(given)
    if checkpoint is not None:
        run.resume(checkpoint, given)
    run.sound = run.finite_arrays()
    with (
        one_blas_thread(blas_threads),
        network.backend.quiet(),
        interrupts.whole_steps(),
    ):
        for epoch in bar(range(int(run.done) + 1, run.length.epochs + 1), progress):
            before = run.epoch(epoch) if run.active.any() else None
            run.finish(epoch, before)
        if run.watch:
            run.watch.restore(~run.diverged)
    return run.history()


def check(network: Network, data: Data, **options: Any) -> None:
    """Raise what ``fit`` with the same arguments would raise before its first step.

    Nothing is trained; ``network`` stays as it is.
    """
    signature = inspect.signature(fit).bind(network, data, **options)
    signature.apply_defaults()
    _prepared(signature.arguments)


def _prepared(given: Mapping[str, Any]) -> _Run:
    """Check the arguments of ``fit`` and return what it needs."""
    run = _Run(given["network"], given["data"], given["optimizer"], given["loss"])
    run.length = _length(run.train.n, given["epochs"], given["steps"], given["batch_size"])
    checks.integer("evaluate_every", given["evaluate_every"], 1)
    checks.integer("blas_threads", given["blas_threads"], 1)
    _check_rows(run, run.length)
    run.set_rates(given["lr"], given["weight_decay"])
    run.set_schedule(given["schedule"])
    run.set_regularizers(given["regularizers"])
    run.set_functions(given["augment"], given["probe"])
    run.set_early_stopping(given["early_stopping"])
    run.make_room(given["evaluate_every"])
    return run


class Length(NamedTuple):
    """How long a run is: updates in all, updates per epoch, rows per batch."""

    steps: int
    per_epoch: int
    batch_size: int

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one perhaps cut short."""
        return -(-self.steps // self.per_epoch)

    def steps_after(self, epoch: int) -> int:
        """Return the number of updates done after an epoch."""
        return min(self.steps, self.per_epoch * epoch)


def _length(rows: int, epochs: Any, steps: Any, batch_size: Any) -> Length:
    """Return the length of a run. Raises ``ValueError`` unless one of epochs and steps is given."""
    per_epoch = -(-rows // checks.integer("batch_size", batch_size, 1))
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs, steps: expected exactly one, got epochs={epochs}, steps={steps}")
    if steps is None:
        steps = checks.integer("epochs", epochs, 1) * per_epoch
    return Length(checks.integer("steps", steps, 1), per_epoch, batch_size)


def _check_rows(run: _Run, length: Length) -> None:
    """Raise ``ValueError`` if batch norm would get a batch of one row."""
    whole_epoch = length.steps >= length.per_epoch
    rest = run.train.n % length.batch_size if whole_epoch else 0
    smallest = min(run.train.n, rest or length.batch_size)
    due = "batches with more than one row per feature to train batch norm"
    checks.expect(smallest > 1 or not run.normed, "batch_size", due, 1)


class _Run:
    """What one call of ``fit`` holds: data on the device, bound optimizer, records so far."""

    length: Length

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

    def set_rates(self, lr: Any, weight_decay: Any) -> None:
        """Check and keep learning rate and weight decay, one per replica."""
        if weight_decay is None:
            weight_decay = self.optimizer.weight_decay
        self.lr = checks.per_replica("lr", lr, self.network.replicas)
        self.decay = checks.per_replica("weight_decay", weight_decay, self.network.replicas)

    def set_schedule(self, schedule: Any) -> None:
        """Check and keep the schedule of learning rates."""
        self.schedule = schedules.begin(schedule, self.network.replicas)
        if not self.valid.n:  # one that needs validation data says so before the first step
            self.schedule.record(np.full(self.network.replicas, np.nan))

    def set_regularizers(self, regularizers: Any) -> None:
        """Check and keep what acts on gradients before a step, and on weights after it."""
        several = regularizers if isinstance(regularizers, (tuple, list)) else (regularizers,)
        for one in several:
            acts = hasattr(one, "gradients") or hasattr(one, "weights")
            due = "some such as L2(1e-4)"
            good = acts and not isinstance(one, type)
            checks.expect(good, "regularizers", due, repr(regularizers), TypeError)
        self.beside = [one.bind(self.network) if hasattr(one, "bind") else one for one in several]
        self.before_step = [one.gradients for one in self.beside if hasattr(one, "gradients")]
        self.after_step = [one.weights for one in self.beside if hasattr(one, "weights")]

    def set_functions(self, augment: Any, probe: Any) -> None:
        """Check and keep the functions that change batches and look at the network."""
        for name, value in (("augment", augment), ("probe", probe)):
            if value is not None:
                checks.function(name, value, "a function of two arguments")
        self.augment, self.probe = augment, probe

    def set_early_stopping(self, rule: Any) -> None:
        """Check and keep the rule that stops replicas."""
        checks.instance("early_stopping", rule, (EarlyStopping, type(None)), "EarlyStopping(...)")
        if rule and rule.monitor != "train_loss" and not self.valid.n:
            raise ValueError("early_stopping: expected validation examples, got none")
        self.watch = rule.begin(self.network) if rule else None

    def make_room(self, evaluate_every: int) -> None:
        """Make room for what will be recorded: every so many epochs, and after the last."""
        last = self.length.epochs
        epochs = [*range(evaluate_every, last, evaluate_every), last]
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

    def rates(self, number: int) -> np.ndarray:
        """Return the learning rates of an epoch's steps ``(steps, R)``; those that have ended have 0."""
        factors = []
        for step in range(self.length.per_epoch * (number - 1), self.length.steps_after(number)):
            factor = self.schedule(step, self.length.steps)
            factors.append(checks.per_replica("schedule", factor, len(self.lr)))
        return np.array(factors) * (self.lr * self.active)

    def on_device(self, rates: np.ndarray) -> tuple[Any, Any]:
        """Return an epoch's learning rates on the device, and rates times decay (None: no decay).

        These have one more column, 0, for the parameters that do not decay.
        """
        decay = self.decay
        padded = np.append(rates * decay, np.zeros((len(rates), 1)), axis=1)
        decays = self.backend.asarray(padded) if decay.any() else [None] * len(rates)
        return self.backend.asarray(rates), decays

    def order(self, number: int) -> Any:
        """Return the rows of an epoch's batches in order, keyed by seed and epoch, on the device."""
        streams = self.network.streams
        rows = streams.draw("batches", lambda rng: rng.permutation(self.train.n), number)
        return self.backend.asarray(rows + self.train.offset, np.intp)

    def epoch(self, number: int) -> Any:
        """Train one epoch; nothing in its loop waits for the device or copies from the host.

        Returns the parameters before the last step, where the probe will need them, else None.
        """
        net, xp = self.network, self.backend.xp
        net.start_epoch(number)
        noise = Noise(net.streams, self.backend, "augment", number) if self.augment else None
        order, batch_size = self.order(number), self.length.batch_size
        rates, decays = self.on_device(self.rates(number))
        last, before = len(rates) - 1, None
        keep = self.probe and number in self.recorded
        total = xp.zeros(net.streams.shape, dtype=self.backend.dtype)
        for k in range(len(rates)):
            interrupts.check()
            x, y = self.train.rows(order[..., k * batch_size : (k + 1) * batch_size])
            x = self.augment(x, noise) if self.augment else x
            value, dy = self.loss(net.run(x, training=True), y)
            net.backward(dy)
            total += value
            for regularize in self.before_step:
                regularize(net)
            if keep and k == last:
                before = net.parameters.copy()
            self.optimizer.step(rates[k], decays[k])
            for regularize in self.after_step:
                regularize(net)
        self.train_loss[...] = self.backend.to_numpy(total).astype(np.float64) / len(rates)
        return before

    def finish(self, epoch: int, before: Any) -> None:
        """Mark and freeze diverged replicas; at a record, evaluate and probe; keep the state."""
        stopped = self.stopped
        bad = ~np.isfinite(self.train_loss).ravel() | self._overflowed()
        if epoch in self.recorded:
            self._record(epoch, before, stopped, bad)
        else:
            self._freeze(bad & self.active)
        self.done[...] = epoch
        if self.keeper and epoch == self.length.epochs:
            self.keeper.write_result(self.memory)
        elif self.keeper:
            self.keeper.write(self.memory)

    def _overflowed(self) -> np.ndarray:
        """Return which replicas (R,) have an array that was finite at the start and is so no more.

        A loss may stay finite: an infinite second moment, for one, stops all steps.
        """
        if self.sound is None:
            return np.zeros(self.network.replicas, dtype=bool)
        return (self.sound & ~self.finite_arrays()).any(axis=-1)

    def _record(self, epoch: int, before: Any, stopped: np.ndarray, bad: np.ndarray) -> None:
        """Probe, evaluate and freeze; write down what was seen, and tell who watches.

        ``stopped`` and ``bad`` say which replicas (R,) early stopping has stopped, and which are no more
        finite.
        """
        shape = self.network.streams.shape
        for name, found in self._probe(before, stopped.reshape(shape)).items():
            self.probes.setdefault(name, []).append(found)
        valid, accuracy = np.full(shape, np.nan), np.full(shape, np.nan)
        if self.valid.n and self.active.any():
            valid, accuracy = _evaluate(self.network, self.valid, self.loss)
            bad = bad | ~np.isfinite(valid).ravel()
        self._freeze(bad & self.active)
        diverged = self.diverged.reshape(shape)
        guessing = diverged & (self.valid.n > 0)
        values = {
            "train_loss": np.where(diverged, np.inf, self.train_loss),
            "valid_loss": np.where(guessing, np.inf, valid),
            "valid_accuracy": np.where(guessing, 1 / self.train.classes, accuracy),
        }
        gone = stopped.reshape(shape)
        for name, value in values.items():
            self.curves[name][..., self.recorded[epoch]] = np.where(gone, np.nan, value)
        if self.watch:
            self.watch.record(epoch, values)
        self.schedule.record(np.where(gone, np.inf, values["valid_loss"]))

    def _probe(self, before: Any, gone: np.ndarray) -> dict[str, np.ndarray]:
        """Return copies of the probe's arrays on the host, NaN for replicas that have stopped."""
        if self.probe is None:
            return {}
        before = self.network.parameters.copy() if before is None else before
        answer = self.probe(self.network, before)
        checks.instance("probe", answer, Mapping, "a dict from names to arrays")
        found = {}
        for name, value in answer.items():
            value = np.array(self.backend.to_numpy(value))
            self._check_probed(name, value)
            if gone.any():
                value = np.where(
                    gone.reshape(*gone.shape, *[1] * (value.ndim - gone.ndim)), np.nan, value
                )
            found[name] = value
        names = self.probes or found
        checks.expect(names.keys() == found.keys(), "probe", f"names {[*names]}", [*found])
        return found

    def _check_probed(self, name: str, value: np.ndarray) -> None:
        """Raise ``TypeError`` or ``ValueError`` for an array of a probe that no record can hold."""
        checks.instance("probe", name, str, "names that are texts")
        checks.expect(name not in TAKEN, "probe", "a name of its own", repr(name))
        own = f"probe {name}"
        checks.expect(not value.dtype.hasobject, own, "numbers", "Python objects", TypeError)
        checks.expect(value.dtype.kind in "biufc", own, "numbers", value.dtype, TypeError)
        shape = self.network.streams.shape
        due = ", ".join(map(str, (*shape, "...")))
        good = value.shape[: len(shape)] == shape
        checks.expect(good, own, f"shape ({due}), replicas first", value.shape)
        before = self.probes[name][0].shape if name in self.probes else value.shape
        checks.expect(value.shape == before, own, f"shape {before} as at first", value.shape)

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

    def resume(self, checkpoint: Any, given: dict[str, Any]) -> None:
        """Open the checkpoint and take up what it holds; where there is more to do, try to write it."""
        net, to_numpy = self.network, self.backend.to_numpy
        start = {name: to_numpy(a) for name, a in net.arrays().items()}
        about = net.streams.seeds, net.backend, net.frozen, net.lr_factors, net.below
        settings = dict(given)
        settings["network"] = [_traits(layer) for layer in net.layers], start, about
        parts = self.train, self.valid
        settings["data"] = [(to_numpy(part.x), to_numpy(part.y), part.offset) for part in parts]
        self.keeper = checkpoints.Keeper(checkpoint, settings)
        if found := self.keeper.read():
            self.take_up(found)
        if self.done < self.length.epochs:
            self.keeper.check_writable()

    def take_up(self, found: Mapping[str, np.ndarray]) -> None:
        """Put the arrays of a checkpoint in their places. Raises ``ValueError`` unless they fit."""
        live = self.memory()
        kept = {name: a for name, a in found.items() if not name.startswith("probe ")}
        checks.expect(kept.keys() == live.keys(), "checkpoint", f"{sorted(live)}", sorted(kept))
        for name, a in live.items():
            checks.expect(kept[name].shape == a.shape, name, f"shape {a.shape}", kept[name].shape)
        for name, a in live.items():
            new = kept[name]
            a[...] = new if isinstance(a, np.ndarray) else self.backend.asarray(new, new.dtype)
        probes = {name: a for name, a in found.items() if name.startswith("probe ")}
        self.probes = {name.removeprefix("probe "): [*a] for name, a in probes.items()}
        for _ in range(self.length.steps_after(int(self.done))):
            self.optimizer.advance()

    def history(self) -> History:
        """Return what was seen, in arrays of its own."""
        shape = self.network.streams.shape
        epochs = np.array([*self.recorded])
        steps = np.array([self.length.steps_after(epoch) for epoch in self.recorded])
        curves = {name: curve.copy() for name, curve in self.curves.items()}
        probes = {name: np.stack(found, axis=len(shape)) for name, found in self.probes.items()}
        ends = {}
        for name in ("best_epoch", "stopped_epoch") if self.watch else ():
            ends[name] = getattr(self.watch, name).reshape(shape).copy()
        diverged = self.diverged.reshape(shape).copy()
        return History(epochs, steps, **curves, diverged=diverged, probes=probes, **ends)


def _traits(layer: Layer) -> tuple[type, dict[str, Any]]:
    """Return a layer's type and settings; arrays are told apart by themselves."""
    plain: Any = (bool, int, float, str, tuple, np.number, Callable)
    own = {k: v for k, v in vars(layer).items() if isinstance(v, (plain, Layer))}
    return type(layer), {k: _traits(v) if isinstance(v, Layer) else v for k, v in own.items()}


def bar(steps: Any, progress: bool | None, unit: str = "epoch") -> Iterable[Any]:
    """Wrap a sequence into a progress bar on stderr, if one is wanted; it counts in ``unit`` (epochs).

    By default one is where somebody looks: not in worker threads or processes, not in a pipe.
    """
    if progress is None:
        stream = sys.stderr  # None without a console
        seen = "ipykernel" in type(stream).__module__ or (stream is not None and stream.isatty())
        seen &= os.environ.get("TQDM_DISABLE", "0") in ("", "0")
        progress = seen and threading.current_thread() is threading.main_thread()
    return tqdm(steps, unit=unit, leave=False, disable=False) if progress else steps


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
