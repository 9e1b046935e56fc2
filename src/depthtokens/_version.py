"""The version, in the one place that package, files and build read it from."""

from __future__ import annotations

import importlib

__version__ = "0.1.0"


def versions(*packages: str) -> dict[str, str]:
    """This package's version and those of others, by name, as files keep them."""
    return {"depthtokens": __version__, **{name: str(importlib.import_module(name).__version__) for name in packages}}
