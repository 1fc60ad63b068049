"""Noise per seed and epoch, dropout and Gaussian noise."""

import double
import numpy as np
import pytest
import small

import dlcore as dl

NUMPY = dl.get_backend("numpy")
SHARED = dl.Streams([4, 7, 4])


@pytest.mark.parametrize("seeds", [0, [4], [4, 7], [4, 7, 4]], ids=str)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_moments_and_type(backend, kind, seeds):
    streams = dl.Streams(seeds)
    noise = dl.Noise(streams, backend, "noise", 3)
    shape = (*streams.shape, 100, 40)
    first, second = (getattr(noise, kind)(shape) for _ in range(2))
    assert first.shape == shape
    assert first.dtype == backend.dtype
    a, b = backend.to_numpy(first).astype(float), backend.to_numpy(second).astype(float)
    mean, variance = (0.5, 1 / 12) if kind == "uniform" else (0, 1)
    assert abs(a.mean() - mean) < 5 * np.sqrt(variance / 4000)
    assert abs(a.var() - variance) < 5 * variance * np.sqrt(2 / 4000)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(4000)
    if kind == "uniform":
        assert a.min() >= 0
        assert a.max() < 1


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_replica_has_the_bits_of_its_seed(kind):
    """Seeds share draws; other seeds, purposes, layers and epochs get other ones."""
    many = [getattr(dl.Noise(SHARED, NUMPY, "noise", 2, 5), kind)((3, 6, 2)) for _ in range(2)]
    np.testing.assert_array_equal(*many)
    np.testing.assert_array_equal(many[0][0], many[0][2])
    for r, seed in ((0, 4), (1, 7)):
        alone = getattr(dl.Noise(dl.Streams(seed), NUMPY, "noise", 2, 5), kind)((6, 2))
        np.testing.assert_array_equal(many[0][r], alone)
    draws = {many[0][r].tobytes() for r in range(3)}
    for key in (("noise", 2, 6), ("noise", 3, 5), ("augment", 2, 5)):
        draws |= {getattr(dl.Noise(SHARED, NUMPY, *key), kind)((3, 6, 2))[0].tobytes()}
    assert len(draws) == 2 + 3


def test_device_noise_is_keyed_too(backend):
    """Also where it comes from one generator: equal keys, equal numbers."""
    draws = [
        backend.to_numpy(dl.Noise(SHARED, backend, "noise", *key).uniform((3, 8))).tobytes()
        for key in ((1, 2), (1, 2), (1, 3), (2, 2))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3


def test_one_number_per_replica(backend):
    assert dl.Noise(SHARED, backend, "augment").uniform((3,)).shape == (3,)


@pytest.mark.parametrize("shape", [(6, 2), (), (2, 3)])
def test_shape_must_begin_with_the_replicas(backend, shape):
    with pytest.raises(ValueError, match=r"shape: expected \(3, \.\.\.\)"):
        dl.Noise(SHARED, backend, "noise").uniform(shape)


def test_start_epoch_renews_the_noise(backend):
    network = dl.Network([dl.Dropout(0.5)], [1, 2], backend)
    x = backend.asarray(np.ones((2, 20, 5)))
    runs = []
    for epoch in (0, 1, 1, 2):
        network.start_epoch(epoch)
        runs.append(backend.to_numpy(network.forward(x, True)).tobytes())
    assert runs[1] == runs[2]
    assert len(set(runs)) == 3
    fresh = dl.Network([dl.Dropout(0.5)], [1, 2], backend)
    assert backend.to_numpy(fresh.forward(x, True)).tobytes() == runs[0]
    assert backend.to_numpy(fresh.forward(x, True)).tobytes() != runs[0]


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seeds", [0, [3, 4]], ids=["plain", "2"])
def test_dropout(backend, rate, seeds):
    """The share dropped to five standard errors; what is kept is scaled; backward has the same mask."""
    network = dl.Network([dl.Dropout(rate)], seeds, backend)
    layer, shape = network.layers[0], (*network.streams.shape, 200, 50)
    y = layer.forward(backend.asarray(np.ones(shape)), True)
    dx = layer.backward(backend.asarray(np.full(shape, 3.0)))
    assert y.dtype == dx.dtype == np.float32
    y, dx = backend.to_numpy(y), backend.to_numpy(dx)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=1e-6)
    np.testing.assert_allclose(dx, 3 * y, rtol=1e-6)
    dropped = (y == 0).mean(axis=(-2, -1))
    assert np.all(abs(dropped - rate) < 5 * np.sqrt(rate * (1 - rate) / 10_000))
    if seeds:
        assert np.any(y[0] != y[1])


