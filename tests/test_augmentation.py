import double
import numpy as np
import pytest
import small
from scipy import ndimage

import dlcore as dl
from dlcore import augmentation as aug

ALL = [
    aug.shift(2.5),
    aug.rotate(20),
    aug.elastic(1.5),
    aug.white_noise(0.2),
]
ALL.append(aug.compose(aug.rotate(10), aug.shift(1), aug.white_noise(0.1)))


class Fixed:
    """Noise whose uniform numbers are all u."""

    def __init__(self, backend, u):
        self.backend, self.streams, self.u = backend, dl.Streams(0), u

    def uniform(self, shape):
        return self.backend.xp.full(shape, self.u, dtype=self.backend.dtype)


def noise(backend, seeds=0, epoch=1):
    return dl.Noise(dl.Streams(seeds), backend, "augment", epoch)


def images(shape, seed=0):
    """Smooth images, which no interpolation is far off."""
    raw = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(raw, 1.5, axes=(-3, -2)) * 5


def run(step, backend, x, source):
    return backend.to_numpy(step(backend.asarray(x), source))


def test_every_augmentation_is_in_the_table():
    own = {n: f for n, f in vars(aug).items() if getattr(f, "__module__", "") == aug.__name__}
    public = {n for n, f in own.items() if isinstance(f, type) and n[0] != "_"}
    assert public == {type(step).__name__ for step in ALL}


@pytest.mark.parametrize("step", ALL, ids=repr)
def test_shape_type_and_change(backend, step):
    x = images((3, 4, 9, 7, 2)).astype(np.float32)
    found = run(step, backend, x, noise(backend, [0, 1, 0]))
    assert (found.shape, found.dtype) == (x.shape, x.dtype)
    assert not np.array_equal(found, x)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("step", ALL, ids=repr)
def test_replica_equals_alone_and_settings_share(step):
    backend = dl.get_backend("numpy")
    x = np.broadcast_to(images((4, 9, 7, 1)), (3, 4, 9, 7, 1)).astype(np.float32)
    many = run(step, backend, x, noise(backend, [5, 6, 5]))
    np.testing.assert_array_equal(many[0], many[2])
    np.testing.assert_array_equal(many[1], run(step, backend, x[1], noise(backend, 6)))
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(many[0], run(step, backend, x, noise(backend, [5, 6, 5], 2))[0])


@pytest.mark.parametrize(
    "step",
    [aug.shift(0), aug.rotate(0), aug.elastic(0), aug.white_noise(0)],
    ids=repr,
)
def test_strength_zero_is_the_identity(backend, step):
    x = backend.asarray(images((2, 5, 5, 1)))
    assert step(x, noise(backend)) is x
    assert aug.compose()(x, noise(backend)) is x


@pytest.mark.parametrize("u", [0.0, 0.3, 0.9])
def test_shift_is_scipys(backend64, u):
    x = images((2, 9, 8, 3))
    by = 2.5 * (2 * u - 1)
    expected = ndimage.shift(x, (0, by, by, 0), order=1, mode="nearest")
    found = run(aug.shift(2.5), backend64, x, Fixed(backend64, u))
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("u", [0.0, 0.3, 0.9])
def test_rotation_is_scipys(backend64, u):
    x = images((2, 9, 9, 3))
    degrees = 40 * (2 * u - 1)
    expected = ndimage.rotate(x, degrees, axes=(2, 1), order=1, mode="nearest", reshape=False)
    found = run(aug.rotate(40), backend64, x, Fixed(backend64, u))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_quarter_turn_goes_anticlockwise(backend64):
    """What was at the right comes to the top."""
    x = np.zeros((1, 5, 5, 1))
    x[0, 2, 4] = 1
    found = run(aug.rotate(90), backend64, x, Fixed(backend64, 1.0))
    np.testing.assert_allclose(found[0, 0, 2, 0], 1, atol=1e-12)
    np.testing.assert_allclose(found.sum(), 1, atol=1e-12)


