"""What nbval needs here: it runs a notebook, we compare the records of verdicts, with a tolerance."""

from __future__ import annotations

import functools
import os

import nbformat
import pytest

from book.verdicts import MIME, compare, is_timing, records


def pytest_itemcollected(item):
    """Put our comparison in front of nbval's."""
    if type(item).__name__ != "IPyNbCell":
        return
    size = os.environ.get("DLCORE_SIZE", "full")
    if size != "full":
        raise pytest.UsageError(
            f"DLCORE_SIZE is {size!r}, but the stored outputs come from full size; see `make quick`"
        )
    item.compare_outputs = functools.partial(
        compare_outputs, item, item.compare_outputs
    )


def compare_outputs(item, nbval_compare, fresh, stored, skip_compare=None):
    """Compare one cell's outputs: nbval its texts, we its verdicts and the number of its images."""
    texts = [
        [_without_record(o) for o in outputs if not _timed(o)]
        for outputs in (fresh, stored)
    ]
    same = nbval_compare(*texts, skip_compare)
    found = compare(records(stored), records(fresh))
    images = [
        sum("image/png" in o.get("data", {}) for o in outputs)
        for outputs in (stored, fresh)
    ]
    if images[0] != images[1]:
        found.append(f"{images[0]} images are stored, {images[1]} came from the run")
    item.comparison_traceback.extend(found)
    return same and not found


def _timed(output):
    """A verdict about time: its word may become undecided, so its line is not compared."""
    return MIME in output.get("data", {}) and is_timing(output["data"][MIME])


def _without_record(output):
    if MIME not in output.get("data", {}):
        return output
    data = {
        key: value
        for key, value in output["data"].items()
        if key not in (MIME, "text/html")
    }
    return nbformat.from_dict({**output, "data": data})
