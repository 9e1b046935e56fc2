"""Alignment of predictions that know depth up to a scale, or a scale and a shift only: fitted to the truth of each image.

An aligned figure says less than one of metric depth: the truth has told the prediction its scale.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, unknown

ALIGNMENTS = {
    "none": "as they are",
    "median": "scaled to the truth's median, image by image",
    "affine": "scaled and shifted to the truth by least squares, image by image",
    "affine-disparity": "disparities scaled and shifted to the truth's inverse by least squares, image by image",
}
"""How predictions are aligned, in words. "median" is Zhou et al.'s (2017), the other two are Ranftl et al.'s (2020): "affine" for maps of
depth, "affine-disparity" for maps of inverse depth, as MiDaS gives them."""


def check_alignment(name: str) -> None:
    """Raise UsageError, with the nearest name, for an unknown alignment."""
    if name not in ALIGNMENTS:
        raise unknown("alignment", name, ALIGNMENTS)


def aligned(name: str, depth: Tensor, truth: Tensor, valid: Tensor, farthest: float) -> Tensor:
    """A prediction brought to the truth of its image, by the pixels that count and have a prediction.

    Args:
        name: one of `ALIGNMENTS`.
        depth: in any shape: metres, or what the alignment makes metres of; NaN = none.
        truth: metres, in the same shape.
        valid: bool, the same shape: the pixels that count.
        farthest: metres; a disparity of less than its inverse, as one below 0, means this depth.

    Returns:
        Metres, in the shape of `depth`, not clamped.

    Raises:
        DataError: where there are too few pixels to fit to, or there is no scale.
    """
    check_alignment(name)
    if name == "none":
        return depth
    use = valid & depth.isfinite()
    if int(use.sum()) < 2:
        raise DataError("fewer than two pixels that count have a prediction: there is nothing to align by")
    predicted, true = depth[use].double().numpy(), truth[use].double().numpy()
    if name == "median":
        middle = float(np.median(predicted))
        if middle <= 0:
            raise DataError(f"the median of its prediction is {middle:g}: depth is above 0")
        return (depth.double() * (float(np.median(true)) / middle)).float()
    scale, shift = _line(predicted, true if name == "affine" else 1 / true)
    fitted = depth.double() * scale + shift
    return (fitted if name == "affine" else 1 / fitted.clamp(min=1 / farthest)).float()


def _line(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of the least-squares line from values [n] to what is wanted [n]; a level one where all values are alike."""
    mean, target = values.mean(), wanted.mean()
    spread = np.square(values - mean).mean()
    slope = ((values - mean) * (wanted - target)).mean() / spread if spread > 0 else 0.0
    return float(slope), float(target - slope * mean)
