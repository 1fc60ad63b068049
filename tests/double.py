"""A strict double of the device: ``xp`` behaves as CuPy 14 does, on the host, and counts.

``Backend("double", double.xp, dtype)`` runs dlcore on it, and ``with double.count() as c`` counts
what a GPU would do. Where CuPy would quietly do something slow or undefined (a copy from the host,
an index out of range, a scatter) it raises. Only what the tables offer exists. NumPy's functions on
its arrays go to xp's, as CuPy sends them, and refuse arrays of the host among them.

A signature lists parameters: ``x!`` a device array, ``x~`` a device array or a scalar, ``x*`` a
sequence of device arrays, ``x`` a host value, ``x+`` a required one, ``*x`` any number; ``?`` makes
optional; before ``/`` by position only (NumPy and CuPy differ in the name), after ``|`` by keyword
only. test_double.py checks every name and keyword against NumPy and against CuPy.
"""

from __future__ import annotations

import operator
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_UNARY = """absolute abs arctan cbrt ceil cos cosh exp exp2 expm1 floor isfinite isinf isnan invert
    log log10 log1p log2 logical_not negative positive reciprocal rint sign signbit sin sinh sqrt
    square tan tanh trunc"""
_BINARY = """add arctan2 bitwise_and bitwise_or bitwise_xor copysign divide equal floor_divide fmax
    fmin greater greater_equal heaviside hypot less less_equal logaddexp logical_and logical_or
    logical_xor maximum minimum multiply not_equal power remainder subtract true_divide"""
# Signatures and the functions that have them. These launch a kernel; CuPy composes var, std and
# pad of several, which count once.
KERNELS = {
    "x~ / | out!? dtype": _UNARY,
    "x1~ x2~ / | out!? dtype": _BINARY,
    "a! / axis out!? keepdims": "all any amax amin max min",
    "a! / axis dtype out!? keepdims": "sum mean prod",
    "a! / axis dtype out!? ddof keepdims": "std var",
    "a! / axis | out!? keepdims": "argmax argmin",
    "a! / axis dtype out!?": "cumsum cumprod",
    "a! / axis": "argsort sort count_nonzero",
    "a! /": "copy",
    "a! a_min~ a_max~ / out!?": "clip",
    "a! b! / | out!?": "dot matmul",
    "a! b! / axes": "tensordot",
    "subscripts+ *operands! / | optimize": "einsum",
    "tup* / axis out!? | dtype": "concatenate stack",
    "dst! src~ / casting where!?": "copyto",
    "condition! x~ y~ /": "where",
    "a! indices~ / axis out!?": "take",
    "a! indices! / axis+": "take_along_axis",
    "a! repeats+ / axis": "repeat",
    "A! reps+ /": "tile",
    "a! q~ / axis out!? | keepdims method": "quantile",
    "a! pad_width+ / mode | constant_values": "pad",
    "start+ stop step / | dtype": "arange",
    "N+ / M k dtype": "eye",
    "shape+ / dtype": "zeros ones",
    "a! / dtype | shape": "zeros_like ones_like",
    "shape+ fill_value~ / dtype": "full",
    "a! fill_value~ / dtype | shape": "full_like",
}
# These give views where the memory allows it, and then launch nothing.
VIEWS = {
    "a! / dtype": "ascontiguousarray",
    "a! / axis": "squeeze",
    "a! axis+ /": "expand_dims",
    "a! axis1+ axis2+ /": "swapaxes",
    "a! / axes": "transpose",
    "a! source+ destination+ /": "moveaxis",
    "a! shape+ /": "broadcast_to reshape",
    "a! /": "ravel",
    "x! window_shape+ / axis": "lib.stride_tricks.sliding_window_view",
}
# Uninitialised memory costs nothing; nonzero waits for the number of its results.
FREE = {"shape+ / dtype": "empty", "a! / dtype | shape": "empty_like"}
SYNCS = {"a! /": "nonzero"}
# What the host knows of an array.
TOLD = "ndim shape size"
COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
# The functions above that are methods too (without their first parameter), and further methods.
METHODS = """all any max min sum mean prod std var argmax argmin cumsum cumprod argsort sort copy
    clip dot take repeat squeeze swapaxes ravel nonzero"""
