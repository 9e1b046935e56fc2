"""Controls: two heads that never look at the image, one constant depth and one mean depth map, learned from the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..depth.protocol import Head, Protocol
from ..errors import DataError
from ..progress import Progress, silent
from .config import CONSTANT, MEAN_MAP

MOST = 2000
"""How many depth maps of a training split are read at most, evenly spaced over it."""


@dataclass(frozen=True)
class Controls:
    """What is known of depth without looking at the image.

    Attributes:
        constant: metres, the geometric mean of all training depths.
        mean_map: [1, 1, H, W] metres, the geometric mean of the training depths at each pixel.
        maps: number of training maps that were read.
    """

    constant: float
    mean_map: Tensor
    maps: int

    def heads(self, protocol: Protocol) -> dict[str, Head]:
        """The two controls as heads, by the names of their rows.

        Args:
            protocol: by which they are to be scored; its input crop is taken from the mean map as it is from images.
        """
        constant, mean_map = torch.full((1, 1, 1, 1), self.constant), protocol.shown(self.mean_map)
        return {
            CONSTANT: lambda patches: constant.expand(len(patches), -1, -1, -1),
            MEAN_MAP: lambda patches: mean_map.expand(len(patches), -1, -1, -1),
        }

    @property
    def parameters(self) -> dict[str, int]:
        """How many numbers each of them consists of, by row."""
        return {CONSTANT: 1, MEAN_MAP: self.mean_map.numel()}


def learn_controls(
    dataset: DepthDataset,
    depth_range: tuple[float, float],
    workers: int = 2,
    progress: Progress = silent,
    images: Sequence[int] | None = None,
) -> Controls:
    """Learn both controls: geometric means over the valid depths of a training split.

    Maps of another size than the first are resized to it (nearest). A pixel at which no training image has depth takes the constant.

    Args:
        dataset: the split, opened without augmentation.
        depth_range: (lo, hi) metres, of the depths that count.
        workers: processes that read depth maps.
        progress: called as maps are read.
        images: which of its images; None for at most `MOST` of them.

    Raises:
        DataError: where the split has no valid depth.
    """
    chosen = spaced(len(dataset)) if images is None else images
    count = len(chosen)
    lo, hi = depth_range
    total = seen = None
    for done, (depth,) in enumerate(batches(_Depths(dataset), chosen, 1, workers), 1):
        if total is None or seen is None:
            total, seen = torch.zeros(depth.shape, dtype=torch.float64), torch.zeros(depth.shape, dtype=torch.float64)
        if depth.shape != total.shape:
            depth = F.interpolate(depth[None, None], size=total.shape, mode="nearest")[0, 0]
        valid = (depth > lo) & (depth <= hi)
        total += torch.where(valid, depth, 1.0).double().log()
        seen += valid
        progress("reading training depths", done, count)
    if total is None or seen is None or not seen.any():
        raise DataError(f"the training split of {dataset.name} has no depth within {lo:g}-{hi:g} m to learn controls from")
    constant = float((total.sum() / seen.sum()).exp())
    mean_map = torch.where(seen > 0, (total / seen.clamp(min=1)).exp(), constant).float()
    return Controls(constant, mean_map[None, None], count)


def spaced(images: int) -> list[int]:
    """Indices of so many images, evenly spaced over them, or of `MOST` where they are more."""
    return np.linspace(0, images - 1, min(images, MOST)).round().astype(int).tolist()


def shared_images(training: DepthDataset, test: DepthDataset) -> int:
    """How many images of a test set the training set has too, by their files."""

    def keys(data: DepthDataset) -> set[tuple[str, str]]:
        return {(str(image.absolute()), name) for (image, _), name in zip(data.pairs, data.names, strict=True)}

    return len(keys(training) & keys(test))


class _Depths:
    """Depth maps [H, W] metres of a data set, read without preparing images for CLIP."""

    def __init__(self, dataset: DepthDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.dataset.read(index)[1])
