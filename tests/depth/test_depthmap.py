"""Depth maps: what is saved is what was predicted, at any range, and no map has a hole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DataError, UsageError
from depthtokens.data.formats import read_depth
from depthtokens.depth.depthmap import ROWS, DepthMap, colourise, png_scale


def depth_map(metres, hi=10.0):
    metres = np.asarray(metres, np.float32)
    return DepthMap(metres, np.zeros_like(metres), np.ones((1, 1, 1), np.float32), (0.001, hi), np.zeros((*metres.shape, 3), np.uint8))


@pytest.mark.parametrize(
    ("hi", "scale"), [(10.0, 1000), (65.535, 1000), (80.0, 256), (255.99, 256), (256.5, 128), (1000.0, 64), (2e5, 0.25)]
)
def test_a_png_holds_the_range(tmp_path, hi, scale):
    metres = np.geomspace(0.001, hi, 700, dtype=np.float32).reshape(350, 2)  # more rows than are written at a time
    depth = depth_map(metres, hi)
    depth.save(tmp_path / "d.png")
    with Image.open(tmp_path / "d.png") as png:
        steps, said = np.asarray(png), float(png.text["depth_scale"])
    assert said == scale == depth.png_scale == png_scale(hi)
    assert steps.min() >= 1  # 0 would mean that there is no depth
    assert (np.abs(steps / said - metres) <= np.where(metres * scale < 0.5, 1, 0.5) / scale + 1e-6 * hi).all()


def test_what_lies_beyond_the_range_is_not_clipped(tmp_path):
    depth = depth_map([[1.0, 100.0]])  # the range ends at 10 m
    depth.save(tmp_path / "d.PNG")
    with Image.open(tmp_path / "d.PNG") as png:
        assert png.text["depth_scale"] == "256" and np.asarray(png).tolist() == [[256, 25600]]
    with pytest.raises(DataError, match="below 0, which a 16-bit PNG cannot hold"):
        depth_map([[-1.0, 1.0]]).save(tmp_path / "e.png")
    assert not (tmp_path / "e.png").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_is_no_depth(value):
    with pytest.raises(DataError, match="depth is no number at 1 of 2 pixels"):
        depth_map([[1.0, value]])
    good = depth_map([[1.0, 2.0]])
    with pytest.raises(DataError, match="uncertainty is no number"):
        DepthMap(good.metres, np.full((1, 2), value, np.float32), good.probs, good.depth_range, good.image)


def test_shapes():
    good = depth_map([[1.0, 2.0]])
    with pytest.raises(UsageError, match=r"needs depth and uncertainty \[H, W\] in metres; these are \[2\] and \[1, 2\]"):
        DepthMap(good.metres[0], good.uncertainty, good.probs, good.depth_range, good.image)


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    depth_map([[1.0]]).save("~/d.npy")
    assert (tmp_path / "d.npy").is_file()


def test_pictures_with_one_scale():
    """The same depth has the same colour in two maps that are shown with one range, whatever else is in them."""
    near, far = depth_map([[2.0, 1.0]]), depth_map([[2.0, 9.0]])
    same = [np.asarray(depth.colour((0.0, 10.0)))[0, 0] for depth in (near, far)]
    own = [np.asarray(depth.colour())[0, 0] for depth in (near, far)]
    assert np.array_equal(*same) and not np.array_equal(*own)
    assert np.array_equal(same[0], colourise(near.metres, 0.0, 10.0)[0, 0])
    pictures = [np.asarray(depth_map(np.full((40, 60), metres)).side_by_side((0.0, 10.0))) for metres in (2.0, 9.0)]
    assert not np.array_equal(*pictures)


def test_pictures_of_large_maps_are_thinned():
    large = depth_map(np.tile(np.linspace(1, 9, 3000, dtype=np.float32), (2000, 1)))
    picture = large.side_by_side()
    assert picture.size[0] == 1500 and 300 < picture.size[1] < 500


def test_uncertainty_is_made_when_it_is_asked_for():
    calls: list[int] = []
    good = depth_map([[1.0, 2.0]])
    lazy = DepthMap(good.metres, lambda: calls.append(1) or good.metres / 2, good.probs, good.depth_range, good.image)
    assert not calls and np.array_equal(lazy.uncertainty, [[0.5, 1.0]]) and lazy.uncertainty is lazy.uncertainty and calls == [1]
    bad = DepthMap(good.metres, lambda: good.metres * np.nan, good.probs, good.depth_range, good.image)
    with pytest.raises(DataError, match="uncertainty is no number at 2 of 2 pixels"):
        _ = bad.uncertainty


def test_a_colour_picture_is_the_same_in_strips():
    depth = depth_map(np.random.default_rng(0).uniform(0, 12, (3 * ROWS + 5, 7)))
    assert np.array_equal(depth.colour((0.5, 10.0)), colourise(depth.metres, 0.5, 10.0))


def test_colour_maps():
    depth = depth_map([[1.0, 2.0, 3.0]])
    near, far = (np.asarray(depth.colour((1.0, 3.0), "gray"))[0, i].tolist() for i in (0, 2))
    assert (near, far) == ([0, 0, 0], [255, 255, 255])  # begins at the near end
    assert np.array_equal(np.asarray(depth.colour()), np.asarray(depth.colour(None, "magma_r")))
    plain, grey = (np.asarray(depth.side_by_side(None, name)) for name in ("magma_r", "gray"))
    assert plain.shape == grey.shape and not np.array_equal(plain, grey)
    for made in (depth.colour, depth.side_by_side):
        with pytest.raises(UsageError, match="unknown colour map 'virids': did you mean 'viridis'"):
            made(None, "virids")


def test_files_of_metres(tmp_path):
    """What is written as float32 metres is read again bit for bit."""
    metres = np.random.default_rng(0).uniform(0.1, 9, (130, 7)).astype(np.float32)
    depth = DepthMap(metres, lambda: metres / 4, np.ones((1, 1, 1), np.float32), (0.1, 10.0), np.zeros((130, 7, 3), np.uint8))
    for name in ("d.npy", "d.npz", "d.tiff", "e.TIF"):
        depth.save(tmp_path / name)
    assert np.array_equal(read_depth(tmp_path / "d.npy"), metres) and np.array_equal(read_depth(tmp_path / "d.npz"), metres)
    with np.load(tmp_path / "d.npz") as arrays:
        assert sorted(arrays) == ["depth", "uncertainty"] and np.array_equal(arrays["uncertainty"], metres / 4)
    for name in ("d.tiff", "e.TIF"):
        with Image.open(tmp_path / name) as tiff:
            assert tiff.mode == "F" and np.array_equal(np.asarray(tiff), metres)
    with pytest.raises(UsageError, match=r"saved as .png, .npy, .npz or .tiff, not '.exr'"):
        depth.save(tmp_path / "d.exr")


def test_a_transformers_result():
    depth = depth_map(np.linspace(1, 9, 3 * ROWS * 4).reshape(-1, 4))
    found = depth.to_pipeline()
    assert found["predicted_depth"].dtype == torch.float32 and np.array_equal(found["predicted_depth"].numpy(), depth.metres)
    grey = (depth.metres - depth.metres.min()) / (depth.metres.max() - depth.metres.min())  # as transformers does
    assert found["depth"].mode == "L" and np.abs(np.asarray(found["depth"]) - (grey * 255).astype(int)).max() <= 1
    assert np.asarray(depth_map([[2.0, 2.0]]).to_pipeline()["depth"]).tolist() == [[0, 0]]
