"""The package sets of Colab, Kaggle and Binder, and launched chapters that run in them.

``tests/places/`` holds one list a place: what dlcore, the chapters and the kernel need, in the versions
that the place has published. ``python -m book.places run`` builds each, installs dlcore from a wheel by the
first cell of a launched notebook, and runs chapters at size quick with exactly that kernel in an empty
folder. ``compare`` asks whether the places publish other versions by now, ``write`` makes a list anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.version import InvalidVersion, Version

from book import launch

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "tests/places"
NEWEST = "colab"
# What the kernel of each place is started with: the first cell knows by it where it runs.
MARKS = {
    "colab": {"COLAB_RELEASE_TAG": "test"},
    "kaggle": {"COLAB_RELEASE_TAG": "test", "KAGGLE_KERNEL_RUN_TYPE": "Interactive"},
    "binder": {"BINDER_SERVICE_HOST": "test"},
}
# Beside what dlcore asks for: the kernel, and what pandas and xarray use where it is installed.
KERNEL = ("ipykernel", "ipython", "pip", "bottleneck", "numexpr")
PIN = re.compile(r"(?m)^([\w.-]+)==(\S+)")
CONDA = re.compile(r"/([\w.-]+?)-(\d[^-/]*)-[^-/]+\.(?:conda|tar\.bz2)")


@dataclass(frozen=True)
class Place:
    """One list: its name, Python, where its versions are published, and the versions.

    ``witness`` is the address of a page and what stands there while the list is in use; "" for none.
    """

    name: str
    python: str
    published: str
    packages: dict[str, str]
    witness: tuple[str, str] = ("", "")

    @property
    def kind(self) -> str:
        """The place without the date of its runtime."""
        return self.name.partition("-")[0]


def normal(name: str) -> str:
    """Return a package's name as pip compares it.

    >>> normal("Jupyter_Client")
    'jupyter-client'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Return ``name -> version`` of a list, be it pip's or conda's.

    >>> pins("# a list\\nNumPy==2.1.3\\nlocal @ file:///x\\n")
    {'numpy': '2.1.3'}
    >>> pins("https://host/noarch/jupyter_client-8.6.3-pyhd8ed1ab_1.conda#0123")
    {'jupyter-client': '8.6.3'}
    """
    found = CONDA.findall(text) or PIN.findall(text)
    return {normal(name): version for name, version in found}


def read(path: Path) -> Place:
    """Return the list in a file."""
    text = path.read_text("utf-8")
    settings = dict(re.findall(r"(?m)^# (python|published): (\S+)$", text))
    witness = re.findall(r"(?m)^# in use while (\S+) has: (.+)$", text)
    return Place(
        path.stem,
        settings["python"],
        settings["published"],
        pins(text),
        witness[0] if witness else ("", ""),
    )


def places() -> list[Place]:
    """Return all lists, the newest of Colab first."""
    found = [read(path) for path in sorted(LISTS.glob("*.txt"))]
    return sorted(found, key=lambda place: place.name != NEWEST)


# --------------------------------------------------------------------------------------------------
# What the places publish


def fetch(address: str) -> str:
    """Return a published file's text."""
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()


def differences(place: Place, published: str) -> list[str]:
    """Say where a list differs from what its place publishes now; what is not published is no difference."""
    now = pins(published)
    return [
        f"{place.name}: {name} {version} is listed, {now[name]} is published"
        for name, version in place.packages.items()
        if now.get(name, version) != version
    ]


def compare() -> list[str]:
    """Say where the lists differ from what is published."""
    found = []
    for place in places():
        try:
            found += differences(place, fetch(place.published))
            page, words = place.witness
            if page and words not in fetch(page):
                found.append(f"{place.name}: no longer in use, for {page} does not have {words!r}")
        except urllib.error.URLError as error:
            found.append(f"{place.name}: what it publishes cannot be read ({error})")
    return found


