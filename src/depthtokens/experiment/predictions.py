"""Anybody's depth maps under the same ruler: files matched with a data set's images by their names, and scored as a model's maps are.

Maps show what the data set's images show; of KITTI's either the whole photos or their benchmark crop. They may have any size: they are
brought to the truth's by the protocol, as a model's maps of that size would be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import DepthDataset
from ..data.find import ending_in_small, relative, spelling, walk
from ..data.formats import PREDICTION_ENDINGS, read_prediction
from ..data.images import ENDINGS as PHOTOS
from ..data.loader import batches
from ..depth.align import aligned, check_alignment
from ..depth.names import DEPTHS, ENDINGS, result_name
from ..depth.protocol import Protocol, find_protocol
from ..errors import DataError, UsageError
from ..files import atomic, atomic_folder, make_folder, user_path
from ..progress import Progress, silent
from .controls import Controls
from .evaluate import Keep, Scores, score_heads
from .source import Shown

PREDICTIONS = "predictions"
"""Name of their row."""
AT_ONCE = 4
"""Maps that a process reads before it hands them over."""
MOST = 5
"""Of files that are at fault, so many are named."""
Item: TypeAlias = tuple[int, Tensor, Tensor]
"""Index of an image, its prediction [C, h, w] and its truth [H, W]."""


@dataclass(frozen=True)
class Matched:
    """A folder's depth maps by the images that they belong to.

    Attributes:
        files: one per image.
        extra: depth maps that belong to no image.
    """

    files: list[Path]
    extra: list[Path]


def match(folder: str | Path, names: Sequence[str]) -> Matched:
    """Find the depth map of every image by its name.

    A map is called as its image, with another ending, or as `predict` calls its results (`x_depth.png`). It lies in the image's
    sub-folders, of which the first ones may be left out, or others may stand before them.

    Args:
        folder: with the maps, in any of `PREDICTION_ENDINGS`; pictures that `predict` writes beside them are no maps.
        names: of the images, as `DepthDataset.names`.

    Raises:
        DataError: where an image has no map or several, or a map fits several images.
    """
    root = user_path(folder)
    if not root.is_dir():
        raise DataError(f"no folder {root} of predictions")
    places = {path: _place(relative(path, root)) for path in walk(root) if path.suffix.lower() in PREDICTION_ENDINGS}
    by_name: dict[str, list[Path]] = {}
    for path in places:
        by_name.setdefault(ending_in_small(spelling(path.name)), []).append(path)
    fits = [_fitting(_place(name), by_name, places) for name in names]
    owners = Counter(path for found in fits for path in found)
    shared = [path for path, images in owners.items() if images > 1]
    found = list(zip(names, fits, strict=True))
    faults = [
        _listed("without one", [name for name, files in found if not files]),
        _listed("with several", [f"{name}: {' and '.join(_names(files, root))}" for name, files in found if len(files) > 1]),
        _listed("files that fit several images", _names(shared, root)),
    ]
    if any(faults):
        wanted = f"one depth map ({', '.join(PREDICTION_ENDINGS)}) for each of {len(names)} images, by its name"
        raise DataError(f"{root} should hold {wanted}: {'; '.join(filter(None, faults))}")
    pictures = {ending_in_small(name) for image in names for name in _pictures(_place(image)[-1])}
    extra = [path for path in places if path not in owners and ending_in_small(spelling(path.name)) not in pictures]
    return Matched([files[0] for files in fits], extra)


class Predictions:
    """Depth maps in a folder, and the ground truth of a data set; a `Scored` whose patches are the maps, for the head `as_they_are`.

    A map with uncertainty (the array "uncertainty" of a .npz, as `predict --formats npz` writes it) has that as its second channel.

    Attributes:
        extra: files in the folder that belong to no image.
        align: how maps are aligned, one of `ALIGNMENTS`.

    Args:
        folder: with one map per image.
        dataset: the images' data set, opened without augmentation.
        align: how maps are aligned: for "affine" they may be depth, for "affine-disparity" inverse depth, up to scale and shift.
        scale: units per metre in the maps' files; None for metres, or what a PNG states.
        workers: processes that read maps.

    Raises:
        UsageError: for an unknown alignment, or a scale that is none.
        DataError: where maps and images do not match, as `match` says.
    """

    def __init__(
        self, folder: str | Path, dataset: DepthDataset, align: str = "none", scale: float | None = None, workers: int = 2
    ) -> None:
        check_alignment(align)
        if scale is not None and not 0 < scale < float("inf"):
            raise UsageError(f"--prediction-scale {scale:g}: needs units per metre, as 1000 for millimetres")
        found = match(folder, dataset.names)
        self.dataset, self.align, self.scale, self.workers = dataset, align, scale, workers
        self.files, self.extra = found.files, found.extra
        self.name, self.split, self.names = dataset.name, dataset.split, dataset.names
        self.depth_range, self.eval_crop = dataset.depth_range, dataset.eval_crop

    def __getitem__(self, index: int, /) -> Item:
        """A prediction as it is stored, and its truth."""
        scale = self.scale or (None if self.align == "none" else 1.0)  # which alignment makes no matter
        read = read_prediction(self.files[index], scale, relative=self.align.startswith("affine"))
        channels = [read.depth] if read.uncertainty is None else [read.depth, read.uncertainty]
        cut = np.stack([self.dataset.cut(index, channel) for channel in channels])
        return index, torch.from_numpy(cut), torch.from_numpy(self.dataset.read(index)[1])

    def evaluation(self, protocol: Protocol) -> Iterator[Shown]:
        """As `Scored.evaluation`: maps in full size, one at a time, aligned. Raises DataError where one cannot be read or aligned."""
        for items in batches(self, range(len(self.names)), AT_ONCE, self.workers):
            for index, maps, depth in items:
                truth = depth[None, None]
                yield Shown([index], protocol.shown(self._full_size(index, maps[None], truth, protocol)), None, truth)

    def _full_size(self, index: int, maps: Tensor, truth: Tensor, protocol: Protocol) -> Tensor:
        """Maps [1, C, h, w] at the size of the truth [1, 1, H, W], depth aligned to it."""
        (h, w), (height, width) = maps.shape[-2:], truth.shape[-2:]
        if (h - w) * (height - width) < 0:
            raise DataError(f"{self.files[index]} is {h}x{w} and its image {height}x{width}: is it stored lying?")
        lo, hi = protocol.depth_range or self.depth_range
        if self.align == "none":
            maps[:, :1].clamp_(lo, hi)  # before they are resized, as a model's
        maps = protocol.resized(maps, (height, width))
        valid = protocol.valid(truth, (lo, hi), self.eval_crop)
        if valid.any():
            try:
                maps[:, :1] = aligned(self.align, maps[:, :1], truth, valid, hi)
            except DataError as error:
                raise DataError(f"{self.files[index]}: {error}") from error
        return maps


def as_they_are(maps: Tensor) -> Tensor:
    """The head of `Predictions`: from maps [B, C, H, W], the depth [B, 1, H, W]."""
    return maps[:, :1]


def evaluate_predictions(
    folder: str | Path,
    dataset: DepthDataset,
    protocol: str | Protocol = "auty2023",
    *,
    align: str = "none",
    scale: float | None = None,
    workers: int = 2,
    progress: Progress = silent,
) -> Scores:
    """Score a folder of depth maps on a data set, by any protocol. Maps are scored as they are, so nothing is averaged over mirror images.

    Args:
        folder: with one map per image.
        dataset: test images.
        protocol: by which to score, or its name.
        align: "none", "median", "affine" or "affine-disparity", see `depth.align.ALIGNMENTS`.
        scale: units per metre in the maps' files; None for metres, or what a PNG states.
        workers: processes that read maps.
        progress: called as maps are scored.

    Returns:
        The scores, whose `align` says how maps were aligned.

    Raises:
        UsageError: for an unknown protocol or alignment.
        DataError: where maps and images do not match, or one cannot be read or aligned, or no image has valid ground truth.
    """
    source = Predictions(folder, dataset, align, scale, workers)
    return score_predictions(source, protocol, progress=progress)[PREDICTIONS]


def score_predictions(
    source: Predictions,
    protocol: str | Protocol,
    controls: Controls | None = None,
    progress: Progress = silent,
    keep: Keep | None = None,
) -> dict[str, Scores]:
    """Score predictions beside controls; arguments, scores and errors are those of `score_heads`, and the first row is `PREDICTIONS`."""
    protocol = replace(find_protocol(protocol) if isinstance(protocol, str) else protocol, flip=False)
    rows = score_heads({PREDICTIONS: as_they_are}, source, protocol, controls, progress, keep)
    rows[PREDICTIONS] = replace(rows[PREDICTIONS], align=source.align)
    return rows


@contextmanager
def saving(folder: str | Path, row: str, names: Sequence[str], protocol: Protocol) -> Iterator[Keep]:
    """Write the depth maps of a row as they are scored, so that `evaluate_predictions` gives the same figures to the last digit.

    Args:
        folder: which must not be there or be empty; it appears when the block ends well.
        row: whose maps.
        names: of the images: a/x.jpg becomes a/x.npy, float32 [H, W] metres of the whole image, NaN where the protocol does not look.
        protocol: by which they are scored.

    Yields:
        What `score_heads` takes as `keep`.

    Raises:
        UsageError: for a folder with something in it, or images that would share a file.
        DepthTokensError: where files cannot be written.
    """
    out = user_path(folder)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: name a new one for the predictions")
    places = [_place(name) for name in names]
    if twice := next((place for place, count in Counter(places).items() if count > 1), None):
        raise UsageError(f"two images are called {'/'.join(twice)}: their predictions cannot lie in one folder")
    with atomic_folder(out) as new:

        def keep(scored: str, indices: Sequence[int], depth: Tensor, size: tuple[int, int]) -> None:
            if scored != row:
                return
            whole = torch.full((len(indices), 1, *size), float("nan"))
            protocol.shown(whole).copy_(depth)
            for index, values in zip(indices, whole, strict=True):
                path = new.joinpath(*places[index][:-1], f"{places[index][-1]}.npy")
                make_folder(path.parent)
                with atomic(path) as file:
                    np.save(file, values[0].numpy())

        yield keep


def _place(name: str) -> tuple[str, ...]:
    """An image's or a map's name as folders and a last part without ending, in one spelling; whatever leads out of a folder is left out."""
    path = PurePosixPath(spelling(name))
    *folders, last = [part for part in path.parts if part not in (path.anchor, "..")]
    known = path.suffix.lower() in PHOTOS or path.suffix.lower() in PREDICTION_ENDINGS
    return (*folders, last.removesuffix(path.suffix) if known else last)


def _fitting(image: tuple[str, ...], by_name: Mapping[str, list[Path]], places: Mapping[Path, tuple[str, ...]]) -> list[Path]:
    """The maps that an image of that place may mean: those with most folders in common, and of these with fewest others."""
    ranks: dict[Path, tuple[int, int]] = {}
    for name in _map_names(image[-1]):
        for path in by_name.get(name, []):
            ours, theirs = image[:-1][::-1], places[path][:-1][::-1]
            shared = min(len(ours), len(theirs))
            if ours[:shared] == theirs[:shared]:
                ranks[path] = shared, -len(theirs)
    best = max(ranks.values(), default=None)
    return sorted(path for path, rank in ranks.items() if rank == best)


def _map_names(stem: str) -> list[str]:
    """What an image's depth map may be called."""
    photo = Path(f"{stem}.png")
    return [name for ending in PREDICTION_ENDINGS for name in (stem + ending, result_name(photo, f"_depth{ending}"))]


def _pictures(stem: str) -> list[str]:
    """What `predict` calls the pictures that it makes of an image's depth."""
    return [result_name(Path(f"{stem}.png"), ending) for kind, ending in ENDINGS.items() if kind not in DEPTHS]


def _names(files: Iterable[Path], root: Path) -> list[str]:
    """Files as seen from their folder."""
    return [relative(path, root) for path in files]


def _listed(what: str, names: Sequence[str]) -> str:
    """What is at fault, how many there are, and their names, or those of the first few; "" for none."""
    more = f", ... ({len(names) - MOST} more)" if len(names) > MOST else ""
    return f"{what}: {len(names)} ({', '.join(names[:MOST])}{more})" if names else ""
