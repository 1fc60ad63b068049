"""Every schedule against PyTorch's schedulers, over whole runs.

PyTorch's schedulers mostly multiply the last rate, cosine by a ratio of cosines, where dlcore has a
closed form. Conventions that differ:

- PyTorch's settings are per scheduler step; dlcore's lengths are steps, or shares of the run.
- PyTorch has no ``inverse_time`` (LambdaLR here), and an end only for the straight ``polynomial``
  (LinearLR); its ``constant`` multiplies by a factor.
- Warm-up: LinearLR from 1 / (s + 1), then the other schedule from its own step 0, by SequentialLR.
- OneCycleLR also cycles momentum unless told not to; dlcore never does.
- ReduceLROnPlateau ignores changes of lr below eps = 1e-8, which is 0 here; its ``min_lr`` is a
  rate, dlcore's ``end`` a factor.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from compare import assert_same, subclasses
from torch.optim import lr_scheduler as lrs

from dlcore import schedules
from dlcore.schedules import ReduceOnPlateau, Schedule, warmup

LR = 0.25


def rates(make, steps):
    """Learning rates that a scheduler of PyTorch gives steps 0, 1, …"""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    found = []
    with warnings.catch_warnings():
        # SequentialLR passes an epoch to its parts, which PyTorch itself warns of.
        warnings.filterwarnings("ignore", "The epoch parameter", UserWarning)
        scheduler = make(optimizer)
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return np.array(found)


def after_warmup(s, then):
    def make(o):
        rise = lrs.LinearLR(o, start_factor=1 / (s + 1), total_iters=s)
        return lrs.SequentialLR(o, [rise, then(o)], milestones=[s])

    return make


#: Schedule, and a function of n that makes PyTorch's scheduler for runs of n steps.
TABLE = [
    (schedules.constant(), lambda n: lambda o: lrs.ConstantLR(o, factor=1.0)),
    (
        schedules.piecewise([4, 9], [1, 0.3, 0.09]),
        lambda n: lambda o: lrs.MultiStepLR(o, [4, 9], gamma=0.3),
    ),
    (
        schedules.piecewise([0.5, 0.75], [1, 0.1, 0.01]),
        lambda n: lambda o: lrs.MultiStepLR(o, [round(0.5 * n), round(0.75 * n)], gamma=0.1),
    ),
    (schedules.exponential(0.9, 1), lambda n: lambda o: lrs.ExponentialLR(o, 0.9)),
    (schedules.exponential(), lambda n: lambda o: lrs.ExponentialLR(o, 0.1 ** (1 / n))),
    (schedules.inverse_time(7), lambda n: lambda o: lrs.LambdaLR(o, lambda k: 1 / (1 + k / 7))),
    (schedules.polynomial(), lambda n: lambda o: lrs.PolynomialLR(o, n)),
    (schedules.polynomial(2.0), lambda n: lambda o: lrs.PolynomialLR(o, n, power=2.0)),
    (
        schedules.polynomial(1.0, 0.2),
        lambda n: lambda o: lrs.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=n),
    ),
    (schedules.cosine(), lambda n: lambda o: lrs.CosineAnnealingLR(o, n)),
    (schedules.cosine(0.1), lambda n: lambda o: lrs.CosineAnnealingLR(o, n, eta_min=0.1 * LR)),
    (warmup(5), lambda n: after_warmup(5, lambda o: lrs.ConstantLR(o, factor=1.0))),
    (
        warmup(5, schedules.exponential(0.9, 1)),
        lambda n: after_warmup(5, lambda o: lrs.ExponentialLR(o, 0.9)),
    ),
    (
        warmup(3, schedules.polynomial()),
        lambda n: after_warmup(3, lambda o: lrs.PolynomialLR(o, n - 3)),
    ),
]


def test_every_public_schedule_is_compared():
    compared = {type(s) for s, _ in TABLE} | {schedules.one_cycle, ReduceOnPlateau}
    assert compared == subclasses(Schedule)


@pytest.mark.parametrize("steps", [20, 137, 1000])
@pytest.mark.parametrize(("schedule", "make"), TABLE, ids=[repr(s) for s, _ in TABLE])
def test_rates_of_a_run(schedule, make, steps):
    found = LR * np.array([schedule(k, steps) for k in range(steps)])
    assert_same(found, rates(make(steps), steps))


@pytest.mark.parametrize("steps", [20, 137, 1000])
@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        (schedules.one_cycle(), {}),
        (
            schedules.one_cycle(0.5, 0.1, 0.01),
            dict(pct_start=0.5, div_factor=10, final_div_factor=10),
        ),
    ],
)
def test_one_cycle(schedule, settings, steps):
    """PyTorch refuses a step after its last, so the last of its rates is read before it is asked."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = lrs.OneCycleLR(
        optimizer, max_lr=LR, total_steps=steps, cycle_momentum=False, **settings
    )
    expected = []
    for k in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if k < steps - 1:
            scheduler.step()
    assert_same(LR * np.array([schedule(k, steps) for k in range(steps)]), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        dict(factor=0.5, patience=2),
        dict(factor=0.5, patience=0, threshold=0.05),
        dict(factor=0.5, patience=1, cooldown=3),
        dict(factor=0.3, patience=1, end=0.01),
    ],
    ids=str,
)
def test_reduce_on_plateau(settings):
    """60 records of noisy losses in two replicas, each against a scheduler of its own."""
    rng = np.random.default_rng(3)
    losses = np.exp(-np.arange(60) / 10)[:, None] + 0.3 + 0.1 * rng.random((60, 2))
    run = schedules.begin(ReduceOnPlateau(**settings), 2)
    theirs = {k: v for k, v in settings.items() if k != "end"} | dict(eps=0)
    theirs["min_lr"] = LR * settings.get("end", 0.0)
    optimizers = [torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR) for _ in range(2)]
    schedulers = [lrs.ReduceLROnPlateau(o, **theirs) for o in optimizers]
    found, expected = [], []
    for loss in losses:
        run.record(loss)
        for value, scheduler in zip(loss, schedulers, strict=True):
            scheduler.step(value)
        found.append(LR * run(0, 60))
        expected.append([o.param_groups[0]["lr"] for o in optimizers])
    assert np.unique(expected).size > 1
    assert_same(found, expected)


def test_defaults_of_reduce_on_plateau_agree():
    theirs = lrs.ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR))
    ours = ReduceOnPlateau()
    assert (ours.factor, ours.patience, ours.threshold, ours.cooldown) == (
        *(theirs.factor, theirs.patience, theirs.threshold, theirs.cooldown),
    )
    assert theirs.threshold_mode == "rel"
