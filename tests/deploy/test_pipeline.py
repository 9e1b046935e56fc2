"""Photos in threads: the order, the bits and the errors of one by one, in bounded memory, and nothing left running."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from PIL import Image

from depthtokens import DataError, DepthTokens
from depthtokens.deploy import pipeline
from depthtokens.deploy.pipeline import ahead, depths
from depthtokens.depth import batches
from depthtokens.depth.batches import Engine
from depthtokens.depth.depthmap import DepthMap
from helpers import photo

WITHIN = 1e-5
"""Metres by which batches may differ from photos one by one."""


@pytest.fixture(scope="module")
def model(tiny_clip):
    return DepthTokens(tiny_clip, depth="random:5", scale=50, predict_side=64)


def plain(look=lambda rgb: rgb):
    """An engine without a model: depth is brightness."""

    def run(photos, shown):
        return (DepthMap(rgb[..., 0] / np.float32(50), rgb[..., 0] / np.float32(50), np.ones((1, 1, 1)), (0, 5), rgb) for rgb in photos)

    return Engine(look, run)


def fits(monkeypatch, pixels):
    """So many pixels are kept in memory together."""
    for module in (batches, pipeline):
        monkeypatch.setattr(module, "PIXELS", pixels)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_photos_are_as_one_by_one(model, tmp_path, batch_size):
    """In their order, those that cannot be read or shown in their places, and the others go on."""
    images = [tmp_path / f"{i}.png" for i in range(8)]
    for i, path in enumerate(images):
        Image.fromarray(np.roll(photo(*[(64, 96), (70, 100), (64, 96)][i % 3]), i, axis=1)).save(path)
    images[2].write_bytes(b"none")
    images[5].unlink()
    Image.new("RGB", (8000, 1)).save(images[6])  # far too many pixels once it is 64 high
    found = list(depths(iter(images), model.fused().engine(), batch_size))
    assert [type(depth) for depth in found] == [DataError if i in (2, 5, 6) else DepthMap for i in range(8)]
    for path, depth in zip(images, found, strict=True):
        if isinstance(depth, DataError):
            assert str(path) in str(depth) and "images[" not in str(depth)
            continue
        expected = model.predict(path).metres
        assert np.array_equal(depth.metres, expected) if batch_size == 1 else np.abs(depth.metres - expected).max() < WITHIN


def test_large_photos_wait_for_each_other(monkeypatch):
    fits(monkeypatch, 0)
    read, written, most = [], [], [0]

    def look(rgb):
        read.append(1)
        most.append(len(read) - len(written))
        return rgb

    for _ in depths((photo(8, 8) for _ in range(20)), plain(look), 4):
        written.append(1)
    assert len(written) == 20 and max(most) == 1


@pytest.mark.parametrize("most", [0, 10**6])
def test_closed_it_leaves_no_thread(monkeypatch, most):
    """Also where one waits for memory, and whatever the caller or the photos raise."""
    fits(monkeypatch, most)
    before = set(threading.enumerate())

    def photos():
        yield photo(8, 8)
        yield photo(8, 8)
        raise KeyboardInterrupt

    found = depths((photo(8, 8) for _ in range(10**9)), plain(), 2)
    next(found)
    found.close()
    assert set(threading.enumerate()) == before
    found = depths(photos(), plain(), 1)
    assert next(found).metres.shape == next(found).metres.shape == (8, 8)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert set(threading.enumerate()) == before


def test_no_further_ahead_than_asked():
    made, enough = [], threading.Event()

    def numbers():
        for i in range(100):
            made.append(i)
            if i == 3:
                enough.set()
            yield i

    found = ahead(numbers(), 3)
    assert next(found) == 0 and enough.wait(10)
    assert made == [0, 1, 2, 3] and next(found) == 1
    found.close()
