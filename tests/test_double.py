"""The device double: equal to NumPy in what it offers, refusing and counting as promised."""

from __future__ import annotations

import copy
import operator
import pickle
import threading

import double
import numpy as np
import pytest
from double import HostTransfer, xp
from test_cupy_names import cupy_object, parameters

FUNCTIONS, METHODS = double.functions(), double.methods()
UFUNCS = [n for n in FUNCTIONS if isinstance(getattr(np, n, None), np.ufunc) and n != "matmul"]
INTEGER = {"bitwise_and", "bitwise_or", "bitwise_xor", "invert"}


def array(*shape, seed=0, dtype="float32"):
    """A host array of numbers between 0.1 and 0.9, where every ufunc is defined."""
    return np.random.default_rng([seed, len(shape)]).uniform(0.1, 0.9, shape).astype(dtype)


X, Y = array(2, 3, 4), array(2, 3, 4, seed=1)
MASK = X > 0.5
INDEX = np.array([[2, 0], [1, 1]])

# Arguments of each function on the host; arrays among them become device arrays for the double.
CASES = {
    "all": [((MASK,), {"axis": -1, "keepdims": True})],
    "any": [((MASK,), {"axis": (-2, -1)})],
    "amax": [((X,), {"axis": -1})],
    "amin": [((X, -1), {"keepdims": True})],
    "arange": [((5,), {}), ((1, 6, 2), {"dtype": "float32"})],
    "argmax": [((X,), {"axis": -1}), ((X, -1), {"keepdims": True})],
    "argmin": [((X,), {"axis": -2})],
    "argsort": [((X,), {"axis": -2})],
    "ascontiguousarray": [((X.mT,), {}), ((X,), {"dtype": "float64"})],
    "broadcast_to": [((array(3, 1), (2, 3, 4)), {})],
    "clip": [((X, 0.3, 0.6), {}), ((X, Y, 1.0), {})],
    "concatenate": [(((X, Y),), {"axis": -1}), (([X, Y],), {"dtype": "float64"})],
    "copy": [((X,), {})],
    "copyto": [],  # writes: tested below
    "count_nonzero": [((MASK,), {"axis": -1})],
    "cumprod": [((X,), {"axis": -1})],
    "cumsum": [((X,), {"axis": -1, "dtype": "float64"})],
    "dot": [((X[0], Y[0].T.copy()), {})],
    "einsum": [(("rij,rkj->rik", X, Y), {}), (("rij->ri", X), {"optimize": True})],
    "empty": [],  # without values: tested below
    "empty_like": [],
    "expand_dims": [((X, -1), {}), ((X, (-1, -3)), {})],
    "eye": [((3,), {}), ((2, 3, 1), {"dtype": "float32"})],
    "full": [(((2, 3), 0.5), {"dtype": "float32"}), ((3, X[0, 0, 0:1]), {})],
    "full_like": [((X, 2), {}), ((X, 2), {"dtype": "int64", "shape": (2,)})],
    "lib.stride_tricks.sliding_window_view": [((X, (2, 3)), {"axis": (-2, -1)})],
    "matmul": [((X, Y.mT), {}), ((X, Y[0].T), {}), ((X[0, 0], Y.mT), {})],
    "max": [((X,), {"axis": -1, "keepdims": True}), ((X,), {})],
    "mean": [((X,), {"axis": (-2, -1)}), ((X,), {"dtype": "float64"})],
    "min": [((X, -1), {})],
    "moveaxis": [((X, -1, -3), {})],
    "nonzero": [((MASK,), {})],
    "ones": [(((2, 3),), {"dtype": "float32"})],
    "ones_like": [((X,), {})],
    "pad": [((X, ((0, 0), (1, 1), (2, 0))), {"mode": "constant", "constant_values": 3})],
    "prod": [((X,), {"axis": -1})],
    "ravel": [((X,), {}), ((X.mT,), {})],
    "quantile": [((X, 0.3), {"axis": -1}), ((X, 0.5), {"axis": -2, "keepdims": True})],
    "repeat": [((X, 2), {"axis": -1})],
    "reshape": [((X, (2, -1)), {}), ((X.mT, (2, 12)), {})],
    "sort": [((X,), {"axis": -1})],
    "squeeze": [((X[:, :1],), {"axis": -2})],
    "stack": [(((X, Y),), {"axis": -1})],
    "std": [((X,), {"axis": -1, "ddof": 1})],
    "sum": [((X,), {"axis": -2, "keepdims": True}), ((X,), {"dtype": "float64"}), ((X,), {})],
    "swapaxes": [((X, -1, -2), {})],
    "take": [((X, INDEX), {"axis": -2}), ((X, 1), {"axis": -1})],
    "take_along_axis": [((X, INDEX[:, None]), {"axis": -1})],
    "tensordot": [((X[0], Y[0]), {"axes": ([0, 1], [0, 1])})],
    "tile": [((X, (3, 1, 1)), {}), ((X, 2), {})],
    "transpose": [((X,), {}), ((X,), {"axes": (0, 2, 1)})],
    "var": [((X, -1), {"ddof": 1, "keepdims": True})],
    "where": [((MASK, X, 0.0), {}), ((MASK, 1, Y), {})],
    "zeros": [((3,), {}), (((2, 3), "float32"), {})],
    "zeros_like": [((X,), {"dtype": "float64"})],
}
METHOD_CASES = {
    "all": [((MASK,), {"axis": -1})],
    "astype": [((X, "float64"), {}), ((X, np.int64), {"copy": False})],
    "clip": [((X, 0.3, 0.6), {})],
    "flatten": [((X,), {})],
    "reshape": [((X, 2, -1), {}), ((X, (2, 12)), {}), ((X.mT, 24), {})],
    "round": [((X,), {"decimals": 2}), ((X, 1), {})],
    "take": [((X, INDEX, -2), {})],
    "transpose": [((X,), {}), ((X, 0, 2, 1), {}), ((X, (0, 2, 1)), {})],
    "fill": [],
    "sort": [],
}


