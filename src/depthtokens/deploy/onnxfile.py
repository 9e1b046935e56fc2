"""What an ONNX file is made of, without an engine: other files that it names, float16, the checksum of its graph. Needs no package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_WITHIN = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Where tensors are, by the numbers of ONNX's fields: in a model is a graph, in a graph are nodes and tensors, ..."""
_METADATA = 14
"""A model's field for texts of anybody's, which the checksum of its graph stands in."""
_EXTERNAL, _LOCATION = 13, 14
"""A tensor's fields that say where else it is: a name, and that the name counts."""
_TYPE, _FLOAT16 = 2, 10
"""A tensor's field that says the type of its numbers, and what it says of float16."""


def has_external_data(content: bytes) -> bool:
    """Whether a tensor of an ONNX file says that it is in another file, to which an engine would follow it.

    Raises:
        ValueError: for bytes that are no such file.
    """
    of_tensors = (field for tensor in _tensors(content) for field in _fields(tensor))
    return any(field == _EXTERNAL or (field == _LOCATION and value != 0) for field, value in of_tensors)


def has_float16(content: bytes) -> bool:
    """Whether an ONNX file holds float16 tensors. Raises ValueError for bytes that are no such file."""
    return any((_TYPE, _FLOAT16) in _fields(tensor) for tensor in _tensors(content))


def graph_sha256(content: bytes) -> str:
    """SHA-256, 64 hex digits, of everything in an ONNX file but its metadata. Raises ValueError for bytes that are no such file."""
    digest = hashlib.sha256()
    for field, value in _fields(memoryview(content)):
        if field != _METADATA:
            digest.update(f"{field} {value if isinstance(value, int) else len(value)};".encode())
            digest.update(value if isinstance(value, memoryview) else b"")
    return digest.hexdigest()


def _tensors(content: bytes) -> Iterator[memoryview]:
    """All tensors in an ONNX file."""
    left = [("model", memoryview(content))]
    while left:
        kind, message = left.pop()
        if kind == "tensor":
            yield message
            continue
        for field, value in _fields(message):
            if (inner := _WITHIN[kind].get(field)) and isinstance(value, memoryview):
                left.append((inner, value))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: number, and value or bytes; numbers of fixed length, of which ONNX has none here, as bytes."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise ValueError("cut off")
            byte = message[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        key = number() & 0xFFFF_FFFF  # engines keep no more of it
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(key & 7) or (number() if key & 7 == 2 else -1)
        if not 0 <= length <= len(message) - at:
            raise ValueError("cut off")
        yield key >> 3, message[at : at + length]
        at += length
