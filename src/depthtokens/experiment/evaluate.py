"""Evaluation: one protocol for models and for the controls that never look at the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.loader import batches
from ..data.sample import Sample
from ..depth.metrics import METRICS, MetricAccumulator
from ..depth.model import DepthTokens
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError
from ..files import atomic
from .device import autocast

Progress = Callable[[int, int], None]
"""Called with the number of images done and their total."""


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
        writer = csv.DictWriter(text, ["name", *METRICS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.per_image)
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
    network = model_network(model, precision)
    return score(network, dataset, protocol, batch_size=batch_size, workers=workers, device=model.centres.device, progress=progress)


def model_network(model: DepthTokens, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """The model as a function of images [B, 3, H, W] to depth [B, 1, h, w]; the text side runs once, here."""
    device = model.centres.device
    model.eval()
    with torch.inference_mode():
        text = model.text_features()

    def network(images: Tensor) -> Tensor:
        with torch.inference_mode():
            with autocast(device, precision):
                patches = model.image_features(images)
            return model.depth_from(patches, text).depth

    return network


def score(
    network: Callable[[Tensor], Tensor],
    dataset: DepthDataset,
    protocol: str | Protocol,
    *,
    batch_size: int = 4,
    workers: int = 2,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score any network, normalised images [B, 3, H, W] -> depth [B, 1, h, w] metres, by a protocol. Raises as `evaluate`."""
    return score_all({"": network}, dataset, {"": find_protocol(protocol) if isinstance(protocol, str) else protocol},
                     batch_size=batch_size, workers=workers, device=device, progress=progress)[""]  # fmt: skip


def score_all(
    networks: dict[str, Callable[[Tensor], Tensor]],
    dataset: DepthDataset,
    protocols: dict[str, Protocol],
    *,
    batch_size: int = 4,
    workers: int = 2,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Scores]:
    """Score several networks in one pass over the images, each by its protocol of the same key. Raises as `evaluate`."""
    sums = {name: MetricAccumulator() for name in networks}
    names: list[str] = []
    skipped: list[str] = []
    done = 0
    for images, targets, indices in _same_size_batches(dataset, batch_size, workers):
        for i, name in enumerate(networks):
            protocol = protocols[name]
            depth_range = protocol.depth_range or dataset.depth_range
            predicted = protocol.predict(networks[name], protocol.shown(images.to(device)), depth_range).cpu()
            truth = protocol.shown(targets)
            valid = protocol.shown(protocol.valid(targets, depth_range, dataset.eval_crop))
            for depth, target, mask, index in zip(predicted, truth, valid, indices, strict=True):
                if mask.any():
                    sums[name].update(depth[mask].clamp(*depth_range), target[mask])
                if i == 0:
                    (names if mask.any() else skipped).append(dataset.names[index])
        done += len(indices)
        if progress:
            progress(done, len(dataset))
    if not names:
        raise DataError(f"no image of {dataset.name} ({dataset.split}) has valid ground truth in the range and crop of this protocol")
    return {
        name: Scores(
            protocols[name], protocols[name].depth_range or dataset.depth_range, total.image_wise(), total.pixel_wise(),
            [{"name": image, **row} for image, row in zip(names, total.per_image, strict=True)], skipped,
        )
        for name, total in sums.items()
    }  # fmt: skip


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