@pytest.mark.parametrize(
    "layer", [dl.Dropout(), dl.GaussianNoise(), dl.Dropout(0), dl.GaussianNoise(0)]
)
def test_identity_in_prediction_and_at_zero(backend, layer):
    own = dl.Network([layer], [1, 2], backend).layers[0]
    x = backend.asarray(np.ones((2, 3, 4)))
    assert own.forward(x, False) is x
    assert own.backward(x) is x
    still = 0 in (getattr(layer, "rate", None), getattr(layer, "std", None))
    assert (own.forward(x, True) is x) == still


def test_dropout_forgets_its_mask():
    """Backward after a prediction is the identity, whatever was drawn before."""
    layer = dl.Network([dl.Dropout(0.5)], 0, "numpy").layers[0]
    x = np.ones((4, 5), np.float32)
    layer.forward(x, True)
    layer.forward(x, False)
    np.testing.assert_array_equal(layer.backward(x), 1)


@pytest.mark.parametrize("std", [0.1, 2.0])
def test_gaussian_noise(backend, std):
    layer = dl.Network([dl.GaussianNoise(std)], [1, 2], backend).layers[0]
    x = np.full((2, 200, 50), 5.0)
    y = layer.forward(backend.asarray(x), True)
    assert y.dtype == np.float32
    noise = backend.to_numpy(y) - 5
    assert np.all(abs(noise.mean(axis=(-2, -1))) < 5 * std / 100)
    np.testing.assert_allclose(noise.std(axis=(-2, -1)), std, rtol=5 / np.sqrt(20_000))
    np.testing.assert_array_equal(backend.to_numpy(layer.backward(y)), backend.to_numpy(y))


def recurrent():
    return [dl.Flatten(2), dl.GaussianNoise(1.0), dl.SimpleRNN(6, 3), dl.Dense(3, 2)]


@pytest.mark.parametrize("blueprint", [dl.mlp([5, 4, 2], input_dropout=0.5), recurrent])
def test_shared_inputs_get_noise_of_their_own(backend, blueprint):
    """Even with as many rows as replicas."""
    network = dl.Network(blueprint, [1, 2, 3], backend)
    shape = (3, 5) if isinstance(network.layers[0], dl.Dropout) else (3, 5, 2, 3)
    x = np.random.default_rng(0).standard_normal(shape)
    shared = network.forward(backend.asarray(x), True)
    network.start_epoch(0)
    own = network.forward(backend.asarray(np.stack([x] * 3)), True)
    np.testing.assert_array_equal(backend.to_numpy(shared), backend.to_numpy(own))
    assert network.forward(backend.asarray(x)).shape == (3, 3, 2)


def test_monte_carlo_dropout():
    """Draws differ, and their mean for a linear net is the prediction."""
    network = dl.Network([dl.Dense(6, 400), dl.Dropout(0.5), dl.Dense(400, 1)], 0, "numpy")
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    draws = np.stack([network.forward(x, training=True) for _ in range(400)])
    error = draws.std(axis=0) / np.sqrt(400)
    assert np.all(error > 0)
    assert np.all(abs(draws.mean(axis=0) - network.forward(x)) < 5 * error)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="rate: expected"):
        dl.Dropout(rate)
    with pytest.raises(ValueError, match="dropout: expected"):
        dl.mlp([4, 3, 2], dropout=rate)


@pytest.mark.parametrize(("std", "error"), [(-1.0, ValueError), ("a", TypeError)])
def test_wrong_std(std, error):
    with pytest.raises(error, match="std: expected"):
        dl.GaussianNoise(std)


def kinds(**options):
    return [type(layer).__name__ for layer in dl.mlp([4, 3, 3, 2], **options)()]


