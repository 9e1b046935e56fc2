"""Patch features with the depth under them, drawn from a training split."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import UsageError
from ..experiment.source import Source


def sample_patches(source: Source, count: int, *, images: int = 500, batch_size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Patches of training views that have ground truth within the source's depth range.

    Args:
        source: training images.
        count: patches wanted; there may be fewer.
        images: how many images they are drawn from, at most.
        batch_size: images read together, which must be of one size.
        seed: of the draw.

    Returns:
        Patch features [P, C] float32, and their truth [P] metres.

    Raises:
        UsageError: where no patch has any.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(source.names), generator=generator)[:images].tolist()
    share = math.ceil(2 * count * batch_size / max(1, len(order)))  # of each batch, more than needed: some have little truth
    drawn = []
    for patches, truth, _ in source.training(0, order, batch_size):
        features, depths = patches_with_truth(patches, truth, source.depth_range)
        chosen = torch.randperm(len(depths), generator=generator)[:share].to(depths.device)
        drawn.append((features[chosen], depths[chosen]))
    features, depths = torch.cat([part for part, _ in drawn]), torch.cat([part for _, part in drawn])
    if not len(depths):
        raise UsageError(f"no patch of {source.name} ({source.split}) has truth within the depth range to search words on")
    chosen = torch.randperm(len(depths), generator=generator)[:count].to(depths.device)
    return features[chosen], depths[chosen]


def patches_with_truth(patches: Tensor, truth: Tensor, depth_range: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The patches that have ground truth.

    A patch's truth is that of the pixel where upsampling (align_corners=True) leaves its prediction as it is.

    Args:
        patches: [B, C, h, w].
        truth: [B, 1, H, W] metres, 0 = none.
        depth_range: (lo, hi] metres, within which truth counts.

    Returns:
        Those patches [P, C] float32, and their truth [P] metres.
    """
    rows, columns = (
        torch.linspace(0, size - 1, steps, device=truth.device).round().long()
        for size, steps in zip(truth.shape[-2:], patches.shape[-2:], strict=True)
    )
    at_patches = truth[:, 0, rows[:, None], columns]
    usable = (at_patches > depth_range[0]) & (at_patches <= depth_range[1])
    return patches.permute(0, 2, 3, 1)[usable].float(), at_patches[usable].float()
