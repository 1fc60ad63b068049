import io
import sys

import numpy as np
import pytest
import small

import dlcore as dl

LAYERS = dl.mlp([6, 12, 3], batch_norm="before")
HARD = small.blobs(gap=0.5)  # clouds that overlap: the validation loss falls and rises
FIT = dict(lr=0.05, batch_size=20)


def host(network):
    return {name: network.backend.to_numpy(a).copy() for name, a in network.arrays().items()}


def by_hand(seed, backend, rule, epochs):
    """The same in plain words, one network: train on, look, remember, stop.

    An epoch more is a new run of one epoch more, so this relies on nothing but fit without stopping.
    """
    best, kept, best_epoch = np.inf, None, 0
    for epoch in range(1, epochs + 1):
        network = dl.Network(LAYERS, seed, backend)
        kept = host(network) if kept is None else kept
        history = dl.fit(network, HARD, epochs=epoch, **FIT)
        value = getattr(history, rule.monitor)[-1]
        value = -value if rule.monitor == "valid_accuracy" else value
        if value < best - rule.min_delta:
            best, kept, best_epoch = value, host(network), epoch
        if epoch - best_epoch >= rule.patience:
            break
    return kept, best_epoch, epoch, history.valid_loss


RULES = [
    dl.EarlyStopping(2),
    dl.EarlyStopping(3, 0.02),
    dl.EarlyStopping(2, monitor="valid_accuracy"),
]
RULES.append(dl.EarlyStopping(1, 0.05, "train_loss"))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_is_the_run_by_hand(backend, rule):
    seeds = (1, 2, 3, 4)
    network = dl.Network(LAYERS, seeds, backend)
    history = dl.fit(network, HARD, epochs=12, early_stopping=rule, **FIT)
    found = host(network)
    assert len(set(history.stopped_epoch)) > 1
    assert history.valid_loss.shape == (4, 12)
    for r, seed in enumerate(seeds):
        kept, best, last, losses = by_hand(seed, backend, rule, 12)
        assert (history.best_epoch[r], history.stopped_epoch[r]) == (best, last)
        assert np.isnan(history.valid_loss[r, last:]).all()
        assert np.isnan(history.train_loss[r, last:]).all()
        exact = backend.name != "cupy"
        np.testing.assert_allclose(history.valid_loss[r, :last], losses, rtol=0 if exact else 1e-4)
        for name, a in kept.items():
            np.testing.assert_allclose(found[name][r], a, rtol=0, atol=0 if exact else 1e-4)


def test_replica_equals_alone():
    """Bits of weights and history, also for a replica that others outlive."""
    rule = dl.EarlyStopping(2)
    options = dict(epochs=12, early_stopping=rule, probe=dl.probes.learning, **FIT)
    many = dl.Network(LAYERS, (1, 2, 3, 4), "numpy")
    together = dl.fit(many, HARD, **options)
    for r, seed in enumerate((1, 2, 3, 4)):
        alone = dl.Network(LAYERS, seed, "numpy")
        history = dl.fit(alone, HARD, **options)
        for name, a in host(many).items():
            np.testing.assert_array_equal(a[r], host(alone)[name])
        for name in ("train_loss", "valid_loss", "valid_accuracy", "best_epoch", "stopped_epoch"):
            np.testing.assert_array_equal(getattr(together, name)[r], getattr(history, name))
        for name, values in history.probes.items():
            np.testing.assert_array_equal(together.probes[name][r], values)


def test_all_stopped_means_no_more_training(monkeypatch):
    calls = []
    original = dl.Network.backward
    monkeypatch.setattr(
        dl.Network, "backward", lambda self, dy: (calls.append(1), original(self, dy))[1]
    )
    network = dl.Network(LAYERS, (1, 2, 3), "numpy")
    history = dl.fit(network, HARD, epochs=40, early_stopping=dl.EarlyStopping(2), **FIT)
    assert len(calls) == 3 * history.stopped_epoch.max() < 120
    assert history.epoch[-1] == 40


