"""Ways out of the page: where the repository is, launch buttons, and notebooks that run in the cloud.

The notebooks in ``chapters/`` hold no address. ``python -m book.launch FOLDER`` writes copies with one cell
more, which installs ``dlcore`` where it is missing: they are the branch ``notebooks`` of the repository, to
which the buttons lead, and the downloads of the site.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import nbformat
from nbformat.v4 import new_code_cell

import dlcore
from book import copies, first_cell

ROOT = Path(__file__).resolve().parent.parent
HOSTS = ("github.com", "gitlab.com", "bitbucket.org")  # those that the theme knows
BRANCH = "notebooks"
CELL_ID = "install-dlcore"
# With these git works on another repository than the one of the folder it is asked about.
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")
# What folds the cell: Colab shows its title and the choice of SIZE, JupyterLab and Kaggle one line.
FOLDED = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "_kg_hide-input": True,
}
TITLE = """\
# @title Run this first: it installs dlcore, the book's package, where it is missing
# "quick" is a first look, "full" the book's numbers; "" is quick on Colab, Kaggle and Binder, else full.
SIZE = ""  # @param ["", "quick", "full"]
"""
TAKES = re.compile(r"\*\*It takes\*\*.*? and ((?:about )?[a-z -]+ minutes?) to run")


def repository_url(address: str) -> str:
    """Return the page of a repository for what git calls its remote, "" where there is none.

    >>> repository_url("git@github.com:someone/deep-nets.git")
    'https://github.com/someone/deep-nets'
    >>> repository_url("https://name:token@gitlab.com/someone/deep-nets")
    'https://gitlab.com/someone/deep-nets'
    >>> repository_url("/srv/git/deep-nets")
    ''
    """
    address = address.strip()
    if "://" not in address and ":" in address:
        address = "ssh://" + address.replace(":", "/", 1)
    parts = urlsplit(address)
    path = parts.path.strip("/").removesuffix(".git")
    if parts.hostname not in HOSTS or path.count("/") != 1:
        return ""
    return f"https://{parts.hostname}/{path}"


def find_repository(srcdir: str | Path) -> str:
    """Ask the environment, then git, for the repository's page; "" where neither knows one."""
    if "BOOK_REPOSITORY_URL" in os.environ:
        return repository_url(os.environ["BOOK_REPOSITORY_URL"])
    return repository_url(git(srcdir, "remote", "get-url", "origin"))


def git(folder: str | Path, *command: str) -> str:
    """Return what git prints about the repository of which ``folder`` is the top.

    It is "" where there is no git, no repository or an error, and where the folder only lies within
    somebody else's repository: a book unpacked there is no part of that one.
    """
    top = _run_git(folder, "rev-parse", "--show-toplevel")
    if not top or not os.path.samefile(top, folder):
        return ""
    return _run_git(folder, *command)


def _run_git(folder: str | Path, *command: str) -> str:
    """Return what git prints, "" where it can't be had or fails; what a hook has set does not count."""
    environ = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environ,
        )
    except OSError:
        return ""
    output = done.stdout.removesuffix("\n")
    return output if done.returncode == 0 else ""


def revision(folder: str | Path) -> str:
    """Return what names this version of the book to git: its tag if it has one, else its commit."""
    tag = f"v{dlcore.__version__}"
    if tag in git(folder, "tag", "--points-at", "HEAD").split():
        return tag
    return git(folder, "rev-parse", "HEAD") or "main"


def source(folder: str | Path) -> str:
    """Return what pip installs dlcore from: the repository at the book's version, "" if it is unknown."""
    url = find_repository(folder)
    return f"git+{url}@{revision(folder)}" if url else ""


def cell_source(where: str, takes: str) -> str:
    """Return the cell: a setting, the functions of ``book.first_cell``, and their call."""
    text = inspect.getsource(first_cell)
    functions = text[text.index("import importlib\n") :].rstrip()
    return f"{TITLE}\n{functions}\n\n\nstart(SIZE, {json.dumps(where)}, {json.dumps(takes)})"


def takes(nb: nbformat.NotebookNode) -> str:
    """Return how long a chapter says that it runs.

    >>> text = "- **It takes** an hour to read and about two minutes to run on two CPU cores."
    >>> takes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)]))
    'about two minutes'
    """
    found = (TAKES.search(cell.source) for cell in nb.cells if cell.cell_type == "markdown")
    return next((match[1] for match in found if match), "a few minutes")


