import numpy as np
import pytest
from scipy import special

import dlcore as dl

RNG = np.random.default_rng(0)
Y = RNG.standard_normal((3, 7, 5))
LABELS = RNG.integers(0, 5, (3, 7))
TARGETS = RNG.random((3, 7, 5))


def softmax_formula(y, labels):
    picked = np.take_along_axis(special.log_softmax(y, axis=-1), labels[..., None], axis=-1)
    return -picked[..., 0].mean(axis=-1)


def binary_formula(y, t):
    terms = t * special.log_expit(y) + (1 - t) * special.log_expit(-y)
    return -terms.sum(axis=-1).mean(axis=-1)


def squared_formula(y, t):
    return np.square(np.subtract(y, t)).reshape(*y.shape[:-2], -1).mean(axis=-1)


#: class -> formula of the value, right targets, wrong targets' shape
LOSSES = {
    dl.SoftmaxCrossEntropy: (softmax_formula, LABELS),
    dl.BinaryCrossEntropy: (binary_formula, TARGETS),
    dl.MeanSquaredError: (squared_formula, TARGETS),
}


@pytest.mark.parametrize("cls", LOSSES)
def test_value(cls):
    formula, target = LOSSES[cls]
    value, dy = cls()(Y, target)
    assert value.shape == (3,)
    assert dy.shape == Y.shape
    np.testing.assert_allclose(value, formula(Y, target), rtol=1e-12)
    np.testing.assert_allclose(cls()(Y[0], target[0])[0], formula(Y[0], target[0]), rtol=1e-12)


@pytest.mark.parametrize("cls", LOSSES)
def test_nothing_is_averaged_over_replicas(cls):
    """Value and gradient of a replica are those it has alone, bit for bit."""
    target = LOSSES[cls][1]
    value, dy = cls()(Y, target)
    for r in range(3):
        alone, its_dy = cls()(Y[r], target[r])
        assert value[r] == alone
        np.testing.assert_array_equal(dy[r], its_dy)


@pytest.mark.parametrize("cls", LOSSES)
def test_shared_targets(cls):
    target = LOSSES[cls][1][0]
    repeated = np.stack([target] * 3)
    np.testing.assert_array_equal(cls()(Y, target)[0], cls()(Y, repeated)[0])
    np.testing.assert_array_equal(cls()(Y, target)[1], cls()(Y, repeated)[1])


@pytest.mark.parametrize("cls", LOSSES)
def test_types(backend, cls):
    loss, target = cls(), LOSSES[cls][1]
    loss.xp = backend.xp
    on_device = backend.asarray(target, np.int64 if loss.kind == "labels" else None)
    value, dy = loss(backend.asarray(Y), on_device)
    assert value.dtype == dy.dtype == np.float32
    np.testing.assert_allclose(backend.to_numpy(value), LOSSES[cls][0](Y, target), rtol=1e-5)
    value, dy = cls()(Y, target)
    assert value.dtype == dy.dtype == np.float64


def test_softmax_extremes():
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], np.float32)
    loss = dl.SoftmaxCrossEntropy()
    value, dy = loss(logits, np.array([0, 1]))
    assert value == 0
    np.testing.assert_array_equal(dy, 0)
    value, dy = loss(logits, np.array([1, 0]))
    assert value == pytest.approx(2e4)
    np.testing.assert_allclose(dy, [[0.5, -0.5, 0], [-0.5, 0.5, 0]])


def test_binary_extremes():
    logits = np.array([[1e4, -1e4]], np.float32)
    loss = dl.BinaryCrossEntropy()
    value, dy = loss(logits, np.array([[1, 0]], np.float32))
    assert value == 0
    np.testing.assert_array_equal(dy, 0)
    value, dy = loss(logits, np.array([[0, 1]], np.float32))
    assert value == pytest.approx(2e4)
    np.testing.assert_array_equal(dy, [[1, -1]])


def test_softmax_ignores_a_common_shift():
    a = dl.SoftmaxCrossEntropy()(Y, LABELS)
    b = dl.SoftmaxCrossEntropy()(Y + 100, LABELS)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
    np.testing.assert_allclose(a[1].sum(axis=-1), 0, atol=1e-16)


def test_correct():
    logits = np.array([[[1, 2, 0], [3, 2, 1]], [[0, 0, 5], [1, 2, 1]]])
    labels = np.array([1, 0])
    found = dl.SoftmaxCrossEntropy().correct(logits, labels)
    np.testing.assert_array_equal(found, [[True, True], [False, False]])
    y = np.array([[2.0, -1], [2, 1]])
    targets = np.array([[1, 0], [1, 0]])
    np.testing.assert_array_equal(dl.BinaryCrossEntropy().correct(y, targets), [True, False])
    y = np.array([[0.6, 0.2], [0.4, 0.1]])
    np.testing.assert_array_equal(dl.MeanSquaredError().correct(y, targets), [True, False])
