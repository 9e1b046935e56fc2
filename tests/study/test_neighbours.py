"""Fitting on stored features, nearest words, and the demonstration's machinery."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, UsageError
from depthtokens.data import open_dataset
from depthtokens.prompt.scales import Token
from depthtokens.study.neighbours import Neighbour, features_at, nearest_words, vocabulary_entries, vocabulary_features


def test_a_token_that_is_a_word_finds_itself(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:3", init=["red", "close", "far"])
    found = nearest_words(model, ["green", "close", "red", "door"], count=3)
    assert found[0][0].name == "red" and found[0][0].distance == pytest.approx(0, abs=1e-3)
    assert found[1][0].name == "close" and found[1][1].distance > 0.01
    names = [neighbour.name for neighbour in found[2]]
    assert "{depth_2}" not in names and [n.distance for n in found[2]] == sorted(n.distance for n in found[2])


def test_the_vocabulary_is_what_the_encoder_gives_word_by_word(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    names, features = vocabulary_features(encoder, tokens=["close", "far", 320, "inian"], chunk=3)
    plain = [["This object appears to be", Token("close")], ["This object appears to be", Token("far")]]
    assert names == ["close", "far", "a</w>", "inian"] and features.dtype == torch.float32
    assert torch.allclose(features[:2], F.normalize(encoder(plain), dim=-1), atol=1e-6)
    assert torch.allclose(features[2], F.normalize(encoder(["This object appears to be a"]), dim=-1)[0], atol=1e-6)
    assert torch.allclose(features.norm(dim=1), torch.ones(4))
    entries, ids = vocabulary_entries(tiny_clip.tokenizer)
    assert len(entries) == 49408 and ids == list(range(49408)) and entries[320] == "a</w>"
    assert vocabulary_entries(tiny_clip.tokenizer, [ids[entries.index("black")], "black"])[1][0] == entries.index("black")
    with pytest.raises(UsageError, match="no entry 49408"):
        vocabulary_entries(tiny_clip.tokenizer, [49408])


def test_the_vocabulary_in_a_template_with_learned_context(tiny_clip):
    model = DepthTokens(tiny_clip, template="1o2d", depth=["close", "far"])
    _, features = vocabulary_features(model.encoder, "1o2d", ["close", "far"], context=model.tokens["context"])
    assert torch.allclose(features, model.text_features(), atol=1e-6)
    with pytest.raises(UsageError, match="has 3 {ctx} slots"):
        vocabulary_features(model.encoder, "1o2d", ["close"])


def test_features_at_a_position_are_those_of_the_whole_sequence(tiny_clip):
    """Against open_clip itself: all 77 positions, read at `position` instead of at end-of-text."""
    model = DepthTokens(tiny_clip, depth="depth-7")
    ids = tiny_clip.tokenizer.tokenizer([f"This object appears to be {word}" for word in model.words])
    tower = tiny_clip.model
    hidden = tower.ln_final(tower.transformer(tower.token_embedding(ids) + tower.positional_embedding, attn_mask=tower.attn_mask))
    for position in (0, 3, 6, 7, 9, 30):
        with torch.no_grad():
            found = features_at(model.encoder, model.layout, position)
        assert torch.allclose(found, hidden[:, position] @ tower.text_projection, atol=1e-5), position
    with pytest.raises(UsageError, match="positions 0 to 76"):
        features_at(model.encoder, model.layout, 77)


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
