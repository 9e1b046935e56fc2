"""Patch features of ResNets and ViTs, against open_clip's own pooled outputs and first principles."""

from __future__ import annotations

import copy
import math

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image

from depthtokens import DepthTokens, UsageError
from depthtokens.clip.family import Mode, resized_positions, thinned_channels
from depthtokens.clip.fold import Folded
from depthtokens.clip.image import ImageTower, dense_features
from depthtokens.clip.resnet import RESNET, attention_pool, trunk
from depthtokens.clip.vit import VIT
from depthtokens.clip.vit import trunk as vit_trunk
from helpers import TINY_CONFIG, photo

VIT_CONFIG = {**TINY_CONFIG, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return open_clip.CLIP(**VIT_CONFIG).visual.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 101)])
@pytest.mark.parametrize("mode", RESNET.modes)
def test_resnet_shapes(tiny_clip, mode, size):
    features = tiny_clip.dense(torch.randn(2, 3, *size), mode)
    stride = tiny_clip.image.stride(mode)
    assert features.shape == (2, 64, size[0] // stride, size[1] // stride)
    norms = features.norm(dim=1)
    if RESNET.modes[mode].kept:  # a part of a unit vector
        assert (norms < 1).all() and (features >= 0).all()
    else:
        assert torch.allclose(norms, torch.ones_like(norms), atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 101)])
