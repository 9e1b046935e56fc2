"""Temporary files: what killed writers left goes, what is being written stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from depthtokens.partial import DAY, clear_partials, is_partial

WRITE = """
import signal, sys
from pathlib import Path
from depthtokens.files import atomic
with atomic(Path(sys.argv[1])) as file:
    file.write(b"some")
    file.flush()
    print("there", flush=True)
    if sys.argv[2] == "stop":
        signal.pause()
"""


def start(path, then):
    process = subprocess.Popen([sys.executable, "-c", WRITE, str(path), then], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "there\n"
    return process


@pytest.fixture
def writer(tmp_path):
    """A process that is writing a.txt, and never ends."""
    process = start(tmp_path / "a.txt", "stop")
    yield process
    process.kill()
    process.communicate()


pytestmark = pytest.mark.skipif(os.name == "nt", reason="locks of Unix")


def test_what_is_being_written_stays_and_what_a_killed_writer_left_goes(tmp_path, writer):
    [partial] = tmp_path.iterdir()
    assert partial.name.startswith(".a.txt.") and is_partial(partial)
    os.utime(partial, (0, 0))  # however long it takes
    clear_partials(tmp_path)
    assert partial.exists()
    writer.kill()
    writer.wait()
    clear_partials(tmp_path)
    assert not partial.exists()


def test_the_next_run_clears_up(tmp_path, writer):
    """Whatever it writes in that folder."""
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    start(tmp_path / "b.txt", "end").communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_two_writers_of_one_file(tmp_path, writer):
    start(tmp_path / "a.txt", "end").communicate()
    assert sorted(map(is_partial, tmp_path.iterdir())) == [False, True] and (tmp_path / "a.txt").read_bytes() == b"some"


def test_other_machines_and_versions_have_a_day(tmp_path):
    names = (".a.txt.0123abcd-0123456789abcdef.partial", ".a.txt.4711.partial")
    for name in names:
        (tmp_path / name).write_text("half")
    clear_partials(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 and all(map(is_partial, tmp_path.iterdir()))
    for name in names:
        os.utime(tmp_path / name, (0, time.time() - DAY - 10))
    clear_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_others_named_so_stays(tmp_path):
    names = ["X.partial", ".x.partial", "a.txt.0123abcd-0123456789abcdef.partial", ".a.txt.0123abcd-0123456789abcdef.partial.txt"]
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".b.0123abcd-0123456789abcdef.partial").mkdir()
    (tmp_path / ".c.0123abcd-0123456789abcdef.partial").symlink_to(tmp_path / "X.partial")
    clear_partials(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6 and not any(map(is_partial, tmp_path.iterdir()))
    clear_partials(Path(tmp_path, "nowhere"))
