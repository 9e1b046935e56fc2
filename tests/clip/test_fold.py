"""Image towers for inference."""

from __future__ import annotations

import torch

import towers
from depthtokens.clip.fold import quick
from depthtokens.clip.image import ImageTower


def test_a_quick_tower_s_features_are_the_same(tiny_clip):
    tower, images = tiny_clip.image, torch.randn(2, 3, 64, 96)
    folded = quick(tower)
    assert tower.batchnorm_layers() and not folded.batchnorm_layers()
    assert not any(module.training for module in folded.visual.modules())  # images would go through it all at once
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in folded.visual.parameters() if w.ndim == 4)
    for mode, features in tower.patches_in(images, list(tower.modes)).items():
        assert (folded.patches(images, mode) - features).abs().max() < 1e-5
    transformer = ImageTower(towers.shrunk("ViT-B-16"))
    assert quick(transformer) is transformer  # nothing to gain, and half the memory
