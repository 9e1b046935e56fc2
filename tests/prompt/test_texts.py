"""Every text side that open_clip has, shrunk: one body of tests, which a new one is in by being there."""

from __future__ import annotations

import json
import warnings

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from depthtokens import DepthTokens, PromptEncoder, UsageError, load_clip
from depthtokens.clip import text as towers
from depthtokens.clip.load import fingerprint
from depthtokens.prompt.scales import Token
from depthtokens.prompt.tokens import vectors_from_words
from depthtokens.study.run import run_study
from depthtokens.study.settings import StudySettings
from depthtokens.study.vocabulary import vocabulary_entries, vocabulary_features
from vocabularies import kind, make_text_model, make_tokenizer

SENTENCES = ["this object appears to be close", "This object, appears to be: far", "a small red ball", "close", "far from the camera!"]
SMALL = {"width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 32}
OTHERS = {
    "BERT": {"custom_text": True, "text_cfg": {"hf_model_name": "bert-", "hf_tokenizer_name": "bert-", "hf_pooler_type": "cls_pooler"}},
    "CLIPS": {"text_cfg": {
        "context_length": 20, "hf_tokenizer_name": "clips", "tokenizer_mode": "clips", "pool_type": "last", "no_causal_mask": True,
    }},
    "CustomTextCLIP, causal": {"custom_text": True, "text_cfg": {"proj_bias": True, "ls_init_value": 0.5}},
}  # fmt: skip
"""Text sides that only models of the hub have."""


def sides():
    """Configurations of models that differ in their text sides, by the name of the first that has it."""
    found = {}
    for name in [*open_clip.list_models(), *OTHERS]:
        config = OTHERS.get(name) or open_clip.get_model_config(name)
        text = {key: value for key, value in config["text_cfg"].items() if key not in SMALL and key != "vocab_size"}
        text |= {key: kind(text[key]) for key in ("hf_tokenizer_name", "hf_model_name") if text.get(key)}
        side = {"text_cfg": text, **{key: config[key] for key in ("custom_text", "quick_gelu") if config.get(key)}}
        if "multimodal_cfg" in config:
            side["multimodal_cfg"] = config["multimodal_cfg"]
        found.setdefault(json.dumps(side, sort_keys=True), (name, side))
    return dict(found.values())


@pytest.fixture
def side(request, tmp_path, monkeypatch):
    """A CLIP with a text side, shrunk: of the same classes and options, with a small tokenizer of the same kind, none of its numbers 0."""
    config = sides()[request.param]
    text = {**config["text_cfg"], **SMALL}
    entries = 49408
    if "hf_tokenizer_name" in text:
        entries = make_tokenizer(text["hf_tokenizer_name"], tmp_path)
        if "hf_model_name" in text:
            make_text_model(text["hf_model_name"], tmp_path, entries)
            text["hf_model_name"] = str(tmp_path)
        text["hf_tokenizer_name"] = str(tmp_path)
    vision = {**VISION, "attentional_pool": True, "output_tokens": True, "attn_pooler_heads": 2} if "multimodal_cfg" in config else VISION
    small = {**config, "embed_dim": 24, "vision_cfg": vision, "text_cfg": {**text, "vocab_size": entries}}
    if text.get("proj_type") == "none":
        small["embed_dim"] = text["width"]
    if "multimodal_cfg" in config:
        small["multimodal_cfg"] = {**config["multimodal_cfg"], **SMALL, "attn_pooler_heads": 2}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "shrunk", small)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clip = load_clip("shrunk", None)
    generator = torch.Generator().manual_seed(0)
    for key, weight in clip.model.named_parameters():
        if "visual" not in key and "decoder" not in key:  # new models have biases of 0 and norms of 1
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return clip


def same(found, expected):
    assert_close(found / expected.abs().max(), expected / expected.abs().max(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", sides(), indirect=True)
def test_words_and_vectors(side, monkeypatch):
    encoder, tokenizer, before = PromptEncoder(side), side.tokenizer, fingerprint(side.model)
    with torch.no_grad():
        expected = side.model.encode_text(tokenizer.tokenizer(SENTENCES))
        assert (expected[0] - expected[1]).abs().max() > 1e-3
        same(encoder(SENTENCES), expected)
        same(torch.cat([encoder([sentence]) for sentence in SENTENCES]), expected)
        same(encoder([sentence.split() for sentence in SENTENCES]), expected)  # text in pieces is the text
    # Words given as vectors are words, wherever they stand; so is a word as one entry of the vocabulary.
    assert tokenizer.ids("close") == [tokenizer.token_id("close")]
    vector = vectors_from_words(side, ["close", "far"], 2)[0].requires_grad_()
    prompts = [["this object appears to be", vector], ["this object appears to be", Token("close")], [vector, "appears to be", vector]]
    found = encoder(prompts)
    same(found[:2], expected[[0, 0]])
    same(found[2:], encoder([[Token("close"), "appears to be", Token("close")]]))
    weights = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    (gradient,) = torch.autograd.grad((found * weights).sum(), vector)
    assert gradient.abs().max() > 0
    # In batches, which are computed twice, gradients are the same.
    monkeypatch.setattr(towers, "POSITIONS", 2 * side.text.context_length)
    few, shown = [], side.model.encode_text
    monkeypatch.setattr(side.model, "encode_text", lambda ids: few.append(len(ids)) or shown(ids))
    batched = encoder([*prompts, *SENTENCES])
    same(batched[:3], found)
    same(torch.autograd.grad((batched[:3] * weights).sum(), vector)[0], gradient)
    assert side.text.causal or side.text.masks_padding or max(few) == 2
    # The vocabulary: an entry by its own name, and all of it.
    names, ids = vocabulary_entries(side)
    assert ids == list(range(len(ids))) and names[tokenizer.token_id("close")].strip("▁Ġ").removesuffix("</w>") == "close"
    _, spoken = vocabulary_features(encoder, "this object appears to be {depth}", ["close", ids[-1]])
    same(spoken[:1], F.normalize(expected[:1], dim=-1))
    assert not any(weight.requires_grad for weight in side.parameters()) and not side.text.embedding._forward_hooks
    assert fingerprint(side.model) == before
    side.double()  # what the tower has kept follows its type
    assert encoder(["close"]).dtype == torch.float64
    with pytest.raises(UsageError, match="longer than this CLIP's context"):
        encoder(["far " * 100])


@pytest.mark.parametrize("side", ["ViT-B-16-SigLIP2"], indirect=True)
def test_a_study_leaves_out_what_a_vocabulary_lacks(side):
    """The random words of the paper are entries of CLIP's BPE."""
    model = DepthTokens(side, depth="learned:7", dense="value")
    study = run_study(model, StudySettings(template="this object is {depth}"))
    assert list(study.scale_words) == ["depth-7", "size-7", "colour-7", "depthclip"] and not study.fragments
    assert study.vocabulary == len(vocabulary_entries(side)[0])
    with pytest.raises(UsageError, match="'summer' is not a single token"):
        DepthTokens(side, depth="rand-txt-7", dense="value")
