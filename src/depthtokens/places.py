"""Where things lie on this machine, as files that go to others may say it: by the last part of the path alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLACES = {"clip", "data", "list_file", "out", "spec", "stores", "tokens", "train_list", "weights"}
"""Settings that may be paths, relative ones too."""
WORDS = {"template", "depth", "init", "bins", "words", "row"}
"""Settings that are never paths, whatever they look like."""
_KIND = re.compile(r"(?!hf-hub:)[a-z][a-z0-9-]+:")
"""What may stand before a path, as in folder:ROOT; one letter is a drive."""
_HUB = re.compile(r"hf:[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@.*)?", re.ASCII)
"""A name of the hub; behind "hf:" may also stand a folder."""
_ABSOLUTE = re.compile(r"/|~[^/\\]*[/\\]|[A-Za-z]:[/\\]|\\\\")


def last_part(text: str) -> str:
    """A path by its last part, with the kind of data before it; a name of the hub, or anything that is no path, stays as it is.

    Example:
        >>> last_part("folder:/data/rooms/"), last_part("hf:user/name@v1"), last_part("hf:/data/siglip")
        ('folder:rooms', 'hf:user/name@v1', 'hf:siglip')
    """
    if text.startswith("hf-hub:") or _HUB.fullmatch(text) or not re.search(r"[/\\~]", text):
        return text
    found = _KIND.match(text)
    kind = found[0] if found else ""
    parts = [part for part in re.split(r"[/\\]+", text[len(kind) :]) if part not in ("", ".", "..", "~")]
    return kind + (re.sub(r"^([A-Za-z]:|~.*)$", "", parts[-1]) if parts else "")


def for_others(values: Any, name: str = "") -> Any:
    """Plain values without the places of this machine: paths are their last part.

    Args:
        values: plain values; what `PLACES` name may be a path, and whatever begins as an absolute one does is taken for one.
        name: under which they stand.
    """
    if isinstance(values, Mapping):
        return {key: for_others(value, key) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [for_others(value, name) for value in values]
    if isinstance(values, str) and name not in WORDS:
        found = _KIND.match(values)
        return last_part(values) if name in PLACES or _ABSOLUTE.match(values, found.end() if found else 0) else values
    return values
