"""Data sets by the name that a person gives: a new one is a file of its own and a line in `READERS`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError, unknown
from .find import is_file, is_folder

if TYPE_CHECKING:
    from .dataset import DepthDataset

READERS = {
    "nyu": "depthtokens.data.nyu:NYUv2",
    "kitti": "depthtokens.data.kitti:KITTI",
    "folder": "depthtokens.data.folder:Folder",
    "scenes": "depthtokens.scenes.dataset:Scenes",
}
"""Where the class of each data set is, by the name that stands before the colon in "name:ROOT"."""


def dataset_class(name: str) -> type[DepthDataset]:
    """The class of a data set, by its name in `READERS`. Raises UsageError for a name that is not there."""
    if name not in READERS:
        raise unknown("data set", name, READERS)
    module, _, attribute = READERS[name].partition(":")
    found: type[DepthDataset] = getattr(importlib.import_module(module), attribute)
    return found


def states_units(spec: str) -> bool:
    """Whether scale and range of the data set that `spec` names are its user's to state, as a folder's are."""
    name = spec.partition(":")[0]
    return name in READERS and dataset_class(name).UNITS_STATED


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
    nyu_depth: str | None = None,
) -> DepthDataset:
    """Open the data set that `spec` names.

    Args:
        spec: "nyu:ROOT", "kitti:ROOT" or "folder:ROOT"; or rendered "scenes", which are indoors, or "scenes:road".
        split: "train", "test" or "all".
        list_file: a list of pairs that is used instead of the data set's own.
        augment: hand out random views, for training.
        crop: (height, width) in pixels of the views' random crop, where it is not to be the data set's own.
        seed: of the random views.
        depth_scale: units per metre in depth files; for "folder" only, since the published data sets fix theirs.
        depth_range: (lo, hi) in metres; for "folder" only as well.
        allow_missing: keep pairs whose files are absent, so that `check` can list them.
        nyu_depth: which ground truth of NYUv2's labelled .mat: "raw", the sensor's (the default, and what is published), or "filled".

    Raises:
        UsageError: where `spec` names no data set, or an option is not for this one.
        DataError: where something is wrong with the data.
    """
    return _reader(spec).open(
        spec.partition(":")[2],
        split,
        list_file=list_file,
        augment=augment,
        crop=crop,
        seed=seed,
        depth_scale=depth_scale,
        depth_range=depth_range,
        allow_missing=allow_missing,
        nyu_depth=nyu_depth,
    )


def _reader(spec: str) -> type[DepthDataset]:
    """The class that `spec` names, where the spec is complete."""
    name, colon, root = spec.partition(":")
    if name in READERS and not dataset_class(name).NEEDS_FOLDER:
        return dataset_class(name)
    if name in READERS and not colon:
        raise UsageError(f"'{name}' needs its folder: {name}:ROOT")
    if not root or is_file(Path(spec)) or is_folder(Path(spec)):
        forms = " or ".join(f"{known}:{spec.rstrip(':')}" for known in READERS if dataset_class(known).NEEDS_FOLDER)
        raise UsageError(f"'{spec}' does not say which data set it is: write {forms}")
    return dataset_class(name)
