"""Token files: tensors in safetensors, everything else as JSON in its header; CLIP is named and fingerprinted, never stored.

This module knows the file format only; what the tensors are for, `model` knows.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..clip.hubname import REPO, HubName
from ..errors import UsageError, WeightsError
from ..files import atomic, sealed, unsealed, user_path
from ..schema import check_plain
from .header import Header
from .hub import fetch, is_hub_name

Tensors = dict[str, Tensor]
KEY, TENSORS = "depthtokens", "tensors"
"""Under which safetensors' own header holds ours, and ours the SHA-256 of all tensors, which files of earlier versions lack."""
LARGEST = 2**24
"""Bytes of the largest header."""
TOKENS = "tokens.safetensors"
"""What `train` calls the token file in a run's folder."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header to a .safetensors file, whole or not at all.

    Args:
        path: the file.
        tensors: by name.
        metadata: what the header holds, as plain values.

    Raises:
        UsageError: for a header that is too large, or no plain values.
        DepthTokensError: where the file cannot be written.
    """
    content = packed(tensors, metadata)
    with atomic(path) as file:
        file.write(content)


def packed(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> bytes:
    """The file that `write` writes. Raises UsageError as that does."""
    check_plain(metadata, "header")
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    header = json.dumps(sealed({**metadata, TENSORS: tensors_sum(kept)}))
    if len(header) > LARGEST:
        raise UsageError(f"a header of {len(header)} bytes is too large for a token file: use fewer or shorter words")
    return save(kept, {KEY: header})


def read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and JSON header of a file that `write` wrote.

    A file from before there were checksums is read with a warning.

    Raises:
        WeightsError: for any other file, or a damaged one.
    """
    if not path.is_file():
        hub = f" (one of the hub is written 'hf:{path}')" if re.fullmatch(REPO, path.as_posix()) else ""
        raise WeightsError(f"no token file at {path}{hub}")
    try:
        with safe_open(path, framework="pt") as file:
            if (header := (file.metadata() or {}).get(KEY)) is None:
                raise WeightsError(f"{path} is a safetensors file, but not one of depthtokens")
            if len(header) > LARGEST:
                raise ValueError(f"a header of {len(header)} bytes")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = unsealed(header, must=TENSORS)
        check_plain(metadata, "header")
        if (stated := metadata.pop(TENSORS, None)) not in (None, tensors_sum(tensors)):
            raise ValueError("not as it was written")
    except (SafetensorError, OSError, ValueError, UsageError) as error:
        raise WeightsError(f"{path} is damaged or not a token file ({error})") from error
    if stated is None:
        _note(path)
    return tensors, metadata


def tensors_sum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, 64 hex digits, of the name, type, shape and bytes of every tensor, contiguous ones on the CPU."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


_noted: set[str] = set()


def _note(path: Path) -> None:
    """Warn, once per file, that damage in it could not be seen."""
    if (place := str(path.resolve())) not in _noted:
        _noted.add(place)
        warnings.warn(f"{path} has no checksum, as files of earlier versions: that it is undamaged cannot be told", stacklevel=3)


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


def read_tokens(path: str | Path) -> tuple[Tensors, Header]:
    """What `write_tokens` wrote.

    Args:
        path: as `token_file` takes it.

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
    """A token file as a person names it: by its path, ~ included, by the folder of the run that wrote it, or as hf:USER/NAME[@REVISION].

    What is named on the hub is fetched, unless it is in the hub's cache already.

    Raises:
        UsageError: for a name that the hub cannot have.
        WeightsError: for a folder that holds none, or a repository that cannot be read or holds none.
    """
    if is_hub_name(path):
        return fetch(HubName.read(path), TOKENS)
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
        tensors: of the file.
        source: what errors call the file.

    Raises:
        WeightsError: where names or shapes differ; then nothing has changed.
    """
    if more := sorted(tensors.keys() - expected.keys()):
        raise WeightsError(f"{source}: '{more[0]}' is no tensor of this model")
    for name, value in expected.items():
        if name not in tensors or tensors[name].shape != value.shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise WeightsError(f"{source}: '{name}' should be {tuple(value.shape)}, found {found}")
    for name, value in expected.items():
        value.detach().copy_(tensors[name])
