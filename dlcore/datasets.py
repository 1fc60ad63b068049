"""Data sets: MNIST-1D, Fashion-MNIST, the full sets on request, and surfaces for optimizers.

Every function returns a :class:`Dataset` of host arrays. The same arguments give the same bits.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlcore import checks, host_arrays
from dlcore.random import seed_sequence

Array = np.ndarray
_PARTS = ("train", "valid", "test")
_INPUTS = ("x_train", "x_valid", "x_test")

# Keys that keep the random streams of one seed apart: train and test never share a draw.
_TRAIN, _VALID, _TEST, _SUBSET, _SPLIT, _TEMPLATES, _SHUFFLE = range(7)


def _per_class(name: str, value: Any, classes: int, least: int = 0) -> int:
    """Examples per class of a balanced part of `value` examples."""
    number = checks.integer(name, value, least)
    due = f"a multiple of the {classes} classes, so that each class has the same number of examples"
    checks.expect(number % classes == 0, name, due, number)
    return number // classes


def _key(seed: Any, purpose: int, name: str = "seed") -> np.random.SeedSequence:
    """Return the key of a draw. Larger seeds are refused: the ids of their examples would not fit."""
    number = checks.integer(name, seed, 0)
    checks.expect(number < 2**32, name, "an integer in 0…4294967295", number)
    return seed_sequence(name, number, purpose)


def _read_json(file: str) -> Any:
    return json.loads((files("dlcore") / "data" / file).read_text("utf-8"))


class Rows(NamedTuple):
    """Which examples of a source the rows of a part are: the part's labels, and ids ``(N,)`` for them."""

    labels: Any
    ids: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training, validation and test part of a classification problem, as host arrays.

    Shapes: ``x_*`` float32 ``(N, features)``, sequences ``(N, T, features)`` or images
    ``(N, H, W, C)``; ``y_*`` int64 ``(N,)``, values
    0 … classes − 1. Validation and test part may be empty. The arrays are copies of what is given,
    converted to these types and read-only: replicas, seeds, threads and derived sets (`flat`, `subset`
    and the like, where values stay) share them, and nothing that happens to the caller's arrays later
    changes them. Labelled arrays (xarray, pandas) are aligned: ``y_*`` by the rows of ``x_*``, and
    features by those of ``x_train``.

    ``ids`` says which examples of their source the rows are: a mapping from "train", "valid" and
    "test" to integers ``(N,)``, by default 0 … N − 1. Read them as ``test_ids``.

    Raises ValueError: shapes or labels that do not agree, values that are not finite, labels that are
    not integers in range, an empty training part, fewer than two classes. Raises TypeError for inputs
    that are no real numbers: text, complex or masked values, dates.
    """

    x_train: Array
    y_train: Array
    x_valid: Array
    y_valid: Array
    x_test: Array
    y_test: Array
    name: str
    classes: int
    ids: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", checks.integer("classes", self.classes, 2))
        given: Any = {} if self.ids is None else self.ids
        checks.instance("ids", given, Mapping, "a mapping from part to ids")
        unknown = sorted(map(str, set(given) - set(_PARTS)))
        checks.expect(not unknown, "ids", f"parts among {_PARTS}", unknown)
        came, ids = dict(vars(self)), {}
        for part in _PARTS:
            x_name, y_name = f"x_{part}", f"y_{part}"
            y_given = host_arrays.aligned(y_name, came[y_name], x_name, _rows_of(came[x_name]))
            x_given = _with_features(x_name, came[x_name], came["x_train"])
            x = _inputs(x_name, x_given)
            y = _labels(y_name, y_given, len(x), self.classes)
            vars(self).update({x_name: x, y_name: y})
            shape = self.x_train.shape[1:]
            due = f"examples of shape {shape} as in x_train"
            checks.expect(x.shape[1:] == shape, x_name, due, x.shape[1:])
            ids[part] = _rows(part, given.get(part), came[y_name], y)
        checks.expect(len(self.x_train), "x_train", "at least one example", "an empty array")
        object.__setattr__(self, "ids", ids)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a copied or pickled state; NumPy's copies can be written, these cannot."""
        vars(self).update(state)
        for part in _PARTS:
            rows = self._rows_of_part(part)
            for array in (vars(self)[f"x_{part}"], vars(self)[f"y_{part}"], rows.ids):
                array.flags.writeable = False

    @property
    def train_ids(self) -> Array:
        """Which examples of the source the training rows are, int64 ``(N,)``; see `test_ids`."""
        return self._ids("train")

    @property
    def valid_ids(self) -> Array:
        """Which examples of the source the validation rows are, int64 ``(N,)``; see `test_ids`."""
        return self._ids("valid")

    @property
    def test_ids(self) -> Array:
        """Which examples of the source the test rows are, int64 ``(N,)``.

        Rows of one source with equal ids are one example, in whatever split; what pairs results by
        example (`two_way_difference`) takes them. `flat`, `pooled`, `standardized`, `sequences`,
        `subset` and `with_classes` keep them, and so does ``dataclasses.replace`` of inputs alone.
        Packaged images: the place among them. `full`: the place in the official training files,
        then test files. MNIST-1D: the place in the published set, or one number for each seed and
        place. Else the places given.

        Raises ValueError: the rows were replaced by others without their ids.
        """
        return self._ids("test")

    def _ids(self, part: str) -> Array:
        labels, ids = self._rows_of_part(part)
        due = f"ids={{{part!r}: …}} beside rows that were replaced"
        checks.expect(labels is vars(self)[f"y_{part}"], f"{part}_ids", due, "none")
        return ids

    def _rows_of_part(self, part: str) -> Rows:
        return vars(self)["ids"][part]

    def _with(self, **changes: Array) -> Dataset:
        """Return a set with other arrays of our own making: they are neither checked nor copied."""
        made = copy.copy(self)
        for array in changes.values():
            array.flags.writeable = False
        vars(made).update(changes)
        return made

    def _with_rows(self, part: str, rows: Array) -> Dataset:
        """Return a set with some rows of one part, and their ids."""
        old = self._rows_of_part(part)
        y = vars(self)[f"y_{part}"]
        labels = y[rows]
        made = self._with(**{f"x_{part}": vars(self)[f"x_{part}"][rows], f"y_{part}": labels})
        ids = old.ids[rows] if old.labels is y else old.ids
        ids.flags.writeable = False
        kept = Rows(labels if old.labels is y else None, ids)
        vars(made)["ids"] = {**vars(self)["ids"], part: kept}
        return made

    def __repr__(self) -> str:
        sizes = f"{len(self.x_train)} train + {len(self.x_valid)} valid + {len(self.x_test)} test"
        shape = self.x_train.shape[1:]
        return f"Dataset({self.name!r}, {sizes}, shape {shape}, {self.classes} classes)"

    def _map(self, change: Callable[[Array], Array]) -> Dataset:
        """Change the inputs of all parts; ``change`` gives new arrays, or views of the old ones."""
        parts = {name: _converted(name, change(getattr(self, name))) for name in _INPUTS}
        return self._with(**parts)

    def _with_labels(self, part: str, labels: Array) -> Dataset:
        """Return a set with other labels for the same rows, which keep their ids."""
        old = self._rows_of_part(part)
        known = old.labels is vars(self)[f"y_{part}"]
        made = self._with(**{f"y_{part}": labels})
        vars(made)["ids"] = {**vars(self)["ids"], part: Rows(labels if known else None, old.ids)}
        return made

    def _expect_axes(self, axes: int, caller: str, due: str) -> None:
        shape = self.x_train.shape
        checks.expect(len(shape) == axes, caller, due, f"x_train of shape {shape}")

    def subset(self, n: int, seed: int = 0) -> Dataset:
        """Keep `n` training examples, the same number of each class.

        The examples depend on `seed`; with one seed, a smaller subset lies within a larger one.
        Validation and test part stay. Values stay too: call :meth:`standardized` after it to
        use the statistics of the subset only.

        Raises ValueError: `n` not positive, not a multiple of the classes, more than there are.
        """
        (rows,) = _balanced_rows(self.y_train, self.classes, {"n": n}, _key(seed, _SUBSET))
        return self._with_rows("train", rows)

    def standardized(self) -> Dataset:
        """Subtract the mean and divide by the standard deviation of the training part.

        ``x ← (x − mean(x_train)) / std(x_train)``: one mean and one deviation over all features.
        One pair, not one per feature: border pixels hardly vary, and dividing by their tiny
        deviations would blow noise up; and one pair keeps the shape of signals and images, which
        shifts and convolutions rely on. A second call changes nothing beyond rounding.

        Raises ValueError: the training part is constant.
        """
        mean = self.x_train.mean(dtype=np.float64)
        std = self.x_train.std(dtype=np.float64)
        checks.expect(std > 0, "x_train", "values that vary", "a constant array")
        return self._map(lambda x: (x - np.float32(mean)) / np.float32(std))

    def with_classes(self, keep: Iterable[int]) -> Dataset:
        """Keep the examples of some classes; class ``keep[i]`` gets the label i.

        ``digits.with_classes(range(5, 10))`` is a task of five classes. Values stay as they are.

        Raises ValueError: fewer than two classes, a class twice, a class that is not there.
        """
        checks.expect(np.iterable(keep), "keep", "a sequence", repr(keep), TypeError)
        kept = [checks.integer("keep", label, 0) for label in keep]
        good = len(set(kept)) == len(kept) >= 2 and max(kept) < self.classes
        checks.expect(good, "keep", f"two or more different classes in 0…{self.classes - 1}", kept)
        new = np.full(self.classes, -1)
        new[kept] = range(len(kept))
        made = self
        for part in _PARTS:
            made = made._with_rows(part, new[getattr(self, f"y_{part}")] >= 0)
        checks.expect(len(made.x_train), "keep", "classes with training examples", kept)
        for part in _PARTS:
            made = made._with_labels(part, new[getattr(made, f"y_{part}")])
        vars(made)["classes"] = len(kept)
        return made

    def pooled(self, k: int) -> Dataset:
        """Average images over squares of k × k pixels: ``(N, H, W, C)`` to ``(N, H/k, W/k, C)``.

        Pooling lowers the deviation: call :meth:`standardized` after it.

        Raises ValueError: examples that are not images, sides that are not multiples of `k`.
        """
        k = checks.integer("k", k, 1)
        self._expect_axes(4, "pooled", "images (N, H, W, C)")
        height, width, channels = self.x_train.shape[1:]
        checks.expect(height % k == width % k == 0, "k", f"a divisor of {height} and {width}", k)
        square = (height // k, k, width // k, k, channels)
        return self._map(lambda x: x.reshape(len(x), *square).mean(axis=(2, 4)))

    def sequences(self) -> Dataset:
        """Rows as sequences of one feature: ``(N, T)`` to ``(N, T, 1)``, for recurrent layers.

        Raises ValueError for inputs that are not rows.
        """
        self._expect_axes(2, "sequences", "rows (N, T)")
        return self._map(lambda x: x[..., None])

    def flat(self) -> Dataset:
        """Images as rows: ``(N, H, W, C)`` to ``(N, H·W·C)``; rows stay rows."""
        return self._map(lambda x: x.reshape(len(x), int(np.prod(x.shape[1:]))))


def _read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _converted(name: str, values: Array) -> Array:
    """Return finite, contiguous float32 values: views of what is so already, else copies."""
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(values, dtype=np.float32)
    checks.expect(np.isfinite(x).all(), name, "finite values", "NaN or infinity")
    return x


def _rows_of(x: Any) -> Any:
    """Return one value for each row of labelled inputs, to align their labels with."""
    if hasattr(x, "dims") and hasattr(x, "indexes") and x.ndim:
        return x.isel(dict.fromkeys(x.dims[1:], 0), drop=True)
    return x.iloc[:, 0] if getattr(x, "ndim", 0) == 2 and hasattr(x, "iloc") and x.size else x


def _with_features(name: str, x: Any, x_train: Any) -> Any:
    """Return inputs with features in the order of those of ``x_train``, where both are labelled."""
    labelled = [hasattr(one, "dims") or hasattr(one, "iloc") for one in (x, x_train)]
    if x is x_train or not all(labelled) or not min(np.size(x), np.size(x_train)):
        return x
    if hasattr(x, "dims") and hasattr(x_train, "dims"):
        first = x_train.isel({x_train.dims[0]: [0]}).drop_vars(x_train.dims[0], errors="ignore")
        return host_arrays.aligned(name, x, "x_train", first)
    if hasattr(x, "columns") and hasattr(x_train, "columns"):
        return host_arrays.aligned(name, x.T, "x_train", x_train.iloc[0]).T
    return x


def _inputs(name: str, value: Any) -> Array:
    numbers = host_arrays.real(name, value, error=TypeError)
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, refused below
        x = np.array(numbers, dtype=np.float32, order="C")
    due = "(N, features), (N, T, features) or (N, H, W, C)"
    checks.expect(x.ndim in (2, 3, 4), name, due, f"shape {x.shape}")
    checks.expect(np.isfinite(x).all(), name, "finite values", "NaN or infinity")
    return _read_only(x)


def _labels(name: str, value: Any, examples: int, classes: int) -> Array:
    y = host_arrays.real(name, value, "integer labels")
    checks.expect(y.dtype.kind in "iu" or not y.size, name, "integer labels", y.dtype)
    checks.expect(y.shape == (examples,), name, f"shape ({examples},)", y.shape)
    low, high = (y.min(), y.max()) if y.size else (0, 0)
    checks.expect(low >= 0 and high < classes, name, f"labels in 0…{classes - 1}", f"{low}…{high}")
    return _read_only(np.array(y, dtype=np.int64))


def _rows(part: str, given: Any, labels: Any, y: Array) -> Rows:
    """Return the rows of a part: new ids, or those of the set that this one was replaced from.

    ``labels`` is y as it was given: ids of a replaced set are right for its own labels only.
    """
    if isinstance(given, Rows):
        return Rows(y if given.labels is labels else None, given.ids)
    if given is None:
        return Rows(y, _read_only(np.arange(len(y), dtype=np.int64)))
    name = f"ids[{part!r}]"
    ids = host_arrays.real(name, given, "integers")
    checks.expect(ids.dtype.kind in "iu" or not ids.size, name, "integers", ids.dtype)
    checks.expect(ids.shape == y.shape, name, f"shape {y.shape}", ids.shape)
    return Rows(y, _read_only(np.array(ids, dtype=np.int64)))


def _balanced_rows(labels: Array, classes: int, sizes: dict[str, Any], key: Any) -> list[Array]:
    """Disjoint lists of row numbers, one per entry of `sizes` (name to number of examples).

    Each list runs through the classes in turn, 0, 1, …, 0, 1, …, in a random order within each
    class, so that its first rows are balanced too. Only "valid" and "test" may be empty.
    """
    each = [_per_class(n, size, classes, int(n in ("n", "train"))) for n, size in sizes.items()]
    rng = np.random.default_rng(key)
    rows = [rng.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    most, wanted = min(map(len, rows)), sum(each)
    due = f"at most {most * classes} examples ({most} per class)"
    checks.expect(wanted <= most, " + ".join(sizes), due, wanted * classes)
    table = np.stack([r[:wanted] for r in rows], axis=1)
    return [part.ravel() for part in np.split(table, np.cumsum(each)[:-1])]


def _balanced_dataset(
    x: Array, y: Array, name: str, classes: int, seed: int, sizes: dict[str, Any]
) -> Dataset:
    """Split ``(x, y)`` by `seed` into balanced parts, not yet standardised.

    The test part is taken first and the training part last: changing `train` keeps the others.
    """
    in_order = {part: sizes[part] for part in ("test", "valid", "train")}
    test, valid, train = _balanced_rows(y, classes, in_order, _key(seed, _SPLIT))
    parts = (x[train], y[train], x[valid], y[valid], x[test], y[test])
    return Dataset(*parts, name, classes, {"train": train, "valid": valid, "test": test})


# MNIST-1D -----------------------------------------------------------------------------------


def _normalized(curves: Array) -> Array:
    """Each curve with unit deviation, starting at 0, divided by 6 (as published)."""
    curves = curves / curves.std(axis=1, keepdims=True)
    return (curves - curves[:, :1]) / 6.0


def digit_templates() -> Array:
    """The ten templates of MNIST-1D, ``(10, 12)``, float64: each starts and ends at 0.

    Ten digits drawn as lines of twelve points; from the mnist1d package (Apache-2.0).
    """
    curves = np.array(_read_json("mnist1d_templates.json"), dtype=np.float64)
    return _normalized(curves - curves.mean(axis=1, keepdims=True))


def random_templates(seed: int, classes: int = 10, length: int = 12) -> Array:
    """Random smooth templates ``(classes, length)``, float64, for another task of the same kind.

    ``Σ_k a_k sin(π k t) / k``, k = 1 … 5, t from 0 to 1, a_k standard normal; scaled like the
    digits, so that each starts and ends at 0.

    Raises ValueError: a negative seed, fewer than 2 classes, a length below 3.
    """
    shape = (checks.integer("classes", classes, 2), 5)
    t = np.linspace(0, 1, checks.integer("length", length, 3))
    amplitudes = np.random.default_rng(_key(seed, _TEMPLATES)).standard_normal(shape)
    k = np.arange(1, 6)
    # Summed without BLAS, whose order of additions depends on the machine's threads.
    return _normalized(((amplitudes / k)[:, :, None] * np.sin(np.pi * k[:, None] * t)).sum(axis=1))


@dataclass(frozen=True)
class Distortion(checks.Checked):
    """How MNIST-1D turns a template into an example; the defaults are the published ones.

    In order, with u uniform on [0, 1): append ``padding[0]`` … ``padding[1]`` zeros and stretch to
    template length + ``padding[1]`` points; multiply by ``1 + scale (u − ½)``; roll right by 0 …
    ``shift − 1`` points; fill the zeros with blurred noise (deviation ``blurred_noise`` before a
    Gaussian blur of 2 points); add white noise of deviation ``noise``; subtract
    ``shear (u − ½) s``, s from −½ to ½ along the signal; resample to ``length`` points.

    Names in the mnist1d package: scale_coeff, max_translation, corr_noise_scale,
    iid_noise_scale, shear_scale, final_seq_length.

    Raises ValueError: a negative or infinite amount, scale above 1.9, shift or length below 1
    or 2, padding that is not 0 ≤ low ≤ high.
    """

    padding: tuple[int, int] = (36, 60)
    # A factor 1 + scale (u − ½) of 0 would turn signal into padding: hence scale < 2.
    scale: float = checks.checked(checks.real, 0, 1.9, default=0.4)
    shift: int = checks.checked(checks.integer, 1, default=48)
    blurred_noise: float = checks.checked(checks.real, 0, default=0.25)
    noise: float = checks.checked(checks.real, 0, default=0.02)
    shear: float = checks.checked(checks.real, 0, default=0.75)
    length: int = checks.checked(checks.integer, 2, default=40)

    def __post_init__(self) -> None:
        super().__post_init__()
        ends = [checks.integer("padding", p, 0) for p in np.atleast_1d(self.padding).tolist()]
        rising = len(ends) == 2 and ends[0] <= ends[1]
        checks.expect(rising, "padding", "0 ≤ low ≤ high", self.padding)


def _blur(noise: Array) -> Array:
    """Gaussian blur along the last axis: deviation 2, radius 8, mirrored at the ends."""
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    padded = np.pad(noise, ((0, 0), (8, 8)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 17, axis=1)
    return np.einsum("nwk,k->nw", windows, kernel / kernel.sum())


def _draw(rng: np.random.RandomState, labels: Array, templates: Array, how: Distortion) -> Array:
    """One example per label, ``(len(labels), how.length)``, float64, not standardised.

    The order of draws is that of the mnist1d package, so that its seed 42 gives its data. Only
    the draws go example by example; the arithmetic runs over all examples at once.
    """
    n, width = len(labels), templates.shape[1] + how.padding[1]
    uniform, shift, noise = np.empty((n, 3)), np.empty(n, np.int64), np.empty((n, 2, width))
    for i in range(n):
        uniform[i, :2] = rng.random_sample(), rng.random_sample()
        shift[i] = rng.randint(how.shift)
        noise[i] = rng.standard_normal((2, width))
        uniform[i, 2] = rng.random_sample()
    low, high = how.padding
    pad = (uniform[:, 0] * (high - low + 1)).astype(np.int64)
    rolled = (np.arange(width) - shift[:, None]) % width
    signal = _stretched(templates, how.padding)[labels[:, None], pad[:, None], rolled]
    signal *= 1 + how.scale * (uniform[:, 1:2] - 0.5)
    signal = np.where(signal != 0, signal, how.blurred_noise * _blur(noise[:, 0]))
    signal += how.noise * noise[:, 1]
    signal -= how.shear * (uniform[:, 2:] - 0.5) * np.linspace(-0.5, 0.5, width)
    position = np.linspace(0, width - 1, how.length)
    left = np.minimum(position.astype(np.int64), width - 2)
    return signal[:, left] + (position - left) * (signal[:, left + 1] - signal[:, left])


def _stretched(templates: Array, padding: tuple[int, int]) -> Array:
    """Every template with every padding, on the grid of the longest: ``(classes, pads, width)``."""
    low, high = padding
    grid = np.linspace(0, 1, templates.shape[1] + high)
    table = np.empty((len(templates), high - low + 1, len(grid)))
    for c, template in enumerate(templates):
        for p in range(low, high + 1):
            # 1e-8 marks the template's own zeros as signal: only the padding gets noise.
            padded = np.concatenate([template + 1e-8, np.zeros(p)])
            table[c, p - low] = np.interp(grid, np.linspace(0, 1, len(padded)), padded)
    return table


def mnist1d(
    seed: int | None = None, *, train: int = 4000, valid: int = 0, test: int = 1000,
    test_seed: int = 0, templates: Array | None = None, distortion: Distortion | None = None,
    shuffle_seed: int | None = None,
) -> Dataset:  # fmt: skip
    """MNIST-1D: ten classes of distorted one-dimensional digits, 40 features.

    Without a seed: **the published set**, 4,000 + 1,000 examples in the published order. It is
    standardised as published, with one mean and deviation over all 5,000 examples, test part
    included, and its parts are nearly, not exactly, class-balanced. `valid` then takes a balanced
    part away from the 4,000: ``mnist1d(train=3500, valid=500)``.

    With a seed: **an own draw**. Training and validation part depend on `seed`, the test part on
    `test_seed`, so seeds share one test part. The three use separate random streams, are exactly
    class-balanced, run through the classes in turn, and are standardised with training statistics
    only. A smaller `train` gives the first examples of a larger one.
    ``partial(mnist1d, train=1000, valid=500, test=10_000)`` maps a seed to its data.

    Args: `train`, `valid`, `test`: numbers of examples, multiples of the classes. `templates`:
    ``(classes, length)``, default :func:`digit_templates`, else e.g. :func:`random_templates`.
    `distortion`: default ``Distortion()``. `shuffle_seed`: if given, one permutation of the
    positions for all examples: the same information without its spatial order.

    Raises ValueError: sizes that are negative or no multiples of the classes, no training
    examples, templates that are not a finite table; without a seed, anything that would change
    the published set (sizes must keep train + valid = 4,000 and test = 1,000).

    Source: Greydanus & Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024, PMLR 235;
    package mnist1d, Apache-2.0.
    """
    if seed is None:
        plain = templates is None and distortion is None and test_seed == 0
        due = "an integer together with templates, distortion or test_seed"
        checks.expect(plain, "seed", due, "None (the published set has its own)")
        data = _published(train, valid, test)
    else:
        how = checks.instance("distortion", distortion or Distortion(), Distortion)
        table = _table(templates)
        parts: dict[str, Any] = {}
        ids: dict[str, Array] = {}
        for part, size, key in (
            ("train", train, _key(seed, _TRAIN)),
            ("valid", valid, _key(seed, _VALID)),
            ("test", test, _key(test_seed, _TEST, "test_seed")),
        ):
            per_class = _per_class(part, size, len(table), int(part == "train"))
            labels = np.tile(np.arange(len(table)), per_class)
            rng = np.random.RandomState(np.random.MT19937(key))
            parts |= {f"x_{part}": _draw(rng, labels, table, how), f"y_{part}": labels}
            own = test_seed if part == "test" else seed
            ids[part] = _drawn_ids(own, part, len(labels))
        data = Dataset(**parts, name="mnist1d", classes=len(table), ids=ids).standardized()
    if shuffle_seed is None:
        return data
    shuffle = np.random.default_rng(_key(shuffle_seed, _SHUFFLE, "shuffle_seed"))
    order = shuffle.permutation(data.x_train.shape[1])
    return data._map(lambda x: x[:, order])


def _drawn_ids(seed: int, part: str, n: int) -> Array:
    """Ids of drawn examples: no two seeds or parts share one; 0 … n − 1 for the test part of seed 0."""
    place = ("test", "train", "valid").index(part)
    first = np.int64((4 * int(seed) + place) * 2**29)
    return first + np.arange(n)  # 64 bits, also where an index has 32


def _published_draw() -> tuple[Array, Array]:
    """The 5,000 published examples (float64) and labels, in published order."""
    rng = np.random.RandomState(42)
    labels = np.repeat(np.arange(10), 500)
    x = _draw(rng, labels, digit_templates(), Distortion())
    order = rng.permutation(len(labels))
    x, labels = x[order], labels[order]
    return (x - x.mean()) / x.std(), labels


def _published(train: int, valid: int, test: int) -> Dataset:
    held = _per_class("valid", valid, 10)
    sizes = (checks.integer("train", train, 1) + valid, checks.integer("test", test, 0))
    due = "4000 and 1000 for the published set (seed=None)"
    got = f"{train} + {valid} and {test}; give a seed to draw other sizes"
    checks.expect(sizes == (4000, 1000), "train + valid, test", due, got)
    x, y = _published_draw()
    last = [np.flatnonzero(y[:4000] == c)[::-1][:held] for c in range(10)]
    in_valid = np.sort(np.concatenate(last))
    in_train = np.setdiff1d(np.arange(4000), in_valid)
    parts = (x[in_train], y[in_train], x[in_valid], y[in_valid], x[4000:], y[4000:])
    ids = {"train": in_train, "valid": in_valid, "test": np.arange(4000, 5000)}
    return Dataset(*parts, "mnist1d", 10, ids)


def _table(templates: Array | None) -> Array:
    due = "a finite table (classes, length), both at least 2"
    given = digit_templates() if templates is None else templates
    table = host_arrays.real("templates", given, due, TypeError).astype(np.float64)
    good = table.ndim == 2 and min(table.shape) >= 2 and np.isfinite(table).all()
    checks.expect(good, "templates", due, f"shape {table.shape}")
    return table


# Images -------------------------------------------------------------------------------------


def _packaged(file: str) -> dict[str, Array]:
    with (files("dlcore") / "data" / file).open("rb") as opened:
        return dict(np.load(opened, allow_pickle=False))


@lru_cache(maxsize=1)
def _fashion_10k() -> tuple[Array, Array]:
    """The packaged images ``(10000, 28, 28, 1)`` uint8 and labels, read once, read-only."""
    found = _packaged("fashion_mnist_10k.npz")
    x, y = (np.concatenate([found[f"{k}_train"], found[f"{k}_test"]]) for k in "xy")
    return _read_only(x[..., None]), _read_only(y)


def _resized(data: Dataset, size: int) -> Dataset:
    side = data.x_train.shape[1]
    checks.expect(side % checks.integer("size", size, 1) == 0, "size", f"a divisor of {side}", size)
    return (data if size == side else data.pooled(side // size)).standardized()


def fashion_mnist(
    seed: int = 0, *, train: int = 5000, valid: int = 1000, test: int = 4000, size: int = 28
) -> Dataset:
    """Fashion-MNIST, the 10,000 packaged images: grey clothes, ten classes, ``(N, 28, 28, 1)``.

    Each seed makes its own class-balanced split of the 10,000. Parts run through the classes in
    turn (default: 5000 to train, 1000 ``valid``, 4000 ``test``); with one seed, a smaller `train`
    gives the first images of a larger one and leaves the other parts alone. Values are standardised
    with training statistics only. `size` pools the images to size × size (a divisor of 28, e.g. 14).
    ``.flat()`` makes rows for an MLP.

    Raises ValueError: sizes that are negative, no multiples of 10 or above 10,000 together, no
    training images, a size that does not divide 28.

    Source: Xiao, Rasul & Vollgraf, arXiv:1708.07747, 2017; MIT, © 2017 Zalando SE. Selection and
    licence text: ``dlcore/data/README.md``.
    """
    sizes = {"train": train, "valid": valid, "test": test}
    return _resized(_balanced_dataset(*_fashion_10k(), "fashion_mnist", 10, seed, sizes), size)


def digits(seed: int = 0, *, train: int = 1000, valid: int = 200, test: int = 500) -> Dataset:
    """The 8 × 8 digits of scikit-learn, packaged, ``(N, 8, 8, 1)``: easier than the other sets.

    1,740 of the 1,797 images can be used (174 per class). Balanced split by seed, 1000 to train by
    default, 200 ``valid``, 500 ``test``; standardised with training statistics only.

    Raises ValueError: as :func:`fashion_mnist`.

    Source: E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998 (test file), as in scikit-learn (BSD): ``dlcore/data/README.md``.
    """
    found, sizes = _packaged("digits.npz"), {"train": train, "valid": valid, "test": test}
    x = found["x"][..., None].astype(np.float64)
    return _balanced_dataset(x, found["y"], "digits", 10, seed, sizes).standardized()


# Full sets, downloaded on request -----------------------------------------------------------

_FULL = _read_json("full.json")


def full(
    name: str = "mnist", seed: int = 0, *, valid: int = 5000, size: int = 28,
    cache: str | Path | None = None,
) -> Dataset:  # fmt: skip
    """The whole of MNIST or Fashion-MNIST, downloaded on the first call (11 or 30 MB).

    60,000 images of the official training files, less a class-balanced validation part of `valid`
    drawn by `seed`, and the 10,000 official test images; ``(N, 28, 28, 1)``. MNIST's classes are
    not equally frequent, and its training and test part keep that. Standardised with training
    statistics only; `size` as in :func:`fashion_mnist`; ``.subset(n)`` for fewer images.

    Files are checked by SHA-256 and kept in `cache`, default the user's cache folder
    (``pooch.os_cache("dlcore")``). Mirrors are tried in order. A file that fails never stays.

    Raises ValueError: unknown name, sizes as above. Raises OSError: no mirror gave the right
    file (offline, for one). Raises ImportError: pooch is missing.

    Source: MNIST, Y. LeCun, C. Cortes, C. Burges; Fashion-MNIST, Xiao et al., arXiv:1708.07747.
    """
    checks.expect(name in _FULL, "name", f"one of {sorted(_FULL)}", repr(name))
    key, _ = _key(seed, _SPLIT), _per_class("valid", valid, 10)  # before the download
    checks.expect(28 % checks.integer("size", size, 1) == 0, "size", "a divisor of 28", size)
    import pooch

    folder = Path(pooch.os_cache("dlcore") if cache is None else cache) / name
    mirrors, sums = _FULL[name]["mirrors"], _FULL[name]["sha256"].items()
    files = [_read_idx(_fetch(pooch, file, sha256, mirrors, folder)) for file, sha256 in sums]
    x, y, x_test, y_test = files
    (held,) = _balanced_rows(y, 10, {"valid": valid}, key)
    rest = np.delete(np.arange(len(y)), held)
    x, x_test = x[..., None], x_test[..., None]
    parts = (x[rest], y[rest], x[held], y[held], x_test, y_test)
    ids = {"train": rest, "valid": held, "test": len(y) + np.arange(len(y_test))}
    return _resized(Dataset(*parts, f"full_{name}", 10, ids), size)


def _fetch(pooch: Any, file: str, sha256: str, mirrors: Iterable[str], folder: Path) -> Path:
    """Path of `file` in `folder`, from the first mirror that gives the right content."""
    failures = []
    for base in mirrors:
        try:
            # pooch writes to a temporary name and moves it only after the hash is right.
            get, known = pooch.HTTPDownloader(timeout=30), f"sha256:{sha256}"
            return Path(pooch.retrieve(base + file, known, file, folder, downloader=get))
        except (OSError, ValueError) as error:  # no connection, HTTP error; wrong hash
            failures.append(f"  {base + file}: {type(error).__name__}: {error}")
    advice = f"Connect to the internet and call again, or put it (SHA-256 {sha256}) into {folder}."
    raise OSError("\n".join([f"could not download {file}. {advice} Tried:", *failures]))


def _read_idx(path: Path) -> Array:
    """An array of bytes from a gzipped IDX file: magic 0, 0, 8, ndim; sizes as big-endian int32."""
    content = gzip.decompress(path.read_bytes())
    good, header = content[:3] == b"\x00\x00\x08", f"header {content[:4]!r}"
    checks.expect(good, str(path), "an IDX file of bytes", header)
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


# Surfaces for optimizers --------------------------------------------------------------------


@dataclass(frozen=True)
class Surface:
    """A function of the plane for drawing how optimizers move.

    ``value(p)`` maps ``(..., 2)`` to ``(...)`` and ``gradient(p)`` maps ``(..., 2)`` to
    ``(..., 2)``, for floating arrays of NumPy or CuPy, in the array's own dtype. `start` is the
    usual starting point, `minimum` a point where the value is least.
    """

    name: str
    function: Callable[[Any, Any], tuple[Any, Any, Any]]
    start: tuple[float, float]
    minimum: tuple[float, float]

    def value(self, point: Any) -> Any:
        """Return f."""
        return self.function(*_coordinates(point))[0]

    def gradient(self, point: Any) -> Any:
        """Return ∂f/∂x and ∂f/∂y."""
        out = point.copy()  # not xp.stack: this module need not know NumPy from CuPy
        _, out[..., 0], out[..., 1] = self.function(*_coordinates(point))
        return out


def _coordinates(point: Any) -> tuple[Any, Any]:
    good = hasattr(point, "dtype") and point.dtype.kind == "f" and point.shape[-1:] == (2,)
    checks.expect(good, "point", "a floating array (..., 2)", repr(point))
    return point[..., 0], point[..., 1]


def _ravine(x: Any, y: Any, condition: float) -> tuple[Any, Any, Any]:
    return 0.5 * (x * x + condition * y * y), x, condition * y


def ravine(condition: float = 100.0) -> Surface:
    """Quadratic ravine ``f = (x² + κ y²) / 2`` with condition number κ, least at the origin.

    Raises ValueError: `condition` below 1 or not finite.
    """
    kappa = checks.real("condition", condition, 1)  # a Python float keeps float32 points float32
    return Surface("ravine", partial(_ravine, condition=kappa), (10.0, 1.0), (0.0, 0.0))


def _saddle(x: Any, y: Any) -> tuple[Any, Any, Any]:
    return 0.5 * (x * x - y * y) + 0.25 * y**4, x, y * y * y - y


def saddle() -> Surface:
    """Saddle ``f = (x² − y²) / 2 + y⁴ / 4``: flat at the origin, least at (0, ±1), f = −1/4."""
    return Surface("saddle", _saddle, (1.0, 0.001), (0.0, 1.0))


def _rosenbrock(x: Any, y: Any) -> tuple[Any, Any, Any]:
    rise = y - x * x
    return (1 - x) ** 2 + 100 * rise**2, 2 * (x - 1) - 400 * x * rise, 200 * rise


def rosenbrock() -> Surface:
    """Rosenbrock's bent valley ``f = (1 − x)² + 100 (y − x²)²``, least at (1, 1), f = 0.

    Source: Rosenbrock, An automatic method for finding the greatest or least value of a
    function, The Computer Journal 3, 1960.
    """
    return Surface("rosenbrock", _rosenbrock, (-1.2, 1.0), (1.0, 1.0))
