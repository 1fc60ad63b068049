"""What the first cell of a launched notebook does: install dlcore where it is missing, and say what will run.

``book.launch`` writes this module's functions into that cell, so they import nothing but Python's own
library until dlcore is there. Each way to fail has one sentence. Packages of the place stay as they are:
pip is told to keep every version that is installed.
"""

import importlib
import importlib.metadata
import importlib.util
import math
import os
import re
import shutil
import site
import subprocess
import sys
import tempfile
import warnings

PYTHON = (3, 11)
# The first driver for CUDA 12 and for CUDA 13, and the lowest compute capability of each.
CUDA_12_DRIVER, CUDA_12_CARD = 525, 5.0
CUDA_13_DRIVER, CUDA_13_CARD = 580, 7.5
INTERNET = {
    "Kaggle": "Kaggle's internet is off: in the panel at the right, under Session options, switch "
    "Internet on (Kaggle first asks for a verified phone number), then run this cell again.",
    "": "There is no way to the internet from here, and dlcore comes from there: connect, then run "
    "this cell again.",
}
# What pip says, and what it means. The first that fits is told.
MEANINGS = (
    (
        r"name resolution|resolve host|getaddrinfo|new connection|network is unreachable"
        r"|timed out|connection refused|no route to host|proxyerror|max retries"
        r"|from versions: none\)",
        "{internet}",
    ),
    (
        r"no module named pip",
        "This Python has no pip: install it (python -m ensurepip), or install dlcore from {source} "
        "with what made this environment, for example uv.",
    ),
    (
        r"cannot find command .git",
        "git is missing here, and pip needs it to fetch dlcore: install git, then run this cell again.",
    ),
    (
        r"externally-managed",
        "This Python belongs to the system, which lets pip install nothing: start Jupyter from a "
        "virtual environment (python -m venv).",
    ),
    (
        r"requires a different python|requires-python",
        "dlcore needs Python {python} or newer, and this is {version}.",
    ),
    (
        r"resolutionimpossible|conflicting dependencies|no matching distribution",
        "A package that is installed here does not fit dlcore ({detail}); nothing was changed: make "
        "a fresh environment for the book.",
    ),
    (r"no space left", "The disk is full: dlcore could not be installed."),
    (
        r"permission denied|read-only file system",
        "This Python's folder may not be written to: start Jupyter from a virtual environment.",
    ),
    (
        r"repository not found|could not read username|authentication failed|did not match any"
        r"|not our ref|returned error: 40",
        "The book's source was not found at {source}: it may have moved; open the notebook from the "
        "book's page again.",
    ),
    (r"", "pip could not install it: {detail}"),
)


class NotInstalled(Exception):
    """dlcore could not be installed. Notebooks show its sentence without a traceback."""

    def _render_traceback_(self):
        return [str(self)]


def place():
    """Return where this runs: "Colab", "Kaggle", "Binder", or "" for anywhere else."""
    # Kaggle's image is built on Colab's, whose marks it may have too.
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ or "KAGGLE_URL_BASE" in os.environ:
        return "Kaggle"
    if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules:
        return "Colab"
    if "BINDER_SERVICE_HOST" in os.environ or "BINDER_REPO_URL" in os.environ:
        return "Binder"
    return ""


def cores():
    """Return how many cores this process may use: containers often have fewer than their machine."""
    if hasattr(os, "sched_getaffinity"):
        limits = [len(os.sched_getaffinity(0))]
    else:
        limits = [os.cpu_count() or 1]
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        limits.append(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max": no limit
        pass
    limit = os.environ.get("CPU_LIMIT", "")  # which JupyterHub sets, and Binder
    if re.fullmatch(r"\d+(\.\d+)?", limit) and float(limit) > 0:
        limits.append(float(limit))
    return max(1, math.ceil(min(limits)))


# --------------------------------------------------------------------------------------------------
# Installing


def installed():
    """Return the lines ``name==version`` of every package that is here, for pip to keep."""
    found = {}
    for package in importlib.metadata.distributions():
        name, version = package.metadata["Name"], package.version
        if re.fullmatch(r"[\w.-]+", str(name)) and re.fullmatch(r"\d[\w.!+-]*", str(version)):
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), f"{name}=={version}")
    return sorted(found.values())