def put(value):
    """Put the arrays of a case on the device."""
    if isinstance(value, (tuple, list)):
        return type(value)(put(v) for v in value)
    return xp.asarray(value) if isinstance(value, np.ndarray) else value


def assert_equal(got, expected):
    if isinstance(expected, tuple):
        for g, e in zip(got, expected, strict=True):
            assert_equal(g, e)
        return
    assert isinstance(got, xp.ndarray)
    expected = np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got.get(), expected)


# Equality with NumPy -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", UFUNCS)
def test_ufunc_equals_numpys(name):
    f = getattr(np, name)
    dtypes = ["int64", "bool"] if name in INTEGER else ["float32", "float64"]
    for dtype in dtypes:
        inputs = [(10 * array(2, 3, 4, seed=i)).astype(dtype) for i in range(f.nin)]
        if dtype[0] == "f":
            inputs = [x / 10 for x in inputs]
        expected = f(*inputs)
        assert_equal(getattr(xp, name)(*put(inputs)), expected)
        out = xp.empty(expected.shape, expected.dtype)
        assert getattr(xp, name)(*put(inputs), out=out) is out
        assert_equal(out, expected)
    if f.nin == 2 and name not in INTEGER:
        assert_equal(getattr(xp, name)(xp.asarray(X), 0.5), f(X, 0.5))
        assert_equal(getattr(xp, name)(0.5, xp.asarray(X)), f(0.5, X))


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - set(UFUNCS)))
def test_function_equals_numpys(name):
    for args, kwargs in CASES[name]:
        f, g = operator.attrgetter(name)(np), operator.attrgetter(name)(xp)
        assert_equal(g(*put(args), **put_values(kwargs)), f(*args, **kwargs))


