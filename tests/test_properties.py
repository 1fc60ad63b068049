"""What holds for any shape, number of replicas and dtype: drawn by hypothesis, the same each time."""

import math

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as s

import dlcore as dl
from dlcore import datasets, gradcheck, schedules, statistics
from dlcore.activations import Activation
from dlcore.layers import Layer

pytestmark = pytest.mark.thorough

#: The same examples in each run, and no limit to the time of one: a busy machine is no failure.
steady = settings(derandomize=True, deadline=None, database=None, max_examples=60)
few = settings(steady, max_examples=20)

sizes, seeds = s.integers(1, 5), s.lists(s.integers(0, 1000), min_size=1, max_size=4)
dtypes = s.sampled_from(["float32", "float64"])
ACTIVATIONS = sorted(small.subclasses(Activation), key=lambda c: c.__name__)
OPTIMIZERS = sorted(small.subclasses(dl.Optimizer), key=lambda c: c.__name__)
LOSSES = (dl.SoftmaxCrossEntropy, dl.BinaryCrossEntropy, dl.MeanSquaredError)
#: name -> (layer of sizes a and b, shape of an input with batch n)
LAYERS = {
    "Dense": lambda n, a, b: (dl.Dense(a, b, bias=0.1), (n, a)),
    "Flatten": lambda n, a, b: (dl.Flatten(2), (n, a, b)),
    "BatchNorm": lambda n, a, b: (dl.BatchNorm(a), (n + 1, a)),
    "BatchNorm of images": lambda n, a, b: (dl.BatchNorm(a, images=True), (n, 2, b, a)),
    "Dropout": lambda n, a, b: (dl.Dropout(0.4), (n, a)),
    "GaussianNoise": lambda n, a, b: (dl.GaussianNoise(0.5), (n, a, b)),
    "SimpleRNN": lambda n, a, b: (dl.SimpleRNN(a, b), (n, 3, a)),
    "Conv2D": lambda n, a, b: (dl.Conv2D(a, b, 2, padding=1), (n, b, 3, a)),
    "Conv2D strided": lambda n, a, b: (dl.Conv2D(a, 2, (1, 2), stride=2), (n, a + 1, b + 1, a)),
    "MaxPool2D": lambda n, a, b: (dl.MaxPool2D((1, 2)), (n, a, b + 1, 2)),
}


def test_every_layer_and_loss_is_here():
    made = {type(make(1, 2, 2)[0]) for make in LAYERS.values()}
    assert made | set(ACTIVATIONS) == small.subclasses(Layer) - {Activation}


