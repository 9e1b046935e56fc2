"""Scenes as files that `Folder` reads."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from depthtokens.data.folder import Folder
from depthtokens.errors import UsageError
from depthtokens.scenes import DEPTH_RANGE, DEPTH_SCALE, Scenes, write_folder

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


def test_half_written_folder_is_evident(tmp_path):
    def interrupt(label, done, total):
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, count=2, size=SIZE, workers=1, progress=interrupt)
    assert not out.exists() and (tmp_path / "out.partial").exists()
    write_folder(out, count=2, test=1, size=SIZE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
