"""What the site adds to the text: terms, badges of verdicts, a box at the opening, links in code, dates."""

from __future__ import annotations

import base64
import datetime
import functools
import inspect
import re
from pathlib import Path
from types import ModuleType

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

import dlcore
from book import ledger
from book.launch import git

GLOSSARY_PAGE = "chapters/appendix/glossary"
EXPLORABLES_PAGE = "chapters/appendix/explorables"
LEDGER_PAGE = "chapters/appendix/ledger"
API_PAGE = "chapters/appendix/api"
# Too common in their everyday sense to be linked wherever they come first.
EVERYDAY = {"claim", "control", "effect", "setting", "sweep"}
# No term is linked inside of these.
CLOSED = (
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.math,
    nodes.caption,
    nodes.raw,
    nodes.comment,
)
OPENING = ("You need", "You will be able to", "It takes")


# --------------------------------------------------------------------------------------------------
# Terms


def terms(text: str) -> dict[str, str]:
    """Return ``term -> its target`` for a glossary written as a definition list.

    >>> terms("batch\\n: The examples.\\n\\nfan-in, fan-out\\n: Numbers.\\n\\nlower, upper layers\\n: They.")
    {'batch': 'term-batch', 'fan-in': 'term-fan-in', 'fan-out': 'term-fan-in', \
'lower layer': 'term-lower', 'upper layer': 'term-lower'}
    """
    found = {}
    for line in re.findall(r"(?m)^(\S.*)\n: ", text):
        names = line.split(", ")
        target = term_target(line)
        if names[-1] == "upper layers":
            names = ["lower layer", "upper layer"]
        found |= {name: target for name in names}
    return found


def term_target(line: str) -> str:
    """Return the target of a glossary's entry."""
    return "term-" + re.sub(r"[^a-z]+", "-", line.partition(",")[0].lower()).strip("-")


@functools.cache
def _term_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest = sorted(set(names) - EVERYDAY, key=len, reverse=True)
    any_of = "|".join(re.escape(n).replace("isation", "i[sz]ation") for n in longest)
    return re.compile(rf"\b({any_of})(?:e?s)?\b(?! norm)(?![-_(])", re.IGNORECASE)


def mark_terms(app, doctree):
    """Make each entry of the glossary a target and an entry of the index."""
    if app.env.docname != GLOSSARY_PAGE:
        return
    for node in list(doctree.findall(nodes.term)):
        line = node.astext()
        target = term_target(line)
        node["ids"] = [target]
        _label(app, target, line)
        for name in line.split(", "):
            _index(app, name, target, "main")


def link_terms(app, doctree):
    """Link each term of the glossary where it first comes in a chapter, and put the place into the index."""
    docname = app.env.docname
    glossary = Path(app.srcdir) / f"{GLOSSARY_PAGE}.md"
    if not _is_chapter(docname) or not glossary.exists():
        return
    app.env.note_dependency(str(glossary))
    targets = terms(glossary.read_text("utf-8"))
    pattern, seen = _term_pattern(tuple(targets)), set()
    _explain(doctree, pattern, targets)
    for paragraph in list(doctree.findall(nodes.paragraph)):
        for text in list(paragraph.findall(nodes.Text)):
            if not _inside(text, (*CLOSED, addnodes.pending_xref), paragraph):
                _link_terms_in(app, text, pattern, targets, seen)


def _explain(doctree, pattern, targets):
    """Let prose that links a term to the API page lead to the glossary: a word is asked for, not a call."""
    for link in doctree.findall(addnodes.pending_xref):
        said = link.astext()
        match = pattern.fullmatch(said)
        names_a_call = any(isinstance(node, nodes.literal) for node in link.findall())
        if match and not names_a_call and (link.get("reftarget") or "").startswith("dlcore."):
            link["reftarget"] = targets[match[1].lower().replace("ization", "isation")]


def _link_terms_in(app, text, pattern, targets, seen):
    parts, end = [], 0
    source = text.astext()
    for match in pattern.finditer(source):
        name = match[1].lower().replace("ization", "isation")
        if targets[name] in seen:
            continue
        seen.add(targets[name])
        place = f"{targets[name]}-in-{app.env.docname.rpartition('/')[2]}"
        _index(app, name, place)
        parts += [
            nodes.Text(source[end : match.start()]),
            nodes.target("", "", ids=[place]),
            _link(app, targets[name], match[0], classes=["term"]),
        ]
        end = match.end()
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(source[end:])])


# --------------------------------------------------------------------------------------------------
# A figure of a chapter on another page


