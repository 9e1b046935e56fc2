"""The check says what is missing, unreadable, of the wrong unit or too coarse, and raises for none of it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.check import check, sample_truth
from depthtokens.data.folder import Folder
from depthtokens.data.kitti import KITTI
from depthtokens.data.nyu import NYUv2
from depthtokens.scenes.dataset import Scenes
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


def test_truth_outside_the_range_is_counted(tmp_path):
    """65535 for missing: not a scale's fault, and never part of the median."""
    maps = [np.round(depth * 1000).astype(np.uint16) for depth in smooth()]
    for depth in maps:
        depth[:, :60] = 65535
    write(tmp_path, maps)
    data = Folder(tmp_path, "all", depth_scale=1000)
    assert not data.read(0)[1][:, :60].any() and data.read(0)[1][:, 60:].all(), "it is no truth in training either"
    found = check(data)
    [warning] = found.warnings
    assert found.outside == pytest.approx(0.6) and "60.0% of the truth lies outside the depth range 0.001 to 10 m" in warning
    assert "65535 in the files (65.53 m) seems to mark missing depth" in warning and "scale" not in warning
    assert "outside the depth range: 60.0% of the truth" in found.lines() and 2 < found.depth_median < 8
    truth = sample_truth(data, maps=2)
    assert (truth.maps, truth.fault) == (2, None) and truth.outside == pytest.approx(0.6) and truth.warnings == [warning]


def test_two_percent_outside_the_range_are_passed_over(tmp_path):
    maps = [depth.copy() for depth in smooth(count=2)]
    for depth in maps:
        depth[0] = 30.0  # 1 of 80 rows
    write(tmp_path, maps)
    assert check(Folder(tmp_path, "all")).warnings == []
    for depth in maps:
        depth[:4] = 30.0
    write(tmp_path, maps)
    [warning] = check(Folder(tmp_path, "all")).warnings
    assert "5.0% of the truth" in warning and "state a --depth-range that holds it" in warning


def test_sample_of_the_truth_is_told_before_training(tmp_path):
    write(tmp_path, smooth(scale=1000))
    (tmp_path / "images/001.png").write_text("no image")  # not looked at
    (tmp_path / "depth/002.npy").write_text("no array")  # passed over
    truth = sample_truth(Folder(tmp_path, "all"))
    assert truth.maps == 3 and truth.outside == 1 and "out of proportion" in truth.fault and truth.warnings[0] == truth.fault
    fine = sample_truth(Folder(tmp_path, "all", depth_scale=1000))
    assert fine.fault is None and fine.warnings == [] and fine.outside == 0 and 2 < fine.median < 8


def test_rotated_bits_are_told_from_wrong_scales(tmp_path):
    """SUN RGB-D: millimetres rotated left by three bits; at 1000 they are 8 times too far, at 5000 they would seem right."""
    for folder in ("images", "depth"):
        (tmp_path / folder).mkdir()
    millimetres = np.tile(np.linspace(1200, 5000, 128).astype(np.uint16), (96, 1))
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(tmp_path / "images/a.png")
    Image.fromarray(((millimetres << 3) | (millimetres >> 13)).astype(np.uint16)).save(tmp_path / "depth/a.png")
    for scale, depth_range in ((1000, (0.001, 10)), (5000, (0.001, 10)), (1000, (0.001, 80))):
        warning = check(Folder(tmp_path, "all", depth_scale=scale, depth_range=depth_range)).warnings[0]
        assert "did you mean --depth-scale 8000?" in warning and "rotated by three" in warning and "5000?" not in warning
    assert check(Folder(tmp_path, "all", depth_scale=8000)).warnings[1:] == []
    Image.fromarray(millimetres).save(tmp_path / "depth/a.png")
    assert not any("8000" in text for text in check(Folder(tmp_path, "all", depth_scale=256)).warnings)


def test_a_range_that_is_too_small_is_named_beside_the_scale(tmp_path):
    write(tmp_path, [np.round(256 * (20 + depth)) for depth in smooth()])
    [warning] = check(Folder(tmp_path, "all", depth_scale=256)).warnings
    assert "did you mean --depth-scale 1000? Where the scale is right, state --depth-range 0.001 30" in warning


def test_advice_leaves_the_median_in_proportion(tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(12):
        folder = tmp_path / str(trial)
        folder.mkdir()
        write(folder, smooth(count=1, scale=10 ** rng.uniform(-3, 6)))
        hi = 10 ** rng.uniform(0, 2)
        data = Folder(folder, "all", depth_scale=rng.choice([1, 100, 256, 1000, 5000]), depth_range=(0.001, hi))
        for warning in check(data).warnings:
            if advised := re.search(r"did you mean --depth-scale (\d+)", warning):
                median = check(Folder(folder, "all", depth_scale=int(advised[1]), depth_range=(0.001, hi))).depth_median
                assert hi / 200 <= median <= hi


def test_in_painted_truth_is_called_that(tmp_path):
    maps = smooth()
    write(tmp_path, maps)
    found = check(Folder(tmp_path, "all"))
    assert found.in_painted and any("in-painted" in line for line in found.lines() if line.startswith("note: "))
    maps[2][5, 5] = 0
    write(tmp_path, maps)
    found = check(Folder(tmp_path, "all"))
    assert not found.in_painted and found.notes == []
    assert not sample_truth(Scenes("indoor", "test", 2, (32, 32))).in_painted, "rendered depth is exact, with or without holes"


def test_turned_images_are_counted(tmp_path):
    write(tmp_path, smooth())
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "images/001.png", exif=exif)
    found = check(Folder(tmp_path, "all"))
    assert found.turned == 1 and "1 images are turned upright" in found.warnings[0] and found.ok


def test_what_a_data_set_says_of_itself_is_told(tmp_path):
    write(tmp_path, smooth())
    (tmp_path / "images/IMG_2.HEIC").write_bytes(b"")
    np.save(tmp_path / "depth/alone.npy", np.ones((3, 3)))
    lines = check(Folder(tmp_path, "all")).lines()
    assert any(line.startswith("warning: ") and "images/IMG_2.HEIC" in line for line in lines)
    assert any(line.startswith("note: 1 depth maps have no image") and "depth/alone.npy" in line for line in lines)


@needs_data
def test_real_data():
    nyu, kitti = check(NYUv2(SHARED / "data/nyuv2_sync", "all")), check(KITTI(SHARED / "data/kitti", "train"))
    assert nyu.ok and nyu.warnings == [] and nyu.sizes == {"480x640": 3} and 0.6 < nyu.valid_share < 0.8
    assert (
        kitti.ok
        and len(kitti.warnings) == 1
        and "23,158" in kitti.warnings[0]
        and not kitti.in_painted
        and kitti.sizes == {"352x1216": 12}
        and 0.15 < kitti.valid_share < 0.25
    )
