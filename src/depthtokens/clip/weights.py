"""Files to tensors: weights of a CLIP as its makers publish them, read without running anything that is in them."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from ..errors import WeightsError, first_line
from ..files import file_sha256
from .torchfile import read_torch

NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
"""Numbers that OpenAI's archives keep beside the tensors."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which trainers keep the state dict in their checkpoints, beside the optimizer's state and the like."""
NO_PARAMETERS = {"attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids"}
"""What older versions kept though it follows from the architecture."""
_BEFORE = {"module", "model", "clip"}
"""Parts that trainers put before a tensor's name."""
_WITHIN = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts that torch puts anywhere into a tensor's name: of a compiled, a sharded or a recomputed module."""
MOST_TENSORS = 10_000
"""Tensors of a model in a file; the largest CLIPs have two thousand."""
MOST_CLAIMED = 10
"""How many times a file's own size its tensors may take: one storage may stand behind several tensors, or many times behind one."""


@dataclass(frozen=True)
class Weights:
    """What a file holds.

    Attributes:
        tensors: by name, without the prefixes that trainers and torch put there.
        openai: whether the file has a SHA-256 that OpenAI published.
    """

    tensors: dict[str, Tensor]
    openai: bool = False


def read_weights(path: Path) -> Weights:
    """Read a CLIP's tensors from a file; code in it is never executed.

    Args:
        path: safetensors, a TorchScript archive, a pickled state dict, or a trainer's checkpoint with a state dict in it (`WRAPPERS`).

    Raises:
        WeightsError: where the file is damaged, holds code, holds no state dict or several, or is not what OpenAI published under its name.
    """
    published = _check_published(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content, scripted = read_torch(path)
            published = published or (scripted and file_sha256(path) in _published().values())
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is a pickle with more than tensors in it ({first_line(error)}); its code was not executed: ask for safetensors"
        ) from error
    except Exception as error:  # damaged bytes raise errors of many kinds
        raise WeightsError(f"{path} is truncated or not a weights file ({first_line(error)})") from error
    found = _state_dicts(content)
    if not found:
        raise WeightsError(f"{path} holds no state dict")
    if len(found) > 1:
        raise WeightsError(f"{path} holds {len(found)} state dicts: save the one that is meant in a file of its own")
    tensors = _renamed(found[0], path)
    claimed = sum(value.element_size() * math.prod(max(1, length) for length in value.shape) for value in tensors.values())
    if len(tensors) > MOST_TENSORS or claimed > MOST_CLAIMED * path.stat().st_size:
        raise WeightsError(f"{path} is no weights file: its {len(tensors)} tensors take {claimed / 2**20:.0f} MiB, far more than the file")
    return Weights(tensors, published)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, kind: str, stacklevel: int = 2) -> None:
    """Load a file's tensors into a model: all that the model has must be there, and nothing goes unsaid.

    A larger vocabulary makes the model's larger: CLIP's own words keep their ids. `logit_bias`, which no feature needs, may be missing or
    too much. Tensors beside the towers (of a loss, a classifier) are left out with a warning.

    Args:
        model: an open_clip model; it is changed.
        tensors: as `read_weights` gives them.
        path: the file.
        kind: what errors call the model.
        stacklevel: of warnings, as `warnings.warn` counts it.

    Raises:
        WeightsError: for a tensor that is missing, unknown inside a tower, of another shape, or that holds no floating-point numbers.
    """
    state = {key: value for key, value in tensors.items() if key not in NOT_WEIGHTS}
    if hasattr(model, "text"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    _grow_vocabulary(model, state)
    expected = model.state_dict()
    for key in NO_PARAMETERS - expected.keys():
        state.pop(key, None)
    for key in state.keys() & expected.keys():
        if {state[key].shape, expected[key].shape} == {(), (1,)}:  # one number, with or without an axis of its own
            state[key] = state[key].reshape(expected[key].shape)
    state.pop("logit_bias", None) if "logit_bias" not in expected else state.setdefault("logit_bias", expected["logit_bias"])
    for key, value in expected.items():
        if key in state and state[key].shape != value.shape:
            raise WeightsError(f"{path} holds no {kind}: '{key}' has shape {tuple(state[key].shape)}, not {tuple(value.shape)}")
    towers = {key.split(".")[0] for key in expected}
    foreign = sorted(state.keys() - expected.keys())
    inside = [key for key in foreign if key.split(".")[0] in towers]
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(f"{path} holds no {kind}: {_named(missing)} missing{f', {_named(foreign)} no part of it' if foreign else ''}")
    if inside:
        raise WeightsError(f"{path} holds no {kind}: {_named(inside)} no part of it")
    for key, value in expected.items():
        found = state.setdefault(key, value)
        if value.is_floating_point() and not found.is_floating_point():
            raise WeightsError(f"{path}: '{key}' is {str(found.dtype)[6:]}: weights are floating-point numbers, not quantised ones")
    if foreign:
        warnings.warn(f"{path.name}: {_named(foreign)} left out, no part of a {kind}", stacklevel=stacklevel)
    model.load_state_dict({key: state[key] for key in expected})


def _named(keys: list[str]) -> str:
    """Names of tensors for a sentence, with the verb that fits: the first three, and how many more."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(repr(key) for key in keys[:3])}{more} {'is' if len(keys) == 1 else 'are'}"


def _grow_vocabulary(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a model's token embedding as many rows as the file's has, where the file has more."""
    for name in ("token_embedding", "text.token_embedding"):
        rows = state.get(f"{name}.weight")
        if rows is None or f"{name}.weight" not in model.state_dict():
            continue
        embedding = model.get_submodule(name)
        assert isinstance(embedding, nn.Embedding)
        if rows.ndim == 2 and rows.shape[1] == embedding.embedding_dim and len(rows) > embedding.num_embeddings:
            embedding.weight, embedding.num_embeddings = nn.Parameter(torch.empty(rows.shape)), len(rows)


def _state_dicts(content: Any, depth: int = 5) -> list[Mapping[Any, Any]]:
    """The tables of tensors in a file: what stands under `WRAPPERS`, at any depth, else the file's own."""
    if not isinstance(content, Mapping) or not depth:
        return []
    inner = [found for key in WRAPPERS for found in _state_dicts(content.get(key), depth - 1)]
    return inner or ([content] if any(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()) else [])


def _renamed(state: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Tensors under the names that they have in the model itself."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            continue
        parts = [part for part in key.split(".") if part not in _WITHIN]
        while len(parts) > 1 and parts[0] in _BEFORE:
            parts.pop(0)
        name = ".".join(parts)
        if name in found:
            raise WeightsError(f"{path} holds several tensors for '{name}': save the model that is meant in a file of its own")
        found[name] = value
    return found


def _published() -> dict[str, str]:
    """OpenAI's files, by open_clip's name and by their own without its ending: the SHA-256 in their download addresses."""
    found: dict[str, str] = {}
    for name, _ in open_clip.list_pretrained():
        *_, digest, file = (open_clip.get_pretrained_url(name, "openai") or "/").split("/")
        if len(digest) == 64:
            found[name] = found[Path(file).stem] = digest
    return found


def _check_published(path: Path) -> bool:
    """Whether a file has the name of one of OpenAI's. Raises WeightsError where it has the name, but not the published SHA-256."""
    published = _published().get(path.stem) if path.suffix == ".pt" else None
    if published is not None and file_sha256(path) != published:
        raise WeightsError(f"{path} has not the SHA-256 that OpenAI published for {path.name}: fetch it again, or rename your own file")
    return published is not None
