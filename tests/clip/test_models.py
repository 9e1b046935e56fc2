"""What is said of open_clip's models, against the models themselves."""

from __future__ import annotations

from dataclasses import asdict

import open_clip
import pytest

from depthtokens import UsageError
from depthtokens.clip.image import ImageTower
from depthtokens.clip.models import find_models
from depthtokens.clip.text import TextTower


def test_a_sketch_says_what_the_model_is():
    (said,) = find_models(name := "ViT-S-32-alt")
    model = open_clip.create_model(name, load_weights=False)
    tower, text = ImageTower(model.visual), TextTower(model)
    assert (said.name, said.dense, said.stride, said.channels) == (name, tuple(tower.modes), tower.trunk_stride, tower.channels)
    assert (said.image_size, said.any_size) == (tower.image_size, True)
    assert (said.width, said.context, said.text) == (text.width, text.context_length, "causal")
    assert text.causal
    assert said.image_parameters == sum(weight.numel() for weight in model.visual.parameters())
    rest = sum(weight.numel() for weight in model.parameters()) - said.image_parameters
    assert rest - said.text_parameters in (1, 2)  # logit scale and bias belong to no tower
    assert said.tags == tuple(open_clip.list_pretrained_tags_by_model(name))


def test_patterns():
    assert [model.name for model in find_models("siglip2-5")] == [
        "ViT-B-16-SigLIP2-512",
        "ViT-L-16-SigLIP2-512",
        "ViT-SO400M-16-SigLIP2-512",
    ]
    (swin,) = find_models("swin*")
    assert not swin.any_size and swin.image_size == (224, 224) and swin.tags == ()
    assert find_models("ViTamin-XL-384")[0].image_size == (384, 384)  # its network's; open_clip's configuration says 256
    (coca,) = find_models("coca_rob*")
    assert (coca.text, coca.width, coca.text_parameters) == ("roberta-base", None, None)
    assert asdict(find_models("ViT-L-14-CLIPA")[0]) | {"tags": (), "dense": ()} == {
        "name": "ViT-L-14-CLIPA", "tags": (), "text": "bidirectional", "width": 768, "context": 32, "dense": (), "stride": 14,
        "image_size": (224, 224), "any_size": True, "channels": 768, "image_parameters": 303964160, "text_parameters": 110246400,
    }  # fmt: skip
    with pytest.raises(UsageError, match="no CLIP model has 'RN51' in its name"):
        find_models("RN51")
