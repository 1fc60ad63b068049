"""What a network, an optimizer and their like hold is their own: the caller's arrays are another's."""

import copy
import pickle

import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore.layers import Layer

NUMPY = dl.get_backend("numpy")
BLUEPRINT = dl.mlp([6, 5, 3], batch_norm="before")
FIT = dict(lr=0.01, epochs=2, progress=False)


def net(seeds=(0, 1), layers=BLUEPRINT, backend=NUMPY):
    return dl.Network(layers, seeds, backend)


def state(network):
    return {name: network.backend.to_numpy(a).tobytes() for name, a in network.memory().items()}


# layer.W = array ------------------------------------------------------------------------------


def made_in_ways():
    """Networks that came about in every way."""
    plain, many = net(0), net()
    loaded = pickle.loads(pickle.dumps(many))
    frozen = net()
    frozen.freeze(0)
    folded = net().fold_batch_norm()
    images = [dl.Conv2D(1, 2, 2), dl.BatchNorm(2, images=True), dl.Flatten(), dl.Dense(8, 3)]
    return {
        "plain": plain, "replicas": many, "pickled": loaded, "copied": copy.deepcopy(many),
        "frozen": frozen, "folded": folded, "images": net(layers=images),
        "recurrent": net(layers=small.rnn()), "double": net(backend=dl.Backend("double", double.xp)),
        "float64": net(backend=dl.get_backend("numpy", "float64")),
    }  # fmt: skip


@pytest.mark.parametrize("way", made_in_ways())
def test_assignment_copies_into_the_memory_of_the_network(way):
    """Parameters, gradients and buffers of every layer; afterwards the caller's array is apart."""
    network = made_in_ways()[way]
    to_numpy = network.backend.to_numpy
    for layer in network.layers:
        for name in sorted(layer.attached):
            before = getattr(layer, name)
            value = np.random.default_rng(1).standard_normal(before.shape)
            setattr(layer, name, value)
            assert getattr(layer, name) is before
            kept = value.astype(before.dtype)
            value[...] = 99
            np.testing.assert_array_equal(to_numpy(getattr(layer, name)), kept)
    network.check_memory()
    for slot in network.slots:
        span = to_numpy(network.parameters[slot.start : slot.stop])
        np.testing.assert_array_equal(
            span, to_numpy(getattr(network.layers[slot.layer], slot.name)).ravel()
        )


@pytest.mark.parametrize("way", ["plain", "replicas", "pickled", "copied"])
def test_assigned_weights_learn(way):
    """They were detached from the optimizer's buffer: the loss stood still and nothing was said."""
    network, data = made_in_ways()[way], small.blobs()
    for layer in network.layers:
        if "W" in layer.shapes:
            layer.W = 0.1 * np.random.default_rng(3).standard_normal(layer.W.shape)
    before = dl.evaluate(network, data)[0]
    start = network.layers[0].W.copy()
    history = dl.fit(network, data, lr=0.02, epochs=10)
    assert (dl.evaluate(network, data)[0] < 0.8 * before).all()
    assert not np.array_equal(network.layers[0].W, start)
    np.testing.assert_allclose(
        history.valid_loss[..., -1], dl.evaluate(network, data)[0], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("W", np.ones((6, 5)), ValueError, r"W: expected shape \(2, 6, 5\), got \(6, 5\)"),
        ("W", 0.0, ValueError, r"W: expected shape \(2, 6, 5\), got \(\)"),
        ("b", np.ones((2, 5)), ValueError, r"b: expected shape \(2, 1, 5\), got \(2, 5\)"),
        ("dW", np.ones((2, 5, 6)), ValueError, r"dW: expected shape \(2, 6, 5\), got \(2, 5, 6\)"),
        ("W", np.ones((2, 6, 5), complex), TypeError, "W: expected real numbers, got complex128"),
        (
            "W",
            np.full((2, 6, 5), 1e39),
            ValueError,
            "W: expected numbers within float32, got larger",
        ),
        ("W", "zeros", TypeError, "W: expected real numbers"),
        ("W", None, TypeError, "W: expected real numbers"),
        ("W", np.ma.ones((2, 6, 5)), TypeError, "W: expected no mask"),
    ],
)
def test_wrong_assignments_are_refused_and_change_nothing(name, value, error, message):
    network = net()
    before = state(network)
    with pytest.raises(error, match=message):
        setattr(network.layers[0], name, value)
    assert state(network) == before


def test_infinities_may_be_assigned():
    network = net(0)
    value = np.zeros((1, 3))
    value[0, 1] = -np.inf
    network.layers[-1].b = value
    assert np.isneginf(network.layers[-1].b[0, 1])


