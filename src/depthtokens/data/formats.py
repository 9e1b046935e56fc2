"""Depth files, and what tells one file's content from another's. Free of torch."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .find import is_file
from .images import check_pixels, opened, read_header, reading

DEPTH_ENDINGS = (".png", ".npy", ".npz")
PREDICTION_ENDINGS = (*DEPTH_ENDINGS, ".tif", ".tiff")
DEEP = ("I;16", "I;16B", "I;16L", "I")
"""Pillow's modes of 16-bit grey, the last in older versions."""
_KIB = 1024
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Numbers per pixel by a PNG's colour type."""


def read_depth(path: Path, scale: float | None = None, *, eight_bit: bool = False) -> NDArray[np.float32]:
    """Read a depth map from a one-channel PNG, a .npy or a .npz.

    Beside x.npy, x_mask.npy may say where depth counts, as in DIODE: where it is 0, there is none. OpenEXR is not supported: no light
    library that is still kept up reads it.

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
    if (mask := mask_beside(path)) is not None:
        with reading("mask", mask):
            counts = _read_array(mask)
        if counts.shape != depth.shape:
            raise DataError(f"{mask} is {counts.shape[0]}x{counts.shape[1]} but its depth map is {depth.shape[0]}x{depth.shape[1]}")
        depth[counts == 0] = 0
    return depth


class Prediction(NamedTuple):
    """What somebody's file says of one image's depth.

    Attributes:
        depth: [H, W] float32, in metres or whatever else was asked for; NaN = none.
        uncertainty: [H, W] float32, its standard deviation; None where the file has none.
    """

    depth: NDArray[np.float32]
    uncertainty: NDArray[np.float32] | None


def read_prediction(path: Path, scale: float | None = None, *, relative: bool = False) -> Prediction:
    """Read a predicted depth map from a one-channel PNG or TIFF of 16 bits, a TIFF of floats, a .npy or a .npz.

    Args:
        path: the file. A .npz holds one array or one called "depth", and may hold one called "uncertainty".
        scale: file units per metre; None for what a PNG states in its text field `depth_scale`, and for metres in files of floats.
        relative: whether numbers are not metres, but depth or disparity up to scale and shift, of which none is too small.

    Returns:
        The map. A number that is none, or unless `relative` is not above 0, is NaN; infinity stays unless `relative`.

    Raises:
        DataError: where the file is missing, damaged, anything else than one depth map, or does not say its unit.
    """
    uncertainty = None
    with reading("depth map", path):
        match path.suffix.lower():
            case ".png":
                raw = _read_grey(path, eight_bit=False)
                scale = scale or _stated_scale(path)
            case ".tif" | ".tiff":
                raw = _read_tiff(path)
            case ".npz":
                raw, uncertainty = _read_array(path), _read_entry(path, "uncertainty")
            case _:
                raw = _read_array(path)
    if scale is None and raw.dtype.kind != "f":
        raise DataError(f"{path} does not say its unit: state --prediction-scale (1000 for millimetres, 256 for KITTI's)")
    with np.errstate(over="ignore"):
        depth = raw.astype(np.float32) / np.float32(scale or 1)
        if uncertainty is not None:
            uncertainty = uncertainty.astype(np.float32) / np.float32(scale or 1)
    if uncertainty is not None and not (uncertainty.shape == depth.shape and (uncertainty >= 0).all() and np.isfinite(uncertainty).all()):
        raise DataError(f"{path}: its 'uncertainty' is no map of finite numbers from 0 up, as large as 'depth'")
    depth[~np.isfinite(depth) if relative else ~(depth > 0)] = np.nan
    return Prediction(depth, uncertainty)


def mask_beside(path: Path) -> Path | None:
    """The file that says where an array's depth counts, None where there is none."""
    if path.suffix.lower() != ".npy":
        return None
    mask = path.with_name(f"{path.stem}_mask{path.suffix}")
    return mask if is_file(mask) else None


def _read_grey(path: Path, eight_bit: bool) -> NDArray:
    """The values of a grey PNG, as they are stored."""
    with opened(path, "depth map") as image:
        if image.format != "PNG":
            raise DataError(f"{path} is a {image.format} file, not a PNG: depth would be damaged by it")
        if image.mode == "L" and not eight_bit:
            raise DataError(f"{path} is an 8-bit image, not a 16-bit depth map")
        if image.mode == "LA" or _colour_type(path) == 4:  # Pillow keeps 8 bits of it
            raise DataError(f"{path} is a grey image with an alpha channel, not a 16-bit depth map: save it without alpha")
        if image.mode not in (*DEEP, "L"):
            raise DataError(f"{path} is a colour image, not a 16-bit depth map")
        return np.asarray(image)


