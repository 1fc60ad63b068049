"""Every initializer against torch.nn.init: the generators differ, so spreads are compared.

PyTorch's weights are (fan_out, fan_in, height, width), dlcore's (height, width, fan_in, fan_out).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from compare import public
from torch.nn import init

from dlcore import initializers

SHAPES = [(300, 200), (200, 300), (3, 3, 50, 40)]

#: Name in dlcore, PyTorch's function, its settings, whether values are uniform.
TABLE = {
    "normal": (init.normal_, dict(std=1.0), False),
    "uniform": (init.uniform_, dict(a=-0.05, b=0.05), True),
    "glorot_normal": (init.xavier_normal_, {}, False),
    "glorot_uniform": (init.xavier_uniform_, {}, True),
    "he_normal": (init.kaiming_normal_, dict(nonlinearity="relu"), False),
    "he_uniform": (init.kaiming_uniform_, dict(nonlinearity="relu"), True),
    # PyTorch has no name for LeCun's; with gain 1 Kaiming's is the same.
    "lecun_normal": (init.kaiming_normal_, dict(nonlinearity="linear"), False),
    "lecun_uniform": (init.kaiming_uniform_, dict(nonlinearity="linear"), True),
    "orthogonal": (init.orthogonal_, {}, None),
}
#: Public names that are no initializers, or have none to be compared with in PyTorch.
NOT_COMPARED = {
    "fans": "a helper",
    "get": "a helper",
    "lsuv": "driven by data; PyTorch has none",
}


def test_every_public_initializer_is_compared():
    known = set(initializers.NAMES) | set(public(initializers))
    assert known - set(NOT_COMPARED) == set(TABLE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [n for n in TABLE if n != "orthogonal"])
def test_spread(name, shape):
    """Equal fans and gains mean equal spreads: exact for the bounds, six standard errors else."""
    function, settings, uniform = TABLE[name]
    ours = initializers.get(name)(np.random.default_rng(4), shape)
    theirs = torch.empty(*shape[-1:-3:-1], *shape[:-2])
    function(theirs, generator=torch.Generator().manual_seed(4), **settings)
    theirs = theirs.numpy()
    error = theirs.std() * math.sqrt((0.4 if uniform else 1.0) / ours.size)
    assert abs(ours.std() - theirs.std()) < 6 * error
    assert abs(ours.mean() - theirs.mean()) < 6 * math.sqrt(2) * theirs.std() / math.sqrt(ours.size)
    if uniform:
        assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_fans(shape):
    """PyTorch's own count of both fans, on which its spreads rest."""
    theirs = init._calculate_fan_in_and_fan_out(torch.empty(*shape[-1:-3:-1], *shape[:-2]))
    assert initializers.fans(shape) == theirs


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("shape", [(20, 20), (30, 20), (20, 30)])
def test_orthogonal(shape, gain):
    """Rows or columns, whichever are fewer, orthogonal and of length gain: in both libraries."""
    ours = initializers.orthogonal(gain)(np.random.default_rng(4), shape)
    theirs = init.orthogonal_(torch.empty(*shape[::-1]), gain).numpy().T
    for w in (ours, theirs):
        np.testing.assert_allclose(np.linalg.svd(w)[1], gain, rtol=1e-12)
