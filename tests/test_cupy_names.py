"""Does CuPy have every name and keyword that dlcore uses, and is the replica contract's style kept?

CuPy imports without a GPU, so this runs anywhere. It reads the sources: ``xp.NAME``, also behind
``self.xp`` or ``backend.xp`` and through ``f = xp.NAME``; and methods of arrays in the modules that
hold device code. What it cannot see (types of variables, values), the device double checks at run
time.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import double
import numpy as np
import pytest

SOURCES = sorted((Path(__file__).parents[1] / "dlcore").glob("*.py"))
# Here all arrays are the host's, for good: reading data, theory, statistics and figures.
# fmt: off
HOST_MODULES = [
    "__init__", "checks", "datasets", "experiments", "host_arrays", "meanfield", "packing", "plots",
    "schedules", "statistics",
]
# fmt: on
# In all others, an array that is not np's may be on the device, with a replica axis in front:
# negative axes only.
DEVICE_MODULES = [path.stem for path in SOURCES if path.stem not in HOST_MODULES]
# (module, expression as ast.unparse writes it): why it is right there.
ALLOWED = {
    ("augmentation", "x.reshape(-1, channels)"): "pixels of all replicas, read by one flat index",
    ("augmentation", "xp.take(pixels, first + r * wide + c, axis=0)"): "the same flat index",
    ("initializers", "q.T"): "one host matrix, before there are replicas",
    ("training", "np.append(rates * decay, np.zeros((len(rates), 1)), axis=1)"): "host (steps, R)",
}
# CuPy's functions with **kwargs: the keywords that they read (their docstrings).
CUPY_KWARGS = {
    "einsum": {"dtype", "optimize"},
    "pad": {"constant_values", "end_values", "reflect_type", "stat_length"},
    "fuse": {"kernel_name"},
    "meshgrid": {"copy", "indexing", "sparse"},
}


class Use(NamedTuple):
    line: int
    path: str  # "linalg.norm" for xp.linalg.norm
    arguments: int | None  # by position; None: not called, or starred
    keywords: tuple[str, ...]


class Parameters(NamedTuple):
    positional: list[str]
    keywords: set[str]
    variadic: bool


# Reading sources ---------------------------------------------------------------------------------


def xp_path(node: ast.AST) -> str | None:
    """``"linalg.norm"`` for ``xp.linalg.norm`` and ``self.xp.linalg.norm``, "" for xp itself."""
    parts = []
    while isinstance(node, ast.Attribute) and node.attr != "xp":
        parts.append(node.attr)
        node = node.value
    is_xp = isinstance(node, ast.Attribute) or (isinstance(node, ast.Name) and node.id == "xp")
    return ".".join(reversed(parts)) if is_xp else None


def uses(tree: ast.AST) -> list[Use]:
    """All uses of names of xp."""
    nodes = list(ast.walk(tree))
    inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    aliases = {
        target.id: xp_path(n.value)
        for n in nodes
        if isinstance(n, ast.Assign) and xp_path(n.value)
        for target in n.targets
        if isinstance(target, ast.Name)
    }
    found, called = [], set()
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else None
        path = aliases.get(name) or xp_path(node.func)
        if name == "getattr" and node.args and xp_path(node.args[0]) == "":
            constant = isinstance(node.args[1], ast.Constant)
            path = node.args[1].value if constant else "<a computed name>"
            found.append(Use(node.lineno, path, None, ()))
        elif path:
            starred = any(isinstance(a, ast.Starred) for a in node.args)
            keywords = tuple(k.arg or "**" for k in node.keywords)
            found.append(Use(node.lineno, path, None if starred else len(node.args), keywords))
            called.add(id(node.func))
    for node in nodes:
        if isinstance(node, ast.Attribute) and not {id(node)} & (inner | called) and xp_path(node):
            found.append(Use(node.lineno, xp_path(node), None, ()))
    return found


def parameters(callable_: object, name: str = "") -> Parameters:
    """Parameters from the signature or, for compiled functions, the docstring's first line."""
    try:
        given = list(inspect.signature(callable_).parameters.values())
    except (TypeError, ValueError):
        line = (callable_.__doc__ or "").strip().split("\n")[0]
        found = _parameters_of_line(line)
        return found._replace(keywords=found.keywords | CUPY_KWARGS.get(name, set()))
    kinds = {kind: [p.name for p in given if p.kind is kind] for kind in inspect._ParameterKind}
    kind = inspect.Parameter
    positional = kinds[kind.POSITIONAL_ONLY] + kinds[kind.POSITIONAL_OR_KEYWORD]
    keywords = {*kinds[kind.POSITIONAL_OR_KEYWORD], *kinds[kind.KEYWORD_ONLY]}
    if kinds[kind.VAR_KEYWORD]:
        keywords |= CUPY_KWARGS.get(name, set())
    return Parameters(
        [p for p in positional if p != "self"],
        keywords - {"self"},
        bool(kinds[kind.VAR_POSITIONAL]),
    )


