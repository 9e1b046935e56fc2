"""A result: all figures of a row, run by run and image by image, and the statistics of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ..depth.metrics import METRICS
from ..errors import UsageError
from ..summary import Summarised, Summary
from .evaluate import Scores, csv_text
from .statistics import Difference, Interval, MeanStd, bootstrap_mean, mean_std, paired_bootstrap


@dataclass(frozen=True, repr=False)
class Result(Summarised):
    """What the runs of one row gave.

    Attributes:
        seeds: one per run, even where a row does not depend on it.
        parameters: how many numbers one run trains.
        scores: metric name -> the figure that the protocol quotes, one per run.
        images: metric name -> figures of single images, [runs][images].
        names: of those images.
        minutes: that training and scoring all runs took; 0 where that was not measured.
    """

    seeds: list[int]
    parameters: int
    scores: dict[str, list[float]]
    images: dict[str, list[list[float]]]
    names: list[str]
    minutes: float = 0.0

    @staticmethod
    def of(
        scores: Sequence[Scores], *, seeds: Sequence[int] = (0,), parameters: int = 0, minutes: float = 0.0, digits: int | None = None
    ) -> Result:
        """A result from the scores of its runs.

        Args:
            scores: one per run, all on the same images.
            seeds: one per run.
            parameters: how many numbers one run trains.
            minutes: that training and scoring all runs took.
            digits: significant digits that figures of single images are rounded to; None keeps all.
        """

        def kept(value: float) -> float:
            return value if digits is None else float(f"{value:.{digits}g}")

        quoted = {metric: [score.quoted[metric] for score in scores] for metric in METRICS}
        images = {metric: [[kept(image[metric]) for image in score.per_image] for score in scores] for metric in METRICS}
        return Result(list(seeds), parameters, quoted, images, [image["name"] for image in scores[0].per_image], minutes)

    def score(self, metric: str) -> float:
        """The figure of a metric, as the mean over runs."""
        return self.measured(metric).mean

    def measured(self, metric: str) -> MeanStd:
        """Mean and standard deviation of a metric over runs."""
        return mean_std(self.scores[metric])

    def interval(self, metric: str) -> Interval:
        """The mean of a metric over images, each averaged over runs first, and its bootstrap interval. Raises as `bootstrap_mean`."""
        if metric not in self._intervals:
            self._intervals[metric] = bootstrap_mean(self.images[metric])
        return self._intervals[metric]

    def minus(self, other: Result, metric: str) -> Difference | None:
        """The difference between this row and another, image by image.

        Args:
            other: the row that is subtracted.
            metric: its name.

        Returns:
            The mean difference and its bootstrap interval; None where the two were scored on different images.

        Raises:
            UsageError: as `statistics.paired_bootstrap`.
        """
        return paired_bootstrap(self.images[metric], other.images[metric]) if self.names == other.names else None

    @cached_property
    def _intervals(self) -> dict[str, Interval]:
        """Intervals that were computed before, by metric."""
        return {}

    def summary(self) -> Summary:
        """The figures that the protocol quotes, as mean and standard deviation over runs."""
        rows = [(METRICS[name].heading, mean_std(values)) for name, values in self.scores.items()]
        return Summary(f"Result of {len(self.seeds)} runs on {len(self.names)} images", rows)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The figures of each run and image as CSV text, written to a file where one is named. Raises as `Scores.to_csv`."""
        rows = (
            {"seed": seed, "name": name, **{metric: self.images[metric][run][image] for metric in METRICS}}
            for run, seed in enumerate(self.seeds)
            for image, name in enumerate(self.names)
        )
        return csv_text(["seed", "name", *METRICS], rows, path)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Result:
        """The inverse of `to_dict`. Raises UsageError for values that it did not give, or whose runs and images do not match."""
        try:
            result = Result(**values)
            if not result._typed():
                raise TypeError("values of another type")
            shape = (len(result.seeds), len(result.names))
            new = [metric.label for name, metric in METRICS.items() if name not in result.scores or name not in result.images]
            if new:
                raise UsageError(f"not the figures of a row: measured without {', '.join(new)}")
            for metric in METRICS:
                runs, images = result.scores[metric], result.images[metric]
                if len(runs) != shape[0] or len(images) != shape[0] or any(len(row) != shape[1] for row in images):
                    raise UsageError(f"the figures of {metric} are not {shape[0]} runs over {shape[1]} images")
            return result
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(f"not the figures of a row ({error})") from error

    def _typed(self) -> bool:
        """Whether all values have the types that they are said to have; a file can hold anything."""
        figures = [value for metric in METRICS for value in self.scores.get(metric, [])]
        figures += [value for metric in METRICS for run in self.images.get(metric, []) for value in run]
        return (
            isinstance(self.names, list)
            and all(type(name) is str for name in self.names)
            and all(type(value) is int for value in [*self.seeds, self.parameters])
            and all(type(value) in (int, float) for value in [*figures, self.minutes])
        )
