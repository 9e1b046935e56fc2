"""Evaluation: heads are scored by a protocol, learned ones and controls alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..clip.device import precision_of
from ..depth.fused import Output
from ..depth.linear import Trainable
from ..depth.metrics import METRICS, MetricAccumulator, Target
from ..depth.model import DepthTokens
from ..depth.protocol import Head, Protocol, count_not_finite, find_protocol
from ..depth.settings import SHIFT
from ..errors import DataError
from ..files import user_path, write_text
from ..progress import Progress, silent
from ..summary import Summarised, Summary
from .controls import Controls
from .source import Data, Reading, Scored, open_source

Keep: TypeAlias = Callable[[str, list[int], Tensor, tuple[int, int]], None]
"""Called with a row, indices of images, their depth [B, 1, h, w] as it is scored, in metres, and the size (H, W) of the whole images."""


@dataclass(frozen=True, repr=False)
class Scores(Summarised):
    """What the evaluation of one head gave.

    Attributes:
        protocol: by which it was scored.
        depth_range: (lo, hi) metres, of the truth that counted.
        image_wise: metric name -> mean over images.
        pixel_wise: metric name -> figure over all pixels of all images.
        per_image: for each image a dict of its "name", its metrics, and how many "pixels" counted.
        skipped: names of images without any valid ground truth.
        not_finite: predicted depths, at patch resolution, that were NaN or infinite; the protocol scored an end of its range instead.
        align: how predictions of a folder were aligned, one of `ALIGNMENTS`; None for a model's.
    """

    protocol: Protocol
    depth_range: tuple[float, float]
    image_wise: dict[str, float]
    pixel_wise: dict[str, float]
    per_image: list[dict[str, Any]]
    skipped: list[str]
    not_finite: int = 0
    align: str | None = None

    @property
    def quoted(self) -> dict[str, float]:
        """Metric name -> the figure that the protocol quotes: image-wise or pixel-wise."""
        return self.pixel_wise if self.protocol.average == "pixel" else self.image_wise

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; without the figures of each image."""
        return {
            "protocol": self.protocol.to_dict(), "depth_range": list(self.depth_range), "images": len(self.per_image),
            "skipped": self.skipped, "not_finite": self.not_finite, "scores": self.quoted, "image_wise": self.image_wise,
            "pixel_wise": self.pixel_wise, **({"align": self.align} if self.align else {}),
        }  # fmt: skip

    def summary(self) -> Summary:
        """The figures, each as the mean over images and over all pixels together."""
        lo, hi = self.protocol.depth_range or self.depth_range
        rows = [(metric.heading, f"{self.image_wise[name]:.3f}", f"{self.pixel_wise[name]:.3f}") for name, metric in METRICS.items()]
        left = f", {len(self.skipped)} without truth" if self.skipped else ""
        aligned = f", align {self.align}" if self.align else ""
        title = f"Scores by {self.protocol.name}, {lo:g} to {hi:g} m, {len(self.per_image)} images{left}{aligned}"
        return Summary(title, rows, ("", "mean over images", "over all pixels"))

    def to_csv(self, path: str | Path | None = None) -> str:
        """The figures of each image as CSV text, written to a file where one is named. Raises DepthTokensError where it cannot be."""
        said = {"protocol": self.protocol.name, **({"align": self.align} if self.align not in (None, "none") else {})}
        return csv_text(["name", *METRICS, "pixels", *said], ({**row, **said} for row in self.per_image), path)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], path: str | Path | None) -> str:
    """Rows as CSV text, written to a file where one is named. Raises DepthTokensError where it cannot be."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if path is not None:
        write_text(user_path(path), text.getvalue())
    return text.getvalue()


def evaluate(
    model: DepthTokens,
    dataset: Data,
    protocol: str | Protocol = "auty2023",
    batch_size: int = 4,
    workers: int = 2,
    precision: str | None = None,
    progress: Progress = silent,
) -> Scores:
    """Score a model on a data set or a store of patch features, on the device where the model is.

    Args:
        model: what is scored.
        dataset: test images, or a store of their features.
        protocol: "auty2023", "pooled", "depthclip", or a `Protocol` of one's own.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        precision: of the image tower: float32, bfloat16 or float16; None takes the model's `dtype`.
        progress: called as images are scored.

    Returns:
        The scores; images without valid ground truth are skipped and named there.

    Raises:
        DataError: where no image has valid ground truth, images cannot be read, or the store is not of this CLIP, mode and protocol.
        UsageError: for an unknown protocol or precision, or a store where the model's trunk is no longer the CLIP's.

    Example:
        >>> from depthtokens import DepthTokens, Scenes, load_clip
        >>> model = DepthTokens(load_clip("bundled"), depth="depth-7", depth_range=(0.5, 10.0))
        >>> scores = evaluate(model, Scenes("indoor", "test", 2), workers=0)
        >>> list(scores.image_wise)[:3], len(scores.per_image)
        (['abs_rel', 'sq_rel', 'rmse'], 2)
    """
    precision = precision or precision_of(model.dtype)
    source = open_source(model, dataset, None, Reading(batch_size=batch_size, workers=workers, precision=precision))
    return score_heads({"tokens": head_of(model)}, source, protocol, progress=progress)["tokens"]


def output_of(model: Trainable) -> Callable[[Tensor], Output]:
    """The part of a model that comes behind the image tower: from patch features to depth and probabilities.

    The text side runs once, here, and never again per image, unless every image has prompts of its own.
    """
    model.eval()
    with torch.inference_mode():
        text = None if model.settings.condition == SHIFT else model.text_features()

    def output(patches: Tensor) -> Output:
        with torch.inference_mode():
            return model.depth_from(patches, model.text_features(patches) if text is None else text)

    return output


def head_of(model: Trainable) -> Head:
    """The same as a head, which gives depth alone."""
    output = output_of(model)
    return lambda patches: output(patches).depth


def score_heads(
    heads: Mapping[str, Head],
    source: Scored,
    protocol: str | Protocol,
    controls: Controls | None = None,
    progress: Progress = silent,
    keep: Keep | None = None,
) -> dict[str, Scores]:
    """Score several heads by one protocol, in one pass over the source: patch features are computed or read once for all of them.

    Args:
        heads: by the name of their row.
        source: of test images.
        protocol: by which to score, or its name.
        controls: scored behind the heads, without flip averaging, since they do not look at the image; None for no controls.
        progress: called as images are scored.
        keep: called with the depth of every image as it is scored, for each row; None where it is not wanted.

    Returns:
        Scores by row: of the heads, then of the controls.

    Raises:
        DataError: where no image has valid ground truth, images cannot be read, or a store does not hold what the protocol shows.
        UsageError: for an unknown protocol.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    depth_range = protocol.depth_range or source.depth_range
    image_free = controls.heads(protocol) if controls else {}
    rows = {**heads, **image_free}
    sums = {name: MetricAccumulator() for name in rows}
    not_finite = dict.fromkeys(rows, 0)
    names: list[str] = []
    pixels: list[int] = []
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
        pixels += [target.pixels for target in targets.values()]
        for name, head in rows.items():
            flipped = None if mirrored is None or name in image_free else head(mirrored)
            low = head(patches)
            depth = protocol.full_size(low, flipped, size, depth_range).cpu()
            not_finite[name] += count_not_finite(low, flipped)
            if keep is not None:
                keep(name, indices, depth, (whole.shape[-2], whole.shape[-1]))
            for i, target in targets.items():
                sums[name].add(target.moments(depth[i]), target.pixels)
        done += len(indices)
        progress(f"scoring {source.split} images", done, len(source.names))
    if not names:
        raise DataError(f"no image of {source.name} ({source.split}) has valid ground truth in the range and crop of this protocol")
    scores = {}
    for name, total in sums.items():
        found = zip(names, total.per_image, pixels, strict=True)
        per_image = [{"name": image, **values, "pixels": counted} for image, values, counted in found]
        used = replace(protocol, flip=False) if name in image_free else protocol
        scores[name] = Scores(used, depth_range, total.image_wise(), total.pixel_wise(), per_image, skipped, not_finite[name])
    return scores
