"""The one door for photos: files, bytes, PIL images, arrays, tensors go through `read_photo`. Free of torch: all engines see the same."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..errors import DataError, UsageError, cut
from ..files import user_path

if TYPE_CHECKING:
    from torch import Tensor

Photo: TypeAlias = "str | Path | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | Tensor"
"""One photo, as `read_photo` takes it."""
THIS = "this image"
"""What errors call a photo that has no name."""

MOST_PIXELS = 300_000_000
"""Larger images are refused: they would not fit into memory, and CLIP is shown a few hundred rows in any case."""


class Format(NamedTuple):
    """An image format that is read.

    Attributes:
        name: as a person calls it.
        endings: of its files, in small letters.
        starts: what its files begin with.
        open: reads a file's header.
    """

    name: str
    endings: tuple[str, ...]
    starts: tuple[bytes, ...]
    open: Callable[[Path | IO[bytes]], Image.Image]


FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    Format("PNG", (".png",), (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    Format("TIFF", (".tif", ".tiff"), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    Format("BMP", (".bmp",), (b"BM",), BmpImagePlugin.BmpImageFile),
    Format("WebP", (".webp",), (b"RIFF",), WebPImagePlugin.WebPImageFile),
    Format("GIF", (".gif",), (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
)
"""All formats that are read, of several pictures the first. A file is opened as what it begins with, whatever its ending."""

ENDINGS = frozenset(ending for known in FORMATS for ending in known.endings)
RAW = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"}
UNREAD = RAW | {".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".psd", ".eps", ".exr", ".hdr", ".ppm", ".pgm", ".pnm", ".tga"}
"""Endings of files that look like photos and are not read."""

_OTHERS = {
    b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"%PDF": "PDF", b"8BPS": "a Photoshop file", b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL ": "JPEG XL", b"v/1\x01": "OpenEXR", b"P5": "PGM", b"P6": "PPM",
    b"\x93NUMPY": "a NumPy array", b"version https://git-lfs": "a pointer of Git LFS (fetch the file itself)",
    b"\0\5\x16\7": "a companion file of macOS",
}  # fmt: skip
_BRANDS = {b"hei": "HEIC", b"hev": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC", b"avi": "AVIF", b"crx": "a camera's raw file"}

_ADDRESS = re.compile(r"(?i)[a-z][a-z0-9+.-]+:/|data:")
_ORIENTATION = 0x0112
_TURNS = {
    2: (False, slice(None), slice(None, None, -1)), 3: (False, slice(None, None, -1), slice(None, None, -1)),
    4: (False, slice(None, None, -1), slice(None)), 5: (True, slice(None), slice(None)), 6: (True, slice(None), slice(None, None, -1)),
    7: (True, slice(None, None, -1), slice(None, None, -1)), 8: (True, slice(None, None, -1), slice(None)),
}  # fmt: skip
"""EXIF orientation -> whether rows and columns change places, and then how the upright image's rows and columns run."""
_STRIP = 128  # rows of an image that are turned into RGB at a time: Pillow's copies of a whole large one would not fit into memory


class Header(NamedTuple):
    """What an image file says of itself before its pixels are decoded.

    Attributes:
        height, width: in pixels, of the upright image.
        orientation: EXIF's, 1 to 8; 1 where the file is stored upright, or says nothing that can be read.
    """

    height: int
    width: int
    orientation: int


def read_photo(image: Photo) -> NDArray[np.uint8]:
    """The pixels of a photo, upright, whichever way it is given.

    A file or PIL image is turned as its EXIF orientation says. Transparent parts are laid over white. Palette, grey and CMYK images become
    RGB; 16 bits per colour become 8.

    Args:
        image: a path; the bytes of an image file; a file object, opened in binary mode and read from its start where it can be rewound; a
            PIL image; a tensor [3, H, W] of the values that arrays have; or an array (see `from_array`).

    Returns:
        RGB [H, W, 3] uint8.

    Raises:
        DataError: for a file or PIL image that is no such photo.
        UsageError: for an array or tensor that is none, an address on the web, or a file object that gives text.
    """
    if isinstance(image, str | Path):
        try:
            return read_image(user_path(image))
        except DataError as error:
            if not (_ADDRESS.match(str(image)) and isinstance(error.__cause__, OSError)):
                raise
            raise UsageError(f"{cut(str(image), 80)} is an address, and nothing is fetched: download it, then give the file") from error
    if isinstance(image, bytes | bytearray | memoryview):
        return _read(io.BytesIO(image))
    if isinstance(image, Image.Image):
        with reading("image", THIS):
            return _upright_rgb(image, THIS)
    if callable(getattr(image, "read", None)):
        return _read(_content(image))
    if is_tensor(image):
        return _from_tensor(image)
    return from_array(image)


def is_tensor(image: Any) -> bool:
    """Whether something is a tensor of torch, which is not loaded for that: whoever has a tensor has loaded it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file: RGB [H, W, 3] uint8, upright. Raises DataError where it is missing, damaged, too large, or no such image."""
    return _read(path)


