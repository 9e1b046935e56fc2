"""Dual encoders of transformers from a folder: one body of tests over all kinds that are read."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import duals
from depthtokens import DepthTokens, PromptEncoder, UsageError, WeightsError, load_clip, make_optimizer, silog
from depthtokens.clip import dual
from depthtokens.clip.fold import Folded
from depthtokens.clip.hf import KINDS
from depthtokens.clip.load import fingerprint
from depthtokens.clip.remembered import recall, remember
from depthtokens.clip.stated import load_stated
from depthtokens.prompt.tokens import vectors_from_words
from helpers import photo

SENTENCES = ["this object appears to be close", "a small red ball", "close", "far from the camera"]


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A kind, its folder, transformers' model and ours."""
    folder = tmp_path_factory.mktemp(request.param)
    model = duals.make_dual(request.param, folder)
    return request.param, folder, model, load_clip(f"hf:{folder}")


def same(found, expected, atol=1e-5):
    assert_close(found / expected.abs().max(), expected / expected.abs().max(), atol=atol, rtol=0)


def test_words_and_vectors(made):
    kind, folder, model, clip = made
    encoder = PromptEncoder(clip)
    expected = duals.text_features(model, kind, folder, SENTENCES)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    same(encoder(SENTENCES), expected)
    same(torch.cat([encoder([sentence]) for sentence in SENTENCES]), expected)
    same(encoder([sentence.split() for sentence in SENTENCES]), expected)
    vector = vectors_from_words(clip, ["close", "far"], 2)[0].requires_grad_()
    found = encoder([["this object appears to be", vector], [vector]])
    same(found[0], expected[0])  # behind the lookup and its scaling a vector is the word
    (gradient,) = torch.autograd.grad((found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum(), vector)
    assert gradient.abs().max() > 0
    if kind == "tipsv2":
        with pytest.raises(UsageError, match="an empty prompt"):
            encoder(["close", ""])
    with pytest.raises(UsageError, match="longer than this CLIP's context of 24"):
        encoder(["far " * 100])


@pytest.mark.parametrize("size", [(32, 32), (45, 67)])
def test_patches(made, size):
    kind, _, model, clip = made
    tower, images = clip.image, torch.randn(2, 3, *size)
    grid = (size[0] // 8, size[1] // 8)
    assert (tower.trunk_stride, tower.image_size, tower.default, tower.fixed_size) == (8, (32, 32), "tokens", None)
    found = tower.patches_in(images, list(tower.modes))
    for mode, features in found.items():
        assert features.shape == (2, tower.channels, *grid) == (2, tower.channels, *tower.grid(size, mode)) and features.isfinite().all()
        folded, text = Folded(tower, mode), torch.randn(5, tower.channels)
        vectors = folded(images)
        logits = F.linear(vectors, folded.weights_for(text)) / vectors.norm(dim=-1, keepdim=True)
        assert_close(logits, torch.einsum("bchw,nc->bhwn", features, text), atol=2e-4, rtol=1e-3)
    # The model's own head on each position alone: its pool, or its projection.
    whole = images[..., : 8 * grid[0], : 8 * grid[1]]
    seen = duals.hidden(model, kind, whole)
    same(_unit(found["tokens"]), F.normalize(_head(model, kind, seen), dim=-1))
    # In the last block, a token without any other attends to itself: its value.
    before, _ = dual.trunk(clip.visual, images)
    before = before[:, clip.visual.prefix :]
    alone = model.vision_model.encoder.layers if hasattr(model.vision_model.encoder, "layers") else model.vision_model.encoder.layer
    values = clip.visual.norm(alone[-1](before.flatten(0, 1)[:, None], None)).unflatten(0, before.shape[:2])[:, :, 0]
    same(_unit(found["value"]), F.normalize(_head(model, kind, values), dim=-1))


def _unit(features):
    return features.flatten(2).transpose(1, 2)


def _head(model, kind, seen):
    if kind.startswith("siglip"):
        return model.vision_model.head(seen.flatten(0, 1)[:, None]).unflatten(0, seen.shape[:2])
    return model.visual_projection(seen) if "clip" in kind else seen


def test_a_step_of_training(made):
    _, _, _, clip = made
    before = fingerprint(clip.model)
    model = DepthTokens(clip, depth="learned:4", bins="linear:4", dense="value")
    images, truth = torch.randn(2, 3, 32, 40), torch.linspace(1, 9, 2 * 32 * 40).reshape(2, 1, 32, 40)
    optimizer, _ = make_optimizer(model, 10)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = silog(model(images).depth, truth)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    assert not any(weight.requires_grad for weight in clip.parameters()) and fingerprint(clip.model) == before == clip.fingerprint
    assert_close(model.eval().fused()(images).depth, model(images).depth, atol=1e-3, rtol=1e-4)
    assert model.predict(photo(40, 60), side=32).metres.shape == (40, 60)


def test_what_a_folder_is_known_by(made):
    kind, folder, _, clip = made
    assert clip.name == f"hf:{folder}" and clip.identity.name == f"hf:{folder.name}"
    remember(clip.name, None, clip.fingerprint)  # other tests forget
    assert recall(clip.fingerprint) == [(clip.name, None)] and load_stated(clip.identity).fingerprint == clip.fingerprint
    mean, std = clip.image.own_statistics
    assert (mean, std) == (((0.5, 0.4, 0.3), (0.25, 0.5, 0.5)) if kind == "siglip" else (KINDS[kind].mean, KINDS[kind].std))


@pytest.fixture
def folder(tmp_path):
    """A SigLIP's folder that a test may change."""
    duals.make_dual("siglip", tmp_path)
    return tmp_path


def test_folders_that_are_refused(folder, message):
    def refused(**changes):
        config = json.loads(before) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return message(lambda: load_clip(f"hf:{folder}"), WeightsError)

    before, weights = (folder / "config.json").read_text(), folder / "model.safetensors"
    known, state = json.loads(before), load_file(weights)
    assert "holds a 'blip', which is not read as a CLIP: those are clip, metaclip_2, siglip" in refused(model_type="blip")
    assert "quantised weights" in refused(quantization_config={"quant_method": "bitsandbytes"})
    assert "a tower of 1000000000 layers" in refused(text_config={**known["text_config"], "num_hidden_layers": 10**9})
    assert "far more than its weights have" in refused(text_config={**known["text_config"], "vocab_size": 10**9})
    assert "missing" in refused(vision_config={**known["vision_config"], "num_hidden_layers": 3})
    assert "unexpected" in refused(vision_config={**known["vision_config"], "num_hidden_layers": 1})
    assert "cannot load the SiglipModel" in refused(vision_config={**known["vision_config"], "hidden_size": "wide"})
    (folder / "preprocessor_config.json").write_text('{"image_std": [0, 1, 1]}')
    assert "image_mean and image_std" in refused()
    (folder / "preprocessor_config.json").unlink()
    load_clip(f"hf:{folder}")
    # Code of the hub is not asked for, whatever a file says.
    (folder / "config.json").write_text(json.dumps({**known, "attn_implementation": "org/kernel", "auto_map": {"AutoModel": "org/x--y.Z"}}))
    load_clip(f"hf:{folder}")
    save_file({**state, "logit_scale": torch.zeros(1, dtype=torch.int8)}, weights)
    assert "is int8: weights are floating-point" in refused()
    save_file({key: value for key, value in state.items() if ".head." not in key or "text" in key}, weights)
    assert "has no pool" in refused(vision_config={**known["vision_config"], "vision_use_head": False})
    weights.rename(folder / "pytorch_model.bin")
    assert "no model.safetensors: other files are not read, pickles least of all" in refused()
    (folder / "config.json").write_text("[" * 10**5)
    assert "cannot read" in message(lambda: load_clip(f"hf:{folder}"), WeightsError)
    (folder / "config.json").unlink()
    assert "has no config.json" in message(lambda: load_clip(f"hf:{folder}"), WeightsError)
    assert "no folder at" in message(lambda: load_clip(f"hf:{folder}/none"), WeightsError)
    assert "no name of the hub" in message(lambda: load_clip("hf:"), UsageError)
    assert "cannot fetch hf:org/model@v1 from the hub" in message(lambda: load_clip("hf:org/model@v1"), WeightsError)


def test_a_revision_of_the_hub(folder, hub, message):
    """What could run is not fetched."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.add("ann/siglip", {"config.json": b"{}"})
    assert "is not read as a CLIP" in message(lambda: load_clip("hf:ann/siglip"), WeightsError)
    code = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"x", "onnx/model.safetensors": b"x"}
    hub.repositories["ann/siglip"].commit({**files, **code}, "v1")
    clip = load_clip("hf:ann/siglip@v1")
    assert clip.name == clip.identity.name == "hf:ann/siglip@v1" and clip.fingerprint == load_clip(f"hf:{folder}").fingerprint
    assert PromptEncoder(clip)(SENTENCES).isfinite().all() and not [path for _, path in hub.requests if path.endswith(tuple(code))]
    assert load_stated(clip.identity).fingerprint == clip.fingerprint
    assert "cannot fetch hf:ann/siglip@v2 from the hub" in message(lambda: load_clip("hf:ann/siglip@v2"), WeightsError)


def test_what_is_missing_is_named(folder, message, monkeypatch):
    clip = load_clip(f"hf:{folder}")
    settings = folder / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    if find_spec("sentencepiece") is None:
        assert "sentencepiece: pip install 'depthtokens[hf]'" in message(lambda: clip.tokenizer, WeightsError)
    with monkeypatch.context() as patch:
        patch.setitem(KINDS, "siglip", replace(KINDS["siglip"], model="SiglipNextModel"))
        assert "needs transformers' SiglipNextModel, which 5" in message(lambda: load_clip(f"hf:{folder}"), WeightsError)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'depthtokens[hf]'" in message(lambda: load_clip(f"hf:{folder}"), WeightsError)
