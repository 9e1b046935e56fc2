"""Plain folders: layouts, units, and a split that is never made up."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from depthtokens.data import open_dataset
from depthtokens.data.folder import Folder
from depthtokens.errors import DepthTokensError, UsageError


def write(root, stem, depth=".npy", image=".jpg", size=(12, 16), metres=2.5, scale=1000):
    for folder in ("images", "depth"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(root / "images" / f"{stem}{image}")
    target = root / "depth" / f"{stem}{depth}"
    if depth == ".npy":
        np.save(target, np.full(size, metres))
    elif depth == ".npz":
        np.savez(target, np.full(size, metres))
    else:
        Image.fromarray(np.full(size, metres * scale, np.uint16)).save(target)


@pytest.mark.parametrize("image", [".jpg", ".png", ".tiff", ".JPEG"])
@pytest.mark.parametrize("depth", [".npy", ".npz", ".png"])
def test_split_folders(tmp_path, image, depth):
    for split, stem in (("train", "a"), ("train", "b"), ("test", "c")):
        write(tmp_path / split, stem, depth, image)
    options = {"depth_scale": 1000} if depth == ".png" else {}
    train, test, everything = (Folder(tmp_path, split, **options) for split in ("train", "test", "all"))
    assert train.names == [f"train/images/a{image}", f"train/images/b{image}"] and test.names == [f"test/images/c{image}"]
    assert everything.names == train.names + test.names
    assert (test[0].depth == 2.5).all() and test[0].image.shape == (3, 12, 16)
    assert (test.name, test.eval_crop, test.depth_range) == ("folder", None, (0.001, 10.0))


def test_lists(tmp_path, message):
    for stem in "abc":
        write(tmp_path, stem)
    (tmp_path / "train.csv").write_text("image,depth\nimages/a.jpg,depth/b.npy\n")
    (tmp_path / "test.csv").write_text("image, depth\nimages/c.jpg, depth/c.npy\n")
    assert Folder(tmp_path, "train").names == ["images/a.jpg"] and Folder(tmp_path, "train").pairs[0][1].name == "b.npy"
    assert Folder(tmp_path, "test").names == ["images/c.jpg"] and len(Folder(tmp_path, "all")) == 2
    assert Folder(tmp_path, "train", tmp_path / "test.csv").names == ["images/c.jpg"]
    (tmp_path / "test.csv").write_text("images/c.jpg,depth/c.npy\n")
    assert "header image,depth" in message(lambda: Folder(tmp_path, "test"))
    (tmp_path / "test.csv").write_text("image,depth\nimages/c.jpg\n")
    assert "header image,depth" in message(lambda: Folder(tmp_path, "test"))
    (tmp_path / "test.csv").write_text("image,depth\nimages/z.jpg,depth/c.npy\n")
    assert "1 of 2 files are not in" in message(lambda: Folder(tmp_path, "test"))


def test_train_is_never_test_unasked(tmp_path, message):
    write(tmp_path, "a")
    for split in ("train", "test"):
        assert f"add {split}.csv (header image,depth)" in message(lambda split=split: Folder(tmp_path, split))
    assert len(Folder(tmp_path, "all")) == 1
    assert "no test/images" in message(lambda: Folder(tmp_path / "depth"))


def test_every_image_needs_one_depth_map(tmp_path, message):
    write(tmp_path, "a")
    write(tmp_path, "b")
    (tmp_path / "depth/b.npy").unlink()
    assert "1 of 4 files are not in" in message(lambda: Folder(tmp_path, "all"))
    assert len(Folder(tmp_path, "all", allow_missing=True)) == 2
    write(tmp_path, "b")
    write(tmp_path, "b", ".png")
    assert "two depth maps for one image" in message(lambda: Folder(tmp_path, "all", depth_scale=1000))
    (tmp_path / "depth/b.png").unlink()
    (tmp_path / "depth/b.npy").rename(tmp_path / "depth/b.exr")
    assert "OpenEXR is not supported" in message(lambda: Folder(tmp_path, "all")[1])


def test_png_needs_a_scale(tmp_path, message):
    write(tmp_path, "a", ".png")
    assert "state --depth-scale (1000 for millimetres, 256 for KITTI's)" in message(lambda: Folder(tmp_path, "all"), UsageError)
    assert (Folder(tmp_path, "all", depth_scale=100, depth_range=(1, 30))[0].depth == 25).all()
    Image.fromarray(np.full((12, 16), 50, np.uint8)).save(tmp_path / "depth/a.png")
    assert (Folder(tmp_path, "all", depth_scale=10)[0].depth == 5).all(), "8 bits are read at a stated scale"


def test_settings_file(tmp_path, message):
    write(tmp_path, "a", ".png")
    settings = tmp_path / "depthtokens.json"
    settings.write_text(json.dumps({"depth_scale": 1000, "depth_range": [0.5, 20]}))
    data = Folder(tmp_path, "all")
    assert data.depth_range == (0.5, 20) and (data[0].depth == 2.5).all()
    data = Folder(tmp_path, "all", depth_scale=500, depth_range=(1, 8))
    assert data.depth_range == (1, 8) and (data[0].depth == 5).all()
    hostile = (f'{{"depth_scale": 1{"0" * 400}}}', "[" * 100_000)
    for text in (
        "{",
        "[1]",
        '{"depth_scale": true}',
        '{"depth_range": 3}',
        '{"depth_scale": "much"}',
        '{"depth_range": [1, 2, 3]}',
        *hostile,
    ):
        settings.write_text(text)
        assert "should be like" in message(lambda: Folder(tmp_path, "all"))
    settings.write_text('{"depth_range": [3, 1]}')
    message(lambda: Folder(tmp_path, "all", depth_scale=1), DepthTokensError)


def test_training_views(tmp_path):
    write(tmp_path / "train", "a")
    assert open_dataset(f"folder:{tmp_path}", augment=True)[0].image.shape == (3, 12, 16), "whole images unless a crop is asked for"
    data = open_dataset(f"folder:{tmp_path}", augment=True, crop=(8, 8), depth_scale=2, depth_range=(1, 5))
    assert data[0].image.shape == (3, 8, 8) and data.depth_range == (1, 5) and data[0].depth.max() == 1.25


def test_truth_outside_the_range_is_none(tmp_path):
    """65535 for missing, or other units: in training as in evaluation."""
    write(tmp_path, "a", ".png")
    stored = np.full((12, 16), 2500, np.uint16)
    stored[0], stored[1], stored[2], stored[3] = 65535, 10_000, 500, 10_001
    Image.fromarray(stored).save(tmp_path / "depth/a.png")
    data = Folder(tmp_path, "all", depth_scale=1000, depth_range=(0.5, 10))
    assert data[0].depth[0, :, 0].tolist() == [0, 10, 0, 0] + [2.5] * 8, "as evaluation counts: lo < depth <= hi"
    assert data.truth(0)[0, 0] == np.float32(65.535)


def test_spellings_endings_and_hidden_files(tmp_path):
    """Photos from a camera and a Mac: .JPG, decomposed accents, companion files."""
    nfc, nfd = "Küche", unicodedata.normalize("NFD", "Küche")
    write(tmp_path / "test", nfc, ".npy", ".JPG")
    (tmp_path / f"test/depth/{nfc}.npy").rename(tmp_path / f"test/depth/{nfd}.NPY")
    for name in ("images/._a.JPG", "depth/._a.npy", "images/.DS_Store"):
        (tmp_path / "test" / name).write_bytes(b"\0\5\x16\7")
    data = Folder(tmp_path)
    assert len(data) == 1 and (data[0].depth == 2.5).all() and data.notes == data.warnings == []


def test_lists_as_people_write_them(tmp_path):
    nfd = unicodedata.normalize("NFD", "Küche")
    write(tmp_path, nfd)
    write(tmp_path, "b")
    names = [(f"images/Küche.jpg{sep}depth/Küche.npy", f"images\\b.JPG{sep}{tmp_path / 'depth/b.npy'}") for sep in ",;"]
    for content in ("image,depth\n{}\n{}\n".format(*names[0]).encode("utf-16"), "Image; Depth\r\n{}\r\n{}\r\n".format(*names[1]).encode()):
        (tmp_path / "test.csv").write_bytes(content)
        data = Folder(tmp_path)
        assert len(data) == 2 and (data[1].depth == 2.5).all()


def test_subfolders_and_linked_folders(tmp_path):
    for scene in ("a", "b"):
        write(tmp_path / "train", "x")
        for part in ("images", "depth"):
            (tmp_path / "train" / part / scene).mkdir()
            for file in list((tmp_path / "train" / part).glob("x.*")):
                file.rename(file.parent / scene / file.name)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    (tmp_path / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/images/b/round").symlink_to(tmp_path / "elsewhere/images")
    assert Folder(tmp_path, "train").names == ["train/images/a/x.jpg", "train/images/b/x.jpg"]


def test_what_is_left_out_is_counted(tmp_path):
    write(tmp_path, "a")
    for name in ("images/IMG_1.HEIC", "images/IMG_2.dng"):
        (tmp_path / name).write_bytes(b"")
    np.save(tmp_path / "depth/alone.npy", np.ones((2, 2)))
    data = Folder(tmp_path, "all")
    assert data.notes == ["1 depth maps have no image and are left out: depth/alone.npy"]
    found = (
        "2 photos are of formats that cannot be read (convert them to JPEG or PNG) and are left out: images/IMG_1.HEIC, images/IMG_2.dng"
    )
    assert data.warnings == [found]


def test_diode_names(tmp_path, message):
    """x.png with x_depth.npy [H, W, 1] and x_depth_mask.npy."""
    write(tmp_path, "x")
    (tmp_path / "depth/x.npy").unlink()
    np.save(tmp_path / "depth/x_depth.npy", np.full((12, 16, 1), 3.0))
    mask = np.ones((12, 16))
    mask[:6] = 0
    np.save(tmp_path / "depth/x_depth_mask.npy", mask)
    data = Folder(tmp_path, "all")
    assert data[0].depth[0, :, 0].tolist() == [0] * 6 + [3] * 6 and data.notes == []
    before = data.fingerprint()
    np.save(tmp_path / "depth/x_depth_mask.npy", 1 - mask)
    assert data.fingerprint() != before
    (tmp_path / "depth/x_depth.json").write_text("{}")  # beside a depth map, anything may lie
    assert (Folder(tmp_path, "all")[0].depth[0, :, 0] == 3).sum() == 6


def test_scales_of_nought_are_refused(tmp_path, message):
    write(tmp_path, "a", ".png")
    assert "depth scale 0" in message(lambda: open_dataset(f"folder:{tmp_path}", "all", depth_scale=0), UsageError)
    (tmp_path / "depthtokens.json").write_text('{"depth_scale": 0}')
    assert "depth scale 0" in message(lambda: Folder(tmp_path, "all"), UsageError)


def test_names_that_are_too_long(tmp_path, message):
    write(tmp_path, "a")
    (tmp_path / "test.csv").write_text(f"image,depth\nimages/a.jpg,depth/{'n' * 300}.npy\n")
    assert "1 of 2 files are not in" in message(lambda: Folder(tmp_path))
    assert "no folder" in message(lambda: Folder(tmp_path / ("n" * 300)))
    assert "does not say which data set it is" in message(lambda: open_dataset("n" * 300), UsageError)
