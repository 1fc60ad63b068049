import inspect
import math
import pickle
import re

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import schedules
from dlcore.schedules import ReduceOnPlateau, warmup

N = 100


def factors(schedule, steps=N):
    return np.array([schedule(k, steps) for k in range(steps)])


#: Schedule and factors at some steps of 100, worked out by hand.
TABLE = [
    (schedules.constant(), {0: 1, 50: 1, 99: 1}),
    (schedules.piecewise(), {0: 1, 49: 1, 50: 0.1, 74: 0.1, 75: 0.01, 99: 0.01}),
    (schedules.piecewise([0.07], [1, 0.5]), {6: 1, 7: 0.5}),
    (schedules.piecewise([10, 20], [2, 1, 0]), {0: 2, 9: 2, 10: 1, 19: 1, 20: 0, 99: 0}),
    (schedules.piecewise([], [0.5]), {0: 0.5, 99: 0.5}),
    (schedules.exponential(), {0: 1, 50: 0.1**0.5}),
    (schedules.exponential(0.5, 10), {0: 1, 5: 0.5**0.5, 10: 0.5, 20: 0.25}),
    (schedules.exponential(0.5, 0.1), {10: 0.5, 20: 0.25}),
    (schedules.exponential(0.5, 1), {1: 0.5, 10: 2.0**-10}),
    (schedules.inverse_time(), {0: 1, 10: 1 / 2, 20: 1 / 3, 90: 1 / 10}),
    (schedules.inverse_time(25, 0.5), {0: 1, 75: 1 / 2}),
    (schedules.polynomial(), {0: 1, 25: 0.75, 99: 0.01}),
    (schedules.polynomial(2, 0.2), {0: 1, 50: 0.4}),
    (
        schedules.cosine(),
        {0: 1, 25: (1 + math.sqrt(0.5)) / 2, 50: 0.5, 75: (1 - math.sqrt(0.5)) / 2},
    ),
    (schedules.cosine(0.5), {0: 1, 50: 0.75}),
    (schedules.one_cycle(), {0: 1 / 25, 29: 1, 64: 0.5 + 0.5 / 250_000, 99: 1 / 250_000}),
    (schedules.one_cycle(0.5, 0.5, 0.25), {0: 0.5, 49: 1, 74: 0.625, 99: 0.25}),
    (warmup(), {0: 1 / 11, 9: 10 / 11, 10: 1, 99: 1}),
    (warmup(4, schedules.exponential(0.5, 10)), {0: 0.2, 3: 0.8, 4: 1, 14: 0.5}),
    (warmup(0.2, schedules.polynomial()), {0: 1 / 21, 20: 1, 60: 0.5}),
    (warmup(4, warmup(4, lambda k, n: n)), {3: 0.8 * 0.2 * 92, 8: 92}),
    (ReduceOnPlateau(), {0: 1, 99: 1}),
]
# Without the addresses that functions have in their names: all processes of a run name the tests alike.
IDS = [re.sub(r" at 0x[0-9a-f]+", "", repr(s)) for s, _ in TABLE]


def test_table_holds_every_schedule():
    public = {
        cls
        for name, cls in inspect.getmembers(schedules, inspect.isclass)
        if cls.__module__ == schedules.__name__ and name[0] != "_" and name != "Schedule"
    }
    assert public == {type(s) for s, _ in TABLE}
    assert public == small.subclasses(schedules.Schedule)


@pytest.mark.parametrize(("schedule", "expected"), TABLE, ids=IDS)
def test_values(schedule, expected):
    found = {k: schedule(k, N) for k in expected}
    assert found == pytest.approx(expected, rel=1e-12)
    assert all(isinstance(f, float | int) for f in found.values())


@pytest.mark.parametrize(("schedule", "expected"), TABLE[:-3] + TABLE[-1:], ids=IDS[:-3] + IDS[-1:])
def test_objects_pickle_compare_and_name_themselves(schedule, expected):
    copied = pickle.loads(pickle.dumps(schedule))
    assert copied == schedule
    np.testing.assert_array_equal(factors(copied), factors(schedule))
    assert repr(schedule).startswith(type(schedule).__name__ + "(")
    assert hash(copied) == hash(schedule)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 999])
