"""The data set that all others are: pairs of an image file and a depth file, read, cropped, augmented and normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NotRequired, Self, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, DepthTokensError, UsageError, unknown
from ..files import user_path
from ..summary import Summarised, Summary
from .augment import Augmentation, apply
from .find import is_file, is_folder, relative
from .formats import file_digest, mask_beside, read_depth
from .images import read_header, read_image

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SPLITS = ("train", "test", "all")


class Sample(NamedTuple):
    """One pair, or a batch of them after collation.

    Attributes:
        image: [3, H, W] float32 RGB, normalised with ImageNet's mean and standard deviation (the released recipe, not CLIP's).
        depth: [1, H, W] float32 metres, 0 = no ground truth.
        index: position in the data set.
    """

    image: Tensor
    depth: Tensor
    index: int  # type: ignore[assignment]  # the field hides tuple.index, which nobody needs here


class Opening(TypedDict, total=False):
    """How a data set is to be opened; `open_dataset` says what each option means."""

    list_file: str | Path | None
    augment: bool
    crop: tuple[int, int] | None
    seed: int
    depth_scale: float | None
    depth_range: tuple[float, float] | None
    allow_missing: bool
    nyu_depth: str | None


OPTIONS = {"depth_scale": "folder:ROOT", "depth_range": "folder:ROOT", "nyu_depth": "nyu:FILE.mat"}
"""Options of `Opening` that are not for every data set, and for which they are."""


class Stated(TypedDict):
    """What a store of patch features keeps about the data it was made from.

    Attributes:
        spec: "nyu:/data/nyu", as `DepthDataset.spec`.
        name: the data set's name in `READERS`.
        split: "train", "test" or "all".
        list_file: an absolute path, None where none was given.
        fingerprint: `DepthDataset.fingerprint` when the store was made.
        depth_range: lo and hi in metres.
        depth_scale: depth file units per metre, None where files hold metres.
        options: `DepthDataset.options`, left out where there are none.
    """

    spec: str
    name: str
    split: str
    list_file: str | None
    fingerprint: str
    depth_range: Sequence[float]
    depth_scale: float | None
    options: NotRequired[dict[str, Any]]


class DepthDataset(Summarised, Dataset[Sample]):
    """A list of pairs of an image and its depth; `self[i]` is a `Sample`.

    To add a data set, write a subclass whose constructor takes `(root, split, list_file, *, augment, crop, seed, allow_missing)`, and name
    it in `registry.READERS`.

    Args:
        pairs: (image file, depth file) of each.
        name: the data set's name.
        split: which part of the data set the pairs are: "train", "test" or "all".
        root: the folder that names are relative to.
        depth_range: (lo, hi) in metres.
        names: what each pair is called; the image files relative to `root`, unless given.
        depth_scale: depth file units per metre, None where files hold metres.
        eight_bit: accept 8-bit depth images.
        eval_crop: name of the crop that evaluation uses, "eigen" or "garg"; None for the whole image.
        fixed_crop: (height, width) that is cut at the bottom, horizontally centred, from image and depth of every pair.
        augment: how random views are drawn, None for the images as they are. A view depends on seed, epoch and index alone, so that worker
            processes and resumed runs see the same ones.
        seed: of the random views.
        without_depth: how many listed images were left out because the list names no depth for them.
        allow_missing: keep pairs whose files are absent.
        notes: what a person should know of these pairs: which list, which ground truth, what was left out.
        warnings: what may be wrong with them: no published list, photos that cannot be read.
        options: options of `open_dataset` beyond the usual ones that this data set was opened with, and is to be opened with again.
        reads: what else decides what is read; part of the fingerprint.

    Raises:
        UsageError: where depth range, depth scale or seed make no sense.
        DataError: where there are no pairs, or files are absent (unless `allow_missing`).
    """

    NAME: ClassVar[str]
    """What the data set is called in `registry.READERS`."""
    NEEDS_FOLDER: ClassVar[bool] = True
    """Whether it is opened as "name:ROOT", and not by its name alone."""
    UNITS_STATED: ClassVar[bool] = False
    """Whether depth scale and depth range are for the user to state, since the data set does not fix them. Truth outside the stated range
    is no truth then; a published data set's is what its published mask says."""
    TAKES: ClassVar[frozenset[str]] = frozenset()
    """Which of the `OPTIONS` the data set takes."""

    in_painted: bool | None = None
    """Whether holes of the truth were filled in; None where only a look at it can tell."""

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
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        reads: tuple[str, ...] = (),
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
        self.names = [relative(image, root) for image, _ in pairs] if names is None else list(names)
        self.name, self.split, self.root = name, split, root
        self.depth_range, self.depth_scale, self.eight_bit = (lo, hi), depth_scale, eight_bit
        self.eval_crop, self.fixed_crop = eval_crop, fixed_crop
        self.augment, self.seed = augment, seed
        self.without_depth = without_depth
        self.notes, self.warnings = list(notes), list(warnings)
        self.options, self._reads = dict(options or {}), reads
        if not allow_missing:
            missing = [relative(path, root) for path in self.missing()]
            if missing:
                first = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
                raise DataError(f"{len(missing)} of {2 * len(self.pairs)} files are not in {root}: {first}")

    @classmethod
    def open(cls, root: str, split: str, **options: Unpack[Opening]) -> Self:
        """Open the data set by what follows its name in "name:ROOT".

        Args:
            root: the folder; "" where only the name was given.
            split: "train", "test" or "all".
            **options: as `open_dataset` takes them.

        Raises:
            UsageError: where an option is not for this data set.
            DataError: where something is wrong with the data.
        """
        build: Callable[..., Self] = cls  # a subclass: its constructor takes a root, not pairs
        return build(root, split, **cls.taken(options))

    @classmethod
    def taken(cls, options: Opening) -> dict[str, Any]:
        """The options without those that are not for this data set. Raises UsageError where one of them is given."""
        given: dict[str, Any] = dict(options)
        for name in OPTIONS.keys() - cls.TAKES:
            if given.pop(name, None) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for {OPTIONS[name]} only: {cls.NAME}'s is fixed")
        return given

    @classmethod
    def stated(cls, root: str) -> Mapping[str, Any]:
        """What the data says of its own units: `depth_scale` and `depth_range`, where it does. Raises DataError where that is damaged."""
        return {}

    @classmethod
    def unchanged(cls, stated: Stated, images: int) -> str:
        """Whether the data that a store of patch features was made from is still the same.

        Args:
            stated: what the store keeps about its data.
            images: how many images it holds.

        Returns:
            "unchanged", or "not opened (reason)" where it cannot be told.

        Raises:
            DataError: where the data has changed.
        """
        options: Opening = {"list_file": stated["list_file"], **stated.get("options", {})}  # type: ignore[typeddict-item]
        if cls.UNITS_STATED:
            lo, hi = stated["depth_range"]
            options |= {"depth_scale": stated["depth_scale"], "depth_range": (lo, hi)}
        try:
            found = cls.open(stated["spec"].partition(":")[2], stated["split"], **options).fingerprint()
        except DepthTokensError as error:
            return f"not opened ({error})"
        if found != stated["fingerprint"]:
            raise DataError(f"{stated['spec']} '{stated['split']}' has changed since it was made")
        return "unchanged"

    def summary(self) -> Summary:
        """What the data set is, in a few lines."""
        lo, hi = self.depth_range
        rows = [
            ("folder", self.root),
            ("depth", f"{lo:g} to {hi:g} m"),
            ("views", "random" if self.augment else "plain images"),
            *(("note", note) for note in self.notes[:5]),
            *(("warning", warning) for warning in self.warnings[:5]),
        ]
        return Summary(f"{type(self).__name__}, {self.split}: {len(self)} images", rows)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        return self.view(index)

    def view(self, index: int, draw: int = 0) -> Sample:
        """One pair as it is shown.

        Args:
            index: which pair.
            draw: which random view, where the data set is opened with `augment`: the same seed, draw and index are the same view. Training
                shows draw k in epoch k.

        Raises:
            DataError: as `read`, and where the image is smaller than the views' crop.
        """
        index = range(len(self))[index]
        rgb, depth = self.read(index)
        if self.augment is None:
            image = rgb.astype(np.float32) / np.float32(255)
        else:
            try:
                image, depth = apply(self.augment, rgb, depth, np.random.default_rng([self.seed, draw, index]))
            except DataError as error:
                raise DataError(f"{self.names[index]}: {error}") from None
        return Sample(normalise(image), torch.from_numpy(depth)[None], index)

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One pair after the fixed crop, before augmentation.

        Returns:
            RGB [H, W, 3] uint8, upright, and depth [H, W] float32 metres, 0 = none; also 0 outside the depth range, where that is the
            user's to state (`UNITS_STATED`).

        Raises:
            DataError: where a file cannot be read, or image and depth differ in size.
        """
        rgb, depth = self.stored(index)
        if self.UNITS_STATED:
            depth[~self.in_range(depth)] = 0
        return rgb, depth

    def stored(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """As `read`, with all depth that the file holds, inside the depth range or not."""
        rgb, depth = self._load(index)
        if rgb.shape[:2] != depth.shape:
            raise DataError(self._sizes_differ(index, (rgb.shape[0], rgb.shape[1]), (depth.shape[0], depth.shape[1])))
        rows_columns = self._kept(index, *depth.shape)
        if rows_columns is not None:
            # A copy: the view would keep the whole image alive.
            rgb, depth = rgb[rows_columns].copy(), depth[rows_columns].copy()
        return rgb, depth

    def truth(self, index: int) -> NDArray[np.float32]:
        """The depth of `stored`, [H, W] float32 metres, 0 = none; the image is not read.

        Raises:
            DataError: where the depth file cannot be read.
        """
        depth = self._truth(index)
        rows_columns = self._kept(index, *depth.shape)
        return depth if rows_columns is None else depth[rows_columns]

    def cut(self, index: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of what pair `index` shows: one in the size of the stored image gets the fixed crop, any other is of the crop already."""
        rows_columns = self._kept(index, *values.shape) if self.fixed_crop and values.shape == self._size(index) else None
        return values if rows_columns is None else values[rows_columns]

    def in_range(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where depth lies in the depth range, as evaluation counts it: lo < depth <= hi."""
        lo, hi = self.depth_range
        inside: NDArray[np.bool_] = (depth > lo) & (depth <= hi)
        return inside

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

    def orientation(self, index: int) -> int:
        """The EXIF orientation by which an image is turned upright, 1 where it is stored so. Raises DataError as `image_size`."""
        return read_header(self.pairs[index][0]).orientation

    def fingerprint(self) -> str:
        """SHA-256 of what `read` gives: it changes when data does, wherever the files lie, and knows no augmentation.

        Of every compressed file it takes name, size and the first and last KiB, since to read the 48,000 of NYUv2 whole would take minutes:
        an image edited anew has another size. Files whose size does not follow their content are read whole.

        Returns:
            64 hex digits.

        Raises:
            DataError: where a file is missing.
        """
        kind = (type(self).__name__, self.split, self.eval_crop, self.fixed_crop, self.depth_scale, self.depth_range, *self._reads)
        digest = hashlib.sha256(repr(kind).encode())
        known: dict[Path, bytes] = {}  # a .mat is every pair's only file
        for name, pair in zip(self.names, self.pairs, strict=True):
            digest.update(name.encode())
            for path in pair:
                if path not in known:
                    known[path] = file_digest(path)
                digest.update(relative(path, self.root).encode() + known[path])
                if (mask := mask_beside(path)) is not None:
                    digest.update(b"mask" + file_digest(mask))
        return digest.hexdigest()

    def missing(self) -> list[Path]:
        """Files of pairs that are not there."""
        return [path for index in range(len(self)) for path in self.absent(index)]

    def absent(self, index: int) -> list[Path]:
        """Files of one pair that are not there."""
        return [path for path in self.pairs[index] if not is_file(path)]

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One pair as its files hold it."""
        image, depth = self.pairs[index]
        return read_image(image), read_depth(depth, self.depth_scale, eight_bit=self.eight_bit)

    def _truth(self, index: int) -> NDArray[np.float32]:
        """The depth of what `_load` gives."""
        return read_depth(self.pairs[index][1], self.depth_scale, eight_bit=self.eight_bit)

    def _size(self, index: int) -> tuple[int, int]:
        """(H, W) of what `_load` gives."""
        header = read_header(self.pairs[index][0])
        return header.height, header.width

    def _sizes_differ(self, index: int, image: tuple[int, int], depth: tuple[int, int]) -> str:
        """What to do where image and depth map differ in size."""
        name, shown = self.names[index], "{}x{}".format
        if image == depth[::-1] and (code := self.orientation(index)) >= 5:
            turned = f"{name} is {shown(*image)} upright, as its EXIF orientation {code} says"
            return f"{turned}, but its depth map is {shown(*depth)}: store depth upright, or take the orientation out of the image"
        advice = "they must be of one size: resize the image to its depth map's"
        return f"{name} is {shown(*image)} but its depth map is {shown(*depth)}: {advice}"

    def _kept(self, index: int, height: int, width: int) -> tuple[slice, slice] | None:
        """Rows and columns of the fixed crop, None for all."""
        if self.fixed_crop is None:
            return None
        top, left = self._corner(index, height, width)
        return slice(top, top + self.fixed_crop[0]), slice(left, left + self.fixed_crop[1])

    def _corner(self, index: int, height: int, width: int) -> tuple[int, int]:
        """Top and left of the fixed crop in an image of this size."""
        assert self.fixed_crop is not None
        top, left = height - self.fixed_crop[0], (width - self.fixed_crop[1]) // 2
        if top < 0 or left < 0:
            crop = f"{self.fixed_crop[0]}x{self.fixed_crop[1]}"
            raise DataError(f"{self.names[index]} is {height}x{width}, smaller than {self.name}'s fixed crop {crop}")
        return top, left


def normalise(image: NDArray[np.float32]) -> Tensor:
    """RGB [H, W, 3] in 0..1 -> normalised float32 tensor [3, H, W]."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)))


def check_root(root: str | Path, split: str, *, may_be_file: bool = False) -> Path:
    """The root of a data set as a path.

    Args:
        root: as a person writes it, ~ included.
        split: is checked as well.
        may_be_file: accept a file, not only a folder.

    Raises:
        UsageError: where the split is unknown.
        DataError: where the root is not there, or not a folder.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    path = user_path(root)
    if not is_folder(path) and not (may_be_file and is_file(path)):
        raise DataError(f"{path} is a file, not a folder" if is_file(path) else f"no folder {path}")
    return path
