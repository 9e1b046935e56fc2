"""The model as it predicts: everything that one image does not change is computed once and folded into as few layers as can be.

Prompts, logit scale and channel choice become one 1x1 convolution over the trunk's output, which is divided by the trunk's norm
afterwards instead of before; each BatchNorm disappears into the convolution before it; the text tower is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.device import dtype_of
from ..clip.image import ImageTower
from ..data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ..data.images import Photo, named, read_photo, shown_at
from ..errors import DataError, UsageError
from .depthmap import DepthMap
from .settings import ModelSettings

_EPSILON = 1e-12  # as in F.normalize


class Output(NamedTuple):
    """What a head gives, at the resolution of the patch features.

    Attributes:
        depth: [B, 1, h, w] metres.
        probs: [B, N, h, w], probabilities of the bins.
    """

    depth: Tensor
    probs: Tensor


class FusedDepth(nn.Module):
    """What `DepthTokens(images)` gives, for inference alone: equal up to float rounding, at about the cost of the bare image tower.

    Holds a folded copy of the image tower in channels-last layout and nothing of the text tower; later changes of the model do not
    reach it.

    Attributes:
        stride: pixels per patch.
        tower: the folded image tower.
        weight: [N, D], what a trunk's output is multiplied with.
        centres: [N] metres.
        mean: [3, 1, 1], ImageNet's mean of pixels in 0-1.
        std: [3, 1, 1], ImageNet's standard deviation.

    Args:
        settings: of the model.
        tower: the model's image tower, which is copied.
        text: [N, C], the model's text features times its logit scale.
        centres: [N] metres.
        precision: of the tower; from its output on everything is float32.

    Raises:
        UsageError: for an unknown precision.
    """

    mean: Tensor
    std: Tensor
    centres: Tensor
    weight: Tensor

    def __init__(self, settings: ModelSettings, tower: ImageTower, text: Tensor, centres: Tensor, precision: str = "float32") -> None:
        super().__init__()
        self.precision = precision
        self.normalisation, self.depth_range, self.predict_side = settings.normalisation, settings.depth_range, settings.predict_side
        self.tower = tower.folded(settings.dense, dtype_of(precision))
        self.stride = tower.stride(settings.dense)
        self.register_buffer("weight", self.tower.weights_for(text.detach().float()))  # [N, D]
        self.register_buffer("centres", centres.detach().clone())
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, device=centres.device)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Output:
        """Depth and probabilities at patch resolution.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.

        Raises:
            UsageError: for images smaller than one patch.
        """
        x = self.tower(images, self.normalisation)
        logits = F.linear(x, self.weight) / x.norm(dim=-1, keepdim=True).clamp_min(_EPSILON)
        probs = logits.softmax(dim=-1)
        return Output((probs @ self.centres)[:, None], probs.permute(0, 3, 1, 2))

    def maps(self, photos: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Full-size maps of photos.

        Args:
            photos: uint8 [B, H, W, 3] RGB.
            size: (H, W) of the maps.

        Returns:
            Depth and uncertainty [B, 1, *size], both in metres, and probs [B, N, h, w]. Depth is clamped to the model's range at patch
            resolution, uncertainty is the standard deviation over bins; both are resized bilinearly (align_corners=True).
        """
        depth, probs = self((photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
        depth = depth.clamp(*self.depth_range)
        spread = (probs * (self.centres[:, None, None] - depth).square()).sum(dim=1, keepdim=True).sqrt()
        full = F.interpolate(torch.cat([depth, spread], dim=1), size=size, mode="bilinear", align_corners=True)
        return full[:, :1], full[:, 1:], probs

    @torch.inference_mode()
    def predict(self, image: Photo) -> DepthMap:
        """Depth of one photo; see `DepthTokens.predict`."""
        rgb = read_photo(image)
        shown = torch.from_numpy(shown_at(rgb, self.predict_side))[None].to(self.weight.device)
        with torch.autocast(shown.device.type, enabled=False):  # a precision asked for outside is for training, not for this head
            try:
                depth, spread, probs = (t[0].cpu().numpy() for t in self.maps(shown, rgb.shape[:2]))
            except UsageError as error:
                raise DataError(f"{named(image)}: {error}") from error
        return DepthMap(depth[0], spread[0], probs, self.depth_range, rgb)
