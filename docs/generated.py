"""What the site shows and nobody writes by hand: figures of the method, pictures of tokens, the table of CLIP models.

The picture in the figures is a rendered scene, seen by the bundled CLIP and the tokens that come with the package.
"""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import depthtokens as dt
from depthtokens.clip.models import find_models
from depthtokens.demo import TOKENS
from depthtokens.depth.depthmap import colourise
from depthtokens.depth.metrics import METRICS
from depthtokens.study.geometry import pairwise, path
from depthtokens.study.plots import distance_map, map_plot, path_plot

INK, SOFT, LINE = "#1f2933", "#5b6770", "#9aa5b1"
FROZEN, LEARNED, PLAIN = "#e3eef9", "#ffe2c2", "#f2f4f6"
SEED = 900
"""Of the scenes of which one is shown; nothing was trained on them."""


class Drawing:
    """An SVG picture, put together from boxes, arrows, text and pictures; all lengths in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            'font-family="system-ui, Helvetica, Arial, sans-serif">',
            f"<title>{escape(title)}</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 10 5 0 10z" fill="{SOFT}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
        ]

    def text(
        self, x: float, y: float, line: str, size: int = 15, colour: str = INK, anchor: str = "middle", weight: str = "normal"
    ) -> None:
        """One line of text, its baseline at y."""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}">{escape(line)}</text>'
        )

    def box(self, x: float, y: float, width: float, height: float, *lines: str, fill: str = PLAIN, size: int = 15) -> None:
        """A box with lines of text in its middle, the first in bold."""
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="{LINE}"/>')
        top = y + height / 2 - (len(lines) - 1) * size * 0.65 + size * 0.35
        for i, line in enumerate(lines):
            weight = "bold" if i == 0 and len(lines) > 1 else "normal"
            self.text(x + width / 2, top + i * size * 1.3, line, size if i == 0 else size - 2, INK if i == 0 else SOFT, weight=weight)

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through points, with a tip at its end."""
        line = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(f'<polyline points="{line}" fill="none" stroke="{SOFT}" stroke-width="1.8" marker-end="url(#tip)"/>')

    def picture(self, x: float, y: float, width: float, height: float, image: Image.Image) -> None:
        """A picture, its pixels left as they are."""
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        self.parts.append(
            f'<image x="{x}" y="{y}" width="{width}" height="{height}" image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
        )

    def save(self, file: Path) -> None:
        """Write the picture."""
        file.write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


def write(folder: Path) -> None:
    """Write all of it into a folder; files that are there already are left, since they depend on the code alone.

    Args:
        folder: made where it is not there. Delete it to have everything drawn anew.
    """
    if (folder / "models.md").is_file():
        return
    folder.mkdir(exist_ok=True)
    model = dt.DepthTokens.load(TOKENS)
    scenes = dt.Scenes("indoor", "test", 12, seed=SEED)
    shown = max(range(len(scenes)), key=lambda index: float(np.median(scenes.truth(index))))  # the deepest, so that most tokens speak
    photo = scenes.read(shown)[0]
    with torch.no_grad():
        out = model(scenes[shown].image[None])
    pipeline(folder / "pipeline.svg", photo, out.depth[0, 0], out.probs[0], model)
    encoder(folder / "encoder.svg")
    labels = [f"token {i}" for i in range(len(model.centres))]
    features = model.text_features().detach()
    (folder / "distances.png").write_bytes(distance_map(pairwise(features), labels))
    (folder / "path.png").write_bytes(path_plot(path(features, model.centres), model.centres, labels))
    (folder / "maps.png").write_bytes(map_plot(photo, out.probs[0], model.centres, labels))
    (folder / "metrics.md").write_text(metrics(), encoding="utf-8")
    (folder / "models.md").write_text(models(), encoding="utf-8")


