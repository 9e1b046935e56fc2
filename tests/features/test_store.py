"""Reading a store: equal to what images give, or refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens.data import open_dataset
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.files import sealed
from depthtokens.scenes import Scenes
from stores import MODES, assert_close, make, make_folder, message, opened


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_equal_those_of_images(tiny_clip, folder, tmp_path, dtype):
    data = opened(folder)
    store = make(tiny_clip, data, tmp_path / "s", Views(mirrored=True), MODES, dtype=dtype)
    indices = [6, 0, 3, 3]
    images = torch.stack([data[i].image for i in indices])
    for mode in MODES:
        assert_close(store.read(indices, mode), tiny_clip.dense(images, mode), dtype)
        assert_close(store.read(indices, mode, mirrored=True), tiny_clip.dense(images.flip(-1), mode), dtype)
    features = store.read(indices, "value")
    assert features.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(store.truth(indices), torch.stack([data[i].depth for i in indices]))
    assert torch.equal(store.read([-1], "value"), store.read([6], "value"))
    assert store.images == len(store) == 7 and store.names == data.names and store.image_sizes == [(64, 96)] * 7
    assert (store.data, store.split, store.depth_range) == (f"folder:{folder}", "all", (0.001, 10.0))


def test_features_of_a_vit(vit, folder, tmp_path):
    data = opened(folder)
    store = make(vit, data, tmp_path / "s", modes=("tokens", "value"))
    for mode in ("tokens", "value"):
        assert_close(store.read([1, 5], mode), vit.dense(torch.stack([data[i].image for i in (1, 5)]), mode))
    assert store.read([0], "value").shape[-2:] == (4, 6)


def test_images_of_several_sizes(tiny_clip, tmp_path):
    sizes = [(64, 96), (96, 64), (64, 96), (70, 130), (96, 64)]
    data = opened(make_folder(tmp_path / "data", sizes))
    store = make(tiny_clip, data, tmp_path / "s", Views(mirrored=True), ("layer4",))
    assert store.image_sizes == sizes
    for i in range(5):
        assert_close(store.read([i], "layer4"), tiny_clip.dense(data[i].image[None], "layer4"))
        assert_close(store.read([i], "layer4", mirrored=True), tiny_clip.dense(data[i].image[None].flip(-1), "layer4"))
        assert torch.equal(store.truth([i])[0], data[i].depth)
    assert "one size at a time" in message(lambda: store.read([0, 1], "layer4"))
    assert "one size at a time" in message(lambda: store.truth([0, 1]))


def test_random_views_are_the_data_sets_own(tiny_clip, folder, tmp_path):
    data = opened(folder, augment=True, crop=(64, 64), seed=7)
    store = make(tiny_clip, data, tmp_path / "s", Views(3, mirrored=True))
    for view in range(3):
        shown = [data.view(i, view) for i in (2, 5)]
        images = torch.stack([sample.image for sample in shown])
        assert_close(store.read([2, 5], "value", view), tiny_clip.dense(images, "value"))
        assert_close(store.read([2, 5], "value", view, mirrored=True), tiny_clip.dense(images.flip(-1), "value"))
        assert torch.equal(store.truth([2, 5], view), torch.stack([sample.depth for sample in shown]))
    assert not torch.equal(store.truth([2], 0), store.truth([2], 1))
    assert "does not hold view 3" in message(lambda: store.read([0], "value", 3))
    store.expect(dataset=data, views=Views(2))
    assert "seed" in message(lambda: store.expect(dataset=opened(folder, augment=True, crop=(64, 64), seed=8)))
    assert "seed" in message(lambda: store.expect(dataset=opened(folder)))
    assert "not 4 random views" in message(lambda: store.expect(views=Views(4)))
    assert "not the plain image" in message(lambda: store.expect(views=Views()))


def test_input_crop_and_normalisation(tiny_clip, nyu_tree, tmp_path):
    data = open_dataset(f"nyu:{nyu_tree}", "test")
    crop = (56, 472, 60, 604)
    store = make(tiny_clip, data, tmp_path / "s", Views(input_crop=crop, normalisation="clip"))
    rgb = data.read(1)[0][56:472, 60:604] / np.float32(255)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    image = torch.from_numpy(((rgb - mean) / std).transpose(2, 0, 1)[None]).float()
    expected = tiny_clip.dense(image, "value")
    assert_close(store.read([1], "value"), expected)
    assert expected.shape[-2:] == (13, 17)
    with pytest.raises(AssertionError):  # the small CLIP sees little difference, but it is more than rounding
        assert_close(store.read([1], "value"), tiny_clip.dense(data[1].image[None, :, 56:472, 60:604], "value"))
    assert store.truth([1]).shape[-2:] == (480, 640)
    assert store.views == Views(input_crop=crop, normalisation="clip") and FeatureStore(store.path).views == store.views
    assert "computed in float32" in message(lambda: store.expect(precision="bfloat16"))
    assert "the whole image" in message(lambda: store.expect(views=Views(normalisation="clip")))
    assert "normalised for clip" in message(lambda: store.expect(views=Views(input_crop=crop)))


def test_truth_in_metres_keeps_every_bit(tiny_clip, tmp_path):
    data = open_dataset(f"folder:{make_folder(tmp_path / 'data', [(64, 64)] * 3, suffix='.npy')}", "all")
    store = make(tiny_clip, data, tmp_path / "s")
    assert torch.equal(store.truth([0, 1, 2]), torch.stack([data[i].depth for i in range(3)]))


def test_scenes(tiny_clip, tmp_path):
    data = Scenes("road", "test", 3, (64, 96))
    store = make(tiny_clip, data, tmp_path / "s")
    assert torch.equal(store.truth([0, 2]), torch.stack([data[i].depth for i in (0, 2)]))
    assert store._shards[0].tensors["truth"].dtype == torch.int16
    store.expect(dataset=Scenes("road", "test", 3, (64, 96)))
    assert store.check_data().startswith("not opened")
    assert make(tiny_clip, Scenes("indoor", "train", 2), tmp_path / "usual").check_data() == "unchanged"
    assert "changed" in message(lambda: store.expect(dataset=Scenes("road", "test", 3, (64, 96), seed=1)))


def test_store_travels_to_processes(store):
    again = pickle.loads(pickle.dumps(store))
    assert torch.equal(again.read([4], "value"), store.read([4], "value"))


def test_reading_is_memory_mapped(tiny_clip, tmp_path):
    data = opened(make_folder(tmp_path / "data", [(64, 96)]))
    store = make(tiny_clip, data, tmp_path / "s")
    shard = store._shards[0]
    shard.tensors  # noqa: B018
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("needs Linux's /proc")
    assert shard.path.name in maps.read_text()


def test_no_store(tmp_path):
    assert "no store" in message(lambda: FeatureStore(tmp_path))
    (tmp_path / "plan.json").write_text("{}")
    assert "unfinished" in message(lambda: FeatureStore(tmp_path))


@pytest.mark.parametrize("where", [-1, 200, 9])
def test_flipped_bit_in_a_shard(store, where):
    path = store.path / store.meta["shards"][1]["file"]
    content = bytearray(path.read_bytes())
    content[where] ^= 4
    path.write_bytes(content)
    fresh = FeatureStore(store.path)
    fresh.read([0, 1], "value")
    assert path.name in message(lambda: fresh.read([2], "value")) and "features check" in message(lambda: fresh.truth([3]))
    told = message(fresh.check)
    assert "1 of 4" in told and path.name in told and "delete" in told


def test_flipped_bit_in_meta(store):
    path = store.path / "meta.json"
    text = path.read_text()
    path.write_text(text.replace('"images_per_shard": 2', '"images_per_shard": 3'))
    assert "altered" in message(lambda: FeatureStore(store.path))
    path.write_text(text[: len(text) // 2])
    assert "damaged" in message(lambda: FeatureStore(store.path))
    path.write_text("[1]")
    assert "damaged" in message(lambda: FeatureStore(store.path))
    path.write_bytes(b"\xff\xfe")
    assert "damaged" in message(lambda: FeatureStore(store.path))


def test_meta_of_another_version(store):
    meta = {**store.meta, "format": 2}
    meta["versions"]["depthtokens"] = "9.1"
    (store.path / "meta.json").write_text(json.dumps(sealed(meta)))
    told = message(lambda: FeatureStore(store.path))
    assert "format 2" in told and "9.1" in told


def test_store_of_another_clip_mode_or_data(tiny_clip, vit, folder, store, tmp_path):
    store.expect(clip=tiny_clip, mode="value", dataset=opened(folder), views=Views())
    assert "another CLIP" in message(lambda: store.expect(clip=vit))
    assert "not layer4" in message(lambda: store.expect(mode="layer4"))
    assert "not layer4" in message(lambda: store.read([0], "layer4"))
    assert "--mirror" in message(lambda: store.expect(views=Views(mirrored=True)))
    other = opened(make_folder(tmp_path / "other", [(64, 96)] * 7, seed=1))
    assert "changed" in message(lambda: store.expect(dataset=other))
    fewer = opened(make_folder(tmp_path / "fewer", [(64, 96)] * 6))
    assert "7 images" in message(lambda: store.expect(dataset=fewer))


def test_data_changed_since(tiny_clip, tmp_path):
    root = make_folder(tmp_path / "data", [(64, 96)] * 3)
    store = make(tiny_clip, opened(root), tmp_path / "s")
    assert store.check_data() == "unchanged"
    root.rename(tmp_path / "moved")
    assert store.check_data().startswith("not opened")
    store.expect(dataset=opened(tmp_path / "moved"))
    (tmp_path / "moved").rename(root)
    Image.fromarray(np.zeros((64, 96), np.uint16)).save(root / "depth" / "001.png")
    assert "changed" in message(store.check_data)
    assert "changed" in message(lambda: store.expect(dataset=opened(root)))
    (root / "depth" / "001.png").unlink()
    assert store.check_data().startswith("not opened")
