"""The odd ends of training: bad numbers, nets that explode or are dead, batches and sets of one."""

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import datasets, probes
from dlcore.datasets import Dataset

NUMPY = dl.get_backend("numpy")
DATA = small.blobs()
BLUEPRINT = dl.mlp([6, 5, 3])


def net(layers=BLUEPRINT, seeds=(0, 1)):
    return dl.Network(layers, seeds, NUMPY)


def state(network):
    return {name: a.tobytes() for name, a in network.arrays().items()}


def made(x, y, classes=3, **others):
    none = dict(x_valid=x[:0], y_valid=y[:0], x_test=x[:0], y_test=y[:0])
    return Dataset(x_train=x, y_train=y, name="made", classes=classes, **(none | others))


# Nothing is half changed ----------------------------------------------------------------------

REFUSED = {
    "data of other features": dict(data=small.blobs(features=5)),
    "a negative rate": dict(lr=-1.0),
    "rates of other replicas": dict(lr=[0.1, 0.2, 0.3]),
    "too few outputs": dict(data=small.blobs(classes=4)),
    "both epochs and steps": dict(steps=5),
    "a schedule without its data": dict(data=small.blobs(valid=0), schedule=dl.ReduceOnPlateau()),
    "the same behind a warm-up": dict(
        data=small.blobs(valid=0), schedule=dl.schedules.warmup(2, dl.ReduceOnPlateau())
    ),
    "a schedule below zero": dict(schedule=lambda k, n: -1.0),
    "early stopping without data": dict(
        data=small.blobs(valid=0), early_stopping=dl.EarlyStopping(2)
    ),
    "a class for a regularizer": dict(regularizers=dl.L2),
    "augmentation of rows as images": dict(augment=dl.augmentation.rotate(5)),
    "a factor for no layer": dict(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_fit_changes_nothing(case):
    network = net()
    if case == "a factor for no layer":
        network.lr_factors[9] = 0.1
    before = state(network)
    with pytest.raises((ValueError, TypeError)):
        dl.fit(network, **(dict(data=DATA, lr=0.1, epochs=1) | REFUSED[case]))
    assert state(network) == before


@pytest.mark.parametrize("other", [dl.mlp([6, 4, 3]), dl.mlp([6, 5, 5, 3])], ids=["size", "layers"])
def test_refused_load_changes_nothing(other, tmp_path):
    net(other).save(tmp_path / "other")
    network = net()
    before = state(network)
    with pytest.raises(ValueError, match="other"):
        network.load(tmp_path / "other")
    assert state(network) == before


def test_missing_file_is_named(tmp_path):
    network = net()
    before = state(network)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        network.load(tmp_path / "nowhere")
    assert state(network) == before


def test_failing_save_leaves_the_old_file(tmp_path, monkeypatch):
    network = net()
    network.save(tmp_path / "net")
    old = (tmp_path / "net").read_bytes()
    dl.fit(network, DATA, lr=0.1, epochs=1)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        network.save(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_failing_save_names_the_folder(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        net().save(tmp_path / "nowhere" / "net")


def test_refused_copy_and_freeze_change_nothing():
    network = net()
    before = state(network)
    with pytest.raises(ValueError, match="source"):
        network.copy_layers(net(dl.mlp([6, 4, 3])), 1)
    with pytest.raises(ValueError, match="layers"):
        network.freeze([0, 9])
    assert state(network) == before
    assert network.frozen == set()


def test_refused_data_set_leaves_the_old_one():
    x = DATA.x_train.tobytes()
    for wrong in (lambda: DATA.subset(7), lambda: DATA.with_classes([1]), lambda: DATA.pooled(2)):
        with pytest.raises(ValueError, match="expected"):
            wrong()
    assert DATA.x_train.tobytes() == x


@pytest.mark.parametrize("wrong", [dict(size=5), dict(size=0), dict(seed=-1), dict(valid=7)])
def test_full_sets_are_refused_before_the_download(wrong, tmp_path):
    (argument,) = wrong
    with pytest.raises(ValueError, match=f"{argument}: expected"):
        datasets.full("mnist", **wrong, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


# Bad numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_bad_numbers_in_data_are_refused_by_part(part, bad):
    """NaN, infinity, and what is too large for float32."""
    arrays = {
        f"{a}_{p}": getattr(DATA, f"{a}_{p}") for a in "xy" for p in ("train", "valid", "test")
    }
    x = arrays[f"x_{part}"].astype(np.float64)
    x[3, 2] = bad
    with pytest.raises(ValueError, match=f"x_{part}: expected finite values, got NaN or infinity"):
        Dataset(**(arrays | {f"x_{part}": x}), name="bad", classes=3)


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.Momentum, dl.Adam])
def test_exploding_replica_is_frozen_and_the_others_untouched(optimizer):
    """One rate of 1e30: this replica is marked and ends at zero, the others keep their bits."""
    rates, network, calm = [0.01, 1e30, 0.03], net(seeds=(0, 1, 2)), net(seeds=(0, 2))
    history = dl.fit(network, DATA, optimizer, lr=rates, epochs=3)
    its_history = dl.fit(calm, DATA, optimizer, lr=[0.01, 0.03], epochs=3)
    assert history.diverged.tolist() == [False, True, False]
    assert not small.parameters(network, 1).any()
    assert np.isinf(history.train_loss[1, -1])
    assert history.valid_accuracy[1, -1] == 1 / 3
    for r, own in ((0, 0), (2, 1)):
        assert small.parameters(network, r).tobytes() == small.parameters(calm, own).tobytes()
        assert history.valid_loss[r].tobytes() == its_history.valid_loss[own].tobytes()


def test_all_replicas_explode():
    network = net()
    history = dl.fit(network, DATA, dl.SGD, lr=1e30, epochs=4)
    assert history.diverged.all()
    assert not network.parameters.any()
    loss, _ = dl.evaluate(network, DATA)
    assert np.isfinite(loss).all()


def test_nan_that_arises_in_training_marks_the_replica():
    """Data sets hold no NaN; one made on the way, say by an augmentation, is a divergence."""
    network = net()
    history = dl.fit(network, DATA, lr=0.01, epochs=2, augment=lambda x, noise: x * np.nan)
    assert history.diverged.all()
    assert np.isinf(history.train_loss).all()
    assert not network.parameters.any()


def test_exploding_run_in_a_sweep():
    runs = dl.sweep(
        BLUEPRINT,
        DATA,
        seeds=2,
        lr=[0.01, 1e30],
        optimizer=dl.SGD,
        epochs=3,
        backend="numpy",
        test=True,
    )
    assert runs.diverged.values.tolist() == [[False, False], [True, True]]
    assert (runs.test_accuracy.values[1] == 1 / 3).all()
    alone = dl.sweep(
        BLUEPRINT, DATA, seeds=2, lr=[0.01], optimizer=dl.SGD, epochs=3, backend="numpy", test=True
    )
    assert runs.sel(lr=[0.01]).identical(alone)


def test_dead_net():
    """Biases of -1000: no unit answers, no gradient reaches the hidden layer; the output's learns."""
    network = net(dl.mlp([6, 5, 3], bias=-1000.0))
    network.layers[-1].b[...] = 0
    first = network.layers[0].W.copy()
    report = probes.signals(network, DATA.x_train, DATA.y_train)
    assert (report.dead.values[:, 0] == 1).all()
    assert (report.gradient_rms.values[:, 0] == 0).all()
    for optimizer in (dl.SGD, dl.Adam, dl.AdaGrad, dl.RMSProp):
        history = dl.fit(network, DATA, optimizer, lr=0.1, epochs=3)
        assert not history.diverged.any()
        assert np.isfinite(history.train_loss).all()
        assert (history.valid_accuracy == 1 / 3).all()
    assert network.layers[0].W.tobytes() == first.tobytes()


def test_zero_weights_stay_equal():
    """All weights zero: finite, at chance, and no unit ever differs from another."""
    network = net(dl.mlp([6, 5, 3], initializer=dl.initializers.normal(0.0)))
    history = dl.fit(network, DATA, lr=0.1, epochs=2)
    assert np.isfinite(history.train_loss).all()
    assert not network.layers[0].W.any()


# Batches and sets of odd sizes ----------------------------------------------------------------


def test_batch_larger_than_the_set_is_one_full_batch():
    large, full = net(), net()
    history = dl.fit(large, DATA, lr=0.1, epochs=2, batch_size=10**9)
    dl.fit(full, DATA, lr=0.1, epochs=2, batch_size=60)
    assert history.step.tolist() == [1, 2]
    assert state(large) == state(full)


@pytest.mark.parametrize(("batch_size", "rest"), [(16, 12), (59, 1), (7, 4)])
def test_last_short_batch_counts_by_its_own_size(batch_size, rest):
    """The gradient of a short batch is the mean over it: checked by one step of SGD by hand."""
    seen = []

    def spy(x, noise):
        seen.append(x.shape[-2])
        return x

    network = net(seeds=3)
    steps = -(-60 // batch_size)
    dl.fit(network, DATA, dl.SGD, lr=0.1, steps=steps, batch_size=batch_size, augment=spy)
    assert seen == [batch_size] * (steps - 1) + [rest]
    by_hand = net(seeds=3)
    order = by_hand.streams.draw("batches", lambda rng: rng.permutation(60), 1)
    loss = dl.SoftmaxCrossEntropy()
    with dl.backend.one_blas_thread():
        for k in range(steps):
            own = order[k * batch_size : (k + 1) * batch_size]
            _, dy = loss(by_hand.forward(DATA.x_train[own], True), DATA.y_train[own])
            by_hand.backward(dy)
            by_hand.parameters -= np.float32(0.1) * by_hand.gradients
    np.testing.assert_allclose(network.parameters, by_hand.parameters, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.Adam])
def test_one_example(optimizer):
    """One example is learned by heart."""
    data = made(DATA.x_train[:1], DATA.y_train[:1])
    history = dl.fit(net(), data, optimizer, lr=0.1, steps=50)
    assert not history.diverged.any()
    assert (history.train_loss[:, -1] < 0.2 * history.train_loss[:, 0]).all()
    assert np.isnan(history.valid_loss).all()


def test_examples_of_one_class():
    data = made(DATA.x_train, np.full(60, 2), x_valid=DATA.x_valid, y_valid=np.full(30, 2))
    history = dl.fit(net(), data, lr=0.1, epochs=20)
    assert (history.valid_accuracy[:, -1] == 1).all()
    assert not history.diverged.any()


def test_a_problem_of_one_class_is_refused():
    with pytest.raises(ValueError, match=r"classes: expected an integer >= 2, got 1"):
        made(DATA.x_train, np.zeros(60, int), classes=1)


NORMED = dl.mlp([6, 5, 3], batch_norm="before")


@pytest.mark.parametrize(("train", "batch_size"), [(60, 1), (61, 20), (1, 5)])
def test_batch_norm_with_a_batch_of_one_is_refused(train, batch_size):
    """Also where only the last batch has one row; before the first step, and nothing is changed."""
    network = net(NORMED)
    before = state(network)
    with pytest.raises(ValueError, match="more than one row per feature"):
        dl.fit(network, small.blobs(train=train), lr=0.1, epochs=1, batch_size=batch_size)
    assert state(network) == before


def test_batch_norm_predicts_for_one():
    network = net(NORMED)
    dl.fit(network, DATA, lr=0.1, epochs=1)
    rows = network.forward(DATA.x_test)
    one = network.forward(DATA.x_test[:1])
    np.testing.assert_allclose(one, rows[:, :1], rtol=1e-5, atol=1e-6)


def test_images_give_batch_norm_rows_in_a_batch_of_one():
    data = small.sequences()
    layers = [dl.Conv2D(1, 2, 2), dl.BatchNorm(2, images=True), dl.Flatten(), dl.Dense(8, 3)]
    history = dl.fit(net(layers), data, lr=0.01, steps=3, batch_size=1)
    assert np.isfinite(history.train_loss).all()


def test_frozen_batch_norm_trains_with_batches_of_one():
    """Frozen it predicts: no statistics of the batch are needed."""
    network = net(NORMED)
    network.freeze("BatchNorm")
    history = dl.fit(network, DATA, lr=0.01, steps=3, batch_size=1)
    assert np.isfinite(history.train_loss).all()
