"""Copies of chapters that read well outside of the site: captions, numbers, and links that lead somewhere.

The notebooks in ``chapters/`` are written for Sphinx: captions stand in the metadata of cells, ``$$`` has a
label behind it, and links lead to targets such as ``#verdict-g1a`` that only the site has. What is launched,
downloaded or run in the browser is a copy in which all of this is plain Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from book import ledger

API = "chapters/appendix/api.html"
EXPLORABLES = "chapters/appendix/explorables.html"
LEDGER = "chapters/appendix/ledger.html"
EQUATION = re.compile(r"\$\$(?P<body>.+?)\$\$ \((?P<label>[\w-]+)\)", re.DOTALL)
# Code in Markdown, where nothing is a link, or a link, whose text may hold code.
CODE_OR_LINK = re.compile(
    r"```.*?```"
    r"|(?<!!)\[(?P<text>(?:[^\]`]|`[^`\n]*`)+)\]\((?P<target>[^)\s]+)\)"
    r"|`[^`\n]*`",
    re.DOTALL,
)


def readable(
    nb: NotebookNode, page: str, site: str = "", files: Mapping[str, str] | None = None
) -> NotebookNode:
    """Return a copy of a chapter with captions, numbers and links that need no site around it.

    ``page`` is the notebook's name without its ending, such as ``01-gradients``. ``site`` is the address of
    the book's site: links lead there, and without one those that only the site can follow become plain text.
    ``files`` gives chapters other names, for links from one to another; without it they lead to the site.
    """
    numbers = figure_numbers(nb, page) | equation_numbers(nb, page)
    cells = []
    for cell in nb.cells:
        copy = nbformat.from_dict(cell)
        if cell.cell_type == "markdown":
            text = EQUATION.sub(lambda m: _equation(m, numbers), cell.source)
            copy.source = link_text(text, page, site, files, numbers)
        cells.append(copy)
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption:
            number = numbers[cell.metadata["mystnb"]["figure"]["name"]]
            text = link_text(f"*{number}* {caption.strip()}", page, site, files, numbers)
            cells.append(new_markdown_cell(text, id=f"{cell.id}-caption"))
    return nbformat.from_dict({**nb, "cells": cells})


def figure_numbers(nb: NotebookNode, page: str) -> dict[str, str]:
    """Return ``name -> "Fig. 1.2"`` as the site counts a chapter's figures."""
    settings = (cell.metadata.get("mystnb", {}).get("figure", {}) for cell in nb.cells)
    names = [figure["name"] for figure in settings if "name" in figure]
    return {name: f"Fig. {chapter(page)}.{i}" for i, name in enumerate(names, 1)}


def equation_numbers(nb: NotebookNode, page: str) -> dict[str, str]:
    """Return ``label -> "1.2"`` as the site counts a chapter's equations."""
    texts = (cell.source for cell in nb.cells if cell.cell_type == "markdown")
    labels = [match["label"] for text in texts for match in EQUATION.finditer(text)]
    return {label: f"{chapter(page)}.{i}" for i, label in enumerate(labels, 1)}


def chapter(page: str) -> int:
    """Return a chapter's number.

    >>> chapter("02-initialization")
    2
    """
    return int(page.partition("-")[0])


def _equation(match: re.Match[str], numbers: Mapping[str, str]) -> str:
    return f"$${match['body'].rstrip()} \\tag{{{numbers[match['label']]}}} $$"


def link_text(
    text: str,
    page: str,
    site: str = "",
    files: Mapping[str, str] | None = None,
    numbers: Mapping[str, str] | None = None,
) -> str:
    """Return Markdown whose links to the site's targets are addresses, or plain text without a site.

    >>> link_text("[G1 holds](#verdict-g1)", "01-gradients", "https://book.example/")
    '[G1 holds](https://book.example/chapters/appendix/ledger.html#ledger-g1)'
    >>> link_text("[G1 holds](#verdict-g1), [chapter 2](02-initialization.ipynb)", "01-gradients")
    'G1 holds, [chapter 2](02-initialization.ipynb)'
    """

    def change(match: re.Match[str]) -> str:
        target, label = match["target"], match["text"]
        if target is None or re.match(r"[a-z]+:", target):
            return match[0]
        number = (numbers or {}).get(target.removeprefix("#"))
        if number:
            label = f"{label} ({number})"
        path, _, anchor = target.partition("#")
        if path.endswith(".ipynb") and files is not None and not anchor:
            return f"[{label}]({files.get(path, path)})"
        if not site:
            beside = path.endswith(".ipynb") and not anchor  # another chapter, in the same folder
            return match[0] if beside else label
        return f"[{label}]({site}{address(target, page)})"

    return CODE_OR_LINK.sub(change, text)


def address(target: str, page: str) -> str:
    """Return where on the site a chapter's link leads, without the site's own address.

    >>> address("#dlcore.statistics.verdict", "01-gradients")
    'chapters/appendix/api.html#dlcore.statistics.verdict'
    >>> address("#eq-forward", "02-initialization"), address("03-activations.ipynb", "01-gradients")
    ('chapters/02-initialization.html#equation-eq-forward', 'chapters/03-activations.html')
    """
    path, _, anchor = target.partition("#")
    if not path and anchor.startswith(("dlcore.", "api-")):
        return f"{API}#{anchor}"
    if not path and anchor.startswith("verdict-"):
        return f"{LEDGER}#{ledger.entry(anchor.removeprefix('verdict-'))}"
    if not path and anchor.startswith("play-"):
        return f"{EXPLORABLES}#{anchor}"
    if anchor.startswith("eq-"):
        anchor = f"equation-{anchor}"
    file = re.sub(r"\.(ipynb|md)$", "", path) or page
    return f"chapters/{file}.html" + (f"#{anchor}" if anchor else "")
