"""What the page makes of a photo is what `predict` makes of it; what is no photo gets a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from depthtokens import DataError, UsageError
from depthtokens.deploy.app import photos as module
from depthtokens.deploy.app.photos import NPY, PLY, PNG, Photos, heat_map, legend, measured, pair, uncertainty
from helpers import make_model, photo
from hostile import HOSTILE, jpeg


@pytest.fixture(scope="module")
def photos(tiny_clip):
    return Photos(make_model(tiny_clip, predict_side=64))


@pytest.fixture
def given(tmp_path):
    Image.fromarray(photo(96, 130)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_depth_is_that_of_predict_and_is_kept(photos, tmp_path, monkeypatch):
    for name, seed in (("a.png", 0), ("b.png", 1), ("c.png", 2)):
        Image.fromarray(np.roll(photo(60, 80), seed)).save(tmp_path / name)
    first = photos.depth(tmp_path / "a.png")
    assert np.array_equal(first.metres, photos.model.predict(tmp_path / "a.png", side=64).metres)
    monkeypatch.setattr(module, "KEPT", 2 * 60 * 80)
    photos.depth(tmp_path / "b.png")
    assert photos.depth(tmp_path / "a.png") is first
    photos.depth(tmp_path / "c.png")
    assert photos.depth(tmp_path / "a.png") is first and tmp_path / "b.png" not in photos._kept


def test_pictures_and_figures(photos, given):
    depth = photos.depth(given)
    shown, colours = pair(depth)
    assert np.array_equal(shown, photo(96, 130)) and np.array_equal(colours, np.asarray(depth.colour()))
    assert f"<b>{depth.metres[20, 100]:.2f} m</b>" in measured(depth, 100, 20)
    assert f"{depth.metres.min():.3g}</span>" in legend(depth) and f"{depth.metres.max():.3g} m</span>" in legend(depth)
    assert f"{depth.uncertainty.max():.3g} m" in uncertainty(depth)
    centres = photos.model.settings.centres
    assert f"Token 4 stands for {centres[4]:.3g} m" in heat_map(depth, 4, centres)
    for action in (lambda: measured(depth, 130, 20), lambda: measured(depth, 5, -1), lambda: heat_map(depth, 5, centres)):
        with pytest.raises(UsageError):
            action()


def test_files(photos, given, tmp_path, message):
    (tmp_path / "out").mkdir()
    png, npy = photos.files(given, [PNG, NPY], None, tmp_path / "out")
    photos.depth(given).save(tmp_path / "same.png")
    assert png.read_bytes() == (tmp_path / "same.png").read_bytes() and np.array_equal(np.load(npy), photos.depth(given).metres)
    assert "give the degrees" in message(lambda: photos.files(given, [PLY], None, tmp_path), UsageError)
    assert "between 0 and 180" in message(lambda: photos.files(given, [PLY], float("nan"), tmp_path), UsageError)
    assert "at least one" in message(lambda: photos.files(given, [], None, tmp_path), UsageError)
    pytest.importorskip("trimesh")
    (ply,) = photos.files(given, [PLY], 60.0, tmp_path / "out")
    assert ply.name == "a_cloud.ply" and ply.read_bytes().startswith(b"ply")


@pytest.mark.parametrize("name", HOSTILE)
def test_no_photo(photos, tmp_path, name, message):
    content, said = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    found = message(lambda: photos.depth(tmp_path / name))
    assert said in found and str(tmp_path) not in found


def test_a_photo_that_is_gone(photos, tmp_path):
    with pytest.raises(DataError, match=r"^this photo is no longer kept here: give it again$"):
        photos.depth(tmp_path / "gone.png")


def test_metadata_that_lie(photos, tmp_path):
    """EXIF of nonsense is passed over."""
    content = jpeg(96, 130)
    (tmp_path / "a.jpg").write_bytes(content[:2] + b"\xff\xe1\x00\x10Exif\0\0" + b"\xff" * 8 + content[2:])
    assert photos.depth(tmp_path / "a.jpg").metres.shape == (96, 130)
