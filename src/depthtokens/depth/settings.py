"""A model's settings: what a `DepthTokens` is made of besides its CLIP, and how files keep it. Loads no torch."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from ..clip import NORMALISATIONS
from ..errors import UsageError, cut, printable, unknown
from ..prompt.scales import METRES, DepthWords, depth_words, numbers
from ..prompt.template import Template, parse_template
from ..schema import read_dataclass
from .bins import bin_centres

BATCHNORM = ("frozen", "adapt")
SCALES = ("auty2023", "depthclip", "learned")
SHIFT, GAIN = CONDITIONS = ("shift", "gain")
HIDDEN = 16
"""Units between an image's mean patch feature and the shift of its prompts' vectors."""
MOST_BINS = 2**16
"""Bins that a model can have at most."""
MOST_SHARES = 2**24
"""Numbers that say where each token of a path lies between its anchors: a path has so many at most."""
MOST_SIDE = 2**16
"""Pixels of the longest side of an image that a model can ask for."""
LONGEST_TEMPLATE = 4096
"""Characters of the longest template; text towers read some hundreds."""
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What may be chosen about a model before it meets any data; each field is a flag, a line of TOML and a keyword argument."""

    template: str = "baseline"
    """A template's name (baseline, 1o1d, 1o2d, 4o4d, depthclip), or text with {depth} and {ctx} slots."""
    depth: str = "learned:7"
    """What fills {depth}: learned:N, random:N, path:K:N (N between K learned anchors), a scale (depth-7, size-7, colour-7, rand-txt-7,
    depthclip), metres:N (numbers as words: '0.72 metres') or words: 'near|far'."""
    init: str = "random"
    """What learned depth tokens start from: random, a scale, metres, or words."""
    bins: str = "linear"
    """Bin centres: linear, log, const80 (one bin per depth word), depthclip, or metres: '1|2|4'."""
    dense: str | None = None
    """Patch features: layer4, attnpool, value (ResNets); tokens, value, qq, kk, qqkk, last (ViTs); tokens, last (SigLIP, ConvNeXt and all
    others of timm). `depthtokens models` says which a CLIP has; its first is the default."""
    scale: str | float = "auty2023"
    """Factor on similarities: auty2023 (1000 / sqrt(N)), depthclip (1000), a number, or learned."""
    normalisation: str = "imagenet"
    """Whose mean and standard deviation pixels are normalised with: imagenet (as released) or clip."""
    condition: str | None = None
    """What else the image's mean patch feature decides: shift (added to the prompts' vectors, as in CoCoOp) or gain (a factor on depth);
    nothing if not given."""
    batchnorm: str = "frozen"
    """frozen (as the paper says) or adapt (as the released run did)."""
    seed: int = 42
    """Of vectors, order of images and views."""

    @cached_property
    def words(self) -> DepthWords:
        """What fills {depth}."""
        return depth_words(self.depth)

    @cached_property
    def parsed(self) -> Template:
        """The template, read."""
        return parse_template(self.template)

    @property
    def learns(self) -> bool:
        """Whether a model with these options has anything to train."""
        return self.words.kind == "learned" or self.parsed.contexts > 0 or self.scale == "learned" or self.condition is not None

    @property
    def logit_scale(self) -> float:
        """The factor on similarities; of a learned one, where it starts."""
        return scale_value(self.scale, self.words.count)

    def written(self) -> dict[str, Any]:
        """All fields as files keep them: a condition only where there is one, so that the files of other models stay as they were."""
        return {name: value for name, value in asdict(self).items() if name != "condition" or value is not None}

    def on(self, depth_range: tuple[float, float], predict_side: int | None = None) -> ModelSettings:
        """These options together with what data decides.

        Args:
            depth_range: (lo, hi) metres.
            predict_side: shorter side of the training images, pixels; None where nothing is trained.

        Raises:
            UsageError: for what is unknown, or does not fit together.
        """
        options = {field.name: getattr(self, field.name) for field in fields(ModelOptions)}
        if self.dense is None:
            del options["dense"]
        return ModelSettings(**options, depth_range=depth_range, predict_side=predict_side)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ModelOptions):
    """All settings of a model: what `DepthTokens.settings` is, and what token files, ONNX files and studies keep.

    Attributes:
        dense: how patch features are read; as released where options leave it open.
        depth_range: (lo, hi) metres.
        predict_side: shorter side of the images it was trained on, pixels, to which `predict` brings that of photos; None leaves them as
            large as they are.

    Raises:
        UsageError: for what is unknown, or does not fit together.
    """

    dense: str = "layer4"
    depth_range: tuple[float, float] = (0.001, 10.0)
    predict_side: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):  # numpy's numbers and arrays become plain ones, as files keep them
            value = getattr(self, field.name)
            plain = tuple(map(_plain, value)) if isinstance(value, tuple) else _plain(value)
            object.__setattr__(self, field.name, spoken(plain) if field.name in ("depth", "bins", "init") else plain)
        if self.batchnorm not in BATCHNORM:
            raise unknown("batchnorm", self.batchnorm, BATCHNORM)
        if self.normalisation not in NORMALISATIONS:
            raise unknown("normalisation", self.normalisation, NORMALISATIONS)
        if self.condition is not None and self.condition not in CONDITIONS:
            raise unknown("condition", self.condition, CONDITIONS)
        for name in ("template", "depth", "init", "bins", "dense"):  # they are shown to people
            if isinstance(text := getattr(self, name), str) and printable(text) != text:
                raise UsageError(f"{name} '{cut(text, 80)}': control characters are no text")
        if isinstance(self.template, str) and len(self.template) > LONGEST_TEMPLATE:
            raise UsageError(f"a template has {LONGEST_TEMPLATE} characters at most, not {len(self.template)}")
        if self.predict_side is not None and not 0 < self.predict_side <= MOST_SIDE:
            raise UsageError(f"predict_side {self.predict_side}: needs a number of pixels from 1 to {MOST_SIDE}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be between 0 and 2**63 - 1, not {self.seed}")
        if str(self.depth).count("|") >= MOST_BINS or depth_words(self.depth).count > MOST_BINS:  # before any word or centre is made
            raise UsageError(f"'{cut(self.depth, 80)}': bins are more than the {MOST_BINS} that a model can have")
        if (self.words.anchors or 0) * self.words.count > MOST_SHARES:
            raise UsageError(f"'{self.depth}': anchors times tokens are more than the {MOST_SHARES} that a path can have")
        if self.condition == SHIFT and self.words.kind == "words" and not self.parsed.contexts:
            raise UsageError("condition shift moves vectors, and these prompts are words: use --depth learned:N, or a template with {ctx}")
        _ = self.parsed, self.centres, self.logit_scale

    @cached_property
    def centres(self) -> tuple[float, ...]:
        """Bin centres, metres."""
        return bin_centres(self.bins, depth_words(self.depth).count, self.depth_range)

    @cached_property
    def words(self) -> DepthWords:
        """What fills {depth}; numbers as words say where the bins lie."""
        words = depth_words(self.depth)
        return words if words.words or words.kind != "words" else replace(words, words=numbers(self.centres))

    @property
    def start(self) -> str | tuple[str, ...]:
        """What learned depth tokens start from: "random", or words by name or in full, one for each."""
        if self.init != METRES:
            return self.init
        count, tokens = self.words.count, self.words.anchors or self.words.count  # an anchor starts from the bin where it lies, or next to
        return numbers([self.centres[round(i * (count - 1) / (tokens - 1))] for i in range(tokens)])

    def changed(self, **changes: Any) -> ModelSettings:
        """The same with other values in some fields."""
        return replace(self, **changes)

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `DepthTokens`."""
        return asdict(self)

    def to_header(self) -> dict[str, Any]:
        """As plain values for a file's header, with the template, centres and words spelled out."""
        words = [str(word) for word in self.words.words]
        return {
            **self.written(),
            "template": self.parsed.text,
            "centres": array("f", self.centres).tolist(),
            "words": words,
        }

    @classmethod
    def from_header(cls, values: Any) -> ModelSettings:
        """The inverse of `to_header`, also for headers in which words and centres are still lists.

        Args:
            values: a file's header, as JSON gives it back; keys that are no settings do no harm.

        Raises:
            UsageError: for values of the wrong type, or out of bounds.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not {"template", "depth", "bins"} <= values.keys():
            raise UsageError("its settings are no table with template, depth and bins")
        stated = {name: spoken(value) if name in ("depth", "bins", "init") else value for name, value in values.items() if name in known}
        return read_dataclass(cls, stated, "settings")

    def shapes(self, width: int | None = None) -> dict[str, Shape]:
        """Names and shapes of the tensors that a token file with these settings must hold, BatchNorm statistics apart.

        Args:
            width: of the text tower; None for any, which stands as -1, as the width of patch features does.
        """
        wide = -1 if width is None else width
        found: dict[str, Shape] = {}
        if self.parsed.contexts:
            found["tokens.context"] = (self.parsed.contexts, wide)
        if self.words.kind != "words":
            found["tokens.depth"] = (self.words.anchors or self.words.count, wide)
        if self.scale == "learned":
            found["log_scale"] = ()
        if self.condition == SHIFT:
            found |= {"condition.down": (HIDDEN, -1), "condition.up": (wide, HIDDEN)}
        if self.condition == GAIN:
            found |= {"condition.weight": (-1,), "condition.bias": ()}
        return found


@dataclass(frozen=True)
class Provenance:
    """Where tokens come from.

    Attributes:
        protocol: name of the protocol that `evaluate` uses for them unless another is asked for; None where none was stated.
        training: how they were trained, as plain values: `experiment` (settings of `train`), `row` (of `reproduce`), losses, data.
    """

    protocol: str | None = None
    training: Mapping[str, Any] | None = None

    @property
    def experiment(self) -> Mapping[str, Any]:
        """The settings of the training run; empty where none are kept."""
        found = (self.training or {}).get("experiment", {})
        return found if isinstance(found, Mapping) else {}


def spoken(value: Any) -> Any:
    """A list or array of words or numbers as one string with bars, "near|far"; anything else as it is.

    Raises:
        UsageError: for a list that no such string stands for: of fewer than two entries, with a bar inside one, or with something else.
    """
    items = _plain(value)
    if isinstance(items, str) or not isinstance(items, Sequence):
        return items
    if bars := [item for item in items if isinstance(item, str) and "|" in item]:
        raise UsageError(f"'|' stands between words, not in one: {bars[0]!r}")
    try:
        entries = [str(item) if isinstance(item, str) else repr(float(item)) for item in items]
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"a list of words or of numbers was expected, not {' '.join(repr(value).split())[:80]}") from None
    if len(entries) < 2:
        raise UsageError(f"a list of words or numbers needs two entries or more: {list(items)}")
    return "|".join(entries)


def _plain(value: Any) -> Any:
    """A number, text or array of numpy or torch as Python's own; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def scale_value(scale: str | float, count: int) -> float:
    """The factor on similarities that a setting stands for.

    Args:
        scale: "auty2023" (1000 / sqrt(count), the released code's), "depthclip" (1000, DepthCLIP's released code), "learned" (starts from
            auty2023's), or a positive number.
        count: number of bins.

    Raises:
        UsageError: for an unknown name, or a number that is not positive.

    Example:
        >>> scale_value("auty2023", 100)
        100.0
    """
    if scale in ("auty2023", "learned"):
        return 1000 / math.sqrt(count)
    if scale == "depthclip":
        return 1000.0
    try:
        value = float(scale)
    except (TypeError, ValueError):
        raise unknown("logit scale", str(scale), SCALES) from None
    if not 0 < value < math.inf:
        raise UsageError(f"logit scale {scale}: needs a positive number")
    return value
