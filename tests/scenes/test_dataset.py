"""Scenes as a data set, its cache and its files."""

import csv
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens.data.dataset import DepthDataset
from depthtokens.data.folder import Folder
from depthtokens.errors import DataError, UsageError
from depthtokens.scenes import DEPTH_RANGE, DEPTH_SCALE, Scenes, write_folder
from depthtokens.scenes import store as store_module

SIZE = (40, 56)


@pytest.fixture
def rendered(monkeypatch):
    """Counts the scenes rendered in this process."""
    done = []
    original = store_module.render
    monkeypatch.setattr(store_module, "render", lambda *arguments: done.append(arguments) or original(*arguments))
    return done


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_samples(domain):
    data = Scenes(domain, "test", 3, SIZE)
    assert isinstance(data, DepthDataset)
    assert (len(data), data.name, data.split, data.depth_range) == (3, "scenes", "test", DEPTH_RANGE[domain])
    assert data.eval_crop is None and data.augment is None and data.missing() == [] and len(set(data.names)) == 3
    sample = data[1]
    assert sample.image.shape == (3, *SIZE) and sample.image.dtype == torch.float32
    assert sample.depth.shape == (1, *SIZE) and sample.depth.dtype == torch.float32 and sample.index == 1
    low, high = DEPTH_RANGE[domain]
    depth = np.concatenate([data.read(i)[1].ravel() for i in range(3)])
    assert ((depth == 0) | ((depth >= low - 0.01) & (depth <= high + 0.01))).all()
    assert data.image_size(2) == SIZE
    assert data.caption(0) == data.caption(0) != data.caption(0, 1)
    with pytest.raises(IndexError):
        data[3]


def test_splits_and_seeds_differ():
    pictures = [
        Scenes("indoor", split, 2, SIZE, seed).read(i)[0].tobytes() for split in ("train", "test") for seed in (0, 1) for i in (0, 1)
    ]
    assert len(set(pictures)) == len(pictures)


def test_cache_is_the_same_and_is_used(tmp_path, rendered):
    fresh = Scenes("road", "train", 5, SIZE)
    kept = Scenes("road", "train", 5, SIZE, cache=tmp_path, workers=1)
    for i in range(5):
        for a, b in zip(fresh.read(i), kept.read(i), strict=True):
            np.testing.assert_array_equal(a, b)
    assert kept.content(2) == fresh.content(2)
    rendered.clear()
    again = Scenes("road", "train", 5, SIZE, cache=tmp_path, workers=1)
    assert rendered == [] and torch.equal(again[4].depth, kept[4].depth)
    assert torch.equal(pickle.loads(pickle.dumps(again))[4].image, kept[4].image)
    assert len(pickle.dumps(again)) < 10_000
    Scenes("road", "train", 6, SIZE, cache=tmp_path, workers=1)
    assert len(rendered) == 6


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_damaged_cache_is_rebuilt(tmp_path, rendered, damage):
    before = Scenes("indoor", "test", 3, SIZE, cache=tmp_path, workers=1).read(1)
    folder = next(tmp_path.iterdir())
    target = folder / ("manifest.json" if damage == "manifest" else "rgb.npy")
    content = target.read_bytes()
    if damage == "remove":
        target.unlink()
    else:
        target.write_bytes(content[:-100] if damage != "flip" else content[:-9] + bytes([content[-9] ^ 255]) + content[-8:])
    rendered.clear()
    after = Scenes("indoor", "test", 3, SIZE, cache=tmp_path, workers=1).read(1)
    assert len(rendered) == 3
    np.testing.assert_array_equal(before[0], after[0])
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_interrupted_rendering_leaves_no_cache(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scenes("indoor", "test", 3, SIZE, cache=tmp_path, workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_processes_give_the_same_and_report(tmp_path):
    seen = []
    many = Scenes("indoor", "train", 21, SIZE, cache=tmp_path / "a", workers=2, progress=lambda done, total: seen.append((done, total)))
    one = Scenes("indoor", "train", 21, SIZE, cache=tmp_path / "b", workers=1)
    assert seen == [(done, 21) for done in range(1, 22)]
    np.testing.assert_array_equal(many.store.rgb, one.store.rgb)
    np.testing.assert_array_equal(many.store.depth, one.store.depth)
    assert many.store.contents == one.store.contents


def test_without_processes_it_renders_by_itself(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no processes here")

    monkeypatch.setattr(store_module.subprocess, "Popen", refuse)
    assert len(Scenes("indoor", "train", 17, SIZE, cache=tmp_path, workers=2).store.contents) == 17


def test_unwritable_cache(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="name another cache folder"):
        Scenes("indoor", "train", 1, SIZE, cache=tmp_path / "file")


@pytest.mark.parametrize("domain", ["indoor", "road"])
def test_written_folder_reads_back(tmp_path, domain):
    out = write_folder(tmp_path / "out", domain, 4, test=2, size=SIZE, seed=3, captions=2, workers=1)
    assert json.loads((out / "depthtokens.json").read_text()) == {
        "depth_scale": DEPTH_SCALE[domain],
        "depth_range": list(DEPTH_RANGE[domain]),
    }
    with Image.open(out / "train" / "depth" / "000000.png") as image:
        assert image.mode.startswith("I")
    for split, count in (("train", 4), ("test", 2)):
        folder, scenes = Folder(out, split), Scenes(domain, split, count, SIZE, 3)
        assert len(folder) == count and folder.depth_range == scenes.depth_range
        for i in range(count):
            for a, b in zip(folder.read(i), scenes.read(i), strict=True):
                np.testing.assert_array_equal(a, b)
    with (out / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and all((out / row["image"]).is_file() and row["caption"] for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_write_folder_refuses_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_folder(tmp_path, count=1, size=SIZE)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_half_written_folder_is_evident(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, count=2, size=SIZE, workers=1, progress=interrupt)
    assert not out.exists() and (tmp_path / "out.partial").exists()
    write_folder(out, count=2, test=1, size=SIZE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("wrong", [{"domain": "indor"}, {"split": "all"}, {"count": 0}, {"size": (4, 4)}, {"seed": -1}])
def test_bad_arguments(wrong):
    with pytest.raises(UsageError):
        Scenes(**{"count": 1, "size": SIZE, **wrong})


def test_package_imports_light():
    code = "import sys, depthtokens.scenes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
