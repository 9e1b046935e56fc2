"""Reading in worker processes: in order, errors as they were raised, and one line for whatever befalls a worker."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import pytest
import torch

from depthtokens.data.loader import batches
from depthtokens.errors import DataError, DepthTokensError
from forked import python
from helpers import needs_mount

SMALL = """
import torch
from depthtokens.data.loader import batches
class Numbers:
    def __getitem__(self, i): return torch.full((3, 500, 1000), float(i))
assert [int(x[0, 0, 0]) for batch in batches(Numbers(), range(40), 16, 2) for x in batch] == list(range(40))
print("all there")
"""


class Numbers:
    """Tensors that say their own index; some indices raise."""

    def __init__(self, wait=0.0, **raised):
        self.wait, self.raised = wait, {int(name[1:]): error for name, error in raised.items()}

    def __getitem__(self, index):
        time.sleep(self.wait)
        if index in self.raised:
            raise self.raised[index]
        return torch.full((50, 50), float(index))


def read(source, count=7, workers=2):
    return [[int(item[0, 0]) for item in batch] for batch in batches(source, range(count), 3, workers)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_in_order(workers):
    assert read(Numbers(), workers=workers) == [[0, 1, 2], [3, 4, 5], [6]] and read(Numbers(), 0, workers) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_that_begin_anew(workers):
    read = [[int(item[0, 0]) for item in batch] for batch in batches(Numbers(), range(10), 3, workers, block=4)]
    assert read == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9]]


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_come_as_they_were_raised(workers, message):
    assert message(lambda: read(Numbers(_4=DataError("no such file")), workers=workers)) == "no such file"
    assert "not enough memory" in message(lambda: read(Numbers(_4=MemoryError()), workers=workers), DepthTokensError)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("wait", [0.0, 0.3])
def test_a_killed_worker_is_noticed_within_seconds(wait, message):
    """Also one that had read its batches already; and the error comes from here, not out of whatever the caller was doing."""
    handler = signal.getsignal(signal.SIGCHLD)
    stream = batches(Numbers(wait), range(12), 3, 2)
    assert len(next(stream)) == 3
    workers = multiprocessing.active_children()
    os.kill(workers[0].pid, signal.SIGKILL)
    start = time.monotonic()
    workers[0].join()
    assert "a process that reads images ended too early" in message(lambda: list(stream), DepthTokensError)
    assert time.monotonic() - start < 20 and signal.getsignal(signal.SIGCHLD) == handler
    for worker in multiprocessing.active_children():
        worker.join(5)
    assert not multiprocessing.active_children()


def test_workers_end_with_the_last_batch():
    stream = batches(Numbers(), range(6), 3, 2)
    next(stream), next(stream)
    assert not multiprocessing.active_children(), "although the caller still holds the generator"


@pytest.mark.parametrize("error", [OSError(11, "Resource temporarily unavailable"), AssertionError("daemonic processes have no children")])
def test_workers_that_cannot_start(monkeypatch, error):
    def start(_process):
        raise error

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", start)
    assert read(Numbers()) == [[0, 1, 2], [3, 4, 5], [6]], "read in this process"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers inherit what is changed here")
@pytest.mark.parametrize("spool", [True, False])
def test_shared_memory_too_small(monkeypatch, tmp_path, spool):
    """By a file instead; or, where none can be written, in this process."""

    dumps = ForkingPickler.dumps

    def full(items, *options):
        if isinstance(items, list):
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
        return dumps(items, *options)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ForkingPickler, "dumps", full)
    if not spool:
        monkeypatch.setattr("depthtokens.data.loader.Path.write_bytes", no_room)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert read(Numbers()) == [[0, 1, 2], [3, 4, 5], [6]] and not list(tmp_path.iterdir())


@needs_mount
def test_a_container_with_little_shared_memory():
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "{sys.executable}" -c "$CODE"'],
        env={**os.environ, "CODE": SMALL},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all there\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_too_few_open_files():
    """Shared memory takes an open file for each tensor."""
    code = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n{SMALL.replace('500, 1000', '5, 10')}"
    assert python(code) == (0, "all there\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_a_worker_leaves_files_for_the_thread_that_hands_out_shared_memory(tmp_path):
    code = """
import os, resource, sys, torch
from pathlib import Path
from depthtokens.data.loader import _Send
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
send = _Send(Path(sys.argv[1]))
sent = []
while not sent or sent[-1].shared is not None:
    sent.append(send([torch.zeros(3, 5)]))
    os.close(os.dup(0))
print(len(sent) > 10, sent[-1].file is not None)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True True\n", "")


KILLED = """
import os, sys, torch
from depthtokens.data.loader import batches
class Numbers:
    def __getitem__(self, i): return torch.full((3, 5, 10), float(i))
for batch in batches(Numbers(), range(40), 4, 2):
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_killed_process_leaves_no_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert python(KILLED)[0] == -signal.SIGKILL
    for _ in range(200):  # its workers notice within five seconds
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.1)
    assert not list(tmp_path.iterdir())
