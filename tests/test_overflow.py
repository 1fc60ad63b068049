"""Float32 where the true value fits: each result against float64, from tiny to huge numbers.

And what does not fit marks its replica, also where the loss stays finite.
"""

import warnings

import double
import numpy as np
import pytest
import small
from scipy import special

import dlcore as dl
from dlcore import norms
from dlcore.activations import Activation

MAX = float(np.finfo(np.float32).max)
#: Powers of ten through the whole range of float32.
SIZES = [1e-40, 1e-30, 1e-22, 1e-15, 1e-5, 1.0, 1e5, 1e15, 1e19, 1e22, 1e30, 1e37]
RNG = np.random.default_rng(0)


def agree(found, wide, rtol=1e-5):
    """Float32 numbers are the float64 ones where those fit, else infinite; tiny ones to 1e-44."""
    fits = np.abs(wide) <= MAX
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[fits], wide[fits], rtol=rtol, atol=1e-44)
    assert np.isinf(found[~fits]).all()


# Losses ---------------------------------------------------------------------------------------

LOGITS = [
    [[3e38, -3e38]],
    [[3e38, -3e38], [1.0, 2.0]],
    [[1.6e38, -1.6e38]] * 3,
    [[3.4e38, 0.0, -3.4e38]],
    [[-3e38, -3e38]],
    [[0.0, -np.inf]],
    [[-np.inf, 5.0, -np.inf], [1.0, 2.0, -np.inf]],
    [[1e-40, -1e-40]],
    [[88.0, -110.0]],
]


@pytest.mark.parametrize("logits", LOGITS, ids=str)
@pytest.mark.parametrize("seeds", [1, 3])
def test_softmax(logits, seeds):
    """With any labels: the value and the gradient in float64 are those of float32."""
    rows = np.broadcast_to(np.array(logits, np.float32), (seeds, *np.shape(logits)))
    with np.errstate(all="ignore"):
        log_p = special.log_softmax(rows.astype(float), axis=-1)
    for label in range(rows.shape[-1]):
        labels = np.full(rows.shape[-2], label)
        value, dy = dl.SoftmaxCrossEntropy()(rows, labels)
        agree(value, -log_p[..., label].mean(axis=-1))
        target = labels[:, None] == np.arange(rows.shape[-1])
        agree(dy, (np.exp(log_p) - target) / rows.shape[-2])


def test_softmax_of_plus_infinity_is_marked():
    for logits in ([[np.inf, 0.0]], [[np.inf, np.inf]], [[-np.inf, -np.inf]], [[np.nan, 0.0]]):
        assert np.isnan(dl.SoftmaxCrossEntropy()(np.array(logits, np.float32), np.array([0]))[0])


def test_one_replica_overflows_alone():
    """The others keep the bits that they have without it."""
    logits = RNG.standard_normal((3, 5, 4)).astype(np.float32)
    labels = np.arange(5) % 4
    calm = dl.SoftmaxCrossEntropy()(logits, labels)[0]
    logits[1] *= 3e37
    found = dl.SoftmaxCrossEntropy()(logits, labels)[0]
    assert found[[0, 2]].tobytes() == calm[[0, 2]].tobytes()
    assert np.isfinite(found).all()
    assert found[1] > 1e37


@pytest.mark.parametrize("size", [*SIZES, 3e38])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_binary(size, target):
    z = np.float32(size) * np.array([[1.0, -1.0], [-0.5, 0.5]], np.float32)
    targets = np.full_like(z, target)
    wide = z.astype(float)
    terms = target * special.log_expit(wide) + (1 - target) * special.log_expit(-wide)
    value, dy = dl.BinaryCrossEntropy()(z, targets)
    agree(value, -terms.sum() / 2 * np.ones(()))
    np.testing.assert_allclose(dy, (special.expit(wide) - target) / 2, atol=1e-6)


@pytest.mark.parametrize("z", [20.0, 50.0, 80.0])
def test_binary_keeps_small_losses(z):
    """ln(1 + e^z) - z loses all digits from z = 17 on; e^-z has them."""
    value, _ = dl.BinaryCrossEntropy()(np.float32([[z]]), np.float32([[1]]))
    np.testing.assert_allclose(value, np.exp(-z), rtol=1e-6)


