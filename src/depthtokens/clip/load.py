"""Load a CLIP by name or from a file, freeze it, and name it by a fingerprint of its weights."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import Tensor, nn

from ..data.images import Photo, read_photo, shown_at
from ..errors import UsageError, WeightsError, first_line, unknown
from ..files import user_path
from ..summary import Summarised, Summary
from . import CLIPIdentity
from .bundled import checked_folder
from .folder import check_config, check_room, find_weights
from .hf import find_folder, read_dual, read_tokenizer
from .hubname import PREFIX
from .image import ImageTower
from .openai import TOWERS, build_openai
from .remembered import remember
from .text import TextTower
from .tokenizer import Tokenizer
from .weights import NOT_WEIGHTS, fill, read_weights

VOCABULARY = 49408
"""Entries of CLIP's BPE vocabulary."""


class FrozenCLIP(Summarised, nn.Module):
    """An open_clip model that nothing changes: no parameter requires grad and every layer stays in eval mode.

    Attributes:
        model: the open_clip model, in float32.
        name: what it was loaded as.
        weights: the tag or file of its weights, None where the name says it all.
        fingerprint: SHA-256 over names, shapes and values of its weights (float32), 64 hex digits.
        text: its `TextTower`.

    Args:
        model: an open_clip model.
        name: what it was loaded as.
        weights: the tag or file of its weights, None where the name says it all.
        tokenizer: an open_clip name to get the tokenizer by, None for CLIP's BPE.
        copied: keep a copy, so that `model` stays as it is: its type, its training mode, what requires grad. False takes `model` itself
            and freezes it, which spares its memory where nobody else holds it.

    Raises:
        WeightsError: for weights that are no finite numbers.

    Example:
        >>> clip = load_clip("bundled")
        >>> clip.text.width, clip.image.stride("layer4"), clip.default_dense  # numbers of a vector in a prompt, pixels per patch, mode
        (128, 32, 'layer4')
    """

    def __init__(self, model: nn.Module, name: str, weights: str | None, tokenizer: str | None = None, copied: bool = True) -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not hasattr(model, "visual") or not hasattr(model, "encode_text"):
            raise UsageError(f"FrozenCLIP wants an open_clip model, not a {type(model).__name__}")
        self.model = (copy.deepcopy(model) if copied else model).float().eval().requires_grad_(False)
        self.name = name
        self.weights = weights
        _check_finite(self.model, name)
        self.fingerprint = fingerprint(self.model)
        self.text = TextTower(self.model)
        self._tokenizer = tokenizer

    def summary(self) -> Summary:
        """What the CLIP is, in a few lines."""
        weights = list(self.model.parameters())
        rows = [
            *([("weights", self.weights)] if self.weights else []),
            ("fingerprint", self.fingerprint),
            ("image tower", type(self.visual).__name__),
            ("text tower", f"width {self.text.width}"),
            ("parameters", f"{sum(weight.numel() for weight in weights):,}, frozen"),
            ("device", weights[0].device),
        ]
        return Summary(f"FrozenCLIP {self.name}", rows)

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
            return Tokenizer.of(_tokenizer(self._tokenizer))
        except (ImportError, OSError, ValueError) as error:
            raise WeightsError(f"the tokenizer of {self.name} cannot be had: {_lacking(error)}") from error

    @property
    def identity(self) -> CLIPIdentity:
        """Name, weights and fingerprint, as files keep them: of a path the last part."""
        return CLIPIdentity.of(self.name, self.weights, self.fingerprint)

    @property
    def default_dense(self) -> str:
        """The mode in which patch features are read where none is named."""
        return self.image.default

    def dense(self, images: Tensor, mode: str | None = None) -> Tensor:
        """Patch features [B, C, h, w] of normalised images [B, 3, H, W], read in `mode`; see `clip.image.dense_features`."""
        return self.image.patches(images, self.default_dense if mode is None else mode)

    def preprocess(self, photo: Photo, side: int | None = None) -> Tensor:
        """A photo as `dense` reads it: in whole patches, in its own proportions, normalised as the CLIP was trained.

        Args:
            photo: a path, the bytes of an image file, a file object, a PIL image, an array or a tensor; see `data.images.read_photo`.
            side: pixels of the shorter side; None for that of the images that the CLIP was trained on.

        Returns:
            [1, 3, H, W] float32, where the CLIP is.

        Raises:
            DataError: for a file that is no image, or a photo that is too small or too large.
            UsageError: for what is no photo, or a side of less than a patch.
        """
        tower = self.image
        shown = shown_at(read_photo(photo), min(tower.image_size) if side is None else side, tower.trunk_stride)
        pixels = torch.tensor(shown, device=self.text.embedding.weight.device).permute(2, 0, 1)[None] / 255
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in tower.own_statistics)
        return (pixels - mean) / std

    def train(self, mode: bool = True) -> FrozenCLIP:
        """Stay in eval mode, whatever is asked: frozen means that BatchNorm keeps CLIP's own statistics."""
        return super().train(False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenCLIP:
        """As in torch, behind `to`, `half` and the like; where weights changed, what the text tower kept is of weights that are gone."""
        before = self.text.stamp()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.text.stamp() != before:
            self.text.forget()
        return self


def load_clip(name: str | os.PathLike[str] = "RN50", weights: str | os.PathLike[str] | None = "openai") -> FrozenCLIP:
    """Load and freeze a CLIP, in float32 on the CPU.

    A file under the name of one of OpenAI's (`RN50.pt`, ...) must have the SHA-256 that OpenAI published. Files and folders are read as
    data: code in them is never executed, and nothing that they name is fetched. What is loaded from a file or the hub is remembered by its
    fingerprint in the cache folder, so that tokens learned on it find it again on this machine.

    Args:
        name: one of

            - an open_clip model name, whose weights `weights` names;
            - `hf-hub:org/model`, an open_clip model of the hub;
            - `hf:` before a folder of transformers or before USER/NAME[@REVISION] of the hub: a CLIP, MetaCLIP 2, SigLIP, SigLIP 2 or
              TIPSv2 with its tokenizer, whose weights are safetensors; needs the extra `hf`;
            - a file: OpenAI's .pt, safetensors, a plain state dict, or a trainer's checkpoint with one in it; the architecture is read
              off the tensors, which do not tell the activation: it is OpenAI's QuickGELU, with a warning unless the file is OpenAI's;
            - an open_clip folder (`open_clip_config.json` and weights);
            - "bundled", the small CLIP that comes with the package (`clip/bundled/MODEL_CARD.md`).

        weights: one of that open_clip model's tags, a weights file, or None or "random" for random weights; not used where `name` is
            anything but an open_clip model name.

    Raises:
        UsageError: for an unknown name or tag.
        WeightsError: for weights that cannot be had, are damaged, are no finite numbers or do not fit.

    Example:
        >>> load_clip("bundled").dense(torch.zeros(1, 3, 208, 272), "value").shape  # [B, C, h, w]
        torch.Size([1, 256, 6, 8])
    """
    name = _written(name)
    weights = None if weights is None else _written(weights)
    if name == "bundled":
        return _from_folder(checked_folder(), "bundled")
    if name.startswith("hf-hub:"):
        return _remembered(FrozenCLIP(_fetched(name, None), name, None, name, copied=False))
    if name.startswith(PREFIX):
        return _remembered(_from_transformers(name))
    if name not in open_clip.list_models():
        if weights not in (None, "openai", "random"):
            raise UsageError(f"'{name}' is no open_clip model to take weights from {weights}: give a model's name, or the file alone")
        return _remembered(_from_path(name))
    if weights is None or weights == "random":
        warnings.warn(f"{name} with random weights: good for benchmarks and tests, not for depth", stacklevel=2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return _remembered(FrozenCLIP(_create_named(name), name, None, name, copied=False))
    path, tags = user_path(weights), open_clip.list_pretrained_tags_by_model(name)
    if weights not in tags:  # first: a file that is called as a tag does not stand for it
        if path.is_file():
            return _remembered(_from_named_file(name, path.resolve()))
        if path.suffix or "/" in weights:
            raise WeightsError(f"no weights file at {weights}")
        raise unknown(f"weights tag of {name}", weights, tags)
    return FrozenCLIP(_fetched(name, weights), name, weights, name, copied=False)


def _remembered(clip: FrozenCLIP) -> FrozenCLIP:
    remember(clip.name, clip.weights, clip.fingerprint)
    return clip


def _written(name: Any) -> str:
    """A name or path as text. Raises UsageError for anything else."""
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"a CLIP is named by text or a path, not by {name!r}")
    return str(name)


def _from_path(name: str) -> FrozenCLIP:
    """The CLIP in a file or an open_clip folder."""
    path = user_path(name)
    if name and path.is_dir():
        return _from_folder(path.resolve())
    if path.is_file():
        return _from_file(path.resolve())
    is_file = path.suffix in {".pt", ".pth", ".bin", ".ckpt", ".safetensors"} or name.startswith((".", "/", "~"))
    if not is_file and (near := _meant(name)):
        raise UsageError(f"unknown CLIP model '{name}': did you mean '{near}'?")
    if is_file or "/" in name:
        hub = f" (a model of the hub is written 'hf-hub:{name}')" if not is_file and name.count("/") == 1 else ""
        raise WeightsError(f"no CLIP file or folder at {path}{hub}")
    raise unknown("CLIP model", name, [*open_clip.list_models(), "bundled"])


def _meant(name: str) -> str | None:
    """open_clip's name for a model as OpenAI ("ViT-B/32") or the hub ("openai/clip-vit-base-patch32") write it, or in other case."""

    def plain(text: str) -> str:
        text = re.sub(r"^(.*/)?clip-", "", text.lower()).replace("patch", "")
        for long, short in (("base", "b"), ("large", "l"), ("huge", "h")):
            text = re.sub(rf"\b{long}\b", short, text)
        return re.sub(r"[^a-z0-9]", "", text)

    wanted = plain(name)
    known = {plain(model): model for model in [*open_clip.list_models(), "bundled"]}
    starts = [text for text in known if wanted.startswith(text)]
    return known[max(starts, key=len)] if starts else None


def _check_finite(model: nn.Module, name: str) -> None:
    """Raise WeightsError for a weight or statistic of a BatchNorm that is NaN or infinite."""
    trained: dict[str, Tensor] = dict(model.named_parameters())
    trained |= {key: value for key, value in model.named_buffers() if key.endswith(("running_mean", "running_var"))}
    for key, value in trained.items():
        if not value.isfinite().all():
            raise WeightsError(f"{name}: '{key}' holds NaN or infinite values: these weights are damaged, or their training diverged")


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
        with quiet():
            return open_clip.create_model(name, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), require_pretrained=True)
    except Exception as error:
        raise WeightsError(f"cannot fetch {name} {tag or ''} from the hub ({_lacking(error)}): give a file with --weights") from error


