r"""Gradients checked against finite differences, in float64 with a random cotangent.

For random c the scalar :math:`f = \sum c \cdot \mathrm{layer}(x)` has the gradient
``backward(c)``; central differences :math:`(f(x+h) - f(x-h))/2h` must agree. A cotangent of ones
could not see errors in softmax or batch norm, whose sums are constant.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import checks, host_arrays
from dlcore.backend import Backend
from dlcore.layers import Layer
from dlcore.network import Network
from dlcore.random import stream


def numerical(function: Callable[[], float], array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    r"""Return the gradient of ``function()`` with respect to ``array``, which is changed and restored.

    ``array`` is float64, and ``function`` computes from it in float64: float32 would round the steps
    away. Number x is moved by ``step`` (h = 1e-6), numbers above 1000 by more, x/1000 times ``step``: the
    differences are right to about the step's square, and to rounding over it. Raises ``TypeError`` for
    another array.

    >>> x = np.array([100.0])
    >>> numerical(lambda: float(x[0] ** 2), x).round(3)
    array([200.])
    """
    real = isinstance(array, np.ndarray) and array.dtype == np.float64
    came = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
    checks.expect(real, "array", "a float64 array", came, TypeError)
    host_arrays.real("array", array, "a float64 array", TypeError)
    checks.real("step", step, 0, 1, "()")
    gradient = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        old = array[i]
        reach = step * max(1.0, float(abs(old)) / 1000)
        try:
            array[i] = old + reach
            high = function()
            array[i] = old - reach
            low = function()
        finally:
            array[i] = old
        gradient[i] = (high - low) / (2 * reach)
    return gradient


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference relative to the largest entry (or to 1e-3, if that is more)."""
    found, expected = host_arrays.real("found", found), host_arrays.real("expected", expected)
    due = f"shape {np.shape(expected)}"
    checks.expect(np.shape(found) == np.shape(expected), "found", due, np.shape(found))
    return float(np.max(np.abs(found - expected)) / max(float(np.max(np.abs(expected))), 1e-3))


def check_layer(layer: Layer, x: np.ndarray, seeds: Any = 0, seed: int = 1) -> dict[str, float]:
    """Return the relative error of every gradient of a layer: ``{"x": …, "W": …}``.

    ``x`` is a host array, with a replica axis if ``seeds`` (default 0) is a sequence; it should keep
    off kinks. ``seed`` (default 1) draws the cotangent.
    """
    net = Network([layer], seeds, Backend("numpy", np, np.dtype("float64")))
    copied, x = net.layers[0], np.array(host_arrays.real("x", x), dtype=np.float64)
    copied.needs_dx = True
    cotangent = stream(seed, "cotangent").standard_normal(copied.forward(x, True).shape)

    def value() -> float:
        net.start_epoch(0)  # the same noise each time
        return float((copied.forward(x, True) * cotangent).sum())

    value()
    errors = {"x": error(copied.backward(cotangent), numerical(value, x))}
    for name in copied.shapes:
        errors[name] = error(getattr(copied, "d" + name), numerical(value, getattr(copied, name)))
    return errors


def check_loss(loss: Any, y: np.ndarray, target: np.ndarray, seed: int = 1) -> float:
    """Return the relative error of a loss's gradient, with random weights over the replicas.

    ``y`` and ``target`` are host arrays as the loss takes them; ``seed`` (default 1) draws the weights.
    """
    y = np.array(host_arrays.real("y", y), dtype=np.float64)
    checks.expect(hasattr(loss, "correct"), "loss", "a loss", repr(loss), TypeError)
    loss, target = copy.copy(loss), host_arrays.real("target", target)
    value, dy = loss(y, target)
    cotangent = stream(seed, "cotangent").standard_normal(np.shape(value))
    exact = numerical(lambda: float((loss(y, target)[0] * cotangent).sum()), y)
    return error(dy * cotangent[..., None, None], exact)
