"""What a store will hold and how big it will be, known before it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .._version import versions
from ..clip.device import dtype_of
from ..clip.load import FrozenCLIP
from ..data.dataset import DepthDataset
from ..errors import UsageError, unknown
from ..files import size_text, user_path
from .shard import steps_of
from .views import DTYPES, FORMAT, Views, key, plain

SHARD_BYTES = 64_000_000
"""Size of a shard, about."""
_SAMPLED = 32  # images whose sizes the estimate looks at


@dataclass(frozen=True)
class Plan:
    """What a store will hold.

    Attributes:
        clip: whose image tower computes the features.
        dataset: the images.
        views: which views of each image.
        meta: the entries of meta.json that are known before anything is computed.
        bytes: estimated size on disk.
    """

    clip: FrozenCLIP
    dataset: DepthDataset
    views: Views
    meta: dict[str, Any]
    bytes: int

    @property
    def key(self) -> str:
        """Digest, 64 hex digits, of everything that decides the content; stores with the same key hold the same."""
        return str(self.meta["key"])

    @property
    def images(self) -> int:
        """How many images."""
        return len(self.dataset)

    def describe(self) -> str:
        """Size and content, in words."""
        views = "" if self.views.count == 1 else f", {self.views.count} random views of each"
        mirrored = " and mirrored" if self.views.mirrored else ""
        return f"{size_text(self.bytes)} for {self.images} images{views}{mirrored} (dense {', '.join(self.meta['modes'])})"


def plan(
    clip: FrozenCLIP,
    dataset: DepthDataset,
    views: Views,
    modes: Sequence[str],
    dtype: str = "float16",
    *,
    precision: str = "float32",
    list_file: str | Path | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Decide what `write.write` will store, before anything is written.

    Args:
        clip: whose image tower computes the features.
        dataset: the images; opened with augmentation exactly where views are random ones.
        views: which views of each image.
        modes: ways to read patch features, see `clip.image.dense_features`; all are computed from one pass over the trunk.
        dtype: "float16" or "bfloat16", on disk.
        precision: of the image tower.
        list_file: the list file that the data set was opened with, if one was named; noted, so that `features check` can open the same
            data again.
        shard_bytes: size of a shard, about.

    Raises:
        UsageError: for an unknown dtype or precision, no mode, one that the CLIP does not have, modes with patches of several sizes, or
            a data set whose augmentation does not fit the views.
        DataError: for data that cannot be read.
    """
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    dtype_of(precision)
    modes = sorted(set(modes))
    if not modes:
        raise UsageError("no dense mode to store: give one or more")
    for mode in modes:
        clip.image.check_mode(mode)
    if len(strides := {clip.image.stride(mode) for mode in modes}) > 1:
        raise UsageError(f"dense {', '.join(modes)} have patches of {len(strides)} sizes: store them apart")
    if (dataset.augment is None) != (views.count == 1):
        wanted = "1 view is the plain image: open the data without augmentation"
        raise UsageError(wanted if views.count == 1 else f"{views.count} views are random ones: open the data with augmentation")
    per_image = _bytes_per_image(clip, dataset, views, modes)
    lo, hi = dataset.depth_range
    meta: dict[str, Any] = {
        "format": FORMAT,
        "clip": asdict(clip.identity),
        "modes": modes,
        "channels": clip.image.channels,
        "dtype": dtype,
        "precision": precision,
        "views": views.to_dict(),
        "augmentation": None if dataset.augment is None else asdict(dataset.augment),
        "seed": None if dataset.augment is None else dataset.seed,
        "data": {
            "spec": dataset.spec,
            "name": dataset.name,
            "split": dataset.split,
            "list_file": None if list_file is None else str(user_path(list_file).resolve()),
            "fingerprint": dataset.fingerprint(),
            "depth_range": [lo, hi],
            "depth_scale": dataset.depth_scale,
            "eval_crop": dataset.eval_crop,
            **({"options": dataset.options} if dataset.options else {}),
        },
        "names": dataset.names,
        "image_height": dataset.image_size(0)[0],
        "images_per_shard": max(1, min(len(dataset), shard_bytes // per_image)),
        "versions": versions("torch", "open_clip"),
    }
    meta = plain(meta)
    meta["key"] = key(meta)
    return Plan(clip, dataset, views, meta, per_image * len(dataset))


def _bytes_per_image(clip: FrozenCLIP, dataset: DepthDataset, views: Views, modes: Sequence[str]) -> int:
    """Size on disk of an average image, from the sizes of some and the ground truth of the first."""
    # Depth of a data set with a depth scale may still not come in whole steps of it: the first image shows whether it does.
    truth_bytes = steps_of(dataset.read(0)[1], dataset.depth_scale).itemsize
    some = range(0, len(dataset), max(1, len(dataset) // _SAMPLED))
    total = 0
    for index in some:
        height, width = _drawn_size(dataset, index)
        shown = views.shown(torch.empty(1, device="meta").expand(height, width)).shape
        rows, columns = clip.image.grid((shown[0], shown[1]), modes[0])
        patches = rows * columns
        total += views.stored * patches * len(modes) * (2 * clip.image.channels + 4) + views.count * height * width * truth_bytes
    return max(1, total // len(some))


def _drawn_size(dataset: DepthDataset, index: int) -> tuple[int, int]:
    """(H, W) of an image's views, as the data set hands them out."""
    augment = dataset.augment
    if augment is not None and augment.crop is not None:
        return augment.crop
    if augment is not None and augment.pre_crop is not None:
        top, bottom, left, right = augment.pre_crop
        return bottom - top, right - left
    return dataset.image_size(index)
