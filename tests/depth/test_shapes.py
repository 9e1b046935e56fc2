"""Wrong shapes and types are errors that say what is wanted; released figures for what is right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from depthtokens import DepthTokens, UsageError, silog
from depthtokens.depth.linear import LinearHead
from depthtokens.depth.metrics import MetricAccumulator, Target, depth_metrics
from depthtokens.depth.protocol import find_protocol

ones = torch.ones
TWO, FOUR, MASK = ones(2, 1, 3, 4), ones(2, 1, 6, 8), torch.ones(6, 8, dtype=torch.bool)
AUTY = find_protocol("auty2023")


@pytest.mark.parametrize(("call", "message"), [
    (lambda m: silog(ones(2, 3, 4), FOUR), "silog's depth: needs a tensor [B, 1, h, w], floating point; this is float32 [2, 3, 4]"),
    (lambda m: silog(TWO, ones(2, 6, 8)), "silog's target: needs a tensor [B, 1, H, W], floating point; this is float32 [2, 6, 8]"),
    (lambda m: silog(TWO, ones(4, 1, 6, 8)), "these are 2 maps and 4 targets"),
    (lambda m: silog(ones(2, 7, 3, 4), FOUR), "silog's depth: needs a tensor [B, 1, h, w]"),
    (lambda m: silog(TWO, np.ones((2, 1, 6, 8))), "silog's target: needs a tensor [B, 1, H, W], floating point; this is ndarray"),
    (lambda m: silog(TWO, torch.ones(2, 1, 6, 8, dtype=torch.int32)), "this is int32 [2, 1, 6, 8]"),
    (lambda m: depth_metrics(ones(3), ones(4)), "depth and ground truth: need one shape; these are [3] and [4]"),
    (lambda m: depth_metrics(ones(6, 8), ones(1, 6, 8)), "need one shape"),
    (lambda m: depth_metrics(np.ones(3), ones(3)), "depth: needs a tensor [...], floating point; this is ndarray"),
    (lambda m: depth_metrics([1.0], [1.0]), "target: needs a tensor"),
    (lambda m: Target(ones(6, 8), ones(6, 8)), "valid: needs a tensor [...], bool; this is float32 [6, 8]"),
    (lambda m: Target(ones(1, 6, 8), MASK), "truth and valid: need one shape"),
    (lambda m: Target(ones(6, 8), MASK).moments(ones(3, 4)), "depth and ground truth: need one shape"),
    (lambda m: MetricAccumulator().add({"abs_rel": 1.0}, 3), "by the moments that `Target.moments` gives"),
    (lambda m: MetricAccumulator().add(Target(ones(6, 8), MASK).moments(ones(6, 8)), 0), "1 or more"),
    (lambda m: MetricAccumulator().image_wise(), "no image has been scored yet"),
    (lambda m: MetricAccumulator().pixel_wise(), "no image has been scored yet"),
    (lambda m: AUTY.valid(ones(8), (0.1, 10), None), "needs a tensor [..., H, W]"),
    (lambda m: AUTY.valid(FOUR, (10, 0.1), None), "depth range (10, 0.1): needs two numbers"),
    (lambda m: AUTY.full_size(ones(2, 3, 4), None, (6, 8), (0.1, 10)), "depth: needs a tensor [B, 1, h, w]"),
    (lambda m: AUTY.full_size(TWO, ones(1, 1, 3, 4), (6, 8), (0.1, 10)), "depth and mirrored depth: need one shape"),
    (lambda m: AUTY.full_size(TWO, None, (6, 8), 10.0), "depth range 10.0: needs two numbers"),
    (lambda m: AUTY.predict(lambda x: x, ones(3, 64, 64), (0.1, 10)), "images: needs a tensor [B, 3, H, W]"),
    (lambda m: m(ones(3, 64, 64)), "images: needs a tensor [B, 3, H, W], floating point; this is float32 [3, 64, 64]"),
    (lambda m: m(ones(1, 64, 64, 3)), "images: needs a tensor [B, 3, H, W]"),
    (lambda m: m(torch.ones(1, 3, 64, 64, dtype=torch.uint8)), "`predict` takes photos"),
    (lambda m: m.image_features(ones(1, 1, 64, 64)), "images: needs a tensor [B, 3, H, W]"),
    (lambda m: m.depth_from(ones(64, 3, 4), ones(7, 64)), "patches: needs a tensor [B, C, h, w]"),
    (lambda m: m.depth_from(ones(1, 64, 3, 4), ones(6, 64)), "text: needs [7, 64], a row per bin as wide as the patches; this is [6, 64]"),
    (lambda m: m.depth_from(ones(1, 32, 3, 4), ones(7, 64)), "text: needs [7, 32]"),
    (lambda m: LinearHead(m).depth_from(ones(1, 32, 3, 4), ones(7, 64)), "text: needs [7, 32]"),
    (lambda m: m.fused()(ones(3, 64, 64)), "images: needs a tensor [B, 3, H, W]"),
    (lambda m: m.fused().maps(ones(1, 64, 64, 3), (64, 64)), "photos: needs a tensor [B, H, W, 3], uint8; this is float32 [1, 64, 64, 3]"),
    (lambda m: m.predict(torch.ones(2, 64, 64)), "uint8 [H, W, 3]"),
    (lambda m: m.predict(np.zeros((64, 64, 3), np.uint8), side=64.5), "side 64.5: needs a whole number"),
    (lambda m: m.predict(np.zeros((64, 64, 3), np.uint8), side="64"), "side 64: needs a whole number"),
])  # fmt: skip
def test_what_is_wanted(tiny_clip, call, message):
    with pytest.raises(UsageError) as caught:
        call(DepthTokens(tiny_clip))
    assert message in str(caught.value) and "\n" not in str(caught.value)
