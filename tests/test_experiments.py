import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import small
import xarray as xr

import dlcore as dl

BLUEPRINT = dl.mlp([6, 5, 3])
RUN = dict(lr=0.02, epochs=2, batch_size=30, backend="numpy")


def run(network=BLUEPRINT, data=None, seeds=2, **settings):
    return dl.sweep(network, data or small.blobs(), seeds=seeds, **(RUN | settings))


def test_labels_and_order():
    """Dimensions in the order given, then seed, then epoch: whichever settings share a shard."""
    found = run(
        lr=[0.01, 0.1],
        activation=[dl.ReLU, dl.Tanh],
        weight_decay={"none": 0.0, "some": 0.1},
        optimizer={"plain": dl.SGD, "fast": dl.Momentum(0.5), "adam": dl.Adam()},
        seeds=[7, 3],
    )
    dims = ("lr", "activation", "weight_decay", "optimizer", "seed", "epoch")
    assert found.valid_accuracy.dims == dims
    assert found.valid_accuracy.shape == (2, 2, 2, 3, 2, 2)
    assert found.diverged.dims == dims[:-1]
    labels = {k: found[k].values.tolist() for k in dims}
    assert labels == {
        "lr": [0.01, 0.1],
        "activation": ["ReLU", "Tanh"],
        "weight_decay": ["none", "some"],
        "optimizer": ["plain", "fast", "adam"],
        "seed": [7, 3],
        "epoch": [1, 2],
    }
    assert found.step.values.tolist() == [2, 4]
    assert set(found) == {"train_loss", "valid_loss", "valid_accuracy", "diverged"}
    for variable in found.values():
        assert variable.dtype in (np.float64, bool)


def test_every_cell_holds_its_own_run():
    found = run(
        lr=[0.01, 0.1],
        optimizer=[dl.SGD, dl.Adam],
        activation={"r": dl.ReLU, "t": dl.Tanh},
        seeds=3,
        shard=2,
    )
    blueprints = {"r": BLUEPRINT, "t": dl.mlp([6, 5, 3], activation=dl.Tanh)}
    for cell in np.ndindex(2, 2, 2, 3):
        one = found.isel(dict(zip(("lr", "optimizer", "activation", "seed"), cell, strict=True)))
        network = dl.Network(blueprints[str(one.activation.values)], int(one.seed), "numpy")
        optimizer = getattr(dl, str(one.optimizer.values))
        options = dict(lr=float(one.lr), epochs=2, batch_size=30)
        history = dl.fit(network, small.blobs(), optimizer, **options)
        np.testing.assert_array_equal(one.valid_loss, history.valid_loss)
        np.testing.assert_array_equal(one.train_loss, history.train_loss)


def test_nothing_swept():
    found = run(seeds=1)
    assert found.valid_loss.dims == ("seed", "epoch")
    assert isinstance(found, xr.Dataset)


def test_data_function_of_seed():
    found = run(data=small.blobs, seeds=[4, 9])
    for seed in (4, 9):
        network = dl.Network(BLUEPRINT, seed, "numpy")
        history = dl.fit(network, small.blobs(seed), lr=0.02, epochs=2, batch_size=30)
        np.testing.assert_array_equal(found.valid_loss.sel(seed=seed), history.valid_loss)


def test_data_may_be_a_mapping():
    mapping = {s: small.blobs(s) for s in (4, 5, 9)}
    assert run(data=mapping, seeds=[4, 9]).identical(run(data=small.blobs, seeds=[4, 9]))


def test_data_is_made_once_per_seed():
    calls = []

    def data(seed):
        calls.append(seed)
        return small.blobs(seed)

    run(data=data, lr=[0.1, 0.2], optimizer=[dl.SGD, dl.Adam], seeds=3, shard=1)
    assert sorted(calls) == [0, 1, 2]


@pytest.mark.parametrize("own", [False, True])
def test_test_part(own):
    data = small.blobs if own else small.blobs()
    found = run(data=data, seeds=2, test=True, optimizer=dl.SGD, lr=[0.1, 1e12])
    assert found.test_loss.dims == found.test_accuracy.dims == ("lr", "seed")
    assert found.diverged.values.tolist() == [[False, False], [True, True]]
    assert (found.test_loss[1] == np.inf).all()
    np.testing.assert_array_equal(found.test_accuracy[1], 1 / 3)
    network = dl.Network(BLUEPRINT, 1, "numpy")
    dl.fit(network, small.blobs(1) if own else data, dl.SGD, lr=0.1, epochs=2, batch_size=30)
    loss, accuracy = dl.evaluate(network, small.blobs(1) if own else data, "test")
    assert (found.test_loss[0, 1], found.test_accuracy[0, 1]) == (loss, accuracy)


def deep(depth=1, width=5):
    return dl.mlp([6, *[width] * depth, 3])()


def test_other_depths_are_padded():
    found = run(deep, depth=[1, 3], probe=dl.probes.learning)
    assert found.gradient_rms.dims == ("depth", "seed", "epoch", "layer")
    assert found.layer.values.tolist() == [1, 2, 3, 4]
    missing = np.isnan(found.relative_update).all(dim=("seed", "epoch"))
    assert missing.values.tolist() == [[False, False, True, True], [False] * 4]
    assert np.isfinite(found.gradient_rms.sel(depth=3)).all()


