"""Recurrent layers, unrolled in time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlcore import checks, initializers
from dlcore.activations import Activation, Tanh, made
from dlcore.backend import fused
from dlcore.layers import Layer


class SimpleRNN(Layer):
    r"""Elman's recurrent net: :math:`h_t = \phi(x_t W + h_{t-1} U + b)`, :math:`h_0 = 0` (Elman 1990).

    Shapes: x ``(..., batch, time, fan_in)``; the output is the last state :math:`h_T`,
    ``(..., batch, units)``; W ``(..., fan_in, units)``, U ``(..., units, units)``, b ``(..., 1, units)``.
    ``activation`` is a class (default ``Tanh``); ``initializer`` draws W, ``recurrent_initializer`` U
    (default orthogonal). After ``backward``, ``dh[t-1]`` holds the loss's gradient with respect to
    :math:`h_t`: where it grows or shrinks in t, gradients explode or vanish.
    """

    input_ndim = 3

    def __init__(
        self, fan_in: int, units: int, activation: type[Activation] = Tanh,
        initializer: str | Callable = "glorot_uniform",
        recurrent_initializer: str | Callable = "orthogonal",
    ) -> None:  # fmt: skip
        self.fan_in = checks.integer("fan_in", fan_in, 1)
        self.units = checks.integer("units", units, 1)
        self.activation = made(activation)
        self.initializer = initializers.get(initializer)
        name = "recurrent_initializer"
        self.recurrent_initializer = initializers.get(recurrent_initializer, name)
        self.shapes = {"W": (fan_in, units), "U": (units, units), "b": (1, units)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        w = self.initializer(rng, self.shapes["W"])
        u = self.recurrent_initializer(rng, self.shapes["U"])
        return {"W": w, "U": u, "b": np.zeros(self.shapes["b"])}

    def forward(self, x: Any, training: bool) -> Any:
        if x.ndim < 3 or x.shape[-1] != self.fan_in:
            raise ValueError(f"x: expected shape (..., batch, time, {self.fan_in}), got {x.shape}")
        checks.expect(x.shape[-2] > 0, "x", "at least one time step", x.shape)
        self.activation.xp = self.xp
        h = self.xp.zeros((*self.W.shape[:-2], x.shape[-3], self.units), dtype=self.W.dtype)
        self.x, self.z, self.h = x, [], [h]
        for t in range(x.shape[-2]):
            z = _joined(self.xp, x[..., t, :] @ self.W, h @ self.U, self.b)
            h = self.activation.kernel("value")(z)
            self.z.append(z)
            self.h.append(h)
        return h

    def backward(self, dy: Any) -> Any:
        for gradient in (self.dW, self.dU, self.db):
            gradient.fill(0)
        dh, self.dh, dx = dy.copy(), [], []  # ``dh`` is kept: the caller may change dy
        for t in reversed(range(len(self.z))):
            self.dh.append(dh)
            dz = self.activation.kernel("chain")(dh, self.z[t], self.h[t + 1])
            self.dW += self.x[..., t, :].mT @ dz
            self.dU += self.h[t].mT @ dz
            self.db += dz.sum(axis=-2, keepdims=True)
            dx.append(dz @ self.W.mT if self.needs_dx else None)
            dh = dz @ self.U.mT
        self.dh.reverse()
        return self.xp.stack(dx[::-1], axis=-2) if self.needs_dx else None


@fused
def _joined(xp: Any, from_input: Any, from_state: Any, bias: Any) -> Any:
    return from_input + from_state + bias
