"""Views: the ways in which an image is shown to CLIP; and the key of a store, which says what decides its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..clip.image import check_normalisation
from ..errors import DataError, UsageError
from ..files import digest
from ..schema import read_dataclass

FORMAT = 1
"""Version of the files of a store."""
META, PLAN = "meta.json", "plan.json"
"""A finished store's description of itself; the beginning of one, which an unfinished store has."""
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""In which directions of patch features can be stored."""
DECISIVE = ("format", "clip", "modes", "dtype", "precision", "views", "augmentation", "seed", "data")
"""The entries of meta.json that decide what is stored; others (`versions`, `names`, ...) only describe it."""


@dataclass(frozen=True)
class Views:
    """Which views of each image are stored.

    Attributes:
        count: 1 for the plain image; K > 1 for K random views, where view k is what the data set's augmentation draws in epoch k.
        mirrored: whether the mirror image of each view is stored too, which flip averaging reads.
        input_crop: (top, bottom, left, right) pixels, the part of a 480x640 image that CLIP is shown, None for the whole image; ground
            truth stays whole.
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
        """The place of a view, or of its mirror image, among an image's stored views, counted from 0."""
        return 2 * view + mirrored if self.mirrored else view

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Views:
        """The inverse of `to_dict`. Raises UsageError for values that are no views."""
        return read_dataclass(Views, values, "views")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def shown(self, images: Tensor) -> Tensor:
        """The part of images [..., H, W] that CLIP is shown. Raises DataError where there is an input crop and they are not 480x640."""
        if self.input_crop is None:
            return images
        top, bottom, left, right = self.input_crop
        if tuple(images.shape[-2:]) != (480, 640):
            raise DataError(f"the input crop is for 480x640 images, this one is {images.shape[-2]}x{images.shape[-1]}")
        return images[..., top:bottom, left:right]


def key(meta: Mapping[str, Any]) -> str:
    """Digest, 64 hex digits, of the entries of meta.json that decide a store's content."""
    decisive = {name: meta[name] for name in DECISIVE}
    decisive["clip"] = meta["clip"]["fingerprint"]
    decisive["data"] = meta["data"]["fingerprint"]
    return digest(decisive)


def plain(values: Any) -> Any:
    """The same values as JSON gives them back, with lists for tuples."""
    return json.loads(json.dumps(values))