OWN_METHODS = {"round": ("kernel", "decimals out!?"), "fill": ("kernel", "value~ /")}
OWN_METHODS |= {"flatten": ("kernel", ""), "astype": ("view", "dtype+ / | copy")}
OWN_METHODS |= {"reshape": ("view", "*shape /"), "transpose": ("view", "*axes /")}
ATTRIBUTES = "shape ndim size dtype nbytes itemsize strides"
TO_HOST = "get item tolist __bool__ __float__ __int__"  # CuPy has no __index__
FLAGS = "c_contiguous f_contiguous owndata"
CONSTANTS = "bool_ e finfo float32 float64 iinfo inf int32 int64 intp nan newaxis pi uint8"
OPERATORS = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}
OPERATORS |= {"floordiv": "floor_divide", "mod": "remainder", "pow": "power"}
OPERATORS |= {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "matmul": "matmul"}
PLAIN = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater"}
PLAIN |= {"ge": "greater_equal", "neg": "negative", "abs": "absolute", "invert": "invert"}


def functions() -> dict[str, tuple[str, str]]:
    """The group and the signature of each function on offer, by its path in ``xp``."""
    groups = {"kernel": KERNELS, "view": VIEWS, "free": FREE, "sync": SYNCS}
    rows = ((g, text, names) for g, table in groups.items() for text, names in table.items())
    return {name: (group, text) for group, text, names in rows for name in names.split()}


def methods() -> dict[str, tuple[str, str]]:
    """The group and the signature of each method on offer."""
    shared = ((name, functions()[name]) for name in METHODS.split())
    return {name: (g, text.split(" ", 1)[1]) for name, (g, text) in shared} | OWN_METHODS


#: What CuPy's ``fuse`` takes: these, operators, and in-place operators.
ELEMENTWISE = {*_UNARY.split(), *_BINARY.split(), "where", "clip", "astype"}
_fusing = threading.local()  # .shape: that of the kernel being run, if any


_threads = threading.local()  # .stack: devices in use, the current one last
#: What the machine has: devices, and bytes of memory on each, all free.
machine = types.SimpleNamespace(devices=1, memory=1 << 30)


def current_device() -> int:
    """The number of this thread's device."""
    return getattr(_threads, "stack", [0])[-1]


def _inside_kernel() -> bool:
    return getattr(_fusing, "shape", None) is not None


class HostTransfer(AssertionError):
    """The host waited for the device, or copied to or from it, inside ``count(strict=True)``."""


@dataclass
class Counts:
    """What a GPU would have done inside ``with count() as c``."""

    calls: int = 0  # array calls: operators, functions, copies, gathers, random draws; no views
    syncs: int = 0  # the host waits for the device
    to_device: int = 0  # copies from the host
    to_host: int = 0  # copies to the host; each is a synchronisation too
    hidden: int = 0  # launches that CuPy adds inside batched products, see _hidden_launches
    names: Counter[str] = field(default_factory=Counter)  # all of these by name
    strict: bool = False


_active: list[Counts] = []
_lock = threading.Lock()


@contextmanager
def count(strict: bool = False) -> Iterator[Counts]:
    """Count inside the block, over all threads; ``strict`` raises at the first wait or copy."""
    counts = Counts(strict=strict)
    with _lock:
        _active.append(counts)
    try:
        yield counts
    finally:
        with _lock:
            _active[:] = [c for c in _active if c is not counts]


