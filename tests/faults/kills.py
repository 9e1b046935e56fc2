"""Kills, aimed: a command is killed at its n-th change of the file system, or a moment after, and run again."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from faults.process import run
from faults.world import Verb, result

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def at_change(number: int, wait: float, count: int | None = None) -> Callable[[], None]:
    """Arm a kill.

    Args:
        number: of the change of the file system before which the process is killed, counted from 0.
        wait: seconds after it, instead of before it, so that what is written then is cut short.
        count: a pipe that gets a byte for each change.
    """

    def arm() -> None:
        seen = 0

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            if event == "open":
                path, _, flags = args
                if isinstance(path, int) or not isinstance(flags, int) or not flags & WRITING or str(path).startswith("/dev/"):
                    return
            elif event not in CHANGES:
                return
            if count is not None:
                os.write(count, b".")
            if seen == number:
                if not wait:
                    os.kill(os.getpid(), signal.SIGKILL)
                signal.setitimer(signal.ITIMER_REAL, wait)  # whose signal, not handled, kills
            seen += 1

        sys.addaudithook(hook)

    return arm


def copied(world: Path, folder: Path) -> Path:
    """A copy of the world, with no results in it yet."""
    shutil.copytree(world, folder)
    return folder


def undisturbed(world: Path, folder: Path, verb: Verb) -> tuple[dict[str, str], int]:
    """What a verb gives when nothing happens, and how often it changes the file system; what it imports is there for those that follow."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    def watched() -> None:
        verb.run()
        (folder.parent / "modules").write_text("\n".join(sys.modules))

    done = run(watched, copied(world, folder), at_change(-1, 0.0, writing))
    os.close(writing)
    changes = len(os.read(reading, 1 << 16)) - 1
    os.close(reading)
    assert done.code == 0, done.said
    for name in (folder.parent / "modules").read_text().splitlines():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    found = result(folder)
    shutil.rmtree(folder)
    return found, changes


def moments(changes: int, kills: int) -> Iterator[tuple[int, float]]:
    """Which kills: all changes in turn, each exactly, then a little and a little more after it."""
    for i in range(kills):
        yield i % changes, (0.0, 2e-4, 3e-3)[i // changes % 3] * (1 + i // (3 * changes))


def killed(world: Path, folder: Path, verb: Verb, expected: dict[str, str], number: int, wait: float) -> str | None:
    """Kill once and run again. Returns what was wrong then, None where nothing was."""
    try:
        first = run(verb.run, copied(world, folder), at_change(number, wait))
        if first.code not in (0, -signal.SIGKILL, -signal.SIGALRM):
            return f"before the kill: {first.fault}"
        return goes_on(folder, verb, expected)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def goes_on(folder: Path, verb: Verb, expected: dict[str, str]) -> str | None:
    """Run a verb again that did not come to its end, by the same command or the one that it names.

    Args:
        folder: where it ran.
        verb: which.
        expected: what it gives when nothing happens.

    Returns:
        What was wrong then; None where nothing was.
    """
    done = run(verb.run, folder)
    if done.refused and verb.again:
        done = run(verb.again, folder)
    wrong = difference(result(folder), expected)
    if done.code and (wrong or not done.refused):  # what is all there may be refused to be done again
        return f"cannot go on: {done.fault or done.said.strip()[:200]}"
    return wrong


def difference(found: dict[str, str], expected: dict[str, str]) -> str | None:
    """In words, which files are missing, too many or others; None where none is."""
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return f"another result: {', '.join(names)[:200]}" if names else None
