"""open_clip's VisionTransformer with a class token (ViT-B-32, ...): its stride is the patch size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ..errors import UsageError
from .family import Family, Mode, resized_positions, unit_grid

Tokens = tuple[Tensor, tuple[int, ...]]
"""Tokens [B, 1 + h*w, width] and their grid (h, w)."""


def trunk(visual: Any, images: Tensor) -> Tokens:
    """[B, 3, H, W] -> tokens before the last block."""
    x = visual.conv1(images)
    size = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + resized_positions(visual.positional_embedding, size[0], size[1], visual.grid_size).to(x.dtype))
    for block in list(visual.transformer.resblocks)[:-1]:
        x = block(x)
    return x, size


def tokens(visual: Any, before: Tokens) -> Tensor:
    """ln_post(patch tokens) @ proj, position embedding resized in two dimensions; L2-normalised."""
    x, size = before
    return _projected(visual, visual.transformer.resblocks[-1](x), size)


def value(visual: Any, before: Tokens) -> Tensor:
    """The same with the last block's attention replaced by its value path (MaskCLIP); L2-normalised."""
    x, size = before
    return _projected(visual, _value_block(visual.transformer.resblocks[-1], x), size)


def _projected(visual: Any, x: Tensor, size: tuple[int, ...]) -> Tensor:
    return unit_grid(visual.ln_post(x[:, 1:]) @ visual.proj, size)


def _value_block(block: Any, x: Tensor) -> Tensor:
    """A residual block in which every token attends to itself alone; as in MaskCLIP the residual and the MLP stay."""
    if type(block) is not ResidualAttentionBlock:
        raise UsageError("dense mode 'value' needs open_clip's standard attention blocks: use 'tokens'")
    attn, width = block.attn, x.shape[-1]
    value = F.linear(block.ln_1(x), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
    x = x + block.ls_1(attn.out_proj(value))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _fits(visual: nn.Module) -> bool:
    return isinstance(visual, VisionTransformer) and visual.attn_pool is None


VIT = Family(fits=_fits, trunk=trunk, stride=lambda visual: int(visual.patch_size[0]), modes={"tokens": Mode(tokens), "value": Mode(value)})
