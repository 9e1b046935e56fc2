"""Stores that are made when first needed and kept in the cache folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..clip.load import FrozenCLIP
from ..data.dataset import DepthDataset
from ..errors import DataError
from ..files import cache_folder
from .write import write
from .plan import plan, size_text
from .views import META, Views
from .store import FeatureStore, Progress, read_meta


def cached(
    clip: FrozenCLIP,
    dataset: DepthDataset,
    views: Views,
    modes: Sequence[str],
    *,
    told: Callable[[str], None] | None = None,
    avoidable: bool = True,
    dtype: str = "float16",
    precision: str = "float32",
    batch_size: int = 8,
    workers: int = 2,
    device: torch.device | str = "cpu",
    list_file: str | Path | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> FeatureStore:
    """The store of these views in the cache folder, or another `folder`, made now where there is none, or no whole one.

    told: called with one line, saying where and how big, before anything is written;
    avoidable: and that --no-cache is there. Others as for `plan` and `write`, which see for
    the errors too. Another process that is making the same store is waited for.
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
    if told is not None:
        hint = "; --no-cache avoids it" if avoidable else ""
        told(f"storing patch features of {planned.images} images ({size_text(planned.bytes)}) in {place}{hint}")
    return write(planned, place, batch_size=batch_size, workers=workers, device=device, progress=progress, wait=True)
