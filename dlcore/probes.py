"""What happens inside a net: signals and gradients per layer.

``gradient_rms`` and ``relative_update`` have the form that ``fit(probe=...)`` calls at each record.
``signals`` runs one batch through a net by itself. Layers are counted over those with weights W. All of
them look only: parameters, buffers, gradients and generators stay as they are.
"""

from typing import Any

import numpy as np
import xarray as xr

from dlcore import checks, host_arrays, observing
from dlcore.activations import Activation
from dlcore.layers import Layer
from dlcore.losses import SoftmaxCrossEntropy
from dlcore.network import Network
from dlcore.training import on_backend


def weight_slots(network: Network) -> list[Any]:
    """Return the slots of the input weights W, lowest layer first."""
    slots = checks.instance("network", network, Network).slots
    found = [slot for slot in slots if slot.name == "W"]
    checks.expect(found, "network", "a layer with weights W", "none")
    return found


def gradient_rms(network: Network, before: Any = None) -> dict[str, Any]:
    r"""Return ``{"gradient_rms": (..., layers)}``: :math:`\sqrt{\mathrm{mean}(dW^2)}` per layer.

    ``before`` is not read; ``fit`` gives it to each probe.
    """
    weight_slots(network)
    with network.backend.quiet():
        rms = [_rms(network, g) for g in _weights(network, network.gradients)]
        return {"gradient_rms": network.backend.xp.stack(rms, axis=-1)}


def relative_update(network: Network, before: Any) -> dict[str, Any]:
    r"""Return ``{"relative_update": (..., layers)}``: :math:`\|\Delta W\|/\|W\|` of a step.

    ``before`` holds the parameters before it, flat as ``network.parameters``. Of weights that were all
    zero it is infinite, or NaN where they still are.
    """
    due = checks.instance("network", network, Network).parameters.shape
    came = getattr(before, "shape", None)
    checks.expect(came == due, "before", f"parameters of shape {due}", came)
    xp, ratios = network.backend.xp, []
    pairs = zip(_weights(network, network.parameters), _weights(network, before), strict=True)
    with network.backend.quiet():
        for new, old in pairs:
            scale = _scale(network, old)
            change, size = ((new - old) * scale) ** 2, (old * scale) ** 2
            ratios.append(xp.sqrt(change.sum(axis=(-2, -1)) / size.sum(axis=(-2, -1))))
        return {"relative_update": xp.stack(ratios, axis=-1)}


def learning(network: Network, before: Any) -> dict[str, Any]:
    """Return both ``gradient_rms`` and ``relative_update``."""
    return gradient_rms(network) | relative_update(network, before)


def _weights(network: Network, flat: Any) -> list[Any]:
    own = network.streams.shape
    return [flat[s.start : s.stop].reshape(*own, -1, s.shape[-1]) for s in weight_slots(network)]


def _rows(network: Network, a: Any) -> Any:
    """Join batch, height and width of images, whose units are then their channels."""
    axes = len(network.streams.shape)
    return a.reshape(*a.shape[:axes], -1, a.shape[-1]) if a.ndim > axes + 2 else a


