"""Patches and the depth under them."""

from __future__ import annotations

import pytest
import torch

from depthtokens import DepthTokens, Scenes, UsageError
from depthtokens.experiment.source import Reading, open_source
from depthtokens.study.patches import patches_with_truth, sample_patches


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
    source = open_source(model, scenes, reading=Reading(workers=0))
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
