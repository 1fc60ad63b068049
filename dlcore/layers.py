"""Layers with explicit forward and backward passes.

Arrays are ``(..., batch, features)``. A leading axis, when there is one, holds replicas; the code is
the same with and without it. Names of parameters: upper case for weights, lower case for vectors.
"""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore import checks, initializers
from dlcore.backend import fused
from dlcore.norms import mean_rows, sum_rows


class Layer:
    """A differentiable map: ``y = forward(x)`` and ``dx = backward(dy)``.

    ``shapes`` names the parameters with their shapes, without replica axis. The network allocates each
    parameter ``P`` and its gradient ``dP`` and sets both as attributes; ``backward`` writes gradients
    in place. They are views of the network's memory and stay so: ``layer.P = values`` copies values of
    the same shape into it. ``xp`` is the array module. With ``needs_dx = False`` (the lowest layer that
    learns) nobody reads the gradient of the input, and a costly one is not computed.

    ``buffers`` names arrays that belong to the layer but are not learned: name to (shape without
    replica axis, start value). A layer with ``noisy = True`` draws from ``noise``, which the network
    renews each epoch. ``input_ndim`` is the number of axes of an input without replica axis, where
    the layer knows it.
    """

    xp: Any = np
    shapes: dict[str, tuple[int, ...]] = {}
    buffers: dict[str, tuple[tuple[int, ...], float]] = {}
    noisy = False
    noise: Any = None
    input_ndim: int | None = None
    needs_dx = True
    #: Names of the arrays that lie in a network's memory.
    attached: frozenset[str] = frozenset()

    if TYPE_CHECKING:  # parameters, gradients and buffers are attributes set by the network

        def __getattr__(self, name: str) -> Any: ...

    def attach(self, name: str, array: Any) -> None:
        """Take an array of a network for the parameter, gradient or buffer ``name``."""
        vars(self)[name] = array
        vars(self)["attached"] = self.attached | {name}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what lies in a network's memory stays there and gets the values."""
        if name in self.attached:
            fill(self.xp, name, vars(self)[name], value)
        elif not self.attached and self._belongs_to_network(name):
            due = "a layer of a network, such as network.layers[0], to set it in"
            raise ValueError(f"{name}: expected {due}, got one that no network holds yet")
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        """Delete an attribute; ``ValueError`` for what lies in a network's memory."""
        checks.expect(name not in self.attached, name, "to stay in the network", "del")
        object.__delattr__(self, name)

    def _belongs_to_network(self, name: str) -> bool:
        return name in self.shapes or name in self.buffers or name.removeprefix("d") in self.shapes

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy all that the layer holds but the array module and kernels, which cannot be copied."""
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        held = {name: value for name, value in vars(self).items() if name != "kernels"}
        for name, value in held.items():
            shared = isinstance(value, ModuleType)
            vars(made)[name] = value if shared else copy.deepcopy(value, memo)
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Leave out array modules, which cannot be pickled, and kernels made for them.

        A network gives its layers their module back.
        """
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(value, ModuleType) and name != "kernels"
        }

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return initial parameters by name, drawn on the host."""
        return {}

    def forward(self, x: Any, training: bool) -> Any:
        """Return the layer's output and keep what ``backward`` needs."""
        raise NotImplementedError

    def backward(self, dy: Any) -> Any:
        """Write parameter gradients; return the loss's gradient with respect to the input."""
        raise NotImplementedError


