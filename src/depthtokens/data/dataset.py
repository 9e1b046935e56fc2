"""The data set that all others are: pairs of an image file and a depth file, read, cropped, augmented and normalised."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Self, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, DepthTokensError, UsageError, unknown
from ..files import user_path
from .augment import Augmentation, apply
from .formats import file_digest, read_depth, relative
from .images import read_image, reading

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
    """

    spec: str
    name: str
    split: str
    list_file: str | None
    fingerprint: str
    depth_range: Sequence[float]
    depth_scale: float | None


class DepthDataset(Dataset[Sample]):
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

    Attributes:
        epoch: the epoch whose random views are drawn, 0 at first. Set it before an epoch's workers start: persistent workers keep the value
            that they started with.

    Raises:
        UsageError: where depth range, depth scale or seed make no sense.
        DataError: where there are no pairs, or files are absent (unless `allow_missing`).
    """

    NAME: ClassVar[str]
    """What the data set is called in `registry.READERS`."""
    NEEDS_FOLDER: ClassVar[bool] = True
    """Whether it is opened as "name:ROOT", and not by its name alone."""
    UNITS_STATED: ClassVar[bool] = False
    """Whether depth scale and depth range are for the user to state, since the data set does not fix them."""

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
        self.names = [relative(image, root) for image, _ in pairs] if names is None else list(names)
        self.name, self.split, self.root = name, split, root
        self.depth_range, self.depth_scale, self.eight_bit = (lo, hi), depth_scale, eight_bit
        self.eval_crop, self.fixed_crop = eval_crop, fixed_crop
        self.augment, self.seed, self.epoch = augment, seed, 0
        self.without_depth = without_depth
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
        if not cls.UNITS_STATED:
            for flag, value in (("depth-scale", options.pop("depth_scale", None)), ("depth-range", options.pop("depth_range", None))):
                if value is not None:
                    raise UsageError(f"--{flag} is for folder:ROOT only: {cls.NAME}'s is fixed")
        build: Callable[..., Self] = cls  # a subclass: its constructor takes a root, not pairs
        return build(root, split, **options)

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
        options: Opening = {"list_file": stated["list_file"]}
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
        """One pair after the fixed crop, before augmentation.

        Returns:
            RGB [H, W, 3] uint8, and depth [H, W] float32 metres, 0 = none.

        Raises:
            DataError: where a file cannot be read, or image and depth differ in size.
        """
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
        """SHA-256 of what `read` gives: it changes when data does, wherever the files lie, and knows no augmentation.

        Of every file it takes name, size and the first and last KiB, since to read the 48,000 of NYUv2 whole would take minutes: an image
        edited anew has another size. A .npy is read whole.

        Returns:
            64 hex digits.

        Raises:
            DataError: where a file is missing.
        """
        kind = (type(self).__name__, self.split, self.eval_crop, self.fixed_crop, self.depth_scale, self.depth_range)
        digest = hashlib.sha256(repr(kind).encode())
        known: dict[Path, bytes] = {}  # a .mat is every pair's only file
        for name, pair in zip(self.names, self.pairs, strict=True):
            digest.update(name.encode())
            for path in pair:
                if path not in known:
                    known[path] = file_digest(path)
                digest.update(relative(path, self.root).encode() + known[path])
        return digest.hexdigest()

    def missing(self) -> list[Path]:
        """Files of pairs that are not there."""
        return [path for index in range(len(self)) for path in self.absent(index)]

    def absent(self, index: int) -> list[Path]:
        """Files of one pair that are not there."""
        return [path for path in self.pairs[index] if not path.is_file()]

    def _load(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """One pair as its files hold it."""
        image, depth = self.pairs[index]
        return read_image(image), read_depth(depth, self.depth_scale, eight_bit=self.eight_bit)

    def _size(self, index: int) -> tuple[int, int]:
        """(H, W) of what `_load` gives."""
        path = self.pairs[index][0]
        with reading("image", path), Image.open(path) as image:
            return image.height, image.width

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
    if not path.is_dir() and not (may_be_file and path.is_file()):
        raise DataError(f"{path} is a file, not a folder" if path.exists() else f"no folder {path}")
    return path
