import math

import double
import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import optimizers


def sgd(g, lr, decay, theta):
    for k in range(len(g)):
        theta = theta - lr * g[k] - lr * decay * theta
    return theta


def momentum(g, lr, decay, theta, beta=0.9):
    v = 0.0
    for k in range(len(g)):
        v = beta * v + g[k]
        theta = theta - lr * v - lr * decay * theta
    return theta


def adam(g, lr, decay, theta, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = v = 0.0
    for k in range(len(g)):
        m = beta1 * m + (1 - beta1) * g[k]
        v = beta2 * v + (1 - beta2) * g[k] ** 2
        m_hat, v_hat = m / (1 - beta1 ** (k + 1)), v / (1 - beta2 ** (k + 1))
        theta = theta - lr * m_hat / (math.sqrt(v_hat) + epsilon) - lr * decay * theta
    return theta


def nesterov(g, lr, decay, theta, beta=0.9):
    """From the textbook: the gradient is taken at theta (here) after the last v was applied."""
    v = 0.0
    for k in range(len(g)):
        v = beta * v + g[k]
        theta = theta - lr * (g[k] + beta * v) - lr * decay * theta
    return theta


def adagrad(g, lr, decay, theta, epsilon=1e-10):
    for k in range(len(g)):
        root = math.sqrt(sum(x * x for x in g[: k + 1]))
        theta = theta - lr * g[k] / (root + epsilon) - lr * decay * theta
    return theta


def rmsprop(g, lr, decay, theta, beta2=0.9, epsilon=1e-8):
    for k in range(len(g)):
        v = sum((1 - beta2) * beta2 ** (k - i) * g[i] ** 2 for i in range(k + 1))
        theta = theta - lr * g[k] / (math.sqrt(v) + epsilon) - lr * decay * theta
    return theta


def uncorrected(g, lr, decay, theta, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = v = 0.0
    for k in range(len(g)):
        m, v = beta1 * m + (1 - beta1) * g[k], beta2 * v + (1 - beta2) * g[k] ** 2
        theta = theta - lr * m / (math.sqrt(v) + epsilon) - lr * decay * theta
    return theta


def nadam(g, lr, decay, theta, beta1=0.9, beta2=0.999, epsilon=1e-8, psi=0.004):
    mu = [beta1 * (1 - 0.5 * 0.96 ** (psi * t)) for t in range(len(g) + 2)]
    m = v = 0.0
    for t in range(1, len(g) + 1):
        m, v = beta1 * m + (1 - beta1) * g[t - 1], beta2 * v + (1 - beta2) * g[t - 1] ** 2
        m_hat = mu[t + 1] * m / (1 - math.prod(mu[1 : t + 2]))
        m_hat += (1 - mu[t]) * g[t - 1] / (1 - math.prod(mu[1 : t + 1]))
        v_hat = v / (1 - beta2**t)
        theta = theta - lr * m_hat / (math.sqrt(v_hat) + epsilon) - lr * decay * theta
    return theta


#: Optimizer, its recursion for one number in Python floats, and that one's settings.
TABLE = [
    (dl.SGD(), sgd, {}),
    (dl.Momentum(), momentum, {}),
    (dl.Momentum(0.5), momentum, dict(beta=0.5)),
    (dl.Momentum(0.0), sgd, {}),
    (dl.Adam(), adam, {}),
    (dl.Adam(0.5, 0.9, 1e-3), adam, dict(beta1=0.5, beta2=0.9, epsilon=1e-3)),
    (dl.Adam(0.0, 0.99), adam, dict(beta1=0.0, beta2=0.99)),
    (dl.Adam(bias_correction=False), uncorrected, {}),
    (dl.AdamW(), adam, {}),
    (dl.AdamW(0.5, 0.9, 1e-3), adam, dict(beta1=0.5, beta2=0.9, epsilon=1e-3)),
    (dl.Nesterov(), nesterov, {}),
    (dl.Nesterov(0.5), nesterov, dict(beta=0.5)),
    (dl.AdaGrad(), adagrad, {}),
    (dl.AdaGrad(0.1), adagrad, dict(epsilon=0.1)),
    (dl.RMSProp(), rmsprop, {}),
    (dl.RMSProp(0.99, 1e-3), rmsprop, dict(beta2=0.99, epsilon=1e-3)),
    (dl.NAdam(), nadam, {}),
    (dl.NAdam(0.5, 0.9, 1e-3, 0.1), nadam, dict(beta1=0.5, beta2=0.9, epsilon=1e-3, psi=0.1)),
]
IDS = [f"{type(o).__name__}{list(k.values()) or ''}" for o, _, k in TABLE]
DEFAULTS = sorted(small.subclasses(dl.Optimizer), key=lambda cls: cls.__name__)


def test_table_holds_every_optimizer():
    assert {type(o) for o, _, _ in TABLE} == small.subclasses(dl.Optimizer)


def make(backend, seeds=(0, 1, 2)):
    return dl.Network(dl.mlp([3, 4, 2], activation=dl.Tanh), seeds, backend)


def run(network, optimizer, lr, decay=0.0, steps=6, seed=0):
    """Take steps with random gradients; return them (steps, parameters), and the start."""
    backend, rng = network.backend, np.random.default_rng(seed)
    start = backend.to_numpy(network.parameters).astype(float).copy()
    g = rng.standard_normal((steps, start.size)) * np.exp(rng.standard_normal(start.size))
    g = g.astype(backend.dtype)
    lr = np.broadcast_to(np.asarray(lr, float), (network.replicas,))
    decay = np.broadcast_to(np.asarray(decay, float), (network.replicas,))
    decays = backend.asarray(np.append(lr * decay, 0)) if decay.any() else None
    bound = optimizer.bind(network)
    for k in range(steps):
        network.gradients[...] = backend.asarray(g[k])
        bound.step(backend.asarray(lr), decays)
    return g.astype(float), start, bound


def owners(network):
    """For each element of the flat buffer: its replica, and whether it is a weight."""
    replica, weight = (
        np.zeros(network.parameters.size, int),
        np.zeros(network.parameters.size, bool),
    )
    for s in network.slots:
        n = (s.stop - s.start) // network.replicas
        replica[s.start : s.stop] = np.repeat(np.arange(network.replicas), n)
        weight[s.start : s.stop] = s.name == "W"
    return replica, weight


LR, DECAY = np.array([0.1, 0.01, 0.0]), np.array([0.0, 0.3, 0.2])


@pytest.mark.parametrize("decay", [None, DECAY], ids=["no decay", "decay"])
@pytest.mark.parametrize(("optimizer", "formula", "settings"), TABLE, ids=IDS)
def test_against_a_recursion_of_one_number(backend64, optimizer, formula, settings, decay):
    """Each replica with its own rate and decay, each element alone; decay on weights only."""
    network = make(backend64)
    g, start, _ = run(network, optimizer, LR, 0.0 if decay is None else decay)
    replica, weight = owners(network)
    for i, found in enumerate(backend64.to_numpy(network.parameters)):
        own = 0.0 if decay is None or not weight[i] else decay[replica[i]]
        expected = formula(g[:, i], LR[replica[i]], own, start[i], **settings)
        assert found == pytest.approx(expected, rel=1e-11, abs=1e-13)


@pytest.mark.parametrize(("optimizer", "formula", "settings"), TABLE, ids=IDS)
def test_float32(backend, optimizer, formula, settings):
    """float32 throughout, and as near the exact recursion as float32 allows."""
    network = make(backend)
    g, start, bound = run(network, optimizer, 0.01, 0.1)
    _, weight = owners(network)
    expected = [
        formula(g[:, i], 0.01, 0.1 * weight[i], start[i], **settings) for i in range(len(start))
    ]
    np.testing.assert_allclose(backend.to_numpy(network.parameters), expected, rtol=1e-4, atol=1e-5)
    assert {b.dtype for b in (network.parameters, *bound.buffers)} == {np.dtype("float32")}
    assert len(bound.buffers) == len(type(optimizer).state)


@pytest.mark.parametrize("optimizer", [cls() for cls in DEFAULTS], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("size", [1, 5, 12, 16, 1 << 20])
def test_blocks_change_nothing(monkeypatch, optimizer, size):
    whole, cut = make("numpy"), make("numpy")
    run(whole, optimizer, LR, DECAY)
    monkeypatch.setattr(optimizers, "BLOCK", size)
    run(cut, optimizer, LR, DECAY)
    np.testing.assert_array_equal(whole.parameters, cut.parameters)
    covered = optimizer.bind(cut).blocks
    assert sum(block.theta.size for block in covered) == cut.parameters.size
    assert all(block.theta.size <= max(size, 1) for block in covered)


@pytest.mark.parametrize("optimizer", [cls() for cls in DEFAULTS], ids=lambda o: type(o).__name__)
def test_one_block_of_a_gpu_equals_the_blocks_of_a_cpu(monkeypatch, optimizer):
    cpu, gpu = make("numpy"), make("numpy")
    run(cpu, optimizer, LR, DECAY)
    monkeypatch.setattr(optimizers, "_blocks_on_cpu", optimizers._block_on_device)
    run(gpu, optimizer, LR, DECAY)
    np.testing.assert_array_equal(cpu.parameters, gpu.parameters)


@pytest.mark.parametrize("optimizer", [cls() for cls in DEFAULTS], ids=lambda o: type(o).__name__)
def test_rate_zero_changes_nothing(optimizer):
    network = make("numpy")
    before = network.parameters.copy()
    run(network, optimizer, [0.0, 0.1, 0.0], DECAY)
    for r, moved in enumerate([False, True, False]):
        changed = small.parameters(network, r) != before[owners(network)[0] == r]
        assert changed.any() == moved


@pytest.mark.parametrize("cls", DEFAULTS)
def test_replica_equals_its_seed_alone(cls):
    """Bit for bit, each with a rate and decay of its own."""
    lr, decay = np.array([0.1, 0.01, 0.03]), np.array([0.0, 0.1, 0.01])
    options = dict(steps=7, batch_size=16)

    def trained(keep):
        network = make("numpy", np.arange(3)[keep])
        data = small.blobs(features=3, classes=2)
        dl.fit(network, data, cls, lr=lr[keep], weight_decay=decay[keep], **options)
        return network

    together = trained(slice(None))
    for r in range(3):
        alone = trained(slice(r, r + 1))
        np.testing.assert_array_equal(small.parameters(together, r), small.parameters(alone, 0))


@pytest.mark.parametrize("cls", DEFAULTS)
def test_few_array_calls(cls):
    """A step is a handful of launches, whatever R, without a word between host and device."""
    counts = set()
    for replicas in (1, 7):
        backend = dl.Backend("double", double.xp, np.dtype("float32"))
        network = make(backend, range(replicas))
        bound = cls().bind(network)
        lr, decay = backend.asarray(np.ones(replicas)), backend.asarray(np.ones(replicas + 1))
        for _ in range(2):
            with double.count(strict=True) as count:
                bound.step(lr, decay)
            counts.add(count.calls)
    assert len(counts) == 1
    assert max(counts) <= {dl.SGD: 6, dl.NAdam: 21}.get(cls, 19)


DEEP = [dl.Dense(3, 4), dl.Tanh(), dl.Dense(4, 4), dl.Tanh(), dl.Dense(4, 2)]


def deep(backend="numpy", frozen=(), factors=None):
    network = dl.Network(DEEP, (0, 1, 2), backend)
    network.freeze(frozen)
    network.lr_factors |= factors or {}
    return network


def layers_of(network, index):
    """Whether each element of the flat buffer belongs to a layer among ``index``."""
    found = np.zeros(network.parameters.size, bool)
    for s in network.slots:
        found[s.start : s.stop] = s.layer in index
    return found


@pytest.mark.parametrize("frozen", [(0,), (2,), (4,), (0, 4), (0, 2)])
@pytest.mark.parametrize("cls", DEFAULTS)
def test_frozen_layers_stay_and_the_others_do_not_notice(backend, cls, frozen):
    free, part = deep(backend), deep(backend, frozen)
    start = backend.to_numpy(part.parameters).copy()
    run(free, cls(), LR, DECAY)
    _, _, bound = run(part, cls(), LR, DECAY)
    still = layers_of(part, frozen)
    found = backend.to_numpy(part.parameters)
    np.testing.assert_array_equal(found[still], start[still])
    np.testing.assert_array_equal(found[~still], backend.to_numpy(free.parameters)[~still])
    for state in bound.buffers:
        assert not backend.to_numpy(state)[still].any()


def test_all_frozen():
    network = deep(frozen=(0, 2, 4))
    start = network.parameters.copy()
    run(network, dl.Adam(), LR, DECAY)
    np.testing.assert_array_equal(network.parameters, start)


@pytest.mark.parametrize("cls", DEFAULTS)
def test_learning_rates_of_layers(backend, cls):
    """A factor stands for another lr, in the update and in the decay that lr multiplies."""
    found = deep(backend, factors={0: 0.5, 2: 2.0})
    run(found, cls(), LR, DECAY)
    for layer, factor in {0: 0.5, 2: 2.0, 4: 1.0}.items():
        whole = deep(backend)
        run(whole, cls(), factor * LR, DECAY)
        own = layers_of(whole, (layer,))
        np.testing.assert_array_equal(
            backend.to_numpy(found.parameters)[own], backend.to_numpy(whole.parameters)[own]
        )


def test_blocks_on_a_device_are_few():
    """One for all; neighbours that learn alike share one."""
    for options, count in [
        ({}, 1),
        (dict(frozen=(0,)), 1),
        (dict(frozen=(2,)), 2),
        (dict(factors={4: 0.1}), 2),
        (dict(factors={0: 0.1, 2: 0.1}), 2),
        (dict(factors={0: 0.1, 4: 0.1}), 3),
    ]:
        network = deep(dl.Backend("double", double.xp, np.dtype("float32")), **options)
        blocks = dl.Adam().bind(network).blocks
        assert len(blocks) == count
        assert sum(b.theta.size for b in blocks) == sum(s.stop - s.start for s in network.trainable)


def test_bind_starts_fresh():
    """One optimizer object serves many networks; each binding has state and count of its own."""
    optimizer = dl.Adam()
    first, second = make("numpy"), make("numpy")
    run(first, optimizer, 0.01)
    run(second, optimizer, 0.01)
    np.testing.assert_array_equal(first.parameters, second.parameters)
    assert not hasattr(optimizer, "buffers")


def test_adam_keeps_denormals_out():
    network = make("numpy", seeds=0)
    bound = dl.Adam().bind(network)
    network.gradients.fill(1e-17)
    bound.step(np.full(1, 0.1, np.float32))
    _, v = bound.buffers
    np.testing.assert_array_equal(v, np.float32(optimizers.TINY))
    assert np.isfinite(network.parameters).all()
    network.gradients.fill(0)
    before = network.parameters.copy()
    fresh = dl.Adam().bind(network)
    fresh.step(np.full(1, 0.1, np.float32))
    np.testing.assert_array_equal(network.parameters, before)


#: First rates, from which they fall to 0 in 400 steps: Adam's kin moves by about lr whatever g is.
BOWL = {dl.SGD: 0.3, dl.Momentum: 0.05, dl.Nesterov: 0.05, dl.AdaGrad: 0.5}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_reaches_the_minimum_of_a_bowl(backend, cls):
    network = make(backend)
    target = backend.asarray(np.linspace(-1, 1, network.parameters.size))
    bound, lr = cls().bind(network), BOWL.get(cls, 0.1)
    for k in range(400):
        network.gradients[...] = network.parameters - target
        bound.step(backend.asarray(np.full(3, lr * (1 - k / 400))))
    np.testing.assert_allclose(
        backend.to_numpy(network.parameters), backend.to_numpy(target), atol=2e-3
    )


def test_weight_decay_of_its_own_reaches_the_weights():
    """``fit`` takes an optimizer's decay where it is told none; at 0 nothing decays."""
    found = {}
    for name, optimizer, own in [
        ("adam", dl.Adam(), {}),
        ("adamw", dl.AdamW, {}),
        ("adam told", dl.Adam(), dict(weight_decay=0.01)),
        ("more", dl.AdamW(weight_decay=0.5), {}),
        ("told none", dl.AdamW(weight_decay=0.5), dict(weight_decay=0.0)),
    ]:
        network = dl.Network(dl.mlp([6, 4, 3]), range(2), "numpy")
        dl.fit(network, small.blobs(), optimizer, lr=0.01, epochs=2, batch_size=20, **own)
        found[name] = network.parameters.copy()
    np.testing.assert_array_equal(found["adamw"], found["adam told"])
    np.testing.assert_array_equal(found["adam"], found["told none"])
    assert np.abs(found["more"]).sum() < np.abs(found["adamw"]).sum() < np.abs(found["adam"]).sum()


@pytest.mark.parametrize("beta", [-0.1, 1.0, 1.5])
def test_settings_out_of_range(beta):
    for make_one in (dl.Adam, dl.AdamW, dl.NAdam, dl.RMSProp):
        with pytest.raises(ValueError, match=r"beta\d: expected a number in \[0, 1\)"):
            make_one(beta)
    with pytest.raises(ValueError, match="epsilon"):
        dl.AdaGrad(-1.0)
    with pytest.raises(ValueError, match="weight_decay"):
        dl.AdamW(weight_decay=-0.1)
    with pytest.raises(ValueError, match="momentum_decay"):
        dl.NAdam(momentum_decay=-0.1)
