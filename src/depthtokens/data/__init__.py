"""Where images and depths come from. Names load on first use, so that importing this package does not load torch."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, unknown

if TYPE_CHECKING:
    from .dataset import DepthDataset as DepthDataset
    from .folder import Folder as Folder
    from .kitti import KITTI as KITTI
    from .nyu import NYUv2 as NYUv2
    from .sample import Sample as Sample

READERS = {"nyu": "NYUv2", "kitti": "KITTI", "folder": "Folder"}
"""Data sets by the name they have in "name:ROOT"."""

SCENES = {"train": 1000, "test": 200}
"""How many scenes "scenes" has."""

_LAZY = {"DepthDataset": "dataset", "NYUv2": "nyu", "KITTI": "kitti", "Folder": "folder", "Scenes": "scenes.dataset", "Sample": "sample"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def open_dataset(
    spec: str,
    split: str = "train",
    *,
    list_file: str | Path | None = None,
    augment: bool = False,
    crop: tuple[int, int] | None = None,
    seed: int = 42,
    depth_scale: float | None = None,
    depth_range: tuple[float, float] | None = None,
    allow_missing: bool = False,
) -> DepthDataset:
    """Open the data set that `spec` names: "nyu:ROOT", "kitti:ROOT", "folder:ROOT", or rendered "scenes" ("scenes:road").

    split: "train", "test" or "all". augment: random views for training; crop: their (height, width) in pixels where not the data set's own.
    depth_scale (units per metre) and depth_range (metres) are for "folder" only: the published data sets fix theirs.
    allow_missing: keep pairs whose files are absent, for `check` to report.
    Raises UsageError for a spec that is none, DataError for what is wrong with the data.
    """
    name, colon, root = spec.partition(":")
    if name == "scenes":
        return _scenes(root or "indoor", split, augment, crop, seed)
    if not colon and name in READERS:
        raise UsageError(f"'{name}' needs its folder: {name}:ROOT")
    if not root or Path(spec).exists():
        forms = " or ".join(f"{known}:{spec.rstrip(':')}" for known in READERS)
        raise UsageError(f"'{spec}' does not say which data set it is: write {forms}")
    if name not in READERS:
        raise unknown("data set", name, [*READERS, "scenes"])
    options: dict[str, Any] = {"augment": augment, "crop": crop, "seed": seed, "allow_missing": allow_missing}
    for option, value in (("depth_scale", depth_scale), ("depth_range", depth_range)):
        if value is not None and name != "folder":
            raise UsageError(f"--{option.replace('_', '-')} is for folder:ROOT only: {name}'s is fixed")
        if value is not None:
            options[option] = value
    return __getattr__(READERS[name])(root, split, list_file, **options)


def _scenes(domain: str, split: str, augment: bool, crop: tuple[int, int] | None, seed: int) -> DepthDataset:
    """Scenes of seed 0, as many as `SCENES` says, rendered once and kept in the cache folder."""
    from ..files import cache_folder
    from .augment import FOLDER
    from ..scenes import Scenes

    scenes = Scenes(domain, split, SCENES.get(split, 0), cache=cache_folder() / "scenes")
    scenes.augment, scenes.seed = FOLDER.with_crop(crop) if augment else None, seed  # of the random views, not of the scenes
    return scenes