def _parameters_of_line(line: str) -> Parameters:
    """Read ``f(x1, x2, /, out=None, \\*, dtype=None) -> ...``, as Cython and ufuncs write it."""
    inside = re.search(r"\((.*)\)", line.split(" -> ")[0])
    if not inside:
        raise ValueError(f"no signature to be read in {line!r}")
    positional: list[str] = []
    keywords: set[str] = set()
    only, variadic = False, False
    for token in (t.strip(" \\") for t in inside[1].split(",")):
        name = token.split("=")[0].split()[-1] if token else ""
        if token == "/":
            keywords.clear()
        elif token == "*":
            only = True
        elif token.startswith("*"):
            variadic = only = True
        elif name and name != "self":
            keywords.add(name)
            if not only:
                positional.append(name)
    return Parameters(positional, keywords, variadic)


def cupy_object(path: str) -> object:
    """The object in CuPy; ``AttributeError`` if there is none."""
    found = pytest.importorskip("cupy", reason="CuPy is not installed: names are not checked")
    for part in path.split("."):
        found = getattr(found, part)
    return found


# What is wrong with a source ---------------------------------------------------------------------


def name_problems(source: str) -> list[str]:
    """Names, keywords and numbers of arguments that CuPy does not have."""
    problems = []
    for use in uses(ast.parse(source)):
        try:
            found = cupy_object(use.path)
        except AttributeError:
            problems.append(f"line {use.line}: CuPy has no {use.path}")
            continue
        if use.arguments is None and not use.keywords:
            continue
        if isinstance(found, type) and issubclass(found, np.generic):
            continue  # a dtype called as a function
        has = parameters(found, use.path)
        if wrong := set(use.keywords) - has.keywords:
            problems.append(f"line {use.line}: cupy.{use.path} has no keyword {sorted(wrong)}")
        if (use.arguments or 0) > len(has.positional) and not has.variadic:
            problems.append(f"line {use.line}: cupy.{use.path}: {use.arguments} arguments")
    return problems


def method_problems(source: str) -> list[str]:
    """Methods of arrays, and keywords of methods, that CuPy's arrays do not have."""
    array = cupy_object("ndarray")
    absent = {n for n in dir(np.ndarray) if n[0] != "_"} - set(dir(array))
    problems = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        root = node.func.value
        while isinstance(root, ast.Attribute):
            root = root.value
        of_module = isinstance(root, ast.Name) and root.id in ("np", "numpy", "xp", "math")
        name = node.func.attr
        if of_module or xp_path(node.func) is not None:
            continue
        if name in absent:
            problems.append(f"line {node.lineno}: arrays of CuPy have no method {name}")
        elif name in set(double.methods()) - {"sort"}:  # list.sort has keywords of its own
            given = {k.arg for k in node.keywords} - {None}
            if wrong := given - parameters(getattr(array, name)).keywords:
                problems.append(
                    f"line {node.lineno}: {name} of CuPy has no keyword {sorted(wrong)}"
                )
    return problems


