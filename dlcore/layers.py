"""Layers with explicit forward and backward passes.

Arrays are ``(..., batch, features)``. A leading axis, when there is one, holds replicas; the code is
the same with and without it. Names of parameters: upper case for weights, lower case for vectors.
"""

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dlcore import checks, initializers
from dlcore.backend import fused


class Layer:
    """A differentiable map: ``y = forward(x)`` and ``dx = backward(dy)``.

    ``shapes`` names the parameters with their shapes, without replica axis. The network allocates each
    parameter ``P`` and its gradient ``dP`` and sets both as attributes; ``backward`` writes gradients
    in place. ``xp`` is the array module. With ``needs_dx = False`` (the lowest layer that learns)
    nobody reads the gradient of the input, and a costly one is not computed.

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

    if TYPE_CHECKING:  # parameters, gradients and buffers are attributes set by the network

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __getstate__(self) -> dict[str, Any]:
        """Leave out array modules, which cannot be pickled, and kernels made for them.

        A network gives its layers their module back.
        """
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(value, types.ModuleType) and name != "kernels"
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
        dy.sum(axis=-2, keepdims=True, out=self.db)
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

    def forward(self, x: Any, training: bool) -> Any:
        rows, self.training = self._rows(x), training
        var = self._centre(rows) if training else self.running_var
        if not training:
            self.x_hat = rows - self.running_mean
        self.scale = _inverse_root(self.xp, var, self.epsilon)
        if self.x_hat.ndim == self.gamma.ndim:
            y = _scaled(self.xp, self.x_hat, self.scale, self.gamma, self.beta)
        else:  # an input that all replicas share
            self.x_hat *= self.scale
            y = self.x_hat * self.gamma + self.beta
        return self._like(y, x)

    def backward(self, dy: Any) -> Any:
        rows = dy.reshape(*dy.shape[:-4], -1, self.features) if self.images else dy
        (rows * self.x_hat).sum(axis=-2, keepdims=True, out=self.dgamma)
        rows.sum(axis=-2, keepdims=True, out=self.dbeta)
        if not self.needs_dx:
            return None
        if not self.training:
            return self._like(rows * (self.gamma * self.scale), dy)
        sums = self.dbeta, self.dgamma
        dx = _through(self.xp, rows, self.x_hat, *sums, self.gamma, self.scale, rows.shape[-2])
        return self._like(dx, dy)

    def _centre(self, rows: Any) -> Any:
        """Centre the batch and return its variance; running mean and variance follow."""
        n, a = rows.shape[-2], self.momentum
        if n < 2:
            raise ValueError("x: expected more than one row per feature to train batch norm, got 1")
        mean = rows.mean(axis=-2, keepdims=True)
        self.x_hat, square = _centred(self.xp, rows, mean)
        var = square.mean(axis=-2, keepdims=True)
        running = self.running_mean, self.running_var
        _follow(self.xp, *running, mean, var, 1 - a, a, a * n / (n - 1))
        return var

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
        self.mask, y = _dropped(self.xp, x, draw, self.rate, 1 / (1 - self.rate))
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
