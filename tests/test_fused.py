"""Functions that a device runs as one kernel: equal to NumPy's form on the double, and made by CuPy.

CuPy makes the kernels without a GPU (it traces the function and writes CUDA); none was ever run here.
"""

from __future__ import annotations

import functools

import double
import numpy as np
import pytest
import small
from double import xp

import dlcore as dl
from dlcore import backend as backends
from dlcore.activations import Activation

FULL, ROW = (2, 3, 4), (2, 1, 4)
# Arguments of each function but the array module: shapes of arrays, their kinds, and numbers.
MOMENTS = (FULL, FULL, FULL, 0.9, 0.1, 0.999, 0.001)
ARGUMENTS = {
    "layers._centred": [(FULL, ROW)],
    "layers._follow": [(ROW, ROW, ROW, ROW, 0.9, 0.1, 0.11)],
    "layers._inverse_root": [(ROW, 1e-5)],
    "layers._scaled": [(FULL, ROW, ROW, ROW)],
    "layers._through": [(FULL, FULL, ROW, ROW, ROW, ROW, 3)],
    "layers._dropped": [(FULL, FULL, 0.3, 1 / 0.7)],
    "losses._shifted": [(FULL, (2, 3, 1))],
    "losses._cross_entropy": [(FULL, FULL, (2, 3, 1), ("labels", 2, 3, 1), ("labels", 4), 3)],
    "losses._logistic_loss": [(FULL, FULL, 3)],
    "losses._squared_error": [(FULL, FULL, 0.25)],
    "optimizers._descend": [
        (FULL, FULL, FULL, None, None),
        (FULL, FULL, FULL, FULL, None),
        (FULL, FULL, FULL, None, 0.1),
        (FULL, FULL, FULL, FULL, 0.1),
    ],
    "optimizers._accelerate": [(FULL, FULL, 0.9)],
    "optimizers._look_ahead": [(FULL, FULL, 0.9)],
    "optimizers._adagrad": [(FULL, FULL, 1e-10)],
    "optimizers._rmsprop": [(FULL, FULL, 0.9, 0.1, 1e-8)],
    "optimizers._adam": [(*MOMENTS, 0.1, 0.001, 1e-8)],
    "optimizers._adam_as_it_is": [(*MOMENTS, 1e-8)],
    "optimizers._nadam": [(*MOMENTS, 1.5, 1.2, 0.001, 1e-8)],
    "recurrent._joined": [(FULL, FULL, ROW)],
}
KERNELS = {
    f"{name} {i}": (backends.FUSED[f"dlcore.{name}"], arguments)
    for name, several in ARGUMENTS.items()
    for i, arguments in enumerate(several)
}
for layer in sorted(small.subclasses(Activation) - {dl.Identity}, key=lambda c: c.__name__):
    one = layer()
    value = lambda module, z, one=one: _on(one, module).value(z)  # noqa: E731
    chain = lambda module, dy, z, a, one=one: _on(one, module).chain(dy, z, a)  # noqa: E731
    KERNELS[f"{layer.__name__} value"] = value, (FULL,)
    KERNELS[f"{layer.__name__} chain"] = chain, (FULL, FULL, FULL)


def _on(layer, module):
    layer.xp = module
    return layer


def arrays(arguments, dtype):
    """The arguments with arrays in place of their shapes."""
    rng, made = np.random.default_rng(5), []
    for a in arguments:
        if not isinstance(a, tuple):
            made.append(a)
        elif a[0] == "labels":
            made.append(rng.integers(4, size=a[1:]))
        else:
            made.append(rng.uniform(0.1, 0.9, a).astype(dtype))
    return made


def test_every_fused_function_is_tried():
    assert set(backends.FUSED) == {f"dlcore.{name}" for name in ARGUMENTS}
    own = small.subclasses(Activation)
    assert {c for c in own if not vars(c).get("fusable")} == {dl.Identity}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("function", "arguments"), KERNELS.values(), ids=KERNELS)
def test_one_kernel_with_numpys_bits(function, arguments, dtype):
    host = arrays(arguments, dtype)
    device = [xp.asarray(a) if isinstance(a, np.ndarray) else a for a in host]
    expected = function(np, *host)
    kernel = backends.fuse(xp, functools.partial(function, xp), "kernel")
    with double.count(strict=True) as c:
        found = kernel(*device)
    assert (c.calls, c.names["kernel"]) == (1, 1)
    several = expected if isinstance(expected, tuple) else (expected,)
    got = found if isinstance(found, tuple) else (found,)
    changed = [(d, h) for d, h in zip(device, host, strict=True) if isinstance(h, np.ndarray)]
    for d, h in [*zip(got, several, strict=True), *changed]:
        if h is None:
            assert d is None
            continue
        assert d.dtype == h.dtype
        np.testing.assert_array_equal(d.get(), h)


