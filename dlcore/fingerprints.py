"""Fingerprints: digests of what values and code consist of, the same in every process.

A checkpoint is only taken up by the run that wrote it. So its fingerprint must see all that decides what a
run computes: arrays and numbers, but also the functions and classes that a setting reaches, their helpers,
what these read around them, and files. Where something cannot be seen, it says so and refuses.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import logging
import os
import random
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from dlcore import installed

#: Traces are what a value leads to beyond itself: pairs of a kind (the constants below) and a text.
Traces = frozenset[tuple[str, str]]
_NONE: Traces = frozenset()
_DEFINITION, _FILE, _VARIABLE = "definition", "file", "variable"
_READS, _BLIND, _ASKS = "reads", "reads blindly", "asks the environment"
_CIRCLE = "holds itself"

_ADVICE = (
    "A checkpoint has to tell it from another one after a restart: hand over its content (numbers, arrays, "
    "functions), give its class a __reduce__ that says what it is made of, or leave out checkpoint="
)
#: What decides nothing that is computed, or what is only a memory of calls: its type is enough.
_BY_TYPE = (
    type(threading.Lock()), type(threading.RLock()), threading.Event, threading.local,
    weakref.WeakKeyDictionary, weakref.WeakValueDictionary, weakref.WeakSet,
)  # fmt: skip
#: Their state comes from the system, another one in each process.
_UNSEEDED = (getattr(random, "_inst", None), getattr(np.random.mtrand, "_rand", None))
_PLAIN = (str, bytes, bool, float, complex, type(None), type(Ellipsis), type(NotImplemented))
#: What every class has of its own, and what Python notes in it as it goes.
_BARE = {
    "__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__",
    "__slotnames__", "__static_attributes__", "_abc_impl", "__annotations__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__annotate_cache__", "__conditional_annotations__",
}  # fmt: skip
#: Built-in functions after which nobody can tell by reading what code reaches.
_DYNAMIC = {"eval", "exec", "globals", "__import__"}
#: Names of functions that read files: for certain, and perhaps.
_READERS = {
    "read_text", "read_bytes", "loadtxt", "genfromtxt", "fromfile", "memmap", "read_csv", "imread",
}  # fmt: skip
_PERHAPS = ("load", "read")
_WRITING = set("wax+")
#: The flag of code with a docstring (Python 3.13 and later).
_HAS_DOCSTRING = 0x4000000


def fingerprint(value: Any, known: Fingerprints | None = None) -> str:
    """Return a digest of a value's content, the same in every process of one Python and environment.

    It covers arrays, containers and objects with what they hold; functions and classes with their code (not
    comments, docstrings and line numbers), defaults, closures, attributes and base classes; and what
    the code reads: global variables, modules and what it takes from them, and so on to the end. Where code
    reads files or the environment, the files and variables that it names count with their content. What
    Python and installed packages define counts by name and version, dlcore by ``code()``.

    ``known`` (default: a new one) remembers large values, for calls that share them. Raises ``TypeError``
    for what cannot be told apart in another process, such as an open file or a generator, or code that
    uses ``eval`` or reads files without naming them.
    """
    return (known or Fingerprints()).of(value)


class Fingerprints:
    """Makes fingerprints, and remembers those of values that hold no code."""

    def __init__(self) -> None:
        self.shared: dict[tuple[int, bool], tuple[Found, Any]] = {}

    def of(self, value: Any) -> str:
        """Return the fingerprint of a value; see ``fingerprint``."""
        walk = _Walk(self.shared)
        try:
            found = walk.visit(value, "")
            traces = walk.follow(found.traces)
        except RecursionError:
            raise TypeError(
                f"{walk.place()}: expected fewer levels of nesting. {_ADVICE}"
            ) from None
        return _digest(found.digest, *(f"{kind} {text}" for kind, text in sorted(traces)))


class Found(NamedTuple):
    """What a visit found: a ``digest``, and ``traces`` (default: none).

    ``lowest`` is the depth of the outermost value in progress that it came back to (default: of none).
    """

    digest: str
    traces: frozenset[tuple[str, str]] = _NONE
    lowest: float = float("inf")


def _digest(*parts: str) -> str:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        whole.update(len(content).to_bytes(8, "little"))
        whole.update(content)
    return whole.hexdigest()[:32]


class _Walk:
    """One walk through a value and all that it reaches."""

    def __init__(self, shared: dict[tuple[int, bool], tuple[Found, Any]]) -> None:
        self.shared = shared
        self.own: dict[tuple[int, bool], tuple[Found, Any]] = {}
        self.open: dict[tuple[int, bool], int] = {}
        self.labels: list[str] = []
        #: Within code the order of a dict may decide what is built.
        self.in_code = False
        #: Functions, classes and modules that were met, by name and digest, and those not yet visited.
        self.definitions: dict[str, list[Any]] = {}
        self.new: list[tuple[str, Any]] = []

    def place(self) -> str:
        """Return where the walk is, for messages."""
        return " > ".join(filter(None, self.labels)) or "checkpoint"

    def refuse(self, what: str) -> TypeError:
        return TypeError(
            f"{self.place()}: expected what can be fingerprinted, got {what}. {_ADVICE}"
        )

    # Visiting ------------------------------------------------------------------------------------

    def visit(self, value: Any, label: str) -> Found:
        """Return the digest of one value, with what it leads to."""
        if type(value) in _PLAIN or type(value) is int or isinstance(value, np.generic):
            return _plain(value)
        key = id(value), self.in_code
        if key in self.open:
            circle = frozenset({(_CIRCLE, "")})
            return Found(f"itself {len(self.open) - self.open[key]}", circle, self.open[key])
        for cache in (self.shared, self.own):
            if key in cache:
                return cache[key][0]
        depth = len(self.open)
        self.open[key] = depth
        self.labels.append(label)
        found = self.parts(value)
        self.labels.pop()
        del self.open[key]
        if found.lowest >= depth:
            found = found._replace(lowest=float("inf"))
        # What holds no code and no circle has this digest wherever it is met.
        cache = self.own if found.traces else self.shared
        cache[key] = found, value  # the value too, or another one might get its id
        return found

    def join(self, head: str, found: Iterable[Found]) -> Found:
        found = list(found)
        traces = _NONE.union(*(one.traces for one in found))
        lowest = min((one.lowest for one in found), default=float("inf"))
        return Found(_digest(head, *(one.digest for one in found)), traces, lowest)

    def several(self, head: str, values: Iterable[Any]) -> Found:
        return self.join(head, [self.visit(value, f"[{i}]") for i, value in enumerate(values)])

    def named(self, head: str, values: dict[str, Any]) -> Found:
        """Join values that have names, in the order of the names."""
        found = [self.visit(value, name) for name, value in sorted(values.items())]
        return self.join(_digest(head, *sorted(values)), found)

    def parts(self, value: Any) -> Found:
        """Return what a value that is no plain number or text is made of."""
        kind = type(value)
        if kind is np.ndarray and not value.dtype.hasobject:
            content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return Found(_digest("array", str(value.dtype), str(value.shape), content))
        if kind in (list, tuple):
            return self.several(kind.__name__, value)
        if kind in (set, frozenset):
            members = (self.visit(member, "member") for member in value)
            return self.join(kind.__name__, sorted(members, key=lambda found: found.digest))
        if kind in (dict, types.MappingProxyType):
            return self.mapping(value)
        return self.code(value) or self.wrapper(value) or self.reduced(value)

    def mapping(self, value: Any) -> Found:
        items = []
        for key, item in value.items():
            label = key if isinstance(key, str) else repr(key)
            items.append(self.join("item", [self.visit(key, "key"), self.visit(item, label)]))
        if not self.in_code:
            items.sort(key=lambda found: found.digest)
        return self.join("dict", items)

    def code(self, value: Any) -> Found | None:
        """Return what functions, classes and modules are made of, None for other values."""
        if isinstance(value, types.FunctionType):
            return self.function(value)
        if isinstance(value, type):
            return self.class_(value)
        if isinstance(value, types.ModuleType):
            return self.module(value)
        if isinstance(value, types.CodeType):
            return self.join("code", self.instructions(value, {}))
        return None

    def wrapper(self, value: Any) -> Found | None:
        """Return what thin wrappers of functions and cells hold, None for other values."""
        kind = type(value)
        if kind in _BY_TYPE or isinstance(value, logging.Logger):
            return Found(_digest("by type", _type_name(kind)))
        if any(value is one for one in _UNSEEDED):
            return Found(_digest("the generator that nobody has seeded", _type_name(kind)))
        if isinstance(value, property):
            return self.several("property", (value.fget, value.fset, value.fdel, kind))
        if isinstance(value, (staticmethod, classmethod)):
            return self.several(kind.__name__, (value.__func__, kind))
        if isinstance(value, functools._lru_cache_wrapper):
            return self.several("cached", (value.__wrapped__,))
        if isinstance(value, types.CellType):
            return self.several("cell", _contents(value))
        if isinstance(value, PurePath):
            return self.join("path", [self.visit(str(value), "path"), self.visit(kind, "kind")])
        if hasattr(kind, "__cuda_array_interface__") and hasattr(value, "get"):
            return self.several("device", (value.get(),))
        return None

    def reduced(self, value: Any) -> Found:
        """Return what pickle would make of an object: its class, and its state."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            made = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:  # an open file, a generator: each raises as it likes
            raise self.refuse(f"{_shown(value)} ({error})") from error
        if isinstance(made, str):
            return self.by_name(value, made)
        return self.several(_type_name(type(value)), made)

    def by_name(self, value: Any, name: str) -> Found:
        """Return the digest of what pickle finds by its name: functions that are compiled, constants."""
        module = _module_of(value, name)
        if module is None:
            raise self.refuse(f"{_shown(value)}, which stands in no module as {name}")
        version = installed.version(module)
        if version is None:
            file = getattr(sys.modules[module], "__file__", None)
            if file is None or not os.path.isfile(file):
                raise self.refuse(_shown(value))
            version = _content(file)
        return Found(_digest("named", _type_name(type(value)), module, name, version))

    # Code ----------------------------------------------------------------------------------------

    def define(self, value: Any, name: str, shallow: str) -> Found:
        """Return a reference to a function, class or module; ``follow`` visits it."""
        text = f"{name} {shallow}"
        same = self.definitions.setdefault(text, [])
        if not any(value is one for one in same):
            same.append(value)
            self.new.append((text, value))
        return Found(_digest("definition", text), frozenset({(_DEFINITION, text)}))

    def follow(self, traces: Traces) -> Traces:
        """Visit all definitions that traces lead to, and return what they consist of, and files."""
        seen, bodies = set(traces), dict[str, str]()
        while waiting := self.new_definitions():
            for text, value in waiting:
                found = self.define_body(value)
                seen |= found.traces
                if bodies.setdefault(text, found.digest) != found.digest:
                    name = text.rpartition(" ")[0]
                    raise TypeError(f"checkpoint: expected one {name}, got two. {_ADVICE}")
        made = {(_DEFINITION, f"{text} {digest}") for text, digest in bodies.items()}
        return frozenset(made) | self.outside(seen)

    def new_definitions(self) -> list[tuple[str, Any]]:
        """Return the definitions that came up since the last call."""
        found, self.new = self.new, []
        return found

    def define_body(self, value: Any) -> Found:
        self.in_code = True
        self.labels.append(getattr(value, "__qualname__", value.__name__))
        if isinstance(value, types.FunctionType):
            found = self.function_body(value)
        elif isinstance(value, type):
            found = self.class_body(value)
        else:
            own = {k: v for k, v in vars(value).items() if not _is_dunder(k)}
            found = self.named("module", own)
        self.labels.pop()
        self.in_code = False
        return found

    def outside(self, traces: set[tuple[str, str]]) -> Traces:
        """Return the content of files and variables of the environment that code names and reads."""
        texts = {kind: {text for k, text in traces if k == kind} for kind, _ in traces}
        made = set()
        if _READS in texts or _BLIND in texts:
            made |= {(_FILE, f"{file} {_content(file)}") for file in texts.get(_FILE, ())}
        if _BLIND in texts and _FILE not in texts:
            where = ", ".join(sorted(texts[_BLIND]))
            raise TypeError(
                f"{where}: expected the name of the file that it reads as a text in the code, got none "
                f"that names a file. {_ADVICE}"
            )
        if _ASKS in texts:
            made |= {(_VARIABLE, f"{n}={os.environ[n]}") for n in texts.get(_VARIABLE, ())}
        return frozenset(made)

    def module(self, value: types.ModuleType) -> Found:
        version = installed.version(value.__name__)
        if version is not None:
            return Found(_digest("module", value.__name__, version))
        return self.define(value, f"module {_main(value.__name__)}", "")

    def function(self, value: types.FunctionType) -> Found:
        origin = value.__globals__.get("__name__") or ""
        version = installed.version(origin)
        name = f"{_main(value.__module__)}.{value.__qualname__}"
        if version is None:
            if "<" in name:
                return self.inside(self.function_body, value)
            return self.define(value, f"function {name}", _shallow(value))
        head = _digest("function", origin, name, version)
        if "<locals>" not in name and value.__module__ == origin:
            return Found(head)
        around = {"closure": value.__closure__ or (), "defaults": value.__defaults__}
        around["wrapped"] = getattr(value, "__wrapped__", None)
        return self.named(head, around)

    def inside(self, body: Callable[[Any], Found], value: Any) -> Found:
        """Visit the body of what is no definition of a module, such as a lambda."""
        before, self.in_code = self.in_code, True
        found = body(value)
        self.in_code = before
        return found

    def function_body(self, value: types.FunctionType) -> Found:
        found = [
            self.visit(value.__defaults__, "defaults"),
            self.visit(value.__kwdefaults__, "defaults"),
            self.named("attributes", vars(value)),
        ]
        closure = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        found.append(self.named("closure", dict(closure)))
        found += self.instructions(value.__code__, value.__globals__)
        return self.join(f"function {value.__qualname__}", found)

    def class_(self, value: type) -> Found:
        name = f"{_main(value.__module__)}.{value.__qualname__}"
        version = installed.version(value.__module__)
        if version is not None and _at_its_name(value):
            return Found(_digest("class", name, version))
        if "<" in name:
            return self.inside(self.class_body, value)
        return self.define(value, f"class {name}", _shallow(value))

    def class_body(self, value: type) -> Found:
        own = {k: v for k, v in vars(value).items() if k not in _BARE}
        bases = self.several("bases", (*value.__bases__, type(value)))
        return self.join(f"class {value.__qualname__}", [bases, self.named("members", own)])

    def instructions(self, code: types.CodeType, space: dict[str, Any]) -> list[Found]:
        """Return what a piece of code does, and what it reads in ``space``, its global variables.

        A docstring, which no instruction loads, is not part of it, nor is the order of constants.
        """
        arguments = code.co_argcount + code.co_kwonlyargcount + 2
        about = (
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            code.co_flags & ~_HAS_DOCSTRING, code.co_varnames[:arguments], code.co_names,
            code.co_freevars, code.co_cellvars, code.co_exceptiontable.hex(),
        )  # fmt: skip
        found = [Found(_digest("code", repr(about)))]
        for step in dis.get_instructions(code):
            if step.opcode not in dis.hasconst:
                found.append(Found(f"{step.opcode} {step.arg}"))
            elif isinstance(step.argval, types.CodeType):
                found += self.instructions(step.argval, space)
            else:
                found.append(self.visit(step.argval, "constant"))
                found.append(Found("", self.beside(step.argval, space)))
        return [*found, *self.around(code, space)]

    def around(self, code: types.CodeType, space: dict[str, Any]) -> Iterator[Found]:
        """Yield what the global names in a piece of code stand for."""
        steps = list(dis.get_instructions(code))
        for i, step in enumerate(steps):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
                yield self.global_(step.argval, _attributes(steps[i + 1 :]), space)
            elif step.opname == "IMPORT_NAME":
                level = steps[i - 2].argval if isinstance(steps[i - 2].argval, int) else 0
                yield self.import_(step.argval, level, _attributes(steps[i + 1 :]), space)
        yield Found(_digest("names"), self.habits(code, space))

    def global_(self, name: str, attributes: list[str], space: dict[str, Any]) -> Found:
        if name not in space:
            if name in _DYNAMIC:
                raise self.refuse(f"code that calls {name}(), which may reach anything")
            return Found(_digest("built-in", name))
        return self.taken(space[name], name, attributes)

    def taken(self, value: Any, name: str, attributes: list[str]) -> Found:
        """Return what is left of a module after ``.name.name``, or any other value whole."""
        for attribute in attributes:
            own = isinstance(value, types.ModuleType) and installed.version(value.__name__) is None
            if not own or not hasattr(value, attribute):
                break
            value, name = getattr(value, attribute), f"{name}.{attribute}"
        if name in ("__file__", "__name__", "__spec__", "__loader__", "__path__", "__package__"):
            return Found(_digest("name", name))
        return self.join(name, [self.visit(value, name)])

    def import_(self, name: str, level: int, attributes: list[str], space: dict) -> Found:
        """Return what an import within a function brings."""
        try:
            whole = importlib.util.resolve_name("." * level + name, space.get("__package__"))
            module = importlib.import_module(whole)
        except ImportError:
            return Found(_digest("missing module", name))
        if attributes == ["import_module"]:
            raise self.refuse("code that calls import_module(), which may reach anything")
        return self.taken(module, whole, attributes)

    def beside(self, constant: Any, space: dict[str, Any]) -> Traces:
        """Return a trace to a file that a text names, seen from the folder of the code's own file."""
        folder = os.path.dirname(str(space.get("__file__") or ""))
        if isinstance(constant, str) and folder:
            return _to_file(os.path.join(folder, constant))
        return _NONE

    def habits(self, code: types.CodeType, space: dict[str, Any]) -> Traces:
        """Return traces that say whether code reads files or the environment."""
        names, traces = set(code.co_names), set[tuple[str, str]]()
        if "import_module" in names:
            raise self.refuse("code that calls import_module(), which may reach anything")
        opens = "open" in names and not any(map(_is_for_writing, code.co_consts))
        if opens or names & _READERS:
            traces.add((_BLIND, self.place()))
        if any(name.startswith(_PERHAPS) for name in names):
            traces.add((_READS, ""))
        if names & {"environ", "getenv"}:
            traces.add((_ASKS, ""))
        return frozenset(traces)


