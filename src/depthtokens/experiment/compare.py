"""Two results that `evaluate --csv` wrote, compared image by image."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..data.images import reading
from ..depth.metrics import METRICS
from ..errors import UsageError
from ..files import user_path
from .statistics import Difference, paired_bootstrap


@dataclass(frozen=True)
class Comparison:
    """The difference between two results on the same pixels of the same images.

    Attributes:
        protocol: by which both were scored.
        images: how many.
        aligned: how predictions of each were aligned, "" where they were a model's.
        means: metric -> its mean over images in each.
        differences: metric -> the first minus the second, with its interval.
    """

    protocol: str
    images: int
    aligned: tuple[str, str]
    means: dict[str, tuple[float, float]]
    differences: dict[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        rows = {name: {"a": a, "b": b, "difference": self.differences[name].to_dict()} for name, (a, b) in self.means.items()}
        return {"protocol": self.protocol, "images": self.images, "align": list(self.aligned), "metrics": rows}


def compare(a: Path, b: Path) -> Comparison:
    """Whether two results differ, with bootstrap intervals over images (`statistics.paired_bootstrap`).

    Args:
        a: per-image scores, as `evaluate --csv` writes them.
        b: the scores that are subtracted, of the same images in any order.

    Raises:
        DataError: for files that cannot be read.
        UsageError: for files of anything else, or scores of other images, pixels or protocols, or of fewer than two images.
    """
    first, second = _read(a), _read(b)
    names = list(first.images)
    for one, other, where in ((first, second, a), (second, first, b)):
        if lone := [name for name in one.images if name not in other.images]:
            raise UsageError(f"results are compared on the same images: {len(lone)} are in {where} alone, such as {lone[0]}")
    if first.protocol != second.protocol:
        raise UsageError(f"results are compared by one protocol: {a} is by {first.protocol}, {b} by {second.protocol}")
    if other_pixels := [name for name in names if first.images[name]["pixels"] != second.images[name]["pixels"]]:
        many = f"{len(other_pixels)} images have other pixels that count, such as {other_pixels[0]}"
        raise UsageError(f"results are compared on the same truth: {many}")
    figures = {metric: tuple([table.images[name][metric] for name in names] for table in (first, second)) for metric in METRICS}
    means = {metric: (sum(ours) / len(names), sum(theirs) / len(names)) for metric, (ours, theirs) in figures.items()}
    differences = {metric: paired_bootstrap(ours, theirs) for metric, (ours, theirs) in figures.items()}
    return Comparison(first.protocol, len(names), (first.align, second.align), means, differences)


class _Table(NamedTuple):
    """Per-image scores: name of the image -> metric, or "pixels" -> figure."""

    protocol: str
    align: str
    images: dict[str, dict[str, float]]


def _read(path: Path) -> _Table:
    """Scores of a file. Raises UsageError for a file of anything else."""
    with reading("scores", path):
        rows = list(csv.DictReader(user_path(path).read_text(encoding="utf-8").splitlines()))
    try:
        images = {row["name"]: {name: float(row[name]) for name in (*METRICS, "pixels")} for row in rows}
        (protocol,) = {row["protocol"] for row in rows}
        (align,) = {row.get("align", "") for row in rows}
        if len(images) < len(rows):
            raise ValueError("an image twice")
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} holds no scores of images: give what `depthtokens evaluate ... --csv FILE` wrote") from error
    return _Table(protocol, align, images)
