"""What the HTML pages share: one look, tables, pictures; everything inside one file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray
from open_clip.tokenizer import bytes_to_unicode
from PIL import Image

from ..depth.metrics import HIGHER_IS_BETTER

HEADINGS = {"abs_rel": "AbsRel", "rmse": "RMSE (m)", "log10": "log10", "d1": "δ &lt; 1.25", "d2": "δ &lt; 1.25²", "d3": "δ &lt; 1.25³"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
tr.control td { color: #777; } tr.learned td:first-child { font-weight: 600; }
td.bar { width: 26%; text-align: left; } td.bar div { height: .8rem; background: #b8b8c8; } tr.learned td.bar div { background: #7b2d8b; }
tr.control td.bar div { background: #dcdcdc; }
.grid { display: grid; grid-template-columns: repeat(6, 1fr); gap: 4px; } .grid img { width: 100%; display: block; }
.grid div { font-size: .8rem; color: #555; text-align: center; }
.scale { display: flex; align-items: center; gap: .5rem; font-size: .85rem; margin: .5rem 0; } .scale img { height: .8rem; width: 16rem; }
code { background: #f3f3f3; padding: .1rem .3rem; } .small { font-size: .85rem; color: #555; }
td.words, th.words { text-align: left; } .says { border-left: 4px solid #7b2d8b; padding: .2rem .8rem; background: #f8f4f9; }
img.plot { max-width: 100%; display: block; margin: 1rem auto; } summary { cursor: pointer; margin: .6rem 0; }
.wide { overflow-x: auto; } table.narrow { width: auto; } .ci { color: #777; font-size: .8rem; white-space: nowrap; }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts that are HTML already; title is text."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f"{head}{''.join(parts)}</html>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 0, kinds: Sequence[str] = (), narrow: bool = False) -> str:
    """A table of cells that are HTML already; the last `words` columns hold text, and kinds are the rows' classes, if any.

    narrow: as wide as what is in it, not as the page.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        first = len(row) - words
        return "".join(f"<{tag} class='words'>{cell}</{tag}>" if i >= first else f"<{tag}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr class='{kinds[i] if kinds else ''}'>{cells('td', row)}</tr>" for i, row in enumerate(rows))
    return f"<div class='wide'><table{' class=narrow' if narrow else ''}><tr>{cells('th', columns)}</tr>{body}</table></div>"


def picture(png: bytes, alt: str, kind: str = "") -> str:
    """A picture inside the page."""
    described = f' class="{kind}"' if kind else ""
    return f'<img{described} alt="{html.escape(alt)}" src="{data_uri(png)}">'


def data_uri(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Pixels [H, W, 3] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def shown(token: str, fragments: bool = True) -> str:
    """A vocabulary entry for a reader, as text.

    fragments: whether the vocabulary is CLIP's BPE, which writes bytes as letters of its own and marks where a word ends: words then
    come out as they are, and fragments with a dash where they go on.
    """
    if not fragments or token.startswith("{depth_") or token in ("<start_of_text>", "<end_of_text>"):
        return token
    letters = token.removesuffix("</w>")
    with suppress(KeyError, UnicodeDecodeError):  # part of a character stays as the vocabulary writes it
        letters = bytes(_byte_of()[letter] for letter in letters).decode()
    return letters if token.endswith("</w>") else f"{letters}-"


@cache
def _byte_of() -> dict[str, int]:
    """Which byte each letter of the BPE vocabulary stands for."""
    return {letter: byte for byte, letter in bytes_to_unicode().items()}


def arrow(metric: str) -> str:
    """Which way a metric is better."""
    return "↑" if HIGHER_IS_BETTER[metric] else "↓"
