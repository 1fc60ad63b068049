"""What training costs a GPU, counted on the double: calls per layer, and no wait within an epoch."""

import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import augmentation as aug
from dlcore.activations import Activation

# One layer of each type with the shape of its input; the recurrent one reads four time steps.
LAYERS = {
    "Dense": (dl.Dense(6, 5), (4, 6)),
    "BatchNorm": (dl.BatchNorm(6), (4, 6)),
    "Dropout": (dl.Dropout(0.5), (4, 6)),
    "GaussianNoise": (dl.GaussianNoise(0.1), (4, 6)),
    "Flatten": (dl.Flatten(), (4, 3, 2, 1)),
    "SimpleRNN": (dl.SimpleRNN(3, 5), (4, 4, 3)),
    "Conv2D": (dl.Conv2D(2, 3, 3, padding="same"), (4, 6, 6, 2)),
    "MaxPool2D": (dl.MaxPool2D(2), (4, 6, 6, 2)),
}
LAYERS |= {
    c.__name__: (c(), (4, 6))
    for c in sorted(small.subclasses(Activation), key=lambda c: c.__name__)
}
# Calls forward and backward, in training and with the gradient of the input, whatever R.
LIMITS = {
    "Dense": (2, 3),
    "BatchNorm": (6, 4),
    "Dropout": (2, 1),
    "GaussianNoise": (3, 0),
    "Flatten": (0, 0),
    "SimpleRNN": (17, 41),
    "Conv2D": (4, 13),
    "MaxPool2D": (3, 22),
    "Identity": (0, 0),
}
LIMITS |= {c.__name__: (1, 1) for c in small.subclasses(Activation) if c is not dl.Identity}


def calls(layer, shape, replicas):
    """Calls of one forward and one backward pass in training, with the input's gradient."""
    backend = dl.Backend("double", double.xp)
    network = dl.Network([layer], range(replicas), backend)
    placed = network.layers[0]
    placed.needs_dx = True
    x = backend.asarray(np.random.default_rng(0).standard_normal((replicas, *shape)))
    with double.count(strict=True) as up:
        y = placed.forward(x, True)
    dy = backend.asarray(np.ones(y.shape))
    with double.count(strict=True) as down:
        assert placed.backward(dy).shape == x.shape
    return up.calls, down.calls


def test_every_public_layer_is_in_the_tables():
    public = {c.__name__ for c in small.subclasses(dl.Layer)} - {"Activation"}
    assert set(LAYERS) == set(LIMITS) == public


@pytest.mark.parametrize("name", LAYERS)
def test_calls_per_layer(name):
    """As the table says, whatever R."""
    assert calls(*LAYERS[name], 1) == calls(*LAYERS[name], 20) == LIMITS[name]


class Diary:
    """A regulariser that writes down, at each step, what has crossed between host and device."""

    def __init__(self):
        self.counts, self.entries = None, []

    def weights(self, network):
        c = self.counts
        self.entries.append((c.syncs, c.to_host, c.to_device, c.calls))