# Small things ------------------------------------------------------------------------------------


def _is_for_writing(constant: Any) -> bool:
    """Return whether a constant is a mode in which ``open`` writes, such as "w" or "ab"."""
    mode = set(constant) if isinstance(constant, str) and len(constant) <= 3 else set()
    return bool(mode & _WRITING) and mode <= set("rwaxbt+")


def _plain(value: Any) -> Found:
    """Return the digest of a number or text; a text leads to the file or variable that it names."""
    kind = type(value)
    text = f"{value:x}" if kind is int else repr(value)
    if isinstance(value, np.generic):
        text = f"{value.dtype} {value.tobytes().hex()}" if not value.dtype.hasobject else text
    traces = _to_file(value) | _to_variable(value) if kind is str else _NONE
    return Found(_digest(_type_name(kind), text), traces)


def _to_file(text: str) -> Traces:
    if not 0 < len(text) < 1000 or "\0" in text or not os.path.isfile(text):
        return _NONE
    return frozenset({(_FILE, text)})


def _to_variable(text: str) -> Traces:
    return frozenset({(_VARIABLE, text)}) if text in os.environ else _NONE


def _content(file: str) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # nothing has been put in yet
        return ()


def _attributes(steps: list[dis.Instruction]) -> list[str]:
    """Return the names that follow at once as attributes: ``.a.b``, or ``from … import a``."""
    found: list[str] = []
    for step in steps:
        if step.opname not in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            break
        found.append(step.argval)
    return found


