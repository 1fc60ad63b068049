import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import small

import dlcore as dl
from dlcore import storage

NORMED = dl.mlp([6, 5, 4, 3], batch_norm="before")
FIT = dict(lr=0.02, epochs=2, batch_size=20)


def host(network):
    return {name: network.backend.to_numpy(a).copy() for name, a in network.arrays().items()}


def same(a, b):
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name]) for name in a)


def trained(seeds=(1, 2), backend="numpy", layers=NORMED, **options):
    network = dl.Network(layers, seeds, backend)
    dl.fit(network, small.blobs(), **FIT, **options)
    return network


# Save and load ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(1, 2, 1), 3])
def test_round_trip(backend, tmp_path, seeds):
    network, other = trained(seeds, backend), dl.Network(NORMED, seeds, backend)
    assert not same(host(network), host(other))
    network.save(tmp_path / "net.safetensors")
    other.load(tmp_path / "net.safetensors")
    assert same(host(network), host(other))
    assert "1.running_mean" in network.arrays()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    x = backend.asarray(small.blobs().x_test)
    outs = [backend.to_numpy(n.forward(x)) for n in (network, other)]
    np.testing.assert_array_equal(*outs)


def test_any_reader_of_safetensors_can_read_it(tmp_path):
    network = trained()
    network.save(tmp_path / "a")
    assert same(safetensors.numpy.load_file(tmp_path / "a"), host(network))


@pytest.fixture
def saved(tmp_path):
    network = trained()
    network.save(tmp_path / "net")
    return network, tmp_path / "net"


def refused(path, match, layers=NORMED, seeds=(8, 9), dtype="float32"):
    network = dl.Network(layers, seeds, dl.get_backend("numpy", dtype))
    before = host(network)
    with pytest.raises(ValueError, match=match):
        network.load(path)
    assert same(before, host(network))


def test_another_network_is_refused(saved):
    _, path = saved
    refused(path, "expected dtype float64, got float32", dtype="float64")
    refused(path, "expected layers", layers=dl.mlp([6, 5, 4, 3]))
    refused(path, "0.W: expected .*6, 7", layers=dl.mlp([6, 7, 4, 3], batch_norm="before"))
    refused(path, "0.W: expected", seeds=(1, 2, 3))
    refused(path, "0.W: expected", seeds=1)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        dl.Network(NORMED, 0, "numpy").load(tmp_path / "none")


def test_truncated_files(saved):
    _, path = saved
    content = path.read_bytes()
    for n in (0, 3, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:n])
        refused(path, "damaged|checksum")


def test_flipped_bits(saved):
    """One bit anywhere, in the header or in the numbers, and the file is refused."""
    _, path = saved
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*range(0, header, 7), *range(header, len(content), 211), len(content) - 1]
    network = dl.Network(NORMED, (8, 9), "numpy")
    before, passed = host(network), []
    for place in places:
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        try:
            network.load(path)
            passed.append(place)
        except ValueError:
            pass
        content[place] ^= 1 << (place % 8)
    assert passed == []
    assert same(before, host(network))


def test_other_format_and_other_files(saved, tmp_path, monkeypatch):
    network, path = saved
    safetensors.numpy.save_file(host(network), path)
    refused(path, "expected format 'dlcore 1', got None")
    path.write_text(json.dumps({"a": 1}))
    refused(path, "expected a safetensors file")
    monkeypatch.setattr(storage, "FORMAT", "dlcore 2")
    network.save(path)
    monkeypatch.undo()
    refused(path, "expected format 'dlcore 1', got 'dlcore 2'")


def test_names_are_checked(saved, monkeypatch):
    network, path = saved
    full = network.arrays()
    monkeypatch.setattr(network, "arrays", lambda: {k: v for k, v in full.items() if k != "0.b"})
    network.save(path)
    refused(path, "expected arrays")


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_failing_save_leaves_the_old_file(saved, monkeypatch, broken):
    network, path = saved
    old = path.read_bytes()
    network.parameters += 1

    def fail(*args):
        raise OSError("disk")

    monkeypatch.setattr(storage.os, broken, fail)
    with pytest.raises(OSError, match="disk"):
        network.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.thorough
