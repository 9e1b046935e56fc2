"""Load a CLIP by name or from a file, freeze it, and name it by a fingerprint of its weights."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import open_clip
import torch
from open_clip.model import build_model_from_openai_state_dict
from torch import Tensor, nn

from ..errors import UsageError, WeightsError, unknown
from ..files import user_path
from . import CLIPIdentity
from .bundled import checked_folder
from .image import ImageTower
from .text import TextTower
from .tokenizer import Tokenizer
from .weights import NOT_WEIGHTS, first_line, read_state_dict


class FrozenCLIP(nn.Module):
    """An open_clip model that nothing changes: no parameter requires grad and every layer stays in eval mode.

    Attributes:
        model: the open_clip model.
        name: what it was loaded as.
        weights: the tag or file of its weights, None where the name says it all.
        fingerprint: SHA-256 over names, shapes and values of its weights (float32), 64 hex digits.
        text: its `TextTower`.

    Args:
        model: an open_clip model.
        name: what it was loaded as.
        weights: the tag or file of its weights, None where the name says it all.
        tokenizer: an open_clip name to get the tokenizer by, None for CLIP's BPE.
    """

    def __init__(self, model: nn.Module, name: str, weights: str | None, tokenizer: str | None = None) -> None:
        super().__init__()
        self.model = model.float().eval().requires_grad_(False)
        self.name = name
        self.weights = weights
        self.fingerprint = fingerprint(model)
        self.text = TextTower(model)
        self._tokenizer = tokenizer

    @property
    def visual(self) -> nn.Module:
        """open_clip's image module."""
        visual = self.model.visual
        assert isinstance(visual, nn.Module)
        return visual

    @cached_property
    def image(self) -> ImageTower:
        """Its `ImageTower`. Raises UsageError for a kind that cannot be read densely."""
        return ImageTower(self.visual)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The CLIP's own tokenizer; made on first use, since some need the hub. Raises WeightsError where it cannot be had."""
        try:
            return Tokenizer.of(open_clip.get_tokenizer(self._tokenizer) if self._tokenizer else open_clip.SimpleTokenizer())
        except (ImportError, OSError) as error:
            reason = f"it needs `transformers` and the hub ({first_line(error)})"
            raise WeightsError(f"the tokenizer of {self.name} cannot be had: {reason}") from error

    @property
    def identity(self) -> CLIPIdentity:
        """Name, weights and fingerprint, as files keep them."""
        return CLIPIdentity(self.name, self.weights, self.fingerprint)

    def dense(self, images: Tensor, mode: str = "layer4") -> Tensor:
        """Patch features [B, C, h, w] of normalised images [B, 3, H, W], read in `mode`; see `clip.image.dense_features`."""
        return self.image.patches(images, mode)

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Stay in eval mode, whatever is asked: frozen means that BatchNorm keeps CLIP's own statistics."""
        return super().train(False)


def load_clip(name: str = "RN50", weights: str | None = "openai") -> FrozenCLIP:
    """Load and freeze a CLIP, in float32 on the CPU.

    A file under the name of one of OpenAI's (`RN50.pt`, ...) must have the SHA-256 that OpenAI published. Pickles are read as tensors
    only; code in them is never executed.

    Args:
        name: one of
            - an open_clip model name, whose weights `weights` names;
            - `hf-hub:org/model`;
            - a file: OpenAI's .pt, safetensors, or a plain state dict; the architecture is read off the tensors, with OpenAI's QuickGELU;
            - an open_clip folder (`open_clip_config.json` and weights);
            - "bundled", the small CLIP that comes with the package (`clip/bundled/MODEL_CARD.md`).
        weights: one of that open_clip model's tags, a weights file, or None or "random" for random weights; not used where `name` is
            anything but an open_clip model name.

    Raises:
        UsageError: for an unknown name or tag.
        WeightsError: for weights that cannot be had, are damaged or do not fit.
    """
    if name == "bundled":
        return _from_folder(checked_folder(), "bundled")
    if name.startswith("hf-hub:"):
        return FrozenCLIP(_fetched(name, None), name, None, name)
    if name not in open_clip.list_models():
        if weights not in (None, "openai", "random"):
            raise UsageError(f"'{name}' is no open_clip model to take weights from {weights}: give a model's name, or the file alone")
        return _from_path(name)
    if weights is None or weights == "random":
        warnings.warn(f"{name} with random weights: good for benchmarks and tests, not for depth", stacklevel=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return FrozenCLIP(_create(name), name, None, name)
    path = user_path(weights)
    if path.is_file():
        return _from_named_file(name, path.resolve())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:
        if path.suffix or "/" in weights:
            raise WeightsError(f"no weights file at {weights}")
        raise unknown(f"weights tag of {name}", weights, tags)
    return FrozenCLIP(_fetched(name, weights), name, weights, name)


def _from_path(name: str) -> FrozenCLIP:
    """The CLIP in a file or an open_clip folder."""
    path = user_path(name)
    if name and path.is_dir():
        return _from_folder(path.resolve())
    if path.is_file():
        return _from_file(path.resolve())
    if path.suffix in {".pt", ".pth", ".bin", ".safetensors"} or "/" in name:
        raise WeightsError(f"no CLIP file or folder at {path}")
    raise unknown("CLIP model", name, [*open_clip.list_models(), "bundled"])


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over every weight's name, shape and float32 values, in name order; counters are left out."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            continue
        digest.update(f"{key}{tuple(value.shape)}".encode())
        digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def _fetched(name: str, tag: str | None) -> nn.Module:
    """A model with weights from the hub, or from open_clip's cache of it."""
    # open_clip leaves a tag's QuickGELU to the caller: OpenAI's weights under the plain name `RN50` need it.
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    try:
        with _quiet():
            return open_clip.create_model(name, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), require_pretrained=True)
    except Exception as error:
        raise WeightsError(f"cannot fetch {name} {tag or ''} from the hub ({first_line(error)}): give a file with --weights") from error


