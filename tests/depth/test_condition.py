"""Conditions: what an image decides about its own prompts or depth begins at nothing, learns, is kept, and predicts as the model says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, Experiment, PromptEncoder, UsageError, WeightsError, silog
from depthtokens.depth import condition
from depthtokens.depth.checkpoint import read, write
from depthtokens.depth.condition import mean_patch
from depthtokens.depth.settings import ModelSettings
from depthtokens.experiment.evaluate import head_of
from depthtokens.experiment.learn import Learner, make_optimizer
from depthtokens.experiment.source import Batch
from helpers import make_model as make
from helpers import photo

PATCHES = F.normalize(torch.randn(5, 64, 2, 3, generator=torch.Generator().manual_seed(0)), dim=1)
TRUTH = 1 + 8 * torch.rand(5, 1, 16, 24, generator=torch.Generator().manual_seed(1))


def moved(model):
    """The model with numbers in its condition, as if it had learned."""
    generator = torch.Generator().manual_seed(2)
    for value in model.condition.parameters():
        value.data += 0.3 * torch.randn(value.shape, generator=generator)
    return model


def depth(model, patches=PATCHES):
    return model.depth_from(patches, model.text_features(patches)).depth


@pytest.mark.parametrize("kind", ["shift", "gain"])
def test_begins_as_the_model_without_and_learns(tiny_clip, kind):
    plain, model = make(tiny_clip), make(tiny_clip, condition=kind)
    assert torch.allclose(depth(model), depth(plain), atol=1e-5)
    named = dict(model.named_parameters())
    assert model.trainable().keys() == {name for name, value in named.items() if value.requires_grad} == {
        "tokens.depth", *(f"condition.{name}" for name in {"shift": ("down", "up"), "gain": ("weight", "bias")}[kind])
    }  # fmt: skip
    before = {name: value.clone() for name, value in model.trainable().items()}
    optimizer, _ = make_optimizer(model, 10, lr=1e-2)
    for _ in range(2):  # in the first the shift's W₁ meets a W₂ of zeros
        optimizer.zero_grad()
        silog(depth(model), TRUTH).backward()
        optimizer.step()
    assert all(not torch.equal(value, before[name]) and value.grad.abs().max() > 0 for name, value in model.trainable().items())
    assert (depth(model) - depth(plain)).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"template": "4o4d", "depth": "depth-7"}, {"template": "1o2d", "depth": "path:2:5"}])
def test_prompts_of_many_images_are_those_of_each(tiny_clip, monkeypatch, settings):
    """By the encoder, whose prompts share nothing between images; and with memory for one image alone, gradients too."""
    model = moved(make(tiny_clip, condition="shift", **settings))
    calls = []
    monkeypatch.setattr(tiny_clip.text, "after_prefix", lambda *a, f=tiny_clip.text.after_prefix: calls.append(a[1].shape) or f(*a))
    text = model.text_features(PATCHES)
    words = next(i for i in range(99) if (model.layout.slots[:, i] >= 0).any() or (model.layout.ids[:, i] != model.layout.ids[0, i]).any())
    assert calls == [(5 * len(model.centres), model.layout.ids.shape[1] - words, 64)]  # one pass, of what is the images' own
    encoder, shifts = PromptEncoder(tiny_clip), model.condition(mean_patch(PATCHES))
    for own, shift in zip(text, shifts, strict=True):
        vectors, parsed, spoken = model.vectors() + shift, model.settings.parsed, model.settings.words.words
        fillings = [[word] for word in spoken] or [[parsed.contexts + i] for i in range(model.settings.words.count)]
        prompts = [[vectors[p] if isinstance(p, int) else p for p in parsed.fill(filling)] for filling in fillings]
        assert torch.allclose(own, F.normalize(encoder(prompts), dim=-1), atol=1e-5)
    text[:, 0, 0].sum().backward()
    whole = {name: value.grad.clone() for name, value in model.trainable().items()}
    model.zero_grad()
    monkeypatch.setattr(condition, "POSITIONS", 1)
    again = model.text_features(PATCHES)
    assert torch.allclose(again, text, atol=1e-5)
    again[:, 0, 0].sum().backward()
    assert all(torch.allclose(value.grad, whole[name], atol=1e-4) for name, value in model.trainable().items())


@pytest.mark.parametrize("kind", ["shift", "gain"])
@pytest.mark.parametrize(("clip", "dense"), [("tiny_clip", "layer4"), ("tiny_clip", "value"), ("vit_clip", "tokens")])
def test_the_fused_model_is_the_model(request, clip, dense, kind):
    model = moved(DepthTokens(request.getfixturevalue(clip), dense=dense, condition=kind, scale=378))
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    rgb = photo(64, 96)
    with torch.no_grad():
        expected, found = model(images), model.folded()(images)
        plain = DepthTokens(model.clip, dense=dense, scale=378)(images)
        assert (expected.depth - plain.depth).abs().max() > 1e-2
    assert (found.depth - expected.depth).abs().max() < 1e-4 and (found.probs - expected.probs).abs().max() < 1e-4
    for flip in (False, True):
        uncertainty = model.predict(rgb, flip=flip).uncertainty
        assert np.isfinite(uncertainty).all() and np.abs(uncertainty - model.predict(rgb, flip=not flip).uncertainty).max() > 1e-6
    first = model.predict(rgb).metres
    next(model.condition.parameters()).data.mul_(3)
    assert np.abs(model.predict(rgb).metres - first).max() > 1e-4  # a change is noticed


@pytest.mark.parametrize("objective", ["silog+ce", "silog+ordinal"])
def test_bins_of_an_image_with_a_gain_are_its_own(tiny_clip, objective):
    """Metres twice as large, of an image whose factor is 2, are the same bins."""
    plain, model = make(tiny_clip), make(tiny_clip, condition="gain")
    model.condition.bias.data += np.log(2)
    losses = []
    for one, truth in ((plain, TRUTH), (model, 2 * TRUTH)):
        losses.append(Learner(one, 2, objective=objective).loss(Batch.on(torch.device("cpu"), PATCHES, truth), one.text_features(PATCHES)))
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)


def test_uncertainty_is_about_the_image_s_own_centres(tiny_clip):
    model = moved(DepthTokens(tiny_clip, condition="gain", scale=378))
    gain = model.folded().maps(torch.from_numpy(photo(64, 96))[None], (2, 3))[3].item()
    found = model.predict(photo(64, 96))
    centres = gain * model.centres.numpy()[:, None, None]
    low = (found.probs * centres).sum(axis=0).clip(*model.depth_range)
    spread = np.sqrt((found.probs * (centres - low) ** 2).sum(axis=0))
    assert abs(gain - 1) > 0.01 and np.abs(found.uncertainty[::63, ::95] - spread[:: len(spread) - 1, :: spread.shape[1] - 1]).max() < 1e-4


@pytest.mark.parametrize("kind", ["shift", "gain"])
def test_saved_and_read(tiny_clip, tmp_path, kind):
    model = moved(make(tiny_clip, condition=kind))
    model.save(tmp_path / "t.safetensors")
    again = DepthTokens.load(tmp_path / "t.safetensors", tiny_clip)
    assert again.settings == model.settings and torch.equal(head_of(again)(PATCHES), head_of(model)(PATCHES)) and kind in repr(again)
    tensors, header = read(tmp_path / "t.safetensors")
    name = [name for name in tensors if name.startswith("condition.")][-1]
    fewer = {n: value for n, value in tensors.items() if n != name}
    for broken in (fewer, tensors | {name: torch.zeros(1, 2, 3)}, tensors | {"condition.x": torch.zeros(1)}):
        write(tmp_path / "broken.safetensors", broken, header)
        with pytest.raises(WeightsError, match="broken.safetensors: 'condition.*(found|no tensor)"):
            DepthTokens.load(tmp_path / "broken.safetensors", tiny_clip)


def test_files_of_models_without_are_as_before(tiny_clip, tmp_path):
    make(tiny_clip).save(tmp_path / "t.safetensors")
    assert b"condition" not in (tmp_path / "t.safetensors").read_bytes()
    run = Experiment(data="scenes")
    assert "condition" not in run.to_toml() + json.dumps(run.to_dict())
    run = Experiment(data="scenes", condition="gain")
    assert 'condition = "gain"' in run.to_toml() and Experiment.from_dict(run.to_dict()) == run


def test_refusals_are_one_line(tiny_clip, message):
    assert "did you mean 'shift'" in message(lambda: make(tiny_clip, condition="shfit"), UsageError)
    assert "these prompts are words" in message(lambda: make(tiny_clip, depth="depth-7", condition="shift"), UsageError)
    model = make(tiny_clip, condition="shift")
    assert "without its patches" in message(model.text_features, UsageError)
    assert "patches: needs a tensor [B, C, h, w]" in message(lambda: model.text_features(PATCHES[0]), UsageError)
    text = model.text_features(PATCHES)
    assert "text: needs [5, 5, 64]" in message(lambda: model.depth_from(PATCHES, text[:, :3]), UsageError)
    assert ModelSettings(depth="depth-7", condition="gain").learns and not ModelSettings(depth="depth-7").learns
