"""Files that are whole or not there, folders with one writer at a time, and where caches lie."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import files
from depthtokens.errors import DataError, DepthTokensError, UsageError
from depthtokens.files import (  # fmt: skip
    LOCK,
    SEAL,
    atomic,
    atomic_folder,
    cache_folder,
    check_room,
    check_writable,
    file_sha256,
    locked,
    make_folder,
    sealed,
    unsealed,
    user_path,
    write_text,
)
from helpers import needs_mount, not_root

unix = pytest.mark.skipif(os.name == "nt", reason="links, modes and pipes of Unix")

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
    assert one_line(lambda: write_text(tmp_path / "nowhere" / "a.txt", "x")).endswith(f"a.txt: there is no folder {tmp_path / 'nowhere'}")
    (tmp_path / "folder").mkdir()
    assert one_line(lambda: write_text(tmp_path / "folder", "x")) == f"cannot write {tmp_path / 'folder'}: it is a folder"
    assert "Not a directory" in one_line(lambda: write_text(Path(__file__, "a.txt"), "x"))
    assert "too long" in one_line(lambda: write_text(tmp_path / ("a" * 300), "x"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert one_line(lambda: write_text(tmp_path / "a.txt", "x")) == f"cannot write {tmp_path / 'a.txt'}: No space left on its disk"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"] and not list((tmp_path / "folder").iterdir())


@unix
def test_links_stay_and_what_they_point_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/a.txt")
    (tmp_path / "second").symlink_to(tmp_path / "link")
    for text in ("through a dangling link", "through one that leads somewhere"):
        write_text(tmp_path / "second", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "second").is_symlink()
        assert (tmp_path / "there/a.txt").read_text() == text and not (tmp_path / "there/a.txt").is_symlink()
    (tmp_path / "lost").symlink_to("nowhere/a.txt")
    assert f"there is no folder {tmp_path / 'nowhere'}" in one_line(lambda: write_text(tmp_path / "lost", "x"))
    (tmp_path / "circle").symlink_to("circle")
    assert "cannot write" in one_line(lambda: write_text(tmp_path / "circle", "x"))
    assert len(list(tmp_path.iterdir())) == 5 and len(list((tmp_path / "there").iterdir())) == 1


@unix
def test_a_file_keeps_its_mode_and_a_new_one_has_the_user_s(tmp_path):
    path = tmp_path / "a.txt"
    before = os.umask(0o027)
    try:
        write_text(path, "new")
        assert path.stat().st_mode & 0o7777 == 0o640
        for mode in (0o600, 0o664, 0o755):
            path.chmod(mode)
            write_text(path, "again")
            assert path.stat().st_mode & 0o7777 == mode
    finally:
        os.umask(before)


@not_root
def test_what_may_not_be_written_is_not_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("before")
    (tmp_path / "a.txt").chmod(0o444)
    assert "Permission denied" in one_line(lambda: write_text(tmp_path / "a.txt", "x"))
    assert (tmp_path / "a.txt").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@unix
def test_a_file_keeps_its_owner(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("theirs")
    try:
        os.chown(path, 1234, 1235)
    except OSError:
        pytest.skip("needs the right to give a file to another user")
    write_text(path, "x")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


@unix
def test_pipes_and_devices_are_written_straight(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    with atomic(pipe) as file:
        np.save(file, np.arange(3))  # which a pipe's own file object would not take
    reader.join()
    assert np.load(io.BytesIO(found[0])).tolist() == [0, 1, 2] and stat.S_ISFIFO(pipe.stat().st_mode)
    write_text(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()
    assert len(list(tmp_path.iterdir())) == 1


SAY = """
from pathlib import Path
from depthtokens.files import write_text
print("before")
write_text(Path("/dev/stdout"), "text\\n")
print("after")
"""


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no /dev/stdout")
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_by_its_name(tmp_path, kind):
    with (tmp_path / "out").open("w+b") as out:
        done = subprocess.run([sys.executable, "-c", SAY], stdout=subprocess.PIPE if kind == "pipe" else out, stderr=subprocess.PIPE)
    said = done.stdout if kind == "pipe" else (tmp_path / "out").read_bytes()
    assert (said, done.stderr) == (b"before\ntext\nafter\n", b"") and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["a" * 240, "a" * 255, "\N{SNOWMAN}" * 80, "." * 200 + "a", "\udcff" * 200])
def test_long_names(tmp_path, name):
    for text in ("first", "second"):
        write_text(tmp_path / name, text)
        assert (tmp_path / name).read_text() == text and len(list(tmp_path.iterdir())) == 1


WRITE_MANY = """
import sys
from pathlib import Path
from depthtokens.files import write_text
for i in range(40):
    write_text(Path(sys.argv[1]), sys.argv[2] * 100_000)
