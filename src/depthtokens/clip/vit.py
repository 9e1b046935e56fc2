"""open_clip's VisionTransformer with a class token (ViT-B-32, CLIPA, CoCa, ...): its stride is the patch size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ..errors import UsageError
from .family import Family, Mode, resized_positions, thinned, thinned_channels, unit_grid

Tokens = tuple[Tensor, tuple[int, ...]]
"""Tokens [B, 1 + h*w, width] and their grid (h, w)."""
SIGMA = 5.0
"""Standard deviation, in patches, of the Gaussian by which `kk` prefers near patches."""


def trunk(visual: Any, images: Tensor) -> Tokens:
    """[B, 3, H, W] -> tokens before the last block."""
    x = visual.conv1(images)
    size = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
    x = visual.ln_pre(x + resized_positions(visual.positional_embedding, size[0], size[1], visual.grid_size).to(x.dtype))
    for block in list(visual.transformer.resblocks)[:-1]:
        x = block(x)
    return x, size


def tokens(visual: Any, before: Tokens) -> Tensor:
    """ln_post(patch tokens) @ proj, position embedding resized in two dimensions; L2-normalised.

    In CoCa each token goes through the attention pool alone first, which is the pool's value path.
    """
    x, size = before
    return _projected(visual, _last_block(visual)(x), size)


def value(visual: Any, before: Tokens) -> Tensor:
    """The same with the last block's attention replaced by its value path (MaskCLIP); L2-normalised."""
    x, size = before
    block = _standard_block(visual, "value")
    width = x.shape[-1]
    own = F.linear(block.ln_1(x), block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :])
    return _projected(visual, _finish(block, x, own), size)


def last_tokens(visual: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> patch tokens behind the last block [B, width, h, w]."""
    x, size = trunk(visual, images)
    return _last_block(visual)(x)[:, 1:].transpose(1, 2).unflatten(2, size)


def last(visual: Any, x: Tensor) -> Tensor:
    """`layer4`'s counterpart: the last block's tokens as they are, thinned."""
    return thinned(x, visual.output_dim)


def qq(visual: Any, before: Tokens) -> Tensor:
    """The last block's attention from queries to queries, without residual and MLP (ClearCLIP); L2-normalised."""
    x, size = before
    block = _standard_block(visual, "qq")
    q, _, v = _heads(block, x)
    return _projected(visual, _attended(block, F.scaled_dot_product_attention(q, q, v)), size)


def kk(visual: Any, before: Tokens) -> Tensor:
    """The same from keys to keys, near patches preferred by a Gaussian of their distance (NACLIP); L2-normalised."""
    x, size = before
    block = _standard_block(visual, "kk")
    _, k, v = _heads(block, x)
    near = F.pad(_nearness(size, x.device), (1, 0, 1, 0)).to(x.dtype)  # the class token is nowhere
    return _projected(visual, _attended(block, F.scaled_dot_product_attention(k, k, v, attn_mask=near)), size)


def qqkk(visual: Any, before: Tokens) -> Tensor:
    """Both attentions' sum in the last block, whose residual and MLP stay (SCLIP); L2-normalised."""
    x, size = before
    block = _standard_block(visual, "qqkk")
    q, k, v = _heads(block, x)
    both = F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
    return _projected(visual, _finish(block, x, both.transpose(1, 2).flatten(2)), size)


def _last_block(visual: Any) -> Any:
    return visual.transformer.resblocks[-1]


def _standard_block(visual: Any, mode: str) -> Any:
    """The last block. Raises UsageError for one that is not made of the parts that a mode takes out."""
    block = _last_block(visual)
    if type(block) is not ResidualAttentionBlock:
        raise UsageError(f"dense mode '{mode}' needs open_clip's standard attention blocks: use 'tokens'")
    return block


def _heads(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, heads, L, d] of tokens [B, L, width]."""
    attn = block.attn
    q, k, v = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias).unflatten(-1, (3, attn.num_heads, -1)).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def _attended(block: Any, values: Tensor) -> Tensor:
    """What a block's attention gives [B, L, width] of values [B, heads, L, d]."""
    return block.ls_1(block.attn.out_proj(values.transpose(1, 2).flatten(2)))


def _finish(block: Any, x: Tensor, values: Tensor) -> Tensor:
    """The rest of a residual block from values [B, L, width] on."""
    x = x + block.ls_1(block.attn.out_proj(values))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _nearness(size: tuple[int, ...], device: torch.device) -> Tensor:
    """exp(-d² / 2σ²) between patches d apart: [h*w, h*w], 1 of a patch with itself."""
    rows, columns = (torch.arange(length, device=device, dtype=torch.float32) for length in size)
    y, x = ((-((along[:, None] - along) ** 2) / (2 * SIGMA**2)).exp() for along in (rows, columns))
    return (y[:, None, :, None] * x[None, :, None, :]).flatten(2).flatten(0, 1)


def _projected(visual: Any, x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The tower's own head on each patch token of [B, 1 + h*w, width] as if there were no other."""
    x = x[:, 1:]
    if visual.attn_pool is not None:
        x = _pool_value(visual.attn_pool, x)
    return unit_grid(visual.ln_post(x) @ visual.proj, size)


def _pool_value(pool: Any, x: Tensor) -> Tensor:
    """What CoCa's attention pool gives each of its queries of a single token: that token's value."""
    attn = pool.attn
    weight = attn.in_proj_weight[-attn.embed_dim :] if attn.in_proj_weight is not None else attn.v_proj_weight
    return attn.out_proj(F.linear(pool.ln_k(x), weight, attn.in_proj_bias[-attn.embed_dim :]))


def _last_channels(visual: Any) -> tuple[Tensor, int]:
    width = int(visual.transformer.width)
    return thinned_channels(width, visual.output_dim), width


def _fits(visual: nn.Module) -> bool:
    return isinstance(visual, VisionTransformer) and (visual.attn_pool is None or visual.attn_pool_contrastive is None)


VIT = Family(
    fits=_fits,
    trunk=trunk,
    stride=lambda visual: int(visual.patch_size[0]),
    modes={
        "tokens": Mode(tokens),
        "value": Mode(value),
        "qq": Mode(qq),
        "kk": Mode(kk),
        "qqkk": Mode(qqkk),
        "last": Mode(last, trunk=last_tokens, kept=_last_channels),
    },
)
