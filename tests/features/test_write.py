"""Making a store: whole or refused, resumed without redoing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save

from depthtokens.clip.image import ImageTower
from depthtokens.features.plan import plan
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import finished, write
from depthtokens.files import sealed
from depthtokens.partial import _machine
from forked import Python, python
from stores import make, make_folder, message, opened, small_shards


def test_workers_write_the_same(tiny_clip, folder, tmp_path):
    data = opened(folder, augment=True, crop=(64, 64))
    alone = make(tiny_clip, data, tmp_path / "a", Views(2))
    many = write(small_shards(plan(tiny_clip, data, Views(2), ["value"])), tmp_path / "b", workers=2, batch_size=3)
    assert [shard["sha256"] for shard in alone.meta["shards"]] == [shard["sha256"] for shard in many.meta["shards"]]


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


def test_unfinished_work_of_another_version(tiny_clip, folder, store):
    """Its shards may be rounded otherwise, and no store is to hold both."""
    (store.path / "meta.json").unlink()
    begun = json.loads((store.path / "plan.json").read_text())
    del begun["trunk"], begun["sha256"]
    (store.path / "plan.json").write_text(json.dumps(sealed(begun)))
    assert "unfinished work of an earlier version" in message(lambda: make(tiny_clip, opened(folder), store.path))


def test_shards_of_other_sizes(tiny_clip, folder, store, tmp_path):
    (store.path / "meta.json").unlink()
    other = write(small_shards(plan(tiny_clip, opened(folder), Views(), ["value"]), 3), tmp_path / "other", workers=0)
    (store.path / "plan.json").write_text((other.path / "plan.json").read_text())
    assert "holds 2 images, other than planned" in message(lambda: make(tiny_clip, opened(folder), store.path))


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


def test_a_shard_made_again_is_the_same(tiny_clip, folder, tmp_path, monkeypatch):
    """What goes through the trunk together begins with each shard, so that rounding does not depend on which are there."""
    together = []
    patches_in = ImageTower.patches_in
    monkeypatch.setattr(ImageTower, "patches_in", lambda tower, x, modes: together.append(len(x)) or patches_in(tower, x, modes))
    planned = small_shards(plan(tiny_clip, opened(folder), Views(), ["value"]), 4)
    whole = write(planned, tmp_path / "s", workers=0, batch_size=3)
    assert len(whole) == 7 and together == [3, 1, 3]
    shards = {path: path.read_bytes() for path in sorted((tmp_path / "s").glob("*.safetensors"))}
    for path, content in shards.items():
        path.unlink()
        write(planned, tmp_path / "s", workers=0, batch_size=3)
        assert path.read_bytes() == content
    assert together == [3, 1, 3] * 2


def test_features_that_are_no_numbers(tiny_clip, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageTower, "patches_in", lambda tower, x, modes: {m: torch.full((len(x), 4, 2, 2), torch.nan) for m in modes})
    assert "no finite numbers" in message(lambda: make(tiny_clip, opened(folder), tmp_path / "s"))


KILLED = """
import sys, os, signal
from depthtokens import load_clip
from depthtokens.data import open_dataset
from depthtokens.features.plan import plan
from depthtokens.features.write import write
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
    with Python(KILLED, tiny_file, folder, tmp_path / "store", "5") as process:
        deadline = time.monotonic() + 120
        while process.out != "there\n" and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process


def test_killed_and_resumed(half_done, tiny_clip, folder, tmp_path):
    out = tmp_path / "store"
    assert "another process is writing" in message(lambda: make(tiny_clip, opened(folder), out))
    half_done.kill()
    assert "unfinished" in message(lambda: FeatureStore(out))
    torn = out / f".00002-ab.safetensors.{_machine()}-{16 * 'a'}.partial"  # of this machine, and nobody holds it
    torn.write_bytes(b"torn")
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
from depthtokens.features.plan import plan
from depthtokens.features.write import write
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
    code, told, _ = python(FULL, tiny_file, folder, tmp_path / "s")
    assert code == 0 and told.count("\n") == 1 and "cannot write" in told and "2 finished shards are kept" in told
    before = {path.name for path in sorted((tmp_path / "s").glob("*.safetensors"))}
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
