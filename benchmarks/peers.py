"""dlcore and the others: each trains one case from the same start.

A peer has ``settings(case)``, a list of the ways in which its users would run it, and
``train(case, start, setting)``, which returns seconds and each replica's mean loss over the last epoch.
Only training is timed: data, first weights and batch orders are given. dlcore alone is timed from the call
of ``dl.sweep`` to its result, so that drawing weights and batches is in its time and not in the others'.
"""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

import dlcore as dl
from benchmarks.cases import OPTIMIZERS, Case, Start, dataset
from benchmarks.machine import cores

CORES = cores()


class Setting(NamedTuple):
    """A way to run: words for the table, and options for ``train``."""

    words: str
    options: dict[str, Any]


class Peer(NamedTuple):
    """One side of the comparison."""

    name: str
    settings: Callable[[Case], list[Setting]]
    train: Callable[..., tuple[float, np.ndarray]]


def threads(case: Case) -> list[Setting]:
    """One thread, or as many as there are cores."""
    return [Setting(counted(n, "thread"), {"threads": n}) for n in sorted({1, CORES})]


def counted(n: int, what: str) -> str:
    """Return the number with its noun."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


# --------------------------------------------------------------------------------------------------
# dlcore


@functools.cache
def processes() -> ProcessPoolExecutor:
    """Return worker processes, started once, outside of what is timed."""
    pool = ProcessPoolExecutor(CORES, mp_context=multiprocessing.get_context("spawn"))
    list(pool.map(time.sleep, [0.5] * CORES))
    return pool


def shards(case: Case) -> list[Setting]:
    """Threads with shards of several sizes; processes where the interpreter may hold threads back.

    One net has but the threads of its matrix products.
    """
    if case.replicas == 1:
        numbers = sorted({1, CORES})
        return [Setting(counted(n, "BLAS thread"), {"shard": 1, "blas": n}) for n in numbers]
    sizes = sorted({max(1, -(-case.replicas // k)) for k in (CORES, 2 * CORES, 5 * CORES)})
    found = [Setting(f"threads, shards of {n}", {"shard": n}) for n in sizes]
    if case.net == "deep":
        half = -(-case.replicas // CORES)
        found.append(
            Setting(f"{CORES} processes, shards of {half}", {"shard": half, "apart": True})
        )
    return found


def dlcore(case: Case, start: Start, shard: int, apart: bool = False, blas: int = 1):
    """``dl.sweep``, as a reader calls it."""
    executor = processes() if apart else None
    begin = time.perf_counter()
    runs = dl.sweep(
        case.blueprint(),
        dataset(case.net),
        seeds=case.replicas,
        optimizer=OPTIMIZERS[case.optimizer][0],
        lr=case.lr,
        batch_size=case.batch,
        steps=case.steps * case.epochs,
        backend="numpy",
        shard=shard,
        executor=executor,
        blas_threads=blas,
    )
    return time.perf_counter() - begin, runs.train_loss.values[:, -1]


# --------------------------------------------------------------------------------------------------
# PyTorch


def torch_threads(number: int) -> Any:
    import torch

    torch.set_num_threads(number)
    return torch


def torch_net(case: Case, start: Start, r: int) -> Any:
    """One net of ``torch.nn`` with replica r's first weights."""
    import torch

    layers: list[Any] = []
    for i, (fan_in, fan_out) in enumerate(case.shapes):
        dense = torch.nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            dense.weight.copy_(torch.from_numpy(start.weights[i][r].T))
            dense.bias.zero_()
        layers.append(dense)
        if i < len(case.shapes) - 1:
            layers += [torch.nn.BatchNorm1d(fan_out)] if case.batch_norm else []
            layers.append(torch.nn.Sigmoid() if case.activation == "logistic" else torch.nn.ReLU())
            layers += [torch.nn.Dropout(case.dropout)] if case.dropout else []
    return torch.nn.Sequential(*layers)


def torch_optimizer(case: Case, parameters: Any, **options: Any) -> Any:
    import torch

    if case.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=case.lr, **options)
    return torch.optim.SGD(parameters, lr=case.lr, momentum=0.9, **options)


