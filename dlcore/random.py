"""Seeds to streams of random numbers: one independent host stream per (seed, purpose, place)."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlcore import checks
from dlcore.backend import Backend

#: Purposes whose keys are plain words (seed, checksum of the purpose, index), and how many numbers
#: their index has. One length for each, and no two checksums alike: no two such keys are equal.
WORDS = {"weights": 1, "lsuv": 1, "batches": 1, "augment": 1, "noise": 3}
WORD = 2**32


def stream(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """Return the generator of one seed and purpose, e.g. ``stream(3, "batches", epoch)``.

    The same arguments always give the same numbers, whatever was drawn before; any others give
    independent ones: ``stream(3, "x")``, ``stream(3, "x", 0)`` and ``stream(3, "x", 0, 0)`` are three
    streams. ``seed`` and ``index`` are integers >= 0 of any size.

    >>> stream(3, "x").random() == stream(3, "x", 0).random()
    False
    """
    checks.instance("purpose", purpose, str)
    seed = checks.integer("seed", seed, 0)
    place = [checks.integer("index", i, 0) for i in index]
    words = np.random.SeedSequence(_key(seed, purpose, place))
    return np.random.Generator(np.random.PCG64(words))


def seed_sequence(name: str, seed: int, purpose: int) -> np.random.SeedSequence:
    """Return the key of one seed and a purpose that is a number below 2³² (those of data sets).

    ``name`` is the seed's, for the message. Seeds from 2³² on fill several words of NumPy's
    ``SeedSequence``, of which the last would be taken for the purpose: they get keys of another kind.
    """
    seed = checks.integer(name, seed, 0)
    word = checks.integer("purpose", purpose, 0)
    checks.expect(word < WORD, "purpose", "an integer below 2**32", word)
    key = [seed, word] if seed < WORD else _digest("data", [seed], [word], "")
    return np.random.SeedSequence(key)


def _key(seed: int, purpose: str, index: Sequence[int]) -> list[int]:
    """Return the words of a key: plain ones where they can be told apart, else those of a digest.

    ``SeedSequence`` fills short keys up with zeros, and splits numbers from 2³² on into words.
    """
    short = all(number < WORD for number in (seed, *index))
    if short and WORDS.get(purpose) == len(index):
        return [seed, zlib.crc32(purpose.encode()), *index]
    return _digest("host", [seed], index, purpose)


def _digest(kind: str, seeds: Sequence[int], index: Sequence[int], purpose: str) -> list[int]:
    """Return the eight words of SHA-256 of a text that has its parts' ends marked.

    ``kind`` is "host", "device" or "data"; numbers are hexadecimal, so that only the last part may
    hold a semicolon.
    """
    numbers = [",".join(f"{number:x}" for number in part) for part in (seeds, index)]
    text = ";".join([kind, *numbers, purpose])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return [int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)]


Draw = Callable[[np.random.Generator], np.ndarray]


class Streams:
    """The host streams of a network's replicas.

    ``seeds`` is one integer (no replica axis) or a sequence, one per replica; replicas with equal
    seeds get equal draws, made once. Raises ``ValueError`` for no seeds, ``TypeError`` for others.

    >>> Streams([4, 7, 4]).draw("weights", lambda rng: rng.random(2)).shape
    (3, 2)
    """

    def __init__(self, seeds: int | Sequence[int]) -> None:
        if np.iterable(seeds) and not isinstance(seeds, (str, set, dict)):
            given = list(seeds)
            checks.expect(given, "seeds", "at least one seed", "none")
            self.shape: tuple[int, ...] = (len(given),)
            self.seeds = tuple(checks.integer("seeds", s, 0) for s in given)
        else:
            self.shape, self.seeds = (), (checks.integer("seeds", seeds, 0),)
        self.unique = tuple(dict.fromkeys(self.seeds))
        #: Generators on a device that are in use, by purpose and place, with the epoch (see ``Noise``).
        self.running: dict[tuple, tuple[int, Any]] = {}
        self.index = np.array([self.unique.index(s) for s in self.seeds])
        self.index.flags.writeable = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave out generators of a device, which cannot be copied."""
        return vars(self) | {"running": {}}

    def draw(self, purpose: str, function: Draw, *index: int) -> np.ndarray:
        """Stack ``function(rng)`` over replicas: shape ``replicas + draw``, one draw per seed."""
        checks.function("function", function, "a function of a generator")
        draws = np.stack([function(stream(seed, purpose, *index)) for seed in self.unique])
        return draws[self.index] if self.shape else draws[0]


