"""A finished row of a reproduction, in memory and as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..depth.metrics import METRICS
from ..errors import DataError
from ..files import atomic
from ..reproduce.rows import Row
from .statistics import Difference, Interval, MeanStd, bootstrap_mean, mean_std, paired_bootstrap

if TYPE_CHECKING:
    from .evaluate import Scores


@dataclass(frozen=True)
class RowResult:
    """What a row gave. row: what was run. seeds: of its runs, one even where none matters; parameters: trained numbers of one run.

    scores: metric -> the protocol's figure, one per run. images: metric -> [runs][images]; names: of those images. minutes: of training
    and scoring all runs.
    """

    row: Row
    seeds: list[int]
    parameters: int
    minutes: float
    scores: dict[str, list[float]]
    images: dict[str, list[list[float]]]
    names: list[str]

    @staticmethod
    def of(row: Row, seeds: Sequence[int], scores: Sequence[Scores], parameters: int, minutes: float) -> RowResult:
        """From the scores of its runs."""
        quoted = {metric: [score.quoted[metric] for score in scores] for metric in METRICS}
        # Six digits are more than any table shows, and a third of the size.
        images = {m: [[float(f"{image[m]:.6g}") for image in score.per_image] for score in scores] for m in METRICS}
        return RowResult(row, list(seeds), parameters, minutes, quoted, images, [image["name"] for image in scores[0].per_image])

    def measured(self, metric: str) -> MeanStd:
        """Mean and standard deviation over seeds."""
        return mean_std(self.scores[metric])

    def interval(self, metric: str) -> Interval:
        """The mean over images, averaged over seeds, and its bootstrap interval."""
        return bootstrap_mean(self.images[metric])

    def against(self, other: RowResult, metric: str) -> Difference | None:
        """This row minus another on the same images, paired; None where they were scored on other images."""
        return paired_bootstrap(self.images[metric], other.images[metric]) if self.names == other.names else None

    def write(self, path: Path) -> None:
        """Write to a JSON file, atomically."""
        with atomic(path) as file:
            file.write(json.dumps(asdict(self)).encode())

    @staticmethod
    def read(path: Path) -> RowResult:
        """The inverse of `write`. Raises DataError for a file that is none."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return RowResult(**{**values, "row": Row(**values["row"])})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged: delete it, and the row is run again") from error


def slug(name: str) -> str:
    """A row's name as a file's."""
    return re.sub(r"[^\w.+-]+", "_", name)
