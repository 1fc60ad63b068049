"""Intervals against reference values and by their coverage; verdicts at every boundary."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from dlcore.statistics import (
    MIME,
    Interval,
    Steps,
    crossed_bootstrap,
    interval,
    paired_difference,
    ratio,
    steps_to_target,
    two_way_difference,
    verdict,
    wilson,
)


def ends(i):
    return i.low, i.high


# --- interval and paired difference ---------------------------------------------------------


def test_interval_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302653, half-width 4.302653 / sqrt(3) = 2.484138
    i = interval([1, 2, 3])
    assert (i.mean, i.n, i.level) == (2.0, 3, 0.95)
    assert ends(i) == pytest.approx((-0.484138, 4.484138), abs=1e-6)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 1 - 0.05 / 7])
def test_interval_equals_scipy(level):
    x = np.random.default_rng(1).normal(3, 2, 17)
    expected = stats.ttest_1samp(x, 0).confidence_interval(level)
    assert ends(interval(x, level)) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_interval_along_an_axis_is_the_interval_of_each_line(axis):
    x = np.random.default_rng(2).normal(size=(4, 5, 6))
    i = interval(x, axis=axis)
    assert i.n == x.shape[axis]
    lines = np.moveaxis(x, axis, -1)
    for where in np.ndindex(lines.shape[:-1]):
        one = interval(lines[where])
        got = i.mean[where], i.low[where], i.high[where]
        assert got == pytest.approx((one.mean, one.low, one.high))


def test_interval_takes_an_xarray_and_its_dimension():
    x = np.random.default_rng(3).normal(size=(5, 8))
    named = interval(xr.DataArray(x, dims=("epoch", "seed")), axis="seed")
    assert named.n == 8
    np.testing.assert_array_equal(named.low, interval(x, axis=1).low)
    with pytest.raises(TypeError, match="axis"):
        interval(x, axis="seed")


def test_interval_covers_the_mean_as_often_as_it_says():
    x = np.random.default_rng(4).normal(1.0, 3.0, size=(20_000, 10))
    for level in (0.8, 0.95, 0.99):
        i = interval(x, level, axis=1)
        share = np.mean((i.low <= 1.0) & (i.high >= 1.0))
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 20_000))


def test_paired_difference_uses_the_pairs():
    rng = np.random.default_rng(5)
    common = rng.normal(0, 10, 12)
    a, b = common + 1 + rng.normal(0, 0.1, 12), common + rng.normal(0, 0.1, 12)
    i = paired_difference(a, b)
    assert ends(i) == pytest.approx(tuple(stats.ttest_rel(a, b).confidence_interval(0.95)))
    assert 0.8 < i.low < i.high < 1.2  # unpaired it would be about 20 wide
    assert paired_difference(np.ones(3, bool), np.zeros(3, bool)).mean == 1.0
    band = paired_difference(np.stack([a, b]), np.stack([b, b]), axis=1)
    assert (band.low[0], band.high[0], band.high[1]) == pytest.approx((*ends(i), 0.0))


BAD_VALUES = [
    ([1.0, np.nan, 2.0], "values: expected finite numbers, got 1 NaN"),
    ([1.0, np.inf], "finite"),
    ([1.0], "at least two seeds, got 1"),
    ([], "at least two seeds, got 0"),
    (3.0, "axes"),
    ([[1.0, 2.0], [3.0, 4.0]], r"got shape \(2, 2\)"),
    (["a", "b"], "values: expected numbers"),
]


@pytest.mark.parametrize(("values", "message"), BAD_VALUES)
def test_interval_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        interval(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_is_a_share(level):
    for call in (lambda: interval([1, 2], level), lambda: wilson(1, 2, level)):
        with pytest.raises(ValueError, match="level"):
            call()


def test_nan_and_shapes_are_refused_everywhere():
    nan = [1.0, np.nan, 2.0]
    for call in (
        lambda: interval([[1.0, 2.0], [np.nan, 1.0]], axis=0),
        lambda: paired_difference([1, 2, 3], nan),
        lambda: ratio(nan, [1, 2, 3]),
        lambda: crossed_bootstrap([nan, nan], [nan, nan]),
        lambda: steps_to_target([nan], 1, [1, 2, 3]),
        lambda: verdict("G1", "c", nan, at_least=0),
    ):
        with pytest.raises(ValueError, match="NaN"):
            call()
    for call in (
        lambda: paired_difference([1, 2, 3], [1, 2]),
        lambda: ratio([1, 2, 3], [1, 2]),
        lambda: crossed_bootstrap(np.ones((3, 4)), np.ones((3, 5))),
    ):
        with pytest.raises(ValueError, match="one shape"):
            call()


# --- ratio ----------------------------------------------------------------------------------


def test_ratio_is_the_t_interval_of_logs():
    rng = np.random.default_rng(6)
    a, b = rng.lognormal(1, 0.3, 15), rng.lognormal(0, 0.3, 15)
    i = ratio(a, b)
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    assert ends(i) == pytest.approx(tuple(np.exp(expected)))
    assert i.mean == pytest.approx(stats.gmean(a / b))
    turned = ratio(b, a)
    assert (1 / turned.high, 1 / turned.low) == pytest.approx(ends(i))


def test_median_ratio_lies_between_order_statistics():
    x = np.random.default_rng(7).permutation(np.arange(1.0, 16.0))
    i = ratio(x, np.ones(15), median=True)
    # n = 15: 2 P(Binomial < 4) = 0.0352 <= 0.05 < 2 P(Binomial < 5) = 0.118
    assert (i.mean, i.low, i.high, i.n) == (8.0, 4.0, 12.0, 15)
    x[x == 15] = 1e9
    assert ratio(x, np.ones(15), median=True) == i
    # five values: the widest interval, from the first to the last, has level 1 - 2/32 = 0.9375
    assert ends(ratio([1, 2, 3, 4, 5], np.ones(5), 0.9375, median=True)) == (1.0, 5.0)
    with pytest.raises(ValueError, match="more than 5 values"):
        ratio([1, 2, 3, 4, 5], np.ones(5), median=True)


def test_median_ratio_covers():
    x = np.random.default_rng(8).lognormal(0, 1, size=(2000, 15))
    hit = [i.low <= 1 <= i.high for i in (ratio(row, np.ones(15), median=True) for row in x)]
    assert np.mean(hit) == pytest.approx(1 - 0.0352, abs=0.018)


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_ratio_refuses_what_is_not_positive(bad):
    with pytest.raises(ValueError, match="positive"):
        ratio([1, 2, bad], [1, 2, 3])
    with pytest.raises(ValueError, match="positive"):
        ratio([1, 2, 3], [1, 2, bad])


# --- shares ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 20), (1, 20), (7, 20), (10, 20), (20, 20), (1, 1)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_wilson_equals_scipy(k, n, level):
    i = wilson(k, n, level)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert ends(i) == pytest.approx(tuple(expected), abs=1e-12)
    assert i.mean == k / n
    assert 0 <= i.low <= i.mean <= i.high <= 1


def test_wilson_by_hand():
    # Wilson for 0 of n: (0, z² / (n + z²)), z² = 3.841459
    assert ends(wilson(0, 20)) == pytest.approx((0.0, 3.841459 / 23.841459), abs=1e-7)


def test_wilson_covers_on_average():
    rng = np.random.default_rng(9)
    p = rng.uniform(0.02, 0.98, 20_000)
    table = [wilson(k, 20) for k in range(21)]
    low, high = np.array([ends(i) for i in table])[rng.binomial(20, p)].T
    assert np.mean((low <= p) & (p <= high)) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses(k, n):
    with pytest.raises(ValueError, match="successes: expected" if n else "n: expected"):
        wilson(k, n)


# --- crossed bootstrap ----------------------------------------------------------------------


def additive(seeds, images, seed_sd, image_sd):
    rng = np.random.default_rng(10)
    return (
        rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, image_sd, (1, images)),
        np.zeros((seeds, images)),
    )


def test_bootstrap_of_an_additive_table_has_the_known_error():
    a, b = additive(20, 50, 2.0, 5.0)
    i = crossed_bootstrap(a, b, resamples=20_000)
    # rows and columns drawn apart: the variance of the mean is var(rows)/S + var(columns)/N
    error = math.sqrt(a.mean(axis=1).var() / 20 + a.mean(axis=0).var() / 50)
    t = stats.t.ppf(0.975, 19)
    assert (i.high - i.low) / 2 == pytest.approx(t * error, rel=0.02)
    assert i.mean == pytest.approx(a.mean())
    assert (i.n, i.level) == (20, 0.95)


def test_bootstrap_is_never_narrower_than_seeds_alone():
    a, b = additive(10, 4000, 1.0, 0.5)
    alone = interval((a - b).mean(axis=1), 0.99)
    assert ends(crossed_bootstrap(a, b, level=0.99)) == pytest.approx(ends(alone))


def test_bootstrap_is_the_same_for_the_same_seed_only():
    rng = np.random.default_rng(11)
    a, b = rng.random((6, 300)) < 0.8, rng.random((6, 300)) < 0.7
    a[:] = a[0]  # seeds agree, so the images decide
    b[:] = b[0]
    assert crossed_bootstrap(a, b) == crossed_bootstrap(a, b)
    assert crossed_bootstrap(a, b) != crossed_bootstrap(a, b, seed=1)
    assert crossed_bootstrap(a, b).mean == pytest.approx(a.mean() - b.mean())


def test_bootstrap_follows_images_through_each_seeds_own_order():
    a, b = additive(12, 40, 0.1, 2.0)
    order = np.array([np.random.default_rng(s).permutation(40) for s in range(12)])
    shuffled = np.take_along_axis(a, order, axis=1)
    plain = crossed_bootstrap(a, b, level=0.9)
    named = crossed_bootstrap(shuffled, b, images=order + 1000, level=0.9)
    assert ends(named) == pytest.approx(ends(plain))
    # told that columns are images, the same numbers seem to vary far less
    mistaken = crossed_bootstrap(shuffled, b, level=0.9)
    assert mistaken.high - mistaken.low < 0.6 * (plain.high - plain.low)


def test_bootstrap_with_own_test_splits_counts_only_the_images_a_seed_has():
    rng = np.random.default_rng(12)
    effect = rng.normal(0, 1.0, 100)
    images = np.array([rng.permutation(100)[:40] for _ in range(30)])
    a = effect[images]
    i = crossed_bootstrap(a, np.zeros_like(a), images=images)
    assert i.mean == pytest.approx(a.mean())
    # nearly every image is somewhere: the error is about that of a mean over 100 images
    assert (i.high - i.low) / 2 == pytest.approx(2.045 * effect.std() / 10, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": np.zeros((3, 5))}, "images: expected shape"),
        ({"images": np.zeros((3, 4))}, "two test images"),
        ({"resamples": 10}, "resamples"),
    ],
)
def test_bootstrap_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        crossed_bootstrap(np.ones((3, 4)), np.zeros((3, 4)), **options)


# --- steps to a target ----------------------------------------------------------------------

CURVES = [[0.2, 0.6, 0.9], [0.9, 0.1, 0.9], [0.1, 0.2, 0.3], [0.1, 0.8, 0.7]]


def test_steps_to_target():
    s = steps_to_target(CURVES, 0.8, [10, 20, 40])
    np.testing.assert_array_equal(s.values, [40, 10, 41, 20])
    assert (s.arrived, s.reached, s.median, s.budget) == (3, 0.75, 30.0, 40)
    assert interval(s.values).mean == 27.75  # the restricted mean


def test_a_smaller_budget_makes_runs_miss():
    s = steps_to_target(CURVES, 0.8, [10, 20, 40], budget=20)
    np.testing.assert_array_equal(s.values, [21, 10, 21, 20])
    assert s.reached == 0.5


@pytest.mark.parametrize(
    ("at", "budget", "message"),
    [
        ([1, 2], None, "at: expected 3"),
        ([1, 3, 2], None, "rising"),
        ([1, 2, 3], 4, "budget"),
        ([1, 2, 3], 0, "budget"),
    ],
)
def test_steps_to_target_refuses(at, budget, message):
    with pytest.raises(ValueError, match=message):
        steps_to_target(CURVES, 0.8, at, budget)


def arm(missed, n=20, budget=100):
    values = np.linspace(40.0, 60.0, n)
    values[:missed] = budget + 1
    return Steps(values, budget)


@pytest.mark.parametrize(
    ("slow", "fast", "low_known", "high_known"),
    [
        (0, 0, True, True),
        (2, 2, True, True),
        (3, 0, True, False),
        (0, 3, False, True),
        (3, 3, False, False),
    ],
)
@pytest.mark.parametrize("median", [False, True])
def test_a_ratio_needs_nine_tenths_of_both_arms(slow, fast, low_known, high_known, median):
    i = ratio(arm(slow), arm(fast), median=median)
    full = ratio(arm(slow).values, arm(fast).values, median=median)
    assert i.low == (full.low if low_known else 0.0)
    assert i.high == (full.high if high_known else math.inf)
    assert i.mean == full.mean


def test_a_lower_bound_can_hold_but_not_fail():
    bound = ratio(arm(20), Steps(np.linspace(10.0, 12.0, 20), 100))
    v = verdict("I3", "faster", bound, at_least=2, unit="times")
    assert v.word == "holds"
    assert "inf]" in str(v)
    assert json.loads(json.dumps(v.record(), allow_nan=False))["high"] is None
    assert verdict("I3", "faster", bound, at_least=20).word == "undecided"


# --- verdicts -------------------------------------------------------------------------------


def at(low, high, level=0.95, n=20):
    return Interval((low + high) / 2, low, high, n, level)


# half-width 4 throughout, so a margin of 1 is the least that decides
RULES = [
    ({"at_least": 10}, (15, 23), "holds", 5),
    ({"at_least": 10}, (11, 19), "holds", 1),
    ({"at_least": 10}, (10.99, 18.99), "undecided", 0.99),
    ({"at_least": 10}, (10, 18), "undecided", 0),
    ({"at_least": 10}, (9, 17), "undecided", -1),
    ({"at_least": 10}, (1.01, 9.01), "undecided", 0.99),
    ({"at_least": 10}, (1, 9), "fails", 1),
    ({"at_least": 0}, (-9, -1), "fails", 1),
    ({"at_least": -5}, (-4, 4), "holds", 1),
    ({"at_most": 10}, (1, 9), "holds", 1),
    ({"at_most": 10}, (1.01, 9.01), "undecided", 0.99),
    ({"at_most": 10}, (6, 14), "undecided", -4),
    ({"at_most": 10}, (11, 19), "fails", 1),
    ({"at_most": 10}, (10.99, 18.99), "undecided", 0.99),
    ({"within": 5}, (-4, 4), "holds", 1),
    ({"within": 5}, (-3.99, 4.01), "undecided", 0.99),
    ({"within": 5}, (-4.01, 3.99), "undecided", 0.99),
    ({"within": 5}, (1, 9), "undecided", -4),
    ({"within": 5}, (6, 14), "fails", 1),
    ({"within": 5}, (-14, -6), "fails", 1),
    ({"within": 5}, (5.99, 13.99), "undecided", 0.99),
    ({"within": 3}, (-4, 4), "undecided", -1),
    ({"at_least": 1}, (1, 1), "undecided", 0),
    ({"at_least": 1}, (2, 2), "holds", 1),
]


@pytest.mark.parametrize(("rule", "interval_", "word", "margin"), RULES)
def test_rules(rule, interval_, word, margin):
    v = verdict("G1", "claim", at(*interval_), **rule)
    assert v.word == word
    assert v.margin == pytest.approx(margin)
    assert v.threshold == rule


def test_the_half_width_is_the_one_of_the_side_in_question():
    lopsided = Interval(11.0, 10.4, 31.0, 20, 0.95)
    assert verdict("G1", "claim", lopsided, at_least=10).word == "holds"
    assert verdict("G1", "claim", lopsided, at_most=32).word == "undecided"


def test_values_are_judged_by_their_t_interval():
    x = np.random.default_rng(13).normal(30, 2, 20)
    v, i = verdict("G1", "claim", xr.DataArray(x, dims="seed"), at_least=20), interval(x)
    assert (v.effect, v.low, v.high, v.seeds) == (i.mean, i.low, i.high, 20)


def test_more_comparisons_need_more():
    x = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    one, six = (verdict("G1", "c", x, at_least=1.0, comparisons=m) for m in (1, 6))
    assert (one.word, six.word) == ("holds", "undecided")
    assert six.level == pytest.approx(1 - 0.05 / 6)
    assert (six.low, six.high) == pytest.approx(ends(interval(x, 1 - 0.05 / 6)))
    assert "99.2 % interval" in str(six)


def test_an_interval_must_have_the_level_needed():
    share = wilson(3, 20)
    assert verdict("A2", "stuck", share, at_most=0.9, unit="share").word == "holds"
    with pytest.raises(ValueError, match=r"level 0\.975, got 0\.95"):
        verdict("A2", "stuck", share, at_most=0.9, comparisons=2)
    with pytest.raises(ValueError, match=r"effect\['b'\]: expected an Interval at level"):
        verdict("A2", "c", {"a": wilson(3, 20, 0.975), "b": share}, at_most=0.9)


H, F, U = (20, 30), (-30, -20), (9, 11)
JOINS = [
    ([H, H], "holds", "holds"),
    ([F, F], "fails", "fails"),
    ([H, F], "depends", "fails"),
    ([H, U], "undecided", "undecided"),
    ([F, U], "undecided", "fails"),
    ([U, U], "undecided", "undecided"),
    ([H, F, U], "depends", "fails"),
    ([H], "holds", "holds"),
]


@pytest.mark.parametrize(("conditions", "each", "joint"), JOINS)
def test_conditions(conditions, each, joint):
    level = 1 - 0.05 / len(conditions)
    effect = {f"depth {k}": at(*c, level, n=20 - k) for k, c in enumerate(conditions)}
    v = verdict("A3", "claim", effect, at_least=10)
    assert v.word == each
    assert verdict("A3", "claim", effect, at_least=10, joint=True).word == joint
    assert v.level == pytest.approx(level)
    assert (v.effect, v.low, v.high, v.margin) == (None, None, None, None)
    assert v.seeds == 21 - len(conditions)
    lines = str(v).splitlines()
    assert lines[0].startswith(f"A3 {each}: claim; ")
    names = {H: "holds", F: "fails", U: "undecided"}
    for line, k, c in zip(lines[1:], range(9), conditions, strict=False):
        assert line.startswith(f"  depth {k}: {names[c]}; effect ")
    assert len(lines) == 1 + len(conditions)


def test_comparisons_and_conditions_take_the_larger():
    x = [1.0, 2.0, 3.0]
    v = verdict("A3", "c", {"a": x, "b": x}, at_least=0, comparisons=5)
    assert v.level == v.parts["a"].level == pytest.approx(0.99)


def test_the_line():
    v = verdict("G1", "it vanishes", at(51, 53.6), at_least=20, unit="points")
    assert str(v) == (
        "G1 holds: it vanishes; effect +52.3 points, 95 % interval [+51.0, +53.6] "
        "against at least +20, 20 seeds, margin +31.0"
    )
    v = verdict("I3", "faster", at(1.52, 1.88), at_least=1.1, unit="times", size="quick")
    assert str(v) == (
        "I3 holds (quick look, 20 seeds): faster; effect 1.70 times, 95 % interval [1.52, 1.88] "
        "against at least 1.1, 20 seeds, margin +0.42"
    )
    v = verdict("O4", "no difference", at(-0.0004, 0.0003), within=0.001)
    assert "effect -0.00005, 95 % interval [-0.00040, +0.00030] against no effect (±0.001)" in str(
        v
    )


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6])
def test_numbers_in_the_line_are_readable_at_any_scale(scale):
    line = str(verdict("G1", "c", at(1.234567 * scale, 3.456789 * scale), at_least=0))
    assert max(len(word) for word in line.split()) < 14
    shown = float(line.split("[")[1].split(",")[0])
    assert shown == pytest.approx(1.234567 * scale, rel=0.05)


def test_the_record_round_trips():
    x = np.random.default_rng(14).normal(3.123456789, 0.1, 20)
    effect = {"a": x, "b": -x}
    v = verdict("T3a", "claim", effect, at_least=1, unit="points", data="MNIST-1D", size="quick")
    bundle = v._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "application/vnd.dlcore.verdict+json"}
    assert bundle["text/plain"] == str(v)
    record = bundle[MIME]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == {
        *("id", "claim", "verdict", "effect", "unit", "low", "high", "seeds", "data"),
        *("machine", "arithmetic", "level", "threshold", "margin", "size", "parts"),
    }
    assert (record["id"], record["verdict"], record["seeds"]) == ("T3a", "depends", 20)
    assert (record["size"], record["data"], record["unit"]) == ("quick", "MNIST-1D", "points")
    assert record["threshold"] == {"at_least": 1.0}
    assert record["effect"] is None
    part = record["parts"]["a"]
    assert part["verdict"] == "holds"
    assert part["effect"] == float(f"{x.mean():.6g}")
    assert part["low"] < part["effect"] < part["high"]
    assert "NumPy" in record["machine"]


def test_a_notebook_shows_the_line():
    formatter = pytest.importorskip("IPython.core.formatters").DisplayFormatter()
    v = verdict("G1", "claim", at(51, 53.6), at_least=20)
    shown, _ = formatter.format(v)
    assert shown["text/plain"] == str(v)
    assert shown[MIME]["id"] == "G1"


X = [1.0, 2.0, 3.0]
REFUSED = [
    ({}, "at_least, at_most, within: expected exactly one of them"),
    ({"at_least": 1, "within": 2}, "exactly one of them"),
    ({"at_least": math.nan}, "at_least: expected a number"),
    ({"at_most": math.inf}, "at_most: expected a number"),
    ({"within": 0}, r"within: expected a number in \(0, inf\)"),
    ({"within": -1}, r"within: expected a number in \(0, inf\)"),
    ({"at_least": 1, "id": "g1"}, "id"),
    ({"at_least": 1, "id": "G"}, "id"),
    ({"at_least": 1, "id": "G1ab"}, "id"),
    ({"at_least": 1, "id": "G1\n"}, "id"),
    ({"at_least": 1, "size": "small"}, "size"),
    ({"at_least": 1, "comparisons": 0}, "comparisons"),
    ({"at_least": 1, "effect": {}}, "condition"),
    ({"at_least": 1, "joint": True}, "condition"),
    ({"at_least": 1, "effect": [1.0]}, "two seeds"),
    ({"at_least": 1, "effect": [X, X]}, r"effect: expected 1 axes, got shape \(2, 3\)"),
    ({"at_least": 1, "effect": {"a": X, "b": [1, np.nan]}}, r"effect\['b'\].*NaN"),
    ({"at_least": 1, "effect": interval([X, X], axis=1)}, "one Interval"),
    ({"at_least": 1, "effect": Interval(1.0, math.nan, 2.0, 3, 0.95)}, "one Interval"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_verdict_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        verdict(**{"id": "G1", "claim": "c", "effect": X, **options})


finite = st.floats(-100, 100).map(lambda x: round(x, 3))


@pytest.mark.thorough
@settings(deadline=None)
@given(
    effect=st.lists(finite, min_size=3, max_size=12).map(np.array),
    d=finite,
    shift=finite,
    scale=st.sampled_from([0.001, 0.5, 3.0, 4096.0]),
)
def test_shift_and_scale_do_not_change_the_word(effect, d, shift, scale):
    v = verdict("G1", "claim", effect, at_least=d)
    half = v.effect - v.low
    # not on a boundary, where rounding may decide
    assume(min(abs(v.margin), abs(v.margin - half / 4)) > 1e-6 * (1 + abs(shift)))
    moved = verdict("G1", "claim", scale * (effect + shift), at_least=scale * (d + shift))
    assert moved.word == v.word
    turned = verdict("G1", "claim", -scale * effect, at_most=-scale * d)
    assert turned.word == v.word
    opposite = verdict("G1", "claim", effect, at_most=d)
    assert opposite.word == {"holds": "fails", "fails": "holds"}.get(v.word, v.word)
    centred = verdict("G1", "claim", effect, within=abs(d) + 0.001)
    assert verdict("G1", "claim", -effect, within=abs(d) + 0.001).word == centred.word


# --- labels, and what else values mean -------------------------------------------------------


def labelled(values, seeds, name="seed"):
    return xr.DataArray(values, {name: list(seeds)}, [name])


A = labelled([1.0, 2.0, 4.0, 8.0], (5, 6, 7, 8))


@pytest.mark.parametrize(
    "other",
    [A[::-1], A[[2, 0, 3, 1]], A.to_series()[::-1], A[::-1].astype("float32")],
    ids=["reversed", "shuffled", "pandas", "float32"],
)
def test_labels_pair_whatever_their_order(other):
    assert paired_difference(A, other) == Interval(0.0, 0.0, 0.0, 4, 0.95)
    assert ends(ratio(A, other)) == (1.0, 1.0)
    assert paired_difference(A.to_series(), other) == Interval(0.0, 0.0, 0.0, 4, 0.95)


def test_all_axes_are_aligned():
    table = xr.DataArray(
        np.arange(12.0).reshape(3, 4), {"epoch": [1, 2, 3], "seed": list("abcd")}, ["epoch", "seed"]
    )
    turned = table.isel(seed=[3, 1, 0, 2], epoch=[2, 0, 1]).transpose("seed", "epoch")
    i = paired_difference(table, turned, axis="seed")
    np.testing.assert_array_equal(i.mean, np.zeros(3))
    wide = paired_difference(table.to_pandas(), table.to_pandas().iloc[::-1, ::-1], axis=1)
    np.testing.assert_array_equal(wide.high, np.zeros(3))
    correct = table.transpose("seed", "epoch")
    assert two_way_difference(correct, turned).high == 0
    assert crossed_bootstrap(correct, turned).high == 0
    ids = xr.zeros_like(correct, dtype=int) + xr.DataArray([0, 0, 1], dims="epoch")
    expected = two_way_difference(correct.values, 0 * correct.values, [0, 0, 1])
    assert two_way_difference(correct, 0 * turned, ids[::-1]) == expected


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (A.assign_coords(seed=[5, 6, 7, 9]), r"b: expected the labels of a along 'seed'.*8, 9"),
        (A[:3], r"b: expected the labels of a along 'seed'.*8"),
        (A.assign_coords(seed=[5, 6, 6, 7]), "each once"),
        (A.rename(seed="run"), r"b: expected dimensions \('seed',\) as a, got \('run',\)"),
        (A.assign_coords(seed=[5, 6, 7, 9]).to_series(), "b: expected the labels of a"),
        (A.to_series().reset_index(drop=True), "b: expected the labels of a"),
        (A.assign_attrs(units="ms"), "b: expected units 's' as a, got 'ms'"),
    ],
)
def test_other_labels_are_refused(other, message):
    a = A.assign_attrs(units="s")
    for function in (paired_difference, ratio):
        with pytest.raises(ValueError, match=message):
            function(a, other)


def test_without_labels_position_counts():
    plain = xr.DataArray(A.values[::-1], dims="seed")
    expected = paired_difference(A.values, A.values[::-1])
    for other in (plain, A.values[::-1], list(A.values[::-1])):
        assert paired_difference(A, other) == expected


def test_steps_keep_their_seeds():
    curve = xr.DataArray(CURVES, {"seed": [4, 5, 6, 7], "epoch": [1, 2, 3]}, ["seed", "epoch"])
    at = xr.DataArray([40, 10, 20], {"epoch": [3, 1, 2]}, ["epoch"])
    s = steps_to_target(curve.transpose("epoch", "seed"), 0.8, at)
    np.testing.assert_array_equal(s.values, [40, 10, 41, 20])
    assert s.seeds == (4, 5, 6, 7)
    turned = steps_to_target(curve[::-1], 0.8, at)
    assert ratio(s, turned).mean == 1.0
    assert ratio(s, turned.values).low < 0.2  # without their labels position counts
    with pytest.raises(ValueError, match="labels of a"):
        ratio(s, steps_to_target(curve.assign_coords(seed=[4, 5, 6, 9]), 0.8, at))
    with pytest.raises(ValueError, match="at: expected the labels of curve"):
        steps_to_target(curve, 0.8, at.assign_coords(epoch=[4, 1, 2]))


def test_steps_are_finite_and_their_own():
    values = np.array([1.0, 5.0])
    s = Steps(values, 4)
    values[:] = 100
    assert (s.arrived, s.reached, s.median) == (1, 0.5, 3.0)
    for bad in ([1.0, np.nan], [], [[1.0]], np.ma.masked_equal([1.0, 2.0], 2.0)):
        with pytest.raises(ValueError, match="values: expected"):
            Steps(bad, 4)
    with pytest.raises(ValueError, match="seeds: expected 2 labels"):
        Steps([1.0, 2.0], 4, (1, 2, 3))


def test_masks_without_masked_values_fractions_and_booleans_are_numbers():
    from fractions import Fraction

    x = [1.0, 2.0, 4.0]
    expected = interval(x)
    assert interval(np.ma.array(x)) == expected
    assert interval([Fraction(1), Fraction(2), 4]) == expected
    assert interval(np.float16(x)) == expected
    assert interval([True, False]).mean == 0.5
    assert interval(np.array(x, object), xr.DataArray(0.95)) == expected


def test_conditions_that_read_alike_are_refused():
    with pytest.raises(ValueError, match="effect: expected conditions with distinct names"):
        verdict("G1", "c", {1: [1.0, 2.0], "1": [3.0, 4.0]}, at_least=0)


def test_wilson_counts_whole_runs():
    assert wilson(np.int64(3), 10.0) == wilson(3, 10)
    with pytest.raises(ValueError, match=r"n: expected a whole number, got 10\.5"):
        wilson(3, 10.5)


# --- seeds and examples ----------------------------------------------------------------------


def test_two_way_by_hand():
    # 2 seeds, 2 examples, e = [[3, 1], [-1, -3]] about the mean 0: sums of seeds 4 and -4, of
    # examples 2 and -2, cells 9 + 1 + 1 + 9; N² = 16
    a = np.array([[3.0, 1.0], [-1.0, -3.0]])
    i = two_way_difference(a, np.zeros((2, 2)))
    seed, example, cell = 2 * 32 / 16, 2 * 8 / 16, 4 / 3 * 20 / 16
    variance = max(seed, seed + example - cell)
    assert i.high == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(variance))
    assert (i.mean, i.n, i.level) == (0.0, 2, 0.95)


def test_two_way_of_seeds_alone_is_the_t_interval_and_of_examples_that_of_examples():
    a, b = additive(10, 200, 1.0, 0.0)
    assert ends(two_way_difference(a, b)) == pytest.approx(ends(interval(a[:, 0])))
    a, b = additive(10, 200, 0.0, 1.0)
    half = stats.t.ppf(0.975, 9) * a[0].std(ddof=1) / math.sqrt(200)
    i = two_way_difference(a, b)
    assert i.high - i.mean == pytest.approx(half)


def test_two_way_follows_examples_through_each_seeds_own_order():
    a, b = additive(12, 40, 0.1, 2.0)
    order = np.array([np.random.default_rng(s).permutation(40) for s in range(12)])
    shuffled = np.take_along_axis(a, order, axis=1)
    for ids in (order, order + 1000, order.astype(str), order.tolist(), order / 7):
        assert ends(two_way_difference(shuffled, b, ids)) == pytest.approx(
            ends(two_way_difference(a, b))
        )
    assert two_way_difference(a, b, np.arange(40)) == two_way_difference(a, b)
    mistaken = two_way_difference(shuffled, b)
    i = two_way_difference(a, b)
    assert mistaken.high - mistaken.low < 0.6 * (i.high - i.low)


#: Deviations of the noise of seeds, of examples and of single answers.
NOISE = {"seeds": (1, 0, 0), "examples": (0, 1, 0), "both": (0.1, 1, 1), "answers too": (0.1, 0, 1)}


@pytest.mark.parametrize("own_splits", [False, True], ids=["one test part", "own splits"])
@pytest.mark.parametrize("seeds", [8, 20])
@pytest.mark.parametrize("kind", NOISE)
def test_two_way_covers(kind, seeds, own_splits):
    """Of 400 draws at 95 %, 93 to 98 % in the long run (three standard errors allowed: 3 points)."""
    of_seed, of_example, of_answer = NOISE[kind]
    n, pool = (60, 150) if own_splits else (80, 80)
    rng, hits = np.random.default_rng([seeds, own_splits]), 0
    for _ in range(400):
        ids = np.tile(np.arange(n), (seeds, 1))
        if own_splits:
            ids = np.stack([rng.permutation(pool)[:n] for _ in range(seeds)])
        a = rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_example, pool)[ids]
        a = a + rng.normal(0, of_answer, a.shape)
        i = two_way_difference(a, np.zeros_like(a), ids)
        hits += i.low <= 0 <= i.high
    assert 0.91 <= hits / 400 <= 0.995


def test_two_way_variance_is_never_negative_nor_below_one_way():
    """Where answers alternate, V(seed) and V(example) are 0 and V(cell) is not."""
    a = np.where(np.add.outer(np.arange(4), np.arange(6)) % 2, 1.0, -1.0)
    assert ends(two_way_difference(a, np.zeros_like(a))) == (0.0, 0.0)


def test_two_way_of_few_examples_has_their_degrees_of_freedom():
    """20 seeds cannot make up for 4 examples: with 19 degrees of freedom 86 % would be covered."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        a = np.tile(rng.normal(0, 1, 4), (20, 1))
        i = two_way_difference(a, np.zeros_like(a))
        hits += i.low <= 0 <= i.high
    assert hits / 400 == pytest.approx(0.95, abs=0.035)
    assert i.n == 20


def test_two_way_is_narrower_than_the_bootstrap_that_over_covers():
    rng = np.random.default_rng(13)
    a, b = rng.random((14, 300)) < 0.8, rng.random((14, 300)) < 0.75
    wide, narrow = crossed_bootstrap(a, b), two_way_difference(a, b)
    assert wide.mean == pytest.approx(narrow.mean)
    assert 1.2 < (wide.high - wide.low) / (narrow.high - narrow.low) < 1.8


def test_ids_of_a_data_set_name_its_examples():
    from dlcore.datasets import fashion_mnist

    sets = [fashion_mnist(s, train=10, valid=0, test=4000, size=2).flat() for s in range(3)]
    ids = [data.test_ids for data in sets]
    bright = np.stack([data.x_test.mean(axis=1) for data in sets])
    i = two_way_difference(bright, np.zeros_like(bright), ids)
    assert i.low < bright.mean() < i.high
    wide = crossed_bootstrap(bright, np.zeros_like(bright), ids, resamples=100)
    assert wide.mean == pytest.approx(i.mean)
