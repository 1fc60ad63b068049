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


def real(name: str, value: Any, low: float, high: float = math.inf, *, open_: bool = False) -> float:
    """Return ``value`` as a float in [low, high], or in (low, high) if ``open_``."""
    kind = f"a number in {'(' if open_ else '['}{low:g}, {high:g}{')' if open_ else ']'}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {kind}, got {value!r}") from None
    inside = low < number < high if open_ else low <= number <= high
    if not inside or math.isinf(number):
        raise ValueError(f"{name}: expected {kind}, got {number!r}")
    return number


def per_replica(name: str, value: Any, replicas: int) -> np.ndarray:
    """Return float64 values ``(replicas,)`` from one number or one number per replica, all >= 0."""
    try:
        array = np.asarray(value, dtype=np.float64)
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
