"""Images to patch features: a CLIP's image tower, read at every position. The twin of `text.TextTower`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.constants import IMAGENET_MEAN, IMAGENET_STD
from torch import Tensor, nn

from ..errors import UsageError, unknown
from . import NORMALISATIONS
from .device import autocast, may_read
from .dual import DUAL
from .resnet import RESNET
from .timm import TIMM
from .vit import VIT

FAMILIES = (RESNET, VIT, TIMM, DUAL)
CPU_PIXELS = 480 * 640
"""Pixels that go through a tower together on a CPU: as many as leave its caches some use."""


class ImageTower:
    """A CLIP's image side: its trunk, the modes in which patch features can be read from there, and what images it wants.

    Attributes:
        visual: open_clip's module, which owns the weights.
        modes: name -> `family.Mode`.
        trunk_stride: pixels per position of the family's trunk's output.
        default: the mode that is taken where none is named.
        channels: width C of the joint embedding, and so of patch features.
        image_size: (H, W) of the images that the tower was trained on.
        fixed_size: (H, W) of the only images that it takes, None where it takes any.

    Args:
        visual: the image module of an open_clip model.

    Raises:
        UsageError: for a kind of module that cannot be read densely.
    """

    def __init__(self, visual: nn.Module) -> None:
        family = next((family for family in FAMILIES if family.fits(visual)), None)
        if family is None:
            raise UsageError(f"no dense features for a {type(visual).__name__} image tower: use open_clip's, timm's or transformers'")
        self.visual: Any = visual
        self.family, self.modes = family, family.modes
        module: Any = visual
        self.default = next(iter(family.modes))
        self.trunk_stride, self.channels = family.stride(module), family.channels(module)
        self.image_size, self.fixed_size = family.own(module), family.fixed(module)

    def check_mode(self, mode: str) -> None:
        """Raise UsageError unless this tower can be read in `mode`."""
        if not isinstance(mode, str):
            raise UsageError(f"a dense mode is a name, not {mode!r}: use {' or '.join(self.modes)}")
        if mode in self.modes:
            return
        if not any(mode in family.modes for family in FAMILIES):
            raise unknown("dense mode", mode, self.modes)
        raise UsageError(f"dense mode '{mode}' is not for a {type(self.visual).__name__}: use {' or '.join(self.modes)}")

    def stride(self, mode: str) -> int:
        """Pixels per patch in a mode. Raises UsageError for a mode that the tower does not have."""
        self.check_mode(mode)
        return self.trunk_stride // self.modes[mode].finer

    def grid(self, size: tuple[int, int], mode: str) -> tuple[int, int]:
        """Patches (h, w) of an image of `size` (H, W)."""
        stride = self.stride(mode)
        return size[0] // stride, size[1] // stride

    def trunk(self, images: Tensor, mode: str) -> Any:
        """What a mode reads, of images [B, 3, H, W]; for a ResNet a feature map [B, D, h, w]."""
        return self.family.trunk_of(mode)(self.visual, images)

    def patches(self, images: Tensor, mode: str) -> Tensor:
        """Patch features [B, C, h, w]; see `dense_features`. Raises UsageError as `patches_in`, and for features that are no numbers."""
        features = self.patches_in(images, (mode,))[mode]
        check_finite(features, images, self.visual)
        return features

    def patches_in(self, images: Tensor, modes: Sequence[str]) -> dict[str, Tensor]:
        """Patch features in several modes from one pass over each trunk that they read, whether or not they are finite numbers.

        Args:
            images: [B, 3, H, W], normalised.
            modes: names of modes.

        Returns:
            Mode -> features [B, C, h, w].

        Raises:
            UsageError: for a mode that the tower does not have, images smaller than one patch, of another shape, type or device.
        """
        if isinstance(modes, str):
            raise UsageError(f"several modes are a list of names, not '{modes}': write ['{modes}']")
        for mode in modes:
            self.check_mode(mode)
        self.check_images(images)
        for mode in modes:
            self.check_size(images, mode)
        weight = self._first
        known = images.dtype == weight.dtype or (images.dtype != torch.float64 and torch.is_autocast_enabled(images.device.type))
        if not known or images.device != weight.device:
            ours, theirs = (f"{str(t.dtype)[6:]} on {t.device}" for t in (weight, images))
            raise UsageError(f"images are {theirs}, the image tower is {ours}: bring them together with .to()")
        count = self._at_once(images)
        trunks = {mode: self.family.trunk_of(mode) for mode in modes}
        parts = []
        for piece in [images] if count is None else images.split(count):
            seen = {trunk: trunk(self.visual, piece) for trunk in set(trunks.values())}
            parts.append([self.modes[mode].read(self.visual, seen[trunks[mode]]) for mode in modes])
        return {mode: same[0] if len(same) == 1 else torch.cat(same) for mode, same in zip(modes, zip(*parts, strict=True), strict=True)}

    def check_size(self, images: Tensor, mode: str) -> None:
        """Raise UsageError for images [..., H, W] that are smaller than one of a mode's patches, or not of the only size that there is."""
        (height, width), stride = images.shape[-2:], self.stride(mode)
        if min(height, width) < stride:
            raise UsageError(f"image of {height}x{width} pixels is smaller than one {stride}x{stride} patch")
        if self.fixed_size and (height, width) != self.fixed_size:
            h, w = self.fixed_size
            raise UsageError(f"image of {height}x{width} pixels: this tower's relative positions are for images of {h}x{w} alone")

    @property
    def _first(self) -> Tensor:
        """The weight that pixels meet first, [D, 3, k, k]."""
        return next(weight for weight in self.visual.parameters() if weight.ndim == 4)

    def check_images(self, images: Tensor) -> None:
        """Raise UsageError for what is no batch of images [B, 3, H, W] of floating-point numbers, each at least as large as one patch."""
        channels = self._first.shape[1]
        if not isinstance(images, Tensor):
            raise UsageError(f"images are a tensor [B, {channels}, H, W], not a {type(images).__name__}")
        if images.ndim != 4 or images.shape[1] != channels:
            raise UsageError(f"images are [B, {channels}, H, W], not {list(images.shape)}")
        if not images.is_floating_point():
            raise UsageError(f"images are normalised floating-point numbers, not {str(images.dtype)[6:]}: divide by 255, then normalise")

    def _at_once(self, images: Tensor) -> int | None:
        """How many images go through the tower together.

        None, all of them, where layers take batch statistics, and in a graph that is being exported, whose batch is open.
        """
        together = images.device.type != "cpu" or torch.is_grad_enabled() or any(module.training for module in self.visual.modules())
        if together or torch.compiler.is_compiling():
            return None
        return max(1, CPU_PIXELS // (images.shape[-2] * images.shape[-1]))

    @property
    def own_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation that the tower says it was trained with, else OpenAI's."""
        mean = getattr(self.visual, "image_mean", None) or OPENAI_DATASET_MEAN
        std = getattr(self.visual, "image_std", None) or OPENAI_DATASET_STD
        return tuple(mean), tuple(std)

    @property
    def trained_like_imagenet(self) -> bool:
        """Whether the CLIP's own statistics are ImageNet's, so that the normalisations "clip" and "imagenet" are the same."""
        return self.own_statistics == (tuple(IMAGENET_MEAN), tuple(IMAGENET_STD))

    def normalised(self, images: Tensor, normalisation: str) -> Tensor:
        """Images as data sets hand them out, with ImageNet's statistics, in those asked for; an affine change, so nothing is lost.

        Args:
            images: [..., 3, H, W].
            normalisation: one of `NORMALISATIONS`.

        Returns:
            Images of the same shape.

        Raises:
            UsageError: for an unknown normalisation, or images of another number of channels.
        """
        check_normalisation(normalisation)
        if images.ndim < 3 or images.shape[-3] != 3:  # the means would make three channels of one
            raise UsageError(f"images are [..., 3, H, W], not {list(images.shape)}")
        if normalisation == "imagenet" or self.trained_like_imagenet:
            return images
        old, old_std, new, new_std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD, *self.own_statistics))
        return (images * old_std + (old - new)) / new_std

    def encode(self, images: Tensor, mode: str, normalisation: str = "imagenet", precision: str = "float32") -> Tensor:
        """Patch features of images as data sets hand them out, without gradient, since the trunk learns nothing.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.
            mode: how patches are read.
            normalisation: one of `NORMALISATIONS`, what the tower is to see.
            precision: of the tower.

        Returns:
            Features [B, C, h, w], float32.

        Raises:
            UsageError: for an unknown mode, normalisation or precision, images of another shape, type or device, or features that are no
                numbers, as where half precision overflows.
        """
        self.check_images(images)
        with torch.no_grad(), autocast(images.device, precision):
            return self.patches(self.normalised(images, normalisation), mode)

    def batchnorm_layers(self) -> dict[str, nn.BatchNorm2d]:
        """The tower's BatchNorm layers by name."""
        return {name: layer for name, layer in self.visual.named_modules() if isinstance(layer, nn.BatchNorm2d)}

    def copied(self) -> ImageTower:
        """A tower of its own, whose statistics may change without changing this one's."""
        return ImageTower(copy.deepcopy(self.visual))


