"""What tensors must look like: a wrong shape is an error that says what is wanted, never a figure."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError


def need(value: Any, what: str, shape: str, dtype: torch.dtype | None = None, hint: str = "") -> None:
    """Raise UsageError unless a value is a tensor of a shape and a type. Looks at no number, so it costs nothing and exports.

    Args:
        value: whatever was given.
        what: its name in the error.
        shape: as in docstrings, "[B, 3, H, W]": numbers must be met, letters stand for any length from 1 on; "[...]" is any shape.
        dtype: the type that it must have; None for any floating point.
        hint: what to do instead, said behind.
    """
    wanted = shape.strip("[]").split(", ")
    fits = isinstance(value, Tensor) and (value.dtype == dtype if dtype else value.is_floating_point())
    if fits and shape != "[...]":
        fits = value.ndim == len(wanted) and all(n == int(w) for n, w in zip(value.shape, wanted, strict=True) if w.isdigit())
    if not fits:
        kind = str(dtype).removeprefix("torch.") if dtype else "floating point"
        found = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"{what}: needs a tensor {shape}, {kind}; this is {found}{f' ({hint})' if hint else ''}")


def need_images(images: Any) -> None:
    """Raise UsageError unless `images` are [B, 3, H, W], floating point."""
    need(images, "images", "[B, 3, H, W]", hint="normalised, as data sets hand them out; `predict` takes photos")


def need_features(patches: Any, text: Any, bins: int) -> None:
    """Raise UsageError unless patch features and text features fit together.

    Args:
        patches: must be [B, C, h, w].
        text: must be [N, C], or [B, N, C] for each image its own.
        bins: must be N.
    """
    need(patches, "patches", "[B, C, h, w]")
    own = [len(patches)] if isinstance(text, Tensor) and text.ndim == 3 else []
    need(text, "text", "[B, N, C]" if own else "[N, C]")
    wanted = [*own, bins, patches.shape[1]]
    if list(text.shape) != wanted:
        raise UsageError(f"text: needs {wanted}, a row per bin as wide as the patches; this is {list(text.shape)}")


def need_same(a: Tensor, b: Tensor, names: str) -> None:
    """Raise UsageError unless two tensors have one shape.

    Args:
        a: one tensor.
        b: the other.
        names: what the error calls them.
    """
    if a.shape != b.shape:
        raise UsageError(f"{names}: need one shape; these are {list(a.shape)} and {list(b.shape)}")
