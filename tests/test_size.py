"""The package stays easy to read: few tokens a line, short functions, few branches in each.

Modules and functions that are above a limit today are named here. The lists may only get shorter: a new entry
fails, and so does one that is no longer needed.
"""

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: At most so many tokens a line of code, averaged over a module.
TOKENS = 11
#: At most so many lines of code, and branches, in a function.
LINES, BRANCHES = 40, 10
#: Modules above the limit of tokens, and functions above one of theirs.
DENSE = {
    "activations", "augmentation", "batches", "convolution", "datasets", "experiments",
    "gradcheck", "initializers", "layers", "losses", "meanfield", "network", "norms",
    "optimizers", "packing", "plots", "probes", "random", "recurrent", "regularizers",
    "schedules", "statistics", "training", "transfer",
}  # fmt: skip
LONG = {
    "fingerprints.wrapper", "folding.without_batch_norm", "packing.joined", "plots.bands",
    "statistics.verdict",
}  # fmt: skip

LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip
BRANCHING = (
    ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case,
)  # fmt: skip
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(tree):
    """Numbers of the lines that belong to docstrings."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node):
            text = node.body[0]
            found.update(range(text.lineno, text.end_lineno + 1))
    return found


def tokens_by_line(text):
    """Number of tokens on each line of code, by its number; docstrings and comments are none."""
    skipped, counts = docstrings(ast.parse(text)), {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type not in LAYOUT and line not in skipped:
            counts[line] = counts.get(line, 0) + 1
    return counts


def branches(function):
    """Ways to go in a function: ifs, loops, ternaries, comprehensions, and each ``and`` and ``or``."""
    inner = [n for n in ast.walk(function) if n is not function]
    logical = sum(len(n.values) - 1 for n in inner if isinstance(n, ast.BoolOp))
    return logical + sum(isinstance(n, BRANCHING) for n in inner)


def modules():
    return sorted((ROOT / "dlcore").rglob("*.py"))


def name(path):
    return path.relative_to(ROOT / "dlcore").with_suffix("").as_posix()


def test_tokens_and_branches_are_counted():
    code = '"""Module."""\nx = [a for a in b if a]  # none\n\ndef f(y):\n    """Doc."""\n'
    code += "    return 1 if y and x or 2 else 3\n"
    assert tokens_by_line(code) == {2: 11, 4: 6, 6: 10}
    assert branches(ast.parse(code).body[2]) == 3


def test_lines_are_not_dense():
    found = set()
    for path in modules():
        counts = tokens_by_line(path.read_text("utf-8"))
        if counts and sum(counts.values()) / len(counts) > TOKENS:
            found.add(name(path))
    assert found == DENSE


def test_functions_are_short_and_go_few_ways():
    found = set()
    for path in modules():
        text = path.read_text("utf-8")
        code = set(tokens_by_line(text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, FUNCTIONS):
                lines = len(code & set(range(node.lineno, node.end_lineno + 1)))
                if lines > LINES or branches(node) > BRANCHES:
                    found.add(f"{name(path)}.{node.name}")
    assert found == LONG
