"""NumPy or CuPy, chosen once and passed on: the only module that imports CuPy.

The array module is held as ``backend.xp``. Arrays cross between host and device only through
``asarray`` and ``to_numpy``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import threadpoolctl

from dlcore import checks


@dataclass(frozen=True)
class Backend:
    """An array module with its floating-point type.

    ``name`` is ``"numpy"`` or ``"cupy"``, ``xp`` the module, ``dtype`` float32 (default) or float64.
    """

    name: str
    xp: ModuleType
    dtype: np.dtype = field(default=np.dtype("float32"))

    def __reduce__(self):
        return get_backend, (self.name, self.dtype.name)

    def __copy__(self) -> Backend:
        """Return the backend itself: nothing in it changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        """Return the backend itself: nothing in it changes, and modules cannot be copied."""
        return self

    def asarray(self, x: Any, dtype: Any = None) -> Any:
        """Copy a host array to the device: the only way in. ``dtype`` defaults to the backend's.

        An array that is on the device already is only cast.
        """
        if on_device(x) and self.xp is not np:
            return self.xp.asarray(x, dtype=dtype or self.dtype)
        return self.xp.asarray(np.asarray(x, dtype=dtype or self.dtype))

    def to_numpy(self, x: Any) -> np.ndarray:
        """Copy a device array to the host: the only way out; it waits for the device."""
        return np.asarray(to_host(x))

    def synchronize(self) -> None:
        """Wait until all queued work is done (nothing to do on NumPy)."""
        if self.xp is not np:
            self.xp.cuda.get_current_stream().synchronize()

    def description(self) -> str:
        """Return module, version and devices, such as "CuPy 14.0.1 on 2 × Tesla T4"."""
        if self.xp is np:
            return f"NumPy {np.__version__}"
        devices = self.devices()
        name = self.xp.cuda.runtime.getDeviceProperties(devices[0])["name"].decode()
        several = f"{len(devices)} × " if len(devices) > 1 else ""
        return f"CuPy {self.xp.__version__} on {several}{name}"

    def devices(self) -> list[int]:
        """Return the numbers of the devices; the host has none."""
        return [] if self.xp is np else list(range(self.xp.cuda.runtime.getDeviceCount()))

    def on(self, device: int) -> contextlib.AbstractContextManager:
        """Return a context in which this thread's arrays are made on a device, by its number."""
        return contextlib.nullcontext() if self.xp is np else self.xp.cuda.Device(device)

    def free_memory(self) -> int:
        """Return the bytes that are free on the current device, with those its pool holds unused."""
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free + self.xp.get_default_memory_pool().free_bytes())

    def release(self) -> None:
        """Give unused memory of the pool back to the device."""
        if self.xp is not np:
            self.xp.get_default_memory_pool().free_all_blocks()

    def quiet(self) -> contextlib.AbstractContextManager:
        """Silence NumPy's floating-point warnings: a diverging replica is marked, not shouted."""
        return np.errstate(all="ignore") if self.xp is np else contextlib.nullcontext()


def on_device(x: Any) -> bool:
    """Return whether x is an array on a device, which NumPy must not touch."""
    return hasattr(x, "__cuda_array_interface__") and hasattr(x, "get")


def to_host(x: Any) -> Any:
    """Return x itself, or its copy on the host: of a device array, or of a list or tuple of some.

    A labelled array that holds one (``xarray``) is copied with its labels.
    """
    if on_device(x):
        return x.get()
    if isinstance(x, (list, tuple)) and any(map(on_device, x)):
        return [to_host(one) for one in x]
    if hasattr(x, "dims") and on_device(getattr(x, "data", None)):
        return x.copy(True, x.data.get())
    return x


def array_module(x: Any) -> ModuleType:
    """Return the module whose functions take the array x: NumPy, or the module of a device array.

    >>> array_module(np.zeros(3)).__name__
    'numpy'
    """
    if not on_device(x):
        return np
    home = type(x).__module__.partition(".")[0]
    return sys.modules[home]


def fuse(xp: Any, function: Callable, name: str) -> Callable:
    """Return ``function`` as one kernel of the module: itself on NumPy.

    It may use operators and elementwise functions of ``xp`` on its arguments, which are arrays,
    Python numbers or None, and change arrays in place that have the shape of the result. Two numbers
    must not meet in it, for CuPy computes with them in half precision: pass ``1 - beta``, not ``beta``.
    """
    return function if xp is np else xp.fuse(kernel_name=name)(function)


def fused(function: Callable) -> Callable:
    """Let a device run ``function(xp, *arguments)`` as one kernel; see ``fuse`` for what it may do.

    On NumPy it is called as it stands: its readable form is the reference.
    """
    kernels: dict[Any, Callable] = {}

    @functools.wraps(function)
    def call(xp: Any, *arguments: Any) -> Any:
        if xp is np:
            return function(np, *arguments)
        if xp not in kernels:
            part = functools.partial(function, xp)
            kernels[xp] = fuse(xp, part, function.__name__.strip("_"))
        return kernels[xp](*arguments)

    FUSED[f"{function.__module__}.{function.__name__}"] = function
    return call


