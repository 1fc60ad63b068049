"""Checks of arguments: each error names the argument, what was expected and what came."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np


def integer(name: str, value: Any, at_least: int) -> int:
    """Return ``value`` as an int; ``TypeError`` or ``ValueError`` where it is none or too small."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer >= {at_least}, got {value!r}") from None
    if number < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {number}")
    return number


def real(name: str, value: Any, low: float, high: float = math.inf, ends: str = "[]") -> float:
    """Return ``value`` as a finite float in [low, high]; ``ends`` "(]", "[)" or "()" leave ends out."""
    left, right = ends[0], ends[1] if high < math.inf else ")"
    kind = f"a number in {left}{low:g}, {high:g}{right}"
    try:
        if isinstance(value, str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {kind}, got {value!r}") from None
    above = low < number if left == "(" else low <= number
    below = number < high if right == ")" else number <= high
    if not (above and below):
        raise ValueError(f"{name}: expected {kind}, got {number!r}")
    return number


def per_replica(name: str, value: Any, replicas: int) -> np.ndarray:
    """Return float64 values ``(replicas,)`` from one number or one number per replica, all >= 0."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or one per replica, got {value!r}") from None
    if array.shape not in ((), (replicas,)):
        raise ValueError(
            f"{name}: expected a number or {replicas} numbers (one per replica), "
            f"got an array of shape {array.shape}"
        )
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        raise ValueError(f"{name}: expected finite numbers >= 0, got {value!r}")
    return np.broadcast_to(array, (replicas,)).copy()
