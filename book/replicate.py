"""Run the book again in other arithmetics and with other seeds, and store in how many runs each word stood.

``python -m book.replicate`` runs each chapter for each of `RUNS` and writes ``book/replications.json``, which
the ledger shows and nbval reads (`book.verdicts.spreads`). The records of each run stay in
``_build/replications``: what was run with the same code, by nbval too, is not run again.
``--only 03-activations`` takes one chapter, ``--jobs 2`` runs two notebooks at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from book import notebooks
from book.verdicts import REPLICATIONS, is_timing, parts, records
from dlcore import arithmetic

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
BUILT = ROOT / "_build" / "replications"


@dataclass(frozen=True)
class Run:
    """One way to run the book: ``arithmetic`` as in `dlcore.arithmetic`, ``base_seed`` as ``DLCORE_SEED``."""

    arithmetic: str
    base_seed: int

    @property
    def name(self) -> str:
        """Return the folder's name."""
        return f"{self.arithmetic}-seed{self.base_seed}"


#: The first is what the notebooks store, and is not run again.
RUNS = (
    Run("canonical", 0),
    Run("canonical", 1),
    Run("canonical", 2),
    Run("nehalem", 0),
)


def fingerprint(chapter: Path) -> str:
    """Return a checksum of what a run of a chapter computes: its code cells and dlcore's files."""
    found = hashlib.sha256()
    for cell in nbformat.read(chapter, as_version=4).cells:
        if cell.cell_type == "code":
            found.update(cell.source.encode() + b"\0")
    for path in sorted((ROOT / "dlcore").rglob("*.py")):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def execute(run: Run, chapter: Path) -> str:
    """Run one chapter so, unless that has been done with this code; return a line that says what was done."""
    kept = BUILT / run.name / f"{chapter.stem}.json"
    if kept.exists() and json.loads(kept.read_text("utf-8"))["code"] == fingerprint(chapter):
        return f"{run.name}, {chapter.stem}: as before"
    variables = arithmetic.environment(run.arithmetic)
    notebook, seconds = notebooks.execute(
        chapter, DLCORE_SEED=str(run.base_seed), DLCORE_SIZE="full", **variables
    )
    keep(run, chapter, _records(notebook))
    return f"{run.name}, {chapter.stem}: {seconds:.0f} s"


def keep(run: Run, chapter: Path, found: list[dict[str, Any]]) -> None:
    """Keep the records of one chapter's run, with the checksum of the code that gave them."""
    path = BUILT / run.name / f"{chapter.stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"code": fingerprint(chapter), "records": found}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def collect(chapters: Iterable[Path], runs: tuple[Run, ...] = RUNS) -> dict[str, Any]:
    """Return words and effects of the chapters' verdicts, one entry a run.

    Raises ``ValueError`` where the runs do not give the same verdicts.
    """
    found: dict[str, Any] = {}
    for chapter in chapters:
        columns = [_records(nbformat.read(chapter, as_version=4))]
        for run in runs[1:]:
            kept = BUILT / run.name / f"{chapter.stem}.json"
            columns.append(json.loads(kept.read_text("utf-8"))["records"])
        names = [[record["id"] for record in column] for column in columns]
        if any(given != names[0] for given in names):
            raise ValueError(f"{chapter.name}: the runs give other verdicts: {names}")
        for same in zip(*columns, strict=True):
            if not is_timing(same[0]):
                found[same[0]["id"]] = _together(chapter.stem, same)
    return found


def _records(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found += records(cell.outputs)
    return found


def _together(chapter: str, same: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """Join the records of one verdict, one a run."""
    seen = {}
    for name in parts(same[0]):
        each = [parts(record)[name] for record in same]
        seen[name] = {
            "words": [part["verdict"] for part in each],
            "effects": [part["effect"] for part in each],
        }
    return {
        "chapter": chapter,
        "unit": same[0]["unit"],
        "words": [record["verdict"] for record in same],
        "parts": seen,
    }


def problems(stored: dict[str, Any], chapter: Path) -> list[str]:
    """Say which verdicts of a chapter are not those that were replicated."""
    found = []
    for record in _records(nbformat.read(chapter, as_version=4)):
        if is_timing(record):
            continue
        entry = stored["verdicts"].get(record["id"])
        if entry is None:
            found.append(f"{chapter.stem}: {record['id']} was never replicated")
            continue
        now = _together(chapter.stem, (record,))
        for name, seen in now["parts"].items():
            then = entry["parts"].get(name, {"words": [None], "effects": [None]})
            if [seen["words"][0], seen["effects"][0]] != [then["words"][0], then["effects"][0]]:
                found.append(f"{chapter.stem}: {record['id']}, {name or 'effect'} is another now")
    return found


def write(found: dict[str, Any], path: Path = REPLICATIONS) -> None:
    """Store verdicts beside those of the chapters that were not run."""
    before = json.loads(path.read_text("utf-8"))["verdicts"] if path.exists() else {}
    chapters = {entry["chapter"] for entry in found.values()}
    kept = {name: entry for name, entry in before.items() if entry["chapter"] not in chapters}
    verdicts = dict(sorted((kept | found).items(), key=lambda item: (item[1]["chapter"], item[0])))
    runs = [{"arithmetic": run.arithmetic, "base_seed": run.base_seed} for run in RUNS]
    text = json.dumps({"runs": runs, "verdicts": verdicts}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m book.replicate", description=__doc__)
    parser.add_argument("--only", nargs="+", help="chapters by name")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time (default 1)")
    options = parser.parse_args(arguments)
    chapters = sorted(CHAPTERS.glob("*.ipynb"))
    if options.only:
        chapters = [CHAPTERS / f"{name.removesuffix('.ipynb')}.ipynb" for name in options.only]
    tasks = [(run, chapter) for chapter in chapters for run in RUNS[1:]]
    with ThreadPoolExecutor(options.jobs) as pool:
        for line in pool.map(lambda task: execute(*task), tasks):
            print(line, flush=True)
    found = collect(chapters)
    write(found)
    turned = {name: entry for name, entry in found.items() if len(set(entry["words"])) > 1}
    for name, entry in turned.items():
        print(f"{name}: {', '.join(entry['words'])}")
    print(f"{len(found) - len(turned)} of {len(found)} words stood in all {len(RUNS)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
