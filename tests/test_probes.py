import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import probes


def trained(seeds, backend="numpy", activation=dl.Tanh, scale=1.0):
    init = dl.initializers.normal(scale)
    return dl.Network(dl.mlp([6, 5, 4, 3], activation=activation, initializer=init), seeds, backend)


@pytest.mark.parametrize("seeds", [3, [3, 8]], ids=["plain", "2"])
def test_learning(backend, seeds):
    """Gradient and relative update per layer, against the parameters before and after a step."""
    network = trained(seeds, backend)
    data, kept = small.blobs(), []

    def probe(net, before):
        old = backend.to_numpy(before)
        kept.append(
            (
                old.copy(),
                backend.to_numpy(net.parameters).copy(),
                backend.to_numpy(net.gradients).copy(),
            )
        )
        return probes.learning(net, before)

    history = dl.fit(network, data, dl.SGD, lr=0.1, epochs=2, batch_size=20, probe=probe)
    axes = len(network.streams.shape)
    for e, (old, new, g) in enumerate(kept):
        np.testing.assert_allclose(new, old - np.float32(0.1) * g, rtol=1e-5, atol=1e-7)
        for i, slot in enumerate([s for s in network.slots if s.name == "W"]):
            a, b, d = (
                v[slot.start : slot.stop].reshape(slot.shape).astype(float) for v in (old, new, g)
            )
            own = tuple(range(axes, axes + 2))
            rms = np.sqrt(np.mean(d**2, axis=own))
            update = np.sqrt(np.sum((b - a) ** 2, axis=own) / np.sum(a**2, axis=own))
            np.testing.assert_allclose(history.probes["gradient_rms"][..., e, i], rms, rtol=1e-5)
            np.testing.assert_allclose(
                history.probes["relative_update"][..., e, i], update, rtol=1e-4
            )


@pytest.mark.parametrize("seeds", [3, [3, 8]], ids=["plain", "2"])
def test_signals(backend64, seeds):
    network, data = trained(seeds, backend64), small.blobs()
    found = probes.signals(network, data.x_train, data.y_train, saturated_below=0.2)
    dims = ("seed", "layer") if isinstance(seeds, list) else ("layer",)
    assert all(v.dims == dims for v in found.values())
    assert found.layer.values.tolist() == [1, 2, 3]
    for r, seed in enumerate(np.atleast_1d(seeds)):
        own = found.sel(seed=seed) if isinstance(seeds, list) else found
        weights = [
            backend64.to_numpy(la.W)[r] if isinstance(seeds, list) else backend64.to_numpy(la.W)
            for la in network.layers[::2]
        ]
        a, states = data.x_train.astype(float), []
        for w in weights:
            z = a @ w
            states.append((a, z))
            a = np.tanh(z)
        e = np.exp(states[-1][1])
        delta = (e / e.sum(1, keepdims=True) - np.eye(3)[data.y_train]) / 60
        for i in (2, 1, 0):
            inputs, z = states[i]
            one = own.isel(layer=i)
            assert one.variance == pytest.approx(z.var(), rel=1e-9)
            assert one.delta_rms == pytest.approx(np.sqrt(np.mean(delta**2)), rel=1e-8)
            assert one.gradient_rms == pytest.approx(
                np.sqrt(np.mean((inputs.T @ delta) ** 2)), rel=1e-8
            )
            if i < 2:
                slope = 1 - np.tanh(z) ** 2
                assert one["mean"] == pytest.approx(np.tanh(z).mean(), rel=1e-9)
                assert one.output_variance == pytest.approx(np.tanh(z).var(), rel=1e-9)
                assert one.saturated == pytest.approx((slope < 0.2).mean())
                assert 0.05 < one.saturated < 0.95
                assert one.dead == 0
            if i:
                delta = (delta @ weights[i].T) * (1 - np.tanh(states[i - 1][1]) ** 2)
    last = found.isel(layer=2)
    assert last[["mean", "output_variance", "saturated", "dead"]].isnull().all()


def test_dead_units(backend):
    network = trained([1, 2], backend, dl.ReLU)
    bias = np.zeros((2, 1, 5))
    bias[0, 0, :2] = bias[1, 0, :4] = -1e3
    network.layers[0].b[...] = backend.asarray(bias)
    found = probes.signals(network, small.blobs().x_train, small.blobs().y_train)
    np.testing.assert_allclose(found.dead.isel(layer=0), [0.4, 0.8], rtol=1e-6)


def test_layers_without_weights_and_other_losses():
    """A Flatten below the first weights, a recurrent layer, targets that are numbers."""
    data = small.sequences()
    network = dl.Network(small.rnn, [1, 2], "numpy")
    found = probes.signals(network, data.x_train, data.y_train)
    assert found.sizes == {"seed": 2, "layer": 2}
    assert np.isfinite(found.gradient_rms).all()
    y = np.eye(3)[data.y_train]
    other = probes.signals(network, data.x_train, y, dl.MeanSquaredError())
    assert (other.variance == found.variance).all()
    assert (other.gradient_rms != found.gradient_rms).all()


def test_the_loss_is_left_alone(backend):
    loss = dl.SoftmaxCrossEntropy()
    data = small.blobs()
    probes.signals(trained([1], backend), data.x_train, data.y_train, loss)
    assert loss.xp is np