def put_values(kwargs):
    return {name: put(value) for name, value in kwargs.items()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_method_equals_numpys(name):
    for args, kwargs in METHOD_CASES.get(name, CASES.get(name)):
        expected = getattr(args[0], name)(*args[1:], **kwargs)
        got = getattr(xp.asarray(args[0]), name)(*put(args[1:]), **put_values(kwargs))
        assert_equal(got, expected)


def test_every_function_and_method_has_a_case():
    assert set(CASES) == set(FUNCTIONS) - set(UFUNCS)
    assert set(METHOD_CASES) <= set(METHODS) <= set(METHOD_CASES) | set(CASES)


def test_functions_and_methods_that_write():
    x = xp.zeros((2, 3))
    assert x.fill(2) is None
    xp.copyto(x, xp.asarray(-X[0, :, :3][:2]), where=xp.asarray(MASK[0, :2, :3]))
    expected = np.where(MASK[0, :2, :3], -X[0, :2, :3], 2)
    assert_equal(x, expected.astype(float))
    assert x.sort() is None
    assert_equal(x, np.sort(expected.astype(float)))
    assert_equal(xp.sum(x, axis=-1, out=xp.empty(2)), x.get().sum(-1))
    assert xp.empty((2, 3), dtype="float32").dtype == np.float32
    assert xp.empty_like(x, shape=(4,)).shape == (4,)


@pytest.mark.parametrize("name", [*double.OPERATORS, *double.PLAIN])
def test_operator_equals_numpys(name):
    names = {"and": "and_", "or": "or_"}
    f = getattr(operator, names.get(name, name))
    g = np.power if name == "pow" else f  # NumPy's ** turns to sqrt and square where it can
    integer = name in ("and", "or", "xor", "invert")
    x, y = (
        (np.arange(9).reshape(3, 3), np.full((3, 3), 5)) if integer else (X[:, :, :3], X[:, :, 1:])
    )
    if name in ("neg", "abs", "invert"):
        assert_equal(f(xp.asarray(x)), g(x))
        return
    assert_equal(f(*put([x, y])), g(x, y))
    if name != "matmul":
        scalar = 2 if integer else 0.5
        assert_equal(f(xp.asarray(x), scalar), g(x, scalar))
        assert_equal(f(scalar, xp.asarray(x)), g(scalar, x))
        assert_equal(f(np.asarray(scalar)[()], xp.asarray(x)), g(np.asarray(scalar)[()], x))
    if name in double.OPERATORS and name != "matmul":
        left = z = xp.asarray(x)
        z = getattr(operator, f"i{name}")(z, xp.asarray(y))
        assert z is left
        assert_equal(z, g(x, y))


def test_attributes_and_constants():
    x = xp.asarray(X)
    for name in double.ATTRIBUTES.split():
        assert getattr(x, name) == getattr(X, name)
    assert_equal(x.T, X.T)
    assert_equal(x.mT, X.mT)
    assert (len(x), x.mT.flags.c_contiguous, x.flags.c_contiguous) == (2, False, True)
    assert (xp.float32, xp.newaxis, xp.pi) == (np.float32, None, np.pi)
    assert "0." in repr(x)
    assert (xp.is_available(), xp.cuda.is_available()) == (True, True)


def test_promotion_is_numpy_2s():
    x = xp.asarray(X)
    assert (x * 2.0).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert (np.float64(2) * x).dtype == np.float64
    assert (x * xp.asarray(np.float64(2))).dtype == np.float64


def test_the_device_gives_no_floating_point_warnings():
    x = xp.asarray(np.float32([0, 1e30]))
    x[0:1] = 1e300
    assert not xp.isfinite(xp.exp(x) / 0).any()


# Views and indices -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[1:],
        lambda x: x[..., 1],
        lambda x: x[1, 2, 3],
        lambda x: x[None],
        lambda x: x.reshape(2, 12),
        lambda x: xp.reshape(x, (6, 4)),
        lambda x: x.ravel(),
        lambda x: x.T,
        lambda x: x.mT,
        lambda x: x.swapaxes(-1, -2),
        lambda x: x.astype("float32", copy=False),
        lambda x: xp.asarray(x),
        lambda x: xp.expand_dims(x, -1),
    ],
)
def test_views_share_memory_and_launch_nothing(view):
    x = xp.asarray(X)
    with double.count() as c:
        y = view(x)
        assert xp.may_share_memory(x, y)
    assert c == double.Counts()
    y[...] = 7
    assert (x.get() == 7).sum() == y.size
    y += 1
    assert (x.get() == 8).sum() == y.size


