"""Published rows as data: settings and figures equal to the published tables, both ways."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from depthtokens import UsageError
from depthtokens.depth.bins import bin_centres
from depthtokens.depth.metrics import METRICS
from depthtokens.depth.protocol import PROTOCOLS
from depthtokens.prompt.scales import SCALES
from depthtokens.prompt.template import TEMPLATES
from depthtokens.reproduce.published import find_row, published_rows
from depthtokens.reproduce.rows import DEPTH_RANGES
from helpers import SHARED

PAPER = SHARED / "paper"
needs_paper = pytest.mark.skipif(not PAPER.is_dir(), reason="the published tables are not on this machine")
RENAMED = {"rms": "rmse", "rmsl": "rmsl_paper"}


def table(name, settings):
    """The published rows: what was set, and the figures under our names."""
    with (PAPER / name).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            said = {key: row.pop(key) for key in settings}
            yield said, {RENAMED.get(key, key): float(value) for key, value in row.items() if value}


@needs_paper
def test_the_papers_28_rows():
    published = []
    for said, figures in table("results.csv", ("table", "template", "depth_tokens", "bins", "bin_distribution", "dataset")):
        found = [
            row
            for row in published_rows(said["table"], said["dataset"])
            if (row.model.template, row.model.depth.replace(":", "-"), row.model.bins)
            == (said["template"], said["depth_tokens"], said["bin_distribution"])
        ]
        assert len(found) == 1, said
        (row,) = found
        assert row.published == figures and row.model.words.count == int(said["bins"])
        assert (row.model.scale, row.model.dense, row.protocol) == ("auty2023", "layer4", "auty2023")
        assert row.depth_range == DEPTH_RANGES[row.role]
        published.append(row.name)
    assert len(published) == 28 and published == [row.name for row in published_rows() if row.name.startswith("paper/")]


@needs_paper
def test_depthclips_rows():
    published = []
    for said, figures in table("depthclip.csv", ("row", "words", "bins")):
        row = find_row(f"depthclip/nyu/{said['row']}")
        assert (row.model.depth, row.model.bins, row.published) == (said["words"], said["bins"], figures)
        assert (row.model.template, row.model.scale, row.model.dense, row.protocol) == ("depthclip", "depthclip", "layer4", "depthclip")
        published.append(row.name)
    assert published == [row.name for row in published_rows("depthclip")] and len(published) == 8


def test_depthclips_published_row_is_its_own_scale_and_bins():
    row = find_row("depthclip/nyu/published")
    assert row.model.words.words == SCALES["depthclip"]
    assert bin_centres(row.model.bins, 7, row.depth_range) == bin_centres("depthclip", 7, row.depth_range)


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row.name)
def test_every_row_expands_to_its_settings(row):
    experiment = row.experiment(f"{row.role}:somewhere")
    for field in ("template", "depth", "bins", "dense", "scale"):
        assert getattr(experiment, field) == getattr(row.model, field)
    assert (experiment.depth_range, experiment.protocol) == (row.depth_range, row.protocol)
    assert (experiment.epochs, experiment.batch_size, experiment.lr, experiment.seed) == (25, 16, 3.57e-4, 42)
    assert experiment.batchnorm == "frozen" and row.model.template in TEMPLATES and row.protocol in PROTOCOLS
    assert len(bin_centres(row.model.bins, row.model.words.count, row.depth_range)) == row.model.words.count
    assert row.published and set(row.published) <= set(METRICS)
    trained = row.model.depth.startswith("learned") or bool(row.model.parsed.contexts)
    assert row.experiment("nyu:x", as_released=True).batchnorm == ("adapt" if trained else "frozen")


def test_names():
    for name in (
        "paper/t3/nyu/learned-7", "paper/t3/kitti/rand-txt-7", "paper/t3/nyu/random-7", "paper/t4/kitti/4o4d-depth-7",
        "paper/t5/nyu/4o4d-learned-7", "paper/t6/nyu/learned-20", "paper/t6/nyu/learned-20-log", "paper/t7/kitti/learned-256-log",
    ):  # fmt: skip
        assert find_row(name).name == name
    assert len(published_rows()) == 36 and len(published_rows(role="kitti")) == 14
    with pytest.raises(UsageError, match="did you mean 'paper/t3/nyu/learned-7'"):
        find_row("paper/t3/nyu/lerned-7")
    with pytest.raises(UsageError, match="unknown table of published rows '8': known: 3, 4, 5, 6, 7, depthclip"):
        published_rows("8")


def test_overrides():
    experiment = find_row("paper/t3/nyu/learned-7").experiment("nyu:x", as_released=True, epochs=3, batchnorm="frozen", out="elsewhere")
    assert (experiment.epochs, experiment.batchnorm, experiment.out) == (3, "frozen", "elsewhere")
    with pytest.raises(UsageError, match="did you mean 'epochs'"):
        find_row("paper/t3/nyu/learned-7").experiment("nyu:x", epoch=3)


def test_ranges_are_those_of_the_data_set(nyu_tree, tmp_path):
    from depthtokens import NYUv2

    lists = tmp_path / "list.txt"
    lists.write_text("room/rgb_00000.jpg room/sync_depth_00000.png 518.8579\n", encoding="utf-8")
    assert NYUv2(nyu_tree, split="test", list_file=lists).depth_range == DEPTH_RANGES["nyu"]


def test_no_torch_is_loaded():
    code = "import sys; from depthtokens.reproduce.published import published_rows; print(bool(published_rows()), 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["True", "False"]
