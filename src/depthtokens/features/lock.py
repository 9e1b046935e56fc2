"""One writer at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError, DepthTokensError

LOCK = ".lock"


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the folder's lock; the system releases it when the process ends, however it ends.

    wait: until another process lets go. Raises DataError where one holds it, DepthTokensError where no lock file can be written.
    """
    try:
        import fcntl  # not on Windows
    except ImportError:
        yield
        return
    try:
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise DepthTokensError(f"cannot write to {folder}: {error.strerror or error}") from error
    with file:
        try:
            # lockf, not flock: reading processes that are forked meanwhile must not keep the lock when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is writing {folder}: wait for it, or name another folder") from error
        yield
