"""NumPy arrays to and from the safetensors format: a length, a header in JSON, the arrays' bytes."""

import json
import math

import numpy as np

from safetensors import SafetensorError

TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
NAMES = {np.dtype(code): name for name, code in TYPES.items()}


def save(tensor_dict, metadata=None):
    """Return arrays by name, and text by name, as bytes; large types first, as the format advises."""
    header = {"__metadata__": dict(metadata)} if metadata else {}
    parts, end = [], 0
    for name, a in sorted(tensor_dict.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = a.dtype.newbyteorder("<")
        begin, end = end, end + a.nbytes
        header[name] = dict(dtype=NAMES[kind], shape=list(a.shape), data_offsets=[begin, end])
        parts.append(np.ascontiguousarray(a, dtype=kind).tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def load(data):
    """Return the arrays by name; raises SafetensorError for what is not in the format."""
    begin = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or begin > len(data):
        raise SafetensorError("the header is cut off")
    try:
        header = json.loads(data[8:begin])
        header.pop("__metadata__", None)
        found, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            kind = np.dtype(TYPES[entry["dtype"]])
            low, high = entry["data_offsets"]
            if low != at or high - low != kind.itemsize * math.prod(entry["shape"]):
                raise SafetensorError(f"{name}: its place does not fit its shape")
            a = np.frombuffer(data[begin + low : begin + high], kind)
            found[name], at = a.reshape(entry["shape"]), high
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SafetensorError(f"the header or an array is damaged: {error!r}") from error
    if begin + at != len(data):
        raise SafetensorError("bytes are left over")
    return found
