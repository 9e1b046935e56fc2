"""The fused model: equal to the model it was made from, kept as long as that stays the same, and free of what prediction does not need."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from depthtokens import DataError, DepthTokens, UsageError, WeightsError, load_clip
from depthtokens.clip.resnet import RESNET
from depthtokens.data.dataset import normalise
from depthtokens.depth.protocol import find_protocol
from helpers import photo

SIZES = [(64, 64), (97, 133), (32, 71)]
TOWERS = [("tiny_clip", "layer4"), ("tiny_clip", "value"), ("attnpool_clip", "attnpool"), ("vit_clip", "tokens"), ("vit_clip", "value")]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("clip", "dense"), TOWERS)
def test_equal_to_the_model(request, clip, dense, size):
    model = DepthTokens(request.getfixturevalue(clip), depth="depth-7", scale=378, dense=dense, template="1o1d", seed=1)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(images), model.folded()(images)
    assert found.depth.shape == expected.depth.shape and found.probs.shape == expected.probs.shape
    assert (expected.depth.max() - expected.depth.min()) > 1e-3  # else there would be nothing to get wrong
    assert (found.depth - expected.depth).abs().max() < 1e-4  # metres
    assert (found.probs - expected.probs).abs().max() < 1e-4


def test_equal_to_a_model_with_clip_s_own_normalisation(tiny_clip):
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        models = [DepthTokens(tiny_clip, normalisation=name) for name in ("clip", "imagenet")]
        assert (models[0](images).depth - models[1](images).depth).abs().max() > 1e-3
        assert (models[0].folded()(images).depth - models[0](images).depth).abs().max() < 1e-4


def test_equal_to_a_model_whose_batchnorm_adapted(tiny_clip):
    model = DepthTokens(tiny_clip, batchnorm="adapt")
    images = torch.randn(2, 3, 64, 96)
    before = model(images).depth
    model.train()
    model(3 * images)  # moves the running statistics
    model.eval()
    with torch.no_grad():
        assert (model(images).depth - before).abs().max() > 1e-2
        assert (model.train().folded()(images).depth - model.eval()(images).depth).abs().max() < 1e-4


@pytest.mark.parametrize("dense", RESNET.modes)
def test_holds_the_folded_image_tower_and_nothing_else(tiny_clip, dense):
    model = DepthTokens(tiny_clip, dense=dense)
    net = model.folded()
    assert not any(isinstance(module, nn.BatchNorm2d | nn.Embedding) for module in net.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.visual.modules())  # the model itself is as it was
    assert (net.tower.visual.attnpool is not None) == (dense == "attnpool")
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not [name for name in model.state_dict() if "fused" in name]


def test_predict_is_clamped_and_resized(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:5", bins="const80", depth_range=(1.0, 3.0))  # there is something to clamp
    rgb = photo(64, 128)
    with torch.no_grad():
        out = model(normalise(rgb.astype(np.float32) / np.float32(255))[None])
    low = out.depth.clamp(1.0, 3.0)
    spread = ((out.probs * (model.centres[:, None, None] - low) ** 2).sum(dim=1, keepdim=True)).sqrt()
    found = model.predict(rgb)
    for expected, values in ((low, found.metres), (spread, found.uncertainty)):
        full = F.interpolate(expected, size=(64, 128), mode="bilinear", align_corners=True)[0, 0].numpy()
        assert values.dtype == np.float32 and np.abs(values - full).max() < 1e-4
    assert np.abs(found.probs - out.probs[0].numpy()).max() < 1e-4 and found.probs.dtype == np.float32


def test_kept_until_something_changes(tiny_clip, monkeypatch):
    model = DepthTokens(tiny_clip, "1o1d", batchnorm="adapt")
    rgb, calls = photo(64, 64), []
    text_features = DepthTokens.text_features
    monkeypatch.setattr(DepthTokens, "text_features", lambda self: calls.append(0) or text_features(self))

    def changed():
        before = len(calls)
        depth = model.predict(rgb).metres
        assert np.array_equal(depth, model.predict(rgb).metres) and len(calls) - before <= 1
        with torch.no_grad():
            at_patches = model.folded().maps(torch.from_numpy(rgb)[None], (64, 64))[0][0, 0].numpy()
        assert np.abs(depth - at_patches).max() < 1e-6  # never a stale one
        calls.pop()
        return len(calls) > before

    assert changed() and not changed()
    with torch.no_grad():
        model.tokens["depth"] += 0.1
    assert changed() and not changed()
    model.tokens["context"].data[0, 0] += 1  # behind autograd's back
    assert changed() and not changed()
    model.log_scale.data += 0.5
    assert changed() and not changed()
    model.visual.bn1.running_mean += 0.5
    assert changed() and not changed()
    kept = model.fused()
    assert model.fused("bfloat16") is not kept and model.fused("bfloat16") is model.fused("bfloat16")


def test_changes_of_clip_are_noticed(tiny_file):
    """Weights written to, replaced, cast or moved, in either tower, and the model's own settings."""
    clip = load_clip(str(tiny_file))
    model, rgb = DepthTokens(clip), photo(64, 64)

    def changed():
        before = model.fused()
        now = model.predict(rgb).metres
        again = model.folded().predict(rgb).metres
        assert np.array_equal(now, again)
        return before

    kept = changed()
    assert model.fused() is kept
    with torch.no_grad():
        clip.visual.conv1.weight.mul_(1.5)
    assert changed() is not kept
    kept = model.fused()
    clip.visual.layer1[0].bn1.running_mean = clip.visual.layer1[0].bn1.running_mean + 1
    assert changed() is not kept
    kept = model.fused()
    clip.visual.attnpool.v_proj.weight.data = clip.visual.attnpool.v_proj.weight.data.clone()
    assert changed() is not kept  # other memory: it may hold anything
    kept = model.fused()
    model.settings = model.settings.changed(predict_side=128)
    assert model.fused() is not kept and model.fused().predict_side == 128
    kept = model.fused()
    model.centres.data += 1
    assert changed() is not kept
    kept = model.fused()
    state = {name: value.clone() for name, value in clip.model.state_dict().items()}
    clip.model.load_state_dict(state)
    assert model.fused() is not kept


