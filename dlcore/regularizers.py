"""What acts on gradients or weights around an optimizer's step, per replica."""

from __future__ import annotations

from dataclasses import dataclass

from dlcore import checks
from dlcore.network import Network


@dataclass(frozen=True)
class clip_by_norm:
    r"""Scale a replica's whole gradient down to norm c: :math:`g \leftarrow g \min(1, c/\lVert g\rVert)`.

    ``max_norm`` c > 0; the norm is over all parameters of one replica (Pascanu et al. 2013).
    """

    max_norm: float

    def __post_init__(self) -> None:
        checks.real("max_norm", self.max_norm, 0, ends="(]")

    def gradients(self, network: Network) -> None:
        """Clip ``network.gradients`` in place."""
        xp = network.backend.xp
        views = [getattr(network.layers[s.layer], "d" + s.name) for s in network.slots]
        squares = sum((g * g).sum(axis=(-2, -1), keepdims=True) for g in views)
        scale = xp.minimum(self.max_norm / xp.sqrt(xp.maximum(squares, 1e-30)), 1.0)
        for g in views:
            g *= scale
