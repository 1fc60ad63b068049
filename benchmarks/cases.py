"""What is trained: nets, data, first weights and batches, the same for dlcore and its peers."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

import dlcore as dl
from dlcore.network import Network

#: Rates at which all of these nets learn without diverging; speed does not depend on them.
OPTIMIZERS = {"momentum": (dl.Momentum, 0.01), "adam": (dl.Adam, 0.001)}
VARIANTS = ("plain", "batch_norm", "dropout", "vanishing", "healthy")
DROPOUT = 0.2
#: Standard deviation of the logistic nets' weights, times the root of the 50 inputs. A layer scales gradients
#: by about a quarter of it: by 1, or by 1/80, which takes them below 1.2e-38, where floats are denormal.
SPREAD = {"healthy": 4.0, "vanishing": 0.05}


def _small() -> dl.Dataset:
    return dl.datasets.mnist1d(0, train=2000, test=0)


def _deep() -> dl.Dataset:
    return dl.datasets.digits(train=1280, valid=0, test=0).flat()


def _image() -> dl.Dataset:
    return dl.datasets.fashion_mnist(train=4800, valid=0, test=0).flat()


#: Layer sizes, batch, data. Training sets are whole numbers of batches and have no validation part.
NETS = {
    "small": ((40, 100, 100, 100, 10), 100, _small),
    "deep": ((64, *[50] * 19, 10), 64, _deep),
    "image": ((784, 300, 100, 10), 64, _image),
}


@functools.cache
def dataset(net: str) -> dl.Dataset:
    """Return the training data of a net; nothing is held back for validation."""
    return NETS[net][2]()


@dataclass(frozen=True)
class Case:
    """One net, number of replicas, optimizer and variant, trained for so many epochs.

    With ``cut`` only that many steps of one epoch are trained, for the checks.
    """

    net: str
    replicas: int
    optimizer: str
    variant: str = "plain"
    epochs: int = 1
    cut: int = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        return NETS[self.net][0]

    @property
    def batch(self) -> int:
        return NETS[self.net][1]

    @property
    def steps(self) -> int:
        """Updates in an epoch."""
        return self.cut or len(self.x) // self.batch

    @property
    def lr(self) -> float:
        return OPTIMIZERS[self.optimizer][1]

    @property
    def x(self) -> np.ndarray:
        return dataset(self.net).x_train

    @property
    def y(self) -> np.ndarray:
        return dataset(self.net).y_train

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Weights of each layer, (in, out)."""
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def activation(self) -> str:
        return "logistic" if self.variant in ("vanishing", "healthy") else "relu"

    @property
    def batch_norm(self) -> bool:
        return self.variant == "batch_norm"

    @property
    def dropout(self) -> float:
        return DROPOUT if self.variant == "dropout" else 0.0

    @property
    def flop(self) -> int:
        """Floating-point operations in the matrix products of all replicas' training.

        Each weight takes part in three products of one multiplication and one addition per example:
        forward, its gradient, and the gradient of the layer's input, which the lowest layer needs not.
        """
        weights = [a * b for a, b in self.shapes]
        per_example = 2 * (3 * sum(weights) - weights[0])
        return per_example * self.batch * self.steps * self.epochs * self.replicas

    @property
    def name(self) -> str:
        parts = [f"{self.net} × {self.replicas}", self.optimizer]
        return ", ".join(parts if self.variant == "plain" else [*parts, self.variant])

    def once(self, cut: int = 0) -> Case:
        """Return the same case for one epoch, or its first ``cut`` steps."""
        return replace(self, epochs=1, cut=cut)

    def blueprint(self):
        """Return what ``dl.sweep`` takes as its network."""
        options: dict = {"activation": dl.Logistic if self.activation == "logistic" else dl.ReLU}
        if self.variant in ("vanishing", "healthy"):
            options["initializer"] = dl.initializers.normal(SPREAD[self.variant] / 50**0.5)
        if self.batch_norm:
            options["batch_norm"] = "before"
        return dl.mlp(self.sizes, dropout=self.dropout, **options)


@dataclass(frozen=True)
class Start:
    """First weights ``(R, in, out)`` of each layer and the order of examples ``(epochs, R, N)``.

    Biases start at 0, batch norm's vectors at 1 and 0.
    """

    weights: list[np.ndarray]
    order: np.ndarray


def start(case: Case) -> Start:
    """Return where dlcore starts: its own first weights and batches, for the peers to take."""
    net = Network(case.blueprint(), range(case.replicas), "numpy")
    weights = [layer.W.copy() for layer in net.layers if hasattr(layer, "W")]
    orders = [
        net.streams.draw("batches", lambda rng: rng.permutation(len(case.x)), epoch)
        for epoch in range(1, case.epochs + 1)
    ]
    return Start(weights, np.stack(orders))
