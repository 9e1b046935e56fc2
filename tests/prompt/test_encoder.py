"""Prompts of words and vectors: equal to open_clip where it can follow, exact gradients where it cannot."""

from __future__ import annotations

import warnings

import open_clip
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from depthtokens import PromptEncoder, UsageError, load_clip
from depthtokens.clip.load import FrozenCLIP
from depthtokens.clip.tokenizer import Tokenizer
from depthtokens.prompt.scales import Token

SENTENCES = [
    "This object appears to be very close",
    "This object appears to be close",
    "This object appears to be neither close nor distant",
    "a small red ball, close to the camera!",
    "far",
]


def random_clip(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = load_clip(name, None)
    # New models have zero biases and unit norms: give every part of a block something to be wrong about.
    generator = torch.Generator().manual_seed(0)
    for key, value in clip.model.state_dict().items():
        if "transformer.resblocks" in key and "visual" not in key and value.ndim == 1:
            value.add_(0.1 * torch.randn(value.shape, generator=generator))
    return clip


@pytest.mark.parametrize("name", ["RN50", "RN101", "ViT-B-32", "ViT-L-14", "CustomTextCLIP", "coca_ViT-B-32"])
def test_equal_to_open_clip_for_words(name):
    if name == "CustomTextCLIP":
        config = open_clip.get_model_config("RN50")
        torch.manual_seed(0)
        clip = FrozenCLIP(open_clip.CustomTextCLIP(**config), "RN50", None)
    else:
        clip = random_clip(name)
    encoder = PromptEncoder(clip)
    assert clip.text.causal == (not name.startswith("coca"))
    with torch.no_grad():
        expected = clip.model.encode_text(open_clip.get_tokenizer("RN50")(SENTENCES)[:, : clip.text.context_length])
        found = encoder(SENTENCES)
        assert (found - expected).abs().max() < 1e-5
        # One at a time, the shared prefix is another one; the features are the same.
        alone = torch.cat([encoder([sentence]) for sentence in SENTENCES])
        assert (alone - expected).abs().max() < 1e-5
        # Words given as vectors are the words.
        tokens = clip.tokenizer.ids("close")
        vector = clip.text.embedding.weight[tokens]
        assert (encoder([["This object appears to be", vector]]) - expected[1:2]).abs().max() < 1e-5


class SigLIPTokenizer:
    """Stands in for SigLIP's sentence-piece tokenizer, which only the hub has: words to ids, an end token, no start token, padding 1."""

    def ids(self, text):
        return [10 + hash_word(word) for word in text.split()]


def hash_word(word):
    return sum(ord(c) * 31**i for i, c in enumerate(word)) % 30_000


def test_siglip_geometry_takes_the_full_length_pass():
    clip = random_clip("ViT-B-16-SigLIP")
    stand_in = SigLIPTokenizer()
    clip.tokenizer = Tokenizer(stand_in, (), (1,), 1)
    object.__setattr__(clip.tokenizer, "ids", stand_in.ids)
    encoder = PromptEncoder(clip)
    assert not clip.text.causal
    ids = [[*stand_in.ids(sentence), 1] for sentence in SENTENCES]
    ids = torch.tensor([row + [1] * (64 - len(row)) for row in ids])
    with torch.no_grad():
        expected = clip.model.encode_text(ids)
        assert (encoder(SENTENCES) - expected).abs().max() < 1e-5
    vector = clip.text.embedding.weight[stand_in.ids("close")].clone().requires_grad_()
    found = encoder([["This object appears to be", vector]])
    assert (found - expected[1:2]).abs().max() < 1e-5
    found.sum().backward()
    assert vector.grad.abs().max() > 0
    assert not clip.text.embedding._forward_hooks


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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="abcdef gh,.!x'é", min_size=0, max_size=30), min_size=1, max_size=5))
def test_any_words(tiny_clip, sentences):
    with torch.no_grad():
        expected = tiny_clip.model.encode_text(open_clip.get_tokenizer("RN50")(sentences))
        assert torch.allclose(PromptEncoder(tiny_clip)(sentences), expected, atol=1e-5, rtol=1e-4)
