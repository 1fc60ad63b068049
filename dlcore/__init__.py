"""dlcore: many copies of a neural network trained at once, on NumPy or CuPy."""

import importlib
from typing import TYPE_CHECKING, Any

# isort: off
from dlcore import augmentation, datasets, gradcheck, meanfield, probes, statistics
from dlcore.activations import (
    ELU, GELU, SELU, Identity, LeakyReLU, Logistic, ReLU, Sigmoid, Softplus, Swish, Tanh,
)  # fmt: skip
from dlcore.backend import Backend, get_backend
from dlcore.checkpoints import Checkpoint
from dlcore.convolution import Conv2D, MaxPool2D
from dlcore.experiments import lr_grid, setup, sweep
from dlcore.layers import BatchNorm, Dense, Dropout, Flatten, GaussianNoise, Layer
from dlcore.losses import BinaryCrossEntropy, MeanSquaredError, SoftmaxCrossEntropy
from dlcore.machine import cores
from dlcore.network import Network, mlp
from dlcore.optimizers import (
    SGD, AdaGrad, Adam, AdamW, Momentum, NAdam, Nesterov, Optimizer, RMSProp,
)  # fmt: skip
from dlcore.random import Noise, Streams
from dlcore.recurrent import SimpleRNN
from dlcore.regularizers import (
    L1, L2, EarlyStopping, MaxNorm, clip_by_global_norm, clip_by_norm,
)  # fmt: skip
from dlcore.schedules import ReduceOnPlateau
from dlcore.statistics import interval, paired_difference, verdict
from dlcore.training import History, evaluate, fit
from dlcore.transfer import cached
# isort: on

if TYPE_CHECKING:
    from dlcore import plots

__version__ = "0.1.0"

__all__ = [
    "ELU", "GELU", "L1", "L2", "SELU", "SGD", "AdaGrad", "Adam", "AdamW", "Backend", "BatchNorm",
    "BinaryCrossEntropy", "Checkpoint", "Conv2D", "Dense", "Dropout", "EarlyStopping", "Flatten",
    "GaussianNoise", "History", "Identity", "Layer", "LeakyReLU", "Logistic", "MaxNorm",
    "MaxPool2D", "MeanSquaredError", "Momentum", "NAdam", "Nesterov", "Network", "Noise",
    "Optimizer", "RMSProp", "ReLU", "ReduceOnPlateau", "Sigmoid", "SimpleRNN",
    "SoftmaxCrossEntropy", "Softplus", "Streams", "Swish", "Tanh", "augmentation",
    "cached", "clip_by_global_norm", "clip_by_norm", "cores", "datasets", "evaluate", "fit",
    "get_backend",
    "gradcheck", "interval", "lr_grid", "meanfield", "mlp", "paired_difference",
    "plots", "probes", "setup", "statistics", "sweep", "verdict",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import ``dlcore.plots`` when it is first used: only drawing needs a Matplotlib that can draw."""
    if name == "plots":
        return importlib.import_module("dlcore.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of the package, those that are not imported yet as well."""
    return sorted({*globals(), *__all__})
