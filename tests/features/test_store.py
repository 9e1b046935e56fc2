"""Stores of patch features: equal to what images give, whole or refused, resumed without redoing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import load_file, save

from depthtokens import DepthTokensError, UsageError
from depthtokens.clip.image import ImageTower
from depthtokens.clip.load import FrozenCLIP
from depthtokens.data import open_dataset
from depthtokens.features.cache import cached
from depthtokens.features.plan import plan
from depthtokens.features.shard import Builder, Shard, StoredView, rows_of, steps_of
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views, digest
from depthtokens.features.write import finished, write
from depthtokens.scenes import Scenes

MODES = ("attnpool", "layer4", "value")


def message(call):
    with pytest.raises(DepthTokensError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def make_folder(root, sizes, seed=0, suffix=".png"):
    """A folder data set of random images with depth in millimetres or in metres (.npy)."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "depth"):
        (root / kind).mkdir(parents=True)
    for i, (h, w) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)).save(root / "images" / f"{i:03d}.png")
        if suffix == ".png":
            Image.fromarray(rng.integers(0, 9000, (h, w)).astype(np.uint16)).save(root / "depth" / f"{i:03d}.png")
        else:
            np.save(root / "depth" / f"{i:03d}.npy", rng.uniform(0, 9, (h, w)).astype(np.float32))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("folder") / "data", [(64, 96)] * 7)


def opened(root, **options):
    return open_dataset(f"folder:{root}", "all", depth_scale=1000, **options)


def make(clip, dataset, out, views=None, modes=("value",), **options):
    """A store of shards of two images."""
    return write(small_shards(plan(clip, dataset, views or Views(), modes, **options)), out, workers=0, batch_size=3)


def small_shards(planned, images=2):
    planned.meta["images_per_shard"] = images
    return planned


@pytest.fixture
def store(tiny_clip, folder, tmp_path):
    return make(tiny_clip, opened(folder), tmp_path / "store")


@pytest.fixture(scope="module")
def vit():
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    return FrozenCLIP(open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text), "tiny ViT", None)


def assert_close(found, expected, dtype="float16"):
    """Within half rounding: relative to the row, since directions are stored at RMS 1."""
    step = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    rows = expected.norm(dim=1, keepdim=True)
    assert found.shape == expected.shape and found.dtype == torch.float32
    # No number may be off by more than half a unit in its last place, nor, near zero, by more than half's smallest step of the row's RMS.
    rms = rows / expected.shape[1] ** 0.5
    assert ((found - expected).abs() <= 1.05 * step * expected.abs() + 2**-24 * rms + 2e-6 * rows).all()


# What is stored


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
    data.epoch = 5
    store = make(tiny_clip, data, tmp_path / "s", Views(3, mirrored=True))
    assert data.epoch == 5
    for view in range(3):
        data.epoch = view
        images = torch.stack([data[i].image for i in (2, 5)])
        assert_close(store.read([2, 5], "value", view), tiny_clip.dense(images, "value"))
        assert_close(store.read([2, 5], "value", view, mirrored=True), tiny_clip.dense(images.flip(-1), "value"))
        assert torch.equal(store.truth([2, 5], view), torch.stack([data[i].depth for i in (2, 5)]))
    assert not torch.equal(store.truth([2], 0), store.truth([2], 1))
    assert "does not hold view 3" in message(lambda: store.read([0], "value", 3))
    store.expect(dataset=data, views=Views(2))
    assert "seed" in message(lambda: store.expect(dataset=opened(folder, augment=True, crop=(64, 64), seed=8)))
    assert "seed" in message(lambda: store.expect(dataset=opened(folder)))
    assert "not 4 random views" in message(lambda: store.expect(views=Views(4)))
    assert "not the plain image" in message(lambda: store.expect(views=Views()))


def test_workers_write_the_same(tiny_clip, folder, tmp_path):
    data = opened(folder, augment=True, crop=(64, 64))
    alone = make(tiny_clip, data, tmp_path / "a", Views(2))
    many = write(small_shards(plan(tiny_clip, data, Views(2), ["value"])), tmp_path / "b", workers=2, batch_size=3)
    assert [shard["sha256"] for shard in alone.meta["shards"]] == [shard["sha256"] for shard in many.meta["shards"]]


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


