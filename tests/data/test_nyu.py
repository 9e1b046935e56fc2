"""NYUv2: which pairs a split is, from lists, from the tree and from the official .mat file; and the figures of the released code."""

import json
import multiprocessing
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens.data import open_dataset
from depthtokens.data.nyu import NYUv2
from depthtokens.errors import DataError, UsageError
from helpers import REFERENCE, SHARED, needs_data


def write_pair(folder, number, value=2000, suffix=".jpg", size=(480, 640)):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(folder / f"rgb_{number}{suffix}")
    Image.fromarray(np.full(size, value, np.uint16)).save(folder / f"sync_depth_{number}.png")


@pytest.fixture
def tree(tmp_path):
    """Two training pairs and one test pair, and a training image whose depth is not there."""
    write_pair(tmp_path / "sync/bath", "00001")
    write_pair(tmp_path / "sync/attic", "00002", suffix=".png")
    write_pair(tmp_path / "sync/bath", "00009")
    (tmp_path / "sync/bath/sync_depth_00009.png").unlink()
    write_pair(tmp_path / "official_splits/test/kitchen", "00000", value=3000)
    return tmp_path


def test_split_from_the_tree(tree):
    train, test, everything = (NYUv2(tree, split) for split in ("train", "test", "all"))
    assert train.names == ["sync/attic/rgb_00002.png", "sync/bath/rgb_00001.jpg"]
    assert test.names == ["official_splits/test/kitchen/rgb_00000.jpg"]
    assert sorted(everything.names) == sorted(train.names + test.names)
    assert (test.name, test.split, test.eval_crop, test.depth_range, test.augment) == ("nyu", "test", "eigen", (0.001, 10.0), None)
    image, depth, _ = test[0]
    assert image.shape == (3, 480, 640) and (depth == 3).all()


def test_lists_go_before_the_tree(tree, message):
    (tree / "nyudepthv2_train_files_with_gt.txt").write_text("/bath/rgb_00001.jpg /bath/sync_depth_00001.png 518.8579\n")
    assert NYUv2(tree, "train").names == ["sync/bath/rgb_00001.jpg"]
    own = tree / "mine.txt"
    own.write_text("sync/attic/rgb_00002.png sync/attic/sync_depth_00002.png\n")
    assert NYUv2(tree, "test", own).names == ["sync/attic/rgb_00002.png"], "names relative to ROOT work too"
    own.write_text("kitchen/rgb_00000.jpg kitchen/sync_depth_00000.png\nbath/rgb_00001.jpg bath/sync_depth_00001.png\n")
    assert len(NYUv2(tree, "all", own)) == 2
    assert "2 of 4 files are not in" in message(lambda: NYUv2(tree, "test", own))
    assert len(NYUv2(tree, "test", own, allow_missing=True).missing()) == 2


def test_train_is_never_test_unasked(tmp_path, message):
    write_pair(tmp_path / "kitchen", "00000")
    for split in ("train", "test"):
        text = message(lambda split=split: NYUv2(tmp_path, split))
        assert "split 'all'" in text and "--list-file" in text
    assert len(NYUv2(tmp_path, "all")) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no list, and no rgb_X.jpg" in message(lambda: NYUv2(empty, "all"))


def test_training_views(tree, message):
    data = open_dataset(f"nyu:{tree}", "train", augment=True)
    assert data[0].image.shape == (3, 416, 544) and data[0].depth.shape == (1, 416, 544)
    assert data.image_size(0) == (480, 640) and NYUv2(tree, "train")[0].image.shape == (3, 480, 640)
    assert NYUv2(tree, "train", augment=True, crop=(224, 320))[0].image.shape == (3, 224, 320)
    assert "smaller than the training crop 480x640" in message(lambda: NYUv2(tree, "train", augment=True, crop=(480, 640))[0])


