"""Dual encoders of transformers (CLIP, MetaCLIP 2, SigLIP, SigLIP 2, TIPSv2), laid out as open_clip's models are: `visual` and `text`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .family import Family, Mode, own_size, resized_positions, thinned, thinned_channels, unit_grid

Tokens = tuple[Tensor, tuple[int, ...]]
"""Tokens [B, prefix + h*w, width] and their grid (h, w)."""
_SMOOTH = ("siglip2_vision_model", "tipsv2_vision_model")
"""Image towers whose positions are resized bilinearly, with antialias; those of the others bicubically, without."""


class DualEncoder(nn.Module):
    """A dual encoder of transformers. Its sides share the weights of the model, which should not be used after it.

    Attributes:
        visual: its image side.
        text: its text side.

    Args:
        model: one of the models of `hf.KINDS`.
        mean: of pixels in 0-1, red, green and blue, that the images it was trained on were normalised with.
        std: their standard deviation.

    Raises:
        ValueError: for one whose patches cannot be read beside its text.
    """

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.visual = HFVisual(model.vision_model, getattr(model, "visual_projection", None), mean, std)
        self.text = HFText(model.text_model, getattr(model, "text_projection", None))
        for name, weight in model.named_parameters(recurse=False):  # temperatures and biases of its loss
            self.register_parameter(name, weight)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Ids [N, L] to text features [N, C], not normalised."""
        return cast(Tensor, self.text(ids))


class HFText(nn.Module):
    """The text side of a dual encoder.

    Attributes:
        transformer: the text model, whose token lookup gives what its scaling, if it has one, makes of the rows.
        masks_padding: whether what stands behind a text changes nothing: it is masked, or the tower is causal.
        context_length: positions in its longest text.

    Args:
        model: transformers' text model.
        projection: behind its pooling; None where there is none.
    """

    def __init__(self, model: Any, projection: nn.Module | None) -> None:
        super().__init__()
        config, embeddings = model.config, model.embeddings
        if hasattr(embeddings, "embed_scale"):
            embeddings.token_embedding = _ScaledEmbedding(embeddings.token_embedding, float(embeddings.embed_scale))
            embeddings.embed_scale = 1.0
        self.transformer, self.projection = model, projection or nn.Identity()
        self.context_length = int(config.max_position_embeddings)
        self.masks_padding = not config.model_type.startswith("siglip")
        self._pad = int(config.pad_token_id) if config.model_type.startswith("tipsv2") else None

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [N, L] to text features [N, C], not normalised."""
        mask = {} if self._pad is None else {"attention_mask": (ids != self._pad).long()}
        return cast(Tensor, self.projection(self.transformer(input_ids=ids, **mask).pooler_output))


class _ScaledEmbedding(nn.Embedding):
    """An embedding, of the weight of another, whose rows come out times a factor."""

    def __init__(self, plain: nn.Embedding, factor: float) -> None:
        super().__init__(plain.num_embeddings, plain.embedding_dim, _weight=plain.weight)
        self.factor = factor

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.factor


class HFVisual(nn.Module):
    """The image side of a dual encoder, in parts that all of them have.

    Attributes:
        patches: from images to patch embeddings; its kernel is a patch.
        first: the class token [1, 1, width]; None where there is none.
        positions: [1 + own h * own w, width], without the 1 where there is no class token.
        registers: tokens without a position behind the class token [1, n, width]; None where there are none.
        prefix: how many tokens stand before the patches.
        norm_before: before the first block.
        layers: the blocks.
        norm: behind the last block.
        pool: SigLIP's attention pool; None where the class token is read.
        projection: into the space of text features.
        image_size: (H, W) of the images that it was trained on.
        image_mean: of the pixels of these, in 0-1.
        image_std: their standard deviation.

    Args:
        model: transformers' vision model.
        projection: behind its pooling; None where there is none.
        mean: red, green and blue, in 0-1.
        std: likewise.
    """

    def __init__(self, model: Any, projection: nn.Module | None, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        parts, config = model.embeddings, model.config
        self.patches = _convolution(parts.patch_embeddings.projection if hasattr(parts, "patch_embeddings") else parts.patch_embedding)
        first = getattr(parts, "class_embedding", getattr(parts, "cls_token", None))
        self.first = None if first is None else nn.Parameter(first.detach().reshape(1, 1, -1))
        positions = parts.position_embeddings[0] if hasattr(parts, "position_embeddings") else parts.position_embedding.weight
        self.positions = nn.Parameter(positions.detach())
        self.registers: nn.Parameter | None = getattr(parts, "register_tokens", None)
        self.prefix = (self.first is not None) + (0 if self.registers is None else self.registers.shape[1])
        self.norm_before = getattr(model, "pre_layrnorm", nn.Identity())
        self.layers: nn.ModuleList = getattr(model.encoder, "layers", None) or model.encoder.layer
        self.norm: nn.LayerNorm = getattr(model, "post_layernorm", None) or model.layernorm
        self.pool: Any = getattr(model, "head", None)
        self.projection = projection or nn.Identity()
        side = round((len(self.positions) - int(self.first is not None)) ** 0.5)
        if side**2 + int(self.first is not None) != len(self.positions):
            raise ValueError("its positions are of no square")
        if getattr(config, "vision_use_head", True) is False:
            raise ValueError("its image tower has no pool, and so nothing beside the text's features")
        self.image_size = own_size(getattr(config, "image_size", None) or side * self.patches.stride[0])
        self.image_mean, self.image_std = tuple(mean), tuple(std)
        self._resize = ("bilinear", True) if config.model_type in _SMOOTH else ("bicubic", False)

    def positions_at(self, size: tuple[int, ...]) -> Tensor:
        """The positions of a grid (h, w), resized as transformers does it for this kind."""
        mode, antialias = self._resize
        classes = int(self.first is not None)
        return resized_positions(self.positions, size[0], size[1], classes=classes, mode=mode, antialias=antialias)


def trunk(visual: Any, images: Tensor) -> Tokens:
    """[B, 3, H, W] -> tokens before the last block."""
    x = visual.patches(images)
    size = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    if visual.first is not None:
        x = torch.cat([visual.first.to(x.dtype).expand(len(x), -1, -1), x], dim=1)
    x = x + visual.positions_at(size).to(x.dtype)
    if visual.registers is not None:
        x = torch.cat([x[:, :1], visual.registers.to(x.dtype).expand(len(x), -1, -1), x[:, 1:]], dim=1)
    x = visual.norm_before(x)
    for layer in visual.layers[:-1]:
        x = layer(x, None)
    return x, size


def tokens(visual: Any, before: Tokens) -> Tensor:
    """The tower's own norm and head on each patch token as if there were no other, which is SigLIP's pool's value path; L2-normalised."""
    x, size = before
    return _projected(visual, visual.layers[-1](x, None), size)


