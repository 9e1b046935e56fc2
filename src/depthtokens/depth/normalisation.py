"""Whose mean and standard deviation images are normalised with before CLIP sees them."""

from __future__ import annotations

from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from ..data.sample import IMAGENET_MEAN, IMAGENET_STD

NORMALISATIONS = ("imagenet", "clip")


def as_normalised(images: Tensor, normalisation: str, visual: nn.Module) -> Tensor:
    """Images [..., 3, H, W] as data sets hand them out, with ImageNet's statistics (released code) -> with those asked for.

    "clip" is what the CLIP was trained with; the change is affine, so nothing is lost.
    """
    if normalisation == "imagenet" or trained_like_imagenet(visual):
        return images
    old, old_std, new, new_std = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD, *_own(visual)))
    return (images * old_std + (old - new)) / new_std


def trained_like_imagenet(visual: nn.Module) -> bool:
    """Whether a CLIP's own statistics are ImageNet's, so that "clip" and "imagenet" are the same."""
    return _own(visual) == (tuple(IMAGENET_MEAN), tuple(IMAGENET_STD))


def _own(visual: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the image tower says it was trained with, else OpenAI's."""
    mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
    std = getattr(visual, "image_std", None) or OPENAI_DATASET_STD
    return tuple(mean), tuple(std)
