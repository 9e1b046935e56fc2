"""A finished reproduction for readers: Markdown, CSV, JSON and one HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..depth.metrics import METRICS
from ..depth.protocol import find_protocol
from ..experiment.result import RowResult
from ..experiment.statistics import Difference, Interval
from ..files import atomic
from ..report.html import page, table
from .rows import Row
from .run import Reproduced

OTHERS = {"rmse": "RMSE", "log10": "log10", "d1": "δ1"}
MARK = "*"
LEGEND = (
    "published → measured, mean ± standard deviation over seeds; [ ] 95 % bootstrap interval over test images; "
    f"{MARK} the published figure lies outside the interval, widened by two standard deviations over seeds. Differences are of AbsRel, "
    "paired image by image, negative is better; ± how much other seeds would move them."
)


@dataclass(frozen=True)
class Line:
    """One row as a table shows it. comparable: whether the published figures are of this data set."""

    result: RowResult
    comparable: bool
    interval: Interval
    against_map: Difference | None
    against_base: Difference | None

    @property
    def name(self) -> str:
        """The row's name without its data set: "t3/learned-7", "effects/context only", "mean map"."""
        return "/".join(part for part in self.result.row.name.split("/") if part not in ("paper", "control", self.result.row.role))

    def published(self, metric: str) -> float | None:
        """The published figure, where it is of this data set."""
        return self.result.row.published.get(metric) if self.comparable else None

    def cell(self, metric: str) -> str:
        """Published → measured, marked where they disagree."""
        found, stated = self.result.measured(metric), self.published(metric)
        if stated is None:
            return str(found)
        interval, spread = self.result.interval(metric), 2 * (found.std or 0)
        return f"{stated:.3f} → {found}{'' if interval.low - spread <= stated <= interval.high + spread else MARK}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        result = self.result
        return {
            "name": result.row.name, "asks": result.row.asks, "settings": result.row.settings, "protocol": result.row.protocol,
            "published": result.row.published if self.comparable else {}, "seeds": result.seeds,
            "measured": {
                metric: {
                    "mean": result.measured(metric).mean, "std": result.measured(metric).std, "runs": result.scores[metric],
                    "interval": _plain(result.interval(metric)),
                }
                for metric in METRICS
            },
            "difference_to_mean_map": _plain(self.against_map),
            "difference_to_learned_7": _plain(self.against_base), "trained_parameters": result.parameters, "minutes": result.minutes,
            "images": len(result.names),
        }  # fmt: skip


def lines(done: Reproduced) -> dict[str, list[Line]]:
    """The rows of each data set, controls first."""
    found: dict[str, list[Line]] = {}
    for role, spec in done.settings.by_role().items():
        mine = [result for result in done.rows if result.row.role == role]
        mine.sort(key=lambda result: result.row.kind != "control")
        maps = {result.row.protocol: result for result in mine if "/mean map" in result.row.name}
        base = next((r for r in mine if r.row.name in (f"effects/{role}/learned-7", f"paper/t3/{role}/learned-7")), None)
        found[role] = [
            Line(
                result,
                comparable(spec),
                result.interval("abs_rel"),
                result.against(maps[result.row.protocol], "abs_rel") if result is not maps[result.row.protocol] else None,
                result.against(base, "abs_rel") if base and _differ(result.row, base.row) else None,
            )
            for result in mine
        ]
    return found


def _differ(row: Row, base: Row) -> bool:
    """Whether two rows are other runs, scored alike."""
    return not row.same(base) and row.protocol == base.protocol


def comparable(spec: str) -> bool:
    """Whether figures were published on this data set: none were on rendered scenes."""
    return not spec.startswith("scenes")


def columns(line: Line) -> list[str]:
    """A row as cells: name, trained numbers, AbsRel with its interval and differences, other figures, minutes."""
    return [
        line.name,
        f"{line.result.parameters:,}",
        line.cell("abs_rel"),
        f"[{line.interval.low:.3f}, {line.interval.high:.3f}]",
        str(line.against_map) if line.against_map else "",
        str(line.against_base) if line.against_base else "",
        *(line.cell(metric) for metric in OTHERS),
        f"{line.result.minutes:.1f}",
    ]


HEAD = ["row", "trained numbers", "AbsRel", "AbsRel 95 %", "AbsRel − mean map", "AbsRel − learned-7", *OTHERS.values(), "minutes"]


def describe(done: Reproduced, role: str) -> str:
    """Data and protocol of a table in words."""
    facts, spec = done.facts["data"], done.settings.by_role()[role]
    used = sorted({result.row.protocol for result in done.rows if result.row.role == role})
    said = "; ".join(find_protocol(name).describe(*_range(done, role)) for name in used)
    return f"{spec}: {facts[f'{role} train']['images']} training and {facts[f'{role} test']['images']} test images. {said}"


