"""Too little: a disk that is full, and folders that may not be written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.kills import copied, goes_on
from faults.process import run
from faults.world import Verb

NOBODY = 65534


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of `size` bytes at `folder`. Raises PermissionError where this user may not make one."""
    folder.mkdir()
    try:
        if os.geteuid():
            raise PermissionError("only root may mount a small disk")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False)
        if done.returncode:
            raise PermissionError("a small disk cannot be mounted here")
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        folder.rmdir()


def full(world: Path, disk: Path, verb: Verb, expected: dict[str, str], room: int) -> str | None:
    """Run a verb on a disk with `room` bytes left, then with enough. Returns what was wrong, None where nothing was."""
    used = sum(path.stat().st_size + 4096 for path in world.rglob("*"))
    with small_disk(disk, used + (1 << 20)):
        folder = copied(world, disk / "w")
        blocks = shutil.disk_usage(disk).free - room
        with (disk / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(1, blocks))
        first = run(verb.run, folder)
        if first.fault:
            return first.fault
        if first.refused and not any(word in first.said for word in ("space", "room")):
            return f"the disk is not called full: {first.said.strip()[:200]}"
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        return goes_on(folder, verb, expected)


def forbidden(world: Path, folder: Path, verb: Verb) -> str | None:
    """Run a verb, without root's rights, where nothing may be written. Returns what was wrong, None where nothing was."""
    copied(world, folder)
    folder.chmod(0o555)
    try:
        done = run(verb.run, folder, _drop_rights)
        return done.fault or (None if done.refused else "wrote although it may not")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def _drop_rights() -> None:
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
