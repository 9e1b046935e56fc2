"""A shard: one file of a store, with the patch features and the ground truth of some images, memory-mapped when read.

A shard of n images holds these tensors:

  grids       [n, 2] int32   patches (h, w) of each view of an image
  sizes       [n, 2] int32   size (H, W) of an image's ground truth
  <mode>      [R, C] half    direction of each patch's features, scaled to a root mean square of 1
  <mode>.norm [R] float32    length of each patch's features; not always 1 (`layer4`), and it may be 0
  truth       [P] int16      depth in steps of 1 / depth_scale metres, the bits of a uint16; float32 metres where that would lose anything

R counts patches and P pixels, image by image, and within an image view by view, each followed by its mirror image where those are
stored. A patch's features are its direction times its length / sqrt(C). Mirror images have no ground truth of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import DataError
from ..files import file_sha256
from .views import Views


class Shard:
    """A finished shard, opened when it is first read.

    Images are counted from 0 in each shard.

    Args:
        path: the file.
        sha256: of its content when it was written, 64 hex digits.
        views: which views of each image it holds.
        depth_scale: steps per metre of its ground truth; None where that is float32.
    """

    def __init__(self, path: Path, sha256: str, views: Views, depth_scale: float | None) -> None:
        self.path, self.sha256, self.views, self.depth_scale = path, sha256, views, depth_scale

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, memory-mapped. Raises DataError where the file's checksum, computed at first use, is not the stated one."""
        if not self.intact():
            raise DataError(f"{self.path} is damaged: `depthtokens features check {self.path.parent}` says which files to make again")
        return read_tensors(self.path)

    def intact(self) -> bool:
        """Whether the file is there with the content it was written with."""
        return file_sha256(self.path) == self.sha256

    @cached_property
    def _first_rows(self) -> list[int]:
        """Where the rows of each image begin, and where those of the last one end."""
        patches = self.tensors["grids"].prod(dim=1, dtype=torch.int64)
        return [0, *(self.views.stored * patches).cumsum(0).tolist()]

    @cached_property
    def _first_pixels(self) -> list[int]:
        """Where the ground truth of each image begins, and where that of the last one ends."""
        pixels = self.tensors["sizes"].prod(dim=1, dtype=torch.int64)
        return [0, *(self.views.count * pixels).cumsum(0).tolist()]

    def grid(self, image: int) -> tuple[int, int]:
        """Patches (h, w) of an image's views."""
        h, w = self.tensors["grids"][image].tolist()
        return h, w

    def rows(self, image: int, mode: str, view: int, mirrored: bool) -> tuple[Tensor, Tensor]:
        """The patch features of one view, as they are stored.

        Args:
            image: in this shard.
            mode: way to read patch features.
            view: which view, counted from 0.
            mirrored: of its mirror image instead.

        Returns:
            Directions [h*w, C] half and lengths [h*w, 1] float32.
        """
        h, w = self.grid(image)
        first = self._first_rows[image] + self.views.position(view, mirrored) * h * w
        return self.tensors[mode][first : first + h * w], self.tensors[f"{mode}.norm"][first : first + h * w, None]

    def size(self, image: int) -> tuple[int, int]:
        """(H, W) of an image's ground truth."""
        height, width = self.tensors["sizes"][image].tolist()
        return height, width

    def truth(self, image: int, view: int, out: Tensor) -> None:
        """Read the ground truth of one view.

        Args:
            image: in this shard.
            view: which view, counted from 0.
            out: [H, W] float32, is given the metres, 0 = none.
        """
        height, width = self.size(image)
        first = self._first_pixels[image] + view * height * width
        stored = self.tensors["truth"][first : first + height * width].view(height, width)
        if stored.dtype == torch.float32:
            out.copy_(stored)
        else:
            steps, scale = stored.numpy().view(np.uint16), np.float32(self.depth_scale or 1)
            np.divide(steps, scale, out=out.numpy(), dtype=np.float32, casting="unsafe")


