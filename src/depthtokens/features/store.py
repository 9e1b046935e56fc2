"""Reading a store of patch features: what it holds, whether it is the one that is wanted, and the features themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..clip.load import FrozenCLIP
from ..data import dataset_class
from ..data.dataset import DepthDataset
from ..errors import DataError, UsageError
from ..files import size_text, user_path
from ..progress import Progress, silent
from ..summary import Summarised, Summary
from .meta import read_meta
from .shard import Shard
from .views import Views, plain


class FeatureStore(Summarised):
    """Patch features and ground truth of a data set's views, memory-mapped from a folder that `write.write` made.

    Each shard's checksum is compared when the process first reads from it.

    Attributes:
        path: the folder.
        meta: content of its meta.json.
        views: which views of each image are stored.
        modes: the ways to read patch features that are stored.
        names: of the images, as the data set gives them.
        images: number of images.
        data: the data set, as "name:ROOT".
        dataset_name: name of the data set.
        split: of the data set.
        depth_range: (lo, hi) metres, of the data set.
        eval_crop: name of the data set's evaluation crop, None for none.
        image_sizes: (H, W) of each image's ground truth.
        image_height: of the data set's first image, before any crop, pixels.
        fingerprint: of the CLIP.
        data_fingerprint: of the data.
        bytes: size of all shards.

    Args:
        path: the folder.

    Raises:
        DataError: for a folder that holds no finished store of this version, or lacks a shard.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self.meta = read_meta(self.path)
        data = self.meta["data"]
        self.views = Views.from_dict(self.meta["views"])
        self.modes: tuple[str, ...] = tuple(self.meta["modes"])
        self.names: list[str] = self.meta["names"]
        self.images = len(self.names)
        self.data: str = data["spec"]
        self.dataset_name: str = data["name"]
        self.split: str = data["split"]
        self.depth_range: tuple[float, float] = (data["depth_range"][0], data["depth_range"][1])
        self.eval_crop: str | None = data["eval_crop"]
        self.image_sizes: list[tuple[int, int]] = [(h, w) for h, w in self.meta["image_sizes"]]
        self.image_height: int = self.meta["image_height"]
        self.fingerprint: str = self.meta["clip"]["fingerprint"]
        self.data_fingerprint: str = data["fingerprint"]
        self.bytes = sum(shard["bytes"] for shard in self.meta["shards"])
        self._shards = [Shard(self.path / s["file"], s["sha256"], self.views, data["depth_scale"]) for s in self.meta["shards"]]
        for shard, stated in zip(self._shards, self.meta["shards"], strict=True):
            if wrong := wrong_size(shard.path, stated["bytes"]):
                raise DataError(f"{wrong}: make it again with the same `depthtokens features` command")

    def __len__(self) -> int:
        return self.images

    def summary(self) -> Summary:
        """What the store holds, in a few lines."""
        mirrored = " and their mirror images" if self.views.mirrored else ""
        rows = [
            ("folder", self.path),
            ("data", f"{self.data}, {self.split}, {self.depth_range[0]:g} to {self.depth_range[1]:g} m"),
            ("views", f"{self.views.count} of each image{mirrored}"),
            ("modes", ", ".join(self.modes)),
            ("CLIP", self.fingerprint[:12]),
            ("size", size_text(self.bytes)),
        ]
        return Summary(f"FeatureStore of {self.images} images", rows)

    def __reduce__(self) -> tuple[type[FeatureStore], tuple[Path]]:
        return FeatureStore, (self.path,)  # a pickled memory map would carry all it shows

    def expect(
        self,
        *,
        clip: FrozenCLIP | None = None,
        mode: str | None = None,
        dataset: DepthDataset | None = None,
        views: Views | None = None,
        precision: str | None = None,
    ) -> None:
        """Check that the store is the one that is wanted. What is None is not looked at.

        Args:
            clip: that must have computed the features.
            mode: that must be stored.
            dataset: that the images must come from.
            views: that must be stored; the store may hold extra random views or mirror images.
            precision: that the image tower must have run in.

        Raises:
            DataError: saying what differs.
        """
        if clip is not None and clip.fingerprint != self.fingerprint:
            theirs, ours = f"{self.meta['clip']['name']}, {self.fingerprint[:12]}", f"{clip.name}, {clip.fingerprint[:12]}"
            raise DataError(f"{self.path} was made by another CLIP ({theirs}) than this one ({ours}): make one with it, or give --clip")
        if mode is not None and mode not in self.modes:
            raise DataError(f"{self.path} holds dense {' and '.join(self.modes)}, not {mode}: make one with --dense {mode}")
        if precision is not None and precision != self.meta["precision"]:
            raise DataError(f"{self.path} was computed in {self.meta['precision']}, not {precision}: make one in it, or give --precision")
        if views is not None:
            self._expect_views(views)
        if dataset is not None:
            self._expect_data(dataset)

    def _expect_views(self, views: Views) -> None:
        """Raise DataError unless these views are stored."""
        mine = self.views
        wrong = None
        if (mine.count == 1) != (views.count == 1) or mine.count < views.count:
            held, wanted = ("the plain image" if v.count == 1 else f"{v.count} random views" for v in (mine, views))
            wrong = f"holds {held} of each, not {wanted}: make one with --views {views.count}"
        elif views.mirrored and not mine.mirrored:
            wrong = "holds no mirror images, which flip averaging reads: make one with --mirror"
        elif mine.input_crop != views.input_crop:
            wrong = f"was shown {_crop(mine)} to CLIP, not {_crop(views)}: make one with the --protocol that is wanted"
        elif mine.normalisation != views.normalisation:
            wrong = f"has images normalised for {mine.normalisation}, not {views.normalisation}: make one with --normalisation"
        if wrong:
            raise DataError(f"{self.path} {wrong}")

    def _expect_data(self, dataset: DepthDataset) -> None:
        """Raise DataError unless the images are those of `dataset`, and random views its own."""
        held = f"{self.images} images of {self.dataset_name} '{self.split}'"
        wanted = f"{len(dataset)} images of {dataset.name} '{dataset.split}'"
        if held != wanted:
            raise DataError(f"{self.path} holds {held}, not {wanted}: make one of those")
        if dataset.fingerprint() != self.data_fingerprint:
            raise DataError(f"{self.path}: the data has changed since the store was made, or is another {dataset.name}: make it again")
        drawn = None if dataset.augment is None else plain(asdict(dataset.augment))
        if drawn != self.meta["augmentation"] or (drawn and dataset.seed != self.meta["seed"]):
            raise DataError(f"{self.path} holds other random views (its augmentation or seed differs): make one with the same")

    def read(self, indices: Sequence[int], mode: str, view: int = 0, mirrored: bool = False) -> Tensor:
        """Patch features of some images, equal to those of `clip.image.dense_features` within half-precision rounding.

        Args:
            indices: of the images, as in `names`.
            mode: way to read patch features.
            view: which view, counted from 0.
            mirrored: of the mirror images of that view instead.

        Returns:
            [B, C, h, w] float32, channels last in memory.

        Raises:
            DataError: for a mode that is not stored, images with patches in different numbers, or a damaged shard.
            UsageError: for a view that is not stored.
        """
        self.expect(mode=mode)
        self._check_view(view, mirrored)
        places = [self._place(index) for index in indices]
        grids = {shard.grid(image) for shard, image in places}
        if len(grids) != 1:
            raise DataError(f"{self.path}: {len(grids)} sizes of image in one batch of {len(places)}: read them one size at a time")
        h, w = grids.pop()
        features = torch.empty(len(places), h * w, self.meta["channels"])
        for rows, (shard, image) in zip(features, places, strict=True):
            directions, norm = shard.rows(image, mode, view, mirrored)
            torch.mul(directions, norm / features.shape[-1] ** 0.5, out=rows)
        return features.view(len(places), h, w, -1).permute(0, 3, 1, 2)

    def truth(self, indices: Sequence[int], view: int = 0) -> Tensor:
        """Ground truth of some images, bit for bit as the data set hands it out.

        Args:
            indices: of the images, as in `names`.
            view: which view, counted from 0.

        Returns:
            [B, 1, H, W] float32 metres, 0 = none.

        Raises:
            DataError: for images of different sizes, or a damaged shard.
            UsageError: for a view that is not stored.
        """
        self._check_view(view, mirrored=False)
        places = [self._place(index) for index in indices]
        sizes = {shard.size(image) for shard, image in places}
        if len(sizes) != 1:
            raise DataError(f"{self.path}: images of several sizes in one batch of {len(places)}: read them one size at a time")
        maps = torch.empty(len(places), 1, *sizes.pop())
        for out, (shard, image) in zip(maps[:, 0], places, strict=True):
            shard.truth(image, view, out)
        return maps

    def check(self, progress: Progress = silent) -> None:
        """Read every shard and compare its checksum. Raises DataError, which names the damaged ones."""
        bad = []
        for done, shard in enumerate(self._shards, 1):
            if not shard.intact():
                bad.append(shard.path.name)
            progress("checking shards", done, len(self._shards))
        if bad:
            raise DataError(
                f"{len(bad)} of {len(self._shards)} shards in {self.path} are damaged: {', '.join(bad)}: delete them and run the same "
                "command again, which makes only those anew"
            )

    def check_data(self) -> str:
        """Compare the data that the store was made from with what it was then.

        Returns:
            "unchanged", or "not opened (reason)" where it cannot be compared.

        Raises:
            DataError: where the data has changed.
        """
        try:
            kind = dataset_class(self.dataset_name)
        except UsageError as error:  # a data set of the user's own, which no name leads to
            return f"not opened ({error})"
        try:
            return kind.unchanged(self.meta["data"], self.images)
        except DataError as error:
            raise DataError(f"{self.path} is whole, but {error}: make it again") from error

    def _place(self, index: int) -> tuple[Shard, int]:
        """The shard that holds an image, and the image's number in it."""
        number, image = divmod(range(self.images)[index], self.meta["images_per_shard"])
        return self._shards[number], image

    def _check_view(self, view: int, mirrored: bool) -> None:
        """Raise UsageError unless that view, or its mirror image, is stored."""
        if not 0 <= view < self.views.count or (mirrored and not self.views.mirrored):
            asked = f"view {view}{' mirrored' if mirrored else ''}"
            raise UsageError(f"{self.path} does not hold {asked}: it has {self.views.count} views, mirrored: {self.views.mirrored}")


def wrong_size(path: Path, size: int) -> str | None:
    """In words, what is wrong with a shard that should have `size` bytes; None where nothing is."""
    if not path.is_file():
        return f"shard {path} is missing"
    found = path.stat().st_size
    return None if found == size else f"shard {path} has {found} bytes instead of {size}"


def _crop(views: Views) -> str:
    """In words, which part of an image CLIP was shown."""
    return f"crop {views.input_crop}" if views.input_crop else "the whole image"
