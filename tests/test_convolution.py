"""Convolution and max pooling against loops over the definition."""

import numpy as np
import pytest

import dlcore as dl

RNG = np.random.default_rng(0)
#: name -> (arguments of Conv2D, image height and width, output's, zeros before and behind)
CASES = {
    "3x3": (dict(kernel=3), (6, 5), (4, 3), ((0, 0), (0, 0))),
    "1x1": (dict(kernel=1), (3, 4), (3, 4), ((0, 0), (0, 0))),
    "2x3": (dict(kernel=(2, 3)), (4, 5), (3, 3), ((0, 0), (0, 0))),
    "padded": (dict(kernel=3, padding=2), (4, 3), (6, 5), ((2, 2), (2, 2))),
    "strided": (dict(kernel=3, stride=2, padding=1), (6, 5), (3, 3), ((1, 1), (1, 1))),
    "left over": (dict(kernel=2, stride=3), (7, 6), (2, 2), ((0, 0), (0, 0))),
    "same": (dict(kernel=3, padding="same"), (4, 5), (4, 5), ((1, 1), (1, 1))),
    "same, even": (dict(kernel=(2, 4), padding="same"), (4, 5), (4, 5), ((0, 1), (1, 2))),
    "whole image": (dict(kernel=(4, 3)), (4, 3), (1, 1), ((0, 0), (0, 0))),
}


def placed(layer, backend, seeds=0):
    network = dl.Network([layer], seeds, backend)
    network.parameters[...] = backend.asarray(RNG.standard_normal(network.parameters.size))
    network.layers[0].needs_dx = True
    return network, network.layers[0]


def by_loops(x, w, b, dy, stride, zeros):
    """Output and gradients for one net, one output place at a time."""
    wide = np.pad(x, ((0, 0), *zeros, (0, 0)))
    y, dwide, dw = np.zeros_like(dy), np.zeros_like(wide), np.zeros_like(w)
    kh, kw = w.shape[:2]
    for h in range(dy.shape[1]):
        for v in range(dy.shape[2]):
            at = np.s_[:, h * stride : h * stride + kh, v * stride : v * stride + kw]
            y[:, h, v] = np.einsum("bijc,ijco->bo", wide[at], w) + b
            dw += np.einsum("bijc,bo->ijco", wide[at], dy[:, h, v])
            dwide[at] += np.einsum("bo,ijco->bijc", dy[:, h, v], w)
    (top, bottom), (left, right) = zeros
    dx = dwide[:, top : dwide.shape[1] - bottom, left : dwide.shape[2] - right]
    return y, dx, dw, dy.sum(axis=(0, 1, 2))


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 3]], ids=["plain", "1", "3"])
@pytest.mark.parametrize("case", CASES)
def test_conv2d(backend64, case, seeds):
    options, size, out, zeros = CASES[case]
    network, layer = placed(dl.Conv2D(2, 3, **options), backend64, seeds)
    shape = network.streams.shape
    x, dy = RNG.standard_normal((*shape, 4, *size, 2)), RNG.standard_normal((*shape, 4, *out, 3))
    y = layer.forward(backend64.asarray(x), True)
    dx = layer.backward(backend64.asarray(dy))
    found = [backend64.to_numpy(a) for a in (y, dx, layer.dW, layer.db, layer.W, layer.b)]
    assert found[0].shape == (*shape, 4, *out, 3)
    assert found[4].shape == (*shape, *layer.kernel, 2, 3)
    for r in np.ndindex(shape):
        y, dx, dw, db, w, b = (a[r] for a in found)
        expected = by_loops(x[r], w, b[0], dy[r], options.get("stride", 1), zeros)
        for one, other in zip((y, dx, dw, db[0]), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "layer", [dl.Conv2D(2, 3, 2, padding=1), dl.MaxPool2D(2)], ids=["conv", "pool"]
)
def test_float32_stays(backend, layer):
    _, own = placed(layer, backend, [1, 2])
    y = own.forward(backend.asarray(RNG.standard_normal((2, 3, 5, 4, 2))), True)
    dx = own.backward(y)
    assert y.dtype == dx.dtype == np.float32
    assert dx.shape == (2, 3, 5, 4, 2)


def test_shared_images(backend):
    """The lowest layer convolves one batch for all replicas, and gives no gradient of the input."""
    network, layer = placed(dl.Conv2D(2, 3, 3), backend, [1, 2, 3])
    layer.needs_dx = False
    x, dy = RNG.standard_normal((4, 5, 6, 2)), backend.asarray(RNG.standard_normal((3, 4, 3, 4, 3)))
    results = []
    for images in (x, np.stack([x] * 3)):
        y = layer.forward(backend.asarray(images), True)
        assert layer.backward(dy) is None
        results.append([backend.to_numpy(a).copy() for a in (y, network.gradients)])
    for shared, own in zip(*results, strict=True):
        np.testing.assert_allclose(shared, own, rtol=1e-5, atol=1e-5)


