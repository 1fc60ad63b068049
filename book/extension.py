"""Sphinx extension of the book: no network, no console errors, links to the notebooks, the API pages."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote, urlsplit

from docutils import nodes

import dlcore
from book import ledger

HOSTS = ("github.com", "gitlab.com", "bitbucket.org")  # those that the theme knows
API_PAGE = "chapters/appendix/api"
API_MARK = "<!-- modules of dlcore -->"
LEDGER_PAGE = "chapters/appendix/ledger"
LEDGER_MARK = "<!-- verdicts -->"
# The order in which data flow; a module that is not named here comes after these.
API_ORDER = [
    "datasets", "experiments", "training", "batches", "network", "checkpoints", "storage", "transfer",
    "folding", "layers", "recurrent", "convolution", "activations", "initializers", "losses", "optimizers",
    "schedules", "regularizers", "augmentation", "probes", "meanfield", "statistics", "plots",
    "gradcheck", "random", "backend", "checks",
]  # fmt: skip


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
    try:
        done = subprocess.run(
            ["git", "-C", str(srcdir), "remote", "get-url", "origin"],
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return ""
    return repository_url(done.stdout)


def set_repository(app, config):
    """Fill in the repository's address; without one the theme must not be asked for buttons."""
    options = config.html_theme_options
    url = find_repository(app.srcdir) or repository_url(options.get("repository_url") or "")
    options["repository_url"] = url
    for button in ("use_repository_button", "use_issues_button", "use_source_button"):
        options[button] = bool(url)
    if not url.startswith("https://github.com/"):
        options["launch_buttons"] = {}  # Colab and Kaggle read from GitHub only


def add_kaggle(app, pagename, templatename, context, doctree):
    """Add Kaggle to the launch buttons, which the theme cannot."""
    options = app.config.html_theme_options
    launch = [b for b in context.get("header_buttons", []) if b.get("label") == "launch-buttons"]
    if not launch:
        return
    notebook = f"blob/{options.get('repository_branch') or 'main'}/{pagename}.ipynb"
    source = quote(f"{options['repository_url']}/{notebook}", safe="")
    launch[0]["buttons"].append(
        {
            "type": "link",
            "text": "Kaggle",
            "tooltip": "Launch on Kaggle",
            "icon": "fab fa-kaggle",
            "url": f"https://kaggle.com/kernels/welcome?src={source}",
        }
    )


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


def write_ledger(app, docname, source):
    """Fill the ledger with the verdicts that the chapters store; it is read anew when one of them changes."""
    if docname != LEDGER_PAGE:
        return
    if LEDGER_MARK not in source[0]:
        raise ValueError(f"{LEDGER_PAGE}: expected the line {LEDGER_MARK}")
    for path in (*sorted(ledger.CHAPTERS.glob("*.ipynb")), ledger.ROOT / "book/claims.toml"):
        app.env.note_dependency(str(path))
    source[0] = source[0].replace(LEDGER_MARK, ledger.as_markdown())


def mark_verdicts(app, doctree):
    """Make each verdict's output a target, so that the ledger and the text can link to it, and style it."""
    docname = app.env.docname
    path = Path(app.srcdir) / f"{docname}.ipynb"
    if not path.exists():
        return
    outputs = [n for n in doctree.findall(nodes.literal_block) if "stdout" not in n["classes"]]
    labels = app.env.get_domain("std")
    for record in ledger.verdicts(path):
        name, start = record["id"], f"{record['id']} {record['verdict']}"
        block = next(
            (n for n in outputs if n.astext().startswith((f"{start}:", f"{start} ("))), None
        )
        if block is None:
            raise ValueError(f"{docname}: the page does not show verdict {name}")
        target = ledger.anchor(name)
        block["ids"].append(target)
        block["classes"] += ["verdict", f"verdict-{record['verdict']}"]
        labels.anonlabels[target] = docname, target
        labels.labels[target] = docname, target, f"verdict {name}"


def write_ledger_json(app, exception):
    """Put the ledger for programs beside its page."""
    if not exception and app.builder.format == "html":
        text = ledger.as_json(dlcore.__version__)
        (Path(app.outdir) / "ledger.json").write_text(text, "utf-8")


def setup(app):
    """Connect the above."""
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.add_css_file("book.css")
    app.connect("config-inited", set_repository, priority=100)
    app.connect("source-read", write_api)
    app.connect("source-read", write_ledger)
    app.connect("doctree-read", mark_verdicts)
    app.connect("html-page-context", add_kaggle, priority=600)
    app.connect("html-page-context", drop_second_thebe, priority=900)
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", write_ledger_json)
    return {"version": dlcore.__version__, "parallel_read_safe": True, "parallel_write_safe": True}
