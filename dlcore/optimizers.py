r"""Optimizers: from gradients to updates.

All end in one line: :math:`\theta \leftarrow \theta - \eta\,u - \eta\lambda\,\theta`. An optimizer says what
the direction u is; the learning rate :math:`\eta` and the weight decay :math:`\lambda` enter only there, as
one value per replica. Weight decay is decoupled (Loshchilov & Hutter 2019), as in Keras, and touches
weights only, not biases.

On the CPU updates run over blocks of at most ``BLOCK`` elements, small enough for the temporaries to
stay in the cache; on a GPU one block holds everything, and a step is a handful of launches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dlcore import checks
from dlcore.network import Network

#: Elements per block on the CPU (64 Ki floats are 256 KiB).
BLOCK = 1 << 16
#: Second moments below this are set to it: denormal floats would cost ten times the time.
TINY = 1e-30


class Block(NamedTuple):
    """Views of one piece of parameters, gradients and state, and which learning rates it takes."""

    theta: Any
    gradient: Any
    state: tuple[Any, ...]
    rates: Any
    decays: Any


class Optimizer:
    """Base of all optimizers: subclasses name their ``state`` and give ``direction``.

    ``bind(network)`` returns a copy with fresh state for that network; ``step(lr, decay)`` updates it.
    """

    state: tuple[str, ...] = ()

    def bind(self, network: Network) -> Optimizer:
        """Return a copy of this optimizer with zeroed state for ``network``."""
        bound = copy.copy(self)
        bound.xp, bound.t = network.backend.xp, 0
        bound.buffers = tuple(bound.xp.zeros_like(network.parameters) for _ in self.state)
        make = _blocks_on_cpu if bound.xp is np else _block_on_device
        bound.blocks = list(make(network, bound.buffers))
        return bound

    def step(self, lr: Any, decay: Any = None) -> None:
        """Update all parameters; ``lr`` is a device array ``(R,)``.

        ``decay``, lr times weight decay, has one more entry, 0 for the vectors; None means none.
        """
        self.t += 1
        for block in self.blocks:
            update = self.direction(block.gradient, *block.state) * self.xp.take(lr, block.rates)
            if decay is not None:
                update += self.xp.take(decay, block.decays) * block.theta
            block.theta[...] -= update

    def direction(self, g: Any, *state: Any) -> Any:
        """Return u for gradient g, updating the state in place."""
        raise NotImplementedError


class SGD(Optimizer):
    r"""Gradient descent on batches: :math:`u = g`."""

    def direction(self, g: Any, *state: Any) -> Any:
        return g


class Momentum(Optimizer):
    r"""Gradient as acceleration: :math:`v \leftarrow \beta v + g`, :math:`u = v` (Polyak 1964).

    ``momentum`` :math:`\beta` = 0.9; PyTorch's convention, in which lr is not multiplied by 1 − β.
    """

    state = ("v",)

    def __init__(self, momentum: float = 0.9) -> None:
        self.momentum = checks.real("momentum", momentum, 0, 1)

    def direction(self, g: Any, v: Any) -> Any:
        v *= self.momentum
        v += g
        return v


class Adam(Optimizer):
    r"""Moments of the gradient, corrected for their start at zero (Kingma & Ba 2015).

    :math:`m \leftarrow \beta_1 m + (1-\beta_1) g`, :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2`,
    :math:`u = \hat m / (\sqrt{\hat v} + \epsilon)` with :math:`\hat m = m/(1-\beta_1^t)`,
    :math:`\hat v = v/(1-\beta_2^t)`. Defaults 0.9, 0.999, 1e-8.
    """

    state = ("m", "v")

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.beta1 = checks.real("beta1", beta1, 0, 1)
        self.beta2 = checks.real("beta2", beta2, 0, 1)
        self.epsilon = checks.real("epsilon", epsilon, 0)

    def direction(self, g: Any, m: Any, v: Any) -> Any:
        m *= self.beta1
        m += (1 - self.beta1) * g
        v *= self.beta2
        v += (1 - self.beta2) * g * g
        self.xp.maximum(v, TINY, out=v)
        m_hat = m / (1 - self.beta1**self.t)
        v_hat = v / (1 - self.beta2**self.t)
        return m_hat / (self.xp.sqrt(v_hat) + self.epsilon)


def _blocks_on_cpu(network: Network, buffers: tuple[Any, ...]) -> Iterator[Block]:
    """Cut each parameter, seen as (replicas, n), into blocks of whole rows or parts of one row."""
    replicas = network.replicas
    for slot in network.slots:
        n = (slot.stop - slot.start) // replicas
        views = [
            a[slot.start : slot.stop].reshape(replicas, n)
            for a in (network.parameters, network.gradients, *buffers)
        ]
        for row in range(0, replicas, max(1, BLOCK // n)):
            rows = np.arange(row, min(replicas, row + max(1, BLOCK // n)))[:, None]
            zero = rows if slot.name[0].isupper() else np.full_like(rows, replicas)
            for column in range(0, n, BLOCK):
                part = (slice(row, row + len(rows)), slice(column, column + BLOCK))
                theta, g, *state = (view[part] for view in views)
                yield Block(theta, g, tuple(state), rows, zero)


def _block_on_device(network: Network, buffers: tuple[Any, ...]) -> Iterator[Block]:
    """One block over the flat buffers, with an index of each element's replica."""
    replicas, rates, decays = network.replicas, [], []
    for slot in network.slots:
        index = np.repeat(np.arange(replicas), (slot.stop - slot.start) // replicas)
        rates.append(index)
        decays.append(index if slot.name[0].isupper() else np.full_like(index, replicas))
    to_device = network.backend.asarray
    yield Block(
        network.parameters,
        network.gradients,
        buffers,
        to_device(np.concatenate(rates), np.int32),
        to_device(np.concatenate(decays), np.int32),
    )
