"""Files that data sets are made of, beside images: depth maps, and lists of pairs. Free of torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .images import reading


def read_depth(path: Path, scale: float | None = None, *, eight_bit: bool = False) -> NDArray[np.float32]:
    """Read a depth map from a one-channel PNG, a .npy or a .npz.

    OpenEXR is not supported: no light library that is still kept up reads it.

    Args:
        path: the file.
        scale: file units per metre; None where the file holds metres.
        eight_bit: accept PNG of 8 bits, whose steps are too coarse for most uses.

    Returns:
        [H, W] float32 metres; 0 = no depth, also where the file has NaN, infinity or a negative number.

    Raises:
        DataError: where the file is missing, damaged, or anything else than one depth map.
    """
    suffix = path.suffix.lower()
    with reading("depth map", path):
        if suffix == ".png":
            raw = _read_grey(path, eight_bit)
        elif suffix in (".npy", ".npz"):
            raw = _read_array(path)
        elif suffix == ".exr":
            raise DataError(f"{path}: OpenEXR is not supported: convert it to .npy in metres")
        else:
            raise DataError(f"{path}: depth is read from 16-bit .png, .npy or .npz, not from '{suffix}'")
    with np.errstate(over="ignore"):
        depth = raw.astype(np.float32)
        if scale is not None:
            depth /= np.float32(scale)
    depth[~(np.isfinite(depth) & (depth > 0))] = 0
    return depth


def _read_grey(path: Path, eight_bit: bool) -> NDArray:
    """The values of a grey PNG, as they are stored."""
    with Image.open(path) as image:
        if image.mode == "L" and not eight_bit:
            raise DataError(f"{path} is an 8-bit image, not a 16-bit depth map")
        # 16-bit grey is mode I;16, or I in older Pillows.
        if image.mode not in ("I;16", "I;16B", "I", "L"):
            raise DataError(f"{path} is a colour image, not a 16-bit depth map")
        return np.asarray(image)


def _read_array(path: Path) -> NDArray:
    """The array of a .npy, or of a .npz that has one or one called "depth"."""
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded as arrays:
            key = "depth" if "depth" in arrays else arrays.files[0] if len(arrays.files) == 1 else None
            if key is None:
                raise DataError(f"{path} holds {len(arrays.files)} arrays and none is called 'depth'")
            loaded = arrays[key]
    if loaded.ndim != 2 or loaded.dtype.kind not in "fiu":
        raise DataError(f"{path} is no depth map: expected numbers [H, W], found {loaded.dtype} {list(loaded.shape)}")
    return loaded


def read_text(path: Path) -> str:
    """The text of a list file. Raises DataError where it cannot be read."""
    with reading("list", path):
        return path.expanduser().read_text(encoding="utf-8-sig")


def read_list(path: Path) -> list[tuple[str, str]]:
    """Read a list as BTS and AdaBins have them: lines "image depth focal", in which names may start with a slash.

    Returns:
        (image, depth) of each line, without that slash. The focal length is not used and may be left out.

    Raises:
        DataError: where the file cannot be read, has other lines, or none.
    """
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    for number, words in lines:
        if len(words) not in (2, 3):
            raise DataError(f"{path} line {number}: expected 'image depth focal', found {len(words)} words")
    if not lines:
        raise DataError(f"{path} names no pairs")
    return [(words[0].lstrip("/"), words[1].lstrip("/")) for _, words in lines]


def find_list(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a file in `root`, None where none is."""
    return next((root / name for name in names if (root / name).is_file()), None)


def locate(folders: Sequence[Path], *names: str) -> Path:
    """The first of the names found in the first folder that has one; the first name in the first folder where none has."""
    candidates = [folder / name for folder in folders for name in names]
    return next((path for path in candidates if path.is_file()), candidates[0])


def relative(path: Path, root: Path) -> str:
    """A path as seen from `root`, with forward slashes; as it is where it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's size, first and last KiB; of all of a .npy, whose size says nothing about what is in it."""
    with reading("file", path), path.open("rb") as file:
        if path.suffix == ".npy":
            return hashlib.file_digest(file, "sha256").digest()
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.read(1024)
        file.seek(max(0, size - 1024))
        return hashlib.sha256(size.to_bytes(8, "little") + first + file.read(1024)).digest()
