"""Where a frozen CLIP runs, and in which precision; everything learned stays in float32."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from ..errors import UsageError, unknown
from . import PRECISIONS

if hasattr(os, "register_at_fork"):
    # A process that is forked from one that has computed with several threads has none of them, and would wait for them for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name, once it is known to be there.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or "auto", which picks cuda, then mps, then cpu.

    Raises:
        UsageError: for a device that is unknown or not there.
    """
    name = str(name)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if there["cuda"] else "mps" if there["mps"] else "cpu")
    kind = name.partition(":")[0]
    if kind not in there:
        raise unknown("device", name, ["auto", *there])
    if not there[kind]:
        raise UsageError(f"no {kind} device on this machine: use --device {' or '.join(k for k, ok in there.items() if ok)}")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"'{name}' is no device: write {kind}, or {kind}:0 for the first") from None
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no {name} on this machine: it has cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return device


def stamp(weights: Iterable[Tensor]) -> tuple[tuple[object, ...], ...]:
    """What tells weights from changed ones without reading them: where they lie, their type, and how often they were written.

    Only what is written through `.data` into the same memory is not noticed.
    """
    return tuple((w.data_ptr(), w.dtype, w.device, 0 if w.is_inference() else w._version) for w in weights)


def may_read(values: Tensor) -> bool:
    """Whether a check may look at numbers: not on a GPU, for which this process would have to wait, nor in a graph, where there are none.

    What is not checked there is noticed by whoever reads the result.
    """
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device. From the processor to a CUDA device they are copied while this process goes on, by way of pinned memory."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def dtype_of(precision: str) -> torch.dtype:
    """A precision as torch's type. Raises UsageError unless it is one of `PRECISIONS`."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise unknown("precision", str(precision), PRECISIONS)
    dtype = getattr(torch, precision)
    assert isinstance(dtype, torch.dtype)
    return dtype


def precision_of(dtype: torch.dtype) -> str:
    """The name of a type, as `PRECISIONS` has it. Raises UsageError for one that is none of them."""
    name = str(dtype).removeprefix("torch.")
    dtype_of(name)
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which matrix products and convolutions run in `precision`.

    Args:
        device: where they run.
        precision: one of `PRECISIONS`; float32 changes nothing.

    Raises:
        UsageError: for an unknown precision.
    """
    dtype = dtype_of(precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
