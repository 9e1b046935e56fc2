"""What is in a data set, and what looks wrong with it, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..progress import Progress, silent
from .dataset import DepthDataset

SAMPLED_MAPS = 200
SAMPLED_PIXELS = 20_000  # per map, for the median
SCALES = (1000, 256, 5000, 100)
"""Units per metre that depth files use: millimetres, KITTI's, TUM's, centimetres."""
ROTATED = 8000
"""Units per metre of files that hold millimetres rotated left by three bits, as SUN RGB-D's do."""
MISSING = 65535
"""The number in 16-bit files that often marks missing depth."""
MOST_OUTSIDE = 0.02
"""Share of the truth outside the depth range above which there is a warning."""
PLAUSIBLE = 200.0
"""Metres: beyond this, a median is taken for a wrong unit, never for a range that is too small."""


@dataclass(frozen=True)
class Truth:
    """What some of a data set's depth maps are like; see `sample_truth`.

    Attributes:
        maps: how many were looked at.
        median: of the truth in metres, marks for missing depth left out; None where there is none.
        outside: share in 0..1 of the truth that lies outside the depth range.
        dense: whether no map has a hole.
        in_painted: whether that is since holes were filled in (or the data rendered without any).
        fault: what to do where the truth is out of proportion to the range, None where it is not; training on such data is in vain.
        warnings: what looks wrong, the fault first, in sentences.
        notes: what a person should know.
    """

    maps: int
    median: float | None
    outside: float
    dense: bool
    in_painted: bool
    fault: str | None
    warnings: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Findings:
    """What `check` found. Depths are in metres, over pixels with truth, and None where no map was readable.

    Attributes:
        name: the data set's name.
        split: "train", "test" or "all".
        root: its folder.
        pairs: how many pairs it has.
        without_depth: how many listed images were left out because the list names no depth for them.
        missing: pairs with a file that is not there.
        missing_first: the first three of them, with the files.
        unreadable: pairs that cannot be read.
        unreadable_first: the first three of them, with the reason.
        sizes: number of images by "HxW", after a fixed crop.
        turned: images that are turned upright, as their EXIF orientation says.
        maps: how many depth maps the figures below are from.
        depth_min: the smallest depth.
        depth_median: over evenly spaced pixels of at most 200 evenly spaced maps.
        depth_max: the largest depth.
        valid_share: share in 0..1 of pixels with truth, mean over maps.
        outside: share in 0..1 of the truth outside the depth range, over the maps of `depth_median`.
        empty: maps without truth.
        in_painted: whether the truth has no holes since they were filled in.
        warnings: what looks wrong, in sentences.
        notes: what a person should know, likewise.
    """

    name: str
    split: str
    root: str
    pairs: int
    without_depth: int
    missing: int
    missing_first: list[str]
    unreadable: int
    unreadable_first: list[str]
    sizes: dict[str, int]
    turned: int
    maps: int
    depth_min: float | None
    depth_median: float | None
    depth_max: float | None
    valid_share: float | None
    outside: float | None
    empty: int
    in_painted: bool
    warnings: list[str]
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Whether every pair can be read."""
        return not self.missing and not self.unreadable

    def to_dict(self) -> dict[str, object]:
        """The same as plain JSON types."""
        return asdict(self) | {"ok": self.ok}

    def lines(self) -> list[str]:
        """The same for a person, line by line."""
        dropped = f" ({self.without_depth} more listed without depth)" if self.without_depth else ""
        lines = [f"{self.name} {self.split}: {self.pairs} pairs in {self.root}{dropped}"]
        for what, count, first in (("missing", self.missing, self.missing_first), ("unreadable", self.unreadable, self.unreadable_first)):
            lines.append(f"{what}: {count or 'none'}")
            lines += [f"  {line}" for line in first]
        lines.append("image sizes: " + (", ".join(f"{size} ({count})" for size, count in self.sizes.items()) or "none"))
        if self.depth_median is not None:
            lines.append(f"depth: {self.depth_min:.3f} to {self.depth_max:.3f} m, median {self.depth_median:.3f} m ({self.maps} maps)")
        if self.valid_share is not None:
            lines.append(f"valid pixels: {self.valid_share:.1%}; maps without any: {self.empty or 'none'}")
        if self.outside is not None:
            lines.append(f"outside the depth range: {self.outside:.1%} of the truth")
        return [*lines, *(f"note: {note}" for note in self.notes), *(f"warning: {warning}" for warning in self.warnings)]


def sample_truth(dataset: DepthDataset, maps: int = 50) -> Truth:
    """Look at some of a data set's depth maps, without its images: does the truth fit the depth range?

    Args:
        dataset: any.
        maps: how many are read at most, evenly spaced; those that cannot be read are passed over.
    """
    sample = _Sample(dataset)
    for index in _spread(len(dataset), maps):
        try:
            sample.add(dataset.truth(index))
        except DataError:
            continue
    return sample.result()


def remarks(dataset: DepthDataset, truth: Truth) -> list[str]:
    """What a person should hear before a data set is trained or scored on, line by line.

    Args:
        dataset: the data set.
        truth: a sample of it, from `sample_truth`.
    """
    lo, hi = dataset.depth_range
    notes = [*dataset.notes, *truth.notes]
    if 0 < truth.outside <= MOST_OUTSIDE:
        notes.append(f"{truth.outside:.2%} of the truth lies outside the depth range {lo:g} to {hi:g} m and does not count")
    warnings = [*dataset.warnings, *truth.warnings]
    return [*(f"note: {note}" for note in notes), *(f"warning: {warning}" for warning in warnings)]


def check(dataset: DepthDataset, *, quick: bool = False, progress: Progress = silent) -> Findings:
    """Open every pair of a data set and say what is there; bad files are counted, not raised.

    Args:
        dataset: opened with `allow_missing=True`, where absent files are to be counted as well.
        quick: decode only up to 200 evenly spaced pairs, and of the others read the image's header.
        progress: called after each pair.
    """
    count = len(dataset)
    sampled = set(_spread(count, SAMPLED_MAPS))
    missing: list[str] = []
    unreadable: list[str] = []
    sizes: Counter[str] = Counter()
    ranges: list[tuple[float, float]] = []
    shares: list[float] = []
    sample = _Sample(dataset)
    turned = 0
    for index in range(count):
        if absent := dataset.absent(index):
            missing.append(f"{dataset.names[index]}: no {' and no '.join(map(str, absent))}")
        else:
            try:
                height, width = dataset.image_size(index)
                turned += dataset.orientation(index) != 1
                if index in sampled or not quick:
                    depth = dataset.stored(index)[1]
                    valid = depth[depth > 0]
                    shares.append(valid.size / depth.size)
                    if valid.size:
                        ranges.append((float(valid.min()), float(valid.max())))
                    if index in sampled:
                        sample.add(depth)
                sizes[f"{height}x{width}"] += 1
            except DataError as error:
                unreadable.append(str(error))
        progress(f"checking {dataset.name} {dataset.split}", index + 1, count)

    truth = sample.result()
    empty = len(shares) - len(ranges)
    warnings = [*truth.warnings]
    if empty:
        warnings.append(f"{empty} depth maps have no valid pixel: they teach nothing and cannot be scored")
    if turned:
        warnings.append(f"{turned} images are turned upright, as their EXIF orientation says: their depth maps must be stored upright too")
    if len(sizes) > 1:
        warnings.append("image sizes differ: training needs --crop HEIGHT WIDTH to batch them")
    return Findings(
        name=dataset.name,
        split=dataset.split,
        root=str(dataset.root),
        pairs=count,
        without_depth=dataset.without_depth,
        missing=len(missing),
        missing_first=missing[:3],
        unreadable=len(unreadable),
        unreadable_first=unreadable[:3],
        sizes=dict(sizes.most_common()),
        turned=turned,
        maps=len(shares),
        depth_min=min(lo for lo, _ in ranges) if ranges else None,
        depth_median=truth.median,
        depth_max=max(hi for _, hi in ranges) if ranges else None,
        valid_share=float(np.mean(shares)) if shares else None,
        outside=truth.outside if ranges else None,
        empty=empty,
        in_painted=truth.in_painted,
        warnings=[*warnings, *dataset.warnings],
        notes=[*dataset.notes, *truth.notes],
    )


def _spread(count: int, most: int) -> list[int]:
    """At most so many indices of `count`, evenly spaced."""
    chosen: list[int] = np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()
    return chosen


class _Sample:
    """Depth maps that have been looked at."""

    def __init__(self, dataset: DepthDataset) -> None:
        self.dataset = dataset
        self.scale = dataset.depth_scale or 1.0
        self.maps = self.valid = self.outside = self.marks = 0
        self.dense = True
        self.pixels: list[NDArray[np.float32]] = []
        self.coarse: list[bool] = []

    def add(self, depth: NDArray[np.float32]) -> None:
        """Take in one map [H, W] metres, 0 = none."""
        valid = depth[depth > 0]
        self.maps += 1
        self.dense &= valid.size == depth.size
        if not valid.size:
            return
        outside = ~self.dataset.in_range(valid)
        marks = outside & (valid == np.float32(MISSING) / np.float32(self.scale))
        self.valid += valid.size
        self.outside += int(outside.sum())
        self.marks += int(marks.sum())
        told = valid[~marks]
        if told.size:
            self.pixels.append(told[:: -(-told.size // SAMPLED_PIXELS)])
            # Small maps have few values whatever their steps.
            self.coarse.append(told.size > 4096 and np.unique(told).size <= 256)

    def result(self) -> Truth:
        """What they are like, together."""
        pixels = np.concatenate(self.pixels) if self.pixels else None
        median = None if pixels is None else float(np.median(pixels))
        outside = self.outside / self.valid if self.valid else 0.0
        fault = None if pixels is None or median is None else self._fault(pixels, median)
        warnings = [fault] if fault else []
        if outside > MOST_OUTSIDE and not fault:
            warnings.append(self._outside(outside))
        if self.coarse and all(self.coarse):
            warnings.append("depth maps hold at most 256 different values: they were stored in 8 bits at some time")
        dense = self.dense and self.valid > 0
        known = self.dataset.in_painted
        in_painted = dense if known is None else known
        found = in_painted and known is None
        notes = ["the truth has no holes: it is in-painted (or rendered), not what a sensor measured"] if found else []
        return Truth(self.maps, median, outside, dense, in_painted, fault, warnings, notes)

    def _outside(self, share: float) -> str:
        """What to do where much of the truth does not count."""
        lo, hi = self.dataset.depth_range
        text = f"{share:.1%} of the truth lies outside the depth range {lo:g} to {hi:g} m and does not count"
        if self.marks > self.outside / 2:
            return f"{text}: {MISSING} in the files ({MISSING / self.scale:.4g} m) seems to mark missing depth"
        if not self.dataset.UNITS_STATED:
            return f"{text} in evaluation"
        return f"{text}: state a --depth-range that holds it, where its unit is right"

    def _fault(self, pixels: NDArray[np.float32], median: float) -> str | None:
        """What to do where scale or range cannot be right, None where they may be."""
        dataset = self.dataset
        lo, hi = dataset.depth_range
        # The lower bound is often a millimetre; a median below 1/200 of the range is as suspicious as one below it.
        low = max(lo, hi / 200)
        fits = low <= median <= hi
        found = f"median depth {median:.3g} m is out of proportion to the range {lo:g} to {hi:g} m"
        if not dataset.UNITS_STATED:
            return None if fits else f"{found}: are the depth files in {dataset.name}'s units?"
        stored = median * self.scale
        if self.scale != ROTATED and low <= stored / ROTATED <= hi and _is_rotated(pixels * self.scale):
            why = "the files hold millimetres whose bits are rotated by three, as SUN RGB-D's"
            return f"{why if fits else f'{found}: {why}'}: did you mean --depth-scale {ROTATED}?"
        if fits:
            return None
        if low <= stored <= hi and self.scale != 1:
            images = any(depth.suffix.lower() == ".png" for _, depth in dataset.pairs)
            return f"{found}: the files seem to hold metres, so state {'--depth-scale 1' if images else 'no --depth-scale'}"
        scale = next((scale for scale in SCALES if low <= stored / scale <= hi), None)
        larger = dataset.depth_scale is not None and hi < median <= PLAUSIBLE
        wider = f"--depth-range {lo:g} {_round_up(float(np.quantile(pixels, 0.999))):g}" if larger else ""
        if scale is not None:
            return f"{found}: did you mean --depth-scale {scale}?{f' Where the scale is right, state {wider}' if wider else ''}"
        return f"{found}: state {wider}, or check the unit" if wider else f"{found}: check the unit and --depth-range"


def _is_rotated(stored: NDArray[np.float32]) -> bool:
    """Whether numbers of 16 bits are multiples of 8 nearly always, and of nothing larger: the mark of a rotation by three bits."""
    numbers = np.rint(stored.astype(np.float64)).astype(np.int64)
    if np.abs(stored - numbers).max() > 0.01 or numbers.max() > MISSING or np.unique(numbers).size < 32:
        return False
    return float((numbers % 8 == 0).mean()) > 0.95 and float((numbers % 16 == 0).mean()) < 0.75


def _round_up(value: float) -> float:
    """The next number of one digit, as 80 for 71.3."""
    step = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / step) * step)
