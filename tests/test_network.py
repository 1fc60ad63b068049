import numpy as np
import pytest
import small

import dlcore as dl


def test_layout(backend):
    """One buffer, parameter by parameter, each (R, in, out) contiguous; layers hold views of it."""
    network = dl.Network(dl.mlp([4, 5, 3]), range(2), backend)
    assert [(s.layer, s.name, s.start, s.stop, s.shape) for s in network.slots] == [
        (0, "W", 0, 40, (2, 4, 5)),
        (0, "b", 40, 50, (2, 1, 5)),
        (2, "W", 50, 80, (2, 5, 3)),
        (2, "b", 80, 86, (2, 1, 3)),
    ]
    assert (network.size, network.replicas) == (43, 2)
    network.parameters[...] = backend.asarray(np.arange(86))
    np.testing.assert_array_equal(
        backend.to_numpy(network.layers[2].b), np.arange(80, 86).reshape(2, 1, 3)
    )
    for slot in network.slots:
        layer = network.layers[slot.layer]
        for a in (getattr(layer, slot.name), getattr(layer, "d" + slot.name)):
            assert a.flags.c_contiguous
            assert a.dtype == backend.dtype
    network.layers[0].W.fill(7)
    assert backend.to_numpy(network.parameters)[:40].tolist() == [7] * 40


def test_initial_weights_depend_on_seed_and_layer_alone():
    one = dl.Network(dl.mlp([4, 5, 3]), 8, "numpy")
    many = dl.Network(dl.mlp([4, 5, 3]), [3, 8, 3], "numpy")
    np.testing.assert_array_equal(small.parameters(one), small.parameters(many, 1))
    np.testing.assert_array_equal(small.parameters(many, 0), small.parameters(many, 2))
    assert not np.array_equal(many.layers[0].W[0], many.layers[0].W[1])
    other = dl.Network(dl.mlp([4, 5, 9, 9]), 8, "numpy")
    np.testing.assert_array_equal(one.layers[0].W, other.layers[0].W)


def test_same_start_on_every_backend(backend):
    found = dl.Network(dl.mlp([4, 5, 3]), range(3), backend)
    expected = dl.Network(dl.mlp([4, 5, 3]), range(3), "numpy")
    np.testing.assert_array_equal(backend.to_numpy(found.parameters), expected.parameters)


def test_initialize_starts_again():
    network = dl.Network(dl.mlp([4, 5, 3]), range(3), "numpy")
    before = network.parameters.copy()
    network.parameters.fill(0)
    network.initialize()
    np.testing.assert_array_equal(network.parameters, before)


def test_layers_are_copied():
    layers = [dl.Dense(4, 5), dl.ReLU(), dl.Dense(5, 3)]
    first, second = dl.Network(layers, 0, "numpy"), dl.Network(layers, 1, "numpy")
    assert not hasattr(layers[0], "W")
    assert first.layers[0] is not second.layers[0]
    assert first.layers[0].W[0, 0] != second.layers[0].W[0, 0]


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 3]], ids=["plain", "1", "3"])
def test_forward_and_backward(backend, seeds):
    network = dl.Network(dl.mlp([4, 5, 3], activation=dl.Tanh), seeds, backend)
    shape = network.streams.shape
    x = np.random.default_rng(0).standard_normal((*shape, 6, 4)).astype(np.float32)
    dy = np.random.default_rng(1).standard_normal((*shape, 6, 3)).astype(np.float32)
    y = network.forward(backend.asarray(x), training=True)
    network.backward(backend.asarray(dy))
    w1, b1, w2, b2 = (
        backend.to_numpy(p).astype(float)
        for layer in network.layers[::2]
        for p in (layer.W, layer.b)
    )
    a = np.tanh(x @ w1 + b1)
    np.testing.assert_allclose(backend.to_numpy(y), a @ w2 + b2, rtol=1e-5, atol=1e-6)
    dz = (dy @ w2.mT) * (1 - a * a)
    expected = [x.mT @ dz, dz.sum(-2, keepdims=True), a.mT @ dy, dy.sum(-2, keepdims=True)]
    found = backend.to_numpy(network.gradients)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, np.concatenate([e.ravel() for e in expected]), rtol=1e-4, atol=1e-5
    )


def test_inputs_may_be_shared():
    network = dl.Network(dl.mlp([4, 5, 3]), range(3), "numpy")
    x = np.ones((6, 4), np.float32)
    np.testing.assert_array_equal(network.forward(x), network.forward(np.stack([x] * 3)))


def test_layers_below_the_first_weights_are_skipped_backwards():
    network = dl.Network([dl.Flatten(2), dl.Dense(6, 3)], 0, "numpy")
    network.forward(np.ones((4, 3, 2), np.float32), training=True)
    network.backward(np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(network.layers[1].dW, 4)


def test_network_without_parameters():
    network = dl.Network([dl.Flatten(), dl.Tanh()], [1, 2], "numpy")
    assert (network.size, network.slots) == (0, [])
    assert network.forward(np.ones((2, 4, 1, 2, 3), np.float32)).shape == (2, 4, 6)
    network.backward(np.ones((2, 4, 6), np.float32))


def test_blueprint():
    blueprint = dl.mlp([4, 6, 5, 3], activation=dl.ELU, initializer="orthogonal", bias=0.1)
    network = dl.Network(blueprint, 0, "numpy")
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["Dense", "ELU", "Dense", "ELU", "Dense"]
    assert [layer.W.shape for layer in network.layers[::2]] == [(4, 6), (6, 5), (5, 3)]
    np.testing.assert_array_equal(network.layers[4].b, np.float32(0.1))
    np.testing.assert_allclose(np.linalg.svd(network.layers[0].W)[1], 1, rtol=1e-5)
    assert blueprint()[0] is not blueprint()[0]


def test_activation_function_with_settings():
    network = dl.Network(dl.mlp([4, 3, 2], activation=lambda: dl.LeakyReLU(0.3)), 0, "numpy")
    assert network.layers[1].alpha == 0.3


def test_float64(backend64):
    network = dl.Network(dl.mlp([4, 5, 3]), range(2), backend64)
    y = network.forward(backend64.asarray(np.ones((6, 4))), training=True)
    network.backward(y)
    assert y.dtype == network.parameters.dtype == network.gradients.dtype == np.float64


def test_layers_without_weights_do_not_shift_the_initial_weights():
    plain = dl.Network(dl.mlp([5, 4, 4, 3]), seeds=[1, 2])
    options = {"batch_norm": "before", "dropout": 0.5, "input_dropout": 0.2}
    rich = dl.Network(dl.mlp([5, 4, 4, 3], **options), seeds=[1, 2])
    pairs = [[la.W for la in net.layers if "W" in la.shapes] for net in (plain, rich)]
    for one, other in zip(*pairs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_inserted_layers_do_not_shift_the_masks():
    alone = dl.Network(dl.mlp([5, 4, 4, 3], dropout=0.5), seeds=3)
    beside = dl.Network(dl.mlp([5, 4, 4, 3], dropout=0.5, input_dropout=0.2), seeds=3)
    drops = [[la for la in net.layers if isinstance(la, dl.Dropout)] for net in (alone, beside)]
    one, other = drops[0][-1], drops[1][-1]
    np.testing.assert_array_equal(one.noise.uniform((6, 4)), other.noise.uniform((6, 4)))
    first, second = drops[0]
    assert not np.array_equal(first.noise.uniform((6, 4)), second.noise.uniform((6, 4)))
