"""Notebooks for the cloud: one cell more, which does nothing where dlcore is, and the links to them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip("jupyter_book")
from book import launch

ROOT = Path(__file__).resolve().parent.parent
WHERE = "git+https://github.com/someone/nets@v1.0"


def python_of(cell):
    """A cell's source as Python, with what IPython makes of its magic commands."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(cell.source)


class Shell:
    """Stands for IPython: takes down what it is asked to run."""

    def __init__(self, answer=()):
        self.asked, self.answer = [], list(answer)
        self.names = {"get_ipython": lambda: self}

    def run_line_magic(self, name, line):
        self.asked.append(f"{name} {line}".format(**self.names))  # IPython fills in {names}

    def getoutput(self, command):
        self.asked.append(command)
        return self.answer


@pytest.fixture
def cell():
    nb = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1", id="own")])
    made = launch.with_install(nb, WHERE)
    assert [c.cell_type for c in made.cells] == ["markdown", "code", "code"]
    assert made.cells[2].id == "own"
    assert len(nb.cells) == 2
    nbformat.validate(made)
    return made.cells[1]


def run(cell, monkeypatch, missing=(), tools=(), answer=()):
    shell = Shell(answer)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in missing else name)
    monkeypatch.setattr("shutil.which", lambda name: name if name in tools else None)
    exec(python_of(cell), shell.names)
    return shell.asked


def test_nothing_is_installed_where_dlcore_is(cell, monkeypatch):
    assert run(cell, monkeypatch) == []


def test_dlcore_comes_from_the_repository_at_the_books_version(cell, monkeypatch):
    assert run(cell, monkeypatch, {"dlcore"}) == [f'pip install --quiet "{WHERE}"']


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (["CUDA Version: 12"], "cuda12x"), (["CUDA Version: 13"], "cuda13x"), ([], "cuda12x"),
    ],
)  # fmt: skip
def test_a_gpu_without_cupy_gets_the_right_one(cell, monkeypatch, answer, kind):
    asked = run(cell, monkeypatch, {"dlcore", "cupy"}, {"nvidia-smi"}, answer)
    assert asked[0].startswith("pip install --quiet")
    assert asked[-1] == f"pip install --quiet cupy-{kind}"
    asked = run(cell, monkeypatch, {"dlcore"}, {"nvidia-smi"}, answer)
    assert len(asked) == 1  # Colab and Kaggle bring CuPy with their GPUs


def test_the_version_is_the_tag_or_the_commit(tmp_path, monkeypatch):
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*command):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(
            ["git", "-C", str(tmp_path), *who, *command], check=True, capture_output=True
        )

    monkeypatch.setenv("BOOK_REPOSITORY_URL", "https://github.com/someone/nets")
    git("init", "-q")
    git("commit", "--allow-empty", "-m", "first")
    assert len(launch.source(tmp_path).partition("@")[2]) == 40
    git("tag", f"v{launch.dlcore.__version__}")
    tagged = f"git+https://github.com/someone/nets@v{launch.dlcore.__version__}"
    assert launch.source(tmp_path) == tagged
    monkeypatch.setenv("BOOK_REPOSITORY_URL", "/nowhere")
    assert launch.source(tmp_path) == ""


def test_the_branch_holds_every_chapter_and_what_binder_needs(tmp_path):
    launch.write(tmp_path, WHERE)
    names = sorted(p.name for p in (ROOT / "chapters").glob("*.ipynb"))
    assert sorted(p.name for p in (tmp_path / "chapters").glob("*")) == names
    for path in (tmp_path / "chapters").glob("*.ipynb"):
        first = next(
            c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"
        )
        assert WHERE in "".join(first["source"])
    assert WHERE in (tmp_path / "binder/requirements.txt").read_text("utf-8")


def test_without_an_address_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BOOK_REPOSITORY_URL", "")
    monkeypatch.delenv("BOOK_DLCORE_SOURCE", raising=False)
    assert launch.main([str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()
    assert "BOOK_REPOSITORY_URL" in capsys.readouterr().err


def test_buttons_lead_to_the_branch():
    links = {b["text"]: b["url"] for b in launch.buttons("https://github.com/a/b", "chapters/01-x")}
    assert links == {
        "Colab": "https://colab.research.google.com/github/a/b/blob/notebooks/chapters/01-x.ipynb",
        "Kaggle": "https://kaggle.com/kernels/welcome?src="
        "https%3A%2F%2Fgithub.com%2Fa%2Fb%2Fblob%2Fnotebooks%2Fchapters%2F01-x.ipynb",
        "Binder": "https://mybinder.org/v2/gh/a/b/notebooks?urlpath=lab/tree/chapters/01-x.ipynb",
    }
    assert launch.buttons("https://gitlab.com/a/b", "chapters/01-x") == []
    assert launch.buttons("", "chapters/01-x") == []
