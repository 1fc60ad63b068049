"""Count what a chapter's full run launches on a GPU: ``python launches.py CHAPTER``.

On the device double, with the numbers of size ``full`` but the few seeds of ``quick``, since launches do
not depend on the number of replicas. Each call of ``fit`` trains ``STEPS`` steps and is counted as if
it had trained all: steps times the calls of one, and records times the calls of one evaluation. What
follows from results that were never reached (an arm without a usable rate) may be missing.
"""

from __future__ import annotations

import collections
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import double
import matplotlib as mpl
import on_double

STEPS = 3


class Diary:
    """A regulariser that writes down the calls so far after each step."""

    def __init__(self, counts: double.Counts) -> None:
        self.counts, self.entries = counts, []

    def weights(self, network: Any) -> None:
        self.entries.append(self.counts.calls + self.counts.hidden)


def mixed(**sizes: Any) -> dict[str, Any]:
    """The numbers of ``full`` with the seeds of ``quick``."""
    few = {name: n for name, n in sizes["quick"].items() if name.startswith("seeds")}
    return dict(full=dict(sizes["full"]) | few)


class Ledger:
    """What all calls of ``fit`` would have launched."""

    def __init__(self, fit: Any, training: Any) -> None:
        self.fit, self.training = fit, training
        self.found = collections.Counter()

    def __call__(self, network: Any, data: Any, *args: Any, **options: Any) -> Any:
        per_epoch = math.ceil(_training_examples(network, data) / options.get("batch_size", 100))
        steps = options.get("steps") or options["epochs"] * per_epoch
        records = math.ceil(math.ceil(steps / per_epoch) / options.get("evaluate_every", 1))
        several = options.get("regularizers", ())
        several = list(several) if isinstance(several, (list, tuple)) else [several]
        evaluations: list[int] = []
        with double.count() as counts:
            diary = Diary(counts)
            evaluate = self.training._evaluate

            def counted(*given: Any) -> Any:
                before = counts.calls + counts.hidden
                found = evaluate(*given)
                evaluations.append(counts.calls + counts.hidden - before)
                return found

            self.training._evaluate = counted
            try:
                short = options | dict(regularizers=[*several, diary], steps=min(steps, STEPS))
                short.pop("epochs", None)
                history = self.fit(network, data, *args, **short)
            finally:
                self.training._evaluate = evaluate
        step = max(
            (b - a for a, b in zip(diary.entries, diary.entries[1:], strict=False)), default=0
        )
        rest = counts.calls + counts.hidden - step * len(diary.entries) - sum(evaluations)
        self.found["fits"] += 1
        self.found["steps"] += steps
        self.found["launches"] += step * steps + max(rest, 0)
        self.found["launches"] += max(evaluations, default=0) * records
        self.found["skipped"] += counts.calls + counts.hidden
        return history


def _training_examples(network: Any, data: Any) -> int:
    from dlcore.batches import per_seed

    first = network.streams.seeds[0]
    return len(per_seed(data, [first])[first].y_train)


def main() -> None:
    sys.modules["cupy"] = double.xp
    os.environ |= {"DLCORE_SIZE": "full", "DLCORE_BACKEND": "auto", "TQDM_DISABLE": "1"}
    mpl.use("agg")
    import dlcore as dl
    from dlcore import experiments, training

    setup = dl.setup
    dl.setup = lambda **sizes: setup(**mixed(**sizes))
    ledger = Ledger(training.fit, training)
    dl.fit = experiments.fit = ledger
    counts = on_double.run(Path(sys.argv[1]))
    outside = counts.calls + counts.hidden - ledger.found.pop("skipped")
    found = dict(ledger.found) | {"outside": outside}
    found["launches"] += outside
    print(json.dumps(found))


if __name__ == "__main__":
    main()
