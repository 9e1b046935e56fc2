"""KITTI (Geiger et al. 2013) with annotated depth (Uhrig et al. 2017) in the split of Eigen et al. (2014)."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from ..errors import DataError
from .augment import KITTI as RECIPE
from .dataset import DepthDataset, check_root
from .find import Finder, Found, is_file, left_out, unlisted, visible
from .lists import find_list, read_list

LISTS = {
    split: (
        f"kitti_eigen_{split}_files_with_gt.txt",
        f"kitti_eigen_{split}_files_with_gt_shuffled.txt",
        f"eigen_{split}_files_with_gt.txt",
        f"kitti_eigen_{split}.txt",
    )
    for split in ("train", "test")
}
"""Usual names of the lists: AdaBins' and the authors', BTS's, and a short one."""
PAIRS = {"train": 23_158, "test": 652}
"""Pairs with depth in the published lists."""
PUBLISHED = "the lists are in the BTS and AdaBins repositories (train_test_inputs)"
BENCHMARK_CROP = (352, 1216)

_TEST_DRIVES = {
    "2011_09_26": "0002 0009 0013 0020 0023 0027 0029 0036 0046 0048 0052 0056 0059 0064 0084 0086 0093 0096 0101 0106 0117",
    "2011_09_28": "0002",
    "2011_09_29": "0071",
    "2011_09_30": "0016 0018 0027",
    "2011_10_03": "0027 0047",
}
TEST_DRIVES = frozenset(f"{date}_drive_{number}_sync" for date, numbers in _TEST_DRIVES.items() for number in numbers.split())
"""The 28 drives that Eigen et al. test on."""


class KITTI(DepthDataset):
    """KITTI: depth 16-bit PNG / 256, 0 = none, range 0.001-80 m; image and depth always cut to the benchmark crop 352x1216.

    Images lie in ROOT/raw/<date>/<drive>/image_02/data/*.png or .jpg (or without raw/), whichever of the two a list says; depth in
    ROOT/data_depth_annotated/<drive>/proj_depth/groundtruth/image_02/*.png, with or without train/ or val/ before <drive>, or without
    data_depth_annotated/. The pairs of a split are, in this order:

    - those of `list_file`, lines "image depth focal"; lines whose depth is None are left out and counted in `without_depth` (45 of
      Eigen's 697);
    - those of a list in ROOT under one of its usual names (`LISTS`);
    - every left-camera pair found, sorted by path: "test" = those of Eigen's 28 test drives, "train" = all others. This is not the
      published choice of frames: results to compare with published ones need the lists.

    Args:
        root: the folder.
        split: "train", "test" or "all".
        list_file: a list of pairs.
        augment: hand out random views by the released recipe (`augment.KITTI`).
        crop: (height, width) of the recipe's random crop instead of 352x704.
        seed: of the random views.
        allow_missing: keep pairs whose files are absent.

    Raises:
        UsageError: where the split is unknown, or crop or seed make no sense.
        DataError: where listed files are absent (unless `allow_missing`), or there are no pairs.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as root:
        ...     drive = "2011_09_26_drive_0002_sync"
        ...     images = Path(root, "raw", "2011_09_26", drive, "image_02", "data")
        ...     depths = Path(root, "data_depth_annotated", drive, "proj_depth", "groundtruth", "image_02")
        ...     for folder in (images, depths):
        ...         folder.mkdir(parents=True)
        ...     Image.new("RGB", (1242, 375)).save(images / "0000000005.png")
        ...     Image.new("I;16", (1242, 375), 256 * 20).save(depths / "0000000005.png")  # 1/256 m
        ...     sample = KITTI(root, "test")[0]
        >>> sample.image.shape, sample.depth.max()
        (torch.Size([3, 352, 1216]), tensor(20.))
    """

    NAME: ClassVar = "kitti"

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
    ) -> None:
        root = check_root(root, split)
        list_path = None if list_file is None else Path(list_file)
        if list_path is None:
            list_path = find_list(root, LISTS.get(split, ()))
        lines = [] if list_path is None else read_list(list_path)
        with_depth = [(image, depth) for image, depth in lines if depth != "None"]
        if list_path is None:
            found = _tree_pairs(root, split)
        else:
            found = Found(_listed_pairs(root, with_depth), [f"pairs listed in {list_path}"], [])
        super().__init__(
            found.pairs,
            name=self.NAME,
            split=split,
            root=root,
            depth_range=(0.001, 80.0),
            depth_scale=256,
            eval_crop="garg",
            fixed_crop=BENCHMARK_CROP,
            augment=RECIPE.with_crop(crop) if augment else None,
            seed=seed,
            without_depth=len(lines) - len(with_depth),
            allow_missing=allow_missing,
            notes=found.notes,
            warnings=found.warnings,
        )


def _image_folders(root: Path) -> list[Path]:
    """Where images may lie."""
    return [folder for folder in (root / "raw", root) if folder.is_dir()]


def _depth_folders(root: Path) -> list[Path]:
    """Where depth maps may lie."""
    parents = (root / "data_depth_annotated", root)
    return [folder for parent in parents for folder in (parent, parent / "train", parent / "val") if folder.is_dir()]


def _listed_pairs(root: Path, lines: list[tuple[str, str]]) -> list[tuple[Path, Path]]:
    """The files that a list names, where they lie in this tree."""
    find_image, find_depth = Finder(_image_folders(root)), Finder(_depth_folders(root))
    return [(find_image(image, _other_suffix(image)), find_depth(depth)) for image, depth in lines]


def _other_suffix(image: str) -> str:
    """The name of the same image as .jpg instead of .png, or the reverse."""
    path = PurePosixPath(image)
    return str(path.with_suffix(".jpg" if path.suffix.lower() == ".png" else ".png"))


def _tree_pairs(root: Path, split: str) -> Found:
    """Every left-camera pair of a split, by its drive."""
    find_image = Finder(_image_folders(root))
    found: dict[str, dict[Path, Path]] = {"train": {}, "test": {}}
    alone: dict[str, list[Path]] = {"train": [], "test": []}
    for folder in _depth_folders(root):
        for drive in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            part = "test" if drive.name in TEST_DRIVES else "train"
            for depth in visible(drive / "proj_depth/groundtruth/image_02"):
                if depth.suffix.lower() == ".png":
                    # A drive's name begins with its date, under which the raw images lie.
                    frame = f"{drive.name[:10]}/{drive.name}/image_02/data/{depth.stem}"
                    image = find_image(*(f"{frame}{suffix}" for suffix in (".png", ".jpg", ".jpeg")))
                    if is_file(image):
                        found[part].setdefault(image, depth)
                    else:
                        alone[part].append(depth)
    pairs = sorted((found["train"] | found["test"] if split == "all" else found[split]).items())
    if not pairs:
        others = [f"{len(pairs)} pairs of '{name}'" for name, pairs in found.items() if pairs]
        what = f"only {others[0]}" if others else "no raw/<date>/<drive>/image_02/data with data_depth_annotated/<drive>"
        hint = "state --list-file" if split == "all" else f"state --list-file or put {LISTS[split][0]} in {root}"
        raise DataError(f"no pairs for split '{split}' in {root}, {what}: {hint}; {PUBLISHED}")
    without = alone["train"] + alone["test"] if split == "all" else alone[split]
    warnings = [] if split == "all" else [unlisted(root, split, len(pairs), PAIRS[split], LISTS[split][0])]
    return Found(pairs, left_out("depth maps have no image", without, root), warnings)
