"""The table "few-shot" for readers: heads by numbers of training images, and its picture."""

from __future__ import annotations

from collections.abc import Sequence

from ..depth.metrics import METRICS
from ..experiment.config import MEAN_MAP
from ..experiment.statistics import MeanStd
from ..report.figure import figure_png, new_figure
from ..report.table import Cell, Table
from .measured import Measured
from .plots import COLOURS, CONTROL, log_axis
from .rows import FEW_SHOT, FEW_SHOT_ROWS

Curves = dict[str, tuple[int, dict[int, MeanStd]]]
"""By head: how many numbers it trains, and its score by the number of training images."""


def curves(rows: Sequence[Measured], images: int, metric: str) -> Curves:
    """The scores of a finished table "few-shot", mean and spread over seeds, each of which draws its images; {} where there is none.

    Args:
        rows: of one data set.
        images: how many training images there are in all.
        metric: its name.
    """
    found: Curves = {}
    names = {value: name for name, value in FEW_SHOT_ROWS.items()}
    for one in rows:
        if one.row.table == FEW_SHOT:
            _, scores = found.setdefault(names[one.row.model, one.row.kind, one.row.objective], (one.result.parameters, {}))
            scores[one.row.images or images] = one.result.measured(metric)
    return found


def few_shot_table(found: Curves, metric: str) -> Table:
    """A line for each head, a column for each number of training images."""
    sizes = sorted({size for _, scores in found.values() for size in scores})
    cells: list[list[Cell]] = [[name, numbers, *(scores.get(size) for size in sizes)] for name, (numbers, scores) in found.items()]
    heads = [f"{size:,} image{'' if size == 1 else 's'}" for size in sizes]
    return Table(["learned from", "trained numbers", *heads], cells, f"{METRICS[metric].heading} by the number of training images")


def few_shot_plot(found: Curves, metric: str) -> bytes:
    """The same as a picture, PNG: a line for each head, a band as wide as one standard deviation over seeds to either side."""
    from matplotlib.ticker import NullFormatter, NullLocator

    figure = new_figure(6.4, 4.4, dpi=160)
    ax = figure.subplots()
    for place, (name, (numbers, scores)) in enumerate(found.items()):
        sizes = sorted(scores)
        means = [scores[size].mean for size in sizes]
        spreads = [scores[size].std or 0.0 for size in sizes]
        colour, line = (COLOURS[CONTROL], "--") if name == MEAN_MAP else (f"C{place}", "-")
        ax.plot(sizes, means, line, color=colour, marker="o", markersize=4, label=f"{name} ({numbers:,})")
        low, high = ([mean + sign * spread for mean, spread in zip(means, spreads, strict=True)] for sign in (-1, 1))
        ax.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
    every = sorted({size for _, scores in found.values() for size in scores})
    log_axis(ax, "y")
    ax.set_xscale("log")
    ax.set_xticks(every, [f"{size:,}" for size in every])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("training images")
    ax.set_ylabel(METRICS[metric].heading)
    ax.legend(title="(trained numbers)", frameon=False, fontsize=8, title_fontsize=8)
    return figure_png(figure)
