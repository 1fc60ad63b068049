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
    assert len(ax.lines) == 3
    assert not any(c.get_paths() for c in ax.collections[1::2])  # of intervals without neighbours
    assert texts(ax) == ["a", "b", "c"]
    assert ax.get_yscale() == ("log" if log else "linear")
    one = np.log(data[1]) if log else data[1]
    back = np.exp if log else np.asarray
    np.testing.assert_allclose(ax.lines[1].get_ydata(), back(one.mean("seed")))
    low, high = stats.t.interval(0.95, 4, one.mean("seed"), stats.sem(one, axis=0))
    outline = ax.collections[2].get_paths()[0].vertices
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


@pytest.mark.parametrize("i", [0, 6, 7, 30, 500])
def test_no_two_arms_look_the_same(i):
    looks = {tuple(plots.arm_style(k).values()) for k in range(i + 1)}
    assert len(looks) == i + 1
    assert plots.arm_style(i)["color"] in plots.COLORS


@pytest.mark.parametrize("n", [1, 7, 8, 9, 20, 60])
def test_any_number_of_arms(n):
    names = [f"arm {i}" for i in range(n)]
    ax = plots.trajectories(np.random.default_rng(0).random((n, 4, 2)), names=names)
    for drawn in (ax, plots.bands(results(EPOCHS, hue=names), "epoch", "kind")):
        assert texts(drawn) == names
        looks = {(x.get_color(), x.get_marker(), str(x._dash_pattern)) for x in drawn.lines}
        assert len(looks) == n
    ax = plots.lr_sensitivity(results(RATES, hue=names), "kind", better="higher")
    assert [x.get_color() for x in ax.lines[n:]] == [x.get_color() for x in ax.lines[:n]]
    plots.layers(results(("layer", [1, 2]), hue=names), "kind", runs=True)


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("valid_accuracy", "higher"),
        ("test_loss", "lower"),
        ("Accuracy (%)", "higher"),
        ("error rate", "lower"),
        ("seconds", "lower"),
    ],
)
def test_the_name_tells_which_way_is_better(name, better):
    data = results(RATES).rename(name)
    mean = data.mean("seed")
    best = mean.max("lr") if better == "higher" else mean.min("lr")
    stars = plots.lr_sensitivity(100 * data, "kind").lines[3:]
    np.testing.assert_allclose([s.get_ydata()[0] for s in stars], 100 * best)
    turned = plots.lr_sensitivity(-data, "kind", better="lower").lines[3:]
    np.testing.assert_allclose([s.get_ydata()[0] for s in turned], -mean.max("lr"))


@pytest.mark.parametrize("name", [None, "radius", "accuracy_loss", "lossless"])
def test_unknown_ways_are_refused(name):
    with pytest.raises(ValueError, match="better: expected 'higher' or 'lower'"):
        plots.lr_sensitivity(results(RATES).rename(name), "kind")


def test_a_negated_loss_tells_nothing():
    with pytest.raises(ValueError, match="negative values may have been turned round"):
        plots.lr_sensitivity(-results(RATES), "kind")


def test_stars_need_all_runs_of_a_rate():
    """At the largest rate only the luckiest run is left: its mean is no best mean."""
    data = results(RATES).rename("loss")
    data[:, 1:, 2] = np.nan
    data[:, 0, 2] = 1e-9
    stars = plots.lr_sensitivity(data, "kind").lines[3:]
    assert all(s.get_xdata()[0] < 1.0 for s in stars)
    data[0] = np.nan  # an arm without values has none, and is named all the same
    ax = plots.lr_sensitivity(data, "kind")
    assert len(ax.lines) == 3 + 2
    assert texts(ax) == ["a", "b", "c"]


@pytest.mark.parametrize("log", [False, True])
def test_bands_use_the_values_that_there_are(log):
    data = results(EPOCHS, seeds=6)
    data[0, 3:, 2:] = np.nan  # half of the runs stopped early
    data[0, 1:, 3] = np.nan  # and all but one before the end
    mean, low, high = plots.mean_band(data[0])
    for k, n in enumerate((6, 6, 3, 1)):
        x = data[0, :n, k].values
        assert mean[k] == pytest.approx(x.mean())
        if n > 1:
            own = dl.interval(x)
            assert (low[k], high[k]) == pytest.approx((own.low, own.high))
    assert np.isnan(low[3])
    assert np.isnan(high[3])
    ax = plots.bands(data, "epoch", "kind", log=log)
    assert [t.get_text() for t in ax.texts] == ["no band where there is one seed"]
    assert len(ax.lines[0].get_xdata()) == 4


def test_curves_of_other_lengths_from_a_sweep():
    import small

    stop = dl.EarlyStopping(patience=2)
    found = dl.sweep(
        dl.mlp([6, 5, 3]), small.blobs(), seeds=4, lr=[0.001, 0.3], epochs=12, early_stopping=stop,
        backend="numpy",
    )  # fmt: skip
    loss = found.valid_loss
    assert loss.isnull().any()
    _, low, high = plots.mean_band(loss)
    n = loss.notnull().sum("seed")
    for lr in found.lr.values:
        for epoch in found.epoch.values:
            x = loss.sel(lr=lr, epoch=epoch).dropna("seed").values
            if n.sel(lr=lr, epoch=epoch) > 1:
                own = dl.interval(x)
                ends = float(low.sel(lr=lr, epoch=epoch)), float(high.sel(lr=lr, epoch=epoch))
                assert ends == pytest.approx((own.low, own.high))
    ax = plots.lr_sensitivity(loss)  # each run's last record, not that of the longest
    last = [loss.sel(lr=lr).dropna("seed", how="all") for lr in found.lr.values]
    ends = [np.mean([run.dropna("epoch").values[-1] for run in one]) for one in last]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), ends)


