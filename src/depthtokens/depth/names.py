"""What files of one image's depth are called. Free of torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

ENDINGS = {
    "png": "_depth.png", "npy": "_depth.npy", "tiff": "_depth.tiff", "colour": "_colour.png", "ply": "_cloud.ply", "glb": "_cloud.glb",
    "npz": "_depth.npz", "side": "_side.png",
}  # fmt: skip
"""Format -> how its files' names end. What takes memory for uncertainty, of a photo of 100 megapixels as much as depth, comes last."""
DEPTHS = ("png", "npy", "npz", "tiff")
"""Formats that hold depth; the others are pictures and points."""
LONGEST = 200
"""Bytes of the longest name that a result gets; file systems take 255, some of which a file needs while it is being written."""


def result_name(photo: Path, ending: str) -> str:
    """The name of a photo's result: the photo's own and an ending, cut and told apart by a hash where file systems take no longer one."""
    name = photo.stem + ending
    if len(name.encode()) <= LONGEST:
        return name
    short = photo.stem.encode()[: LONGEST - len(ending) - 10].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(photo.stem.encode()).hexdigest()[:8]}{ending}"
