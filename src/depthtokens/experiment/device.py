"""Which device a run uses."""

from __future__ import annotations

import torch

from ..errors import UsageError, unknown


def find_device(name: str) -> torch.device:
    """auto picks cuda, then mps, then cpu. Raises UsageError for a device that is unknown or not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    kind = name.partition(":")[0]
    if kind not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[kind]:
        raise UsageError(f"no {kind} device on this machine: use --device {' or '.join(k for k, ok in there.items() if ok)}")
    try:
        return torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device: write {kind}, or {kind}:0 for the first") from None
