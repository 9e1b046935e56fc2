"""Procedural scenes as a data set like any other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from ..data.augment import FOLDER
from ..data.dataset import DepthDataset, Opening, Stated
from ..errors import UsageError, unknown
from ..files import cache_folder
from ..progress import Progress, silent
from .captions import caption
from .content import DEPTH_RANGE, DEPTH_SCALE, SPLIT_CODES, Content
from .store import Job, Store, metres, scene

SCENES = {"train": 1000, "test": 200}
"""How many scenes of each split "scenes" opens."""
SMALLEST = 16  # pixels


class Scenes(DepthDataset):
    """Random scenes with exact depth; `self[i]` is a `Sample`, the same for the same arguments on every run.

    Args:
        domain: "indoor" (0.5-10 m) or "road" (2-80 m); what lies outside that range has no depth.
        split: "train" or "test"; no scene is in both, whatever the seeds.
        count: how many scenes.
        size: (height, width) in pixels.
        seed: of the scenes.
        cache: a folder to keep rendered scenes in, None = render each time one is read.
        workers: rendering processes, None = one per core.
        progress: called after each scene that is rendered into the cache.

    Raises:
        UsageError: where an argument makes no sense.
        DataError: where the cache cannot be written.

    Example:
        >>> scenes = Scenes("indoor", "test", 2)
        >>> scenes[0].image.shape, scenes[0].depth.shape, scenes.depth_range
        (torch.Size([3, 208, 272]), torch.Size([1, 208, 272]), (0.5, 10.0))
    """

    NAME: ClassVar = "scenes"
    NEEDS_FOLDER: ClassVar = False

    in_painted = False

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
        progress: Progress = silent,
    ) -> None:
        job = check_job(domain, split, count, size, seed)
        names = [f"{domain}/{split}/{index:06d}" for index in range(count)]
        super().__init__(
            [(Path(name), Path(name)) for name in names],
            name=self.NAME,
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

    @classmethod
    def open(cls, root: str, split: str, **options: Unpack[Opening]) -> Self:
        """Scenes of seed 0, as many as `SCENES` says, rendered once and kept in the cache folder.

        Args:
            root: the domain, "" = "indoor".
            split: "train" or "test".
            **options: as `open_dataset` takes them, of which `augment`, `crop` and `seed` (of the random views) are used, and others that
                speak of files refused: scenes have none.
        """
        options = Opening(**cls.taken(options))  # type: ignore[typeddict-item]
        if options.get("list_file") is not None:
            raise UsageError("scenes are rendered: no list names them, so --list-file is not for them")
        scenes = cls(root or "indoor", split, SCENES.get(split, 0), cache=cache_folder() / "scenes")
        scenes.augment = FOLDER.with_crop(options.get("crop")) if options.get("augment") else None
        scenes.seed = options.get("seed", 42)
        return scenes

    @classmethod
    def unchanged(cls, stated: Stated, images: int) -> str:
        """As of any data set, but from the job alone: to open the scenes would be to render them all."""
        same = cls(stated["spec"].partition(":")[2], stated["split"], images).fingerprint() == stated["fingerprint"]
        return "unchanged" if same else "not opened (scenes of another size, seed or renderer than this version's)"

    @property
    def spec(self) -> str:
        """As `open_dataset` knows it; that opens so many scenes as it always does."""
        return f"scenes:{self.domain}"

    def fingerprint(self) -> str:
        """SHA-256 of the job, which names the renderer's version: the same job is the same pixels."""
        return hashlib.sha256(repr(("scenes", self.job)).encode()).hexdigest()

    def orientation(self, index: int) -> int:
        """1: scenes are upright."""
        return 1

    def absent(self, index: int) -> list[Path]:
        """None: there are no files."""
        return []

    def content(self, index: int) -> Content:
        """What scene `index` shows."""
        return self.store.contents[index] if self.store else scene(self.job, index)[2]

    def caption(self, index: int, draw: int = 0) -> str:
        """A caption of scene `index`; another `draw`, counted from 0, is another caption."""
        return caption(self.content(index), np.random.default_rng([self.job.seed, SPLIT_CODES[self.split], index, draw]))

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if self.store is None:
            rgb, depth, _ = scene(self.job, index)
        else:
            rgb, depth = np.array(self.store.rgb[index]), self.store.depth[index]
        return rgb, metres(depth, self.domain)

    def _truth(self, index: int) -> NDArray[np.float32]:
        return self._load(index)[1]

    def _size(self, index: int) -> tuple[int, int]:
        return self.job.size


def check_job(domain: str, split: str, count: int, size: tuple[int, int], seed: int) -> Job:
    """The arguments of `Scenes` as a job. Raises UsageError where one makes no sense."""
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
