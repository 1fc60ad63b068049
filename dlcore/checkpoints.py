"""Checkpoints: what a run needs to go on where it was killed, in files that are whole or not there.

A file is an ``.npz`` archive of plain arrays (nothing is pickled, every array has a checksum) with a
fingerprint of each setting. A file of other settings, other data or another dlcore is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dlcore import checks, storage
from dlcore.fingerprints import code, fingerprint

#: Version of the file format; a file of another one is refused.
FORMAT = "dlcore checkpoint 1"
_ADVICE = "move it away or name another file, and the run starts from its beginning"


@dataclass(frozen=True)
class Checkpoint(checks.Checked):
    """Where a run keeps its state, and how often: ``Checkpoint("run.npz", seconds=60)``.

    ``path`` is a file for ``fit`` and a folder for ``sweep``; folders are made, and whether a file can be
    written is tried before the first step. The state is written at the end of the first epoch after
    ``seconds`` (default 10; 0: of every epoch), and at the end of the run; if the disk fails only then, a
    warning says so and the result is returned. A process killed while it writes leaves a hidden file
    beside ``path``, which nothing reads.

    A file is taken up by the run that wrote it only: same data, network, settings, and code. Code counts as
    far as it is reached: functions and classes, the helpers that they call, the variables and modules that
    they read, files that they name and read; comments, docstrings and places do not. What Python and
    installed packages define counts by name and version. What cannot be seen, such as an open file or a
    call of ``eval``, is refused. Raises ``TypeError`` or ``ValueError`` for others.
    """

    path: str | os.PathLike[str]
    seconds: float = checks.checked(checks.real, 0, default=10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.instance("checkpoint", self.path, (str, os.PathLike), "a path or Checkpoint(path)")


class Keeper:
    """The file of one run: ``read`` at its start, written as it goes on.

    ``checkpoint`` is a path or a ``Checkpoint``. ``settings`` maps names to anything: the file must
    have been written with equal ones.
    """

    def __init__(self, checkpoint: Any, settings: Mapping[str, Any]) -> None:
        made = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self.path, self.seconds = Path(made.path).absolute(), made.seconds
        checks.expect(not self.path.is_dir(), "checkpoint", "a file", f"the folder {self.path}")
        self.settings = {name: fingerprint(value) for name, value in settings.items()}
        self.settings["dlcore"] = code()
        self.last = time.monotonic()

    def check_writable(self) -> None:
        """Make the folder, and raise ``OSError`` unless a file can be written there."""
        storage.check_writable(self.path)

    def write(self, arrays: Callable[[], Mapping[str, Any]], now: bool = False) -> None:
        """Write ``arrays()``, whole or not at all, if it is time to; with ``now`` (default False) always.

        Raises ``TypeError`` for an array of Python objects.
        """
        if not now and time.monotonic() - self.last < self.seconds:
            return
        hosted = on_host(arrays())
        about = {"format": FORMAT, "settings": self.settings, "names": list(hosted)}
        with storage.replacing(self.path) as file:
            np.savez(file, np.frombuffer(json.dumps(about).encode(), np.uint8), *hosted.values())
        self.last = time.monotonic()

    def write_result(self, arrays: Callable[[], Mapping[str, Any]]) -> None:
        """Write the end of a run. A disk that fails now only brings a warning: the result is there."""
        try:
            self.write(arrays, now=True)
        except OSError as error:
            problem = (
                f"checkpoint: the run has ended, but {self.path} could not be written ({error})"
            )
            warnings.warn(problem, RuntimeWarning, stacklevel=2)

    def read(self) -> dict[str, np.ndarray] | None:
        """Return the arrays written with these settings, None where there is no file.

        Raises ``ValueError`` for a damaged file, one of another format, or one with other settings.
        """
        try:
            raw = open(self.path, "rb")  # noqa: SIM115 (what fails here is no damage)
        except FileNotFoundError:
            return None
        try:
            with raw:
                found, about = _read(raw)
            form, theirs = about["format"], about["settings"]
        except Exception as error:  # zip, NumPy and JSON have errors of their own
            due, came = "a checkpoint", f"another or damaged file{_kind(self.path)} ({error})"
            raise ValueError(f"{self.path}: expected {due}, got {came}; {_ADVICE}") from error
        checks.expect(form == FORMAT, str(self.path), f"format {FORMAT!r}", f"{form!r}; {_ADVICE}")
        ours = self.settings
        other = ", ".join(sorted(k for k in ours | theirs if ours.get(k) != theirs.get(k)))
        got = f"that of a run with another {other}; {_ADVICE}"
        checks.expect(not other, str(self.path), "the checkpoint of this run", got)
        return found


def on_host(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays on the host. Raises ``TypeError`` for one of Python objects."""
    hosted = {name: a.get() if hasattr(a, "get") else np.asarray(a) for name, a in arrays.items()}
    for name, a in hosted.items():
        checks.expect(not a.dtype.hasobject, name, "numbers", "Python objects", TypeError)
    return hosted


def _read(raw: BinaryIO) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a file by name, and what it says of itself."""
    with np.load(raw, allow_pickle=False) as file:
        head, *arrays = (file[f"arr_{i}"] for i in range(len(file.files)))
    about = json.loads(bytes(head))
    return dict(zip(about["names"], arrays, strict=True)), about


def _kind(path: Path) -> str:
    """Return what another file is, as far as its bytes tell."""
    with contextlib.suppress(OSError):
        kind = storage.kind_of(path.read_bytes(), path)
        known = "another or damaged" not in kind and "such as a checkpoint" not in kind
        return f", {kind}" if known else ""
    return ""
