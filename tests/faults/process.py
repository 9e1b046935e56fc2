"""A command in a process of its own: forked from one that has loaded everything, so that several fit into a second."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LIMIT = 120.0
"""Seconds that a command may take."""


@dataclass(frozen=True)
class Done:
    """How a command ended.

    Attributes:
        code: its exit code; minus the number of the signal that killed it; None where it had to be stopped, since it did not end.
        said: what it wrote to standard error.
    """

    code: int | None
    said: str

    @property
    def refused(self) -> bool:
        """Whether it ended with one line of this package that says why."""
        lines = [line for line in self.said.splitlines() if line.startswith("depthtokens: ")]
        return self.code in (1, 2) and len(lines) == 1 and "Traceback" not in self.said

    @property
    def fault(self) -> str | None:
        """What is wrong with the way it ended; None where it did its work, or said in one line why it did not."""
        if self.code is None:
            return "did not end"
        if self.code == 0 or self.refused:
            return None
        last = self.said.strip().splitlines()[-1:] or [""]
        return f"ended with {self.code}: {last[0][:200]}"


def start(
    action: Callable[[], object], folder: Path, before: Callable[[], None] | None = None, memory: int | None = None
) -> tuple[int, int]:
    """Fork; the child goes to `folder`, does `before` and then `action` as the program would, and ends.

    Args:
        action: what `depthtokens` would do.
        folder: the working folder; caches lie in it.
        before: arms whatever will disturb the action.
        memory: bytes that the child may have beside what this process has; None for any.

    Returns:
        Process number, and a pipe from its standard error.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    code = 70
    try:
        os.setpgid(0, 0)
        os.close(reading)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        os.environ["DEPTHTOKENS_CACHE"] = str(folder / "cache")
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (_size() + memory, resource.RLIM_INFINITY))
        if before:
            before()
        try:
            action()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        except BaseException:
            traceback.print_exc()
            code = 71
        sys.stderr.flush()
    finally:
        os._exit(code)


def _size() -> int:
    """Bytes of address space that this process has."""
    return int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def finish(pid: int, pipe: int, limit: float = LIMIT) -> Done:
    """Wait for a process that `start` started, at most so many seconds."""
    said, deadline = b"", time.monotonic() + limit
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(pipe, 1 << 16) if ready else b""
        if not chunk:
            break
        said += chunk
    if not ready:
        os.killpg(pid, signal.SIGKILL)
    os.close(pipe)
    _, status = os.waitpid(pid, 0)
    return Done(os.waitstatus_to_exitcode(status) if ready else None, said.decode(errors="replace"))


def run(
    action: Callable[[], object],
    folder: Path,
    before: Callable[[], None] | None = None,
    memory: int | None = None,
    limit: float = LIMIT,
) -> Done:
    """`start` and `finish`."""
    return finish(*start(action, folder, before, memory), limit)
