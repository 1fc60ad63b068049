"""A network: layers in a row, with all parameters in one buffer and all gradients in another."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlcore import backend as backends
from dlcore import checks, folding, storage
from dlcore.activations import Activation, ReLU, made
from dlcore.layers import BatchNorm, Dense, Dropout, Flatten, Layer, fill
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

    ``layers`` is a list of layers or a function without arguments that makes one, such as
    ``mlp([40, 100, 10])``; the network takes copies. ``seeds`` is an integer (plain network) or one seed
    per replica (every array gets a leading axis). ``backend`` is a name or a ``Backend``.

    Parameters lie in ``parameters``, gradients in ``gradients``: flat, one parameter after another, each
    a contiguous ``(R, in, out)``, so that an optimizer's step takes few calls on a GPU. They stay where
    they are: ``net.parameters = values``, like ``net.layers[0].W = values``, copies values of the same
    shape into them.

    ``frozen`` holds the indices of layers that do not learn (see ``freeze``), ``lr_factors`` maps the
    index of a layer to the factor of its learning rate (default 1): ``net.lr_factors[0] = 0.1``.

    >>> net = Network([Dense(4, 3), ReLU(), Dense(3, 2)], seeds=range(5), backend="numpy")
    >>> net.layers[0].W.shape, net.size
    ((5, 4, 3), 23)
    """

    def __init__(
        self, layers: Sequence[Layer] | Callable[[], list[Layer]],
        seeds: int | Sequence[int] = 0, backend: str | backends.Backend = "auto",
    ) -> None:  # fmt: skip
        made = copy.deepcopy(layers() if callable(layers) else layers)
        good = isinstance(made, (list, tuple)) and len(made) > 0
        if not good or not all(isinstance(layer, Layer) for layer in made):
            raise TypeError(f"layers: expected a non-empty list of layers, got {made!r}")
        once = len({id(layer) for layer in made}) == len(made)
        checks.expect(once, "layers", "each layer once (it remembers its input)", "one twice")
        self.layers, self.streams = list(made), Streams(seeds)
        self.backend = backends.get_backend(backend)
        self.lr_factors: dict[int, float] = {}
        # In the network that these layers come from: layers with weights below them, and noisy layers
        # at the same place.
        self.below, self.twins = 0, 0
        self._frozen: frozenset[int] = frozenset()
        self.slots = self._plan()
        total = self.slots[-1].stop if self.slots else 0
        zeros, dtype = self.backend.xp.zeros, self.backend.dtype
        self.parameters, self.gradients = zeros(total, dtype=dtype), zeros(total, dtype=dtype)
        self._attach()
        self.initialize()
        self.start_epoch(0)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; the flat buffers stay in place and get the values."""
        if name in ("parameters", "gradients") and name in vars(self):
            fill(self.backend.xp, name, vars(self)[name], value)
        elif name == "lr_factors":
            due = "a dict of layers' indices and factors"
            vars(self)[name] = dict(checks.instance(name, value, Mapping, due))
        else:
            object.__setattr__(self, name, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a copied or pickled state, and make the layers' arrays views again."""
        vars(self).update(state)
        kept = self.arrays()
        self._attach()
        for name, a in self.arrays().items():
            a[...] = kept[name]

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
        for slot in self.slots:
            layer, span = self.layers[slot.layer], slice(slot.start, slot.stop)
            layer.attach(slot.name, self.parameters[span].reshape(slot.shape))
            layer.attach("d" + slot.name, self.gradients[span].reshape(slot.shape))
        for layer in self.layers:
            layer.xp = self.backend.xp
            for name, (own, value) in layer.buffers.items():
                shape = (*self.streams.shape, *own)
                full = self.backend.xp.full(shape, value, dtype=self.backend.dtype)
                layer.attach(name, full)
        self._find_lowest()

    def check_memory(self) -> None:
        """Raise ``ValueError`` unless each layer's parameters lie in this network's buffers.

        They do not where ``layers`` was changed, or where a layer went into another network.
        """
        for slot in self.slots:
            layer, own = self.layers[slot.layer], self.parameters[slot.start : slot.stop]
            array = getattr(layer, slot.name, None)
            inside = array is not None and self.backend.xp.may_share_memory(array, own)
            due = "the layers that the network was made with"
            came = f"another one at {slot.layer}, whose {slot.name} is not in the network's memory"
            checks.expect(inside, "layers", due, came)

    @property
    def frozen(self) -> frozenset[int]:
        """Indices of the layers that do not learn; ``net.frozen = {0, 1}`` sets them."""
        return self._frozen

    @frozen.setter
    def frozen(self, layers: int | str | Iterable[int | str]) -> None:
        self._frozen = frozenset(self._indices(layers))
        self._find_lowest()

    @property
    def trainable(self) -> list[Slot]:
        """Slots of the parameters that learn: those of layers that are not frozen."""
        return [slot for slot in self.slots if slot.layer not in self.frozen]

    def arrays(self) -> dict[str, Any]:
        """Return all parameters and buffers by layer and name, such as ``"0.W"``; no copies."""
        found: dict[str, Any] = {}
        for i, layer in enumerate(self.layers):
            found |= {f"{i}.{n}": getattr(layer, n) for n in (*layer.shapes, *layer.buffers)}
        return found

    def memory(self) -> dict[str, Any]:
        """Return ``arrays()`` and the gradients: all that a step reads or leaves behind."""
        return {"gradients": self.gradients, **self.arrays()}

    def freeze(self, layers: int | str | Iterable[int | str]) -> None:
        """Keep layers as they are: optimizers pass them over, and they run in prediction mode.

        ``layers``: an index (negative ones count from the end), the name of a class for all its layers,
        such as ``"BatchNorm"``, or several of these. Call it before ``fit``. Back-propagation ends at
        the lowest layer that learns. Raises ``ValueError`` or ``TypeError`` where there is no such layer.
        """
        self.frozen = self.frozen | self._indices(layers)

    def unfreeze(self, layers: int | str | Iterable[int | str] | None = None) -> None:
        """Let layers learn again, all of them by default; ``layers`` as in ``freeze``."""
        learn = self.frozen if layers is None else self._indices(layers)
        self.frozen = self.frozen - learn

    def _indices(self, layers: int | str | Iterable[int | str]) -> set[int]:
        count, found = len(self.layers), set()
        several = np.iterable(layers) and not isinstance(layers, str)
        for item in layers if several else [layers]:  # type: ignore[union-attr]
            if isinstance(item, str):
                named = {i for i, layer in enumerate(self.layers) if type(layer).__name__ == item}
            else:
                index = checks.integer("layers", item, -count)
                named = {index % count} if index < count else set()
            checks.expect(named, "layers", f"indices below {count} or names of classes", repr(item))
            found |= named
        return found

    def _find_lowest(self) -> None:
        """Find the lowest layer that learns; nobody reads gradients of what lies below."""
        learning = [slot.layer for slot in self.trainable]
        self.lowest = learning[0] if learning else len(self.layers)
        for i, layer in enumerate(self.layers):
            layer.needs_dx = i != self.lowest

    def initialize(self) -> None:
        """Draw the initial parameters on the host, from stream (seed, "weights", weights below).

        Counting only layers with weights W, a net with dropout or batch norm starts from the same
        weights as the net without. Layers without W have streams of their own, by class and twin.
        Buffers, such as running statistics, get their start values.
        """
        twins: Counter[tuple[Any, ...]] = Counter()
        for i, layer in enumerate(self.layers):
            for name, (_, value) in layer.buffers.items():
                getattr(layer, name).fill(value)
            purpose, place = "weights", [self.weights_below(i)]
            if layer.shapes and "W" not in layer.shapes:
                purpose = f"weights of {type(layer).__name__}"
                twins[purpose, *place] += 1
                place.append(twins[purpose, *place])
            for name in layer.shapes:
                initial = functools.partial(_initial, layer, name, self.backend.dtype)
                draw = self.streams.draw(purpose, initial, *place)
                getattr(layer, name)[...] = self.backend.asarray(draw)

    def start_epoch(self, number: int) -> None:
        """Renew the noise of noisy layers, from (seed, "noise", weights below, twin, number).

        Twins are noisy layers with equally many layers with weights below them. ``fit`` calls this
        before each epoch, counted from 1; a new network stands at epoch 0.
        """
        places, number = [self.below] * self.twins, checks.integer("number", number, 0)
        for i, layer in enumerate(self.layers):
            if layer.noisy:
                own = self.weights_below(i)
                twin = places.count(own)
                places.append(own)
                layer.noise = Noise(self.streams, self.backend, "noise", own, twin, number)

    def weights_below(self, i: int) -> int:
        """Return the number of layers with weights below layer i: its place in random streams."""
        return self.below + sum("W" in layer.shapes for layer in self.layers[:i])

    def spread(self, x: Any) -> Any:
        """Return x with a replica axis if all share it and noise meets it before any weights."""
        if x.ndim == self._shared_ndim():
            return self.backend.xp.broadcast_to(x, (*self.streams.shape, *x.shape))
        return x

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

        Inputs without the replica axis are shared by all replicas. ``training`` (default False) lets
        noise act and batch norm take the batch's statistics; frozen layers predict all the same.
        What the layers keep for ``backward`` are copies: x and the output may be changed before it.
        """
        checks.expect(hasattr(x, "ndim"), "x", "an array", type(x).__name__, TypeError)
        return self.run(x.copy(), training).copy()

    def run(self, x: Any, training: bool = False) -> Any:
        """Return what ``forward`` returns, without copies, for an x that nobody changes.

        ``training`` as in ``forward``.
        """
        x = self.spread(x) if training else x
        for i, layer in enumerate(self.layers):
            x = layer.forward(x, training and i not in self.frozen)
        return x

    def backward(self, dy: Any) -> None:
        """Write the loss's gradients with respect to the parameters that learn into ``gradients``."""
        for layer in reversed(self.layers[self.lowest :]):
            dy = layer.backward(dy)

    save, load, copy_layers = storage.save, storage.load, storage.copy_layers

    def fold_batch_norm(self) -> Network:
        """Return a network without batch norm whose predictions are equal to rounding.

        Each batch norm goes into the ``Dense`` or ``Conv2D`` layer before it, else into the ``Dense``
        layer behind it (see ``dlcore.folding``). Raises ``ValueError`` where there is none.
        """
        kept = folding.without_batch_norm(self.layers)
        seeds = self.streams.seeds if self.streams.shape else self.streams.seeds[-1]
        folded = Network(lambda: [layer for layer, _ in kept], seeds, self.backend)
        for layer, (_, values) in zip(folded.layers, kept, strict=True):
            for name, value in values.items():
                getattr(layer, name)[...] = value
        return folded


