"""Checks of arguments: each error names the argument, what was expected and what came."""

import dataclasses
import difflib
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def expect(ok: Any, name: str, due: str, got: Any, error: type[Exception] = ValueError) -> None:
    """Raise an ``error`` (default ``ValueError``) "name: expected …, got …" unless ``ok``."""
    if not ok:
        raise error(f"{name}: expected {due}, got {got}")


def integer(name: str, value: Any, at_least: int) -> int:
    """Return ``value`` as an int; ``TypeError`` or ``ValueError`` where it is none or too small."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer >= {at_least}, got {value!r}") from None
    expect(number >= at_least, name, f"an integer >= {at_least}", number)
    return number


def real(name: str, value: Any, low: float, high: float = math.inf, ends: str = "[]") -> float:
    """Return ``value`` as a finite float in [low, high]; ``ends`` "(]", "[)" or "()" leave ends out.

    ``high`` is infinite by default. ``TypeError`` for what is no number, ``ValueError`` for another one.
    """
    left, right = ends[0], ends[1] if high < math.inf else ")"
    kind = f"a number in {left}{low:g}, {high:g}{right}"
    try:
        if isinstance(value, (str, bool, np.bool_)) or np.ndim(value) or value is np.ma.masked:
            raise TypeError
        if np.asarray(value).dtype.kind in "cmMUS":  # float() would drop what they mean
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected {kind}, got {value!r}") from None
    above = low < number if left == "(" else low <= number
    below = number < high if right == ")" else number <= high
    expect(above and below, name, kind, number)
    return number


def instance(name: str, value: Any, kind: type | tuple[type, ...], due: str = "") -> Any:
    """Return ``value``, of one ``kind`` (``TypeError``); ``due`` says what to expect, if not its name."""
    if not isinstance(value, kind):
        due = due or f"a {getattr(kind, '__name__', kind)}"
        raise TypeError(f"{name}: expected {due}, got {value!r}")
    return value


def choice(name: str, value: Any, *known: Any) -> Any:
    """Return ``value``, one of those ``known``; ``ValueError`` for any other."""
    due = ", ".join(map(repr, known[:-1])) + f" or {known[-1]!r}"
    expect(value in known, name, due, repr(value))
    return value


def function(name: str, value: Any, due: str = "a function") -> Any:
    """Return ``value``, which can be called and is no class (``TypeError``); ``due``: what to expect."""
    expect(callable(value) and not isinstance(value, type), name, due, repr(value), TypeError)
    return value


def names(name: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``TypeError`` for a ``given`` option that is not ``known``; it names the nearest that is.

    >>> names("mlp", ["dropuot"], ["bias", "dropout"])
    Traceback (most recent call last):
    TypeError: mlp: expected options among ['bias', 'dropout'], got 'dropuot' (did you mean 'dropout'?)
    """
    right = sorted(known)
    for option in given:
        near = difflib.get_close_matches(str(option).lower(), right, n=1, cutoff=0.5)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        due = f"options among {right}"
        expect(option in right, name, due, f"{option!r}{meant}", TypeError)


def per_replica(name: str, value: Any, replicas: int) -> np.ndarray:
    """Return float64 values ``(replicas,)`` from one number or one number per replica, all >= 0.

    ``TypeError`` for what are no numbers, ``ValueError`` for others or another number of them.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" or np.ma.is_masked(value):
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number or one per replica, got {value!r}") from None
    due = f"a number or {replicas} numbers (one per replica)"
    expect(array.shape in ((), (replicas,)), name, due, f"an array of shape {array.shape}")
    good = np.all(np.isfinite(array)) and np.all(array >= 0)
    expect(good, name, "finite numbers >= 0", repr(value))
    return np.broadcast_to(array, (replicas,)).copy()


def checked(check: Callable, *limits: Any, **options: Any) -> Any:
    """Return a field of a `Checked` dataclass, which becomes ``check(name, value, *limits)``.

    ``options`` go to ``dataclasses.field``: ``pixels: float = checked(real, 0, default=2.0)``.
    """
    return dataclasses.field(metadata={"check": check, "limits": limits}, **options)


class Checked:
    """Base of dataclasses that check their fields when they are made."""

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            if f.metadata:
                value = f.metadata["check"](f.name, getattr(self, f.name), *f.metadata["limits"])
                object.__setattr__(self, f.name, value)  # frozen classes too
