"""Dual encoders of transformers, from a folder of their files or the hub. Files are read as data, and nothing that they name is fetched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from ..errors import WeightsError, first_line
from ..files import user_path
from .dual import DualEncoder
from .folder import check_room, counts, entries, read_json
from .hubname import PREFIX, HubName
from .weights import read_weights

WANTED = ["*.json", "*.model", "*.txt", "model.safetensors", "model-*-of-*.safetensors"]
"""Files that are fetched from the hub: settings, vocabularies and weights, none of them a pickle or code."""


@dataclass(frozen=True)
class Kind:
    """A kind of dual encoder.

    Attributes:
        model: transformers' class.
        mean: of pixels, where the folder states none.
        std: their standard deviation.
    """

    model: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


_HALF = (0.5, 0.5, 0.5)
KINDS = {
    "clip": Kind("CLIPModel", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    "metaclip_2": Kind("MetaClip2Model", OPENAI_DATASET_MEAN, OPENAI_DATASET_STD),
    "siglip": Kind("SiglipModel", _HALF, _HALF),
    "siglip2": Kind("Siglip2Model", _HALF, _HALF),
    "tipsv2": Kind("Tipsv2Model", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""By the `model_type` of their configuration."""


def find_folder(name: str) -> tuple[Path, str]:
    """The folder that a name stands for, fetched from the hub unless it is there.

    Args:
        name: "hf:" before a folder, or before USER/NAME[@REVISION] of the hub.

    Returns:
        The folder, and the name under which it is found again from anywhere.

    Raises:
        UsageError: for what is neither.
        WeightsError: for a folder that is not there, or a repository that cannot be fetched.
    """
    text = name.removeprefix(PREFIX)
    path = user_path(text)
    if text and path.is_dir():
        return path.resolve(), f"{PREFIX}{path.resolve()}"
    if text.startswith((".", "/", "~")):
        raise WeightsError(f"no folder at {path}")
    from huggingface_hub import snapshot_download

    repository = HubName.read(name)
    try:
        found = snapshot_download(repository.repo, revision=repository.revision, allow_patterns=WANTED, ignore_patterns="*/*")
    except Exception as error:  # the library passes on those of its HTTP client
        raise WeightsError(f"cannot fetch {repository} from the hub ({first_line(error)}): give a folder of its files") from error
    return Path(found), str(repository)


def read_dual(folder: Path) -> DualEncoder:
    """The dual encoder in a folder, in float32.

    Args:
        folder: `config.json`, `model.safetensors` (or several, `model-00001-of-00002.safetensors`) and, if the pixels' normalisation is
            to be the model's own, `preprocessor_config.json`.

    Raises:
        ImportError: where there is no transformers.
        WeightsError: for a folder of another kind, another model, or weights that do not fit.
    """
    import transformers

    config = _read(folder / "config.json", folder)
    kind = KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise WeightsError(f"{folder} holds a '{config.get('model_type')}', which is not read as a CLIP: those are {', '.join(KINDS)}")
    for key, number in entries(config):
        if key == "num_hidden_layers" and not counts(number):
            raise WeightsError(f"{folder}: config.json wants a tower of {number!r} layers")
        if key == "quantization_config" and number:
            raise WeightsError(f"{folder} holds quantised weights, of which no exact features come: take those that are not")
    make = getattr(transformers, kind.model, None)
    if make is None:
        raise WeightsError(f"{folder} needs transformers' {kind.model}, which {transformers.__version__} lacks: install a newer one")
    tensors = _tensors(folder)
    mean, std = _statistics(folder, kind)
    try:
        with _silence(transformers):
            settings = make.config_class.from_dict(config)
            settings._attn_implementation = "sdpa"  # a file's own may name code of the hub
            with torch.device("meta"):
                check_room(make(settings), tensors, folder)
            model, loaded = make.from_pretrained(
                None, config=settings, state_dict=tensors, output_loading_info=True, attn_implementation="sdpa", dtype=torch.float32
            )
            wrong = {key: sorted(map(str, loaded.get(f"{key}_keys", ()))) for key in ("missing", "unexpected", "mismatched")}
            if said := [f"{name} {names[0]}" for name, names in wrong.items() if names]:
                raise WeightsError(f"{folder} holds no {kind.model} of its configuration: {', '.join(said)}")
            return DualEncoder(model, mean, std)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"cannot load the {kind.model} in {folder}: {first_line(error)}") from error


def read_tokenizer(folder: Path) -> HFTokenizer:
    """The tokenizer in a folder, made of its files alone. Raises ImportError, OSError or ValueError where it cannot be had."""
    return HFTokenizer(str(folder), trust_remote_code=False, local_files_only=True)


def _read(path: Path, folder: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{folder} has no {path.name}: not a folder of transformers")
    try:
        return read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot read {path}: {first_line(error)}") from error


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The weights in a folder, by name."""
    one = folder / "model.safetensors"
    files = [one] if one.is_file() else sorted(path for path in folder.glob("model-*-of-*.safetensors") if path.is_file())
    if not files:
        raise WeightsError(f"{folder} has no model.safetensors: other files are not read, pickles least of all")
    found: dict[str, Tensor] = {}
    for file in files:
        found |= read_weights(file).tensors
    found = {key: value for key, value in found.items() if not key.endswith("position_ids")}  # older versions kept these
    for key, value in found.items():
        if not value.is_floating_point():
            raise WeightsError(f"{folder}: '{key}' is {str(value.dtype)[6:]}: weights are floating-point numbers, not quantised ones")
    return found


def _statistics(folder: Path, kind: Kind) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels in 0-1, as a folder states them."""
    said: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (path := folder / name).is_file():
            values = _read(path, folder)
            said |= values.get("image_processor", values) or {}
    if said.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = said.get("image_mean") or kind.mean, said.get("image_std") or kind.std
    try:
        mean, std = tuple(map(float, mean)), tuple(map(float, std))
        good = len(mean) == len(std) == 3 and all(map(math.isfinite, (*mean, *std))) and min(std) > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise WeightsError(f"{folder}: image_mean and image_std are three numbers each, and the latter above 0")
    return mean, std


@contextmanager
def _silence(transformers: Any) -> Iterator[None]:
    """A context without the bars and log lines of transformers; what is wrong comes as an exception."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
