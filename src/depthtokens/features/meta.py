"""A store's description of itself, meta.json, checked before anything is believed of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from ..clip import PRECISIONS, CLIPIdentity
from ..errors import DataError, UsageError
from ..files import unsealed
from ..schema import check_plain, read_dataclass
from .views import DTYPES, FORMAT, META, PLAN, Views

T = TypeVar("T")
_NAME = re.compile(r"[0-9]{5,}-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class _Meta:
    """Entries of meta.json that are no tables."""

    modes: tuple[str, ...]
    channels: int
    dtype: str
    precision: str
    names: tuple[str, ...]
    image_height: int
    images_per_shard: int
    image_sizes: tuple[tuple[int, int], ...]
    key: str
    seed: int | None = None


@dataclass(frozen=True)
class _Data:
    """What the data set was."""

    spec: str
    name: str
    split: str
    fingerprint: str
    depth_range: tuple[float, float]
    depth_scale: float | None
    eval_crop: str | None
    list_file: str | None


@dataclass(frozen=True)
class _Shard:
    """One file."""

    file: str
    bytes: int
    sha256: str
    first: int
    images: int


def read_meta(folder: Path) -> dict[str, Any]:
    """Content of a store's meta.json.

    Args:
        folder: the store.

    Raises:
        DataError: where there is no meta.json, it is damaged or was altered, or another version wrote it.
    """
    path = folder / META
    if not path.is_file():
        if (folder / PLAN).is_file():
            raise DataError(f"{folder} is unfinished: finish it with the same `depthtokens features` command")
        raise DataError(f"{folder} is no store of patch features: it has no {META} (`depthtokens features` makes one)")
    again = "delete it and run the same command again, which keeps the shards"
    try:
        meta = unsealed(path.read_bytes())
        found = meta["format"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged or was altered: {again}") from error
    if found != FORMAT:
        versions = meta.get("versions")
        made = versions.get("depthtokens") if isinstance(versions, dict) else None
        raise DataError(
            f"{folder} has format {found} (depthtokens {made or 'of another version'}), this version reads {FORMAT}: "
            "make it again in a new folder"
        )
    try:
        _check(meta)
    except (UsageError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(f"{path} describes no store ({reason}): {again}") from error
    return meta


def _check(meta: dict[str, Any]) -> None:
    """Raise UsageError, or what Python raises, for a description of a store that cannot be."""
    check_plain(meta, META)
    whole, data = _part(_Meta, meta), _part(_Data, meta["data"])
    _part(CLIPIdentity, meta["clip"])
    if not isinstance(meta["augmentation"], dict | None) or not isinstance(meta["data"].get("options", {}), dict):
        raise ValueError("its augmentation or options are no tables")
    views = Views.from_dict(meta["views"])
    if whole.dtype not in DTYPES or whole.precision not in PRECISIONS or not whole.modes or not whole.names:
        raise ValueError("its features are of no kind")
    sizes = [*whole.image_sizes, (whole.channels, whole.image_height), (whole.images_per_shard, views.count)]
    if len(whole.image_sizes) != len(whole.names) or not all(0 < number < 2**31 for pair in sizes for number in pair):
        raise ValueError("its images are of no size")
    if not data.depth_range[0] < data.depth_range[1] or not (data.depth_scale is None or data.depth_scale > 0):
        raise ValueError("its depths are in no range")
    shards = [_part(_Shard, shard) for shard in meta["shards"]]
    firsts = range(0, len(whole.names), whole.images_per_shard)
    held = [min(whole.images_per_shard, len(whole.names) - first) for first in firsts]
    if [(shard.first, shard.images) for shard in shards] != list(zip(firsts, held, strict=True)):
        raise ValueError("its shards hold other images")
    if not all(_NAME.fullmatch(shard.file) and shard.bytes >= 0 for shard in shards):
        raise ValueError("its shards are no files of its own")


def _part(kind: type[T], values: Any) -> T:
    """The entries that a dataclass names, as that dataclass. Raises UsageError where they are not of its types."""
    if not isinstance(values, dict):
        raise ValueError("a table is missing")
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return read_dataclass(kind, {name: value for name, value in values.items() if name in known}, META)
