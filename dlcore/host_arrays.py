"""Arrays that come in from outside: plain real numbers, with nothing that they mean dropped on the way.

NumPy itself drops masks, imaginary parts and units of time without a word, reads numbers out of
text, and pairs labelled values by position. Here each of these is refused or put right.
"""

import numbers as abstract
from typing import Any

import numpy as np

from dlcore import checks
from dlcore.backend import to_host

#: What an array's kind of elements is called where it is refused, and what would be lost.
_REFUSED = {
    "c": "complex numbers, whose imaginary part would be lost",
    "m": "durations, whose unit would be lost (divide by np.timedelta64(1, 's') first)",
    "M": "dates, which are no amounts (subtract one and divide by np.timedelta64(1, 's') first)",
    "U": "text",
    "S": "text",
    "V": "records",
    "O": "Python objects that are no real numbers",
    "T": "text",
}


def real(
    name: str, values: Any, due: str = "numbers", error: type[Exception] = ValueError
) -> np.ndarray:
    """Return ``values`` as a plain array of real numbers of its own type; truth values count 0 and 1.

    What lies on a device is copied. ``due`` (default "numbers") says in the message what is expected.
    Raises ``error`` (default
    ``ValueError``) for masked, complex, dated, textual and other values that would lose their meaning.

    >>> real("x", [1, 2.5])
    array([1. , 2.5])
    """
    values = to_host(values)
    problem = _meaning(values)
    array = np.zeros(0)
    if not problem:
        try:
            array = np.asarray(values)
        except (TypeError, ValueError):
            problem = "which are no array"
    if array.dtype.kind == "O":
        array = _of_objects(array)
    problem = problem or _REFUSED.get(array.dtype.kind, "")
    if problem:
        raise error(
            f"{name}: expected {due}, got {type(values).__name__} {_short(values)}: {problem}"
        )
    return array


def _short(values: Any) -> str:
    text = repr(values)
    return text if len(text) <= 300 else f"{text[:300]}…"


def _meaning(values: Any) -> str:
    """Return what NumPy would drop of values before their type tells, or nothing."""
    if isinstance(values, np.ma.MaskedArray):
        masked = int(np.ma.getmaskarray(values).sum())
        return f"{masked} masked, whose mask would be lost" if masked else ""
    if isinstance(values, (list, tuple)):
        return next(filter(None, map(_meaning, values)), "")
    kind = type(values)
    if hasattr(kind, "units") or hasattr(kind, "unit"):
        return "quantities, whose unit would be lost"
    return ""


def _of_objects(array: np.ndarray) -> np.ndarray:
    """Return numbers that lie in an array of objects, such as fractions, or the array itself."""
    known = (abstract.Real, np.bool_)
    if not array.ndim or not all(isinstance(value, known) for value in array.flat):
        return array
    natural = np.array(array.tolist())  # whole numbers stay whole
    return array.astype(np.float64) if natural.dtype.kind == "O" else natural


def axes_of(values: Any) -> list[tuple[Any, Any]]:
    """Return name and index (pandas, or None) of each axis of an array, xarray or pandas object."""
    if hasattr(values, "dims") and hasattr(values, "indexes"):
        return [(dim, values.indexes.get(dim)) for dim in values.dims]
    if hasattr(values, "index") and hasattr(values, "iloc"):
        indexes = [values.index, values.columns] if values.ndim == 2 else [values.index]
        return [(index.name, index) for index in indexes]
    try:
        return [(None, None)] * np.ndim(to_host(values))
    except ValueError:  # lists of unequal lengths: whoever reads the numbers says so
        return []


def aligned(name: str, values: Any, like_name: str, like: Any) -> Any:
    """Return ``values`` with axes and labels in the order of those of ``like``.

    Labels of xarray and pandas count; what has none is taken by position. Raises ``ValueError`` where
    dimensions, labels or units (``attrs["units"]``) differ, or labels occur twice in another order.

    >>> import xarray as xr
    >>> a = xr.DataArray([1.0, 2.0], {"seed": [5, 6]}, ["seed"])
    >>> aligned("b", a[::-1], "a", a)
    array([1., 2.])
    """
    _same_units(name, values, like_name, like)
    if hasattr(values, "dims") and hasattr(like, "dims"):
        same = set(values.dims) == set(like.dims)
        due = f"dimensions {tuple(like.dims)} as {like_name}"
        checks.expect(same, name, due, tuple(values.dims))
        values = values.transpose(*like.dims)
    pairs = zip(axes_of(values), axes_of(like), strict=False)
    orders = [_order(name, own, like_name, wanted) for own, wanted in pairs]
    for axis, order in enumerate(orders):
        if order is not None:
            values = np.take(real(name, values), order, axis=axis)
    return values


def _order(
    name: str, own: tuple[Any, Any], like_name: str, wanted: tuple[Any, Any]
) -> np.ndarray | None:
    """Return where one axis has the labels that are wanted, None where they are in place."""
    (_, index), (dim, due) = own, wanted
    if index is None or due is None or index.equals(due):
        return None
    where = f" along {dim!r}" if dim is not None else ""
    expected = f"the labels of {like_name}{where}, each once, in any order"
    differ = [*index.symmetric_difference(due)[:5]] or "some of them twice"
    good = len(index) == len(due) and index.is_unique and due.is_unique
    order = index.get_indexer(due) if good else np.array([-1])
    checks.expect(np.all(order >= 0), name, expected, f"others ({differ})")
    return order


def _same_units(name: str, values: Any, like_name: str, like: Any) -> None:
    own, due = (getattr(one, "attrs", {}).get("units") for one in (values, like))
    same = own is None or due is None or own == due
    checks.expect(same, name, f"units {due!r} as {like_name}", repr(own))
