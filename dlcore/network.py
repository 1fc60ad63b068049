"""A network: layers in a row, with all parameters in one buffer and all gradients in another."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dlcore import backend as backends
from dlcore import checks
from dlcore.activations import Activation, ReLU
from dlcore.layers import BatchNorm, Dense, Dropout, Flatten, Layer
from dlcore.random import Noise, Streams


class Slot(NamedTuple):
    """Where one parameter lies: layer, name, elements ``start:stop`` of the flat buffers, shape."""

    layer: int
    name: str
    start: int
    stop: int
    shape: tuple[int, ...]


class Network:
    r"""Layers applied one after another, for one net or for R replicas at once.

    ``layers`` is a list of layers (copied) or a function without arguments that makes one, such as
    ``mlp([40, 100, 10])``. ``seeds`` is an integer (plain network) or one seed per replica (every
    array gets a leading axis). ``backend`` is a name or a ``Backend``.

    Parameters lie in ``parameters``, gradients in ``gradients``: flat, one parameter after another, each
    a contiguous ``(R, in, out)``, so that an optimizer's step takes few calls on a GPU.

    >>> net = Network([Dense(4, 3), ReLU(), Dense(3, 2)], seeds=range(5), backend="numpy")
    >>> net.layers[0].W.shape, net.size
    ((5, 4, 3), 23)
    """

    def __init__(
        self,
        layers: Sequence[Layer] | Callable[[], list[Layer]],
        seeds: int | Sequence[int] = 0,
        backend: str | backends.Backend = "auto",
    ) -> None:
        made = layers() if callable(layers) else copy.deepcopy(list(layers))
        if not made or not all(isinstance(layer, Layer) for layer in made):
            raise TypeError(f"layers: expected a non-empty list of layers, got {made!r}")
        self.layers, self.streams = made, Streams(seeds)
        self.backend = backends.get_backend(backend)
        self.slots = self._plan()
        total = self.slots[-1].stop if self.slots else 0
        zeros, dtype = self.backend.xp.zeros, self.backend.dtype
        self.parameters, self.gradients = zeros(total, dtype=dtype), zeros(total, dtype=dtype)
        self._attach()
        self.initialize()
        self.start_epoch(0)

    @property
    def replicas(self) -> int:
        """Number of replicas (1 for a plain network)."""
        return len(self.streams.seeds)

    @property
    def size(self) -> int:
        """Number of parameters of one replica."""
        return self.parameters.size // self.replicas

    def _plan(self) -> list[Slot]:
        slots, start = [], 0
        for i, layer in enumerate(self.layers):
            for name, own in layer.shapes.items():
                shape = (*self.streams.shape, *own)
                slots.append(Slot(i, name, start, start + math.prod(shape), shape))
                start = slots[-1].stop
        return slots

    def _attach(self) -> None:
        for layer in self.layers:
            layer.xp = self.backend.xp
        for slot in self.slots:
            layer, span = self.layers[slot.layer], slice(slot.start, slot.stop)
            setattr(layer, slot.name, self.parameters[span].reshape(slot.shape))
            setattr(layer, "d" + slot.name, self.gradients[span].reshape(slot.shape))
        for layer in self.layers:
            for name, (own, value) in layer.buffers.items():
                shape = (*self.streams.shape, *own)
                setattr(layer, name, self.backend.xp.full(shape, value, dtype=self.backend.dtype))
        if self.slots:
            self.layers[self.slots[0].layer].needs_dx = False

    def initialize(self) -> None:
        """Draw the initial parameters on the host, layer i of seed s from stream (s, "weights", i).

        Buffers, such as batch norm's running statistics, get their start values.
        """
        for i, layer in enumerate(self.layers):
            for name, (_, value) in layer.buffers.items():
                getattr(layer, name).fill(value)
            for name in layer.shapes:
                draw = self.streams.draw("weights", lambda rng: layer.initialize(rng)[name], i)
                getattr(layer, name)[...] = self.backend.asarray(draw)

    def start_epoch(self, number: int) -> None:
        """Renew the noise of all noisy layers: layer i of seed s gets stream (s, "noise", i, number).

        ``fit`` calls this before each epoch, counted from 1; a new network stands at epoch 0.
        """
        for i, layer in enumerate(self.layers):
            if layer.noisy:
                layer.noise = Noise(self.streams, self.backend, "noise", i, number)

    def _shared_ndim(self) -> int | None:
        """Return the axes of a shared input if noise meets it before any weights, else None.

        Each seed then needs a copy of its own; from the weights on it has one anyway.
        """
        joined, noisy = 0, False
        for layer in self.layers if self.streams.shape else ():
            if layer.input_ndim is not None or layer.shapes:
                return layer.input_ndim + joined if noisy and layer.input_ndim else None
            noisy |= layer.noisy
            joined += layer.axes - 1 if isinstance(layer, Flatten) else 0
        return None

    def forward(self, x: Any, training: bool = False) -> Any:
        """Return the output for a device array x ``(..., batch, features)``.

        Inputs without the replica axis are shared by all replicas.
        """
        if training and x.ndim == self._shared_ndim():
            x = self.backend.xp.broadcast_to(x, (*self.streams.shape, *x.shape))
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy: Any) -> None:
        """Write the loss's gradients with respect to all parameters into ``gradients``."""
        lowest = self.slots[0].layer if self.slots else len(self.layers)
        for layer in reversed(self.layers[lowest:]):
            dy = layer.backward(dy)


def mlp_layers(
    sizes: Sequence[int],
    activation: type[Activation] | Callable[[], Activation] = ReLU,
    initializer: str | Callable = "he_normal",
    bias: float = 0.0,
    batch_norm: str | bool = False,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> list[Layer]:
    """Return the layers of ``mlp``: hidden layers of dense, activation and options; a dense layer last."""
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected inputs, hidden widths and outputs, got {list(sizes)}")
    if batch_norm not in (False, "before", "after"):
        raise ValueError(f"batch_norm: expected 'before', 'after' or False, got {batch_norm!r}")
    layers: list[Layer] = [Dropout(input_dropout)] if input_dropout else []
    for fan_in, width in itertools.pairwise(sizes[:-1]):
        layers.append(Dense(fan_in, width, initializer, bias))
        layers += [BatchNorm(width)] if batch_norm == "before" else []
        layers.append(activation())
        layers += [BatchNorm(width)] if batch_norm == "after" else []
        layers += [Dropout(dropout)] if dropout else []
    return [*layers, Dense(sizes[-2], sizes[-1], initializer, bias)]


def mlp(sizes: Sequence[int], **options: Any) -> Callable[..., list[Layer]]:
    """Return the blueprint of a multilayer perceptron: a function that makes its layers.

    ``sizes`` is (inputs, hidden widths, outputs), e.g. ``[40, 100, 100, 10]``. Options, all of which
    ``sweep`` can vary: ``activation`` (class, default ``ReLU``), ``initializer`` (name or function,
    default ``"he_normal"``), ``bias`` (start value, default 0), ``batch_norm`` (``"before"`` or ``"after"``
    the activation, default False), ``dropout`` (rate behind each hidden layer, default 0),
    ``input_dropout`` (rate on the inputs, default 0). The last layer gives logits.

    >>> [type(layer).__name__ for layer in mlp([4, 3, 2])()]
    ['Dense', 'ReLU', 'Dense']
    """
    for size in sizes:
        checks.integer("sizes", size, 1)
    return functools.partial(mlp_layers, tuple(sizes), **options)