#: All functions that ``fused`` has seen, by module and name: what tests try on CuPy.
FUSED: dict[str, Callable] = {}


def get_backend(name: str | Backend = "auto", dtype: Any = "float32") -> Backend:
    """Return the backend called ``"numpy"``, ``"cupy"`` or ``"auto"``.

    ``"auto"`` (default) follows the environment variable ``DLCORE_BACKEND``; where that is unset it
    takes CuPy if a small product, an elementwise kernel and a random draw work on a GPU, else NumPy.
    ``dtype`` is "float32" (default) or "float64". A ``Backend`` is returned as it is. Raises
    ``ValueError`` for an unknown name or type and ``RuntimeError`` where CuPy was asked for and cannot
    be used.
    """
    if isinstance(name, Backend):
        return _noted(name)
    kinds = [np.dtype(kind) for kind in ("float32", "float64") if dtype in (kind, np.dtype(kind))]
    good = kinds and dtype is not None  # which NumPy takes for float64
    checks.expect(good, "dtype", "float32 or float64", repr(dtype))
    asked = os.environ.get("DLCORE_BACKEND", "auto") if name == "auto" else name
    checks.choice("backend", asked, "auto", "numpy", "cupy")
    if asked == "numpy":
        return Backend("numpy", np, kinds[0])
    try:
        return _noted(Backend("cupy", _usable_cupy(), kinds[0]))
    except RuntimeError as error:
        if asked == "cupy":
            raise
        if "not installed" not in str(error) and "no GPU" not in str(error):
            warnings.warn(f"dlcore runs on NumPy: {error}", RuntimeWarning, stacklevel=2)
        return Backend("numpy", np, kinds[0])


#: Backends of the devices that this process has asked for, by array module.
_USED: dict[Any, Backend] = {}


def _noted(backend: Backend) -> Backend:
    """Remember that a device is used, and return its backend."""
    if backend.xp is not np:
        _USED[backend.xp] = backend
    return backend


def description() -> str:
    """Return what this process computes with: NumPy, and the devices that it has asked for.

    >>> description().startswith("NumPy ")
    True
    """
    devices = [backend.description() for backend in _USED.values()]
    return ", ".join([f"NumPy {np.__version__}", *devices])


@cache
def _usable_cupy() -> ModuleType:
    """Return ``cupy`` after trying it, for it imports and half works without a usable GPU."""
    advice = "install dlcore[cuda12] or dlcore[cuda13] on a machine with an NVIDIA GPU"
    try:
        import cupy
    except ImportError:
        raise RuntimeError(f"backend 'cupy': CuPy is not installed; {advice}") from None
    if int(cupy.__version__.split(".")[0]) < 14:
        raise RuntimeError(f"backend 'cupy': expected CuPy >= 14, got {cupy.__version__}; {advice}")
    if not cupy.is_available():
        raise RuntimeError(f"backend 'cupy': CuPy sees no GPU; {advice}")
    try:
        x = cupy.ones((2, 3, 3), dtype="float32")
        y = cupy.tanh(x @ x.mT) + cupy.random.default_rng(0).random((3, 3), dtype="float32")
        y.sum().get()
    except Exception as error:  # the driver, the compiler and cuBLAS raise types of their own
        problem = f"backend 'cupy': the GPU failed a small trial ({error}); {advice}"
        raise RuntimeError(problem) from error
    return cupy


_LOCK = threading.Lock()
#: For each caller inside ``one_blas_thread``, the thread counts that were there before the first.
_INSIDE: list[list[tuple[Any, int]]] = []


@contextlib.contextmanager
def one_blas_thread(count: int = 1) -> Iterator[None]:
    """Hold BLAS to one thread inside a ``with`` block, which the bitwise replica contract needs.

    Or to ``count``; of nested limits the outer one holds. BLAS's thread count belongs to the process;
    nested limits of several Python threads would restore one another's. One list under a lock restores
    it when the last caller leaves. A BLAS built with OpenMP has one count per Python thread, which each
    caller sets for itself.
    """
    own = _limit(count, per_thread=True)
    with _LOCK:
        _INSIDE.append(_INSIDE[0] if _INSIDE else _limit(count, per_thread=False))
    try:
        yield
    finally:
        with _LOCK:
            before = _INSIDE.pop()
            if not _INSIDE:
                _set_threads(before)
        _set_threads(own)


@cache
def _blas() -> list[Any]:
    """Return the BLAS libraries of this process, looked for once: that takes milliseconds."""
    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


def _limit(count: int, per_thread: bool) -> list[tuple[Any, int]]:
    """Set the BLAS libraries of one kind to ``count`` threads; return them with their counts before."""
    kinds = [(b, getattr(b, "threading_layer", "") == "openmp") for b in _blas()]
    before = [(b, b.get_num_threads()) for b, openmp in kinds if openmp == per_thread]
    _set_threads([(b, count) for b, _ in before])
    return before


def _set_threads(counts: list[tuple[Any, int]]) -> None:
    for library, count in counts:
        # threadpoolctl 3.7 and later silently ignores all Python threads but the first; ours come and go.
        release = getattr(library, "clear_controlling_thread", lambda force: None)
        release(force=True)
        library.set_num_threads(count)
        release(force=True)
