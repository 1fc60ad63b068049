"""Repairs of built pages, previews, and what the extension reads in the text."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("jupyter_book")
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes

from book import finish, ledger, reading
from book.play import PICTURES, picture

ROOT = Path(__file__).resolve().parent.parent


PARAMETERS = ['<em class="sig-param">a</em>,', '<em class="sig-param">b</em>']
EMPTY, FULL = '<th class="head"><p></p></th>', '<th class="head"><p>x</p></th>'
DEFINITIONS = "<dl>\n<dt>term</dt><dd>text</dd>\n</dl>"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '<table style="width: 100%" class="indextable x">',
            '<table role="presentation" class="indextable x">',
        ),
        (
            "<dl>\n" + "".join(f"<dd>{p}</dd>\n" for p in PARAMETERS) + "</dl>",
            '<span class="sig-lines">'
            + "".join(f'<span class="sig-line">{p}</span>\n' for p in PARAMETERS)
            + "</span>",
        ),
        (EMPTY + FULL, "<td></td>" + FULL),
        ('<div class="citation" role="doc-biblioentry">', '<div class="citation">'),
        (DEFINITIONS, DEFINITIONS),
    ],
    ids=["index", "signature", "header", "citation", "definitions"],
)
def test_repairs(before, after):
    for wrong, right in finish.REPAIRS:
        before = wrong.sub(right, before)
    assert before == after


def page(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<html><body><article>{text}</article></body></html>")
    return finish.Page(tmp_path, path)


def test_previews_show_what_links_lead_to(tmp_path):
    figure = (
        '<figure id="fig"><img alt="A." src="../_images/a.png"/><figcaption>C</figcaption></figure>'
    )
    there = page(tmp_path, "chapters/one.html", figure + '<div class="math" id="eq">\\(a\\)</div>')
    links = [
        "chapters/one.html#fig",
        "chapters/one.html#eq",
        "chapters/one.html#none",
        "gone.html#fig",
    ]
    here = page(
        tmp_path,
        "intro.html",
        "".join(f'<a class="reference internal" href="{u}">x</a>' for u in links),
    )
    pages = {p.name: p for p in (here, there)}
    found = BeautifulSoup(finish.previews(here, pages), "html.parser")
    assert [e["data-for"] for e in found.find_all(attrs={"data-for": True})] == links[:2]
    assert found.find("img")["src"] == "_images/a.png"
    assert not found.find_all(id=True)


def test_what_is_too_long_has_no_preview(tmp_path):
    text = "x" * (finish.LONGEST + 1)
    here = page(
        tmp_path,
        "a.html",
        f'<a class="reference internal" href="#b">b</a><div class="math" id="b">{text}</div>',
    )
    assert finish.previews(here, {"a.html": here}) == ""


def test_links_to_api_entries_that_are_missing_go(tmp_path):
    api = page(tmp_path, "api.html", '<dt id="dlcore.fit"></dt>')
    back = '<a class="viewcode-back" href="../api.html#{}">[docs]</a>'
    text = back.format("dlcore.fit") + back.format("dlcore.gone")
    assert finish.drop_dead_links(text, "_modules/x.html", {"api.html": api}) == back.format(
        "dlcore.fit"
    )


def test_the_glossarys_terms_are_read():
    text = (ROOT / "chapters/appendix/glossary.md").read_text("utf-8")
    found = reading.terms(text)
    assert {"batch", "fan-in", "fan-out", "lower layer", "saturated unit", "replica"} <= set(found)
    pattern = reading._term_pattern(tuple(found))
    assert [m[1] for m in pattern.finditer("Two saturated units, a batch, batch norm, batch-size")] == [
        "saturated unit", "batch",
    ]  # fmt: skip
    assert pattern.search("initialization")
    assert not pattern.search("a claim and its effect")


def test_every_explorable_has_a_static_picture(tmp_path):
    for name in PICTURES:
        path = tmp_path / f"{name}.png"
        picture(name).savefig(path, dpi=60)
        assert path.stat().st_size > 3000


def test_every_explorable_is_linked_from_figures_that_exist():
    found = reading.explorables_from((ROOT / "chapters/appendix/explorables.md").read_text("utf-8"))
    assert {name for names in found.values() for name in names} == set(PICTURES)
    text = "".join(p.read_text("utf-8") for p in (ROOT / "chapters").glob("*.ipynb"))
    assert all(f'"name": "{figure}"' in text for figure in found)


def test_a_preview_of_a_call_has_no_types():
    noise = "_Buffer | _SupportsArray[dtype[Any]]"
    text = (
        f'<dl><dt class="sig" id="a.f"><span class="sig-prename">a.</span><span class="sig-name">f</span>'
        f'<span class="sig-paren">(</span><em class="sig-param"><span class="n">x</span>: {noise}</em>'
        f'<em class="sig-param"><span class="o">**</span><span class="n">rest</span></em>'
        f" → {noise}<a>[source]</a></dt><dd><p>Do it.</p></dd></dl>"
    )
    shown = finish.excerpt(BeautifulSoup(text, "html.parser").find(id="a.f"))
    assert shown == "<p><code>a.f(x, **rest)</code></p><p>Do it.</p>"


@pytest.mark.parametrize(
    ("said", "target", "led"),
    [
        ("verdict", "dlcore.statistics.verdict", "term-verdict"),
        ("verdicts", "dlcore.statistics.verdict", "term-verdict"),
        ("one-cycle", "dlcore.schedules.one_cycle", "dlcore.schedules.one_cycle"),
        ("verdict", "https://example.org", "https://example.org"),
        ("train", "dlcore.experiments.sweep", "dlcore.experiments.sweep"),
    ],
)
def test_a_word_of_the_glossary_leads_to_the_glossary(said, target, led):
    targets = reading.terms((ROOT / "chapters/appendix/glossary.md").read_text("utf-8"))
    link = addnodes.pending_xref("", nodes.strong("", said), reftarget=target)
    code = addnodes.pending_xref("", nodes.literal("", said), reftarget=target)
    page = nodes.paragraph("", "", link, code)
    reading._explain(page, reading._term_pattern(tuple(targets)), targets)
    assert link["reftarget"] == led
    assert code["reftarget"] == target


def test_texts_for_the_search_are_plain(tmp_path):
    inner = '<section id="s"><h1>T</h1><p>a &lt; b</p><script>x</script><!-- no --></section>'
    found = finish.excerpts({"a.html": page(tmp_path, "a.html", inner)})
    assert found == 'window.bookTexts = {"a.html": "<section id=\\"s\\">T a &lt; b</section>"};\n'


def test_every_chapter_opens_with_what_it_needs():
    for path in (ROOT / "chapters").glob("*.ipynb"):
        text = path.read_text("utf-8")
        for start in reading.OPENING:
            assert re.search(rf"- \*\*{start}\*\*", text), (path.name, start)


def test_a_page_that_does_not_show_a_verdict_is_refused():
    """An output that a page lost would leave its badge and its entry in the ledger without a target."""
    path = sorted((ROOT / "chapters").glob("0*.ipynb"))[0]
    first = ledger.verdicts(path)[0]["id"]
    docname = path.relative_to(ROOT).with_suffix("").as_posix()
    labels = SimpleNamespace(anonlabels={}, labels={})
    env = SimpleNamespace(docname=docname, found_docs=set(), get_domain=lambda name: labels)
    app = SimpleNamespace(env=env, srcdir=str(ROOT))
    with pytest.raises(ValueError, match=f"does not show verdict {first}$"):
        reading.mark_verdicts(app, nodes.document(None, None))
    shown = nodes.document(None, None)
    for record in ledger.verdicts(path):
        shown += nodes.literal_block("", f"{record['id']} {record['verdict']}: an effect")
    reading.mark_verdicts(app, shown)
    assert {ledger.anchor(r["id"]) for r in ledger.verdicts(path)} == labels.labels.keys()