def test_other_lengths_are_padded():
    found = run(epochs=[1, 3], seeds=2)
    assert found.valid_loss.sel(epochs=1).isel(seed=0).notnull().values.tolist() == [
        True,
        False,
        False,
    ]
    assert found.step.values.tolist() == [2, 4, 6]
    assert found.epoch.values.tolist() == [1, 2, 3]


def test_epochs_between_records_are_labelled_truly():
    found = run(epochs=5, evaluate_every=2)
    assert found.epoch.values.tolist() == [2, 4, 5]
    assert found.step.values.tolist() == [4, 8, 10]


def test_batch_sizes():
    found = run(epochs=None, steps=6, batch_size=[20, 60])
    assert found.epoch.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert found.valid_loss.sel(batch_size=20).isel(seed=0).notnull().sum() == 2


def test_regularizers():
    clips = {
        "none": (),
        "tight": dl.clip_by_norm(0.01),
        "both": (dl.clip_by_norm(1), dl.clip_by_norm(0.01)),
    }
    found = run(optimizer=dl.SGD, regularizers=clips)
    assert found.regularizers.values.tolist() == ["none", "tight", "both"]
    assert not np.array_equal(
        found.valid_loss.sel(regularizers="none"), found.valid_loss.sel(regularizers="tight")
    )


def test_partial_blueprint():
    found = run(functools.partial(deep, width=4), depth=[2], seeds=1)
    assert found.depth.values.tolist() == [2]


def test_errors_of_a_shard_come_through():
    with pytest.raises(ValueError, match="x: expected shape"):
        run(dl.mlp([5, 3]))
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="x: expected shape"):
        run(dl.mlp([5, 3]), executor=pool)
    with pytest.raises(ValueError, match="x: expected shape"):
        run(dl.mlp([5, 3]), shard=1)


def test_shards_run_side_by_side():
    """The default pool really uses threads where there is more than one core and more than one shard."""
    seen, own = set(), threading.get_ident()

    def spy():
        seen.add(threading.get_ident())
        return BLUEPRINT()

    run(spy, seeds=1)
    assert seen == {own}
    seen.clear()
    run(spy, seeds=4, shard=1)
    many = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert (own in seen) == (many == 1)


def test_one_core(monkeypatch):
    expected = run(seeds=4, shard=1)
    monkeypatch.setattr(dl.experiments.os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert run(seeds=4, shard=1).identical(expected)
    monkeypatch.delattr(dl.experiments.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(dl.experiments.os, "cpu_count", lambda: None)
    assert run(seeds=4, shard=1).identical(expected)


def test_on_backend(backend):
    """The device gives what NumPy gives: same bits from the double, nearly the same from a GPU."""
    found, expected = (
        run(backend=backend, lr=[0.01, 0.1], test=True),
        run(lr=[0.01, 0.1], test=True),
    )
    np.testing.assert_allclose(
        found.train_loss, expected.train_loss, rtol=0 if backend.name != "cupy" else 1e-3
    )
    assert found.coords.identical(expected.coords)


def test_lr_grid():
    grid = dl.lr_grid(0.1, 2)
    np.testing.assert_allclose(grid, [0.01, 0.0316227766, 0.1, 0.316227766, 1.0])
    assert dl.lr_grid(0.5, 1, 2) == [0.25, 0.5, 1.0]
    assert dl.lr_grid(0.5, 0) == [0.5]
    assert all(type(lr) is float for lr in grid)


SIZES = dict(
    full=dict(seeds=20, seeds_deep=5, steps=400),
    quick=dict(seeds=3, seeds_deep=2, steps=10),
)


def test_setup(monkeypatch):
    monkeypatch.delenv("DLCORE_SIZE", raising=False)
    monkeypatch.delenv("DLCORE_SEED", raising=False)
    full = dl.setup(**SIZES)
    assert full.size == "full"
    assert full.steps == 400
    assert full.seeds == list(range(20))
    assert len(full.seeds_deep) == 5
    assert not set(full.seeds) & set(full.seeds_deep)
    monkeypatch.setenv("DLCORE_SIZE", "quick")
    quick = dl.setup(**SIZES)
    assert (quick.size, quick.steps, len(quick.seeds), len(quick.seeds_deep)) == ("quick", 10, 3, 2)
    assert set(quick.seeds) < set(full.seeds)
    assert set(quick.seeds_deep) < set(full.seeds_deep)


def test_seeds_move(monkeypatch):
    monkeypatch.delenv("DLCORE_SIZE", raising=False)
    lists = []
    for base in (0, 1, 2):
        monkeypatch.setenv("DLCORE_SEED", str(base))
        found = dl.setup(**SIZES)
        lists += [found.seeds, found.seeds_deep]
    assert lists[2][0] == 10_000
    assert len(set().union(*lists)) == sum(map(len, lists))


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DLCORE_SIZE", "huge", "DLCORE_SIZE: expected one of .*'full', 'quick'.*'huge'"),
        ("DLCORE_SEED", "x", "DLCORE_SEED: expected an integer >= 0, got 'x'"),
        ("DLCORE_SEED", "-1", "DLCORE_SEED: expected an integer >= 0, got '-1'"),
    ],
)
def test_setup_of_bad_environment(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        dl.setup(**SIZES)


def test_early_stopping_shows_in_a_sweep():
    runs = dl.sweep(
        dl.mlp([6, 5, 3]),
        small.blobs(),
        lr=0.1,
        seeds=2,
        epochs=3,
        early_stopping=dl.EarlyStopping(patience=1),
    )
    assert runs.best_epoch.dims == runs.stopped_epoch.dims == ("seed",)
