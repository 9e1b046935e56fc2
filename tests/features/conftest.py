"""What tests of this room share."""

from __future__ import annotations

import pytest
import torch

from depthtokens.clip.load import FrozenCLIP
from stores import make, make_folder, opened


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("folder") / "data", [(64, 96)] * 7)


@pytest.fixture(scope="session")
def vit():
    import open_clip

    torch.manual_seed(0)
    vision = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    return FrozenCLIP(open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text), "tiny ViT", None)


@pytest.fixture
def store(tiny_clip, folder, tmp_path):
    return make(tiny_clip, opened(folder), tmp_path / "store")
