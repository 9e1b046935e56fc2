"""Stores that are made when first needed and kept in the cache folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..clip.load import FrozenCLIP
from ..data.dataset import DepthDataset
from ..errors import DataError
from ..files import cache_folder
from ..progress import Notify, Progress, silent
from .plan import plan, size_text
from .store import FeatureStore, read_meta
from .views import META, Views
from .write import write


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
    """The store of these views in the cache folder, made now where there is none, or no whole one.

    Another process that is making the same store is waited for.

    Args:
        clip, dataset, views, modes, dtype, precision, list_file: as for `plan.plan`.
        batch_size, workers, device, progress: as for `write.write`.
        folder: instead of the cache folder.
        hint: what `notify` says behind where and how big.
        notify: called with one line before anything is written.

    Raises:
        UsageError, DataError, DepthTokensError: as `plan.plan` and `write.write`.
    """
    planned = plan(clip, dataset, views, modes, dtype, precision=precision, list_file=list_file)
    place = (folder or cache_folder()) / "features" / planned.key[:20]
    if (place / META).is_file():
        try:
            return FeatureStore(place)
        except DataError:  # a shard is missing or cut off: `write` makes it again, as it does a list that cannot be read
            try:
                read_meta(place)
            except DataError:
                (place / META).unlink(missing_ok=True)
    notify(f"storing patch features of {planned.images} images ({size_text(planned.bytes)}) in {place}{hint}")
    return write(planned, place, batch_size=batch_size, workers=workers, device=device, wait=True, progress=progress)
