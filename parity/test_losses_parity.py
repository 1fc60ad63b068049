"""Every loss: value, gradient and correct answers against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import assert_same, public, tensor
from torch.nn import functional as F

import dlcore as dl
from dlcore import losses

RNG = np.random.default_rng(1)
LABELS = RNG.integers(0, 5, (2, 7))
TARGETS = RNG.random((2, 7, 5))


def binary(y, t):
    """PyTorch means over outputs too; dlcore sums over outputs and means over the batch."""
    return F.binary_cross_entropy_with_logits(y, t, reduction="sum") / len(y)


#: Loss, PyTorch's, targets.
TABLE = [
    (dl.SoftmaxCrossEntropy, F.cross_entropy, LABELS),
    (dl.BinaryCrossEntropy, binary, TARGETS),
    (dl.BinaryCrossEntropy, binary, np.round(TARGETS)),
    (dl.MeanSquaredError, F.mse_loss, TARGETS),
]


def test_every_public_loss_is_compared():
    assert {cls for cls, _, _ in TABLE} == set(public(losses).values())


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("cls", "reference", "target"), TABLE)
def test_value_and_gradient(cls, reference, target, scale):
    y = scale * RNG.standard_normal((2, 7, 5))
    value, dy = cls()(y, target)
    for r in range(2):
        theirs = tensor(y[r], grad=True)
        loss = reference(theirs, torch.tensor(target[r]))
        loss.backward()
        assert_same(value[r], loss)
        assert_same(dy[r], theirs.grad)