def resolve(python: str, published: str) -> dict[str, str]:
    """Return what dlcore and the kernel need, in published versions.

    What a list of pip's does not name is not there; conda's lists name the kernel only, and the rest is
    the newest.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    known = pins(published)
    optional = {"bottleneck", "numexpr"}
    wanted = [name for name in KERNEL if name in known or name not in optional]
    with tempfile.TemporaryDirectory() as folder:
        asked, fixed = Path(folder, "asked.in"), Path(folder, "fixed.txt")
        asked.write_text("\n".join([*project["dependencies"], *wanted]) + "\n", "utf-8")
        lines = [
            f"{name}=={version}\n" for name, version in known.items() if _is_pip(name, version)
        ]
        fixed.write_text("".join(lines), "utf-8")
        command = ["pip", "compile", "--quiet", "--no-annotate", "--no-header", "--python-version"]
        command += [python, "--constraint", str(fixed), str(asked)]
        done = subprocess.run([uv(), *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = pins(done.stdout)
    whole = not CONDA.search(published)
    return {name: version for name, version in found.items() if name in known or not whole}


def _is_pip(name: str, version: str) -> bool:
    """Whether pip could read a line: conda has others, of libraries in C."""
    try:
        return bool(Version(version)) and name[0].isalnum()
    except InvalidVersion:
        return False


def write(path: Path, published: str | None = None) -> None:
    """Write a list anew from what is published; the comments at its top stay."""
    place = read(path)
    text = published or fetch(place.published)
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    lines = [f"{name}=={version}" for name, version in resolve(place.python, text).items()]
    path.write_text("\n".join([*comments, *lines]) + "\n", "utf-8")


# --------------------------------------------------------------------------------------------------
# Running in them


def uv() -> str:
    """Return the command uv of this environment, else the one that is found."""
    own = Path(sys.executable).with_name("uv")
    return str(own) if own.exists() else shutil.which("uv") or "uv"


def find_python(version: str) -> str | None:
    """Return a Python of this version (such as 3.12), None where there is none."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin"))
    named = [shutil.which(f"python{version}"), *(str(folder / "python") for folder in folders)]
    for command in filter(None, [sys.executable, *named]):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([command, "-c", code], capture_output=True, text=True)
        if done.stdout.strip() == version:
            return command
    return None


def versions(python: Path) -> dict[str, str]:
    """Return what is installed beside a Python."""
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return {normal(name): version for name, version in json.loads(done.stdout).items()}


def wheel(folder: Path) -> str:
    """Build dlcore's wheel from this tree; return its address for pip."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl")).as_uri()


def build(place: Place, python: str, folder: Path) -> Path:
    """Make an environment with a place's packages and no others; return its Python."""
    subprocess.run([uv(), "venv", "--quiet", "--python", python, str(folder)], check=True)
    made = folder / "bin/python"
    listed = LISTS / f"{place.name}.txt"
    command = ["pip", "install", "--quiet", "--no-deps", "--python", str(made), "-r", str(listed)]
    subprocess.run([uv(), *command], check=True)
    return made


@contextlib.contextmanager
def kernel(python: Path, folder: Path) -> Iterator[str]:
    """Offer the kernel of an environment by a name, while the block lasts."""
    about = folder / "kernels/place/kernel.json"
    about.parent.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about.write_text(json.dumps({"argv": argv, "display_name": "place", "language": "python"}))
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(folder)
    try:
        yield about.parent.name
    finally:
        os.environ.pop("JUPYTER_PATH")
        if before is not None:
            os.environ["JUPYTER_PATH"] = before


