"""Procedural scenes as a data set like any other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError, unknown
from ..data.dataset import DepthDataset
from .captions import caption
from .content import DEPTH_RANGE, DEPTH_SCALE, SPLIT_CODES, Content
from .store import Job, Progress, Store, metres, scene

SMALLEST = 16  # pixels


class Scenes(DepthDataset):
    """`count` random scenes with exact depth; `self[i]` is a `Sample`, the same for the same arguments on every run.

    domain: "indoor" (0.5-10 m) or "road" (2-80 m); what lies outside that range has no depth.
    split: "train" or "test"; no scene is in both, whatever the seeds.
    size: (height, width) in pixels. cache: a folder to keep rendered scenes in, None = render each time one is read.
    workers: rendering processes, None = one per core; progress: called with (scenes rendered, all of them).
    """

    def __init__(
        self,
        domain: str = "indoor",
        split: str = "train",
        count: int = 1000,
        size: tuple[int, int] = (208, 272),
        seed: int = 0,
        cache: str | Path | None = None,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        job = check_job(domain, split, count, size, seed)
        names = [f"{domain}/{split}/{index:06d}" for index in range(count)]
        super().__init__(
            [(Path(name), Path(name)) for name in names],
            name="scenes",
            split=split,
            root=Path(),
            depth_range=DEPTH_RANGE[domain],
            depth_scale=DEPTH_SCALE[domain],
            names=names,
            seed=seed,
            allow_missing=True,
        )
        self.domain, self.job = domain, job
        self.store = None if cache is None else Store(cache, job, workers, progress)

    @property
    def spec(self) -> str:
        """As `open_dataset` knows it; that opens so many scenes as it always does."""
        return f"scenes:{self.domain}"

    def fingerprint(self) -> str:
        """SHA-256 of the job, which names the renderer's version: the same job is the same pixels."""
        return hashlib.sha256(repr(("scenes", self.job)).encode()).hexdigest()

    def absent(self, index: int) -> list[Path]:
        """None: there are no files."""
        return []

    def content(self, index: int) -> Content:
        """What scene `index` shows."""
        return self.store.contents[index] if self.store else scene(self.job, index)[2]

    def caption(self, index: int, draw: int = 0) -> str:
        """A caption of scene `index`; another `draw` is another caption."""
        return caption(self.content(index), np.random.default_rng([self.job.seed, SPLIT_CODES[self.split], index, draw]))

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self.store is None:
            rgb, depth, _ = scene(self.job, index)
        else:
            rgb, depth = np.array(self.store.rgb[index]), self.store.depth[index]
        return rgb, metres(depth, self.domain)

    def _size(self, index: int) -> tuple[int, int]:
        return self.job.size


def check_job(domain: str, split: str, count: int, size: tuple[int, int], seed: int) -> Job:
    """The arguments as a job. Raises UsageError for any that make no sense."""
    if domain not in DEPTH_RANGE:
        raise unknown("scene domain", domain, DEPTH_RANGE)
    if split not in SPLIT_CODES:
        raise unknown("split", split, SPLIT_CODES)
    if not 1 <= count < 1 << 32:
        raise UsageError(f"{count} scenes cannot be rendered: give a count of 1 or more")
    if len(size) != 2 or min(size) < SMALLEST:
        raise UsageError(f"scene size {'x'.join(map(str, size))} is too small: give height and width of at least {SMALLEST} pixels")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative: give 0 or more")
    return Job(domain, split, count, (int(size[0]), int(size[1])), seed)
