"""Words on sample scenes: scores as `evaluate` gives them, sentences for what makes no model."""

from __future__ import annotations

import pytest

from depthtokens import UsageError
from depthtokens.deploy.app import words as module
from depthtokens.deploy.app.words import Sample, Words
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.source import Reading, open_source, scored_views
from depthtokens.prompt.scales import SCALES
from helpers import make_model

TEMPLATE = "This object appears to be {depth}"


@pytest.fixture(scope="module")
def words(tiny_clip):
    model = make_model(tiny_clip, predict_side=48, condition="shift")  # of which typed words know nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SAMPLES", 6)
        yield Words(model, Sample(model))


def test_scores_are_those_of_evaluation(words):
    sample, head = words.sample, head_of(words.model)
    views = scored_views(sample.protocol, "imagenet")
    source = open_source(words.model, sample.scenes, views, Reading(cache=True, batch_size=8, workers=0))
    scores = score_heads({"tokens": head}, source, "auty2023")["tokens"]
    assert len(scores.per_image) == 6 and sample.score(head) == pytest.approx(scores.quoted["abs_rel"], rel=1e-9)
    assert sample.depth(head, 5).shape == sample.scenes.read(5)[1].shape
    with pytest.raises(UsageError, match="from 0 to 5"):
        sample.depth(head, 6)


def test_words_beside_tokens(words):
    answer = words.answer("\n".join(SCALES["depth-7"]), TEMPLATE, "linear", 3)
    spoken = words.spoken("|".join(SCALES["depth-7"]), TEMPLATE, "linear")
    score = words.sample.score(head_of(spoken))
    assert spoken.settings.dense == "value" and spoken.settings.scale == 50 and spoken.depth_range == (0.5, 10.0)
    assert f"<b>{score:.3f}" in answer or f">{score:.3f}<" in answer
    assert "depth-7, the nearest hand-made scale (cosine 1.000)" in answer and f"{words.sample.constant:.3f}" in answer
    assert answer.count("data:image/png") == 5 and "very close: 1.18 m" in answer
    fewer = words.answer("near | <b>far</b>", TEMPLATE, "log:2", 0)
    assert "No hand-made scale has 2 words" in fewer and "<b>far" not in fewer and "&lt;b&gt;far" in fewer


@pytest.mark.parametrize(
    ("text", "template", "bins", "said"),
    [
        ("near\nfar", "This object appears to be", "linear", "has no {depth}"),
        ("near\nfar", "{depth} or {depth}", "linear", "exactly once"),
        ("near\nfar", "{ctx*4} object {depth}", "linear", "leave them out"),
        ("near\nfar", TEMPLATE, "linear:3", "2 depth words or tokens need 2 bins"),
        ("near\nfar", TEMPLATE, "1|200", "outside the depth range"),
        ("near\nfar", TEMPLATE, "", "unknown bins"),
        ("", TEMPLATE, "linear", "these are 0"),
        ("near", TEMPLATE, "linear", "these are 1"),
        ("a\n" * 65, TEMPLATE, "linear", "from 2 to 64"),
        ("near\n" + "far " * 500, TEMPLATE, "linear", "longer than the 2000 characters"),
        ("near\n" + "far " * 90, TEMPLATE, "linear", "tokens"),
    ],
)
def test_what_makes_no_model(words, message, text, template, bins, said):
    assert said in message(lambda: words.answer(text, template, bins, 0), UsageError)
