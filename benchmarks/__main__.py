"""``python -m benchmarks full|smoke [--only PART ...] [--output FILE]``, or ``publish`` what was measured."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "chapters" / "appendix" / "benchmark.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("plan", choices=("full", "smoke", "publish"))
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of cases")
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "bench.json")
    options = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    if options.plan == "publish":
        publish(options.output)
        return
    from benchmarks import machine, measure, report

    found = {"machine": machine.describe()} | measure.run(options.plan, options.only)
    print(report.text(found))
    report.write(found, options.output)
    report.figure(found, options.output.with_suffix(".png"))


def publish(source: Path) -> None:
    """Keep the results of a full run and put them into the book's page."""
    from benchmarks import report

    found = report.read(source)
    if found["plan"] != "full" or "denormal" not in found:
        raise SystemExit(f"{source} is not the result of a whole 'make bench'")
    report.write(found, RESULTS)
    PAGE.write_text(report.filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    report.figure(found, PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
