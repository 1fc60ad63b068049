"""Verdicts as notebooks store them: checks of one record, and of a fresh record against the stored one.

Two runs in canonical arithmetic (`dlcore.arithmetic`) compute the same bits, so there a fresh record must say
what the stored one says, to rounding. Elsewhere training goes another way from the last bit on, and the
comparison is statistical: words equal or adjacent, and effects no further apart than four standard errors of
a difference of two runs. Measured times hang on the very kernels that differ there, and are not compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

MIME = "application/vnd.dlcore.verdict+json"
KEYS = {
    "id", "claim", "verdict", "effect", "unit", "low", "high", "seeds", "data", "machine", "arithmetic",
}  # fmt: skip
WORDS = {"holds", "fails", "depends", "undecided"}
OPPOSITE = {"holds": "fails", "fails": "holds"}
# What must agree to the letter; `machine` is free, numbers have a tolerance.
EXACT = ("id", "claim", "unit", "data", "size", "threshold", "level", "seeds")
ROUNDING = 1e-5  # records keep six digits
#: How many standard errors of a difference of two runs effects may lie apart in another arithmetic.
ERRORS = 4.0
#: Findings from one end to the other: in another arithmetic a word may become its neighbour. "undecided"
#: neighbours all.
SCALE = ("holds", "smaller", "no difference", "opposite")
#: Units of ratios, whose intervals are symmetric in the logarithm, and where no effect is 1.
RATIOS = ("times", "x time")
#: Units of the size of rounding errors, which is another in another arithmetic: there only the word is
#: compared.
ROUNDING_UNITS = ("log10", "millionths")
REPLICATIONS = Path(__file__).resolve().parent / "replications.json"


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
    if record["arithmetic"] != "canonical":
        yield f"{name}: stored from arithmetic {record['arithmetic']!r}, expected canonical"
    if (
        not text.startswith(f"{name} {record['verdict']}: ")
        or f"{record['seeds']} seeds" not in text
    ):
        yield f"{name}: the printed line does not say what the record says"


def compare(
    stored: list[dict], fresh: list[dict], spread: Mapping[tuple[str, str], float] | None = None
) -> list[str]:
    """Compare the records of one cell; return what differs more than it may.

    ``spread`` maps a verdict's id and part (of one without parts: "") to the standard deviation of its effect
    between replications, see `spreads`; it matters in another arithmetic only.
    """
    names = [[record.get("id") for record in side] for side in (stored, fresh)]
    if names[0] != names[1]:
        return [f"verdicts {names[0]} are stored, {names[1]} came from the run"]
    found = []
    for old, new in zip(stored, fresh, strict=True):
        found += _differences(old, new, spread or {})
    return found


def _differences(old: dict, new: dict, spread: Mapping[tuple[str, str], float]) -> Iterator[str]:
    name = old["id"]
    for key in EXACT:
        if old.get(key) != new.get(key):
            yield f"{name}: {key} is {old.get(key)!r} as stored and {new.get(key)!r} now"
    others = new.get("parts") or {}
    if set(old.get("parts") or {}) != set(others):  # in any order: they are stored with sorted keys
        yield f"{name}: conditions are {sorted(old['parts'])} as stored and {sorted(others)} now"
        return
    same_bits = old.get("arithmetic") == new.get("arithmetic") == "canonical"
    for part, was in parts(old).items():
        now = parts(new)[part]
        label = f"{name}, {part}" if part else name
        if was["seeds"] != now["seeds"]:
            yield f"{label}: {was['seeds']} seeds stored and {now['seeds']} now"
        if not is_timing(old) and not same_bits:
            yield from _too_far(was, now, old, spread.get((name, part), 0.0), label)
        elif same_bits:
            yield from _as_stored(was, now, is_timing(old), label)
    if same_bits and old.get("parts"):
        yield from _same_word(old, new, is_timing(old), name)


def parts(record: dict) -> dict[str, dict]:
    """Return a record's conditions by name; of one without conditions itself, named ""."""
    return record.get("parts") or {"": record}


def _same_word(was: dict, now: dict, timing: bool, label: str) -> Iterator[str]:
    """Say where a word is another; one about a measured time may become undecided, but not its opposite."""
    a, b = was["verdict"], now["verdict"]
    if timing and b == OPPOSITE.get(a):
        yield f"{label}: the verdict turned from {a} to {b}"
    if not timing and a != b:
        yield f"{label}: the verdict is {a} as stored and {b} now"


def _as_stored(was: dict, now: dict, timing: bool, label: str) -> Iterator[str]:
    """Say what differs more than six digits do: the comparison in canonical arithmetic."""
    yield from _same_word(was, now, timing, label)
    if timing:
        return
    for key in ("effect", "low", "high"):
        a, b = was[key], now[key]
        if (a is None) != (b is None) or (a is not None and not _close(a, b)):
            yield f"{label}: {key} is {a} as stored and {b} now, in canonical arithmetic"


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= ROUNDING * max(abs(a), abs(b))


