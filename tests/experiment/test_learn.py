"""Training from stored features: side by side, from a store as from images, and what a store is refused for."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from depthtokens import DataError, DepthTokens, Experiment, Scenes, TrainingError, UsageError, evaluate, load_clip, silog, train
from depthtokens.data import open_dataset
from depthtokens.scenes.dataset import SCENES
from depthtokens.depth.protocol import find_protocol
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.learn import Learner, TextPass, fit
from depthtokens.experiment.source import Images, Reading, Stored, open_source
from depthtokens.experiment.source import test_views as shown_views
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write


def make(clip, **changes):
    return DepthTokens(clip, **{"depth": "learned:5", "dense": "value", "scale": 50, "depth_range": (0.5, 10.0), **changes})


@pytest.fixture(scope="module")
def scenes():
    return Scenes("indoor", "train", 12, size=(64, 96), seed=3)


@pytest.fixture(scope="module")
def store(tiny_clip, scenes, tmp_path_factory):
    return write(plan(tiny_clip, scenes, Views(mirrored=True), ["value", "layer4"]), tmp_path_factory.mktemp("store"), workers=0)


@pytest.mark.parametrize("protocol", ["auty2023", "pooled"])
@pytest.mark.parametrize("mode", ["value", "layer4"])
def test_scores_from_a_store_are_those_from_images(tiny_clip, scenes, store, mode, protocol):
    model = make(tiny_clip, dense=mode)
    images, stored = evaluate(model, scenes, protocol, workers=0), evaluate(model, store, protocol)
    assert stored.quoted == pytest.approx(images.quoted, abs=1e-4, rel=1e-4) and stored.quoted != images.quoted
    assert [row["name"] for row in stored.per_image] == [row["name"] for row in images.per_image]


def test_losses_from_a_store_are_those_from_images(tiny_clip, scenes, store):
    def run(source):
        model = make(tiny_clip)
        return fit([Learner(model, 6, lr=0.01)], source, batch_size=4)[0], model

    model = make(tiny_clip)
    (images, _), (stored, _) = run(Images(scenes, model.image_features, views=1, workers=0)), run(Stored(store, "value"))
    assert stored == pytest.approx(images, rel=1e-3)


def test_mirrored_views_come_with_mirrored_truth(scenes, store):
    (batch,) = Stored(store, "value", flip_seed=42).training(0, range(12), 12)
    plain, truth = store.read(range(12), "value"), store.truth(range(12))
    mirrored = store.read(range(12), "value", mirrored=True)
    kinds = []
    for patches, depth in zip(batch.patches, batch.truth, strict=True):
        kind, i = next(
            (kind, i) for i in range(12) for kind, source in (("plain", plain), ("mirrored", mirrored)) if torch.equal(patches, source[i])
        )
        assert torch.equal(depth, truth[i] if kind == "plain" else truth[i].flip(-1))
        kinds.append(kind)
    assert set(kinds) == {"plain", "mirrored"}


def test_side_by_side_is_alone(tiny_clip, store):
    kinds = [{}, {"seed": 1}, {"depth": "learned:7", "bins": "log"}, {"template": "1o1d"}, {"depth": "path:3:6"},
             {"depth": "depth-7", "scale": "learned"}]  # fmt: skip
    together = [make(tiny_clip, **kind) for kind in kinds]
    histories = fit([Learner(model, 6, lr=0.02) for model in together], Stored(store, "value", flip_seed=42), batch_size=4)
    for kind, model, losses in zip(kinds, together, histories, strict=True):
        alone = make(tiny_clip, **kind)
        (expected,) = fit([Learner(alone, 6, lr=0.02)], Stored(store, "value", flip_seed=42), batch_size=4)
        assert losses == pytest.approx(expected, rel=5e-3) and len(losses) == 6
        for name, value in alone.trainable().items():
            # AdamW turns rounding into steps where a gradient is nearly zero: nearly all numbers agree, not each.
            moved = (value - make(tiny_clip, **kind).trainable()[name]).abs().mean()
            assert moved > 0 and (value - model.trainable()[name]).abs().mean() < 0.05 * moved, name


def test_one_text_pass_for_all_that_share_a_template(tiny_clip, monkeypatch):
    models = [make(tiny_clip), make(tiny_clip, seed=1), make(tiny_clip, depth="path:2:9"), make(tiny_clip, depth="depth-7")]
    texts = TextPass(models)
    calls = []
    monkeypatch.setattr(tiny_clip.text, "after_prefix", lambda *a, f=tiny_clip.text.after_prefix: calls.append(1) or f(*a))
    found = texts()
    assert len(calls) == 1
    for model, features in zip(models, found, strict=True):
        assert torch.allclose(features, model.text_features(), atol=1e-6)


def test_fit_learns_and_repeats_itself(tiny_clip, scenes, store):
    def run():
        model = make(tiny_clip)
        return model, fit([Learner(model, 60, lr=0.03)], Stored(store, "value", flip_seed=42), batch_size=4)[0]

    (model, losses), (again, same) = run(), run()
    assert losses == same and torch.equal(model.tokens["depth"], again.tokens["depth"])
    assert sum(losses[-6:]) < sum(losses[:6])
    assert evaluate(model, store).quoted["rmse_log"] < evaluate(make(tiny_clip), store).quoted["rmse_log"]
    with pytest.raises(TrainingError, match="nothing to learn"):
        Learner(make(tiny_clip, depth="depth-7"), 2)


def test_fixed_views_are_stored_by_themselves_and_train_alike(nyu_tree, tiny_file, tmp_path):
    settings = {"data": f"nyu:{nyu_tree}", "clip": str(tiny_file), "epochs": 2, "batch_size": 3, "workers": 0, "crop": (64, 96), "views": 2,
                "dense": "value", "scale": "50"}  # fmt: skip
    told = []
    stored = train(Experiment(**settings, out=str(tmp_path / "stored")), notify=told.append)
    again = train(Experiment(**settings, out=str(tmp_path / "again")), notify=told.append)
    images = train(Experiment(**settings, cache=False, out=str(tmp_path / "images")), notify=told.append)
    assert len(told) == 1 and "6 images" in told[0] and "--no-cache" in told[0]
    assert again.epoch_losses == stored.epoch_losses == pytest.approx(images.epoch_losses, rel=1e-3)


def test_a_store_in_the_place_of_data(nyu_tree, tiny_file, tiny_clip, tmp_path):
    data = open_dataset(f"nyu:{nyu_tree}", "train")
    write(plan(tiny_clip, data, Views(), ["value"]), tmp_path / "store", workers=0)
    settings = {"data": f"store:{tmp_path / 'store'}", "clip": str(tiny_file), "epochs": 1, "batch_size": 3, "scale": "50"}
    result = train(Experiment(**settings, dense="value", out=str(tmp_path / "run")))
    assert result.model.settings.predict_side == 480 and result.model.depth_range == (0.001, 10.0)
    with pytest.raises(DataError, match="holds dense value, not layer4"):
        train(Experiment(**settings, out=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="adapt"):
        train(Experiment(**settings, dense="value", batchnorm="adapt", out=str(tmp_path / "other")))
    with pytest.raises(DataError, match="normalised"):
        train(Experiment(**settings, dense="value", normalisation="clip", out=str(tmp_path / "other")))
    with pytest.raises(DataError, match="no mirror images"):
        evaluate(result.model, source_store(tmp_path / "store"))
    saved = DepthTokens.load(result.tokens).provenance.training["store"]
    assert saved["split"] == "train" and saved["views"]["count"] == 1 and saved["data_fingerprint"] == data.fingerprint()
    for changes, message in (({"views": 4}, "holds 1 views"), ({"crop": (64, 96), "views": 0}, "leave out --crop")):
        with pytest.raises(UsageError, match=message):
            train(Experiment(**settings, **changes, dense="value", out=str(tmp_path / "other")))


def test_stores_that_are_not_trained_on(nyu_tree, tiny_file, tiny_clip, tmp_path):
    shutil.copytree(nyu_tree, tmp_path / "data")
    for split in ("train", "test"):
        write(plan(tiny_clip, open_dataset(f"nyu:{tmp_path / 'data'}", split), Views(), ["layer4"]), tmp_path / split, workers=0)
    settings = {"clip": str(tiny_file), "epochs": 1, "batch_size": 3, "out": str(tmp_path / "run")}
    with pytest.raises(UsageError, match="holds a test split"):
        train(Experiment(data=f"store:{tmp_path / 'test'}", **settings))
    depth = next((tmp_path / "data" / "sync").rglob("sync_depth_00001.png"))
    depth.write_bytes(next((tmp_path / "data" / "sync").rglob("sync_depth_00002.png")).read_bytes())
    with pytest.raises(DataError, match="has changed since"):
        train(Experiment(data=f"store:{tmp_path / 'train'}", **settings))
    sizes = tmp_path / "sizes" / "train"
    for kind in ("images", "depth"):
        (sizes / kind).mkdir(parents=True)
    for i, side in enumerate((64, 96)):
        Image.fromarray(np.full((side, 96, 3), 99, np.uint8)).save(sizes / "images" / f"{i}.png")
        Image.fromarray(np.full((side, 96), 2000, np.uint16)).save(sizes / "depth" / f"{i}.png")
    with pytest.raises(UsageError, match=r"differ in size \(64x96, 96x96\): give --views K --crop"):
        train(Experiment(data=f"folder:{tmp_path / 'sizes'}", depth_scale=1000, views=1, **settings))
    assert not (tmp_path / "run").exists()


def test_what_clip_was_shown_is_what_is_learned_from(tiny_clip, nyu_tree, tmp_path):
    """Features of a protocol's crop come with the truth of that crop: the truth of the whole image would be stretched over it."""
    data, crop = open_dataset(f"nyu:{nyu_tree}", "train"), find_protocol("depthclip").input_crop
    store = write(plan(tiny_clip, data, Views(input_crop=crop), ["layer4"]), tmp_path / "store", workers=0)
    (batch,) = Stored(store, "layer4").training(0, [1, 4], 2)
    top, bottom, left, right = crop
    assert torch.equal(batch.truth, torch.stack([data[i].depth[:, top:bottom, left:right] for i in (1, 4)]))


