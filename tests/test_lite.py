"""The book in the browser, as far as it can be tested without one: files, wheels, notebooks, stand-ins."""

import base64
import concurrent.futures
import hashlib
import importlib.util
import io
import json
import os
import re
import sys
import tarfile
import threading
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import safetensors.numpy
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import dlcore as dl
from book import ledger, lite
from dlcore import arithmetic

ROOT = Path(__file__).resolve().parent.parent


def module(name, path):
    """Load a module of the browser beside the real one of its name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "lite/modules" / path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# --------------------------------------------------------------------------------------------------
# A copy of Pyodide


@pytest.fixture
def pinned(monkeypatch):
    """A release of two first files and one package, in the place of the real one."""
    files = {"pyodide.js": b"js", "pyodide-lock.json": b"{}", "one-1-py3-none-any.whl": b"wheel"}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(lite, "expected", lambda: sums)
    return files


def stored(folder, files):
    """Write files into a folder inside of a folder, as an archive has them."""
    inner = folder / "pyodide"
    inner.mkdir()
    for name, content in files.items():
        (inner / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_is_taken_from_a_folder_or_an_archive(tmp_path, pinned, packed):
    source = tmp_path / "source"
    source.mkdir()
    stored(source, pinned | {"other-2-py3-none-any.whl": b"not asked for"})
    if packed:
        with tarfile.open(tmp_path / "full.tar.bz2", "w:bz2") as archive:
            archive.add(source / "pyodide", "pyodide")
        source = tmp_path / "full.tar.bz2"
    lite.take(source, tmp_path / "to")
    assert {p.name: p.read_bytes() for p in (tmp_path / "to").iterdir()} == pinned


def test_a_file_that_is_missing_or_another_is_named(tmp_path, pinned):
    stored(tmp_path, {"pyodide.js": b"JS", "pyodide-lock.json": b"{}"})
    with pytest.raises(lite.LiteError) as caught:
        lite.take(tmp_path, tmp_path / "to")
    text = str(caught.value)
    assert "one-1-py3-none-any.whl: is missing" in text
    due = hashlib.sha256(b"js").hexdigest()
    found = hashlib.sha256(b"JS").hexdigest()
    assert f"pyodide.js: its SHA-256 is {found}, the published file's is {due}" in text
    assert "pyodide-lock.json:" not in text
    assert lite.release()["version"] in text


def test_what_is_no_copy_is_said(tmp_path):
    with pytest.raises(lite.LiteError, match=r"there is no .*nowhere"):
        lite.take(tmp_path / "nowhere", tmp_path / "to")
    (tmp_path / "text").write_text("x")
    with pytest.raises(lite.LiteError, match="neither a folder nor a tar archive"):
        lite.take(tmp_path / "text", tmp_path / "to")


def test_the_lock_is_whole_and_of_the_release_that_is_named():
    lock, release = lite.lock(), lite.release()
    assert lock["info"]["version"] == release["version"]
    assert f"/v{release['version']}/" in release["address"]
    known = {normal(name) for name in lock["packages"]}
    for package in lock["packages"].values():
        assert {normal(name) for name in package["depends"]} <= known, package["name"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in lite.expected().values())
    assert set(release["bytes"]) == {p["file_name"] for p in lock["packages"].values()}
    assert {"pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip"} < set(
        release["files"]
    )


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_that_dlcore_needs_is_there_and_new_enough():
    """What is forgotten, or older than a new lower bound, would be missing only in a reader's browser."""
    there = {normal(p["name"]): p["version"] for p in lite.lock()["packages"].values()}
    there |= {normal(name): version for name, version, _ in lite.STAND_INS}
    text = (ROOT / "lite/wheels.txt").read_text("utf-8")
    pins = re.findall(r"(?m)^([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}$", text)
    assert len(pins) == len([line for line in text.splitlines() if line[:1] not in ("", "#")])
    assert not set(dict(pins)) & set(there), "Pyodide's lock would hide these wheels"
    there |= dict(pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert there[requirement.name] in requirement.specifier, requirement
    python = lite.lock()["info"]["python"]
    assert python in SpecifierSet(project["requires-python"])


# --------------------------------------------------------------------------------------------------
# Wheels and notebooks


def test_a_wheel_says_what_is_in_it(tmp_path):
    path = lite.wheel(tmp_path, "in-between", "1.0", {"one.py": b"x = 1\n"}, "A sample")
    assert path.name == "in_between-1.0-py3-none-any.whl"
    again = lite.wheel(tmp_path / "..", "in-between", "1.0", {"one.py": b"x = 1\n"}, "A sample")
    assert again.read_bytes() == path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        rows = archive.read("in_between-1.0.dist-info/RECORD").decode().splitlines()
        assert {row.split(",")[0] for row in rows} == set(archive.namelist())
        for row in rows[:-1]:
            name, digest, size = row.split(",")
            content = archive.read(name)
            right = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            assert (digest, int(size)) == (f"sha256={right}", len(content))


@pytest.mark.slow
def test_the_wheels_hold_dlcore_and_the_stand_ins(tmp_path):
    pytest.importorskip("hatchling")
    lite.write_wheels(tmp_path)
    inside = {p.name.split("-")[0]: zipfile.ZipFile(p).namelist() for p in tmp_path.glob("*.whl")}
    assert "dlcore/data/fashion_mnist_10k.npz" in inside["dlcore"]
    assert inside["in_browser"][0] == "in_browser.py"
    assert "safetensors/numpy.py" in inside["safetensors"]
    assert "sqlite3.py" in inside["sqlite3"]
    assert len(inside["ssl"]) == 3


def test_a_notebook_gets_one_cell_more_and_keeps_its_outputs():
    own = new_code_cell("print(1)", id="own", execution_count=1)
    own.outputs = [new_output("stream", text="1\n")]
    nb = new_notebook(cells=[new_markdown_cell("# T"), own])
    made = lite.with_start(nb, 59)
    nbformat.validate(made)
    assert [c.cell_type for c in made.cells] == ["markdown", "code", "code"]
    assert made.cells[2] == own
    assert len(nb.cells) == 2
    assert made.metadata.kernelspec.name == "python"
    source = made.cells[1].source
    assert "%pip install -q dlcore in_browser" in source
    assert "59 MB" in source
    assert max(map(len, source.splitlines())) <= 120


@pytest.fixture
def book(tmp_path):
    """A book of two chapters, the first with a link to the second and to the site."""
    (tmp_path / "chapters").mkdir()
    for name, text in (
        ("01-one", "# One\n\n[G1](#verdict-g1), [two](02-two.ipynb)"),
        ("02-two", "# Two"),
    ):
        cells = [new_markdown_cell(text, id="m"), new_code_cell("1", id="c")]
        nbformat.write(new_notebook(cells=cells), tmp_path / f"chapters/{name}.ipynb")
    return tmp_path


def change(book, name, text):
    path = book / f"chapters/{name}.ipynb"
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].source = text
    nbformat.write(nb, path)