def test_input_crop_that_does_not_fit(tiny_clip, folder):
    assert "480x640" in message(lambda: plan(tiny_clip, opened(folder), Views(input_crop=(0, 64, 0, 64)), ["value"]))


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


@given(arrays(np.uint16, (3, 5)), st.sampled_from([1000.0, 256.0, 5000.0, 1.0, 0.25]))
def test_depth_that_came_in_steps_goes_back_into_them(raw, scale):
    depth = raw.astype(np.float32) / np.float32(scale)
    steps = steps_of(depth, scale)
    assert steps.dtype == np.uint16 and np.array_equal(steps, raw)


@given(arrays(np.float32, (2, 3), elements=st.floats(0, 2**100, width=32)), st.sampled_from([1000.0, 256.0, None]))
def test_any_depth_survives(depth, scale):
    steps = steps_of(depth, scale)
    back = steps if steps.dtype == np.float32 else steps.astype(np.float32) / np.float32(scale)
    assert np.array_equal(back, depth)


@settings(max_examples=50)
@given(
    st.sampled_from([torch.float16, torch.bfloat16]),
    arrays(np.float32, (1, 6, 2, 2), elements=st.floats(-1, 1, width=32)),
    st.sampled_from([1e-9, 1e-4, 1.0, 3e4, 1e12]),
)
def test_rows_of_any_length_survive(dtype, values, size):
    features = torch.from_numpy(values) * size
    directions, norm = rows_of(features, dtype)
    back = directions.float() * norm[..., None] / 6**0.5
    rows = features.flatten(2).transpose(1, 2)
    assert ((back - rows).norm(dim=-1) <= (2**-8 + 1e-5) * rows.norm(dim=-1) + 1e-22).all()
    assert directions.dtype == dtype and directions.isfinite().all()


def test_shard_with_truth_of_both_kinds(tmp_path):
    """One image's truth is not in steps: the shard holds metres, the other's too."""
    builder = Builder(["value"], 1000)
    maps = [np.full((2, 2), 1.234, np.float32), np.full((2, 2), np.pi, np.float32)]
    maps[0] = np.rint(maps[0] * 1000).astype(np.float32) / np.float32(1000)
    for depth in maps:
        builder.view(0, StoredView((1, 1), {"value": [(torch.ones(1, 4).half(), torch.ones(1))]}), depth)
    content = builder.content()
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    shard = Shard(path, hashlib.sha256(content).hexdigest(), Views(), 1000)
    for i, depth in enumerate(maps):
        shard.truth(i, 0, out := torch.empty(2, 2))
        assert np.array_equal(out.numpy(), depth)


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


# Whole, or refused


def test_finished_store_is_left_alone(tiny_clip, folder, store):
    before = {path.name: path.stat().st_mtime_ns for path in store.path.iterdir() if path.name != ".lock"}
    planned = plan(tiny_clip, opened(folder), Views(), ["value"])
    assert finished(planned, store.path)
    write(planned, store.path, workers=0)
    assert before == {path.name: path.stat().st_mtime_ns for path in store.path.iterdir() if path.name != ".lock"}
    assert not finished(plan(tiny_clip, opened(folder), Views(), ["layer4"]), store.path)
    other = plan(tiny_clip, opened(folder), Views(), ["layer4"])
    assert "holds another store (" in message(lambda: write(other, store.path))
    (store.path / "meta.json").unlink()
    assert "another store's unfinished work" in message(lambda: write(other, store.path))
    assert write(planned, store.path, workers=0).meta == store.meta


