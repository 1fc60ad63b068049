import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import regularizers


def filled(backend, seeds, scales, seed=0):
    network = dl.Network(dl.mlp([3, 4, 2]), seeds, backend)
    rng = np.random.default_rng(seed)
    for s in network.slots:
        g = rng.standard_normal(s.shape) * np.reshape(scales, (-1, 1, 1) if np.ndim(scales) else ())
        getattr(network.layers[s.layer], "d" + s.name)[...] = backend.asarray(g)
    return network


def test_clip_acts_on_each_replica_alone(backend):
    """Over weights and biases of all layers together; only norms above the limit are cut."""
    network = filled(backend, range(3), [100.0, 0.01, 1.0])
    before = [small.gradients(network, r) for r in range(3)]
    dl.clip_by_norm(2.0).gradients(network)
    for r, g in enumerate(before):
        found, norm = small.gradients(network, r), np.linalg.norm(g.astype(float))
        np.testing.assert_allclose(found, g * min(1, 2.0 / norm), rtol=1e-5)
        assert np.linalg.norm(found) <= 2.0 * (1 + 1e-6)
        assert found.dtype == np.float32
    np.testing.assert_array_equal(small.gradients(network, 1), before[1])


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_clip_plain_network(backend64, factor):
    network = filled(backend64, 0, 1.0)
    g = small.gradients(network)
    norm = np.linalg.norm(g)
    dl.clip_by_norm(norm * factor).gradients(network)
    np.testing.assert_allclose(small.gradients(network), g * min(1, factor), rtol=1e-12)


def test_zero_gradient_stays_zero():
    network = filled(dl.get_backend("numpy"), range(2), [0.0, 3.0])
    dl.clip_by_norm(1.0).gradients(network)
    np.testing.assert_array_equal(small.gradients(network, 0), 0)


def test_clip_has_a_name_to_label_results_with():
    assert repr(dl.clip_by_global_norm(0.5)) == "clip_by_global_norm(max_norm=0.5)"
    assert dl.clip_by_norm is dl.clip_by_global_norm


# Penalties, clipping by value, max-norm ------------------------------------------------------------


def CONV():
    return [dl.Conv2D(1, 2, 3), dl.ReLU(), dl.Flatten(), dl.Dense(6, 3)]


def arrays(network, prefix=""):
    slots = {f"{s.layer}.{s.name}": prefix + s.name for s in network.slots}
    found = {k: getattr(network.layers[int(k.split(".")[0])], n) for k, n in slots.items()}
    return {k: network.backend.to_numpy(a).copy() for k, a in found.items()}


@pytest.mark.parametrize("seeds", [0, (3, 4)])
@pytest.mark.parametrize("blueprint", [dl.mlp([3, 4, 2]), small.rnn, CONV])
@pytest.mark.parametrize("penalty", [dl.L1, dl.L2])
def test_penalties_add_their_gradient_to_weights(backend64, penalty, blueprint, seeds):
    network = dl.Network(blueprint, seeds, backend64)
    network.gradients.fill(1)
    strength = 0.3 if seeds == 0 else [0.3, 0.0]
    penalty(strength).gradients(network)
    for name, g in arrays(network, "d").items():
        w = arrays(network)[name]
        slope = np.sign(w) if penalty is dl.L1 else w
        if name[-1].islower():
            slope = 0 * w
        factor = np.reshape(strength, np.shape(strength) + (1,) * (w.ndim - np.ndim(strength)))
        np.testing.assert_allclose(g, 1 + factor * slope, rtol=1e-14)


def test_penalty_is_the_gradient_of_its_value(backend64):
    """In fit: one step of SGD goes down the loss plus penalty, by finite differences."""
    network = dl.Network(dl.mlp([3, 4, 2]), 0, backend64)
    w = arrays(network)["0.W"]
    dl.L2(0.5).gradients(network)
    step = np.zeros_like(w)
    step[1, 2] = 1e-6
    slope = (0.25 * ((w + step) ** 2).sum() - 0.25 * ((w - step) ** 2).sum()) / 2e-6
    np.testing.assert_allclose(arrays(network, "d")["0.W"][1, 2], slope, rtol=1e-6)


def test_l2_is_weight_decay_for_sgd(backend64):
    runs = []
    for options in (dict(weight_decay=0.2), dict(regularizers=dl.L2(0.2))):
        network = dl.Network(dl.mlp([6, 5, 3]), (1, 2), backend64)
        dl.fit(network, small.blobs(), dl.SGD, lr=0.1, epochs=2, **options)
        runs.append(small.parameters(network))
    np.testing.assert_allclose(*runs, rtol=1e-9)


