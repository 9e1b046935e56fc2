"""The vocabulary in a template: as the encoder gives it word by word, and as open_clip itself reads other positions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, PromptEncoder, UsageError
from depthtokens.prompt.scales import Token
from depthtokens.study.vocabulary import features_at, vocabulary_entries, vocabulary_features


def test_the_vocabulary_is_what_the_encoder_gives_word_by_word(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    names, features = vocabulary_features(encoder, tokens=["close", "far", 320, "inian"], chunk=3)
    plain = [["This object appears to be", Token("close")], ["This object appears to be", Token("far")]]
    assert names == ["close", "far", "a</w>", "inian"] and features.dtype == torch.float32
    assert torch.allclose(features[:2], F.normalize(encoder(plain), dim=-1), atol=1e-6)
    assert torch.allclose(features[2], F.normalize(encoder(["This object appears to be a"]), dim=-1)[0], atol=1e-6)
    assert torch.allclose(features.norm(dim=1), torch.ones(4))
    entries, ids = vocabulary_entries(tiny_clip)
    assert len(entries) == 49408 and ids == list(range(49408)) and entries[320] == "a</w>"
    assert vocabulary_entries(tiny_clip, [ids[entries.index("black")], "black"])[1][0] == entries.index("black")
    with pytest.raises(UsageError, match="no entry 49408"):
        vocabulary_entries(tiny_clip, [49408])


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
