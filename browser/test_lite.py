"""Chapters that run in the browser: JupyterLite and Pyodide, in Chromium.

With a copy of Pyodide (``make test-lite PYODIDE=FOLDER``) every chapter is run from first to last cell and
compared with a run on this machine (``_build/lite/native``). Without one only the buttons are looked at.
"""

import functools
import gzip
import http.server
import json
import math
import os
import re
import time
from pathlib import Path

import pytest
from conftest import CHAPTERS, ROOT, SITE, served

PYODIDE = os.environ.get("PYODIDE")
BUILT = (SITE / "lite").is_dir()
NOTEBOOKS = sorted(p.stem for p in (ROOT / "chapters").glob("*.ipynb"))
VERDICT = "application/vnd.dlcore.verdict+json"
CDN = json.loads((ROOT / "lite/pyodide.json").read_text("utf-8"))["address"]
FIRST_RESULT = 120  # seconds from the click to the first output of a chapter's own cells
WHOLE = 180  # seconds from first to last cell, as the site promises
# Few steps leave rounding little time to grow: effects agree to the larger of these parts, of the interval's
# half-width and of themselves. Where another processor's rounding changes what comes out on this machine,
# they agree to so many times its root mean square over the chapter's effects of one unit.
OF_INTERVAL, OF_EFFECT, OF_ROUNDING = 0.05, 0.001, 3
LOG10 = 0.1  # how large a rounding error is: another machine rounds otherwise
NATIVE = ROOT / "_build/lite/native"

needs_site = pytest.mark.skipif(not BUILT, reason="the site has no JupyterLite: make lite")
needs_copy = pytest.mark.skipif(
    not (BUILT and PYODIDE), reason="needs a copy of Pyodide: make test-lite PYODIDE=FOLDER"
)

READY = """() => {
    const shown = window.jupyterapp?.shell.currentWidget;
    return shown?.context?.isReady && shown.context.sessionContext?.session?.kernel != null;
}"""
# Runs the cells from one place to another, until one fails or hangs, and takes down when each was done.
RUN = """async ([first, last]) => {
    const {content, context} = jupyterapp.shell.currentWidget;
    const cells = content.widgets.filter(c => c.model.type === "code");
    await context.sessionContext.ready;
    const log = [];
    const late = new Promise(resolve => setTimeout(resolve, 200000, "late"));
    for (const cell of cells.slice(first, last)) {
        content.activeCellIndex = content.widgets.indexOf(cell);
        const begin = performance.now();
        const done = jupyterapp.commands.execute("notebook:run-cell");
        if (await Promise.race([done, late]) === "late") break;
        log.push([(performance.now() - begin) / 1000, performance.timeOrigin + performance.now()]);
        const outputs = cell.model.sharedModel.outputs;
        if (outputs.some(o => o.output_type === "error")) break;
    }
    return log;
}"""
SHOW = """at => {
    const {content} = jupyterapp.shell.currentWidget;
    const cells = content.widgets.filter(c => c.model.type === "code");
    const index = content.widgets.indexOf(cells[at]);
    content.activeCellIndex = index;
    return content.scrollToItem(index, "start");
}"""
READ = """() => jupyterapp.shell.currentWidget.context.model.toJSON()"""


def expose(route, change=lambda settings: None):
    """Let the test reach the application, as its settings allow."""
    response = route.fetch()
    settings = response.json()
    settings["jupyter-config-data"]["exposeAppInBrowser"] = True
    change(settings["jupyter-config-data"])
    route.fulfill(response=response, body=json.dumps(settings))


