"""Print the whole book: one long page of HTML, and Chromium as the printer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "training-deep-neural-nets.pdf"
PDF = ROOT / "_build/pdf" / NAME
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def only_links_that_last(text: str) -> str:
    """Unlink what leads to files of the site, which paper does not have; links inside and to the web stay.

    >>> only_links_that_last('<a href="intro.html#a">a</a> <a class="x" href="_modules/b.html">b</a>')
    '<a href="#a">a</a> <a class="x">b</a>'
    """
    text = text.replace('href="intro.html#', 'href="#')
    return re.sub(r'(<a\b[^>]*?)\s*href="(?!#|https://)[^"]*"', r"\1", text)


def for_paper(text: str) -> str:
    """Leave out the index, which Sphinx leaves empty here, and name what is unfolded anyway.

    >>> for_paper('<p class="collapsed admonition-title">Show the solution</p>')
    '<p class="collapsed admonition-title">Solution</p>'
    >>> for_paper('a<li class="toctree-l1"><a href="#document-genindex">Index</a></li>b')
    'ab'
    """
    text = re.sub(
        r'<span id="document-genindex"></span><section\b.*?</section>', "", text, flags=re.S
    )
    text = re.sub(r'<li\b[^>]*><a\b[^>]*href="#document-genindex">[^<]*</a></li>', "", text)
    shown = r'(<p class="collapsed admonition-title">)Show the (\w+)'
    return re.sub(shown, lambda m: m[1] + m[2].capitalize(), text)


def main() -> int:
    """Build and print; return 0 only if there was no warning."""
    browser = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        print(
            "Chromium was not found: install your system's package, or set CHROMIUM.",
            file=sys.stderr,
        )
        return 1
    shutil.rmtree(ROOT / "_build/singlehtml", ignore_errors=True)
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        "--builder",
        "singlehtml",
    ]
    done = subprocess.run(
        [*command, "-W", "--keep-going", "-q", str(ROOT)], capture_output=True, text=True
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
        return 1
    PDF.parent.mkdir(parents=True, exist_ok=True)
    page = ROOT / "_build/singlehtml/intro.html"
    page.write_text(for_paper(only_links_that_last(page.read_text("utf-8"))), "utf-8")
    printed = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-pdf-header-footer",
            "--generate-pdf-document-outline",
            "--virtual-time-budget=60000",
            f"--print-to-pdf={PDF}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if printed.returncode or not PDF.exists():
        print(printed.stdout, printed.stderr, sep="\n")
        return 1
    print(f"The book is printed: {PDF} ({PDF.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
