"""Photos as CLIP is shown them: read, turned upright, brought to size. Free of torch, so that every engine shows the same pixels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError, UsageError

Photo = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a PIL image, or RGB uint8 [H, W, 3]."""


def read_image(path: Path, *, upright: bool = False) -> NDArray[np.uint8]:
    """Read an 8-bit image file.

    Args:
        path: the file.
        upright: turn it as its EXIF says; for photos, not for data sets, whose depth maps are stored as the image's pixels are.

    Returns:
        RGB [H, W, 3] uint8.

    Raises:
        DataError: where it is missing, damaged, or no such image.
    """
    with reading("image", path), Image.open(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            # Pillow would clip it to white instead of scaling it.
            raise DataError(f"{path} is a map of more than 8 bits, not a colour image: are image and depth swapped?")
        return np.array((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))


def read_photo(image: Photo) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8 of one photo. Raises DataError for a file that is no image, UsageError for an array that is none."""
    if isinstance(image, str | Path):
        return read_image(Path(image), upright=True)
    rgb = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise UsageError(f"predict takes RGB images uint8 [H, W, 3], this is {rgb.dtype} {list(rgb.shape)}")
    return rgb


def shown_at(rgb: NDArray[np.uint8], side: int | None) -> NDArray[np.uint8]:
    """A photo as CLIP is shown it.

    Args:
        rgb: [H, W, 3] uint8.
        side: the height in pixels that a taller photo is brought to, its width along with it; None to leave it as it is.

    Returns:
        [h, w, 3] uint8.
    """
    height, width = rgb.shape[:2]
    if side is None or height <= side:
        return rgb
    return np.array(Image.fromarray(rgb).resize((max(32, round(width * side / height)), side), Image.Resampling.BICUBIC))


def named(image: Photo) -> str:
    """What an error calls a photo."""
    return str(image) if isinstance(image, str | Path) else "this image"


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turn whatever a decoder throws into one line: on damaged bytes they raise far more than OSError (SyntaxError, struct.error, ...).

    Args:
        what: the file's part in the story ("image", "depth map").
        path: the file.

    Raises:
        DataError: instead of any other error in the block.
    """
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {what} {path}: it is not an image") from error
    except FileNotFoundError as error:
        raise DataError(f"cannot read {what} {path}: no such file") from error
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {what} {path}: {reason}") from error
