"""Rendered scenes on disk: the same as fresh ones, used where they are whole, made anew where they are not."""

import pickle

import numpy as np
import pytest
import torch

from depthtokens.errors import DataError
from depthtokens.scenes import Scenes
from depthtokens.scenes import store as store_module

SIZE = (40, 56)


@pytest.fixture
def rendered(monkeypatch):
    """Counts the scenes rendered in this process."""
    done = []
    original = store_module.render
    monkeypatch.setattr(store_module, "render", lambda *arguments: done.append(arguments) or original(*arguments))
    return done


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
    def interrupt(label, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Scenes("indoor", "test", 3, SIZE, cache=tmp_path, workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_processes_give_the_same_and_say_how_far_they_are(tmp_path):
    seen = []
    many = Scenes("indoor", "train", 21, SIZE, cache=tmp_path / "a", workers=2, progress=lambda *step: seen.append(step))
    one = Scenes("indoor", "train", 21, SIZE, cache=tmp_path / "b", workers=1)
    assert seen == [("rendering train scenes", done, 21) for done in range(1, 22)]
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
