r"""Initial weights: how large a random draw keeps signals and gradients alive.

Every initializer is called as ``initializer(rng, shape)`` with a host generator and a weight shape
``(fan_in, fan_out)``, or ``(height, width, fan_in, fan_out)`` where a kernel's area multiplies both
fans, and returns float64 weights with mean 0. A normal and a uniform draw of one name have equal
variance; ``uniform`` covers :math:`\pm\sqrt{3\,\mathrm{Var}}`.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dlcore import checks
from dlcore.backend import one_blas_thread


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return ``(fan_in, fan_out)`` of a weight shape; ``ValueError`` with fewer than two axes."""
    checks.expect(np.ndim(shape) == 1 and len(shape) >= 2, "shape", "(..., fan_in, fan_out)", shape)
    area = math.prod(shape[:-2])
    return area * shape[-2], area * shape[-1]


@dataclass(frozen=True)
class normal(checks.Checked):
    r"""Normal weights: :math:`w \sim N(0, \sigma^2)`, with ``std`` :math:`\sigma` = 1 by default."""

    std: float = checks.checked(checks.real, 0, default=1.0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return self.std * rng.standard_normal(shape)


@dataclass(frozen=True)
class uniform(checks.Checked):
    r"""Uniform weights: :math:`w \sim U(-r, r)`, ``limit`` r = 0.05; variance :math:`r^2/3`."""

    limit: float = checks.checked(checks.real, 0, sys.float_info.max / 2, default=0.05)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.uniform(-self.limit, self.limit, shape)


def _scaled(distribution: str, variance: Callable[[int, int], float]) -> Callable:
    def initializer(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        std = math.sqrt(variance(*fans(shape)))
        draw = normal(std) if distribution == "normal" else uniform(math.sqrt(3) * std)
        return draw(rng, shape)

    initializer.__doc__ = variance.__doc__
    initializer.__name__ = initializer.__qualname__ = f"{variance.__name__[1:]}_{distribution}"
    return initializer


def _lecun(fan_in: int, fan_out: int) -> float:
    r"""Variance :math:`1/\mathrm{fan\_in}`: linear and SELU units keep it forward (LeCun et al. 1998)."""
    return 1 / fan_in


def _glorot(fan_in: int, fan_out: int) -> float:
    r"""Variance :math:`2/(\mathrm{fan\_in}+\mathrm{fan\_out})`: between forward and backward.

    Exact for linear units with equal fans (Glorot & Bengio 2010).
    """
    return 2 / (fan_in + fan_out)


def _he(fan_in: int, fan_out: int) -> float:
    r"""Variance :math:`2/\mathrm{fan\_in}` makes up for the half that ReLU cuts away (He et al. 2015)."""
    return 2 / fan_in


lecun_normal, lecun_uniform = _scaled("normal", _lecun), _scaled("uniform", _lecun)
glorot_normal, glorot_uniform = _scaled("normal", _glorot), _scaled("uniform", _glorot)
he_normal, he_uniform = _scaled("normal", _he), _scaled("uniform", _he)


@dataclass(frozen=True)
class orthogonal(checks.Checked):
    r"""Random rotation times ``gain``: :math:`W W^\top = g^2 I` or :math:`W^\top W = g^2 I`.

    Every singular value is ``gain`` (default 1). Leading kernel axes are folded into fan_in. Drawn as
    the Q of a normal matrix's QR decomposition with the signs of R's diagonal (Saxe et al. 2014).
    """

    gain: float = checks.checked(checks.real, 0, default=1.0)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diagonal(r))
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


#: Initializers that a layer accepts by name, with their defaults.
_SCALED = (lecun_normal, lecun_uniform, glorot_normal, glorot_uniform, he_normal, he_uniform)
NAMES: dict[str, Callable] = {initializer.__name__: initializer for initializer in _SCALED}
NAMES |= {"normal": normal(), "uniform": uniform(), "orthogonal": orthogonal()}


def get(initializer: str | Callable, name: str = "initializer") -> Callable:
    """Return an initializer from its name, its class or itself; ``ValueError`` lists the names known.

    ``name`` is the argument's, for the message: "initializer" unless given.
    """
    if callable(initializer):
        return initializer() if isinstance(initializer, type) else initializer
    known = sorted(NAMES)
    checks.expect(initializer in known, name, f"one of {known}", repr(initializer))
    return NAMES[initializer]


def lsuv(network: Any, x: Any, tolerance: float = 0.1, max_iterations: int = 10) -> np.ndarray:
    r"""Layer-sequential unit variance: orthogonal weights, scaled until outputs have variance 1.

    Layer by layer from the bottom, on the batch ``x`` (host array; shared, or with a replica axis):
    :math:`W \leftarrow W/\sqrt{\mathrm{Var}(z)}` over batch and units, until
    :math:`|\mathrm{Var}(z) - 1|` < ``tolerance`` (default 0.1) or after ``max_iterations`` (10) scalings.
    A replica that is done is not changed further, so that it gets the bits of its seed alone. Layers
    with weights W and biases alone take part (``Dense``, ``Conv2D``), the others stay as they are;
    all run as in prediction. Returns the variances reached, float64 ``(..., layers)``. Raises
    ``ValueError`` where an output does not vary or is not finite (Mishkin & Matas 2016).
    """
    checks.expect(hasattr(network, "layers"), "network", "a Network", repr(network), TypeError)
    checks.real("tolerance", tolerance, 0, ends="()")
    checks.integer("max_iterations", max_iterations, 0)
    backend, reached = network.backend, []
    a = backend.asarray(x)
    with one_blas_thread(), backend.quiet():
        for i, layer in enumerate(network.layers):
            if layer.shapes.keys() == {"W", "b"}:
                turn = partial(orthogonal(), shape=layer.shapes["W"])
                start = network.streams.draw("lsuv", turn, network.weights_below(i))
                layer.W[...] = backend.asarray(start)
                reached.append(_unit_variance(network, i, a, tolerance, max_iterations))
            a = layer.forward(a, False)
    return np.stack(reached, axis=-1) if reached else np.ones((*network.streams.shape, 0))


def _variance(backend: Any, z: Any) -> np.ndarray:
    """Return float64 variances along the last axis, also of numbers whose squares float32 cannot hold."""
    variance = backend.to_numpy(z.var(axis=-1)).astype(np.float64)
    if np.all((variance > 1e-30) & (variance < 1e30)):
        return variance
    wide = backend.to_numpy(z.astype(np.float64).var(axis=-1))
    return np.where((variance > 1e-30) & (variance < 1e30), variance, wide)


def _unit_variance(network: Any, i: int, a: Any, tolerance: float, most: int) -> np.ndarray:
    """Scale layer i's weights; return the variance of its outputs, one per replica."""
    layer, backend, shape = network.layers[i], network.backend, network.streams.shape
    for k in range(most + 1):
        z = layer.forward(a, False)
        variance = _variance(backend, z.reshape(*shape, -1))
        good = np.all(np.isfinite(variance) & (variance > 0))
        checks.expect(good, "x", f"outputs of layer {i} that vary", f"variances {variance}")
        done = np.abs(variance - 1) < tolerance
        if k == most or np.all(done):
            break
        factor = np.where(done, 1.0, 1 / np.sqrt(variance))
        layer.W *= backend.asarray(factor.reshape(*shape, *[1] * len(layer.shapes["W"])))
    return variance
