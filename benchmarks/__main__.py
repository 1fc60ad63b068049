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
    parser.add_argument(
        "--parts", nargs="*", type=Path, default=[], help="files to join, to publish"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "bench.json")
    options = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    if options.plan == "publish":
        publish(options.parts or [options.output])
        return
    from benchmarks import machine, measure, report

    found = {"machine": machine.describe()} | measure.run(options.plan, options.only)
    print(report.text(found))
    report.write(found, options.output)
    if found["rows"]:
        report.figure(found, options.output.with_suffix(".png"))
    if found["failures"]:
        raise SystemExit("\n".join(found["failures"]))


def publish(sources: list[Path]) -> None:
    """Keep the results of a full run, whole or in parts, and put them into the book's page."""
    from benchmarks import measure, report

    found = report.joined([report.read(source) for source in sources])
    cases = set(report.grouped(found))
    due = {(c.net, c.replicas, c.optimizer, c.variant) for c in measure.PLANS["full"].cases}
    missing = sorted(map(report.name_of, due - cases))
    if found["plan"] != "full" or missing or "denormal" not in found:
        raise SystemExit(f"not a whole 'make bench': {missing or 'vanishing gradients'} missing")
    report.write(found, RESULTS)
    PAGE.write_text(report.filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    report.figure(found, PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
