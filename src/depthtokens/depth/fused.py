"""The model as it predicts: everything that one image does not change is computed once and folded into as few layers as can be.

Prompts, logit scale and channel choice become one 1x1 convolution over the trunk's output, which is divided by the trunk's norm
afterwards instead of before; each BatchNorm disappears into the convolution before it; the text tower is left out.
"""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..clip.dense import dense_features, thinned_channels, trunk
from ..clip.precision import PRECISIONS
from ..data.images import Photo, named, read_photo, shown_at
from ..data.sample import IMAGENET_MEAN, IMAGENET_STD
from ..errors import DataError, UsageError, unknown
from .checkpoint import model_tensors
from .depthmap import DepthMap
from .model import DepthTokens, Output
from .normalisation import as_normalised

_FOLDED = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))  # "0", "1": a bottleneck's `downsample`
_EPSILON = 1e-12  # as in F.normalize


class FusedDepth(nn.Module):
    """What `model(images)` gives, for inference alone: equal up to float rounding, at about the cost of the bare image tower.

    Holds a folded copy of the image tower in channels-last layout and nothing of the text tower; later changes of the model do not
    reach it (`fused` takes care of that). precision: of the tower; from its output on everything is float32.
    stride: pixels per patch. Raises UsageError for an unknown precision.
    """

    mean: Tensor
    std: Tensor
    centres: Tensor
    weight: Tensor

    def __init__(self, model: DepthTokens, precision: str = "float32") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise unknown("precision", precision, PRECISIONS)
        self.precision, self.dtype = precision, PRECISIONS[precision]
        self.mode: str = model.settings["dense"]
        self.normalisation: str = model.settings["normalisation"]
        self.depth_range = model.depth_range
        self.predict_side: int | None = model.settings["predict_side"]
        self.model_state = _state(model)
        tower = folded(model.visual)
        # These two are linear from the trunk's output on, so the 1x1 convolutions can take it as it comes.
        self.linear = isinstance(tower, ModifiedResNet) and self.mode in ("layer4", "value")
        self.stride = 32 if isinstance(tower, ModifiedResNet) else int(tower.patch_size[0])  # type: ignore[index]
        self.project: nn.Linear | None = None
        with torch.no_grad():
            weight = model.log_scale.exp() * model.text_features().float()
            if self.linear and self.mode == "value":
                self.project = _chained(tower.attnpool.v_proj, tower.attnpool.c_proj)  # type: ignore[union-attr, arg-type]
            elif self.linear:
                channels = tower.attnpool.v_proj.in_features  # type: ignore[union-attr]
                kept = thinned_channels(channels, weight.shape[1]).to(weight.device)  # type: ignore[arg-type]
                weight = weight.new_zeros(len(weight), channels).index_copy(1, kept, weight)  # type: ignore[arg-type]
        if self.linear:
            tower.attnpool = None  # type: ignore[assignment]
        self.tower = tower.to(dtype=self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("weight", weight)  # [N, D]
        self.register_buffer("centres", model.centres.clone())
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values, device=weight.device)[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Output:
        """Normalised images [B, 3, H, W] -> depth [B, 1, h, w] metres and probs [B, N, h, w]. Raises UsageError below one patch."""
        if min(images.shape[-2:]) < self.stride:
            raise UsageError(f"image of {images.shape[-2]}x{images.shape[-1]} pixels is smaller than one {self.stride}x{self.stride} patch")
        images = as_normalised(images, self.normalisation, self.tower).to(self.dtype, memory_format=torch.channels_last)
        x = trunk(self.tower, images) if self.linear else dense_features(self.tower, images, self.mode)
        x = x.float().permute(0, 2, 3, 1)  # a 1x1 convolution is a matrix product over the last axis, which lies together in memory
        if self.project is not None:
            x = self.project(x)
        logits = F.linear(x, self.weight) / x.norm(dim=-1, keepdim=True).clamp_min(_EPSILON)
        probs = logits.softmax(dim=-1)
        return Output((probs @ self.centres)[:, None], probs.permute(0, 3, 1, 2))

    def maps(self, photos: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 [B, H, W, 3] RGB -> depth and uncertainty [B, 1, *size], both in metres, and probs [B, N, h, w].

        Depth is clamped to the model's range at patch resolution, uncertainty is the standard deviation over bins; both are resized
        bilinearly (align_corners=True).
        """
        depth, probs = self((photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
        depth = depth.clamp(*self.depth_range)
        spread = (probs * (self.centres[:, None, None] - depth).square()).sum(dim=1, keepdim=True).sqrt()
        full = F.interpolate(torch.cat([depth, spread], dim=1), size=size, mode="bilinear", align_corners=True)
        return full[:, :1], full[:, 1:], probs

    @torch.inference_mode()
    def predict(self, image: Photo) -> DepthMap:
        """See `DepthTokens.predict`."""
        rgb = read_photo(image)
        shown = torch.from_numpy(shown_at(rgb, self.predict_side))[None].to(self.weight.device)
        with torch.autocast(shown.device.type, enabled=False):  # a precision asked for outside is for training, not for this head
            try:
                depth, spread, probs = (t[0].cpu().numpy() for t in self.maps(shown, rgb.shape[:2]))
            except UsageError as error:
                raise DataError(f"{named(image)}: {error}") from error
        return DepthMap(depth[0], spread[0], probs, self.depth_range, rgb)

    def is_of(self, model: DepthTokens, precision: str) -> bool:
        """Whether this is still what `model` computes: the same tokens, scale and statistics, on the same device."""
        if (precision, model.centres.device) != (self.precision, self.centres.device):
            return False
        # By value: version counters miss what is written through `.data`, and tokens are a few thousand numbers.
        return all(torch.equal(value, self.model_state[name]) for name, value in _state(model, copied=False).items())


_KEPT: WeakKeyDictionary[DepthTokens, FusedDepth] = WeakKeyDictionary()


def fused(model: DepthTokens, precision: str = "float32") -> FusedDepth:
    """The `FusedDepth` of a model: made on first use, and again when tokens, scale, statistics, device or precision have changed."""
    kept = _KEPT.get(model)
    if kept is None or not kept.is_of(model, precision):
        kept = _KEPT[model] = FusedDepth(model, precision)
    return kept


def folded(visual: nn.Module) -> nn.Module:
    """A copy of an image tower in which each convolution has taken in the BatchNorm behind it (eval mode)."""
    tower = copy.deepcopy(visual).eval()
    for module in list(tower.modules()):
        for conv_name, norm_name in _FOLDED:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return tower


def _chained(first: nn.Linear, second: nn.Linear) -> nn.Linear:
    """One linear layer that does what two do, multiplied out in double precision."""
    both = nn.Linear(first.in_features, second.out_features, device=first.weight.device)
    weight, bias = second.weight.cpu().double(), first.bias.cpu().double()  # not every device has double precision
    both.weight.copy_(weight @ first.weight.cpu().double())
    both.bias.copy_(weight @ bias + second.bias.cpu().double())
    return both


def _state(model: DepthTokens, copied: bool = True) -> dict[str, Tensor]:
    """Everything of a model that may change after it was made."""
    state = {**model_tensors(model), "log_scale": model.log_scale}
    return {name: value.detach().clone() if copied else value.detach() for name, value in state.items()}
