"""Learning tokens on patch features that were computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..depth.loss import MIN_TRUTH
from ..depth.model import DepthTokens
from .optimizer import make_optimizer, update


@dataclass(frozen=True)
class Patches:
    """Patch features of a split and of its mirror images.

    plain, mirrored: [M, C, h, w] float32. target: [M, 1, H, W] metres, 0 = none; every `stride`-th pixel of the truth.
    """

    plain: Tensor
    mirrored: Tensor
    target: Tensor

    @classmethod
    def of(
        cls,
        model: DepthTokens,
        dataset: DepthDataset,
        *,
        stride: int = 2,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Patches:
        """Run the frozen image tower of `model` over a data set of equally sized images, and over their mirror images."""
        plain, mirrored, targets = [], [], []
        for samples in batches(dataset, range(len(dataset)), batch_size, workers=0):
            images = torch.stack([sample.image for sample in samples]).to(model.centres.device)
            plain.append(model.image_features(images))
            mirrored.append(model.image_features(images.flip(-1)))
            targets.append(torch.stack([sample.depth[:, ::stride, ::stride] for sample in samples]).to(images.device))
            if progress:
                progress(sum(map(len, plain)), len(dataset))
        return cls(torch.cat(plain), torch.cat(mirrored), torch.cat(targets))


def fit(
    model: DepthTokens, patches: Patches, steps: int, *, lr: float, batch_size: int = 16, weight_decay: float = 0.1, clip_norm: float = 0.1,
    seed: int = 42, progress: Callable[[int, int], None] | None = None,
) -> list[float]:  # fmt: skip
    """Learn a model's tokens for some steps of the released recipe on stored features, half of the views mirrored.

    Returns the loss of every step. Raises TrainingError where there is nothing to learn.
    """
    optimizer, scheduler = make_optimizer(model, steps, lr, weight_decay)
    generator = torch.Generator().manual_seed(seed)
    usable = (patches.target > MIN_TRUTH).flatten(1).any(dim=1).nonzero()[:, 0].cpu()
    order, losses = torch.empty(0, dtype=torch.long), []
    for step in range(steps):
        if len(order) < min(batch_size, len(usable)):
            order = usable[torch.randperm(len(usable), generator=generator)]
        chosen, order = order[:batch_size], order[batch_size:]
        flip = torch.rand(len(chosen), generator=generator).to(patches.plain.device) < 0.5
        flip = flip[:, None, None, None]
        features = torch.where(flip, patches.mirrored[chosen], patches.plain[chosen])
        target = patches.target[chosen]
        losses.append(update(model, optimizer, features, torch.where(flip, target.flip(-1), target), clip_norm).item())
        if step < steps - 1:
            scheduler.step()
        if progress:
            progress(step + 1, steps)
    return losses
