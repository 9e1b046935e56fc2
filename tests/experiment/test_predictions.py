"""Anybody's depth maps: found by name, brought to the protocol's size, aligned where asked, and scored as a model's are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DataError, UsageError
from depthtokens.data import open_dataset
from depthtokens.depth.align import aligned
from depthtokens.depth.names import result_name
from depthtokens.depth.protocol import PROTOCOLS, find_protocol
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.predictions import evaluate_predictions, match, saving
from depthtokens.experiment.source import Reading, open_source
from depthtokens.scenes import Scenes
from helpers import make_model

AUTY = find_protocol("auty2023")


@pytest.fixture(scope="module")
def rooms():
    return Scenes("indoor", "test", 2, size=(64, 96), seed=3)


def folder_of(path, rooms, of):
    """A folder of .npy files, each made from the truth of its image."""
    for index, name in enumerate(rooms.names):
        file = path / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, of(rooms.read(index)[1]))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_saved_predictions_have_the_figures_of_the_model_to_the_last_digit(tiny_clip, nyu_tree, tmp_path, protocol):
    model, data = make_model(tiny_clip), open_dataset(f"nyu:{nyu_tree}", "test")
    protocol = find_protocol(protocol)
    with saving(tmp_path / "maps", "tokens", data.names, protocol) as keep:
        source = open_source(model, data, None, Reading(workers=0))
        scores = score_heads({"tokens": head_of(model)}, source, protocol, keep=keep)["tokens"]
    assert np.load(tmp_path / "maps/official_splits/test/room/rgb_00000.npy").shape == (480, 640)
    found = evaluate_predictions(tmp_path / "maps", data, protocol, workers=0)
    assert found.per_image == scores.per_image
    assert found.image_wise == scores.image_wise and found.pixel_wise == scores.pixel_wise and found.not_finite == 0
    with pytest.raises(UsageError, match="maps is not an empty folder"), saving(tmp_path / "maps", "tokens", data.names, protocol):
        pass


def test_maps_of_any_size_are_scored_as_a_models_of_that_size(rooms, tmp_path):
    small = torch.rand(3, 5) * 12  # some beyond the range
    folder = folder_of(tmp_path, rooms, lambda truth: small.numpy())
    source = open_source(None, rooms, None, Reading(workers=0))
    scores = score_heads({"small": lambda images: small.expand(len(images), 1, 3, 5)}, source, replace(AUTY, flip=False))["small"]
    found = evaluate_predictions(folder, rooms, AUTY, workers=0)
    assert found.per_image == scores.per_image and found.protocol.flip is False and found.align == "none"
    np.save(tmp_path / f"{rooms.names[1]}.npy", small.numpy().T)
    with pytest.raises(DataError, match=r"000001.npy is 5x3 and its image 64x96: is it stored lying\?"):
        evaluate_predictions(folder, rooms, AUTY, workers=0)


@pytest.mark.parametrize(("align", "of"), [
    ("median", lambda truth: 0.3 * truth), ("affine", lambda truth: 5 - 0.4 * truth), ("affine-disparity", lambda truth: 300 / truth - 20),
])  # fmt: skip
def test_aligned_predictions_need_no_scale(rooms, tmp_path, align, of):
    def with_hole(truth):
        made = of(truth.clip(0.5))
        made[0, 0] = np.nan
        return made

    folder = folder_of(tmp_path, rooms, with_hole)
    scores = evaluate_predictions(folder, rooms, "auty2023", align=align, workers=0)
    assert scores.image_wise["rmse"] < 0.2 and scores.image_wise["d1"] > 0.999  # of the hole alone
    assert scores.not_finite == 2 and scores.align == scores.to_dict()["align"] == align
    assert scores.to_csv().splitlines()[0].endswith(",protocol,align")
    assert evaluate_predictions(folder, rooms, "auty2023", workers=0).image_wise["rmse"] > 0.5


def test_steps_of_no_stated_unit_are_scored_where_they_are_aligned(rooms, tmp_path):
    for index, name in enumerate(rooms.names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rooms.read(index)[1] * 5000).astype(np.uint16)).save(tmp_path / f"{name}.png")
    assert evaluate_predictions(tmp_path, rooms, align="median", workers=0).image_wise["abs_rel"] < 0.001
    assert evaluate_predictions(tmp_path, rooms, scale=5000, workers=0).image_wise["abs_rel"] < 0.001
    with pytest.raises(DataError, match="does not say its unit: state --prediction-scale"):
        evaluate_predictions(tmp_path, rooms, workers=0)


def test_alignment_is_least_squares_over_what_counts():
    rng = np.random.default_rng(0)
    depth, truth = (torch.from_numpy(rng.uniform(1, 9, (4, 5)).astype(np.float32)) for _ in range(2))
    valid = torch.ones(4, 5, dtype=torch.bool)
    valid[0], truth[0] = False, 1e6
    slope, shift = np.polyfit(depth[valid].double(), truth[valid].double(), 1)
    assert aligned("affine", depth, truth, valid, 10.0).numpy() == pytest.approx(depth.numpy() * slope + shift, rel=1e-5)
    slope, shift = np.polyfit(depth[valid].double(), 1 / truth[valid].double(), 1)
    wanted = 1 / np.maximum(depth.numpy() * slope + shift, 0.1)
    assert aligned("affine-disparity", depth, truth, valid, 10.0).numpy() == pytest.approx(wanted, rel=1e-5)
    assert np.median(aligned("median", depth, truth, valid, 10.0)[valid]) == pytest.approx(np.median(truth[valid]), rel=1e-6)
    with pytest.raises(DataError, match="fewer than two pixels"):
        aligned("median", torch.full((4, 5), np.nan), truth, valid, 10.0)
    with pytest.raises(UsageError, match="unknown alignment 'afine': did you mean 'affine'"):
        aligned("afine", depth, truth, valid, 10.0)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


LONG = "x" * 220


@pytest.mark.parametrize(("images", "files"), [
    (["a.jpg", "b.jpg"], ["a.npy", "b_depth.PNG"]),
    (["test/images/a.png", "test/images/s/a.png"], ["a_depth.npy", "s/a_depth.npy"]),  # `predict ROOT/test/images`
    (["s/a.png", "t/a.png"], ["x/y/s/a.tiff", "x/y/t/a.npz"]),
    (["a.png", "s/a.png"], ["a.npy", "s/a.npy"]),
    (["00007"], ["00007.npy"]), (["indoor/test/000000"], ["000000.npy"]),  # names without ending
    (["/elsewhere/a.b.png"], ["a.b.npy"]),
    (["cafe\u0301.png"], ["caf\u00e9.npy"]),
    ([f"{LONG}.jpg"], [result_name(Path(f"{LONG}.jpg"), "_depth.tiff")]),
])  # fmt: skip
def test_maps_are_found_by_name(tmp_path, images, files):
    found = match(touch(tmp_path, *files), images)
    assert found.files == [tmp_path / name for name in files] and not found.extra


def test_what_does_not_match_is_named_in_one_line(tmp_path, message):
    touch(tmp_path, "s/a.npy", "s/a_side.png", "s/a_colour.png", "predict.jsonl", "c.npy", ".hidden.npy")
    found = match(tmp_path, ["s/a.jpg"])
    assert [path.name for path in found.extra] == ["c.npy"]  # pictures that `predict` makes are no maps
    text = message(lambda: match(tmp_path, ["s/a.jpg", "t/b.jpg"]))
    assert text.endswith("for each of 2 images, by its name: without one: 1 (t/b.jpg)")
    text = message(lambda: match(touch(tmp_path, "s/a_depth.png"), ["s/a.jpg"]))
    assert "with several: 1 (s/a.jpg: s/a.npy and s/a_depth.png)" in text
    text = message(lambda: match(tmp_path, ["s/c.jpg", "t/c.jpg", *(f"{i}.jpg" for i in range(9))]))
    assert "without one: 9 (0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ... (4 more)); files that fit several images: 1 (c.npy)" in text
    assert "no folder" in message(lambda: match(tmp_path / "none", ["a"]))


def test_maps_of_whole_photos_get_the_fixed_crop(tmp_path):
    from depthtokens.data.dataset import DepthDataset

    depth = np.arange(1, 201, dtype=np.uint16).reshape(10, 20)
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(depth).save(tmp_path / "d.png")
    data = DepthDataset([(tmp_path / "a.png", tmp_path / "d.png")], name="kitti", split="test", root=tmp_path, depth_range=(1, 300),
                        depth_scale=1.0, fixed_crop=(8, 16))  # fmt: skip
    truth = data.read(0)[1]
    for size, map_ in (("whole", depth.astype(np.float32)), ("crop", truth)):
        (tmp_path / size).mkdir()
        np.save(tmp_path / size / "a.npy", map_)
        assert evaluate_predictions(tmp_path / size, data, AUTY, workers=0).image_wise["abs_rel"] == 0
