"""Losses: one value per replica, and the gradient of the mean over the batch.

``loss(y, target)`` returns ``(value, dy)``; value has the shape of the replicas. Nothing is averaged
over replicas, which would scale their gradients by one over their number. The array module is that
of the arguments: host arrays in, host arrays out, and the same on a device.
"""

from typing import Any

import numpy as np

from dlcore import checks
from dlcore.backend import array_module, fused, on_device


class SoftmaxCrossEntropy:
    r"""Cross-entropy of softmax(logits): :math:`-\frac1B\sum_i \ln p_{i,y_i}`.

    Its gradient is :math:`\partial z = (p - 1_y)/B`.

    Shapes: logits ``(..., batch, classes)``, integer labels ``(..., batch)``. In nats. The logarithm is
    taken of the shifted sum, so that no finite logit overflows.
    """

    kind = "labels"
    xp: Any = np
    classes: Any = None

    def __call__(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        _expect_arrays(logits=logits, labels=labels)
        xp, batch = array_module(logits), logits.shape[-2]
        checks.expect(labels.dtype.kind in "iu", "labels", "integers", labels.dtype)
        if labels.shape[-1:] != logits.shape[-2:-1] or labels.ndim > logits.ndim - 1:
            raise ValueError(f"labels: expected shape (..., {batch}), got {labels.shape}")
        z, e = _shifted(xp, logits, logits.max(axis=-1, keepdims=True))
        total = e.sum(axis=-1, keepdims=True)
        numbers = self._class_numbers(xp, logits.shape[-1])
        log_p, dz = _cross_entropy(xp, z, e, total, labels[..., None], numbers, batch)
        return log_p.sum(axis=(-2, -1)) * (-1 / batch), dz

    def _class_numbers(self, xp: Any, count: int) -> Any:
        """Return 0 … count - 1 as an array of the module, made once."""
        kept = self.classes
        if kept is None or len(kept) != count or array_module(kept) is not xp:
            self.classes = kept = xp.arange(count)
        return kept

    def correct(self, logits: Any, labels: Any) -> Any:
        """Return whether the largest logit is the label's: bool ``(..., batch)``."""
        _expect_one_place(logits=logits, labels=labels)
        return logits.argmax(axis=-1) == labels


class BinaryCrossEntropy:
    r"""Cross-entropy of logistic(logits): :math:`\mathrm{mean}[\ln(1+e^z) - t z]`.

    Its gradient is :math:`\partial z = (s(z) - t)/B`.

    Shapes: logits and targets ``(..., batch, outputs)``, targets in [0, 1]; summed over outputs, mean
    over the batch. In nats.
    """

    kind = "values"
    xp: Any = np

    def __call__(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        _same_shape(logits, targets)
        xp, batch = array_module(logits), logits.shape[-2]
        value, dz = _logistic_loss(xp, logits, targets, batch)
        return value.sum(axis=(-2, -1)) / batch, dz

    def correct(self, logits: Any, targets: Any) -> Any:
        """Return whether all outputs fall on the target's side of 1/2: bool ``(..., batch)``."""
        _expect_one_place(logits=logits, targets=targets)
        return ((logits > 0) == (targets > 0.5)).all(axis=-1)


class MeanSquaredError:
    r"""Squared error, :math:`\frac1{Bn}\sum (y-t)^2`, :math:`\partial y = 2(y-t)/(Bn)` (PyTorch's mean).

    Shapes: outputs and targets ``(..., batch, n)``.
    """

    kind = "values"
    xp: Any = np

    def __call__(self, y: Any, targets: Any) -> tuple[Any, Any]:
        _same_shape(y, targets)
        n = y.shape[-2] * y.shape[-1]
        square, dy = _squared_error(array_module(y), y, targets, 2 / n)
        return square.sum(axis=(-2, -1)) / n, dy

    def correct(self, y: Any, targets: Any) -> Any:
        """Return whether the nearest whole numbers agree on all outputs: bool ``(..., batch)``."""
        _expect_one_place(y=y, targets=targets)
        return (abs(y - targets) < 0.5).all(axis=-1)


@fused
def _shifted(xp: Any, logits: Any, largest: Any) -> tuple[Any, Any]:
    z = logits - largest
    return z, xp.exp(z)


@fused
def _cross_entropy(
    xp: Any, z: Any, e: Any, total: Any, labels: Any, classes: Any, batch: int
) -> tuple[Any, Any]:
    target = labels == classes
    return (z - xp.log(total)) * target, (e / total - target) / batch


@fused
def _logistic_loss(xp: Any, logits: Any, targets: Any, batch: int) -> tuple[Any, Any]:
    value = xp.logaddexp(logits, 0.0) - targets * logits
    s = 0.5 * xp.tanh(0.5 * logits) + 0.5
    return value, (s - targets) / batch


@fused
def _squared_error(xp: Any, y: Any, targets: Any, factor: float) -> tuple[Any, Any]:
    error = y - targets
    return error * error, error * factor


def _expect_arrays(**given: Any) -> None:
    """Raise ``TypeError`` for what is no array, ``ValueError`` for a first one without batch axis."""
    for name, a in given.items():
        checks.expect(hasattr(a, "ndim"), name, "an array", type(a).__name__, TypeError)
    name, y = next(iter(given.items()))
    checks.expect(y.ndim >= 2, name, "axes (..., batch, classes)", y.shape)
    _expect_one_place(**given)


def _expect_one_place(**given: Any) -> None:
    """Raise ``TypeError`` where the second array is not where the first one is, host or device."""
    (first, y), (name, target) = given.items()
    here, there = on_device(y), on_device(target)
    if here and not there:
        due = f"an array on the device, as {first} is: backend.asarray({name}, dtype)"
        checks.expect(False, name, due, "one on the host", TypeError)
    if there and not here:
        due = f"an array on the host, as {first} is: backend.to_numpy({name})"
        checks.expect(False, name, due, "one on the device", TypeError)


def _same_shape(y: Any, targets: Any) -> None:
    _expect_arrays(y=y, targets=targets)
    fits = targets.shape[-2:] == y.shape[-2:] and targets.ndim <= y.ndim
    checks.expect(fits, "targets", f"shape (..., {y.shape[-2]}, {y.shape[-1]})", targets.shape)