def test_blueprint_options():
    assert kinds(batch_norm="before", dropout=0.2)[:5] == [
        "Dense",
        "BatchNorm",
        "ReLU",
        "Dropout",
        "Dense",
    ]
    assert kinds(batch_norm="after", dropout=0.2)[:5] == [
        "Dense",
        "ReLU",
        "BatchNorm",
        "Dropout",
        "Dense",
    ]
    assert kinds(input_dropout=0.2)[:3] == ["Dropout", "Dense", "ReLU"]
    assert kinds() == ["Dense", "ReLU"] * 2 + ["Dense"]
    assert kinds(batch_norm="after", dropout=0.2)[-1] == "Dense"
    layers = dl.mlp([4, 3, 2], dropout=0.2, input_dropout=0.1)()
    assert [layer.rate for layer in layers if isinstance(layer, dl.Dropout)] == [0.1, 0.2]
    with pytest.raises(ValueError, match="batch_norm: expected"):
        kinds(batch_norm="behind")


# The replica contract, with everything that is drawn or averaged ----------------------------------


def images(seed=0):
    flat = small.blobs(seed, features=36)
    x = {k: getattr(flat, k).reshape(-1, 6, 6, 1) for k in ("x_train", "x_valid", "x_test")}
    y = {k: getattr(flat, k) for k in ("y_train", "y_valid", "y_test")}
    return dl.datasets.Dataset(**x, **y, name="images", classes=3)


def convolutional():
    return [
        dl.GaussianNoise(0.1),
        dl.Conv2D(1, 4, 3, padding="same"),
        dl.BatchNorm(4, images=True),
        dl.ReLU(),
        dl.MaxPool2D(2),
        dl.Conv2D(4, 5, 2, stride=1),
        dl.Tanh(),
        dl.Flatten(),
        dl.Dropout(0.3),
        dl.Dense(20, 3),
    ]


NETS = {
    "dropout": (dl.mlp([6, 9, 7, 3], dropout=0.3, input_dropout=0.1), small.blobs),
    "batch norm before": (dl.mlp([6, 9, 7, 3], batch_norm="before"), small.blobs),
    "batch norm after": (dl.mlp([6, 9, 1, 3], batch_norm="after", dropout=0.2), small.blobs),
    "images": (convolutional, images),
}


def state(network, r=None):
    buffers = [getattr(a, name) for a in network.layers for name in a.buffers]
    own = [(b if r is None else b[r]).ravel() for b in buffers]
    return np.concatenate([small.parameters(network, r), *own]).tobytes()


@pytest.mark.parametrize("own", [False, True], ids=["shared data", "data per seed"])
@pytest.mark.parametrize("name", NETS)
def test_replica_equals_seed_alone(name, own):
    """Settings that share seeds, of one run; 60 examples in batches of 16: the last is short."""
    blueprint, make = NETS[name]
    data, options = make if own else make(3), dict(epochs=2, batch_size=16)
    seeds, lrs = [5, 2, 5, 9, 2], [0.01, 0.01, 0.03, 0.003, 0.02]
    decays = [0.0, 0.1, 0.02, 0.0, 0.0]
    network = dl.Network(blueprint, seeds, NUMPY)
    history = dl.fit(network, data, dl.Adam, lr=lrs, weight_decay=decays, **options)
    assert not history.diverged.any()
    for r in range(5):
        single = dl.Network(blueprint, seeds[r], NUMPY)
        its = dl.fit(single, data, dl.Adam, lr=lrs[r], weight_decay=decays[r], **options)
        assert state(network, r) == state(single), f"replica {r}"
        for curve in ("train_loss", "valid_loss", "valid_accuracy"):
            assert getattr(history, curve)[r].tobytes() == getattr(its, curve).tobytes()
    if any(layer.noisy for layer in network.layers):
        still = dl.Network(blueprint, seeds, NUMPY)
        still.start_epoch = lambda number: None
        dl.fit(still, data, dl.Adam, lr=lrs, weight_decay=decays, **options)
        assert state(still, 0) != state(network, 0), "fit renews the noise at each epoch"