def test_arithmetic_in_place_and_views_of_itself():
    network = net(0, [dl.Dense(4, 4)])
    layer = network.layers[0]
    w = layer.W.copy()
    layer.W *= 2
    layer.W += 1
    np.testing.assert_array_equal(layer.W, w * 2 + 1)
    layer.W = layer.W.mT
    np.testing.assert_array_equal(layer.W, (w * 2 + 1).T)
    layer.W = layer.W[::-1].tolist()
    np.testing.assert_array_equal(layer.W, (w * 2 + 1).T[::-1])
    network.check_memory()


def test_flat_buffers_stay_in_place():
    one, other = net(), net([5, 6])
    one.parameters = other.parameters
    assert state(one)["0.W"] == state(other)["0.W"]
    other.parameters[...] = 0
    assert one.layers[0].W.any()
    one.check_memory()
    with pytest.raises(ValueError, match=r"parameters: expected shape \(\d+,\), got \(3,\)"):
        one.parameters = np.zeros(3)
    one.gradients = np.ones(one.gradients.shape)
    np.testing.assert_array_equal(one.layers[0].dW, 1)


@pytest.mark.parametrize("name", ["W", "b", "dW", "db"])
def test_layers_that_no_network_holds_refuse(name):
    """They would be lost: a network draws its own weights."""
    layer = dl.Dense(3, 2)
    with pytest.raises(ValueError, match=f"{name}: expected a layer of a network"):
        setattr(layer, name, np.ones((3, 2)))
    norm = dl.BatchNorm(3)
    for own in ("gamma", "running_mean"):
        with pytest.raises(ValueError, match=f"{own}: expected a layer of a network"):
            setattr(norm, own, np.ones((1, 3)))
    layer.comment = "other attributes are free"


def test_arrays_cannot_be_deleted():
    with pytest.raises(ValueError, match="W: expected to stay"):
        del net().layers[0].W


class Rebinding(dl.Dense):
    """A layer of a reader's own, which makes new arrays for its gradients."""

    def backward(self, dy):
        self.dW = self.x.mT @ dy
        self.db = dy.sum(axis=-2, keepdims=True)
        return dy @ self.W.mT


def test_layers_that_make_new_gradients_learn():
    networks = [net(layers=[kind(6, 5), dl.ReLU(), kind(5, 3)]) for kind in (dl.Dense, Rebinding)]
    for network in networks:
        dl.fit(network, small.blobs(), **FIT)
    assert networks[0].parameters.tobytes() == networks[1].parameters.tobytes()


# Layers and networks --------------------------------------------------------------------------


def test_two_networks_share_no_layers():
    """From a list, and from a function that gives the same layers again."""
    layers = [dl.Dense(6, 5), dl.Dropout(0.5), dl.Dense(5, 3)]
    for given in (layers, lambda: layers):
        one, other = net(0, given), net(1, given)
        before = state(one)
        dl.fit(other, small.blobs(), **FIT)
        layers[1].rate = 0.9
        assert state(one) == before
        assert one.layers[1].rate == 0.5
        layers[1].rate = 0.5
        dl.fit(one, small.blobs(), **FIT)
        assert state(one) != before


def test_layers_of_one_network_in_another():
    one = net()
    other = net([7, 8], one.layers)
    before = state(one)
    dl.fit(other, small.blobs(), **FIT)
    assert state(one) == before
    assert not np.may_share_memory(one.layers[0].W, other.layers[0].W)


def test_exchanged_layers_are_refused():
    """An optimizer would update an array that no layer reads."""
    one, other = net(), net([7, 8])
    one.layers[0] = other.layers[0]
    with pytest.raises(
        ValueError, match="layers: expected the layers that the network was made with"
    ):
        dl.fit(one, small.blobs(), **FIT)
    fresh = net()
    fresh.layers[0] = dl.Dense(6, 5)
    with pytest.raises(ValueError, match="got another one at 0, whose W is not"):
        dl.Adam().bind(fresh)


def test_frozen_and_factors_are_copies():
    network = net(0)
    frozen, factors = {0}, {2: 0.5}
    network.frozen, network.lr_factors = frozen, factors
    frozen.add(3)
    factors[9] = -1
    assert network.frozen == {0}
    assert network.lr_factors == {2: 0.5}
    with pytest.raises(AttributeError):
        network.frozen.add(1)
    with pytest.raises(TypeError, match="lr_factors: expected a dict"):
        network.lr_factors = [0.5]


def test_frozen_layers_that_are_set_free_learn():
    """Assigned, too, it says where back-propagation ends."""
    network = net(0)
    network.frozen = [0, 1]
    assert network.lowest > 1
    network.frozen = ()
    before = network.layers[0].W.copy()
    dl.fit(network, small.blobs(), **FIT)
    assert not np.array_equal(network.layers[0].W, before)


