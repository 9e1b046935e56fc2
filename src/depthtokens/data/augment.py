"""Random views for training as data: what is varied, by how much, and one pure function that draws a view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, UsageError


@dataclass(frozen=True)
class Augmentation:
    """How training views vary. The geometric part changes image and depth alike.

    Attributes:
        pre_crop: rows and columns that are kept first, (top, bottom, left, right) in pixels; None for all.
        degrees: the view is turned by a uniform angle within plus or minus this.
        crop: (height, width) in pixels of a random crop, None for the whole image.
        flip_p: probability of mirroring left-right.
        colour_p: probability of the change of colours, whose parts are each uniform in their range:
        gamma: the exponent.
        brightness: a factor.
        colour: one factor per colour channel.

    Raises:
        UsageError: where the crop is no size.
    """

    pre_crop: tuple[int, int, int, int] | None
    degrees: float
    crop: tuple[int, int] | None
    flip_p: float = 0.5
    colour_p: float = 0.5
    gamma: tuple[float, float] = (0.9, 1.1)
    brightness: tuple[float, float] = (0.9, 1.1)
    colour: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        if self.crop is not None and min(self.crop) < 1:
            raise UsageError(f"--crop {self.crop[0]} {self.crop[1]} is not a size in pixels: give height and width, both positive")

    def with_crop(self, crop: tuple[int, int] | None) -> Augmentation:
        """The same with another random crop (height, width); None keeps this one's."""
        return self if crop is None else replace(self, crop=crop)


# The recipes of the released training code, which are those of BTS and AdaBins. The NYUv2 pre-crop cuts off the white frame
# that undistorting left around its images.
NYUV2 = Augmentation(pre_crop=(45, 472, 43, 608), degrees=2.5, crop=(416, 544), brightness=(0.75, 1.25))
KITTI = Augmentation(pre_crop=None, degrees=1.0, crop=(352, 704))
FOLDER = replace(NYUV2, pre_crop=None, crop=None)


def apply(
    aug: Augmentation, rgb: NDArray[np.uint8], depth: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw one view of a pair, in the released order.

    That is: pre-crop, rotation (image bilinear, depth nearest; corners become black and without depth), crop, flip, colour.

    Args:
        aug: what is varied, and by how much.
        rgb: [H, W, 3] uint8.
        depth: [H, W] float32 metres, 0 = none.
        rng: what the view is drawn from.

    Returns:
        Image [h, w, 3] float32 in 0..1 and depth [h, w] metres, where (h, w) is `aug.crop`, or what the pre-crop leaves.

    Raises:
        DataError: where the image is smaller than a crop.
    """
    if aug.pre_crop is not None:
        top, bottom, left, right = aug.pre_crop
        if rgb.shape[0] < bottom or rgb.shape[1] < right:
            raise DataError(f"the image is {_size(rgb)}, too small for the training pre-crop that ends at {bottom}x{right}")
        rgb, depth = rgb[top:bottom, left:right], depth[top:bottom, left:right]

    angle = rng.uniform(-aug.degrees, aug.degrees)
    if angle:
        rgb = np.asarray(Image.fromarray(rgb).rotate(angle, Image.Resampling.BILINEAR))
        depth = np.asarray(Image.fromarray(depth).rotate(angle, Image.Resampling.NEAREST))

    if aug.crop is not None:
        height, width = aug.crop
        spare_rows, spare_columns = rgb.shape[0] - height, rgb.shape[1] - width
        if spare_rows < 0 or spare_columns < 0:
            raise DataError(f"the image is {_size(rgb)}, smaller than the training crop {height}x{width}: state a smaller --crop")
        top, left = int(rng.integers(spare_rows + 1)), int(rng.integers(spare_columns + 1))
        rgb, depth = rgb[top : top + height, left : left + width], depth[top : top + height, left : left + width]

    if rng.random() < aug.flip_p:
        rgb, depth = rgb[:, ::-1], depth[:, ::-1]

    image = rgb.astype(np.float32) / np.float32(255)
    if rng.random() < aug.colour_p:
        gamma, brightness = rng.uniform(*aug.gamma), rng.uniform(*aug.brightness)
        channels = rng.uniform(*aug.colour, size=3) * brightness
        image = np.clip(image ** np.float32(gamma) * channels.astype(np.float32), 0, 1)
    return image, np.ascontiguousarray(depth)


def _size(rgb: NDArray[np.uint8]) -> str:
    """An image's size for a person."""
    return f"{rgb.shape[0]}x{rgb.shape[1]}"