def test_binary_infinite_logits():
    z = np.float32([[np.inf, -np.inf]])
    value, dy = dl.BinaryCrossEntropy()(z, np.float32([[1, 0]]))
    assert value == 0
    np.testing.assert_array_equal(dy, 0)
    for wrong in ([[0, 0]], [[1, 1]], [[0.5, 0.5]]):
        assert dl.BinaryCrossEntropy()(z, np.float32(wrong))[0] == np.inf


@pytest.mark.parametrize("size", SIZES)
def test_squared(size):
    y = (np.float32(size) * RNG.standard_normal((2, 50, 3))).astype(np.float32)
    y[0, 1:] = 0  # one large error among 50 rows: its square does not fit, the mean may
    targets = np.zeros((50, 3), np.float32)
    value, dy = dl.MeanSquaredError()(y, targets)
    agree(value, np.square(y.astype(float)).mean(axis=(-2, -1)))
    agree(dy, y.astype(float) * (2 / 150))


# Norms ----------------------------------------------------------------------------------------


def with_arrays(backend, sizes, kind="d"):
    """A network whose gradients (or parameters) are normal numbers times one size per replica."""
    network = dl.Network(dl.mlp([5, 4, 3]), range(len(sizes)), backend)
    for slot in network.slots:
        draw = np.random.default_rng(slot.start).standard_normal(slot.shape)
        a = getattr(network.layers[slot.layer], kind + slot.name)
        a[...] = backend.asarray(draw * np.reshape(sizes, (-1, 1, 1)))
    return network


@pytest.mark.parametrize("limit", [1e-18, 1e-10, 1.0, 1e10, 1e30, 1e39])
def test_clip(backend, limit):
    network = with_arrays(backend, SIZES)
    before = [small.gradients(network, r).astype(float) for r in range(len(SIZES))]
    dl.clip_by_global_norm(limit).gradients(network)
    for r, g in enumerate(before):
        expected = g * min(1.0, limit / np.linalg.norm(g))
        np.testing.assert_allclose(small.gradients(network, r), expected, rtol=2e-5, atol=2e-44)


def test_clip_of_a_norm_beyond_float32(backend):
    network = with_arrays(backend, [1.0])
    network.gradients[...] = backend.asarray(np.full(network.gradients.shape, 3e38))
    dl.clip_by_global_norm(1.0).gradients(network)
    found = small.gradients(network)
    np.testing.assert_allclose(found, 1 / np.sqrt(found.size), rtol=1e-5)


@pytest.mark.parametrize("limit", [1e-20, 1.0, 3.0, 1e20, 1e39])
def test_max_norm(backend, limit):
    network = with_arrays(backend, SIZES, kind="")
    before = [backend.to_numpy(la.W).astype(float) for la in network.layers if la.shapes]
    dl.MaxNorm(limit).weights(network)
    after = [backend.to_numpy(la.W) for la in network.layers if la.shapes]
    for w, found in zip(before, after, strict=True):
        norm = np.sqrt(np.square(w).sum(axis=-2, keepdims=True))
        np.testing.assert_allclose(found, w * np.minimum(1, limit / norm), rtol=2e-5, atol=2e-44)


def test_ordinary_numbers_keep_their_bits():
    """What clipping and max-norm did before: the plain formulas, bit for bit."""
    sizes = [1e-8, 1e-3, 1.0, 30.0, 1e4]
    network = with_arrays(dl.get_backend("numpy"), sizes)
    views = [getattr(network.layers[s.layer], "d" + s.name) for s in network.slots]
    squares = sum((g * g).sum(axis=(-2, -1)) for g in views)
    scale = np.minimum(2.5 / np.sqrt(np.maximum(squares, 1e-30)), 1.0)
    expected = [(g * scale.reshape(-1, 1, 1)).tobytes() for g in views]
    dl.clip_by_global_norm(2.5).gradients(network)
    assert [g.tobytes() for g in views] == expected
    w = with_arrays(dl.get_backend("numpy"), sizes, kind="").layers[0].W
    norm = np.sqrt((w * w).sum(axis=-2, keepdims=True))
    expected = (w * (0.7 / np.maximum(norm, 0.7))).tobytes()
    norms.shrink(np, [(w, (-2,))], 0.7)
    assert w.tobytes() == expected


