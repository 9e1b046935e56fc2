"""Image to patch features: the ways to read CLIP's image tower at every position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from ..errors import UsageError, unknown

CPU_PIXELS = 480 * 640
Reader = Callable[[Any, Any], Any]
"""From an image tower and what comes before (images, or what the tower's modes share) to what comes next."""


def dense_features(visual: nn.Module, images: Tensor, mode: str) -> Tensor:
    """Patch features [B, C, h, w] of normalised images [B, 3, H, W]; C is the joint embedding's width, h = H // stride.

    mode, for CLIP's ResNets (stride 32):
      layer4    what both released codes read: the trunk before `attnpool`, L2-normalised over its channels, then thinned to C by a
                nearest resize of the channel axis (RN50: every second), and not normalised again.
      attnpool  every position as a query of the attention pool, its position embedding resized to the grid; L2-normalised.
      value     the pool's value path alone, c_proj(v_proj(x)) (MaskCLIP); L2-normalised.
    for open_clip's ViT towers (stride = patch size):
      tokens    ln_post(patch tokens) @ proj, position embedding resized in two dimensions; L2-normalised.
      value     the same with the last block's attention replaced by its value path (MaskCLIP); L2-normalised.
    Raises UsageError for a mode that the tower does not have, or an image smaller than one patch.
    """
    return dense_modes(visual, images, (mode,))[mode]


def dense_modes(visual: nn.Module, images: Tensor, modes: Sequence[str]) -> dict[str, Tensor]:
    """`dense_features` in several modes from one pass over the trunk."""
    body, readers = _parts(visual)
    for mode in modes:
        _check(visual, mode, readers)
    stride = 32 if isinstance(visual, ModifiedResNet) else int(visual.patch_size[0])  # type: ignore[index]
    if min(images.shape[-2:]) < stride:
        raise UsageError(f"image of {images.shape[-2]}x{images.shape[-1]} pixels is smaller than one {stride}x{stride} patch")
    count = _at_once(visual, images)
    parts = []
    for piece in [images] if count is None else images.split(count):
        x = body(visual, piece)
        parts.append([readers[mode](visual, x) for mode in modes])
    return {mode: same[0] if len(same) == 1 else torch.cat(same) for mode, same in zip(modes, zip(*parts, strict=True), strict=True)}


def _at_once(visual: nn.Module, images: Tensor) -> int | None:
    """How many images go through the tower together: on a CPU as many as leave its caches some use.

    None, all of them, where layers take batch statistics, and in a graph that is being exported, whose batch is open.
    """
    together = images.device.type != "cpu" or torch.is_grad_enabled() or any(module.training for module in visual.modules())
    if together or torch.compiler.is_compiling():
        return None
    return max(1, CPU_PIXELS // (images.shape[-2] * images.shape[-1]))


def check_mode(visual: nn.Module, mode: str) -> None:
    """Raise UsageError unless `visual` can be read in `mode`."""
    _check(visual, mode, _parts(visual)[1])


def _check(visual: nn.Module, mode: str, readers: dict[str, Reader]) -> None:
    if mode not in {**RESNET_MODES, **VIT_MODES}:
        raise unknown("dense mode", mode, readers)
    if mode not in readers:
        raise UsageError(f"dense mode '{mode}' is not for a {type(visual).__name__}: use {' or '.join(readers)}")


def _parts(visual: nn.Module) -> tuple[Reader, dict[str, Reader]]:
    """What all modes of a tower share, and how each goes on from there."""
    if isinstance(visual, ModifiedResNet):
        return trunk, RESNET_MODES
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        return _vit_trunk, VIT_MODES
    raise UsageError(f"no dense features for a {type(visual).__name__} image tower: use a CLIP ResNet or an open_clip ViT")


def trunk(visual: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> the ResNet's last feature map [B, 32 * width, H/32, W/32], after ReLU."""
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    return x


def _layer4(visual: Any, x: Tensor) -> Tensor:
    x = F.normalize(x.float(), dim=1)
    return x[:, thinned_channels(x.shape[1], visual.output_dim).to(x.device)]


def thinned_channels(trunk_channels: int, joint_channels: int) -> Tensor:
    """Which trunk channels a nearest resize of the channel axis keeps: [joint_channels] int64."""
    return torch.arange(joint_channels) * trunk_channels // joint_channels


def _attnpool(visual: Any, x: Tensor) -> Tensor:
    return _grid(attention_pool(visual.attnpool, x)[:, 1:], x.shape[-2:])


def attention_pool(pool: Any, x: Tensor) -> Tensor:
    """CLIP's attention pool with every position as a query: [B, D, h, w] -> [B, 1 + h*w, C].

    Row 0 is the mean token, which at the pool's own grid is CLIP's image embedding.
    """
    h, w = x.shape[-2:]
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + resized_positions(pool.positional_embedding, h, w)

    def heads(t: Tensor) -> Tensor:
        return t.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    q, k, v = (heads(proj(tokens)) for proj in (pool.q_proj, pool.k_proj, pool.v_proj))
    return pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _resnet_value(visual: Any, x: Tensor) -> Tensor:
    pool = visual.attnpool
    return _grid(pool.c_proj(pool.v_proj(x.flatten(2).transpose(1, 2))), x.shape[-2:])


def _vit_trunk(visual: Any, images: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """[B, 3, H, W] -> tokens [B, 1 + h*w, width] before the last block, and the grid (h, w)."""
    x = visual.conv1(images)
    size = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = visual.ln_pre(x + resized_positions(visual.positional_embedding, *size).to(x.dtype))
    for block in list(visual.transformer.resblocks)[:-1]:
        x = block(x)
    return x, size


def _vit_tokens(visual: Any, before: tuple[Tensor, tuple[int, ...]]) -> Tensor:
    x, size = before
    return _grid(visual.ln_post(visual.transformer.resblocks[-1](x)[:, 1:]) @ visual.proj, size)


def _vit_value(visual: Any, before: tuple[Tensor, tuple[int, ...]]) -> Tensor:
    x, size = before
    return _grid(visual.ln_post(_value_block(visual.transformer.resblocks[-1], x)[:, 1:]) @ visual.proj, size)


def _value_block(block: Any, x: Tensor) -> Tensor:
    """A residual block in which every token attends to itself alone; as in MaskCLIP the residual and the MLP stay."""
    if type(block) is not ResidualAttentionBlock:
        raise UsageError("dense mode 'value' needs open_clip's standard attention blocks: use 'tokens'")
    attn, width = block.attn, x.shape[-1]
    value = F.linear(block.ln_1(x), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
    x = x + block.ls_1(attn.out_proj(value))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def resized_positions(positions: Tensor, h: int, w: int) -> Tensor:
    """Position embedding [1 + g*g, D] of a square grid -> [1 + h*w, D], bicubic as open_clip resizes at loading."""
    side = round((len(positions) - 1) ** 0.5)
    if (h, w) == (side, side):
        return positions
    grid = positions[1:].T.reshape(1, -1, side, side)
    grid = F.interpolate(grid.float(), size=(h, w), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1], grid[0].flatten(1).T.to(positions.dtype)])


def _grid(tokens: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, h*w, C] -> L2-normalised [B, C, h, w]."""
    return F.normalize(tokens.float(), dim=-1).transpose(1, 2).unflatten(2, size)


RESNET_MODES: dict[str, Reader] = {"layer4": _layer4, "attnpool": _attnpool, "value": _resnet_value}
VIT_MODES: dict[str, Reader] = {"tokens": _vit_tokens, "value": _vit_value}
