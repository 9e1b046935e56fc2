"""Token files: tensors in safetensors, everything else as JSON in its header; CLIP is named and fingerprinted, never stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import depthtokens

from ..clip.load import FrozenCLIP, load_clip
from ..errors import DepthTokensError, WeightsError
from ..files import atomic
from .model import DepthTokens, batchnorm_layers

FORMAT = 1
_STATISTICS = ("running_mean", "running_var")


def write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and a JSON header to a .safetensors file, atomically."""
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {"depthtokens": json.dumps(metadata)})
    with atomic(path) as file:
        file.write(content)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON header of a file written by `write`. Raises WeightsError for a file that is not one, or is damaged."""
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
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or not a token file ({error})") from error


def model_tensors(model: DepthTokens) -> dict[str, Tensor]:
    """What training may have changed: tokens, a learned scale, and with batchnorm="adapt" the trunk's running statistics."""
    tensors: dict[str, Tensor] = {f"tokens.{kind}": value for kind, value in model.tokens.items()}
    if model.log_scale.requires_grad:
        tensors["log_scale"] = model.log_scale
    if model.settings["batchnorm"] == "adapt":
        for name, layer in batchnorm_layers(model.visual).items():
            tensors |= {f"batchnorm.{name}.{key}": getattr(layer, key) for key in _STATISTICS}
    return tensors


def restore_tensors(model: DepthTokens, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put `model_tensors` back in place. Raises WeightsError where names or shapes differ."""
    expected = model_tensors(model)
    for name, value in expected.items():
        if name not in tensors or tensors[name].shape != value.shape:
            found = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise WeightsError(f"{source}: '{name}' should be {tuple(value.shape)}, found {found}")
    with torch.no_grad():
        for name, value in expected.items():
            value.copy_(tensors[name])


def save_tokens(model: DepthTokens, path: Path) -> None:
    """See `DepthTokens.save`."""
    settings = {**model.settings, "centres": model.centres.tolist(), "words": model.words}
    clip = {"name": model.clip.name, "weights": model.clip.weights, "fingerprint": model.clip.fingerprint}
    versions = {"depthtokens": depthtokens.__version__, "torch": torch.__version__, "open_clip": open_clip.__version__}
    metadata = {"format": FORMAT, "model": settings, "clip": clip, "versions": versions, **model.provenance}
    write(path, model_tensors(model), metadata)


def load_tokens(path: Path, clip: FrozenCLIP | None, force: bool) -> DepthTokens:
    """See `DepthTokens.load`."""
    tensors, metadata = read(path)
    if metadata.get("format") != FORMAT or not {"model", "clip"} <= metadata.keys():
        raise WeightsError(f"{path} is not a token file of this version (format {metadata.get('format')}, expected {FORMAT})")
    named = metadata["clip"]
    if clip is None:
        try:
            clip = load_clip(named["name"], named["weights"])
        except DepthTokensError as error:
            raise WeightsError(f"{path} needs the CLIP '{named['name']}': give it with --clip ({error})") from error
    if clip.fingerprint != named["fingerprint"] and not force:
        theirs, ours = f"{named['name']}, {named['fingerprint'][:12]}", f"{clip.name}, {clip.fingerprint[:12]}"
        raise WeightsError(f"{path} was learned on another CLIP ({theirs}) than this one ({ours}): give it with --clip, or --force")
    settings = {key: value for key, value in metadata["model"].items() if key not in ("centres", "words")}
    # The stored vectors replace the initial ones, so what those began from does not matter now.
    model = DepthTokens(clip, **{**settings, "init": "random", "depth_range": tuple(settings["depth_range"])})
    model.settings["init"] = settings["init"]
    model.provenance = {key: value for key, value in metadata.items() if key not in ("format", "model", "clip", "versions")}
    restore_tensors(model, tensors, path)
    return model