def test_a_changed_chapter_has_another_name_and_an_unchanged_one_keeps_its_own(book):
    before = lite.editions(book)
    assert all(re.fullmatch(r"0\d-\w+-[0-9a-f]{8}\.ipynb", name) for name in before.values())
    assert lite.editions(book) == before
    change(book, "02-two", "2")
    after = lite.editions(book)
    assert after["01-one.ipynb"] == before["01-one.ipynb"]
    assert after["02-two.ipynb"] != before["02-two.ipynb"]


def test_a_change_of_the_first_cell_or_of_an_output_is_a_change_of_the_chapter(book, monkeypatch):
    before = lite.editions(book)
    path = book / "chapters/01-one.ipynb"
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].outputs = [new_output("stream", text="1\n")]
    nbformat.write(nb, path)
    between = lite.editions(book)
    assert between["01-one.ipynb"] != before["01-one.ipynb"]
    monkeypatch.setattr(lite, "CELL", lite.CELL + "\n")
    assert lite.editions(book)["01-one.ipynb"] != between["01-one.ipynb"]


def test_copies_link_to_each_other_and_to_the_site(book):
    lite.write_notebooks(book / "out", 59, book)
    names = lite.editions(book)
    assert {p.name for p in (book / "out").iterdir()} == set(names.values())
    text = nbformat.read(book / "out" / names["01-one.ipynb"], as_version=4).cells[0].source
    assert f"[two]({names['02-two.ipynb']})" in text
    assert f"[G1]({lite.SITE_MARK}chapters/appendix/ledger.html#ledger-g1)" in text
    assert lite.SITE_MARK in (ROOT / "lite" / lite.PAGE).read_text("utf-8")


