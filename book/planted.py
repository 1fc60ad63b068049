"""Plant a fault in a copy of the book and see that nbval turns red: a check of the checks.

``python -m book.planted`` plants each of `FAULTS` in turn, in each of the arithmetics named (by default
canonical, nehalem and sandybridge), and runs the chapter that should notice until its first failing cell. It
ends with an error where a fault went unseen.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARITHMETICS = ("canonical", "nehalem", "sandybridge")


@dataclass(frozen=True)
class Fault:
    """A mistake: in ``file``, ``right``, which stands there once, becomes ``wrong``; ``chapter`` notices."""

    name: str
    file: str
    right: str
    wrong: str
    chapter: str


FAULTS = (
    Fault(
        "a wrong constant in Adam",
        "dlcore/optimizers.py",
        '"[)", default=0.999)',
        '"[)", default=0.9)',
        "06-optimizers",
    ),
    Fault(
        "batch norm without its mean",
        "dlcore/layers.py",
        "    x_hat = rows - mean\n",
        "    x_hat = rows - 0 * mean\n",
        "04-batch-normalization",
    ),
    Fault(
        "wrong labels in a tenth of the data",
        "dlcore/datasets.py",
        'f"y_{part}": labels}',
        'f"y_{part}": (labels + (np.arange(len(labels)) % 100 < 10)) % len(table)}',
        "07-regularization",
    ),
)


def plant(fault: Fault, folder: Path) -> None:
    """Copy what nbval needs into ``folder``, with the fault in it.

    Raises ``ValueError`` where the right text does not stand there once: the code has changed.
    """
    for name in ("dlcore", "book", "chapters"):
        ignored = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / fault.file
    text = path.read_text("utf-8")
    if text.count(fault.right) != 1:
        raise ValueError(
            f"{fault.file}: expected {fault.right!r} once, got {text.count(fault.right)}"
        )
    path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")


def seen(fault: Fault, arithmetic: str) -> str:
    """Run the fault's chapter in a copy until its first failing cell; return what nbval said, or nothing."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        plant(fault, folder)
        variables = {
            "DLCORE_ARITHMETIC": arithmetic,
            "PYTHONPATH": str(folder),
            "TQDM_DISABLE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-x", "-q"]
        command += ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
        command += ["--nbval-sanitize-with", "book/sanitize.cfg", f"chapters/{fault.chapter}.ipynb"]
        done = subprocess.run(
            command, cwd=folder, env=os.environ | variables, capture_output=True, text=True
        )
    if done.returncode == 0:
        return ""
    if done.returncode != 1:
        raise RuntimeError(
            f"nbval: expected an exit code of 0 or 1, got {done.returncode}:\n{done.stdout}"
        )
    said = re.findall(
        r"^.*(?:as stored and .* now|the verdict turned).*$", done.stdout, re.MULTILINE
    )
    return said[0].strip() if said else "a cell failed"


def main(arguments: list[str] | None = None) -> int:
    """Command line; return 1 if a fault went unseen."""
    parser = argparse.ArgumentParser(prog="python -m book.planted", description=__doc__)
    parser.add_argument("arithmetics", nargs="*", default=ARITHMETICS)
    parser.add_argument(
        "--fault", nargs="+", type=int, default=range(len(FAULTS)), help="by number"
    )
    options = parser.parse_args(arguments)
    unseen = 0
    for arithmetic in options.arithmetics:
        for fault in [FAULTS[number] for number in options.fault]:
            start = time.perf_counter()
            said = seen(fault, arithmetic)
            unseen += not said
            seconds = time.perf_counter() - start
            print(f"{arithmetic}, {fault.name}: {said or 'NOT SEEN'} ({seconds:.0f} s)", flush=True)
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
