"""A finished reproduction for readers: one table per data set, shown on a terminal, as Markdown and on a page; figures as CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..depth.metrics import METRICS, QUOTED
from ..depth.protocol import find_protocol
from ..experiment.config import MEAN_MAP
from ..experiment.result import Result
from ..experiment.statistics import Difference, MeanStd
from ..files import json_text, write_text
from ..places import for_others, last_part
from ..report.html import page
from ..report.table import Table, write_cell
from .fewshot import Curves, curves, few_shot_plot, few_shot_table
from .measured import Measured
from .plots import CONTROL, Mark, group_of, numbers_plot, row_plot
from .rows import BASE, FEW_SHOT, PROMPT, SILOG, Row
from .run import Reproduced

MAIN = "abs_rel"
"""The metric that rows are compared by."""
OTHERS = [name for name in QUOTED if name != MAIN]
LABEL = METRICS[MAIN].label
AGAINST_BASE = f"{LABEL} − learned-7"
STUCK = "stuck"
HEAD = [
    "row", "trained numbers", LABEL, f"{LABEL} 95 %", f"{LABEL} − mean map", STUCK, AGAINST_BASE, *(METRICS[name].label for name in OTHERS),
    "minutes",
]  # fmt: skip
WIDE = [AGAINST_BASE, METRICS["rmse"].label, METRICS["log10"].label]
"""Columns that a terminal has no room for; a page shows them, and the last, on demand."""
MARK = "*"
LEGEND = (
    "published → measured, mean ± standard deviation over seeds; [ ] 95 % bootstrap interval over test images; "
    f"{MARK} the published figure lies outside the interval, widened by two standard deviations over seeds. Differences are of {LABEL}, "
    "paired image by image, negative is better; ± how much other seeds would move them. Stuck is a run that ended no better than the mean "
    f"map, by {LABEL}."
)


@dataclass(frozen=True)
class Line:
    """One row as a table shows it.

    Attributes:
        measured: the row and its result.
        comparable: whether the published figures are of this data set.
        against_map: AbsRel less that of the mean map; None for the map itself.
        against_base: AbsRel less that of the paper's row "learned-7"; None where there is none, or it is the same run, or another
            protocol's.
        stuck: how many runs ended no better than the mean map, by AbsRel; None where nothing was learned.
    """

    measured: Measured
    comparable: bool
    against_map: Difference | None
    against_base: Difference | None
    stuck: int | None

    @property
    def row(self) -> Row:
        """What was run."""
        return self.measured.row

    @property
    def result(self) -> Result:
        """What it gave."""
        return self.measured.result

    @property
    def kind(self) -> str:
        """How a page draws it: "control", "learned", or "" for what trained nothing."""
        return "control" if self.row.control else "learned" if self.result.parameters else ""

    def published(self, metric: str) -> float | None:
        """The published figure, where it is of this data set."""
        return self.row.published.get(metric) if self.comparable else None

    def figure(self, metric: str) -> MeanStd | str:
        """The measured figure; behind the published one, where there is one, and marked where the two disagree."""
        found, stated = self.result.measured(metric), self.published(metric)
        if stated is None:
            return found
        interval, spread = self.result.interval(metric), 2 * (found.std or 0)
        return f"{stated:.3f} → {found}{'' if interval.low - spread <= stated <= interval.high + spread else MARK}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        row, result = self.row, self.result
        measured = {}
        for metric in METRICS:
            found, interval = result.measured(metric), result.interval(metric).to_dict()
            measured[metric] = {"mean": found.mean, "std": found.std, "runs": result.scores[metric], "interval": interval}
        return {
            "name": row.name, "asks": row.asks, "settings": row.settings, "protocol": row.protocol,
            "published": dict(row.published) if self.comparable else {}, "seeds": result.seeds, "measured": measured,
            "difference_to_mean_map": self.against_map and self.against_map.to_dict(),
            "difference_to_learned_7": self.against_base and self.against_base.to_dict(),
            "stuck_runs": self.stuck, "trained_parameters": result.parameters, "minutes": result.minutes, "images": len(result.names),
        }  # fmt: skip


def lines(done: Reproduced) -> dict[str, list[Line]]:
    """The rows of each data set, by whose rows they are ("nyu", "kitti"), controls first."""
    return {role: _lines([one for one in done.rows if one.row.role == role], spec) for role, spec in done.settings.by_role().items()}


def _lines(rows: list[Measured], spec: str) -> list[Line]:
    """The rows of one data set."""
    maps = {one.row.protocol: one for one in rows if one.row.kind == MEAN_MAP and one.row.control}
    base = next((one for one in rows if _is_base(one.row)), None)
    found = []
    for one in sorted(rows, key=lambda one: (not one.row.control, not one.row.image_free and one.row.control)):
        mean_map = maps[one.row.protocol]
        against_map = None if one is mean_map else one.result.minus(mean_map.result, MAIN)
        against_base = one.result.minus(base.result, MAIN) if base and _differ(one.row, base.row) else None
        bar = mean_map.result.score(MAIN)
        stuck = sum(score >= bar for score in one.result.scores[MAIN]) if one.row.learns else None
        found.append(Line(one, comparable(spec), against_map, against_base, stuck))
    return found


def _is_base(row: Row) -> bool:
    """Whether a row is the paper's "learned-7", under whatever name."""
    return (row.kind, row.options, row.protocol, row.objective) == (PROMPT, BASE, "auty2023", SILOG)


