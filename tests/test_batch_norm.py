"""Batch norm: batch and running statistics, both modes, and folding it away."""

import numpy as np
import pytest

import dlcore as dl

RNG = np.random.default_rng(0)


def placed(layer, backend, seeds=0):
    """The layer in a network, with random gamma and beta."""
    network = dl.Network([layer], seeds, backend)
    network.parameters[...] = backend.asarray(
        1 + 0.5 * RNG.standard_normal(network.parameters.size)
    )
    network.layers[0].needs_dx = True
    return network.layers[0], network.streams.shape


def draw(*shape):
    return 3 + 2 * RNG.standard_normal(shape)


CASES = [(False, (7, 5)), (True, (3, 4, 2, 5))]


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 3]], ids=["plain", "1", "3"])
@pytest.mark.parametrize(("images", "own"), CASES, ids=["rows", "images"])
def test_training_and_running_statistics(backend64, images, own, seeds):
    """Against the definition; the running variance follows the unbiased one, the output the other."""
    layer, shape = placed(
        dl.BatchNorm(5, momentum=0.3, epsilon=1e-3, images=images), backend64, seeds
    )
    axes, to_numpy = tuple(range(len(shape), len(shape) + len(own) - 1)), backend64.to_numpy
    mean_r, var_r = np.zeros((*shape, 5)), np.ones((*shape, 5))
    gamma, beta = (
        to_numpy(a).reshape(*shape, *[1] * len(axes), 5) for a in (layer.gamma, layer.beta)
    )
    for _ in range(3):
        x = draw(*shape, *own)
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        y = layer.forward(backend64.asarray(x), True)
        expected = gamma * (x - mean) / np.sqrt(var + 1e-3) + beta
        np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-11, atol=1e-12)
        mean_r = 0.7 * mean_r + 0.3 * x.mean(axes)
        var_r = 0.7 * var_r + 0.3 * x.var(axes, ddof=1)
        assert layer.running_mean.shape == layer.running_var.shape == (*shape, 1, 5)
        np.testing.assert_allclose(to_numpy(layer.running_mean)[..., 0, :], mean_r, rtol=1e-11)
        np.testing.assert_allclose(to_numpy(layer.running_var)[..., 0, :], var_r, rtol=1e-11)
    x, before = draw(*shape, *own), to_numpy(layer.running_var).copy()
    wide = [a.reshape(*shape, *[1] * len(axes), 5) for a in (mean_r, var_r)]
    expected = gamma * (x - wide[0]) / np.sqrt(wide[1] + 1e-3) + beta
    y = layer.forward(backend64.asarray(x), False)
    np.testing.assert_allclose(to_numpy(y), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(to_numpy(layer.running_var), before)


def test_outputs_are_normalised(backend):
    """With gamma 1, beta 0: mean 0 and variance 1, also far from zero in float32."""
    layer = dl.Network([dl.BatchNorm(4)], [1, 2], backend).layers[0]
    x = 100 + RNG.standard_normal((2, 500, 4))
    y = backend.to_numpy(layer.forward(backend.asarray(x), True))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.mean(axis=-2), 0, atol=1e-4)
    np.testing.assert_allclose(y.var(axis=-2), 1, atol=1e-3)


@pytest.mark.parametrize(("images", "own"), CASES, ids=["rows", "images"])
def test_backward_in_prediction_mode_is_affine(backend64, images, own):
    """A frozen batch norm: dx = gamma dy / sqrt(r + epsilon), without the batch's terms."""
    layer, _ = placed(dl.BatchNorm(5, images=images), backend64, [1, 2])
    layer.running_var.fill(4.0)
    x, dy = draw(2, *own), draw(2, *own)
    layer.forward(backend64.asarray(x), False)
    dx = backend64.to_numpy(layer.backward(backend64.asarray(dy)))
    gamma = backend64.to_numpy(layer.gamma).reshape(2, *[1] * (len(own) - 1), 5)
    np.testing.assert_allclose(dx, dy * gamma / np.sqrt(4 + 1e-5), rtol=1e-12)
    rows = (dy * x / np.sqrt(4 + 1e-5)).reshape(2, -1, 5).sum(axis=1)
    np.testing.assert_allclose(backend64.to_numpy(layer.dgamma)[:, 0], rows, rtol=1e-11)


def test_lowest_layer_gives_no_input_gradient():
    layer, _ = placed(dl.BatchNorm(5), dl.get_backend("numpy"))
    layer.needs_dx = False
    y = layer.forward(np.float32(draw(7, 5)), True)
    assert layer.backward(y) is None
    assert np.all(layer.dbeta != 0)


def test_shared_input_is_normalised_for_each_replica(backend):
    network = dl.Network([dl.BatchNorm(5), dl.Dense(5, 2)], [1, 2, 3], backend)
    x = draw(7, 5)
    shared = backend.to_numpy(network.forward(backend.asarray(x), True))
    statistics = backend.to_numpy(network.layers[0].running_var)
    network.initialize()
    own = backend.to_numpy(network.forward(backend.asarray(np.stack([x] * 3)), True))
    np.testing.assert_allclose(shared, own, rtol=1e-6)
    np.testing.assert_allclose(
        statistics, backend.to_numpy(network.layers[0].running_var), rtol=1e-6
    )


