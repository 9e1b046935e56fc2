"""Depth metrics: each is one entry that says what it is called, which way it is better, and how it comes from pixels.

Tables and pages read names, labels and directions from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..errors import DataError, UsageError
from .shapes import need, need_same


class Errors:
    """How a prediction differs from ground truth, pixel by pixel; what several metrics read is computed once.

    Args:
        depth: [n] metres, positive.
        truth: [n] metres, positive.
        log_truth: its logarithm.
    """

    def __init__(self, depth: Tensor, truth: Tensor, log_truth: Tensor) -> None:
        self.depth, self.truth = depth, truth
        self.error, self.log_error = depth - truth, depth.log() - log_truth

    @cached_property
    def square(self) -> Tensor:
        """Squared error, square metres."""
        return self.error.square()

    @cached_property
    def log_square(self) -> Tensor:
        """Squared error of the natural logarithm."""
        return self.log_error.square()

    @cached_property
    def ratio(self) -> Tensor:
        """The larger of depth and truth over the smaller."""
        return torch.maximum(self.truth / self.depth, self.depth / self.truth)

    @cached_property
    def log_abs(self) -> Tensor:
        """Absolute error of the natural logarithm."""
        return self.log_error.abs()


@dataclass(frozen=True)
class Metric:
    """One figure that says how good a prediction is.

    Attributes:
        name: what files and code call it.
        label: what tables and pages call it.
        pixels: from `Errors` to what each pixel contributes, [n]; the metric begins with the mean of that over pixels.
        unit: of the finished figure, "" for none.
        higher_is_better: whether a larger figure is the better one.
        rooted: whether the figure is the square root of that mean; means of several images are pooled before the root is taken.
        quoted: whether tables for people show it.
    """

    name: str
    label: str
    pixels: Callable[[Errors], Tensor]
    unit: str = ""
    higher_is_better: bool = False
    rooted: bool = False
    quoted: bool = False

    @property
    def heading(self) -> str:
        """Label, unit and direction, for the top of a column."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.label}{unit} {'↑' if self.higher_is_better else '↓'}"

    def finish(self, mean: float) -> float:
        """The figure, from the mean of `pixels` over all pixels."""
        return math.sqrt(mean) if self.rooted else mean

    def better(self, a: float, b: float) -> bool:
        """Whether the figure `a` is better than `b`."""
        return a > b if self.higher_is_better else a < b


def _within(power: int) -> Callable[[Errors], Tensor]:
    """Whether depth and truth differ by less than a factor of 1.25 to that power, by ratios as in the released code.

    Logarithms would round to another side of the edge.
    """
    return lambda errors: errors.ratio < 1.25**power


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("abs_rel", "AbsRel", lambda e: e.error.abs() / e.truth, quoted=True),
        Metric("sq_rel", "SqRel", lambda e: e.square / e.truth, unit="m"),
        Metric("rmse", "RMSE", lambda e: e.square, unit="m", rooted=True, quoted=True),
        Metric("rmse_log", "RMSE log", lambda e: e.log_square, rooted=True),
        Metric("rmsl_paper", "RMSL (paper)", lambda e: e.log_square),
        Metric("log10", "log10", lambda e: e.log_abs / math.log(10), quoted=True),
        Metric("d1", "δ < 1.25", _within(1), higher_is_better=True, quoted=True),
        Metric("d2", "δ < 1.25²", _within(2), higher_is_better=True),
        Metric("d3", "δ < 1.25³", _within(3), higher_is_better=True),
    )
}
"""Every metric by name. `rmsl_paper` is the paper's RMSL column: the mean squared log error, without the root that `rmse_log` has."""
QUOTED = tuple(name for name, metric in METRICS.items() if metric.quoted)
"""Names of the metrics that tables for people show."""


