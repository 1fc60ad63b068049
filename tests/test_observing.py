"""Whoever looks at a network leaves it as it was: a table of networks times one of observers.

Compared is everything before and after: parameters, buffers, gradients, what layers remember of their
last pass, their noise, NumPy's global generator, matplotlib's settings; and what ``backward`` then gives.
"""

import contextlib
import copy

import matplotlib as mpl
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import gradcheck, observing, plots, probes
from dlcore.batches import Part

mpl.use("Agg")

BLOBS, ROWS = small.blobs(), small.sequences()
RNG = np.random.default_rng(0)
PICTURES = dl.datasets.Dataset(
    *(RNG.random((30, 6, 6, 1)), np.arange(30) % 3) * 3, name="pictures", classes=3
)
HARD = dict(initializer="normal", activation=dl.Tanh)


def batch_normed():
    return dl.mlp([6, 5, 4, 3], batch_norm="before", **HARD)()


def convolution():
    conv = dl.Conv2D(1, 2, 3, padding="same")
    images = [dl.BatchNorm(2, images=True), dl.ReLU(), dl.MaxPool2D(2), dl.Flatten()]
    return [dl.GaussianNoise(0.1), conv, *images, dl.Dense(18, 3)]


class Block(dl.Layer):
    """A layer that holds others, as users write them."""

    def __init__(self):
        self.inner, self.rest = dl.Tanh(), [dl.Dropout(0.5), dl.Dropout(0.2)]

    def forward(self, x, training):
        self.inner.xp = self.xp
        return self.inner.forward(x, training)

    def backward(self, dy):
        return self.inner.backward(dy)


#: name -> layers, data, frozen layers
NETWORKS = {
    "plain": (dl.mlp([6, 5, 4, 3], **HARD), BLOBS, ()),
    "one layer": (dl.mlp([6, 3]), BLOBS, ()),
    "frozen below": (dl.mlp([6, 5, 4, 3], **HARD), BLOBS, (0,)),
    "frozen above": (dl.mlp([6, 5, 4, 3], **HARD), BLOBS, (-1,)),
    "all frozen": (dl.mlp([6, 5, 3], **HARD), BLOBS, (0, -1)),
    "batch norm": (batch_normed, BLOBS, ()),
    "batch norm frozen": (batch_normed, BLOBS, (0, 1)),
    "dropout": (dl.mlp([6, 5, 4, 3], dropout=0.5, input_dropout=0.2, **HARD), BLOBS, ()),
    "recurrent": (small.rnn, ROWS, ()),
    "recurrent frozen": (small.rnn, ROWS, ("SimpleRNN",)),
    "convolution": (convolution, PICTURES, ()),
    "convolution frozen": (convolution, PICTURES, ("Conv2D", "BatchNorm")),
    "zero weights": (dl.mlp([6, 5, 3], initializer=dl.initializers.normal(0.0)), BLOBS, ()),
    "nested": (lambda: [dl.Dense(6, 4), Block(), dl.Dense(4, 3)], BLOBS, ()),
    "activation below": (lambda: [dl.Tanh(), dl.Dense(6, 3)], BLOBS, ()),
}


def evaluate(net, data):
    return [dl.evaluate(net, data, part) for part in ("train", "valid", "test")]


def signals(net, data):
    return probes.signals(net, data.x_valid[:8], data.y_valid[:8])


def learning(net, data):
    return probes.learning(net, net.parameters.copy())


def other_losses(net, data):
    loss = dl.MeanSquaredError()
    kept = dict(vars(loss))
    dl.evaluate(net, data, "valid", loss)
    probes.signals(net, data.x_valid, np.eye(3)[data.y_valid], loss)
    assert vars(loss) == kept


def transfer(net, data):
    with contextlib.suppress(ValueError):  # nothing frozen below
        dl.cached(net, data)


def folded(net, data):
    with contextlib.suppress(ValueError):  # no batch norm that can be folded
        net.fold_batch_norm()


def figures(net, data):
    found = signals(net, data)
    found = found if "seed" in found.dims else found.expand_dims(seed=[0])
    plots.layers(found.variance)
    plots.plt.close("all")


def gradients_checked(net, data):
    for layer in net.layers:
        if layer.input_ndim == 2 and isinstance(layer, dl.Dense):
            x = RNG.standard_normal((4, layer.fan_in))
            assert max(gradcheck.check_layer(layer, x).values()) < 1e-6


