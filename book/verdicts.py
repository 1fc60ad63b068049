"""Verdicts as notebooks store them: checks of one record, and of a fresh record against the stored one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

MIME = "application/vnd.dlcore.verdict+json"
KEYS = {"id", "claim", "verdict", "effect", "unit", "low", "high", "seeds", "data", "machine"}
WORDS = {"holds", "fails", "depends", "undecided"}
OPPOSITE = {"holds": "fails", "fails": "holds"}
# What must agree to the letter; `machine` is free, numbers have a tolerance.
EXACT = ("id", "claim", "unit", "data", "size", "threshold", "level", "seeds")
ROUNDING = 1e-5  # records keep six digits


def records(outputs: Iterable[Any]) -> list[dict]:
    """Return the records among a cell's outputs, in order."""
    return [o["data"][MIME] for o in outputs if MIME in o.get("data", {})]


def is_timing(record: dict) -> bool:
    """Tell whether the effect is a measured time ("x time"), which depends on the machine."""
    return bool(re.search(r"\btime\b", record.get("unit", "")))


def record_problems(record: dict, text: str) -> Iterator[str]:
    """Say what is wrong with a stored record and the line printed beside it."""
    if missing := KEYS - set(record):
        yield f"a verdict's record lacks {sorted(missing)}"
        return
    name = record["id"]
    if record["verdict"] not in WORDS:
        yield f"{name}: {record['verdict']!r} is no verdict"
    if record.get("size", "full") != "full":
        yield f"{name}: stored from a run of size {record['size']}, expected full"
    if (
        not text.startswith(f"{name} {record['verdict']}: ")
        or f"{record['seeds']} seeds" not in text
    ):
        yield f"{name}: the printed line does not say what the record says"


def compare(stored: list[dict], fresh: list[dict]) -> list[str]:
    """Compare the records of one cell; return what differs more than it may."""
    names = [[record.get("id") for record in side] for side in (stored, fresh)]
    if names[0] != names[1]:
        return [f"verdicts {names[0]} are stored, {names[1]} came from the run"]
    return [
        text
        for old, new in zip(stored, fresh, strict=True)
        for text in _differences(old, new, old["id"])
    ]


def _differences(old: dict, new: dict, name: str) -> Iterator[str]:
    timing = is_timing(old)
    for key in EXACT:
        if old.get(key) != new.get(key):
            yield f"{name}: {key} is {old.get(key)!r} as stored and {new.get(key)!r} now"
    yield from _numbers(old, new, name, timing)
    parts = old.get("parts") or {}
    others = new.get("parts") or {}
    if set(parts) != set(others):  # in any order: notebooks are stored with sorted keys
        yield f"{name}: conditions are {sorted(parts)} as stored and {sorted(others)} now"
        return
    for part in parts:
        if parts[part]["seeds"] != others[part]["seeds"]:
            yield f"{name}, {part}: {parts[part]['seeds']} seeds stored and {others[part]['seeds']} now"
        yield from _numbers(parts[part], others[part], f"{name}, {part}", timing)


def _numbers(old: dict, new: dict, name: str, timing: bool) -> Iterator[str]:
    was, now = old["verdict"], new["verdict"]
    if timing:
        if now == OPPOSITE.get(was):
            yield f"{name}: the verdict turned from {was} to {now}"
        return
    if was != now:
        yield f"{name}: the verdict is {was} as stored and {now} now"
    if (old["effect"] is None) != (new["effect"] is None):
        yield f"{name}: the effect is {old['effect']} as stored and {new['effect']} now"
    if old["effect"] is None or new["effect"] is None:
        return
    low = -math.inf if old["low"] is None else old["low"]
    high = math.inf if old["high"] is None else old["high"]
    slack = ROUNDING * abs(old["effect"])
    if not low - slack <= new["effect"] <= high + slack:
        yield f"{name}: the effect is {new['effect']} now, outside the stored interval [{low}, {high}]"
