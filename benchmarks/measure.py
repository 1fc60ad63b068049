"""Checks that all sides do the same work, finds each one's best setting, and times them in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import peers
from benchmarks.cases import Case, Start, start
from benchmarks.peers import OURS, Peer, Setting
from dlcore.statistics import ratio

#: All sides train this many steps from the same start. Half of the replicas, at least, have a mean loss over
#: them that differs by less than the tolerance, relatively, and all differ by less than ``ROUGH``.
#: Computations are in float32, and training magnifies rounding: in the deep net with batch norm, dlcore in
#: float32 and in float64 differ by 2 % in one replica of ten after three steps, by 1e-6 in the median one.
CHECKED, TOLERANCE, DEEP_BATCH_NORM = 3, 1e-4, 1e-3
#: The same at the end for the mean over replicas, after rounding has grown; and where batches are drawn anew.
ROUGH, OWN_BATCHES = 0.05, 0.25
#: Peers that train one net after another: their settings are tried on this many nets.
ONE_BY_ONE, FEW = ("torch_loop", "torch_processes", "sklearn"), 4


class Disagreement(AssertionError):
    """Two sides did not do the same work."""


@dataclass(frozen=True)
class Plan:
    """What to measure: rounds, level of the intervals, cases, and replicas of the net that vanishes."""

    rounds: int
    replicas: int
    level: float
    cases: tuple[Case, ...]


def _cases() -> tuple[Case, ...]:
    plain = [
        Case(net, replicas, optimizer, epochs=epochs)
        for net, replicas, epochs in (
            ("small", 20, 2),
            ("small", 100, 1),
            ("deep", 20, 1),
            ("image", 1, 3),
            ("image", 10, 1),
        )
        for optimizer in ("momentum", "adam")
    ]
    others = [
        Case(net, replicas, "adam", variant)
        for variant in ("batch_norm", "dropout")
        for net, replicas in (("small", 20), ("deep", 20), ("image", 10))
    ]
    return (*plain, *others)


#: Each net, optimizer and variant once, for a few seconds.
SMOKE = (
    Case("small", 3, "momentum"),
    Case("deep", 3, "adam"),
    Case("image", 1, "momentum"),
    Case("small", 3, "adam", "batch_norm"),
    Case("deep", 3, "momentum", "dropout"),
)
PLANS = {
    "full": Plan(rounds=6, replicas=20, level=0.95, cases=_cases()),
    "smoke": Plan(rounds=2, replicas=3, level=0.5, cases=SMOKE),
}


def first(case: Case, begin: Start, n: int) -> tuple[Case, Start]:
    """Return the case with its first n replicas only."""
    return replace(case, replicas=n), Start([w[:n] for w in begin.weights], begin.order[:, :n])


def timed(peer: Peer, case: Case, begin: Start, setting: Setting) -> tuple[float, np.ndarray]:
    """Train once, after a rest in which the last one's threads and garbage settle."""
    gc.collect()
    time.sleep(0.05)
    seconds, losses = peer.train(case, begin, **setting.options)
    return seconds, np.asarray(losses, dtype=np.float64)


def checked(case: Case) -> Case:
    """Return the steps over which losses are compared: with dropout an epoch, for only means can be."""
    return case.once(0 if case.dropout else CHECKED)


