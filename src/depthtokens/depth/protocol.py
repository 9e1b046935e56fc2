"""Evaluation protocols as data: depth range, crops, resizing, flip averaging, and what the quoted figure is a mean of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError, UsageError, unknown
from .shapes import need, need_images, need_same

Box = tuple[int, int, int, int]
"""Top, bottom, left, right in pixels, half open."""
Head = Callable[[Tensor], Tensor]
"""From patch features [B, C, h, w] (or images) to depth [B, 1, h, w] metres: tokens, a linear head, a control."""


def eigen_crop(h: int, w: int) -> Box:
    """NYUv2's Eigen crop. Raises DataError for an image of another size than 480x640, for which it is not defined."""
    if (h, w) != (480, 640):
        raise DataError(f"the Eigen crop is defined for 480x640 images, this one is {h}x{w}: evaluate it as a folder")
    return 45, 471, 41, 601


def garg_crop(h: int, w: int) -> Box:
    """KITTI's Garg crop, after the benchmark crop (352x1216)."""
    return int(0.40810811 * h), int(0.99189189 * h), int(0.03594771 * w), int(0.96405229 * w)


CROPS: dict[str, Callable[[int, int], Box]] = {"eigen": eigen_crop, "garg": garg_crop}
"""The crops that data sets name as their own (`eval_crop`): from height and width of the image to a box."""


