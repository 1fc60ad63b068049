"""Intervals and verdicts: what turns the numbers of an experiment into a word.

Every function takes arrays (NumPy, xarray or the device's, which are copied) with one value per seed,
and refuses NaN: a run that diverged counts at chance accuracy, it is never left out.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dlcore import arithmetic, checks
from dlcore.backend import to_host

ARRIVED = 0.9  # share of runs that must reach the target before a ratio is more than a bound
CLEAR = 0.25  # margin, in half-widths, that a verdict needs: rounding alone moves a mean by less
MIME = "application/vnd.dlcore.verdict+json"
UNSIGNED = ("times", "share")  # units in which a plus sign would mislead


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval from ``low`` to ``high`` at ``level``, over ``n`` values.

    ``mean``, ``low`` and ``high`` are floats, or arrays of one shape where ``axis`` was given.
    An end that is not known is ``inf`` (or 0 for the low end of a ratio).
    """

    mean: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray
    n: int
    level: float


def interval(values: ArrayLike, level: float = 0.95, axis: int | str | None = None) -> Interval:
    """Student's t interval of the mean over seeds.

    ``mean ± t s / sqrt(n)``, s the sample standard deviation (n - 1), t the quantile
    (1 + level) / 2 with n - 1 degrees of freedom.

    Shapes: values ``(n,)``. With ``axis`` (a number, or a dimension's name for xarray) any shape,
    and mean, low, high have that shape without the axis: the bands of a figure.
    Raises ValueError for NaN, infinity, fewer than two seeds, or a second axis without ``axis``.
    Source: Student, Biometrika 6, 1908.
    """
    if isinstance(axis, str):
        if axis not in getattr(values, "dims", ()):
            came = type(values).__name__
            raise TypeError(f"axis: expected an xarray with dimension {axis!r}, got {came}")
        axis = int(values.get_axis_num(axis))  # type: ignore[union-attr]
    x = _array("values", values, ndim=1 if axis is None else None)
    axis = checks.integer("axis", axis or 0, -x.ndim)
    checks.expect(axis < x.ndim, "axis", f"an axis of shape {x.shape}", axis)
    n = x.shape[axis]
    half = _t(level, n) * x.std(axis=axis, ddof=1) / math.sqrt(n)
    return _interval(x.mean(axis=axis), half, n, level)


def paired_difference(
    a: ArrayLike, b: ArrayLike, level: float = 0.95, axis: int | None = None
) -> Interval:
    """t interval of ``a - b``, run by run: a and b come from the same seeds in the same order.

    ``level`` and ``axis`` as in `interval`. Shapes: a and b ``(n,)``, or any one shape with ``axis``.
    Raises ValueError as `interval` does, and where the shapes differ.
    """
    a, b = _pair(a, b, ndim=1 if axis is None else None)
    return interval(a - b, level, axis)