def check(name: str, case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    """Raise ``Disagreement`` unless a peer's losses over the steps that are checked are dlcore's.

    Dropout's masks differ, so there the mean difference must be one that chance explains: t's
    two-sided probability at least 1e-5.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise Disagreement(f"{case.name}, {name}: losses {found}, expected {expected}")
    if case.dropout:
        n = len(found)
        difference = found - expected
        limit = stats.t.ppf(1 - 5e-6, n - 1) * difference.std(ddof=1) / n**0.5
        if abs(difference.mean()) > limit:
            raise Disagreement(
                f"{case.name}, {name}: mean loss differs by {difference.mean():.3g}, "
                f"by chance at most {limit:.3g}"
            )
        return
    errors = np.abs(found / expected - 1)
    limit = DEEP_BATCH_NORM if case.net == "deep" and case.batch_norm else TOLERANCE
    if not (np.median(errors) <= limit and errors.max() <= ROUGH):
        raise Disagreement(
            f"{case.name}, {name}: loss differs by {np.median(errors):.2g} of itself"
        )


def best_setting(peer: Peer, case: Case, begin: Start, expected: np.ndarray) -> Setting:
    """Check the losses of the first steps in each setting, time an epoch, return the fastest setting."""
    if peer.name in ONE_BY_ONE:
        case, begin = first(case, begin, min(FEW, case.replicas))
        expected = expected[: case.replicas]
    seconds = {}
    settings = peer.settings(case)
    ordered = {"ordered": True} if peer.name == "sklearn" else {}  # else it draws its own batches
    for i, setting in enumerate(settings):
        losses = peer.train(checked(case), begin, **setting.options, **ordered)[1]
        if peer.name != "matmul_floor":
            check(peer.name, case, losses, expected)
        if len(settings) > 1:
            timed(peer, case, begin, setting)
            seconds[i] = timed(peer, case, begin, setting)[0]
    return settings[min(seconds, key=lambda i: seconds[i])] if seconds else settings[0]


def sides(case: Case) -> list[Peer]:
    """Return the peers of a case; worker processes only where there are nets to deal out."""
    found = [p for p in peers.PEERS.values() if peers.runs(p, case)]
    return [*found, peers.TORCH_PROCESSES] if case.replicas > 1 else found


def measure(case: Case, rounds: int, level: float) -> list[dict[str, Any]]:
    """Time dlcore and its peers in turn; return one row per peer."""
    begin = start(case)
    once, first_epoch = case.once(), Start(begin.weights, begin.order[:1])
    expected = peers.dlcore(checked(case), first_epoch, **peers.OURS.settings(case)[0].options)[1]
    best = {}
    for peer in (OURS, *sides(case)):
        if peer.name == "jax_with_compile":
            best[peer.name] = best["jax"]
        else:
            best[peer.name] = best_setting(peer, once, first_epoch, expected)
    everyone = [OURS, *sides(case)]
    seconds: dict[str, list[float]] = {peer.name: [] for peer in everyone}
    losses = {}
    for number in range(rounds):
        # Each round begins with another side and every second one runs backwards.
        turn = everyone[number % len(everyone) :] + everyone[: number % len(everyone)]
        for peer in reversed(turn) if number % 2 else turn:
            took, losses[peer.name] = timed(peer, case, begin, best[peer.name])
            seconds[peer.name].append(took)
    for peer in sides(case):
        if peer.name != "matmul_floor":
            _roughly(peer.name, case, losses[peer.name], losses[OURS.name])
    return [_row(case, peer, best, seconds, level) for peer in sides(case)]


def _roughly(name: str, case: Case, found: np.ndarray, expected: np.ndarray) -> None:
    error = abs(found.mean() / expected.mean() - 1)
    if not error <= (OWN_BATCHES if name == "sklearn" else ROUGH):
        raise Disagreement(f"{case.name}, {name}: mean loss at the end differs by {error:.2g}")


def _row(case: Case, peer: Peer, best: dict, seconds: dict, level: float) -> dict[str, Any]:
    times = ratio(seconds[peer.name], seconds[OURS.name], level=level, median=True)
    ours, theirs = (float(np.median(seconds[name])) for name in (OURS.name, peer.name))
    return {
        "net": case.net,
        "replicas": case.replicas,
        "optimizer": case.optimizer,
        "variant": case.variant,
        "peer": peer.name,
        "ratio": _short(times.mean),
        "low": _short(times.low),
        "high": _short(times.high),
        "rounds": times.n,
        "steps": case.steps * case.epochs,
        "seconds": _short(ours),
        "peer_seconds": _short(theirs),
        "gflops": _short(case.flop / ours / 1e9),
        "peer_gflops": _short(case.flop / theirs / 1e9),
        "setting": best[OURS.name].words,
        "peer_setting": best[peer.name].words,
    }


def _short(x: float) -> float:
    return float(f"{x:.4g}")


def denormals(rounds: int, replicas: int, level: float) -> dict[str, Any]:
    """Time the deep logistic net with vanishing gradients against the same net with healthy ones."""
    pair = [Case("deep", replicas, "adam", variant) for variant in ("vanishing", "healthy")]
    setting = OURS.settings(pair[0])[0]
    begins = [start(case) for case in pair]
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for i in (0, 1) if number % 2 else (1, 0):
            seconds[i].append(timed(OURS, pair[i], begins[i], setting)[0])
    vanishing, healthy = (times[1:] for times in seconds)  # the first round warms up
    found = ratio(vanishing, healthy, level=level, median=True)
    return {
        "net": "deep",
        "replicas": replicas,
        "optimizer": "adam",
        "variant": "vanishing against healthy gradients, logistic",
        "share_denormal": _short(_share_denormal(pair[0])),
        "ratio": _short(found.mean),
        "low": _short(found.low),
        "high": _short(found.high),
        "rounds": found.n,
    }


def _share_denormal(case: Case) -> float:
    """Return the share of the lowest layer's gradients that are denormal or underflow to zero."""
    import dlcore as dl
    from benchmarks.cases import dataset

    net = dl.Network(case.blueprint(), [0], "numpy")
    data = dataset(case.net)
    dl.fit(net, data, dl.Adam, lr=case.lr, steps=1, batch_size=case.batch)
    gradient = np.abs(net.layers[0].dW)
    return float((gradient < np.finfo(np.float32).tiny).mean())


def run(name: str, only: Iterable[str] = ()) -> dict:
    """Measure a plan's cases, or those whose name contains one of ``only``; return the result.

    Cases in which somebody did other work are left out and listed among the ``failures``.
    """
    plan, rows, failures = PLANS[name], [], []
    wanted = [c for c in plan.cases if not only or any(part in c.name for part in only)]
    for case in wanted:
        before = time.perf_counter()
        try:
            rows += measure(case, plan.rounds, plan.level)
        except Disagreement as error:
            failures.append(str(error))
        print(f"{case.name}: {time.perf_counter() - before:.0f} s", *failures[-1:], flush=True)
    found = {"plan": name, "rounds": plan.rounds, "level": plan.level}
    found["rows"] = [r for r in rows if r["variant"] == "plain" and r["peer"] in peers.PEERS]
    found["also"] = [r for r in rows if r not in found["rows"]]
    found["failures"] = failures
    if not only or "denormal" in only:
        found["denormal"] = denormals(plan.rounds, plan.replicas, plan.level)
    return found
