"""What an image may change about its own prompts, or its own depth: CoCoOp's shift of the vectors, and a factor on the bin centres.

Both read the image's mean patch feature alone, and begin as if they were not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..prompt.encoder import PromptEncoder, PromptLayout, joined
from .settings import HIDDEN, SHIFT, ModelSettings

POSITIONS = 2048
"""Positions of prompts that go through the text tower together, but at least those of one image, which bounds memory."""
TextOf = Callable[[Tensor], Tensor]
"""From mean patch features [B, C] to text features [B, N, C]."""


class Shift(nn.Module):
    """What is added to every vector of an image's prompts: W₂ ReLU(W₁ g), g the image's mean patch feature.

    Source: Zhou et al., "Conditional Prompt Learning for Vision-Language Models" (CoCoOp), CVPR 2022, the paper's reference [2]. Its g is
    the feature of the whole image; its hidden layer has C / 16 units and biases, this one `HIDDEN` units and none. Mean patches of images
    are much alike, so a unit is above zero for nearly all of them or for none: with very few, a draw may leave none that learns.

    Attributes:
        down: W₁ [HIDDEN, C], drawn.
        up: W₂ [width, HIDDEN], from zero.

    Args:
        channels: C.
        width: of the text tower.
        seed: of the draw.
    """

    def __init__(self, channels: int, width: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(HIDDEN, channels, generator=torch.Generator().manual_seed(seed))
        self.down = nn.Parameter(drawn / math.sqrt(channels))
        self.up = nn.Parameter(torch.zeros(width, HIDDEN))

    def forward(self, means: Tensor) -> Tensor:
        """Mean patch features [B, C] to shifts [B, width]."""
        return F.linear(F.relu(F.linear(means, self.down)), self.up)


class Gain(nn.Module):
    """A factor on the depth of an image, exp(w·g + b), g its mean patch feature: how far away everything in it is, as a whole.

    Attributes:
        weight: w [C], from zero.
        bias: b, from zero.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, means: Tensor) -> Tensor:
        """Mean patch features [B, C] to factors [B]."""
        return (means @ self.weight + self.bias).exp()


def condition_of(settings: ModelSettings, channels: int, width: int) -> Shift | Gain | None:
    """What the settings of a model ask for, as it begins.

    Args:
        settings: of the model.
        channels: of patch features.
        width: of the text tower.
    """
    if settings.condition is None:
        return None
    return Shift(channels, width, settings.seed) if settings.condition == SHIFT else Gain(channels)


def mean_patch(patches: Tensor) -> Tensor:
    """Patch features [B, C, h, w] to what an image is as a whole, [B, C] float32."""
    return patches.float().mean(dim=(2, 3))


def shifted_text(encoder: PromptEncoder, layout: PromptLayout, vectors: Tensor, shifts: Tensor) -> Tensor:
    """Text features of several images' prompts, which differ by a shift of their vectors, with gradients.

    Words that all prompts begin with are computed once for all images, and each image pays for what follows. Where images are more than
    memory is meant to hold, each part of them is computed once more for the gradient instead of being remembered.

    Args:
        encoder: of the CLIP.
        layout: N prompts.
        vectors: [V, width], before the shift.
        shifts: [B, width], one for each image.

    Returns:
        [B, N, C], L2-normalised rows.
    """

    def encode(tables: Tensor) -> Tensor:
        count = len(tables)
        features = encoder.encode(joined([layout] * count, [len(vectors)] * count), tables.flatten(0, 1))
        return F.normalize(features, dim=-1).unflatten(0, (count, -1))

    parts = (vectors + shifts[:, None]).split(max(1, POSITIONS // layout.ids.numel()))
    if len(parts) == 1 or not (torch.is_grad_enabled() and parts[0].requires_grad):
        return torch.cat([encode(part) for part in parts])
    return torch.cat([checkpoint(encode, part, use_reentrant=False, preserve_rng_state=False) for part in parts])
