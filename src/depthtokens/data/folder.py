"""Anybody's own images and depth maps, in plain folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypedDict

from ..errors import DataError, UsageError
from ..files import user_path
from .augment import FOLDER
from .dataset import DepthDataset, check_root
from .find import Finder, Found, left_out, relative, spelling, unread, walk
from .formats import DEPTH_ENDINGS
from .images import ENDINGS, UNREAD
from .lists import read_table, read_text

SETTINGS = "depthtokens.json"


class Folder(DepthDataset):
    """Images (`images.FORMATS`) with depth maps (PNG, .npy, .npz with one array or one called "depth") in one of two layouts.

    - ROOT/train/images/, ROOT/train/depth/ and the same under ROOT/test/: files of one stem are a pair, in subfolders too; the depth map's
      may end in _depth, and x_mask.npy beside x.npy is 0 where depth does not count;
    - ROOT/images/, ROOT/depth/ and lists ROOT/train.csv, ROOT/test.csv with the header "image,depth", paths relative to ROOT or absolute.

    Hidden files are skipped; photos that cannot be read and depth maps without image are counted in `warnings` and `notes`.
    ROOT/images with ROOT/depth and no lists, files of one stem being a pair, has "all" only, so that nobody tests on training images
    without knowing. ROOT/depthtokens.json, {"depth_scale": 1000, "depth_range": [0.5, 10]}, may state the folder's scale and range; an
    argument goes before it. OpenEXR is not supported: convert it to .npy.

    Args:
        root: the folder.
        split: "train", "test" or "all" (both).
        list_file: a CSV as above, used instead.
        depth_scale: units per metre, needed for PNG of 16 or 8 bits (1000 for millimetres, 256 for KITTI's); arrays are metres unless it is
            given.
        depth_range: (lo, hi) in metres, (0.001, 10.0) where nothing states it. Depth outside it is no depth.
        augment: hand out random views: NYUv2's rotation, flip and colours, without its pre-crop (`augment.FOLDER`).
        crop: (height, width) of the views' random crop, None for whole images.
        seed: of the random views.
        allow_missing: keep pairs whose files are absent.

    Raises:
        UsageError: where the split is unknown, the scale is needed, or another argument makes no sense.
        DataError: where files are absent (unless `allow_missing`), or there is no such split.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for kind in ("images", "depth"):
        ...         Path(root, "test", kind).mkdir(parents=True)
        ...     Image.new("RGB", (64, 48)).save(Path(root, "test", "images", "a.png"))
        ...     np.save(Path(root, "test", "depth", "a.npy"), np.full((48, 64), 2.0, np.float32))  # metres
        ...     sample = Folder(root, "test")[0]
        >>> sample.image.shape, sample.depth.shape, sample.depth.max()
        (torch.Size([3, 48, 64]), torch.Size([1, 48, 64]), tensor(2.))
    """

    NAME: ClassVar = "folder"
    UNITS_STATED: ClassVar = True
    TAKES: ClassVar = frozenset({"depth_scale", "depth_range"})

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        list_file: str | Path | None = None,
        *,
        depth_scale: float | None = None,
        depth_range: tuple[float, float] | None = None,
        augment: bool = False,
        crop: tuple[int, int] | None = None,
        seed: int = 42,
        allow_missing: bool = False,
    ) -> None:
        root = check_root(root, split)
        settings = _settings(root)
        if depth_scale is None:
            depth_scale = settings.get("depth_scale")
        if depth_range is None:
            depth_range = settings.get("depth_range", (0.001, 10.0))
        pairs, notes, warnings = _pairs(root, split, None if list_file is None else Path(list_file))
        image_only = next((depth for _, depth in pairs if depth.suffix.lower() == ".png"), None)
        if depth_scale is None and image_only is not None:
            raise UsageError(f"{image_only} does not say its unit: state --depth-scale (1000 for millimetres, 256 for KITTI's)")
        super().__init__(
            pairs,
            name=self.NAME,
            split=split,
            root=root,
            depth_range=depth_range,
            depth_scale=depth_scale,
            eight_bit=True,
            augment=FOLDER.with_crop(crop) if augment else None,
            seed=seed,
            allow_missing=allow_missing,
            notes=notes,
            warnings=warnings,
            reads=("truth in range",),
        )

    @classmethod
    def stated(cls, root: str) -> Mapping[str, Any]:
        """See `DepthDataset.stated`: what ROOT/depthtokens.json says."""
        return dict(_settings(user_path(root)))


class _Settings(TypedDict, total=False):
    """What ROOT/depthtokens.json may state."""

    depth_scale: float
    depth_range: tuple[float, float]


def _settings(root: Path) -> _Settings:
    """What the folder states about its depth files."""
    path = root / SETTINGS
    if not path.is_file():
        return {}
    try:
        stated = dict(json.loads(read_text(path)))
        settings: _Settings = {}
        if any(isinstance(value, bool) for value in stated.values()):
            raise TypeError("true and false are no numbers")
        if "depth_scale" in stated:
            settings["depth_scale"] = float(stated["depth_scale"])
        if "depth_range" in stated:
            lo, hi = stated["depth_range"]
            settings["depth_range"] = (float(lo), float(hi))
        return settings
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f'{path} should be like {{"depth_scale": 1000, "depth_range": [0.5, 10]}}') from error


def _pairs(root: Path, split: str, list_file: Path | None) -> Found:
    """The pairs of a split, in whichever layout the folder has."""
    splits = ("train", "test") if split == "all" else (split,)
    if list_file is not None:
        return _listed(root, [list_file])
    nested = [root / name for name in splits if (root / name / "images").is_dir()]
    if nested:
        return _equal_stems(root, nested)
    lists = [root / f"{name}.csv" for name in splits if (root / f"{name}.csv").is_file()]
    if lists:
        return _listed(root, lists)
    if not (root / "images").is_dir():
        raise DataError(f"no {splits[0]}/images with {splits[0]}/depth, nor images with depth and {splits[0]}.csv, in {root}")
    if split != "all":
        hint = f"add {split}.csv (header image,depth), state --list-file, or ask for split 'all'"
        raise DataError(f"{root} has images but no {split} split: {hint}")
    return _equal_stems(root, [root])


def _listed(root: Path, lists: list[Path]) -> Found:
    """The pairs that CSVs name."""
    find = Finder([root])
    return Found([(find(image), find(depth)) for path in lists for image, depth in read_table(path)], [], [])


def _equal_stems(root: Path, folders: list[Path]) -> Found:
    """Each file in images/ with the one of its stem in depth/."""
    pairs: list[tuple[Path, Path]] = []
    alone: list[Path] = []
    others: list[Path] = []
    for folder in folders:
        images: list[tuple[str, Path]] = []
        for path in sorted(walk(folder / "images")):
            if path.suffix.lower() in ENDINGS:
                images.append((_stem(path, folder / "images"), path))
            elif path.suffix.lower() in UNREAD:
                others.append(path)
        depths = _depths(folder / "depth", {stem for stem, _ in images})
        used = {stem: next((name for name in (stem, f"{stem}_depth") if name in depths), None) for stem, _ in images}
        # An image without depth stays in, with a name that is not there, so that it is reported as missing.
        pairs += [(path, depths[name] if (name := used[stem]) else folder / "depth" / f"{stem}.*") for stem, path in images]
        alone += [path for name, path in depths.items() if name not in used.values()]
    return Found(pairs, left_out("depth maps have no image", alone, root), unread(others, root))


def _depths(folder: Path, images: set[str]) -> dict[str, Path]:
    """The depth maps of a folder by stem; masks that lie beside them are none."""
    found: dict[str, list[Path]] = {}
    for path in sorted(walk(folder)):
        found.setdefault(_stem(path, folder), []).append(path)
    depths: dict[str, Path] = {}
    for stem, paths in found.items():
        if stem.endswith("_mask") and stem.removesuffix("_mask") in found and stem not in images:
            continue
        # Other files of that stem may be anything; alone, they are told apart when they are read.
        readable = [path for path in paths if path.suffix.lower() in DEPTH_ENDINGS] or paths[:1]
        if len(readable) > 1:
            raise DataError(f"two depth maps for one image in {readable[0].parent}: {readable[0].name} and {readable[1].name}")
        depths[stem] = readable[0]
    return depths


def _stem(path: Path, folder: Path) -> str:
    """What a pair's files have in common: their path in their folder, without ending, in one spelling."""
    return spelling(relative(path.with_suffix(""), folder))
