import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from scipy import stats

mpl.use("Agg")

import matplotlib.pyplot as plt

import dlcore as dl
from dlcore import plots


@pytest.fixture(autouse=True)
def figures():
    """The book's style inside, no figure left open after."""
    with mpl.rc_context():
        plots.use_style()
        yield
        plt.gcf().canvas.draw()
        plt.close("all")


def results(x, seeds=5, hue=("a", "b", "c"), positive=True):
    rng = np.random.default_rng(0)
    values = np.exp(rng.standard_normal((len(hue), seeds, len(x[1]))))
    coords = {"kind": list(hue), "seed": range(seeds), x[0]: list(x[1])}
    return xr.DataArray(values, coords, ("kind", "seed", x[0]), name="loss")


EPOCHS = ("epoch", [1, 2, 3, 4])
RATES = ("lr", [0.01, 0.1, 1.0])


def texts(ax):
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("log", [False, True])
def test_bands(log):
    data = results(EPOCHS)
    ax = plots.bands(data, "epoch", "kind", log=log)
    assert len(ax.lines) == len(ax.collections) == 3
    assert texts(ax) == ["a", "b", "c"]
    assert ax.get_yscale() == ("log" if log else "linear")
    one = np.log(data[1]) if log else data[1]
    back = np.exp if log else np.asarray
    np.testing.assert_allclose(ax.lines[1].get_ydata(), back(one.mean("seed")))
    low, high = stats.t.interval(0.95, 4, one.mean("seed"), stats.sem(one, axis=0))
    outline = ax.collections[1].get_paths()[0].vertices
    for k, epoch in enumerate(EPOCHS[1]):
        ys = outline[outline[:, 0] == epoch, 1]
        np.testing.assert_allclose([ys.min(), ys.max()], [back(low)[k], back(high)[k]], rtol=1e-6)
    colors = {line.get_color() for line in ax.lines}
    markers = {line.get_marker() for line in ax.lines}
    assert len(colors) == len(markers) == 3


def test_bands_without_hue_runs_and_own_axes():
    _, own = plt.subplots()
    data = results(EPOCHS)[0]
    assert plots.bands(data, "epoch", ax=own, runs=True, labels=["net"]) is own
    assert len(own.lines) == 1 + 5
    assert not own.collections
    assert texts(own) == ["net"]


def test_missing_ends_are_left_out():
    data = results(EPOCHS)
    data[0, :, 2:] = np.nan
    ax = plots.bands(data, "epoch", "kind")
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 4, 4]


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds(seeds):
    ax = plots.bands(results(EPOCHS, seeds), "epoch", "kind")
    assert len(ax.lines) == 3


def test_layers():
    ax = plots.layers(results(("layer", [1, 2, 3])), "kind", labels=["x", "y", "z"])
    assert ax.get_yscale() == "log"
    assert "layer" in ax.get_xlabel()
    assert texts(ax) == ["x", "y", "z"]


@pytest.mark.parametrize("hue", [None, "kind"])
def test_lr_sensitivity(hue):
    data = results(RATES)
    data = data if hue else data[0]
    ax = plots.lr_sensitivity(data, hue)
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "learning rate"
    curves = 3 if hue else 1
    stars = ax.lines[curves:]
    assert len(stars) == curves
    for group, star in zip(data if hue else [data], stars, strict=True):
        mean = group.mean("seed").values
        assert star.get_xdata()[0] == RATES[1][mean.argmin()]
        np.testing.assert_allclose(star.get_ydata(), mean.min())  # a loss: lower is better


def test_lr_sensitivity_takes_the_last_epoch():
    last = results(RATES)
    data = xr.concat([last * 0, last], "epoch")
    ax, expected = plots.lr_sensitivity(data, "kind"), plots.lr_sensitivity(last, "kind")
    for a, b in zip(ax.lines, expected.lines, strict=True):
        np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())


@pytest.mark.parametrize("surface", [None, dl.datasets.ravine(10.0)])
def test_trajectories(surface):
    paths = np.random.default_rng(0).standard_normal((2, 7, 2))
    ax = plots.trajectories(paths, surface, names=["sgd", "adam"])
    assert texts(ax) == ["sgd", "adam"]
    for line, path in zip(ax.lines, paths, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path)
    assert bool(ax.collections) == (surface is not None)


def test_style_is_set_and_only_on_request():
    assert mpl.rcParams["axes.grid"]
    assert plots.STYLE["axes.prop_cycle"].by_key()["color"] == list(plots.COLORS)
    assert len(set(plots.COLORS)) == len(set(plots.MARKERS)) == 7


def test_a_whole_sweep_can_be_drawn():
    import small

    found = dl.sweep(
        dl.mlp([6, 5, 5, 3]), small.blobs(), seeds=2, optimizer=[dl.SGD, dl.Adam],
        lr=dl.lr_grid(0.01, 1), epochs=2, probe=dl.probes.learning, backend="numpy",
    )  # fmt: skip
    plots.lr_sensitivity(found.valid_accuracy, "optimizer")
    ax = plots.layers(found.gradient_rms.isel(epoch=-1, lr=1), "optimizer")
    assert texts(ax) == ["SGD", "Adam"]
