"""timm's networks as open_clip's image towers: SigLIP, PE, EVA, ViTamin, ConvNeXt, FastViT (MobileCLIP), Swin."""

from __future__ import annotations

import copy
from typing import Any

from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from .family import Family, Mode, own_size, thinned, thinned_channels, unit_grid


def trunk(visual: Any, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> positions before the last norm [B, D, h, w], without class and register tokens."""
    stride = _stride(visual)
    h, w = (length // stride for length in images.shape[-2:])
    images = images[..., : h * stride, : w * stride]  # whole patches: some trunks would pad a part of one, others refuse it
    x = _at(visual.trunk, (h, w)).forward_features(images)
    if x.ndim == 3:
        return x[:, getattr(visual.trunk, "num_prefix_tokens", 0) :].transpose(1, 2).unflatten(2, (h, w))
    return x.permute(0, 3, 1, 2) if _channels_last(visual.trunk) else x


def tokens(visual: Any, x: Tensor) -> Tensor:
    """The tower's own head applied to each position as if there were no other; L2-normalised."""
    return unit_grid(positions(visual, x), x.shape[-2:])


def positions(visual: Any, x: Tensor) -> Tensor:
    """What the tower would say of images that are one position each: [B, D, h, w] -> [B, h*w, C], not normalised.

    Where the head is linear behind its mean over positions, the mean of these is the tower's embedding. Attention over one position is
    its value, so of attention pools this is the value path (MaskCLIP).
    """
    network = visual.trunk
    alone = x.flatten(2).transpose(1, 2).flatten(0, 1)[:, None]  # [B*h*w, 1, D]
    if hasattr(network, "norm"):
        alone = network.norm(alone)
    if getattr(network, "patch_embed", None) is None:
        alone = alone.transpose(1, 2)[..., None]  # [B*h*w, D, 1, 1]
    elif _channels_last(network):
        alone = alone[:, None]
    else:  # the position stands for class and register tokens too, whichever of them the head reads
        alone = alone.expand(-1, 1 + getattr(network, "num_prefix_tokens", 0), -1)
    return visual.head(network.forward_head(alone)).unflatten(0, (x.shape[0], -1))


def last(visual: Any, x: Tensor) -> Tensor:
    """`layer4`'s counterpart: positions before norm and head, thinned."""
    return thinned(x, _channels(visual))


def _at(network: Any, grid: tuple[int, int]) -> Any:
    """A network that takes images of `grid` patches and leaves out its last norm. It shares all weights, and `network` stays as it is."""
    if not hasattr(network, "norm") and not _resizes(network):
        return network
    twin = _twin(network)
    if hasattr(network, "norm"):
        twin.norm = nn.Identity()
    if _resizes(network):
        twin.dynamic_img_size = True
        twin.patch_embed = embed = _twin(network.patch_embed)
        embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, "NHWC"
        if getattr(getattr(network, "rope", None), "feat_shape", None) is not None:
            twin.rope = _twin(network.rope)
            twin.rope._buffers = {name: None if kept is None else kept.clone() for name, kept in network.rope._buffers.items()}
            twin.rope.feat_shape = (0, 0)  # no grid: it is made anew, into the buffers
            twin.rope.update_feat_shape(grid)
    return twin


def _twin(module: Any) -> Any:
    """A module of the same weights and parts, in which parts can be exchanged."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _resizes(network: Any) -> bool:
    """Whether a network is a ViT that can bring its positions to any grid."""
    return hasattr(network, "dynamic_img_size") and hasattr(network, "_pos_embed")


def _channels_last(network: Any) -> bool:
    return getattr(network, "output_fmt", "NCHW") == "NHWC"


def _stride(visual: Any) -> int:
    return int(visual.trunk.feature_info[-1]["reduction"])


def _channels(visual: Any) -> int:
    """Width of the joint embedding: of the last layer that there is."""
    layers = [layer for layer in visual.head.modules() if isinstance(layer, nn.Linear)]
    if layers:
        return layers[-1].out_features
    return int(visual.trunk.num_classes or visual.trunk.head_hidden_size)


def _last_channels(visual: Any) -> tuple[Tensor, int]:
    width = int(visual.trunk.num_features)
    return thinned_channels(width, _channels(visual)), width


def _fixed(visual: Any) -> tuple[int, int] | None:
    """The only size that windows and relative positions take; None where the trunk is convolutional or resizes its positions."""
    network = visual.trunk
    return None if _resizes(network) or getattr(network, "patch_embed", None) is None else _own(visual)


def _own(visual: Any) -> tuple[int, int]:
    """The trunk's own size, which open_clip's configuration states otherwise for ViTamin-XL-384."""
    return own_size(getattr(getattr(visual.trunk, "patch_embed", None), "img_size", None) or visual.image_size)


TIMM = Family(
    fits=lambda visual: isinstance(visual, TimmModel),
    trunk=trunk,
    stride=_stride,
    modes={"tokens": Mode(tokens), "last": Mode(last, kept=_last_channels)},
    channels=_channels,
    own=_own,
    fixed=_fixed,
)
