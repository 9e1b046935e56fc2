"""Loss, metrics and protocols against first principles and sklearn-like one-liners in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import DataError, UsageError, silog
from depthtokens.depth.metrics import METRICS, MetricAccumulator, Target, depth_metrics
from depthtokens.depth.protocol import PROTOCOLS, count_not_finite, eigen_crop, find_protocol, garg_crop
from depthtokens.experiment.controls import Controls
from depthtokens.experiment.evaluate import score_heads
from depthtokens.experiment.source import Reading, open_source

metres = st.lists(st.tuples(st.floats(0.01, 80), st.floats(0.01, 80)), min_size=1, max_size=30)


@given(metres)
def test_metrics_against_numpy(pairs):
    d, t = np.array(pairs).T
    ours = depth_metrics(torch.from_numpy(d), torch.from_numpy(t))
    ratio = np.maximum(d / t, t / d)
    expected = {
        "abs_rel": np.mean(np.abs(d - t) / t), "sq_rel": np.mean((d - t) ** 2 / t), "rmse": np.sqrt(np.mean((d - t) ** 2)),
        "rmse_log": np.sqrt(np.mean(np.log(d / t) ** 2)), "rmsl_paper": np.mean(np.log(d / t) ** 2),
        "log10": np.mean(np.abs(np.log10(d) - np.log10(t))),
        "d1": np.mean(ratio < 1.25), "d2": np.mean(ratio < 1.25**2), "d3": np.mean(ratio < 1.25**3),
    }  # fmt: skip
    assert ours.keys() == expected.keys() == set(METRICS)
    for key, value in expected.items():
        assert ours[key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


@given(st.lists(metres, min_size=1, max_size=5))
def test_accumulator_averages_images_and_pools_pixels(images):
    total = MetricAccumulator()
    tensors = [torch.tensor(image, dtype=torch.float64).T for image in images]
    rows = [total.add(Target(t, torch.ones_like(t, dtype=torch.bool)).moments(d), len(t)) for d, t in tensors]
    pooled = depth_metrics(*torch.cat(tensors, dim=1))
    for key in METRICS:
        assert total.image_wise()[key] == pytest.approx(np.mean([row[key] for row in rows]))
        assert total.pixel_wise()[key] == pytest.approx(pooled[key], rel=1e-6, abs=1e-9)


def test_deltas_exactly_at_their_edge():
    """Ratios as BTS and the released code take them; logarithms put depths of whole millimetres on the other side of 1.25."""
    assert depth_metrics(torch.full((5,), 2.5), torch.tensor([2.0, 2.0, 2.0, 3.125, 3.125]))["d1"] == 0
    assert depth_metrics(torch.tensor([1.5625, 1.953125]), torch.ones(2))["d2"] == 0
    millimetres = np.arange(400, 8000, 4)
    truth, pred = (values.astype(np.float32) / np.float32(1000) for values in (millimetres, millimetres * 5 // 4))
    released = np.mean(np.maximum(truth / pred, pred / truth) < np.float32(1.25))
    assert depth_metrics(torch.from_numpy(pred), torch.from_numpy(truth))["d1"] == pytest.approx(released, abs=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_what_is_no_number_gives_no_figure(value):
    truth, depth = torch.ones(4), torch.tensor([1.0, value, 1.0, value])
    with pytest.raises(DataError, match="2 of 4 pixels that count have no predicted depth"):
        depth_metrics(depth, truth)
    with pytest.raises(DataError, match="2 of 4 pixels that count have no ground truth"):
        depth_metrics(truth, depth)
    seen = Target(depth, depth == 1)  # where it does not count it does no harm
    assert seen.moments(torch.full((4,), 2.0))["abs_rel"] == 1 and seen.pixels == 2
    with pytest.raises(DataError, match="no pixel of this ground truth counts"):
        Target(truth, torch.zeros(4, dtype=torch.bool))


def test_perfect_prediction():
    t = torch.rand(100) + 0.1
    scores = depth_metrics(t, t)
    assert all(value == (1 if METRICS[key].higher_is_better else 0) for key, value in scores.items())


@pytest.mark.parametrize("holes", [0.0, 0.3, 0.9])
@pytest.mark.parametrize(("small", "large"), [((3, 5), (17, 23)), ((1, 4), (9, 9)), ((4, 4), (4, 4))])
def test_silog_s_own_gradient_is_autograd_s(holes, small, large):
    """Loss and gradient in one pass, against the formula written out and differentiated by torch."""
    torch.manual_seed(1)
    depth = (0.1 + 9 * torch.rand(3, 1, *small)).requires_grad_()
    target = (0.1 + 9 * torch.rand(3, 1, *large)) * (torch.rand(3, 1, *large) >= holes)
    target[1] = 0  # an image without any truth
    resized = F.interpolate(depth, size=large, mode="bilinear", align_corners=True)
    g = (resized.log() - target.log())[target > 0.001]
    plain = 10 * torch.sqrt((g**2).mean() - 0.85 * g.mean() ** 2)
    loss = silog(depth, target)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    ours, theirs = torch.autograd.grad(3 * loss, depth)[0], torch.autograd.grad(3 * plain, depth)[0]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())
    assert ours[1].abs().max() == 0


def test_silog():
    torch.manual_seed(0)
    depth, target = 1 + torch.rand(2, 1, 3, 4), 5 * torch.rand(2, 1, 12, 16)
    target[0, 0, :6] = 0
    resized = F.interpolate(depth, size=(12, 16), mode="bilinear", align_corners=True)
    g = (resized.log() - target.log())[target > 0.001].double()
    expected = 10 * math.sqrt((g**2).mean() - 0.85 * g.mean() ** 2)
    assert silog(depth, target).item() == pytest.approx(expected, rel=1e-5)
    # A global factor costs only the 0.15 share.
    same = torch.full((1, 1, 4, 4), 2.0)
    assert silog(2 * same, same).item() == pytest.approx(10 * math.sqrt(0.15) * math.log(2), rel=1e-5)
    with pytest.raises(DataError, match="no valid ground truth"):
        silog(depth, torch.zeros(2, 1, 12, 16))


def test_crops():
    assert eigen_crop(480, 640) == (45, 471, 41, 601)
    assert garg_crop(352, 1216) == (143, 349, 43, 1172)
    with pytest.raises(DataError, match="480x640"):
        eigen_crop(240, 320)


def test_valid_pixels():
    target = torch.full((1, 480, 640), 5.0)
    target[0, 100, 100], target[0, 100, 101], target[0, 100, 102] = 10.0, 10.01, 0.001
    auty, depthclip = find_protocol("auty2023"), find_protocol("depthclip")
    valid = auty.valid(target, (0.001, 10.0), "eigen")
    assert valid.sum() == (471 - 45) * (601 - 41) - 2 and valid[0, 100, 100] and not valid[0, 44, 100]
    assert auty.valid(target, (0.001, 10.0), None).sum() == 480 * 640 - 2
    valid = depthclip.valid(target, (0.001, 10.0), "eigen")
    assert valid.sum() == (470 - 56) * (600 - 60) - 3
    assert depthclip.shown(target).shape == (1, 416, 544)
    with pytest.raises(DataError, match="480x640"):
        depthclip.shown(target[..., :400, :])


def test_prediction_is_clamped_flipped_and_cleaned():
    auty = find_protocol("auty2023")
    ramp = torch.tensor([[[[-1.0, 2.0, 30.0]]]])
    images = torch.zeros(1, 3, 4, 9)
    images[..., 0] = 1  # tells the mirrored image from the first
    calls = []

    def network(shown):
        calls.append(shown)
        return ramp

    depth = auty.predict(network, images, (0.5, 10.0))
    assert torch.equal(calls[1], images.flip(-1))
    assert depth.shape == (1, 1, 4, 9)
    assert depth[0, 0, 0, 0] == pytest.approx((0.5 + 10) / 2) and depth[0, 0, 0, 4] == 2.0
    broken = torch.tensor([[[[float("nan"), float("inf"), 1.0]]]])
    assert auty.predict(lambda _: broken, images, (0.5, 10.0))[0, 0, 0, 0] == 0.5
    assert count_not_finite(broken, None) == 2 and count_not_finite(broken, broken) == 4 and count_not_finite(ramp) == 0


def test_protocols_are_data():
    assert set(PROTOCOLS) == {"auty2023", "pooled", "depthclip"}
    for protocol in PROTOCOLS.values():
        assert {"name", "source", "depth_range", "input_crop", "valid_crop", "flip", "average", "resize"} <= protocol.to_dict().keys()
    with pytest.raises(UsageError, match="did you mean 'auty2023'"):
        find_protocol("auty2022")


class Truth:
    """A data set of three images, one without depth, one of another size."""

    name, split, depth_range, eval_crop = "made up", "test", (0.1, 10.0), None
    names = ("a", "empty", "wide")

    def __len__(self):
        return 3

    def __getitem__(self, i):
        from depthtokens.data.dataset import Sample

        h, w = (32, 64) if i == 2 else (32, 32)
        return Sample(torch.zeros(3, h, w), torch.zeros(1, h, w) if i == 1 else torch.full((1, h, w), 2.0), i)


def test_score(tmp_path):
    heads = {"three": lambda x: torch.full((len(x), 1, 1, 1), 3.0)}
    controls = Controls(3.0, torch.tensor([[[[2.0, 3.0]]]]), 1)
    found = score_heads(heads, open_source(None, Truth(), None, Reading(workers=0)), "auty2023", controls)
    assert list(found) == ["three", "constant", "mean map"] and found["constant"].image_wise == found["three"].image_wise
    assert found["mean map"].protocol.flip is False and found["three"].protocol.flip is True
    assert found["mean map"].image_wise["abs_rel"] == pytest.approx(0.25)
    scores = found["three"]
    assert scores.skipped == ["empty"] and [row["name"] for row in scores.per_image] == ["a", "wide"]
    assert scores.quoted["abs_rel"] == pytest.approx(0.5) and scores.quoted["d2"] == 1 and scores.quoted["d1"] == 0
    scores.save_csv(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == ",".join(["name", *METRICS, "protocol"])
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 3


def test_scores_count_what_was_no_number():
    def broken(patches):
        depth = torch.full((len(patches), 1, 2, 2), 3.0)
        depth[0, 0, 0, 0] = float("nan")
        return depth

    heads = {"broken": broken, "whole": lambda x: torch.full((len(x), 1, 2, 2), 3.0)}
    found = score_heads(heads, open_source(None, Truth(), None, Reading(workers=0, batch_size=1)), "auty2023")
    assert found["broken"].not_finite == 2 * 3 and found["whole"].not_finite == 0  # mirrored too, in each of three images
    assert found["broken"].to_dict()["not_finite"] == 6
