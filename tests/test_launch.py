"""Notebooks for the cloud: one cell more, which does nothing where dlcore is, and the links to them."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytest.importorskip("jupyter_book")
from book import launch

ROOT = Path(__file__).resolve().parent.parent
WHERE = "git+https://github.com/someone/nets@v1.0"


@pytest.fixture
def cell():
    nb = new_notebook(cells=[new_markdown_cell("# T"), new_code_cell("1", id="own")])
    made = launch.with_install(nb, WHERE)
    assert [c.cell_type for c in made.cells] == ["markdown", "code", "code"]
    assert made.cells[2].id == "own"
    assert len(nb.cells) == 2
    nbformat.validate(made)
    return made.cells[1]


CARDS = {"Tesla T4": "7.5", "Tesla P100-PCIE-16GB": "6.0", "Tesla V100": "7.0", "H200": "9.0"}
KEEP = {"numpy": "2.1.3", "pooch": "1.9.0"}


class Machine:
    """Stands for a place: what its commands answer, which packages it has; it takes down what is run."""

    def __init__(self, monkeypatch, packages=(), driver="", cards=(), pip=(), fields=()):
        self.packages, self.asked, self.kept = set(packages), [], []
        self.driver, self.cards, self.said = driver, list(cards), dict(pip)
        self.fields = fields or ("driver_version", "compute_cap")
        monkeypatch.setattr("importlib.util.find_spec", self.find)
        monkeypatch.setattr("shutil.which", lambda name: name if driver else None)
        monkeypatch.setattr("subprocess.run", self.run)
        monkeypatch.setattr(
            "importlib.metadata.distributions",
            lambda: [
                SimpleNamespace(metadata={"Name": name}, version=version)
                for name, version in [*KEEP.items(), ("odd name", "1"), ("local", "unknown")]
            ],
        )
        monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(2)), raising=False)
        for name in ("DLCORE_SIZE", "DLCORE_BACKEND", "CPU_LIMIT", *PLACES.values()):
            monkeypatch.setenv(name, "")  # so that what the cell sets is taken back
            monkeypatch.delenv(name)

    def find(self, name):
        return name if name in self.packages else None

    def run(self, command, **options):
        assert options["capture_output"]
        answer = self.smi if command[0] == "nvidia-smi" else self.pip
        code, out, err = answer(command)
        return subprocess.CompletedProcess(command, code, out, err)

    def smi(self, command):
        field = command[1].removeprefix("--query-gpu=")
        if self.driver == "broken":
            return 9, "NVIDIA-SMI has failed because it couldn't communicate with the driver.\n", ""
        if field not in self.fields:
            return 2, f'Field "{field}" is not a valid field to query.\n', ""
        told = {"compute_cap": [CARDS.get(c, c) for c in self.cards]}
        return 0, "".join(f"{x}\n" for x in told.get(field, [self.driver] * len(self.cards))), ""

    def pip(self, command):
        assert command[:4] == [sys.executable, "-m", "pip", "install"]
        assert "--quiet" not in command  # then pip would not say which packages conflict
        self.kept = Path(command[command.index("--constraint") + 1]).read_text().split()
        self.asked.append(command[-1])
        name = "cupy" if "cupy" in command[-1] else "dlcore"
        if name in self.said:
            return 1, "", self.said[name]
        self.packages.add(name)
        return 0, "", ""


PLACES = {
    "Colab": "COLAB_RELEASE_TAG", "Kaggle": "KAGGLE_KERNEL_RUN_TYPE", "Binder": "BINDER_SERVICE_HOST",
}  # fmt: skip


@pytest.fixture
def press(cell, monkeypatch, capsys):
    """Run the first cell on a machine; return the machine and what was printed or raised."""

    def run(place="", backend="numpy", size="", env=(), **machine):
        there = Machine(monkeypatch, **machine)
        if place:
            monkeypatch.setenv(PLACES[place], "1")
        for name, value in dict(env).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("dlcore.backend.get_backend", answering(backend))
        names = {"__name__": "__main__"}
        try:
            exec(
                compile(cell.source.replace('SIZE = ""', f'SIZE = "{size}"'), "cell", "exec"), names
            )
        except Exception as error:
            return there, "".join(error._render_traceback_())
        return there, capsys.readouterr().out

    return run


def answering(backend):
    """Stands for dlcore's choice: a name, or what it warns of before it takes NumPy."""

    def get_backend():
        if backend not in ("numpy", "cupy"):
            warnings.warn(f"dlcore runs on NumPy: {backend}", RuntimeWarning, stacklevel=2)
            return SimpleNamespace(name="numpy")
        return SimpleNamespace(name=backend)

    return get_backend


