"""Figures: matplotlib only, from labelled results; what lies on a device is copied to the host.

Every function draws on ``ax`` (made if not given) and returns it. Bands are 95 % t intervals of the
mean over ``seed``. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from scipy import stats

from dlcore import checks
from dlcore.backend import to_host

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = mpl.rc_params_from_file(Path(__file__).parent / "data" / "book.mplstyle", True, False)


def use_style() -> None:
    """Set the book's figure style for this session (matplotlib's ``rcParams``)."""
    mpl.rcParams.update(STYLE)


def _with_dims(name: str, data: Any, *dims: str) -> Any:
    due, kinds = f"dimensions {dims}", (xr.DataArray, xr.Dataset)
    found = checks.instance(name, data, kinds, "an xarray.DataArray").dims
    checks.expect(set(dims) <= set(found), name, due, tuple(found))
    return to_host(data)


def mean_band(values: Any, level: float = 0.95) -> tuple[Any, Any, Any]:
    """Return mean, low and high over ``seed``: the t interval at ``level``."""
    values = _with_dims("values", values, "seed")
    n = values.sizes["seed"]
    checks.real("level", level, 0, 1, "()")
    mean = values.mean("seed")
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std("seed", ddof=min(n - 1, 1)) / np.sqrt(n)
    return mean, mean - half, mean + half


def bands(
    data: xr.DataArray, x: str, hue: str | None = None, *, ax: Axes | None = None,
    labels: Sequence[str] | None = None, log: bool = False, runs: bool = False,
) -> Axes:  # fmt: skip
    """Draw the mean over ``seed`` against dimension ``x``, one line and band per ``hue``.

    ``log`` takes geometric means and a logarithmic axis. ``runs`` draws every seed thinly instead of
    the band. Lines differ in colour and marker, or are labelled by ``labels``, one per line. Raises
    ``ValueError`` for dimensions that are not there, or another number of labels.
    """
    data = _with_dims("data", data, x, "seed", *([hue] if hue else []))
    groups = data[hue].values if hue else [None]
    if labels and len(labels) != len(groups):
        raise ValueError(f"labels: expected {len(groups)} labels, one per line, got {labels}")
    ax = ax or plt.subplots()[1]
    for i, group in enumerate(groups):
        one = data.sel({hue: group}) if hue else data
        one = one.dropna(x, how="all")
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        mean, low, high = mean_band(np.log(one) if log else one)
        if log:
            mean, low, high = np.exp(mean), np.exp(low), np.exp(high)
        at = one[x].values
        text = labels[i] if labels else (None if group is None else str(group))
        every = max(1, len(at) // 12)
        ax.plot(at, mean, color=color, marker=marker, markevery=every, ms=5, label=text)
        if runs:
            ax.plot(at, one.transpose(x, "seed"), color=color, lw=0.5, alpha=0.35)
        else:
            ax.fill_between(at, low, high, color=color, alpha=0.22, lw=0)
    if log:
        ax.set_yscale("log")
    return ax


def layers(data: xr.DataArray, hue: str | None = None, **options: Any) -> Axes:
    """Draw a positive statistic per layer on a logarithmic axis (geometric means over ``seed``).

    ``data`` has dims ``layer``, ``seed`` and ``hue`` (default: one line); ``options`` go to ``bands``.
    """
    ax = bands(data, "layer", hue, log=True, **options)
    ax.set_xlabel("layer (1 = next to the input)")
    return ax


def lr_sensitivity(data: xr.DataArray, hue: str | None = None, **options: Any) -> Axes:
    """Draw a result against the learning rate (logarithmic), and mark each curve's best mean.

    ``data`` has dims ``lr``, ``seed`` and ``hue``; where it has ``epoch`` the last one is taken.
    """
    data = _with_dims("data", data, "lr", "seed")
    data = data.isel(epoch=-1) if "epoch" in data.dims else data
    ax = bands(data, "lr", hue, **options)
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    for i, group in enumerate(data[hue].values if hue else [None]):
        mean = (data.sel({hue: group}) if hue else data).mean("seed")
        best = mean.idxmax("lr")
        ax.plot(best, mean.max(), "*", ms=15, color=COLORS[i % len(COLORS)], mec="white")
    return ax


def trajectories(
    paths: Any, surface: Any = None, *, names: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw paths ``(n, steps, 2)`` of n optimizers in the plane, over contours of ``surface``.

    ``surface`` has ``value(points)``, such as ``dlcore.datasets.ravine()`` (default: no contours).
    ``names`` labels the paths; ``ax`` is drawn on, a new one by default.
    """
    paths, many = np.asarray(to_host(paths)), len(names)
    good = paths.ndim == 3 and paths.shape[-1] == 2
    checks.expect(good, "paths", "shape (n, steps, 2)", paths.shape)
    checks.expect(many == len(paths), "names", f"{len(paths)} names, one per path", many)
    good = surface is None or hasattr(surface, "value")
    checks.expect(good, "surface", "a surface such as ravine()", repr(surface), TypeError)
    ax = ax or plt.subplots()[1]
    for i, (path, name) in enumerate(zip(paths, names, strict=True)):
        ax.plot(*path.T, marker=MARKERS[i], ms=3, lw=1.2, color=COLORS[i], label=name)
    if surface is not None:
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        grid = np.stack(np.meshgrid(np.linspace(left, right, 90), np.linspace(bottom, top, 90)), -1)
        x, y, z = grid[..., 0], grid[..., 1], surface.value(grid)
        ax.contour(x, y, z, 14, colors="#999999", linewidths=0.6)
    return ax