def _shallow(value: Any) -> str:
    """Return a digest of the code of a function or class, without what it reaches."""
    if isinstance(value, types.FunctionType):
        return _digest(value.__code__.co_code.hex(), repr(value.__code__.co_names))
    if isinstance(value, type):
        own = {k: v for k, v in vars(value).items() if k not in _BARE}
        return _digest(*(f"{name} {_shallow(own[name])}" for name in sorted(own)))
    return repr(value) if type(value) in _PLAIN or type(value) is int else ""


def _module_of(value: Any, name: str) -> str | None:
    """Return the module where a value stands under its name."""
    claimed = getattr(value, "__module__", None)
    modules: list[Any] = [sys.modules.get(str(claimed)), *sys.modules.values()]
    for module in modules:
        try:
            if functools.reduce(_member, name.split("."), module) is value:
                return str(module.__name__)
        except (KeyError, TypeError):
            continue
    return None


def _member(owner: Any, name: str) -> Any:
    """Return an attribute without calling code of its owner, such as that of modules made on demand."""
    return vars(owner)[name]


def _at_its_name(value: type) -> bool:
    """Return whether a class stands in its module, and was not made in a function there."""
    try:
        module: Any = sys.modules[value.__module__]
        named: Any = functools.reduce(getattr, value.__qualname__.split("."), module)
    except (AttributeError, KeyError):
        return False
    return bool(named is value)


def _main(module: str | None) -> str:
    """Return a module's name; in processes of a pool the script that was started has another one."""
    return "__main__" if module == "__mp_main__" else str(module)


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _type_name(kind: type) -> str:
    return f"{_main(kind.__module__)}.{kind.__qualname__}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def code() -> str:
    """Return the fingerprint of dlcore's own code and NumPy's version: others may train to other bits."""
    return _code()


@functools.cache
def _code() -> str:
    folder = Path(__file__).resolve().parent
    files = sorted(folder.rglob("*.py")) or sorted(folder.rglob("*.pyc"))
    if not files:
        raise RuntimeError(f"checkpoint: expected dlcore's source files in {folder}, got none")
    parts = [f"{file.relative_to(folder).as_posix()} {_content(str(file))}" for file in files]
    return _digest(np.__version__, *parts)
