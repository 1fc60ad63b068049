"""Wrong calls over the whole public API: each error names the argument, what was due and what came.

Every public function and class has one right call in ``RIGHT``, which must work. A wrong call in
``WRONG`` is that call with one argument changed, so that nothing else can be what is refused.
"""

import inspect
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small
import test_docs
import xarray as xr

import dlcore as dl
from dlcore import (
    arithmetic,
    batches,
    checks,
    datasets,
    gradcheck,
    host_arrays,
    meanfield,
    plots,
    probes,
)
from dlcore import augmentation as au
from dlcore import initializers as ini
from dlcore import schedules as sc
from dlcore import statistics as st
from dlcore.datasets import Dataset
from dlcore.layers import fill
from dlcore.random import seed_sequence, stream

NAN, INF = float("nan"), float("inf")
NUMPY = dl.get_backend("numpy")
DATA, BLUEPRINT = small.blobs(), dl.mlp([6, 5, 3])
X, Y = np.zeros((4, 6), np.float32), np.arange(4) % 3
ROWS = np.arange(12.0).reshape(3, 4)
IMAGES = small.sequences()
VALUE = datasets.ravine().value
RELU, SQUARED = dl.ReLU(), dl.MeanSquaredError()


def net(layers=BLUEPRINT, seeds=(0, 1)):
    return dl.Network(layers, seeds, NUMPY)


def frozen(*layers):
    made = net()
    made.freeze(layers)
    return made


def with_factors(**factors):
    made = net()
    made.lr_factors = {int(k[1:]): v for k, v in factors.items()}
    return made


def parts(**changes):
    """Return the arguments of a Dataset."""
    arrays = {
        f"{a}_{p}": getattr(DATA, f"{a}_{p}") for a in "xy" for p in ("train", "valid", "test")
    }
    return arrays | dict(name="made", classes=3) | changes


def replaced(array, value):
    made = np.array(array)
    made.flat[-1] = value
    return made


def curves(**sizes):
    sizes = sizes or {"lr": 3, "seed": 2}
    values = np.arange(1.0, 1 + np.prod(list(sizes.values()))).reshape(*sizes.values())
    return xr.DataArray(values, {k: np.arange(1, n + 1) for k, n in sizes.items()}, list(sizes))


def rng():
    return np.random.default_rng(0)


def noise():
    return dl.Noise(dl.Streams([0, 1]), NUMPY, "noise")


def written(path, layers=BLUEPRINT, seeds=(0, 1), change=None):
    """Return the path of a saved network, in the test's own folder; ``change`` damages its bytes."""
    if not isinstance(layers, bytes):
        net(layers, seeds).save(path)
        layers = Path(path).read_bytes()
    with open(path, "wb") as file:
        file.write(change(layers) if change else layers)
    return path


# One right call of each callable -------------------------------------------------------------

FIT = dict(data=DATA, optimizer=dl.Adam, lr=0.01, epochs=1)
SWEEP = dict(network=BLUEPRINT, data=DATA, seeds=2, backend="numpy", lr=0.01, epochs=1)
INNER = dict(loss=dl.SoftmaxCrossEntropy(), y=ROWS, target=np.zeros(3, int))
FULL, QUICK = dict(seeds=2, steps=3), dict(seeds=1, steps=3)
VERDICT = dict(id="G1", claim="c", effect=[1.0, 2.0, 3.0], at_least=0.5)
CROSSED = dict(correct_a=np.eye(4), correct_b=np.zeros((4, 4)))

