"""Best words in another CLIP: they score there what a model of the same words does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from depthtokens import DepthTokens, Scenes, UsageError, evaluate
from depthtokens.depth.protocol import find_protocol
from depthtokens.experiment.named import NamedData
from depthtokens.experiment.source import Reading
from depthtokens.study.carry import carry, open_elsewhere


def found_of(name, ids):
    """As much of a search as carrying reads."""
    return SimpleNamespace(name=name, ids=ids)


def test_words_score_in_another_clip_what_they_do_there(tiny_clip, vit_clip, model_of, other_scenes):
    model = model_of(tiny_clip)
    encoder = tiny_clip.tokenizer.tokenizer.encoder
    words = ["near", "close wall", "red", "far", "distant floor", "room", "sky"]
    ids = [tuple(tiny_clip.tokenizer.ids(word)) for word in words]
    ids[0], ids[1] = (encoder["near"],), (encoder["clo"], encoder["se</w>"], *ids[1][1:])  # fragments: other entries than their text has
    protocol = find_protocol("auty2023")
    elsewhere = open_elsewhere(model, vit_clip, NamedData("scenes"), protocol, Reading(workers=0))
    assert elsewhere.model.settings.dense == "value" and elsewhere.model.clip is vit_clip

    def row(name, kind, value):
        return SimpleNamespace(name=name, kind=kind, result=SimpleNamespace(interval=lambda metric: SimpleNamespace(mean=value)))

    rows = {name: row(name, kind, value) for name, kind, value in (("best pairs", "best words", 0.4), ("depth-7", "words", 0.6))}
    found = carry(model, [found_of("best pairs", ids)], rows, elsewhere, protocol)
    assert found.texts == {"best pairs": words} and found.differs == {"best pairs": [True, True, *[False] * 5]}
    there = {row.name: row.scores for row in found.rows}
    same = DepthTokens(vit_clip, depth=words, dense="value", scale=40, depth_range=(0.5, 10.0))
    expected = evaluate(same, Scenes("indoor", "test", 2), "auty2023", workers=0)
    assert there["best pairs"].image_wise["abs_rel"] == pytest.approx(expected.image_wise["abs_rel"], rel=1e-5)
    best = min(score.image_wise["abs_rel"] for name, score in there.items() if name != "best pairs")
    controlled = carry(model, [found_of("best pairs", ids)], rows | {"mean map": row("mean map", "control", 0.5)}, elsewhere, protocol)
    assert controlled.survives["best pairs"] == pytest.approx((min(best, 0.5) - expected.image_wise["abs_rel"]) / 0.1, rel=1e-4)
    assert found.survives["best pairs"] == pytest.approx((best - expected.image_wise["abs_rel"]) / 0.2, rel=1e-4)


def test_learned_context_is_not_carried(tiny_clip, vit_clip, model_of):
    with pytest.raises(UsageError, match="learned context vectors"):
        open_elsewhere(model_of(tiny_clip, template="1o1d"), vit_clip, NamedData("scenes"), find_protocol("auty2023"), Reading())