def dense_features(clip: nn.Module, images: Tensor, mode: str | None = None) -> Tensor:
    """Patch features of images in the space of a CLIP's text features, in one of the ways to read its image tower.

    CLIP's ResNets (stride 32):

    - `layer4` (the default): what both released codes read, the trunk before its attention pool, L2-normalised over its channels, then
      thinned to C by a nearest resize of the channel axis, and not normalised again. Never trained to match text.
    - `attnpool`: every position as a query of the attention pool, its position embedding resized to the grid.
    - `value`: the pool's value path alone (MaskCLIP).

    open_clip's ViTs (stride = patch size; the position embedding is resized in two dimensions):

    - `tokens` (the default): the tower's own head applied to each patch token alone: ln_post(token) @ proj, behind the value path of the
      attention pool in CoCa.
    - `value`: the same with the last block's attention replaced by its value path (MaskCLIP).
    - `qq`: with its attention from queries to queries, without residual and MLP (ClearCLIP).
    - `kk`: likewise from keys to keys, plus a Gaussian of the patches' distance (NACLIP).
    - `qqkk`: with the sum of both attentions, residual and MLP staying (SCLIP).
    - `last`: `layer4`'s counterpart: the last tokens before norm and head, L2-normalised, thinned, and not normalised again.

    timm's towers (SigLIP, PE, EVA, ViTamin, ConvNeXt, MobileCLIP, Swin):

    - `tokens` (the default): the tower's own head applied to each position alone; of attention pools that is their value path.
    - `last`: as above.

    transformers' dual encoders (CLIP, MetaCLIP 2, SigLIP, SigLIP 2, TIPSv2):

    - `tokens` (the default), `value`, `last`: as above; the attention pool of SigLIP and SigLIP 2 by its value path in both of the former.

    All but `layer4` and `last` come out L2-normalised.

    Args:
        clip: a `FrozenCLIP`, an open_clip model, or the image module of one.
        images: [B, 3, H, W], normalised as the tower is to see them; `FrozenCLIP.preprocess` makes such.
        mode: the way to read; None takes the default.

    Returns:
        [B, C, h, w] float32; C is the joint embedding's width, h = H // stride.

    Raises:
        UsageError: for a mode that the tower does not have, images smaller than one patch or of a size that the tower does not take.

    Example:
        >>> from depthtokens import load_clip
        >>> dense_features(load_clip("bundled"), torch.zeros(2, 3, 208, 272), "attnpool").shape
        torch.Size([2, 256, 6, 8])
    """
    visual = getattr(clip, "visual", clip)
    tower = ImageTower(visual)
    return tower.patches(images, tower.default if mode is None else mode)