def test_not_kept_longer_than_the_model(tiny_clip):
    model = DepthTokens(tiny_clip)
    net = weakref.ref(model.fused())
    assert net() is not None
    del model
    gc.collect()
    assert net() is None


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize(("clip", "dense"), [("tiny_clip", "layer4"), ("tiny_clip", "attnpool"), ("vit_clip", "tokens")])
def test_precision_of_the_tower(request, clip, dense, precision):
    model = DepthTokens(request.getfixturevalue(clip), dense=dense, scale=20)
    exact, half = model.folded(), model.folded(precision)
    images = torch.randn(1, 3, 64, 96)
    found, expected = half(images), exact(images)
    assert {parameter.dtype for parameter in half.tower.parameters()} == {getattr(torch, precision)}
    assert found.depth.dtype == found.probs.dtype == half.weight.dtype == torch.float32
    assert 0 < (found.depth - expected.depth).abs().max() < 0.5


def test_mistakes(tiny_clip):
    model = DepthTokens(tiny_clip)
    with pytest.raises(UsageError, match="did you mean 'float"):
        model.predict(photo(64, 64), "float8")
    with pytest.raises(DataError, match="this image: image of 15x64 pixels is smaller than one 32x32 patch.*--side"):
        model.predict(photo(15, 64))
    with pytest.raises(UsageError, match="side 31: needs a whole number of pixels, at least 32"):
        model.predict(photo(64, 64), side=31)
    with pytest.raises(DataError, match="would be shown at 480x240000: crop it"):
        model.predict(photo(2, 1000), side=480)


def test_flip_averaging_is_the_protocol_s(tiny_clip):
    model = DepthTokens(tiny_clip, depth="learned:5", bins="const80", depth_range=(1.0, 3.0))
    rgb = photo(64, 128)
    images = normalise(rgb.astype(np.float32) / np.float32(255))[None]
    expected = find_protocol("auty2023").predict(lambda x: model(x).depth, images, (1.0, 3.0))[0, 0].detach().numpy()
    found = model.predict(rgb, flip=True)
    assert np.abs(found.metres - expected).max() < 1e-4 and np.abs(found.metres - model.predict(rgb).metres).max() > 1e-4
    probs = (model(images).probs + model(images.flip(-1)).probs.flip(-1)).detach()[0] / 2
    assert np.abs(found.probs - probs.numpy()).max() < 1e-4
    mirrored = model.predict(np.ascontiguousarray(rgb[:, ::-1]), flip=True)
    assert np.abs(found.metres - mirrored.metres[:, ::-1]).max() < 1e-4  # it cannot tell left from right


def test_what_is_seen_covers_the_photo_at_one_scale(tiny_clip):
    model = DepthTokens(tiny_clip, predict_side=96)
    grids = {size: model.predict(photo(*size)).probs.shape[1:] for size in [(48, 64), (96, 128), (192, 256), (256, 192), (95, 127)]}
    assert grids == {(48, 64): (3, 4), (96, 128): (3, 4), (192, 256): (3, 4), (256, 192): (4, 3), (95, 127): (3, 4)}
    assert model.predict(photo(96, 128), side=64).probs.shape[1:] == (2, 3)
    assert DepthTokens(tiny_clip).predict(photo(95, 127)).probs.shape[1:] == (3, 4)  # its own scale, but all of it


def test_no_number_names_its_cause(tiny_clip):
    model = DepthTokens(tiny_clip)
    model.tokens["depth"].data[2, 5] = float("nan")
    for call in (model.folded, lambda: model.predict(photo(64, 64)), lambda: model.save("never.safetensors")):
        with pytest.raises(WeightsError, match="this model: 'tokens.depth' holds 1 values that are no numbers.*lower --lr"):
            call()
    model = DepthTokens(tiny_clip)
    model.log_scale.data.fill_(200.0)  # whose exponential is infinite
    with pytest.raises(WeightsError, match="the prompts' features times the logit scale are no numbers"):
        model.folded()
    net = DepthTokens(tiny_clip).folded("float16")
    with torch.no_grad():
        next(net.tower.parameters()).fill_(float("inf"))  # as a weight beyond 65504 becomes
    with pytest.raises(DataError, match="float16"):
        net.predict(photo(64, 64))


def test_too_little_memory_is_said(tiny_clip, monkeypatch):
    net = DepthTokens(tiny_clip).folded()

    def full(*_):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(net, "_small", full)
    with pytest.raises(DataError, match="this image: not enough memory for this photo: make it smaller, or show it smaller, with --side"):
        net.predict(photo(64, 64))
