r"""Activation functions: value and derivative.

Each class is a layer without parameters: ``a = phi(z)`` elementwise, ``dz = da * phi'(z)``. The
derivative gets input and output both, for most are shortest in terms of the output.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

from dlcore import checks
from dlcore.backend import fuse
from dlcore.layers import Layer


class Activation(Layer):
    """An elementwise function as a layer; subclasses give ``value`` and ``derivative``.

    A class that sets ``fusable`` says that both are made as ``backend.fuse`` asks, so that a device
    may run each as one kernel. A class of its own says nothing about those below it.
    """

    fusable = False

    def value(self, z: Any) -> Any:
        """Return ``phi(z)``."""
        raise NotImplementedError

    def derivative(self, z: Any, a: Any) -> Any:
        """Return ``phi'(z)``, given also ``a = phi(z)``."""
        raise NotImplementedError

    def forward(self, x: Any, training: bool) -> Any:
        self.z, self.a = x, self.kernel("value")(x)
        return self.a

    def backward(self, dy: Any) -> Any:
        return self.kernel("chain")(dy, self.z, self.a)

    def chain(self, dy: Any, z: Any, a: Any) -> Any:
        """Return ``dy * phi'(z)``, the chain rule."""
        return dy * self.derivative(z, a)

    def kernel(self, name: str) -> Callable:
        """Return a method, as one kernel where this is a device and the class allows it."""
        method, own = getattr(self, name), vars(type(self))
        if self.xp is Layer.xp or not own.get("fusable", False):
            return method
        settings = tuple(v for v in vars(self).values() if isinstance(v, (int, float)))
        key = (name, self.xp, settings)  # numbers of the object become constants of the kernel
        kernels = vars(self).setdefault("kernels", {})
        if key not in kernels:
            kernels[key] = fuse(self.xp, method, f"{type(self).__name__}_{name}")
        return kernels[key]


def made(activation: Any) -> Activation:
    """Return what an activation's class, or a function without arguments, makes; else ``TypeError``."""
    layer: Any = None
    with contextlib.suppress(TypeError):
        layer = activation()
    due = "a class such as ReLU, or a function that makes one"
    checks.expect(isinstance(layer, Activation), "activation", due, repr(activation), TypeError)
    return layer


class Identity(Activation):
    """Linear unit: ``phi(z) = z``, ``phi' = 1``."""

    def value(self, z: Any) -> Any:
        return z

    def derivative(self, z: Any, a: Any) -> Any:
        return self.xp.ones_like(z)

    def backward(self, dy: Any) -> Any:
        return dy


class Logistic(Activation):
    r"""Logistic function: :math:`\phi(z) = 1/(1+e^{-z})`, :math:`\phi' = a(1-a) \le 1/4`.

    Computed as ``(1 + tanh(z/2)) / 2``, which cannot overflow, and is right to a rounding error of 1
    (6e-8 in float32, where it is 0 below z = −17).
    """

    fusable = True

    def value(self, z: Any) -> Any:
        return 0.5 * self.xp.tanh(0.5 * z) + 0.5

    def derivative(self, z: Any, a: Any) -> Any:
        return a * (1 - a)


#: The name that deep-learning libraries use for the logistic function.
Sigmoid = Logistic


class Tanh(Activation):
    r"""Hyperbolic tangent: :math:`\phi' = 1 - a^2 \le 1`."""

    fusable = True

    def value(self, z: Any) -> Any:
        return self.xp.tanh(z)

    def derivative(self, z: Any, a: Any) -> Any:
        return 1 - a * a


class ReLU(Activation):
    r"""Rectified linear unit: :math:`\max(0, z)`; derivative 1 where positive, else 0."""

    fusable = True

    def value(self, z: Any) -> Any:
        return self.xp.clip(z, 0, math.inf)  # NumPy's maximum with a number takes twice as long

    def derivative(self, z: Any, a: Any) -> Any:
        return a > 0


