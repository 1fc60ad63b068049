"""Looking at a network without changing it: what probes and evaluation run on."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dlcore.layers import Layer
from dlcore.network import Network
from dlcore.random import Noise


def copies(network: Network) -> list[Layer]:
    """Return layers that compute as the network's own do, and leave those as they are.

    Parameters are shared, for nobody writes them. Buffers, gradients and noise are copies: on the host
    the same draws come as the network would make next, on a device (whose generators cannot be copied)
    others of equal distribution.
    """
    return [_copy(layer, network) for layer in network.layers]


def _copy(layer: Layer, network: Network) -> Layer:
    made = copy.copy(layer)
    made.xp = network.backend.xp
    gradients = ["d" + name for name in layer.shapes]
    for name, value in vars(layer).items():
        if name in layer.buffers or name in gradients:
            made.attach(name, value.copy())
        elif _is_stateful(value):
            setattr(made, name, _own(value, network))
    return made


def _is_stateful(value: Any) -> bool:
    several = isinstance(value, (list, tuple)) and any(isinstance(v, Layer) for v in value)
    return several or isinstance(value, (Layer, Noise))


def _own(value: Any, network: Network) -> Any:
    """Return a copy of noise, of a layer inside another, or of a list of layers."""
    if isinstance(value, Layer):
        return _copy(value, network)
    if isinstance(value, Noise):
        return _same_noise(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_own(v, network) for v in value)
    return value


def _same_noise(noise: Noise) -> Noise:
    if not noise.on_host:
        return Noise(noise.streams, noise.backend, "observing")
    made = copy.copy(noise)
    made.generators = [copy.deepcopy(generator) for generator in noise.generators]
    return made


@contextmanager
def unchanged(network: Network) -> Iterator[None]:
    """Give every layer back what it remembers of its last pass, so that ``backward`` still fits it.

    For passes in prediction mode, which write nothing else.
    """
    remembered = [(layer, dict(vars(layer))) for layer in _all_layers(network.layers)]
    try:
        yield
    finally:
        for layer, state in remembered:
            vars(layer).clear()
            vars(layer).update(state)


def _all_layers(values: Any) -> list[Layer]:
    """Return layers, and those that they hold themselves."""
    found: list[Layer] = []
    for value in values:
        if isinstance(value, Layer):
            found += [value, *_all_layers(vars(value).values())]
        elif isinstance(value, (list, tuple)) and not isinstance(value, np.ndarray):
            found += _all_layers(v for v in value if isinstance(v, Layer))
    return found


def keep_new(network: Network, seen: list[Layer]) -> None:
    """Let layers that have not run yet remember the forward pass of their copies ``seen``.

    So a new network can be looked into after it (``layer.a``); where a layer remembers a pass of its
    own, that one stays.
    """
    for layer, made in zip(network.layers, seen, strict=True):
        for name, value in vars(made).items():
            if name not in vars(layer):
                setattr(layer, name, value)
