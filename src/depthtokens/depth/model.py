"""The method: one prompt per depth bin, correlated with dense image features of a frozen CLIP, gives metric depth."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._version import versions
from ..clip.device import precision_of, stamp
from ..clip.hubname import HubName
from ..clip.load import FrozenCLIP
from ..clip.stated import load_stated
from ..data.images import Photo
from ..errors import UsageError, WeightsError
from ..files import user_path
from ..prompt.encoder import PromptEncoder
from ..prompt.template import Segment, parse_template
from ..prompt.tokens import path_matrix, random_vectors, vectors_from_words
from ..summary import Summarised, Summary
from .batches import Many
from .card import shared_files
from .checkpoint import TOKENS, Tensors, check_finite, read_tokens, restore, token_file, write_tokens
from .condition import Gain, Shift, TextOf, condition_of, mean_patch, shifted_text
from .depthmap import DepthMap
from .fused import FusedDepth, Output
from .header import STATISTICS, Header, check_shapes
from .hub import MESSAGE, Commit, fetch, is_hub_name, publish
from .settings import ModelSettings, Provenance, spoken
from .shapes import need, need_features, need_images


class DepthTokens(Summarised, nn.Module):
    """Depth from a frozen CLIP and prompts, some of whose words may be learned vectors (paper, section 3).

    Attributes:
        settings: all of the arguments below, as a `ModelSettings`.
        tokens: learned or random vectors, nn.Parameter: "depth" [N, width] where depth words are vectors, "context" [slots, width], in
            reading order, where the template has {ctx} slots.
        centres: [N] metres.
        depth_range: (lo, hi) metres.
        words: the depth words as text, bin 0 first; empty where depth words are vectors.
        device: where the model is, as `.to(device)` puts it.
        dtype: the image tower's precision: torch.float32, or as `.half()` or `.to(torch.bfloat16)` say. All else stays float32, as do the
            weights themselves, which other models may use.
        clip: the CLIP.
        tower: the image tower that is read: the CLIP's own, or a copy of it where batchnorm="adapt" changes it.
        log_scale: logarithm of the logit scale; a parameter that is trained where scale="learned".
        condition: what the image's mean patch feature decides; None where that is nothing.
        provenance: where the tokens come from, saved with them.

    Args:
        clip: from `load_clip`.
        template: text with {depth} and {ctx} slots, or a name in `prompt.template.TEMPLATES`.
        depth: "learned:N", "random:N", "path:K:N" (N vectors on a line through K learned anchors), a scale's name, "metres:N" (bin centres
            as words), or words, one per bin.
        bins: "linear:N", "log:N", "const80:N", "depthclip", or centres in metres; see `bins.bin_centres`.
        depth_range: (lo, hi) metres.
        dense: how patch features are read, see `clip.image.dense_features`; None takes the CLIP's default.
        scale: factor on the cosine similarities: "auty2023" (1000 / sqrt(N), the released code's), "depthclip" (1000), a number, or
            "learned" (from auty2023's).
        batchnorm: "frozen", or "adapt": the trunk's BatchNorm layers follow the training data, as in the released run.
        seed: of vectors that are drawn.
        init: what learned depth tokens start from: "random", a scale's name, "metres", or words.
        predict_side: shorter side of the training images in pixels, to which `predict` brings that of photos.
        normalisation: "imagenet" (as released) or "clip", whose mean and standard deviation the trunk sees pixels in.
        condition: "shift": the image moves its prompts' vectors, as in CoCoOp (the paper's reference [2]; `condition.Shift`); "gain": it
            has a factor on its depth (`condition.Gain`); or None.

    Raises:
        UsageError: for an unknown name, a mode that the CLIP does not have, or another number of bins than of words.

    Example:
        >>> from depthtokens import load_clip
        >>> model = DepthTokens(load_clip("bundled"), depth="learned:7", depth_range=(0.5, 10.0))
        >>> out = model(torch.zeros(1, 3, 208, 272))
        >>> out.depth.shape, out.probs.shape, model.tokens["depth"].shape
        (torch.Size([1, 1, 6, 8]), torch.Size([1, 7, 6, 8]), torch.Size([7, 128]))
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        template: str = "This object appears to be {depth}",
        depth: str | Sequence[str] = "learned:7",
        bins: str | Sequence[float] = "linear",
        depth_range: tuple[float, float] = (0.001, 10.0),
        dense: str | None = None,
        scale: str | float = "auty2023",
        batchnorm: str = "frozen",
        seed: int = 42,
        init: str | Sequence[str] = "random",
        predict_side: int | None = None,
        normalisation: str = "imagenet",
        condition: str | None = None,
    ) -> None:
        super().__init__()
        self.dtype = torch.float32
        lo, hi = depth_range
        self.settings = settings = ModelSettings(
            template=parse_template(template).text, depth=spoken(depth), init=spoken(init), bins=spoken(bins), scale=scale,
            dense=clip.default_dense if dense is None else dense,
            normalisation=normalisation, batchnorm=batchnorm, seed=seed, depth_range=(lo, hi), predict_side=predict_side,
            condition=condition,
        )  # fmt: skip
        clip.image.check_mode(settings.dense)
        words, parsed, scale = settings.words, settings.parsed, settings.scale
        self.depth_range = settings.depth_range
        self.words = [str(word) for word in words.words]
        self.provenance = Provenance()
        self.clip = clip
        self.tower = clip.image.copied() if batchnorm == "adapt" else clip.image
        self.visual = self.tower.visual
        self.encoder = PromptEncoder(clip)
        self.centres: Tensor  # [N] metres
        self.register_buffer("centres", torch.tensor(settings.centres, dtype=torch.float32), persistent=False)
        self.tokens = nn.ParameterDict()
        if parsed.contexts:
            self.tokens["context"] = nn.Parameter(random_vectors(parsed.contexts, clip.text.width, seed, stream=0))
        if words.kind != "words":
            count = words.anchors or words.count
            vectors = random_vectors(count, clip.text.width, seed, stream=1)
            if words.kind == "learned" and settings.start != "random":
                vectors = vectors_from_words(clip, settings.start, count)
            self.tokens["depth"] = nn.Parameter(vectors, requires_grad=words.kind == "learned")
        self.path: Tensor | None  # [N, K]: each depth vector's place between the K learned anchors of a path
        self.register_buffer("path", path_matrix(words.anchors, words.count) if words.anchors else None, persistent=False)
        fillings: list[list[Segment]] = (
            [[word] for word in words.words] if words.words else [[parsed.contexts + i] for i in range(words.count)]
        )
        self.layout = self.encoder.layout([parsed.fill(filling) for filling in fillings])
        self.log_scale = nn.Parameter(torch.tensor(math.log(settings.logit_scale)), requires_grad=scale == "learned")
        self.condition = condition_of(settings, self.tower.channels, clip.text.width)
        self._fused: tuple[tuple[object, ...], dict[str, Tensor], FusedDepth] | None = None
        self.to(clip.text.embedding.weight.device)
        self.eval()

    @classmethod
    def of(cls, clip: FrozenCLIP, settings: ModelSettings) -> DepthTokens:
        """The model that `settings` describe, on `clip`. Raises UsageError as `DepthTokens`."""
        return cls(clip, **settings.arguments())

    def text_features(self, patches: Tensor | None = None) -> Tensor:
        """Features of the N prompts.

        Args:
            patches: [B, C, h, w], features of the images; only where condition="shift" do prompts depend on them.

        Returns:
            [N, C], or [B, N, C] where condition="shift"; L2-normalised rows.

        Raises:
            UsageError: where condition="shift" and there are no patches.
        """
        vectors = self.vectors()
        if isinstance(self.condition, Shift):
            if patches is None:
                raise UsageError("every image has prompts of its own with condition shift: there are no text features without its patches")
            need(patches, "patches", "[B, C, h, w]")
            return shifted_text(self.encoder, self.layout, vectors, self.condition(mean_patch(patches)))
        return F.normalize(self.encoder.encode(self.layout, vectors if len(vectors) else None), dim=-1)

    def vectors(self) -> Tensor:
        """What stands in the prompts' slots: context vectors, then depth vectors (none where depth words are words), [slots + N, width]."""
        parts = [self.tokens[kind] for kind in ("context", "depth") if kind in self.tokens]
        if self.path is not None:
            parts[-1] = self.path @ parts[-1]
        return torch.cat(parts) if parts else self.centres.new_empty(0, self.clip.text.width)

    def summary(self) -> Summary:
        """What the model is, in a few lines."""
        settings, (lo, hi) = self.settings, self.depth_range
        vectors = [f"{kind} {list(value.shape)}{'' if value.requires_grad else ', not trained'}" for kind, value in self.tokens.items()]
        side = "in their own size" if settings.predict_side is None else f"with a shorter side of {settings.predict_side} pixels"
        rows = [
            ("template", settings.template),
            ("depth", ", ".join(self.words) or settings.depth),
            ("vectors", "; ".join(vectors) or "none"),
            ("bins", f"{len(self.centres)} from {lo:g} to {hi:g} m: {', '.join(f'{centre:.3g}' for centre in settings.centres)}"),
            ("image tower", f"{settings.dense}, {precision_of(self.dtype)} on {self.device}, BatchNorm {settings.batchnorm}"),
            ("scale", settings.scale),
            ("photos", f"shown {side}"),
            *([("condition", settings.condition)] if settings.condition else []),
        ]
        return Summary(f"DepthTokens on {self.clip.identity}", rows)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.centres.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DepthTokens:
        """Bring the model elsewhere, as torch does; a change of type is one of the image tower's precision, and no weight is rounded."""
        asked = {fn(torch.empty(0, dtype=dtype)).dtype for dtype in (torch.float32, torch.float16)}
        if len(asked) == 2:  # types stay
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        (dtype,) = asked
        precision_of(dtype)  # refuses all others
        self.dtype = dtype
        return super()._apply(lambda value: value.to(fn(value.new_empty(0)).device), recurse)  # type: ignore[no-untyped-call]

    def image_features(self, images: Tensor, precision: str | None = None) -> Tensor:
        """Patch features, without gradient, since the trunk learns nothing.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.
            precision: of the image tower alone: float32, bfloat16 or float16; None takes the model's `dtype`.

        Returns:
            [B, C, h, w] float32.

        Raises:
            UsageError: for images of another shape, or smaller than one patch.
        """
        need_images(images)
        return self.tower.encode(images, self.settings.dense, self.settings.normalisation, precision or precision_of(self.dtype))

    def forward(self, images: Tensor) -> Output:
        """Depth of images, at patch resolution.

        Args:
            images: [B, 3, H, W], normalised with ImageNet's mean and standard deviation.

        Returns:
            Depth [B, 1, h, w] metres and probabilities of the bins [B, N, h, w].

        Raises:
            UsageError: for images of another shape, or smaller than one patch.
        """
        patches = self.image_features(images)
        return self.depth_from(patches, self.text_features(patches))

    def depth_from(self, patches: Tensor, text: Tensor) -> Output:
        """Depth from features: similarities times the logit scale, softmax over bins, expectation of the bin centres.

        Source: the paper, section 3.

        Args:
            patches: [B, C, h, w].
            text: [N, C], or [B, N, C] where every image has its own.

        Returns:
            Depth [B, 1, h, w] metres and probabilities of the bins [B, N, h, w].

        Raises:
            UsageError: for features of other shapes, or that do not fit together.
        """
        with torch.autocast(patches.device.type, enabled=False):  # half precision would cost millimetres here, and gain nothing
            return Output.of(self.logits(patches, text), self.centres_of(patches))

    def logits(self, patches: Tensor, text: Tensor) -> Tensor:
        """[B, N, h, w]: what `depth_from` takes the softmax of. Arguments and errors are its own."""
        need_features(patches, text, len(self.centres))
        with torch.autocast(patches.device.type, enabled=False):
            kernel = self.log_scale.exp() * text.float()
            if text.ndim == 2:
                return F.conv2d(patches.float(), kernel[:, :, None, None])
            return (kernel @ patches.float().flatten(2)).unflatten(2, patches.shape[2:])

    def centres_of(self, patches: Tensor) -> Tensor:
        """Bin centres in metres: [N], or [B, N] where images [B, C, h, w] have a factor on them (condition="gain")."""
        if not isinstance(self.condition, Gain):
            return self.centres
        return self.condition(mean_patch(patches))[:, None] * self.centres

    def trainable(self) -> dict[str, nn.Parameter]:
        """What training changes, by name: tokens, the logit scale if it is learned, and what a condition has."""
        named = {**{f"tokens.{kind}": value for kind, value in self.tokens.items()}, "log_scale": self.log_scale, **self._conditions()}
        return {name: value for name, value in named.items() if value.requires_grad}

    def _conditions(self) -> dict[str, nn.Parameter]:
        """The parameters of the condition, by name."""
        return {f"condition.{name}": value for name, value in self.condition.named_parameters()} if self.condition else {}

    def train(self, mode: bool = True) -> DepthTokens:
        """As in torch, except that CLIP stays in eval mode; with batchnorm="adapt" the trunk's BatchNorm layers alone train."""
        super().train(mode)
        self.visual.eval()
        if self.settings.batchnorm == "adapt":
            for layer in self.tower.batchnorm_layers().values():
                layer.train(mode)
        return self

    @overload
    def predict(
        self, images: Photo, precision: str | None = ..., side: int | None = ..., flip: bool = ..., batch_size: int = ...
    ) -> DepthMap: ...
    @overload
    def predict(
        self, images: Many, precision: str | None = ..., side: int | None = ..., flip: bool = ..., batch_size: int = ...
    ) -> list[DepthMap]: ...
    @overload
    def predict(
        self, images: Iterator[Any], precision: str | None = ..., side: int | None = ..., flip: bool = ..., batch_size: int = ...
    ) -> Iterator[DepthMap]: ...
    def predict(self, images: Any, precision: str | None = None, side: int | None = None, flip: bool = False, batch_size: int = 1) -> Any:
        """Depth of one photo or of many, in each photo's own size.

        CLIP is shown every photo at one scale: its shorter side is brought to `predict_side` (that of the training images, kept with the
        tokens), up or down, and then both sides to the nearest multiple of a patch, so that patches cover the whole photo. Where nothing
        was trained, the photo's own scale stays. The first call folds the model into its fastest form (`fused`).

        Args:
            images: a photo: a path, the bytes of an image file, a file object, a PIL image, an array (uint8 or floats in 0..1: [H, W] grey,
                [H, W, 3] RGB, [H, W, 4] RGB with alpha) or a tensor [3, H, W] of such values, not normalised. Or several: a list, a tuple
                or an iterator of photos, or a tensor [B, 3, H, W].
            precision: of the image tower: float32, bfloat16 or float16; None takes the model's `dtype`.
            side: pixels of the shorter side as CLIP is shown it, instead of `predict_side`.
            flip: average with the mirrored photo, as the evaluation protocols do; takes twice as long.
            batch_size: photos that go through the image tower together at most; of so many at a time, those that are shown in one size do.
                It is for GPUs; with more than 1 depth differs by rounding, on a CPU in float32 by less than 1e-5 m.

        Returns:
            A `DepthMap`; a list of them for a list, tuple or tensor [B, 3, H, W]; for an iterator an iterator, which reads photos as their
            depth is asked for and keeps no more of them than a batch.

        Raises:
            DataError: for a file that is no image, one smaller than a patch, or one of which the model makes no numbers. Of several photos
                it says which by its index.
            UsageError: for what is no photo, such as an array of another shape, or a side of less than a patch.
            WeightsError: for tokens that are no numbers.
        """
        return self.fused(precision).predict(images, side, flip, batch_size)

    def fused(self, precision: str | None = None) -> FusedDepth:
        """The model in its fastest form, for inference: made on first use, and again when the model has changed.

        A change of tokens, scale, centres, statistics or settings is noticed whatever made it; a change of CLIP's weights where torch
        counts it (all but writing through `.data` into the same memory), as are another device or type of theirs.

        Args:
            precision: of the image tower: float32, bfloat16 or float16; None takes the model's `dtype`.

        Raises:
            UsageError: for an unknown precision.
            WeightsError: for tokens that are no numbers.
        """
        precision = precision or precision_of(self.dtype)
        # By value: version counters miss what is written through `.data`, and these are a few thousand numbers.
        state = {name: value.detach() for name, value in self._changing().items()}
        key = precision, self.centres.device, self.settings, self._weights()
        if self._fused is not None:
            known, values, kept = self._fused
            if known == key and all(torch.equal(value, values[name]) for name, value in state.items()):
                return kept
        folded = self.folded(precision)
        self._fused = key, {name: value.clone() for name, value in state.items()}, folded
        return folded

    def _weights(self) -> tuple[tuple[object, ...], ...]:
        """What tells CLIP's weights from changed ones; see `clip.device.stamp`."""
        modules = (self.visual, self.clip.model) if self.settings.batchnorm == "adapt" else (self.clip.model,)
        weights = (value for module in modules for value in (*module.parameters(), *module.buffers()))
        return stamp(weights)

    def folded(self, precision: str | None = None) -> FusedDepth:
        """As `fused`, but made anew and not kept by the model: the caller may change it or move it."""
        check_finite(self._changing(), "this model")
        with torch.no_grad():
            if isinstance(self.condition, Shift):
                text: Tensor | TextOf = self._text_of(self.condition)
            else:
                text = self.log_scale.exp() * self.text_features().float()
        gain = self.condition if isinstance(self.condition, Gain) else None
        return FusedDepth(self.settings, self.tower, text, self.centres, precision or precision_of(self.dtype), gain)

    def _text_of(self, shift: Shift) -> TextOf:
        """From mean patch features [B, C] to text features times the logit scale, [B, N, C], by the model as it is now."""
        encoder, layout, scale = self.encoder, self.layout, self.log_scale.detach().exp()
        vectors, shift = self.vectors().detach().clone(), copy.deepcopy(shift).requires_grad_(False)
        return lambda means: scale * shifted_text(encoder, layout, vectors, shift(means)).float()

    def _changing(self) -> Tensors:
        """Everything that may change after the model was made."""
        return {**self.state(), "log_scale": self.log_scale, "centres": self.centres}

    def state(self) -> Tensors:
        """What training may have changed, by name: tokens, a learned scale, a condition, the trunk's statistics where batchnorm="adapt"."""
        tensors: Tensors = {**{f"tokens.{kind}": value for kind, value in self.tokens.items()}, **self._conditions()}
        if self.log_scale.requires_grad:
            tensors["log_scale"] = self.log_scale
        if self.settings.batchnorm == "adapt":
            for name, layer in self.tower.batchnorm_layers().items():
                tensors |= {f"batchnorm.{name}.{key}": getattr(layer, key) for key in STATISTICS}
        return tensors

    def save(self, path: str | Path) -> None:
        """Write tokens and all that using them needs, except CLIP, to one .safetensors file (a few KB).

        Raises:
            WeightsError: for tokens that are no numbers.
            DepthTokensError: where the file cannot be written.
        """
        write_tokens(user_path(path), *self._content())

    def _content(self) -> tuple[Tensors, Header]:
        """What a token file of this model holds. Raises WeightsError for tokens that are no numbers."""
        check_finite(self.state(), "this model")
        return self.state(), Header(self.settings, self.clip.identity, self.provenance, versions("torch", "open_clip"))

    @staticmethod
    def load(path: str | Path, clip: FrozenCLIP | None = None, force: bool = False) -> DepthTokens:
        """Read a token file.

        Args:
            path: the file, the folder of the run that wrote it, or its name on the hub, "hf:USER/NAME[@REVISION]".
            clip: the CLIP to use the tokens with. None loads the one that the file states: the bundled one, an open_clip model with one
                of its tags, or a CLIP that this user has loaded before from a file or the hub, known by its fingerprint. A path or a
                name of the hub in the file is not followed.
            force: use the tokens even with another CLIP than they were learned on.

        Raises:
            WeightsError: for a file that is damaged, of another kind, of another CLIP (unless `force`), or of one that must be given.
        """
        path = token_file(path)
        tensors, header = read_tokens(path)
        if clip is None:
            try:
                clip = load_stated(header.clip)
            except WeightsError as error:
                raise WeightsError(f"{path} {error}") from error
        if clip.fingerprint != header.clip.fingerprint and not force:
            theirs, ours = header.clip, clip.identity
            raise WeightsError(f"{path} was learned on another CLIP ({theirs}) than this one ({ours}): give it with --clip, or --force")
        try:
            check_shapes(header.model, {name: tuple(value.shape) for name, value in tensors.items()}, clip.text.width)
        except UsageError as error:  # before a model of that size is built
            raise WeightsError(f"{path}: {error}") from error
        # The stored vectors replace the initial ones, so what those began from does not matter now.
        model = DepthTokens.of(clip, replace(header.model, init="random"))
        model.settings, model.provenance = header.model, header.provenance
        restore(model.state(), tensors, path)
        return model

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        revision: str | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        clip: FrozenCLIP | None = None,
    ) -> DepthTokens:
        """Read a token file by its name on the hub, or by its path as `load` does.

        Args:
            name_or_path: "USER/NAME[@REVISION]", with or without "hf:" before it; or a file or folder, which goes first.
            revision: a branch, a tag or a commit of the repository.
            token: for a private or gated repository; None for that of the user who is logged in.
            local_files_only: whether only the hub's cache may be looked at; HF_HUB_OFFLINE does the same.
            clip: as `load` takes it.

        Raises:
            UsageError: for what is no path and no name of the hub, or a revision of a path.
            WeightsError: as `load`, and where there is no such repository, revision or file, or it cannot be reached.
        """
        if not is_hub_name(name_or_path) and user_path(name_or_path).exists():
            if revision is not None:
                raise UsageError(f"{name_or_path} is a path, which has no revision '{revision}': write hf:{name_or_path} for the hub")
            return DepthTokens.load(name_or_path, clip)
        return DepthTokens.load(fetch(HubName.read(name_or_path, revision), TOKENS, token, local_files_only), clip)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool = False,
        revision: str | None = None,
        token: str | None = None,
        message: str = MESSAGE,
        licence: str | None = None,
    ) -> Commit:
        """Put the tokens into a repository of the hub, with a model card that is written from their settings; CLIP stays where it is.

        Args:
            name: "USER/NAME"; the repository is made where it is not there.
            private: whether the repository must be one that only its owner sees.
            revision: a branch, made where it is not there; None for the main one.
            token: of the user; None for that of the one who is logged in.
            message: of the commit.
            licence: of the tokens, as the hub calls it ("mit"); None where none is stated, which the card says.

        Returns:
            Address and id of the commit.

        Raises:
            UsageError: for a name that the hub cannot have, or a repository that is public and should be private.
            WeightsError: for tokens that are no numbers.
            DepthTokensError: where the hub refuses, or cannot be reached.
        """
        where = HubName.read(name, revision)
        return publish(where, shared_files(*self._content(), where, licence), message, private, token)
