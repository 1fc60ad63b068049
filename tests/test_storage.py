"""Saving: links, modes, equal bytes, every kind of array, full disks; and what is not a saved network."""

import io
import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import small

import dlcore as dl
from dlcore import storage

DATA = small.blobs(features=4, classes=2)
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs links and modes")


def net(seeds=(1, 2), layers=None):
    return dl.Network(layers or dl.mlp([4, 3, 2], batch_norm="before"), seeds, "numpy")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# Links and modes ---------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o664, 0o444 | 0o200, 0o755])
def test_the_mode_of_an_old_file_stays(tmp_path, bits):
    path = tmp_path / "net"
    path.write_bytes(b"old")
    path.chmod(bits)
    net().save(path)
    assert mode(path) == bits
    net().load(path)


@POSIX
def test_a_secret_file_is_at_no_moment_open_to_others(tmp_path, monkeypatch):
    path, seen = tmp_path / "net", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    sync = os.fsync

    def look(number):
        seen.extend(mode(file) for file in tmp_path.iterdir())
        sync(number)

    monkeypatch.setattr(storage.os, "fsync", look)
    monkeypatch.setattr(storage.os, "chmod", lambda path, bits: seen.append(mode(path)))
    net().save(path)
    assert set(seen) == {0o600}


@POSIX
@pytest.mark.parametrize(("umask", "due"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_mode_of_the_process(tmp_path, umask, due):
    before = os.umask(umask)
    try:
        net().save(tmp_path / "net")
        dl.fit(net(), DATA, lr=0.1, epochs=1, checkpoint=tmp_path / "run")
    finally:
        os.umask(before)
    assert mode(tmp_path / "net") == mode(tmp_path / "run") == due


@POSIX
@pytest.mark.parametrize("relative", [False, True])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, relative, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    target = tmp_path / "store" / "v1"
    target.write_bytes(b"old")
    target.chmod(0o600)
    os.symlink("store/v1" if relative else target, "second")
    os.symlink("second", "first")
    net().save("first")
    assert os.path.islink("first")
    assert os.path.islink("second")
    assert not os.path.islink(target)
    assert mode(target) == 0o600
    net().load(target)
    assert sorted(os.listdir("store")) == ["v1"]
    assert sorted(os.listdir()) == ["first", "second", "store"]


@POSIX
def test_links_of_checkpoints_stay(tmp_path):
    (tmp_path / "store").mkdir()
    os.symlink(tmp_path / "store" / "run", tmp_path / "run")
    dl.fit(net(), DATA, lr=0.1, epochs=1, checkpoint=tmp_path / "run")
    assert (tmp_path / "run").is_symlink()
    os.symlink(tmp_path / "store", tmp_path / "folder")
    dl.sweep(dl.mlp([4, 2]), DATA, lr=0.1, epochs=1, seeds=1, checkpoint=tmp_path / "folder")
    assert (tmp_path / "folder").is_symlink()
    assert len(os.listdir(tmp_path / "store")) == 2


@POSIX
def test_links_to_nothing_and_in_circles(tmp_path):
    os.symlink(tmp_path / "later", tmp_path / "link")
    net().save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    net().load(tmp_path / "later")
    os.symlink(tmp_path / "b", tmp_path / "a")
    os.symlink(tmp_path / "a", tmp_path / "b")
    with pytest.raises(OSError, match="a loop"):
        net().save(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


@POSIX
def test_a_pipe_is_written_to_and_stays(tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    net().save(path)
    reader.join(10)
    net().save(tmp_path / "file")
    assert got == [(tmp_path / "file").read_bytes()]
    assert stat.S_ISFIFO(os.stat(path).st_mode)


def test_folders_and_protected_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="folder: expected a file, got a folder"):
        net().save(tmp_path / "folder")
    net().save(tmp_path / "net")
    monkeypatch.setattr(storage.os, "access", lambda path, how: False)
    with pytest.raises(PermissionError, match=r"expected a file that may be written.*net"):
        net((8, 9)).save(tmp_path / "net")
    net().load(tmp_path / "net")


def test_a_folder_where_nothing_can_be_made_is_named(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage.os, "open", refuse)
    with pytest.raises(PermissionError, match=r"a folder where a file can be made .*'.*/net'"):
        net().save(tmp_path / "net")


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "a b.c", ".hidden", "net.safetensors"])
def test_names_of_files(tmp_path, name):
    net().save(tmp_path / name)
    net().save(tmp_path / name)
    net().load(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


# Bytes -------------------------------------------------------------------------------------------


def test_equal_networks_give_equal_bytes(tmp_path):
    for i in range(5):
        net().save(tmp_path / str(i))
    code = (
        "import sys, dlcore as dl\n"
        "n = dl.Network(dl.mlp([4, 3, 2], batch_norm='before'), (1, 2), 'numpy')\n"
        "n.save(sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code, str(tmp_path / "5")]
    subprocess.run(command, check=True, env=environment, timeout=120)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    content = (tmp_path / "0").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    header = json.loads(content[8:end])
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])


class Odd(dl.Layer):
    """A layer with parameters and buffers of many shapes and names."""

    shapes = {"scale": (), "W.α": (2, 3), "none": (0, 4), "__metadata__": (1,)}
    buffers = {"count": ((), 0.0), "mean": ((2, 2), 1.0)}

    def initialize(self, rng):
        return {name: rng.random(shape) for name, shape in self.shapes.items()}

    def forward(self, x, training):
        return x * self.scale

    def backward(self, dy):
        return dy


@pytest.mark.parametrize("seeds", [3, (3,), (3, 4)], ids=["plain", "one", "two"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_written_is_read(tmp_path, seeds, dtype):
    backend = dl.get_backend("numpy", dtype)
    one, other = dl.Network([Odd()], seeds, backend), dl.Network([Odd()], seeds, backend)
    one.layers[0].count += 7
    other.parameters[...] = 0
    one.save(tmp_path / "net")
    other.load(tmp_path / "net")
    for name, a in one.arrays().items():
        assert other.arrays()[name].shape == a.shape
        assert other.arrays()[name].tobytes() == a.tobytes(), name
    assert one.arrays()["0.scale"].shape == (() if seeds == 3 else (len(seeds),))
    shapes = {k: v.shape for k, v in safetensors.numpy.load_file(tmp_path / "net").items()}
    assert shapes == {k: v.shape for k, v in one.arrays().items()}


KINDS = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i8"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed", "0-d", "empty", "read-only"])
def test_every_type_and_order_of_a_buffer(tmp_path, kind, order):
    """A layer may keep what it likes, such as counts of more than float32 can tell apart."""

    def made(base):
        a = (base + np.arange(24)).astype(kind).reshape(4, 6)
        return {
            "C": a, "F": np.asfortranarray(a), "strided": a[:, ::2], "reversed": a[::-1],
            "0-d": a[1:2, 1].reshape(()), "empty": a[:0], "read-only": a,
        }[order]  # fmt: skip

    one, other = net(1, [Odd()]), net(1, [Odd()])
    for network, base in ((one, 100), (other, 0)):  # as a layer that keeps what it likes
        vars(network.layers[0])["mean"] = made(base).copy("K") if network is other else made(base)
    if np.dtype(kind) == "i8":
        one.layers[0].mean[...] = 2**53 + 1
    one.layers[0].mean.flags.writeable = order != "read-only"
    one.save(tmp_path / "net")
    other.load(tmp_path / "net")
    np.testing.assert_array_equal(other.layers[0].mean, one.layers[0].mean)
    assert other.layers[0].mean.dtype == np.dtype(kind)


def test_types_that_the_format_has_not_are_refused_and_leave_the_old_file(tmp_path):
    path = tmp_path / "net"
    net().save(path)
    before = path.read_bytes()
    for kind in ("c8", "c16", "O", "M8[s]", "U3"):
        odd = net(1, [Odd()])
        vars(odd.layers[0])["mean"] = np.zeros(2, kind)
        with pytest.raises(TypeError, match=r"0.mean: expected an array of real numbers, got"):
            odd.save(path)
        assert path.read_bytes() == before


def test_a_file_of_before_is_read(tmp_path):
    """As it was written when safetensors put its names in any order."""
    network = net()
    arrays = {k: np.ascontiguousarray(a) for k, a in network.arrays().items()}
    about = {"seeds": "[1, 2]", "format": storage.FORMAT, **storage._expected(network)}
    about["sha256"] = storage._digest(arrays, about)
    safetensors.numpy.save_file(arrays, tmp_path / "net", about)
    net((1, 5)).load(tmp_path / "net")


# What is no saved network ------------------------------------------------------------------------


def archive(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"x" * 100)


def bf16(path, about):
    """A safetensors file of bfloat16, which NumPy has not."""
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": about, "0.W": entry} if about else {"0.W": entry})
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))


