"""What `evaluate` says beside its scores: units, sizes, splits, images that both splits have."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from depthtokens import DepthTokens, UsageError
from depthtokens.experiment.source import Reading, open_source
from depthtokens.reproduce.settings import Reproduction
from helpers import refused, run


@pytest.fixture
def folder(tmp_path):
    """Two training and two test pairs, 1000 units per metre, of which the first test image is a training image too."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("images", "depth"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            Image.fromarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / "data" / "images" / f"{split}{i}.png")
            depth = np.full((64, 96), 2000, np.uint16)
            depth[0, :2] = 65535 if split == "test" else 2000
            Image.fromarray(depth).save(tmp_path / "data" / "depth" / f"{split}{i}.png")
    rows = {"train": ["train0", "train1"], "test": ["train0", "test1"]}
    for split, names in rows.items():
        lines = ["image,depth", *(f"images/{name}.png,depth/{name}.png" for name in names)]
        (tmp_path / "data" / f"{split}.csv").write_text("\n".join(lines))
    return tmp_path / "data"


@pytest.fixture
def tokens(tiny_clip, tmp_path):
    DepthTokens(tiny_clip, depth="learned:5", predict_side=96).save(tmp_path / "tokens.safetensors")
    return tmp_path / "tokens.safetensors"


def evaluate(capsys, folder, tokens, *words):
    return run(capsys, "evaluate", tokens, "--data", f"folder:{folder}", "--depth-scale", 1000, "--no-cache", "--workers", 0, *words)


def test_what_weakens_the_scores_is_said(capsys, folder, tokens, tmp_path):
    code, out, err = evaluate(capsys, folder, tokens, "--csv", tmp_path / "scores.csv")
    assert code == 0, err
    assert "depth files: 1000 units per metre; truth counts from 0.001 to 10 m" in out
    assert "warning: the shorter side of images is 64 pixels, that of training's was 96" in err
    assert "warning: 1 of 2 test images are in the training split too" in err
    with (tmp_path / "scores.csv").open() as file:
        assert [int(row["pixels"]) for row in csv.DictReader(file)] == [64 * 96, 64 * 96 - 2]  # 65535 is no truth
    code, _, err = evaluate(capsys, folder, tokens, "--split", "train")
    assert code == 0 and "warning: these are images of the split 'train'" in err


def test_truth_outside_the_range_is_said(capsys, folder, tokens):
    _, _, err = evaluate(capsys, folder, tokens, "--depth-range", 0.5, 10)
    assert "note: 0.02% of the truth lies outside the depth range 0.5 to 10 m and does not count" in err
    _, _, err = evaluate(capsys, folder, tokens, "--depth-scale", 1)
    assert "out of proportion" in err and "1000" in err


def test_random_views_are_not_scored(tiny_clip, folder):
    from depthtokens import Folder

    data = Folder(folder, "test", depth_scale=1000, augment=True)
    source = open_source(DepthTokens(tiny_clip), data, None, Reading(workers=0))
    with pytest.raises(UsageError, match="opened with random views: open it without augment"):
        next(source.evaluation(None))


def test_lists_of_a_reproduction(nyu_tree, tmp_path):
    made = Reproduction(data=(f"nyu:{nyu_tree}",), list_file=("nyu:test=lists/a.txt", "nyu:train=b=c.txt"))
    assert made.lists() == {("nyu", "test"): "lists/a.txt", ("nyu", "train"): "b=c.txt"}
    for wrong in ("a.txt", "nyu=a.txt", "nyu:all=a.txt", "kitti:test=a.txt", "nyu:test="):
        with pytest.raises(UsageError, match="write nyu:test=FILE, with train or test"):
            Reproduction(data=(f"nyu:{nyu_tree}",), list_file=(wrong,))


def test_its_json_is_what_a_model_card_takes(capsys, folder, tokens, tmp_path):
    from depthtokens.deploy.hub import scores_text

    code, out, err = evaluate(capsys, folder, tokens, "--json")
    assert code == 0, err
    (tmp_path / "scores.json").write_text(out)
    text = scores_text(tmp_path / "scores.json")
    assert text.startswith(
        "On `folder:data` `test`, 2 images, truth from 0.001 to 10 m, protocol `auty2023`. Beside the tokens: `constant` and `mean map`,"
    )
    assert "\n" not in text.split("`ridge` is linear regression")[0]
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:]] == ["tokens", "ridge", "constant", "mean map"]


def test_predictions_under_the_same_ruler(capsys, folder, tokens, tmp_path):
    maps, words = tmp_path / "maps", ("--data", f"folder:{folder}", "--depth-scale", 1000, "--workers", 0)
    code, out, err = evaluate(capsys, folder, tokens, "--save-predictions", maps, "--csv", tmp_path / "a.csv", "--uncertainty",
                              "--plot", tmp_path / "u.png", "--json")  # fmt: skip
    assert code == 0, err
    model = json.loads(out)
    assert model["uncertainty"]["images"] == 2
    with Image.open(tmp_path / "u.png") as plot:
        assert plot.width > 1000
    np.save(maps / "other.npy", np.ones((2, 2)))
    code, out, err = run(capsys, "evaluate", "--predictions", maps, *words, "--csv", tmp_path / "b.csv", "--json")
    assert code == 0 and "note: 1 depth maps belong to no image and are left out: other.npy" in err
    found = json.loads(out)
    rows = [row for row in model["rows"] if row["name"] != "ridge"]  # which reads features of a CLIP
    for kind in ("scores", "image_wise", "pixel_wise"):
        assert [row[kind] for row in found["rows"]] == [row[kind] for row in rows]
    assert found["rows"][0]["align"] == "none" and "align" not in model["rows"][0] and found["predictions"] == str(maps)
    code, out, err = run(capsys, "evaluate", "--predictions", maps, *words, "--align", "median")
    assert code == 0 and "predictions scaled to the truth's median, image by image" in out and "align median" in out
    code, out, _ = run(capsys, "evaluate", "--compare", tmp_path / "a.csv", tmp_path / "b.csv")
    assert code == 0 and "2 images, protocol auty2023" in out and "+0.000 [+0.000, +0.000]" in out


@pytest.mark.parametrize(("words", "said"), [
    (["--data", "scenes"], "give a token file, or --predictions FOLDER for depth maps"),
    (["--predictions", "p"], "--data is missing"), (["t", "--predictions", "p"], "not both"),
    (["t", "--data", "scenes", "--align", "affine"], "--prediction-scale and --align are for --predictions"),
    (["--predictions", "p", "--data", "store:s"], "not on a store"),
    (["--predictions", "p", "--data", "scenes", "--align", "median", "--uncertainty"], "leave out --align"),
    (["t", "--data", "scenes", "--plot", "no/where.png"], "no folder no to write --plot to"),
])  # fmt: skip
def test_flags_that_do_not_fit_are_refused(capsys, words, said):
    assert said in refused(capsys, "evaluate", *words)