@dataclass(frozen=True)
class Protocol:
    """How a prediction is compared with ground truth.

    Attributes:
        name: what `find_protocol` finds it by.
        source: whose protocol it is.
        input_crop: the part of an image that CLIP is shown; None shows the whole image.
        valid_crop: where errors count, in coordinates of the whole image; "data" is the data set's own crop, None is everywhere.
        depth_range: (lo, hi) metres, of the truth that counts and of clamped predictions; None takes the data set's.
        include_upper: whether truth equal to hi counts.
        flip: whether a prediction is averaged with that of the mirrored image.
        average: which figure is quoted: "image", the mean of per-image metrics, or "pixel", metrics over all pixels of all images.
        resize: how a prediction comes to full size, in words.
    """

    name: str
    source: str
    input_crop: Box | None = None
    valid_crop: Box | str | None = "data"
    depth_range: tuple[float, float] | None = None
    include_upper: bool = True
    flip: bool = True
    average: str = "image"
    resize: str = "bilinear, align_corners"

    def to_dict(self) -> dict[str, Any]:
        """The protocol as plain values, saved with every score."""
        return asdict(self)

    def describe(self, depth_range: tuple[float, float], crop: str | None) -> str:
        """The protocol in words, as it is used on a data set.

        Args:
            depth_range: (lo, hi) metres, of the data set.
            crop: name of the data set's own crop, None for none.
        """
        lo, hi = self.depth_range or depth_range
        valid = crop if self.valid_crop == "data" else self.valid_crop
        flip = "flip averaging" if self.flip else "no flip averaging"
        average = "mean over images" if self.average == "image" else "pooled over pixels"
        return f"protocol {self.name} ({self.source}): {lo:g}-{hi:g} m, crop {valid or 'none'}, {flip}, {self.resize}, {average}"

    def box(self, crop: str | None, h: int, w: int) -> Box:
        """Where errors count in an image.

        Args:
            crop: name of the data set's own crop, one of `CROPS`; None for none.
            h: height of the whole image, pixels.
            w: its width.

        Raises:
            DataError: for a crop that is not defined for this size.
        """
        if not isinstance(self.valid_crop, str):
            return self.valid_crop or (0, h, 0, w)
        return CROPS[crop](h, w) if crop else (0, h, 0, w)

    def valid(self, target: Tensor, depth_range: tuple[float, float], crop: str | None) -> Tensor:
        """Which pixels count.

        Args:
            target: [..., H, W] metres, ground truth of whole images.
            depth_range: (lo, hi) metres, of the truth that counts.
            crop: name of the data set's own crop, one of `CROPS`; None for none.

        Returns:
            bool [..., H, W].

        Raises:
            DataError: for a crop that is not defined for this size.
            UsageError: for truth or a range that is none.
        """
        need(target, "target", "[...]")
        if target.ndim < 2:
            raise UsageError(f"target: needs a tensor [..., H, W] in metres; this is {list(target.shape)}")
        lo, hi = checked_range(depth_range)
        top, bottom, left, right = self.box(crop, target.shape[-2], target.shape[-1])
        inside = torch.zeros_like(target, dtype=torch.bool)
        inside[..., top:bottom, left:right] = True
        return inside & (target > lo) & ((target <= hi) if self.include_upper else (target < hi))

    def shown(self, images: Tensor) -> Tensor:
        """The part [..., h, w] of images or truth [..., H, W] that CLIP is shown. Raises DataError for a size that has no such crop."""
        if self.input_crop is None:
            return images
        top, bottom, left, right = self.input_crop
        if tuple(images.shape[-2:]) != (480, 640):
            raise DataError(f"protocol {self.name} is for 480x640 images, this one is {images.shape[-2]}x{images.shape[-1]}")
        return images[..., top:bottom, left:right]

    def predict(self, network: Head, images: Tensor, depth_range: tuple[float, float]) -> Tensor:
        """Full-size depth of images.

        Args:
            network: from images [B, 3, H, W] to low-resolution depth [B, 1, h, w] metres.
            images: [B, 3, H, W], already cropped (`shown`).
            depth_range: (lo, hi) metres.

        Returns:
            [B, 1, H, W] metres.

        Raises:
            UsageError: for other shapes.
        """
        need_images(images)
        depth, mirrored = network(images), network(images.flip(-1)) if self.flip else None
        return self.full_size(depth, mirrored, (images.shape[-2], images.shape[-1]), depth_range)

    def full_size(self, depth: Tensor, mirrored: Tensor | None, size: tuple[int, int], depth_range: tuple[float, float]) -> Tensor:
        """Full-size depth from low-resolution depth.

        Clamped to the range, averaged with the depth of the mirrored image (mirrored back), and only then resized.

        Args:
            depth: [B, 1, h, w] metres.
            mirrored: [B, 1, h, w] metres, of the mirrored images; None where there is no flip averaging.
            size: (H, W).
            depth_range: (lo, hi) metres.

        Returns:
            [B, 1, H, W] metres; NaN has become lo, infinities hi, as in the released code: `count_not_finite` says how many there were.

        Raises:
            UsageError: for other shapes, or a range that is none.
        """
        need(depth, "depth", "[B, 1, h, w]")
        if mirrored is not None:
            need(mirrored, "mirrored depth", "[B, 1, h, w]")
            need_same(depth, mirrored, "depth and mirrored depth")
        lo, hi = checked_range(depth_range)
        depth = depth.clamp(lo, hi)
        if mirrored is not None:
            depth = (depth + mirrored.clamp(lo, hi).flip(-1)) / 2
        return torch.nan_to_num(self.resized(depth, size), nan=lo, posinf=hi, neginf=hi)

    def resized(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Maps [B, C, h, w] at full size (H, W), bilinearly with the corners on each other; those of that size are as they were."""
        return maps if maps.shape[-2:] == size else F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def count_not_finite(*depths: Tensor | None) -> int:
    """How many values of low-resolution depth maps are NaN or infinite; `Protocol.full_size` puts an end of the range in their place."""
    return sum(int((~depth.isfinite()).sum()) for depth in depths if depth is not None)


def checked_range(depth_range: tuple[float, float]) -> tuple[float, float]:
    """(lo, hi) in metres. Raises UsageError unless they are two numbers, the first at least 0 and below the second."""
    try:
        lo, hi = depth_range
        if 0 <= lo < hi < float("inf"):
            return lo, hi
    except (TypeError, ValueError):
        pass
    raise UsageError(f"depth range {depth_range}: needs two numbers of metres, the first at least 0 and below the second")


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("auty2023", "Auty & Mikolajczyk 2023, released code"),
        Protocol("pooled", "auty2023 over all pixels", average="pixel"),
        Protocol(
            "depthclip",
            "Zhang et al. 2022 (DepthCLIP), released code, NYUv2",
            input_crop=(56, 472, 60, 604),
            valid_crop=(56, 471, 60, 601),
            depth_range=(0.001, 10.0),
            include_upper=False,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """A protocol by name. Raises UsageError, with the nearest name, for an unknown one."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