@pytest.mark.parametrize(
    ("index", "host"),
    [
        (np.array([1, 0, -1]), None),
        ((slice(None), np.array([[0, 2]])), None),
        (MASK, None),
        ((1, np.array([True, False, True])), None),
        (np.array(1), None),
    ],
)
def test_index_arrays_gather(index, host):
    assert_equal(xp.asarray(X)[put(index)], X[index])


def test_index_out_of_range_raises_where_cupy_wraps():
    x, index = xp.asarray(X), xp.asarray(np.array([0, 5]))
    for gather in (
        lambda: x[index],
        lambda: x[9],
        lambda: xp.take(x, index, axis=-1),
        lambda: x.take(index, axis=-1),
        lambda: xp.take_along_axis(x, index[None, None], axis=-1),
    ):
        with pytest.raises(IndexError):
            gather()


# Refusals ----------------------------------------------------------------------------------------

x, mask, index = xp.asarray(X), xp.asarray(MASK), xp.asarray(INDEX)
one, three = xp.asarray(np.float32(1)), xp.asarray(np.array(3))
BINARY = "add sub mul truediv floordiv mod pow matmul and_ or_ xor eq ne lt le gt ge"
INPLACE = "iadd isub imul itruediv ifloordiv imod ipow iand ior ixor imatmul"
REFUSED = {
    "NumPy's ufunc of both": lambda: np.add(x, Y),
    "NumPy's ufunc, host first": lambda: np.add(Y, x),
    "NumPy's ufunc of a list": lambda: np.add(x, [1.0]),
    "NumPy's reduce": lambda: np.maximum.reduce(x),
    "NumPy's reduce of a list": lambda: np.maximum.reduce([x, x]),
    "NumPy's outer": lambda: np.add.outer(x, x),
    "NumPy's where": lambda: np.add(x, x, where=mask),
    "NumPy's ufunc that CuPy lacks": lambda: np.vecdot(x, x),
    "NumPy's function that is not on offer": lambda: np.histogram(x),
    "NumPy's function of both": lambda: np.where(MASK, x, x),
    "NumPy's stack of both": lambda: np.stack([x, X]),
    "host == device": lambda: np.equal(X, x),
    "device == host": lambda: x == X,
    "host < device": lambda: np.less(X, x),
    "NumPy's average of a list": lambda: np.mean([x, x]),
    "NumPy's out": lambda: np.exp(X, out=x),
    "__array__": lambda: np.asarray(x),
    "array of device arrays": lambda: np.array([x, x]),
    "NumPy type": lambda: np.float32(one),
    "index of a host array": lambda: X[index],
    "assignment to a host array": lambda: X.copy().__setitem__(..., x),
    "host array into a ufunc": lambda: xp.add(x, Y),
    "list into a ufunc": lambda: xp.add(x, [1.0]),
    "None into a ufunc": lambda: xp.add(x, None),
    "text into a ufunc": lambda: xp.add(x, "1"),
    "host array as out": lambda: xp.add(x, x, out=np.empty_like(X)),
    "scalars only": lambda: xp.add(1.0, 2.0),
    "host array into a function": lambda: xp.sum(X),
    "list into a function": lambda: xp.sum([1.0]),
    "host array into where": lambda: xp.where(mask, x, Y),
    "host mask into where": lambda: xp.where(MASK, x, x),
    "where without values": lambda: xp.where(mask),
    "host array into stack": lambda: xp.stack([x, X]),
    "device array for a sequence": lambda: xp.stack(x),
    "host array into matmul": lambda: xp.matmul(x, Y.mT),
    "host array into einsum": lambda: xp.einsum("rij->ri", X),
    "host indices into take": lambda: xp.take(x, INDEX, axis=-1),
    "host array into a method": lambda: x.dot(Y),
    "host array into clip": lambda: x.clip(X, 1.0),
    "host array as shape": lambda: xp.zeros(np.array([2, 3])),
    "device array as shape": lambda: xp.zeros(one),
    "device array in a shape": lambda: x.reshape(three, -1),
    "device array as axis": lambda: x.sum(one),
    "bool as index": lambda: x[True],
    "device number in a slice": lambda: x[:three],
    "range": lambda: range(three),
    "scatter": lambda: x.__setitem__(index[0], 0.0),
    "scatter of an array by a mask": lambda: x.__setitem__(mask, one),
    "scatter by a host mask": lambda: x.__setitem__(MASK, 0.0),
    "scatter by host indices": lambda: x.__setitem__(INDEX[0], 0.0),
    "assignment of a host array": lambda: x.__setitem__(..., Y),
    "assignment of a list": lambda: x.__setitem__((0, 0), [1.0] * 4),
    "iteration": lambda: list(x),
    "in": lambda: 1.0 in x,
    "hash": lambda: {x},
    "ufunc where=": lambda: xp.add(x, x, where=mask),
    "ufunc order=": lambda: xp.exp(x, order="C"),
    "clip(min=)": lambda: xp.clip(x, min=0.0),
    "clip without bounds": lambda: xp.clip(x),
    "sum(where=)": lambda: xp.sum(x, where=mask),
    "sum(initial=)": lambda: x.sum(initial=1.0),
    "take(mode=)": lambda: xp.take(x, index, mode="clip"),
    "take_along_axis without axis": lambda: xp.take_along_axis(x, index),
    "reshape(order=)": lambda: xp.reshape(x, -1, order="F"),
    "too many arguments": lambda: xp.exp(x, x),
    "keyword twice": lambda: xp.sum(x, -1, axis=-1),
    "asarray of a list": lambda: xp.asarray([1.0]),
    "asarray of text": lambda: xp.asarray(np.array(["a"])),
    "asarray of objects": lambda: xp.asarray(np.array([None])),
    "asarray of long doubles": lambda: xp.asarray(np.zeros(2, np.longdouble)),
}
ABSENT = [
    "errstate",
    "vecdot",
    "matvec",
    "vecmat",
    "linalg.vecdot",
    "ndarray.setflags",
    "ndarray.resize",
    "random.Generator.normal",
    "random.Generator.permutation",
    "random.Generator.shuffle",
    "random.Generator.choice",
    "random.Generator.permuted",
    "ndarray.__index__",
]
STRICTER = ["add.at", "maximum.reduce", "random.normal", "ndarray.scatter_add"]  # CuPy has these


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_refused(refused):
    if np.dtype(np.longdouble) == np.float64 and refused is REFUSED["asarray of long doubles"]:
        pytest.skip("long double is float64 here")
    with double.count(strict=True), pytest.raises(TypeError):
        refused()


