"""Seeds to streams of random numbers: one independent host stream per (seed, purpose)."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from dlcore import checks


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return the generator of one seed and purpose, e.g. ``stream(3, "batches", epoch)``.

    The same arguments always give the same numbers, whatever was drawn before; other arguments give
    independent ones (``SeedSequence`` of seed, a checksum of ``purpose``, and ``index``).
    """
    key = [checks.integer("seed", seed, 0), zlib.crc32(purpose.encode()), *index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


class Streams:
    """The host streams of a network's replicas.

    ``seeds`` is one integer (no replica axis) or a sequence, one per replica; replicas with equal
    seeds get equal draws, made once. Raises ``ValueError`` for no seeds, ``TypeError`` for others.

    >>> Streams([4, 7, 4]).draw("weights", lambda rng: rng.random(2)).shape
    (3, 2)
    """

    def __init__(self, seeds: int | Sequence[int]) -> None:
        if isinstance(seeds, (Sequence, np.ndarray)) and not isinstance(seeds, str):
            if len(seeds) == 0:
                raise ValueError("seeds: expected at least one seed, got none")
            self.shape: tuple[int, ...] = (len(seeds),)
            self.seeds = tuple(checks.integer("seeds", s, 0) for s in seeds)
        else:
            self.shape, self.seeds = (), (checks.integer("seeds", seeds, 0),)
        self.unique = tuple(dict.fromkeys(self.seeds))
        self.index = np.array([self.unique.index(s) for s in self.seeds])

    def draw(
        self, purpose: str, function: Callable[[np.random.Generator], np.ndarray], *index: int
    ) -> np.ndarray:
        """Stack ``function(rng)`` over replicas: shape ``replicas + draw``, one draw per seed."""
        draws = np.stack([function(stream(seed, purpose, *index)) for seed in self.unique])
        return draws[self.index] if self.shape else draws[0]
