"""The log of a run, whatever became of its lines."""

from __future__ import annotations

import pytest

from depthtokens.experiment.log import LONGEST, Record, cut_log


def lines(first, last):
    return [Record(1, step, 9, 0.5, 1e-3, 2.0, 3.0).to_line().encode() for step in range(first, last + 1)]


@pytest.mark.parametrize("foreign", [
    b"\n", b"\xff\xfe\n", b'{"step": "2"}\n', b'{"step": true}\n', b"[1]\n", b"[" * 3000 + b"\n", b'{"step": 0}\n',
    b'{"step": 1' + b"0" * 3000 + b"}\n",
    b"x" * 3 * LONGEST + b"\n", b'{"step": 2, "text": "' + b"x" * LONGEST + b'"}\n', b"\x00" * 100 + b"\n",
    b'{"step": 1}\xe2\x80\xa8\n', b"\x85\n",
])  # fmt: skip
def test_damaged_and_foreign_lines_go(tmp_path, foreign):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"".join([*lines(1, 2), foreign, *lines(3, 6), b'{"epoch": 1, "st']))
    cut_log(path, 4)
    assert path.read_bytes() == b"".join(lines(1, 4))
    cut_log(path, 0)
    assert path.read_bytes() == b""
    cut_log(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()
