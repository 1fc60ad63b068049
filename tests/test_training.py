import double
import numpy as np
import pytest
import small
from scipy import special

import dlcore as dl
from dlcore import training

NUMPY = dl.get_backend("numpy")
DEEP = dl.mlp([6, 8, 8, 8, 3])


def test_fit_learns(backend):
    """The same run on each backend: from guessing to nearly all right, float32 throughout."""
    data = small.blobs()
    network = dl.Network(dl.mlp([6, 16, 3]), range(3), backend)
    before = dl.evaluate(network, data, "test")[1]
    history = dl.fit(network, data, dl.Adam, lr=0.02, epochs=15, batch_size=20)
    loss, accuracy = dl.evaluate(network, data, "test")
    assert (accuracy > 0.8).all()
    assert accuracy.mean() > before.mean() + 0.2
    assert (history.train_loss[:, -1] < 0.4 * history.train_loss[:, 0]).all()
    assert loss.dtype == accuracy.dtype == history.valid_loss.dtype == np.float64
    assert network.parameters.dtype == network.gradients.dtype == np.float32


def test_fit_keeps_float64(backend64):
    network = dl.Network(DEEP, range(2), backend64)
    run = training._Run(network, small.blobs(), dl.Adam, None)
    assert {b.dtype for b in run.optimizer.buffers} == {np.dtype("float64")}
    dl.fit(network, small.blobs(), dl.Momentum, lr=0.02, epochs=1, weight_decay=0.1)
    assert network.parameters.dtype == network.gradients.dtype == np.float64


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
def test_fit_is_the_plain_loop(own):
    """fit against the loop that a textbook would write, in float64, for one network."""
    data, backend = small.blobs(3), dl.get_backend("numpy", "float64")
    network = dl.Network(dl.mlp([6, 5, 3], activation=dl.Tanh), 3, backend)
    w1, b1, w2, b2 = (p.copy() for la in network.layers[::2] for p in (la.W, la.b))
    given = (lambda seed: small.blobs(seed)) if own else data
    history = dl.fit(network, given, dl.SGD, lr=0.2, weight_decay=0.1, epochs=2, batch_size=25)
    x, t = data.x_train.astype(float), np.eye(3)[data.y_train]
    for epoch in (1, 2):
        order, losses = dl.random.stream(3, "batches", epoch).permutation(60), []
        for rows in np.split(order, [25, 50]):
            a = np.tanh(x[rows] @ w1 + b1)
            z = a @ w2 + b2
            losses.append(-(t[rows] * special.log_softmax(z, axis=1)).sum(axis=1).mean())
            dz = (special.softmax(z, axis=1) - t[rows]) / len(rows)
            dh = dz @ w2.T * (1 - a**2)
            steps = [x[rows].T @ dh, dh.sum(0), a.T @ dz, dz.sum(0)]
            w1, w2 = w1 * (1 - 0.02) - 0.2 * steps[0], w2 * (1 - 0.02) - 0.2 * steps[2]
            b1, b2 = b1 - 0.2 * steps[1], b2 - 0.2 * steps[3]
        np.testing.assert_allclose(history.train_loss[epoch - 1], np.mean(losses), rtol=1e-9)
    expected = np.concatenate([p.ravel() for p in (w1, b1, w2, b2)])
    np.testing.assert_allclose(small.parameters(network), expected, rtol=1e-8, atol=1e-10)
    z = np.tanh(data.x_valid @ w1 + b1) @ w2 + b2
    value = -special.log_softmax(z, axis=1)[np.arange(30), data.y_valid].mean()
    np.testing.assert_allclose(history.valid_loss[-1], value, rtol=1e-8)
    assert history.valid_accuracy[-1] == (z.argmax(axis=1) == data.y_valid).mean()


def test_double_equals_numpy():
    """The device's path is the host's path: same bits from the double, which is NumPy inside."""
    found = []
    for backend in (NUMPY, dl.Backend("double", double.xp)):
        network = dl.Network(DEEP, range(4), backend)
        options = dict(lr=0.01, weight_decay=[0, 0.1, 0, 0.2], epochs=2, batch_size=16)
        clip = dl.clip_by_norm(0.3)
        history = dl.fit(
            network, small.blobs, regularizers=clip, probe=dl.probes.learning, **options
        )
        found.append((backend.to_numpy(network.parameters), history))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1].valid_loss, found[1][1].valid_loss)


def counted(replicas, batch_size, data, **options):
    """What a GPU does in one epoch of 60 rows: the number of steps is 60 over the batch size."""
    network = dl.Network(DEEP, range(replicas), dl.Backend("double", double.xp))
    with double.count() as counts:
        dl.fit(network, data, lr=0.01, epochs=1, batch_size=batch_size, **options)
    return counts


CLIP = dict(regularizers=(dl.clip_by_norm(1.0),), weight_decay=0.1, probe=dl.probes.learning)
ONES = dict(schedule=lambda k, n: 1 - k / n)


