"""The book in the browser: a JupyterLite with all chapters and dlcore, under ``lite/`` of the site.

``make lite`` builds it in ``_build/lite``; the next ``make book`` takes it along, with a button on each
chapter, unless a chapter or dlcore has changed since. Python for browsers (Pyodide) is loaded when the
button has been pressed: from its public address, or from the site if ``PYODIDE`` named a copy.

``lite/pyodide.json`` says which release it is and holds the SHA-256 of its first files;
``lite/pyodide-lock.json`` is the part of the release's own lock that the chapters need, and what Pyodide
compares its packages with.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Container
from pathlib import Path
from typing import Any

from book import copies

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "lite"
BUILD = ROOT / "_build/lite"
SITE, MADE = BUILD / "site", BUILD / "made.json"
LOCK = "pyodide-lock.json"
# A script of ours on JupyterLite's pages, and the list of names that it reads.
PAGE, EDITIONS = "page.js", "editions.json"
APPS = ("notebooks", "lab")
# What links to the book's site begin with in the copies; the script puts the site's address in its place.
SITE_MARK = "https://site.invalid/"
KERNEL = "@jupyterlite/pyodide-kernel-extension:kernel"
CELL_ID = "in-the-browser"
CELL = """\
# In the browser: install dlcore, the book's package, and make the experiments small. Run this cell first,
# and again after a restart. The first time it and Python itself load about {megabytes} MB.
%pip install -q dlcore in_browser
import in_browser