def check_finite(features: Tensor, images: Tensor, visual: nn.Module) -> None:
    """Raise UsageError, with the cause and what to do, for features that hold NaN or infinite values. Checked where `may_read` allows it.

    Args:
        features: what an image tower made.
        images: of these.
        visual: the tower's module.
    """
    if not may_read(features) or bool(features.isfinite().all()):
        return
    if not images.isfinite().all():
        raise UsageError("images hold NaN or infinite values: CLIP makes no features of them")
    kind = images.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
    remedy = {torch.float16: "float32 or bfloat16", torch.bfloat16: "float32"}.get(dtype)
    sound = all(bool(weight.isfinite().all()) for weight in visual.parameters())
    if remedy:
        what, end = "activations" if sound else "weights", f"{torch.finfo(dtype).max:.5g}"
        cause = f"its {what} pass {end}, the largest number there: use precision {remedy}"
    else:
        cause = "its weights or the images are out of proportion" if sound else "its weights hold NaN or infinite values"
    raise UsageError(f"the image tower's features are NaN or infinite in {str(dtype)[6:]}: {cause}")


def check_normalisation(normalisation: str) -> None:
    """Raise UsageError unless `normalisation` is one of `NORMALISATIONS`."""
    if normalisation not in NORMALISATIONS:
        raise unknown("normalisation", normalisation, NORMALISATIONS)
