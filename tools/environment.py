"""Make the book's virtual environments, and notice when one no longer fits. The Makefile calls this.

    python tools/environment.py KIND FOLDER [--asked]     make FOLDER, or leave it as it is if it fits
    python tools/environment.py remove FOLDER...          remove environments that were made by this script

KIND is one of the keys of KINDS. The environment gets the Python that runs this script; ``--asked`` says that
the reader named this Python, so that an environment of another one is made anew (else it stays).

A file in the environment, RECORD, says who made it, where, with which Python and from which locks. An
environment without it is somebody else's: it is never changed, unless there is nothing in it but pip.

Only Python's own library, and no syntax newer than Python 3.6, so that an old Python says what is wrong.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "Python 3.11 or newer is needed, and this is Python %d.%d. "
        "Say which one to use: make PYTHON=python3.12 ..." % sys.version_info[:2]
    )

import argparse
import ast
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not kept apart
    fcntl = None

ROOT = Path(__file__).resolve().parent.parent
RECORD = "made-by-the-book.json"
UV_LOCK = "requirements-uv.txt"
# What pip looks up in the reader's settings, and how uv calls it. uv reads none of pip's settings.
PIP_TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "proxy": ("HTTPS_PROXY", "HTTP_PROXY"),
    "cert": ("SSL_CERT_FILE",),
    "trusted-host": ("UV_INSECURE_HOST",),
}
# Settings that would send packages elsewhere than into the environment, or take modules from elsewhere.
MISLEADING = (
    "PYTHONHOME", "PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_TARGET", "UV_PREFIX", "UV_PYTHON",
)  # fmt: skip
# What `python -m venv`, virtualenv and `uv venv` put into a new environment.
IN_A_NEW_ONE = {
    "bin", "include", "lib", "lib64", "share", "pyvenv.cfg", ".gitignore", ".lock", "CACHEDIR.TAG",
}  # fmt: skip
SEEDS = re.compile(
    r"((pip|setuptools|wheel)(-[^-]+\.dist-info)?|pkg_resources|_distutils_hack"
    r"|distutils-precedence\.pth|_virtualenv\.(py|pth)|__pycache__)"
)
# The stamps that earlier editions of the Makefile left in what they had made.
OLD_STAMPS = (".book", ".test", ".parity", ".bench", ".lite", ".site")


class Refusal(Exception):
    """What keeps an environment from being made, in one sentence for the reader."""


# --------------------------------------------------------------------------------------------------
# What goes into the environments


class Kind:
    """One sort of environment: what it is for, the files that decide what is in it, how it is filled."""

    def __init__(self, what, files, fill, contains=()):
        self.what = what
        self.files = files
        self.fill = fill
        self.contains = contains  # the kinds whose work this one does too


def project_tables():
    """Return the parts of pyproject.toml that an installation hangs on, as text."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = ("build-system", "project", "dependency-groups")
    return json.dumps([tables.get(name) for name in wanted], sort_keys=True)


def digest(kind):
    """Return a digest of everything that decides what is in an environment of this kind."""
    content = hashlib.sha256(project_tables().encode())
    for name in KINDS[kind].files:
        # In a clone that git gave other line ends, the same.
        content.update((ROOT / name).read_bytes().replace(b"\r\n", b"\n"))
    return content.hexdigest()


def fill_from_lock(folder, lock):
    """Install a hashed lock, and dlcore from this folder, with uv; with pip where uv can't be had."""
    dlcore = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    try:
        pip(folder, "--only-binary=:all:", "--no-deps", "--require-hashes", "-r", UV_LOCK)
        uv(folder, "--require-hashes", "-r", lock)
        uv(folder, *dlcore)
    except subprocess.CalledProcessError:
        say("uv could not do it (see above). Trying pip alone, which takes a few minutes.")
        pip(folder, "--require-hashes", "-r", lock)
        pip(folder, *dlcore)


def fill_book(folder):
    """Install what the site needs."""
    fill_from_lock(folder, "requirements-book.txt")


def fill_test(folder):
    """Install what the site and the tests need."""
    fill_from_lock(folder, "requirements.txt")


def fill_parity(folder):
    """Install dlcore and PyTorch, from wherever the reader's pip has it."""
    pip(folder, "--editable", f"{ROOT}[parity]")


def fill_bench(folder):
    """Install dlcore and the libraries that it is timed against."""
    pip(folder, "--editable", f"{ROOT}[bench]")


def fill_site(folder):
    """Install what drives the browser. Chromium itself comes from the system's packages."""
    pip(folder, "-r", "browser/requirements.txt")


