"""Files that are whole or not there, folders with one writer at a time, and where caches lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import files
from depthtokens.errors import DataError, DepthTokensError, UsageError
from depthtokens.files import LOCK, SEAL, atomic, cache_folder, locked, sealed, unsealed, user_path, write_text

HOLD = """
import sys, time
from pathlib import Path
from depthtokens.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def one_line(action, kind=DepthTokensError):
    with pytest.raises(kind) as caught:
        action()
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def holder(tmp_path):
    """Starts another process that holds the lock of the test's folder for some seconds."""
    started = []

    def hold(seconds):
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), str(seconds)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_atomic_replaces_at_the_end_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with atomic(path) as file:
        file.write(b"after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_atomic_leaves_nothing_half_written(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError, match="stopped"), atomic(path) as file:
        file.write(b"aft")
        raise RuntimeError("stopped")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    assert one_line(lambda: write_text(tmp_path / "nowhere" / "a.txt", "x")).startswith(f"cannot write {tmp_path / 'nowhere' / 'a.txt'}: ")
    (tmp_path / "folder").mkdir()
    assert "cannot write" in one_line(lambda: write_text(tmp_path / "folder", "x"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in one_line(lambda: write_text(tmp_path / "a.txt", "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["folder"] and not list((tmp_path / "folder").iterdir())


def test_text_is_utf_8_with_its_own_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "δ < 1.25\nÄ\n")
    assert (tmp_path / "a.txt").read_bytes() == "δ < 1.25\nÄ\n".encode()


def test_a_second_process_is_refused(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    process = holder(60)
    entered = []

    def enter():
        with locked(tmp_path):
            entered.append(1)

    assert "another process is writing" in one_line(enter, DataError) and not entered
    process.kill()  # the lock goes with the process, however it ends
    process.wait()
    enter()
    enter()
    assert len(entered) == 2


def test_waiting_for_a_second_process(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.0)
    process = holder(60)
    threading.Timer(0.5, process.kill).start()
    with locked(tmp_path, wait=True):
        assert process.wait() != 0


def test_a_lock_is_released_by_an_error_too(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    with pytest.raises(RuntimeError, match="stopped"), locked(tmp_path):
        assert (tmp_path / LOCK).is_file()
        raise RuntimeError("stopped")
    with locked(tmp_path):
        pass


def test_a_folder_that_is_not_there_has_no_lock(tmp_path):
    (tmp_path / "file").write_text("no folder")

    def enter():
        with locked(tmp_path / "file"):
            pass

    assert "cannot write to" in one_line(enter)


def test_where_caches_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("DEPTHTOKENS_CACHE", "~/kept")
    assert cache_folder() == Path.home() / "kept"
    monkeypatch.delenv("DEPTHTOKENS_CACHE")
    assert cache_folder().name == "depthtokens" and cache_folder().is_absolute()


def test_paths_as_people_write_them():
    assert user_path("~/a") == Path.home() / "a" and user_path(Path("a/b")) == Path("a/b")
    assert "no such home folder" in one_line(lambda: user_path("~nobody-of-this-name/a"), UsageError)


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)))
def test_what_is_sealed_comes_back(values):
    values.pop(SEAL, None)
    text = json.dumps(sealed(values))
    assert json.dumps(unsealed(text)) == json.dumps(values)
    assert json.dumps(unsealed(json.dumps(values), must=False)) == json.dumps(values)


def test_what_was_altered_is_refused():
    text = json.dumps(sealed({"a": 1, "b": [0.1, {"c": "d"}]}))
    for i in range(len(text.encode()) * 8):
        broken = bytearray(text.encode())
        broken[i // 8] ^= 1 << i % 8
        try:
            assert unsealed(bytes(broken), must=True) == {"a": 1, "b": [0.1, {"c": "d"}]}
        except ValueError:
            continue
    for text in ("[1]", "{", '{"a": 1}', '{"sha256": 3}', "[" * 100000, '{"a": ' * 100000, ""):
        with pytest.raises(ValueError):
            unsealed(text)