def test_start():
    network = dl.Network([dl.Conv2D(8, 50, 3, bias=0.5)], [0, 1], "numpy")
    np.testing.assert_allclose(network.layers[0].W.var(), 2 / 72, rtol=0.1)
    np.testing.assert_array_equal(network.layers[0].b, 0.5)
    ones = dl.Network([dl.Conv2D(1, 1, 2, initializer=lambda rng, s: np.ones(s))], 0, "numpy")
    np.testing.assert_array_equal(ones.forward(np.ones((1, 3, 3, 1), np.float32)), 4)


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.Adam])
def test_optimizers_step_kernels(backend, optimizer):
    """Four axes behind the replicas': each replica takes its own rate, biases no decay."""
    network, layer = placed(dl.Conv2D(2, 3, 3), backend, [1, 2])
    network.gradients.fill(0)
    before = [backend.to_numpy(a).copy() for a in (layer.W, layer.b)]
    bound = optimizer().bind(network)
    bound.step(backend.asarray(np.array([0.1, 0.2])), backend.asarray(np.array([0.5, 0.25, 0])))
    shrunk = before[0] * np.array([0.5, 0.75])[:, None, None, None, None]
    np.testing.assert_allclose(backend.to_numpy(layer.W), shrunk, rtol=1e-6)
    np.testing.assert_array_equal(backend.to_numpy(layer.b), before[1])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (dict(in_channels=0), ValueError),
        (dict(out_channels=1.5), TypeError),
        (dict(kernel=0), ValueError),
        (dict(kernel=(3, 3, 3)), ValueError),
        (dict(stride=0), ValueError),
        (dict(padding=-1), ValueError),
        (dict(padding="valid"), ValueError),
        (dict(padding="same", stride=2), ValueError),
    ],
    ids=str,
)
def test_wrong_settings(wrong, error):
    with pytest.raises(error, match=f"{next(iter(wrong))}: expected"):
        dl.Conv2D(**(dict(in_channels=2, out_channels=3, kernel=3) | wrong))


@pytest.mark.parametrize("shape", [(5, 6, 2), (4, 5, 6, 3), (4, 2, 6, 2), (4, 5, 2, 2)])
def test_wrong_images(shape):
    layer = dl.Network([dl.Conv2D(2, 3, 3)], 0, "numpy").layers[0]
    with pytest.raises(ValueError, match="x: expected"):
        layer.forward(np.ones(shape, np.float32), True)


@pytest.mark.parametrize("replicas", [(), (2,)], ids=["plain", "2"])
@pytest.mark.parametrize("size", [1, 2, 3, (1, 2), (5, 4)], ids=str)
def test_max_pool(backend, size, replicas):
    """Whole numbers in -2 ... 2 tie often: the first maximum of a window gets the gradient."""
    high, wide = size if isinstance(size, tuple) else (size, size)
    x = RNG.integers(-2, 3, (*replicas, 3, 5, 4, 2)).astype(float)
    layer = dl.Network([dl.MaxPool2D(size)], range(*replicas) if replicas else 0, backend).layers[0]
    y = layer.forward(backend.asarray(x), True)
    out = (*replicas, 3, 5 // high, 4 // wide, 2)
    assert y.shape == out
    dy = RNG.standard_normal(out).astype(np.float32)
    dx = backend.to_numpy(layer.backward(backend.asarray(dy)))
    y, expected = backend.to_numpy(y), np.zeros(x.shape, np.float32)
    for *lead, h, w, c in np.ndindex(out):
        window = x[(*lead, slice(h * high, h * high + high), slice(w * wide, w * wide + wide), c)]
        assert y[(*lead, h, w, c)] == window.max()
        i, j = np.unravel_index(window.argmax(), window.shape)
        expected[(*lead, h * high + i, w * wide + j, c)] = dy[(*lead, h, w, c)]
    np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("shape", [(3, 4, 2), (3, 1, 4, 2), (3, 4, 1, 2)])
def test_max_pool_of_too_small_images(shape):
    with pytest.raises(ValueError, match="x: expected images"):
        dl.MaxPool2D(2).forward(np.ones(shape, np.float32), True)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), ((2, 2, 2), ValueError), (1.5, TypeError)]
)
def test_wrong_size(size, error):
    with pytest.raises(error, match="size: expected"):
        dl.MaxPool2D(size)


def test_probes_read_kernels_and_images():
    """One value per layer and replica; places count as rows of the batch."""
    layers = [dl.Dropout(0.2), dl.Conv2D(1, 3, 2), dl.ReLU(), dl.Flatten(), dl.Dense(12, 2)]
    x, labels = RNG.standard_normal((5, 3, 3, 1)), np.arange(5) % 2
    network = dl.Network(layers, [1, 2], "numpy")
    found = dl.probes.signals(network, x, labels)
    assert found.sizes == {"seed": 2, "layer": 2}
    assert not network.gradients.any()  # a probe leaves them alone
    out = network.forward(network.backend.asarray(x), True)  # the same noise comes next
    network.backward(dl.SoftmaxCrossEntropy()(out, labels)[1])
    z, w = network.layers[2].z, network.layers[1].dW
    np.testing.assert_allclose(found.variance[:, 0], z.var(axis=(1, 2, 3, 4)), rtol=1e-5)
    expected = np.sqrt((w**2).mean(axis=(1, 2, 3, 4)))
    np.testing.assert_allclose(found.gradient_rms[:, 0], expected, rtol=1e-5)
    rms = dl.probes.gradient_rms(network)["gradient_rms"]
    np.testing.assert_allclose(rms[:, 0], expected, rtol=1e-5)
    update = dl.probes.relative_update(network, 2 * network.parameters)["relative_update"]
    np.testing.assert_allclose(update, 0.5, rtol=1e-6)
