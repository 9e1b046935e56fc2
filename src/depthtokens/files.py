"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import DepthTokensError, UsageError


def user_path(text: str | Path) -> Path:
    """A path as a person writes it, ~ included. Raises UsageError for the home of a user who is not there."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"no such home folder: {text}") from error


def cache_folder() -> Path:
    """Where things that can be made again are kept: $DEPTHTOKENS_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("DEPTHTOKENS_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "depthtokens"


@contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; rename it into place when the block ends well, else remove it.

    Raises DepthTokensError where it cannot be written (no room, no rights).
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
