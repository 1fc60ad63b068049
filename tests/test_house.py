"""The house: locks, metadata, make targets, the wheel, and a strict build of a small book."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import dlcore
from book import lite
from book.notebooks import normalise
from book.verdicts import MIME

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("requirements.txt", "requirements-book.txt", "requirements-uv.txt")
}


def pins(lock):
    """Return {name and marker: (version, hashes)} of a lock's text."""
    found = {}
    for entry in re.split(r"\n(?=\S)", lock):
        if match := re.match(r"([a-z0-9._-]+)(?:\[[a-z0-9,._-]+\])?==(\S+)( ; [^\\\n]*)?", entry):
            name, version, marker = match.groups()
            found[name, version, (marker or "").strip()] = frozenset(
                re.findall(r"sha256:[0-9a-f]{64}", entry)
            )
    return found


def names(requirements):
    return {re.match(r"[A-Za-z0-9._-]+", r)[0].lower().replace("_", "-") for r in requirements}


def test_one_version():
    version = PROJECT["project"]["version"]
    assert dlcore.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_runtime_dependencies_have_lower_bounds_only():
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+>=[\d.]+", requirement), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_lock_has_hashes_and_no_host(name):
    found = pins(LOCKS[name])
    assert len(found) == 1 if name == "requirements-uv.txt" else len(found) > 80
    assert all(found.values())
    assert not re.search(r"https?:|--(extra-)?index|--find-links|file:", LOCKS[name])
    assert not re.search(r"(?m)^(torch|jax|nvidia)", LOCKS[name])


def test_lock_covers_pyproject():
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    book = project["dependencies"] + extras["book"] + PROJECT["dependency-groups"]["build"]
    everything = book + extras["test"] + extras["dev"]
    locked = {lock: {name for name, *_ in pins(text)} for lock, text in LOCKS.items()}
    assert names(book) <= locked["requirements-book.txt"]
    assert names(everything) <= locked["requirements.txt"]


def test_the_two_locks_agree():
    part, whole = pins(LOCKS["requirements-book.txt"]), pins(LOCKS["requirements.txt"])
    versions = {name: {v for n, v, _ in whole if n == name} for name, *_ in whole}
    for (name, version, _), hashes in part.items():
        assert version in versions[name], name
        assert any(hashes == h for (n, v, _), h in whole.items() if (n, v) == (name, version)), name


def test_table_of_contents_has_every_chapter():
    listed = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed))
    present = [
        p for pattern in ("*.ipynb", "appendix/*.md") for p in (ROOT / "chapters").glob(pattern)
    ]
    expected = {"intro", "genindex"} | {
        p.relative_to(ROOT).with_suffix("").as_posix() for p in present
    }
    assert set(listed) == expected


def test_licences_are_stated():
    assert "BSD 3-Clause" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "CC BY 4.0" in (ROOT / "LICENSE-text").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "BSD 3-Clause" in readme
    assert "CC BY 4.0" in readme


def test_readme_links_lead_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        if "://" not in target:
            assert (ROOT / target).exists(), target


# --------------------------------------------------------------------------------------------------
# make


