import numpy as np
import pytest
import small
from scipy import special

import dlcore as dl
from dlcore.activations import Activation

C = np.sqrt(2 / np.pi)
#: class -> its formula, written independently, in float64
FORMULAS = {
    dl.Identity: lambda z: z,
    dl.Logistic: special.expit,
    dl.Tanh: lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    dl.ReLU: lambda z: z * np.heaviside(z, 0),
    dl.LeakyReLU: lambda z: np.where(z < 0, 0.01 * z, z),
    dl.ELU: lambda z: np.where(z < 0, np.exp(np.minimum(z, 1)) - 1, z),
    dl.SELU: lambda z: (
        1.0507009873554805 * np.where(z < 0, 1.6732632423543772 * (np.exp(np.minimum(z, 1)) - 1), z)
    ),
    dl.GELU: lambda z: z * special.expit(2 * C * (z + 0.044715 * z**3)),
    dl.Swish: lambda z: z * special.expit(z),
    dl.Softplus: lambda z: -special.log_expit(-z),
}
Z = np.concatenate([np.linspace(-6, 6, 120), [-0.01, 0.01]])


def test_table_holds_every_activation():
    assert FORMULAS.keys() == small.subclasses(Activation)


@pytest.mark.parametrize("cls", FORMULAS)
def test_value(cls):
    np.testing.assert_allclose(cls().value(Z), FORMULAS[cls](Z), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("cls", FORMULAS)
def test_derivative(cls):
    slope = cls().derivative(Z, cls().value(Z))
    expected = (FORMULAS[cls](Z + 1e-6) - FORMULAS[cls](Z - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("size", [50.0, 1e4])
@pytest.mark.parametrize("cls", FORMULAS)
def test_extremes(cls, size):
    """No overflow and no warning far out, where values and slopes have reached their limits."""
    z = np.array([-size, size], np.float32)
    a = cls().value(z)
    slope = cls().derivative(z, a)
    expected = FORMULAS[cls](z.astype(float)) if cls is not dl.Tanh else np.array([-1, 1])
    np.testing.assert_allclose(a, expected, rtol=1e-6, atol=1e-6)
    assert np.isfinite(slope).all()
    assert (abs(slope) < 1.06).all()


@pytest.mark.parametrize("cls", FORMULAS)
def test_layer_on_backend(backend, cls):
    """Value times cotangent, on each backend, with and without replicas, float32 throughout."""
    layer, rng = cls(), np.random.default_rng(0)
    layer.xp = backend.xp
    for shape in ((4, 3), (2, 4, 3)):
        z, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        a = layer.forward(backend.asarray(z), True)
        dz = layer.backward(backend.asarray(dy))
        assert a.dtype == dz.dtype == np.float32
        z64 = z.astype(float)
        slope = (FORMULAS[cls](z64 + 1e-6) - FORMULAS[cls](z64 - 1e-6)) / 2e-6
        np.testing.assert_allclose(backend.to_numpy(a), FORMULAS[cls](z64), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(backend.to_numpy(dz), dy * slope, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("cls", FORMULAS)
def test_float64_stays(backend64, cls):
    layer = cls()
    layer.xp = backend64.xp
    z = backend64.asarray(np.ones((2, 3)))
    assert layer.forward(z, True).dtype == layer.backward(z).dtype == np.float64


def test_gelu_is_close_to_the_exact_form():
    exact = 0.5 * Z * (1 + special.erf(Z / np.sqrt(2)))
    assert np.max(abs(dl.GELU().value(Z) - exact)) < 5e-4


def test_selu_keeps_mean_0_and_variance_1():
    z = np.linspace(-12, 12, 100_001)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    a = dl.SELU().value(z)
    assert abs(density @ a) < 1e-6
    assert abs(density @ a**2 - 1) < 1e-6


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_slopes_of_the_negative_side(alpha):
    z = np.array([-0.5, 0.5])
    np.testing.assert_allclose(dl.LeakyReLU(alpha).value(z), [-0.5 * alpha, 0.5])
    np.testing.assert_allclose(dl.ELU(alpha).value(z), [alpha * (np.exp(-0.5) - 1), 0.5])


def test_sigmoid_is_the_logistic():
    assert dl.Sigmoid is dl.Logistic
