"""Token files: tensors in safetensors, everything else as JSON in its header; CLIP is named and fingerprinted, never stored.

This module knows the file format only; what the tensors are for, `model` knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import UsageError, WeightsError
from ..files import atomic, user_path
from .settings import Header

Tensors = dict[str, Tensor]
TOKENS = "tokens.safetensors"
"""What `train` calls the token file in a run's folder."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to a .safetensors file, whole or not at all.

    Args:
        path: the file.
        tensors: by name.
        metadata: what the header holds, as plain values.

    Raises:
        DepthTokensError: where the file cannot be written.
    """
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {"depthtokens": json.dumps(metadata)})
    with atomic(path) as file:
        file.write(content)


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and JSON header of a file that `write` wrote. Raises WeightsError for any other file, or a damaged one."""
    if not path.is_file():
        raise WeightsError(f"no token file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("depthtokens")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if header is None:
            raise WeightsError(f"{path} is a safetensors file, but not one of depthtokens")
        metadata = json.loads(header)
        if not isinstance(metadata, dict):
            raise ValueError("its header is no table")
        return tensors, metadata
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged or not a token file ({error})") from error


def write_tokens(path: Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write a token file.

    Args:
        path: the file.
        tensors: what was trained, by name, as `DepthTokens.state` gives it.
        header: everything else.

    Raises:
        DepthTokensError: where the file cannot be written.
    """
    write(path, tensors, header.to_dict())


def read_tokens(path: Path) -> tuple[Tensors, Header]:
    """What `write_tokens` wrote.

    Args:
        path: the file, or the folder of the run that wrote it.

    Returns:
        Tensors by name, and the header.

    Raises:
        WeightsError: for a file that is damaged or of another kind, whose header and tensors do not fit together, or whose tensors are no
            numbers.
    """
    path = token_file(path)
    tensors, metadata = read(path)
    try:
        header = Header.from_dict(metadata, {name: tuple(value.shape) for name, value in tensors.items()})
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from error
    check_finite(tensors, str(path))
    return tensors, header


def token_file(path: str | Path) -> Path:
    """A token file as a person names it: by its path, ~ included, or by the folder of the run that wrote it.

    Raises:
        WeightsError: for a folder that holds none.
    """
    path = user_path(path)
    if not path.is_dir():
        return path
    if not (path / TOKENS).is_file():
        raise WeightsError(f"{path} is a folder without {TOKENS}: name a token file, or the folder of a run that has ended")
    return path / TOKENS


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise WeightsError, with what to do, for tensors that hold NaN or infinity: no depth comes of them.

    Args:
        tensors: by name.
        source: what the error calls their owner.
    """
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise WeightsError(
                f"{source}: '{name}' holds {count} values that are no numbers (of {value.numel()}): its training went astray; "
                "train again with a lower --lr, or take tokens from before"
            )


def restore(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy tensors of a file into those that stand in a model.

    Args:
        expected: the model's own, by name; they are changed.
        tensors: of the file; more than are expected do no harm.
        source: what errors call the file.

    Raises:
        WeightsError: where names or shapes differ; then nothing has changed.
    """
    for name, value in expected.items():
        if name not in tensors or tensors[name].shape != value.shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise WeightsError(f"{source}: '{name}' should be {tuple(value.shape)}, found {found}")
    for name, value in expected.items():
        value.detach().copy_(tensors[name])
