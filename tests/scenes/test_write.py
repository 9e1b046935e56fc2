"""Scenes as files that `Folder` reads."""

import csv
import errno
import json
import os
import subprocess
import sys
import threading
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.folder import Folder
from depthtokens.errors import DataError, DepthTokensError, UsageError
from depthtokens.scenes import DEPTH_RANGE, DEPTH_SCALE, Scenes, write_folder
from helpers import needs_mount

SIZE = (40, 56)


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
            (rgb, depth), (shown, truth) = folder.read(i), scenes.read(i)
            np.testing.assert_array_equal(rgb, shown)
            np.testing.assert_array_equal(depth, np.where(truth > DEPTH_RANGE[domain][0], truth, 0))  # of (lo, hi], lo is outside
    with (out / "captions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and all((out / row["image"]).is_file() and row["caption"] for row in rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_write_folder_refuses_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not an empty folder"):
        write_folder(tmp_path, count=1, size=SIZE)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_what_is_half_written_is_not_there(tmp_path):
    def interrupt(label, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", count=2, size=SIZE, workers=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_other_folders_are_left_alone(tmp_path):
    names = ("out.partial", ".out.partial", ".out.mine.partial")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("mine")
    write_folder(tmp_path / "out", count=1, test=1, size=SIZE, workers=1)
    assert all((tmp_path / name / "thesis.txt").read_text() == "mine" for name in names) and len(list(tmp_path.iterdir())) == 4


WRITE = """
import sys, os, signal
from depthtokens.errors import DepthTokensError
from depthtokens.scenes import write_folder
def progress(label, done, total, note=""):
    if label == "rendering test scenes":
        print("there", flush=True)
        if sys.stdin.read(1) == "":
            signal.pause()
try:
    write_folder(sys.argv[1], count=2, test=1, size=(40, 56), workers=1, progress=progress)
except DepthTokensError as error:
    print(error)
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written the training scenes and is rendering test scenes, until it is given a byte."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def test_a_second_run_into_the_same_folder_is_refused(tmp_path, writer, monkeypatch):
    monkeypatch.setattr("depthtokens.files.PATIENCE", 0.2)
    with pytest.raises(DataError, match=f"another process is writing {tmp_path / 'out'}: wait"):
        write_folder(tmp_path / "out", count=2, test=1, size=SIZE, seed=1, workers=1)
    assert writer.communicate("x")[0] == ""
    assert np.array_equal(Folder(tmp_path / "out", "train").read(1)[0], Scenes("indoor", "train", 2, SIZE).read(1)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_that_waited_finds_the_folder_taken(tmp_path, writer):
    goes_on = threading.Timer(0.5, lambda: writer.communicate("x"))
    goes_on.start()
    with pytest.raises(UsageError, match="not an empty folder"):
        write_folder(tmp_path / "out", count=2, test=1, size=SIZE, seed=1, workers=1)
    goes_on.join()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_killed_and_started_again(tmp_path, writer):
    writer.kill()
    writer.wait()
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir(mode=0o750)  # an empty one, which stays as it is
    write_folder(tmp_path / "out", count=2, test=1, size=SIZE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_link_to_an_empty_folder_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    write_folder(tmp_path / "link", count=1, test=1, size=SIZE, workers=1)
    assert (tmp_path / "link").is_symlink() and len(Folder(tmp_path / "real", "train")) == 1


def test_the_folder_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name a new one in it"):
        write_folder(".", count=1, size=SIZE)


def test_no_room(tmp_path, monkeypatch):
    """Refused before any scene is rendered."""
    with pytest.raises(DepthTokensError, match="needs 11200000.0 GB and its disk has"):
        write_folder(tmp_path / "out", count=10**9, size=(2000, 1120), workers=1)
    assert not list(tmp_path.iterdir())
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "posix_fallocate", Mock(side_effect=full), raising=False)
    with pytest.raises(DepthTokensError, match=f"cannot write {tmp_path / 'out'}: No space left on its disk"):
        write_folder(tmp_path / "out", count=2, size=SIZE, workers=1, progress=Mock(side_effect=AssertionError))
    assert not list(tmp_path.iterdir())


SMALL = "mount -t tmpfs -o size=1m tmpfs . && {command}; ls -A"


@needs_mount
@pytest.mark.parametrize(("count", "message"), [(200, "needs 2240 KB and its disk has 1049 KB left"), (80, "No space left on its disk")])
def test_a_full_disk_is_called_full(tmp_path, count, message):
    """Not a bus error: nothing is written by way of memory."""
    command = f"{sys.executable} -m depthtokens data scenes out --count {count} --size 40 56"
    done = subprocess.run(["unshare", "-m", "sh", "-c", SMALL.format(command=command)], cwd=tmp_path, capture_output=True, text=True)
    *progress, said = done.stderr.splitlines()
    assert not done.stdout and said.startswith("depthtokens: ") and f"{tmp_path}/out" in said and message in said, done
    assert all(line.startswith("rendering") for line in progress)
