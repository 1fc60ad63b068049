"""Planted faults: each can be planted, and changes what dlcore computes."""

import os
import subprocess
import sys

import pytest

from book import planted

PROGRAM = """
import numpy as np
import dlcore as dl
layer = dl.Network([dl.BatchNorm(1)], seeds=0).layers[0]
print(dl.Adam().beta2, layer.forward(np.array([[1.0], [3.0]], "float32"), training=True).ravel())
print(dl.datasets.mnist1d(0, train=100, test=100).y_train.tolist())
"""


def printed(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.name)
def test_each_fault_changes_what_dlcore_computes(fault, tmp_path):
    planted.plant(fault, tmp_path)
    assert printed(tmp_path) != printed(planted.ROOT)
    assert (planted.ROOT / "chapters" / f"{fault.chapter}.ipynb").exists()


def test_a_fault_whose_place_is_gone_is_refused(tmp_path):
    gone = planted.Fault("gone", "dlcore/layers.py", "no such line", "", "01-gradients")
    with pytest.raises(ValueError, match=r"dlcore/layers\.py: expected 'no such line' once, got 0"):
        planted.plant(gone, tmp_path)
