"""Sources: what training is shown from images and from a store."""

from __future__ import annotations

import pytest
import torch

from depthtokens import evaluate
from depthtokens.data import open_dataset
from depthtokens.depth.protocol import find_protocol
from depthtokens.experiment.evaluate import head_of, score_heads
from depthtokens.experiment.source import Reading, Stored, open_source
from depthtokens.experiment.source import scored_views as shown_views
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from depthtokens.scenes.dataset import SCENES
from helpers import make_model as make


def test_mirrored_views_come_with_mirrored_truth(scenes, store):
    (batch,) = Stored(store, "value", flip=True).training(0, range(12), 12)
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


def test_clip_normalisation_from_images_and_store(tiny_clip, scenes, tmp_path):
    model, plain = make(tiny_clip, normalisation="clip"), make(tiny_clip)
    protocol = find_protocol("auty2023")
    scores = [
        score_heads({"row": head_of(model)}, open_source(model, scenes, views, Reading(cache=cache, workers=0)), protocol)["row"].quoted
        for cache, views in ((False, None), (True, shown_views(protocol, "clip")))
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert scores[0]["abs_rel"] != pytest.approx(evaluate(plain, scenes, workers=0).quoted["abs_rel"], abs=1e-4)
