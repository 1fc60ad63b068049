r"""Schedules: how the learning rate changes in the course of training.

A schedule gives the factor f by which ``lr`` is multiplied at step k = 0, 1, … of n:
``schedule(step, steps)``. All are small frozen objects (they compare, print and pickle), and ``fit``
takes any other function of (step, steps) too. A ``length`` is a number of steps (an integer) or a share
of the run (a float in (0, 1], rounded to whole steps, one at least): ``length=100`` or ``length=0.1``.

>>> halve = exponential(rate=0.5, length=100)
>>> [halve(k, 400) for k in (0, 100, 200)]
[1.0, 0.5, 0.25]
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlcore import checks

_DUE = "a schedule such as cosine() or a function of (step, steps)"


def _length(name: str, value: Any) -> float:
    if isinstance(value, float):
        return checks.real(name, value, 0, 1, ends="(]")
    return checks.integer(name, value, 1)


def _each(name: str, values: Any, check: Callable, *limits: Any) -> tuple:
    given = checks.instance(name, values, (tuple, list), "a sequence")
    return tuple(check(name, value, *limits) for value in given)


class Schedule(checks.Checked):
    """Base of all schedules; subclasses give ``__call__``."""

    def __call__(self, step: int, steps: int) -> Any:
        """Return the factor at a step: a float, or one value per replica ``(R,)``."""
        return 1.0

    def begin(self, replicas: int) -> Schedule:
        """Return the object that one run uses; itself, where a schedule has no memory."""
        return self

    def record(self, valid_loss: Any) -> None:
        """Take note of the validation losses at a record of ``fit``."""

    def memory(self) -> dict[str, np.ndarray]:
        """Return the live arrays that ``record`` changes in place, for a checkpoint."""
        return {}


@dataclass(frozen=True)
class constant(Schedule):
    """No change: f = 1."""


@dataclass(frozen=True)
class piecewise(Schedule):
    r"""Stairs: :math:`f = f_i` from the i-th boundary on.

    ``boundaries`` rise, each a length from the start (default half and three quarters of the run);
    ``factors`` has one more entry, the first for the time before (default 1, 0.1, 0.01). Raises
    ``ValueError`` for other numbers of factors, or boundaries that do not rise.
    """

    boundaries: Sequence[float] = checks.checked(_each, _length, default=(0.5, 0.75))
    factors: Sequence[float] = checks.checked(_each, checks.real, 0, default=(1.0, 0.1, 0.01))

    def __post_init__(self) -> None:
        super().__post_init__()
        alike = len({isinstance(b, float) for b in self.boundaries}) <= 1
        rising = alike and list(self.boundaries) == sorted(set(self.boundaries))
        due = "rising values, all steps or all shares"
        checks.expect(rising, "boundaries", due, self.boundaries)
        found, count = len(self.factors), len(self.boundaries) + 1
        checks.expect(found == count, "factors", f"{count}, one more than boundaries", found)

    def __call__(self, step: int, steps: int) -> float:
        return self.factors[bisect_right([_steps(b, steps) for b in self.boundaries], step)]


@dataclass(frozen=True)
class exponential(Schedule):
    r"""Exponential decay: :math:`f = r^{k/s}`, a factor ``rate`` r every ``length`` s.

    ``rate`` = 0.1 in (0, 1], ``length`` = 1.0, the whole run.
    """

    rate: float = checks.checked(checks.real, 0, 1, "(]", default=0.1)
    length: float = checks.checked(_length, default=1.0)

    def __call__(self, step: int, steps: int) -> float:
        return self.rate ** (step / _steps(self.length, steps))


@dataclass(frozen=True)
class inverse_time(Schedule):
    r"""Power of time: :math:`f = (1 + k/s)^{-p}`; after ``length`` s the rate is :math:`2^{-p}`.

    ``length`` = 0.1, ``power`` p = 1; p = ½ is the classical :math:`1/\sqrt k` (Robbins & Monro 1951).
    """

    length: float = checks.checked(_length, default=0.1)
    power: float = checks.checked(checks.real, 0, default=1.0)

    def __call__(self, step: int, steps: int) -> float:
        return (1 + step / _steps(self.length, steps)) ** -self.power


@dataclass(frozen=True)
class polynomial(Schedule):
    r"""Polynomial decay: :math:`f = e + (1-e)(1-k/n)^p`, straight for ``power`` p = 1 (the default).

    ``end`` e = 0 is the factor that step n would have.
    """

    power: float = checks.checked(checks.real, 0, default=1.0)
    end: float = checks.checked(checks.real, 0, default=0.0)

    def __call__(self, step: int, steps: int) -> float:
        return self.end + (1 - self.end) * (1 - step / steps) ** self.power


@dataclass(frozen=True)
class cosine(Schedule):
    r"""Half a cosine: :math:`f = e + \tfrac{1-e}{2}(1+\cos\pi k/n)` (Loshchilov & Hutter 2017).

    ``end`` e = 0 is the factor that step n would have. No restarts.
    """

    end: float = checks.checked(checks.real, 0, default=0.0)

    def __call__(self, step: int, steps: int) -> float:
        return _half_cosine(1.0, self.end, step / steps)


@dataclass(frozen=True)
class one_cycle(Schedule):
    r"""Up and down once, by half cosines: from ``start`` to 1 and on to ``end`` (Smith & Topin 2018).

    The peak, f = 1, is at step :math:`a = pn - 1` with ``peak`` p = 0.3; the last step, n − 1, has
    ``end``. Defaults 1/25 and 1/250,000, PyTorch's; momentum is not cycled.
    """

    peak: float = checks.checked(checks.real, 0, 1, "()", default=0.3)
    start: float = checks.checked(checks.real, 0, default=1 / 25)
    end: float = checks.checked(checks.real, 0, default=1 / 250_000)

    def __call__(self, step: int, steps: int) -> float:
        top = max(0.0, self.peak * steps - 1)
        if step < top:
            return _half_cosine(self.start, 1.0, step / top)
        rest = steps - 1 - top
        return _half_cosine(1.0, self.end, (step - top) / rest if rest > 0 else 0.0)


@dataclass(frozen=True)
class warmup(Schedule):
    r"""Rise before another schedule: :math:`f = \frac{k+1}{s+1} g(0)` for k < s, then :math:`g(k-s)`.

    ``then`` g is any schedule (default ``constant()``), which gets the n − s steps that are left;
    ``length`` s = 0.1. (Goyal et al. 2017)
    """

    length: float = checks.checked(_length, default=0.1)
    then: Callable[[int, int], Any] = checks.checked(checks.function, _DUE, default=constant())  # noqa: RUF009

    def __call__(self, step: int, steps: int) -> Any:
        s = _steps(self.length, steps)
        return min(1.0, (step + 1) / (s + 1)) * self.then(max(0, step - s), max(1, steps - s))

    def begin(self, replicas: int) -> Schedule:
        return warmup(self.length, begin(self.then, replicas))

    def record(self, valid_loss: Any) -> None:
        self.then.record(valid_loss)  # type: ignore[attr-defined]  # as ``begin`` has made it

    def memory(self) -> dict[str, np.ndarray]:
        return self.then.memory()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Multiply a replica's factor by ``factor`` where its validation loss has stopped to fall.

    A record is better if the loss is below the best by more than ``threshold`` times the best's size
    (losses may be negative). After more than ``patience`` records in a row that are not, f becomes
    f × ``factor``, at least ``end``, and the next ``cooldown`` records do not count. Each replica has
    its own f, in ``factors`` (R,) of the object that ``begin(replicas)`` returns, which counts. Defaults
    0.1, 10, 1e-4, 0 and 0, and the count, are PyTorch's. Keras's and optax's patience is one shorter
    (they cut at the ``patience``-th such record: with 3 after record 4, not 5), and Keras's threshold
    is a difference. Without validation data ``record`` raises ``ValueError``.
    """

    factor: float = checks.checked(checks.real, 0, 1, "()", default=0.1)
    patience: int = checks.checked(checks.integer, 0, default=10)
    threshold: float = checks.checked(checks.real, 0, 1, "[)", default=1e-4)
    cooldown: int = checks.checked(checks.integer, 0, default=0)
    end: float = checks.checked(checks.real, 0, default=0.0)

    def begin(self, replicas: int) -> Schedule:
        return _Plateau(self, replicas)


