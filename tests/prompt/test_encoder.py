"""Prompts of words and vectors: gradients, layouts, and what is refused; `test_texts` has every kind of text tower."""

from __future__ import annotations

import copy

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depthtokens import PromptEncoder, UsageError
from depthtokens.clip.load import FrozenCLIP
from depthtokens.prompt.encoder import joined
from depthtokens.prompt.scales import Token
from helpers import TINY_CONFIG


def test_gradients_equal_those_of_the_full_pass(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    torch.manual_seed(0)
    context, depth = 0.1 * torch.randn(2, 64), 0.1 * torch.randn(5, 64)

    def prompts(c, d):
        return [[c[:1], "object", c[1:], d[i], "today" if i % 2 else "in the far corner"] for i in range(5)]

    results = []
    for causal in (True, False):
        c, d = context.clone().requires_grad_(), depth.clone().requires_grad_()
        tiny_clip.text.causal = causal
        try:
            features = encoder(prompts(c, d))
        finally:
            tiny_clip.text.causal = True
        weights = torch.linspace(-1, 1, features.numel()).reshape(features.shape)
        (features * weights).sum().backward()
        results.append((features.detach(), c.grad, d.grad))
    for fast, full in zip(*results, strict=True):
        assert torch.allclose(fast, full, atol=1e-5, rtol=1e-4)
    assert not any(p.requires_grad for p in tiny_clip.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tiny_clip, dtype):
    encoder = PromptEncoder(tiny_clip)
    vector = (0.02 * torch.randn(64)).requires_grad_()
    exact = encoder([["a", vector], "a door"]).detach()
    with torch.autocast("cpu", dtype=dtype):
        features = encoder([["a", vector], "a door"])
    assert torch.nn.functional.cosine_similarity(features.float(), exact).min() > 0.99
    features.float().sum().backward()
    assert torch.isfinite(vector.grad).all()
    tiny_clip.text._kept.clear()
    with torch.autocast("cpu", dtype=dtype):
        encoder(["a door"])
    assert torch.allclose(encoder([["a", vector], "a door"]), exact, atol=1e-6)  # what was kept is not of half precision


def test_layout_carries_the_end_and_gives_vectors_no_ids(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    layout = encoder.layout([["This object is", 0], ["This object is", 1, "far"]])
    assert layout.end.tolist() == [5, 6]
    assert layout.shared == 4
    assert layout.slots.tolist() == [[-1, -1, -1, -1, 0, -1, -1], [-1, -1, -1, -1, 1, -1, -1]]
    assert layout.ids.max() < 49408
    end = tiny_clip.tokenizer.end[0]
    assert [layout.ids[i, e].item() for i, e in enumerate(layout.end.tolist())] == [end, end]
    # Context slots that all prompts share belong to the prefix.
    assert encoder.layout([[0, "object", 1, 2], [0, "object", 1, 3]]).shared == 4


def test_single_vocabulary_tokens(tiny_clip):
    tokenizer = tiny_clip.tokenizer
    encoder = tokenizer.tokenizer.encoder
    assert tokenizer.token_id("summer") == encoder["summer</w>"]
    assert tokenizer.token_id("ksh") == encoder.get("ksh</w>", encoder.get("ksh"))
    layout = PromptEncoder(tiny_clip).layout([["be", Token("inian")], ["be", Token("aidan")]])
    assert layout.ids.shape[1] == 4
    with pytest.raises(UsageError, match="not a single token"):
        tokenizer.token_id("neitherclosenor")


def test_bad_prompts(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    with pytest.raises(UsageError, match="longer than this CLIP's context of 77"):
        encoder(["far " * 80])
    with pytest.raises(UsageError, match="width 12.*64"):
        encoder([["far", torch.zeros(12)]])
    with pytest.raises(UsageError, match="write \\[text\\]"):
        encoder("a cat")
    with pytest.raises(UsageError, match="not of 5"):
        encoder([["a", 5]])
    with pytest.raises(UsageError, match="no prompts"):
        encoder([])
    vector = torch.zeros(64)
    for prompts, message in (
        ([["a", vector.numpy()]], r"Tokens and vectors \(tensors\), not of array"),
        ([["a", torch.tensor(1.0)]], r"\[64\], not float32 \[\]"),
        ([["a", torch.zeros(2, 2, 64)]], r"not float32 \[2, 2, 64\]"), ([["a", torch.zeros(64, dtype=torch.int64)]], "not int64"),
        ([["a", vector * torch.nan]], "vector 0 of a prompt holds NaN"), ([["a", torch.stack([vector, vector + torch.inf])]], "vector 1"),
        (None, "a list of prompts, not None"), (vector, "a list of prompts"), ([5], "a list of pieces, not 5"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message) as caught:
            encoder(prompts)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="wants a CLIP from load_clip, not a CLIP"):
        PromptEncoder(tiny_clip.model)


def test_single_pieces_are_prompts(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    vector = torch.randn(64)
    assert torch.equal(encoder([Token("summer"), vector, "far"]), encoder([[Token("summer")], [vector], ["far"]]))


def test_layouts_and_tables_that_do_not_fit(tiny_clip):
    encoder = PromptEncoder(tiny_clip)
    layout = encoder.layout([["a", 0], ["a", np.int64(1)]])
    assert encoder.layout(["a red ball"]).ids.tolist() == encoder.layout([["a red ball"]]).ids.tolist()
    for prompts, message in (
        ("a red ball", "write \\[\\[text\\]\\]"), ([["a", -1]], "indices of vectors.*not of -1"), ([["a", True]], "not of True"),
        ([["a", 1.5]], "not of 1.5"), ([5], "a list of pieces"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            encoder.layout(prompts)
    for vectors, message in (
        (None, "2 slots for vectors are given 0"), (torch.zeros(1, 64), "are given 1"), (torch.zeros(2, 1), "width 1 .* has 64"),
        (torch.zeros(2, 12), "width 12"), (torch.zeros(128), "not float32"), (np.zeros((2, 64)), "not a ndarray"),
        (torch.tensor([[0.0] * 64, [torch.nan] * 64]), "vector 1 of a prompt holds NaN"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            encoder.encode(layout, vectors)
    with pytest.raises(UsageError, match="each layout has one"):
        joined([layout, layout], [2])
    learning = torch.full((2, 64), torch.nan, requires_grad=True)
    assert encoder.encode(layout, learning).isnan().any()  # the loss notices


def test_ids_beyond_the_vocabulary(tiny_clip):
    torch.manual_seed(0)
    small = FrozenCLIP(open_clip.CLIP(**{**TINY_CONFIG, "text_cfg": {**TINY_CONFIG["text_cfg"], "vocab_size": 300}}), "small", None)
    with pytest.raises(UsageError, match="not in this CLIP's vocabulary of 300"):
        PromptEncoder(small)(["far"])


def test_kept_prefixes_follow_the_tower(tiny_clip):
    """What was kept of one type, or of other weights, is not used for another."""
    clip = copy.deepcopy(tiny_clip)
    encoder, words = PromptEncoder(clip), ["This object appears to be far", "This object appears to be near"]

    def unlike_kept():
        kept = encoder(words)
        clip.text.forget()
        return kept, encoder(words)

    before = encoder(words)
    clip.double()
    kept, fresh = unlike_kept()
    assert kept.dtype == torch.float64 and torch.equal(kept, fresh)
    clip.half().float()  # back in the type that it had, with other values
    kept, fresh = unlike_kept()
    assert torch.equal(kept, fresh) and not torch.equal(kept, before)
    for change in (
        lambda: clip.model.transformer.resblocks[0].ln_1.bias.add_(1),
        lambda: clip.text.embedding.weight.mul_(2),
        lambda: clip.model.positional_embedding.mul_(3),
        lambda: setattr(clip.model.transformer.resblocks[1].attn, "in_proj_weight", torch.nn.Parameter(torch.randn(192, 64))),
        lambda: clip.model.load_state_dict(tiny_clip.model.state_dict()),
    ):
        before = encoder(words)
        with torch.no_grad():
            change()
        kept, fresh = unlike_kept()
        assert torch.equal(kept, fresh) and not torch.equal(kept, before)
    assert torch.equal(kept, PromptEncoder(tiny_clip)(words))
    assert encoder(words).equal(encoder(words)) and len(clip.text._kept) == 1  # and kept while nothing changes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="abcdef gh,.!x'é", min_size=0, max_size=30), min_size=1, max_size=5))
def test_any_words(tiny_clip, sentences):
    with torch.no_grad():
        expected = tiny_clip.model.encode_text(open_clip.get_tokenizer("RN50")(sentences))
        assert torch.allclose(PromptEncoder(tiny_clip)(sentences), expected, atol=1e-5, rtol=1e-4)
