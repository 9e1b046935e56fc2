"""KITTI: where its files lie, which pairs a split is, the benchmark crop; and the figures of the released code."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.kitti import KITTI, TEST_DRIVES
from helpers import REFERENCE, SHARED, needs_data

TRAIN_DRIVE, TEST_DRIVE = "2011_09_26_drive_0001_sync", "2011_09_26_drive_0002_sync"
SIZE = (375, 1242)


def image_name(drive, frame, camera="image_02", suffix=".png"):
    return f"{drive[:10]}/{drive}/{camera}/data/{frame:010d}{suffix}"


def depth_name(drive, frame, camera="image_02"):
    return f"{drive}/proj_depth/groundtruth/{camera}/{frame:010d}.png"


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_pair(raw, annotated, drive, frame, camera="image_02", suffix=".png", size=SIZE):
    save(raw / image_name(drive, frame, camera, suffix), np.full((*size, 3), 90, np.uint8))
    save(annotated / depth_name(drive, frame, camera), np.full(size, 256 * 7, np.uint16))


@pytest.fixture(params=[("raw", "data_depth_annotated/{}"), ("raw", "data_depth_annotated"), ("", "{}"), ("", "")])
def tree(request, tmp_path):
    """One training pair of each camera and one test pair, in each layout in use; JPEG in training."""
    raw, annotated = request.param
    write_pair(tmp_path / raw, tmp_path / annotated.format("train"), TRAIN_DRIVE, 5, suffix=".jpg")
    write_pair(tmp_path / raw, tmp_path / annotated.format("train"), TRAIN_DRIVE, 6, camera="image_03")
    write_pair(tmp_path / raw, tmp_path / annotated.format("val"), TEST_DRIVE, 7)
    return tmp_path


def test_there_are_28_test_drives():
    assert len(TEST_DRIVES) == 28 and TEST_DRIVE in TEST_DRIVES and TRAIN_DRIVE not in TEST_DRIVES


def test_split_from_the_tree(tree):
    train, test, everything = (KITTI(tree, split) for split in ("train", "test", "all"))
    assert [Path(name).name for name in train.names] == ["0000000005.jpg"], "left camera only"
    assert [Path(name).name for name in test.names] == ["0000000007.png"]
    assert everything.names == train.names + test.names
    assert (test.name, test.eval_crop, test.depth_range, test.without_depth) == ("kitti", "garg", (0.001, 80.0), 0)


def test_lists(tree, message):
    lines = [
        f"/{image_name(TRAIN_DRIVE, 5)} /{depth_name(TRAIN_DRIVE, 5)} 721.5377",  # a .png in the list, a .jpg on disk
        f"{image_name(TRAIN_DRIVE, 6, 'image_03', '.jpg')} {depth_name(TRAIN_DRIVE, 6, 'image_03')} 721.5377",  # the reverse
        f"{image_name(TEST_DRIVE, 69)} None 721.5377",
        f"{image_name(TEST_DRIVE, 7)} {depth_name(TEST_DRIVE, 7)} 721.5377",
    ]
    (tree / "eigen_test_files_with_gt.txt").write_text("\n".join(lines))
    data = KITTI(tree)
    assert len(data) == 3 and data.without_depth == 1
    assert [sample.depth.max().item() for sample in data] == [7, 7, 7]
    (tree / "mine.txt").write_text(f"{image_name(TEST_DRIVE, 8)} {depth_name(TEST_DRIVE, 8)} 721.5377\n")
    assert "2 of 2 files are not in" in message(lambda: KITTI(tree, "test", tree / "mine.txt"))
    (tree / "mine.txt").write_text("a.png None 721.5377\n")
    assert "no pairs" in message(lambda: KITTI(tree, "test", tree / "mine.txt"))


@pytest.mark.parametrize("folder", [".", "train_test_inputs"])
@pytest.mark.parametrize(
    "name", ["kitti_eigen_{}_files_with_gt.txt", "kitti_eigen_{}_files_with_gt_shuffled.txt", "eigen_{}_files_with_gt.txt"]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_published_lists_are_found_by_their_names(tmp_path, split, name, folder):
    for frame in (5, 6):
        write_pair(tmp_path / "raw", tmp_path / "data_depth_annotated/train", TRAIN_DRIVE, frame, size=(4, 5))
        write_pair(tmp_path / "raw", tmp_path / "data_depth_annotated/val", TEST_DRIVE, frame, size=(4, 5))
    assert len(KITTI(tmp_path, split)) == 2
    [warning] = KITTI(tmp_path, split).warnings
    assert f"no list: '{split}' is the 2 pairs found" in warning and {"train": "23,158", "test": "652"}[split] in warning
    drive = TRAIN_DRIVE if split == "train" else TEST_DRIVE
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / name.format(split)).write_text(f"{image_name(drive, 5)} {depth_name(drive, 5)} 721.5377\n")
    listed = KITTI(tmp_path, split)
    assert len(listed) == 1 and not listed.warnings and name.format(split) in listed.notes[0]


def test_absolute_paths_in_lists(tmp_path):
    write_pair(tmp_path / "elsewhere", tmp_path / "depths", TEST_DRIVE, 7, size=(4, 5))
    (tmp_path / "root").mkdir()
    image, depth = tmp_path / "elsewhere" / image_name(TEST_DRIVE, 7), tmp_path / "depths" / depth_name(TEST_DRIVE, 7)
    (tmp_path / "list.txt").write_text(f"{image} {depth} 721\n")
    assert KITTI(tmp_path / "root", "test", tmp_path / "list.txt").pairs == [(image, depth)]


def test_nothing_of_a_tree_is_left_out_in_silence(tmp_path):
    """Capital endings, hidden files, linked drives, depth without image."""
    raw, annotated = tmp_path / "raw", tmp_path / "data_depth_annotated"
    write_pair(raw, annotated, TEST_DRIVE, 5, size=(4, 5), suffix=".JPG")
    write_pair(raw, tmp_path / "elsewhere", TEST_DRIVE.replace("0002", "0009"), 6, size=(4, 5))
    (annotated / TEST_DRIVE.replace("0002", "0009")).symlink_to(tmp_path / "elsewhere" / TEST_DRIVE.replace("0002", "0009"))
    first = annotated / depth_name(TEST_DRIVE, 5)
    first.with_name("._0000000005.png").write_bytes(b"\0\5\x16\7")
    first.with_name("0000000008.png").write_bytes(first.read_bytes())
    first.rename(first.with_suffix(".PNG"))
    data = KITTI(tmp_path, "test")
    assert [Path(name).name for name in data.names] == ["0000000005.JPG", "0000000006.png"]
    assert "1 depth maps have no image and are left out" in data.notes[0] and "0000000008.png" in data.notes[0]


def test_empty_splits_say_what_there_is(tmp_path, message):
    assert "no raw/<date>" in message(lambda: KITTI(tmp_path, "train"))
    write_pair(tmp_path / "raw", tmp_path / "data_depth_annotated", TRAIN_DRIVE, 5)
    text = message(lambda: KITTI(tmp_path, "test"))
    assert "only 1 pairs of 'train'" in text and "BTS and AdaBins" in text


def test_benchmark_crop(tmp_path, message):
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    save(tmp_path / image_name(TEST_DRIVE, 1), np.stack([rows % 256, columns % 256, rows * 0], -1).astype(np.uint8))
    save(tmp_path / depth_name(TEST_DRIVE, 1), (1 + rows * 100 + columns % 100).astype(np.uint16))
    data = KITTI(tmp_path)
    rgb, depth = data.read(0)
    assert data.image_size(0) == (352, 1216) == depth.shape
    kept = np.s_[23:375, 13 : 13 + 1216]
    assert np.array_equal(rgb[..., 1], columns[kept] % 256)
    assert np.array_equal(depth, (1 + rows * 100 + columns % 100)[kept] / np.float32(256))
    assert KITTI(tmp_path, augment=True)[0].image.shape == (3, 352, 704)
    write_pair(tmp_path, tmp_path, TEST_DRIVE, 2, size=(340, 1242))
    assert "340x1242, smaller than kitti's fixed crop 352x1216" in message(lambda: KITTI(tmp_path)[1])


@needs_data
def test_real_frames_give_the_released_figures():
    runs = json.loads((REFERENCE / "evaluation.json").read_text())["runs"]
    run = next(run for run in runs if run["config"]["dataset"] == "kitti")
    data = KITTI(SHARED / "data/kitti", "train")
    assert len(data) == run["images"] == 12
    for sample, (image_shape, mean, std, depth_shape, largest, positive) in (
        (data[0], run["first_sample"]),
        (data[-1], run["last_sample"]),
    ):
        assert [1, *sample.image.shape] == image_shape and [1, *sample.depth.shape] == depth_shape
        assert sample.image.double().mean().item() == pytest.approx(mean, abs=1e-5)
        assert sample.image.double().std(correction=0).item() == pytest.approx(std, abs=1e-5)
        assert sample.depth.max().item() == pytest.approx(largest, rel=1e-6) and int((sample.depth > 0).sum()) == positive
