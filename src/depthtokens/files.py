"""Files that are either whole or not there, folders with one writer at a time, and where caches lie."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError, DepthTokensError, UsageError

LOCK = ".lock"
"""Name of the lock file in a folder."""
SEAL = "sha256"
"""Under which a JSON file of this package keeps the SHA-256 of its other values."""
PATIENCE = 6.0
"""Seconds to wait for a lock: when a run is killed, the processes that read its images hold it until they notice, within five seconds."""


def user_path(text: str | Path) -> Path:
    """A path as a person writes it, with ~ for a home folder. Raises UsageError for the home of a user who does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"no such home folder: {text}") from error


def cache_folder() -> Path:
    """Where things that can be made again are kept: $DEPTHTOKENS_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("DEPTHTOKENS_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("depthtokens", appauthor=False)


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; rename it into place when the block ends well, else remove it.

    Args:
        path: the file that is to appear, whole, or be replaced.

    Yields:
        The temporary file, open for bytes.

    Raises:
        DepthTokensError: where it cannot be written (no room, no rights).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DepthTokensError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises DepthTokensError where it cannot be written."""
    with atomic(path) as file:
        file.write(text.encode())


def json_text(value: Any) -> str:
    """Plain values as JSON for others to read: numbers that are none, which JSON cannot hold, become null."""
    return json.dumps(_without_nan(value), indent=1, allow_nan=False)


def digest(values: Any) -> str:
    """SHA-256, 64 hex digits, of plain values, as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values as a file of this package keeps them: with their SHA-256, by which `unsealed` knows them again."""
    return {**values, SEAL: digest(json.loads(json.dumps(values)))}


def unsealed(text: str | bytes, must: bool | str = True) -> dict[str, Any]:
    """The values that `sealed` made, from JSON.

    Args:
        text: JSON, of a file that may be damaged or made up.
        must: whether values without a seal are refused: files of older versions have none; or the name of a value that those lack.

    Raises:
        ValueError: for anything but the values that were sealed.
    """
    try:
        values = json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError("no table")
    must = must in values if isinstance(must, str) else must
    seal = values.pop(SEAL, None)
    if (must or seal is not None) and seal != digest(values):
        raise ValueError("not as it was written" if seal else f"no {SEAL}")
    return values


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table of JSON, for `json.loads`. Raises ValueError where a name stands in it twice, of which readers may see one or the other."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice in one table")
    return table


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, list | tuple) else value


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold a folder's lock; the system releases it when the process ends, however it ends.

    Args:
        folder: an existing folder; the lock is a file in it.
        wait: whether to wait until another process lets go, instead of giving up after `PATIENCE` seconds.

    Raises:
        DataError: where another process holds it.
        DepthTokensError: where no lock file can be written.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=-1 if wait else PATIENCE)
    except filelock.Timeout as error:
        raise DataError(f"another process is writing {folder}: wait for it, or name another folder") from error
    except (OSError, NotImplementedError) as error:
        raise DepthTokensError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from error
    try:
        yield
    finally:
        lock.release()