def torch_one(case: Case, start: Start, r: int, x: Any, y: Any, orders: Any) -> float:
    """Train replica r; the loop of the PyTorch tutorials, on batches given by their indices."""
    import torch

    net = torch_net(case, start, r)
    optimizer = torch_optimizer(case, net.parameters())
    criterion = torch.nn.CrossEntropyLoss()
    net.train()
    for order in orders[:, r, : case.steps * case.batch]:
        total = torch.zeros(())
        for rows in order.split(case.batch):
            loss = criterion(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
    return total.item() / case.steps


def torch_loop(case: Case, start: Start, threads: int, only: Any = None):
    """PyTorch's usual eager loop, one net after another."""
    torch = torch_threads(threads)
    x, y = torch.tensor(case.x), torch.tensor(case.y)
    orders = torch.from_numpy(start.order)
    begin = time.perf_counter()
    losses = [
        torch_one(case, start, r, x, y, orders)
        for r in (range(case.replicas) if only is None else only)
    ]
    return time.perf_counter() - begin, np.array(losses)


def torch_processes(case: Case, start: Start):
    """The same loop, the nets dealt out to worker processes of one thread each."""
    parts = [list(range(case.replicas))[k::CORES] for k in range(CORES)]
    begin = time.perf_counter()
    done = [
        processes().submit(torch_loop, case, start, threads=1, only=part) for part in parts if part
    ]
    losses = np.empty(case.replicas)
    for part, job in zip(parts, done, strict=False):
        losses[part] = job.result()[1]
    return time.perf_counter() - begin, losses


def torch_batched(case: Case, start: Start, threads: int):
    """All nets at once: ``baddbmm`` on stacked weights, fused optimizer."""
    torch = torch_threads(threads)
    functional = torch.nn.functional
    replicas, batch, layers = case.replicas, case.batch, len(case.shapes)
    x, y = torch.tensor(case.x), torch.tensor(case.y)
    orders = torch.from_numpy(start.order)
    weights = [torch.tensor(w, requires_grad=True) for w in start.weights]
    biases = [torch.zeros(replicas, 1, b, requires_grad=True) for _, b in case.shapes]
    parameters = [*weights, *biases]
    if case.batch_norm:
        hidden = [b * replicas for _, b in case.shapes[:-1]]
        gammas = [torch.ones(n, requires_grad=True) for n in hidden]
        betas = [torch.zeros(n, requires_grad=True) for n in hidden]
        running = [(torch.zeros(n), torch.ones(n)) for n in hidden]
        parameters += gammas + betas

    def forward(h):
        for i in range(layers):
            h = torch.baddbmm(biases[i], h, weights[i])
            if i == layers - 1:
                return h
            if case.batch_norm:
                rows = h.transpose(0, 1).reshape(batch, -1)
                rows = functional.batch_norm(rows, *running[i], gammas[i], betas[i], training=True)
                h = rows.view(batch, replicas, -1).transpose(0, 1)
            h = torch.sigmoid(h) if case.activation == "logistic" else torch.relu(h)
            if case.dropout:
                h = functional.dropout(h, case.dropout)

    begin = time.perf_counter()
    optimizer = torch_optimizer(case, parameters, fused=True)
    for order in orders:
        total = torch.zeros(replicas)
        for k in range(case.steps):
            rows = order[:, k * batch : (k + 1) * batch].reshape(-1)
            logits = forward(x.index_select(0, rows).view(replicas, batch, -1))
            loss = functional.cross_entropy(
                logits.reshape(replicas * batch, -1), y.index_select(0, rows), reduction="none"
            )
            loss = loss.view(replicas, batch).mean(dim=1)
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
            total += loss.detach()
    return time.perf_counter() - begin, (total / case.steps).numpy()


# --------------------------------------------------------------------------------------------------
# JAX


def jax_step(case: Case) -> Callable:
    """Return one net's training step: ``(state, x, y, key, t) -> (state, loss)``, to be vmapped."""
    import jax
    import jax.numpy as jnp

    def normalised(z, own):
        mean, var = z.mean(axis=0), z.var(axis=0)
        z = (z - mean) * jax.lax.rsqrt(var + 1e-5) * own["gamma"] + own["beta"]
        n = case.batch
        return z, (mean, var * n / (n - 1))

    def loss(parameters, x, y, key):
        h, seen = x, []
        for i, own in enumerate(parameters):
            h = h @ own["W"] + own["b"]
            if i == len(parameters) - 1:
                break
            if case.batch_norm:
                h, statistics = normalised(h, own)
                seen.append(statistics)
            h = jax.nn.sigmoid(h) if case.activation == "logistic" else jax.nn.relu(h)
            if case.dropout:
                keep = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - case.dropout, h.shape)
                h = jnp.where(keep, h / (1 - case.dropout), 0)
        log_p = jax.nn.log_softmax(h)
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean(), seen

    def momentum(p, g, s, t):
        v = 0.9 * s[0] + g
        return p - case.lr * v, (v,)

    def adam(p, g, s, t):
        m, v = 0.9 * s[0] + 0.1 * g, 0.999 * s[1] + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        return p - case.lr * m_hat / (jnp.sqrt(v_hat) + 1e-8), (m, v)

    rule = {"momentum": momentum, "adam": adam}[case.optimizer]

    def step(state, x, y, key, t):
        parameters, moments, running = state
        key = jax.random.fold_in(key, t.astype(int)) if case.dropout else key
        (value, seen), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, x, y, key)
        flat, tree = jax.tree.flatten(parameters)
        new = [
            rule(p, g, s, t)
            for p, g, s in zip(flat, jax.tree.leaves(gradients), moments, strict=True)
        ]
        running = jax.tree.map(lambda old, now: 0.9 * old + 0.1 * now, running, seen)
        return (tree.unflatten(p for p, _ in new), [s for _, s in new], running), value

    return step


