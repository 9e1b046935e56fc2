"""The upper control: a plain linear head on the same patch features, in the place of prompts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fused import Output
from .model import DepthTokens
from .shapes import need_features


class LinearHead(nn.Module):
    """A 1×1 convolution from patch features to depth bins: how much depth the features hold, whether language can say it or not.

    It has the bins, mode and logit scale of a model, and its weights stand where that model's text features stand; they are bound
    neither to what a sentence can say nor to unit length. (C + 1)·N numbers are trained.

    Attributes:
        settings: the model's.
        depth_range: (lo, hi) metres.
        clip: the model's CLIP.
        tower: the model's image tower.
        centres: [N] metres.
        scale: the model's logit scale.
        weight: [N, C], trained.
        bias: [N], trained.

    Args:
        model: whose settings, CLIP and bins it takes.
    """

    def __init__(self, model: DepthTokens) -> None:
        super().__init__()
        self.settings, self.depth_range, self.clip, self.tower = model.settings, model.depth_range, model.clip, model.tower
        self.centres: Tensor
        self.register_buffer("centres", model.centres.clone(), persistent=False)
        self.scale = float(model.log_scale.detach().exp())
        # From zero: with weights of a prompt's length the softmax begins saturated, and some seeds never leave where it stands.
        self.weight = nn.Parameter(torch.zeros(len(model.centres), model.tower.channels, device=model.centres.device))
        self.bias = nn.Parameter(torch.zeros_like(model.centres))

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training changes, by name."""
        return {"weight": self.weight, "bias": self.bias}

    def text_features(self, patches: Tensor | None = None) -> Tensor:
        """[N, C]: what correlates with patches in the place of prompts, whatever the image."""
        return self.weight

    def depth_from(self, patches: Tensor, text: Tensor) -> Output:
        """As `DepthTokens.depth_from`, with a bias per bin."""
        return Output.of(self.logits(patches, text), self.centres)

    def centres_of(self, patches: Tensor) -> Tensor:
        """[N] metres, the same for all images."""
        return self.centres

    def logits(self, patches: Tensor, text: Tensor) -> Tensor:
        """As `DepthTokens.logits`, with a bias per bin."""
        need_features(patches, text, len(self.centres))
        return nn.functional.conv2d(patches.float(), self.scale * text[:, :, None, None], self.bias)


Trainable = DepthTokens | LinearHead
"""What can be trained, and then is a head: from patch features to depth."""
