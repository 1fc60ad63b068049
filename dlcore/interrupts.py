"""Stopping runs: at the end of a step, in whatever thread or process they are.

Ctrl-C, or the stop button of a notebook, must not hit a network between two halves of an update. And what
a sweep has started in other threads and processes must end with it. So ``fit`` calls ``check`` before
each step.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import platform
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

#: Seconds between two looks at a permit's file.
PAUSE = 0.1


class Stopped(Exception):
    """Raised in a run of a sweep that is to end because another one failed, or was interrupted."""

    def __init__(self) -> None:
        super().__init__("the sweep that this run belongs to has ended")


class Permit:
    """The leave to go on that a sweep gives its runs, until it is ``withdrawn``.

    Within this process it is a flag. With ``processes`` (default False) it is a file too, which is
    deleted: a run in another process of this machine, to which the permit was sent, sees that.
    """

    def __init__(self, processes: bool = False) -> None:
        self.flag: threading.Event | None = threading.Event()
        self.path, self.machine = "", platform.node()
        self.next_look = 0.0
        if processes:
            number, self.path = tempfile.mkstemp(prefix="dlcore-sweep-")
            os.close(number)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"flag": None, "next_look": 0.0}

    def withdraw(self) -> None:
        """Have all runs end that have this permit."""
        if self.flag:
            self.flag.set()
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(self.path)

    @property
    def withdrawn(self) -> bool:
        """Whether runs are to end. On other machines nothing is known, and they go on."""
        if self.flag:
            return self.flag.is_set()
        now = time.monotonic()
        if now < self.next_look or not self.path or self.machine != platform.node():
            return False
        self.next_look = now + PAUSE
        return not os.path.exists(self.path)


_PERMIT: contextvars.ContextVar[Permit | None] = contextvars.ContextVar("permit", default=None)
#: Not empty after Ctrl-C in a ``whole_steps`` block.
_PRESSED: list[int] = []


@contextlib.contextmanager
def permitted(permit: Permit | None) -> Iterator[None]:
    """Have ``check`` ask a permit inside a ``with`` block (None: no permit is needed)."""
    token = _PERMIT.set(permit)
    try:
        yield
    finally:
        _PERMIT.reset(token)


def check() -> None:
    """Raise ``KeyboardInterrupt`` or ``Stopped`` if this run is to end; called between two steps."""
    if _PRESSED and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
    permit = _PERMIT.get()
    if permit is not None and permit.withdrawn:
        raise Stopped


@contextlib.contextmanager
def whole_steps() -> Iterator[None]:
    """Let Ctrl-C wait for the next ``check`` inside a ``with`` block; pressed twice it does not wait.

    Only in the main thread, which gets the signal, and only where nobody else handles it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def press(number: int, frame: Any) -> None:
        if _PRESSED:
            signal.default_int_handler(number, frame)
        _PRESSED.append(number)

    signal.signal(signal.SIGINT, press)
    try:
        yield
        if _PRESSED:  # after the last step: not to be lost
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _PRESSED.clear()
