"""The method: one prompt per depth bin, correlated with dense image features of a frozen CLIP, gives metric depth."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..clip.dense import check_mode, dense_features
from ..clip.load import FrozenCLIP
from ..clip.precision import autocast
from ..data.dataset import read_image
from ..data.sample import normalise
from ..errors import DataError, UsageError, unknown
from ..prompt.encoder import PromptEncoder
from ..prompt.scales import depth_words
from ..prompt.template import Segment, parse_template
from ..prompt.tokens import random_vectors, vectors_from_words
from .bins import bin_centres
from .depthmap import DepthMap

SCALES = ("auty2023", "depthclip", "learned")


class Output(NamedTuple):
    """depth [B, 1, h, w] metres and probs [B, N, h, w] over bins, at the resolution of the patch features."""

    depth: Tensor
    probs: Tensor


class DepthTokens(nn.Module):
    """Depth from a frozen CLIP and prompts, some of whose words may be learned vectors (paper section 3).

    clip: from `load_clip`. template: text with {depth} and {ctx} slots, or a name in `prompt.template.TEMPLATES`.
    depth: "learned:N", "random:N", a scale's name, or a list of words, one per bin. bins: "linear:N", "log:N", "depthclip" or
    centres in metres, within depth_range (metres). dense: how patch features are read, see `clip.dense`. scale: factor on the
    cosine similarities, "auty2023" (1000 / sqrt(N), the released code's), "depthclip" (1000), a number, or "learned".
    batchnorm: "frozen" keeps CLIP's statistics (what the paper says), "adapt" lets the trunk's BatchNorm follow the training data
    (what the released run did; on a copy of the trunk). seed: of new vectors. init: "random", or words whose token embeddings the
    learned vectors start from. predict_side: height to which `predict` brings taller images (None: as they are).

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
    ) -> None:
        super().__init__()
        if batchnorm not in ("frozen", "adapt"):
            raise unknown("batchnorm", batchnorm, ("frozen", "adapt"))
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
            vectors = random_vectors(words.count, clip.text.width, seed, stream=1)
            if words.kind == "learned" and init != "random":
                vectors = vectors_from_words(clip, init if isinstance(init, str) else tuple(init), words.count)
            self.tokens["depth"] = nn.Parameter(vectors, requires_grad=words.kind == "learned")
        fillings: list[list[Segment]] = (
            [[word] for word in words.words] if words.words else [[parsed.contexts + i] for i in range(words.count)]
        )
        self.layout = self.encoder.layout([parsed.fill(filling) for filling in fillings])
        self.log_scale = nn.Parameter(torch.tensor(math.log(_scale_value(scale, words.count))), requires_grad=scale == "learned")
        self.to(clip.text.embedding.weight.device)
        self.eval()

    def text_features(self) -> Tensor:
        """Features of the N prompts: [N, C], L2-normalised rows."""
        vectors = [self.tokens[kind] for kind in ("context", "depth") if kind in self.tokens]
        return F.normalize(self.encoder.encode(self.layout, torch.cat(vectors) if vectors else None), dim=-1)

    def image_features(self, images: Tensor, precision: str = "float32") -> Tensor:
        """Patch features [B, C, h, w] float32 of normalised images [B, 3, H, W]; no gradient, since the trunk learns nothing.

        precision: of the image tower alone: float32, bfloat16 or float16.
        """
        with torch.no_grad(), autocast(images.device, precision):
            return dense_features(self.visual, images, self.settings["dense"])

    def forward(self, images: Tensor) -> Output:
        """Normalised images [B, 3, H, W] -> depth in metres and bin probabilities at patch resolution."""
        return self.depth_from(self.image_features(images), self.text_features())

    def depth_from(self, patches: Tensor, text: Tensor) -> Output:
        """Correlate patch features [B, C, h, w] with text features [N, C]; softmax over bins; expectation of the bin centres."""
        with torch.autocast(patches.device.type, enabled=False):  # half precision would cost millimetres here, and gain nothing
            logits = self.log_scale.exp() * torch.einsum("bchw,nc->bnhw", patches.float(), text.float())
            probs = logits.softmax(dim=1)
            return Output(torch.einsum("bnhw,n->bhw", probs, self.centres)[:, None], probs)

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

    @torch.inference_mode()
    def predict(self, image: str | Path | Image.Image | np.ndarray, text: Tensor | None = None, precision: str = "float32") -> DepthMap:
        """Depth of one photo: a file, a PIL image, or an RGB array uint8 [H, W, 3].

        text: what `text_features()` gave, to compute it once for many photos. precision: of the image tower.
        Images taller than `predict_side` (the height of the training images, kept with the tokens) are brought to it for CLIP; the
        map has the photo's own size. Raises DataError for a file that is no image, or one smaller than a patch.
        """
        if isinstance(image, str | Path):
            rgb = read_image(Path(image), upright=True)
        else:
            rgb = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise UsageError(f"predict takes RGB images uint8 [H, W, 3], this is {rgb.dtype} {list(rgb.shape)}")
        height, width = rgb.shape[:2]
        side = self.settings["predict_side"]
        shown = rgb
        if side and height > side:
            shown = np.asarray(Image.fromarray(rgb).resize((max(32, round(width * side / height)), side), Image.Resampling.BICUBIC))
        device = self.centres.device
        images = normalise(shown.astype(np.float32) / np.float32(255))[None].to(device)
        try:
            patches = self.image_features(images, precision)
        except UsageError as error:
            raise DataError(f"{image if isinstance(image, str | Path) else 'this image'}: {error}") from error
        out = self.depth_from(patches, self.text_features() if text is None else text)
        return DepthMap.from_output(out.depth, out.probs, self.centres, (height, width), self.depth_range, rgb)

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