def ratio(
    a: ArrayLike | Steps, b: ArrayLike | Steps, level: float = 0.95, median: bool = False
) -> Interval:
    """Interval of the ratio ``a / b`` of positive values paired by seed or by timing round.

    The t interval of ``log a - log b``, put through exp: the mean is the geometric mean ratio.
    ``median=True`` gives the median ratio between the order statistics k and n + 1 - k, with the
    largest k for which ``2 P(Binomial(n, 1/2) < k) <= 1 - level``; no outlier can move it.

    With `Steps`, an arm that fewer than 90 % of the runs finish leaves only a bound: too few
    in ``a``, and high is inf (the ratio is at least this); too few in ``b``, and low is 0.

    Shapes: a and b ``(n,)``. Raises ValueError for values that are not positive, shapes that
    differ, NaN, fewer than two values, or too few for a median at this level.
    """
    one, two = (getattr(to_host(arm), "values", arm) for arm in (a, b))
    x, y = _pair(one, two, ndim=1)
    if min(x.min(), y.min()) <= 0:
        raise ValueError(f"a and b: expected positive values, got {min(x.min(), y.min()):g}")
    if median:
        result = _median(x / y, level)
    else:
        log = interval(np.log(x / y), level)
        mean, low, high = (math.exp(v) for v in (log.mean, log.low, log.high))
        result = Interval(mean, low, high, log.n, level)
    missed = [isinstance(arm, Steps) and arm.reached < ARRIVED for arm in (a, b)]
    ends = math.inf if missed[0] else result.high, 0.0 if missed[1] else result.low
    return replace(result, high=ends[0], low=ends[1])


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share, ``mean = p = successes / n``.

    ``(p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n)``, z the normal quantile
    (1 + level) / 2. It stays inside [0, 1] and is not empty at 0 or n successes.

    Raises ValueError unless ``0 <= successes <= n`` and ``n >= 1``.
    Source: E. B. Wilson, J. American Statistical Association 22, 1927.
    """
    checks.real("successes", successes, 0, checks.real("n", n, 1))
    p, z = float(successes / n), float(stats.norm.ppf(_quantile(level)))
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    # min and max: at 0 and n successes rounding can pass the exact end
    low, high = min(p, (centre - half) / scale), max(p, (centre + half) / scale)
    return Interval(p, max(0.0, low), min(1.0, high), int(n), level)


def crossed_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, images: ArrayLike | None = None,
    level: float = 0.95, resamples: int = 2000, seed: int = 0,
) -> Interval:  # fmt: skip
    """Interval of mean(a - b) over seeds and test images: the wider of two.

    ``mean ± t max(se of seeds alone, se of the crossed bootstrap)`` with the t quantile of
    n seeds. The crossed bootstrap draws seeds and images, each with replacement, and takes the
    mean over the drawn seeds of the drawn images; its se is the spread of these means. The
    percentiles are not used: from few seeds they are too narrow, at a high level too noisy.

    Shapes: correct_a, correct_b ``(seeds, examples)``, 0 or 1 (100 for a result in points).
    images ``(seeds, examples)``: which image each value belongs to, where every seed has its
    own test split; without it column j is the same image for all seeds.
    ``level`` (default 0.95), ``resamples`` (2000, at least 100), ``seed`` of the draws (0).
    Raises ValueError for shapes that differ, NaN, or fewer than two seeds or images.
    Source: A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007.
    """
    a, b = _pair(correct_a, correct_b, ndim=2)
    difference = a - b
    alone = interval(difference.mean(axis=1), level)
    checks.integer("resamples", resamples, 100)
    ids = (
        np.broadcast_to(np.arange(a.shape[1]), a.shape)
        if images is None
        else np.asarray(to_host(images))
    )
    checks.expect(ids.shape == a.shape, "images", f"shape {a.shape}", ids.shape)
    draws = np.random.default_rng(checks.integer("seed", seed, 0))
    means = _resampled_means(difference, ids, resamples, draws)
    half = max(alone.high - alone.mean, _t(level, alone.n) * means.std(ddof=1))
    return _interval(alone.mean, half, alone.n, level)


def _resampled_means(values, ids, resamples, rng) -> np.ndarray:
    """Means of ``values`` (seeds, examples) with both axes drawn anew, ``(resamples,)``."""
    seeds = len(values)
    names, column = np.unique(ids, return_inverse=True)
    images = len(names)
    checks.expect(images >= 2, "images", "at least two test images", "one")
    cell = (column.reshape(ids.shape) + images * np.arange(seeds)[:, None]).ravel()
    sums = np.bincount(cell, values.ravel(), minlength=seeds * images).reshape(seeds, images)
    counts = np.bincount(cell, minlength=seeds * images).reshape(seeds, images)
    table = np.concatenate([sums, counts]).T.astype(float)
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = np.empty(resamples)
    block = max(1, 2_000_000 // images)  # bounds the memory
    for start in range(0, resamples, block):
        w = weights[start : start + block]
        drawn = rng.integers(images, size=(len(w), images)) + images * np.arange(len(w))[:, None]
        times = np.bincount(drawn.astype(np.intp).ravel(), minlength=drawn.size).reshape(len(w), -1)
        total, number = np.einsum("rps,rs->pr", (times @ table).reshape(len(w), 2, seeds), w)
        checks.expect(number.all(), "images", "more per seed", "a resample without a seed's own")
        means[start : start + block] = total / number
    return means


@dataclass(frozen=True)
class Steps:
    """Steps to a target, one value per seed; a run that missed it counts as ``budget + 1``.

    The restricted mean with its interval is ``interval(steps.values)``.
    """

    values: np.ndarray
    budget: float

    @property
    def arrived(self) -> int:
        """Number of runs that reached the target."""
        return int(np.sum(self.values <= self.budget))

    @property
    def reached(self) -> float:
        """Share of runs that reached the target."""
        return self.arrived / len(self.values)

    @property
    def median(self) -> float:
        """Median over seeds; above the budget where fewer than half of the runs arrived."""
        return float(np.median(self.values))


def steps_to_target(
    curve: ArrayLike, target: float, at: ArrayLike, budget: float | None = None
) -> Steps:
    """First step at which each run's curve is at least ``target``, within ``budget`` steps.

    Shapes: curve ``(seeds, evaluations)``, say an accuracy; at ``(evaluations,)``, the rising
    step or epoch of each. Default budget: the last of ``at``. For a loss pass both negated.
    Raises ValueError for NaN, shapes that do not fit, ``at`` not rising, a budget past its end.
    """
    x, at = _array("curve", curve, ndim=2), _array("at", at, ndim=1)
    n = x.shape[1]
    checks.expect(n == len(at), "at", f"{n} steps, one per evaluation", len(at))
    checks.expect(np.all(np.diff(at) > 0), "at", "rising steps", at)
    budget = checks.real("budget", at[-1] if budget is None else budget, at[0], at[-1])
    there = (x >= checks.real("target", target, -math.inf, ends="()")) & (at <= budget)
    return Steps(np.where(there.any(axis=1), at[there.argmax(axis=1)], budget + 1), float(budget))


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim; its line is ``str(v)``, its record ``v.record()``.

    ``word`` is holds, fails, depends or undecided. ``threshold`` is for instance
    ``{"at_least": 20.0}``. ``margin`` is the distance from the threshold to the nearer end of the
    interval, negative inside it. With conditions, ``parts`` has one Verdict for each by name,
    and effect, low, high and margin are None. ``size`` is full (default), quick or large.
    ``arithmetic`` names the bits it was made in, see `dlcore.arithmetic`.
    """

    id: str
    claim: str
    word: str
    effect: float | None
    unit: str
    low: float | None
    high: float | None
    seeds: int
    data: str
    machine: str
    threshold: dict[str, float]
    margin: float | None
    level: float
    size: str = "full"
    arithmetic: str = ""
    parts: dict[str, Verdict] = field(default_factory=dict)

    def __str__(self) -> str:
        quick = f" (quick look, {self.seeds} seeds)" if self.size == "quick" else ""
        lines = [f"{self.id} {self.word}{quick}: {self.claim}; {_summary(self)}"]
        lines += [f"  {name}: {v.word}; {_summary(v)}" for name, v in self.parts.items()]
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The verdict as plain JSON values, numbers to six digits; an unknown end is None."""
        record = {f.name: _rounded(getattr(self, f.name)) for f in fields(self)}
        record["verdict"] = record.pop("word")
        record["parts"] = {name: part.record() for name, part in self.parts.items()}
        return record

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        return {"text/plain": str(self), MIME: self.record()}


def verdict(
    id: str, claim: str, effect: ArrayLike | Interval | Mapping[str, ArrayLike | Interval], *,
    at_least: float | None = None, at_most: float | None = None, within: float | None = None,
    unit: str = "", comparisons: int = 1, joint: bool = False, data: str = "", size: str = "full",
) -> Verdict:  # fmt: skip
    """Judge a claim by the interval of its effect, at level ``1 - 0.05 / m``.

    - ``at_least=d`` holds where the interval lies wholly above d, fails where wholly below;
      ``at_most=d`` the other way round.
    - ``within=d``, a claim of no effect, holds where the interval lies inside (-d, d), fails where
      wholly outside.
    - Else the word is undecided; also where the margin between the interval's end and d is less
      than a quarter of the half-width on that side, so that rounding does not turn a verdict.
    - A mapping of conditions, named before the result, to effects: all hold, all fail, or depends
      where at least one holds and at least one fails; else undecided. With ``joint=True`` the
      claim is that all of them hold, and one that fails refutes it.

    m is ``comparisons``, or the number of conditions if that is more. An effect is one value per
    seed ``(n,)``, or an `Interval` of that level. ``unit`` "times" or "share" prints no plus signs.
    ``data`` names the data set in the record. ``size="quick"`` marks the line as a quick look.

    Raises ValueError unless exactly one threshold is given and id is a capital, digits and at
    most one small letter; for NaN, too few seeds, or an Interval of another level.
    """
    if not re.fullmatch(r"[A-Z][0-9]+[a-z]?", str(id)):
        raise ValueError(f"id: expected a capital and digits, such as G1 or G1a, got {id!r}")
    rules = {"at_least": at_least, "at_most": at_most, "within": within}
    low = {"at_least": -math.inf, "at_most": -math.inf, "within": 0.0}
    given = {name: d for name, d in rules.items() if d is not None}
    threshold = {name: checks.real(name, d, low[name], ends="()") for name, d in given.items()}
    checks.expect(len(threshold) == 1, ", ".join(rules), "exactly one of them", threshold)
    checks.choice("size", size, "quick", "full", "large")
    conditions = effect if isinstance(effect, Mapping) else {}
    if not conditions and (joint or isinstance(effect, Mapping)):
        raise ValueError(f"effect: expected a mapping with at least one condition, got {effect!r}")
    checks.integer("comparisons", comparisons, 1)
    level = 1 - 0.05 / max(comparisons, len(conditions))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, NumPy {np.__version__}"
    common: dict[str, Any] = dict(
        id=id, claim=claim, unit=unit, data=data, size=size,
        machine=machine, threshold=threshold, level=level, arithmetic=arithmetic.describe(),
    )  # fmt: skip
    if not conditions:
        return Verdict(**common, **_judge("effect", effect, level, threshold))
    parts = {
        str(name): Verdict(**common, **_judge(f"effect[{name!r}]", e, level, threshold))
        for name, e in conditions.items()
    }
    return Verdict(
        **common,
        word=_join({v.word for v in parts.values()}, joint),
        seeds=min(v.seeds for v in parts.values()),
        effect=None, low=None, high=None, margin=None, parts=parts,
    )  # fmt: skip


def _judge(name, effect, level, threshold) -> dict[str, Any]:
    """The fields of a Verdict that one effect decides."""
    i = effect if isinstance(effect, Interval) else interval(_array(name, effect, 1), level)
    same = math.isclose(i.level, level, rel_tol=1e-9)
    checks.expect(same, name, f"an Interval at level {level:.6g}", f"{i.level:.6g}")
    good = np.ndim(i.mean) == 0 and math.isfinite(i.mean) and i.low <= i.mean <= i.high
    checks.expect(good, name, "one Interval with low <= mean <= high", i)

    def above(d):  # margin, half-width on that side
        return i.low - d, i.mean - i.low

    def below(d):
        return d - i.high, i.high - i.mean

    def clear(end):
        margin, half = end
        return margin > 0 and margin >= CLEAR * half

    ((rule, d),) = threshold.items()
    holds, fails = {
        "at_least": ([above(d)], [below(d)]),
        "at_most": ([below(d)], [above(d)]),
        "within": ([above(-d), below(d)], [above(d), below(-d)]),
    }[rule]
    word = "holds" if all(map(clear, holds)) else "fails" if any(map(clear, fails)) else "undecided"
    margin = max(min(holds)[0], max(fails)[0])
    return dict(word=word, effect=i.mean, low=i.low, high=i.high, margin=margin, seeds=i.n)


def _join(words: set[str], joint: bool) -> str:
    if len(words) == 1:
        return words.pop()
    if "fails" in words and joint:
        return "fails"
    return "depends" if {"holds", "fails"} <= words else "undecided"


def _summary(v: Verdict) -> str:
    ((rule, d),) = v.threshold.items()
    if v.parts:
        return f"{len(v.parts)} conditions, {v.seeds} seeds"
    sign = "" if v.unit in UNSIGNED else "+"
    effect, low, high, margin = _formatted(v, sign)
    against = f"no effect (±{d:g})" if rule == "within" else f"{rule.replace('_', ' ')} {d:{sign}g}"
    level = f"{100 * v.level:.{3 if v.level < 0.999 else 5}g} %"
    return (
        f"effect {effect}{v.unit and ' ' + v.unit}, {level} interval [{low}, {high}] "
        f"against {against}, {v.seeds} seeds, margin {margin}"
    )


def _formatted(v, sign) -> list[str]:
    """Effect, low, high and margin to the second digit of the half-width."""
    half = min(v.effect - v.low, v.high - v.effect) or (v.high - v.low) / 2
    digits = 1 - math.floor(math.log10(half)) if 0 < half < math.inf else 2
    style = f".{max(0, digits)}f" if digits <= 6 else ".3g"
    numbers = [f"{x:{sign}z{style}}" for x in (v.effect, v.low, v.high)]
    return [*numbers, f"{v.margin:+z{style}}"]


def _rounded(x):
    if not isinstance(x, float):
        return x
    return float(f"{x:.6g}") if math.isfinite(x) else None


def _interval(mean, half, n, level) -> Interval:
    number = float if np.ndim(mean) == 0 else np.asarray
    return Interval(number(mean), number(mean - half), number(mean + half), int(n), level)


def _median(x: np.ndarray, level: float) -> Interval:
    n, tail = len(x), 1 - _quantile(level)
    k = int(stats.binom.ppf(tail, n, 0.5))
    k += bool(stats.binom.cdf(k, n, 0.5) <= tail)  # ppf is the first k with cdf >= tail
    due = f"more than {n} values for a median at level {level:.6g}"
    checks.expect(k >= 1, "a and b", due, n)
    ordered = np.sort(x)
    return Interval(float(np.median(x)), float(ordered[k - 1]), float(ordered[n - k]), n, level)


def _quantile(level: float) -> float:
    return (1 + checks.real("level", level, 0, 1, "()")) / 2


def _t(level: float, n: int) -> float:
    checks.expect(n >= 2, "values", "at least two seeds", n)
    return float(stats.t.ppf(_quantile(level), n - 1))


def _pair(a, b, ndim) -> tuple[np.ndarray, np.ndarray]:
    a, b = _array("a", a, ndim), _array("b", b, ndim)
    checks.expect(a.shape == b.shape, "a and b", "one shape", f"{a.shape} and {b.shape}")
    return a, b


def _array(name: str, values: ArrayLike, ndim: int | None = None) -> np.ndarray:
    try:
        x = np.asarray(to_host(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {type(values).__name__}") from error
    fits = x.ndim == ndim if ndim else x.ndim > 0
    checks.expect(fits, name, f"{ndim or 'some'} axes", f"shape {x.shape}")
    bad, advice = np.sum(~np.isfinite(x)), "count a diverged run at chance, do not leave it out"
    checks.expect(bad == 0, name, "finite numbers", f"{bad} NaN or infinite; {advice}")
    return x