DENSE = dl.mlp([6, 8, 3], batch_norm="before", dropout=0.3, input_dropout=0.1)
CONV = [
    dl.Conv2D(1, 3, 2), dl.BatchNorm(3, images=True), dl.ReLU(), dl.MaxPool2D((2, 1)),
    dl.Dropout(0.2), dl.Flatten(), dl.Dense(6, 3),
]  # fmt: skip
TURNS = aug.compose(aug.shift(1), aug.rotate(10), aug.elastic(1), aug.white_noise(0.1))
PENALTIES = [dl.L1(1e-4), dl.L2(1e-4), dl.MaxNorm(2), dl.clip_by_norm(1)]
RUNS = {
    "mlp, batch norm, dropout": (DENSE, small.blobs, {}),
    "noise, rolled": (
        [dl.GaussianNoise(0.1), dl.Dense(6, 3)],
        small.blobs,
        dict(augment=aug.compose(aug.shift(2), aug.white_noise(0.1))),
    ),
    "conv, augmentation": (CONV, small.sequences, dict(augment=TURNS)),
    "rnn, clipping": (
        small.rnn(),
        small.sequences,
        dict(regularizers=PENALTIES, optimizer=dl.Momentum),
    ),
    "early stopping, schedule, probe": (
        DENSE,
        small.blobs,
        dict(
            early_stopping=dl.EarlyStopping(1),
            schedule=dl.schedules.warmup(0.5, dl.schedules.cosine()),
            probe=dl.probes.learning,
            optimizer=dl.NAdam,
        ),
    ),
    "plateau, decay": (DENSE, small.blobs, dict(schedule=dl.ReduceOnPlateau(), weight_decay=0.1)),
}


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
@pytest.mark.parametrize("name", RUNS)
def test_no_wait_and_no_copy_between_the_steps_of_an_epoch(name, own):
    layers, make, options = RUNS[name]
    data, diary = (make if own else make()), Diary()
    steps = -(-len(make().y_train) // 8)
    network = dl.Network(layers, range(3), dl.Backend("double", double.xp))
    several = [*options.get("regularizers", ()), diary]
    with double.count() as diary.counts:
        dl.fit(network, data, **options | dict(regularizers=several), lr=0.01, epochs=2,
               batch_size=8)  # fmt: skip
    found = np.array(diary.entries).reshape(2, steps, 4)
    crossed, called = found[..., :3], found[..., 3]
    assert (crossed == crossed[:, :1]).all()
    assert (np.diff(called) > 0).all()


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
@pytest.mark.parametrize("name", ["mlp, batch norm, dropout", "conv, augmentation"])
def test_evaluate_waits_once_however_many_chunks(name, own):
    layers, make, _ = RUNS[name]
    network, crossed = dl.Network(layers, range(2), dl.Backend("double", double.xp)), []
    for n in (500, 1600):
        sets = {seed: make(seed, test=n) for seed in range(2)}
        with double.count() as c:
            dl.evaluate(network, sets if own else sets[0], "test")
        crossed.append((c.syncs, c.to_host, c.to_device))
    assert crossed[0] == crossed[1]
    assert crossed[0][0] <= 2


@pytest.mark.parametrize("layers", [DENSE, CONV], ids=["mlp", "conv"])
def test_fit_and_evaluate_run_on_each_backend(backend, layers):
    """One body over NumPy, the double and CuPy, with everything on: the loss falls and is finite."""
    data = small.blobs() if layers is DENSE else small.sequences()
    turn = aug.white_noise(0.1) if layers is DENSE else TURNS
    network = dl.Network(layers, range(3), backend)
    before = dl.evaluate(network, data)[0]
    history = dl.fit(network, data, lr=0.02, epochs=6, batch_size=16, augment=turn,
                     early_stopping=dl.EarlyStopping(6), regularizers=[dl.MaxNorm(3)])  # fmt: skip
    loss, accuracy = dl.evaluate(network, data)
    assert (loss < before).all()
    np.testing.assert_allclose(loss, history.valid_loss.min(axis=-1), rtol=1e-6)
    assert ((accuracy >= 0) & (accuracy <= 1)).all()


STEPS = {  # what a step costs of a net with three hidden layers; the limit; keywords of mlp and of fit
    "Adam": (37, 40, {}, {}),
    "Adam, decay": (38, 40, {}, dict(weight_decay=0.1)),
    "AdamW, one cycle": (38, 40, {}, dict(optimizer=dl.AdamW, schedule=dl.schedules.one_cycle())),
    "SGD": (36, 40, {}, dict(optimizer=dl.SGD)),
    "Nesterov": (38, 40, {}, dict(optimizer=dl.Nesterov)),
    "NAdam": (37, 40, {}, dict(optimizer=dl.NAdam)),
    "RMSProp": (37, 40, {}, dict(optimizer=dl.RMSProp)),
    "GELU": (37, 40, dict(activation=dl.GELU), {}),
    "SELU": (37, 40, dict(activation=dl.SELU), {}),
    "leaky ReLU": (37, 40, dict(activation=dl.LeakyReLU), {}),
    "batch norm": (67, 80, dict(batch_norm="before"), {}),
    "batch norm, dropout": (76, 80, dict(batch_norm="before", dropout=0.5), {}),
}


@pytest.mark.parametrize(("calls", "limit", "net", "options"), STEPS.values(), ids=STEPS)
def test_a_step_of_the_reference_net(calls, limit, net, options):
    """Three hidden layers: as the table says, whatever R, and no more than the limit."""
    for replicas in (1, 20):
        network = dl.Network(
            dl.mlp([6, 8, 8, 8, 3], **net), range(replicas), dl.Backend("double", double.xp)
        )
        diary = Diary()
        with double.count() as diary.counts:
            dl.fit(network, small.blobs(), **dict(lr=0.01, epochs=1, batch_size=6) | options,
                   regularizers=diary)  # fmt: skip
        assert set(np.diff([entry[3] for entry in diary.entries])) == {calls}
    assert calls <= limit
