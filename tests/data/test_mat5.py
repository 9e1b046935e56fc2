"""MAT 5 files: the vectors that scipy reads from them, and one error for whatever else."""

import contextlib
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from depthtokens.data.mat5 import read_vectors

scipy_io = pytest.importorskip("scipy.io", reason="scipy writes the files")


@pytest.mark.parametrize("packed", [False, True])
def test_what_scipy_writes(tmp_path, packed):
    values = {
        "trainNdxs": np.arange(1.0, 796.0)[:, None], "testNdxs": np.arange(1, 655, dtype=np.uint16)[None], "one": np.int8([[7]]),
        "few": np.uint8([[1, 2, 3]]), "wide": np.int64([[2**40]]), "half": np.float32([[0.5, np.nan]]), "none": np.zeros((0, 0)),
    }  # fmt: skip
    beside = {"text": "hello", "cells": np.array([[1, "a"]], object), "square": np.eye(2), "turned": np.array([[1j]])}
    scipy_io.savemat(tmp_path / "a.mat", values | beside, do_compression=packed)
    found = read_vectors(tmp_path / "a.mat")
    assert found.keys() - {"none"} == values.keys() - {"none"}
    for name in found:
        assert np.array_equal(found[name], values[name].ravel(), equal_nan=True), name


def test_numbers_in_big_endian_order(tmp_path):
    def element(kind, body):
        return struct.pack(">II", kind, len(body)) + body + bytes(-len(body) % 8)

    parts = element(6, bytes([0, 0, 0, 6]) + bytes(4)) + element(5, struct.pack(">ii", 3, 1)) + element(1, b"testNdxs")
    matrix = element(14, parts + element(4, struct.pack(">HHH", 5, 6, 700)))
    (tmp_path / "a.mat").write_bytes(bytes(124) + b"\1\0MI" + matrix)
    assert read_vectors(tmp_path / "a.mat")["testNdxs"].tolist() == [5, 6, 700]


def test_files_that_unpack_to_more(tmp_path):
    body = zlib.compress(bytes(2**27), 9)
    (tmp_path / "a.mat").write_bytes(bytes(124) + b"\0\1IM" + struct.pack("<II", 15, len(body)) + body)
    (tmp_path / "b.mat").write_bytes(bytes(124) + b"\0\1IM" + bytes(2**21))
    tracemalloc.start()
    for name in ("a.mat", "b.mat"):
        with pytest.raises(ValueError, match="unpacks to more|no MAT 5 file"):
            read_vectors(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
def test_mutated_files(tmp_path, packed):
    """scipy's own reader crashed on some of these."""
    scipy_io.savemat(tmp_path / "a.mat", {"trainNdxs": [[1.0], [4]], "testNdxs": np.uint16([[2], [3]])}, do_compression=packed)
    whole, draw, started = (tmp_path / "a.mat").read_bytes(), random.Random(0), time.monotonic()
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 4])):
            content[draw.randrange(124, len(content))] = draw.choice([0, 255, draw.randrange(256)])
        (tmp_path / "m.mat").write_bytes(content)
        with contextlib.suppress(ValueError, struct.error, zlib.error):
            assert all(values.ndim == 1 and len(values) < 100 for values in read_vectors(tmp_path / "m.mat").values())
    assert time.monotonic() - started < 60