class Noise:
    """Random arrays for dropout, noise and augmentation, drawn while training.

    NumPy: host stream ``(seed, purpose, *index)``, one draw per unique seed: replicas of one seed
    share their noise, and replica r has the bits of its seed alone. Other backends: one generator on
    the device for all replicas, keyed by all seeds, of equal distribution, without copies from the
    host; where the last number of ``index``, the epoch, follows that of a ``Noise`` that has drawn, it goes
    on with its generator. CuPy's generators are told apart by 32 bits of their key. All draws are of
    float32, so that float64 nets have the masks of float32 ones.

    >>> from dlcore import get_backend
    >>> noise = Noise(Streams([4, 7, 4]), get_backend("numpy"), "noise", 0)
    >>> draw = noise.uniform((3, 2))
    >>> draw.dtype, bool((draw[0] == draw[2]).all()), bool((draw[0] == draw[1]).any())
    (dtype('float32'), True, False)
    """

    def __init__(self, streams: Streams, backend: Backend, purpose: str, *index: int) -> None:
        self.streams = checks.instance("streams", streams, Streams)
        self.backend = checks.instance("backend", backend, Backend)
        self.dtype, self.on_host = backend.dtype, backend.xp is np
        if self.on_host:
            self.generators = [stream(seed, purpose, *index) for seed in streams.unique]
        else:
            checks.instance("purpose", purpose, str)
            place = [checks.integer("index", i, 0) for i in index]
            words = _digest("device", streams.seeds, place, purpose)
            state = np.random.SeedSequence(words).generate_state(1, np.uint64)
            self.seed = int(state.item())
            self.place, self.number = (purpose, *index[:-1]), (index or (None,))[-1]
            self.generators = []  # made at the first draw, see _on_device

    def __getstate__(self) -> dict[str, Any]:
        """Leave out a device's generator, which cannot be copied: a copy begins its noise anew."""
        return vars(self) | ({} if self.on_host else {"generators": []})

    def _on_device(self) -> Any:
        """Return the generator of a device: that of the epoch before, where there was one.

        Making one fills the states of 81,920 threads. So the last number of the key, the epoch, may go on
        with what the one before it drew from; any other, and the first of a run, begins with its own.
        """
        if not self.generators:
            last, generator = self.streams.running.get(self.place, (None, None))
            begins = last is None or self.number is None or self.number < 2
            if begins or self.number != last + 1:
                generator = self.backend.xp.random.default_rng(self.seed)
            self.generators = [generator]
            if self.number is not None:
                self.streams.running[self.place] = (self.number, generator)
        return self.generators[0]

    def uniform(self, shape: tuple[int, ...]) -> Any:
        """Return uniform numbers in [0, 1), of the backend's type; ``shape`` begins with the replicas."""
        return self._draw("random", shape)

    def normal(self, shape: tuple[int, ...]) -> Any:
        """Return normal numbers, mean 0 and variance 1; ``shape`` begins with the replicas."""
        return self._draw("standard_normal", shape)

    def _draw(self, kind: str, shape: tuple[int, ...]) -> Any:
        axes = len(self.streams.shape)
        if tuple(shape[:axes]) != self.streams.shape:
            expected = ", ".join(map(str, (*self.streams.shape, "...")))
            raise ValueError(f"shape: expected ({expected}), replicas first, got {tuple(shape)}")
        if not self.on_host:
            draws = getattr(self._on_device(), kind)(shape, dtype=np.float32)
            return draws.astype(self.dtype, copy=False)
        draws = np.empty((len(self.generators), *shape[axes:]), dtype=np.float32)
        for i, generator in enumerate(self.generators):
            getattr(generator, kind)(out=draws[i : i + 1], dtype=np.float32)
        draws = draws.astype(self.dtype, copy=False)
        several = draws if len(draws) == len(self.streams.seeds) else draws[self.streams.index]
        return several if axes else several[0]