def _scale(network: Network, a: Any) -> Any:
    """Return a power of two for each replica ``(..., 1, 1)`` with which no square over- or underflows.

    It is 1 but for very large and very small values, and being a power of two it costs no rounding.
    """
    xp, bits = network.backend.xp, 128 if a.dtype.itemsize == 4 else 1024  # range of the exponent
    largest = abs(a).max(axis=(-2, -1), keepdims=True)
    limit = 2.0 ** (2 * bits // 5)
    small, large = largest < 1 / limit, largest > limit
    up, down = 2.0 ** (3 * bits // 4), 2.0 ** -(5 * bits // 8)
    scale = xp.where(small, up, xp.where(large, down, 1.0))
    return scale.astype(a.dtype)


def _rms(network: Network, a: Any) -> Any:
    scale = _scale(network, a)
    scaled = a * scale
    root = network.backend.xp.sqrt((scaled * scaled).mean(axis=(-2, -1)))
    return root / scale[..., 0, 0]


def signals(
    network: Network, x: Any, labels: Any, loss: Any = None, saturated_below: float = 0.01
) -> xr.Dataset:
    r"""Return statistics of one forward and backward pass, dims ``(seed,) layer``.

    Per layer with weights: ``variance`` of its pre-activations z over batch and units,
    ``delta_rms`` (root mean square of the loss's gradient with respect to z), ``gradient_rms`` (of dW);
    of the activation that follows (NaN where none does): ``mean`` and ``output_variance``,
    ``saturated`` (share of unit outputs with :math:`|\phi'|` < ``saturated_below``), ``dead`` (share of
    units with :math:`\phi' = 0` on the whole batch). ``x`` and ``labels`` are host or device arrays. Of
    images, units are channels, and places count as batch. Raises
    ``ValueError`` for labels without an output, or a network without weights.

    Frozen layers run as they do in training, and their gradients are given as if they learned. Noise is
    what the network would draw next, and is still the next after it. Only a network that has not run
    yet remembers this pass (``layer.z``, ``layer.a``), to be looked into.
    """
    loss = on_backend(loss or SoftmaxCrossEntropy(), network)
    backend, outputs = network.backend, weight_slots(network)[-1].shape[-1]
    due = f"integers in 0…{outputs - 1}" if loss.kind == "labels" else "numbers"
    labels = host_arrays.real("labels", labels, due)
    checks.expect(labels.size, "labels", "at least one example", "none")
    checks.real("saturated_below", saturated_below, 0)
    x = backend.asarray(host_arrays.real("x", x))
    seen = observing.copies(network)
    with backend.quiet():
        rows, a = _forward(network, seen, network.spread(x), saturated_below)
        dy = _slope(network, loss, a, labels)
        observing.keep_new(network, seen)
        _backward(network, seen, rows, dy)
    return _labelled(network, rows)


def _forward(
    network: Network, layers: list[Layer], a: Any, below: float
) -> tuple[list[dict[str, Any]], Any]:
    """Return statistics of the layers with weights, and the output."""
    rows: list[dict[str, Any]] = []
    for i, layer in enumerate(layers):
        a = layer.forward(a, i not in network.frozen)
        if hasattr(layer, "W"):
            rows.append({"variance": _variance(network, a)})
        elif isinstance(layer, Activation) and rows:
            rows[-1] |= _activation_statistics(network, layer, below)
    return rows, a


def _slope(network: Network, loss: Any, a: Any, labels: np.ndarray) -> Any:
    """Return the loss's gradient with respect to the output ``a``."""
    integers, classes = loss.kind == "labels", a.shape[-1]
    if integers:
        good = labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < classes
        checks.expect(good, "labels", f"integers in 0…{classes - 1}", repr(labels))
    return loss(a, network.backend.asarray(labels, np.int64 if integers else None))[1]


def _backward(network: Network, layers: list[Layer], rows: list[dict[str, Any]], dy: Any) -> None:
    """Add what the gradients are to the statistics of the layers with weights."""
    row, lowest = len(rows), network.slots[0].layer
    for layer in layers:
        layer.needs_dx = True
    layers[lowest].needs_dx = False
    for layer in reversed(layers[lowest:]):
        if hasattr(layer, "W"):
            row -= 1
            rows[row]["delta_rms"] = _rms(network, _rows(network, dy))
        dy = layer.backward(dy)
        if hasattr(layer, "W"):
            rows[row]["gradient_rms"] = _rms(network, _rows(network, layer.dW))


def _variance(network: Network, a: Any) -> np.ndarray:
    """Return the variance over batch and units in float64, where float32 might have no room for it."""
    a, to_numpy = _rows(network, a), network.backend.to_numpy
    scale = _scale(network, a)
    found = to_numpy((a * scale).var(axis=(-2, -1))).astype(np.float64)
    return found / to_numpy(scale[..., 0, 0]).astype(np.float64) ** 2


def _mean(network: Network, a: Any) -> Any:
    scale = _scale(network, a)
    return (a * scale).mean(axis=(-2, -1)) / scale[..., 0, 0]


def _activation_statistics(network: Network, layer: Activation, below: float) -> dict[str, Any]:
    slope = abs(_rows(network, layer.derivative(layer.z, layer.a) * 1.0))
    a = _rows(network, layer.a)
    return {
        "mean": _mean(network, a),
        "output_variance": _variance(network, a),
        "saturated": (slope < below).mean(axis=(-2, -1)),
        "dead": (slope.max(axis=-2) == 0).mean(axis=-1),
    }


def _labelled(network: Network, rows: list[dict[str, Any]]) -> xr.Dataset:
    shape = network.streams.shape
    dims = ("seed", "layer") if shape else ("layer",)
    missing, found = np.full(shape, np.nan), {}
    for name in sorted(set().union(*rows)):
        values = [network.backend.to_numpy(r[name]) if name in r else missing for r in rows]
        found[name] = (dims, np.stack(values, axis=-1).astype(np.float64))
    labels = {"layer": np.arange(1, len(rows) + 1)}
    return xr.Dataset(found, labels | ({"seed": list(network.streams.seeds)} if shape else {}))