def test_norm_of_not_a_number():
    """NaN and infinity stay in their own replica, and stay bad."""
    network = with_arrays(dl.get_backend("numpy"), [1.0, 1.0, 1.0])
    network.layers[0].dW[0, 0, 0] = np.nan
    network.layers[0].dW[1, 0, 0] = np.inf
    calm = small.gradients(network, 2).copy()
    dl.clip_by_global_norm(1e6).gradients(network)
    assert np.isnan(small.gradients(network, 0)).any()
    assert not np.isfinite(small.gradients(network, 1)).all()
    assert small.gradients(network, 2).tobytes() == calm.tobytes()


# Activations ----------------------------------------------------------------------------------

EXTREMES = [0.0, 1e-40, 1e-20, 1.0, 9.0, 15.0, 40.0, 90.0, 1e3, 1e7, 2e8, 1e13, 1e20, 1e30, 3e38]


@pytest.mark.parametrize("kind", sorted(small.subclasses(Activation), key=lambda c: c.__name__))
def test_activations(kind):
    """Values to a rounding error of 1 or of themselves, slopes to one of 1, from one end to the other."""
    z = np.float32([*EXTREMES, *(-e for e in EXTREMES[1:])])
    layer = kind()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = layer.value(z)
        slope = 1.0 * layer.derivative(z, value)
    wide = z.astype(float)
    with np.errstate(all="ignore"):
        expected = layer.value(wide)
        expected_slope = 1.0 * layer.derivative(wide, expected)
    fits = np.abs(expected) <= MAX
    np.testing.assert_allclose(value[fits], expected[fits], rtol=1e-6, atol=3e-7)
    np.testing.assert_allclose(slope, expected_slope, atol=2e-6)


@pytest.mark.parametrize("kind", [dl.Swish, dl.GELU])
def test_slopes_far_out(kind):
    """1 on the right and 0 on the left, also where z + 1 is z."""
    for dtype in (np.float32, np.float64):
        z = np.array([1e3, 1e9, 1e20, 3e38], dtype)
        layer = kind()
        np.testing.assert_array_equal(layer.derivative(z, layer.value(z)), 1)
        np.testing.assert_array_equal(layer.derivative(-z, layer.value(-z)), 0)


# Batch norm and LSUV --------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
def test_batch_norm(size, epsilon):
    """Output, running statistics and gradient; those that do not fit are infinite."""
    x = (np.float32(size) * RNG.standard_normal((2, 200, 3))).astype(np.float32)
    dy = RNG.standard_normal(x.shape).astype(np.float32)
    found = {}
    for dtype in ("float32", "float64"):
        layers = [dl.BatchNorm(3, epsilon=epsilon)]
        layer = dl.Network(layers, range(2), dl.get_backend("numpy", dtype)).layers[0]
        layer.needs_dx = True
        y = layer.forward(x.astype(dtype), True)
        dx = layer.backward(dy.astype(dtype))
        found[dtype] = y, dx, layer.running_mean, layer.running_var, layer.dgamma
    if epsilon == 0 and size < 1e-19:
        return  # squares below the smallest number: nothing divides by them but with epsilon
    for name, narrow, wide in zip(
        ["y", "dx", "mean", "var", "dgamma"], *found.values(), strict=True
    ):
        scale = np.abs(wide).max() if name != "var" else 1.0
        fits, room = np.abs(wide) <= MAX, 1e-5 * scale + 1e-44
        np.testing.assert_allclose(narrow[fits], wide[fits], rtol=1e-4, atol=room, err_msg=name)
        assert np.isinf(narrow[~fits]).all(), name