class Reader:
    """Someone who opens a chapter, presses the button, and runs the cells in the tab that opens."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.fetched, self.failed = [], []
        self.context.on("request", lambda r: self.fetched.append(r.url))
        self.context.on("requestfailed", lambda r: self.failed.append(f"{r.url} {r.failure}"))
        self.address = address

    def press(self, name, change=lambda settings: None):
        self.context.route("**/lite/jupyter-lite.json", lambda route: expose(route, change))
        page = self.context.new_page()
        page.goto(f"{self.address}chapters/{name}.html", wait_until="load")
        page.wait_for_load_state("networkidle")
        self.before = list(self.fetched)
        self.start = time.time()
        with self.context.expect_page() as opening:
            page.locator("a.btn-launch-lite").click()
        self.page = opening.value
        self.page.wait_for_function(READY, timeout=120_000)

    def run(self, first=0, last=10_000):
        self.page.set_default_timeout(0)
        log = self.page.evaluate(RUN, [first, last])
        notebook = json.loads(json.dumps(self.page.evaluate(READ)))
        code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
        return log, code[first : first + len(log)], len(code)

    def foreign(self, *allowed):
        host = self.address.split("/some/")[0] + "/"
        return [u for u in self.fetched if not u.startswith((host, "data:", "blob:", *allowed))]


def loaded(reader):
    """What was fetched of the JupyterLite, in bytes by file: packed, where servers pack."""
    sizes = {}
    for url in reader.fetched:
        path = url.removeprefix(reader.address).partition("?")[0]
        file = SITE / path
        if path.startswith("lite/") and file.is_file():
            content = file.read_bytes()
            packed = file.suffix in (".js", ".json", ".css", ".html", ".ipynb", ".wasm", ".svg")
            sizes[path] = len(gzip.compress(content, 6)) if packed else len(content)
    return sizes


def errors(cells):
    return [
        re.sub(r"\x1b\[[\d;]*m", "", "\n".join(o["traceback"]))[-1500:]
        for c in cells
        for o in c["outputs"]
        if o["output_type"] == "error"
    ]


def verdict_cell(cells):
    return next((i for i, cell in enumerate(cells) if records([cell])), 0)


def records(cells):
    return [o["data"][VERDICT] for c in cells for o in c["outputs"] if VERDICT in o.get("data", {})]


@pytest.fixture(scope="session")
def ran(browser, address):
    """Run a chapter once."""

    @functools.cache
    def run(name):
        reader = Reader(browser, address)
        reader.press(name)
        log, cells, count = reader.run()
        own = [ended for (_, ended), cell in zip(log, cells, strict=True) if cell["outputs"]][1:]
        seen = {
            "before": reader.before,
            "foreign": reader.foreign(),
            "loaded": loaded(reader),
            "failed": reader.failed,
            "errors": errors(cells),
            "done": (len(log), count),
            "start": log[0][0],
            "first": own[0] / 1000 - reader.start if own else math.inf,
            "seconds": sum(took for took, _ in log[1:]),
            "slowest": sorted((took for took, _ in log[1:]), reverse=True)[:3],
            "cells": cells,
        }
        folder = ROOT / "_build/lite/browser"
        folder.mkdir(parents=True, exist_ok=True)
        for place, at in (("start", 0), ("verdict", verdict_cell(cells)), ("end", len(cells) - 1)):
            reader.page.evaluate(SHOW, at)
            reader.page.wait_for_timeout(500)
            reader.page.screenshot(path=folder / f"{name}-{place}.png")
        (folder / f"{name}.json").write_text(json.dumps(seen), "utf-8")
        reader.context.close()
        print(
            f"\n{name}: first result {seen['first']:.0f} s after the click, of which installing"
            f" {seen['start']:.0f} s; the chapter's cells {seen['seconds']:.0f} s, the slowest"
            f" {seen['slowest'][0]:.0f} s"
        )
        return seen

    return run


# --------------------------------------------------------------------------------------------------
# Buttons


@needs_site
@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_a_button_that_says_what_it_loads(visit, name):
    page = visit(name)
    button = page.locator("a.btn-launch-lite")
    assert button.is_visible()
    # Bootstrap takes the title away and keeps it for its own bubble.
    told = button.get_attribute("title") or button.get_attribute("data-bs-original-title")
    size = json.loads((ROOT / "_build/lite/made.json").read_text("utf-8"))["megabytes"]
    assert f"downloads about {size} MB" in told
    path = button.get_attribute("href").partition("?path=")[2]
    assert (SITE / "lite/files" / path).is_file()
    assert not [u for u in page.log.fetched if "/lite/" in u]


@needs_site
def test_a_site_that_was_opened_from_a_folder_has_no_button(visit):
    page = visit(CHAPTERS[0], base=f"{SITE.as_uri()}/")
    assert page.locator("h1:visible").count() == 1
    assert page.locator("a.btn-launch-lite").count() == 0


@needs_site
def test_the_site_holds_no_other_python_than_it_says():
    settings = json.loads((SITE / "lite/jupyter-lite.json").read_text("utf-8"))
    kernel = settings["jupyter-config-data"]["litePluginSettings"]
    (url,) = [entry["pyodideUrl"] for entry in kernel.values()]
    held = (SITE / "lite/static/pyodide/pyodide.asm.wasm").exists()
    assert url == ("./static/pyodide/pyodide.js" if held else f"{CDN}pyodide.js")


# --------------------------------------------------------------------------------------------------
# A new edition of the book, and a reader who has changed an old one. None of this needs Python.

SHOWN = """() => window.jupyterapp?.shell.currentWidget?.context?.isReady
    && jupyterapp.shell.currentWidget.context.path"""
# Saves a copy of the notebook that is shown under a path, with a sentence of the reader's in its first cell.
SAVE = """async ([path, sentence]) => {
    const content = jupyterapp.shell.currentWidget.context.model.toJSON();
    content.cells[0].source = sentence;
    await jupyterapp.serviceManager.contents.save(path, {type: "notebook", format: "json", content});
}"""
FIRST = """() => jupyterapp.shell.currentWidget.context.model.toJSON().cells[0].source"""
EDITIONS = json.loads((SITE / "lite/editions.json").read_text("utf-8")) if BUILT else {}
CURRENT = EDITIONS.get(f"chapters/{NOTEBOOKS[0]}", "")
EARLIER = f"chapters/{NOTEBOOKS[0]}-00000000.ipynb"


@pytest.fixture
def show(browser, address):
    """Open a notebook of the JupyterLite by its path, in one browser that keeps what is saved."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.route("**/lite/jupyter-lite.json", lambda route: expose(route))
    context.route("https://**", lambda route: route.abort())

    def go(path, app="notebooks"):
        page = context.new_page()
        page.goto(f"{address}lite/{app}/index.html?path={path}")
        page.wait_for_function(SHOWN, timeout=60_000)
        return page

    yield go
    context.close()


