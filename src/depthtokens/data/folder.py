"""Anybody's own images and depth maps, in plain folders."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import ClassVar, TypedDict

from ..errors import DataError, UsageError
from .augment import FOLDER
from .dataset import DepthDataset, check_root
from .formats import read_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
SETTINGS = "depthtokens.json"


class Folder(DepthDataset):
    """Images (PNG, JPEG, TIFF) with depth maps (PNG, .npy, .npz with one array or one called "depth") in one of two layouts.

      ROOT/train/images/, ROOT/train/depth/ and the same under ROOT/test/: files of one stem are a pair;
      ROOT/images/, ROOT/depth/ and lists ROOT/train.csv, ROOT/test.csv with the header "image,depth", paths relative to ROOT.
    ROOT/images with ROOT/depth and no lists, files of one stem being a pair, has "all" only, so that nobody tests on training images
    without knowing. ROOT/depthtokens.json, {"depth_scale": 1000, "depth_range": [0.5, 10]}, may state the folder's scale and range; an
    argument goes before it. OpenEXR is not supported: convert it to .npy.

    Args:
        root: the folder.
        split: "train", "test" or "all" (both).
        list_file: a CSV as above, used instead.
        depth_scale: units per metre, needed for PNG of 16 or 8 bits (1000 for millimetres, 256 for KITTI's); arrays are metres unless it is
            given.
        depth_range: (lo, hi) in metres, (0.001, 10.0) where nothing states it.
        augment: hand out random views: NYUv2's rotation, flip and colours, without its pre-crop (`augment.FOLDER`).
        crop: (height, width) of the views' random crop, None for whole images.
        seed: of the random views.
        allow_missing: keep pairs whose files are absent.

    Raises:
        UsageError: where the split is unknown, the scale is needed, or another argument makes no sense.
        DataError: where files are absent (unless `allow_missing`), or there is no such split.
    """

    NAME: ClassVar = "folder"
    UNITS_STATED: ClassVar = True

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
        pairs = _pairs(root, split, None if list_file is None else Path(list_file))
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
        )


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
        stated = dict(json.loads(path.read_text(encoding="utf-8")))
        settings: _Settings = {}
        if "depth_scale" in stated:
            settings["depth_scale"] = float(stated["depth_scale"])
        if "depth_range" in stated:
            lo, hi = stated["depth_range"]
            settings["depth_range"] = (float(lo), float(hi))
        return settings
    except (ValueError, TypeError) as error:
        raise DataError(f'{path} should be like {{"depth_scale": 1000, "depth_range": [0.5, 10]}}') from error


def _pairs(root: Path, split: str, list_file: Path | None) -> list[tuple[Path, Path]]:
    """The pairs of a split, in whichever layout the folder has."""
    splits = ("train", "test") if split == "all" else (split,)
    if list_file is not None:
        return _listed(root, list_file)
    nested = [root / name for name in splits if (root / name / "images").is_dir()]
    if nested:
        return [pair for folder in nested for pair in _equal_stems(folder)]
    lists = [root / f"{name}.csv" for name in splits if (root / f"{name}.csv").is_file()]
    if lists:
        return [pair for path in lists for pair in _listed(root, path)]
    if not (root / "images").is_dir():
        raise DataError(f"no {splits[0]}/images with {splits[0]}/depth, nor images with depth and {splits[0]}.csv, in {root}")
    if split != "all":
        hint = f"add {split}.csv (header image,depth), state --list-file, or ask for split 'all'"
        raise DataError(f"{root} has images but no {split} split: {hint}")
    return _equal_stems(root)


def _listed(root: Path, path: Path) -> list[tuple[Path, Path]]:
    """The pairs that a CSV names."""
    rows = list(csv.DictReader(read_text(path).splitlines(), skipinitialspace=True))
    if not rows or any(not row.get("image") or not row.get("depth") for row in rows):
        raise DataError(f"{path} should be a CSV with the header image,depth and two paths in each line")
    return [(root / row["image"], root / row["depth"]) for row in rows]


def _equal_stems(folder: Path) -> list[tuple[Path, Path]]:
    """Each file in images/ with the one of its stem in depth/."""
    depths: dict[str, Path] = {}
    for path in sorted((folder / "depth").glob("[!.]*")):
        if path.stem in depths:
            raise DataError(f"two depth maps for one image in {path.parent}: {depths[path.stem].name} and {path.name}")
        depths[path.stem] = path
    images = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    # An image without depth stays in, with a name that is not there, so that it is reported as missing.
    return [(image, depths.get(image.stem, folder / "depth" / f"{image.stem}.*")) for image in images]