def test_batch_norm_of_equal_huge_rows():
    layer = dl.Network([dl.BatchNorm(2)], 0, "numpy").layers[0]
    y = layer.forward(np.full((100, 2), 3e38, np.float32), True)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_allclose(layer.running_mean, 3e37, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e15, 1e25, 1e32])
def test_lsuv(size):
    """Inputs of any size: outputs of variance 1."""
    x = np.float32(size) * RNG.standard_normal((300, 6)).astype(np.float32)
    network = dl.Network(dl.mlp([6, 5, 4, 3]), range(2), "numpy")
    reached = dl.initializers.lsuv(network, x)
    np.testing.assert_allclose(reached, 1, atol=0.1)


def test_lsuv_scales_beyond_float32_are_not_silent():
    x = 1e-42 * np.abs(RNG.standard_normal((300, 6)))
    network = dl.Network(dl.mlp([6, 5, 4, 3]), 0, "numpy")
    with pytest.raises(ValueError, match="x: expected outputs of layer 0 that vary"):
        dl.initializers.lsuv(network, x)


# Optimizers -----------------------------------------------------------------------------------

KINDS = [dl.SGD, dl.Momentum, dl.Nesterov, dl.AdaGrad, dl.RMSProp, dl.Adam, dl.AdamW, dl.NAdam]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_directions(kind, size):
    """Three steps in float32 and in float64, wherever the state fits; else it is infinite."""
    results = {}
    for dtype in ("float32", "float64"):
        optimizer = kind()
        optimizer.xp, optimizer.t = np, 0
        state = [np.zeros(50, dtype) for _ in optimizer.state]
        directions = []
        with np.errstate(all="ignore"):
            for step in range(3):
                g = np.random.default_rng(step).standard_normal(50).astype(np.float32)
                optimizer.advance()
                u = optimizer.direction((np.float32(size) * g).astype(dtype), *state)
                directions.append(np.array(u))
        results[dtype] = directions, state
    (narrow, state), (wide, wide_state) = results.values()
    fit = (
        np.all([np.abs(s) <= MAX for s in wide_state], axis=0) if wide_state else np.ones(50, bool)
    )
    for found, expected in zip(narrow, wide, strict=True):
        np.testing.assert_allclose(found[fit], expected[fit], rtol=2e-4, atol=1e-30)
    for s, ws in zip(state, wide_state, strict=True):
        assert np.isinf(s[np.abs(ws) > MAX]).all()


def test_first_step_of_adam_at_2e19():
    """v = 0.001 g² fits, but v / 0.001 does not: the step was 0 and is now one learning rate."""
    optimizer = dl.Adam()
    optimizer.xp, optimizer.t = np, 1
    g = np.float32([2e19, 5e20, -1e20, 1.0])
    u = optimizer.direction(g, np.zeros(4, np.float32), np.zeros(4, np.float32))
    np.testing.assert_allclose(u, np.sign(g), rtol=1e-6)


class Spike:
    """A regularizer that makes one replica's gradient huge at one step."""

    def __init__(self, size, replica=1):
        self.size, self.replica, self.seen = size, replica, 0

    def gradients(self, network):
        self.seen += 1
        if self.seen == 3:
            network.layers[0].dW[self.replica, 0, 0] = self.size


@pytest.mark.parametrize("kind", [dl.AdaGrad, dl.RMSProp, dl.Adam, dl.NAdam])
def test_infinite_moments_mark_the_replica(kind):
    """The loss stays finite, for an infinite moment only stops the weight: it stood still unseen."""
    network = dl.Network(dl.mlp([6, 5, 3]), range(3), "numpy")
    calm = dl.Network(dl.mlp([6, 5, 3]), [0, 2], "numpy")
    history = dl.fit(network, small.blobs(), kind, lr=0.01, epochs=3, batch_size=20,
                     regularizers=Spike(1e25))  # fmt: skip
    dl.fit(calm, small.blobs(), kind, lr=0.01, epochs=3, batch_size=20)
    assert history.diverged.tolist() == [False, True, False]
    assert np.isinf(history.train_loss[1]).all()
    assert not small.parameters(network, 1).any()
    for r, own in ((0, 0), (2, 1)):
        assert small.parameters(network, r).tobytes() == small.parameters(calm, own).tobytes()


