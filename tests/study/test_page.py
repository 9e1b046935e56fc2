"""The page: whole, in one file, with every section and row."""

from __future__ import annotations

import html
import json
import re

import torch

from depthtokens import DepthTokens, load_clip
from depthtokens.report.html import _environment, fragment, shown
from depthtokens.study.page import SECTIONS, neighbours_section, study_page
from depthtokens.study.run import run_study
from depthtokens.study.settings import StudySettings


def test_the_page_is_whole_and_needs_nothing_else(studied):
    page = (studied / "report.html").read_text()
    assert not re.search(r"(src|href)=.(?!data:)", page) and "http" not in page
    # distances, path, single changes, pairs, two heat maps, words
    assert page.count("data:image/png;base64,") == 7
    for heading in ("Nearest neighbours", "How the tokens lie", "What each token is worth", "Which patches", "How far words can go"):
        assert f"<h2>{heading}" in page
    rows = json.loads((studied / "study.json").read_text())["scores"]
    for row in rows:
        assert f"{row['mean_over_images']['abs_rel']['mean']:.3f}" in page and row["name"].replace("</w>", "") in html.unescape(page)
    for tag in ("p", "table", "tr", "td", "details", "div"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert {path.name for path in studied.iterdir()} - {".lock"} == {"report.html", "study.json", "scores.csv", "neighbours.csv"}


def test_fragments_are_told_from_words():
    assert [shown(name) for name in ("far</w>", "far", "{depth_2}", "<end_of_text>", "{")] == [
        "far",
        "far-",
        "{depth_2}",
        "<end_of_text>",
        "{-",
    ]
    assert shown("far", fragments=False) == "far" and [shown("âĸ¶ï¸ı</w>"), shown("é</w>"), shown("âĸ")] == ["▶️", "é", "âĸ-"]
    clip = load_clip("bundled")
    model = DepthTokens(clip, depth="learned:2")
    encoder = clip.tokenizer.tokenizer.encoder
    with torch.no_grad():
        model.tokens["depth"].copy_(clip.text.embedding.weight[[encoder["far"], encoder["far</w>"]]])
    study = run_study(model, StudySettings(scales=(), trained_vocabulary_only=True, neighbours=1))
    found = fragment("study/neighbours.html", **neighbours_section(study))
    nearest = [re.split("[ <]", row.split('class="words">')[2])[0] for row in found.split("<tr>")[2:]]
    assert nearest == ["far-", "far"]


def test_whatever_stands_in_a_prompt_is_text(tiny_clip, model_of):
    """Words are what a user writes: none of them is markup."""
    model = model_of(tiny_clip, depth=["<b>near</b>", "far & away", "'very' far"])
    text = study_page(run_study(model, StudySettings(scales=())), "<i>tokens</i>")
    assert "<b>near" not in text and "<i>tokens" not in text and "far &amp; away" in text
    assert "<b>near</b>, far & away, 'very' far" in html.unescape(text)


def test_every_section_has_its_template():
    templates = {name for name in _environment().list_templates() if name.startswith("study/")}
    assert templates == set(SECTIONS)
