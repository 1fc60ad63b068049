"""Fixtures: the same test bodies run over NumPy, the device double and CuPy (with a GPU)."""

from __future__ import annotations

import double
import numpy as np
import pytest

BACKENDS = ("numpy", "double", pytest.param("cupy", marks=pytest.mark.gpu))


def _make(name, dtype):
    from dlcore.backend import Backend, get_backend

    if name == "double":
        return Backend("double", double.xp, np.dtype(dtype))
    if name == "cupy":
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.is_available():
            pytest.skip("CuPy sees no GPU")
    return get_backend(name, dtype)  # a GPU that is there and fails is an error, no skip


@pytest.fixture(autouse=True)
def devices_that_were_used(monkeypatch):
    """A device that one test has asked for is not named in the verdicts of the next."""
    from dlcore import backend

    monkeypatch.setattr(backend, "_USED", {})


@pytest.fixture(params=BACKENDS)
def backend(request):
    return _make(request.param, "float32")


@pytest.fixture(params=BACKENDS)
def backend64(request):
    return _make(request.param, "float64")
