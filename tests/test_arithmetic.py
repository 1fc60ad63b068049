"""Canonical arithmetic: the same bits on every x86-64 machine with AVX2; what a process says of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from book import arithmetic as command
from dlcore import arithmetic

ROOT = Path(__file__).resolve().parent.parent
HAD = [name for name in arithmetic.ARITHMETICS if not arithmetic.why_not(name)]
needs_avx2 = pytest.mark.skipif(
    "canonical" not in HAD, reason=f"no canonical bits here: {arithmetic.why_not('canonical')}"
)

#: What TRAINING prints in canonical arithmetic: the end of training, and how the loss fell.
TRAINED = "520850142e11ed603c6759bdcf1aea9ee54ee02f7be45e244b1622a61d2ec79e"
TRAINING = """
import hashlib
import numpy as np
import dlcore as dl

data = dl.datasets.mnist1d(0, train=400, valid=100, test=100)
layers = [dl.Dense(40, 30), dl.BatchNorm(30), dl.ELU(), dl.Dropout(0.2)]
layers += [dl.Dense(30, 30), dl.Tanh(), dl.Dense(30, 10)]
network = dl.Network(layers, seeds=[0, 1, 2])
history = dl.fit(network, data, dl.Adam, lr=0.01, steps=60, batch_size=50, progress=False)
found = hashlib.sha256(network.parameters.tobytes())
found.update(np.ascontiguousarray(history.train_loss).tobytes())
print(found.hexdigest())
"""
SAY = "from dlcore import arithmetic; print(arithmetic.describe(), arithmetic.digest())"


def run_in(name, program, **variables):
    """Run a program in an arithmetic; warnings are errors, those of NumPy's set-up included."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=os.environ | variables | arithmetic.environment(name),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@needs_avx2
def test_canonical_arithmetic_is_recognised_and_trains_to_the_stored_bits():
    assert run_in("canonical", SAY) == f"canonical {arithmetic.CANONICAL_DIGEST}"
    assert run_in("canonical", TRAINING) == TRAINED


@needs_avx2
def test_it_does_not_hang_on_what_was_set_before():
    variables = {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "2"}
    assert run_in("canonical", SAY, **variables).startswith("canonical ")


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in HAD if name != "canonical"])
def test_other_arithmetics_have_other_bits_and_say_which(name):
    kernel = arithmetic.ARITHMETICS[name].kernel
    said = run_in(name, SAY)
    assert kernel in said
    assert arithmetic.CANONICAL_DIGEST not in said
    assert run_in(name, TRAINING) != TRAINED


def test_one_arithmetic_can_be_chosen_inside_another(monkeypatch):
    if "nehalem" not in HAD:
        pytest.skip("there is no other arithmetic to be had here")
    program = "from dlcore import arithmetic; print(arithmetic.environment('canonical'))"
    assert run_in("nehalem", program) == str(arithmetic.environment("canonical"))


def test_a_machine_that_cannot_says_why(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert arithmetic.why_not("canonical").endswith("expected an x86-64 processor, got arm64")
    with pytest.raises(RuntimeError, match="expected an x86-64 processor, got arm64"):
        arithmetic.environment("canonical")


def test_an_old_processor_says_why(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(
        arithmetic, "_simd", lambda kind: ["SSE42"] if kind == "found" else ["AVX2"]
    )
    assert "expected a processor with x86-64-V3, got V2" in arithmetic.why_not("canonical")
    assert arithmetic.why_not("nehalem") == "" or "OpenBLAS" in arithmetic.why_not("nehalem")


def test_another_blas_is_none_of_them(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(arithmetic, "_simd", lambda kind: ["X86_V3"] if kind == "found" else [])
    monkeypatch.setattr(arithmetic, "_openblas", lambda: [])
    assert arithmetic.why_not("canonical").endswith(
        "expected NumPy with OpenBLAS, got another BLAS or none"
    )
    assert arithmetic.describe().count(",") == 2 or arithmetic.is_canonical()


def test_names_are_checked():
    with pytest.raises(ValueError, match="name: expected 'native', 'canonical'"):
        arithmetic.environment("haswell")


def test_newer_levels_are_switched_off_and_no_others(monkeypatch):
    monkeypatch.setattr(arithmetic, "why_not", lambda name: "")
    found = ["AVX2", "FMA3", "AVX512F", "AVX512_SKX"]
    monkeypatch.setattr(
        arithmetic, "_simd", lambda kind: found if kind == "found" else ["AVX512_KNM"]
    )
    monkeypatch.delenv("NPY_DISABLE_CPU_FEATURES", raising=False)
    switched_off = arithmetic.environment("canonical")["NPY_DISABLE_CPU_FEATURES"]
    assert switched_off == "AVX512F AVX512_SKX"
    assert arithmetic.environment("nehalem")["NPY_DISABLE_CPU_FEATURES"].split() == found


def test_notebooks_run_in_canonical_arithmetic_or_say_that_they_cannot(monkeypatch, capsys):
    monkeypatch.delenv(command.VARIABLE, raising=False)
    monkeypatch.setattr(arithmetic, "why_not", lambda name: "" if name == "native" else "no AVX2")
    assert command.chosen()[0] == "native"
    assert "no AVX2. Notebooks run in this machine's own arithmetic." in capsys.readouterr().err
    monkeypatch.setenv(command.VARIABLE, "canonical")
    with pytest.raises(RuntimeError, match="no AVX2"):
        command.chosen()


@pytest.mark.thorough
@needs_avx2
def test_the_command_runs_another_one(capfd):
    done = subprocess.run(
        [sys.executable, "-m", "book.arithmetic", "canonical", "--", sys.executable, "-c", SAY],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("canonical ")


def test_the_command_says_what_can_be_had(capsys):
    assert command.main([]) == 0
    printed = capsys.readouterr().out
    assert "This process: " in printed
    assert all(f"\n{name}: " in printed for name in arithmetic.ARITHMETICS)
