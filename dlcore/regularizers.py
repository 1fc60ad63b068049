"""What acts beside the loss: penalties, clipping, max-norm and early stopping, each per replica.

``fit(regularizers=...)`` takes objects with ``gradients(network)``, called before each step, or
``weights(network)``, called after it. Where they have ``bind(network)``, its result is used for the run.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dlcore import checks, norms
from dlcore.network import Network


@dataclass
class L2:
    r"""Quadratic penalty :math:`\tfrac\lambda2\lVert W\rVert^2`: :math:`g \leftarrow g + \lambda W`.

    On weights only (W, U), not on biases or batch norm's vectors. ``strength`` :math:`\lambda \ge 0`: a
    number or one per replica. Unlike decoupled weight decay, Adam divides it by the gradient's size
    (Loshchilov & Hutter 2019). Raises ``ValueError`` or ``TypeError`` for other strengths.
    """

    strength: Any
    amount: Any = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = checks.per_replica("strength", self.strength, max(1, np.size(self.strength)))
        single = np.ndim(self.strength) == 0
        self.strength = float(values[0]) if single else tuple(values.tolist())

    def bind(self, network: Network) -> L2:
        """Return a copy that holds the strengths on the network's device."""
        bound = copy.copy(self)
        values = checks.per_replica("strength", self.strength, network.replicas)
        bound.amount = network.backend.asarray(values.reshape(network.streams.shape))
        return bound

    def gradients(self, network: Network) -> None:
        """Add the penalty's gradient in place."""
        amount = self.bind(network).amount if self.amount is None else self.amount
        for _, w, g in _weights(network):
            scale = amount.reshape(*amount.shape, *_ones(network, w))
            g += scale * self.slope(network.backend.xp, w)

    def slope(self, xp: Any, w: Any) -> Any:
        """Return the gradient for strength 1."""
        return w


@dataclass
class L1(L2):
    r"""Absolute penalty :math:`\lambda\lVert W\rVert_1`: :math:`g \leftarrow g + \lambda\,\mathrm{sign}(W)`.

    On weights only, as ``L2``; sign(0) = 0. ``strength`` :math:`\lambda`: a number or one per replica
    (Tibshirani 1996).
    """

    def slope(self, xp: Any, w: Any) -> Any:
        return xp.sign(w)


@dataclass(frozen=True)
class MaxNorm(checks.Checked):
    r"""Limit to the weights into each unit: :math:`w \leftarrow w \min(1, \gamma/\lVert w\rVert)`.

    Holds after every step. ``max_norm`` :math:`\gamma > 0`; w is a column of W (of U, on its own), in a
    convolution all weights of one output channel (Srebro & Shraibman 2005; Srivastava et al. 2014).
    """

    max_norm: float = checks.checked(checks.real, 0, math.inf, "(]")

    def weights(self, network: Network) -> None:
        """Scale weights that are too long, in place."""
        with network.backend.quiet():
            for axes, w, _ in _weights(network):
                norms.shrink(network.backend.xp, [(w, axes[:-1])], self.max_norm)


@dataclass(frozen=True)
class clip_by_global_norm(checks.Checked):
    r"""Scale a replica's whole gradient down to norm c: :math:`g \leftarrow g \min(1, c/\lVert g\rVert)`.

    ``max_norm`` c > 0; the norm is over all parameters of one replica that learn (Pascanu et al. 2013),
    as in optax's ``clip_by_global_norm`` and PyTorch's ``clip_grad_norm_``. TensorFlow's
    ``clip_by_norm`` and Keras's ``clipnorm`` clip each parameter's gradient on its own instead.
    ``clip_by_norm`` is another name of this class.
    """

    max_norm: float = checks.checked(checks.real, 0, math.inf, "(]")

    def gradients(self, network: Network) -> None:
        """Clip ``network.gradients`` in place."""
        views = [getattr(network.layers[s.layer], "d" + s.name) for s in network.trainable]
        parts = [(g, _own(network, g)) for g in views]
        with network.backend.quiet():
            norms.shrink(network.backend.xp, parts, self.max_norm)