def _too_far(was: dict, now: dict, record: dict, spread: float, label: str) -> Iterator[str]:
    """Say where word or effect moved more than chance moves them: the comparison in another arithmetic."""
    before, after = finding(was, record), finding(now, record)
    if not adjacent(before, after):
        yield f"{label}: the finding is {before!r} as stored and {after!r} now"
    if (was["effect"] is None) != (now["effect"] is None):
        yield f"{label}: the effect is {was['effect']} as stored and {now['effect']} now"
        return
    if was["effect"] is None or record["unit"] in ROUNDING_UNITS:
        return
    moved = abs(_linear(now["effect"], record) - _linear(was["effect"], record))
    error = math.sqrt(2) * max(standard_error(was, record), spread)
    limit = ERRORS * error + ROUNDING * abs(_linear(was["effect"], record))
    if not moved <= limit:
        yield (
            f"{label}: the effect is {was['effect']} as stored and {now['effect']} now, "
            f"more than {ERRORS:g} standard errors of {error:.3g} away"
        )


def _linear(value: float, record: dict) -> float:
    """Return a value on the scale on which its interval is symmetric."""
    return math.log(value) if record["unit"] in RATIOS else value


def standard_error(part: dict, record: dict) -> float:
    """Return the standard error that belongs to a part's interval, on its own scale (ratios: the logarithm).

    Half the interval over Student's quantile; where one end is not known, the distance to the other. Infinite
    where neither is known.
    """
    ends = [
        abs(_linear(part[end], record) - _linear(part["effect"], record))
        for end in ("low", "high")
        if part[end] is not None and (part[end] > 0 or record["unit"] not in RATIOS)
    ]
    if not ends:
        return math.inf
    quantile = float(stats.t.ppf((1 + record["level"]) / 2, part["seeds"] - 1))
    return sum(ends) / len(ends) / quantile


def finding(part: dict, record: dict) -> str:
    """Return what a part found, in finer words than its verdict's: one of `SCALE`, or "undecided".

    "fails" hides three findings: on the claimed side but smaller than d, no difference, and the opposite.
    """
    if part["verdict"] != "fails" or part["effect"] is None:
        return part["verdict"]
    ((rule, due),) = record["threshold"].items()
    none = 1.0 if record["unit"] in RATIOS else 0.0
    sign = -1.0 if rule == "at_most" else 1.0
    if rule == "within" or sign * (due - none) <= 0:  # the claim is of no effect, or of no harm
        return "opposite"
    low = -math.inf if part["low"] is None else part["low"]
    high = math.inf if part["high"] is None else part["high"]
    nearer, further = sorted((sign * (low - none), sign * (high - none)))
    if nearer > 0:
        return "smaller"
    return "opposite" if further < 0 else "no difference"


def adjacent(before: str, after: str) -> bool:
    """Tell whether a finding may become the other one in another arithmetic.

    >>> adjacent("holds", "smaller"), adjacent("holds", "opposite"), adjacent("undecided", "opposite")
    (True, False, True)
    """
    if "undecided" in (before, after):
        return True
    return abs(SCALE.index(before) - SCALE.index(after)) <= 1


def replications(path: Path = REPLICATIONS) -> dict[str, Any]:
    """Return what `book.replicate` stored: the runs, and each verdict's words and effects in them."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {"runs": [], "verdicts": {}}


def spreads(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Return the standard deviation of each effect between replications with other seeds, on its own scale.

    An interval over seeds leaves out what all seeds share, such as a learning rate that was tuned once; runs
    with other base seeds tune anew. Verdicts of one claim compare the same arms under a condition, so their
    variances are pooled. Only runs in canonical arithmetic count: the others are what is to be judged.
    """
    columns = [i for i, run in enumerate(found["runs"]) if run["arithmetic"] == "canonical"]
    variances: dict[tuple[str, str, str], list[float]] = {}
    members: dict[tuple[str, str], tuple[str, str, str]] = {}
    for name, verdict in found["verdicts"].items():
        for part, seen in verdict["parts"].items():
            effects = [seen["effects"][i] for i in columns]
            if len(effects) < 2 or None in effects:
                continue
            values = [_linear(effect, verdict) for effect in effects]
            group = claim_of(name), verdict["unit"], part or name
            members[name, part] = group
            variances.setdefault(group, []).append(float(np.var(values, ddof=1)))
    return {key: math.sqrt(np.mean(variances[group])) for key, group in members.items()}


def claim_of(name: str) -> str:
    """Return the claim that a verdict answers: its id without the letters at the end.

    >>> claim_of("G1a")
    'G1'
    """
    return name.rstrip("abcdefghijklmnopqrstuvwxyz")


def stood(words: list[str]) -> str:
    """Say in how many runs the first word stood.

    >>> stood(["holds", "holds", "undecided", "holds"])
    '3 of 4'
    """
    return f"{words.count(words[0])} of {len(words)}"
