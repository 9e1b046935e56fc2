"""The method: one prompt per depth bin, correlated with dense image features of a frozen CLIP, gives metric depth."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.dense import check_mode, dense_features
from ..clip.load import FrozenCLIP
from ..clip.precision import autocast
from ..data.images import Photo
from ..errors import UsageError, unknown
from ..prompt.encoder import PromptEncoder
from ..prompt.scales import depth_words
from ..prompt.template import Segment, parse_template
from ..prompt.tokens import path_matrix, random_vectors, vectors_from_words
from .bins import bin_centres
from .depthmap import DepthMap
from .normalisation import NORMALISATIONS, as_normalised

SCALES = ("auty2023", "depthclip", "learned")


class Output(NamedTuple):
    """depth [B, 1, h, w] metres and probs [B, N, h, w] over bins, at the resolution of the patch features."""

    depth: Tensor
    probs: Tensor


class DepthTokens(nn.Module):
    """Depth from a frozen CLIP and prompts, some of whose words may be learned vectors (paper section 3).

    clip: from `load_clip`. template: text with {depth} and {ctx} slots, or a name in `prompt.template.TEMPLATES`.
    depth: "learned:N", "random:N", "path:K:N" (N vectors on a line through K learned anchors), a scale's name, or a list of words, one per
    bin. bins: "linear:N", "log:N", "depthclip" or
    centres in metres, within depth_range (metres). dense: how patch features are read, see `clip.dense`. scale: factor on the
    cosine similarities, "auty2023" (1000 / sqrt(N), the released code's), "depthclip" (1000), a number, or "learned".
    batchnorm: "frozen" keeps CLIP's statistics (what the paper says), "adapt" lets the trunk's BatchNorm follow the training data
    (what the released run did; on a copy of the trunk). seed: of new vectors. init: "random", or words whose token embeddings the
    learned vectors start from. predict_side: height to which `predict` brings taller images (None: as they are). normalisation: of the
    pixels, "imagenet" as released, or "clip", what the CLIP was trained with; images are given with ImageNet's either way.

    tokens["depth"] [N, width] and tokens["context"] [slots, width] are the only trained parameters (and `log_scale`, if learned);
    each is there only where depth tokens are vectors, or the template has context slots. Raises UsageError for anything that does
    not fit together.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        template: str = "This object appears to be {depth}",
        depth: str | Sequence[str] = "learned:7",
        bins: str | Sequence[float] = "linear",
        depth_range: tuple[float, float] = (0.001, 10.0),
        dense: str = "layer4",
        scale: str | float = "auty2023",
        batchnorm: str = "frozen",
        seed: int = 42,
        init: str | Sequence[str] = "random",
        predict_side: int | None = None,
        normalisation: str = "imagenet",
    ) -> None:
        super().__init__()
        if batchnorm not in ("frozen", "adapt"):
            raise unknown("batchnorm", batchnorm, ("frozen", "adapt"))
        if normalisation not in NORMALISATIONS:
            raise unknown("normalisation", normalisation, NORMALISATIONS)
        check_mode(clip.visual, dense)
        words = depth_words(depth if isinstance(depth, str) else tuple(depth))
        parsed = parse_template(template)
        centres = bin_centres(bins, words.count, depth_range)
        self.settings: dict[str, Any] = {
            "template": parsed.text,
            "depth": words.spec,
            "bins": bins if isinstance(bins, str) else list(centres),
            "depth_range": tuple(depth_range),
            "dense": dense,
            "scale": scale,
            "batchnorm": batchnorm,
            "seed": seed,
            "init": init,
            "predict_side": predict_side,
            "normalisation": normalisation,
        }
        self.depth_range = depth_range
        self.words = [str(word) for word in words.words]
        self.provenance: dict[str, Any] = {}  # training summary and protocol, saved with the tokens
        self.clip = clip
        self.visual = copy.deepcopy(clip.visual) if batchnorm == "adapt" else clip.visual
        self.encoder = PromptEncoder(clip)
        self.centres: Tensor  # [N] metres
        self.register_buffer("centres", torch.tensor(centres, dtype=torch.float32), persistent=False)
        self.tokens = nn.ParameterDict()
        if parsed.contexts:
            self.tokens["context"] = nn.Parameter(random_vectors(parsed.contexts, clip.text.width, seed, stream=0))
        if words.kind != "words":
            count = words.anchors or words.count
            vectors = random_vectors(count, clip.text.width, seed, stream=1)
            if words.kind == "learned" and init != "random":
                vectors = vectors_from_words(clip, init if isinstance(init, str) else tuple(init), count)
            self.tokens["depth"] = nn.Parameter(vectors, requires_grad=words.kind == "learned")
        self.path: Tensor | None  # [N, K]: each depth vector's place between the K learned anchors of a path
        self.register_buffer("path", path_matrix(words.anchors, words.count) if words.anchors else None, persistent=False)
        fillings: list[list[Segment]] = (
            [[word] for word in words.words] if words.words else [[parsed.contexts + i] for i in range(words.count)]
        )
        self.layout = self.encoder.layout([parsed.fill(filling) for filling in fillings])
        self.log_scale = nn.Parameter(torch.tensor(math.log(_scale_value(scale, words.count))), requires_grad=scale == "learned")
        self.to(clip.text.embedding.weight.device)
        self.eval()

    def text_features(self) -> Tensor:
        """Features of the N prompts: [N, C], L2-normalised rows."""
        vectors = self.vectors()
        return F.normalize(self.encoder.encode(self.layout, vectors if len(vectors) else None), dim=-1)

    def vectors(self) -> Tensor:
        """What stands in the prompts' slots: context vectors, then depth vectors, [slots + N, width] (or fewer: words need none)."""
        parts = [self.tokens[kind] for kind in ("context", "depth") if kind in self.tokens]
        if self.path is not None:
            parts[-1] = self.path @ parts[-1]
        return torch.cat(parts) if parts else self.centres.new_empty(0, self.clip.text.width)

    def image_features(self, images: Tensor, precision: str = "float32") -> Tensor:
        """Patch features [B, C, h, w] float32 of images [B, 3, H, W], normalised with ImageNet's mean and standard deviation.

        No gradient, since the trunk learns nothing.

        precision: of the image tower alone: float32, bfloat16 or float16.
        """
        with torch.no_grad(), autocast(images.device, precision):
            return dense_features(self.visual, as_normalised(images, self.settings["normalisation"], self.visual), self.settings["dense"])

    def forward(self, images: Tensor) -> Output:
        """Normalised images [B, 3, H, W] -> depth in metres and bin probabilities at patch resolution."""
        return self.depth_from(self.image_features(images), self.text_features())

    def depth_from(self, patches: Tensor, text: Tensor) -> Output:
        """Correlate patch features [B, C, h, w] with text features [N, C]; softmax over bins; expectation of the bin centres."""
        with torch.autocast(patches.device.type, enabled=False):  # half precision would cost millimetres here, and gain nothing
            kernel = (self.log_scale.exp() * text.float())[:, :, None, None]
            probs = F.conv2d(patches.float(), kernel).softmax(dim=1)
            return Output(F.conv2d(probs, self.centres[None, :, None, None]), probs)

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training changes, by name: tokens, and the logit scale if it is learned."""
        named = {**{f"tokens.{kind}": value for kind, value in self.tokens.items()}, "log_scale": self.log_scale}
        return {name: value for name, value in named.items() if value.requires_grad}

    def train(self, mode: bool = True) -> DepthTokens:
        """As in torch, except that CLIP stays in eval mode; with batchnorm="adapt" the trunk's BatchNorm layers alone train."""
        super().train(mode)
        self.visual.eval()
        if self.settings["batchnorm"] == "adapt":
            for layer in batchnorm_layers(self.visual).values():
                layer.train(mode)
        return self

    def predict(self, image: Photo, precision: str = "float32") -> DepthMap:
        """Depth of one photo: a file, a PIL image, or an RGB array uint8 [H, W, 3].

        precision: of the image tower. Images taller than `predict_side` (the height of the training images, kept with the tokens) are
        brought to it for CLIP; the map has the photo's own size. The first call folds the model into its fastest form (see
        `depth.fused`), which is kept until tokens, scale, device or precision change.
        Raises DataError for a file that is no image, or one smaller than a patch; UsageError for an array that is no RGB image.
        """
        from .fused import fused

        return fused(self, precision).predict(image)

    def save(self, path: str | Path) -> None:
        """Write tokens and everything needed to use them, but not CLIP, to one .safetensors file (a few KB)."""
        from .checkpoint import save_tokens

        save_tokens(self, Path(path))

    @staticmethod
    def load(path: str | Path, clip: FrozenCLIP | None = None, force: bool = False) -> DepthTokens:
        """Read a token file. clip: None loads the CLIP that the file names; another CLIP is refused unless `force`.

        Raises WeightsError for a file that is damaged, of another kind, or of another CLIP.
        """
        from .checkpoint import load_tokens

        return load_tokens(Path(path), clip, force)


def batchnorm_layers(visual: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The BatchNorm layers of an image tower by name."""
    return {name: layer for name, layer in visual.named_modules() if isinstance(layer, nn.BatchNorm2d)}


def _scale_value(scale: str | float, count: int) -> float:
    if scale in ("auty2023", "learned"):
        return 1000 / math.sqrt(count)
    if scale == "depthclip":
        return 1000.0
    try:
        value = float(scale)
    except ValueError:
        raise unknown("logit scale", str(scale), SCALES) from None
    if not 0 < value < math.inf:
        raise UsageError(f"logit scale {scale}: needs a positive number")
    return value