@pytest.mark.parametrize("name", [*BINARY.split(), *INPLACE.split()])
@pytest.mark.parametrize("host", [Y, [1.0], None], ids=["array", "list", "None"])
def test_operators_refuse_host_values_on_both_sides(name, host):
    f = getattr(operator, name)
    for left, right in ((copy.deepcopy(x), host), (copy.copy(host), x)):
        if left is not host or not isinstance(host, list) or name != "iadd":
            with pytest.raises(TypeError):
                f(left, right)


def test_a_list_is_not_extended_by_an_array():
    with pytest.raises(TypeError):
        operator.iadd([1.0], x)


def test_there_is_no_matmul_in_place():
    with pytest.raises(TypeError, match="@="):
        operator.imatmul(copy.deepcopy(x[:, :3, :3]), x[:, :3, :3])


@pytest.mark.parametrize("path", [*ABSENT, *STRICTER])
def test_absent(path):
    with pytest.raises(AttributeError):
        operator.attrgetter(path)(xp)


def test_an_error_names_function_argument_and_type():
    with pytest.raises(TypeError, match=r"add, argument x2: expected a device array.*got ndarray"):
        xp.add(x, Y)
    with pytest.raises(AttributeError, match=r"no xp\.errstate"):
        xp.errstate(all="ignore")


