"""Copies of chapters outside of the site: captions, numbers and links in plain Markdown."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip("jupyter_book")
from book import copies, launch

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
SITE = "https://book.example/"
BARE = re.compile(r"\]\((?!https://)[^)]*\)")


def markdown(nb):
    return "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_caption_is_markdown_and_every_link_an_address(path):
    nb = nbformat.read(path, as_version=4)
    copy = launch.launched(nb, path.stem, "git+https://x", SITE)
    nbformat.validate(copy)
    text = markdown(copy)
    assert BARE.findall(text) == []
    captions = [
        c.metadata["mystnb"]["figure"]["caption"]
        for c in nb.cells
        if "figure" in c.metadata.get("mystnb", {})
    ]
    assert len(captions) >= 7
    for number, caption in enumerate(captions, 1):
        start = re.split(r"[\[$]", caption)[0].strip()
        assert f"*Fig. {copies.chapter(path.stem)}.{number}* {start}" in text
    assert not copies.EQUATION.search(text)
    code = [c for c in copy.cells if c.cell_type == "code"]
    assert [c.source for c in code[1:]] == [c.source for c in nb.cells if c.cell_type == "code"]
    assert [c.outputs for c in code[1:]] == [c.outputs for c in nb.cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_without_a_site_nothing_leads_nowhere(path):
    nb = nbformat.read(path, as_version=4)
    text = markdown(copies.readable(nb, path.stem))
    files = {p.name for p in CHAPTERS}
    assert {link[2:-1] for link in BARE.findall(text)} <= files
    words = re.sub(r"\W+", " ", re.sub(r"\]\([^)]*\)", "]", markdown(nb))).split()
    assert set(words) <= set(re.sub(r"\W+", " ", text).split()) | {
        m["label"].partition("-")[0] for m in copies.EQUATION.finditer(markdown(nb))
    } | {w for m in copies.EQUATION.finditer(markdown(nb)) for w in m["label"].split("-")}


@pytest.mark.parametrize(
    ("text", "linked", "plain"),
    [
        ("[G1a holds](#verdict-g1a)", "[G1a holds](S/chapters/appendix/ledger.html#ledger-g1a)",
         "G1a holds"),
        ("[**sweep**](#dlcore.experiments.sweep)",
         "[**sweep**](S/chapters/appendix/api.html#dlcore.experiments.sweep)", "**sweep**"),
        ("[`freeze`](#dlcore.network.Network.freeze)",
         "[`freeze`](S/chapters/appendix/api.html#dlcore.network.Network.freeze)", "`freeze`"),
        ("the [figure](#fig-a) and [above](#eq-b)",
         "the [figure (Fig. 2.1)](S/chapters/02-x.html#fig-a) and "
         "[above (2.1)](S/chapters/02-x.html#equation-eq-b)", "the figure (Fig. 2.1) and above (2.1)"),
        ("[next](03-y.ipynb)", "[next](S/chapters/03-y.html)", "[next](03-y.ipynb)"),
        ("[notation](appendix/notation.md)", "[notation](S/chapters/appendix/notation.html)",
         "notation"),
        ("[play](#play-dropout)", "[play](S/chapters/appendix/explorables.html#play-dropout)", "play"),
        ("[a paper](https://arxiv.org/abs/1)", "[a paper](https://arxiv.org/abs/1)",
         "[a paper](https://arxiv.org/abs/1)"),
        ("`[G1](#verdict-g1)` and ```\n[G1](#verdict-g1)\n```",
         "`[G1](#verdict-g1)` and ```\n[G1](#verdict-g1)\n```",
         "`[G1](#verdict-g1)` and ```\n[G1](#verdict-g1)\n```"),
    ],
)  # fmt: skip
def test_each_kind_of_link(text, linked, plain):
    numbers = {"fig-a": "Fig. 2.1", "eq-b": "2.1"}
    made = copies.link_text(text, "02-x", SITE, None, numbers)
    assert made == linked.replace("S/", SITE)
    assert copies.link_text(text, "02-x", "", None, numbers) == plain


def test_equations_carry_their_numbers():
    cells = [new_markdown_cell("$$ a = b $$ (eq-one)\n\nso [above](#eq-one)\n\n$$ c $$ (eq-two)")]
    text = markdown(copies.readable(new_notebook(cells=cells), "04-x"))
    assert text == "$$ a = b \\tag{4.1} $$\n\nso above (4.1)\n\n$$ c \\tag{4.2} $$"


def test_a_caption_stands_below_its_cell_and_the_notebook_stays_as_it_is():
    figure = {"figure": {"name": "fig-a", "caption": "**Up.** See [G1](#verdict-g1)."}}
    nb = new_notebook(cells=[new_code_cell("1", id="one", metadata={"mystnb": figure})])
    copy = copies.readable(nb, "01-x")
    assert [c.cell_type for c in copy.cells] == ["code", "markdown"]
    assert copy.cells[1].source == "*Fig. 1.1* **Up.** See G1."
    assert copy.cells[1].id == "one-caption"
    assert len(nb.cells) == 1


def test_links_between_chapters_follow_their_other_names():
    made = copies.link_text(
        "[c](03-y.ipynb) [v](#verdict-g1)", "02-x", SITE, {"03-y.ipynb": "03-z.ipynb"}
    )
    assert made == f"[c](03-z.ipynb) [v]({SITE}chapters/appendix/ledger.html#ledger-g1)"


def test_the_address_of_the_site(monkeypatch):
    monkeypatch.setenv("BOOK_SITE_URL", "https://a.example/nets")
    assert launch.site_address(ROOT) == "https://a.example/nets/"
    monkeypatch.setenv("BOOK_SITE_URL", "")
    assert launch.site_address(ROOT) == ""
    monkeypatch.delenv("BOOK_SITE_URL")
    monkeypatch.setenv("BOOK_REPOSITORY_URL", "git@github.com:someone/nets.git")
    assert launch.site_address(ROOT) == "https://someone.github.io/nets/"
    monkeypatch.setenv("BOOK_REPOSITORY_URL", "https://gitlab.com/someone/nets")
    assert launch.site_address(ROOT) == ""
