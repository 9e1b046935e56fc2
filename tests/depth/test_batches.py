"""One photo or many, given in any way: always the depth that its file gives."""

from __future__ import annotations

import io
from itertools import count, islice

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DataError, DepthTokens, UsageError
from depthtokens.depth import batches, fused
from helpers import photo

WITHIN = 1e-5
"""Metres by which batches may differ from photos one by one; 3e-6 was the most that was measured."""


@pytest.fixture(scope="module")
def model(tiny_clip):
    return DepthTokens(tiny_clip, depth="random:5", scale=50, predict_side=64)


@pytest.fixture(scope="module")
def rgb():
    return photo(70, 100)


WAYS = {
    "path": lambda path, rgb: path,
    "text": lambda path, rgb: str(path),
    "bytes": lambda path, rgb: path.read_bytes(),
    "file object": lambda path, rgb: io.BytesIO(path.read_bytes()),
    "PIL": lambda path, rgb: Image.fromarray(rgb),
    "uint8": lambda path, rgb: rgb,
    "float": lambda path, rgb: rgb / np.float32(255),
    "RGBA": lambda path, rgb: np.dstack([rgb, np.full_like(rgb[..., :1], 255)]),
    "tensor": lambda path, rgb: torch.from_numpy(rgb).permute(2, 0, 1),
    "tensor of floats": lambda path, rgb: torch.from_numpy(rgb).permute(2, 0, 1) / 255,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_files_depth(model, rgb, tmp_path, way):
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    given = WAYS[way](path, rgb)
    found, expected = model.predict(given), model.predict(path)
    assert np.array_equal(found.metres, expected.metres) and np.array_equal(found.image, rgb)
    assert np.array_equal(model.predict([given])[0].metres, expected.metres)
    assert np.array_equal(next(model.predict(iter([given]))).metres, expected.metres)


def test_grey(model, rgb, tmp_path):
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png")
    expected = model.predict(tmp_path / "grey.png").metres
    for given in (rgb[..., 0], rgb[..., :1], rgb[..., 0] / 255):
        assert np.array_equal(model.predict(given).metres, expected)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("flip", [False, True])
def test_many_are_as_one_by_one(model, batch_size, flip):
    sizes = [(64, 96), (70, 100), (96, 64), (64, 96), (128, 192), (64, 130), (64, 96)]
    photos = [np.roll(photo(*size), 5 * i, axis=1) for i, size in enumerate(sizes)]
    expected = [model.predict(rgb, flip=flip) for rgb in photos]
    for given in (photos, tuple(photos), iter(photos)):
        found = model.predict(given, flip=flip, batch_size=batch_size)
        assert isinstance(found, list) == (not hasattr(given, "__next__"))
        for one, other, rgb in zip(found, expected, photos, strict=True):
            assert np.array_equal(one.image, rgb) and one.metres.shape == rgb.shape[:2]
            for a, b in ((one.metres, other.metres), (one.uncertainty, other.uncertainty), (one.probs, other.probs)):
                assert np.array_equal(a, b) if batch_size == 1 else np.abs(a - b).max() < WITHIN


def test_a_batch_tensor_is_a_list(model):
    photos = torch.from_numpy(np.stack([photo(64, 96), photo(64, 96)[::-1]])).permute(0, 3, 1, 2)
    found = model.predict(photos)
    assert [depth.metres.shape for depth in found] == [(64, 96)] * 2
    assert np.array_equal(found[1].metres, model.predict(photo(64, 96)[::-1]).metres)
    assert model.predict([]) == [] and list(model.predict(iter([]))) == [] and model.predict(photos[:0]) == []


def test_photos_of_one_size_share_a_pass(model, monkeypatch):
    passes, small = [], fused.FusedDepth._small
    monkeypatch.setattr(fused.FusedDepth, "_small", lambda self, shown, flip: passes.append(len(shown)) or small(self, shown, flip))
    model.predict([photo(64, 96), photo(96, 64), photo(128, 192), photo(65, 97), photo(96, 64)], batch_size=4)
    assert passes == [3, 1, 1]


def test_an_iterator_is_read_as_it_is_used(model, monkeypatch):
    taken = []

    def photos():
        for i in count():
            taken.append(i)
            yield photo(64, 96)

    found = model.predict(photos(), batch_size=3)
    assert taken == []
    next(found)
    assert taken == [0, 1, 2]
    assert len(list(islice(found, 3))) == 3 and taken == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr(batches, "PIXELS", 64 * 96)
    taken.clear()
    next(model.predict(photos(), batch_size=3))
    assert taken == [0, 1]  # large photos wait for each other's memory
    monkeypatch.setattr(batches, "LARGEST", 64 * 96)
    taken.clear()
    next(model.predict(photos(), batch_size=3))
    assert taken == [0]


def test_errors_say_which(model, tmp_path, message):
    good = photo(64, 96)
    Image.fromarray(photo(15, 96)).save(tmp_path / "thin.png")
    unscaled = DepthTokens(model.clip, depth="random:5")
    for given, said, kind in (
        ([good, tmp_path / "none.png"], f"images[1]: cannot read image {tmp_path}/none.png: no such file", DataError),
        ([good, b"hello"], "images[1]: cannot read this image: it is not an image", DataError),
        ([photo(15, 96)], "images[0]: image of 15x96 pixels is smaller than one 32x32 patch", DataError),
        ([good, good, tmp_path / "thin.png"], f"images[2]: {tmp_path}/thin.png: image of 15x96 pixels", DataError),
        ([[good]], "images[0]: predict takes RGB images uint8 [H, W, 3], this is uint8 [1, 64, 96, 3] (several photos", UsageError),
        (
            [torch.zeros(2, 3, 64, 96)],
            "images[0]: predict takes RGB images uint8 [H, W, 3], this is float32 [2, 3, 64, 96] (sev",
            UsageError,
        ),
        (torch.full((2, 3, 64, 96), 2.0), "images[0]: an image of floats has values in 0..1", UsageError),
        ([good, None], "images[1]: predict takes RGB images", UsageError),
    ):
        assert message(lambda given=given: unscaled.predict(given), kind).startswith(said)
    for size in (0, -1, 1.0, True):
        assert "needs a whole number of photos, at least 1" in message(lambda size=size: model.predict([good], batch_size=size), UsageError)


def test_what_comes_before_an_error_is_given_out(model):
    found = model.predict(iter([photo(64, 96), photo(64, 96), b"", photo(64, 96)]), batch_size=4)
    assert next(found).metres.shape == next(found).metres.shape == (64, 96)
    with pytest.raises(DataError, match=r"^images\[2\]: "):
        next(found)


def test_a_batch_that_fails_is_done_one_by_one(model, monkeypatch):
    """A photo at fault is named, those beside it have their depth, and a batch that is too large for memory is made smaller."""
    small = fused.FusedDepth._small

    def full(self, shown, flip):
        if len(shown) > 1 or shown.max() == 0:
            raise RuntimeError("CUDA out of memory")
        return small(self, shown, flip)

    monkeypatch.setattr(fused.FusedDepth, "_small", full)
    found = model.predict(iter([photo(64, 96), np.zeros((64, 96, 3), np.uint8)]), batch_size=2)
    assert np.array_equal(next(found).metres, model.predict(photo(64, 96)).metres)
    with pytest.raises(DataError, match=r"^images\[1\]: not enough memory for this photo"):
        next(found)