def _from_folder(path: Path, name: str | None = None) -> FrozenCLIP:
    """The CLIP in an open_clip folder, under `name` or under its path."""
    check_config(path)
    weights = read_weights(find_weights(path))
    source = f"local-dir:{path}"
    try:
        with quiet():
            with torch.device("meta"):
                check_room(_create(source, device="meta"), weights.tensors, path)
            model = _create(source)
            state = convert_state_dict(model, weights.tensors)
            if hasattr(model, "text"):
                state = convert_to_custom_text_state_dict(state)
            resize_pos_embed(state, model)
            resize_text_pos_embed(state, model)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"cannot load the open_clip folder {path}: {first_line(error)}") from error
    fill(model, state, path, "CLIP of its configuration", stacklevel=5)
    return FrozenCLIP(model, name or str(path), None, source, copied=False)


def _from_transformers(name: str) -> FrozenCLIP:
    """The dual encoder of transformers in a folder or a repository of the hub."""
    try:
        folder, name = find_folder(name)
        return FrozenCLIP(read_dual(folder), name, None, f"{PREFIX}{folder}", copied=False)
    except ImportError as error:
        raise WeightsError(f"cannot load {name}: {_lacking(error)}") from error


def _tokenizer(name: str | None) -> Any:
    """A tokenizer by an open_clip name, None for CLIP's BPE. A folder's own is made of its files, without code in them."""
    if name is None:
        return open_clip.SimpleTokenizer()
    if name.startswith(PREFIX):
        return read_tokenizer(Path(name.removeprefix(PREFIX)))
    if name.startswith("local-dir:") and check_config(Path(name.removeprefix("local-dir:")))["text_cfg"].get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(name, trust_remote_code=False, local_files_only=True)
    return open_clip.get_tokenizer(name)