def make(*arguments, **changed):
    """Run make without what an outer make hands on, and with changes to the environment."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
    environ = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=environ | changed,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_make_help_names_the_targets():
    text = make("help").stdout
    for target in (
        "book",
        "test",
        "check",
        "notebooks",
        "serve",
        "clean",
        "lock",
        "lint",
        "parity",
        "quick",
        "lite",
        "test-lite",
    ):
        assert f"make {target} " in text, target


@pytest.mark.parametrize("python", ["no-such-python", "false", "true --version"])
def test_make_says_which_python_is_missing(tmp_path, python):
    done = make(f"PYTHON={python}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.book")
    assert done.returncode != 0
    assert "3.11 or newer" in done.stdout
    assert f"'{python}' is not that" in done.stdout


def test_make_hands_on_whether_a_python_was_asked_for(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$1" in -c) ;; *) echo "$@";; esac\n')
    python.chmod(0o755)
    where = (f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.test")
    asked = f"tools/environment.py test {tmp_path}/venv --asked"
    assert make(f"PYTHON={python}", *where).stdout.strip() == asked
    assert make(*where, PYTHON=str(python)).stdout.strip() == asked
    python.rename(tmp_path / "python3")
    found = make(*where, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found.stdout.strip() == asked.removesuffix(" --asked")


def test_make_takes_the_environments_python_where_python3_is_too_old(tmp_path):
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    inside = tmp_path / "venv/bin/python"
    inside.parent.mkdir(parents=True)
    inside.write_text('#!/bin/sh\ncase "$1" in -c) ;; *) echo "$@";; esac\n')
    inside.chmod(0o755)
    where = (f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.test")
    found = make(*where, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert found.stdout.strip() == f"tools/environment.py test {tmp_path}/venv"
    assert make(f"PYTHON={tmp_path}/python3", *where).returncode != 0


@pytest.mark.parametrize(
    "name", ["MPLBACKEND", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"]
)
def test_make_hands_on_nothing_that_chooses_other_modules(tmp_path, name):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "${{{name}-unset}}"\n')
    python.chmod(0o755)
    where = (f"VENV={tmp_path}/venv", f"{tmp_path}/venv/.test")
    assert set(make(f"PYTHON={python}", *where, **{name: "x"}).stdout.split()) == {"unset"}


# --------------------------------------------------------------------------------------------------
# The wheel


@pytest.mark.slow
def test_wheel_holds_the_data_and_the_licence(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    content = zipfile.ZipFile(wheel).namelist()
    data = {f"dlcore/data/{p.name}" for p in (ROOT / "dlcore" / "data").iterdir() if p.is_file()}
    assert data
    assert data <= set(content)
    assert "dlcore/py.typed" in content
    assert any(name.endswith("licenses/LICENSE") for name in content)
    assert {name.split("/")[0] for name in content} == {
        "dlcore",
        f"dlcore-{dlcore.__version__}.dist-info",
    }


# --------------------------------------------------------------------------------------------------
# The strict build, on a book of two pages


def build(folder, **environment):
    """Build the book in a folder, without a repository unless one is given."""
    command = [sys.executable, str(folder / "book" / "build.py")]
    environment = {**os.environ, "BOOK_REPOSITORY_URL": "", **environment}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def small_book(folder, pages):
    pytest.importorskip("jupyter_book")
    shutil.copytree(ROOT / "book", folder / "book")
    for name in ("_config.yml", "references.bib", "requirements-book.txt"):
        shutil.copy(ROOT / name, folder)
    chapters = "".join(f"  - file: {page}\n" for page in pages)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nchapters:\n{chapters}")
    (folder / "intro.md").write_text("# Small\n\n$$a = b$$\n")
    return folder


@pytest.mark.slow
def test_build_is_strict_and_offline(tmp_path):
    folder = small_book(tmp_path, ["second"])
    (folder / "second.md").write_text("# Second\n\n[nowhere](nowhere.md)\n")
    for _ in range(2):  # Sphinx alone would pass the second time
        done = build(folder)
        assert done.returncode == 1
        assert "nowhere" in done.stdout
    (folder / "second.md").write_text("# Second\n")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "index.html" in done.stdout
    html = folder / "_build" / "html"
    page = (html / "intro.html").read_text(encoding="utf-8")
    loaded = re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]+)\"", page)
    assert [address for address in loaded if "//" in address] == []
    assert "THEBE_JS_URL" not in page
    assert 'src="_static/mathjax/tex-chtml.js' in page
    assert (html / "_static/mathjax/tex-chtml.js").exists()
    assert len(list((html / "_static/mathjax/output/chtml/fonts/woff-v2").glob("*.woff"))) > 20


@pytest.mark.slow
def test_api_page_and_launch_buttons(tmp_path):
    folder = small_book(tmp_path, ["chapters/appendix/api", "chapters/sample"])
    (folder / "chapters" / "appendix").mkdir(parents=True)
    shutil.copy(ROOT / "chapters" / "appendix" / "api.md", folder / "chapters" / "appendix")
    cells = [new_markdown_cell("# Sample"), new_code_cell("1", execution_count=1)]
    cells[1].outputs = [
        new_output(
            "execute_result",
            {"text/plain": "G1 holds: it is so", MIME: {"id": "G1", "verdict": "holds"}},
            execution_count=1,
        )
    ]
    nbformat.write(normalise(new_notebook(cells=cells)), folder / "chapters" / "sample.ipynb")
    done = build(folder, BOOK_REPOSITORY_URL="https://github.com/someone/nets")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (folder / "_build/html/chapters/appendix/api.html").read_text(encoding="utf-8")
    modules = {p.stem for p in (ROOT / "dlcore").glob("*.py") if not p.stem.startswith("_")}
    assert {m for m in modules if f'id="module-dlcore.{m}"' in page} == modules
    page = (folder / "_build/html/chapters/sample.html").read_text(encoding="utf-8")
    assert (
        'href="https://colab.research.google.com/github/someone/nets/blob/notebooks/chapters/sample.ipynb"'
        in page
    )
    assert 'id="verdict-g1"' in page
    assert (folder / "_build/html/ledger.json").exists()
    notebook = (
        "https%3A%2F%2Fgithub.com%2Fsomeone%2Fnets%2Fblob%2Fnotebooks%2Fchapters%2Fsample.ipynb"
    )
    assert f"https://kaggle.com/kernels/welcome?src={notebook}" in page


@pytest.mark.slow
def test_the_jupyterlite_is_taken_along_with_a_button_while_it_is_up_to_date(tmp_path):
    folder = small_book(tmp_path, ["chapters/sample"])
    (folder / "chapters").mkdir()
    cells = [new_markdown_cell("# Sample"), new_code_cell("1")]
    nbformat.write(normalise(new_notebook(cells=cells)), folder / "chapters" / "sample.ipynb")
    html = folder / "_build/html"
    assert build(folder).returncode == 0
    assert "launch-lite" not in (html / "chapters/sample.html").read_text(encoding="utf-8")
    made = folder / "_build/lite"
    (made / "site/notebooks").mkdir(parents=True)
    (made / "site/notebooks/index.html").write_text("<title>Lite</title>")
    edition = "sample-0123abcd.ipynb"
    about = {"inputs": lite.inputs(folder), "megabytes": 59, "names": {"sample.ipynb": edition}}
    (made / "made.json").write_text(json.dumps(about))
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (html / "chapters/sample.html").read_text(encoding="utf-8")
    assert 'href="../lite/notebooks/index.html?path=chapters/sample-0123abcd.ipynb"' in page
    assert "downloads about 59 MB" in page
    assert "launch-lite" not in (html / "intro.html").read_text(encoding="utf-8")
    # Left as it was built: none of the site's repairs and previews.
    assert (html / "lite/notebooks/index.html").read_text() == "<title>Lite</title>"
    (folder / "lite").mkdir()
    (folder / "lite/settings").write_text("changed")
    assert "is left out" in build(folder).stdout
    assert not (html / "lite").exists()
    assert "launch-lite" not in (html / "chapters/sample.html").read_text(encoding="utf-8")


@pytest.fixture
def no_address(monkeypatch):
    """No address of the book's repository, and nothing that a hook of git would hand on."""
    pytest.importorskip("jupyter_book")
    for name in [name for name in os.environ if name.startswith(("GIT_", "BOOK_"))]:
        monkeypatch.delenv(name)