class _Plateau(Schedule):
    """What one run of ``ReduceOnPlateau`` remembers, one value per replica."""

    def __init__(self, settings: ReduceOnPlateau, replicas: int) -> None:
        self.settings, self.factors = settings, np.ones(replicas)
        self.best = np.full(replicas, np.inf)
        self.bad, self.rest = np.zeros(replicas, int), np.zeros(replicas, int)

    def __call__(self, step: int, steps: int) -> np.ndarray:
        return self.factors.copy()

    def record(self, valid_loss: Any) -> None:
        own, loss = self.settings, np.reshape(valid_loss, self.best.shape)
        if np.isnan(loss).any():
            raise ValueError("schedule: expected validation data for ReduceOnPlateau, got none")
        sign = np.where(self.best < 0, -1, 1)  # a margin below it, also where the best is negative
        better = loss < self.best * (1 - sign * own.threshold)
        np.copyto(self.best, loss, where=better)
        self.bad[...] = np.where(better | (self.rest > 0), 0, self.bad + 1)
        np.maximum(self.rest - 1, 0, out=self.rest)
        late = self.bad > own.patience
        lower = np.minimum(self.factors, np.maximum(self.factors * own.factor, own.end))
        np.copyto(self.factors, lower, where=late)
        self.rest[late], self.bad[late] = own.cooldown, 0

    def memory(self) -> dict[str, np.ndarray]:
        return {name: vars(self)[name] for name in ("factors", "best", "bad", "rest")}


class _Function(Schedule):
    """A plain function as a schedule."""

    def __init__(self, function: Callable[[int, int], float]) -> None:
        self.function = function

    def __call__(self, step: int, steps: int) -> Any:
        return self.function(step, steps)


def begin(schedule: Callable[[int, int], Any] | None, replicas: int) -> Schedule:
    """Return what one run uses for a schedule, a function of (step, steps), or None (no change).

    Raises ``TypeError`` for anything else.
    """
    made = constant() if schedule is None else checks.function("schedule", schedule, _DUE)
    return made.begin(replicas) if isinstance(made, Schedule) else _Function(made)


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2 * (1 + math.cos(math.pi * share))


def _steps(length: float, steps: int) -> int:
    return max(1, round(length * steps)) if isinstance(length, float) else int(length)