def jax_ways(case: Case) -> list[Setting]:
    """XLA's threads cannot be changed within a process: it uses all cores."""
    return [
        Setting(f"{counted(CORES, 'thread')}, call per step", {"scan": False}),
        Setting(f"{counted(CORES, 'thread')}, loop over epoch", {"scan": True}),
    ]


def jax_start(case: Case, start: Start) -> Any:
    """Return parameters, the optimizer's state and running statistics, all with a replica axis."""
    import jax
    import jax.numpy as jnp

    parameters, running = [], []
    for i, (w, (_, width)) in enumerate(zip(start.weights, case.shapes, strict=True)):
        zeros, ones = np.zeros((case.replicas, width)), np.ones((case.replicas, width))
        own = {"W": w, "b": zeros}
        if case.batch_norm and i < len(case.shapes) - 1:
            own |= {"gamma": ones, "beta": zeros}
            running.append((zeros, ones))
        parameters.append(own)
    copies = 2 if case.optimizer == "adam" else 1
    moments = [(np.zeros_like(p),) * copies for p in jax.tree.leaves(parameters)]
    return jax.tree.map(lambda a: jnp.array(a, dtype=jnp.float32), (parameters, moments, running))


def jax_compile(case: Case, scan: bool, arguments: tuple) -> Callable:
    """Compile a step of all replicas, or a loop of it over an epoch."""
    import jax

    each = jax.vmap(jax_step(case), in_axes=(0, 0, 0, 0, None))

    def step(state, total, order, k, t, steps, x, y, keys):
        rows = jax.lax.dynamic_slice_in_dim(order, k * case.batch, case.batch, axis=1)
        state, losses = each(state, x[rows], y[rows], keys, t + k + 1.0)
        return state, total + losses

    def epoch(state, total, order, k, t, steps, x, y, keys):
        def one(k, carry):
            return step(*carry, order, k, t, steps, x, y, keys)

        return jax.lax.fori_loop(0, steps, one, (state, total))

    return jax.jit(epoch if scan else step, donate_argnums=(0, 1)).lower(*arguments).compile()


@functools.cache
def jax_compiled(case: Case, scan: bool) -> Callable:
    """Return what ``jax_compile`` makes, compiled once."""
    start = Start([np.zeros((case.replicas, *s)) for s in case.shapes], np.zeros((1, 1, 1)))
    return jax_compile(case, scan, jax_arguments(case, start)[1:])


def jax_arguments(case: Case, start: Start) -> tuple:
    """Return the orders of all epochs, then the arguments of the first call."""
    import jax
    import jax.numpy as jnp

    shape = (case.replicas, len(case.x))
    orders = [jnp.array(np.broadcast_to(o, shape), dtype=jnp.int32) for o in start.order]
    keys = jax.random.split(jax.random.key(0), case.replicas)
    state, total = jax_start(case, start), jnp.zeros(case.replicas)
    first = (state, total, orders[0], np.int32(0), np.float32(0), np.int32(case.steps))
    return (orders, *first, jnp.array(case.x), jnp.array(case.y, dtype=jnp.int32), keys)


def jax_batched(case: Case, start: Start, scan: bool, compiling: bool = False):
    """All nets at once: ``jit(vmap(step))``, called per step or looped over an epoch."""
    import jax
    import jax.numpy as jnp

    orders, state, *rest = arguments = jax_arguments(case, start)
    jax.block_until_ready(arguments)
    run = None if compiling else jax_compiled(case.once(), scan)
    begin = time.perf_counter()
    run = run or jax_compile(case, scan, (state, *rest))
    fixed = rest[4:]  # what is the same in each call
    for epoch, order in enumerate(orders):
        total, t = jnp.zeros(case.replicas), np.float32(epoch * case.steps)
        for k in range(1 if scan else case.steps):
            state, total = run(state, total, order, np.int32(k), t, *fixed)
    losses = np.asarray(total)
    return time.perf_counter() - begin, losses / case.steps


jax_with_compile = functools.partial(jax_batched, compiling=True)


# --------------------------------------------------------------------------------------------------
# scikit-learn


