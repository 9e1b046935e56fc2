"""Finding files: in folders, by listed names, whatever spelling and ending they have. Free of torch."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError


def visible(folder: Path) -> list[Path]:
    """The files in a folder, sorted, without hidden ones: macOS leaves a `._name` beside every file it copies."""
    return sorted(path for name in _names_in(folder) if not name.startswith(".") and is_file(path := folder / name))


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, without hidden files and folders. Links to folders are followed, each real folder once."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        here = Path(parent).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        # Real folders before links: what is there twice goes by its own name.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")), key=lambda name: (Path(parent, name).is_symlink(), name)
        )
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def spelling(name: str) -> str:
    """One spelling of a name: letters with accents composed, as one character, or decomposed, as macOS keeps them, look the same."""
    return unicodedata.normalize("NFC", name)


def is_file(path: Path) -> bool:
    """Whether a file is there; False for a name that no file can have, as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there, likewise."""
    try:
        return path.is_dir()
    except OSError:
        return False


def relative(path: Path, root: Path) -> str:
    """A path as seen from `root`, with forward slashes; as it is where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


class Found(NamedTuple):
    """The pairs of a split, and what there is to say of them: `DepthDataset.notes` and `warnings`."""

    pairs: list[tuple[Path, Path]]
    notes: list[str]
    warnings: list[str]


def left_out(what: str, paths: Sequence[Path], root: Path) -> list[str]:
    """One line about files that are left out, none where there are none."""
    first = ", ".join(relative(path, root) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return [f"{len(paths)} {what} and are left out: {first}"] if paths else []


def unread(paths: Sequence[Path], root: Path) -> list[str]:
    """The same about photos of other formats than are read."""
    return left_out("photos are of formats that cannot be read (convert them to JPEG or PNG)", paths, root)


def unlisted(root: Path, split: str, found: int, published: int, name: str) -> str:
    """What to say of a published split that was built from the tree, for want of its list."""
    return (
        f"no list: '{split}' is the {found:,} pairs found in {root}, the published one has {published:,}: put {name} there, or --list-file"
    )


class Finder:
    """Finds the files that lists name, in the first folder that has them.

    Names are tried as they stand (absolute ones as such before they are sought below the folders), then with forward slashes, then in any
    Unicode spelling and with an ending in small or capital letters.

    Args:
        folders: where to look, in this order.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._listed: dict[Path, dict[str, str]] = {}

    def __call__(self, *names: str) -> Path:
        """The file of the first name that is found; where none is, the first name in the first folder."""
        for name in names:
            if (name.startswith("/") or name[1:3] in (":\\", ":/")) and is_file(absolute := Path(name)):
                return absolute
        candidates = [folder / name.lstrip("/") for folder in self.folders for name in names]
        for path in candidates:
            if is_file(path):
                return path
        for folder in self.folders:
            for name in names:
                if found := self._spelled(folder, name.replace("\\", "/").strip("/")):
                    return found
        return self.folders[0] / names[0].replace("\\", "/").lstrip("/")

    def _spelled(self, folder: Path, name: str) -> Path | None:
        """The file of that name in any spelling."""
        *parents, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
        for part in parents:
            if part == ".." or is_folder(folder / part):
                folder = folder / part
            elif (known := self._names(folder).get(spelling(part))) is not None:
                folder = folder / known
            else:
                return None
        known = self._names(folder).get(ending_in_small(spelling(last)))
        return folder / known if known is not None and is_file(folder / known) else None

    def _names(self, folder: Path) -> dict[str, str]:
        """What is in a folder, by one spelling of each name, with and without the letters of its ending made small."""
        if folder not in self._listed:
            there = _names_in(folder)
            self._listed[folder] = {ending_in_small(spelling(name)): name for name in there} | {spelling(name): name for name in there}
        return self._listed[folder]


def _names_in(folder: Path) -> list[str]:
    """What is in a folder, sorted; nothing where there is none."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"cannot read folder {folder}: {error.strerror or error}") from error


def _refuse(error: OSError) -> None:
    """What to do with a folder that cannot be read: to pass it over would leave its files out in silence."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DataError(f"cannot read folder {error.filename}: {error.strerror or error}") from error


def ending_in_small(name: str) -> str:
    """A file's name with the letters of its ending made small."""
    ending = Path(name).suffix
    return name.removesuffix(ending) + ending.lower()
