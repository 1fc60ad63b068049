r"""Mean-field theory of wide random nets: how variances and gradients travel with depth.

With independent weights of variance :math:`\sigma_w^2/\mathrm{fan\_in}` and biases of variance
:math:`\sigma_b^2` a wide layer's pre-activations are nearly normal, of variance q, and

.. math:: q_{l+1} = \sigma_w^2\,E[\phi(\sqrt{q_l}\,z)^2] + \sigma_b^2,\qquad
          \chi_l = \sigma_w^2\,E[\phi'(\sqrt{q_l}\,z)^2],\qquad z \sim N(0, 1).

The mean squared gradient of one layer is :math:`\chi` times that of the layer above (Poole et al. 2016;
Schoenholz et al. 2017). Host floats only.
"""

import math
from collections.abc import Callable

import numpy as np

from dlcore import checks, host_arrays
from dlcore.activations import Activation, made

# Trapezoid nodes: derivatives of saturating units are steep, where Gauss-Hermite nodes are sparse.
# An even number of them: none lies on the kink at zero, so that ReLU's halves are exact.
_Z = np.linspace(-10, 10, 4000)
_WEIGHT = np.exp(-_Z * _Z / 2)
_WEIGHT /= _WEIGHT.sum()


def expectation(function: Callable[[np.ndarray], np.ndarray], q: float) -> float:
    r"""Return :math:`E[f(\sqrt{q}\,z)]` for standard normal z.

    Raises ``ValueError`` unless ``q`` >= 0.
    """
    checks.function("function", function)
    with np.errstate(over="ignore"):  # infinite, then
        values = function(np.sqrt(checks.real("q", q, 0)) * _Z)
        return float(_WEIGHT @ host_arrays.real("function", values, "real values"))


def _instance(given: Activation | type[Activation]) -> Activation:
    return given if isinstance(given, Activation) else made(given)


def variance(activation: Activation, q: float, sigma_w: float, sigma_b: float = 0.0) -> float:
    r"""Return the next layer's variance, :math:`\sigma_w^2 E[\phi(\sqrt q z)^2] + \sigma_b^2`.

    ``sigma_b`` = 0 unless given.
    """
    phi, b = _instance(activation), checks.real("sigma_b", sigma_b, 0)
    squared = expectation(lambda z: phi.value(z) ** 2, q)
    return _square(checks.real("sigma_w", sigma_w, 0)) * squared + _square(b)


def chi(activation: Activation, q: float, sigma_w: float) -> float:
    r"""Return :math:`\chi = \sigma_w^2 E[\phi'(\sqrt q z)^2]`, the factor on mean squared gradients."""
    phi = _instance(activation)
    squared = expectation(lambda z: (1.0 * phi.derivative(z, phi.value(z))) ** 2, q)
    return _square(checks.real("sigma_w", sigma_w, 0)) * squared


def _square(number: float) -> float:
    """Return the square; infinity where it does not fit, for which Python would raise."""
    return number**2 if number < 1e154 else math.inf


def variances(
    activation: Activation, first: float, depth: int, sigma_w: float, sigma_b: float = 0.0
) -> np.ndarray:
    """Return variances ``(depth,)`` of the pre-activations of layers 1 … depth, from the first's.

    ``sigma_w`` and ``sigma_b`` (default 0) as in ``variance``. From an infinite one on all are infinite.
    """
    q = [checks.real("first", first, 0)]
    while len(q) < checks.integer("depth", depth, 1):
        finite = math.isfinite(q[-1])
        q.append(variance(activation, q[-1], sigma_w, sigma_b) if finite else math.inf)
    return np.array(q)