def _differ(row: Row, base: Row) -> bool:
    """Whether two rows are other runs, scored alike."""
    return not row.same(base) and row.protocol == base.protocol


def comparable(spec: str) -> bool:
    """Whether figures were published on this data set: none were on rendered scenes."""
    return not spec.startswith("scenes")


def tables(done: Reproduced) -> dict[str, Table]:
    """The table of each data set, by whose rows it has, data and protocol above it."""
    return {role: _table(done, role, found) for role, found in lines(done).items()}


def short_tables(done: Reproduced) -> dict[str, Table]:
    """The same with as many columns as a terminal has room for."""
    return {role: table.without(*WIDE) for role, table in tables(done).items()}


def _table(done: Reproduced, role: str, found: list[Line]) -> Table:
    """The table of one data set."""
    rows = [
        [
            line.row.label, line.result.parameters, line.figure(MAIN), write_cell(line.result.interval(MAIN)).interval,
            line.against_map, "" if line.stuck is None else f"{line.stuck} of {len(line.result.seeds)}", line.against_base,
            *(line.figure(metric) for metric in OTHERS), f"{line.result.minutes:.1f}",
        ]
        for line in found
    ]  # fmt: skip
    return Table(HEAD, rows, describe(done, role), [line.kind for line in found], less=[*WIDE, "minutes"])


def pictures(found: list[Line]) -> list[tuple[bytes, str]]:
    """The rows of one data set as pictures, each with what it says in words: by score, and by the numbers that they train.

    A run that stands under two names is drawn once, and of the controls those by the protocol that most rows have. The table "few-shot"
    has a picture of its own.
    """
    found = [line for line in found if line.row.table != FEW_SHOT]
    if all(line.row.control for line in found):
        return []
    protocol, _ = Counter(line.row.protocol for line in found if not line.row.image_free).most_common(1)[0]
    drawn = [line for number, line in enumerate(found) if not any(line.row.same(other.row) for other in found[:number])]
    marks = [_mark(line) for line in drawn if line.row.protocol == protocol or not line.row.image_free]
    best, worst = (end(marks, key=lambda mark: mark.mean) for end in (min, max))
    ends = f"from {best.label} ({best.mean:.3f}) to {worst.label} ({worst.mean:.3f})"
    controls = ", ".join(f"{mark.label} {mark.mean:.3f}" for mark in marks if mark.group == CONTROL)
    return [
        (row_plot(marks, f"{LABEL} (less is better)"), f"Rows by {LABEL}, {ends}, with intervals; lines: {controls}"),
        (numbers_plot(marks, f"{LABEL} (less is better)"), f"Trained numbers against {LABEL}, {ends}"),
    ]


def _mark(line: Line) -> Mark:
    """A row as a picture shows it."""
    result, label = line.result, line.row.label.removeprefix("effects/").removeprefix("beyond/")
    return Mark(label, group_of(line.row), result.parameters, result.interval(MAIN), result.scores[MAIN], line.published(MAIN))


def _few_shot(done: Reproduced, role: str) -> Curves:
    """Scores by head and number of training images, where the table "few-shot" was run."""
    return curves([one for one in done.rows if one.row.role == role], done.facts["data"][f"{role} train"]["images"], MAIN)


def _questions(found: list[Line]) -> Table | None:
    """What each effect is there to tell, where there are effects."""
    asked = [[line.row.label, line.row.asks] for line in found if line.row.asks]
    return Table(["effect", "what it is there to tell"], asked, words=1) if asked else None


