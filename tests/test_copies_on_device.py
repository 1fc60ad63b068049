"""Networks on a device can be copied and pickled; their noise needs few generators; records name it."""

from __future__ import annotations

import copy
import pickle
import sys

import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import augmentation
from dlcore import backend as backends
from dlcore.random import Noise, Streams


@pytest.fixture
def device(monkeypatch):
    """The double in CuPy's place, so that a pickled backend finds it again."""
    monkeypatch.setitem(sys.modules, "cupy", double.xp)
    monkeypatch.setattr(backends, "_usable_cupy", backends._usable_cupy.__wrapped__)
    monkeypatch.setattr(backends, "_USED", {})
    return dl.get_backend("cupy")


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


CONV = [dl.GaussianNoise(0.1), dl.Conv2D(1, 3, 2), dl.BatchNorm(3, images=True), dl.ELU()]
CONV += [dl.MaxPool2D((2, 1)), dl.Flatten(), dl.Dense(6, 3)]
NETS = {
    "mlp": (dl.mlp([6, 8, 3], batch_norm="before", dropout=0.3), small.blobs),
    "leaky": (dl.mlp([6, 8, 3], activation=dl.LeakyReLU, input_dropout=0.2), small.blobs),
    "conv": (CONV, small.sequences),
    "rnn": (small.rnn(), small.sequences),
    "plain": (dl.mlp([6, 4, 3]), small.blobs),
}


@pytest.mark.parametrize("way", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
@pytest.mark.parametrize("name", NETS)
def test_a_network_is_copied(name, trained, way, device):
    layers, make = NETS[name]
    data, net = make(), dl.Network(layers, 0 if name == "plain" else range(3), device)
    if trained:
        dl.fit(net, data, lr=0.01, steps=4, batch_size=20)
    made = way(net)
    assert made.backend.xp is net.backend.xp
    for key, array in made.arrays().items():
        assert not double.xp.may_share_memory(array, net.arrays()[key])
        np.testing.assert_array_equal(array.get(), net.arrays()[key].get())
    x = device.asarray(data.x_test)
    np.testing.assert_array_equal(made.forward(x).get(), net.forward(x).get())
    before = small.parameters(net)
    dl.fit(made, data, lr=0.01, steps=4, batch_size=20)  # its layers' arrays are views of its own
    assert (small.parameters(net) == before).all()
    assert not (small.parameters(made) == before).all()


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickled])
def test_a_backend_is_copied(way, device):
    assert way(device) == device
    assert way(dl.get_backend("numpy", "float64")) == dl.get_backend("numpy", "float64")


def test_a_double_without_a_name_is_copied():
    net = dl.Network(dl.mlp([6, 4, 3]), 0, dl.Backend("double", double.xp))
    assert copy.deepcopy(net).backend is net.backend


@pytest.mark.parametrize("way", [copy.deepcopy, pickled])
def test_layers_and_activations_are_copied(way, device):
    net = dl.Network(dl.mlp([6, 8, 3], activation=dl.GELU), range(2), device)
    net.forward(device.asarray(small.blobs().x_test), True)
    layer = way(net.layers[1])
    assert isinstance(layer, dl.GELU)
    np.testing.assert_array_equal(layer.a.get(), net.layers[1].a.get())


# Noise -------------------------------------------------------------------------------------------


def generators(run):
    with double.count() as c:
        run()
    return c.names["default_rng"]


@pytest.mark.parametrize("epochs", [1, 5])
def test_one_generator_for_each_noisy_layer_and_fit(epochs, device):
    layers = dl.mlp([6, 8, 8, 3], dropout=0.3, input_dropout=0.1)  # three noisy layers
    net, data = dl.Network(layers, range(2), device), small.blobs()
    options = dict(lr=0.01, epochs=epochs, batch_size=20, evaluate_every=99)
    assert generators(lambda: dl.fit(net, data, **options)) == 3
    turn = augmentation.white_noise(0.1)
    assert generators(lambda: dl.fit(net, data, augment=turn, **options)) == 4
    plain = dl.Network(dl.mlp([6, 8, 3]), range(2), device)
    assert generators(lambda: dl.fit(plain, data, **options)) == 0


def draws(streams, device, *index):
    return Noise(streams, device, "noise", *index).uniform((2, 4)).get()


def test_a_following_epoch_goes_on_and_others_begin_anew(device):
    streams = Streams(range(2))
    first = [draws(streams, device, 0, epoch) for epoch in (1, 2, 3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not (first[one] == first[other]).any()
    again = [draws(streams, device, 0, epoch) for epoch in (1, 1, 5, 5)]
    assert (again[0] == again[1]).all()
    assert (again[0] == first[0]).all()
    assert (again[2] == again[3]).all()
    assert not (again[2] == again[0]).any()
    assert not (draws(streams, device, 1, 1) == again[0]).any()  # another place
    fresh = [draws(Streams(range(2)), device, 0, epoch) for epoch in (1, 2)]
    assert (fresh[0] == first[0]).all()
    assert not (fresh[1] == first[1]).any()  # a run that goes on from a checkpoint: other draws


def test_epochs_give_the_same_masks_in_two_networks(device):
    """Chapter 7 compares nets with equal masks."""
    nets = [dl.Network(dl.mlp([6, 8, 3], dropout=0.5), range(2), device) for _ in range(2)]
    dl.fit(nets[0], small.blobs(), lr=1e-9, epochs=3, batch_size=20)
    masks = []
    for net in nets:
        net.start_epoch(1)
        net.forward(device.asarray(np.ones((4, 6))), True)
        masks.append(net.layers[2].mask.get())
    np.testing.assert_array_equal(*masks)


def test_fits_repeat_themselves(device):
    found = []
    for _ in range(2):
        net = dl.Network(dl.mlp([6, 8, 3], dropout=0.5), range(2), device)
        dl.fit(net, small.blobs(), lr=0.01, epochs=3, batch_size=20)
        found.append(small.parameters(net))
    np.testing.assert_array_equal(*found)


# Records -----------------------------------------------------------------------------------------


def judged():
    return dl.verdict("X1", "a claim", np.random.default_rng(0).random(9), at_least=0.1).machine


def test_a_record_names_the_device(device, monkeypatch):
    assert judged().endswith(f"NumPy {np.__version__}, CuPy 14.0.0 on Double")
    monkeypatch.setattr(double.machine, "devices", 2)
    assert judged().endswith("CuPy 14.0.0 on 2 × Double")


def test_a_record_of_the_host_names_numpy_alone(monkeypatch):
    monkeypatch.setattr(backends, "_USED", {})
    dl.Network(dl.mlp([6, 4, 3]), 0, "numpy")
    assert judged().endswith(f" cores, NumPy {np.__version__}")
