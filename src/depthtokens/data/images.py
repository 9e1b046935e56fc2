"""Reading photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError


def read_rgb(path: str | Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] of an image file, upright as its EXIF says. Raises DataError for a missing, truncated or non-image file."""
    try:
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"no image at {path}") from None
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read image {path}: truncated or not an image ({type(error).__name__})") from error
