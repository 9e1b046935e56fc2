"""One file of a store: the features and ground truth of some images, as tensors that are memory-mapped when read.

For n images of v stored views each (draw by draw; with mirror images, each view is followed by its own):

  grids      [n, 2] int32   patches per view, (h, w)
  sizes      [n, 2] int32   ground truth, (H, W)
  <mode>     [R, C] half    unit-RMS directions of the patch features, one row per patch, views one after the other
  <mode>.norm [R] float32   their lengths, in float32 because `layer4` is not of unit length, and may be zero
  truth      [P] int16      the bits of uint16 steps of 1 / depth_scale metres; or float32 metres, where that would lose anything
"""

from __future__ import annotations

import hashlib
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
from .views import Views


class Shard:
    """A finished shard, opened when first read.

    depth_scale: steps per metre, None where truth is float32.
    """

    def __init__(self, path: Path, sha256: str, views: Views, depth_scale: float | None) -> None:
        self.path, self.sha256, self.views, self.depth_scale = path, sha256, views, depth_scale

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, memory-mapped. The file is read through once before, to see that no bit has changed. Raises DataError."""
        if not self.intact():
            raise DataError(f"{self.path} is damaged: `depthtokens features check {self.path.parent}` says which files to make again")
        return read_tensors(self.path)

    def intact(self) -> bool:
        """Whether the file is there with the content it was written with."""
        return file_sha256(self.path) == self.sha256

    @cached_property
    def _first_rows(self) -> list[int]:
        patches = self.tensors["grids"].prod(dim=1, dtype=torch.int64)
        return [0, *(self.views.stored * patches).cumsum(0).tolist()]

    @cached_property
    def _first_pixels(self) -> list[int]:
        pixels = self.tensors["sizes"].prod(dim=1, dtype=torch.int64)
        return [0, *(self.views.count * pixels).cumsum(0).tolist()]

    def grid(self, image: int) -> tuple[int, int]:
        """Patches (h, w) of an image's views."""
        h, w = self.tensors["grids"][image].tolist()
        return h, w

    def rows(self, image: int, mode: str, view: int, mirrored: bool) -> tuple[Tensor, Tensor]:
        """Directions [h*w, C] half and lengths [h*w, 1] float32 of one view, or of its mirror image."""
        h, w = self.grid(image)
        first = self._first_rows[image] + self.views.position(view, mirrored) * h * w
        return self.tensors[mode][first : first + h * w], self.tensors[f"{mode}.norm"][first : first + h * w, None]

    def size(self, image: int) -> tuple[int, int]:
        """(H, W) of an image's ground truth."""
        height, width = self.tensors["sizes"][image].tolist()
        return height, width

    def truth(self, image: int, view: int, out: Tensor) -> None:
        """Put the ground truth of one view, float32 metres, 0 = none, into `out` [H, W]."""
        height, width = self.size(image)
        first = self._first_pixels[image] + view * height * width
        stored = self.tensors["truth"][first : first + height * width].view(height, width)
        if stored.dtype == torch.float32:
            out.copy_(stored)
        else:
            steps, scale = stored.numpy().view(np.uint16), np.float32(self.depth_scale or 1)
            np.divide(steps, scale, out=out.numpy(), dtype=np.float32, casting="unsafe")


def rows_of(features: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Patch features [B, C, h, w] -> directions [B, h*w, C] in `dtype`, of RMS 1, and lengths [B, h*w] float32, on the CPU.

    RMS 1 keeps a direction's numbers far from where half precision ends, so that rounding is relative to the row.
    """
    rows = features.flatten(2).transpose(1, 2).float()
    norm = rows.norm(dim=-1)
    # A row that is zero has the direction zero.
    scale = torch.where(norm > 0, norm, 1) / rows.shape[-1] ** 0.5
    return (rows / scale[..., None]).to(dtype).cpu(), norm.cpu()


def steps_of(depth: NDArray[np.float32], scale: float | None) -> NDArray[np.float32] | NDArray[np.uint16]:
    """Depth in metres as 16-bit steps of 1 / scale metres where they give back every bit of it, else as it is."""
    if scale is None:
        return depth
    steps = np.rint(depth * np.float32(scale))
    if not (steps >= 0).all() or not (steps <= 65535).all():
        return depth
    exact = steps.astype(np.uint16)
    return exact if np.array_equal(exact.astype(np.float32) / np.float32(scale), depth) else depth


class StoredView(NamedTuple):
    """One view's patch features: grid (h, w), and by mode the (values, norm) of `rows_of`, then those of its mirror image if stored."""

    grid: tuple[int, int]
    rows: dict[str, list[tuple[Tensor, Tensor]]]


class Builder:
    """Collects the images of one shard, view by view in the order in which they are stored."""

    def __init__(self, modes: Sequence[str], depth_scale: float | None) -> None:
        self.depth_scale = depth_scale
        self.values: dict[str, list[Tensor]] = {mode: [] for mode in modes}
        self.norms: dict[str, list[Tensor]] = {mode: [] for mode in modes}
        self.truths: list[NDArray[np.float32] | NDArray[np.uint16]] = []
        self.grids: list[tuple[int, int]] = []
        self.sizes: list[tuple[int, int]] = []

    def view(self, view: int, features: StoredView, depth: NDArray[np.float32]) -> None:
        """Add one view with its ground truth [H, W] metres; view 0 begins an image."""
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
        if all(truth.dtype == np.uint16 for truth in self.truths):
            return np.concatenate([truth.ravel() for truth in self.truths]).view(np.int16)
        return np.concatenate([self._metres(truth).ravel() for truth in self.truths])

    def _metres(self, truth: NDArray) -> NDArray[np.float32]:
        return truth if truth.dtype == np.float32 else truth.astype(np.float32) / np.float32(self.depth_scale or 1)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a shard, memory-mapped. Raises DataError for a file that is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} cannot be read as a shard of patch features: {error}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read a piece at a time. Raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