def test_elastic_displacements(backend64):
    """On a ramp an image shows its own displacement: standard deviation and smoothness as said."""
    ramp = np.broadcast_to(np.arange(61.0)[:, None, None], (400, 61, 9, 1))
    u = run(aug.elastic(0.7, 2.0), backend64, ramp, noise(backend64)) - ramp
    u = u[:, 5:-5, :, 0]
    np.testing.assert_allclose(u.std(), 0.7, rtol=0.03)
    np.testing.assert_allclose(u[:, :, 0].std(), 0.7, rtol=0.05)
    near = (u[:, 1:] * u[:, :-1]).mean() / u.var()
    np.testing.assert_allclose(near, np.exp(-1 / (4 * 2.0**2)), atol=0.01)


def test_white_noise(backend64):
    x = images((4000, 2, 3, 1))
    added = run(aug.white_noise(0.5), backend64, x, noise(backend64)) - x
    assert abs(added.mean()) < 0.02
    np.testing.assert_allclose(added.std(), 0.5, rtol=0.02)


def test_rows_are_rolled(backend):
    x = np.random.default_rng(0).standard_normal((2, 300, 6)).astype(np.float32)
    found = run(aug.shift(2.9), backend, x, noise(backend, [0, 1]))
    rolled = np.stack([np.roll(x, k, axis=-1) for k in range(-2, 3)])
    which = (found == rolled).all(axis=-1)
    assert (which.sum(axis=0) == 1).all()
    share = which.mean(axis=(1, 2))
    assert (abs(share - 0.2) < 0.07).all()


def test_bad_arguments():
    for make in (lambda: aug.shift(-1), lambda: aug.rotate(181),
                 lambda: aug.elastic(1, 0), lambda: aug.white_noise(-1)):  # fmt: skip
        with pytest.raises(ValueError, match="expected a number"):
            make()
    with pytest.raises(TypeError, match="steps: expected functions"):
        aug.compose(aug.shift(1), 3)
    with pytest.raises(ValueError, match="x: expected images"):
        aug.rotate(5)(np.zeros((3, 4)), noise(dl.get_backend("numpy")))
    with pytest.raises(TypeError, match="augment: expected a function"):
        dl.fit(dl.Network(dl.mlp([6, 3]), 0, "numpy"), small.blobs(), lr=0.1, epochs=1, augment=2)


def trained(seeds, augment, backend="numpy"):
    network = dl.Network(dl.mlp([6, 5, 3]), seeds, backend)
    options = dict(lr=0.01, epochs=3, batch_size=16, augment=augment)
    return network, dl.fit(network, small.blobs(), **options)


def test_fit_augments_training_batches_alone():
    seen = []

    def spy(x, noise):
        seen.append(x.shape)
        return x

    plain, first = trained([1, 2], None)
    spied, second = trained([1, 2], spy)
    assert seen == [(2, n, 6) for n in (16, 16, 16, 12)] * 3
    np.testing.assert_array_equal(plain.parameters, spied.parameters)
    np.testing.assert_array_equal(first.valid_loss, second.valid_loss)


def test_fit_replica_equals_alone():
    augment = aug.compose(aug.shift(1), aug.white_noise(0.3))
    many = trained([1, 2, 1], augment)[0]
    for r, seed in enumerate((1, 2, 1)):
        alone = trained(seed, augment)[0]
        np.testing.assert_array_equal(small.parameters(many, r), small.parameters(alone))
    assert not np.array_equal(many.parameters, trained([1, 2, 1], None)[0].parameters)


@pytest.mark.parametrize("step", ALL, ids=repr)
def test_no_wait_and_no_copy(step):
    backend = dl.Backend("double", double.xp)
    x, source = backend.asarray(images((2, 3, 9, 7, 1))), noise(backend, [0, 1])
    with double.count(strict=True):
        step(x, source)
