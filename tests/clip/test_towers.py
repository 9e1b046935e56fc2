"""Every kind of image tower that open_clip has, shrunk: one body of tests, which a new architecture is in by being there."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import towers
from depthtokens import UsageError, dense_features
from depthtokens.clip import timm
from depthtokens.clip.fold import Folded
from depthtokens.clip.image import ImageTower
from depthtokens.clip.load import fingerprint

RESIZING = ("EVA", "MobileCLIP-B", "MobileCLIP2-B", "MobileCLIP2-L", "PE", "SigLIP", "siglip", "ViTamin", "gap")
LINEAR = ("MobileCLIP2-S", "MobileCLIP-S", "swin", "gap")
"""Names of towers whose head is linear behind its mean over positions."""


def embedding(visual, images):
    made = visual(images)
    return made[0] if isinstance(made, tuple) else made  # CoCa's gives its tokens too


@pytest.mark.parametrize("name", towers.kinds())
def test_towers(name):
    torch.manual_seed(0)
    visual = towers.shrunk(name)
    tower, before = ImageTower(visual), fingerprint(visual)
    height, width = tower.image_size
    stride = tower.trunk_stride
    own, other = torch.randn(2, 3, height, width), torch.randn(1, 3, 3 * stride + 5, 2 * stride)
    first = embedding(visual, own)
    assert tower.channels == first.shape[1] and next(iter(tower.modes)) == tower.default
    for mode in tower.modes:
        for images in (own, other):
            if images is other and tower.fixed_size:
                with pytest.raises(UsageError, match=rf"relative positions are for images of {height}x{width} alone"):
                    tower.patches(images, mode)
                continue
            features = tower.patches(images, mode)
            assert features.shape == (len(images), tower.channels, *tower.grid(images.shape[-2:], mode)) and features.isfinite().all()
            assert features.shape[2] == images.shape[2] // stride
            if mode not in ("layer4", "last"):
                assert_close(features.norm(dim=1), torch.ones(len(features), *features.shape[2:]))
            assert features.flatten(2).std(dim=-1).mean() > 1e-4  # patches differ
        folded = Folded(tower, mode)
        text = torch.randn(5, tower.channels)
        vectors = folded(own)
        logits = F.linear(vectors, folded.weights_for(text)) / vectors.norm(dim=-1, keepdim=True)
        expected = torch.einsum("bchw,nc->bhwn", tower.patches(own, mode), text)
        assert_close(logits, expected, atol=2e-4, rtol=1e-3)
    if not tower.fixed_size:
        with pytest.raises(UsageError, match="smaller than one"):
            tower.patches(other[..., : stride - 1], tower.default)
    assert fingerprint(visual) == before and torch.equal(embedding(visual, own), first)  # nothing was resized in place
    if tower.family is timm.TIMM:
        network, seen = visual.trunk, timm.trunk(visual, own)
        alone = timm.positions(visual, seen)
        whole = network.forward_features(own)
        if whole.ndim == 3:  # nothing changes at the tower's own size
            tokens = whole[:, network.num_prefix_tokens :]
            assert torch.equal(network.norm(seen.flatten(2).transpose(1, 2)), tokens)
        if any(part in name for part in LINEAR):
            assert_close(alone.mean(dim=1), first, atol=1e-5, rtol=1e-4)
        if getattr(network, "attn_pool", None) is not None:  # of one position, attention is its value
            pool = network.attn_pool
            value = pool.proj(pool.kv(tokens)[..., network.embed_dim :])
            value = visual.head(network.head(network.fc_norm(value + pool.mlp(pool.norm(value)))))
            assert_close(alone, value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in towers.kinds() if any(part in name for part in RESIZING)])
def test_positions_are_resized_as_timm_does_it_when_it_builds_for_any_size(name):
    """Rotary positions and position embeddings, of a network that was built for one size."""
    visual, anysize = towers.shrunk(name), towers.shrunk(name, dynamic_img_size=True)
    anysize.load_state_dict(visual.state_dict())
    stride = ImageTower(visual).trunk_stride
    images = torch.randn(2, 3, 5 * stride, 3 * stride)
    seen = visual.trunk.norm(timm.trunk(visual, images).flatten(2).transpose(1, 2))
    assert_close(seen, anysize.trunk.forward_features(images)[:, visual.trunk.num_prefix_tokens :], atol=1e-5, rtol=1e-5)
    assert_close(dense_features(anysize, images), dense_features(visual, images), atol=1e-5, rtol=1e-5)


def test_a_vit_exports_for_any_size():
    """Its own grid, another with as many rows, and one that has nothing in common with it."""
    tower = ImageTower(towers.shrunk("ViT-B-16"))
    folded, free = Folded(tower, "tokens"), dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(folded, (torch.randn(2, 3, 97, 161),), dynamic_shapes=(free,)).module()
    for size in (tower.image_size, (48, 80), (64, 33)):
        images = torch.randn(3, 3, *size)
        assert_close(exported(images), folded(images), atol=1e-5, rtol=1e-5)


if __name__ == "__main__":  # not one of each kind but every single model, which takes a minute
    for model in open_clip.list_models():
        test_towers(model)
        print(model, flush=True)