def _record(name: str, **events: int) -> None:
    if _inside_kernel():
        if name not in ELEMENTWISE:
            raise TypeError(f"{name}: CuPy cannot fuse it")
        return  # the kernel counts, once
    with _lock:
        for counts in _active:
            counts.names[name] += 1
            for event, n in events.items():
                setattr(counts, event, getattr(counts, event) + n)
        strict = any(counts.strict for counts in _active)
    if strict and events.keys() & {"syncs", "to_device", "to_host"}:
        raise HostTransfer(f"{name}: the host waited for the device or copied")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, np.bool_, np.number))


def _refuse(where: str, expected: str, value: Any) -> None:
    raise TypeError(f"{where}: expected {expected}, got {type(value).__name__}")


def _wrap(value: Any) -> Any:
    if value is None or isinstance(value, tuple):
        return value and tuple(_wrap(v) for v in value)
    a = np.asarray(value)
    if a.dtype.kind not in "biufc" or a.dtype.char in "gG":
        raise TypeError(f"no such dtype on the device: {a.dtype}")
    return DeviceArray(a)


def _unwrap(where: str, kind: str, value: Any) -> Any:
    """Take the arrays out of an argument of a kind (the marks of signatures), or refuse it."""
    if kind == "*":
        if not isinstance(value, (tuple, list)):
            _refuse(where, "a sequence of device arrays", value)
        return tuple(_unwrap(where, "!", v) for v in value)
    if kind in "!~":
        if isinstance(value, DeviceArray):
            if value.device != current_device():
                _refuse(where, f"an array of device {current_device()}", value)
            return value._a
        if isinstance(value, FusedNumber) and kind == "~":
            return value.value
        if kind == "!" or not _is_scalar(value):
            _refuse(where, "a device array" + " or a scalar" * (kind == "~"), value)
        return value
    for v in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(v, (np.ndarray, DeviceArray)):
            _refuse(where, "a host value, not an array", v)
    return value


class Signature:
    """Binds arguments to a signature as described above."""

    def __init__(self, name: str, text: str) -> None:
        self.name, tokens = name, text.split()
        slash = tokens.index("/") if "/" in tokens else -1
        bar = tokens.index("|") if "|" in tokens else len(tokens)
        tokens = {i: token for i, token in enumerate(tokens) if token not in "/|"}
        names = {i: token.strip("*!~+?") for i, token in tokens.items()}
        starred = [names[i] for i in tokens if tokens[i][0] == "*"]
        self.variadic = starred[0] if starred else None
        self.positional = [names[i] for i in tokens if i < bar and names[i] not in starred]
        self.keywords = [names[i] for i in tokens if i > slash]
        self.optional = {names[i] for i in tokens if tokens[i][-1] == "?"}
        self.required = {names[i] for i in tokens if tokens[i][-1] in "!~*+"} - set(starred)
        self.kinds = {names[i]: tokens[i].removesuffix("?")[-1] for i in tokens}

    def bind(self, args: tuple, kwargs: dict) -> tuple[list, dict]:
        """Take the arrays out of the arguments, or raise ``TypeError``."""
        names = self.positional[: len(args)]
        if len(args) > len(names) and self.variadic is None:
            raise TypeError(f"{self.name}: at most {len(names)} arguments by position")
        names += [self.variadic] * (len(args) - len(names))
        if wrong := (kwargs.keys() - set(self.keywords)) | (kwargs.keys() & set(names)):
            raise TypeError(f"{self.name}: keywords {sorted(wrong)} are not in CuPy or given twice")
        if missing := self.required - set(names) - kwargs.keys():
            raise TypeError(f"{self.name}: {sorted(missing)} missing")
        kwargs = {n: v for n, v in kwargs.items() if not (v is None and n in self.optional)}
        bound = [self._take(n, v) for n, v in zip(names, args, strict=True)]
        return bound, {n: self._take(n, v) for n, v in kwargs.items()}

    def _take(self, name: str, value: Any) -> Any:
        return _unwrap(f"{self.name}, argument {name}", self.kinds[name], value)