#: callable -> its right arguments, made afresh for each call
RIGHT = {
    dl.get_backend: lambda: dict(name="numpy", dtype="float32"),
    stream: lambda: dict(seed=1, purpose="weights", index=(2,)),
    seed_sequence: lambda: dict(name="test_seed", seed=1, purpose=2),
    dl.Streams: lambda: dict(seeds=[1, 2]),
    dl.Streams.draw: lambda: dict(
        self=dl.Streams([1, 2]), purpose="weights", function=lambda r: r.random(2), index=(0,)
    ),
    dl.Noise: lambda: dict(streams=dl.Streams(1), backend=NUMPY, purpose="noise", index=(1,)),
    dl.Noise.uniform: lambda: dict(self=noise(), shape=(2, 3)),
    dl.Noise.normal: lambda: dict(self=noise(), shape=(2, 3)),
    checks.integer: lambda: dict(name="n", value=3, at_least=0),
    checks.real: lambda: dict(name="a", value=0.5, low=0, high=1, ends="[]"),
    checks.per_replica: lambda: dict(name="lr", value=[0.1, 0.2], replicas=2),
    checks.instance: lambda: dict(name="test", value=True, kind=bool, due="a truth value"),
    checks.choice: lambda: dict(name="part", value="test", known=("train", "test")),
    checks.function: lambda: dict(name="probe", value=len, due="a probe"),
    checks.names: lambda: dict(name="mlp", given=["bias"], known=["bias", "dropout"]),
    # activations, layers, losses
    dl.LeakyReLU: lambda: dict(alpha=0.1),
    dl.ELU: lambda: dict(alpha=0.1),
    fill: lambda: dict(xp=np, name="W", own=np.zeros((3, 2), np.float32), value=np.ones((3, 2))),
    dl.Dense: lambda: dict(fan_in=3, fan_out=2, initializer="he_normal", bias=0.1),
    dl.Flatten: lambda: dict(axes=2),
    dl.BatchNorm: lambda: dict(features=3, momentum=0.1, epsilon=1e-5, images=False),
    dl.Dropout: lambda: dict(rate=0.5),
    dl.GaussianNoise: lambda: dict(std=0.1),
    dl.SimpleRNN: lambda: dict(
        fan_in=3, units=2, activation=dl.Tanh, initializer="normal", recurrent_initializer="normal"
    ),
    dl.Conv2D: lambda: dict(
        in_channels=2, out_channels=3, kernel=3, stride=2, padding=1, initializer="normal", bias=0.1
    ),
    dl.MaxPool2D: lambda: dict(size=2),
    dl.SoftmaxCrossEntropy.__call__: lambda: dict(
        self=dl.SoftmaxCrossEntropy(), logits=np.zeros((4, 3)), labels=Y
    ),
    dl.BinaryCrossEntropy.__call__: lambda: dict(
        self=dl.BinaryCrossEntropy(), logits=np.zeros((4, 3)), targets=np.zeros((4, 3))
    ),
    dl.MeanSquaredError.__call__: lambda: dict(
        self=dl.MeanSquaredError(), y=np.zeros((4, 3)), targets=np.zeros((4, 3))
    ),
    # initializers
    ini.fans: lambda: dict(shape=(3, 4)),
    ini.normal: lambda: dict(std=1.0),
    ini.uniform: lambda: dict(limit=1.0),
    ini.lecun_normal: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.lecun_uniform: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.glorot_normal: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.glorot_uniform: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.he_normal: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.he_uniform: lambda: dict(rng=rng(), shape=(3, 4)),
    ini.orthogonal: lambda: dict(gain=1.0),
    ini.get: lambda: dict(initializer="he_normal", name="initializer"),
    ini.lsuv: lambda: dict(network=net(), x=DATA.x_train, tolerance=0.1, max_iterations=5),
    # networks
    dl.Network: lambda: dict(layers=BLUEPRINT, seeds=[0, 1], backend="numpy"),
    dl.Network.freeze: lambda: dict(self=net(), layers=0),
    dl.Network.unfreeze: lambda: dict(self=net(), layers=0),
    dl.Network.start_epoch: lambda: dict(self=net(), number=1),
    dl.Network.forward: lambda: dict(self=net(), x=X, training=False),
    dl.Network.run: lambda: dict(self=net(), x=X, training=False),
    dl.Network.load: lambda: dict(self=net(), path=written("net")),
    dl.Network.copy_layers: lambda: dict(self=net(), source=net(seeds=[5, 6]), k=1),
    dl.Network.fold_batch_norm: lambda: dict(self=net(dl.mlp([6, 5, 3], batch_norm="before"))),
    dl.mlp: lambda: dict(
        sizes=[6, 5, 3], activation=dl.ReLU, initializer="normal", bias=0.1, batch_norm="before",
        dropout=0.1, input_dropout=0.1,
    ),
    # optimizers, regularizers, schedules, augmentation
    dl.Momentum: lambda: dict(momentum=0.5),
    dl.Nesterov: lambda: dict(momentum=0.5),
    dl.AdaGrad: lambda: dict(epsilon=1e-8),
    dl.RMSProp: lambda: dict(beta2=0.9, epsilon=1e-8),
    dl.Adam: lambda: dict(beta1=0.9, beta2=0.99, epsilon=1e-8, bias_correction=True),
    dl.AdamW: lambda: dict(
        beta1=0.9, beta2=0.99, epsilon=1e-8, bias_correction=True, weight_decay=0.1
    ),
    dl.NAdam: lambda: dict(beta1=0.9, beta2=0.99, epsilon=1e-8, momentum_decay=0.01),
    dl.L1: lambda: dict(strength=0.1),
    dl.L2: lambda: dict(strength=[0.1, 0.2]),
    dl.MaxNorm: lambda: dict(max_norm=3.0),
    dl.clip_by_global_norm: lambda: dict(max_norm=3.0),
    dl.EarlyStopping: lambda: dict(patience=3, min_delta=0.1, monitor="valid_loss"),
    sc.piecewise: lambda: dict(boundaries=(0.5,), factors=(1, 0.1)),
    sc.exponential: lambda: dict(rate=0.1, length=0.5),
    sc.inverse_time: lambda: dict(length=10, power=1.0),
    sc.polynomial: lambda: dict(power=1.0, end=0.1),
    sc.cosine: lambda: dict(end=0.1),
    sc.one_cycle: lambda: dict(peak=0.3, start=0.1, end=0.1),
    sc.warmup: lambda: dict(length=10, then=sc.cosine()),
    sc.ReduceOnPlateau: lambda: dict(factor=0.1, patience=2, threshold=0.1, cooldown=1, end=0.1),
    sc.begin: lambda: dict(schedule=sc.cosine(), replicas=2),
    au.shift: lambda: dict(pixels=1),
    au.rotate: lambda: dict(degrees=10),
    au.elastic: lambda: dict(strength=1, sigma=2),
    au.white_noise: lambda: dict(std=0.5),
    au.compose: lambda: dict(steps=(au.shift(1), au.rotate(5))),
    # data
    Dataset: parts,
    Dataset.subset: lambda: dict(self=DATA, n=6, seed=1),
    Dataset.standardized: lambda: dict(self=DATA),
    Dataset.with_classes: lambda: dict(self=DATA, keep=[0, 2]),
    Dataset.pooled: lambda: dict(self=datasets.digits(train=10, valid=0, test=0), k=2),
    Dataset.sequences: lambda: dict(self=DATA),
    datasets.random_templates: lambda: dict(seed=1, classes=4, length=5),
    datasets.Distortion: lambda: dict(
        padding=(3, 6), scale=0.1, shift=3, blurred_noise=0.1, noise=0.1, shear=0.1, length=10
    ),
    datasets.mnist1d: lambda: dict(
        seed=1, train=10, valid=10, test=10, test_seed=1, templates=datasets.digit_templates(),
        distortion=datasets.Distortion(), shuffle_seed=1,
    ),
    datasets.fashion_mnist: lambda: dict(seed=1, train=10, valid=10, test=10, size=14),
    datasets.digits: lambda: dict(seed=1, train=10, valid=10, test=10),
    datasets.ravine: lambda: dict(condition=10),
    VALUE: lambda: dict(point=np.zeros(2)),
    batches.Part: lambda: dict(network=net(), data=DATA, part="train", loss=SQUARED),
    batches.per_seed: lambda: dict(data={0: DATA, 1: DATA}, seeds=[0, 1]),
    batches.sets_of: lambda: dict(network=net(), data=small.blobs),
    host_arrays.real: lambda: dict(name="x", values=[1.0, 2], due="numbers", error=ValueError),
    host_arrays.aligned: lambda: dict(
        name="b", values=curves(seed=3)[::-1], like_name="a", like=curves(seed=3)
    ),
    # training
    dl.fit: lambda: dict(network=net(), **FIT),
    dl.evaluate: lambda: dict(network=net(), data=DATA, part="test", loss=SQUARED),
    dl.cached: lambda: dict(network=frozen(0), data=DATA),
    dl.Checkpoint: lambda: dict(path="run", seconds=1.0),
    arithmetic.environment: lambda: dict(name="native"),
    arithmetic.why_not: lambda: dict(name="native"),
    dl.lr_grid: lambda: dict(centre=0.1, steps_each_side=2, factor=10),
    dl.setup: lambda: dict(full=FULL, quick=QUICK),
    dl.sweep: lambda: dict(SWEEP),
    # inside, theory, checks, figures
    probes.weight_slots: lambda: dict(network=net()),
    probes.gradient_rms: lambda: dict(network=net(), before=None),
    probes.relative_update: lambda: dict(network=net(), before=net().parameters),
    probes.learning: lambda: dict(network=net(), before=net().parameters),
    probes.signals: lambda: dict(
        network=net(), x=X, labels=Y, loss=dl.SoftmaxCrossEntropy, saturated_below=0.1
    ),
    meanfield.expectation: lambda: dict(function=np.square, q=1.0),
    meanfield.variance: lambda: dict(activation=RELU, q=1.0, sigma_w=1.0, sigma_b=0.1),
    meanfield.chi: lambda: dict(activation=RELU, q=1.0, sigma_w=1.0),
    meanfield.variances: lambda: dict(
        activation=dl.ReLU, first=1.0, depth=3, sigma_w=1.0, sigma_b=0.1
    ),
    gradcheck.numerical: lambda: dict(function=lambda: 0.0, array=np.ones(2), step=1e-6),
    gradcheck.error: lambda: dict(found=np.ones(2), expected=np.ones(2)),
    gradcheck.check_layer: lambda: dict(layer=dl.Dense(4, 2), x=ROWS, seeds=0, seed=1),
    gradcheck.check_loss: lambda: dict(**INNER, seed=1),
    plots.mean_band: lambda: dict(values=curves(), level=0.9),
    plots.bands: lambda: dict(data=curves(), x="lr", hue=None, labels=["a"]),
    plots.layers: lambda: dict(data=curves(layer=3, seed=2), hue=None),
    plots.arm_style: lambda: dict(i=9),
    plots.lr_sensitivity: lambda: dict(data=curves(), hue=None, better="lower"),
    plots.trajectories: lambda: dict(paths=np.zeros((2, 5, 2)), surface=None, names=["a", "b"]),
    # statistics
    st.interval: lambda: dict(values=[1.0, 2.0], level=0.9, axis=0),
    st.paired_difference: lambda: dict(a=[1.0, 2.0], b=[2.0, 2.5], level=0.9, axis=0),
    st.ratio: lambda: dict(a=np.arange(1.0, 9), b=np.arange(2.0, 10), level=0.9, median=True),
    st.wilson: lambda: dict(successes=3, n=10, level=0.9),
    st.two_way_difference: lambda: dict(**CROSSED, ids=np.arange(4), level=0.9),
    st.crossed_bootstrap: lambda: dict(
        **CROSSED, images=np.tile(np.arange(4), (4, 1)), level=0.9, resamples=100, seed=1
    ),
    st.steps_to_target: lambda: dict(curve=ROWS, target=5.0, at=[1, 2, 3, 4], budget=4),
    st.verdict: lambda: dict(**VERDICT, comparisons=1, joint=False, size="full"),
}  # fmt: skip

# Wrong calls ---------------------------------------------------------------------------------

V, T = ValueError, TypeError
WHOLE = "an integer >= "
RATE, SHARE, POSITIVE = "a number in [0, inf)", "a number in [0, 1)", "a number in (0, inf)"
NAMES = "one of ['glorot_normal', 'glorot_uniform', 'he_normal'"


def numbers(argument, expected, *values):
    """Rows for values that are no such number: words, truth values, lists and NaN among them."""
    rows = [(argument, v, V, expected, f"{float(v)}") for v in (NAN, INF, *values)]
    return rows + [(argument, v, T, expected) for v in ("0.5", True, None, [0.5])]


def wholes(argument, least, *values):
    """Rows for values that are no integer from ``least`` on."""
    due = f"{WHOLE}{least}"
    rows = [(argument, v, V, due) for v in (least - 1, *values)]
    return rows + [(argument, v, T, due) for v in (least + 0.5, NAN, str(least), True, None)]


SHAPES = [("shape", v, V, "(..., fan_in, fan_out)", repr(v)) for v in ((3,), (), 4)]
ADAM = [
    *numbers("beta1", SHARE, 1, -0.1),
    *numbers("beta2", SHARE, 1.5),
    *numbers("epsilon", RATE, -1),
]
INITIALIZER = [
    ("initializer", "xavier", V, NAMES),
    ("initializer", "glorot", V, NAMES),
    ("initializer", 3, V, NAMES),
    ("initializer", ["normal"], V, NAMES),
    ("initializer", None, V, NAMES),
]
LENGTH = [
    ("length", 0, V, WHOLE + "1"),
    ("length", -5, V, WHOLE + "1"),
    ("length", 0.0, V, "a number in (0, 1]"),
    ("length", 1.5, V, "a number in (0, 1]"),
    ("length", NAN, V, "a number in (0, 1]"),
    ("length", "10", T, WHOLE + "1"),
    ("length", True, T, WHOLE + "1"),
]
ACTIVATION = [
    ("activation", v, T, "a class such as ReLU", str(v))
    for v in ("relu", np.tanh, RELU, dl.Dense, dict, None, 3)
]
LEVEL = [
    *numbers("level", "a number in (0, 1)", 0, 1, 95, -0.5),
]
SEED = [*wholes("seed", 0)]
#: A network is due
NO_NETWORK = [("network", v, T, "a Network", str(v)) for v in (BLUEPRINT, None, "net", [RELU])]
NO_DATA = [
    ("data", (X, Y), T, "a Dataset, a mapping or a function of seed", "array("),
    ("data", None, T, "a Dataset, a mapping or a function of seed"),
    ("data", {0: DATA}, V, "a set for each seed", "none for [1]"),
    ("data", {0: DATA, 1: X}, T, "a Dataset for each seed", "array("),
    ("data", lambda seed: None, T, "a Dataset for each seed", "None"),
]
UNEQUAL = [
    ("data", v, V, "sets of equal sizes, shapes and classes for all seeds", "60")
    for v in (
        lambda seed: small.blobs(seed, train=60 + seed),
        lambda seed: small.blobs(seed, features=6 + seed),
        lambda seed: small.blobs(seed, classes=3 + seed),
    )
]
TARGETS = [
    ("targets", np.zeros((4, 2)), V, "shape (..., 4, 3)", "(4, 2)"),
    ("targets", Y, V, "shape (..., 4, 3)", "(4,)"),
    ("targets", np.zeros((2, 4, 3)), V, "shape (..., 4, 3)", "(2, 4, 3)"),
]
SAME = [
    ("b", [1.0, 2.0, 3.0], V, "one shape", "(3,)", "a and b"),
    ("a", [1.0, NAN], V, "finite numbers", "1 NaN or infinite"),
    ("a", ["x", "y"], V, "numbers", "list"),
    ("b", [1.0, INF], V, "finite numbers", "1 NaN or infinite"),
    ("b", 3.0, V, "axes", "()"),
    ("b", np.ma.masked_equal([1.0, 2.0], 2.0), V, "numbers", "1 masked"),
    ("a", np.array([1j, 2j]), V, "numbers", "imaginary part"),
    ("b", np.array([1, 2], "timedelta64[s]"), V, "numbers", "unit"),
]

