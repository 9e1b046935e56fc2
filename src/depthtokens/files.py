"""Files that are either whole or not there, folders with one writer at a time, and where caches lie."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import DataError, DepthTokensError, UsageError
from .partial import short, sync, take_after, temporary

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

    A link stays and the file that it points to is replaced, with the mode and owner that it had. What is no file (a pipe, a device) and
    what is this process's own output is written straight, once the block ends well.

    Args:
        path: the file that is to appear, whole, or be replaced.

    Yields:
        Something open for bytes.

    Raises:
        DepthTokensError: where it cannot be written (no room, no rights, no folder).
    """
    with _named(path):
        target, before = _target(path)
        output = _output(before) if before else None
        if before and (output is not None or not stat.S_ISREG(before.st_mode)):
            buffer = io.BytesIO()
            yield buffer
            with _straight(path, output) as straight:
                straight.write(buffer.getbuffer())
            return
        with temporary(target) as (beside, file):
            if before:
                take_after(beside, before)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":
                file.close()  # it has no lock there, and renames only what is closed
            beside.replace(target)
        sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises DepthTokensError where it cannot be written."""
    with atomic(path) as file:
        file.write(text.encode())


def check_writable(path: Path) -> None:
    """Raise DepthTokensError, as `atomic` would, unless `path` can be written; for before long work."""
    with _named(path):
        target, before = _target(path)
        if not before or stat.S_ISREG(before.st_mode):
            with temporary(target):
                pass


@contextmanager
def atomic_folder(path: Path, wait: bool = False) -> Iterator[Path]:
    """Fill a folder that is to appear whole or not at all, one process at a time.

    It is filled under a hidden name beside `path`; what a run that was killed left there is deleted by the next.

    Args:
        path: must not be there, or be an empty folder, when the block ends.
        wait: whether to wait for another process that is filling it, instead of giving up after `PATIENCE` seconds.

    Yields:
        A new folder, which becomes `path` when the block ends well and something is in it, and is deleted else.

    Raises:
        DataError: where another process is filling it.
        DepthTokensError: where it cannot be written.
    """
    start, lock = f".{short(path.name)}.", path.with_name(f".{short(path.name)}.partial{LOCK}")
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock, path, wait):
            for left in path.parent.iterdir():
                if left.name.startswith(start) and re.fullmatch("[0-9a-f]{32}[.]partial", left.name.removeprefix(start)):
                    shutil.rmtree(left, ignore_errors=True)
            new = path.with_name(f"{start}{uuid.uuid4().hex}.partial")
            try:
                new.mkdir()
                yield new
                if any(new.iterdir()):
                    if path.is_dir():
                        take_after(new, path.stat())
                        path.rmdir()  # which only empty ones allow
                    new.rename(path)
                    sync(path.parent)
            except DepthTokensError as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None  # of a file in it, whose name means nothing to anybody
                raise
            finally:
                shutil.rmtree(new, ignore_errors=True)
                with suppress(OSError):
                    lock.unlink()


def check_room(needed: int, folder: Path) -> None:
    """Raise DepthTokensError unless the disk of a folder, which need not be there yet, has so many bytes left."""
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.is_dir())).free
    if needed > free:
        raise DepthTokensError(
            f"{folder} needs {size_text(needed)} and its disk has {size_text(free)} left: make room, or use another folder"
        )


def make_folder(path: Path, advice: str = "give another --out") -> None:
    """Make a folder for results, with those above it. Raises DepthTokensError, which ends in `advice`, where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DepthTokensError(f"cannot write to {path}: {reason(error)}; {advice}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits, read a piece at a time. Raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from error


def size_text(count: int) -> str:
    """Bytes for a person: "0.9 GB", "12 MB", "40 KB"."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e3:.0f} KB"


def reason(error: OSError) -> str:
    """Why the system refused, in a few words."""
    if error.errno == errno.ENOSPC:
        return "No space left on its disk"
    if error.errno == getattr(errno, "EDQUOT", None):
        return "No space left: your quota of its disk is used up"
    return error.strerror or " ".join(str(error).split())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """A context whose system errors become a DepthTokensError that names the path."""
    try:
        yield
    except OSError as error:
        raise DepthTokensError(f"cannot write {path}: {reason(error)}") from error


def _target(path: Path) -> tuple[Path, os.stat_result | None]:
    """The file that a path means, at the end of its links, and what the system says of it, None where it is not there yet.

    Raises:
        OSError: where no file can be written there.
    """
    target = Path(os.path.realpath(path))
    try:
        before = path.stat()
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {target.parent}") from None
        return target, None
    if stat.S_ISDIR(before.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not os.access(path, os.W_OK):  # a rename would not ask
        raise PermissionError(errno.EACCES, "Permission denied")
    return target, before


def _output(there: os.stat_result) -> int | None:
    """The descriptor of standard output or error, where it is that very file: opened once more it would be written from its start."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.path.samestat(there, os.fstat(descriptor)):
                return descriptor
    return None


def _straight(path: Path, output: int | None) -> BinaryIO:
    """A pipe, a device or this process's own output, open for bytes."""
    if output is None:
        return path.open("wb")
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes before
    return os.fdopen(os.dup(output), "wb")


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
    with _locked(folder / LOCK, folder, wait):
        yield


@contextmanager
def _locked(file: Path, folder: Path, wait: bool) -> Iterator[None]:
    """Hold the lock that is this file; errors name the folder that it is for."""
    import filelock

    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=-1 if wait else PATIENCE)
    except filelock.Timeout as error:
        raise DataError(f"another process is writing {folder}: wait for it, or name another folder") from error
    except (OSError, NotImplementedError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise DepthTokensError(f"cannot write to {folder}: {why}") from error
    try:
        yield
    finally:
        lock.release()
