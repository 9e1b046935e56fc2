"""NYU Depth v2 (Silberman et al., ECCV 2012): the tree that BTS and AdaBins use, or the official labelled .mat file."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError, unknown
from .augment import NYUV2
from .dataset import DepthDataset, check_root
from .find import Finder, Found, left_out, unlisted, unread, walk
from .images import ENDINGS, UNREAD, check_pixels
from .lists import find_list, read_list
from .mat5 import read_vectors

if TYPE_CHECKING:
    import h5py

LISTS = {
    "train": ("nyudepthv2_train_files_with_gt.txt", "nyu_train.txt"),
    "test": ("nyudepthv2_test_files_with_gt.txt", "nyu_test.txt"),
}
FOLDERS = {"train": "sync", "test": "official_splits/test"}
PUBLISHED = {"train": 24_231, "test": 654}
"""Pairs of the published lists."""
FRAME = (7, 474, 7, 632)
"""Top, bottom, left, right: outside these the labelled images have a white frame, which is black in the published test images."""
MOST_IMAGES = 100_000
"""Images that a .mat file may say it has; the published one has 1,449."""
LARGEST_PIECE = 2**28
"""Bytes of a piece (chunk) of its arrays, which is unpacked whole."""
MAT_DEPTHS = {"raw": "rawDepths", "filled": "depths"}


class NYUv2(DepthDataset):
    """NYU Depth v2: images 480x640, depth 16-bit PNG in millimetres, range 0.001-10 m.

    The pairs of a tree's split are, in this order:

    - those of `list_file`, lines "image depth focal", names relative to the split's folder or else to ROOT;
    - those of a list in ROOT under one of its usual names (`LISTS`);
    - every rgb_X.jpg or .png with sync_depth_X.png beside it, sorted by path, below the split's folder. "all" is every pair below ROOT.

    A tree without list and without these folders has "all" only: train and test are never the same pairs unasked.
    A .mat file is split by splits.mat: `list_file`, or the one beside it. Its images have a black frame outside [7:474, 7:632], as the
    published test images made from it have.

    Args:
        root: a tree ROOT/sync/<scene>/rgb_X.jpg + sync_depth_X.png (train) and ROOT/official_splits/test/<scene>/... (test), or the file
            nyu_depth_v2_labeled.mat (needs `pip install 'depthtokens[h5]'`).
        split: "train", "test" or "all".
        list_file: a list of pairs, or for a .mat file a splits.mat.
        augment: hand out random views by the released recipe (`augment.NYUV2`), which begins with the crop to columns 43:608, rows 45:472;
            without it images are whole.
        crop: (height, width) of the recipe's random crop instead of 416x544.
        seed: of the random views.
        allow_missing: keep pairs whose files are absent.
        nyu_depth: which ground truth of a .mat file: "raw" (the default), the sensor's with its holes, which published figures are on; or
            "filled", whose holes are in-painted.

    Raises:
        UsageError: where the split is unknown, or crop, seed or `nyu_depth` make no sense.
        DataError: where files are absent (unless `allow_missing`), or there are no pairs.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     scene = Path(root, "official_splits", "test", "kitchen")
        ...     scene.mkdir(parents=True)
        ...     Image.new("RGB", (640, 480)).save(scene / "rgb_00000.jpg")
        ...     Image.new("I;16", (640, 480), 2500).save(scene / "sync_depth_00000.png")  # millimetres
        ...     sample = NYUv2(root, "test")[0]
        >>> sample.image.shape, sample.depth.max()
        (torch.Size([3, 480, 640]), tensor(2.5000))
    """

    NAME: ClassVar = "nyu"
    TAKES: ClassVar = frozenset({"nyu_depth"})

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        list_file: str | Path | None = None,
        *,
        augment: bool = False,
        crop: tuple[int, int] | None = None,
        seed: int = 42,
        allow_missing: bool = False,
        nyu_depth: str | None = None,
    ) -> None:
        root = check_root(root, split, may_be_file=True)
        list_path = None if list_file is None else Path(list_file)
        self._mat: LabeledMat | None = None
        names = None
        options: dict[str, str] = {}
        reads: tuple[str, ...] = ()
        if root.is_file():
            kind = nyu_depth or "raw"
            if kind not in MAT_DEPTHS:
                raise unknown("--nyu-depth", kind, MAT_DEPTHS)
            self._mat = LabeledMat(root, kind)
            self._rows = self._mat.rows(split, list_path)
            self.in_painted = kind == "filled"
            found = Found([(root, root)] * len(self._rows), [_MAT_NOTES[kind]], [])
            names, root = [f"{row:05d}" for row in self._rows], root.parent
            options, reads = ({"nyu_depth": kind} if kind == "filled" else {}), (kind, "black frame")
        elif nyu_depth is not None:
            raise UsageError("--nyu-depth is for nyu:FILE.mat only: a tree's depth is what its files hold")
        else:
            found = _tree_pairs(root, split, list_path)
        super().__init__(
            found.pairs,
            name=self.NAME,
            split=split,
            root=root,
            names=names,
            depth_range=(0.001, 10.0),
            depth_scale=1000,
            eval_crop="eigen",
            augment=NYUV2.with_crop(crop) if augment else None,
            seed=seed,
            allow_missing=allow_missing,
            notes=found.notes,
            warnings=found.warnings,
            options=options,
            reads=reads,
        )

    def orientation(self, index: int) -> int:
        """See `DepthDataset`; images of a .mat are upright."""
        return super().orientation(index) if self._mat is None else 1

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return super()._load(index) if self._mat is None else self._mat.read(self._rows[index])

    def _truth(self, index: int) -> NDArray[np.float32]:
        return super()._truth(index) if self._mat is None else self._mat.depth(self._rows[index])

    def _size(self, index: int) -> tuple[int, int]:
        return super()._size(index) if self._mat is None else self._mat.size


_MAT_NOTES = {
    "raw": "ground truth: the sensor's (rawDepths), with its holes; frame black: as the published test images",
    "filled": "ground truth: in-painted (depths, holes filled in); published figures are on rawDepths: leave out --nyu-depth filled",
}


def _tree_pairs(root: Path, split: str, list_file: Path | None) -> Found:
    """The pairs of a split, from a list where there is one, else from the tree."""
    own = [root / folder for name, folder in FOLDERS.items() if split in (name, "all")]
    if list_file is None:
        list_file = find_list(root, LISTS.get(split, ()))
    if list_file is not None:
        find = Finder([folder for folder in (*own, root) if folder.is_dir()])
        return Found([(find(image), find(depth)) for image, depth in read_list(list_file)], [f"pairs listed in {list_file}"], [])
    found = _beside(root if split == "all" else own[0], root)
    if not found.pairs:
        where = root if split == "all" else own[0]
        elsewhere = f" (but elsewhere in {root}: split 'all')" if split != "all" and _beside(root, root).pairs else ""
        hint = "state --list-file" if split == "all" else f"state --list-file or put {LISTS[split][0]} in {root}"
        raise DataError(f"no list, and no rgb_X.jpg with sync_depth_X.png in {where}{elsewhere}: {hint}")
    if split != "all":
        found.warnings.append(unlisted(root, split, len(found.pairs), PUBLISHED[split], LISTS[split][0]))
    return found


def _beside(folder: Path, root: Path) -> Found:
    """Every rgb_X below a folder with the sync_depth_X beside it."""
    files = sorted(path for path in walk(folder) if path.name.startswith(("rgb_", "sync_depth_")))
    depths = {path.with_suffix(""): path for path in files if path.name.startswith("sync_depth_") and path.suffix.lower() == ".png"}
    images = [path for path in files if path.name.startswith("rgb_")]
    partners = [
        (path, depths.pop(path.with_name(f"sync_depth_{path.stem.removeprefix('rgb_')}"), None))
        for path in images
        if path.suffix.lower() in ENDINGS
    ]
    alone = [path for path, depth in partners if depth is None] + sorted(depths.values())
    return Found(
        [(image, depth) for image, depth in partners if depth is not None],
        left_out("files have no partner beside them", alone, root),
        unread([path for path in images if path.suffix.lower() in UNREAD], root),
    )


class LabeledMat:
    """nyu_depth_v2_labeled.mat, an HDF5 file in MATLAB's order, read backwards.

    It holds images [N, 3, W, H] uint8 and, in float32 metres, rawDepths [N, W, H], as the sensor saw them, and depths [N, W, H], whose
    holes are filled in.
    The file is opened for each read: an open handle survives neither a fork nor pickling, and opening costs little beside decoding.

    Args:
        path: the file.
        kind: "raw" or "filled", which of the depths are read.

    Attributes:
        count: N, the number of images.
        size: (H, W) of every image.

    Raises:
        DataError: where it is another file, or h5py is not installed.
    """

    def __init__(self, path: Path, kind: str = "raw") -> None:
        self.path, self.key = path, MAT_DEPTHS[kind]
        try:
            with self._open() as file:
                images, depths = (_numbers(file, name) for name in ("images", self.key))
                other = kind == "raw" and "depths" in file and "rawDepths" not in file
        except DataError:
            raise
        except Exception as error:  # on damaged bytes h5py raises errors of many kinds
            raise DataError(f"{path} is damaged: HDF5 cannot read it") from error
        if len(images) != 4 or images[1] != 3 or depths != (images[0], *images[2:]) or images[0] > MOST_IMAGES:
            hint = "its in-painted depths are read with --nyu-depth filled" if other else "is it nyu_depth_v2_labeled.mat?"
            raise DataError(f"{path} has no arrays images [N, 3, W, H] and {self.key} [N, W, H]: {hint}")
        self.count, _, width, height = images
        check_pixels(height, width, f"{path}: an image")
        self.size = (height, width)

    def rows(self, split: str, splits_file: Path | None) -> list[int]:
        """Which images are a split.

        Args:
            split: "train", "test" or "all".
            splits_file: holds trainNdxs and testNdxs, which count from 1; None for the splits.mat beside the file.

        Returns:
            Numbers that count from 0.

        Raises:
            DataError: where the splits file is absent, another file, or names images that are not there.
        """
        if split == "all":
            return list(range(self.count))
        path = splits_file or self.path.with_name("splits.mat")
        if not path.is_file():
            raise DataError(f"no {path}: get splits.mat from the data set's page, or state it with --list-file")
        try:
            numbers = read_vectors(path)[f"{split}Ndxs"]
            rows = [int(number) - 1 for number in numbers]
        except (OSError, ValueError, KeyError, OverflowError, struct.error, zlib.error) as error:
            raise DataError(f"{path} has no {split}Ndxs: is it splits.mat?") from error
        if rows and not 0 <= min(rows) <= max(rows) < self.count:
            raise DataError(f"{path} names images beyond the {self.count} of {self.path}")
        return rows

    def read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """RGB [H, W, 3] uint8, its frame black, and depth [H, W] of one image. Raises DataError where the file is damaged."""
        top, bottom, left, right = FRAME
        rgb = self._array("images", row).transpose(2, 1, 0)
        framed = np.zeros(rgb.shape, np.uint8)
        framed[top:bottom, left:right] = rgb[top:bottom, left:right]
        return framed, self.depth(row)

    def depth(self, row: int) -> NDArray[np.float32]:
        """Depth [H, W] float32 metres (0 = none) of one image. Raises DataError where the file is damaged."""
        depth = self._array(self.key, row).T.astype(np.float32)
        return np.ascontiguousarray(np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0)))

    def _array(self, name: str, row: int) -> NDArray:
        try:
            with self._open() as file:
                return np.asarray(file[name][row])
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"cannot read image {row} of {self.path}: the file is damaged") from error

    def _open(self) -> h5py.File:
        """The file, open for reading."""
        try:
            import h5py  # optional: only this file needs it
        except ImportError as error:
            raise DataError(f"reading {self.path} needs h5py: pip install 'depthtokens[h5]'") from error
        try:
            return h5py.File(self.path, "r")
        except Exception as error:
            raise DataError(f"{self.path} is not the labelled NYUv2 file, or is damaged: HDF5 cannot open it") from error


def _numbers(file: h5py.File, name: str) -> tuple[int, ...]:
    """The shape of an array of numbers in an HDF5 file; () for anything else, also one that lies in another file or in large pieces."""
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return ()
    data = file[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind not in "uf" or data.dtype.itemsize > 8:
        return ()
    return () if math.prod(data.chunks or ()) * data.dtype.itemsize > LARGEST_PIECE else tuple(data.shape)