#: Values whose meaning NumPy drops without a word, and a word of what is said of them.
DROPPED = [
    (np.ma.masked_equal([1.0, 2.0], 2.0), "1 masked"),
    ([np.ma.masked_equal([1.0, 2.0], 2.0)] * 2, "1 masked"),
    (np.array([1 + 1j, 2]), "imaginary part"),
    ([1.0, 2j], "imaginary part"),
    (np.array([1, 2], "timedelta64[s]"), "unit"),
    (np.array(["2020", "2021"], "datetime64[Y]"), "dates"),
    (["1.5", "2"], "text"),
    (np.array([b"1", b"2"]), "text"),
    ([1.0, "2"], "text"),
    ([1.0, None], "no real numbers"),
    ({1.0, 2.0}, "no real numbers"),
    ({0: 1.0, 1: 2.0}, "no real numbers"),
    (np.zeros(2, [("a", float)]), "records"),
]


def sizes(argument, classes=10):
    """Rows for the size of a balanced part."""
    due = f"a multiple of the {classes} classes"
    return [
        (argument, 15, V, due),
        (argument, -10, V, WHOLE),
        (argument, 10.0, T, WHOLE),
        (argument, "10", T, WHOLE),
        (argument, None, T, WHOLE),
    ]


#: callable -> rows (argument, wrong value, error, what is expected[, what came[, the name given]])
WRONG = {
    dl.get_backend: [
        ("name", "torch", V, "'auto', 'numpy' or 'cupy'", "'torch'", "backend"),
        ("name", "NumPy", V, "'auto', 'numpy' or 'cupy'", "'NumPy'", "backend"),
        ("name", None, V, "'auto', 'numpy' or 'cupy'", "None", "backend"),
        ("name", np, V, "'auto', 'numpy' or 'cupy'", "<module 'numpy'", "backend"),
        ("dtype", "float16", V, "float32 or float64"),
        ("dtype", "real", V, "float32 or float64"),
        ("dtype", int, V, "float32 or float64"),
        ("dtype", None, V, "float32 or float64"),
    ],
    stream: [*SEED, ("purpose", 3, T, "a str"), ("index", (-1,), V, WHOLE, "-1"),
             ("index", (0.5,), T, WHOLE, "0.5")],
    seed_sequence: [
        *[("seed", v, V, WHOLE, str(v), "test_seed") for v in (-1, -5)],
        *[("seed", v, T, WHOLE, repr(v), "test_seed") for v in (0.5, "1", None, True)],
        *wholes("purpose", 0),
        ("purpose", 2**32, V, "an integer below 2**32", "4294967296"),
    ],
    dl.Streams: [
        ("seeds", [], V, "at least one seed", "none"),
        ("seeds", -1, V, WHOLE),
        ("seeds", [1, -4], V, WHOLE, "-4"),
        ("seeds", [0.5], T, WHOLE, "0.5"),
        ("seeds", [1, None], T, WHOLE, "None"),
        ("seeds", [1, [2, 3]], T, WHOLE, "[2, 3]"),
        ("seeds", "12", T, WHOLE),
        ("seeds", True, T, WHOLE),
        ("seeds", {1, 2}, T, WHOLE),
        ("seeds", np.array([0.0, 1.0]), T, WHOLE, "0.0"),
    ],
    dl.Streams.draw: [("purpose", None, T, "a str"), ("index", (-1,), V, WHOLE, "-1"),
                      ("function", "normal", T, "a function of a generator")],
    dl.Noise: [
        ("streams", [0, 1], T, "a Streams"),
        ("backend", "numpy", T, "a Backend"),
        ("purpose", 3, T, "a str"),
        ("index", (0.5,), T, WHOLE, "0.5"),
    ],
    dl.Noise.uniform: [
        ("shape", (3, 2), V, "(2, ...), replicas first", "(3, 2)"),
        ("shape", (), V, "(2, ...), replicas first", "()"),
    ],
    dl.Noise.normal: [("shape", (3, 2), V, "(2, ...), replicas first", "(3, 2)")],
    checks.integer: [("value", True, T, WHOLE, "True", "n"), ("value", -1, V, WHOLE, "-1", "n")],
    checks.real: [
        ("value", 2, V, "a number in [0, 1]", "2", "a"),
        ("value", True, T, "a number in [0, 1]", "True", "a"),
    ],
    checks.per_replica: [("value", [1, 2, 3], V, "2 numbers (one per replica)", "(3,)", "lr")],
    checks.instance: [("value", v, T, "a truth value", repr(v), "test") for v in (1, "yes", None)],
    checks.choice: [("value", v, V, "'train' or 'test'", repr(v), "part") for v in ("dev", 0)],
    checks.function: [("value", v, T, "a probe", repr(v), "probe") for v in ("len", int, None)],
    fill: [
        ("value", v, V, "shape (3, 2)", str(np.shape(v)), "W")
        for v in (np.ones((2, 3)), np.ones((1, 3, 2)), np.ones(2), 0.0, [[1.0, 2.0]], [])
    ] + [
        ("value", np.full((3, 2), 1e39), V, "numbers within float32", "larger", "W"),
        ("value", np.ones((3, 2), complex), T, "real numbers", "complex128", "W"),
        ("value", np.ma.ones((3, 2)), T, "no mask", "one", "W"),
        ("value", "W", T, "real numbers", "<U1", "W"),
        ("value", None, T, "real numbers", "object", "W"),
    ],
    checks.names: [
        ("given", ["bais"], T, "options among ['bias', 'dropout']", "(did you mean 'bias'?)", "mlp"),
        ("given", ["bias", "q"], T, "options among ['bias', 'dropout']", "'q'", "mlp"),
    ],
    dl.LeakyReLU: numbers("alpha", "a number in [0, 1]", 1.5, -0.1),
    dl.ELU: numbers("alpha", RATE, -1),
    dl.Dense: [
        *wholes("fan_in", 1, -3),
        *wholes("fan_out", 1, -3),
        *INITIALIZER,
        *numbers("bias", "a number in (-inf, inf)", -INF),
    ],
    dl.Flatten: wholes("axes", 1),
    dl.BatchNorm: [
        *wholes("features", 1),
        *numbers("momentum", "a number in [0, 1]", 1.1, -0.1),
        *numbers("epsilon", RATE, -1e-5),
        ("images", "yes", T, "a bool"),
        ("images", 1, T, "a bool"),
    ],
    dl.Dropout: numbers("rate", SHARE, 1, -0.1, 50),
    dl.GaussianNoise: numbers("std", RATE, -0.1),
    dl.SimpleRNN: [
        *wholes("fan_in", 1),
        *wholes("units", 1),
        *ACTIVATION,
        *INITIALIZER,
        ("recurrent_initializer", "eye", V, NAMES),
    ],
    dl.Conv2D: [
        *wholes("in_channels", 1),
        *wholes("out_channels", 1),
        ("kernel", 0, V, WHOLE + "1"),
        ("kernel", (3, 0), V, WHOLE + "1", "0"),
        ("kernel", (3, 3, 3), V, "one integer or two"),
        ("kernel", 2.5, T, WHOLE + "1"),
        ("kernel", "3", T, WHOLE + "1"),
        *wholes("stride", 1),
        ("padding", -1, V, WHOLE + "0"),
        ("padding", "valid", V, "'same'"),
        ("padding", "same", V, "a number with stride 2"),
        ("padding", None, T, WHOLE + "0"),
        *INITIALIZER,
        *numbers("bias", "a number in (-inf, inf)"),
    ],
    dl.MaxPool2D: [
        ("size", 0, V, WHOLE + "1"),
        ("size", (2,), V, "one integer or two"),
        ("size", 2.0, T, WHOLE + "1"),
    ],
    dl.SoftmaxCrossEntropy.__call__: [
        ("labels", Y[:3], V, "shape (..., 4)", "(3,)"),
        ("labels", np.zeros((2, 4), int), V, "shape (..., 4)", "(2, 4)"),
        ("labels", np.zeros(4), V, "integers", "float64"),
        ("labels", [0, 1, 2, 0], T, "an array", "list"),
        ("logits", [[0.0, 1.0]], T, "an array", "list"),
        ("logits", np.zeros(3), V, "axes (..., batch, classes)", "(3,)"),
        ("labels", np.array([0, 1, 3, 0]), V, "values in 0…2", "0…3"),
        ("labels", np.array([0, -1, 2, 0]), V, "values in 0…2", "-1…2"),
        ("logits", np.zeros((0, 3)), V, "at least one row and one output", "(0, 3)"),
        ("logits", np.zeros((4, 0)), V, "at least one row and one output", "(4, 0)"),
    ],
    dl.BinaryCrossEntropy.__call__: [
        *TARGETS,
        ("targets", np.full((4, 3), 2.0), V, "values in 0…1", "2.0…2.0"),
        ("targets", np.full((4, 3), -1), V, "values in 0…1", "-1…-1"),
        ("targets", np.full((4, 3), NAN), V, "values in 0…1", "nan…nan"),
        ("logits", np.zeros((0, 3)), V, "at least one row and one output", "(0, 3)"),
    ],
    dl.MeanSquaredError.__call__: [
        *TARGETS,
        ("targets", [[1.0]], T, "an array", "list"),
        ("y", [[1.0]], T, "an array", "list"),
        ("y", np.zeros((0, 3)), V, "at least one row and one output", "(0, 3)"),
    ],
    ini.fans: SHAPES,
    ini.normal: numbers("std", RATE, -1),
    ini.uniform: numbers("limit", "a number in [0, 8.98847e+307]", -1),
    ini.lecun_normal: SHAPES,
    ini.lecun_uniform: SHAPES,
    ini.glorot_normal: SHAPES,
    ini.glorot_uniform: SHAPES,
    ini.he_normal: SHAPES,
    ini.he_uniform: SHAPES,
    ini.orthogonal: numbers("gain", RATE, -1),
    ini.get: INITIALIZER,
    ini.lsuv: [
        *NO_NETWORK,
        ("x", np.zeros((20, 6)), V, "outputs of layer 0 that vary", "variances [0. 0.]"),
        ("x", np.full((20, 6), NAN), V, "outputs of layer 0 that vary", "nan"),
        ("x", np.ones((20, 5)), V, "(..., batch, 6)", "(20, 5)"),
        *numbers("tolerance", POSITIVE, 0, -1),
        *wholes("max_iterations", 0),
    ],
    dl.Network: [
        *[("layers", v, T, "a non-empty list of layers") for v in ([], None, "mlp", 3)],
        ("layers", dl.Dense(3, 2), T, "a non-empty list of layers", "Dense"),
        ("layers", [dl.Dense(3, 2), "relu"], T, "a non-empty list of layers", "'relu'"),
        ("layers", [dl.Dense(3, 2), dl.ReLU], T, "a non-empty list of layers", "ReLU"),
        ("layers", lambda: None, T, "a non-empty list of layers", "None"),
        ("layers", {"a": RELU}, T, "a non-empty list of layers", "ReLU"),
        ("layers", [RELU, dl.Dense(3, 3), RELU], V, "each layer once", "twice"),
        (
            "layers",
            [dl.Dense(3, 3, lambda rng, shape: np.zeros(5))],
            V,
            "W of shape (3, 3)",
            "(5,)",
            "initializer",
        ),
        *[
            ("layers", [layer], V, f"{name} of numbers within float32", "larger ones or NaN", "initializer")
            for name, layer in (
                ("W", dl.Dense(3, 3, ini.normal(1e39))),
                ("W", dl.Dense(3, 3, lambda rng, shape: np.full(shape, NAN))),
                ("W", dl.Conv2D(1, 2, 3, initializer=ini.uniform(1e300))),
                ("U", dl.SimpleRNN(2, 3, recurrent_initializer=ini.orthogonal(1e40))),
                ("b", dl.Dense(3, 3, bias=-1e39)),
            )
        ],
        ("seeds", [], V, "at least one seed", "none"),
        ("seeds", [0.5], T, WHOLE, "0.5"),
        ("seeds", None, T, WHOLE),
        ("backend", "jax", V, "'auto', 'numpy' or 'cupy'"),
    ],
    dl.Network.freeze: [
        ("layers", 3, V, "indices below 3 or names of classes"),
        ("layers", -4, V, "-3"),
        ("layers", [0, 9], V, "indices below 3 or names of classes", "9"),
        ("layers", "Dens", V, "indices below 3 or names of classes"),
        ("layers", 0.5, T, "an integer"),
        ("layers", None, T, "an integer"),
        ("layers", [True], T, "an integer", "True"),
        ("layers", [[0]], T, "an integer", "[0]"),
    ],
    dl.Network.unfreeze: [("layers", 3, V, "indices below 3"), ("layers", "Conv2D", V, "names")],
    dl.Network.start_epoch: wholes("number", 0),
    dl.Network.forward: [
        ("x", np.zeros((4, 7), np.float32), V, "(..., batch, 6)", "(4, 7)"),
        ("x", np.zeros(6, np.float32), V, "(..., batch, 6)", "(6,)"),
        ("x", [[0.0] * 6], T, "an array", "list"),
    ],
    dl.Network.run: [
        ("x", np.zeros((4, 7), np.float32), V, "(..., batch, 6)", "(4, 7)"),
        ("x", np.zeros(6, np.float32), V, "(..., batch, 6)", "(6,)"),
    ],
    dl.Network.load: [
        ("path", partial(written, "other", dl.mlp([6, 4, 3])), V, "(2, 6, 5)", "(2, 6, 4)", "other: 0.W"),
        ("path", partial(written, "deep", dl.mlp([6, 5, 5, 3])), V, "layers", "ReLU", "deep"),
        ("path", partial(written, "three", seeds=[1, 2, 3]), V, "(2, 6, 5)", "(3, 6, 5)", "three: 0.W"),
        ("path", partial(written, "short", change=lambda b: b[:200]), V, "a safetensors", "damaged", "short"),
        ("path", partial(written, "flip", change=lambda b: b[:-1] + b"x"), V, "checksum", "damaged", "flip"),
        ("path", partial(written, "text", b"net"), V, "a safetensors file", "damaged", "text"),
        ("path", partial(written, "empty", b""), V, "a safetensors file", "damaged", "empty"),
    ],
    dl.Network.copy_layers: [
        ("source", None, T, "a Network"),
        ("source", BLUEPRINT, T, "a Network", "partial"),
        ("source", net(seeds=[1, 2, 3]), V, "a plain network or one of 2 replicas", "3"),
        ("source", net(dl.mlp([6, 4, 3])), V, "layers", "(6, 4)"),
        ("k", 3, V, "at most 2 layers with weights"),
        *wholes("k", 1),
    ],
    dl.Network.fold_batch_norm: [
        ("self", net([dl.BatchNorm(6), dl.ReLU(), dl.Dense(6, 3)]), V, "a Dense or Conv2D layer",
         "then ReLU (layer 1)", "fold_batch_norm"),
    ],
    dl.mlp: [
        ("sizes", 3, T, "a sequence of integers"),
        ("sizes", "64", T, "a sequence of integers"),
        ("sizes", [[3, 2]], T, WHOLE + "1", "[3, 2]"),
        ("sizes", [3, [2], 4], T, WHOLE + "1", "[2]"),
        ("sizes", [], V, "inputs, hidden widths and outputs"),
        ("sizes", [3], V, "inputs, hidden widths and outputs"),
        ("sizes", [3, 0, 2], V, WHOLE + "1", "0"),
        ("sizes", [3, 4.5, 2], T, WHOLE + "1", "4.5"),
        *ACTIVATION,
        *INITIALIZER,
        *numbers("bias", "a number in (-inf, inf)"),
        ("batch_norm", "yes", V, "'before', 'after' or False"),
        ("batch_norm", True, V, "'before', 'after' or False"),
        *numbers("dropout", SHARE, 1, -0.1),
        *numbers("input_dropout", SHARE, 1, -0.1),
        ("dropuot", 0.1, T, "options among", "'dropuot' (did you mean 'dropout'?)", "mlp"),
        ("Dropout", 0.1, T, "options among", "'Dropout' (did you mean 'dropout'?)", "mlp"),
        ("batchnorm", 1, T, "options among", "'batchnorm' (did you mean 'batch_norm'?)", "mlp"),
        ("init", "normal", T, "'initializer'", "'init'", "mlp"),
        ("xyzzy", 1, T, "options among", "'xyzzy'", "mlp"),
    ],
    dl.Momentum: numbers("momentum", "a number in [0, 1]", 1.1, -0.1),
    dl.Nesterov: numbers("momentum", "a number in [0, 1]", 1.1),
    dl.AdaGrad: numbers("epsilon", RATE, -1e-8),
    dl.RMSProp: [*numbers("beta2", SHARE, 1), *numbers("epsilon", RATE, -1)],
    dl.Adam: [*ADAM, ("bias_correction", "no", T, "a bool")],
    dl.AdamW: [*ADAM, *numbers("weight_decay", RATE, -0.1), ("bias_correction", 0, T, "a bool")],
    dl.NAdam: [*ADAM, *numbers("momentum_decay", RATE, -0.1)],
    dl.L1: [
        ("strength", -1, V, "finite numbers >= 0"),
        ("strength", NAN, V, "finite numbers >= 0"),
        ("strength", "0.1", T, "a number or one per replica"),
        ("strength", None, T, "a number or one per replica"),
    ],
    dl.L2: [
        ("strength", [0.1, -1], V, "finite numbers >= 0"),
        ("strength", [], V, "a number or 1 numbers", "(0,)"),
        ("strength", [[0.1]], V, "a number or 1 numbers", "(1, 1)"),
        ("strength", True, T, "a number or one per replica"),
    ],
    dl.MaxNorm: numbers("max_norm", POSITIVE, 0, -1),
    dl.clip_by_global_norm: numbers("max_norm", POSITIVE, 0, -1),
    dl.EarlyStopping: [
        *wholes("patience", 1),
        *numbers("min_delta", RATE, -1),
        ("monitor", "loss", V, "'valid_loss', 'train_loss' or 'valid_accuracy'"),
        ("monitor", None, V, "'valid_loss', 'train_loss' or 'valid_accuracy'"),
    ],
    sc.piecewise: [
        ("boundaries", (0.5, 0.2), V, "rising values"),
        ("boundaries", (0.5, 100), V, "rising values, all steps or all shares"),
        ("boundaries", 0.5, T, "a sequence"),
        ("boundaries", ("a",), T, WHOLE + "1", "'a'"),
        ("boundaries", (1.5,), V, "a number in (0, 1]", "1.5"),
        ("factors", (1, 0.5, 0.1), V, "2, one more than boundaries", "3"),
        ("factors", (1, -0.1), V, RATE, "-0.1"),
        ("factors", 0.1, T, "a sequence"),
        ("factors", ("1", "2"), T, RATE, "'1'"),
    ],
    sc.exponential: [*numbers("rate", "a number in (0, 1]", 0, 1.1), *LENGTH],
    sc.inverse_time: [*LENGTH, *numbers("power", RATE, -1)],
    sc.polynomial: [*numbers("power", RATE, -1), *numbers("end", RATE, -1)],
    sc.cosine: numbers("end", RATE, -0.1),
    sc.one_cycle: [
        *numbers("peak", "a number in (0, 1)", 0, 1),
        *numbers("start", RATE, -1),
        *numbers("end", RATE, -1),
    ],
    sc.warmup: [
        *LENGTH,
        *[("then", v, T, "a schedule such as cosine()") for v in ("cosine", 0.5, sc.cosine, None)],
    ],
    sc.ReduceOnPlateau: [
        *numbers("factor", "a number in (0, 1)", 0, 1),
        *wholes("patience", 0),
        *numbers("threshold", SHARE, 1),
        *wholes("cooldown", 0),
        *numbers("end", RATE, -1),
    ],
    sc.begin: [("schedule", v, T, "a schedule such as cosine()") for v in (0.5, "cosine", sc.cosine)],
    au.shift: numbers("pixels", RATE, -1),
    au.rotate: numbers("degrees", "a number in [0, 180]", -1, 181),
    au.elastic: [*numbers("strength", RATE, -1), *numbers("sigma", POSITIVE, 0)],
    au.white_noise: numbers("std", RATE, -1),
    au.compose: [
        ("steps", ("shift",), T, "functions of (x, noise)", "'shift'"),
        ("steps", (au.shift(1), au.rotate), T, "functions of (x, noise)", "rotate"),
    ],
    Dataset: [
        ("x_train", DATA.x_train[0], V, "(N, features)", "(6,)"),
        ("x_train", replaced(DATA.x_train, NAN), V, "finite values", "NaN"),
        ("x_valid", replaced(DATA.x_valid, INF), V, "finite values", "infinity"),
        ("x_test", replaced(DATA.x_test, NAN), V, "finite values", "NaN"),
        ("x_test", DATA.x_test[:, :5], V, "examples of shape (6,) as in x_train", "(5,)"),
        ("x_valid", [["a"]], T, "numbers"),
        ("x_train", [[1.0], [1.0, 2.0]], T, "numbers"),
        ("y_train", np.full(60, 3), V, "labels in 0…2", "3…3"),
        ("y_valid", replaced(DATA.y_valid, -1), V, "labels in 0…2", "-1…2"),
        ("y_test", np.zeros(20), V, "integer labels", "float64"),
        ("y_test", np.zeros(20, bool), V, "integer labels", "bool"),
        ("y_test", np.ma.masked_equal(DATA.y_test, 1), V, "integer labels", "7 masked"),
        ("y_test", np.full(20, 1.5), V, "integer labels", "float64"),
        ("y_test", np.zeros(20, "timedelta64[s]"), V, "integer labels", "unit"),
        ("y_test", ["0"] * 20, V, "integer labels", "text"),
        ("x_valid", np.full((30, 6), 1j), T, "numbers", "imaginary part"),
        ("x_valid", np.full((30, 6), "1"), T, "numbers", "text"),
        ("x_valid", np.full((30, 6), None), T, "numbers", "no real numbers"),
        ("x_valid", np.ma.masked_less(DATA.x_valid, 0), T, "numbers", "masked"),
        ("x_valid", DATA.x_valid.astype("datetime64[s]"), T, "numbers", "dates"),
        ("ids", np.arange(20), T, "a mapping from part to ids"),
        ("ids", {"dev": np.arange(20)}, V, "parts among", "dev"),
        ("ids", {"test": np.arange(3)}, V, "shape (20,)", "(3,)", "ids['test']"),
        ("ids", {"test": np.ones(20)}, V, "integers", "float64", "ids['test']"),
        ("y_train", DATA.y_train[:-1], V, "shape (60,)", "(59,)"),
        ("y_train", np.eye(3)[DATA.y_train].astype(int), V, "shape (60,)", "(60, 3)"),
        ("classes", 2, V, "labels in 0…1", "0…2", "y_train"),
        *wholes("classes", 2),
    ],
    Dataset.subset: [*sizes("n", 3)[1:], ("n", 7, V, "a multiple of the 3 classes"),
                     ("n", 0, V, WHOLE), ("n", 63, V, "at most 60 examples (20 per class)"), *SEED],
    Dataset.standardized: [
        ("self", Dataset(**parts(x_train=np.ones((60, 6)))), V, "values that vary", "constant", "x_train")
    ],
    Dataset.with_classes: [
        ("keep", [1], V, "two or more different classes in 0…2"),
        ("keep", [1, 1], V, "two or more different classes in 0…2"),
        ("keep", [0, 3], V, "two or more different classes in 0…2"),
        ("keep", [0, -1], V, WHOLE, "-1"),
        ("keep", "01", T, WHOLE, "'0'"),
        ("keep", 2, T, "a sequence"),
    ],
    Dataset.pooled: [
        *wholes("k", 1),
        ("k", 3, V, "a divisor of 8 and 8"),
        ("self", DATA, V, "images (N, H, W, C)", "(60, 6)", "pooled"),
    ],
    Dataset.sequences: [("self", IMAGES, V, "rows (N, T)", "(40, 5, 2, 1)", "sequences")],
    datasets.random_templates: [*SEED, *wholes("classes", 2), *wholes("length", 3)],
    datasets.Distortion: [
        ("padding", (6, 3), V, "0 ≤ low ≤ high"),
        ("padding", (-1, 3), V, WHOLE, "-1"),
        ("padding", (1, 2, 3), V, "0 ≤ low ≤ high"),
        ("padding", 3, V, "0 ≤ low ≤ high"),
        ("padding", (0.5, 3), T, WHOLE, "0.5"),
        *numbers("scale", "a number in [0, 1.9]", -1, 2),
        *wholes("shift", 1),
        *numbers("blurred_noise", RATE, -1),
        *numbers("noise", RATE, -1),
        *numbers("shear", RATE, -1),
        *wholes("length", 2),
    ],
    datasets.mnist1d: [
        ("seed", -1, V, WHOLE),
        ("seed", 0.5, T, WHOLE),
        ("seed", None, V, "an integer together with templates, distortion or test_seed"),
        *sizes("train"),
        ("train", 0, V, WHOLE),
        *sizes("valid"),
        *sizes("test"),
        *wholes("test_seed", 0),
        ("shuffle_seed", -1, V, WHOLE),
        ("shuffle_seed", "1", T, WHOLE),
        ("templates", np.zeros(5), V, "a finite table (classes, length)", "(5,)"),
        ("templates", np.full((3, 5), NAN), V, "a finite table (classes, length)", "(3, 5)"),
        ("templates", "digits", T, "a finite table (classes, length)"),
        ("distortion", "none", T, "a Distortion"),
        ("distortion", datasets.Distortion, T, "a Distortion", "class"),
    ],
    datasets.fashion_mnist: [
        *SEED,
        *sizes("train"),
        ("train", 20_000, V, "at most 10000 examples", "20020", "test + valid + train"),
        *sizes("valid"),
        *sizes("test"),
        ("size", 5, V, "a divisor of 28"),
        *wholes("size", 1),
    ],
    datasets.digits: [*SEED, *sizes("train"), *sizes("valid"), *sizes("test"),
                      ("train", 2000, V, "at most 1740", "2020", "test + valid + train")],
    datasets.ravine: numbers("condition", "a number in [1, inf)", 0.5),
    VALUE: [
        ("point", np.zeros(3), V, "a floating array (..., 2)", "array([0., 0., 0.])"),
        ("point", np.zeros(2, int), V, "a floating array (..., 2)", "array([0, 0])"),
        ("point", [1.0, 2.0], V, "a floating array (..., 2)"),
    ],
    host_arrays.real: [("values", values, V, "numbers", said, "x") for values, said in DROPPED],
    host_arrays.aligned: [
        ("values", curves(seed=2), V, "the labels of a along 'seed'", "[3]", "b"),
        ("values", curves(lr=3), V, "dimensions ('seed',) as a", "('lr',)", "b"),
        ("like", curves(seed=3).assign_coords(seed=[1, 2, 2]), V, "each once", "3", "b"),
    ],
    host_arrays.real: [("values", values, V, "numbers", said, "x") for values, said in DROPPED],
    host_arrays.aligned: [
        ("values", curves(seed=2), V, "the labels of a along 'seed'", "[3]", "b"),
        ("values", curves(lr=3), V, "dimensions ('seed',) as a", "('lr',)", "b"),
        ("like", curves(seed=3).assign_coords(seed=[1, 2, 2]), V, "each once", "3", "b"),
    ],
    batches.Part: [*NO_DATA, *UNEQUAL],
    batches.per_seed: NO_DATA,
    batches.sets_of: NO_DATA,
    dl.fit: [
        *NO_NETWORK,
        ("network", net(dl.mlp([5, 3])), V, "(..., batch, 5)", "6", "x"),
        ("network", net(dl.mlp([6, 2])), V, "3 outputs, one per class", "2"),
        ("network", net([dl.SimpleRNN(6, 3)]), V, "(..., batch, time, 6)", "(1, 6)", "x"),
        ("network", net([dl.Flatten(), dl.Dense(6, 3)]), V, "more than 3 axes", "(1, 6)", "x"),
        ("network", net([dl.Conv2D(1, 3, 3)]), V, "(..., batch, height, width, 1)", "(1, 6)", "x"),
        ("network", net([dl.MaxPool2D()]), V, "images", "(1, 6)", "x"),
        ("network", net([dl.BatchNorm(5), dl.Dense(5, 3)]), V, "(..., batch, 5)", "(1, 6)", "x"),
        ("network", frozen(0, 2), V, "a layer that learns", "frozen"),
        ("network", with_factors(_0=-1), V, RATE, "-1", "lr_factors"),
        ("network", with_factors(_7=0.1), V, "indices of layers below 3", "7", "lr_factors"),
        ("network", with_factors(_0="x"), T, RATE, "'x'", "lr_factors"),
        *NO_DATA,
        *UNEQUAL,
        *[("optimizer", v, T, "an Optimizer") for v in ("adam", [dl.Adam], None, 0.1)],
        ("optimizer", dict, T, "an Optimizer", "{}"),
        *[("lr", v, V, "finite numbers >= 0") for v in (-0.1, [0.1, -0.1], NAN, INF, [0.1, NAN])],
        ("lr", [0.1, 0.2, 0.3], V, "a number or 2 numbers (one per replica)", "(3,)"),
        ("lr", [], V, "a number or 2 numbers (one per replica)", "(0,)"),
        ("lr", np.ones((2, 1)), V, "a number or 2 numbers (one per replica)", "(2, 1)"),
        *[("lr", v, T, "a number or one per replica") for v in ("0.1", None, True, {0: 0.1}, 1j)],
        ("lr", [[0.1], [0.1, 0.2]], T, "a number or one per replica"),
        ("weight_decay", -1, V, "finite numbers >= 0"),
        ("weight_decay", NAN, V, "finite numbers >= 0"),
        ("weight_decay", [0.1] * 3, V, "a number or 2 numbers (one per replica)", "(3,)"),
        ("weight_decay", "0.1", T, "a number or one per replica"),
        *wholes("epochs", 1)[:-1],
        ("epochs", None, V, "exactly one", "epochs=None, steps=None", "epochs, steps"),
        ("steps", 3, V, "exactly one", "epochs=1, steps=3", "epochs, steps"),
        *wholes("batch_size", 1),
        *wholes("evaluate_every", 1),
        *wholes("blas_threads", 1),
        ("loss", "mse", T, "a loss such as SoftmaxCrossEntropy()"),
        ("loss", np.square, T, "a loss such as SoftmaxCrossEntropy()", "square"),
        ("schedule", 0.5, T, "a schedule such as cosine()"),
        ("schedule", sc.cosine, T, "a schedule such as cosine()", "cosine"),
        ("schedule", lambda k, n: -1.0, V, "finite numbers >= 0", "-1.0"),
        ("schedule", lambda k, n: NAN, V, "finite numbers >= 0", "nan"),
        ("schedule", lambda k, n: "1", T, "a number or one per replica", "'1'"),
        ("schedule", lambda k, n: [1, 1, 1], V, "a number or 2 numbers", "(3,)"),
        *[("regularizers", v, T, "some such as L2(1e-4)") for v in (0.5, "l2", [dl.L2], None)],
        ("regularizers", dl.L2, T, "some such as L2(1e-4)", "L2"),
        ("regularizers", dl.L2([0.1] * 3), V, "2 numbers (one per replica)", "(3,)", "strength"),
        *[("augment", v, T, "a function of two arguments") for v in ("shift", au.shift, 0.5)],
        ("augment", au.rotate(10), V, "images (..., batch, height, width, channels)", "(2, 60, 6)", "x"),
        ("early_stopping", 5, T, "EarlyStopping(...)"),
        *[("checkpoint", v, T, "a path or Checkpoint(path)") for v in (3, True, [])],
        ("early_stopping", dl.EarlyStopping, T, "EarlyStopping(...)"),
        *[("probe", v, T, "a function of two arguments") for v in ("gradient_rms", [len])],
    ],
    dl.evaluate: [
        *NO_NETWORK,
        ("network", net(dl.mlp([5, 3])), V, "(..., batch, 5)", "6", "x"),
        ("network", net(dl.mlp([6, 2])), V, "3 outputs, one per class", "2"),
        *NO_DATA,
        ("data", small.blobs(test=0), V, "at least one test example", "none"),
        ("part", "dev", V, "'train', 'valid' or 'test'"),
        ("part", None, V, "'train', 'valid' or 'test'"),
        ("loss", "mse", T, "a loss such as SoftmaxCrossEntropy()"),
        ("loss", 3, T, "a loss such as SoftmaxCrossEntropy()"),
    ],
    dl.cached: [
        *NO_NETWORK,
        ("network", net(), V, "frozen layers below the first one that learns", "none"),
        ("network", frozen(0, 2), V, "a layer that learns", "frozen"),
        *NO_DATA,
    ],
    dl.Checkpoint: [
        *[("path", v, T, "a path or Checkpoint(path)", repr(v), "checkpoint") for v in (3, None)],
        *numbers("seconds", RATE, -1),
    ],
    arithmetic.environment: [
        ("name", "haswell", V, "'native', 'canonical', 'skylakex'", "'haswell'"),
        ("name", None, V, "'native', 'canonical', 'skylakex'", "None"),
    ],
    arithmetic.why_not: [
        ("name", "Canonical", V, "'native', 'canonical', 'skylakex'", "'Canonical'"),
        ("name", 3, V, "'native', 'canonical', 'skylakex'", "3"),
    ],
    dl.lr_grid: [
        *numbers("centre", POSITIVE, 0, -0.1),
        *wholes("steps_each_side", 0),
        *numbers("factor", POSITIVE, 0, -1),
    ],
    dl.setup: [
        ("quick", dict(seeds=1), V, "the same names in each size", "steps", "sizes"),
        ("quick", 3, T, "a Mapping"),
        ("full", dict(seeds=range(3), steps=3), T, WHOLE, "range(0, 3)", "seeds"),
        ("full", dict(seeds=0, steps=3), V, WHOLE, "0", "seeds"),
        ("full", dict(seeds=1001, steps=3), V, "at most 1000 seeds", "1001", "seeds"),
    ],
    dl.sweep: [
        ("network", net(), T, "a function that makes layers", "Network"),
        ("network", [dl.Dense(6, 3)], T, "a function that makes layers", "Dense"),
        ("network", None, T, "a function that makes layers"),
        ("data", X, T, "a Dataset, a mapping or a function of seed", "array("),
        *NO_DATA[1:],
        ("learning_rate", [0.1], T, "'lr'", "'learning_rate'", "settings"),
        ("Lr", 0.1, T, "'lr'", "'Lr' (did you mean 'lr'?)", "settings"),
        ("optimiser", dl.SGD, T, "'optimizer'", "'optimiser' (did you mean 'optimizer'?)", "settings"),
        ("lr", [], V, "values with distinct labels"),
        ("lr", {}, V, "values with distinct labels"),
        ("lr", [0.1, 0.1], V, "values with distinct labels"),
        ("activation", [dl.ReLU, dl.ReLU], V, "values with distinct labels", "ReLU"),
        ("activation", ["relu", "tanh"], T, "a class such as ReLU", "'relu'"),
        ("initializer", ["glorot", "he_normal"], V, NAMES, "'glorot'"),
        ("lr", [0.1, -0.1], V, "finite numbers >= 0", "-0.1"),
        ("lr", ["0.1", "0.2"], T, "a number or one per replica", "'0.1'"),
        ("lr", (0.1, 0.2), T, "a number, or a list to sweep over"),
        ("lr", np.array([0.1, 0.2]), T, "a number, or a list to sweep over"),
        ("weight_decay", (0.1, 0.2), T, "a number, or a list to sweep over"),
        ("seeds", 0, V, WHOLE),
        ("seeds", [], V, "at least one seed", "none"),
        ("seeds", [3, 3], V, "distinct seeds"),
        ("seeds", 2.5, T, WHOLE),
        ("seeds", "2", T, WHOLE),
        ("seeds", None, T, WHOLE),
        ("backend", "torch", V, "'auto', 'numpy' or 'cupy'"),
        ("executor", "threads", T, "an Executor"),
        *[("checkpoint", v, T, "a path or Checkpoint(path)") for v in (3, True, [])],
        ("executor", 4, T, "an Executor"),
        *wholes("shard", 1)[:-1],
        ("test", "yes", T, "a bool"),
        ("epochs", [1, 0], V, WHOLE, "0"),
    ],
    probes.weight_slots: NO_NETWORK,
    probes.gradient_rms: [
        *NO_NETWORK,
        ("network", net([dl.Tanh()]), V, "a layer with weights W", "none"),
    ],
    probes.relative_update: [
        *NO_NETWORK,
        ("before", None, V, "parameters of shape", "None"),
        ("before", np.zeros(5), V, "parameters of shape (106,)", "(5,)"),
    ],
    probes.learning: [*NO_NETWORK, ("before", None, V, "parameters of shape", "None")],
    probes.signals: [
        *NO_NETWORK,
        ("network", net([dl.Tanh()]), V, "a layer with weights W", "none"),
        ("x", np.zeros((4, 5)), V, "(..., batch, 6)", "(4, 5)"),
        ("labels", np.full(4, 3), V, "integers in 0…2", "3"),
        ("labels", np.full(4, -1), V, "integers in 0…2", "-1"),
        ("labels", np.zeros(4), V, "integers in 0…2", "0."),
        ("labels", ["a"] * 4, V, "integers in 0…2", "'a'"),
        ("labels", Y[:3], V, "shape (..., 4)", "(3,)"),
        ("labels", Y[:0], V, "at least one example", "none"),
        ("x", X * 1j, V, "numbers", "imaginary part"),
        ("x", np.ma.masked_equal(X, 0), V, "numbers", "24 masked"),
        ("loss", "softmax", T, "a loss such as SoftmaxCrossEntropy()"),
        *numbers("saturated_below", RATE, -1),
    ],
    meanfield.expectation: [
        *numbers("q", RATE, -1),
        ("function", "square", T, "a function"),
    ],
    meanfield.variance: [
        ("activation", "relu", T, "a class such as ReLU"),
        ("activation", np.tanh, T, "a class such as ReLU", "tanh"),
        *numbers("q", RATE, -1),
        *numbers("sigma_w", RATE, -1),
        *numbers("sigma_b", RATE, -1),
    ],
    meanfield.chi: [
        ("activation", "relu", T, "a class such as ReLU"),
        *numbers("q", RATE, -1),
        *numbers("sigma_w", RATE, -1),
    ],
    meanfield.variances: [
        ("activation", None, T, "a class such as ReLU"),
        *numbers("first", RATE, -1),
        *wholes("depth", 1),
        *numbers("sigma_w", RATE, -1),
        *numbers("sigma_b", RATE, -1),
    ],
    gradcheck.numerical: [
        *[("array", np.ones(2, kind), T, "a float64 array", np.dtype(kind).name)
          for kind in (int, np.float32, np.float16, complex, bool)],
        ("array", [1.0, 2.0], T, "a float64 array", "list"),
        *numbers("step", "a number in (0, 1)", 0, 1, -1e-6),
    ],
    gradcheck.error: [("found", np.ones(3), V, "shape (2,)", "(3,)")],
    gradcheck.check_layer: [
        ("layer", dl.ReLU, T, "a non-empty list of layers", "ReLU", "layers"),
        ("layer", None, T, "a non-empty list of layers", "None", "layers"),
        ("x", np.zeros((4, 2)), V, "(..., batch, 4)", "(4, 2)"),
        ("seeds", -1, V, WHOLE),
    ],
    gradcheck.check_loss: [
        ("loss", "softmax", T, "a loss"),
        ("y", np.zeros((2, 4)), V, "shape (..., 2)", "(3,)", "labels"),
        ("target", np.zeros(4, int), V, "shape (..., 3)", "(4,)", "labels"),
    ],
    plots.mean_band: [
        ("values", curves(lr=3), V, "dimensions ('seed',)", "('lr',)"),
        ("values", ROWS, T, "an xarray.DataArray", "array("),
        *numbers("level", "a number in (0, 1)", 95),
    ],
    plots.bands: [
        ("data", curves(lr=3), V, "dimensions ('lr', 'seed')", "('lr',)"),
        ("data", ROWS, T, "an xarray.DataArray", "array("),
        ("x", "epoch", V, "dimensions ('epoch', 'seed')", "('lr', 'seed')", "data"),
        ("hue", "optimizer", V, "dimensions ('lr', 'seed', 'optimizer')", "('lr', 'seed')", "data"),
        ("labels", ["a", "b"], V, "1 labels, one per line"),
    ],
    plots.layers: [
        ("data", curves(), V, "dimensions ('layer', 'seed')", "('lr', 'seed')"),
        ("hue", "lr", V, "dimensions ('layer', 'seed', 'lr')", "('layer', 'seed')", "data"),
    ],
    plots.lr_sensitivity: [
        ("data", curves(layer=2, seed=2), V, "dimensions ('lr', 'seed')", "('layer', 'seed')"),
        ("data", [1, 2], T, "an xarray.DataArray"),
        ("hue", "layer", V, "dimensions ('lr', 'seed', 'layer')", "('lr', 'seed')", "data"),
        ("better", "max", V, "'higher' or 'lower'"),
        ("better", None, V, "'higher' or 'lower', for the data's name does not tell", "None"),
        ("data", curves().assign_coords(lr=[0.0, 1, 2]), V, "learning rates > 0", "[0. 1. 2.]"),
        ("data", curves() * 1j, V, "numbers", "complex"),
    ],
    plots.arm_style: wholes("i", 0),
    plots.trajectories: [
        ("paths", np.zeros((2, 5, 2), complex), V, "shape (n, steps, 2)", "complex"),
        ("paths", np.ma.masked_equal(np.zeros((2, 5, 2)), 0), V, "shape (n, steps, 2)", "20 masked"),
        ("paths", [[[0.0, 1.0]], [[0.0, 1.0]] * 2], V, "shape (n, steps, 2)", "no array"),
        ("paths", np.zeros((2, 5)), V, "shape (n, steps, 2)", "(2, 5)"),
        ("paths", np.zeros((2, 5, 3)), V, "shape (n, steps, 2)", "(2, 5, 3)"),
        ("names", ["a"], V, "2 names, one per path", "1"),
        ("surface", "ravine", T, "a surface such as ravine()"),
    ],
    st.interval: [
        ("values", [1.0], V, "at least two seeds", "1"),
        ("values", [], V, "at least two seeds", "0"),
        ("values", [1.0, NAN], V, "finite numbers", "1 NaN"),
        ("values", [1.0, INF], V, "finite numbers", "1 NaN or infinite"),
        ("values", ["x", "y"], V, "numbers", "list"),
        ("values", 3.0, V, "some axes", "()"),
        *[("values", values, V, "numbers", said) for values, said in DROPPED],
        *LEVEL,
        ("axis", "seed", T, "an xarray with dimension 'seed'", "list"),
        ("axis", 2, V, "an axis of shape (2,)"),
        ("axis", 0.5, T, WHOLE),
    ],
    st.paired_difference: [*SAME, *LEVEL, ("axis", 3, V, "an axis of shape (2,)")],
    st.ratio: [
        ("a", np.arange(8.0), V, "positive values", "0", "a and b"),
        ("b", -np.ones(8), V, "positive values", "-1", "a and b"),
        ("b", np.ones(3), V, "one shape", "(3,)", "a and b"),
        ("a", replaced(np.ones(8), NAN), V, "finite numbers", "1 NaN"),
        *LEVEL,
        ("level", 0.9999, V, "more than 8 values for a median at level 0.9999", "8", "a and b"),
    ],
    st.wilson: [
        ("successes", 2.5, V, "a whole number", "2.5"),
        ("n", 10.5, V, "a whole number", "10.5"),
        *numbers("successes", "a number in [0, 10]", -1, 11),
        *numbers("n", "a number in [1, inf)", 0),
        *LEVEL,
    ],
    st.two_way_difference: [
        ("correct_a", np.ones(4), V, "2 axes", "(4,)", "a"),
        ("correct_b", np.ones((4, 3)), V, "one shape", "(4, 3)", "a and b"),
        ("correct_a", replaced(np.eye(4), NAN), V, "finite numbers", "1 NaN", "a"),
        ("ids", np.zeros((4, 3)), V, "shape (4, 4) or (4,)", "(4, 3)"),
        ("ids", np.zeros((4, 4)), V, "at least two test images", "one"),
        ("ids", replaced(np.ones(4), NAN), V, "a name for every example", "NaN"),
        ("ids", np.ones((4, 4), complex), V, "names or numbers of examples", "complex"),
        *LEVEL,
    ],
    st.crossed_bootstrap: [
        ("correct_a", np.ones(4), V, "2 axes", "(4,)", "a"),
        ("correct_b", np.ones((4, 3)), V, "one shape", "(4, 3)", "a and b"),
        ("correct_a", replaced(np.eye(4), NAN), V, "finite numbers", "1 NaN", "a"),
        ("images", np.zeros((4, 3)), V, "shape (4, 4)", "(4, 3)"),
        ("images", replaced(np.ones(4), NAN), V, "a name for every example", "NaN"),
        ("images", np.zeros((4, 4)), V, "at least two test images", "one"),
        *LEVEL,
        *wholes("resamples", 100),
        *SEED,
    ],
    st.steps_to_target: [
        ("curve", np.ones(4), V, "2 axes", "(4,)"),
        ("curve", replaced(ROWS, NAN), V, "finite numbers", "1 NaN"),
        *numbers("target", "a number in (-inf, inf)"),
        ("at", [1, 2, 3], V, "4 steps, one per evaluation", "3"),
        ("at", [1, 2, 2, 3], V, "rising steps", "[1. 2. 2. 3.]"),
        ("budget", 5, V, "a number in [1, 4]"),
        ("budget", 0, V, "a number in [1, 4]"),
        ("budget", "4", T, "a number in [1, 4]"),
    ],
    st.verdict: [
        ("id", "g1", V, "a capital and digits"),
        ("id", "G", V, "a capital and digits"),
        ("id", 1, V, "a capital and digits"),
        ("effect", [1.0], V, "at least two seeds", "1", "values"),
        ("effect", [1.0, NAN], V, "finite numbers", "1 NaN"),
        ("effect", st.interval([1, 2, 3], 0.9), V, "an Interval at level 0.95", "0.9"),
        ("effect", {}, V, "a mapping with at least one condition", "{}"),
        ("effect", {"a": [1.0, NAN]}, V, "finite numbers", "1 NaN", "effect['a']"),
        ("effect", st.Interval(1.0, 2.0, 3.0, 5, 0.95), V, "low <= mean <= high", "low=2.0"),
        *[("at_least", v, V, "a number in (-inf, inf)") for v in (INF, NAN)],
        ("at_least", "0.5", T, "a number in (-inf, inf)"),
        ("at_least", None, V, "exactly one", "{}", "at_least, at_most, within"),
        ("at_most", 3, V, "exactly one", "'at_most': 3.0", "at_least, at_most, within"),
        ("within", 3, V, "exactly one", "'within': 3.0", "at_least, at_most, within"),
        ("within", -3, V, "a number in (0, inf)"),
        ("within", 0, V, "a number in (0, inf)"),
        *wholes("comparisons", 1),
        ("joint", True, V, "a mapping with at least one condition", "[1.0, 2.0, 3.0]", "effect"),
        ("size", "small", V, "'quick', 'full' or 'large'"),
    ],
}  # fmt: skip