def pip(requirement):
    """Install a requirement and what it lacks, and nothing else; return what pip said if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        keep = os.path.join(folder, "keep.txt")
        with open(keep, "w") as file:
            file.write("\n".join(installed()) + "\n")
        command = [sys.executable, "-m", "pip", "install", "--no-input"]
        command += ["--disable-pip-version-check", "--constraint", keep, requirement]
        # Nobody could answer a question for a password.
        environment = dict(os.environ, GIT_TERMINAL_PROMPT="0")
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    importlib.invalidate_caches()
    if done.returncode == 0:
        return ""
    return f"{done.stdout}\n{done.stderr}".strip() or f"it ended with {done.returncode}"


def meaning(said, source, where):
    """Return one sentence for what pip said when it failed."""
    sentence = next(text for pattern, text in MEANINGS if re.search(pattern, said.lower()))
    conflicts = re.findall(r"depends on ([^\s;]+)|\(constraint\) (\S+)", said)
    wanted = ", ".join(dict.fromkeys(a or b for a, b in conflicts))
    errors = re.findall(r"(?m)^\s*(?:ERROR|error): *(.+)", said)
    last = (errors or said.strip().splitlines() or ["it gave no reason"])[-1]
    return sentence.format(
        internet=INTERNET.get(where, INTERNET[""]),
        source=source,
        python=".".join(map(str, PYTHON)),
        version=".".join(map(str, sys.version_info[:2])),
        detail=wanted or last,
    )


def install(source, where):
    """Install dlcore if it is missing; raises NotInstalled with one sentence."""
    if importlib.util.find_spec("dlcore") is not None:
        return
    if sys.version_info[:2] < PYTHON:
        raise NotInstalled(meaning("requires-python", source, where))
    said = pip(source)
    if said:
        raise NotInstalled(f"dlcore is not installed. {meaning(said, source, where)}")
    if importlib.util.find_spec("dlcore") is None:
        # pip chose the user's own folder, which was not there when Python started.
        site.addsitedir(site.getusersitepackages())
    if importlib.util.find_spec("dlcore") is None:
        raise NotInstalled("dlcore is installed, but not for this Python: restart the kernel.")


# --------------------------------------------------------------------------------------------------
# A GPU


def smi(fields):
    """Return what nvidia-smi tells of each GPU, one list a GPU; None where it fails."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return rows if done.returncode == 0 and rows else None


def choose_cupy():
    """Return (what to install, a sentence): CuPy for the GPU and its driver, or "" and why none."""
    if shutil.which("nvidia-smi") is None:
        return "", "there is no GPU here, and none is needed"
    drivers = smi("driver_version") or smi("kmd_version")
    numbers = [re.match(r"\d+", row[0]) for row in drivers or []]
    if not numbers or None in numbers:
        return "", "there is no GPU that answers here, and none is needed"
    driver = min(int(number[0]) for number in numbers)
    if driver < CUDA_12_DRIVER:
        return "", f"the GPU's driver, {driver}, is older than {CUDA_12_DRIVER}, which CuPy needs"
    cards = [re.match(r"\d+\.\d+", row[0]) for row in smi("compute_cap") or []]
    if not cards or None in cards:
        return "", "the GPU does not tell its kind"
    card = min(float(number[0]) for number in cards)
    if card < CUDA_12_CARD:
        return "", f"the GPU's kind, {card}, is older than {CUDA_12_CARD}, which CUDA 12 needs"
    newer = driver >= CUDA_13_DRIVER and card >= CUDA_13_CARD
    # Since version 14 CUDA's libraries come only with the extra.
    return f"cupy-cuda{13 if newer else 12}x[ctk]>=14", "on the GPU"


def backend(where):
    """Return the name of what will compute, "numpy" or "cupy", and why; install CuPy for a GPU."""
    import dlcore.backend

    asked = os.environ.get("DLCORE_BACKEND", "auto")
    if asked == "numpy":
        return "numpy", "as DLCORE_BACKEND says"
    wanted, why = choose_cupy()
    if wanted and importlib.util.find_spec("cupy") is None:
        said = pip(wanted)
        if said:
            return "numpy", f"for the GPU's CuPy is not installed: {meaning(said, wanted, where)}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            name = dlcore.backend.get_backend().name
        except RuntimeError as error:  # DLCORE_BACKEND asks for CuPy
            raise NotInstalled(f"{error}; {why}.") from None
    if caught:
        why = str(caught[-1].message).partition(": ")[2]
    elif name == "numpy" and wanted:
        why = "for CuPy sees no GPU"
    return name, why


# --------------------------------------------------------------------------------------------------


def start(size, source, takes):
    """Install what is missing, set the size of the experiments, and say what will run."""
    where = place()
    install(source, where)
    name, why = backend(where)
    usual = "quick" if where else "full"
    size = size or os.environ.get("DLCORE_SIZE") or usual
    os.environ["DLCORE_SIZE"] = size
    count = cores()
    version = importlib.metadata.version("dlcore")
    kind = {"numpy": "NumPy", "cupy": "CuPy"}[name]
    print(f"dlcore {version}, {where or 'this machine'}: {kind} computes ({why}); cores: {count}.")
    if size == "quick":
        print('Size "quick": few seeds and steps, half a minute to a minute. Verdicts are a quick')
        print("look and may differ from those of the book, which come from all seeds.")
        print(f'For those set SIZE = "full" above and run all cells again: {takes} on two cores.')
    else:
        print(f'Size "{size}": {takes} on two cores of a laptop, with NumPy.')
        if count < 2:
            print("Here there is one: it takes about twice as long.")
        print('For a first look set SIZE = "quick" above, before you run the other cells.')