in_browser.start()
"""
# Dark where the reader's system is dark.
PREFERENCES = {"@jupyterlab/apputils-extension:themes": {"adaptive-theme": True}}
# Wheels made of lite/modules. JupyterLite's kernel asks for ssl and sqlite3; no chapter needs those 2.6 MB.
STAND_INS = (
    ("in_browser", "1.0", "Gets a chapter ready in a browser"),
    (
        "safetensors",
        "0.4.3",
        "Stands for the package, which is compiled and not there for browsers",
    ),
    ("sqlite3", "1.0", "Stands for the module, which IPython imports for its history"),
    ("ssl", "1.0", "Nothing: it only says that the module is not wanted"),
)
# Files of JupyterLite that a notebook loads, packed, in bytes: browser/test_lite.py measures the sum of all.
APP = 2_200_000
# Arithmetics of other processors, which round in another order (`dlcore.arithmetic`).
OTHERS = ("nehalem", "sandybridge")


class LiteError(Exception):
    """What keeps the JupyterLite from being built, in words for the one who builds it."""


# --------------------------------------------------------------------------------------------------
# Pyodide


def release() -> dict[str, Any]:
    """Return which release of Pyodide the site uses."""
    return json.loads((SETTINGS / "pyodide.json").read_text("utf-8"))


def lock() -> dict[str, Any]:
    """Return the lock of the packages that the chapters need."""
    return json.loads((SETTINGS / LOCK).read_text("utf-8"))


def expected() -> dict[str, str]:
    """Return the SHA-256 of each file of a copy of Pyodide, by name."""
    first = {name: entry["sha256"] for name, entry in release()["files"].items()}
    return first | {p["file_name"]: p["sha256"] for p in lock()["packages"].values()}


def take(source: Path, target: Path) -> None:
    """Copy Pyodide from a folder or archive; raises LiteError naming each file that is not as published."""
    due = expected()
    contents = _read(source, due)
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    wrong = [
        f"{name}: its SHA-256 is {found[name]}, the published file's is {digest}"
        if name in found
        else f"{name}: is missing"
        for name, digest in due.items()
        if found.get(name) != digest
    ]
    if wrong:
        about = f"{source} is no copy of Pyodide {release()['version']} (the full distribution):"
        raise LiteError("\n".join([about, *wrong]))
    target.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (target / name).write_bytes(content)


def _read(source: Path, names: Container[str]) -> dict[str, bytes]:
    """Read the files of these names, whatever folder inside of a folder or a tar archive holds them."""
    if not source.exists():
        raise LiteError(f"PYODIDE: there is no {source}")
    if source.is_dir():
        return {p.name: p.read_bytes() for p in source.rglob("*") if p.name in names}
    found = {}
    try:
        with tarfile.open(source) as archive:
            for member in archive:  # in their order: a packed archive cannot be read back and forth
                name, file = Path(member.name).name, archive.extractfile(member)
                if file and name in names:
                    found[name] = file.read()
    except tarfile.ReadError:
        raise LiteError(f"PYODIDE: {source} is neither a folder nor a tar archive") from None
    return found


# --------------------------------------------------------------------------------------------------
# Wheels


def wheel(folder: Path, name: str, version: str, files: dict[str, bytes], about: str) -> Path:
    """Write a wheel in plain Python, the same bytes each time."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    inside = dict(files)
    inside[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {about}\n".encode()
    )
    inside[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: book\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    rows = [f"{path},{_record(content)}\n" for path, content in inside.items()]
    inside[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name_inside, content in inside.items():
            archive.writestr(zipfile.ZipInfo(name_inside, (2020, 1, 1, 0, 0, 0)), content)
    return path


def _record(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(content)}"


def write_wheels(folder: Path) -> None:
    """Write dlcore's wheel from this tree, and those that stand for what browsers lack."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    own = SETTINGS / "modules"
    for name, version, about in STAND_INS:
        files = (
            p for p in sorted(own.rglob("*.py")) if p.relative_to(own).parts[0].startswith(name)
        )
        inside = {p.relative_to(own).as_posix(): p.read_bytes() for p in files}
        wheel(folder, name, version, inside, about)


# --------------------------------------------------------------------------------------------------
# Notebooks


def with_start(nb: Any, megabytes: int) -> Any:
    """Return a notebook whose first code cell installs dlcore by piplite; outputs stay as stored."""
    import nbformat
    from nbformat.v4 import new_code_cell

    cell = new_code_cell(CELL.format(megabytes=megabytes).rstrip(), id=CELL_ID)
    first = next(i for i, c in enumerate(nb.cells) if c.cell_type == "code")
    made = nbformat.from_dict({**nb, "cells": [*nb.cells[:first], cell, *nb.cells[first:]]})
    kernel = {"name": "python", "display_name": "Python (Pyodide)", "language": "python"}
    made.metadata.kernelspec = kernel
    return made


def write_notebooks(folder: Path, megabytes: int, root: Path = ROOT) -> None:
    """Write all chapters under the names of their editions, with one cell more, and links that lead on."""
    import nbformat

    folder.mkdir(parents=True, exist_ok=True)
    names = editions(root)
    for path in chapters(root):
        nb = nbformat.read(path, as_version=4)
        copy = copies.readable(nb, path.stem, SITE_MARK, names)
        nbformat.write(with_start(copy, megabytes), folder / names[path.name])


def editions(root: Path = ROOT) -> dict[str, str]:
    """Return the name of each chapter's copy, which holds a digest of what is in it.

    A browser keeps what a reader has saved, by its name, and shows that before what the server has. So a
    chapter that has changed needs another name: the reader sees it, and keeps the changed copy beside it.
    """
    return {path.name: f"{path.stem}-{edition(path)}.ipynb" for path in chapters(root)}


def edition(path: Path) -> str:
    """Return eight hexadecimal digits that stand for what a chapter's copy says."""
    import nbformat

    copy = copies.readable(nbformat.read(path, as_version=4), path.stem, SITE_MARK)
    return hashlib.sha256((nbformat.writes(copy) + CELL).encode()).hexdigest()[:8]


def add_page_script(site: Path, root: Path = ROOT) -> None:
    """Put our script on JupyterLite's pages, and beside them the names of the chapters as they are now."""
    shutil.copy(SETTINGS / PAGE, site / PAGE)
    names = {
        f"chapters/{name.removesuffix('.ipynb')}": f"chapters/{copy}"
        for name, copy in editions(root).items()
    }
    (site / EDITIONS).write_text(json.dumps(names, indent=1), "utf-8")
    for app in APPS:
        page = site / app / "index.html"
        text = page.read_text("utf-8")
        if "</head>" not in text:
            raise LiteError(f"JupyterLite's {app}/index.html has no head to put {PAGE} into")
        script = f'<script src="../{PAGE}" defer></script></head>'
        page.write_text(text.replace("</head>", script, 1), "utf-8")


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of the book."""
    return sorted((root / "chapters").glob("*.ipynb"))


# --------------------------------------------------------------------------------------------------
# JupyterLite


def settings(local: bool) -> dict[str, Any]:
    """Return JupyterLite's configuration: which Python, which wheels, and no other place to ask."""
    kernel = {
        "pyodideUrl": f"{'./static/pyodide/' if local else release()['address']}pyodide.js",
        "disablePyPIFallback": True,
        "loadPyodideOptions": {"lockFileURL": f"./static/{LOCK}"},
    }
    config = {
        "appName": "Training Deep Neural Nets",
        "litePluginSettings": {KERNEL: kernel},
        "disabledExtensions": ["@jupyterlite/iframe-extension"],
    }
    return {"jupyter-lite-schema-version": 0, "jupyter-config-data": config}


def megabytes(wheels: Path) -> int:
    """Return how much a reader loads, the first time, in MB: JupyterLite, Pyodide, packages, dlcore."""
    pinned = release()
    first = sum(entry["packed"] for entry in pinned["files"].values())
    packages = sum(pinned["bytes"].values())
    carried = sum(p.stat().st_size for p in wheels.glob("*.whl"))
    return round((APP + first + packages + carried) / 1e6)


def build(jupyter: Path, wheels: Path, pyodide: Path | None) -> dict[str, Any]:
    """Build the JupyterLite; return what ``made`` will tell of it."""
    shutil.rmtree(BUILD, ignore_errors=True)
    source = BUILD / "source"
    (source / "pypi").mkdir(parents=True)
    if pyodide:
        take(pyodide, BUILD / "pyodide")
    write_wheels(source / "pypi")
    for path in wheels.glob("*.whl"):
        shutil.copy(path, source / "pypi")
    size = megabytes(source / "pypi")
    write_notebooks(source / "contents/chapters", size)
    (source / "jupyter-lite.json").write_text(json.dumps(settings(bool(pyodide))), "utf-8")
    (source / "overrides.json").write_text(json.dumps(PREFERENCES), "utf-8")
    command = [str(jupyter), "build", "--lite-dir", str(source), "--output-dir", str(SITE)]
    command += [
        "--contents",
        str(source / "contents"),
        "--no-sourcemaps",
        "--no-unused-shared-packages",
    ]
    for app in APPS:
        command += ["--apps", app]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    if done.returncode:
        raise LiteError(f"JupyterLite was not built:\n{done.stdout}\n{done.stderr}")
    add_page_script(SITE)
    static = SITE / "static"
    static.mkdir(exist_ok=True)
    shutil.copy(SETTINGS / LOCK, static)
    if pyodide:
        shutil.move(BUILD / "pyodide", static / "pyodide")
    about = {
        "inputs": inputs(),
        "megabytes": size,
        "local": bool(pyodide),
        "names": editions(),
    }
    MADE.write_text(json.dumps(about), "utf-8")
    return about


def inputs(root: Path = ROOT) -> str:
    """Digest of what goes into the JupyterLite of the book in a folder."""
    digest = hashlib.sha256()
    makers = (root / "book/lite.py", root / "book/copies.py")
    for place in (*chapters(root), root / "dlcore", root / "lite", *makers):
        for path in (place, *sorted(place.rglob("*"))):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------
# The site


def made(root: Path = ROOT) -> dict[str, Any] | None:
    """Tell what was built, None if nothing was, or from other chapters than those of now."""
    path = root / "_build/lite/made.json"
    if not path.exists():
        return None
    about = json.loads(path.read_text("utf-8"))
    return about if about["inputs"] == inputs(root) else None


def button(root: str, path: str, size: int) -> dict[str, str]:
    """Return the button that opens the copy of a chapter in the browser.

    >>> button("../", "chapters/01-gradients-0123abcd.ipynb", 60)["url"]
    '../lite/notebooks/index.html?path=chapters/01-gradients-0123abcd.ipynb'
    """
    return {
        "type": "link",
        "label": "launch-lite",
        "icon": "fas fa-play",
        "text": f"Run here {size} MB",
        "tooltip": f"Run this chapter in your browser: downloads about {size} MB",
        "url": f"{root}lite/notebooks/index.html?path={path}",
    }


def copy(root: Path, site: Path) -> None:
    """Put the JupyterLite into the site, or take out one that is out of date."""
    shutil.rmtree(site / "lite", ignore_errors=True)
    if made(root):
        shutil.copytree(root / "_build/lite/site", site / "lite", copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy(source, target)


def run_natively(folder: Path) -> None:
    """Run each chapter on this machine, and as on others; store the runs for browser/test_lite.py."""
    import nbformat

    from book.notebooks import execute
    from dlcore import arithmetic

    for name in ("", *OTHERS):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        variables = arithmetic.environment(name) if name else {}
        for path in chapters():
            nb, seconds = execute(path, **variables)
            nb.metadata["seconds"] = seconds
            nbformat.write(nb, place / path.name)
            print(f"{name or 'native'} {path.name}: {seconds:.1f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line; return 1 if the JupyterLite could not be built."""
    parser = argparse.ArgumentParser(prog="python -m book.lite")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("build", help="build the JupyterLite")
    make.add_argument("--jupyter", type=Path, required=True, help="the command jupyter-lite")
    make.add_argument(
        "--wheels", type=Path, required=True, help="where lite/wheels.txt's wheels are"
    )
    make.add_argument("--pyodide", type=Path, help="folder or archive of Pyodide to bundle")
    commands.add_parser(
        "native", help="run the chapters on this machine, to compare with a browser's"
    )
    options = parser.parse_args(arguments)
    if options.command == "native":
        run_natively(BUILD / "native")
        return 0
    try:
        about = build(options.jupyter.resolve(), options.wheels, options.pyodide)
    except LiteError as error:
        print(error, file=sys.stderr)
        return 1
    place = "with Pyodide in it" if about["local"] else f"Pyodide comes from {release()['address']}"
    print(f"The JupyterLite is built, {place}; a reader loads about {about['megabytes']} MB.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
