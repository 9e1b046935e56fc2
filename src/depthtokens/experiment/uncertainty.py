"""Whether uncertainty is worth having: does it find the pixels that are wrong, and are its intervals as wide as they say?

Everything is scored in full size, on the pixels that a protocol counts, for images one by one, and then as the mean over images.
- Sparsification (Ilg et al. 2018; Poggi et al. 2020): pixels are left out, the most uncertain first, and the error of the rest is drawn
  over the share left out, in steps of 2 %. The oracle leaves out the largest errors first. The area between both curves is AUSE; the area
  between the curve of a random order, which is level, and the uncertainty's is AURG. Curves end at 0, where nothing is left; areas have the
  metric's unit.
- Coverage: for each probability, how often the truth lies in the central interval that is to have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..depth.condition import Gain, mean_patch
from ..depth.fused import spread_of
from ..depth.metrics import METRICS, Errors, Metric, Target
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError
from ..progress import Progress, silent
from .evaluate import output_of
from .source import Scored, Shown

SPARSIFIED = ("abs_rel", "rmse")
"""Metrics whose error is drawn over the share of pixels left out."""
STEPS = 50
"""Of that share, from 0 to 1."""
LEVELS = tuple(step / 20 for step in range(21))
"""Probabilities of the central intervals that are looked at."""
QUOTED = (0.5, 0.8, 0.95)
"""Those of them that tables show."""
BINS, NORMAL = "the bins' probabilities", "normal distributions"
"""What intervals are of."""


class Estimate(NamedTuple):
    """Depth with its uncertainty, in full size.

    Attributes:
        depth: [B, 1, H, W] metres, as it is scored.
        deviation: [B, 1, H, W] metres, its standard deviation.
        level: [B, 1, H, W], probability of the smallest central interval that holds the truth.
    """

    depth: Tensor
    deviation: Tensor
    level: Tensor


Estimator: TypeAlias = Callable[[Shown, Tensor, Protocol, tuple[float, float]], Estimate]
"""From images, the truth [B, 1, H, W] metres of what the protocol shows, the protocol and its depth range to what is to be scored."""


class Sparsification(NamedTuple):
    """Error over the share of pixels left out: `STEPS` + 1 figures each, the mean over images.

    Attributes:
        uncertain: the most uncertain pixels first.
        oracle: the largest errors first.
        random: in no order.
    """

    uncertain: list[float]
    oracle: list[float]
    random: list[float]

    @property
    def ause(self) -> float:
        """Area between the uncertainty's curve and the oracle's: 0 is best."""
        return _area(self.uncertain) - _area(self.oracle)

    @property
    def aurg(self) -> float:
        """Area between the random order's curve and the uncertainty's: above 0, uncertainty is better than none."""
        return _area(self.random) - _area(self.uncertain)


@dataclass(frozen=True)
class UncertaintyScores:
    """What the uncertainty of a row is worth.

    Attributes:
        intervals: what they are of, `BINS` or `NORMAL`.
        images: how many were scored.
        sparsification: of each metric in `SPARSIFIED`.
        coverage: share of pixels whose truth lies in the central interval of each probability in `LEVELS`.
    """

    intervals: str
    images: int
    sparsification: dict[str, Sparsification]
    coverage: list[float]

    def covered(self, level: float) -> float:
        """The coverage at one of `LEVELS`."""
        return self.coverage[LEVELS.index(level)]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        areas = {name: {"ause": curves.ause, "aurg": curves.aurg, **curves._asdict()} for name, curves in self.sparsification.items()}
        coverage = [{"level": level, "covered": share} for level, share in zip(LEVELS, self.coverage, strict=True)]
        return {"intervals": self.intervals, "images": self.images, "sparsification": areas, "coverage": coverage}


def by_bins(model: DepthTokens) -> Estimator:
    """A model's uncertainty: from its probabilities of bins, of which each spreads its own evenly between the mid-points to its neighbours.

    Probabilities are the mean of the image's and the mirror image's where the protocol averages over both, as depth is; they and the
    standard deviation come to full size as depth does. A factor that an image has on its depth, it has on its bins.

    Args:
        model: whose bins begin and end with its depth range.
    """
    output, (lo, hi) = output_of(model), model.settings.depth_range
    centres = model.centres.double()
    edges = [lo, *((centres[1:] + centres[:-1]) / 2).tolist(), hi]

    def gain_of(patches: Tensor) -> Tensor:
        """Factors [B, 1, 1, 1] on the depth of images."""
        if not isinstance(model.condition, Gain):
            return model.centres.new_ones(1, 1, 1, 1)
        with torch.inference_mode():
            return model.condition(mean_patch(patches))[:, None, None, None]

    def estimate(shown: Shown, truth: Tensor, protocol: Protocol, depth_range: tuple[float, float]) -> Estimate:
        size = (truth.shape[-2], truth.shape[-1])
        (low, probs), gain = output(shown.patches), gain_of(shown.patches)
        low = low.clamp(*depth_range)
        if shown.mirrored is not None:
            mirrored = output(shown.mirrored)
            low = (low + mirrored.depth.clamp(*depth_range).flip(-1)) / 2
            probs = (probs + mirrored.probs.flip(-1)) / 2
            gain = (gain + gain_of(shown.mirrored)) / 2
        deviation = protocol.resized(spread_of(probs, gain * model.centres[:, None, None], low), size).cpu()
        seen, below = truth / gain.cpu(), torch.zeros_like(truth)  # below: the probability of less than the truth
        for start, end, share in zip(edges, edges[1:], probs.cpu().split(1, dim=1), strict=False):
            below += protocol.resized(share, size) * ((seen - start) / (end - start)).clamp(0, 1)
        return Estimate(protocol.full_size(low, None, size, depth_range).cpu(), deviation, (2 * below - 1).abs().clamp(max=1))

    return estimate


def by_deviation(shown: Shown, truth: Tensor, protocol: Protocol, depth_range: tuple[float, float]) -> Estimate:
    """The uncertainty of `Predictions`: the standard deviation that stands beside depth, whose intervals are a normal distribution's.

    Raises:
        DataError: where a file has depth alone.
    """
    if shown.patches.shape[1] < 2:
        raise DataError('its file holds no uncertainty: give a .npz with the arrays "depth" and "uncertainty"')
    depth = protocol.full_size(shown.patches[:, :1], None, (truth.shape[-2], truth.shape[-1]), depth_range)
    deviation = shown.patches[:, 1:]
    return Estimate(depth, deviation, torch.erf((depth - truth).abs() / (math.sqrt(2) * deviation).clamp_min(1e-9)))


def score_uncertainty(
    model: DepthTokens | None, source: Scored, protocol: str | Protocol, progress: Progress = silent
) -> UncertaintyScores:
    """Score uncertainty by one protocol, in one pass over the source.

    Args:
        model: that has it; None for `Predictions`.
        source: of test images.
        protocol: by which to score, or its name.
        progress: called as images are scored.

    Raises:
        DataError: where no image has valid ground truth, images cannot be read, or there is no uncertainty.
        UsageError: for an unknown protocol.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    depth_range = protocol.depth_range or source.depth_range
    estimate, intervals = (by_deviation, NORMAL) if model is None else (by_bins(model), BINS)
    curves: dict[str, list[list[NDArray[np.float64]]]] = {name: [] for name in SPARSIFIED}
    coverage: list[NDArray[np.float64]] = []
    done = 0
    for shown in source.evaluation(protocol):
        truth = protocol.shown(shown.truth)
        valid = protocol.shown(protocol.valid(shown.truth, depth_range, source.eval_crop))
        try:
            found = estimate(shown, truth, protocol, depth_range)
        except DataError as error:
            raise DataError(f"{source.names[shown.indices[0]]}: {error}") from error
        for i in (i for i, mask in enumerate(valid) if mask.any()):
            target = Target(truth[i], valid[i])
            errors = Errors(found.depth[i][valid[i]], target.truth, target.log)
            ranks = _ranks(found.deviation[i][valid[i]].numpy())
            for name in SPARSIFIED:
                curves[name].append(_curves(METRICS[name], errors, ranks))
            coverage.append(np.searchsorted(np.sort(found.level[i][valid[i]].numpy()), LEVELS, side="right") / target.pixels)
        done += len(shown.indices)
        progress(f"scoring uncertainty of {source.split} images", done, len(source.names))
    if not coverage:
        raise DataError(f"no image of {source.name} ({source.split}) has valid ground truth in the range and crop of this protocol")
    means = {name: Sparsification(*np.mean(each, axis=0).tolist()) for name, each in curves.items()}
    return UncertaintyScores(intervals, len(coverage), means, np.mean(coverage, axis=0).tolist())


def _ranks(deviation: NDArray[np.float32]) -> NDArray[np.intp]:
    """The place of each pixel [n] if the most uncertain come first; those that are equally uncertain share one."""
    return np.unique(-deviation, return_inverse=True)[1].reshape(-1)


def _curves(metric: Metric, errors: Errors, ranks: NDArray[np.intp]) -> list[NDArray[np.float64]]:
    """One image's curves, in the order of `Sparsification`."""
    pixels = metric.pixels(errors).double().numpy()
    counts = np.bincount(ranks)
    alike = np.repeat(np.bincount(ranks, pixels) / counts, counts)  # in no order among equals
    return [_left(metric, values) for values in (alike, np.sort(pixels)[::-1], np.full_like(pixels, pixels.mean()))]


def _left(metric: Metric, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The metric of what is left as pixels [n] go, the first ones first: `STEPS` + 1 figures."""
    gone = len(pixels) * np.arange(STEPS) // STEPS
    sums = np.cumsum(pixels[::-1])[::-1]  # of each pixel and those behind it
    return np.array([*(metric.finish(mean) for mean in sums[gone] / (len(pixels) - gone)), 0.0])


def _area(curve: Sequence[float]) -> float:
    """Area under a curve over 0 to 1, by trapezes."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)