def title(done: Reproduced, role: str) -> str:
    """The data, and whose rows these are where it is not the published data."""
    spec = done.settings.by_role()[role]
    return f"{spec} ({role}'s rows)" if spec.startswith("scenes") else role


def recipe(done: Reproduced) -> str:
    """How rows were trained, in words."""
    s = done.settings
    steps = f"{s.steps} steps" if s.steps else f"{s.epochs} epochs"
    if s.as_released:
        how = "as released: BatchNorm adapts in rows that train tokens, new random views in every epoch; the linear head on plain images"
    else:
        views = "plain images, half of them mirrored" if s.views == 1 else f"{s.views} random views of each image"
        how = f"as written: CLIP frozen, stored features of {views}"
    return f"{steps} of batch {s.batch_size}, AdamW, OneCycle to {s.lr:g}, seeds {s.seeds}; {how}"


def markdown(done: Reproduced) -> str:
    """All tables as Markdown."""
    parts = ["# Reproduction", f"{recipe(done)}.", LEGEND]
    for role, rows in lines(done).items():
        parts += [f"## {title(done, role)}", describe(done, role)]
        cells = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *map(columns, rows)]
        parts.append("\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in cells))
    return "\n\n".join([*parts, _footer(done)]) + "\n"


def to_json(done: Reproduced) -> dict[str, Any]:
    """Everything but per-image figures, as plain values."""
    return {
        **done.facts, "described": {role: describe(done, role) for role in done.settings.by_role()}, "training": recipe(done),
        "rows": [line.to_dict() for rows in lines(done).values() for line in rows],
    }  # fmt: skip


def to_csv(done: Reproduced) -> str:
    """One line per row and run, every metric, published figures beside it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "data", "seed", "trained_parameters", *METRICS, *(f"published_{metric}" for metric in METRICS)])
    specs = done.settings.by_role()
    for result in done.rows:
        for i, seed in enumerate(result.seeds):
            figures = [result.scores[metric][i] for metric in METRICS]
            spec = specs[result.row.role]
            stated = [result.row.published.get(metric, "") if comparable(spec) else "" for metric in METRICS]
            writer.writerow([result.row.name, spec, seed, result.parameters, *figures, *stated])
    return text.getvalue()


def to_html(done: Reproduced) -> str:
    """One self-contained page."""
    wide = "<style>body { max-width: 1560px; } td { white-space: nowrap; }</style>"
    parts = [wide, "<h1>Reproduction</h1>", f"<p>{html.escape(recipe(done))}.</p>", f'<p class="small">{html.escape(LEGEND)}</p>']
    for role, rows in lines(done).items():
        parts += [f"<h2>{html.escape(title(done, role))}</h2>", f'<p class="small">{html.escape(describe(done, role))}</p>']
        classes = ["control" if line.result.row.kind == "control" else "learned" if line.result.parameters else "" for line in rows]
        parts.append(table(HEAD, [list(map(html.escape, columns(line))) for line in rows], kinds=classes))
        asked = [(line.name, line.result.row.asks) for line in rows if line.result.row.asks]
        if asked:
            parts.append(table(["effect", "what it is there to tell"], [list(map(html.escape, cells)) for cells in asked], words=1))
    return page("depthtokens reproduction", [*parts, f'<p class="small">{html.escape(_footer(done))}</p>'])


def save(done: Reproduced) -> list[Path]:
    """Write table.md, table.csv, table.json and table.html into the reproduction's folder; returns their paths."""
    contents = {
        "table.md": markdown(done), "table.csv": to_csv(done), "table.html": to_html(done),
        "table.json": json.dumps(to_json(done), indent=1),
    }  # fmt: skip
    paths = []
    for name, content in contents.items():
        path = Path(done.settings.out) / name
        with atomic(path) as file:
            file.write(content.encode())
        paths.append(path)
    return paths


def _range(done: Reproduced, role: str) -> tuple[tuple[float, float], str | None]:
    values = done.facts["data"][f"{role} test"]
    lo, hi = values["depth_range"]
    return (lo, hi), values["eval_crop"]


def _footer(done: Reproduced) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in done.facts["versions"].items())
    made = done.facts["recipe"]
    return f"CLIP {made['clip']} {made['weights'] or ''} {done.facts['clip'][:12]}; {made['precision']}; {versions}."


def _plain(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    seeds = {"seed_std": interval.seed_std} if isinstance(interval, Difference) else {}
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "level": interval.level, **seeds}
