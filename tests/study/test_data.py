"""The images of a study: a data set, or stores of their features."""

from __future__ import annotations

import json

from depthtokens import Scenes
from depthtokens.cli import main
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from helpers import refused


def test_stores_in_the_place_of_data(tiny_clip, tokens, other_scenes, tmp_path, capsys):
    """Features alone are enough; the train split's must be of other images."""
    for split, count in (("train", 6), ("test", 3)):
        scenes = Scenes("indoor", split, count, size=(64, 96), seed=5)
        write(plan(tiny_clip, scenes, Views(mirrored=split == "test"), ["value"]), tmp_path / split, workers=0)
    stores = ["--data", f"store:{tmp_path / 'test'}", "--train-data"]
    line = refused(capsys, "study", tokens, *stores, f"store:{tmp_path / 'test'}", "--out", tmp_path / "s")
    assert "searched on the images that test them" in line and not (tmp_path / "s").exists()
    main(["study", str(tokens), *stores, f"store:{tmp_path / 'train'}", "--out", str(tmp_path / "s"), "--workers", "0"])
    values = json.loads((tmp_path / "s" / "study.json").read_text())
    assert values["data"]["images"] == 3 and "6 images" in values["data"]["searched_on"]
    assert any("no heat maps" in note for note in values["notes"])  # the scenes of that name are others