clip_by_norm = clip_by_global_norm  # the name in earlier versions


MONITORS = ("valid_loss", "train_loss", "valid_accuracy")


@dataclass(frozen=True)
class EarlyStopping(checks.Checked):
    """Stop a replica that has not improved, and give it its best weights back (Prechelt 1998).

    A record is better if its ``monitor`` beats the best so far by more than ``min_delta`` (default 0):
    ``"valid_loss"`` (default), ``"train_loss"``, or ``"valid_accuracy"``, where higher is better. A
    replica stops once ``patience`` epochs have passed since its best one. At the end of ``fit`` each
    replica gets the parameters and buffers of its best record, also one that never stopped; those
    marked in ``diverged`` keep their zeros. Raises ``ValueError`` or ``TypeError`` for other arguments.
    """

    patience: int = checks.checked(checks.integer, 1)
    min_delta: float = checks.checked(checks.real, 0, default=0.0)
    monitor: str = checks.checked(checks.choice, *MONITORS, default="valid_loss")

    def begin(self, network: Network) -> Watch:
        """Return what one run remembers."""
        return Watch(self, network)


class Watch:
    """What one run of ``EarlyStopping`` remembers, host arrays with one value per replica.

    ``stopped`` says who has stopped, ``best_epoch`` (0: the start) whose weights are kept, and
    ``stopped_epoch`` the last epoch trained.
    """

    def __init__(self, rule: EarlyStopping, network: Network) -> None:
        n = network.replicas
        self.rule, self.network, self.best = rule, network, np.full(n, math.inf)
        self.best_epoch, self.stopped_epoch = np.zeros(n, int), np.zeros(n, int)
        self.stopped = np.zeros(n, bool)
        self.kept = {name: a.copy() for name, a in network.arrays().items()}

    def record(self, epoch: int, values: dict[str, np.ndarray]) -> None:
        """Compare a record's values with the best ones; keep weights that are better."""
        value = np.reshape(values[self.rule.monitor], -1)
        value = -value if self.rule.monitor == "valid_accuracy" else value
        better = (value < self.best - self.rule.min_delta) & ~self.stopped
        np.copyto(self.best, value, where=better)
        self.best_epoch[better] = epoch
        self.stopped_epoch[~self.stopped] = epoch
        self.stopped |= epoch - self.best_epoch >= self.rule.patience
        if better.any():
            self._copy(self.network.arrays(), self.kept, better)

    def memory(self) -> dict[str, Any]:
        """Return the live arrays that ``record`` changes in place."""
        host = {n: vars(self)[n] for n in ("best", "best_epoch", "stopped_epoch", "stopped")}
        return host | {f"kept {name}": a for name, a in self.kept.items()}

    def restore(self, replicas: np.ndarray) -> None:
        """Give replicas (a host mask) their best weights back."""
        self._copy(self.kept, self.network.arrays(), replicas)

    def _copy(self, source: dict, target: dict, replicas: np.ndarray) -> None:
        network = self.network
        mask = network.backend.asarray(replicas.reshape(network.streams.shape), bool)
        for name, a in target.items():
            here = mask.reshape(*mask.shape, *_ones(network, a))
            a[...] = network.backend.xp.where(here, source[name], a)


def _own(network: Network, a: Any) -> tuple[int, ...]:
    """Return the axes of an array behind the replica's, counted from the end."""
    return tuple(range(len(network.streams.shape) - a.ndim, 0))


def _ones(network: Network, a: Any) -> tuple[int, ...]:
    """Return the shape of one value per replica, without the replica axis."""
    return (1,) * len(_own(network, a))


def _weights(network: Network) -> list[tuple[tuple[int, ...], Any, Any]]:
    """Return own axes, values and gradients of the weights that learn."""
    slots = [(network.layers[s.layer], s.name) for s in network.trainable if s.name[0].isupper()]
    pairs = [(getattr(layer, name), getattr(layer, "d" + name)) for layer, name in slots]
    return [(_own(network, w), w, g) for w, g in pairs]