def _from_folder(path: Path, name: str | None = None) -> FrozenCLIP:
    """The CLIP in an open_clip folder, under `name` or under its path."""
    if not (path / "open_clip_config.json").is_file():
        raise WeightsError(f"{path} has no open_clip_config.json: not an open_clip folder")
    try:
        with _quiet():
            model = open_clip.create_model(f"local-dir:{path}", require_pretrained=True)
    except Exception as error:
        if "weights_only" in str(error):
            raise WeightsError(
                f"{path} holds a pickle with more than tensors in it; its code was not executed: ask for safetensors"
            ) from error
        raise WeightsError(f"cannot load the open_clip folder {path}: {first_line(error)}") from error
    return FrozenCLIP(model, name or str(path), None, f"local-dir:{path}")


def _from_file(path: Path) -> FrozenCLIP:
    """The CLIP in a file in OpenAI's layout, whose architecture is read off its tensors."""
    state = read_state_dict(path)
    try:
        model = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32)
        # The builder passes through half precision; load once more so that a float32 file loses nothing.
        model.float().load_state_dict({key: value for key, value in state.items() if key not in NOT_WEIGHTS})
    except (KeyError, IndexError, AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{path} is not a CLIP in OpenAI's layout ({first_line(error)}): for another layout give --clip MODEL --weights {path}"
        ) from error
    return FrozenCLIP(model, str(path), None)


def _from_named_file(name: str, path: Path) -> FrozenCLIP:
    """An open_clip model by name, with the weights in a file."""
    state = read_state_dict(path)
    openai = bool(NOT_WEIGHTS & state.keys())
    model = _create(name, force_quick_gelu=openai)
    state = {key: value for key, value in state.items() if key not in NOT_WEIGHTS}
    try:
        model.load_state_dict(open_clip.model.convert_to_custom_text_state_dict(state) if hasattr(model, "text") else state)
    except RuntimeError as error:
        raise WeightsError(f"{path} holds no {name}: {_first_difference(model.state_dict(), state)}") from error
    if not openai and isinstance(model, open_clip.CLIP) and "quickgelu" not in name and f"{name}-quickgelu" in open_clip.list_models():
        warnings.warn(f"{path.name} is read as a {name} with GELU; if these are OpenAI's weights say {name}-quickgelu", stacklevel=3)
    return FrozenCLIP(model, name, str(path), name)


def _first_difference(expected: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """In words, the first way in which tensors are not those expected."""
    for key, value in expected.items():
        if key not in found:
            return f"'{key}' is missing"
        if found[key].shape != value.shape:
            return f"'{key}' has shape {tuple(found[key].shape)}, not {tuple(value.shape)}"
    return f"'{next(iter(found.keys() - expected.keys()))}' is not part of it"


def _create(name: str, force_quick_gelu: bool = False) -> nn.Module:
    """A model by name, without weights."""
    with _quiet():
        return open_clip.create_model(name, pretrained=None, pretrained_text=False, force_quick_gelu=force_quick_gelu)


@contextmanager
def _quiet() -> Iterator[None]:
    """A context without the log lines of open_clip and the hub: what is wrong is said once, by this package's own errors."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