def test_random_views_of_scenes_follow_the_seed(monkeypatch):
    monkeypatch.setitem(SCENES, "train", 2)
    one, other = (open_dataset("scenes", "train", augment=True, seed=seed) for seed in (1, 2))
    assert one.fingerprint() == other.fingerprint() and (one.seed, other.seed) == (1, 2)


def source_store(path):
    from depthtokens.features.store import FeatureStore

    return FeatureStore(path)


def test_clip_normalisation_from_images_and_store(tiny_clip, scenes, tmp_path):
    model, plain = make(tiny_clip, normalisation="clip"), make(tiny_clip)
    protocol = find_protocol("auty2023")
    scores = [
        score_heads({"row": head_of(model)}, open_source(model, scenes, views, Reading(cache=cache, workers=0)), protocol)["row"].quoted
        for cache, views in ((False, None), (True, shown_views(protocol, "clip")))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert scores[0]["abs_rel"] != pytest.approx(evaluate(plain, scenes, workers=0).quoted["abs_rel"], abs=1e-4)


def test_path_tokens_learn_their_anchors_alone(tiny_clip):
    model = make(tiny_clip, depth="path:3:9")
    vectors, anchors = model.vectors(), model.tokens["depth"]
    assert anchors.shape == (3, 64) and vectors.shape == (9, 64)
    assert torch.allclose(vectors[[0, 4, 8]], anchors, atol=1e-6) and torch.allclose(vectors[2], (anchors[0] + anchors[1]) / 2, atol=1e-6)
    silog(model.depth_from(torch.randn(1, 64, 2, 3), model.text_features()).depth, torch.rand(1, 1, 8, 9) + 1).backward()
    assert anchors.grad is not None and (anchors.grad.abs().amax(dim=1) > 0).all()
    for spec in ("path:7", "path:1:9", "path:9:7", "path:a:b", "path:7:x:256", "path:7:256:log"):
        with pytest.raises(UsageError, match="path:7:256"):
            make(tiny_clip, depth=spec)


def test_path_tokens_are_saved_as_anchors(tiny_clip, tmp_path):
    model = make(tiny_clip, depth="path:3:9", template="1o1d")
    model.save(tmp_path / "path.safetensors")
    again = DepthTokens.load(tmp_path / "path.safetensors", tiny_clip)
    assert torch.equal(again.tokens["depth"], model.tokens["depth"]) and torch.equal(again.text_features(), model.text_features())


def test_prefixes_are_computed_once(tiny_file, monkeypatch):
    clip = load_clip(str(tiny_file))
    calls = []
    monkeypatch.setattr(clip.text, "prefix_states", lambda *a, f=clip.text.prefix_states: calls.append(1) or f(*a))
    with torch.inference_mode():
        before = make(clip).text_features()
    model = make(clip)
    model.text_features().sum().backward()  # what inference mode left behind can be trained on
    assert len(calls) == 1 and torch.equal(before, model.text_features())
    context = make(clip, template="1o1d")
    context.text_features()
    context.text_features()
    assert len(calls) == 3  # learned prefixes change