@pytest.mark.parametrize("name", ["double", "numpy"])
def test_infinite_bias_of_a_dead_unit_marks_the_replica(name):
    """Behind a ReLU minus infinity is a zero: no loss tells."""
    backend = dl.Backend("double", double.xp) if name == "double" else dl.get_backend("numpy")

    class Kill:
        def weights(self, network):
            network.layers[0].b[1, 0, 0] = -np.inf

    network = dl.Network(dl.mlp([6, 5, 3]), range(3), backend)
    history = dl.fit(network, small.blobs(), dl.SGD, lr=0.01, epochs=1, regularizers=Kill())
    assert history.diverged.tolist() == [False, True, False]


def test_infinite_running_variance_marks_the_replica():
    """In prediction it makes every output the same; in training nothing shows."""
    layers = [dl.Dense(6, 5), dl.BatchNorm(5), dl.ReLU(), dl.Dense(5, 3)]
    network = dl.Network(layers, range(2), "numpy")
    network.layers[0].W[1] *= np.float32(1e22)
    history = dl.fit(network, small.blobs(), dl.SGD, lr=0.0, epochs=1)
    assert history.diverged.tolist() == [False, True]


def test_what_was_infinite_before_is_no_divergence():
    """A bias of minus infinity takes a class out, on purpose."""
    data = small.blobs(classes=3)
    network = dl.Network(dl.mlp([6, 5, 4]), range(2), "numpy")
    network.layers[-1].b[:, 0, 3] = -np.inf
    history = dl.fit(network, data, lr=0.01, epochs=3)
    assert not history.diverged.any()
    assert np.isfinite(history.train_loss).all()
    assert np.isneginf(network.layers[-1].b[:, 0, 3]).all()


# Rows without number --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2**18, 3), (2, 2**18, 3)], ids=str)
def test_means_over_many_rows(shape):
    """Relative errors stay far below a thousandth: losses, biases' gradients and batch statistics."""
    y = np.full(shape, 0.1, np.float32)
    value, _ = dl.MeanSquaredError()(y, np.zeros(shape[-2:], np.float32))
    np.testing.assert_allclose(value, 0.01, rtol=1e-4)
    seeds = range(2) if len(shape) == 3 else 0
    norm = dl.Network([dl.BatchNorm(3, momentum=1.0)], seeds, "numpy").layers[0]
    norm.forward(y + np.arange(3, dtype=np.float32), True)
    np.testing.assert_allclose(norm.running_mean.reshape(-1, 3)[0], [0.1, 1.1, 2.1], rtol=1e-3)
    dense = dl.Network([dl.Dense(3, 3)], seeds, "numpy").layers[0]
    dense.forward(y, True)
    dense.backward(np.full(shape, 1 / shape[-2], np.float32))
    np.testing.assert_allclose(dense.db, 1, rtol=1e-3)
    image = y.reshape(*shape[:-2], 64, -1, 64, 3)  # batch, height, width, channels
    convolution = dl.Network([dl.Conv2D(3, 3, 1)], seeds, "numpy").layers[0]
    convolution.forward(image, True)
    convolution.backward(np.full(image.shape, 1 / shape[-2], np.float32))
    np.testing.assert_allclose(convolution.db, 1, rtol=1e-3)


def test_rows_beyond_which_float32_stops():
    """A float32 sum of ones, row by row, ends at 2**24."""
    rows = np.broadcast_to(np.ones((1, 2), np.float32), (2**24 + 2**20, 2))
    total = np.zeros((1, 2), np.float32)
    norms.sum_rows(rows, total)
    np.testing.assert_array_equal(total, 2**24 + 2**20)
    np.testing.assert_array_equal(norms.mean_rows(rows), 1)
    narrow = np.full((2**19, 2), 0.1, np.float32)
    size, power = norms.norm(np, [(narrow, (-2,))])
    np.testing.assert_allclose(size / power, 0.1 * np.sqrt(2**19), rtol=1e-6)
