"""A predicted depth map: metres, uncertainty, and the files and pictures made of them. Free of torch."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ..errors import DataError, UsageError, unknown
from ..files import atomic, user_path
from ..summary import Summarised, Summary

MOST = 65535.4
"""Steps that still round to the last of a 16-bit PNG's."""
PICTURE = 1000
"""Pixels of the longer side from which on a picture beside others is thinned: it is drawn at half of that."""
COLOURS = "magma_r"
"""The colour map of depth, where none is asked for: near is bright."""
ROWS = 64
"""Rows of a map that are looked at or turned into steps or colours at a time: those of 100 megapixels would take gigabytes together."""


class DepthMap(Summarised):
    """Depth of one image.

    Attributes:
        metres: [H, W] float32, depth.
        probs: [N, h, w] float32, probabilities of the bins at patch resolution.
        depth_range: (lo, hi) metres, of the model.
        image: uint8 [H, W, 3], the photo.

    Args:
        metres: as above.
        uncertainty: [H, W] float32 metres, or what makes it when it is first asked for: of a large photo it is hundreds of megabytes.
        probs, depth_range, image: as above.

    Raises:
        UsageError: for maps that are not [H, W], both.
        DataError: for depth or uncertainty that is not a finite number: a map without holes is what everything behind it relies on.

    Example:
        >>> two, probs = np.full((4, 6), 2.0, np.float32), np.ones((1, 2, 3), np.float32)
        >>> depth = DepthMap(two, 0 * two, probs, (0.5, 10.0), np.zeros((4, 6, 3), np.uint8))
        >>> depth.png_scale, depth.colour().size  # steps per metre in a 16-bit PNG; PIL's (width, height)
        (1000, (6, 4))
    """

    def __init__(
        self,
        metres: NDArray[np.float32],
        uncertainty: NDArray[np.float32] | Callable[[], NDArray[np.float32]],
        probs: NDArray[np.float32],
        depth_range: tuple[float, float],
        image: NDArray[np.uint8],
    ) -> None:
        self.metres, self.probs, self.depth_range, self.image = metres, probs, depth_range, image
        self._uncertainty = uncertainty
        if not callable(uncertainty):
            _check("uncertainty", uncertainty, metres)
        _check("depth", metres, metres)

    def summary(self) -> Summary:
        """What the map is, in a few lines, and its picture in colour."""
        (height, width), (lo, hi) = self.metres.shape, self.depth_range
        rows = [
            ("depth", f"{self.metres.min():.3f} to {self.metres.max():.3f} m, mean {self.metres.mean():.3f} m"),
            ("range", f"{lo:g} to {hi:g} m"),
            ("bins", "{} in {}x{} patches".format(*self.probs.shape)),
        ]
        return Summary(f"DepthMap {height}x{width}", rows, picture=self._repr_png_)

    def _repr_png_(self) -> bytes:
        """The map in colour as a PNG file, thinned where it is large."""
        thin, file = max(1, max(self.metres.shape) // PICTURE), io.BytesIO()
        metres = self.metres[::thin, ::thin]
        Image.fromarray(colourise(metres, float(metres.min()), float(metres.max()))).save(file, format="PNG")
        return file.getvalue()

    @cached_property
    def uncertainty(self) -> NDArray[np.float32]:
        """The standard deviation of depth over the bins' probabilities, [H, W] float32 metres. Raises as the class."""
        values = self._uncertainty
        if callable(values):
            values = values()
            _check("uncertainty", values, self.metres)
        return values

    def save(self, path: str | Path) -> None:
        """Write depth to a file.

        Args:
            path: ends in .npy (float32 metres), .npz (arrays `depth` and `uncertainty`, float32 metres), .tif or .tiff (float32 metres, one
                channel) or .png (16 bits in steps of 1 / `png_scale` m, which the file's text field `depth_scale` holds; less than a step
                becomes one step, since 0 means that there is no depth).

        Raises:
            UsageError: for another ending.
            DataError: for a .png of depth below 0.
            DepthTokensError: where the file cannot be written.
        """
        path = user_path(path)
        ending = path.suffix.lower()
        if ending not in (".npy", ".npz", ".tif", ".tiff", ".png"):
            raise UsageError(f"depth is saved as .png, .npy, .npz or .tiff, not '{path.suffix}'")
        info = PngImagePlugin.PngInfo()
        info.add_text("depth_scale", str(self.png_scale))
        steps = self._png_steps() if ending == ".png" else None
        with atomic(path) as file:
            if steps is not None:
                Image.fromarray(steps).save(file, format="PNG", pnginfo=info)
            elif ending == ".npy":
                np.save(file, self.metres)
            elif ending == ".npz":
                np.savez(file, depth=self.metres, uncertainty=self.uncertainty)
            else:
                Image.fromarray(self.metres).save(file, format="TIFF")

    @property
    def png_scale(self) -> int | float:
        """Steps per metre in a 16-bit PNG: 1000 where it holds the depth range (and this map), else KITTI's 256, else a power of two."""
        return png_scale(max(self.depth_range[1], float(self.metres.max(initial=0))))

    def _png_steps(self) -> NDArray[np.uint16]:
        """Depth in steps of a 16-bit PNG."""
        if self.metres.min(initial=0) < 0:
            raise DataError(f"depth of {self.metres.min():.4g} m is below 0, which a 16-bit PNG cannot hold: save it as .npy")
        scale, steps = self.png_scale, np.empty(self.metres.shape, np.uint16)
        for top in range(0, len(steps), ROWS):
            metres = self.metres[top : top + ROWS].astype(np.float64)
            steps[top : top + ROWS] = np.where(metres > 0, np.rint(metres * scale).clip(1), 0)
        return steps

    def colour(self, depth_range: tuple[float, float] | None = None, colour_map: str = COLOURS) -> Image.Image:
        """Depth in colour, near = bright.

        Args:
            depth_range: (lo, hi) metres, the ends of the colour map; None takes this map's own smallest and largest depth.
            colour_map: one of matplotlib's, which begins at the near end.

        Raises:
            UsageError: for an unknown colour map.
        """
        lo, hi = depth_range or (float(self.metres.min()), float(self.metres.max()))
        picture = Image.new("RGB", (self.metres.shape[1], self.metres.shape[0]))
        for top in range(0, len(self.metres), ROWS):
            picture.paste(Image.fromarray(colourise(self.metres[top : top + ROWS], lo, hi, colour_map)), (0, top))
        return picture

    def to_pipeline(self) -> dict[str, Any]:
        """Depth as the depth-estimation pipeline of `transformers` gives it.

        Returns:
            "predicted_depth": a tensor [H, W] float32 in metres, on the CPU, and "depth": a grey PIL image of 8 bits, from 0 for this map's
            smallest depth to 255 for its largest.
        """
        import torch

        lo, hi = float(self.metres.min()), float(self.metres.max())
        grey = np.empty(self.metres.shape, np.uint8)
        for top in range(0, len(grey), ROWS):
            grey[top : top + ROWS] = (self.metres[top : top + ROWS] - lo) / max(hi - lo, 1e-6) * 255
        return {"predicted_depth": torch.from_numpy(self.metres), "depth": Image.fromarray(grey)}

    def side_by_side(self, depth_range: tuple[float, float] | None = None, colour_map: str = COLOURS) -> Image.Image:
        """Photo, depth in colour with a scale in metres, and uncertainty, in one picture.

        Args:
            depth_range: (lo, hi) metres, the ends of depth's colour map; None takes this map's own smallest and largest depth. Uncertainty
                always has its own.
            colour_map: of depth, as for `colour`.

        Raises:
            UsageError: for an unknown colour map.
        """
        check_colour_map(colour_map)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = self.metres.shape
        figure = Figure(figsize=(15, 15 / 3 * height / width + 0.7), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes: Any = figure.subplots(1, 3)
        thin = max(1, max(height, width) // PICTURE)
        axes[0].imshow(self.image[::thin, ::thin])
        axes[0].set_title("image")
        lo, hi = depth_range or (None, None)
        for ax, values, title, cmap, least, most in (
            (axes[1], self.metres, "depth (m)", colour_map, lo, hi),
            (axes[2], self.uncertainty, "uncertainty (m)", "viridis", None, None),
        ):
            figure.colorbar(ax.imshow(values[::thin, ::thin], cmap=cmap, vmin=least, vmax=most), ax=ax, shrink=0.85)
            ax.set_title(title)
        for ax in axes:
            ax.set_axis_off()
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _check(name: str, values: NDArray[np.float32], metres: NDArray[np.float32]) -> None:
    """Raise UsageError unless a map is [H, W] like depth, DataError where it holds no numbers."""
    if metres.ndim != 2 or values.shape != metres.shape:
        shapes = f"{list(metres.shape)} and {list(values.shape)}"
        raise UsageError(f"a depth map needs depth and uncertainty [H, W] in metres; these are {shapes}")
    if bad := values.size - sum(int(np.isfinite(values[top : top + ROWS]).sum()) for top in range(0, len(values), ROWS)):
        raise DataError(f"{name} is no number at {bad} of {values.size} pixels: there is no map to save or show")


def png_scale(largest: float) -> int | float:
    """Steps per metre of a 16-bit PNG that holds depths up to `largest` metres.

    Example:
        >>> [png_scale(metres) for metres in (10.0, 80.0, 300.0, 100_000.0)]
        [1000, 256, 128, 0.5]
    """
    for scale in (1000, 256):
        if largest * scale < MOST:
            return scale
    return 2 ** math.floor(math.log2(MOST / largest))


def colourise(metres: NDArray[np.float32], lo: float, hi: float, colour_map: str = COLOURS) -> NDArray[np.uint8]:
    """Depth in colour, near = bright.

    Args:
        metres: [H, W].
        lo: metres, the near end of the colour map; nearer depths look the same.
        hi: metres, the far end; farther depths look the same.
        colour_map: one of matplotlib's, which begins at the near end.

    Returns:
        RGB uint8 [H, W, 3].

    Raises:
        UsageError: for an unknown colour map.
    """
    from matplotlib import colormaps

    check_colour_map(colour_map)
    share = np.clip((metres - lo) / max(hi - lo, 1e-6), 0, 1)
    return (colormaps[colour_map](share)[..., :3] * 255).round().astype(np.uint8)


def check_colour_map(name: str) -> None:
    """Raise UsageError for a name that matplotlib has no colour map of."""
    from matplotlib import colormaps

    if name not in colormaps:
        raise unknown("colour map", name, (known for known in colormaps if not known.endswith("_r")))