def fill(xp: Any, name: str, own: Any, value: Any) -> None:
    """Copy ``value`` into the array ``own`` of the module ``xp``; ``name`` is for the messages.

    Raises ``ValueError`` for another shape, or numbers too large for the array's type, ``TypeError``
    for what are no real numbers.
    """
    if value is own:  # what ``layer.W *= 2`` ends with
        return
    checks.expect(not isinstance(value, np.ma.MaskedArray), name, "no mask", "one", TypeError)
    new = xp.asarray(value if hasattr(value, "dtype") else np.asarray(value))
    checks.expect(new.dtype.kind in "fiub", name, "real numbers", new.dtype, TypeError)
    checks.expect(new.shape == own.shape, name, f"shape {own.shape}", new.shape)
    if xp is np and new.dtype != own.dtype:
        with np.errstate(over="ignore"):
            cast = new.astype(own.dtype)
        kept = np.array_equal(np.isfinite(cast), np.isfinite(new))
        checks.expect(kept, name, f"numbers within {own.dtype}", "larger ones")
        new = cast
    own[...] = new.copy() if xp.may_share_memory(new, own) else new


class Dense(Layer):
    """Affine map ``y = x W + b``.

    Shapes: x ``(..., batch, fan_in)``, W ``(..., fan_in, fan_out)``, b ``(..., 1, fan_out)``.
    ``initializer`` draws W (default He normal), ``bias`` is the start value of b (default 0).
    """

    input_ndim = 2

    def __init__(
        self, fan_in: int, fan_out: int, initializer: str | Callable = "he_normal",
        bias: float = 0.0,
    ) -> None:  # fmt: skip
        self.fan_in = checks.integer("fan_in", fan_in, 1)
        self.fan_out = checks.integer("fan_out", fan_out, 1)
        self.initializer = initializers.get(initializer)
        self.bias = checks.real("bias", bias, -np.inf, ends="()")
        self.shapes = {"W": (fan_in, fan_out), "b": (1, fan_out)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        w, b = self.shapes["W"], self.shapes["b"]
        return {"W": self.initializer(rng, w), "b": np.full(b, self.bias)}

    def forward(self, x: Any, training: bool) -> Any:
        if x.ndim < 2 or x.shape[-1] != self.fan_in:
            raise ValueError(f"x: expected shape (..., batch, {self.fan_in}), got {x.shape}")
        self.x = x
        return x @ self.W + self.b

    def backward(self, dy: Any) -> Any:
        self.xp.matmul(self.x.mT, dy, out=self.dW)
        sum_rows(dy, out=self.db)
        return dy @ self.W.mT if self.needs_dx else None


class Flatten(Layer):
    """Join the last axes into features: ``(..., batch, height, width, channels)`` to ``(..., batch, n)``.

    ``axes`` is the number of axes joined (default 3).
    """

    def __init__(self, axes: int = 3) -> None:
        self.axes = checks.integer("axes", axes, 1)

    def forward(self, x: Any, training: bool) -> Any:
        due = f"more than {self.axes} axes, (..., batch, ...)"
        checks.expect(x.ndim > self.axes, "x", due, x.shape)
        self.shape = x.shape
        return x.reshape(*x.shape[: -self.axes], -1)

    def backward(self, dy: Any) -> Any:
        return dy.reshape(self.shape)


class BatchNorm(Layer):
    r"""Batch normalisation: :math:`y = \gamma\hat x + \beta`, :math:`\hat x = (x-\mu)/\sqrt{v+\epsilon}`.

    While training, :math:`\mu` and v are mean and variance over the batch (n rows), and the running
    ones follow: :math:`m \leftarrow (1-a)\,m + a\mu`, :math:`r \leftarrow (1-a)\,r + a v\,n/(n-1)`. In
    prediction the running ones take their place. With sums over the batch, since :math:`\mu` and v
    depend on every row,

    .. math:: d\beta = \sum dy,\quad d\gamma = \sum dy\,\hat x,\quad
        dx = \frac{\gamma}{\sqrt{v+\epsilon}}\Bigl(dy - \frac{d\beta + \hat x\,d\gamma}{n}\Bigr).

    Shapes: x ``(..., batch, features)``, or with ``images=True`` ``(..., batch, height, width,
    features)`` with statistics over batch, height and width; gamma (1 at the start), beta (0),
    ``running_mean`` (0), ``running_var`` (1): ``(..., 1, features)``. ``momentum`` a = 0.1, the share
    of the new value as in PyTorch; ``epsilon`` = 1e-5. Raises ``ValueError`` for another shape, and
    for training with one row per feature, whose variance is none (Ioffe & Szegedy 2015).

    Where a sum or square overflows in float32, NumPy computes that feature again in float64. If even
    the variance is too large for float32, ``running_var`` is infinite, which marks the replica.
    """

    def __init__(
        self, features: int, momentum: float = 0.1, epsilon: float = 1e-5, images: bool = False
    ) -> None:
        self.features = checks.integer("features", features, 1)
        self.momentum = checks.real("momentum", momentum, 0, 1)
        self.epsilon = checks.real("epsilon", epsilon, 0)
        self.images = checks.instance("images", images, bool)
        self.input_ndim = 4 if images else 2
        own = (1, features)
        self.shapes = {"gamma": own, "beta": own}
        self.buffers = {"running_mean": (own, 0.0), "running_var": (own, 1.0)}

    def initialize(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"gamma": np.ones((1, self.features)), "beta": np.zeros((1, self.features))}

    @np.errstate(over="ignore", invalid="ignore", divide="ignore")
    def forward(self, x: Any, training: bool) -> Any:
        rows, self.training = self._rows(x), training
        if training:
            mean, var = self._statistics(rows)
        else:
            mean, var = self.running_mean, self.running_var
            self.x_hat = rows - mean
        self.scale = _inverse_root(self.xp, var, self.epsilon)
        if training and self._overflowed():
            mean, var = self._in_float64(rows, mean, var)
            y = self.x_hat * self.gamma + self.beta
        else:
            y = self._scale_and_shift()
        if training:
            n, a = rows.shape[-2], self.momentum
            running = self.running_mean, self.running_var
            _follow(self.xp, *running, mean, var, 1 - a, a, a * n / (n - 1))
        return self._like(y, x)

    def backward(self, dy: Any) -> Any:
        rows = dy.reshape(*dy.shape[:-4], -1, self.features) if self.images else dy
        sum_rows(rows * self.x_hat, out=self.dgamma)
        sum_rows(rows, out=self.dbeta)
        if not self.needs_dx:
            return None
        if not self.training:
            return self._like(rows * (self.gamma * self.scale), dy)
        sums = self.dbeta, self.dgamma
        dx = _through(self.xp, rows, self.x_hat, *sums, self.gamma, self.scale, rows.shape[-2])
        return self._like(dx, dy)

    def _statistics(self, rows: Any) -> tuple[Any, Any]:
        """Centre the batch; return its mean and variance."""
        n = rows.shape[-2]
        checks.expect(n > 1, "x", "more than one row per feature to train batch norm", n)
        mean = mean_rows(rows)
        self.x_hat, square = _centred(self.xp, rows, mean)
        return mean, mean_rows(square)

    def _scale_and_shift(self) -> Any:
        """Normalise the centred rows in place; return the output."""
        if self.x_hat.ndim == self.gamma.ndim:
            return _scaled(self.xp, self.x_hat, self.scale, self.gamma, self.beta)
        self.x_hat = self.x_hat * self.scale  # an input that all replicas share
        return self.x_hat * self.gamma + self.beta

    def _overflowed(self) -> bool:
        """Return whether a scale on the host is 0, infinite or NaN."""
        if self.xp is not np:
            return False  # looking would mean to wait for the device
        return not bool((np.isfinite(self.scale) & (self.scale > 0)).all())

    def _in_float64(self, rows: Any, mean: Any, var: Any) -> tuple[Any, Any]:
        """Set scale and normalised rows of the features that overflowed; return mean and variance."""
        good = np.isfinite(self.scale) & (self.scale > 0)
        wide = rows.astype(np.float64)
        wide_mean = wide.mean(axis=-2, keepdims=True)
        wide -= wide_mean
        wide_var = (wide * wide).mean(axis=-2, keepdims=True)
        wide_scale = 1 / np.sqrt(wide_var + self.epsilon)
        kind = self.scale.dtype
        self.x_hat = np.where(good, self.x_hat * self.scale, wide * wide_scale).astype(kind)
        self.scale = np.where(good, self.scale, wide_scale).astype(kind)
        mean = np.where(good, mean, wide_mean).astype(kind)
        return mean, np.where(good, var, wide_var).astype(kind)

    def _rows(self, x: Any) -> Any:
        most = self.input_ndim + self.gamma.ndim - 2
        if not self.input_ndim <= x.ndim <= most or x.shape[-1] != self.features:
            sizes = "batch, height, width" if self.images else "batch"
            raise ValueError(f"x: expected shape (..., {sizes}, {self.features}), got {x.shape}")
        return x.reshape(*x.shape[:-4], -1, self.features) if self.images else x

    def _like(self, rows: Any, x: Any) -> Any:
        return rows.reshape(*rows.shape[:-2], *x.shape[-4:]) if self.images else rows


@fused
def _centred(xp: Any, rows: Any, mean: Any) -> tuple[Any, Any]:
    x_hat = rows - mean
    return x_hat, x_hat * x_hat


@fused
def _follow(
    xp: Any, running_mean: Any, running_var: Any, mean: Any, var: Any, keep: float,
    of_mean: float, of_var: float,
) -> None:  # fmt: skip
    running_mean *= keep
    running_mean += of_mean * mean
    running_var *= keep
    running_var += of_var * var


@fused
def _inverse_root(xp: Any, var: Any, epsilon: float) -> Any:
    return 1 / xp.sqrt(var + epsilon)


@fused
def _scaled(xp: Any, x_hat: Any, scale: Any, gamma: Any, beta: Any) -> Any:
    x_hat *= scale
    return x_hat * gamma + beta


@fused
def _through(
    xp: Any, dy: Any, x_hat: Any, dbeta: Any, dgamma: Any, gamma: Any, scale: Any, n: int
) -> Any:
    rest = dy - (dbeta + x_hat * dgamma) / n
    return rest * (gamma * scale)


class Dropout(Layer):
    r"""Dropout: :math:`y = x\,m/(1-p)` while training, with each m 0 with probability p, else 1.

    Inverted dropout: the mean of y is x, and prediction is the identity. Shapes: any x with the batch
    behind the replicas. ``rate`` p in [0, 1), default 0.5. ``forward(x, training=True)`` gives a draw
    for Monte-Carlo dropout (Srivastava et al. 2014; Gal & Ghahramani 2016).
    """

    noisy = True

    def __init__(self, rate: float = 0.5) -> None:
        self.rate = checks.real("rate", rate, 0, 1, "[)")

    def forward(self, x: Any, training: bool) -> Any:
        self.mask = None
        if not training or self.rate == 0:
            return x
        draw = self.noise.uniform(x.shape)
        # draws are float32: so is what they are compared with, for the same mask in float64
        rate = float(np.float32(self.rate))
        self.mask, y = _dropped(self.xp, x, draw, rate, 1 / (1 - self.rate))
        return y

    def backward(self, dy: Any) -> Any:
        return dy if self.mask is None else dy * self.mask


@fused
def _dropped(xp: Any, x: Any, draw: Any, rate: float, factor: float) -> tuple[Any, Any]:
    mask = (draw >= rate).astype(x.dtype) * factor
    return mask, x * mask


class GaussianNoise(Layer):
    r"""Additive noise: :math:`y = x + \sigma\,\xi`, :math:`\xi \sim N(0, 1)`, while training only.

    Shapes: any x with the batch behind the replicas. ``std`` :math:`\sigma \ge 0` in units of x,
    default 0.1. A small one on the inputs acts like weight decay (Bishop 1995).
    """

    noisy = True

    def __init__(self, std: float = 0.1) -> None:
        self.std = checks.real("std", std, 0)

    def forward(self, x: Any, training: bool) -> Any:
        if not training or self.std == 0:
            return x
        return x + self.std * self.noise.normal(x.shape)

    def backward(self, dy: Any) -> Any:
        return dy
