"""Many photos: a batch that was stopped goes on, and never takes the results of another question for its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from depthtokens import DataError, DepthTokens, UsageError, load_clip
from depthtokens.deploy.log import LOG
from depthtokens.deploy.photos import Batch
from depthtokens.deploy.written import Wanted
from depthtokens.depth.depthmap import DepthMap
from depthtokens.depth.fused import FusedDepth
from depthtokens.files import sealed, unsealed
from helpers import killed, one_by_one, photo, refused, run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(photo(40, 50) // (i + 1)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


class Mean:
    """Stands for a model: depth is the mean of the photo; remembers what it has been shown."""

    def __init__(self, stop=None):
        self.shown, self.stop = [], stop

    def __call__(self, path):
        if len(self.shown) == self.stop:
            raise KeyboardInterrupt
        self.shown.append(path)
        rgb = np.asarray(Image.open(path))
        metres = np.full(rgb.shape[:2], rgb.mean() / 50, np.float32)
        return DepthMap(metres, metres, np.ones((1, 1, 1), np.float32), (0.1, 10.0), rgb)


def stopped(photos, out, count=2, **settings):
    with pytest.raises(KeyboardInterrupt):
        Batch(photos, out, Wanted(["npy"])).run(one_by_one(Mean(stop=count)), settings)


def files(out):
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_stopped_batch_goes_on(photos, tmp_path):
    whole, out = Batch(photos, tmp_path / "whole", Wanted(["npy", "png"])), tmp_path / "out"
    whole.run(one_by_one(Mean()), {"side": 3})
    with pytest.raises(KeyboardInterrupt):
        Batch(photos, out, Wanted(["npy", "png"])).run(one_by_one(Mean(stop=2)), {"side": 3})
    (out / "2_depth.png").write_bytes(b"")  # killed between the files of a photo
    (out / LOG).write_bytes((out / LOG).read_bytes() + b'{"photo": "2.png", "fi')
    model, batch = Mean(), Batch(photos, out, Wanted(["npy", "png"]))
    batch.run(one_by_one(model), {"side": 3}, resume=True)
    assert model.shown == photos[2:] and [row["image"] for row in batch.rows] == [str(path) for path in photos]
    assert [{**row, "files": 0} for row in batch.rows] == [{**row, "files": 0} for row in whole.rows]
    names = [f"{i}_depth.{ending}" for i in range(4) for ending in ("npy", "png")]
    assert all(files(out)[name] == files(tmp_path / "whole")[name] for name in names)
    again = Mean()
    Batch(photos, out, Wanted(["npy", "png"])).run(one_by_one(again), {"side": 3}, resume=True)
    assert not again.shown


def test_what_is_missing_cut_or_not_known_is_made_again(photos, tmp_path):
    out = tmp_path / "out"
    Batch(photos, out, Wanted(["npy"])).run(one_by_one(Mean()), {})
    whole = files(out)
    (out / "0_depth.npy").unlink()
    (out / "1_depth.npy").write_bytes(whole["1_depth.npy"][:-1])
    (out / LOG).write_bytes(whole[LOG].replace(b'"2.png"', b'"3.png"'))  # a line that is damaged
    model = Mean()
    Batch(photos, out, Wanted(["npy"])).run(one_by_one(model), {}, resume=True)
    assert model.shown == photos[:3] and {**files(out), LOG: 0} == {**whole, LOG: 0}
    model = Mean()
    Batch(photos, out, Wanted(["npy", "png"])).run(one_by_one(model), {}, resume=True)
    assert model.shown == photos  # another format
    model = Mean()
    Batch(photos, tmp_path / "none", Wanted(["npy"])).run(one_by_one(model), {}, resume=True)
    assert model.shown == photos  # nothing was begun


def test_results_of_another_question_are_not_taken(photos, tmp_path):
    out = tmp_path / "out"
    stopped(photos, out, side=3, flip=False)
    before = files(out)
    with pytest.raises(UsageError, match="other side, flip than asked for: choose another --out, or --overwrite"):
        Batch(photos, out, Wanted(["npy"])).run(one_by_one(Mean()), {"side": 4, "flip": True}, resume=True)
    with pytest.raises(UsageError, match="other colour-range than"):
        Batch(photos, out, Wanted(["npy"], (1.0, 2.0))).run(one_by_one(Mean()), {"side": 3, "flip": False}, resume=True)
    with pytest.raises(UsageError, match="other colour-map than"):
        Batch(photos, out, Wanted(["npy"], colour_map="gray")).run(one_by_one(Mean()), {"side": 3, "flip": False}, resume=True)
    os.utime(photos[0], (1, 1))
    with pytest.raises(UsageError, match="other photos, or other versions of them, than asked for"):
        Batch(photos, out, Wanted(["npy"])).run(one_by_one(Mean()), {"side": 3, "flip": False}, resume=True)
    assert files(out) == before


def test_a_log_of_before_is_read(photos, tmp_path):
    """It says nothing of settings that there were none of: they were as they are by default."""
    out = tmp_path / "out"
    Batch(photos, out, Wanted(["npy"])).run(one_by_one(Mean()), {})
    lines = [unsealed(line) for line in (out / LOG).read_bytes().splitlines()]
    for line in lines:
        line["settings"] = {"colour_range": None}
    (out / LOG).write_text("".join(json.dumps(sealed(line)) + "\n" for line in lines))
    model = Mean()
    Batch(photos, out, Wanted(["npy"])).run(one_by_one(model), {}, resume=True)
    assert not model.shown


def test_killed_while_it_replaces_results(photos, tmp_path):
    """The log does not speak for files that another run has begun to replace."""
    out = tmp_path / "out"
    Batch(photos, out, Wanted(["npy", "png"])).run(one_by_one(Mean()), {"side": 3})

    class Killed(Exception):
        pass

    def write(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("depthtokens.depth.depthmap.DepthMap.save", write)
        Batch(photos[:1], out, Wanted(["npy", "png"])).run(one_by_one(Mean()), {"side": 4})
    model = Mean()
    Batch(photos, out, Wanted(["npy", "png"])).run(one_by_one(model), {"side": 3}, resume=True)
    assert model.shown == photos[:1]


def test_photos_that_fail_are_tried_again(photos, tmp_path):
    def failing(path):
        if path == photos[1]:
            raise DataError("no photo")
        return Mean()(path)

    batch = Batch(photos, tmp_path / "out", Wanted(["npy"]))
    batch.run(one_by_one(failing), {})
    assert batch.failed == ["no photo"] and len(batch.rows) == 3
    summary = batch.summary()
    assert (summary["images"], summary["predicted"], summary["kept"], summary["failed"]) == (4, 3, 0, 1)
    assert summary["min"] < summary["max"] and summary["images_per_second"] == 3 / summary["seconds"]
    model, batch = Mean(), Batch(photos, tmp_path / "out", Wanted(["npy"]))
    batch.run(one_by_one(model), {}, resume=True)
    assert model.shown == photos[1:2] and len(batch.rows) == 4
    assert (batch.summary()["predicted"], batch.summary()["kept"]) == (1, 3)
    batch = Batch(photos, tmp_path / "none", Wanted(["npy"]))
    batch.run(one_by_one(lambda path: failing(photos[1])), {})
    assert batch.summary()["min"] is batch.summary()["images_per_second"] is None


def test_sub_folders_are_kept_and_gone_on_with(photos, tmp_path):
    """One name in two folders is two photos, in the results and in the log."""
    folders = {photos[0]: Path("a"), photos[1]: Path("a/b"), photos[2]: Path("a/b"), photos[3]: Path()}
    names = {"a/0_depth.npy", "a/b/1_depth.npy", "a/b/2_depth.npy", "3_depth.npy"}
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        Batch(photos, out, Wanted(["npy"]), folders=folders).run(one_by_one(Mean(stop=2)), {})
    model, batch = Mean(), Batch(photos, out, Wanted(["npy"]), folders=folders)
    batch.run(one_by_one(model), {}, resume=True)
    assert model.shown == photos[2:] and len(batch.rows) == 4
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.npy")} == names
    (out / "a" / "b" / "1_depth.npy").unlink()
    model = Mean()
    Batch(photos, out, Wanted(["npy"]), folders=folders).run(one_by_one(model), {}, resume=True)
    assert model.shown == photos[1:2]


def test_the_verb_goes_on_after_a_kill(capsys, photos, tiny_clip, tmp_path):
    tokens, out = tmp_path / "tokens.safetensors", tmp_path / "out"
    DepthTokens(tiny_clip, depth="learned:5", predict_side=64).save(tokens)
    words = ("predict", tokens, photos[0].parent, "--out", out, "--formats", "npy", "png")
    killed("2_depth.npy", *words)
    assert (out / "1_depth.npy").is_file() and not (out / "2_depth.npy").exists()
    assert "go on with --resume" in refused(capsys, *words)
    assert "--resume keeps results and --overwrite replaces them" in refused(capsys, *words, "--resume", "--overwrite")
    code, stdout, err = run(capsys, *words, "--resume", "--json")
    assert code == 0 and len(json.loads(stdout)["images"]) == 4, err
    assert run(capsys, *words[:4], tmp_path / "whole", *words[5:])[0] == 0
    for path in (tmp_path / "whole").glob("*_*"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert "holds results of other side" in refused(capsys, *words, "--resume", "--side", 96)


def test_ctrl_c_says_how_to_go_on(capsys, photos, tiny_clip, tmp_path, monkeypatch):
    tokens, out, small, calls = tmp_path / "tokens.safetensors", tmp_path / "out", FusedDepth._small, []
    DepthTokens(tiny_clip, depth="learned:5", predict_side=64).save(tokens)

    def pressed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return small(*args)

    monkeypatch.setattr(FusedDepth, "_small", pressed)
    code, stdout, err = run(capsys, "predict", tokens, photos[0].parent, "--out", out, "--overwrite", "--formats", "npy")
    assert code == 130 and not stdout and "2 of 4 images are done; go on with: depthtokens predict" in err
    assert err.splitlines()[-2].endswith("--formats npy --resume") and len(list(out.glob("*.npy"))) == 2
    code, stdout, err = run(capsys, "predict", tokens, photos[0].parent, "--out", out, "--formats", "npy", "--resume")
    assert code == 0 and len(calls) == 5, err


PEAK = """
import re, sys
from pathlib import Path
from depthtokens.cli import main
main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20)
"""
"""Predicts, and prints the largest resident memory in GiB; getrusage's would begin with that of the process which started this one."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured in kilobytes on Linux")
def test_memory_of_large_photos(tmp_path):
    model = DepthTokens(load_clip("bundled"), depth="random:7", dense="value", predict_side=208)
    model.save(tmp_path / "tokens.safetensors")
    Image.new("RGB", (10_000, 10_000), (90, 120, 30)).save(tmp_path / "large.png", compress_level=1)
    formats = ["png", "npy", "colour", "side"]
    words = [tmp_path / "tokens.safetensors", tmp_path / "large.png", "--out", tmp_path / "out", "--formats", *formats]
    done = subprocess.run([sys.executable, "-c", PEAK, "predict", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0 and float(done.stdout.splitlines()[-1]) < 2, (done.stdout, done.stderr)
    assert np.load(tmp_path / "out" / "large_depth.npy", mmap_mode="r").shape == (10_000, 10_000)
