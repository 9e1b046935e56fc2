"""The CLIP that comes with the package: it loads, is what plain open_clip reads, is refused when altered, and knows its scenes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from depthtokens import DepthTokens, WeightsError, load_clip
from depthtokens.clip import bundled
from depthtokens.clip.bundled import FOLDER, WEIGHTS, checked_folder, trained_tokens
from depthtokens.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from depthtokens.prompt.encoder import PromptEncoder
from depthtokens.prompt.scales import SCALES
from depthtokens.prompt.template import TEMPLATES
from depthtokens.scenes import Scenes


@pytest.fixture(scope="module")
def clip():
    return load_clip("bundled")


@pytest.fixture(scope="module")
def plain():
    return open_clip.create_model(f"local-dir:{FOLDER}").eval()


def test_it_is_small_and_named(clip):
    assert sum(path.stat().st_size for path in FOLDER.glob("open_clip*")) <= 25e6
    assert clip.name == "bundled" and len(clip.fingerprint) == 64 and clip.text.causal
    assert not any(parameter.requires_grad for parameter in clip.parameters())


def test_plain_open_clip_reads_the_same_model(clip, plain):
    side = plain.visual.image_size
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    texts = ["a small red ball close to the camera", "this object appears to be very distant"]
    with torch.inference_mode():
        torch.testing.assert_close(clip.model.encode_image(images), plain.encode_image(images))
        expected = plain.encode_text(open_clip.SimpleTokenizer()(texts))
        torch.testing.assert_close(PromptEncoder(clip)(texts), expected, atol=1e-4, rtol=1e-4)
    assert plain.visual.image_mean == pytest.approx(IMAGENET_MEAN) and plain.visual.image_std == pytest.approx(IMAGENET_STD)


@pytest.mark.parametrize("mode", ["layer4", "attnpool", "value"])
def test_dense_features_of_any_shape(clip, mode):
    with torch.inference_mode():
        assert clip.dense(torch.randn(1, 3, 208, 272), mode).shape == (1, 256, 6, 8)


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "bundled"
    shutil.copytree(FOLDER, folder)
    assert checked_folder(folder) == folder
    weights = bytearray((folder / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (folder / WEIGHTS).write_bytes(weights)
    monkeypatch.setattr(bundled.checked_folder, "__defaults__", (folder,))
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        load_clip("bundled")
    assert "\n" not in str(caught.value)
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightsError, match="not complete"):
        load_clip("bundled")


def test_trained_words_are_listed_and_are_all_that_is_used(clip, plain):
    trained = trained_tokens()
    decoder = {index: token for token, index in open_clip.SimpleTokenizer().encoder.items()}
    assert 300 < len(trained) < 2000 and all(decoder[index] == token for index, token in trained.items())
    for domain in ("indoor", "road"):
        scenes = Scenes(domain, "test", 6, (52, 68), seed=3)
        used = {index for i in range(6) for draw in range(10) for index in clip.tokenizer.ids(scenes.caption(i, draw))}
        assert used <= trained.keys()
    words = [str(word) for name in ("depth-7", "size-7", "colour-7", "depthclip") for word in SCALES[name]]
    for text in [*words, TEMPLATES["baseline"].replace("{depth}", ""), TEMPLATES["depthclip"].replace("{depth}", "")]:
        assert set(clip.tokenizer.ids(text)) <= trained.keys(), text
    rows = clip.text.embedding.weight
    untrained = torch.tensor([index not in trained for index in range(len(rows))])
    assert rows[untrained].std() == pytest.approx(0.02, rel=0.01)  # as drawn
    assert rows[~untrained].std() > 0.022


def test_pictures_find_their_captions(clip):
    side = clip.visual.image_size
    images, captions = [], []
    for domain in ("indoor", "road"):
        scenes = Scenes(domain, "test", 50, (208, 272), seed=11)
        images += [scenes[i].image for i in range(50)]
        captions += [scenes.caption(i) for i in range(50)]
    with torch.inference_mode():
        squares = F.interpolate(torch.stack(images), size=(side, side), mode="bilinear", antialias=True)
        features = F.normalize(clip.model.encode_image(squares), dim=-1)
        texts = F.normalize(PromptEncoder(clip)(captions), dim=-1)
    found = (features @ texts.T).argmax(1) == torch.arange(100)
    assert found.float().mean() >= 0.4  # chance 0.01; MODEL_CARD.md has the figures over 1,000 scenes


def test_words_for_distance_mean_something_to_the_value_path(clip):
    """Nearer scenes are given nearer words."""
    scenes = Scenes("indoor", "test", 16, (208, 272), seed=12)
    model = DepthTokens(clip, depth="depth-7", dense="value", depth_range=(0.001, 10.0))
    means, truths = [], []
    for i in range(16):
        sample = scenes[i]
        with torch.inference_mode():
            means.append(float(model(sample.image[None]).depth.mean()))
        truths.append(float(sample.depth[sample.depth > 0].mean()))
    assert np.corrcoef(np.log(means), np.log(truths))[0, 1] > 0.5


def test_the_folder_is_described(clip):
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "photograph" in card and "MIT" in card and str(len(trained_tokens())) in card
    assert json.loads((FOLDER / "open_clip_config.json").read_text())["preprocess_cfg"]["mean"] == pytest.approx(IMAGENET_MEAN)
