"""What every data set hands out: one normalised image with its depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Sample(NamedTuple):
    """One pair, or a batch of them after collation.

    image: [3, H, W] float32 RGB, normalised with ImageNet's mean and standard deviation (the released recipe, not CLIP's).
    depth: [1, H, W] float32 metres, 0 = no ground truth.
    index: position in the data set.
    """

    image: Tensor
    depth: Tensor
    index: int  # type: ignore[assignment]  # the field hides tuple.index, which nobody needs here


def normalise(image: NDArray[np.float32]) -> Tensor:
    """RGB [H, W, 3] in 0..1 -> normalised float32 tensor [3, H, W]."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)))
