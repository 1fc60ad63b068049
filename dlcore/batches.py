"""Data on the device: the rows of a part, gathered by replica."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dlcore import checks
from dlcore.datasets import Dataset
from dlcore.network import Network

#: Rows per evaluation call. Fixed, for the sum's order, and so its last bit, would change with it.
CHUNK = 500

#: One set for all replicas, one per seed, or a function of the seed that makes one.
Data = Dataset | Mapping[int, Dataset] | Callable[..., Dataset]


class Part:
    """Training, validation or test part on the device: rows of all seeds' sets, held once each.

    Replica r reads rows ``offset[r] … offset[r] + n - 1``. Seeds with one ``Dataset`` share its rows; on
    NumPy a single set is not copied at all.
    """

    def __init__(self, network: Network, data: Data, part: str, loss: Any) -> None:
        sets = sets_of(network, data)
        distinct = list({id(one): one for one in sets}.values())
        self.backend, self.shape = network.backend, network.streams.shape
        self.n, self.classes = len(getattr(sets[0], f"y_{part}")), sets[0].classes
        sizes = {(len(getattr(s, f"y_{part}")), *s.x_train.shape[1:], s.classes) for s in sets}
        due = f"{part} sets of equal sizes, shapes and classes for all seeds"
        checks.expect(len(sizes) == 1, "data", due, sorted(sizes))
        y = _joined([getattr(one, f"y_{part}") for one in distinct])
        if loss.kind == "values":
            y = np.eye(self.classes, dtype=self.backend.dtype)[y]
        self.x = self.backend.asarray(_joined([getattr(one, f"x_{part}") for one in distinct]))
        self.y = self.backend.asarray(y, y.dtype)
        self.shared = len(distinct) == 1
        index = np.zeros_like(network.streams.index)
        if not self.shared:
            numbers = {id(one): i for i, one in enumerate(distinct)}
            index = np.array([numbers[id(one)] for one in sets])[network.streams.index]
        self.offset = (index * self.n).reshape(*self.shape, 1)
        self.first = None if self.shared else self.backend.asarray(self.offset, np.intp)

    def rows(self, index: Any) -> tuple[Any, Any]:
        """Gather examples by a device index ``(..., batch)``."""
        take = self.backend.xp.take
        return take(self.x, index, axis=0), take(self.y, index, axis=0)

    def chunk(self, start: int) -> tuple[Any, Any]:
        """Return the next ``CHUNK`` examples; a set that all replicas share is not copied."""
        stop = min(self.n, start + CHUNK)
        if self.shared:
            return self.x[start:stop], self.y[start:stop]
        return self.rows(self.first + self.backend.xp.arange(start, stop))


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Return arrays one after another; a single one is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def per_seed(data: Data, seeds: Sequence[int]) -> dict[int, Dataset]:
    """Return each seed's data set, made or looked up; one ``Dataset`` serves all.

    Raises ``ValueError`` for a seed without a set, ``TypeError`` for data of another kind.
    """
    if isinstance(data, Dataset):
        return dict.fromkeys(seeds, data)
    if isinstance(data, Mapping):
        missing = [s for s in seeds if s not in data]
        checks.expect(not missing, "data", "a set for each seed", f"none for {missing}")
        found = {s: data[s] for s in seeds}
    else:
        checks.function("data", data, "a Dataset, a mapping or a function of seed")
        found = {s: data(seed=s) for s in seeds}
    for one in found.values():
        checks.instance("data", one, Dataset, "a Dataset for each seed")
    return found


def sets_of(network: Network, data: Data) -> list[Dataset]:
    """Return the data sets: one for all, or one per seed in the order of ``streams.unique``."""
    if isinstance(data, Dataset):
        return [data]
    return list(per_seed(data, network.streams.unique).values())
