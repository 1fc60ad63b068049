"""Last steps on the built pages: previews of links, lighter icons, repairs of what themes leave."""

from __future__ import annotations

import copy
import html
import json
import posixpath
import re
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pydata_sphinx_theme
from bs4 import BeautifulSoup, Comment, Tag

FROM, TO = "<!-- previews -->", "<!-- end of previews -->"
OLD = re.compile(f"{FROM}.*?{TO}", re.DOTALL)
LINKS = "article a.reference.internal[href], article a.api[href]"
LONGEST = 4000  # characters of a preview; a link to something longer has none
# One icon in the theme's file of all icons: name:[width,height,[aliases],"code","path" or [paths]]
ICON = re.compile(
    r'(?P<quote>"?)(?P<name>[\w-]+)(?P=quote):\[\d+,\d+,\[(?P<aliases>[^\]]*)\],"[0-9a-f]+",'
    r'(?:"[^"]*"|\["[^"]*"(?:,"[^"]*")*\])\],?'
)
BLOCKS = {
    "p",
    "div",
    "li",
    "dt",
    "dd",
    "pre",
    "td",
    "th",
    "figcaption",
    *(f"h{i}" for i in range(1, 7)),
}
BACK = re.compile(r'<a class="viewcode-back" href="([^"]+)">\[docs\]</a>')

# What Sphinx, its extensions and the theme write that axe-core refuses, and what it should be.
REPAIRS = [
    (re.compile(wrong, re.DOTALL), right)
    for wrong, right in (
        # Sphinx: tables that only place things; a signature of many lines, as a list without terms.
        (
            r'<table style="width: 100%" class="indextable',
            '<table role="presentation" class="indextable',
        ),
        (r"<dl>\n((?:<dd>(?:(?!</dl>).)*</dd>\n)+)</dl>", r'<span class="sig-lines">\1</span>'),
        (
            r'<dd>(<em class="sig-param">(?:(?!</dd>).)*)</dd>',
            r'<span class="sig-line">\1</span>',
        ),
        # docutils: a header without text.
        (r'<th class="head">\s*(?:<p>\s*</p>)?\s*</th>', "<td></td>"),
        # sphinxcontrib-bibtex: a deprecated role inside of a list without items.
        (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
        (r' role="doc-biblioentry"', ""),
        # The theme: a sidebar outside of every landmark.
        (
            r'<div id="pst-primary-sidebar" class="',
            '<div id="pst-primary-sidebar" role="region" aria-label="Book" class="',
        ),
    )
]


class Page:
    """A built page; parsed when something asks for what is in it."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path, self.name = path, path.relative_to(root).as_posix()
        self.text = OLD.sub("", path.read_text("utf-8"))

    @cached_property
    def soup(self) -> BeautifulSoup:
        """The page as a tree."""
        return BeautifulSoup(self.text, "html.parser")

    @cached_property
    def targets(self) -> dict[str, Tag]:
        """What links can lead to."""
        return {str(tag["id"]): tag for tag in self.soup.find_all(id=True)}


def finish(app, exception):
    """Do all of this to the site that was built."""
    if exception or app.builder.name != "html":
        return
    root = Path(app.outdir)
    apart = {"_static", "lite"}  # the JupyterLite has pages of its own
    files = [p for p in root.rglob("*.html") if p.relative_to(root).parts[0] not in apart]
    pages = {page.name: page for page in (Page(root, path) for path in sorted(files))}
    for page in pages.values():
        page.text = drop_dead_links(page.text, page.name, pages)
        for wrong, right in REPAIRS:
            page.text = wrong.sub(right, page.text)
        found = "" if page.name.startswith("_modules/") else previews(page, pages)
        block = f'{FROM}<template class="previews">{found}</template>{TO}' if found else ""
        page.path.write_text(page.text.replace("</body>", block + "</body>"), "utf-8")
    (root / "_static/excerpts.js").write_text(excerpts(pages), "utf-8")
    scripts = root / "_static/scripts"
    icons = scripts / "fontawesome.js"
    used = icons_used(page.text for page in pages.values())
    used |= icons_used(p.read_text("utf-8") for p in scripts.glob("*.js") if p != icons)
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme/pydata_sphinx_theme/static/scripts"
    icons.write_text(trim_icons((theme / icons.name).read_text("utf-8"), used), "utf-8")


# --------------------------------------------------------------------------------------------------
# Previews


def previews(page: Page, pages: dict[str, Page]) -> str:
    """Return what the page's links lead to, one element for each target, for the script to show."""
    found = {}
    for link in page.soup.select(LINKS):
        href = str(link["href"])
        if href in found or "headerlink" in (link.get("class") or ()) or "//" in href:
            continue
        path, anchor = urldefrag(href)
        name = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), unquote(path)))
        other = pages.get(name) if path else page
        target = other.targets.get(unquote(anchor)) if other and anchor else None
        shown = excerpt(target) if target is not None else ""
        if shown and len(shown) <= LONGEST:
            found[href] = f'<div data-for="{href}">{relative(shown, other.name, page.name)}</div>'
    return "".join(found.values())


