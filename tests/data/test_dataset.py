"""The data set that all others are: what it hands out, and one line for whatever is wrong."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from depthtokens.data.augment import Augmentation, apply
from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD, DepthDataset, normalise
from depthtokens.data.folder import Folder
from depthtokens.data.formats import file_digest
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
@given(seed=st.integers(0, 2**31), draw=st.integers(0, 1000))
def test_views_depend_on_seed_draw_and_index_only(tmp_path_factory, seed, draw):
    folder = tmp_path_factory.getbasetemp() / "views"
    if not folder.is_dir():
        folder.mkdir()
        write_pairs(folder)
    pairs = [(folder / f"{i}.png", folder / f"{i}_depth.png") for i in range(3)]
    first, second = dataset(pairs, augment=VIEWS, seed=seed), dataset(pairs, augment=VIEWS, seed=seed)
    second[0], second.view(2, draw)  # other reads in between change nothing
    a, b = first.view(1, draw), second.view(1, draw)
    assert torch.equal(a.image, b.image) and torch.equal(a.depth, b.depth)
    assert not torch.equal(a.image, second.view(1, draw + 1).image)
    image, depth = apply(VIEWS, *first.read(1), np.random.default_rng([seed, draw, 1]))
    assert torch.equal(a.image, normalise(image)) and np.array_equal(a.depth[0], depth)


def test_views_are_an_argument(tmp_path):
    """Nothing set from outside changes what an index gives."""
    data = dataset(write_pairs(tmp_path), augment=VIEWS)
    first = data[1].image
    assert not hasattr(data, "epoch") and torch.equal(data.view(1).image, first)
    data.epoch = 3
    assert torch.equal(data[1].image, first) and not torch.equal(data.view(1, 3).image, first)


def test_workers_see_the_same_views(tmp_path):
    data = dataset(write_pairs(tmp_path), augment=VIEWS)
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
    found = message(lambda: dataset(pairs)[0])
    assert found == "0.png is 24x32 but its depth map is 12x16: they must be of one size: resize the image to its depth map's"


def test_photos_of_a_data_set_are_upright(tmp_path, message):
    """As `predict` reads them: a phone's picture lying on its side would be learned on its side."""
    image, depth = write_pairs(tmp_path, count=1, size=(24, 32))[0]
    upright = np.asarray(Image.open(image))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(upright).transpose(Image.Transpose.ROTATE_90).save(image, exif=exif)
    data = dataset([(image, depth)])
    assert np.array_equal(data.read(0)[0], upright) and data.image_size(0) == (24, 32) and data.orientation(0) == 6
    Image.fromarray(np.ones((32, 24), np.uint16)).save(depth)  # stored as the file's pixels lie
    found = message(lambda: data.read(0))
    assert "0.png is 24x32 upright, as its EXIF orientation 6 says, but its depth map is 32x24: store depth upright" in found


def test_truth_is_read_whole_and_without_the_image(tmp_path):
    pairs = write_pairs(tmp_path, size=(24, 35))
    data = dataset(pairs, fixed_crop=(10, 20), depth_range=(1, 4))
    pairs[1][0].unlink()
    stored = np.asarray(Image.open(pairs[1][1])).astype(np.float32) / np.float32(1000)
    assert np.array_equal(data.truth(1), stored[14:, 7:27])
    assert np.array_equal(data.read(0)[1], data.truth(0)), "a published data set keeps the released mask"


def edited(path, tmp_path, change):
    """Whether the fingerprint of a data set notices that one file's bytes change while its size does not."""
    image, depth = write_pairs(tmp_path, count=1, size=(64, 64))[0]
    data = dataset([(path if path.suffix != ".npy" else image, path if path.suffix == ".npy" else depth)])
    before, size = data.fingerprint(), path.stat().st_size
    change(path)
    assert path.stat().st_size == size
    return data.fingerprint() != before


@pytest.mark.parametrize("ending", [".tif", ".bmp", ".png", ".NPY"])
def test_edited_images_are_noticed_where_their_size_stays(tmp_path, ending):
    pixels = np.full((64, 64, 3), 90, np.uint8)

    def write(path):
        if ending == ".NPY":
            with path.open("wb") as file:
                np.save(file, pixels[..., 0].astype(np.float64))
        else:
            Image.fromarray(pixels).save(path, **({"compress_level": 0} if ending == ".png" else {}))

    def change(path):
        pixels[32, 32] = 200
        write(path)

    path = tmp_path / f"photo{ending}"
    write(path)
    if ending == ".NPY":
        path = path.rename(tmp_path / "depth.npy")
    assert edited(path, tmp_path, change)


def test_fingerprints_of_compressed_files_are_those_of_earlier_versions(tmp_path):
    """Stores and caches stay valid: size, first and last KiB of JPEG and compressed PNG."""
    image, depth = tmp_path / "a.jpg", tmp_path / "a.png"
    Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 300, 3))).save(image)
    Image.fromarray(np.tile(np.arange(300, dtype=np.uint16), (200, 1))).save(depth)
    digest = hashlib.sha256(repr(("DepthDataset", "all", None, None, 1000, (0.001, 10.0))).encode())
    digest.update(b"a.jpg")
    for path in (image, depth):
        content = path.read_bytes()
        part = len(content).to_bytes(8, "little") + content[:1024] + content[max(0, len(content) - 1024) :]
        digest.update(path.name.encode() + hashlib.sha256(part).digest())
    assert dataset([(image, depth)]).fingerprint() == digest.hexdigest()


@pytest.mark.parametrize(("mode", "code"), [("RGB", 6), ("RGBA", 1)])
def test_fingerprints_change_with_what_is_read(tmp_path, mode, code):
    """The same bytes give other pixels than in earlier versions: turned upright, or laid over white."""
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = code
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, len(mode)))).save(path, exif=exif if code > 1 else None)
    content = path.read_bytes()
    part = len(content).to_bytes(8, "little") + content[:1024] + content[max(0, len(content) - 1024) :]
    assert file_digest(path) != hashlib.sha256(part).digest()


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
    for scale in (0, 0.0, -1, float("nan"), float("inf")):
        assert "depth scale" in message(lambda scale=scale: dataset(pairs, depth_scale=scale), UsageError)
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
