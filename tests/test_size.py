"""The package stays small enough to be read: lines of code without docstrings and comments."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def lines_of_code(text):
    """Count lines that are neither blank, nor a comment, nor part of a docstring."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            skipped.update(range(docstring.lineno, docstring.end_lineno + 1))
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    return sum(i not in skipped and line != "" and line[0] != "#" for i, line in lines)


def test_lines_are_counted():
    code = ["x = 1  # kept", "# comment", "def f():", '    """Doc."""', '    return """', '  a"""']
    text = "\n".join(['"""Module.', "", 'More."""', "", *code])
    assert lines_of_code(text) == 4


def test_the_package_fits_in_a_head():
    counts = {p.name: lines_of_code(p.read_text("utf-8")) for p in (ROOT / "dlcore").rglob("*.py")}
    table = sorted(counts.items(), key=lambda item: -item[1])
    listed = "\n".join(f"{number:5d} {name}" for name, number in table)
    total = sum(counts.values())
    assert total < 3000, f"{total} lines of code, expected fewer than 3000\n{listed}"


def test_the_double_of_the_device_is_small():
    assert lines_of_code((ROOT / "tests" / "double.py").read_text("utf-8")) <= 300
