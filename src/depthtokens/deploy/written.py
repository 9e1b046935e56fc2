"""The files that are written of one photo's depth. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..depth.depthmap import COLOURS, DepthMap, check_colour_map
from ..depth.names import DEPTHS, ENDINGS, result_name
from ..errors import UsageError
from ..files import atomic
from .cloud import Lens, cloud_file, need_trimesh

VIDEO = "_depth.mp4"
"""How the names of films of depth end, the format `video`."""
CLOUDS = ("ply", "glb")


@dataclass(frozen=True)
class Wanted:
    """What is written of each photo, and how.

    Attributes:
        formats: keys of `ENDINGS`, and "video" for films; none stands for png and side of photos and video of films.
        colour_range: metres, the ends of the pictures' colour scale; None takes the model's range, which all its photos share.
        colour_map: the pictures', one of matplotlib's; None for `COLOURS`.
        lens: of the camera, for point clouds.
        smooth: share of the frames before in the log depth of each of a film's; None for 0.

    Raises:
        UsageError: for an unknown colour map, a share that is none, or a format whose package is not installed.
    """

    formats: Sequence[str] = ()
    colour_range: tuple[float, float] | None = None
    colour_map: str | None = None
    lens: Lens = field(default_factory=Lens)
    smooth: float | None = None

    def __post_init__(self) -> None:
        if self.colour_map is not None:
            check_colour_map(self.colour_map)
        if self.smooth is not None and not 0 <= self.smooth < 1:
            raise UsageError(f"--smooth {self.smooth:g}: needs a share from 0 up to less than 1, as 0.8")
        if self.clouds:
            need_trimesh()

    @property
    def clouds(self) -> bool:
        """Whether point clouds are among them."""
        return any(kind in self.formats for kind in CLOUDS)

    def settings(self) -> dict[str, Any]:
        """What results depend on, as plain values; None where nothing was said, as in logs of versions that did not know it."""
        return {
            "colour_range": self.colour_range, "colour_map": self.colour_map, "fov": self.lens.fov, "intrinsics": self.lens.intrinsics,
            "smooth": self.smooth,
        }  # fmt: skip

    def targets(self, photo: Path, folder: Path) -> dict[str, Path]:
        """Format -> file of a photo, to be written into a folder."""
        formats = self.formats or ("png", "side")
        return {kind: folder / result_name(photo, ending) for kind, ending in ENDINGS.items() if kind in formats}

    def video(self, film: Path, folder: Path) -> Path | None:
        """The film of a film's depth; None where it is not wanted."""
        return folder / result_name(film, VIDEO) if "video" in (self.formats or ("video",)) else None

    def frame(self, film: Path, folder: Path, index: int) -> dict[str, Path]:
        """Format -> file of one frame of a film."""
        return self.targets(Path(f"{index:06d}"), folder / result_name(film, "_frames")) if self.formats else {}

    def write(self, depth: DepthMap, photo: Path, targets: Mapping[str, Path]) -> None:
        """Write the files of one photo.

        Args:
            depth: the photo's.
            photo: the file.
            targets: as `targets` gives them.

        Raises:
            DataError: where nothing says what the camera was, before anything is written.
            DepthTokensError: where a file cannot be written.
        """
        ends, colour_map = self.colour_range or depth.depth_range, self.colour_map or COLOURS
        height, width = depth.metres.shape
        camera = self.lens.camera(photo, (height, width)) if self.clouds else None
        for kind, path in targets.items():
            if kind in DEPTHS:
                depth.save(path)
                continue
            with atomic(path) as file:
                if camera and kind in CLOUDS:
                    file.write(cloud_file(depth, camera, kind))
                else:
                    picture = depth.colour if kind == "colour" else depth.side_by_side
                    picture(ends, colour_map).save(file, format="PNG")


def described(depth: DepthMap) -> dict[str, Any]:
    """Figures of one photo, as plain values: pixels, and metres."""
    metres = depth.metres
    return {
        "height": metres.shape[0], "width": metres.shape[1], "min": float(metres.min()), "mean": float(metres.mean()),
        "max": float(metres.max()), "uncertainty": float(depth.uncertainty.mean()), "png_scale": depth.png_scale,
    }  # fmt: skip