@pytest.mark.parametrize("name", NETS)
def test_sweep_over_shards(name):
    blueprint, make = NETS[name]
    runs = [
        dl.sweep(blueprint, make(3), lr=[0.01, 0.03], seeds=3, epochs=1, shard=shard, backend=NUMPY)
        for shard in (1, 4)
    ]
    assert runs[0].identical(runs[1])


@pytest.mark.parametrize("name", NETS)
def test_no_copy_and_no_wait_inside_an_epoch(name):
    """From the renewal of the noise on: forward, loss, backward and the optimizer's step."""
    blueprint, make = NETS[name]
    backend = dl.Backend("double", double.xp, np.dtype("float32"))
    network, loss = dl.Network(blueprint, range(3), backend), dl.SoftmaxCrossEntropy()
    loss.xp, optimizer = double.xp, dl.Adam().bind(network)
    x = backend.asarray(np.stack([make(3).x_train[:16]] * 3))
    labels = backend.asarray(np.arange(16) % 3, np.int64)
    rates = backend.asarray(np.full(3, 0.01))
    with double.count(strict=True) as counted:
        network.start_epoch(1)
        for _ in range(2):
            _, dy = loss(network.forward(x, True), labels)
            network.backward(dy)
            optimizer.step(rates)
    assert counted.syncs == counted.to_device == counted.to_host == 0
    assert counted.calls < 2 * 250


@pytest.mark.parametrize("seeds", [5, [5, 6]], ids=["plain", "2"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9, 0.5 + 1e-10, 1 / 3])
def test_masks_do_not_depend_on_the_type(rate, seeds):
    """One seed drops the same units in float32 and in float64, epoch by epoch."""
    masks = []
    for dtype in ("float32", "float64"):
        network = dl.Network([dl.Dropout(rate)], seeds, dl.get_backend("numpy", dtype))
        x = np.ones((*network.streams.shape, 200, 50), dtype)
        found = []
        for epoch in (1, 2):
            network.start_epoch(epoch)
            found.append(network.forward(x, True) != 0)
        masks.append(found)
    np.testing.assert_array_equal(*masks)
    assert np.any(masks[0][0] != masks[0][1])


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_numbers_do_not_depend_on_the_type(kind):
    draws = [
        getattr(dl.Noise(SHARED, dl.get_backend("numpy", dtype), "noise", 1, 0, 2), kind)((3, 50))
        for dtype in ("float32", "float64")
    ]
    assert [draw.dtype for draw in draws] == [np.float32, np.float64]
    np.testing.assert_array_equal(*draws)


def test_float32_numbers_are_as_they_were():
    """What the book's runs drew: float32 numbers of the stream (seed, "noise", place)."""
    own = dl.random.stream(4, "noise", 1, 0, 2)
    draw = dl.Noise(dl.Streams(4), NUMPY, "noise", 1, 0, 2).uniform((5,))
    np.testing.assert_array_equal(draw, own.random(5, dtype=np.float32))


@pytest.mark.parametrize("augment", [dl.augmentation.shift(3), dl.augmentation.shift(7)], ids=repr)
def test_rolls_do_not_depend_on_the_type(augment):
    rolled = []
    for dtype in ("float32", "float64"):
        backend = dl.get_backend("numpy", dtype)
        noise = dl.Noise(dl.Streams([1, 2]), backend, "augment", 1)
        x = np.broadcast_to(np.arange(40, dtype=dtype), (2, 500, 40))
        rolled.append(augment(x, noise))
    np.testing.assert_array_equal(*rolled)


@pytest.mark.parametrize(
    "augment",
    [dl.augmentation.shift(2), dl.augmentation.rotate(20), dl.augmentation.elastic(1.0),
     dl.augmentation.white_noise(0.1)],
    ids=repr,
)  # fmt: skip
def test_augmentation_of_both_types_is_equal_to_rounding(augment):
    found = []
    for dtype in ("float32", "float64"):
        backend = dl.get_backend("numpy", dtype)
        noise = dl.Noise(dl.Streams(3), backend, "augment", 1)
        images = np.random.default_rng(0).random((6, 9, 9, 1)).astype(dtype)
        found.append(augment(images, noise))
    np.testing.assert_allclose(*found, atol=1e-5)
