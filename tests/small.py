"""Small data sets and blueprints that several test files share; importable, so that they pickle."""

from __future__ import annotations

import numpy as np

from dlcore import Dense, Flatten, SimpleRNN, Tanh
from dlcore.datasets import Dataset


def blobs(seed=0, train=60, valid=30, test=20, features=6, classes=3, gap=1.5):
    """Normal clouds around one random centre per class."""
    rng = np.random.default_rng([seed, 17])
    centres = gap * np.random.default_rng(5).standard_normal((classes, features))
    parts = {}
    for part, n in (("train", train), ("valid", valid), ("test", test)):
        y = np.arange(n) % classes
        parts[f"x_{part}"] = centres[y] + rng.standard_normal((n, features))
        parts[f"y_{part}"] = y
    return Dataset(**parts, name="blobs", classes=classes)


def sequences(seed=0, train=40, valid=20, test=20):
    """Images of 5 rows, to be read row by row."""
    flat = blobs(seed, train, valid, test, features=10)
    x = {k: getattr(flat, k).reshape(-1, 5, 2, 1) for k in ("x_train", "x_valid", "x_test")}
    y = {k: getattr(flat, k) for k in ("y_train", "y_valid", "y_test")}
    return Dataset(**x, **y, name="sequences", classes=3)


def rnn(units=4, activation=Tanh):
    """A recurrent net over the rows of ``sequences``."""
    return [Flatten(2), SimpleRNN(2, units, activation), Dense(units, 3, "glorot_normal")]


def parameters(network, r=None):
    """All parameters of replica r (of the only one, if None) in one vector."""
    views = [getattr(network.layers[s.layer], s.name) for s in network.slots]
    views = [network.backend.to_numpy(v) for v in views]
    return np.concatenate([(v if r is None else v[r]).ravel() for v in views])


def gradients(network, r=None):
    """All gradients, as ``parameters`` gives parameters."""
    views = [getattr(network.layers[s.layer], "d" + s.name) for s in network.slots]
    views = [network.backend.to_numpy(v) for v in views]
    return np.concatenate([(v if r is None else v[r]).ravel() for v in views])


def subclasses(base):
    """Public classes of dlcore below ``base``, however deep."""
    found = {base}
    while any(set(c.__subclasses__()) - found for c in found):
        found |= {d for c in found for d in c.__subclasses__()}
    return {c for c in found - {base} if c.__module__.startswith("dlcore") and c.__name__[0] != "_"}
