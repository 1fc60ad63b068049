"""The benchmark: the same work on all sides, its count, the checks that notice other work, the report."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import measure, peers, report
from benchmarks.__main__ import PAGE, RESULTS
from benchmarks.cases import NETS, Case, start
from benchmarks.measure import Disagreement, check
from benchmarks.peers import OURS, PEERS, TORCH_PROCESSES

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parent.parent


def few(case, n=2):
    """The case on two replicas, one epoch."""
    return replace(case, replicas=n, epochs=1)


def cut(case, n=2):
    """The steps that are checked, on two replicas."""
    return measure.checked(few(case, n))


def losses(peer, case, begin=None, setting=0, **more):
    begin = begin or start(case)
    return peer.train(case, begin, **peer.settings(case)[setting].options, **more)[1]


def test_the_full_plan_has_what_is_asked_for():
    cases = measure.PLANS["full"].cases
    plain = {(c.net, c.replicas, c.optimizer) for c in cases if c.variant == "plain"}
    sizes = [("small", 20), ("small", 100), ("deep", 20), ("image", 1), ("image", 10)]
    assert plain == {(*s, o) for s in sizes for o in ("momentum", "adam")}
    assert {(c.net, c.variant) for c in cases if c.variant != "plain"} == {
        (net, variant) for net in NETS for variant in ("batch_norm", "dropout")
    }
    assert measure.PLANS["full"].rounds >= 5
    assert NETS["small"][:2] == ((40, 100, 100, 100, 10), 100)
    assert NETS["deep"][:2] == ((64, *[50] * 19, 10), 64)
    assert NETS["image"][:2] == ((784, 300, 100, 10), 64)
    one_by_one, batched = ["torch_loop", "torch_batched"], ["jax", "jax_with_compile"]
    assert list(PEERS) == [*one_by_one, *batched, "sklearn", "matmul_floor"]


def test_training_sets_are_whole_batches_without_a_validation_part():
    for net in NETS:
        case = Case(net, 1, "adam")
        assert len(case.x) == case.steps * case.batch
        assert len(peers.dataset(net).y_valid) == 0


@pytest.mark.parametrize("net", NETS)
def test_operations_are_those_of_the_products(net, monkeypatch):
    """The floor does just the products that are counted, and those are dlcore's."""
    case, count = few(Case(net, 2, "adam")), 0
    real = np.matmul

    def counted(a, b, out):
        nonlocal count
        count += 2 * out.size * a.shape[-1]
        return real(a, b, out=out)

    monkeypatch.setattr(np, "matmul", counted)
    peers.products(case, start(case), slice(0, 2))
    assert count == case.flop


def test_floor_takes_all_replicas_once(monkeypatch):
    seen = []
    monkeypatch.setattr(peers, "products", lambda case, begin, part: seen.extend(range(7)[part]))
    peers.matmul_floor(replace(Case("small", 7, "adam")), None, shard=3)
    assert sorted(seen) == list(range(7))


def test_start_is_dlcores():
    import dlcore as dl

    case = few(Case("small", 2, "adam"))
    begin = start(case)
    net = dl.Network(case.blueprint(), range(2), "numpy")
    assert all((w == la.W).all() for w, la in zip(begin.weights, net.layers[::2], strict=True))
    assert begin.order.shape == (1, 2, len(case.x))
    assert all(sorted(order) == list(range(len(case.x))) for order in begin.order[0])


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_scikit_learn_does_the_same_work(optimizer):
    pytest.importorskip("sklearn")
    case = cut(Case("small", 2, optimizer))
    ours = losses(OURS, case)
    check("sklearn", case, losses(PEERS["sklearn"], case, ordered=True), ours)