@needs_site
def test_a_readers_changes_of_this_edition_stay(show):
    page = show(CURRENT)
    assert page.evaluate(FIRST).startswith("# Gradients")
    page.evaluate(SAVE, [CURRENT, "mine"])
    again = show(CURRENT)
    assert again.evaluate(FIRST) == "mine"
    assert again.locator(".edition").count() == 0


@needs_site
@pytest.mark.parametrize("earlier", [EARLIER, f"chapters/{NOTEBOOKS[0]}.ipynb"])
def test_after_an_update_the_new_edition_is_shown_and_the_readers_copy_is_kept(show, earlier):
    show(CURRENT).evaluate(SAVE, [earlier, "mine"])
    page = show(CURRENT)
    assert page.evaluate(FIRST).startswith("# Gradients")
    bar = page.locator(".edition")
    bar.wait_for(state="visible")
    assert "earlier edition" in bar.inner_text()
    bar.get_by_role("link").click()
    page.wait_for_function(f"() => ({SHOWN})() === {json.dumps(earlier)}")
    assert page.evaluate(FIRST) == "mine"
    bar = page.locator(".edition")
    bar.wait_for(state="visible")
    assert bar.get_by_role("link").get_attribute("href").endswith(CURRENT.replace("/", "%2F"))
    bar.get_by_role("button").click()
    assert page.locator(".edition").count() == 0


