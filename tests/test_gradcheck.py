"""Every gradient of the package against finite differences, with a random cotangent, in float64."""

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import gradcheck
from dlcore.activations import Activation
from dlcore.layers import Layer

TOLERANCE = 1e-7

#: name -> (layer, shape of an input without the replica axis)
LAYERS = {
    "Dense": (dl.Dense(5, 4, bias=0.3), (6, 5)),
    "Dense of one": (dl.Dense(1, 1), (1, 1)),
    "Flatten": (dl.Flatten(), (6, 2, 3, 2)),
    "Flatten two axes": (dl.Flatten(2), (6, 2, 3)),
    "SimpleRNN": (dl.SimpleRNN(3, 4), (5, 6, 3)),
    "SimpleRNN logistic": (dl.SimpleRNN(2, 3, dl.Logistic), (4, 3, 2)),
    "SimpleRNN one step": (dl.SimpleRNN(2, 3, dl.Softplus), (4, 1, 2)),
    "BatchNorm": (dl.BatchNorm(5), (6, 5)),
    "BatchNorm of images": (dl.BatchNorm(3, images=True), (2, 3, 2, 3)),
    "Dropout": (dl.Dropout(0.3), (6, 5)),
    "GaussianNoise": (dl.GaussianNoise(0.3), (6, 5)),
    "Conv2D": (dl.Conv2D(2, 3, 3), (2, 5, 4, 2)),
    "Conv2D strided": (dl.Conv2D(2, 3, (3, 2), stride=2, padding=1), (2, 5, 6, 2)),
    "Conv2D same": (dl.Conv2D(1, 2, (2, 3), padding="same"), (2, 4, 5, 1)),
    "MaxPool2D": (dl.MaxPool2D(2), (2, 5, 4, 3)),
    "MaxPool2D of rows": (dl.MaxPool2D((1, 3)), (2, 5, 4, 3)),
    "Identity": (dl.Identity(), (6, 5)),
    "Logistic": (dl.Logistic(), (6, 5)),
    "Tanh": (dl.Tanh(), (6, 5)),
    "ReLU": (dl.ReLU(), (6, 5)),
    "LeakyReLU": (dl.LeakyReLU(0.2), (6, 5)),
    "ELU": (dl.ELU(0.7), (6, 5)),
    "SELU": (dl.SELU(), (6, 5)),
    "GELU": (dl.GELU(), (6, 5)),
    "Swish": (dl.Swish(), (6, 5)),
    "Softplus": (dl.Softplus(), (6, 5)),
}
LOSSES = {
    "SoftmaxCrossEntropy": dl.SoftmaxCrossEntropy(),
    "BinaryCrossEntropy": dl.BinaryCrossEntropy(),
    "MeanSquaredError": dl.MeanSquaredError(),
}