class StoredFigure(SphinxDirective):
    """The figure that a chapter stores under a name, with its alt text; a click leads to it."""

    required_arguments = 1

    def run(self):
        """Return the picture; a name that no chapter has is an error."""
        name = self.arguments[0]
        for path in sorted((Path(self.env.srcdir) / "chapters").glob("*.ipynb")):
            for cell in nbformat.read(path, as_version=4).cells:
                settings = cell.metadata.get("mystnb", {})
                if settings.get("figure", {}).get("name") == name:
                    self.env.note_dependency(str(path))
                    docname = path.relative_to(self.env.srcdir).with_suffix("").as_posix()
                    return [self._picture(docname, name, cell, settings["image"]["alt"])]
        raise self.error(f"no chapter stores a figure {name}")

    def _picture(self, docname, name, cell, alt):
        png = next(o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
        file = Path(self.env.srcdir) / "_build/figures" / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(png))
        image = nodes.image(uri=f"/_build/figures/{name}.png", alt=alt)
        link = nodes.reference("", "", image, internal=True, refuri="")
        link["stored-figure"] = docname, name
        return nodes.paragraph("", "", link, classes=["stored-figure"])


def resolve_figures(app, doctree, docname):
    """Fill in the addresses of stored figures, which differ from one builder to another."""
    for link in doctree.findall(nodes.reference):
        if "stored-figure" in link:
            chapter, name = link["stored-figure"]
            link["refuri"] = f"{app.builder.get_relative_uri(docname, chapter)}#{name}"


def explorables_from(text: str) -> dict[str, list[str]]:
    """Return ``figure -> explorables`` for the page of the explorables: which of them it leads to.

    >>> explorables_from("```{explorable} flow\\n:from: fig-a fig-b\\n")
    {'fig-a': ['flow'], 'fig-b': ['flow']}
    """
    found: dict[str, list[str]] = {}
    for name, figures in re.findall(r"\{explorable\} (\S+)\n:from: (.+)", text):
        for figure in figures.split():
            found.setdefault(figure, []).append(name)
    return found


def link_explorables(app, doctree):
    """Put a link to an explorable below each figure of a chapter that it belongs to."""
    page = Path(app.srcdir) / f"{EXPLORABLES_PAGE}.md"
    if not _is_chapter(app.env.docname) or not page.exists():
        return
    app.env.note_dependency(str(page))
    found = explorables_from(page.read_text("utf-8"))
    for figure in list(doctree.findall(nodes.figure)):
        names = [name for label in figure["ids"] for name in found.get(label, ())]
        for name in reversed(names):
            link = _link(app, f"play-{name}", "Try it yourself: this figure with controls")
            place = figure.parent.index(figure) + 1
            figure.parent.insert(place, nodes.paragraph("", "", link, classes=["to-play"]))


# --------------------------------------------------------------------------------------------------
# Verdicts


def mark_verdicts(app, doctree):
    """Make each verdict's output a target, style it, and link it with its entry in the ledger."""
    docname = app.env.docname
    path = Path(app.srcdir) / f"{docname}.ipynb"
    if not path.exists():
        return
    outputs = [n for n in doctree.findall(nodes.literal_block) if "stdout" not in n["classes"]]
    words = {}
    for record in ledger.verdicts(path):
        name, start = record["id"], f"{record['id']} {record['verdict']}"
        block = next(
            (n for n in outputs if n.astext().startswith((f"{start}:", f"{start} ("))), None
        )
        if block is None:
            raise ValueError(f"{docname}: the page does not show verdict {name}")
        target = ledger.anchor(name)
        words[target] = record["verdict"]
        block["ids"].append(target)
        block["classes"] += ["verdict", f"verdict-{record['verdict']}"]
        _label(app, target, f"verdict {name}")
        if LEDGER_PAGE in app.env.found_docs:
            link = _link(app, ledger.entry(name), f"{name} in the ledger")
            block.parent.insert(
                block.parent.index(block) + 1, nodes.paragraph("", "", link, classes=["to-ledger"])
            )
    _badges(app, doctree)


def _badges(app, doctree):
    """Turn the prose's ``[G1a holds](#verdict-g1a)`` into badges that lead to the ledger."""
    if LEDGER_PAGE not in app.env.found_docs:
        return
    for link in doctree.findall(addnodes.pending_xref):
        target = link.get("reftarget") or ""
        if target.startswith("verdict-"):
            link["reftarget"] = f"ledger-{target.removeprefix('verdict-')}"


def style_badges(app, doctree, docname):
    """Give each badge its verdict's colour, once links are resolved: Sphinx makes their text anew."""
    for link in doctree.findall(nodes.reference):
        target = link.get("refid") or link.get("refuri", "").rpartition("#")[2]
        said = ledger.WORDS & set(re.findall(r"[a-z]+", link.astext().lower()))
        if target.startswith("ledger-") and len(said) == 1:
            link["classes"] += ["verdict", f"verdict-{said.pop()}"]


def forget_modules(app, env):
    """Make viewcode forget what it found no source of: its list would lead to pages that do not exist."""
    known = getattr(env, "_viewcode_modules", {})
    for name in [name for name, found in known.items() if not found]:
        del known[name]


def mark_ledger(app, doctree):
    """Make the entries of the ledger targets."""
    if app.env.docname == LEDGER_PAGE:
        for node in doctree.findall(nodes.Element):
            for target in node.get("ids", []):
                if target.startswith("ledger-"):
                    _label(app, target, target)


