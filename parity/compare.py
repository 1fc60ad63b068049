"""What the comparisons with PyTorch share: float64, two replicas, relative errors, public names."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import torch

import dlcore

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
for _module in pkgutil.iter_modules(dlcore.__path__):
    importlib.import_module(f"dlcore.{_module.name}")

BACKEND = dlcore.Backend("numpy", np, np.dtype("float64"))
SEEDS = (3, 5)
#: Largest error, relative to the largest element of the array, where the maths is the same.
TOLERANCE = 1e-12


def tensor(array, grad=False):
    return torch.tensor(np.ascontiguousarray(array), requires_grad=grad)


def assert_same(found, expected, tolerance=TOLERANCE):
    """Compare shapes, then values by the largest error relative to the largest value."""
    found = np.asarray(found)
    expected = (
        expected.detach().numpy() if isinstance(expected, torch.Tensor) else np.asarray(expected)
    )
    assert found.shape == expected.shape
    assert found.dtype == np.float64
    error = np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 1e-300)
    assert error <= tolerance, f"relative error {error:.3g}, expected at most {tolerance:g}"


def subclasses(base):
    """Public classes of dlcore below ``base``, however deep."""
    direct = set(base.__subclasses__())
    every = direct.union(*(subclasses(cls) for cls in direct)) if direct else set()
    return {c for c in every if c.__module__.startswith("dlcore") and c.__name__[0] != "_"}


def public(module):
    """Public classes and functions defined (not imported) in a module, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if name[0] != "_"
        and callable(value)
        and (not inspect.isclass(value) or value.__module__ == module.__name__)
        and getattr(value, "__module__", None) == module.__name__
    }