def fill_lite(folder):
    """Install JupyterLite, and fetch the wheels that it carries to the browser."""
    pip(folder, "-r", "lite/requirements.txt")
    wheels = folder / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    options = ["--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    pip(folder, *options, "-r", "lite/wheels.txt", command="download")


KINDS = {
    "book": Kind("what the book needs", ["requirements-book.txt", UV_LOCK], fill_book),
    "test": Kind("what the tests need", ["requirements.txt", UV_LOCK], fill_test, ["book"]),
    "parity": Kind("PyTorch", [], fill_parity),
    "bench": Kind("PyTorch, JAX and scikit-learn", [], fill_bench),
    "site": Kind("what the browser tests need", ["browser/requirements.txt"], fill_site),
    "lite": Kind(
        "JupyterLite, and wheels for the browser",
        ["lite/requirements.txt", "lite/wheels.txt"],
        fill_lite,
    ),
}


# --------------------------------------------------------------------------------------------------
# Running things


def say(text):
    """Print at once: make shows what programs print in between."""
    print(text, flush=True)


def python_of(folder):
    """Return the Python of an environment."""
    return str(folder / "bin" / "python")


def clean_environ():
    """Return the reader's settings without those that lead out of the environment."""
    environ = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    environ["PIP_USER"] = "0"
    environ["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return environ


def run(command, environ):
    """Run a program from the book's folder; raise CalledProcessError where it fails."""
    subprocess.run([str(part) for part in command], cwd=ROOT, env=environ, check=True)


def pip(folder, *arguments, command="install"):
    """Run the environment's own pip. Its warnings (twice quiet) tell of the machine, not of the book."""
    run([python_of(folder), "-m", "pip", command, "-qq", *arguments], clean_environ())


def uv(folder, *arguments):
    """Run the environment's own uv with the reader's settings of pip."""
    program = folder / "bin" / "uv"
    command = [program, "pip", "install", "--quiet", "--python", python_of(folder)]
    run([*command, *arguments], uv_environ(folder))


def uv_environ(folder):
    """Return the settings for uv: what the reader has told pip about the way to the packages, and not uv."""
    environ = clean_environ()
    done = subprocess.run(
        [python_of(folder), "-m", "pip", "config", "list"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for key, value in pip_settings(done.stdout).items():
        for name in PIP_TO_UV.get(key, ()):
            if name not in environ and name.lower() not in environ:
                environ[name] = value
    return environ


def pip_settings(listing):
    """Return {option: value} of what `pip config list` prints; an environment variable counts most.

    >>> pip_settings("global.index-url='a'\\n:env:.index-url='b'\\ninstall.user='true'")
    {'index-url': 'b', 'user': 'true'}
    """
    found = {}
    for section in ("global.", "install.", ":env:."):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(section):
                with contextlib.suppress(SyntaxError, ValueError):
                    found[key[len(section) :]] = str(ast.literal_eval(value))
    return found


# --------------------------------------------------------------------------------------------------
# Does an environment fit?


def read_record(folder):
    """Return what the record says; {} where there is none, or where it can't be read."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write_record(folder, finished):
    """Write down who this is, whole or not at all, and which kinds are complete: {kind: digest}."""
    record = {
        "folder": os.path.realpath(folder),
        "book": str(ROOT),
        "python": this_python(),
        "finished": finished,
    }
    new = folder / f".{RECORD}.{os.getpid()}"
    new.write_text(json.dumps(record, indent=1), "utf-8")
    os.replace(new, folder / RECORD)


def this_python():
    """Return what tells this Python from others: its version without the last part, and where it is."""
    return ["%d.%d" % sys.version_info[:2], os.path.realpath(sys.base_prefix)]


def is_ours(folder):
    """Return whether this script, or an earlier edition of the Makefile, has made the environment."""
    return any((folder / name).exists() for name in (RECORD, *OLD_STAMPS))


def is_untouched(folder):
    """Return whether a folder is empty, or an environment into which nobody has installed anything."""
    entries = {path.name for path in folder.iterdir()}
    if not entries:
        return True
    if "pyvenv.cfg" not in entries or not entries <= IN_A_NEW_ONE:
        return False
    installed = [path.name for path in folder.glob("lib/python*/site-packages/*")]
    return all(SEEDS.fullmatch(name) for name in installed)


def fault(folder, asked):
    """Return why an environment of ours has to be made anew, "" where it can stay."""
    record = read_record(folder)
    finished = record.get("finished")
    version, base = record.get("python") or ("", "")
    if not (folder / RECORD).exists():
        return "comes from an earlier edition" if is_ours(folder) else "has nothing in it but pip"
    if not finished:
        return "was left half-made"
    if record.get("folder") != os.path.realpath(folder):
        return f"was made in another place ({record.get('folder')})"
    if record.get("book") != str(ROOT):
        return f"belongs to another copy of the book ({record.get('book')})"
    if asked and [version, base] != this_python():
        return f"has another Python ({version}, from {base})"
    if found_python(folder) != version:
        return f"has a Python that no longer runs ({version}, from {base})"
    if not list(folder.glob("lib/python*/site-packages/pip/__init__.py")):
        return "has lost its pip"
    return ""


def found_python(folder):
    """Return the version of Python that an environment really runs, "" where it runs none."""
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix != sys.base_prefix)"
    try:
        done = subprocess.run(
            [python_of(folder), "-I", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return ""
    version, _, inside = done.stdout.strip().partition(" ")
    return version if inside == "True" else ""


# --------------------------------------------------------------------------------------------------
# Making one


def check_that_it_may_change(folder, name):
    """Raise Refusal where the folder is somebody else's, or can't be an environment at all."""
    choose = (
        f"move it away, or choose another place: make VENV=.venv-book ... ({name} stays as it is)"
    )
    if not folder.is_dir():
        raise Refusal(f"{name} is not a folder: {choose}.")
    if not is_ours(folder) and not is_untouched(folder):
        raise Refusal(
            f"{name} was not made by this Makefile, and there is something in it: {choose}."
        )


def create(folder, name):
    """Make an empty environment; the record comes first, so that a half-made one is known as ours."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise Refusal(
            f"'{sys.executable}' cannot make virtual environments. "
            "On Debian and Ubuntu: sudo apt install python3-venv"
        ) from None
    say(f"Making the virtual environment {name}")
    empty(folder)
    write_record(folder, {})
    # Not the Python of an environment that the reader has activated, but the one below it.
    base = getattr(sys, "_base_executable", sys.executable)
    run([base, "-m", "venv", folder], clean_environ())


def empty(folder):
    """Remove everything in a folder, the record last."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def fill(folder, name, kind):
    """Install what is missing for a kind. The record says "half-made" as long as that goes on."""
    before = read_record(folder).get("finished", {})
    write_record(folder, {})
    say(f"Installing {KINDS[kind].what} into {name}")
    try:
        KINDS[kind].fill(folder)
    except subprocess.CalledProcessError:
        # It has ended by itself, and both uv and pip fetch everything before they change anything.
        write_record(folder, before)
        raise
    # An older part of the same environment has been brought up to date along with this one.
    write_record(folder, {made: digest(made) for made in (kind, *KINDS[kind].contains)})


def ensure(kind, name, asked):
    """Make an environment, or bring it up to date, or see that it fits; the last takes no network."""
    folder = Path(name).absolute()
    if os.path.lexists(folder):
        check_that_it_may_change(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, name):
        reason = fault(folder, asked)
        if reason:
            if any(folder.iterdir()):
                say(f"{name} {reason}: it is made anew.")
            create(folder, name)
        finished = read_record(folder).get("finished", {})
        largest = larger_kind(kind, finished)
        if finished.get(kind) != digest(kind) or finished.get(largest) != digest(largest):
            fill(folder, name, largest)


def larger_kind(kind, finished):
    """Return the kind to install: what is there already must not be taken back.

    >>> larger_kind("book", {"book": "1", "test": "2"}), larger_kind("test", {"book": "1"})
    ('test', 'test')
    """
    return next((other for other in finished if kind in KINDS[other].contains), kind)


@contextlib.contextmanager
def alone(folder, name):
    """Wait until no other run of make works on the same environment."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another run that works on {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def remove(names):
    """Remove environments, but none that somebody else has made."""
    for name in names:
        folder = Path(name).absolute()
        if not os.path.lexists(folder):
            continue
        check_that_it_may_change(folder, name)
        empty(folder)
        if folder.is_symlink():
            folder.unlink()
        else:
            folder.rmdir()


def main(arguments=None):
    """Do what the command line says; return 0 where it could be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=[*KINDS, "remove"])
    parser.add_argument("folder", nargs="+")
    parser.add_argument("--asked", action="store_true", help="the reader named this Python")
    options = parser.parse_args(arguments)
    try:
        if options.kind == "remove":
            remove(options.folder)
        else:
            (folder,) = options.folder
            ensure(options.kind, folder, options.asked)
    except (Refusal, OSError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print(
            f"{options.folder[0]} could not be set up (the first time it needs the network): see above.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
