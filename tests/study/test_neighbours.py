"""Nearest words: of a token that is a word, at a position, and in the space of tokens."""

from __future__ import annotations

import json

import pytest

from depthtokens import DepthTokens, UsageError
from depthtokens.data import open_dataset
from depthtokens.study.neighbours import Neighbour, nearest_words


def test_a_token_that_is_a_word_finds_itself(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", init=["red", "close", "far"])
    found = nearest_words(model, ["green", "close", "red", "door"], count=3)
    assert found[0][0].name == "red" and found[0][0].distance == pytest.approx(0, abs=1e-3)
    assert found[1][0].name == "close" and found[1][1].distance > 0.01
    names = [neighbour.name for neighbour in found[2]]
    assert "{depth_2}" not in names and [n.distance for n in found[2]] == sorted(n.distance for n in found[2])


def test_position_7_groups_the_human_scale_as_the_published_table_does(tiny_clip):
    """At position 7 `close` and `distant` are at end-of-text, the other phrases at the word `close` or `distant` that they share."""
    model = DepthTokens(tiny_clip, depth="depth-7")
    at_end = nearest_words(model, ["distant", "far", "close"], count=1)
    assert (at_end[1][0].name, at_end[5][0].name) == ("close", "distant") and at_end[1][0].distance < 1e-5
    at_7 = nearest_words(model, ["distant", "far", "close"], count=2, position=7)
    assert {n.name for n in at_7[0]} == {"{depth_2}", "{depth_3}"} and {n.name for n in at_7[2]} == {"{depth_0}", "{depth_3}"}
    assert (at_7[4][0].name, at_7[6][0].name, at_7[1][0].name, at_7[5][0].name) == ("{depth_6}", "{depth_4}", "close", "distant")


def test_neighbours_in_the_space_of_tokens(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", init=["red", "close", "far"])
    found = nearest_words(model, None, count=2, space="token")
    assert [row[0].name for row in found] == ["red</w>", "close</w>", "far</w>"]
    assert [row[0].distance for row in found] == pytest.approx([0, 0, 0], abs=1e-6)
    table = tiny_clip.text.embedding.weight.detach()
    red, close = (table[tiny_clip.tokenizer.token_id(word)] for word in ("red", "close"))
    among = nearest_words(model, ["red"], count=3, space="token")
    assert {n.name: n.distance for n in among[1]}["{depth_0}"] == pytest.approx((red - close).norm().item(), rel=1e-5)
    human = DepthTokens(tiny_clip, depth=["very close", "far"])
    very = (table[tiny_clip.tokenizer.token_id("very")] + close) / 2
    assert nearest_words(human, ["close"], 2, space="token")[0][0].distance == pytest.approx((very - close).norm().item(), rel=1e-5)
    assert nearest_words(human, ["close", "far"], 1, space="token")[1][0] == Neighbour("far", 0.0)
    with pytest.raises(UsageError, match="the space of tokens has none"):
        nearest_words(model, ["red"], space="token", position=7)
    with pytest.raises(UsageError, match="unknown space of neighbours 'words'"):
        nearest_words(model, ["red"], space="words")


def test_scenes_by_name_on_the_command_line(tmp_path, monkeypatch, capsys):
    from depthtokens.cli import main

    main(["data", "scenes", str(tmp_path / "rooms"), "--count", "5", "--size", "48", "64", "--json"])
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "rooms"), "train": 5, "test": 1}
    main(["data", "check", f"folder:{tmp_path / 'rooms'}", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["sizes"] == {"48x64": 5} and 0.5 <= report["depth_min"] < report["depth_max"] <= 10
    with pytest.raises(SystemExit) as stop:
        main(["data", "scenes", str(tmp_path / "rooms")])
    assert stop.value.code == 2 and "not an empty folder" in capsys.readouterr().err


def test_scenes_are_a_data_set_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path))
    monkeypatch.setattr("depthtokens.scenes.dataset.SCENES", {"train": 4, "test": 3})
    train, test = open_dataset("scenes:road", "train", augment=True, crop=(96, 128)), open_dataset("scenes", "test")
    assert train.depth_range == (2.0, 80.0) and train[0].image.shape == (3, 96, 128)
    assert test.depth_range == (0.5, 10.0) and test[0].image.shape == (3, 208, 272) and len(test) == 3
