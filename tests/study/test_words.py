"""The best word per bin: against all combinations on tiny problems, never worse than a start, and made of real words."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, Scenes, UsageError
from depthtokens.experiment.evaluate import source_for
from depthtokens.prompt.scales import SCALES
from depthtokens.study import words
from depthtokens.study.patches import patches_with_truth, sample_patches
from depthtokens.study.words import search_words, word_candidates, word_score


def problem(seed, bins=2, candidates=6, patches=40, channels=8):
    """Random unit features, truths and centres in metres."""
    generator = torch.Generator().manual_seed(seed)
    patch, text = (F.normalize(torch.randn(n, channels, generator=generator), dim=1) for n in (patches, candidates))
    truth = 0.5 + 9 * torch.rand(patches, generator=generator)
    return patch, truth, text, torch.linspace(1, 9, bins)


@pytest.mark.parametrize("scale", [3.0, 378.0])
@pytest.mark.parametrize("seed", range(12))
def test_against_every_combination(seed, scale):
    """Each end is a place where no single change helps, by brute force, and from every start the best of all is found."""
    patch, truth, text, centres = problem(seed)
    scores = {pair: word_score(patch, truth, text[list(pair)], centres, scale) for pair in itertools.product(range(6), repeat=2)}
    starts = [(0, 1), (5, 5)]
    found = search_words(patch, truth, text, starts, centres, scale)
    assert found.score == pytest.approx(scores[found.indices], rel=1e-5) and found.converged
    assert found.start_scores[:2] == pytest.approx([scores[start] for start in starts], rel=1e-5)
    for k, index in itertools.product(range(2), range(6)):
        changed = list(found.indices)
        changed[k] = index
        assert found.score <= scores[tuple(changed)] * (1 + 1e-5)
    everywhere = search_words(patch, truth, text, list(scores), centres, scale, random_starts=0)
    assert everywhere.score == pytest.approx(min(scores.values()), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_never_worse_than_a_start_and_always_downwards(seed):
    patch, truth, text, centres = problem(seed, bins=5, candidates=300, patches=200, channels=16)
    starts = torch.randint(300, (3, 5), generator=torch.Generator().manual_seed(seed)).tolist()
    done = []
    found = search_words(patch, truth, text, starts, centres, 100.0, random_starts=2, progress=lambda *at: done.append(at))
    assert done == [(i, 5) for i in range(1, 6)] and len(found.start_scores) == len(found.end_scores) == 5
    for start, (before, after) in enumerate(zip(found.start_scores, found.end_scores, strict=True)):
        way = [before, *(step.score for step in found.history if step.start == start)]
        assert way == sorted(way, reverse=True) and len(set(way)) == len(way) and way[-1] == after
    assert found.score == min(found.end_scores) < min(found.start_scores)
    assert found.score == pytest.approx(word_score(patch, truth, text[list(found.indices)], centres, 100.0), rel=1e-6)
    again = search_words(patch, truth, text, starts, centres, 100.0, random_starts=2)
    assert again == found
    short = search_words(patch, truth, text, starts, centres, 100.0, random_starts=0, sweeps=1)
    assert not short.converged and min(short.start_scores) > short.score >= found.score


def test_similarities_that_are_not_kept_give_the_same_words(monkeypatch):
    patch, truth, text, centres = problem(0, bins=4, candidates=333, patches=100)
    kept = search_words(patch, truth, text, [(0, 1, 2, 3)], centres, 50.0)
    monkeypatch.setattr(words, "CACHE", 0)
    monkeypatch.setattr(words, "TILE", 700)
    made_again = search_words(patch, truth, text, [(0, 1, 2, 3)], centres, 50.0)
    assert made_again.indices == kept.indices and made_again.score == pytest.approx(kept.score, rel=1e-5)


def test_starts_that_do_not_fit_are_refused():
    patch, truth, text, centres = problem(0)
    for starts, drawn in (([(0, 1, 2)], 0), ([], 0)):
        with pytest.raises(UsageError, match="at least one start, each of 2"):
            search_words(patch, truth, text, starts, centres, 1.0, random_starts=drawn)


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


def test_patches_come_with_the_truth_under_them():
    """Truth that is a known function of the pixel, features that name image, row and column."""
    rows, columns = torch.meshgrid(torch.arange(7.0), torch.arange(13.0), indexing="ij")
    truth = torch.stack([1 + rows + 20 * columns, 2 + rows + 20 * columns])[:, None]
    truth[0, 0, 0, 0] = 0
    grid = torch.stack(torch.meshgrid(torch.arange(2.0), torch.arange(3.0), torch.arange(5.0), indexing="ij"), dim=1)
    features, depths = patches_with_truth(grid, truth, (0.5, 1000.0))
    assert len(features) == 2 * 15 - 1 and len(features.unique(dim=0)) == 29
    assert torch.equal(depths, 1 + features[:, 0] + 3 * features[:, 1] + 20 * 3 * features[:, 2])
    assert float(patches_with_truth(grid, truth, (0.5, 50.0))[1].max()) <= 50


def test_patches_are_drawn_from_the_training_views(tiny_clip):
    scenes = Scenes("indoor", "train", 6, size=(64, 96), seed=3)
    model = DepthTokens(tiny_clip, dense="value")
    source = source_for(model, scenes, workers=0)
    features, depths = sample_patches(source, 1000, batch_size=4)
    (everything,) = source.training(0, range(6), 6)
    usable, under = patches_with_truth(everything.patches, everything.truth, scenes.depth_range)
    assert features.shape == usable.shape and 30 < len(usable) <= 6 * 6
    assert torch.allclose(features.sum(dim=0), usable.sum(dim=0), atol=1e-4)
    assert torch.equal(depths.sort().values, under.sort().values)
    few, same = sample_patches(source, 5, seed=1), sample_patches(source, 5, seed=1)
    assert torch.equal(few[0], same[0]) and torch.equal(few[1], same[1]) and len(few[1]) == 5
    assert not torch.equal(few[1], sample_patches(source, 5, seed=2)[1])
    source.depth_range = (1000.0, 2000.0)
    with pytest.raises(UsageError, match="no patch of"):
        sample_patches(source, 5)
