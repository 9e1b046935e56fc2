"""Patch features with the depth under them, drawn from a training split."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UsageError
from ..experiment.source import Source


def sample_patches(source: Source, count: int, *, images: int = 500, batch_size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Up to `count` patch features [P, C] float32 of training views and their truth [P] metres, drawn from `images` images.

    Patches without truth, or with one outside the source's depth range, are not drawn. Raises UsageError where none is left.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source.names), generator=generator)[:images].tolist()
    share = math.ceil(2 * count * batch_size / max(1, len(order)))  # of each batch, more than needed: some have little truth
    drawn = []
    for patches, truth in source.training(0, order, batch_size):
        features, depths = patches_with_truth(patches, truth, source.depth_range)
        chosen = torch.randperm(len(depths), generator=generator)[:share].to(depths.device)
        drawn.append((features[chosen], depths[chosen]))
    features, depths = torch.cat([part for part, _ in drawn]), torch.cat([part for _, part in drawn])
    if not len(depths):
        raise UsageError(f"no patch of {source.name} ({source.split}) has truth within the depth range to search words on")
    chosen = torch.randperm(len(depths), generator=generator)[:count].to(depths.device)
    return features[chosen], depths[chosen]


def patches_with_truth(patches: Tensor, truth: Tensor, depth_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The patches [P, C] of patches [B, C, h, w] that have truth within depth_range (lo, hi], and that truth [P], metres.

    truth: [B, 1, H, W] metres, 0 = none. A patch's truth is that of the pixel where upsampling (align_corners=True) leaves its
    prediction as it is.
    """
    rows, columns = (
        torch.linspace(0, size - 1, steps, device=truth.device).round().long()
        for size, steps in zip(truth.shape[-2:], patches.shape[-2:], strict=True)
    )
    at_patches = truth[:, 0, rows[:, None], columns]
    usable = (at_patches > depth_range[0]) & (at_patches <= depth_range[1])
    return patches.permute(0, 2, 3, 1)[usable].float(), at_patches[usable].float()