@pytest.mark.parametrize("log", [False, True])
def test_a_single_seed_is_said(log):
    ax = plots.bands(results(EPOCHS, 1), "epoch", "kind", log=log)
    assert [t.get_text() for t in ax.texts] == ["no band where there is one seed"]
    assert all(np.isnan(c.get_paths()[0].vertices).all() for c in ax.collections if c.get_paths())
    assert not plots.bands(results(EPOCHS, 2), "epoch", "kind").texts


@pytest.mark.parametrize("log", [False, True])
def test_diverged_runs_leave_a_gap_and_are_said(log):
    data = results(EPOCHS)
    data[0, 0, 2:] = np.inf
    data[1] = np.inf
    data[2] = np.nan
    ax = plots.bands(data, "epoch", "kind", log=log)
    assert np.isfinite(ax.lines[0].get_ydata()).tolist() == [True, True, False, False]
    assert not np.isfinite(ax.lines[1].get_ydata()).any()
    assert texts(ax) == ["a", "b", "c"]
    assert [t.get_text() for t in ax.texts] == ["infinite means are not drawn"]
    plots.bands(data, "epoch", "kind", log=log, runs=True)
    plots.lr_sensitivity(data.rename(epoch="lr"), "kind")


def test_zero_and_negative_values_on_logarithmic_axes():
    data = results(("layer", [1, 2, 3]))
    data[0, 1, 1] = 0  # one dead layer: the geometric mean is 0
    ax = plots.layers(data, "kind")
    assert np.isfinite(ax.lines[0].get_ydata()).tolist() == [True, False, True]
    assert [t.get_text() for t in ax.texts] == ["means of 0 are not drawn"]
    data[0, 0, 0] = -1
    with pytest.raises(ValueError, match=r"data: expected values >= 0 for a logarithmic axis"):
        plots.layers(data, "kind")


@pytest.mark.parametrize("dtype", ["complex64", "timedelta64[s]", "datetime64[s]", "U3", object])
def test_values_that_are_no_numbers_are_refused(dtype):
    data = results(RATES).astype("int64").astype(dtype)
    data = xr.full_like(data, "a", object) if dtype is object else data
    for draw in (plots.bands, lambda d, x: plots.mean_band(d)):
        with pytest.raises(ValueError, match="expected numbers"):
            draw(data[0], "lr")


def test_masked_values_and_truth_values():
    whole = results(EPOCHS)[0]
    masked = whole.copy(data=np.ma.masked_greater(whole.values, 1.0))  # xarray makes NaN of them
    mean, _, _ = plots.mean_band(masked)
    np.testing.assert_allclose(mean, np.ma.masked_greater(whole.values, 1.0).mean(axis=0))
    ax = plots.bands(whole > 1, "epoch")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), (whole > 1).mean("seed"))


def test_too_many_dimensions_and_equal_labels():
    with pytest.raises(ValueError, match=r"data: expected dimensions \('epoch', 'seed'\)"):
        plots.bands(results(EPOCHS), "epoch")
    twice = results(EPOCHS).assign_coords(kind=["a", "a", "b"])
    ax = plots.bands(twice, "epoch", "kind")
    np.testing.assert_allclose(ax.lines[1].get_ydata(), twice[1].mean("seed"))


def test_paths_that_leave_the_plane():
    paths = np.random.default_rng(0).standard_normal((3, 5, 2))
    paths[1, 2:] = np.inf
    paths[2] = np.nan
    surface = dl.datasets.rosenbrock()
    ax = plots.trajectories(paths, surface, names=list("abc"))
    assert np.isfinite(ax.lines[1].get_xydata()).all(axis=1).tolist() == [True, True] + 3 * [False]
    plots.trajectories(1e200 * paths, surface, names=list("abc"))
    plots.trajectories(np.full((1, 3, 2), np.nan), surface, names=["a"])


def test_drawing_changes_neither_settings_nor_data_nor_other_axes():
    (_, mine), (_, other) = plt.subplots(), plt.subplots()
    data, kept, settings = results(RATES), results(RATES), dict(mpl.rcParams)
    plots.lr_sensitivity(data, "kind", ax=mine)
    plots.bands(data, "lr", "kind", ax=mine, log=True)
    plots.trajectories(np.zeros((2, 3, 2)), names=["a", "b"], ax=mine)
    assert plt.gca() is other
    assert not other.lines
    assert dict(mpl.rcParams) == settings
    xr.testing.assert_identical(data, kept)


@pytest.mark.parametrize("log", [False, True])
def test_an_interval_without_neighbours_is_seen(log):
    """A band of one place has no area: it is drawn as a line."""
    data = results(EPOCHS)[0]
    data[1:, [0, 2]] = np.nan  # intervals at epochs 2 and 4 only, none beside them
    ax = plots.bands(data, "epoch", log=log)
    drawn = [path.vertices for path in ax.collections[1].get_paths()]
    assert [float(v[0, 0]) for v in drawn] == [2.0, 4.0]
    _, low, high = plots.mean_band(np.log(data) if log else data)
    back = np.exp if log else np.asarray
    np.testing.assert_allclose(drawn[0][:, 1], [back(low)[1], back(high)[1]])
    ax = plots.bands(results(("epoch", [7])), "epoch", "kind", log=log)  # one record
    assert [len(c.get_paths()) for c in ax.collections[1::2]] == [1, 1, 1]
