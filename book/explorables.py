"""Data of the book's explorables, all of it computed with dlcore.

``python -m book.explorables`` computes them and stores them in ``book/data``; what trains many nets takes
minutes, and the site is built from what is stored. ``tests/test_explorables.py`` computes parts again.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dlcore as dl
from dlcore.datasets import Surface, ravine, rosenbrock, saddle

OPTIMIZERS = (dl.SGD, dl.Momentum, dl.Nesterov, dl.AdaGrad, dl.RMSProp, dl.Adam)
RATES = dl.lr_grid(0.1, 15, factor=2**0.5)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
POINTS = 50
MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95)
FOLDER = Path(__file__).parent / "data"

# Gradient flow: untrained nets.
DEPTHS = (5, 10, 20, 30)
SCALES = tuple(2.0 ** (k / 2) for k in range(-2, 9))  # standard deviation of a weight × √fan-in
FLOW_UNITS = {"tanh": dl.Tanh, "logistic": dl.Logistic, "ReLU": dl.ReLU}
FLOW_SEEDS = 10

# Accuracy against the learning rate.
METHODS = {
    "logistic, Glorot": dict(activation=dl.Logistic, initializer="glorot_normal"),
    "tanh, Glorot": dict(activation=dl.Tanh, initializer="glorot_normal"),
    "ReLU, He": dict(activation=dl.ReLU, initializer="he_normal"),
    "ELU, He": dict(activation=dl.ELU, initializer="he_normal"),
    "ReLU, He, batch norm": dict(activation=dl.ReLU, initializer="he_normal", batch_norm="before"),
}
METHOD_RATES = tuple(dl.lr_grid(0.1, 8, factor=10**0.25))
METHOD_SEEDS = 10

# Dropout.
DROPOUT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
DROPOUT_SIZES = (250, 1000, 4000)
DROPOUT_SEEDS = 8


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
    optimizer: Callable[[], dl.Optimizer],
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


def momentum_paths() -> dict[str, Any]:
    """Return momentum's paths for ``MOMENTA`` × ``FACTORS``; factor 1 is the best rate at momentum 0.9."""
    surfaces = []
    for frame in FRAMES:
        paths: list[dict[str, Any]] = []
        best = _best_rate(frame, dl.Momentum)
        for momentum in MOMENTA:
            mover = functools.partial(dl.Momentum, momentum)
            paths += _walked(frame, mover, [best * factor for factor in FACTORS])
        surfaces.append(_ground(frame) | {"best": _rounded(best, 6), "paths": paths})
    return {"factors": list(FACTORS), "momenta": list(MOMENTA), "surfaces": surfaces}


# --------------------------------------------------------------------------------------------------
# Gradient flow


def gradient_flow() -> dict[str, Any]:
    """Return log10 of the gradient's RMS in each layer of untrained nets, for units × depths × scales.

    ``measured`` is the mean over seeds, ``low`` and ``high`` the smallest and the largest; ``predicted`` is
    mean-field theory, begun at the top hidden layer's gradient and the first layer's variance.
    """
    nets = [
        {"unit": unit, "depth": depth, "scale": _rounded(scale, 3)} | flow(unit, depth, scale)
        for unit in FLOW_UNITS
        for depth in DEPTHS
        for scale in SCALES
    ]
    return {
        "units": list(FLOW_UNITS),
        "depths": list(DEPTHS),
        "scales": [_rounded(scale, 3) for scale in SCALES],
        "seeds": FLOW_SEEDS,
        "nets": nets,
    }