@pytest.mark.parametrize("options", [{}, CLIP, ONES], ids=["plain", "clip decay probe", "schedule"])
@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
def test_no_transfer_inside_an_epoch(own, options):
    """Epochs of 2 and of 20 steps wait for the device, and copy, equally often."""
    data = small.blobs if own else small.blobs()
    few, many = (counted(4, b, data, **options) for b in (30, 3))
    assert (few.syncs, few.to_host, few.to_device) == (many.syncs, many.to_host, many.to_device)
    assert many.calls > few.calls


def test_a_step_takes_few_calls():
    """A step of three hidden ReLU layers with Adam: at most 60 array calls, whatever R."""
    steps = {}
    for replicas in (1, 20):
        few, many = (counted(replicas, b, small.blobs()) for b in (30, 3))
        steps[replicas] = ((many.calls - few.calls) / 18, (many.hidden - few.hidden) / 18)
    assert steps[1] == steps[20]
    assert steps[1][0] <= 60


HUGE = 1e12


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.Momentum, dl.Adam])
def test_diverged_replica(backend, optimizer):
    """Marked and frozen, with the losses of no answer; the others' bits are untouched."""
    data, lrs = small.blobs(), np.array([0.01, HUGE, 0.02])
    run = dict(epochs=4, batch_size=20, probe=dl.probes.gradient_rms)
    network = dl.Network(DEEP, [1, 2, 3], backend)
    history = dl.fit(network, data, optimizer, lr=lrs, **run)
    others = dl.Network(DEEP, [1, 3], backend)
    theirs = dl.fit(others, data, optimizer, lr=lrs[[0, 2]], **run)
    assert history.diverged.tolist() == [False, True, False]
    assert (history.train_loss[1, 1:] == np.inf).all()
    assert history.valid_loss[1, -1] == np.inf
    assert history.valid_accuracy[1, -1] == 1 / 3
    np.testing.assert_array_equal(small.parameters(network, 1), 0)
    for mine, other in ((0, 0), (2, 1)):
        np.testing.assert_array_equal(
            small.parameters(network, mine), small.parameters(others, other)
        )
        np.testing.assert_array_equal(history.valid_loss[mine], theirs.valid_loss[other])
        for name in ("train_loss", "valid_accuracy"):
            np.testing.assert_array_equal(
                getattr(history, name)[mine], getattr(theirs, name)[other]
            )
    assert np.isfinite(history.train_loss[[0, 2]]).all()


def test_plain_network_diverges():
    network = dl.Network(DEEP, 1, NUMPY)
    history = dl.fit(network, small.blobs(), dl.SGD, lr=HUGE, epochs=3, batch_size=20)
    assert history.diverged.shape == ()
    assert history.diverged
    assert history.train_loss.tolist() == [np.inf] * 3
    np.testing.assert_array_equal(network.parameters, 0)


def test_divergence_without_validation_part():
    network = dl.Network(DEEP, [1, 2], NUMPY)
    history = dl.fit(network, small.blobs(valid=0), dl.SGD, lr=[0.01, HUGE], epochs=2)
    assert history.diverged.tolist() == [False, True]
    assert np.isnan(history.valid_loss).all()
    assert np.isnan(history.valid_accuracy).all()
    assert history.train_loss[1, -1] == np.inf


def test_frozen_replica_stays_frozen_between_records():
    network = dl.Network(DEEP, [1, 2], NUMPY)
    run = dict(epochs=5, batch_size=20, evaluate_every=3)
    history = dl.fit(network, small.blobs(), dl.Momentum, lr=[0.01, HUGE], **run)
    assert history.epoch.tolist() == [3, 5]
    assert history.train_loss[1].tolist() == [np.inf, np.inf]


def test_records():
    network = dl.Network(DEEP, range(2), NUMPY)
    seen = []

    def probe(net, before):
        seen.append(before.copy())
        return {"change": abs(net.parameters - before).reshape(2, -1)[:, :3]}

    history = dl.fit(
        network, small.blobs(), lr=0.01, steps=16, batch_size=25, probe=probe, evaluate_every=2
    )
    assert history.epoch.tolist() == [2, 4, 6]  # 3 steps an epoch; the sixth is cut short
    assert history.step.tolist() == [6, 12, 16]
    assert history.train_loss.shape == history.valid_loss.shape == (2, 3)
    assert history.probes["change"].shape == (2, 3, 3)
    assert len(seen) == 3


def test_probe_of_a_plain_network():
    network = dl.Network(DEEP, 0, NUMPY)
    history = dl.fit(network, small.blobs(), lr=0.01, epochs=2, probe=dl.probes.learning)
    assert history.probes["gradient_rms"].shape == history.probes["relative_update"].shape == (2, 4)
    assert history.valid_loss.shape == (2,)


def test_steps_and_epochs_agree():
    runs = []
    for options in (dict(epochs=2), dict(steps=6)):
        network = dl.Network(DEEP, range(2), NUMPY)
        history = dl.fit(network, small.blobs(), lr=0.01, batch_size=25, **options)
        runs.append((network.parameters.tobytes(), history.step.tolist()))
    assert runs[0] == runs[1]


