import numpy as np
import pytest
import small

import dlcore as dl


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
    assert repr(dl.clip_by_norm(0.5)) == "clip_by_norm(max_norm=0.5)"