def read_header(path: Path) -> Header:
    """The size of an image file, upright, without its pixels. Raises DataError as `read_image`."""
    with opened(path) as image:
        code = _stated_orientation(image, path)
        lying = code >= 5 and image.format != "TIFF"  # Pillow gives a TIFF's size upright
        width, height = reversed(image.size) if lying else image.size
        return Header(height, width, code)


def from_array(image: Any) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8 of an array.

    Args:
        image: [H, W] or [H, W, 1] grey, [H, W, 3] RGB or [H, W, 4] RGB with alpha; uint8 in 0..255, floats in 0..1, or in colour uint16 in
            0..65535. Strides may be negative. OpenCV's arrays are BGR: give `image[..., ::-1]`.

    Raises:
        UsageError: for anything else.
    """
    try:
        given = np.asarray(image)
    except Exception as error:  # a ragged list, an object that promises an array and has none
        raise UsageError(
            f"a photo is a path, bytes, a file object, a PIL image, an array uint8 [H, W, 3] or a tensor [3, H, W], "
            f"not this {type(image).__name__} ({error})"
        ) from error
    shape = list(given.shape)
    if given.ndim == 2:
        given = given[..., None]
    if given.ndim != 3 or given.shape[2] not in (1, 3, 4) or not given.size:
        raise UsageError(f"predict takes RGB images uint8 [H, W, 3], this is {given.dtype} {shape}{_meant(given)}")
    if given.dtype.kind == "f":
        if not (np.isfinite(given).all() and given.min() >= 0 and given.max() <= 1):
            raise UsageError(
                f"an image of floats has values in 0..1, this {given.dtype} {shape} has others: scale it, or give uint8 "
                "(normalised images go to the model itself)"
            )
        given = np.rint(given * 255).astype(np.uint8)
    elif given.dtype.kind == "u" and given.dtype.itemsize == 2:
        if given.shape[2] < 3:
            raise UsageError(f"this is {given.dtype} {shape}: {_deep('it')}")
        given = (given >> 8).astype(np.uint8)  # as image files of 16 bits are read
    elif given.dtype != np.uint8:
        raise UsageError(f"predict takes RGB images uint8 [H, W, 3], this is {given.dtype} {shape}")
    if given.shape[2] == 4:
        return _upright_rgb(Image.frombytes("RGBA", (given.shape[1], given.shape[0]), np.ascontiguousarray(given).tobytes()), THIS)
    return np.ascontiguousarray(np.broadcast_to(given, (*given.shape[:2], 3)))


def _meant(given: NDArray[Any]) -> str:
    """What may have been meant by an array that is no photo, as the end of an error."""
    if given.ndim == 4:
        return " (several photos: give a list of them)"
    if given.ndim == 3 and given.shape[0] in (1, 3, 4):
        return " (channels go last; those of a tensor [3, H, W] go first)"
    return " (two channels may be many things: give grey [H, W], or RGB with alpha)" if given.ndim == 3 and given.shape[2] == 2 else ""


def _from_tensor(image: Any) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8 of a tensor on any device: [3, H, W], or with its channels last as an array has them. Raises as `from_array`."""
    try:
        values = image.detach().cpu()
        if values.is_floating_point() and values.element_size() < 4:  # NumPy does not know all of torch's short types
            values = values.float()
        array = (values.permute(1, 2, 0) if values.ndim == 3 and values.shape[0] == 3 else values).numpy()
    except Exception as error:  # a sparse one, one without values
        raise UsageError(f"a photo is a tensor [3, H, W] of numbers, not this one {list(image.shape)} ({error})") from error
    return from_array(array)


def _read(source: Path | IO[bytes]) -> NDArray[np.uint8]:
    """The pixels of an image file. Raises DataError as `opened`."""
    with opened(source) as image:
        return _upright_rgb(image, named(source))


def _content(file: Any) -> IO[bytes]:
    """What a file object gives, from its start where it can be rewound, as Pillow reads it."""
    with reading("image", THIS):
        if getattr(file, "seekable", bool)():
            file.seek(0)
        content = file.read()
    if not isinstance(content, bytes):
        raise UsageError(f"a file object must give bytes, this one gives {type(content).__name__}: open it with 'rb'")
    return io.BytesIO(content)