#: Public callables without a row, and why.
NO_ROW = {
    name: reason
    for names, reason in (
        (
            "backend.Backend experiments.Shard training.History "
            "statistics.Interval statistics.Steps statistics.Verdict datasets.Surface "
            "regularizers.Watch arithmetic.Arithmetic",
            "a record that dlcore fills",
        ),
        ("training.bar", "called through fit and sweep"),
        ("activations.made", "called through mlp, SimpleRNN and meanfield"),
        ("norms.norm norms.shrink", "called through MaxNorm and clip_by_global_norm"),
        ("norms.sum_rows norms.mean_rows", "called by layers"),
        ("checks.expect checks.checked", "what the other checks are made of"),
        ("network.mlp_layers", "called through mlp, whose rows are the same"),
        ("folding.without_batch_norm", "called through Network.fold_batch_norm"),
        ("training.on_backend", "called through fit and evaluate"),
        ("training.check", "called through sweep; what it raises is what fit raises"),
        ("backend.one_blas_thread", "called through fit, which has the row of blas_threads"),
        ("backend.on_device backend.to_host backend.array_module", "any value will do"),
        ("backend.fuse backend.fused", "wrap dlcore's own functions"),
        ("host_arrays.axes_of", "takes anything"),
        ("observing.copies observing.unchanged observing.keep_new", "called by dlcore only"),
        ("datasets.full", "needs the network; its rows are in test_datasets.py"),
        ("network.Network.save", "OSError is what a path can lead to; see test_failing_save"),
        ("network.Network.backward", "takes what a loss returned"),
        ("network.Network.weights_below network.Network.spread", "called by dlcore only"),
    )
    for name in names.split()
}
#: Arguments without a row: any value will do, or another library judges them.
NO_ARGUMENT = {
    "checks.integer": "name at_least",
    "checks.real": "name low high ends",
    "checks.per_replica": "name replicas",
    "checks.instance": "name kind due",
    "checks.function": "name due",
    "checks.choice": "name known",
    "initializers.get": "name",
    "datasets.Dataset": "name",
    "schedules.begin": "replicas",
    "batches.Part": "network part loss",
    "host_arrays.real": "name due error",
    "host_arrays.aligned": "name like_name",
    "batches.per_seed": "seeds",
    "batches.sets_of": "network",
    "training.fit": "progress",
    "network.Network.forward": "training",
    "probes.gradient_rms": "before",
    "gradcheck.error": "expected",
    "gradcheck.numerical": "function",
    "random.seed_sequence": "name",
    "layers.fill": "xp name own",
    "checks.names": "name known",
    "network.Network.run": "training",
    "gradcheck.check_layer": "seed",
    "gradcheck.check_loss": "seed",
    "statistics.ratio": "median",
    "plots.bands": "ax log runs",
    "plots.trajectories": "ax",
    "statistics.verdict": "claim unit data",
} | {
    f"initializers.{kind}_{shape}": "rng"
    for kind in ("he", "lecun", "glorot")
    for shape in ("normal", "uniform")
}