def test_the_script_and_the_names_are_beside_the_pages(book):
    for app in lite.APPS:
        (book / "site" / app).mkdir(parents=True)
        (book / "site" / app / "index.html").write_text(
            "<head><title>x</title></head><body></body>"
        )
    lite.add_page_script(book / "site", book)
    for app in lite.APPS:
        assert (
            '<script src="../page.js" defer></script></head>'
            in (book / "site" / app / "index.html").read_text()
        )
    names = json.loads((book / "site/editions.json").read_text())
    assert names["chapters/01-one"] == f"chapters/{lite.editions(book)['01-one.ipynb']}"
    (book / "site/lab/index.html").write_text("another page")
    with pytest.raises(lite.LiteError, match=r"lab/index\.html has no head"):
        lite.add_page_script(book / "site", book)


def test_the_settings_name_one_python_and_no_index():
    for local in (False, True):
        data = lite.settings(local)["jupyter-config-data"]
        kernel = data["litePluginSettings"][lite.KERNEL]
        assert kernel["disablePyPIFallback"] is True
        assert kernel["loadPyodideOptions"]["lockFileURL"] == "./static/pyodide-lock.json"
        assert kernel["pyodideUrl"].startswith(
            "./" if local else "https://cdn.jsdelivr.net/pyodide/v"
        )


def test_the_size_counts_everything_that_is_loaded(tmp_path):
    (tmp_path / "a.whl").write_bytes(bytes(3_000_000))
    without = lite.megabytes(tmp_path / "empty")
    assert 45 <= without <= 60
    assert lite.megabytes(tmp_path) == without + 3


# --------------------------------------------------------------------------------------------------
# The site takes it along, unless it is out of date


@pytest.fixture
def root(tmp_path):
    """A book of one chapter, with a JupyterLite of one file."""
    for name in (
        "chapters/01-one.ipynb",
        "dlcore/a.py",
        "lite/b.json",
        "book/lite.py",
        "book/copies.py",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("first")
    (tmp_path / "_build/lite/site").mkdir(parents=True)
    (tmp_path / "_build/lite/site/file").write_text("x")
    about = {"inputs": lite.inputs(tmp_path), "megabytes": 5}
    (tmp_path / "_build/lite/made.json").write_text(json.dumps(about))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "chapters/01-one.ipynb",
        "chapters/02-new.ipynb",
        "dlcore/a.py",
        "lite/b.json",
        "book/lite.py",
        "book/copies.py",
    ],
)
def test_it_is_taken_along_while_it_is_up_to_date(root, name):
    assert lite.made(root)["megabytes"] == 5
    lite.copy(root, root / "html")
    assert (root / "html/lite/file").read_text() == "x"
    (root / "dlcore/__pycache__").mkdir()
    (root / "dlcore/__pycache__/a.pyc").write_text("no matter")
    assert lite.made(root)
    (root / name).write_text("second")
    assert lite.made(root) is None
    lite.copy(root, root / "html")
    assert not (root / "html/lite").exists()


def test_where_nothing_was_built_nothing_is_taken(tmp_path):
    assert lite.made(tmp_path) is None
    lite.copy(tmp_path, tmp_path / "html")
    assert not (tmp_path / "html").exists()


def test_the_button_says_how_much_it_loads():
    made = lite.button("../", "chapters/01-gradients-0123abcd.ipynb", 59)
    assert "downloads about 59 MB" in made["tooltip"]
    assert made["url"].startswith("../lite/notebooks/")


def test_without_a_copy_that_is_right_nothing_is_built(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise lite.LiteError("numpy-2.whl: is missing")

    monkeypatch.setattr(lite, "build", refuse)
    code = lite.main(["build", "--jupyter", "j", "--wheels", "w", "--pyodide", str(tmp_path)])
    assert code == 1
    assert "numpy-2.whl: is missing" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------------
# What the first cell does


@pytest.fixture
def in_browser(monkeypatch):
    """The module, in an IPython that notes formatters, at an address like a reader's."""
    monkeypatch.setitem(sys.modules, "js", SimpleNamespace(location=SimpleNamespace(
        href="https://books.example/nets/lite/extensions/@jupyterlite/x/static/352.js"
    )))  # fmt: skip
    monkeypatch.setenv("DLCORE_SIZE", "full")
    monkeypatch.setattr(
        concurrent.futures, "ThreadPoolExecutor", concurrent.futures.ThreadPoolExecutor
    )
    loaded = module("in_browser", "in_browser.py")
    noted = {}
    formatter = SimpleNamespace(
        for_type_by_name=lambda where, name, show: noted.update({f"{where}.{name}": show})
    )
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter}))
    loaded.get_ipython = lambda: shell
    loaded.noted = noted
    return loaded