def test_rates_and_strengths_are_copies():
    rates, decays, strengths = (np.array([0.01, 0.02]) for _ in range(3))
    penalty = dl.L2(strengths)
    strengths[:] = 5
    assert penalty.strength == (0.01, 0.02)
    assert penalty == dl.L2([0.01, 0.02])

    class Meddle:
        def weights(self, network):
            rates[:] = decays[:] = 7

    found = []
    for beside in ((penalty,), (penalty, Meddle())):
        network = net()
        dl.fit(network, small.blobs(), lr=rates, weight_decay=decays, epochs=2, regularizers=beside)
        found.append(network.parameters.tobytes())
    assert found[0] == found[1]


def test_schedules_that_return_their_own_array():
    factors = np.ones(2)

    def schedule(k, n):
        factors[:] = 1 / (k + 1)
        return factors

    one, other = net(), net()
    dl.fit(one, small.blobs(), lr=0.1, epochs=3, batch_size=20, schedule=schedule)
    dl.fit(other, small.blobs(), lr=0.1, epochs=3, batch_size=20, schedule=lambda k, n: 1 / (k + 1))
    assert one.parameters.tobytes() == other.parameters.tobytes()


def test_sizes_boundaries_and_seeds_are_copies():
    sizes, seeds = [6, 5, 3], [0, 1]
    blueprint = dl.mlp(sizes)
    network = net(seeds, blueprint)
    boundaries, factors = [0.5], [1, 0.1]
    stairs = dl.schedules.piecewise(boundaries, factors)
    sizes[1], seeds[0], boundaries[0], factors[1] = 50, 9, 0.1, 0.0
    assert net(0, blueprint).layers[0].W.shape == (6, 5)
    assert network.streams.seeds == (0, 1)
    assert stairs(60, 100) == 0.1


# Inputs and outputs ---------------------------------------------------------------------------

ENDS = {
    "dense": [dl.Dense(6, 3)],
    "logistic": [dl.Dense(6, 3), dl.Logistic()],
    "ReLU and dropout": [dl.Dense(6, 3), dl.ReLU(), dl.Dropout(0)],
    "identity": [dl.Identity(), dl.Dense(6, 3), dl.Identity()],
    "batch norm": [dl.Dense(6, 3), dl.BatchNorm(3)],
    "softplus first": [dl.Softplus(), dl.Dense(6, 3), dl.Swish()],
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ENDS)
def test_inputs_and_outputs_may_change_before_backward(name, training):
    """``y -= target`` is a natural thing to write."""
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    calm, other = net(layers=ENDS[name]), net(layers=ENDS[name])
    calm.forward(x.copy(), training)
    own = x.copy()
    y = other.forward(own, training)
    own[...], y[...] = 7, 7
    dy = np.ones_like(y)
    calm.backward(dy)
    other.backward(dy.copy())
    assert calm.gradients.tobytes() == other.gradients.tobytes()


def test_states_of_a_recurrent_net_keep_their_gradients():
    network = net(0, [dl.SimpleRNN(2, 3)])
    network.forward(np.ones((4, 5, 2), np.float32), True)
    dy = np.ones((4, 3), np.float32)
    network.backward(dy)
    dy[...] = 5
    np.testing.assert_array_equal(network.layers[0].dh[-1], 1)


# Streams of layers ----------------------------------------------------------------------------


class Scale(Layer):
    """A layer with a random vector and no weights W."""

    def __init__(self):
        self.shapes = {"s": (1, 6)}

    def initialize(self, rng):
        return {"s": rng.standard_normal((1, 6))}

    def forward(self, x, training):
        self.x = x
        return x * self.s

    def backward(self, dy):
        self.ds = (dy * self.x).sum(axis=-2, keepdims=True)
        return dy * self.s


class Shift(Scale):
    pass


def test_no_two_layers_draw_the_same_numbers():
    """Layers without W stand at one place in the count of weights: each has its own stream."""
    plain = net(layers=[dl.Dense(6, 6, "normal"), dl.Dense(6, 3)])
    network = net(
        layers=[Scale(), Scale(), Shift(), dl.Dense(6, 6, "normal"), Scale(), dl.Dense(6, 3)]
    )
    drawn = [network.layers[i].s.tobytes() for i in (0, 1, 2, 4)]
    drawn += [network.layers[3].W[:, :1].tobytes()]
    assert len(set(drawn)) == 5
    assert network.layers[3].W.tobytes() == plain.layers[0].W.tobytes()
    normed = net(layers=[dl.BatchNorm(6), Scale(), dl.Dense(6, 3)])
    assert normed.layers[1].s.tobytes() == drawn[0]


def test_upper_layers_have_the_noise_of_the_whole_net():
    """Also where frozen noise stands below at the same place, which counts as a twin."""
    network = net(layers=[dl.Dense(6, 5), dl.Dropout(0.5), dl.Dropout(0.5), dl.Dense(5, 3)])
    network.freeze([0, 1])
    upper, _ = dl.cached(network, small.blobs())
    network.start_epoch(3)
    masks = network.layers[2].noise.uniform((2, 4, 5))
    upper.start_epoch(3)
    np.testing.assert_array_equal(upper.layers[0].noise.uniform((2, 4, 5)), masks)