OTHERS = {
    "BF16 of another": (lambda p: bf16(p, {}), r"got None: a safetensors file .*\['BF16'\]"),
    "BF16": (lambda p: bf16(p, {"format": storage.FORMAT}), "NumPy's types, such as F32, got BF16"),
    "PyTorch": (lambda p: archive(p, "net/data.pkl", "net/data/0"), "a file of PyTorch"),
    "old PyTorch": (lambda p: p.write_bytes(pickle.dumps([*range(99)], 2)), "a pickle"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": np.ones(3)}, 4)), "a pickle"),
    "HDF5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90)), "an HDF5 file"),
    "Keras": (lambda p: archive(p, "config.json", "model.weights.h5"), "a file of Keras"),
    "npz": (lambda p: p.write_bytes(npz()), r"an archive of NumPy \(.npz\)"),
    "npy": (lambda p: p.write_bytes(npy()), r"an array of NumPy \(.npy\)"),
    "zip": (lambda p: archive(p, "a.txt"), "a zip archive"),
    "cut zip": (lambda p: p.write_bytes(npz()[:60]), "a damaged zip archive"),
    "empty": (lambda p: p.write_bytes(b""), "an empty file"),
    "LFS": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1"),
        "a pointer of Git LFS; fetch the file itself with 'git lfs pull'",
    ),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html>\n<p>404"), "a web page"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b" + bytes(90)), "packed by gzip"),
    "text": (lambda p: p.write_text("weights: 3, 4, 5\n"), "got text"),
    "GGUF": (lambda p: p.write_bytes(b"GGUF" + bytes(90)), "a GGUF file"),
    "noise": (lambda p: p.write_bytes(bytes(range(255, 100, -1))), "another or damaged file"),
    "folder": (lambda p: p.mkdir(), "got a folder"),
    "cut": (lambda p: (net().save(p), p.write_bytes(p.read_bytes()[:200])), "a damaged safetens"),
    "checkpoint": (lambda p: dl.fit(net(), DATA, lr=0.1, epochs=1, checkpoint=p), "a checkpoint"),
}


def npz():
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return file.getvalue()


def npy():
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_called_what_it_is(tmp_path, kind):
    make, message = OTHERS[kind]
    make(tmp_path / "net")
    network = net()
    before = network.parameters.tobytes()
    with pytest.raises(ValueError, match=rf"net: expected .*{message}"):
        network.load(tmp_path / "net")
    assert network.parameters.tobytes() == before


@pytest.mark.parametrize("kind", sorted(set(OTHERS) - {"folder", "checkpoint", "npz"}))
def test_another_file_is_no_checkpoint(tmp_path, kind):
    make, message = OTHERS[kind]
    make(tmp_path / "run")
    message = "a safetensors file" if kind.startswith("BF16") else message.removeprefix("got ")
    with pytest.raises(ValueError, match=rf"run: expected a checkpoint, got .*{message}.*move it"):
        dl.fit(net(), DATA, lr=0.1, epochs=1, checkpoint=tmp_path / "run")
