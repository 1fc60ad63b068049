"""Losses: one value per replica, and the gradient of the mean over the batch.

``loss(y, target)`` returns ``(value, dy)``; value has the shape of the replicas. Nothing is averaged
over replicas, which would scale their gradients by one over their number.
"""

from typing import Any

import numpy as np

from dlcore import checks


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
        xp, batch = self.xp, logits.shape[-2]
        checks.expect(labels.dtype.kind in "iu", "labels", "integers", labels.dtype)
        if labels.shape[-1:] != logits.shape[-2:-1] or labels.ndim > logits.ndim - 1:
            raise ValueError(f"labels: expected shape (..., {batch}), got {labels.shape}")
        z = logits - logits.max(axis=-1, keepdims=True)
        e = xp.exp(z)
        total = e.sum(axis=-1, keepdims=True)
        if self.classes is None or len(self.classes) != logits.shape[-1]:
            self.classes = xp.arange(logits.shape[-1])
        target = labels[..., None] == self.classes
        log_p = (z - xp.log(total)) * target
        return log_p.sum(axis=(-2, -1)) * (-1 / batch), (e / total - target) / batch

    def correct(self, logits: Any, labels: Any) -> Any:
        """Return whether the largest logit is the label's: bool ``(..., batch)``."""
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
        xp, batch = self.xp, logits.shape[-2]
        value = xp.logaddexp(logits, xp.zeros_like(logits)) - targets * logits
        s = 0.5 * xp.tanh(0.5 * logits) + 0.5
        return value.sum(axis=(-2, -1)) / batch, (s - targets) / batch

    def correct(self, logits: Any, targets: Any) -> Any:
        """Return whether all outputs fall on the target's side of 1/2: bool ``(..., batch)``."""
        return ((logits > 0) == (targets > 0.5)).all(axis=-1)


class MeanSquaredError:
    r"""Squared error, :math:`\frac1{Bn}\sum (y-t)^2`, :math:`\partial y = 2(y-t)/(Bn)` (PyTorch's mean).

    Shapes: outputs and targets ``(..., batch, n)``.
    """

    kind = "values"
    xp: Any = np

    def __call__(self, y: Any, targets: Any) -> tuple[Any, Any]:
        _same_shape(y, targets)
        error, n = y - targets, y.shape[-2] * y.shape[-1]
        return (error * error).sum(axis=(-2, -1)) / n, error * (2 / n)

    def correct(self, y: Any, targets: Any) -> Any:
        """Return whether the nearest whole numbers agree on all outputs: bool ``(..., batch)``."""
        return (abs(y - targets) < 0.5).all(axis=-1)


def _expect_arrays(**given: Any) -> None:
    """Raise ``TypeError`` for what is no array, ``ValueError`` for a first one without batch axis."""
    for name, a in given.items():
        checks.expect(hasattr(a, "ndim"), name, "an array", type(a).__name__, TypeError)
    name, y = next(iter(given.items()))
    checks.expect(y.ndim >= 2, name, "axes (..., batch, classes)", y.shape)


def _same_shape(y: Any, targets: Any) -> None:
    _expect_arrays(y=y, targets=targets)
    fits = targets.shape[-2:] == y.shape[-2:] and targets.ndim <= y.ndim
    checks.expect(fits, "targets", f"shape (..., {y.shape[-2]}, {y.shape[-1]})", targets.shape)
