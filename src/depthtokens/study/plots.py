"""Pictures of what tokens mean, as PNG bytes; nothing here keeps state between pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..depth.depthmap import colourise
from ..experiment.statistics import Interval
from ..report.figure import figure_png, new_figure
from .ablations import ALL, MERGED, PAIR, REMOVED, REPLACED
from .geometry import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR_TO_FAR = "magma_r"
"""The colour map of depth, as in depth maps: near is bright."""
PLAIN, BEST, QUIET = "#8a8aa8", "#7b2d8b", "#c9c9d4"
KIND_COLOURS = {REMOVED: "#5b7db1", MERGED: "#69a889", REPLACED: "#c98a3d", PAIR: PLAIN, ALL: BEST}
EXTREMES = 24
"""Of many ablations, so many of the lowest and of the highest scores are drawn."""


def distance_map(distances: ArrayLike, labels: Sequence[str], title: str = "") -> bytes:
    """Distances between tokens as a heat map; up to 20 tokens the numbers stand in the cells.

    Args:
        distances: [N, N].
        labels: one per token.
        title: of the picture.
    """
    table = np.asarray(distances, dtype=np.float64)
    count = len(table)
    side = float(np.clip(2.5 + 0.55 * count, 4.5, 11))
    figure = new_figure(side + 1.0, side)
    ax = figure.subplots()
    shown = np.where(np.eye(count, dtype=bool), np.nan, table)  # the diagonal is zero by definition, and would take the colours' range
    image = ax.imshow(shown, cmap="viridis_r")
    figure.colorbar(image, ax=ax, shrink=0.8, label="Euclidean distance")
    if count <= 40:
        ax.set_xticks(range(count), map(_literal, labels), rotation=45, ha="right", rotation_mode="anchor")
        ax.set_yticks(range(count), map(_literal, labels))
    lowest, highest = image.get_clim()
    for i in range(count if count <= 20 else 0):
        for j in range(count):
            if i != j:
                dark = table[i, j] > (lowest + highest) / 2
                ax.text(j, i, f"{table[i, j]:.2f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_title(title)
    return figure_png(figure)


def path_plot(path: Path, centres: ArrayLike, labels: Sequence[str], title: str = "") -> bytes:
    """Tokens on their first two principal components, joined in order of depth, coloured by bin centre.

    Args:
        path: from `geometry.path`.
        centres: [N] metres.
        labels: one per token.
        title: of the picture; what the first component has to do with depth if not given.
    """
    from matplotlib import patheffects

    depths = np.asarray(centres, dtype=np.float64)
    figure = new_figure(7.5, 5.5)
    ax = figure.subplots()
    points = path.points[np.argsort(depths)]
    ax.plot(points[:, 0], points[:, 1], color=QUIET, linewidth=1.2, zorder=1)
    norm = "log" if depths.max() > 30 * depths.min() else "linear"
    dots = ax.scatter(path.points[:, 0], path.points[:, 1], c=depths, cmap=NEAR_TO_FAR, norm=norm, s=90, edgecolors="#444", zorder=2)
    figure.colorbar(dots, ax=ax, label="bin centre (m)")
    middle = (path.points[:, 0].min() + path.points[:, 0].max()) / 2
    spread = np.ptp(path.points[:, :2], axis=0).max()
    for i, label in enumerate(labels if len(labels) <= 40 else []):
        left = path.points[i, 0] > middle  # towards the middle, so that no label leaves the picture
        above = path.points[:, 1] >= path.points[i, 1]
        above[i] = False
        crowded = above.any() and np.linalg.norm(path.points[above, :2] - path.points[i, :2], axis=1).min() < 0.1 * spread
        text = ax.annotate(
            _literal(label),
            (path.points[i, 0], path.points[i, 1]),
            xytext=(-8 if left else 8, -14 if crowded else 7),
            textcoords="offset points",
            fontsize=9,
            ha="right" if left else "left",
            zorder=3,
        )
        text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])
    ax.margins(0.12)
    ax.set_xlabel(f"first principal component ({path.explained[0]:.0%} of variance)")
    ax.set_ylabel(f"second ({path.explained[1]:.0%})")
    ax.set_title(title or f"along the first component: rank correlation with depth {path.along_first}")
    return figure_png(figure)


def bars(rows: Mapping[str, Interval | float], label: str, *, best: str | None = None, title: str = "") -> bytes:
    """One bar per row, from the top, with the interval as a whisker where there is one.

    Args:
        rows: score by name.
        label: what is measured, with its unit.
        best: the row that is marked.
        title: of the picture.
    """
    figure = new_figure(8, 1.3 + 0.36 * len(rows))
    ax = figure.subplots()
    _bars(ax, rows, [BEST if name == best else PLAIN for name in rows])
    ax.set_xlabel(label)
    ax.set_title(title)
    return figure_png(figure)


def ablation_chart(
    rows: Mapping[str, Interval | float], whole: float, label: str, title: str = "", *, kinds: Sequence[str] = ()
) -> bytes:  # fmt: skip
    """One bar per ablation, sorted by score, and a line at the score of all tokens.

    Args:
        rows: score by name; of more than 48, the 24 lowest and the 24 highest are shown.
        whole: the score of all tokens.
        label: what is measured, with its unit.
        title: of the picture.
        kinds: of `ablations.KINDS`, one per row, which gives the bar its colour; all are alike if not given.
    """
    colours = dict(zip(rows, (KIND_COLOURS[kind] for kind in kinds), strict=True)) if kinds else dict.fromkeys(rows, PLAIN)
    names = sorted(rows, key=lambda name: _value(rows[name]))
    left_out = names[EXTREMES:-EXTREMES]
    kept = {name: rows[name] for name in [*names[:EXTREMES], *names[max(EXTREMES, len(names) - EXTREMES) :]]}
    figure = new_figure(8, 1.5 + 0.3 * len(kept))
    ax = figure.subplots()
    _bars(ax, kept, [colours[name] for name in kept])
    ax.axvline(whole, color="#222", linewidth=1.2, linestyle="--")
    ax.annotate(f"all tokens {whole:.3f}", (whole, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
        ha="center", fontsize=9)  # fmt: skip
    if left_out:
        ax.axhline(EXTREMES - 0.5, color="#222", linewidth=0.8, linestyle=":")
    ax.set_xlabel(label + (f"\n{len(left_out)} more at the dotted line" if left_out else ""))
    ax.set_title(title, pad=18)
    return figure_png(figure)


def map_plot(
    image: NDArray[np.uint8], probs: ArrayLike, centres: ArrayLike, labels: Sequence[str] | None = None, depth: ArrayLike | None = None
) -> bytes:
    """Which patches speak for which token: a photo, a map for each token, and the expected depth.

    Args:
        image: the photo, uint8 [H, W, 3].
        probs: [N, h, w], each token's probability in each patch.
        centres: [N] metres.
        labels: one per token; "depth_0", ... if not given.
        depth: [h, w] metres, the expected depth where it does not follow from probs and centres, as when several tokens share a map.
    """
    table, depths = np.asarray(probs, dtype=np.float32), np.asarray(centres, dtype=np.float32)
    height, width = image.shape[:2]
    names = labels or [f"depth_{i}" for i in range(len(table))]
    columns = min(len(table) + 2, 6 if width > 2 * height else 5)
    lines = math.ceil((len(table) + 2) / columns)
    cell = 2.6 if width <= 2 * height else 3.4
    figure = new_figure(cell * columns + 0.6, (cell * height / width + 0.35) * lines)
    grid: list[Axes] = np.atleast_1d(figure.subplots(lines, columns)).ravel().tolist()
    for ax in grid:
        ax.set_axis_off()
    extent = (0, width, height, 0)
    grid[0].imshow(image, extent=extent)
    grid[0].set_title("image", fontsize=10)
    for i, (name, metres) in enumerate(zip(names, depths, strict=True)):
        shown = grid[i + 1].imshow(table[i], cmap="viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        grid[i + 1].set_title(f"{_literal(name)}: {metres:.3g} m", fontsize=10)
    last = grid[len(table) + 1]
    expected = np.einsum("nhw,n->hw", table, depths) if depth is None else np.asarray(depth, dtype=np.float32)
    last.imshow(colourise(expected, float(depths.min()), float(depths.max())), extent=extent, interpolation="nearest")
    last.set_title("expected depth", fontsize=10)
    figure.colorbar(shown, ax=grid, label="probability", shrink=0.8, fraction=0.03, pad=0.01)
    return figure_png(figure)


def _literal(label: str) -> str:
    """A label as it is: matplotlib takes what stands between two dollar signs for a formula, and the vocabulary has such entries."""
    return label.replace("$", r"\$")


def _value(row: Interval | float) -> float:
    """The score itself, without its interval."""
    return row.mean if isinstance(row, Interval) else row


def _bars(ax: Axes, rows: Mapping[str, Interval | float], colours: Sequence[str]) -> None:
    """Horizontal bars, the first on top, each with its value behind the whisker."""
    values = [_value(row) for row in rows.values()]
    ends = [row.high if isinstance(row, Interval) else row for row in rows.values()]
    ax.barh(range(len(values)), values, color=colours, height=0.7)
    for place, row in enumerate(rows.values()):
        if isinstance(row, Interval):
            ax.plot([row.low, row.high], [place, place], color="#222", linewidth=1.4, marker="|", markersize=6)
        ax.annotate(f"{values[place]:.3f}", (max(ends[place], values[place], 0), place), xytext=(6, 0), textcoords="offset points",
            va="center", fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(values)), map(_literal, rows))
    ax.invert_yaxis()
    ax.set_xlim(min(0.0, *values) * 1.05, max(*ends, 0.0) * 1.12)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylim(len(values) - 0.4, -0.6)
