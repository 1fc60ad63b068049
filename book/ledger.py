"""The ledger of claims: every verdict of the book, collected from the outputs that the chapters store."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import nbformat

from book.verdicts import WORDS, claim_of, records, replications, stood

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
#: How prose cites a verdict: ``[G1a depends](#verdict-g1a)``.
CITED = re.compile(r"\[([^\]]*)\]\(#verdict-([a-z0-9]+)\)")
SIGNS = {"at_least": "≥", "at_most": "≤", "within": "±"}


def claims() -> dict[str, dict[str, str]]:
    """Return ``chapter -> claim's id -> statement``, in the book's order."""
    return tomllib.loads((ROOT / "book/claims.toml").read_text("utf-8"))


def anchor(name: str) -> str:
    """Return the target of a verdict in its chapter's page.

    >>> anchor("G1a")
    'verdict-g1a'
    """
    return f"verdict-{name.lower()}"


def entry(name: str) -> str:
    """Return the target of a verdict in the ledger's page.

    >>> entry("G1a")
    'ledger-g1a'
    """
    return f"ledger-{name.lower()}"


def verdicts(path: Path) -> list[dict[str, Any]]:
    """Return the records that one notebook stores, in order."""
    nb = nbformat.read(path, as_version=4)
    return [r for cell in nb.cells if cell.cell_type == "code" for r in records(cell.outputs)]


def collect(folder: Path = CHAPTERS) -> list[dict[str, Any]]:
    """Return the claims in order with their verdicts; ``written`` is false where the chapter lacks.

    Raises ``ValueError`` for a verdict that belongs to no claim of its chapter.
    """
    found = []
    for chapter, statements in claims().items():
        path = folder / f"{chapter}.ipynb"
        stored = verdicts(path) if path.exists() else []
        for record in stored:
            if claim_of(record["id"]) not in statements:
                raise ValueError(f"{path.name}: verdict {record['id']} belongs to no claim of it")
        found += [
            {
                "id": name,
                "claim": statement,
                "chapter": chapter,
                "written": path.exists(),
                "verdicts": [r for r in stored if claim_of(r["id"]) == name],
            }
            for name, statement in statements.items()
        ]
    return found


def citation_problems(path: Path) -> list[str]:
    """Say where a notebook's prose cites a verdict otherwise than the book's outputs give it."""
    given = {r["id"].lower(): r for claim in collect() for r in claim["verdicts"]}
    nb = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    found = []
    for text, name in CITED.findall(prose):
        said = WORDS & set(re.findall(r"[a-z]+", text.lower()))
        if name not in given:
            found.append(f"{path.name} cites verdict {name}, which no output gives")
        elif said and said != {given[name]["verdict"]}:
            found.append(f"{path.name} says {text!r}, the output says {given[name]['verdict']}")
    return found


# --------------------------------------------------------------------------------------------------
# The page and its copy for programs


def as_json(version: str) -> str:
    """Return the ledger for programs."""
    found = collect()
    again = replications()
    for claim in found:
        for record in claim["verdicts"]:
            record["page"] = f"chapters/{claim['chapter']}.html#{anchor(record['id'])}"
            if record["id"] in again["verdicts"]:
                record["words_in_runs"] = again["verdicts"][record["id"]]["words"]
    ledger = {"version": version, "runs": again["runs"], "claims": found}
    return json.dumps(ledger, indent=1, ensure_ascii=False) + "\n"


def as_markdown() -> str:
    """Return the ledger, a list for each claim, in MyST Markdown: readable on a phone, as a table is not."""
    found, parts = collect(), [_counts()]
    for number, chapter in enumerate(claims(), 1):
        mine = [claim for claim in found if claim["chapter"] == chapter]
        parts.append(f"## {number} {_title(chapter)}\n")
        if not mine[0]["written"]:
            parts.append("This chapter is not written yet. Its claims:\n")
            parts += [f"- **{claim['id']}** {claim['claim']}" for claim in mine]
            parts.append("")
            continue
        for claim in mine:
            parts.append(f":::{{container}} claim\n**{claim['id']}** {claim['claim']}\n")
            parts += _lists(claim["verdicts"]) if claim["verdicts"] else ["No verdict.\n"]
            parts.append(":::\n")
    return "\n".join(parts)


def _title(chapter: str) -> str:
    return chapter.partition("-")[2].replace("-", " ").capitalize()


def _counts() -> str:
    """Return a table: how many verdicts of each word every chapter has."""
    words = ("holds", "fails", "depends", "undecided")
    rows = {}
    for number, chapter in enumerate(claims(), 1):
        given = [r["verdict"] for c in collect() if c["chapter"] == chapter for r in c["verdicts"]]
        if given:
            rows[f"{number} {_title(chapter)}"] = [given.count(word) for word in words]
    rows["All"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    lines = [" | ".join(("Chapter", *words)), "|".join(("---", *["--:"] * len(words)))]
    lines += [" | ".join((name, *map(str, row))) for name, row in rows.items()]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _lists(stored: list[dict[str, Any]]) -> list[str]:
    lines = []
    again = replications()["verdicts"]
    for record in stored:
        seen = again.get(record["id"])
        link = f"[{record['id']}](#{anchor(record['id'])})"
        where = f"{_text(record['data'])}, {record['seeds']} seeds"
        if seen:
            where += f"; the word stood in {stood(seen['words'])} runs"
        lines.append(
            f"- {link} {_badge(record, '#' + entry(record['id']))}: {_text(record['claim'])} *({where})*"
        )
        for name, part in record["parts"].items():
            words = seen["parts"][name]["words"] if seen and name in seen["parts"] else []
            turned = f" (stood in {stood(words)})" if len(set(words)) > 1 else ""
            lines.append(f"  - {_badge(part)} {_text(name)}: {_effect(part)}{turned}")
        if not record["parts"]:
            lines.append(f"  - {_effect(record)}")
    return [*lines, ""]


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")


def _badge(record: dict[str, Any], target: str = "") -> str:
    return f"[{record['verdict']}]{{{target} .verdict .verdict-{record['verdict']}}}".replace(
        "{ ", "{"
    )


def _effect(record: dict[str, Any]) -> str:
    if record["effect"] is None:
        return "not measurable"
    low = "−∞" if record["low"] is None else _number(record["low"])
    high = "∞" if record["high"] is None else _number(record["high"])
    ((rule, due),) = record["threshold"].items()
    against = f"{SIGNS[rule]} {_number(due)}"
    return f"{_number(record['effect'])} {_text(record['unit'])} [{low}, {high}] against {against}"


def _number(value: float) -> str:
    """Return three significant digits with a typographic minus.

    >>> _number(-0.20519), _number(19.86), _number(1234.5)
    ('−0.205', '19.9', '1234')
    """
    digits = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return digits.replace("e-0", "e-").replace("-", "−")
