"""Checkpoints: what a run needs to go on where it was killed, in files that are whole or not there.

A file is an ``.npz`` archive of plain arrays (nothing is pickled, every array has a checksum) with a
fingerprint of each setting. A file of other settings, other data or another dlcore is refused.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlcore import checks, storage

#: Version of the file format; a file of another one is refused.
FORMAT = "dlcore checkpoint 1"
_ADVICE = "move it away or name another file, and the run starts from its beginning"


@dataclass(frozen=True)
class Checkpoint(checks.Checked):
    """Where a run keeps its state, and how often: ``Checkpoint("run.npz", seconds=60)``.

    ``path`` is a file for ``fit`` and a folder for ``sweep``; folders are made. The state is written at
    the end of the first epoch after ``seconds`` (default 10; 0: of every epoch), and at the end of the
    run. Raises ``TypeError`` or ``ValueError`` for others.
    """

    path: str | os.PathLike[str]
    seconds: float = checks.checked(checks.real, 0, default=10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds, due = (str, os.PathLike), "a path or Checkpoint(path)"
        checks.instance("checkpoint", self.path, kinds, due)


class Keeper:
    """The file of one run: ``read`` at its start, written as it goes on.

    ``checkpoint`` is a path or a ``Checkpoint``. ``settings`` maps names to anything: the file must
    have been written with equal ones.
    """

    def __init__(self, checkpoint: Any, settings: Mapping[str, Any]) -> None:
        made = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self.path, self.seconds = Path(made.path).absolute(), made.seconds
        checks.expect(not self.path.is_dir(), "checkpoint", "a file", f"the folder {self.path}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for left in self.path.parent.glob(f".{glob.escape(self.path.name)}.*"):
            with contextlib.suppress(FileNotFoundError):  # of a killed run: no write takes an hour
                if time.time() - left.stat().st_mtime > 3600:
                    left.unlink()
        self.settings = {name: fingerprint(value) for name, value in settings.items()}
        self.settings["dlcore"] = code()
        self.last = time.monotonic()

    def write(self, arrays: Callable[[], Mapping[str, Any]], now: bool = False) -> None:
        """Write ``arrays()``, whole or not at all, if it is time to; with ``now`` (default False) always.

        Raises ``TypeError`` for an array of Python objects.
        """
        if not now and time.monotonic() - self.last < self.seconds:
            return
        hosted = {k: a.get() if hasattr(a, "get") else np.asarray(a) for k, a in arrays().items()}
        for name, a in hosted.items():
            due, came = "numbers to keep", "Python objects"
            checks.expect(not a.dtype.hasobject, name, due, came, TypeError)
        about = {"format": FORMAT, "settings": self.settings, "names": list(hosted)}
        with storage.replacing(self.path) as file:
            np.savez(file, np.frombuffer(json.dumps(about).encode(), np.uint8), *hosted.values())
        self.last = time.monotonic()

    def read(self) -> dict[str, np.ndarray] | None:
        """Return the arrays written with these settings, None where there is no file.

        Raises ``ValueError`` for a damaged file, one of another format, or one with other settings.
        """
        try:
            with open(self.path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                head, *arrays = (file[f"arr_{i}"] for i in range(len(file.files)))
            about = json.loads(bytes(head))
            found = dict(zip(about["names"], arrays, strict=True))
            form, theirs = about["format"], about["settings"]
        except FileNotFoundError:
            return None
        except Exception as error:  # zip, NumPy and JSON have errors of their own
            due, came = "a checkpoint", f"another or damaged file ({error}); {_ADVICE}"
            raise ValueError(f"{self.path}: expected {due}, got {came}") from error
        checks.expect(form == FORMAT, str(self.path), f"format {FORMAT!r}", f"{form!r}; {_ADVICE}")
        ours = self.settings
        other = ", ".join(sorted(k for k in ours | theirs if ours.get(k) != theirs.get(k)))
        got = f"that of a run with another {other}; {_ADVICE}"
        checks.expect(not other, str(self.path), "the checkpoint of this run", got)
        return found


@functools.cache
def code() -> str:
    """Return the fingerprint of dlcore's own code: another version may train to other bits."""
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:32]


def fingerprint(value: Any, known: dict[int, tuple[str, Any]] | None = None) -> str:
    """Return a digest of a value's content, the same in every process.

    It covers arrays, containers, objects with what they hold, and functions with their code, defaults
    and the variables around them that they read. What installed packages define counts by name.
    ``known`` (default: empty) keeps what has been seen, for calls that share large values.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][0]
    known[id(value)] = "itself", value  # until its digest is known, for what contains itself
    found = hashlib.sha256(f"{type(value).__module__}.{type(value).__qualname__}".encode())
    if isinstance(value, (str, bytes, int, float, complex, np.generic, type(None))):
        found.update(repr(value).encode())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        found.update(f"{value.dtype} {value.shape}".encode())
        found.update(value.tobytes())
    else:
        for part in _parts(value):
            found.update(fingerprint(part, known).encode())
    known[id(value)] = found.hexdigest()[:32], value
    return known[id(value)][0]


def _parts(value: Any) -> Iterable[Any]:
    """Return what a value is made of."""
    kind = type(value)
    if kind in (list, tuple):
        return value
    if kind in (set, frozenset):
        return sorted(map(fingerprint, value))
    if kind in (dict, types.MappingProxyType):
        return sorted(value.items(), key=lambda item: repr(item[0]))
    if kind is types.CodeType:
        return value.co_code, value.co_names, value.co_consts
    if isinstance(value, (types.FunctionType, type)):
        name = value.__module__, value.__qualname__
        if _is_installed(value.__module__):
            return name
        if isinstance(value, type):
            return *name, value.__bases__, {k: v for k, v in vars(value).items() if k not in _BARE}
        return *name, value.__code__, value.__defaults__, value.__kwdefaults__, _around(value)
    try:
        return (value.__reduce_ex__(4),)
    except Exception:  # a property, a module, a lock: what cannot be pickled raises as it likes
        return [getattr(value, name, None) for name in ("__name__", "fget", "__wrapped__")]


#: What every class has of its own.
_BARE = ("__dict__", "__weakref__", "__doc__", "__firstlineno__")


def _around(function: types.FunctionType) -> dict[str, Any]:
    """Return the variables outside a function that its code names."""
    codes, names = [function.__code__], set()
    for code in codes:
        names |= set(code.co_names)
        codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    found = {n: function.__globals__[n] for n in names if n in function.__globals__}
    return found | {name: cell.cell_contents for name, cell in cells}


def _is_installed(module: str | None) -> bool:
    """Return whether a module belongs to Python, to dlcore or to an installed package."""
    top = (module or "").partition(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    known = top in ("dlcore", *sys.stdlib_module_names) or "-packages" in file
    return known and top != "__main__"  # a notebook, or a script that an installed program runs