# NumPy's functions, which CuPy takes over ---------------------------------------------------------

DISPATCHED = {
    "exp": (lambda a: np.exp(a), "exp"),
    "two": (lambda a: np.add(a, a), "add"),
    "scalar first": (lambda a: np.multiply(np.float64(2), a), "multiply"),
    "scalar's operator": (lambda a: np.float32(2) * a, "multiply"),
    "matmul": (lambda a: np.matmul(a, a.mT), "matmul"),
    "comparison with a host number": (lambda a: np.less(np.array(0.5), a), "less"),
    "sum": (lambda a: np.sum(a, axis=-1), "sum"),
    "concatenate": (lambda a: np.concatenate([a, a], axis=-1), "concatenate"),
    "stack": (lambda a: np.stack([a, a]), "stack"),
    "tile": (lambda a: np.tile(a, (2, 1, 1)), "tile"),
    "quantile": (lambda a: np.quantile(a, 0.25, axis=-1), "quantile"),
    "where": (lambda a: np.where(a > 0.5, a, 0.0), "where"),
    "zeros_like": (lambda a: np.zeros_like(a), "zeros_like"),
}


@pytest.mark.parametrize(("run", "name"), DISPATCHED.values(), ids=DISPATCHED)
def test_numpys_functions_run_on_the_device(run, name):
    with double.count(strict=True) as c:
        found = run(x)
    assert name in c.names
    assert_equal(found, run(X))


def test_numpys_functions_write_to_the_device():
    out = xp.empty(X.shape, "float32")
    assert np.exp(x, out=out) is out
    assert_equal(out, np.exp(X))


def test_what_numpy_tells_of_a_device_array():
    assert (np.ndim(x), np.shape(x), np.size(x)) == (3, X.shape, X.size)
    assert f"{xp.asarray(np.float32(0.5)):.3f}" == "0.500"


def test_a_mask_takes_one_number():
    y = copy.deepcopy(x)
    y[mask] = 0.25
    assert_equal(y, np.where(MASK, np.float32(0.25), X))


# Counts ------------------------------------------------------------------------------------------

