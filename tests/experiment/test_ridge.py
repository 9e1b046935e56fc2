"""The ridge control: its strength is the best on held-out images, and a part of a source is its own draw of each seed."""

from __future__ import annotations

import pytest
import torch

from depthtokens import DataError
from depthtokens.depth.loss import MIN_TRUTH, patch_truth
from depthtokens.experiment import ridge as module
from depthtokens.experiment.evaluate import score_heads
from depthtokens.experiment.ridge import PARTS, STRENGTHS, UNCHOSEN, learn_ridge, ridge_for
from depthtokens.experiment.source import HELD_OUT, Reading, Stored, drawn
from depthtokens.experiment.subset import Subset, subset
from helpers import make_model as make


def rows_of(store, images):
    """Features [P, C] and log depth [P] of the patches that have truth, in double precision."""
    patches = store.read(images, "value").double()
    truth = patch_truth(store.truth(images), (patches.shape[-2], patches.shape[-1])).flatten()
    return patches.permute(0, 2, 3, 1).flatten(0, 2)[truth > MIN_TRUTH], truth[truth > MIN_TRUTH].double().log()


def fitted(features, wanted, strength):
    """Weights and constant, from the rows themselves."""
    centred = features - features.mean(dim=0)
    penalty = strength * centred.square().mean() * len(centred) * torch.eye(centred.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(centred.T @ centred + penalty, centred.T @ (wanted - wanted.mean()))
    return weight, wanted.mean() - features.mean(dim=0) @ weight


def test_strength_is_the_best_on_held_out_images(store):
    images, errors = range(len(store)), dict.fromkeys(STRENGTHS, 0.0)
    parts = drawn(5, 0, HELD_OUT).permutation(len(store)) % PARTS
    for part in range(PARTS):
        held = rows_of(store, [i for i in images if parts[i] == part])
        rest = rows_of(store, [i for i in images if parts[i] != part])
        for strength in STRENGTHS:
            weight, bias = fitted(*rest, strength)
            errors[strength] += float((held[0] @ weight + bias - held[1]).square().sum())
    best = min(errors, key=errors.get)
    ridge = learn_ridge(Stored(store, "value"), seed=5)
    assert ridge.strength == best
    weight, bias = fitted(*rows_of(store, images), best)  # on all images
    assert torch.allclose(ridge.weight.double(), weight, rtol=1e-3, atol=1e-4) and ridge.bias == pytest.approx(float(bias), rel=1e-4)


def test_one_image_and_none(store, scenes):
    assert learn_ridge(Stored(store, "value"), [3]).strength == UNCHOSEN
    empty = Stored(store, "value")
    empty.store = type("Empty", (), {"views": store.views, "read": store.read, "truth": lambda _, i, view: 0 * store.truth(i, view)})()
    with pytest.raises(DataError, match="no valid depth to fit a ridge to"):
        learn_ridge(empty)


def test_images_and_their_store_give_one_ridge(tiny_clip, scenes, store, monkeypatch):
    monkeypatch.setattr(module, "STRENGTHS", (1.0,))  # weaker ones fit what half precision rounds
    model = make(tiny_clip, dense="value")
    stored = learn_ridge(Stored(store, "value"))
    read = ridge_for(model, scenes, Reading(workers=0))
    heads = {"stored": stored, "read": read}
    scores = score_heads(heads, Stored(store, "value"), "auty2023")
    assert scores["read"].quoted == pytest.approx(scores["stored"].quoted, rel=1e-3)
    assert scores["read"].protocol.flip  # it looks at the image


def test_subsets_are_nested_and_seeded(store):
    assert subset(12, 8, 1)[:4] == subset(12, 4, 1) != subset(12, 4, 2)
    assert sorted(subset(12, 99, 1)) == list(range(12))
    some = Subset(Stored(store, "value"), 4)
    assert len(some.names) == 4
    (batch,) = some.training(0, [3, 0], 2, seed=1)
    chosen = subset(12, 4, 1)
    assert torch.equal(batch.patches, store.read([chosen[3], chosen[0]], "value"))
