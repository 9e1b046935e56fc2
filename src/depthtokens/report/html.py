"""Pages: what all of them share. Templates hold every piece of markup and escape what is put into them; a page is one file."""

from __future__ import annotations

import base64
import io
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"


def page(template: str, **context: Any) -> str:
    """A whole page, with nothing that is not inside it.

    Args:
        template: a file of `report/templates` that extends "base.html", such as "demo.html".
        context: what it names. Text is escaped; what `fragment` gives is not.

    Raises:
        jinja2.UndefinedError: where the template names something that the context lacks.
    """
    return _environment().get_template(template).render(context)


def fragment(template: str, **context: Any) -> Markup:
    """A part of a page, such as one section, to be put into another template.

    Args:
        template: a file of `report/templates`, such as "study/neighbours.html".
        context: as for `page`.

    Raises:
        jinja2.UndefinedError: as `page`.
    """
    return Markup(page(template, **context))


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file.

    Args:
        pixels: uint8 [H, W, 3].
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds it. In templates it is a filter: `{{ png|data_uri }}`."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def shown(token: str, fragments: bool = True) -> str:
    """A vocabulary entry for a reader. In templates it is a filter: `{{ name|shown(fragments) }}`.

    Args:
        token: as the vocabulary calls it ("close</w>"), a special token, or "{depth_3}".
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
def _environment() -> Environment:
    """The templates, and the filters that they may use."""
    environment = Environment(
        loader=PackageLoader("depthtokens.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters |= {"data_uri": data_uri, "shown": shown}
    return environment


@cache
def _byte_of() -> dict[str, int]:
    """Which byte each letter of the BPE vocabulary stands for."""
    from open_clip.tokenizer import bytes_to_unicode

    return {letter: byte for byte, letter in bytes_to_unicode().items()}