def test_each_epoch_sees_every_example_once():
    """A linear unit with zero rate: the epoch's gradients add up to the whole set's, in any order."""
    seen = []

    class Spy(dl.Flatten):
        def forward(self, x, training):
            if training:
                seen.append(np.array(x))
            return super().forward(x, training)

    data = small.blobs()
    network = dl.Network([Spy(1), dl.Dense(6, 3)], [0, 1], NUMPY)
    dl.fit(network, data, lr=0.0, epochs=2, batch_size=25)
    assert [x.shape for x in seen] == [(2, n, 6) for n in (25, 25, 10)] * 2
    epochs = [np.concatenate(seen[i : i + 3], axis=1) for i in (0, 3)]
    for epoch in epochs:
        for r in range(2):
            assert sorted(map(bytes, epoch[r])) == sorted(map(bytes, data.x_train))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0][0], epochs[0][1])


def test_schedule_multiplies_the_rate():
    by_hand, scheduled = dl.Network(DEEP, [1, 2], NUMPY), dl.Network(DEEP, [1, 2], NUMPY)
    calls = []

    def half(step, steps):
        calls.append((step, steps))
        return 0.5

    dl.fit(by_hand, small.blobs(), lr=[0.005, 0.01], epochs=2, batch_size=30)
    dl.fit(scheduled, small.blobs(), lr=[0.01, 0.02], epochs=2, batch_size=30, schedule=half)
    np.testing.assert_array_equal(by_hand.parameters, scheduled.parameters)
    assert calls == [(k, 4) for k in range(4)]


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_evaluate(backend, part):
    """Over several chunks, against one pass by hand."""
    data = small.blobs(train=1203, valid=501, test=500)
    network = dl.Network(dl.mlp([6, 5, 3]), range(2), backend)
    loss, accuracy = dl.evaluate(network, data, part)
    x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    z = backend.to_numpy(network.forward(backend.asarray(x)))
    log_p = np.take_along_axis(special.log_softmax(z, axis=-1), y[None, :, None], -1)
    np.testing.assert_allclose(loss, -log_p[..., 0].mean(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(accuracy, (z.argmax(-1) == y).mean(axis=-1))


@pytest.mark.parametrize("loss", [dl.MeanSquaredError, dl.BinaryCrossEntropy()])
def test_other_losses_get_one_hot_targets(loss):
    network = dl.Network(dl.mlp([6, 5, 3]), range(2), NUMPY)
    data = small.blobs()
    found, _ = dl.evaluate(network, data, "valid", loss)
    made = loss() if isinstance(loss, type) else loss
    expected, _ = made(network.forward(data.x_valid), np.eye(3, dtype=np.float32)[data.y_valid])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_data_forms_agree():
    """A function of the seed, a mapping, and a class method are the same data."""
    runs = []
    for data in (small.blobs, {s: small.blobs(s) for s in (5, 6)}, lambda seed: small.blobs(seed)):
        network = dl.Network(DEEP, [5, 6, 5], NUMPY)
        dl.fit(network, data, lr=0.01, epochs=1)
        runs.append(network.parameters.tobytes())
    assert len(set(runs)) == 1


def test_loss_object_is_left_alone():
    """It may have served NumPy before, and may do so again."""
    loss = dl.SoftmaxCrossEntropy()
    loss(np.zeros((4, 3)), np.zeros(4, int))
    network = dl.Network(DEEP, 0, dl.Backend("double", double.xp))
    dl.fit(network, small.blobs(), lr=0.01, epochs=1, loss=loss)
    assert loss.xp is np
    assert loss(np.zeros((4, 3)), np.zeros(4, int))[0] == pytest.approx(np.log(3))


@pytest.mark.parametrize("optimizer", [dl.SGD, dl.Adam])
def test_a_second_fit_is_a_run_of_its_own(optimizer):
    """It goes on from the weights, with the first run's batches and a fresh optimizer and schedule."""
    data = small.blobs()
    options = dict(lr=0.05, batch_size=16, schedule=dl.schedules.cosine(), progress=False)
    blueprint = dl.mlp([6, 5, 3], batch_norm="before", dropout=0.2)
    twice, copied, once = (dl.Network(blueprint, [1, 2], "numpy") for _ in range(3))
    seen = [dl.fit(twice, data, optimizer, epochs=3, **options) for _ in range(2)]
    assert [h.epoch.tolist() for h in seen] == [[1, 2, 3]] * 2
    dl.fit(once, data, optimizer, epochs=6, **options)
    assert twice.parameters.tobytes() != once.parameters.tobytes()
    # the second run is the one that a fresh network with the first one's arrays makes
    dl.fit(copied, data, optimizer, epochs=3, **options)
    fresh = dl.Network(blueprint, [1, 2], "numpy")
    for name, a in fresh.arrays().items():
        a[...] = copied.arrays()[name]
    dl.fit(fresh, data, optimizer, epochs=3, **options)
    assert twice.parameters.tobytes() == fresh.parameters.tobytes()
