"""Point clouds: metres where the camera's geometry says, and none without a camera."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from depthtokens import DataError, DepthTokens, UsageError
from depthtokens.deploy import cloud
from depthtokens.deploy.cloud import Camera, Lens, cloud_file, film_focal_length, points
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.written import Wanted
from depthtokens.depth.depthmap import DepthMap
from helpers import photo, refused, run

trimesh = pytest.importorskip("trimesh", reason="needs the extra: pip install 'depthtokens[cloud]'")


def depth_map(metres):
    metres = np.asarray(metres, np.float32)
    return DepthMap(metres, metres, np.ones((1, 1, 1), np.float32), (0.1, 10.0), photo(*metres.shape))


def with_focal_length(path, value, turned=1, size=(40, 30)):
    """An image file whose EXIF has a focal length, mm on 35 mm film."""
    image = Image.new("RGB", size, "red")
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA405] = value
    exif[0x0112] = turned
    image.save(path, exif=exif)
    return path


def test_a_point_by_hand():
    where, colours = points(depth_map([[1, 2, 3], [4, 5, 6]]), Camera(100, 50, 1, 0.5))
    assert where.dtype == np.float32 and where.shape == (6, 3)
    assert where[5] == pytest.approx([(2 - 1) / 100 * 6, (1 - 0.5) / 50 * 6, 6])  # right, below, in front
    assert where[0] == pytest.approx([(0 - 1) / 100, (0 - 0.5) / 50, 1])
    assert np.array_equal(colours, photo(2, 3).reshape(-1, 3))


@pytest.mark.parametrize(("kind", "axes"), [("ply", (1, 1, 1)), ("glb", (1, -1, -1))])
def test_a_plane_is_a_plane(kind, axes):
    """A wall 2 m away fills 90 degrees: it is 4 m wide but for one pixel, and as much in proportion high."""
    depth = depth_map(np.full((75, 100), 2.0))
    opened = trimesh.load(io.BytesIO(cloud_file(depth, Lens(fov=90).camera("", (75, 100)), kind)), file_type=kind)
    found = next(iter(opened.geometry.values())) if kind == "glb" else opened
    where = np.asarray(found.vertices) * axes
    assert len(where) == 7500 and np.allclose(where[:, 2], 2)
    assert np.allclose(np.ptp(where, axis=0), [4 * 99 / 100, 3 * 74 / 75, 0]) and np.allclose(where.mean(axis=0), [0, 0, 2], atol=1e-5)
    assert where[0, 0] < 0 and where[0, 1] < 0  # the photo's first pixel is above and to the left
    assert np.array_equal(np.asarray(found.colors)[:, :3], depth.image.reshape(-1, 3))


def test_large_photos_are_thinned(monkeypatch):
    monkeypatch.setattr(cloud, "MOST_POINTS", 30)
    depth = depth_map(np.arange(1, 201).reshape(10, 20))
    where, colours = points(depth, Camera(10, 10, 0, 0))
    assert len(where) == len(colours) == 4 * 7 and where[1].tolist() == pytest.approx([3 / 10 * 4, 0, 4])


def test_focal_length_of_exif(tmp_path):
    """By the diagonal, so that a photo on its side has the same camera; 50 mm see 46.8 degrees of it."""
    lying = with_focal_length(tmp_path / "a.jpg", 50)
    for path in (lying, with_focal_length(tmp_path / "b.jpg", 50, turned=6), with_focal_length(tmp_path / "d.png", 50)):
        assert film_focal_length(path) == 50, path
    for size in ((30, 40), (40, 30)):
        camera = Lens().camera(lying, size)
        assert camera.fx == camera.fy == pytest.approx(50 * 50 / 43.2666, rel=1e-5)
        assert (camera.cx, camera.cy) == ((size[1] - 1) / 2, (size[0] - 1) / 2)
    assert film_focal_length(with_focal_length(tmp_path / "e.jpg", 0)) is None
    assert Lens(fov=60).camera(lying, (30, 40)).fx == pytest.approx(20 / np.tan(np.pi / 6))  # what is said counts


def test_nothing_says_what_the_camera_was(tmp_path):
    with_focal_length(tmp_path / "a.jpg", 28)
    Image.new("RGB", (40, 30)).save(tmp_path / "b.png")
    (tmp_path / "c.jpg").write_bytes(b"no photo")
    photos = sorted(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"b\.png and 1 more say no focal length .* give --fov DEGREES or --intrinsics FX FY CX CY"):
        Batch(photos, tmp_path / "out", Wanted(["ply"]))
    Batch(photos, tmp_path / "out", Wanted(["png"]))
    Batch(photos, tmp_path / "out", Wanted(["ply"], lens=Lens(fov=50)))
    with pytest.raises(DataError, match="says no focal length"):
        Lens().camera(photos[1], (30, 40))
    with pytest.raises(DataError, match=r"the centre 320 240 of --intrinsics lies outside its 40x30 pixels"):
        Lens(intrinsics=(500, 500, 320, 240)).camera(photos[1], (30, 40))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fov": 180}, "--fov 180: needs degrees between 0 and 180"),
        ({"fov": float("nan")}, "--fov nan"),
        ({"intrinsics": (0, 1, 2, 3)}, "--intrinsics 0 1 2 3: needs two focal lengths above 0"),
        ({"fov": 60, "intrinsics": (1, 1, 1, 1)}, "give one"),
    ],
)
def test_no_such_camera(given, said):
    with pytest.raises(UsageError, match=said):
        Lens(**given)


def test_the_verb(capsys, tiny_clip, tmp_path, monkeypatch):
    tokens, out = tmp_path / "tokens.safetensors", tmp_path / "out"
    DepthTokens(tiny_clip, depth="learned:5", predict_side=64).save(tokens)
    (tmp_path / "in" / "a").mkdir(parents=True)
    with_focal_length(tmp_path / "in" / "a" / "x.jpg", 28, turned=6, size=(96, 64))
    Image.new("RGB", (96, 64)).save(tmp_path / "in" / "y.png")
    words = ("predict", tokens, tmp_path / "in" / "a", "--out", out, "--formats", "npy", "ply", "glb", "npz", "tiff")
    code, stdout, err = run(capsys, *words, "--json")
    assert code == 0 and [name.rsplit("x_")[1] for name in json.loads(stdout)["images"][0]["files"]] == [
        "depth.npy", "depth.tiff", "cloud.ply", "cloud.glb", "depth.npz",
    ], err  # fmt: skip
    found, metres = trimesh.load(out / "x_cloud.ply"), np.load(out / "x_depth.npy")
    assert metres.shape == (96, 64) and np.array_equal(np.asarray(found.vertices)[:, 2].astype(np.float32), metres.ravel())
    code, stdout, err = run(capsys, *words, "--resume", "--json")
    assert code == 0 and json.loads(stdout)["summary"]["kept"] == 1, err
    assert "holds results of other fov than" in refused(capsys, *words, "--resume", "--fov", 60)
    assert "y.png says no focal length" in refused(capsys, "predict", tokens, tmp_path / "in", "--out", tmp_path / "o2", "--formats", "ply")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    assert refused(capsys, *words, "--resume") == "a point cloud needs the package trimesh: pip install 'depthtokens[cloud]'"