def test_the_cell_is_plain_python_and_folded(cell):
    """Old IPython on new Python cannot read `name = !command`: then the whole cell fails."""
    tree = ast.parse(cell.source)
    assert not re.search(r"(?m)^\s*[%!]|= *!", cell.source)
    imports = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert {name.partition(".")[0] for name in imports} <= sys.stdlib_module_names | {"dlcore"}
    assert cell.metadata["cellView"] == "form"
    assert cell.metadata["jupyter"]["source_hidden"]
    assert all(len(line) <= 110 for line in cell.source.splitlines())


def test_nothing_is_installed_where_dlcore_is(press):
    there, text = press(packages={"dlcore"})
    assert there.asked == []
    assert os.environ["DLCORE_SIZE"] == "full"
    assert text.startswith("dlcore 0.1.0, this machine: NumPy computes (there is no GPU here, and")


def test_dlcore_comes_from_the_repository_and_everything_else_stays(press):
    there, _ = press("Colab")
    assert there.asked == [WHERE]
    assert there.kept == ["numpy==2.1.3", "pooch==1.9.0"]


@pytest.mark.parametrize("place", PLACES)
def test_the_size_is_quick_where_others_lend_the_processor(press, place):
    _, text = press(place)
    assert os.environ["DLCORE_SIZE"] == "quick"
    assert f"{place}: NumPy computes" in text
    assert "cores: 2" in text
    assert 'Size "quick"' in text
    assert 'SIZE = "full"' in text


def test_a_choice_of_size_is_kept(press):
    press("Colab", size="full")
    assert os.environ["DLCORE_SIZE"] == "full"
    press("Colab", env={"DLCORE_SIZE": "full"})
    assert os.environ["DLCORE_SIZE"] == "full"
    press(env={"DLCORE_SIZE": "full"}, size="quick")
    assert os.environ["DLCORE_SIZE"] == "quick"


def test_one_core_takes_twice_as_long_and_says_so(press):
    _, text = press("Binder", size="full", env={"CPU_LIMIT": "1.0"})
    assert "cores: 1" in text
    assert "twice as long" in text
    _, text = press("Binder", size="full", env={"CPU_LIMIT": "0"})
    assert "cores: 2" in text


@pytest.mark.parametrize(
    ("driver", "cards", "kind"),
    [
        ("525.105.17", ["Tesla T4"], "cuda12x"),
        ("550.54.15", ["H200"], "cuda12x"),
        ("580.82.07", ["Tesla T4"], "cuda13x"),
        ("580.95.05", ["Tesla P100-PCIE-16GB"], "cuda12x"),
        ("580.95.05", ["Tesla V100"], "cuda12x"),
        ("610.43.02", ["Tesla T4", "Tesla T4"], "cuda13x"),
        ("610.43.02", ["H200", "Tesla V100"], "cuda12x"),
        ("615.10", ["12.1"], "cuda13x"),
    ],
)
def test_a_gpu_without_cupy_gets_the_right_one(press, driver, cards, kind):
    there, text = press("Kaggle", "cupy", packages={"dlcore"}, driver=driver, cards=cards)
    assert there.asked == [f"cupy-{kind}[ctk]>=14"]
    assert there.kept == ["numpy==2.1.3", "pooch==1.9.0"]
    assert "CuPy computes (on the GPU)" in text


def test_a_driver_that_has_only_the_new_name_is_asked_by_it(press):
    fields = ("kmd_version", "compute_cap")
    there, _ = press("Colab", "cupy", driver="620.1", cards=["H200"], fields=fields)
    assert there.asked == [WHERE, "cupy-cuda13x[ctk]>=14"]


def test_a_cupy_that_is_there_is_left_as_it_is(press):
    packages = {"dlcore", "cupy"}
    there, text = press("Colab", "cupy", packages=packages, driver="580.1", cards=["Tesla T4"])
    assert there.asked == []
    assert "CuPy computes" in text


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        ({}, "there is no GPU here"),
        ({"driver": "broken"}, "there is no GPU that answers"),
        ({"driver": "580.1"}, "there is no GPU that answers"),
        ({"driver": "[N/A]", "cards": ["Tesla T4"]}, "there is no GPU that answers"),
        ({"driver": "470.82.01", "cards": ["Tesla T4"]}, "driver, 470, is older than 525"),
        ({"driver": "470.1", "cards": ["1"], "fields": ("driver_version",)}, "470, is older"),
        ({"driver": "580.1", "cards": ["1"], "fields": ("driver_version",)}, "not tell its kind"),
        ({"driver": "535.104.05", "cards": ["3.7"]}, "kind, 3.7, is older than 5.0"),
    ],
)
def test_without_a_gpu_that_fits_numpy_computes_and_one_sentence_says_why(press, machine, sentence):
    there, text = press("Kaggle", packages={"dlcore"}, **machine)
    assert there.asked == []
    assert text.count(sentence) == 1
    assert "NumPy computes" in text
    assert os.environ["DLCORE_SIZE"] == "quick"