def normal(*shape, dtype="float64", seed=0):
    """Normal numbers at least 0.01 away from zero, where some activations have a kink."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x + 0.01 * np.sign(x)).astype(dtype)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def through(layer, x, own, dtype):
    """Return output, gradient of the input and of the parameters of one pass in training."""
    net = dl.Network([layer], own, dl.get_backend("numpy", dtype))
    one = net.layers[0]
    one.needs_dx = True
    y = net.forward(x, training=True)
    dy = np.cos(np.arange(math.prod(y.shape[len(net.streams.shape) :])))
    dy = np.broadcast_to(dy.astype(dtype).reshape(y.shape[len(net.streams.shape) :]), y.shape)
    dx = one.backward(np.ascontiguousarray(dy))
    return [y, dx, *(getattr(one, "d" + name) for name in one.shapes)]


def check_replicas(make, n, a, b, own, dtype):
    layer, shape = make(n, a, b)
    x = normal(len(own), *shape, dtype=dtype)
    together = through(layer, x, own, dtype)
    for r, seed in enumerate(own):
        alone = through(layer, x[r], seed, dtype)
        assert all(same(t[r], one) for t, one in zip(together, alone, strict=True))
        assert {one.dtype for one in alone} == {np.dtype(dtype)}


@pytest.mark.parametrize("name", LAYERS)
@steady
@given(n=sizes, a=sizes, b=sizes, own=seeds, dtype=dtypes)
def test_layer_replica_equals_alone(name, n, a, b, own, dtype):
    with dl.backend.one_blas_thread():
        check_replicas(LAYERS[name], n, a, b, own, dtype)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@steady
@given(n=sizes, a=sizes, own=seeds, dtype=dtypes)
def test_activation_replica_equals_alone(kind, n, a, own, dtype):
    check_replicas(lambda n, a, b: (kind(), (n, a)), n, a, 1, own, dtype)


@pytest.mark.parametrize("name", LAYERS)
@few
@given(n=s.integers(1, 3), a=s.integers(1, 3), b=s.integers(1, 3), own=s.none() | seeds)
def test_layer_gradient(name, n, a, b, own):
    layer, shape = LAYERS[name](n, a, b)
    lead = () if own is None else (len(own[:2]),)
    errors = gradcheck.check_layer(layer, normal(*lead, *shape), 0 if own is None else own[:2])
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("kind", ACTIVATIONS)
@steady
@given(n=sizes, a=sizes, own=s.none() | seeds, size=s.sampled_from([0.1, 1, 5]))
def test_activation_gradient(kind, n, a, own, size):
    x = normal(*(() if own is None else (len(own),)), n, a)
    x = np.where(abs(size * x) < 1e-3, 1e-3, size * x)
    assert max(gradcheck.check_layer(kind(), x, own or 0).values()) < 1e-6


def target_of(loss, shape, classes, seed=3):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(classes, size=shape)
        if loss.kind == "labels"
        else rng.random((*shape, classes))
    )


@pytest.mark.parametrize("loss", LOSSES)
@steady
@given(
    n=sizes, classes=sizes, replicas=s.integers(1, 4), dtype=dtypes, size=s.sampled_from([1, 30])
)
def test_loss(loss, n, classes, replicas, dtype, size):
    """Replica by replica, of the right type, and its gradient by differences."""
    y = size * normal(replicas, n, classes, dtype=dtype)
    target = target_of(loss, (replicas, n), classes)
    target = target if loss.kind == "labels" else target.astype(dtype)
    value, dy = loss()(y, target)
    assert value.shape == (replicas,)
    assert value.dtype == dy.dtype == np.dtype(dtype)
    for r in range(replicas):
        alone, its_dy = loss()(y[r], target[r])
        assert same(value[r], alone)
        assert same(dy[r], its_dy)
    assert (value >= 0).all()
    assert gradcheck.check_loss(loss(), normal(replicas, n, classes), target) < 1e-6


@pytest.mark.parametrize("kind", OPTIMIZERS)
@steady
@given(a=sizes, b=sizes, own=seeds, dtype=dtypes, decay=s.sampled_from([0.0, 0.1]), data=s.data())
def test_optimizer_replica_equals_alone(kind, a, b, own, dtype, decay, data):
    rates = data.draw(s.lists(s.floats(1e-4, 0.5), min_size=len(own), max_size=len(own)))
    together = stepped(kind, a, b, own, dtype, rates, decay)
    for r, seed in enumerate(own):
        alone = stepped(kind, a, b, seed, dtype, [rates[r]], decay)
        assert same(small.parameters(together, r), small.parameters(alone))
    assert together.parameters.dtype == np.dtype(dtype)
    assert np.isfinite(together.parameters).all()


def stepped(kind, a, b, own, dtype, rates, decay):
    """A net after three steps, with one gradient for all replicas in each."""
    net = dl.Network([dl.Dense(a, b)], own, dl.get_backend("numpy", dtype))
    bound, layer = kind().bind(net), net.layers[0]
    lr = np.array(rates, dtype)
    decays = np.append(lr * decay, 0).astype(dtype) if decay else None
    for k in range(3):
        layer.dW[...], layer.db[...] = normal(a, b, seed=k), normal(1, b, seed=k)
        bound.step(lr, decays)
    return net


@pytest.mark.parametrize("kind", OPTIMIZERS)
@steady
@given(a=sizes, b=sizes, own=seeds, dtype=dtypes, scale=s.sampled_from([0.0, 1e-30, 1e-3, 1e3]))
def test_optimizer_stays_finite_and_goes_downhill(kind, a, b, own, dtype, scale):
    """Zero and tiny gradients divide by nothing; the first step goes against the gradient."""
    net = dl.Network([dl.Dense(a, b)], own, dl.get_backend("numpy", dtype))
    before = net.parameters.copy()
    net.gradients[...] = scale
    kind().bind(net).step(np.full(len(own), 0.01, dtype))
    assert np.isfinite(net.parameters).all()
    assert (net.parameters <= before).all()
    assert scale > 0 or same(net.parameters, before)


# Statistics ----------------------------------------------------------------------------------

values = s.lists(s.floats(-100, 100), min_size=2, max_size=12)
levels = s.floats(0.5, 0.999)


@steady
@given(x=values, level=levels, shift=s.floats(-10, 10), scale=s.floats(0.1, 10))
def test_interval(x, level, shift, scale):
    """It holds the mean, grows with the level, ignores order, and moves with shift and scale."""
    i = statistics.interval(x, level)
    assert i.low <= i.mean <= i.high
    assert i.n == len(x)
    wider = statistics.interval(x, (1 + level) / 2)
    assert wider.low <= i.low
    assert i.high <= wider.high
    moved = statistics.interval(shift + scale * np.array(x[::-1]), level)
    expected = [shift + scale * v for v in (i.mean, i.low, i.high)]
    assert [moved.mean, moved.low, moved.high] == pytest.approx(expected, abs=1e-6)


@steady
@given(
    pairs=s.lists(s.tuples(s.floats(0.01, 100), s.floats(0.01, 100)), min_size=6, max_size=12),
    level=s.floats(0.5, 0.95),
    median=s.booleans(),
)
def test_ratio(pairs, level, median):
    """a / b and b / a are reciprocals; the interval is positive and holds its middle."""
    a, b = np.array(pairs).T
    there = statistics.ratio(a, b, level, median)
    back = statistics.ratio(b, a, level, median)
    assert 0 < there.low <= there.mean <= there.high
    assert [back.low, back.high] == pytest.approx([1 / there.high, 1 / there.low])
    assert statistics.ratio(3 * a, b, level, median).low == pytest.approx(3 * there.low)


@steady
@given(n=s.integers(1, 200), share=s.floats(0, 1), level=levels)
def test_wilson(n, share, level):
    """Inside [0, 1], around the share, mirrored with the failures."""
    k = round(share * n)
    i, mirrored = statistics.wilson(k, n, level), statistics.wilson(n - k, n, level)
    assert 0 <= i.low <= k / n <= i.high <= 1
    assert i.low < i.high
    assert [mirrored.low, mirrored.high] == pytest.approx([1 - i.high, 1 - i.low])


@steady
@given(rows=s.integers(1, 4), columns=s.integers(1, 8), data=s.data())
def test_steps_to_target(rows, columns, data):
    """The first record at the target, or budget + 1; a higher target never comes sooner."""
    curve = np.array(
        data.draw(s.lists(s.floats(0, 1), min_size=rows * columns, max_size=rows * columns))
    )
    curve, at = curve.reshape(rows, columns), np.cumsum(np.arange(1, columns + 1))
    low, high = sorted(data.draw(s.tuples(s.floats(0, 1), s.floats(0, 1))))
    found = statistics.steps_to_target(curve, low, at)
    later = statistics.steps_to_target(curve, high, at)
    assert (found.values <= later.values).all()
    assert 0 <= later.reached <= found.reached <= 1
    for row, steps in zip(curve, found.values, strict=True):
        hits = at[row >= low]
        assert steps == (hits[0] if len(hits) else found.budget + 1)


# Data ----------------------------------------------------------------------------------------


def images_of(data):
    return [
        {x.tobytes() for x in getattr(data, f"x_{part}")} for part in ("train", "valid", "test")
    ]


@few
@given(
    seed=s.integers(0, 1000), train=s.integers(1, 20), valid=s.integers(0, 8), test=s.integers(0, 8)
)
def test_splits_of_digits_are_disjoint_and_balanced(seed, train, valid, test):
    data = datasets.digits(seed, train=10 * train, valid=10 * valid, test=10 * test)
    a, b, c = images_of(data)
    assert (len(a), len(b), len(c)) == (10 * train, 10 * valid, 10 * test)  # no image twice
    assert not a & b | a & c | b & c
    for y, each in ((data.y_train, train), (data.y_valid, valid), (data.y_test, test)):
        assert np.bincount(y, minlength=10).tolist() == [each] * 10
    assert abs(data.x_train.mean()) < 1e-3
    assert abs(data.x_train.std() - 1) < 1e-3


@few
@given(seed=s.integers(0, 1000), small_size=s.integers(1, 3), more=s.integers(0, 3))
def test_draws_of_mnist1d_are_disjoint(seed, small_size, more):
    """Of one seed: no example twice, and the same test part for another number of examples."""
    sizes = dict(valid=20, test=20)
    data = datasets.mnist1d(seed, train=10 * small_size, **sizes)
    a, b, c = images_of(data)
    assert len(a | b | c) == 10 * small_size + 40
    larger = datasets.mnist1d(seed, train=10 * (small_size + more), **sizes)
    order = np.corrcoef(data.x_test[0], larger.x_test[0])[0, 1]
    assert order == pytest.approx(1, abs=1e-5)  # standardised by other numbers


# Schedules -----------------------------------------------------------------------------------

length = s.floats(0.01, 1) | s.integers(1, 50)
rate, end = s.floats(0.01, 1), s.floats(0, 1)
SCHEDULES = {
    "constant": s.builds(schedules.constant),
    "piecewise": s.builds(schedules.piecewise, s.just((0.3, 0.6)), s.tuples(end, end, end)),
    "exponential": s.builds(schedules.exponential, rate, length),
    "inverse_time": s.builds(schedules.inverse_time, length, s.floats(0, 3)),
    "polynomial": s.builds(schedules.polynomial, s.floats(0, 3), end),
    "cosine": s.builds(schedules.cosine, end),
    "one_cycle": s.builds(schedules.one_cycle, s.floats(0.01, 0.99), end, end),
    "warmup": s.builds(schedules.warmup, length, s.builds(schedules.cosine, end)),
    "ReduceOnPlateau": s.builds(schedules.ReduceOnPlateau, s.floats(0.01, 0.99)),
}


def test_every_schedule_is_here():
    assert set(SCHEDULES) == {c.__name__ for c in small.subclasses(schedules.Schedule)}


@pytest.mark.parametrize("name", SCHEDULES)
@steady
@given(steps=s.integers(1, 60), replicas=s.integers(1, 3), data=s.data())
def test_schedule_stays_within_bounds(name, steps, replicas, data):
    """With factors up to 1 no schedule raises the rate above lr, or makes it negative."""
    begun = schedules.begin(data.draw(SCHEDULES[name]), replicas)
    factors = np.array([begun(k, steps) for k in range(steps)])
    assert np.isfinite(factors).all()
    assert (factors >= 0).all()
    assert (factors <= 1 + 1e-12).all()
    if name in ("exponential", "inverse_time", "polynomial", "cosine"):
        assert (np.diff(factors) <= 1e-12).all()
        assert factors[0] == 1
