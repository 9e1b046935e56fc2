"""Python code in a process of its own, at the cost of a fork: it comes from a process that has loaded torch, open_clip and this package."""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

COMMAND = "from depthtokens.cli import main\nmain()"
"""What `python -m depthtokens` is."""
LIMIT = 300
"""Seconds that a process may take."""


class Python:
    """A process that runs code as `python -c CODE WORDS` would. A context manager: the process ends at its end. One at a time."""

    def __init__(self, code, *words):
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, name) for name in ("out", "err")]
        for path in self._files:
            path.touch()
        self._parent, self._code = _parent(), None
        request = [code, list(map(str, words)), dict(os.environ), str(Path.cwd()), *map(str, self._files)]
        self._parent.stdin.write(json.dumps(request) + "\n")
        self._parent.stdin.flush()
        self._pid = int(self._parent.stdout.readline())

    @property
    def out(self):
        """What it has written to standard output so far."""
        return self._files[0].read_text()

    @property
    def err(self):
        """What it has written to standard error so far."""
        return self._files[1].read_text()

    def wait(self):
        """Its exit code, at its end; minus the number of the signal that killed it."""
        if self._code is None:
            self._code = int(self._parent.stdout.readline())
        return self._code

    def kill(self):
        """As kill -9."""
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self._folder.cleanup()


def python(code, *words):
    """Run code to its end: exit code, standard output and standard error."""
    with Python(code, *words) as process:
        return process.wait(), process.out, process.err


@functools.cache
def _parent():
    """The process that forks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "forked"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(lambda: process.communicate())
    return process


def _child(code, words, environment, folder, out, err):
    """Be the process that was asked for."""
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = ["-c", *words]
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(folder)
    signal.alarm(LIMIT)
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve():
    """Fork for each line that asks for it, say the process's number, and its exit code at its end."""
    import open_clip  # noqa: F401

    import depthtokens.cli
    import depthtokens.depth.model
    import depthtokens.experiment.train  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _child(*json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
