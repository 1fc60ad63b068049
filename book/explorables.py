"""Data of the book's explorables, computed with dlcore when the site is built.

``optimizer_paths()`` is what the chapter on optimizers lets a reader play with: six optimizers on
three surfaces, each at five learning rates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import dlcore as dl
from dlcore.datasets import Surface, ravine, rosenbrock, saddle

OPTIMIZERS = (dl.SGD, dl.Momentum, dl.Nesterov, dl.AdaGrad, dl.RMSProp, dl.Adam)
RATES = dl.lr_grid(0.1, 15, factor=2**0.5)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
POINTS = 50


class Frame(NamedTuple):
    """A surface, the part of the plane that is shown, steps between two points, the largest rate tried.

    The saddle's limit keeps optimizers from leaping into the minimum at once: there is nothing to see.
    """

    surface: Surface
    x: tuple[float, float]
    y: tuple[float, float]
    every: int
    largest: float


FRAMES = (
    Frame(ravine(condition=50), (-11, 11), (-3, 3), 1, 1.0),
    Frame(saddle(), (-1.5, 1.5), (-1.5, 1.5), 1, 0.2),
    Frame(rosenbrock(), (-2, 2), (-1, 3), 4, 1.0),
)


class Point(dl.Layer):
    """A point in space, as a layer without input, so that dlcore's optimizers can move it."""

    def __init__(self, start: Any) -> None:
        self.start = np.asarray(start, dtype=float)
        self.shapes = {"x": self.start.shape}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the start; nothing is drawn."""
        return {"x": self.start}


def walk(
    optimizer: type[dl.Optimizer],
    gradient: Callable[[np.ndarray], np.ndarray],
    start: Any,
    rates: Any,
    steps: int,
) -> np.ndarray:
    """Return the paths ``(rates, steps + 1, dimensions)`` from ``start``, one for each learning rate."""
    backend = dl.get_backend("numpy", "float64")
    net = dl.Network([Point(start)], seeds=range(len(rates)), backend=backend)
    mover, layer, path = optimizer().bind(net), net.layers[0], [net.layers[0].x.copy()]
    with backend.quiet():
        for _ in range(steps):
            layer.dx[...] = gradient(layer.x)
            mover.step(np.asarray(rates, dtype=float))
            path.append(layer.x.copy())
    return np.stack(path, axis=1)


def optimizer_paths() -> dict[str, Any]:
    """Return surfaces with values on a grid, and each optimizer's paths at its best rate times ``FACTORS``.

    The best rate has the lowest value at the end, among those (at most the surface's ``largest``) whose
    path stays inside the frame. Other paths end where they leave it.
    """
    return {"factors": list(FACTORS), "surfaces": [_surface(frame) for frame in FRAMES]}


def as_json() -> str:
    """Return ``optimizer_paths()`` as compact JSON."""
    return json.dumps(optimizer_paths(), separators=(",", ":"), allow_nan=False)


def _surface(frame: Frame) -> dict[str, Any]:
    surface = frame.surface
    across, up = np.linspace(*frame.x, 41), np.linspace(*frame.y, 25)
    grid = np.stack(np.meshgrid(across, up), axis=-1)
    return {
        "name": surface.name,
        "x": list(frame.x),
        "y": list(frame.y),
        "start": list(surface.start),
        "minimum": list(surface.minimum),
        "every": frame.every,
        "values": [[_rounded(v, 3) for v in row] for row in surface.value(grid)],
        "paths": [path for optimizer in OPTIMIZERS for path in _paths(frame, optimizer)],
    }


def _paths(frame: Frame, optimizer: type[dl.Optimizer]) -> list[dict[str, Any]]:
    surface, steps = frame.surface, frame.every * POINTS
    rates = [rate for rate in RATES if rate <= frame.largest]
    tried = walk(optimizer, surface.gradient, surface.start, rates, steps)
    stays = [len(_inside(frame, path)) == len(path) for path in tried]
    ends = [
        surface.value(path[-1]) if stay else np.inf for path, stay in zip(tried, stays, strict=True)
    ]
    rates = [rates[int(np.argmin(ends))] * factor for factor in FACTORS]
    walked = walk(optimizer, surface.gradient, surface.start, rates, steps)[:, :: frame.every]
    return [
        {
            "optimizer": optimizer.__name__,
            "rate": _rounded(rate, 6),
            "points": [[_rounded(v, 4) for v in point] for point in _inside(frame, path)],
        }
        for rate, path in zip(rates, walked, strict=True)
    ]


def _inside(frame: Frame, path: np.ndarray) -> np.ndarray:
    """Return the path up to its first point outside of the frame."""
    low, high = np.array([frame.x, frame.y]).T
    out = ~((path >= low) & (path <= high)).all(axis=-1)
    return path[: int(out.argmax())] if out.any() else path


def _rounded(value: float, digits: int) -> float:
    return round(float(f"{value:.{digits}g}"), 6)
