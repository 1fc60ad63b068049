"""Tests of the built site in a real browser: a plain file server under a path prefix, and Chromium."""

import contextlib
import functools
import gzip
import http.server
import mimetypes
import os
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build/html"
PREFIX = "/some/where/"  # the site must work under any path
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGES = sorted(
    p.relative_to(SITE).as_posix()
    for p in SITE.rglob("*.html")
    if p.relative_to(SITE).parts[0] not in ("_static", "lite")
)
CHAPTERS = [p for p in PAGES if p.startswith("chapters/0")]
# Listings of dlcore's code and the indices are made by Sphinx alone; the others are the book.
BOOK = [
    p
    for p in PAGES
    if p.startswith("chapters/") or p in ("intro.html", "search.html", "genindex.html")
]


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static file server that compresses, as GitHub Pages does, and knows nothing outside of the prefix."""

    protocol_version = "HTTP/1.1"
    packed = functools.lru_cache(maxsize=None)(
        lambda path: gzip.compress(Path(path).read_bytes(), 6)
    )

    def do_GET(self):
        path = self.path.partition("?")[0]
        file = SITE / path.removeprefix(PREFIX)
        if file.is_dir():
            file = file / "index.html"
        if not path.startswith(PREFIX) or not file.is_file():
            self.send_error(404)
            return
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind in (
            "application/json",
            "image/svg+xml",
            "application/javascript",
        )
        body = Handler.packed(str(file)) if text else file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Content-Length", str(len(body)))
        if text:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(handler):
    """Where a handler's files are served, while the block lasts."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def address():
    """Where the site is served."""
    with served(Handler) as host:
        yield f"{host}{PREFIX}"


@pytest.fixture(scope="session")
def browser():
    """Chromium from the system's packages, or the one that the variable CHROMIUM names."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(
            "Chromium was not found: install your system's package, or set CHROMIUM to its path"
        )
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Log:
    """What went wrong while a page was open, and what it fetched."""

    errors: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


@contextlib.contextmanager
def opened(browser, script=None, **options):
    """A page of its own; its troubles and what it fetches are in ``page.log``."""
    options.setdefault("viewport", {"width": 1280, "height": 900})
    context = browser.new_context(**options)
    page = context.new_page()
    page.log = log = Log()
    if script:
        page.add_init_script(script)
    page.on("console", lambda m: log.errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: log.errors.append(str(e)))
    page.on("requestfailed", lambda r: log.errors.append(f"failed: {r.url} {r.failure}"))
    page.on("request", lambda r: log.fetched.append(r.url))
    page.on(
        "response", lambda r: log.errors.append(f"{r.status}: {r.url}") if r.status >= 400 else None
    )
    yield page
    context.close()


@pytest.fixture
def visit(browser, address):
    """Open a page: ``visit(name, width=…, theme=…)``."""
    with contextlib.ExitStack() as stack:

        def go(name, width=1280, theme="light", motion="no-preference", base=address, **options):
            size = {"width": width, "height": 900}
            manager = opened(
                browser, viewport=size, color_scheme=theme, reduced_motion=motion, **options
            )
            page = stack.enter_context(manager)
            page.goto(base + name, wait_until="load")
            settle(page)
            return page

        yield go


def settle(page):
    """Wait until nothing is fetched any more and MathJax, where the page has it, is done."""
    page.wait_for_load_state("networkidle")
    page.evaluate("() => window.MathJax?.startup?.promise")


def problems(log, base):
    """Say what a page did that it must not do."""
    foreign = [u for u in log.fetched if not u.startswith((base, "data:", "blob:"))]
    return log.errors + [f"asks another host: {u}" for u in foreign]


def pytest_configure(config):
    if not PAGES:
        raise pytest.UsageError("There is no built site: run `make book` first.")
