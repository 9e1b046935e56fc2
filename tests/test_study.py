"""Fitting on stored features, nearest words, and the demonstration's machinery."""

from __future__ import annotations

import json

import pytest
import torch

from depthtokens import DepthTokens, Scenes, TrainingError, evaluate
from depthtokens.data import open_dataset
from depthtokens.experiment.fit import Patches, fit
from depthtokens.study.neighbours import nearest_words


@pytest.fixture(scope="module")
def scenes():
    return Scenes("indoor", "train", 12, size=(64, 96), seed=3)


def test_patches_are_those_of_the_images(tiny_clip, scenes):
    model = DepthTokens(tiny_clip, dense="value")
    patches = Patches.of(model, scenes, batch_size=5)
    sample = scenes[7]
    assert torch.allclose(patches.plain[7], model.image_features(sample.image[None])[0], atol=1e-6)
    assert torch.allclose(patches.mirrored[7], model.image_features(sample.image[None].flip(-1))[0], atol=1e-6)
    assert torch.equal(patches.target[7], sample.depth[:, ::2, ::2])


def test_fit_learns_and_repeats_itself(tiny_clip, scenes):
    def run():
        model = DepthTokens(tiny_clip, depth="learned:5", dense="value", scale="50", depth_range=(0.5, 10.0))
        return model, fit(model, patches, 60, lr=0.03, batch_size=4)

    patches = Patches.of(DepthTokens(tiny_clip, dense="value"), scenes)
    (model, losses), (again, same) = run(), run()
    assert losses == same and torch.equal(model.tokens["depth"], again.tokens["depth"])
    assert sum(losses[-6:]) < sum(losses[:6])
    untrained = DepthTokens(tiny_clip, depth="learned:5", dense="value", scale="50", depth_range=(0.5, 10.0))
    assert evaluate(model, scenes, workers=0).quoted["rmse_log"] < evaluate(untrained, scenes, workers=0).quoted["rmse_log"]
    with pytest.raises(TrainingError, match="nothing to learn"):
        fit(DepthTokens(tiny_clip, depth="depth-7", dense="value"), patches, 2, lr=0.1)


def test_a_token_that_is_a_word_finds_itself(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", init=["red", "close", "far"])
    found = nearest_words(model, ["green", "close", "red", "door"], count=3)
    assert found[0][0].name == "red" and found[0][0].distance == pytest.approx(0, abs=1e-3)
    assert found[1][0].name == "close" and found[1][1].distance > 0.01
    names = [neighbour.name for neighbour in found[2]]
    assert "{depth_2}" not in names and [n.distance for n in found[2]] == sorted(n.distance for n in found[2])


def test_scenes_by_name_on_the_command_line(tmp_path, monkeypatch, capsys):
    from depthtokens.cli import main

    main(["data", "scenes", str(tmp_path / "rooms"), "--count", "5", "--size", "48", "64", "--json"])
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "rooms"), "train": 5, "test": 1}
    main(["data", "check", f"folder:{tmp_path / 'rooms'}", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["sizes"] == {"48x64": 5} and 0.5 <= report["depth_min"] < report["depth_max"] <= 10
    with pytest.raises(SystemExit) as stop:
        main(["data", "scenes", str(tmp_path / "rooms")])
    assert stop.value.code == 2 and "not an empty folder" in capsys.readouterr().err


def test_scenes_are_a_data_set_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    monkeypatch.setattr("depthtokens.data.SCENES", {"train": 4, "test": 3})
    train, test = open_dataset("scenes:road", "train", augment=True, crop=(96, 128)), open_dataset("scenes", "test")
    assert train.depth_range == (2.0, 80.0) and train[0].image.shape == (3, 96, 128)
    assert test.depth_range == (0.5, 10.0) and test[0].image.shape == (3, 208, 272) and len(test) == 3
