"""Rows as data: what a line of a table runs, and the effects that the paper leaves mixed, each one setting away from another row.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..depth.settings import ModelOptions
from ..errors import UsageError, unknown
from ..experiment.config import CONSTANT, MEAN_MAP, RIDGE, Experiment

DEPTH_RANGES = {"nyu": (0.001, 10.0), "kitti": (0.001, 80.0)}
"""Metres over which the published rows laid their bins, by role."""
ROLES = {"nyu": "nyu", "kitti": "kitti", "scenes": "nyu", "scenes:road": "kitti"}
"""Whose rows a data set stands for: rendered scenes take the rows of the data set they look like, and no published figures."""
PROMPT, LINEAR, ADAPTED, CROSS = "prompt", "linear head", "adapted", "cross"
SILOG = "silog"
"""What the paper's rows minimise."""
FEW_SHOT = "few-shot"
_STATED = ("template", "depth", "bins", "scale", "dense")


@dataclass(frozen=True)
class Row:
    """One line of a table: settings of a model, and how it is had.

    Attributes:
        name: one of its own: "paper/t3/nyu/learned-7", "depthclip/nyu/P1", "effects/kitti/context only".
        label: the same for a table of one data set: "t3/learned-7".
        role: whose rows it belongs to, "nyu" or "kitti".
        options: of the model, None for a control.
        protocol: by which it is scored.
        kind: "prompt" (words or tokens), "linear head" (a 1×1 convolution on the same features), "adapted" (words, nothing learned,
            BatchNorm led over the training images), "cross" (tokens of another row, on other data), or a control: "constant", "mean map",
            "ridge" (in closed form, on features).
        asks: what the row is there to tell.
        published: metric -> figure.
        table: "3" to "7" or "depthclip" for a published row, "few-shot".
        source: of a "cross" row, the name of the row whose tokens it takes.
        rescaled: of a "cross" row, whether its bins are laid over the new range, or stay where they were, in metres.
        objective: what training minimises.
        images: how many training images it learns from, which ones depends on the seed; None for all.
    """

    name: str
    label: str
    role: str
    options: ModelOptions | None
    protocol: str = "auty2023"
    kind: str = PROMPT
    asks: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    table: str = ""
    source: str | None = None
    rescaled: bool = False
    objective: str = SILOG
    images: int | None = None

    @property
    def model(self) -> ModelOptions:
        """Options of its model. Raises UsageError for a control of a data set, which has none."""
        if self.options is None:
            raise UsageError(f"{self.name} is a control: it has no model")
        return self.options

    @property
    def image_free(self) -> bool:
        """Whether it is a control that never looks at the image."""
        return self.kind in (CONSTANT, MEAN_MAP)

    @property
    def control(self) -> bool:
        """Whether it is there for others to be compared with."""
        return (self.image_free or self.kind == RIDGE) and self.table != FEW_SHOT

    @property
    def learns(self) -> bool:
        """Whether an optimiser runs for this row."""
        return self.kind == LINEAR or (self.kind == PROMPT and self.model.learns)

    @property
    def shown_training(self) -> bool:
        """Whether it reads features of training images."""
        return self.learns or self.kind == RIDGE

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another figure."""
        return self.learns or self.kind in (ADAPTED, CROSS) or self.images is not None or self.model.words.kind == "random"

    @property
    def depth_range(self) -> tuple[float, float]:
        """Metres over which the published rows of its data set laid their bins."""
        return DEPTH_RANGES[self.role]

    def same(self, other: Row) -> bool:
        """Whether another row, under another name, is the same run."""

        def run(row: Row) -> Row:
            return replace(row, name="", label="", asks="", published={}, table="")

        return run(self) == run(other)

    @property
    def settings(self) -> dict[str, Any]:
        """Options and objective as files tell them: those that every row has, and others where they differ from the default."""
        if self.options is None:
            return {}
        usual = ModelOptions()
        values = {field.name: getattr(self.options, field.name) for field in fields(ModelOptions)}
        others = {name: value for name, value in values.items() if name not in _STATED and value != getattr(usual, name)}
        if self.objective != SILOG:
            others["objective"] = self.objective
        few = {} if self.images is None else {"images": self.images}
        stated = ("dense",) if self.kind in (RIDGE, MEAN_MAP) else _STATED  # these have no prompts
        return {**{name: values[name] for name in stated}, **others, **few}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "name": self.name, "role": self.role, "settings": self.settings, "protocol": self.protocol, "kind": self.kind,
            "asks": self.asks, "published": dict(self.published), "source": self.source, "rescaled": self.rescaled,
        }  # fmt: skip

    def experiment(self, data: str, *, as_released: bool = False, **overrides: Any) -> Experiment:
        """The experiment behind this row.

        Args:
            data: what it is trained on ("nyu:ROOT", ...).
            as_released: let BatchNorm adapt during training as the released run did, in rows that train; otherwise CLIP is frozen, as the
                paper writes.
            overrides: further fields of `Experiment`.

        Raises:
            UsageError: for a field that an experiment does not have.
        """
        known = [field.name for field in fields(Experiment)]
        for name in overrides:
            if name not in known:
                raise unknown("setting", name, known)
        settings: dict[str, Any] = {
            **self.settings,
            "depth_range": self.depth_range,
            "protocol": self.protocol,
            "batchnorm": "adapt" if as_released and self.learns else "frozen",
        }
        return Experiment(data=data, **(settings | overrides))


BASE = ModelOptions(dense="layer4")
WORDS = replace(BASE, depth="depth-7")

EFFECTS: dict[str, tuple[ModelOptions, str, str]] = {
    "learned-7": (BASE, PROMPT, "the paper's row, which the others change in one thing"),
    "depth-7": (WORDS, PROMPT, "human words, which the others change in one thing"),
    "depth-7 adapted": (WORDS, ADAPTED, "words, nothing learned: what does BatchNorm's drift alone give?"),
    "depth-7 learned scale": (replace(WORDS, scale="learned"), PROMPT, "one number learned: is it the words, or their temperature?"),
    "context only": (replace(WORDS, template="4o4d"), PROMPT, "human words between learned context vectors"),
    "learned-7 scale 1000": (replace(BASE, scale="depthclip"), PROMPT, "DepthCLIP's logit scale instead of 1000 / √N"),
    "depth-7 attnpool": (replace(WORDS, dense="attnpool"), PROMPT, "words on features that were trained to match text"),
    "depth-7 value": (replace(WORDS, dense="value"), PROMPT, "words on the value path of the attention pool"),
    "learned-7 attnpool": (replace(BASE, dense="attnpool"), PROMPT, "tokens on features that were trained to match text"),
    "learned-7 value": (replace(BASE, dense="value"), PROMPT, "tokens on the value path of the attention pool"),
    "depth-7 CLIP normalisation": (replace(WORDS, normalisation="clip"), PROMPT, "pixels as CLIP was trained on, not ImageNet's"),
    "learned-7 CLIP normalisation": (replace(BASE, normalisation="clip"), PROMPT, "pixels as CLIP was trained on, not ImageNet's"),
    "linear head": (BASE, LINEAR, "no language at all: what do the features hold?"),
    "learned-256 log": (replace(BASE, depth="learned:256", bins="log"), PROMPT, "256 free tokens"),
    "path:7:256 log": (replace(BASE, depth="path:7:256", bins="log"), PROMPT, "256 tokens on a path through 7 learned anchors"),
}


def effects(role: str, roles: list[str]) -> list[Row]:
    """The effects, one setting and one row each; tokens of one data set on another where both are at hand."""
    rows = [
        Row(f"effects/{role}/{name}", f"effects/{name}", role, options, kind=kind, asks=asks)
        for name, (options, kind, asks) in EFFECTS.items()
    ]
    for other in roles:
        if other != role:
            taken = Row("", "", role, BASE, kind=CROSS, source=f"effects/{other}/learned-7")
            for how, rescaled, asks in (
                ("metres", False, f"tokens and bins learned on {other}, as they are"),
                ("rescaled", True, f"tokens of {other} over {role}'s bins"),
            ):
                name = f"from {other}, {how}"
                rows.append(replace(taken, name=f"effects/{role}/{name}", label=f"effects/{name}", asks=asks, rescaled=rescaled))
    return rows


VALUE = replace(BASE, dense="value")
BEYOND: dict[str, tuple[ModelOptions, str, str]] = {
    f"{name} {objective}": (options, objective, asks)
    for name, options in {
        "learned-7": VALUE,
        "learned-7 log": replace(VALUE, bins="log"),
        "path:7:64 log": replace(VALUE, depth="path:7:64", bins="log"),
    }.items()
    for objective, asks in {
        SILOG: "the released loss on features that were trained to match text",
        "silog+ce": "does every seed leave its start where the right bin is named?",
        "silog+ordinal": "and where bins nearby count as less wrong?",
    }.items()
} | {
    "learned-7 log scale 40": (replace(VALUE, bins="log", scale=40.0), SILOG, "a softer softmax: does each seed leave its start?"),
    "metres-7": (replace(VALUE, depth="metres:7"), SILOG, "numbers as words, nothing learned: does this CLIP read them?"),
    "learned-7 init metres": (replace(VALUE, init="metres"), SILOG, "does it help to begin from numbers?"),
}  # fmt: skip
"""Rows that the paper does not have: what is learned over which bins, what training minimises, and what the row is there to tell."""


CONDITIONED: dict[str, tuple[ModelOptions, str, str]] = {
    "learned-7 log shift": (replace(VALUE, bins="log", condition="shift"), "silog+ce", "CoCoOp: the image moves its prompts' vectors"),
    "learned-7 log gain": (replace(VALUE, bins="log", condition="gain"), "silog+ce", "the image has a factor on its depth"),
}
"""Rows in which the image as a whole decides more, each one setting away from "learned-7 log silog+ce"."""


def beyond(role: str) -> list[Row]:
    """The rows of `BEYOND` and `CONDITIONED` for a data set."""
    return [
        Row(f"beyond/{role}/{name}", f"beyond/{name}", role, options, asks=asks, objective=objective)
        for name, (options, objective, asks) in {**BEYOND, **CONDITIONED}.items()
    ]


FEW = (1, 4, 16, 64, 256)
"""From how many training images the rows of the table "few-shot" learn, and from all."""
FEW_SHOT_ROWS: dict[str, tuple[ModelOptions, str, str]] = {
    "mean map": (VALUE, MEAN_MAP, SILOG),
    "ridge": (VALUE, RIDGE, SILOG),
    "linear head": (VALUE, LINEAR, SILOG),
    "learned-7": (VALUE, PROMPT, SILOG),
    "learned-7 log scale 40": (replace(VALUE, bins="log", scale=40.0), PROMPT, SILOG),
    "path:7:64 log silog+ce": (replace(VALUE, depth="path:7:64", bins="log"), PROMPT, "silog+ce"),
}
"""The paper's tokens, other ones, and what stands beside them: options, kind, and what training minimises where there is any."""