def environment(place: Place, python: Path) -> dict[str, str]:
    """Return what the place's kernel finds in its environment: nothing of ours that dlcore reads."""
    own = ("PYTHONPATH", "VIRTUAL_ENV", "MPLBACKEND", "CPU_LIMIT")
    kept = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("DLCORE_")}
    path = f"{python.parent}{os.pathsep}{kept.get('PATH', '')}"
    quiet = {"TQDM_DISABLE": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    return kept | MARKS[place.kind] | quiet | {"PATH": path}


def run_notebook(nb, name: str, folder: Path, env: dict[str, str]) -> None:
    """Run a notebook in an empty folder by the kernel of that name."""
    folder.mkdir()
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(nb, timeout=900, kernel_name=name, resources=resources).execute(env=env)


def first_output(nb) -> str:
    """Return what the first cell printed or raised."""
    cell = next(cell for cell in nb.cells if cell.get("id") == launch.CELL_ID)
    texts = [o.get("text") or "\n".join(o.get("traceback", [])) for o in cell.outputs]
    return "".join(texts)


def try_place(place: Place, source: str, chapters: list[Path], folder: Path) -> list[str]:
    """Run chapters in a place; return what is wrong."""
    python = find_python(place.python)
    if python is None:
        print(f"{place.name}: no Python {place.python} here, left out", flush=True)
        return []
    made = build(place, python, folder / "venv")
    before, env = versions(made), environment(place, made)
    with kernel(made, folder / "jupyter") as name:
        found = _try_failure(place, name, folder / "failure", env)
        for path in chapters:
            found += _try_chapter(place, path, source, name, folder / path.stem, env)
    after = versions(made)
    changed = {k: (before.get(k), v) for k, v in after.items() if before.get(k) != v}
    if set(changed) != {"dlcore"} or set(before) - set(after):
        found.append(f"{place.name}: the first cell changed packages: {changed}")
    return found


def _try_chapter(place, path, source, name, folder, env) -> list[str]:
    """Run one chapter, as it is launched."""
    nb = launch.launched(nbformat.read(path, as_version=4), path.stem, source)
    start = time.perf_counter()
    try:
        run_notebook(nb, name, folder, env)
    except CellExecutionError as error:
        return [f"{place.name}, {path.name}: {error}"]
    seconds = time.perf_counter() - start
    print(f"{place.name}, {path.name}: {seconds:.0f} s. {first_output(nb)}", flush=True)
    wrong = [o for c in nb.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    found = [f"{place.name}, {path.name}: printed on stderr: {o.text[:300]}" for o in wrong]
    if 'Size "quick"' not in first_output(nb):
        found.append(f"{place.name}, {path.name}: the first cell said {first_output(nb)!r}")
    return found


def _try_failure(place, name, folder, env) -> list[str]:
    """Let the first cell fail: the notebook must stop with one sentence."""
    nb = launch.with_install(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), "/no.whl"
    )
    try:
        run_notebook(nb, name, folder, env)
    except CellExecutionError:
        said = first_output(nb)
        if said.startswith("dlcore is not installed. ") and "\n" not in said.strip():
            return []
        return [f"{place.name}: a first cell that fails says {said!r}"]
    return [f"{place.name}: a first cell that fails does not stop the notebook"]


def run(names: list[str], every: bool) -> int:
    """Run chapters in the named places; return the number of things that are wrong."""
    chapters = sorted((ROOT / "chapters").glob("*.ipynb"))
    known = {place.name: place for place in places()}
    found = []
    for name in names or known:
        all_of_them = every or (not names and name == NEWEST)
        with tempfile.TemporaryDirectory() as folder:
            source = wheel(Path(folder))
            chosen = chapters if all_of_them else chapters[:1]
            found += try_place(known[name], source, chosen, Path(folder))
    print(*found, sep="\n", end="\n" if found else "")
    return len(found)


def main(arguments: list[str] | None = None) -> int:
    """Command line; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m book.places", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run chapters in places: all, or the named ones")
    running.add_argument("names", nargs="*", help="such as colab; by default all places")
    running.add_argument("--every", action="store_true", help="every chapter in each of them")
    commands.add_parser("compare", help="compare the lists with what is published")
    writing = commands.add_parser("write", help="write a list anew")
    writing.add_argument("file", type=Path)
    writing.add_argument("--from", dest="source", type=Path, help="a copy of what is published")
    options = parser.parse_args(arguments)
    if options.command == "run":
        return bool(run(options.names, options.every))
    if options.command == "write":
        write(options.file, options.source.read_text("utf-8") if options.source else None)
        return 0
    found = compare()
    print(*found, sep="\n", end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