def test_a_gpu_that_fails_its_trial_is_told_in_one_sentence(press):
    machine = {"packages": {"dlcore", "cupy"}, "driver": "580.1", "cards": ["Tesla T4"]}
    old = "backend 'cupy': expected CuPy >= 14, got 13.6.0; install dlcore[cuda12]"
    _, text = press("Kaggle", old, **machine)
    assert "NumPy computes (backend 'cupy': expected CuPy >= 14, got 13.6.0" in text
    _, text = press("Kaggle", "numpy", **machine)
    assert "NumPy computes (for CuPy sees no GPU)" in text


GIT = (
    "  error: subprocess-exited-with-error\n\n  × git clone --filter=blob:none https://github.com/a/b "
    "did not run successfully.\n  fatal: unable to access 'https://github.com/a/b/': {}\n"
)
OFFLINE = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"HTTPSConnection"
    "(host='pypi.org', port=443): Failed to establish a new connection: [Errno -3] Temporary failure in "
    "name resolution\")': /simple/hatchling/\nERROR: Could not find a version that satisfies the "
    "requirement hatchling>=1.27\nERROR: No matching distribution found for hatchling>=1.27\n"
)
NONE = (
    "ERROR: Could not find a version that satisfies the requirement matplotlib>=3.8.4 (from dlcore) "
    "(from versions: none)\nERROR: No matching distribution found for matplotlib>=3.8.4 (from dlcore)\n"
)
CONFLICT = (
    "ERROR: Cannot install dlcore==0.1.0 because these package versions have conflicting dependencies.\n"
    "The conflict is caused by:\n    dlcore 0.1.0 depends on numpy>=2.0\n    The user requested "
    "(constraint) numpy==1.26.4\nERROR: ResolutionImpossible: for help visit https://pip.pypa.io\n"
)


@pytest.mark.parametrize(
    ("place", "said", "sentence"),
    [
        ("Kaggle", GIT.format("Could not resolve host: github.com"), "Kaggle's internet is off"),
        ("Kaggle", OFFLINE, "Kaggle's internet is off"),
        ("Kaggle", NONE, "Kaggle's internet is off"),
        ("Colab", GIT.format("Could not resolve host: github.com"), "no way to the internet"),
        ("", "ConnectTimeoutError(... timed out. (connect timeout=15))", "no way to the internet"),
        ("", GIT.format("Failed to connect to 10.0.0.1 port 3128: Connection refused"), "no way to"),
        ("", "/usr/bin/python3: No module named pip", "This Python has no pip"),
        ("", "ERROR: Error [Errno 2] while executing command git version\n"
         "ERROR: Cannot find command 'git' - do you have 'git' installed?", "git is missing"),
        ("", "error: externally-managed-environment\n\n× This environment is externally managed",
         "belongs to the system"),
        ("", CONFLICT, "does not fit dlcore (numpy>=2.0, numpy==1.26.4)"),
        ("", "ERROR: Package 'dlcore' requires a different Python: 3.10.13 not in '>=3.11'",
         "dlcore needs Python 3.11 or newer"),
        ("", "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
         "The disk is full"),
        ("", "ERROR: Could not install packages: [Errno 13] Permission denied: '/usr/lib/x'",
         "may not be written to"),
        ("Colab", "remote: Repository not found.\nfatal: repository not found", "was not found at"),
        ("Colab", "fatal: could not read Username for 'https://github.com': terminal prompts disabled",
         "was not found at"),
        ("Colab", "WARNING: x\nERROR: something quite new\n", "pip could not install it: something"),
        ("Colab", "", "pip could not install it: it ended with 1"),
    ],
)  # fmt: skip
def test_a_pip_that_fails_gives_one_sentence_and_stops(press, place, said, sentence):
    there, text = press(place, pip={"dlcore": said})
    assert there.asked == [WHERE]
    assert text.startswith("dlcore is not installed. ")
    assert sentence in text
    assert "\n" not in text
    assert text.count(". ") <= 2
    assert "DLCORE_SIZE" not in os.environ


def test_a_cupy_that_cannot_be_installed_leaves_numpy(press):
    machine = {"driver": "580.1", "cards": ["Tesla T4"], "pip": {"cupy": OFFLINE}}
    _, text = press("Kaggle", "numpy", packages={"dlcore"}, **machine)
    assert "NumPy computes (for the GPU's CuPy is not installed: Kaggle's internet is off" in text


def test_a_python_that_is_too_old_is_told_before_anything_is_fetched(press, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    there, text = press()
    assert there.asked == []
    assert "dlcore needs Python 3.11 or newer, and this is 3.10." in text


def test_what_pip_puts_into_the_users_own_folder_is_found(press, monkeypatch):
    added = []
    monkeypatch.setattr("site.addsitedir", lambda folder: added.append(folder))
    monkeypatch.setattr(Machine, "find", lambda self, name: name if added else None)
    there, text = press()
    assert there.asked == [WHERE]
    assert len(added) == 1
    assert "NumPy computes" in text


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
        assert "minutes" in "".join(first["source"]).splitlines()[-1]
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
