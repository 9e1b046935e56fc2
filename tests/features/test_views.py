"""What decides a store's content: its key, and the data's fingerprint in it."""

from __future__ import annotations

import numpy as np

from depthtokens.data import open_dataset
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from stores import make_folder, message, opened


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


def test_changed_npy_is_seen(tmp_path):
    data = open_dataset(f"folder:{make_folder(tmp_path / 'data', [(64, 96)], suffix='.npy')}", "all")
    before, path = data.fingerprint(), tmp_path / "data" / "depth" / "000.npy"
    depth = np.load(path)
    depth[32] += 0.1
    np.save(path, depth)
    assert data.fingerprint() != before
