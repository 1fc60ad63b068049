"""What the numbers were taken on: processor and versions, no names of machines."""

from __future__ import annotations

import platform
from importlib.metadata import version

import threadpoolctl

from dlcore.machine import cores


def describe() -> str:
    """Return the machine string of the results."""
    import numpy  # noqa: F401 (its BLAS must be loaded to be seen)

    blas = next(
        b for b in threadpoolctl.threadpool_info() if "numpy" in b["filepath"] and "version" in b
    )
    packages = [f"{p} {version(d)}" for p, d in _PACKAGES.items()]
    return ", ".join(
        [
            f"{_processor()}, {cores()} cores",
            f"Python {platform.python_version()}",
            *packages,
            f"OpenBLAS {blas['version']} ({blas['architecture']} kernels)",
        ]
    )


_PACKAGES = {
    "NumPy": "numpy",
    "PyTorch": "torch",
    "JAX": "jax",
    "scikit-learn": "scikit-learn",
}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(
                line.split(":")[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
