"""Temporary files beside what they are to become: names that nobody else has, and what writers that were killed left behind."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

DAY = 24 * 3600.0
"""Seconds after which a temporary file that nothing was written to is nobody's."""
_NAME = re.compile(r"\..+\.([0-9]+|[0-9a-f]{8}-[0-9a-f]{16})\.partial")


@contextmanager
def temporary(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `target` under a name that no thread, process or machine has; deleted at the end unless it was renamed."""
    _clear_once(target.parent)
    while True:
        path = target.with_name(f".{short(target.name)}.{_machine()}-{uuid.uuid4().hex[:16]}.partial")
        file = path.open("x+b")  # "+": numpy writes to it as to anything, and not past Python, where it forgets why that failed
        if _lock(file) is not False and (sys.platform == "win32" or os.fstat(file.fileno()).st_nlink):
            break
        file.close()  # somebody who cleared up came between
    try:
        with file:
            yield path, file
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def clear_partials(folder: Path) -> None:
    """Delete what writers that were killed left in a folder.

    A writer holds a lock on its file, so that one of this machine without a lock is dead. Of another machine's a lock may not be seen here,
    a network's disk may have no locks, and earlier versions took none: what these left goes a day after it was last written to.
    """
    with suppress(OSError):
        for path in filter(is_partial, folder.iterdir()):
            with suppress(OSError):
                free = None
                if f".{_machine()}-" in path.name:
                    with path.open("r+b") as file:
                        free = _lock(file)
                        if free:
                            path.unlink()  # while it is locked: its writer may have made it just now
                if free is None and time.time() - path.stat().st_mtime > DAY:
                    path.unlink()


def is_partial(path: Path) -> bool:
    """Whether a file is one that `atomic` is writing, or did not finish, in this version or an earlier one."""
    return _NAME.fullmatch(path.name) is not None and not path.is_symlink() and path.is_file()


def take_after(path: Path, before: os.stat_result) -> None:
    """Give a file or folder the owner and mode of the one whose place it takes, as far as this user may."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(path, before.st_uid, before.st_gid)
    with suppress(OSError):  # where a disk has no such thing
        path.chmod(stat.S_IMODE(before.st_mode))


def sync(folder: Path) -> None:
    """Have a rename outlast a power cut, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def short(name: str) -> str:
    """The beginning of a name, so long that more can be put to it on any file system."""
    return os.fsencode(name)[:60].decode(errors="ignore")


def _lock(file: BinaryIO) -> bool | None:
    """Lock a file for as long as it is open: whether nobody else had, or None where there are no such locks."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@cache
def _machine() -> str:
    """Tells machines that share a disk apart."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@cache
def _clear_once(folder: Path) -> None:
    """`clear_partials`, once in a process: it looks at all names in the folder."""
    clear_partials(folder)