OBSERVERS = [
    evaluate, signals, learning, probes.gradient_rms, probes.weight_slots, other_losses,
    transfer, folded, figures, gradients_checked,
]  # fmt: skip


def observe(observer, net, data):
    one = observer in (probes.gradient_rms, probes.weight_slots)
    return observer(net) if one else observer(net, data)


def run(net, data):
    """One pass as training makes it."""
    x = net.backend.asarray(data.x_train[:10])
    labels = net.backend.asarray(data.y_train[:10], np.int64)
    return dl.SoftmaxCrossEntropy()(net.forward(x, True), labels)[1]


def frozen_copy(value, seen=None):
    """A deep copy in plain containers, arrays as bytes: two are equal where nothing has changed."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, dict):
        return {k: frozen_copy(v) for k, v in value.items() if k != "xp"}
    if isinstance(value, (list, tuple)):
        return [frozen_copy(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, np.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, (dl.Layer, dl.Noise)):
        return type(value).__name__, frozen_copy(vars(value))
    return repr(value)


def state(net):
    own = {k: v for k, v in vars(net).items() if k not in ("backend", "streams", "slots")}
    drawn = np.random.get_state()  # noqa: NPY002
    shared = drawn, dict(mpl.rcParams), plots.plt.get_fignums()
    return frozen_copy(own), frozen_copy(shared)


@pytest.mark.parametrize("seeds", [3, [3, 8]], ids=["plain", "replicas"])
@pytest.mark.parametrize("observer", OBSERVERS, ids=lambda o: o.__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_changes(name, observer, seeds):
    layers, data, frozen = NETWORKS[name]
    net = dl.Network(layers, seeds, "numpy")
    net.freeze(frozen)
    net.start_epoch(1)
    dy = run(net, data)
    net.backward(dy)
    plots.plt.close("all")
    before, twin = state(net), copy.deepcopy(net)
    observe(observer, net, data)
    assert state(net) == before
    net.gradients.fill(0)
    twin.gradients.fill(0)
    net.backward(dy)
    twin.backward(dy)
    np.testing.assert_array_equal(net.gradients, twin.gradients)
    np.testing.assert_array_equal(run(net, data), run(twin, data))  # the same noise comes next


@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_on_as_if_nobody_had_looked(name):
    """A probe that looks at everything, at each record: the same bits as without."""
    layers, data, frozen = NETWORKS[name]
    if name == "all frozen":
        pytest.skip("does not learn")

    def probe(net, before):
        observe(signals, net, data)
        observe(evaluate, net, data)
        return probes.learning(net, before)

    ends = []
    for looks in (None, probe):
        net = dl.Network(layers, [3, 8], "numpy")
        net.freeze(frozen)
        dl.fit(net, data, dl.Adam, lr=0.01, epochs=3, batch_size=10, probe=looks)
        ends.append({k: a.copy() for k, a in net.arrays().items()})
    for k, a in ends[0].items():
        np.testing.assert_array_equal(a, ends[1][k])


@pytest.mark.parametrize("name", NETWORKS)
def test_signals_of_replicas_are_those_of_each_seed(name):
    layers, data, frozen = NETWORKS[name]
    both = dl.Network(layers, [3, 8], "numpy")
    both.freeze(frozen)
    found = signals(both, data)
    for seed in (3, 8):
        one = dl.Network(layers, seed, "numpy")
        one.freeze(frozen)
        for key, value in signals(one, data).items():
            np.testing.assert_allclose(found[key].sel(seed=seed), value, rtol=1e-5, atol=1e-9)


def test_signals_see_the_gradients_of_training():
    """Of a net that learns they are the ones that backward writes, noise and all."""
    net = dl.Network(NETWORKS["dropout"][0], [3, 8], "numpy")
    found = probes.signals(net, BLOBS.x_train[:10], BLOBS.y_train[:10])
    net.backward(run(net, BLOBS))
    np.testing.assert_array_equal(found.gradient_rms, probes.gradient_rms(net)["gradient_rms"])


def test_frozen_layers_run_as_in_training():
    net = dl.Network(batch_normed, [3, 8], "numpy")
    for _ in range(5):
        run(net, BLOBS)
    free = probes.signals(net, BLOBS.x_train[:10], BLOBS.y_train[:10])
    net.freeze("BatchNorm")
    fixed = probes.signals(net, BLOBS.x_train[:10], BLOBS.y_train[:10])
    net.backward(run(net, BLOBS))
    for i, slot in enumerate(s for s in net.slots if s.name == "W"):
        dw = net.layers[slot.layer].dW
        rms = np.sqrt((dw * dw).mean(axis=(-2, -1)))
        np.testing.assert_allclose(fixed.gradient_rms.isel(layer=i), rms, rtol=1e-6)
    assert (abs(fixed.gradient_rms - free.gradient_rms) > 1e-6).any()


def test_a_new_network_remembers_the_pass_and_another_one_its_own():
    net = dl.Network(NETWORKS["plain"][0], 3, "numpy")
    signals(net, BLOBS)
    assert net.layers[1].a.shape == (8, 5)
    run(net, BLOBS)
    signals(net, BLOBS)
    assert net.layers[1].a.shape == (10, 5)


def test_on_another_device_noise_is_of_its_own():
    """Generators of a device cannot be copied: the network's are not touched."""
    import double

    chip = dl.Backend("double", double.xp, np.dtype("float32"))
    net = dl.Network(NETWORKS["dropout"][0], [3, 8], chip)
    run(net, BLOBS)  # a device makes its generators at the first draw
    generators = [layer.noise.generators[0] for layer in net.layers if layer.noisy]
    states = [repr(g.bit_generator.state) if hasattr(g, "bit_generator") else g for g in generators]
    signals(net, BLOBS)
    seen = [layer for layer in observing.copies(net) if layer.noisy]
    draws = [layer.noise.uniform((2, 3)) for layer in seen]
    assert len(draws) == len(generators) > 1
    assert all(a.noise.generators[0] is not g for a, g in zip(seen, generators, strict=True))
    again = [repr(g.bit_generator.state) if hasattr(g, "bit_generator") else g for g in generators]
    assert again == states


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_statistics_neither_overflow_nor_vanish_in_float32(scale):
    net = dl.Network([dl.Dense(6, 5, bias=0.0), dl.Dense(5, 3)], [3, 8], "numpy")
    net.layers[0].W *= scale
    found = probes.signals(net, BLOBS.x_train, BLOBS.y_train)
    z = BLOBS.x_train.astype(float) @ net.layers[0].W.astype(float)
    np.testing.assert_allclose(found.variance.isel(layer=0), z.var(axis=(-2, -1)), rtol=1e-5)
    net.gradients[:] = np.float32(scale) * np.random.default_rng(1).standard_normal(net.size * 2)
    g = probes._weights(net, net.gradients)[0].astype(float)
    rms = probes.gradient_rms(net)["gradient_rms"][..., 0]
    np.testing.assert_allclose(rms, np.sqrt((g * g).mean(axis=(-2, -1))), rtol=1e-5)


