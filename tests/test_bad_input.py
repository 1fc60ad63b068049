"""Each error names the argument, what was expected and what came."""

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import checks, gradcheck, initializers, meanfield, probes
from dlcore.datasets import Dataset

DATA = small.blobs()
BLUEPRINT = dl.mlp([6, 5, 3])
X, Y = np.zeros((4, 6), np.float32), np.arange(4) % 3


def net(layers=BLUEPRINT, seeds=0):
    return dl.Network(layers, seeds, "numpy")


def fit(layers=BLUEPRINT, data=DATA, seeds=(0, 1), optimizer=dl.Adam, **options):
    return dl.fit(net(layers, seeds), data, optimizer, **(dict(lr=0.01, epochs=1) | options))


def sweep(network=BLUEPRINT, data=DATA, **options):
    return dl.sweep(network, data, backend="numpy", **(dict(lr=0.01, epochs=1, seeds=2) | options))


def made(**changes):
    parts = {
        f"{a}_{p}": getattr(DATA, f"{a}_{p}") for a in "xy" for p in ("train", "valid", "test")
    }
    return Dataset(**(parts | dict(name="made", classes=3) | changes))


def with_nan():
    x = DATA.x_train.copy()
    x[3, 2] = np.nan
    return made(x_train=x)


RELU = dl.ReLU()
SOFTMAX, BINARY, SQUARED = dl.SoftmaxCrossEntropy(), dl.BinaryCrossEntropy(), dl.MeanSquaredError()