def cupy_imports(source: str) -> list[str]:
    """Imports of CuPy, which only backend.py may have."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func):
            names = [str(a.value) for a in node.args if isinstance(a, ast.Constant)]
        if any(re.match(r"cupyx?(\.|$)", name) for name in names):
            problems.append(f"line {node.lineno}: imports CuPy")
    return problems


# fmt: off
AXIS_METHODS = [
    "all", "any", "argmax", "argmin", "argsort", "cumprod",
    "cumsum", "flip", "max", "mean", "min", "prod",
    "squeeze", "std", "sum", "swapaxes", "take", "transpose",
    "var",
]
# fmt: on


def _counts_from_the_front(node: ast.AST) -> bool:
    """Is this a non-negative axis, or a tuple with one?"""
    if isinstance(node, (ast.Tuple, ast.List)):
        return any(_counts_from_the_front(n) for n in node.elts)
    return isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 0


def _is_minus_one(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and ast.unparse(node) == "-1"


def _style_problem(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute) and node.attr == "T":
        return ".T turns the replica axis too: .mT"
    of_shape = isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".shape")
    if of_shape and _counts_from_the_front(node.slice):
        return "an axis counted from the front of shape"
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return None
    name = node.func.attr
    rest = node.args[1:] if xp_path(node.func) else node.args
    axes = [k.value for k in node.keywords if k.arg in ("axis", "axes")]
    if name in AXIS_METHODS:  # take(indices, axis), swapaxes(axis, axis), sum(axis)
        axes += (
            rest[1:2] if name == "take" else rest if name in ("swapaxes", "transpose") else rest[:1]
        )
    if any(map(_counts_from_the_front, axes)):
        return "an axis counted from the front"
    if name == "reshape" and rest:
        first = rest[0].elts[:1] if isinstance(rest[0], (ast.Tuple, ast.List)) else rest[:1]
        if any(map(_is_minus_one, first)):
            return "reshape(-1, ...) joins the replicas"
    return None


def style_problems(source: str, module: str = "", used: set | None = None) -> list[str]:
    """Visible breaches of the replica contract: ``.T``, axes from the front, ``reshape(-1)``."""
    problems = []
    for node in ast.walk(ast.parse(source)):
        if problem := _style_problem(node):
            key = (module, ast.unparse(node))
            if key not in ALLOWED:
                problems.append(f"line {node.lineno}: {key[1]}: {problem}")
            elif used is not None:
                used.add(key)
    return problems


# dlcore itself -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_cupy_has_every_name_and_keyword(path):
    assert name_problems(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_double_offers_every_name(path):
    missing = []
    for use in uses(ast.parse(path.read_text())):
        found = double.xp
        for part in use.path.split("."):
            found = getattr(found, part, None)
        if found is None:
            missing.append(use)
    assert missing == []


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.stem in DEVICE_MODULES], ids=lambda path: path.stem
)
def test_cupy_arrays_have_every_method(path):
    assert method_problems(path.read_text()) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_only_backend_imports_cupy(path):
    if path.stem == "backend":
        assert cupy_imports(path.read_text())
    else:
        assert cupy_imports(path.read_text()) == []


def test_replica_contract():
    used: set = set()
    problems = {
        path.stem: style_problems(path.read_text(), path.stem, used)
        for path in SOURCES
        if path.stem in DEVICE_MODULES
    }
    assert {module: found for module, found in problems.items() if found} == {}
    assert used == set(ALLOWED), "entries of ALLOWED that nothing needs any more"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_host_modules_do_not_touch_xp(path):
    """So no module that computes on the device escapes the checks above."""
    names = [use.path for use in uses(ast.parse(path.read_text()))]
    assert path.stem in DEVICE_MODULES or names == []


def test_dlcore_uses_names_of_xp():
    """The checks above are empty if the search finds nothing."""
    found = {use.path for path in SOURCES for use in uses(ast.parse(path.read_text()))}
    assert {"exp", "maximum", "where", "random.default_rng", "cuda.get_current_stream"} <= found


# The checks themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("xp.vecdot(a, b)", "CuPy has no vecdot"),
        ("self.xp.matvec(a, b)", "CuPy has no matvec"),
        ("y = layer.backend.xp.errstate", "CuPy has no errstate"),
        ("xp.linalg.vecdot(a, b)", "CuPy has no linalg.vecdot"),
        ("f = getattr(xp, 'vecdot')", "CuPy has no vecdot"),
        ("f = getattr(self.xp, name)", "CuPy has no <a computed name>"),
        ("xp.add(a, b, where=m)", r"cupy.add has no keyword \['where'\]"),
        ("self.xp.clip(a, min=0)", r"cupy.clip has no keyword \['min'\]"),
        ("xp.sum(a, axis=-1, initial=0)", r"cupy.sum has no keyword \['initial'\]"),
        ("xp.matmul(a, b, where=m)", r"cupy.matmul has no keyword \['where'\]"),
        ("xp.einsum('ij->i', a, out=b)", r"cupy.einsum has no keyword \['out'\]"),
        ("xp.max(a, **options)", r"cupy.max has no keyword \['\*\*'\]"),
        ("add = backend.xp.add\nadd(a, b, where=m)", r"line 2: cupy.add has no keyword"),
        ("xp.clip(a, 0, 1, b, c)", "cupy.clip: 5 arguments"),
        ("xp.exp(a, b, c)", "cupy.exp: 3 arguments"),
    ],
)
def test_a_wrong_name_is_caught(source, message):
    problems = name_problems(source)
    assert len(problems) == 1
    assert re.search(message, problems[0])


def test_right_names_pass():
    source = """