def few_shot(role: str) -> list[Row]:
    """Each of `FEW_SHOT_ROWS` from few images and from all; the seeds draw the images, too."""
    return [
        Row(f"{FEW_SHOT}/{role}/{name}, {count or 'all'}", f"{FEW_SHOT}/{name}, {count or 'all'}", role, options, kind=kind,
            table=FEW_SHOT, images=count, objective=objective)
        for name, (options, kind, objective) in FEW_SHOT_ROWS.items()
        for count in (*FEW, None)
    ]  # fmt: skip


def ridge_rows(rows: Sequence[Row]) -> list[Row]:
    """The upper control of some rows: ridge regression on each kind of features that they read, by each protocol."""
    found: dict[str, Row] = {}
    for row in rows:
        options = replace(BASE, dense=row.model.dense, normalisation=row.model.normalisation)
        told = [str(options.dense)]
        told += ["CLIP normalisation"] if options.normalisation == "clip" else []
        told += [row.protocol] if row.protocol != "auty2023" else []
        label = f"{RIDGE} ({', '.join(told)})"
        found.setdefault(f"{row.role} {label}", Row(f"control/{row.role}/{label}", label, row.role, options, row.protocol, RIDGE))
    return list(found.values())


def control_row(role: str, kind: str, protocol: str) -> Row:
    """A control of a data set, as a row."""
    suffix = "" if protocol == "auty2023" else f" ({protocol})"
    return Row(f"control/{role}/{kind}{suffix}", f"{kind}{suffix}", role, None, protocol, kind)


def role_of(spec: str) -> str:
    """The role of a data set on the command line, "nyu" or "kitti". Raises UsageError for one that no row was published on."""
    if spec in ROLES:
        return ROLES[spec]
    name = spec.partition(":")[0]
    if name in DEPTH_RANGES:
        return name
    raise UsageError(f"'{spec}' stands for no published data set: reproduce takes nyu:ROOT, kitti:ROOT, scenes and scenes:road")
