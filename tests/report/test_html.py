"""Pages: escaped, whole, in one file; pictures and vocabulary entries as a reader sees them."""

from __future__ import annotations

import base64
import io
from importlib import resources

import numpy as np
import pytest
from jinja2 import ChoiceLoader, DictLoader, UndefinedError
from PIL import Image

from depthtokens.report import html
from depthtokens.report.html import as_png, data_uri, fragment, page, shown


@pytest.fixture
def templates(monkeypatch):
    """Templates of a test beside those of the package."""

    def add(**named):
        environment = html._environment()
        loader = ChoiceLoader([DictLoader({f"{name}.html": text for name, text in named.items()}), environment.loader])
        monkeypatch.setattr(environment, "loader", loader)

    return add


def test_what_is_put_in_is_escaped(templates):
    templates(
        whole='{% extends "base.html" %}{% block title %}{{ said }}{% endblock %}{% block body %}{{ part }}{{ said }}{% endblock %}',
        part='<i title="{{ said }}">{{ said }}</i>',
    )
    said = '<script>alert(\'"&")</script>'
    text = page("whole.html", said=said, part=fragment("part.html", said=said))
    safe = "&lt;script&gt;alert(&#39;&#34;&amp;&#34;)&lt;/script&gt;"
    assert f"<title>{safe}</title>" in text and f'<i title="{safe}">{safe}</i>{safe}' in text and "<script" not in text
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>") and "http" not in text


def test_what_is_missing_is_an_error(templates):
    templates(whole="{{ nothing }}")
    with pytest.raises(UndefinedError, match="nothing"):
        page("whole.html")


def test_templates_are_part_of_the_package():
    names = {entry.name for entry in resources.files("depthtokens.report").joinpath("templates").iterdir()}
    assert {"base.html", "macros.html", "demo.html", "reproduction.html"} <= names


@pytest.mark.parametrize("name", html._environment().list_templates())
def test_every_template_can_be_read(name):
    assert html._environment().get_template(name)


def test_pictures(templates):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 5, 3), dtype=np.uint8)
    png = as_png(pixels)
    assert np.array_equal(Image.open(io.BytesIO(png)), pixels)
    assert base64.b64decode(data_uri(png).removeprefix("data:image/png;base64,")) == png
    templates(one='{% from "macros.html" import picture %}{{ picture(png, "a \\"b\\"", "plot") }}{{ picture(png, "") }}')
    assert fragment("one.html", png=png) == (
        f'<img class="plot" alt="a &#34;b&#34;" src="{data_uri(png)}"><img alt="" src="{data_uri(png)}">'
    )


def test_vocabulary_entries_for_a_reader(templates):
    assert shown("close</w>") == "close" and shown("clo") == "clo-" and shown("{depth_3}") == "{depth_3}"
    assert shown("<end_of_text>") == "<end_of_text>" and shown("clo", fragments=False) == "clo"
    assert shown("âĤ¬</w>") == "€" and shown("âĤ</w>") == "âĤ"  # part of a character stays
    from depthtokens.study.neighbours import Neighbour

    templates(near='{% from "macros.html" import neighbours %}{{ neighbours(found, digits=2) }}|{{ neighbours(found[:1], false) }}')
    found = [Neighbour("<b</w>", 0.125), Neighbour("far", 1.0)]
    assert fragment("near.html", found=found) == (
        '&lt;b <span class="ci">0.12</span>, far- <span class="ci">1.00</span>|&lt;b&lt;/w&gt; <span class="ci">0.125</span>'
    )
