"""What happens inside a net: signals and gradients per layer.

``gradient_rms`` and ``relative_update`` have the form that ``fit(probe=...)`` calls at each record.
``signals`` runs one batch through a net by itself. Layers are counted over those with weights W.
"""

from typing import Any

import numpy as np
import xarray as xr

from dlcore import checks
from dlcore.activations import Activation
from dlcore.backend import to_host
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
    xp = network.backend.xp
    rms = [_rms(network, g) for g in _weights(network, network.gradients)]
    return {"gradient_rms": xp.stack(rms, axis=-1)}


def relative_update(network: Network, before: Any) -> dict[str, Any]:
    r"""Return ``{"relative_update": (..., layers)}``: :math:`\|\Delta W\|/\|W\|` of a step.

    ``before`` holds the parameters before it, flat as ``network.parameters``.
    """
    due = checks.instance("network", network, Network).parameters.shape
    came = getattr(before, "shape", None)
    checks.expect(came == due, "before", f"parameters of shape {due}", came)
    xp, ratios = network.backend.xp, []
    pairs = zip(_weights(network, network.parameters), _weights(network, before), strict=True)
    for new, old in pairs:
        change, size = (new - old) ** 2, old * old
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


def _rms(network: Network, a: Any) -> Any:
    return network.backend.xp.sqrt((a * a).mean(axis=(-2, -1)))


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
    """
    loss = on_backend(loss or SoftmaxCrossEntropy(), network)
    backend, labels = network.backend, np.asarray(to_host(labels))
    weight_slots(network)
    checks.real("saturated_below", saturated_below, 0)
    a, rows = network.spread(backend.asarray(x)), []
    for layer in network.layers:
        a = layer.forward(a, True)
        if hasattr(layer, "W"):
            rows.append({"variance": _rows(network, a).var(axis=(-2, -1))})
        elif isinstance(layer, Activation) and rows:
            rows[-1] |= _activation_statistics(network, layer, saturated_below)
    integers, classes = loss.kind == "labels", a.shape[-1]
    if integers:
        good = labels.dtype.kind in "iu" and 0 <= labels.min() <= labels.max() < classes
        checks.expect(good, "labels", f"integers in 0…{classes - 1}", repr(labels))
    _, dy = loss(a, backend.asarray(labels, np.int64 if integers else None))
    row = len(rows)
    for layer in reversed(network.layers[network.slots[0].layer :]):
        if hasattr(layer, "W"):
            row -= 1
            rows[row]["delta_rms"] = _rms(network, _rows(network, dy))
        dy = layer.backward(dy)
        if hasattr(layer, "W"):
            rows[row]["gradient_rms"] = _rms(network, _rows(network, layer.dW))
    return _labelled(network, rows)


def _activation_statistics(network: Network, layer: Activation, below: float) -> dict[str, Any]:
    slope = abs(_rows(network, layer.derivative(layer.z, layer.a) * 1.0))
    a = _rows(network, layer.a)
    return {
        "mean": a.mean(axis=(-2, -1)),
        "output_variance": a.var(axis=(-2, -1)),
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
