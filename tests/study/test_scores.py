"""The scores of a study: those of `evaluate`, with differences to the tokens."""

from __future__ import annotations

import json

import pytest

from depthtokens import Scenes, evaluate
from depthtokens.prompt.scales import SCALES
from depthtokens.study.run import in_words

SEVEN = {name for name, words in SCALES.items() if len(words) == 7}


def test_scores_are_those_of_evaluate(studied, tiny_clip, model_of):
    rows = {row["name"]: row for row in json.loads((studied / "study.json").read_text())["scores"]}
    model, test = model_of(tiny_clip), Scenes("indoor", "test", 4)
    removed = [*range(3), *range(4, 7)]
    six = model_of(tiny_clip, depth="learned:6", bins=model.centres[removed].tolist())
    six.tokens["depth"].data = model.tokens["depth"].data[removed]
    for name, same in {"tokens": model, "depth-7": in_words(model, "depth-7"), "removed 3": six}.items():
        expected = evaluate(same, test, workers=0)
        found = {metric: interval["mean"] for metric, interval in rows[name]["mean_over_images"].items()}
        assert found == pytest.approx(expected.image_wise, rel=1e-3, abs=1e-4), name
        assert rows[name]["pooled_over_pixels"] == pytest.approx(expected.pixel_wise, rel=1e-3, abs=1e-4), name
    assert {name for name, row in rows.items() if row["kind"] == "words"} == SEVEN and {"constant", "mean map", "best words"} <= rows.keys()
    kinds = [row["kind"] for row in rows.values()]
    assert [kinds.count(kind) for kind in ("removed", "merged", "replaced", "pair")] == [7, 6, 7, 21]
    for row in rows.values():
        for metric, interval in row["mean_over_images"].items():
            assert interval["low"] <= interval["mean"] <= interval["high"]
            if row["name"] != "tokens":
                ours, theirs = interval["mean"], rows["tokens"]["mean_over_images"][metric]["mean"]
                assert row["less_tokens"][metric]["mean"] == pytest.approx(ours - theirs, abs=1e-9)
    assert rows["tokens"]["less_tokens"] is None and rows["depth-7"]["less_tokens"]["abs_rel"]["low"] != 0
