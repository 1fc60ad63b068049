"""Parameters and buffers of a network: to files, from files, and from another network."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.numpy

from dlcore import checks

#: Version of the file format; a file of another one is refused.
FORMAT = "dlcore 1"


def save(network: Any, path: str | os.PathLike[str]) -> None:
    """Write all parameters and buffers to a safetensors file, whole or not at all.

    Equal networks give equal bytes. The file is written beside ``path``, flushed to the disk and then
    renamed, so that a crash or a full disk leaves the old one. A symbolic link stays and its target is
    replaced; an old file's mode is kept, a new one gets that of the process (its umask). Other hard links to
    the old file keep the old content. A device or pipe is written to.

    Raises ``TypeError`` for an array whose type safetensors has not, ``ValueError`` for a folder, and
    ``OSError`` where the file cannot be written.
    """
    to_numpy = network.backend.to_numpy
    arrays = {name: _plain(name, to_numpy(a)) for name, a in network.arrays().items()}
    about = {"format": FORMAT, **_expected(network), "seeds": json.dumps(network.streams.seeds)}
    about["sha256"] = _digest(arrays, about)
    content = _in_order(safetensors.numpy.save(arrays, about))
    with replacing(Path(path)) as file:
        file.write(content)


def load(network: Any, path: str | os.PathLike[str]) -> None:
    """Read what ``save`` of a network with the same layers and replicas has written.

    Raises ``ValueError`` for a damaged file, one of another format version, or one whose layers,
    names, shapes or dtype are not this network's; the network is then as it was. Of a file of another
    kind the error says what it is: a checkpoint, a file of PyTorch, Keras or Git LFS, and so on.
    """
    arrays, about = _read(Path(path))
    if about.get("sha256") != _digest(arrays, about):
        raise ValueError(f"{path}: expected contents that fit the checksum, got a damaged file")
    for key, expected in _expected(network).items():
        found = about.get(key)
        checks.expect(found == expected, str(path), f"{key} {expected}", found)
    own = network.arrays()
    checks.expect(arrays.keys() == own.keys(), str(path), f"arrays {sorted(own)}", sorted(arrays))
    for name, a in own.items():
        due = a.shape, np.dtype(a.dtype).newbyteorder("=")
        came = arrays[name].shape, arrays[name].dtype
        checks.expect(came == due, f"{path}: {name}", str(due), came)
    _assign(network, arrays)


def copy_layers(network: Any, source: Any, k: int) -> None:
    """Copy the lowest ``k`` layers with weights, and all layers below the next one, from ``source``.

    So batch norm behind the k-th comes along, with its running statistics. ``source`` has the same
    number of replicas, or is a plain network, which all replicas then copy. Raises ``TypeError`` or
    ``ValueError`` where ``source`` is no network or does not match; the network is then as it was.
    """
    checks.expect(hasattr(source, "arrays"), "source", "a Network", repr(source), TypeError)
    shape = source.streams.shape
    due = f"a plain network or one of {network.replicas} replicas"
    checks.expect(shape in ((), network.streams.shape), "source", due, f"one of {source.replicas}")
    weighty = [i for i, la in enumerate(source.layers) if any(n[0].isupper() for n in la.shapes)]
    due = f"at most {len(weighty)} layers with weights"
    checks.expect(checks.integer("k", k, 1) <= len(weighty), "k", due, k)
    stop = [*weighty, len(source.layers)][k]
    both = network.layers[:stop], source.layers[:stop]
    ours, theirs = ([(type(la).__name__, la.shapes) for la in layers] for layers in both)
    checks.expect(ours == theirs, "source", f"layers {ours}", theirs)
    low = {name: a for name, a in source.arrays().items() if int(name.split(".")[0]) < stop}
    _assign(network, {name: source.backend.to_numpy(a) for name, a in low.items()})


def _assign(network: Any, arrays: dict[str, np.ndarray]) -> None:
    own = network.arrays()
    for name, a in arrays.items():
        own[name][...] = network.backend.asarray(a, a.dtype)


def _expected(network: Any) -> dict[str, str]:
    """Return what a file must say of the network that it goes into."""
    layers = json.dumps([type(layer).__name__ for layer in network.layers])
    return {"dtype": network.backend.dtype.name, "layers": layers}


def _digest(arrays: dict[str, np.ndarray], about: dict[str, str]) -> str:
    found = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name, a in sorted(arrays.items()):
        found.update(f"{name} {a.dtype} {a.shape}".encode() + a.tobytes())
    return found.hexdigest()


# The format: eight bytes with the length of a header in JSON, the header, the arrays --------------

#: What safetensors calls NumPy's types.
_KINDS = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _plain(name: str, a: Any) -> np.ndarray:
    """Return an array as safetensors takes it: in C order and the machine's byte order, axes kept.

    safetensors 0.8 writes an array's memory as it lies, whatever its order. ``np.ascontiguousarray`` gives
    a number, which has no axis, one of length 1.
    """
    kind = np.dtype(a.dtype).newbyteorder("=")
    known = [np.dtype(code) for code in _KINDS.values()]
    checks.expect(kind in known, name, "an array of real numbers", f"{kind}", TypeError)
    return np.asarray(a, dtype=kind, order="C")


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its header's names in order, which safetensors writes at random."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    about = dict(sorted(header.pop("__metadata__").items()))
    header = {"__metadata__": about, **dict(sorted(header.items()))}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the text of a file that ``save`` has written."""
    checks.expect(not path.is_dir(), str(path), "a safetensors file", "a folder")
    content = path.read_bytes()
    header = _header(content)
    if header is None:
        raise ValueError(f"{path}: expected a safetensors file, got {kind_of(content, path)}")
    about = header.pop("__metadata__", {})
    about = about if isinstance(about, dict) else {}
    _check_format(path, about.get("format"), header)
    try:
        return safetensors.numpy.load(content), about
    except Exception as error:  # the parser raises types of its own, and what damage leads to
        due, came = "a safetensors file", f"a damaged one ({error})"
        raise ValueError(f"{path}: expected {due}, got {came}") from error


