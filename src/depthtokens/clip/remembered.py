"""CLIPs that this user has loaded from files or the hub, by fingerprint: what a token file may be used with, and cannot choose itself.

Kept in the user's cache folder, for convenience: what cannot be kept, or read again, is forgotten in silence. Loads no torch.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..errors import DepthTokensError
from ..files import cache_folder, locked, sealed, unsealed, write_text

CLIPS = "clips.json"
MOST = 256
"""CLIPs that are remembered, the latest."""
PLACES = 16
"""Places of one CLIP that are remembered, the latest: files are moved and deleted."""
LARGEST = 2**20
"""Bytes of the largest file that is read."""


def remember(name: str, weights: str | None, fingerprint: str) -> None:
    """Keep what a CLIP was loaded as.

    Args:
        name: as `load_clip` takes it; a path is absolute.
        weights: likewise.
        fingerprint: of the CLIP, 64 hex digits.
    """
    if recall(fingerprint)[:1] == [(name, weights)]:
        return
    with suppress(DepthTokensError, OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            known = {**_read(folder / CLIPS)}
            before = [place for place in recall(fingerprint) if place != (name, weights)]
            known.pop(fingerprint, None)
            known[fingerprint] = [{"name": name, "weights": weights} for name, weights in [(name, weights), *before][:PLACES]]
            latest = dict(list(known.items())[-MOST:])
            write_text(folder / CLIPS, json.dumps(sealed(latest), indent=1) + "\n")


def recall(fingerprint: str) -> list[tuple[str, str | None]]:
    """Name and weights, as `load_clip` takes them, by which a CLIP was loaded before: the latest first, none for one that is not known."""
    with suppress(OSError, RuntimeError):
        kept = _read(cache_folder() / CLIPS).get(fingerprint)
        if isinstance(kept, list):
            places = [(place.get("name"), place.get("weights")) for place in kept if isinstance(place, dict)]
            return [(name, weights) for name, weights in places if isinstance(name, str) and isinstance(weights, str | None)]
    return []


def _read(path: Path) -> dict[str, object]:
    """What is kept; nothing where that is damaged."""
    try:
        return unsealed(path.read_bytes()) if path.stat().st_size <= LARGEST else {}
    except (OSError, ValueError):
        return {}