@pytest.mark.parametrize("name", ["torch_loop", "torch_batched", "jax"])
@pytest.mark.parametrize("variant", ["plain", "batch_norm", "dropout", "healthy"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_others_do_the_same_work(name, variant, optimizer):
    pytest.importorskip(name.split("_")[0])
    case = cut(Case("small", 3, optimizer, variant), 3)
    check(name, case, losses(PEERS[name], case), losses(OURS, case))


@pytest.mark.parametrize("variant", ["plain", "batch_norm", "dropout"])
def test_other_work_is_noticed(variant, monkeypatch):
    """A rate a tenth larger, or dropout forgotten, gives a ``Disagreement``."""
    case = cut(Case("small", 6, "momentum", variant), 6)
    ours = losses(OURS, case)
    check("dlcore", case, losses(OURS, case), ours)
    if case.dropout:
        other = losses(OURS, replace(case, variant="plain"))
    else:
        monkeypatch.setitem(peers.OPTIMIZERS, "momentum", (peers.OPTIMIZERS["momentum"][0], 0.011))
        other = losses(OURS, case)
    with pytest.raises(Disagreement, match="differs by"):
        check("dlcore", case, other, ours)
    with pytest.raises(Disagreement):
        check("dlcore", case, np.full(6, np.nan), ours)


def fake(name, words, seconds, loss=2.0):
    """A peer that takes so long by the clock, and trains nothing."""
    settings = [peers.Setting(w, {"factor": f}) for w, f in words.items()]

    def train(case, begin, factor):
        return seconds * factor, np.full(case.replicas, loss)

    return peers.Peer(name, lambda case: settings, train)


def test_measuring_takes_the_best_setting_and_pairs_rounds(monkeypatch):
    ours = fake("dlcore", {"slow": 3, "fast": 1}, 0.5)
    other = fake("torch_loop", {"one": 1, "two": 2}, 2.0)
    # Its clock is not real: no need to wait, nor to look through all that other tests have left in memory.
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)
    monkeypatch.setattr(measure, "OURS", ours)
    monkeypatch.setattr(measure.peers, "dlcore", ours.train)
    monkeypatch.setattr(measure.peers, "OURS", ours)
    monkeypatch.setattr(measure, "sides", lambda case: [other])
    (row,) = measure.measure(few(Case("small", 2, "adam")), rounds=6, level=0.95)
    assert row["ratio"] == row["low"] == row["high"] == 4
    assert (row["setting"], row["peer_setting"], row["rounds"]) == ("fast", "one", 6)
    wrong = fake("torch_loop", {"one": 1}, 2.0, loss=2.01)
    monkeypatch.setattr(measure, "sides", lambda case: [wrong])
    with pytest.raises(Disagreement, match="torch_loop"):
        measure.measure(few(Case("small", 2, "adam")), rounds=6, level=0.95)


def test_a_case_with_other_work_is_left_out_and_told(monkeypatch, capsys):
    def failing(case, rounds, level):
        raise Disagreement(f"{case.name}: other work")

    monkeypatch.setattr(measure, "measure", failing)
    found = measure.run("smoke", only=["deep × 3, adam"])
    assert found["failures"] == ["deep × 3, adam: other work"]
    assert found["rows"] == []
    assert "other work" in capsys.readouterr().out


def some_results():
    rows = []
    for optimizer, shift in (("momentum", 0.0), ("adam", 0.5)):
        for i, peer in enumerate([*PEERS, TORCH_PROCESSES.name]):
            ratio = 1.0 + i + shift
            rows.append(
                dict(net="small", replicas=20, optimizer=optimizer, variant="plain", peer=peer,
                     ratio=ratio, low=ratio - 0.1, high=ratio + 0.2, rounds=6, steps=40, seconds=0.5,
                     peer_seconds=0.5 * ratio, gflops=60.0, peer_gflops=60 / ratio,
                     setting="threads, shards of 10", peer_setting="1 thread")
            )  # fmt: skip
    known = [r for r in rows if r["peer"] in PEERS]
    denormal = dict(ratio=1.0, low=0.9, high=1.1, rounds=6, share_denormal=0.5)
    return {
        "machine": "a processor", "plan": "full", "rounds": 6, "level": 0.95, "rows": known,
        "also": [r for r in rows if r not in known], "failures": [], "denormal": denormal,
    }  # fmt: skip


def test_report_and_files(tmp_path):
    found = some_results()
    text = report.text(found)
    assert "1.50 [1.40, 1.70]" in text
    assert "threads, shards of 10" in text
    report.write(found, tmp_path / "bench.json")
    assert report.read(tmp_path / "bench.json") == found
    first = found | {"rows": found["rows"][:5]}
    second = {k: v for k, v in found.items() if k != "denormal"}
    parts = [first | {"also": []}, second | {"rows": found["rows"][5:]}]
    assert report.joined(parts) == found
    with pytest.raises(ValueError, match="one machine"):
        report.joined([found, found | {"machine": "another"}])
    report.figure(found, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"
    page = "# P\n" + "".join(f"<!-- {n} -->\nold\n<!-- end -->\n" for n in report.blocks(found))
    once = report.filled(page, found)
    assert "old" not in once
    assert "| PyTorch, loop | 1.00 (small × 20, momentum) | 1.50 (small × 20, adam) |" in once
    assert report.filled(once, found) == once
    with pytest.raises(ValueError, match="machine"):
        report.filled("# P\n", found)


def test_machine_is_described_without_its_name():
    pytest.importorskip("torch")
    import platform

    from benchmarks import machine

    text = machine.describe()
    assert "NumPy" in text
    assert "OpenBLAS" in text
    assert platform.node() not in text


def test_the_page_shows_the_stored_results():
    if not RESULTS.exists():
        pytest.skip("no results are stored yet")
    found = json.loads(RESULTS.read_text("utf-8"))
    page = PAGE.read_text("utf-8")
    assert report.filled(page, found) == page
    asked = {"net", "replicas", "optimizer", "peer", "ratio", "low", "high"}
    assert all(asked <= set(row) for row in found["rows"])
    assert {row["peer"] for row in found["rows"]} == set(PEERS)
    assert all(0 < row["low"] <= row["ratio"] <= row["high"] for row in found["rows"])
