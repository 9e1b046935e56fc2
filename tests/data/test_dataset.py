"""The data set that all others are: what it hands out, and one line for whatever is wrong."""

import pickle

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from depthtokens.data.augment import Augmentation
from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD, DepthDataset
from depthtokens.data.folder import Folder
from depthtokens.errors import UsageError

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


def test_fixed_crop_is_at_the_bottom_and_centred(tmp_path, message):
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


def test_too_large_crop_names_the_image_and_the_option(tmp_path, message):
    data = dataset(write_pairs(tmp_path), augment=VIEWS.with_crop((30, 40)))
    assert message(lambda: data[1]).startswith("1.png: the image is 24x32, smaller than the training crop 30x40: state a smaller --crop")


def test_sizes_must_agree(tmp_path, message):
    pairs = write_pairs(tmp_path)
    Image.fromarray(np.ones((12, 16), np.uint16)).save(pairs[0][1])
    assert message(lambda: dataset(pairs)[0]) == "0.png is 24x32 but its depth map is 12x16: they must be of one size"


def test_missing_files_are_counted_and_named(tmp_path, message):
    pairs = write_pairs(tmp_path, count=5)
    for image, depth in pairs[1:]:
        image.unlink(), depth.unlink()
    text = message(lambda: dataset(pairs))
    assert text == f"8 of 10 files are not in {tmp_path}: 1.png, 1_depth.png, 2.png, ..."
    assert len(dataset(pairs, allow_missing=True)) == 5


def test_nonsense_arguments(tmp_path, message):
    pairs = write_pairs(tmp_path)
    assert "no pairs" in message(lambda: dataset([], root=tmp_path))
    for lo, hi in [(10, 0.001), (0, 10), (-1, 10), (1, float("nan"))]:
        assert "depth range" in message(lambda lo=lo, hi=hi: dataset(pairs, depth_range=(lo, hi)), UsageError)
    assert "depth scale" in message(lambda: dataset(pairs, depth_scale=0), UsageError)
    assert "seed -1" in message(lambda: dataset(pairs, seed=-1), UsageError)


def test_stated_data_is_unchanged_changed_or_not_there(tmp_path, message):
    (tmp_path / "images").mkdir()
    (tmp_path / "depth").mkdir()
    for i, (image, depth) in enumerate(write_pairs(tmp_path)):
        image.rename(tmp_path / f"images/{i}.png"), depth.rename(tmp_path / f"depth/{i}.png")
    data = Folder(tmp_path, "all", depth_scale=500, depth_range=(1, 9))
    stated = {
        "spec": data.spec,
        "name": "folder",
        "split": "all",
        "list_file": None,
        "fingerprint": data.fingerprint(),
        "depth_range": [1, 9],
        "depth_scale": 500,
    }
    assert Folder.unchanged(stated, 3) == "unchanged"
    found = message(lambda: Folder.unchanged({**stated, "depth_scale": 501}, 3))
    assert found == f"folder:{tmp_path} 'all' has changed since it was made"
    assert Folder.unchanged({**stated, "list_file": str(tmp_path / "none.csv")}, 3).startswith("not opened (cannot read list")
    assert Folder.unchanged({**stated, "spec": f"folder:{tmp_path}/gone"}, 3) == f"not opened (no folder {tmp_path}/gone)"