def off_kinks(shape, seed=0):
    """Inputs at least 0.01 away from zero, where ReLU and its like have a kink."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return x + 0.01 * np.sign(x)


@pytest.mark.parametrize("replicas", [(), (1,), (3,)], ids=["plain", "1", "3"])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, replicas):
    layer, shape = LAYERS[name]
    seeds = range(*replicas) if replicas else 0
    errors = gradcheck.check_layer(layer, off_kinks((*replicas, *shape)), seeds)
    assert errors.keys() == {"x", *layer.shapes}
    assert max(errors.values()) < TOLERANCE, errors


def target_of(name, shape, seed=2):
    rng = np.random.default_rng(seed)
    if LOSSES[name].kind == "labels":
        return rng.integers(0, shape[-1], shape[:-1])
    return rng.random(shape)


@pytest.mark.parametrize("replicas", [(), (1,), (4,)], ids=["plain", "1", "4"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, replicas):
    shape = (*replicas, 7, 5)
    y = 2 * off_kinks(shape)
    assert gradcheck.check_loss(LOSSES[name], y, target_of(name, shape)) < TOLERANCE
    shared = target_of(name, shape[-2:])
    assert gradcheck.check_loss(LOSSES[name], y, shared) < TOLERANCE


@pytest.mark.parametrize("seeds", [3, [3], [3, 9]], ids=["plain", "1", "2"])
def test_whole_network(backend64, seeds):
    """Through five layers and the loss, into the flat buffer: each parameter of each replica."""
    blueprint = dl.mlp([4, 5, 5, 3], activation=dl.Tanh, initializer="glorot_normal")
    network, loss = dl.Network(blueprint, seeds, backend64), dl.SoftmaxCrossEntropy()
    loss.xp = backend64.xp
    x = backend64.asarray(off_kinks((8, 4)))
    labels = backend64.asarray(np.arange(8) % 3, np.int64)

    def total():
        return float(backend64.to_numpy(loss(network.forward(x), labels)[0]).sum())

    _, dy = loss(network.forward(x, training=True), labels)
    network.backward(dy)
    found = backend64.to_numpy(network.gradients)
    start, expected = backend64.to_numpy(network.parameters).copy(), np.zeros_like(found)
    for i in range(len(start)):
        values = []
        for h in (1e-6, -1e-6):
            moved = start.copy()
            moved[i] += h
            network.parameters[...] = backend64.asarray(moved)
            values.append(total())
        expected[i] = (values[0] - values[1]) / 2e-6
    assert found.dtype == np.float64
    assert gradcheck.error(found, expected) < 1e-6


class WrongWeights(dl.Dense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dW *= 1.001
        return dx


class WrongBias(dl.Dense):
    def backward(self, dy):
        dx = super().backward(dy)
        self.db += 1e-3
        return dx


class WrongInput(dl.Tanh):
    def derivative(self, z, a):
        return 1 - a


class WrongSoftmax(dl.SoftmaxCrossEntropy):
    """Its error lies along the ones: a cotangent of ones, or a sum over classes, sees nothing."""

    def __call__(self, logits, labels):
        value, dy = super().__call__(logits, labels)
        return value, dy + 1e-3 * (logits - logits.mean(axis=-1, keepdims=True))


class ReplicaMean(dl.MeanSquaredError):
    """The gradient of the mean over replicas, the error that the contract forbids."""

    def __call__(self, y, targets):
        value, dy = super().__call__(y, targets)
        return value, dy / y.shape[0]


@pytest.mark.parametrize(
    ("layer", "wrong"),
    [(WrongWeights(5, 4), "W"), (WrongBias(5, 4), "b"), (WrongInput(), "x")],
)
def test_check_catches_wrong_layer(layer, wrong):
    errors = gradcheck.check_layer(layer, off_kinks((6, 5)))
    assert errors.pop(wrong) > 1e-4
    assert all(e < TOLERANCE for e in errors.values())


@pytest.mark.parametrize("loss", [WrongSoftmax(), ReplicaMean()])
def test_check_catches_wrong_loss(loss):
    name = "SoftmaxCrossEntropy" if loss.kind == "labels" else "MeanSquaredError"
    shape = (3, 7, 5)
    assert gradcheck.check_loss(loss, off_kinks(shape), target_of(name, shape)) > 1e-4


def test_check_leaves_the_layer_and_input_alone():
    layer, x = dl.Dense(5, 4), off_kinks((6, 5))
    before = x.copy()
    gradcheck.check_layer(layer, x)
    assert not hasattr(layer, "W")
    np.testing.assert_array_equal(x, before)


def test_nan_is_no_agreement():
    assert not gradcheck.error(np.array([np.nan]), np.array([1.0])) < 1


def test_tables_hold_every_public_class():
    """A new layer, activation or loss must enter the tables above."""
    assert {type(layer) for layer, _ in LAYERS.values()} == small.subclasses(Layer) - {Activation}
    losses = {v for v in vars(dl.losses).values() if isinstance(v, type) and hasattr(v, "correct")}
    assert {type(loss) for loss in LOSSES.values()} == losses
