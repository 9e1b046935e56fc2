"""Depth as points in space, with the photo's colours, as PLY and GLB files. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.images import opened
from ..depth.depthmap import DepthMap
from ..errors import DataError, UsageError
from .extra import need

MOST_POINTS = 2_000_000
"""Of a larger photo every second, third, ... pixel of every second, third, ... row becomes a point: viewers show no more."""
_DIAGONAL = math.hypot(36, 24)  # mm, of the film that EXIF's focal length is for
_EXIF, _FOCAL_LENGTH = 0x8769, 0xA405


class Camera(NamedTuple):
    """A pinhole camera in pixels of the upright photo; pixel (0, 0) is the centre of the first.

    Attributes:
        fx, fy: focal lengths.
        cx, cy: where the optical axis meets the photo.
    """

    fx: float
    fy: float
    cx: float
    cy: float


@dataclass(frozen=True)
class Lens:
    """Where a photo's camera is known from: what a person says, else the photo's EXIF.

    Attributes:
        fov: degrees that the upright photo spans from left to right.
        intrinsics: fx, fy, cx, cy in pixels of the upright photo.

    Raises:
        UsageError: for values that no camera has, or both.
    """

    fov: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.fov is not None and self.intrinsics is not None:
            raise UsageError("--fov and --intrinsics both say what the camera was: give one")
        if self.fov is not None and not 0 < self.fov < 180:
            raise UsageError(f"--fov {self.fov:g}: needs degrees between 0 and 180")
        if self.intrinsics is not None and not (all(map(math.isfinite, self.intrinsics)) and min(self.intrinsics[:2]) > 0):
            values = " ".join(f"{value:g}" for value in self.intrinsics)
            raise UsageError(f"--intrinsics {values}: needs two focal lengths above 0 and a centre, in pixels of the photo")

    def check(self, photos: Iterable[Path]) -> None:
        """Raise UsageError, for before long work, where photos say no focal length and nobody else does."""
        if self.fov is not None or self.intrinsics is not None:
            return
        without = [photo for photo in photos if film_focal_length(photo) is None]
        if without:
            others = f" and {len(without) - 1} more say" if len(without) > 1 else " says"
            raise UsageError(
                f"{without[0]}{others} no focal length (EXIF's FocalLengthIn35mmFilm), which point clouds need: give --fov DEGREES or "
                "--intrinsics FX FY CX CY"
            )

    def camera(self, photo: Path, size: tuple[int, int]) -> Camera:
        """The camera of a photo.

        Args:
            photo: the file.
            size: (H, W) pixels, upright.

        Raises:
            DataError: where its centre lies outside the photo, or nothing says what it is.
        """
        height, width = size
        if self.intrinsics is not None:
            camera = Camera(*self.intrinsics)
            if not (0 <= camera.cx < width and 0 <= camera.cy < height):
                centre = f"{camera.cx:g} {camera.cy:g}"
                raise DataError(f"{photo}: the centre {centre} of --intrinsics lies outside its {width}x{height} pixels (width x height)")
            return camera
        if self.fov is not None:
            focal = width / 2 / math.tan(math.radians(self.fov) / 2)
        elif (on_film := film_focal_length(photo)) is not None:
            focal = on_film * math.hypot(height, width) / _DIAGONAL  # by the diagonal, which turning the photo leaves as it is
        else:
            raise DataError(f"{photo} says no focal length (EXIF's FocalLengthIn35mmFilm): give --fov DEGREES")
        return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2)


def film_focal_length(photo: Path) -> float | None:
    """EXIF's focal length, mm on 35 mm film; None where a photo says none, or cannot be read."""
    try:
        with opened(photo) as image:
            if image.format == "PNG" and "exif" not in image.info:  # behind the pixels: Pillow would decode them to see it
                return None
            value = float(image.getexif().get_ifd(_EXIF).get(_FOCAL_LENGTH, 0))
    except DataError:
        return None
    return value if math.isfinite(value) and value > 0 else None  # 0 stands for unknown


def points(depth: DepthMap, camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Pixels as points in space.

    Depth counts along the optical axis, as that of NYUv2 and KITTI.

    Args:
        depth: the photo's.
        camera: it was taken with.

    Returns:
        Points [n, 3] float32 metres, as OpenCV has them (x right, y down, z forward; the camera at 0), and their colours [n, 3] uint8.
        Row by row, `MOST_POINTS` at most.
    """
    height, width = depth.metres.shape
    step = math.ceil(math.sqrt(height * width / MOST_POINTS))
    z = depth.metres[::step, ::step]
    x = (np.arange(0, width, step, dtype=np.float32) - camera.cx) / camera.fx * z
    y = (np.arange(0, height, step, dtype=np.float32)[:, None] - camera.cy) / camera.fy * z
    return np.stack([x, y, z], axis=-1, dtype=np.float32).reshape(-1, 3), depth.image[::step, ::step].reshape(-1, 3)


def cloud_file(depth: DepthMap, camera: Camera, kind: str) -> bytes:
    """A file of `points`.

    Args:
        depth: the photo's.
        camera: it was taken with.
        kind: "ply", with OpenCV's axes, or "glb", with glTF's (x right, y up, z backward, so that a viewer looks as the camera did).

    Raises:
        UsageError: where trimesh is not installed.
    """
    trimesh = need_trimesh()
    where, colours = points(depth, camera)
    if kind == "glb":
        where = where * np.array([1, -1, -1], np.float32)
    content: bytes = trimesh.PointCloud(where, colors=colours).export(file_type=kind)
    return content


def need_trimesh() -> Any:
    """The module. Raises UsageError where it is not installed."""
    return need("trimesh", "cloud", "a point cloud")