def _hidden_launches(x: np.ndarray, y: np.ndarray, out: np.ndarray | None) -> int:
    """Launches that CuPy adds to a batched product (as read in its ``_routines_linalg.pyx``).

    One per operand that is not C-contiguous, three for the pointers of a broadcast product, one
    for an ``out`` that cuBLAS cannot write into.
    """
    if max(x.ndim, y.ndim) <= 2:
        return 0
    copies = sum(not a.flags.c_contiguous for a in (x, y))
    lead_x, lead_y = ((1,) * (8 - a.ndim) + a.shape[:-2] for a in (x, y))
    unfit = out is not None and not (out.flags.c_contiguous and out.dtype == np.result_type(x, y))
    return copies + 3 * (lead_x != lead_y) + unfit


def _offer(name: str, function: Callable, text: str, group: str, method: bool = False) -> Callable:
    """Make a device function (or method) of NumPy's: check, run, count, wrap."""
    signature = Signature(name, text)
    inputs = function.nin if isinstance(function, np.ufunc) else 0

    def call(*args: Any, **kwargs: Any) -> Any:
        bound, keywords = signature.bind(args[method:], kwargs)
        if _inside_kernel():
            _check_fusable(name, args, kwargs)
        if inputs and not any(isinstance(a, DeviceArray) for a in args[:inputs]):
            raise TypeError(f"{name}: expected at least one device array")
        if method:
            bound.insert(0, _unwrap(name, "!", args[0]))
        with np.errstate(all="ignore"):  # a GPU gives no floating-point warnings
            result = function(*bound, **keywords)
        viewed = group == "view" and np.may_share_memory(result, bound[0])
        events = {"calls": int(group != "free" and not viewed), "syncs": int(group == "sync")}
        if name == "matmul":
            events["hidden"] = _hidden_launches(*bound[:2], keywords.get("out"))
        if any(events.values()):
            _record(name, **{event: n for event, n in events.items() if n})
        return _wrap(result) if kwargs.get("out") is None else kwargs["out"]

    return call


def _check_fusable(name: str, args: tuple, kwargs: dict) -> None:
    """Refuse what CuPy's ``fuse`` refuses, and what it would do otherwise than NumPy."""
    if name not in ELEMENTWISE:
        raise TypeError(f"{name}: CuPy cannot fuse it")
    values = args[1:] if name == "where" else args
    arrays = [a for a in values if isinstance(a, DeviceArray)]
    typed = [a for a in values if isinstance(a, np.generic)]
    if not arrays and not typed:
        raise TypeError(f"{name}: of numbers alone CuPy's fuse makes half precision")
    out = kwargs.get("out")
    if out is not None and out._a.shape != _fusing.shape:
        raise TypeError(f"{name}: writes to an array smaller than the kernel's {_fusing.shape}")


class FusedNumber:
    """A number given to a fused function: CuPy would compute with two of them in half precision."""

    __array_ufunc__ = None

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        raise TypeError("a number given to a fused function is not known when the kernel is made")


def _with_number(name: str, reflected: bool) -> Callable:
    def operation(number: FusedNumber, other: Any) -> Any:
        if not isinstance(other, DeviceArray):
            raise TypeError("of two numbers CuPy's fuse makes half precision: pass the result")
        pair = (other, number) if reflected else (number, other)
        return getattr(xp, name)(*pair)

    return operation


