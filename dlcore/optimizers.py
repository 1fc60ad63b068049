r"""Optimizers: from gradients to updates.

All end in one line: :math:`\theta \leftarrow \theta - \eta\,u - \eta\lambda\,\theta`. An optimizer says what
the direction u is; the learning rate :math:`\eta` and the weight decay :math:`\lambda` enter only there, as
one value per replica. Weight decay is decoupled (Loshchilov & Hutter 2019), as in Keras, but touches
weights only, not biases and batch norm's vectors; Keras, PyTorch and optax decay those by default, too.

On the CPU updates run over blocks of at most ``BLOCK`` elements, small enough for the temporaries to
stay in the cache; on a GPU one block holds everything, and a step is a handful of launches.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dlcore import checks
from dlcore.backend import fused
from dlcore.network import Network, Slot

#: Elements per block on the CPU (64 Ki floats are 256 KiB).
BLOCK = 1 << 16
#: Second moments below this are set to it: denormal floats would cost ten times the time. By ``clip``, for
#: ``maximum`` with a number takes NumPy three times as long.
TINY = 1e-30


class Block(NamedTuple):
    """Views of one piece of parameters, gradients and state, which learning rates, and a factor to them."""

    theta: Any
    gradient: Any
    state: tuple[Any, ...]
    rates: Any
    decays: Any
    factor: float = 1.0


class Optimizer(checks.Checked):
    """Base of all optimizers: subclasses name their ``state`` and give ``direction``.

    ``bind(network)`` returns a copy with fresh state for that network; ``step(lr, decay)`` updates it.
    ``weight_decay`` is what ``fit`` uses where it is given none itself.
    """

    state: tuple[str, ...] = ()
    weight_decay: float = 0.0
    # What ``bind`` sets: array module, steps done, buffers of the state, blocks to update.
    xp: Any
    t: int
    buffers: tuple[Any, ...]
    blocks: list[Block]

    def bind(self, network: Network) -> Optimizer:
        """Return a copy of this optimizer with zeroed state for ``network``."""
        network.check_memory()
        count = len(network.layers)
        wrong = sorted(set(network.lr_factors) - set(range(count)))
        checks.expect(not wrong, "lr_factors", f"indices of layers below {count}", wrong)
        bound = copy.copy(self)
        bound.xp, bound.t = network.backend.xp, 0
        bound.buffers = tuple(bound.xp.zeros_like(network.parameters) for _ in self.state)
        make = _blocks_on_cpu if bound.xp is np else _block_on_device
        bound.blocks = list(make(network, bound.buffers))
        return bound

    def memory(self) -> dict[str, Any]:
        """Return the live arrays of the state; the steps done are not among them."""
        return {str(i): buffer for i, buffer in enumerate(self.buffers)}

    def step(self, lr: Any, decay: Any = None) -> None:
        """Update all parameters; ``lr`` is a device array ``(R,)``.

        ``decay``, lr times weight decay, has one more entry, 0 for the vectors; None means none.
        """
        self.advance()
        take = self.xp.take
        for block in self.blocks:
            direction = self.direction(block.gradient, *block.state)
            rates = take(lr, block.rates)
            decays = None if decay is None else take(decay, block.decays)
            factor = None if block.factor == 1 else block.factor
            _descend(self.xp, block.theta, direction, rates, decays, factor)

    def advance(self) -> None:
        """Count the step: t is 1 in the first."""
        self.t += 1

    def direction(self, g: Any, *state: Any) -> Any:
        """Return u for gradient g, updating the state in place."""
        raise NotImplementedError


class SGD(Optimizer):
    r"""Gradient descent on batches: :math:`u = g`."""

    def direction(self, g: Any, *state: Any) -> Any:
        return g


@dataclass(eq=False)
class Momentum(Optimizer):
    r"""Gradient as acceleration: :math:`v \leftarrow \mu v + g`, :math:`u = v` (Polyak 1964).

    ``momentum`` :math:`\mu` = 0.9; PyTorch's convention, in which lr is not multiplied by 1 − μ.
    """

    momentum: float = checks.checked(checks.real, 0, 1, default=0.9)
    state = ("v",)

    def direction(self, g: Any, v: Any) -> Any:
        _accelerate(self.xp, v, g, self.momentum)
        return v


class Nesterov(Momentum):
    r"""Momentum with the gradient looked up ahead: :math:`v \leftarrow \mu v + g`, :math:`u = g + \mu v`.

    ``momentum`` :math:`\mu` = 0.9. PyTorch's form, in which :math:`\theta` is the point looked up
    (Nesterov 1983; Sutskever et al. 2013).
    """

    def direction(self, g: Any, v: Any) -> Any:
        return _look_ahead(self.xp, super().direction(g, v), g, self.momentum)


@dataclass(eq=False)
class AdaGrad(Optimizer):
    r"""Smaller steps where gradients have been large, for good (Duchi et al. 2011).

    :math:`v \leftarrow v + g^2`, :math:`u = g/(\sqrt v + \epsilon)`. ``epsilon`` = 1e-10; v starts at 0, as
    in PyTorch (Keras: 0.1).
    """

    epsilon: float = checks.checked(checks.real, 0, default=1e-10)
    state = ("v",)

    def direction(self, g: Any, v: Any) -> Any:
        return _adagrad(self.xp, g, v, self.epsilon)


@dataclass(eq=False)
class RMSProp(Optimizer):
    r"""AdaGrad that forgets (Tieleman & Hinton 2012).

    :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2`, :math:`u = g/(\sqrt v + \epsilon)`. ``beta2`` = 0.9,
    as in the lecture; ``epsilon`` = 1e-8. v starts at 0 and is not corrected for it. Elsewhere: PyTorch
    calls beta2 alpha, 0.99; Keras (rho, 0.9) has its epsilon, 1e-7, inside the root,
    :math:`g/\sqrt{v+\epsilon}`, so that small gradients get smaller steps there; so has optax, with 1e-8.
    """

    beta2: float = checks.checked(checks.real, 0, 1, "[)", default=0.9)
    epsilon: float = checks.checked(checks.real, 0, default=1e-8)
    state = ("v",)

    def direction(self, g: Any, v: Any) -> Any:
        return _rmsprop(self.xp, g, v, self.beta2, 1 - self.beta2, self.epsilon)


@dataclass(eq=False)
class Adam(Optimizer):
    r"""Moments of the gradient, corrected for their start at zero (Kingma & Ba 2015).

    :math:`m \leftarrow \beta_1 m + (1-\beta_1) g`, :math:`v \leftarrow \beta_2 v + (1-\beta_2) g^2`,
    :math:`u = \hat m / (\sqrt{\hat v} + \epsilon)` with :math:`\hat m = m/(1-\beta_1^t)`,
    :math:`\hat v = v/(1-\beta_2^t)`. Defaults 0.9, 0.999, 1e-8. With ``bias_correction=False``
    :math:`\hat m = m`, :math:`\hat v = v`.

    Numerator and denominator of u are multiplied by a power of two, which changes no bit of it but
    keeps :math:`\hat v` from overflowing where v does not.
    """

    beta1: float = checks.checked(checks.real, 0, 1, "[)", default=0.9)
    beta2: float = checks.checked(checks.real, 0, 1, "[)", default=0.999)
    epsilon: float = checks.checked(checks.real, 0, default=1e-8)
    bias_correction: bool = checks.checked(checks.instance, bool, default=True, kw_only=True)
    state = ("m", "v")

    def direction(self, g: Any, m: Any, v: Any) -> Any:
        if not self.bias_correction:
            return _adam_as_it_is(self.xp, g, m, v, *self.shares(), self.epsilon)
        power = self.power()
        of_m = (1 - self.beta1**self.t) / power
        of_v = (1 - self.beta2**self.t) / power**2
        return _adam(self.xp, g, m, v, *self.shares(), of_m, of_v, self.epsilon * power)

    def power(self) -> float:
        r"""Return the power of two p with :math:`p^2 \le 1-\beta_2^t < 4p^2`."""
        _, exponent = math.frexp(1 - self.beta2**self.t)  # 2**exponent is larger, half of it is not
        return 2.0 ** ((exponent - 1) // 2)

    def shares(self) -> tuple[float, float, float, float]:
        """Return the shares of the old moment and of the new value, of m and of v."""
        return self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2


@dataclass(eq=False)
class AdamW(Adam):
    r"""Adam with weight decay :math:`\lambda` = 0.01 unless ``fit`` is told otherwise.

    The same equations: decay is decoupled for every optimizer here (Loshchilov & Hutter 2019).
    ``weight_decay`` is PyTorch's default; ``fit(weight_decay=...)`` comes first. ``beta1``, ``beta2``,
    ``epsilon`` and ``bias_correction`` as in ``Adam``.
    """

    weight_decay: float = checks.checked(checks.real, 0, default=0.01, kw_only=True)


@dataclass(eq=False)
class NAdam(Adam):
    r"""Adam with Nesterov's look ahead (Dozat 2016), in PyTorch's form.

    :math:`\mu_t = \beta_1 (1 - \tfrac12\,0.96^{\psi t})` warms momentum up, m and v are Adam's, and
    :math:`\hat m = \dfrac{\mu_{t+1}\, m}{1 - \prod_{i=1}^{t+1}\mu_i} + \dfrac{(1-\mu_t)\, g}{1 -
    \prod_{i=1}^{t}\mu_i}`, :math:`u = \hat m/(\sqrt{v/(1-\beta_2^t)} + \epsilon)`. Defaults 0.9, 0.999,
    1e-8, ``momentum_decay`` :math:`\psi` = 0.004.
    """

    momentum_decay: float = checks.checked(checks.real, 0, default=0.004)
    bias_correction: bool = field(default=True, init=False, repr=False)

    def mu(self, t: int) -> float:
        r"""Return :math:`\mu_t`."""
        return self.beta1 * (1 - 0.5 * 0.96 ** (self.momentum_decay * t))

    def advance(self) -> None:
        super().advance()
        before = 1.0 if self.t == 1 else self.product
        self.product: float = before * self.mu(self.t)

    def direction(self, g: Any, m: Any, v: Any) -> Any:
        mu, ahead, power = self.mu(self.t), self.mu(self.t + 1), self.power()
        of_m = power * ahead / (1 - self.product * ahead)
        of_g = power * (1 - mu) / (1 - self.product)
        of_v = (1 - self.beta2**self.t) / power**2
        own = of_m, of_g, of_v, self.epsilon * power
        return _nadam(self.xp, g, m, v, *self.shares(), *own)


# One kernel each on a device. ``old`` and ``new`` are the shares of what was and of what comes.


@fused
def _descend(xp: Any, theta: Any, direction: Any, rate: Any, decay: Any, factor: Any) -> None:
    update = direction * rate
    if decay is not None:
        update += decay * theta
    if factor is not None:
        update = update * factor
    theta -= update


@fused
def _accelerate(xp: Any, v: Any, g: Any, momentum: float) -> None:
    v *= momentum
    v += g


@fused
def _look_ahead(xp: Any, v: Any, g: Any, momentum: float) -> Any:
    return momentum * v + g


@fused
def _adagrad(xp: Any, g: Any, v: Any, epsilon: float) -> Any:
    v += g * g
    xp.clip(v, TINY, math.inf, out=v)
    return g / (xp.sqrt(v) + epsilon)


@fused
def _rmsprop(xp: Any, g: Any, v: Any, old: float, new: float, epsilon: float) -> Any:
    v *= old
    v += new * g * g
    xp.clip(v, TINY, math.inf, out=v)
    return g / (xp.sqrt(v) + epsilon)


def _average(
    xp: Any, g: Any, m: Any, v: Any, old_m: float, new_m: float, old_v: float, new_v: float
) -> None:
    """Update both moments of Adam in place."""
    m *= old_m
    m += new_m * g
    v *= old_v
    square = new_v * g
    square *= g
    v += square
    xp.clip(v, TINY, math.inf, out=v)


@fused
def _adam(
    xp: Any, g: Any, m: Any, v: Any, old_m: float, new_m: float, old_v: float, new_v: float,
    of_m: float, of_v: float, epsilon: float,
) -> Any:  # fmt: skip
    _average(xp, g, m, v, old_m, new_m, old_v, new_v)
    m_hat = m / of_m
    v_hat = v / of_v
    root = xp.sqrt(v_hat, out=v_hat)  # the rest in place, without further arrays
    root += epsilon
    m_hat /= root
    return m_hat


@fused
def _adam_as_it_is(
    xp: Any, g: Any, m: Any, v: Any, old_m: float, new_m: float, old_v: float, new_v: float,
    epsilon: float,
) -> Any:  # fmt: skip
    _average(xp, g, m, v, old_m, new_m, old_v, new_v)
    return m / (xp.sqrt(v) + epsilon)


@fused
def _nadam(
    xp: Any, g: Any, m: Any, v: Any, old_m: float, new_m: float, old_v: float, new_v: float,
    of_m: float, of_g: float, of_v: float, epsilon: float,
) -> Any:  # fmt: skip
    _average(xp, g, m, v, old_m, new_m, old_v, new_v)
    m_hat = of_m * m + of_g * g
    return m_hat / (xp.sqrt(v / of_v) + epsilon)


def _factor(network: Network, slot: Slot) -> float:
    """Return the factor of a layer's learning rate, 1 unless ``network.lr_factors`` says another."""
    return checks.real("lr_factors", network.lr_factors.get(slot.layer, 1.0), 0)


def _blocks_on_cpu(network: Network, buffers: tuple[Any, ...]) -> Iterator[Block]:
    """Cut each parameter, seen as (replicas, n), into blocks of whole rows or parts of one row."""
    replicas = network.replicas
    for slot in network.trainable:
        n = (slot.stop - slot.start) // replicas
        flat = (network.parameters, network.gradients, *buffers)
        views = [a[slot.start : slot.stop].reshape(replicas, n) for a in flat]
        for row in range(0, replicas, max(1, BLOCK // n)):
            rows = np.arange(row, min(replicas, row + max(1, BLOCK // n)))[:, None]
            zero = rows if slot.name[0].isupper() else np.full_like(rows, replicas)
            for column in range(0, n, BLOCK):
                part = (slice(row, row + len(rows)), slice(column, column + BLOCK))
                theta, g, *state = (view[part] for view in views)
                yield Block(theta, g, tuple(state), rows, zero, _factor(network, slot))


def _block_on_device(network: Network, buffers: tuple[Any, ...]) -> Iterator[Block]:
    """One block over the flat buffers, with an index of each element's replica.

    Frozen layers, and layers with learning rates of their own, cut it into several.
    """
    replicas, to_device = network.replicas, network.backend.asarray
    for run in _runs(network):
        span = slice(run[0].start, run[-1].stop)
        theta, g, *state = (a[span] for a in (network.parameters, network.gradients, *buffers))
        rates, decays = [], []
        for slot in run:
            index = np.repeat(np.arange(replicas), (slot.stop - slot.start) // replicas)
            rates.append(index)
            decays.append(index if slot.name[0].isupper() else np.full_like(index, replicas))
        rows, zero = (to_device(np.concatenate(part), np.int32) for part in (rates, decays))
        yield Block(theta, g, tuple(state), rows, zero, _factor(network, run[0]))


def _runs(network: Network) -> list[list[Slot]]:
    """Group the slots that learn into neighbours with one learning-rate factor."""

    def kind(slot: Slot) -> tuple[bool, float]:
        return slot.layer not in network.frozen, _factor(network, slot)

    return [list(run) for (learns, _), run in itertools.groupby(network.slots, kind) if learns]
