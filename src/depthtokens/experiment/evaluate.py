"""Evaluation: one protocol for models and for the controls that never look at the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..clip.device import autocast
from ..data.dataset import DepthDataset
from ..depth.linear import LinearHead
from ..depth.metrics import METRICS, MetricAccumulator, Target
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError, UsageError
from ..features.cache import cached
from ..features.views import Views
from ..features.store import FeatureStore
from ..files import atomic
from .source import Images, Source, Stored

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""
Row = Callable[[Tensor], Tensor]
"""From what was made of the images, once for all rows, to depth [B, 1, h, w] metres."""


@dataclass(frozen=True)
class Scores:
    """What an evaluation found.

    image_wise, pixel_wise: metric name -> value, as the mean over images and pooled over pixels. per_image: one row per image with
    its name and metrics. skipped: names of images without any valid ground truth.
    """

    protocol: Protocol
    depth_range: tuple[float, float]
    image_wise: dict[str, float]
    pixel_wise: dict[str, float]
    per_image: list[dict[str, Any]]
    skipped: list[str]

    @property
    def quoted(self) -> dict[str, float]:
        """The figures that the protocol quotes."""
        return self.pixel_wise if self.protocol.average == "pixel" else self.image_wise

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the per-image table."""
        return {
            "protocol": self.protocol.to_dict(), "depth_range": list(self.depth_range), "images": len(self.per_image),
            "skipped": self.skipped, "scores": self.quoted, "image_wise": self.image_wise, "pixel_wise": self.pixel_wise,
        }  # fmt: skip

    def save_csv(self, path: str | Path) -> None:
        """Write the per-image table."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["name", *METRICS, "protocol"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "protocol": self.protocol.name} for row in self.per_image)
        with atomic(Path(path)) as file:
            file.write(text.getvalue().encode())


def evaluate(
    model: DepthTokens,
    dataset: DepthDataset | FeatureStore,
    protocol: str | Protocol = "auty2023",
    batch_size: int = 4,
    workers: int = 2,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Scores:
    """Score a model on a data set or a store of patch features, on the device where the model is.

    protocol: "auty2023", "pooled", "depthclip" or one's own `Protocol`; its depth range defaults to the data set's. Images without
    valid ground truth are skipped and named. Raises DataError where none is left, or the store is not of this CLIP, mode and protocol.
    """
    source = source_for(model, dataset, batch_size=batch_size, workers=workers, precision=precision)
    return score_rows({"tokens": token_row(model)}, source, protocol, progress=progress)["tokens"]


def source_for(
    model: DepthTokens, data: DepthDataset | FeatureStore, *, batch_size: int = 4, workers: int = 2, precision: str = "float32"
) -> Source:
    """Patch features for a model, on its device: from a store as they are, from a data set by the model's image tower.

    Raises DataError for a store of another CLIP, mode or normalisation, UsageError for a model whose trunk is no longer the CLIP's.
    """
    if not isinstance(data, FeatureStore):
        return Images(data, image_encoder(model, precision), batch_size=batch_size, workers=workers)
    check_store(model, data)
    return Stored(data, model.settings["dense"], device=model.centres.device, batch_size=batch_size)


def cached_source(
    model: DepthTokens,
    dataset: DepthDataset,
    protocol: Protocol,
    *,
    batch_size: int = 4,
    workers: int = 2,
    precision: str = "float32",
    list_file: str | None = None,
    told: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Source:
    """`source_for`, through a store in the cache folder that is made now if there is none; straight from images where the trunk adapts.

    told: called with a line before anything is written. Raises as `features.cache.cached`.
    """
    data: DepthDataset | FeatureStore = dataset
    if model.settings["batchnorm"] == "frozen":
        views = Views(1, protocol.flip, protocol.input_crop, model.settings["normalisation"])
        data = cached(
            model.clip, dataset, views, [model.settings["dense"]], told=told, batch_size=batch_size, workers=workers,
            device=model.centres.device, precision=precision, list_file=list_file, progress=progress,
        )  # fmt: skip
    return source_for(model, data, batch_size=batch_size, workers=workers, precision=precision)


def check_store(model: DepthTokens, store: FeatureStore) -> None:
    """Raise DataError or UsageError, saying why, where a store's features are not what the model reads."""
    if model.settings["batchnorm"] == "adapt":
        raise UsageError('batchnorm "adapt" changes the image trunk: its features cannot be stored, read the images')
    normalisation = model.settings["normalisation"]
    if store.views.normalisation != normalisation:
        raise DataError(f"{store.path} has images normalised for {store.views.normalisation}, not {normalisation}")
    store.expect(clip=model.clip, mode=model.settings["dense"])


def image_encoder(model: DepthTokens, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """The frozen half of a model: images [B, 3, H, W] -> patch features, on the model's device."""
    device = model.centres.device
    autocast(device, precision)  # an unknown precision is found before any work

    def encode(images: Tensor) -> Tensor:
        return model.image_features(images.to(device), precision)

    return encode


def token_row(model: DepthTokens | LinearHead) -> Row:
    """The other half: patch features -> depth. The text side runs once, here, never per image."""
    model.eval()
    with torch.inference_mode():
        text = model.text_features()

    def row(patches: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.depth_from(patches, text).depth

    return row


def score_rows(
    rows: Mapping[str, Row],
    source: Source,
    protocol: str | Protocol,
    *,
    image_free: Collection[str] = (),
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Score several rows by one protocol in one pass over the source, whose patch features are had once for all of them.

    image_free: rows that do not look at what they get, for which averaging with the mirrored image is left out. Raises as `evaluate`.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    depth_range = protocol.depth_range or source.depth_range
    sums = {name: MetricAccumulator() for name in rows}
    names: list[str] = []
    skipped: list[str] = []
    done = 0
    for indices, patches, mirrored, whole in source.evaluation(protocol):
        truth = protocol.shown(whole)
        valid = protocol.shown(protocol.valid(whole, depth_range, source.eval_crop))
        size = (truth.shape[-2], truth.shape[-1])
        counted = [i for i, mask in enumerate(valid) if mask.any()]
        names += [source.names[indices[i]] for i in counted]
        skipped += [source.names[index] for i, index in enumerate(indices) if i not in counted]
        targets = {i: Target(truth[i], valid[i]) for i in counted}
        for name, row in rows.items():
            flipped = None if mirrored is None or name in image_free else row(mirrored)
            depth = protocol.full_size(row(patches), flipped, size, depth_range).cpu()
            for i, target in targets.items():
                sums[name].add(target.moments(depth[i]), target.pixels)
        done += len(indices)
        if progress:
            progress(done, len(source.names))
    if not names:
        raise DataError(f"no image of {source.name} ({source.split}) has valid ground truth in the range and crop of this protocol")
    scores = {}
    for name, total in sums.items():
        per_image = [{"name": image, **values} for image, values in zip(names, total.per_image, strict=True)]
        used = replace(protocol, flip=False) if name in image_free else protocol
        scores[name] = Scores(used, depth_range, total.image_wise(), total.pixel_wise(), per_image, skipped)
    return scores
