"""Run a command in one of the arithmetics that `dlcore.arithmetic` knows.

``python -m book.arithmetic NAME -- COMMAND …`` runs the command so; without a command it says what this
machine can do.
"""

from __future__ import annotations

import argparse
import os
import sys

from dlcore import arithmetic

#: The variable that names the arithmetic in which notebooks run.
VARIABLE = "DLCORE_ARITHMETIC"


def chosen() -> tuple[str, dict[str, str]]:
    """Return the name of the arithmetic that notebooks are to run in, and its environment.

    `VARIABLE` names it, by default "canonical", or the machine's own where that cannot be had: then it is
    said on standard error. Raises ``ValueError`` for an unknown name, ``RuntimeError`` for one that was asked
    for in vain.
    """
    asked = os.environ.get(VARIABLE) or ""
    if asked:
        return asked, arithmetic.environment(asked)
    if problem := arithmetic.why_not("canonical"):
        print(f"{problem}. Notebooks run in this machine's own arithmetic.", file=sys.stderr)
        return "native", arithmetic.environment("native")
    return "canonical", arithmetic.environment("canonical")


def report() -> str:
    """Return what this machine can compute in, one arithmetic a line."""
    lines = [f"This process: {arithmetic.describe()}"]
    for name in ("native", *arithmetic.ARITHMETICS):
        lines.append(f"{name}: {arithmetic.why_not(name) or 'can be had here'}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Command line; the command takes this process's place."""
    parser = argparse.ArgumentParser(prog="python -m book.arithmetic", description=__doc__)
    parser.add_argument("name", nargs="?", choices=["native", *arithmetic.ARITHMETICS])
    parser.add_argument("command", nargs="*", help="after --")
    options = parser.parse_args(arguments)
    if not options.command:
        print(report())
        return 0
    variables = os.environ | arithmetic.environment(options.name)
    os.execvpe(options.command[0], options.command, variables)


if __name__ == "__main__":
    sys.exit(main())
