"""Files that are no photos, or not as they say."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

from helpers import photo


def claims(width, height):
    """A PNG whose header says a size that its content does not have."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    parts = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg(*size):
    file = io.BytesIO()
    Image.fromarray(photo(*size)).save(file, format="JPEG")
    return file.getvalue()


HOSTILE = {
    "bomb.png": (claims(60_000, 60_000), "3600 megapixels"),
    "large.png": (claims(6000, 5000), "30 megapixels (5000x6000), more than the 25"),
    "narrow.png": (claims(100_000, 60), "too long and narrow"),
    "short.jpg": (jpeg(90, 120)[:2000], "cannot read"),
    "photo.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "it is not an image"),
    "photo.png": (b"", "it is not an image"),
    "photo.gif": (b"%PDF-1.4", "it is PDF"),
}
"""Name -> content that is no photo to predict, and what is said."""