@pytest.mark.parametrize("mode", VIT.modes)
def test_vit_shapes(vit, mode, size):
    features = dense_features(vit, torch.randn(2, 3, *size), mode)
    assert features.shape == (2, 64, size[0] // 16, size[1] // 16)
    assert torch.allclose(features.norm(dim=1), torch.ones(()), atol=1e-5)


def test_layer4_is_the_released_code_s(tiny_clip):
    images = torch.randn(2, 3, 64, 96)
    x = F.normalize(trunk(tiny_clip.visual, images), dim=1)
    x = x.permute(0, 2, 3, 1).flatten(1, 2)  # the released code resizes the channel axis of [B, hw, channels]
    expected = F.interpolate(x, size=64, mode="nearest")
    assert torch.equal(tiny_clip.dense(images, "layer4").flatten(2).transpose(1, 2), expected)
    assert thinned_channels(2048, 1024).tolist() == list(range(0, 2048, 2))


def test_attention_pool_s_first_row_is_the_image_embedding(tiny_clip):
    images = torch.randn(3, 3, 64, 64)
    pooled = attention_pool(tiny_clip.visual.attnpool, trunk(tiny_clip.visual, images))
    assert torch.allclose(pooled[:, 0], tiny_clip.model.encode_image(images), atol=1e-5)


def test_vit_tokens_are_open_clip_s(vit):
    images = torch.randn(2, 3, 64, 64)
    expected = vit.transformer(vit._embeds(images))
    expected = F.normalize(vit.ln_post(expected)[:, 1:] @ vit.proj, dim=-1)
    assert torch.allclose(dense_features(vit, images, "tokens").flatten(2).transpose(1, 2), expected, atol=1e-5)


def test_vit_value_lets_a_patch_see_only_itself_in_the_last_block():
    """With one block, changing a pixel of one patch must not change another patch's feature."""
    config = {**VIT_CONFIG, "vision_cfg": {**VIT_CONFIG["vision_cfg"], "layers": 1}}
    torch.manual_seed(0)
    visual = open_clip.CLIP(**config).visual.eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[..., :16, :16] += 1
    value = (dense_features(visual, images, "value") - dense_features(visual, changed, "value")).abs().amax(dim=1)[0]
    tokens = (dense_features(visual, images, "tokens") - dense_features(visual, changed, "tokens")).abs().amax(dim=1)[0]
    assert value[0, 0] > 1e-3 and value.flatten()[1:].max() == 0
    assert tokens.flatten()[1:].min() > 0


def test_positions_are_resized_in_two_dimensions():
    grid = torch.arange(4.0)[:, None].expand(4, 4)  # grows downwards only
    positions = torch.cat([torch.full((1, 1), 9.0), grid.reshape(16, 1)])
    wide = resized_positions(positions, 4, 8)
    assert wide[0] == 9
    assert torch.allclose(wide[1:].reshape(4, 8), torch.arange(4.0)[:, None].expand(4, 8), atol=1e-4)
    assert resized_positions(positions, 4, 4) is positions


def test_bad_modes(tiny_clip, vit):
    with pytest.raises(UsageError, match="did you mean 'layer4'"):
        tiny_clip.dense(torch.zeros(1, 3, 64, 64), "layer5")
    with pytest.raises(UsageError, match="not for a ModifiedResNet: use layer4 or "):
        tiny_clip.dense(torch.zeros(1, 3, 64, 64), "tokens")
    with pytest.raises(UsageError, match="not for a VisionTransformer: use tokens or value"):
        dense_features(vit, torch.zeros(1, 3, 64, 64), "layer4")
    with pytest.raises(UsageError, match="smaller than one 32x32 patch"):
        tiny_clip.dense(torch.zeros(1, 3, 31, 64), "layer4")
    with pytest.raises(UsageError, match="no dense features for a Linear"):
        dense_features(torch.nn.Linear(1, 1), torch.zeros(1, 3, 64, 64), "layer4")


def test_several_modes_from_one_pass(tiny_clip, vit):
    images = torch.randn(2, 3, 96, 64)
    for visual, modes in ((tiny_clip.visual, RESNET.modes), (vit, VIT.modes)):
        together = ImageTower(visual).patches_in(images, tuple(modes))
        assert list(together) == list(modes)
        for mode, features in together.items():
            assert torch.equal(features, dense_features(visual, images, mode))


def test_a_mode_may_read_another_trunk_with_patches_of_another_size(tiny_clip, monkeypatch):
    """One entry is all that a mode with smaller patches is."""

    def early(visual, images):
        return visual.layer1(visual.stem(images))

    def read(visual, x):
        return F.normalize(x, dim=1)[:, : visual.output_dim]

    monkeypatch.setitem(RESNET.modes, "early", Mode(read, finer=8, trunk=early, kept=lambda visual: (torch.arange(32), 32)))
    tower, images = tiny_clip.image, torch.randn(2, 3, 64, 96)
    assert (tower.stride("early"), tower.grid((64, 96), "early")) == (4, (16, 24))
    both = tower.patches_in(images, ("early", "layer4"))
    assert both["early"].shape == (2, 32, 16, 24) and torch.equal(both["layer4"], tiny_clip.dense(images, "layer4"))
    assert torch.allclose(F.normalize(Folded(tower, "early")(images), dim=-1), both["early"].permute(0, 2, 3, 1), atol=1e-5)
    assert tower.patches(images[..., :4, :9], "early").shape == (2, 32, 1, 2)
    with pytest.raises(UsageError, match="image of 3x9 pixels is smaller than one 4x4 patch"):
        tower.patches(images[..., :3, :9], "early")


@pytest.mark.parametrize(("images", "message"), [
    (np.zeros((1, 3, 64, 64), np.float32), r"a tensor \[B, 3, H, W\], not a ndarray"),
    (torch.zeros(3, 64, 64), r"\[B, 3, H, W\], not \[3, 64, 64\]"),
    (torch.zeros(1, 1, 64, 64), r"not \[1, 1, 64, 64\]"),
    (torch.zeros(1, 64, 64, 3), r"not \[1, 64, 64, 3\]"),
    (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "not uint8: divide by 255"),
    (torch.zeros(1, 3, 64, 64).double(), "images are float64 on cpu, the image tower is float32 on cpu"),
    (torch.full((1, 3, 64, 64), torch.nan), "images hold NaN"),
])  # fmt: skip
def test_images_that_are_none(tiny_clip, vit, images, message):
    tower, folded = tiny_clip.image, Folded(tiny_clip.image, "layer4")
    doors = [
        lambda: tower.patches(images, "layer4"), lambda: tower.encode(images, "value", "clip"), lambda: tower.encode(images, "layer4"),
        lambda: tiny_clip.dense(images), lambda: dense_features(vit, images, "tokens"),
    ]  # fmt: skip
    if getattr(images, "dtype", None) != torch.float64:  # the folded tower casts as it is told to
        doors.append(lambda: folded(images))
    for door in doors:
        with pytest.raises(UsageError, match=message):
            door()


def test_modes_are_names(tiny_clip):
    images = torch.zeros(1, 3, 64, 64)
    with pytest.raises(UsageError, match="a dense mode is a name"):
        tiny_clip.image.check_mode(["layer4"])
    with pytest.raises(UsageError, match=r"write \['layer4'\]"):
        tiny_clip.image.patches_in(images, "layer4")
    with pytest.raises(UsageError, match="did you mean 'layer4'"):
        tiny_clip.image.grid((64, 64), "layer5")
    with pytest.raises(UsageError, match="3, H, W"):
        tiny_clip.image.normalised(torch.zeros(1, 1, 8, 8), "clip")  # three channels' means made three of one


@pytest.mark.parametrize("mode", ["layer4", "value", "attnpool"])
def test_half_precision_that_overflows_says_so(tiny_clip, mode):
    """Activations beyond 65504 are fine in float32 and in bfloat16; in float16 they are infinite."""
    loud = copy.deepcopy(tiny_clip)
    for name in ("weight", "bias"):
        getattr(loud.visual.bn3, name).data.mul_(1e8)
    images = torch.randn(1, 3, 64, 64)
    for precision in ("float32", "bfloat16"):
        assert loud.image.encode(images, mode, precision=precision).isfinite().all()
    message = "NaN or infinite in float16: its (activations|weights) pass 65504, .*: use precision float32 or bfloat16"
    with pytest.raises(UsageError, match=message):
        loud.image.encode(images, mode, precision="float16")
    with pytest.raises(UsageError, match=message):
        Folded(loud.image, mode, torch.float16)(images)
    model = DepthTokens(loud, dense=mode)
    with pytest.raises(UsageError, match=message):
        model.image_features(images, "float16")


def test_weights_that_are_no_numbers(tiny_clip):
    broken = copy.deepcopy(tiny_clip)
    broken.visual.conv2.weight.data[0] = torch.nan
    with pytest.raises(UsageError, match="features are NaN or infinite in float32: its weights hold NaN"):
        broken.dense(torch.zeros(1, 3, 64, 64))


def test_a_wide_image_is_as_open_clip_s_own_wide_model():
    """Positions are resized as open_clip resizes them when it builds the model for another size; a model may have been built oblong."""
    torch.manual_seed(0)
    small = open_clip.CLIP(**VIT_CONFIG).eval()
    wide = open_clip.CLIP(**{**VIT_CONFIG, "vision_cfg": {**VIT_CONFIG["vision_cfg"], "image_size": (96, 160)}}).eval()
    state = small.state_dict()
    open_clip.model.resize_pos_embed(state, wide)
    wide.load_state_dict(state)
    images = torch.randn(2, 3, 96, 160)
    with torch.no_grad():
        own = wide.visual.ln_post(wide.visual.transformer(wide.visual._embeds(images)))[:, 1:] @ wide.visual.proj
        expected = dense_features(wide.visual, images, "tokens")
        assert torch.allclose(dense_features(small.visual, images, "tokens"), expected, atol=1e-5)
        assert torch.allclose(expected.flatten(2).transpose(1, 2), F.normalize(own, dim=-1), atol=1e-5)


def test_training_free_reads_are_their_formulas(vit):
    """ClearCLIP, NACLIP and SCLIP written out head by head and patch by patch."""
    images = torch.randn(1, 3, 64, 48)
    (x, (h, w)), block = vit_trunk(vit, images), vit.transformer.resblocks[-1]
    d = 32
    y = block.ln_1(x)[0]
    q, k, v = (part.split(d, dim=-1) for part in (y @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, dim=-1))
    places = [(row, column) for row in range(h) for column in range(w)]
    near = torch.zeros(1 + h * w, 1 + h * w)
    for i, (a, b) in enumerate(places):
        for j, (e, f) in enumerate(places):
            near[1 + i, 1 + j] = math.exp(-((a - e) ** 2 + (b - f) ** 2) / (2 * 5**2))

    def own(t, extra=0.0):
        return [torch.softmax(one @ one.T / d**0.5 + extra, dim=-1) for one in t]

    def attended(weights):
        return block.attn.out_proj(torch.cat([a @ value for a, value in zip(weights, v, strict=True)], dim=-1))

    both = x[0] + attended([a + b for a, b in zip(own(q), own(k), strict=True)])
    expected = {"qq": attended(own(q)), "kk": attended(own(k, near)), "qqkk": both + block.mlp(block.ln_2(both))}
    for mode, tokens in expected.items():
        read = F.normalize(vit.ln_post(tokens[1:]) @ vit.proj, dim=-1)
        assert torch.allclose(dense_features(vit, images, mode)[0].flatten(1).T, read, atol=1e-5), mode


@pytest.mark.parametrize("width", [64, 48])
def test_coca_s_pool_sees_each_token_alone(width):
    """Its weights lie together where tokens are as wide as features, and apart where they are not."""
    torch.manual_seed(0)
    vision = {**VIT_CONFIG["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 4}
    visual = open_clip.CLIP(**{**VIT_CONFIG, "embed_dim": width, "vision_cfg": vision}).visual.eval().requires_grad_(False)
    for bias in (visual.attn_pool.attn.in_proj_bias, visual.attn_pool.ln_k.bias):
        bias += torch.randn_like(bias)
    images = torch.randn(2, 3, 64, 64)
    tokens = visual.transformer(visual._embeds(images))[:, 1:]
    alone = torch.stack([visual._pool(token)[0] @ visual.proj for token in tokens.split(1, dim=1)], dim=1)
    assert torch.allclose(dense_features(visual, images).flatten(2).transpose(1, 2), F.normalize(alone, dim=-1), atol=1e-5)


def test_custom_blocks_have_tokens_alone():
    visual = open_clip.CLIP(**{**VIT_CONFIG, "vision_cfg": {**VIT_CONFIG["vision_cfg"], "scale_fc": True}}).visual.eval()
    assert dense_features(visual, torch.zeros(1, 3, 64, 64)).isfinite().all()
    for mode in ("value", "qq", "kk", "qqkk"):
        with pytest.raises(UsageError, match=f"'{mode}' needs open_clip's standard attention blocks: use 'tokens'"):
            dense_features(visual, torch.zeros(1, 3, 64, 64), mode)


def test_a_clip_names_its_default(tiny_clip, vit_clip):
    images = torch.randn(1, 3, 64, 64)
    for clip, mode in ((tiny_clip, "layer4"), (vit_clip, "tokens")):
        assert clip.default_dense == mode == DepthTokens(clip).settings.dense
        assert torch.equal(clip.dense(images), clip.dense(images, mode))
        for whole in (clip, clip.model, clip.visual):
            assert torch.equal(dense_features(whole, images), clip.dense(images, mode))


def test_photos_come_as_the_clip_was_trained(vit_clip, tmp_path):
    picture = photo(40, 60)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    ready = vit_clip.preprocess(tmp_path / "photo.png")
    assert ready.shape == (1, 3, 64, 96) and vit_clip.dense(ready).shape[2:] == (4, 6)
    same = vit_clip.preprocess(picture, side=40)  # to whole patches
    assert same.shape == (1, 3, 48, 64)
    plain = vit_clip.preprocess(photo(48, 64), side=48)[0] * torch.tensor(OPENAI_DATASET_STD)[:, None, None]
    plain = (plain + torch.tensor(OPENAI_DATASET_MEAN)[:, None, None]) * 255
    assert np.array_equal(plain.permute(1, 2, 0).round().numpy(), photo(48, 64))
    with pytest.raises(UsageError, match="at least 16, which is one patch"):
        vit_clip.preprocess(picture, side=8)
