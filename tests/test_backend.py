import pickle
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import double
import interrupted
import numpy as np
import pytest
import small
import threadpoolctl

import dlcore as dl
from dlcore import backend as backends
from dlcore.backend import one_blas_thread

EXTRAS = r"dlcore\[cuda12\] or dlcore\[cuda13\]"


def fake_cupy(version="14.0.0", available=True, xp=double.xp):
    module = types.ModuleType("cupy")
    module.__dict__.update({k: getattr(xp, k) for k in ("ones", "tanh", "random")} if xp else {})
    module.__version__, module.is_available = version, lambda: available
    return module


@pytest.fixture
def install(monkeypatch):
    """Put a module, or nothing, in CuPy's place; nothing is remembered from real trials."""
    monkeypatch.delenv("DLCORE_BACKEND", raising=False)
    trial = backends._usable_cupy.__wrapped__

    def put(module):
        monkeypatch.setitem(sys.modules, "cupy", module)
        monkeypatch.setattr(backends, "_usable_cupy", trial)

    return put


BROKEN = {
    "absent": (lambda: None, f"CuPy is not installed; install {EXTRAS}"),
    "old": (lambda: fake_cupy("13.6.0"), f"expected CuPy >= 14, got 13.6.0; install {EXTRAS}"),
    "no GPU": (lambda: fake_cupy(available=False), f"CuPy sees no GPU; install {EXTRAS}"),
    "broken": (lambda: fake_cupy(xp=None), f"the GPU failed a small trial .*; install {EXTRAS}"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_cupy_asked_for_and_not_usable(install, kind):
    make, message = BROKEN[kind]
    install(make())
    with pytest.raises(RuntimeError, match=message):
        dl.get_backend("cupy")


@pytest.mark.parametrize("kind", BROKEN)
def test_auto_falls_back(install, kind):
    """Quietly where no GPU is expected; with one line where a GPU is there and cannot be used."""
    make, message = BROKEN[kind]
    install(make())
    if kind in ("absent", "no GPU"):
        assert dl.get_backend().name == "numpy"
    else:
        with pytest.warns(RuntimeWarning, match=message):
            assert dl.get_backend().name == "numpy"


def test_auto_takes_a_gpu_that_works(install):
    module = fake_cupy()
    install(module)
    found = dl.get_backend()
    assert (found.name, found.xp, found.dtype) == ("cupy", module, np.dtype("float32"))
    assert dl.get_backend("cupy", "float64").dtype == np.float64
    assert dl.get_backend("numpy").xp is np


def test_environment_chooses(install, monkeypatch):
    install(None)
    monkeypatch.setenv("DLCORE_BACKEND", "cupy")
    with pytest.raises(RuntimeError, match="not installed"):
        dl.get_backend()
    assert dl.get_backend("numpy").name == "numpy"
    install(fake_cupy())
    monkeypatch.setenv("DLCORE_BACKEND", "numpy")
    assert dl.get_backend().name == "numpy"
    assert dl.get_backend("cupy").name == "cupy"
    monkeypatch.setenv("DLCORE_BACKEND", "torch")
    with pytest.raises(
        ValueError, match=r"backend: expected 'auto', 'numpy' or 'cupy', got 'torch'"
    ):
        dl.get_backend()


def test_a_backend_is_returned_as_it_is():
    made = dl.Backend("double", double.xp)
    assert dl.get_backend(made) is made


@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float64")])
def test_types(dtype):
    found = dl.get_backend("numpy", dtype)
    assert found.dtype == np.dtype(dtype)
    assert found.asarray([1, 2]).dtype == np.dtype(dtype)


def test_pickle():
    for dtype in ("float32", "float64"):
        made = dl.get_backend("numpy", dtype)
        assert pickle.loads(pickle.dumps(made)) == made


def test_transfer(backend):
    x = np.arange(6.0).reshape(2, 3)
    on_device = backend.asarray(x)
    assert on_device.dtype == np.float32
    back = backend.to_numpy(on_device)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, x)
    assert backend.asarray([1, 2], np.int64).dtype == np.int64
    assert backend.to_numpy(backend.asarray(2.5)) == 2.5
    backend.synchronize()


def test_synchronize_waits_for_a_device_only():
    with double.count() as counts:
        dl.Backend("double", double.xp).synchronize()
    assert counts.syncs == 1
    dl.get_backend("numpy").synchronize()


def test_rng(backend):
    for kind in ("random", "standard_normal"):
        a, b, c = (
            backend.to_numpy(
                getattr(backend.xp.random.default_rng(seed), kind)((3, 2), dtype=backend.dtype)
            )
            for seed in (1, 1, 2)
        )
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_quiet():
    backend = dl.get_backend("numpy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with backend.quiet():
            assert np.isinf(np.array([1e38], np.float32) * np.float32(1e38)).all()
        with pytest.raises(RuntimeWarning):
            np.array([1e38], np.float32) * np.float32(1e38)
    with dl.Backend("double", double.xp).quiet():
        pass


def blas():
    return [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]


needs_blas = pytest.mark.skipif(not blas(), reason="threadpoolctl knows no BLAS here")


@pytest.fixture
def two_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield blas()


@needs_blas
def test_one_blas_thread(two_threads):
    with one_blas_thread():
        assert set(blas()) == {1}
    assert blas() == two_threads


@needs_blas
def test_one_blas_thread_nested(two_threads):
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas()) == {1}
        assert set(blas()) == {1}
    assert blas() == two_threads


@needs_blas
def test_the_outer_limit_holds(two_threads):
    with one_blas_thread(2), one_blas_thread():
        assert blas() == two_threads
    with one_blas_thread(), one_blas_thread(2):
        assert set(blas()) == {1}
    assert blas() == two_threads


@needs_blas
@pytest.mark.parametrize("count", [1, 2])
def test_fit_and_sweep_train_with_as_many_blas_threads_as_asked(two_threads, count):
    options = {"lr": 0.1, "steps": 1, "probe": interrupted.blas_threads, "blas_threads": count}
    net = dl.Network(interrupted.PLAIN, [0, 1], "numpy")
    history = dl.fit(net, small.blobs(), **options)
    found = dl.sweep(interrupted.PLAIN, small.blobs(), seeds=2, backend="numpy", **options)
    due = two_threads if count == 2 else [1]
    assert set(history.probes["threads"].ravel()) == {max(due)}
    assert set(found.threads.values.ravel()) == {max(due)}
    assert blas() == two_threads


@needs_blas
def test_one_blas_thread_after_an_error(two_threads):
    with pytest.raises(KeyError), one_blas_thread():
        raise KeyError
    assert blas() == two_threads


@needs_blas
def test_one_blas_thread_of_several_threads(two_threads):
    """First in, first out: the first to leave must not set the threads free under the second."""
    inside, leave = threading.Event(), threading.Event()

    def first():
        with one_blas_thread():
            inside.set()
            leave.wait(5)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(first)
        assert inside.wait(5)
        with one_blas_thread():
            leave.set()
            future.result(5)
            assert set(blas()) == {1}
    assert blas() == two_threads


@needs_blas
def test_one_blas_thread_when_the_first_to_come_leaves_first(two_threads):
    """The last to leave is another thread than the one that set the limit, and must restore it."""
    entered, leave = threading.Event(), threading.Event()

    def second():
        with one_blas_thread():
            entered.set()
            leave.wait(5)
            return set(blas())

    with ThreadPoolExecutor(1) as pool:
        with one_blas_thread():
            future = pool.submit(second)
            assert entered.wait(5)
        assert set(blas()) == {1}
        leave.set()
        assert future.result(5) == {1}
        assert blas() == two_threads


def test_openmp_counts_belong_to_each_thread(monkeypatch):
    """A BLAS built with OpenMP: each Python thread sets and restores a count of its own."""
    own = threading.local()
    library = types.SimpleNamespace(
        threading_layer="openmp",
        get_num_threads=lambda: getattr(own, "count", 4),
        set_num_threads=lambda n: setattr(own, "count", n),
    )
    monkeypatch.setattr(backends, "_blas", lambda: [library])

    def inside_and_after():
        with one_blas_thread():
            inside = library.get_num_threads()
        return inside, library.get_num_threads()

    with ThreadPoolExecutor(1) as pool, one_blas_thread():
        assert library.get_num_threads() == 1
        assert pool.submit(inside_and_after).result(5) == (1, 4)
        assert library.get_num_threads() == 1
    assert library.get_num_threads() == 4


@needs_blas
def test_fit_and_evaluate_run_on_one_blas_thread(two_threads):
    import small

    seen = []

    class Spy(dl.Flatten):
        def forward(self, x, training):
            seen.append((training, *blas()))
            return super().forward(x, training)

    network = dl.Network([Spy(1), dl.Dense(6, 3)], 0, "numpy")
    dl.fit(network, small.blobs(), lr=0.1, epochs=1)
    assert {row[1:] for row in seen if row[0]} == {(1,) * len(blas())}
    seen.clear()
    dl.evaluate(network, small.blobs())
    assert seen[-1][1:] == (1,) * len(blas())
    assert blas() == two_threads
