"""Which views of which images a store holds, and what decides its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..clip.image import check_normalisation
from ..errors import DataError, UsageError

FORMAT = 1
META, PLAN = "meta.json", "plan.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
DECISIVE = ("format", "clip", "modes", "dtype", "precision", "views", "augmentation", "seed", "data")
"""The entries of meta.json that decide what is stored; `versions`, names of files and the like do not."""


@dataclass(frozen=True)
class Views:
    """Which views of each image are stored.

    Attributes:
        count: 1 = the plain image; K > 1 = K draws of the data set's augmentation, draw k being that of the data set's epoch k.
        mirrored: each view's mirror image too, which is what flip averaging reads.
        input_crop: (top, bottom, left, right), the part that CLIP is shown, of images 480x640; ground truth stays whole.
        normalisation: "imagenet", as data sets hand out images, or "clip", the mean and standard deviation that the CLIP was trained with.

    Raises:
        UsageError: for no view, or an unknown normalisation.
    """

    count: int = 1
    mirrored: bool = False
    input_crop: tuple[int, int, int, int] | None = None
    normalisation: str = "imagenet"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError(f"{self.count} views are none: give 1 for the plain image, more for random views")
        check_normalisation(self.normalisation)

    @property
    def stored(self) -> int:
        """Views per image that are on disk, mirror images counted."""
        return self.count * (2 if self.mirrored else 1)

    def position(self, view: int, mirrored: bool) -> int:
        """Where a view, or its mirror image, stands among an image's stored views."""
        return 2 * view + mirrored if self.mirrored else view

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Views:
        """The inverse of `to_dict`."""
        crop = values["input_crop"]
        return Views(**{**values, "input_crop": None if crop is None else tuple(crop)})

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def shown(self, images: Tensor) -> Tensor:
        """The part of images [..., H, W] that CLIP is shown. Raises DataError where the input crop is not meant for this size."""
        if self.input_crop is None:
            return images
        top, bottom, left, right = self.input_crop
        if tuple(images.shape[-2:]) != (480, 640):
            raise DataError(f"the input crop is for 480x640 images, this one is {images.shape[-2]}x{images.shape[-1]}")
        return images[..., top:bottom, left:right]


def key(meta: Mapping[str, Any]) -> str:
    """Digest, 64 hex digits, of everything that decides a store's content."""
    decisive = {name: meta[name] for name in DECISIVE}
    decisive["clip"] = meta["clip"]["fingerprint"]
    decisive["data"] = meta["data"]["fingerprint"]
    return digest(decisive)


def digest(values: Any) -> str:
    """SHA-256, 64 hex digits, of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def plain(values: Any) -> Any:
    """As JSON gives it back: tuples as lists."""
    return json.loads(json.dumps(values))
