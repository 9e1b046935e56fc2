"""Controls that need no image: one constant depth, and the mean depth map, both learned from the training split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError
from .evaluate import Progress, Row, Scores, score_rows, token_row
from .source import Source

MOST = 2000
"""Training depth maps read at most, evenly spaced over the split."""


@dataclass(frozen=True)
class Controls:
    """constant: geometric mean depth, metres. mean_map: [1, 1, H, W] geometric mean per pixel, metres. maps: training maps read."""

    constant: float
    mean_map: Tensor
    maps: int

    def rows(self, protocol: Protocol) -> dict[str, Row]:
        """The two controls as rows of an evaluation by `protocol`, whose input crop the map gets as the images do."""
        constant, mean_map = torch.full((1, 1, 1, 1), self.constant), protocol.shown(self.mean_map)
        return {
            "constant": lambda encoded: constant.expand(len(encoded), -1, -1, -1),
            "mean map": lambda encoded: mean_map.expand(len(encoded), -1, -1, -1),
        }


def learn_controls(dataset: DepthDataset, depth_range: tuple[float, float], workers: int = 2, progress: Progress | None = None) -> Controls:
    """Geometric means over valid depths (within depth_range, metres) of a training split, given without augmentation.

    Maps of another size than the first are resized to it (nearest). Pixels that no training image has depth for take the constant.
    Raises DataError where the split has no valid depth.
    """
    count = min(len(dataset), MOST)
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
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
        if progress:
            progress(done, count)
    if total is None or seen is None or not seen.any():
        raise DataError(f"the training split of {dataset.name} has no depth within {lo:g}-{hi:g} m to learn controls from")
    constant = float((total.sum() / seen.sum()).exp())
    mean_map = torch.where(seen > 0, (total / seen.clamp(min=1)).exp(), constant).float()
    return Controls(constant, mean_map[None, None], count)


def evaluate_with_controls(
    model: DepthTokens,
    source: Source,
    training: DepthDataset | None,
    protocol: str | Protocol = "auty2023",
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Score a model ("tokens") and, learned from `training`, one constant depth and the mean depth map, in one pass.

    source: from `evaluate.source_for`. Controls do not depend on the image, so the protocol's flip averaging is left out for them.
    Raises as `evaluate`.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    controls: dict[str, Row] = {}
    if training is not None:
        controls = learn_controls(training, protocol.depth_range or source.depth_range, workers, progress).rows(protocol)
    rows = {"tokens": token_row(model)} | controls
    return score_rows(rows, source, protocol, image_free=controls, progress=progress)


class _Depths:
    """Depth maps [H, W] metres of a data set, without normalised images."""

    def __init__(self, dataset: DepthDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.dataset.read(index)[1])
