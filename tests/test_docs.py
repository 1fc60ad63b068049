"""What every public name's documentation must say; the API appendix is made of it."""

import importlib
import inspect
import pkgutil
import re

import pytest

import dlcore

# How equations write these parameters.
SYMBOLS = {"beta1": r"\beta_1", "beta2": r"\beta_2", "epsilon": r"\epsilon", "sigma_b": r"\sigma_b"}


def of_module(module):
    """Public classes and functions that a module defines, and the public methods of its classes."""
    for name, thing in vars(module).items():
        if name[0] == "_" or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing) or inspect.isroutine(thing):
            yield name, thing
        for own, method in vars(thing).items() if inspect.isclass(thing) else ():
            if own[0] != "_" and (inspect.isroutine(method) or isinstance(method, property)):
                yield f"{name}.{own}", method


MODULES = [
    importlib.import_module(f"dlcore.{m.name}") for m in pkgutil.iter_modules(dlcore.__path__)
]
PUBLIC = {
    f"{module.__name__.removeprefix('dlcore.')}.{name}": (module, thing)
    for module in MODULES
    for name, thing in of_module(module)
}


def documentation(name, thing, module):
    """The docstring; a method that overrides one without saying more has its parent's."""
    if "." not in name:
        return inspect.getdoc(thing) or ""
    owner, own = name.split(".")
    return inspect.getdoc(getattr(getattr(module, owner), own)) or ""


def optional(thing):
    """Parameters that have a default."""
    if isinstance(thing, property):
        return []
    parameters = inspect.signature(thing).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty and p.name[0] != "_"]


def problems(name, thing, module):
    text = documentation(name, thing, module)
    if not text:
        return ["no docstring"]
    found = []
    first = text.split("\n")[0]
    if not re.search(r"[.:!?`)…]$", text.split("\n\n")[0].strip()):
        found.append(f"no first line that is a sentence: {first!r}")
    for parameter in optional(thing):
        symbol = SYMBOLS.get(parameter, parameter)
        if not re.search(rf"\b{parameter}\b", text) and symbol not in text:
            found.append(f"{parameter} has a default, and the docstring does not name it")
    raising = re.search(r"\n {4,8}raise (ValueError|TypeError)", source(thing))
    if raising and not re.search(r"Raises|Error``", text):
        found.append(f"raises {raising[1]} and does not say so")
    return found


def source(thing):
    return inspect.getsource(thing) if inspect.isfunction(thing) else ""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_modules_say_what_they_are(module):
    assert re.search(r"\.$", module.__doc__.split("\n\n")[0].strip())


@pytest.mark.parametrize("name", PUBLIC)
def test_documented(name):
    module, thing = PUBLIC[name]
    assert problems(name.split(".", 1)[1], thing, module) == []


def test_names_at_the_top_are_documented_ones():
    """What a chapter calls as dl.NAME is a module above or a name above (or its alias)."""
    things = [*MODULES, *(thing for _, thing in PUBLIC.values())]
    assert [n for n in dlcore.__all__ if not any(getattr(dlcore, n) is t for t in things)] == []


def bare(x):
    return x


def silent(x, size=3):
    """Return x."""
    if x is None:
        raise ValueError
    return x


def test_what_is_missing_is_found():
    module = inspect.getmodule(bare)
    assert problems("bare", bare, module) == ["no docstring"]
    assert problems("silent", silent, module) == [
        "size has a default, and the docstring does not name it",
        "raises ValueError and does not say so",
    ]
