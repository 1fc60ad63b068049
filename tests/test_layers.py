import numpy as np
import pytest
from scipy import special

import dlcore as dl

RNG = np.random.default_rng(0)


def placed(layer, backend, seeds=0):
    """The layer inside a network, with random parameters everywhere (biases too)."""
    network = dl.Network([layer], seeds, backend)
    values = np.random.default_rng(1).standard_normal(network.parameters.size)
    network.parameters[...] = backend.asarray(values)
    return network, network.layers[0]


def host(backend, *arrays):
    return [backend.to_numpy(a) for a in arrays]


@pytest.mark.parametrize("seeds", [0, [4], [1, 2, 3]], ids=["plain", "1", "3"])
def test_dense(backend, seeds):
    network, layer = placed(dl.Dense(5, 4), backend, seeds)
    layer.needs_dx = True
    shape = network.streams.shape
    x = RNG.standard_normal((*shape, 7, 5)).astype(np.float32)
    dy = RNG.standard_normal((*shape, 7, 4)).astype(np.float32)
    y = layer.forward(backend.asarray(x), True)
    dx = layer.backward(backend.asarray(dy))
    y, dx, w, b, dw, db = host(backend, y, dx, layer.W, layer.b, layer.dW, layer.db)
    close = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, np.einsum("...bi,...io->...bo", x, w) + b, **close)
    np.testing.assert_allclose(dw, np.einsum("...bi,...bo->...io", x, dy), **close)
    np.testing.assert_allclose(db, np.einsum("...bo->...o", dy)[..., None, :], **close)
    np.testing.assert_allclose(dx, np.einsum("...bo,...io->...bi", dy, w), **close)
    assert {a.dtype for a in (y, dx, w, b, dw, db)} == {np.dtype("float32")}
    assert w.shape == (*shape, 5, 4)
    assert b.shape == (*shape, 1, 4)


def test_dense_shared_input():
    _, layer = placed(dl.Dense(5, 4), dl.get_backend("numpy"), [1, 2, 3])
    x = RNG.standard_normal((7, 5)).astype(np.float32)
    dy = RNG.standard_normal((3, 7, 4)).astype(np.float32)
    y = layer.forward(x, True)
    assert y.shape == (3, 7, 4)
    assert layer.backward(dy) is None
    shared, own = layer.dW.copy(), layer.forward(np.stack([x] * 3), True)
    layer.backward(dy)
    np.testing.assert_array_equal(y, own)
    np.testing.assert_array_equal(shared, layer.dW)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(dl.Dense(5, 4), (7, 5)), (dl.SimpleRNN(3, 4), (7, 2, 3))],
    ids=["Dense", "RNN"],
)
def test_gradients_are_written_into_the_buffer(backend, layer, shape):
    """In place, so that a second pass replaces the first and nothing accumulates."""
    network, layer = placed(layer, backend, [1, 2])
    layer.needs_dx = True
    x = backend.asarray(RNG.standard_normal(shape))
    dy = backend.asarray(RNG.standard_normal((2, 7, 4)))
    passes = []
    for _ in range(2):
        layer.forward(x, True)
        layer.backward(dy)
        flat = backend.to_numpy(network.gradients)
        for slot in network.slots:
            part = flat[slot.start : slot.stop].reshape(slot.shape)
            np.testing.assert_array_equal(part, backend.to_numpy(getattr(layer, "d" + slot.name)))
            assert np.any(part)
        passes.append(flat)
    np.testing.assert_array_equal(*passes)


def test_dense_bias_and_initializer():
    layer = dl.Network(
        [dl.Dense(3, 2, lambda rng, s: np.ones(s), bias=0.5)], [0, 1], "numpy"
    ).layers[0]
    np.testing.assert_array_equal(layer.W, 1)
    np.testing.assert_array_equal(layer.b, 0.5)


@pytest.mark.parametrize("replicas", [(), (2,)])
@pytest.mark.parametrize(("axes", "features"), [(1, 4), (2, 12), (3, 24)])
def test_flatten(backend, replicas, axes, features):
    layer = dl.Flatten(axes)
    shape = (*replicas, 5, 2, 3, 4)[: len(replicas) + 4]
    x = RNG.standard_normal(shape).astype(np.float32)
    y = layer.forward(backend.asarray(x), True)
    assert y.shape == (*shape[:-axes], features)
    np.testing.assert_array_equal(backend.to_numpy(y).ravel(), x.ravel())
    np.testing.assert_array_equal(backend.to_numpy(layer.backward(y)), x)