def fuse(*functions: Callable, kernel_name: str | None = None) -> Callable:
    """Run a function of device arrays, Python numbers and None as one kernel, which counts once."""
    if not functions:
        return lambda function: fuse(function, kernel_name=kernel_name)
    (function,) = functions

    def kernel(*args: Any) -> Any:
        arrays = [a for a in args if isinstance(a, DeviceArray)]
        for a in args:
            known = isinstance(a, (DeviceArray, int, float, type(None)))
            if not known or isinstance(a, (bool, np.generic)):
                _refuse("fused function", "device arrays, Python numbers or None", a)
        if not arrays or _inside_kernel():
            raise TypeError("fused function: expected a device array, outside of other kernels")
        plain = [a if isinstance(a, DeviceArray) or a is None else FusedNumber(a) for a in args]
        _fusing.shape = np.broadcast_shapes(*(a._a.shape for a in arrays))
        shape = _fusing.shape
        try:
            found = function(*plain)
        finally:
            _fusing.shape = None
        _record(kernel_name or function.__name__, calls=1)
        if isinstance(found, tuple):
            return tuple(_kernel_output(one, arrays, shape) for one in found)
        return None if found is None else _kernel_output(found, arrays, shape)

    return kernel


def _kernel_output(found: Any, arrays: list[DeviceArray], shape: tuple[int, ...]) -> DeviceArray:
    """A result of a kernel: an array of its own, of the kernel's shape."""
    if not isinstance(found, DeviceArray) or any(found is a for a in arrays):
        _refuse("result of a fused function", "a new array", found)
    return DeviceArray(np.array(np.broadcast_to(found._a, shape)))


