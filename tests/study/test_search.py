"""The search of the best word per bin: against all combinations on tiny problems, and never worse than a start."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from depthtokens import UsageError
from depthtokens.study import search
from depthtokens.study.search import search_words, word_score


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
    assert done == [("searching words", i, 5) for i in range(1, 6)] and len(found.start_scores) == len(found.end_scores) == 5
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
    monkeypatch.setattr(search, "CACHE", 0)
    monkeypatch.setattr(search, "TILE", 700)
    made_again = search_words(patch, truth, text, [(0, 1, 2, 3)], centres, 50.0)
    assert made_again.indices == kept.indices and made_again.score == pytest.approx(kept.score, rel=1e-5)


def test_starts_that_do_not_fit_are_refused():
    patch, truth, text, centres = problem(0)
    for starts, drawn in (([(0, 1, 2)], 0), ([], 0)):
        with pytest.raises(UsageError, match="at least one start, each of 2"):
            search_words(patch, truth, text, starts, centres, 1.0, random_starts=drawn)
