"""The memory of a run, without its data set, against what it cannot do without."""

import itertools
import tracemalloc

import numpy as np
import pytest

import dlcore as dl
from dlcore.batches import CHUNK
from dlcore.datasets import Dataset

pytestmark = pytest.mark.thorough

# The nets of the benchmark: sizes, replicas, batch.
NETS = {
    "small": ([40, 100, 100, 100, 10], 20, 100),
    "deep": ([64, *[50] * 19, 10], 20, 64),
    "image": ([784, 300, 100, 10], 10, 64),
}
TRAIN = 1000


def data_of(sizes, valid):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((TRAIN, sizes[0])), np.arange(TRAIN) % sizes[-1]
    return Dataset(x, y, x[:valid], y[:valid], x[:0], y[:0], "random", sizes[-1])


def due(sizes, replicas, rows, shared):
    """Bytes of float32: parameters, Adam's two moments, and the activations of one pass.

    Activations: the batch that enters (unless all replicas share it), and of each layer its outputs z
    and, where a ReLU follows, a = phi(z).
    """
    parameters = sum(m * n + n for m, n in itertools.pairwise(sizes))
    units = (0 if shared else sizes[0]) + 2 * sum(sizes[1:-1]) + sizes[-1]
    return 4 * replicas * (3 * parameters + rows * units)


@pytest.mark.parametrize("valid", [0, 600], ids=["steps", "steps and evaluation"])
@pytest.mark.parametrize("name", NETS)
def test_peak(name, valid):
    """At most half as much again as is due: gradients, temporaries and batch orders included."""
    sizes, replicas, batch = NETS[name]
    data = data_of(sizes, valid)
    warm = dl.Network(dl.mlp(sizes), 0, "numpy")  # imports and caches are not the run's
    dl.fit(warm, data, dl.Adam, lr=1e-3, steps=1, batch_size=batch)
    tracemalloc.start()
    try:
        network = dl.Network(dl.mlp(sizes), range(replicas), "numpy")
        dl.fit(network, data, dl.Adam, lr=1e-3, steps=2 * TRAIN // batch, batch_size=batch)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    step, chunk = due(sizes, replicas, batch, False), due(sizes, replicas, CHUNK, True)
    ratio = peak / (max(step, chunk) if valid else step)
    print(f"{name}, {'with' if valid else 'without'} evaluation: {peak / 1e6:.1f} MB, {ratio:.2f}")
    assert ratio <= 1.5


def test_a_checkpoint_is_written_piece_by_piece(tmp_path):
    """While it is written there is no second copy of the state: 10 MB of parameters, 40 of state."""
    sizes, replicas, batch = NETS["image"]
    network = dl.Network(dl.mlp(sizes), range(replicas), "numpy")
    data = data_of(sizes, 0)
    tracemalloc.start()
    try:
        path = tmp_path / "run.npz"
        dl.fit(network, data, dl.Adam, lr=1e-3, steps=2, batch_size=batch, checkpoint=path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = path.stat().st_size
    assert size > 4 * network.parameters.nbytes
    assert peak < 1.5 * due(sizes, replicas, batch, False)
