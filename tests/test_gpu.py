"""What runs on a GPU, on a real one: the same figures as on the CPU. Skipped where there is none; `test_pretended` needs none."""

from __future__ import annotations

import json

import pytest
import torch

from depthtokens import DepthTokens, load_clip, silog
from depthtokens.experiment.learn import Learner, TextPass, update
from depthtokens.experiment.source import Batch
from depthtokens.features.plan import plan
from depthtokens.features.store import FeatureStore
from depthtokens.features.views import Views
from depthtokens.features.write import write
from helpers import run
from stores import make_folder, opened

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """torch lets a GPU round convolutions to TF32 unless told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def clips():
    """The bundled CLIP on the CPU and on the GPU."""
    return load_clip("bundled"), load_clip("bundled").to("cuda")


@pytest.mark.parametrize("mode", ["layer4", "value", "attnpool"])
def test_depth_and_gradients(clips, mode):
    images, truth = torch.randn(2, 3, 208, 272), 0.5 + 8 * torch.rand(2, 1, 208, 272)
    found = []
    for clip in clips:
        model = DepthTokens(clip, template="1o1d", depth="learned:7", bins="log", dense=mode, seed=1)
        device = clip.text.embedding.weight.device
        out = model(images.to(device))
        silog(out.depth, truth.to(device)).backward()
        found.append((model.text_features(), out.depth, *(value.grad for value in model.trainable().values())))
    for cpu, gpu in zip(*found, strict=True):
        assert (gpu.cpu() - cpu).abs().max() <= 2e-3 * cpu.abs().max()


def test_folded_maps(clips):
    photos = torch.randint(0, 256, (2, 208, 272, 3), dtype=torch.uint8)
    cpu, gpu = (
        DepthTokens(clip, dense="value", depth="metres:20", bins="log").folded().maps(photos.to(device), (208, 272), flip=True)
        for clip, device in zip(clips, ("cpu", "cuda"), strict=True)
    )
    for ours, theirs in zip(cpu, gpu, strict=True):
        assert (theirs.cpu() - ours).abs().max() <= 5e-3 * ours.abs().max()


@pytest.mark.parametrize(("precision", "close"), [("float32", 2e-3), ("bfloat16", 5e-2), ("float16", 1e-2)])
def test_stored_features(clips, tmp_path, precision, close):
    data, found = opened(make_folder(tmp_path / "data", [(208, 272)] * 3)), []
    for clip, device in zip(clips, ("cpu", "cuda"), strict=True):
        planned = plan(clip, data, Views(1, mirrored=True), ["layer4", "value"], precision=precision if device == "cuda" else "float32")
        write(planned, tmp_path / device, workers=0, batch_size=2, device=torch.device(device))
        found.append([FeatureStore(tmp_path / device).read([0, 1, 2], mode) for mode in ("layer4", "value")])
    for cpu, gpu in zip(*found, strict=True):
        assert (gpu - cpu).norm() <= close * cpu.norm()


def test_a_step_waits_once(clips):
    """What `test_pretended` says of a GPU, by torch's own count."""
    models = [DepthTokens(clips[1], depth=f"learned:{n}", dense="value", seed=n) for n in (7, 20)]
    learners, texts = [Learner(model, 9) for model in models], TextPass(models)
    patches, truth = torch.randn(2, 256, 6, 8, device="cuda"), 0.5 + torch.rand(2, 1, 208, 272)
    for _ in range(3):
        batch = Batch.on(torch.device("cuda"), patches, truth)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning) as caught:
                update(learners, texts, [batch] * 2)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [warning for warning in caught if "synchronizing" in str(warning.message)]
    assert len(waits) == 1, [f"{w.filename}:{w.lineno}" for w in waits]


def test_train_evaluate_predict(tmp_path, capsys, monkeypatch):
    """The verbs that take --device, by name; from images and from kept features."""
    monkeypatch.setenv("DEPTHTOKENS_CACHE", str(tmp_path / "cache"))
    run(capsys, "data", "scenes", tmp_path / "scenes", "--count", 40)
    data, scores = f"folder:{tmp_path / 'scenes'}", []
    for device, kept in (("cpu", "--cache"), ("cuda", "--cache"), ("cuda", "--no-cache")):
        out = tmp_path / f"run{len(scores)}"
        code, _, err = run(capsys, "train", "--data", data, "--clip", "bundled", "--dense", "value", "--bins", "log", "--epochs", 2,
                           "--views", 1, "--workers", 0, "--device", device, kept, "--out", out)  # fmt: skip
        assert code == 0, err
        code, said, err = run(capsys, "evaluate", out / "tokens.safetensors", "--data", data, "--workers", 0, "--device", device, kept,
                              "--no-controls", "--json")  # fmt: skip
        assert code == 0, err
        scores.append(json.loads(said)["rows"][0]["image_wise"]["abs_rel"])
    assert scores[1:] == pytest.approx([scores[0]] * 2, rel=0.03)
    code, _, err = run(capsys, "predict", out / "tokens.safetensors", tmp_path / "scenes/test/images", "--device", "cuda",
                       "--out", tmp_path / "maps")  # fmt: skip
    assert code == 0 and list((tmp_path / "maps").iterdir()), err
