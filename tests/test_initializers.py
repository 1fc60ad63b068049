import math
import statistics

import numpy as np
import pytest

from dlcore import Network, initializers, mlp
from dlcore.initializers import NAMES

#: name -> (distribution, variance from fan_in and fan_out)
TABLE = {
    "normal": ("normal", lambda i, o: 1.0),
    "uniform": ("uniform", lambda i, o: 0.05**2 / 3),
    "lecun_normal": ("normal", lambda i, o: 1 / i),
    "lecun_uniform": ("uniform", lambda i, o: 1 / i),
    "glorot_normal": ("normal", lambda i, o: 2 / (i + o)),
    "glorot_uniform": ("uniform", lambda i, o: 2 / (i + o)),
    "he_normal": ("normal", lambda i, o: 2 / i),
    "he_uniform": ("uniform", lambda i, o: 2 / i),
    "orthogonal": ("orthogonal", lambda i, o: 1 / max(i, o)),
}
#: shape -> fans
SHAPES = {(300, 100): (300, 100), (60, 500): (60, 500), (5, 3, 20, 90): (300, 1350)}
KURTOSIS = {"normal": 3.0, "uniform": 9 / 5}


def test_table_holds_every_name():
    assert TABLE.keys() == NAMES.keys()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [n for n in TABLE if n != "orthogonal"])
def test_moments(name, shape):
    """Mean, variance and fourth moment, each to four standard errors."""
    kind, formula = TABLE[name]
    w = initializers.get(name)(np.random.default_rng(1), shape)
    variance, n = formula(*SHAPES[shape]), w.size
    assert w.shape == shape
    assert w.dtype == np.float64
    assert abs(w.mean()) < 4 * math.sqrt(variance / n)
    error = variance * math.sqrt((KURTOSIS[kind] - 1) / n)
    assert abs(w.var() - variance) < 4 * error
    assert abs(np.mean(w**4) / variance**2 / KURTOSIS[kind] - 1) < 4 * math.sqrt(96 / 9 / n)
    if kind == "uniform":
        limit = math.sqrt(3 * variance)
        assert 0.99 * limit < abs(w).max() <= limit


@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
@pytest.mark.parametrize(
    "shape", [(40, 40), (60, 20), (20, 60), (3, 3, 4, 50), (3, 2, 10, 20)], ids=str
)
def test_orthogonal(shape, gain):
    w = initializers.orthogonal(gain)(np.random.default_rng(2), shape)
    assert w.shape == shape
    flat = w.reshape(-1, shape[-1])
    np.testing.assert_allclose(np.linalg.svd(flat, compute_uv=False), gain, rtol=1e-12)


def test_orthogonal_is_uniform_over_rotations():
    """Without the signs of R's diagonal the entries of Q would have a mean: Haar measure has none."""
    draws = [initializers.orthogonal()(np.random.default_rng(k), (2, 2)) for k in range(2000)]
    traces = [float(np.trace(w)) for w in draws]
    assert abs(statistics.fmean(traces)) < 4 / math.sqrt(2000)
    assert abs(statistics.fmean(t * t for t in traces) - 1) < 4 * math.sqrt(3 / 2000)


@pytest.mark.parametrize(
    "make", [initializers.normal, initializers.orthogonal, initializers.uniform]
)
def test_scale_zero_gives_zeros(make):
    np.testing.assert_array_equal(make(0.0)(np.random.default_rng(0), (4, 3)), 0)


def test_normal_and_uniform_scale():
    rng = np.random.default_rng(0)
    assert initializers.normal(0.01)(rng, (300, 300)).std() == pytest.approx(0.01, rel=0.02)
    assert abs(initializers.uniform(0.3)(rng, (300, 300))).max() == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize(("shape", "fans"), [((7, 3), (7, 3)), ((3, 5, 7, 2), (105, 30))])
def test_fans(shape, fans):
    assert initializers.fans(shape) == fans


@pytest.mark.parametrize("name", TABLE)
def test_network_takes_names_and_functions(name):
    named = Network(mlp([6, 5, 4], initializer=name), [1, 2], "numpy")
    given = Network(mlp([6, 5, 4], initializer=NAMES[name]), [1, 2], "numpy")
    np.testing.assert_array_equal(named.parameters, given.parameters)
    assert named.parameters.dtype == np.float32
    assert np.any(named.layers[0].W[0] != named.layers[0].W[1])


def test_own_function():
    network = Network(mlp([6, 5], initializer=lambda rng, shape: np.full(shape, 0.25)), 0, "numpy")
    np.testing.assert_array_equal(network.layers[0].W, 0.25)
