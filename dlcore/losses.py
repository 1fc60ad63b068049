"""Losses: one value per replica, and the gradient of the mean over the batch.

``loss(y, target)`` returns ``(value, dy)``; value has the shape of the replicas. Nothing is averaged
over replicas, which would scale their gradients by one over their number. The array module is that
of the arguments: host arrays in, host arrays out, and the same on a device.

Where a float32 sum or square overflows, NumPy computes the value of that replica again in float64: it
is infinite only if the mean itself does not fit. (On a GPU, where looking would mean to wait, it is
infinite then too, which marks the replica as diverged.)
"""

from typing import Any

import numpy as np

from dlcore import checks
from dlcore.backend import array_module, fused, on_device

#: What overflows is computed again or infinite; a warning would say no more.
_QUIET = np.errstate(over="ignore", invalid="ignore")


class SoftmaxCrossEntropy:
    r"""Cross-entropy of softmax(logits): :math:`-\frac1B\sum_i \ln p_{i,y_i}`.

    Its gradient is :math:`\partial z = (p - 1_y)/B`.

    Shapes: logits ``(..., batch, classes)``, integer labels ``(..., batch)``. In nats. The logarithm is
    taken of the shifted sum, so that finite logits give the right value wherever it fits. A logit of
    minus infinity takes its class out: the value is finite unless it is the label's. Plus infinity,
    which only an overflow gives, makes the value NaN. Raises ``ValueError`` for labels without a logit
    (on a GPU, where looking would mean to wait, they count as a loss of 0).
    """

    kind = "labels"
    xp: Any = np
    classes: Any = None

    @_QUIET
    def __call__(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        _expect_arrays(logits=logits, labels=labels)
        xp, batch = array_module(logits), logits.shape[-2]
        checks.expect(labels.dtype.kind in "iu", "labels", "integers", labels.dtype)
        if labels.shape[-1:] != logits.shape[-2:-1] or labels.ndim > logits.ndim - 1:
            raise ValueError(f"labels: expected shape (..., {batch}), got {labels.shape}")
        _expect_range("labels", labels, 0, logits.shape[-1] - 1)
        value, dz = self._cross_entropy(xp, logits, labels, batch)
        if _overflowed(xp, value):
            wide = self._cross_entropy(xp, logits.astype(np.float64), labels, batch)[0]
            value = _where_finite(value, wide)
        return value, dz

    def _cross_entropy(self, xp: Any, logits: Any, labels: Any, batch: int) -> tuple[Any, Any]:
        """Return the value and the gradient, in the type of the logits."""
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
    over the batch. In nats. Computed as :math:`\ln(1+e^{-|z|}) + |z| w`, where w is t for negative and
    1 − t for other z: no digit is lost for large z, and infinite ones on the target's side cost nothing.
    """

    kind = "values"
    xp: Any = np

    @_QUIET
    def __call__(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        _same_shape("logits", logits, targets)
        _expect_range("targets", targets, 0, 1)
        xp, batch = array_module(logits), logits.shape[-2]
        terms, dz = _logistic_loss(xp, logits, targets, batch)
        value = terms.sum(axis=(-2, -1)) / batch
        if _overflowed(xp, value):
            wide = _logistic_loss(xp, logits.astype(np.float64), targets, batch)[0]
            value = _where_finite(value, wide.sum(axis=(-2, -1)) / batch)
        return value, dz

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

    @_QUIET
    def __call__(self, y: Any, targets: Any) -> tuple[Any, Any]:
        _same_shape("y", y, targets)
        xp, n = array_module(y), y.shape[-2] * y.shape[-1]
        square, dy = _squared_error(xp, y, targets, 2 / n)
        value = square.sum(axis=(-2, -1)) / n
        if _overflowed(xp, value):
            wide = _squared_error(xp, y.astype(np.float64), targets, 2 / n)[0]
            value = _where_finite(value, wide.sum(axis=(-2, -1)) / n)
        return value, dy

    def correct(self, y: Any, targets: Any) -> Any:
        """Return whether the nearest whole numbers agree on all outputs: bool ``(..., batch)``."""
        _expect_one_place(y=y, targets=targets)
        return (abs(y - targets) < 0.5).all(axis=-1)


def _overflowed(xp: Any, value: Any) -> bool:
    """Return whether a value on the host is not finite; on a GPU looking would mean to wait."""
    return xp is np and not np.isfinite(value).all()


def _where_finite(value: Any, wide: Any) -> Any:
    """Return float32 values where they are finite, else those computed in float64, as float32."""
    with np.errstate(over="ignore"):
        return np.where(np.isfinite(value), value, wide).astype(value.dtype)[()]


@fused
def _shifted(xp: Any, logits: Any, largest: Any) -> tuple[Any, Any]:
    z = logits - largest
    return z, xp.exp(z)


@fused
def _cross_entropy(
    xp: Any, z: Any, e: Any, total: Any, labels: Any, classes: Any, batch: int
) -> tuple[Any, Any]:
    target = labels == classes
    log_p = xp.where(target, z - xp.log(total), 0.0)
    return log_p, (e / total - target) / batch


@fused
def _logistic_loss(xp: Any, logits: Any, targets: Any, batch: int) -> tuple[Any, Any]:
    size = xp.absolute(logits)
    weight = xp.where(logits < 0, targets, 1 - targets)
    wrong_side = xp.where(weight == 0, 0.0, size * weight)  # infinity times 0 would be NaN
    s = 0.5 * xp.tanh(0.5 * logits) + 0.5
    return xp.log1p(xp.exp(-size)) + wrong_side, (s - targets) / batch


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
    checks.expect(min(y.shape[-2:]) > 0, name, "at least one row and one output", y.shape)
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


def _expect_range(name: str, a: Any, low: int, high: int) -> None:
    """Raise ``ValueError`` for a host array with values out of range; a GPU's would mean to wait."""
    if isinstance(a, np.ndarray):
        found = a.min(), a.max()
        inside = low <= found[0] and found[1] <= high
        checks.expect(inside, name, f"values in {low}…{high}", f"{found[0]}…{found[1]}")


def _same_shape(name: str, y: Any, targets: Any) -> None:
    _expect_arrays(**{name: y, "targets": targets})
    fits = targets.shape[-2:] == y.shape[-2:] and targets.ndim <= y.ndim
    checks.expect(fits, "targets", f"shape (..., {y.shape[-2]}, {y.shape[-1]})", targets.shape)
