"""open_clip's image towers, each shrunk to a few narrow layers of the same kinds and with the same options."""

from __future__ import annotations

import re
from unittest import mock

import open_clip
import timm
import torch
from open_clip.model import _build_vision_tower
from timm.models.vitamin import VitCfg, VitConvCfg

CHANNELS = 48
_NUMBERS = {"image_size", "width", "layers", "head_width", "patch_size", "mlp_ratio", "timm_model_name", "timm_drop_path"}
_SIZES = r"_so400m|(?<!mci)[0-9]+|_(tiny|small|base|medium|x*large|giant(opt)?|gigantic)"
_VIT = {"embed_dim": 64, "depth": 2, "num_heads": 2}
_STEM = VitCfg((16, 32, 64), (1, 1, 1), 16, VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6), "1d")


def kind(name):
    """What two models have in common that differ in numbers alone."""
    vision = open_clip.get_model_config(name)["vision_cfg"]
    options = sorted((key, str(value)) for key, value in vision.items() if key not in _NUMBERS)
    network = vision.get("timm_model_name")
    network = re.sub(_SIZES, "", network) if network else type(vision.get("layers")).__name__
    return network, tuple(options)


def kinds():
    """The first model of every kind, in open_clip's order."""
    return list({kind(name): name for name in reversed(open_clip.list_models())}.values())[::-1]


def shrunk(name, **options):
    """The image module of a model, small, with weights that all matter; `options` are of timm's network."""
    vision = dict(open_clip.get_model_config(name)["vision_cfg"])
    network = vision.get("timm_model_name")
    if network is None:
        patch = vision.get("patch_size") or 16
        small = {"layers": 2, "width": 64, "head_width": 32, "image_size": 3 * patch}
        if isinstance(vision["layers"], list):
            small = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64}
        return _stirred(_build_vision_tower(CHANNELS, {**vision, **small}))
    small, size = _timm(network)
    create = timm.create_model
    with mock.patch("timm.create_model", lambda name, **given: create(name, **{**small, **given, **options})):
        return _stirred(_build_vision_tower(CHANNELS, {**vision, "image_size": size}))


def _timm(network):
    """What makes one of timm's networks small, and the size of its images."""
    if network.startswith("convnext"):
        return {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}, 64
    if network.startswith("fastvit"):
        stages = 5 if network[-1] in "34" else 4
        return {"layers": (1,) * stages, "embed_dims": (8, 16, 32, 64, 64)[:stages]}, 128
    if network.startswith("swin"):
        return {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}, 224
    if network.startswith("vitamin"):
        return {**_VIT, "embed_cfg": _STEM, "img_size": 64}, 64
    size = 4 * int(re.search(r"patch(\d+)", network)[1]) if "patch" in network else 64
    return {"img_size": size, **({"depth": 1} if "mci" in network else _VIT)}, size


def _stirred(visual):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (*visual.parameters(), *(value for name, value in visual.named_buffers() if name.endswith("running_mean"))):
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return visual.eval().requires_grad_(False)
