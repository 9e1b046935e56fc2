"""One self-contained HTML page for a finished demonstration: table, pictures, nearest words."""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import depthtokens

from ..clip.bundled import trained_tokens
from ..depth.depthmap import colourise
from ..depth.metrics import HIGHER_IS_BETTER
from ..depth.protocol import find_protocol
from ..experiment.evaluate import image_encoder, token_row
from ..files import atomic
from .run import Demo, DemoResult
from ..study.neighbours import nearest_words
from ..report.html import HEADINGS, as_png, data_uri, page, shown

COLUMNS = ("abs_rel", "rmse", "log10", "d1", "d2", "d3")
SCENES = 6
WORST = 1.0  # relative error at the dark end of an error map


def write_report(demo: Demo, path: Path) -> None:
    """Write the page to `path`. Raises DepthTokensError where it cannot be written."""
    settings, protocol = demo.settings, find_protocol(demo.settings.protocol)
    parts = [
        f"<h1>Depth words for a frozen CLIP: {html.escape(settings.domain)} scenes</h1>",
        f"<p>{settings.train} training and {settings.test} test scenes of {settings.size[0]}×{settings.size[1]} pixels, rendered for "
        f"seed {settings.seed}. The CLIP that comes with the package stays frozen; a row trains only what its column says.</p>",
        "<h2>Scores on unseen scenes</h2>",
        _table(demo.results),
        f'<p class="small">{html.escape(protocol.describe(demo.test.depth_range, None))}. Mean over {settings.test} images. '
        "<em>constant</em> and <em>mean map</em> never look at the image.</p>",
        f"<h2>{SCENES} test scenes</h2>",
        _pictures(demo),
        "<h2>The nearest words of each learned token (learned-7)</h2>",
        _neighbours(demo),
        f'<p class="small">depthtokens {depthtokens.__version__}, torch {torch.__version__}, Python {platform.python_version()}; '
        f"CLIP {demo.clip.fingerprint[:12]}; {settings.dense} features, logit scale {settings.scale}, "
        f"{settings.epochs} epochs of batch {settings.batch_size}, "
        f"learning rate {settings.lr:g}.</p>",
    ]
    with atomic(path) as file:
        file.write(page("depthtokens demo", parts).encode())


def _table(results: Sequence[DemoResult]) -> str:
    best = {
        key: (max if HIGHER_IS_BETTER[key] else min)(result.scores.quoted[key] for result in results) for key in COLUMNS
    }  # fmt: skip
    longest = max(result.scores.quoted["abs_rel"] for result in results)
    head = "".join(f"<th>{HEADINGS[key]}</th>" for key in COLUMNS)
    rows = []
    for result in results:
        kind = "control" if result.name in ("constant", "mean map") else "learned" if result.trained_parameters else ""
        cells = "".join(
            f"<td>{'<b>' if (value := result.scores.quoted[key]) == best[key] else ''}{value:.3f}</td>" for key in COLUMNS
        )  # fmt: skip
        bar = f'<td class="bar"><div style="width:{100 * result.scores.quoted["abs_rel"] / longest:.1f}%"></div></td>'
        rows.append(f'<tr class="{kind}"><td>{html.escape(result.name)}</td><td>{result.trained_parameters:,}</td>{cells}{bar}</tr>')
    return f"<table><tr><th>row</th><th>trained numbers</th>{head}<th>AbsRel, shorter is better</th></tr>{''.join(rows)}</table>"


def _pictures(demo: Demo) -> str:
    lo, hi = demo.test.depth_range
    protocol, names = find_protocol(demo.settings.protocol), ("depth-7", "learned-7")
    encode = image_encoder(demo.models["learned-7"])
    rows = {name: token_row(demo.models[name]) for name in names}
    titles = ("image", "true depth", "depth-7 (words)", "learned-7", "error of words", "error of learned")
    cells = [f"<div>{title}</div>" for title in titles]
    for index in np.linspace(0, len(demo.test) - 1, SCENES).round().astype(int).tolist():
        rgb, truth = demo.test.read(index)
        image = demo.test[index].image[None]
        encoded, mirrored = encode(image), encode(image.flip(-1))
        size = (truth.shape[0], truth.shape[1])
        found = {name: protocol.full_size(row(encoded), row(mirrored), size, (lo, hi))[0, 0].numpy() for name, row in rows.items()}
        pictures = [rgb, _masked(colourise(truth, lo, hi), truth)]
        pictures += [colourise(found[name], lo, hi) for name in names]
        pictures += [_masked(_error(found[name], truth), truth) for name in names]
        cells += [f'<img alt="{title}" src="{_png(picture)}">' for title, picture in zip(titles, pictures, strict=True)]
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    scales = (
        f'<div class="scale">{lo:g} m <img alt="depth scale" src="{_png(colourise(ramp, 0, 1))}"> {hi:g} m '
        f'&emsp; relative error 0 <img alt="error scale" src="{_png(_error(1 + WORST * ramp, np.ones_like(ramp)))}"> {WORST:g}+</div>'
    )
    return f'{scales}<div class="grid">{"".join(cells)}</div>'


def _error(depth: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Relative error as a picture, white = none."""
    from matplotlib import colormaps

    share = np.clip(np.abs(depth - truth) / np.maximum(truth, 1e-6) / WORST, 0, 1)
    return (colormaps["Reds"](share)[..., :3] * 255).round().astype(np.uint8)


def _masked(picture: NDArray[np.uint8], truth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey where there is no truth."""
    return np.where(truth[..., None] > 0, picture, np.uint8(200))


def _png(picture: NDArray[np.uint8]) -> str:
    return data_uri(as_png(picture))


def _neighbours(demo: Demo) -> str:
    model = demo.models["learned-7"]
    words_known = [index for index, token in trained_tokens().items() if not token.startswith("<")]
    rows: list[str] = []
    for centre, neighbours in zip(model.centres.tolist(), nearest_words(model, words_known), strict=True):
        words = ", ".join(f"{html.escape(shown(n.name))} <span class='small'>{n.distance:.2f}</span>" for n in neighbours)
        rows.append(f'<tr><td>{{depth_{len(rows)}}}</td><td>{centre:.2f} m</td><td style="text-align:left">{words}</td></tr>')
    note = (
        '<p class="small">Euclidean distance between embeddings of the whole prompt; only words that this CLIP has ever seen in training '
        "are candidates, and other learned tokens.</p>"
    )
    return f"<table><tr><th>token</th><th>bin centre</th><th style='text-align:left'>nearest</th></tr>{''.join(rows)}</table>{note}"
