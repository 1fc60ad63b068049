import numpy as np
import pytest

import dlcore as dl
from dlcore import meanfield

Q = [0.1, 1.0, 4.0]


@pytest.mark.parametrize("q", Q)
@pytest.mark.parametrize("sigma_w", [0.5, np.sqrt(2), 2.0])
def test_identities(q, sigma_w):
    relu, identity = dl.ReLU(), dl.Identity()
    assert meanfield.variance(relu, q, sigma_w) == pytest.approx(sigma_w**2 * q / 2, rel=1e-6)
    assert meanfield.variance(relu, q, sigma_w, 0.3) == pytest.approx(
        sigma_w**2 * q / 2 + 0.09, rel=1e-6
    )
    assert meanfield.chi(relu, q, sigma_w) == pytest.approx(sigma_w**2 / 2, rel=1e-9)
    assert meanfield.variance(identity, q, sigma_w) == pytest.approx(sigma_w**2 * q, rel=1e-6)
    assert meanfield.chi(identity, q, sigma_w) == pytest.approx(sigma_w**2, rel=1e-9)


@pytest.mark.parametrize("q", Q)
def test_expectation(q):
    """Moments of the normal distribution, and E cos = exp(-q/2)."""
    assert meanfield.expectation(lambda z: z * 0 + 1, q) == pytest.approx(1, abs=1e-12)
    assert meanfield.expectation(lambda z: z, q) == pytest.approx(0, abs=1e-12)
    assert meanfield.expectation(lambda z: z**4, q) == pytest.approx(3 * q**2, rel=1e-9)
    assert meanfield.expectation(np.cos, q) == pytest.approx(np.exp(-q / 2), abs=1e-12)


def test_zero_variance():
    assert meanfield.variance(dl.Tanh(), 0.0, 1.0, 0.5) == 0.25
    assert meanfield.chi(dl.Logistic(), 0.0, 2.0) == pytest.approx(4 / 16)


def test_variances_iterate_the_map():
    found = meanfield.variances(dl.Tanh(), 2.0, 4, 1.3, 0.2)
    expected = [2.0]
    for _ in range(3):
        expected.append(meanfield.variance(dl.Tanh(), expected[-1], 1.3, 0.2))
    np.testing.assert_array_equal(found, expected)
    assert meanfield.variances(dl.ReLU(), 0.7, 1, 1.0).tolist() == [0.7]
    steady = meanfield.variances(dl.ReLU(), 0.7, 50, np.sqrt(2))
    np.testing.assert_allclose(steady, 0.7, rtol=1e-4)


@pytest.mark.parametrize(
    ("activation", "sigma_w"),
    [(dl.Tanh, 1.5), (dl.Logistic, 2.0), (dl.ReLU, np.sqrt(2)), (dl.GELU, 1.4)],
)
def test_against_wide_random_nets(activation, sigma_w):
    """Step by step through nets 1000 wide: the next variance and the factor on squared gradients.

    One draw of a layer's weights moves its variance by about sqrt(5 / 1000) = 7 %.
    """
    width, depth, rng = 1000, 6, np.random.default_rng(0)
    phi = activation()
    h = rng.standard_normal((100, width))
    weights = [sigma_w / np.sqrt(width) * rng.standard_normal((width, width)) for _ in range(depth)]
    z, q = [], []
    for w in weights:
        z.append(h @ w)
        h = phi.value(z[-1])
        q.append(np.mean(z[-1] ** 2))
    steps = [q[i + 1] / meanfield.variance(phi, q[i], sigma_w) for i in range(depth - 1)]
    np.testing.assert_allclose(steps, 1, atol=0.2)
    np.testing.assert_allclose(np.mean(steps), 1, atol=0.06)
    delta, factors = rng.standard_normal((100, width)), []
    for i in reversed(range(depth - 1)):
        below = (delta @ weights[i + 1].T) * phi.derivative(z[i], phi.value(z[i]))
        factors.append(np.mean(below**2) / np.mean(delta**2) / meanfield.chi(phi, q[i], sigma_w))
        delta = below
    np.testing.assert_allclose(factors, 1, atol=0.2)
    np.testing.assert_allclose(np.mean(factors), 1, atol=0.06)


def test_theory_composes():
    """The whole recursion against the mean over 30 nets: here the average is over weights, too."""
    width, depth, phi, found = 200, 5, dl.Tanh(), []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        h, q = rng.standard_normal((20, width)), []
        for _ in range(depth):
            z = h @ (1.5 / np.sqrt(width) * rng.standard_normal((width, width)))
            h = phi.value(z)
            q.append(np.mean(z**2))
        found.append(q)
    theory = meanfield.variances(phi, 1.5**2, depth, 1.5)
    np.testing.assert_allclose(np.mean(found, axis=0), theory, rtol=0.03)


@pytest.mark.parametrize(("sigma_w", "first"), [(1e200, 1.0), (3.0, 1e307), (1e100, 1e200)])
def test_variances_that_do_not_fit_are_infinite(sigma_w, first):
    found = meanfield.variances(dl.ReLU, first, 5, sigma_w)
    assert found[0] == first
    assert np.isinf(found[-1])
    assert meanfield.chi(dl.ReLU, 1.0, 1e200) == np.inf
