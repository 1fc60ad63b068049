"""What nbval needs here: it runs a notebook, we compare the records of verdicts.

The kernel runs in canonical arithmetic where the machine can do that (`dlcore.arithmetic`;
``DLCORE_ARITHMETIC`` names another). There the records are compared to rounding, elsewhere as two runs of a
chaotic experiment.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

import nbformat
import pytest

from book import arithmetic, replicate
from book.verdicts import MIME, compare, is_timing, records, replications, spreads

NUMBER = re.compile(r"[-+−±]?\d[\d.,]*(?:e[-+]?\d+)?")


def pytest_collection_modifyitems(session, items):
    """Put our comparison in front of nbval's, and choose the arithmetic of the kernels."""
    cells = [item for item in items if type(item).__name__ == "IPyNbCell"]
    if not cells:
        return
    size = os.environ.get("DLCORE_SIZE", "full")
    if size != "full":
        raise pytest.UsageError(
            f"DLCORE_SIZE is {size!r}, but the stored outputs come from full size; see `make quick`"
        )
    name, same_bits = _prepare_kernels()
    session.replication = replicate.Run(name, base_seed=0)
    spread = spreads(replications())
    for item in cells:
        item.compare_outputs = functools.partial(
            compare_outputs, item, item.compare_outputs, same_bits, spread
        )


def pytest_sessionfinish(session):
    """Keep the records of chapters that ran from first to last cell, as a replication."""
    notebooks = {
        item.parent for item in session.items if type(item).__name__ == "IPyNbCell"
    }
    for notebook in notebooks:
        cells = [item for item in session.items if item.parent is notebook]
        stored = [
            record["id"]
            for item in cells
            for record in records(item.cell.get("outputs", []))
        ]
        fresh = getattr(notebook, "fresh_records", [])
        if notebook.path.parent == replicate.CHAPTERS and stored == [
            r["id"] for r in fresh
        ]:
            replicate.keep(session.replication, notebook.path, fresh)


def _prepare_kernels():
    """Choose the arithmetic of the kernels; return its name, and whether it has the stored outputs' bits."""
    asked, environment = arithmetic.chosen()
    os.environ.update(environment)
    ask = "from dlcore import arithmetic; print(arithmetic.describe())"
    answer = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True
    )
    name = answer.stdout.strip()
    how = "to rounding" if name == "canonical" else "statistically"
    print(f"\nArithmetic of the kernels: {name}. Verdicts are compared {how}.")
    return asked, name == "canonical"


def compare_outputs(
    item, nbval_compare, same_bits, spread, fresh, stored, skip_compare=None
):
    """Compare one cell's outputs: nbval its texts, we its verdicts and the number of its images."""
    texts = []
    for outputs in (fresh, stored):
        kept = [_without_record(o) for o in outputs if not _by_record(o, same_bits)]
        texts.append(kept if same_bits else [_without_numbers(o) for o in kept])
    same = nbval_compare(*texts, skip_compare)
    found = compare(records(stored), records(fresh), spread)
    item.parent.fresh_records = getattr(item.parent, "fresh_records", [])
    item.parent.fresh_records += records(fresh)
    images = [
        sum("image/png" in o.get("data", {}) for o in outputs)
        for outputs in (stored, fresh)
    ]
    if images[0] != images[1]:
        found.append(f"{images[0]} images are stored, {images[1]} came from the run")
    item.comparison_traceback.extend(found)
    return same and not found


def _by_record(output, same_bits):
    """Tell whether a verdict's line is left to the comparison of its record: the word may become another."""
    record = output.get("data", {}).get(MIME)
    return record is not None and (is_timing(record) or not same_bits)


def _without_record(output):
    if MIME not in output.get("data", {}):
        return output
    data = {
        key: value
        for key, value in output["data"].items()
        if key not in (MIME, "text/html")
    }
    return nbformat.from_dict({**output, "data": data})


def _without_numbers(output):
    """Mask whole numbers, too: in another arithmetic counts of runs may be others."""
    masked = nbformat.from_dict(output)
    if "text" in masked:
        masked["text"] = NUMBER.sub("NUMBER", masked["text"])
    for kind, text in masked.get("data", {}).items():
        if kind.startswith("text/"):
            masked["data"][kind] = NUMBER.sub("NUMBER", text)
    return masked