def value(visual: Any, before: Tokens) -> Tensor:
    """The same with the last block's attention replaced by its value path (MaskCLIP); L2-normalised."""
    x, size = before
    layer = visual.layers[-1]
    if hasattr(layer, "self_attn"):
        x = x + layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(x)))
        x = x + layer.mlp(layer.layer_norm2(x))
    else:  # TIPSv2
        x = x + layer.layer_scale1(layer.attention.o_proj(layer.attention.v_proj(layer.norm1(x))))
        x = x + layer.layer_scale2(layer.mlp(layer.norm2(x)))
    return _projected(visual, x, size)


def last_tokens(visual: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> patch tokens behind the last block [B, width, h, w]."""
    x, size = trunk(visual, images)
    return visual.layers[-1](x, None)[:, visual.prefix :].transpose(1, 2).unflatten(2, size)


def last(visual: Any, x: Tensor) -> Tensor:
    """`layer4`'s counterpart: the last block's tokens as they are, thinned."""
    return thinned(x, _channels(visual))


def _projected(visual: Any, x: Tensor, size: tuple[int, ...]) -> Tensor:
    x = visual.norm(x[:, visual.prefix :])
    if visual.pool is not None:  # attention to a single position gives its value
        attn = visual.pool.attention
        x = attn.out_proj(F.linear(x, attn.in_proj_weight[-attn.embed_dim :], attn.in_proj_bias[-attn.embed_dim :]))
        x = x + visual.pool.mlp(visual.pool.layernorm(x))
    return unit_grid(visual.projection(x), size)


def _convolution(patches: Any) -> nn.Conv2d:
    """A patch embedding as a convolution, also SigLIP 2's, which takes pixels patch by patch, colour by colour."""
    if isinstance(patches, nn.Conv2d):
        return patches
    side = round((patches.in_features // 3) ** 0.5)
    convolution = nn.Conv2d(3, patches.out_features, side, stride=side, device="meta")
    convolution.weight = nn.Parameter(patches.weight.detach().unflatten(1, (side, side, 3)).permute(0, 3, 1, 2).contiguous())
    convolution.bias = patches.bias
    return convolution


def _channels(visual: Any) -> int:
    """Width of the joint embedding."""
    projected = isinstance(visual.projection, nn.Linear)
    return int(visual.projection.out_features if projected else visual.positions.shape[1])


def _last_channels(visual: Any) -> tuple[Tensor, int]:
    width = int(visual.positions.shape[1])
    return thinned_channels(width, _channels(visual)), width


DUAL = Family(
    fits=lambda visual: isinstance(visual, HFVisual),
    trunk=trunk,
    stride=lambda visual: int(visual.patches.stride[0]),
    modes={"tokens": Mode(tokens), "value": Mode(value), "last": Mode(last, trunk=last_tokens, kept=_last_channels)},
    channels=_channels,
)
