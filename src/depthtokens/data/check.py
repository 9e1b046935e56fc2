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
SCALES = (1000, 256, 5000, 100)  # units per metre that depth files use: millimetres, KITTI's, TUM's, centimetres


@dataclass(frozen=True)
class Findings:
    """What `check` found. Depths are in metres, over valid pixels only, and None where no map was readable.

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
        maps: how many depth maps the figures below are from.
        depth_min: the smallest depth.
        depth_median: over evenly spaced pixels of at most 200 evenly spaced maps.
        depth_max: the largest depth.
        valid_share: share of valid pixels in 0..1, mean over maps.
        empty: maps without a valid pixel.
        warnings: what looks wrong, in sentences.
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
    maps: int
    depth_min: float | None
    depth_median: float | None
    depth_max: float | None
    valid_share: float | None
    empty: int
    warnings: list[str]

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
        return lines + [f"warning: {warning}" for warning in self.warnings]


def check(dataset: DepthDataset, *, quick: bool = False, progress: Progress = silent) -> Findings:
    """Open every pair of a data set and say what is there; bad files are counted, not raised.

    Args:
        dataset: opened with `allow_missing=True`, where absent files are to be counted as well.
        quick: decode only up to 200 evenly spaced pairs, and of the others read the image's header.
        progress: called after each pair.
    """
    count = len(dataset)
    sampled = set(np.linspace(0, count - 1, min(count, SAMPLED_MAPS)).round().astype(int).tolist())
    missing: list[str] = []
    unreadable: list[str] = []
    sizes: Counter[str] = Counter()
    ranges: list[tuple[float, float]] = []
    shares: list[float] = []
    pixels: list[NDArray[np.float32]] = []
    coarse: list[bool] = []
    for index in range(count):
        if absent := dataset.absent(index):
            missing.append(f"{dataset.names[index]}: no {' and no '.join(map(str, absent))}")
        else:
            try:
                height, width = dataset.image_size(index)
                if index in sampled or not quick:
                    depth = dataset.read(index)[1]
                    valid = depth[depth > 0]
                    shares.append(valid.size / depth.size)
                    if valid.size:
                        ranges.append((float(valid.min()), float(valid.max())))
                    if valid.size and index in sampled:
                        pixels.append(valid[:: -(-valid.size // SAMPLED_PIXELS)])
                        coarse.append(_is_coarse(valid))
                sizes[f"{height}x{width}"] += 1
            except DataError as error:
                unreadable.append(str(error))
        progress(f"checking {dataset.name} {dataset.split}", index + 1, count)

    median = float(np.median(np.concatenate(pixels))) if pixels else None
    empty = len(shares) - len(ranges)
    warnings = []
    if median is not None and (warning := _scale_warning(dataset, median)):
        warnings.append(warning)
    if coarse and all(coarse):
        warnings.append("depth maps hold at most 256 different values: they were stored in 8 bits at some time")
    if empty:
        warnings.append(f"{empty} depth maps have no valid pixel: they teach nothing and cannot be scored")
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
        maps=len(shares),
        depth_min=min(lo for lo, _ in ranges) if ranges else None,
        depth_median=median,
        depth_max=max(hi for _, hi in ranges) if ranges else None,
        valid_share=float(np.mean(shares)) if shares else None,
        empty=empty,
        warnings=warnings,
    )


def _is_coarse(valid: NDArray[np.float32]) -> bool:
    """Whether a map's values are so few that it was in 8 bits once."""
    # Small maps have few values whatever their steps.
    return valid.size > 4096 and np.unique(valid).size <= 256


def _scale_warning(dataset: DepthDataset, median: float) -> str | None:
    """What to do where the median depth does not fit the range, None where it does."""
    lo, hi = dataset.depth_range
    # The lower bound is often a millimetre; a median below 1/200 of the range is as suspicious as one below it.
    lo = max(lo, hi / 200)
    if lo <= median <= hi:
        return None
    found = f"median depth {median:.3g} m is out of proportion to the range {dataset.depth_range[0]:g} to {hi:g} m"
    if not dataset.UNITS_STATED:
        return f"{found}: are the depth files in {dataset.name}'s units?"
    stored = median * (dataset.depth_scale or 1)
    if lo <= stored <= hi:
        return f"{found}: the files seem to hold metres, so state no --depth-scale"
    scale = next((scale for scale in SCALES if lo <= stored / scale <= hi), None)
    return f"{found}: check the unit and --depth-range" if scale is None else f"{found}: did you mean --depth-scale {scale}?"
