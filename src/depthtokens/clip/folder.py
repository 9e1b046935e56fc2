"""An open_clip folder, or any file that says how large a model is: what it asks for is looked at before anything is made of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from ..errors import WeightsError, first_line

CONFIG = "open_clip_config.json"
_LARGEST = 2**20
"""Bytes of a configuration."""
_LAYERS = 1000
"""Layers of a tower; the largest have 64."""
_TOKENIZER = {"clean", "strip_sep_token", "reduction_mask", "language"}
"""What a configuration may say of its tokenizer; other words reach what reads the tokenizer's files and could let code or paths in."""
_ORDER = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
"""Names of weights files, as open_clip prefers them."""


def find_weights(folder: Path) -> Path:
    """The weights file of an open_clip folder, the one that open_clip would take. Raises WeightsError where there is none."""
    found = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth") and path.is_file()]
    if not found:
        raise WeightsError(f"cannot load the open_clip folder {folder}: no weights in it ({_ORDER[0]}, ...)")
    last = len(_ORDER)
    return min(found, key=lambda path: (_ORDER.index(path.name) if path.name in _ORDER else last, path.suffix != ".safetensors", path.name))


def check_config(folder: Path) -> dict[str, Any]:
    """The model's part of an open_clip folder's configuration.

    Args:
        folder: holds `open_clip_config.json`.

    Returns:
        Its "model_cfg", with tables "vision_cfg" and "text_cfg".

    Raises:
        WeightsError: where there is none, or it asks for more than a model made of the folder's own files.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise WeightsError(f"{folder} has no {CONFIG}: not an open_clip folder")
    try:
        config = read_json(path)["model_cfg"]
        if not all(isinstance(config[tower], dict) for tower in ("vision_cfg", "text_cfg")):
            raise ValueError(f"{CONFIG} describes no towers")
        said = list(entries(config))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(f"cannot load the open_clip folder {folder}: {first_line(error)}") from error
    for key, value in said:
        reason = ""
        if key == "hf_model_name" and value:
            reason = "names a text model of the hub, which is not fetched for a folder: load the model itself as hf-hub:ORG/MODEL"
        elif key == "timm_model_name" and value and not (isinstance(value, str) and timm.is_model(value)):
            reason = "names an image tower that timm does not have: nothing is fetched for a folder"
        elif key == "layers" and not counts(value):
            reason = f"wants a tower of more than {_LAYERS} layers, or none"
        elif key == "tokenizer_kwargs" and value and not (isinstance(value, dict) and value.keys() <= _TOKENIZER):
            reason = f"says more of its tokenizer than {', '.join(sorted(_TOKENIZER))}"
        if reason:
            raise WeightsError(f"{path} {reason}")
    return dict(config)


def read_json(path: Path) -> dict[str, Any]:
    """A table in a file. Raises OSError or ValueError for a file that cannot be read, is too long or holds something else."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path.name} is too long")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no table")
    return found


def check_room(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError where a model would take far more memory than the tensors that are to fill it.

    Args:
        model: made on the device "meta", which takes none.
        tensors: of the file.
        path: the file or folder.
    """
    wanted = sum(value.numel() for value in (*model.parameters(), *model.buffers()))
    if wanted > 10 * sum(value.numel() for value in tensors.values()) + 2**20:
        raise WeightsError(f"{path} describes a model of {wanted:.1e} numbers, far more than its weights have: they are of another model")


def counts(layers: Any) -> bool:
    """Whether numbers of layers are such."""
    numbers = layers if isinstance(layers, list) else [] if layers is None else [layers]
    return all(type(number) is int and number > 0 for number in numbers) and sum(numbers) <= _LAYERS


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value in a configuration, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from entries(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from entries(inner)
