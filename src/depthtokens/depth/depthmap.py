"""A predicted depth map: metres, uncertainty, and the files and pictures made of them. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from ..errors import UsageError
from ..files import atomic


@dataclass(frozen=True)
class DepthMap:
    """Depth of one image.

    Attributes:
        metres: [H, W] float32, depth.
        uncertainty: [H, W] float32 metres, the standard deviation of depth over the bins' probabilities.
        probs: [N, h, w] float32, probabilities of the bins at patch resolution.
        depth_range: (lo, hi) metres, of the model.
        image: uint8 [H, W, 3], the photo.
    """

    metres: NDArray[np.float32]
    uncertainty: NDArray[np.float32]
    probs: NDArray[np.float32]
    depth_range: tuple[float, float]
    image: NDArray[np.uint8]

    def save(self, path: str | Path) -> None:
        """Write depth to a file.

        Args:
            path: ends in .npy (float32 metres) or .png (16 bits: millimetres, or KITTI's 1/256 m where the range passes 65.535 m; the
                text field `depth_scale` says its units per metre).

        Raises:
            UsageError: for another ending.
            DepthTokensError: where the file cannot be written.
        """
        path = Path(path)
        if path.suffix == ".npy":
            with atomic(path) as file:
                np.save(file, self.metres)
        elif path.suffix == ".png":
            info = PngImagePlugin.PngInfo()
            info.add_text("depth_scale", str(self.png_scale))
            steps = np.rint(self.metres.astype(np.float64) * self.png_scale).clip(0, 65535).astype(np.uint16)
            with atomic(path) as file:
                Image.fromarray(steps).save(file, format="PNG", pnginfo=info)
        else:
            raise UsageError(f"depth is saved as .png or .npy, not '{path.suffix}'")

    @property
    def png_scale(self) -> int:
        """Units per metre in a 16-bit PNG."""
        return 1000 if self.depth_range[1] * 1000 <= 65535 else 256

    def colour(self, depth_range: tuple[float, float] | None = None) -> Image.Image:
        """Depth in colour, near = bright.

        Args:
            depth_range: (lo, hi) metres, the ends of the colour map; None takes this map's own smallest and largest depth.
        """
        lo, hi = depth_range or (float(self.metres.min()), float(self.metres.max()))
        return Image.fromarray(colourise(self.metres, lo, hi))

    def side_by_side(self) -> Image.Image:
        """Photo, depth in colour with a scale in metres, and uncertainty, in one picture."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = self.metres.shape
        figure = Figure(figsize=(15, 15 / 3 * height / width + 0.7), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes: Any = figure.subplots(1, 3)
        axes[0].imshow(self.image)
        axes[0].set_title("image")
        for ax, values, title, cmap in (
            (axes[1], self.metres, "depth (m)", "magma_r"),
            (axes[2], self.uncertainty, "uncertainty (m)", "viridis"),
        ):
            figure.colorbar(ax.imshow(values, cmap=cmap), ax=ax, shrink=0.85)
            ax.set_title(title)
        for ax in axes:
            ax.set_axis_off()
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def colourise(metres: NDArray[np.float32], lo: float, hi: float) -> NDArray[np.uint8]:
    """Depth in colour, near = bright.

    Args:
        metres: [H, W].
        lo: metres, the bright end of the colour map; nearer depths look the same.
        hi: metres, the dark end; farther depths look the same.

    Returns:
        RGB uint8 [H, W, 3].
    """
    from matplotlib import colormaps

    share = np.clip((metres - lo) / max(hi - lo, 1e-6), 0, 1)
    return (colormaps["magma_r"](share)[..., :3] * 255).round().astype(np.uint8)