class DeviceArray:
    """A duck array on the pretended device; a subclass of ``ndarray`` would leak into NumPy."""

    __slots__ = ("_a", "device")
    __array_priority__ = 100
    __iter__ = None  # CuPy would give one view per row
    __contains__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, a: np.ndarray) -> None:
        self._a = a
        self.device = current_device()

    T = property(lambda self: DeviceArray(self._a.T))
    mT = property(lambda self: DeviceArray(self._a.mT))

    @property
    def flags(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(**{n: getattr(self._a.flags, n) for n in FLAGS.split()})

    def __len__(self) -> int:
        return len(self._a)

    def __repr__(self) -> str:
        return f"DeviceArray({self._a!r})"  # for pytest's reports; CuPy would synchronise

    def __array__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Send a ufunc of NumPy's to xp's of the same name, as CuPy does."""
        given = (*inputs, *kwargs.get("out", ()))
        known = all(isinstance(x, (DeviceArray, np.ndarray)) or _is_scalar(x) for x in given)
        offered = vars(xp).get(ufunc.__name__)
        if method != "__call__" or offered is None or not known:
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        if ufunc.__name__ in COMPARISONS:
            inputs = tuple(
                x.item() if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in inputs
            )
        return offered(*inputs, **kwargs)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> Any:
        """Send a function of NumPy's to xp's of the same path, as CuPy does."""
        path = [*function.__module__.split(".")[1:], function.__name__]
        try:
            offered = operator.attrgetter(".".join(path))(xp)
        except AttributeError:
            return NotImplemented
        if any(kind not in (DeviceArray, np.ndarray) for kind in types):
            return NotImplemented
        return offered(*args, **kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What tells a device array from others; without an address, for there is none."""
        return {"shape": self.shape, "typestr": self.dtype.str, "version": 3}

    def __format__(self, spec: str) -> str:
        return format(self.get() if self.ndim else self.item(), spec)

    def __imatmul__(self, other: Any) -> None:
        raise TypeError("CuPy has no @=: Python would bind a new array to the name")

    def __reduce__(self) -> tuple:
        return xp.asarray, (self.get(),)

    def __getitem__(self, index: Any) -> DeviceArray:
        if _inside_kernel():
            raise TypeError("inside of CuPy's fuse arrays take no index")
        index = self._sent(index)
        host, arrays = self._index(index)
        mask = any(a.dtype.kind == "b" for a in arrays)
        if arrays:
            _record("gather", calls=1, **({"syncs": 1} if mask else {}))
        return DeviceArray(np.asarray(self._a[host]))

    def __setitem__(self, index: Any, value: Any) -> None:
        host, arrays = self._index(index)
        if [a.dtype.kind for a in arrays] == ["b"] and _is_scalar(value):
            _record("setitem", calls=1)  # one kernel, which needs no list of places
            self._a[host] = value
            return
        if arrays:
            raise TypeError("no assignment at index arrays (undefined at equal indices): xp.where")
        source, target = _unwrap("setitem", "~", value), self._a[host]
        if getattr(source, "__array_interface__", None) != target.__array_interface__:
            _record("setitem", calls=1)
            with np.errstate(all="ignore"):
                target[...] = source
        # else: x[i] += y ends with assigning x[i] to itself, which CuPy skips too

    def _sent(self, index: Any) -> Any:
        """Copy host arrays and lists of an index to the device, as CuPy does before it gathers."""
        parts = index if isinstance(index, tuple) else (index,)
        return tuple(
            asarray(np.asarray(part)) if isinstance(part, (np.ndarray, list)) else part
            for part in parts
        )

    def _index(self, index: Any) -> tuple[tuple, list[np.ndarray]]:
        """NumPy's form of an index, and its arrays; with an ellipsis even one number is a view."""
        parts = index if isinstance(index, tuple) else (index,)
        kinds = (int, np.integer, slice, DeviceArray, type(None), type(...))
        for part in parts:
            if not isinstance(part, kinds) or isinstance(part, bool):
                _refuse("index", "an integer, slice or device array (no host array or list)", part)
        host = tuple(getattr(part, "_a", part) for part in parts)
        arrays = [part for part in host if isinstance(part, np.ndarray)]
        return host if any(part is ... for part in host) else (*host, ...), arrays


def _to_host(name: str) -> Callable:
    def convert(self: DeviceArray) -> Any:
        _record(name, syncs=1, to_host=1)
        return getattr(self._a, "copy" if name == "get" else name)()

    return convert


def _attribute(name: str) -> property:
    def value(self: DeviceArray) -> Any:
        if _inside_kernel() and name not in ("dtype", "ndim"):
            raise AttributeError(f"inside of CuPy's fuse arrays have no {name}")
        return getattr(self._a, name)

    return property(value)


def _absolute(self: DeviceArray) -> DeviceArray:
    if _inside_kernel():
        raise TypeError("CuPy's fuse has no abs(x): use xp.absolute(x)")
    return xp.absolute(self)


def _fill_device_array(offered: dict[str, Callable]) -> None:
    for special, name in (OPERATORS | PLAIN).items():
        setattr(DeviceArray, f"__{special}__", offered[name])
        if name not in ("negative", "absolute", "invert", "matmul"):
            setattr(FusedNumber, f"__{special}__", _with_number(name, False))
            setattr(FusedNumber, f"__r{special}__", _with_number(name, True))
    DeviceArray.__abs__ = _absolute
    for special, name in OPERATORS.items():
        setattr(DeviceArray, f"__r{special}__", lambda b, a, f=offered[name]: f(a, b))
        if special != "matmul":  # CuPy has no @=
            setattr(DeviceArray, f"__i{special}__", lambda a, b, f=offered[name]: f(a, b, out=a))
    DeviceArray.__deepcopy__ = lambda self, memo: self.copy()
    for name in TO_HOST.split():
        setattr(DeviceArray, name, _to_host(name))
    for name, (group, text) in methods().items():
        setattr(DeviceArray, name, _offer(name, getattr(np.ndarray, name), text, group, True))
    for name in ATTRIBUTES.split():
        setattr(DeviceArray, name, _attribute(name))


class Generator:
    """The part of ``cupy.random.Generator`` that NumPy's has too, with the same arguments."""

    def __init__(self, seed: Any = None) -> None:
        _record("default_rng")
        self._rng = np.random.default_rng(seed)

    def __reduce__(self) -> None:
        raise TypeError("generators of CuPy can be neither copied nor pickled")

    def random(self, size: Any = None, dtype: Any = np.float64) -> DeviceArray:
        _record("random", calls=1)
        return _wrap(self._rng.random(size, dtype))

    def standard_normal(self, size: Any = None, dtype: Any = np.float64) -> DeviceArray:
        _record("standard_normal", calls=1)
        return _wrap(self._rng.standard_normal(size, dtype))


class Device:
    """One of ``devices`` devices, each thread's own inside a ``with`` block; the first by default."""

    def __init__(self, number: int | None = None) -> None:
        self.id = current_device() if number is None else number
        if not 0 <= self.id < machine.devices:
            raise RuntimeError(f"cudaErrorInvalidDevice: {self.id}")

    def __enter__(self) -> Device:
        _threads.stack = [*getattr(_threads, "stack", [0]), self.id]
        return self

    def __exit__(self, *error: Any) -> None:
        _threads.stack = _threads.stack[:-1]

    def synchronize(self) -> None:
        _record("synchronize", syncs=1)


def _stream() -> types.SimpleNamespace:
    """The current stream: all that one can do here is wait for it."""
    return types.SimpleNamespace(synchronize=lambda: _record("synchronize", syncs=1))


def _pool() -> types.SimpleNamespace:
    """The memory pool, which holds nothing unused."""
    return types.SimpleNamespace(free_bytes=lambda: 0, free_all_blocks=lambda: None)


def asarray(a: Any, dtype: Any = None) -> DeviceArray:
    """The only way in: a NumPy array or a scalar is copied and counted; lists are refused."""
    if isinstance(a, DeviceArray):
        return a if dtype is None else a.astype(dtype, copy=False)
    if not isinstance(a, np.ndarray) and not _is_scalar(a):
        _refuse("asarray", "a NumPy array, a scalar or a device array", a)
    copied = _wrap(np.array(a, dtype))
    _record("asarray", to_device=1)
    return copied


def _module(name: str, members: dict[str, Any]) -> types.ModuleType:
    def absent(attribute: str) -> None:
        raise AttributeError(f"the device double has no {name}.{attribute}: see tests/double.py")

    module = types.ModuleType(name)
    module.__dict__.update(members, __getattr__=absent)
    return module


def _make_xp() -> types.ModuleType:
    flat: dict[str, Any] = {
        path: _offer(path, operator.attrgetter(path)(np), text, group)
        for path, (group, text) in functions().items()
    }
    _fill_device_array(flat)
    flat |= {name: getattr(np, name) for name in CONSTANTS.split()}
    flat |= {name: lambda a, name=name: getattr(a, name) for name in TOLD.split()}
    flat["__version__"] = "14.0.0"
    flat |= {"ndarray": DeviceArray, "asarray": asarray, "asnumpy": DeviceArray.get}
    flat["fuse"] = fuse
    flat |= {"is_available": lambda: True, "cuda.is_available": lambda: True}
    flat |= {"cuda.Device": Device, "cuda.get_current_stream": _stream}
    flat["cuda.runtime.getDeviceCount"] = lambda: machine.devices
    flat["cuda.runtime.getDeviceProperties"] = lambda device: {"name": b"Double"}
    flat["cuda.runtime.memGetInfo"] = lambda: (machine.memory, machine.memory)
    flat["get_default_memory_pool"] = _pool
    flat |= {"random.default_rng": Generator, "random.Generator": Generator}
    flat["may_share_memory"] = lambda a, b: np.may_share_memory(a._a, b._a)
    # Home by home, the deepest first: lib.stride_tricks.NAME goes into lib.stride_tricks.
    while homes := {path.rpartition(".")[0] for path in flat} - {""}:
        home = max(homes, key=len)
        inside = [path for path in flat if path.rpartition(".")[0] == home]
        flat[home] = _module(f"xp.{home}", {p.rpartition(".")[2]: flat.pop(p) for p in inside})
    return _module("xp", flat)


xp = _make_xp()
# An array's module is found by the home of its type, as ``cupy`` by ``cupy.ndarray``.
DeviceArray.__module__ = "device_double"
sys.modules["device_double"] = xp