@needs_site
def test_the_address_of_an_edition_that_is_gone_leads_to_the_new_one(browser, address):
    context = browser.new_context()
    context.route("**/lite/jupyter-lite.json", lambda route: expose(route))
    context.route("https://**", lambda route: route.abort())
    page = context.new_page()
    page.goto(f"{address}lite/notebooks/index.html?path={EARLIER}")
    page.wait_for_url(f"**path={CURRENT.replace('/', '%2F')}")
    page.wait_for_function(SHOWN, timeout=60_000)
    assert page.evaluate(FIRST).startswith("# Gradients")
    context.close()


@needs_site
def test_links_of_a_copy_lead_to_the_site_it_belongs_to(show, address):
    page = show(CURRENT)
    link = page.locator(".jp-RenderedMarkdown a", has_text="verdict").first
    link.scroll_into_view_if_needed()
    link.hover()
    assert link.get_attribute("href").startswith(f"{address}chapters/")


# --------------------------------------------------------------------------------------------------
# Chapters


@needs_copy
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_from_first_to_last_cell_and_asks_no_other_host(ran, name):
    seen = ran(name)
    assert seen["errors"] == []
    assert seen["done"][0] == seen["done"][1] > 20
    assert seen["foreign"] == []
    assert seen["failed"] == []
    assert any("/numpy-" in path for path in seen["loaded"])  # so workers' requests are seen too
    assert not [u for u in seen["before"] if "pyodide" in u]


@needs_copy
def test_it_loads_about_what_the_button_says(ran):
    sizes = ran(NOTEBOOKS[0])["loaded"]
    said = json.loads((ROOT / "_build/lite/made.json").read_text("utf-8"))["megabytes"]
    print(f"loaded {sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files, said {said} MB")
    assert sum(sizes.values()) / 1e6 == pytest.approx(said, rel=0.05)


@needs_copy
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_takes_as_long_as_the_site_says(ran, name):
    assert ran(name)["first"] <= FIRST_RESULT
    assert ran(name)["seconds"] <= WHOLE


@needs_copy
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_comes_to_what_this_machine_comes_to(ran, name):
    cells, native = ran(name)["cells"][1:], run_here(name)  # without the one that installs
    assert [kinds(c) for c in cells] == [kinds(c) for c in native]
    here, there = records(native), records(cells)
    assert len(here) == len(there) > 2
    assert {record["size"] for record in there} == {"quick"}
    others = [records(run_here(name, place.name)) for place in NATIVE.iterdir() if place.is_dir()]
    noise = rounding(here, others)
    print(f"{name}: another processor's rounding changes effects by {noise}")
    pairs = zip(here, there, strict=True)
    assert [text for old, new in pairs for text in differences(old, new, noise)] == []


