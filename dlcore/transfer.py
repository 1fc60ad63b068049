"""Transfer: the outputs of frozen lower layers, computed once."""

import copy

import numpy as np

from dlcore import checks
from dlcore.backend import one_blas_thread
from dlcore.batches import CHUNK, Data, sets_of
from dlcore.datasets import Dataset
from dlcore.network import Network, Slot


def cached(network: Network, data: Data) -> tuple[Network, Data]:
    """Return the upper layers as a network, and what the frozen lower layers make of the data.

    The lower layers are those below the first one that learns, or that draws noise and is not frozen
    itself. The upper network shares its layers and parameters with ``network``: training one trains the
    other, and gives the same to rounding (float32 outputs, products of other sizes), with the same
    batches and noise. The data are one set where all replicas see the same, else one per seed. Not for
    augmentation, which changes what the lower layers see. Raises ``ValueError`` where no layer is
    frozen below, or where replicas of one seed differ in their lower layers.

    >>> from dlcore import datasets, mlp
    >>> net = Network(mlp([40, 20, 10]), seeds=range(2), backend="numpy")
    >>> net.freeze(0)
    >>> upper, outputs = cached(net, datasets.mnist1d(seed=0, train=100))
    >>> len(upper.layers), outputs[1].x_train.shape
    (1, (100, 20))
    """
    k = _boundary(checks.instance("network", network, Network))
    sets, streams = sets_of(network, data), network.streams
    first = [streams.seeds.index(seed) for seed in streams.unique]
    alike = _check_replicas(network, k, first)
    if alike and len(sets) == 1:
        return _upper(network, k), _outputs(network, k, sets[0], first[0])
    sets = sets * len(first) if len(sets) == 1 else sets
    made = [_outputs(network, k, own, r) for own, r in zip(sets, first, strict=True)]
    return _upper(network, k), dict(zip(streams.unique, made, strict=True))


def _boundary(network: Network) -> int:
    noisy = (i for i, la in enumerate(network.layers) if la.noisy and i not in network.frozen)
    k = min(network.lowest, next(noisy, len(network.layers)))
    below = any(slot.layer < k for slot in network.slots)
    checks.expect(below, "network", "frozen layers below the first one that learns", "none")
    checks.expect(k < len(network.layers), "network", "a layer that learns", "all of them frozen")
    return k


def _check_replicas(network: Network, k: int, first: list[int]) -> bool:
    """Return whether all replicas have the same lower layers; those of one seed must."""
    alike = True
    for name, a in network.arrays().items():
        if int(name.split(".")[0]) < k and network.streams.shape:
            values = network.backend.to_numpy(a)
            if not np.array_equal(values, values[first][network.streams.index]):
                raise ValueError("network: expected equal lower layers in replicas of one seed")
            alike &= bool((values == values[0]).all())
    return alike


def _outputs(network: Network, k: int, data: Dataset, replica: int) -> Dataset:
    """Return the data as the lower layers of one replica see them, in prediction mode."""
    backend, layers = network.backend, [copy.copy(layer) for layer in network.layers[:k]]
    for layer, own in zip(layers, network.layers[:k], strict=True):
        for name in (*own.shapes, *own.buffers):
            value = getattr(own, name)
            layer.attach(name, value[replica] if network.streams.shape else value)

    def run(x: np.ndarray) -> np.ndarray:
        if not len(x):
            return run(data.x_train[:1])[:0]
        made = []
        for start in range(0, len(x), CHUNK):
            y = backend.asarray(x[start : start + CHUNK])
            for layer in layers:
                y = layer.forward(y, training=False)
            made.append(backend.to_numpy(y))
        return np.concatenate(made)

    with one_blas_thread(), backend.quiet():
        return data._map(run)


def _upper(network: Network, k: int) -> Network:
    """Return the layers from k on as a network with views of the same buffers."""
    upper = copy.copy(network)
    slots = [slot for slot in network.slots if slot.layer >= k]
    start = slots[0].start
    upper.layers, upper.below = network.layers[k:], network.weights_below(k)
    places = [network.weights_below(i) for i in range(k) if network.layers[i].noisy]
    upper.twins = places.count(upper.below)
    upper.slots = [Slot(i - k, n, a - start, b - start, shape) for i, n, a, b, shape in slots]
    views = {"parameters": network.parameters[start:], "gradients": network.gradients[start:]}
    vars(upper).update(views)
    upper.frozen = {i - k for i in network.frozen if i >= k}
    upper.lr_factors = {i - k: f for i, f in network.lr_factors.items() if i >= k}
    upper.lowest = network.lowest - k
    return upper
