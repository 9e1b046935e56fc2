"""SILog, the training loss, as the released code runs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError

MIN_TRUTH = 0.001  # metres; ground truth at or below is "no ground truth"


def silog(depth: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant log loss, 10 sqrt(var(g) + 0.15 mean(g)^2) with g = log depth - log target over valid pixels.

    depth: [B, 1, h, w] metres, resized here (bilinear, align_corners=True) to target: [B, 1, H, W] metres, valid where > 0.001.
    Released code; the paper's eq. 1 prints mean(g^2) + 0.15 mean(g)^2 without the root, which is not what was run.
    Raises DataError where no pixel is valid.
    """
    depth = F.interpolate(depth.float(), size=target.shape[-2:], mode="bilinear", align_corners=True)
    valid = target > MIN_TRUTH
    if not valid.any():
        raise DataError("no valid ground truth in this batch")
    g = torch.log(depth[valid]) - torch.log(target[valid])
    mean = g.mean()
    return 10 * torch.sqrt((g - mean).square().mean() + 0.15 * mean.square())