def flow(unit: str, depth: int, scale: float, seeds: int = FLOW_SEEDS) -> dict[str, Any]:
    """Return one entry of ``gradient_flow()``: 100 units a layer, 200 curves of MNIST-1D."""
    phi, data = FLOW_UNITS[unit], dl.datasets.mnist1d(0, train=200, test=10)

    def initializer(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.normal(0, scale / shape[-2] ** 0.5, shape)

    blueprint = dl.mlp([40] + [100] * depth + [10], activation=phi, initializer=initializer)
    backend = dl.get_backend("numpy", "float64")
    with dl.backend.one_blas_thread():
        nets = dl.Network(blueprint, seeds=range(seeds), backend=backend)
        seen = dl.probes.signals(nets, data.x_train, data.y_train)
    delta = np.log10(np.maximum(seen.delta_rms.transpose("seed", "layer").values[:, :-1], 1e-99))
    q = dl.meanfield.variances(phi(), float(seen.variance.mean("seed")[0]), depth, scale)
    factors = np.log10([max(dl.meanfield.chi(phi(), v, scale), 1e-99) for v in q[:-1]]) / 2
    top = delta[:, -1].mean()
    predicted = top + np.append(np.cumsum(factors[::-1])[::-1], 0.0)
    rows = {"measured": delta.mean(0), "low": delta.min(0), "high": delta.max(0)}
    return {
        name: [round(float(v), 2) for v in row]
        for name, row in (rows | {"predicted": predicted}).items()
    }


# --------------------------------------------------------------------------------------------------
# Accuracy against learning rate and against dropout


def learning_rates() -> dict[str, Any]:
    """Return validation accuracies in percent, ``methods × rates × seeds``, after 400 steps of 50."""
    return {
        "methods": list(METHODS),
        "rates": [_rounded(rate, 3) for rate in METHOD_RATES],
        "accuracy": [accuracies(method, METHOD_RATES, range(METHOD_SEEDS)) for method in METHODS],
    }


def accuracies(method: str, rates: Any, seeds: Any) -> list[list[float]]:
    """Return validation accuracies ``rates × seeds`` of one method: 5 hidden layers of 50, plain descent."""
    runs = dl.sweep(
        dl.mlp([40] + [50] * 5 + [10], **METHODS[method]), _draw, optimizer=dl.SGD,
        lr=list(rates), seeds=list(seeds), steps=400, batch_size=50, backend="numpy", shard=20,
    )  # fmt: skip
    return _percent(runs.valid_accuracy.isel(epoch=-1).transpose("lr", "seed"))


def dropout_rates() -> dict[str, Any]:
    """Return accuracies in percent on training and validation data, ``sizes × rates × seeds``."""
    found = [dropped(size, DROPOUT_RATES, range(DROPOUT_SEEDS)) for size in DROPOUT_SIZES]
    return {
        "sizes": list(DROPOUT_SIZES),
        "rates": list(DROPOUT_RATES),
        "train": [train for train, _ in found],
        "valid": [valid for _, valid in found],
    }


def dropped(size: int, rates: Any, seeds: Any) -> tuple[list[list[float]], list[list[float]]]:
    """Return accuracies ``rates × seeds`` on training and validation data, after 1,500 steps of 50.

    Two hidden layers of 100 ReLUs, momentum, ``size`` curves of MNIST-1D to train with.
    """
    seeds, found = list(seeds), []
    data = {seed: _draw(seed, size) for seed in seeds}
    with dl.backend.one_blas_thread():
        for rate in rates:
            blueprint = dl.mlp([40, 100, 100, 10], dropout=rate)
            nets = dl.Network(blueprint, seeds=seeds, backend="numpy")
            dl.fit(
                nets, data, dl.Momentum, lr=0.03, steps=1500, batch_size=50, evaluate_every=10**6
            )
            found.append([100 * dl.evaluate(nets, data, part)[1] for part in ("train", "valid")])
    return tuple([[round(float(v), 1) for v in row[part]] for row in found] for part in (0, 1))


@functools.cache
def _draw(seed: int, train: int = 4000) -> dl.datasets.Dataset:
    return dl.datasets.mnist1d(seed, train=train, valid=1000, test=10)


def _percent(values: Any) -> list[list[float]]:
    return [[round(float(100 * v), 1) for v in row] for row in values.values]


# --------------------------------------------------------------------------------------------------
# Files

#: What can be played with, by name.
EXPLORABLES = {
    "gradient-flow": gradient_flow,
    "optimizer-paths": optimizer_paths,
    "momentum": momentum_paths,
    "learning-rates": learning_rates,
    "dropout": dropout_rates,
}


def as_json(data: dict[str, Any]) -> str:
    """Return compact JSON."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n"


def read(name: str) -> dict[str, Any]:
    """Return what is stored for one explorable."""
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def main(arguments: list[str] | None = None) -> int:
    """Command line: names of explorables, by default all; computes and stores them."""
    for name in (sys.argv[1:] if arguments is None else arguments) or EXPLORABLES:
        text = as_json(EXPLORABLES[name]())
        (FOLDER / f"{name}.json").write_text(text, "utf-8")
        print(f"{name}: {len(text.encode()):,} bytes", flush=True)
    return 0


def _surface(frame: Frame) -> dict[str, Any]:
    paths = [path for optimizer in OPTIMIZERS for path in _paths(frame, optimizer)]
    return _ground(frame) | {"paths": paths}


def _ground(frame: Frame) -> dict[str, Any]:
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
    }


def _paths(frame: Frame, optimizer: type[dl.Optimizer]) -> list[dict[str, Any]]:
    best = _best_rate(frame, optimizer)
    walked = _walked(frame, optimizer, [best * factor for factor in FACTORS])
    return [{"optimizer": optimizer.__name__} | path for path in walked]


def _best_rate(frame: Frame, optimizer: Callable[[], dl.Optimizer]) -> float:
    surface, steps = frame.surface, frame.every * POINTS
    rates = [rate for rate in RATES if rate <= frame.largest]
    tried = walk(optimizer, surface.gradient, surface.start, rates, steps)
    stays = [len(_inside(frame, path)) == len(path) for path in tried]
    ends = [
        surface.value(path[-1]) if stay else np.inf for path, stay in zip(tried, stays, strict=True)
    ]
    return rates[int(np.argmin(ends))]


def _walked(
    frame: Frame, optimizer: Callable[[], dl.Optimizer], rates: list[float]
) -> list[dict[str, Any]]:
    surface, steps = frame.surface, frame.every * POINTS
    walked = walk(optimizer, surface.gradient, surface.start, rates, steps)[:, :: frame.every]
    return [
        {
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


if __name__ == "__main__":
    sys.exit(main())
