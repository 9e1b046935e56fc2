"""Rendered scenes on disk: the same as fresh ones, used where they are whole, made anew where they are not."""

import hashlib
import json
import pickle
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from depthtokens.errors import DataError
from depthtokens.files import sealed, unsealed
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


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "{",
        '{"sha256": {}}',
        '{"job": 1, "files": [], "sha256": ""}',
        '{"job": {}, "sha256": {"rgb.npy": "x"}}',
        "[" * 10**5,
        "\xff",
    ],
)
def test_any_manifest_is_read_or_made_anew(tmp_path, rendered, manifest):
    """Those of earlier versions too, which have no seal."""
    Scenes("indoor", "test", 1, SIZE, cache=tmp_path, workers=1)
    next(tmp_path.iterdir()).joinpath("manifest.json").write_text(manifest, encoding="latin-1")
    rendered.clear()
    Scenes("indoor", "test", 1, SIZE, cache=tmp_path, workers=1)
    assert len(rendered) == 1


@pytest.mark.parametrize(
    "arrays", [(("rgb.npy", (2, *SIZE, 3), "u1"),), (("depth.npy", (1, *SIZE), ">u2"),), (("depth.npy", (1, 56, 40), "u2"),)]
)
def test_other_arrays_than_the_job_s_are_made_anew(tmp_path, rendered, arrays):
    """Although their checksums are right."""
    Scenes("indoor", "test", 1, SIZE, cache=tmp_path, workers=1)
    folder = next(tmp_path.iterdir())
    manifest = unsealed((folder / "manifest.json").read_text())
    for name, shape, kind in arrays:
        np.save(folder / name, np.zeros(shape, kind))
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    rendered.clear()
    Scenes("indoor", "test", 1, SIZE, cache=tmp_path, workers=1)
    assert len(rendered) == 1


RENDER = """
import sys, signal
from depthtokens.scenes import Scenes
def progress(label, done, total, note=""):
    if done == 2:
        print("there", flush=True)
        if sys.argv[3] == "stop":
            signal.pause()
Scenes("indoor", "train", int(sys.argv[2]), (40, 56), cache=sys.argv[1], workers=2, progress=progress)
"""


@pytest.fixture
def renderer(tmp_path):
    """Starts another process that renders scenes into the test's folder, and waits until it is at it."""
    started = []

    def start(count, then):
        process = subprocess.Popen([sys.executable, "-c", RENDER, str(tmp_path), str(count), then], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_another_process_that_renders_them_is_waited_for(tmp_path, rendered, renderer):
    renderer(8, "go on")
    assert len(Scenes("indoor", "train", 8, SIZE, cache=tmp_path, workers=1)) == 8 and rendered == []
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path, rendered, renderer):
    process = renderer(2000, "stop")

    def workers():
        commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(process.pid)]
        found = []
        for path in commands:
            with suppress(OSError):
                found += [path] if str(tmp_path).encode() in path.read_bytes() else []
        return found

    assert len(workers()) == 2
    process.kill()
    process.wait()
    for _ in range(600):
        if not workers():
            break
        time.sleep(0.05)
    assert not workers()
    left = [path for path in tmp_path.iterdir() if path.is_dir()]
    Scenes("indoor", "train", 3, SIZE, cache=tmp_path, workers=1)
    assert left and all(path.exists() for path in left), "they are another job's"
    with pytest.raises(KeyboardInterrupt):
        Scenes("indoor", "train", 2000, SIZE, cache=tmp_path, workers=1, progress=Mock(side_effect=KeyboardInterrupt))
    assert not any(path.exists() for path in left)
