r"""Norms whose squares overflow, or vanish, in float32 although the norm fits; sums of many rows.

Numbers from about 2e19 on have squares that float32 cannot hold. Where the largest number is that large
(or as small), all are multiplied by a power of two first: that changes no digit of them, so that
ordinary numbers, multiplied by 1, keep their bits.

Rows are added one after another, and a float32 sum of 2²⁴ ones grows no more. More than ``MANY`` rows
are added in float64.
"""

import math
from functools import reduce
from typing import Any

import numpy as np

#: For each type the largest number whose squares can be added up safely, and the power of two that takes
#: larger ones there; one over it for those below one over the limit.
_SAFE = {"float32": (2.0**48, 2.0**80), "float64": (2.0**400, 2.0**600)}

#: Rows up to which a float32 sum is right to about a thousandth at worst.
MANY = 1 << 17

#: An array and the axes, counted from the end, over which its norm is taken.
Part = tuple[Any, tuple[int, ...]]


def norm(xp: Any, parts: list[Part]) -> tuple[Any, Any]:
    r"""Return n and a power of two p with :math:`n / p = \sqrt{\sum a^2}` over all ``parts``.

    The sums over the parts' axes must have one shape, which n and p get.
    """
    largest = reduce(xp.maximum, [abs(a).max(axis=axes) for a, axes in parts])
    power = _power(xp, largest)
    squares = 0
    for a, axes in parts:
        scaled = a * _spread(power, a, axes)
        scaled *= scaled
        by_rows = -1 not in axes and math.prod(a.shape[i] for i in axes) > MANY
        total = scaled.sum(axis=axes, dtype=np.float64 if by_rows else a.dtype)
        squares = squares + total.astype(a.dtype, copy=False)
    return xp.sqrt(squares), power


def shrink(xp: Any, parts: list[Part], limit: float) -> None:
    r"""Multiply the parts in place by :math:`\min(1, c/\lVert a\rVert)`, with ``limit`` c > 0."""
    about = np.finfo(parts[0][0].dtype)
    c = min(max(limit, float(about.smallest_subnormal)), float(about.max))
    size, power = norm(xp, parts)
    long = size > c * power
    factor = xp.where(long, c / xp.maximum(size, float(about.tiny)), 1.0).astype(size.dtype)
    power = xp.where(long, power, 1.0).astype(size.dtype)
    for a, axes in parts:
        a *= _spread(power, a, axes)
        a *= _spread(factor, a, axes)


def sum_rows(a: Any, out: Any) -> None:
    """Write the sum over the rows (axis −2, kept) into ``out``."""
    if a.shape[-2] > MANY:
        out[...] = a.sum(axis=-2, keepdims=True, dtype=np.float64).astype(out.dtype)
    else:
        a.sum(axis=-2, keepdims=True, out=out)


def mean_rows(a: Any) -> Any:
    """Return the mean over the rows (axis −2, kept)."""
    if a.shape[-2] > MANY:
        return a.mean(axis=-2, keepdims=True, dtype=np.float64).astype(a.dtype)
    return a.mean(axis=-2, keepdims=True)


def _power(xp: Any, largest: Any) -> Any:
    """Return the power of two for each largest number; 1 for ordinary ones and for NaN."""
    limit, step = _SAFE[largest.dtype.name]
    small = xp.where(largest < 1 / limit, step, 1.0)
    return xp.where(largest > limit, 1 / step, small).astype(largest.dtype)


def _spread(value: Any, a: Any, axes: tuple[int, ...]) -> Any:
    """Return one value per sum as an array that goes with ``a``."""
    shape = [1 if i - a.ndim in axes else n for i, n in enumerate(a.shape)]
    return value.reshape(shape)
