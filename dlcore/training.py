"""Training one shard of replicas: ``fit`` and ``evaluate``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlcore import checks, schedules
from dlcore.backend import one_blas_thread
from dlcore.datasets import Dataset
from dlcore.losses import SoftmaxCrossEntropy
from dlcore.network import Network
from dlcore.optimizers import Adam, Optimizer

#: Rows per evaluation call. Fixed, for the sum's order, and so its last bit, would change with it.
CHUNK = 500

#: One set for all replicas, one per seed, or a function of the seed that makes one.
Data = Dataset | Mapping[int, Dataset] | Callable[..., Dataset]
Probe = Callable[[Network, Any], dict[str, Any]]


@dataclass
class History:
    """What ``fit`` saw, as host arrays; shapes begin with the replica axis, if there is one.

    ``epoch`` and ``step`` ``(E,)``: passes and updates done at each record. ``train_loss`` (mean over
    the epoch's batches, as it was learned), ``valid_loss``, ``valid_accuracy``: ``(..., E)``.
    ``diverged`` ``(...)``. ``probes``: name to array ``(..., E, n)``. After divergence losses are
    infinite and the accuracy is that of guessing.
    """

    epoch: np.ndarray
    step: np.ndarray
    train_loss: np.ndarray
    valid_loss: np.ndarray
    valid_accuracy: np.ndarray
    diverged: np.ndarray
    probes: dict[str, np.ndarray] = field(default_factory=dict)


class Part:
    """Training, validation or test part on the device: rows of all seeds' sets, held once each.

    Replica r reads rows ``offset[r] … offset[r] + n - 1``.
    """

    def __init__(self, network: Network, data: Data, part: str, loss: Any) -> None:
        sets = _sets(network, data)
        self.backend, self.shape = network.backend, network.streams.shape
        self.n, self.classes = len(getattr(sets[0], f"y_{part}")), sets[0].classes
        if any(len(getattr(s, f"y_{part}")) != self.n for s in sets):
            raise ValueError(f"data: expected equal numbers of {part} examples for all seeds")
        y = np.concatenate([getattr(s, f"y_{part}") for s in sets])
        if loss.kind == "values":
            y = np.eye(self.classes, dtype=self.backend.dtype)[y]
        self.x = self.backend.asarray(np.concatenate([getattr(s, f"x_{part}") for s in sets]))
        self.y = self.backend.asarray(y, y.dtype)
        index = network.streams.index if len(sets) > 1 else np.zeros_like(network.streams.index)
        self.shared = len(sets) == 1
        self.offset = (index * self.n).reshape(*self.shape, 1)

    def rows(self, index: Any) -> tuple[Any, Any]:
        """Gather examples by a device index ``(..., batch)``."""
        take = self.backend.xp.take
        return take(self.x, index, axis=0), take(self.y, index, axis=0)

    def chunk(self, start: int) -> tuple[Any, Any]:
        """Return the next ``CHUNK`` examples; a set that all replicas share is not copied."""
        stop = min(self.n, start + CHUNK)
        if self.shared:
            return self.x[start:stop], self.y[start:stop]
        return self.rows(self.backend.asarray(self.offset + np.arange(start, stop), np.int64))


def evaluate(
    network: Network, data: Data, part: str = "valid", loss: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean loss and accuracy (share of correct answers) on a part, one of each per replica.

    ``part`` is "train", "valid" or "test"; ``loss`` defaults to ``SoftmaxCrossEntropy()``. Layers run
    in their prediction mode, on one BLAS thread. Raises ``ValueError`` for an empty or unknown part.
    """
    if part not in ("train", "valid", "test"):
        raise ValueError(f"part: expected 'train', 'valid' or 'test', got {part!r}")
    loss = on_backend(loss or SoftmaxCrossEntropy(), network)
    held = Part(network, data, part, loss)
    if held.n == 0:
        raise ValueError(f"data: expected at least one {part} example, got none")
    _check_outputs(network, held, loss)
    with one_blas_thread(), network.backend.quiet():
        return _evaluate(network, held, loss)


def _evaluate(network: Network, held: Part, loss: Any) -> tuple[np.ndarray, np.ndarray]:
    total = correct = 0.0
    for start in range(0, held.n, CHUNK):
        x, y = held.chunk(start)
        out = network.forward(x, training=False)
        size = min(CHUNK, held.n - start)
        total = total + loss(out, y)[0] * (size / held.n)
        correct = correct + loss.correct(out, y).sum(axis=-1)
    to_numpy = network.backend.to_numpy
    return to_numpy(total).astype(np.float64), to_numpy(correct) / held.n


def fit(
    network: Network,
    data: Data,
    optimizer: Optimizer | type[Optimizer] = Adam,
    *,
    lr: float | Sequence[float],
    weight_decay: float | Sequence[float] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 100,
    loss: Any = None,
    schedule: Callable[[int, int], Any] | None = None,
    regularizers: Any = (),
    probe: Probe | None = None,
    evaluate_every: int = 1,
) -> History:
    """Train all replicas of a network together and return their history.

    ``lr`` and ``weight_decay``: a number or one per replica; decay is by default the optimizer's own
    (0.01 of ``AdamW``, 0 of the others). Give ``epochs`` or ``steps`` (the last epoch may then be cut
    short). Batches of ``batch_size`` (default 100, at most the training set; the last of an epoch may
    be shorter) come in an order keyed by the seed. ``schedule(step, steps)`` multiplies lr: one of
    ``dlcore.schedules`` or a function. ``regularizers``, one or a sequence, act on gradients before
    each step. Every ``evaluate_every`` epochs, and at the end, the validation part (if any) is
    evaluated and ``probe(network, before)`` is called with the parameters before the last step, right
    after it.

    Replica r ends with the bits that its seed gives alone (NumPy, one BLAS thread, which ``fit``
    sets). A replica whose loss is not finite at the end of an epoch is marked in ``diverged`` and
    frozen at zero weights. Raises ``ValueError`` or ``TypeError`` for arguments out of range.
    """
    run = _Run(network, data, optimizer, loss)
    per_epoch = -(-run.train.n // checks.integer("batch_size", batch_size, 1))
    if (epochs is None) == (steps is None):
        raise ValueError(f"epochs, steps: expected exactly one, got epochs={epochs}, steps={steps}")
    total = checks.integer("epochs", epochs, 1) * per_epoch if steps is None else steps
    checks.integer("steps", total, 1)
    checks.integer("evaluate_every", evaluate_every, 1)
    base = checks.per_replica("lr", lr, network.replicas)
    own = run.optimizer.weight_decay if weight_decay is None else weight_decay
    decay = checks.per_replica("weight_decay", own, network.replicas)
    schedule = schedules.begin(schedule, network.replicas)
    regularizers = regularizers if isinstance(regularizers, (tuple, list)) else (regularizers,)
    if not all(hasattr(regularizer, "gradients") for regularizer in regularizers):
        raise TypeError(
            f"regularizers: expected some such as clip_by_norm(1.0), got {regularizers!r}"
        )
    if not (probe is None or callable(probe)):
        raise TypeError(f"probe: expected a function of (network, before), got {probe!r}")
    with one_blas_thread(), network.backend.quiet():
        for epoch, first in enumerate(range(0, total, per_epoch), start=1):
            span = range(first, min(total, first + per_epoch))
            record = epoch % evaluate_every == 0 or span.stop == total
            factors = [checks.per_replica("schedule", schedule(k, total), len(base)) for k in span]
            rates = np.array(factors) * (base * ~run.diverged)
            before = run.epoch(epoch, batch_size, rates, decay, regularizers, record and probe)
            run.finish(epoch, span.stop, record, probe, before)
            if record:
                schedule.record(run.records[-1][3])
    return run.history()


class _Run:
    """What one call of ``fit`` holds: data on the device, bound optimizer, records so far."""

    def __init__(self, network: Network, data: Data, optimizer: Any, loss: Any) -> None:
        self.loss = on_backend(loss or SoftmaxCrossEntropy(), network)
        self.network, self.backend = network, network.backend
        self.train = Part(network, data, "train", self.loss)
        self.valid = Part(network, data, "valid", self.loss)
        _check_outputs(network, self.train, self.loss)
        made = optimizer() if isinstance(optimizer, type) else optimizer
        if not isinstance(made, Optimizer):
            raise TypeError(f"optimizer: expected an Optimizer, got {optimizer!r}")
        self.optimizer = made.bind(network)
        self.diverged = np.zeros(network.replicas, dtype=bool)
        self.records: list[tuple] = []
        self.probes: list[dict[str, np.ndarray]] = []

    def epoch(self, number, batch_size, rates, decay, regularizers, keep) -> Any:
        """Train one epoch; nothing in its loop waits for the device or copies from the host."""
        net, xp, asarray = self.network, self.backend.xp, self.backend.asarray
        net.start_epoch(number)
        order = net.streams.draw("batches", lambda rng: rng.permutation(self.train.n), number)
        order = asarray(order + self.train.offset, np.int64)
        padded = np.append(rates * decay, np.zeros((len(rates), 1)), axis=1)
        decays = asarray(padded) if decay.any() else [None] * len(rates)
        rates, last, before = asarray(rates), len(rates) - 1, None
        total = xp.zeros(net.streams.shape, dtype=self.backend.dtype)
        for k in range(len(rates)):
            x, y = self.train.rows(order[..., k * batch_size : (k + 1) * batch_size])
            value, dy = self.loss(net.forward(x, training=True), y)
            net.backward(dy)
            total += value
            for regularizer in regularizers:
                regularizer.gradients(net)
            if keep and k == last:
                before = net.parameters.copy()
            self.optimizer.step(rates[k], decays[k])
        self.train_loss = self.backend.to_numpy(total).astype(np.float64) / len(rates)
        return before

    def finish(self, epoch: int, step: int, record: bool, probe: Probe | None, before: Any) -> None:
        """Mark and freeze diverged replicas; at a record, evaluate and probe."""
        shape = self.network.streams.shape
        bad = ~np.isfinite(self.train_loss)
        if record:
            found = probe(self.network, before) if probe else {}
            self.probes.append({k: self.backend.to_numpy(v) for k, v in found.items()})
            valid, accuracy = np.full(shape, np.nan), np.full(shape, np.nan)
            if self.valid.n:
                valid, accuracy = _evaluate(self.network, self.valid, self.loss)
                bad = bad | ~np.isfinite(valid)
        self._freeze(np.reshape(bad, -1) & ~self.diverged)
        if record:
            out = self.diverged.reshape(shape)
            self.records.append(
                (
                    epoch,
                    step,
                    np.where(out, np.inf, self.train_loss),
                    np.where(out & (self.valid.n > 0), np.inf, valid),
                    np.where(out & (self.valid.n > 0), 1 / self.train.classes, accuracy),
                )
            )

    def _freeze(self, new: np.ndarray) -> None:
        """Zero the weights and the optimizer's state of newly diverged replicas."""
        net = self.network
        for r in np.flatnonzero(new):
            for slot in net.slots:
                for buffer in (net.parameters, net.gradients, *self.optimizer.buffers):
                    buffer[slot.start : slot.stop].reshape(net.replicas, -1)[r] = 0
        self.diverged |= new

    def history(self) -> History:
        epoch, step, *curves = zip(*self.records, strict=True)
        names = self.probes[0]
        axis = len(self.network.streams.shape)
        return History(
            np.array(epoch),
            np.array(step),
            *(np.stack(curve, axis=-1) for curve in curves),
            self.diverged.reshape(self.network.streams.shape),
            {k: np.stack([p[k] for p in self.probes], axis=axis) for k in names},
        )


def _sets(network: Network, data: Data) -> list[Dataset]:
    """Return the data sets: one for all, or one per seed in the order of ``streams.unique``."""
    if isinstance(data, Dataset):
        return [data]
    seeds = network.streams.unique
    if isinstance(data, Mapping):
        missing = [s for s in seeds if s not in data]
        if missing:
            raise ValueError(f"data: expected a set for each seed, got none for {missing}")
        return [data[s] for s in seeds]
    if callable(data):
        return [data(seed=s) for s in seeds]
    raise TypeError(f"data: expected a Dataset, a mapping or a function of seed, got {data!r}")


def _check_outputs(network: Network, held: Part, loss: Any) -> None:
    """Raise ``ValueError`` unless one row gets through the network and each class has an output."""
    with network.backend.quiet():
        outputs = network.forward(held.x[:1], training=False).shape[-1]
    if loss.kind == "labels" and outputs < held.classes:
        raise ValueError(f"network: expected {held.classes} outputs, one per class, got {outputs}")


def on_backend(loss: Any, network: Network) -> Any:
    """Return a copy of a loss (class or instance) that computes with the network's array module.

    Raises ``TypeError`` where either is something else.
    """
    if not isinstance(network, Network):
        raise TypeError(f"network: expected a Network, got {network!r}")
    made = loss() if isinstance(loss, type) else copy.copy(loss)
    if not (callable(made) and hasattr(made, "correct")):
        raise TypeError(f"loss: expected a loss such as SoftmaxCrossEntropy(), got {loss!r}")
    made.xp, made.classes = network.backend.xp, None  # class indices may lie on another device
    return made
