"""Files to tensors: weights of a CLIP as its makers publish them, read without running anything that is in them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor

from ..errors import WeightsError

NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size"}
"""Numbers that OpenAI's archives keep beside the tensors."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a CLIP's tensors from a file; code in a pickle is never executed.

    Args:
        path: safetensors, a TorchScript archive or a pickled state dict.

    Returns:
        Tensors by name, without a leading "module.".

    Raises:
        WeightsError: where the file is damaged, holds code, or is not what OpenAI published under its name.
    """
    _check_published(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated; OpenAI's files stay what they are
                state: Any = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise WeightsError(
                f"{path} is a pickle with more than tensors in it; its code was not executed: ask for safetensors"
            ) from error
        raise WeightsError(f"{path} is damaged or not a weights file ({first_line(error)})") from error
    except Exception as error:
        raise WeightsError(f"{path} is truncated or not a weights file ({first_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    named = state.items() if isinstance(state, dict) else ()
    tensors = {key.removeprefix("module."): value for key, value in named if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path} holds no state dict")
    return tensors


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _check_published(path: Path) -> None:
    """Compare with the SHA-256 in OpenAI's download address, where the file's name is one of OpenAI's."""
    url = open_clip.get_pretrained_url(path.stem, "openai") if path.suffix == ".pt" else ""
    published = url.split("/")[-2] if "openaipublic" in (url or "") else ""
    if len(published) != 64:
        return
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != published:
            raise WeightsError(f"{path} has not the SHA-256 that OpenAI published for {path.name}: fetch it again, or rename your own file")


def first_line(error: BaseException) -> str:
    """The start of what a library says, in one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:160]
