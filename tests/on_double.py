"""Run a chapter's code cells in this process as a GPU would: ``python on_double.py CHAPTER``.

``import cupy`` gives the device double, so ``get_backend("auto")`` takes it as it takes CuPy where a GPU
is. A cell's last value is shown as Jupyter would show it. Ends with the cell's number and its
error, and prints what the double counted as JSON.
"""

from __future__ import annotations

import ast
import collections
import json
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import double
import matplotlib as mpl


def code_cells(path: Path) -> dict[int, str]:
    """Return the code cells of a notebook by their numbers, counted from 0 over all cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {i: "".join(c["source"]) for i, c in enumerate(cells) if c["cell_type"] == "code"}


def show(value: Any) -> None:
    """Make the text and the records of a cell's value, as Jupyter does."""
    if value is None:
        return
    if hasattr(value, "_repr_mimebundle_"):
        value._repr_mimebundle_()
    repr(value)


def execute(source: str, name: str, scope: dict[str, Any]) -> None:
    """Run one cell, and show the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), scope)
    if last is not None:
        show(eval(compile(ast.Expression(last.value), name, "eval"), scope))


def run(path: Path) -> double.Counts:
    """Run all cells of a chapter; return the counts of the whole."""
    # a chapter's functions belong to a module that is there, as in a notebook
    scope = vars(sys.modules.setdefault("chapter", types.ModuleType("chapter")))
    with double.count() as counts:
        for number, source in code_cells(path).items():
            try:
                execute(source, f"{path.name}, cell {number}", scope)
            except Exception as error:
                error.add_note(f"in cell {number} of {path.name}")
                raise
    return counts


def main() -> None:
    sys.modules["cupy"] = double.xp
    os.environ["DLCORE_SIZE"] = "quick"
    os.environ["DLCORE_BACKEND"] = "auto"
    os.environ["TQDM_DISABLE"] = "1"
    mpl.use("agg")
    warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
    import dlcore as dl

    assert dl.get_backend().xp is double.xp
    counts = run(Path(sys.argv[1]))
    print(json.dumps(dict(collections.Counter(calls=counts.calls, hidden=counts.hidden))))


if __name__ == "__main__":
    main()