#: what is wrong -> (call, exception, pieces of its message)
TABLE = {
    # backend
    "unknown backend": (
        lambda: dl.get_backend("torch"),
        ValueError,
        ["backend", "'auto', 'numpy' or 'cupy'", "'torch'"],
    ),
    "backend of a network": (
        lambda: dl.Network(BLUEPRINT, 0, "jax"),
        ValueError,
        ["backend", "'jax'"],
    ),
    "half precision": (
        lambda: dl.get_backend("numpy", "float16"),
        ValueError,
        ["dtype", "float32 or float64", "float16"],
    ),
    "unknown type": (
        lambda: dl.get_backend("numpy", "real"),
        ValueError,
        ["dtype", "float32 or float64", "'real'"],
    ),
    # seeds
    "no seeds": (lambda: net(seeds=[]), ValueError, ["seeds", "at least one", "none"]),
    "negative seed": (lambda: net(seeds=-1), ValueError, ["seeds", ">= 0", "-1"]),
    "a negative seed of several": (lambda: net(seeds=[1, -4]), ValueError, ["seeds", ">= 0", "-4"]),
    "seed with a fraction": (lambda: net(seeds=[0.5]), TypeError, ["seeds", "integer", "0.5"]),
    "seed as text": (lambda: net(seeds="12"), TypeError, ["seeds", "integer", "'12'"]),
    "seed of a stream": (
        lambda: dl.random.stream(1.5, "weights"),
        TypeError,
        ["seed", "integer", "1.5"],
    ),
    "a truth value as seed": (lambda: net(seeds=True), TypeError, ["seeds", "integer", "True"]),
    # layers and network
    "no layers": (lambda: net([]), TypeError, ["layers", "non-empty list", "[]"]),
    "not a layer": (
        lambda: net([dl.Dense(3, 2), "relu"]),
        TypeError,
        ["layers", "list of layers", "relu"],
    ),
    "a layer's class": (
        lambda: net([dl.Dense(3, 2), dl.ReLU]),
        TypeError,
        ["layers", "list of layers", "ReLU"],
    ),
    "one layer twice": (
        lambda: net([dl.Dense(3, 3), RELU, dl.Dense(3, 3), RELU]),
        ValueError,
        ["layers", "once", "twice"],
    ),
    "zero inputs": (lambda: dl.Dense(0, 3), ValueError, ["fan_in", ">= 1", "0"]),
    "outputs with a fraction": (lambda: dl.Dense(3, 2.5), TypeError, ["fan_out", "integer", "2.5"]),
    "bias as text": (lambda: dl.Dense(3, 2, bias="x"), TypeError, ["bias", "number", "'x'"]),
    "zero units": (lambda: dl.SimpleRNN(3, 0), ValueError, ["units", ">= 1", "0"]),
    "activation as text in an RNN": (
        lambda: dl.SimpleRNN(3, 2, "tanh"),
        TypeError,
        ["activation", "class", "'tanh'"],
    ),
    "zero axes": (lambda: dl.Flatten(0), ValueError, ["axes", ">= 1", "0"]),
    "one size": (
        lambda: net(dl.mlp([3])),
        ValueError,
        ["sizes", "inputs, hidden widths and outputs", "[3]"],
    ),
    "no width": (lambda: dl.mlp([3, 0, 2]), ValueError, ["sizes", ">= 1", "0"]),
    "a width with a fraction": (
        lambda: dl.mlp([3, 4.5, 2]),
        TypeError,
        ["sizes", "integer", "4.5"],
    ),
    "a number for sizes": (lambda: dl.mlp(3), TypeError, ["sizes", "sequence", "3"]),
    "activation as text": (
        lambda: net(dl.mlp([3, 4, 2], activation="relu")),
        TypeError,
        ["activation", "class", "'relu'"],
    ),
    "unknown option": (lambda: net(dl.mlp([3, 4, 2], width=3)), TypeError, ["width"]),
    "slope above one": (lambda: dl.LeakyReLU(1.5), ValueError, ["alpha", "[0, 1]", "1.5"]),
    "negative slope": (lambda: dl.ELU(-1), ValueError, ["alpha", "[0, inf)", "-1"]),
    # initializers
    "unknown initializer": (
        lambda: dl.Dense(3, 2, "xavier"),
        ValueError,
        ["initializer", "'glorot_normal'", "'xavier'"],
    ),
    "unknown recurrent initializer": (
        lambda: dl.SimpleRNN(3, 2, recurrent_initializer="eye"),
        ValueError,
        ["initializer", "'eye'"],
    ),
    "negative std": (lambda: initializers.normal(-1.0), ValueError, ["std", "[0, inf)", "-1"]),
    "std as text": (lambda: initializers.normal("1"), TypeError, ["std", "number", "'1'"]),
    "infinite limit": (
        lambda: initializers.uniform(np.inf),
        ValueError,
        ["limit", "[0, inf)", "inf"],
    ),
    "NaN as gain": (
        lambda: initializers.orthogonal(np.nan),
        ValueError,
        ["gain", "[0, inf)", "nan"],
    ),
    "shape of one axis": (
        lambda: initializers.fans((3,)),
        ValueError,
        ["shape", "(..., fan_in, fan_out)", "(3,)"],
    ),
    # shapes of inputs
    "features do not fit": (
        lambda: net().forward(np.zeros((4, 7), np.float32)),
        ValueError,
        ["x", "(..., batch, 6)", "(4, 7)"],
    ),
    "one example without batch": (
        lambda: net().forward(np.zeros(6, np.float32)),
        ValueError,
        ["x", "(..., batch, 6)", "(6,)"],
    ),
    "no time axis": (
        lambda: net([dl.SimpleRNN(3, 4)]).forward(np.zeros((4, 3)), False),
        ValueError,
        ["x", "(..., batch, time, 3)", "(4, 3)"],
    ),
    "data do not fit": (lambda: fit(dl.mlp([5, 3])), ValueError, ["x", "(..., batch, 5)", "6"]),
    "evaluation data do not fit": (
        lambda: dl.evaluate(net(dl.mlp([5, 3])), DATA),
        ValueError,
        ["x", "(..., batch, 5)"],
    ),
    # losses
    "labels of another batch": (
        lambda: SOFTMAX(np.zeros((4, 3)), Y[:3]),
        ValueError,
        ["labels", "(..., 4)", "(3,)"],
    ),
    "labels with replicas, logits without": (
        lambda: SOFTMAX(np.zeros((4, 3)), np.zeros((2, 4), int)),
        ValueError,
        ["labels", "(..., 4)", "(2, 4)"],
    ),
    "targets of another width": (
        lambda: BINARY(np.zeros((4, 3)), np.zeros((4, 2))),
        ValueError,
        ["targets", "(..., 4, 3)", "(4, 2)"],
    ),
    "labels for numbers": (
        lambda: SQUARED(np.zeros((4, 3)), Y),
        ValueError,
        ["targets", "(..., 4, 3)", "(4,)"],
    ),
    "targets with replicas, outputs without": (
        lambda: SQUARED(np.zeros((4, 3)), np.zeros((2, 4, 3))),
        ValueError,
        ["targets", "(2, 4, 3)"],
    ),
    "outputs do not fit the targets": (
        lambda: fit(dl.mlp([6, 2]), loss=SQUARED),
        ValueError,
        ["targets", "3"],
    ),
    # data
    "labels out of range": (
        lambda: made(y_train=np.full(60, 3)),
        ValueError,
        ["y_train", "0…2", "3"],
    ),
    "negative labels": (
        lambda: made(y_valid=np.full(30, -1)),
        ValueError,
        ["y_valid", "0…2", "-1"],
    ),
    "labels that are no integers": (
        lambda: made(y_train=np.zeros(60)),
        ValueError,
        ["y_train", "integer", "float64"],
    ),
    "NaN data": (with_nan, ValueError, ["x_train", "finite", "NaN"]),
    "empty training set": (
        lambda: made(x_train=np.zeros((0, 6)), y_train=np.zeros(0, int)),
        ValueError,
        ["x_train", "at least one", "empty"],
    ),
    "more classes than outputs": (
        lambda: fit(dl.mlp([6, 2])),
        ValueError,
        ["network", "3 outputs", "2"],
    ),
    "more classes than outputs, evaluated": (
        lambda: dl.evaluate(net(dl.mlp([6, 2])), DATA),
        ValueError,
        ["network", "3 outputs", "2"],
    ),
    "data of a wrong type": (
        lambda: fit(data=(X, Y)),
        TypeError,
        ["data", "Dataset, a mapping or a function"],
    ),
    "no data for a seed": (lambda: fit(data={0: DATA}), ValueError, ["data", "each seed", "[1]"]),
    "sets of other sizes": (
        lambda: fit(data=lambda seed: small.blobs(seed, train=60 + seed)),
        ValueError,
        ["data", "equal numbers", "train"],
    ),
    # evaluate
    "unknown part": (
        lambda: dl.evaluate(net(), DATA, "dev"),
        ValueError,
        ["part", "'train', 'valid' or 'test'", "'dev'"],
    ),
    "empty part": (
        lambda: dl.evaluate(net(), small.blobs(test=0), "test"),
        ValueError,
        ["data", "at least one test example", "none"],
    ),
    "not a loss": (
        lambda: dl.evaluate(net(), DATA, loss="mse"),
        TypeError,
        ["loss", "SoftmaxCrossEntropy()", "'mse'"],
    ),
    "not a network": (lambda: dl.evaluate(BLUEPRINT, DATA), TypeError, ["network", "Network"]),
    # fit
    "fit without a network": (
        lambda: dl.fit(BLUEPRINT, DATA, lr=0.1, epochs=1),
        TypeError,
        ["network", "Network"],
    ),
    "zero epochs": (lambda: fit(epochs=0), ValueError, ["epochs", ">= 1", "0"]),
    "half an epoch": (lambda: fit(epochs=0.5), TypeError, ["epochs", "integer", "0.5"]),
    "zero steps": (lambda: fit(epochs=None, steps=0), ValueError, ["steps", ">= 1", "0"]),
    "steps with a fraction": (
        lambda: fit(epochs=None, steps=2.5),
        TypeError,
        ["steps", "integer", "2.5"],
    ),
    "both epochs and steps": (
        lambda: fit(steps=3),
        ValueError,
        ["epochs, steps", "exactly one", "steps=3"],
    ),
    "neither epochs nor steps": (
        lambda: fit(epochs=None),
        ValueError,
        ["epochs, steps", "exactly one", "None"],
    ),
    "empty batches": (lambda: fit(batch_size=0), ValueError, ["batch_size", ">= 1", "0"]),
    "batch size as text": (
        lambda: fit(batch_size="all"),
        TypeError,
        ["batch_size", "integer", "'all'"],
    ),
    "never evaluated": (lambda: fit(evaluate_every=0), ValueError, ["evaluate_every", ">= 1", "0"]),
    "negative rate": (lambda: fit(lr=-0.1), ValueError, ["lr", ">= 0", "-0.1"]),
    "a negative rate of several": (lambda: fit(lr=[0.1, -0.1]), ValueError, ["lr", ">= 0", "-0.1"]),
    "NaN rate": (lambda: fit(lr=np.nan), ValueError, ["lr", "finite", "nan"]),
    "infinite rate": (lambda: fit(lr=np.inf), ValueError, ["lr", "finite", "inf"]),
    "rates of other replicas": (
        lambda: fit(lr=[0.1, 0.2, 0.3]),
        ValueError,
        ["lr", "2 numbers", "(3,)"],
    ),
    "rate as text": (lambda: fit(lr="0.1"), TypeError, ["lr", "number", "'0.1'"]),
    "ragged rates": (lambda: fit(lr=[[0.1], [0.1, 0.2]]), TypeError, ["lr", "number"]),
    "negative decay": (lambda: fit(weight_decay=-1), ValueError, ["weight_decay", ">= 0", "-1"]),
    "not an optimizer": (
        lambda: fit(optimizer="adam"),
        TypeError,
        ["optimizer", "Optimizer", "'adam'"],
    ),
    "a class that is no optimizer": (lambda: fit(optimizer=dict), TypeError, ["optimizer", "dict"]),
    "no schedule": (lambda: fit(schedule=0.5), TypeError, ["schedule", "0.5"]),
    "not a regularizer": (
        lambda: fit(regularizers=[0.5]),
        TypeError,
        ["regularizers", "expected some such as", "0.5"],
    ),
    "a regularizer as text": (
        lambda: fit(regularizers="clip"),
        TypeError,
        ["regularizers", "expected some such as", "'clip'"],
    ),
    "not a probe": (
        lambda: fit(probe="gradient_rms"),
        TypeError,
        ["probe", "function", "'gradient_rms'"],
    ),
    # optimizers and regularizers
    "momentum above one": (lambda: dl.Momentum(1.1), ValueError, ["momentum", "[0, 1", "1.1"]),
    "beta of one": (lambda: dl.Adam(beta1=1.0), ValueError, ["beta1", "[0, 1)", "1.0"]),
    "negative beta": (lambda: dl.Adam(beta2=-0.1), ValueError, ["beta2", "[0, 1)", "-0.1"]),
    "negative epsilon": (
        lambda: dl.Adam(epsilon=-1e-8),
        ValueError,
        ["epsilon", "[0, inf)", "-1e-08"],
    ),
    "clip at zero": (lambda: dl.clip_by_norm(0.0), ValueError, ["max_norm", "(0, inf)", "0.0"]),
    "clip at nothing": (lambda: dl.clip_by_norm(None), TypeError, ["max_norm", "number", "None"]),
    # sweep
    "unknown setting": (
        lambda: sweep(learning_rate=[0.1]),
        TypeError,
        ["settings", "'lr'", "learning_rate"],
    ),
    "network instead of blueprint": (
        lambda: sweep(net()),
        TypeError,
        ["network", "function that makes layers"],
    ),
    "nothing to sweep over": (lambda: sweep(lr=[]), ValueError, ["lr", "distinct labels", "[]"]),
    "one label twice": (
        lambda: sweep(lr=[0.1, 0.1]),
        ValueError,
        ["lr", "distinct labels", "[0.1, 0.1]"],
    ),
    "no replicas": (lambda: sweep(seeds=0), ValueError, ["seeds", ">= 1", "0"]),
    "no seeds to sweep": (lambda: sweep(seeds=[]), ValueError, ["seeds", "at least one"]),
    "one seed twice": (lambda: sweep(seeds=[3, 3]), ValueError, ["seeds", "distinct", "[3, 3]"]),
    "seeds with a fraction": (lambda: sweep(seeds=2.5), TypeError, ["seeds", "integer", "2.5"]),
    "empty shards": (lambda: sweep(shard=0), ValueError, ["shard", ">= 1", "0"]),
    "array as data": (
        lambda: sweep(data=X),
        TypeError,
        ["data", "Dataset, a mapping or a function"],
    ),
    "no data for a swept seed": (
        lambda: sweep(data={0: DATA}),
        ValueError,
        ["data", "each seed", "[1]"],
    ),
    "negative rate in a sweep": (lambda: sweep(lr=[0.1, -0.1]), ValueError, ["lr", ">= 0"]),
    # the rest
    "zero learning rate in a grid": (
        lambda: dl.lr_grid(0.0, 2),
        ValueError,
        ["centre", "(0, inf)", "0.0"],
    ),
    "half a step in a grid": (
        lambda: dl.lr_grid(0.1, 1.5),
        TypeError,
        ["steps_each_side", "integer", "1.5"],
    ),
    "factor zero in a grid": (
        lambda: dl.lr_grid(0.1, 1, 0),
        ValueError,
        ["factor", "(0, inf)", "0.0"],
    ),
    "sizes with other names": (
        lambda: dl.setup(full=dict(steps=3), quick=dict(seeds=3)),
        ValueError,
        ["sizes", "same names"],
    ),
    "seeds that are no count": (
        lambda: dl.setup(full=dict(seeds=range(3))),
        TypeError,
        ["seeds", "integer"],
    ),
    "more seeds than fit": (
        lambda: dl.setup(full=dict(seeds=1001)),
        ValueError,
        ["seeds", "at most 1000", "1001"],
    ),
    "labels of signals out of range": (
        lambda: probes.signals(net(), X, np.full(4, 3)),
        ValueError,
        ["labels", "0…2", "3"],
    ),
    "labels of signals with fractions": (
        lambda: probes.signals(net(), X, np.zeros(4)),
        ValueError,
        ["labels", "integers"],
    ),
    "signals without weights": (
        lambda: probes.signals(net([dl.Tanh()]), X, Y),
        ValueError,
        ["network", "weights W", "none"],
    ),
    "negative variance": (
        lambda: meanfield.expectation(np.square, -1.0),
        ValueError,
        ["q", ">= 0", "-1.0"],
    ),
    "shape for a check": (
        lambda: gradcheck.check_layer(dl.Dense(3, 2), np.zeros((4, 2))),
        ValueError,
        ["x", "(..., batch, 3)", "(4, 2)"],
    ),
    "a truth value as integer": (
        lambda: checks.integer("n", True, 0),
        TypeError,
        ["n", "integer", "True"],
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_message(case, monkeypatch):
    for variable in ("DLCORE_SIZE", "DLCORE_SEED"):
        monkeypatch.delenv(variable, raising=False)
    call, exception, pieces = TABLE[case]
    with pytest.raises(exception) as caught:
        call()
    message = str(caught.value)
    missing = [piece for piece in pieces if piece not in message]
    assert not missing, f"{message!r} does not contain {missing}"
    assert type(caught.value) is exception


@pytest.mark.parametrize("part", ["valid", "test"])
def test_empty_parts_are_allowed(part):
    """Only training data are needed to train."""
    history = fit(data=small.blobs(**{part: 0}))
    assert np.isfinite(history.train_loss).all()


@pytest.mark.parametrize(
    ("bracket", "inside", "outside"),
    [("[]", [0, 1], [-0.1, 1.1]), ("()", [0.5], [0, 1]), ("(]", [1], [0, 1.1]), ("[)", [0], [1])],
)
def test_ends_of_intervals(bracket, inside, outside):
    for value in inside:
        assert checks.real("a", value, 0, 1, bracket) == value
    for value in [*outside, np.nan, np.inf]:
        with pytest.raises(ValueError, match="a: expected a number in"):
            checks.real("a", value, 0, 1, bracket)


def test_numpy_numbers_are_numbers():
    assert checks.integer("n", np.int32(3), 0) == 3
    assert checks.real("a", np.float32(0.5), 0) == 0.5
    assert checks.per_replica("lr", np.float32(0.5), 2).tolist() == [0.5, 0.5]
    assert len(sweep(seeds=np.int64(2)).seed) == 2
