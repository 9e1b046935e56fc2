"""The data set all readers share: what it hands out, and one line for each bad file."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from depthtokens.data import open_dataset
from depthtokens.data.augment import Augmentation
from depthtokens.data.dataset import DepthDataset, read_depth, read_image, read_list
from depthtokens.data.sample import IMAGENET_MEAN, IMAGENET_STD
from depthtokens.errors import DataError, UsageError

VIEWS = Augmentation(pre_crop=None, degrees=2.5, crop=(16, 24), brightness=(0.75, 1.25))


def write_pairs(folder, count=3, size=(24, 32), seed=0):
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        image, depth = folder / f"{i}.png", folder / f"{i}_depth.png"
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
        Image.fromarray(rng.integers(0, 9000, size).astype(np.uint16)).save(depth)
        pairs.append((image, depth))
    return pairs


def dataset(pairs, **options):
    root = pairs[0][0].parent if pairs else None
    defaults = {"name": "folder", "split": "all", "root": root, "depth_range": (0.001, 10.0), "depth_scale": 1000}
    return DepthDataset(pairs, **(defaults | options))


def message(action):
    with pytest.raises((DataError, UsageError)) as caught:
        action()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_sample_is_normalised_image_and_metres(tmp_path):
    pairs = write_pairs(tmp_path)
    data = dataset(pairs)
    image, depth, index = data[1]
    assert (image.shape, image.dtype, depth.shape, depth.dtype, index) == ((3, 24, 32), torch.float32, (1, 24, 32), torch.float32, 1)
    rgb = np.asarray(Image.open(pairs[1][0])) / 255
    np.testing.assert_allclose(image.permute(1, 2, 0).numpy(), (rgb - IMAGENET_MEAN) / IMAGENET_STD, atol=1e-6)
    np.testing.assert_allclose(depth[0].numpy(), np.asarray(Image.open(pairs[1][1])) / 1000, atol=1e-6)
    assert data.names == ["0.png", "1.png", "2.png"] and data.image_size(0) == (24, 32)
    assert data[-1].index == 2
    assert [sample.index for sample in data] == [0, 1, 2], "iteration ends"


def test_fixed_crop_is_at_the_bottom_and_centred(tmp_path):
    pairs = write_pairs(tmp_path, size=(24, 35))
    whole, cut = dataset(pairs), dataset(pairs, fixed_crop=(10, 20))
    assert cut.image_size(0) == (10, 20)
    for a, b in zip(cut.read(0), whole.read(0), strict=True):
        assert np.array_equal(a, b[14:, 7:27])
    text = message(lambda: dataset(pairs, fixed_crop=(25, 20)).read(0))
    assert "0.png is 24x35, smaller than folder's fixed crop 25x20" in text
    assert "24x35" in message(lambda: dataset(pairs, fixed_crop=(25, 20)).image_size(0))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_views_depend_on_seed_epoch_and_index_only(tmp_path_factory, seed, epoch):
    folder = tmp_path_factory.getbasetemp() / "views"
    if not folder.is_dir():
        folder.mkdir()
        write_pairs(folder)
    pairs = [(folder / f"{i}.png", folder / f"{i}_depth.png") for i in range(3)]
    first, second = dataset(pairs, augment=VIEWS, seed=seed), dataset(pairs, augment=VIEWS, seed=seed)
    first.epoch = second.epoch = epoch
    second[0], second[2]  # other reads in between change nothing
    a, b = first[1], second[1]
    assert torch.equal(a.image, b.image) and torch.equal(a.depth, b.depth)
    second.epoch = epoch + 1
    assert not torch.equal(a.image, second[1].image)


def test_workers_see_the_same_views(tmp_path):
    data = dataset(write_pairs(tmp_path), augment=VIEWS)
    data.epoch = 5
    here = [data[i].image for i in range(3)]
    for batch in DataLoader(data, batch_size=3, num_workers=2):
        assert torch.equal(batch.image, torch.stack(here)) and batch.depth.shape == (3, 1, 16, 24) and batch.index.tolist() == [0, 1, 2]
    assert torch.equal(pickle.loads(pickle.dumps(data))[2].image, here[2])


def test_too_large_crop_names_the_image_and_the_option(tmp_path):
    data = dataset(write_pairs(tmp_path), augment=VIEWS.with_crop((30, 40)))
    assert message(lambda: data[1]).startswith("1.png: the image is 24x32, smaller than the training crop 30x40: state a smaller --crop")


def test_depth_without_a_value_is_zero(tmp_path):
    values = np.array([[1.5, np.nan, np.inf], [-np.inf, -2.0, 0.0]])
    np.save(tmp_path / "d.npy", values)
    np.savez(tmp_path / "one.npz", values)
    np.savez(tmp_path / "named.npz", other=values * 2, depth=values)
    for name in ("d.npy", "one.npz", "named.npz"):
        assert read_depth(tmp_path / name).tolist() == [[1.5, 0, 0], [0, 0, 0]]
    np.save(tmp_path / "huge.npy", np.full((2, 2), 1e300))
    assert not read_depth(tmp_path / "huge.npy").any()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 65535), min_size=6, max_size=6), st.sampled_from([1000, 256, 5000]))
def test_16_bit_png_round_trip(tmp_path_factory, values, scale):
    path = tmp_path_factory.getbasetemp() / "round_trip.png"
    Image.fromarray(np.array(values, np.uint16).reshape(2, 3)).save(path)
    depth = read_depth(path, scale)
    assert depth.dtype == np.float32 and np.rint(depth.astype(np.float64) * scale).ravel().tolist() == values


def test_depth_files_that_are_none(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    Image.fromarray(colour).convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(colour[..., 0]).save(tmp_path / "grey.png")
    for name in ("colour.png", "alpha.png"):
        text = message(lambda name=name: read_depth(tmp_path / name, 1000))
        assert f"{name} is a colour image, not a 16-bit depth map" in text
    assert "grey.png is an 8-bit image" in message(lambda: read_depth(tmp_path / "grey.png", 1000))
    assert read_depth(tmp_path / "grey.png", 10, eight_bit=True).max() == np.float32(25.5)

    Image.fromarray(rng.integers(0, 9000, (64, 64)).astype(np.uint16)).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cannot read depth map" in message(lambda: read_depth(tmp_path / "cut.png", 1000))
    assert "no such file" in message(lambda: read_depth(tmp_path / "none.png", 1000))
    assert "OpenEXR is not supported: convert it to .npy" in message(lambda: read_depth(tmp_path / "a.exr"))
    assert "not from '.jpg'" in message(lambda: read_depth(tmp_path / "a.jpg"))

    np.save(tmp_path / "solid.npy", np.zeros((1, 2, 3)))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.save(tmp_path / "pickled.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    assert "found float64 [1, 2, 3]" in message(lambda: read_depth(tmp_path / "solid.npy"))
    assert "no depth map" in message(lambda: read_depth(tmp_path / "words.npy"))
    assert "holds 2 arrays and none is called 'depth'" in message(lambda: read_depth(tmp_path / "two.npz"))
    for name in ("pickled.npy", "text.npy", "text.npz", "cut.npz"):
        assert "cannot read depth map" in message(lambda name=name: read_depth(tmp_path / name))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own about damaged TIFF
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_damaged_images_give_one_line(tmp_path, suffix):
    rng = np.random.default_rng(1)
    good = tmp_path / f"good{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(good)
    whole = bytearray(good.read_bytes())
    bad = tmp_path / f"bad{suffix}"
    bad.write_bytes(whole[: len(whole) // 2])
    assert f"cannot read image {bad}: " in message(lambda: read_image(bad))
    for _ in range(60):  # whatever is broken, the only error is ours
        broken = whole.copy()
        for position in rng.integers(0, len(whole), 4) // rng.integers(1, 20):
            broken[position] = rng.integers(256)
        bad.write_bytes(broken[: rng.integers(1, len(whole))])
        try:
            read_image(bad)
        except DataError as error:
            assert "\n" not in str(error)


def test_images_that_are_none(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    Image.fromarray(np.full((4, 5), 4000, np.uint16)).save(tmp_path / "depth.png")
    assert message(lambda: read_image(tmp_path / "text.jpg")).endswith("it is not an image")
    assert message(lambda: read_image(tmp_path / "none.jpg")).endswith("no such file")
    assert "are image and depth swapped?" in message(lambda: read_image(tmp_path / "depth.png"))
    Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 5, 3)


def test_sizes_must_agree(tmp_path):
    pairs = write_pairs(tmp_path)
    Image.fromarray(np.ones((12, 16), np.uint16)).save(pairs[0][1])
    assert message(lambda: dataset(pairs)[0]) == "0.png is 24x32 but its depth map is 12x16: they must be of one size"


def test_missing_files_are_counted_and_named(tmp_path):
    pairs = write_pairs(tmp_path, count=5)
    for image, depth in pairs[1:]:
        image.unlink(), depth.unlink()
    text = message(lambda: dataset(pairs))
    assert text == f"8 of 10 files are not in {tmp_path}: 1.png, 1_depth.png, 2.png, ..."
    assert len(dataset(pairs, allow_missing=True)) == 5


def test_nonsense_arguments(tmp_path):
    pairs = write_pairs(tmp_path)
    assert "no pairs" in message(lambda: dataset([], root=tmp_path))
    for lo, hi in [(10, 0.001), (0, 10), (-1, 10), (1, float("nan"))]:
        assert "depth range" in message(lambda lo=lo, hi=hi: dataset(pairs, depth_range=(lo, hi)))
    assert "depth scale" in message(lambda: dataset(pairs, depth_scale=0))
    assert "seed -1" in message(lambda: dataset(pairs, seed=-1))


def test_lists(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("/kitchen/a.jpg /kitchen/a.png 518.8579\n\nb.jpg None\n")
    assert read_list(path) == [("kitchen/a.jpg", "kitchen/a.png"), ("b.jpg", "None")]
    path.write_text("a.jpg a.png 518\nonly_one\n")
    assert "list.txt line 2: expected 'image depth focal', found 1 words" in message(lambda: read_list(path))
    path.write_text("\n")
    assert "names no pairs" in message(lambda: read_list(path))
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert "cannot read" in message(lambda: read_list(path))
    assert "no such file" in message(lambda: read_list(tmp_path / "absent.txt"))


def test_open_dataset_says_how_to_name_data(tmp_path):
    assert "did you mean 'nyu'?" in message(lambda: open_dataset(f"nyuu:{tmp_path}"))
    assert message(lambda: open_dataset("nyu")) == "'nyu' needs its folder: nyu:ROOT"
    assert f"write nyu:{tmp_path} or kitti:{tmp_path} or folder:{tmp_path}" in message(lambda: open_dataset(str(tmp_path)))
    assert "no folder" in message(lambda: open_dataset(f"kitti:{tmp_path}/absent"))
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in message(lambda: open_dataset(f"kitti:{tmp_path}/file"))
    assert "unknown split 'tset': did you mean 'test'?" in message(lambda: open_dataset(f"nyu:{tmp_path}", "tset"))
    assert "--depth-scale is for folder:ROOT only" in message(lambda: open_dataset(f"nyu:{tmp_path}", depth_scale=1000))
    assert "--depth-range is for folder:ROOT only" in message(lambda: open_dataset(f"kitti:{tmp_path}", depth_range=(1, 2)))


def test_importing_the_room_loads_no_torch():
    code = "import sys, depthtokens.data; depthtokens.data.open_dataset; assert 'torch' not in sys.modules; depthtokens.data.NYUv2"
    subprocess.run([sys.executable, "-c", code], check=True)