def _from_file(path: Path) -> FrozenCLIP:
    """The CLIP in a file in OpenAI's layout, whose architecture is read off its tensors."""
    weights = read_weights(path)
    words = weights.tensors.get("token_embedding.weight")
    if words is not None and words.ndim == 2 and len(words) < VOCABULARY:
        raise WeightsError(f"{path} has a vocabulary of {len(words)}, CLIP's has {VOCABULARY}: give --clip MODEL --weights {path}")
    state = {key: value for key, value in weights.tensors.items() if key.split(".")[0] in TOWERS}
    try:
        with torch.device("meta"):
            sketch = build_openai(state)
        check_room(sketch, state, path)
        sketch.load_state_dict({key: value.to("meta") for key, value in state.items()})
    except KeyError as error:
        raise WeightsError(_not_openai(path, f"{error} is missing")) from error
    except (AttributeError, IndexError, AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = first_line(error).removeprefix("Error(s) in loading state_dict for CLIP: ")
        raise WeightsError(_not_openai(path, reason)) from error
    model = build_openai(state)
    fill(model, weights.tensors, path, "CLIP in OpenAI's layout", stacklevel=5)
    if not weights.openai:
        example = "ViT-B-32" if "visual.proj" in state else "RN50"
        warnings.warn(
            f"{path.name} does not say its activation: it is read with QuickGELU and attention heads of 64 numbers, as OpenAI's models "
            f"have; for another, such as GELU, name the architecture: --clip {example} --weights {path.name}, or give an open_clip folder",
            stacklevel=4,
        )
    return FrozenCLIP(model, str(path), None, copied=False)


def _not_openai(path: Path, reason: str) -> str:
    return f"{path} is not a CLIP in OpenAI's layout ({reason}): for another layout give --clip MODEL --weights {path}"


def _from_named_file(name: str, path: Path) -> FrozenCLIP:
    """An open_clip model by name, with the weights in a file."""
    weights = read_weights(path)
    openai = weights.openai or bool(NOT_WEIGHTS & weights.tensors.keys())
    model = _create_named(name, force_quick_gelu=openai)
    fill(model, weights.tensors, path, name, stacklevel=4)
    if not openai and isinstance(model, open_clip.CLIP) and "quickgelu" not in name and f"{name}-quickgelu" in open_clip.list_models():
        warnings.warn(f"{path.name} is read as a {name} with GELU; if these are OpenAI's weights say {name}-quickgelu", stacklevel=3)
    clip = FrozenCLIP(model, name, str(path), name, copied=False)
    if otherwise := _otherwise(model):  # the same file alone is read as OpenAI's are, and no cache may take one for the other
        clip.fingerprint = hashlib.sha256(f"{clip.fingerprint} {' '.join(otherwise)}".encode()).hexdigest()
    return clip


def _otherwise(model: nn.Module) -> list[str]:
    """What of a model is other than OpenAI's and its weights do not tell: GELU instead of QuickGELU, attention heads not of 64 numbers."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.GELU):
            found.append(f"{name}:gelu")
        if isinstance(layer, nn.MultiheadAttention) and layer.head_dim != 64:
            found.append(f"{name}:{layer.head_dim}")
    return found


def _create(name: str, force_quick_gelu: bool = False, device: str = "cpu") -> nn.Module:
    """A model by name, without weights."""
    with quiet():
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, force_quick_gelu=force_quick_gelu, device=device)
    if isinstance(decoder := getattr(model, "text_decoder", None), nn.Module):  # CoCa's, of which open_clip leaves this as the memory was
        nn.init.zeros_(decoder.get_parameter("text_projection"))
    return model


def _create_named(name: str, force_quick_gelu: bool = False) -> nn.Module:
    """One of open_clip's models, without weights. Raises WeightsError where its text model, which Hugging Face has, cannot be had."""
    try:
        return _create(name, force_quick_gelu)
    except (RuntimeError, OSError) as error:
        raise WeightsError(f"cannot make {name}: {_lacking(error)}") from error


def _lacking(error: Exception) -> str:
    """What an error means that came as something was wanted of Hugging Face: the package that is missing, or the error itself."""
    for package in ("transformers", "sentencepiece"):
        if package in str(error).lower() and importlib.util.find_spec(package) is None:
            return f"it needs the package {package}: pip install 'depthtokens[hf]'"
    return first_line(error)


@contextmanager
def quiet() -> Iterator[None]:
    """A context without the log lines of open_clip and the hub: what is wrong is said once, by this package's own errors."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
