"""What objects show of themselves: short, safe for a terminal and a page, and made of nothing slow."""

from __future__ import annotations

import io
from html import escape

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DepthTokens, NYUv2, evaluate
from depthtokens.depth.depthmap import PICTURE, DepthMap
from depthtokens.depth.metrics import METRICS
from depthtokens.features.store import FeatureStore
from depthtokens.summary import Summarised, Summary
from helpers import make_model, photo
from stores import make


@pytest.fixture(scope="module")
def shown(tiny_clip, nyu_tree, tmp_path_factory):
    """One of each kind."""
    model, data = make_model(tiny_clip), NYUv2(nyu_tree, split="test")
    folder = tmp_path_factory.mktemp("store") / "store"
    make(tiny_clip, data, folder)
    return {
        "model": model, "words": DepthTokens(tiny_clip, depth="depthclip", bins="depthclip"), "clip": tiny_clip, "data": data,
        "depth": model.predict(photo(64, 96)), "scores": evaluate(model, data, workers=0), "store": FeatureStore(folder),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["model", "words", "clip", "data", "depth", "scores", "store"])
def test_a_screenful(shown, kind):
    text, page = repr(shown[kind]), shown[kind]._repr_html_()
    lines = text.splitlines()
    assert 3 <= len(lines) <= 24 and all(len(line) <= 150 for line in lines), text
    assert type(shown[kind]).__name__ in lines[0] and "object at 0x" not in text
    assert all(row[0] in text and escape(row[0]) in page for row in shown[kind].summary().cells()) and page.count("<table>") == 1


def test_what_is_said(shown):
    assert "learned:5" in repr(shown["model"]) and "depth [5, 64]" in repr(shown["model"]) and "float32 on cpu" in repr(shown["model"])
    assert "giant, extremely close" in repr(shown["words"]) and "none" in repr(shown["words"])
    assert "DepthMap 64x96" in repr(shown["depth"]) and "5 in 2x3 patches" in repr(shown["depth"])
    assert "3 images" in repr(shown["data"]) and "3 images" in repr(shown["store"]) and shown["clip"].fingerprint in repr(shown["clip"])
    scores = shown["scores"]
    assert all(metric.heading in repr(scores) for metric in METRICS.values()) and f"{scores.image_wise['abs_rel']:.3f}" in repr(scores)


def test_a_map_is_a_picture(shown):
    depth = shown["depth"]
    with Image.open(io.BytesIO(depth._repr_png_())) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(depth.colour()))
    assert 'src="data:image/png;base64,iVBOR' in depth._repr_html_()
    large = np.tile(np.linspace(1, 9, 3 * PICTURE, dtype=np.float32), (70, 1))
    large = DepthMap(large, large, np.ones((1, 1, 1), np.float32), (0.1, 10.0), np.zeros((*large.shape, 3), np.uint8))
    with Image.open(io.BytesIO(large._repr_png_())) as picture:
        assert picture.size == (PICTURE, 24)


def test_what_others_wrote_is_text():
    class Thing(Summarised):
        def summary(self):
            return Summary("<b>\x1b[31m", [("<script>", "line\nline\x07"), ("long", "x" * 1000)])

    assert repr(Thing()).splitlines()[:2] == ["<b>\\x1b[31m", "  <script>  line line\\x07"] and len(repr(Thing())) < 300
    page = Thing()._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_modules_are_shown_within_others(shown):
    assert "DepthTokens on" in repr(torch.nn.Sequential(shown["model"]))