def run_here(name, processor=""):
    """Code cells of a chapter that was run on this machine, perhaps with another one's rounding."""
    notebook = json.loads((NATIVE / processor / f"{name}.ipynb").read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def rounding(here, others):
    """Root mean square, by unit, of the differences between effects on this machine and as on others."""
    squares = {record["unit"]: [] for record in here}
    assert len(others) > 1
    for old, new in [pair for other in others for pair in zip(here, other, strict=True)]:
        for (a, _), b in zip(effects(old), effects(new), strict=True):
            if None not in (a, b[0]):
                squares[old["unit"]].append((a - b[0]) ** 2)
    return {unit: float(f"{math.sqrt(sum(s) / len(s)):.2g}") for unit, s in squares.items() if s}


def effects(record):
    """A verdict's effect and half-width, and those of its parts, by name."""
    for one in (record, *(record["parts"][name] for name in sorted(record["parts"]))):
        low, high = one.get("low"), one.get("high")
        # JupyterLite's kernel leaves out what is None.
        yield one.get("effect"), 0 if None in (low, high) else (high - low) / 2


def kinds(cell):
    """What a cell gives: streams and types of data; Chromium's notebook joins streams in its own way."""
    given = set()
    for output in cell["outputs"]:
        given |= {output.get("name", "")} | set(output.get("data", {}))
    return given - {"", "text/html"}


def differences(old, new, noise):
    """What differs more than rounding may make it: words and seeds, and effects beyond the tolerance."""
    for key in ("id", "claim", "unit", "seeds", "size", "threshold"):
        if old[key] != new[key]:
            yield f"{old['id']}: {key} is {old[key]!r} natively and {new[key]!r} in the browser"
    if "time" in old["unit"].split():
        return
    # With two seeds an interval's end may lie at its threshold: then one of the words is undecided.
    if old["verdict"] != new["verdict"] and "undecided" not in (old["verdict"], new["verdict"]):
        yield f"{old['id']}: {old['verdict']} natively, {new['verdict']} in the browser"
    if old["parts"].keys() != new["parts"].keys():
        yield f"{old['id']}: {set(old['parts'])} natively, {set(new['parts'])} in the browser"
        return
    for (here, half), (there, _) in zip(effects(old), effects(new), strict=True):
        if here is None or there is None:
            if here is not there:
                yield f"{old['id']}: effect {here} natively, {there} in the browser"
            continue
        slack = max(OF_INTERVAL * half, OF_EFFECT * abs(here), OF_ROUNDING * noise[old["unit"]])
        if abs(here - there) > max(slack, LOG10 * (old["unit"] == "log10")):
            yield f"{old['id']}: {here} natively, {there} in the browser, slack {slack}"


@needs_copy
def test_each_verdict_leads_to_the_ledger(ran):
    for name in NOTEBOOKS[:1]:
        cells = ran(name)["cells"]
        texts = [
            "".join(o["data"].get("text/html", ""))
            for c in cells
            for o in c["outputs"]
            if VERDICT in o.get("data", {})
        ]
        assert texts
        for record, text in zip(records(cells), texts, strict=True):
            assert "quick look" in text
            assert f"chapters/appendix/ledger.html#ledger-{record['id'].lower()}" in text


# --------------------------------------------------------------------------------------------------
# From another address than the site's, as Pyodide's public one is


class Public(http.server.SimpleHTTPRequestHandler):
    """The copy's files, to be read from other origins; one of them may be damaged."""

    damaged = "nothing"

    def do_GET(self):
        file = SITE / "lite/static/pyodide" / Path(self.path).name
        body = file.read_bytes() + (b"x" if self.damaged in file.name else b"")
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(file))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def public():
    """Where these files are; another port is another origin."""
    with served(Public) as host:
        yield f"{host}/full/"


def press(browser, address, public):
    """Press the button of a site that bundles no Python, as it is built without PYODIDE."""

    def elsewhere(settings):
        for kernel in settings["litePluginSettings"].values():
            kernel["pyodideUrl"] = f"{public}pyodide.js"

    reader = Reader(browser, address, color_scheme="dark")
    reader.press(NOTEBOOKS[0], elsewhere)
    return reader


@needs_copy
def test_from_the_public_address_it_asks_there_and_only_after_the_click(browser, address, public):
    reader = press(browser, address, public)
    log, cells, _ = reader.run(0, 2)
    reader.page.screenshot(path=ROOT / "_build/lite/browser/dark.png")
    asked = [u for u in reader.fetched if u.startswith(public)]
    assert errors(cells) == []
    assert len(log) == 2
    assert any(u.endswith("pyodide.asm.wasm") for u in asked)
    assert any("/numpy-" in u for u in asked)
    assert not [u for u in reader.before if u.startswith(public)]
    assert reader.foreign(public) == []
    reader.context.close()


@needs_copy
def test_a_package_that_is_not_the_published_one_is_refused(browser, address, public, monkeypatch):
    monkeypatch.setattr(Public, "damaged", "threadpoolctl")
    reader = press(browser, address, public)
    log, cells, _ = reader.run(0, 2)
    assert len(log) <= 2
    assert any("threadpoolctl" in text for text in errors(cells))
    reader.context.close()
