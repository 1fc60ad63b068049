"""Every optimizer over a grid of its settings, 50 steps, against PyTorch in float64.

Both get the gradients along dlcore's path: near a minimum RMSProp's steps change sign by rounding
alone, and two paths with gradients of their own would compare chaos. Conventions that differ:

- Weight decay: dlcore's is decoupled for every optimizer and leaves vectors alone. AdamW's is
  PyTorch's own; for the others p *= 1 - lr * decay comes before PyTorch's step, as in AdamW.
- RMSProp's default decay rate is 0.9 (PyTorch: 0.99, called alpha).
- dlcore raises second moments below 1e-30 to it; no gradient here is that small.
- ``bias_correction=False`` is no option of PyTorch's Adam, so it is written out with its tensors.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from compare import BACKEND, SEEDS, assert_same, subclasses, tensor

import dlcore as dl

STEPS = 50
BETAS = [(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)]


class Uncorrected(torch.optim.Optimizer):
    """Adam without the correction of bias."""

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(parameters, dict(lr=lr, betas=betas, eps=eps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m = state.setdefault("m", torch.zeros_like(p))
                v = state.setdefault("v", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["betas"][0])
                v.lerp_(p.grad**2, 1 - group["betas"][1])
                p -= group["lr"] * m / (v.sqrt() + group["eps"])


def grid(**settings):
    return [dict(zip(settings, v, strict=True)) for v in itertools.product(*settings.values())]


def adam_settings(**more):
    for s in grid(betas=BETAS, eps=[1e-8, 1e-3], **more):
        ours = dict(beta1=s["betas"][0], beta2=s["betas"][1], epsilon=s["eps"])
        yield ours | {k: s[k] for k in more}, s


def table():
    """Yield dlcore's optimizer and PyTorch's class with settings."""
    yield dl.SGD(), torch.optim.SGD, {}
    for momentum in (0.0, 0.5, 0.9, 0.99):
        yield dl.Momentum(momentum), torch.optim.SGD, dict(momentum=momentum)
        if momentum:
            theirs = dict(momentum=momentum, nesterov=True)
            yield dl.Nesterov(momentum), torch.optim.SGD, theirs
    yield dl.AdaGrad(), torch.optim.Adagrad, {}
    yield dl.AdaGrad(1e-3), torch.optim.Adagrad, dict(eps=1e-3)
    for s in grid(alpha=[0.9, 0.99, 0.5], eps=[1e-8, 1e-3]):
        yield dl.RMSProp(s["alpha"], s["eps"]), torch.optim.RMSprop, s
    yield dl.Adam(), torch.optim.Adam, {}
    yield dl.Adam(bias_correction=False), Uncorrected, {}
    yield dl.AdamW(), torch.optim.AdamW, {}
    yield dl.NAdam(), torch.optim.NAdam, {}
    for ours, theirs in adam_settings():
        yield dl.Adam(**ours), torch.optim.Adam, theirs
        yield dl.Adam(**ours, bias_correction=False), Uncorrected, theirs
    for ours, theirs in adam_settings(weight_decay=[0.0, 0.1]):
        yield dl.AdamW(**ours), torch.optim.AdamW, theirs
    for ours, theirs in adam_settings(momentum_decay=[0.004, 0.1]):
        yield dl.NAdam(**ours), torch.optim.NAdam, theirs


TABLE = list(table())
IDS = [f"{type(o).__name__}-{i}" for i, (o, _, _) in enumerate(TABLE)]


def test_every_public_optimizer_is_compared():
    assert {type(o) for o, _, _ in TABLE} == subclasses(dl.Optimizer)


def targets(network):
    """A target and a curvature per element of each parameter, (R, in, out) as the parameter."""
    rng = np.random.default_rng(2)
    draws = {}
    for slot in network.slots:
        curvature = np.exp(rng.standard_normal(slot.shape))
        draws[slot] = rng.standard_normal(slot.shape), curvature
    return draws


def slope(theta, target, curvature):
    """Gradient of a bowl with a ripple."""
    shift = theta - target
    return curvature * (shift + 0.3 * shift**3 / (1 + shift**2))


@pytest.mark.parametrize("decay", [None, 0.0, (0.1, 0.5)], ids=["own decay", "none", "decay"])
@pytest.mark.parametrize(("optimizer", "cls", "settings"), TABLE, ids=IDS)
def test_fifty_steps(optimizer, cls, settings, decay):
    network = dl.Network(dl.mlp([3, 4, 2]), SEEDS, BACKEND)
    bowls, lr = targets(network), np.array([0.03, 0.003])
    own = np.broadcast_to(optimizer.weight_decay if decay is None else decay, lr.shape)
    start = {s: getattr(network.layers[s.layer], s.name).copy() for s in network.slots}
    bound = optimizer.bind(network)
    decays = np.append(lr * own, 0) if own.any() else None
    path = {s: [] for s in network.slots}
    for _ in range(STEPS):
        for s in network.slots:
            path[s].append(slope(getattr(network.layers[s.layer], s.name), *bowls[s]))
            getattr(network.layers[s.layer], "d" + s.name)[...] = path[s][-1]
        bound.step(lr, decays)
    for r in range(len(SEEDS)):
        for s in network.slots:
            gradients = [g[r] for g in path[s]]
            expected = theirs(
                cls, settings, start[s][r], gradients, lr[r], own[r] * s.name.isupper()
            )
            assert_same(getattr(network.layers[s.layer], s.name)[r], expected)


def theirs(cls, settings, start, gradients, lr, decay):
    """PyTorch's parameters after all steps."""
    p = tensor(start, grad=True)
    settings = {k: v for k, v in settings.items() if k != "weight_decay"}
    inside = dict(weight_decay=decay) if cls is torch.optim.AdamW else {}
    optimizer = cls([p], lr=lr, **settings, **inside)
    for g in gradients:
        p.grad = tensor(g)
        if decay and not inside:
            with torch.no_grad():
                p.mul_(1 - lr * decay)
        optimizer.step()
    return p


def test_defaults_agree():
    """Settings that a reader does not give are PyTorch's, but for RMSProp's decay rate."""
    p = [torch.zeros(1, requires_grad=True)]
    adam = torch.optim.Adam(p).defaults
    for ours in (dl.Adam(), dl.AdamW(), dl.NAdam()):
        assert ((ours.beta1, ours.beta2), ours.epsilon) == (adam["betas"], adam["eps"])
    assert dl.AdamW().weight_decay == torch.optim.AdamW(p).defaults["weight_decay"]
    assert dl.NAdam().momentum_decay == torch.optim.NAdam(p).defaults["momentum_decay"]
    assert dl.AdaGrad().epsilon == torch.optim.Adagrad(p).defaults["eps"]
    assert dl.RMSProp().epsilon == torch.optim.RMSprop(p).defaults["eps"]
    assert (dl.RMSProp().beta2, torch.optim.RMSprop(p).defaults["alpha"]) == (0.9, 0.99)
