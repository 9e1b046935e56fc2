"""Tokenizers of every kind: what stands around words, and which ids a piece of a text gets."""

from __future__ import annotations

import pytest
from open_clip.tokenizer import HFTokenizer

from depthtokens import UsageError
from depthtokens.clip.tokenizer import Tokenizer
from vocabularies import make_tokenizer


def read(kind, folder, **settings):
    make_tokenizer(kind, folder)
    return Tokenizer.of(HFTokenizer(str(folder), context_length=12, **settings))


@pytest.mark.parametrize(("kind", "settings", "around"), [
    ("bert", {}, (["[CLS]"], ["[SEP]"], "[PAD]", [])),
    ("bert", {"strip_sep_token": True}, (["[CLS]"], ["[PAD]"], "[PAD]", [])),
    ("clips", {"tokenizer_mode": "clips"}, (["[unused0]"], ["[unused1]"], "[PAD]", ["[CLS]"])),
    ("roberta", {}, (["<s>"], ["</s>"], "<pad>", [])),
    ("xlm", {}, (["<s>"], ["</s>"], "<pad>", [])),
    ("t5", {}, ([], ["</s>"], "<pad>", [])),
    ("siglip", {"clean": "canonicalize"}, ([], ["</s>"], "</s>", [])),
    ("gemma", {}, ([], ["<eos>"], "<pad>", [])),
    ("nllb", {}, (["eng_Latn"], ["</s>"], "<pad>", [])),
])  # fmt: skip
def test_what_stands_around_words(kind, settings, around, tmp_path):
    tokenizer = read(kind, tmp_path, **settings)
    inner = tokenizer.tokenizer.tokenizer
    found = [inner.convert_ids_to_tokens(list(ids)) for ids in (tokenizer.start, tokenizer.end, (tokenizer.pad,), tokenizer.closing)]
    assert found == [around[0], around[1], [around[2]], around[3]]
    ids = [*tokenizer.start, *tokenizer.ids("a close ball", first=True), *tokenizer.end]
    ids += [tokenizer.pad] * (12 - len(ids) - len(tokenizer.closing)) + list(tokenizer.closing)
    assert ids == tokenizer.tokenizer(["a close ball"])[0].tolist()
    assert tokenizer.stand_in not in (tokenizer.pad, *tokenizer.end, *tokenizer.closing)


def test_pieces_and_entries(tmp_path):
    tokenizer = read("roberta", tmp_path)
    assert tokenizer.ids("close") == [tokenizer.token_id("close")] == [tokenizer.token_id("Ġclose")] != tokenizer.ids("close", first=True)
    assert tokenizer.ids("a small", first=True) + tokenizer.ids("red ball") == tokenizer.ids("a small red ball", first=True)
    assert tokenizer.token_id("x") == tokenizer.vocabulary()["x"]  # a fragment
    assert tokenizer.ids("") == tokenizer.ids(" ") == []
    for unknown in ("very close", "zebra", ""):
        with pytest.raises(UsageError, match="not a single token"):
            tokenizer.token_id(unknown)


def test_tokenizers_that_cannot_be_followed(tmp_path):
    make_tokenizer("bert", tmp_path)
    for settings in ({"padding_side": "left"}, {"tokenizer_mode": "other"}, {"tokenizer_mode": "clips"}):
        with pytest.raises(UsageError, match="fills up texts in a way"):
            Tokenizer.of(HFTokenizer(str(tmp_path), **settings))
