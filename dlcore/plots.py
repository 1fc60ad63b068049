"""Figures: matplotlib only, from labelled results; what lies on a device is copied to the host.

Every function draws on ``ax`` (made if not given) and returns it; it changes neither the data nor
matplotlib's settings. Bands are 95 % t intervals of the mean over ``seed``, over the values that there
are at each place: NaN counts as no value, and where one value is left there is no band. Colours are
Okabe and Ito's, which colour-blind readers can tell apart; more than seven arms differ in marker and
line style too.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy import special

from dlcore import checks, host_arrays
from dlcore.backend import to_host

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = mpl.rc_params_from_file(Path(__file__).parent / "data" / "book.mplstyle", True, False)
_LINES = ("-", "--", ":", "-.")
#: Words of a variable's name that tell which way is better.
_BETTER = {
    "higher": {"accuracy", "accuracies", "acc", "correct", "score"},
    "lower": {"loss", "losses", "error", "errors", "seconds", "steps", "perplexity", "regret"},
}


def use_style() -> None:
    """Set the book's figure style for this session (matplotlib's ``rcParams``)."""
    mpl.rcParams.update(STYLE)


def arm_style(i: int) -> dict[str, Any]:
    """Return color, marker and line style of arm number ``i``, 0, 1, …: no two arms look the same.

    The first seven differ in colour and marker and have solid lines.

    >>> arm_style(0) == {"color": "#0072B2", "marker": "o", "ls": "-"}
    True
    """
    turn, place = divmod(checks.integer("i", i, 0), len(COLORS))
    line: Any = _LINES[turn] if turn < len(_LINES) else (0, (6, 1.5) + (1, 1.5) * (turn - 2))
    return {"color": COLORS[place], "marker": MARKERS[(place + turn) % len(MARKERS)], "ls": line}


def _with_dims(name: str, data: Any, *dims: str, only: bool = False) -> Any:
    """Check the kind of labelled results and their dimensions; ``only``: there may be no others."""
    due = f"dimensions {dims}"
    checks.instance(name, data, (xr.DataArray, xr.Dataset), "an xarray.DataArray")
    found = set(data.dims)
    fits = found == set(dims) if only else found >= set(dims)
    checks.expect(fits, name, due, tuple(data.dims))
    data = to_host(data)
    for one in data.data_vars.values() if isinstance(data, xr.Dataset) else [data]:
        host_arrays.real(name, one)
    return data


def mean_band(values: Any, level: float = 0.95) -> tuple[Any, Any, Any]:
    """Return mean, low and high over ``seed``: the t interval at ``level`` of the values that there are.

    NaN counts as no value. With one value the mean stands alone, and low and high are NaN; where a value
    is infinite the mean is, too, and has no band.
    """
    values = _with_dims("values", values, "seed")
    checks.real("level", level, 0, 1, "()")
    values = values.astype(np.float64)
    n = values.notnull().sum("seed")
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean("seed")
        squares = ((values - mean) ** 2).sum("seed", skipna=True)
        deviation = np.sqrt(squares / (n - 1).where(n > 1))
        half = _t_quantile(level, n) * deviation / np.sqrt(n)
        known = np.isfinite(mean)
        return mean, (mean - half).where(known), (mean + half).where(known)


def _t_quantile(level: float, n: Any) -> Any:
    share = (1 + level) / 2
    return xr.apply_ufunc(lambda count: special.stdtrit(np.maximum(count - 1, 1), share), n)


def bands(
    data: xr.DataArray, x: str, hue: str | None = None, *, ax: Axes | None = None,
    labels: Sequence[str] | None = None, log: bool = False, runs: bool = False,
) -> Axes:  # fmt: skip
    """Draw the mean over ``seed`` against dimension ``x``, one line and band per ``hue``.

    ``log`` takes geometric means and a logarithmic axis. ``runs`` draws every seed thinly instead of
    the band. Lines differ in colour, marker and line style (`arm_style`), or are labelled by ``labels``,
    one per line. What cannot be drawn is said in the figure: a mean of one seed has no band, zero has no
    place on a logarithmic axis, and neither has an infinite mean. Raises ``ValueError`` for dimensions
    that are not there or too many, another number of labels, or negative values with ``log``.
    """
    checks.instance("data", data, xr.DataArray, "an xarray.DataArray")
    data = _with_dims("data", data, x, "seed", *([hue] if hue else []), only=True)
    groups = data[hue].values if hue else [None]
    if labels and len(labels) != len(groups):
        raise ValueError(f"labels: expected {len(groups)} labels, one per line, got {labels}")
    negative = log and bool((data < 0).any())
    checks.expect(not negative, "data", "values >= 0 for a logarithmic axis", "negative ones")
    ax = plt.subplots()[1] if ax is None else ax
    remarks: list[str] = []
    for i, group in enumerate(groups):
        one = data.isel({hue: i}) if hue else data
        text = labels[i] if labels else (None if group is None else str(group))
        remarks += _band(ax, one.dropna(x, how="all"), x, arm_style(i), text, log, runs)
    if log:
        ax.set_yscale("log")
    _remark(ax, remarks)
    return ax


def _band(
    ax: Axes, one: Any, x: str, style: dict[str, Any], label: str | None, log: bool, runs: bool
) -> list[str]:
    """Draw one arm, and return what has to be said of it."""
    mean, low, high = mean_band(_logarithm(one) if log else one)
    if log:
        mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
    at = one[x].values
    shown = np.isfinite(mean) & (mean > 0) if log else np.isfinite(mean)
    every = max(1, len(at) // 12)
    ax.plot(at, mean.where(shown), markevery=every, ms=5, label=label, **style)
    if runs:
        color = style["color"]
        drawn = one.where(np.isfinite(one))
        ax.plot(at, drawn.transpose(x, "seed"), color=color, lw=0.5, alpha=0.35)
    else:
        ax.fill_between(at, low, high, color=style["color"], alpha=0.22, lw=0)
        apart = _without_neighbours(np.isfinite(low.values))
        ax.vlines(at[apart], low[apart], high[apart], color=style["color"], alpha=0.5, lw=2)
    lone = bool((one.notnull().sum("seed") == 1).any()) and not runs
    remarks = ["no band where there is one seed"] if lone else []
    if log and bool((mean == 0).any()):
        remarks.append("means of 0 are not drawn")
    if bool(np.isinf(mean).any()):
        remarks.append("infinite means are not drawn")
    return remarks


def _without_neighbours(known: np.ndarray) -> np.ndarray:
    """Return where an interval has none beside it: a band of one place has no width to be seen."""
    padded = np.concatenate([[False], known, [False]])
    return known & ~padded[:-2] & ~padded[2:]


def _remark(ax: Axes, remarks: list[str]) -> None:
    """Write what a reader has to know in small letters inside the axes, each remark once."""
    text = "\n".join(dict.fromkeys(remarks))
    if text:
        style: dict[str, Any] = {"fontsize": "x-small", "color": "0.35", "va": "bottom"}
        ax.text(0.01, 0.01, text, transform=ax.transAxes, **style)


def layers(data: xr.DataArray, hue: str | None = None, **options: Any) -> Axes:
    """Draw a positive statistic per layer on a logarithmic axis (geometric means over ``seed``).

    ``data`` has dims ``layer``, ``seed`` and ``hue`` (default: one line); ``options`` go to ``bands``.
    """
    ax = bands(data, "layer", hue, log=True, **options)
    ax.set_xlabel("layer (1 = next to the input)")
    return ax


def lr_sensitivity(
    data: xr.DataArray, hue: str | None = None, *, better: str | None = None, **options: Any
) -> Axes:
    """Draw a result against the learning rate (logarithmic), and mark each curve's best mean.

    ``data`` has dims ``lr``, ``seed`` and ``hue``; where it has ``epoch`` the last record of each run is
    taken. ``better`` is "higher" or "lower"; by default the data's name tells: an accuracy should be
    high, a loss or an error low. Of its rates a curve can be best only where no run is missing. Raises
    ``ValueError`` where neither tells, as for an unknown name or for values that were negated, and for
    rates that are not positive. ``options`` go to ``bands``.
    """
    data = _with_dims("data", data, "lr", "seed")
    better = _better(data, better)
    positive = bool((data["lr"] > 0).all())
    checks.expect(positive, "data", "learning rates > 0 for a logarithmic axis", data["lr"].values)
    data = _last_record(data) if "epoch" in data.dims else data
    ax = bands(data, "lr", hue, **options)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    for i in range(data.sizes[hue] if hue else 1):
        best = _best(data.isel({hue: i}) if hue else data, better, bool(options.get("log")))
        if best:
            ax.plot(*best, "*", ms=15, color=arm_style(i)["color"], mec="white")
    return ax


def _better(data: xr.DataArray, given: str | None) -> str:
    """Return "higher" or "lower", as given or as the name of the data tells."""
    if given is not None:
        return checks.choice("better", given, "higher", "lower")
    words = set(re.findall("[a-z]+", str(getattr(data, "name", None)).lower()))
    found = [way for way, names in _BETTER.items() if names & words]
    due = "'higher' or 'lower', for the data's name does not tell"
    checks.expect(len(found) == 1, "better", due, f"None and {getattr(data, 'name', None)!r}")
    due = "'higher' or 'lower', for negative values may have been turned round"
    checks.expect(not bool((data < 0).any()), "better", due, f"None and {data.name!r}")
    return found[0]


def _last_record(data: xr.DataArray) -> xr.DataArray:
    """Return each run's last value that is not NaN; runs that stopped early have fewer."""
    number = xr.DataArray(np.arange(data.sizes["epoch"]), dims="epoch")
    last = number.where(data.notnull(), 0).max("epoch").astype(int)
    return data.isel(epoch=last).drop_vars(["epoch", "step"], errors="ignore")