COUNTED = {
    "operator": (lambda: x + x, {"calls": 1}),
    "comparison": (lambda: x > 0, {"calls": 1}),
    "in place": (lambda: operator.iadd(copy.deepcopy(x), 1), {"calls": 2}),
    "ufunc": (lambda: xp.exp(x), {"calls": 1}),
    "reduction": (lambda: x.sum(axis=-1), {"calls": 1}),
    "two steps": (lambda: (x * 2).sum(), {"calls": 2}),
    "copy": (lambda: x.copy(), {"calls": 1}),
    "deepcopy": (lambda: copy.deepcopy(x), {"calls": 1}),
    "cast": (lambda: x.astype("float64"), {"calls": 1}),
    "cast by asarray": (lambda: xp.asarray(x, "float64"), {"calls": 1}),
    "reshape that copies": (lambda: x.mT.reshape(-1), {"calls": 1}),
    "ravel that copies": (lambda: xp.ravel(x.mT), {"calls": 1}),
    "assignment": (lambda: xp.empty(3).__setitem__(0, one), {"calls": 1}),
    "assignment of a scalar": (lambda: xp.empty((2, 3)).mT.__setitem__(1, 0.5), {"calls": 1}),
    "gather": (lambda: x[..., index], {"calls": 1}),
    "take": (lambda: xp.take(x, index, axis=-1), {"calls": 1}),
    "empty": (lambda: xp.empty((2, 3)), {}),
    "empty_like": (lambda: xp.empty_like(x), {}),
    "zeros": (lambda: xp.zeros((2, 3)), {"calls": 1}),
    "product": (lambda: x[0] @ x[1].mT, {"calls": 1}),
    "shape and flags": (lambda: (x.shape, x.flags.c_contiguous, len(x), x.nbytes), {}),
    "repr": (lambda: repr(x), {}),
    "random": (lambda: xp.random.default_rng(0).random((2, 3)), {"calls": 1}),
    "mask": (lambda: x[mask], {"calls": 1, "syncs": 1}),
    "assignment at a mask": (lambda: copy.deepcopy(x).__setitem__(mask, 0.5), {"calls": 2}),
    "host index": (lambda: x[INDEX % 2], {"calls": 1, "to_device": 1}),
    "host index among slices": (lambda: x[:, np.array([0])], {"calls": 1, "to_device": 1}),
    "list as index": (lambda: x[[0, 1]], {"calls": 1, "to_device": 1}),
    "host mask": (lambda: x[MASK], {"calls": 1, "syncs": 1, "to_device": 1}),
    "NumPy's ufunc": (lambda: np.exp(x), {"calls": 1}),
    "NumPy's function": (lambda: np.sum(x), {"calls": 1}),
    "np.ndim": (lambda: np.ndim(x), {}),
    "format": (lambda: f"{one:.1f}", {"syncs": 1, "to_host": 1}),
    "nonzero": (lambda: mask.nonzero(), {"calls": 1, "syncs": 1}),
    "stream": (lambda: xp.cuda.get_current_stream().synchronize(), {"syncs": 1}),
    "device": (lambda: xp.cuda.Device(0).synchronize(), {"syncs": 1}),
    "get": (lambda: x.get(), {"syncs": 1, "to_host": 1}),
    "asnumpy": (lambda: xp.asnumpy(x), {"syncs": 1, "to_host": 1}),
    "item": (lambda: one.item(), {"syncs": 1, "to_host": 1}),
    "tolist": (lambda: x.tolist(), {"syncs": 1, "to_host": 1}),
    "float": (lambda: float(one), {"syncs": 1, "to_host": 1}),
    "int": (lambda: int(one), {"syncs": 1, "to_host": 1}),
    "bool": (lambda: bool(one), {"syncs": 1, "to_host": 1}),
    "if": (lambda: 1 if x.sum() > 0 else 2, {"calls": 2, "syncs": 1, "to_host": 1}),
    "pickle": (lambda: pickle.dumps(x), {"syncs": 1, "to_host": 1}),
    "asarray": (lambda: xp.asarray(X), {"to_device": 1}),
    "asarray of a scalar": (lambda: xp.asarray(0.5), {"to_device": 1}),
    # CuPy's batched product copies strided operands, and makes tables of pointers to broadcast.
    "batched product": (lambda: xp.matmul(x, y_turned), {"calls": 1}),
    "batched, turned": (lambda: x.mT @ x, {"calls": 1, "hidden": 1}),
    "batched, broadcast": (lambda: x @ y_turned[0], {"calls": 1, "hidden": 3}),
    "batched, strided out": (
        lambda: xp.matmul(x, y_turned, out=xp.empty((2, 3, 3), "float32").mT),
        {"calls": 1, "hidden": 1},
    ),
}
y_turned = xp.asarray(np.ascontiguousarray(Y.mT))


@pytest.mark.parametrize(("run", "expected"), COUNTED.values(), ids=COUNTED)
def test_counted(run, expected):
    with double.count() as c:
        run()
    names, c.names = c.names, type(c.names)()
    assert c == double.Counts(**expected)
    assert bool(names) == bool(expected)


@pytest.mark.parametrize(("run", "expected"), COUNTED.values(), ids=COUNTED)
def test_strict_raises_where_the_host_waits_or_copies(run, expected):
    if expected.keys() & {"syncs", "to_host", "to_device"}:
        with pytest.raises(HostTransfer), double.count(strict=True):
            run()
    else:
        with double.count(strict=True):
            run()
    xp.asarray(X).get()  # and no longer outside


def test_in_place_on_a_view_is_one_call():
    z = xp.asarray(X)
    with double.count() as c:
        z[0] += 1
        z[...] -= z * 2
    assert dict(c.names) == {"add": 1, "multiply": 1, "subtract": 1}
    assert_equal(z[1], X[1] - X[1] * 2)


