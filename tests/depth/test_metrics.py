"""Metrics against one-liners in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthtokens import DataError
from depthtokens.depth.metrics import METRICS, MetricAccumulator, Target, depth_metrics

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