def test_killed_save_leaves_the_old_file(saved):
    """The process dies between writing and renaming: nothing runs after it, the old file stays."""
    _, path = saved
    old = path.read_bytes()
    code = (
        "import os, sys, dlcore as dl\n"
        "net = dl.Network(dl.mlp([6, 5, 4, 3], batch_norm='before'), (1, 2), 'numpy')\n"
        "os.replace = lambda *a: os._exit(9)\n"
        "net.save(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=os.getcwd(), timeout=60)
    assert done.returncode == 9
    assert path.read_bytes() == old
    assert len(list(path.parent.iterdir())) == 2  # the unfinished one lies beside it
    dl.Network(NORMED, (1, 2), "numpy").load(path)


# Copying layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [3, (3, 4)])
def test_copy_layers(backend, seeds):
    source, target = trained(seeds, backend), dl.Network(NORMED, (7, 8), backend)
    start, given = host(target), host(source)
    target.copy_layers(source, 2)
    for name, a in host(target).items():
        layer = int(name.split(".")[0])
        expected = given[name] if layer < 6 else start[name]
        np.testing.assert_array_equal(a, np.broadcast_to(expected, a.shape))
    source.parameters.fill(9)
    assert not (host(target)["0.W"] == 9).any()


def test_copy_layers_refuses():
    target = dl.Network(NORMED, (7, 8), "numpy")
    before = host(target)
    for source, k, match in (
        (dl.Network(NORMED, (1, 2, 3), "numpy"), 1, "source: expected a plain network or one of 2"),
        (dl.Network(NORMED, 1, "numpy"), 4, "k: expected at most 3"),
        (dl.Network(NORMED, 1, "numpy"), 0, "k: expected"),
        (dl.Network(dl.mlp([6, 5, 4, 3]), 1, "numpy"), 2, "source: expected layers"),
        (
            dl.Network(dl.mlp([6, 9, 3], batch_norm="before"), 1, "numpy"),
            1,
            "source: expected layers",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            target.copy_layers(source, k)
    with pytest.raises(TypeError, match="source: expected a Network"):
        target.copy_layers(3, 1)
    assert same(before, host(target))


# Freezing and learning rates ----------------------------------------------------------------------


def changed(network, before):
    return {
        int(n.split(".")[0]) for n, a in host(network).items() if not np.array_equal(a, before[n])
    }


@pytest.mark.parametrize("layers", [[0, 1], [3], "BatchNorm", ["BatchNorm", -1], range(5)])
def test_frozen_layers_stay(backend, layers):
    """Parameters and running statistics; all others learn."""
    network = dl.Network(NORMED, (1, 2), backend)
    network.freeze(layers)
    before = host(network)
    dl.fit(network, small.blobs(), weight_decay=0.1, regularizers=dl.clip_by_norm(1.0), **FIT)
    assert changed(network, before) == {0, 1, 3, 4, 6} - network.frozen
    assert network.frozen
    network.unfreeze()
    dl.fit(network, small.blobs(), **FIT)
    assert changed(network, before) == {0, 1, 3, 4, 6}


def test_freeze_by_index_and_name():
    network = dl.Network(NORMED, 0, "numpy")
    network.freeze([0, "BatchNorm", -1])
    assert network.frozen == {0, 1, 4, 6}
    assert [s.layer for s in network.trainable] == [3, 3]
    network.unfreeze("BatchNorm")
    assert network.frozen == {0, 6}
    for bad, error in ((7, ValueError), (-8, ValueError), ("Nope", ValueError), (0.5, TypeError)):
        with pytest.raises(error, match="layers"):
            network.freeze([bad])
    network.freeze(range(7))
    with pytest.raises(ValueError, match="network: expected a layer that learns"):
        dl.fit(network, small.blobs(), **FIT)


def test_backward_ends_at_the_lowest_layer_that_learns(monkeypatch):
    network = dl.Network(dl.mlp([6, 5, 4, 3]), (1, 2), "numpy")
    network.freeze([0, 4])
    assert [layer.needs_dx for layer in network.layers] == [True, True, False, True, True]

    def never(dy):
        raise AssertionError("a frozen layer below needs no gradient")

    for i in (0, 1):
        monkeypatch.setattr(network.layers[i], "backward", never)
    network.backward(np.ones_like(network.forward(small.blobs().x_train.astype(np.float32), True)))


def test_gradients_above_frozen_layers_are_the_same():
    plain, frozen = (dl.Network(dl.mlp([6, 5, 4, 3]), (1, 2), "numpy") for _ in range(2))
    frozen.freeze(0)
    x = small.blobs().x_train.astype(np.float32)
    for network in (plain, frozen):
        network.backward(network.forward(x, training=True))
    for slot in frozen.trainable:
        span = slice(slot.start, slot.stop)
        np.testing.assert_array_equal(plain.gradients[span], frozen.gradients[span])


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.AdamW])
def test_factor_is_a_learning_rate(backend64, optimizer):
    """A layer with factor f moves as in a network trained with lr f (one step, so far no coupling)."""
    starts, ends = [], []
    for lr, factors in ((0.1, {2: 0.25}), (0.1, {}), (0.025, {})):
        network = dl.Network(dl.mlp([6, 5, 4, 3]), (1, 2), backend64)
        network.lr_factors.update(factors)
        starts.append(host(network))
        dl.fit(network, small.blobs(), optimizer, lr=lr, steps=1, batch_size=20)
        ends.append(host(network))
    for name in ends[0]:
        expected = ends[2 if name[0] == "2" else 1][name]
        np.testing.assert_allclose(ends[0][name], expected, rtol=1e-12, atol=1e-15)
    network.lr_factors[0] = -1
    with pytest.raises(ValueError, match="lr_factors"):
        dl.fit(network, small.blobs(), **FIT)


def test_factor_one_changes_no_bit_and_blocks_are_few(backend):
    plain, ones, some = (dl.Network(dl.mlp([6, 5, 4, 3]), (1, 2), backend) for _ in range(3))
    ones.lr_factors.update({0: 1.0, 4: 1})
    some.lr_factors[0] = 0.5
    for network in (plain, ones):
        dl.fit(network, small.blobs(), **FIT)
    np.testing.assert_array_equal(small.parameters(plain), small.parameters(ones))
    if backend.name != "numpy":
        counts = [len(dl.Adam().bind(n).blocks) for n in (plain, ones, some)]
        assert counts == [1, 1, 2]


def test_frozen_replica_equals_alone():
    found = []
    for seeds in ((4, 5, 4), 5):
        network = dl.Network(NORMED, seeds, "numpy")
        network.freeze([0, 1])
        network.lr_factors[3] = 0.1
        dl.fit(network, small.blobs(), **FIT)
        found.append(network)
    np.testing.assert_array_equal(small.parameters(found[0], 1), small.parameters(found[1]))


# Cached outputs -----------------------------------------------------------------------------------

DROPPED = dl.mlp([6, 7, 5, 3], batch_norm="before", dropout=0.2)


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
@pytest.mark.parametrize("seeds", [(1, 2, 1), 2])
def test_cached_outputs_train_the_same(backend, seeds, own):
    """To rounding; dropout draws the same masks above."""
    data = small.blobs if own else small.blobs()
    runs = []
    for cache in (False, True):
        network = dl.Network(DROPPED, seeds, backend)
        network.freeze([0, 1, 4, 5])
        network.lr_factors[8] = 0.5
        net, sets = dl.cached(network, data) if cache else (network, data)
        assert len(net.layers) == (9 if not cache else 6)
        history = dl.fit(net, sets, **FIT)
        runs.append((host(network), history))
        if cache:
            assert net.size == sum(int(np.prod(s)) for la in net.layers for s in la.shapes.values())
            same_loss = dl.evaluate(net, sets, "test")[0], dl.evaluate(network, data, "test")[0]
            np.testing.assert_allclose(*same_loss, rtol=1e-5)
    if backend.name == "cupy":
        return  # other numbers of draws from one generator of the device
    for name in runs[0][0]:
        np.testing.assert_allclose(runs[0][0][name], runs[1][0][name], rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(runs[0][1].valid_loss, runs[1][1].valid_loss, rtol=1e-4)


def test_cached_is_one_set_where_all_replicas_see_the_same(backend):
    source = dl.Network(NORMED, 3, backend)
    network = dl.Network(NORMED, (1, 2), backend)
    network.copy_layers(source, 1)
    network.freeze([0, 1])
    upper, data = dl.cached(network, small.blobs(test=0))
    assert isinstance(data, dl.datasets.Dataset)
    assert data.x_train.shape == (60, 5)
    assert data.x_test.shape == (0, 5)
    out = backend.to_numpy(upper.forward(backend.asarray(data.x_valid)))
    expected = backend.to_numpy(network.forward(backend.asarray(small.blobs(test=0).x_valid)))
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_cached_refuses():
    network = dl.Network(NORMED, (1, 1), "numpy")
    with pytest.raises(ValueError, match="expected frozen layers below"):
        dl.cached(network, small.blobs())
    network.freeze(3)
    with pytest.raises(ValueError, match="expected frozen layers below"):
        dl.cached(network, small.blobs())
    network.freeze(range(7))
    with pytest.raises(ValueError, match="expected a layer that learns"):
        dl.cached(network, small.blobs())
    network.unfreeze(6)
    network.layers[0].W[1] += 1
    with pytest.raises(ValueError, match="equal lower layers in replicas of one seed"):
        dl.cached(network, small.blobs())