# --------------------------------------------------------------------------------------------------
# Opening and summaries


def mark_openings(app, doctree):
    """Mark the list "You need / will be able to / It takes", and the sentence that opens each section."""
    if not _is_chapter(app.env.docname):
        return
    for box in doctree.findall(nodes.bullet_list):
        if box.astext().startswith(OPENING[0]):
            box["classes"].append("opening")
            break
    for title in doctree.findall(nodes.title):
        siblings = title.parent.children
        after = siblings[siblings.index(title) + 1] if len(siblings) > 1 else None
        if isinstance(after, nodes.paragraph) and isinstance(after.children[0], nodes.emphasis):
            after["classes"].append("section-summary")


# --------------------------------------------------------------------------------------------------
# Links from code to the API

USE = re.compile(
    r'<span class="n">dl</span>((?:<span class="o">\.</span><span class="n">\w+</span>)+)'
)
ATTRIBUTE = re.compile(r'<span class="o">\.</span><span class="n">(\w+)</span>')


def link_code(app, pagename, templatename, context, doctree):
    """Link ``dl.NAME`` in a chapter's code to its entry in the API pages."""
    if not _is_chapter(pagename) or API_PAGE not in app.env.found_docs:
        return
    known = app.env.domaindata["py"]["objects"]
    page = context["pathto"](API_PAGE)

    def replace(match):
        names = ATTRIBUTE.findall(match[1])
        for count in range(len(names), 0, -1):
            target = documented(".".join(names[:count]))
            if target in known:
                break
        else:
            return match[0]
        spans = '<span class="n">dl</span>' + "".join(
            f'<span class="o">.</span><span class="n">{name}</span>' for name in names[:count]
        )
        anchor = f"module-{target}" if known[target].objtype == "module" else target
        rest = match[0].removeprefix(spans)
        return f'<a class="api" href="{page}#{anchor}">{spans}</a>{rest}'

    context["body"] = USE.sub(replace, context["body"])


def documented(path: str) -> str | None:
    """Return the full name of what a chapter calls ``dl.path``, None if dlcore has no such thing.

    >>> documented("sweep"), documented("plots.use_style"), documented("nothing")
    ('dlcore.experiments.sweep', 'dlcore.plots.use_style', None)
    """
    thing = dlcore
    for name in path.split("."):
        thing = getattr(thing, name, None)
        if thing is None:
            return None
    if isinstance(thing, ModuleType):
        return thing.__name__
    if inspect.isclass(thing) or inspect.isroutine(thing):
        return f"{thing.__module__}.{thing.__qualname__}"
    return None


# --------------------------------------------------------------------------------------------------
# Version and date


def add_version(app, config):
    """Say at the foot of each page which version of the book it is."""
    options = config.html_theme_options
    options["extra_footer"] = f"Version {dlcore.__version__}. {options.get('extra_footer') or ''}"


def add_date(app, pagename, templatename, context, doctree):
    """Date a page by the last commit that changed its source, else by the day of the build."""
    source = app.env.doc2path(pagename) if pagename in app.env.found_docs else None
    stamp = git(app.srcdir, "log", "-1", "--format=%cs", "--", str(source)) if source else ""
    context["last_updated"] = stamp or datetime.datetime.now(datetime.UTC).date().isoformat()


# --------------------------------------------------------------------------------------------------


def _is_chapter(docname: str) -> bool:
    return docname.startswith("chapters/") and not docname.startswith("chapters/appendix/")


def _inside(node, kinds, top) -> bool:
    while node is not top:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _label(app, target: str, text: str) -> None:
    labels = app.env.get_domain("std")
    labels.anonlabels[target] = app.env.docname, target
    labels.labels[target] = app.env.docname, target, text


def _link(app, target: str, text: str, classes=()) -> addnodes.pending_xref:
    inner = nodes.inline("", text, classes=["std", "std-ref", *classes])
    return addnodes.pending_xref(
        "", inner, refdomain="std", reftype="ref", reftarget=target, refexplicit=True,
        refdoc=app.env.docname, refwarn=True,
    )  # fmt: skip


def _index(app, name: str, target: str, weight: str = "") -> None:
    entries = app.env.get_domain("index").entries.setdefault(app.env.docname, [])
    entries.append(("single", name, target, weight, None))


def connect(app):
    """Connect the above."""
    app.add_directive("stored-figure", StoredFigure)
    app.connect("config-inited", add_version, priority=200)
    for reader in (
        mark_terms,
        mark_verdicts,
        mark_ledger,
        mark_openings,
        link_terms,
        link_explorables,
    ):
        app.connect("doctree-read", reader)
    app.connect("doctree-resolved", resolve_figures)
    app.connect("doctree-resolved", style_badges)
    app.connect("env-updated", forget_modules, priority=900)
    app.connect("html-page-context", link_code)
    app.connect("html-page-context", add_date, priority=600)
