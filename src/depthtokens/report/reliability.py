"""A picture of what uncertainty is worth: coverage over probability, and error over the share of pixels left out."""

from __future__ import annotations

import io

import numpy as np

from ..depth.metrics import METRICS
from ..experiment.uncertainty import LEVELS, STEPS, UncertaintyScores

CURVES = {"uncertain": "#7b2d8b", "oracle": "#69a889", "random": "#8a8aa8"}
"""Curves of a sparsification, and their colours."""


def reliability_plot(scores: UncertaintyScores, title: str) -> bytes:
    """Coverage beside its diagonal, and the curves of each sparsification, as a PNG file.

    Args:
        scores: that are drawn.
        title: of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * (1 + len(scores.sparsification)), 4.4), dpi=110, layout="constrained")
    coverage, *others = figure.subplots(1, 1 + len(scores.sparsification))
    coverage.plot([0, 1], [0, 1], color="#222", linewidth=1, linestyle="--", label="as they should")
    coverage.plot(LEVELS, scores.coverage, color=CURVES["uncertain"], marker="o", markersize=4, label="as they do")
    coverage.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability of a central interval", ylabel="share that holds the truth")
    coverage.set_title(f"intervals of {scores.intervals}", fontsize=10)
    coverage.legend(loc="upper left", frameon=False)
    for ax, (name, curves) in zip(others, scores.sparsification.items(), strict=True):
        for kind, colour in CURVES.items():
            ax.plot(np.arange(STEPS + 1) / STEPS, getattr(curves, kind), color=colour, label=f"{kind} first" if kind != "random" else kind)
        unit = f" ({METRICS[name].unit})" if METRICS[name].unit else ""
        ax.set(xlim=(0, 1), ylim=(0, None), xlabel="share of pixels left out", ylabel=f"{METRICS[name].label} of the rest{unit}")
        ax.set_title(f"AUSE {curves.ause:.3f}, AURG {curves.aurg:+.3f}", fontsize=10)
        ax.legend(loc="lower left", frameon=False)
    figure.suptitle(title)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
