"""Set-up: which environments are made, kept, made anew or refused; whether the locks are complete."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "tools" / "environment.py"


@pytest.fixture
def environment():
    """The script, as a module of its own."""
    spec = importlib.util.spec_from_file_location("environment_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ensure(environment, tmp_path, monkeypatch):
    """Make environments in a folder with a space, with what is installed only written down."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    filled = []
    for name, kind in environment.KINDS.items():
        monkeypatch.setattr(kind, "fill", lambda where, name=name: filled.append(name))

    def ensure(kind="book", name=".venv", asked=False):
        filled.clear()
        code = environment.main([kind, name, *(["--asked"] if asked else [])])
        return code, list(filled)

    return ensure


@pytest.fixture
def quick_venv(environment, monkeypatch):
    """Environments without pip's installation, which takes seconds: a stand-in for it."""

    def run(command, environ):
        assert "-m" in command
        folder = Path(command[-1])
        subprocess.run([*command[:-1], "--without-pip", folder], check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        package = folder / "lib" / version / "site-packages" / "pip"
        package.mkdir()
        (package / "__init__.py").touch()

    monkeypatch.setattr(environment, "run", run)


def venv(folder, *packages):
    """A reader's own environment, with packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for package in packages:
        (Path(folder) / "lib" / version / "site-packages" / package).mkdir()


def change_record(environment, **changes):
    path = Path(".venv") / environment.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.usefixtures("quick_venv")
def test_made_once_and_then_left_alone(ensure, capsys):
    assert ensure() == (0, ["book"])
    assert "Making the virtual environment .venv" in capsys.readouterr().out
    assert ensure() == (0, [])
    assert ensure(asked=True) == (0, [])
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("quick_venv")
def test_the_tests_come_on_top_of_the_book_and_stay(ensure):
    ensure()
    mark = Path(".venv/mark")
    mark.touch()
    assert ensure("test") == (0, ["test"])
    assert ensure("book") == (0, [])
    assert ensure("test") == (0, [])
    assert mark.exists()


@pytest.mark.usefixtures("quick_venv")
def test_a_changed_lock_is_installed_into_the_same_environment(environment, ensure, monkeypatch):
    ensure("test")
    digest = environment.digest
    monkeypatch.setattr(environment, "digest", lambda kind: digest(kind) + "!")
    Path(".venv/mark").touch()
    assert ensure("book") == (0, ["test"])  # not the book's lock: the tests' packages are there
    assert ensure("test") == (0, [])
    assert Path(".venv/mark").exists()


@pytest.mark.usefixtures("quick_venv")
def test_where_installing_fails_the_old_state_stays(environment, ensure, monkeypatch, capsys):
    ensure("book")
    before = Path(".venv", environment.RECORD).read_text()

    def fail(folder):
        raise subprocess.CalledProcessError(2, "uv")

    with monkeypatch.context() as patch:
        patch.setattr(environment.KINDS["test"], "fill", fail)
        assert ensure("test")[0] == 1
    assert "could not be set up" in capsys.readouterr().err
    assert Path(".venv", environment.RECORD).read_text() == before
    assert ensure("book") == (0, [])
    assert ensure("test") == (0, ["test"])


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize("moment", ["create", "fill"])
def test_an_interrupted_one_is_made_anew(environment, ensure, monkeypatch, capsys, moment):
    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "create":
            patch.setattr(environment, "run", stop)
        else:
            patch.setattr(environment.KINDS["book"], "fill", stop)
        assert ensure()[0] == 130
    Path(".venv/rest").touch()
    assert ensure() == (0, ["book"])
    assert ".venv was left half-made: it is made anew." in capsys.readouterr().out
    assert not Path(".venv/rest").exists()
    assert ensure() == (0, [])


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"python": ["3.10", "/usr"]}, "a Python that no longer runs (3.10, from /usr)"),
        ({"folder": "/elsewhere/.venv"}, "made in another place (/elsewhere/.venv)"),
        ({"book": "/elsewhere"}, "belongs to another copy of the book (/elsewhere)"),
        ({"finished": None}, "left half-made"),
        ({"python": None, "finished": {}}, "left half-made"),
    ],
)
def test_what_no_longer_fits_is_made_anew(environment, ensure, capsys, changes, words):
    ensure()
    change_record(environment, **changes)
    assert ensure() == (0, ["book"])
    assert words in capsys.readouterr().out
    assert ensure() == (0, [])


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0\0"])
def test_a_damaged_record_counts_as_half_made(environment, ensure, capsys, text):
    ensure()
    Path(".venv", environment.RECORD).write_text(text)
    assert ensure() == (0, ["book"])
    assert "half-made" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_venv")
def test_another_python_counts_only_where_it_was_asked_for(
    environment, ensure, monkeypatch, capsys
):
    ensure()
    monkeypatch.setattr(environment, "this_python", lambda: ["3.99", "/opt/new"])
    assert ensure() == (0, [])
    assert capsys.readouterr().out.count("anew") == 0
    ensure(asked=True)
    assert "has another Python (3." in capsys.readouterr().out


@pytest.mark.usefixtures("quick_venv")
def test_a_moved_and_a_copied_one_are_made_anew(environment, ensure, monkeypatch, capsys):
    ensure()
    here = Path.cwd()
    shutil.copytree(here, here.with_name("copy"), symlinks=True)
    monkeypatch.chdir(here.with_name("copy"))
    assert ensure() == (0, ["book"])
    assert f"made in another place ({here}/.venv)" in capsys.readouterr().out
    monkeypatch.chdir(here)
    assert ensure() == (0, [])  # the original is as it was
    monkeypatch.chdir(here.parent)
    here.rename(here.with_name("moved"))
    monkeypatch.chdir(here.with_name("moved"))
    assert ensure() == (0, ["book"])


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize("lost", ["bin/python", "lib", "pyvenv.cfg"])
def test_a_broken_one_is_made_anew(ensure, capsys, lost):
    ensure()
    path = Path(".venv", lost)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert ensure() == (0, ["book"])
    assert "made anew" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize("stamp", [".book", ".test"])
def test_one_from_an_earlier_edition_is_made_anew(ensure, capsys, stamp):
    venv(".venv", "numpy")
    Path(".venv", stamp).touch()
    assert ensure() == (0, ["book"])
    assert "comes from an earlier edition: it is made anew" in capsys.readouterr().out


@pytest.mark.usefixtures("quick_venv")
@pytest.mark.parametrize("packages", [(), ("pip", "pip-23.0.1.dist-info", "setuptools")])
def test_a_readers_own_is_taken_where_nothing_is_in_it(ensure, capsys, packages):
    venv(".venv", *packages)
    assert ensure() == (0, ["book"])
    assert "has nothing in it but pip: it is made anew" in capsys.readouterr().out


@pytest.mark.parametrize("packages", [("numpy",), ("pip", "pip_tools"), ("setuptools_scm",)])
def test_a_readers_own_with_packages_is_left_alone(ensure, capsys, packages):
    venv(".venv", *packages)
    before = sorted(Path(".venv").rglob("*"))
    assert ensure() == (1, [])
    message = capsys.readouterr().err
    assert message.startswith(".venv was not made by this Makefile")
    assert message.count("\n") == 1
    assert sorted(Path(".venv").rglob("*")) == before


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "lib"])
def test_a_folder_of_something_else_is_left_alone(environment, ensure, capsys, name):
    Path(".venv").mkdir()
    Path(".venv", name).write_text("mine")
    assert ensure() == (1, [])
    assert "move it away, or choose another place" in capsys.readouterr().err
    assert environment.main(["remove", ".venv"]) == 1
    assert Path(".venv", name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_what_is_no_folder_is_left_alone(ensure, capsys, kind):
    if kind == "file":
        Path(".venv").write_text("mine")
    else:
        Path(".venv").symlink_to("nowhere")
    assert ensure() == (1, [])
    assert ".venv is not a folder" in capsys.readouterr().err
    assert os.path.lexists(".venv")


@pytest.mark.usefixtures("quick_venv")
def test_removing_takes_only_what_was_made_here(environment, ensure):
    ensure()
    Path("other").mkdir()
    Path("other/mine").touch()
    assert environment.main(["remove", ".venv", ".venv-none", "other"]) == 1
    assert not Path(".venv").exists()
    assert Path("other/mine").exists()


def test_python_without_venv_is_told_what_to_install(ensure, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert ensure() == (1, [])
    assert "sudo apt install python3-venv" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10"])
def test_an_old_python_gets_one_sentence(version):
    """Where such a Python is installed it runs the script; everywhere the grammar of 3.7 is asked for."""
    import ast

    ast.parse(SCRIPT.read_text("utf-8"), feature_version=(3, 7))
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"python{version} is not installed")
    done = subprocess.run([python, SCRIPT, "book", ".venv"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Python 3.11 or newer is needed, and this is Python {version}.")
    assert done.stderr.count("\n") == 1


# --------------------------------------------------------------------------------------------------
# What pip and uv are told


def test_settings_that_lead_elsewhere_are_dropped(environment, monkeypatch):
    for name in environment.MISLEADING:
        monkeypatch.setenv(name, "/elsewhere")
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_CONSTRAINT", "kept")
    cleaned = environment.clean_environ()
    assert not set(environment.MISLEADING) & set(cleaned)
    assert cleaned["PIP_USER"] == "0"
    assert cleaned["PIP_CONSTRAINT"] == "kept"


def test_uv_takes_pips_way_to_the_packages_unless_it_has_its_own(
    environment, monkeypatch, tmp_path
):
    listing = "global.index-url='https://mirror.example/simple'\\nglobal.timeout='60'\\n"
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "{listing}"\n')
    program.chmod(0o755)
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    found = environment.uv_environ(tmp_path)
    assert found["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://own.example/simple")
    found = environment.uv_environ(tmp_path)
    assert found["UV_DEFAULT_INDEX"] == "https://own.example/simple"


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ("", {}),
        ("nonsense\n=\nglobal.\n", {}),
        ("global.index-url='a'\ninstall.index-url='b'", {"index-url": "b"}),
        (":env:.cert='/my file'\nglobal.cert='b'", {"cert": "/my file"}),
        ("global.index-url='https://u:p=x@h/s'", {"index-url": "https://u:p=x@h/s"}),
        ("global.proxy='a\nglobal.cert='b'", {"cert": "b"}),
        ("user.index-url='a'\ndownload.index-url='b'", {}),
    ],
)
def test_pips_settings_are_read(environment, listing, expected):
    assert environment.pip_settings(listing) == expected


def test_where_uv_fails_pip_does_it(environment, monkeypatch, tmp_path, capsys):
    calls = []

    def fails(folder, *arguments):
        raise subprocess.CalledProcessError(2, "uv")

    monkeypatch.setattr(environment, "pip", lambda folder, *arguments: calls.append(arguments))
    monkeypatch.setattr(environment, "uv", fails)
    environment.fill_test(tmp_path)
    assert ("--require-hashes", "-r", "requirements.txt") in calls
    assert "--editable" in calls[-1]
    assert "Trying pip alone" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------
# The locks hold everything that is asked for


def locked(name):
    """{(package, extras): version} of a lock for the Python and the platform that run this."""
    found = {}
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if line[:1].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                found[canonicalize_name(requirement.name)] = requirement
    return found


def asked_for(lock, extras):
    """Yield who asks, for what, with which extras: pyproject.toml and each installed package of a lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    own = project["project"]["dependencies"] + project["dependency-groups"]["build"]
    for extra in extras:
        own += project["project"]["optional-dependencies"][extra]
    for text in own if extras else ():
        yield "pyproject.toml", Requirement(text), ("",)
    for name, pinned in lock.items():
        try:
            requires = importlib.metadata.distribution(name).requires
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requires or ():
            yield name, Requirement(text), ("", *pinned.extras)


def missing(lock, extras):
    """What is asked for and the lock does not name, extras included."""
    found = []
    for who, asked, given in asked_for(lock, extras):
        contexts = [default_environment() | {"extra": extra} for extra in given]
        if asked.marker is not None and not any(map(asked.marker.evaluate, contexts)):
            continue
        held = lock.get(canonicalize_name(asked.name))
        if held is None:
            found.append(f"{who} asks for {asked}")
            continue
        version = str(held.specifier).removeprefix("==")
        if not asked.specifier.contains(version, prereleases=True):
            found.append(f"{who} asks for {asked}, pinned is {held}")
        if not asked.extras <= held.extras:
            found.append(f"{who} asks for {asked}, pinned is {held} without the extra")
    return found


EXTRAS = {
    "requirements.txt": ["book", "test", "dev"],
    "requirements-book.txt": ["book"],
    "requirements-uv.txt": [],
}


@pytest.mark.parametrize("name", EXTRAS)
def test_the_lock_holds_all_that_is_asked_for(name):
    assert missing(locked(name), EXTRAS[name]) == []


@pytest.mark.parametrize(
    "name", ["coverage", "dask", "distributed", "iniconfig", "sortedcontainers"]
)
def test_a_hole_in_the_lock_would_be_found(name):
    lock = locked("requirements.txt")
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    extras = EXTRAS["requirements.txt"]
    assert missing({key: value for key, value in lock.items() if key != name}, extras)
    if lock[name].extras:
        without = Requirement(f"{lock[name].name}{lock[name].specifier}")
        assert missing({**lock, name: without}, extras)


def test_uv_is_the_same_release_in_its_own_lock_as_in_the_large_one():
    (uv,) = locked("requirements-uv.txt").values()
    assert uv.name == "uv"
    assert str(uv) == str(locked("requirements.txt")["uv"])


# --------------------------------------------------------------------------------------------------
# Real ones: they take seconds, and the network or the caches of pip and uv


@pytest.mark.slow
def test_a_real_environment_in_a_copied_tree_tests_the_copy(tmp_path):
    """Make one in a folder with a space, copy the tree, and see which dlcore the copy's kernel imports."""
    first = tmp_path / "first copy"
    ignored = shutil.ignore_patterns(
        ".venv*", "_build", ".git", "chapters", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, first, ignore=ignored)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def make(folder, *arguments):
        command = [sys.executable, "tools/environment.py", "book", ".venv", *arguments]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
        if "could not be set up" in done.stderr:
            pytest.skip("no network, and not in the caches")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dlcore_of(folder):
        code = "import dlcore; print(dlcore.__file__)"
        command = [folder / ".venv/bin/python", "-c", code]
        return subprocess.check_output(command, cwd="/", env=environ, text=True).strip()

    make(first)
    assert make(first) == ""
    second = tmp_path / "second"
    shutil.copytree(first, second, symlinks=True)
    assert dlcore_of(second) == str(first / "dlcore/__init__.py")  # what a copy does by itself
    assert "was made in another place" in make(second)
    assert dlcore_of(second) == str(second / "dlcore/__init__.py")
    assert dlcore_of(first) == str(first / "dlcore/__init__.py")
    # uv alone, in a cache that has everything: a second run asks for nothing.
    environ["UV_OFFLINE"] = environ["PIP_NO_INDEX"] = "1"
    assert make(second) == ""


@pytest.mark.slow
def test_the_source_distributions_tests_can_be_collected(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    # Not only collected: those that need files of the tree find them.
    some = [
        "tests/test_docs.py",
        "tests/test_calls.py",
        "tests/test_ledger.py",
        "tests/test_launch.py",
    ]
    done = subprocess.run(
        [*command[:3], "-q", "-p", "no:cacheprovider", *some],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
