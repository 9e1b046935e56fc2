"""The text tower: prefixes of ordinary words are computed once."""

from __future__ import annotations

import torch

from depthtokens import load_clip
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
