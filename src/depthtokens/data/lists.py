"""List files: which images and depth maps are pairs. Free of torch."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..files import user_path
from .find import is_file
from .images import reading

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LIST_FOLDERS = (".", "train_test_inputs")
"""Where a list lies below a data set's ROOT; the second is how the published code keeps them."""


def read_text(path: Path) -> str:
    """The text of a list file in UTF-8, or in UTF-16 with the mark that Windows writes. Raises DataError where it is neither."""
    with reading("list", path):
        content = user_path(path).read_bytes()
        encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            raise DataError(f"cannot read list {path}: it is not text in UTF-8: save it as that") from error
        if "\0" in text:
            raise DataError(f"cannot read list {path}: it is not text in UTF-8 (but UTF-16 without a mark?): save it as that")
        return text


def read_list(path: Path) -> list[tuple[str, str]]:
    """Read a list as BTS and AdaBins have them: lines "image depth focal", in which names may start with a slash.

    A third word (the focal length, or a dense depth map) is not used and may be left out. Commas and semicolons separate as well where a
    line has no blanks.

    Returns:
        (image, depth) of each line, as they stand.

    Raises:
        DataError: where the file cannot be read, has other lines, or none.
    """
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if len(words) == 1:
            words = [word for word in re.split("[,;]", words[0]) if word]
        if words and len(words) not in (2, 3):
            blanks = " (names with blanks cannot be listed so)" if len(words) > 3 else ""
            raise DataError(f"{path} line {number}: expected 'image depth focal', found {len(words)} words{blanks}")
        if words:
            pairs.append((words[0], words[1]))
    if not pairs:
        raise DataError(f"{path} names no pairs")
    return pairs


def read_table(path: Path) -> list[tuple[str, str]]:
    """Read a CSV with the columns image and depth, in any order and beside others, separated by commas, semicolons or tabs.

    Returns:
        (image, depth) of each line, as they stand.

    Raises:
        DataError: where the file cannot be read, lacks a column, names nothing, or a line lacks a path.
    """
    lines = read_text(path).splitlines()
    first = next((line for line in lines if line.strip()), "")
    separator = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)]
    filled = [(number, row) for number, row in enumerate(rows, 1) if any(row)]
    header = [cell.casefold() for cell in filled[0][1]] if filled else []
    if "image" not in header or "depth" not in header or len(filled) < 2:
        found = f", found '{first.strip()[:60]}'" if filled and len(filled) > 1 else ""
        raise DataError(f"{path} should be a CSV with the header image,depth and two paths in each line{found}")
    columns = header.index("image"), header.index("depth")
    pairs = []
    for number, row in filled[1:]:
        if len(row) <= max(columns) or not all(row[column] for column in columns):
            raise DataError(f"{path} should be a CSV with the header image,depth and two paths in each line: line {number} lacks one")
        pairs.append((row[columns[0]], row[columns[1]]))
    return pairs


def find_list(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a file in `root`, or in the folder of lists below it; None where none is."""
    return next((path for folder in LIST_FOLDERS for name in names if is_file(path := root / folder / name)), None)
