"""Evaluation: one protocol for models and for the controls that never look at the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..clip.precision import autocast
from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..data.sample import Sample
from ..depth.metrics import METRICS, MetricAccumulator
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError
from ..files import atomic

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
    dataset: DepthDataset,
    protocol: str | Protocol = "auty2023",
    batch_size: int = 4,
    workers: int = 2,
    precision: str = "float32",
    progress: Progress | None = None,
) -> Scores:
    """Score a model on a data set, on the device where the model is.

    protocol: "auty2023", "pooled", "depthclip" or one's own `Protocol`; its depth range defaults to the data set's. Images without
    valid ground truth are skipped and named. Raises DataError where none is left.
    """
    rows = {"tokens": token_row(model)}
    encode = image_encoder(model, precision)
    return score_rows(rows, dataset, protocol, encode, batch_size=batch_size, workers=workers, progress=progress)["tokens"]


def image_encoder(model: DepthTokens, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """The frozen half of a model: images [B, 3, H, W] -> patch features, on the model's device."""
    device = model.centres.device
    autocast(device, precision)  # an unknown precision is found before any work

    def encode(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.image_features(images.to(device), precision)

    return encode


def token_row(model: DepthTokens) -> Row:
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
    dataset: DepthDataset,
    protocol: str | Protocol,
    encode: Callable[[Tensor], Tensor],
    *,
    image_free: Collection[str] = (),
    batch_size: int = 4,
    workers: int = 2,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Score several rows by one protocol in one pass; what `encode` makes of the images is computed once for all of them.

    image_free: rows that do not look at what they get, for which averaging with the mirrored image is left out. Raises as `evaluate`.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    depth_range = protocol.depth_range or dataset.depth_range
    sums = {name: MetricAccumulator() for name in rows}
    names: list[str] = []
    skipped: list[str] = []
    done = 0
    for images, targets, indices in _same_size_batches(dataset, batch_size, workers):
        shown, truth = protocol.shown(images), protocol.shown(targets)
        valid = protocol.shown(protocol.valid(targets, depth_range, dataset.eval_crop))
        counted = [i for i, mask in enumerate(valid) if mask.any()]
        names += [dataset.names[indices[i]] for i in counted]
        skipped += [dataset.names[index] for i, index in enumerate(indices) if i not in counted]
        encoded, mirrored = encode(shown), encode(shown.flip(-1)) if protocol.flip else None
        for name, row in rows.items():
            flipped = None if mirrored is None or name in image_free else row(mirrored)
            depth = protocol.full_size(row(encoded), flipped, (truth.shape[-2], truth.shape[-1]), depth_range).cpu()
            for i in counted:
                sums[name].update(depth[i][valid[i]], truth[i][valid[i]])
        done += len(indices)
        if progress:
            progress(done, len(dataset))
    if not names:
        raise DataError(f"no image of {dataset.name} ({dataset.split}) has valid ground truth in the range and crop of this protocol")
    scores = {}
    for name, total in sums.items():
        per_image = [{"name": image, **values} for image, values in zip(names, total.per_image, strict=True)]
        used = replace(protocol, flip=False) if name in image_free else protocol
        scores[name] = Scores(used, depth_range, total.image_wise(), total.pixel_wise(), per_image, skipped)
    return scores


def _same_size_batches(dataset: DepthDataset, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Images, depths and indices in order; images of other sizes start a new batch."""
    for samples in batches(dataset, range(len(dataset)), batch_size, workers):
        group: list[Sample] = []
        for sample in [*samples, None]:
            if group and (sample is None or sample.image.shape != group[0].image.shape):
                yield torch.stack([s.image for s in group]), torch.stack([s.depth for s in group]), [s.index for s in group]
                group = []
            if sample is not None:
                group.append(sample)
