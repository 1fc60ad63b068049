r"""Initial weights: how large a random draw keeps signals and gradients alive.

Every initializer is called as ``initializer(rng, shape)`` with a host generator and a weight shape
``(fan_in, fan_out)``, or ``(height, width, fan_in, fan_out)`` where a kernel's area multiplies both
fans, and returns float64 weights with mean 0. A normal and a uniform draw of one name have equal
variance; ``uniform`` covers :math:`\pm\sqrt{3\,\mathrm{Var}}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dlcore import checks


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return ``(fan_in, fan_out)`` of a weight shape; ``ValueError`` with fewer than two axes."""
    if len(shape) < 2:
        raise ValueError(f"shape: expected (..., fan_in, fan_out), got {shape}")
    area = math.prod(shape[:-2])
    return area * shape[-2], area * shape[-1]


@dataclass(frozen=True)
class normal:
    r"""Normal weights: :math:`w \sim N(0, \sigma^2)`, with ``std`` :math:`\sigma` = 1 by default."""

    std: float = 1.0

    def __post_init__(self) -> None:
        checks.real("std", self.std, 0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.std * rng.standard_normal(shape)


@dataclass(frozen=True)
class uniform:
    r"""Uniform weights: :math:`w \sim U(-r, r)`, ``limit`` r = 0.05; variance :math:`r^2/3`."""

    limit: float = 0.05

    def __post_init__(self) -> None:
        checks.real("limit", self.limit, 0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-self.limit, self.limit, shape)


def _scaled(distribution: str, variance: Callable[[int, int], float], doc: str) -> Callable:
    def initializer(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        std = math.sqrt(variance(*fans(shape)))
        draw = normal(std) if distribution == "normal" else uniform(math.sqrt(3) * std)
        return draw(rng, shape)

    initializer.__doc__ = doc
    return initializer


_LECUN = r"Variance :math:`1/\mathrm{fan\_in}` keeps the forward variance of linear and SELU units (LeCun 1998)."
_GLOROT = (
    r"Variance :math:`2/(\mathrm{fan\_in}+\mathrm{fan\_out})`: a compromise between forward and backward, "
    "exact for linear units with equal fans (Glorot & Bengio 2010)."
)
_HE = r"Variance :math:`2/\mathrm{fan\_in}` makes up for the half that ReLU cuts away (He et al. 2015)."

lecun_normal = _scaled("normal", lambda i, o: 1 / i, _LECUN)
lecun_uniform = _scaled("uniform", lambda i, o: 1 / i, _LECUN)
glorot_normal = _scaled("normal", lambda i, o: 2 / (i + o), _GLOROT)
glorot_uniform = _scaled("uniform", lambda i, o: 2 / (i + o), _GLOROT)
he_normal = _scaled("normal", lambda i, o: 2 / i, _HE)
he_uniform = _scaled("uniform", lambda i, o: 2 / i, _HE)


@dataclass(frozen=True)
class orthogonal:
    r"""Random rotation times ``gain``: :math:`W W^\top = g^2 I` or :math:`W^\top W = g^2 I`.

    Every singular value is ``gain`` (default 1). Leading kernel axes are folded into fan_in. Drawn as
    the Q of a normal matrix's QR decomposition with the signs of R's diagonal (Saxe et al. 2014).
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        checks.real("gain", self.gain, 0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diagonal(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


#: Initializers that a layer accepts by name, with their defaults.
NAMES: dict[str, Callable] = {
    "normal": normal(),
    "uniform": uniform(),
    "lecun_normal": lecun_normal,
    "lecun_uniform": lecun_uniform,
    "glorot_normal": glorot_normal,
    "glorot_uniform": glorot_uniform,
    "he_normal": he_normal,
    "he_uniform": he_uniform,
    "orthogonal": orthogonal(),
}


def get(initializer: str | Callable) -> Callable:
    """Return an initializer from its name or itself; ``ValueError`` lists the names known."""
    if callable(initializer):
        return initializer
    if initializer not in NAMES:
        raise ValueError(f"initializer: expected one of {sorted(NAMES)}, got {initializer!r}")
    return NAMES[initializer]
