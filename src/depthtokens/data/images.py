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


LARGEST = 16_000_000
"""Pixels that a photo is enlarged to at most; as many as fifty images of 480x640."""


def shown_at(rgb: NDArray[np.uint8], side: int | None, stride: int) -> NDArray[np.uint8]:
    """A photo as CLIP is shown it: at the scale of its training, without a pixel that no patch covers.

    Args:
        rgb: [H, W, 3] uint8.
        side: pixels that the shorter side is brought to, up or down, so that a portrait gets as many patches as the same photo lying down;
            None keeps the photo's own scale.
        stride: pixels per patch; both sides become the nearest multiple of it.

    Returns:
        [h, w, 3] uint8.

    Raises:
        DataError: for a photo that is less than half a patch high or wide, or would have to be enlarged beyond `LARGEST` pixels.
        UsageError: for a side of less than a patch.
    """
    if side is not None and (not isinstance(side, int | np.integer) or side < stride):
        raise UsageError(f"side {side}: needs a whole number of pixels, at least {stride}, which is one patch")
    height, width = rgb.shape[:2]
    h, w = shown_size((height, width), side, stride)
    if min(h, w) == 0:
        raise DataError(f"image of {height}x{width} pixels is smaller than one {stride}x{stride} patch: show it larger with --side 480")
    if h * w > max(LARGEST, height * width):
        raise DataError(f"image of {height}x{width} pixels would be shown at {h}x{w}: crop it, or give a smaller --side than {side}")
    return rgb if (h, w) == (height, width) else np.array(Image.fromarray(rgb).resize((w, h), Image.Resampling.BICUBIC))


def shown_size(size: tuple[int, int], side: int | None, stride: int) -> tuple[int, int]:
    """Height and width at which a photo of `size` (H, W) is shown, as `shown_at` says; 0 where not half a patch is left.

    Example:
        >>> shown_size((3000, 4000), 480, 32), shown_size((4000, 3000), 480, 32), shown_size((375, 1242), 352, 32)
        ((480, 640), (640, 480), (352, 1152))
    """
    scale = 1.0 if side is None else side / min(size)
    height, width = (stride * int(length * scale / stride + 0.5) for length in size)
    return height, width


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
