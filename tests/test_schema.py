"""Plain values within bounds, and text fit to be shown."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from depthtokens.errors import UsageError, unknown
from depthtokens.schema import DEEPEST, LONGEST, check_plain, legible, read_dataclass


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@dataclass(frozen=True)
class Kind:
    share: float = 0.0
    count: int = 0


@pytest.mark.parametrize("values", [{"a": [1, 2.5, "x", None, True]}, [], "x", None, nested(DEEPEST), 2**63, (1, 2)])
def test_plain_values(values):
    check_plain(values, "file")


@pytest.mark.parametrize(("values", "message"), [
    ({"a": float("nan")}, "nan is no number"), ([[float("inf")]], "inf is no number"), (10**400, "beyond all bounds"),
    (nested(DEEPEST + 1), "nested too deeply"), (nested(100_000), "nested too deeply"), ({1: 2}, "names are text"),
    ({"a": b"x"}, "a bytes is no plain value"),
])  # fmt: skip
def test_what_is_no_plain_value(values, message):
    with pytest.raises(UsageError, match=f"file: .*{message}"):
        check_plain(values, "file")


def test_huge_whole_numbers_are_no_crash():
    assert read_dataclass(Kind, {"share": 10**400}, "file").share == 10**400  # bounds are each field's own
    with pytest.raises(UsageError, match=r"count = \['x+.* \.\.\. x+'\] should be a whole number") as caught:
        read_dataclass(Kind, {"count": ["x" * 1_000_000]}, "file")
    assert len(str(caught.value)) < 400


def test_text_of_files_does_not_command_a_terminal():
    hostile = "a\x1b]0;owned\x07b\x9b2J\u202ec\r\ud800"
    shown = legible({hostile: [hostile]})
    assert shown == {"a\\x1b]0;owned\\x07b\\x9b2J\\u202ec\\r\\ud800": ["a\\x1b]0;owned\\x07b\\x9b2J\\u202ec\\r\\ud800"]}
    assert str(UsageError(hostile)) == "a\\x1b]0;owned\\x07b\\x9b2J\\u202ec\\r\\ud800"
    assert legible("ein Weg\tin 3 Zeilen, 深い\n") == "ein Weg\tin 3 Zeilen, 深い\n"
    assert len(legible("x" * 1_000_000)) == LONGEST and len(str(UsageError("x" * 1_000_000))) == 4000
    assert len(str(unknown("protocol", "x" * 8_000_000, ["auty2023"]))) < 200
