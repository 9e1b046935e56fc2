"""A model's settings: what a `DepthTokens` is made of besides its CLIP, and how files keep it. Loads no torch."""

from __future__ import annotations

import math
import types
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ..clip import NORMALISATIONS, CLIPIdentity
from ..errors import DepthTokensError, UsageError, unknown
from ..prompt.scales import DepthWords, depth_words
from ..prompt.template import Template, parse_template
from .bins import bin_centres

BATCHNORM = ("frozen", "adapt")
SCALES = ("auty2023", "depthclip", "learned")
STATISTICS = ("running_mean", "running_var")
"""What a token file keeps of each BatchNorm layer that adapts."""
MOST_BINS = 2**16
"""Bins that a model can have at most."""
Shape = tuple[int, ...]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What may be chosen about a model before it meets any data; each field is a flag, a line of TOML and a keyword argument."""

    template: str = "baseline"
    """A template's name (baseline, 1o1d, 1o2d, 4o4d, depthclip), or text with {depth} and {ctx} slots."""
    depth: str = "learned:7"
    """What fills {depth}: learned:N, random:N, path:K:N (N between K learned anchors), a scale (depth-7, size-7, colour-7, rand-txt-7,
    depthclip) or words: 'near|far'."""
    init: str = "random"
    """What learned depth tokens start from: random, a scale, or words."""
    bins: str = "linear"
    """Bin centres: linear, log, const80 (one bin per depth word), depthclip, or metres: '1|2|4'."""
    dense: str = "layer4"
    """Patch features: layer4, attnpool, value (ResNets); tokens, value (ViTs)."""
    scale: str | float = "auty2023"
    """Factor on similarities: auty2023 (1000 / sqrt(N)), depthclip (1000), a number, or learned."""
    normalisation: str = "imagenet"
    """Whose mean and standard deviation pixels are normalised with: imagenet (as released) or clip."""
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
        return self.words.kind == "learned" or self.parsed.contexts > 0 or self.scale == "learned"

    @property
    def logit_scale(self) -> float:
        """The factor on similarities; of a learned one, where it starts."""
        return scale_value(self.scale, self.words.count)

    def on(self, depth_range: tuple[float, float], predict_side: int | None = None) -> ModelSettings:
        """These options together with what data decides.

        Args:
            depth_range: (lo, hi) metres.
            predict_side: shorter side of the training images, pixels; None where nothing is trained.

        Raises:
            UsageError: for what is unknown, or does not fit together.
        """
        options = {field.name: getattr(self, field.name) for field in fields(ModelOptions)}
        return ModelSettings(**options, depth_range=depth_range, predict_side=predict_side)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(ModelOptions):
    """All settings of a model: what `DepthTokens.settings` is, and what token files, ONNX files and studies keep.

    Attributes:
        depth_range: (lo, hi) metres.
        predict_side: shorter side of the images it was trained on, pixels, to which `predict` brings that of photos; None leaves them as
            large as they are.

    Raises:
        UsageError: for what is unknown, or does not fit together.
    """

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
        if self.predict_side is not None and self.predict_side < 1:
            raise UsageError(f"predict_side {self.predict_side}: needs a positive number of pixels")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be between 0 and 2**63 - 1, not {self.seed}")
        if self.words.count > MOST_BINS:
            raise UsageError(f"'{self.depth}': {self.words.count} bins are more than the {MOST_BINS} that a model can have")
        _ = self.parsed, self.centres, self.logit_scale

    @cached_property
    def centres(self) -> tuple[float, ...]:
        """Bin centres, metres."""
        return bin_centres(self.bins, self.words.count, self.depth_range)

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
            **asdict(self),
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
            width: of the text tower; None for any, which stands as -1.
        """
        wide = -1 if width is None else width
        found: dict[str, Shape] = {}
        if self.parsed.contexts:
            found["tokens.context"] = (self.parsed.contexts, wide)
        if self.words.kind != "words":
            found["tokens.depth"] = (self.words.anchors or self.words.count, wide)
        if self.scale == "learned":
            found["log_scale"] = ()
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


@dataclass(frozen=True)
class Header:
    """What a token file says besides its tensors.

    Attributes:
        model: the model's settings.
        clip: the CLIP that the tokens were learned on.
        provenance: where the tokens come from.
        versions: package -> version that wrote the file.
    """

    model: ModelSettings
    clip: CLIPIdentity
    provenance: Provenance
    versions: Mapping[str, str]

    FORMAT = 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        optional = {"protocol": self.provenance.protocol, "training": self.provenance.training}
        return {
            "format": self.FORMAT, "model": self.model.to_header(), "clip": asdict(self.clip), "versions": dict(self.versions),
            **{name: value for name, value in optional.items() if value is not None},
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Header:
        """The inverse of `to_dict`, checked before any model is built from it.

        Args:
            values: the header of a file, as JSON gives it back.
            shapes: of the tensors that the file holds, by name.

        Raises:
            UsageError: for another format, values of the wrong type or out of bounds, or tensors that are not those of the settings.
        """
        if type(values.get("format")) is not int or values["format"] != cls.FORMAT or not {"model", "clip"} <= values.keys():
            raise UsageError(f"not a token file of this version (format {values.get('format')}, expected {cls.FORMAT})")
        model = ModelSettings.from_header(values["model"])
        named = values["clip"]
        if not isinstance(named, Mapping) or not {"name", "fingerprint"} <= named.keys():
            raise UsageError("it does not name its CLIP")
        clip = read_dataclass(CLIPIdentity, {"weights": None, **named}, "CLIP")
        check_shapes(model, shapes)
        protocol, training = values.get("protocol"), values.get("training")
        if not isinstance(protocol, str | None) or not isinstance(training, Mapping | None):
            raise UsageError("its provenance is none")
        versions = values.get("versions", {})
        return cls(model, clip, Provenance(protocol, training), versions if isinstance(versions, Mapping) else {})


def check_shapes(settings: ModelSettings, shapes: Mapping[str, Shape]) -> None:
    """Raise UsageError unless a token file with these settings may hold tensors of these shapes.

    Args:
        settings: as the file states them.
        shapes: of the tensors in the file, by name.

    Raises:
        UsageError: for a tensor that is missing, of another shape, or of no use to such a model.
    """
    expected = settings.shapes()
    for name, shape in expected.items():
        found = shapes.get(name)
        if found is None or len(found) != len(shape) or any(a not in (-1, b) for a, b in zip(shape, found, strict=True)):
            wanted = f"({', '.join('any' if n < 0 else str(n) for n in shape)})"
            raise UsageError(f"'{name}' should be {wanted}, found {'nothing' if found is None else found}")
    ends = STATISTICS if settings.batchnorm == "adapt" else ()
    for name in shapes.keys() - expected.keys():
        if not (name.startswith("batchnorm.") and name.endswith(ends)):
            raise UsageError(f"'{name}' is no tensor of a model with these settings")


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


def read_dataclass(kind: type[T], values: Mapping[str, Any], source: str) -> T:
    """A dataclass from plain values, as TOML or JSON gives them, each checked against its annotation.

    Args:
        kind: the dataclass.
        values: field name -> value; lists stand for tuples, and whole numbers for float.
        source: what errors call where the values come from.

    Raises:
        UsageError: for a name that is no field, or a value of the wrong type.
    """
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise unknown(f"setting in {source}", name, known)
        if not _fits(value, hints[name]):
            raise UsageError(f"{source}: {name} = {value!r} should be {_in_words(hints[name])}")
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except DepthTokensError:
        raise
    except TypeError as error:
        raise UsageError(f"{source}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type that an annotation asks for; true and false are no numbers, and nor is NaN."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value)
        same = isinstance(value, list | tuple) and len(value) == len(inner)
        return same and all(_fits(item, one) for item, one in zip(value, inner, strict=True))
    if hint is float:
        return type(value) in (int, float) and not math.isnan(value)
    return type(value) is (hint or type(None))


def _in_words(hint: Any) -> str:
    """An annotation in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_in_words(option) for option in get_args(hint) if option is not type(None))
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return "a list" if inner[-1] is Ellipsis else f"{'two' if len(inner) == 2 else len(inner)} numbers"
    return {str: "text", int: "a whole number", float: "a number", bool: "true or false"}.get(hint, str(hint))