def test_the_best_loss_comes_back(backend):
    network = dl.Network(LAYERS, (1, 2), backend)
    history = dl.fit(network, HARD, epochs=8, early_stopping=dl.EarlyStopping(100), **FIT)
    assert history.stopped_epoch.tolist() == [8, 8]
    loss = dl.evaluate(network, HARD)[0]
    np.testing.assert_allclose(loss, history.valid_loss.min(axis=-1), rtol=1e-6)
    np.testing.assert_array_equal(history.best_epoch, history.valid_loss.argmin(axis=-1) + 1)


def test_without_it_there_are_no_epochs():
    history = dl.fit(dl.Network(LAYERS, 0, "numpy"), HARD, epochs=1, **FIT)
    assert history.best_epoch is None
    assert history.stopped_epoch is None


def test_sparse_records_and_other_parts_of_fit(backend):
    """With a plateau schedule, penalties and a record every second epoch."""
    network = dl.Network(LAYERS, (1, 2), backend)
    history = dl.fit(
        network, HARD, epochs=11, evaluate_every=2, early_stopping=dl.EarlyStopping(3),
        schedule=dl.ReduceOnPlateau(patience=1), regularizers=[dl.L2(0.01), dl.MaxNorm(2)], **FIT,
    )  # fmt: skip
    assert history.epoch.tolist() == [2, 4, 6, 8, 10, 11]
    assert set(history.stopped_epoch) <= {2, 4, 6, 8, 10, 11}
    assert ((history.stopped_epoch - history.best_epoch >= 3) | (history.stopped_epoch == 11)).all()
    loss = dl.evaluate(network, HARD)[0]
    np.testing.assert_allclose(loss, np.nanmin(history.valid_loss, axis=-1), rtol=1e-5)


def test_diverged_replica(backend):
    """Marked, at zero weights, its curves infinite, and the others as without it."""
    options = dict(epochs=8, batch_size=20, early_stopping=dl.EarlyStopping(2))
    plain = dl.mlp([6, 12, 3])
    network = dl.Network(plain, (1, 2, 3), backend)
    history = dl.fit(network, HARD, dl.SGD, lr=[0.5, 1e30, 0.5], **options)
    assert history.diverged.tolist() == [False, True, False]
    assert (small.parameters(network, 1) == 0).all()
    assert np.isinf(history.valid_loss[1]).all()
    others = dl.Network(plain, (1, 3), backend)
    expected = dl.fit(others, HARD, dl.SGD, lr=0.5, **options)
    np.testing.assert_array_equal(history.best_epoch[[0, 2]], expected.best_epoch)
    if backend.name == "numpy":
        np.testing.assert_array_equal(small.parameters(network, 2), small.parameters(others, 1))


def test_bad_arguments():
    with pytest.raises(ValueError, match="patience"):
        dl.EarlyStopping(0)
    with pytest.raises(ValueError, match="min_delta"):
        dl.EarlyStopping(1, -0.1)
    with pytest.raises(ValueError, match="monitor: expected 'valid_loss'"):
        dl.EarlyStopping(1, monitor="loss")
    network = dl.Network(LAYERS, 0, "numpy")
    with pytest.raises(ValueError, match="early_stopping: expected validation examples"):
        dl.fit(network, small.blobs(valid=0), epochs=1, early_stopping=dl.EarlyStopping(1), **FIT)
    with pytest.raises(TypeError, match="early_stopping: expected EarlyStopping"):
        dl.fit(network, HARD, epochs=1, early_stopping=3, **FIT)


# The progress bar ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("progress", "terminal", "disabled", "shown"),
    [(None, False, "", False), (True, False, "", True), (None, True, "", True),
     (False, True, "", False), (None, True, "1", False)],
)  # fmt: skip
def test_progress_bar(capsys, monkeypatch, progress, terminal, disabled, shown):
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    dl.fit(dl.Network(LAYERS, 0, "numpy"), HARD, epochs=2, progress=progress, **FIT)
    out = capsys.readouterr()
    assert ("epoch" in out.err) == shown
    assert out.out == ""


def test_a_notebook_shows_a_bar(monkeypatch):
    """Its stream says that it is no terminal."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    dl.fit(dl.Network(LAYERS, 0, "numpy"), HARD, epochs=2, **FIT)
    assert "epoch" in stream.getvalue()
