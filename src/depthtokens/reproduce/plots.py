"""Pictures of a reproduction's tables, as PNG bytes: rows by score, and what a trained number buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..experiment.config import CONSTANT, MEAN_MAP
from ..experiment.statistics import Interval
from ..report.figure import figure_png, new_figure
from .rows import ADAPTED, CROSS, PROMPT, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORDS, RANDOM, LEARNED, PLAIN, CONTROL = "words", "random", "learned", "no language", "never looks"
GROUPS = {ADAPTED: WORDS, CROSS: LEARNED, CONSTANT: CONTROL, MEAN_MAP: CONTROL}
"""The group of each kind of row but prompts; kinds that are not here read features without language."""
COLOURS = {WORDS: "#c2731f", RANDOM: "#7d8597", LEARNED: "#7b2d8b", PLAIN: "#1f7a6d", CONTROL: "#222222"}
WIDTH = 5.2
"""Inches: so few that a phone still shows letters that can be read."""
DPI = 180
STYLES = ("--", ":", "-.")
TICKS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


@dataclass(frozen=True)
class Mark:
    """A row as pictures show it.

    Attributes:
        label: its name.
        group: one of `COLOURS`.
        numbers: that it trains.
        interval: its score over images.
        runs: its score for each seed.
        published: the published score, None where there is none.
    """

    label: str
    group: str
    numbers: int
    interval: Interval
    runs: Sequence[float]
    published: float | None = None

    @property
    def mean(self) -> float:
        """Its score."""
        return self.interval.mean


def group_of(row: Row) -> str:
    """The group whose colour a row has: by its kind, and of prompts by what stands in them."""
    if row.kind != PROMPT:
        return GROUPS.get(row.kind, PLAIN)
    return LEARNED if row.learns else RANDOM if row.model.words.kind == "random" else WORDS


def row_plot(marks: Sequence[Mark], label: str) -> bytes:
    """Rows from the best down, each with its interval and its seeds; what never looks at the image as lines through all of them.

    Args:
        marks: the rows; less is better.
        label: what is measured, with its unit.
    """
    rows = sorted((mark for mark in marks if mark.group != CONTROL), key=lambda mark: mark.mean)
    figure = new_figure(WIDTH, 1.7 + 0.23 * len(rows), DPI)
    ax = figure.subplots()
    for place, mark in enumerate(rows):
        colour = COLOURS[mark.group]
        ax.plot(mark.runs, [place] * len(mark.runs), "|", color=colour, alpha=0.55, markersize=8)
        ax.plot([mark.interval.low, mark.interval.high], [place, place], color=colour, linewidth=2.2)
        ax.plot(mark.mean, place, "o", color=colour, markersize=4.5)
        if mark.published is not None:
            ax.plot(mark.published, place, "D", markerfacecolor="white", markeredgecolor="#222", markersize=5)
        ax.annotate(f"{mark.mean:.3f}", (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=9)  # fmt: skip
    for control, style in zip((mark for mark in marks if mark.group == CONTROL), STYLES, strict=False):
        named = f"{control.label} {control.mean:.3f}"
        ax.axvline(control.mean, color=COLOURS[CONTROL], linewidth=1.1, linestyle=style, zorder=0, label=named)
    ax.set_yticks(range(len(rows)), [mark.label.replace("$", r"\$") for mark in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="y", color="#eeeeee", linewidth=0.8, zorder=-1)
    ax.set_xlabel(label)
    log_axis(ax, "x")
    _legend(figure, ax, marks, published=True)
    return figure_png(figure)


def numbers_plot(marks: Sequence[Mark], label: str) -> bytes:
    """Trained numbers against score. A line joins the rows that none with as few numbers or fewer beats, which are named below.

    Args:
        marks: the rows; less is better.
        label: what is measured, with its unit.
    """
    best = unbeaten(marks)
    figure = new_figure(WIDTH, 4.4 + 0.17 * len(best), DPI)
    ax = figure.subplots()
    places = {mark.label: mark.numbers or 0.25 for mark in marks}  # a logarithmic axis has no 0
    ends = [*(places[mark.label] for mark in best), max(places.values()) * 1.5]
    ax.plot(ends, [*(mark.mean for mark in best), best[-1].mean], color="#bbbbc6", linewidth=1.2, drawstyle="steps-post", zorder=1)
    ax.set_xscale("log")
    for mark in marks:
        shape = "s" if mark.group == CONTROL else "o"
        ax.plot(places[mark.label], mark.mean, shape, color=COLOURS[mark.group], markersize=6, markeredgecolor="white", markeredgewidth=0.6)
    for number, mark in enumerate(best, 1):  # below the line, where no row is
        ax.annotate(str(number), (places[mark.label], mark.mean), xytext=(-2, -5), textcoords="offset points", ha="right", va="top",
            fontsize=9, fontweight="bold")  # fmt: skip
    powers = [10.0**power for power in range(8) if 10.0**power <= max(places.values())]
    ax.set_xticks([0.25, *powers], ["0", *(f"{power:,.0f}" for power in powers)], rotation=30)
    ax.minorticks_off()
    ax.set_xlim(0.15, max(places.values()) * 1.5)
    ax.axvline(0.5, color="#dddddd", linewidth=0.8)
    ax.set_xlabel("trained numbers")
    ax.set_ylabel(label)
    log_axis(ax, "y")
    ax.set_ylim(ax.get_ylim()[0] * 0.93)
    _legend(figure, ax, marks)
    named = [f"{number}  {mark.label} ({mark.numbers:,}): {mark.mean:.3f}" for number, mark in enumerate(best, 1)]
    figure.supxlabel("\n".join(named).replace("$", r"\$"), x=0.1, ha="left", fontsize=9)
    return figure_png(figure)


def unbeaten(marks: Sequence[Mark]) -> list[Mark]:
    """The rows that none with as few numbers or fewer beats, by their numbers."""
    found: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.numbers, mark.mean)):
        if not found or mark.mean < found[-1].mean:
            found.append(mark)
    return found


def log_axis(ax: Axes, which: str) -> None:
    """A logarithmic axis with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_xscale("log") if which == "x" else ax.set_yscale("log")
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(LogLocator(subs=TICKS))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, ax: Axes, marks: Sequence[Mark], published: bool = False) -> None:
    """Groups by colour, and lines and marks by their look, above the picture."""
    from matplotlib.lines import Line2D

    def dot(group: str) -> Line2D:
        return Line2D([], [], color=COLOURS[group], marker="s" if group == CONTROL else "o", linestyle="", label=group)

    handles = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    groups = [group for group in COLOURS if any(mark.group == group for mark in marks) and not (handles and group == CONTROL)]
    shown = [dot(group) for group in groups] + handles
    if published and any(mark.published is not None for mark in marks):
        shown.append(Line2D([], [], marker="D", markerfacecolor="white", markeredgecolor="#222", linestyle="", label="published"))
    figure.legend(handles=shown, loc="outside upper center", ncols=3, frameon=False, fontsize=9, handletextpad=0.4, columnspacing=1.2)
