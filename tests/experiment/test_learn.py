"""The training loop: the released recipe, models side by side, from a store as from images."""

from __future__ import annotations

import pytest
import torch

from depthtokens import DepthTokens, TrainingError, bin_cross_entropy, evaluate, make_optimizer, silog
from depthtokens.depth.linear import LinearHead
from depthtokens.experiment.learn import Learner, TextPass, fit, update
from depthtokens.experiment.source import Batch, Images, Stored
from helpers import make_model as make


def test_optimizer_is_the_released_recipe(tiny_clip):
    optimizer, scheduler = make_optimizer(DepthTokens(tiny_clip), 100)
    group = optimizer.param_groups[0]
    assert group["weight_decay"] == 0.1 and group["lr"] == pytest.approx(3.57e-4 / 25) and group["betas"][0] == pytest.approx(0.95)
    rates = []
    for _ in range(99):
        optimizer.step()
        scheduler.step()
        rates.append(group["lr"])
    assert max(rates) == pytest.approx(3.57e-4, rel=1e-3) and rates[-1] == pytest.approx(3.57e-4 / 25 / 100, rel=1e-6)


def test_a_learned_scale_goes_faster_and_does_not_decay(tiny_clip):
    model = DepthTokens(tiny_clip, depth="depth-7", scale="learned")
    optimizer, scheduler = make_optimizer(model, 100)
    before = model.log_scale.item()
    for _ in range(99):
        model.log_scale.grad = torch.zeros(())
        optimizer.step()
        scheduler.step()
    assert model.log_scale.item() == before  # no pull where the loss has none
    optimizer, scheduler = make_optimizer(model, 100)
    for _ in range(99):
        model.log_scale.grad = torch.ones(())
        optimizer.step()
        scheduler.step()
    assert model.log_scale.item() < before - 1  # can be an e-th within a hundred steps
    tokens, scale = make_optimizer(DepthTokens(tiny_clip, scale="learned"), 100)[0].param_groups
    assert (tokens["weight_decay"], scale["weight_decay"]) == (0.1, 0) and scale["lr"] == pytest.approx(100 * tokens["lr"])


def test_losses_from_a_store_are_those_from_images(tiny_clip, scenes, store):
    def run(source):
        model = make(tiny_clip)
        return fit([Learner(model, 6, lr=0.01)], source, batch_size=4)[0], model

    model = make(tiny_clip)
    (images, _), (stored, _) = run(Images(scenes, model.image_features, views=1, workers=0)), run(Stored(store, "value"))
    assert stored == pytest.approx(images, rel=1e-3)


def test_side_by_side_is_alone(tiny_clip, store):
    kinds = [{}, {"seed": 1}, {"depth": "learned:7", "bins": "log"}, {"template": "1o1d"}, {"depth": "path:3:6"},
             {"depth": "depth-7", "scale": "learned"}, {"condition": "shift"}, {"depth": "depth-7", "condition": "gain"}]  # fmt: skip
    together = [make(tiny_clip, **kind) for kind in kinds]
    histories = fit([Learner(model, 6, lr=0.02) for model in together], Stored(store, "value", flip=True), batch_size=4)
    for kind, model, losses in zip(kinds, together, histories, strict=True):
        alone = make(tiny_clip, **kind)
        (expected,) = fit([Learner(alone, 6, lr=0.02)], Stored(store, "value", flip=True), batch_size=4)
        assert losses == pytest.approx(expected, rel=5e-3) and len(losses) == 6
        for name, value in alone.trainable().items():
            # AdamW turns rounding into steps where a gradient is nearly zero: nearly all numbers agree, not each.
            moved = (value - make(tiny_clip, **kind).trainable()[name]).abs().mean()
            assert moved > 0 and (value - model.trainable()[name]).abs().mean() < 0.05 * moved, name


def test_every_learner_has_its_objective(tiny_clip, store):
    """Side by side, tokens, a linear head and tokens with a condition: the term beside SILog is in each loss as its weight says."""
    models = [make(tiny_clip), make(tiny_clip), make(tiny_clip), LinearHead(make(tiny_clip))]
    models += [make(tiny_clip, condition=kind) for kind in ("gain", "shift")]
    objectives = ["silog", "silog+ce:2", "silog+ordinal", "silog+ce", "silog+ce", "silog+ce"]
    learners = [Learner(model, 2, objective=objective) for model, objective in zip(models, objectives, strict=True)]
    (view,) = Stored(store, "value").training(0, [0, 1, 2], 3)
    expected = []
    for learner, weight in zip(learners, (0, 2, 0.5, 0.5, 0.5, 0.5), strict=True):
        model = learner.model
        logits, depth = (form(view.patches, model.text_features(view.patches)) for form in (model.logits, model.depth_from))
        beside = bin_cross_entropy(logits, view.truth, model.centres, ordinal=learner.objective.term == "ordinal")
        expected.append((silog(depth.depth, view.truth) + weight * beside).item())
    assert update(learners, TextPass(models), [view] * 6) == pytest.approx(expected, rel=1e-4)
    assert len(set(expected[:4])) == 4
    assert all(bool((value.grad != 0).any()) for model in models[:5] for value in model.trainable().values())


def test_one_text_pass_for_all_that_share_a_template(tiny_clip, monkeypatch):
    models = [make(tiny_clip), make(tiny_clip, seed=1), make(tiny_clip, depth="path:2:9"), make(tiny_clip, depth="depth-7")]
    texts = TextPass(models)
    calls = []
    monkeypatch.setattr(tiny_clip.text, "after_prefix", lambda *a, f=tiny_clip.text.after_prefix: calls.append(1) or f(*a))
    found = texts([torch.zeros(1, 64, 1, 1)] * 4)
    assert len(calls) == 1
    for model, features in zip(models, found, strict=True):
        assert torch.allclose(features, model.text_features(), atol=1e-6)


def test_fit_learns_and_repeats_itself(tiny_clip, scenes, store):
    def run():
        model = make(tiny_clip)
        return model, fit([Learner(model, 60, lr=0.03)], Stored(store, "value", flip=True), batch_size=4)[0]

    (model, losses), (again, same) = run(), run()
    assert losses == same and torch.equal(model.tokens["depth"], again.tokens["depth"])
    assert sum(losses[-6:]) < sum(losses[:6])
    assert evaluate(model, store).quoted["rmse_log"] < evaluate(make(tiny_clip), store).quoted["rmse_log"]
    with pytest.raises(TrainingError, match="nothing to learn"):
        Learner(make(tiny_clip, depth="depth-7"), 2)


def test_no_model_moves_where_one_has_no_numbers(tiny_clip, message):
    models = [make(tiny_clip), make(tiny_clip, seed=1)]
    learners, texts = [Learner(model, 2) for model in models], TextPass(models)
    good = Batch.on(torch.device("cpu"), torch.randn(2, 64, 2, 3), torch.ones(2, 1, 32, 48))
    for bad, why in (
        (good._replace(patches=good.patches * torch.nan), "use --precision"),
        (good._replace(truth=good.truth * torch.inf), "--lr"),
    ):
        assert why in message(lambda bad=bad: update(learners, texts, [good, bad]), TrainingError)
    for model, seed in zip(models, (42, 1), strict=True):
        assert torch.equal(model.tokens["depth"], make(tiny_clip, seed=seed).tokens["depth"])
    assert [learner.done for learner in learners] == [0, 0]