def sklearn_ways(case: Case) -> list[Setting]:
    """One fit after another, or fits in processes, as ``n_jobs`` of its searches does."""
    apart = Setting(f"{CORES} processes", {"apart": True})
    return [*threads(case), apart] if case.replicas > 1 else threads(case)


def sklearn_one(case: Case, start: Start, r: int, epochs: int, ordered: bool) -> float:
    """Fit an ``MLPClassifier`` from replica r's first weights; return its last epoch's loss."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        hidden_layer_sizes=case.sizes[1:-1],
        activation=case.activation,
        solver={"adam": "adam", "momentum": "sgd"}[case.optimizer],
        nesterovs_momentum=False,
        learning_rate_init=case.lr,
        alpha=0.0,
        batch_size=case.batch,
        max_iter=epochs,
        tol=0.0,
        n_iter_no_change=epochs + 1,
        shuffle=not ordered,
        warm_start=True,
        random_state=r,
    )
    # Its way to give first weights: one partial fit makes the arrays, which are then replaced.
    net.partial_fit(case.x[: case.batch], case.y[: case.batch], classes=range(case.sizes[-1]))
    net.coefs_ = [w[r].copy() for w in start.weights]
    net.intercepts_ = [np.zeros(width, dtype=np.float32) for _, width in case.shapes]
    net._optimizer = None
    net.loss_curve_ = []
    order = start.order[0, r, : case.steps * case.batch] if ordered else slice(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(case.x[order], case.y[order])
    return net.loss_curve_[-1]


def sklearn(case: Case, start: Start, threads: int = 1, apart: bool = False, ordered: bool = False):
    """``MLPClassifier.fit``, net by net, with batches drawn by itself unless ``ordered``."""
    fit = functools.partial(sklearn_one, case, start, epochs=case.epochs, ordered=ordered)
    begin = time.perf_counter()
    with threadpoolctl.threadpool_limits(threads, user_api="blas"):
        found = (processes().map if apart else map)(fit, range(case.replicas))
        losses = np.array(list(found))
    return time.perf_counter() - begin, losses


# --------------------------------------------------------------------------------------------------
# The floor


def floor_ways(case: Case) -> list[Setting]:
    """Shards on threads with one BLAS thread each, as dlcore; for one net, two BLAS threads."""
    if case.replicas == 1:
        numbers = sorted({1, CORES})
        return [Setting(counted(n, "BLAS thread"), {"shard": 1, "blas": n}) for n in numbers]
    return [s for s in shards(case) if "apart" not in s.options]


def products(case: Case, start: Start, replicas: slice) -> None:
    """The matrix products of all steps, into arrays allocated once, and nothing else."""
    rng = np.random.default_rng(0)
    count, layers = len(start.weights[0][replicas]), []
    for w, (fan_in, fan_out) in zip(start.weights, case.shapes, strict=True):
        x, dy = (
            rng.standard_normal((count, case.batch, n), dtype=np.float32) for n in (fan_in, fan_out)
        )
        own = w[replicas].copy()
        layers.append((x, own, dy, np.empty_like(dy), np.empty_like(own), np.empty_like(x)))
    for _ in range(case.steps * case.epochs):
        for x, w, _, y, _, _ in layers:
            np.matmul(x, w, out=y)
        for i, (x, w, dy, _, dw, dx) in reversed(list(enumerate(layers))):
            np.matmul(x.mT, dy, out=dw)
            if i:
                np.matmul(dy, w.mT, out=dx)


def matmul_floor(case: Case, start: Start, shard: int, blas: int = 1):
    """NumPy's products alone: what dlcore could reach if all else took no time."""
    begin = time.perf_counter()
    parts = [slice(k, k + shard) for k in range(0, case.replicas, shard)]
    with threadpoolctl.threadpool_limits(blas, user_api="blas"), ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda part: products(case, start, part), parts))
    return time.perf_counter() - begin, np.zeros(0)


# --------------------------------------------------------------------------------------------------

OURS = Peer("dlcore", shards, dlcore)
PEERS = {
    peer.name: peer
    for peer in (
        Peer("torch_loop", threads, torch_loop),
        Peer("torch_batched", threads, torch_batched),
        Peer("jax", jax_ways, jax_batched),
        Peer("jax_with_compile", jax_ways, jax_with_compile),
        Peer("sklearn", sklearn_ways, sklearn),
        Peer("matmul_floor", floor_ways, matmul_floor),
    )
}
#: Not one net at a time, so a row of its own: what PyTorch's loop gains from worker processes.
TORCH_PROCESSES = Peer(
    "torch_processes", lambda case: [Setting(f"{CORES} processes", {})], torch_processes
)


def runs(peer: Peer, case: Case) -> bool:
    """Whether a peer has this case: scikit-learn knows neither batch norm nor dropout."""
    return peer.name != "sklearn" or not (case.batch_norm or case.dropout)