xp = self.xp
xp.add(a, b, out=c, dtype=xp.float32); xp.matmul(a, b, out=c); xp.einsum('ij->i', a, optimize=True)
backend.xp.random.default_rng(0).random((2, 3), dtype=xp.float32)
xp.pad(a, 1, mode="constant", constant_values=0); xp.where(a, b, c); xp.stack([a, b], axis=-1)
xp.cuda.get_current_stream().synchronize(); xp.take(*parts, axis=-1); other.vecdot(a, b)
x.var(axis=-1, ddof=1, keepdims=True); np.add(a, b, where=m); x.reshape(2, -1, order="C")
"""
    assert name_problems(source) == []
    assert method_problems(source) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x.sum(axis=-1, where=m)", r"sum of CuPy has no keyword \['where'\]"),
        ("self.x.max(initial=0)", r"max of CuPy has no keyword \['initial'\]"),
        ("(x * y).take(i, mode='clip')", r"take of CuPy has no keyword \['mode'\]"),
        ("x.setflags(write=False)", "no method setflags"),
    ],
)
def test_a_wrong_method_is_caught(source, message):
    problems = method_problems(source)
    assert len(problems) == 1
    assert re.search(message, problems[0])


@pytest.mark.parametrize(
    "source",
    [
        "import cupy",
        "import cupy as cp, numpy",
        "def f():\n    from cupy import fuse",
        "import cupyx.scipy",
        "importlib.import_module('cupy')",
        "__import__('cupy')",
    ],
)
def test_an_import_of_cupy_is_caught(source):
    assert len(cupy_imports(source)) == 1


def test_other_imports_pass():
    assert cupy_imports("import numpy\nfrom dlcore import backend\nimport cupyish\nf('cupy')") == []


@pytest.mark.parametrize(
    "source",
    [
        "self.x.T",
        "x.shape[0]",
        "n = self.x.shape[1]",
        "x.sum(axis=0)",
        "xp.sum(x, axis=0)",
        "xp.sum(x, 0)",
        "x.mean(0)",
        "x.var(axis=(0, -1))",
        "x.reshape(-1)",
        "x.reshape((-1, 3))",
        "xp.reshape(x, (-1, 3))",
        "x.swapaxes(0, 1)",
        "xp.stack(parts, axis=1)",
        "xp.take(x, index, 0)",
        "x.transpose(0, 2, 1)",
    ],
)
def test_a_breach_of_the_replica_contract_is_caught(source):
    assert len(style_problems(source)) == 1


def test_the_contracts_own_style_passes():
    source = """
x.mT @ dy; dy.sum(axis=-2, keepdims=True); x.shape[-1]; x.shape[:-1]; x.reshape(*x.shape[:-3], -1)
xp.take(x, 0, axis=-1); x.swapaxes(-1, -2); xp.sum(x, -1); xp.maximum(x, 0); x.clip(0, 1); shape[0]
x.reshape(replicas, -1); xp.full_like(x, 0); x[0]; x.max()
"""
    assert style_problems(source) == []