def test_counts_nest_and_name():
    with double.count() as outer:
        xp.exp(x)
        with double.count() as inner:
            xp.exp(x).sum(axis=-1)
    assert (outer.calls, inner.calls) == (3, 2)
    assert dict(outer.names) == {"exp": 2, "sum": 1}


def test_counts_hold_over_threads():
    def work():
        for _ in range(200):
            xp.exp(one)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with double.count() as c:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert c.calls == 800


# Randomness and copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["random", "standard_normal"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_draws(name, dtype):
    draws = [
        getattr(xp.random.default_rng(seed), name)((2, 500), dtype=dtype) for seed in (1, 1, 2)
    ]
    assert [(d.shape, d.dtype) for d in draws] == [((2, 500), np.dtype(dtype))] * 3
    assert (draws[0] == draws[1]).all()
    assert not (draws[0] == draws[2]).any()


def test_pickle_and_deepcopy_are_copies():
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
        assert_equal(y, x.get())
        assert not xp.may_share_memory(x, y)


def test_asarray_and_get_are_copies():
    host = X.copy()
    y = xp.asarray(host)
    host[...] = 0
    y.get()[...] = 0
    assert_equal(y, X)


# Against CuPy and NumPy --------------------------------------------------------------------------


def _assert_within(signature, theirs):
    """Every keyword exists there; what goes by position has the same place."""
    assert set(signature.keywords) <= theirs.keywords
    if theirs.variadic:
        return
    assert len(signature.positional) <= len(theirs.positional)
    for place, name in enumerate(signature.positional):
        if name in signature.keywords:
            assert theirs.positional[place] == name


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_cupy_has_the_function_with_these_parameters(name):
    signature = double.Signature(name, FUNCTIONS[name][1])
    _assert_within(signature, parameters(cupy_object(name), name))


@pytest.mark.parametrize("name", sorted(METHODS))
def test_cupy_arrays_have_the_method_with_these_parameters(name):
    signature = double.Signature(name, METHODS[name][1])
    _assert_within(signature, parameters(getattr(cupy_object("ndarray"), name)))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_numpy_has_the_function_with_these_parameters(name):
    signature = double.Signature(name, FUNCTIONS[name][1])
    try:
        theirs = parameters(operator.attrgetter(name)(np), name)
    except ValueError:
        pytest.skip("this NumPy does not tell the parameters")
    assert set(signature.keywords) - {"casting", "optimize", "constant_values"} <= theirs.keywords


def test_cupy_has_everything_else_on_offer():
    def walk(module, path=""):
        for name, value in vars(module).items():
            if name[0] != "_":
                yield path + name
                if type(value) is type(xp):
                    yield from walk(value, f"{path}{name}.")

    paths = list(walk(xp))
    assert {"linalg", "lib.stride_tricks", "random.default_rng", "cuda.Device"} & set(paths)
    for path in paths:
        cupy_object(path)
    array = cupy_object("ndarray")
    offered = {n for n in dir(xp.ndarray) if n[0] != "_"}
    assert offered <= set(dir(array))
    for name in ("__imatmul__", "__index__"):
        assert not hasattr(array, name)
    for special in (*double.OPERATORS, *double.PLAIN):
        assert hasattr(array, f"__{special}__")
    flags = set(dir(cupy_object("_core.flags.Flags")))
    assert set(double.FLAGS.split()) <= flags


@pytest.mark.parametrize("name", ["random", "standard_normal"])
def test_cupys_generator_has_the_draw(name):
    theirs = parameters(getattr(cupy_object("random.Generator"), name))
    assert theirs.positional[:2] == parameters(getattr(double.Generator, name)).positional


@pytest.mark.parametrize("path", ABSENT)
def test_cupy_lacks_it_too(path):
    with pytest.raises(AttributeError):
        cupy_object(path)


def test_cupys_ufuncs_refuse_where():
    with pytest.raises(TypeError, match="where"):
        cupy_object("add")(1.0, 2.0, where=True)
