"""OpenAI's layout, read as open_clip 3 reads it."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch.testing import assert_close

from depthtokens import load_clip
from depthtokens.clip.load import fingerprint
from depthtokens.clip.openai import build_openai, openai_config

builder = pytest.mark.skipif(not hasattr(open_clip.model, "build_model_from_openai_state_dict"), reason="open_clip 4 has no such function")
CONFIGS = [
    {"image_size": 96, "layers": [1, 2, 1, 3], "width": 8},
    {"image_size": 80, "layers": 3, "width": 128, "patch_size": 16},
]
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}


@builder
@pytest.mark.parametrize("vision", CONFIGS, ids=["ResNet", "ViT"])
def test_as_open_clip_reads_it(vision, tmp_path):
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=TEXT, quick_gelu=True)
    state = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    config = openai_config(state)
    assert config["embed_dim"] == 32 and vision.items() <= config["vision_cfg"].items() and config["text_cfg"] == TEXT
    expected = open_clip.model.build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
    assert str(build_openai(state)) == str(expected)
    torch.save(state, tmp_path / "half.pt")
    with pytest.warns(UserWarning, match="does not say its activation"):
        clip = load_clip(tmp_path / "half.pt")
    assert clip.fingerprint == fingerprint(expected)
    images, words = torch.randn(2, 3, vision["image_size"], vision["image_size"]), clip.tokenizer.tokenizer(["a door", "far"], 20)
    with torch.no_grad():
        assert_close(clip.model.encode_image(images), expected.encode_image(images))
        assert_close(clip.model.encode_text(words), expected.encode_text(words))


def test_published_architectures():
    """The numbers of heads, layers and pixels that OpenAI's largest of each kind has."""
    for name in ("RN50x64", "ViT-L-14-336"):
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            found = openai_config(open_clip.CLIP(**config).state_dict())
        assert found["embed_dim"] == config["embed_dim"] and found["text_cfg"] == config["text_cfg"]
        assert {key: found["vision_cfg"].get(key) for key in config["vision_cfg"]} == config["vision_cfg"]
