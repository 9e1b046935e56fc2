"""What `reproduce` runs: the published rows, and the effects that the paper leaves mixed, each one setting away from another row.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..errors import UsageError, unknown
from ..prompt.scales import depth_words
from ..prompt.template import parse_template
from .published import DEPTH_RANGES, presets

TABLES = ("3", "4", "5", "6", "7", "depthclip", "effects")
ROLES = {"nyu": "nyu", "kitti": "kitti", "scenes": "nyu", "scenes:road": "kitti"}
"""Whose rows a data set stands for: rendered scenes take the rows of the data set they look like, and no published figures."""


@dataclass(frozen=True)
class Row:
    """One line of a table: settings of a model, and how it is had.

    role: whose rows it belongs to, "nyu" or "kitti". kind: "prompt" (words or tokens), "linear head" (a 1×1 convolution on the same
    features), "adapted" (words, nothing learned, BatchNorm led over the training images) or "cross" (tokens of another row, on other
    data). settings: of `DepthTokens`. asks: what the row is there to tell. published: metric -> figure. source: of a "cross" row, the
    name of the row whose tokens it takes; rescaled: whether its bins are laid over the new range, or stay where they were, in metres.
    """

    name: str
    role: str
    settings: dict[str, Any]
    protocol: str = "auty2023"
    kind: str = "prompt"
    asks: str = ""
    published: dict[str, float] = field(default_factory=dict)
    source: str | None = None
    rescaled: bool = False

    @property
    def learns(self) -> bool:
        """Whether an optimiser runs for this row."""
        if self.kind != "prompt":
            return self.kind == "linear head"
        settings = self.settings
        return depth_words(settings["depth"]).kind == "learned" or bool(parse_template(settings["template"]).contexts) or (
            settings["scale"] == "learned"
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def same(self, other: Row) -> bool:
        """Whether another row, under another name, is the same run."""
        return replace(self, name="", asks="", published={}) == replace(other, name="", asks="", published={})

    @property
    def seeded(self) -> bool:
        """Whether another seed gives another figure."""
        return self.learns or self.kind in ("adapted", "cross") or str(self.settings["depth"]).startswith("random:")


def rows_for(table: str, roles: list[str]) -> list[Row]:
    """The rows of a table ("3" to "7", "depthclip", "effects" or "all") for the data sets at hand, each row once.

    Raises UsageError for an unknown table, or one that has no row for this data, saying what can be run.
    """
    if table != "all" and table not in TABLES:
        raise unknown("table", table, [*TABLES, "all"])
    found: dict[str, Row] = {}
    for name in TABLES if table == "all" else (table,):
        rows = [row for role in roles for row in (effects(role, roles) if name == "effects" else published(name, role))]
        found |= {row.name: row for row in rows}
    if not found:
        needed = sorted({preset.dataset for preset in presets(table)})
        can = [name for name in TABLES if name == "effects" or any(presets(name, role) for role in roles)]
        raise UsageError(
            f"table {table} needs --data {' or '.join(f'{n}:ROOT' for n in needed)}; with this data, tables {', '.join(can)} run"
        )
    return list(found.values())


def published(table: str, role: str) -> list[Row]:
    """The published rows of one table for one data set."""
    return [
        Row(
            preset.name,
            role,
            {"template": preset.template, "depth": preset.depth, "bins": preset.bins, "scale": preset.scale, "dense": preset.dense},
            preset.protocol,
            published=preset.published,
        )
        for preset in presets(table, role)
    ]


BASE = {"template": "baseline", "depth": "learned:7", "bins": "linear", "scale": "auty2023", "dense": "layer4"}
WORDS = {**BASE, "depth": "depth-7"}

EFFECTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "learned-7": (BASE, "prompt", "the paper's row, which the others change in one thing"),
    "depth-7": (WORDS, "prompt", "human words, which the others change in one thing"),
    "depth-7 adapted": (WORDS, "adapted", "words, nothing learned: what does BatchNorm's drift alone give?"),
    "depth-7 learned scale": ({**WORDS, "scale": "learned"}, "prompt", "one number learned: is it the words, or their temperature?"),
    "context only": ({**WORDS, "template": "4o4d"}, "prompt", "human words between learned context vectors"),
    "learned-7 scale 1000": ({**BASE, "scale": "depthclip"}, "prompt", "DepthCLIP's logit scale instead of 1000 / √N"),
    "depth-7 attnpool": ({**WORDS, "dense": "attnpool"}, "prompt", "words on features that were trained to match text"),
    "depth-7 value": ({**WORDS, "dense": "value"}, "prompt", "words on the value path of the attention pool"),
    "learned-7 attnpool": ({**BASE, "dense": "attnpool"}, "prompt", "tokens on features that were trained to match text"),
    "learned-7 value": ({**BASE, "dense": "value"}, "prompt", "tokens on the value path of the attention pool"),
    "depth-7 CLIP normalisation": ({**WORDS, "normalisation": "clip"}, "prompt", "pixels as CLIP was trained on, not ImageNet's"),
    "learned-7 CLIP normalisation": ({**BASE, "normalisation": "clip"}, "prompt", "pixels as CLIP was trained on, not ImageNet's"),
    "linear head": (BASE, "linear head", "no language at all: what do the features hold?"),
    "learned-256 log": ({**BASE, "depth": "learned:256", "bins": "log"}, "prompt", "256 free tokens"),
    "path:7:256 log": ({**BASE, "depth": "path:7:256", "bins": "log"}, "prompt", "256 tokens on a path through 7 learned anchors"),
}


def effects(role: str, roles: list[str]) -> list[Row]:
    """The effects, one setting and one row each; tokens of one data set on another where both are at hand."""
    rows = [Row(f"effects/{role}/{name}", role, settings, kind=kind, asks=asks) for name, (settings, kind, asks) in EFFECTS.items()]
    for other in roles:
        if other != role:
            taken = Row("", role, BASE, kind="cross", source=f"effects/{other}/learned-7")
            rows += [
                replace(taken, name=f"effects/{role}/from {other}, metres", asks=f"tokens and bins learned on {other}, as they are"),
                replace(taken, name=f"effects/{role}/from {other}, rescaled", asks=f"tokens of {other} over {role}'s bins", rescaled=True),
            ]
    return rows


def role_of(spec: str) -> str:
    """ "nyu" or "kitti" for a data set on the command line. Raises UsageError for one that no row was published on."""
    if spec in ROLES:
        return ROLES[spec]
    name = spec.partition(":")[0]
    if name in DEPTH_RANGES:
        return name
    raise UsageError(f"'{spec}' stands for no published data set: reproduce takes nyu:ROOT, kitti:ROOT, scenes and scenes:road")


def parse_seeds(text: str) -> list[int]:
    """ "0..4" (both ends), "0,1,2" or "42" -> seeds. Raises UsageError for anything else."""
    try:
        first, dots, last = text.partition("..")
        seeds: Sequence[int] = range(int(first), int(last) + 1) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) >= 2**32 or len(seeds) > 1000 or len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds '{text}': write 0..4 (both ends), 0,1,2 or one number, each once, at most 1000, below 2**32")
    return list(seeds)