PHI = {
    dl.Tanh: (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    dl.Logistic: (special.expit, lambda z: special.expit(z) * special.expit(-z)),
    dl.ReLU: (lambda z: np.maximum(z, 0), lambda z: np.heaviside(z, 0)),
}


@pytest.mark.parametrize("seeds", [0, [1, 2]], ids=["plain", "2"])
@pytest.mark.parametrize("activation", PHI)
def test_simple_rnn(backend64, activation, seeds):
    """Against one example at a time, with its chain of Jacobians written out."""
    network, layer = placed(dl.SimpleRNN(3, 4, activation), backend64, seeds)
    network.parameters[...] = network.parameters * 0.5
    layer.needs_dx = True
    shape, (phi, slope) = network.streams.shape, PHI[activation]
    x = RNG.standard_normal((*shape, 5, 6, 3))
    dy = RNG.standard_normal((*shape, 5, 4))
    y = layer.forward(backend64.asarray(x), True)
    dx = layer.backward(backend64.asarray(dy))
    y, dx, w, u, b = host(backend64, y, dx, layer.W, layer.U, layer.b)
    dw, du, db = host(backend64, layer.dW, layer.dU, layer.db)
    dh = np.stack(host(backend64, *layer.dh), axis=-2)
    assert dh.shape == (*shape, 5, 6, 4)
    for r in np.ndindex(shape):
        sums = [np.zeros_like(a[r]) for a in (dw, du, db)]
        for i in range(5):
            states, slopes = [np.zeros(4)], []
            for t in range(6):
                z = x[r][i, t] @ w[r] + states[-1] @ u[r] + b[r][0]
                states.append(phi(z))
                slopes.append(slope(z))
            np.testing.assert_allclose(y[r][i], states[-1], rtol=1e-10, atol=1e-12)
            delta = dy[r][i]
            for t in reversed(range(6)):
                np.testing.assert_allclose(dh[r][i, t], delta, rtol=1e-9, atol=1e-12)
                dz = slopes[t] * delta
                sums[0] += np.outer(x[r][i, t], dz)
                sums[1] += np.outer(states[t], dz)
                sums[2] += dz
                np.testing.assert_allclose(dx[r][i, t], w[r] @ dz, rtol=1e-9, atol=1e-12)
                delta = u[r] @ dz
        for found, expected in zip((dw[r], du[r], db[r]), sums, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_simple_rnn_starts():
    layer = dl.Network([dl.SimpleRNN(3, 8)], [0, 1], "numpy").layers[0]
    np.testing.assert_allclose(layer.U @ layer.U.mT, np.stack([np.eye(8)] * 2), atol=1e-6)
    np.testing.assert_array_equal(layer.b, 0)
    assert abs(layer.W).max() <= np.sqrt(6 / 11)
    scaled = dl.SimpleRNN(3, 8, recurrent_initializer=dl.initializers.orthogonal(1.5))
    layer = dl.Network([scaled], 0, "numpy").layers[0]
    np.testing.assert_allclose(np.linalg.norm(layer.U, 2), 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (dl.Dense(5, 4), (7, 5)),
        (dl.SimpleRNN(3, 4), (7, 2, 3)),
        (dl.BatchNorm(5), (2, 7, 5)),
        (dl.BatchNorm(3, images=True), (2, 7, 3, 4, 3)),
        (dl.Dropout(0.5), (2, 7, 5)),
        (dl.GaussianNoise(0.5), (2, 7, 5)),
        (dl.Conv2D(2, 3, 2), (7, 3, 4, 2)),
        (dl.MaxPool2D(2), (7, 3, 4, 2)),
        (dl.Flatten(), (7, 3, 4, 2)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else type(value).__name__,
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_types(backend, dtype, layer, shape):
    backend = dl.Backend(backend.name, backend.xp, np.dtype(dtype))
    _, own = placed(layer, backend, [1, 2])
    own.needs_dx = True
    y = own.forward(backend.asarray(RNG.standard_normal(shape)), True)
    arrays = [y, own.backward(y), *(getattr(own, p + n) for n in own.shapes for p in ("", "d"))]
    arrays += [getattr(own, name) for name in own.buffers]
    assert {a.dtype for a in arrays} == {np.dtype(dtype)}


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(dl.BatchNorm(4), (2, 7, 4)), (dl.Conv2D(2, 4, 2), (2, 7, 3, 4, 2))],
    ids=["BatchNorm", "Conv2D"],
)
def test_more_gradients_are_written_into_the_buffer(backend, layer, shape):
    network, own = placed(layer, backend, [1, 2])
    x, passes = backend.asarray(RNG.standard_normal(shape)), []
    for _ in range(2):
        y = own.forward(x, True)
        own.backward(y)
        passes.append(backend.to_numpy(network.gradients).copy())
        for slot in network.slots:
            part = passes[-1][slot.start : slot.stop].reshape(slot.shape)
            np.testing.assert_array_equal(part, backend.to_numpy(getattr(own, "d" + slot.name)))
            assert np.any(part)
    np.testing.assert_array_equal(*passes)


def test_sequences_without_a_time_step_are_refused(backend):
    layer = dl.Network([dl.SimpleRNN(3, 2)], [0, 1], backend).layers[0]
    with pytest.raises(ValueError, match=r"x: expected at least one time step, got \(4, 0, 3\)"):
        layer.forward(backend.asarray(np.zeros((4, 0, 3))), True)
