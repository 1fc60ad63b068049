"""Layer-sequential unit variance."""

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore.initializers import lsuv

X = 3 * np.random.default_rng(0).standard_normal((200, 6)) + 1
DEEP = dl.mlp([6, 40, 40, 40, 5], activation=dl.Tanh, initializer="normal", dropout=0.5)


def variances(network, x):
    backend, a, found = network.backend, network.backend.asarray(x), []
    for layer in network.layers:
        a = layer.forward(a, False)
        if "W" in layer.shapes:
            found.append(backend.to_numpy(a).astype(float).var(axis=(-2, -1)))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 3]], ids=["plain", "1", "3"])
def test_outputs_have_unit_variance(backend, seeds):
    network = dl.Network(DEEP, seeds, backend)
    reached = lsuv(network, X, tolerance=0.01)
    assert reached.shape == (*network.streams.shape, 4)
    assert np.all(abs(reached - 1) < 0.01)
    np.testing.assert_allclose(variances(network, X), reached, rtol=1e-4)
    w = backend.to_numpy(network.layers[3].W)
    singular = np.linalg.svd(w, compute_uv=False)
    np.testing.assert_allclose(
        singular, np.broadcast_to(singular[..., :1], singular.shape), rtol=1e-4
    )


def test_convolution_and_others(backend):
    layers = [dl.Conv2D(2, 4, 3), dl.ReLU(), dl.Conv2D(4, 3, 2), dl.Flatten(), dl.Dense(3, 2)]
    network = dl.Network(layers, [1, 2], backend)
    x = 5 * np.random.default_rng(1).standard_normal((50, 4, 4, 2))
    reached = lsuv(network, x)
    assert reached.shape == (2, 3)
    assert np.all(abs(reached - 1) < 0.1)


def test_other_layers_stay():
    network = dl.Network(small.rnn, [1, 2], "numpy")
    before = [network.layers[1].W.copy(), network.layers[1].U.copy()]
    reached = lsuv(network, np.random.default_rng(1).standard_normal((30, 5, 2, 1)))
    assert reached.shape == (2, 1)
    np.testing.assert_array_equal(network.layers[1].W, before[0])
    np.testing.assert_array_equal(network.layers[1].U, before[1])
    assert lsuv(dl.Network([dl.ReLU()], [1, 2], "numpy"), X).shape == (2, 0)


@pytest.mark.parametrize("own", [False, True], ids=["shared batch", "batch per replica"])
@pytest.mark.parametrize("limits", [dict(), dict(tolerance=0.003), dict(max_iterations=1)], ids=str)
def test_replica_has_the_bits_of_its_seed(own, limits):
    """Each stops by itself, whatever the others still do."""
    seeds = [5, 2, 5, 9, 11, 14]
    x = np.stack([X * (1 + s) for s in seeds]) if own else X
    network = dl.Network(DEEP, seeds, "numpy")
    reached = lsuv(network, x, **limits)
    for r, seed in enumerate(seeds):
        single = dl.Network(DEEP, seed, "numpy")
        its = lsuv(single, x[r] if own else x, **limits)
        assert small.parameters(network, r).tobytes() == small.parameters(single).tobytes()
        assert reached[r].tobytes() == its.tobytes()


def test_a_replica_that_is_done_is_left_alone():
    """One batch has variance 1 after the rotation already; the other needs scaling."""
    layers = [dl.Dense(6, 6)]
    x = np.random.default_rng(2).standard_normal((4000, 6))
    both = dl.Network(layers, [3, 3], "numpy")
    lsuv(both, np.stack([x, 10 * x]))
    np.testing.assert_allclose(np.linalg.svd(both.layers[0].W[0])[1], 1, rtol=1e-5)
    np.testing.assert_allclose(both.layers[0].W[1], both.layers[0].W[0] / 10, rtol=0.05)


def test_zero_iterations_leave_the_rotation():
    network = dl.Network([dl.Dense(6, 6)], 0, "numpy")
    reached = lsuv(network, 10 * X, max_iterations=0)
    np.testing.assert_allclose(np.linalg.svd(network.layers[0].W)[1], 1, rtol=1e-5)
    assert reached[0] > 100


def test_running_statistics_and_noise_are_not_touched():
    network = dl.Network(dl.mlp([6, 5, 4, 3], batch_norm="before", dropout=0.5), [1, 2], "numpy")
    lsuv(network, X)
    np.testing.assert_array_equal(network.layers[1].running_mean, 0)
    fresh = dl.Network([dl.Dropout(0.5)], [1, 2], "numpy")
    fresh.layers[0].noise = dl.Noise(network.streams, network.backend, "noise", 1, 0, 0)
    ones = np.ones((2, 3, 4), np.float32)
    np.testing.assert_array_equal(
        network.layers[3].forward(ones, True), fresh.layers[0].forward(ones, True)
    )


@pytest.mark.parametrize("x", [np.zeros((20, 6)), np.full((20, 6), np.nan)], ids=["zero", "nan"])
def test_batch_without_variance(x):
    with pytest.raises(ValueError, match="x: expected outputs of layer 0 that vary"):
        lsuv(dl.Network(DEEP, [1, 2], "numpy"), x)


@pytest.mark.parametrize("wrong", [dict(tolerance=0.0), dict(max_iterations=-1)], ids=str)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        lsuv(dl.Network(DEEP, 0, "numpy"), X, **wrong)