def describe(done: Reproduced, role: str) -> str:
    """Data and protocol of a table in words."""
    facts, spec = done.facts["data"], done.settings.by_role()[role]
    used = sorted({one.row.protocol for one in done.rows if one.row.role == role})
    test = facts[f"{role} test"]
    protocols = "; ".join(find_protocol(name).describe(tuple(test["depth_range"]), test["eval_crop"]) for name in used)
    images = f"{last_part(spec)}: {facts[f'{role} train']['images']} training and {test['images']} test images"
    if comparable(spec) and role in done.facts.get("in_painted", ()):
        images += ", whose truth is in-painted (it has no holes): published figures are on what the sensor measured"
    return f"{images}. {protocols}"


def title(done: Reproduced, role: str) -> str:
    """The data, and whose rows these are where it is not the published data."""
    spec = done.settings.by_role()[role]
    return role if comparable(spec) else f"{last_part(spec)} ({role}'s rows)"


def recipe(done: Reproduced) -> str:
    """How rows were trained, in words."""
    s = done.settings
    steps = f"{s.steps} steps" if s.steps else f"{s.epochs} epochs"
    fixed = "plain images, half of them mirrored" if s.views == 1 else f"{s.views} random views of each image"
    new = "new random views in every epoch"
    if s.as_released:
        how = f"as released: BatchNorm adapts in rows that train tokens, {new}"
        how += f"; linear head and ridge on stored features of {fixed}" if s.views else "; the ridge on plain images"
    elif s.views:
        how = f"CLIP frozen, stored features of {fixed}"
    else:
        how = f"as the paper writes: CLIP frozen, {new}; the ridge on plain images"
    return f"{steps} of batch {s.batch_size}, AdamW, OneCycle to {s.lr:g}, seeds {s.seeds}; {how}"


def markdown(done: Reproduced) -> str:
    """All tables as Markdown."""
    parts = ["# Reproduction", f"{recipe(done)}.", LEGEND]
    for role, table in tables(done).items():
        parts += [f"## {title(done, role)}", table.markdown()]
        if few := _few_shot(done, role):
            parts.append(few_shot_table(few, MAIN).markdown())
    return "\n\n".join([*parts, _made_with(done)]) + "\n"


def to_json(done: Reproduced) -> dict[str, Any]:
    """Everything but per-image figures, as plain values."""
    return {
        **for_others(done.facts), "described": {role: describe(done, role) for role in done.settings.by_role()}, "training": recipe(done),
        "rows": [line.to_dict() for found in lines(done).values() for line in found],
    }  # fmt: skip


def to_csv(done: Reproduced) -> str:
    """One line per row and run, every metric, published figures beside it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "data", "seed", "trained_parameters", *METRICS, *(f"published_{metric}" for metric in METRICS)])
    specs = done.settings.by_role()
    for one in done.rows:
        row, result, spec = one.row, one.result, specs[one.row.role]
        stated = [row.published.get(metric, "") if comparable(spec) else "" for metric in METRICS]
        for i, seed in enumerate(result.seeds):
            figures = [result.scores[metric][i] for metric in METRICS]
            writer.writerow([row.name, last_part(spec), seed, result.parameters, *figures, *stated])
    return text.getvalue()


def to_html(done: Reproduced) -> str:
    """One page, everything inside it."""
    parts = []
    for role, found in lines(done).items():
        few = _few_shot(done, role)
        shown = (few_shot_plot(few, MAIN), few_shot_table(few, MAIN)) if few else None
        parts.append((title(done, role), pictures(found), shown, _table(done, role, found), _questions(found)))
    return page("reproduction.html", recipe=recipe(done), legend=LEGEND, parts=parts, made_with=_made_with(done))


def save(done: Reproduced) -> list[Path]:
    """Write table.md, table.csv, table.html and table.json into the reproduction's folder; returns their paths."""
    contents = {
        "table.md": markdown(done), "table.csv": to_csv(done), "table.html": to_html(done),
        "table.json": json_text(to_json(done)),
    }  # fmt: skip
    paths = [Path(done.settings.out) / name for name in contents]
    for path in paths:
        write_text(path, contents[path.name])
    return paths


def _made_with(done: Reproduced) -> str:
    """CLIP, precision and versions in words."""
    versions = ", ".join(f"{name} {version}" for name, version in done.facts["versions"].items())
    made = for_others(done.facts["recipe"])
    return f"CLIP {made['clip']} {made['weights'] or ''} {done.facts['clip'][:12]}; {made['precision']}; {versions}."