"""


def test_writers_at_once_give_one_whole_file(tmp_path):
    path = tmp_path / "a.txt"
    crew = [subprocess.Popen([sys.executable, "-c", WRITE_MANY, str(path), letter]) for letter in "abcd"]
    failed = []

    def write(letter):
        try:
            for _ in range(20):
                write_text(path, letter * 100_000)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "efghijkl"]
    for thread in threads:
        thread.start()
    while any(process.poll() is None for process in crew):
        text = path.read_text() if path.exists() else "a" * 100_000
        assert len(text) == 100_000 and len(set(text)) == 1
    for thread in threads:
        thread.join()
    assert not failed and not any(process.returncode for process in crew)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from depthtokens.errors import DepthTokensError
from depthtokens.files import atomic
noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
image = Image.fromarray(noise)
for write in (lambda file: np.save(file, noise), lambda file: image.save(file, format="PNG"), lambda file: file.write(noise)):
    try:
        with atomic(Path(sys.argv[1])) as file:
            write(file)
    except DepthTokensError as error:
        print(error)
"""


@needs_mount
def test_a_full_disk_is_called_full_whoever_writes(tmp_path):
    mounted = f'mount -t tmpfs -o size=64k tmpfs . && exec "{sys.executable}" -c "$CODE" a'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted], cwd=tmp_path, env={**os.environ, "CODE": FULL}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["cannot write a: No space left on its disk"] * 3, done


def test_what_can_be_written_is_known_before(tmp_path):
    check_writable(tmp_path / "a.txt")
    check_writable(tmp_path / ("a" * 240))
    check_writable(Path(os.devnull))
    assert not list(tmp_path.iterdir())
    assert "there is no folder" in one_line(lambda: check_writable(tmp_path / "nowhere" / "a.txt"))
    assert "it is a folder" in one_line(lambda: check_writable(tmp_path))


def test_room():
    check_room(1, Path(__file__).parent / "nowhere" / "nor there")
    assert "needs 1000000000.0 GB and its disk has" in one_line(lambda: check_room(10**18, Path("nowhere")))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a" / "b"
    with pytest.raises(RuntimeError), atomic_folder(path) as new:
        write_text(new / "c.txt", "x")
        raise RuntimeError("stopped")
    assert not list(path.parent.iterdir())
    with atomic_folder(path) as new:
        write_text(new / "c.txt", "x")
        assert not path.exists()
    assert (path / "c.txt").read_text() == "x" and list(path.parent.iterdir()) == [path]
    with atomic_folder(path):
        pass  # nothing in it: the one that is there stays
    assert (path / "c.txt").read_text() == "x"

    def again():
        with atomic_folder(path) as new:
            write_text(new / "d.txt", "y")

    assert one_line(again).startswith(f"cannot write {path}: ")
    assert [entry.name for entry in path.iterdir()] == ["c.txt"] and list(path.parent.iterdir()) == [path]


def test_the_folder_is_named_not_the_one_that_it_was_going_to_be(tmp_path):
    def write():
        with atomic_folder(tmp_path / "a") as new:
            write_text(new / "nowhere" / "c.txt", "x")

    assert one_line(write).startswith(f"cannot write {tmp_path / 'a'}: ")


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


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.dictionaries(st.text(), st.recursive(PLAIN, st.lists, max_leaves=5), max_size=5))
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


def test_folders_for_results(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    assert one_line(lambda: make_folder(tmp_path / "file" / "b", "go away")).startswith(f"cannot write to {tmp_path / 'file' / 'b'}: ")
    assert one_line(lambda: make_folder(tmp_path / "file", "go away")).endswith("; go away")


def test_sum_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a").startswith("ba7816bf8f01cfea")
    assert one_line(lambda: file_sha256(tmp_path / "none"), DataError) == f"cannot read {tmp_path / 'none'}: No such file or directory"