@pytest.fixture
def mat(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the .mat file needs h5py")
    rng = np.random.default_rng(0)
    rgb, metres = rng.integers(0, 256, (5, 48, 64, 3), dtype=np.uint8), rng.random((5, 48, 64), dtype=np.float32) * 9
    metres[2, 0, 0], metres[:, 3, 4] = np.nan, 0
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    with h5py.File(path, "w") as file:
        file["images"], file["rawDepths"] = rgb.transpose(0, 3, 2, 1), metres.transpose(0, 2, 1)
        file["depths"] = np.where(metres < 4, 4, metres).transpose(0, 2, 1)
    framed = np.zeros_like(rgb)
    framed[:, 7:, 7:] = rgb[:, 7:, 7:]
    return path, framed, metres


def test_labelled_mat_file(mat):
    path, rgb, metres = mat
    data = NYUv2(path, "all")
    assert data.names == ["00000", "00001", "00002", "00003", "00004"] and data.image_size(0) == (48, 64)
    for i in range(5):
        image, depth = data.read(i)
        assert np.array_equal(image, rgb[i]) and np.array_equal(depth, np.nan_to_num(metres[i])) and depth.dtype == np.float32
    here = [data[i].image for i in range(5)]
    for method in {"fork", "spawn"} & set(multiprocessing.get_all_start_methods()):
        loader = torch.utils.data.DataLoader(data, batch_size=5, num_workers=1, multiprocessing_context=method)
        assert torch.equal(next(iter(loader)).image, torch.stack(here))


def test_labelled_mat_file_gives_what_the_sensor_saw(mat, message):
    """The 654 published test images are made of rawDepths, and their white frame is black."""
    path = mat[0]
    raw, filled = NYUv2(path, "all"), open_dataset(f"nyu:{path}", "all", nyu_depth="filled")
    assert raw.truth(1)[3, 4] == 0 and filled.truth(1)[3, 4] == 4 == filled.truth(1).min()
    assert (raw.in_painted, filled.in_painted) == (False, True) and not raw.read(0)[0][:7].any() and not filled.read(0)[0][:, :7].any()
    assert "rawDepths" in raw.notes[0] and "in-painted" in filled.notes[0]
    assert raw.fingerprint() != filled.fingerprint()
    assert (raw.options, filled.options) == ({}, {"nyu_depth": "filled"})
    for data in (raw, filled):  # what a store states is opened again as it was
        stated = {"spec": data.spec, "name": "nyu", "split": "all", "list_file": None, "fingerprint": data.fingerprint()}
        stated |= {"depth_range": (0.001, 10), "depth_scale": 1000} | ({"options": data.options} if data.options else {})
        assert NYUv2.unchanged(stated, 5) == "unchanged"
    assert "unknown --nyu-depth 'fild': did you mean 'filled'?" in message(lambda: NYUv2(path, "all", nyu_depth="fild"), UsageError)


def test_labelled_mat_file_frame_of_real_size(tmp_path):
    h5py = pytest.importorskip("h5py", reason="the .mat file needs h5py")
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["images"] = np.full((1, 3, 640, 480), 255, np.uint8)
        file["rawDepths"] = np.ones((1, 640, 480), np.float32)
    [rows, columns] = np.nonzero(NYUv2(tmp_path / "a.mat", "all").read(0)[0][..., 0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (7, 474, 7, 632)


def test_edits_of_the_mat_are_noticed(mat):
    import h5py

    path = mat[0]
    data = NYUv2(path, "all")
    before, size = data.fingerprint(), path.stat().st_size
    with h5py.File(path, "r+") as file:
        file["rawDepths"][2, 30, 30] = 9.5
    assert path.stat().st_size == size and data.fingerprint() != before


def test_nyu_depth_is_for_the_mat_only(tree, mat, message):
    import h5py

    for spec in (f"kitti:{tree}", f"folder:{tree}", "scenes"):
        found = message(lambda spec=spec: open_dataset(spec, "test", nyu_depth="raw"), UsageError)
        assert found.startswith("--nyu-depth is for nyu:FILE.mat only")
    assert "is for nyu:FILE.mat only" in message(lambda: NYUv2(tree, nyu_depth="filled"), UsageError)
    with h5py.File(mat[0], "r+") as file:
        del file["rawDepths"]
    assert "in-painted depths are read with --nyu-depth filled" in message(lambda: NYUv2(mat[0], "all"))


def test_splits_from_the_tree_say_so(tree):
    [warning] = NYUv2(tree, "train").warnings
    assert "no list: 'train' is the 2 pairs found" in warning and "24,231: put nyudepthv2_train_files_with_gt.txt" in warning
    assert "654" in NYUv2(tree, "test").warnings[0] and not NYUv2(tree, "all").warnings
    assert "1 files have no partner beside them and are left out: sync/bath/rgb_00009.jpg" in NYUv2(tree, "train").notes[0]
    (tree / "nyu_train.txt").write_text("bath/rgb_00001.jpg bath/sync_depth_00001.png\n")
    listed = NYUv2(tree, "train")
    assert not listed.warnings and listed.notes == [f"pairs listed in {tree / 'nyu_train.txt'}"]


def test_nothing_of_a_tree_is_left_out_in_silence(tmp_path):
    """Capital endings, linked scenes (also in a circle), a Mac's companion files, photos of unreadable formats."""
    write_pair(tmp_path / "sync/bath", "1")
    write_pair(tmp_path / "sync/bath", "2", suffix=".JPG")
    write_pair(tmp_path / "sync/bath", "3", suffix=".jpeg")
    (tmp_path / "sync/bath/sync_depth_3.png").rename(tmp_path / "sync/bath/sync_depth_3.PNG")
    write_pair(tmp_path / "elsewhere/hall", "4")
    (tmp_path / "sync/hall").symlink_to(tmp_path / "elsewhere/hall")
    (tmp_path / "sync/again").symlink_to(tmp_path / "elsewhere/hall")
    (tmp_path / "sync/bath/round").symlink_to(tmp_path / "sync")
    for name in ("._rgb_1.jpg", "._sync_depth_1.png"):
        (tmp_path / "sync/bath" / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "sync/bath/rgb_5.HEIC").write_bytes(b"")
    data = NYUv2(tmp_path, "train")
    assert [name.removeprefix("sync/") for name in data.names] == ["again/rgb_4.jpg", "bath/rgb_1.jpg", "bath/rgb_2.JPG", "bath/rgb_3.jpeg"]
    assert (
        "1 photos are of formats that cannot be read (convert them to JPEG or PNG) and are left out: sync/bath/rgb_5.HEIC" in data.warnings
    )


def test_labelled_mat_file_is_split_by_splits_mat(mat, message):
    path, rgb, _ = mat
    assert "splits.mat" in message(lambda: NYUv2(path, "test"))
    scipy_io = pytest.importorskip("scipy.io", reason="splits.mat needs scipy")
    for target in (path.with_name("splits.mat"), path.with_name("other.mat")):
        scipy_io.savemat(target, {"trainNdxs": [[1], [4]], "testNdxs": [[2], [3], [5]]})
    test = NYUv2(path, "test")
    assert test.names == ["00001", "00002", "00004"] and np.array_equal(test.read(2)[0], rgb[4])
    assert NYUv2(path, "train", path.with_name("other.mat")).names == ["00000", "00003"]
    scipy_io.savemat(path.with_name("splits.mat"), {"testNdxs": [[6]]})
    assert "beyond the 5" in message(lambda: NYUv2(path, "test"))
    assert "has no trainNdxs" in message(lambda: NYUv2(path, "train"))
    path.with_name("splits.mat").write_text("hello")
    assert "is it splits.mat?" in message(lambda: NYUv2(path, "test"))


def test_other_files_than_the_mat(mat, tmp_path, message):
    text = tmp_path / "text.mat"
    text.write_text("hello")
    assert "HDF5 cannot open it" in message(lambda: NYUv2(text, "all"))
    import h5py

    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = np.zeros((2, 3))
    assert "has no arrays images" in message(lambda: NYUv2(tmp_path / "other.mat", "all"))


def test_splits_that_are_no_numbers(mat, message):
    scipy_io = pytest.importorskip("scipy.io", reason="scipy writes the file")
    for numbers in ([[np.nan]], [[np.inf]], [[1e300]], [[-1]], [[0]], [["a"]], [[1j]], np.eye(2)):
        scipy_io.savemat(mat[0].with_name("splits.mat"), {"testNdxs": numbers})
        assert "splits.mat" in message(lambda: NYUv2(mat[0], "test"))


def test_arrays_that_lie_elsewhere(mat, tmp_path, message):
    """HDF5 follows links to other files, takes numbers from any file, and unpacks pieces of any size."""
    import h5py

    path, elsewhere = tmp_path / "a.mat", tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(48 * 64 * 5 * 4))
    layout = h5py.VirtualLayout((5, 64, 48), "f4")
    layout[:] = h5py.VirtualSource(mat[0], "rawDepths", (5, 64, 48))
    for put in (
        lambda file: file.update({"rawDepths": h5py.ExternalLink(mat[0], "rawDepths")}),
        lambda file: file.update({"rawDepths": h5py.SoftLink("/images")}),
        lambda file: file.create_dataset("rawDepths", (5, 64, 48), "f4", external=[(elsewhere, 0, h5py.h5f.UNLIMITED)]),
        lambda file: file.create_virtual_dataset("rawDepths", layout),
        lambda file: file.create_dataset("rawDepths", (5, 64, 48), h5py.string_dtype()),
        lambda file: file.create_dataset("rawDepths", (5, 64, 48), "f4", maxshape=(None,) * 3, chunks=(10**3, 640, 480)),
        lambda file: file.create_group("rawDepths"),
    ):  # fmt: skip
        with h5py.File(path, "w") as file:
            file["images"] = np.zeros((5, 3, 64, 48), np.uint8)
            put(file)
        assert "has no arrays images" in message(lambda: NYUv2(path, "all"))


def test_arrays_that_claim_too_much(tmp_path, message):
    h5py = pytest.importorskip("h5py", reason="the .mat file needs h5py")
    for count, width, height in ((10**12, 64, 48), (2, 10**5, 10**5)):
        with h5py.File(tmp_path / "a.mat", "w") as file:
            file.create_dataset("images", (count, 3, width, height), "u1", chunks=(1, 3, 64, 48))
            file.create_dataset("rawDepths", (count, width, height), "f4", chunks=(1, 64, 48))
        assert "a.mat" in message(lambda: NYUv2(tmp_path / "a.mat", "all"))


def test_mutated_mat_files(tmp_path):
    """One line or arrays, whatever a byte of HDF5's structures becomes."""
    h5py = pytest.importorskip("h5py", reason="the .mat file needs h5py")
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["images"] = np.ones((2, 3, 16, 12), np.uint8)
        file.create_dataset("rawDepths", data=np.ones((2, 16, 12), np.float32), chunks=(1, 16, 12), compression="gzip")
    whole, draw = (tmp_path / "a.mat").read_bytes(), random.Random(0)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(draw.choice([1, 1, 4])):
            content[draw.randrange(512, len(content))] = draw.choice([0, 255, draw.randrange(256)])
        (tmp_path / "m.mat").write_bytes(content)
        try:
            data = NYUv2(tmp_path / "m.mat", "all")
            image, depth = data.read(0)
            assert image.shape[:2] == depth.shape == data.image_size(0)
        except DataError as error:
            assert "\n" not in str(error)


def test_missing_parts_say_what_to_install(mat, monkeypatch, message):
    path = mat[0]
    path.with_name("splits.mat").write_text("")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install 'depthtokens[h5]'" in message(lambda: NYUv2(path, "test"))


@needs_data
def test_real_tree(tmp_path):
    subprocess.run([sys.executable, SHARED / "data/make_nyu_tree.py", tmp_path, "--limit", "3"], check=True, capture_output=True)
    listed = {split: NYUv2(tmp_path, split) for split in ("train", "test")}
    assert [len(data) for data in listed.values()] == [3, 3]
    for split, data in listed.items():
        (tmp_path / f"nyu_{split}.txt").unlink()
        assert sorted(NYUv2(tmp_path, split).names) == sorted(data.names), "the rule for trees finds what the list names"
    image, depth, _ = listed["test"][0]
    assert image.shape == (3, 480, 640) and 0.5 < depth.median() < 6 and depth.max() <= 10


@needs_data
def test_real_sync_pairs_give_the_released_figures():
    runs = json.loads((REFERENCE / "evaluation.json").read_text())["runs"]
    run = next(run for run in runs if run["config"]["dataset"] == "nyu")
    data = NYUv2(SHARED / "data/nyuv2_sync", "all")
    assert len(data) == run["images"]
    for sample, (image_shape, mean, std, depth_shape, largest, positive) in (
        (data[0], run["first_sample"]),
        (data[-1], run["last_sample"]),
    ):
        assert [1, *sample.image.shape] == image_shape and [1, *sample.depth.shape] == depth_shape
        assert sample.image.double().mean().item() == pytest.approx(mean, abs=1e-5)
        assert sample.image.double().std(correction=0).item() == pytest.approx(std, abs=1e-5)
        assert sample.depth.max().item() == pytest.approx(largest, rel=1e-6) and int((sample.depth > 0).sum()) == positive