class LeakyReLU(Activation):
    r"""Leaky ReLU: z where positive, else :math:`\alpha z`; ``alpha`` = 0.01 (Maas et al. 2013)."""

    fusable = True

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = checks.real("alpha", alpha, 0, 1)

    def value(self, z: Any) -> Any:
        return self.xp.maximum(z, self.alpha * z)

    def derivative(self, z: Any, a: Any) -> Any:
        number = z.dtype.type  # two Python numbers would make doubles
        return self.xp.where(z > 0, number(1), number(self.alpha))


class ELU(Activation):
    r"""Exponential linear unit: z where positive, else :math:`\alpha(e^z - 1)` (Clevert et al. 2016).

    ``alpha`` = 1 by default; the derivative for negative z is :math:`a + \alpha`.
    """

    fusable = True

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = checks.real("alpha", alpha, 0)

    def value(self, z: Any) -> Any:
        return self.xp.where(z > 0, z, self.alpha * self.xp.expm1(self.xp.minimum(z, 0)))

    def derivative(self, z: Any, a: Any) -> Any:
        return self.xp.where(z > 0, 1.0, a + self.alpha)


class SELU(Activation):
    r"""Scaled ELU, :math:`\lambda\,\mathrm{ELU}_\alpha(z)`, with fixed point mean 0, variance 1.

    :math:`\lambda = 1.0507`, :math:`\alpha = 1.6733` (Klambauer et al. 2017).
    """

    fusable = True

    scale, alpha = 1.0507009873554805, 1.6732632423543772

    def value(self, z: Any) -> Any:
        negative = (self.scale * self.alpha) * self.xp.expm1(self.xp.minimum(z, 0))
        return self.xp.where(z > 0, self.scale * z, negative)

    def derivative(self, z: Any, a: Any) -> Any:
        return self.xp.where(z > 0, self.scale, a + self.scale * self.alpha)


class GELU(Activation):
    r"""Gaussian error linear unit in its tanh form (Hendrycks & Gimpel 2016).

    :math:`\phi(z) = \tfrac{z}{2}(1+\tanh u)`, :math:`u = \sqrt{2/\pi}\,(z + 0.044715 z^3)`.
    The exact form needs erf, which neither array library has.
    """

    fusable = True

    c = math.sqrt(2 / math.pi)
    #: From here on the tangent is 1 to the last bit, and cubes of what is much larger overflow.
    far = 100.0

    def _t(self, z: Any) -> Any:
        return self.xp.tanh(self.c * (z + 0.044715 * z * z * z))

    def value(self, z: Any) -> Any:
        return 0.5 * z * (1 + self._t(self.xp.clip(z, -self.far, self.far)))

    def derivative(self, z: Any, a: Any) -> Any:
        z = self.xp.clip(z, -self.far, self.far)
        t = self._t(z)
        return 0.5 * (1 + t) + (0.5 * self.c) * z * (1 - t * t) * (1 + 0.134145 * z * z)


class Swish(Activation):
    r"""Swish or SiLU, :math:`z\,s(z)` with s the logistic function; derivative :math:`a + s(1-a)`.

    In the derivative a is cut at 100, where s is 1: beside a much larger one the 1 would be lost.
    """

    fusable = True

    def value(self, z: Any) -> Any:
        return z * (0.5 * self.xp.tanh(0.5 * z) + 0.5)

    def derivative(self, z: Any, a: Any) -> Any:
        a = self.xp.clip(a, -1, 100)  # -0.28 is its minimum
        return a + (0.5 * self.xp.tanh(0.5 * z) + 0.5) * (1 - a)


class Softplus(Activation):
    r"""Softplus: :math:`\ln(1+e^z)`, a smooth ReLU; the derivative is the logistic function."""

    fusable = True

    def value(self, z: Any) -> Any:
        return self.xp.logaddexp(z, 0.0)

    def derivative(self, z: Any, a: Any) -> Any:
        return 0.5 * self.xp.tanh(0.5 * z) + 0.5