@pytest.mark.parametrize(("schedule", "expected"), TABLE, ids=IDS)
def test_any_length_of_run(schedule, expected, steps):
    """However short the run, factors are finite and not negative."""
    found = factors(schedule, steps)
    assert np.isfinite(found).all()
    assert (found >= 0).all()


REFUSED = [
    (lambda: schedules.piecewise([0.5, 0.2], [1, 1, 1]), ValueError, "boundaries: expected rising"),
    (lambda: schedules.piecewise([0.5, 0.5], [1, 1, 1]), ValueError, "boundaries: expected rising"),
    (lambda: schedules.piecewise([0.5, 20], [1, 1, 1]), ValueError, "all steps or all shares"),
    (lambda: schedules.piecewise([0.5], [1]), ValueError, "factors: expected 2"),
    (lambda: schedules.piecewise([0.5], [1, -1]), ValueError, "factors"),
    (lambda: schedules.piecewise([1.5], [1, 1]), ValueError, "boundaries"),
    (lambda: schedules.exponential(0), ValueError, r"rate: expected a number in \(0, 1\]"),
    (lambda: schedules.exponential(2), ValueError, "rate"),
    (lambda: schedules.exponential(0.5, 0), ValueError, "length: expected an integer >= 1, got 0"),
    (lambda: schedules.exponential(0.5, 2.0), ValueError, r"length: expected a number in \(0, 1\]"),
    (lambda: schedules.exponential(0.5, "x"), TypeError, "length"),
    (lambda: schedules.inverse_time(0.0), ValueError, "length"),
    (lambda: schedules.inverse_time(5, -1), ValueError, "power"),
    (lambda: schedules.polynomial(-1), ValueError, "power"),
    (lambda: schedules.polynomial(1, -1), ValueError, "end"),
    (lambda: schedules.cosine(-1), ValueError, "end"),
    (lambda: schedules.one_cycle(0), ValueError, "peak"),
    (lambda: schedules.one_cycle(0.3, -1), ValueError, "start"),
    (lambda: schedules.one_cycle(0.3, 0, -1), ValueError, "end"),
    (lambda: warmup(-1), ValueError, "length"),
    (lambda: warmup(5, 0.1), TypeError, "then: expected a schedule"),
    (lambda: warmup(5, schedules.cosine), TypeError, "then: expected a schedule"),
    (lambda: ReduceOnPlateau(1), ValueError, "factor"),
    (lambda: ReduceOnPlateau(patience=-1), ValueError, "patience"),
    (lambda: ReduceOnPlateau(threshold=1), ValueError, "threshold"),
    (lambda: ReduceOnPlateau(cooldown=0.5), TypeError, "cooldown"),
    (lambda: ReduceOnPlateau(end=-1), ValueError, "end"),
    (lambda: schedules.begin(0.1, 2), TypeError, "schedule: expected a schedule"),
    (lambda: schedules.begin(schedules.cosine, 2), TypeError, "schedule: expected a schedule"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- ReduceOnPlateau ------------------------------------------------------------------------


def plateau(losses, **settings):
    """Factors of one run after each record, (records, replicas)."""
    losses = np.array(losses, float)
    run = schedules.begin(ReduceOnPlateau(**settings), losses.shape[1])
    found = []
    for loss in losses:
        run.record(loss)
        found.append(run(0, 1).copy())
    return np.array(found)


def test_plateau_judges_each_replica_alone():
    """Falling, level, and level after a fall; patience 2 means the third bad record reduces."""
    losses = [[9 - k, 1, max(5 - k, 3)] for k in range(8)]
    found = plateau(losses, factor=0.5, patience=2)
    np.testing.assert_array_equal(found[:, 0], 1)
    np.testing.assert_array_equal(found[:, 1], [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25])
    np.testing.assert_array_equal(found[:, 2], [1, 1, 1, 1, 1, 0.5, 0.5, 0.5])


def test_plateau_settings():
    level = [[1.0]] * 8
    found = plateau(level, factor=0.5, patience=1, cooldown=2)[:, 0]
    np.testing.assert_array_equal(found, [1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25])
    found = plateau(level, factor=0.1, patience=0, end=0.05)[:, 0]
    np.testing.assert_array_equal(found[:4], [1, 0.1, 0.05, 0.05])
    found = plateau([[1.0], [0.95], [0.85]], factor=0.5, patience=0, threshold=0.1)[:, 0]
    np.testing.assert_array_equal(found, [1, 0.5, 0.5])


def test_plateau_of_a_diverged_replica_leaves_the_others():
    found = plateau([[1.0, 1.0], [np.inf, 0.9], [np.inf, 0.8]], patience=0)
    np.testing.assert_array_equal(found[:, 1], 1)


def test_plateau_starts_afresh_each_time():
    settings = ReduceOnPlateau(patience=0)
    first, second = schedules.begin(settings, 2), schedules.begin(settings, 2)
    first.record([1.0, 1.0])
    first.record([1.0, 1.0])
    np.testing.assert_array_equal(first(0, 1), 0.1)
    np.testing.assert_array_equal(second(0, 1), 1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(first))(0, 1), 0.1)


def test_plateau_within_warmup():
    run = schedules.begin(warmup(4, ReduceOnPlateau(factor=0.5, patience=0)), 2)
    np.testing.assert_allclose(run(0, 10), [0.2, 0.2])
    run.record([1.0, 1.0])
    run.record([1.0, 0.5])
    np.testing.assert_allclose(run(3, 10), [0.4, 0.8])
    np.testing.assert_allclose(run(8, 10), [0.5, 1.0])
    plain = schedules.begin(warmup(4, lambda k, n: 1.0), 2)
    plain.record([1.0, 1.0])
    assert plain(0, 10) == 0.2


# --- within fit -----------------------------------------------------------------------------


def trained(schedule, seeds=range(2), lr=0.1, data=None, backend="numpy", **options):
    network = dl.Network(dl.mlp([6, 5, 3], activation=dl.Tanh), seeds, backend)
    options = dict(lr=lr, epochs=3, batch_size=20) | options
    history = dl.fit(network, data or small.blobs(), dl.SGD, schedule=schedule, **options)
    return network, history


def test_fit_multiplies_lr_step_by_step():
    """As many calls of fit, one step each, on the same batches with a rate worked out by hand."""
    schedule, seen = schedules.polynomial(2.0, 0.1), []

    def spy(step, steps):
        seen.append((step, steps))
        return schedule(step, steps)

    network, _ = trained(spy)
    assert seen == [(k, 9) for k in range(9)]
    again, _ = trained(schedule)
    np.testing.assert_array_equal(network.parameters, again.parameters)
    halved, _ = trained(lambda k, n: 0.5)
    by_rate, _ = trained(None, lr=0.05)
    np.testing.assert_array_equal(halved.parameters, by_rate.parameters)
    constant, _ = trained(schedules.constant())
    none, _ = trained(None)
    np.testing.assert_array_equal(constant.parameters, none.parameters)
    first_only, _ = trained(lambda k, n: float(k == 0))
    one_step, _ = trained(None, epochs=None, steps=1)
    np.testing.assert_allclose(first_only.parameters, one_step.parameters, rtol=1e-6)


def test_schedule_scales_weight_decay_too():
    """Decay is multiplied by lr, so that it fades with the schedule."""
    still, _ = trained(lambda k, n: 0.0, weight_decay=0.5)
    fresh = dl.Network(dl.mlp([6, 5, 3], activation=dl.Tanh), range(2), "numpy")
    np.testing.assert_array_equal(still.parameters, fresh.parameters)


@pytest.mark.parametrize(
    "schedule", [ReduceOnPlateau(0.1, 0, 0.3), warmup(2, ReduceOnPlateau(0.1, 0, 0.3))]
)
def test_replicas_with_plateaus_equal_each_alone(schedule):
    """Rates differ between replicas, and replica r has the bits of its seed alone."""
    options = dict(epochs=8, lr=0.3)
    together, history = trained(schedule, seeds=range(4), **options)
    unscheduled, _ = trained(None, seeds=range(4), **options)
    for r in range(4):
        alone, its = trained(schedule, seeds=[r], **options)
        np.testing.assert_array_equal(small.parameters(together, r), small.parameters(alone, 0))
        np.testing.assert_array_equal(history.valid_loss[r], its.valid_loss[0])
    assert np.any(together.parameters != unscheduled.parameters)


def test_plateau_counts_records_of_fit():
    """With patience 0 and a threshold nobody meets, each record after the first divides by 10."""
    seen = []

    class Spy(ReduceOnPlateau):
        def begin(self, replicas):
            run = super().begin(replicas)
            old = run.record
            run.record = lambda loss: (old(loss), seen.append((loss.shape, run.factors.copy())))
            return run

    trained(Spy(0.1, 0, 0.999), epochs=6, evaluate_every=2)
    assert [shape for shape, _ in seen] == [(2,)] * 3
    np.testing.assert_allclose([f for _, f in seen], [[1, 1], [0.1, 0.1], [0.01, 0.01]])


def test_plateau_without_validation_data():
    data = small.blobs(valid=0)
    with pytest.raises(ValueError, match="schedule: expected validation data for ReduceOnPlateau"):
        trained(ReduceOnPlateau(), data=data)
    trained(schedules.cosine(), data=data)


@pytest.mark.parametrize(
    ("factor", "error"),
    [(np.nan, ValueError), (-1.0, ValueError), ([1, 1, 1], ValueError), ("x", TypeError)],
)
def test_factors_out_of_range(factor, error):
    with pytest.raises(error, match="schedule: expected"):
        trained(lambda k, n: factor)


def test_a_function_may_give_one_factor_per_replica():
    network, _ = trained(lambda k, n: [1.0, 0.5])
    whole, half = trained(None)[0], trained(None, lr=0.05)[0]
    np.testing.assert_array_equal(small.parameters(network, 0), small.parameters(whole, 0))
    np.testing.assert_array_equal(small.parameters(network, 1), small.parameters(half, 1))


@pytest.mark.parametrize("schedule", [schedules.cosine(), ReduceOnPlateau(0.1, 0, 0.3)])
def test_plain_network_and_every_backend(backend, schedule):
    network, history = trained(schedule, seeds=0, backend=backend)
    assert history.valid_loss.shape == (3,)
    assert np.isfinite(backend.to_numpy(network.parameters)).all()


def test_sweep_labels_schedules_by_what_they_are():
    found = dl.sweep(
        dl.mlp([6, 5, 3]), small.blobs(), seeds=2, optimizer=dl.SGD, lr=0.1, steps=6, batch_size=20,
        schedule=[schedules.cosine(), warmup(2, schedules.exponential())], backend="numpy",
    )  # fmt: skip
    assert list(found.schedule.values) == [
        "cosine(end=0.0)",
        "warmup(length=2, then=exponential(rate=0.1, length=1.0))",
    ]


@pytest.mark.parametrize("shift", [0.0, -3.0, -100.0])
def test_plateaus_of_losses_of_any_sign(shift):
    """A loss that stands still, or gets worse, is no improvement, also below zero."""
    plateau = schedules.ReduceOnPlateau(factor=0.5, patience=2, threshold=0.01).begin(2)
    for k in range(12):
        plateau.record(np.array([1.0 + shift, 1.0 + shift + 0.001 * k]))
    assert (plateau(0, 1) < 0.2).all()
    falling = schedules.ReduceOnPlateau(factor=0.5, patience=2, threshold=0.01).begin(1)
    for k in range(12):
        falling.record(np.array([1.0 + shift - 3.0 * k]))
    assert falling(0, 1) == 1
