"""Batch norm folded into the weights of its neighbours, for prediction."""

import copy
from collections.abc import Sequence
from typing import Any

from dlcore.convolution import Conv2D
from dlcore.layers import BatchNorm, Dense, Dropout, GaussianNoise, Layer

#: A layer and its parameters by name.
Valued = tuple[Layer, dict[str, Any]]


def without_batch_norm(layers: Sequence[Layer]) -> list[Valued]:
    r"""Return copies of the layers but batch norm, and parameters that make up for it.

    In prediction batch norm is the map :math:`s x + t`, :math:`s = \gamma/\sqrt{r+\epsilon}`,
    :math:`t = \beta - m s`, with running mean m and variance r. A ``Dense`` or ``Conv2D`` right
    before it takes :math:`W s` and :math:`b s + t`; otherwise the next ``Dense``, with nothing but
    dropout or noise between, takes :math:`s^\top W` and :math:`b + t W`. Raises ``ValueError`` where neither
    is there: the padding of a ``Conv2D`` behind batch norm has no place for t.
    """
    kept: list[Valued] = []
    waiting: tuple[Any, Any] | None = None
    for i, layer in enumerate(layers):
        if isinstance(layer, BatchNorm):
            s = layer.gamma / layer.xp.sqrt(layer.running_var + layer.epsilon)
            t = layer.beta - layer.running_mean * s
            if waiting:
                waiting = waiting[0] * s, waiting[1] * s + t
            elif kept and isinstance(kept[-1][0], (Dense, Conv2D)):
                previous = kept[-1][1]
                rows = previous["W"].reshape(*s.shape[:-2], -1, s.shape[-1])
                previous["W"] = (rows * s).reshape(previous["W"].shape)
                previous["b"] = previous["b"] * s + t
            else:
                waiting = s, t
            continue
        values = {name: getattr(layer, name) for name in layer.shapes}
        if waiting and isinstance(layer, Dense):
            s, t = waiting
            values = {"W": s.mT * layer.W, "b": layer.b + t @ layer.W}
            waiting = None
        elif waiting and not isinstance(layer, (Dropout, GaussianNoise)):
            _refuse(f"then {type(layer).__name__} (layer {i})")
        bare = copy.copy(layer)  # for another network, which sets its arrays and noise
        bare.needs_dx, bare.noise = True, None
        kept.append((bare, values))
    if waiting:
        _refuse("then the network's end")
    return kept


def _refuse(found: str) -> None:
    due = "a Dense or Conv2D layer right before batch norm, or a Dense layer right behind it"
    raise ValueError(f"fold_batch_norm: expected {due}, got neither, {found}")
