"""Agreement with the authors' released code: same weights, same inputs, same figures, inside the reference's own tolerances."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from depthtokens import DepthTokens, evaluate, make_optimizer, silog
from depthtokens.data import open_dataset
from depthtokens.depth.metrics import MetricAccumulator, Target
from depthtokens.depth.protocol import find_protocol
from helpers import REFERENCE, SHARED, needs_data

TEMPLATES = {
    "paper-v1": "baseline",
    "paper": "depthclip",
    "learned-static-4o4d": "4o4d",
    "learned-static-1o1d": "1o1d",
    "learned-static-1o2d": "1o2d",
}
DEPTH = {"depth-7": "depth-7", "learned-static-7": "learned:7", "learned-static-20": "learned:20", "paper": "depthclip"}
BINS = {"dset-even-7": "linear:7", "dset-log-7": "log:7", "dset-log-20": "log:20", "paper": "depthclip"}
RANGES = {"nyu": (0.001, 10.0), "kitti": (0.001, 80.0)}
NAMES = {"abs_rel": "abs_rel", "sq_rel": "sq_rel", "rms": "rmse", "rmsl_paper": "rmsl_paper", "rmsl": "rmse_log", "log10": "log10",
         "d1": "d1", "d2": "d2", "d3": "d3"}  # fmt: skip


def read(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())


def make_model(clip, template, depth, bins, dataset, seeds, batchnorm="frozen"):
    model = DepthTokens(clip, template=TEMPLATES[template], depth=DEPTH[depth], bins=BINS[bins], depth_range=RANGES[dataset],
                        batchnorm=batchnorm)  # fmt: skip
    for kind, ours in (("prompt", "context"), ("depth", "depth")):
        if ours in model.tokens:
            values = 0.02 * np.random.default_rng([*seeds, len(kind)]).standard_normal(tuple(model.tokens[ours].shape))
            model.tokens[ours].data = torch.from_numpy(values.astype(np.float32))
    return model


def close_metrics(ours, theirs):
    for key, value in theirs.items():
        assert ours[NAMES[key]] == pytest.approx(value, abs=1e-4, rel=1e-4), key


@pytest.mark.parametrize("i", range(5))
def test_model(reference_clip, i):
    case, arrays = read("model")["cases"][i], np.load(REFERENCE / "model.npz")
    model = make_model(reference_clip, case["templates"], case["depth_tokens"], case["centres"], case["dataset"], [11, 2000 + i])
    rng = np.random.default_rng([11, 1000 + i])
    h, w = case["hw"]
    images = torch.from_numpy(rng.standard_normal((2, 3, h, w)).astype(np.float32))
    lo, hi = (0.5, 9.0) if case["dataset"] == "nyu" else (2.0, 75.0)
    truth = (lo + (hi - lo) * rng.random((2, 1, h, w))).astype(np.float32)
    truth[rng.random(truth.shape) < 0.3] = 0
    target = torch.from_numpy(truth)

    ids = arrays[f"c{i}/token_ids"]
    width = min(ids.shape[1], model.layout.ids.shape[1])
    word = (ids[:, :width] < 49408) & (model.layout.slots.numpy()[:, :width] < 0)
    assert ((ids[:, :width] >= 49408) == (model.layout.slots.numpy()[:, :width] >= 0)).all()
    assert (ids[:, :width] == model.layout.ids.numpy()[:, :width])[word].all()
    assert model.centres.numpy() == pytest.approx(arrays[f"c{i}/bin_centres"].squeeze(), rel=1e-6)
    text = model.text_features()
    count = len(model.centres)
    assert text.detach().T.numpy() / math.sqrt(count) == pytest.approx(arrays[f"c{i}/text_features"], abs=1e-5)
    out = model(images)
    assert out.depth.detach().numpy() == pytest.approx(arrays[f"c{i}/depth"].reshape(out.depth.shape), abs=1e-3)
    assert out.probs.detach().sum(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    loss = silog(out.depth, target)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-4)
    if model.trainable():
        loss.backward()
    for kind, ours in (("prompt", "context"), ("depth", "depth")):
        if f"c{i}/grad_{kind}" in arrays:
            expected = arrays[f"c{i}/grad_{kind}"]
            found = model.tokens[ours].grad.numpy().reshape(expected.shape)
            assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()

    protocol, depth_range = find_protocol("auty2023"), RANGES[case["dataset"]]
    crop = {"nyu": "eigen", "kitti": "garg"}[case["dataset"]]
    with torch.no_grad():
        full = protocol.predict(lambda x: model(x).depth, images, depth_range)
    valid = protocol.valid(target, depth_range, crop)
    scores = MetricAccumulator()
    for depth, true, mask in zip(full, target, valid, strict=True):
        scores.add(Target(true, mask).moments(depth), int(mask.sum()))
    close_metrics(scores.image_wise(), case["metrics_image_wise"])
    close_metrics(scores.pixel_wise(), case["metrics_pixel_wise"])


@pytest.mark.parametrize("run", range(3))
def test_training(reference_clip, run):
    case, arrays = read("training")["runs"][run], np.load(REFERENCE / "training.npz")
    model = make_model(reference_clip, case["template"], case["depth_tokens"], case["bins"], "nyu", [11, 7000 + run], case["batchnorm"])
    optimizer, scheduler = make_optimizer(model, 20, lr=case["lr"])
    losses = []
    model.train()
    for step in range(20):
        r = np.random.default_rng([11, 8000, step])
        images = torch.from_numpy(r.standard_normal((2, 3, 128, 160)).astype(np.float32))
        truth = (0.5 + 8.5 * r.random((2, 1, 128, 160))).astype(np.float32)
        truth[r.random(truth.shape) < 0.3] = 0
        loss = silog(model(images).depth, torch.from_numpy(truth))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(model.trainable().values()), 0.1)
        optimizer.step()
        if step < 19:
            scheduler.step()
        losses.append(loss.item())
    assert losses == pytest.approx(arrays[f"r{run}/losses"].tolist(), rel=1e-4)
    assert losses[0] == pytest.approx(case["first_loss"], rel=1e-4)
    assert losses[-1] == pytest.approx(case["last_loss"], rel=1e-4)
    for kind, ours in (("prompt", "context"), ("depth", "depth")):
        if f"r{run}/final_{kind}" in arrays:
            assert model.tokens[ours].detach().numpy() == pytest.approx(arrays[f"r{run}/final_{kind}"], abs=1e-4)
    if f"r{run}/bn1_running_mean" in arrays:
        assert model.visual.bn1.running_mean.numpy() == pytest.approx(arrays[f"r{run}/bn1_running_mean"], rel=1e-4, abs=1e-6)
        assert not torch.equal(model.visual.bn1.running_mean, reference_clip.visual.bn1.running_mean)


def evaluation_data(name, tmp_path):
    data = SHARED / "data"
    if name == "nyu":
        indices = sorted(path.stem.removeprefix("rgb_") for path in (data / "nyuv2_sync").glob("rgb_*.jpg"))
        lines = [f"rgb_{i}.jpg sync_depth_{i}.png 518.8579" for i in indices]
        root = data / "nyuv2_sync"
    else:
        root = data / "kitti"
        drive = "2011_09_26_drive_0001_sync"
        lines = [f"2011_09_26/{drive}/image_02/data/{i:010d}.png {drive}/proj_depth/groundtruth/image_02/{i:010d}.png 721.5377"
                 for i in range(5, 17)]  # fmt: skip
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return open_dataset(f"{name}:{root}", "test", list_file=tmp_path / "list.txt")


@needs_data
@pytest.mark.parametrize("i", range(4))
def test_evaluation_on_real_files(reference_clip, tmp_path, i):
    case = read("evaluation")["runs"][i]
    config = case["config"]
    model = make_model(reference_clip, config["template"], config["depth_tokens"], config["bins"], config["dataset"], [11, 5000])
    dataset = evaluation_data(config["dataset"], tmp_path)
    assert len(dataset) == case["images"]
    scores = evaluate(model, dataset, "auty2023", workers=0)
    close_metrics(scores.image_wise, case["image_wise"])
    close_metrics(scores.pixel_wise, case["pixel_wise"])
    pooled = evaluate(model, dataset, "pooled", workers=0)
    assert pooled.quoted == pooled.pixel_wise == scores.pixel_wise
