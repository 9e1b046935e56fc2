"""Ablations: every one of few tokens, merged before the text tower, scored as a model of its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, UsageError
from depthtokens.study.ablations import chosen_ablations, merged, variants


def test_every_ablation_of_three_tokens():
    features = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.2]]), dim=1)
    centres = torch.tensor([1.0, 9.0, 3.0])
    found = {variant.name: variant for variant in variants(features, centres, words=torch.ones(3, 2))}
    assert list(found) == [
        "all", "removed 0", "removed 1", "removed 2", "merged 0+2", "merged 2+1", "replaced 0", "replaced 1", "replaced 2",
        "pair 0+1", "pair 0+2", "pair 1+2",
    ]  # fmt: skip
    assert found["removed 1"].centres.tolist() == [1, 3] and torch.equal(found["removed 1"].features, features[[0, 2]])
    assert found["merged 2+1"].centres.tolist() == [1, 6]
    assert torch.allclose(found["merged 2+1"].features[1], F.normalize(features[1] + features[2], dim=0))
    assert torch.allclose(found["replaced 2"].features[2], torch.full((2,), 0.5**0.5)) and torch.equal(found["all"].features, features)
    assert found["pair 1+2"].centres.tolist() == [9, 3]
    assert all(torch.allclose(v.features.norm(dim=1), torch.ones(len(v.features))) for v in found.values())
    assert [v.name for v in variants(features[:2], centres[:2])] == ["all"]
    assert [v.name for v in variants(features, centres, kinds=("removed",))] == ["removed 0", "removed 1", "removed 2"]
    with pytest.raises(UsageError, match="unknown ablation 'remove': did you mean 'removed'"):
        variants(features, centres, kinds=("remove",))


def test_merging_before_the_text_tower(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", dense="value")
    vectors = model.tokens["depth"].detach()
    found = merged(
        model.text_features().detach(), model.centres, 0, 1, vectors, lambda v: model.encoder([["This object appears to be", v]])
    )
    own = DepthTokens(tiny_clip, depth="learned:2", dense="value")
    own.tokens["depth"].data = torch.stack([vectors[:2].mean(dim=0), vectors[2]])
    assert torch.allclose(found.features, own.text_features().detach(), atol=1e-5)


def test_heads_score_as_the_model_does(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", dense="value", scale="40")
    patches = torch.randn(2, 64, 3, 4)
    text = model.text_features().detach()
    unchanged = variants(text, model.centres)[0].head(40.0)
    assert torch.allclose(unchanged(patches), model.depth_from(patches, text).depth, atol=1e-5)
    two = DepthTokens(tiny_clip, depth="learned:2", dense="value", scale="40", bins=model.centres[1:].tolist())
    assert torch.allclose(variants(text, model.centres)[1].head(40.0)(patches), two.depth_from(patches, text[1:]).depth, atol=1e-5)


@pytest.mark.parametrize(("count", "pairs", "single"), [(2, 0, 0), (5, 10, 5), (14, 1, 14), (40, 1, 32)])
def test_ablations_stay_few(tiny_clip, model_of, count, pairs, single):
    model = model_of(tiny_clip, depth=f"learned:{count}")
    found, left_out = chosen_ablations(model, model.text_features().detach(), [f"w{i}" for i in range(count)])
    kinds = [variant.kind for variant in found]
    assert kinds.count("pair") == pairs and kinds.count("removed") == single and (left_out is None) == (count <= 12)
    for variant in found:
        assert len(variant.tokens) == (2 if variant.kind in ("merged", "pair") else 1)
        assert variant.word == (f"w{variant.tokens[0]}" if variant.kind == "replaced" else None)
    assert len({variant.name for variant in found}) == len(found) and f"replaced {count - 1} by w{count - 1}" in {v.name for v in found}