def test_initialize_restores_the_buffers():
    network = dl.Network([dl.BatchNorm(5)], [1, 2], "numpy")
    network.forward(np.float32(draw(2, 7, 5)), True)
    assert np.any(network.layers[0].running_mean)
    network.initialize()
    np.testing.assert_array_equal(network.layers[0].running_mean, 0)
    np.testing.assert_array_equal(network.layers[0].running_var, 1)


def test_no_weight_decay():
    """Gamma and beta have lower-case names: decay leaves them alone."""
    network = dl.Network(dl.mlp([4, 5, 3], batch_norm="before"), 0, "numpy")
    network.gradients.fill(0)
    dl.SGD().bind(network).step(np.float32([0.1]), np.float32([0.5, 0]))
    np.testing.assert_array_equal(network.layers[1].gamma, 1)
    start = dl.Network(dl.mlp([4, 5, 3], batch_norm="before"), 0, "numpy")
    np.testing.assert_allclose(network.layers[0].W, start.layers[0].W * 0.5, rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 5), (2, 1, 5)])
def test_training_needs_two_rows(shape):
    """As in PyTorch; prediction takes one."""
    seeds = 0 if len(shape) == 2 else [1, 2]
    layer, _ = placed(dl.BatchNorm(5), dl.get_backend("numpy"), seeds)
    with pytest.raises(ValueError, match="more than one row"):
        layer.forward(np.ones(shape, np.float32), True)
    assert layer.forward(np.ones(shape, np.float32), False).shape == shape


def test_one_image_has_rows_enough():
    layer, _ = placed(dl.BatchNorm(5, images=True), dl.get_backend("numpy"))
    assert layer.forward(np.float32(draw(1, 2, 2, 5)), True).shape == (1, 2, 2, 5)


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (False, (7, 4)),
        (False, (5,)),
        (False, (2, 7, 3, 5)),
        (True, (7, 3, 5)),
        (True, (7, 3, 2, 4)),
    ],
)
def test_wrong_shapes(images, shape):
    layer, _ = placed(dl.BatchNorm(5, images=images), dl.get_backend("numpy"))
    with pytest.raises(ValueError, match="x: expected shape"):
        layer.forward(np.ones(shape, np.float32), True)


@pytest.mark.parametrize(
    "wrong",
    [dict(features=0), dict(momentum=-0.1), dict(momentum=1.1), dict(epsilon=-1.0)],
    ids=str,
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        dl.BatchNorm(**(dict(features=5) | wrong))


# Folding -----------------------------------------------------------------------------------------


def dense(norm):
    return dl.mlp(
        [4, 6, 5, 3], activation=dl.Tanh, batch_norm=norm, dropout=0.3, input_dropout=0.1
    )()


def images():
    return [
        dl.Conv2D(2, 3, 3, padding="same"),
        dl.BatchNorm(3, images=True),
        dl.ReLU(),
        dl.MaxPool2D(2),
        dl.Flatten(),
        dl.BatchNorm(12),
        dl.GaussianNoise(0.1),
        dl.Dense(12, 4),
    ]


def row_of_norms():
    return [dl.BatchNorm(4), dl.BatchNorm(4), dl.Dense(4, 3), dl.BatchNorm(3), dl.BatchNorm(3)]


FOLDS = {
    "before": (lambda: dense("before"), (9, 4)),
    "after": (lambda: dense("after"), (9, 4)),
    "images": (images, (3, 4, 4, 2)),
    "several": (row_of_norms, (9, 4)),
    "none": (dl.mlp([4, 3, 2]), (9, 4)),
}


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 1]], ids=["plain", "1", "3"])
@pytest.mark.parametrize("name", FOLDS)
def test_fold(backend64, name, seeds):
    """Random parameters and statistics; outputs are equal to rounding, and the network stays."""
    blueprint, own = FOLDS[name]
    network = dl.Network(blueprint, seeds, backend64)
    values = 0.5 + 0.4 * RNG.standard_normal(network.parameters.size)
    network.parameters[...] = backend64.asarray(values)
    for _ in range(2):
        network.forward(backend64.asarray(draw(*network.streams.shape, *own)), True)
    x = backend64.asarray(draw(*own))
    before = backend64.to_numpy(network.forward(x))
    folded = network.fold_batch_norm()
    assert not any(isinstance(layer, dl.BatchNorm) for layer in folded.layers)
    assert folded.streams.seeds == network.streams.seeds
    found = backend64.to_numpy(folded.forward(x))
    np.testing.assert_allclose(found, before, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(backend64.to_numpy(network.parameters), values)
    np.testing.assert_array_equal(backend64.to_numpy(network.forward(x)), before)
    folded.parameters.fill(0)
    np.testing.assert_array_equal(backend64.to_numpy(network.forward(x)), before)


def test_folded_network_learns():
    network = dl.Network(row_of_norms, [1, 2], "numpy").fold_batch_norm()
    network.forward(np.ones((2, 5, 4), np.float32), True)
    network.backward(np.ones((2, 5, 3), np.float32))
    np.testing.assert_array_equal(network.layers[0].db, 5)


@pytest.mark.parametrize(
    "layers",
    [
        [dl.BatchNorm(4), dl.ReLU(), dl.Dense(4, 3)],
        [dl.Dense(4, 3), dl.ReLU(), dl.BatchNorm(3)],
        [dl.BatchNorm(2, images=True), dl.Conv2D(2, 3, 1)],
    ],
    ids=["activation", "end", "convolution"],
)
def test_fold_refuses(layers):
    with pytest.raises(ValueError, match="fold_batch_norm: expected"):
        dl.Network(layers, 0, "numpy").fold_batch_norm()