def excerpt(target: Tag) -> str:
    """Return the part of a page that stands for a target, as HTML without links and targets of its own.

    >>> text = '<dl><dt id="a">seed</dt><dd><p>A <a href="#b">number</a>.</p></dd></dl>'
    >>> excerpt(BeautifulSoup(text, "html.parser").find(id="a"))
    '<p><strong>seed</strong></p><p>A number.</p>'
    """
    kinds = set(target.get("class") or ())
    if target.name == "dt":
        text = target.find_next_sibling("dd")
        first = text.find("p") if text else None
        label = "code" if "sig" in kinds else "strong"
        head = signature(target) if "sig" in kinds else target.get_text()
        head = re.sub(r"\s*#?$", "", " ".join(head.split())).replace("<", "&lt;")
        parts = [f"<p><{label}>{head}</{label}></p>", clean(first) if first else ""]
    elif str(target["id"]).startswith("ledger-"):
        parts = [clean(item, inside=True) if (item := target.find_parent("li")) else ""]
    elif "citation" in kinds or target.name == "figure" or "math" in kinds:
        parts = [clean(target)]
    elif "verdict" in kinds:
        parts = [clean(target.find("pre"))]
    elif target.name == "section":
        title, first = target.find(re.compile("^h[1-6]$")), target.find("p", recursive=False)
        parts = [f"<p><strong>{clean(title, inside=True)}</strong></p>" if title else ""]
        parts += [clean(first)] if first else []
    else:
        parts = []
    return "".join(parts)


def signature(target: Tag) -> str:
    """Return a function's name and the names of its parameters: types and defaults are on its page.

    >>> parameter = '<em class="sig-param"><span class="n">net</span>: Network</em>'
    >>> text = f'<dt><span class="descname">fit</span>({parameter})</dt>'
    >>> signature(BeautifulSoup(text, "html.parser").dt)
    'fit(net)'
    """
    name = "".join(
        part.get_text() for part in target.select(".property, .sig-prename, .sig-name, .descname")
    )
    parameters = target.select(".sig-param")
    if not parameters and not target.select(".sig-paren"):
        return name
    return f"{name}({', '.join(_parameter(one) for one in parameters)})"


def _parameter(tag: Tag) -> str:
    """The name of a parameter, with its stars."""
    stars = tag.find("span", class_="o", recursive=False)
    mark = stars.get_text() if stars and set(stars.get_text()) == {"*"} else ""
    named = tag.find("span", class_="n", recursive=False)
    return mark + (named.get_text() if named else "")


def clean(tag: Tag, inside: bool = False) -> str:
    """Return a copy's HTML; links become text, ids and marks of headings go."""
    tag = copy.copy(tag)
    for mark in tag.select("a.headerlink, span.target, script, template"):
        mark.decompose()
    for link in tag.find_all("a"):
        link.unwrap()
    for element in [tag, *tag.find_all(True)]:
        for key in ("id", "role"):
            element.attrs.pop(key, None)
    return (tag.decode_contents() if inside else str(tag)).strip()


def relative(shown: str, there: str, here: str) -> str:
    """Return HTML whose images are found from the page ``here`` instead of from ``there``.

    >>> relative('<img src="../_images/a.png"/>', "chapters/a.html", "intro.html")
    '<img src="_images/a.png"/>'
    """

    def move(match):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(there), match[1]))
        return f' src="{posixpath.relpath(path, posixpath.dirname(here) or ".")}"'

    return re.sub(r' src="([^":]+)"', move, shown)


# --------------------------------------------------------------------------------------------------
# Texts for the search in a folder


def excerpts(pages: dict[str, Page]) -> str:
    """Return a script with the texts of all pages: in a folder, no page can be fetched."""
    texts = {
        name: bare(page.soup.find("article"))
        for name, page in pages.items()
        if not name.startswith("_modules/") and page.soup.find("article") is not None
    }
    return f"window.bookTexts = {json.dumps(texts, ensure_ascii=False)};\n"


def bare(tag: Tag) -> str:
    """Return the text of a page, with its sections and nothing else of its HTML.

    >>> text = '<section id="a"><h1>T<a class="headerlink">#</a></h1><p>1 &lt; 2</p></section>'
    >>> bare(BeautifulSoup(f"<article>{text}</article>", "html.parser").article)
    '<section id="a">T 1 &lt; 2</section>'
    """
    parts: list[str] = []
    for child in tag.children:
        if isinstance(child, Comment):
            continue
        if not isinstance(child, Tag):
            parts.append(html.escape(str(child), quote=False))
        elif child.name in ("script", "style", "template") or "headerlink" in child.get(
            "class", ()
        ):
            continue
        elif child.name == "section":
            parts.append(f'<section id="{child.get("id", "")}">{bare(child)}</section>')
        else:
            parts.append(bare(child) + (" " if child.name in BLOCKS else ""))
    return re.sub(r"\s+", " ", "".join(parts)).replace(" </section>", "</section>").strip()


# --------------------------------------------------------------------------------------------------
# Repairs


def drop_dead_links(text: str, name: str, pages: dict[str, Page]) -> str:
    """Drop links from listings of code to API entries that do not exist (of aliases inside a class)."""

    def keep(match):
        path, anchor = urldefrag(match[1])
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        return match[0] if target in pages and f'id="{anchor}"' in pages[target].text else ""

    return BACK.sub(keep, text)


def icons_used(texts) -> set[str]:
    """Return the names of the icons in pages and scripts, ``fa-name``."""
    return {name for text in texts for name in re.findall(r"\bfa-([a-z0-9-]+)", text)}


def trim_icons(script: str, used: set[str]) -> str:
    """Return the theme's script of icons with only those that are used: 1.5 MB otherwise, on every page.

    >>> trim_icons('s={bell:[1,1,[],"f0","M0"],"arrow-up":[1,2,[8593,"up"],"f1","M1"]}', {"up"})
    's={"arrow-up":[1,2,[8593,"up"],"f1","M1"]}'
    """

    def keep(match):
        names = {match["name"], *re.findall(r'"([\w-]+)"', match["aliases"])}
        return match[0] if names & used else ""

    return re.sub(r",(?=\})", "", ICON.sub(keep, script))
