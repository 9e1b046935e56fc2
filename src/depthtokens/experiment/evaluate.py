"""Evaluation: one protocol for models and for the controls that never look at the image."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..depth.linear import Trainable
from ..depth.metrics import METRICS, MetricAccumulator, Target
from ..depth.model import DepthTokens
from ..depth.protocol import Head, Protocol, count_not_finite, find_protocol
from ..errors import DataError
from ..files import write_text
from ..progress import Progress, silent
from .controls import Controls
from .source import Data, Reading, Source, open_source


@dataclass(frozen=True)
class Scores:
    """What the evaluation of one head found.

    Attributes:
        protocol: by which it was scored.
        depth_range: metres, of the truth that counts.
        image_wise, pixel_wise: metric name -> value, as the mean over images and pooled over pixels.
        per_image: one row per image with its name and metrics.
        skipped: names of images without any valid ground truth.
        not_finite: predicted depths, at patch resolution, that were NaN or infinite; the protocol scored an end of its range instead.
    """

    protocol: Protocol
    depth_range: tuple[float, float]
    image_wise: dict[str, float]
    pixel_wise: dict[str, float]
    per_image: list[dict[str, Any]]
    skipped: list[str]
    not_finite: int = 0

    @property
    def quoted(self) -> dict[str, float]:
        """The figures that the protocol quotes."""
        return self.pixel_wise if self.protocol.average == "pixel" else self.image_wise

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the per-image table."""
        return {
            "protocol": self.protocol.to_dict(), "depth_range": list(self.depth_range), "images": len(self.per_image),
            "skipped": self.skipped, "not_finite": self.not_finite, "scores": self.quoted, "image_wise": self.image_wise,
            "pixel_wise": self.pixel_wise,
        }  # fmt: skip

    def save_csv(self, path: str | Path) -> None:
        """Write the per-image table."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["name", *METRICS, "protocol"], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "protocol": self.protocol.name} for row in self.per_image)
        write_text(Path(path), text.getvalue())


def evaluate(
    model: DepthTokens,
    dataset: Data,
    protocol: str | Protocol = "auty2023",
    batch_size: int = 4,
    workers: int = 2,
    precision: str = "float32",
    progress: Progress = silent,
) -> Scores:
    """Score a model on a data set or a store of patch features, on the device where the model is.

    Args:
        model: the model.
        dataset: what it is scored on.
        protocol: "auty2023", "pooled", "depthclip", or one's own `Protocol`; its depth range defaults to the data set's.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        precision: of the image tower.
        progress: called as images are scored.

    Returns:
        The scores; images without valid ground truth are skipped and named there.

    Raises:
        DataError: where no image is left, or the store is not of this CLIP, mode and protocol.
    """
    source = open_source(model, dataset, None, Reading(batch_size=batch_size, workers=workers, precision=precision))
    return score_heads({"tokens": head_of(model)}, source, protocol, progress=progress)["tokens"]


def head_of(model: Trainable) -> Head:
    """The half of a model behind the image tower. The text side runs once, here, never per image."""
    model.eval()
    with torch.inference_mode():
        text = model.text_features()

    def head(patches: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.depth_from(patches, text).depth

    return head


def score_heads(
    heads: Mapping[str, Head],
    source: Source,
    protocol: str | Protocol,
    controls: Controls | None = None,
    progress: Progress = silent,
) -> dict[str, Scores]:
    """Score several heads by one protocol in one pass over the source, whose patch features are had once for all of them.

    Args:
        heads: by name.
        source: of test images.
        protocol: or its name.
        controls: the two rows that do not look at the image, scored behind the heads; averaging with the mirrored image is left out
            for them.
        progress: called as images are scored.

    Returns:
        Scores by name: of the heads, then of the controls.

    Raises:
        DataError: as `evaluate`.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    depth_range = protocol.depth_range or source.depth_range
    image_free = controls.heads(protocol) if controls else {}
    rows = {**heads, **image_free}
    sums = {name: MetricAccumulator() for name in rows}
    not_finite = dict.fromkeys(rows, 0)
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
        for name, head in rows.items():
            flipped = None if mirrored is None or name in image_free else head(mirrored)
            low = head(patches)
            depth = protocol.full_size(low, flipped, size, depth_range).cpu()
            not_finite[name] += count_not_finite(low, flipped)
            for i, target in targets.items():
                sums[name].add(target.moments(depth[i]), target.pixels)
        done += len(indices)
        progress(f"scoring {source.split} images", done, len(source.names))
    if not names:
        raise DataError(f"no image of {source.name} ({source.split}) has valid ground truth in the range and crop of this protocol")
    scores = {}
    for name, total in sums.items():
        per_image = [{"name": image, **values} for image, values in zip(names, total.per_image, strict=True)]
        used = replace(protocol, flip=False) if name in image_free else protocol
        scores[name] = Scores(used, depth_range, total.image_wise(), total.pixel_wise(), per_image, skipped, not_finite[name])
    return scores
