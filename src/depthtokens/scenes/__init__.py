"""Procedural scenes with exact depth, and captions of what they show.

Names load on first use: importing this loads neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .content import DEPTH_RANGE, DEPTH_SCALE, RENDERER_VERSION, Content, Thing

if TYPE_CHECKING:
    from .captions import caption
    from .dataset import Scenes
    from .renderer import Scene, render
    from .write import write_folder

_HOMES = {"caption": "captions", "Scenes": "dataset", "Scene": "renderer", "render": "renderer", "write_folder": "write"}

__all__ = ["DEPTH_RANGE", "DEPTH_SCALE", "RENDERER_VERSION", "Content", "Scene", "Scenes", "Thing", "caption", "render", "write_folder"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
