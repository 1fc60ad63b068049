"""Device arrays where a user would pass them: losses, metrics, statistics, probes and plots."""

from __future__ import annotations

import double
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import dlcore as dl
from dlcore import backend as backends
from dlcore import statistics

mpl.use("agg")
DEVICE = dl.Backend("double", double.xp)
RNG = np.random.default_rng(3)
LOGITS = RNG.standard_normal((2, 5, 4)).astype("float32")
LABELS = RNG.integers(4, size=(2, 5))
TARGETS = RNG.random((2, 5, 4)).astype("float32")
LOSSES = {
    "softmax": (dl.SoftmaxCrossEntropy, LABELS),
    "softmax, shared labels": (dl.SoftmaxCrossEntropy, LABELS[0]),
    "logistic": (dl.BinaryCrossEntropy, TARGETS),
    "squares": (dl.MeanSquaredError, TARGETS),
}


def put(a):
    return DEVICE.asarray(a, a.dtype)


@pytest.mark.parametrize("made_for", ["nothing", "host", "device"])
@pytest.mark.parametrize(("loss", "target"), LOSSES.values(), ids=LOSSES)
def test_a_loss_takes_its_module_from_its_arguments(loss, target, made_for):
    """Also one that has been used elsewhere before: it remembers class numbers."""
    one = loss()
    if made_for == "host":
        one(LOGITS, target)
    if made_for == "device":
        one(put(LOGITS), put(target))
    expected = loss()(LOGITS, target)
    for got, due in zip(one(put(LOGITS), put(target)), expected, strict=True):
        assert isinstance(got, double.xp.ndarray)
        assert got.dtype == due.dtype
        np.testing.assert_array_equal(got.get(), due)
    for got, due in zip(one(LOGITS, target), expected, strict=True):
        np.testing.assert_array_equal(got, due)
    right = one.correct(put(LOGITS), put(target))
    np.testing.assert_array_equal(right.get(), loss().correct(LOGITS, target))


@pytest.mark.parametrize(("loss", "target"), LOSSES.values(), ids=LOSSES)
def test_a_loss_refuses_host_and_device_together(loss, target):
    """With the call that helps."""
    name = "labels" if loss is dl.SoftmaxCrossEntropy else "targets"
    for call in (loss(), loss().correct):
        with pytest.raises(
            TypeError, match=rf"{name}: expected .*backend\.asarray\({name}, dtype\)"
        ):
            call(put(LOGITS), target)
        with pytest.raises(TypeError, match=rf"{name}: expected .*backend\.to_numpy\({name}\)"):
            call(LOGITS, put(target))


@pytest.mark.parametrize("move", [put, lambda a: [put(v) for v in a]], ids=["array", "list"])
def test_statistics_take_device_arrays(move):
    a, b = RNG.random(12), RNG.random(12) + 1
    calls = [
        lambda t: statistics.interval(t(a)),
        lambda t: statistics.paired_difference(t(a), t(b)),
        lambda t: statistics.ratio(t(a), t(b)),
        lambda t: statistics.ratio(t(a), b, median=True),
        lambda t: dl.verdict("X1", "a claim", t(a), at_least=0.1),
        lambda t: dl.verdict("X1", "a claim", {"one": t(a), "two": t(b)}, at_least=0.1),
    ]
    for call in calls:
        assert str(call(move)) == str(call(np.asarray))


def test_statistics_take_device_arrays_of_two_axes():
    right = (RNG.random((2, 4, 30)) > 0.5).astype(float)
    images = np.stack([RNG.permutation(30) for _ in range(4)])
    expected = statistics.crossed_bootstrap(*right, images, resamples=100)
    assert statistics.crossed_bootstrap(*map(put, right), put(images), resamples=100) == expected
    curve, at = RNG.random((4, 6)), np.arange(1, 7)
    got = statistics.steps_to_target(put(curve), 0.5, put(at))
    np.testing.assert_array_equal(got.values, statistics.steps_to_target(curve, 0.5, at).values)


def labelled(move):
    values = move(RNG.random((3, 4)) + 0.5)
    return xr.DataArray(values, dims=("lr", "seed"), coords={"lr": [0.1, 0.2, 0.4]})


def test_plots_take_device_arrays():
    data = labelled(put)
    for ax in (
        dl.plots.bands(data, "lr"),
        dl.plots.bands(data, "lr", log=True, runs=True),
        dl.plots.lr_sensitivity(data, better="higher"),
        dl.plots.layers(data.rename(lr="layer")),
        dl.plots.trajectories(put(RNG.random((2, 5, 2))), names=["a", "b"]),
    ):
        assert ax.lines
        mpl.pyplot.close(ax.figure)
    mean, _, _ = dl.plots.mean_band(data)
    np.testing.assert_array_equal(mean, data.data.get().mean(-1))


def test_signals_take_device_arrays():
    net = dl.Network(dl.mlp([4, 3, 4]), range(2), DEVICE)
    found = [dl.probes.signals(net, t(LOGITS[0]), t(LABELS[0])) for t in (put, np.asarray)]
    assert found[0].equals(found[1])


def test_asarray_takes_what_is_on_the_device():
    x = put(LOGITS)
    with double.count() as c:
        assert double.xp.may_share_memory(DEVICE.asarray(x), x)
        assert DEVICE.asarray(x, np.float64).dtype == np.float64
    assert (c.to_device, c.to_host) == (0, 0)


DATES = np.array(["2026-11-30"], "datetime64[D]")  # whose attribute "data" raises


@pytest.mark.parametrize(
    "value", [None, 3, "a", [1.0], {"a": 1}, LOGITS, DATES, labelled(np.asarray)]
)
def test_what_is_on_the_host_stays_as_it_is(value):
    assert backends.to_host(value) is value
    assert not backends.on_device(value)
    assert backends.array_module(value) is np


def test_arrays_know_their_module():
    assert backends.array_module(put(LOGITS)) is double.xp
    assert backends.on_device(put(LOGITS))
    assert DEVICE.to_numpy({"a": 1}).dtype == object  # a dict has a method get, too
