"""What a person's files, folders and globs stand for, and which sub-folder the results of each get. Free of torch."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.find import walk
from ..data.images import ENDINGS, UNREAD
from ..errors import DataError
from ..files import user_path
from .log import LOG, read_log


class Found(NamedTuple):
    """Photos and films that a person's words stand for.

    Attributes:
        folders: file -> sub-folder of the results that its own go into; sorted within each pattern, each file once.
        left_out: files in folders that look like photos but cannot be read.
    """

    folders: dict[Path, Path]
    left_out: list[Path]


def find_images(patterns: Sequence[str], out: Path) -> Found:
    """Files for paths, folders and globs as a person writes them, ~ included; of folders the photos only.

    Folders are searched with all folders in them; results of earlier runs are no photos. Results keep the sub-folders that a photo has
    below the folder that was named, or below the part of a glob before its first wildcard. Where photos of one name would meet in one
    folder, all keep the folders below the one that everything lies in.

    Args:
        patterns: as they were written.
        out: where results go.

    Raises:
        DataError: for a pattern that matches nothing.
    """
    roots: dict[Path, Path] = {}
    left_out: dict[Path, None] = {}
    for pattern in patterns:
        path = user_path(pattern)
        unread: list[Path] = []
        if path.is_dir():
            root, files = path, _without_results(walk(path), path, out)
            matches = [file for file in files if file.suffix.lower() in ENDINGS]
            unread = [file for file in files if file.suffix.lower() in UNREAD]
        elif path.is_file():
            root, matches = path.parent, [path]
        else:
            root = _fixed(path)
            found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
            matches = _without_results((file for file in found if file.is_file()), root, out)
        if not matches and not unread:
            raise DataError(f"no image at {pattern}{' (films are named, or matched by a glob)' if path.is_dir() else ''}")
        for match in matches:
            roots.setdefault(match, root)
        left_out |= dict.fromkeys(unread)
    return Found(_told_apart(roots), list(left_out))


def _fixed(pattern: Path) -> Path:
    """The folder that a glob names before its first wildcard."""
    parents = [parent for parent in pattern.parents if not glob.has_magic(str(parent))]
    return parents[0] if parents else Path()


def _without_results(files: Iterable[Path], root: Path, out: Path) -> list[Path]:
    """Files without results: those that the log in `root` names, and all that lies below it in `out` or another folder with a log."""
    made = {root / name for name in read_log(root / LOG)}
    known: dict[Path, bool] = {root: False}

    def results(folder: Path) -> bool:
        if folder not in known:
            here = folder.is_dir() and ((folder / LOG).is_file() or folder.absolute() == out.absolute())
            known[folder] = here or (folder != folder.parent and results(folder.parent))
        return known[folder]

    return [file for file in files if file not in made and not results(file.parent)]


def _told_apart(roots: dict[Path, Path]) -> dict[Path, Path]:
    """File -> sub-folder of its results."""
    folders = {file: file.parent.relative_to(root) for file, root in roots.items()}
    alike = Counter((folder, file.stem) for file, folder in folders.items())
    if max(alike.values(), default=1) == 1:
        return folders
    absolute = {file: Path(os.path.normpath(file.absolute())).parent for file in roots}
    try:
        common = os.path.commonpath(absolute.values())
    except ValueError:  # on several drives
        return folders
    return {file: folder.relative_to(common) for file, folder in absolute.items()}