def _initial(layer: Layer, name: str, dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    with np.errstate(over="ignore"):
        draw = np.asarray(layer.initialize(rng)[name])
        values = draw.astype(dtype)
    due = layer.shapes[name]
    checks.expect(draw.shape == due, "initializer", f"{name} of shape {due}", draw.shape)
    finite = bool(np.isfinite(values).all())
    checks.expect(finite, "initializer", f"{name} of numbers within {dtype}", "larger ones or NaN")
    return values


def mlp_layers(
    sizes: Sequence[int], activation: type[Activation] | Callable[[], Activation] = ReLU,
    initializer: str | Callable = "he_normal", bias: float = 0.0, batch_norm: str | bool = False,
    dropout: float = 0.0, input_dropout: float = 0.0,
) -> list[Layer]:  # fmt: skip
    """Return the layers of ``mlp``: hidden layers of dense, activation and options; a dense layer last.

    ``activation``, ``initializer``, ``bias``, ``batch_norm``, ``dropout``, ``input_dropout``: see ``mlp``.
    Raises ``ValueError`` or ``TypeError`` for others.
    """
    checks.expect(len(sizes) >= 2, "sizes", "inputs, hidden widths and outputs", list(sizes))
    checks.choice("batch_norm", batch_norm, "before", "after", False)
    for name, rate in (("dropout", dropout), ("input_dropout", input_dropout)):
        checks.real(name, rate, 0, 1, "[)")
    layers: list[Layer] = [Dropout(input_dropout)] if input_dropout else []
    for fan_in, width in itertools.pairwise(sizes[:-1]):
        layers.append(Dense(fan_in, width, initializer, bias))
        layers += [BatchNorm(width)] if batch_norm == "before" else []
        layers.append(made(activation))
        layers += [BatchNorm(width)] if batch_norm == "after" else []
        layers += [Dropout(dropout)] if dropout else []
    return [*layers, Dense(sizes[-2], sizes[-1], initializer, bias)]


def mlp(sizes: Sequence[int], **options: Any) -> Callable[..., list[Layer]]:
    """Return the blueprint of a multilayer perceptron: a function that makes its layers.

    ``sizes`` is (inputs, hidden widths, outputs), e.g. ``[40, 100, 100, 10]``. Options, all of which
    ``sweep`` can vary: ``activation`` (class, default ``ReLU``), ``initializer`` (name or function,
    default ``"he_normal"``), ``bias`` (start value, default 0), ``batch_norm`` (``"before"`` or ``"after"``
    the activation, default False), ``dropout`` (rate behind each hidden layer, default 0),
    ``input_dropout`` (rate on the inputs, default 0). The last layer gives logits. Raises ``TypeError``
    or ``ValueError`` for sizes that are not positive integers, and for other options.

    >>> [type(layer).__name__ for layer in mlp([4, 3, 2])()]
    ['Dense', 'ReLU', 'Dense']
    """
    good = np.iterable(sizes) and not isinstance(sizes, str)
    checks.expect(good, "sizes", "a sequence of integers", repr(sizes), TypeError)
    for size in sizes:
        checks.integer("sizes", size, 1)
    known = [name for name in inspect.signature(mlp_layers).parameters if name != "sizes"]
    checks.names("mlp", options, known)
    blueprint = functools.partial(mlp_layers, tuple(sizes), **options)
    blueprint()  # refuses wrong options here, where they are given
    return blueprint