def pipeline(file: Path, photo: np.ndarray, depth: torch.Tensor, probs: torch.Tensor, model: dt.DepthTokens) -> None:
    """How prompts and patches become depth, for the scene that is shown."""
    lo, hi = float(depth.min()), float(depth.max())
    draw = Drawing(1080, 430, "From prompts and an image to a depth map")
    centres = [f"{centre:.1f} m" for centre in model.centres]
    # The language side.
    draw.text(130, 28, "one prompt for each depth bin", 14, SOFT)
    for i, y in enumerate((40, 68, 124)):
        last = len(centres) - 1
        draw.box(15, y, 230, 24, f"This object appears to be [v{last if i == 2 else i}]", fill=LEARNED, size=13)
    draw.text(130, 113, "⋮", 18, SOFT)
    draw.arrow((250, 95), (292, 95))
    draw.box(297, 60, 150, 70, "Text tower", "frozen", fill=FROZEN)
    draw.arrow((452, 95), (502, 95))
    draw.box(507, 60, 130, 70, "T", f"[{len(centres)} prompts, C]")
    # The image side.
    draw.picture(15, 238, 196, 150, Image.fromarray(photo))
    draw.text(113, 410, "image [H, W]", 14, SOFT)
    draw.arrow((218, 313), (292, 313))
    draw.box(297, 278, 150, 70, "Image tower", "frozen, not pooled", fill=FROZEN)
    draw.arrow((452, 313), (502, 313))
    draw.box(507, 278, 130, 70, "F", "[h · w patches, C]")
    # Where they meet.
    draw.arrow((572, 135), (572, 176))
    draw.arrow((572, 273), (572, 236))
    draw.box(487, 180, 170, 52, "softmax( s · F Tᵀ )", "over the bins")
    draw.arrow((662, 206), (702, 206))
    width, height = 58, 44
    for i in range(len(centres)):
        grey = Image.fromarray((255 * (1 - probs[i])).byte().numpy())
        x, y = 710 + (i % 2) * (width + 50), 58 + (i // 2) * (height + 28)
        draw.picture(x, y, width, height, grey)
        draw.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="{LINE}"/>')
        draw.text(x + width / 2, y + height + 14, centres[i], 12, SOFT)
    draw.text(765, 40, "where each word is said", 14, SOFT)
    draw.arrow((885, 206), (925, 206))
    draw.text(905, 194, "Σ p · c", 14)
    coarse = Image.fromarray(colourise(depth.numpy(), lo, hi))
    draw.picture(930, 156, 130, 100, coarse)
    draw.text(995, 144, "depth [h, w], metres", 14, SOFT)
    draw.arrow((995, 262), (995, 296))
    draw.text(985, 284, "bilinear", 13, SOFT, "end")
    draw.picture(930, 302, 130, 100, coarse.resize((photo.shape[1], photo.shape[0]), Image.Resampling.BILINEAR))
    draw.text(995, 420, "depth [H, W]", 14, SOFT)
    draw.parts.append(f'<rect x="300" y="395" width="16" height="16" fill="{LEARNED}" stroke="{LINE}"/>')
    draw.text(324, 408, "learned: the vectors v, nothing else", 13, SOFT, "start")
    draw.parts.append(f'<rect x="600" y="395" width="16" height="16" fill="{FROZEN}" stroke="{LINE}"/>')
    draw.text(624, 408, "CLIP, frozen", 13, SOFT, "start")
    draw.save(file)


def encoder(file: Path) -> None:
    """The text tower with a learned vector put in behind the look-up of tokens."""
    draw = Drawing(1080, 470, "The text tower with a learned vector in the prompt")
    words = ["<start>", "this", "object", "appears", "to", "be", "{depth}", "<end>"]
    step, left, width = 104, 150, 92
    for i, word in enumerate(words):
        x, learned = left + i * step, word == "{depth}"
        middle = x + width / 2
        draw.box(x, 420, width, 32, word, fill=LEARNED if learned else PLAIN, size=14)
        if learned:
            draw.box(x - 4, 290, width + 8, 50, "v", "put in here", fill=LEARNED, size=15)
            draw.text(middle, 372, "no look-up", 13, SOFT)
        else:
            draw.arrow((middle, 416), (middle, 388))
            draw.box(x, 354, width, 30, "look-up", fill=FROZEN, size=13)
            draw.arrow((middle, 350), (middle, 322))
            draw.box(x, 290, width, 28, "embedding", size=13)
        draw.arrow((middle, 286), (middle, 262))
        draw.box(x, 230, width, 28, f"+ position {i}", fill=FROZEN, size=13)
        draw.arrow((middle, 226), (middle, 202))
    right = left + len(words) * step - (step - width)
    cut = "frozen; nothing behind <end> reaches it, so the prompt is cut there"
    draw.box(left, 130, right - left, 68, "Transformer, causal", cut, fill=FROZEN)
    last = right - width / 2
    draw.arrow((last, 126), (last, 98))
    draw.box(last - 122, 50, 168, 44, "norm, projection", "frozen", fill=FROZEN, size=14)
    draw.arrow((last - 126, 72), (left + 548, 72))
    draw.box(left + 300, 46, 244, 52, "text feature of this bin", "[C], L2-normalised: a row of T", size=14)
    for y, line in ((440, "prompt"), (372, "vocabulary"), (310, "vectors"), (248, "positions")):
        draw.text(140, y, line, 13, SOFT, "end")
    draw.text(20, 30, "Words that all prompts share are computed once; each bin pays for its own last positions.", 14, SOFT, "start")
    draw.save(file)


def metrics() -> str:
    """The metrics there are, as Markdown."""
    lines = ["| name | label | unit | better |", "|---|---|---|---|"]
    for name, metric in METRICS.items():
        lines.append(f"| `{name}` | {metric.label} | {metric.unit or ''} | {'higher' if metric.higher_is_better else 'lower'} |")
    return "\n".join(lines) + "\n"


def models() -> str:
    """What `depthtokens models` prints, as Markdown."""
    lines = ["| model | `--weights` | stride | C | width | `--dense`, the default first |", "|---|---|---:|---:|---:|---|"]
    for model in find_models():
        tags = ", ".join(f"`{tag}`" for tag in model.tags) or "none published"
        dense = ", ".join(f"`{mode}`" for mode in model.dense)
        lines.append(f"| `{model.name}` | {tags} | {model.stride} | {model.channels} | {model.width or ''} | {dense} |")
    return "\n".join(lines) + "\n"