LARGEST = 16_000_000
"""Pixels that a photo is shown with at most, as many as fifty images of 480x640: CLIP takes a hundred bytes and more for each."""


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
        DataError: for a photo that is less than half a patch high or wide, or would have to be shown with more than `LARGEST` pixels.
        UsageError: for a side of less than a patch.
    """
    if side is not None and (not isinstance(side, int | np.integer) or side < stride):
        raise UsageError(f"side {side}: needs a whole number of pixels, at least {stride}, which is one patch")
    height, width = rgb.shape[:2]
    h, w = shown_size((height, width), side, stride)
    if min(h, w) == 0:
        raise DataError(f"image of {height}x{width} pixels is smaller than one {stride}x{stride} patch: show it larger with --side 480")
    if h * w > LARGEST:
        smaller = "show it smaller, as with --side 480" if side is None else f"give a smaller --side than {side}"
        raise DataError(f"image of {height}x{width} pixels would be shown at {h}x{w}: crop it, or {smaller}")
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
    return str(image) if isinstance(image, str | Path) else THIS


@contextmanager
def opened(source: Path | IO[bytes], what: str = "image") -> Iterator[Image.Image]:
    """An image file of one of the `FORMATS`, its pixels not decoded yet. Pillow's own guesses, limits and warnings are not used.

    Args:
        source: the file, or its content.
        what: its part in the story, for errors.

    Raises:
        DataError: where it is missing, damaged, larger than `MOST_PIXELS`, or something else; also for any error in the block.
    """
    name = named(source)
    with reading(what, name), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that say something odd
        if isinstance(source, Path):
            with source.open("rb") as file:
                start = file.read(64)
        else:
            start = source.read(64)
            source.seek(0)
        raw = isinstance(source, Path) and source.suffix.lower() in RAW
        known = next((known for known in FORMATS if start.startswith(known.starts)), None)
        if known is None or (known.name == "WebP" and start[8:12] != b"WEBP") or raw:
            other = "a camera's raw file" if raw else _other(start)
            advice = f"{other}, which is not read here: convert it to JPEG or PNG" if other else "not an image"
            raise DataError(f"cannot read {_subject(what, name)}: it is {advice}")
        image = known.open(source)
        try:
            check_pixels(image.height, image.width, f"cannot read {_subject(what, name)}: it")
            yield image
        finally:
            image.close()


@contextmanager
def reading(what: str, path: Path | str) -> Iterator[None]:
    """Turn whatever a decoder throws into one line: on damaged bytes they raise far more than OSError (SyntaxError, struct.error, ...).

    Args:
        what: the file's part in the story ("image", "depth map").
        path: the file, or what it is called.

    Raises:
        DataError: instead of any other error in the block.
    """
    try:
        yield
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"cannot read {_subject(what, path)}: it is not an image") from error
    except FileNotFoundError as error:
        raise DataError(f"cannot read {_subject(what, path)}: no such file") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {_subject(what, path)}: {reason}") from error


def _subject(what: str, path: Path | str) -> str:
    """A file with its part in the story, as the middle of an error."""
    return str(path) if path == THIS else f"{what} {path}"


def _other(start: bytes) -> str | None:
    """What a file is that begins so, where it is something known that is not read."""
    if start[4:8] == b"ftyp":
        return next((name for brand, name in _BRANDS.items() if start[8:].startswith(brand)), "a film or another container")
    return next((name for begin, name in _OTHERS.items() if start.startswith(begin)), None)


def check_pixels(height: int, width: int, who: str, most: int | None = None) -> None:
    """Raise DataError for a size beyond `most` pixels, `MOST_PIXELS` if not given; `who` is its sentence's subject."""
    most = most or MOST_PIXELS
    if width * height > most:
        size = f"{width * height / 1e6:.0f} megapixels ({height}x{width})"
        raise DataError(f"{who} has {size}, more than the {most // 1_000_000} that are read: make it smaller")


def _upright_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8 of a PIL image, turned as it says."""
    check_pixels(image.height, image.width, name)
    if image.mode.startswith("I") or image.mode == "F":
        raise DataError(f"{name} {_deep('is')}")  # Pillow would clip it to white instead of scaling it
    image.load()  # before its orientation is asked for: a PNG may say it at its end, and Pillow turns a TIFF itself
    across, rows, columns = _TURNS.get(_orientation(image), (False, slice(None), slice(None)))
    upright = np.empty((image.width, image.height, 3) if across else (image.height, image.width, 3), np.uint8)
    lying = upright[rows, columns]
    lying = lying.transpose(1, 0, 2) if across else lying
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        lying[top:bottom] = _rgb(image.crop((0, top, image.width, bottom)))
    return upright


def _deep(verb: str) -> str:
    """Why one channel of more than 8 bits is no photo."""
    return f"{verb} a map of more than 8 bits, not a colour image: are image and depth swapped? (A photo: scale it to 8 bits yourself)"


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """RGB [H, W, 3] uint8; transparent parts over white, since what their colours hide is not meant to be seen."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a PIL image, 1 where it has none, none that can be read, or a number that means nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # blocks that lie about their content raise errors of many kinds
        return 1
    return code if isinstance(code, int) and code in _TURNS else 1


def _stated_orientation(image: Image.Image, path: Path) -> int:
    """The same from a file's header alone."""
    if image.format == "TIFF":
        code = getattr(image, "tag_v2", {}).get(_ORIENTATION, 1)
        return code if code in _TURNS else 1
    # Pillow decodes a PNG to see whether something follows the pixels: to look through its chunks is much cheaper.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys() and not _has_chunk(path, b"eXIf"):
        return 1
    return _orientation(image)


def _has_chunk(path: Path, kind: bytes) -> bool:
    """Whether a PNG has a chunk of this kind."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == kind:
                return True
            file.seek(int.from_bytes(head[:4]) + 4, 1)
    return False