def kernel_of_cupy(function, arguments, dtype):
    """What CuPy's ``fuse`` makes: the history of a trace, as its ``get_fusion`` makes it."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    fusion = cupy._core.fusion
    local = cupy._core._fusion_thread_local.thread_local
    history, given, parameters = fusion._FusionHistory(), [], []
    for a in arguments:
        if isinstance(a, tuple):
            kind = "int64" if a[0] == "labels" else dtype
            parameter = history._fresh_premap_param(np.dtype(kind))
            axes = len(a) - (a[0] == "labels")
            given.append(fusion._FusionVarArray(parameter, axes, False))
        else:
            parameter, variable = history._gen_abstracted_args(a)
            given.append(variable)
        parameters += [parameter] if parameter is not None else []
    local.history, local.is_old_fusing = history, True
    try:
        found = function(cupy, *given)
    finally:
        local.history, local.is_old_fusing = None, False
    found = found if isinstance(found, tuple) else () if found is None else (found,)
    outputs = [history._fresh_premap_param(one.dtype) for one in found]
    code = history._emit_operation_code()
    code += "".join(f"{o} = {f._var};" for o, f in zip(outputs, found, strict=True))
    kernel = cupy.ElementwiseKernel(
        ", ".join(p.declaration_in_param() for p in parameters),
        ", ".join(o.declaration_out_param() for o in outputs),
        code,
        preamble=history._emit_submodules_code(),
        no_return=not outputs,
        return_tuple=len(outputs) > 1,
    )
    return kernel, history, found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("function", "arguments"), KERNELS.values(), ids=KERNELS)
def test_cupy_makes_one_kernel_of_it(function, arguments, dtype):
    """In the arrays' own precision: of two numbers CuPy would make half precision, float16."""
    kernel, history, found = kernel_of_cupy(function, arguments, dtype)
    assert kernel.nin == sum(a is not None for a in arguments)
    assert kernel.nout == len(found)
    kinds = {kind.name for op in history.op_list for kind in op.dtypes}
    assert history.op_list
    assert kinds <= {dtype, "bool", "int64"}
    assert {one.dtype.name for one in found} <= {dtype}


def test_two_numbers_are_half_precision_in_cupy():
    """Why the double refuses them: if this fails, CuPy has changed, and the rule can go."""
    wrong = lambda module, x, beta: (1 - beta) * x  # noqa: E731
    _, history, _ = kernel_of_cupy(wrong, (FULL, 0.999), "float32")
    assert "float16" in {kind.name for op in history.op_list for kind in op.dtypes}


X = xp.asarray(np.float32([[0.1, 0.2], [0.3, 0.4]]))
HOST = np.float32([0.1, 0.2])
REFUSED = {
    "two numbers": (lambda x, b: (1 - b) * x, (X, 0.9)),
    "two given numbers": (lambda x, a, b: a * b * x, (X, 0.9, 0.1)),
    "a number compared": (lambda x, b: x if b > 0 else -x, (X, 0.9)),
    "where of two numbers": (lambda x: xp.where(x > 0, 1.0, 0.1), (X,)),
    "a reduction": (lambda x: x - x.max(), (X,)),
    "a sum": (lambda x: x / xp.sum(x), (X,)),
    "a product": (lambda x: x @ x, (X,)),
    "an index": (lambda x: x[0], (X,)),
    "a shape": (lambda x: x / x.shape[0], (X,)),
    "a view": (lambda x: x.reshape(4), (X,)),
    "likeness": (lambda x: xp.zeros_like(x) + x, (X,)),
    "abs": (lambda x: abs(x), (X,)),
    "nothing new": (lambda x: x, (X,)),
    "a host array": (lambda x, y: x + y, (X, HOST)),
    "a typed number": (lambda x, y: x + y, (X, HOST[0])),
    "a bool": (lambda x, y: x + y, (X, True)),
    "text": (lambda x, y: x, (X, "a")),
    "no array": (lambda x: x + 1, (0.5,)),
    "writing to a smaller one": (lambda x, y: xp.add(y, x, out=y), (X, X[0])),
    "not on a device": (lambda x: np.asarray(x), (X,)),
}


@pytest.mark.parametrize(("function", "arguments"), REFUSED.values(), ids=REFUSED)
def test_the_double_refuses_what_cupy_cannot_fuse(function, arguments):
    with pytest.raises((TypeError, AttributeError)):
        backends.fuse(xp, function, "kernel")(*arguments)
    with double.count() as c:
        assert (X + X).shape == X.shape  # and is as it was
    assert c.calls == 1


def test_a_kernel_gives_its_full_shape():
    """As CuPy does, also where a result needs only a part of the arguments."""
    two = backends.fuse(xp, lambda x, y: (x + y, y * 2), "kernel")(X, X[0])
    assert [one.shape for one in two] == [(2, 2), (2, 2)]


class Mine(dl.ReLU):
    """A class below one that is fusable, with a value that CuPy cannot fuse."""

    def value(self, z):
        return abs(z) / z.shape[-1]


@pytest.mark.parametrize("made", [Mine, dl.Identity, lambda: dl.LeakyReLU(0.3), dl.GELU])
def test_activations_of_all_kinds_on_the_device(made):
    nets = [
        dl.Network(dl.mlp([4, 3, 2], activation=made), range(2), b)
        for b in (dl.Backend("double", xp), "numpy")
    ]
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    outputs = [net.backend.to_numpy(net.forward(net.backend.asarray(x), True)) for net in nets]
    np.testing.assert_array_equal(*outputs)
    for net in nets:
        net.backward(net.backend.asarray(np.ones((2, 5, 2))))
    np.testing.assert_array_equal(*(small.gradients(net) for net in nets))


def test_a_changed_setting_makes_another_kernel():
    net = dl.Network([dl.LeakyReLU(0.5)], 0, dl.Backend("double", xp))
    layer, minus = net.layers[0], xp.asarray(np.float32([[-1.0]]))
    assert layer.forward(minus, True).item() == -0.5
    layer.alpha = 0.25
    assert layer.forward(minus, True).item() == -0.25
