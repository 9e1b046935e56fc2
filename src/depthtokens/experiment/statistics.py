"""How sure a score is: its spread over seeds, and its bootstrap interval over images.

A test set is a sample of images, so images are what the bootstrap resamples. Two rows that were scored on the same images are compared
image by image (paired): how hard an image is for both then does not matter. Seeds are few; each image's scores are averaged over them
first, and the spread over seeds is stated separately.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError

AT_ONCE = 2**21
"""How many numbers are drawn at once, which bounds the memory taken (16 MB)."""


@dataclass(frozen=True)
class MeanStd:
    """A mean over seeds.

    Attributes:
        mean: of the values.
        std: their sample standard deviation, None for one value alone.
        count: how many values.
    """

    mean: float
    std: float | None
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.std is None else f"{self.mean:.3f} ± {self.std:.3f}"


@dataclass(frozen=True)
class Interval:
    """A mean over images, and the interval in which the mean over other such images would probably lie.

    Attributes:
        mean: over images.
        low: lower end of the interval.
        high: upper end of the interval.
        level: probability that the interval is to have.
        images: how many.
        seeds: over how many runs each image was averaged before images were resampled.
    """

    mean: float
    low: float
    high: float
    level: float
    images: int
    seeds: int

    def to_dict(self) -> dict[str, float | None]:
        """As plain values, for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "level": self.level}

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Difference(Interval):
    """The mean over images of the difference a − b between two rows, and its interval.

    The interval says what other images would give with the same runs; `seed_std` says what other seeds would.

    Attributes:
        seeds: runs of a.
        seeds_b: runs of b.
        seed_std: standard deviation of `mean` over the choice of seeds, estimated from the spread over each row's own; None where
            neither row has two runs.
    """

    seeds_b: int
    seed_std: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0 <= self.high

    def to_dict(self) -> dict[str, float | None]:
        """As plain values, for JSON."""
        return {**super().to_dict(), "seed_std": self.seed_std}

    def __str__(self) -> str:
        spread = "" if self.seed_std is None else f" ± {self.seed_std:.3f}"
        return f"{self.mean:+.3f}{spread} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and sample standard deviation (n − 1).

    Args:
        values: one score per seed.

    Raises:
        UsageError: for no value, or one that is not finite.

    Example:
        >>> str(mean_std([0.318, 0.320, 0.322]))
        '0.320 ± 0.002'
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise UsageError(f"mean and spread need one finite number per seed, not {list(values)}")
    return MeanStd(float(numbers.mean()), float(numbers.std(ddof=1)) if numbers.size > 1 else None, numbers.size)


def bootstrap_mean(values: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean over images, with its BCa bootstrap interval (Efron 1987, bias-corrected and accelerated).

    Args:
        values: one value per image [n], or one per run and image [seeds, n], which are averaged over runs first.
        samples: how often the images are resampled.
        level: probability that the interval is to have.
        seed: of the resampling.

    Raises:
        UsageError: for fewer than two images, numbers that are not finite, or a level outside 0-1.
    """
    table = _per_image(values)
    images = table.mean(axis=0)
    low, high = _bca(images, samples, level, seed)
    return Interval(float(images.mean()), low, high, level, table.shape[1], table.shape[0])


def paired_bootstrap(a: ArrayLike, b: ArrayLike, *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Difference:
    """Whether two rows differ: the mean of a − b over the same images, with its BCa bootstrap interval.

    Args:
        a: values of one row, [n], or [seeds, n], which are averaged over runs first.
        b: values of the other, likewise; image i must be the same in both, but the number of runs may differ.
        samples: how often the images are resampled.
        level: probability that the interval is to have.
        seed: of the resampling.

    Raises:
        UsageError: as `bootstrap_mean`, and where the numbers of images differ.
    """
    first, second = _per_image(a), _per_image(b)
    if first.shape[1] != second.shape[1]:
        raise UsageError(f"rows are compared image by image: one has {first.shape[1]} images, the other {second.shape[1]}")
    images = first.mean(axis=0) - second.mean(axis=0)
    low, high = _bca(images, samples, level, seed)
    return Difference(
        float(images.mean()), low, high, level, first.shape[1], first.shape[0], second.shape[0], _seed_std(first, second)
    )  # fmt: skip


def _per_image(values: ArrayLike) -> NDArray[np.float64]:
    """Values as a table [seeds, n]. Raises UsageError for fewer than two images, or values that are not finite."""
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or not table.shape[0] or table.shape[1] < 2:
        raise UsageError(f"an interval over images needs values [n] or [seeds, n] of at least two images, not {list(np.shape(values))}")
    if not np.isfinite(table).all():
        raise UsageError("an interval over images needs finite values")
    return table


def _seed_std(*tables: NDArray[np.float64]) -> float | None:
    """Standard deviation of the difference of two means over seeds; a row with one seed has no spread and counts as exact."""
    errors = [table.mean(axis=1).var(ddof=1) / len(table) for table in tables if len(table) > 1]
    return float(np.sqrt(sum(errors))) if errors else None


def _bca(values: NDArray[np.float64], samples: int, level: float, seed: int) -> tuple[float, float]:
    """Ends of Efron's BCa interval for the mean of values [n]; errors of single images are skewed, so plain percentiles would be off."""
    from scipy import stats  # takes a second to import

    if not 0 < level < 1 or samples < 100:
        raise UsageError(f"an interval needs a level between 0 and 1 and at least 100 samples, not {level} and {samples}")
    centred = values - values.mean()
    if not np.abs(centred).max() > 1e-12 * max(1.0, np.abs(values).max()):  # all images alike: every resample has the same mean
        return float(values.mean()), float(values.mean())
    unit = float(np.abs(centred).max()) / 2**42

    def mean(steps: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        """In whole units: means that differ by rounding alone are the same, which the bias counts."""
        return np.rint(steps.mean(axis=axis))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a degenerate distribution is dealt with below

        def interval(method: str) -> tuple[float, float]:
            found = stats.bootstrap(
                (centred / unit,), mean, n_resamples=samples, batch=max(1, AT_ONCE // len(values)), vectorized=True, confidence_level=level,
                method=method, rng=np.random.default_rng(seed),
            ).confidence_interval  # fmt: skip
            return unit * float(found.low), unit * float(found.high)

        low, high = interval("BCa")
        if not (np.isfinite(low) and np.isfinite(high)):  # every resample on one side of the mean: the bias is infinite
            low, high = interval("percentile")
    centre = float(values.mean())
    return round(low + centre, 12) + 0.0, round(high + centre, 12) + 0.0  # no end at -0.000 where it is zero