def _colour_type(path: Path) -> int:
    """What a PNG's header says: 0 = grey, 4 = grey with alpha, ..."""
    with path.open("rb") as file:
        return file.read(26)[25]


def _stated_scale(path: Path) -> float | None:
    """Units per metre that a PNG states, as this package writes them; None where it does not."""
    with opened(path, "depth map") as image:
        try:
            scale = float(image.info["depth_scale"])
        except (KeyError, TypeError, ValueError):
            return None
    return scale if 0 < scale < math.inf else None


def _read_tiff(path: Path) -> NDArray:
    """The values of a TIFF of one channel, as they are stored."""
    with opened(path, "depth map") as image:
        if image.mode not in (*DEEP, "F"):
            raise DataError(f"{path} is no depth map: expected one channel of 16 bits or floats, found {image.mode}")
        return np.asarray(image)


def _read_entry(path: Path, name: str) -> NDArray | None:
    """The array [H, W] of that name in a .npz, None where there is none."""
    with zipfile.ZipFile(path) as archive:
        return _unpacked(archive, f"{name}.npy", path) if f"{name}.npy" in archive.namelist() else None


def _read_array(path: Path) -> NDArray:
    """The array [H, W] of a .npy, or of a .npz that has one or one called "depth"; [H, W, 1] is taken as well."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            file.seek(0)
            return _read_npy(file, path, path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        arrays = {name.removesuffix(".npy"): name for name in archive.namelist()}
        key = "depth" if "depth" in arrays else next(iter(arrays)) if len(arrays) == 1 else None
        if key is None:
            raise DataError(f"{path} holds {len(arrays)} arrays and none is called 'depth'")
        return _unpacked(archive, arrays[key], path)


def _unpacked(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray:
    """The array [H, W] of an entry of a .npz; `path` is what an error calls it."""
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack to any size at once
        raise ValueError("compressed in a way that NumPy does not write")
    with archive.open(entry) as unpacked:
        return _read_npy(unpacked, path, entry.file_size)


def _read_npy(file: IO[bytes], path: Path, size: int) -> NDArray:
    """The same from the bytes of a .npy.

    Args:
        file: those bytes.
        path: what an error calls them.
        size: how many there are, or are said to be.
    """
    shape, dtype = _npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not made")
    if dtype.kind not in "fiub" or not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)):
        raise DataError(f"{path} is no depth map: expected numbers [H, W], found {dtype} {list(shape)}")
    check_pixels(shape[0], shape[1], f"cannot read depth map {path}: it")
    if size < math.prod(shape) * dtype.itemsize:
        raise ValueError("the file ends before its numbers do")
    file.seek(0)
    array: NDArray = np.lib.format.read_array(file, allow_pickle=False)
    return array.reshape(shape[:2])


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a .npy begins with."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of .npy")
    shape, _, dtype = read(file)
    return shape, dtype


def file_digest(path: Path) -> bytes:
    """SHA-256 of what tells a file's content from others': its size, first and last KiB where it is compressed, else all of it.

    A compressed image that was edited has another size, but one that is not (TIFF, BMP, .npy, .mat, a PNG without compression) keeps it.
    An image that is turned as its EXIF says, or laid over white, has another digest than one of these bytes that is shown as it is stored.
    """
    with reading("file", path), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.read(_KIB)
        if not _is_compressed(first, size):
            file.seek(0)
            return hashlib.file_digest(file, "sha256").digest()
        file.seek(max(0, size - _KIB))
        last = file.read(_KIB)
    return hashlib.sha256(size.to_bytes(8, "little") + first + last + _shown_otherwise(path, first, last)).digest()


def _is_compressed(first: bytes, size: int) -> bool:
    """Whether the size of a file that begins so follows its content."""
    if first.startswith(b"\x89PNG"):
        width, height = int.from_bytes(first[16:20]), int.from_bytes(first[20:24])
        return size < height * (width * first[24] * _CHANNELS.get(first[25], 0) // 8) if len(first) > 25 else False
    if first.startswith(b"PK\x03\x04"):  # .npz
        return first[8:10] == b"\x08\x00"
    return first.startswith((b"\xff\xd8\xff", b"GIF8")) or first[8:15] == b"WEBPVP8"


def _shown_otherwise(path: Path, first: bytes, last: bytes) -> bytes:
    """What an image's file says of how its pixels are shown; nothing for the common case, which keeps the digests of earlier versions."""
    notes = b""
    if any(mark in part for part in (first, last) for mark in (b"Exif\0\0", b"eXIf", b"EXIF")):
        try:
            turned = read_header(path).orientation
        except DataError:  # a damaged image has a digest as well
            turned = 1
        notes += b"" if turned == 1 else b"turned %d" % turned
    if first.startswith(b"\x89PNG") and (first[25] in (4, 6) or b"tRNS" in first):
        notes += b"over white"
    return notes
