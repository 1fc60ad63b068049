"""Sphinx extension of the book: no network, no console errors, links to the notebooks, the API pages."""

from __future__ import annotations

import importlib.util
import pkgutil
import shutil
from pathlib import Path

import nbformat

import dlcore
from book import explorables, launch, ledger, lite, pdf, play, reading
from book.finish import finish
from book.reading import API_PAGE, LEDGER_PAGE

API_MARK = "<!-- modules of dlcore -->"
LEDGER_MARK = "<!-- verdicts -->"
# The order in which data flow; a module that is not named here comes after these.
API_ORDER = [
    "datasets", "experiments", "packing", "training", "batches", "network", "checkpoints",
    "storage", "transfer", "folding", "layers", "recurrent", "convolution", "activations",
    "initializers", "losses", "optimizers", "schedules", "regularizers", "augmentation", "probes",
    "meanfield", "statistics", "plots", "gradcheck", "random", "backend", "machine", "checks",
]  # fmt: skip


def set_repository(app, config):
    """Fill in the repository's address; without one the theme must not be asked for buttons."""
    options = config.html_theme_options
    url = launch.find_repository(app.srcdir) or launch.repository_url(
        options.get("repository_url") or ""
    )
    options["repository_url"] = url
    for button in ("use_repository_button", "use_issues_button", "use_source_button"):
        options[button] = bool(url)


def add_launch(app, pagename, templatename, context, doctree):
    """Add launch buttons to the chapters; the theme knows no Kaggle, and no branch beside `main`."""
    if not (Path(app.srcdir) / f"{pagename}.ipynb").exists():
        return
    links = launch.buttons(app.config.html_theme_options["repository_url"], pagename)
    if links:
        group = {"type": "group", "icon": "fas fa-rocket", "label": "launch-buttons"}
        context["header_buttons"].append(group | {"tooltip": "Run this chapter", "buttons": links})


def add_lite(app, pagename, templatename, context, doctree):
    """Add the button that runs a chapter in the browser, if the JupyterLite is built (`make lite`)."""
    if (Path(app.srcdir) / f"{pagename}.ipynb").exists() and (about := lite.made(Path(app.srcdir))):
        root = context["pathto"]("lite", 1).removesuffix("lite")
        folder, _, name = pagename.rpartition("/")
        path = f"{folder}/{about['names'][f'{name}.ipynb']}"
        context["header_buttons"].insert(0, lite.button(root, path, about["megabytes"]))


def copy_lite(app, exception):
    """Put the JupyterLite beside the pages."""
    if not exception and app.builder.name == "html":
        lite.copy(Path(app.srcdir), Path(app.outdir))


def add_book(app, pagename, templatename, context, doctree):
    """Offer the whole book as a PDF beside the downloads of a page, if it has been printed (`make pdf`)."""
    for group in context.get("header_buttons", []):
        if group.get("label") == "download-buttons" and pdf.PDF.exists():
            link = {"type": "link", "text": "Whole book", "tooltip": "Download the book as a PDF"}
            url = context["pathto"](pdf.NAME, 1)
            group["buttons"].append(
                link | {"url": url, "icon": "fas fa-book", "label": "download-book"}
            )


def copy_downloads(app, exception):
    """Put the printed book into the site, and notebooks that read well elsewhere and install dlcore."""
    if exception or app.builder.name != "html":
        return
    if pdf.PDF.exists():
        shutil.copy(pdf.PDF, Path(app.outdir) / pdf.NAME)
    where, site = launch.source(app.srcdir), launch.site_address(app.srcdir)
    for path in Path(app.srcdir).glob("chapters/*.ipynb"):
        nb = launch.launched(nbformat.read(path, as_version=4), path.stem, where, site)
        nbformat.write(nb, Path(app.outdir) / "_sources/chapters" / path.name)


def drop_second_thebe(app, pagename, templatename, context, doctree):
    """Drop sphinx-thebe's settings: emitted twice, `const` twice is an error in every console.

    The book has no live cells inside pages, so its script goes as well.
    """
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(script) and "thebe" not in str(getattr(script, "attributes", ""))
    ]


def copy_mathjax(app, exception):
    """Put MathJax into the site: the one script that pages load, its extensions and its fonts."""
    if exception or app.builder.format != "html":
        return
    source = (
        Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
    )
    target = Path(app.outdir) / "_static/mathjax"
    for part in ("tex-chtml.js", "input/tex/extensions", "output/chtml/fonts/woff-v2"):
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy(source / part, target / part)


def modules() -> list[str]:
    """Return the names of dlcore's modules, in the order of the API pages."""
    found = [m.name for m in pkgutil.iter_modules(dlcore.__path__) if not m.name.startswith("_")]
    known = [name for name in API_ORDER if name in found]
    return known + sorted(set(found) - set(known))


def write_api(app, docname, source):
    """Fill the API page with every module of dlcore, so that none can be forgotten."""
    if docname != API_PAGE:
        return
    if API_MARK not in source[0]:
        raise ValueError(f"{API_PAGE}: expected the line {API_MARK}")
    sections = [
        f"(api-{name})=\n## `dlcore.{name}`\n\n```{{eval-rst}}\n.. automodule:: dlcore.{name}\n```\n"
        for name in modules()
    ]
    source[0] = source[0].replace(API_MARK, "\n".join(sections))


def mend_docstring(app, what, name, obj, options, lines):
    """Let a minus sign stand before a literal: reStructuredText asks for a space or punctuation there."""
    lines[:] = [line.replace("−``", "−\\ ``") for line in lines]


def skip_fields(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, whose docstring says no more than their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def write_ledger(app, docname, source):
    """Fill the ledger with the verdicts that the chapters store; it is read anew when one of them changes."""
    if docname != LEDGER_PAGE:
        return
    if LEDGER_MARK not in source[0]:
        raise ValueError(f"{LEDGER_PAGE}: expected the line {LEDGER_MARK}")
    for path in (*sorted(ledger.CHAPTERS.glob("*.ipynb")), ledger.ROOT / "book/claims.toml"):
        app.env.note_dependency(str(path))
    source[0] = source[0].replace(LEDGER_MARK, ledger.as_markdown())


def write_ledger_json(app, exception):
    """Put the ledger for programs beside its page."""
    if not exception and app.builder.format == "html":
        text = ledger.as_json(dlcore.__version__)
        (Path(app.outdir) / "ledger.json").write_text(text, "utf-8")


def write_explorables(app, exception):
    """Put the data of all explorables into the site, for programs."""
    if not exception and app.builder.format == "html":
        text = explorables.as_json(
            {name: explorables.read(name) for name in explorables.EXPLORABLES}
        )
        (Path(app.outdir) / "_static/explorables.json").write_text(text, "utf-8")


def setup(app):
    """Connect the above."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.add_css_file("book.css")
    app.add_js_file("book.js", loading_method="defer")
    app.connect("config-inited", set_repository, priority=100)
    app.connect("source-read", write_api)
    app.connect("autodoc-process-docstring", mend_docstring)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", write_ledger)
    app.connect("html-page-context", add_launch, priority=600)
    app.connect("html-page-context", add_lite, priority=600)
    app.connect("html-page-context", add_book, priority=600)
    app.connect("html-page-context", drop_second_thebe, priority=900)
    reading.connect(app)
    play.connect(app)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_ledger_json)
    app.connect("build-finished", write_explorables)
    app.connect("build-finished", copy_downloads)
    app.connect("build-finished", finish, priority=900)
    app.connect("build-finished", copy_lite, priority=950)
    return {"version": dlcore.__version__, "parallel_read_safe": True, "parallel_write_safe": True}
