"""Parameters and buffers of a network: to files, from files, and from another network."""

import contextlib
import hashlib
import json
import os
import secrets
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

    The file is written beside ``path`` and then renamed, so that a crash leaves the old one.
    """
    to_numpy = network.backend.to_numpy
    arrays = {name: np.ascontiguousarray(to_numpy(a)) for name, a in network.arrays().items()}
    about = {"format": FORMAT, **_expected(network), "seeds": json.dumps(network.streams.seeds)}
    about["sha256"] = _digest(arrays, about)
    with replacing(Path(path)) as file:
        file.write(safetensors.numpy.save(arrays, about))


def load(network: Any, path: str | os.PathLike[str]) -> None:
    """Read what ``save`` of a network with the same layers and replicas has written.

    Raises ``ValueError`` for a damaged file, one of another format version, or one whose layers,
    names, shapes or dtype are not this network's; the network is then as it was.
    """
    arrays, about = _read(Path(path))
    version = about.get("format")
    checks.expect(version == FORMAT, str(path), f"format {FORMAT!r}", repr(version))
    if about.get("sha256") != _digest(arrays, about):
        raise ValueError(f"{path}: expected contents that fit the checksum, got a damaged file")
    for key, expected in _expected(network).items():
        found = about.get(key)
        checks.expect(found == expected, str(path), f"{key} {expected}", found)
    own = network.arrays()
    checks.expect(arrays.keys() == own.keys(), str(path), f"arrays {sorted(own)}", sorted(arrays))
    for name, a in own.items():
        due, came = (a.shape, a.dtype), (arrays[name].shape, arrays[name].dtype)
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
        own[name][...] = network.backend.asarray(a)


def _expected(network: Any) -> dict[str, str]:
    """Return what a file must say of the network that it goes into."""
    layers = json.dumps([type(layer).__name__ for layer in network.layers])
    return {"dtype": network.backend.dtype.name, "layers": layers}


def _digest(arrays: dict[str, np.ndarray], about: dict[str, str]) -> str:
    found = hashlib.sha256(json.dumps({**about, "sha256": ""}, sort_keys=True).encode())
    for name, a in sorted(arrays.items()):
        found.update(f"{name} {a.dtype} {a.shape}".encode() + a.tobytes())
    return found.hexdigest()


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    content = path.read_bytes()
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return arrays, header.get("__metadata__", {})
    except Exception as error:  # the parser raises types of its own, and what damage leads to
        due, came = "a safetensors file", f"another or damaged one ({error})"
        raise ValueError(f"{path}: expected {due}, got {came}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that takes its place after the ``with`` block, if nothing fails.

    It is on the disk before it is renamed: at any moment there is the old file or the new one.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