def rows_of(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Split patch features into directions, which are stored in half precision, and lengths.

    Numbers with a root mean square (RMS) of 1 lie well within the range of half precision, so rounding is relative to the size of the
    row, however long that is.

    Args:
        features: [B, C, h, w].
        dtype: of the directions.

    Returns:
        Directions [B, h*w, C] with an RMS of 1 (0 where the features are 0), and lengths [B, h*w] float32, both on the CPU.
    """
    rows = features.flatten(2).transpose(1, 2).float()
    norm = rows.norm(dim=-1)
    # Where the features are zero, so is the direction.
    scale = torch.where(norm > 0, norm, 1) / rows.shape[-1] ** 0.5
    return (rows / scale[..., None]).to(dtype).cpu(), norm.cpu()


def steps_of(depth: NDArray[np.float32], scale: float | None) -> NDArray[np.float32] | NDArray[np.uint16]:
    """Depth as 16-bit steps, where these give back every bit of it.

    Args:
        depth: metres.
        scale: steps per metre; None where the data set has none.

    Returns:
        uint16 steps of 1 / scale metres, or `depth` itself where steps would change it.
    """
    if scale is None:
        return depth
    steps = np.rint(depth * np.float32(scale))
    if not (steps >= 0).all() or not (steps <= 65535).all():
        return depth
    exact = steps.astype(np.uint16)
    return exact if np.array_equal(exact.astype(np.float32) / np.float32(scale), depth) else depth


class StoredView(NamedTuple):
    """The patch features of one view, as a shard takes them.

    Attributes:
        grid: patches (h, w).
        rows: mode -> directions [h*w, C] and lengths [h*w] of the view, then, if stored, those of its mirror image.
    """

    grid: tuple[int, int]
    rows: dict[str, list[tuple[Tensor, Tensor]]]


class Builder:
    """Collects what one shard will hold, image by image and view by view.

    Args:
        modes: ways to read patch features.
        depth_scale: steps per metre of the data set's depth; None where it has none.
    """

    def __init__(self, modes: Sequence[str], depth_scale: float | None) -> None:
        self.depth_scale = depth_scale
        self.values: dict[str, list[Tensor]] = {mode: [] for mode in modes}
        self.norms: dict[str, list[Tensor]] = {mode: [] for mode in modes}
        self.truths: list[NDArray[np.float32] | NDArray[np.uint16]] = []
        self.grids: list[tuple[int, int]] = []
        self.sizes: list[tuple[int, int]] = []

    def view(self, view: int, features: StoredView, depth: NDArray[np.float32]) -> None:
        """Add one view.

        Args:
            view: which one, counted from 0; view 0 begins an image.
            features: of this view and, if stored, of its mirror image.
            depth: [H, W] metres, its ground truth.
        """
        if view == 0:
            self.grids.append(features.grid)
            self.sizes.append((depth.shape[0], depth.shape[1]))
        for mode, rows in features.rows.items():
            for values, norm in rows:
                # Copies: a slice would keep its whole batch alive.
                self.values[mode].append(values.clone())
                self.norms[mode].append(norm.clone())
        self.truths.append(steps_of(depth, self.depth_scale))

    def content(self) -> bytes:
        """The shard as a file."""
        tensors = {"grids": torch.tensor(self.grids, dtype=torch.int32), "sizes": torch.tensor(self.sizes, dtype=torch.int32)}
        for mode in self.values:
            tensors |= {mode: torch.cat(self.values[mode]), f"{mode}.norm": torch.cat(self.norms[mode])}
        tensors["truth"] = torch.from_numpy(self._all_truths())
        return save(tensors)

    def _all_truths(self) -> NDArray:
        """Ground truth of all views [P]: in steps if that is possible for each of them, else in metres."""
        if all(truth.dtype == np.uint16 for truth in self.truths):
            return np.concatenate([truth.ravel() for truth in self.truths]).view(np.int16)
        return np.concatenate([self._metres(truth).ravel() for truth in self.truths])

    def _metres(self, truth: NDArray) -> NDArray[np.float32]:
        """Ground truth in metres, whichever way it was kept until now."""
        return truth if truth.dtype == np.float32 else truth.astype(np.float32) / np.float32(self.depth_scale or 1)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a shard, memory-mapped. Raises DataError for a file that is not a shard."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as a shard of patch features: {error}") from error
