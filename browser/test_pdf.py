"""The printed book: outline, links, figures, and no line of code that runs out of its page."""

import base64
import io
import json
import re
import unicodedata

import pypdf
import pytest
from conftest import CHAPTERS, ROOT

PDF = ROOT / "_build/pdf/training-deep-neural-nets.pdf"
NOTEBOOKS = [
    json.loads((ROOT / name.replace(".html", ".ipynb")).read_text("utf-8")) for name in CHAPTERS
]


@pytest.fixture(scope="module")
def book():
    return pypdf.PdfReader(io.BytesIO(PDF.read_bytes()))


@pytest.fixture(scope="module")
def text(book):
    # NFKC: fonts have one sign for fi and ff.
    return [unicodedata.normalize("NFKC", page.extract_text()) for page in book.pages]


def outlined(entries):
    for entry in entries:
        if isinstance(entry, list):
            yield from outlined(entry)
        else:
            yield entry.title


def test_the_outline_names_every_chapter_and_section(book):
    titles = " | ".join(outlined(book.outline))
    for nb in NOTEBOOKS:
        for cell in nb["cells"]:
            if cell["cell_type"] == "markdown":
                for heading in re.findall(r"(?m)^##? ([\w ,]+)$", "".join(cell["source"])):
                    assert heading.strip() in titles


def test_links_stay_in_the_book_or_lead_to_the_web(book):
    inside, outside = 0, []
    for page in book.pages:
        for annotation in page.get("/Annots") or ():
            action = annotation.get_object().get("/A")
            if action and "/URI" in action:
                outside.append(str(action["/URI"]))
            else:
                inside += 1
    assert inside > 300
    assert outside
    assert [u for u in outside if not u.startswith("https://")] == []


def test_every_line_of_code_is_there(text):
    printed = re.sub(r"\s+", "", "".join(text))
    missing = [
        line
        for nb in NOTEBOOKS
        for cell in nb["cells"]
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
        if re.sub(r"\s+", "", unicodedata.normalize("NFKC", line)) not in printed
    ]
    # A line that a page's end divides has the page's number within.
    assert len(missing) <= 10, missing[:5]


def test_nothing_runs_out_of_its_page(book):
    for number, page in enumerate(book.pages, 1):
        beyond = []

        def visit(piece, matrix, place, font, size, beyond=beyond, page=page):
            x = place[4] * matrix[0] + matrix[4]
            # Single signs may be stretched parts of formulas, with scales of their own.
            if len(piece.strip()) > 2 and not 0 <= x <= float(page.mediabox.width):
                beyond.append(piece)

        page.extract_text(visitor_text=visit)
        assert beyond == [], number


def test_every_figure_is_printed_with_its_caption(book, text):
    printed = re.sub(r"\s+", "", "".join(text))
    captions = [
        cell["metadata"]["mystnb"]["figure"]["caption"]
        for nb in NOTEBOOKS
        for cell in nb["cells"]
        if "figure" in cell["metadata"].get("mystnb", {})
    ]
    first = [re.match(r"\*\*(.+?)\*\*", c)[1] for c in captions]
    assert len(first) > 20
    assert [c for c in first if re.sub(r"[\s’']+", "", c) not in re.sub("[’']", "", printed)] == []
    stored = sum(
        len(base64.b64decode(o["data"]["image/png"])) > 0
        for nb in NOTEBOOKS
        for cell in nb["cells"]
        for o in cell.get("outputs", ())
        if "image/png" in o.get("data", {})
    )
    drawn = sum(
        x.get_object().get("/Subtype") == "/Image"
        for page in book.pages
        for x in (page["/Resources"].get("/XObject") or {}).values()
    )
    assert drawn >= stored
