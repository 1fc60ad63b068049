"""Run the notebooks, store them in one normal form, and check what is stored.

``python -m book.notebooks run FILES`` runs and stores, ``try FILES`` only runs, ``tidy FILES``
normalises without running, ``check FILES`` lists what is wrong with the stored notebooks.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

from book import arithmetic
from book.verdicts import MIME, record_problems

MAX_LINES = 25
MAX_FIGURES = 10
MAX_PNG = 80_000
MAX_NOTEBOOK = 2_000_000
WORDS = (2000, 3500)
MIME_TYPES = {"text/plain", "image/png", MIME}

# The language's version is left out: it would change with whoever ran the notebook last.
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = {
    "hide-input": {"source_hidden": True},
    "hide-output": {"outputs_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}
CELL_METADATA = ("mystnb", "tags")

# Marks that make nbval look away.
NBVAL_MARKS = re.compile(
    r"(?i)\b(nbval|pytest)[-_](ignore[-_]output|skip|raises[-_]exception|validate|check)"
)
MACHINE_PATH = re.compile(
    r"(?:(?<![\w.])/(?:home|root|Users|tmp|work|mnt|opt|var|usr)/\w|\b[A-Z]:\\\w|file://)"
)


def normalise(nb: NotebookNode) -> NotebookNode:
    """Bring a notebook into its normal form, in place: what does not belong to the content goes.

    Metadata that editors leave, execution times, splits of the printed text that depend on timing, and
    colours that a figure does not need. Cell ids stay as they are. A folded cell is folded in JupyterLab too.
    """
    nb.metadata = nbformat.from_dict(METADATA)
    nb.nbformat, nb.nbformat_minor = 4, 5
    taken = set()
    for index, cell in enumerate(nb.cells):
        if not cell.get("id") or cell.id in taken:
            cell.id = f"cell-{index}"
        taken.add(cell.id)
        kept = {key: cell.metadata[key] for key in CELL_METADATA if cell.metadata.get(key)}
        for tag in kept.get("tags", []):
            if tag in FOLDED:
                kept["jupyter"] = kept.get("jupyter", {}) | FOLDED[tag]
        cell.metadata = nbformat.from_dict(kept)
        cell.pop("attachments", None)
        if cell.cell_type == "code":
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
                _normalise_output(output)
    return nb


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _normalise_output(output: NotebookNode) -> None:
    if "metadata" in output:
        output.metadata = NotebookNode()
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = quantise(output.data["image/png"])


def quantise(png: str, limit: int = MAX_PNG) -> str:
    """Reduce a base64 PNG to a palette of at most 256 colours, fewer if it is larger than ``limit`` bytes."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P":
        return png
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    for colours in (256, 128, 64, 32, 16):
        buffer = io.BytesIO()
        palette = image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(buffer, format="PNG", optimize=True)
        if buffer.tell() <= limit:
            break
    return base64.b64encode(buffer.getvalue()).decode() + "\n"


def problems(path: Path) -> list[str]:
    """List what is wrong with a stored notebook; nbval sees none of this."""
    nb = nbformat.read(path, as_version=4)
    found = [f"{path.name}: {text}" for text in _notebook_problems(nb, path.stat().st_size)]
    for index, cell in enumerate(nb.cells):
        found += [f"{path.name}, cell {index}: {text}" for text in _cell_problems(cell)]
    return found


def _notebook_problems(nb: NotebookNode, size: int) -> Iterator[str]:
    if size > MAX_NOTEBOOK:
        yield f"{size:,} bytes, at most {MAX_NOTEBOOK:,} are allowed"
    if normalise(nbformat.from_dict(nb)) != nb:
        yield "not in normal form: run `make notebooks`, or `python -m book.notebooks tidy`"
    words = sum(len(c.source.split()) for c in nb.cells if c.cell_type == "markdown")
    if not WORDS[0] <= words <= WORDS[1]:
        yield f"{words} words, expected {WORDS[0]} to {WORDS[1]}"
    code = [c for c in nb.cells if c.cell_type == "code"]
    counts = [c.execution_count for c in code]
    if None not in counts and counts != list(range(1, len(code) + 1)):
        yield "the cells were not run from first to last"
    outputs = [o for c in code for o in c.outputs]
    figures = sum("image/png" in o.get("data", {}) for o in outputs)
    if figures > MAX_FIGURES:
        yield f"{figures} figures, at most {MAX_FIGURES} are allowed"
    if not any(MIME in o.get("data", {}) for o in outputs):
        yield "no verdict"
    for field, values in _texts_of_figures(nb).items():
        if len(values) != len(set(values)):
            yield f"two figures have the same {field}"


