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


class Target:
    """The valid pixels of one image's ground truth, made ready for many predictions. truth: metres; valid: bool, the same shape."""

    def __init__(self, truth: Tensor, valid: Tensor) -> None:
        self.valid, self.truth = valid, truth[valid]
        self.log, self.pixels = self.truth.log(), len(self.truth)

    def moments(self, depth: Tensor) -> dict[str, float]:
        """Means over valid pixels from which every metric follows. depth: metres, positive, in the shape of the truth.

        rmse and rmse_log come back squared (a mean), so that values of several images can be pooled before the root.
        """
        depth = depth[self.valid]
        error, log_error = depth - self.truth, depth.log() - self.log
        relative, square = error.abs() / self.truth, error.square()
        logs = log_error.abs()
        values = {
            "abs_rel": relative,
            "sq_rel": square / self.truth,
            "rmse": square,
            "rmse_log": log_error.square(),
            "log10": logs / math.log(10),
            **{f"d{power}": logs < power * math.log(1.25) for power in (1, 2, 3)},
        }
        means = {key: value.sum(dtype=torch.float64).item() / self.pixels for key, value in values.items()}
        return {key: means["rmse_log" if key == "rmsl_paper" else key] for key in METRICS}


def depth_metrics(depth: Tensor, target: Tensor) -> dict[str, float]:
    """The usual errors of one set of pixels. depth, target: [n] metres, positive.

    `rmsl_paper` is the paper's RMSL column: the mean squared log error, without the root that `rmse_log` has.

    >>> depth_metrics(torch.tensor([2.0]), torch.tensor([1.0]))["abs_rel"]
    1.0
    """
    return _rooted(Target(target, torch.ones_like(target, dtype=torch.bool)).moments(depth))


def _rooted(values: dict[str, float]) -> dict[str, float]:
    return {key: math.sqrt(value) if key in ("rmse", "rmse_log") else value for key, value in values.items()}


@dataclass
class MetricAccumulator:
    """Metrics over many images, averaged per image (the paper's numbers) and pooled over pixels."""

    per_image: list[dict[str, float]] = field(default_factory=list)
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METRICS, 0.0))
    _pixels: int = 0

    def add(self, moments: dict[str, float], pixels: int) -> dict[str, float]:
        """Add one image by its `Target.moments` over `pixels` > 0 valid pixels; returns its own metrics."""
        for key in METRICS:
            self._sums[key] += moments[key] * pixels
        self._pixels += pixels
        self.per_image.append(_rooted(moments))
        return self.per_image[-1]

    def image_wise(self) -> dict[str, float]:
        """Mean over images of each metric."""
        return {key: sum(row[key] for row in self.per_image) / len(self.per_image) for key in METRICS}

    def pixel_wise(self) -> dict[str, float]:
        """Each metric over all pixels of all images."""
        return _rooted({key: total / self._pixels for key, total in self._sums.items()})
