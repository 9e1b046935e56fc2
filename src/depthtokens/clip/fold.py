"""Image towers for inference: convolutions take in the BatchNorm behind them, channels lie last."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .image import ImageTower, check_finite

_FOLDED = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))  # "0", "1": a bottleneck's `downsample`


def quick(tower: ImageTower) -> ImageTower:
    """A tower that makes the same features within rounding, in less time.

    Of a tower that is made of convolutions it is a folded copy; any other is given as it is.
    """
    convolutions = sum(isinstance(module, nn.Conv2d) for module in tower.visual.modules())
    if convolutions < 2:  # a transformer's one cuts the image into patches
        return tower
    return ImageTower(fold_batchnorm(tower.visual).to(memory_format=torch.channels_last))


class Folded(nn.Module):
    """A copy of an image tower for inference in one mode: folded, channels last, without what that mode does not read.

    Where a mode is linear in the trunk's output up to length, all that is linear is left to the caller's own product (`weights_for`).

    Args:
        tower: what is copied.
        mode: the one mode that it can be read in.
        dtype: of the trunk; vectors come out in float32.

    Raises:
        UsageError: for a mode that the tower does not have.
    """

    def __init__(self, tower: ImageTower, mode: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        tower.check_mode(mode)
        tower = ImageTower(fold_batchnorm(tower.visual))
        self.mode, self.dtype, way = mode, dtype, tower.modes[mode]
        self.stride, self.linear = tower.stride(mode), way.linear
        with torch.no_grad():
            self.project = way.project(tower.visual) if way.project else None
            self.kept: Tensor | None
            self.kept, self.width = way.kept(tower.visual) if way.kept else (None, tower.channels)
        if self.linear and tower.family.drop:
            tower.family.drop(tower.visual)
        self.visual = tower.visual.to(dtype=dtype, memory_format=torch.channels_last)
        self._tower = tower

    def forward(self, images: Tensor, normalisation: str = "imagenet") -> Tensor:
        """Images as data sets hand them out to vectors whose directions count.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.
            normalisation: one of `NORMALISATIONS`, what the tower is to see.

        Returns:
            [B, h, w, D] float32, of any length.

        Raises:
            UsageError: for images of another shape or type, smaller than one patch, or features that are no numbers.
        """
        self._tower.check_images(images)
        self._tower.check_size(images, self.mode)
        images = self._tower.normalised(images, normalisation).to(self.dtype, memory_format=torch.channels_last)
        x = self._tower.trunk(images, self.mode) if self.linear else self._tower.patches(images, self.mode)
        check_finite(x, images, self.visual)
        x = x.float().permute(0, 2, 3, 1)  # a 1x1 convolution is a matrix product over the last axis, which lies together in memory
        return x if self.project is None else self.project(x)

    def weights_for(self, features: Tensor) -> Tensor:
        """[..., C] -> [..., D]: what correlates with this module's vectors as `features` do with the mode's own."""
        if self.kept is None:
            return features
        return features.new_zeros(*features.shape[:-1], self.width).index_add(-1, self.kept.to(features.device), features)

    def own(self, vectors: Tensor) -> Tensor:
        """[..., D] -> [..., C]: the mode's own features, of this module's vectors in unit length."""
        return vectors if self.kept is None else vectors.index_select(-1, self.kept.to(vectors.device))


def fold_batchnorm(visual: nn.Module) -> nn.Module:
    """A copy of an image module in which each convolution has taken in the BatchNorm behind it (eval mode)."""
    tower = copy.deepcopy(visual).eval()
    for module in list(tower.modules()):
        for conv_name, norm_name in _FOLDED:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return tower.eval()  # a new layer is in training mode, in which `ImageTower` would take all images at once
