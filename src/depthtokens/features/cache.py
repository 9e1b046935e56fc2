"""Stores that are made when they are first needed, and kept in the cache folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from ..clip.load import FrozenCLIP
from ..data.dataset import DepthDataset
from ..errors import DataError, DepthTokensError
from ..files import cache_folder, size_text
from ..progress import Notify, Progress, silent
from .meta import read_meta
from .plan import Plan, plan
from .store import FeatureStore
from .views import META, Views
from .write import write


class CannotStore(DepthTokensError):
    """The cache folder cannot be written to; what was to be stored can still be computed each time."""


def cached(
    clip: FrozenCLIP,
    dataset: DepthDataset,
    views: Views,
    modes: Sequence[str],
    *,
    dtype: str = "float16",
    precision: str = "float32",
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    list_file: str | Path | None = None,
    folder: Path | None = None,
    hint: str = "",
    progress: Progress = silent,
    notify: Notify = silent,
) -> FeatureStore:
    """The store of these views in the cache folder; it is made now unless it is there and whole.

    Where another process is making the same store, this one waits for it.

    Args:
        clip: whose image tower computes the features.
        dataset: the images; opened with augmentation exactly where views are random ones.
        views: which views of each image.
        modes: ways to read patch features, see `clip.image.dense_features`.
        dtype: "float16" or "bfloat16", on disk.
        precision: of the image tower.
        batch_size: images that go through the trunk together.
        workers: processes that read images.
        device: where the CLIP runs; its image tower is moved there.
        list_file: the list file that the data set was opened with, if one was named.
        folder: used instead of the cache folder.
        hint: end of the line that `notify` is called with.
        progress: called after every image.
        notify: called before anything is written, with one line that says how big the store is and where it will lie.

    Raises:
        UsageError: for what does not fit together, see `plan.plan`.
        DataError: for data that cannot be read, or a CLIP whose features are no finite numbers.
        CannotStore: where the cache folder cannot be written to.
        DepthTokensError: where there is no room.
    """
    planned = plan(clip, dataset, views, modes, dtype, precision=precision, list_file=list_file)
    place = _place(planned, folder)
    if (place / META).is_file():
        try:
            return FeatureStore(place)
        except DataError:  # a shard is missing or cut off, which `write` makes again; or meta.json cannot be read, and goes
            try:
                read_meta(place)
            except DataError:
                (place / META).unlink(missing_ok=True)
    try:
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, "no right to write there")
    except OSError as error:
        raise CannotStore(f"cannot keep patch features in {place}: {error.strerror or error}") from error
    notify(f"storing patch features of {planned.images} images ({size_text(planned.bytes)}) in {place}{hint}")
    return write(planned, place, batch_size=batch_size, workers=workers, device=device, wait=True, progress=progress)


def is_cached(planned: Plan) -> bool:
    """Whether a finished store of this content is in the cache folder."""
    return (_place(planned) / META).is_file()


def _place(planned: Plan, folder: Path | None = None) -> Path:
    """Where a store is kept."""
    return (folder or cache_folder()) / "features" / planned.key[:20]