def site_address(folder: str | Path) -> str:
    """Return the address of the book's site: what BOOK_SITE_URL says, else GitHub's pages, else ""."""
    if "BOOK_SITE_URL" in os.environ:
        return os.environ["BOOK_SITE_URL"].rstrip("/") + "/" if os.environ["BOOK_SITE_URL"] else ""
    return github_pages(find_repository(folder))


def github_pages(url: str) -> str:
    """Return where GitHub publishes the pages of a repository, "" for one that is elsewhere.

    >>> github_pages("https://github.com/Someone/deep-nets")
    'https://someone.github.io/deep-nets/'
    >>> github_pages("https://github.com/someone/someone.github.io"), github_pages("https://gitlab.com/a/b")
    ('https://someone.github.io/', '')
    """
    if not url.startswith("https://github.com/"):
        return ""
    owner, name = url.removeprefix("https://github.com/").split("/")
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def with_install(nb: nbformat.NotebookNode, where: str) -> nbformat.NotebookNode:
    """Return a notebook with a first code cell that installs dlcore from ``where`` if it is missing.

    It stands after the title and opening text, and before the first cell of the chapter.
    """
    cell = new_code_cell(cell_source(where, takes(nb)), id=CELL_ID, metadata=FOLDED)
    first = next(i for i, c in enumerate(nb.cells) if c.cell_type == "code")
    return nbformat.from_dict({**nb, "cells": [*nb.cells[:first], cell, *nb.cells[first:]]})


def launched(nb: nbformat.NotebookNode, page: str, where: str, site: str = "") -> Any:
    """Return the copy of a chapter that is launched or downloaded.

    Captions and links are plain Markdown, and the first cell installs dlcore from ``where``, if that is
    known. ``page`` is the notebook's name, such as ``01-gradients``; ``site`` the address of the book's site.
    """
    copy = copies.readable(nb, page, site)
    return with_install(copy, where) if where else copy


def buttons(url: str, page: str) -> list[dict[str, str]]:
    """Return the launch buttons of a chapter, none for a repository that is not on GitHub.

    >>> [b["text"] for b in buttons("https://github.com/someone/nets", "chapters/01-gradients")]
    ['Colab', 'Kaggle', 'Binder']
    """
    if not url.startswith("https://github.com/"):
        return []
    name, file = url.removeprefix("https://github.com/"), f"{page}.ipynb"
    on_github = quote(f"{url}/blob/{BRANCH}/{file}", safe="")
    places = {
        "Colab": (
            f"https://colab.research.google.com/github/{name}/blob/{BRANCH}/{file}",
            "fas fa-cloud",
        ),
        "Kaggle": (f"https://kaggle.com/kernels/welcome?src={on_github}", "fab fa-kaggle"),
        "Binder": (
            f"https://mybinder.org/v2/gh/{name}/{BRANCH}?urlpath=lab/tree/{file}",
            "fas fa-flask",
        ),
    }
    return [
        {"type": "link", "text": text, "tooltip": f"Run on {text}", "icon": icon, "url": address}
        for text, (address, icon) in places.items()
    ]


def write(folder: Path, where: str, site: str = "") -> None:
    """Write the branch ``notebooks``: the chapters, what Binder needs, and nothing else."""
    (folder / "chapters").mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        nb = launched(nbformat.read(path, as_version=4), path.stem, where, site)
        nbformat.write(nb, folder / "chapters" / path.name)
    shutil.copytree(ROOT / "binder", folder / "binder", dirs_exist_ok=True)
    requirements = folder / "binder/requirements.txt"
    requirements.write_text(requirements.read_text("utf-8") + f"{where}\n", "utf-8")
    for name in ("LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, folder / name)
    readme = (
        f"The chapters of *Training Deep Neural Nets*, to be run elsewhere. Made from {where}.\n"
    )
    (folder / "README.md").write_text(readme, "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Command line: the folder to write; BOOK_DLCORE_SOURCE names another place to install dlcore from."""
    (folder,) = sys.argv[1:] if arguments is None else arguments
    where = os.environ.get("BOOK_DLCORE_SOURCE") or source(ROOT)
    if not where:
        print("The repository's address is not known: set BOOK_REPOSITORY_URL.", file=sys.stderr)
        return 1
    write(Path(folder), where, site_address(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