def test_the_size_is_quick_and_the_message_says_so(in_browser, capsys):
    in_browser.start()
    assert os.environ["DLCORE_SIZE"] == "quick"
    text = capsys.readouterr().out
    assert 'size is "quick"' in text
    assert "no BLAS" in text
    assert "https://books.example/nets/chapters/appendix/ledger.html" in text


def test_a_verdict_leads_to_its_entry_in_the_ledger(in_browser):
    in_browser.start()
    show = in_browser.noted["dlcore.statistics.Verdict"]
    rising = np.array([2.0, 2.1, 1.9])
    quick = dl.verdict("G1a", "a < b", rising, at_least=1.0, size="quick")
    text = show(quick)
    assert "quick look" in text
    assert "a &lt; b" in text
    assert f'ledger.html#{ledger.entry("G1a")}"' in text
    full = show(dl.verdict("G1a", "a < b", rising, at_least=1.0))
    assert "ledger" not in full
    assert f"{dl.statistics.Verdict.__module__}.Verdict" in in_browser.noted


def test_executors_do_without_threads_where_none_can_start(in_browser, monkeypatch):
    in_browser.start()
    assert concurrent.futures.ThreadPoolExecutor is not in_browser.Serial  # here threads start

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    in_browser.start()
    from concurrent.futures import ThreadPoolExecutor

    assert ThreadPoolExecutor is in_browser.Serial
    begun = []
    with ThreadPoolExecutor(2, initializer=begun.append, initargs=(1,)) as pool:
        assert list(pool.map(lambda x: x * x, range(4))) == [0, 1, 4, 9]
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()
    assert begun == [1]


def test_a_sweep_without_threads_gives_the_same(in_browser, monkeypatch):
    """What dlcore does in a browser: its shards run one after the other, on this pool or on none."""
    data = dl.datasets.mnist1d(0, train=60, valid=20, test=20)
    net = dl.mlp([40, 5, 10], activation=dl.Tanh)
    call = dict(optimizer=dl.SGD, lr=[0.1, 0.2], epochs=1, batch_size=20, seeds=3)
    usual = dl.sweep(net, data, **call)
    serial = dl.sweep(net, data, executor=in_browser.Serial(), **call)
    monkeypatch.setattr(sys, "platform", "emscripten")
    alone = dl.sweep(net, data, **call)
    for name in ("train_loss", "valid_accuracy"):
        assert usual[name].equals(serial[name])
        assert usual[name].equals(alone[name])


# --------------------------------------------------------------------------------------------------
# The stand-in for safetensors


@pytest.fixture
def plain(monkeypatch):
    """The stand-in's functions; its package is seen in the place of the real one while it is loaded."""
    package = module("plain_safetensors", "safetensors/__init__.py")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", package)
        loaded = module("plain_safetensors_numpy", "safetensors/numpy.py")
    loaded.SafetensorError = package.SafetensorError
    return loaded


ARRAYS = {
    "weights": np.arange(12, dtype=np.float32).reshape(3, 4),
    "steps": np.array(7, dtype=np.int64),
    "bytes": np.array([1, 2, 3], dtype=np.uint8),
    "none": np.zeros((0, 2), dtype=np.float64),
    "masks": np.array([[True, False]]),
}


def test_files_of_the_stand_in_are_read_by_the_package_and_the_other_way_round(plain):
    about = {"format": "x", "text": "größe"}
    mine, theirs = plain.save(ARRAYS, about), safetensors.numpy.save(ARRAYS, about)
    header = json.loads(mine[8 : 8 + int.from_bytes(mine[:8], "little")])
    assert header["__metadata__"] == about
    for found in (safetensors.numpy.load(mine), plain.load(theirs), plain.load(mine)):
        assert found.keys() == ARRAYS.keys()
        for name, a in ARRAYS.items():
            assert found[name].dtype == a.dtype
            np.testing.assert_array_equal(found[name], a)


@pytest.mark.parametrize("damage", ["short", "cut", "more", "moved", "hole", "kind", "json"])
def test_the_stand_in_refuses_damage(plain, damage):
    good = plain.save({"a": np.ones(4, dtype=np.float32)})
    bad = {
        "short": good[:5],
        "cut": good[:-1],
        "more": good + b"\0",
        "moved": good.replace(b"[0,16]", b"[4,20]"),
        "hole": good.replace(b"[0,16]", b"[4,20]") + bytes(4),
        "kind": good.replace(b'"F32"', b'"F99"'),
        "json": good.replace(b'{"a"', b'x"a"'),
    }[damage]
    assert plain.load(good)["a"].sum() == 4
    with pytest.raises(plain.SafetensorError):
        plain.load(bad)


