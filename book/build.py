"""Build the site, strictly: every warning is an error, in a second run too."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from book import lite, pdf

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
STAMP = BUILD / "inputs.sha256"

# Jupyter Book's own has no title, no language and no icon; browsers then ask the root of the server for one.
INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Training Deep Neural Nets</title>
    <link rel="icon" href="data:,">
    <meta http-equiv="refresh" content="0; url=intro.html">
  </head>
  <body><main><h1><a href="intro.html">Training Deep Neural Nets</a></h1></main></body>
</html>
"""


def fingerprint() -> str:
    """Digest of what Sphinx does not watch: settings, table of contents, extension, list of modules."""
    digest = hashlib.sha256(os.environ.get("BOOK_REPOSITORY_URL", "-").encode())
    digest.update(str(pdf.PDF.exists()).encode())
    digest.update(json.dumps(lite.made()).encode())
    digest.update(" ".join(sorted(p.name for p in (ROOT / "dlcore").glob("*.py"))).encode())
    watched = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "requirements-book.txt"]
    watched += sorted(
        p
        for p in (ROOT / "book").rglob("*")
        if p.suffix in (".py", ".css", ".js", ".json", ".svg", ".toml")
    )
    for path in watched:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def forget() -> None:
    """Remove what an earlier build left, so that the next one reads every page anew."""
    for name in ("html", ".doctrees"):
        shutil.rmtree(BUILD / name, ignore_errors=True)
    STAMP.unlink(missing_ok=True)


def main() -> int:
    """Build; return 0 only if there was no warning."""
    now = fingerprint()
    if not STAMP.exists() or STAMP.read_text() != now:
        forget()
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        "-W",
        "-n",
        "--keep-going",
        "-q",
    ]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    if done.returncode:
        # Sphinx warns about a page only when it reads it: an incremental build would pass now.
        forget()
        print(done.stdout, done.stderr, sep="\n")
        print("The book was not built: every warning above counts as an error.", file=sys.stderr)
        return 1
    (BUILD / "html/index.html").write_text(INDEX, "utf-8")
    STAMP.write_text(now)
    print(f"The book is built. Open {(BUILD / 'html' / 'index.html').as_uri()}")
    print("or run `make serve`.")
    if lite.made():
        print("Chapters run in the browser there, once it is served.")
    elif lite.MADE.exists():
        print("Something has changed since `make lite`: the button that runs chapters is left out.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