def test_update_of_zero_weights():
    net = dl.Network(NETWORKS["zero weights"][0], [3, 8], "numpy")
    before = net.parameters.copy()
    assert np.isnan(probes.relative_update(net, before)["relative_update"]).all()
    net.parameters += 1
    assert np.isinf(probes.relative_update(net, before)["relative_update"]).all()


def test_a_numerical_gradient_gives_the_array_back_after_an_error():
    x = np.ones(3)

    def fails():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        gradcheck.numerical(fails, x)
    np.testing.assert_array_equal(x, 1)


def test_one_set_is_held_once():
    """On NumPy no copy of what all replicas read, and one of each set that seeds share."""
    net, loss = dl.Network(NETWORKS["plain"][0], [3, 8, 3], "numpy"), dl.SoftmaxCrossEntropy()
    assert np.shares_memory(Part(net, BLOBS, "train", loss).x, BLOBS.x_train)
    part = Part(net, {3: BLOBS, 8: BLOBS}, "train", loss)
    assert part.shared
    assert np.shares_memory(part.x, BLOBS.x_train)
    net = dl.Network(NETWORKS["plain"][0], [3, 8, 5, 3], "numpy")
    other = small.blobs(1)
    part = Part(net, {3: BLOBS, 8: other, 5: BLOBS}, "valid", loss)
    assert len(part.x) == 60
    np.testing.assert_array_equal(part.offset[:, 0], [0, 30, 0, 0])
    x, y = part.chunk(0)
    np.testing.assert_array_equal(x[1], other.x_valid)
    np.testing.assert_array_equal(y[2], BLOBS.y_valid)
