"""The precision in which the frozen image tower runs; everything learned stays in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ..errors import unknown

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which matrix products and convolutions run in `precision`. Raises UsageError for an unknown one."""
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=PRECISIONS[precision])