def name_of(target):
    return getattr(target, "__qualname__", "Surface.value")


def case(target, argument, value, error, expected, came=None, named=None):
    came = repr(value) if came is None else came
    return target, argument, value, error, expected, came, named or argument


CASES = [case(target, *row) for target, rows in WRONG.items() for row in rows]
MESSAGE = re.compile(r"(?P<named>.+?): expected (?P<expected>.+), got (?P<came>.+)", re.DOTALL)


def call(target, arguments):
    """Call by name, but with ``self``, and what a signature takes as ``*name``, by position."""
    first = [arguments.pop("self")] if "self" in arguments else []
    for star in {"index", "steps", "known"} & set(arguments):
        if inspect.signature(target).parameters[star].kind is inspect.Parameter.VAR_POSITIONAL:
            *named, last = arguments.values()
            return target(*first, *named, *last)
    return target(*first, **arguments)


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A folder of its own, no figures left open, and none of the environment's settings."""
    for variable in ("DLCORE_SIZE", "DLCORE_SEED", "DLCORE_BACKEND"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    plots.plt.close("all")


@pytest.mark.parametrize("target", RIGHT, ids=name_of)
def test_right_call(target):
    call(target, RIGHT[target]())


@pytest.mark.parametrize(
    ("target", "argument", "value", "error", "expected", "came", "named"),
    CASES,
    ids=[f"{name_of(c[0])}-{c[1]}" for c in CASES],
)
def test_wrong_call(target, argument, value, error, expected, came, named):
    value = value() if target is dl.Network.load else value
    with pytest.raises((ValueError, TypeError)) as caught:
        call(target, RIGHT[target]() | {argument: value})
    message = str(caught.value)
    found = MESSAGE.fullmatch(message)
    assert found, message
    assert found["named"] == named, message
    assert expected in found["expected"], message
    assert came in found["came"], message
    assert type(caught.value) is error, message


def arguments_of(name, thing):
    """Names of a callable's arguments, without the object of a method."""
    return list(inspect.signature(thing).parameters)[name.count(".") == 2 :]


def public():
    """Public callables with arguments: functions, classes, and the methods users call."""
    for name, (_, thing) in test_docs.PUBLIC.items():
        owner = name.split(".")[1]
        method = name.count(".") == 2
        if isinstance(thing, property) or (method and owner not in METHODS):
            continue
        if name.startswith(INSIDE):
            continue
        if inspect.isclass(thing) and thing.__init__ is object.__init__:
            continue
        if arguments_of(name, thing):
            yield name, thing


#: Modules that are called through ``fit``, ``sweep`` and ``Network``.
INSIDE = ("checkpoints.", "fingerprints.", "installed.", "interrupts.", "packing.", "storage.")
#: Classes whose methods have rows of their own; other classes' are called by dlcore.
METHODS = ("Network", "Dataset", "Streams", "Noise")


def test_every_callable_has_rows():
    named = dict(public())
    assert RIGHT.keys() == WRONG.keys()
    without = {name for name, thing in named.items() if thing not in RIGHT}
    assert without == set(NO_ROW)


def test_every_argument_has_a_row():
    free = {name: set(arguments.split()) for name, arguments in NO_ARGUMENT.items()}
    missing, needless = {}, {}
    for name, thing in public():
        if thing in WRONG:
            due = set(arguments_of(name, thing)) - {"options", "settings", "sizes"}
            tried = {row[0] for row in WRONG[thing]}
            exempt = free.pop(name, set())
            if due - tried - exempt:
                missing[name] = due - tried - exempt
            if exempt & tried or exempt - due:
                needless[name] = (exempt & tried) | (exempt - due)
    assert (missing, needless, free) == ({}, {}, {})
