"""Which version of Python or of an installed package a module belongs to."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import platform
import site
import sys
import sysconfig


def version(module: str | None) -> str | None:
    """Return name and version of what a module comes with; None for modules that belong to nobody.

    Those are the user's own: a script, a notebook, a file in a folder, also a package that was installed to
    be edited in place. It is the module's file that decides, not its name: a file ``random.py`` of the
    user's is no part of Python. A package that was installed from a folder may change without its version;
    then the list of its files, with their checksums, counts too.
    """
    top = (module or "").partition(".")[0]
    if top in ("", "__main__", "__mp_main__"):
        return None
    return _version(top, _place(top))


@functools.cache
def _version(top: str, place: str | None) -> str | None:
    own = os.path.dirname(os.path.realpath(__file__))
    if top == "dlcore" and _is_below(place, (own,)):
        return "dlcore"  # its fingerprint is that of its files
    if top in sys.stdlib_module_names and (place is None or _is_below(place, _libraries())):
        return f"Python {platform.python_version()}"
    return _package(top, place)


def _package(top: str, place: str | None) -> str | None:
    """Return name and version of the package that a module's file was installed with."""
    for name in _distributions().get(top, ()):
        package = importlib.metadata.distribution(name)
        folder = os.path.realpath(str(package.locate_file("")))
        listed = folder in _sites() or package.read_text("RECORD")
        if listed and _is_below(place, (folder,)):
            return f"{name} {package.version}{_files(package)}"
    return None


def _place(top: str) -> str | None:
    """Return the file of a module, or the folder of a package without one; None for built-in ones."""
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is None:
        folders = list(getattr(module, "__path__", ()))
        file = folders[0] if folders else None
    return None if file is None else os.path.realpath(file)


def _is_below(place: str | None, folders: tuple[str, ...]) -> bool:
    return place is not None and any(
        place.startswith(os.path.join(folder, "")) for folder in folders
    )


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return the folders of Python's own modules."""
    paths = sysconfig.get_paths()
    found = [paths["stdlib"], paths["platstdlib"], os.path.dirname(os.__file__)]
    return tuple(os.path.realpath(folder) for folder in found)


@functools.cache
def _sites() -> tuple[str, ...]:
    """Return the folders into which packages are installed."""
    paths = sysconfig.get_paths()
    found = [paths["purelib"], paths["platlib"], *getattr(site, "getsitepackages", list)()]
    return tuple(os.path.realpath(folder) for folder in found)


@functools.cache
def _distributions() -> dict[str, list[str]]:
    """Return the names of installed packages by those of their modules."""
    return dict(importlib.metadata.packages_distributions())


def _files(package: importlib.metadata.Distribution) -> str:
    """Return a digest of a package's files where it was not taken from an index."""
    if package.read_text("direct_url.json") is None:
        return ""
    listed = package.read_text("RECORD") or ""
    return f" {hashlib.sha256(listed.encode()).hexdigest()[:32]}"