def _texts_of_figures(nb: NotebookNode) -> dict[str, list[str]]:
    settings = [c.metadata.get("mystnb", {}) for c in nb.cells if c.cell_type == "code"]
    found = {
        "alt text": [s.get("image", {}).get("alt") for s in settings],
        "caption": [s.get("figure", {}).get("caption") for s in settings],
        "name": [s.get("figure", {}).get("name") for s in settings],
    }
    return {field: [v.strip() for v in values if v] for field, values in found.items()}


def _cell_problems(cell: NotebookNode) -> Iterator[str]:
    if MACHINE_PATH.search(cell.source) or MACHINE_PATH.search(str(cell.get("outputs", ""))):
        yield "holds an absolute path of one machine"
    if cell.cell_type != "code":
        return
    if cell.execution_count is None:
        yield "was never run: nbval would pass it unseen"
    if not cell.source.strip():
        yield "is empty"
    lines = cell.source.rstrip().splitlines()
    if len(lines) > MAX_LINES:
        yield f"{len(lines)} lines, at most {MAX_LINES} are allowed"
    if lines and lines[-1].rstrip().endswith(";"):
        yield "ends with a semicolon, which nbval and Jupyter read differently"
    if NBVAL_MARKS.search(cell.source + " ".join(cell.metadata.get("tags", []))):
        yield "asks nbval to look away"
    yield from _output_problems(cell)
    yield from _figure_problems(cell)


def _output_problems(cell: NotebookNode) -> Iterator[str]:
    errors = [o for o in cell.outputs if o.output_type == "error"]
    meant = "raises-exception" in cell.metadata.get("tags", [])
    if errors and not meant:
        yield f"a stored error: {errors[0].ename}"
    if meant and not errors:
        yield "is tagged raises-exception, and raises none"
    for output in cell.outputs:
        if output.get("name") == "stderr":
            yield f"printed on stderr: {output.text[:80]!r}"
        data = output.get("data", {})
        if not set(data) <= MIME_TYPES:
            yield f"output of type {sorted(set(data) - MIME_TYPES)}, expected only {sorted(MIME_TYPES)}"
        if MIME in data:
            yield from record_problems(data[MIME], data.get("text/plain", ""))


def _figure_problems(cell: NotebookNode) -> Iterator[str]:
    data = [o.get("data", {}) for o in cell.outputs]
    pngs = [d["image/png"] for d in data if "image/png" in d]
    if any(d.get("text/plain", "").startswith("<Figure") and "image/png" not in d for d in data):
        yield "a figure without its image"
    if not pngs:
        return
    if len(pngs) > 1:
        yield f"{len(pngs)} figures in one cell: they would share alt text and caption"
    for png in pngs:
        if (size := len(base64.b64decode(png))) > MAX_PNG:
            yield f"a figure of {size:,} bytes, at most {MAX_PNG:,} are allowed"
    settings = cell.metadata.get("mystnb", {})
    alt = settings.get("image", {}).get("alt", "").strip()
    if not alt:
        yield "a figure without alt text (metadata mystnb: image: alt)"
    elif re.search(r"\.(png|svg|jpe?g)\b|^\S*/\S*$", alt):
        yield f"a file's path for alt text: {alt!r}"
    for field in ("caption", "name"):
        if not settings.get("figure", {}).get(field, "").strip():
            yield f"a figure without {field} (metadata mystnb: figure: {field})"


def execute(path: Path, **environment: str) -> tuple[NotebookNode, float]:
    """Run a notebook in its own folder with a fresh kernel; return it and the seconds it took.

    The kernel gets what this process has, the variables of canonical arithmetic where the machine can compute
    in it (or of the one that ``DLCORE_ARITHMETIC`` names), and ``environment``.
    """
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    start = time.perf_counter()
    _, variables = arithmetic.chosen()
    client.execute(env=os.environ | variables | environment)
    return nb, time.perf_counter() - start


def _each(command: str, path: Path) -> list[str]:
    """Do one command with one notebook; return what is wrong."""
    seconds = None
    if command in ("run", "try"):
        try:
            nb, seconds = execute(path)
        except CellExecutionError as error:
            return [f"{path.name}: {error}"]
        print(f"{path.name}: {seconds:.1f} s", flush=True)
    if command == "try":
        printed = [o for c in nb.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
        return [f"{path.name}: printed on stderr: {o.text[:200]}" for o in printed]
    if command == "tidy":
        nb = nbformat.read(path, as_version=4)
    if command in ("run", "tidy"):
        nbformat.write(normalise(nb), path)
    return problems(path)


def main(arguments: list[str] | None = None) -> int:
    """Command line; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m book.notebooks", description=__doc__)
    parser.add_argument("command", choices=["run", "try", "tidy", "check"])
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    found = [text for path in options.files for text in _each(options.command, path)]
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
