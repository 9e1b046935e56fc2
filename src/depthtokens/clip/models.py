"""What open_clip's models are like, read off their configurations: towers are sketched without a single weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any

import open_clip
from open_clip.model import _build_text_tower, _build_vision_tower
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from ..errors import UsageError
from .image import ImageTower

_CONTEXT, _WIDTH = 77, 512
"""Of text towers that state none."""


@dataclass(frozen=True)
class Model:
    """A model that `load_clip` takes by name.

    Attributes:
        name: as open_clip calls it.
        tags: of its published weights, each a value of `weights`.
        text: kind of its text tower: "causal", "bidirectional", or the name of the transformers model that it is.
        width: numbers per token, and so per vector in a prompt; None where only the hub knows.
        context: positions in its longest prompt.
        dense: modes in which its patch features can be read, the default first.
        stride: pixels per patch.
        image_size: (H, W) of the images that it was trained on.
        any_size: whether it takes images of other sizes too.
        channels: width of the joint embedding.
        image_parameters: weights of the image tower.
        text_parameters: weights of the text tower; None where only the hub knows.
    """

    name: str
    tags: tuple[str, ...]
    text: str
    width: int | None
    context: int
    dense: tuple[str, ...]
    stride: int
    image_size: tuple[int, int]
    any_size: bool
    channels: int
    image_parameters: int
    text_parameters: int | None


def find_models(pattern: str | None = None) -> list[Model]:
    """The models whose names fit a pattern, in open_clip's order.

    Args:
        pattern: a part of the name, or a pattern with * and ?, in large or small letters; None for all.

    Raises:
        UsageError: where no name fits.
    """
    wanted = (pattern or "").lower()
    wild = wanted if set("*?[") & set(wanted) else f"*{wanted}*"
    names = [name for name in open_clip.list_models() if fnmatch(name.lower(), wild)]
    if not names:
        raise UsageError(f"no CLIP model has '{pattern}' in its name: `depthtokens models` lists all {len(open_clip.list_models())}")
    known: dict[str, Any] = {}

    def once(make: Callable[[int, dict[str, Any]], Any], width: int, config: dict[str, Any]) -> Any:
        key = json.dumps([make.__name__, width, config], sort_keys=True)
        if key not in known:
            known[key] = make(width, config)
        return known[key]

    return [_model(name, once) for name in names]


def _model(name: str, once: Callable[..., Any]) -> Model:
    config = open_clip.get_model_config(name)
    joint, vision, text = config["embed_dim"], config["vision_cfg"], config["text_cfg"]
    tower, weights = once(_image, joint, vision)
    foreign = text.get("hf_model_name")
    return Model(
        name=name,
        tags=tuple(open_clip.list_pretrained_tags_by_model(name)),
        text=foreign or ("bidirectional" if text.get("no_causal_mask") else "causal"),
        width=None if foreign else text.get("width", _WIDTH),
        context=text.get("context_length", _CONTEXT),
        dense=tuple(tower.modes),
        stride=tower.trunk_stride,
        image_size=tower.image_size,
        any_size=tower.fixed_size is None,
        channels=tower.channels,
        image_parameters=weights,
        text_parameters=None if foreign else once(_text, joint, text),
    )


def _image(joint: int, config: dict[str, Any]) -> tuple[ImageTower, int]:
    visual, weights = _sketch(partial(_build_vision_tower, joint), config)
    return ImageTower(visual), weights


def _text(joint: int, config: dict[str, Any]) -> int:
    return _sketch(partial(_build_text_tower, joint), config)[1]


def _sketch(build: Callable[[dict[str, Any]], nn.Module], config: dict[str, Any]) -> tuple[nn.Module, int]:
    """A tower without weights, and how many it would have; of open_clip's transformers with one block of many alike."""
    blocks = config.get("layers", 12)
    with _NoWeights():
        if "timm_model_name" in config or not isinstance(blocks, int):
            tower = build(config)
            return tower, _weights(tower)
        one, two = (build({**config, "layers": count}) for count in (1, 2))
    return one, _weights(one) + (blocks - 1) * (_weights(two) - _weights(one))


def _weights(tower: nn.Module) -> int:
    return sum(weight.numel() for weight in tower.parameters())


class _NoWeights(TorchFunctionMode):
    """In this context modules are made on the meta device, where tensors have shapes alone, and nothing is drawn to fill them."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FILLING:
            filled = args[0] if args else kwargs["tensor"]
            if isinstance(filled, Tensor):
                return filled
        if func in _CONSTRUCTORS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


_CONSTRUCTORS = _device_constructors()
_FILLING = {
    "uniform_", "normal_", "trunc_normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_", "copy_", "constant_", "zeros_",
    "ones_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_",
}  # fmt: skip
"""Functions that change values in place, and no shape."""
