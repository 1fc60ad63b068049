r"""Augmentation: new examples from old ones, on the device, batch by batch, while training.

``fit(augment=...)`` takes one of these or a ``compose`` of several: functions ``(x, noise) -> x``. Each
example gets parameters of its own from ``noise``. Images are ``(..., batch, height, width, channels)``
and read at :math:`(r', c')` by bilinear interpolation; places outside take the value at the edge.
Rows are ``(..., batch, features)``. Strength 0 returns x itself. Source: Simard et al. 2003.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from dlcore import checks
from dlcore.random import Noise


class _Augmentation(checks.Checked):
    """Base of augmentations whose first field is a strength; subclasses give ``change``."""

    def __call__(self, x: Any, noise: Noise) -> Any:
        """Return ``change(x, noise)``, or x itself at strength 0."""
        strength = getattr(self, fields(self)[0].name)  # type: ignore[arg-type]
        return self.change(x, noise) if strength else x

    def change(self, x: Any, noise: Noise) -> Any:
        """Return new examples, at a strength above 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class shift(_Augmentation):
    r"""Move images by :math:`(d_1, d_2)`, both uniform in [−``pixels``, ``pixels``]; roll rows.

    Images: :math:`y_{rc} = x(r - d_1, c - d_2)`. Rows: a whole number of places, uniform in
    −``pixels`` … ``pixels``; what leaves at one end comes in at the other.
    """

    pixels: float = checks.checked(checks.real, 0)

    def change(self, x: Any, noise: Noise) -> Any:
        if not _is_image(x, noise):
            most, n, xp = math.floor(self.pixels), x.shape[-1], noise.backend.xp
            share = noise.uniform((*x.shape[:-1], 1)).astype(xp.float32, copy=False)
            by = xp.floor(share * (2 * most + 1)) - most
            by = xp.minimum(by, most).astype(xp.intp)  # rounding may reach the open end
            return xp.take_along_axis(x, xp.remainder(xp.arange(n) - by, n), axis=-1)
        rows, columns = _grid(x, noise)
        by = self.pixels * (2 * noise.uniform((*x.shape[:-3], 2)) - 1)
        return _read(x, rows - by[..., :1, None], columns - by[..., 1:, None], noise)


@dataclass(frozen=True)
class rotate(_Augmentation):
    r"""Turn images about their middle by an angle uniform in [−``degrees``, ``degrees``].

    :math:`y_{rc} = x(R_\alpha(r, c))` with rotation matrix :math:`R_\alpha`; positive angles turn
    anticlockwise on the page. ``degrees`` in [0, 180].
    """

    degrees: float = checks.checked(checks.real, 0, 180)

    def change(self, x: Any, noise: Noise) -> Any:
        rows, columns = _grid(x, noise)
        angle = math.radians(self.degrees) * (2 * noise.uniform((*x.shape[:-3], 1, 1)) - 1)
        c, s = noise.backend.xp.cos(angle), noise.backend.xp.sin(angle)
        i, j = (x.shape[-3] - 1) / 2, (x.shape[-2] - 1) / 2
        rows, columns = rows - i, columns - j
        return _read(x, c * rows + s * columns + i, c * columns - s * rows + j, noise)


@dataclass(frozen=True)
class elastic(_Augmentation):
    r"""Elastic deformation: :math:`y_{rc} = x(r + u_{rc}, c + v_{rc})` with smooth random u and v.

    Both are normal noise smoothed by a Gaussian of ``sigma`` pixels (default 4), scaled so that each
    displacement has standard deviation ``strength`` pixels, also at the edge (after Simard et al. 2003,
    who smooth uniform noise).
    """

    strength: float = checks.checked(checks.real, 0)
    sigma: float = checks.checked(checks.real, 0, math.inf, "(]", default=4.0)

    def change(self, x: Any, noise: Noise) -> Any:
        rows, columns = _grid(x, noise)
        high, wide = x.shape[-3], x.shape[-2]
        field = noise.normal((*x.shape[:-3], 2, high, wide))
        down, across = self._smoother(high, x, noise), self._smoother(wide, x, noise)
        field = self.strength * (down @ field @ across.mT)
        return _read(x, rows + field[..., 0, :, :], columns + field[..., 1, :, :], noise)

    def _smoother(self, n: int, x: Any, noise: Noise) -> Any:
        """Return a Gaussian matrix for one axis; with rows of norm 1 it keeps the variance."""
        xp = noise.backend.xp
        places = xp.arange(n, dtype=x.dtype)
        z = (places[:, None] - places) / max(
            self.sigma, 0.01
        )  # below, all but z = 0 vanishes anyway
        matrix = xp.exp(-0.5 * z * z)
        return matrix / xp.sqrt((matrix * matrix).sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class white_noise(_Augmentation):
    r"""Add independent normal noise to every feature: :math:`y = x + \sigma\xi`, ``std`` = σ ≥ 0."""

    std: float = checks.checked(checks.real, 0)

    def change(self, x: Any, noise: Noise) -> Any:
        return x + self.std * noise.normal(x.shape)


class compose:
    """Several augmentations, one after another: ``compose(rotate(10), shift(2))``.

    Raises ``TypeError`` for what cannot be called.
    """

    def __init__(self, *steps: Any) -> None:
        due = "functions of (x, noise)"
        self.steps = tuple(checks.function("steps", step, due) for step in steps)

    def __repr__(self) -> str:
        return f"compose({', '.join(map(repr, self.steps))})"

    def __call__(self, x: Any, noise: Noise) -> Any:
        for step in self.steps:
            x = step(x, noise)
        return x


def _is_image(x: Any, noise: Noise) -> bool:
    return x.ndim - len(noise.streams.shape) == 4


def _grid(x: Any, noise: Noise) -> tuple[Any, Any]:
    """Return row numbers ``(height, 1)`` and column numbers ``(width,)``."""
    due, arange = "images (..., batch, height, width, channels)", noise.backend.xp.arange
    checks.expect(_is_image(x, noise), "x", due, x.shape)
    return arange(x.shape[-3], dtype=x.dtype)[:, None], arange(x.shape[-2], dtype=x.dtype)


def _read(x: Any, rows: Any, columns: Any, noise: Noise) -> Any:
    """Read images at positions that together broadcast to ``(..., batch, height, width)``."""
    xp, (high, wide, channels) = noise.backend.xp, x.shape[-3:]
    rows, columns = xp.clip(rows, 0, high - 1), xp.clip(columns, 0, wide - 1)
    top, left = xp.floor(rows), xp.floor(columns)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    top, left = top.astype(xp.intp), left.astype(xp.intp)
    bottom, right = xp.minimum(top + 1, high - 1), xp.minimum(left + 1, wide - 1)
    first = xp.arange(math.prod(x.shape[:-3])).reshape(*x.shape[:-3], 1, 1) * (high * wide)
    pixels = x.reshape(-1, channels)

    def row(r: Any) -> Any:
        a, b = (xp.take(pixels, first + r * wide + c, axis=0) for c in (left, right))
        return a * (1 - across) + b * across

    return row(top) * (1 - down) + row(bottom) * down
