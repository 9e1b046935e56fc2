"""Vectors of numbers from MATLAB's older files (MAT 5): whatever bytes they are, they make these or one error."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2**20
"""Bytes of a file, and of what it unpacks to; splits.mat has a few thousand."""
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's names for the types of numbers in a file."""
_NUMERIC = range(6, 16)
"""Classes of matrices that hold numbers, rather than text, cells, ..."""
_COMPLEX = 8
_PARTS = 4
"""A numeric matrix: flags, sizes, name, numbers."""


def read_vectors(path: Path) -> dict[str, NDArray[np.float64]]:
    """All vectors of real numbers in a MAT 5 file, by name.

    Raises:
        ValueError: for another file, or a damaged one; also `struct.error` and `zlib.error`.
        OSError: where it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("no MAT 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    found: dict[str, NDArray[np.float64]] = {}
    room = _LARGEST
    for kind, value in _elements(content[128:], order):
        inner = [(kind, value)]
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj().decompress(value, room + 1)
            room -= len(unpacked)
            if room < 0:
                raise ValueError("unpacks to more than a few vectors")
            inner = list(_elements(unpacked, order))
        found.update(_vector(matrix, order) for part, matrix in inner if part == _MATRIX)
    found.pop("", None)
    return found


def _vector(matrix: bytes, order: str) -> tuple[str, NDArray[np.float64]]:
    """Name and numbers of a matrix; no name where it is no vector of real numbers."""
    none = "", np.empty(0)
    parts = [part for part, _ in zip(_elements(matrix, order), range(_PARTS), strict=False)]
    if len(parts) < _PARTS:
        return none
    (_, flags), (_, sizes), (_, name), (kind, numbers) = parts
    class_, bits = flags[:2] if order == "<" else flags[3:1:-1]
    shape = np.frombuffer(sizes, f"{order}i4").tolist()
    if class_ not in _NUMERIC or bits & _COMPLEX or kind not in _NUMBERS or max(shape, default=0) != math.prod(shape):
        return none
    values = np.frombuffer(numbers, order + _NUMBERS[kind])
    return (name.decode("latin-1"), values.astype(np.float64)) if len(values) == math.prod(shape) else none


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The elements that stand one behind the other: type, and bytes."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # up to four bytes, in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("cut off")
        yield kind, data[start : start + size]
        at = start + size if kind == _COMPRESSED else start + size + -(start + size - at) % 8
