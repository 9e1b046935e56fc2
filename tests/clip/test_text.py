"""The text tower: prefixes of ordinary words are computed once."""

from __future__ import annotations

import sys

import open_clip
import pytest
import torch

from depthtokens import WeightsError, load_clip
from depthtokens.clip.load import FrozenCLIP
from helpers import make_model as make


def test_prefixes_are_computed_once(tiny_file, monkeypatch):
    clip = load_clip(str(tiny_file))
    calls = []
    monkeypatch.setattr(clip.text, "prefix_states", lambda *a, f=clip.text.prefix_states: calls.append(1) or f(*a))
    with torch.inference_mode():
        before = make(clip).text_features()
    model = make(clip)
    model.text_features().sum().backward()  # what inference mode left behind can be trained on
    assert len(calls) == 1 and torch.equal(before, model.text_features())
    context = make(clip, template="1o1d")
    context.text_features()
    context.text_features()
    assert len(calls) == 3  # learned prefixes change


def test_the_extra_is_named_where_it_is_missing(tiny_model, monkeypatch, message):
    """Tokenizers and text models of Hugging Face need transformers; and where that is there, the hub."""
    siglip = FrozenCLIP(tiny_model, "tiny", None, "ViT-B-16-SigLIP")

    def refusals():
        with pytest.warns(UserWarning, match="random weights"):
            return message(lambda: siglip.tokenizer, WeightsError), message(lambda: load_clip("nllb-clip-base", None), WeightsError)

    starts = ("the tokenizer of tiny cannot be had: ", "cannot make nllb-clip-base: ")
    for found, start in zip(refusals(), starts, strict=True):
        assert found.startswith(start) and "pip" not in found
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(open_clip.hf_model, "transformers", None)
    for found, start in zip(refusals(), starts, strict=True):
        assert found == f"{start}it needs the package transformers: pip install 'depthtokens[hf]'"
