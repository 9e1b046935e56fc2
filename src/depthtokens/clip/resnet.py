"""CLIP's ModifiedResNet (RN50, RN101, RN50x4, ...): stride 32."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from .family import Family, Mode, resized_positions, thinned, thinned_channels, unit_grid


def trunk(visual: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> the last feature map [B, D, H/32, W/32], after ReLU; D = 32 * width."""
    x = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    return x


def layer4(visual: Any, x: Tensor) -> Tensor:
    """What both released codes read: the trunk's output as it is, thinned."""
    return thinned(x, visual.output_dim)


def attnpool(visual: Any, x: Tensor) -> Tensor:
    """Every position as a query of the attention pool, its position embedding resized to the grid; L2-normalised."""
    return unit_grid(attention_pool(visual.attnpool, x)[:, 1:], x.shape[-2:])


def value(visual: Any, x: Tensor) -> Tensor:
    """The pool's value path alone, c_proj(v_proj(x)) (MaskCLIP); L2-normalised."""
    pool = visual.attnpool
    return unit_grid(pool.c_proj(pool.v_proj(x.flatten(2).transpose(1, 2))), x.shape[-2:])


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


def _value_layer(visual: Any) -> nn.Linear:
    """The value path's two layers as one, multiplied out in double precision."""
    first, second = visual.attnpool.v_proj, visual.attnpool.c_proj
    both = nn.Linear(first.in_features, second.out_features, device=first.weight.device)
    weight, bias = second.weight.cpu().double(), first.bias.cpu().double()  # not every device has double precision
    both.weight.copy_(weight @ first.weight.cpu().double())
    both.bias.copy_(weight @ bias + second.bias.cpu().double())
    return both


def _layer4_channels(visual: Any) -> tuple[Tensor, int]:
    channels = int(visual.attnpool.v_proj.in_features)
    return thinned_channels(channels, visual.output_dim), channels


def _drop(visual: Any) -> None:
    visual.attnpool = None


RESNET = Family(
    fits=lambda visual: isinstance(visual, ModifiedResNet),
    trunk=trunk,
    stride=lambda visual: 32,
    modes={"layer4": Mode(layer4, kept=_layer4_channels), "attnpool": Mode(attnpool), "value": Mode(value, project=_value_layer)},
    drop=_drop,
)
