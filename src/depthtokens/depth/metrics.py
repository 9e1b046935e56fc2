"""Depth metrics: one pure function, and an accumulator that keeps per-image values and pooled sums."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

HIGHER_IS_BETTER = {
    "abs_rel": False, "sq_rel": False, "rmse": False, "rmse_log": False, "rmsl_paper": False, "log10": False,
    "d1": True, "d2": True, "d3": True,
}  # fmt: skip
METRICS = tuple(HIGHER_IS_BETTER)


def moments(depth: Tensor, target: Tensor) -> dict[str, float]:
    """Means over pixels from which every metric follows. depth, target: [n] metres, positive.

    rmse and rmse_log come back squared (a mean), so that values of several images can be pooled before the root.
    """
    depth, target = depth.double(), target.double()
    error, log_error = depth - target, depth.log() - target.log()
    ratio = torch.maximum(depth / target, target / depth)
    return {
        "abs_rel": (error.abs() / target).mean().item(),
        "sq_rel": (error.square() / target).mean().item(),
        "rmse": error.square().mean().item(),
        "rmse_log": log_error.square().mean().item(),
        "rmsl_paper": log_error.square().mean().item(),
        "log10": (log_error.abs() / math.log(10)).mean().item(),
        **{f"d{power}": (ratio < 1.25**power).double().mean().item() for power in (1, 2, 3)},
    }


def depth_metrics(depth: Tensor, target: Tensor) -> dict[str, float]:
    """The usual errors of one set of pixels. depth, target: [n] metres, positive.

    `rmsl_paper` is the paper's RMSL column: the mean squared log error, without the root that `rmse_log` has.

    >>> depth_metrics(torch.tensor([2.0]), torch.tensor([1.0]))["abs_rel"]
    1.0
    """
    return _rooted(moments(depth, target))


def _rooted(values: dict[str, float]) -> dict[str, float]:
    return {key: math.sqrt(value) if key in ("rmse", "rmse_log") else value for key, value in values.items()}


@dataclass
class MetricAccumulator:
    """Metrics over many images, averaged per image (the paper's numbers) and pooled over pixels."""

    per_image: list[dict[str, float]] = field(default_factory=list)
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METRICS, 0.0))
    _pixels: int = 0

    def update(self, depth: Tensor, target: Tensor) -> dict[str, float]:
        """Add one image's valid pixels, depth and target [n] metres with n > 0; returns its own metrics."""
        values = moments(depth, target)
        for key in METRICS:
            self._sums[key] += values[key] * len(depth)
        self._pixels += len(depth)
        self.per_image.append(_rooted(values))
        return self.per_image[-1]

    def image_wise(self) -> dict[str, float]:
        """Mean over images of each metric."""
        return {key: sum(row[key] for row in self.per_image) / len(self.per_image) for key in METRICS}

    def pixel_wise(self) -> dict[str, float]:
        """Each metric over all pixels of all images."""
        return _rooted({key: total / self._pixels for key, total in self._sums.items()})
