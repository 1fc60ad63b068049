"""``python -m benchmarks full|smoke [--only PART ...] [--output FILE]``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("plan", choices=("full", "smoke"))
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of cases")
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "bench.json")
    options = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    from benchmarks import machine, measure, report

    found = {"machine": machine.describe()} | measure.run(options.plan, options.only)
    print(report.text(found))
    report.write(found, options.output)
    report.figure(found, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