def repository(folder, remote=""):
    """Make a repository of git in a folder."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    if remote:
        command = ["git", "-C", str(folder), "remote", "add", "origin", remote]
        subprocess.run(command, check=True)


def test_the_environment_says_where_the_repository_is(tmp_path, monkeypatch, no_address):
    from book.launch import find_repository

    monkeypatch.setenv("BOOK_REPOSITORY_URL", "https://github.com/someone/nets/")
    assert find_repository(tmp_path) == "https://github.com/someone/nets"


def test_git_says_where_the_repository_is(tmp_path, no_address):
    from book.launch import find_repository

    repository(tmp_path)
    assert find_repository(tmp_path) == ""
    repository(tmp_path, "https://me:secret@github.com/someone/nets.git")
    assert find_repository(tmp_path) == "https://github.com/someone/nets"
    link = tmp_path / "link"
    link.symlink_to(tmp_path, target_is_directory=True)
    assert find_repository(link) == "https://github.com/someone/nets"


@pytest.mark.parametrize("below", ["book", "a folder/book", ".hidden"])
def test_a_repository_above_the_book_is_somebody_elses(tmp_path, no_address, below):
    from book.launch import find_repository, git, revision, source

    repository(tmp_path, "https://github.com/stranger/thesis.git")
    folder = tmp_path / below
    folder.mkdir(parents=True)
    assert find_repository(folder) == ""
    assert source(folder) == ""
    assert revision(folder) == "main"
    assert git(folder, "log") == ""


def test_a_repository_that_a_hook_names_is_not_asked(tmp_path, monkeypatch, no_address):
    from book.launch import find_repository

    repository(tmp_path / "other", "https://github.com/stranger/thesis.git")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    (tmp_path / "book").mkdir()
    assert find_repository(tmp_path) == ""
    assert find_repository(tmp_path / "book") == ""


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_without_git_there_is_no_repository(tmp_path, monkeypatch, no_address, path):
    from book.launch import find_repository

    monkeypatch.setenv("PATH", path)
    assert find_repository(tmp_path) == ""
    assert find_repository(ROOT) == ""


# --------------------------------------------------------------------------------------------------
# Clones, and what a notebook's terminal leaves in the environment


def test_a_clone_with_other_line_ends_is_the_same(tmp_path):
    """Windows' setting of git, in a repository of our own with the files whose ends matter."""
    repository(tmp_path / "from")
    names = (".gitattributes", ".ci/run", "Makefile", "requirements-uv.txt", "book/sanitize.cfg")
    for name in names:
        target = tmp_path / "from" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "from/picture.png").write_bytes(b"\x89PNG\r\n\n\r")
    git = ["git", "-C", str(tmp_path / "from")]
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, *who, "commit", "-q", "-m", "first"], check=True)
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", "-c", "core.eol=crlf"]
    subprocess.run([*clone, str(tmp_path / "from"), str(tmp_path / "to")], check=True)
    for name in (*names, "picture.png"):
        assert (tmp_path / "to" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()
        assert name == "picture.png" or b"\r" not in (ROOT / name).read_bytes()


INHERITED = """
import sys
sys.modules["matplotlib_inline"] = None  # not installed
import dlcore as dl
assert "plots" in dir(dl) and "plots" in dl.__all__
net = dl.Network([dl.Flatten(), dl.Dense(64, 10)], 0)
dl.fit(net, dl.datasets.digits(), lr=0.1, epochs=1)
assert "matplotlib" not in sys.modules
"""


@pytest.mark.thorough
@pytest.mark.parametrize("drawing", ["module://matplotlib_inline.backend_inline", "?"])
def test_dlcore_needs_no_way_to_draw(drawing):
    environ = {**os.environ, "MPLBACKEND": drawing, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", INHERITED], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_plots_come_when_they_are_used():
    code = """
import sys
import dlcore
from dlcore import *
assert plots is dlcore.plots is sys.modules["dlcore.plots"]
assert set(dlcore.__all__) <= set(dir(dlcore))
try:
    dlcore.plot
except AttributeError as error:
    assert "module 'dlcore' has no attribute 'plot'" in str(error)
else:
    raise AssertionError
"""
    environ = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
