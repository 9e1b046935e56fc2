"""What runs on a GPU, on one that is pretended: nothing lies on the wrong device, and nothing waits for it but one read per step."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from depthtokens import bin_cross_entropy, silog
from depthtokens.experiment.learn import Learner, TextPass, update
from depthtokens.experiment.source import Batch
from depthtokens.features.plan import plan
from depthtokens.features.views import Views
from depthtokens.features.write import write
from helpers import make_model
from pretended import CUDA, bring, pretended
from stores import make_folder, opened

KINDS = {"vectors": {}, "context": {"template": "1o1d"}, "words": {"depth": "depth-7", "scale": "learned"}, "path": {"depth": "path:3:6"}}
"""Models whose text passes differ: words alone before the vectors, vectors before them, none, and vectors made of others."""


@pytest.fixture(params=["tiny_clip", "vit_clip"])
def clip(request):
    """A CLIP of its own for each test, which leaves its weights on the pretended GPU."""
    return copy.deepcopy(request.getfixturevalue(request.param))


def there(*shape):
    return torch.empty(shape, device=CUDA)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: bool((x > 0).any()), lambda x: x.cpu(), lambda x: torch.zeros(3).copy_(x),
        lambda x: torch.equal(x, x),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inference", [False, True])
def test_waiting_is_noted(waiting, inference):
    with pretended() as gpu, torch.inference_mode(inference):
        waiting(there(3))
    assert gpu.waits and all(f"{__file__}:" in wait for wait in gpu.waits)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.zeros(3), lambda x: F.embedding(torch.zeros(1, dtype=torch.int64), x), lambda x: x[torch.zeros(1).long()],
        lambda x: torch.cat([x, torch.zeros(3, 3)]), lambda x: F.linear(torch.zeros(2, 3), x),
    ],
)  # fmt: skip
def test_what_mixes_devices_raises(mixed):
    with pretended(), pytest.raises(RuntimeError, match="same device"):
        mixed(there(3, 3))


def test_gradients_without_torch_s_engine():
    """They have the shapes and reach the places that torch's have and reach."""
    with pretended() as gpu:
        a, b = (torch.nn.Parameter(there(*shape)) for shape in ((4, 1), (3,)))
        ((a * b).softmax(dim=0).unbind(1)[0] + a[:, 0]).sum().backward()
        assert (a.grad.shape, b.grad.shape, a.grad.device, gpu.waits) == (a.shape, b.shape, CUDA, [])


def test_text(tiny_clip):
    models = {kind: make_model(copy.deepcopy(tiny_clip), **settings) for kind, settings in KINDS.items()}
    with pretended() as gpu:
        for kind, model in models.items():
            bring(model)
            with torch.inference_mode():
                model.text_features()
            gpu.sent.clear()
            assert model.text_features().device == CUDA
            assert not gpu.waits and not gpu.sent, kind  # all that it needs is there
        with torch.no_grad():
            assert models["words"].encoder(["far", ["near", there(64)]]).device == CUDA and not gpu.waits


@pytest.mark.parametrize("kinds", [["context"], ["words"], ["vectors", "path"]])
def test_a_step_waits_once(tiny_clip, kinds):
    clip = copy.deepcopy(tiny_clip)
    models, truth = [make_model(clip, **KINDS[kind]) for kind in kinds], torch.ones(2, 1, 32, 48)
    with pretended() as gpu:
        for model in models:
            bring(model)
        learners, texts = [Learner(model, 9) for model in models], TextPass(models)
        for step in range(2):
            gpu.sent.clear()
            batch = Batch.on(CUDA, there(2, 64, 2, 3), truth)
            update(learners, texts, [batch] * len(models))
            assert len(gpu.waits) == step + 1, gpu.waits
        assert len(gpu.sent) == 1  # the truth
        assert all(value.grad.device == value.device == CUDA for model in models for value in model.trainable().values())
        losses = update(learners, texts, [Batch.on(CUDA, batch.patches, 0 * truth)] * len(models))
        assert all(loss != loss for loss in losses) and len(gpu.waits) == 2  # no truth, no step, and the GPU was not asked


def test_images_to_depth(clip):
    """Forward and loss; the folded network and its full-size maps."""
    model, adapting = (make_model(clip, batchnorm=kind) for kind in ("frozen", "adapt"))
    folded = model.folded()
    with pretended() as gpu:
        for module in (model, adapting, folded):
            bring(module)
        model.text_features()
        gpu.sent.clear()
        with torch.no_grad():
            depth = model(there(2, 3, 64, 96)).depth
        maps = folded.maps(torch.empty(2, 64, 96, 3, dtype=torch.uint8, device=CUDA), (64, 96), flip=True)
        adapting.train().image_features(there(2, 3, 64, 96))
        assert all(values.device == CUDA for values in (depth, *maps)) and not gpu.waits and not gpu.sent
        truth = there(2, 1, 64, 96)
        beside = [bin_cross_entropy(there(2, 5, 2, 3), truth, model.centres, ordinal=ordinal) for ordinal in (False, True)]
        assert all(loss.device == CUDA for loss in (silog(depth, truth), *beside)) and not gpu.waits


def test_extraction_reads_features_and_nothing_else(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("depthtokens.features.write.find_device", torch.device)
    data = opened(make_folder(tmp_path / "data", [(64, 96)] * 3))
    planned = plan(clip, data, Views(1, mirrored=True), list(clip.image.modes))
    monkeypatch.setattr("depthtokens.features.write.quick", lambda tower: tower)  # pretended weights have no other order
    monkeypatch.setattr(clip.visual, "to", lambda device: None, raising=False)  # nor can they be brought where they are
    with pretended() as gpu:
        bring(clip)
        write(planned, tmp_path / "store", workers=0, batch_size=2, device=CUDA)
    # Two batches; of each view and mode directions and lengths come back.
    assert len(gpu.sent) == 2 and len(gpu.waits) == 2 * 2 * 2 * len(clip.image.modes), (gpu.sent, gpu.waits)
