"""What the page makes of a photo: its depth, pictures of it, metres at a point, files."""

from __future__ import annotations

import io
import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from ...data.images import check_pixels, opened, shown_size
from ...depth.depthmap import COLOURS, DepthMap, colourise
from ...depth.model import DepthTokens
from ...errors import DataError, UsageError
from ...files import atomic
from ...report.html import as_png, fragment
from ..cloud import Lens, cloud_file, film_focal_length

MOST_PIXELS = 25_000_000
"""Pixels of the largest photo: its maps are made in its own size."""
MOST_SHOWN = 2_000_000
"""Pixels that CLIP is shown of a photo at most, which bounds the seconds of a request."""
KEPT = 30_000_000
"""Pixels of the maps that are kept for the next question about the same photo, together."""
SIDE = 480
"""Pixels of the shorter side as CLIP is shown it, where the tokens do not say."""
PICTURE = 800
"""Pixels of the longer side of a picture on the page."""
PNG, NPY, PLY = KINDS = ("16-bit PNG", "NPY", "PLY point cloud")
"""Files of depth that can be had."""
HEAT = "viridis"
"""The colour map of uncertainty and heat maps."""


class Photos:
    """Photos that people hand over, as files, and their depth. Of the latest ones it is kept.

    Attributes:
        model: whose depth it is.
        side: pixels of the shorter side as CLIP is shown it.
    """

    def __init__(self, model: DepthTokens) -> None:
        self.model, self.side = model, model.settings.predict_side or SIDE
        self._kept: OrderedDict[Path, DepthMap] = OrderedDict()

    def depth(self, photo: Path) -> DepthMap:
        """Depth of a photo.

        Args:
            photo: the file, which is called by what is in it: the same path is the same photo.

        Raises:
            DataError: for a file that is gone, no image, too large, or too long and narrow.
        """
        if photo not in self._kept:
            self._kept[photo] = self._predict(photo)
            while len(self._kept) > 1 and sum(kept.metres.size for kept in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(photo)
        return self._kept[photo]

    def _predict(self, photo: Path) -> DepthMap:
        """The same, computed."""
        try:
            content = photo.read_bytes()  # errors do not say where a file lies on this machine
        except OSError as error:
            raise DataError("this photo is no longer kept here: give it again") from error
        with opened(io.BytesIO(content)) as image:
            size = image.height, image.width
        check_pixels(*size, "this image", MOST_PIXELS)
        height, width = shown_size(size, self.side, 1)
        if height * width > MOST_SHOWN:
            raise DataError(f"an image of {size[0]}x{size[1]} pixels is too long and narrow: crop it")
        return self.model.predict(content, side=self.side)

    def files(self, photo: Path, kinds: Sequence[str], fov: float | None, folder: Path) -> list[Path]:
        """Write depth of a photo to files.

        Args:
            photo: as `depth` takes it.
            kinds: which of `KINDS`.
            fov: degrees that the photo spans from left to right, for a point cloud; None for what its EXIF says.
            folder: they are written into.

        Raises:
            DataError: as `depth`.
            UsageError: for a point cloud of a camera that nobody knows, or no kind at all.
        """
        if not kinds:
            raise UsageError("choose at least one kind of file")
        if PLY in kinds:
            _check_camera(photo, fov)
        depth = self.depth(photo)
        written = []
        for kind, ending in ((PNG, "depth.png"), (NPY, "depth.npy"), (PLY, "cloud.ply")):
            if kind in kinds:
                path = folder / f"{photo.stem}_{ending}"
                if kind == PLY:
                    content = cloud_file(depth, Lens(fov).camera(photo, (depth.metres.shape[0], depth.metres.shape[1])), "ply")
                    with atomic(path) as file:
                        file.write(content)
                else:
                    depth.save(path)
                written.append(path)
        return written


def _check_camera(photo: Path, fov: float | None) -> None:
    """Raise UsageError where neither a person nor the photo says what its camera was."""
    if fov is None and film_focal_length(photo) is None:
        raise UsageError("a point cloud needs the camera, which this photo does not say: give the degrees that it spans from left to right")
    if fov is not None and not (math.isfinite(fov) and 0 < fov < 180):
        raise UsageError("a photo spans between 0 and 180 degrees from left to right")


def pair(depth: DepthMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photo and its depth in colour, of one size, RGB uint8 [h, w, 3] of at most `PICTURE` pixels a side."""
    photo = Image.fromarray(depth.image)
    photo.thumbnail((PICTURE, PICTURE))
    colours = colourise(_thin(depth.metres), float(depth.metres.min()), float(depth.metres.max()))
    return np.asarray(photo), np.asarray(Image.fromarray(colours).resize(photo.size))


def measured(depth: DepthMap, x: int, y: int) -> Markup:
    """What there is to say of a point.

    Args:
        depth: of the photo.
        x: column of the photo's pixels.
        y: row.

    Raises:
        UsageError: for a point outside the photo.
    """
    height, width = depth.metres.shape
    if not (0 <= x < width and 0 <= y < height):
        raise UsageError("this point lies outside the photo")
    return fragment("app/point.html", x=x, y=y, metres=float(depth.metres[y, x]), spread=float(depth.uncertainty[y, x]))


def legend(depth: DepthMap) -> Markup:
    """The colours of `pair` in metres."""
    return scale_bar(float(depth.metres.min()), float(depth.metres.max()), COLOURS, "m")


def uncertainty(depth: DepthMap) -> Markup:
    """Uncertainty as a picture with its scale."""
    metres = _thin(depth.uncertainty)
    lo, hi = float(metres.min()), float(metres.max())
    return fragment(
        "app/picture.html", png=as_png(colourise(metres, lo, hi, HEAT)), alt="uncertainty", scale=scale_bar(lo, hi, HEAT, "m"),
        says="How far the bins disagree at each point: the standard deviation of depth over their probabilities.",
    )  # fmt: skip


def heat_map(depth: DepthMap, token: int, centres: Sequence[float]) -> Markup:
    """Where a token is seen, as a picture with its scale.

    Args:
        depth: of the photo.
        token: its number, from 0.
        centres: of all bins, metres.

    Raises:
        UsageError: for a number that no token has.
    """
    if not 0 <= token < len(centres):
        raise UsageError(f"tokens have numbers from 0 to {len(centres) - 1}")
    probs, (height, width) = depth.probs[token], depth.metres.shape
    share = PICTURE / max(height, width)
    size = max(1, round(width * share)), max(1, round(height * share))
    colours = Image.fromarray(colourise(probs, 0, float(probs.max()), HEAT)).resize(size, Image.Resampling.NEAREST)
    return fragment(
        "app/picture.html", png=as_png(np.asarray(colours)), alt=f"token {token}", scale=scale_bar(0, float(probs.max()), HEAT, ""),
        says=f"Token {token} stands for {centres[token]:.3g} m: its probability in each patch.",
    )  # fmt: skip


def _thin(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every second, third, ... value of a large map."""
    step = max(1, max(values.shape) // PICTURE)
    return values[::step, ::step]


def scale_bar(lo: float, hi: float, colour_map: str, unit: str) -> Markup:
    """A bar of colours with figures below it.

    Args:
        lo: what its near end stands for.
        hi: what its far end stands for.
        colour_map: one of matplotlib's.
        unit: of `lo` and `hi`, "" for none.
    """
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    marks = [f"{lo + share * (hi - lo):.3g}" for share in (0, 0.25, 0.5, 0.75, 1)]
    return fragment("app/scale.html", bar=as_png(colourise(ramp, 0, 1, colour_map)), marks=marks, unit=unit)
