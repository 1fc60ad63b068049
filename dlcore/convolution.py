"""Layers for images ``(..., batch, height, width, channels)``."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from dlcore import checks, initializers
from dlcore.layers import Dense, Layer
from dlcore.norms import sum_rows


class Conv2D(Layer):
    r"""Convolution (cross-correlation): :math:`y_{hwo} = b_o + \sum_{ijc} x_{sh+i,\,sw+j,\,c}\,W_{ijco}`.

    Shapes: x ``(..., batch, height, width, in_channels)``, W ``(..., kh, kw, in_channels,
    out_channels)``, b ``(..., 1, out_channels)``; the output has ``(height + padding - kh) // stride
    + 1`` rows, ``padding`` counted on both sides. ``kernel`` is one size or (kh, kw); ``stride`` s = 1;
    ``padding`` is the number of zeros on each side (default 0) or ``"same"`` (size kept, stride 1; an
    odd zero goes below and to the right, as in PyTorch). ``initializer`` draws W (default He normal),
    ``bias`` is the start value of b (default 0). Raises ``ValueError`` for other shapes.

    Every patch becomes a row, and the layer one matrix product (im2col; Chellapilla et al. 2006).
    """

    input_ndim = 4

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int | Sequence[int], stride: int = 1,
        padding: int | str = 0, initializer: str | Callable = "he_normal", bias: float = 0.0,
    ) -> None:  # fmt: skip
        self.in_channels = checks.integer("in_channels", in_channels, 1)
        self.out_channels = checks.integer("out_channels", out_channels, 1)
        self.kernel = _pair("kernel", kernel)
        self.stride = checks.integer("stride", stride, 1)
        self.padding = self._sides(padding)
        self.initializer = initializers.get(initializer)
        self.bias = checks.real("bias", bias, -np.inf, ends="()")
        self.shapes = {"W": (*self.kernel, in_channels, out_channels), "b": (1, out_channels)}

    def _sides(self, padding: int | str) -> tuple[tuple[int, int], ...]:
        """Return zeros (above, below) and (left, right)."""
        if padding == "same":
            due = f"a number with stride {self.stride}"
            checks.expect(self.stride == 1, "padding", due, "'same'")
            return tuple(((k - 1) // 2, k // 2) for k in self.kernel)
        number = not isinstance(padding, str)
        checks.expect(number, "padding", "an integer >= 0 or 'same'", repr(padding))
        return ((checks.integer("padding", padding, 0),) * 2,) * 2

    initialize = Dense.initialize

    def forward(self, x: Any, training: bool) -> Any:
        self.patches = self._patches(self._padded(x))
        y = self._rows(self.patches) @ self._matrix(self.W) + self.b
        return y.reshape(*y.shape[:-2], *self.patches.shape[-4:-1], self.out_channels)

    def backward(self, dy: Any) -> Any:
        dy_rows = self._rows(dy)
        self.xp.matmul(self._rows(self.patches).mT, dy_rows, out=self._matrix(self.dW))
        sum_rows(dy_rows, out=self.db)
        if not self.needs_dx:
            return None
        rows = dy_rows @ self._matrix(self.W).mT
        return self._image(rows.reshape(*dy.shape[:-1], *self.shapes["W"][:-1]))

    def _padded(self, x: Any) -> Any:
        c, (kh, kw), ((above, below), (left, right)) = self.in_channels, self.kernel, self.padding
        if x.ndim < 4 or x.shape[-1] != c:
            raise ValueError(f"x: expected shape (..., batch, height, width, {c}), got {x.shape}")
        self.size = (x.shape[-3] + above + below, x.shape[-2] + left + right)
        if self.size[-2] < kh or self.size[-1] < kw:
            raise ValueError(f"x: expected images of at least {kh} by {kw}, got {x.shape}")
        if above + below + left + right == 0:
            return x
        return self.xp.pad(x, [(0, 0)] * (x.ndim - 3) + [*self.padding, (0, 0)])

    def _patches(self, x: Any) -> Any:
        """Return ``(..., batch, rows, columns, kh * kw * in_channels)``, one copy of x per weight."""
        s, view = self.stride, self.xp.lib.stride_tricks.sliding_window_view
        windows = view(x, self.kernel, axis=(-3, -2))[..., ::s, ::s, :, :, :]
        return self.xp.moveaxis(windows, -3, -1).reshape(*windows.shape[:-3], -1)

    def _image(self, patches: Any) -> Any:
        """Add patches ``(..., rows, columns, kh, kw, channels)`` up where they came from."""
        (high, wide), s = patches.shape[-5:-3], self.stride
        shape = (*patches.shape[:-5], *self.size, self.in_channels)
        image = self.xp.zeros(shape, dtype=patches.dtype)
        for i, j in np.ndindex(self.kernel):
            target = image[..., i : i + s * high : s, j : j + s * wide : s, :]
            target += patches[..., i, j, :]
        (above, below), (left, right) = self.padding
        return image[..., above : self.size[-2] - below, left : self.size[-1] - right, :]

    def _rows(self, images: Any) -> Any:
        return images.reshape(*images.shape[:-4], -1, images.shape[-1])

    def _matrix(self, weights: Any) -> Any:
        return weights.reshape(*weights.shape[:-4], -1, self.out_channels)


class MaxPool2D(Layer):
    r"""Largest value of each window: :math:`y_{hw} = \max_{i,j<k} x_{kh+i,\,kw+j}`, per channel.

    Shapes: x ``(..., batch, height, width, channels)``; the windows do not overlap, and the output
    has ``height // k`` rows; what is left over is not read. ``size`` is k (default 2) or one per axis.
    The gradient goes to the first maximum of a window, row by row, as in PyTorch. Raises
    ``ValueError`` for images smaller than a window.
    """

    input_ndim = 4

    def __init__(self, size: int | Sequence[int] = 2) -> None:
        self.size = _pair("size", size)

    def forward(self, x: Any, training: bool) -> Any:
        high, wide = self.size
        if x.ndim < 4 or x.shape[-3] < high or x.shape[-2] < wide:
            due = f"images (..., batch, height, width, channels) of at least {high} by {wide}"
            raise ValueError(f"x: expected {due}, got {x.shape}")
        self.x, self.y = x, reduce(self.xp.maximum, self._corners(x))
        return self.y

    def backward(self, dy: Any) -> Any:
        dx = self.xp.zeros_like(self.x)
        taken = self.xp.zeros_like(self.y, dtype=bool)
        for x, target in zip(self._corners(self.x), self._corners(dx), strict=True):
            here = (x == self.y) > taken  # the first in its window: equal, and none before it
            target += dy * here
            taken |= here
        return dx

    def _corners(self, x: Any) -> list[Any]:
        """Return views of x, one per place in the window, each of the output's shape."""
        high, wide = self.size
        bottom, right = x.shape[-3] // high * high, x.shape[-2] // wide * wide
        return [x[..., i:bottom:high, j:right:wide, :] for i in range(high) for j in range(wide)]


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) from one integer or two, each at least 1."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    checks.expect(len(both) == 2, name, "one integer or two", repr(value))
    return checks.integer(name, both[0], 1), checks.integer(name, both[1], 1)