@pytest.mark.parametrize(
    ("blueprint", "limit"), [(dl.mlp([3, 4, 2]), 2.0), (small.rnn, 1.2), (CONV, 2.2)]
)
def test_max_norm_acts_on_each_unit(backend, blueprint, limit):
    network = dl.Network(blueprint, (3, 4), backend)
    network.parameters *= 1.5
    before = arrays(network)
    dl.MaxNorm(limit).weights(network)
    cut = kept = 0
    for name, w in arrays(network).items():
        if name[-1].islower():
            np.testing.assert_array_equal(w, before[name])
            continue
        columns, old = (a.reshape(2, -1, a.shape[-1]) for a in (w, before[name]))
        norms, olds = (np.linalg.norm(a, axis=1) for a in (columns, old))
        np.testing.assert_allclose(norms, np.minimum(olds, limit), rtol=1e-5)
        np.testing.assert_allclose(columns / norms[:, None], old / olds[:, None], atol=1e-5)
        long = np.broadcast_to(olds[:, None] > limit, old.shape)
        np.testing.assert_array_equal(columns[~long], old[~long])
        cut, kept = cut + long.sum(), kept + (~long).sum()
    assert cut
    assert kept


def test_max_norm_holds_after_every_step(backend):
    """Also with frozen weights, which stay, and with each replica cut on its own."""
    longest = []

    class Look:
        def weights(self, network):
            w = arrays(network)
            longest.append([np.linalg.norm(w[k], axis=-2).max() for k in ("0.W", "2.W")])

    network = dl.Network(dl.mlp([6, 8, 3]), (1, 2), backend)
    rules = [dl.MaxNorm(0.8), Look()]
    dl.fit(network, small.blobs(), dl.SGD, lr=0.5, steps=7, batch_size=20, regularizers=rules)
    assert len(longest) == 7
    assert np.max(longest) <= 0.8 * (1 + 1e-6)
    assert np.max(longest) > 0.79
    network.freeze(0)
    before = arrays(network)["0.W"]
    dl.MaxNorm(0.1).weights(network)
    np.testing.assert_array_equal(arrays(network)["0.W"], before)


RULES = [dl.L1(0.01), dl.L2(0.1), dl.MaxNorm(0.7), dl.clip_by_norm(0.5)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_replica_equals_alone(rule):
    runs = []
    for seeds in ((4, 5, 6), 5):
        network = dl.Network(dl.mlp([6, 5, 3]), seeds, "numpy")
        dl.fit(network, small.blobs(), lr=0.02, epochs=2, batch_size=16, regularizers=rule)
        runs.append(network)
    np.testing.assert_array_equal(small.parameters(runs[0], 1), small.parameters(runs[1]))
    plain = dl.Network(dl.mlp([6, 5, 3]), 5, "numpy")
    dl.fit(plain, small.blobs(), lr=0.02, epochs=2, batch_size=16)
    assert not np.array_equal(plain.parameters, runs[1].parameters)


def test_strengths_per_replica_equal_numbers():
    many = dl.Network(dl.mlp([6, 5, 3]), (4, 4), "numpy")
    dl.fit(
        many, small.blobs(), lr=0.02, epochs=2, regularizers=[dl.L2([0.1, 0.3]), dl.L1([0, 0.01])]
    )
    for r, (two, one) in enumerate([(0.1, 0), (0.3, 0.01)]):
        alone = dl.Network(dl.mlp([6, 5, 3]), 4, "numpy")
        dl.fit(alone, small.blobs(), lr=0.02, epochs=2, regularizers=[dl.L2(two), dl.L1(one)])
        np.testing.assert_array_equal(small.parameters(many, r), small.parameters(alone))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_no_wait_and_no_copy(rule):
    network = dl.Network(dl.mlp([6, 5, 3]), (1, 2), dl.Backend("double", double.xp))
    rule = rule.bind(network) if hasattr(rule, "bind") else rule
    with double.count(strict=True):
        for name in ("gradients", "weights"):
            getattr(rule, name, lambda network: None)(network)


def test_every_regularizer_is_in_the_table():
    public = {f for f in vars(regularizers).values() if isinstance(f, type)}
    public = {f for f in public if f.__module__ == regularizers.__name__}
    assert public - {dl.EarlyStopping, regularizers.Watch} == {type(rule) for rule in RULES}


def test_bad_arguments():
    for make in (lambda: dl.L1(-1), lambda: dl.L2([0.1, np.nan]), lambda: dl.MaxNorm(0),
                 lambda: dl.clip_by_norm(0)):  # fmt: skip
        with pytest.raises(ValueError, match="expected"):
            make()
    network = dl.Network(dl.mlp([6, 3]), (1, 2), "numpy")
    with pytest.raises(ValueError, match="strength: expected a number or 2 numbers"):
        dl.fit(network, small.blobs(), lr=0.1, epochs=1, regularizers=dl.L2([1, 2, 3]))
    with pytest.raises(TypeError, match="regularizers: expected some"):
        dl.fit(network, small.blobs(), lr=0.1, epochs=1, regularizers=dl.Adam())
