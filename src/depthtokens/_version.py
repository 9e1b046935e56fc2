"""The version, in the one place from which package, files and build read it."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"


def versions(*packages: str) -> dict[str, str]:
    """Name -> version, of this package and of others by their import names, as files keep them."""
    return {"depthtokens": __version__, **{name: str(importlib.import_module(name).__version__) for name in packages}}
