"""Which arithmetic this process computes in, and how to start one in another.

Training is chaotic: the last bit of a product decides, after some hundred steps, what a network becomes. With
one BLAS thread the bits hang on two things, which both can be chosen before NumPy is imported: OpenBLAS's
*kernel* (``OPENBLAS_CORETYPE``) and NumPy's own *SIMD level* (``NPY_DISABLE_CPU_FEATURES``). Every x86-64
processor with AVX2 can compute with Haswell's kernels and at NumPy's level X86_V3. That is the book's
**canonical** arithmetic, in which its stored outputs are made. It is recognised by its numbers, not by its
settings: `is_canonical` compares a digest.

Nothing here changes a process that imports dlcore; `environment` says what a new process has to be given.
"""

import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import threadpoolctl

from dlcore import checks

#: What `digest` returns in canonical arithmetic. NumPy's wheels 2.0.2 to 2.4.6 give it on Python 3.11 to
#: 3.13; 2.5.5 has a newer LAPACK, whose decompositions in float64 round otherwise.
CANONICAL_DIGEST = "80dfbecef12758977577804967db840b825c5f7a29a78de4fdf24464b496228f"
_KERNEL = "OPENBLAS_CORETYPE"
_DISABLED = "NPY_DISABLE_CPU_FEATURES"
_ENABLED = "NPY_ENABLE_CPU_FEATURES"


@dataclass(frozen=True)
class Arithmetic:
    """OpenBLAS's ``kernel`` and the newest SIMD ``level`` that NumPy may use: "V4", "V3" or "V2"."""

    kernel: str
    level: str


#: The arithmetics that `environment` knows, beside "native", the machine's own.
ARITHMETICS = {
    "canonical": Arithmetic("Haswell", "V3"),
    "skylakex": Arithmetic("SkylakeX", "V4"),
    "sandybridge": Arithmetic("Sandybridge", "V2"),
    "nehalem": Arithmetic("Nehalem", "V2"),
    "katmai": Arithmetic("Katmai", "V2"),
}


def environment(name: str) -> dict[str, str]:
    """Return the environment variables that give a new process the arithmetic called ``name``.

    Parameters
    ----------
    name
        A key of `ARITHMETICS`, or "native" for the machine's own.

    Returns
    -------
    dict
        To be put over ``os.environ`` before NumPy is imported; an empty value counts as none. One BLAS thread
        in each, since two give other bits. "native" leaves the choice of kernels and SIMD level as it is.

    Raises
    ------
    ValueError
        Where there is no arithmetic of this name.
    RuntimeError
        Where this processor or build of NumPy cannot compute so.

    Examples
    --------
    >>> environment("native")["OPENBLAS_NUM_THREADS"]
    '1'
    """
    if problem := why_not(name):
        raise RuntimeError(problem)
    variables = {"OPENBLAS_NUM_THREADS": "1"}
    if name == "native":
        return variables
    chosen = ARITHMETICS[name]
    newer = [feature for feature in _supported() if _level(feature) > chosen.level]
    return variables | {_KERNEL: chosen.kernel, _DISABLED: " ".join(newer), _ENABLED: ""}


def why_not(name: str) -> str:
    """Say in a sentence why this machine cannot compute in the arithmetic ``name``; empty where it can.

    >>> why_not("native")
    ''
    """
    checks.choice("name", name, "native", *ARITHMETICS)
    if name == "native":
        return ""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"arithmetic {name!r}: expected an x86-64 processor, got {platform.machine()}"
    needed = ARITHMETICS[name].level
    best = max((_level(feature) for feature in _supported()), default="V2")
    if best < needed:
        return f"arithmetic {name!r}: expected a processor with x86-64-{needed}, got {best}"
    if not _openblas():
        return f"arithmetic {name!r}: expected NumPy with OpenBLAS, got another BLAS or none"
    return ""


def describe() -> str:
    """Return the arithmetic of this process in a few words: "canonical", or its kernels and SIMD level."""
    if is_canonical():
        return "canonical"
    kernels = ", ".join(f"{name} kernels" for name in _openblas()) or "no OpenBLAS"
    used = ["baseline", *_simd("found")]
    return f"{platform.machine()}, {kernels}, {used[-1]} SIMD"


def is_canonical() -> bool:
    """Tell whether this process computes the bits that the book's outputs were made with."""
    return digest() == CANONICAL_DIGEST


@functools.cache
def digest() -> str:
    """Return the SHA-256 of small products, decompositions, sums, functions and random draws, in hexadecimal.

    The products are small enough for OpenBLAS to take one thread, whatever its setting.
    """
    numbers = np.random.default_rng(0)
    found = hashlib.sha256()
    for dtype in (np.float32, np.float64):
        rows: Any = numbers.standard_normal((23, 50)).astype(dtype)
        weights = numbers.standard_normal((3, 50, 17)).astype(dtype)
        square = np.ascontiguousarray(rows[:, :23])
        results = [rows @ weights, weights.mT @ rows.mT, np.linalg.qr(square)[0]]
        results += [rows.sum(axis=0), rows.mean(axis=1), rows.var(axis=0)]
        positive = np.abs(rows)
        for name in ("exp", "expm1", "tanh", "sin", "cos"):
            results.append(getattr(np, name)(rows))
        for name in ("log", "log1p", "sqrt", "arctan", "cosh"):
            results.append(getattr(np, name)(positive))
        results.append(np.power(positive, dtype(1.7)))
        results.append(numbers.standard_normal(50, dtype=dtype))
        for result in results:
            found.update(np.ascontiguousarray(result).tobytes())
    return found.hexdigest()


def _simd(kind: str) -> list[str]:
    """Return the SIMD features beside its baseline that NumPy has "found", or "not found", to use."""
    build: Any = np.show_config(mode="dicts")
    return build.get("SIMD Extensions", {}).get(kind, [])


def _supported() -> list[str]:
    """Return this processor's SIMD features beside NumPy's baseline, those that are switched off included."""
    disabled = os.environ.get(_DISABLED, "").replace(",", " ").split()
    return [*_simd("found"), *(name for name in _simd("not found") if name in disabled)]


def _level(feature: str) -> str:
    """Return the x86-64 level that a SIMD feature belongs to; NumPy 2.4 gave them new names.

    >>> [_level(name) for name in ("X86_V3", "AVX512_ICL", "AVX2", "FMA3", "SSE42")]
    ['V3', 'V4', 'V3', 'V3', 'V2']
    """
    if feature.startswith("AVX512") or feature == "X86_V4":
        return "V4"
    if feature in ("X86_V3", "AVX", "AVX2", "FMA3", "FMA4", "F16C", "XOP"):
        return "V3"
    return "V2"


def _openblas() -> list[str]:
    """Return the kernels of the OpenBLAS libraries that this process has loaded."""
    libraries = threadpoolctl.threadpool_info()
    kernels = [
        library["architecture"] for library in libraries if library["internal_api"] == "openblas"
    ]
    return list(dict.fromkeys(kernels))
