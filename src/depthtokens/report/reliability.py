"""A picture of what uncertainty is worth: coverage over probability, and error over the share of pixels left out."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ..depth.metrics import METRICS
from ..experiment.uncertainty import LEVELS, STEPS, UncertaintyScores

OURS, IDEAL = "#7b2d8b", {"color": "#222", "linewidth": 1, "linestyle": "--"}
CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "uncertain": ("most uncertain first", {"color": OURS}),
    "oracle": ("largest error first (oracle)", IDEAL),
    "random": ("in no order", {"color": "#8a8aa8", "linewidth": 1}),
}
"""Curves of a sparsification, what they are called, and how they are drawn."""


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
    coverage.plot([0, 1], [0, 1], label="as they should", **IDEAL)
    coverage.plot(LEVELS, scores.coverage, color=OURS, marker="o", markersize=4, label="as they do")
    coverage.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="probability of a central interval", ylabel="share that holds the truth")
    coverage.set_title(f"intervals of {scores.intervals}", fontsize=10)
    coverage.legend(loc="upper left", frameon=False)
    for ax, (name, curves) in zip(others, scores.sparsification.items(), strict=True):
        for kind, (label, style) in CURVES.items():
            ax.plot(np.arange(STEPS) / STEPS, getattr(curves, kind)[:-1], label=label, **style)  # without the 0 of nothing left
        unit = f" ({METRICS[name].unit})" if METRICS[name].unit else ""
        ax.set(xlim=(0, 1), ylim=(0, None), xlabel="share of pixels left out", ylabel=f"{METRICS[name].label} of the rest{unit}")
        ax.set_title(f"AUSE {curves.ause:.3f}, AURG {curves.aurg:+.3f}", fontsize=10)
        ax.legend(loc="lower left", frameon=False)
    figure.suptitle(title)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
