"""The model as it predicts: everything that one image does not change is computed once and folded into as few layers as can be.

Prompts, logit scale and channel choice become one 1x1 convolution over the trunk's output, which is divided by the trunk's norm
afterwards instead of before; each BatchNorm disappears into the convolution before it; the text tower is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ..clip.device import dtype_of, sent
from ..clip.fold import Folded
from ..clip.image import ImageTower
from ..data.dataset import IMAGENET_MEAN, IMAGENET_STD
from ..data.images import shown_at
from ..errors import DataError, UsageError, WeightsError
from .batches import Engine, predicted
from .condition import Gain, TextOf
from .depthmap import DepthMap
from .settings import ModelSettings
from .shapes import need, need_images

_EPSILON = 1e-12  # as in F.normalize


class Output(NamedTuple):
    """What a head gives, at the resolution of the patch features.

    Attributes:
        depth: [B, 1, h, w] metres.
        probs: [B, N, h, w], probabilities of the bins.
    """

    depth: Tensor
    probs: Tensor

    @classmethod
    def of(cls, logits: Tensor, centres: Tensor) -> Output:
        """Softmax over bins, and the expectation of their centres.

        Args:
            logits: [B, N, h, w].
            centres: [N] metres, or [B, N] where every image has its own.
        """
        probs = logits.softmax(dim=1)
        if centres.ndim == 2:
            return cls((probs * centres[:, :, None, None]).sum(dim=1, keepdim=True), probs)
        return cls(F.conv2d(probs, centres[None, :, None, None]), probs)


class FusedDepth(nn.Module):
    """What `DepthTokens(images)` gives, for inference alone: equal up to float rounding, at about the cost of the bare image tower.

    Holds a folded copy of the image tower in channels-last layout and nothing of the text tower, unless every image has prompts of its
    own; later changes of the model do not reach it.

    Attributes:
        stride: pixels per patch.
        tower: the folded image tower.
        weight: [N, D], what a trunk's output is multiplied with, one row more where there is a gain; None where every image has its own.
        centres: [N] metres.
        mean: [3, 1, 1], ImageNet's mean of pixels in 0-1.
        std: [3, 1, 1], ImageNet's standard deviation.
        bias: of the gain; None where there is none.

    Args:
        settings: of the model.
        tower: the model's image tower, which is copied.
        text: [N, C], the model's text features times its logit scale; or what gives them [B, N, C] for mean patch features [B, C].
        centres: [N] metres.
        precision: of the tower; from its output on everything is float32.
        gain: the model's factor on depth, if it has one.

    Raises:
        UsageError: for an unknown precision.
        WeightsError: for text features or a logit scale that are no numbers.
    """

    mean: Tensor
    std: Tensor
    centres: Tensor
    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        settings: ModelSettings,
        tower: ImageTower,
        text: Tensor | TextOf,
        centres: Tensor,
        precision: str = "float32",
        gain: Gain | None = None,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.normalisation, self.depth_range, self.predict_side = settings.normalisation, settings.depth_range, settings.predict_side
        self.tower = Folded(tower, settings.dense, dtype_of(precision))
        self.stride = tower.stride(settings.dense)
        self.text_of = None if isinstance(text, Tensor) else text
        rows = None if not isinstance(text, Tensor) else torch.cat([text, gain.weight[None]]) if gain else text
        self.register_buffer("weight", None if rows is None else self.tower.weights_for(rows.detach().float()))
        self.register_buffer("bias", gain.bias.detach().clone() if gain else None)
        if self.weight is not None and not bool(self.weight.isfinite().all()):
            raise WeightsError("the prompts' features times the logit scale are no numbers: are tokens, scale and CLIP whole?")
        self.register_buffer("centres", centres.detach().clone())
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, device=centres.device)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Output:
        """Depth and probabilities at patch resolution.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.

        Raises:
            UsageError: for images of another shape, or smaller than one patch.
        """
        return self._seen(images)[0]

    def _seen(self, images: Tensor) -> tuple[Output, Tensor | None]:
        """What `forward` gives, and the factor on depth [B, 1, 1, 1] that is in it."""
        need_images(images)
        x = self.tower(images, self.normalisation)
        if self.text_of is not None:
            x = x / _length(x)
            text = self.text_of(self.tower.own(x.mean(dim=(1, 2))))
            logits = torch.einsum("bhwd,bnd->bhwn", x, self.tower.weights_for(text.to(x.device)))
        else:
            assert self.weight is not None
            logits = F.linear(x, self.weight) / _length(x)
        if self.bias is None:
            probs = logits.softmax(dim=-1)
            return Output((probs @ self.centres)[:, None], probs.permute(0, 3, 1, 2)), None
        probs, gain = logits[..., :-1].softmax(dim=-1), (logits[..., -1:].mean(dim=(1, 2), keepdim=True) + self.bias).exp()
        return Output(gain * (probs @ self.centres)[:, None], probs.permute(0, 3, 1, 2)), gain

    def maps(self, photos: Tensor, size: tuple[int, int], flip: bool = False) -> tuple[Tensor, ...]:
        """Full-size maps of photos.

        Args:
            photos: uint8 [B, H, W, 3] RGB.
            size: (H, W) of the maps.
            flip: whether the mirrored photos are looked at too: depth is the mean of both, mirrored back, as in the evaluation protocols,
                and so are the probabilities.

        Returns:
            Depth and uncertainty [B, 1, *size], both in metres, and probs [B, N, h, w]; behind them, where the model has one, the factor
            [B, 1, 1, 1] that an image has on its bin centres. Depth is clamped to the model's range at patch resolution, uncertainty is
            the standard deviation over bins; both are resized bilinearly (align_corners=True).

        Raises:
            UsageError: for photos of another shape or type, or smaller than one patch.
        """
        depth, spread, *others = self._small(photos, flip)
        full = F.interpolate(torch.cat([depth, spread], dim=1), size=size, mode="bilinear", align_corners=True)
        return full[:, :1], full[:, 1:], *others

    def _small(self, photos: Tensor, flip: bool) -> tuple[Tensor, ...]:
        """The same with maps at patch resolution, [B, 1, h, w]."""
        need(photos, "photos", "[B, H, W, 3]", torch.uint8)
        images = (photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        (depth, probs), gain = self._seen(images)
        depth = depth.clamp(*self.depth_range)
        if flip:
            mirrored, other = self._seen(images.flip(-1))
            depth = (depth + mirrored.depth.clamp(*self.depth_range).flip(-1)) / 2
            probs = (probs + mirrored.probs.flip(-1)) / 2
            gain = None if gain is None or other is None else (gain + other) / 2
        centres = self.centres[:, None, None] if gain is None else gain * self.centres[:, None, None]
        spread = spread_of(probs, centres, depth)
        return (depth, spread, probs) if gain is None else (depth, spread, probs, gain)

    def predict(self, images: Any, side: int | None = None, flip: bool = False, batch_size: int = 1) -> Any:
        """Depth of one photo or of many; see `DepthTokens.predict`, also for what it raises.

        Args:
            images: a photo, a list or an iterator of photos, or a tensor [B, 3, H, W].
            side: pixels of the shorter side as CLIP is shown it; None takes the model's `predict_side`.
            flip: average with the mirrored photo.
            batch_size: photos that go through the image tower together at most.
        """
        return predicted(images, self.engine(side, flip), batch_size)

    def engine(self, side: int | None = None, flip: bool = False) -> Engine:
        """What `predict` runs, with its `side` and `flip`."""
        side = self.predict_side if side is None else side
        return Engine(lambda rgb: shown_at(rgb, side, self.stride), partial(self._depths, flip=flip))

    def _depths(self, photos: Sequence[NDArray[np.uint8]], shown: NDArray[np.uint8], flip: bool) -> Iterator[DepthMap]:
        """One pass over photos, in the size in which CLIP is shown them; see `batches.Pass`."""
        device = self.centres.device
        try:
            # A precision asked for outside is for training, not for this head.
            with enough_memory(), torch.inference_mode(), torch.autocast(device.type, enabled=False):
                maps = [values.cpu().numpy() for values in self._small(sent(torch.from_numpy(shown), device), flip)[:3]]
        except UsageError as error:
            raise DataError(str(error)) from error
        return map(self._full, photos, *maps)

    def _full(
        self, rgb: NDArray[np.uint8], depth: NDArray[np.float32], spread: NDArray[np.float32], probs: NDArray[np.float32]
    ) -> DepthMap:
        """The depth map of a photo from depth and uncertainty [1, h, w] and probs [N, h, w]."""
        if not np.isfinite(probs).all():
            raise DataError(self._no_numbers())
        size = rgb.shape[0], rgb.shape[1]
        with enough_memory():
            return DepthMap(enlarged(depth[0], size), partial(enlarged, spread[0], size), probs, self.depth_range, rgb)

    def _no_numbers(self) -> str:
        """Why probabilities are no numbers, and what helps."""
        if self.precision == "float16":
            return "values of the image tower pass what float16 holds (65504), so there is no depth: use --precision bfloat16 or float32"
        return "the image tower gives no numbers for this photo, so there is no depth: are the CLIP's weights whole?"


def spread_of(probs: Tensor, centres: Tensor, depth: Tensor) -> Tensor:
    """The uncertainty of depth: the standard deviation about it over the bins' probabilities.

    Args:
        probs: [B, N, h, w].
        centres: metres, [N, 1, 1], or [B, N, 1, 1] where every image has its own.
        depth: [B, 1, h, w] metres.

    Returns:
        [B, 1, h, w] metres.
    """
    return (probs * (centres - depth).square()).sum(dim=1, keepdim=True).sqrt()


def _length(x: Tensor) -> Tensor:
    """[..., D] -> [..., 1], never zero."""
    return x.norm(dim=-1, keepdim=True).clamp_min(_EPSILON)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raises DataError where memory ends in the block."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch has a class of its own for a GPU's memory only
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        raise DataError("not enough memory for this photo: make it smaller, or show it smaller, with --side") from error


def enlarged(small: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] at `size` (H, W), as `FusedDepth.maps` resizes it."""
    return F.interpolate(torch.from_numpy(small)[None, None], size=size, mode="bilinear", align_corners=True)[0, 0].numpy()
