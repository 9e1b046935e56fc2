"""The demonstration's page: one HTML file with its table, pictures of some scenes, and the words nearest to what was learned."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._version import versions
from ..clip.bundled import trained_tokens
from ..depth.depthmap import colourise
from ..depth.metrics import METRICS, Metric
from ..depth.protocol import find_protocol
from ..experiment.evaluate import head_of
from ..files import write_text
from ..report.html import as_png, page
from ..report.table import Strong, Table
from ..study.neighbours import Neighbour, nearest_words
from .run import LEARNED, WORDS, Demo

COLUMNS = ("abs_rel", "rmse", "log10", "d1", "d2", "d3")
BARS = "abs_rel"
"""The metric that is drawn as bars."""
SCENES = 6
"""How many test scenes have pictures."""
WORST = 1.0
"""Relative error at the dark end of an error map."""


def write_page(demo: Demo, path: Path) -> None:
    """Write the page to a file. Raises DepthTokensError where it cannot be written."""
    write_text(path, demo_page(demo))


def demo_page(demo: Demo) -> str:
    """The page."""
    errors = [result.score(BARS) for result in demo.results.values()]
    return page(
        "demo.html",
        settings=demo.settings,
        fingerprint=demo.clip.fingerprint,
        protocol=find_protocol(demo.settings.protocol).describe(demo.test.depth_range, None),
        scores=score_table(demo),
        bars=[error / max(errors) for error in errors],
        bars_head=f"{METRICS[BARS].label}, shorter is better",
        depth_range=demo.test.depth_range,
        depth_scale=as_png(colourise(_ramp(), 0, 1)),
        worst=WORST,
        error_scale=as_png(_error(1 + WORST * _ramp(), np.ones_like(_ramp()))),
        scenes=[scene_pictures(demo, index) for index in np.linspace(0, len(demo.test) - 1, SCENES).round().astype(int).tolist()],
        tokens=list(zip(demo.models[LEARNED].centres.tolist(), nearest_to_learned(demo), strict=True)),
        learned=LEARNED,
        versions={**versions("torch"), "Python": platform.python_version()},
    )


def score_table(demo: Demo, metrics: Sequence[str] = COLUMNS, title: str = "") -> Table:
    """A line per row, with what is best in each column in bold.

    Args:
        demo: a finished demonstration.
        metrics: the columns behind each row's name and its number of trained numbers.
        title: of the table.
    """
    shown = [METRICS[name] for name in metrics]
    rows = [
        [name, result.parameters, *(_figure(demo, metric, result.score(metric.name)) for metric in shown)]
        for name, result in demo.results.items()
    ]
    kinds = ["control" if name not in demo.models else "learned" if result.parameters else "" for name, result in demo.results.items()]
    return Table(["row", "trained numbers", *(metric.heading for metric in shown)], rows, title, kinds)


def scene_pictures(demo: Demo, index: int) -> dict[str, bytes]:
    """Photo, true depth, what words and learned tokens make of it, and their errors, of a test scene: title -> PNG."""
    lo, hi = demo.test.depth_range
    protocol, names = find_protocol(demo.settings.protocol), (WORDS, LEARNED)
    rgb, truth = demo.test.read(index)
    image = demo.test[index].image[None]
    patches, mirrored = (demo.models[LEARNED].image_features(view) for view in (image, image.flip(-1)))
    heads = [head_of(demo.models[name]) for name in names]
    size = (truth.shape[0], truth.shape[1])
    words, learned = (protocol.full_size(head(patches), head(mirrored), size, (lo, hi))[0, 0].numpy() for head in heads)
    pictures = {
        "image": rgb,
        "true depth": masked(colourise(truth, lo, hi), truth),
        f"{WORDS} (words)": colourise(words, lo, hi),
        LEARNED: colourise(learned, lo, hi),
        "error of words": masked(_error(words, truth), truth),
        "error of learned": masked(_error(learned, truth), truth),
    }
    return {title: as_png(picture) for title, picture in pictures.items()}


def nearest_to_learned(demo: Demo) -> list[list[Neighbour]]:
    """The nearest words of each learned token, among those that the bundled CLIP has seen in training."""
    seen = [index for index, token in trained_tokens().items() if not token.startswith("<")]
    return nearest_words(demo.models[LEARNED], seen)


def _figure(demo: Demo, metric: Metric, value: float) -> float | Strong:
    """A figure, in bold where no row has a better one."""
    others = (result.score(metric.name) for result in demo.results.values())
    return value if any(metric.better(other, value) for other in others) else Strong(value)


def _ramp() -> NDArray[np.float32]:
    """0 to 1 from left to right, [1, 256]."""
    return np.linspace(0, 1, 256, dtype=np.float32)[None]


def _error(depth: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Relative error as a picture, white = none."""
    from matplotlib import colormaps

    share = np.clip(np.abs(depth - truth) / np.maximum(truth, 1e-6) / WORST, 0, 1)
    return (colormaps["Reds"](share)[..., :3] * 255).round().astype(np.uint8)


def masked(picture: NDArray[np.uint8], truth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey where there is no truth."""
    return np.where(truth[..., None] > 0, picture, np.uint8(200))
