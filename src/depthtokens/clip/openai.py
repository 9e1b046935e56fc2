"""OpenAI's layout of a CLIP: the architecture, read off the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import open_clip
from torch import Tensor

TOWERS = {"visual", "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection", "logit_scale"}
"""How names of tensors begin in OpenAI's layout."""
_HEAD = 64
"""Numbers per attention head, in OpenAI's models."""
_STRIDE = 32
"""Pixels per position of a ResNet's attention pool."""


def openai_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What `open_clip.CLIP` is made with for a state dict in OpenAI's layout: a ResNet if there is no `visual.proj`, else a ViT.

    Raises:
        KeyError: for a tensor that is missing.
        ValueError: for an attention pool that is not square.
    """
    if "visual.proj" in state:
        patches = state["visual.conv1.weight"]
        grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
        vision = {
            "layers": _blocks(state, "visual.transformer.resblocks"), "width": len(patches), "head_width": _HEAD,
            "patch_size": patches.shape[-1], "image_size": patches.shape[-1] * grid,
        }  # fmt: skip
    else:
        positions = len(state["visual.attnpool.positional_embedding"])
        grid = round((positions - 1) ** 0.5)
        if grid**2 + 1 != positions:
            raise ValueError(f"an attention pool of {positions} positions is not square")
        vision = {
            "layers": [_blocks(state, f"visual.layer{stage}") for stage in (1, 2, 3, 4)],
            "width": len(state["visual.layer1.0.conv1.weight"]), "head_width": _HEAD, "image_size": grid * _STRIDE,
        }  # fmt: skip
    width = len(state["ln_final.weight"])
    text = {
        "context_length": len(state["positional_embedding"]), "vocab_size": len(state["token_embedding.weight"]), "width": width,
        "heads": width // _HEAD, "layers": _blocks(state, "transformer.resblocks"),
    }  # fmt: skip
    return {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text}


def build_openai(state: Mapping[str, Tensor]) -> open_clip.CLIP:
    """The CLIP that a state dict in OpenAI's layout describes, with QuickGELU, which its tensors do not tell; not yet filled from it.

    Raises `KeyError`, `ValueError` and the like for tensors that describe none.
    """
    return open_clip.CLIP(**openai_config(state), quick_gelu=True).eval()


def _blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered blocks there are behind a prefix of names."""
    return len({name.removeprefix(f"{prefix}.").split(".")[0] for name in state if name.startswith(f"{prefix}.")})
