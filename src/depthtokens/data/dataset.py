"""The data set all readers share: pairs of an image file and a depth file, read, cropped, augmented and normalised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from ..errors import DataError, UsageError, unknown
from ..files import user_path
from .augment import Augmentation, apply
from .images import read_image as read_image
from .images import reading
from .sample import Sample, normalise

SPLITS = ("train", "test", "all")


class DepthDataset(Dataset[Sample]):
    """A list of pairs; `self[i]` is a `Sample`: image [3, H, W] float32 normalised, depth [1, H, W] float32 metres (0 = none), index.

    pairs: (image file, depth file); names: the image files relative to `root`, unless given.
    depth_range: (lo, hi) metres; eval_crop: name of the crop that evaluation uses ("eigen", "garg") or None.
    depth_scale: depth file units per metre, None where files hold metres; eight_bit: whether 8-bit depth images are accepted.
    fixed_crop: (height, width) cut at the bottom, horizontally centred, from image and depth of every pair.
    augment: random views, drawn from (seed, epoch, index) alone, so that workers and resumed runs see the same ones. Set `epoch` before an
    epoch's workers start: persistent workers keep the value they started with.
    without_depth: listed images that were left out because the list names no depth for them.
    Raises DataError if there are no pairs, or if files are absent (unless `allow_missing`).
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        *,
        name: str,
        split: str,
        root: Path,
        depth_range: tuple[float, float],
        names: Sequence[str] | None = None,
        depth_scale: float | None = None,
        eight_bit: bool = False,
        eval_crop: str | None = None,
        fixed_crop: tuple[int, int] | None = None,
        augment: Augmentation | None = None,
        seed: int = 42,
        without_depth: int = 0,
        allow_missing: bool = False,
    ) -> None:
        lo, hi = depth_range
        if not 0 < lo < hi < float("inf"):
            raise UsageError(f"depth range {lo:g} to {hi:g} m is none: give two positive numbers, the smaller first")
        if depth_scale is not None and not 0 < depth_scale < float("inf"):
            raise UsageError(f"depth scale {depth_scale:g} is none: give units per metre, as 1000 for millimetres")
        if seed < 0:
            raise UsageError(f"seed {seed} is negative: give 0 or more")
        if not pairs:
            raise DataError(f"no pairs of image and depth for split '{split}' in {root}")
        self.pairs = list(pairs)
        self.names = [_relative(image, root) for image, _ in pairs] if names is None else list(names)
        self.name, self.split, self.root = name, split, root
        self.depth_range, self.depth_scale, self.eight_bit = (lo, hi), depth_scale, eight_bit
        self.eval_crop, self.fixed_crop = eval_crop, fixed_crop
        self.augment, self.seed, self.epoch = augment, seed, 0
        self.without_depth = without_depth
        if not allow_missing:
            missing = [_relative(path, root) for path in self.missing()]
            if missing:
                first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                raise DataError(f"{len(missing)} of {2 * len(self.pairs)} files are not in {root}: {first}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        rgb, depth = self.read(index)
        if self.augment is None:
            image = rgb.astype(np.float32) / np.float32(255)
        else:
            try:
                image, depth = apply(self.augment, rgb, depth, np.random.default_rng([self.seed, self.epoch, index]))
            except DataError as error:
                raise DataError(f"{self.names[index]}: {error}") from None
        return Sample(normalise(image), torch.from_numpy(depth)[None], index)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGB [H, W, 3] uint8 and depth [H, W] float32 metres (0 = none), after the fixed crop, before augmentation."""
        rgb, depth = self._load(index)
        if rgb.shape[:2] != depth.shape:
            image_size, depth_size = (f"{h}x{w}" for h, w in (rgb.shape[:2], depth.shape))
            raise DataError(f"{self.names[index]} is {image_size} but its depth map is {depth_size}: they must be of one size")
        if self.fixed_crop is not None:
            top, left, (height, width) = *self._corner(index, *depth.shape), self.fixed_crop
            # A copy: the view would keep the whole image alive.
            rgb = rgb[top : top + height, left : left + width].copy()
            depth = depth[top : top + height, left : left + width].copy()
        return rgb, depth

    def image_size(self, index: int) -> tuple[int, int]:
        """(H, W) of what `read(index)` gives, from the image file's header alone."""
        height, width = self._size(index)
        if self.fixed_crop is None:
            return height, width
        self._corner(index, height, width)
        return self.fixed_crop

    @property
    def spec(self) -> str:
        """What `open_dataset` opens it by, with an absolute path: "nyu:/data/nyu"."""
        image, depth = self.pairs[0]
        return f"{self.name}:{(image if image == depth else self.root).resolve()}"  # image and depth in one file: the .mat

    def fingerprint(self) -> str:
        """SHA-256, 64 hex digits, of what `read` gives: it changes when data does, wherever the files lie, and knows no augmentation.

        Of every file it takes name, size and the first and last KiB, since to read the 48,000 of NYUv2 whole would take minutes: an image
        edited anew has another size. A .npy is read whole. Raises DataError for a missing file.
        """
        kind = (type(self).__name__, self.split, self.eval_crop, self.fixed_crop, self.depth_scale, self.depth_range)
        digest = hashlib.sha256(repr(kind).encode())
        known: dict[Path, bytes] = {}  # a .mat is every pair's only file
        for name, pair in zip(self.names, self.pairs, strict=True):
            digest.update(name.encode())
            for path in pair:
                if path not in known:
                    known[path] = _ends(path)
                digest.update(_relative(path, self.root).encode() + known[path])
        return digest.hexdigest()

    def missing(self) -> list[Path]:
        """Files of pairs that are not there."""
        return [path for index in range(len(self)) for path in self.absent(index)]

    def absent(self, index: int) -> list[Path]:
        """Files of one pair that are not there."""
        return [path for path in self.pairs[index] if not path.is_file()]

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        image, depth = self.pairs[index]
        return read_image(image), read_depth(depth, self.depth_scale, eight_bit=self.eight_bit)

    def _size(self, index: int) -> tuple[int, int]:
        path = self.pairs[index][0]
        with reading("image", path), Image.open(path) as image:
            return image.height, image.width

    def _corner(self, index: int, height: int, width: int) -> tuple[int, int]:
        assert self.fixed_crop is not None
        top, left = height - self.fixed_crop[0], (width - self.fixed_crop[1]) // 2
        if top < 0 or left < 0:
            crop = f"{self.fixed_crop[0]}x{self.fixed_crop[1]}"
            raise DataError(f"{self.names[index]} is {height}x{width}, smaller than {self.name}'s fixed crop {crop}")
        return top, left


def read_depth(path: Path, scale: float | None = None, *, eight_bit: bool = False) -> NDArray[np.float32]:
    """Depth [H, W] float32 metres, 0 = none (also where the file has NaN, infinity or a negative), from a one-channel PNG, .npy or .npz.

    scale: file units per metre; None = metres. eight_bit: accept 8-bit PNG, whose steps are too coarse for most uses.
    Raises DataError for anything else, OpenEXR included: no light library that is still kept up reads it.
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
    with Image.open(path) as image:
        if image.mode == "L" and not eight_bit:
            raise DataError(f"{path} is an 8-bit image, not a 16-bit depth map")
        # 16-bit grey is mode I;16, or I in older Pillows.
        if image.mode not in ("I;16", "I;16B", "I", "L"):
            raise DataError(f"{path} is a colour image, not a 16-bit depth map")
        return np.asarray(image)


def _read_array(path: Path) -> NDArray:
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


def check_root(root: str | Path, split: str, *, may_be_file: bool = False) -> Path:
    """`root` as a path. Raises UsageError for an unknown split, DataError if the root is not there or not a folder."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    path = user_path(root)
    if not path.is_dir() and not (may_be_file and path.is_file()):
        raise DataError(f"{path} is a file, not a folder" if path.exists() else f"no folder {path}")
    return path


def read_text(path: Path) -> str:
    """The text of a list file. Raises DataError if there is none."""
    with reading("list", path):
        return path.expanduser().read_text(encoding="utf-8-sig")


def read_list(path: Path) -> list[tuple[str, str]]:
    """(image, depth) of each line "image depth focal", as in the lists of BTS and AdaBins, where names may start with a slash.

    The focal length is not used. Raises DataError for other lines or none.
    """
    lines = [(number, line.split()) for number, line in enumerate(read_text(path).splitlines(), 1) if line.strip()]
    for number, words in lines:
        if len(words) not in (2, 3):
            raise DataError(f"{path} line {number}: expected 'image depth focal', found {len(words)} words")
    if not lines:
        raise DataError(f"{path} names no pairs")
    return [(words[0].lstrip("/"), words[1].lstrip("/")) for _, words in lines]


def locate(folders: Sequence[Path], *names: str) -> Path:
    """The first of the names found in the first folder that has one; the first name in the first folder if none has."""
    candidates = [folder / name for folder in folders for name in names]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _ends(path: Path) -> bytes:
    """Digest of a file's size, first and last KiB; of all of a .npy, whose size says nothing about what is in it."""
    with reading("file", path), path.open("rb") as file:
        if path.suffix == ".npy":
            return hashlib.file_digest(file, "sha256").digest()
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        first = file.read(1024)
        file.seek(max(0, size - 1024))
        return hashlib.sha256(size.to_bytes(8, "little") + first + file.read(1024)).digest()
