"""The check says what is missing, unreadable, of the wrong unit or too coarse, and raises for none of it."""

import json

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.check import check
from depthtokens.data.folder import Folder
from depthtokens.data.kitti import KITTI
from depthtokens.data.nyu import NYUv2
from helpers import SHARED, needs_data


def write(root, metres, image_size=None):
    """One pair per array of metres (float maps, stored as .npy)."""
    for folder in ("images", "depth"):
        (root / folder).mkdir(exist_ok=True)
    for i, depth in enumerate(metres):
        Image.fromarray(np.zeros((*(image_size or depth.shape), 3), np.uint8)).save(root / f"images/{i:03d}.png")
        np.save(root / f"depth/{i:03d}.npy", depth)


def smooth(count=4, size=(80, 100), scale=1.0):
    return [scale * np.linspace(1 + i, 5 + i, size[0] * size[1]).reshape(size) for i in range(count)]


def test_good_data(tmp_path):
    maps = smooth()
    maps[0][:, :50] = 0
    write(tmp_path, maps)
    seen = []
    found = check(Folder(tmp_path, "all"), progress=lambda *step: seen.append(step))
    assert found.ok and found.pairs == found.maps == 4 and found.warnings == [] and found.sizes == {"80x100": 4}
    valid = np.concatenate([depth[depth > 0] for depth in maps])
    assert (found.depth_min, found.depth_max) == (pytest.approx(valid.min()), pytest.approx(valid.max()))
    assert found.depth_median == pytest.approx(np.median(valid), rel=0.01) and found.valid_share == pytest.approx(0.875)
    assert seen == [("checking folder all", i, 4) for i in range(1, 5)]
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True
    assert all("\n" not in line for line in found.lines()) and "missing: none" in found.lines()


def test_missing_and_unreadable_files_are_reported(tmp_path):
    write(tmp_path, smooth(count=9))
    for i in range(4):
        (tmp_path / f"depth/{i:03d}.npy").unlink()
    (tmp_path / "images/005.png").write_text("hello")
    np.save(tmp_path / "depth/006.npy", np.ones((3, 3)))
    found = check(Folder(tmp_path, "all", allow_missing=True))
    assert not found.ok and (found.missing, found.unreadable, found.maps) == (4, 2, 3)
    assert len(found.missing_first) == 3 and "images/000.png" in found.missing_first[0]
    assert "not an image" in found.unreadable_first[0] and "3x3" in found.unreadable_first[1]
    assert "missing: 4" in found.lines() and "unreadable: 2" in found.lines()


def test_quick_decodes_a_sample(tmp_path):
    write(tmp_path, [np.linspace(1, 5, 12).reshape(3, 4)] * 205)
    np.save(tmp_path / "depth/001.npy", np.ones((2, 2)))
    data = Folder(tmp_path, "all")
    assert check(data).unreadable == 1
    found = check(data, quick=True)
    assert found.pairs == 205 and 199 <= found.maps <= 200 and found.depth_max == 5


@pytest.mark.parametrize(
    ("stored", "stated", "depth_range", "advice"),
    [
        (1000, None, (0.001, 10), 1000),  # millimetres taken for metres
        (1000, 1, (0.001, 10), 1000),
        (1000, 256, (0.001, 10), 1000),
        (256, None, (2, 10), 256),
        (1, 1000, (0.001, 10), None),  # metres taken for millimetres
        (5000, None, (0.001, 10), 5000),  # at 1000 it would be 22 m
    ],
)
def test_wrong_units_are_noticed(tmp_path, stored, stated, depth_range, advice):
    write(tmp_path, smooth(scale=stored))
    [warning] = check(Folder(tmp_path, "all", depth_scale=stated, depth_range=depth_range)).warnings
    assert (f"did you mean --depth-scale {advice}?" if advice else "state no --depth-scale") in warning


def test_units_beyond_advice(tmp_path):
    write(tmp_path, smooth(scale=1e9))
    assert "check the unit" in check(Folder(tmp_path, "all")).warnings[0]


def test_coarse_empty_and_uneven_maps_are_noticed(tmp_path):
    maps = [np.round(depth * 20) / 20 for depth in smooth()]
    maps[1][:] = 0
    write(tmp_path, maps)
    Image.fromarray(np.zeros((70, 100, 3), np.uint8)).save(tmp_path / "images/003.png")
    np.save(tmp_path / "depth/003.npy", maps[3][:70])
    warnings = check(Folder(tmp_path, "all")).warnings
    assert [next(word for word in ("8 bits", "no valid pixel", "sizes differ") if word in text) for text in warnings] == [
        "8 bits",
        "no valid pixel",
        "sizes differ",
    ]


@needs_data
def test_real_data():
    nyu, kitti = check(NYUv2(SHARED / "data/nyuv2_sync", "all")), check(KITTI(SHARED / "data/kitti", "train"))
    assert nyu.ok and nyu.warnings == [] and nyu.sizes == {"480x640": 3} and 0.6 < nyu.valid_share < 0.8
    assert kitti.ok and kitti.warnings == [] and kitti.sizes == {"352x1216": 12} and 0.15 < kitti.valid_share < 0.25