def test_folder_with_other_things(tiny_clip, folder, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds other things" in message(lambda: make(tiny_clip, opened(folder), tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    (tmp_path / ".lock").write_text("mine too")
    (tmp_path / ".notes.partial").write_text("mine too")
    assert "holds other things" in message(lambda: make(tiny_clip, opened(folder), tmp_path))
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.txt", ".lock", ".notes.partial"}
    assert (tmp_path / ".lock").read_text() == "mine too"
    assert "cannot make the folder" in message(lambda: make(tiny_clip, opened(folder), tmp_path / "thesis.txt"))


def test_damaged_plan(tiny_clip, folder, store):
    """Other shard sizes than those on disk would give images each other's features."""
    (store.path / "meta.json").unlink()
    path = store.path / "plan.json"
    for text in (path.read_text().replace('shard": 2', 'shard": 3'), "{", "[]", '{"key": 1}'):
        path.write_text(text)
        assert "plan.json is damaged" in message(lambda: make(tiny_clip, opened(folder), store.path))


def test_shards_of_other_sizes(tiny_clip, folder, store, tmp_path):
    (store.path / "meta.json").unlink()
    other = write(small_shards(plan(tiny_clip, opened(folder), Views(), ["value"]), 3), tmp_path / "other", workers=0)
    (store.path / "plan.json").write_text((other.path / "plan.json").read_text())
    assert "holds 2 images, other than planned" in message(lambda: make(tiny_clip, opened(folder), store.path))


def test_no_store(tmp_path):
    assert "no store" in message(lambda: FeatureStore(tmp_path))
    (tmp_path / "plan.json").write_text("{}")
    assert "unfinished" in message(lambda: FeatureStore(tmp_path))


def test_truncated_or_missing_shard(tiny_clip, folder, store):
    shards = sorted(store.path.glob("*.safetensors"))
    assert len(shards) == 4
    os.truncate(shards[1], 1000)
    shards[2].unlink()
    assert f"{shards[1]} has 1000 bytes" in message(lambda: FeatureStore(store.path))
    kept = shards[0].stat().st_mtime_ns
    again = make(tiny_clip, opened(folder), store.path)
    again.check()
    assert shards[0].stat().st_mtime_ns == kept


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
    (store.path / "meta.json").write_text(json.dumps({**meta, "sha256": digest(meta)}))
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


def test_fingerprint_tells_what_reading_depends_on(folder, tmp_path):
    first = opened(folder)
    found = {first.fingerprint()}
    assert found == {opened(folder, augment=True, seed=3).fingerprint()}
    found.add(open_dataset(f"folder:{folder}", "all", depth_scale=999).fingerprint())
    found.add(open_dataset(f"folder:{folder}", "all", depth_scale=1000, depth_range=(0.1, 10)).fingerprint())
    first.pairs.pop(), first.names.pop()
    found.add(first.fingerprint())
    first.pairs[0], first.pairs[1] = first.pairs[1], first.pairs[0]
    found.add(first.fingerprint())
    assert len(found) == 5
    first.pairs[0] = (tmp_path / "gone.png", tmp_path / "gone.png")
    assert "gone.png" in message(first.fingerprint)


def test_plans_that_make_no_sense(tiny_clip, folder):
    data = opened(folder)
    assert "with augmentation" in message(lambda: plan(tiny_clip, data, Views(2), ["value"]))
    assert "without augmentation" in message(lambda: plan(tiny_clip, opened(folder, augment=True), Views(), ["value"]))
    for call in (
        lambda: plan(tiny_clip, data, Views(), []),
        lambda: plan(tiny_clip, data, Views(), ["tokens"]),
        lambda: plan(tiny_clip, data, Views(), ["valeu"]),
        lambda: plan(tiny_clip, data, Views(), ["value"], "float32"),
        lambda: plan(tiny_clip, data, Views(), ["value"], precision="half"),
        lambda: Views(0),
        lambda: Views(normalisation="clpi"),
    ):
        with pytest.raises(UsageError):
            call()


def test_key_is_what_decides_the_content(tiny_clip, vit, folder):
    data = opened(folder)
    drawn = [opened(folder, augment=True, crop=crop, seed=seed) for crop, seed in (((64, 64), 1), ((64, 64), 2), ((32, 64), 1))]
    keys = [
        plan(tiny_clip, data, Views(), ["value"]).key,
        plan(vit, data, Views(), ["value"]).key,
        plan(tiny_clip, data, Views(), ["layer4"]).key,
        plan(tiny_clip, data, Views(mirrored=True), ["value"]).key,
        plan(tiny_clip, data, Views(), ["value"], "bfloat16").key,
        plan(tiny_clip, data, Views(), ["value"], precision="bfloat16").key,
        *(plan(tiny_clip, dataset, Views(2), ["value"]).key for dataset in drawn),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == plan(tiny_clip, opened(folder), Views(), ["value", "value"], shard_bytes=1).key


def test_features_that_are_no_numbers(tiny_clip, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageTower, "patches_in", lambda tower, x, modes: {m: torch.full((len(x), 4, 2, 2), torch.nan) for m in modes})
    assert "no finite numbers" in message(lambda: make(tiny_clip, opened(folder), tmp_path / "s"))


def test_estimate_is_the_size(tiny_clip, folder, tmp_path):
    data = opened(folder, augment=True, crop=(64, 64))
    planned = plan(tiny_clip, data, Views(2, mirrored=True), MODES)
    assert write(planned, tmp_path / "s", workers=0).bytes == pytest.approx(planned.bytes, rel=0.05)


# Interrupted


KILLED = """
import sys, os, signal
from depthtokens import load_clip
from depthtokens.data import open_dataset
from depthtokens.features.write import plan, write
from depthtokens.features.views import Views
clip, root, out, stop = sys.argv[1:]
planned = plan(load_clip(clip), open_dataset("folder:" + root, "all", depth_scale=1000), Views(), ["value"])
planned.meta["images_per_shard"] = 2
def progress(label, done, total, note=""):
    if done == int(stop):
        print("there", flush=True)
        signal.pause()
write(planned, out, workers=1, batch_size=1, progress=progress)
"""


@pytest.fixture
def half_done(tiny_file, folder, tmp_path):
    """A process that has written two of four shards and computed one more image, and is still running."""
    command = [sys.executable, "-c", KILLED, tiny_file, folder, tmp_path / "store", "5"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def test_killed_and_resumed(half_done, tiny_clip, folder, tmp_path):
    out = tmp_path / "store"
    assert "another process is writing" in message(lambda: make(tiny_clip, opened(folder), out))
    half_done.send_signal(signal.SIGKILL)
    half_done.wait()
    assert "unfinished" in message(lambda: FeatureStore(out))
    (out / ".00002-ab.safetensors.1.partial").write_bytes(b"torn")
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(before) == 2
    seen = []
    planned = plan(tiny_clip, opened(folder), Views(), ["value"])  # shards of its own size, were it not resuming
    store = write(planned, out, workers=0, progress=lambda label, *done: seen.append(done))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert seen == [(5, 7), (6, 7), (7, 7)] and len(store.meta["shards"]) == 4
    store.check()
    fresh = make(tiny_clip, opened(folder), tmp_path / "fresh")
    assert torch.allclose(store.read(range(7), "value"), fresh.read(range(7), "value"), atol=1e-3)
    assert torch.equal(store.truth(range(7)), fresh.truth(range(7)))
    assert not list(out.glob(".*.partial"))


def test_killed_between_a_shard_made_again_and_meta(store, tiny_clip, folder):
    """The shard in place is whole but not the one that meta.json lists: another machine's rounding, say."""
    truth = store.truth([2, 3])
    path = sorted(store.path.glob("*.safetensors"))[1]
    content = save(load_file(path), {"note": "the same, in other bytes"})
    path.unlink()
    sha256 = hashlib.sha256(content).hexdigest()
    (store.path / f"00001-{sha256[:16]}.safetensors").write_bytes(content)
    assert "missing" in message(lambda: FeatureStore(store.path))
    again = make(tiny_clip, opened(folder), store.path)
    again.check()
    assert again.meta["shards"][1]["sha256"] == sha256 and torch.equal(again.truth([2, 3]), truth)


def test_damaged_finished_shard_is_made_again_when_resuming(store, tiny_clip, folder):
    (store.path / "meta.json").unlink()
    path = sorted(store.path.glob("*.safetensors"))[1]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = make(tiny_clip, opened(folder), store.path)
    again.check()
    assert again.meta == store.meta


def test_waits_for_another_writer(half_done, tiny_clip, folder, tmp_path):
    import threading

    threading.Timer(1, half_done.kill).start()
    start = time.monotonic()
    write(plan(tiny_clip, opened(folder), Views(), ["value"]), tmp_path / "store", workers=0, wait=True).check()
    assert time.monotonic() - start > 0.9


FULL = """
import resource, sys
from depthtokens import load_clip, DepthTokensError
from depthtokens.data import open_dataset
from depthtokens.features.write import plan, write
from depthtokens.features.views import Views
clip, root, out = sys.argv[1:]
dataset = open_dataset("folder:" + root, "all", depth_scale=1000)
planned = plan(load_clip(clip), dataset, Views(), ["value"])
planned.meta["images_per_shard"] = 2
def progress(label, done, total, note=""):
    if done == 5:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write(planned, out, workers=0, batch_size=1, progress=progress)
except DepthTokensError as error:
    print(error)
"""


def test_no_room_in_the_middle(tiny_file, tiny_clip, folder, tmp_path):
    command = [sys.executable, "-c", FULL, tiny_file, folder, tmp_path / "s"]
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    assert told.count("\n") == 1 and "cannot write" in told and "2 finished shards are kept" in told
    before = {path.name for path in (tmp_path / "s").glob("*.safetensors")}
    assert len(before) == 2 and not list((tmp_path / "s").glob(".*.partial"))
    assert before < {shard["file"] for shard in make(tiny_clip, opened(folder), tmp_path / "s").meta["shards"]}


def test_no_room_from_the_start(tiny_clip, folder, tmp_path):
    planned = replace(plan(tiny_clip, opened(folder), Views(), ["value"]), bytes=10**18)
    assert "its disk has" in message(lambda: write(planned, tmp_path / "s"))


def test_bad_image_in_the_middle(tiny_clip, tmp_path):
    root = make_folder(tmp_path / "data", [(64, 96)] * 5)
    good = (root / "images" / "003.png").read_bytes()
    (root / "images" / "003.png").write_bytes(good[:-2000])
    assert "003.png" in message(lambda: make(tiny_clip, opened(root), tmp_path / "s"))
    kept = list((tmp_path / "s").glob("*.safetensors"))
    assert len(kept) == 1
    (root / "images" / "003.png").write_bytes(good)
    assert "unfinished work" in message(lambda: make(tiny_clip, opened(root), tmp_path / "s"))  # it is other data now


def test_image_smaller_than_a_patch_is_named(tiny_clip, tmp_path):
    root = make_folder(tmp_path / "data", [(64, 96)] * 3 + [(20, 64)])
    assert message(lambda: make(tiny_clip, opened(root), tmp_path / "s")).startswith("images/003.png: image of 20x64")


def test_changed_npy_is_seen(tmp_path):
    data = open_dataset(f"folder:{make_folder(tmp_path / 'data', [(64, 96)], suffix='.npy')}", "all")
    before, path = data.fingerprint(), tmp_path / "data" / "depth" / "000.npy"
    depth = np.load(path)
    depth[32] += 0.1
    np.save(path, depth)
    assert data.fingerprint() != before


# Made when needed


def test_cached(tiny_clip, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    told = []
    first = cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0)
    assert len(told) == 1 and "7 images" in told[0] and str(first.path) in told[0]
    assert first.path.parent == tmp_path / "features"
    again = cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0)
    assert len(told) == 1 and again.path == first.path
    assert cached(tiny_clip, opened(folder), Views(), ["layer4"], workers=0).path != first.path
    os.truncate(first.path / first.meta["shards"][0]["file"], 10)
    cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0).check()
    assert len(told) == 2
    (first.path / "meta.json").write_text("{")
    before = {path: path.stat().st_mtime_ns for path in first.path.glob("*.safetensors")}
    cached(tiny_clip, opened(folder), Views(), ["value"], notify=told.append, workers=0).check()
    assert before == {path: path.stat().st_mtime_ns for path in before}