def _best(curve: xr.DataArray, better: str, log: bool) -> tuple[float, float] | None:
    """Return rate and mean of the best rate among those with the most runs, if there is any."""
    n = curve.notnull().sum("seed")
    with np.errstate(invalid="ignore"):
        mean = (_logarithm(curve) if log else curve).mean("seed")
    mean = mean.where(np.isfinite(mean) & (n == n.max()))
    if not bool(mean.notnull().any()):
        return None
    place = int(mean.argmax("lr") if better == "higher" else mean.argmin("lr"))
    height = float(mean[place])
    return float(curve["lr"][place]), math.exp(height) if log else height


def _logarithm(data: xr.DataArray) -> xr.DataArray:
    """Return the logarithm, −inf of 0."""
    with np.errstate(divide="ignore"):
        return data.copy(data=np.log(data.values.astype(np.float64)))


def trajectories(
    paths: Any, surface: Any = None, *, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw paths ``(n, steps, 2)`` of n optimizers in the plane, over contours of ``surface``.

    ``surface`` has ``value(points)``, such as ``dlcore.datasets.ravine()`` (default: no contours).
    ``names`` labels the paths, which look as `arm_style` says; ``ax`` is drawn on, a new one by default.
    A path ends where it is not finite.
    """
    paths, many = host_arrays.real("paths", paths, "shape (n, steps, 2)"), len(names)
    good = paths.ndim == 3 and paths.shape[-1] == 2
    checks.expect(good, "paths", "shape (n, steps, 2)", paths.shape)
    checks.expect(many == len(paths), "names", f"{len(paths)} names, one per path", many)
    good = surface is None or hasattr(surface, "value")
    checks.expect(good, "surface", "a surface such as ravine()", repr(surface), TypeError)
    ax = plt.subplots()[1] if ax is None else ax
    paths = np.where(np.isfinite(paths).all(axis=-1, keepdims=True), paths, np.nan)
    for i, (path, name) in enumerate(zip(paths, names, strict=True)):
        ax.plot(*path.T, ms=3, lw=1.2, label=name, **arm_style(i))
    if surface is not None:
        _contours(ax, surface)
    return ax


def _contours(ax: Axes, surface: Any) -> None:
    """Draw a surface's contours over the whole axes, where its values are finite."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    grid = np.stack(np.meshgrid(np.linspace(left, right, 90), np.linspace(bottom, top, 90)), -1)
    with np.errstate(all="ignore"):
        height = np.ma.masked_invalid(surface.value(grid))
    if height.count() and height.min() < height.max():
        ax.contour(grid[..., 0], grid[..., 1], height, 14, colors="#999999", linewidths=0.6)
