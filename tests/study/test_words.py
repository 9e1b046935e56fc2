"""What may stand for {depth}, and the best words of a study: real words, never worse than a scale, judged on the patches it says."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, Scenes
from depthtokens.experiment.source import Reading, open_source
from depthtokens.prompt.scales import SCALES
from depthtokens.study.patches import sample_patches
from depthtokens.study.run import in_words
from depthtokens.study.search import word_score
from depthtokens.study.vocabulary import vocabulary_features
from depthtokens.study.words import word_candidates

SEVEN = {name for name, words in SCALES.items() if len(words) == 7}


def test_candidates_are_the_vocabulary_and_the_scales(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    everything = {word for scale in SCALES.values() for word in scale}
    ids = sorted({index for word in everything for index in encoder.layout([[word]]).ids[0, 1:-1].tolist()})
    found = word_candidates(encoder, tokens=ids)
    assert set(found.scales) == set(SCALES) and len(found.names) == len(found.features)
    assert found.names[: len(ids)] == [tiny_clip.tokenizer.tokenizer.decoder[index] for index in ids]
    for name, places in found.scales.items():
        model = DepthTokens(tiny_clip, depth=name)
        assert torch.allclose(found.features[list(places)], model.text_features(), atol=1e-5)
        assert [found.names[place].removesuffix("</w>") for place in places] == model.words
    only = word_candidates(encoder, tokens=["very", "close", "slightly", "neither", "nor", "distant", "red"])
    assert set(only.scales) == {"depth-7"} and "very red" in only.names and "very green" not in only.names


def test_best_words_are_no_worse_than_any_scale(studied):
    found = json.loads((studied / "study.json").read_text())["search"]
    objective = found["objective"]
    assert objective.keys() == {"tokens", "best words", *SEVEN} and 49_408 < found["candidates"] < 49_500 and found["patches"] == 200
    assert all(objective["best words"] <= objective[name] + 1e-6 for name in SEVEN) and len(found["words"]) == 7
    assert objective["best words"] < min(found["start_scores"]) and len(found["start_scores"]) == 7  # nearest words, scales, random
    assert [objective[name] for name in SCALES if name in SEVEN] == pytest.approx(found["start_scores"][1:6], rel=1e-5)


def test_the_objective_is_that_of_the_patches(studied, tiny_clip, model_of, few_scenes):
    """Computed anew from images and words: of the tokens, a scale, the best words, and the best words without one."""
    found = json.loads((studied / "study.json").read_text())["search"]
    model = model_of(tiny_clip)
    patches, truth = sample_patches(open_source(model, Scenes("indoor", "train", 10), reading=Reading(workers=0)), 200, batch_size=1)
    encoder = tiny_clip.tokenizer.tokenizer.encoder
    said = [word if phrase else encoder[word] for word, phrase in zip(found["words"], found["phrases"], strict=True)]
    rows = [_spoken(model, word) for word in said]
    best = torch.cat(rows)

    def objective(text, centres=model.centres):
        return word_score(patches, truth, text.detach(), centres, 40.0)

    expected = {"tokens": model.text_features(), "depth-7": in_words(model, "depth-7").text_features(), "best words": best}
    for name, text in expected.items():
        assert found["objective"][name] == pytest.approx(objective(text), rel=2e-3), name
    for i, without in enumerate(found["without"]):
        rest = [k for k in range(7) if k != i]
        assert without == pytest.approx(objective(best[rest], model.centres[rest]), rel=2e-3)


def _spoken(model, word):
    """Features [1, C] of a phrase, or of the vocabulary entry of an id, in the model's template."""
    if isinstance(word, int):
        return vocabulary_features(model.encoder, model.settings.template, [word])[1]
    return F.normalize(model.encoder([model.settings.template.replace("{depth}", word)]), dim=-1)
