"""What this machine lets a process use: the number of its cores."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

#: Where Linux shows the control groups, and which of them this process is in.
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use, at least 1: the size of a pool.

    It is the least of what the processor has, what the system grants the process (its affinity), the
    quota of its container (control groups of version 1 and 2, and all groups around its own), and the
    environment variable ``CPU_LIMIT``, which JupyterHub and Binder set. Parts of cores are rounded up.
    Browsers have 1, for no thread starts there.

    >>> cores() >= 1
    True
    """
    if sys.platform == "emscripten":
        return 1
    limits = [float(_granted()), *_quotas(), *_from_environment()]
    return max(1, math.ceil(min(limits)))


def _granted() -> int:
    """Return the cores on which the system may run this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_environment() -> Iterator[float]:
    """Yield the limit of ``CPU_LIMIT``; 0, or what is no number, is none."""
    limit = _number(os.environ.get("CPU_LIMIT", ""))
    if limit > 0:
        yield limit


def _quotas() -> Iterator[float]:
    """Yield the quotas, in cores, of all control groups that this process is in."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # another system than Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            yield from _quotas_v2(group)
        elif "cpu" in controllers.split(","):
            yield from _quotas_v1(controllers, group)


def _quotas_v2(group: str) -> Iterator[float]:
    """Yield quotas of version 2: ``cpu.max`` holds "quota period", with "max" for none."""
    for mount in (CGROUPS, CGROUPS / "unified"):
        for folder in _with_parents(mount, group):
            words = _words(folder / "cpu.max")
            if len(words) == 2:
                yield from _share(*words)


def _quotas_v1(controllers: str, group: str) -> Iterator[float]:
    """Yield quotas of version 1: two files, with a negative quota for none."""
    for mount in (CGROUPS / controllers, CGROUPS / "cpu"):
        for folder in _with_parents(mount, group):
            quota = _words(folder / "cpu.cfs_quota_us")
            period = _words(folder / "cpu.cfs_period_us")
            if len(quota) == len(period) == 1:
                yield from _share(quota[0], period[0])


def _with_parents(mount: Path, group: str) -> Iterator[Path]:
    """Yield the folders of a group and of those around it.

    In a container the name may be the host's: then only some of the folders exist, or the outermost.
    """
    inner = PurePosixPath(group.lstrip("/"))
    for path in (inner, *inner.parents):
        yield mount / path


def _share(quota: str, period: str) -> Iterator[float]:
    microseconds, of = _number(quota), _number(period)
    if microseconds > 0 and of > 0:
        yield microseconds / of


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _number(text: str) -> float:
    """Return a finite number, 0 for other text."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
