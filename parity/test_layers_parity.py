"""Every layer, forward and backward, against PyTorch in float64.

Conventions that differ, and are turned in the references below: dlcore's weights are (in, out),
PyTorch's (out, in); dlcore's images are NHWC, PyTorch's NCHW; PyTorch's RNN has two biases (one is
0 here) and returns all states (dlcore the last).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compare import BACKEND, SEEDS, assert_same, subclasses, tensor
from torch.func import functional_call
from torch.nn import functional as F

import dlcore as dl
from dlcore import layers
from dlcore.activations import Activation
from dlcore.convolution import Conv2D, MaxPool2D

RNG = np.random.default_rng(0)


def to_nchw(x):
    return x.permute(0, 3, 1, 2)


def to_nhwc(x):
    return x.permute(0, 2, 3, 1)


def rnn(nonlinearity):
    def reference(x, p, layer):
        module = torch.nn.RNN(
            layer.fan_in, layer.units, nonlinearity=nonlinearity, batch_first=True
        )
        names = {"weight_ih_l0": p["W"].mT, "weight_hh_l0": p["U"].mT, "bias_ih_l0": p["b"][0]}
        names["bias_hh_l0"] = torch.zeros(layer.units)
        return functional_call(module, names, (x,))[0][:, -1]

    return reference


def batch_norm(x, p, layer):
    x = to_nchw(x) if layer.images else x
    options = dict(training=True, momentum=layer.momentum, eps=layer.epsilon)
    y = F.batch_norm(x, None, None, p["gamma"][0], p["beta"][0], **options)
    return to_nhwc(y) if layer.images else y


def conv(x, p, layer):
    """PyTorch pads 'same' as dlcore does: an odd zero goes below and to the right."""
    (above, below), (left, right) = layer.padding
    x = F.pad(to_nchw(x), (left, right, above, below))
    kernel = p["W"].permute(3, 2, 0, 1).contiguous()
    return to_nhwc(F.conv2d(x, kernel, p["b"][0], stride=layer.stride))


def conv_same(x, p, layer):
    kernel = p["W"].permute(3, 2, 0, 1).contiguous()
    return to_nhwc(F.conv2d(to_nchw(x), kernel, p["b"][0], padding="same"))


#: Layer, shape of the input without replicas, PyTorch's output from (x, parameters by name, layer).
TABLE = [
    (dl.Dense(5, 4), (7, 5), lambda x, p, _: F.linear(x, p["W"].mT, p["b"][0])),
    (dl.Dense(1, 1), (1, 1), lambda x, p, _: F.linear(x, p["W"].mT, p["b"][0])),
    (dl.Flatten(), (7, 2, 3, 4), lambda x, p, _: torch.flatten(x, 1)),
    (dl.Flatten(2), (7, 5, 3, 4), lambda x, p, _: torch.flatten(x, 2)),
    (dl.SimpleRNN(3, 4), (7, 6, 3), rnn("tanh")),
    (dl.SimpleRNN(3, 4, dl.ReLU), (7, 6, 3), rnn("relu")),
    (layers.BatchNorm(5), (7, 5), batch_norm),
    (layers.BatchNorm(5, momentum=0.3, epsilon=0.1), (2, 5), batch_norm),
    (layers.BatchNorm(3, images=True), (5, 4, 6, 3), batch_norm),
    (Conv2D(2, 3, 3), (4, 6, 7, 2), conv),
    (Conv2D(2, 3, (2, 3), stride=2), (4, 7, 6, 2), conv),
    (Conv2D(3, 2, (3, 4), stride=3, padding=2), (4, 7, 6, 3), conv),
    (Conv2D(2, 3, 3, padding="same"), (4, 6, 5, 2), conv_same),
    (Conv2D(2, 1, (2, 4), padding="same"), (4, 6, 5, 2), conv_same),
    (Conv2D(1, 1, 1), (1, 1, 1, 1), conv),
    (MaxPool2D(), (4, 6, 8, 3), lambda x, p, _: to_nhwc(F.max_pool2d(to_nchw(x), 2))),
    (MaxPool2D((2, 3)), (4, 7, 8, 3), lambda x, p, _: to_nhwc(F.max_pool2d(to_nchw(x), (2, 3)))),
    (dl.Identity(), (7, 5), lambda x, p, _: torch.nn.Identity()(x)),
    (dl.Logistic(), (7, 5), lambda x, p, _: torch.sigmoid(x)),
    (dl.Tanh(), (7, 5), lambda x, p, _: torch.tanh(x)),
    (dl.ReLU(), (7, 5), lambda x, p, _: F.relu(x)),
    (dl.LeakyReLU(), (7, 5), lambda x, p, _: F.leaky_relu(x)),
    (dl.LeakyReLU(0.3), (7, 5), lambda x, p, _: F.leaky_relu(x, 0.3)),
    (dl.ELU(), (7, 5), lambda x, p, _: F.elu(x)),
    (dl.ELU(0.5), (7, 5), lambda x, p, _: F.elu(x, 0.5)),
    (dl.SELU(), (7, 5), lambda x, p, _: F.selu(x)),
    (dl.GELU(), (7, 5), lambda x, p, _: F.gelu(x, approximate="tanh")),
    (dl.Swish(), (7, 5), lambda x, p, _: F.silu(x)),
    # PyTorch's softplus is the identity above a threshold (20 by default), which is off here.
    (dl.Softplus(), (7, 5), lambda x, p, _: F.softplus(x, threshold=700)),
]
IDS = [f"{type(layer).__name__}-{i}" for i, (layer, _, _) in enumerate(TABLE)]
#: Layers whose output is random while training: compared below, mask in hand.
RANDOM = {layers.Dropout, layers.GaussianNoise}


def test_every_public_layer_is_compared():
    assert {type(layer) for layer, _, _ in TABLE} | RANDOM == subclasses(dl.Layer) - {Activation}


def placed(layer):
    """The layer in a network of two replicas, with random parameters."""
    network = dl.Network([layer], SEEDS, BACKEND)
    network.parameters[...] = RNG.standard_normal(network.parameters.size) * 0.7
    network.layers[0].needs_dx = True
    return network.layers[0]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("scale", [0.3, 3.0, 30.0])
@pytest.mark.parametrize(("layer", "shape", "reference"), TABLE, ids=IDS)
def test_forward_and_backward(layer, shape, reference, scale):
    own = placed(layer)
    x = scale * RNG.standard_normal((len(SEEDS), *shape))
    y = own.forward(x, True)
    dy = RNG.standard_normal(y.shape)
    dx = own.backward(dy)
    for r in range(len(SEEDS)):
        theirs = tensor(x[r], grad=True)
        parameters = {name: tensor(getattr(own, name)[r], grad=True) for name in own.shapes}
        expected = reference(theirs, parameters, own)
        expected.backward(tensor(dy[r]))
        assert_same(y[r], expected)
        assert_same(dx[r], theirs.grad, 1e-11)
        for name, p in parameters.items():
            assert_same(getattr(own, "d" + name)[r], p.grad, 1e-11)


@pytest.mark.parametrize(
    "layer",
    [layers.BatchNorm(4), layers.BatchNorm(4, 0.3, 1e-3), layers.BatchNorm(4, images=True)],
    ids=["default", "0.3", "images"],
)
def test_batch_norm_running_statistics(layer):
    """Ten batches of training, then prediction with gradients through the frozen statistics.

    Both libraries keep the unbiased variance, and normalise by the biased one.
    """
    own = placed(layer)
    kind = torch.nn.BatchNorm2d if layer.images else torch.nn.BatchNorm1d
    modules = []
    for r in range(len(SEEDS)):
        module = kind(4, eps=own.epsilon, momentum=own.momentum)
        module.weight.data, module.bias.data = tensor(own.gamma[r, 0]), tensor(own.beta[r, 0])
        modules.append(module)
    shape = (6, 3, 2, 4) if layer.images else (6, 4)
    for training in [True] * 10 + [False] * 2:
        x = 2 + 3 * RNG.standard_normal((len(SEEDS), *shape))
        y = own.forward(x, training)
        dy = RNG.standard_normal(y.shape)
        dx = own.backward(dy)
        for r, module in enumerate(modules):
            module.train(training)
            module.zero_grad()
            theirs = tensor(x[r], grad=True)
            expected = to_nhwc(module(to_nchw(theirs))) if layer.images else module(theirs)
            expected.backward(tensor(dy[r]))
            assert_same(y[r], expected)
            assert_same(dx[r], theirs.grad, 1e-11)
            assert_same(own.dgamma[r, 0], module.weight.grad)
            assert_same(own.dbeta[r, 0], module.bias.grad)
            assert_same(own.running_mean[r, 0], module.running_mean)
            assert_same(own.running_var[r, 0], module.running_var)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_dropout(rate):
    """The generators differ, so masks do; what is compared is what a mask does to y and dx.

    Kept elements are scaled by 1/(1 − p), prediction is the identity, and the share of kept elements
    of both agrees within six standard errors.
    """
    own = placed(layers.Dropout(rate))
    x = 1 + RNG.random((len(SEEDS), 300, 200))
    y = own.forward(x, True)
    dy = RNG.standard_normal(y.shape)
    dx = own.backward(dy)
    theirs = tensor(x, grad=True)
    expected = F.dropout(theirs, rate, training=True)
    expected.backward(tensor(dy))
    ours_kept, theirs_kept = y != 0, expected.detach().numpy() != 0
    both = ours_kept & theirs_kept
    assert_same(y[both], expected.detach().numpy()[both])
    assert_same(dx[both], theirs.grad.numpy()[both])
    assert not np.any(dx[~ours_kept])
    error = np.sqrt(2 * rate * (1 - rate) / x.size)
    assert abs(ours_kept.mean() - theirs_kept.mean()) <= 6 * error
    assert_same(own.forward(x, False), F.dropout(tensor(x), rate, training=False), 0)


def test_gaussian_noise():
    """PyTorch has no such layer: x + σ·randn. Compared are moments, prediction and gradient."""
    own = placed(layers.GaussianNoise(0.3))
    x = RNG.standard_normal((len(SEEDS), 300, 200))
    ours = own.forward(x, True) - x
    theirs = (0.3 * torch.randn(x.shape)).numpy()
    error = 0.3 / np.sqrt(x.size)
    assert abs(ours.mean() - theirs.mean()) < 6 * error * np.sqrt(2)
    assert abs(ours.std() - theirs.std()) < 6 * error
    assert_same(own.backward(x), x, 0)
    assert_same(own.forward(x, False), x, 0)


def test_ties_in_a_window():
    """Small integers, so that many windows have two maxima: the gradient goes to the same one."""
    own = placed(MaxPool2D(2))
    x = RNG.integers(0, 3, (len(SEEDS), 4, 8, 8, 2)).astype(float)
    dy = RNG.standard_normal(own.forward(x, True).shape)
    dx = own.backward(dy)
    for r in range(len(SEEDS)):
        theirs = tensor(x[r], grad=True)
        F.max_pool2d(to_nchw(theirs), 2).backward(to_nchw(tensor(dy[r])))
        assert_same(dx[r], theirs.grad, 0)


def test_network_of_layers():
    """A whole net, loss included: all gradients of all parameters at once."""
    network = dl.Network(dl.mlp([6, 5, 5, 3], activation=dl.ELU), SEEDS, BACKEND)
    x, labels = RNG.standard_normal((len(SEEDS), 8, 6)), RNG.integers(0, 3, (len(SEEDS), 8))
    value, dy = dl.SoftmaxCrossEntropy()(network.forward(x, True), labels)
    network.backward(dy)
    dense = [layer for layer in network.layers if isinstance(layer, dl.Dense)]
    for r in range(len(SEEDS)):
        weights = [(tensor(d.W[r], True), tensor(d.b[r, 0], True)) for d in dense]
        z = tensor(x[r])
        for i, (w, b) in enumerate(weights):
            z = F.linear(F.elu(z) if i else z, w.mT, b)
        loss = F.cross_entropy(z, torch.tensor(labels[r]))
        loss.backward()
        assert_same(value[r], loss)
        for layer, (w, b) in zip(dense, weights, strict=True):
            assert_same(layer.dW[r], w.grad)
            assert_same(layer.db[r, 0], b.grad)
