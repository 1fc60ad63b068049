"""Layers with explicit forward and backward passes.

Arrays are ``(..., batch, features)``. A leading axis, when there is one, holds replicas; the code is
the same with and without it. Names of parameters: upper case for weights, lower case for vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import checks, initializers


class Layer:
    """A differentiable map: ``y = forward(x)`` and ``dx = backward(dy)``.

    ``shapes`` names the parameters with their shapes, without replica axis. The network allocates each
    parameter ``P`` and its gradient ``dP`` and sets both as attributes; ``backward`` writes gradients
    in place. ``xp`` is the array module. With ``needs_dx = False`` (the lowest layer that learns)
    nobody reads the gradient of the input, and a costly one is not computed.
    """

    xp: Any = np
    shapes: dict[str, tuple[int, ...]] = {}
    needs_dx = True

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return initial parameters by name, drawn on the host."""
        return {}

    def forward(self, x: Any, training: bool) -> Any:
        """Return the layer's output and keep what ``backward`` needs."""
        raise NotImplementedError

    def backward(self, dy: Any) -> Any:
        """Write parameter gradients; return the loss's gradient with respect to the input."""
        raise NotImplementedError


class Dense(Layer):
    """Affine map ``y = x W + b``.

    Shapes: x ``(..., batch, fan_in)``, W ``(..., fan_in, fan_out)``, b ``(..., 1, fan_out)``.
    ``initializer`` draws W (default He normal), ``bias`` is the start value of b (default 0).
    """

    def __init__(
        self, fan_in: int, fan_out: int, initializer: str | Callable = "he_normal", bias: float = 0.0
    ) -> None:
        self.fan_in = checks.integer("fan_in", fan_in, 1)
        self.fan_out = checks.integer("fan_out", fan_out, 1)
        self.initializer = initializers.get(initializer)
        self.bias = float(bias)
        self.shapes = {"W": (fan_in, fan_out), "b": (1, fan_out)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {
            "W": self.initializer(rng, self.shapes["W"]),
            "b": np.full(self.shapes["b"], self.bias),
        }

    def forward(self, x: Any, training: bool) -> Any:
        if x.ndim < 2 or x.shape[-1] != self.fan_in:
            raise ValueError(f"x: expected shape (..., batch, {self.fan_in}), got {x.shape}")
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy: Any) -> Any:
        self.xp.matmul(self.x.mT, dy, out=self.dW)
        dy.sum(axis=-2, keepdims=True, out=self.db)
        return dy @ self.W.mT if self.needs_dx else None


class Flatten(Layer):
    """Join the last axes into features: ``(..., batch, height, width, channels)`` to ``(..., batch, n)``.

    ``axes`` is the number of axes joined (default 3).
    """

    def __init__(self, axes: int = 3) -> None:
        self.axes = checks.integer("axes", axes, 1)

    def forward(self, x: Any, training: bool) -> Any:
        self.shape = x.shape
        return x.reshape(*x.shape[: -self.axes], -1)

    def backward(self, dy: Any) -> Any:
        return dy.reshape(self.shape)