def _header(content: bytes) -> dict[str, Any] | None:
    """Return the header of a safetensors file, None where there is none."""
    end = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or end > len(content) or content[8:9] != b"{":
        return None
    try:
        header = json.loads(content[8:end])
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def _check_format(path: Path, version: Any, entries: dict[str, Any]) -> None:
    """Raise ``ValueError`` for another format, with what is known of the file."""
    kinds = {str(e.get("dtype")) if isinstance(e, dict) else "?" for e in entries.values()}
    got = repr(version)
    if version is None:
        got += f": a safetensors file that dlcore has not written, with arrays of {sorted(kinds)}"
    checks.expect(version == FORMAT, str(path), f"format {FORMAT!r}", got)
    foreign = sorted(kinds - set(_KINDS))
    due = "arrays of NumPy's types, such as F32"
    checks.expect(not foreign, str(path), due, f"{', '.join(foreign)}, or a damaged file")


#: What a file is called of which nothing is known.
UNKNOWN = "another or damaged file"
#: First bytes of files, and what they are.
_BEGINNINGS = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with 'git lfs pull'",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them (.h5)",
    b"\x93NUMPY": "an array of NumPy (.npy)",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a file packed by gzip",
    b"BZh": "a file packed by bzip2",
    b"\xfd7zXZ": "a file packed by xz",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a picture (PNG)",
    **{bytes([0x80, n]): "a pickle, as PyTorch wrote them before 1.6" for n in (2, 3, 4, 5)},
}


def kind_of(content: bytes, path: Path) -> str:
    """Return what a file is that was to be something else, for messages.

    ``content`` holds its bytes; a zip archive is opened at its ``path``.
    """
    if not content:
        return "an empty file, a damaged one"
    if len(content) < 9:
        return UNKNOWN
    if content.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    return _kind_by_header(content) or _kind_by_beginning(content) or _kind_of_text(content)


def _kind_by_header(content: bytes) -> str | None:
    if _header(content) is not None:
        return "a safetensors file"
    length = int.from_bytes(content[:8], "little")
    likely = content[8:9] == b"{" and length < 1 << 32
    return "a damaged safetensors file" if likely else None


def _kind_by_beginning(content: bytes) -> str | None:
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    return None


def _kind_of_text(content: bytes) -> str:
    start = content[:200].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, perhaps the answer to a download that failed"
    try:
        text = content[:2000].decode("ascii")
    except UnicodeDecodeError:
        return UNKNOWN
    printable = all(letter.isprintable() or letter.isspace() for letter in text)
    return "text" if printable else UNKNOWN


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a damaged zip archive, as checkpoints and files of PyTorch are"
    if any(name.endswith("data.pkl") for name in names):
        return "a file of PyTorch (a pickle in a zip archive)"
    if "model.weights.h5" in names:
        return "a file of Keras (.keras)"
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy (.npz), such as a checkpoint"
    return "a zip archive"


# Files that are whole or not there ----------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its place after the ``with`` block, if nothing fails.

    It is on the disk before it is renamed: at any moment there is the old file or the new one. Links and
    modes are kept, see ``save``. Raises ``ValueError`` for a folder, ``OSError`` as a disk does.
    """
    target = _target(path)
    if target.exists() and not target.is_file():  # a device or a pipe: nothing to be replaced
        with open(target, "wb") as special:
            yield special
        return
    beside, file = _open_beside(target)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(target.parent)


def check_writable(path: Path) -> None:
    """Raise what ``replacing`` would raise at once: before the work whose result is to be written.

    Makes the folder, and a small file in it that is removed again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = _target(path)
    if target.exists() and not target.is_file():
        return
    beside, file = _open_beside(target)
    try:
        with file:
            file.write(bytes(4096))
    finally:
        beside.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Return the file that is to be replaced: at the end of links."""
    target = Path(os.path.realpath(path))
    checks.expect(not target.is_dir(), str(path), "a file", "a folder")
    if target.is_symlink():
        raise OSError(errno.ELOOP, "expected a link that leads to a file, got a loop", str(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "expected a file that may be written", str(path))
    return target


def _open_beside(target: Path) -> tuple[Path, BinaryIO]:
    """Open a new file beside another one, with the other's mode and owner."""
    # A name of 255 bytes leaves no room for more: of long ones a part will do.
    beside = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    old = target.stat() if target.exists() else None
    try:
        number = os.open(beside, flags, 0o666 if old is None else 0o600)
    except OSError as error:
        what = f"expected a folder where a file can be made ({error.strerror})"
        raise type(error)(error.errno, what, str(target)) from error
    file = os.fdopen(number, "wb")
    if old is not None:
        _take_over(beside, old)
    return beside, file


def _take_over(beside: Path, old: os.stat_result) -> None:
    """Give a new file the owner and the mode of an old one, as far as the system lets us."""
    new = beside.stat()
    if hasattr(os, "chown") and (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(OSError):
            os.chown(beside, old.st_uid, old.st_gid)
    os.chmod(beside, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Write a folder's list of names to the disk, where the system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