def test_networks_are_saved_and_read_with_the_stand_in(plain, tmp_path, monkeypatch):
    nets = dl.Network(dl.mlp([4, 3, 2])(), seeds=[0, 1])
    nets.save(tmp_path / "real.safetensors")
    monkeypatch.setattr(dl.network.storage.safetensors, "numpy", plain)
    nets.save(tmp_path / "plain.safetensors")
    other = dl.Network(dl.mlp([4, 3, 2])(), seeds=[5, 6])
    for name in ("real", "plain"):
        other.load(tmp_path / f"{name}.safetensors")
        np.testing.assert_array_equal(other.layers[0].W, nets.layers[0].W)
    damaged = bytearray((tmp_path / "plain.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(io.BytesIO(damaged).getvalue())
    with pytest.raises(ValueError, match="damaged"):
        other.load(tmp_path / "bad.safetensors")


# --------------------------------------------------------------------------------------------------
# Machines of 32 bits, as WebAssembly is


@pytest.fixture
def of_32_bits(monkeypatch):
    """NumPy's integers as there: indices that it makes have 32 bits, and an index of more is refused."""
    arange, unique = np.arange, np.unique

    def small(*args, **kwargs):
        made = arange(*args, **kwargs)
        return made.astype(np.int32) if made.dtype == np.int64 else made

    def inverse(a, return_inverse):
        values, places = unique(a, return_inverse=return_inverse)
        return values, places.astype(np.int32)

    def careful(function, position):
        def call(*args, **kwargs):
            if np.asarray(args[position]).dtype.itemsize > 4:
                raise TypeError("Cannot cast array data from dtype('int64') to dtype('int32')")
            return function(*args, **kwargs)

        return call

    refusing = {"take": careful(np.take, 1), "bincount": careful(np.bincount, 0)}
    made = {"intp": np.int32, "arange": small, "unique": inverse}
    for name, stand_in in (refusing | made).items():
        monkeypatch.setattr(np, name, stand_in)


def trained():
    """Train on curves of each seed's own, and on pictures that are moved; evaluate and compare."""
    nets = dl.Network(dl.mlp([40, 5, 10], activation=dl.Tanh)(), seeds=[0, 1])
    sets = {seed: dl.datasets.mnist1d(seed, train=60, valid=20, test=20) for seed in (0, 1)}
    call = dict(epochs=2, batch_size=20)
    history = dl.fit(nets, sets, dl.SGD(), lr=0.1, augment=dl.augmentation.shift(2), **call)
    test = dl.evaluate(nets, sets, "test")
    pictures = dl.datasets.fashion_mnist(0, train=60, valid=20, test=20, size=14)
    call |= dict(optimizer=dl.SGD, lr=[0.1], seeds=2)
    moved = dl.sweep(see, pictures, augment=dl.augmentation.shift(1.5), **call)
    right = np.random.default_rng(0).random((2, 3, 50)) < 0.5
    judged = dl.statistics.crossed_bootstrap(*right, resamples=100)
    return [judged, history.train_loss, *test, moved.train_loss.values, moved.valid_accuracy.values]


def see():
    """The layers of a net for pictures."""
    return [dl.Flatten(), *dl.mlp([196, 5, 10], activation=dl.Tanh)()]


def test_indices_fit_machines_of_32_bits(request):
    usual = trained()
    request.getfixturevalue("of_32_bits")
    for old, new in zip(usual, trained(), strict=True):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


@pytest.mark.thorough
@pytest.mark.skipif(
    any(arithmetic.why_not(name) for name in lite.OTHERS), reason="no other arithmetic here"
)
def test_native_runs_are_made_as_on_other_processors_too(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("import os; print(os.environ.get('OPENBLAS_CORETYPE'))")
    path = tmp_path / "one.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    monkeypatch.setattr(lite, "chapters", lambda: [path])
    lite.run_natively(tmp_path / "native")
    kernels = {}
    for name in ("", *lite.OTHERS):
        ran = nbformat.read(tmp_path / "native" / name / path.name, as_version=4)
        kernels[name] = ran.cells[0].outputs[0].text.strip()
    assert kernels[""] == arithmetic.ARITHMETICS["canonical"].kernel
    for name in lite.OTHERS:
        assert kernels[name] == arithmetic.ARITHMETICS[name].kernel