class Target:
    """The valid pixels of one image's ground truth, made ready for many predictions.

    Attributes:
        valid: bool, in the shape of the image: the pixels that count.
        truth: [n] metres, at valid pixels.
        log: [n], its logarithm.
        pixels: n.

    Args:
        truth: metres, in any shape.
        valid: bool, the same shape: the pixels that count.

    Raises:
        UsageError: for other types, or two shapes.
        DataError: where no pixel counts.
    """

    def __init__(self, truth: Tensor, valid: Tensor) -> None:
        need(truth, "truth", "[...]")
        need(valid, "valid", "[...]", torch.bool)
        need_same(truth, valid, "truth and valid")
        self.valid, self.truth = valid, truth[valid]
        self.log, self.pixels = self.truth.log(), len(self.truth)
        if not self.pixels:
            raise DataError("no pixel of this ground truth counts")

    def moments(self, depth: Tensor) -> dict[str, float]:
        """Means over valid pixels, from which every metric follows; those of several images can be pooled.

        Args:
            depth: metres, positive, in the shape of the image.

        Returns:
            Metric name -> mean of `Metric.pixels`, before any root.

        Raises:
            UsageError: for another shape.
            DataError: where depth or truth is no positive number at a pixel that counts, so that there is no figure.
        """
        need(depth, "depth", "[...]")
        need_same(depth, self.valid, "depth and ground truth")
        errors = Errors(depth[self.valid], self.truth, self.log)
        means = {name: metric.pixels(errors).sum(dtype=torch.float64).item() / self.pixels for name, metric in METRICS.items()}
        if not all(map(math.isfinite, means.values())):
            raise DataError(self._cause(errors))
        return means

    @staticmethod
    def _cause(errors: Errors) -> str:
        """Why metrics came out as no numbers."""
        for name, metres in (("predicted depth", errors.depth), ("ground truth", errors.truth)):
            bad = int((~(metres > 0) | metres.isinf()).sum())
            if bad:
                return f"{bad} of {len(metres)} pixels that count have no {name} (NaN, infinite, or not above 0): there is no figure"
        return "predicted depth and ground truth are too far apart for a figure: are both in metres?"


def depth_metrics(depth: Tensor, target: Tensor) -> dict[str, float]:
    """Every metric of one set of pixels.

    Args:
        depth: [n] metres, positive.
        target: [n] metres, positive.

    Returns:
        Metric name -> figure.

    Raises:
        UsageError: for two shapes, or what is no tensor.
        DataError: where there is no pixel, or one that is no positive number.

    Example:
        >>> depth_metrics(torch.tensor([2.0]), torch.tensor([1.0]))["abs_rel"]
        1.0
    """
    need(target, "target", "[...]")
    return _finished(Target(target, torch.ones_like(target, dtype=torch.bool)).moments(depth))


def _finished(means: dict[str, float]) -> dict[str, float]:
    """Metric name -> figure, from means over pixels."""
    return {name: metric.finish(means[name]) for name, metric in METRICS.items()}


@dataclass
class MetricAccumulator:
    """Metrics over many images, averaged per image (the paper's numbers) and pooled over pixels.

    Attributes:
        per_image: metric name -> figure, of each image added so far.
    """

    per_image: list[dict[str, float]] = field(default_factory=list)
    _sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(METRICS, 0.0))
    _pixels: int = 0

    def add(self, moments: dict[str, float], pixels: int) -> dict[str, float]:
        """Add one image.

        Args:
            moments: its `Target.moments`.
            pixels: its number of valid pixels, above 0.

        Returns:
            Metric name -> figure, of this image.

        Raises:
            UsageError: for moments or pixels that are none.
        """
        if moments.keys() != METRICS.keys() or not all(map(math.isfinite, moments.values())) or pixels < 1:
            raise UsageError("an image is added by the moments that `Target.moments` gives and how many pixels count, 1 or more")
        for key in METRICS:
            self._sums[key] += moments[key] * pixels
        self._pixels += pixels
        self.per_image.append(_finished(moments))
        return self.per_image[-1]

    def image_wise(self) -> dict[str, float]:
        """Mean over images of each metric. Raises UsageError where none was added."""
        self._need_images()
        return {key: sum(row[key] for row in self.per_image) / len(self.per_image) for key in METRICS}

    def pixel_wise(self) -> dict[str, float]:
        """Each metric over all pixels of all images. Raises UsageError where none was added."""
        self._need_images()
        return _finished({key: total / self._pixels for key, total in self._sums.items()})

    def _need_images(self) -> None:
        """Raise UsageError where no image was added."""
        if not self.per_image:
            raise UsageError("no image has been scored yet")
